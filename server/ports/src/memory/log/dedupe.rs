//! Doubles, by the plainest means: everything that is remembered stands in two maps.

use std::collections::{HashMap, VecDeque};

use acb_types::{
    ClassId, ErrorCode, ProducerKey, Timestamp,
    batch::{Batch, Keyed},
    limits,
    position::Seq,
};

/// What is to become of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    New,
    Duplicate(Option<Seq>),
    Refused(ErrorCode),
}

/// A producer session.
#[derive(Clone, Debug, Default)]
struct Producer {
    epoch: u32,
    last_seen: Timestamp,
    /// Counters below this were stored at a seq that is forgotten.
    floor: u64,
    /// (counter, seq, count) of stored messages, in order of counters.
    ranges: VecDeque<(u64, Seq, u32)>,
}

/// All that a partition remembers of doubles. Made anew from the records whenever some of them are lost.
#[derive(Clone, Debug, Default)]
pub(super) struct Dedupe {
    producers: HashMap<ProducerKey, Producer>,
    /// Digest of a key: digest of the body, seq, time of storing.
    keys: HashMap<u128, (u64, Seq, Timestamp)>,
}

impl Dedupe {
    /// Judges the message at `index` of a batch (LOG-2, LOG-7).
    pub(super) fn judge(&mut self, class: ClassId, batch: &Batch, index: u32, now: Timestamp) -> Verdict {
        if batch.producer != ProducerKey::NONE {
            let verdict = self.judge_producer(batch, batch.counter + u64::from(index), now);
            if verdict != Verdict::New {
                return verdict;
            }
        }
        match batch.keys.iter().find(|keyed| keyed.index == index) {
            Some(keyed) => self.judge_key(class, keyed, now),
            None => Verdict::New,
        }
    }

    fn judge_producer(&mut self, batch: &Batch, counter: u64, now: Timestamp) -> Verdict {
        let Some(session) = self.producers.get(&batch.producer) else {
            self.producers.retain(|_, p| is_live(p.last_seen, now));
            let full = self.producers.len() >= limits::PRODUCERS_MAX;
            return if full { Verdict::Refused(ErrorCode::ProducersExhausted) } else { Verdict::New };
        };
        if batch.producer_epoch < session.epoch {
            return Verdict::Refused(ErrorCode::ProducerFenced);
        }
        if batch.producer_epoch > session.epoch {
            return Verdict::New;
        }
        if counter < session.floor {
            return Verdict::Duplicate(None);
        }
        let known =
            session.ranges.iter().find(|(first, _, count)| (*first..first + u64::from(*count)).contains(&counter));
        known.map_or(Verdict::New, |(first, seq, _)| Verdict::Duplicate(Some(seq + (counter - first))))
    }

    fn judge_key(&mut self, class: ClassId, keyed: &Keyed, now: Timestamp) -> Verdict {
        if class != ClassId::DEAD_LETTERS {
            // The window runs from the time of storing; dead letters are known for as long as they are kept.
            let gone = self.keys.get(&keyed.key).is_some_and(|known| known.2.after(limits::IDEMPOTENCY_WINDOW) <= now);
            if gone {
                self.keys.remove(&keyed.key);
            }
        }
        match self.keys.get(&keyed.key) {
            Some((body, seq, _)) if *body == keyed.body => Verdict::Duplicate(Some(*seq)),
            Some(_) => Verdict::Refused(ErrorCode::IdempotencyConflict),
            None if self.keys.len() >= limits::IDEMPOTENCY_KEYS_MAX => {
                Verdict::Refused(ErrorCode::IdempotencyKeysExhausted)
            }
            None => Verdict::New,
        }
    }

    /// Remembers stored messages: `batch` holds exactly them, the first at `seq`.
    pub(super) fn remember(&mut self, batch: &Batch, seq: Seq, stored_at: Timestamp) {
        for keyed in &batch.keys {
            self.keys.insert(keyed.key, (keyed.body, seq + u64::from(keyed.index), stored_at));
        }
        if batch.producer == ProducerKey::NONE {
            return;
        }
        let session = self.producers.entry(batch.producer).or_default();
        if batch.producer_epoch > session.epoch {
            *session = Producer { epoch: batch.producer_epoch, ..Producer::default() };
        }
        session.last_seen = session.last_seen.max(stored_at);
        let at = session.ranges.partition_point(|(counter, ..)| *counter < batch.counter);
        session.ranges.insert(at, (batch.counter, seq, batch.count));
        if session.ranges.len() > limits::PRODUCER_RANGES_MAX
            && let Some((counter, _, count)) = session.ranges.pop_front()
        {
            session.floor = session.floor.max(counter + u64::from(count));
        }
    }
}

fn is_live(last_seen: Timestamp, now: Timestamp) -> bool {
    last_seen.after(limits::PRODUCER_TTL) > now
}
