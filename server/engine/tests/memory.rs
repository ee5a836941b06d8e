//! What state costs in resident memory. One test in a process of its own, so that nobody else's memory is counted.

use std::sync::Arc;

use acb_engine::{Credit, Death, Delivery, Effects, Engine, EngineConfig, SessionDef, SessionKey};
use acb_types::{
    AgentId, Envelope, ErrorCode, Incarnation, Now, SubscriptionId, SubscriptionName, Timestamp, Topic,
    batch::{DeadLetterPolicy, Facts, Gap, Sender, SubscriptionDef},
    frame, limits,
    position::Seq,
};
use bytes::BytesMut;

struct Nobody;

impl Effects for Nobody {
    fn deliver(&mut self, _: SessionKey, _: Delivery) {}
    fn kick(&mut self, _: SessionKey) {}
    fn settled(&mut self, _: SessionKey, _: Seq, _: u32, _: Result<(), ErrorCode>) {}
    fn gap(&mut self, _: SessionKey, _: Gap) {}
    fn die(&mut self, _: Death) {}
}

/// Resident memory of this process, in bytes.
#[expect(clippy::unwrap_used, reason = "a test's helper")]
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn idle_subscriptions_and_sleeping_ones_cost_what_they_should() {
    const SUBSCRIPTIONS: u64 = 100_000;
    const MESSAGES: u64 = 5_000_000;
    let now = Now { mono_ms: 1, wall: Timestamp(1) };
    let schedule: Arc<[_]> = limits::RETRY_SCHEDULE.into();
    // Definitions live in the registry, too, and share their texts with the engine's copies.
    let defs: Vec<_> = (0..SUBSCRIPTIONS)
        .map(|i| {
            let agent: AgentId = format!("agent-{i}").parse().unwrap();
            SubscriptionDef {
                id: SubscriptionId(i + 1),
                name: SubscriptionName::inbox(&agent),
                filters: [Topic::inbox(&agent).into(), Topic::all().into()].into(),
                ack_wait: limits::LEASE,
                retry_schedule: Arc::clone(&schedule),
                max_attempts: limits::MAX_ATTEMPTS,
                dead_letters: DeadLetterPolicy::Keep,
                max_leased: limits::MAX_LEASED,
                ephemeral: false,
            }
        })
        .collect();
    let before = resident();
    let mut engine = Engine::new(EngineConfig::default());
    for def in &defs {
        engine.subscribe(def.clone(), 1, now);
    }
    while let Some((mark, _)) = engine.take_journal() {
        engine.journal_durable(mark, &mut Nobody);
    }
    let each = (resident() - before) / SUBSCRIPTIONS;
    println!("{each} bytes for each idle inbox");
    assert!(each < 400, "{each} bytes for each idle inbox");

    // One consumer came, took what it had credit for, and fell asleep; another never came.
    let session = SessionDef {
        token: [1; 16],
        agent: "agent-1".parse().unwrap(),
        incarnation: Incarnation(1),
        credit: Credit { messages: 64, bytes: 8 << 20 },
        resume_delivery: None,
    };
    engine.connect(SubscriptionId(2), session, now, &mut Nobody).unwrap();
    let mut body = BytesMut::new();
    for _ in 0..512 {
        let message =
            Envelope { topic: "$acb.inbox.agent-1".into(), payload: vec![7; 64].into(), ..Envelope::default() };
        frame::encode(&mut body, &message);
    }
    let body = body.freeze();
    let runs = frame::walk(&body).unwrap().runs;
    let sender = Arc::new(Sender { agent: "agent-2".parse().unwrap(), incarnation: Incarnation(1) });
    let facts = Arc::new(Facts { epoch: 1, stored_at: Timestamp(1), sender, flags: 0 });
    let mut next = 1;
    let mut append = |engine: &mut Engine| {
        engine.appended(next, &body, &runs, &facts, now, &mut Nobody);
        next += 512;
    };
    append(&mut engine);
    let before = resident();
    for _ in 0..MESSAGES / 512 {
        append(&mut engine);
    }
    let grown = resident().saturating_sub(before);
    println!("{grown} bytes for {MESSAGES} messages behind a sleeper");
    assert!(grown < 1 << 20, "{grown} bytes for {MESSAGES} messages behind a sleeper");
    let counts = engine.counts(SubscriptionId(2)).unwrap();
    assert_eq!((counts.leased, counts.cursor, counts.floor), (64, 65, 1));
    assert_eq!(engine.counts(SubscriptionId(1)).unwrap().floor, next);
}
