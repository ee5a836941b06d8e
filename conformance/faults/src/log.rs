//! Logs that lie about what they keep.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use acb_ports::{LogReader, MessageLog, Opened, PartitionLog, SnapshotPart, StoreError, SyncTicket, memory::MemoryLog};
use acb_types::{
    PartitionId, ProducerKey, TenantId, Timestamp,
    batch::{Batch, Outcome, Parts, ReadBlock, ReadRequest},
    frame,
    position::{Epoch, Seq},
};
use async_trait::async_trait;
use bytes::Bytes;

/// What a log lies about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLie {
    /// It does not know a producer's counters again.
    NoCounters,
    /// After a restart it does not know idempotency keys again.
    ForgetsKeys,
    /// After a restart it gives no state records back.
    ForgetsState,
    /// After a restart it is empty.
    ForgetsEverything,
    /// A read leaves the last message of a block out.
    SkipsOnRead,
}

/// Puts lying logs before the fake's, one at each start.
#[derive(Debug)]
pub(crate) struct Liar {
    lie: LogLie,
    starts: AtomicU64,
}

impl Liar {
    pub(crate) fn new(lie: LogLie) -> Self {
        Self { lie, starts: AtomicU64::new(0) }
    }

    pub(crate) fn around(&self, inner: Arc<dyn MessageLog>) -> Arc<dyn MessageLog> {
        let start = self.starts.fetch_add(1, Ordering::Relaxed);
        if self.lie == LogLie::ForgetsEverything {
            return Arc::new(MemoryLog::new());
        }
        Arc::new(LyingLog { inner, lie: self.lie, start })
    }
}

#[derive(Debug)]
struct LyingLog {
    inner: Arc<dyn MessageLog>,
    lie: LogLie,
    start: u64,
}

#[async_trait]
impl MessageLog for LyingLog {
    async fn open(&self, partition: &PartitionId) -> Result<Opened, StoreError> {
        let mut opened = self.inner.open(partition).await?;
        if self.lie == LogLie::ForgetsState {
            opened.state.clear();
        }
        opened.log = Box::new(LyingPartition { inner: opened.log, lie: self.lie, start: self.start });
        Ok(opened)
    }

    async fn partitions(&self) -> Result<Vec<PartitionId>, StoreError> {
        self.inner.partitions().await
    }

    async fn remove_tenant(&self, tenant: &TenantId) -> Result<(), StoreError> {
        self.inner.remove_tenant(tenant).await
    }
}

struct LyingPartition {
    inner: Box<dyn PartitionLog>,
    lie: LogLie,
    start: u64,
}

impl fmt::Debug for LyingPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LyingPartition").field("lie", &self.lie).finish_non_exhaustive()
    }
}

impl LyingPartition {
    fn told(&self, mut batch: Batch) -> Batch {
        match self.lie {
            LogLie::NoCounters => {
                batch.producer = ProducerKey::NONE;
                batch.counter = 0;
            }
            LogLie::ForgetsKeys => batch.keys.iter_mut().for_each(|keyed| keyed.key ^= u128::from(self.start) << 64),
            _ => {}
        }
        batch
    }
}

impl PartitionLog for LyingPartition {
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
        let batch = self.told(batch);
        self.inner.stage(batch, now)
    }

    fn repeat(&mut self, one: &Batch, now: Timestamp) -> Option<Outcome> {
        let one = self.told(one.clone());
        self.inner.repeat(&one, now)
    }

    fn stage_state(&mut self, record: Bytes, snapshot: SnapshotPart) -> Result<(), StoreError> {
        self.inner.stage_state(record, snapshot)
    }

    fn has_staged(&self) -> bool {
        self.inner.has_staged()
    }

    fn write(&mut self) -> Result<(), StoreError> {
        self.inner.write()
    }

    fn sync_begin(&mut self) -> Option<Box<dyn SyncTicket>> {
        self.inner.sync_begin()
    }

    fn sync_end(&mut self, ticket: Box<dyn SyncTicket>) -> Result<(), StoreError> {
        self.inner.sync_end(ticket)
    }

    fn wants_snapshot(&self) -> bool {
        self.inner.wants_snapshot()
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        let reader = self.inner.reader();
        if self.lie == LogLie::SkipsOnRead { Arc::new(SkippingReader(reader)) } else { reader }
    }

    fn wants_retain(&self) -> bool {
        self.inner.wants_retain()
    }

    fn retain(&mut self, floor: Seq, now: Timestamp) -> Result<Seq, StoreError> {
        self.inner.retain(floor, now)
    }

    fn close(&mut self) -> Result<(), StoreError> {
        self.inner.close()
    }
}

#[derive(Debug)]
struct SkippingReader(Arc<dyn LogReader>);

impl LogReader for SkippingReader {
    fn read(&self, request: &ReadRequest) -> Result<ReadBlock, StoreError> {
        let mut block = self.0.read(request)?;
        let messages: u32 = block.runs.iter().map(|run| run.count).sum();
        if messages > 1
            && let Some(run) = block.runs.last_mut()
        {
            if run.count == 1 {
                block.runs.pop();
            } else {
                run.count -= 1;
                run.body.truncate(frame::prefix_len(&run.body, run.count));
            }
        }
        Ok(block)
    }

    fn seq_at(&self, time: Timestamp) -> Result<Seq, StoreError> {
        self.0.seq_at(time)
    }

    fn first_seq(&self) -> Seq {
        self.0.first_seq()
    }

    fn read_bytes(&self) -> u64 {
        self.0.read_bytes()
    }
}
