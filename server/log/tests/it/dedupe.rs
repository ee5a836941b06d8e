//! Doubles: producer counters and idempotency keys, also across a reopen, a trim and a failed write.

use std::time::Duration;

use acb_log::{Fault, FaultOn, KeyWindow, LogOptions};
use acb_types::ErrorCode;

use crate::kit::*;

fn three() -> acb_types::batch::Batch {
    batch(&[("a", "1"), ("a", "2"), ("b", "3")])
}

#[test]
fn a_repeated_batch_is_answered_with_its_first_seqs_and_stored_once() {
    let world = World::small(1);
    let mut log = world.log();
    assert_eq!(words(&log.stage(three().from_producer(7, 1, 1), NOW).unwrap()), "new 1+3");
    assert_eq!(words(&log.stage(three().from_producer(7, 1, 1), NOW).unwrap()), "dup 1+3");
    log.write().unwrap();
    assert_eq!(words(&log.stage(three().from_producer(7, 1, 1), NOW).unwrap()), "dup 1+3");
    assert_eq!(words(&log.stage(three().from_producer(8, 1, 1), NOW).unwrap()), "new 4+3", "another producer");
    log.write().unwrap();
    assert_eq!(read_all(&log, 1, &[">"]).len(), 6);
}

#[test]
fn an_overlapping_batch_is_split_into_what_is_known_and_what_is_new() {
    let world = World::small(1);
    let mut log = world.log();
    log.stage(batch(&[("a", "5"), ("a", "6")]).from_producer(7, 1, 5), NOW).unwrap();
    let parts = log
        .stage(batch(&[("a", "4"), ("a", "5"), ("b", "6"), ("b", "7"), ("a", "8")]).from_producer(7, 1, 4), NOW)
        .unwrap();
    assert_eq!(words(&parts), "new 3+1, dup 1+2, new 4+2");
    log.write().unwrap();
    let all = read_all(&log, 1, &[">"]);
    assert_eq!(payloads(&all), ["5", "6", "4", "7", "8"]);
    assert_eq!(all[3].1, "b", "runs were cut anew");
    assert_eq!(payloads(&read_all(&log, 1, &["a"])), ["5", "6", "4", "8"]);
    let again = log.stage(batch(&[("a", "4"), ("a", "5")]).from_producer(7, 1, 4), NOW).unwrap();
    assert_eq!(words(&again), "dup 3+1, dup 1+1");
}

#[test]
fn an_older_session_is_fenced_and_a_newer_one_counts_anew() {
    let world = World::small(1);
    let mut log = world.log();
    log.stage(three().from_producer(7, 2, 1), NOW).unwrap();
    assert_eq!(words(&log.stage(three().from_producer(7, 1, 4), NOW).unwrap()), "producer_fenced+3");
    assert_eq!(words(&log.stage(three().from_producer(7, 3, 1), NOW).unwrap()), "new 4+3");
    assert_eq!(words(&log.stage(three().from_producer(7, 2, 1), NOW).unwrap()), "producer_fenced+3");
}

#[test]
fn a_message_that_was_refused_is_stored_when_it_comes_again() {
    let world = World::small(1);
    let mut log = world.log();
    // 1 and 2 never arrived, as after a full disk; 3 did.
    log.stage(one("a", "3").from_producer(7, 1, 3), NOW).unwrap();
    assert_eq!(words(&log.stage(batch(&[("a", "1"), ("a", "2")]).from_producer(7, 1, 1), NOW).unwrap()), "new 2+2");
}

#[test]
fn what_is_older_than_the_remembered_ranges_is_a_duplicate_without_a_seq() {
    let world = World::new(1, LogOptions { producer_ranges: 4, ..small() });
    let mut log = world.log();
    for counter in 1..=8 {
        log.stage(one("a", "x").from_producer(7, 1, counter), NOW).unwrap();
        // Another's message between, so that the ranges do not join.
        put(&mut log, "b", "y");
    }
    let ask =
        |log: &mut acb_log::Log, counter| words(&log.stage(one("a", "x").from_producer(7, 1, counter), NOW).unwrap());
    assert_eq!(ask(&mut log, 4), "dup ?+1");
    assert_eq!(ask(&mut log, 5), "dup 9+1");
    assert_eq!(ask(&mut log, 8), "dup 15+1");
    log.close().unwrap();
    drop(log);
    let mut log = world.log();
    assert_eq!(ask(&mut log, 4), "dup ?+1");
    assert_eq!(ask(&mut log, 5), "dup 9+1");
}

#[test]
fn producers_and_keys_are_known_after_a_reopen_and_over_sealed_and_trimmed_segments() {
    for fall in ["close", "kill", "power"] {
        let mut world = World::small(1);
        let mut log = world.log();
        let filler = "x".repeat(300);
        for i in 0..100u32 {
            let b = one("a", &filler).from_producer(u64::from(i % 5) + 1, 1, u64::from(i / 5) + 1).keyed(&[(
                0,
                u128::from(i),
                1,
            )]);
            log.stage(b, NOW).unwrap();
            log.sync().unwrap();
        }
        log.trim_before(90).unwrap();
        assert!(log.first_seq() > 38, "all but one of those asked for below are trimmed: {}", log.first_seq());
        match fall {
            "close" => {
                log.close().unwrap();
            }
            "kill" => world.kill(),
            _ => world.power_cut(),
        }
        drop(log);
        let mut log = world.log();
        for i in [0, 1, 37, 99u32] {
            let by_counter = one("a", &filler).from_producer(u64::from(i % 5) + 1, 1, u64::from(i / 5) + 1);
            assert_eq!(words(&log.stage(by_counter, NOW).unwrap()), format!("dup {}+1", i + 1), "{fall}");
            let by_key = one("a", &filler).keyed(&[(0, u128::from(i), 1)]);
            assert_eq!(words(&log.stage(by_key, NOW).unwrap()), format!("dup {}+1", i + 1), "{fall}");
            let other_body = one("a", &filler).keyed(&[(0, u128::from(i), 2)]);
            assert_eq!(words(&log.stage(other_body, NOW).unwrap()), "idempotency_conflict+1", "{fall}");
        }
    }
}

#[test]
fn keys_split_a_batch_at_repeats_and_conflicts() {
    let world = World::small(1);
    let mut log = world.log();
    assert_eq!(words(&log.stage(one("a", "first").keyed(&[(0, 10, 1)]), NOW).unwrap()), "new 1+1");
    let b = batch(&[("a", "1"), ("a", "first"), ("b", "2"), ("b", "other"), ("c", "3")]);
    let parts = log.stage(b.keyed(&[(1, 10, 1), (3, 10, 2), (4, 11, 3)]), NOW).unwrap();
    assert_eq!(words(&parts), "new 2+1, dup 1+1, new 3+1, idempotency_conflict+1, new 4+1");
    log.write().unwrap();
    assert_eq!(
        read_all(&log, 1, &[">"]).iter().map(|(s, t, p)| format!("{s}{t}{p}")).collect::<Vec<_>>(),
        ["1afirst", "2a1", "3b2", "4c3"]
    );
    assert_eq!(
        words(&log.stage(one("c", "3").keyed(&[(0, 11, 3)]), NOW).unwrap()),
        "dup 4+1",
        "the key of a cut piece"
    );
}

#[test]
fn of_repeats_inside_one_batch_one_is_stored() {
    let world = World::small(1);
    let mut log = world.log();
    let b = batch(&[("a", "1"), ("a", "1"), ("a", "1")]);
    assert_eq!(
        words(&log.stage(b.keyed(&[(0, 10, 1), (1, 10, 1), (2, 10, 1)]), NOW).unwrap()),
        "new 1+1, dup 1+1, dup 1+1"
    );
}

#[test]
fn a_key_is_forgotten_after_its_window_and_not_before() {
    let world = World::new(1, LogOptions { key_window: KeyWindow::For(Duration::from_mins(1)), ..small() });
    let mut log = world.log();
    let mut ask = |seconds| {
        words(&log.stage(one("a", "1").keyed(&[(0, 10, 1)]), NOW.after(Duration::from_secs(seconds))).unwrap())
    };
    assert_eq!(ask(0), "new 1+1");
    assert_eq!(ask(60), "dup 1+1");
    assert_eq!(ask(61), "new 2+1");
    assert_eq!(ask(62), "dup 2+1");
}

#[test]
fn a_clock_that_steps_back_neither_forgets_keys_nor_keeps_them_for_ever() {
    let world = World::new(1, LogOptions { key_window: KeyWindow::For(Duration::from_mins(1)), ..small() });
    let mut log = world.log();
    let mut ask = |ms: i64| {
        let now = acb_types::Timestamp(NOW.0.wrapping_add_signed(ms));
        words(&log.stage(one("a", "1").keyed(&[(0, 10, 1)]), now).unwrap())
    };
    assert_eq!(ask(0), "new 1+1");
    assert_eq!(ask(-30_000), "dup 1+1", "half a minute back");
    assert_eq!(ask(59_000), "dup 1+1");
    assert_eq!(ask(-86_400_000), "dup 1+1", "a day back: corrected");
    assert_eq!(ask(-86_400_000 + 3_000), "new 2+1", "and the window runs on");
}

#[test]
fn keys_of_a_log_that_keeps_them_live_as_long_as_their_segment() {
    let world = World::new(1, LogOptions { key_window: KeyWindow::WhileKept, ..small() });
    let mut log = world.log();
    for i in 0..60u32 {
        log.stage(one("a", &"x".repeat(300)).keyed(&[(0, u128::from(i), 1)]), NOW).unwrap();
        log.sync().unwrap();
    }
    log.close().unwrap();
    drop(log);
    let year = NOW.after(Duration::from_hours(365 * 24));
    let mut log = world.dir.open_log(&id(), world.options, year).unwrap().log;
    let ask = |log: &mut acb_log::Log, i: u32| {
        words(&log.stage(one("a", &"x".repeat(300)).keyed(&[(0, u128::from(i), 1)]), year).unwrap())
    };
    assert_eq!(ask(&mut log, 0), "dup 1+1");
    log.trim_before(40).unwrap();
    let first = log.first_seq();
    assert!(first > 1);
    assert!(ask(&mut log, 0).starts_with("new"), "its segment is gone");
    assert_eq!(ask(&mut log, first as u32), format!("dup {}+1", first + 1));
}

#[test]
fn over_the_limit_keys_are_refused_never_forgotten() {
    let world = World::small(1);
    let dir = acb_log::DataDir::open(
        world.disk.shared(),
        std::path::Path::new("/other"),
        acb_log::DataDirOptions { keys_max: 3, producers_max: 2, ..acb_log::DataDirOptions::default() },
    )
    .unwrap();
    let mut log = dir.open_log(&id(), small(), NOW).unwrap().log;
    let b = batch(&[("a", "1"), ("a", "2"), ("a", "3"), ("a", "4"), ("a", "5")]);
    let parts = log.stage(b.keyed(&[(0, 1, 1), (1, 2, 1), (2, 3, 1), (3, 4, 1)]), NOW).unwrap();
    assert_eq!(words(&parts), "new 1+3, idempotency_keys_exhausted+1, new 4+1");
    assert_eq!(words(&log.stage(one("a", "1").keyed(&[(0, 1, 1)]), NOW).unwrap()), "dup 1+1");
    let later = NOW.after(Duration::from_secs(700));
    assert_eq!(words(&log.stage(one("a", "6").keyed(&[(0, 6, 1)]), later).unwrap()), "new 5+1", "old ones made room");

    for producer in 1..=2 {
        log.stage(one("a", "p").from_producer(producer, 1, 1), NOW).unwrap();
    }
    assert_eq!(words(&log.stage(one("a", "p").from_producer(3, 1, 1), NOW).unwrap()), "producers_exhausted+1");
    let week = NOW.after(Duration::from_secs(7 * 86_400 + 1));
    assert!(
        words(&log.stage(one("a", "p").from_producer(3, 1, 1), week).unwrap()).starts_with("new"),
        "the idle made room"
    );
    assert_eq!(dir.tenant(&id().tenant).unwrap().producers(), 1);
}

#[test]
fn what_could_not_be_written_is_new_when_it_comes_again() {
    let world = World::small(1);
    let mut log = world.log();
    put_synced(&mut log, "a", "0");
    log.stage(one("a", "k").from_producer(6, 1, 1), NOW).unwrap();
    log.write().unwrap();
    world.disk.inject(Fault { on: FaultOn::Write, errno: libc::ENOSPC, after: 0, times: 1 });
    log.stage(three().from_producer(7, 1, 1).keyed(&[(1, 10, 1)]), NOW).unwrap();
    log.stage(one("a", "x").from_producer(6, 2, 1), NOW).unwrap();
    assert_eq!(log.write().unwrap_err().code, ErrorCode::StorageFull);
    let tenant = world.dir.tenant(&id().tenant).unwrap();
    assert_eq!((tenant.keys(), tenant.producers()), (0, 1));
    assert_eq!(
        words(&log.stage(three().from_producer(7, 1, 1).keyed(&[(1, 10, 1)]), NOW).unwrap()),
        "new 7+3",
        "seqs stay unused"
    );
    assert_eq!(
        words(&log.stage(one("a", "k").from_producer(6, 1, 1), NOW).unwrap()),
        "dup 2+1",
        "the old session is back"
    );
    log.write().unwrap();
}
