//! Giving up.

use acb_engine::{Death, DeathReason, DeliveryState, SessionKey, Settlement};
use acb_types::{ClassId, ErrorCode, MessageId, SubscriptionId, batch::SubscriptionDef};

use crate::bed::{Bed, range, session, sub};

const SUB: SubscriptionId = SubscriptionId(1);

fn one(max_attempts: u32) -> (Bed, SessionKey) {
    let mut bed = Bed::new();
    bed.subscribe(SubscriptionDef { max_attempts, ..sub(1, &["a"]) });
    let s = bed.connect(1, session(1, 64));
    bed.publish_to("a", 3);
    bed.said();
    (bed, s)
}

fn brief(d: &Death) -> (u64, u32, DeathReason, &str) {
    (d.seq, d.attempts, d.reason, d.last_error.as_str())
}

fn letter(seq: u64) -> MessageId {
    MessageId { class: ClassId::DEAD_LETTERS, partition: 0, epoch: 1, seq }
}

#[test]
fn the_last_failed_attempt_kills_with_what_the_consumer_said() {
    let (mut bed, s) = one(2);
    bed.nack(s, 1, 1, "first");
    bed.advance(1000);
    bed.nack(s, 1, 1, "second");
    let deaths = bed.deaths();
    assert_eq!(deaths.iter().map(brief).collect::<Vec<_>>(), [(1, 2, DeathReason::AttemptsExhausted, "second")]);
    assert_eq!(bed.status(1, 1).state, DeliveryState::Waiting);
    assert_eq!(bed.engine.counts(SUB).unwrap().dying, 1);
    bed.advance(100_000_000);
    assert!(bed.deaths().iter().all(|d| d.seq != 1), "once is enough");
    bed.engine.dead(SUB, 1, Some(letter(9)), bed.now, &mut bed.fx);
    let state = bed.status(1, 1);
    assert_eq!((state.state, state.attempts, state.dead_letter), (DeliveryState::Dead, 2, Some(letter(9))));
    assert!(bed.engine.is_settled(SUB, 1));
    bed.engine.dead(SUB, 1, Some(letter(10)), bed.now, &mut bed.fx);
    assert_eq!(bed.status(1, 1).dead_letter, Some(letter(9)), "the first one stays");
}

#[test]
fn a_silent_last_attempt_keeps_the_words_of_the_one_before() {
    let (mut bed, s) = one(2);
    bed.nack(s, 1, 1, "no such table");
    bed.advance(1000);
    bed.said();
    bed.advance(30_000);
    let deaths = bed.deaths();
    let one: Vec<_> = deaths.iter().filter(|d| d.seq == 1).map(brief).collect();
    assert_eq!(one, [(1, 2, DeathReason::AttemptsExhausted, "no such table")]);
    bed.advance(1000);
    bed.said();
    bed.advance(30_000);
    let deaths = bed.deaths();
    let rest: Vec<_> = deaths.iter().map(brief).collect();
    assert_eq!(rest, [(2, 2, DeathReason::AttemptsExhausted, ""), (3, 2, DeathReason::AttemptsExhausted, "")]);
}

#[test]
fn a_terminated_message_is_dead_at_once() {
    let (mut bed, s) = one(5);
    bed.settle(s, Settlement::Term { range: range(1, 2), reason: "not json" });
    let deaths = bed.deaths();
    let got: Vec<_> = deaths.iter().map(brief).collect();
    assert_eq!(got, [(1, 1, DeathReason::Terminated, "not json"), (2, 1, DeathReason::Terminated, "not json")]);
    assert_eq!(deaths[0].name.as_str(), "s1");
}

#[test]
fn the_dying_and_the_dead_cannot_be_acknowledged() {
    let (mut bed, s) = one(5);
    bed.settle(s, Settlement::Term { range: range(1, 2), reason: "" });
    bed.said();
    bed.engine.dead(SUB, 2, None, bed.now, &mut bed.fx);
    bed.settle(s, Settlement::ConfirmedAck(range(1, 3)));
    bed.sync();
    assert_eq!(bed.answers(), [(1, 2, Err(ErrorCode::LeaseLost)), (3, 1, Ok(()))]);
}

#[test]
fn a_lost_connection_kills_only_by_the_third_loss_of_the_last_attempt() {
    let (mut bed, mut s) = one(1);
    for loss in 1..=3 {
        bed.engine.disconnect(s, bed.now, &mut bed.fx);
        bed.advance(10_000);
        let deaths = bed.deaths();
        if loss < 3 {
            assert_eq!(deaths, []);
            s = bed.connect(1, session(1, 64));
            assert_eq!(bed.delivered(), [(s, vec![1, 2, 3], 1)], "uncounted");
        } else {
            let got: Vec<_> = deaths.iter().map(brief).collect();
            let died = |seq| (seq, 1, DeathReason::ConnectionLost, "");
            assert_eq!(got, [died(1), died(2), died(3)]);
        }
    }
}

#[test]
fn only_so_many_dead_are_remembered_and_the_rest_is_never_said_to_be_acknowledged() {
    let mut bed = Bed::with(acb_engine::EngineConfig { remembered: 2, ..Default::default() });
    bed.subscribe(sub(1, &["a"]));
    let s = bed.connect(1, session(1, 64));
    bed.publish_to("a", 5);
    bed.settle(s, Settlement::Term { range: range(1, 4), reason: "" });
    for seq in 1..=4 {
        bed.engine.dead(SUB, seq, Some(letter(seq)), bed.now, &mut bed.fx);
    }
    bed.said();
    assert_eq!(bed.status(1, 4).state, DeliveryState::Dead);
    assert_eq!(bed.status(1, 1).state, DeliveryState::Acked, "forgotten");
    bed.settle(s, Settlement::ConfirmedAck(range(1, 5)));
    bed.sync();
    assert_eq!(bed.answers(), [(1, 4, Err(ErrorCode::LeaseLost)), (5, 1, Ok(()))]);
}

#[test]
fn a_dead_letter_that_the_engine_did_not_know_of_counts_whatever_it_thought() {
    let (mut bed, s) = one(5);
    bed.engine.dead(SUB, 2, Some(letter(1)), bed.now, &mut bed.fx);
    assert_eq!(bed.status(1, 2).state, DeliveryState::Dead);
    bed.ack(s, 1, 3);
    assert_eq!(bed.answers(), [(2, 1, Err(ErrorCode::LeaseLost))]);
    bed.engine.dead(SUB, 77, Some(letter(1)), bed.now, &mut bed.fx);
    bed.engine.dead(SubscriptionId(9), 1, Some(letter(1)), bed.now, &mut bed.fx);
    bed.publish_to("a", 1);
    assert_eq!(bed.seqs(), [4]);
}

#[test]
fn a_discard_settles_without_a_lease_and_once() {
    let mut bed = Bed::new();
    bed.subscribe(sub(1, &["a"]));
    bed.publish_to("a", 4);
    let discard = |bed: &mut Bed, seq| bed.engine.settle_direct(SUB, seq, bed.now, &mut bed.fx);
    assert_eq!(discard(&mut bed, 2), Ok(true));
    assert_eq!(discard(&mut bed, 2), Ok(false));
    assert_eq!(discard(&mut bed, 1), Ok(true));
    assert_eq!(discard(&mut bed, 99), Ok(false));
    assert_eq!(
        bed.engine.settle_direct(SubscriptionId(9), 1, bed.now, &mut bed.fx),
        Err(ErrorCode::SubscriptionNotFound)
    );
    assert_eq!(bed.engine.floor(), 3);
    assert!(bed.engine.is_settled(SUB, 2) && !bed.engine.is_settled(SUB, 3));
    discard(&mut bed, 4).unwrap();
    bed.connect(1, session(1, 64));
    assert_eq!(bed.seqs(), [3]);
    discard(&mut bed, 3).unwrap();
    assert_eq!(bed.engine.floor(), 5, "also out of a lease");
}

#[test]
fn discards_ahead_of_the_cursor_are_bounded() {
    let mut bed = Bed::with(acb_engine::EngineConfig { settled_ahead: 2, ..Default::default() });
    bed.subscribe(sub(1, &["a"]));
    bed.publish_to("a", 10);
    for seq in [3, 5] {
        assert_eq!(bed.engine.settle_direct(SUB, seq, bed.now, &mut bed.fx), Ok(true));
    }
    assert_eq!(bed.engine.settle_direct(SUB, 7, bed.now, &mut bed.fx), Err(ErrorCode::SlowDown));
}
