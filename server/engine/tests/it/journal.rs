//! State that survives.

use acb_engine::{DeathReason, DeliveryState, Settlement};
use acb_types::{ClassId, MessageId, SubscriptionId, batch::SubscriptionDef};

use crate::bed::{Bed, Post, range, session, sub};

const SUB: SubscriptionId = SubscriptionId(1);

fn started() -> (Bed, acb_engine::SessionKey, Vec<bytes::Bytes>) {
    let mut bed = Bed::new();
    bed.subscribe(sub(1, &["a"]));
    let s = bed.connect(1, session(1, 64));
    bed.publish_to("a", 10);
    bed.said();
    let records = bed.sync();
    (bed, s, records)
}

#[test]
fn a_confirmed_ack_is_answered_when_it_is_durable_and_not_before() {
    let (mut bed, s, _) = started();
    bed.settle(s, Settlement::ConfirmedAck(range(1, 2)));
    bed.ack(s, 4, 1);
    bed.settle(s, Settlement::ConfirmedAck(range(4, 1)));
    assert_eq!(bed.answers(), []);
    let (mark, _) = bed.engine.take_journal().unwrap();
    bed.settle(s, Settlement::ConfirmedAck(range(7, 1)));
    bed.settle(s, Settlement::ConfirmedAck(range(1, 1)));
    assert_eq!(bed.answers(), []);
    bed.engine.journal_durable(mark, &mut bed.fx);
    assert_eq!(bed.answers(), [(1, 2, Ok(())), (4, 1, Ok(()))]);
    bed.settle(s, Settlement::ConfirmedAck(range(1, 2)));
    bed.sync();
    assert_eq!(bed.answers(), [(7, 1, Ok(())), (1, 1, Ok(())), (1, 2, Ok(()))]);
    bed.settle(s, Settlement::ConfirmedAck(range(1, 2)));
    assert_eq!(bed.answers(), [(1, 2, Ok(()))], "it is durable already");
    assert!(!bed.engine.has_journal());
}

#[test]
fn a_repeated_confirmed_ack_waits_for_a_piece_that_is_on_its_way() {
    let (mut bed, s, _) = started();
    bed.ack(s, 1, 2);
    let (mark, _) = bed.engine.take_journal().unwrap();
    bed.settle(s, Settlement::ConfirmedAck(range(1, 2)));
    assert_eq!(bed.answers(), []);
    assert!(!bed.engine.has_journal(), "nothing new is to be written");
    bed.engine.journal_durable(mark, &mut bed.fx);
    assert_eq!(bed.answers(), [(1, 2, Ok(()))]);
}

#[test]
fn a_confirmation_finds_the_session_after_it_came_back() {
    let (mut bed, s, _) = started();
    bed.settle(s, Settlement::ConfirmedAck(range(1, 2)));
    bed.engine.disconnect(s, bed.now, &mut bed.fx);
    let back = bed.connect(1, acb_engine::SessionDef { resume_delivery: Some(10), ..session(1, 64) });
    bed.sync();
    let said = bed.said();
    assert!(matches!(said[..], [crate::bed::Said::Settled(key, 1, 2, Ok(()))] if key == back), "{said:?}");
}

#[test]
fn a_journal_that_was_lost_is_written_anew() {
    let (mut bed, s, mut records) = started();
    bed.settle(s, Settlement::ConfirmedAck(range(3, 2)));
    bed.nack(s, 7, 1, "no");
    let lost = bed.engine.take_journal().unwrap();
    bed.engine.journal_lost();
    bed.settle(s, Settlement::ConfirmedAck(range(1, 1)));
    assert_eq!(bed.answers(), []);
    records.extend(bed.sync());
    assert_eq!(bed.answers(), [(3, 2, Ok(())), (1, 1, Ok(()))]);
    assert!(!records.contains(&lost.1));
    bed.restart(&records, &[(sub(1, &["a"]), 1)]);
    let settled: Vec<_> = (1..=10).filter(|s| bed.engine.is_settled(SUB, *s)).collect();
    assert_eq!(settled, [1, 3, 4]);
    assert_eq!(bed.status(1, 7).attempts, 1);
}

#[test]
fn after_a_restart_what_was_not_settled_comes_again_and_nothing_else() {
    let (mut bed, s, mut records) = started();
    bed.ack(s, 1, 3);
    bed.ack(s, 6, 1);
    bed.ack(s, 9, 1);
    records.extend(bed.sync());
    bed.ack(s, 10, 1);
    bed.restart(&records, &[(sub(1, &["a"]), 1)]);
    assert_eq!(bed.engine.floor(), 4);
    let s = bed.connect(1, session(1, 64));
    assert_eq!(bed.seqs(), [4, 5, 7, 8, 10], "the last ack was not durable");
    bed.ack(s, 4, 7);
    assert_eq!(bed.answers(), []);
    assert_eq!(bed.engine.floor(), 11);
}

#[test]
fn attempts_and_waits_survive_a_restart() {
    let mut bed = Bed::new();
    bed.subscribe(sub(1, &["a"]));
    let s = bed.connect(1, session(1, 64));
    bed.publish_to("a", 2);
    bed.nack(s, 1, 1, "first");
    bed.advance(1000);
    bed.nack(s, 1, 1, "second");
    let due = bed.status(1, 1).due;
    let records = bed.sync();
    bed.now.mono_ms = 3;
    bed.now.wall.0 += 1000;
    bed.restart(&records, &[(sub(1, &["a"]), 1)]);
    let state = bed.status(1, 1);
    assert_eq!((state.attempts, state.due), (2, due), "until the time on the wall that was named");
    let s = bed.connect(1, session(1, 64));
    assert_eq!(bed.delivered(), [(s, vec![2], 1)]);
    bed.advance(due.0 - bed.now.wall.0);
    assert_eq!(bed.delivered(), [(s, vec![1], 3)]);
    bed.advance(30_000);
    let deaths = bed.deaths();
    assert_eq!((deaths[0].seq, deaths[0].attempts, deaths[0].last_error.as_str()), (1, 3, "second"));
}

#[test]
fn a_message_that_was_leased_again_keeps_its_attempts_over_a_restart() {
    let (mut bed, s, mut records) = started();
    bed.nack(s, 5, 1, "x");
    bed.advance(1000);
    assert_eq!(bed.delivered(), [(s, vec![5], 2)]);
    records.extend(bed.sync());
    bed.restart(&records, &[(sub(1, &["a"]), 1)]);
    let s = bed.connect(1, session(1, 64));
    let got = bed.delivered();
    assert!(got.contains(&(s, vec![5], 2)), "{got:?}");
    assert_eq!(got.iter().map(|d| d.1.len()).sum::<usize>(), 10);
}

#[test]
fn lost_connections_are_counted_over_a_restart() {
    let (mut bed, s, mut records) = started();
    bed.engine.disconnect(s, bed.now, &mut bed.fx);
    bed.advance(10_000);
    let s = bed.connect(1, session(1, 64));
    bed.said();
    bed.engine.disconnect(s, bed.now, &mut bed.fx);
    bed.advance(10_000);
    records.extend(bed.sync());
    bed.restart(&records, &[(sub(1, &["a"]), 1)]);
    let s = bed.connect(1, session(1, 64));
    assert_eq!(bed.delivered(), [(s, (1..=10).collect(), 1)]);
    bed.engine.disconnect(s, bed.now, &mut bed.fx);
    bed.advance(10_000);
    assert_eq!(bed.status(1, 1).attempts, 1, "the third loss is a failed attempt");
}

#[test]
fn the_dying_die_again_after_a_restart_until_their_dead_letter_is_known() {
    let (mut bed, s, mut records) = started();
    bed.settle(s, Settlement::Term { range: range(2, 2), reason: "bad" });
    records.extend(bed.sync());
    let defs = [(sub(1, &["a"]), 1)];
    bed.restart(&records, &defs);
    let deaths = bed.deaths();
    let got: Vec<_> = deaths.iter().map(|d| (d.seq, d.attempts, d.reason, d.last_error.as_str())).collect();
    assert_eq!(got, [(2, 1, DeathReason::Terminated, "bad"), (3, 1, DeathReason::Terminated, "bad")]);

    // The dead-letter log is read before anything is dispatched.
    bed.engine = acb_engine::Engine::new(acb_engine::EngineConfig::default());
    bed.engine.restore(&records, &defs, 1, bed.log.next_seq, bed.now).unwrap();
    let letter = MessageId { class: ClassId::DEAD_LETTERS, partition: 0, epoch: 4, seq: 6 };
    bed.engine.dead(SUB, 2, Some(letter), bed.now, &mut bed.fx);
    assert_eq!(bed.engine.next_timer(), Some(0), "there is something to announce");
    bed.engine.advance(bed.now, &mut bed.fx);
    assert_eq!(bed.deaths().iter().map(|d| d.seq).collect::<Vec<_>>(), [3]);
    records.extend(bed.sync());
    bed.restart(&records, &defs);
    let state = bed.status(1, 2);
    assert_eq!((state.state, state.dead_letter), (DeliveryState::Dead, Some(letter)));
}

#[test]
fn fewer_attempts_in_the_rules_kill_after_a_restart_what_has_had_them() {
    let (mut bed, s, mut records) = started();
    bed.nack(s, 1, 1, "no");
    records.extend(bed.sync());
    bed.restart(&records, &[(SubscriptionDef { max_attempts: 1, ..sub(1, &["a"]) }, 1)]);
    let deaths = bed.deaths();
    assert_eq!((deaths[0].seq, deaths[0].last_error.as_str()), (1, "no"));
}

#[test]
fn a_snapshot_stands_for_all_records_before_it() {
    let (mut bed, s, _) = started();
    bed.ack(s, 2, 3);
    bed.nack(s, 6, 1, "no");
    bed.settle(s, Settlement::Term { range: range(7, 2), reason: "bad" });
    bed.engine.dead(SUB, 8, None, bed.now, &mut bed.fx);
    bed.sync();
    bed.ack(s, 9, 1);
    // What is not taken yet is in it, too.
    let mut records = bed.engine.snapshot();
    bed.ack(s, 10, 1);
    records.extend(bed.sync());
    bed.restart(&records, &[(sub(1, &["a"]), 1)]);
    let settled: Vec<_> = (1..=10).filter(|s| bed.engine.is_settled(SUB, *s)).collect();
    assert_eq!(settled, [2, 3, 4, 8, 9, 10]);
    assert_eq!(bed.status(1, 8).state, DeliveryState::Dead);
    assert_eq!(bed.status(1, 6).attempts, 1);
    assert_eq!(bed.deaths().iter().map(|d| d.seq).collect::<Vec<_>>(), [7]);
}

#[test]
fn records_of_subscriptions_that_are_gone_are_passed_over() {
    let (mut bed, s, mut records) = started();
    bed.ack(s, 1, 1);
    records.extend(bed.sync());
    bed.restart(&records, &[(sub(2, &["a"]), 4)]);
    assert_eq!(bed.engine.totals().subscriptions, 1);
    bed.connect(2, session(1, 64));
    assert_eq!(bed.seqs(), (4..=10).collect::<Vec<_>>(), "and one without records begins where it was made");
}

#[test]
fn damaged_records_refuse_the_restore() {
    let (mut bed, _, records) = started();
    let mut bad = records[0].to_vec();
    bad.push(99);
    let mut engine = acb_engine::Engine::new(acb_engine::EngineConfig::default());
    let error = engine.restore(&[bad.into()], &[], 1, 1, bed.now).unwrap_err();
    assert!(error.to_string().starts_with("state record 0 is damaged at byte"), "{error}");
    bed.restart(&records, &[]);
}

#[test]
fn a_subscriptions_start_is_journaled() {
    let mut bed = Bed::new();
    bed.publish_to("a", 5);
    bed.engine.subscribe(sub(1, &["a"]), 3, bed.now);
    let records = bed.sync();
    bed.restart(&records, &[(sub(1, &["a"]), 0)]);
    bed.connect(1, session(1, 64));
    assert_eq!(bed.seqs(), [3, 4, 5]);
}

#[test]
fn acks_in_order_cost_a_floor_and_nothing_per_message() {
    let mut bed = Bed::new();
    bed.subscribe(sub(1, &["a"]));
    let s = bed.connect(1, session(1, 1000));
    bed.publish_to("a", 500);
    bed.sync();
    for seq in 1..=500 {
        bed.ack(s, seq, 1);
    }
    let records = bed.sync();
    assert_eq!(records.len(), 1);
    assert!(records[0].len() <= 8, "{} bytes", records[0].len());
}

#[test]
fn a_journal_that_nobody_takes_costs_no_more_than_the_state() {
    let mut bed = Bed::new();
    bed.subscribe(sub(1, &["a"]));
    let s = bed.connect(1, session(1, 65_536));
    for _ in 0..128 {
        bed.publish_to("a", 512);
    }
    bed.said();
    let records = bed.sync();
    for seq in (2..=65_536).step_by(2) {
        bed.ack(s, seq, 1);
    }
    let mut all = records;
    all.extend(bed.sync());
    bed.restart(&all, &[(sub(1, &["a"]), 1)]);
    assert!((1..=65_536u64).all(|seq| bed.engine.is_settled(SUB, seq) == (seq % 2 == 0)));
}

#[test]
fn what_was_trimmed_while_the_bus_was_down_is_a_gap() {
    let (mut bed, s, mut records) = started();
    bed.nack(s, 2, 1, "");
    bed.ack(s, 1, 1);
    records.extend(bed.sync());
    bed.log.first_seq = 5;
    bed.log.messages.retain(|m| m.seq >= 5);
    bed.restart(&records, &[(sub(1, &["a"]), 1)]);
    bed.connect(1, session(1, 64));
    bed.serve();
    let said = bed.said();
    let gaps: Vec<_> = said
        .iter()
        .filter_map(|s| if let crate::bed::Said::Gap(_, g) = s { Some((g.from_seq, g.to_seq)) } else { None })
        .collect();
    assert_eq!(gaps, [(2, 3), (3, 5)]);
    let first =
        said.iter().find_map(|s| if let crate::bed::Said::Deliver(_, d) = s { Some(d.first_seq) } else { None });
    assert_eq!(first, Some(5));
}

#[test]
fn a_filtered_subscription_restarts_without_what_it_settled_between() {
    let mut bed = Bed::new();
    bed.subscribe(sub(1, &["a"]));
    let s = bed.connect(1, session(1, 64));
    bed.publish(&["a", "b", "a", "b", "a", "a"].map(Post::to));
    bed.said();
    bed.ack(s, 3, 3);
    let records = bed.sync();
    bed.restart(&records, &[(sub(1, &["a"]), 1)]);
    bed.connect(1, session(1, 64));
    assert_eq!(bed.seqs(), [1, 6]);
}
