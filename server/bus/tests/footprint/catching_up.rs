//! Inboxes that catch up after a restart read what is theirs, and not the log that all of them share.

use std::time::{Duration, Instant};

use acb_proto::v1;
use acb_testkit::{
    Server,
    raw::{ConsumeSession, Opening, PublishSession, RawClient, answer},
    wait::within,
};

use super::{asked, client, mib, options};

/// Inboxes, unless `ACB_FOOTPRINT_INBOXES` says otherwise.
const INBOXES: u64 = 10_000;
/// What others wrote into the same log for each message of an inbox.
const OTHERS_PER_INBOX: u64 = 20;
/// Payload of all messages.
const PAYLOAD: usize = 200;
/// Bytes read for one inbox's one message: its batch and its place in the segment's index. To read the log from its
/// beginning would take half of it on average: some 25 MiB an inbox.
const READ_PER_INBOX_MAX: u64 = 2 * 1024;
/// Connections, and inboxes on each at once: below the streams that a connection may have open.
const CONNECTIONS: u64 = 16;
const AT_ONCE: usize = 32;
/// Longest for all of them to register, and to catch up.
const REGISTERED_WITHIN: Duration = Duration::from_mins(1);
const CAUGHT_UP_WITHIN: Duration = Duration::from_mins(1);

fn agent(i: u64) -> String {
    format!("agent-{i}")
}

fn to(agent: &str) -> v1::Message {
    v1::Message { topic: format!("$acb.inbox.{agent}"), payload: vec![7; PAYLOAD].into(), ..Default::default() }
}

/// Does something for each inbox, many at once.
async fn for_each<F, Fut>(server: &Server, inboxes: u64, limit: Duration, what: &str, work: F)
where
    F: Fn(RawClient, u64) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let mut connections = tokio::task::JoinSet::new();
    for c in 0..CONNECTIONS {
        let (bus, work) = (client(server, &format!("connection-{c}")).await, work.clone());
        connections.spawn(async move {
            let mut running = tokio::task::JoinSet::new();
            for i in (c..inboxes).step_by(CONNECTIONS as usize) {
                if running.len() == AT_ONCE {
                    running.join_next().await.unwrap().unwrap();
                }
                running.spawn(work(bus.clone(), i));
            }
            running.join_all().await;
        });
    }
    within(what, limit, connections.join_all()).await.unwrap();
}

/// The same connection as the inbox's own agent.
fn owner(bus: &RawClient, i: u64) -> RawClient {
    bus.with_identity(&acb_testkit::raw::Identity::dev("default", agent(i))).unwrap()
}

async fn register(bus: &RawClient, id: String) {
    let spec = Some(v1::AgentSpec { id, ..Default::default() });
    answer(bus.agents().register_agent(v1::RegisterAgentRequest { spec })).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_inboxes_that_catch_up_after_a_restart_read_only_their_own() {
    let inboxes = asked("ACB_FOOTPRINT_INBOXES", INBOXES);
    let mut server = options().start().await.unwrap();
    let started = Instant::now();
    for_each(&server, inboxes, REGISTERED_WITHIN, "the registrations", |bus, i| async move {
        register(&owner(&bus, i), agent(i)).await;
    })
    .await;
    let busy = client(&server, "busy").await;
    register(&busy, "busy".to_owned()).await;
    let registered = started.elapsed();
    // One message for each, between twenty for somebody who does not fetch them.
    let mut producer = PublishSession::open(&busy, [1; 16], 1, 0).await.unwrap();
    for i in 0..inboxes {
        // A frame of its own each: what was written together is read together.
        for frame in [vec![to("busy"); OTHERS_PER_INBOX as usize], vec![to(&agent(i))]] {
            producer.send(frame, v1::Durability::Written).await.unwrap();
        }
    }
    let last = producer.next_counter() - 1;
    producer.outcome(last).await.unwrap();
    let published = started.elapsed();
    server.stop().await.unwrap();
    server.restart().await.unwrap();
    let restarted = server.started_in();
    let before = read_bytes(&server).await;
    let catching_up = Instant::now();
    for_each(&server, inboxes, CAUGHT_UP_WITHIN, "the inboxes", |bus, i| async move {
        let opening = Opening {
            subscription: format!("$inbox.{}", agent(i)),
            session: uuid::Uuid::new_v4().into_bytes(),
            incarnation: 1,
            credit_messages: 64,
            credit_bytes: 1 << 20,
            ..Default::default()
        };
        let mut session = ConsumeSession::open(&owner(&bus, i), &opening).await.unwrap();
        let message = session.message().await.unwrap();
        assert_eq!(message.message.topic, format!("$acb.inbox.{}", agent(i)));
        session.ack_confirmed(message.seq).await.unwrap();
        session.leave().await.unwrap();
    })
    .await;
    let took = catching_up.elapsed();
    let metrics = server.admin().metrics().await.unwrap();
    let (log, read) = (metrics.sum("acb_log_bytes", &["class=\"inbox\""]) as u64, read_bytes(&server).await - before);
    let each = read / inboxes;
    eprintln!(
        "{inboxes} inboxes: registered in {registered:.1?}, {last} messages published by {published:.1?}, {:.0} MiB of log; \
         restart {restarted:.1?}; caught up in {took:.1?} with {:.1} MiB read, {each} bytes each",
        mib(log),
        mib(read),
    );
    let out = metrics.sum("acb_messages_out_total", &["class=\"inbox\""]) as u64;
    assert_eq!(out, inboxes, "each had its one message, and nobody anything else");
    assert!(
        read > inboxes * PAYLOAD as u64,
        "{read} bytes are less than the messages have: what is it that is counted?"
    );
    assert!(each <= READ_PER_INBOX_MAX, "{each} bytes were read for each inbox, of a log of {log}");
}

async fn read_bytes(server: &Server) -> u64 {
    server.admin().metrics().await.unwrap().sum("acb_log_read_bytes_total", &["class=\"inbox\""]) as u64
}
