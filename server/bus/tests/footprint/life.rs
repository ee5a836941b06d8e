//! How long the server takes to end. How long it takes to begin: `it::program`.

use std::time::{Duration, Instant};

use acb_proto::v1;
use acb_testkit::{
    raw::{ConsumeSession, Opening, PublishSession},
    wait::{Level, wait_until},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{client, options};

/// What the server under test is given to drain in.
const DRAIN: Duration = Duration::from_secs(1);
/// The same, its last frames, closing the logs, and a slow machine.
const ENDS_WITHIN: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_told_to_stop_ends_in_its_time_whatever_its_clients_do() {
    let mut server = options().arg("--set").arg("shutdown.drain_timeout=1s").start().await.unwrap();
    let bus = client(&server, "publisher").await;
    let spec = v1::SubscriptionSpec { filters: vec!["t".to_owned()], ..Default::default() };
    let opening = Opening {
        ephemeral: Some(spec),
        session: [1; 16],
        credit_messages: 10,
        credit_bytes: 1 << 20,
        ..Default::default()
    };
    // A consumer that stays and settles nothing, and a publisher that goes on as if nothing were.
    let mut consumer = ConsumeSession::open(&client(&server, "consumer").await, &opening).await.unwrap();
    let mut producer = PublishSession::open(&bus, [2; 16], 1, 0).await.unwrap();
    let message = || v1::Message { topic: "t".to_owned(), payload: "p".into(), ..Default::default() };
    let last = producer.publish(vec![message()], v1::Durability::Synced).await.unwrap().remove(0);
    consumer.message().await.unwrap();
    let publishing = tokio::spawn(async move {
        let mut acked = Vec::from([last]);
        while let Ok(more) = producer.publish(vec![message()], v1::Durability::Synced).await {
            acked.extend(more);
        }
        acked
    });
    let started = Instant::now();
    let status = server.stop().await.unwrap();
    let took = started.elapsed();
    assert!(status.success(), "{status}\n{}", server.log_tail());
    assert!(took < ENDS_WITHIN, "{took:?}, with {DRAIN:?} to drain in");
    // What was acknowledged up to the last moment is there.
    let acked = publishing.await.unwrap();
    server.restart().await.unwrap();
    let spec =
        v1::SubscriptionSpec { start_at: v1::StartAt::All as i32, filters: vec!["t".to_owned()], ..Default::default() };
    let opening = Opening { ephemeral: Some(spec), session: [3; 16], credit_messages: 60_000, ..opening };
    let mut all = ConsumeSession::open(&client(&server, "reader").await, &opening).await.unwrap();
    for outcome in acked {
        let acb_testkit::raw::Outcome::Stored(at) = outcome else { continue };
        assert_eq!(all.message().await.unwrap().seq, at.seq);
    }
}

#[tokio::test]
async fn a_server_that_drains_says_that_it_is_not_ready_and_takes_nobody_new() {
    // The whole of its preface and SETTINGS, and no answer to any question: it holds the drain up for its whole time.
    let deaf = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let mut server = options().arg("--set").arg("shutdown.drain_timeout=3s").start().await.unwrap();
    let mut held = TcpStream::connect(server.address()).await.unwrap();
    held.write_all(deaf).await.unwrap();
    held.read_u8().await.unwrap();
    let (address, admin) = (server.address(), server.admin());
    let stopping = tokio::spawn(async move { (server.stop().await, server) });
    let told = || async {
        match admin.ask("GET", "/ready").await {
            Ok((503, _)) => Level::Reached(()),
            other => Level::not_yet(format!("{other:?}")),
        }
    };
    wait_until("503 of a server that drains", DRAIN * 2, told).await.unwrap();
    let (live, _) = admin.ask("GET", "/live").await.unwrap();
    assert_eq!(live, 200, "it lives until it has drained");
    let refused = || async { Level::when(TcpStream::connect(address).await.is_err(), (), "a connection was taken") };
    wait_until("no new connections", DRAIN, refused).await.unwrap();
    let (status, server) = stopping.await.unwrap();
    // Who answers nothing is cut at the deadline, and that is told by the exit code.
    assert_eq!(status.unwrap().code(), Some(1), "{}", server.log_tail());
}
