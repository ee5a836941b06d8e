//! Sync before acknowledgement, seen from the kernel's side.

use acb_crash::trace::{finished, prove, traced};
use acb_proto::v1::{
    self,
    Durability::{Synced, Written},
};
use acb_testkit::{
    ServerOptions,
    raw::{Identity, Outcome, PublishSession, RawClient},
};

/// Frames of each phase.
const FRAMES: usize = 60;
/// Frames that are on their way at once.
const WINDOW: usize = 6;

fn marker(number: u64) -> String {
    format!("<trace-{number:06}>")
}

/// Publishes frames of 1 to 5 messages at levels in turn, and waits for all answers.
async fn publish(session: &mut PublishSession, levels: &[v1::Durability]) {
    let mut open = std::collections::VecDeque::new();
    for frame in 0..FRAMES {
        let first = session.next_counter();
        let count = 1 + (frame % 5) as u64;
        let messages = (first..first + count).map(|number| v1::Message {
            topic: "trace.a".into(),
            payload: marker(number).into(),
            ..Default::default()
        });
        session.send(messages.collect(), levels[frame % levels.len()]).await.unwrap();
        open.extend(first..first + count);
        while open.len() > WINDOW * 3 {
            answered(session, open.pop_front().unwrap()).await;
        }
    }
    for number in open {
        answered(session, number).await;
    }
}

async fn answered(session: &mut PublishSession, number: u64) {
    match session.outcome(number).await.unwrap() {
        Outcome::Stored(stored) => assert!(!stored.duplicate),
        Outcome::Refused(why) => panic!("{number}: {why}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_synced_ack_leaves_after_a_completed_sync_and_every_written_ack_after_a_completed_write() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("trace");
    let options = ServerOptions::default().real_clock();
    let mut server = traced(options, &file).unwrap().start().await.unwrap();
    let pid = server.pid().unwrap();
    let client = RawClient::connect(server.address(), &Identity::dev("default", "tracer")).await.unwrap();
    let mut session = PublishSession::open(&client, [7; 16], 1, 0).await.unwrap();
    publish(&mut session, &[Written]).await;
    publish(&mut session, &[Synced]).await;
    publish(&mut session, &[Written, Synced, Written, Written, Synced]).await;
    let messages = session.next_counter() - 1;
    drop((session, client));
    assert!(server.stop().await.unwrap().success());

    let calls = finished(&file, pid).await.unwrap();
    let proof = prove(&calls, marker).unwrap();
    println!(
        "{messages} messages in {} calls: {} acks after their sync, {} after their write, {} of these before any sync",
        calls.len(),
        proof.synced,
        proof.written,
        proof.written_unsynced
    );
    assert!(proof.wrong.is_empty(), "acknowledged too early:\n{}", proof.wrong.join("\n"));
    assert_eq!((proof.synced + proof.written) as u64, messages, "every message is acknowledged once");
    // Both levels were really there, and a written ack does not wait for a disk.
    assert!(proof.synced > FRAMES && proof.written > FRAMES, "{proof:?}");
    assert!(proof.written_unsynced > 0, "{proof:?}");
}
