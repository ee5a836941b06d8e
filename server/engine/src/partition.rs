//! Signatures; bodies follow.
#![expect(clippy::todo, unused_variables, reason = "being laid down")]
use std::sync::Arc;

use acb_types::{
    MessageId, Now, SubscriptionId,
    batch::{Facts, ReadBlock, SubscriptionDef},
    error_code::ErrorCode,
    frame::Runs,
    position::Seq,
};
use bytes::Bytes;
use smallvec::SmallVec;

use crate::{
    Connected, Corrupt, Counts, Credit, Effects, EngineConfig, JournalMark, MessageState, Plan, SessionDef, SessionKey,
    Settlement, Totals,
};

/// The delivery engine of one partition.
#[derive(Debug)]
pub struct Engine {}

impl Engine {
    /// An engine without subscriptions, at the start of an empty log.
    pub fn new(config: EngineConfig) -> Self { todo!() }
    /// Takes up the state of an earlier engine from its records: those of [`Self::snapshot`], then those of
    /// [`Self::take_journal`]. `defs` are the subscriptions there are, each with the seq it was made at. Call
    /// [`Self::dead`] for what the dead-letter log says, then [`Self::advance`] once.
    pub fn restore(&mut self, records: &[Bytes], defs: &[(SubscriptionDef, Seq)], first_seq: Seq, end_seq: Seq, now: Now) -> Result<(), Corrupt> { todo!() }
    /// Adds a subscription that hears what is stored from `start` on. One that is there already stays as it is.
    pub fn subscribe(&mut self, def: SubscriptionDef, start: Seq, now: Now) { todo!() }
    /// Removes a subscription; its sessions end and are named.
    pub fn unsubscribe(&mut self, id: SubscriptionId) -> SmallVec<[SessionKey; 1]> { todo!() }
    /// Changes a subscription's rules. New filters count from its cursor on.
    pub fn update(&mut self, def: SubscriptionDef, now: Now, fx: &mut impl Effects) -> bool { todo!() }
    /// Opens or resumes a session.
    pub fn connect(&mut self, subscription: SubscriptionId, def: SessionDef, now: Now, fx: &mut impl Effects) -> Result<Connected, ErrorCode> { todo!() }
    /// The connection is lost: leases wait for the same session.
    pub fn disconnect(&mut self, session: SessionKey, now: Now, fx: &mut impl Effects) { todo!() }
    /// The consumer leaves: leases end at once, uncounted.
    pub fn leave(&mut self, session: SessionKey, now: Now, fx: &mut impl Effects) { todo!() }
    /// Changes a session's window.
    pub fn credit(&mut self, session: SessionKey, credit: Credit, now: Now, fx: &mut impl Effects) { todo!() }
    /// Messages became visible.
    pub fn appended(&mut self, first_seq: Seq, body: &Bytes, runs: &Runs, facts: &Arc<Facts>, now: Now, fx: &mut impl Effects) { todo!() }
    /// A consumer settles.
    pub fn settle(&mut self, session: SessionKey, settlement: Settlement<'_>, now: Now, fx: &mut impl Effects) { todo!() }
    /// Time passed.
    pub fn advance(&mut self, now: Now, fx: &mut impl Effects) { todo!() }
    /// When [`Self::advance`] has something to do, on the monotonic clock; may be early, never late.
    pub fn next_timer(&self) -> Option<u64> { todo!() }
    /// What a session may read now.
    pub fn plan(&mut self, session: SessionKey, now: Now) -> Option<Plan> { todo!() }
    /// Leases and delivers what was read.
    pub fn commit(&mut self, plan: Plan, block: ReadBlock, now: Now, fx: &mut impl Effects) { todo!() }
    /// A read failed: it is tried again a second later.
    pub fn abandon(&mut self, plan: Plan, now: Now) { todo!() }
    /// The dead letter is durable (`None`: dropped by policy).
    pub fn dead(&mut self, subscription: SubscriptionId, seq: Seq, dead_letter: Option<MessageId>, now: Now, fx: &mut impl Effects) { todo!() }
    /// Settles without a lease; says whether that changed anything. `slow_down` when too much is settled ahead.
    pub fn settle_direct(&mut self, subscription: SubscriptionId, seq: Seq, now: Now, fx: &mut impl Effects) -> Result<bool, ErrorCode> { todo!() }
    /// Whether a message is settled for a subscription. `false` for an unknown subscription.
    pub fn is_settled(&self, subscription: SubscriptionId, seq: Seq) -> bool { todo!() }
    /// State records since the last call, at most 1 MiB; call until `None`.
    pub fn take_journal(&mut self) -> Option<(JournalMark, Bytes)> { todo!() }
    /// Whether [`Self::take_journal`] has something.
    pub fn has_journal(&self) -> bool { todo!() }
    /// Everything up to a mark is durable: answers confirmed acks.
    pub fn journal_durable(&mut self, mark: JournalMark, fx: &mut impl Effects) { todo!() }
    /// What was taken and is not durable is lost (a failed write that heals): it is journaled anew.
    pub fn journal_lost(&mut self) { todo!() }
    /// The whole state, in parts of at most 1 MiB.
    pub fn snapshot(&self) -> Vec<Bytes> { todo!() }
    /// Lowest seq that a durable subscription still needs.
    pub fn floor(&self) -> Seq { todo!() }
    /// The log's head was trimmed.
    pub fn trimmed(&mut self, first_seq: Seq, now: Now, fx: &mut impl Effects) { todo!() }
    /// Where a message stands, by subscription name.
    pub fn status(&mut self, topic: &str, seq: Seq, now: Now) -> Vec<MessageState> { todo!() }
    /// Whether any subscription hears a topic.
    pub fn hears(&mut self, topic: &str) -> bool { todo!() }
    /// Whether a connected session with credit hears a topic.
    pub fn has_live_consumer(&mut self, topic: &str) -> bool { todo!() }
    /// A subscription in numbers.
    pub fn counts(&self, subscription: SubscriptionId) -> Option<Counts> { todo!() }
    /// The engine in numbers.
    pub fn totals(&self) -> Totals { todo!() }
}
