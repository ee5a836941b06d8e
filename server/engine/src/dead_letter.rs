//! Giving messages up.
//!
//! A message that is to die is announced once and then `dying`: neither delivered nor settled, until the runner says
//! that its dead letter is durable. Only then is it journaled as dead. A crash between the two makes it die again after
//! the restart, and the dead-letter log knows its key; a crash before either leaves it with its attempts.

use std::ops::Range;

use acb_types::{MessageId, Now, SubscriptionId, error_code::ErrorCode, position::Seq};

use crate::{
    api::{Death, Effects},
    partition::{Core, Engine},
    subscription::{Dead, Standing},
};

impl Engine {
    /// The dead letter of a message is durable (`None`: dropped by policy): it is settled and journaled as dead. Counts
    /// whatever the engine thought of the message, because after a restart the dead-letter log knows better; called
    /// twice, it changes nothing.
    pub fn dead(
        &mut self,
        subscription: SubscriptionId,
        seq: Seq,
        dead_letter: Option<MessageId>,
        _now: Now,
        fx: &mut impl Effects,
    ) {
        let core = &mut self.core;
        let (end, remembered) = (core.end_seq, core.config.remembered);
        let Some(slot) = core.slot(subscription) else { return };
        let Some(sub) = core.subs.get_mut(slot as usize) else { return };
        let attempts = match sub.standing(seq, end) {
            _ if seq >= end => return,
            Standing::Settled => return,
            Standing::Dying(dying) => dying.attempts,
            Standing::Leased(run) => run.failed + 1,
            Standing::Waiting(back) => back.failed,
            Standing::Unread => sub.def.max_attempts,
        };
        core.withdraw(slot, seq);
        if let Some(sub) = core.subs.get_mut(slot as usize) {
            sub.note_settled(seq..seq + 1, end);
            sub.work().note_dead(seq, Dead { attempts, letter: dead_letter }, remembered);
            sub.bound_pending(4096);
        }
        core.totals.died += 1;
        core.touch(slot);
        core.wake(slot, fx);
    }

    /// Settles a message without a lease, as a discard of a dead letter does. Answers whether that changed anything.
    ///
    /// # Errors
    /// `subscription_not_found`; `slow_down` when too many ranges are settled ahead of the subscription's cursor.
    pub fn settle_direct(
        &mut self,
        subscription: SubscriptionId,
        seq: Seq,
        _now: Now,
        fx: &mut impl Effects,
    ) -> Result<bool, ErrorCode> {
        let core = &mut self.core;
        let end = core.end_seq;
        let slot = core.slot(subscription).ok_or(ErrorCode::SubscriptionNotFound)?;
        let Some(sub) = core.subs.get(slot as usize) else { return Err(ErrorCode::SubscriptionNotFound) };
        if seq >= end || seq < sub.start || matches!(sub.standing(seq, end), Standing::Settled) {
            return Ok(false);
        }
        if sub.work.as_ref().is_some_and(|w| w.ahead.len() >= core.config.settled_ahead) {
            return Err(ErrorCode::SlowDown);
        }
        core.withdraw(slot, seq);
        core.settle_quietly(slot, seq..seq + 1);
        core.totals.acked += 1;
        core.wake(slot, fx);
        Ok(true)
    }

    /// Whether a message is settled for a subscription: acknowledged, dead, expired, or older than the subscription.
    /// `false` for an unknown subscription.
    pub fn is_settled(&self, subscription: SubscriptionId, seq: Seq) -> bool {
        let sub = self.core.slot(subscription).and_then(|slot| self.core.subs.get(slot as usize));
        sub.is_some_and(|s| seq < s.start || matches!(s.standing(seq, self.core.end_seq), Standing::Settled))
    }
}

impl Core {
    /// Takes a message out of wherever it is.
    fn withdraw(&mut self, slot: u32, seq: Seq) {
        let Self { subs, sessions, .. } = self;
        let Some(work) = subs.get_mut(slot as usize).and_then(|s| s.work.as_deref_mut()) else { return };
        work.returned.take(seq..seq + 1);
        work.errors.take(seq..seq + 1);
        work.leases.end(seq..seq + 1, |run, e| {
            if let Some(session) = sessions.at_mut(run.session) {
                session.window.give(e.count, e.bytes);
                session.lose(seq..seq + 1);
            }
            true
        });
    }

    /// Says that the dying messages in a range are to become dead letters.
    pub(crate) fn announce(&mut self, slot: u32, range: Range<Seq>, fx: &mut impl Effects) {
        let Some(sub) = self.subs.get(slot as usize) else { return };
        let Some(work) = sub.work.as_deref() else { return };
        for (part, dying) in work.returned.dying.within(range) {
            for seq in part {
                fx.die(Death {
                    subscription: sub.def.id,
                    name: sub.def.name.clone(),
                    seq,
                    attempts: dying.attempts,
                    reason: dying.reason,
                    last_error: dying.last_error.clone(),
                    policy: sub.def.dead_letters,
                });
            }
        }
    }

    /// Says so of all that were dying when the process ended.
    pub(crate) fn announce_dying(&mut self, slot: u32, fx: &mut impl Effects) {
        self.announce(slot, 0..Seq::MAX, fx);
    }
}
