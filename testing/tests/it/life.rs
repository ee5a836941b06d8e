//! Start, time, end, and start again.

use std::time::{Duration, Instant};

use acb_sdk::{Client, Credentials, DeliveryState, Durability, ErrorCode, Timestamp};
use acb_testing::{FakeBus, FakeError};

const MINUTE: Duration = Duration::from_mins(1);

async fn with_inbox(bus: &FakeBus, agent: &str) -> (Client, acb_sdk::Subscription) {
    let client = bus.client(agent).connect().await.unwrap();
    client.agents().register(agent).await.unwrap();
    let inbox = client.inbox().await.unwrap();
    (client, inbox)
}

#[tokio::test]
async fn a_message_goes_from_one_client_to_another() {
    let bus = FakeBus::start().await.unwrap();
    let (_bob, mut inbox) = with_inbox(&bus, "bob").await;
    let alice = bus.client("alice").connect().await.unwrap();
    let sent = alice.messages().send("bob", "hello").confirm().await.unwrap();
    let message = inbox.next().await.unwrap().unwrap();
    assert_eq!((&message.payload()[..], message.from(), message.id()), (&b"hello"[..], "alice", sent.id));
    message.ack_confirmed().await.unwrap();
}

#[tokio::test]
async fn time_stands_until_the_test_moves_it_and_what_came_due_has_happened_then() {
    let bus = FakeBus::builder().starting_at(Timestamp(1_000_000)).start().await.unwrap();
    assert_eq!(bus.now(), Timestamp(1_000_000));
    let (bob, mut inbox) = with_inbox(&bus, "bob").await;
    let sent = bob.messages().send("bob", "once more").confirm().await.unwrap();
    inbox.next().await.unwrap().unwrap();
    // Nobody settles it, so its lease ends.
    assert_eq!(bus.advance(MINUTE).unwrap(), Timestamp(1_060_000));
    let status = bob.messages().status(sent.id).await.unwrap();
    assert_eq!((status.subscriptions[0].state, status.subscriptions[0].attempts), (DeliveryState::Waiting, 1));
}

#[tokio::test]
async fn a_killed_bus_starts_again_with_what_was_written() {
    let bus = FakeBus::start().await.unwrap();
    let (_bob, mut inbox) = with_inbox(&bus, "bob").await;
    let alice = bus.client("alice").connect().await.unwrap();
    alice.messages().send("bob", "kept").durability(Durability::Written).confirm().await.unwrap();
    inbox.next().await.unwrap().unwrap().ack_confirmed().await.unwrap();
    alice.messages().send("bob", "waits").durability(Durability::Written).confirm().await.unwrap();
    bus.kill().await;
    assert!(!bus.is_running());
    let refused = bus.client("carol").connect_timeout(Duration::from_millis(50)).connect().await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::Unavailable);
    bus.advance(MINUTE).unwrap();
    bus.restart().await.unwrap();
    // The same client, the same subscription: both are back by themselves.
    let message = inbox.next().await.unwrap().unwrap();
    assert_eq!(&message.payload()[..], b"waits");
}

#[tokio::test]
async fn a_stopped_bus_keeps_everything_and_its_clients_come_back() {
    let bus = FakeBus::start().await.unwrap();
    let (bob, mut inbox) = with_inbox(&bus, "bob").await;
    bus.stop().await;
    assert!(!bus.is_running());
    bus.restart().await.unwrap();
    assert_eq!(bob.agents().get("bob").await.unwrap().id(), "bob");
    bob.messages().send("bob", "after").confirm().await.unwrap();
    assert_eq!(&inbox.next().await.unwrap().unwrap().payload()[..], b"after");
}

#[tokio::test]
async fn a_bus_that_asks_for_credentials_makes_an_admin_key() {
    let bus = FakeBus::builder().with_credentials().start().await.unwrap();
    let unknown = bus.client("eve").connect().await.unwrap();
    assert_eq!(unknown.agents().get("eve").await.unwrap_err().code(), ErrorCode::Unauthenticated);
    let key = bus.admin_key().expect("the first start makes one");
    let admin = bus.client("admin").credentials(Credentials::enrolment_key(&key, "admin")).connect().await.unwrap();
    assert_eq!(admin.agents().get("eve").await.unwrap_err().code(), ErrorCode::AgentNotFound);
    bus.restart().await.unwrap();
    assert_eq!(bus.admin_key(), Some(key), "a restart makes no other");
}

#[tokio::test]
async fn a_bus_on_the_machines_time_cannot_be_moved() {
    let bus = FakeBus::builder().real_clock().start().await.unwrap();
    assert!(matches!(bus.advance(MINUTE), Err(FakeError::RealClock)));
    assert!(bus.now() > Timestamp(1_700_000_000_000));
}

#[tokio::test]
async fn settings_are_the_servers() {
    let bus = FakeBus::builder().setting("delivery.durability_floor", "synced").start().await.unwrap();
    let alice = bus.client("alice").connect().await.unwrap();
    let refused = alice.messages().publish("a.b", "x").durability(Durability::Memory).post().await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::DurabilityUnavailable);
    let wrong = FakeBus::builder().setting("delivery.durabilty_floor", "synced").start().await.unwrap_err();
    assert!(wrong.to_string().contains("durability_floor"), "{wrong}");
}

#[tokio::test]
async fn tenants_are_apart_and_made_by_their_first_use() {
    let bus = FakeBus::start().await.unwrap();
    let (_bob, _inbox) = with_inbox(&bus, "bob").await;
    let stranger = bus.client_of("elsewhere", "bob").connect().await.unwrap();
    assert_eq!(stranger.agents().get("bob").await.unwrap_err().code(), ErrorCode::AgentNotFound);
    assert!(bus.metrics().unwrap().contains("acb_messages_in_total"));
}

#[test]
fn a_bus_needs_no_runtime_of_the_tests() {
    // Polled by hand: start, advance and end ask nothing of tokio.
    let bus = block_on(FakeBus::start()).unwrap();
    bus.advance(MINUTE).unwrap();
    block_on(bus.kill());
}

/// The smallest executor there is.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::task::Waker::from(std::sync::Arc::new(Unpark(std::thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            std::task::Poll::Ready(out) => return out,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

#[tokio::test]
async fn a_bus_is_there_in_milliseconds() {
    let mut took = Vec::new();
    for _ in 0..20 {
        let began = Instant::now();
        let bus = FakeBus::start().await.unwrap();
        bus.client("alice").connect().await.unwrap();
        took.push(began.elapsed());
    }
    took.sort();
    let median = took[took.len() / 2];
    println!("start and first connection: median {median:?}, longest {:?}", took[took.len() - 1]);
    // Milliseconds on an idle machine, where others build and test several times that.
    assert!(median < Duration::from_millis(100), "{took:?}");
}
