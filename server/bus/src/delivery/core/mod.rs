//! One partition's engine and log, driven together. Synchronous, without threads, timers or sockets: the server's
//! runners drive it under a lock, the simulation drives it from a seed.
//!
//! The order of things in here is what "acknowledged is never lost" rests on:
//! a batch is staged (it has seqs), then written, then synced. It is acknowledged when its own level is reached and
//! shown to subscribers when its level *and that of everything before it* is reached, so that the visible end is one
//! number and no subscriber ever sees what a crash at that level could take back.

mod admission;
mod effects;
mod failures;

use std::{collections::VecDeque, sync::Arc};

use acb_engine::{
    Connected, Credit, Death, Effects, Engine, JournalMark, Plan, SeqRange, SessionDef, SessionKey, Settlement,
};
use acb_ports::{LogReader, PartitionLog, SnapshotPart, StoreError, SyncTicket};
use acb_types::{
    Durability, ErrorCode, Now, SubscriptionId,
    batch::{Batch, Facts, Outcome, Parts, ReadBlock, ReadRequest},
    frame::{Runs, flag},
    position::{ClassId, Epoch, MessageId, Seq},
};
use ahash::AHashMap;
use bytes::Bytes;
use smallvec::SmallVec;

pub(crate) use self::admission::cut;
use self::{
    admission::{Admission, admit},
    effects::{EarlyFx, Fx},
};
use super::{
    everything,
    outbox::{Acked, ConsumeOutbox, PublishOutbox, Rejected},
    sleeper::Sleepers,
};

/// An operation on a partition.
#[derive(Debug)]
pub enum Op {
    /// Store messages.
    Append {
        /// What.
        batch: Batch,
        /// To which level.
        level: Durability,
        /// Who is told.
        outbox: Arc<PublishOutbox>,
    },
    /// Settle messages of a session.
    Settle {
        /// Whose.
        session: SessionKey,
        /// What.
        settlements: Vec<OwnedSettlement>,
    },
}

/// A settlement that owns its reason, so that it can wait in a queue.
#[derive(Clone, Debug)]
pub struct OwnedSettlement {
    /// First seq.
    pub first_seq: Seq,
    /// How many.
    pub count: u32,
    /// What is done.
    pub kind: SettleKind,
}

/// What a settlement does.
#[derive(Clone, Debug)]
pub enum SettleKind {
    /// Done.
    Ack,
    /// Done, and say so when it is durable.
    ConfirmedAck,
    /// Failed.
    Nack {
        /// Wait before the next attempt; none takes the schedule.
        delay: Option<std::time::Duration>,
        /// What went wrong.
        reason: String,
    },
    /// Still at work.
    Progress,
    /// Given up.
    Term {
        /// Why.
        reason: String,
    },
    /// Given back untouched.
    Release,
}

/// Counts for metrics; read and reset by the runner.
#[derive(Clone, Copy, Debug, Default)]
pub struct CoreCounts {
    /// Messages stored.
    pub stored: u64,
    /// Messages that were duplicates.
    pub duplicates: u64,
    /// Messages refused.
    pub refused: u64,
    /// Messages delivered.
    pub delivered: u64,
    /// Messages delivered again.
    pub redelivered: u64,
    /// Messages given up.
    pub died: u64,
}

/// A staged part that is not visible yet.
#[derive(Debug)]
struct Waiting {
    first_seq: Seq,
    count: u32,
    body: Bytes,
    runs: Runs,
    facts: Arc<Facts>,
    level: Durability,
    counter: u64,
    outbox: Arc<PublishOutbox>,
    acked: bool,
}

impl Waiting {
    fn end(&self) -> Seq {
        self.first_seq + u64::from(self.count)
    }
}

/// A duplicate whose original is not durable yet: its ack waits for the original's.
#[derive(Debug)]
struct WaitingDuplicate {
    ack: Acked,
    end: Seq,
    outbox: Arc<PublishOutbox>,
}

/// What came of driving the core, to be acted on after the lock is given back.
#[derive(Debug, Default)]
pub struct After {
    /// Streams to wake.
    pub sleepers: Sleepers,
    /// Messages that died: their dead letters are to be written, then [`PartitionCore::dead`] called.
    pub deaths: Vec<Death>,
}

/// One partition.
#[derive(Debug)]
pub struct PartitionCore {
    engine: Engine,
    log: Box<dyn PartitionLog>,
    class: ClassId,
    sessions: AHashMap<SessionKey, Arc<ConsumeOutbox>>,
    waiting: VecDeque<Waiting>,
    duplicates: Vec<WaitingDuplicate>,
    /// Journal records staged but not yet covered by a sync, in order.
    marks_written: SmallVec<[JournalMark; 2]>,
    marks_syncing: SmallVec<[JournalMark; 2]>,
    /// Somebody waits for a sync: a synced append or a confirmed ack.
    wants_sync: bool,
    counts: CoreCounts,
    /// First seq of the present epoch.
    opened_at: Seq,
    planted_ack_before_write: bool,
}

macro_rules! fx {
    ($self:ident, $after:expr) => {
        &mut Fx { sessions: &$self.sessions, after: $after, counts: &mut $self.counts }
    };
}

impl PartitionCore {
    /// Puts a recovered engine and its log together.
    pub fn new(engine: Engine, log: Box<dyn PartitionLog>, class: ClassId) -> Self {
        let opened_at = log.next_seq();
        Self {
            engine,
            log,
            class,
            sessions: AHashMap::new(),
            waiting: VecDeque::new(),
            duplicates: Vec::new(),
            marks_written: SmallVec::new(),
            marks_syncing: SmallVec::new(),
            wants_sync: false,
            counts: CoreCounts::default(),
            opened_at,
            planted_ack_before_write: false,
        }
    }

    /// Makes the core acknowledge before it writes. For the simulation, which must find that out.
    #[doc(hidden)]
    pub fn plant_ack_before_write(&mut self) {
        self.planted_ack_before_write = true;
    }

    /// The engine, for questions.
    pub fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// Whose messages these are.
    pub fn class(&self) -> ClassId {
        self.class
    }

    /// The log's reader.
    pub fn reader(&self) -> Arc<dyn LogReader> {
        self.log.reader()
    }

    /// The log, for questions.
    pub fn log(&self) -> &dyn PartitionLog {
        &*self.log
    }

    /// Counts since the last call.
    pub fn take_counts(&mut self) -> CoreCounts {
        std::mem::take(&mut self.counts)
    }

    /// Highest level that this store reaches.
    fn level_max() -> Durability {
        Durability::Synced
    }

    /// Works operations off in order, then writes what they staged and shows what became visible. One lock, one write.
    pub fn drain(&mut self, ops: &mut Vec<Op>, now: Now, after: &mut After) {
        for op in ops.drain(..) {
            match op {
                Op::Append { batch, level, outbox } => self.append(batch, level, outbox, now, after),
                Op::Settle { session, settlements } => self.settle(session, &settlements, now, after),
            }
        }
        if self.log.has_staged() {
            // Acks ride along with whatever is written anyway; alone they wait for the flush, 20 ms at most.
            self.write(now, after);
        } else if !self.waiting.is_empty() {
            // Staging may have written, and synced, what was staged before: to have seqs to give.
            self.progress(now, after);
        }
    }

    fn append(&mut self, batch: Batch, level: Durability, outbox: Arc<PublishOutbox>, now: Now, after: &mut After) {
        if level > Self::level_max() {
            self.refuse(&outbox, batch.counter, batch.count, ErrorCode::DurabilityUnavailable, after);
            return;
        }
        // Requests and inboxes are looked up before anything is stored: nobody there is an answer, not a record.
        if batch.flags & flag::REQUEST != 0 || self.class == ClassId::INBOX {
            match admit(&mut self.engine, &batch) {
                Admission::All => {}
                Admission::Split(pieces) => {
                    for piece in pieces {
                        match piece.refused {
                            Some(code) => self.turn_away(&batch, &piece, code, level, &outbox, now, after),
                            None => {
                                if let Some(part) = cut(&batch, piece.index, piece.count) {
                                    self.stage(part, level, &outbox, now, after);
                                }
                            }
                        }
                    }
                    return;
                }
            }
        }
        self.stage(batch, level, &outbox, now, after);
    }

    fn stage(&mut self, batch: Batch, level: Durability, outbox: &Arc<PublishOutbox>, now: Now, after: &mut After) {
        let (counter, count) = (batch.counter, batch.count);
        let (sender, flags) = (Arc::clone(&batch.sender), batch.flags);
        let parts: Parts = match self.log.stage(batch, now.wall) {
            Ok(parts) => parts,
            Err(error) => {
                self.refuse(outbox, counter, count, error.code, after);
                self.stage_failed(&error, now, after);
                return;
            }
        };
        let epoch = self.log.epoch();
        let mut facts = None;
        for part in parts {
            let counter = counter + u64::from(part.index);
            match part.outcome {
                Outcome::Stored { first_seq, body, runs } => {
                    self.counts.stored += u64::from(part.count);
                    let facts = Arc::clone(facts.get_or_insert_with(|| {
                        Arc::new(Facts { epoch, stored_at: now.wall, sender: Arc::clone(&sender), flags })
                    }));
                    let mut waiting = Waiting {
                        first_seq,
                        count: part.count,
                        body,
                        runs,
                        facts,
                        level,
                        counter,
                        outbox: Arc::clone(outbox),
                        acked: false,
                    };
                    if level == Durability::Memory || self.planted_ack_before_write {
                        acknowledge(&mut waiting, self.class, after);
                    }
                    self.wants_sync |= level >= Durability::Synced;
                    self.waiting.push_back(waiting);
                }
                Outcome::Duplicate { first_seq } => self.repeated(counter, part.count, first_seq, level, outbox),
                Outcome::Refused(code) => self.refuse(outbox, counter, part.count, code, after),
            }
        }
        if !self.duplicates.is_empty() {
            self.answer_duplicates(after);
        }
    }

    /// Messages that are stored already: the answer waits until the first ones are as durable as asked for.
    fn repeated(
        &mut self,
        counter: u64,
        count: u32,
        first_seq: Option<Seq>,
        level: Durability,
        outbox: &Arc<PublishOutbox>,
    ) {
        self.counts.duplicates += u64::from(count);
        let ack = Acked {
            counter,
            count,
            class: self.class,
            epoch: first_seq.map_or_else(|| self.log.epoch(), |seq| self.epoch_of(seq)),
            first_seq: first_seq.unwrap_or(0),
            level,
            duplicate: true,
        };
        let end = first_seq.map_or(0, |s| s + u64::from(count));
        self.wants_sync |= level >= Durability::Synced && end > self.log.synced_end();
        self.duplicates.push(WaitingDuplicate { ack, end, outbox: Arc::clone(outbox) });
    }

    /// The epoch in which a message was stored: part of its id. Only repeats from before the last start cost a read.
    fn epoch_of(&self, seq: Seq) -> Epoch {
        if seq >= self.opened_at {
            return self.log.epoch();
        }
        let request =
            ReadRequest { from_seq: seq, end_seq: seq + 1, filters: everything(), messages_max: 1, bytes_max: 1 };
        let run = self.log.reader().read(&request).ok().and_then(|block| block.runs.into_iter().next());
        run.map_or_else(|| self.log.epoch(), |run| run.facts.epoch)
    }

    fn refuse(&mut self, outbox: &PublishOutbox, counter: u64, count: u32, code: ErrorCode, after: &mut After) {
        self.counts.refused += u64::from(count);
        outbox.reject(Rejected { counter, count, code }, &mut after.sleepers);
    }

    /// Writes all that is staged, with the journal of what was settled, and lets what that made durable go on.
    pub fn write(&mut self, now: Now, after: &mut After) {
        self.stage_journal();
        if let Err(error) = self.log.write() {
            self.write_failed(&error, after);
            if error.code == ErrorCode::StorageFailed {
                // No sync will come any more that could answer those who wait for one.
                self.sync_failed(&error, after);
            }
            return;
        }
        self.progress(now, after);
    }

    fn stage_journal(&mut self) {
        while let Some((mark, record)) = self.engine.take_journal() {
            self.marks_written.push(mark);
            if let Err(error) = self.log.stage_state(record, SnapshotPart::None) {
                // Kept by the engine for a later time; until then a crash only means that acks are asked for anew.
                tracing::debug!(class = %self.class, code = error.code.name(), "journal refused: {error}");
                self.engine.journal_lost();
                self.marks_written.clear();
                return;
            }
        }
    }

    /// Acknowledges and shows whatever reached its level.
    fn progress(&mut self, now: Now, after: &mut After) {
        let (written, synced) = (self.log.written_end(), self.log.synced_end());
        let reached = |level: Durability, end: Seq| match level {
            Durability::Memory | Durability::Written => end <= written,
            Durability::Synced | Durability::Replicated => end <= synced,
        };
        // Own level first: a written message behind a synced one is acknowledged now and shown in its turn.
        for w in &mut self.waiting {
            if !w.acked && reached(w.level, w.end()) {
                acknowledge(w, self.class, after);
            }
        }
        while self.waiting.front().is_some_and(|w| reached(w.level, w.end())) {
            let Some(w) = self.waiting.pop_front() else { break };
            self.engine.appended(w.first_seq, &w.body, &w.runs, &w.facts, now, fx!(self, after));
        }
        if !self.duplicates.is_empty() {
            self.answer_duplicates(after);
        }
    }

    fn answer_duplicates(&mut self, after: &mut After) {
        let (written, synced) = (self.log.written_end(), self.log.synced_end());
        self.duplicates.retain(|d| {
            let durable = match d.ack.level {
                Durability::Memory => true,
                Durability::Written => d.end <= written,
                Durability::Synced | Durability::Replicated => d.end <= synced,
            };
            if durable {
                d.outbox.ack(d.ack, &mut after.sleepers);
            }
            !durable
        });
    }

    fn settle(&mut self, session: SessionKey, settlements: &[OwnedSettlement], now: Now, after: &mut After) {
        for s in settlements {
            let range = SeqRange { first_seq: s.first_seq, count: s.count };
            let settlement = match &s.kind {
                SettleKind::Ack => Settlement::Ack(range),
                SettleKind::ConfirmedAck => {
                    self.wants_sync = true;
                    Settlement::ConfirmedAck(range)
                }
                SettleKind::Nack { delay, reason } => Settlement::Nack { range, delay: *delay, reason },
                SettleKind::Progress => Settlement::Progress(range),
                SettleKind::Term { reason } => Settlement::Term { range, reason },
                SettleKind::Release => Settlement::Release(range),
            };
            self.engine.settle(session, settlement, now, fx!(self, after));
        }
    }

    /// Whether a sync is waited for.
    pub fn wants_sync(&self) -> bool {
        self.wants_sync
    }

    /// Starts a sync of all that is staged or written, the journal included. The ticket is run without the lock.
    pub fn sync_begin(&mut self, now: Now, after: &mut After) -> Option<Box<dyn SyncTicket>> {
        self.stage_journal();
        if self.log.has_staged() {
            self.write(now, after);
        }
        if self.log.wants_snapshot() {
            self.snapshot(now, after);
        }
        self.wants_sync = false;
        let ticket = self.log.sync_begin()?;
        self.marks_syncing.append(&mut self.marks_written);
        Some(ticket)
    }

    /// Writes the whole delivery state at the head of a segment, so that recovery starts there.
    fn snapshot(&mut self, now: Now, after: &mut After) {
        let parts = self.engine.snapshot();
        let last = parts.len().saturating_sub(1);
        for (i, part) in parts.into_iter().enumerate() {
            let place = match (i, last) {
                (0, 0) => SnapshotPart::Whole,
                (0, _) => SnapshotPart::First,
                (i, last) if i == last => SnapshotPart::Last,
                _ => SnapshotPart::Middle,
            };
            if self.log.stage_state(part, place).is_err() {
                return;
            }
        }
        self.write(now, after);
    }

    /// Ends a sync: what it covered is acknowledged and shown.
    pub fn sync_end(&mut self, ticket: Box<dyn SyncTicket>, now: Now, after: &mut After) {
        if let Err(error) = self.log.sync_end(ticket) {
            self.sync_failed(&error, after);
            return;
        }
        self.progress(now, after);
        for mark in std::mem::take(&mut self.marks_syncing) {
            self.engine.journal_durable(mark, fx!(self, after));
        }
        // Whatever came while the disk was busy waits for the next one.
        self.wants_sync |= self.waiting.iter().any(|w| w.level >= Durability::Synced) || !self.duplicates.is_empty();
    }

    /// Connects a consumer.
    ///
    /// # Errors
    /// As [`Engine::connect`].
    pub fn connect(
        &mut self,
        subscription: SubscriptionId,
        def: SessionDef,
        outbox: Arc<ConsumeOutbox>,
        now: Now,
        after: &mut After,
    ) -> Result<Connected, ErrorCode> {
        // The outbox must be known before the engine's first effect for it; until the engine names the session, its
        // effects are kept aside.
        let mut early =
            EarlyFx { kept: Vec::new(), inner: Fx { sessions: &self.sessions, after, counts: &mut self.counts } };
        let connected = self.engine.connect(subscription, def, now, &mut early);
        let kept = early.kept;
        let connected = connected?;
        for old in &connected.fenced {
            if let Some(outbox) = self.sessions.remove(old) {
                outbox.push(&mut after.sleepers, |news| news.closed = Some(ErrorCode::SessionFenced));
            }
        }
        self.sessions.insert(connected.session, outbox);
        let mut fx = Fx { sessions: &self.sessions, after, counts: &mut self.counts };
        for effect in kept {
            effect.replay(&mut fx);
        }
        fx.kick(connected.session);
        Ok(connected)
    }

    /// A connection was lost: leases are kept for a while.
    pub fn disconnect(&mut self, session: SessionKey, now: Now, after: &mut After) {
        if self.sessions.remove(&session).is_some() {
            self.engine.disconnect(session, now, fx!(self, after));
        }
    }

    /// A consumer left of its own will: leases are given back.
    pub fn leave(&mut self, session: SessionKey, now: Now, after: &mut After) {
        if self.sessions.remove(&session).is_some() {
            self.engine.leave(session, now, fx!(self, after));
        }
    }

    /// Changes a consumer's credit.
    pub fn credit(&mut self, session: SessionKey, credit: Credit, now: Now, after: &mut After) {
        self.engine.credit(session, credit, now, fx!(self, after));
    }

    /// Runs timers.
    pub fn advance(&mut self, now: Now, after: &mut After) {
        self.engine.advance(now, fx!(self, after));
    }

    /// What a lagging consumer may read.
    pub fn plan(&mut self, session: SessionKey, now: Now) -> Option<Plan> {
        self.engine.plan(session, now)
    }

    /// Leases and delivers what was read.
    pub fn commit(&mut self, plan: Plan, block: ReadBlock, now: Now, after: &mut After) {
        self.engine.commit(plan, block, now, fx!(self, after));
    }

    /// A read failed.
    pub fn abandon(&mut self, plan: Plan, now: Now) {
        self.engine.abandon(plan, now);
    }

    /// A dead letter is durable.
    pub fn dead(
        &mut self,
        subscription: SubscriptionId,
        seq: Seq,
        dead_letter: Option<MessageId>,
        now: Now,
        after: &mut After,
    ) {
        self.engine.dead(subscription, seq, dead_letter, now, fx!(self, after));
    }

    /// Settles a message that nobody leased; says whether that changed anything.
    ///
    /// # Errors
    /// `slow_down` when too much is settled ahead of the subscription.
    pub fn settle_direct(
        &mut self,
        subscription: SubscriptionId,
        seq: Seq,
        now: Now,
        after: &mut After,
    ) -> Result<bool, ErrorCode> {
        self.engine.settle_direct(subscription, seq, now, fx!(self, after))
    }

    /// Ends a subscription; its consumers are told.
    pub fn unsubscribe(&mut self, subscription: SubscriptionId, after: &mut After) {
        let sessions = self.engine.unsubscribe(subscription);
        for session in sessions {
            if let Some(outbox) = self.sessions.remove(&session) {
                outbox.push(&mut after.sleepers, |news| news.closed = Some(ErrorCode::SubscriptionNotFound));
            }
        }
    }

    /// Tells every consumer that its stream ends.
    pub fn close_sessions(&mut self, code: ErrorCode, after: &mut After) {
        for outbox in self.sessions.values() {
            outbox.push(&mut after.sleepers, |news| news.closed = Some(code));
        }
    }

    /// Drops what retention allows.
    ///
    /// # Errors
    /// As [`PartitionLog::retain`].
    pub fn retain(&mut self, now: Now, after: &mut After) -> Result<Seq, StoreError> {
        let before = self.log.first_seq();
        let first = self.log.retain(self.engine.floor(), now.wall)?;
        if first > before {
            self.engine.trimmed(first, now, fx!(self, after));
        }
        Ok(first)
    }

    /// Whether [`Self::retain`] should not wait for its turn.
    pub fn wants_retain(&self) -> bool {
        self.log.wants_retain()
    }

    /// Whether something is written or settled that no sync covers yet.
    pub fn is_dirty(&self) -> bool {
        self.log.has_staged()
            || self.log.written_end() > self.log.synced_end()
            || self.engine.has_journal()
            || !self.marks_written.is_empty()
    }

    /// Writes and syncs everything, then closes the log.
    ///
    /// # Errors
    /// As [`PartitionLog::close`].
    pub fn close(&mut self, now: Now, after: &mut After) -> Result<(), StoreError> {
        self.stage_journal();
        self.write(now, after);
        if let Some(mut ticket) = self.sync_begin(now, after) {
            ticket.run();
            self.sync_end(ticket, now, after);
        }
        self.log.close()
    }

    /// The present epoch.
    pub fn epoch(&self) -> Epoch {
        self.log.epoch()
    }
}

fn acknowledge(w: &mut Waiting, class: ClassId, after: &mut After) {
    w.acked = true;
    let ack = Acked {
        counter: w.counter,
        count: w.count,
        class,
        epoch: w.facts.epoch,
        first_seq: w.first_seq,
        level: w.level,
        duplicate: false,
    };
    w.outbox.ack(ack, &mut after.sleepers);
}
