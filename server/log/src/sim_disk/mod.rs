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

mod fault;
mod file;
mod names;
mod rng;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use self::{
    fault::Gate,
    file::{FileData, SECTOR, SimFile},
    names::{NameOp, Pending},
};
pub use self::{
    fault::{Counts, Event, Fault, FaultOn, Held},
    rng::SimRng,
};
use crate::disk::{DirEntry, Disk, DiskFile, DiskLock, OpenMode};

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
    gates: Vec<Arc<Gate>>,
    counts: Counts,
    trace: Option<Vec<Event>>,
    /// Whether syncs of files say yes and keep nothing.
    loses_syncs: bool,
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

    /// Every operation of this kind ([`FaultOn::Write`], [`FaultOn::Allocate`] of a file, or [`FaultOn::Sync`]) waits until
    /// what this answers is dropped. The disk does the others meanwhile.
    pub fn hold(&self, on: FaultOn) -> Held {
        let gate = Gate::new(on);
        self.0.lock().gates.push(Arc::clone(&gate));
        Held { disk: self.clone(), gate }
    }

    /// Waits where operations of this kind are held.
    fn pass(&self, on: FaultOn) {
        let gates: Vec<_> = self.0.lock().gates.iter().filter(|gate| gate.on == on).cloned().collect();
        gates.iter().for_each(|gate| gate.pass());
    }

    /// From now on a sync of a file says yes and keeps nothing: to see whether a checker would find out.
    pub fn lose_syncs(&self) {
        self.0.lock().loses_syncs = true;
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
            if let Some(len) = file.cut.take()
                && rng.chance(keep, 4)
            {
                file.durable.truncate(len as usize);
            }
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

    /// Cuts a file off at a length, as `ftruncate` does. Durable with its next sync.
    ///
    /// # Errors
    /// When there is no such file, and what is planned for changes.
    pub fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        let mut s = self.0.lock();
        s.check(&[FaultOn::Change])?;
        let id = *s.names.get(path).ok_or_else(not_found)?;
        s.files.get_mut(&id).ok_or_else(not_found)?.truncate(len);
        Ok(())
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
