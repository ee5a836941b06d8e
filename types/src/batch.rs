//! What goes into a log and comes out of it: the shapes that engine, log, ports and stores share.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::{
    error_code::ErrorCode,
    frame::Runs,
    id::{AgentId, Incarnation, ProducerKey, SubscriptionId},
    name::{SubscriptionName, TopicFilter},
    position::{Epoch, Seq},
    time::Timestamp,
};

/// Who sent a batch. Known from the session, never from the frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The agent.
    pub agent: AgentId,
    /// Its incarnation; 0 when it had not registered.
    pub incarnation: Incarnation,
}

/// One message's idempotency key, hashed at the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keyed {
    /// Which message of the batch, from 0.
    pub index: u32,
    /// Digest of (agent, key): first 128 bits of a SHA-256.
    pub key: u128,
    /// Digest of (topic, payload): tells a repeat from a conflict.
    pub body: u64,
}

/// Messages to be appended together: one sender, one producer session, consecutive counters.
#[derive(Clone, Debug)]
pub struct Batch {
    /// How many messages.
    pub count: u32,
    /// Union of [`crate::frame::flag`]s.
    pub flags: u16,
    /// The messages as they came, checked by [`crate::frame::walk`].
    pub body: Bytes,
    /// The messages as runs of one topic.
    pub runs: Runs,
    /// Who sent them.
    pub sender: Arc<Sender>,
    /// The producer session, or [`ProducerKey::NONE`].
    pub producer: ProducerKey,
    /// The producer session's epoch.
    pub producer_epoch: u32,
    /// The first message's number in the producer session; 0 without one.
    pub counter: u64,
    /// Keys of the messages that have one, in rising order of index.
    pub keys: SmallVec<[Keyed; 0]>,
}

/// What became of consecutive messages of a batch when it was staged.
#[derive(Clone, Debug)]
pub struct Part {
    /// The first of them, as an index into the batch.
    pub index: u32,
    /// How many.
    pub count: u32,
    /// What became of them.
    pub outcome: Outcome,
}

/// What became of messages when they were staged.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// They will be stored at `first_seq` and on; durable only when the log says so.
    Stored {
        /// Seq of the first.
        first_seq: Seq,
        /// Their bytes.
        body: Bytes,
        /// Their runs, offsets counted from the start of `body`.
        runs: Runs,
    },
    /// They were stored before; answered with the first position. `None` when it is so old that it is not known.
    Duplicate {
        /// Seq that the first of them got then.
        first_seq: Option<Seq>,
    },
    /// Not stored, and this is why: `producer_fenced`, `idempotency_conflict`, `idempotency_keys_exhausted`,
    /// `producers_exhausted`.
    Refused(ErrorCode),
}

/// Parts of a batch, in order; nearly always one.
pub type Parts = SmallVec<[Part; 1]>;

/// Facts of stored messages that are not in their bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The log's epoch when they were stored.
    pub epoch: Epoch,
    /// When they were stored.
    pub stored_at: Timestamp,
    /// Who sent them.
    pub sender: Arc<Sender>,
    /// Union of [`crate::frame::flag`]s over the batch they came in.
    pub flags: u16,
}

/// Consecutive messages of one topic, as stored or read.
#[derive(Clone, Debug)]
pub struct StoredRun {
    /// Seq of the first.
    pub first_seq: Seq,
    /// How many.
    pub count: u32,
    /// Their topic.
    pub topic: Bytes,
    /// Their bytes, tags included.
    pub body: Bytes,
    /// What is known of them.
    pub facts: Arc<Facts>,
}

/// Seqs that are not in the log any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The first that is missing.
    pub from_seq: Seq,
    /// The first that is there again.
    pub to_seq: Seq,
}

/// What to read from a log.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    /// First seq wanted.
    pub from_seq: Seq,
    /// First seq not wanted: the visible end.
    pub end_seq: Seq,
    /// Topics wanted; any of these filters.
    pub filters: Arc<[TopicFilter]>,
    /// Most messages; at least 1.
    pub messages_max: u32,
    /// Most bytes; the first message is given whatever its size.
    pub bytes_max: u64,
}

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct ReadBlock {
    /// Messages whose topic is wanted, in order.
    pub runs: Vec<StoredRun>,
    /// Set when `from_seq` had been trimmed.
    pub gap: Option<Gap>,
    /// Where the next read starts: everything wanted below it is in `runs`.
    pub next_seq: Seq,
}

/// What happens to a message that failed too often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeadLetterPolicy {
    /// Kept as a dead letter.
    #[default]
    Keep,
    /// Dropped and counted.
    Drop,
}

/// Where a new subscription begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartAt {
    /// At the end: new messages only.
    #[default]
    New,
    /// At the beginning of what is kept.
    All,
    /// At a seq of the partition.
    Sequence(Seq),
    /// At the first message stored at or after a time.
    Time(Timestamp),
}

/// A subscription's rules, as the engine needs them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionDef {
    /// Its number in the tenant.
    pub id: SubscriptionId,
    /// Its name.
    pub name: SubscriptionName,
    /// What it hears, its redrive topic included.
    pub filters: Arc<[TopicFilter]>,
    /// How long a consumer has for one message.
    pub ack_wait: Duration,
    /// Waits before redeliveries; the last repeats. Not empty.
    pub retry_schedule: Arc<[Duration]>,
    /// Attempts before a message is dead; at least 1.
    pub max_attempts: u32,
    /// What becomes of the dead.
    pub dead_letters: DeadLetterPolicy,
    /// Messages leased or waiting for a retry at once, over all consumers.
    pub max_leased: u32,
    /// Lives with its session: its state is not journaled.
    pub ephemeral: bool,
}
