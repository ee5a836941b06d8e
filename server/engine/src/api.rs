//! What goes into the engine and comes out of it: the words that its runner and a simulation share.

use std::{fmt, sync::Arc, time::Duration};

use acb_types::{
    AgentId, Incarnation, MessageId, SubscriptionId, SubscriptionName, Timestamp,
    batch::{DeadLetterPolicy, Facts, Gap, ReadRequest},
    envelope::Text,
    error_code::ErrorCode,
    limits,
    position::Seq,
};
use bytes::Bytes;
use smallvec::SmallVec;

/// One connection of one consumer, as the engine names it. Stale keys are recognised: what is done with the key of a
/// connection that was fenced or is gone does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// What may be with one consumer at once: a window, not a count of things still to come. Settlements give it back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credit {
    /// Messages. With 0 nothing is delivered.
    pub messages: u32,
    /// Bytes. One message is always let through while nothing is leased.
    pub bytes: u64,
}

/// Who connects, and what it says of an earlier connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionDef {
    /// Chosen by the client, the same over its reconnects.
    pub token: [u8; limits::SESSION_ID_BYTES],
    /// The agent.
    pub agent: AgentId,
    /// Its incarnation; 0 when it did not register.
    pub incarnation: Incarnation,
    /// What may be with it at once.
    pub credit: Credit,
    /// On a resume: the number of the last delivery that arrived. `None` counts as 0: nothing arrived.
    pub resume_delivery: Option<u64>,
}

/// Answer to a connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    /// The connection's key.
    pub session: SessionKey,
    /// Whether leases and delivery numbers of an earlier connection go on.
    pub resumed: bool,
    /// Connections that ended by this one: the same token's, and those of older incarnations of the agent.
    pub fenced: SmallVec<[SessionKey; 1]>,
}

/// Consecutive messages for one consumer.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Seq of the first.
    pub first_seq: Seq,
    /// How many.
    pub count: u32,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// Number of the first message in the session, from 1, dense.
    pub delivery: u64,
    /// The messages as they were published.
    pub body: Bytes,
    /// What is known of them.
    pub facts: Arc<Facts>,
}

/// Consecutive seqs, as consumers name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeqRange {
    /// The first.
    pub first_seq: Seq,
    /// How many.
    pub count: u32,
}

impl SeqRange {
    /// One seq.
    pub const fn one(seq: Seq) -> Self {
        Self { first_seq: seq, count: 1 }
    }

    /// First seq after it.
    pub const fn end(self) -> Seq {
        self.first_seq.saturating_add(self.count as u64)
    }
}

/// What a consumer says of messages that it was given.
#[derive(Clone, Copy, Debug)]
pub enum Settlement<'a> {
    /// Done.
    Ack(SeqRange),
    /// Done, and [`Effects::settled`] says so when it is durable.
    ConfirmedAck(SeqRange),
    /// Failed. Without a delay (or with none to speak of) the retry schedule decides.
    Nack {
        /// Which.
        range: SeqRange,
        /// Wait before the next attempt.
        delay: Option<Duration>,
        /// What went wrong.
        reason: &'a str,
    },
    /// Still at work: the lease starts anew.
    Progress(SeqRange),
    /// Never to be tried again.
    Term {
        /// Which.
        range: SeqRange,
        /// Why.
        reason: &'a str,
    },
    /// Given back untouched: again at once, not counted.
    Release(SeqRange),
}

impl Settlement<'_> {
    /// The seqs it speaks of.
    pub const fn range(&self) -> SeqRange {
        match *self {
            Self::Ack(r) | Self::ConfirmedAck(r) | Self::Progress(r) | Self::Release(r) => r,
            Self::Nack { range, .. } | Self::Term { range, .. } => range,
        }
    }
}

/// Why a subscription gave a message up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DeathReason {
    /// Its last attempt failed.
    AttemptsExhausted,
    /// A consumer gave it up.
    Terminated,
    /// Its last attempt ended with a lost connection.
    ConnectionLost,
}

impl DeathReason {
    /// Its name in dead letters and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AttemptsExhausted => "attempts_exhausted",
            Self::Terminated => "terminated",
            Self::ConnectionLost => "connection_lost",
        }
    }
}

/// A message that a subscription gave up. The runner reads it, appends its dead letter durably (or drops it, as `policy`
/// says) and then calls [`Engine::dead`](crate::Engine::dead). Until then it is neither delivered nor settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// Its name.
    pub name: SubscriptionName,
    /// The message.
    pub seq: Seq,
    /// Attempts that were made.
    pub attempts: u32,
    /// Why.
    pub reason: DeathReason,
    /// What the last consumer that said anything said.
    pub last_error: Text,
    /// What becomes of it.
    pub policy: DeadLetterPolicy,
}

/// Where the engine's outputs go. Called under the runner's lock: implementations note and return.
pub trait Effects {
    /// Puts messages into a session's outbox.
    fn deliver(&mut self, session: SessionKey, delivery: Delivery);
    /// There is something to read for a session: it is to call [`Engine::plan`](crate::Engine::plan) until it answers
    /// `None`.
    fn kick(&mut self, session: SessionKey);
    /// Answers a settlement: `Ok` for confirmed acks that are durable, an error for what was refused.
    fn settled(&mut self, session: SessionKey, first_seq: Seq, count: u32, result: Result<(), ErrorCode>);
    /// Tells a session what its subscription will never get.
    fn gap(&mut self, session: SessionKey, gap: Gap);
    /// A message is to become a dead letter.
    fn die(&mut self, death: Death);
    /// An ephemeral subscription went with its last session.
    fn ended(&mut self, subscription: SubscriptionId) {
        let _ = subscription;
    }
}

/// What a session may read. Goes back by [`Engine::commit`](crate::Engine::commit) or
/// [`Engine::abandon`](crate::Engine::abandon); while it is out, no other session of the subscription reads.
#[derive(Debug)]
pub struct Plan {
    /// Who reads.
    pub session: SessionKey,
    /// For which subscription.
    pub subscription: SubscriptionId,
    /// What to read.
    pub request: ReadRequest,
    /// What for.
    pub kind: PlanKind,
    pub(crate) ticket: u64,
}

/// What a plan reads for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanKind {
    /// First deliveries, from the subscription's cursor on.
    CatchUp,
    /// Messages that were delivered before.
    Redeliver,
}

/// Names a piece of the journal, in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JournalMark(pub(crate) u64);

/// Where a message stands for a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeliveryState {
    /// Stored, not with anybody now.
    Waiting,
    /// With a consumer, whose lease runs.
    Leased,
    /// Acknowledged.
    Acked,
    /// Given up.
    Dead,
    /// Its time passed before it was acknowledged.
    Expired,
}

/// A message's state for one subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageState {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// Its name.
    pub name: SubscriptionName,
    /// Where it stands.
    pub state: DeliveryState,
    /// Failed or running attempts so far; 0 once it is acknowledged.
    pub attempts: u32,
    /// When it is tried again or its lease ends; not set when neither applies.
    pub due: Timestamp,
    /// Its dead letter.
    pub dead_letter: Option<MessageId>,
}

/// A subscription in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Everything below is settled.
    pub floor: Seq,
    /// Next seq to be delivered for the first time.
    pub cursor: Seq,
    /// Messages with a running lease.
    pub leased: u64,
    /// Messages that wait for a redelivery, or are ready for one.
    pub waiting_retry: u64,
    /// Messages on their way to the dead letters.
    pub dying: u64,
    /// Sessions connected now.
    pub consumers: u32,
    /// Whether it has heard everything there is.
    pub caught_up: bool,
    /// Whether dispatch waits because too much is leased or waiting at once.
    pub full: bool,
}

/// The engine in numbers: gauges, and counters since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Subscriptions.
    pub subscriptions: u64,
    /// Sessions connected now.
    pub sessions: u64,
    /// Messages with a running lease.
    pub leased: u64,
    /// Messages that wait for a redelivery, are ready for one, or die.
    pub returned: u64,
    /// Messages delivered, redeliveries included.
    pub delivered: u64,
    /// Messages delivered again.
    pub redelivered: u64,
    /// Messages acknowledged.
    pub acked: u64,
    /// Attempts that failed by a nack.
    pub nacked: u64,
    /// Attempts that failed because a lease ended.
    pub leases_ended: u64,
    /// Messages given back untouched or by a lost connection.
    pub released: u64,
    /// Messages given up.
    pub died: u64,
    /// Messages whose time passed.
    pub expired: u64,
    /// Settlements refused.
    pub refused: u64,
    /// Redeliveries that retention took before they could be made.
    pub trimmed: u64,
}

/// Settings of an engine.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Seed of the jitter in retry waits.
    pub seed: u64,
    /// How long a lost connection's leases wait for the same session.
    pub session_grace: Duration,
    /// How many lost connections of one message make one failed attempt.
    pub losses_per_attempt: u32,
    /// Bytes that one read may bring.
    pub read_bytes: u64,
    /// Messages older than this are not delivered any more, and count as expired. `None`: only their own expiry counts.
    pub message_ttl: Option<Duration>,
    /// Sessions that may share one subscription.
    pub sessions_per_subscription: usize,
    /// Dead letters, and ranges of expired messages, that are remembered of each subscription.
    pub remembered: usize,
    /// Ranges that may be settled above a subscription's cursor (discarded dead letters).
    pub settled_ahead: usize,
    /// Topics whose subscribers are kept at hand.
    pub cached_topics: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            session_grace: limits::SESSION_GRACE,
            losses_per_attempt: limits::CONNECTION_LOSSES_UNCOUNTED,
            read_bytes: limits::FRAME_BYTES_MAX as u64,
            message_ttl: None,
            sessions_per_subscription: 1024,
            remembered: 1024,
            settled_ahead: 1 << 20,
            cached_topics: 16_384,
        }
    }
}

/// A state record that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("state record {record} is damaged at byte {at}: {what}")]
pub struct Corrupt {
    /// Which record, from 0.
    pub record: usize,
    /// Where in it.
    pub at: usize,
    /// What is wrong.
    pub what: &'static str,
}

impl fmt::Display for DeathReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
