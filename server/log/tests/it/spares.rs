//! Segments that are made ahead of their use.

use std::{sync::mpsc, thread, time::Duration};

use acb_log::{ChoreRun, Event, FaultOn, Log, LogOptions};

use crate::kit::*;

/// What one round of chores writes ahead.
const STEP: u64 = 256 * 1024;
/// A write that waits for this long waits for ever.
const PATIENCE: Duration = Duration::from_secs(20);

/// Segments of one size, whose chores are run when the test says so.
fn world(segment_bytes: u32) -> World {
    let (segment_bytes_min, segment_bytes_max) = (segment_bytes, segment_bytes);
    World::new(
        1,
        LogOptions { segment_bytes_min, segment_bytes_max, chores: ChoreRun::Elsewhere, ..LogOptions::default() },
    )
}

fn put(log: &mut Log) {
    log.stage(one("a", &"x".repeat(1000)), NOW).unwrap();
    log.write().unwrap();
}

/// Writes until the next segment is asked for. Answers how many messages there are.
fn half_full(log: &mut Log) -> usize {
    let mut count = 0;
    while !log.chores().pending() {
        put(log);
        count += 1;
    }
    count
}

/// Runs all chores on another thread while the disk holds up operations of a kind, and writes meanwhile.
fn writes_go_on_while_chores_wait_for(on: FaultOn, rounds_before: usize) {
    let world = world(1024 * 1024);
    let mut log = world.log();
    let before = half_full(&mut log);
    let chores = log.chores();
    for _ in 0..rounds_before {
        chores.run();
    }
    let held = world.disk.hold(on);
    let at_work = thread::spawn(move || chores.run());
    held.has_one();
    let (tell, told) = mpsc::channel();
    let writing = thread::spawn(move || {
        for _ in 0..10 {
            put(&mut log);
        }
        tell.send(log).unwrap();
    });
    let log = told.recv_timeout(PATIENCE).expect("a write waits for the next segment, which it does not need");
    drop(held);
    at_work.join().unwrap();
    writing.join().unwrap();
    assert_eq!(read_all(&log, 1, &["a"]).len(), before + 10);
}

#[test]
fn a_write_does_not_wait_while_the_next_segment_gets_its_blocks() {
    writes_go_on_while_chores_wait_for(FaultOn::Allocate, 0);
}

#[test]
fn a_write_does_not_wait_while_the_next_segment_is_synced() {
    writes_go_on_while_chores_wait_for(FaultOn::Sync, 0);
}

#[test]
fn zeroes_written_ahead_go_to_the_disk_in_steps_and_no_flush_of_them_all_stands_before_those_of_the_log() {
    let world = world(1024 * 1024);
    let mut log = world.log();
    half_full(&mut log);
    world.disk.start_trace();
    let chores = log.chores();
    while chores.pending() {
        chores.run();
    }
    let trace = world.disk.take_trace();
    let spare = world.files("seg").into_iter().max().unwrap();
    let (mut zeroed, mut written_back, mut syncs) = (512, 512, 0);
    for event in trace {
        match event {
            Event::Write { path, offset, len } if path == spare && offset != 0 => {
                assert!(offset == zeroed && len <= STEP, "{len} bytes at {offset}, after {zeroed}");
                zeroed += len;
            }
            Event::WriteBack { path, offset, len } if path == spare => {
                assert!(offset == written_back && len <= STEP, "{len} bytes at {offset}, after {written_back}");
                assert_eq!(zeroed, 1024 * 1024, "not before it is full: a log that needs it sooner writes over them");
                written_back += len;
            }
            Event::Sync { path } if path == spare => {
                assert_eq!(zeroed, 512, "a sync of what was written ahead");
                syncs += 1;
            }
            _ => {}
        }
    }
    assert_eq!((zeroed, written_back, syncs), (1024 * 1024, 1024 * 1024, 1));
}

#[test]
fn a_segment_that_is_begun_before_its_zeroes_are_written_gets_no_more_of_them() {
    let world = world(1024 * 1024);
    let mut log = world.log();
    let mut count = half_full(&mut log);
    let chores = log.chores();
    // Made, and one step of zeroes.
    chores.run();
    chores.run();
    // Fills what is left of the first segment and most of that one.
    for _ in 0..1400 {
        put(&mut log);
        count += 1;
    }
    while chores.pending() {
        chores.run();
    }
    assert_eq!(read_all(&log, 1, &["a"]).len(), count);
}
