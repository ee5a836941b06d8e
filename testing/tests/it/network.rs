//! Faults between a client and the bus.

use std::time::Duration;

use acb_sdk::{Event, SubscriptionSpec};
use acb_server::edge::limits::TURNED_AWAY_MAX;
use acb_testing::{FakeBus, Way};

#[tokio::test]
async fn a_client_whose_connection_is_cut_comes_back_and_another_never_notices() {
    let bus = FakeBus::start().await.unwrap();
    let line = bus.network();
    let bob = line.client("bob").connect().await.unwrap();
    let alice = bus.client("alice").connect().await.unwrap();
    let (mut bobs, mut alices) = (bob.events(), alice.events());
    line.cut();
    let back = async { while !matches!(bobs.next().await, Some(Event::Resumed { .. })) {} };
    tokio::time::timeout(Duration::from_secs(10), back).await.expect("it comes back by itself");
    alice.agents().register("alice").await.unwrap();
    let quiet = tokio::time::timeout(Duration::from_millis(20), alices.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
}

#[tokio::test]
async fn who_is_parted_stays_away_until_it_is_mended() {
    let bus = FakeBus::start().await.unwrap();
    let line = bus.network();
    line.part();
    let refused = line.client("bob").connect_timeout(Duration::from_millis(50)).connect().await;
    assert!(refused.is_err());
    line.mend();
    line.client("bob").connect().await.unwrap();
}

#[tokio::test]
async fn what_is_held_comes_when_it_is_let_go() {
    let bus = FakeBus::start().await.unwrap();
    let line = bus.network();
    let bob = line.client("bob").connect().await.unwrap();
    bob.agents().register("bob").await.unwrap();
    line.hold();
    let early = tokio::time::timeout(Duration::from_millis(30), bob.agents().get("bob")).await;
    assert!(early.is_err(), "an answer came while nothing moves");
    line.mend();
    assert_eq!(bob.agents().get("bob").await.unwrap().id(), "bob");
}

#[tokio::test]
async fn publishes_cut_in_the_middle_are_stored_once_each_and_in_order() {
    for way in [Way::Up, Way::Down] {
        let bus = FakeBus::start().await.unwrap();
        let reader = bus.client("reader").connect().await.unwrap();
        reader.subscriptions().create(SubscriptionSpec::new("all").filter("cut.>")).await.unwrap();
        let mut all = reader.subscribe("all").credits(2000).await.unwrap();
        let line = bus.network();
        let alice = line.client("alice").connect().await.unwrap();
        line.cut_after(way, 1000);
        let sent: Vec<_> = (0..500).map(|n| alice.messages().publish("cut.x", format!("n{n}")).send()).collect();
        let mut receipts = Vec::new();
        for receipt in sent {
            receipts.push(receipt.await.unwrap());
        }
        for receipt in receipts {
            receipt.await.unwrap();
        }
        for n in 0..500 {
            let message = all.next().await.unwrap().unwrap();
            assert_eq!(&message.payload()[..], format!("n{n}").as_bytes(), "{way:?}");
        }
    }
}

#[tokio::test]
async fn who_comes_beside_all_that_are_being_turned_away_gets_no_connection() {
    let bus = FakeBus::builder().setting("edge.connections_max", "1").start().await.unwrap();
    let _served = bus.client("alice").connect().await.unwrap();
    let dialer = bus.network().dialer();
    let endpoint = acb_sdk::Endpoint::default();
    let mut silent = Vec::new();
    for _ in 0..TURNED_AWAY_MAX {
        silent.push(dialer.dial(&endpoint).await.unwrap());
    }
    let Err(error) = dialer.dial(&endpoint).await else { panic!("there is a connection") };
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    let refused = format!("acb_connections_refused_total {}\n", TURNED_AWAY_MAX + 1);
    assert!(bus.metrics().unwrap().contains(&refused), "{}", bus.metrics().unwrap());
}
