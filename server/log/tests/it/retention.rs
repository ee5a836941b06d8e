//! What a log lets go of and what it keeps.

use std::time::Duration;

use acb_log::{AtCap, DataDir, DataDirOptions, Event, FaultOn, LogOptions, Retention, SnapshotPart};
use acb_types::{ClassId, ErrorCode, Timestamp};

use crate::kit::*;

fn world(retention: Retention) -> World {
    World::new(1, LogOptions { retention, segment_bytes_max: 4096, ..small() })
}

fn at(seconds: u64) -> Timestamp {
    NOW.after(Duration::from_secs(seconds))
}

fn fill(log: &mut acb_log::Log, count: u64, seconds: u64) {
    for _ in 0..count {
        log.stage(one("a", &"x".repeat(300)), at(seconds)).unwrap();
        log.sync().unwrap();
    }
}

#[test]
fn what_is_old_goes_once_it_lies_below_the_floor() {
    let world = world(Retention { age: Some(Duration::from_mins(1)), ..Retention::KEEP });
    let mut log = world.log();
    fill(&mut log, 40, 0);
    fill(&mut log, 40, 50);
    assert_eq!(log.retain(81, at(59)).unwrap(), 1, "not old yet");
    assert_eq!(log.retain(1, at(70)).unwrap(), 1, "old, but above the floor");
    let first = log.retain(20, at(70)).unwrap();
    assert!(first > 1 && first <= 20, "{first}");
    let first = log.retain(81, at(70)).unwrap();
    assert!((30..=41).contains(&first), "{first}: the old ones, as far as whole segments go");
}

#[test]
fn an_inbox_lets_go_of_what_everybody_had_and_refuses_at_its_cap() {
    let world = world(Retention { bytes: 20_000, at_cap: AtCap::Refuse, consumed_goes: true, age: None });
    let mut log = world.log();
    let mut stored = 0;
    let refused = loop {
        match log.stage(one("a", &"x".repeat(300)), NOW) {
            Ok(_) => {
                log.sync().unwrap();
                stored += 1;
                assert!(stored < 1000, "the cap refuses nobody");
            }
            Err(e) => break e,
        }
    };
    assert_eq!(refused.code, ErrorCode::StorageFull);
    assert!(log.bytes() <= 21_000 && stored > 30, "{} bytes, {stored} messages", log.bytes());
    log.stage_state("acks go on".into(), SnapshotPart::Whole).unwrap();
    log.sync().unwrap();
    assert_eq!(read_all(&log, 1, &["a"]).len(), stored, "reads go on");
    let first = log.retain(30, NOW).unwrap();
    assert!(first > 1 && first <= 30, "{first}");
    fill(&mut log, 5, 0);
}

#[test]
fn a_topic_log_drops_its_oldest_at_its_cap_wherever_the_floor_is() {
    let world = world(Retention { bytes: 20_000, at_cap: AtCap::DropOldest, consumed_goes: false, age: None });
    let mut log = world.log();
    for _ in 0..10 {
        fill(&mut log, 20, 0);
        log.retain(0, NOW).unwrap();
        assert!(log.bytes() < 20_000 + 16 * 1024, "{}", log.bytes());
    }
    assert!(log.first_seq() > 100);
    let block = log.reader().read(&request(1, &["a"])).unwrap();
    assert_eq!(block.gap.unwrap().to_seq, log.first_seq());
}

#[test]
fn a_full_log_asks_for_retention_once_a_segment_and_goes_on_in_what_it_gave_up() {
    let world = world(Retention { bytes: 20_000, at_cap: AtCap::DropOldest, ..Retention::KEEP });
    let mut log = world.log();
    let mut asked = 0;
    for _ in 0..400 {
        fill(&mut log, 1, 0);
        if log.wants_retain() {
            asked += 1;
            log.retain(0, NOW).unwrap();
            assert!(!log.wants_retain(), "once a segment");
        }
        assert!(log.bytes() < 20_000 + 3 * 4096, "{} bytes", log.bytes());
    }
    assert!(asked > 10, "{asked}");
}

#[test]
fn a_new_segment_is_written_over_its_whole_length_before_its_first_batch() {
    let world = world(Retention::KEEP);
    world.disk.start_trace();
    let mut log = world.log();
    fill(&mut log, 60, 0);
    let trace = world.disk.take_trace();
    let segments = world.files("seg");
    assert!(segments.len() > 4, "{segments:?}");
    for path in &segments[..4] {
        let own: Vec<_> = trace.iter().filter(|e| matches!(e, Event::Write { path: p, .. } if p == path)).collect();
        let zeroes = own.iter().position(|e| matches!(e, Event::Write { offset: 512, len, .. } if *len == 4096 - 512));
        assert!(zeroes.is_some_and(|at| at <= 1), "{path:?}: {own:?}");
        let sync = trace.iter().position(|e| matches!(e, Event::Sync { path: p } if p == path)).unwrap();
        let batch = trace.iter().position(|e| *e == *own[zeroes.unwrap() + 1]).unwrap();
        assert!(sync < batch, "{path:?}: the flush of its first batch finds its blocks written");
    }
}

#[test]
fn a_segment_that_cannot_be_written_ahead_is_made_anew() {
    let world = world(Retention::KEEP);
    let mut log = world.log();
    // The write of a batch succeeds, that of the zeroes beside it does not.
    for n in 0..200 {
        if n % 7 == 0 {
            let mut ticket = {
                log.stage(one("a", &"x".repeat(300)), NOW).unwrap();
                log.write().unwrap();
                log.sync_begin().unwrap()
            };
            world.disk.fail(FaultOn::Write, libc::EIO);
            ticket.run();
            world.disk.heal();
            log.sync_end(ticket).unwrap();
        } else {
            fill(&mut log, 1, 0);
        }
    }
    assert_eq!(read_all(&log, 1, &["a"]).len(), 200);
    drop(log);
    assert_eq!(read_all(&world.open().log, 1, &["a"]).len(), 200);
}

#[test]
fn the_segment_with_the_last_complete_snapshot_is_never_trimmed() {
    let mut world = world(Retention::KEEP);
    let mut log = world.log();
    fill(&mut log, 10, 0);
    log.stage_state("old".into(), SnapshotPart::Whole).unwrap();
    log.stage_state("since".into(), SnapshotPart::None).unwrap();
    fill(&mut log, 60, 0);
    let first = log.trim_before(u64::MAX).unwrap();
    assert!(first <= 11, "{first}");
    // A newer one counts when it is synced, not before.
    log.stage_state("new".into(), SnapshotPart::Whole).unwrap();
    log.write().unwrap();
    assert_eq!(log.trim_before(u64::MAX).unwrap(), first);
    log.sync().unwrap();
    assert!(log.trim_before(u64::MAX).unwrap() > 50);
    world.power_cut();
    drop(log);
    assert_eq!(world.open().state, ["new"]);
}

#[test]
fn without_a_snapshot_no_state_record_is_trimmed() {
    let world = world(Retention::KEEP);
    let mut log = world.log();
    fill(&mut log, 30, 0);
    log.stage_state("first".into(), SnapshotPart::None).unwrap();
    fill(&mut log, 60, 0);
    let first = log.trim_before(u64::MAX).unwrap();
    assert!(first > 1 && first <= 31, "{first}");
    drop(log);
    assert_eq!(world.open().state, ["first"]);
}

#[test]
fn retired_segments_are_used_again_within_their_tenant() {
    let world = World::new(1, LogOptions { segment_bytes_min: 8192, segment_bytes_max: 8192, ..small() });
    let mut log = world.log();
    fill(&mut log, 100, 0);
    let before = world.disk.paths().len();
    log.trim_before(90).unwrap();
    let tenant = world.dir.tenant(&id().tenant).unwrap();
    let (held, bytes) = tenant.pool().held();
    assert!(held > 2 && bytes == held as u64 * 8192, "{held} files");
    fill(&mut log, 100, 0);
    assert_eq!(tenant.pool().held().0, 0, "they were used");
    assert!(world.disk.paths().len() <= before + held + 8);
}

#[test]
fn a_tenant_is_removed_with_all_its_logs_and_nothing_else() {
    let disk = acb_log::SimDisk::new(1);
    let dir = DataDir::open(disk.shared(), std::path::Path::new("/data"), DataDirOptions::default()).unwrap();
    let other = acb_types::PartitionId { tenant: "other".parse().unwrap(), ..id() };
    let inbox = acb_types::PartitionId { class: ClassId::INBOX, partition: 3, ..id() };
    for partition in [id(), inbox.clone(), other.clone()] {
        let mut log = dir.open_log(&partition, small(), NOW).unwrap().log;
        put_synced(&mut log, "a", "1");
        log.close().unwrap();
    }
    assert_eq!(dir.partitions().unwrap(), [inbox, id(), other.clone()]);
    let open = dir.open_log(&id(), small(), NOW).unwrap();
    assert_eq!(dir.remove_tenant(&id().tenant).unwrap_err().code, ErrorCode::InvalidState, "it is open");
    drop(open);
    dir.remove_tenant(&id().tenant).unwrap();
    dir.remove_tenant(&id().tenant).unwrap();
    assert_eq!(dir.partitions().unwrap(), std::slice::from_ref(&other));
    assert_eq!(read_all(&dir.open_log(&other, small(), NOW).unwrap().log, 1, &["a"]).len(), 1);
}
