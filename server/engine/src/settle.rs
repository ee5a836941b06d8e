//! What consumers say of their messages, and what becomes of them then.
//!
//! A settlement names a range of seqs. In it, what is leased to the session is settled as asked. What it was given and
//! has lost again, what another session holds, what waits, is dying, dead or expired, and what nobody was given yet is
//! refused with `lease_lost`. What was acknowledged before needs nothing, so an ack may be repeated; what the
//! subscription does not hear does not matter. So an accepted ack is never about a message that is anything but
//! acknowledged.

use std::ops::Range;

use acb_types::{Now, envelope::Text, error_code::ErrorCode, limits, position::Seq};
use smallvec::SmallVec;

use crate::{
    api::{DeathReason, Effects, SessionKey, Settlement},
    lease::Ended,
    partition::{Core, Engine},
    planted::{Bug, planted},
    ranges::RangeSet,
    redelivery::{Back, Due, Dying, Failure, KEPT_ERRORS, count, kept_error, wait_ms},
    subscription::Confirm,
};

/// Ranges that may wait for the journal; above it the subscription's state is journaled whole instead.
const PENDING_MAX: usize = 4096;

/// Leases that a settlement ended.
type EndedRuns = SmallVec<[Ended; 2]>;

impl Engine {
    /// A consumer settles messages that it was given. Refusals come back at once, confirmations when durable; whatever
    /// is done under the key of a connection that is gone does nothing.
    pub fn settle(&mut self, session: SessionKey, settlement: Settlement<'_>, now: Now, fx: &mut impl Effects) {
        let core = &mut self.core;
        let Some(slot) = core.sessions.get(session).map(|s| s.slot) else { return };
        let asked = settlement.range();
        let range = asked.first_seq..asked.end();
        let mut refused = RangeSet::default();
        if let Settlement::Progress(_) = settlement {
            core.progress(slot, session.index, &range, now, &mut refused);
        } else {
            let ended = core.end_leases(slot, session.index, &range, &mut refused);
            match settlement {
                Settlement::Nack { delay, reason, .. } => {
                    core.totals.nacked += ended.iter().map(|e| u64::from(e.count)).sum::<u64>();
                    let reason = limited(reason);
                    core.bring_back(slot, &ended, Failure::Nacked { delay, reason }, now, fx);
                }
                Settlement::Term { reason, .. } => {
                    core.bring_back(slot, &ended, Failure::Terminated { reason: limited(reason) }, now, fx);
                }
                Settlement::Release(_) => core.bring_back(slot, &ended, Failure::Released, now, fx),
                _ => core.acknowledge(slot, &ended, &range, &refused),
            }
            if let Settlement::ConfirmedAck(_) = settlement {
                core.confirm(slot, session, &range, &refused, fx);
            }
        }
        for range in refused.iter() {
            core.totals.refused += 1;
            fx.settled(session, range.start, count(&range), Err(ErrorCode::LeaseLost));
        }
        core.wake(slot, fx);
    }
}

/// A reason within its limit; the edge has refused longer ones.
fn limited(reason: &str) -> &str {
    let mut end = reason.len().min(limits::REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

impl Core {
    /// Ends a session's leases in a range, and says what of the range is refused.
    fn end_leases(&mut self, slot: u32, index: u32, range: &Range<Seq>, refused: &mut RangeSet) -> EndedRuns {
        let mut ended = EndedRuns::new();
        if let Some(work) = self.work_mut(slot) {
            work.leases.end(range.clone(), |run, e| {
                let mine = run.session == index || planted(Bug::AckForeignLease);
                if mine {
                    ended.push(e);
                } else {
                    e.ranges().for_each(|r| refused.insert(r));
                }
                mine
            });
        }
        self.refuse(slot, index, range, refused);
        // What ended just now may lie below what is forgotten; it was there all the same.
        if !refused.is_empty() {
            ended.iter().flat_map(Ended::ranges).for_each(|r| refused.remove(r));
        }
        ended
    }

    /// Starts leases anew.
    fn progress(&mut self, slot: u32, index: u32, range: &Range<Seq>, now: Now, refused: &mut RangeSet) {
        let Some(sub) = self.subs.get_mut(slot as usize) else { return };
        let deadline = now.mono_after(sub.def.ack_wait);
        let Some(work) = sub.work.as_deref_mut() else { return };
        work.leases.renew(range.clone(), index, now.mono_ms, deadline);
        let mut mine = RangeSet::default();
        for run in work.leases.overlapping(range) {
            let whose = if run.session == index { &mut mine } else { &mut *refused };
            run.within(range).for_each(|r| whose.insert(r));
        }
        self.refuse(slot, index, range, refused);
        mine.iter().for_each(|r| refused.remove(r));
        self.arm(slot, deadline);
    }

    /// Adds to `refused` what of a range is neither leased nor acknowledged.
    fn refuse(&self, slot: u32, index: u32, range: &Range<Seq>, refused: &mut RangeSet) {
        let Some(sub) = self.subs.get(slot as usize) else { return };
        let Some(work) = sub.work.as_deref() else { return };
        if !work.returned.is_empty() {
            work.returned.within(range.clone()).for_each(|r| refused.insert(r));
            if planted(Bug::AckTheDying) {
                work.returned.dying.within(range.clone()).for_each(|(r, _)| refused.remove(r));
            }
        }
        if let Some(session) = self.sessions.at(index) {
            session.lost_in(range, refused);
        }
        let cursor = sub.cursor(self.end_seq);
        if range.end > cursor {
            let unread = range.start.max(cursor)..range.end;
            work.ahead.gaps(unread).into_iter().for_each(|r| refused.insert(r));
        }
        for (seq, _) in work.dead.range(range.clone()) {
            refused.insert(*seq..*seq + 1);
        }
        work.expired.within(range.clone()).for_each(|r| refused.insert(r));
        // Below, acknowledged ones are not told from dead and expired ones any more.
        let forgotten = work.forgotten.max(self.first_seq);
        if range.start < forgotten {
            refused.insert(range.start..range.end.min(forgotten));
        }
    }

    fn acknowledge(&mut self, slot: u32, ended: &[Ended], range: &Range<Seq>, refused: &RangeSet) {
        if ended.is_empty() {
            return;
        }
        let end = self.end_seq;
        self.give_back(ended);
        self.totals.acked += ended.iter().map(|e| u64::from(e.count)).sum::<u64>();
        let Some(sub) = self.subs.get_mut(slot as usize) else { return };
        if refused.is_empty() && range.end <= sub.cursor(end) {
            // Nothing open is left in the range: the whole of it is settled, and one range says so.
            sub.acked(range.clone());
        } else {
            for r in ended.iter().flat_map(Ended::ranges) {
                sub.note_settled(r.clone(), end);
                sub.acked(r);
            }
        }
        self.touch(slot);
    }

    /// Returns what ended to its sessions' windows.
    fn give_back(&mut self, ended: &[Ended]) {
        for e in ended {
            if let Some(session) = self.sessions.at_mut(e.session) {
                session.window.give(e.count, e.bytes);
            }
        }
    }

    /// Sees to it that a confirmed ack is answered when all it says is durable.
    fn confirm(&mut self, slot: u32, key: SessionKey, range: &Range<Seq>, refused: &RangeSet, fx: &mut impl Effects) {
        let Some(serial) = self.sessions.get(key).map(|s| s.serial) else { return };
        let Some(sub) = self.subs.get_mut(slot as usize) else { return };
        for part in refused.gaps(range.clone()) {
            let confirm = Confirm { session: key.index, serial, range: part.clone() };
            if sub.dirty && !planted(Bug::ConfirmEarly) {
                sub.work().pending.confirms.push(confirm);
            } else if sub.def.ephemeral
                || planted(Bug::ConfirmEarly)
                || !self.journal.wait(sub.journaled_in, slot, confirm)
            {
                fx.settled(key, part.start, count(&part), Ok(()));
            }
        }
    }

    /// Takes messages back whose leases ended, and decides what becomes of them.
    pub(crate) fn bring_back(
        &mut self,
        slot: u32,
        ended: &[Ended],
        failure: Failure<'_>,
        now: Now,
        fx: &mut impl Effects,
    ) {
        if ended.is_empty() {
            return;
        }
        self.give_back(ended);
        for e in ended {
            for range in e.ranges() {
                self.bring_back_range(slot, e, range, failure, now, fx);
            }
        }
        self.touch(slot);
    }

    fn bring_back_range(
        &mut self,
        slot: u32,
        ended: &Ended,
        range: Range<Seq>,
        failure: Failure<'_>,
        now: Now,
        fx: &mut impl Effects,
    ) {
        let losses_per_attempt = self.config.losses_per_attempt.max(1);
        let Self { subs, sessions, jitter, totals, .. } = self;
        let Some(sub) = subs.get_mut(slot as usize) else { return };
        let (max_attempts, schedule) = (sub.def.max_attempts, &sub.def.retry_schedule);
        let Some(work) = sub.work.as_deref_mut() else { return };
        let mut failed = ended.failed;
        let mut losses = ended.losses;
        let mut reason = DeathReason::AttemptsExhausted;
        let counts = match failure {
            Failure::Released => {
                totals.released += u64::from(count(&range));
                if planted(Bug::LoseOnRelease) {
                    return;
                }
                work.returned.put_ready(range, Back { failed, losses, due: Due::default() });
                return;
            }
            Failure::Lost => {
                totals.released += u64::from(count(&range));
                reason = DeathReason::ConnectionLost;
                losses += 1;
                u32::from(losses) >= losses_per_attempt
            }
            Failure::Nacked { .. } if planted(Bug::ForgetNack) => return,
            Failure::LeaseEnded | Failure::Nacked { .. } | Failure::Terminated { .. } => true,
        };
        if let Failure::LeaseEnded | Failure::Lost = failure
            && let Some(session) = sessions.at_mut(ended.session)
        {
            session.lose(range.clone());
        }
        if planted(Bug::DoubleLease) && matches!(failure, Failure::LeaseEnded) {
            work.returned.put_ready(range, Back::default());
            return;
        }
        work.pending.returned.insert(range.clone());
        if !counts {
            work.returned.put_ready(range, Back { failed, losses, due: Due::default() });
            return;
        }
        if !planted(Bug::SkipAttemptCount) {
            failed += 1;
        }
        losses = 0;
        let said = failure.reason();
        if let Failure::Terminated { .. } = failure {
            reason = DeathReason::Terminated;
        } else if failed < max_attempts {
            if !said.is_empty() {
                work.errors.take(range.clone());
                if work.errors.len() < KEPT_ERRORS {
                    work.errors.insert(range.clone(), kept_error(said));
                }
            }
            let explicit = if let Failure::Nacked { delay, .. } = failure { delay } else { None };
            let wait = if planted(Bug::RetryAtOnce) { 0 } else { wait_ms(schedule, failed, explicit, jitter) };
            let due = Due::after(wait, now);
            work.returned.put_later(range, Back { failed, losses, due });
            self.arm(slot, due.mono_ms);
            return;
        }
        // Its own last words, or what was said before.
        if said.is_empty() {
            let known: SmallVec<[_; 1]> = work.errors.take(range.clone());
            let mut rest = RangeSet::default();
            rest.insert(range.clone());
            for (part, text) in known {
                rest.remove(part.clone());
                work.returned.put_dying(part, Dying { attempts: failed, reason, last_error: text });
            }
            for part in rest.iter() {
                work.returned.put_dying(part, Dying { attempts: failed, reason, last_error: Text::EMPTY });
            }
        } else {
            work.errors.take(range.clone());
            work.returned.put_dying(range.clone(), Dying { attempts: failed, reason, last_error: Text::from(said) });
        }
        self.announce(slot, range.clone(), fx);
        if planted(Bug::DieTwice) {
            self.announce(slot, range, fx);
        }
    }

    /// Takes messages for settled that nothing holds any more.
    pub(crate) fn settle_quietly(&mut self, slot: u32, range: Range<Seq>) {
        let end = self.end_seq;
        if let Some(sub) = self.subs.get_mut(slot as usize) {
            sub.note_settled(range.clone(), end);
            sub.acked(range);
            self.touch(slot);
        }
    }

    /// Takes messages for expired.
    pub(crate) fn note_expired(&mut self, slot: u32, range: Range<Seq>) {
        let remembered = self.config.remembered;
        self.totals.expired += u64::from(count(&range));
        if let Some(sub) = self.subs.get_mut(slot as usize) {
            sub.work().note_expired(range, remembered);
            sub.bound_pending(PENDING_MAX);
            self.touch(slot);
        }
    }
}

impl crate::subscription::Subscription {
    /// Notes for the journal that messages are acknowledged.
    fn acked(&mut self, range: Range<Seq>) {
        let rewrite = self.rewrite;
        let work = self.work();
        if !work.errors.is_empty() {
            work.errors.take(range.clone());
        }
        if !rewrite && !planted(Bug::ForgetJournal) {
            work.pending.acked.insert(range);
            self.bound_pending(PENDING_MAX);
        }
    }

    /// Gives the list of changes up for the whole state when it grows too long, so that a journal that nobody takes
    /// costs no more than the state itself.
    pub(crate) fn bound_pending(&mut self, most: usize) {
        let Some(work) = &mut self.work else { return };
        let pending = &mut work.pending;
        let long = [pending.acked.len(), pending.expired.len(), pending.returned.len(), pending.dead.len()];
        if long.into_iter().any(|n| n > most) {
            let confirms = std::mem::take(&mut pending.confirms);
            *pending = crate::subscription::Pending { confirms, ..Default::default() };
            self.rewrite = true;
        }
    }
}
