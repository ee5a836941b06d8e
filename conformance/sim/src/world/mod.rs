//! A server, its disk, its clients and time, in one thread, driven by a seed.
//!
//! The server is the real one where it matters: `PartitionCore` with the real engine and the real log on the test disk,
//! once for topics and once for dead letters. Queues, commits, timers and connections are steps that the seed chooses,
//! so any order in which threads could do them is an order that some seed does them in.
mod answers;
mod consumers;
mod producers;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use acb_engine::{Death, Engine, EngineConfig, SessionKey};
use acb_log::{DataDir, FaultOn, LogOptions, SimDisk, SimRng};
use acb_ports::SyncTicket;
use acb_server::delivery::{
    core::{After, Op, PartitionCore},
    outbox::{ConsumeOutbox, PublishOutbox},
};
use acb_types::{
    AgentId, Durability, Envelope, Incarnation, Now, PartitionId, ProducerKey, SubscriptionId, Timestamp,
    batch::{Batch, DeadLetterPolicy, Keyed, ReadRequest, Sender, SubscriptionDef},
    frame,
    position::{ClassId, Seq},
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
/// Seqs beyond the synced end in every other run: so few that staging itself must often write and sync before it gives
/// out more.
const SMALL_RESERVE: u64 = 48;

/// One frame that a producer sent and keeps until it is answered.
#[derive(Clone, Debug)]
struct Frame {
    counter: u64,
    ids: Vec<Id>,
    level: Durability,
    body: Bytes,
    keyed: bool,
    /// A user's second try: old keys under a new counter.
    retry: bool,
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
    seq_reserve: u64,
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
            seq_reserve: if seed.is_multiple_of(2) { SMALL_RESERVE } else { LogOptions::default().seq_reserve },
        }
    }

    fn note(&mut self, word: u64) {
        self.trace = (self.trace ^ word).wrapping_mul(0x0100_0000_01b3);
    }

    /// Whether the server runs.
    pub fn is_up(&self) -> bool {
        self.topics.is_some()
    }

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
        let opened = crate::open_partition(data, &partition, self.seq_reserve, self.now.wall)
            .map_err(|e| Violation { invariant: "SIM-1", what: format!("{partition} does not open: {e}") })?;
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
            note_failed_write(node, &mut self.model);
            if let Some(mut ticket) = node.syncing.take() {
                ticket.run();
                node.core.sync_end(ticket, self.now, &mut after);
            }
            // A disk with a fault may refuse; then it is as if the process had been killed.
            let _ = node.core.close(self.now, &mut after);
            note_failed_write(node, &mut self.model);
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

    /// The hot runtime's round ends.
    pub fn drain(&mut self) -> Check {
        let now = self.now;
        let mut after = After::default();
        if let Some(node) = &mut self.topics {
            let mut ops = std::mem::take(&mut node.queue);
            node.core.drain(&mut ops, now, &mut after);
            note_failed_write(node, &mut self.model);
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
            if let Some(mut ticket) = node.syncing.take() {
                ticket.run();
                node.core.sync_end(ticket, now, &mut after);
            } else {
                let mut before = std::mem::take(&mut node.queue);
                node.core.drain(&mut before, now, &mut after);
                note_failed_write(node, &mut self.model);
                let mut ops = std::mem::take(&mut node.sync_queue);
                let outboxes: Vec<Arc<PublishOutbox>> = ops
                    .iter()
                    .filter_map(|op| match op {
                        Op::Append { outbox, .. } => Some(Arc::clone(outbox)),
                        Op::Settle { .. } => None,
                    })
                    .collect();
                node.core.drain(&mut ops, now, &mut after);
                note_failed_write(node, &mut self.model);
                for outbox in outboxes {
                    outbox.leave_sync_queue();
                }
                node.syncing = node.core.sync_begin(now, &mut after);
                note_failed_write(node, &mut self.model);
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
            let block = node
                .core
                .reader()
                .read(&request)
                .map_err(|e| Violation { invariant: "SIM-5", what: format!("dead letters cannot be read: {e}") })?;
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
            engine.counts(SubscriptionId(id)).is_some_and(|c| c.leased + c.waiting_retry + c.dying > 0 || !c.caught_up)
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

/// Tells the model of seqs that were given out and will never be written: they are neither written nor waiting to be.
/// Asked after each call that may write, because the next one that succeeds goes over it. Dead letters have no level
/// `memory`, so the model does not ask for theirs.
fn note_failed_write(node: &Node, model: &mut Model) {
    let log = node.core.log();
    if node.core.class() == ClassId::TOPICS && !log.has_staged() && log.written_end() < log.next_seq() {
        model.write_failed(log.written_end()..log.next_seq());
    }
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
