//! A server, its disk, its clients and time, in one thread, driven by a seed.
//!
//! The server is the real one where it matters: `PartitionCore` with the real engine and the real log on the test disk,
//! once for topics and once for dead letters. Queues, commits, timers and connections are steps that the seed chooses,
//! so any order in which threads could do them is an order that some seed does them in.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use acb_engine::{Credit, Death, Delivery, Engine, EngineConfig, SessionDef, SessionKey};
use acb_log::{DataDir, FaultOn, SimDisk, SimRng};
use acb_ports::SyncTicket;
use acb_server::delivery::{
    core::{After, Op, OwnedSettlement, PartitionCore, SettleKind},
    outbox::{ConsumeNews, ConsumeOutbox, PublishOutbox},
};
use acb_types::{
    AgentId, Durability, Envelope, ErrorCode, Incarnation, Now, PartitionId, ProducerKey, SubscriptionId, Timestamp,
    batch::{Batch, DeadLetterPolicy, Keyed, ReadRequest, Sender, SubscriptionDef},
    envelope::Text,
    frame,
    position::{ClassId, MessageId, Seq},
};
use bytes::{Bytes, BytesMut};

use crate::model::{Check, Consumer, Id, Model, Sent, Sub, Violation};

/// Topics that are published to.
pub const TOPICS: [&str; 4] = ["a.x", "a.y", "b.x", "c"];
/// Lease of every subscription.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// How long a lost connection's leases are kept.
const GRACE: u64 = 10_000;
/// Less than idempotency keys are remembered for, in milliseconds.
const KEY_WINDOW: u64 = 590_000;
/// Attempts before a message is dead.
const MAX_ATTEMPTS: u32 = 3;
/// Messages that a subscription may have outstanding.
const MAX_LEASED: u32 = 48;

/// One frame that a producer sent and keeps until it is answered.
#[derive(Clone, Debug)]
struct Frame {
    counter: u64,
    ids: Vec<Id>,
    level: Durability,
    body: Bytes,
    keyed: bool,
    /// Wall time when it was sent, and how often that clock had been set by then.
    sent_at: (u64, u32),
}

#[derive(Debug)]
struct Producer {
    key: ProducerKey,
    sender: Arc<Sender>,
    next: u64,
    open: VecDeque<Frame>,
    answered: Vec<Frame>,
    outbox: Arc<PublishOutbox>,
}

/// A message that a consumer has, or that is on its way to it.
#[derive(Clone, Copy, Debug)]
struct Held {
    id: Id,
    seq: Seq,
    delivery: u64,
    arrived: bool,
}

#[derive(Debug)]
struct Client {
    sub: Sub,
    token: [u8; 16],
    session: Option<SessionKey>,
    outbox: Arc<ConsumeOutbox>,
    held: Vec<Held>,
    /// Number of the last delivery that arrived.
    arrived: u64,
    next_delivery: u64,
    lost_at: Option<u64>,
    confirming: Vec<(Seq, Id)>,
    kicked: bool,
}

/// A partition with what stands before it.
#[derive(Debug)]
struct Node {
    core: PartitionCore,
    queue: Vec<Op>,
    sync_queue: Vec<Op>,
    syncing: Option<Box<dyn SyncTicket>>,
}

/// Everything.
#[derive(Debug)]
pub struct World {
    /// The run's dice.
    pub rng: SimRng,
    disk: SimDisk,
    data: Option<Arc<DataDir>>,
    now: Now,
    wall_steps: u32,
    topics: Option<Node>,
    graves: Option<Node>,
    deaths: VecDeque<(Sub, Death)>,
    producers: Vec<Producer>,
    clients: Vec<Client>,
    /// What must be true.
    pub model: Model,
    next_id: Id,
    grave_outbox: Arc<PublishOutbox>,
    burials: BTreeMap<u64, (Sub, Death)>,
    next_burial: u64,
    /// Folded over all that was seen: two runs of a seed must agree.
    pub trace: u64,
    ack_before_write: bool,
    /// Switches for faults that the disk answers with.
    pub storage_faults: bool,
}

fn subscription_filters() -> Vec<Vec<&'static str>> {
    vec![vec![">"], vec!["a.*"], vec!["c", "b.>"]]
}

impl World {
    /// A new world on an empty disk.
    pub fn new(seed: u64, ack_before_write: bool) -> Self {
        let mut rng = SimRng::new(seed);
        let disk = SimDisk::new(rng.next_u64());
        let mut model = Model::default();
        model.subscriptions = subscription_filters();
        model.max_attempts = MAX_ATTEMPTS;
        let mut clients = Vec::new();
        for sub in 0..model.subscriptions.len() {
            for n in 0..2_u8 {
                let mut token = [0; 16];
                token[0] = sub as u8 + 1;
                token[1] = n + 1;
                clients.push(Client {
                    sub,
                    token,
                    session: None,
                    outbox: Arc::default(),
                    held: Vec::new(),
                    arrived: 0,
                    next_delivery: 1,
                    lost_at: None,
                    confirming: Vec::new(),
                    kicked: false,
                });
            }
        }
        let producers = (0..3)
            .map(|i| Producer {
                key: ProducerKey(i + 1),
                sender: Arc::new(Sender { agent: agent(i), incarnation: Incarnation(1) }),
                next: 1,
                open: VecDeque::new(),
                answered: Vec::new(),
                outbox: Arc::default(),
            })
            .collect();
        Self {
            rng,
            disk,
            data: None,
            now: Now { mono_ms: 0, wall: Timestamp(1_767_225_600_000) },
            wall_steps: 0,
            topics: None,
            graves: None,
            deaths: VecDeque::new(),
            producers,
            clients,
            model,
            next_id: 1,
            grave_outbox: Arc::default(),
            burials: BTreeMap::new(),
            next_burial: 1,
            trace: 0xcbf2_9ce4_8422_2325,
            ack_before_write,
            storage_faults: true,
        }
    }

    fn note(&mut self, word: u64) {
        self.trace = (self.trace ^ word).wrapping_mul(0x0100_0000_01b3);
    }

    /// Whether the server runs.
    pub fn is_up(&self) -> bool {
        self.topics.is_some()
    }

    // ---------------------------------------------------------------- the server's life

    /// Starts the server on what the disk has.
    pub fn start(&mut self) -> Check {
        let data = crate::open_data(&self.disk)
            .map_err(|e| Violation { invariant: "SIM-1", what: format!("the data folder does not open: {e}") })?;
        self.data = Some(data);
        let topics = self.open(ClassId::TOPICS)?;
        let graves = self.open(ClassId::DEAD_LETTERS)?;
        self.topics = Some(topics);
        self.graves = Some(graves);
        self.note(1);
        for p in &mut self.producers {
            p.outbox = Arc::default();
        }
        for c in &mut self.clients {
            c.session = None;
            c.held.clear();
            c.confirming.clear();
            c.lost_at = None;
            c.outbox = Arc::default();
        }
        self.advance(0)
    }

    fn open(&mut self, class: ClassId) -> Result<Node, Violation> {
        let partition = PartitionId { tenant: crate::tenant(), class, partition: 0 };
        let Some(data) = &self.data else {
            return Err(Violation { invariant: "SIM-1", what: "no data folder".into() });
        };
        let opened = crate::open_partition(data, &partition, self.now.wall).map_err(|e| Violation {
            invariant: "SIM-1",
            what: format!("{partition} does not open: {e}"),
        })?;
        let (first, end) = (opened.log.first_seq(), opened.log.next_seq());
        let defs: Vec<(SubscriptionDef, Seq)> = if class == ClassId::TOPICS {
            self.model.subscriptions.iter().enumerate().map(|(i, f)| (definition(i, f), 1)).collect()
        } else {
            Vec::new()
        };
        let mut engine = Engine::new(EngineConfig { seed: 7, ..EngineConfig::default() });
        engine.restore(&opened.state, &defs, first, end, self.now).map_err(|e| Violation {
            invariant: "SIM-1",
            what: format!("{partition}: delivery state is corrupt: {e}"),
        })?;
        let mut core = PartitionCore::new(engine, opened.log, class);
        if self.ack_before_write {
            core.plant_ack_before_write();
        }
        Ok(Node { core, queue: Vec::new(), sync_queue: Vec::new(), syncing: None })
    }

    /// The process dies: what was written stays.
    pub fn kill(&mut self) {
        self.note(2);
        let written = self.topics.as_ref().map_or(0, |n| n.core.log().written_end());
        self.stop(written);
        self.disk.kill();
    }

    /// The power goes: only what was synced is sure to stay.
    pub fn power_cut(&mut self) {
        self.note(3);
        let synced = self.topics.as_ref().map_or(0, |n| n.core.log().synced_end());
        self.stop(synced);
        self.disk.power_cut(&mut self.rng);
    }

    /// The server closes in good order.
    pub fn shut_down(&mut self) -> Check {
        self.note(4);
        let mut after = After::default();
        for node in [&mut self.topics, &mut self.graves].into_iter().flatten() {
            let mut ops = std::mem::take(&mut node.queue);
            ops.append(&mut node.sync_queue);
            node.core.drain(&mut ops, self.now, &mut after);
            if let Some(mut ticket) = node.syncing.take() {
                ticket.run();
                node.core.sync_end(ticket, self.now, &mut after);
            }
            // A disk with a fault may refuse; then it is as if the process had been killed.
            let _ = node.core.close(self.now, &mut after);
        }
        self.after(after)?;
        self.pump()?;
        let written = self.topics.as_ref().map_or(0, |n| n.core.log().written_end());
        self.stop(written);
        Ok(())
    }

    fn stop(&mut self, survives: Seq) {
        self.topics = None;
        self.graves = None;
        self.data = None;
        self.deaths.clear();
        self.burials.clear();
        self.grave_outbox = Arc::default();
        self.model.crashed(|sent: &Sent| sent.seq.is_none_or(|seq| seq < survives));
    }

    // ---------------------------------------------------------------- producers

    /// A producer sends a frame.
    pub fn publish(&mut self) -> Check {
        let p = self.rng.below(self.producers.len() as u64) as usize;
        if self.producers[p].open.len() >= 8 {
            return Ok(());
        }
        let count = 1 + self.rng.below(5);
        let level = [Durability::Written, Durability::Synced, Durability::Memory][self.rng.below(3) as usize];
        let keyed = self.rng.chance(1, 4);
        let mut body = BytesMut::new();
        let mut ids = Vec::new();
        let counter = self.producers[p].next;
        let mut topic = TOPICS[self.rng.below(TOPICS.len() as u64) as usize];
        for i in 0..count {
            if self.rng.chance(1, 4) {
                topic = TOPICS[self.rng.below(TOPICS.len() as u64) as usize];
            }
            let id = self.next_id;
            self.next_id += 1;
            let fill = self.rng.below(64) as usize * if self.rng.chance(1, 16) { 100 } else { 1 };
            let mut payload = id.to_le_bytes().to_vec();
            payload.resize(8 + fill, id as u8);
            let key = if keyed { Text::from(format!("k{id}")) } else { Text::EMPTY };
            let envelope = Envelope {
                topic: topic.into(),
                payload: payload.into(),
                idempotency_key: key,
                ..Envelope::default()
            };
            frame::encode(&mut body, &envelope);
            ids.push(id);
            let sent = Sent {
                producer: p,
                counter: counter + i,
                level,
                topic,
                seq: None,
                acked: false,
                may_be_lost: false,
            };
            self.model.sent.insert(id, sent);
        }
        self.producers[p].next += count;
        let frame = Frame { counter, ids, level, body: body.freeze(), keyed, sent_at: (self.now.wall.0, self.wall_steps) };
        self.producers[p].open.push_back(frame.clone());
        self.submit(p, &frame);
        Ok(())
    }

    fn submit(&mut self, p: usize, f: &Frame) {
        let Some(node) = &mut self.topics else { return };
        let Ok(walked) = frame::walk(&f.body) else { return };
        let keys = if f.keyed {
            f.ids.iter().zip(0..).map(|(id, index)| Keyed { index, key: u128::from(*id), body: *id }).collect()
        } else {
            smallvec()
        };
        let producer = &self.producers[p];
        let batch = Batch {
            count: walked.count,
            flags: walked.flags,
            body: f.body.clone(),
            runs: walked.runs,
            sender: Arc::clone(&producer.sender),
            producer: producer.key,
            producer_epoch: 1,
            counter: f.counter,
            keys,
        };
        let op = Op::Append { batch, level: f.level, outbox: Arc::clone(&producer.outbox) };
        if f.level >= Durability::Synced || producer.outbox.has_sync_queued() {
            producer.outbox.enter_sync_queue();
            node.sync_queue.push(op);
        } else {
            node.queue.push(op);
        }
    }

    /// A producer sends again what was not answered, in order, as after a reconnect; sometimes also what was.
    pub fn resend(&mut self, p: usize, answered_too: bool) {
        let mut frames: Vec<Frame> = Vec::new();
        if answered_too && let Some(last) = self.producers[p].answered.last() {
            frames.push(last.clone());
        }
        frames.extend(self.producers[p].open.iter().cloned());
        for f in frames {
            self.submit(p, &f);
        }
    }

    /// A user sends again, under its old idempotency keys, what it sent long ago: new counters, old messages.
    pub fn retry_keyed(&mut self, p: usize) {
        let producer = &mut self.producers[p];
        if producer.open.len() >= 8 {
            return;
        }
        // Keys are remembered for a window of the wall clock, which a step of that clock can end.
        let (now, steps) = (self.now.wall.0, self.wall_steps);
        let young = |f: &&Frame| f.keyed && f.sent_at.1 == steps && now - f.sent_at.0 < KEY_WINDOW;
        let keyed: Vec<Frame> = producer.answered.iter().filter(young).cloned().collect();
        if keyed.is_empty() {
            return;
        }
        let mut again = keyed[self.rng.below(keyed.len() as u64) as usize].clone();
        again.counter = producer.next;
        producer.next += again.ids.len() as u64;
        // Acknowledged before, so this one counts as answered at once; its acks are checked all the same.
        producer.answered.push(again.clone());
        self.submit(p, &again);
    }

    /// All producers send again what was not answered.
    pub fn resend_all(&mut self) {
        for p in 0..self.producers.len() {
            self.resend(p, false);
        }
    }

    /// Chooses a producer.
    pub fn some_producer(&mut self) -> usize {
        self.rng.below(self.producers.len() as u64) as usize
    }

    // ---------------------------------------------------------------- the server's threads

    /// The hot runtime's round ends.
    pub fn drain(&mut self) -> Check {
        let now = self.now;
        let mut after = After::default();
        if let Some(node) = &mut self.topics {
            let mut ops = std::mem::take(&mut node.queue);
            node.core.drain(&mut ops, now, &mut after);
        }
        self.after(after)?;
        self.pump()
    }

    /// A committer begins a commit, or ends the one that it began.
    pub fn commit(&mut self, graves: bool) -> Check {
        let now = self.now;
        let mut after = After::default();
        let node = if graves { &mut self.graves } else { &mut self.topics };
        if let Some(node) = node {
            match node.syncing.take() {
                Some(mut ticket) => {
                    ticket.run();
                    node.core.sync_end(ticket, now, &mut after);
                }
                None => {
                    let mut ops = std::mem::take(&mut node.sync_queue);
                    let outboxes: Vec<Arc<PublishOutbox>> = ops
                        .iter()
                        .filter_map(|op| match op {
                            Op::Append { outbox, .. } => Some(Arc::clone(outbox)),
                            Op::Settle { .. } => None,
                        })
                        .collect();
                    node.core.drain(&mut ops, now, &mut after);
                    for outbox in outboxes {
                        outbox.leave_sync_queue();
                    }
                    node.syncing = node.core.sync_begin(now, &mut after);
                }
            }
        }
        self.after(after)?;
        self.pump()
    }

    /// Time passes.
    pub fn advance(&mut self, ms: u64) -> Check {
        self.now.mono_ms += ms;
        self.now.wall.0 += ms;
        let now = self.now;
        let mut after = After::default();
        for node in [&mut self.topics, &mut self.graves].into_iter().flatten() {
            node.core.advance(now, &mut after);
        }
        self.after(after)?;
        self.pump()
    }

    /// The wall clock is set, forward or back; no lease may end by it.
    pub fn step_wall(&mut self) -> Check {
        // Keys are judged by the wall clock when they are staged: nothing may be on its way while it is set.
        self.drain()?;
        self.commit(false)?;
        self.commit(false)?;
        self.wall_steps += 1;
        let step = self.rng.below(7_200_000);
        self.now.wall.0 = if self.rng.chance(1, 2) { self.now.wall.0 + step } else { self.now.wall.0 - step };
        self.advance(0)
    }

    /// Reads for a consumer that lags, as its stream would.
    pub fn read(&mut self, c: Consumer) -> Check {
        let (Some(node), Some(session)) = (&mut self.topics, self.clients[c].session) else { return Ok(()) };
        let now = self.now;
        let mut after = After::default();
        let Some(plan) = node.core.plan(session, now) else {
            self.clients[c].kicked = false;
            return Ok(());
        };
        match node.core.reader().read(&plan.request) {
            Ok(block) => node.core.commit(plan, block, now, &mut after),
            Err(error) => {
                node.core.abandon(plan, now);
                return Err(Violation { invariant: "SIM-1", what: format!("a read failed: {error}") });
            }
        }
        self.after(after)?;
        self.pump()
    }

    /// Someone who has been told that there is something to read.
    pub fn some_kicked(&mut self) -> Option<Consumer> {
        let kicked: Vec<Consumer> =
            (0..self.clients.len()).filter(|c| self.clients[*c].kicked && self.clients[*c].session.is_some()).collect();
        if kicked.is_empty() { None } else { Some(kicked[self.rng.below(kicked.len() as u64) as usize]) }
    }

    fn after(&mut self, after: After) -> Check {
        for death in after.deaths {
            let sub = (death.subscription.0 - 1) as usize;
            self.note(death.seq);
            self.model.dies(sub, death.seq)?;
            let seq = death.seq;
            for c in self.clients.iter_mut().filter(|c| c.sub == sub) {
                c.held.retain(|h| h.seq != seq);
            }
            self.deaths.push_back((sub, death));
        }
        Ok(())
    }

    // ---------------------------------------------------------------- dead letters

    /// Writes the next dead letter, as the server's task does: keyed, so that writing it again is a repeat.
    pub fn bury(&mut self) {
        let Some((sub, death)) = self.deaths.pop_front() else { return };
        let Some(node) = &mut self.graves else { return };
        let number = self.next_burial;
        self.next_burial += 1;
        let mut payload = (sub as u64).to_le_bytes().to_vec();
        payload.extend_from_slice(&death.seq.to_le_bytes());
        let envelope = Envelope { topic: "dead".into(), payload: payload.into(), ..Envelope::default() };
        let mut body = BytesMut::new();
        frame::encode(&mut body, &envelope);
        let body = body.freeze();
        let Ok(walked) = frame::walk(&body) else { return };
        let key = u128::from(sub as u64) << 64 | u128::from(death.seq);
        let batch = Batch {
            count: 1,
            flags: walked.flags,
            body,
            runs: walked.runs,
            sender: Arc::clone(&self.producers[0].sender),
            producer: ProducerKey::NONE,
            producer_epoch: 0,
            // Unused without a producer session; here it names the burial in the answer.
            counter: number,
            keys: [Keyed { index: 0, key, body: 0 }].into_iter().collect(),
        };
        self.burials.insert(number, (sub, death));
        let outbox = Arc::clone(&self.grave_outbox);
        outbox.enter_sync_queue();
        node.sync_queue.push(Op::Append { batch, level: Durability::Synced, outbox });
    }

    /// Whether dead letters are on their way.
    pub fn has_deaths(&self) -> bool {
        !self.deaths.is_empty() || !self.burials.is_empty()
    }

    // ---------------------------------------------------------------- consumers

    /// Chooses a consumer.
    pub fn some_consumer(&mut self) -> Consumer {
        self.rng.below(self.clients.len() as u64) as usize
    }

    /// How many consumers there are.
    pub fn consumers(&self) -> usize {
        self.clients.len()
    }

    /// A consumer connects, resuming where its last connection was.
    pub fn connect(&mut self, c: Consumer, credit: Credit) -> Check {
        let Some(node) = &mut self.topics else { return Ok(()) };
        if self.clients[c].session.is_some() {
            return Ok(());
        }
        let outbox: Arc<ConsumeOutbox> = Arc::default();
        let client = &self.clients[c];
        let def = SessionDef {
            token: client.token,
            agent: agent(c as u64),
            incarnation: Incarnation(1),
            credit,
            resume_delivery: (client.arrived != 0).then_some(client.arrived),
        };
        let id = SubscriptionId(client.sub as u64 + 1);
        let mut after = After::default();
        let connected = node.core.connect(id, def, Arc::clone(&outbox), self.now, &mut after).map_err(|e| Violation {
            invariant: "SIM-10",
            what: format!("consumer {c} cannot connect: {e}"),
        })?;
        let client = &mut self.clients[c];
        let sub = client.sub;
        client.session = Some(connected.session);
        client.outbox = outbox;
        client.kicked = true;
        client.lost_at = None;
        let dropped: Vec<Held> = if connected.resumed {
            // What had not arrived is given again; what had is still held.
            let (kept, dropped) = std::mem::take(&mut client.held).into_iter().partition(|h| h.arrived);
            client.held = kept;
            client.next_delivery = client.arrived + 1;
            dropped
        } else {
            client.arrived = 0;
            client.next_delivery = 1;
            client.confirming.clear();
            std::mem::take(&mut client.held)
        };
        for h in dropped {
            self.model.lost(sub, h.id);
        }
        self.note(5 + c as u64);
        self.after(after)?;
        self.pump()
    }

    /// A consumer's connection is lost, with what was on its way.
    pub fn disconnect(&mut self, c: Consumer) -> Check {
        let Some(session) = self.clients[c].session.take() else { return Ok(()) };
        self.clients[c].lost_at = Some(self.now.mono_ms);
        self.clients[c].outbox = Arc::default();
        let mut after = After::default();
        if let Some(node) = &mut self.topics {
            node.core.disconnect(session, self.now, &mut after);
        }
        self.after(after)?;
        self.pump()
    }

    /// A consumer leaves and gives back what it has.
    pub fn leave(&mut self, c: Consumer) -> Check {
        let Some(session) = self.clients[c].session.take() else { return Ok(()) };
        let sub = self.clients[c].sub;
        for h in std::mem::take(&mut self.clients[c].held) {
            self.model.released(sub, h.id);
        }
        self.clients[c].arrived = 0;
        self.clients[c].next_delivery = 1;
        self.clients[c].confirming.clear();
        self.clients[c].outbox = Arc::default();
        let mut after = After::default();
        if let Some(node) = &mut self.topics {
            node.core.leave(session, self.now, &mut after);
        }
        self.after(after)?;
        self.pump()
    }

    /// A consumer changes its window.
    pub fn credit(&mut self, c: Consumer, credit: Credit) -> Check {
        let (Some(node), Some(session)) = (&mut self.topics, self.clients[c].session) else { return Ok(()) };
        let mut after = After::default();
        node.core.credit(session, credit, self.now, &mut after);
        self.after(after)?;
        self.pump()
    }

    /// Frames on their way arrive at a consumer.
    pub fn arrive(&mut self, c: Consumer) {
        let client = &mut self.clients[c];
        if client.session.is_none() {
            return;
        }
        for h in &mut client.held {
            h.arrived = true;
            client.arrived = client.arrived.max(h.delivery);
        }
    }

    /// A consumer settles some of what it has.
    pub fn settle(&mut self, c: Consumer, ack_all: bool) -> Check {
        let now = self.now.mono_ms;
        let (Some(_), Some(session)) = (&self.topics, self.clients[c].session) else { return Ok(()) };
        let sub = self.clients[c].sub;
        let mut settlements = Vec::new();
        let held = std::mem::take(&mut self.clients[c].held);
        let mut kept = Vec::new();
        for h in held {
            if !h.arrived || (!ack_all && self.rng.chance(1, 2)) {
                kept.push(h);
                continue;
            }
            let sure = self.model.holds(sub, c, h.id, now);
            // A lease that is over by our clock may be over by the server's or not: settling it tells nothing.
            if !sure {
                self.model.expired(sub, h.id);
                continue;
            }
            let choice = if ack_all { 0 } else { self.rng.below(12) };
            let kind = match choice {
                0..=4 => {
                    self.model.ack(sub, h.id);
                    SettleKind::Ack
                }
                5..=7 => {
                    self.clients[c].confirming.push((h.seq, h.id));
                    self.model.ack(sub, h.id);
                    SettleKind::ConfirmedAck
                }
                8 => {
                    self.model.failed(sub, h.id);
                    let delay = self.rng.chance(1, 2).then(|| Duration::from_millis(1 + self.rng.below(3_000)));
                    SettleKind::Nack { delay, reason: "seed".into() }
                }
                9 => {
                    self.model.extended(sub, h.id, now + ACK_WAIT.as_millis() as u64);
                    kept.push(h);
                    SettleKind::Progress
                }
                10 => {
                    self.model.failed(sub, h.id);
                    SettleKind::Term { reason: "seed".into() }
                }
                _ => {
                    self.model.released(sub, h.id);
                    SettleKind::Release
                }
            };
            settlements.push(OwnedSettlement { first_seq: h.seq, count: 1, kind });
        }
        self.clients[c].held.splice(0..0, kept);
        if settlements.is_empty() {
            return Ok(());
        }
        if let Some(node) = &mut self.topics {
            let mut ops = vec![Op::Settle { session, settlements }];
            let mut after = After::default();
            // Settlements are worked off at once: a queue between would let the lease end on the way, which the model
            // could not tell from a fault.
            node.core.drain(&mut ops, self.now, &mut after);
            self.after(after)?;
        }
        self.pump()
    }

    // ---------------------------------------------------------------- what comes back

    /// Looks at all outboxes and checks what is in them.
    fn pump(&mut self) -> Check {
        let cx = Context::from_waker(Waker::noop());
        for p in 0..self.producers.len() {
            let Some(news) = self.producers[p].outbox.take(&cx) else { continue };
            for ack in news.acks {
                self.note(ack.first_seq ^ ack.counter << 32);
                for i in 0..u64::from(ack.count) {
                    let counter = ack.counter + i;
                    let seq = if ack.first_seq == 0 { 0 } else { ack.first_seq + i };
                    let Some(id) = self.id_of(p, counter) else { continue };
                    self.model.acked(id, seq, ack.duplicate)?;
                }
                self.answered(p, ack.counter, ack.count);
            }
            for reject in news.rejects {
                self.note(reject.counter);
                match reject.code {
                    // Retryable: the frame stays open and is sent again.
                    ErrorCode::StorageFull | ErrorCode::StorageReadOnly | ErrorCode::StorageFailed => {}
                    code => {
                        return Err(Violation {
                            invariant: "SIM-9",
                            what: format!("counter {} of producer {p} was refused with {code}", reject.counter),
                        });
                    }
                }
            }
        }
        let mut deliveries = Vec::new();
        for c in 0..self.clients.len() {
            self.pump_consumer(c, &mut deliveries)?;
        }
        // Consumers of one subscription are looked at one after the other, while their deliveries went out in turns:
        // order over all of them is that of the seqs. Each one's own order was checked above.
        deliveries.sort_by_key(|(_, d)| (d.first_seq, d.attempt));
        for (c, delivery) in deliveries {
            self.deliver(c, &delivery)?;
        }
        self.lose_dropped();
        self.end_leases();
        self.pump_graves(&cx)?;
        self.check_bounds()
    }

    fn id_of(&self, p: usize, counter: u64) -> Option<Id> {
        let frames = self.producers[p].open.iter().chain(&self.producers[p].answered);
        frames
            .filter(|f| counter >= f.counter && counter < f.counter + f.ids.len() as u64)
            .map(|f| f.ids[(counter - f.counter) as usize])
            .next()
    }

    /// Moves frames to the answered ones once every message of them is.
    fn answered(&mut self, p: usize, _counter: u64, _count: u32) {
        while let Some(frame) = self.producers[p].open.front() {
            let done = frame.ids.iter().all(|id| self.model.sent.get(id).is_some_and(|s| s.acked));
            if !done {
                return;
            }
            if let Some(frame) = self.producers[p].open.pop_front() {
                self.producers[p].answered.push(frame);
            }
        }
    }

    fn pump_consumer(&mut self, c: Consumer, out: &mut Vec<(Consumer, Delivery)>) -> Check {
        let cx = Context::from_waker(Waker::noop());
        let news = self.clients[c].outbox.with(&cx, |news| Some(std::mem::take(news))).unwrap_or_default();
        let ConsumeNews { deliveries, settled, gaps, kicked, closed } = news;
        self.clients[c].kicked |= kicked;
        if let Some(code) = closed {
            return Err(Violation { invariant: "SIM-10", what: format!("consumer {c} was ended with {code}") });
        }
        if let Some(gap) = gaps.first() {
            return Err(Violation { invariant: "SIM-1", what: format!("consumer {c} was told of a gap {gap:?}") });
        }
        let sub = self.clients[c].sub;
        for s in settled {
            match s.result {
                Ok(()) => {
                    let range = s.first_seq..s.first_seq + u64::from(s.count);
                    let done: Vec<(Seq, Id)> =
                        self.clients[c].confirming.iter().copied().filter(|(seq, _)| range.contains(seq)).collect();
                    self.clients[c].confirming.retain(|(seq, _)| !range.contains(seq));
                    for (_, id) in done {
                        self.model.confirmed(sub, id)?;
                    }
                }
                Err(code) => {
                    return Err(Violation {
                        invariant: "SIM-10",
                        what: format!("consumer {c} holds seq {} and its settlement was refused with {code}", s.first_seq),
                    });
                }
            }
        }
        let mut first = 0;
        for d in deliveries {
            if d.delivery != self.clients[c].next_delivery {
                return Err(Violation {
                    invariant: "SIM-10",
                    what: format!("consumer {c} got delivery {} after {}", d.delivery, self.clients[c].next_delivery - 1),
                });
            }
            self.clients[c].next_delivery += u64::from(d.count);
            if d.attempt == 1 && !self.model.was_delivered(sub, d.first_seq) {
                if d.first_seq < first {
                    return Err(Violation {
                        invariant: "SIM-2",
                        what: format!("consumer {c} got seq {} after {first}, both for the first time", d.first_seq),
                    });
                }
                first = d.first_seq;
            }
            out.push((c, d));
        }
        Ok(())
    }

    fn deliver(&mut self, c: Consumer, d: &Delivery) -> Check {
        let sub = self.clients[c].sub;
        let (written, synced) =
            self.topics.as_ref().map_or((0, 0), |n| (n.core.log().written_end(), n.core.log().synced_end()));
        self.note(d.first_seq ^ u64::from(d.attempt) << 40);
        for ((message, seq), delivery) in frame::messages(&d.body).zip(d.first_seq..).zip(d.delivery..) {
            let envelope = frame::decode(&message)
                .map_err(|e| Violation { invariant: "SIM-6", what: format!("seq {seq} does not decode: {e}") })?;
            let id = envelope.payload.get(..8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
            let level = self.model.sent.get(&id).map_or(Durability::Synced, |s| s.level);
            let end = if level >= Durability::Synced { synced } else { written };
            if seq >= end {
                return Err(Violation {
                    invariant: "SIM-8",
                    what: format!("seq {seq} ({level}) was delivered when its level had reached {end}"),
                });
            }
            let until = self.now.mono_ms + ACK_WAIT.as_millis() as u64;
            self.model.delivered(sub, c, id, seq, d.attempt, self.now.mono_ms, until)?;
            self.clients[c].held.push(Held { id, seq, delivery, arrived: false });
        }
        Ok(())
    }

    /// What was acknowledged at the level `memory` goes when its write fails: that is what the level says.
    fn lose_dropped(&mut self) {
        let Some(node) = &self.topics else { return };
        if !node.core.log().has_staged() {
            self.model.lose_unwritten(node.core.log().written_end());
        }
    }

    /// Leases that a lost connection kept are over after the grace, those of the others when their time is.
    fn end_leases(&mut self) {
        let now = self.now.mono_ms;
        for c in 0..self.clients.len() {
            let sub = self.clients[c].sub;
            if self.clients[c].lost_at.is_some_and(|at| now >= at + GRACE) {
                self.clients[c].lost_at = None;
                for h in std::mem::take(&mut self.clients[c].held) {
                    self.model.lost(sub, h.id);
                }
                self.clients[c].arrived = 0;
                self.clients[c].next_delivery = 1;
            }
            for h in std::mem::take(&mut self.clients[c].held) {
                if self.model.holds(sub, c, h.id, now) {
                    self.clients[c].held.push(h);
                } else {
                    self.model.expired(sub, h.id);
                }
            }
        }
    }

    fn pump_graves(&mut self, cx: &Context<'_>) -> Check {
        let Some(news) = self.grave_outbox.take(cx) else { return Ok(()) };
        let mut after = After::default();
        for ack in news.acks {
            for i in 0..u64::from(ack.count) {
                let Some((sub, death)) = self.burials.remove(&(ack.counter + i)) else { continue };
                let id = MessageId { class: ack.class, partition: 0, epoch: ack.epoch, seq: ack.first_seq + i };
                if let Some(node) = &mut self.topics {
                    node.core.dead(death.subscription, death.seq, Some(id), self.now, &mut after);
                    self.model.buried(sub, death.seq);
                }
            }
        }
        for reject in news.rejects {
            if let Some(again) = self.burials.remove(&reject.counter) {
                self.deaths.push_back(again);
            }
        }
        self.after(after)
    }

    fn check_bounds(&mut self) -> Check {
        let Some(node) = &mut self.topics else { return Ok(()) };
        for sub in 0..self.model.subscriptions.len() {
            let Some(counts) = node.core.engine().counts(SubscriptionId(sub as u64 + 1)) else { continue };
            let outstanding = counts.leased + counts.waiting_retry + counts.dying;
            if outstanding > u64::from(MAX_LEASED) {
                return Err(Violation {
                    invariant: "SIM-7",
                    what: format!("subscription {sub} has {outstanding} outstanding, limit {MAX_LEASED}"),
                });
            }
        }
        Ok(())
    }

    // ---------------------------------------------------------------- faults of the disk

    /// The disk refuses writes for a while.
    pub fn fail_disk(&mut self, errno: i32) {
        self.note(6);
        self.disk.fail(FaultOn::Write, errno);
    }

    /// The disk fails a sync.
    pub fn fail_sync(&mut self) {
        self.note(7);
        self.disk.fail(FaultOn::Sync, 5);
    }

    /// The disk is well again.
    pub fn heal_disk(&mut self) {
        self.disk.heal();
    }

    /// Reads the dead letters that are there, for the last check.
    pub fn count_dead_letters(&mut self) -> Check {
        let Some(node) = &mut self.graves else { return Ok(()) };
        let end = node.core.log().written_end();
        let mut from = node.core.log().first_seq();
        let mut found = BTreeMap::new();
        while from < end {
            let request = ReadRequest {
                from_seq: from,
                end_seq: end,
                filters: [">".parse()].into_iter().flatten().collect(),
                messages_max: 512,
                bytes_max: 256 * 1024,
            };
            let block = node.core.reader().read(&request).map_err(|e| Violation {
                invariant: "SIM-5",
                what: format!("dead letters cannot be read: {e}"),
            })?;
            for run in &block.runs {
                for message in frame::messages(&run.body) {
                    let payload = frame::decode(&message).map(|e| e.payload).unwrap_or_default();
                    let word = |at: usize| {
                        payload.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
                    };
                    *found.entry((word(0) as Sub, word(8))).or_insert(0) += 1;
                }
            }
            if block.next_seq <= from {
                break;
            }
            from = block.next_seq;
        }
        self.model.dead_letters = found;
        Ok(())
    }

    /// Whether nothing is under way any more.
    pub fn is_quiet(&mut self) -> bool {
        let open = self.producers.iter().any(|p| !p.open.is_empty());
        let held = self.clients.iter().any(|c| !c.held.is_empty());
        let Some(node) = &mut self.topics else { return false };
        let engine = node.core.engine();
        let busy = (1..=self.model.subscriptions.len() as u64).any(|id| {
            engine
                .counts(SubscriptionId(id))
                .is_some_and(|c| c.leased + c.waiting_retry + c.dying > 0 || !c.caught_up)
        });
        !(open || held || busy || self.has_deaths())
    }
}

fn smallvec<T>() -> T
where
    T: Default,
{
    T::default()
}

fn agent(n: u64) -> AgentId {
    let Ok(id) = format!("agent-{n}").parse() else { unreachable!("agent-N is an agent id") };
    id
}

fn definition(i: Sub, filters: &[&str]) -> SubscriptionDef {
    let Ok(name) = format!("s{i}").parse() else { unreachable!("sN is a subscription name") };
    SubscriptionDef {
        id: SubscriptionId(i as u64 + 1),
        name,
        filters: filters.iter().flat_map(|f| f.parse()).collect(),
        ack_wait: ACK_WAIT,
        retry_schedule: [Duration::from_secs(1), Duration::from_secs(5)].into(),
        max_attempts: MAX_ATTEMPTS,
        dead_letters: DeadLetterPolicy::Keep,
        max_leased: MAX_LEASED,
        ephemeral: false,
    }
}
