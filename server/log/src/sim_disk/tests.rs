use std::{path::Path, sync::Arc};

use super::{Fault, FaultOn, SimDisk, SimRng};
use crate::disk::{Disk, DiskFile, OpenMode};

fn file(disk: &SimDisk) -> Arc<dyn DiskFile> {
    disk.create_dir_all(Path::new("/d")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    let f = disk.open(Path::new("/d/f"), OpenMode::Create).unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    f
}

#[test]
fn a_power_cut_keeps_what_was_synced_and_a_kill_keeps_all() {
    for seed in 0..200 {
        let disk = SimDisk::new(seed);
        let f = file(&disk);
        f.pwrite(&[1; 700], 0).unwrap();
        f.fdatasync().unwrap();
        f.pwrite(&[2; 5000], 700).unwrap();
        disk.kill();
        assert!(f.pwrite(&[9], 0).is_err(), "handles die with the process");
        let killed = disk.content(Path::new("/d/f")).unwrap();
        assert_eq!((killed[699], killed[700], killed.len()), (1, 2, 5700));
        disk.power_cut(&mut SimRng::new(seed));
        let cut = disk.content(Path::new("/d/f")).unwrap();
        assert_eq!(cut[..700], [1; 700], "seed {seed}");
    }
}

#[test]
fn a_file_that_was_cut_off_is_whole_again_after_a_power_cut_unless_that_was_synced() {
    let path = Path::new("/d/f");
    let (mut whole, mut short) = (0, 0);
    for seed in 0..100 {
        let disk = SimDisk::new(seed);
        let f = file(&disk);
        f.pwrite(&[1; 2000], 0).unwrap();
        f.fdatasync().unwrap();
        disk.truncate(path, 600).unwrap();
        assert_eq!(disk.content(path).unwrap(), [1; 600]);
        disk.power_cut(&mut SimRng::new(seed));
        match disk.content(path).unwrap().len() {
            2000 => whole += 1,
            600 => short += 1,
            other => panic!("seed {seed}: {other} bytes"),
        }
        // What is written behind a cut shows nothing of what stood there before.
        let f = disk.open(path, OpenMode::Write).unwrap();
        disk.truncate(path, 100).unwrap();
        f.pwrite(&[2; 10], 300).unwrap();
        f.fdatasync().unwrap();
        disk.power_cut(&mut SimRng::new(seed));
        assert_eq!(disk.content(path).unwrap(), [&[1; 100][..], &[0; 200], &[2; 10]].concat(), "seed {seed}");
    }
    assert!(whole > 10 && short > 10, "{whole} whole, {short} short");
}

#[test]
fn power_cuts_lose_and_flip_something_sometimes() {
    let (mut lost, mut flipped, mut kept) = (0, 0, 0);
    for seed in 0..200 {
        let disk = SimDisk::new(seed);
        let f = file(&disk);
        f.pwrite(&[0xff; 4096], 0).unwrap();
        disk.power_cut(&mut SimRng::new(seed));
        let cut = disk.content(Path::new("/d/f")).unwrap();
        lost += usize::from(cut.len() < 4096 || cut.chunks(512).any(|c| c.iter().all(|b| *b == 0)));
        flipped += usize::from(cut.iter().any(|b| *b != 0 && *b != 0xff));
        kept += usize::from(cut == vec![0xff; 4096]);
    }
    assert!(lost > 50 && flipped > 10 && kept > 10, "lost {lost}, flipped {flipped}, kept {kept}");
}

#[test]
fn after_a_failed_sync_the_next_one_succeeds_and_saves_nothing() {
    let mut lost = 0;
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let f = file(&disk);
        disk.inject(Fault { on: FaultOn::Sync, errno: libc::EIO, after: 0, times: 1 });
        f.pwrite(&[1; 4096], 0).unwrap();
        assert!(f.fdatasync().is_err());
        f.fdatasync().unwrap();
        disk.power_cut(&mut SimRng::new(seed));
        lost += usize::from(disk.content(Path::new("/d/f")).unwrap() != vec![1; 4096]);
    }
    assert!(lost > 40, "only {lost} of 50 lost something");
}

#[test]
fn unsynced_names_may_vanish_and_synced_ones_stay() {
    let mut vanished = 0;
    for seed in 0..100 {
        let disk = SimDisk::new(seed);
        let f = file(&disk);
        f.fdatasync().unwrap();
        disk.rename(Path::new("/d/f"), Path::new("/d/g")).unwrap();
        disk.power_cut(&mut SimRng::new(seed));
        let names = disk.paths();
        assert_eq!(names.len(), 1, "a rename is atomic");
        vanished += usize::from(names[0] == Path::new("/d/f"));
    }
    assert!((10..90).contains(&vanished), "{vanished}");
}
