//! Delivery state on its way to the log and back.
//!
//! What a piece of the journal holds is worked out when it is taken, from the state at that moment: of acks in order
//! only the new floor, of a message that failed twice only the last. So the cost follows what changed, not what was
//! said, and a piece that is lost is made good by journaling the state anew.

use std::collections::VecDeque;

use acb_types::{Now, batch::SubscriptionDef, position::Seq};
use bytes::Bytes;

use crate::{
    api::{Corrupt, DeathReason, Effects, JournalMark},
    partition::{Core, Engine},
    planted::{Bug, planted},
    redelivery::{Dying, count},
    state_record::{self, Restored, Writer},
    subscription::{Confirm, Subscription},
};

/// Where the journal stands.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// Slots with something to journal.
    pub(crate) dirty: Vec<u32>,
    /// Pieces that are written and not taken yet.
    ready: VecDeque<(u64, Bytes)>,
    /// Number of the last piece written, and of the last that is durable.
    written: u64,
    durable: u64,
    /// Confirmed acks, by the piece that makes them durable.
    confirms: VecDeque<(u64, u32, Confirm)>,
}

impl Journal {
    /// Keeps a confirmed ack until all that is written is durable; `false` when `piece`, where it stands, is already.
    pub(crate) fn wait(&mut self, piece: u64, slot: u32, confirm: Confirm) -> bool {
        let waits = piece > self.durable;
        if waits {
            self.confirms.push_back((self.written, slot, confirm));
        }
        waits
    }

    /// Forgets a subscription that is gone.
    pub(crate) fn forget(&mut self, slot: u32) {
        self.dirty.retain(|s| *s != slot);
        self.confirms.retain(|(_, s, _)| *s != slot);
    }
}

impl Engine {
    /// State records since the last call, at most 1 MiB; to be called until it answers `None`, and each piece to be
    /// staged into the partition's log in order.
    pub fn take_journal(&mut self) -> Option<(JournalMark, Bytes)> {
        let core = &mut self.core;
        if core.journal.ready.is_empty() && !core.journal.dirty.is_empty() {
            core.write_journal();
        }
        core.journal.ready.pop_front().map(|(mark, bytes)| (JournalMark(mark), bytes))
    }

    /// Whether [`Self::take_journal`] has something to say.
    pub fn has_journal(&self) -> bool {
        !self.core.journal.ready.is_empty() || !self.core.journal.dirty.is_empty()
    }

    /// Everything up to a mark is durable: confirmed acks in it are answered.
    pub fn journal_durable(&mut self, mark: JournalMark, fx: &mut impl Effects) {
        let Core { journal, sessions, .. } = &mut self.core;
        journal.durable = journal.durable.max(mark.0);
        while let Some((_, _, confirm)) = journal.confirms.pop_front_if(|(piece, _, _)| *piece <= journal.durable) {
            let Confirm { session, serial, range } = confirm;
            // A session that is away asks again when it is back.
            if sessions.at(session).is_some_and(|s| s.serial == serial && s.connected) {
                fx.settled(sessions.key(session), range.start, count(&range), Ok(()));
            }
        }
    }

    /// Pieces that were taken and are not durable are lost, as after a failed write that heals. What they said is said
    /// again.
    pub fn journal_lost(&mut self) {
        let core = &mut self.core;
        core.journal.ready.clear();
        for (_, slot, confirm) in std::mem::take(&mut core.journal.confirms) {
            if let Some(sub) = core.subs.get_mut(slot as usize) {
                sub.work().pending.confirms.push(confirm);
            }
        }
        let durable = core.journal.durable;
        let slots: Vec<u32> =
            core.subs.iter().filter(|(_, s)| s.journaled_in > durable).map(|(slot, _)| slot as u32).collect();
        for slot in slots {
            if let Some(sub) = core.subs.get_mut(slot as usize) {
                sub.rewrite = true;
            }
            core.touch(slot);
        }
    }

    /// The whole state of all durable subscriptions, in parts of at most 1 MiB. With it, records taken earlier are not
    /// needed any more; those taken later are.
    pub fn snapshot(&self) -> Vec<Bytes> {
        let mut out = Writer::new();
        for (_, sub) in self.core.subs.iter().filter(|(_, s)| !s.def.ephemeral) {
            out.subscription(sub.def.id);
            sub.write_all(&mut out, self.core.end_seq);
        }
        out.finish()
    }

    /// Takes up the state of an earlier engine: `records` are the parts of a snapshot and what was taken after it, in
    /// order; `defs` the subscriptions that there are, each with the seq it was made at. Records of others are passed
    /// over. What was delivered and not settled comes again, with the attempts that had failed.
    ///
    /// Call [`Self::dead`] for what the dead-letter log knows, then [`Self::advance`]: it announces those that were
    /// dying.
    ///
    /// # Errors
    /// A record that makes no sense. The engine is not to be used then.
    pub fn restore(
        &mut self,
        records: &[Bytes],
        defs: &[(SubscriptionDef, Seq)],
        first_seq: Seq,
        end_seq: Seq,
        now: Now,
    ) -> Result<(), Corrupt> {
        let mut states = state_record::read(records, now)?;
        self.core.first_seq = first_seq;
        self.core.end_seq = end_seq;
        for (def, start) in defs {
            if self.core.slot(def.id).is_some() {
                continue;
            }
            let state = states.remove(&def.id).unwrap_or_default();
            let slot = self.add(Subscription::new(def.clone(), *start, end_seq));
            self.core.take_up(slot, state);
        }
        Ok(())
    }
}

impl Core {
    /// Writes what all touched subscriptions have to journal.
    fn write_journal(&mut self) {
        let dirty = std::mem::take(&mut self.journal.dirty);
        let mut out = Writer::new();
        let mut confirmed = Vec::new();
        for slot in &dirty {
            if let Some(sub) = self.subs.get_mut(*slot as usize) {
                sub.dirty = false;
                let confirms = sub.journal(&mut out, self.end_seq);
                confirmed.extend(confirms.into_iter().map(|c| (*slot, c)));
            }
        }
        for part in out.finish() {
            self.journal.written += 1;
            self.journal.ready.push_back((self.journal.written, part));
        }
        // The last part may hold the end of any of them.
        let mark = self.journal.written;
        self.journal.confirms.extend(confirmed.into_iter().map(|(slot, c)| (mark, slot, c)));
        for slot in dirty {
            if let Some(sub) = self.subs.get_mut(slot as usize) {
                sub.journaled_in = mark;
                sub.rest();
            }
        }
    }

    /// Puts restored state into a new subscription.
    fn take_up(&mut self, slot: u32, state: Restored) {
        let (end, remembered) = (self.end_seq, self.config.remembered);
        let Some(sub) = self.subs.get_mut(slot as usize) else { return };
        let floor = state.floor.max(sub.start);
        let floor = if planted(Bug::RestoreAtEnd) { end } else { floor.min(end) };
        sub.journaled_floor = state.floor;
        let max_attempts = sub.def.max_attempts;
        let work = sub.work();
        state.settled.within(floor..end).for_each(|r| work.ahead.insert(r));
        for (range, back) in state.returned.within(floor..end) {
            if back.failed >= max_attempts {
                let last_error = state.errors.get(range.start).cloned().unwrap_or_default();
                let reason = DeathReason::AttemptsExhausted;
                work.returned.put_dying(range, Dying { attempts: back.failed, reason, last_error });
            } else {
                work.returned.put_later(range, *back);
            }
        }
        for (range, dying) in state.dying.within(floor..end) {
            work.returned.put_dying(range, dying.clone());
        }
        for (range, text) in state.errors.within(floor..end).filter(|(r, _)| work.returned.later.get(r.start).is_some())
        {
            work.errors.insert(range, text.clone());
        }
        work.dead = state.dead;
        work.expired = state.expired;
        work.forget(remembered);
        if work.returned.dying_messages > 0 {
            self.revived.push_back(slot);
        }
        let due = work.returned.later.iter().map(|(_, back)| back.due.mono_ms).min();
        sub.set_cursor(floor, end);
        sub.rest();
        if let Some(due) = due {
            self.arm(slot, due);
        }
        // What retention took while we were away: the runner's read would find nothing.
        let first_seq = self.first_seq;
        self.call_off(slot, 0..first_seq, &mut Nobody);
    }
}

/// For effects that nobody can be there to see.
struct Nobody;

impl Effects for Nobody {
    fn deliver(&mut self, _: crate::SessionKey, _: crate::Delivery) {}
    fn kick(&mut self, _: crate::SessionKey) {}
    fn settled(&mut self, _: crate::SessionKey, _: Seq, _: u32, _: Result<(), acb_types::ErrorCode>) {}
    fn gap(&mut self, _: crate::SessionKey, _: acb_types::batch::Gap) {}
    fn die(&mut self, _: crate::Death) {}
}
