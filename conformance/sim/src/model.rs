//! What must be true, written down apart from the code that makes it true.
//!
//! The model sees what clients see: what they sent, which answers they got, what was delivered to them and when. From
//! that alone it knows what may never happen. Invariants:
//!
//! - SIM-1 What was acknowledged at its level and survived the faults of that level is settled by every subscription
//!   that hears it, in the end: acknowledged or dead, never lost.
//! - SIM-2 First deliveries of one producer's messages to one subscription come in order of storing.
//! - SIM-3 One live lease per message and subscription: nothing is delivered again while somebody holds it.
//! - SIM-4 What was confirmed as acknowledged is never delivered again and never dies, whatever is killed.
//! - SIM-5 A dead letter is there once for each death, not lost and not doubled.
//! - SIM-6 A seq that anybody has seen names one message for ever.
//! - SIM-7 What is leased or waits for a retry stays within the subscription's limit.
//! - SIM-8 Nothing is delivered before its level is reached, and nothing is acknowledged above `memory` or delivered
//!   whose write failed.
//! - SIM-9 A repeat is answered with the first position and stored once.
//! - SIM-10 A settlement of a message that is held is taken; attempts count up by failures only.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    ops::Range,
};

use acb_types::{Durability, position::Seq};

/// A message's number in the whole run; stands in its payload.
pub type Id = u64;
/// A subscription's index.
pub type Sub = usize;
/// A consumer's index.
pub type Consumer = usize;

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its id, such as `SIM-3`.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// Shorthand.
pub type Check = Result<(), Violation>;

fn broken<T>(invariant: &'static str, what: impl Into<String>) -> Result<T, Violation> {
    Err(Violation { invariant, what: what.into() })
}

/// What is known of a message that was sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Index of its producer.
    pub producer: usize,
    /// Its number in the producer session.
    pub counter: u64,
    /// Level that was asked for.
    pub level: Durability,
    /// Its topic.
    pub topic: &'static str,
    /// Seq that an ack named.
    pub seq: Option<Seq>,
    /// Acknowledged.
    pub acked: bool,
    /// A fault of its level came after the ack: it may be gone.
    pub may_be_lost: bool,
}

/// Where a message stands for a subscription, as its consumers know.
#[derive(Clone, Debug, Default)]
struct Fate {
    /// Delivered at least once.
    delivered: bool,
    /// Who holds it and until when, on the monotonic clock.
    lease: Option<(Consumer, u64)>,
    /// Acknowledged by a consumer; a crash before the journal's flush may undo it.
    acked: bool,
    /// A crash since then.
    ack_may_be_lost: bool,
    /// The ack was confirmed as durable.
    confirmed: bool,
    /// A death was announced.
    dying: bool,
    /// Its dead letter is durable and was noted.
    dead: bool,
    /// Attempts that failed since the last crash, which may take the note of them: at least so many count.
    failures: u32,
    /// Attempts that may have failed: at most so many count.
    failures_max: u32,
    /// Connections that were lost while it was held: every third counts as a failure.
    losses: u32,
}

/// The whole model.
#[derive(Debug, Default)]
pub struct Model {
    /// Everything that was sent.
    pub sent: BTreeMap<Id, Sent>,
    fates: HashMap<(Sub, Id), Fate>,
    seqs: BTreeMap<Seq, Id>,
    last_first: HashMap<(Sub, usize), Seq>,
    /// Filters of subscriptions, by index.
    pub subscriptions: Vec<Vec<&'static str>>,
    /// Most attempts a message gets.
    pub max_attempts: u32,
    /// Seqs of batches whose write failed since the last start: nothing is stored there.
    dropped: Vec<Range<Seq>>,
    /// Dead letters that are durable, with how often each is there.
    pub dead_letters: BTreeMap<(Sub, Seq), u32>,
}

/// Whether a filter hears a topic; the naive way, on purpose.
pub fn hears(filter: &str, topic: &str) -> bool {
    let (f, t): (Vec<&str>, Vec<&str>) = (filter.split('.').collect(), topic.split('.').collect());
    for (i, token) in f.iter().enumerate() {
        match (*token, t.get(i)) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (token, Some(given)) if token == *given => {}
            _ => return false,
        }
    }
    f.len() == t.len()
}

impl Model {
    /// Notes a seq that somebody learned.
    pub fn saw_seq(&mut self, seq: Seq, id: Id) -> Check {
        match self.seqs.insert(seq, id) {
            Some(other) if other != id => {
                broken("SIM-6", format!("seq {seq} was message {other} and is now message {id}"))
            }
            _ => Ok(()),
        }
    }

    /// An acknowledgement for one message.
    pub fn acked(&mut self, id: Id, seq: Seq, duplicate: bool) -> Check {
        let dropped = self.was_dropped(seq);
        let Some(sent) = self.sent.get_mut(&id) else { return broken("SIM-9", format!("ack of unsent message {id}")) };
        if dropped && sent.level > Durability::Memory {
            let level = sent.level;
            return broken("SIM-8", format!("message {id} was acknowledged as {level} at {seq}, whose write failed"));
        }
        if seq != 0 {
            if let Some(first) = sent.seq
                && first != seq
                && !sent.may_be_lost
            {
                return broken(
                    "SIM-9",
                    format!("message {id} was acknowledged at {first} and then at {seq}, duplicate={duplicate}"),
                );
            }
            sent.seq = Some(seq);
        }
        sent.acked = true;
        if !duplicate {
            sent.may_be_lost = false;
        }
        // An ack of the level `memory` says no more than that: the write that failed may even have come before the ack
        // was looked at.
        sent.may_be_lost |= dropped;
        if seq == 0 { Ok(()) } else { self.saw_seq(seq, id) }
    }

    /// A delivery of one message.
    #[expect(clippy::too_many_arguments, reason = "the facts of a delivery")]
    pub fn delivered(
        &mut self,
        sub: Sub,
        consumer: Consumer,
        id: Id,
        seq: Seq,
        attempt: u32,
        now: u64,
        until: u64,
    ) -> Check {
        self.saw_seq(seq, id)?;
        if self.was_dropped(seq) {
            return broken("SIM-8", format!("message {id} was delivered at {seq}, whose write failed"));
        }
        let Some(sent) = self.sent.get(&id) else {
            return broken("SIM-6", format!("unsent message {id} was delivered"));
        };
        if !self.subscriptions[sub].iter().any(|f| hears(f, sent.topic)) {
            return broken("SIM-6", format!("message {id} on {} was delivered to subscription {sub}", sent.topic));
        }
        let producer = sent.producer;
        let fate = self.fates.entry((sub, id)).or_default();
        if let Some((holder, until)) = fate.lease
            && now < until
        {
            return broken(
                "SIM-3",
                format!(
                    "message {id} (seq {seq}) was delivered to consumer {consumer} of subscription {sub} while {holder} holds it for {} ms more",
                    until - now
                ),
            );
        }
        if fate.confirmed {
            return broken(
                "SIM-4",
                format!("message {id} (seq {seq}) was delivered to subscription {sub} after its ack was confirmed"),
            );
        }
        if fate.dead {
            return broken(
                "SIM-5",
                format!("message {id} (seq {seq}) was delivered to subscription {sub} after its death"),
            );
        }
        if fate.acked && !fate.ack_may_be_lost {
            return broken(
                "SIM-4",
                format!(
                    "message {id} (seq {seq}) was delivered to subscription {sub} after its ack, without a crash between"
                ),
            );
        }
        if attempt > self.max_attempts {
            return broken("SIM-10", format!("message {id} is at attempt {attempt} of {}", self.max_attempts));
        }
        let (least, most) = (1 + fate.failures, 1 + fate.failures_max + fate.losses / 3);
        if fate.delivered && (attempt < least || attempt > most) {
            return broken(
                "SIM-10",
                format!(
                    "message {id} of subscription {sub} is at attempt {attempt}, which should be {least} to {most}"
                ),
            );
        }
        if !fate.delivered {
            let last = self.last_first.entry((sub, producer)).or_default();
            if seq < *last {
                return broken(
                    "SIM-2",
                    format!("first delivery of seq {seq} of producer {producer} to subscription {sub} after {last}"),
                );
            }
            *last = seq;
        }
        fate.delivered = true;
        fate.acked = false;
        fate.lease = Some((consumer, until));
        Ok(())
    }

    /// Whether a subscription was given a seq before.
    pub fn was_delivered(&self, sub: Sub, seq: Seq) -> bool {
        self.seqs.get(&seq).is_some_and(|id| self.fates.get(&(sub, *id)).is_some_and(|f| f.delivered))
    }

    /// A write failed: what was staged with these seqs is gone, also what was acknowledged at the level `memory`.
    pub fn write_failed(&mut self, seqs: Range<Seq>) {
        if self.dropped.last() == Some(&seqs) {
            return;
        }
        for sent in self.sent.values_mut() {
            if sent.level == Durability::Memory && sent.acked && sent.seq.is_some_and(|seq| seqs.contains(&seq)) {
                sent.may_be_lost = true;
            }
        }
        self.dropped.push(seqs);
    }

    fn was_dropped(&self, seq: Seq) -> bool {
        self.dropped.iter().any(|seqs| seqs.contains(&seq))
    }

    /// Whether a consumer holds a message now.
    pub fn holds(&self, sub: Sub, consumer: Consumer, id: Id, now: u64) -> bool {
        self.fates.get(&(sub, id)).is_some_and(|f| f.lease.is_some_and(|(c, until)| c == consumer && now < until))
    }

    fn fate(&mut self, sub: Sub, id: Id) -> &mut Fate {
        self.fates.entry((sub, id)).or_default()
    }

    /// A consumer acknowledged.
    pub fn ack(&mut self, sub: Sub, id: Id) {
        let fate = self.fate(sub, id);
        fate.lease = None;
        fate.acked = true;
        fate.ack_may_be_lost = false;
    }

    /// An ack was confirmed as durable.
    pub fn confirmed(&mut self, sub: Sub, id: Id) -> Check {
        let fate = self.fate(sub, id);
        if fate.dead {
            return broken(
                "SIM-4",
                format!("message {id} of subscription {sub} is dead and confirmed as acknowledged"),
            );
        }
        fate.confirmed = true;
        fate.acked = true;
        Ok(())
    }

    /// A consumer gave a message back as failed.
    pub fn failed(&mut self, sub: Sub, id: Id) {
        let fate = self.fate(sub, id);
        fate.lease = None;
        fate.failures += 1;
        fate.failures_max += 1;
    }

    /// A consumer gave a message back untouched.
    pub fn released(&mut self, sub: Sub, id: Id) {
        self.fate(sub, id).lease = None;
    }

    /// A message was on its way to a consumer, or with it, when its connection was lost for good.
    pub fn lost(&mut self, sub: Sub, id: Id) {
        let fate = self.fate(sub, id);
        fate.lease = None;
        fate.losses += 1;
    }

    /// A lease ran out, by the time of clients.
    pub fn expired(&mut self, sub: Sub, id: Id) {
        let fate = self.fate(sub, id);
        if fate.lease.take().is_some() {
            fate.failures_max += 1;
        }
    }

    /// The lease starts anew.
    pub fn extended(&mut self, sub: Sub, id: Id, until: u64) {
        if let Some((_, end)) = &mut self.fate(sub, id).lease {
            *end = until;
        }
    }

    /// A death was announced.
    pub fn dies(&mut self, sub: Sub, seq: Seq) -> Check {
        let Some(id) = self.seqs.get(&seq).copied() else {
            return broken("SIM-5", format!("seq {seq}, which nobody has seen, dies"));
        };
        let fate = self.fate(sub, id);
        if fate.confirmed {
            return broken("SIM-4", format!("message {id} of subscription {sub} dies after its ack was confirmed"));
        }
        if fate.dead {
            return broken("SIM-5", format!("message {id} of subscription {sub} dies twice"));
        }
        if fate.dying {
            return broken("SIM-5", format!("the death of message {id} of subscription {sub} was announced twice"));
        }
        if !fate.delivered {
            return broken(
                "SIM-5",
                format!("message {id} of subscription {sub} dies without ever having been delivered"),
            );
        }
        fate.dying = true;
        fate.lease = None;
        Ok(())
    }

    /// The engine was told that a dead letter is durable.
    pub fn buried(&mut self, sub: Sub, seq: Seq) {
        if let Some(id) = self.seqs.get(&seq).copied() {
            let fate = self.fate(sub, id);
            fate.dying = false;
            fate.dead = true;
        }
    }

    /// The server is gone. `synced_end` is what a power cut must leave; a kill leaves what was written.
    pub fn crashed(&mut self, survives: impl Fn(&Sent) -> bool) {
        // A failed write may have reached the disk after all, and the next opening find it.
        self.dropped.clear();
        for sent in self.sent.values_mut() {
            if sent.acked && !survives(sent) {
                sent.may_be_lost = true;
            }
        }
        for fate in self.fates.values_mut() {
            fate.lease = None;
            fate.failures = 0;
            fate.dying = false;
            if fate.acked && !fate.confirmed {
                fate.ack_may_be_lost = true;
            }
            // The note that it is dead may be lost; its dead letter is not, so it may be announced again.
            if fate.dead {
                fate.dead = false;
            }
        }
    }

    /// At the end, with everybody healthy: all that must have happened.
    pub fn finished(&self) -> Check {
        for (id, sent) in &self.sent {
            let Some(seq) = sent.seq.filter(|_| sent.acked && !sent.may_be_lost) else { continue };
            for (sub, filters) in self.subscriptions.iter().enumerate() {
                if !filters.iter().any(|f| hears(f, sent.topic)) {
                    continue;
                }
                let fate = self.fates.get(&(sub, *id)).cloned().unwrap_or_default();
                let buried = self.dead_letters.get(&(sub, seq)).copied().unwrap_or(0);
                if fate.acked || buried > 0 {
                    continue;
                }
                return broken(
                    "SIM-1",
                    format!(
                        "message {id} (seq {seq}, {}) was acknowledged and is neither acknowledged by subscription {sub} nor dead: {fate:?}",
                        sent.level
                    ),
                );
            }
        }
        for ((sub, seq), times) in &self.dead_letters {
            if *times != 1 {
                return broken(
                    "SIM-5",
                    format!("the dead letter of seq {seq} of subscription {sub} is there {times} times"),
                );
            }
        }
        let unburied: BTreeSet<_> = self.fates.iter().filter(|(_, f)| f.dead || f.dying).map(|(k, _)| *k).collect();
        for (sub, id) in unburied {
            let seq = self.sent.get(&id).and_then(|s| s.seq);
            let there = seq.is_some_and(|seq| self.dead_letters.contains_key(&(sub, seq)));
            if !there && self.sent.get(&id).is_some_and(|s| s.acked && !s.may_be_lost) {
                return broken("SIM-5", format!("message {id} of subscription {sub} died and left no dead letter"));
            }
        }
        Ok(())
    }
}
