//! Reading for those who lag, and again for those who failed: planned under the runner's lock, read outside it,
//! committed under it. One read at a time goes on for each subscription, so that what one session is given stays in
//! order; a plan that its session cannot commit any more costs nothing but the read.

use std::{ops::Range, sync::Arc};

use acb_types::{
    Now,
    batch::{ReadBlock, ReadRequest, StoredRun},
    frame,
    position::Seq,
};
use bytes::Bytes;

use crate::{
    api::{Effects, Plan, PlanKind, SessionKey},
    delivery::Attempt,
    expiry,
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
    #[expect(clippy::needless_pass_by_value, reason = "a plan can be used once")]
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
    #[expect(clippy::needless_pass_by_value, reason = "a plan can be used once")]
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

    fn commit_catch_up(&mut self, slot: u32, reading: Reading, block: ReadBlock, now: Now, fx: &mut impl Effects) {
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

    fn commit_redelivery(&mut self, slot: u32, reading: Reading, block: &ReadBlock, now: Now, fx: &mut impl Effects) {
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
                    let attempt = Attempt::again(&back);
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
    frame::prefix_len(&body[offset..], count as u32)
}

/// The next `count` messages from `offset` on.
fn first_messages(body: &Bytes, offset: usize, count: u32) -> Bytes {
    body.slice(offset..offset + skip_messages(body, offset, count.into()))
}
