//! The writing side of a log: stage, write, sync, close.
//!
//! Budget: staging and writing a frame of one message about a microsecond of our own, beside the system call; measured
//! with that call in ADR 0003. Nothing is done per message unless it has a key; a write is one system call. Staging touches
//! memory only, with two rare exceptions that must come before a seq is given out: the reserve of seqs is used up, or
//! the opening could not be written yet because the disk was full.

use std::{
    collections::VecDeque,
    io,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

use acb_types::{
    ErrorCode, Timestamp,
    batch::{Batch, Outcome, Part, Parts},
    frame,
    position::{Epoch, Seq},
};
use bytes::Bytes;
use smallvec::{SmallVec, smallvec};

use crate::{
    batch::Kind,
    data_dir::OpenMark,
    dedupe::{KeyTable, Origin, Piece, ProducerTable, Range, Verdict},
    disk::DiskFile,
    error::{LogError, Result},
    options::{AtCap, ChoreRun, LogOptions},
    planted::{self, Bug},
    reader::Reader,
    record::{STATE_GROUP_BYTES, STATE_RECORD_BYTES_MAX, SnapshotPart, StateRecord},
    recovery::Settle,
    retention::Orphan,
    segment::Pos,
    shared::{Chore, Segment, Shared},
    write::Arena,
};

/// One batch of any kind that waits to be written.
#[derive(Debug)]
pub(crate) enum Staged {
    Messages { batch: Batch, first_seq: Seq, now: Timestamp },
    State { records: Vec<StateRecord>, bytes: usize },
    Own { kind: Kind, meta: SmallVec<[u8; 24]> },
}

/// Where the log is written to.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) segment: Arc<Segment>,
    pub(crate) file: Arc<dyn DiskFile>,
}

/// Follows the snapshots that are staged, written and synced.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    /// A first part was staged and the last was not yet.
    pub(crate) open: bool,
    /// Where the first part of the written but incomplete snapshot is.
    pub(crate) first: Option<Pos>,
    /// Complete and written: where it begins, and where its last part ends.
    pub(crate) written: Option<(Pos, Pos)>,
    /// Complete and synced: where it begins. Its segment is never trimmed.
    pub(crate) synced: Option<Pos>,
    /// A segment began, or the last attempt was lost.
    pub(crate) wanted: bool,
}

/// The log of one partition in the hands of its one owner.
#[derive(Debug)]
pub struct Log {
    pub(crate) shared: Arc<Shared>,
    /// `None` before the first write, and when the last segment was sealed and no other begun.
    pub(crate) active: Option<Active>,
    /// Where the next batch goes.
    pub(crate) tail: Pos,
    pub(crate) epoch: Epoch,
    pub(crate) next_seq: Seq,
    pub(crate) written_seq: Seq,
    pub(crate) synced_seq: Seq,
    pub(crate) synced: Pos,
    pub(crate) staged: Vec<Staged>,
    pub(crate) staged_bytes: u64,
    /// Bytes of all segments, up to the tail.
    pub(crate) used: u64,
    /// Number of the segment that was written to when retention was looked at last.
    pub(crate) retained_at: u32,
    pub(crate) producers: ProducerTable,
    pub(crate) keys: KeyTable,
    pub(crate) snapshots: Snapshots,
    pub(crate) failed: Option<LogError>,
    pub(crate) closed: bool,
    /// What recovery found to do and could not do yet.
    pub(crate) settle: Option<Settle>,
    /// Where batches are put together. Kept from write to write.
    pub(crate) arena: Arena,
    /// Sealed segments that wait for the sync that lets their sidecars be written.
    pub(crate) unsynced: VecDeque<Arc<Segment>>,
    /// Files of trimmed segments that could not be removed yet.
    pub(crate) leaving: VecDeque<PathBuf>,
    /// Sidecars that outlived their segments, oldest first.
    pub(crate) orphans: VecDeque<Orphan>,
    /// Says that the log is open.
    pub(crate) mark: Option<OpenMark>,
}

impl Log {
    /// The present epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Seq that the next message will get.
    pub fn next_seq(&self) -> Seq {
        self.next_seq
    }

    /// First seq that is kept or will be; equals [`Self::next_seq`] when nothing is.
    pub fn first_seq(&self) -> Seq {
        let end = if self.staged.is_empty() { self.next_seq } else { self.written_seq };
        self.shared.first_seq().min(end)
    }

    /// Everything below is handed to the operating system: it survives kill -9 of the process.
    pub fn written_end(&self) -> Seq {
        self.written_seq
    }

    /// Everything below is on stable storage: it survives a power cut.
    pub fn synced_end(&self) -> Seq {
        self.synced_seq
    }

    /// Everything below this place of the files is on stable storage.
    pub fn synced_position(&self) -> Pos {
        self.synced
    }

    /// Bytes on disk, without what is allocated ahead.
    pub fn bytes(&self) -> u64 {
        self.used
    }

    /// The log's settings.
    pub fn options(&self) -> &LogOptions {
        &self.shared.options
    }

    /// Takes a batch in: checks producer and keys, gives seqs. Nothing is durable yet; nothing may be shown to anybody.
    ///
    /// A duplicate may name a message that is itself only staged: its seq is then at or above [`Self::written_end`],
    /// and a repeat is acknowledged no earlier than the first.
    ///
    /// # Errors
    /// `storage_full`, `storage_read_only`, `storage_failed`, `invalid_state` after a close: nothing was taken.
    pub fn stage(&mut self, batch: Batch, now: Timestamp) -> Result<Parts> {
        self.accept("log.stage")?;
        self.check_room(batch.body.len())?;
        self.reserve(u64::from(batch.count))?;
        let mut pieces: SmallVec<[Piece; 1]> = if batch.producer.0 == 0 {
            smallvec![Piece { index: 0, count: batch.count, verdict: Verdict::New }]
        } else {
            self.producers.judge(origin(&batch), batch.count, now)
        };
        if !batch.keys.is_empty() {
            pieces = self.keys.judge(&pieces, &batch.keys, self.next_seq, now);
        }
        if let [Piece { verdict: Verdict::New, count, .. }] = pieces[..] {
            let outcome = self.stage_new(batch, now);
            return Ok(smallvec![Part { index: 0, count, outcome }]);
        }
        let mut at = 0;
        let mut parts = Parts::new();
        for piece in pieces {
            let len = frame::prefix_len(&batch.body[at..], piece.count);
            let outcome = match piece.verdict {
                Verdict::New => self.stage_new(cut(&batch, piece, at, len), now),
                Verdict::Duplicate(first_seq) => Outcome::Duplicate { first_seq },
                Verdict::Refused(code) => Outcome::Refused(code),
            };
            at += len;
            parts.push(Part { index: piece.index, count: piece.count, outcome });
        }
        Ok(parts)
    }

    /// What is known of a batch of one message that repeats one which was taken in before. `None` when it is new. Takes
    /// nothing in.
    pub fn repeat(&mut self, one: &Batch, now: Timestamp) -> Option<Outcome> {
        if one.producer.0 != 0
            && let Some(Piece { verdict: Verdict::Duplicate(first_seq), .. }) =
                self.producers.judge(origin(one), 1, now).first()
        {
            return Some(Outcome::Duplicate { first_seq: *first_seq });
        }
        match self.keys.known(one.keys.first()?, now)? {
            Verdict::Duplicate(first_seq) => Some(Outcome::Duplicate { first_seq }),
            Verdict::Refused(code) => Some(Outcome::Refused(code)),
            Verdict::New => None,
        }
    }

    /// Takes messages in that were found new.
    fn stage_new(&mut self, batch: Batch, now: Timestamp) -> Outcome {
        let first_seq = self.next_seq;
        if batch.producer.0 != 0 {
            let range = Range { counter: batch.counter, seq: first_seq, count: batch.count };
            self.producers.stage(origin(&batch), range, now);
        }
        self.next_seq += u64::from(batch.count);
        self.staged_bytes += (batch.body.len() + 160) as u64;
        let outcome = Outcome::Stored { first_seq, body: batch.body.clone(), runs: batch.runs.clone() };
        self.staged.push(Staged::Messages { batch, first_seq, now });
        outcome
    }

    /// Takes a state record in, at most 1 MiB. Records that come one after the other share a batch.
    ///
    /// A middle or last part of a snapshot whose beginning was lost with a failed write is dropped:
    /// [`Self::wants_snapshot`] then still says so.
    ///
    /// # Errors
    /// As [`Self::stage`], but not for a log that is full by its own cap; `invalid_argument` above 1 MiB.
    pub fn stage_state(&mut self, record: Bytes, snapshot: SnapshotPart) -> Result<()> {
        self.accept("log.stage_state")?;
        if record.len() > STATE_RECORD_BYTES_MAX {
            let message = format!("state record of {} bytes exceeds limit of {STATE_RECORD_BYTES_MAX}", record.len());
            return Err(LogError::new(ErrorCode::InvalidArgument, "log.stage_state", message));
        }
        match snapshot {
            SnapshotPart::None => {}
            SnapshotPart::First | SnapshotPart::Whole => self.snapshots.open = true,
            SnapshotPart::Middle | SnapshotPart::Last if !self.snapshots.open => return Ok(()),
            SnapshotPart::Middle | SnapshotPart::Last => {}
        }
        if matches!(snapshot, SnapshotPart::Last | SnapshotPart::Whole) {
            self.snapshots.open = false;
            self.snapshots.wanted = false;
        }
        self.staged_bytes += record.len() as u64 + 4;
        match self.staged.last_mut() {
            Some(Staged::State { records, bytes }) if *bytes + record.len() <= STATE_GROUP_BYTES => {
                *bytes += record.len();
                records.push((snapshot, record));
            }
            _ => {
                let bytes = record.len();
                self.staged.push(Staged::State { records: vec![(snapshot, record)], bytes });
            }
        }
        Ok(())
    }

    /// Whether anything staged waits to be written.
    pub fn has_staged(&self) -> bool {
        !self.staged.is_empty()
    }

    /// Whether the log wants a snapshot of the delivery state: a segment began and no complete one was staged since.
    pub fn wants_snapshot(&self) -> bool {
        self.snapshots.wanted
    }

    /// A reader that can be used from any thread, while appends go on.
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.shared))
    }

    /// The log's chores, to be run on a thread that may block.
    pub fn chores(&self) -> Chores {
        Chores(Arc::clone(&self.shared))
    }

    /// Starts a sync of all that is written; `None` when there is nothing to sync. The ticket runs on another thread,
    /// while staging and writing go on, and comes back to [`Self::sync_end`]. Several may be on their way.
    pub fn sync_begin(&mut self) -> Option<SyncTicket> {
        if self.failed.is_some() || self.synced == self.tail || self.settle.is_some() {
            return None;
        }
        let segments = self.shared.segments.read();
        // All that may hold unsynced bytes, whatever an earlier ticket on its way covers.
        let dirty = segments.iter().rev().take_while(|s| s.ident.number >= self.synced.segment);
        let mut files: SmallVec<[Arc<dyn DiskFile>; 2]> =
            dirty.filter_map(|s| s.pinned.lock().as_ref().map(Arc::clone)).collect();
        files.reverse();
        Some(SyncTicket {
            files,
            covers: self.tail,
            covers_seq: self.written_seq,
            result: None,
            chores: (self.shared.options.chores == ChoreRun::WithSync).then(|| Arc::clone(&self.shared)),
        })
    }

    /// Ends a sync: raises [`Self::synced_end`] to what the ticket covered. A ticket that was never run changes nothing.
    ///
    /// # Errors
    /// `storage_failed` after a failed sync, now and for every later call that appends: nobody knows what reached the
    /// disk, and a second sync would lie.
    pub fn sync_end(&mut self, ticket: SyncTicket) -> Result<()> {
        if let Some(failed) = &self.failed {
            return Err(failed.again());
        }
        match ticket.result {
            None => return Ok(()),
            Some(Err(e)) if !planted::is(Bug::IgnoreFailedSync) => {
                let what = format!("syncing {} failed, so nobody knows what of it is on disk", self.shared.id);
                let mut error = LogError::io("log.sync", what, e);
                error.code = ErrorCode::StorageFailed;
                return Err(self.give_up(error));
            }
            Some(_) => {}
        }
        let (covers, seq) = if planted::is(Bug::SyncedTooFar) {
            (self.tail, self.written_seq)
        } else {
            (ticket.covers, ticket.covers_seq)
        };
        self.synced = self.synced.max(covers);
        self.synced_seq = self.synced_seq.max(seq);
        if let Some((first, end)) = self.snapshots.written
            && end <= self.synced
        {
            self.snapshots.synced = Some(first);
            self.snapshots.written = None;
        }
        while self.unsynced.front().is_some_and(|s| s.ident.number < self.synced.segment)
            && let Some(segment) = self.unsynced.pop_front()
        {
            self.shared.chores.lock().push_back(Chore::Sidecar(segment));
        }
        Ok(())
    }

    /// Writes and syncs all that is staged, in this thread.
    ///
    /// # Errors
    /// As [`Self::write`] and [`Self::sync_end`].
    pub fn sync(&mut self) -> Result<()> {
        self.write()?;
        if let Some(mut ticket) = self.sync_begin() {
            ticket.run();
            self.sync_end(ticket)?;
        }
        match &self.failed {
            Some(failed) => Err(failed.again()),
            None => Ok(()),
        }
    }

    /// Writes, syncs and marks the log as cleanly closed. Nothing can be appended afterwards; readers go on.
    ///
    /// # Errors
    /// As [`Self::write`] and [`Self::sync_end`].
    pub fn close(&mut self) -> Result<()> {
        if self.closed {
            return Ok(());
        }
        self.accept("log.close")?;
        self.sync()?;
        self.staged.push(Staged::Own { kind: Kind::Close, meta: SmallVec::new() });
        self.sync()?;
        self.closed = true;
        self.producers.clear();
        self.keys.clear();
        if self.shared.options.chores == ChoreRun::WithSync {
            // What fails is done again by the next opening.
            let _ = self.shared.run_chores();
        }
        Ok(())
    }

    /// Whether the log can take anything now. What recovery left undone is tried again.
    pub(crate) fn accept(&mut self, operation: &'static str) -> Result<()> {
        if let Some(failed) = &self.failed {
            return Err(failed.again());
        }
        if self.closed {
            return Err(LogError::new(ErrorCode::InvalidState, operation, format!("log {} is closed", self.shared.id)));
        }
        if self.settle.is_some() { self.settle_now() } else { Ok(()) }
    }

    fn check_room(&self, bytes: usize) -> Result<()> {
        let retention = &self.shared.options.retention;
        if retention.at_cap == AtCap::Refuse && self.used + self.staged_bytes + bytes as u64 > retention.bytes {
            let message = format!("log {} holds {} of {} bytes", self.shared.id, self.used, retention.bytes);
            return Err(LogError::new(ErrorCode::StorageFull, "log.stage", message));
        }
        Ok(())
    }

    /// No seq is given out that the next epoch could give again: never more than the reserve beyond the synced end.
    fn reserve(&mut self, count: u64) -> Result<()> {
        let reserve = self.shared.options.seq_reserve;
        if self.next_seq + count <= self.synced_seq + reserve {
            return Ok(());
        }
        self.write()?;
        if self.written_seq < self.next_seq {
            // Seqs of writes that failed count as given out; this says so on disk.
            self.staged.push(Staged::Own { kind: Kind::Mark, meta: SmallVec::new() });
        }
        self.sync()?;
        if self.next_seq + count <= self.synced_seq + reserve {
            return Ok(());
        }
        let message = format!("batch of {count} messages exceeds the reserve of {reserve}");
        Err(LogError::new(ErrorCode::InvalidArgument, "log.stage", message))
    }

    /// Stops all appending, for good.
    pub(crate) fn give_up(&mut self, error: LogError) -> LogError {
        let again = error.again();
        self.failed = Some(error);
        again
    }

    /// Forgets everything that is staged: its keys and counters are free again, its seqs stay unused.
    pub(crate) fn drop_staged(&mut self) {
        self.staged.clear();
        self.staged_bytes = 0;
        self.producers.rollback(self.written_seq);
        self.keys.rollback();
        self.snapshots.open = false;
        // A snapshot may have been among it. Asking for one more does no harm.
        self.snapshots.wanted = true;
        self.snapshots.first = None;
    }

    /// Raises what readers see to what is written.
    pub(crate) fn publish(&mut self) {
        self.shared.written.store(self.written_seq, Ordering::Release);
        if self.shared.first.load(Ordering::Relaxed) == Seq::MAX {
            self.find_first();
        }
    }

    /// Finds the first message that is kept.
    pub(crate) fn find_first(&self) {
        let segments = self.shared.segments.read();
        let first = segments.iter().map(|s| s.summary().first_message).find(|seq| *seq != 0);
        self.shared.first.store(first.unwrap_or(Seq::MAX), Ordering::Release);
        let floor = match segments.front() {
            Some(s) if s.ident.number > 1 && s.summary().batches > 0 => s.summary().base_seq,
            Some(s) if s.ident.number > 1 => self.written_seq,
            _ => 1,
        };
        self.shared.floor.store(floor, Ordering::Release);
    }
}

fn origin(batch: &Batch) -> Origin {
    Origin { producer: batch.producer.0, epoch: batch.producer_epoch, counter: batch.counter }
}

/// Some messages of a batch as a batch of their own. Their bytes are `len` from `at`.
fn cut(batch: &Batch, piece: Piece, at: usize, len: usize) -> Batch {
    let body = batch.body.slice(at..at + len);
    let (first, end) = (piece.index, piece.index + piece.count);
    let mut runs = frame::Runs::new();
    let (mut index, mut offset) = (0, 0);
    for run in &batch.runs {
        let count = (index + run.count).min(end).saturating_sub(index.max(first));
        index += run.count;
        if count > 0 {
            let len =
                if count == run.count { run.len } else { frame::prefix_len(&body[offset as usize..], count) as u32 };
            runs.push(frame::Run { topic: run.topic.clone(), count, offset, len });
            offset += len;
        }
    }
    let keys = batch.keys.iter().filter(|k| (first..end).contains(&k.index));
    let keys = keys.map(|k| acb_types::batch::Keyed { index: k.index - first, ..*k }).collect();
    let counter = if batch.producer.0 == 0 { 0 } else { batch.counter + u64::from(first) };
    Batch { count: piece.count, body, runs, keys, counter, sender: Arc::clone(&batch.sender), ..*batch }
}

/// The slow part of a sync.
#[derive(Debug)]
pub struct SyncTicket {
    files: SmallVec<[Arc<dyn DiskFile>; 2]>,
    covers: Pos,
    covers_seq: Seq,
    result: Option<io::Result<()>>,
    chores: Option<Arc<Shared>>,
}

impl SyncTicket {
    /// Flushes to stable storage, then does the log's chores unless they are run elsewhere. Blocks; may run on any
    /// thread; called once. The result goes to [`Log::sync_end`].
    pub fn run(&mut self) {
        if self.result.is_some() {
            return;
        }
        let all = || self.files.iter().try_for_each(|f| f.fdatasync());
        self.result = Some(if planted::is(Bug::SkipSync) { Ok(()) } else { all() });
        if let Some(shared) = self.chores.take() {
            // What fails stays queued; only retention cares, and asks itself.
            let _ = shared.run_chores();
        }
    }

    /// Everything below will be on stable storage.
    pub fn covers(&self) -> Seq {
        self.covers_seq
    }
}

/// A log's chores: sidecars of sealed segments, and the next segment made ahead. They may wait, but not for ever:
/// until then the index of a sealed segment stays in memory, and a new segment is made while a write waits.
#[derive(Clone, Debug)]
pub struct Chores(Arc<Shared>);

impl Chores {
    /// Whether there is anything to do.
    pub fn pending(&self) -> bool {
        !self.0.chores.lock().is_empty()
    }

    /// Does all there is to do. Blocks for as long as the disk takes; safe from any thread.
    pub fn run(&self) {
        let _ = self.0.run_chores();
    }
}
