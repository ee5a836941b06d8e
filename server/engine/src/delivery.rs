//! Giving messages out: the choice of a session, the cut where credit ends, the lease, and the word to the runner.
//!
//! A subscription that has heard everything is given what is new straight from the batch it came in. One that has not,
//! or whose sessions have no room, keeps a cursor and nothing else, whatever piles up: its sessions are kicked when
//! there is room again, and read ([`crate::reading`]).

use std::{ops::Range, sync::Arc};

use acb_types::{
    Now,
    batch::{Facts, Gap},
    position::Seq,
};
use bytes::Bytes;

use crate::{
    api::{Delivery, Effects},
    group,
    lease::Grant,
    partition::Core,
    planted::{Bug, planted},
    redelivery::{Back, count},
    subscription::merge_gap,
};

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

    pub(crate) fn again(back: &Back) -> Self {
        Self { failed: back.failed, losses: back.losses, again: true }
    }
}

impl Core {
    /// Gives consecutive messages of one attempt to a session, or to whoever has fewest in hand. Answers how many went.
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
            session.turn = self.totals.delivered + u64::from(given + n);
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

    /// Calls off redeliveries of messages that the log has not got any more, and says so.
    pub(crate) fn call_off(&mut self, slot: u32, range: Range<Seq>, fx: &mut impl Effects) {
        if range.is_empty() {
            return;
        }
        let Some(work) = self.work_mut(slot) else { return };
        let taken = work.returned.take_waiting(range.clone());
        let from = taken.iter().map(|(r, _)| r.start).min();
        let to = taken.iter().map(|(r, _)| r.end).max();
        let (Some(from_seq), Some(to_seq)) = (from, to) else { return };
        merge_gap(&mut work.gap, Gap { from_seq, to_seq });
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
