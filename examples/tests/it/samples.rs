//! The samples: what they print is what they show.

use std::{process::Output, time::Duration};

use acb_sdk::{Client, Credentials};
use acb_testkit::{Server, ServerOptions, wait::within};
use sha2::{Digest as _, Sha256};
use tokio::process::Command;

/// A sample may take so long, on a busy machine: it takes a tenth of a second.
const SAMPLE_WITHIN: Duration = Duration::from_secs(30);

async fn run(program: &str, url: &str) -> Output {
    let mut command = Command::new(program);
    command.env("ACB_URL", url).kill_on_drop(true);
    within(program, SAMPLE_WITHIN, command.output()).await.unwrap().unwrap()
}

/// Runs a sample, expects that it succeeds, and gives the lines that it printed.
async fn lines(program: &str, server: &Server) -> Vec<String> {
    let output = run(program, &format!("acb://{}", server.address())).await;
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn agents_exchange_messages_and_another_hears_what_is_published() {
    let server = ServerOptions::default().real_clock().start().await.unwrap();
    let program = env!("CARGO_BIN_EXE_exchange-messages");
    assert_eq!(
        lines(program, &server).await,
        [
            "alice sent inbox-0-1-1",
            r#"bob got "hello, bob" from alice"#,
            r#"the listener heard "bob has mail" on news.today"#,
        ]
    );
    // Everything was acknowledged, and a second run does the same again.
    let credentials = Credentials::dev("default", "observer");
    let client =
        Client::builder(format!("acb://{}", server.address())).credentials(credentials).connect().await.unwrap();
    let inbox = client.subscriptions().get("$inbox.bob").await.unwrap();
    assert_eq!((inbox.floor_seq, inbox.leased, inbox.waiting_retry), (inbox.next_seq, 0, 0), "{inbox:?}");
    client.close().await;
    let again = lines(program, &server).await;
    assert_eq!((again.len(), again[0].as_str()), (3, "alice sent inbox-0-1-2"), "{again:?}");
}

#[tokio::test]
async fn one_agent_asks_and_another_answers() {
    let server = ServerOptions::default().real_clock().start().await.unwrap();
    let program = env!("CARGO_BIN_EXE_request-reply");
    let answers = [r#""how many words are these?" has 5 words"#, r#""one" has 1 words"#, r#""" has 0 words"#];
    let first = lines(program, &server).await;
    assert_eq!(first[0], "nobody answers: agent_not_found");
    assert_eq!(first[1..], answers);
    // Now the one who answers is known and asleep.
    let second = lines(program, &server).await;
    assert_eq!(second[0], "nobody answers: no_responders");
    assert_eq!(second[1..], answers);
}

#[tokio::test]
async fn a_context_is_shared_and_nobody_overwrites_another_unseen() {
    let server = ServerOptions::default().real_clock().start().await.unwrap();
    let program = env!("CARGO_BIN_EXE_share-context");
    // A second run finds what the first one left, and does the same again.
    for _ in 0..2 {
        assert_eq!(
            lines(program, &server).await,
            [
                "alice shared plans/trip, version 0.1.0",
                "alice was late: revision_conflict",
                "alice made version 0.1.2",
                "carol sees 0.1.0 by alice: book a train",
                "carol sees 0.1.1 by bob: book a train; find a hotel",
                "carol sees 0.1.2 by alice: book a train; find a hotel; pack",
                "dave gets context_not_found",
            ]
        );
    }
}

#[tokio::test]
async fn a_large_context_goes_up_and_comes_down_the_same() {
    let server = ServerOptions::default().real_clock().start().await.unwrap();
    let told = lines(env!("CARGO_BIN_EXE_stream-large-context"), &server).await;
    let mut numbers = Sha256::new();
    for number in 0..8_000_000 {
        numbers.update(format!("{number:07}\n"));
    }
    assert_eq!(
        told,
        [
            "uploaded 64000000 bytes as one context, version 0.1.0",
            &format!("its SHA-256 is {}", hex::encode(numbers.finalize())),
            "downloaded 64000000 bytes, the digest is the same",
            r#"its first bytes are "0000000\n0000001\n""#,
        ]
    );
}

#[tokio::test]
async fn a_sample_without_a_server_says_so_and_fails() {
    // A port that was free a moment ago, and on which nobody listens.
    let port = acb_testkit::server::free_port().unwrap();
    let output = run(env!("CARGO_BIN_EXE_exchange-messages"), &format!("acb://127.0.0.1:{port}")).await;
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("cannot connect"), "{error}");
}
