//! Power cuts under contexts and uploads: the whole server in this process, its metadata and blobs on a disk that forgets
//! what was not synced.
//!
//! SQLite stands on that disk too, by a VFS of ours (`vfs`): its commits, its write-ahead log, its checkpoints and its
//! recovery are tried together with the order between rows and contents: no row before its bytes, no acknowledgement before
//! either. Rounds are drawn from a seed; how the server's threads meet in one is the machine's, so a seed finds again what
//! it found as often as not.

mod vfs;

use std::{io, path::Path, sync::Arc, time::Duration};

use acb_log::{
    Disk, DiskFile, SimDisk, SimRng,
    disk::{DirEntry, DiskLock, OpenMode},
};
use acb_ports::{BlobStore, MetadataStore, StoreError};
use acb_sdk::ClientBuilder;
use acb_store_embedded::{EmbeddedBlobs, SqliteConfig, SqliteMetadata};
use acb_testing::{FakeBus, Wrapping};
use anyhow::{Result, ensure};
use parking_lot::{Mutex, RwLock};

use crate::contexts::{Found, Place, round};

const ROOT: &str = "/data";
const METADATA: &str = "/data/metadata.sqlite";
/// So few pages that a round sees many checkpoints.
const CHECKPOINT_PAGES: u32 = 16;
/// SQLite's own size of a page.
const PAGE_BYTES: usize = 4096;

/// The disk under the bus, as the bus sees it.
#[derive(Debug)]
struct Power {
    disk: SimDisk,
    rng: Mutex<SimRng>,
    /// Whether the present life goes on. A thread of an earlier one reaches nothing any more: in this process nobody ends it.
    life: Mutex<Arc<RwLock<bool>>>,
}

impl Power {
    fn alive(&self) -> Arc<Alive> {
        Arc::new(Alive { disk: self.disk.clone(), life: Arc::clone(&self.life.lock()) })
    }
}

impl Wrapping for Power {
    fn metadata(&self, _: Arc<dyn MetadataStore>) -> Result<Arc<dyn MetadataStore>, StoreError> {
        let vfs = Some(vfs::register(self.alive()));
        let config = SqliteConfig { checkpoint_pages: CHECKPOINT_PAGES, vfs, ..SqliteConfig::new(METADATA) };
        Ok(Arc::new(SqliteMetadata::open(&config)?))
    }

    fn blobs(&self, _: Arc<dyn BlobStore>) -> Arc<dyn BlobStore> {
        Arc::new(EmbeddedBlobs::open(self.alive(), Path::new(ROOT)))
    }

    fn killed(&self) {
        let mut life = self.life.lock();
        let ended = std::mem::replace(&mut *life, Arc::new(RwLock::new(true)));
        let mut goes_on = ended.write();
        *goes_on = false;
        self.disk.power_cut(&mut self.rng.lock());
    }
}

/// The disk for one life. Open files end with it by themselves.
#[derive(Debug)]
struct Alive {
    disk: SimDisk,
    life: Arc<RwLock<bool>>,
}

impl Alive {
    fn now<T>(&self, work: impl FnOnce(&SimDisk) -> io::Result<T>) -> io::Result<T> {
        let goes_on = self.life.read();
        if *goes_on { work(&self.disk) } else { Err(io::Error::other("the power is gone")) }
    }

    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        self.now(|disk| disk.truncate(path, len))
    }
}

impl Disk for Alive {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.now(|disk| disk.create_dir_all(path))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        self.now(|disk| disk.open(path, mode))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.now(|disk| disk.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.now(|disk| disk.remove(path))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.now(|disk| disk.remove_dir_all(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.now(|disk| disk.list(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.now(|disk| disk.sync_dir(path))
    }

    fn lock(&self, path: &Path, content: &str) -> io::Result<Box<dyn DiskLock>> {
        self.now(|disk| disk.lock(path, content))
    }

    fn entropy(&self) -> u64 {
        self.disk.entropy()
    }
}

struct Cut {
    bus: FakeBus,
    disk: SimDisk,
}

impl Place for Cut {
    fn client(&self, agent: &str) -> ClientBuilder {
        self.bus.client(agent)
    }

    async fn strike(&mut self) -> Result<()> {
        Ok(self.bus.restart().await?)
    }

    async fn advance(&self, span: Duration) -> Result<()> {
        self.bus.advance(span)?;
        Ok(())
    }

    fn stages(&self) -> usize {
        self.disk.paths().iter().filter(|path| path.parent().is_some_and(|dir| dir.ends_with("stage"))).count()
    }
}

/// What a disk does when it is told to sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syncs {
    /// What it should.
    Kept,
    /// It says yes.
    Lost,
}

/// Plays a round.
///
/// # Errors
/// What did not hold.
pub async fn play(seed: u64, syncs: Syncs) -> Result<Found> {
    let disk = SimDisk::new(seed);
    // The data folder is there before anything is kept in it: the log makes it.
    disk.create_dir_all(Path::new(ROOT))?;
    disk.sync_dir(Path::new("/"))?;
    if syncs == Syncs::Lost {
        disk.lose_syncs();
    }
    let power = Power { disk: disk.clone(), rng: Mutex::new(SimRng::new(seed)), life: Mutex::default() };
    let bus = FakeBus::builder().wrapped(Arc::new(power)).start().await?;
    let found = round(seed, &mut Cut { bus, disk: disk.clone() }).await?;
    let pages = disk.content(Path::new(METADATA)).map_or(0, |bytes| bytes.len() / PAGE_BYTES);
    ensure!(
        pages > CHECKPOINT_PAGES as usize,
        "SQLite's file has {pages} pages: this round proves nothing of checkpoints"
    );
    Ok(found)
}
