//! Deliveries, settlements, resuming, numbering, leases.

use std::time::Duration;

use acb_proto::v1;
use acb_sdk::{Client, ErrorCode, Message, Subscription};

use crate::peer::{Consume, Peer, delivery, opened, soon};

async fn subscribe(peer: &mut Peer, client: &Client) -> (Subscription, Consume, v1::ConsumeOpen) {
    let subscribing = tokio::spawn(client.subscribe("work").credits(8).open());
    let (call, open) = peer.consume().await;
    call.answer(opened(false)).await;
    (soon("the subscription", subscribing).await.unwrap().unwrap(), call, open)
}

async fn next(subscription: &mut Subscription) -> Message {
    soon("a message", subscription.next()).await.expect("the subscription ended").unwrap()
}

fn settled(first_seq: u64, error: Option<v1::Error>) -> v1::ConsumeResponse {
    v1::ConsumeResponse { settled: vec![v1::Settled { first_seq, count: 1, error }], ..Default::default() }
}

fn seqs(ranges: &[v1::SeqRange]) -> Vec<(u64, u32)> {
    ranges.iter().map(|r| (r.first_seq, r.count)).collect()
}

#[tokio::test]
async fn messages_come_in_order_with_their_facts() {
    let mut peer = Peer::new();
    let client = peer.client().await;
    let (mut work, call, open) = subscribe(&mut peer, &client).await;
    assert_eq!((open.subscription.as_str(), open.resume_delivery), ("work", 0));
    assert_eq!(open.credit.unwrap().messages, 8);
    call.answer(delivery(1, 5, 3)).await;
    for seq in 5..8u64 {
        let m = next(&mut work).await;
        assert_eq!((m.seq(), m.topic(), m.from(), m.from_incarnation(), m.attempt()), (seq, "t", "planner", 2, 1));
        assert_eq!(m.payload(), seq.to_string());
        assert_eq!(m.id().to_string(), format!("topics-0-1-{seq}"));
    }
    assert!(work.try_next().is_none());
}

#[tokio::test]
async fn acks_merge_and_go_at_a_quarter_of_the_credits() {
    let mut peer = Peer::new();
    let client = peer.builder().ack_linger(Duration::from_secs(1)).connect().await.unwrap();
    let (mut work, mut call, _) = subscribe(&mut peer, &client).await;
    call.answer(delivery(1, 1, 5)).await;
    for _ in 0..4 {
        next(&mut work).await.ack().unwrap();
    }
    let started = std::time::Instant::now();
    let frame = call.next().await;
    assert!(started.elapsed() < Duration::from_millis(500), "waited for the linger");
    assert_eq!(seqs(&frame.acks)[0].0, 1);
}

#[tokio::test]
async fn a_single_ack_goes_after_the_linger() {
    let mut peer = Peer::new();
    let client = peer.client().await;
    let (mut work, mut call, _) = subscribe(&mut peer, &client).await;
    call.answer(delivery(1, 7, 1)).await;
    next(&mut work).await.ack().unwrap();
    assert_eq!(seqs(&call.next().await.acks), [(7, 1)]);
}

#[tokio::test]
async fn every_settlement_arrives_as_what_it_is() {
    let mut peer = Peer::new();
    let client = peer.client().await;
    let (mut work, mut call, _) = subscribe(&mut peer, &client).await;
    call.answer(delivery(1, 1, 4)).await;
    let (a, b, c, d) = (next(&mut work).await, next(&mut work).await, next(&mut work).await, next(&mut work).await);
    a.nack(Some(Duration::from_secs(2)), "later").unwrap();
    b.term("never").unwrap();
    c.release().unwrap();
    d.progress().unwrap();
    let mut all = v1::ConsumeRequest::default();
    while all.nacks.is_empty() || all.terms.is_empty() || all.releases.is_empty() || all.progress.is_empty() {
        let frame = call.next().await;
        all.nacks.extend(frame.nacks);
        all.terms.extend(frame.terms);
        all.releases.extend(frame.releases);
        all.progress.extend(frame.progress);
    }
    assert_eq!((all.nacks[0].first_seq, all.nacks[0].delay_ms, all.nacks[0].reason.as_str()), (1, 2000, "later"));
    assert_eq!((all.terms[0].first_seq, all.terms[0].reason.as_str()), (2, "never"));
    assert_eq!((seqs(&all.releases), seqs(&all.progress)), (vec![(3, 1)], vec![(4, 1)]));
}

#[tokio::test]
async fn a_confirmed_ack_waits_for_its_answer() {
    let mut peer = Peer::new();
    let client = peer.client().await;
    let (mut work, mut call, _) = subscribe(&mut peer, &client).await;
    call.answer(delivery(1, 1, 2)).await;
    let (a, b) = (next(&mut work).await, next(&mut work).await);
    let a = tokio::spawn(async move { a.ack_confirmed().await });
    assert_eq!(seqs(&call.next().await.confirmed_acks), [(1, 1)]);
    call.answer(settled(1, None)).await;
    soon("the confirmation", a).await.unwrap().unwrap();
    let b = tokio::spawn(async move { b.ack_confirmed().await });
    call.next().await;
    let lost = v1::Error { code: "lease_lost".into(), ..Default::default() };
    call.answer(settled(2, Some(lost))).await;
    assert_eq!(soon("the refusal", b).await.unwrap().unwrap_err().code(), ErrorCode::LeaseLost);
}

#[tokio::test]
async fn a_cut_stream_resumes_and_settlements_are_kept() {
    let mut peer = Peer::new();
    let client = peer.builder().ack_linger(Duration::from_secs(1)).connect().await.unwrap();
    let (mut work, call, first) = subscribe(&mut peer, &client).await;
    call.answer(delivery(1, 1, 3)).await;
    let (a, b) = (next(&mut work).await, next(&mut work).await);
    peer.cut();
    a.ack().unwrap();
    let (mut call, open) = peer.consume().await;
    assert_eq!((&open.session_id, open.resume_delivery), (&first.session_id, 3), "number of the last that arrived");
    call.answer(opened(true)).await;
    assert_eq!(seqs(&call.next().await.acks), [(1, 1)]);
    b.ack().unwrap();
    // The third was here already; the fourth comes on the new stream under the next number.
    call.answer(delivery(4, 4, 1)).await;
    assert_eq!((next(&mut work).await.seq(), next(&mut work).await.seq()), (3, 4));
}

#[tokio::test]
async fn acks_that_may_have_been_lost_with_the_connection_are_said_again() {
    let mut peer = Peer::new();
    let client = peer.client().await;
    let (mut work, mut call, _) = subscribe(&mut peer, &client).await;
    call.answer(delivery(1, 1, 2)).await;
    next(&mut work).await.ack().unwrap();
    assert_eq!(seqs(&call.next().await.acks), [(1, 1)]);
    peer.cut();
    let (mut call, _) = peer.consume().await;
    call.answer(opened(true)).await;
    assert_eq!(seqs(&call.next().await.acks), [(1, 1)]);
}

#[tokio::test]
async fn when_the_leases_are_lost_so_is_what_is_held() {
    let mut peer = Peer::new();
    let client = peer.client().await;
    let (mut work, call, _) = subscribe(&mut peer, &client).await;
    call.answer(delivery(1, 1, 1)).await;
    call.answer(delivery(2, 2, 2)).await;
    let held = next(&mut work).await;
    peer.cut();
    let (call, _) = peer.consume().await;
    call.answer(opened(false)).await;
    soon("the loss of the lease", async {
        while held.progress().is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(held.ack().unwrap_err().code(), ErrorCode::LeaseLost);
    // What waited in the client is gone too: it comes under new numbers.
    call.answer(delivery(1, 3, 1)).await;
    let again = next(&mut work).await;
    assert_eq!(again.seq(), 3);
    again.ack().unwrap();
}

#[tokio::test]
async fn a_hole_in_the_numbers_makes_the_client_resume() {
    let mut peer = Peer::new();
    let client = peer.client().await;
    let (mut work, call, _) = subscribe(&mut peer, &client).await;
    call.answer(delivery(1, 1, 2)).await;
    call.answer(delivery(5, 5, 1)).await;
    let (call, open) = peer.consume().await;
    assert_eq!(open.resume_delivery, 2);
    call.answer(opened(true)).await;
    call.answer(delivery(3, 3, 3)).await;
    for seq in 1..=5 {
        assert_eq!(next(&mut work).await.seq(), seq);
    }
    assert_eq!(peer.dials(), 1, "a hole is no reason for a new connection");
}

#[tokio::test]
async fn a_frame_that_is_said_twice_is_taken_once() {
    let mut peer = Peer::new();
    let client = peer.client().await;
    let (mut work, call, _) = subscribe(&mut peer, &client).await;
    call.answer(delivery(1, 1, 2)).await;
    call.answer(delivery(1, 1, 2)).await;
    call.answer(delivery(3, 3, 1)).await;
    for seq in 1..=3 {
        assert_eq!(next(&mut work).await.seq(), seq);
    }
    assert!(work.try_next().is_none());
}

#[tokio::test]
async fn a_gap_is_said_and_the_subscription_goes_on() {
    let mut peer = Peer::new();
    let client = peer.client().await;
    let (mut work, call, _) = subscribe(&mut peer, &client).await;
    let gap = v1::Gap { from_seq: 1, to_seq: 9, reason: "retention".into() };
    call.answer(v1::ConsumeResponse { gaps: vec![gap], ..delivery(1, 9, 1) }).await;
    let error = soon("the gap", work.next()).await.unwrap().unwrap_err();
    let gap = error.gap().expect("no gap in the error");
    assert_eq!((gap.from_seq, gap.to_seq), (1, 9));
    assert_eq!(next(&mut work).await.seq(), 9);
}

#[tokio::test]
async fn dropping_a_subscription_sends_its_acks_and_says_goodbye() {
    let mut peer = Peer::new();
    let client = peer.builder().ack_linger(Duration::from_secs(1)).connect().await.unwrap();
    let (mut work, mut call, _) = subscribe(&mut peer, &client).await;
    call.answer(delivery(1, 1, 2)).await;
    let held = next(&mut work).await;
    next(&mut work).await.ack().unwrap();
    drop(work);
    // The last acks are confirmed: nothing that was done comes again for want of a last word.
    assert_eq!(seqs(&call.next().await.confirmed_acks), [(2, 1)]);
    call.answer(settled(2, None)).await;
    assert!(call.ended().await);
    assert_eq!(held.ack().unwrap_err().code(), ErrorCode::LeaseLost);
}

#[tokio::test]
async fn what_cannot_be_subscribed_says_so() {
    let mut peer = Peer::new();
    let client = peer.client().await;
    let subscribing = tokio::spawn(client.subscribe("nothing").open());
    let (call, _) = peer.consume().await;
    let mut metadata = tonic::metadata::MetadataMap::new();
    metadata.insert("acb-error-code", "subscription_not_found".parse().unwrap());
    call.fail(tonic::Status::with_metadata(tonic::Code::NotFound, "no subscription nothing", metadata)).await;
    let error = soon("the error", subscribing).await.unwrap().unwrap_err();
    assert_eq!(error.code(), ErrorCode::SubscriptionNotFound);
    assert_eq!(client.subscribe("a b").open().await.unwrap_err().code(), ErrorCode::InvalidName);
    assert_eq!(client.listen(["a..b"]).open().await.unwrap_err().code(), ErrorCode::InvalidFilter);
    assert_eq!(client.listen(Vec::<String>::new()).open().await.unwrap_err().code(), ErrorCode::InvalidFilter);
}

#[tokio::test]
async fn an_ephemeral_subscription_carries_its_definition() {
    let mut peer = Peer::new();
    let client = peer.client().await;
    let listening = tokio::spawn(client.listen(["a.*", "b.>"]).open());
    let (call, open) = peer.consume().await;
    call.answer(opened(false)).await;
    assert_eq!(open.subscription, "");
    assert_eq!(open.ephemeral.unwrap().filters, ["a.*", "b.>"]);
    soon("the subscription", listening).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_handler_keeps_its_lease_acks_what_is_done_and_nacks_what_failed() {
    let mut peer = Peer::new();
    let client = peer.builder().keep_alive(Duration::from_mins(10), Duration::from_mins(10)).connect().await.unwrap();
    let (work, mut call, _) = subscribe(&mut peer, &client).await;
    call.answer(delivery(1, 1, 2)).await;
    let handling = tokio::spawn(work.for_each(1, |m| async move {
        if m.seq() == 1 {
            tokio::time::sleep(Duration::from_secs(25)).await;
            Ok(())
        } else {
            Err("cannot")
        }
    }));
    // A third of 30 s: both the one that is handled and the one that waits for it.
    let renewal = call.next().await;
    assert_eq!(seqs(&renewal.progress), [(1, 2)]);
    let mut frame = call.next().await;
    while frame.acks.is_empty() {
        frame = call.next().await;
    }
    assert_eq!(seqs(&frame.acks), [(1, 1)]);
    let nack = if frame.nacks.is_empty() { call.next().await } else { frame };
    assert_eq!((nack.nacks[0].first_seq, nack.nacks[0].reason.as_str()), (2, "cannot"));
    let draining = tokio::spawn(async move { client.drain().await });
    assert_eq!(seqs(&call.next().await.confirmed_acks), [(1, 1)]);
    call.answer(settled(1, None)).await;
    assert!(call.ended().await);
    drop(call);
    soon("the drain", draining).await.unwrap().unwrap();
    soon("the handlers", handling).await.unwrap().unwrap();
}

#[tokio::test]
async fn draining_ends_subscriptions_once_what_they_hold_is_settled() {
    let mut peer = Peer::new();
    let client = peer.client().await;
    let (mut work, mut call, _) = subscribe(&mut peer, &client).await;
    call.answer(delivery(1, 1, 1)).await;
    let held = next(&mut work).await;
    let draining = tokio::spawn({
        let client = client.clone();
        async move { client.drain().await }
    });
    assert!(soon("the end", work.next()).await.is_none());
    assert!(!draining.is_finished(), "a message is still held");
    held.ack().unwrap();
    let frame = call.next().await;
    // The linger or the goodbye, whichever is first.
    let last = if frame.confirmed_acks.is_empty() { call.next().await } else { frame };
    assert_eq!(seqs(&last.confirmed_acks), [(1, 1)]);
    call.answer(settled(1, None)).await;
    assert!(call.ended().await);
    drop(call);
    soon("the drain", draining).await.unwrap().unwrap();
}

#[tokio::test]
async fn credits_can_change() {
    let mut peer = Peer::new();
    let client = peer.client().await;
    let (work, mut call, _) = subscribe(&mut peer, &client).await;
    work.set_credits(3, 1000).unwrap();
    let credit = call.next().await.credit.unwrap();
    assert_eq!((credit.messages, credit.bytes), (3, 1000));
    assert_eq!(work.set_credits(70_000, 1).unwrap_err().code(), ErrorCode::InvalidArgument);
}

#[tokio::test]
async fn a_batch_takes_what_is_here() {
    let mut peer = Peer::new();
    let client = peer.client().await;
    let (mut work, call, _) = subscribe(&mut peer, &client).await;
    call.answer(delivery(1, 1, 3)).await;
    call.answer(delivery(4, 4, 2)).await;
    let mut all = Vec::new();
    while all.len() < 5 {
        let batch = soon("a batch", work.next_batch(4)).await.unwrap();
        assert!(!batch.is_empty() && batch.len() <= 4);
        all.extend(batch.iter().map(Message::seq));
    }
    assert_eq!(all, [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn what_a_handler_settled_itself_is_left_as_it_is() {
    let mut peer = Peer::new();
    let client = peer.client().await;
    let (work, mut call, _) = subscribe(&mut peer, &client).await;
    call.answer(delivery(1, 1, 2)).await;
    let handling = tokio::spawn(work.for_each(2, |m| async move {
        if m.seq() == 1 {
            m.nack(None, "later").unwrap();
        }
        Ok::<_, acb_sdk::Error>(())
    }));
    let mut all = v1::ConsumeRequest::default();
    while all.acks.is_empty() || all.nacks.is_empty() {
        let frame = call.next().await;
        all.nacks.extend(frame.nacks);
        all.acks.extend(frame.acks);
    }
    assert_eq!((seqs(&all.acks), all.nacks.len(), all.nacks[0].first_seq), (vec![(2, 1)], 1, 1));
    drop(client);
    drop(call);
    handling.abort();
}
