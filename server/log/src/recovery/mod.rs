//! Opening a log: what is on disk, where it ends, and what must be mended before anything new is written.
//!
//! The order of things: sealed segments with a good sidecar are believed (the sidecar was written after their sync);
//! the rest is read batch by batch. The first break is the end of the log, unless something says that bytes behind it
//! had been synced: then it is damage, and the log does not open. Every batch carries the position that was known to be
//! synced when it was written, so batches behind a break are looked at too, for that one number only; they are never
//! taken back.

mod folder;
mod memory;
mod segment;
mod settle;
mod tail;

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use acb_types::{ErrorCode, PartitionId, Timestamp};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use self::segment::{Read, Walk};
pub(crate) use self::{segment::rebuild_index, settle::Settle};
use crate::{
    batch::Kind,
    disk::Disk,
    error::{LogError, Result},
    log::{Active, Log, Snapshots},
    options::LogOptions,
    planted::{self, Bug},
    record::Opening,
    segment::{BODY_START, Pos},
    shared::{Index, Segment, Shared, Tenant},
    write::Arena,
};

/// A log that was opened.
#[derive(Debug)]
pub struct OpenedLog {
    /// The log.
    pub log: Log,
    /// State records: those of the last complete snapshot, then all since it began, in order.
    pub state: Vec<Bytes>,
}

/// Opens the log of a folder, making it when it is absent.
pub(crate) fn open(
    id: &PartitionId,
    dir: PathBuf,
    tenant: Arc<Tenant>,
    options: LogOptions,
    now: Timestamp,
) -> Result<OpenedLog> {
    Opener { id: id.clone(), dir, tenant, options, now }.open()
}

struct Opener {
    id: PartitionId,
    dir: PathBuf,
    tenant: Arc<Tenant>,
    options: LogOptions,
    now: Timestamp,
}

impl Opener {
    fn disk(&self) -> &dyn Disk {
        &*self.tenant.disk
    }

    fn io(&self, e: io::Error) -> LogError {
        LogError::io("log.open", format_args!("opening {}", self.id), e)
    }

    fn damaged(&self, path: &Path, offset: u32, what: impl std::fmt::Display) -> LogError {
        let message = format!(
            "{} is damaged at byte {offset} of {}: {what}, but what follows says that it had been synced; run \
             `acb-server check` on the data folder, which salvages what is readable into a copy",
            self.id,
            path.display()
        );
        LogError::new(ErrorCode::DataDamaged, "log.open", message)
    }

    fn open(self) -> Result<OpenedLog> {
        let mut remove = Vec::new();
        let (files, sidecars, orphans) = self.list(&mut remove)?;
        let tail_start = sidecars.iter().rposition(Option::is_some).map_or(0, |i| i + 1);
        let mut walk =
            Walk { epoch: 0, next_seq: 1, synced: Pos::default(), last: None, reserve: self.options.seq_reserve };
        let mut reads: BTreeMap<usize, Read> = BTreeMap::new();
        for i in 0..tail_start {
            match &sidecars[i] {
                Some(s) => {
                    walk.epoch = s.summary.epoch;
                    walk.next_seq = s.summary.end_seq;
                    walk.synced = walk.synced.max(s.summary.synced);
                    walk.last = Some(Kind::Seal);
                }
                None => {
                    // A later segment has a sidecar, so this one had been synced whole.
                    reads.insert(i, self.read_sealed(&files[i], &mut walk)?);
                }
            }
        }
        if let Some(last) = tail_start.checked_sub(1) {
            walk.synced = walk.synced.max(Pos::new(files[last].ident.number + 1, BODY_START));
        }
        let end = self.read_tail(&files, tail_start, &mut walk, &mut reads)?;
        let clean = walk.last == Some(Kind::Close) && !end.more;
        let state = self.state(&files, &sidecars, &mut reads, end.segments)?;
        let (live, sealed) = self.producers(&files, &sidecars, &orphans, &reads, tail_start, end.segments)?;
        let keys = self.keys(&files, &sidecars, &orphans, &reads, end.segments)?;
        let retire = files[end.segments..].iter().rev().map(|f| (f.path.clone(), f.size, f.ident.generation)).collect();

        let opening = match (files.is_empty() || walk.last.is_none(), clean) {
            (true, _) => Opening::New,
            (false, true) => Opening::Clean,
            (false, false) => Opening::Unclean,
        };
        let found_end = walk.next_seq;
        let jump = if planted::is(Bug::ReuseSeq) { 0 } else { walk.reserve };
        let (epoch, next_seq) = match opening {
            Opening::New => (1, 1),
            Opening::Clean => (walk.epoch, found_end),
            Opening::Unclean => (walk.epoch + 1, found_end + jump),
        };
        let settle = Settle { zero: end.zero, remove, retire, opening, found_end };

        let shared = Shared::new(self.id.clone(), self.dir.clone(), Arc::clone(&self.tenant), self.options, sealed);
        let mut used = 0;
        let mut unsynced = VecDeque::new();
        let mut active = None;
        for (i, found) in files.iter().take(end.segments).enumerate() {
            let (index, open, pinned) = match (reads.remove(&i), &sidecars[i]) {
                (Some(read), _) if !read.sealed => (Index::Active(Box::new(read.index)), true, true),
                (Some(read), _) => (Index::Memory(Arc::new(read.index)), false, true),
                (None, Some(sidecar)) => (Index::Sidecar(Arc::new(*sidecar)), false, false),
                (None, None) => continue,
            };
            let waits = matches!(index, Index::Memory(_));
            let segment = Arc::new(Segment {
                ident: found.ident,
                path: found.path.clone(),
                size: found.size,
                index: RwLock::new(index),
                fresh: false,
                pinned: Mutex::new(pinned.then(|| Arc::clone(&found.file))),
            });
            used += u64::from(segment.summary().end);
            if open {
                active = Some(Active { segment: Arc::clone(&segment), file: Arc::clone(&found.file) });
            }
            if waits {
                unsynced.push_back(Arc::clone(&segment));
            }
            shared.segments.write().push_back(segment);
        }
        shared.spares.lock().next_number = end.tail.segment + u32::from(active.is_some());
        // A segment that began after the last complete snapshot still wants one.
        let first = files.first().map_or(1, |f| f.ident.number);
        let wanted = opening != Opening::New && end.tail.segment > state.guard.map_or(first, |g| g.segment);
        let snapshots = Snapshots { synced: state.guard, wanted, ..Snapshots::default() };
        let mut log = Log {
            shared: Arc::new(shared),
            active,
            tail: end.tail,
            epoch,
            next_seq,
            written_seq: found_end,
            synced_seq: found_end,
            synced: walk.synced.min(end.tail),
            staged: Vec::new(),
            staged_bytes: 0,
            used,
            retained_at: 0,
            producers: live,
            keys,
            snapshots,
            failed: None,
            closed: false,
            settle: Some(settle),
            arena: Arena::default(),
            unsynced,
            leaving: VecDeque::new(),
            orphans,
            mark: None,
        };
        log.find_first();
        log.publish();
        match log.settle_now() {
            Err(e) if !e.heals() => return Err(e),
            // A full or read-only disk: the log can be read, and appends try again.
            Ok(()) | Err(_) => {}
        }
        Ok(OpenedLog { log, state: state.records })
    }
}
