//! A partition in the hands of its owner.

use std::sync::Arc;

use acb_types::{
    ErrorCode, Timestamp,
    batch::{Batch, Facts, Keyed, Outcome, Part, Parts},
    frame::{self, Runs},
    position::{Epoch, Seq},
};
use bytes::Bytes;
use parking_lot::Mutex;

use super::{
    Disk, MemoryKeep,
    dedupe::{Dedupe, Verdict},
    reader::Reader,
    store::{Record, Store},
};
use crate::{
    error::StoreError,
    message_log::{LogReader, PartitionLog, SnapshotPart, SyncTicket},
};

/// Bytes of records after which a snapshot of the delivery state is wanted.
const SNAPSHOT_AFTER: u64 = 1 << 20;
/// Largest state record.
const STATE_RECORD_BYTES_MAX: usize = 1 << 20;

/// A partition in the hands of its owner.
pub(super) struct Owner {
    disk: Arc<Mutex<Disk>>,
    store: Arc<Mutex<Store>>,
    session: u64,
    keep: MemoryKeep,
    dedupe: Dedupe,
    staged: Vec<Record>,
    next_seq: Seq,
    written_end: Seq,
    synced_end: Seq,
    epoch: Epoch,
    since_snapshot: u64,
    /// A snapshot that has begun may be lost with a failed write; its later parts are dropped then.
    snapshot_begun: bool,
    failed: bool,
    closed: bool,
}

impl std::fmt::Debug for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryPartition")
            .field("partition", &self.store.lock().id)
            .field("epoch", &self.epoch)
            .field("next_seq", &self.next_seq)
            .finish_non_exhaustive()
    }
}

impl Owner {
    pub(super) fn new(disk: Arc<Mutex<Disk>>, store: Arc<Mutex<Store>>, session: u64, keep: MemoryKeep) -> Self {
        let (dedupe, next_seq, epoch) = {
            let store = store.lock();
            (store.dedupe(), store.next_seq, store.epoch)
        };
        Self {
            disk,
            store,
            session,
            keep,
            dedupe,
            staged: Vec::new(),
            next_seq,
            written_end: next_seq,
            synced_end: next_seq,
            epoch,
            since_snapshot: 0,
            snapshot_begun: false,
            failed: false,
            closed: false,
        }
    }

    /// Whether anything can be appended now.
    fn accept(&self, operation: &'static str) -> Result<(), StoreError> {
        let store = self.store.lock();
        let refuse = |code, message: String| Err(StoreError::new(code, operation, message));
        if self.failed || store.session != self.session {
            return refuse(ErrorCode::StorageFailed, format!("partition {} failed", store.id));
        }
        if self.closed {
            return refuse(ErrorCode::InvalidState, format!("partition {} is closed", store.id));
        }
        Ok(())
    }

    /// Refuses what goes beyond the limit of bytes, in a class that refuses there.
    fn check_room(&self, more: u64) -> Result<(), StoreError> {
        if self.keep.drop_oldest || self.keep.bytes == u64::MAX {
            return Ok(());
        }
        let staged = self.staged.iter().map(|record| match record {
            Record::Messages { batch, .. } => batch.body.len() as u64,
            Record::State(..) => 0,
        });
        let store = self.store.lock();
        if store.bytes() + staged.sum::<u64>() + more > self.keep.bytes {
            let message = format!("partition {} is at its limit of {} bytes", store.id, self.keep.bytes);
            return Err(StoreError::new(ErrorCode::StorageFull, "log.stage", message));
        }
        Ok(())
    }

    /// Forgets what is staged: its keys and counters are free again, its seqs stay unused.
    fn drop_staged(&mut self) {
        self.staged.clear();
        self.snapshot_begun = false;
        self.dedupe = self.store.lock().dedupe();
    }

    fn stage_new(&mut self, batch: Batch, now: Timestamp) -> Outcome {
        let first_seq = self.next_seq;
        self.next_seq += u64::from(batch.count);
        let mut store = self.store.lock();
        store.next_seq = store.next_seq.max(self.next_seq);
        drop(store);
        self.dedupe.remember(&batch, first_seq, now);
        let outcome = Outcome::Stored { first_seq, body: batch.body.clone(), runs: batch.runs.clone() };
        let facts = Facts { epoch: self.epoch, stored_at: now, sender: Arc::clone(&batch.sender), flags: batch.flags };
        self.staged.push(Record::Messages { batch, first_seq, facts: Arc::new(facts), kept: true });
        outcome
    }
}

impl PartitionLog for Owner {
    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn next_seq(&self) -> Seq {
        self.next_seq
    }

    fn first_seq(&self) -> Seq {
        self.store.lock().first_kept(self.next_seq)
    }

    fn written_end(&self) -> Seq {
        self.written_end
    }

    fn synced_end(&self) -> Seq {
        self.synced_end
    }

    fn bytes(&self) -> u64 {
        self.store.lock().bytes()
    }

    fn stage(&mut self, batch: Batch, now: Timestamp) -> Result<Parts, StoreError> {
        self.accept("log.stage")?;
        self.check_room(batch.body.len() as u64)?;
        let class = self.store.lock().id.class;
        let mut parts = Parts::new();
        let mut index = 0;
        while index < batch.count {
            let verdict = self.dedupe.judge(class, &batch, index, now);
            // As many as share the verdict go together. New ones are judged one by one, for a key may stand twice in a
            // batch: the second is a double of the first.
            let mut end = index + 1;
            if verdict == Verdict::New {
                let keyed = |i| batch.keys.iter().any(|k| k.index == i);
                while end < batch.count && !keyed(end) && self.dedupe.judge(class, &batch, end, now) == verdict {
                    end += 1;
                }
            }
            let outcome = match verdict {
                Verdict::New => self.stage_new(cut(&batch, index, end), now),
                Verdict::Duplicate(first_seq) => Outcome::Duplicate { first_seq },
                Verdict::Refused(code) => Outcome::Refused(code),
            };
            parts.push(Part { index, count: end - index, outcome });
            index = end;
        }
        Ok(parts)
    }

    fn repeat(&mut self, one: &Batch, now: Timestamp) -> Option<Outcome> {
        let class = self.store.lock().id.class;
        match self.dedupe.judge(class, one, 0, now) {
            Verdict::Duplicate(first_seq) => Some(Outcome::Duplicate { first_seq }),
            Verdict::Refused(code @ ErrorCode::IdempotencyConflict) => Some(Outcome::Refused(code)),
            Verdict::Refused(_) | Verdict::New => None,
        }
    }

    fn stage_state(&mut self, record: Bytes, snapshot: SnapshotPart) -> Result<(), StoreError> {
        self.accept("log.stage_state")?;
        if record.len() > STATE_RECORD_BYTES_MAX {
            let message = format!("state record of {} bytes exceeds limit of {STATE_RECORD_BYTES_MAX}", record.len());
            return Err(StoreError::new(ErrorCode::InvalidArgument, "log.stage_state", message));
        }
        match snapshot {
            SnapshotPart::First | SnapshotPart::Whole => self.snapshot_begun = true,
            SnapshotPart::Middle | SnapshotPart::Last if !self.snapshot_begun => return Ok(()),
            SnapshotPart::None | SnapshotPart::Middle | SnapshotPart::Last => {}
        }
        if matches!(snapshot, SnapshotPart::Last | SnapshotPart::Whole) {
            self.snapshot_begun = false;
            self.since_snapshot = 0;
        }
        self.staged.push(Record::State(snapshot, record));
        Ok(())
    }

    fn has_staged(&self) -> bool {
        !self.staged.is_empty()
    }

    fn write(&mut self) -> Result<(), StoreError> {
        self.accept("log.write")?;
        let refusal = self.disk.lock().refusal;
        if let (Some(code), true) = (refusal, self.has_staged()) {
            self.drop_staged();
            self.failed |= code == ErrorCode::StorageFailed;
            return Err(StoreError::new(code, "log.write", "writes are refused"));
        }
        let staged = std::mem::take(&mut self.staged);
        for record in &staged {
            self.since_snapshot += match record {
                Record::Messages { batch, .. } => batch.body.len() as u64,
                Record::State(_, bytes) => bytes.len() as u64,
            };
        }
        self.store.lock().records.extend(staged);
        self.written_end = self.next_seq;
        Ok(())
    }

    fn sync_begin(&mut self) -> Option<Box<dyn SyncTicket>> {
        let store = self.store.lock();
        if self.failed || store.session != self.session || store.synced == store.records.len() {
            return None;
        }
        let ticket = Ticket {
            disk: Arc::clone(&self.disk),
            store: Arc::clone(&self.store),
            session: self.session,
            records: store.records.len(),
            end: self.written_end,
            outcome: None,
        };
        Some(Box::new(ticket))
    }

    fn sync_end(&mut self, ticket: Box<dyn SyncTicket>) -> Result<(), StoreError> {
        if self.failed {
            return Err(StoreError::new(ErrorCode::StorageFailed, "log.sync", "an earlier sync failed"));
        }
        let Ok(ticket) = ticket.into_any().downcast::<Ticket>() else {
            return Err(StoreError::new(ErrorCode::Internal, "log.sync", "a ticket of another log"));
        };
        match ticket.outcome {
            None => Ok(()),
            Some(true) => {
                self.synced_end = self.synced_end.max(ticket.end);
                Ok(())
            }
            Some(false) => {
                self.failed = true;
                Err(StoreError::new(ErrorCode::StorageFailed, "log.sync", "syncs are refused"))
            }
        }
    }

    fn wants_snapshot(&self) -> bool {
        self.since_snapshot >= SNAPSHOT_AFTER
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        Arc::new(Reader(Arc::clone(&self.store)))
    }

    fn retain(&mut self, floor: Seq, now: Timestamp) -> Result<Seq, StoreError> {
        self.accept("log.retain")?;
        let keep = self.keep;
        let mut store = self.store.lock();
        let mut bytes = store.bytes();
        let mut first = store.first_seq;
        for record in &mut store.records {
            let Record::Messages { batch, first_seq, facts, kept: kept @ true } = record else { continue };
            let end = *first_seq + u64::from(batch.count);
            let old = facts.stored_at.after(keep.age) <= now;
            let over = bytes > keep.bytes;
            let goes = end <= floor && (keep.consumed_goes || old || over) || over && keep.drop_oldest;
            if !goes {
                break;
            }
            bytes -= batch.body.len() as u64;
            first = end;
            *kept = false;
            batch.body = Bytes::new();
            batch.runs = Runs::new();
        }
        store.first_seq = first;
        Ok(store.first_kept(self.next_seq))
    }

    fn close(&mut self) -> Result<(), StoreError> {
        if self.closed {
            return Ok(());
        }
        self.write()?;
        if let Some(mut ticket) = self.sync_begin() {
            ticket.run();
            self.sync_end(ticket)?;
        }
        let mut store = self.store.lock();
        store.open = false;
        store.closed_cleanly = true;
        self.closed = true;
        Ok(())
    }
}

impl Drop for Owner {
    /// Going without a close is what a kill leaves behind.
    fn drop(&mut self) {
        let mut store = self.store.lock();
        if !self.closed && store.session == self.session {
            store.owner_lost();
        }
    }
}

/// Messages `from..end` of a batch as a batch of their own.
fn cut(batch: &Batch, from: u32, end: u32) -> Batch {
    let start = frame::prefix_len(&batch.body, from);
    let stop = frame::prefix_len(&batch.body, end);
    let body = batch.body.slice(start..stop);
    // Walking again is slow and cannot disagree with the bytes.
    let runs = frame::walk(&body).map(|walked| walked.runs).unwrap_or_default();
    let keys = batch.keys.iter().filter(|k| (from..end).contains(&k.index));
    Batch {
        count: end - from,
        flags: batch.flags,
        body,
        runs,
        sender: Arc::clone(&batch.sender),
        producer: batch.producer,
        producer_epoch: batch.producer_epoch,
        counter: if batch.counter == 0 { 0 } else { batch.counter + u64::from(from) },
        keys: keys.map(|k| Keyed { index: k.index - from, ..*k }).collect(),
    }
}

/// A sync on its way.
#[derive(Debug)]
struct Ticket {
    disk: Arc<Mutex<Disk>>,
    store: Arc<Mutex<Store>>,
    session: u64,
    records: usize,
    end: Seq,
    outcome: Option<bool>,
}

impl SyncTicket for Ticket {
    fn run(&mut self) {
        let good = self.disk.lock().refusal != Some(ErrorCode::StorageFailed);
        let mut store = self.store.lock();
        if good && store.session == self.session {
            store.synced = store.synced.max(self.records);
        }
        self.outcome = Some(good);
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any + Send> {
        self
    }
}
