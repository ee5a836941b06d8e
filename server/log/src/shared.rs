//! What a log's writer, its readers and its chores share: the segments, their files and their indexes.

use std::{
    collections::VecDeque,
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use acb_types::{PartitionId, TenantId, position::Seq};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use crate::{
    cache::Lru,
    dedupe::{Budget, ProducerTable},
    disk::{Disk, DiskFile, OpenMode},
    options::LogOptions,
    postings::{MemIndex, Summary},
    recycle::SegmentPool,
    segment::{BODY_START, Ident, SegmentHeader},
    sidecar::{self, Section, Sidecar},
};

/// What is in memory of the sealed segments of all logs, bounded.
#[derive(Debug)]
pub(crate) struct Caches {
    /// Sections and long lists of sidecars: (log, segment, part).
    pub(crate) sections: Mutex<Lru<(u64, u32, u32), Bytes>>,
    /// Open files: (log, segment, whether it is the sidecar).
    #[expect(clippy::type_complexity, reason = "the key's parts are named above")]
    pub(crate) files: Mutex<Lru<(u64, u32, bool), Arc<dyn DiskFile>>>,
    next_log: AtomicU64,
}

impl Caches {
    pub(crate) fn new(section_bytes: u64, files: u64) -> Arc<Self> {
        Arc::new(Self {
            sections: Mutex::new(Lru::new(section_bytes)),
            files: Mutex::new(Lru::new(files)),
            next_log: AtomicU64::new(1),
        })
    }
}

/// What the logs of one tenant share: a pool of segments, and limits.
#[derive(Debug)]
pub struct Tenant {
    /// Whose it is.
    pub(crate) id: TenantId,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) pool: SegmentPool,
    pub(crate) keys: Arc<Budget>,
    pub(crate) producers: Arc<Budget>,
    pub(crate) caches: Arc<Caches>,
}

impl Tenant {
    /// The tenant's id.
    pub fn id(&self) -> &TenantId {
        &self.id
    }

    /// Segments that wait for their next use.
    pub fn pool(&self) -> &SegmentPool {
        &self.pool
    }

    /// Idempotency keys that are remembered over all of its open logs.
    pub fn keys(&self) -> usize {
        self.keys.used()
    }

    /// Producer sessions that are remembered over all of its open logs.
    pub fn producers(&self) -> usize {
        self.producers.used()
    }
}

/// A segment's index, wherever it is.
#[derive(Debug)]
pub(crate) enum Index {
    /// Of the segment that is written to.
    Active(Box<MemIndex>),
    /// Of a sealed segment whose sidecar is not written yet.
    Memory(Arc<MemIndex>),
    /// On disk.
    Sidecar(Arc<Sidecar>),
}

/// One segment of a log.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) ident: Ident,
    pub(crate) path: PathBuf,
    pub(crate) size: u32,
    pub(crate) index: RwLock<Index>,
    /// Whether its blocks were never written before its present use.
    pub(crate) fresh: bool,
    /// Held open while it is written to, synced or without a sidecar; later it is in the cache.
    pub(crate) pinned: Mutex<Option<Arc<dyn DiskFile>>>,
}

impl Segment {
    pub(crate) fn summary(&self) -> Summary {
        match &*self.index.read() {
            Index::Active(i) => i.summary,
            Index::Memory(i) => i.summary,
            Index::Sidecar(s) => s.summary,
        }
    }

    /// Nothing more will be written to it.
    pub(crate) fn seal(&self) {
        let mut index = self.index.write();
        if let Index::Active(active) = &mut *index {
            let sealed = std::mem::take(&mut **active);
            *index = Index::Memory(Arc::new(sealed));
        }
    }
}

/// Segments that were made ahead of their use.
#[derive(Debug)]
pub(crate) struct Spares {
    pub(crate) ready: VecDeque<Arc<Segment>>,
    /// Number of the next segment that is made.
    pub(crate) next_number: u32,
}

/// Work that no append waits for.
#[derive(Debug)]
pub(crate) enum Chore {
    /// Write the sidecar of a sealed and synced segment.
    Sidecar(Arc<Segment>),
    /// Make the next segment ahead.
    Spare { size: u32 },
    /// Write zeroes into a segment that was made ahead, from an offset on, a step at a time.
    Fill { segment: Arc<Segment>, from: u32 },
    /// Let the system bring those zeroes to the disk, from an offset on, a step at a time.
    WriteBack { segment: Arc<Segment>, from: u32 },
}

/// Zeroes that one round of chores writes ahead, or lets go to the disk. Small, because acknowledgements wait for the round.
const FILL_STEP: u32 = 256 * 1024;
/// A log's first segment up to this size is written as it is made.
const FILL_AT_ONCE: u32 = 1024 * 1024;

/// The table of producer sessions as the last sidecar has it.
#[derive(Debug)]
pub(crate) struct SealedProducers {
    pub(crate) table: ProducerTable,
    /// Number of the last segment that is in it.
    pub(crate) applied: u32,
}

/// What a log's parts share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) id: PartitionId,
    /// Key of this opening in the caches.
    pub(crate) uid: u64,
    pub(crate) dir: PathBuf,
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) options: LogOptions,
    /// In order of numbers.
    pub(crate) segments: RwLock<VecDeque<Arc<Segment>>>,
    /// Seqs below were trimmed.
    pub(crate) floor: AtomicU64,
    /// First message that is kept.
    pub(crate) first: AtomicU64,
    /// Readers may go up to here.
    pub(crate) written: AtomicU64,
    /// Bytes that readers took from files, indexes included.
    pub(crate) read_bytes: AtomicU64,
    pub(crate) spares: Mutex<Spares>,
    pub(crate) chores: Mutex<VecDeque<Chore>>,
    /// Set from when a spare is asked for until it is used, or could not be made.
    pub(crate) spare_asked: AtomicBool,
    pub(crate) sealed: Mutex<SealedProducers>,
    /// Files of segments whose making failed half way.
    litter: Mutex<Vec<PathBuf>>,
}

impl Shared {
    pub(crate) fn new(
        id: PartitionId,
        dir: PathBuf,
        tenant: Arc<Tenant>,
        options: LogOptions,
        sealed: SealedProducers,
    ) -> Self {
        Self {
            id,
            uid: tenant.caches.next_log.fetch_add(1, Ordering::Relaxed),
            dir,
            tenant,
            options,
            segments: RwLock::new(VecDeque::new()),
            floor: AtomicU64::new(1),
            first: AtomicU64::new(1),
            read_bytes: AtomicU64::new(0),
            written: AtomicU64::new(1),
            spares: Mutex::new(Spares { ready: VecDeque::new(), next_number: 1 }),
            chores: Mutex::new(VecDeque::new()),
            spare_asked: AtomicBool::new(false),
            sealed: Mutex::new(sealed),
            litter: Mutex::default(),
        }
    }

    pub(crate) fn disk(&self) -> &dyn Disk {
        &*self.tenant.disk
    }

    /// First message that is kept.
    pub(crate) fn first_seq(&self) -> Seq {
        self.first.load(Ordering::Acquire)
    }

    /// Everything below is handed to the operating system.
    pub(crate) fn written_seq(&self) -> Seq {
        self.written.load(Ordering::Acquire)
    }

    /// The segment of that number, if it is still there.
    pub(crate) fn segment(&self, number: u32) -> Option<Arc<Segment>> {
        let segments = self.segments.read();
        let first = segments.front()?.ident.number;
        segments.get(number.checked_sub(first)? as usize).cloned()
    }

    /// Whether this very segment is still part of the log.
    pub(crate) fn holds(&self, segment: &Segment) -> bool {
        self.segment(segment.ident.number).is_some_and(|s| s.ident == segment.ident)
    }

    /// A segment's file.
    pub(crate) fn file(&self, segment: &Segment) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = &*segment.pinned.lock() {
            return Ok(Arc::clone(file));
        }
        self.cached(segment, false, &segment.path)
    }

    fn sidecar_file(&self, segment: &Segment) -> io::Result<Arc<dyn DiskFile>> {
        self.cached(segment, true, &self.dir.join(segment.ident.sidecar_name()))
    }

    fn cached(&self, segment: &Segment, sidecar: bool, path: &std::path::Path) -> io::Result<Arc<dyn DiskFile>> {
        let key = (self.uid, segment.ident.number, sidecar);
        if let Some(file) = self.tenant.caches.files.lock().get(&key) {
            return Ok(file);
        }
        let file = self.disk().open(path, OpenMode::Read)?;
        self.tenant.caches.files.lock().put(key, Arc::clone(&file), 1);
        Ok(file)
    }

    /// A section of a segment's sidecar, from the cache where it is.
    pub(crate) fn section(&self, segment: &Segment, sidecar: &Sidecar, section: Section) -> io::Result<Bytes> {
        if sidecar.section_len(section) == 0 {
            return Ok(Bytes::new());
        }
        self.section_or(segment, section as u32, |file| sidecar.section(file, section))
    }

    /// A topic's list. Long ones are kept in the cache.
    pub(crate) fn list(&self, segment: &Segment, sidecar: &Sidecar, row: (u32, &sidecar::Row)) -> io::Result<Bytes> {
        if row.1.count <= sidecar::LONG_LIST {
            let list = sidecar.list(&*self.sidecar_file(segment)?, row.1).map(Bytes::from)?;
            self.count_read(list.len());
            return Ok(list);
        }
        self.section_or(segment, 16 + row.0, |file| sidecar.list(file, row.1))
    }

    fn section_or(
        &self,
        segment: &Segment,
        part: u32,
        load: impl FnOnce(&dyn DiskFile) -> io::Result<Vec<u8>>,
    ) -> io::Result<Bytes> {
        let key = (self.uid, segment.ident.number, part);
        if let Some(bytes) = self.tenant.caches.sections.lock().get(&key) {
            return Ok(bytes);
        }
        let bytes = Bytes::from(load(&*self.sidecar_file(segment)?)?);
        self.count_read(bytes.len());
        self.tenant.caches.sections.lock().put(key, bytes.clone(), bytes.len() as u64 + 64);
        Ok(bytes)
    }

    pub(crate) fn count_read(&self, bytes: usize) {
        self.read_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Forgets all that is cached of a segment.
    pub(crate) fn uncache(&self, number: u32) {
        self.tenant.caches.files.lock().remove_if(|(log, n, _)| *log == self.uid && *n == number);
        self.tenant.caches.sections.lock().remove_if(|(log, n, _)| *log == self.uid && *n == number);
    }

    /// Makes a segment, recycled or new, with its header on disk: no batch is written before that, so a batch of
    /// another use of the file can never be taken for one of this.
    pub(crate) fn make_segment(&self, number: u32, size: u32) -> io::Result<Arc<Segment>> {
        let disk = self.disk();
        {
            // A left-over would look like a second segment of its number, or like the log's beginning after a trim.
            let mut litter = self.litter.lock();
            while let Some(path) = litter.last() {
                disk.remove(path)?;
                disk.sync_dir(&self.dir)?;
                litter.pop();
            }
        }
        let salt = disk.entropy() as u32;
        let free = self.tenant.pool.take(size, self.options.segment_bytes_max.max(size));
        let (size, generation) = free.as_ref().map_or((size, 1), |f| (f.size, f.generation + 1));
        let ident = Ident { number, generation, salt };
        let path = self.dir.join(ident.file_name());
        let make = || {
            let file = match &free {
                Some(free) => {
                    disk.rename(&free.path, &path)?;
                    disk.sync_dir(self.tenant.pool.dir())?;
                    disk.sync_dir(&self.dir)?;
                    disk.open(&path, OpenMode::Write)?
                }
                None => disk.open(&path, OpenMode::Create)?,
            };
            file.fallocate(u64::from(size))?;
            let mut head = vec![0; BODY_START as usize];
            let header = SegmentHeader::new(ident, size, &self.id).encode();
            head[..header.len()].copy_from_slice(&header);
            file.pwrite(&head, 0)?;
            if free.is_none() && number == 1 && size <= FILL_AT_ONCE {
                zero(&*file, BODY_START, size)?;
            }
            file.fdatasync()?;
            disk.sync_dir(&self.dir)?;
            Ok(file)
        };
        match make() {
            Ok(file) => Ok(Arc::new(Segment {
                ident,
                path: path.clone(),
                size,
                index: RwLock::new(Index::Active(Box::new(MemIndex::new()))),
                fresh: free.is_none(),
                pinned: Mutex::new(Some(file)),
            })),
            Err(e) => {
                self.litter.lock().push(path);
                Err(e)
            }
        }
    }

    /// Writes the next zeroes of a segment that waits for its use, and answers what to do next. To write blocks for the
    /// first time makes the file system note each: a flush of a log that writes little at a time then costs several
    /// times as much, and holds up the writes beside it (measured: ADR 0003).
    fn fill_step(&self, segment: Arc<Segment>, from: u32) -> Option<Chore> {
        // Held for the step: nobody may begin to use the segment meanwhile.
        let mut spares = self.spares.lock();
        let at = spares.ready.iter().position(|s| Arc::ptr_eq(s, &segment))?;
        let to = from.saturating_add(FILL_STEP).min(segment.size);
        if self.file(&segment).and_then(|file| zero(&*file, from, to)).is_err() {
            // After a failed write nobody knows what is in it: another of its number is made when it is wanted.
            let gone = spares.ready.split_off(at);
            spares.next_number = segment.ident.number;
            self.spare_asked.store(false, Ordering::Relaxed);
            self.litter.lock().extend(gone.iter().map(|s| s.path.clone()));
            return None;
        }
        Some(if to < segment.size {
            Chore::Fill { segment, from: to }
        } else {
            Chore::WriteBack { segment, from: BODY_START }
        })
    }

    /// Lets the next zeroes of a filled segment go to the disk, and answers what to do next. A step at a time: all of them
    /// at once stand before the log's flushes for as long as the disk needs for a segment. Only when the segment is full,
    /// because a log that needs it sooner writes over its zeroes, and they would go to the disk for nothing. Nobody waits
    /// for them to arrive: what is not there yet reads as zeroes, too.
    fn write_back_step(&self, segment: Arc<Segment>, from: u32) -> Option<Chore> {
        if !self.spares.lock().ready.iter().any(|s| Arc::ptr_eq(s, &segment)) {
            return None;
        }
        let to = from.saturating_add(FILL_STEP).min(segment.size);
        self.file(&segment).ok()?.start_writeback(u64::from(from), u64::from(to - from));
        (to < segment.size).then_some(Chore::WriteBack { segment, from: to })
    }

    /// Works off what waits, each piece once. What fails waits for the next time: until then an index stays in memory.
    ///
    /// # Errors
    /// The first sidecar that could not be written.
    pub(crate) fn run_chores(&self) -> io::Result<()> {
        let mut result = Ok(());
        let waiting = std::mem::take(&mut *self.chores.lock());
        let mut later = VecDeque::new();
        for chore in waiting {
            match chore {
                Chore::Sidecar(segment) => {
                    // In order, because each holds what the ones before remember of doubles.
                    if result.is_ok() {
                        result = self.write_sidecar(&segment);
                    }
                    if result.is_err() {
                        later.push_back(Chore::Sidecar(segment));
                    }
                }
                Chore::Spare { size } => {
                    let mut spares = self.spares.lock();
                    if spares.ready.is_empty() {
                        match self.make_segment(spares.next_number, size) {
                            Ok(segment) => {
                                spares.next_number += 1;
                                spares.ready.push_back(Arc::clone(&segment));
                                if segment.fresh {
                                    later.push_back(Chore::Fill { segment, from: BODY_START });
                                }
                            }
                            // Whoever writes next asks again.
                            Err(_) => self.spare_asked.store(false, Ordering::Relaxed),
                        }
                    }
                }
                Chore::Fill { segment, from } => later.extend(self.fill_step(segment, from)),
                Chore::WriteBack { segment, from } => later.extend(self.write_back_step(segment, from)),
            }
        }
        let mut chores = self.chores.lock();
        while let Some(chore) = later.pop_back() {
            chores.push_front(chore);
        }
        result
    }

    fn write_sidecar(&self, segment: &Arc<Segment>) -> io::Result<()> {
        let index = match &*segment.index.read() {
            Index::Memory(index) => Arc::clone(index),
            _ => return Ok(()),
        };
        let number = segment.ident.number;
        let mut sealed = self.sealed.lock();
        if sealed.applied + 1 == number {
            for row in &index.producers {
                sealed.table.replay_row(row, index.summary.base_seq);
            }
            sealed.applied = number;
        }
        if !self.holds(segment) {
            return Ok(());
        }
        let full = sealed.applied == number && sealed.table.encoded_len() <= (segment.size / 4).max(1 << 20) as usize;
        let disk = self.disk();
        let path = self.dir.join(segment.ident.sidecar_name());
        let temporary = path.with_extension("tmp");
        disk.remove(&temporary)?;
        let file = disk.open(&temporary, OpenMode::Create)?;
        let written = sidecar::write(&*file, segment.ident, &index, full.then_some(&sealed.table))
            .and_then(|()| file.fdatasync())
            .and_then(|()| Sidecar::load(&*file, segment.ident))
            .and_then(|loaded| disk.rename(&temporary, &path).map(|()| loaded))
            .and_then(|loaded| disk.sync_dir(&self.dir).map(|()| loaded));
        match written {
            Ok(loaded) => {
                *segment.index.write() = Index::Sidecar(Arc::new(loaded));
                *segment.pinned.lock() = None;
                Ok(())
            }
            Err(e) => {
                let _ = disk.remove(&temporary);
                Err(e)
            }
        }
    }
}

/// Writes zeroes from one offset to another.
fn zero(file: &dyn DiskFile, from: u32, to: u32) -> io::Result<()> {
    static ZEROES: [u8; FILL_STEP as usize] = [0; FILL_STEP as usize];
    let mut at = from;
    while at < to {
        let len = (to - at).min(FILL_STEP);
        file.pwrite(&ZEROES[..len as usize], u64::from(at))?;
        at += len;
    }
    Ok(())
}
