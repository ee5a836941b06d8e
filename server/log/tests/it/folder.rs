//! The data folder: one server, one format; and looking at it and saving from it without a server.

use std::path::Path;

use acb_log::{
    DataDir, DataDirOptions, Disk, LogOptions, OsDisk, SnapshotPart,
    check::{SidecarReport, inspect, salvage},
    disk::OpenMode,
};
use acb_types::ErrorCode;

use crate::kit::*;

fn open(path: &Path) -> acb_log::Result<DataDir> {
    DataDir::open(OsDisk::shared(), path, DataDirOptions::default())
}

#[test]
fn a_second_server_on_a_folder_is_told_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    let refused = open(dir.path()).unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidState);
    let pid = format!("pid {}", std::process::id());
    assert!(refused.to_string().contains(&pid), "{refused}");
    drop(first);
    open(dir.path()).unwrap();
}

#[test]
fn a_folder_of_another_format_is_refused_with_a_sentence_that_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    assert_eq!(std::fs::read_to_string(dir.path().join("FORMAT")).unwrap(), "acb data format 1\n");
    for (text, sentence) in [
        ("acb data format 2\n", "was written by a newer acb-server (format 2, this one reads 1): run that version"),
        ("acb data format 0\n", "has format 0, this acb-server reads 1: upgrade it first as docs/upgrade.md says"),
        ("something else", "says no format of acb-server"),
    ] {
        std::fs::write(dir.path().join("FORMAT"), text).unwrap();
        let refused = open(dir.path()).unwrap_err();
        assert!(refused.code == ErrorCode::InvalidState && refused.to_string().contains(sentence), "{refused}");
        assert_eq!(std::fs::read_to_string(dir.path().join("FORMAT")).unwrap(), text, "and is not touched");
    }
}

#[test]
fn a_log_lives_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { segment_bytes_min: 16 * 1024, segment_bytes_max: 64 * 1024, ..LogOptions::default() };
    let mut expected = 0;
    for round in 0..4u32 {
        let data = open(dir.path()).unwrap();
        let mut log = data.open_log(&id(), options, NOW).unwrap().log;
        assert_eq!(read_all(&log, 1, &["a"]).len(), expected);
        for i in 0..200u32 {
            let messages: Vec<(&str, String)> =
                (0..3).map(|n| ("a", format!("{round} {i} {n} {}", "x".repeat(200)))).collect();
            log.stage(batch(&messages).from_producer(1, 1, u64::from(round * 200 + i) * 3 + 1), NOW).unwrap();
            // Large writes go out as vectors.
            log.stage(one("b", &"y".repeat(20_000)), NOW).unwrap();
            if i % 10 == 0 {
                log.sync().unwrap();
            }
        }
        expected += 600;
        log.sync().unwrap();
        if round % 2 == 0 {
            log.close().unwrap();
        }
        let first = log.trim_before(100).unwrap();
        assert!(first <= 100);
        if first > 1 {
            expected = read_all(&log, 1, &["a"]).len();
        }
    }
    let report = inspect(&OsDisk, dir.path()).unwrap();
    assert_eq!(report.logs[0].damage, None);
}

#[test]
fn a_look_at_a_folder_says_what_is_in_it() {
    let mut world = World::small(1);
    let mut log = world.log();
    for i in 0..50 {
        put_synced(&mut log, "a", &format!("{i} {}", "x".repeat(300)));
    }
    log.stage_state("s".into(), SnapshotPart::None).unwrap();
    log.sync().unwrap();
    let report = inspect(&world.disk, Path::new("/data")).unwrap();
    let [log_report] = &report.logs[..] else { panic!("{report:?}") };
    assert_eq!(
        (log_report.seqs, log_report.epochs, log_report.messages, log_report.state_batches),
        (Some((1, 50)), Some((1, 1)), 50, 1)
    );
    assert_eq!((log_report.clean, &log_report.damage), (false, &None));
    assert_eq!(log_report.segments.len(), world.files("seg").len());
    assert_eq!(log_report.segments[0].sidecar, SidecarReport::Good);
    log.close().unwrap();
    assert!(inspect(&world.disk, Path::new("/data")).unwrap().logs[0].clean);
    world.kill();
    drop(log);
    let victim = world.files("seg")[1].clone();
    world.disk.corrupt(&victim, 700, 1);
    let damage = inspect(&world.disk, Path::new("/data")).unwrap().logs[0].damage.clone().unwrap();
    assert!(damage.path == victim && damage.offset <= 700 && damage.what.contains("checksum"), "{damage}");
    assert!(inspect(&world.disk, Path::new("/elsewhere")).is_err());
}

#[test]
fn salvage_copies_every_readable_batch_and_leaves_the_folder_as_it_was() {
    let mut world = World::small(1);
    let mut log = world.log();
    for i in 0..50u64 {
        log.stage(one("a", &format!("{i} {}", "x".repeat(300))).from_producer(1, 1, i + 1), NOW).unwrap();
        log.sync().unwrap();
    }
    log.stage_state("state".into(), SnapshotPart::None).unwrap();
    log.sync().unwrap();
    put(&mut log, "a", "last");
    world.kill();
    drop(log);
    let files = world.files("seg");
    world.disk.corrupt(&files[1], 700, 1);
    // The last segment that is written to; one that was made ahead may lie behind it.
    let holds = |p: &&std::path::PathBuf| world.disk.content(p).unwrap().windows(5).any(|w| w == b"state");
    world.disk.corrupt(files.iter().find(holds).unwrap(), 600, 1);
    assert_eq!(world.try_open().unwrap_err().code, ErrorCode::DataDamaged);
    let content = || {
        let of_data = world.disk.paths().into_iter().filter(|p| p.starts_with("/data"));
        of_data.map(|p| (p.clone(), world.disk.content(&p))).collect::<Vec<_>>()
    };
    let before = content();
    let disk = world.disk.shared();
    let refused = salvage(&disk, Path::new("/data"), Path::new("/saved")).unwrap_err();
    assert!(refused.to_string().contains("in use"), "{refused}");
    world.disk.kill();
    assert!(salvage(&disk, Path::new("/data"), Path::new("/data/in")).is_err());
    let saved = salvage(&disk, Path::new("/data"), Path::new("/saved")).unwrap();
    assert_eq!((saved[0].messages, saved[0].skipped.len()), (49, 2), "{saved:?}");
    assert!(content() == before, "the folder that is saved from was changed");
    assert!(salvage(&disk, Path::new("/data"), Path::new("/saved")).is_err(), "never into what is there");
    let dir = DataDir::open(disk, Path::new("/saved"), DataDirOptions::default()).unwrap();
    let opened = dir.open_log(&id(), small(), NOW).unwrap();
    let mut log = opened.log;
    let got = read_all(&log, 1, &["a"]);
    assert_eq!(got.len(), 49);
    assert!(got.iter().all(|(seq, _, p)| *seq == 51 || p.starts_with(&format!("{} ", seq - 1))), "seqs stay");
    assert_eq!(opened.state, ["state"]);
    assert_eq!(log.epoch(), 2);
    assert_eq!(words(&log.stage(one("a", "x").from_producer(1, 1, 1), NOW).unwrap()), "dup 1+1");
    put_synced(&mut log, "a", "on");
}

#[test]
fn a_foreign_file_in_the_folder_is_left_alone() {
    let world = World::small(1);
    let mut log = world.log();
    put_synced(&mut log, "a", "1");
    log.close().unwrap();
    drop(log);
    let path = world.dir.log_dir(&id()).join("README");
    world.disk.open(&path, OpenMode::Create).unwrap().pwrite(b"hello", 0).unwrap();
    world.log();
    assert_eq!(world.disk.content(&path).unwrap(), b"hello");
}

#[test]
fn a_segment_of_a_newer_version_is_refused_with_a_sentence_and_not_taken_for_damage() {
    let mut world = World::small(1);
    let mut log = world.log();
    put_synced(&mut log, "a", "1");
    world.kill();
    drop(log);
    let [segment] = &world.files("seg")[..] else { panic!("one segment") };
    let set = |version: u16| {
        let mut header = world.disk.content(segment).unwrap()[..128].to_vec();
        header[12..14].copy_from_slice(&version.to_le_bytes());
        let crc = crc32c::crc32c(&header[12..]);
        header[8..12].copy_from_slice(&crc.to_le_bytes());
        let file = world.disk.open(segment, OpenMode::Write).unwrap();
        file.pwrite(&header, 0).unwrap();
        file.fdatasync().unwrap();
    };
    set(2);
    let before = world.disk.content(segment);
    let refused = world.try_open().unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidState, "{refused}");
    let sentence = "was written by a newer acb-server (segment version 2, this one reads 1)";
    assert!(refused.to_string().contains(sentence), "{refused}");
    assert_eq!(world.disk.content(segment), before, "and is not touched");
    set(1);
    assert_eq!(payloads(&read_all(&world.log(), 1, &["a"])), ["1"]);
}
