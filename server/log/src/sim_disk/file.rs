//! Files: what a reader sees, what is durable, and which sectors wait for a sync.

use std::{
    collections::BTreeMap,
    io::{self, IoSlice},
    path::PathBuf,
};

use super::{Event, FaultOn, SimDisk, State, not_found};
use crate::disk::DiskFile;

/// What a power cut keeps or loses as a whole.
pub(super) const SECTOR: u64 = 512;

#[derive(Debug, Default)]
pub(super) struct FileData {
    pub(super) path: PathBuf,
    pub(super) live: Vec<u8>,
    pub(super) durable: Vec<u8>,
    /// Unsynced sectors, and which of their bytes were written.
    pub(super) dirty: BTreeMap<u64, (u64, u64)>,
    /// Where it was cut off since the last sync: nothing beyond that is what it was.
    pub(super) cut: Option<u64>,
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

    pub(super) fn truncate(&mut self, len: u64) {
        if len >= self.live.len() as u64 {
            return self.live.resize(len as usize, 0);
        }
        self.live.truncate(len as usize);
        self.cut = Some(self.cut.map_or(len, |cut| cut.min(len)));
        self.dirty.retain(|sector, (from, to)| {
            *to = (*to).min(len.saturating_sub(sector * SECTOR));
            *from < *to
        });
    }

    fn settle(&mut self, sector: u64, (from, to): (u64, u64)) {
        let (from, to) = ((sector * SECTOR + from) as usize, (sector * SECTOR + to) as usize);
        self.durable[from..to].copy_from_slice(&self.live[from..to]);
    }
}

#[derive(Debug)]
pub(super) struct SimFile {
    pub(super) disk: SimDisk,
    pub(super) id: u64,
    pub(super) life: u64,
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

impl DiskFile for SimFile {
    fn pwrite(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.pass(FaultOn::Write);
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
        self.disk.pass(FaultOn::Allocate);
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
        self.disk.pass(FaultOn::Sync);
        self.with(|s| {
            s.counts.syncs += 1;
            if s.loses_syncs {
                return Ok(());
            }
            let verdict = s.check(&[FaultOn::Sync]);
            let luck = s.random();
            let file = s.files.get_mut(&self.id).ok_or_else(not_found)?;
            if let Some(len) = file.cut.take() {
                file.durable.truncate(len as usize);
            }
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

    fn start_writeback(&self, offset: u64, len: u64) {
        // Nothing of it is durable: what a power cut keeps of unsynced sectors is random with or without it.
        let _ = self.with(|s| {
            let path = s.files[&self.id].path.clone();
            s.note(|| Event::WriteBack { path, offset, len });
            Ok(())
        });
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
