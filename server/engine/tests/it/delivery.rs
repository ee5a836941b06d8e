//! Who gets what, live and from the log.

use acb_engine::{Credit, EngineConfig, PlanKind};
use acb_types::{SubscriptionId, Timestamp, batch::Gap};

use crate::bed::{Bed, Post, Said, credit, range, session, sub};

#[test]
fn a_caught_up_subscription_gets_whole_runs_at_once_and_without_a_read() {
    let mut bed = Bed::new();
    bed.subscribe(sub(1, &["a.>"]));
    let s = bed.connect(1, session(1, 64));
    let first = bed.publish_to("a.b", 10);
    assert!(bed.fx.kicks.is_empty());
    assert_eq!(bed.delivered(), [(s, (first..first + 10).collect(), 1)]);
}

#[test]
fn interleaved_topics_under_one_wildcard_are_one_delivery() {
    let mut bed = Bed::new();
    bed.subscribe(sub(1, &["a.>"]));
    bed.subscribe(sub(2, &["a.x"]));
    let (wild, literal) = (bed.connect(1, session(1, 64)), bed.connect(2, session(2, 64)));
    bed.publish(&["a.x", "a.y", "b", "a.x", "a.x"].map(Post::to));
    let mut got = bed.delivered();
    got.sort_by_key(|d| (d.0, d.1.clone()));
    assert_eq!(got, [(wild, vec![1, 2], 1), (wild, vec![4, 5], 1), (literal, vec![1], 1), (literal, vec![4, 5], 1)]);
}

#[test]
fn a_subscription_hears_from_its_start_on() {
    let mut bed = Bed::new();
    bed.publish_to("a", 5);
    bed.engine.subscribe(sub(1, &["a"]), 3, bed.now);
    bed.subscribe(sub(2, &["a"]));
    bed.connect(1, session(1, 64));
    assert_eq!(bed.seqs(), [3, 4, 5]);
    bed.connect(2, session(2, 64));
    assert_eq!(bed.seqs(), [], "new messages only");
    bed.publish_to("a", 1);
    assert_eq!(bed.seqs(), [6, 6]);
}

#[test]
fn what_was_stored_while_nobody_was_there_is_read_on_connecting() {
    let mut bed = Bed::new();
    bed.subscribe(sub(1, &["a"]));
    for _ in 0..5 {
        bed.publish(&["a", "b"].map(Post::to));
    }
    let s = bed.connect(1, session(1, 64));
    assert_eq!(bed.seqs(), [1, 3, 5, 7, 9]);
    bed.publish_to("a", 1);
    assert!(bed.fx.kicks.is_empty(), "it has caught up: what is new needs no read");
    assert_eq!(bed.delivered(), [(s, vec![11], 1)]);
}

#[test]
fn a_subscription_that_missed_nothing_needs_no_read_however_far_the_log_went_on() {
    let mut bed = Bed::new();
    bed.subscribe(sub(1, &["a"]));
    bed.publish_to("b", 100);
    bed.connect(1, session(1, 64));
    assert!(bed.fx.kicks.is_empty());
    assert_eq!(bed.engine.counts(SubscriptionId(1)).unwrap().cursor, 101);
}

#[test]
fn messages_that_come_while_one_catches_up_are_neither_lost_nor_doubled() {
    let mut bed = Bed::new();
    bed.subscribe(sub(1, &["a"]));
    bed.publish_to("a", 10);
    let s = bed.connect(1, session(1, 64));
    let plan = bed.engine.plan(s, bed.now).unwrap();
    assert_eq!(plan.kind, PlanKind::CatchUp);
    bed.publish_to("a", 10);
    assert!(bed.engine.plan(s, bed.now).is_none(), "one read at a time");
    bed.finish(plan);
    while let Some(plan) = bed.engine.plan(s, bed.now) {
        bed.finish(plan);
    }
    assert_eq!(bed.seqs(), (1..=20).collect::<Vec<_>>());
}

#[test]
fn a_group_gives_to_whoever_has_fewest_in_hand_as_far_as_credit_goes() {
    let mut bed = Bed::new();
    bed.subscribe(sub(1, &["a"]));
    let big = bed.connect(1, session(1, 100));
    let small = bed.connect(1, session(2, 10));
    bed.publish_to("a", 95);
    bed.publish_to("a", 12);
    // 95 in hand are more than none; then only one has room; and three stay unread.
    assert_eq!(
        bed.delivered(),
        [(big, (1..=95).collect(), 1), (small, (96..=105).collect(), 1), (big, (106..=107).collect(), 1)]
    );
}

#[test]
fn one_at_a_time_goes_round_a_group_of_equals() {
    let mut bed = Bed::new();
    bed.subscribe(sub(1, &["a"]));
    let keys = [1, 2, 3].map(|n| bed.connect(1, session(n, 10)));
    for _ in 0..9 {
        bed.publish_to("a", 1);
    }
    let got = bed.delivered();
    for key in keys {
        assert_eq!(got.iter().filter(|d| d.0 == key).count(), 3);
    }
}

#[test]
fn only_one_session_of_a_group_reads_and_each_message_goes_to_one() {
    let mut bed = Bed::new();
    bed.subscribe(sub(1, &["a"]));
    bed.publish_to("a", 30);
    let one = bed.connect(1, session(1, 10));
    let two = bed.connect(1, session(2, 10));
    let plan = bed.engine.plan(one, bed.now).unwrap();
    assert!(bed.engine.plan(two, bed.now).is_none());
    bed.finish(plan);
    assert_eq!(bed.delivered(), [(one, (1..=10).collect(), 1), (two, (11..=20).collect(), 1)]);
    bed.ack(two, 11, 10);
    assert_eq!(bed.delivered(), [(two, (21..=30).collect(), 1)]);
}

#[test]
fn a_reader_that_dies_leaves_the_read_to_another() {
    let mut bed = Bed::new();
    bed.subscribe(sub(1, &["a"]));
    bed.publish_to("a", 3);
    let one = bed.connect(1, session(1, 10));
    let two = bed.connect(1, session(2, 10));
    let plan = bed.engine.plan(one, bed.now).unwrap();
    bed.serve();
    bed.engine.disconnect(one, bed.now, &mut bed.fx);
    assert_eq!(bed.delivered(), [(two, vec![1, 2, 3], 1)]);
    bed.finish(plan);
    assert_eq!(bed.seqs(), [], "what the dead one read does not count any more");
}

#[test]
fn a_failed_read_is_tried_again_a_second_later() {
    let mut bed = Bed::new();
    bed.subscribe(sub(1, &["a"]));
    bed.publish_to("a", 3);
    let s = bed.connect(1, session(1, 10));
    let plan = bed.engine.plan(s, bed.now).unwrap();
    bed.engine.abandon(plan, bed.now);
    assert!(bed.engine.plan(s, bed.now).is_none());
    bed.advance(999);
    assert_eq!(bed.seqs(), []);
    assert_eq!(bed.engine.next_timer(), Some(bed.now.mono_ms + 1));
    bed.advance(1);
    assert_eq!(bed.seqs(), [1, 2, 3]);
}

#[test]
fn a_log_that_brings_nothing_and_does_not_go_on_is_not_asked_in_a_loop() {
    let mut bed = Bed::new();
    bed.subscribe(sub(1, &["a"]));
    bed.publish_to("a", 3);
    let s = bed.connect(1, session(1, 10));
    let plan = bed.engine.plan(s, bed.now).unwrap();
    let block = acb_types::batch::ReadBlock { next_seq: plan.request.from_seq, ..Default::default() };
    bed.engine.commit(plan, block, bed.now, &mut bed.fx);
    assert!(bed.engine.plan(s, bed.now).is_none());
    bed.advance(1000);
    assert_eq!(bed.seqs(), [1, 2, 3]);
}

#[test]
fn a_trimmed_backlog_is_a_typed_gap_and_then_the_rest() {
    let mut bed = Bed::new();
    bed.subscribe(sub(1, &["a"]));
    bed.publish_to("a", 10);
    bed.log.first_seq = 7;
    bed.log.messages.retain(|m| m.seq >= 7);
    bed.engine.trimmed(7, bed.now, &mut bed.fx);
    let s = bed.connect(1, session(1, 64));
    let said = bed.said();
    assert!(matches!(said[0], Said::Gap(key, Gap { from_seq: 1, to_seq: 7 }) if key == s), "{said:?}");
    assert!(matches!(&said[1], Said::Deliver(_, d) if d.first_seq == 7 && d.count == 4), "{said:?}");
}

#[test]
fn a_trimmed_redelivery_is_called_off_with_a_gap_told_to_whoever_is_there_or_comes() {
    let mut bed = Bed::new();
    bed.subscribe(sub(1, &["a"]));
    let s = bed.connect(1, session(1, 64));
    bed.publish_to("a", 4);
    bed.nack(s, 1, 2, "later");
    bed.engine.disconnect(s, bed.now, &mut bed.fx);
    bed.said();
    bed.log.first_seq = 3;
    bed.engine.trimmed(3, bed.now, &mut bed.fx);
    assert_eq!(bed.gaps(), [], "nobody is there");
    assert!(bed.engine.is_settled(SubscriptionId(1), 1));
    bed.connect(1, acb_engine::SessionDef { resume_delivery: Some(4), ..session(1, 64) });
    assert_eq!(bed.gaps(), [Gap { from_seq: 1, to_seq: 3 }]);
    assert_eq!(bed.engine.totals().trimmed, 2);
    assert_eq!(bed.engine.counts(SubscriptionId(1)).unwrap().floor, 3);
}

#[test]
fn expired_messages_are_not_delivered_live_from_the_log_or_again() {
    let mut bed = Bed::new();
    bed.subscribe(sub(1, &["a"]));
    let wall = bed.now.wall.0;
    let post = |expires_at: u64| Post { expires_at: Timestamp(expires_at), ..Post::to("a") };
    let s = bed.connect(1, session(1, 4));
    bed.publish(&[post(wall), post(0), post(wall + 100), post(wall - 1), post(0)]);
    assert_eq!(bed.seqs(), [2, 3, 5]);
    bed.publish(&[post(0), post(wall + 100), post(0)]);
    assert_eq!(bed.seqs(), [6], "credit ends");
    bed.nack(s, 3, 1, "");
    bed.advance(1000);
    bed.ack(s, 2, 1);
    // 3 expired before it could go again, 7 before it could go at all.
    assert_eq!(bed.seqs(), [8]);
    for (seq, state) in [
        (1, acb_engine::DeliveryState::Expired),
        (2, acb_engine::DeliveryState::Acked),
        (3, acb_engine::DeliveryState::Expired),
        (4, acb_engine::DeliveryState::Expired),
        (5, acb_engine::DeliveryState::Leased),
        (7, acb_engine::DeliveryState::Expired),
    ] {
        assert_eq!(bed.status(1, seq).state, state, "{seq}");
    }
    assert_eq!(bed.engine.totals().expired, 4);
}

#[test]
fn a_class_may_give_its_messages_a_time_to_live() {
    let mut bed =
        Bed::with(EngineConfig { message_ttl: Some(std::time::Duration::from_mins(1)), ..EngineConfig::default() });
    bed.subscribe(sub(1, &["a"]));
    bed.publish_to("a", 2);
    bed.advance(30_000);
    bed.publish_to("a", 2);
    bed.advance(30_000);
    bed.connect(1, session(1, 4));
    assert_eq!(bed.seqs(), [3, 4]);
}

#[test]
fn new_filters_count_from_the_cursor_on() {
    let mut bed = Bed::new();
    bed.subscribe(sub(1, &["a"]));
    bed.publish(&["a", "b"].map(Post::to));
    bed.connect(1, session(1, 1));
    assert_eq!(bed.seqs(), [1]);
    assert!(bed.engine.update(sub(1, &["b"]), bed.now, &mut bed.fx));
    assert!(!bed.engine.hears("a") && bed.engine.hears("b"));
    let s = bed.connect(1, session(2, 8));
    bed.publish(&["a", "b"].map(Post::to));
    assert_eq!(bed.delivered(), [(s, vec![4], 1)], "2 was stored before");
    assert!(!bed.engine.update(sub(9, &["b"]), bed.now, &mut bed.fx));
}

#[test]
fn live_consumers_are_those_connected_with_credit() {
    let mut bed = Bed::new();
    assert!(!bed.engine.hears("a"));
    bed.subscribe(sub(1, &["a"]));
    assert!(bed.engine.hears("a") && !bed.engine.has_live_consumer("a"));
    let s = bed.connect(1, session(1, 0));
    assert!(!bed.engine.has_live_consumer("a"), "no credit");
    bed.engine.credit(s, credit(1), bed.now, &mut bed.fx);
    assert!(bed.engine.has_live_consumer("a"));
    bed.publish_to("a", 1);
    assert!(bed.engine.has_live_consumer("a"), "busy is alive");
    bed.engine.disconnect(s, bed.now, &mut bed.fx);
    assert!(!bed.engine.has_live_consumer("a"));
    bed.engine.unsubscribe(SubscriptionId(1));
    assert!(!bed.engine.hears("a"));
}

#[test]
fn retries_are_not_kept_waiting_by_a_stream_of_new_messages() {
    let mut bed = Bed::new();
    bed.subscribe(sub(1, &["a"]));
    let s = bed.connect(1, session(1, 4));
    bed.publish_to("a", 4);
    bed.nack(s, 1, 1, "");
    bed.publish_to("a", 1);
    bed.said();
    bed.now.mono_ms += 1000;
    bed.engine.advance(bed.now, &mut bed.fx);
    // Full: nothing to be done. Each ack from here on makes room for one, and a publisher is always quicker.
    for seq in 2..4 {
        bed.ack(s, seq, 1);
        bed.publish_to("a", 1);
        bed.serve();
    }
    let got = bed.delivered();
    assert_eq!(got, [(s, vec![1], 2), (s, vec![6], 1)]);
}

#[test]
fn the_first_message_passes_whatever_its_size_and_the_next_waits_for_bytes() {
    let mut bed = Bed::new();
    bed.subscribe(sub(1, &["a"]));
    let s = bed.connect(1, acb_engine::SessionDef { credit: Credit { messages: 8, bytes: 100 }, ..session(1, 8) });
    bed.publish(&[Post { len: 500, ..Post::to("a") }, Post { len: 500, ..Post::to("a") }]);
    assert_eq!(bed.seqs(), [1]);
    bed.settle(s, acb_engine::Settlement::Progress(range(1, 1)));
    assert_eq!(bed.seqs(), []);
    bed.ack(s, 1, 1);
    assert_eq!(bed.seqs(), [2]);
}

#[test]
fn a_sleeping_member_of_a_group_does_not_stop_the_others() {
    let mut bed = Bed::new();
    bed.subscribe(sub(1, &["a"]));
    bed.publish_to("a", 10);
    // Kicked, and never heard of again.
    bed.connect(1, session(1, 100));
    bed.fx.kicks.clear();
    let awake = bed.connect(1, session(2, 2));
    assert_eq!(bed.delivered(), [(awake, vec![1, 2], 1)]);
    bed.ack(awake, 1, 2);
    assert_eq!(bed.delivered(), [(awake, vec![3, 4], 1)]);
}
