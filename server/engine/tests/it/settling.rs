//! Acks, nacks, progress, terms, releases, and leases that end.

use std::time::Duration;

use acb_engine::{DeliveryState, Settlement};
use acb_types::{ErrorCode, SubscriptionId, Timestamp, batch::SubscriptionDef};

use crate::bed::{Bed, Post, range, session, sub};

const LOST: Result<(), ErrorCode> = Err(ErrorCode::LeaseLost);

fn one() -> (Bed, acb_engine::SessionKey) {
    let mut bed = Bed::new();
    bed.subscribe(sub(1, &["a"]));
    let s = bed.connect(1, session(1, 64));
    bed.publish_to("a", 10);
    bed.said();
    (bed, s)
}

#[test]
fn acks_raise_the_floor_as_far_as_they_are_without_a_hole() {
    let (mut bed, s) = one();
    let floor = |bed: &Bed| bed.engine.counts(SubscriptionId(1)).unwrap().floor;
    bed.ack(s, 1, 3);
    assert_eq!(floor(&bed), 4);
    bed.ack(s, 5, 6);
    assert_eq!(floor(&bed), 4);
    assert_eq!(bed.engine.floor(), 4);
    bed.ack(s, 4, 1);
    assert_eq!(floor(&bed), 11);
    assert_eq!(bed.answers(), [], "plain acks are not answered");
}

#[test]
fn an_ack_may_be_repeated() {
    let (mut bed, s) = one();
    bed.ack(s, 1, 5);
    bed.ack(s, 1, 5);
    bed.ack(s, 1, 10);
    assert_eq!(bed.answers(), []);
    assert_eq!(bed.engine.totals().acked, 10);
}

#[test]
fn a_range_may_span_what_the_subscription_does_not_hear() {
    let mut bed = Bed::new();
    bed.subscribe(sub(1, &["a"]));
    let s = bed.connect(1, session(1, 64));
    bed.publish(&["a", "b", "a", "b", "b", "a"].map(Post::to));
    bed.ack(s, 1, 6);
    assert_eq!(bed.answers(), []);
    let counts = bed.engine.counts(SubscriptionId(1)).unwrap();
    assert_eq!((counts.leased, counts.floor), (0, 7));
}

#[test]
fn the_lease_of_another_cannot_be_settled() {
    for foreign in [
        Settlement::Ack(range(1, 2)),
        Settlement::ConfirmedAck(range(1, 2)),
        Settlement::Nack { range: range(1, 2), delay: None, reason: "" },
        Settlement::Progress(range(1, 2)),
        Settlement::Term { range: range(1, 2), reason: "" },
        Settlement::Release(range(1, 2)),
    ] {
        let (mut bed, s) = one();
        let other = bed.connect(1, session(2, 64));
        bed.settle(other, foreign);
        assert_eq!(bed.answers(), [(1, 2, LOST)], "{foreign:?}");
        assert_eq!(bed.status(1, 1).state, DeliveryState::Leased);
        bed.ack(s, 1, 10);
        assert_eq!(bed.answers(), []);
    }
}

#[test]
fn what_nobody_was_given_cannot_be_settled() {
    let (mut bed, s) = one();
    bed.ack(s, 10, 5);
    assert_eq!(bed.answers(), [(11, 4, LOST)], "10 was its own");
    bed.ack(s, u64::MAX - 1, u32::MAX);
    assert_eq!(bed.answers(), [(u64::MAX - 1, 1, LOST)]);
    bed.publish_to("a", 4);
    assert_eq!(bed.seqs(), [11, 12, 13, 14], "an ack ahead of its message acknowledges nothing");
}

#[test]
fn a_late_settlement_is_told_so_even_when_another_has_finished_the_work() {
    let (mut bed, s) = one();
    bed.advance(30_000);
    bed.ack(s, 1, 2);
    assert_eq!(bed.answers(), [(1, 2, LOST)], "waiting for its retry");
    let other = bed.connect(1, session(2, 64));
    bed.engine.credit(s, crate::bed::credit(0), bed.now, &mut bed.fx);
    bed.advance(1000);
    assert_eq!(bed.seqs(), (1..=10).collect::<Vec<_>>());
    bed.ack(s, 1, 2);
    assert_eq!(bed.answers(), [(1, 2, LOST)], "with the other");
    bed.ack(other, 1, 10);
    bed.settle(s, Settlement::ConfirmedAck(range(1, 2)));
    assert_eq!(bed.answers(), [(1, 2, LOST)], "done by the other");
}

#[test]
fn a_lease_that_comes_back_to_the_same_session_is_good_again() {
    let (mut bed, s) = one();
    bed.advance(30_000);
    bed.advance(1000);
    assert_eq!(bed.delivered(), [(s, (1..=10).collect(), 2)]);
    bed.ack(s, 1, 10);
    assert_eq!(bed.answers(), []);
    assert_eq!(bed.engine.floor(), 11);
}

#[test]
fn a_lease_ends_after_its_time_and_not_before() {
    let (mut bed, _) = one();
    bed.advance(29_999);
    assert_eq!(bed.status(1, 1).state, DeliveryState::Leased);
    assert_eq!(bed.engine.next_timer(), Some(bed.now.mono_ms + 1));
    assert_eq!(bed.status(1, 1).due, Timestamp(bed.now.wall.0 + 1));
    bed.advance(1);
    let state = bed.status(1, 1);
    assert_eq!((state.state, state.attempts), (DeliveryState::Waiting, 1));
    assert!((500..=1000).contains(&(state.due.0 - bed.now.wall.0)), "by the schedule: {state:?}");
    assert_eq!(bed.engine.totals().leases_ended, 10);
}

#[test]
fn the_wall_clock_ends_no_lease_and_brings_no_retry() {
    let (mut bed, s) = one();
    bed.nack(s, 1, 1, "");
    for jump in [-10_000_000i64, 20_000_000] {
        bed.now.wall = Timestamp(bed.now.wall.0.wrapping_add_signed(jump));
        bed.engine.advance(bed.now, &mut bed.fx);
        assert_eq!(bed.seqs(), []);
        assert_eq!(bed.status(1, 2).state, DeliveryState::Leased);
    }
    bed.advance(1000);
    assert_eq!(bed.seqs(), [1]);
}

#[test]
fn progress_starts_leases_anew_whole_or_in_part() {
    let (mut bed, s) = one();
    bed.advance(20_000);
    bed.settle(s, Settlement::Progress(range(3, 2)));
    bed.advance(10_000);
    let leased =
        |bed: &mut Bed| (1..=10).filter(|seq| bed.status(1, *seq).state == DeliveryState::Leased).collect::<Vec<_>>();
    assert_eq!(leased(&mut bed), [3, 4]);
    bed.settle(s, Settlement::Progress(range(1, 10)));
    assert_eq!(bed.answers(), [(1, 2, LOST), (5, 6, LOST)]);
    bed.advance(19_000);
    bed.said();
    bed.advance(10_999);
    assert!(leased(&mut bed).contains(&3));
    bed.advance(1);
    assert!(!leased(&mut bed).contains(&3));
}

#[test]
fn a_nack_comes_back_by_the_schedule_with_jitter_and_the_last_entry_repeats() {
    let mut bed = Bed::new();
    bed.subscribe(SubscriptionDef { max_attempts: 5, ..sub(1, &["a"]) });
    let s = bed.connect(1, session(1, 64));
    bed.publish_to("a", 1);
    bed.said();
    for (attempt, whole) in [(2, 1000), (3, 5000), (4, 5000), (5, 5000)] {
        bed.nack(s, 1, 1, "");
        assert_eq!(bed.seqs(), [], "never at once");
        bed.advance(whole / 2 - 1);
        assert_eq!(bed.seqs(), [], "attempt {attempt}");
        bed.advance(whole / 2 + 1);
        assert_eq!(bed.delivered(), [(s, vec![1], attempt)]);
    }
}

#[test]
fn an_explicit_delay_is_kept_to_the_millisecond() {
    let (mut bed, s) = one();
    bed.settle(s, Settlement::Nack { range: range(2, 1), delay: Some(Duration::from_millis(70)), reason: "" });
    bed.advance(69);
    assert_eq!(bed.seqs(), []);
    bed.advance(1);
    assert_eq!(bed.seqs(), [2]);
}

#[test]
fn a_released_message_is_next_and_has_lost_no_attempt() {
    let mut bed = Bed::new();
    bed.subscribe(sub(1, &["a"]));
    let s = bed.connect(1, session(1, 3));
    bed.publish_to("a", 10);
    bed.said();
    bed.settle(s, Settlement::Release(range(2, 1)));
    assert_eq!(bed.delivered(), [(s, vec![2], 1)], "before 4, which was never given out");
    for _ in 0..20 {
        bed.settle(s, Settlement::Release(range(1, 3)));
        assert_eq!(bed.delivered(), [(s, vec![1, 2, 3], 1)]);
    }
}

#[test]
fn a_range_settles_across_runs_with_different_attempts() {
    let (mut bed, s) = one();
    bed.nack(s, 4, 3, "");
    bed.advance(1000);
    bed.publish_to("a", 500);
    bed.publish_to("a", 500);
    bed.said();
    bed.ack(s, 1, 1010);
    assert_eq!(bed.answers().len(), 1, "what credit did not let through is refused");
    let counts = bed.engine.counts(SubscriptionId(1)).unwrap();
    assert_eq!((counts.leased, counts.floor), (54 + 10, 65), "and the window is filled again");
}
