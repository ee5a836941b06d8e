//! A disk for tests, in memory. It remembers for good only what was synced, fails on demand, counts, and keeps a trace.
//!
//! What it believes of real disks, and what it does not:
//! - A power cut keeps a random part of the unsynced 512-byte sectors, and may flip bits in what was written to them.
//!   Bytes of a sector that were synced before and not written since stay as they were ("power-safe overwrite", which
//!   SQLite assumes as well).
//! - Names are durable after a sync of each folder that an operation touched; a rename is atomic; of the rest a random
//!   part survives.
//! - After a failed `fdatasync` the written pages count as clean although some never reached the disk: a second
//!   `fdatasync` succeeds and saves nothing, reads still show the new bytes, and the next power cut, or dropping what
//!   is cached, takes them (Linux).

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    io::IoSlice,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::disk::{DirEntry, Disk, DiskFile, DiskLock, OpenMode};

const SECTOR: u64 = 512;

/// A small seeded generator (SplitMix64): the same seed gives the same run everywhere.
#[derive(Clone, Debug)]
pub struct SimRng(u64);

impl SimRng {
    /// One for a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 when `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.next_u64() % n }
    }

    /// True `numerator` times out of `denominator`.
    pub fn chance(&mut self, numerator: u64, denominator: u64) -> bool {
        self.below(denominator) < numerator
    }
}

/// What a planned failure hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultOn {
    /// Writing into files.
    Write,
    /// Writing, allocating, making, renaming and removing: all that a full or read-only disk refuses.
    Change,
    /// Giving a file its blocks, and making files.
    Allocate,
    /// `fdatasync`.
    Sync,
    /// Reading from files.
    Read,
}

/// A planned failure.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// What it hits.
    pub on: FaultOn,
    /// What the system says, such as `libc::ENOSPC`.
    pub errno: i32,
    /// How many such operations pass first.
    pub after: u64,
    /// How many fail then.
    pub times: u64,
}

/// What the disk was asked to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Bytes were written.
    Write {
        /// Into this file.
        path: PathBuf,
        /// From here.
        offset: u64,
        /// So many.
        len: u64,
    },
    /// A file was synced.
    Sync {
        /// This file.
        path: PathBuf,
    },
    /// A folder was synced.
    SyncDir {
        /// This folder.
        path: PathBuf,
    },
    /// A name changed.
    Rename {
        /// From this.
        from: PathBuf,
        /// To this.
        to: PathBuf,
    },
    /// A file was removed.
    Remove {
        /// This file.
        path: PathBuf,
    },
}

/// How often and how much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls that wrote.
    pub writes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Calls that read.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// `fdatasync`s.
    pub syncs: u64,
}

#[derive(Debug, Default)]
struct FileData {
    path: PathBuf,
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Unsynced sectors, and which of their bytes were written.
    dirty: BTreeMap<u64, (u64, u64)>,
}

#[derive(Clone, Debug)]
enum NameOp {
    Create(PathBuf, u64),
    Mkdir(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

#[derive(Clone, Debug)]
struct Pending {
    op: NameOp,
    waits_for: BTreeSet<PathBuf>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<u64, FileData>,
    names: BTreeMap<PathBuf, u64>,
    dirs: BTreeSet<PathBuf>,
    durable_names: BTreeMap<PathBuf, u64>,
    durable_dirs: BTreeSet<PathBuf>,
    pending: Vec<Pending>,
    locks: BTreeMap<PathBuf, (u64, String)>,
    faults: Vec<Fault>,
    counts: Counts,
    trace: Option<Vec<Event>>,
    /// Handles of earlier lives are dead.
    life: u64,
    last_id: u64,
    rng: Option<SimRng>,
}

/// A disk for tests; see the module. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk(Arc<Mutex<State>>);

impl SimDisk {
    /// An empty disk. The seed drives its entropy and how much of a failing write arrives.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State { rng: Some(SimRng::new(seed)), ..State::default() })))
    }

    /// The same disk as a trait object.
    pub fn shared(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    /// Plans a failure.
    pub fn inject(&self, fault: Fault) {
        self.0.lock().faults.push(fault);
    }

    /// Every operation of this kind fails from now on, until [`Self::heal`].
    pub fn fail(&self, on: FaultOn, errno: i32) {
        self.inject(Fault { on, errno, after: 0, times: u64::MAX });
    }

    /// Takes all planned failures away.
    pub fn heal(&self) {
        self.0.lock().faults.clear();
    }

    /// What was done since the disk was made, or since the last call of [`Self::reset_counts`].
    pub fn counts(&self) -> Counts {
        self.0.lock().counts
    }

    /// Starts counting anew.
    pub fn reset_counts(&self) {
        self.0.lock().counts = Counts::default();
    }

    /// Starts a trace, or a new one.
    pub fn start_trace(&self) {
        self.0.lock().trace = Some(Vec::new());
    }

    /// Ends the trace and gives it.
    pub fn take_trace(&self) -> Vec<Event> {
        self.0.lock().trace.take().unwrap_or_default()
    }

    /// The process dies: its handles and locks are gone, everything it wrote is still there.
    pub fn kill(&self) {
        let mut s = self.0.lock();
        s.life += 1;
        s.locks.clear();
    }

    /// The power goes: what was synced stays, of the rest a random part does.
    pub fn power_cut(&self, rng: &mut SimRng) {
        let mut s = self.0.lock();
        s.life += 1;
        s.locks.clear();
        // Some cuts keep nearly all, some nearly nothing.
        let keep = rng.below(5);
        for p in std::mem::take(&mut s.pending) {
            if rng.chance(keep, 4) {
                s.apply(&p.op);
            }
        }
        let dirs = s.durable_dirs.clone();
        let present = |path: &Path| {
            path.ancestors().skip(1).all(|a| a.as_os_str().is_empty() || a == Path::new("/") || dirs.contains(a))
        };
        s.durable_names.retain(|path, _| present(path));
        s.dirs = dirs.iter().filter(|d| present(d)).cloned().collect();
        s.durable_dirs = s.dirs.clone();
        s.names = s.durable_names.clone();
        let named: BTreeMap<u64, PathBuf> = s.names.iter().map(|(p, id)| (*id, p.clone())).collect();
        s.files.retain(|id, _| named.contains_key(id));
        let flips = rng.chance(1, 3);
        for (id, file) in &mut s.files {
            file.path.clone_from(&named[id]);
            for (sector, (from, to)) in std::mem::take(&mut file.dirty) {
                if !rng.chance(keep, 4) {
                    continue;
                }
                let (from, to) = ((sector * SECTOR + from) as usize, (sector * SECTOR + to) as usize);
                let to = to.min(file.live.len());
                if file.durable.len() < to {
                    file.durable.resize(to, 0);
                }
                file.durable[from..to].copy_from_slice(&file.live[from..to]);
                if flips && rng.chance(1, 8) {
                    let at = from + rng.below((to - from) as u64) as usize;
                    file.durable[at] ^= 1 << rng.below(8);
                }
            }
            file.live.clone_from(&file.durable);
        }
    }

    /// Flips bits of one byte for good, as a failing disk does.
    ///
    /// # Panics
    /// When there is no such byte.
    pub fn corrupt(&self, path: &Path, offset: u64, mask: u8) {
        let mut s = self.0.lock();
        let id = s.names[path];
        let file = s.files.get_mut(&id).expect("a name has a file");
        file.live[offset as usize] ^= mask;
        if let Some(byte) = file.durable.get_mut(offset as usize) {
            *byte ^= mask;
        }
    }

    /// A file's bytes as a reader sees them now.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let s = self.0.lock();
        s.names.get(path).map(|id| s.files[id].live.clone())
    }

    /// All files, in order.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.0.lock().names.keys().cloned().collect()
    }
}

impl State {
    fn check(&mut self, kinds: &[FaultOn]) -> io::Result<()> {
        for fault in &mut self.faults {
            if !kinds.contains(&fault.on) || fault.times == 0 {
                continue;
            }
            if fault.after > 0 {
                fault.after -= 1;
            } else {
                fault.times -= 1;
                return Err(io::Error::from_raw_os_error(fault.errno));
            }
        }
        Ok(())
    }

    fn note(&mut self, event: impl FnOnce() -> Event) {
        if let Some(trace) = &mut self.trace {
            trace.push(event());
        }
    }

    fn random(&mut self) -> u64 {
        self.rng.as_mut().map_or(0, SimRng::next_u64)
    }

    fn submit(&mut self, op: NameOp, dirs: &[&Path]) {
        let waits_for = dirs.iter().filter_map(|p| p.parent()).map(Path::to_path_buf).collect();
        self.pending.push(Pending { op, waits_for });
    }

    /// Carries an operation over to the durable names.
    fn apply(&mut self, op: &NameOp) {
        match op {
            NameOp::Create(path, id) => {
                self.durable_names.insert(path.clone(), *id);
            }
            NameOp::Mkdir(path) => {
                self.durable_dirs.insert(path.clone());
            }
            NameOp::Rename(from, to) => {
                if let Some(id) = self.durable_names.remove(from) {
                    self.durable_names.insert(to.clone(), id);
                }
            }
            NameOp::Remove(path) => {
                self.durable_names.remove(path);
            }
        }
    }
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for SimDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut s = self.0.lock();
        let missing: Vec<PathBuf> = path
            .ancestors()
            .filter(|a| !a.as_os_str().is_empty() && *a != Path::new("/") && !s.dirs.contains(*a))
            .map(Path::to_path_buf)
            .collect();
        for dir in missing.into_iter().rev() {
            s.check(&[FaultOn::Change, FaultOn::Allocate])?;
            s.submit(NameOp::Mkdir(dir.clone()), &[&dir]);
            s.dirs.insert(dir);
        }
        Ok(())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut s = self.0.lock();
        let id = match (s.names.get(path), mode) {
            (Some(_), OpenMode::Create) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(id), _) => *id,
            (None, OpenMode::Create) => {
                s.check(&[FaultOn::Change, FaultOn::Allocate])?;
                if !path.parent().is_some_and(|p| s.dirs.contains(p)) {
                    return Err(not_found());
                }
                s.last_id += 1;
                let id = s.last_id;
                s.files.insert(id, FileData { path: path.to_path_buf(), ..FileData::default() });
                s.names.insert(path.to_path_buf(), id);
                s.submit(NameOp::Create(path.to_path_buf(), id), &[path]);
                id
            }
            (None, _) => return Err(not_found()),
        };
        Ok(Arc::new(SimFile { disk: self.clone(), id, life: s.life }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut s = self.0.lock();
        s.check(&[FaultOn::Change])?;
        let id = s.names.remove(from).ok_or_else(not_found)?;
        s.names.insert(to.to_path_buf(), id);
        if let Some(file) = s.files.get_mut(&id) {
            file.path = to.to_path_buf();
        }
        s.submit(NameOp::Rename(from.to_path_buf(), to.to_path_buf()), &[from, to]);
        s.note(|| Event::Rename { from: from.to_path_buf(), to: to.to_path_buf() });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut s = self.0.lock();
        s.check(&[FaultOn::Change])?;
        if s.names.remove(path).is_some() {
            s.submit(NameOp::Remove(path.to_path_buf()), &[path]);
            s.note(|| Event::Remove { path: path.to_path_buf() });
        }
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut s = self.0.lock();
        s.check(&[FaultOn::Change])?;
        let gone: Vec<PathBuf> = s.names.keys().filter(|p| p.starts_with(path)).cloned().collect();
        for p in gone {
            s.names.remove(&p);
            s.durable_names.remove(&p);
        }
        s.dirs.retain(|d| !d.starts_with(path));
        s.durable_dirs.retain(|d| !d.starts_with(path));
        s.pending.retain(|p| match &p.op {
            NameOp::Create(at, _) | NameOp::Mkdir(at) | NameOp::Remove(at) => !at.starts_with(path),
            NameOp::Rename(from, to) => !from.starts_with(path) && !to.starts_with(path),
        });
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let s = self.0.lock();
        let here =
            |p: &PathBuf| (p.parent() == Some(path)).then(|| p.file_name()?.to_str().map(str::to_owned)).flatten();
        let files = s.names.keys().filter_map(here).map(|name| DirEntry { name, is_dir: false });
        let dirs = s.dirs.iter().filter_map(here).map(|name| DirEntry { name, is_dir: true });
        let mut out: Vec<DirEntry> = files.chain(dirs).collect();
        out.sort();
        Ok(out)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut s = self.0.lock();
        s.check(&[FaultOn::Sync])?;
        s.note(|| Event::SyncDir { path: path.to_path_buf() });
        for mut p in std::mem::take(&mut s.pending) {
            p.waits_for.remove(path);
            if p.waits_for.is_empty() {
                s.apply(&p.op);
            } else {
                s.pending.push(p);
            }
        }
        Ok(())
    }

    fn lock(&self, path: &Path, content: &str) -> io::Result<Box<dyn DiskLock>> {
        let mut s = self.0.lock();
        if let Some((_, holder)) = s.locks.get(path) {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, holder.clone()));
        }
        let life = s.life;
        s.locks.insert(path.to_path_buf(), (life, content.to_owned()));
        Ok(Box::new(SimLock { disk: self.clone(), path: path.to_path_buf(), life }))
    }

    fn entropy(&self) -> u64 {
        self.0.lock().random()
    }
}

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    path: PathBuf,
    life: u64,
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut s = self.disk.0.lock();
        if s.locks.get(&self.path).is_some_and(|(life, _)| *life == self.life) {
            s.locks.remove(&self.path);
        }
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    id: u64,
    life: u64,
}

impl SimFile {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut s = self.disk.0.lock();
        if s.life != self.life || !s.files.contains_key(&self.id) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        f(&mut s)
    }
}

impl FileData {
    fn put(&mut self, bytes: &[u8], offset: u64) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len() as u64;
        if (self.live.len() as u64) < end {
            self.live.resize(end as usize, 0);
        }
        self.live[offset as usize..end as usize].copy_from_slice(bytes);
        for sector in offset / SECTOR..end.div_ceil(SECTOR) {
            let from = offset.saturating_sub(sector * SECTOR);
            let to = (end - sector * SECTOR).min(SECTOR);
            let range = self.dirty.entry(sector).or_insert((from, to));
            *range = (range.0.min(from), range.1.max(to));
        }
    }

    fn settle(&mut self, sector: u64, (from, to): (u64, u64)) {
        let (from, to) = ((sector * SECTOR + from) as usize, (sector * SECTOR + to) as usize);
        self.durable[from..to].copy_from_slice(&self.live[from..to]);
    }
}

impl DiskFile for SimFile {
    fn pwrite(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.with(|s| {
            let verdict = s.check(&[FaultOn::Write, FaultOn::Change]);
            let arrives = match &verdict {
                Ok(()) => bytes.len(),
                // A failing write leaves any part of itself behind.
                Err(_) => (s.random() % (bytes.len() as u64 + 1)) as usize,
            };
            s.counts.writes += 1;
            s.counts.written_bytes += arrives as u64;
            let file = s.files.get_mut(&self.id).ok_or_else(not_found)?;
            file.put(&bytes[..arrives], offset);
            let path = file.path.clone();
            s.note(|| Event::Write { path, offset, len: arrives as u64 });
            verdict
        })
    }

    fn pwritev(&self, slices: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        let all: Vec<u8> = slices.iter().flat_map(|s| s.iter().copied()).collect();
        self.pwrite(&all, offset)
    }

    fn pread(&self, into: &mut Vec<u8>, len: usize, offset: u64) -> io::Result<usize> {
        self.with(|s| {
            s.check(&[FaultOn::Read])?;
            let file = &s.files[&self.id];
            let from = (offset as usize).min(file.live.len());
            let to = (from + len).min(file.live.len());
            into.extend_from_slice(&file.live[from..to]);
            s.counts.reads += 1;
            s.counts.read_bytes += (to - from) as u64;
            Ok(to - from)
        })
    }

    fn fallocate(&self, len: u64) -> io::Result<()> {
        self.with(|s| {
            s.check(&[FaultOn::Allocate, FaultOn::Change])?;
            let file = s.files.get_mut(&self.id).ok_or_else(not_found)?;
            if (file.live.len() as u64) < len {
                file.live.resize(len as usize, 0);
            }
            Ok(())
        })
    }

    fn fdatasync(&self) -> io::Result<()> {
        self.with(|s| {
            s.counts.syncs += 1;
            let verdict = s.check(&[FaultOn::Sync]);
            let luck = s.random();
            let file = s.files.get_mut(&self.id).ok_or_else(not_found)?;
            file.durable.resize(file.live.len(), 0);
            for (i, (sector, range)) in std::mem::take(&mut file.dirty).into_iter().enumerate() {
                if verdict.is_ok() || luck >> (i % 64) & 1 == 1 {
                    file.settle(sector, range);
                }
            }
            let path = file.path.clone();
            if verdict.is_ok() {
                s.note(|| Event::Sync { path });
            }
            verdict
        })
    }

    fn forget_cached(&self, offset: u64, len: u64) -> io::Result<()> {
        self.with(|s| {
            let file = s.files.get_mut(&self.id).ok_or_else(not_found)?;
            let end = (offset + len).min(file.live.len() as u64);
            for at in offset..end {
                let dirty =
                    file.dirty.get(&(at / SECTOR)).is_some_and(|(from, to)| (*from..*to).contains(&(at % SECTOR)));
                if !dirty {
                    file.live[at as usize] = file.durable.get(at as usize).copied().unwrap_or(0);
                }
            }
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|s| Ok(s.files[&self.id].live.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
