//! The message log: one append-only log per (tenant, class, partition).
//!
//! Written at the weakest guarantee that an embedded segment log and Kafka with one writing owner per partition can
//! both keep. Clauses are quoted by the contract suite.
//!
//! - LOG-1  Seqs strictly rise within a partition from 1; gaps are legal; a seq once returned by anybody is never
//!   given to another message, whatever is killed.
//! - LOG-2  A repeated batch of the same (producer, epoch, counter) is answered with its first seqs and stored once,
//!   also across a reopen, for at least the last `PRODUCER_RANGES_MAX` ranges of a producer.
//! - LOG-3  What lies below `written_end()` survives kill -9 of the process; below `synced_end()` also a power cut.
//!   Both only rise.
//! - LOG-4  Reading gives messages in seq order, each exactly as it was staged, and never one at or after `end_seq`.
//! - LOG-5  Reading below the trimmed floor gives a gap that says where the log begins again, never silence.
//! - LOG-6  A state record is durable with the first sync after it was staged, in order with the batches around it, and
//!   is given back by the next open: all since the last complete snapshot, and that snapshot first.
//! - LOG-7  An idempotency key is checked and appended in one step: of any number of repeats inside the window one is
//!   stored; another body under the key is refused.
//! - LOG-8  After a failed write or sync every later append to that partition is refused until it is opened anew;
//!   reads go on. A full or read-only disk refuses appends with a typed error, leaves nothing half stored, and heals.
//! - LOG-9  `trim_before` never removes a seq at or above its argument; trimming twice is trimming once.
//! - LOG-10 Partitions share nothing: damage, fullness by quota and removal of one leave the others as they were.
//!
//! Not in this port: delivery, groups, deletion of single messages, a seq across partitions, transactions with metadata.

use std::{fmt, sync::Arc};

use acb_types::{
    PartitionId, Timestamp,
    batch::{Batch, Outcome, Parts, ReadBlock, ReadRequest},
    position::{Epoch, Seq},
};
use async_trait::async_trait;
use bytes::Bytes;

use crate::error::StoreError;

/// Opens partitions. One owner per partition: opening one that is open is an error.
#[async_trait]
pub trait MessageLog: Send + Sync + fmt::Debug + 'static {
    /// Opens a partition, making it when it is absent, and recovers it.
    ///
    /// # Errors
    /// `data_damaged` when a fault lies at or below what was synced: that partition refuses, others open.
    async fn open(&self, partition: &PartitionId) -> Result<Opened, StoreError>;

    /// Partitions that are there, in order.
    async fn partitions(&self) -> Result<Vec<PartitionId>, StoreError>;

    /// Removes all partitions of a tenant with their data. They must be closed. Removing what is absent succeeds.
    async fn remove_tenant(&self, tenant: &acb_types::TenantId) -> Result<(), StoreError>;
}

/// A partition that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The log.
    pub log: Box<dyn PartitionLog>,
    /// State records: those of the last complete snapshot, then all after it, in order.
    pub state: Vec<Bytes>,
}

/// A partition's log in the hands of its one owner. Synchronous: `stage` touches memory only, `write` costs one system
/// call, and the slow part of a sync runs outside, in a [`SyncTicket`].
pub trait PartitionLog: Send + fmt::Debug {
    /// The present epoch.
    fn epoch(&self) -> Epoch;
    /// Seq that the next message will get.
    fn next_seq(&self) -> Seq;
    /// First seq that is kept; equals `next_seq` when nothing is.
    fn first_seq(&self) -> Seq;
    /// Everything below is handed to the operating system.
    fn written_end(&self) -> Seq;
    /// Everything below is on stable storage.
    fn synced_end(&self) -> Seq;
    /// Bytes on disk.
    fn bytes(&self) -> u64;

    /// Takes a batch in: checks producer and keys, gives seqs. Nothing is durable yet; nothing may be shown to anybody.
    ///
    /// # Errors
    /// `storage_full`, `storage_read_only`, `storage_failed`: nothing was taken.
    fn stage(&mut self, batch: Batch, now: Timestamp) -> Result<Parts, StoreError>;

    /// What is known of a batch of one message that repeats one which was taken in before: `Duplicate`, or `Refused` as
    /// [`Self::stage`] would. `None` when it is new. Takes nothing in.
    fn repeat(&mut self, one: &Batch, now: Timestamp) -> Option<Outcome>;

    /// Takes a state record in, at most 1 MiB. `snapshot` says that it is part of the snapshot that was asked for.
    ///
    /// # Errors
    /// As [`Self::stage`].
    fn stage_state(&mut self, record: Bytes, snapshot: SnapshotPart) -> Result<(), StoreError>;

    /// Whether anything staged waits to be written.
    fn has_staged(&self) -> bool;

    /// Writes all that is staged. Raises `written_end`.
    ///
    /// # Errors
    /// `storage_full` and `storage_read_only` heal: all that was staged since the last write is dropped, its seqs stay
    /// unused, and a later write may succeed. `storage_failed` does not heal.
    fn write(&mut self) -> Result<(), StoreError>;

    /// Starts a sync of all that is written; `None` when there is nothing to sync. The ticket runs on another thread,
    /// while staging and writing go on, and comes back to [`Self::sync_end`].
    fn sync_begin(&mut self) -> Option<Box<dyn SyncTicket>>;

    /// Ends a sync: raises `synced_end` to what the ticket covered, or gives the log up when it failed.
    ///
    /// # Errors
    /// `storage_failed` after a failed sync, now and for every later call that appends.
    fn sync_end(&mut self, ticket: Box<dyn SyncTicket>) -> Result<(), StoreError>;

    /// Whether the log wants a snapshot of the delivery state (a segment began). Asked after each write.
    fn wants_snapshot(&self) -> bool;

    /// A reader that can be used from any thread, while appends go on.
    fn reader(&self) -> Arc<dyn LogReader>;

    /// Whether [`Self::retain`] may find something at once, because a segment was finished and the log is over its bytes:
    /// then it is called after the next sync and not only in its turn, so that a busy log at its bound goes on in the
    /// blocks that it gives up. A store whose retention runs by itself never wants it.
    fn wants_retain(&self) -> bool {
        false
    }

    /// Drops what retention allows, whole segments at a time: what is older than the class's age, or over its bytes, and
    /// lies below `floor` (or anywhere, where the class drops its oldest at the cap). Answers the new first seq.
    ///
    /// # Errors
    /// `storage_failed`.
    fn retain(&mut self, floor: Seq, now: Timestamp) -> Result<Seq, StoreError>;

    /// Writes, syncs and marks the log as cleanly closed.
    ///
    /// # Errors
    /// As [`Self::write`] and [`Self::sync_end`].
    fn close(&mut self) -> Result<(), StoreError>;
}

/// Which part of a snapshot a state record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotPart {
    /// None: an ordinary record.
    None,
    /// The first record of a snapshot.
    First,
    /// One in the middle.
    Middle,
    /// The last: the snapshot is complete.
    Last,
    /// First and last at once.
    Whole,
}

/// The slow part of a sync.
pub trait SyncTicket: Send + fmt::Debug {
    /// Flushes to stable storage. Blocks; may run on any thread; called once.
    fn run(&mut self);
    /// For the log's own downcast in `sync_end`.
    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any + Send>;
}

/// Reads a partition.
pub trait LogReader: Send + Sync + fmt::Debug {
    /// Reads messages of wanted topics. At most about 256 KiB are held at once. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// `data_damaged` names segment and offset.
    fn read(&self, request: &ReadRequest) -> Result<ReadBlock, StoreError>;

    /// First seq stored at or after a time; the end when there is none.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn seq_at(&self, time: Timestamp) -> Result<Seq, StoreError>;

    /// First seq that is kept.
    fn first_seq(&self) -> Seq;

    /// Bytes that reads of the partition took from where it is kept since it was opened, by any reader; 0 where it is
    /// kept in memory. For metrics: what reading costs, as against what it gives.
    fn read_bytes(&self) -> u64;
}
