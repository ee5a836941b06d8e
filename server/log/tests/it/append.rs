//! Staging, writing, reading back, rolling, closing.

use acb_log::{LogOptions, SnapshotPart};
use acb_types::{ErrorCode, batch::Outcome};
use bytes::Bytes;

use crate::kit::*;

#[test]
fn messages_are_read_back_as_they_were_staged() {
    let world = World::small(1);
    let mut log = world.log();
    let b = batch(&[("a", "1"), ("a", "2"), ("b.c", "3")]);
    let body = b.body.clone();
    let parts = log.stage(b, NOW).unwrap();
    let [part] = &parts[..] else { panic!("{parts:?}") };
    assert!(
        matches!(&part.outcome, Outcome::Stored { first_seq: 1, body: kept, runs } if *kept == body && runs.len() == 2)
    );
    assert!(log.has_staged());
    assert_eq!((log.next_seq(), log.written_end(), log.first_seq()), (4, 1, 1));
    log.write().unwrap();
    assert_eq!((log.next_seq(), log.written_end(), log.synced_end(), log.first_seq()), (4, 4, 1, 1));
    let block = log.reader().read(&request(1, &[">"])).unwrap();
    assert_eq!(
        messages(&block),
        vec![(1, "a".into(), "1".into()), (2, "a".into(), "2".into()), (3, "b.c".into(), "3".into())]
    );
    assert_eq!(block.next_seq, 4);
    let bytes: Vec<u8> = block.runs.iter().flat_map(|r| r.body.to_vec()).collect();
    assert_eq!(bytes, body, "bytes in are bytes out");
    let facts = &block.runs[0].facts;
    assert_eq!((facts.epoch, facts.stored_at, facts.sender.agent.as_str()), (1, NOW, "planner"));
    assert!(std::sync::Arc::ptr_eq(facts, &block.runs[1].facts), "facts are shared");
}

#[test]
fn what_is_not_written_is_not_read() {
    let world = World::small(1);
    let mut log = world.log();
    put(&mut log, "a", "1");
    log.stage(one("a", "2"), NOW).unwrap();
    let block = log.reader().read(&request(1, &["a"])).unwrap();
    assert_eq!((payloads(&messages(&block)), block.next_seq), (vec!["1"], 2));
}

#[test]
fn a_log_goes_on_over_many_segments() {
    let world = World::small(1);
    let mut log = world.log();
    let filler = "x".repeat(300);
    for i in 0..200 {
        put(&mut log, if i % 2 == 0 { "even" } else { "odd" }, &format!("{i} {filler}"));
        if i % 7 == 0 {
            log.sync().unwrap();
        }
    }
    assert!(world.files("seg").len() > 4, "{:?}", world.files("seg"));
    assert!(!world.files("idx").is_empty(), "sealed and synced segments have sidecars");
    let all = read_all(&log, 1, &[">"]);
    assert_eq!(all.len(), 200);
    assert!(all.iter().enumerate().all(|(i, (seq, _, p))| *seq == i as u64 + 1 && p.starts_with(&format!("{i} "))));
    let odd = read_all(&log, 1, &["odd"]);
    assert_eq!(odd.len(), 100);
    assert!(odd.iter().all(|(seq, topic, _)| seq % 2 == 0 && topic == "odd"));
    assert_eq!(read_all(&log, 150, &["even"]).len(), 25);
}

#[test]
fn one_write_may_span_segments() {
    let world = World::small(1);
    let mut log = world.log();
    let filler = "x".repeat(1000);
    for i in 0..60 {
        log.stage(one("a", &format!("{i} {filler}")), NOW).unwrap();
    }
    log.write().unwrap();
    assert!(world.files("seg").len() > 4);
    log.sync().unwrap();
    assert_eq!(read_all(&log, 1, &["a"]).len(), 60);
}

#[test]
fn a_message_larger_than_a_segment_gets_one_of_its_own() {
    let world = World::small(1);
    let mut log = world.log();
    put(&mut log, "a", &"x".repeat(100_000));
    put(&mut log, "a", "small");
    assert_eq!(read_all(&log, 1, &["a"]).len(), 2);
    drop(log);
    let mut log = world.log();
    put(&mut log, "a", "more");
    assert_eq!(read_all(&log, 1, &["a"]).len(), 3);
}

#[test]
fn a_log_that_was_closed_goes_on_in_its_epoch_without_a_jump() {
    let world = World::small(1);
    let mut log = world.log();
    put(&mut log, "a", "1");
    log.close().unwrap();
    assert_eq!(log.stage(one("a", "2"), NOW).unwrap_err().code, ErrorCode::InvalidState);
    log.close().unwrap();
    drop(log);
    let mut log = world.log();
    assert_eq!((log.epoch(), log.next_seq(), log.synced_end()), (1, 2, 2));
    assert_eq!(put(&mut log, "a", "2"), 2);
    assert_eq!(payloads(&read_all(&log, 1, &["a"])), ["1", "2"]);
}

#[test]
fn a_log_that_was_not_closed_begins_a_new_epoch_beyond_all_seqs_that_were_given_out() {
    let mut world = World::small(1);
    let mut log = world.log();
    put_synced(&mut log, "a", "1");
    for _ in 0..500 {
        log.stage(one("a", "lost"), NOW).unwrap();
    }
    let given = log.next_seq();
    world.kill();
    drop(log);
    let mut log = world.log();
    assert_eq!(log.epoch(), 2);
    assert!(log.next_seq() >= given, "{} was given out, {} comes next", given - 1, log.next_seq());
    let seq = put(&mut log, "a", "2");
    assert_eq!(payloads(&read_all(&log, 1, &["a"])), ["1", "2"]);
    let block = log.reader().read(&request(2, &["a"])).unwrap();
    assert_eq!((block.gap, block.runs[0].first_seq, block.runs[0].facts.epoch), (None, seq, 2));
}

#[test]
fn opening_a_log_that_is_open_is_refused() {
    let world = World::small(1);
    let log = world.log();
    assert_eq!(world.try_open().unwrap_err().code, ErrorCode::InvalidState);
    drop(log);
    world.log();
}

#[test]
fn seqs_beyond_the_reserve_wait_for_a_sync() {
    let world = World::small(1);
    let mut log = world.log();
    for _ in 0..1000 {
        log.stage(one("a", "x"), NOW).unwrap();
    }
    assert_eq!(log.synced_end(), 1);
    log.stage(one("a", "x"), NOW).unwrap();
    assert_eq!(log.synced_end(), 1001, "the thousand before were synced first");
}

#[test]
fn state_records_come_back_in_order_with_the_next_open() {
    let mut world = World::small(1);
    let mut log = world.log();
    for i in 0..10 {
        log.stage_state(Bytes::from(format!("s{i}")), SnapshotPart::None).unwrap();
        if i % 3 == 0 {
            put(&mut log, "a", "m");
        }
    }
    log.sync().unwrap();
    assert_eq!(log.next_seq(), 5, "state has no seqs");
    world.power_cut();
    drop(log);
    let opened = world.open();
    assert_eq!(opened.state, (0..10).map(|i| Bytes::from(format!("s{i}"))).collect::<Vec<_>>());
}

#[test]
fn a_roll_asks_for_a_snapshot_until_a_complete_one_was_staged() {
    let world = World::small(1);
    let mut log = world.log();
    assert!(!log.wants_snapshot());
    while world.files("seg").len() < 2 {
        put(&mut log, "a", &"x".repeat(500));
    }
    assert!(log.wants_snapshot());
    log.stage_state("1".into(), SnapshotPart::First).unwrap();
    log.stage_state("2".into(), SnapshotPart::Middle).unwrap();
    assert!(log.wants_snapshot());
    log.stage_state("3".into(), SnapshotPart::Last).unwrap();
    assert!(!log.wants_snapshot());
}

#[test]
fn opening_gives_the_last_complete_snapshot_first_and_only_what_came_since() {
    let world = World::small(1);
    let mut log = world.log();
    let filler = "x".repeat(400);
    for i in 0..100 {
        put(&mut log, "a", &filler);
        log.stage_state(Bytes::from(format!("s{i}")), SnapshotPart::None).unwrap();
        if i % 20 == 10 {
            log.stage_state(Bytes::from(format!("F{i}")), SnapshotPart::First).unwrap();
            log.write().unwrap();
            log.stage_state(Bytes::from(format!("L{i}")), SnapshotPart::Last).unwrap();
        }
        log.write().unwrap();
    }
    log.stage_state("incomplete".into(), SnapshotPart::First).unwrap();
    log.sync().unwrap();
    drop(log);
    let words: Vec<String> = world.open().state.iter().map(|b| String::from_utf8(b.to_vec()).unwrap()).collect();
    let mut expected = vec!["F90".to_owned(), "L90".to_owned()];
    expected.extend((91..100).map(|i| format!("s{i}")));
    assert_eq!(words, expected);
}

#[test]
fn what_comes_while_a_sync_runs_is_served_by_one_write_and_the_next_sync() {
    let world = World::new(1, LogOptions::default());
    let mut log = world.log();
    put_synced(&mut log, "a", "first");
    world.disk.reset_counts();
    let mut running = None;
    for round in 0..3 {
        for i in 0..50 {
            log.stage(one("a", &format!("{round} {i}")), NOW).unwrap();
        }
        // The levels: given a seq, then handed to the system, then on disk; each no earlier than it is.
        let (given, written, synced) = (log.next_seq(), log.written_end(), log.synced_end());
        assert_eq!(given - written, 50, "a batch that is staged has its seqs and nothing else");
        log.write().unwrap();
        assert_eq!((log.written_end(), log.synced_end()), (given, synced));
        if let Some(ticket) = running.take() {
            let mut ticket: acb_log::SyncTicket = ticket;
            ticket.run();
            log.sync_end(ticket).unwrap();
            assert_eq!(log.synced_end(), written, "a ticket covers what was written when it began");
        }
        running = log.sync_begin();
    }
    let mut last = running.unwrap();
    last.run();
    log.sync_end(last).unwrap();
    assert_eq!(log.synced_end(), 152);
    let counts = world.disk.counts();
    assert_eq!((counts.writes, counts.syncs), (3, 3), "150 batches");
}
