//! The engine of one partition: its subscriptions, time, and what becomes visible in its log.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use acb_types::{
    Now, SubscriptionId,
    batch::{Facts, SubscriptionDef},
    frame::Runs,
    position::Seq,
};
use ahash::RandomState;
use bytes::Bytes;
use slab::Slab;
use smallvec::SmallVec;

use crate::{
    api::{Effects, EngineConfig, SessionKey, Totals},
    delivery::Attempt,
    expiry,
    journal::Journal,
    matching::Matching,
    planted::{Bug, planted},
    redelivery::{Failure, Jitter},
    session::Sessions,
    subscription::{Pending, Piece, Subscription, Work},
    timer::{Timers, Wakes},
};

/// More entries than this are looked at together when timers fire: at most every [`COARSE_MS`].
const FINE_ENTRIES: usize = 1024;
const COARSE_MS: u64 = 20;

/// The delivery engine of one partition. See the crate's documentation for how it is driven.
#[derive(Debug)]
pub struct Engine {
    pub(crate) matching: Matching,
    pub(crate) core: Core,
}

/// All of the engine but the filters, so that the hearers of a topic can be walked while their state changes.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: EngineConfig,
    pub(crate) subs: Slab<Subscription>,
    ids: HashMap<SubscriptionId, u32, RandomState>,
    pub(crate) sessions: Sessions,
    pub(crate) timers: Timers,
    pub(crate) jitter: Jitter,
    pub(crate) journal: Journal,
    /// First seq that is kept in the log.
    pub(crate) first_seq: Seq,
    /// First seq that is not visible yet.
    pub(crate) end_seq: Seq,
    /// Number of the last plan handed out.
    pub(crate) tickets: u64,
    /// Subscriptions whose dying messages were restored and are to be announced.
    pub(crate) revived: VecDeque<u32>,
    /// Ephemeral subscriptions whose last session ended.
    pub(crate) ended: SmallVec<[SubscriptionId; 1]>,
    pub(crate) totals: Totals,
    /// Slot that the survey looks at next.
    pub(crate) surveyor: u32,
    /// Messages that the survey's next read asks for.
    pub(crate) survey_messages: u32,
    /// The survey's last read let go of all it brought: the next one is for the same slot.
    pub(crate) survey_goes_on: bool,
    /// Slots with a piece in hand, while a batch is spread.
    spread: Vec<u32>,
}

impl Engine {
    /// An engine without subscriptions, at the start of an empty log.
    pub fn new(config: EngineConfig) -> Self {
        let seed = config.seed;
        Self {
            matching: Matching::new(seed, config.cached_topics),
            core: Core {
                jitter: Jitter::new(seed),
                config,
                subs: Slab::new(),
                ids: HashMap::with_hasher(RandomState::with_seeds(seed, 1, 2, 3)),
                sessions: Sessions::default(),
                timers: Timers::default(),
                journal: Journal::default(),
                first_seq: 1,
                end_seq: 1,
                tickets: 0,
                revived: VecDeque::new(),
                ended: SmallVec::new(),
                totals: Totals::default(),
                surveyor: 0,
                survey_messages: 1,
                survey_goes_on: false,
                spread: Vec::new(),
            },
        }
    }

    /// Adds a subscription that hears what is stored at `start` and later. One that is there already stays as it is.
    pub fn subscribe(&mut self, def: SubscriptionDef, start: Seq, _now: Now) {
        if self.core.slot(def.id).is_none() {
            let sub = Subscription::new(def, start, self.core.end_seq);
            let slot = self.add(sub);
            // Its start is journaled as its floor, so that a restart needs no row to know it.
            self.core.touch(slot);
        }
    }

    /// Puts a subscription into its places.
    pub(crate) fn add(&mut self, sub: Subscription) -> u32 {
        let id = sub.def.id;
        let filters = Arc::clone(&sub.def.filters);
        let slot = self.core.subs.insert(sub) as u32;
        self.core.ids.insert(id, slot);
        self.matching.insert(&filters, slot);
        slot
    }

    /// Removes a subscription with all its state. Names the sessions that ended by it. Removing what is absent does
    /// nothing.
    pub fn unsubscribe(&mut self, id: SubscriptionId) -> SmallVec<[SessionKey; 1]> {
        let core = &mut self.core;
        let Some(slot) = core.ids.remove(&id) else { return SmallVec::new() };
        let Some(sub) = core.subs.try_remove(slot as usize) else { return SmallVec::new() };
        self.matching.remove(&sub.def.filters, slot);
        core.journal.forget(slot);
        let mut fenced = SmallVec::new();
        for index in sub.work.into_iter().flat_map(|w| w.sessions) {
            let key = core.sessions.key(index);
            if core.sessions.remove(index).is_some_and(|s| s.connected) {
                fenced.push(key);
            }
        }
        fenced
    }

    /// Changes a subscription's rules. New filters count from its cursor on; a smaller number of attempts from the next
    /// failure on. Answers whether it is there.
    pub fn update(&mut self, def: SubscriptionDef, _now: Now, fx: &mut impl Effects) -> bool {
        let Some(slot) = self.core.slot(def.id) else { return false };
        let Some(sub) = self.core.subs.get_mut(slot as usize) else { return false };
        self.matching.remove(&sub.def.filters, slot);
        self.matching.insert(&def.filters, slot);
        sub.def = def;
        self.core.wake(slot, fx);
        true
    }

    /// Messages became visible: `runs` of `body`, the first of them at `first_seq`. In seq order; seqs may be missing
    /// between batches. Gives them to whoever has heard everything before and has credit; others fall behind, at the
    /// cost of a cursor.
    pub fn appended(
        &mut self,
        first_seq: Seq,
        body: &Bytes,
        runs: &Runs,
        facts: &Arc<Facts>,
        now: Now,
        fx: &mut impl Effects,
    ) {
        let Self { matching, core } = self;
        debug_assert!(first_seq >= core.end_seq, "seq {first_seq} was visible already");
        let mut first = first_seq;
        for run in runs {
            let (offset, len) = (run.offset as usize, run.len as usize);
            let piece = Piece { first, count: run.count, offset, len };
            for &slot in matching.hearers(&run.topic) {
                if runs.len() == 1 {
                    core.hear(slot, piece, body, facts, now, fx);
                } else {
                    core.gather(slot, piece, body, facts, now, fx);
                }
            }
            first += u64::from(run.count);
        }
        while let Some(slot) = core.spread.pop() {
            let piece = core.subs.get_mut(slot as usize).and_then(|s| s.work.as_mut()?.piece.take());
            if let Some(piece) = piece {
                core.hear(slot, piece, body, facts, now, fx);
            }
        }
        core.end_seq = core.end_seq.max(first);
    }

    /// Time passed: leases end, retries come due, graces end. To be called once after a restore, too.
    pub fn advance(&mut self, now: Now, fx: &mut impl Effects) {
        let core = &mut self.core;
        while let Some(slot) = core.revived.pop_front() {
            core.announce_dying(slot, fx);
        }
        while let Some((due, wakes)) = core.timers.pop_due(now.mono_ms) {
            match wakes {
                Wakes::Subscription(slot) => core.fire(slot, due, now, fx),
                Wakes::Session(index, generation) => core.grace_over(index, generation, now, fx),
            }
        }
        self.tidy(fx);
    }

    /// When [`Self::advance`] may have something to do, on the monotonic clock: never late, sometimes in vain.
    pub fn next_timer(&self) -> Option<u64> {
        if self.core.revived.is_empty() { self.core.timers.next() } else { Some(0) }
    }

    /// The log begins at `first_seq` now. Redeliveries of what is gone are called off with a typed gap; a cursor below
    /// learns of its gap when it reads; a lease goes on.
    pub fn trimmed(&mut self, first_seq: Seq, _now: Now, fx: &mut impl Effects) {
        let core = &mut self.core;
        if first_seq <= core.first_seq {
            return;
        }
        core.first_seq = first_seq;
        let slots: Vec<u32> = core.subs.iter().filter(|(_, s)| s.work.is_some()).map(|(slot, _)| slot as u32).collect();
        for slot in slots {
            core.call_off(slot, 0..first_seq, fx);
            if let Some(sub) = core.subs.get_mut(slot as usize) {
                if let Some(work) = &mut sub.work {
                    work.forget_below(first_seq);
                }
                sub.rest();
            }
            core.wake(slot, fx);
        }
    }

    /// Everything below is shown: it has reached its level, and so has all before it. What is written and not shown can
    /// not be settled yet.
    pub fn shown_end(&self) -> Seq {
        self.core.end_seq
    }

    /// Lowest seq that some durable subscription still needs: what lies below may go without anybody losing it. Looks at
    /// every subscription.
    pub fn floor(&self) -> Seq {
        let end = self.core.end_seq;
        self.core.subs.iter().filter(|(_, s)| !s.def.ephemeral).map(|(_, s)| s.floor(end)).min().unwrap_or(end)
    }

    /// Removes ephemeral subscriptions whose last session ended.
    pub(crate) fn tidy(&mut self, fx: &mut impl Effects) {
        while let Some(id) = self.core.ended.pop() {
            let alone = self.core.slot(id).is_some_and(|slot| self.core.members(slot).is_empty());
            if alone {
                self.unsubscribe(id);
                fx.ended(id);
            }
        }
    }
}

impl Core {
    pub(crate) fn slot(&self, id: SubscriptionId) -> Option<u32> {
        self.ids.get(&id).copied()
    }

    /// Sessions of a subscription.
    pub(crate) fn members(&self, slot: u32) -> &[u32] {
        self.subs.get(slot as usize).and_then(|s| s.work.as_ref()).map_or(&[], |w| &w.sessions[..])
    }

    pub(crate) fn work_mut(&mut self, slot: u32) -> Option<&mut Work> {
        self.subs.get_mut(slot as usize)?.work.as_deref_mut()
    }

    /// Joins a piece of a batch to the one before it, when that goes to the same subscription and nothing lies between:
    /// many topics under one wildcard are then one delivery.
    fn gather(&mut self, slot: u32, piece: Piece, body: &Bytes, facts: &Arc<Facts>, now: Now, fx: &mut impl Effects) {
        let Some(sub) = self.subs.get_mut(slot as usize) else { return };
        if !sub.is_caught_up() {
            return;
        }
        let Some(work) = sub.work.as_deref_mut().filter(|w| !w.sessions.is_empty()) else {
            sub.fall_behind(piece.first);
            return;
        };
        match &mut work.piece {
            None => {
                work.piece = Some(piece);
                self.spread.push(slot);
            }
            Some(held) if held.first + u64::from(held.count) == piece.first => {
                held.count += piece.count;
                held.len += piece.len;
            }
            Some(held) => {
                let whole = std::mem::replace(held, piece);
                self.hear(slot, whole, body, facts, now, fx);
            }
        }
    }

    /// Gives consecutive messages of a batch to a subscription that hears them.
    fn hear(&mut self, slot: u32, piece: Piece, body: &Bytes, facts: &Arc<Facts>, now: Now, fx: &mut impl Effects) {
        let Some(sub) = self.subs.get_mut(slot as usize) else { return };
        if !sub.is_caught_up() {
            return;
        }
        // What came back goes first, and while a read is out its session's room is spoken for: both read what is new
        // from the log afterwards, so that a stream of new messages cannot keep a retry waiting.
        let live = sub
            .work
            .as_ref()
            .is_some_and(|w| !w.sessions.is_empty() && w.returned.ready.is_empty() && w.reading.is_none());
        if !live {
            sub.fall_behind(piece.first);
            return;
        }
        let body = body.slice(piece.offset..piece.offset + piece.len);
        if !expiry::may_expire(facts) {
            let given = self.give(slot, None, piece.first, piece.count, &body, Attempt::FIRST, facts, now, fx);
            self.leave_unread(slot, piece.first, given, piece.count);
            return;
        }
        for part in expiry::split(&body, piece.count, None, facts, now.wall) {
            let first = piece.first + u64::from(part.index);
            if part.expired && !planted(Bug::DeliverExpired) {
                self.note_expired(slot, first..first + u64::from(part.count));
                continue;
            }
            let given =
                self.give(slot, None, first, part.count, &body.slice(part.bytes), Attempt::FIRST, facts, now, fx);
            self.leave_unread(slot, first, given, part.count);
            if given < part.count {
                return;
            }
        }
    }

    /// Falls behind where credit ended inside a run.
    fn leave_unread(&mut self, slot: u32, first: Seq, given: u32, count: u32) {
        if given < count
            && let Some(sub) = self.subs.get_mut(slot as usize)
        {
            let skipped = if planted(Bug::CursorSkipsOnCredit) { count } else { given };
            sub.fall_behind(first + u64::from(skipped));
        }
    }

    /// Notes that a subscription has something to journal.
    pub(crate) fn touch(&mut self, slot: u32) {
        let Some(sub) = self.subs.get_mut(slot as usize) else { return };
        if sub.def.ephemeral {
            // Nobody would take it.
            if let Some(work) = &mut sub.work {
                work.pending = Pending::default();
            }
        } else if !sub.dirty {
            sub.dirty = true;
            self.journal.dirty.push(slot);
        }
    }

    /// Sees to it that a subscription's timer fires at `due` at the latest.
    pub(crate) fn arm(&mut self, slot: u32, due: u64) {
        if let Some(sub) = self.subs.get_mut(slot as usize)
            && sub.timers.last().is_none_or(|earliest| due < *earliest)
        {
            sub.timers.push(due);
            self.timers.add(due, Wakes::Subscription(slot));
        }
    }

    /// A subscription's timer fired.
    fn fire(&mut self, slot: u32, due: u64, now: Now, fx: &mut impl Effects) {
        let Self { subs, sessions, .. } = self;
        let Some(sub) = subs.get_mut(slot as usize).filter(|s| s.timers.last() == Some(&due)) else { return };
        sub.timers.pop();
        let Some(work) = sub.work.as_deref_mut() else { return };
        let mut expired: SmallVec<[_; 2]> = SmallVec::new();
        let mut orphaned: SmallVec<[_; 2]> = SmallVec::new();
        let mut next = u64::MAX;
        let mut entries = work.returned.waiting_entries();
        work.leases.end(0..Seq::MAX, |run, e| {
            entries += 1;
            if run.deadline > now.mono_ms {
                next = next.min(run.deadline);
                return false;
            }
            // While its connection is lost a consumer cannot renew: that is the connection's fault, not the message's.
            if sessions.at(run.session).is_some_and(|s| s.connected) {
                expired.push(e);
            } else {
                orphaned.push(e);
            }
            !planted(Bug::DoubleLease)
        });
        next = next.min(work.returned.ripen(now.mono_ms).unwrap_or(u64::MAX));
        match work.read_after {
            Some(at) if at <= now.mono_ms => work.read_after = None,
            Some(at) => next = next.min(at),
            None => {}
        }
        if next != u64::MAX {
            // Few are woken to the millisecond; many together.
            self.arm(slot, if entries > FINE_ENTRIES { next.max(now.mono_ms + COARSE_MS) } else { next });
        }
        self.totals.leases_ended += expired.iter().map(|e| u64::from(e.count)).sum::<u64>();
        self.bring_back(slot, &expired, Failure::LeaseEnded, now, fx);
        self.bring_back(slot, &orphaned, Failure::Lost, now, fx);
        self.wake(slot, fx);
    }
}
