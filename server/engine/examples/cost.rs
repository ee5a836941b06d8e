//! What the engine's hot calls cost: `cargo run -p acb-engine --release --example cost`.
//!
//! Budgets (ADR 0004): `appended` of a full run of 128 messages with one subscriber and an ack of 512 messages well under
//! a microsecond each; a topic among 20,000 literal filters as cheap as among one. Bodies are made beforehand, effects
//! are counted and dropped: this is the engine alone. Medians of eleven rounds.

use std::{hint::black_box, sync::Arc, time::Instant};

use acb_engine::{
    Credit, Death, Delivery, Effects, Engine, EngineConfig, SeqRange, SessionDef, SessionKey, Settlement,
};
use acb_types::{
    Envelope, ErrorCode, Incarnation, Now, SubscriptionId, SubscriptionName, Timestamp,
    batch::{DeadLetterPolicy, Facts, Gap, ReadBlock, Sender, StoredRun, SubscriptionDef},
    frame::{self, Runs},
    limits,
    position::Seq,
};
use bytes::{Bytes, BytesMut};

#[derive(Default)]
struct Count {
    messages: u64,
    last: Option<Delivery>,
    other: u64,
}

impl Effects for Count {
    fn deliver(&mut self, _: SessionKey, delivery: Delivery) {
        self.messages += u64::from(delivery.count);
        self.last = Some(delivery);
    }
    fn kick(&mut self, _: SessionKey) {
        self.other += 1;
    }
    fn settled(&mut self, _: SessionKey, _: Seq, _: u32, _: Result<(), ErrorCode>) {
        self.other += 1;
    }
    fn gap(&mut self, _: SessionKey, _: Gap) {}
    fn die(&mut self, _: Death) {}
}

struct Frame {
    body: Bytes,
    runs: Runs,
    count: u64,
}

fn frame(topics: &[&str], payload: usize) -> Frame {
    let mut body = BytesMut::new();
    for topic in topics {
        let message = Envelope { topic: (*topic).into(), payload: vec![1; payload].into(), ..Envelope::default() };
        frame::encode(&mut body, &message);
    }
    let body = body.freeze();
    let runs = frame::walk(&body).map(|w| w.runs).unwrap_or_default();
    Frame { body, runs, count: topics.len() as u64 }
}

struct Rig {
    engine: Engine,
    fx: Count,
    facts: Arc<Facts>,
    now: Now,
    next: Seq,
}

impl Rig {
    fn new() -> Option<Self> {
        let sender = Arc::new(Sender { agent: "planner".parse().ok()?, incarnation: Incarnation(1) });
        Some(Self {
            engine: Engine::new(EngineConfig::default()),
            fx: Count::default(),
            facts: Arc::new(Facts { epoch: 1, stored_at: Timestamp(1), sender, flags: 0 }),
            now: Now { mono_ms: 1, wall: Timestamp(1) },
            next: 1,
        })
    }

    fn subscribe(&mut self, id: u64, filter: &str) -> Option<()> {
        let def = SubscriptionDef {
            id: SubscriptionId(id),
            name: SubscriptionName::user(&format!("s{id}")).ok()?,
            filters: [filter.parse().ok()?].into(),
            ack_wait: limits::LEASE,
            retry_schedule: limits::RETRY_SCHEDULE.into(),
            max_attempts: limits::MAX_ATTEMPTS,
            dead_letters: DeadLetterPolicy::Keep,
            max_leased: limits::MAX_LEASED,
            ephemeral: false,
        };
        self.engine.subscribe(def, self.next, self.now);
        Some(())
    }

    fn connect(&mut self, id: u64) -> Option<SessionKey> {
        let def = SessionDef {
            token: [1; 16],
            agent: "worker".parse().ok()?,
            incarnation: Incarnation(1),
            credit: Credit { messages: limits::CREDIT_MESSAGES_MAX, bytes: limits::CREDIT_BYTES_MAX },
            resume_delivery: None,
        };
        let connected = self.engine.connect(SubscriptionId(id), def, self.now, &mut self.fx).ok()?;
        Some(connected.session)
    }

    fn append(&mut self, frame: &Frame) {
        self.engine.appended(self.next, &frame.body, &frame.runs, &self.facts, self.now, &mut self.fx);
        self.next += frame.count;
    }

    fn ack(&mut self, session: SessionKey, first_seq: Seq, count: u32) {
        self.engine.settle(session, Settlement::Ack(SeqRange { first_seq, count }), self.now, &mut self.fx);
    }

    fn journal(&mut self) -> usize {
        let mut bytes = 0;
        while let Some((mark, piece)) = self.engine.take_journal() {
            bytes += piece.len();
            self.engine.journal_durable(mark, &mut self.fx);
        }
        bytes
    }
}

/// Nanoseconds per operation: the median of eleven rounds.
fn measure(name: &str, mut round: impl FnMut() -> (u64, u128)) {
    let mut figures: Vec<f64> = (0..11)
        .map(|_| {
            let (ops, ns) = round();
            ns as f64 / ops as f64
        })
        .collect();
    figures.sort_by(f64::total_cmp);
    println!("{name:<66} {:>9.1} ns   [{:.1} - {:.1}]", figures[5], figures[0], figures[10]);
}

fn timed(f: impl FnOnce()) -> u128 {
    let start = Instant::now();
    f();
    start.elapsed().as_nanos()
}

/// Appends and acks of frames of `count` messages, acks of `acked` at once, timed apart.
fn live(count: usize, acked: u32, subscribers: u64) -> Option<()> {
    let frame = frame(&vec!["work.items"; count], 256);
    for ack in [false, true] {
        let mut rig = Rig::new()?;
        let mut sessions = Vec::new();
        for id in 1..=subscribers {
            rig.subscribe(id, "work.items")?;
            sessions.push(rig.connect(id)?);
        }
        let frames = 32_768 / count as u64;
        let name = if ack {
            format!("ack of {acked}, leased in frames of {count}")
        } else {
            format!("appended, frame of {count}, {subscribers} subscriber(s)")
        };
        measure(&name, || {
            let first = rig.next;
            // A frame a microsecond: leases of a millisecond are alike.
            let appends = timed(|| {
                for i in 0..frames {
                    rig.now.mono_ms += u64::from(i % 1000 == 0);
                    rig.append(&frame);
                }
            });
            let acks = (frames * count as u64) / u64::from(acked);
            let settles = timed(|| {
                for i in 0..acks {
                    for session in &sessions {
                        rig.ack(*session, first + i * u64::from(acked), acked);
                    }
                }
            });
            rig.journal();
            assert_eq!(rig.engine.floor(), rig.next, "all is settled");
            if ack { (acks * subscribers, settles) } else { (frames, appends) }
        });
    }
    Some(())
}

/// One message to each of many inboxes in turn.
fn inboxes(count: u64, online: bool) -> Option<()> {
    let mut rig = Rig::new()?;
    let frames: Vec<_> = (0..count).map(|i| frame(&[&format!("$acb.inbox.agent-{i}")], 256)).collect();
    let mut sessions = Vec::new();
    for i in 0..count {
        rig.subscribe(i + 1, &format!("$acb.inbox.agent-{i}"))?;
        if online {
            sessions.push(rig.connect(i + 1)?);
        }
    }
    rig.journal();
    let state = if online { "online, ack not counted" } else { "asleep" };
    measure(&format!("appended, frame of 1, to one of {count} inboxes ({state})"), || {
        let first = rig.next;
        // Not in the order in which they were made.
        let order: Vec<usize> = (0..count).map(|i| (i * 7919 % count) as usize).collect();
        let ns = timed(|| {
            for i in &order {
                rig.append(&frames[*i]);
            }
        });
        for (at, i) in order.iter().enumerate().filter(|_| online) {
            rig.ack(sessions[*i], first + at as u64, 1);
        }
        (count, ns)
    });
    if online {
        measure("the same with 1,000 wildcard filters elsewhere", || {
            for i in 0..1000 {
                let _ = rig.subscribe(1_000_000 + i, &format!("jobs.{i}.*"));
            }
            let first = rig.next;
            let ns = timed(|| (0..count as usize).for_each(|i| rig.append(&frames[i])));
            for (i, session) in sessions.iter().enumerate() {
                rig.ack(*session, first + i as u64, 1);
            }
            (count, ns)
        });
        measure(&format!("journal of {count} inboxes with a new floor each, per inbox"), || {
            for i in 0..count as usize {
                rig.append(&frames[i]);
                rig.ack(sessions[i], rig.next - 1, 1);
            }
            let ns = timed(|| {
                black_box(rig.journal());
            });
            (count, ns)
        });
    }
    Some(())
}

/// A backlog read in blocks of 256 KiB.
fn backlog() -> Option<()> {
    let frame = frame(&["work.items"; 128], 256);
    let mut rig = Rig::new()?;
    rig.subscribe(1, "work.items")?;
    let session = rig.connect(1)?;
    rig.engine.credit(session, Credit::default(), rig.now, &mut rig.fx);
    measure("plan and commit of 7 runs of 128 from the log, per message", || {
        let first = rig.next;
        let blocks = 60u64;
        for _ in 0..blocks * 7 {
            rig.append(&frame);
        }
        let credit = Credit { messages: limits::CREDIT_MESSAGES_MAX, bytes: limits::CREDIT_BYTES_MAX };
        rig.engine.credit(session, credit, rig.now, &mut rig.fx);
        let mut at = first;
        let ns = timed(|| {
            for _ in 0..blocks {
                let Some(plan) = rig.engine.plan(session, rig.now) else { return };
                let mut block = ReadBlock { next_seq: at + 7 * 128, ..ReadBlock::default() };
                for _ in 0..7 {
                    block.runs.push(StoredRun {
                        first_seq: at,
                        count: 128,
                        topic: frame.runs[0].topic.clone(),
                        body: frame.body.clone(),
                        facts: Arc::clone(&rig.facts),
                    });
                    at += 128;
                }
                rig.engine.commit(plan, block, rig.now, &mut rig.fx);
            }
        });
        assert_eq!(at, rig.next, "all is read");
        rig.ack(session, first, (at - first) as u32);
        rig.engine.credit(session, Credit::default(), rig.now, &mut rig.fx);
        rig.journal();
        (blocks * 7 * 128, ns)
    });
    Some(())
}

/// 65,536 leases that end at one moment, whole and full of holes.
fn expiry(holes: bool) {
    let frame = frame(&["work.items"; 128], 256);
    let name = if holes { "32,768 leases with a hole after each" } else { "65,536 leases" };
    measure(&format!("{name} end at once, per message"), || {
        let Some(mut rig) = Rig::new() else { return (1, 0) };
        let _ = rig.subscribe(1, "work.items");
        let Some(session) = rig.connect(1) else { return (1, 0) };
        for _ in 0..512 {
            rig.append(&frame);
        }
        if holes {
            for seq in (1..65_536).step_by(2) {
                rig.ack(session, seq, 1);
            }
        }
        rig.now.mono_ms += 30_000;
        let ns = timed(|| rig.engine.advance(rig.now, &mut rig.fx));
        let ended = rig.engine.totals().leases_ended;
        (ended.max(1), ns)
    });
}

fn main() {
    let done = [
        live(128, 512, 1),
        live(512, 512, 1),
        live(128, 1, 1),
        live(1, 512, 1),
        live(1, 1, 1),
        live(128, 512, 8),
        inboxes(20_000, false),
        inboxes(20_000, true),
        inboxes(10, true),
        backlog(),
    ];
    assert!(done.iter().all(Option::is_some), "a case could not be set up");
    expiry(false);
    expiry(true);
}
