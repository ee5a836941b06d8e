//! Giving messages out: live ones straight from the batch they came in, others by a read that is planned, made by the
//! runner outside the lock, and committed.
//!
//! A subscription that has heard everything is given what is new. One that has not, or whose sessions have no room,
//! keeps a cursor and nothing else, whatever piles up: its sessions are kicked when there is room again and read from
//! the log. One read at a time goes on for each subscription, so that what one session is given stays in order.

use std::{ops::Range, sync::Arc};

use acb_types::{
    Now,
    batch::{Facts, Gap, ReadBlock, ReadRequest, StoredRun},
    position::Seq,
};
use bytes::Bytes;

use crate::{
    api::{Delivery, Effects, Plan, PlanKind, SessionKey},
    expiry, group,
    lease::Grant,
    partition::{Core, Engine},
    planted::{Bug, planted},
    redelivery::{Back, count},
    subscription::Reading,
};

/// How long after a failed read the next one is tried.
const READ_RETRY_MS: u64 = 1000;
/// Seqs that need not be read again may lie between those of one redelivery, up to this many in a row: reading over
/// them is cheaper than another read.
const REDELIVERY_GAP: u64 = 32;
/// Seqs that one redelivery spans at most.
const REDELIVERY_SPAN: u64 = 512;

/// What is known of messages that are given out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    failed: u32,
    losses: u8,
    /// Given out before, and outstanding since.
    again: bool,
}

impl Attempt {
    pub(crate) const FIRST: Self = Self { failed: 0, losses: 0, again: false };
}

impl Engine {
    /// What a session may read now; `None` when there is nothing to read, no room for it, or another session reads. It
    /// is kicked when that changes.
    pub fn plan(&mut self, session: SessionKey, _now: Now) -> Option<Plan> {
        let core = &mut self.core;
        let slot = core.sessions.get(session).filter(|s| s.connected)?.slot;
        let plan = core.plan(slot, session);
        if plan.is_none()
            && let Some(s) = core.sessions.get_mut(session)
        {
            s.kicked = false;
        }
        plan
    }

    /// Leases and delivers what was read, as far as credit goes. A plan that its session cannot use any more (it ended,
    /// was fenced, or lost its connection) is dropped, and nothing is lost by that.
    pub fn commit(&mut self, plan: Plan, block: ReadBlock, now: Now, fx: &mut impl Effects) {
        let core = &mut self.core;
        let Some((slot, reading)) = core.end_reading(&plan) else { return };
        if let Some(gap) = block.gap {
            fx.gap(plan.session, gap);
        }
        match reading.kind {
            PlanKind::CatchUp => core.commit_catch_up(slot, reading, block, now, fx),
            PlanKind::Redeliver => core.commit_redelivery(slot, reading, &block, now, fx),
        }
        core.wake(slot, fx);
    }

    /// The read failed. It is tried again a second later.
    pub fn abandon(&mut self, plan: Plan, now: Now) {
        let core = &mut self.core;
        let Some((slot, reading)) = core.end_reading(&plan) else { return };
        if let Some(session) = core.sessions.at_mut(reading.session) {
            session.kicked = false;
        }
        core.read_later(slot, now);
    }
}

impl Core {
    /// Gives consecutive messages of one attempt to a session, or to whoever has most room. Answers how many went.
    #[expect(clippy::too_many_arguments, reason = "the hot path; a struct for it would be built and taken apart")]
    pub(crate) fn give(
        &mut self,
        slot: u32,
        to: Option<u32>,
        first: Seq,
        count: u32,
        body: &Bytes,
        attempt: Attempt,
        facts: &Arc<Facts>,
        now: Now,
        fx: &mut impl Effects,
    ) -> u32 {
        let (mut given, mut at) = (0, 0);
        let mut lease_end = u64::MAX;
        while given < count {
            let Some(sub) = self.subs.get_mut(slot as usize) else { break };
            let most = if attempt.again || planted(Bug::IgnoreMaxLeased) { u32::MAX } else { sub.headroom() };
            if most == 0 {
                break;
            }
            let ack_wait = if planted(Bug::ExpireEarly) { sub.def.ack_wait / 2 } else { sub.def.ack_wait };
            let Some(work) = sub.work.as_deref_mut() else { break };
            let chosen = match to {
                Some(index) => Some(index),
                None => group::pick(&work.sessions, &self.sessions, |_| true),
            };
            let Some(index) = chosen else { break };
            let key = self.sessions.key(index);
            let Some(session) = self.sessions.at_mut(index).filter(|s| s.connected) else { break };
            let (n, len) = session.window.fit(&body[at..], count - given, most);
            if n == 0 {
                if to.is_some() {
                    break;
                }
                // Its window has noted what did not fit: the next choice is another.
                continue;
            }
            let from = first + u64::from(given);
            session.window.take(n, len as u64);
            session.regain(from..from + u64::from(n));
            let delivery = session.delivered + 1;
            session.delivered += u64::from(n);
            lease_end = now.mono_after(ack_wait);
            work.leases.grant(Grant {
                session: index,
                delivery,
                first: from,
                count: n,
                bytes: len as u64,
                failed: attempt.failed,
                losses: attempt.losses,
                now: now.mono_ms,
                deadline: lease_end,
            });
            let body = body.slice(at..at + len);
            let facts = Arc::clone(facts);
            let attempt = attempt.failed + 1;
            fx.deliver(key, Delivery { first_seq: from, count: n, attempt, delivery, body, facts });
            given += n;
            at += len;
        }
        if given > 0 {
            self.totals.delivered += u64::from(given);
            self.arm(slot, lease_end);
        }
        given
    }

    /// Kicks a session when there is something to read and nobody reads.
    pub(crate) fn wake(&mut self, slot: u32, fx: &mut impl Effects) {
        let Some(sub) = self.subs.get(slot as usize) else { return };
        let Some(work) = sub.work.as_deref() else { return };
        if work.sessions.is_empty() || work.reading.is_some() || work.read_after.is_some() {
            return;
        }
        if work.returned.ready.is_empty() && (sub.is_caught_up() || sub.headroom() == 0) {
            return;
        }
        let Some(index) = group::pick(&work.sessions, &self.sessions, |s| !s.kicked) else { return };
        let key = self.sessions.key(index);
        if let Some(session) = self.sessions.at_mut(index) {
            session.kicked = true;
        }
        fx.kick(key);
    }

    fn plan(&mut self, slot: u32, key: SessionKey) -> Option<Plan> {
        let end = self.end_seq;
        let window = self.sessions.get(key)?.window;
        let sub = self.subs.get_mut(slot as usize)?;
        let room = window.room();
        if room == 0 {
            return None;
        }
        let headroom = sub.headroom();
        let (id, filters, cursor, caught_up) =
            (sub.def.id, Arc::clone(&sub.def.filters), sub.cursor(end), sub.is_caught_up());
        let work = sub.work.as_deref_mut()?;
        if work.reading.is_some() || work.read_after.is_some() {
            return None;
        }
        let (kind, range, messages_max) = if let Some(range) = stretch(work.returned.ready.iter()) {
            // Others of the subscription's messages may lie between those that are wanted.
            let most = count(&range).min(room.saturating_add(REDELIVERY_GAP as u32));
            (PlanKind::Redeliver, range, most)
        } else if caught_up || headroom == 0 {
            return None;
        } else {
            (PlanKind::CatchUp, cursor..end, room.min(headroom))
        };
        let request = ReadRequest {
            from_seq: range.start,
            end_seq: range.end,
            filters,
            messages_max,
            bytes_max: window.room_bytes().min(self.config.read_bytes).max(1),
        };
        self.tickets += 1;
        let ticket = self.tickets;
        work.reading = Some(Reading { ticket, session: key.index, kind, from: range.start, end: range.end });
        Some(Plan { session: key, subscription: id, request, kind, ticket })
    }

    /// Takes a plan back. `None` when it does not count any more.
    fn end_reading(&mut self, plan: &Plan) -> Option<(u32, Reading)> {
        let slot = self.slot(plan.subscription)?;
        let work = self.work_mut(slot)?;
        let reading = work.reading.take_if(|r| r.ticket == plan.ticket)?;
        Some((slot, reading))
    }

    /// Puts reading off after a failure.
    fn read_later(&mut self, slot: u32, now: Now) {
        let due = now.mono_ms.saturating_add(READ_RETRY_MS);
        if let Some(work) = self.work_mut(slot) {
            work.read_after = Some(due);
            self.arm(slot, due);
        }
    }

    fn commit_catch_up(
        &mut self,
        slot: u32,
        reading: Reading,
        block: ReadBlock,
        now: Now,
        fx: &mut impl Effects,
    ) {
        let end = self.end_seq;
        let Some(mut at) = self.subs.get(slot as usize).map(|s| s.cursor(end)) else { return };
        if let Some(gap) = block.gap {
            at = at.max(gap.to_seq);
        }
        let mut full = false;
        for run in block.runs {
            let Some(run) = not_before(run, at) else { continue };
            at = self.give_unread(slot, reading.session, &run, now, fx);
            full = at < run.first_seq + u64::from(run.count);
            if full {
                break;
            }
        }
        if !full {
            at = at.max(block.next_seq.min(end));
        }
        if at <= reading.from && !full {
            // The log brought nothing and did not go on either.
            self.read_later(slot, now);
        }
        if let Some(sub) = self.subs.get_mut(slot as usize) {
            sub.set_cursor(at, end);
        }
    }

    /// Gives out what of a run is unread; answers where reading goes on: its end, or where credit ended.
    fn give_unread(&mut self, slot: u32, to: u32, run: &StoredRun, now: Now, fx: &mut impl Effects) -> Seq {
        let whole = run.first_seq..run.first_seq + u64::from(run.count);
        let Some(sub) = self.subs.get_mut(slot as usize) else { return whole.start };
        let work = sub.work();
        // After a restart some of what follows the cursor is settled already, or goes by redelivery.
        let mut skip = work.ahead.part(whole.clone());
        work.returned.within(whole.clone()).for_each(|r| skip.insert(r));
        work.leases.overlapping(&whole).flat_map(|run| run.within(&whole)).for_each(|r| skip.insert(r));
        let (mut at, mut offset) = (whole.start, 0);
        for range in skip.gaps(whole.clone()) {
            offset += skip_messages(&run.body, offset, range.start - at);
            at = range.start;
            let body = if range.end == whole.end {
                run.body.slice(offset..)
            } else {
                first_messages(&run.body, offset, count(&range))
            };
            for part in expiry::split(&body, count(&range), self.config.message_ttl, &run.facts, now.wall) {
                let expired = part.expired && !planted(Bug::DeliverExpired);
                if expired {
                    self.note_expired(slot, at..at + u64::from(part.count));
                } else {
                    let bytes = body.slice(part.bytes.clone());
                    let given = self.give(slot, Some(to), at, part.count, &bytes, Attempt::FIRST, &run.facts, now, fx);
                    if given < part.count {
                        let skipped = if planted(Bug::CursorSkipsOnCredit) { part.count } else { given };
                        return at + u64::from(skipped);
                    }
                }
                at += u64::from(part.count);
            }
            offset += body.len();
        }
        whole.end
    }

    fn commit_redelivery(
        &mut self,
        slot: u32,
        reading: Reading,
        block: &ReadBlock,
        now: Now,
        fx: &mut impl Effects,
    ) {
        let mut at = reading.from;
        for run in &block.runs {
            let ends = run.first_seq + u64::from(run.count);
            if ends <= at {
                continue;
            }
            self.call_off(slot, at..run.first_seq.min(reading.end), fx);
            at = ends.min(reading.end);
            if !self.give_again(slot, reading.session, run, run.first_seq..at, now, fx) {
                return;
            }
        }
        self.call_off(slot, at..block.next_seq.min(reading.end), fx);
        if block.runs.is_empty() && block.next_seq <= reading.from && block.gap.is_none() {
            self.read_later(slot, now);
        }
    }

    /// Gives out what of a run is ready to go again, in a range. `false` when credit ended.
    fn give_again(
        &mut self,
        slot: u32,
        to: u32,
        run: &StoredRun,
        range: Range<Seq>,
        now: Now,
        fx: &mut impl Effects,
    ) -> bool {
        let Some(work) = self.work_mut(slot) else { return false };
        let mut taken = work.returned.take_ready(range).into_iter();
        let (mut at, mut offset) = (run.first_seq, 0);
        let mut room = true;
        while let Some((range, back)) = taken.next() {
            offset += skip_messages(&run.body, offset, range.start - at);
            at = range.start;
            let body = first_messages(&run.body, offset, count(&range));
            for part in expiry::split(&body, count(&range), self.config.message_ttl, &run.facts, now.wall) {
                let part_end = at + u64::from(part.count);
                if part.expired && !planted(Bug::DeliverExpired) {
                    self.settle_quietly(slot, at..part_end);
                    self.note_expired(slot, at..part_end);
                } else if room {
                    let bytes = body.slice(part.bytes.clone());
                    let attempt = Attempt { failed: back.failed, losses: back.losses, again: true };
                    let given = self.give(slot, Some(to), at, part.count, &bytes, attempt, &run.facts, now, fx);
                    self.totals.redelivered += u64::from(given);
                    room = given == part.count;
                    self.put_back(slot, at + u64::from(given)..part_end, back);
                } else {
                    self.put_back(slot, at..part_end, back);
                }
                at = part_end;
            }
            offset += body.len();
            if !room {
                for (range, back) in taken.by_ref() {
                    self.put_back(slot, range, back);
                }
            }
        }
        room
    }

    fn put_back(&mut self, slot: u32, range: Range<Seq>, back: Back) {
        if !range.is_empty()
            && let Some(work) = self.work_mut(slot)
        {
            work.returned.put_ready(range, back);
        }
    }

    /// Calls off redeliveries of messages that the log has not got any more, and says so.
    pub(crate) fn call_off(&mut self, slot: u32, range: Range<Seq>, fx: &mut impl Effects) {
        if range.is_empty() {
            return;
        }
        let Some(work) = self.work_mut(slot) else { return };
        let taken = work.returned.take_waiting(range.clone());
        let (Some(first), Some(last)) = (taken.first().map(|t| t.0.start), taken.iter().map(|t| t.0.end).max()) else {
            return;
        };
        let first = taken.iter().map(|t| t.0.start).min().unwrap_or(first);
        let gap = work.gap.get_or_insert(Gap { from_seq: first, to_seq: last });
        gap.from_seq = gap.from_seq.min(first);
        gap.to_seq = gap.to_seq.max(last);
        for (range, _) in &taken {
            self.totals.trimmed += u64::from(count(range));
            self.settle_quietly(slot, range.clone());
        }
        self.tell_gap(slot, fx);
    }

    /// Tells a session what its subscription will never get, once there is one.
    pub(crate) fn tell_gap(&mut self, slot: u32, fx: &mut impl Effects) {
        let Self { subs, sessions, .. } = self;
        let Some(work) = subs.get_mut(slot as usize).and_then(|s| s.work.as_deref_mut()) else { return };
        let listener = work.sessions.iter().find(|i| sessions.at(**i).is_some_and(|s| s.connected));
        if let Some(&index) = listener
            && let Some(gap) = work.gap.take()
        {
            fx.gap(sessions.key(index), gap);
        }
    }
}

/// The first messages to be redelivered, close enough together for one read.
fn stretch<'a>(ready: impl Iterator<Item = (Range<Seq>, &'a Back)>) -> Option<Range<Seq>> {
    let mut out: Option<Range<Seq>> = None;
    for (range, _) in ready {
        let Some(so_far) = &mut out else {
            out = Some(range.start..range.end.min(range.start + REDELIVERY_SPAN));
            continue;
        };
        if range.start - so_far.end > REDELIVERY_GAP || range.end - so_far.start > REDELIVERY_SPAN {
            break;
        }
        so_far.end = range.end;
    }
    out
}

/// A run without its messages below a seq.
fn not_before(run: StoredRun, seq: Seq) -> Option<StoredRun> {
    let Some(skip) = seq.checked_sub(run.first_seq).filter(|n| *n > 0) else { return Some(run) };
    if skip >= u64::from(run.count) {
        return None;
    }
    let offset = skip_messages(&run.body, 0, skip);
    Some(StoredRun { first_seq: seq, count: run.count - skip as u32, body: run.body.slice(offset..), ..run })
}

/// Bytes of the next `count` messages from `offset` on.
fn skip_messages(body: &Bytes, offset: usize, count: u64) -> usize {
    acb_types::frame::prefix_len(&body[offset..], count as u32)
}

/// The next `count` messages from `offset` on.
fn first_messages(body: &Bytes, offset: usize, count: u32) -> Bytes {
    body.slice(offset..offset + skip_messages(body, offset, count.into()))
}
