//! What is let go of while consumers are away.

use std::time::Duration;

use acb_engine::{DeliveryState, EngineConfig};
use acb_types::{SubscriptionId, Timestamp};

use crate::bed::{Bed, Post, session, sub};

const SUB: SubscriptionId = SubscriptionId(1);

/// One round; how many reads it took.
fn round(bed: &mut Bed) -> usize {
    let mut reads = 0;
    while let Some(survey) = bed.engine.survey() {
        reads += 1;
        assert!(reads < 1000, "a survey without end: {survey:?}");
        let block = bed.log.read(&survey.request);
        bed.engine.surveyed(&survey, &block, bed.now);
    }
    reads
}

#[test]
fn after_a_restart_an_absent_consumers_floor_rises_over_what_is_not_its_own() {
    let mut bed = Bed::new();
    bed.subscribe(sub(1, &["a"]));
    bed.subscribe(sub(2, &["z"]));
    let records = bed.sync();
    bed.publish_to("b", 100);
    bed.publish(&["a", "b"].map(Post::to));
    bed.restart(&records, &[(sub(1, &["a"]), 1), (sub(2, &["z"]), 1)]);
    assert_eq!(bed.engine.floor(), 1);
    assert_eq!(round(&mut bed), 2);
    assert_eq!(bed.engine.floor(), 101, "the one message that is wanted");
    assert!(bed.engine.counts(SubscriptionId(2)).unwrap().caught_up);
    assert_eq!(round(&mut bed), 1, "only where something is wanted");
    bed.connect(1, session(1, 8));
    assert_eq!(bed.seqs(), [101]);
    let records = bed.sync();
    bed.restart(&records, &[(sub(1, &["a"]), 1), (sub(2, &["z"]), 1)]);
    assert_eq!(bed.engine.floor(), 101, "and it is journaled");
}

#[test]
fn what_has_expired_unread_or_between_attempts_holds_nothing() {
    let mut bed = Bed::with(EngineConfig { message_ttl: Some(Duration::from_hours(1)), ..EngineConfig::default() });
    bed.subscribe(sub(1, &["a"]));
    let s = bed.connect(1, session(1, 2));
    let soon = Timestamp(bed.now.wall.0 + 1000);
    bed.publish(&[
        Post::to("a"),
        Post { expires_at: soon, ..Post::to("a") },
        Post { expires_at: soon, ..Post::to("a") },
        Post::to("a"),
    ]);
    bed.said();
    bed.nack(s, 1, 1, "");
    bed.engine.leave(s, bed.now, &mut bed.fx);
    bed.fx.kicks.clear();
    bed.advance(2000);
    assert_eq!(round(&mut bed), 1);
    assert_eq!(bed.engine.floor(), 1, "it may go again");
    bed.advance(1_800_000);
    bed.publish_to("a", 1);
    bed.advance(1_800_000);
    assert_eq!(round(&mut bed), 2, "one read finds something to let go of, the next brings the rest");
    assert_eq!(bed.engine.floor(), 5);
    for seq in 1..=4 {
        assert_eq!(bed.status(1, seq).state, DeliveryState::Expired, "{seq}");
    }
    bed.connect(1, session(1, 8));
    assert_eq!(bed.seqs(), [5]);
}

#[test]
fn a_long_expired_backlog_is_let_go_of_in_one_round() {
    let mut bed = Bed::with(EngineConfig { message_ttl: Some(Duration::from_mins(1)), ..EngineConfig::default() });
    bed.subscribe(sub(1, &["a"]));
    for _ in 0..5 {
        bed.publish_to("a", 400);
    }
    bed.advance(60_000);
    assert!(round(&mut bed) >= 4);
    assert!(bed.engine.counts(SUB).unwrap().caught_up);
    assert_eq!(bed.engine.totals().expired, 2000);
}

#[test]
fn a_subscription_that_is_read_is_left_to_its_reader() {
    let mut bed = Bed::new();
    bed.subscribe(sub(1, &["a"]));
    bed.publish_to("a", 2);
    let survey = bed.engine.survey().unwrap();
    let s = bed.connect(1, session(1, 0));
    let block = acb_types::batch::ReadBlock { next_seq: 3, ..Default::default() };
    bed.engine.surveyed(&survey, &block, bed.now);
    assert_eq!(bed.engine.floor(), 1);
    assert!(bed.engine.survey().is_none(), "end of the round");
    assert!(bed.engine.survey().is_none(), "somebody is there");
    bed.engine.credit(s, crate::bed::credit(8), bed.now, &mut bed.fx);
    assert_eq!(bed.seqs(), [1, 2]);
}

#[test]
fn discarded_dead_letters_between_those_of_others_are_let_go_of() {
    let mut bed = Bed::new();
    bed.subscribe(sub(1, &["dlq.one"]));
    bed.publish(&["dlq.one", "dlq.two", "dlq.one", "dlq.two"].map(Post::to));
    for seq in [1, 3] {
        bed.engine.settle_direct(SUB, seq, bed.now, &mut bed.fx).unwrap();
    }
    assert_eq!(bed.engine.floor(), 2);
    round(&mut bed);
    assert_eq!(bed.engine.floor(), 5);
}

#[test]
fn what_retention_took_is_told_to_the_consumer_when_it_comes() {
    let mut bed = Bed::new();
    bed.subscribe(sub(1, &["a"]));
    bed.publish_to("a", 4);
    bed.log.first_seq = 3;
    bed.log.messages.retain(|m| m.seq >= 3);
    bed.engine.trimmed(3, bed.now, &mut bed.fx);
    round(&mut bed);
    assert_eq!(bed.engine.floor(), 3);
    bed.connect(1, session(1, 8));
    let gaps = bed.gaps();
    assert_eq!((gaps[0].from_seq, gaps[0].to_seq), (1, 3));
}
