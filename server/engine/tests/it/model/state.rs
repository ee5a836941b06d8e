//! What the model knows of messages and consumers.

use std::collections::{BTreeMap, BTreeSet};

use acb_engine::{Credit, Death, Engine, EngineConfig, JournalMark, Plan, SessionKey};
use acb_types::{
    Now, SubscriptionId, Timestamp,
    batch::{ReadBlock, SubscriptionDef},
    position::Seq,
};
use bytes::Bytes;

use crate::bed::{Bed, FakeLog, sub};

macro_rules! ensure {
    ($cond:expr, $($text:tt)*) => {
        if !$cond {
            return Err(format!($($text)*));
        }
    };
}

pub(super) const ACK_WAIT_MS: u64 = 1000;
pub(super) const GRACE_MS: u64 = 10_000;
pub(super) const SCHEDULE_MS: [u64; 2] = [200, 600];
pub(super) const MAX_ATTEMPTS: u32 = 3;
pub(super) const LOSSES: u8 = 3;
/// What an expiry adds to a message.
pub(super) const EXPIRY_BYTES: usize = 7;
pub(super) const TOPICS: [&str; 4] = ["a.x", "a.y", "b.b", "c.c"];

#[derive(Clone, Debug, PartialEq)]
pub(super) enum State {
    Unread,
    Leased {
        who: u8,
        number: u64,
        deadline: u64,
    },
    /// May go again from `from` on, and must from `to` on.
    Back {
        from: u64,
        to: u64,
    },
    Dying,
    Acked,
    Dead,
    Expired,
    Gone,
}

impl State {
    pub(super) fn is_settled(&self) -> bool {
        matches!(self, Self::Acked | Self::Dead | Self::Expired | Self::Gone)
    }
}

#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts that have nothing to do with each other")]
pub(super) struct Message {
    pub(super) state: State,
    pub(super) failed: u32,
    /// How many connections may have been lost since, as a set of bits: after a crash nobody can tell.
    pub(super) losses: u8,
    /// Whether the last loss counted as a failed attempt is to be seen.
    pub(super) doubtful: bool,
    /// After a crash: whether the engine has never given it out is not known.
    pub(super) perhaps_unread: bool,
    pub(super) size: u64,
    pub(super) expires_at: Timestamp,
    /// Settled, and journaled durably.
    pub(super) durable: bool,
    /// Acknowledged to somebody as durable.
    pub(super) confirmed: bool,
    /// Failed attempts as journaled durably.
    pub(super) durable_failed: u32,
    pub(super) announced: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Consumer {
    pub(super) key: SessionKey,
    pub(super) connected: bool,
    pub(super) credit: Credit,
    pub(super) delivered: u64,
    pub(super) grace: u64,
    /// Given to it and taken away.
    pub(super) lost: BTreeSet<Seq>,
    pub(super) last_first_delivery: Seq,
}

#[derive(Debug)]
pub(super) struct Sub {
    pub(super) def: SubscriptionDef,
    pub(super) messages: BTreeMap<Seq, Message>,
    pub(super) consumers: BTreeMap<u8, Consumer>,
    pub(super) read_after: u64,
}

/// Engine and model side by side.
#[derive(Debug)]
pub(super) struct World {
    pub(super) bed: Bed,
    pub(super) subs: Vec<Sub>,
    /// In the log and durable; staged and not.
    pub(super) durable: Vec<Bytes>,
    pub(super) staged: Vec<(JournalMark, Bytes)>,
    pub(super) deaths: Vec<Death>,
    pub(super) lazy: bool,
    pub(super) held: Option<(Plan, ReadBlock)>,
    pub(super) jitter_seed: u64,
    /// Payload of all messages.
    pub(super) len: usize,
    pub(super) steps: u64,
}

pub(super) type Check = Result<(), String>;

pub(super) fn config(seed: u64) -> EngineConfig {
    EngineConfig { seed, read_bytes: 2000, cached_topics: 3, ..EngineConfig::default() }
}

pub(super) fn rules() -> Vec<SubscriptionDef> {
    let base = |id, filters: &[&str], max_leased| SubscriptionDef {
        ack_wait: std::time::Duration::from_millis(ACK_WAIT_MS),
        retry_schedule: SCHEDULE_MS.map(std::time::Duration::from_millis).into(),
        max_attempts: MAX_ATTEMPTS,
        max_leased,
        ..sub(id, filters)
    };
    vec![base(1, &["a.>"], 65_536), base(2, &["a.x", "b.b"], 6), base(3, &[">"], 65_536)]
}

/// Whether a message's time has passed. The engine finds out when it looks at it.
pub(super) fn past(m: &Message, wall: Timestamp) -> bool {
    m.expires_at.is_set() && m.expires_at <= wall
}

pub(super) fn wait(failed: u32) -> u64 {
    SCHEDULE_MS[(failed as usize - 1).min(SCHEDULE_MS.len() - 1)]
}

pub(super) fn fail(m: &mut Message, now: u64, delay: u8) {
    m.failed += 1;
    m.losses = 1;
    if m.failed >= MAX_ATTEMPTS {
        m.state = State::Dying;
    } else if delay > 0 {
        let due = now + u64::from(delay) * 50;
        m.state = State::Back { from: due, to: due };
    } else {
        let whole = wait(m.failed);
        m.state = State::Back { from: now + whole / 2, to: now + whole };
    }
}

/// Each number of losses that was possible is one more now; with the third an attempt has failed.
pub(super) fn lose(m: &mut Message, now: u64) {
    let more = m.losses << 1;
    let (counts, stays) = (more >> LOSSES != 0, more & ((1 << LOSSES) - 1));
    if counts && stays == 0 {
        fail(m, now, 0);
    } else {
        m.doubtful = counts;
        m.losses = stays;
        m.state = State::Back { from: now, to: if counts { now + wait(m.failed + 1) } else { now } };
    }
}

pub(super) fn status(
    engine: &mut Engine,
    log: &FakeLog,
    now: Now,
    id: SubscriptionId,
    seq: Seq,
) -> Result<acb_engine::MessageState, String> {
    let topic = &log.get(seq).ok_or("not in the log")?.topic;
    let topic = std::str::from_utf8(topic).map_err(|_| "topic")?;
    let all = engine.status(topic, seq, now);
    all.into_iter().find(|s| s.subscription == id).ok_or_else(|| format!("{id} does not know {seq}"))
}
