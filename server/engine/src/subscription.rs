//! One subscription's state.
//!
//! What an idle one costs is [`Subscription`] alone: its rules and a cursor. What it has in hand is in [`Work`], boxed,
//! made when a session comes and dropped when nothing is left. Below the cursor a message is settled unless it is leased
//! or has come back; from the cursor on it is unread unless it is leased, has come back or was settled ahead (as after a
//! restart, when the cursor starts at the floor again).

use std::{collections::BTreeMap, ops::Range};

use acb_types::{
    MessageId,
    batch::{Gap, SubscriptionDef},
    envelope::Text,
    position::Seq,
};
use smallvec::SmallVec;

use crate::{
    api::PlanKind,
    lease::{LeaseRun, LeaseTable},
    ranges::{RangeMap, RangeSet},
    redelivery::{Back, Dying, Returned},
    state_record::Writer,
};

#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) def: SubscriptionDef,
    /// It hears nothing below.
    pub(crate) start: Seq,
    /// Next seq to be delivered for the first time, unless caught up.
    cursor: Seq,
    /// Whether it has heard all there is: its cursor is then the partition's end, wherever that moves.
    caught_up: bool,
    /// Whether it stands in the list of those that have something to journal.
    pub(crate) dirty: bool,
    /// Whether its whole state is to be journaled.
    pub(crate) rewrite: bool,
    /// The floor as journaled.
    pub(crate) journaled_floor: Seq,
    /// The last piece of the journal that has something of it.
    pub(crate) journaled_in: u64,
    /// Its timers, the earliest last: each new one is earlier than those before.
    pub(crate) timers: SmallVec<[u64; 2]>,
    pub(crate) work: Option<Box<Work>>,
}

/// What a subscription has in hand.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// Sessions that share it, lost connections in their grace included.
    pub(crate) sessions: SmallVec<[u32; 2]>,
    pub(crate) leases: LeaseTable,
    pub(crate) returned: Returned,
    /// What consumers said of messages that are not settled.
    pub(crate) errors: RangeMap<Text>,
    /// Settled at or above the cursor.
    pub(crate) ahead: RangeSet,
    /// Dead and expired ones, for those who ask; the lowest are forgotten first.
    pub(crate) dead: BTreeMap<Seq, Dead>,
    pub(crate) expired: RangeSet,
    /// Below this, dead and expired ones are forgotten.
    pub(crate) forgotten: Seq,
    pub(crate) pending: Pending,
    /// The read that is out.
    pub(crate) reading: Option<Reading>,
    /// After a failed read: when the next may be.
    pub(crate) read_after: Option<u64>,
    /// Messages of the batch in hand that wait to be given out as one piece.
    pub(crate) piece: Option<Piece>,
    /// What retention took while no session was there to be told.
    pub(crate) gap: Option<Gap>,
}

/// A dead message that is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dead {
    pub(crate) attempts: u32,
    pub(crate) letter: Option<MessageId>,
}

/// What is not journaled yet.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub(crate) acked: RangeSet,
    pub(crate) expired: RangeSet,
    /// Where attempts, losses or deaths changed: what is journaled is the state there.
    pub(crate) returned: RangeSet,
    pub(crate) dead: SmallVec<[Seq; 0]>,
    pub(crate) confirms: Vec<Confirm>,
}

/// A confirmed ack that is not durable yet.
#[derive(Clone, Debug)]
pub(crate) struct Confirm {
    pub(crate) session: u32,
    /// The session's serial, so that an index taken by another is recognised.
    pub(crate) serial: u64,
    pub(crate) range: Range<Seq>,
}

/// A read that is out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) ticket: u64,
    pub(crate) session: u32,
    pub(crate) kind: PlanKind,
    pub(crate) from: Seq,
    pub(crate) end: Seq,
}

/// Consecutive messages of one batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) first: Seq,
    pub(crate) count: u32,
    pub(crate) offset: usize,
    pub(crate) len: usize,
}

/// Adds a gap to one that waits to be told.
pub(crate) fn merge_gap(into: &mut Option<Gap>, gap: Gap) {
    let whole = into.get_or_insert(gap);
    whole.from_seq = whole.from_seq.min(gap.from_seq);
    whole.to_seq = whole.to_seq.max(gap.to_seq);
}

/// Where a message stands.
#[derive(Debug)]
pub(crate) enum Standing<'a> {
    Leased(&'a LeaseRun),
    Waiting(&'a Back),
    Dying(&'a Dying),
    Unread,
    Settled,
}

impl Subscription {
    pub(crate) fn new(def: SubscriptionDef, start: Seq, end: Seq) -> Self {
        Self {
            def,
            start,
            cursor: start.min(end),
            caught_up: start >= end,
            dirty: false,
            rewrite: false,
            journaled_floor: 0,
            journaled_in: 0,
            timers: SmallVec::new(),
            work: None,
        }
    }

    pub(crate) fn is_caught_up(&self) -> bool {
        self.caught_up
    }

    /// Next seq to be delivered for the first time.
    pub(crate) fn cursor(&self, end: Seq) -> Seq {
        if self.caught_up { end } else { self.cursor }
    }

    /// Goes on reading at a seq; caught up when that is the end. Steps over what is settled there.
    pub(crate) fn set_cursor(&mut self, seq: Seq, end: Seq) {
        self.cursor = seq;
        if let Some(work) = &mut self.work {
            work.ahead.remove_below(seq);
            if let Some(first) = work.ahead.first()
                && first.start == seq
            {
                self.cursor = first.end;
                work.ahead.remove_below(self.cursor);
            }
            if self.cursor >= end {
                work.ahead = RangeSet::default();
            }
        }
        self.caught_up = self.cursor >= end;
    }

    /// Stops being caught up: the message at `seq` stays unread.
    pub(crate) fn fall_behind(&mut self, seq: Seq) {
        self.cursor = seq;
        self.caught_up = false;
    }

    /// Everything below is settled.
    pub(crate) fn floor(&self, end: Seq) -> Seq {
        let cursor = self.cursor(end);
        let Some(work) = &self.work else { return cursor };
        [work.leases.first(), work.returned.first()].into_iter().flatten().fold(cursor, Seq::min)
    }

    pub(crate) fn work(&mut self) -> &mut Work {
        self.work.get_or_insert_with(Box::default)
    }

    /// Drops the box when nothing is in it.
    pub(crate) fn rest(&mut self) {
        if self.work.as_ref().is_some_and(|w| w.is_idle()) {
            self.work = None;
        }
    }

    /// Messages leased, waiting or dying.
    pub(crate) fn outstanding(&self) -> u32 {
        self.work.as_ref().map_or(0, |w| w.leases.messages() + w.returned.messages)
    }

    /// How many more may be given out.
    pub(crate) fn headroom(&self) -> u32 {
        self.def.max_leased.saturating_sub(self.outstanding())
    }

    pub(crate) fn standing(&self, seq: Seq, end: Seq) -> Standing<'_> {
        if let Some(work) = &self.work {
            if let Some(run) = work.leases.get(seq) {
                return Standing::Leased(run);
            }
            if let Some(back) = work.returned.ready.get(seq).or_else(|| work.returned.later.get(seq)) {
                return Standing::Waiting(back);
            }
            if let Some(dying) = work.returned.dying.get(seq) {
                return Standing::Dying(dying);
            }
            if work.ahead.contains(seq) {
                return Standing::Settled;
            }
        }
        if seq >= self.cursor(end) { Standing::Unread } else { Standing::Settled }
    }

    /// Remembers seqs as settled that no lease and no return holds any more.
    pub(crate) fn note_settled(&mut self, range: Range<Seq>, end: Seq) {
        let cursor = self.cursor(end);
        if range.end > cursor {
            self.work().ahead.insert(range.start.max(cursor)..range.end);
            self.set_cursor(cursor, end);
        }
    }

    /// Writes its state, or what changed of it, and takes that as journaled. Answers the confirmed acks that what was
    /// written makes durable; something is written whenever there are some.
    pub(crate) fn journal(&mut self, out: &mut Writer, end: Seq) -> Vec<Confirm> {
        let floor = self.floor(end);
        let risen = floor > self.journaled_floor;
        self.journaled_floor = self.journaled_floor.max(floor);
        let rewrite = std::mem::take(&mut self.rewrite);
        out.subscription(self.def.id);
        if rewrite {
            self.write_all(out, end);
        }
        let Some(work) = &mut self.work else {
            if risen && !rewrite {
                out.floor(floor);
            }
            return Vec::new();
        };
        let mut pending = std::mem::take(&mut work.pending);
        if !rewrite {
            if risen || !pending.confirms.is_empty() {
                out.floor(floor);
            }
            pending.acked.remove_below(floor);
            out.acked(pending.acked.iter());
            out.expired(pending.expired.iter());
            pending.returned.iter().for_each(|r| work.write_returned(out, r));
            out.dead(pending.dead.iter().filter_map(|seq| Some((*seq, *work.dead.get(seq)?))));
        }
        pending.confirms
    }

    /// Writes its whole state.
    pub(crate) fn write_all(&self, out: &mut Writer, end: Seq) {
        out.floor(self.floor(end));
        let Some(work) = &self.work else { return };
        // What lies between floor and cursor is settled unless it is in hand.
        let mut open = RangeSet::default();
        work.leases.iter().flat_map(LeaseRun::ranges).for_each(|r| open.insert(r));
        work.returned.ranges().for_each(|r| open.insert(r));
        out.acked(open.gaps(self.floor(end)..self.cursor(end)).into_iter());
        out.acked(work.ahead.iter());
        out.expired(work.expired.iter());
        work.write_returned(out, 0..Seq::MAX);
        out.dead(work.dead.iter().map(|(seq, dead)| (*seq, *dead)));
    }
}

impl Work {
    fn is_idle(&self) -> bool {
        self.sessions.is_empty()
            && self.leases.is_empty()
            && self.returned.is_empty()
            && self.ahead.is_empty()
            && self.dead.is_empty()
            && self.expired.is_empty()
            && self.forgotten == 0
            && self.pending.is_empty()
            && self.reading.is_none()
            && self.read_after.is_none()
            && self.gap.is_none()
    }

    /// Remembers a dead message, within bounds.
    pub(crate) fn note_dead(&mut self, seq: Seq, dead: Dead, most: usize) {
        self.dead.insert(seq, dead);
        self.pending.dead.push(seq);
        self.forget(most);
    }

    /// Remembers expired messages, within bounds.
    pub(crate) fn note_expired(&mut self, range: Range<Seq>, most: usize) {
        self.expired.insert(range.clone());
        self.pending.expired.insert(range);
        self.forget(most);
    }

    /// Keeps the memory of dead and expired messages within bounds.
    pub(crate) fn forget(&mut self, most: usize) {
        while self.dead.len() > most {
            if let Some((seq, _)) = self.dead.pop_first() {
                self.forgotten = self.forgotten.max(seq + 1);
            }
        }
        while self.expired.len() > most {
            if let Some(range) = self.expired.pop_first() {
                self.forgotten = self.forgotten.max(range.end);
            }
        }
    }

    /// Forgets what retention took.
    pub(crate) fn forget_below(&mut self, seq: Seq) {
        self.dead = self.dead.split_off(&seq);
        self.expired.remove_below(seq);
        self.ahead.remove_below(seq);
    }

    /// Writes failed attempts, losses, errors and deaths in a range as they are now.
    fn write_returned(&self, out: &mut Writer, range: Range<Seq>) {
        let returned = &self.returned;
        for (r, back) in returned.ready.within(range.clone()).chain(returned.later.within(range.clone())) {
            out.returned(r, back);
        }
        // Leased again: should this process end, they are as they were before the lease.
        for run in self.leases.overlapping(&range).filter(|r| r.failed > 0 || r.losses > 0) {
            let back = Back { failed: run.failed, losses: run.losses, ..Back::default() };
            run.within(&range).for_each(|r| out.returned(r, &back));
        }
        for (r, text) in self.errors.within(range.clone()) {
            out.error(r, text);
        }
        for (r, dying) in returned.dying.within(range) {
            out.dying(r, dying);
        }
    }
}

impl Pending {
    pub(crate) fn is_empty(&self) -> bool {
        self.acked.is_empty()
            && self.expired.is_empty()
            && self.returned.is_empty()
            && self.dead.is_empty()
            && self.confirms.is_empty()
    }
}
