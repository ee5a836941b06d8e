//! A partition in the hands of many threads: its core behind one lock, and the queues in front of it.
//!
//! Two queues. `queue` is worked off at the end of a hot runtime's round ([`super::tick`]); `sync_queue` by a committer
//! thread, which stages, writes and flushes. Whoever gives the lock back looks at `queue` once more, so an operation
//! that found the lock taken is never left behind.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use acb_engine::{Connected, Credit, Death, Plan, SessionDef, SessionKey};
use acb_ports::{Clock, LogReader, StoreError};
use acb_types::{
    Durability, ErrorCode, Now, PartitionId, SubscriptionId,
    batch::ReadBlock,
    position::{MessageId, Seq},
};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use super::{
    committer::Committer,
    core::{After, CoreCounts, Op, PartitionCore},
    deaths::Deaths,
    outbox::{ConsumeOutbox, PublishOutbox},
    tick,
    ticker::{NO_TIMER, Ticker},
};
use crate::telemetry::PartitionMetrics;

/// The committer waits for others only when its last batch had at least this many operations.
const GATHER_FROM: usize = 4;
/// It waits until this share of the last batch has come, in percent.
const GATHER_SHARE: usize = 80;
/// And no longer than this.
const GATHER_MAX: Duration = Duration::from_micros(100);

/// What a partition has for the ticker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wants {
    /// When its next timer is due, on the monotonic clock.
    pub(super) due: u64,
    /// Something is written or settled and not flushed.
    pub(super) flush: bool,
}
/// One partition, shared.
#[derive(Debug)]
pub struct Partition {
    id: PartitionId,
    core: Mutex<PartitionCore>,
    queue: Mutex<Vec<Op>>,
    sync_queue: Mutex<Vec<Op>>,
    /// On some hot runtime's list for the end of this round.
    marked: AtomicBool,
    /// In the committer's queue, or being committed.
    scheduled: AtomicBool,
    /// Written since the last sync began.
    dirty: AtomicBool,
    /// Operations of the last commit.
    last_commit: AtomicUsize,
    /// When the engine's next timer is due, on the monotonic clock.
    next_timer: AtomicU64,
    /// Among those that the ticker looks at.
    attended: AtomicBool,
    /// Those who wait for the end of the next sync.
    flush_waiters: Mutex<Vec<oneshot::Sender<()>>>,
    reader: Arc<dyn LogReader>,
    clock: Arc<dyn Clock>,
    committer: Arc<Committer>,
    ticker: Arc<Ticker>,
    deaths: Arc<Deaths>,
    metrics: PartitionMetrics,
}

impl Partition {
    pub(super) fn new(
        id: PartitionId,
        core: PartitionCore,
        clock: Arc<dyn Clock>,
        committer: Arc<Committer>,
        ticker: Arc<Ticker>,
        deaths: Arc<Deaths>,
        metrics: PartitionMetrics,
    ) -> Self {
        let reader = core.reader();
        Self {
            id,
            core: Mutex::new(core),
            queue: Mutex::default(),
            sync_queue: Mutex::default(),
            marked: AtomicBool::new(false),
            scheduled: AtomicBool::new(false),
            dirty: AtomicBool::new(false),
            last_commit: AtomicUsize::new(0),
            next_timer: AtomicU64::new(NO_TIMER),
            attended: AtomicBool::new(false),
            flush_waiters: Mutex::default(),
            reader,
            clock,
            committer,
            ticker,
            deaths,
            metrics,
        }
    }

    /// Which partition this is.
    pub fn id(&self) -> &PartitionId {
        &self.id
    }

    /// The log's reader, for use without the lock.
    pub fn reader(&self) -> &Arc<dyn LogReader> {
        &self.reader
    }

    /// The time.
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    pub(super) fn mark(&self) -> bool {
        !self.marked.swap(true, Ordering::AcqRel)
    }

    pub(super) fn unmark(&self) {
        self.marked.store(false, Ordering::Release);
    }

    /// Hands in an operation. Never blocks longer than a push; the answer comes through the operation's outbox.
    pub fn submit(self: &Arc<Self>, op: Op) {
        if let Op::Append { level, outbox, .. } = &op
            && (*level >= Durability::Synced || outbox.has_sync_queued())
        {
            outbox.enter_sync_queue();
            self.sync_queue.lock().push(op);
            self.schedule();
            return;
        }
        self.queue.lock().push(op);
        if !tick::mark(self) {
            self.combine();
        }
    }

    /// Puts the partition before the committer unless it is there.
    pub(super) fn schedule(self: &Arc<Self>) {
        if !self.scheduled.swap(true, Ordering::AcqRel) {
            self.committer.push(Arc::clone(self));
        }
    }

    /// Works the queue off, unless somebody holds the lock: then they do.
    pub(super) fn combine(self: &Arc<Self>) {
        let mut ops = Vec::new();
        loop {
            let Some(mut core) = self.core.try_lock() else { return };
            std::mem::swap(&mut *self.queue.lock(), &mut ops);
            let mut after = After::default();
            let mut sync = false;
            if !ops.is_empty() {
                core.drain(&mut ops, self.clock.now(), &mut after);
                sync = core.wants_sync();
                self.note(&mut core);
            }
            drop(core);
            self.act(after);
            if sync {
                self.schedule();
            }
            if self.queue.lock().is_empty() {
                return;
            }
        }
    }

    /// Does something under the lock and acts on what came of it afterwards.
    pub fn with<T>(self: &Arc<Self>, f: impl FnOnce(&mut PartitionCore, Now, &mut After) -> T) -> T {
        let mut after = After::default();
        let mut core = self.core.lock();
        let out = f(&mut core, self.clock.now(), &mut after);
        let sync = core.wants_sync();
        self.note(&mut core);
        drop(core);
        self.act(after);
        if sync {
            self.schedule();
        }
        if !self.queue.lock().is_empty() {
            self.combine();
        }
        out
    }

    /// Keeps what others want to know without the lock.
    fn note(self: &Arc<Self>, core: &mut MutexGuard<'_, PartitionCore>) {
        self.count(core.take_counts());
        let dirtied = core.is_dirty() && !self.dirty.swap(true, Ordering::AcqRel);
        self.call_ticker(core, dirtied);
    }

    /// Keeps when the next timer is due, and calls the ticker when that, or a flush, is news to it.
    fn call_ticker(self: &Arc<Self>, core: &mut MutexGuard<'_, PartitionCore>, dirtied: bool) {
        let due = core.engine().next_timer().unwrap_or(NO_TIMER);
        let sooner = due < self.next_timer.swap(due, Ordering::AcqRel);
        if !(sooner || dirtied) {
            return;
        }
        if !self.attended.swap(true, Ordering::AcqRel) {
            self.ticker.attend(Arc::clone(self));
        } else if dirtied {
            self.ticker.dirty();
        } else {
            self.ticker.timer(due);
        }
    }

    /// What there is for the ticker. `None` when that is nothing: it looks again when it is told to.
    pub(super) fn wants(&self) -> Option<Wants> {
        let look = || {
            let wants =
                Wants { due: self.next_timer.load(Ordering::Acquire), flush: self.dirty.load(Ordering::Acquire) };
            (wants.flush || wants.due != NO_TIMER).then_some(wants)
        };
        look().or_else(|| {
            self.attended.store(false, Ordering::Release);
            // Something may have come just before that; whoever sets the mark attends to it.
            look().filter(|_| !self.attended.swap(true, Ordering::AcqRel))
        })
    }

    fn count(&self, counts: CoreCounts) {
        let m = &self.metrics;
        for (counter, n) in [
            (&m.messages_in, counts.stored),
            (&m.duplicates, counts.duplicates),
            (&m.refused, counts.refused),
            (&m.messages_out, counts.delivered),
            (&m.redelivered, counts.redelivered),
            (&m.dead_letters, counts.died),
        ] {
            if n != 0 {
                counter.inc_by(n);
            }
        }
    }

    /// Sets the gauges that are only looked at when somebody asks.
    pub fn observe(self: &Arc<Self>) {
        let (depth, bytes) = self.with(|core, _, _| {
            let totals = core.engine().totals();
            (totals.leased + totals.returned, core.log().bytes())
        });
        self.metrics.queue_depth.set(i64::try_from(depth).unwrap_or(i64::MAX));
        self.metrics.log_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.metrics.log_read_bytes.inner().store(self.reader().read_bytes(), std::sync::atomic::Ordering::Relaxed);
    }

    fn act(self: &Arc<Self>, after: After) {
        tick::wake(after.sleepers);
        for death in after.deaths {
            self.deaths.push(Arc::clone(self), death);
        }
    }

    /// One commit after the other until nothing waits. Runs on a committer thread, one at a time per partition.
    pub(super) fn commit_all(self: &Arc<Self>) {
        loop {
            self.commit();
            self.scheduled.store(false, Ordering::Release);
            let more = !self.sync_queue.lock().is_empty()
                || !self.flush_waiters.lock().is_empty()
                || self.core.lock().wants_sync();
            // Somebody may have scheduled it anew meanwhile; then it is theirs.
            if !more || self.scheduled.swap(true, Ordering::AcqRel) {
                return;
            }
        }
    }

    fn commit(self: &Arc<Self>) {
        self.gather();
        self.dirty.store(false, Ordering::Release);
        let waiters = std::mem::take(&mut *self.flush_waiters.lock());
        let mut after = After::default();
        let ticket = {
            let mut core = self.core.lock();
            let now = self.clock.now();
            // In this order. What waits in `queue` was sent before what waits here: a publisher that has something here
            // sends nothing more by the other queue. Taken the other way round, its messages would change places.
            let mut ops = std::mem::take(&mut *self.sync_queue.lock());
            let mut before = std::mem::take(&mut *self.queue.lock());
            self.last_commit.store(ops.len(), Ordering::Relaxed);
            let outboxes: Vec<Arc<PublishOutbox>> = ops
                .iter()
                .filter_map(|op| match op {
                    Op::Append { outbox, .. } => Some(Arc::clone(outbox)),
                    Op::Settle { .. } => None,
                })
                .collect();
            core.drain(&mut before, now, &mut after);
            core.drain(&mut ops, now, &mut after);
            // Only now that they are staged may later appends of the same publisher go by the other queue.
            for outbox in &outboxes {
                outbox.leave_sync_queue();
            }
            let ticket = core.sync_begin(now, &mut after);
            self.call_ticker(&mut core, false);
            self.count(core.take_counts());
            ticket
        };
        self.act(after);
        let Some(mut ticket) = ticket else {
            tell(waiters);
            return;
        };
        let started = Instant::now();
        ticket.run();
        self.metrics.sync_time.observe(started.elapsed());
        let mut after = After::default();
        {
            let mut core = self.core.lock();
            core.sync_end(ticket, self.clock.now(), &mut after);
            if core.wants_retain()
                && let Err(error) = core.retain(self.clock.now(), &mut after)
            {
                tracing::warn!(partition = %self.id, "retention: {error}");
            }
            // What became durable was leased just now: without its timer the lease would end when something else happens.
            self.note(&mut core);
        }
        self.act(after);
        tell(waiters);
        if !self.queue.lock().is_empty() {
            self.combine();
        }
    }

    /// Waits for the others of the last batch, who are about to send again: without this, the first early arrival takes
    /// a whole flush for itself (measured: ADR 0006). Costs nothing when few are at work.
    fn gather(&self) {
        let last = self.last_commit.load(Ordering::Relaxed);
        if last < GATHER_FROM {
            return;
        }
        let started = Instant::now();
        while self.sync_queue.lock().len() * 100 < last * GATHER_SHARE && started.elapsed() < GATHER_MAX {
            std::thread::yield_now();
        }
    }

    /// Runs timers that are due and flushes what was only written. Called by the ticker.
    pub(super) fn beat(self: &Arc<Self>, now: Now, flush: bool) {
        self.run_due(now);
        if flush && self.dirty.load(Ordering::Acquire) {
            self.schedule();
        }
    }

    /// Runs timers that are due.
    pub fn run_due(self: &Arc<Self>, now: Now) {
        if self.next_timer.load(Ordering::Acquire) <= now.mono_ms {
            self.with(super::core::PartitionCore::advance);
        }
    }

    /// Waits until everything that was done to the partition so far is on stable storage (or its log has failed, which
    /// later appends are told).
    ///
    /// *Cancel safety*: the flush happens all the same.
    pub async fn flushed(self: &Arc<Self>) {
        let (tx, rx) = oneshot::channel();
        self.flush_waiters.lock().push(tx);
        self.schedule();
        // An error means that the committer is gone, at shutdown, where `close` flushes.
        let _ = rx.await;
    }

    /// Operations that wait.
    pub fn queued(&self) -> usize {
        self.queue.lock().len() + self.sync_queue.lock().len()
    }

    /// Connects a consumer.
    ///
    /// # Errors
    /// As [`acb_engine::Engine::connect`].
    pub fn connect(
        self: &Arc<Self>,
        subscription: SubscriptionId,
        def: SessionDef,
        outbox: Arc<ConsumeOutbox>,
    ) -> Result<Connected, ErrorCode> {
        self.with(|core, now, after| core.connect(subscription, def, outbox, now, after))
    }

    /// A consumer's connection was lost.
    pub fn disconnect(self: &Arc<Self>, session: SessionKey) {
        // What the session settled before it was lost counts.
        let mut ops = std::mem::take(&mut *self.queue.lock());
        self.with(|core, now, after| {
            core.drain(&mut ops, now, after);
            core.disconnect(session, now, after);
        });
    }

    /// A consumer left.
    pub fn leave(self: &Arc<Self>, session: SessionKey) {
        // What the session settled before it left counts.
        let mut ops = std::mem::take(&mut *self.queue.lock());
        self.with(|core, now, after| {
            core.drain(&mut ops, now, after);
            core.leave(session, now, after);
        });
    }

    /// Changes a consumer's credit.
    pub fn credit(self: &Arc<Self>, session: SessionKey, credit: Credit) {
        self.with(|core, now, after| core.credit(session, credit, now, after));
    }

    /// What a lagging consumer may read; the reading itself is the caller's, without the lock.
    pub fn plan(self: &Arc<Self>, session: SessionKey) -> Option<Plan> {
        let mut core = self.core.lock();
        let plan = core.plan(session, self.clock.now());
        drop(core);
        if !self.queue.lock().is_empty() {
            self.combine();
        }
        plan
    }

    /// Leases and delivers what was read.
    pub fn commit_plan(self: &Arc<Self>, plan: Plan, block: ReadBlock) {
        self.with(|core, now, after| core.commit(plan, block, now, after));
    }

    /// A read failed.
    pub fn abandon(self: &Arc<Self>, plan: Plan) {
        self.with(|core, now, _| core.abandon(plan, now));
    }

    /// A dead letter is durable.
    pub fn dead(self: &Arc<Self>, death: &Death, dead_letter: Option<MessageId>) {
        let (subscription, seq) = (death.subscription, death.seq);
        self.with(|core, now, after| core.dead(subscription, seq, dead_letter, now, after));
    }

    /// Drops what retention allows.
    ///
    /// # Errors
    /// As the log's.
    pub fn retain(self: &Arc<Self>) -> Result<Seq, StoreError> {
        self.with(super::core::PartitionCore::retain)
    }

    /// Flushes everything and closes the log.
    ///
    /// # Errors
    /// As the log's.
    pub fn close(self: &Arc<Self>) -> Result<(), StoreError> {
        let mut ops = std::mem::take(&mut *self.queue.lock());
        ops.append(&mut self.sync_queue.lock());
        self.with(|core, now, after| {
            core.drain(&mut ops, now, after);
            core.close(now, after)
        })
    }
}

fn tell(waiters: Vec<oneshot::Sender<()>>) {
    for waiter in waiters {
        // Nobody waits any more: fine.
        let _ = waiter.send(());
    }
}
