//! Power cuts under contexts and uploads: `ACB_POWER_ROUNDS` rounds from `ACB_CRASH_SEED`, or by chance.

use std::{
    io::{self, IoSlice},
    path::Path,
    sync::Arc,
};

use acb_crash::power::play;
use acb_log::{
    Disk, DiskFile,
    disk::{DirEntry, DiskLock, OpenMode},
};

/// Rounds when nobody says how many.
const ROUNDS: u64 = 8;
/// Rounds in which a disk that lies must be found out.
const ROUNDS_OF_LIES: u64 = 8;

fn asked(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

fn first_seed() -> u64 {
    asked("ACB_CRASH_SEED").unwrap_or_else(|| u64::from(rand::random::<u32>()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_revision_and_no_chunk_is_lost_when_the_power_goes_under_writers_watchers_and_uploads() {
    let (first, rounds) = (first_seed(), asked("ACB_POWER_ROUNDS").unwrap_or(ROUNDS));
    let mut resumed = 0;
    for seed in first..first + rounds {
        println!("round of seed {seed} (again: ACB_CRASH_SEED={seed} ACB_POWER_ROUNDS=1)");
        let found = play(seed, |disk| disk).await.unwrap();
        println!("  {found:?}");
        assert!(found.revisions > 0 && found.contents > 0 && found.uploads > 0 && found.orphans > 0, "{found:?}");
        resumed += found.resumed;
    }
    assert!(resumed > 0, "no cut met an upload: these rounds prove nothing of chunks");
}

/// A disk that says yes to every sync and does none.
#[derive(Debug)]
struct Lies<T: ?Sized>(Arc<T>);

impl Disk for Lies<dyn Disk> {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir_all(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(Lies(self.0.open(path, mode)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.remove_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.0.list(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.sync_dir(path)
    }

    fn lock(&self, path: &Path, content: &str) -> io::Result<Box<dyn DiskLock>> {
        self.0.lock(path, content)
    }

    fn entropy(&self) -> u64 {
        self.0.entropy()
    }
}

impl DiskFile for Lies<dyn DiskFile> {
    fn pwrite(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.pwrite(bytes, offset)
    }

    fn pwritev(&self, slices: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.0.pwritev(slices, offset)
    }

    fn pread(&self, into: &mut Vec<u8>, len: usize, offset: u64) -> io::Result<usize> {
        self.0.pread(into, len, offset)
    }

    fn fallocate(&self, len: u64) -> io::Result<()> {
        self.0.fallocate(len)
    }

    fn fdatasync(&self) -> io::Result<()> {
        Ok(())
    }

    fn forget_cached(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.forget_cached(offset, len)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_sync_is_found_out() {
    let first = first_seed();
    for seed in first..first + ROUNDS_OF_LIES {
        if let Err(found) = play(seed, |disk| Arc::new(Lies(disk))).await {
            println!("seed {seed}: {found:#}");
            return;
        }
    }
    panic!("{ROUNDS_OF_LIES} rounds from seed {first} saw nothing");
}
