//! Damage and torn tails, sidecars, recycled segments, isolation of logs.

use acb_log::{LogOptions, SnapshotPart};
use acb_types::{ClassId, ErrorCode, PartitionId};

use crate::kit::*;

/// Where a text stands in a file of the log.
fn find(world: &World, text: &str) -> (std::path::PathBuf, u64) {
    for path in world.files("seg") {
        let bytes = world.disk.content(&path).unwrap();
        if let Some(at) = bytes.windows(text.len()).position(|w| w == text.as_bytes()) {
            return (path, at as u64);
        }
    }
    panic!("{text} is in no segment");
}

#[test]
fn a_fault_below_the_synced_mark_is_damage_and_says_where_and_what_to_do() {
    let mut world = World::small(1);
    let mut log = world.log();
    put_synced(&mut log, "a", "precious");
    // This one carries the mark.
    put(&mut log, "a", "later");
    world.kill();
    drop(log);
    let (path, at) = find(&world, "precious");
    world.disk.corrupt(&path, at, 1);
    let refused = world.try_open().unwrap_err();
    assert_eq!(refused.code, ErrorCode::DataDamaged);
    let message = refused.to_string();
    assert!(
        message.contains(path.to_str().unwrap())
            // The record of the opening stands before it: a header of 80 bytes at 512, and 4 more.
            && message.contains("byte 596")
            && message.contains("acb-server check"),
        "{message}"
    );
    let other = PartitionId { class: ClassId::INBOX, ..id() };
    world.dir.open_log(&other, small(), NOW).expect("other logs open");
    world.disk.corrupt(&path, at, 1);
    assert_eq!(payloads(&read_all(&world.log(), 1, &["a"])), ["precious", "later"]);
}

#[test]
fn a_fault_above_the_synced_mark_cuts_the_log_there_and_what_lay_behind_never_comes_back() {
    let mut world = World::small(1);
    let mut log = world.log();
    put_synced(&mut log, "a", "kept");
    for text in ["torn", "behind", "further behind"] {
        put(&mut log, "a", text);
    }
    world.kill();
    drop(log);
    let (path, at) = find(&world, "torn");
    world.disk.corrupt(&path, at, 1);
    let mut log = world.log();
    assert_eq!(payloads(&read_all(&log, 1, &["a"])), ["kept"]);
    // New batches of just the old lengths: the bytes behind them are where the old ones began.
    for text in ["TORN", "BEHIND"] {
        put_synced(&mut log, "a", text);
    }
    world.kill();
    drop(log);
    let mut log = world.log();
    assert_eq!(payloads(&read_all(&log, 1, &["a"])), ["kept", "TORN", "BEHIND"]);
    assert_eq!(log.epoch(), 3);
    put(&mut log, "a", "on");
}

#[test]
fn a_damaged_segment_header_or_a_missing_segment_is_damage() {
    let mut world = World::small(1);
    let mut log = world.log();
    for i in 0..100 {
        put_synced(&mut log, "a", &format!("{i} {}", "x".repeat(300)));
    }
    world.kill();
    drop(log);
    let files = world.files("seg");
    assert!(files.len() >= 4);
    let (last, _) = find(&world, "99 xxx");
    world.disk.corrupt(&last, 20, 1);
    assert_eq!(world.try_open().unwrap_err().code, ErrorCode::DataDamaged);
    world.disk.corrupt(&last, 20, 1);
    world.dir.open_log(&id(), small(), NOW).unwrap();
    acb_log::Disk::remove(&world.disk, &files[1]).unwrap();
    let refused = world.try_open().unwrap_err();
    assert!(
        refused.code == ErrorCode::DataDamaged && refused.to_string().contains("segment 2 is missing"),
        "{refused}"
    );
}

#[test]
fn a_payload_that_looks_like_a_batch_is_never_taken_for_one() {
    let mut world = World::small(1);
    // A batch of another log, whole and good, that says that much had been synced before it. Number and generation are
    // those of the victim's segment: only the secret start of the checksum differs.
    let other = PartitionId { class: ClassId::INBOX, ..id() };
    let mut foreign = world.dir.open_log(&other, small(), NOW).unwrap().log;
    put_synced(&mut foreign, "a", &"x".repeat(2000));
    let start = foreign.synced_position().offset as usize;
    put(&mut foreign, "a", "forged");
    let path = world
        .disk
        .paths()
        .into_iter()
        .find(|p| p.starts_with(world.dir.log_dir(&other)) && p.extension().is_some_and(|e| e == "seg"));
    let content = world.disk.content(&path.unwrap()).unwrap();
    let forged = &content[start..content.windows(6).position(|w| w == b"forged").unwrap() + 6];
    assert_eq!(forged[..3], *b"ACB", "a batch starts here");

    let mut log = world.log();
    put_synced(&mut log, "a", "kept");
    put(&mut log, "a", "torn");
    let mut body = bytes::BytesMut::new();
    acb_types::frame::encode_parts(&mut body, &acb_types::Envelope::default(), "a", forged);
    let body = body.freeze();
    let runs = acb_types::frame::walk(&body).unwrap().runs;
    log.stage(acb_types::batch::Batch { body, runs, ..one("a", "") }, NOW).unwrap();
    log.write().unwrap();
    world.kill();
    drop((log, foreign));
    // Behind a break every byte is looked at for what says that it had been synced.
    let (path, at) = find(&world, "torn");
    world.disk.corrupt(&path, at, 1);
    assert_eq!(payloads(&read_all(&world.log(), 1, &["a"])), ["kept"]);
}

#[test]
fn lost_and_damaged_sidecars_are_made_anew_and_nobody_notices() {
    for damage in ["remove", "header", "section"] {
        let mut world = World::small(1);
        let mut log = world.log();
        for i in 0..100u32 {
            let b = one(if i % 10 == 0 { "rare" } else { "often" }, &format!("{i} {}", "x".repeat(200)));
            log.stage(b.from_producer(1, 1, u64::from(i) + 1).keyed(&[(0, u128::from(i), 1)]), NOW).unwrap();
            log.sync().unwrap();
        }
        let expected = read_all(&log, 1, &["rare"]);
        world.kill();
        drop(log);
        let sidecars = world.files("idx");
        assert!(sidecars.len() > 2);
        for path in &sidecars {
            match damage {
                "remove" => acb_log::Disk::remove(&world.disk, path).unwrap(),
                "header" => world.disk.corrupt(path, 50, 1),
                _ => {
                    for at in 256..world.disk.content(path).unwrap().len() as u64 {
                        world.disk.corrupt(path, at, 0x55);
                    }
                }
            }
        }
        let mut log = world.log();
        assert_eq!(read_all(&log, 1, &["rare"]), expected, "{damage}");
        assert_eq!(words(&log.stage(one("a", "x").from_producer(1, 1, 1), NOW).unwrap()), "dup 1+1", "{damage}");
        assert_eq!(words(&log.stage(one("a", "x").keyed(&[(0, 50, 1)]), NOW).unwrap()), "dup 51+1", "{damage}");
        put_synced(&mut log, "a", "on");
        world.kill();
        drop(log);
        assert_eq!(world.files("idx").len(), sidecars.len(), "{damage}: they are there again");
        assert_eq!(read_all(&world.log(), 1, &["rare"]), expected);
    }
}

#[test]
fn a_sealed_segment_that_rots_is_told_by_the_read_that_meets_it() {
    let world = World::small(1);
    let mut log = world.log();
    for i in 0..60 {
        put_synced(&mut log, "a", &format!("{i} {}", "x".repeat(300)));
    }
    log.close().unwrap();
    drop(log);
    let (path, at) = find(&world, "3 xxxxx");
    world.disk.corrupt(&path, at, 1);
    let log = world.log();
    let refused = log.reader().read(&request(1, &["a"])).unwrap_err();
    assert_eq!(refused.code, ErrorCode::DataDamaged);
    assert!(refused.to_string().contains(path.to_str().unwrap()), "{refused}");
    assert!(!log.reader().read(&request(30, &["a"])).unwrap().runs.is_empty(), "the rest is readable");
}

#[test]
fn the_old_batches_of_a_recycled_segment_never_come_back() {
    let mut world = World::small(3);
    let options = LogOptions { segment_bytes_min: 8192, segment_bytes_max: 8192, ..small() };
    let other = PartitionId { class: ClassId::INBOX, ..id() };
    let mut first = world.dir.open_log(&id(), options, NOW).unwrap().log;
    let mut recycled = 0;
    for round in 0..40 {
        for i in 0..20 {
            put_synced(&mut first, "a", &format!("old {round} {i} {}", "x".repeat(300)));
        }
        first.trim_before(first.next_seq()).unwrap();
        let mut second = world.dir.open_log(&other, options, NOW).unwrap().log;
        for i in 0..10 {
            put_synced(&mut second, "b", &format!("new {round} {i} {}", "y".repeat(300)));
        }
        drop(second);
        drop(first);
        if round % 2 == 0 {
            world.kill();
        } else {
            world.power_cut();
        }
        first = world.dir.open_log(&id(), options, NOW).unwrap().log;
        assert!(read_all(&first, 1, &["b"]).is_empty());
        let second = world.dir.open_log(&other, options, NOW).unwrap().log;
        let found = read_all(&second, 1, &[">"]);
        assert_eq!(found.len(), 10 * (round + 1), "round {round}");
        assert!(found.iter().all(|(_, topic, payload)| topic == "b" && payload.starts_with("new")));
        let name = |p: &std::path::Path| p.file_name().unwrap().to_str().unwrap()[11..19].to_owned();
        recycled = recycled.max(
            world
                .disk
                .paths()
                .iter()
                .filter(|p| p.extension().is_some_and(|e| e == "seg") && name(p).as_str() > "00000001")
                .count(),
        );
    }
    assert!(recycled > 5, "files were used again: {recycled}");
}

#[test]
fn epochs_rise_with_each_unclean_stop_only() {
    let mut world = World::small(1);
    let mut given = 0;
    for (fall, epoch) in
        [("close", 1), ("kill", 1), ("close", 2), ("power", 2), ("power", 3), ("close", 4), ("close", 4)]
    {
        let mut log = world.log();
        assert_eq!(log.epoch(), epoch, "before {fall}");
        let seq = put_synced(&mut log, "a", fall);
        assert!(seq > given, "seqs rise over every stop");
        given = seq;
        match fall {
            "close" => log.close().unwrap(),
            "kill" => world.kill(),
            _ => world.power_cut(),
        }
    }
    let got = read_all(&world.log(), 1, &["a"]);
    assert_eq!(payloads(&got), ["close", "kill", "close", "power", "power", "close", "close"]);
}

#[test]
fn a_snapshot_over_several_segments_is_given_back_whole() {
    let mut world = World::small(1);
    let mut log = world.log();
    let filler = "x".repeat(1500);
    let part = |log: &mut acb_log::Log, text: &str, part| {
        log.stage_state(format!("{text}{filler}").into(), part).unwrap();
        log.sync().unwrap();
    };
    part(&mut log, "before", SnapshotPart::None);
    part(&mut log, "1", SnapshotPart::First);
    for i in 2..10 {
        part(&mut log, &i.to_string(), SnapshotPart::Middle);
    }
    part(&mut log, "L", SnapshotPart::Last);
    part(&mut log, "after", SnapshotPart::None);
    assert!(world.files("seg").len() > 2);
    log.trim_before(u64::MAX).unwrap();
    world.power_cut();
    drop(log);
    let opened = world.open();
    let words: Vec<String> =
        opened.state.iter().map(|b| String::from_utf8_lossy(b).trim_end_matches('x').to_owned()).collect();
    assert_eq!(words, ["1", "2", "3", "4", "5", "6", "7", "8", "9", "L", "after"]);
}
