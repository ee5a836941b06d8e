//! Connections that come, go, and come back.

use acb_engine::{Effects, EngineConfig, SessionDef, SessionKey, Settlement};
use acb_types::{ErrorCode, Incarnation, SubscriptionId, batch::SubscriptionDef};

use crate::bed::{Bed, Said, range, session, sub};

const SUB: SubscriptionId = SubscriptionId(1);

fn one() -> (Bed, SessionKey) {
    let mut bed = Bed::new();
    bed.subscribe(sub(1, &["a"]));
    let s = bed.connect(1, session(1, 64));
    bed.publish_to("a", 10);
    bed.said();
    (bed, s)
}

fn resuming(arrived: u64) -> SessionDef {
    SessionDef { resume_delivery: Some(arrived), ..session(1, 64) }
}

fn numbers(bed: &mut Bed) -> Vec<(u64, u64, u32)> {
    let said = bed.said();
    said.iter()
        .filter_map(|s| if let Said::Deliver(_, d) = s { Some((d.delivery, d.first_seq, d.attempt)) } else { None })
        .collect()
}

#[test]
fn a_lost_connection_keeps_its_leases_for_ten_seconds() {
    let (mut bed, s) = one();
    let other = bed.connect(1, session(2, 64));
    bed.engine.disconnect(s, bed.now, &mut bed.fx);
    bed.advance(9_999);
    assert_eq!(bed.seqs(), []);
    assert_eq!(bed.engine.next_timer(), Some(bed.now.mono_ms + 1));
    bed.advance(1);
    assert_eq!(bed.delivered(), [(other, (1..=10).collect(), 1)], "to another, uncounted");
}

#[test]
fn a_session_that_comes_back_goes_on_where_it_was() {
    let (mut bed, s) = one();
    bed.ack(s, 1, 2);
    bed.engine.disconnect(s, bed.now, &mut bed.fx);
    bed.advance(5_000);
    let back = bed.try_connect(1, resuming(6)).unwrap();
    assert!(back.resumed && back.fenced.is_empty());
    assert_eq!(numbers(&mut bed), [(7, 7, 1)], "what did not arrive, under the numbers that follow, uncounted");
    bed.advance(6_000);
    bed.ack(back.session, 3, 8);
    assert_eq!(bed.answers(), [], "the leases of the first connection are its own still");
    assert_eq!(bed.engine.floor(), 11);
    bed.publish_to("a", 1);
    assert_eq!(numbers(&mut bed), [(11, 11, 1)]);
}

#[test]
fn a_client_that_says_nothing_of_what_arrived_is_given_everything_again() {
    let (mut bed, s) = one();
    bed.engine.disconnect(s, bed.now, &mut bed.fx);
    let back = bed.try_connect(1, session(1, 64)).unwrap();
    assert!(back.resumed);
    assert_eq!(numbers(&mut bed), [(1, 1, 1)]);
}

#[test]
fn a_client_cannot_claim_more_than_was_sent() {
    let (mut bed, s) = one();
    bed.engine.disconnect(s, bed.now, &mut bed.fx);
    bed.try_connect(1, resuming(1_000_000)).unwrap();
    bed.publish_to("a", 1);
    assert_eq!(numbers(&mut bed), [(11, 11, 1)]);
}

#[test]
fn after_the_grace_a_session_begins_anew() {
    let (mut bed, s) = one();
    bed.engine.disconnect(s, bed.now, &mut bed.fx);
    bed.advance(10_000);
    let back = bed.try_connect(1, resuming(10)).unwrap();
    assert!(!back.resumed);
    assert_eq!(numbers(&mut bed), [(1, 1, 1)]);
}

#[test]
fn a_second_connection_of_a_token_fences_the_first() {
    let (mut bed, s) = one();
    let back = bed.try_connect(1, resuming(10)).unwrap();
    assert_eq!(&back.fenced[..], [s]);
    assert!(back.resumed);
    bed.settle(s, Settlement::ConfirmedAck(range(1, 10)));
    bed.engine.credit(s, crate::bed::credit(0), bed.now, &mut bed.fx);
    bed.engine.disconnect(s, bed.now, &mut bed.fx);
    bed.engine.leave(s, bed.now, &mut bed.fx);
    bed.advance(20_000);
    assert!(bed.engine.plan(s, bed.now).is_none());
    assert_eq!(bed.answers(), [], "what the fenced one does, does nothing");
    bed.ack(back.session, 1, 10);
    assert_eq!(bed.engine.floor(), 11);
}

#[test]
fn the_same_token_of_another_agent_is_another_session() {
    let (mut bed, _) = one();
    let stranger = SessionDef { agent: "mallory".parse().unwrap(), ..resuming(0) };
    let other = bed.try_connect(1, stranger).unwrap();
    assert!(!other.resumed && other.fenced.is_empty());
    assert_eq!(bed.seqs(), []);
}

#[test]
fn an_older_incarnation_is_refused_and_a_newer_one_fences() {
    let (mut bed, s) = one();
    let at = |n, token: u8| SessionDef { incarnation: Incarnation(n), token: [token; 16], ..session(1, 64) };
    let newer = bed.try_connect(1, at(2, 1)).unwrap();
    assert_eq!((&newer.fenced[..], newer.resumed), (&[s][..], false), "a new life inherits no leases");
    assert_eq!(bed.delivered(), [(newer.session, (1..=10).collect(), 1)]);
    assert_eq!(bed.try_connect(1, at(1, 9)).unwrap_err(), ErrorCode::SessionFenced);
    let sibling = bed.try_connect(1, at(2, 7)).unwrap();
    assert!(sibling.fenced.is_empty(), "one incarnation may have several");
    let newest = bed.try_connect(1, at(3, 8)).unwrap();
    assert_eq!(newest.fenced.len(), 2);
}

#[test]
fn leaving_gives_everything_back_at_once_and_uncounted() {
    let (mut bed, s) = one();
    let other = bed.connect(1, session(2, 64));
    bed.ack(s, 4, 1);
    bed.engine.leave(s, bed.now, &mut bed.fx);
    let seqs: Vec<_> =
        bed.delivered().into_iter().inspect(|d| assert_eq!((d.0, d.2), (other, 1))).flat_map(|d| d.1).collect();
    assert_eq!(seqs, [1, 2, 3, 5, 6, 7, 8, 9, 10]);
    for _ in 0..10 {
        let s = bed.connect(1, session(1, 64));
        bed.engine.leave(s, bed.now, &mut bed.fx);
    }
    assert_eq!(bed.engine.totals().sessions, 1);
}

#[test]
fn a_lease_that_ends_while_the_connection_is_lost_does_not_count() {
    let mut bed = Bed::new();
    bed.subscribe(SubscriptionDef { ack_wait: std::time::Duration::from_secs(1), ..sub(1, &["a"]) });
    let s = bed.connect(1, session(1, 64));
    bed.publish_to("a", 1);
    bed.engine.disconnect(s, bed.now, &mut bed.fx);
    bed.advance(1000);
    let back = bed.connect(1, resuming(1));
    assert_eq!(bed.delivered().last(), Some(&(back, vec![1], 1)));
}

#[test]
fn sessions_of_one_subscription_are_bounded() {
    let mut bed = Bed::with(EngineConfig { sessions_per_subscription: 2, ..EngineConfig::default() });
    bed.subscribe(sub(1, &["a"]));
    bed.connect(1, session(1, 1));
    bed.connect(1, session(2, 1));
    assert_eq!(bed.try_connect(1, session(3, 1)).unwrap_err(), ErrorCode::TooManyStreams);
    assert!(bed.try_connect(1, session(2, 1)).is_ok(), "coming back needs no place");
    assert_eq!(bed.try_connect(9, session(1, 1)).unwrap_err(), ErrorCode::SubscriptionNotFound);
}

#[test]
fn an_ephemeral_subscription_goes_with_its_last_session() {
    let mut bed = Bed::new();
    bed.subscribe(SubscriptionDef { ephemeral: true, ..sub(1, &["a"]) });
    let one = bed.connect(1, session(1, 64));
    let two = bed.connect(1, session(2, 64));
    bed.engine.leave(one, bed.now, &mut bed.fx);
    bed.engine.disconnect(two, bed.now, &mut bed.fx);
    bed.advance(9_999);
    assert!(bed.engine.hears("a"), "its grace runs");
    let two = bed.connect(1, session(2, 64));
    bed.advance(60_000);
    assert!(bed.engine.hears("a"));
    bed.engine.disconnect(two, bed.now, &mut bed.fx);
    bed.advance(10_000);
    assert!(!bed.engine.hears("a"));
    let said = bed.said();
    assert!(matches!(said.last(), Some(Said::Ended(SUB))), "{said:?}");
}

#[test]
fn an_ephemeral_subscription_is_not_journaled_and_its_acks_are_confirmed_at_once() {
    let mut bed = Bed::new();
    bed.subscribe(SubscriptionDef { ephemeral: true, ..sub(1, &["a"]) });
    let s = bed.connect(1, session(1, 64));
    bed.publish_to("a", 3);
    bed.settle(s, Settlement::ConfirmedAck(range(1, 2)));
    bed.nack(s, 3, 1, "");
    assert_eq!(bed.answers(), [(1, 2, Ok(()))]);
    assert!(!bed.engine.has_journal() && bed.engine.take_journal().is_none());
    assert!(bed.engine.snapshot().is_empty());
    assert_eq!(bed.engine.floor(), 4, "and it holds nothing in the log");
}

#[test]
fn removing_a_subscription_ends_its_sessions_and_forgets_it() {
    let (mut bed, s) = one();
    let away = bed.connect(1, session(2, 1));
    bed.engine.disconnect(away, bed.now, &mut bed.fx);
    assert_eq!(&bed.engine.unsubscribe(SUB)[..], [s], "one was connected");
    assert!(bed.engine.unsubscribe(SUB).is_empty());
    bed.ack(s, 1, 10);
    bed.advance(100_000);
    assert!(bed.said().is_empty());
    assert_eq!((bed.engine.counts(SUB), bed.engine.totals().subscriptions), (None, 0));
    // Its slot is another's now.
    bed.subscribe(sub(2, &["a"]));
    let t = bed.connect(2, session(1, 64));
    bed.engine.disconnect(s, bed.now, &mut bed.fx);
    bed.publish_to("a", 1);
    assert_eq!(bed.delivered(), [(t, vec![11], 1)]);
}

/// Compiles only while the effects need no more than these.
#[test]
fn effects_can_be_ignored() {
    struct Deaf;
    impl Effects for Deaf {
        fn deliver(&mut self, _: SessionKey, _: acb_engine::Delivery) {}
        fn kick(&mut self, _: SessionKey) {}
        fn settled(&mut self, _: SessionKey, _: u64, _: u32, _: Result<(), ErrorCode>) {}
        fn gap(&mut self, _: SessionKey, _: acb_types::batch::Gap) {}
        fn die(&mut self, _: acb_engine::Death) {}
    }
    let (mut bed, s) = one();
    bed.engine.leave(s, bed.now, &mut Deaf);
}
