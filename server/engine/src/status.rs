//! What people and metrics ask.

use acb_types::{Now, SubscriptionId, Timestamp, position::Seq};

use crate::{
    api::{Counts, DeliveryState, MessageState, Totals},
    partition::Engine,
    subscription::{Standing, Subscription},
};

impl Engine {
    /// Where a message stands for each subscription that hears its topic and was there when it was stored, by name. Dead
    /// and expired ones are known as such as long as they are remembered; before that they count as acknowledged.
    pub fn status(&mut self, topic: &str, seq: Seq, now: Now) -> Vec<MessageState> {
        let Self { matching, core } = self;
        let end = core.end_seq;
        let hearers = matching.hearers(topic.as_bytes()).iter().filter_map(|slot| core.subs.get(*slot as usize));
        let mut out: Vec<_> = hearers.filter(|s| seq >= s.start).map(|s| state(s, seq, end, now)).collect();
        out.sort_by(|a, b| a.name.as_str().cmp(b.name.as_str()));
        out
    }

    /// Whether any subscription hears a topic.
    pub fn hears(&mut self, topic: &str) -> bool {
        !self.matching.hearers(topic.as_bytes()).is_empty()
    }

    /// Whether a connected session with credit hears a topic: whether a request there can be answered now.
    pub fn has_live_consumer(&mut self, topic: &str) -> bool {
        let Self { matching, core } = self;
        matching.hearers(topic.as_bytes()).iter().any(|slot| {
            let live = |s: &crate::session::Session| s.connected && s.window.credit.messages > 0;
            core.members(*slot).iter().any(|index| core.sessions.at(*index).is_some_and(live))
        })
    }

    /// A subscription in numbers.
    pub fn counts(&self, subscription: SubscriptionId) -> Option<Counts> {
        let core = &self.core;
        let sub = core.subs.get(core.slot(subscription)? as usize)?;
        let end = core.end_seq;
        let mut out = Counts {
            floor: sub.floor(end),
            cursor: sub.cursor(end),
            caught_up: sub.is_caught_up(),
            full: sub.headroom() == 0,
            ..Counts::default()
        };
        if let Some(work) = &sub.work {
            out.leased = work.leases.messages().into();
            out.dying = work.returned.dying_messages.into();
            out.waiting_retry = u64::from(work.returned.messages) - out.dying;
            let connected = |index: &&u32| core.sessions.at(**index).is_some_and(|s| s.connected);
            out.consumers = work.sessions.iter().filter(connected).count() as u32;
        }
        Some(out)
    }

    /// The engine in numbers. Looks at every subscription.
    pub fn totals(&self) -> Totals {
        let core = &self.core;
        let mut out =
            Totals { subscriptions: core.subs.len() as u64, sessions: core.sessions.connected(), ..core.totals };
        for work in core.subs.iter().filter_map(|(_, s)| s.work.as_ref()) {
            out.leased += u64::from(work.leases.messages());
            out.returned += u64::from(work.returned.messages);
        }
        out
    }
}

fn state(sub: &Subscription, seq: Seq, end: Seq, now: Now) -> MessageState {
    let mut out = MessageState {
        subscription: sub.def.id,
        name: sub.def.name.clone(),
        state: DeliveryState::Waiting,
        attempts: 0,
        due: Timestamp::NONE,
        dead_letter: None,
    };
    // Timers run on the monotonic clock; people read the wall's.
    let wall = |mono_ms: u64| Timestamp(now.wall.0.saturating_add(mono_ms.saturating_sub(now.mono_ms)));
    match sub.standing(seq, end) {
        Standing::Unread => {}
        Standing::Leased(run) => {
            out.state = DeliveryState::Leased;
            out.attempts = run.failed + 1;
            out.due = wall(run.deadline);
        }
        Standing::Waiting(back) => {
            out.attempts = back.failed;
            if back.due.mono_ms > now.mono_ms {
                out.due = wall(back.due.mono_ms);
            }
        }
        Standing::Dying(dying) => out.attempts = dying.attempts,
        Standing::Settled => {
            out.state = DeliveryState::Acked;
            let Some(work) = &sub.work else { return out };
            if let Some(dead) = work.dead.get(&seq) {
                out.state = DeliveryState::Dead;
                out.attempts = dead.attempts;
                out.dead_letter = dead.letter;
            } else if work.expired.contains(seq) {
                out.state = DeliveryState::Expired;
            }
        }
    }
    out
}
