//! Opening a log: what is on disk, where it ends, and what must be mended before anything new is written.
//!
//! The order of things: sealed segments with a good sidecar are believed (the sidecar was written after their sync);
//! the rest is read batch by batch. The first break is the end of the log, unless something says that bytes behind it
//! had been synced: then it is damage, and the log does not open. Every batch carries the position that was known to be
//! synced when it was written, so batches behind a break are looked at too, for that one number only; they are never
//! taken back.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use acb_types::{
    ErrorCode, PartitionId, Timestamp,
    batch::Keyed,
    frame::read_varint,
    position::{Epoch, Seq},
};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;

use crate::{
    batch::{Fault, Kind},
    dedupe::{KeyTable, KeyWindow, ProducerTable},
    disk::{Disk, DiskFile, OpenMode},
    error::{LogError, Result},
    log::{Active, Log, Snapshots, Staged},
    options::LogOptions,
    planted::{self, Bug},
    postings::{KeyRow, MemIndex, ProducerRow},
    record::{Opening, SnapshotPart, StateRecord, StateReplay, put_epoch_meta, state_records},
    recycle::SegmentPool,
    retention::Orphan,
    scan::Scanner,
    segment::{BODY_START, HeaderFault, Ident, Pos, SEGMENT_VERSION, SegmentHeader},
    shared::{Index, SealedProducers, Segment, Shared, Tenant},
    sidecar::{self, Section, Sidecar},
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

/// What must be done before the first append.
#[derive(Debug)]
pub(crate) struct Settle {
    /// Torn or stale bytes behind the end: file, from, to.
    zero: Option<(Arc<dyn DiskFile>, u32, u32)>,
    /// Files that hold nothing of the log.
    remove: Vec<PathBuf>,
    /// Segments that hold nothing of the log: made ahead, or cut off. Last one first. Nobody knows which of them are
    /// there for good, so none is kept in its place.
    retire: Vec<(PathBuf, u32, u32)>,
    opening: Opening,
    found_end: Seq,
}

/// A segment's file as it was found.
struct FoundFile {
    ident: Ident,
    path: PathBuf,
    size: u32,
    file: Arc<dyn DiskFile>,
    header: std::result::Result<(), HeaderFault>,
}

/// State records with the place of their batch.
type StateAt = (Pos, Vec<StateRecord>);

/// A segment that was read batch by batch.
struct Read {
    index: MemIndex,
    state: Vec<StateAt>,
    sealed: bool,
    /// Where it stopped, and why.
    stop: (u32, Fault),
}

/// What has been seen so far, in the log's order.
#[derive(Debug)]
struct Walk {
    epoch: Epoch,
    next_seq: Seq,
    synced: Pos,
    last: Option<Kind>,
    /// How far seqs jump after an unclean stop, as the last opening said.
    reserve: u64,
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

    #[expect(clippy::type_complexity, reason = "taken apart at once by the one caller")]
    /// The segments of the folder in order, each with its sidecar where that is good.
    fn list(&self, remove: &mut Vec<PathBuf>) -> Result<(Vec<FoundFile>, Vec<Option<Sidecar>>, VecDeque<Orphan>)> {
        let entries = self.disk().list(&self.dir).map_err(|e| self.io(e))?;
        if entries.is_empty() {
            self.disk().create_dir_all(&self.dir).map_err(|e| self.io(e))?;
        }
        let mut by_number: BTreeMap<u32, Vec<FoundFile>> = BTreeMap::new();
        let mut sidecars = Vec::new();
        for entry in &entries {
            match Ident::parse(&entry.name) {
                Some((ident, "seg")) => {
                    by_number.entry(ident.number).or_default().push(self.find(ident)?);
                }
                Some((ident, "idx")) => sidecars.push(ident),
                Some((_, "tmp")) => remove.push(self.dir.join(&entry.name)),
                _ => {}
            }
        }
        let mut files: Vec<FoundFile> = Vec::new();
        for (number, mut found) in by_number {
            // Making a segment may have failed half way and been done again.
            found.sort_by_key(|f| f.header.is_ok());
            while found.len() > 1
                && let Some(i) = found.iter().position(|f| !holds_batches(f))
            {
                remove.push(found.remove(i).path);
            }
            let Some(one) = found.pop() else { continue };
            if let Some(other) = found.pop() {
                let what = format_args!("{} is a second segment {number}", other.path.display());
                return Err(self.damaged(&one.path, 0, what));
            }
            if let Err(HeaderFault::Version(version)) = one.header {
                let message = format!(
                    "{} was written by a newer acb-server (segment version {version}, this one reads {SEGMENT_VERSION})",
                    one.path.display()
                );
                return Err(LogError::new(ErrorCode::InvalidState, "log.open", message));
            }
            if let Some(last) = files.last()
                && last.ident.number + 1 != number
            {
                let what = format_args!("segment {} is missing", last.ident.number + 1);
                return Err(self.damaged(&last.path, last.size, what));
            }
            files.push(one);
        }
        let load = |ident: Ident| {
            let file = self.disk().open(&self.dir.join(ident.sidecar_name()), OpenMode::Read).ok()?;
            Sidecar::load(&*file, ident).ok()
        };
        let loaded = files.iter().map(|f| {
            let i = sidecars.iter().position(|s| *s == f.ident)?;
            load(sidecars.swap_remove(i))
        });
        let loaded = loaded.collect();
        // Sidecars whose segment was trimmed may still know doubles; others are left over.
        sidecars.sort_unstable_by_key(|s| s.number);
        let first = files.first().map_or(0, |f| f.ident.number);
        let mut orphans = VecDeque::new();
        for ident in sidecars {
            match load(ident) {
                Some(sidecar) if ident.number < first => orphans.push_back(Orphan { ident, sidecar }),
                _ => remove.push(self.dir.join(ident.sidecar_name())),
            }
        }
        Ok((files, loaded, orphans))
    }

    fn find(&self, ident: Ident) -> Result<FoundFile> {
        let path = self.dir.join(ident.file_name());
        let file = match self.disk().open(&path, OpenMode::Write) {
            Err(e) if e.raw_os_error() == Some(libc::EROFS) => self.disk().open(&path, OpenMode::Read),
            other => other,
        };
        let file = file.map_err(|e| self.io(e))?;
        let mut head = Vec::new();
        file.pread(&mut head, BODY_START as usize, 0).map_err(|e| self.io(e))?;
        let size = file.len().map_err(|e| self.io(e))?;
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        let header = SegmentHeader::expect(&head, ident, &self.id).map(|_| ());
        Ok(FoundFile { ident, path, size, file, header })
    }

    /// Reads a segment whose every byte had been synced.
    fn read_sealed(&self, found: &FoundFile, walk: &mut Walk) -> Result<Read> {
        if found.header.is_err() {
            return Err(self.damaged(&found.path, 0, "the segment's header is damaged"));
        }
        let read = self.read_durably(found, walk)?;
        if read.sealed { Ok(read) } else { Err(self.damaged(&found.path, read.stop.0, read.stop.1)) }
    }

    /// Reads a segment and makes sure that what was read is on disk.
    fn read_durably(&self, found: &FoundFile, walk: &mut Walk) -> Result<Read> {
        let read = read_segment(found, walk).map_err(|e| self.io(e))?;
        let end = read.index.summary.end;
        make_durable(&*found.file, BODY_START, end)
            .map_err(|e| LogError { code: ErrorCode::StorageFailed, ..self.io(e) })?;
        Ok(read)
    }

    /// Reads the segments that no sidecar vouches for, and finds where the log ends.
    fn read_tail(
        &self,
        files: &[FoundFile],
        tail_start: usize,
        walk: &mut Walk,
        reads: &mut BTreeMap<usize, Read>,
    ) -> Result<End> {
        // Where the log ends if there is nothing more: a segment that is yet to be made.
        let next =
            files.get(tail_start).map_or_else(|| files.last().map_or(1, |f| f.ident.number + 1), |f| f.ident.number);
        let mut end = Pos::new(next, BODY_START);
        let (mut broken, mut fault) = (files.len(), Fault::Nothing);
        let mut segments = tail_start;
        for (i, found) in files.iter().enumerate().skip(tail_start) {
            end = Pos::new(found.ident.number, BODY_START);
            if found.header.is_err() {
                (broken, fault, end.offset) = (i, Fault::Header, 0);
                break;
            }
            let before = walk.last;
            let read = self.read_durably(found, walk)?;
            let (stop, sealed, empty) = (read.stop, read.sealed, read.index.summary.batches == 0);
            // An empty segment was made ahead; it is no part of the log yet, except as the very first.
            if !empty {
                reads.insert(i, read);
                segments = i + 1;
            }
            if !sealed {
                (broken, fault, end.offset) = (i, stop.1, stop.0);
                debug_assert!(!empty || walk.last == before);
                break;
            }
            end = Pos::new(found.ident.number + 1, BODY_START);
        }
        let (mut zero, mut more) = (None, false);
        let mut highest = walk.synced;
        for (i, found) in files.iter().enumerate().skip(broken) {
            let from = if i == broken { end.offset.max(BODY_START) } else { BODY_START };
            let mut scanner = Scanner::new(&*found.file, found.ident, from, found.size);
            let (mut at, mut stale) = (from, from);
            while let Some((_, header)) = scanner.find(at).map_err(|e| self.io(e))? {
                highest = highest.max(header.synced);
                at = scanner.offset();
                stale = at;
                more |= header.epoch >= walk.epoch && header.first_seq >= walk.next_seq;
            }
            if i == broken && reads.contains_key(&i) && stale > from {
                zero = Some((Arc::clone(&found.file), from, stale));
            }
        }
        if highest > end && !planted::is(Bug::CutDamage) {
            let path = files.get(broken).map_or(self.dir.clone(), |f| f.path.clone());
            return Err(self.damaged(&path, end.offset, fault));
        }
        walk.synced = walk.synced.max(highest.min(end));
        if end.offset == 0 {
            end.offset = BODY_START;
        }
        Ok(End { tail: end, segments, zero, more })
    }

    /// Delivery state: from the beginning of the last complete snapshot on.
    fn state(
        &self,
        files: &[FoundFile],
        sidecars: &[Option<Sidecar>],
        reads: &mut BTreeMap<usize, Read>,
        segments: usize,
    ) -> Result<State> {
        // The newest segment in which a snapshot was completed says where that begins.
        let mut start = 0;
        for i in (0..segments).rev() {
            let begins = match (&sidecars[i], reads.get(&i)) {
                (_, Some(read)) => completed_in(read),
                (Some(sidecar), None) => sidecar.summary.snapshot(),
                (None, None) => None,
            };
            if let Some(begins) = begins {
                start = files.iter().position(|f| f.ident.number == begins.segment).unwrap_or(0);
                break;
            }
        }
        let mut replay = StateReplay::default();
        let (mut first, mut guard) = (None, None);
        for i in start..segments {
            let read;
            let batches = match (reads.get(&i), &sidecars[i]) {
                (Some(read), _) => &read.state,
                (None, Some(s)) if s.summary.has_state => {
                    let mut walk = Walk { epoch: 0, next_seq: 0, synced: Pos::default(), last: None, reserve: 0 };
                    read = self.read_sealed(&files[i], &mut walk)?;
                    &read.state
                }
                _ => continue,
            };
            let mut completed = None;
            for (at, records) in batches {
                for (part, bytes) in records {
                    if planted::is(Bug::ForgetStateOnRecovery) && *part == SnapshotPart::None && i + 1 == segments {
                        continue;
                    }
                    if matches!(part, SnapshotPart::First | SnapshotPart::Whole) {
                        first = Some(*at);
                    }
                    if replay.push(*part, bytes.clone()) {
                        completed = first;
                    }
                }
            }
            guard = completed.or(guard);
            if let (Some(read), Some(at)) = (reads.get_mut(&i), completed) {
                read.index.summary.snapshot = at;
            }
        }
        Ok(State { records: replay.into_records(), guard })
    }

    /// Producer sessions: as they are now, and as the last sidecar has them.
    fn producers(
        &self,
        files: &[FoundFile],
        sidecars: &[Option<Sidecar>],
        orphans: &VecDeque<Orphan>,
        reads: &BTreeMap<usize, Read>,
        tail_start: usize,
        segments: usize,
    ) -> Result<(ProducerTable, SealedProducers)> {
        let options = &self.options;
        let mut sealed = ProducerTable::unlimited(options.producer_ranges, options.producer_ttl);
        let mut from = None;
        // The newest full table; what is unreadable of a sidecar is read from its segment.
        let mut rows: BTreeMap<usize, (Vec<ProducerRow>, Seq)> = BTreeMap::new();
        for i in (0..tail_start).rev() {
            let Some(sidecar) = &sidecars[i] else { continue };
            let section = self.section(files[i].ident, sidecar, Section::Producers);
            if sidecar.producers_full
                && let Ok(bytes) = &section
                && sidecar::restore_sessions(bytes, &mut sealed)
            {
                from = Some(i + 1);
                break;
            }
            sealed.clear();
            let own = match section {
                Ok(bytes) if !sidecar.producers_full => sidecar::decode_producer_rows(&bytes).collect(),
                _ => self.index_of(&files[i])?.producers,
            };
            rows.insert(i, (own, sidecar.summary.base_seq));
        }
        // Or that of the newest segment that was trimmed.
        for orphan in orphans.iter().rev().filter(|o| o.sidecar.producers_full && from.is_none()) {
            let section = self.section(orphan.ident, &orphan.sidecar, Section::Producers);
            if section.is_ok_and(|bytes| sidecar::restore_sessions(&bytes, &mut sealed)) {
                break;
            }
            sealed.clear();
        }
        let mut apply = |table: &mut ProducerTable, i: usize| {
            if let Some(read) = reads.get(&i) {
                let base = read.index.summary.base_seq;
                read.index.producers.iter().for_each(|row| table.replay_row(row, base));
            } else if let Some((rows, base)) = rows.remove(&i) {
                rows.iter().for_each(|row| table.replay_row(row, base));
            }
        };
        (from.unwrap_or(0)..tail_start).for_each(|i| apply(&mut sealed, i));
        let budget = Arc::clone(&self.tenant.producers);
        let mut live = ProducerTable::new(budget, options.producer_ranges, options.producer_ttl);
        if !planted::is(Bug::ForgetProducerOnRecovery) {
            for (producer, session) in sealed.sorted(self.now) {
                live.restore(producer, session.clone());
            }
            (tail_start..segments).for_each(|i| apply(&mut live, i));
        }
        let applied =
            files.get(tail_start).map_or_else(|| files.last().map_or(0, |f| f.ident.number), |f| f.ident.number - 1);
        Ok((live, SealedProducers { table: sealed, applied }))
    }

    /// Idempotency keys inside the window.
    fn keys(
        &self,
        files: &[FoundFile],
        sidecars: &[Option<Sidecar>],
        orphans: &VecDeque<Orphan>,
        reads: &BTreeMap<usize, Read>,
        segments: usize,
    ) -> Result<KeyTable> {
        let mut keys = KeyTable::new(self.options.key_window, Arc::clone(&self.tenant.keys), self.now);
        let recent = |time: Timestamp| match self.options.key_window {
            KeyWindow::For(window) => time.after(window) > self.now,
            KeyWindow::WhileKept => true,
        };
        let mut take = |rows: &mut dyn Iterator<Item = KeyRow>, base: Seq| {
            for row in rows {
                let at = Timestamp(u64::from(row.at) * 1000);
                if recent(at) {
                    keys.replay(&Keyed { index: 0, key: row.key, body: row.body }, base + u64::from(row.seq), at);
                }
            }
        };
        for orphan in orphans.iter().filter(|o| o.keys_live(self.options.key_window, self.now)) {
            let s = orphan.sidecar.summary;
            if let Ok(bytes) = self.section(orphan.ident, &orphan.sidecar, Section::Keys) {
                take(&mut sidecar::decode_keys(&bytes), s.base_seq);
            }
        }
        for i in 0..segments {
            match (reads.get(&i), &sidecars[i]) {
                (Some(read), _) => {
                    let s = read.index.summary;
                    take(&mut read.index.keys.iter().copied(), s.base_seq);
                }
                (None, Some(sidecar)) if recent(sidecar.summary.last_time) => {
                    let s = sidecar.summary;
                    match self.section(files[i].ident, sidecar, Section::Keys) {
                        Ok(bytes) => take(&mut sidecar::decode_keys(&bytes), s.base_seq),
                        Err(_) => take(&mut self.index_of(&files[i])?.keys.into_iter(), s.base_seq),
                    }
                }
                _ => {}
            }
        }
        Ok(keys)
    }

    fn section(&self, ident: Ident, sidecar: &Sidecar, section: Section) -> io::Result<Vec<u8>> {
        let file = self.disk().open(&self.dir.join(ident.sidecar_name()), OpenMode::Read)?;
        sidecar.section(&*file, section)
    }

    fn index_of(&self, found: &FoundFile) -> Result<MemIndex> {
        let mut walk = Walk { epoch: 0, next_seq: 0, synced: Pos::default(), last: None, reserve: 0 };
        Ok(self.read_sealed(found, &mut walk)?.index)
    }
}

/// Where the log ends.
struct End {
    tail: Pos,
    /// How many of the files are part of the log.
    segments: usize,
    zero: Option<(Arc<dyn DiskFile>, u32, u32)>,
    /// Whether there are batches behind the end that were newer than it.
    more: bool,
}

struct State {
    records: Vec<Bytes>,
    guard: Option<Pos>,
}

/// Where the last snapshot begins that this segment completes, if it also begins in a segment at hand.
fn completed_in(read: &Read) -> Option<Pos> {
    let mut first = None;
    let mut complete = None;
    for (at, records) in &read.state {
        for (part, _) in records {
            match part {
                SnapshotPart::First => first = Some(*at),
                SnapshotPart::Whole => {
                    first = None;
                    complete = Some(*at);
                }
                SnapshotPart::Last => complete = first.take().or(complete),
                SnapshotPart::None | SnapshotPart::Middle => {}
            }
        }
    }
    complete
}

fn holds_batches(found: &FoundFile) -> bool {
    let mut scanner = Scanner::new(&*found.file, found.ident, BODY_START, found.size);
    matches!(scanner.find(BODY_START), Ok(Some(_)))
}

/// Reads a segment up to its seal or its first fault.
fn read_segment(found: &FoundFile, walk: &mut Walk) -> io::Result<Read> {
    let number = found.ident.number;
    let mut index = MemIndex::new();
    let mut state = Vec::new();
    let mut scanner = Scanner::new(&*found.file, found.ident, BODY_START, found.size);
    loop {
        let at = scanner.offset();
        let batch = match scanner.next()? {
            Ok(batch) => batch,
            Err(fault) => {
                if planted::is(Bug::KeepBrokenTail)
                    && let Some((next, _)) = scanner.find(at)?
                {
                    scanner = Scanner::new(&*found.file, found.ident, next, found.size);
                    continue;
                }
                return Ok(Read { index, state, sealed: false, stop: (at, fault) });
            }
        };
        let header = batch.header;
        if header.epoch < walk.epoch || header.first_seq < walk.next_seq {
            return Ok(Read { index, state, sealed: false, stop: (at, Fault::Order) });
        }
        index.push_batch(batch.offset, &header);
        let fits = match header.kind {
            Kind::Messages => index.push_read(batch.offset, &header, batch.meta, batch.body),
            Kind::State => state_records(batch.meta, batch.body, header.count).map(|records| {
                state.push((Pos::new(number, batch.offset), records));
            }),
            Kind::Epoch => epoch_reserve(batch.meta).map(|reserve| walk.reserve = reserve),
            Kind::Mark | Kind::Seal | Kind::Close => Some(()),
        };
        if fits.is_none() {
            return Ok(Read { index, state, sealed: false, stop: (at, Fault::Header) });
        }
        walk.epoch = header.epoch;
        walk.next_seq = header.end_seq();
        walk.synced = walk.synced.max(header.synced);
        walk.last = Some(header.kind);
        if header.kind == Kind::Seal {
            return Ok(Read { index, state, sealed: true, stop: (at, Fault::Nothing) });
        }
    }
}

/// Syncs a part of a file, whatever happened to it before. After a failed sync the system may show bytes that it lost,
/// and claim to have synced them. So what it shows is compared with what the disk has, and only what differs is written
/// again: what is on disk already is never touched, or a power cut now could harm it.
fn make_durable(file: &dyn DiskFile, from: u32, to: u32) -> io::Result<()> {
    const BLOCK: u32 = 1 << 20;
    file.fdatasync()?;
    let mut lost = false;
    for at in (from..to).step_by(BLOCK as usize) {
        let len = BLOCK.min(to - at);
        let (mut shown, mut stored) = (Vec::new(), Vec::new());
        file.pread(&mut shown, len as usize, u64::from(at))?;
        file.forget_cached(u64::from(at), u64::from(len))?;
        file.pread(&mut stored, len as usize, u64::from(at))?;
        if shown == stored {
            continue;
        }
        lost = true;
        for (i, (shown, stored)) in shown.chunks(512).zip(stored.chunks(512)).enumerate() {
            let differ = |(a, b): (&u8, &u8)| a != b;
            if let Some(first) = shown.iter().zip(stored).position(differ)
                && let Some(last) = shown.iter().zip(stored).rposition(differ)
            {
                file.pwrite(&shown[first..=last], u64::from(at) + (i * 512 + first) as u64)?;
            }
        }
    }
    if lost { file.fdatasync() } else { Ok(()) }
}

/// How far seqs jump after an unclean stop, from the meta of an epoch record.
fn epoch_reserve(meta: &[u8]) -> Option<u64> {
    let mut at = 1;
    read_varint(meta, &mut at)?;
    read_varint(meta, &mut at)
}

/// Makes the index of a sealed segment anew, when its sidecar cannot be read.
pub(crate) fn rebuild_index(shared: &Shared, segment: &Segment) -> Result<MemIndex> {
    let fail = |e| LogError::io("log.read", segment.path.display(), e);
    let file = shared.file(segment).map_err(fail)?;
    let found =
        FoundFile { ident: segment.ident, path: segment.path.clone(), size: segment.size, file, header: Ok(()) };
    let mut walk = Walk { epoch: 0, next_seq: 0, synced: Pos::default(), last: None, reserve: 0 };
    let read = read_segment(&found, &mut walk).map_err(fail)?;
    if !read.sealed {
        let message = format!("{} is damaged at byte {}: {}", segment.path.display(), read.stop.0, read.stop.1);
        return Err(LogError::new(ErrorCode::DataDamaged, "log.read", message));
    }
    let mut index = read.index;
    index.summary.snapshot = segment.summary().snapshot;
    Ok(index)
}

impl Settle {
    fn mend(&self, disk: &dyn Disk, dir: &Path, pool: &SegmentPool) -> io::Result<()> {
        for path in &self.remove {
            disk.remove(path)?;
        }
        disk.sync_dir(dir)?;
        // Each for good before the next: there must never be a hole.
        for (path, size, generation) in &self.retire {
            pool.put(path, *size, *generation).or_else(|e| match e.kind() {
                // Done by an earlier try.
                io::ErrorKind::NotFound => disk.sync_dir(dir),
                _ => Err(e),
            })?;
        }
        if let Some((file, from, to)) = &self.zero {
            let zeroes = vec![0; ((to - from) as usize).min(1 << 20)];
            for at in (*from..*to).step_by(1 << 20) {
                file.pwrite(&zeroes[..((to - at) as usize).min(zeroes.len())], u64::from(at))?;
            }
            // Never tried again: after a failure nobody knows what is on disk, whatever the code says.
            file.fdatasync().map_err(io::Error::other)?;
        }
        Ok(())
    }
}

impl Log {
    /// Mends what recovery found, and writes and syncs the record of this opening. Before that no seq is given out.
    pub(crate) fn settle_now(&mut self) -> Result<()> {
        let Some(settle) = self.settle.take() else { return Ok(()) };
        let fail = |e| LogError::io("log.open", format_args!("opening {}", self.shared.id), e);
        let mended = settle.mend(self.shared.disk(), &self.shared.dir, &self.shared.tenant.pool).map_err(fail);
        let result = mended.and_then(|()| {
            self.synced = self.synced.max(self.tail);
            self.synced_seq = self.synced_seq.max(self.written_seq);
            let mut meta = Vec::new();
            put_epoch_meta(&mut meta, settle.opening, settle.found_end, self.shared.options.seq_reserve);
            self.staged.push(Staged::Own { kind: Kind::Epoch, meta: SmallVec::from_vec(meta) });
            self.write_staged()?;
            match self.sync_begin() {
                Some(mut ticket) => {
                    ticket.run();
                    self.sync_end(ticket)
                }
                None => Ok(()),
            }
        });
        match result {
            Err(e) if e.heals() => {
                self.settle = Some(settle);
                Err(e)
            }
            // Half mended, and never tried again: nothing may be appended to it.
            Err(e) => Err(self.give_up(e)),
            Ok(()) => Ok(()),
        }
    }
}
