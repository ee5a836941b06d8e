//! A tenant's pool of segments that were written before. Writing into blocks that were written once is several times
//! cheaper than into fresh ones (ADR 0003), so retired segments are kept for the tenant's next ones, up to a bound.
//!
//! Old bytes stay in a recycled file. They can never be taken for new ones: a file's generation rises with each use,
//! and each use has its own secret checksum start.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::disk::{Disk, OpenMode};

const BLOCK: usize = 1024 * 1024;

/// Segments of a tenant that wait for their next use.
#[derive(Debug)]
pub struct SegmentPool {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    bytes_max: u64,
    files: Mutex<Files>,
}

#[derive(Debug, Default)]
struct Files {
    free: Vec<Free>,
    last: u32,
    made: bool,
}

/// A file of the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Free {
    pub(crate) path: PathBuf,
    pub(crate) size: u32,
    /// The generation of its last use.
    pub(crate) generation: u32,
}

impl SegmentPool {
    /// Opens a pool. What lies in the folder is free, whatever it holds.
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: PathBuf, bytes_max: u64) -> io::Result<Self> {
        let mut files = Files::default();
        for entry in disk.list(&dir)? {
            files.made = true;
            if let Some((number, free)) = parse(&dir, &entry.name) {
                files.last = files.last.max(number);
                files.free.push(free);
            }
        }
        files.made |= disk.list(dir.parent().unwrap_or(&dir))?.iter().any(|e| e.is_dir && dir.ends_with(&e.name));
        Ok(Self { disk, dir, bytes_max, files: Mutex::new(files) })
    }

    /// The pool's folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Takes a file of at least `size` bytes and at most `size_max`: the smallest that fits.
    pub(crate) fn take(&self, size: u32, size_max: u32) -> Option<Free> {
        let mut files = self.files.lock();
        let fits = files.free.iter().enumerate().filter(|(_, f)| (size..=size_max).contains(&f.size));
        let (i, _) = fits.min_by_key(|(_, f)| f.size)?;
        Some(files.free.swap_remove(i))
    }

    /// Keeps a retired segment for its next use, or removes it when the pool is full. Durable before the file can be
    /// given out: else a power cut could bring it back to its old log with new bytes in it.
    pub(crate) fn put(&self, path: &Path, size: u32, generation: u32) -> io::Result<()> {
        let mut files = self.files.lock();
        let held: u64 = files.free.iter().map(|f| u64::from(f.size)).sum();
        let from = path.parent().unwrap_or(path);
        if size == 0 || held + u64::from(size) > self.bytes_max {
            self.disk.remove(path)?;
            return self.disk.sync_dir(from);
        }
        self.make_dir(&mut files)?;
        let free = self.name(&mut files, size, generation);
        self.disk.rename(path, &free.path)?;
        self.disk.sync_dir(&self.dir)?;
        self.disk.sync_dir(from)?;
        files.free.push(free);
        Ok(())
    }

    /// Writes zeroes into new files until the pool holds `count` of `size` bytes, so that the first segments of a busy
    /// tenant are as cheap as later ones. Takes as long as the disk does; for idle times.
    ///
    /// # Errors
    /// What the disk says; the pool keeps what was finished.
    pub fn warm(&self, count: usize, size: u32) -> io::Result<()> {
        let zeroes = vec![0; BLOCK];
        loop {
            let free = {
                let mut files = self.files.lock();
                if files.free.iter().filter(|f| f.size >= size).count() >= count {
                    return Ok(());
                }
                self.make_dir(&mut files)?;
                self.name(&mut files, size, 0)
            };
            let file = self.disk.open(&free.path, OpenMode::Create)?;
            let fill = || {
                file.fallocate(u64::from(size))?;
                for at in (0..size).step_by(BLOCK) {
                    file.pwrite(&zeroes[..BLOCK.min((size - at) as usize)], u64::from(at))?;
                }
                file.fdatasync()
            };
            if let Err(e) = fill() {
                let _ = self.disk.remove(&free.path);
                return Err(e);
            }
            self.disk.sync_dir(&self.dir)?;
            self.files.lock().free.push(free);
        }
    }

    /// How many files wait, and their bytes.
    pub fn held(&self) -> (usize, u64) {
        let files = self.files.lock();
        (files.free.len(), files.free.iter().map(|f| u64::from(f.size)).sum())
    }

    fn make_dir(&self, files: &mut Files) -> io::Result<()> {
        if !files.made {
            self.disk.create_dir_all(&self.dir)?;
            self.disk.sync_dir(self.dir.parent().unwrap_or(&self.dir))?;
            files.made = true;
        }
        Ok(())
    }

    fn name(&self, files: &mut Files, size: u32, generation: u32) -> Free {
        files.last += 1;
        let name = format!("{:010}-{generation:08x}-{size:08x}.free", files.last);
        Free { path: self.dir.join(name), size, generation }
    }
}

fn parse(dir: &Path, name: &str) -> Option<(u32, Free)> {
    let stem = name.strip_suffix(".free")?;
    let mut parts = stem.split('-');
    let number = parts.next()?.parse().ok()?;
    let generation = u32::from_str_radix(parts.next()?, 16).ok()?;
    let size = u32::from_str_radix(parts.next()?, 16).ok()?;
    parts.next().is_none().then(|| (number, Free { path: dir.join(name), size, generation }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim_disk::SimDisk;

    fn pool(disk: &SimDisk) -> SegmentPool {
        disk.create_dir_all(Path::new("/t/log")).unwrap();
        SegmentPool::open(disk.shared(), "/t/pool".into(), 10_000).unwrap()
    }

    fn segment(disk: &SimDisk, name: &str, size: u64) -> PathBuf {
        let path = Path::new("/t/log").join(name);
        disk.open(&path, OpenMode::Create).unwrap().fallocate(size).unwrap();
        path
    }

    #[test]
    fn a_retired_segment_is_given_out_again_also_after_a_reopen() {
        let disk = SimDisk::new(1);
        let first = pool(&disk);
        first.put(&segment(&disk, "a", 4096), 4096, 7).unwrap();
        first.put(&segment(&disk, "b", 2048), 2048, 3).unwrap();
        for pool in [first, pool(&disk)] {
            assert_eq!(pool.held(), (2, 6144));
            assert_eq!(pool.take(4096, 8192).map(|f| (f.size, f.generation)), Some((4096, 7)));
            assert_eq!(pool.take(4096, 8192), None);
            assert_eq!(pool.take(1, 1024), None, "larger than wanted");
        }
    }

    #[test]
    fn a_full_pool_removes_what_it_is_given() {
        let disk = SimDisk::new(1);
        let pool = pool(&disk);
        for name in ["a", "b", "c"] {
            pool.put(&segment(&disk, name, 4096), 4096, 1).unwrap();
        }
        assert_eq!(pool.held(), (2, 8192));
        assert_eq!(disk.paths().len(), 2);
    }

    #[test]
    fn a_warm_pool_holds_files_that_were_written() {
        let disk = SimDisk::new(1);
        let pool = pool(&disk);
        disk.sync_dir(Path::new("/")).unwrap();
        disk.sync_dir(Path::new("/t")).unwrap();
        pool.warm(2, 4096).unwrap();
        pool.warm(2, 4096).unwrap();
        assert_eq!(pool.held(), (2, 8192));
        assert_eq!(disk.counts().written_bytes, 8192);
    }
}
