//! Where results wait for the stream that sends them: one outbox a publisher, one a consumer.
//!
//! An outbox is written under the partition's lock and read by the stream's own poll. It needs no bound of its own:
//! acknowledgements merge into ranges and are at most what the publisher has open, deliveries are at most the
//! consumer's credit.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU32, Ordering},
    task::Context,
};

use acb_engine::Delivery;
use acb_types::{
    Durability, ErrorCode,
    batch::Gap,
    position::{ClassId, Epoch, Seq},
};
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::sleeper::{Sleeper, Sleepers};

/// Consecutive messages that were stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acked {
    /// The first message's number in the producer session.
    pub counter: u64,
    /// How many.
    pub count: u32,
    /// The log's class.
    pub class: ClassId,
    /// The log's epoch.
    pub epoch: Epoch,
    /// Seq of the first; 0 when it is a duplicate too old to know.
    pub first_seq: Seq,
    /// Level that was reached.
    pub level: Durability,
    /// Whether they were there before.
    pub duplicate: bool,
}

/// Consecutive messages that were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The first message's number in the producer session.
    pub counter: u64,
    /// How many.
    pub count: u32,
    /// Why.
    pub code: ErrorCode,
}

/// What a publisher is to be told.
#[derive(Debug, Default)]
pub struct PublishNews {
    /// Stored, in order of storing.
    pub acks: SmallVec<[Acked; 2]>,
    /// Refused.
    pub rejects: SmallVec<[Rejected; 0]>,
}

impl PublishNews {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.acks.is_empty() && self.rejects.is_empty()
    }
}

#[derive(Debug, Default)]
struct PublishInner {
    news: PublishNews,
    sleeper: Option<Sleeper>,
}

/// Outbox of a publisher.
#[derive(Debug, Default)]
pub struct PublishOutbox {
    inner: Mutex<PublishInner>,
    /// Appends of this publisher that wait in the committer's queue. While there are any, later appends must queue
    /// behind them, whatever their level: order.
    queued_for_sync: AtomicU32,
}

impl PublishOutbox {
    /// Notes an append that goes to the committer.
    pub fn enter_sync_queue(&self) {
        self.queued_for_sync.fetch_add(1, Ordering::AcqRel);
    }

    /// Notes that the committer has staged one.
    pub fn leave_sync_queue(&self) {
        self.queued_for_sync.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether an append of this publisher waits in the committer's queue.
    pub fn has_sync_queued(&self) -> bool {
        self.queued_for_sync.load(Ordering::Acquire) != 0
    }

    /// Adds an acknowledgement, merged with the last where both go on.
    pub fn ack(&self, ack: Acked, sleepers: &mut Sleepers) {
        let mut inner = self.inner.lock();
        match inner.news.acks.last_mut() {
            Some(last)
                if last.counter + u64::from(last.count) == ack.counter
                    && last.first_seq + u64::from(last.count) == ack.first_seq
                    && (last.class, last.epoch, last.level, last.duplicate)
                        == (ack.class, ack.epoch, ack.level, ack.duplicate) =>
            {
                last.count += ack.count;
            }
            _ => inner.news.acks.push(ack),
        }
        sleepers.extend(inner.sleeper.take());
    }

    /// Adds a refusal.
    pub fn reject(&self, reject: Rejected, sleepers: &mut Sleepers) {
        let mut inner = self.inner.lock();
        inner.news.rejects.push(reject);
        sleepers.extend(inner.sleeper.take());
    }

    /// Takes all news, or leaves a waker.
    pub fn take(&self, cx: &Context<'_>) -> Option<PublishNews> {
        let mut inner = self.inner.lock();
        if inner.news.is_empty() {
            Sleeper::keep(&mut inner.sleeper, cx);
            return None;
        }
        Some(std::mem::take(&mut inner.news))
    }
}

/// A settlement's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettledRange {
    /// First seq.
    pub first_seq: Seq,
    /// How many.
    pub count: u32,
    /// Done and durable, or why not.
    pub result: Result<(), ErrorCode>,
}

/// What a consumer is to be told.
#[derive(Debug, Default)]
pub struct ConsumeNews {
    /// Messages, in order.
    pub deliveries: VecDeque<Delivery>,
    /// Results of settlements.
    pub settled: Vec<SettledRange>,
    /// What was trimmed before it was read.
    pub gaps: Vec<Gap>,
    /// The subscription may have something to read.
    pub kicked: bool,
    /// Why the stream must end.
    pub closed: Option<ErrorCode>,
}

#[derive(Debug, Default)]
struct ConsumeInner {
    news: ConsumeNews,
    sleeper: Option<Sleeper>,
}

/// Outbox of a consumer.
#[derive(Debug, Default)]
pub struct ConsumeOutbox {
    inner: Mutex<ConsumeInner>,
}

impl ConsumeOutbox {
    /// Changes the news and wakes the stream.
    pub fn push(&self, sleepers: &mut Sleepers, change: impl FnOnce(&mut ConsumeNews)) {
        let mut inner = self.inner.lock();
        change(&mut inner.news);
        sleepers.extend(inner.sleeper.take());
    }

    /// Hands the news to the stream's poll. Leaves a waker when `take` says that it found nothing to do.
    pub fn with<T>(&self, cx: &Context<'_>, take: impl FnOnce(&mut ConsumeNews) -> Option<T>) -> Option<T> {
        let mut inner = self.inner.lock();
        let out = take(&mut inner.news);
        if out.is_none() {
            Sleeper::keep(&mut inner.sleeper, cx);
        }
        out
    }
}
