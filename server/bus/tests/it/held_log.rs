//! The log with its syncs held back: what is written and not yet on stable storage can be looked at for as long as a
//! test likes.

use std::{any::Any, sync::Arc, time::Duration};

use acb_ports::{
    MessageLog, PartitionLog, StoreError, SyncTicket,
    message_log::{LogReader, Opened, SnapshotPart},
};
use acb_types::{
    PartitionId, TenantId, Timestamp,
    batch::{Batch, Outcome, Parts},
    position::{ClassId, Epoch, Seq},
};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

/// Longest that a sync is held, so that a test that fails ends.
const HELD_AT_MOST: Duration = Duration::from_secs(20);

/// Holds the syncs of one class back until it is let go: those that would make a seq durable. One that runs before would
/// keep the seq from being written at all, as a log syncs one at a time.
#[derive(Debug)]
pub(crate) struct Hold {
    class: ClassId,
    seq: Seq,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    holding: bool,
    written_end: Seq,
}

impl Hold {
    /// Holds syncs of a class that take in this seq.
    pub(crate) fn of(class: ClassId, seq: Seq) -> Arc<Self> {
        let state = State { holding: true, written_end: 0 };
        Arc::new(Self { class, seq, state: Mutex::new(state), changed: Condvar::new() })
    }

    /// Everything below is written.
    pub(crate) fn written_end(&self) -> Seq {
        self.state.lock().written_end
    }

    /// Lets all syncs go, now and later.
    pub(crate) fn let_go(&self) {
        self.state.lock().holding = false;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut state = self.state.lock();
        while state.holding {
            if self.changed.wait_for(&mut state, HELD_AT_MOST).timed_out() {
                state.holding = false;
            }
        }
    }
}

/// Any log, held.
#[derive(Debug)]
pub(crate) struct HeldLog {
    pub(crate) inner: Arc<dyn MessageLog>,
    pub(crate) hold: Arc<Hold>,
}

#[async_trait::async_trait]
impl MessageLog for HeldLog {
    async fn open(&self, partition: &PartitionId) -> Result<Opened, StoreError> {
        let mut opened = self.inner.open(partition).await?;
        if partition.class == self.hold.class {
            opened.log = Box::new(HeldPartition { inner: opened.log, hold: Arc::clone(&self.hold) });
        }
        Ok(opened)
    }

    async fn partitions(&self) -> Result<Vec<PartitionId>, StoreError> {
        self.inner.partitions().await
    }

    async fn remove_tenant(&self, tenant: &TenantId) -> Result<(), StoreError> {
        self.inner.remove_tenant(tenant).await
    }
}

#[derive(Debug)]
struct HeldPartition {
    inner: Box<dyn PartitionLog>,
    hold: Arc<Hold>,
}

impl PartitionLog for HeldPartition {
    fn epoch(&self) -> Epoch {
        self.inner.epoch()
    }

    fn next_seq(&self) -> Seq {
        self.inner.next_seq()
    }

    fn first_seq(&self) -> Seq {
        self.inner.first_seq()
    }

    fn written_end(&self) -> Seq {
        self.inner.written_end()
    }

    fn synced_end(&self) -> Seq {
        self.inner.synced_end()
    }

    fn bytes(&self) -> u64 {
        self.inner.bytes()
    }

    fn stage(&mut self, batch: Batch, now: Timestamp) -> Result<Parts, StoreError> {
        self.inner.stage(batch, now)
    }

    fn repeat(&mut self, one: &Batch, now: Timestamp) -> Option<Outcome> {
        self.inner.repeat(one, now)
    }

    fn stage_state(&mut self, record: Bytes, snapshot: SnapshotPart) -> Result<(), StoreError> {
        self.inner.stage_state(record, snapshot)
    }

    fn has_staged(&self) -> bool {
        self.inner.has_staged()
    }

    fn write(&mut self) -> Result<(), StoreError> {
        let outcome = self.inner.write();
        self.hold.state.lock().written_end = self.inner.written_end();
        outcome
    }

    fn sync_begin(&mut self) -> Option<Box<dyn SyncTicket>> {
        let takes_it_in = self.inner.written_end() > self.hold.seq;
        let inner = self.inner.sync_begin()?;
        Some(Box::new(HeldTicket { inner, hold: takes_it_in.then(|| Arc::clone(&self.hold)) }))
    }

    fn sync_end(&mut self, ticket: Box<dyn SyncTicket>) -> Result<(), StoreError> {
        let held = ticket.into_any().downcast::<HeldTicket>().expect("a ticket of this log");
        self.inner.sync_end(held.inner)
    }

    fn wants_snapshot(&self) -> bool {
        self.inner.wants_snapshot()
    }

    fn wants_retain(&self) -> bool {
        self.inner.wants_retain()
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        self.inner.reader()
    }

    fn retain(&mut self, floor: Seq, now: Timestamp) -> Result<Seq, StoreError> {
        self.inner.retain(floor, now)
    }

    fn close(&mut self) -> Result<(), StoreError> {
        self.inner.close()
    }
}

#[derive(Debug)]
struct HeldTicket {
    inner: Box<dyn SyncTicket>,
    hold: Option<Arc<Hold>>,
}

impl SyncTicket for HeldTicket {
    fn run(&mut self) {
        if let Some(hold) = &self.hold {
            hold.pass();
        }
        self.inner.run();
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}
