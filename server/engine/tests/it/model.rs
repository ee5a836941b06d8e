//! The engine against a naive model.
//!
//! The model knows each message of each subscription by name. It does not foresee what the engine does where the engine
//! may choose (who is given a message, how much jitter a wait gets); it judges what was done, step by step, and says so
//! when the engine did not do what it must. With `planted` bugs it has to find each.

use std::collections::{BTreeMap, BTreeSet};

use acb_engine::{
    Credit, Death, DeathReason, Delivery, DeliveryState, Engine, EngineConfig, JournalMark, Plan, SeqRange,
    SessionDef, SessionKey, Settlement,
};
use acb_types::{
    ErrorCode, Incarnation, Now, SubscriptionId, Timestamp,
    batch::{ReadBlock, SubscriptionDef},
    position::Seq,
};
use bytes::Bytes;
use proptest::prelude::*;

use crate::bed::{Bed, FakeLog, Post, Said, seqs_in, sub};

const ACK_WAIT_MS: u64 = 1000;
const GRACE_MS: u64 = 10_000;
const SCHEDULE_MS: [u64; 2] = [200, 600];
const MAX_ATTEMPTS: u32 = 3;
const LOSSES: u8 = 3;
/// What an expiry adds to a message.
const EXPIRY_BYTES: usize = 7;
const TOPICS: [&str; 4] = ["a.x", "a.y", "b.b", "c.c"];

/// What a history is made of. Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Publish { topics: Vec<u8>, expires_in: Option<u16> },
    Connect { sub: u8, who: u8, messages: u8, bytes: u16, behind: u8 },
    Disconnect { sub: u8, who: u8 },
    Leave { sub: u8, who: u8 },
    Credit { sub: u8, who: u8, messages: u8, bytes: u16 },
    Settle { sub: u8, who: u8, how: How, from: u8, count: u8 },
    Advance { steps: u16 },
    Bury,
    Journal,
    Sync,
    Snapshot,
    Crash { keep: u8 },
    JournalLost,
    Trim { by: u8 },
    /// From now on kicks wait, or are served after each step.
    Lazy(bool),
    /// A read begins, and ends some steps later; or fails.
    BeginRead,
    EndRead,
    FailRead,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum How {
    Ack,
    Confirm,
    Nack { delay: u8 },
    Progress,
    Term,
    Release,
}

#[derive(Clone, Debug, PartialEq)]
enum State {
    Unread,
    Leased { who: u8, number: u64, deadline: u64 },
    /// May go again from `from` on, and must from `to` on.
    Back { from: u64, to: u64 },
    Dying,
    Acked,
    Dead,
    Expired,
    Gone,
}

impl State {
    fn is_settled(&self) -> bool {
        matches!(self, Self::Acked | Self::Dead | Self::Expired | Self::Gone)
    }
}

#[derive(Clone, Debug)]
struct Message {
    state: State,
    failed: u32,
    /// How many connections may have been lost since, as a set of bits: after a crash nobody can tell.
    losses: u8,
    /// Whether the last loss counted as a failed attempt is to be seen.
    doubtful: bool,
    /// After a crash: whether the engine has never given it out is not known.
    perhaps_unread: bool,
    size: u64,
    expires_at: Timestamp,
    /// Settled, and journaled durably.
    durable: bool,
    /// Acknowledged to somebody as durable.
    confirmed: bool,
    /// Failed attempts as journaled durably.
    durable_failed: u32,
    announced: bool,
}

#[derive(Clone, Debug)]
struct Consumer {
    key: SessionKey,
    connected: bool,
    credit: Credit,
    delivered: u64,
    grace: u64,
    /// Given to it and taken away.
    lost: BTreeSet<Seq>,
    last_first_delivery: Seq,
}

#[derive(Debug)]
struct Sub {
    def: SubscriptionDef,
    messages: BTreeMap<Seq, Message>,
    consumers: BTreeMap<u8, Consumer>,
    read_after: u64,
}

/// Engine and model side by side.
#[derive(Debug)]
pub(crate) struct World {
    bed: Bed,
    subs: Vec<Sub>,
    /// In the log and durable; staged and not.
    durable: Vec<Bytes>,
    staged: Vec<(JournalMark, Bytes)>,
    deaths: Vec<Death>,
    lazy: bool,
    held: Option<(Plan, ReadBlock)>,
    jitter_seed: u64,
    /// Payload of all messages.
    len: usize,
    steps: u64,
}

type Check = Result<(), String>;

macro_rules! ensure {
    ($cond:expr, $($text:tt)*) => {
        if !$cond {
            return Err(format!($($text)*));
        }
    };
}

fn config(seed: u64) -> EngineConfig {
    EngineConfig { seed, read_bytes: 2000, cached_topics: 3, ..EngineConfig::default() }
}

fn rules() -> Vec<SubscriptionDef> {
    let base = |id, filters: &[&str], max_leased| SubscriptionDef {
        ack_wait: std::time::Duration::from_millis(ACK_WAIT_MS),
        retry_schedule: SCHEDULE_MS.map(std::time::Duration::from_millis).into(),
        max_attempts: MAX_ATTEMPTS,
        max_leased,
        ..sub(id, filters)
    };
    vec![base(1, &["a.>"], 65_536), base(2, &["a.x", "b.b"], 6), base(3, &[">"], 65_536)]
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut bed = Bed::with(config(seed));
        let mut subs = Vec::new();
        for def in rules() {
            bed.subscribe(def.clone());
            subs.push(Sub { def, messages: BTreeMap::new(), consumers: BTreeMap::new(), read_after: 0 });
        }
        Self { bed, subs, durable: vec![], staged: vec![], deaths: vec![], lazy: false, held: None, jitter_seed: seed, len: 8 + (seed % 300) as usize, steps: 0 }
    }

    /// One step, and everything that must hold after it.
    pub(crate) fn step(&mut self, op: &Op) -> Check {
        self.apply(op)?;
        if !self.lazy {
            self.serve()?;
        }
        self.check()
    }

    fn apply(&mut self, op: &Op) -> Check {
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

    fn publish(&mut self, topics: &[u8], expires_in: Option<u16>) {
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

    fn connect(&mut self, at: usize, who: u8, messages: u8, bytes: u16, behind: u8) -> Check {
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
    fn give_all_back(&mut self, at: usize, who: u8, lost: bool) {
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

    fn settle(&mut self, at: usize, who: u8, how: How, from: u8, count: u8) -> Check {
        let now = self.bed.now.mono_ms;
        let end = self.bed.log.next_seq;
        let sub = &mut self.subs[at];
        let Some(consumer) = sub.consumers.get_mut(&who) else { return Ok(()) };
        // Mostly where something of it is, sometimes anywhere.
        let own: Vec<Seq> =
            sub.messages.iter().filter(|(_, m)| matches!(m.state, State::Leased { who: w, .. } if w == who)).map(|(s, _)| *s).collect();
        let first = if own.is_empty() || from >= 224 { u64::from(from) % end } else { own[from as usize % own.len()] };
        let range = SeqRange { first_seq: first, count: 1 + u32::from(count % 8) };
        let reason = if count % 2 == 0 { "" } else { "because" };
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
        ensure!(refused.is_subset(&said_refused), "{settlement:?} by {who}: {refused:?} not refused, only {said_refused:?}");
        ensure!(fine.is_disjoint(&said_refused), "{settlement:?} by {who}: {said_refused:?} refused, not {fine:?}");
        ensure!(
            said_refused.iter().all(|s| range.first_seq <= *s && *s < range.end()),
            "{settlement:?}: refused outside: {said_refused:?}"
        );
        Ok(())
    }

    fn advance(&mut self, ms: u64) -> Check {
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

    fn trim(&mut self, by: u64) {
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

    fn take_journal(&mut self) {
        while let Some(piece) = self.bed.engine.take_journal() {
            self.staged.push(piece);
        }
    }

    fn sync(&mut self) -> Check {
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

    fn crash(&mut self, keep: usize) -> Check {
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
                ensure!(settled || !m.durable || !kept, "{}/{seq}: durably settled, and unsettled after a restart", sub.def.id);
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
    fn fresh(&self, records: &[Bytes]) -> Result<Engine, String> {
        let mut engine = Engine::new(config(self.jitter_seed));
        let defs: Vec<_> = self.subs.iter().map(|s| (s.def.clone(), 1)).collect();
        let log = &self.bed.log;
        engine
            .restore(records, &defs, log.first_seq, log.next_seq, self.bed.now)
            .map_err(|e| format!("restore: {e}"))?;
        Ok(engine)
    }

    fn serve(&mut self) -> Check {
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

    /// Asks the engine whether losses counted, where the model cannot know.
    fn settle_doubts(&mut self) -> Check {
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
    fn listen(&mut self) -> Check {
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

    fn judge(&mut self, key: SessionKey, delivery: &Delivery) -> Check {
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
                    State::Back { .. } if m.failed > 0 && !past(m, wall) && *s >= self.bed.log.first_seq => outstanding += 1,
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
    fn check(&mut self) -> Check {
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
                if past(m, wall)
                    && settled
                    && matches!(m.state, State::Unread | State::Back { .. })
                {
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
        if self.steps % 3 == 0 { self.check_equivalence() } else { Ok(()) }
    }

    /// Nobody with room waits while there is something to be had.
    fn check_progress(&self, at: usize, now: u64) -> Check {
        let sub = &self.subs[at];
        if sub.read_after > now {
            return Ok(());
        }
        let counts = self.bed.engine.counts(sub.def.id).ok_or("no counts")?;
        let due = |m: &Message| matches!(m.state, State::Back { to, .. } if to <= now) && !(m.perhaps_unread && counts.full);
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
    fn check_equivalence(&mut self) -> Check {
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

fn credit(messages: u8, bytes: u16) -> Credit {
    Credit { messages: u32::from(messages % 12), bytes: u64::from(bytes) }
}

/// Whether a message's time has passed. The engine finds out when it looks at it.
fn past(m: &Message, wall: Timestamp) -> bool {
    m.expires_at.is_set() && m.expires_at <= wall
}

fn wait(failed: u32) -> u64 {
    SCHEDULE_MS[(failed as usize - 1).min(SCHEDULE_MS.len() - 1)]
}

fn fail(m: &mut Message, now: u64, delay: u8) {
    m.failed += 1;
    m.losses = 1;
    if m.failed >= MAX_ATTEMPTS {
        m.state = State::Dying;
    } else if delay > 0 {
        let due = now + u64::from(delay) * 50;
        m.state = State::Back { from: due, to: due };
    } else {
        let whole = wait(m.failed);
        m.state = State::Back { from: now + whole / 2, to: now + whole };
    }
}

/// Each number of losses that was possible is one more now; with the third an attempt has failed.
fn lose(m: &mut Message, now: u64) {
    let more = m.losses << 1;
    let (counts, stays) = (more >> LOSSES != 0, more & ((1 << LOSSES) - 1));
    if counts && stays == 0 {
        fail(m, now, 0);
    } else {
        m.doubtful = counts;
        m.losses = stays;
        m.state = State::Back { from: now, to: if counts { now + wait(m.failed + 1) } else { now } };
    }
}

fn status(
    engine: &mut Engine,
    log: &FakeLog,
    now: Now,
    id: SubscriptionId,
    seq: Seq,
) -> Result<acb_engine::MessageState, String> {
    let topic = &log.get(seq).ok_or("not in the log")?.topic;
    let topic = std::str::from_utf8(topic).map_err(|_| "topic")?;
    let all = engine.status(topic, seq, now);
    all.into_iter().find(|s| s.subscription == id).ok_or_else(|| format!("{id} does not know {seq}"))
}

fn how() -> impl Strategy<Value = How> {
    prop_oneof![
        4 => Just(How::Ack),
        2 => Just(How::Confirm),
        3 => (0u8..30).prop_map(|delay| How::Nack { delay: delay.saturating_sub(20) }),
        1 => Just(How::Progress),
        1 => Just(How::Term),
        1 => Just(How::Release),
    ]
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let b = any::<u8>;
    prop_oneof![
        8 => (prop::collection::vec(b(), 1..6), prop::option::weighted(0.2, 0u16..2000))
            .prop_map(|(topics, expires_in)| Op::Publish { topics, expires_in }),
        5 => (b(), b(), b(), 0u16..4000, b())
            .prop_map(|(sub, who, messages, bytes, behind)| Op::Connect { sub, who, messages, bytes, behind }),
        2 => (b(), b()).prop_map(|(sub, who)| Op::Disconnect { sub, who }),
        1 => (b(), b()).prop_map(|(sub, who)| Op::Leave { sub, who }),
        1 => (b(), b(), b(), 0u16..4000).prop_map(|(sub, who, messages, bytes)| Op::Credit { sub, who, messages, bytes }),
        16 => (b(), b(), how(), b(), b()).prop_map(|(sub, who, how, from, count)| Op::Settle { sub, who, how, from, count }),
        6 => prop_oneof![8 => 1u16..25, 1 => 180u16..260].prop_map(|steps| Op::Advance { steps }),
        2 => Just(Op::Bury),
        1 => Just(Op::Journal),
        2 => Just(Op::Sync),
        1 => Just(Op::Snapshot),
        1 => b().prop_map(|keep| Op::Crash { keep }),
        1 => Just(Op::JournalLost),
        1 => b().prop_map(|by| Op::Trim { by }),
        1 => prop::bool::weighted(0.3).prop_map(Op::Lazy),
        1 => Just(Op::BeginRead),
        1 => Just(Op::EndRead),
        1 => Just(Op::FailRead),
    ]
}

/// Runs a history; the first step that is wrong, and how.
pub(crate) fn run(seed: u64, ops: &[Op]) -> Check {
    let mut world = World::new(seed);
    for (i, op) in ops.iter().enumerate() {
        world.step(op).map_err(|e| format!("step {i}, {op:?}: {e}"))?;
    }
    Ok(())
}

/// How many histories to try: `ENGINE_HISTORIES`, or enough for every day.
fn histories() -> u32 {
    std::env::var("ENGINE_HISTORIES").ok().and_then(|n| n.parse().ok()).unwrap_or(400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: histories(), ..ProptestConfig::default() })]

    #[test]
    fn the_engine_does_what_the_naive_model_allows_and_demands(
        seed in any::<u64>(),
        ops in prop::collection::vec(op(), 1..120),
    ) {
        if let Err(wrong) = run(seed, &ops) {
            return Err(TestCaseError::fail(wrong));
        }
    }
}
