//! The message log on this machine's disk: `acb-log` behind the port. Nothing is decided here; opening and removing go to
//! a blocking thread, and the log's errors become the port's.

use std::{path::Path, sync::Arc, time::Duration};

use acb_log::{DataDir, DataDirOptions, Disk, LogError, LogOptions, OpenedLog};
use acb_ports::{
    Clock, StoreError,
    message_log::{LogReader, MessageLog, Opened, PartitionLog, SnapshotPart, SyncTicket},
};
use acb_types::{
    ClassId, ErrorCode, PartitionId, TenantId, Timestamp,
    batch::{Batch, Outcome, Parts, ReadBlock, ReadRequest},
    position::{Epoch, Seq},
};
use async_trait::async_trait;
use bytes::Bytes;

type Result<T> = std::result::Result<T, StoreError>;

/// Most bytes of a tenant's inboxes.
pub const INBOX_BYTES: u64 = 4 << 30;
/// Most bytes of a tenant's published messages.
pub const TOPICS_BYTES: u64 = 8 << 30;
/// How long a published message is kept that everybody has had.
pub const TOPICS_AGE: Duration = Duration::from_hours(7 * 24);
/// Most bytes of a tenant's dead letters.
pub const DEAD_LETTERS_BYTES: u64 = 1 << 30;

/// Sizes of the logs.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddedLogConfig {
    /// Most bytes of a tenant's inboxes; then sends are `storage_full`.
    pub inbox_bytes_max: u64,
    /// Most bytes of a tenant's published messages; then the oldest go.
    pub topics_bytes_max: u64,
    /// How long a published message is kept that everybody has had.
    pub topics_age: Duration,
    /// Most bytes of a tenant's dead letters; then the oldest go.
    pub dead_letters_bytes_max: u64,
    /// Limits of the data folder as a whole.
    pub folder: DataDirOptions,
}

impl Default for EmbeddedLogConfig {
    fn default() -> Self {
        Self {
            inbox_bytes_max: INBOX_BYTES,
            topics_bytes_max: TOPICS_BYTES,
            topics_age: TOPICS_AGE,
            dead_letters_bytes_max: DEAD_LETTERS_BYTES,
            folder: DataDirOptions::default(),
        }
    }
}

impl EmbeddedLogConfig {
    /// Settings of a class's logs.
    fn options(&self, class: ClassId) -> LogOptions {
        match class {
            ClassId::INBOX => LogOptions::of_class(class, self.inbox_bytes_max),
            ClassId::DEAD_LETTERS => LogOptions::of_class(class, self.dead_letters_bytes_max),
            _ => {
                let mut options = LogOptions::of_class(class, self.topics_bytes_max);
                options.retention.age = Some(self.topics_age);
                options
            }
        }
    }
}

/// Segment logs in a data folder that this process holds.
#[derive(Debug)]
pub struct EmbeddedLog {
    folder: Arc<DataDir>,
    clock: Arc<dyn Clock>,
    config: EmbeddedLogConfig,
}

impl EmbeddedLog {
    /// Takes the data folder on a disk, making it when it is absent. Blocks. The folder is held for as long as this, or
    /// any partition of it, lives. The clock tells recovery which idempotency keys are still known.
    ///
    /// # Errors
    /// `invalid_state` when another server holds the folder or its format is another; storage errors.
    pub fn open(disk: Arc<dyn Disk>, path: &Path, config: EmbeddedLogConfig, clock: Arc<dyn Clock>) -> Result<Self> {
        let folder = DataDir::open(disk, path, config.folder).map_err(store)?;
        Ok(Self { folder: Arc::new(folder), clock, config })
    }

    /// Does work that may wait for the disk.
    async fn blocking<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&DataDir) -> acb_log::Result<T> + Send + 'static,
    ) -> Result<T> {
        let folder = Arc::clone(&self.folder);
        let done = tokio::task::spawn_blocking(move || work(&folder)).await;
        done.map_err(|e| StoreError::new(ErrorCode::Unavailable, operation, format!("the work was given up: {e}")))?
            .map_err(store)
    }
}

#[async_trait]
impl MessageLog for EmbeddedLog {
    async fn open(&self, partition: &PartitionId) -> Result<Opened> {
        let (id, options, now) = (partition.clone(), self.config.options(partition.class), self.clock.now().wall);
        let OpenedLog { log, state } =
            self.blocking("log.open", move |folder| folder.open_log(&id, options, now)).await?;
        let log = Partition { log, _folder: Arc::clone(&self.folder) };
        Ok(Opened { log: Box::new(log), state })
    }

    async fn partitions(&self) -> Result<Vec<PartitionId>> {
        self.blocking("log.partitions", DataDir::partitions).await
    }

    async fn remove_tenant(&self, tenant: &TenantId) -> Result<()> {
        let tenant = tenant.clone();
        self.blocking("log.remove_tenant", move |folder| folder.remove_tenant(&tenant)).await
    }
}

/// Opens one partition of a folder with settings of the caller's own, on the caller's thread. For simulations.
///
/// # Errors
/// As [`MessageLog::open`].
pub fn open_partition(folder: &Arc<DataDir>, id: &PartitionId, options: LogOptions, now: Timestamp) -> Result<Opened> {
    let OpenedLog { log, state } = folder.open_log(id, options, now).map_err(store)?;
    Ok(Opened { log: Box::new(Partition { log, _folder: Arc::clone(folder) }), state })
}

/// The log's error as the port's.
fn store(e: LogError) -> StoreError {
    let error = StoreError::new(e.code, e.operation, e.message);
    match e.source {
        Some(source) => error.with_source(source),
        None => error,
    }
}

/// One open log. Dropped before the folder, so that the folder's lock outlives it.
#[derive(Debug)]
struct Partition {
    log: acb_log::Log,
    _folder: Arc<DataDir>,
}

impl PartitionLog for Partition {
    fn epoch(&self) -> Epoch {
        self.log.epoch()
    }

    fn next_seq(&self) -> Seq {
        self.log.next_seq()
    }

    fn first_seq(&self) -> Seq {
        self.log.first_seq()
    }

    fn written_end(&self) -> Seq {
        self.log.written_end()
    }

    fn synced_end(&self) -> Seq {
        self.log.synced_end()
    }

    fn bytes(&self) -> u64 {
        self.log.bytes()
    }

    fn stage(&mut self, batch: Batch, now: Timestamp) -> Result<Parts> {
        self.log.stage(batch, now).map_err(store)
    }

    fn repeat(&mut self, one: &Batch, now: Timestamp) -> Option<Outcome> {
        self.log.repeat(one, now)
    }

    fn stage_state(&mut self, record: Bytes, snapshot: SnapshotPart) -> Result<()> {
        self.log.stage_state(record, part(snapshot)).map_err(store)
    }

    fn has_staged(&self) -> bool {
        self.log.has_staged()
    }

    fn write(&mut self) -> Result<()> {
        self.log.write().map_err(store)
    }

    fn sync_begin(&mut self) -> Option<Box<dyn SyncTicket>> {
        self.log.sync_begin().map(|ticket| Box::new(Ticket(ticket)) as Box<dyn SyncTicket>)
    }

    fn sync_end(&mut self, ticket: Box<dyn SyncTicket>) -> Result<()> {
        match ticket.into_any().downcast::<Ticket>() {
            Ok(ticket) => self.log.sync_end(ticket.0).map_err(store),
            Err(_) => Err(StoreError::new(ErrorCode::Internal, "log.sync", "a ticket of another log")),
        }
    }

    fn wants_snapshot(&self) -> bool {
        self.log.wants_snapshot()
    }

    fn wants_retain(&self) -> bool {
        self.log.wants_retain()
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        Arc::new(Reader(self.log.reader()))
    }

    fn retain(&mut self, floor: Seq, now: Timestamp) -> Result<Seq> {
        self.log.retain(floor, now).map_err(store)
    }

    fn close(&mut self) -> Result<()> {
        self.log.close().map_err(store)
    }
}

fn part(snapshot: SnapshotPart) -> acb_log::SnapshotPart {
    match snapshot {
        SnapshotPart::None => acb_log::SnapshotPart::None,
        SnapshotPart::First => acb_log::SnapshotPart::First,
        SnapshotPart::Middle => acb_log::SnapshotPart::Middle,
        SnapshotPart::Last => acb_log::SnapshotPart::Last,
        SnapshotPart::Whole => acb_log::SnapshotPart::Whole,
    }
}

#[derive(Debug)]
struct Ticket(acb_log::SyncTicket);

impl SyncTicket for Ticket {
    fn run(&mut self) {
        self.0.run();
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any + Send> {
        self
    }
}

#[derive(Debug)]
struct Reader(acb_log::Reader);

impl LogReader for Reader {
    fn read(&self, request: &ReadRequest) -> Result<ReadBlock> {
        self.0.read(request).map_err(store)
    }

    fn seq_at(&self, time: Timestamp) -> Result<Seq> {
        self.0.seq_at(time).map_err(store)
    }

    fn first_seq(&self) -> Seq {
        self.0.first_seq()
    }

    fn read_bytes(&self) -> u64 {
        self.0.read_bytes()
    }
}

#[cfg(test)]
mod tests {
    use acb_log::{AtCap, KeyWindow};

    use super::*;

    #[test]
    fn inboxes_refuse_at_their_cap_and_the_others_drop_their_oldest() {
        let config = EmbeddedLogConfig {
            inbox_bytes_max: 1,
            topics_bytes_max: 2,
            topics_age: Duration::from_mins(3),
            dead_letters_bytes_max: 4,
            ..EmbeddedLogConfig::default()
        };
        let inbox = config.options(ClassId::INBOX).retention;
        assert_eq!((inbox.bytes, inbox.at_cap, inbox.consumed_goes), (1, AtCap::Refuse, true));
        let topics = config.options(ClassId::TOPICS).retention;
        assert_eq!((topics.bytes, topics.at_cap, topics.age), (2, AtCap::DropOldest, Some(Duration::from_mins(3))));
        let dead = config.options(ClassId::DEAD_LETTERS);
        assert_eq!((dead.retention.bytes, dead.retention.at_cap), (4, AtCap::DropOldest));
        assert_eq!(
            dead.key_window,
            KeyWindow::WhileKept,
            "a dead letter is appended once, however late it is tried again"
        );
        assert_eq!(config.options(ClassId(7)).retention, topics, "classes that tenants name are topics");
    }
}
