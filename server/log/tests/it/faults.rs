//! Full and read-only disks, failed writes, failed syncs.

use acb_log::{Event, Fault, FaultOn, Log, SnapshotPart};
use acb_types::ErrorCode;

use crate::kit::*;

fn fill(log: &mut Log, count: usize) {
    for i in 0..count {
        put(log, "a", &format!("{i} {}", "x".repeat(300)));
    }
}

#[test]
fn a_full_disk_refuses_whole_writes_reads_go_on_and_it_heals() {
    let mut world = World::small(1);
    let mut log = world.log();
    fill(&mut log, 5);
    world.disk.fail(FaultOn::Allocate, libc::ENOSPC);
    let mut stored_before = 5;
    let error = loop {
        log.stage(one("a", &format!("{stored_before} {}", "x".repeat(300))), NOW).unwrap();
        match log.write() {
            Ok(()) => stored_before += 1,
            Err(e) => break e,
        }
    };
    assert_eq!(error.code, ErrorCode::StorageFull);
    assert!(stored_before > 5, "the segment that was there already took some more");
    for _ in 0..3 {
        log.stage(one("a", &format!("refused {}", "x".repeat(300))), NOW).unwrap();
        assert_eq!(log.write().unwrap_err().code, ErrorCode::StorageFull);
    }
    assert_eq!(read_all(&log, 1, &[">"]).len(), stored_before, "reads go on, and nothing is half stored");
    let given = log.next_seq();
    world.disk.heal();
    assert_eq!(put_synced(&mut log, "a", "healed"), given);
    world.kill();
    drop(log);
    assert_eq!(payloads(&read_all(&world.log(), 1, &[">"])).last(), Some(&"healed"));
}

#[test]
fn a_write_that_failed_half_way_leaves_nothing_behind_even_if_the_process_dies_then() {
    for seed in 0..50 {
        let mut world = World::small(seed);
        let mut log = world.log();
        put(&mut log, "a", "1");
        for i in 0..5 {
            log.stage(one("a", &format!("half {i} {}", "x".repeat(200))), NOW).unwrap();
        }
        world.disk.inject(Fault { on: FaultOn::Write, errno: libc::ENOSPC, after: 0, times: 1 });
        assert_eq!(log.write().unwrap_err().code, ErrorCode::StorageFull);
        world.kill();
        drop(log);
        assert_eq!(payloads(&read_all(&world.log(), 1, &[">"])), ["1"], "seed {seed}");
    }
}

#[test]
fn a_read_only_disk_refuses_writes_reads_go_on_and_it_heals() {
    let world = World::small(1);
    let mut log = world.log();
    put(&mut log, "a", "1");
    world.disk.fail(FaultOn::Change, libc::EROFS);
    log.stage(one("a", "2"), NOW).unwrap();
    assert_eq!(log.write().unwrap_err().code, ErrorCode::StorageReadOnly);
    assert_eq!(payloads(&read_all(&log, 1, &["a"])), ["1"]);
    world.disk.heal();
    put_synced(&mut log, "a", "3");
    assert_eq!(payloads(&read_all(&log, 1, &["a"])), ["1", "3"]);
}

#[test]
fn a_log_on_a_full_or_read_only_disk_opens_for_reading_and_appends_when_it_heals() {
    for errno in [libc::ENOSPC, libc::EROFS] {
        let mut world = World::small(1);
        let mut log = world.log();
        put_synced(&mut log, "a", "1");
        log.stage_state("s".into(), SnapshotPart::None).unwrap();
        log.sync().unwrap();
        let given = log.next_seq();
        world.kill();
        drop(log);
        world.disk.fail(FaultOn::Change, errno);
        let opened = world.open();
        assert_eq!(opened.state, ["s"]);
        let mut log = opened.log;
        assert_eq!(payloads(&read_all(&log, 1, &["a"])), ["1"]);
        let refused = log.stage(one("a", "2"), NOW).unwrap_err();
        assert!(refused.heals(), "{refused}");
        assert!(log.stage_state("t".into(), SnapshotPart::None).is_err());
        world.disk.heal();
        assert!(put_synced(&mut log, "a", "2") >= given);
        assert_eq!(payloads(&read_all(&log, 1, &["a"])), ["1", "2"]);
    }
}

#[test]
fn a_failed_write_ends_all_appending_until_the_log_is_opened_anew() {
    let mut world = World::small(1);
    let mut log = world.log();
    put_synced(&mut log, "a", "1");
    world.disk.inject(Fault { on: FaultOn::Write, errno: libc::EIO, after: 0, times: 1 });
    log.stage(one("a", "2"), NOW).unwrap();
    assert_eq!(log.write().unwrap_err().code, ErrorCode::StorageFailed);
    assert_eq!(log.stage(one("a", "3"), NOW).unwrap_err().code, ErrorCode::StorageFailed);
    assert_eq!(log.stage_state("s".into(), SnapshotPart::None).unwrap_err().code, ErrorCode::StorageFailed);
    assert_eq!(log.write().unwrap_err().code, ErrorCode::StorageFailed);
    assert!(log.sync_begin().is_none());
    assert_eq!(log.close().unwrap_err().code, ErrorCode::StorageFailed);
    assert_eq!(payloads(&read_all(&log, 1, &["a"])), ["1"], "reads go on");
    world.kill();
    drop(log);
    put_synced(&mut world.log(), "a", "4");
}

#[test]
fn a_failed_sync_is_never_tried_again_and_nothing_after_it_counts_as_synced() {
    let world = World::small(1);
    let mut log = world.log();
    put_synced(&mut log, "a", "1");
    put(&mut log, "a", "2");
    world.disk.inject(Fault { on: FaultOn::Sync, errno: libc::EIO, after: 0, times: 1 });
    let mut failing = log.sync_begin().unwrap();
    failing.run();
    // Another one begun meanwhile succeeds: it must not hide the failure.
    let mut later = log.sync_begin().unwrap();
    assert_eq!(log.sync_end(failing).unwrap_err().code, ErrorCode::StorageFailed);
    later.run();
    assert_eq!(log.sync_end(later).unwrap_err().code, ErrorCode::StorageFailed);
    assert_eq!(log.synced_end(), 2);
    assert_eq!(log.stage(one("a", "3"), NOW).unwrap_err().code, ErrorCode::StorageFailed);
    assert_eq!(payloads(&read_all(&log, 1, &["a"])), ["1", "2"], "reads go on");
}

#[test]
fn what_a_failed_sync_lost_in_the_cache_is_written_again_by_the_next_opening() {
    let mut rescued = 0;
    for seed in 0..30 {
        let mut world = World::small(seed);
        let mut log = world.log();
        put_synced(&mut log, "a", "1");
        for i in 0..10 {
            put(&mut log, "a", &format!("{i} {}", "x".repeat(200)));
        }
        world.disk.inject(Fault { on: FaultOn::Sync, errno: libc::EIO, after: 0, times: 1 });
        assert!(log.sync().is_err());
        world.kill();
        drop(log);
        // The system shows all eleven, and would claim that they are synced.
        let log = world.log();
        assert_eq!((read_all(&log, 1, &["a"]).len(), log.synced_end() == log.written_end()), (11, true));
        world.power_cut();
        drop(log);
        rescued += usize::from(read_all(&world.log(), 1, &["a"]).len() == 11);
    }
    assert_eq!(rescued, 30, "what an opening counts as synced survives a power cut");
}

#[test]
fn a_sync_comes_before_anything_counts_as_synced() {
    let world = World::small(1);
    let mut log = world.log();
    world.disk.start_trace();
    put(&mut log, "a", "1");
    assert_eq!(log.synced_end(), 1);
    let mut ticket = log.sync_begin().unwrap();
    put(&mut log, "a", "2");
    assert_eq!(ticket.covers(), 2);
    ticket.run();
    log.sync_end(ticket).unwrap();
    assert_eq!((log.synced_end(), log.written_end()), (2, 3), "what came after the ticket is not synced by it");
    let kinds: Vec<&str> = world
        .disk
        .take_trace()
        .iter()
        .map(|e| match e {
            Event::Write { .. } => "write",
            Event::Sync { .. } => "sync",
            _ => "other",
        })
        .collect();
    assert_eq!(kinds, ["write", "write", "sync"]);
}

#[test]
fn tickets_may_overtake_each_other() {
    let world = World::small(1);
    let mut log = world.log();
    fill(&mut log, 3);
    let mut first = log.sync_begin().unwrap();
    fill(&mut log, 30);
    let mut second = log.sync_begin().unwrap();
    second.run();
    let end = second.covers();
    log.sync_end(second).unwrap();
    assert_eq!(log.synced_end(), end);
    first.run();
    log.sync_end(first).unwrap();
    assert_eq!(log.synced_end(), end, "it only rises");
    assert!(log.sync_begin().is_none(), "nothing more to sync");
    let never_run = {
        put(&mut log, "a", "x");
        log.sync_begin().unwrap()
    };
    log.sync_end(never_run).unwrap();
    assert_eq!(log.synced_end(), end, "a ticket that was not run proves nothing");
}

#[test]
fn a_disk_that_cannot_be_read_is_an_error_of_that_read() {
    let world = World::small(1);
    let mut log = world.log();
    put(&mut log, "a", "1");
    world.disk.inject(Fault { on: FaultOn::Read, errno: libc::EIO, after: 0, times: 1 });
    assert_eq!(log.reader().read(&request(1, &["a"])).unwrap_err().code, ErrorCode::StorageFailed);
    assert_eq!(payloads(&read_all(&log, 1, &["a"])), ["1"]);
}
