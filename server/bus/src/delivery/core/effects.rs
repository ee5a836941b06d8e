//! From the engine's effects to outboxes.

use std::sync::Arc;

use acb_engine::{Death, Delivery, Effects, SessionKey};
use acb_types::{ErrorCode, batch::Gap, position::Seq};
use ahash::AHashMap;

use super::{After, CoreCounts};
use crate::delivery::outbox::{ConsumeOutbox, SettledRange};

/// Routes the engine's effects to outboxes.
pub(super) struct Fx<'a> {
    pub(super) sessions: &'a AHashMap<SessionKey, Arc<ConsumeOutbox>>,
    pub(super) after: &'a mut After,
    pub(super) counts: &'a mut CoreCounts,
}

impl Effects for Fx<'_> {
    fn deliver(&mut self, session: SessionKey, delivery: Delivery) {
        self.counts.delivered += u64::from(delivery.count);
        if delivery.attempt > 1 {
            self.counts.redelivered += u64::from(delivery.count);
        }
        if let Some(outbox) = self.sessions.get(&session) {
            outbox.push(&mut self.after.sleepers, |news| news.deliveries.push_back(delivery));
        }
    }

    fn kick(&mut self, session: SessionKey) {
        if let Some(outbox) = self.sessions.get(&session) {
            outbox.push(&mut self.after.sleepers, |news| news.kicked = true);
        }
    }

    fn settled(&mut self, session: SessionKey, first_seq: Seq, count: u32, result: Result<(), ErrorCode>) {
        if let Some(outbox) = self.sessions.get(&session) {
            outbox.push(&mut self.after.sleepers, |news| news.settled.push(SettledRange { first_seq, count, result }));
        }
    }

    fn gap(&mut self, session: SessionKey, gap: Gap) {
        if let Some(outbox) = self.sessions.get(&session) {
            outbox.push(&mut self.after.sleepers, |news| news.gaps.push(gap));
        }
    }

    fn die(&mut self, death: Death) {
        self.counts.died += 1;
        self.after.deaths.push(death);
    }
}

/// An effect kept until its session has an outbox.
pub(super) enum Kept {
    Deliver(SessionKey, Delivery),
    Kick(SessionKey),
    Settled(SessionKey, Seq, u32, Result<(), ErrorCode>),
    Gap(SessionKey, Gap),
}

impl Kept {
    pub(super) fn replay(self, fx: &mut impl Effects) {
        match self {
            Self::Deliver(s, d) => fx.deliver(s, d),
            Self::Kick(s) => fx.kick(s),
            Self::Settled(s, first, count, result) => fx.settled(s, first, count, result),
            Self::Gap(s, gap) => fx.gap(s, gap),
        }
    }
}

/// Keeps effects of sessions that have no outbox yet.
pub(super) struct EarlyFx<'a> {
    pub(super) kept: Vec<Kept>,
    pub(super) inner: Fx<'a>,
}

impl EarlyFx<'_> {
    fn known(&self, session: SessionKey) -> bool {
        self.inner.sessions.contains_key(&session)
    }
}

impl Effects for EarlyFx<'_> {
    fn deliver(&mut self, session: SessionKey, delivery: Delivery) {
        if self.known(session) {
            self.inner.deliver(session, delivery);
        } else {
            self.kept.push(Kept::Deliver(session, delivery));
        }
    }

    fn kick(&mut self, session: SessionKey) {
        if self.known(session) {
            self.inner.kick(session);
        } else {
            self.kept.push(Kept::Kick(session));
        }
    }

    fn settled(&mut self, session: SessionKey, first: Seq, count: u32, result: Result<(), ErrorCode>) {
        if self.known(session) {
            self.inner.settled(session, first, count, result);
        } else {
            self.kept.push(Kept::Settled(session, first, count, result));
        }
    }

    fn gap(&mut self, session: SessionKey, gap: Gap) {
        if self.known(session) {
            self.inner.gap(session, gap);
        } else {
            self.kept.push(Kept::Gap(session, gap));
        }
    }

    fn die(&mut self, death: Death) {
        self.inner.die(death);
    }
}
