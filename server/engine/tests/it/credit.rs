//! Windows and caps.

use acb_engine::{Credit, SessionDef, Settlement};
use acb_types::{SubscriptionId, batch::SubscriptionDef};

use crate::bed::{Bed, Post, credit, range, session, sub};

#[test]
fn no_more_than_the_window_is_given_and_settling_opens_it() {
    for settlement in [
        Settlement::Ack(range(1, 2)),
        Settlement::ConfirmedAck(range(1, 2)),
        Settlement::Nack { range: range(1, 2), delay: None, reason: "" },
        Settlement::Term { range: range(1, 2), reason: "" },
    ] {
        let mut bed = Bed::new();
        bed.subscribe(sub(1, &["a"]));
        let s = bed.connect(1, session(1, 5));
        bed.publish_to("a", 8);
        assert_eq!(bed.seqs(), [1, 2, 3, 4, 5]);
        bed.settle(s, settlement);
        assert_eq!(bed.seqs(), [6, 7], "{settlement:?}");
    }
}

#[test]
fn bytes_are_a_window_too() {
    let mut bed = Bed::new();
    bed.subscribe(sub(1, &["a"]));
    let one = bed.publish(&[Post { len: 100, ..Post::to("a") }]);
    let size = bed.log.get(one).unwrap().body.len() as u64;
    let s = bed.connect(1, SessionDef { credit: Credit { messages: 100, bytes: size * 3 }, ..session(1, 0) });
    bed.publish(&vec![Post { len: 100, ..Post::to("a") }; 7]);
    assert_eq!(bed.seqs(), [1, 2, 3]);
    bed.ack(s, 2, 1);
    assert_eq!(bed.seqs(), [4]);
    bed.ack(s, 1, 4);
    assert_eq!(bed.seqs(), [5, 6, 7]);
}

#[test]
fn no_credit_gets_nothing_and_taking_credit_away_takes_no_lease_away() {
    let mut bed = Bed::new();
    bed.subscribe(sub(1, &["a"]));
    let s = bed.connect(1, session(1, 0));
    bed.publish_to("a", 3);
    assert_eq!(bed.seqs(), []);
    bed.engine.credit(s, credit(2), bed.now, &mut bed.fx);
    assert_eq!(bed.seqs(), [1, 2]);
    bed.engine.credit(s, credit(0), bed.now, &mut bed.fx);
    bed.ack(s, 1, 2);
    assert_eq!(bed.answers(), [], "the leases were good");
    bed.engine.credit(s, credit(1), bed.now, &mut bed.fx);
    assert_eq!(bed.seqs(), [3]);
}

#[test]
fn the_subscriptions_cap_counts_leases_retries_and_the_dying_and_then_dispatch_waits() {
    let mut bed = Bed::new();
    bed.subscribe(SubscriptionDef { max_leased: 4, max_attempts: 2, ..sub(1, &["a"]) });
    let s = bed.connect(1, session(1, 100));
    bed.publish_to("a", 10);
    assert_eq!(bed.seqs(), [1, 2, 3, 4]);
    let full = |bed: &Bed| bed.engine.counts(SubscriptionId(1)).unwrap().full;
    assert!(full(&bed));
    bed.nack(s, 1, 1, "");
    bed.settle(s, Settlement::Term { range: range(2, 1), reason: "no" });
    assert_eq!(bed.seqs(), [], "one waits, one dies: both count");
    bed.ack(s, 3, 1);
    assert_eq!(bed.seqs(), [5]);
    bed.engine.dead(SubscriptionId(1), 2, None, bed.now, &mut bed.fx);
    assert_eq!(bed.seqs(), [6], "a dead letter makes room");
    bed.advance(1000);
    assert_eq!(bed.delivered(), [(s, vec![1], 2)], "a retry goes although the cap is reached: it counted before");
    assert!(full(&bed));
}

#[test]
fn messages_of_live_runs_are_cut_at_the_cap_too() {
    let mut bed = Bed::new();
    bed.subscribe(SubscriptionDef { max_leased: 3, ..sub(1, &["a"]) });
    let one = bed.connect(1, session(1, 2));
    let two = bed.connect(1, session(2, 2));
    bed.publish_to("a", 5);
    assert_eq!(bed.delivered(), [(one, vec![1, 2], 1), (two, vec![3], 1)]);
}
