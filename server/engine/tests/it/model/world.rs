//! Steps: what is done to the engine, and what the model makes of it beforehand.

use std::collections::{BTreeMap, BTreeSet};

use acb_engine::{Credit, Engine, SeqRange, SessionDef, Settlement};
use acb_types::{ErrorCode, Incarnation, Timestamp, position::Seq};
use bytes::Bytes;

use super::{How, Op, state::*};
use crate::bed::{Bed, Post, Said};

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut bed = Bed::with(config(seed));
        let mut subs = Vec::new();
        for def in rules() {
            bed.subscribe(def.clone());
            subs.push(Sub { def, messages: BTreeMap::new(), consumers: BTreeMap::new(), read_after: 0 });
        }
        Self {
            bed,
            subs,
            durable: vec![],
            staged: vec![],
            deaths: vec![],
            lazy: false,
            held: None,
            jitter_seed: seed,
            len: 8 + (seed % 300) as usize,
            steps: 0,
        }
    }

    /// One step, and everything that must hold after it.
    pub(super) fn step(&mut self, op: &Op) -> Check {
        self.apply(op)?;
        if !self.lazy {
            self.serve()?;
        }
        self.check()
    }

    pub(super) fn apply(&mut self, op: &Op) -> Check {
        match op {
            Op::Publish { topics, expires_in } => self.publish(topics, *expires_in),
            Op::Connect { sub, who, messages, bytes, behind } => {
                self.connect(*sub as usize % 3, who % 3, *messages, *bytes, *behind)?;
            }
            Op::Disconnect { sub, who } => {
                let now = self.bed.now.mono_ms;
                if let Some(c) = self.subs[*sub as usize % 3].consumers.get_mut(&(who % 3)).filter(|c| c.connected) {
                    c.connected = false;
                    c.grace = now + GRACE_MS;
                    let key = c.key;
                    self.bed.engine.disconnect(key, self.bed.now, &mut self.bed.fx);
                }
            }
            Op::Leave { sub, who } => {
                let sub = *sub as usize % 3;
                if let Some(c) = self.subs[sub].consumers.remove(&(who % 3)) {
                    self.give_all_back(sub, who % 3, false);
                    self.bed.engine.leave(c.key, self.bed.now, &mut self.bed.fx);
                }
            }
            Op::Credit { sub, who, messages, bytes } => {
                if let Some(c) = self.subs[*sub as usize % 3].consumers.get_mut(&(who % 3)) {
                    c.credit = credit(*messages, *bytes);
                    self.bed.engine.credit(c.key, c.credit, self.bed.now, &mut self.bed.fx);
                }
            }
            Op::Settle { sub, who, how, from, count } => {
                self.settle(*sub as usize % 3, who % 3, *how, *from, *count)?;
            }
            Op::Advance { steps } => self.advance(u64::from(*steps) * 50)?,
            Op::Bury => {
                if let Some(death) = self.deaths.pop() {
                    let sub = death.subscription.0 as usize - 1;
                    let message = self.subs[sub].messages.get_mut(&death.seq).ok_or("death of nobody")?;
                    message.state = State::Dead;
                    self.bed.engine.dead(death.subscription, death.seq, None, self.bed.now, &mut self.bed.fx);
                }
            }
            Op::Journal => self.take_journal(),
            Op::Sync => self.sync()?,
            Op::Snapshot => {
                self.take_journal();
                let parts = self.bed.engine.snapshot();
                self.sync()?;
                self.durable = parts;
            }
            Op::Crash { keep } => self.crash(*keep as usize)?,
            Op::JournalLost => {
                self.staged.clear();
                self.bed.engine.journal_lost();
            }
            Op::Trim { by } => self.trim(u64::from(*by % 8)),
            Op::Lazy(lazy) => self.lazy = *lazy,
            Op::BeginRead => {
                if self.held.is_none()
                    && let Some(key) = self.bed.fx.kicks.pop_front()
                    && let Some(plan) = self.bed.engine.plan(key, self.bed.now)
                {
                    let block = self.bed.log.read(&plan.request);
                    self.held = Some((plan, block));
                }
            }
            Op::Survey => {
                let mut reads = 0;
                while let Some(survey) = self.bed.engine.survey() {
                    reads += 1;
                    ensure!(reads < 1000, "a survey without end: {survey:?}");
                    let block = self.bed.log.read(&survey.request);
                    self.bed.engine.surveyed(&survey, &block, self.bed.now);
                }
            }
            Op::EndRead => {
                if let Some((plan, block)) = self.held.take() {
                    let key = plan.session;
                    self.bed.engine.commit(plan, block, self.bed.now, &mut self.bed.fx);
                    self.bed.fx.kicks.push_back(key);
                }
            }
            Op::FailRead => {
                if let Some((plan, _)) = self.held.take() {
                    let sub = plan.subscription.0 as usize - 1;
                    let valid = self.subs[sub].consumers.values().any(|c| c.connected && c.key == plan.session);
                    if valid {
                        self.subs[sub].read_after = self.bed.now.mono_ms + 1000;
                    }
                    self.bed.engine.abandon(plan, self.bed.now);
                }
            }
        }
        self.listen()
    }

    pub(super) fn publish(&mut self, topics: &[u8], expires_in: Option<u16>) {
        let wall = self.bed.now.wall.0;
        let expires_at = expires_in.map_or(Timestamp::NONE, |ms| Timestamp(wall + u64::from(ms)));
        let posts: Vec<_> = topics
            .iter()
            .enumerate()
            .map(|(i, t)| Post {
                topic: TOPICS[*t as usize % TOPICS.len()],
                // All of one size: the engine gives the bytes of a partly settled run back in equal shares.
                len: self.len + if i % 2 == 0 && expires_at.is_set() { 0 } else { EXPIRY_BYTES },
                expires_at: if i % 2 == 0 { expires_at } else { Timestamp::NONE },
            })
            .collect();
        let first = self.bed.log.next_seq;
        // Known to the model before the engine can speak of them.
        for sub in &mut self.subs {
            for (i, post) in posts.iter().enumerate() {
                if sub.def.filters.iter().any(|f| f.matches(post.topic)) {
                    let message = Message {
                        state: State::Unread,
                        failed: 0,
                        losses: 1,
                        doubtful: false,
                        perhaps_unread: false,
                        size: 0,
                        expires_at: post.expires_at,
                        durable: false,
                        confirmed: false,
                        durable_failed: 0,
                        announced: false,
                    };
                    sub.messages.insert(first + i as u64, message);
                }
            }
        }
        self.bed.publish(&posts);
        for sub in &mut self.subs {
            for (seq, m) in sub.messages.range_mut(first..) {
                m.size = self.bed.log.get(*seq).map_or(0, |s| s.body.len() as u64);
            }
        }
    }

    pub(super) fn connect(&mut self, at: usize, who: u8, messages: u8, bytes: u16, behind: u8) -> Check {
        let sub = &mut self.subs[at];
        let before = sub.consumers.get(&who).cloned();
        let arrived = before.as_ref().map_or(0, |c| c.delivered.saturating_sub(u64::from(behind % 4)));
        let def = SessionDef {
            token: [who; 16],
            agent: format!("agent-{who}").parse().map_err(|_| "name")?,
            incarnation: Incarnation(1),
            credit: credit(messages, bytes),
            resume_delivery: Some(arrived),
        };
        let credit = def.credit;
        let connected = self.bed.engine.connect(sub.def.id, def, self.bed.now, &mut self.bed.fx);
        let connected = connected.map_err(|e| format!("connect refused: {e}"))?;
        ensure!(connected.resumed == before.is_some(), "resumed: {}", connected.resumed);
        let fenced: Vec<_> = before.iter().filter(|c| c.connected).map(|c| c.key).collect();
        ensure!(connected.fenced[..] == fenced[..], "fenced {:?} for {fenced:?}", connected.fenced);
        let now = self.bed.now.mono_ms;
        for m in sub.messages.values_mut() {
            if matches!(m.state, State::Leased { who: w, number, .. } if w == who && number > arrived) {
                m.state = State::Back { from: now, to: now };
            }
        }
        let mut consumer = before.unwrap_or(Consumer {
            key: connected.session,
            connected: true,
            credit,
            delivered: 0,
            grace: 0,
            lost: BTreeSet::new(),
            last_first_delivery: 0,
        });
        consumer.key = connected.session;
        consumer.connected = true;
        consumer.credit = credit;
        consumer.delivered = arrived;
        sub.consumers.insert(who, consumer);
        Ok(())
    }

    /// Leases of a session end with it.
    pub(super) fn give_all_back(&mut self, at: usize, who: u8, lost: bool) {
        let now = self.bed.now.mono_ms;
        for m in self.subs[at].messages.values_mut() {
            if matches!(m.state, State::Leased { who: w, .. } if w == who) {
                if lost {
                    lose(m, now);
                } else {
                    m.state = State::Back { from: now, to: now };
                }
            }
        }
    }

    pub(super) fn settle(&mut self, at: usize, who: u8, how: How, from: u8, count: u8) -> Check {
        let now = self.bed.now.mono_ms;
        let end = self.bed.log.next_seq;
        let sub = &mut self.subs[at];
        let Some(consumer) = sub.consumers.get_mut(&who) else { return Ok(()) };
        // Mostly where something of it is, sometimes anywhere.
        let own: Vec<Seq> = sub
            .messages
            .iter()
            .filter(|(_, m)| matches!(m.state, State::Leased { who: w, .. } if w == who))
            .map(|(s, _)| *s)
            .collect();
        let first = if own.is_empty() || from >= 224 { u64::from(from) % end } else { own[from as usize % own.len()] };
        let range = SeqRange { first_seq: first, count: 1 + u32::from(count % 8) };
        let reason = if count.is_multiple_of(2) { "" } else { "because" };
        let delay = |ms: u8| (ms > 0).then(|| std::time::Duration::from_millis(u64::from(ms) * 50));
        let settlement = match how {
            How::Ack => Settlement::Ack(range),
            How::Confirm => Settlement::ConfirmedAck(range),
            How::Nack { delay: ms } => Settlement::Nack { range, delay: delay(ms), reason },
            How::Progress => Settlement::Progress(range),
            How::Term => Settlement::Term { range, reason },
            How::Release => Settlement::Release(range),
        };
        let mut refused = BTreeSet::new();
        let mut fine = BTreeSet::new();
        for (seq, m) in sub.messages.range_mut(range.first_seq..range.end()) {
            match m.state {
                State::Leased { who: w, number, .. } if w == who => {
                    fine.insert(*seq);
                    match how {
                        How::Ack | How::Confirm => m.state = State::Acked,
                        How::Progress => m.state = State::Leased { who, number, deadline: now + ACK_WAIT_MS },
                        How::Release => m.state = State::Back { from: now, to: now },
                        How::Term => {
                            m.failed += 1;
                            m.losses = 1;
                            m.state = State::Dying;
                        }
                        How::Nack { delay } => fail(m, now, delay),
                    }
                }
                State::Acked if !consumer.lost.contains(seq) => {
                    // What retention took is not told from what was given up.
                    if *seq >= self.bed.log.first_seq {
                        fine.insert(*seq);
                    }
                }
                State::Gone => {}
                _ => {
                    refused.insert(*seq);
                }
            }
        }
        let key = consumer.key;
        self.bed.settle(key, settlement);
        let mut said_refused = BTreeSet::new();
        for said in &self.bed.fx.said {
            match said {
                Said::Settled(k, f, n, Err(ErrorCode::LeaseLost)) if *k == key => {
                    said_refused.extend(*f..*f + u64::from(*n));
                }
                Said::Settled(_, _, _, Err(e)) => return Err(format!("refused with {e:?}")),
                _ => {}
            }
        }
        ensure!(
            refused.is_subset(&said_refused),
            "{settlement:?} by {who}: {refused:?} not refused, only {said_refused:?}"
        );
        ensure!(fine.is_disjoint(&said_refused), "{settlement:?} by {who}: {said_refused:?} refused, not {fine:?}");
        ensure!(
            said_refused.iter().all(|s| range.first_seq <= *s && *s < range.end()),
            "{settlement:?}: refused outside: {said_refused:?}"
        );
        Ok(())
    }

    pub(super) fn advance(&mut self, ms: u64) -> Check {
        self.bed.now.mono_ms += ms;
        self.bed.now.wall.0 += ms;
        let now = self.bed.now.mono_ms;
        for sub in &mut self.subs {
            for (seq, m) in &mut sub.messages {
                let State::Leased { who, deadline, .. } = m.state else { continue };
                let Some(consumer) = sub.consumers.get_mut(&who) else { return Err(format!("{seq} leased to nobody")) };
                if deadline <= now {
                    consumer.lost.insert(*seq);
                    if consumer.connected { fail(m, now, 0) } else { lose(m, now) }
                } else if !consumer.connected && consumer.grace <= now {
                    lose(m, now);
                }
            }
            sub.consumers.retain(|_, c| c.connected || c.grace > now);
        }
        self.bed.engine.advance(self.bed.now, &mut self.bed.fx);
        Ok(())
    }

    pub(super) fn trim(&mut self, by: u64) {
        if self.held.is_some() {
            // What was read before may still be given out.
            return;
        }
        let log = &mut self.bed.log;
        let first = (log.first_seq + by).min(log.next_seq);
        log.first_seq = first;
        log.messages.retain(|m| m.seq >= first);
        for sub in &mut self.subs {
            for (_, m) in sub.messages.range_mut(..first) {
                if let State::Unread | State::Back { .. } = m.state {
                    m.state = State::Gone;
                }
            }
        }
        self.bed.engine.trimmed(first, self.bed.now, &mut self.bed.fx);
    }

    pub(super) fn take_journal(&mut self) {
        while let Some(piece) = self.bed.engine.take_journal() {
            self.staged.push(piece);
        }
    }

    pub(super) fn sync(&mut self) -> Check {
        self.take_journal();
        for sub in &mut self.subs {
            for m in sub.messages.values_mut() {
                m.durable = m.state.is_settled();
                m.durable_failed = m.failed;
            }
        }
        for (mark, bytes) in std::mem::take(&mut self.staged) {
            self.durable.push(bytes);
            self.bed.engine.journal_durable(mark, &mut self.bed.fx);
        }
        self.listen()
    }

    pub(super) fn crash(&mut self, keep: usize) -> Check {
        let keep = keep % (self.staged.len() + 1);
        let kept = std::mem::take(&mut self.staged).into_iter().take(keep);
        self.durable.extend(kept.map(|(_, bytes)| bytes));
        self.held = None;
        self.bed.fx = crate::bed::Recorder::default();
        // The process's own clock begins anew; the wall's goes on.
        self.bed.now.mono_ms = 7;
        self.deaths.clear();
        self.jitter_seed += 1;
        let mut engine = self.fresh(&self.durable)?;
        let now = self.bed.now.mono_ms;
        for sub in &mut self.subs {
            sub.consumers.clear();
            sub.read_after = 0;
            for (seq, m) in &mut sub.messages {
                let settled = engine.is_settled(sub.def.id, *seq);
                let kept = *seq >= self.bed.log.first_seq;
                ensure!(
                    settled || !m.durable || !kept,
                    "{}/{seq}: durably settled, and unsettled after a restart",
                    sub.def.id
                );
                ensure!(!settled || m.state.is_settled() || !kept, "{}/{seq}: settled by a restart", sub.def.id);
                m.announced = false;
                if settled {
                    m.durable = true;
                    if !m.state.is_settled() {
                        m.state = State::Gone;
                    }
                    continue;
                }
                if !kept {
                    m.state = if m.state == State::Dying { State::Dying } else { State::Gone };
                    continue;
                }
                ensure!(!m.confirmed, "{}/{seq}: confirmed, and unsettled after a restart", sub.def.id);
                let state = status(&mut engine, &self.bed.log, self.bed.now, sub.def.id, *seq)?;
                ensure!(
                    m.durable_failed <= state.attempts && state.attempts <= m.failed,
                    "{}/{seq}: {} attempts after a restart, {}..={} before",
                    sub.def.id,
                    state.attempts,
                    m.durable_failed,
                    m.failed
                );
                let was_dying = m.state == State::Dying;
                m.failed = state.attempts;
                m.durable_failed = state.attempts;
                m.durable = false;
                m.losses = (1 << LOSSES) - 1;
                m.perhaps_unread = true;
                m.state = if m.failed == 0 {
                    State::Back { from: 0, to: now }
                } else if was_dying && engine.counts(sub.def.id).is_some_and(|c| c.dying > 0) {
                    State::Dying
                } else {
                    State::Back { from: 0, to: now + 7 * 86_400_000 }
                };
            }
        }
        self.bed.engine = engine;
        self.bed.engine.advance(self.bed.now, &mut self.bed.fx);
        // What dies again says so; everything else that looked like dying waits.
        let dying: BTreeSet<_> = self
            .bed
            .fx
            .said
            .iter()
            .filter_map(|s| if let Said::Die(d) = s { Some((d.subscription, d.seq)) } else { None })
            .collect();
        for sub in &mut self.subs {
            for (seq, m) in &mut sub.messages {
                if dying.contains(&(sub.def.id, *seq)) {
                    m.state = State::Dying;
                } else if m.state == State::Dying {
                    m.state = State::Back { from: 0, to: now + 7 * 86_400_000 };
                }
            }
        }
        self.listen()
    }

    /// An engine that takes up from records.
    pub(super) fn fresh(&self, records: &[Bytes]) -> Result<Engine, String> {
        let mut engine = Engine::new(config(self.jitter_seed));
        let defs: Vec<_> = self.subs.iter().map(|s| (s.def.clone(), 1)).collect();
        let log = &self.bed.log;
        engine
            .restore(records, &defs, log.first_seq, log.next_seq, self.bed.now)
            .map_err(|e| format!("restore: {e}"))?;
        Ok(engine)
    }

    pub(super) fn serve(&mut self) -> Check {
        while let Some(key) = self.bed.fx.kicks.pop_front() {
            let mut rounds = 0;
            while let Some(plan) = self.bed.engine.plan(key, self.bed.now) {
                rounds += 1;
                ensure!(rounds < 10_000, "a session reads without end: {plan:?}");
                self.bed.finish(plan);
                self.listen()?;
            }
        }
        Ok(())
    }
}

fn credit(messages: u8, bytes: u16) -> Credit {
    Credit { messages: u32::from(messages % 12), bytes: u64::from(bytes) }
}
