//! Against the real server: everything a client can do, and what is left of it after a hundred cuts and a kill.

use std::{collections::HashSet, sync::Arc, time::Duration};

use acb_sdk::{
    AgentStatus, DeliveryState, Dialer, Durability, Endpoint, ErrorCode, Message, StartAt, Subscription,
    SubscriptionSpec, TcpDialer, transport::Dialing,
};
use tokio::sync::{mpsc, watch};

use crate::{
    bus::{Bus, Proxy, builder, found},
    peer::soon,
};

/// Says how often it dialled.
#[derive(Debug)]
struct Counting(watch::Sender<u32>);

impl Dialer for Counting {
    fn dial<'a>(&'a self, endpoint: &'a Endpoint) -> Dialing<'a> {
        self.0.send_modify(|n| *n += 1);
        TcpDialer.dial(endpoint)
    }
}

async fn next(subscription: &mut Subscription) -> Message {
    soon("a message", subscription.next()).await.expect("the subscription ended").unwrap()
}

fn number(message: &Message) -> u64 {
    std::str::from_utf8(message.payload_ref()).unwrap().parse().unwrap()
}

fn all(name: &str, filter: &str) -> SubscriptionSpec {
    SubscriptionSpec::new(name).filter(filter).start_at(StartAt::All)
}

#[tokio::test]
async fn agents_register_are_found_and_leave() {
    let bus = Bus::start().await;
    let client = bus.client("reviewer").await;
    let agents = client.agents();
    let agent = agents
        .register("reviewer")
        .kind("reviewer")
        .name("Reviewer")
        .version("1.2.3")
        .capability("code.review")
        .metadata("team", "a")
        .await
        .unwrap();
    assert_eq!((agent.id(), agent.incarnation), ("reviewer", 1));
    assert_eq!(agents.register("reviewer").capability("code.review").await.unwrap().incarnation, 2);
    let found = agents.discover().capability("code.review").all().await.unwrap();
    assert_eq!(found.len(), 1);
    let changed = agents.update("reviewer").description("reads code").await.unwrap();
    assert_eq!((changed.spec.description.as_str(), changed.spec.capabilities.len()), ("reads code", 1));
    assert!(agents.heartbeat().await.unwrap() > Duration::ZERO);
    assert_eq!(agents.get("reviewer").await.unwrap().status, AgentStatus::Online);
    agents.unregister("reviewer").await.unwrap();
    assert_eq!(agents.get("reviewer").await.unwrap_err().code(), ErrorCode::AgentNotFound);
    assert!(client.health().await.unwrap().serving);
}

#[tokio::test]
async fn a_client_that_finds_no_room_hears_so_and_comes_in_when_there_is() {
    let bus = Bus::start_with(&["edge.connections_max=1"]).await;
    let first = bus.client("first").await;
    let impatient = bus.builder("second").connect_timeout(Duration::from_millis(300)).connect().await.unwrap_err();
    assert_eq!((impatient.code(), impatient.operation()), (ErrorCode::TooManyConnections, "connect"));
    assert!(impatient.is_retryable(), "{impatient}");
    // One that waits comes again, and is in when the other has gone.
    let (dialled, mut dials) = watch::channel(0);
    let waiting = bus.builder("second").dialer(Arc::new(Counting(dialled)));
    let second = tokio::spawn(waiting.connect());
    soon("a second dial", dials.wait_for(|n| *n == 2)).await.unwrap();
    first.close().await;
    let second = soon("the second", second).await.unwrap().unwrap();
    second.messages().publish("room", "for one").confirm().await.unwrap();
}

#[tokio::test]
async fn messages_are_stored_delivered_settled_and_die() {
    let bus = Bus::start().await;
    let client = bus.client("worker").await;
    let spec = all("jobs", "jobs.*").max_attempts(1);
    assert!(!client.subscriptions().create(spec.clone()).await.unwrap().existed);
    assert!(client.subscriptions().create(spec).await.unwrap().existed);
    let stored = client.messages().publish("jobs.a", "1").confirm().await.unwrap();
    assert_eq!((stored.durability, stored.duplicate), (Durability::Synced, false));
    let written = client.messages().publish("jobs.b", "2").durability(Durability::Written).confirm().await.unwrap();
    assert_eq!((written.durability, written.id.seq), (Durability::Written, stored.id.seq + 1));
    let mut jobs = client.subscribe("jobs").await.unwrap();
    let first = next(&mut jobs).await;
    assert_eq!((first.id(), first.topic(), first.from()), (stored.id, "jobs.a", "worker"));
    first.ack_confirmed().await.unwrap();
    let status = client.messages().status(stored.id).await.unwrap();
    assert_eq!(status.subscriptions[0].state, DeliveryState::Acked);
    next(&mut jobs).await.nack(None, "cannot do this").unwrap();
    let letter = async || client.dead_letters().list("jobs").next().await;
    let dead = found("the dead letter", letter).await.unwrap();
    assert_eq!((dead.message_id, dead.last_error.as_str(), dead.attempts), (written.id, "cannot do this", 1));
    assert_eq!(client.dead_letters().get(dead.id).await.unwrap().message.payload, "2");
    client.dead_letters().redrive(dead.id).await.unwrap();
    let again = next(&mut jobs).await;
    assert_eq!((number(&again), again.original_topic()), (2, "jobs.b"));
    again.ack_confirmed().await.unwrap();
    let info = client.subscriptions().get("jobs").await.unwrap();
    assert_eq!((info.leased, info.consumers, info.dead_letters), (0, 1, 0));
    drop(jobs);
    client.subscriptions().delete("jobs").await.unwrap();
    assert_eq!(client.subscribe("jobs").await.unwrap_err().code(), ErrorCode::SubscriptionNotFound);
    client.drain().await.unwrap();
}

#[tokio::test]
async fn a_request_is_answered_and_nobody_there_is_said_at_once() {
    let bus = Bus::start().await;
    let (asker, worker) = (bus.client("asker").await, bus.client("worker").await);
    asker.agents().register("asker").await.unwrap();
    worker.agents().register("worker").await.unwrap();
    let nobody = asker.messages().request("worker", "there?").await.unwrap_err();
    assert_eq!(nobody.code(), ErrorCode::NoResponders);
    assert_eq!(asker.messages().request("stranger", "?").await.unwrap_err().code(), ErrorCode::AgentNotFound);
    let inbox = worker.inbox().await.unwrap();
    let answering = tokio::spawn(inbox.for_each(4, |m| async move {
        let doubled = number(&m) * 2;
        drop(m.reply(doubled.to_string())?.send().await?);
        Ok::<_, acb_sdk::Error>(())
    }));
    for n in 0..50u64 {
        let reply = soon("a reply", asker.messages().request("worker", n.to_string()).send()).await.unwrap();
        assert_eq!(number(&reply), n * 2);
    }
    worker.drain().await.unwrap();
    soon("the handler", answering).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_broadcast_reaches_every_inbox_and_a_send_one() {
    let bus = Bus::start().await;
    let (a, b) = (bus.client("a").await, bus.client("b").await);
    a.agents().register("a").await.unwrap();
    b.agents().register("b").await.unwrap();
    let (mut inbox_a, mut inbox_b) = (a.inbox().await.unwrap(), b.inbox().await.unwrap());
    a.messages().send("b", "1").confirm().await.unwrap();
    a.messages().broadcast("2").confirm().await.unwrap();
    assert_eq!((number(&next(&mut inbox_b).await), number(&next(&mut inbox_b).await)), (1, 2));
    assert_eq!(number(&next(&mut inbox_a).await), 2);
    let refused = a.messages().send("nobody", "x").confirm().await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::AgentNotFound);
}

#[tokio::test]
async fn an_idempotency_key_is_stored_once_and_another_body_is_a_conflict() {
    let bus = Bus::start().await;
    let client = bus.client("a").await;
    let publish = |body: &'static str| client.messages().publish("t", body).idempotency_key("k").confirm();
    let first = publish("x").await.unwrap();
    let second = publish("x").await.unwrap();
    assert_eq!((second.id, second.duplicate), (first.id, true));
    assert_eq!(publish("y").await.unwrap_err().code(), ErrorCode::IdempotencyConflict);
}

/// Publishes through a proxy that cuts so often, in the middle of whatever is on its way.
async fn publish_under_cuts(port: u16, cuts: u32, level: Durability) -> (u64, HashSet<u64>) {
    let proxy = Proxy::to(port).await;
    let client = builder(proxy.port, "publisher").publish_window(256, 1 << 20).connect().await.unwrap();
    let publisher = client.messages().publisher("cut.t").durability(level).build().unwrap();
    let (stop, mut stopped) = mpsc::channel::<()>(1);
    let (receipts, mut collected) = mpsc::channel(256);
    let publishing = tokio::spawn(async move {
        let mut n = 0u64;
        while stopped.try_recv().is_err() {
            receipts.send(publisher.publish(n.to_string()).await.unwrap()).await.unwrap();
            n += 1;
        }
        n
    });
    let collecting = tokio::spawn(async move {
        let mut seqs = HashSet::new();
        while let Some(receipt) = collected.recv().await {
            let published = soon("a receipt", receipt).await.unwrap();
            assert!(seqs.insert(published.id.seq), "seq {} was acknowledged twice", published.id.seq);
        }
        seqs
    });
    for cut in 0..cuts {
        // Somewhere else each time: the hello, the first frame, the middle of many.
        proxy.after(u64::from(cut * 7919 % 40_000)).await;
        proxy.cut();
    }
    stop.send(()).await.unwrap();
    let published = soon("the publisher", publishing).await.unwrap();
    let seqs = soon("the receipts", collecting).await.unwrap();
    client.drain().await.unwrap();
    (published, seqs)
}

/// Reads what was published: every number once, in order, under the seqs that the receipts named.
async fn check_stored(bus: &Bus, published: u64, seqs: &HashSet<u64>) {
    assert_eq!(seqs.len() as u64, published, "receipts and publishes differ");
    let client = bus.client("reader").await;
    client.subscriptions().create(all("check", "cut.>")).await.unwrap();
    let mut check = client.subscribe("check").credits(1000).await.unwrap();
    for n in 0..published {
        let m = next(&mut check).await;
        assert_eq!(number(&m), n, "order or count is broken at {}", m.id());
        assert!(seqs.contains(&m.seq()), "{} was stored, but no receipt said so", m.id());
        m.ack().unwrap();
    }
    let info = client.subscriptions().get("check").await.unwrap();
    assert_eq!(info.cursor_seq, info.next_seq, "more is stored than was published");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_cuts_lose_nothing_double_nothing_and_keep_order() {
    let bus = Bus::start().await;
    let (published, seqs) = publish_under_cuts(bus.port, 100, Durability::Written).await;
    assert!(published > 1000, "only {published} messages went through");
    check_stored(&bus, published, &seqs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_do_no_harm_to_one_message_frames_of_two_logs_and_two_levels() {
    let bus = Bus::start().await;
    let reader = bus.client("reader").await;
    reader.agents().register("reader").await.unwrap();
    reader.subscriptions().create(all("check", "cut.>")).await.unwrap();
    let proxy = Proxy::to(bus.port).await;
    let client =
        builder(proxy.port, "publisher").publish_window(64, 1 << 20).frame_messages_max(1).connect().await.unwrap();
    let messages = client.messages();
    let mut publishing = tokio::spawn(async move {
        let mut open = Vec::new();
        for n in 0..6000u64 {
            let level = if n % 3 == 0 { Durability::Synced } else { Durability::Written };
            let to_agent = n % 2 == 0;
            let message = if to_agent {
                messages.send("reader", n.to_string())
            } else {
                messages.publish("cut.t", n.to_string())
            };
            open.push((message.durability(level).send().await.unwrap(), level));
        }
        for (receipt, level) in open {
            assert!(soon("a receipt", receipt).await.unwrap().durability >= level);
        }
    });
    // Counted in bytes, not in time: on a slow machine a cut every few milliseconds would let no connection stand.
    for cut in 0..30u64 {
        tokio::select! {
            biased;
            ended = &mut publishing => panic!("published all after only {cut} cuts: {ended:?}"),
            () = proxy.after(1000 + cut * 7919 % 4000) => proxy.cut(),
        }
    }
    soon("the publisher", publishing).await.unwrap();
    let mut inbox = reader.inbox().await.unwrap();
    let mut check = reader.subscribe("check").await.unwrap();
    for n in 0..6000u64 {
        let m = next(if n % 2 == 0 { &mut inbox } else { &mut check }).await;
        assert_eq!(number(&m), n);
        m.ack().unwrap();
    }
    let info = reader.subscriptions().get("check").await.unwrap();
    assert_eq!(info.cursor_seq, info.next_seq);
    assert!(inbox.try_next().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_nothing_that_was_acknowledged() {
    let mut bus = Bus::start().await;
    let port = bus.port;
    let client = bus.builder("publisher").publish_window(256, 1 << 20).connect().await.unwrap();
    let publisher = client.messages().publisher("cut.t").build().unwrap();
    let (given, mut published) = tokio::sync::watch::channel(0);
    let publishing = tokio::spawn(async move {
        let mut seqs = HashSet::new();
        let mut open = Vec::new();
        for n in 0..20_000u64 {
            open.push(publisher.publish(n.to_string()).await.unwrap());
            given.send_replace(n);
        }
        for receipt in open {
            assert!(seqs.insert(soon("a receipt", receipt).await.unwrap().id.seq));
        }
        seqs
    });
    for kill in 1..=3 {
        // The window is full then: there is always something under way.
        soon("messages to be published", published.wait_for(|n| *n >= kill * 4000)).await.unwrap();
        bus.kill_and_restart().await;
        assert_eq!(bus.port, port);
    }
    let seqs = tokio::time::timeout(Duration::from_mins(1), publishing).await.unwrap().unwrap();
    check_stored(&bus, 20_000, &seqs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_consumer_misses_nothing_and_repeats_nothing_while_its_leases_hold() {
    const COUNT: u64 = 6000;
    let bus = Bus::start().await;
    let writer = bus.client("writer").await;
    writer.subscriptions().create(all("work", "w.>")).await.unwrap();
    let publisher = writer.messages().publisher("w.t").durability(Durability::Written).build().unwrap();
    for n in 0..COUNT {
        drop(publisher.publish(n.to_string()).await.unwrap());
    }
    writer.messages().flush().await;
    let proxy = Proxy::to(bus.port).await;
    let client = builder(proxy.port, "reader").connect().await.unwrap();
    let mut work = client.subscribe("work").credits(64).await.unwrap();
    for n in 0..COUNT {
        let m = next(&mut work).await;
        assert_eq!((number(&m), m.attempt()), (n, 1), "at {}", m.id());
        m.ack().unwrap();
        if n % 117 == 0 {
            proxy.cut();
        }
    }
    drop(work);
    let settled = async || {
        let info = client.subscriptions().get("work").await.unwrap();
        (info.floor_seq == info.next_seq).then_some(info)
    };
    let info = found("the last acks", settled).await;
    assert_eq!(info.dead_letters, 0);
}
