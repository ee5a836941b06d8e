//! Letting go of what nobody will ever get, for subscriptions whose consumers are away.
//!
//! A subscription that is read learns from reading that what follows its cursor is not its own, or has expired. One whose
//! consumers stay away does not: after a restart its cursor stands where it was journaled last, and one forgotten
//! message holds it for good. Its floor holds the log. So now and then (once after a restart, then every hour, say) the
//! runner surveys: a read for each such subscription that moves its floor to the first message somebody may still want.

use acb_types::{
    Now, SubscriptionId,
    batch::{ReadBlock, ReadRequest},
    limits,
    position::Seq,
};

use crate::{
    expiry,
    partition::{Core, Engine},
    subscription::{Standing, merge_gap},
};

/// Most subscriptions have nothing to let go of: one message says so. For the others, each read asks for so many times
/// more than the one before.
const SURVEY_GROWTH: u32 = 8;

/// What to read for a subscription that nobody reads. Goes back by [`Engine::surveyed`], or is dropped when the read
/// failed.
#[derive(Debug)]
pub struct Survey {
    /// For which subscription.
    pub subscription: SubscriptionId,
    /// What to read.
    pub request: ReadRequest,
}

impl Engine {
    /// What the survey reads next; `None` at the end of a round, after which a new one begins.
    pub fn survey(&mut self) -> Option<Survey> {
        let core = &mut self.core;
        let end = core.end_seq;
        while (core.surveyor as usize) < core.subs.capacity() {
            let slot = core.surveyor;
            core.surveyor += 1;
            core.survey_messages = if std::mem::take(&mut core.survey_goes_on) {
                core.survey_messages.saturating_mul(SURVEY_GROWTH).min(limits::FRAME_MESSAGES_MAX)
            } else {
                1
            };
            if !core.is_left_alone(slot) {
                continue;
            }
            let Some(sub) = core.subs.get(slot as usize) else { continue };
            let from_seq = sub.floor(end);
            if from_seq >= end {
                continue;
            }
            let request = ReadRequest {
                from_seq,
                end_seq: end,
                filters: std::sync::Arc::clone(&sub.def.filters),
                messages_max: core.survey_messages,
                bytes_max: core.config.read_bytes,
            };
            return Some(Survey { subscription: sub.def.id, request });
        }
        core.surveyor = 0;
        None
    }

    /// Takes what the survey read: expired messages are settled as such, and the floor rises to the first that is
    /// neither settled nor expired. Does nothing for a subscription that somebody reads by now.
    pub fn surveyed(&mut self, survey: &Survey, block: &ReadBlock, now: Now) {
        let core = &mut self.core;
        let end = core.end_seq;
        let Some(slot) = core.slot(survey.subscription).filter(|slot| core.is_left_alone(*slot)) else { return };
        let Some(before) = core.subs.get(slot as usize).map(|s| s.floor(end)) else { return };
        let wanted = core.let_go(slot, block, now);
        let Some(sub) = core.subs.get_mut(slot as usize) else { return };
        if let Some(gap) = block.gap {
            merge_gap(&mut sub.work().gap, gap);
        }
        let reached = wanted.unwrap_or(block.next_seq).min(end);
        if reached > sub.cursor(end) {
            sub.set_cursor(reached, end);
        }
        let after = sub.floor(end);
        sub.rest();
        if after > before {
            core.touch(slot);
            // There may be more to let go of.
            if wanted.is_none() && after < end {
                core.surveyor = slot;
                core.survey_goes_on = true;
            }
        }
    }
}

impl Core {
    /// Whether it is durable, and no consumer is there to read for it.
    fn is_left_alone(&self, slot: u32) -> bool {
        let durable = self.subs.get(slot as usize).is_some_and(|s| !s.def.ephemeral);
        durable && !self.members(slot).iter().any(|index| self.sessions.at(*index).is_some_and(|s| s.connected))
    }

    /// Settles what has expired, up to the first message that may still be wanted.
    fn let_go(&mut self, slot: u32, block: &ReadBlock, now: Now) -> Option<Seq> {
        let end = self.end_seq;
        for run in &block.runs {
            let mut seq = run.first_seq;
            for part in expiry::split(&run.body, run.count, self.config.message_ttl, &run.facts, now.wall) {
                for _ in 0..part.count {
                    let sub = self.subs.get_mut(slot as usize)?;
                    let open = match sub.standing(seq, end) {
                        Standing::Settled => false,
                        Standing::Unread | Standing::Waiting(_) if part.expired => true,
                        _ => return Some(seq),
                    };
                    if open {
                        sub.work().returned.take(seq..seq + 1);
                        sub.work().errors.take(seq..seq + 1);
                        sub.note_settled(seq..seq + 1, end);
                        self.note_expired(slot, seq..seq + 1);
                    }
                    seq += 1;
                }
            }
        }
        None
    }
}
