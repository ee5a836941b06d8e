//! Reading: limits, ends, gaps, times, and what it costs.

use std::time::Duration;

use acb_log::{Log, LogOptions};
use acb_types::batch::ReadRequest;

use crate::kit::*;

/// A log with these many rounds of one message to each topic, each synced.
fn interleaved(world: &World, topics: usize, rounds: usize) -> Log {
    let mut log = world.log();
    for round in 0..rounds {
        for topic in 0..topics {
            log.stage(one(&format!("t.{topic}"), &format!("{round} {}", "x".repeat(200))), NOW).unwrap();
        }
        log.sync().unwrap();
    }
    log
}

#[test]
fn a_read_keeps_its_limits_and_says_where_the_next_one_starts() {
    let world = World::small(1);
    let mut log = world.log();
    log.stage(batch(&[("a", "1"), ("a", "2"), ("b", "3"), ("a", "4"), ("a", "5")]), NOW).unwrap();
    log.write().unwrap();
    let read = |from, end, messages_max, bytes_max| {
        let block =
            log.reader().read(&ReadRequest { end_seq: end, messages_max, bytes_max, ..request(from, &["a"]) }).unwrap();
        (messages(&block).iter().map(|m| m.0).collect::<Vec<_>>(), block.next_seq)
    };
    assert_eq!(read(1, 100, 100, 1000), (vec![1, 2, 4, 5], 6));
    assert_eq!(read(1, 100, 1, 1000), (vec![1], 2));
    assert_eq!(read(1, 100, 3, 1000), (vec![1, 2, 4], 5));
    assert_eq!(read(2, 100, 100, 1000), (vec![2, 4, 5], 6));
    assert_eq!(read(1, 2, 100, 1000), (vec![1], 2));
    assert_eq!(read(1, 4, 100, 1000), (vec![1, 2], 4));
    assert_eq!(read(3, 4, 100, 1000), (vec![], 4));
    assert_eq!(read(1, 100, 100, 0), (vec![1], 2), "the first is given whatever its size");
    assert_eq!(read(1, 100, 100, 17), (vec![1, 2], 4), "3 is of another topic");
    assert_eq!(read(1, 100, 0, 1000), (vec![1], 2), "at least one message");
    assert_eq!(read(6, 100, 100, 1000), (vec![], 6));
    assert_eq!(read(90, 100, 100, 1000), (vec![], 90));
}

#[test]
fn reading_below_what_was_trimmed_gives_a_gap() {
    let world = World::small(1);
    let mut log = interleaved(&world, 2, 30);
    let first = log.trim_before(30).unwrap();
    assert!(first > 1 && first <= 30, "{first}");
    assert_eq!(log.trim_before(30).unwrap(), first, "LOG-9: twice is once");
    let block = log.reader().read(&request(5, &["t.0"])).unwrap();
    let gap = block.gap.unwrap();
    assert_eq!((gap.from_seq, gap.to_seq), (5, first));
    assert!(messages(&block)[0].0 >= first);
    assert_eq!(log.reader().read(&request(first, &["t.0"])).unwrap().gap, None);
    log.close().unwrap();
    drop(log);
    let log = world.log();
    assert_eq!(log.first_seq(), first);
    assert_eq!(log.reader().read(&request(5, &["t.0"])).unwrap().gap, Some(gap), "after a reopen too");
}

#[test]
fn a_log_of_which_everything_was_trimmed_says_so() {
    let world = World::new(1, LogOptions { segment_bytes_min: 2048, ..small() });
    let mut log = interleaved(&world, 1, 20);
    // Something that is no message begins the next segment.
    while log.trim_before(u64::MAX).unwrap() < log.next_seq() {
        log.stage_state("x".repeat(500).into(), acb_log::SnapshotPart::Whole).unwrap();
        log.sync().unwrap();
    }
    assert_eq!(log.first_seq(), 21);
    let block = log.reader().read(&request(1, &[">"])).unwrap();
    assert_eq!((block.gap.map(|g| (g.from_seq, g.to_seq)), block.next_seq), (Some((1, 21)), 21));
}

#[test]
fn a_seq_is_found_by_time() {
    let world = World::small(1);
    let mut log = world.log();
    for i in 0..100u64 {
        log.stage(one("a", &"x".repeat(200)), NOW.after(Duration::from_secs(i))).unwrap();
        log.sync().unwrap();
    }
    for round in 0..2 {
        let reader = log.reader();
        assert_eq!(reader.seq_at(acb_types::Timestamp(0)).unwrap(), 1);
        for i in [0u64, 1, 17, 50, 99] {
            assert_eq!(reader.seq_at(NOW.after(Duration::from_secs(i))).unwrap(), i + 1, "round {round}");
        }
        assert_eq!(reader.seq_at(NOW.after(Duration::from_millis(16_500))).unwrap(), 18);
        assert_eq!(reader.seq_at(NOW.after(Duration::from_secs(1000))).unwrap(), log.written_end());
        if round == 0 {
            log.close().unwrap();
            drop(log);
            log = world.log();
        }
    }
}

#[test]
fn a_reader_of_one_topic_reads_its_own_records_and_jumps_over_the_rest() {
    let world = World::new(
        1,
        LogOptions { segment_bytes_min: 64 * 1024, segment_bytes_max: 256 * 1024, seq_reserve: 1 << 20, ..small() },
    );
    let mut log = interleaved(&world, 200, 20);
    // 50 segments' worth without the topic.
    for _ in 0..50 {
        for _ in 0..100 {
            log.stage(one("other", &"x".repeat(400)), NOW).unwrap();
        }
        log.sync().unwrap();
    }
    log.close().unwrap();
    drop(log);
    let log = world.log();
    let segments = world.files("seg").len() as u64;
    assert!(segments >= 8, "{segments}");
    world.disk.reset_counts();
    let mine = read_all(&log, 1, &["t.77"]);
    assert_eq!(mine.len(), 20);
    let counts = world.disk.counts();
    let own: u64 = mine.iter().map(|m| m.2.len() as u64 + 150).sum();
    // Beside its own records: the directories of the segments, and its lists.
    let indexes: u64 = world.files("idx").iter().map(|p| world.disk.content(p).unwrap().len() as u64).sum();
    assert!(
        counts.read_bytes < own + indexes,
        "read {} bytes for {own} of its own, indexes are {indexes}",
        counts.read_bytes
    );
    world.disk.reset_counts();
    read_all(&log, 1, &["t.77"]);
    let counts = world.disk.counts();
    assert!(
        counts.read_bytes < own * 2,
        "directories are remembered: read {} bytes for {own} of its own",
        counts.read_bytes
    );
    assert!(counts.reads <= 20 + segments * 2, "{counts:?}");
    world.disk.reset_counts();
    let block = log.reader().read(&request(1, &["t.nobody"])).unwrap();
    assert_eq!((block.runs.len(), block.next_seq), (0, log.written_end()));
    assert_eq!(world.disk.counts().read_bytes, 0, "what is in no segment costs nothing");
}

#[test]
fn ten_thousand_inboxes_that_catch_up_after_a_restart_each_read_only_their_own_records() {
    const READERS: usize = 10_000;
    const EACH: usize = 6;
    /// A batch of one message of 250 bytes: its header, its meta, the message's own fields.
    const RECORD_BYTES: u64 = 80 + 16 + 300;
    let options = LogOptions { segment_bytes_min: 1 << 20, segment_bytes_max: 8 << 20, ..LogOptions::default() };
    let mut world = World::new(1, options);
    let mut log = world.log();
    for round in 0..EACH {
        for reader in 0..READERS {
            log.stage(one(&format!("$acb.inbox.agent-{reader}"), &format!("{round} {}", "x".repeat(250))), NOW)
                .unwrap();
            if reader % 64 == 63 {
                log.write().unwrap();
            }
        }
        log.sync().unwrap();
    }
    let stored = log.bytes();
    world.kill();
    drop(log);
    // As after a restart: nothing is in memory.
    let log = world.log();
    let segments = world.files("seg").len() as u64;
    let indexes: u64 = world.files("idx").iter().map(|p| world.disk.content(p).unwrap().len() as u64).sum();
    assert!(segments > 4, "{segments}");
    let reader = log.reader();
    let (mut bytes, mut reads) = (0, 0);
    for agent in 0..READERS {
        world.disk.reset_counts();
        let topic = format!("$acb.inbox.agent-{agent}");
        let (mut from, mut got) = (1, Vec::new());
        while from < log.written_end() {
            let block = reader.read(&request(from, &[&topic])).unwrap();
            got.extend(messages(&block));
            from = block.next_seq;
        }
        assert!(got.len() == EACH && got.iter().all(|(_, t, _)| *t == topic), "{topic} got {}", got.len());
        let counts = world.disk.counts();
        if agent > 0 {
            // The first one reads the directories, for all.
            assert!(
                counts.read_bytes <= EACH as u64 * RECORD_BYTES && counts.reads <= EACH as u64 + segments,
                "{topic} read {} bytes in {} calls for {EACH} records of its own",
                counts.read_bytes,
                counts.reads
            );
        }
        bytes += counts.read_bytes;
        reads += counts.reads;
    }
    println!("stored {stored}, indexes {indexes}, read {bytes} in {reads} calls, {segments} segments");
    assert!(bytes <= stored + indexes, "all of them together read the log once: {bytes} bytes of {stored}");
}

#[test]
fn readers_follow_a_writer_from_another_thread() {
    let world = World::new(1, LogOptions { seq_reserve: 1 << 20, ..small() });
    let mut log = world.log();
    let reader = log.reader();
    std::thread::scope(|scope| {
        for topics in [&["a"] as &[&str], &[">"], &["b.*"]] {
            let reader = reader.clone();
            scope.spawn(move || {
                let (mut at, mut last) = (1, 0);
                while last < 2998 {
                    let block = reader.read(&request(at, topics)).unwrap();
                    for (seq, _, payload) in messages(&block) {
                        assert!(seq > last && payload == seq.to_string(), "seq {seq} after {last} holds {payload}");
                        last = seq;
                    }
                    at = block.next_seq;
                    std::thread::yield_now();
                }
            });
        }
        for seq in 1..=3000u64 {
            let topic = ["a", "b.c", "c"][(seq % 3) as usize];
            assert_eq!(put(&mut log, topic, &seq.to_string()), seq);
            if seq % 50 == 0 {
                log.sync().unwrap();
            }
        }
    });
}

#[test]
fn readers_meet_gaps_not_errors_when_segments_are_trimmed_under_them() {
    let world = World::new(1, LogOptions { seq_reserve: 1 << 20, ..small() });
    let mut log = world.log();
    let reader = log.reader();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (reader, done) = (reader.clone(), &done);
            scope.spawn(move || {
                let mut at = 1;
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let block = reader.read(&request(at, &["a"])).unwrap();
                    for (seq, _, payload) in messages(&block) {
                        assert!(payload.starts_with(&format!("{seq} ")));
                    }
                    at = if block.next_seq > reader.first_seq() + 20 { 1 } else { block.next_seq };
                }
            });
        }
        for i in 1..2000u64 {
            put(&mut log, if i % 2 == 0 { "a" } else { "b" }, &format!("{i} {}", "x".repeat(200)));
            if i % 20 == 0 {
                log.sync().unwrap();
                log.trim_before(i.saturating_sub(40)).unwrap();
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
