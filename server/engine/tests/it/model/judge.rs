//! What must be true of everything the engine says, and between steps.

use acb_engine::{DeathReason, Delivery, DeliveryState, SessionKey};
use acb_types::position::Seq;

use super::state::*;
use crate::bed::{Bed, Said, seqs_in};

impl World {
    /// Asks the engine whether losses counted, where the model cannot know.
    pub(super) fn settle_doubts(&mut self) -> Check {
        let Bed { engine, log, now, .. } = &mut self.bed;
        for sub in &mut self.subs {
            for (seq, m) in sub.messages.iter_mut().filter(|(_, m)| m.doubtful) {
                m.doubtful = false;
                if log.get(*seq).is_none() {
                    continue;
                }
                let state = status(engine, log, *now, sub.def.id, *seq)?;
                let failed = state.attempts - u32::from(state.state == DeliveryState::Leased);
                if failed == m.failed + 1 {
                    fail(m, now.mono_ms, 0);
                } else if let State::Back { from, .. } = m.state {
                    m.state = State::Back { from, to: from };
                }
            }
        }
        Ok(())
    }

    /// Judges what the engine said.
    pub(super) fn listen(&mut self) -> Check {
        self.settle_doubts()?;
        for said in std::mem::take(&mut self.bed.fx.said) {
            match said {
                Said::Deliver(key, delivery) => self.judge(key, &delivery)?,
                Said::Die(death) => {
                    let sub = &mut self.subs[death.subscription.0 as usize - 1];
                    let m = sub.messages.get_mut(&death.seq).ok_or_else(|| format!("{death:?} of nobody"))?;
                    ensure!(m.state == State::Dying, "{death:?} of one that is {:?}", m.state);
                    ensure!(!m.announced, "{death:?} twice");
                    ensure!(death.attempts == m.failed, "{death:?} after {} attempts", m.failed);
                    let last = death.reason != DeathReason::Terminated;
                    ensure!(!last || m.failed >= MAX_ATTEMPTS, "{death:?} too early");
                    m.announced = true;
                    self.deaths.push(death);
                }
                Said::Settled(key, first, count, Ok(())) => {
                    for sub in &mut self.subs {
                        if !sub.consumers.values().any(|c| c.key == key) {
                            continue;
                        }
                        for (seq, m) in sub.messages.range_mut(first..first + u64::from(count)) {
                            ensure!(
                                matches!(m.state, State::Acked | State::Gone),
                                "{seq} confirmed as acknowledged, and is {:?}",
                                m.state
                            );
                            ensure!(m.durable || m.state == State::Gone, "{seq} confirmed before it was durable");
                            m.confirmed = true;
                        }
                    }
                }
                Said::Settled(..) | Said::Gap(..) | Said::Ended(_) => {}
            }
        }
        Ok(())
    }

    pub(super) fn judge(&mut self, key: SessionKey, delivery: &Delivery) -> Check {
        let (now, wall) = (self.bed.now.mono_ms, self.bed.now.wall);
        let seqs: Vec<_> = (delivery.first_seq..delivery.first_seq + u64::from(delivery.count)).collect();
        ensure!(seqs_in(delivery) == seqs, "{seqs:?} delivered with the bodies of {:?}", seqs_in(delivery));
        let whose = self.subs.iter_mut().find_map(|sub| {
            let who = sub.consumers.iter().find(|(_, c)| c.key == key).map(|(who, _)| *who)?;
            Some((sub, who))
        });
        let Some((sub, who)) = whose else { return Err(format!("{seqs:?} delivered to nobody")) };
        let Some(mut consumer) = sub.consumers.remove(&who) else { return Ok(()) };
        ensure!(consumer.connected, "{seqs:?} delivered to a lost connection");
        for (i, seq) in seqs.iter().enumerate() {
            let name = format!("{}/{seq} to {who}", sub.def.id);
            let (mut leased, mut bytes, mut outstanding) = (0, 0, 0);
            for (s, m) in &sub.messages {
                match m.state {
                    State::Leased { who: w, .. } => {
                        outstanding += 1;
                        if w == who {
                            leased += 1;
                            bytes += m.size;
                        }
                    }
                    State::Back { .. } if m.failed > 0 && !past(m, wall) && *s >= self.bed.log.first_seq => {
                        outstanding += 1;
                    }
                    State::Dying => outstanding += 1,
                    _ => {}
                }
            }
            ensure!(leased < consumer.credit.messages, "{name}: {leased} leased, credit {:?}", consumer.credit);
            let size = self.bed.log.get(*seq).map_or(0, |m| m.body.len() as u64);
            ensure!(
                leased == 0 || bytes + size <= consumer.credit.bytes,
                "{name}: {size} bytes more than {bytes}, credit {:?}",
                consumer.credit
            );
            let unread = |m: &Message| m.state == State::Unread && !past(m, wall);
            let lower_unread = sub.messages.range(..*seq).find(|(_, m)| unread(m)).map(|(s, _)| *s);
            let Some(m) = sub.messages.get_mut(seq) else { return Err(format!("{name} does not hear it")) };
            m.size = size;
            ensure!(delivery.attempt == m.failed + 1, "{name}: attempt {} after {} failed", delivery.attempt, m.failed);
            ensure!(!past(m, wall), "{name}: expired at {}", m.expires_at.0);
            match m.state {
                State::Unread => {
                    ensure!(lower_unread.is_none(), "{name}: {lower_unread:?} was skipped");
                    ensure!(*seq > consumer.last_first_delivery, "{name}: out of order");
                    ensure!(outstanding < sub.def.max_leased, "{name}: {outstanding} outstanding");
                    consumer.last_first_delivery = *seq;
                }
                State::Back { from, .. } => ensure!(from <= now, "{name}: {from} is not now, {now}"),
                ref other => return Err(format!("{name}: it is {other:?}")),
            }
            let number = delivery.delivery + i as u64;
            ensure!(number == consumer.delivered + 1, "{name}: number {number} after {}", consumer.delivered);
            consumer.delivered = number;
            consumer.lost.remove(seq);
            m.perhaps_unread = false;
            m.state = State::Leased { who, number, deadline: now + ACK_WAIT_MS };
        }
        sub.consumers.insert(who, consumer);
        Ok(())
    }

    /// What must hold between steps.
    pub(super) fn check(&mut self) -> Check {
        let wall = self.bed.now.wall;
        let now = self.bed.now.mono_ms;
        let quiet = !self.lazy && self.held.is_none() && self.bed.fx.kicks.is_empty();
        for at in 0..self.subs.len() {
            let id = self.subs[at].def.id;
            let seqs: Vec<Seq> = self.subs[at].messages.keys().copied().collect();
            let mut leased = 0;
            for seq in seqs {
                let settled = self.bed.engine.is_settled(id, seq);
                let known = self.bed.log.get(seq).is_some();
                let Bed { engine, log, now, .. } = &mut self.bed;
                let state = if known { Some(status(engine, log, *now, id, seq)?) } else { None };
                let m = self.subs[at].messages.get_mut(&seq).ok_or("gone")?;
                // Expiry is found when a message is looked at.
                if past(m, wall) && settled && matches!(m.state, State::Unread | State::Back { .. }) {
                    m.state = State::Expired;
                }
                // Retention is found out when it is read.
                if seq < self.bed.log.first_seq && settled && matches!(m.state, State::Back { .. }) {
                    m.state = State::Gone;
                }
                ensure!(
                    settled == m.state.is_settled() || seq < self.bed.log.first_seq,
                    "{id}/{seq}: settled {settled}, and is {:?}",
                    m.state
                );
                leased += u64::from(matches!(m.state, State::Leased { .. }));
                let Some(state) = state else { continue };
                let (expected, attempts) = match m.state {
                    State::Leased { .. } => (DeliveryState::Leased, m.failed + 1),
                    State::Unread | State::Back { .. } | State::Dying => (DeliveryState::Waiting, m.failed),
                    State::Dead => (DeliveryState::Dead, state.attempts),
                    State::Expired => (DeliveryState::Expired, 0),
                    State::Acked | State::Gone => (DeliveryState::Acked, 0),
                };
                ensure!(state.state == expected, "{id}/{seq}: said to be {:?}, and is {:?}", state.state, m.state);
                ensure!(state.attempts == attempts, "{id}/{seq}: {} attempts said, {attempts} made", state.attempts);
            }
            let counts = self.bed.engine.counts(id).ok_or("no counts")?;
            ensure!(counts.leased == leased, "{id}: {} leased said, {leased} are", counts.leased);
            let unsettled = self.subs[at].messages.iter().find(|(_, m)| !m.state.is_settled()).map(|(s, _)| *s);
            let floor_max = unsettled.unwrap_or(self.bed.log.next_seq);
            ensure!(counts.floor <= floor_max, "{id}: floor {} above {floor_max}", counts.floor);
            if quiet {
                self.check_progress(at, now)?;
            }
        }
        // Not always: what is not taken piles up and is to be right, too.
        self.steps += 1;
        if self.steps.is_multiple_of(3) { self.check_equivalence() } else { Ok(()) }
    }

    /// Nobody with room waits while there is something to be had.
    pub(super) fn check_progress(&self, at: usize, now: u64) -> Check {
        let sub = &self.subs[at];
        if sub.read_after > now {
            return Ok(());
        }
        let counts = self.bed.engine.counts(sub.def.id).ok_or("no counts")?;
        let due =
            |m: &Message| matches!(m.state, State::Back { to, .. } if to <= now) && !(m.perhaps_unread && counts.full);
        let unread = |m: &Message| m.state == State::Unread && !counts.full;
        let candidates = sub.messages.iter().filter(|(_, m)| due(m));
        let candidates: Vec<_> = candidates.chain(sub.messages.iter().find(|(_, m)| unread(m))).collect();
        let Some((seq, next)) = candidates.first() else { return Ok(()) };
        // Which of them it tries first is the engine's affair; none of them may be too large.
        let size = candidates.iter().map(|(_, m)| m.size).max().unwrap_or(0);
        for (who, consumer) in sub.consumers.iter().filter(|(_, c)| c.connected) {
            let held = |m: &&Message| matches!(m.state, State::Leased { who: w, .. } if w == *who);
            let leased = sub.messages.values().filter(held).count() as u32;
            let bytes: u64 = sub.messages.values().filter(held).map(|m| m.size).sum();
            let room = leased < consumer.credit.messages && (leased == 0 || bytes + size <= consumer.credit.bytes);
            ensure!(!room, "{}/{seq} ({next:?}) waits although {who} has room: {consumer:?}", sub.def.id);
        }
        Ok(())
    }

    /// What has been journaled until now, read back, is the state there is now.
    pub(super) fn check_equivalence(&mut self) -> Check {
        self.take_journal();
        let mut records = self.durable.clone();
        records.extend(self.staged.iter().map(|(_, bytes)| bytes.clone()));
        let mut engine = self.fresh(&records)?;
        let mut from_snapshot = self.fresh(&self.bed.engine.snapshot())?;
        let (log, now) = (&self.bed.log, self.bed.now);
        for sub in &self.subs {
            for (seq, m) in sub.messages.iter().filter(|(s, _)| **s >= self.bed.log.first_seq) {
                for (engine, name) in [(&mut engine, "the journal"), (&mut from_snapshot, "a snapshot")] {
                    let settled = engine.is_settled(sub.def.id, *seq);
                    ensure!(
                        settled == m.state.is_settled(),
                        "{}/{seq}: {settled} is what {name} says of settled, and it is {:?}",
                        sub.def.id,
                        m.state
                    );
                    let attempts = status(engine, log, now, sub.def.id, *seq)?.attempts;
                    ensure!(
                        settled || attempts == m.failed,
                        "{}/{seq}: {attempts} attempts by {name}, {} made",
                        sub.def.id,
                        m.failed
                    );
                }
            }
        }
        Ok(())
    }
}
