//! Requests, replies, and who gets the ones that come late.

use std::time::Duration;

use acb_proto::v1;
use acb_sdk::{Client, ErrorCode, Reply};
use tokio::task::JoinHandle;

use crate::peer::{Consume, Peer, Publish, ack, delivery, opened, reject, soon};

fn request(client: &Client, payload: &'static str, timeout: Duration) -> JoinHandle<acb_sdk::Result<Reply>> {
    tokio::spawn(client.messages().request("worker", payload).timeout(timeout).send())
}

/// A client with one request on its way.
async fn asked(
    peer: &mut Peer,
    timeout: Duration,
) -> (Client, JoinHandle<acb_sdk::Result<Reply>>, Consume, Publish, v1::Message) {
    let client = peer.client().await;
    let asking = request(&client, "question", timeout);
    let (replies, open) = peer.consume().await;
    assert_eq!(open.subscription, "$reply.tester");
    replies.answer(opened(false)).await;
    let (mut call, _) = peer.publish().await;
    let frame = call.next().await;
    assert_eq!(frame.durability, v1::Durability::Written as i32);
    (client, asking, replies, call, frame.messages[0].clone())
}

fn reply(number: u64, seq: u64, to: &v1::Message, payload: &'static str) -> v1::ConsumeResponse {
    let mut response = delivery(number, seq, 1);
    response.messages = vec![v1::Message {
        topic: to.reply_to.clone(),
        kind: v1::MessageKind::Reply as i32,
        correlation_id: to.correlation_id.clone(),
        payload: payload.into(),
        ..Default::default()
    }];
    response
}

const LONG: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_reply_finds_its_request_and_is_acknowledged() {
    let mut peer = Peer::new();
    let (client, first, mut replies, mut call, to_first) = asked(&mut peer, LONG).await;
    assert_eq!((to_first.topic.as_str(), to_first.kind), ("$acb.inbox.worker", v1::MessageKind::Request as i32));
    assert_eq!(to_first.reply_to, "$acb.reply.tester");
    assert!(to_first.expires_at_ms > 0);
    let second = request(&client, "another", LONG);
    let to_second = call.next().await.messages[0].clone();
    assert_ne!(to_first.correlation_id, to_second.correlation_id);
    // The second is answered first, and before either is acknowledged.
    replies.answer(reply(1, 1, &to_second, "two")).await;
    replies.answer(reply(2, 2, &to_first, "one")).await;
    assert_eq!(soon("the second", second).await.unwrap().unwrap().payload(), "two");
    assert_eq!(soon("the first", first).await.unwrap().unwrap().payload(), "one");
    assert_eq!(replies.next().await.acks.iter().map(|r| r.count).sum::<u32>(), 2);
    assert_eq!(peer.calls(acb_proto::CONSUME), 1, "one stream carries all replies");
}

#[tokio::test]
async fn nobody_there_is_said_at_once() {
    let mut peer = Peer::new();
    let (_client, asking, _replies, call, _) = asked(&mut peer, LONG).await;
    call.answer(reject(1, 1, "no_responders", None)).await;
    let error = soon("the refusal", asking).await.unwrap().unwrap_err();
    assert_eq!(error.code(), ErrorCode::NoResponders);
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn a_late_reply_goes_to_the_inbox_flagged() {
    let mut peer = Peer::new();
    let (client, asking, mut replies, call, to) = asked(&mut peer, Duration::from_millis(50)).await;
    call.answer(ack(1, 1, 1)).await;
    let error = soon("the timeout", asking).await.unwrap().unwrap_err();
    assert_eq!(error.code(), ErrorCode::Timeout);
    let opening = tokio::spawn(client.inbox().open());
    let (inbox_call, open) = peer.consume().await;
    assert_eq!(open.subscription, "$inbox.tester");
    inbox_call.answer(opened(false)).await;
    let mut inbox = soon("the inbox", opening).await.unwrap().unwrap();
    replies.answer(reply(1, 9, &to, "too late")).await;
    let late = soon("the late reply", inbox.next()).await.unwrap().unwrap();
    assert!(late.is_late());
    assert_eq!((late.payload().as_ref(), late.correlation_id()), (b"too late".as_ref(), to.correlation_id.as_str()));
    // It is settled where it came from.
    late.ack().unwrap();
    assert_eq!(replies.next().await.acks[0].first_seq, 9);
}

#[tokio::test]
async fn a_late_reply_that_nobody_takes_stays_unacknowledged() {
    let mut peer = Peer::new();
    let (client, asking, mut replies, call, to) = asked(&mut peer, Duration::from_millis(50)).await;
    call.answer(ack(1, 1, 1)).await;
    soon("the timeout", asking).await.unwrap().unwrap_err();
    replies.answer(reply(1, 1, &to, "too late")).await;
    let second = request(&client, "again", LONG);
    let mut call = call;
    let to = call.next().await.messages[0].clone();
    replies.answer(reply(2, 2, &to, "in time")).await;
    soon("the reply", second).await.unwrap().unwrap();
    let acks = replies.next().await.acks;
    assert_eq!((acks.len(), acks[0].first_seq, acks[0].count), (1, 2, 1));
}

#[tokio::test]
async fn a_handler_replies_to_whoever_asked() {
    let mut peer = Peer::new();
    let client = peer.client().await;
    let opening = tokio::spawn(client.inbox().open());
    let (call, _) = peer.consume().await;
    call.answer(opened(false)).await;
    let mut inbox = soon("the inbox", opening).await.unwrap().unwrap();
    let mut response = delivery(1, 1, 2);
    response.messages[0].kind = v1::MessageKind::Request as i32;
    response.messages[0].reply_to = "$acb.reply.planner".into();
    response.messages[0].correlation_id = "c".into();
    call.answer(response).await;
    let asked = soon("the request", inbox.next()).await.unwrap().unwrap();
    assert!(asked.is_request());
    drop(asked.reply("answer").unwrap().send().await.unwrap());
    let (mut publish, _) = peer.publish().await;
    let frame = publish.next().await;
    let m = &frame.messages[0];
    assert_eq!(
        (m.topic.as_str(), m.correlation_id.as_str(), m.kind),
        ("$acb.reply.planner", "c", v1::MessageKind::Reply as i32)
    );
    assert_eq!(frame.durability, v1::Durability::Written as i32);
    let plain = soon("the plain message", inbox.next()).await.unwrap().unwrap();
    assert_eq!(plain.reply("x").unwrap_err().code(), ErrorCode::MissingField);
}

#[tokio::test]
async fn a_request_survives_a_cut() {
    let mut peer = Peer::new();
    let (_client, asking, _replies, _call, to) = asked(&mut peer, LONG).await;
    peer.cut();
    let (replies, open) = peer.consume().await;
    assert_eq!(open.resume_delivery, 0);
    replies.answer(opened(true)).await;
    let (mut call, _) = peer.publish().await;
    assert_eq!(call.next().await.messages[0].correlation_id, to.correlation_id, "sent again");
    replies.answer(reply(1, 1, &to, "answer")).await;
    assert_eq!(soon("the reply", asking).await.unwrap().unwrap().payload(), "answer");
}

#[tokio::test]
async fn a_request_that_is_over_is_forgotten() {
    let waiting = |client: &Client| {
        let shown = format!("{client:?}");
        let at = shown.find("Requests { waiting: ").unwrap_or_else(|| panic!("{shown}"));
        shown[at..].split([' ', ',']).nth(3).unwrap().parse::<u32>().unwrap()
    };
    let mut peer = Peer::new();
    let (client, asking, _replies, mut call, _) = asked(&mut peer, LONG).await;
    assert_eq!(waiting(&client), 1);
    // Given up by whoever asked.
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    assert_eq!(waiting(&client), 0);
    // Out of time.
    let late = request(&client, "another", Duration::from_millis(50));
    call.next().await;
    assert_eq!(soon("the deadline", late).await.unwrap().unwrap_err().code(), ErrorCode::Timeout);
    assert_eq!(waiting(&client), 0);
}
