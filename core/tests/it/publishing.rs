//! Frame assembly, receipts, the window, and what is sent again after a cut.

use std::{pin::pin, time::Duration};

use acb_proto::v1;
use acb_sdk::{Client, Durability, ErrorCode, ErrorKind, Receipt};
use prost::Message as _;
use tonic::Status;

use crate::peer::{Peer, Publish, ack, poll_now, reject, soon};

async fn publish(client: &Client, n: u64) -> Receipt {
    client.messages().publish("t", n.to_string()).send().await.unwrap()
}

fn payloads(frame: &v1::PublishStreamRequest) -> Vec<u64> {
    frame.messages.iter().map(|m| std::str::from_utf8(&m.payload).unwrap().parse().unwrap()).collect()
}

/// Frames until so many messages have come.
async fn frames(call: &mut Publish, count: usize) -> Vec<v1::PublishStreamRequest> {
    let (mut frames, mut seen) = (Vec::new(), 0);
    while seen < count {
        let frame = call.next().await;
        seen += frame.messages.len();
        frames.push(frame);
    }
    assert_eq!(seen, count, "more messages than were published");
    frames
}

#[tokio::test]
async fn messages_are_numbered_without_gaps_and_receipts_carry_their_positions() {
    let mut peer = Peer::new();
    let client = peer.client().await;
    let mut receipts = Vec::new();
    for n in 1..=300 {
        receipts.push(publish(&client, n).await);
    }
    let (mut call, open) = peer.publish().await;
    assert_eq!((open.producer_id.len(), open.epoch), (16, 1));
    let mut next = 1;
    for frame in frames(&mut call, 300).await {
        assert_eq!(frame.counter, next);
        assert!(frame.messages.len() <= 128);
        next += frame.messages.len() as u64;
    }
    call.answer(ack(1, 300, 1000)).await;
    for (i, receipt) in receipts.into_iter().enumerate() {
        let published = soon("a receipt", receipt).await.unwrap();
        assert_eq!(published.id.seq, 1000 + i as u64);
        assert_eq!(published.durability, Durability::Synced);
    }
    assert_eq!(client.messages().unacknowledged(), 0);
}

#[tokio::test]
async fn a_frame_holds_one_class_and_one_level() {
    let mut peer = Peer::new();
    let client = peer.client().await;
    let messages = client.messages();
    let written = Durability::Written;
    drop(messages.publish("t", "1").send().await.unwrap());
    drop(messages.publish("u", "2").send().await.unwrap());
    drop(messages.send("other", "3").send().await.unwrap());
    drop(messages.broadcast("4").send().await.unwrap());
    drop(messages.publish("t", "5").durability(written).send().await.unwrap());
    let (mut call, _) = peer.publish().await;
    let frames = frames(&mut call, 5).await;
    let seen: Vec<_> = frames.iter().map(|f| (f.counter, f.durability, payloads(f))).collect();
    assert_eq!(seen, [(1, 0, vec![1, 2]), (3, 0, vec![3, 4]), (5, written as i32, vec![5])]);
    assert_eq!(frames[1].messages[0].topic, "$acb.inbox.other");
    assert_eq!(frames[1].messages[1].topic, "$acb.all");
}

#[tokio::test]
async fn every_part_of_a_message_arrives() {
    let mut peer = Peer::new();
    let client = peer.client().await;
    let sent = client
        .messages()
        .publish("a.b", "body")
        .attribute("z", "1")
        .attribute("a", "2")
        .idempotency_key("key")
        .priority(acb_sdk::Priority::High)
        .order_key("order")
        .correlation_id("corr")
        .content_type("text/plain")
        .context_ref("c1")
        .trace("00-1")
        .ttl(Duration::from_mins(1))
        .send()
        .await
        .unwrap();
    let (mut call, _) = peer.publish().await;
    let frame = call.next().await;
    let m = &frame.messages[0];
    assert_eq!((m.topic.as_str(), m.payload.as_ref()), ("a.b", b"body".as_ref()));
    assert_eq!((m.idempotency_key.as_str(), m.order_key.as_str(), m.correlation_id.as_str()), ("key", "order", "corr"));
    assert_eq!((m.content_type.as_str(), m.trace.as_str(), m.priority), ("text/plain", "00-1", 2));
    assert_eq!(m.attributes.as_ref(), b"\x01a\x012\x01z\x011");
    assert!(m.expires_at_ms > 1_600_000_000_000);
    drop(sent);
}

#[tokio::test]
async fn a_publisher_gives_every_message_its_shape_and_another_topic_or_key_where_asked() {
    let mut peer = Peer::new();
    let client = peer.client().await;
    let publisher = client
        .messages()
        .publisher("a.b")
        .durability(Durability::Written)
        .content_type("text/plain")
        .priority(acb_sdk::Priority::High)
        .order_key("order")
        .attribute("z", "1")
        .attribute("a", "2")
        .build()
        .unwrap();
    assert_eq!(publisher.topic(), "a.b");
    drop(publisher.publish("1").await.unwrap());
    drop(publisher.publish_to("c.d", "2").await.unwrap());
    drop(publisher.publish_keyed("key", "3").await.unwrap());
    drop(publisher.try_publish("4").unwrap());
    let (mut call, _) = peer.publish().await;
    let frames = frames(&mut call, 4).await;
    assert!(frames.iter().all(|frame| frame.durability == Durability::Written as i32));
    let messages: Vec<_> = frames.iter().flat_map(|frame| &frame.messages).collect();
    let seen: Vec<_> = messages.iter().map(|m| (&*m.topic, &*m.idempotency_key, &*m.payload)).collect();
    let expected: [(&str, &str, &[u8]); 4] =
        [("a.b", "", b"1"), ("c.d", "", b"2"), ("a.b", "key", b"3"), ("a.b", "", b"4")];
    assert_eq!(seen, expected);
    for m in messages {
        assert_eq!((&*m.content_type, &*m.order_key, m.priority), ("text/plain", "order", 2));
        assert_eq!(m.attributes.as_ref(), b"\x01a\x012\x01z\x011");
    }
}

#[tokio::test]
async fn a_publisher_refuses_what_the_bus_would_refuse_and_goes_on() {
    let mut peer = Peer::new();
    let client = peer.client().await;
    let code = |error: acb_sdk::Error| error.code();
    let made = |topic: &'static str| client.messages().publisher(topic).build();
    assert_eq!(made("a..b").map_err(code).unwrap_err(), ErrorCode::InvalidTopic);
    assert_eq!(made("a.*").map_err(code).unwrap_err(), ErrorCode::WildcardInPublish);
    let publisher = made("a.b").unwrap();
    assert_eq!(publisher.publish_to("a..b", "x").await.map_err(code).unwrap_err(), ErrorCode::InvalidTopic);
    assert_eq!(publisher.publish_to("$acb.all", "x").await.map_err(code).unwrap_err(), ErrorCode::TopicReserved);
    let key = "k".repeat(129);
    assert_eq!(publisher.publish_keyed(&key, "x").await.map_err(code).unwrap_err(), ErrorCode::FieldTooLarge);
    let large = vec![0; (1 << 20) + 1];
    assert_eq!(publisher.publish(&large).await.map_err(code).unwrap_err(), ErrorCode::PayloadTooLarge);
    drop(publisher.publish("7").await.unwrap());
    let (mut call, _) = peer.publish().await;
    assert_eq!(payloads(&call.next().await), [7], "what was refused is not sent");
}

#[tokio::test]
async fn a_full_window_makes_publishers_wait_and_acks_let_them_in() {
    let mut peer = Peer::new();
    let client = peer.builder().publish_window(4, 1 << 20).connect().await.unwrap();
    for n in 1..=4 {
        drop(publish(&client, n).await);
    }
    let publisher = client.messages().publisher("t").build().unwrap();
    assert!(matches!(publisher.try_publish("5"), Err(acb_sdk::TryPublishError::Full)));
    let mut waiting = pin!(publish(&client, 5));
    assert!(poll_now(waiting.as_mut()).is_pending());
    let (mut call, _) = peer.publish().await;
    assert!(frames(&mut call, 4).await.iter().all(|f| f.messages.len() == 1), "frame cap is a quarter of the window");
    call.answer(ack(1, 1, 1)).await;
    drop(soon("room", waiting).await);
    assert_eq!(payloads(&call.next().await), [5]);
}

#[tokio::test]
async fn one_message_always_passes_a_window_of_bytes() {
    let mut peer = Peer::new();
    let client = peer.builder().publish_window(100, 10).connect().await.unwrap();
    drop(client.messages().publish("t", vec![0; 1 << 20]).send().await.unwrap());
    let mut waiting = pin!(publish(&client, 2));
    assert!(poll_now(waiting.as_mut()).is_pending());
    let (mut call, _) = peer.publish().await;
    assert_eq!(call.next().await.messages[0].payload.len(), 1 << 20);
    call.answer(ack(1, 1, 1)).await;
    drop(soon("room", waiting).await);
}

#[tokio::test]
async fn what_is_not_acknowledged_is_sent_again_byte_for_byte_and_before_anything_new() {
    let mut peer = Peer::new();
    let client = peer.builder().frame_messages_max(10).connect().await.unwrap();
    let mut receipts = Vec::new();
    for n in 1..=40 {
        receipts.push(publish(&client, n).await);
    }
    let (mut first, open) = peer.publish().await;
    let before = frames(&mut first, 40).await;
    // The second frame is stored, of the third the middle.
    first.answer(ack(11, 10, 11)).await;
    first.answer(ack(24, 3, 24)).await;
    assert_eq!(soon("a receipt", &mut receipts[25]).await.unwrap().id.seq, 26);
    peer.cut();
    for n in 41..=45 {
        receipts.push(publish(&client, n).await);
    }
    let (mut second, again) = peer.publish().await;
    assert_eq!((again.producer_id, again.epoch), (open.producer_id, open.epoch), "another session");
    let after = frames(&mut second, 45 - 13).await;
    let sent: Vec<u64> = after.iter().flat_map(payloads).collect();
    let expected: Vec<u64> = (1..=10).chain(21..=23).chain(27..=45).collect();
    assert_eq!(sent, expected);
    for frame in &after {
        assert_eq!(frame.counter, payloads(frame)[0], "a message changed its number");
    }
    assert_eq!(after[0].encode_to_vec(), before[0].encode_to_vec(), "a frame changed on its second way");
    for frame in &after {
        let count = frame.messages.len() as u32;
        second.answer(ack(frame.counter, count, frame.counter)).await;
    }
    for (i, receipt) in receipts.into_iter().enumerate() {
        assert_eq!(soon("a receipt", receipt).await.unwrap().id.seq, i as u64 + 1);
    }
}

#[tokio::test]
async fn a_refusal_is_final_for_its_messages_alone() {
    let mut peer = Peer::new();
    let client = peer.client().await;
    let mut receipts = Vec::new();
    for n in 1..=3 {
        receipts.push(publish(&client, n).await);
    }
    let (mut call, _) = peer.publish().await;
    frames(&mut call, 3).await;
    call.answer(reject(2, 1, "agent_not_found", None)).await;
    call.answer(ack(1, 1, 10)).await;
    call.answer(ack(3, 1, 11)).await;
    let mut receipts = receipts.into_iter();
    assert_eq!(soon("first", receipts.next().unwrap()).await.unwrap().id.seq, 10);
    let refused = soon("second", receipts.next().unwrap()).await.unwrap_err();
    assert_eq!((refused.code(), refused.kind()), (ErrorCode::AgentNotFound, ErrorKind::NotFound));
    assert_eq!(soon("third", receipts.next().unwrap()).await.unwrap().id.seq, 11);
    assert_eq!(client.messages().unacknowledged(), 0);
}

#[tokio::test]
async fn what_may_succeed_later_is_sent_again_under_its_number() {
    let mut peer = Peer::new();
    let client = peer.client().await;
    let mut receipts = Vec::new();
    for n in 1..=3 {
        receipts.push(publish(&client, n).await);
    }
    let (mut call, _) = peer.publish().await;
    frames(&mut call, 3).await;
    call.answer(ack(1, 1, 1)).await;
    call.answer(reject(2, 2, "slow_down", Some(20))).await;
    let again = call.next().await;
    assert_eq!((again.counter, payloads(&again)), (2, vec![2, 3]));
    call.answer(ack(2, 2, 2)).await;
    for receipt in receipts {
        soon("a receipt", receipt).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_refused_for_now_is_not_sent_again_before_the_hint_is_over() {
    const HINT: Duration = Duration::from_millis(400);
    let mut peer = Peer::new();
    let client = peer.client().await;
    let receipt = publish(&client, 1).await;
    let (mut call, _) = peer.publish().await;
    frames(&mut call, 1).await;
    let refused = std::time::Instant::now();
    call.answer(reject(1, 1, "slow_down", Some(HINT.as_millis() as u64))).await;
    let again = call.next().await;
    assert_eq!(again.counter, 1);
    assert!(refused.elapsed() >= HINT, "came again after {:?}", refused.elapsed());
    call.answer(ack(1, 1, 1)).await;
    soon("a receipt", receipt).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_publish_that_nobody_answers_times_out() {
    let mut peer = Peer::new();
    let client = peer.builder().publish_timeout(Duration::from_secs(8)).connect().await.unwrap();
    let started = tokio::time::Instant::now();
    let receipt = publish(&client, 1).await;
    let (mut call, _) = peer.publish().await;
    call.next().await;
    let error = receipt.await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Timeout);
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(8) && took <= Duration::from_secs(11), "took {took:?}");
}

#[tokio::test]
async fn a_stream_that_is_refused_for_good_fails_what_waits_and_the_next_publish_tries_again() {
    let mut peer = Peer::new();
    let client = peer.client().await;
    let receipt = publish(&client, 1).await;
    let (call, _) = peer.publish().await;
    call.fail(Status::permission_denied("no producer")).await;
    assert_eq!(soon("a receipt", receipt).await.unwrap_err().code(), ErrorCode::PermissionDenied);
    let receipt = publish(&client, 2).await;
    let (mut call, open) = peer.publish().await;
    assert_eq!(open.epoch, 2, "a new session under the same id");
    let frame = call.next().await;
    assert_eq!((frame.counter, payloads(&frame)), (1, vec![2]));
    call.answer(ack(1, 1, 5)).await;
    assert_eq!(soon("a receipt", receipt).await.unwrap().id.seq, 5);
}

#[tokio::test]
async fn a_server_that_drains_answers_what_was_sent_and_the_rest_goes_to_the_next() {
    let mut peer = Peer::new();
    let client = peer.client().await;
    let first = publish(&client, 1).await;
    let (mut call, _) = peer.publish().await;
    call.next().await;
    let going = v1::GoingAway { reason: "stop".into(), retry_after_ms: 0 };
    call.answer(v1::PublishStreamResponse { going_away: Some(going), ..Default::default() }).await;
    assert!(call.ended().await, "the client goes on sending");
    let second = publish(&client, 2).await;
    call.answer(ack(1, 1, 1)).await;
    assert_eq!(soon("the first receipt", first).await.unwrap().id.seq, 1);
    drop(call);
    let (mut call, _) = peer.publish().await;
    assert_eq!(payloads(&call.next().await), [2]);
    call.answer(ack(2, 1, 2)).await;
    soon("the second receipt", second).await.unwrap();
}

#[tokio::test]
async fn what_the_bus_would_refuse_is_refused_before_it_is_sent() {
    let peer = Peer::new();
    let client = peer.client().await;
    let m = client.messages();
    let long = "x".repeat(129);
    for (code, builder) in [
        (ErrorCode::PayloadTooLarge, m.publish("t", vec![0; (1 << 20) + 1])),
        (ErrorCode::WildcardInPublish, m.publish("a.*", "")),
        (ErrorCode::TopicReserved, m.publish("$acb.x", "")),
        (ErrorCode::InvalidTopic, m.publish("a..b", "")),
        (ErrorCode::InvalidName, m.send("Not An Id", "")),
        (ErrorCode::FieldTooLarge, m.publish("t", "").correlation_id(&long)),
        (ErrorCode::FieldTooLarge, m.publish("t", "").idempotency_key(&long)),
        (ErrorCode::InvalidAttributes, m.publish("t", "").attribute("a", "1").attribute("a", "2")),
        (ErrorCode::AttributesTooLarge, m.publish("t", "").attribute("a", "x".repeat(20_000))),
    ] {
        let error = builder.send().await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
    }
    assert_eq!(peer.calls(acb_proto::PUBLISH_STREAM), 0);
}

#[tokio::test]
async fn closing_answers_every_receipt() {
    let mut peer = Peer::new();
    let client = peer.client().await;
    let receipt = publish(&client, 1).await;
    let (mut call, _) = peer.publish().await;
    call.next().await;
    client.close().await;
    assert_eq!(soon("a receipt", receipt).await.unwrap_err().code(), ErrorCode::ClientClosed);
    let error = client.messages().publish("t", "").send().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ClientClosed);
}

#[tokio::test]
async fn draining_waits_for_what_is_on_its_way() {
    let mut peer = Peer::new();
    let client = peer.client().await;
    let receipt = publish(&client, 1).await;
    let (mut call, _) = peer.publish().await;
    call.next().await;
    let mut draining = pin!(client.drain());
    assert!(poll_now(draining.as_mut()).is_pending());
    call.answer(ack(1, 1, 9)).await;
    soon("the drain", draining).await.unwrap();
    assert_eq!(receipt.await.unwrap().id.seq, 9);
}

#[tokio::test]
async fn dropping_the_last_handle_closes_and_a_publisher_is_one() {
    let mut peer = Peer::new();
    let client = peer.client().await;
    let publisher = client.messages().publisher("t").build().unwrap();
    drop(client);
    let receipt = publisher.publish("1").await.unwrap();
    let (mut call, _) = peer.publish().await;
    call.next().await;
    drop(publisher);
    assert_eq!(soon("a receipt", receipt).await.unwrap_err().code(), ErrorCode::ClientClosed);
}
