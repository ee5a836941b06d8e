//! Many publishes of one idempotency key at the same moment: one record, whoever comes first, also when the server is
//! killed in the middle and all of them try again.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use acb_proto::v1;
use acb_testkit::{
    Server,
    raw::{ConsumeSession, Failure, Identity, Opening, Outcome, PublishSession, RawClient, answer},
    wait::{PATIENCE, within},
};
use tokio::sync::{Barrier, mpsc};

use super::support::{Code, Log, client, dev, good, is, options, session_id};

/// Publishes at once.
const RIVALS: usize = 64;
/// Longest that all of them may take, the server's restart included.
const ALL_WITHIN: Duration = Duration::from_secs(30);
const CONFLICT: Code = (304, "idempotency_conflict");
const TOPIC: &str = "once";

fn keyed(body: &str) -> v1::Message {
    v1::Message { idempotency_key: "the-key".to_owned(), payload: body.to_owned().into(), ..good(TOPIC) }
}

/// Where a message is, and whether this publish put it there.
type Placed = (String, bool);

/// Publishes once: every other rival by the unary call, the others over a hot stream of their own.
async fn publish(client: &RawClient, rival: usize, body: &str, level: v1::Durability) -> Result<Placed, Failure> {
    if rival.is_multiple_of(2) {
        let request = v1::SendRequest { message: Some(keyed(body)), durability: level as i32 };
        let sent = answer(client.messages().send(request)).await?;
        return Ok((sent.message_id, !sent.duplicate));
    }
    let mut session = PublishSession::open(client, session_id(), 1, 0).await?;
    match session.publish(vec![keyed(body)], level).await?.remove(0) {
        Outcome::Stored(at) => Ok((at.id.unwrap_or_default(), !at.duplicate)),
        Outcome::Refused(failure) => Err(failure),
    }
}

/// Publishes until there is an answer of the bus.
async fn persist(address: SocketAddr, rival: usize, level: v1::Durability) -> Placed {
    loop {
        let attempt = async {
            let client = RawClient::connect(address, &Identity::dev("default", "sender")).await?;
            publish(&client, rival, "body", level).await
        };
        match attempt.await {
            Ok(placed) => return placed,
            // Nobody there: the server is on its way back.
            Err(failure) if failure.is_lost() || failure.retryable => {
                tokio::time::sleep(acb_testkit::wait::LOOK_AGAIN).await;
            }
            Err(failure) => panic!("rival {rival}: {failure}"),
        }
    }
}

/// All messages of the topic, from the log's beginning, by id.
async fn kept(server: &Server) -> Vec<String> {
    let bus = client(server, "reader").await;
    let spec = v1::SubscriptionSpec {
        filters: vec![TOPIC.to_owned()],
        start_at: v1::StartAt::All as i32,
        ..Default::default()
    };
    let opening = Opening {
        ephemeral: Some(spec),
        session: session_id(),
        credit_messages: 1000,
        credit_bytes: 1 << 20,
        ..Default::default()
    };
    let mut session = ConsumeSession::open(&bus, &opening).await.unwrap();
    // A last message says that everything before it has come.
    let last = v1::SendRequest { message: Some(good(TOPIC)), durability: v1::Durability::Written as i32 };
    let last = answer(bus.messages().send(last)).await.unwrap().message_id;
    let mut ids = Vec::new();
    loop {
        let id = session.message().await.unwrap().id();
        if id == last {
            return ids;
        }
        ids.push(id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_publishes_of_one_key_one_is_stored_and_all_are_told_where() {
    let server = dev().await;
    let bus = client(&server, "sender").await;
    let log = Log::mark(&server, &bus).await;
    let start = Arc::new(Barrier::new(RIVALS));
    let mut rivals = tokio::task::JoinSet::new();
    for rival in 0..RIVALS {
        let (start, client) = (Arc::clone(&start), client(&server, "sender").await);
        rivals.spawn(async move {
            start.wait().await;
            publish(&client, rival, "body", v1::Durability::Synced).await.unwrap()
        });
    }
    let placed = within("64 publishes", ALL_WITHIN, rivals.join_all()).await.unwrap();
    let ids: BTreeSet<&str> = placed.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(placed.iter().filter(|(_, first)| *first).count(), 1, "one of them stored it");
    log.grew_by(1, &server, &bus).await;
    assert_eq!(kept(&server).await, Vec::from_iter(ids));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_bodies_under_one_key_one_wins_and_the_other_is_a_conflict_for_everybody() {
    let server = dev().await;
    let bus = client(&server, "sender").await;
    let log = Log::mark(&server, &bus).await;
    let start = Arc::new(Barrier::new(RIVALS));
    let mut rivals = tokio::task::JoinSet::new();
    for rival in 0..RIVALS {
        let (start, client) = (Arc::clone(&start), client(&server, "sender").await);
        rivals.spawn(async move {
            // Both ways of publishing under both bodies.
            let body = if rival % 4 < 2 { "one" } else { "two" };
            start.wait().await;
            (body, publish(&client, rival, body, v1::Durability::Written).await)
        });
    }
    let outcomes = within("64 publishes", ALL_WITHIN, rivals.join_all()).await.unwrap();
    let mut won = BTreeSet::new();
    let mut first = 0;
    for (body, outcome) in &outcomes {
        match outcome {
            Ok((_, stored)) => {
                won.insert(*body);
                first += u32::from(*stored);
            }
            Err(failure) => is("the other body", failure, CONFLICT),
        }
    }
    assert_eq!((won.len(), first), (1, 1), "{outcomes:?}");
    let told = outcomes.iter().filter(|(body, outcome)| won.contains(body) == outcome.is_ok()).count();
    assert_eq!(told, RIVALS, "each body has one answer: {outcomes:?}");
    log.grew_by(1, &server, &bus).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_among_64_publishes_of_one_key_leaves_one_record() {
    // The kill comes when nobody, when the first and when half of them have their answer.
    for answered in [0, 1, RIVALS / 2] {
        for level in [v1::Durability::Written, v1::Durability::Synced] {
            let mut server = options().real_clock().start().await.unwrap();
            let address = server.address();
            let (tell, mut told) = mpsc::channel(RIVALS);
            let mut rivals = tokio::task::JoinSet::new();
            for rival in 0..RIVALS {
                let tell = tell.clone();
                rivals.spawn(async move {
                    let placed = persist(address, rival, level).await;
                    let _ = tell.send(()).await;
                    placed
                });
            }
            for _ in 0..answered {
                within("an answer", PATIENCE, told.recv()).await.unwrap();
            }
            server.kill().await.unwrap();
            server.restart().await.unwrap();
            let placed = within("64 publishes over a kill", ALL_WITHIN, rivals.join_all()).await.unwrap();
            let what = format!("killed after {answered} answers, {level:?}");
            let ids: BTreeSet<&str> = placed.iter().map(|(id, _)| id.as_str()).collect();
            assert_eq!(ids.len(), 1, "{what}: {ids:?}");
            // The one who stored it may have lost its answer to the kill.
            assert!(placed.iter().filter(|(_, first)| *first).count() <= 1, "{what}: {placed:?}");
            assert_eq!(kept(&server).await, Vec::from_iter(ids), "{what}");
        }
    }
}
