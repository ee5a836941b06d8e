//! Presence of many at once.

use std::{collections::BTreeMap, time::Duration};

use acb_sdk::{AgentEvent, AgentPresence, AgentWatch};
use acb_testing::FakeBus;

const AGENTS: usize = 1000;

/// The next so many changes of presence, counted by agent.
async fn changes(watch: &mut AgentWatch, count: usize, to: AgentPresence) -> BTreeMap<String, usize> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..count {
        let event = tokio::time::timeout(Duration::from_secs(20), watch.next()).await.expect("as many as agents");
        match event.unwrap().unwrap() {
            AgentEvent::Presence(agent) if agent.presence == to => *seen.entry(agent.spec.id).or_default() += 1,
            other => panic!("not a change to {to:?}: {other:?}"),
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_agents_that_die_at_once_are_told_once_each() {
    let bus = FakeBus::start().await.unwrap();
    let line = bus.network();
    let mut clients = Vec::new();
    for n in 0..AGENTS {
        let id = format!("agent-{n:04}");
        let client = line.client(&id).connect().await.unwrap();
        client.agents().register(&id).await.unwrap();
        let inbox = client.inbox().await.unwrap();
        // A second stream: an agent is gone when its last one is.
        client.messages().publish("alive.now", id).confirm().await.unwrap();
        clients.push((client, inbox));
    }
    let watcher = bus.client("watcher").connect().await.unwrap();
    let mut watch = watcher.agents().watch().open().await.unwrap();
    for _ in 0..AGENTS {
        let event = watch.next().await.unwrap().unwrap();
        assert!(matches!(&event, AgentEvent::State(agent) if agent.presence == AgentPresence::Active), "{event:?}");
    }
    assert!(matches!(watch.next().await.unwrap().unwrap(), AgentEvent::Synced(_)));

    line.part();
    let began = std::time::Instant::now();
    let suspects = changes(&mut watch, AGENTS, AgentPresence::Suspect).await;
    assert!(suspects.len() == AGENTS && suspects.values().all(|n| *n == 1), "{} agents", suspects.len());
    bus.advance(Duration::from_millis(30_001)).unwrap();
    let gone = changes(&mut watch, AGENTS, AgentPresence::Offline).await;
    assert!(gone.len() == AGENTS && gone.values().all(|n| *n == 1), "{} agents", gone.len());
    println!("1,000 agents gone, 2,000 events: {:?}", began.elapsed());
    bus.advance(Duration::from_hours(1)).unwrap();
    let more = tokio::time::timeout(Duration::from_millis(50), watch.next()).await;
    assert!(more.is_err(), "{more:?}");
}
