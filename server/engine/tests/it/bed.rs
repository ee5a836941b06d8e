//! A log, a clock and a recorder around one engine: the runner that tests drive by hand.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use acb_engine::{
    Connected, Credit, Death, Delivery, Effects, Engine, EngineConfig, MessageState, Plan, SeqRange, SessionDef,
    SessionKey, Settlement,
};
use acb_types::{
    AgentId, Envelope, ErrorCode, Incarnation, Now, SubscriptionId, SubscriptionName, Timestamp, TopicFilter,
    batch::{DeadLetterPolicy, Facts, Gap, ReadBlock, ReadRequest, Sender, StoredRun, SubscriptionDef},
    frame,
    position::Seq,
};
use bytes::{Bytes, BytesMut};

/// What an engine said, in order.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    Deliver(SessionKey, Delivery),
    Settled(SessionKey, Seq, u32, Result<(), ErrorCode>),
    Gap(SessionKey, Gap),
    Die(Death),
    Ended(SubscriptionId),
}

#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub(crate) said: Vec<Said>,
    pub(crate) kicks: VecDeque<SessionKey>,
}

impl Effects for Recorder {
    fn deliver(&mut self, session: SessionKey, delivery: Delivery) {
        self.said.push(Said::Deliver(session, delivery));
    }

    fn kick(&mut self, session: SessionKey) {
        self.kicks.push_back(session);
    }

    fn settled(&mut self, session: SessionKey, first_seq: Seq, count: u32, result: Result<(), ErrorCode>) {
        self.said.push(Said::Settled(session, first_seq, count, result));
    }

    fn gap(&mut self, session: SessionKey, gap: Gap) {
        self.said.push(Said::Gap(session, gap));
    }

    fn die(&mut self, death: Death) {
        self.said.push(Said::Die(death));
    }

    fn ended(&mut self, subscription: SubscriptionId) {
        self.said.push(Said::Ended(subscription));
    }
}

/// A stored message.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) seq: Seq,
    pub(crate) topic: Bytes,
    pub(crate) body: Bytes,
    pub(crate) facts: Arc<Facts>,
}

/// A log in memory, reading as the real one promises to.
#[derive(Clone, Debug)]
pub(crate) struct FakeLog {
    pub(crate) messages: Vec<Stored>,
    pub(crate) first_seq: Seq,
    pub(crate) next_seq: Seq,
}

impl FakeLog {
    pub(crate) fn new() -> Self {
        Self { messages: Vec::new(), first_seq: 1, next_seq: 1 }
    }

    pub(crate) fn get(&self, seq: Seq) -> Option<&Stored> {
        self.messages.binary_search_by_key(&seq, |m| m.seq).ok().map(|i| &self.messages[i])
    }

    pub(crate) fn read(&self, request: &ReadRequest) -> ReadBlock {
        let mut out = ReadBlock { next_seq: request.from_seq, ..ReadBlock::default() };
        if request.from_seq < self.first_seq {
            out.gap = Some(Gap { from_seq: request.from_seq, to_seq: self.first_seq });
            out.next_seq = self.first_seq;
        }
        let (mut count, mut bytes) = (0, 0);
        let from = self.messages.partition_point(|m| m.seq < out.next_seq);
        for m in &self.messages[from..] {
            if m.seq >= request.end_seq {
                break;
            }
            let topic = std::str::from_utf8(&m.topic).unwrap();
            if !request.filters.iter().any(|f| f.matches(topic)) {
                out.next_seq = m.seq + 1;
                continue;
            }
            if count == request.messages_max || (count > 0 && bytes + m.body.len() as u64 > request.bytes_max) {
                return out;
            }
            count += 1;
            bytes += m.body.len() as u64;
            out.next_seq = m.seq + 1;
            match out.runs.last_mut() {
                Some(run)
                    if run.topic == m.topic
                        && run.first_seq + u64::from(run.count) == m.seq
                        && Arc::ptr_eq(&run.facts, &m.facts) =>
                {
                    run.count += 1;
                    run.body = [&run.body[..], &m.body[..]].concat().into();
                }
                _ => out.runs.push(StoredRun {
                    first_seq: m.seq,
                    count: 1,
                    topic: m.topic.clone(),
                    body: m.body.clone(),
                    facts: Arc::clone(&m.facts),
                }),
            }
        }
        out.next_seq = out.next_seq.max(request.end_seq);
        out
    }
}

/// A subscription's rules, short enough for tests.
pub(crate) fn sub(id: u64, filters: &[&str]) -> SubscriptionDef {
    SubscriptionDef {
        id: SubscriptionId(id),
        name: SubscriptionName::user(&format!("s{id}")).unwrap(),
        filters: filters.iter().map(|f| f.parse::<TopicFilter>().unwrap()).collect(),
        ack_wait: Duration::from_secs(30),
        retry_schedule: [1000, 5000].map(Duration::from_millis).into(),
        max_attempts: 3,
        dead_letters: DeadLetterPolicy::Keep,
        max_leased: 65_536,
        ephemeral: false,
    }
}

pub(crate) fn credit(messages: u32) -> Credit {
    Credit { messages, bytes: 8 << 20 }
}

/// A session of an agent; the token follows from its number.
pub(crate) fn session(n: u8, messages: u32) -> SessionDef {
    SessionDef {
        token: [n; 16],
        agent: format!("agent-{n}").parse::<AgentId>().unwrap(),
        incarnation: Incarnation(1),
        credit: credit(messages),
        resume_delivery: None,
    }
}

pub(crate) fn range(first_seq: Seq, count: u32) -> SeqRange {
    SeqRange { first_seq, count }
}

/// What a message's payload is in these tests: its seq, and filling.
pub(crate) fn payload(seq: Seq, len: usize) -> Vec<u8> {
    let mut out = seq.to_le_bytes().to_vec();
    out.resize(out.len().max(len), 0xee);
    out
}

/// Seqs that a delivery's body says it holds.
pub(crate) fn seqs_in(delivery: &Delivery) -> Vec<Seq> {
    frame::messages(&delivery.body)
        .map(|m| {
            let payload = frame::decode(&m).unwrap().payload;
            u64::from_le_bytes(payload[..8].try_into().unwrap())
        })
        .collect()
}

/// One message to publish.
#[derive(Clone, Debug)]
pub(crate) struct Post<'a> {
    pub(crate) topic: &'a str,
    pub(crate) len: usize,
    pub(crate) expires_at: Timestamp,
}

impl<'a> Post<'a> {
    pub(crate) fn to(topic: &'a str) -> Self {
        Self { topic, len: 8, expires_at: Timestamp::NONE }
    }
}

/// Engine, log and clock.
#[derive(Debug)]
pub(crate) struct Bed {
    pub(crate) engine: Engine,
    pub(crate) log: FakeLog,
    pub(crate) fx: Recorder,
    pub(crate) now: Now,
}

impl Bed {
    pub(crate) fn new() -> Self {
        Self::with(EngineConfig::default())
    }

    pub(crate) fn with(config: EngineConfig) -> Self {
        Self {
            engine: Engine::new(config),
            log: FakeLog::new(),
            fx: Recorder::default(),
            now: Now { mono_ms: 5_000, wall: Timestamp(1_700_000_000_000) },
        }
    }

    pub(crate) fn subscribe(&mut self, def: SubscriptionDef) {
        self.engine.subscribe(def, self.log.next_seq, self.now);
    }

    pub(crate) fn connect(&mut self, id: u64, def: SessionDef) -> SessionKey {
        self.try_connect(id, def).unwrap().session
    }

    pub(crate) fn try_connect(&mut self, id: u64, def: SessionDef) -> Result<Connected, ErrorCode> {
        self.engine.connect(SubscriptionId(id), def, self.now, &mut self.fx)
    }

    /// Stores one batch and makes it visible.
    pub(crate) fn publish(&mut self, posts: &[Post<'_>]) -> Seq {
        let first = self.log.next_seq;
        let mut body = BytesMut::new();
        let mut ends = vec![0];
        for (i, post) in posts.iter().enumerate() {
            let message = Envelope {
                topic: post.topic.into(),
                payload: payload(first + i as u64, post.len).into(),
                expires_at: post.expires_at,
                ..Envelope::default()
            };
            frame::encode(&mut body, &message);
            ends.push(body.len());
        }
        let body = body.freeze();
        let walked = frame::walk(&body).unwrap();
        let sender = Arc::new(Sender { agent: "sender".parse().unwrap(), incarnation: Incarnation(1) });
        let facts = Arc::new(Facts { epoch: 1, stored_at: self.now.wall, sender, flags: walked.flags });
        for (i, post) in posts.iter().enumerate() {
            self.log.messages.push(Stored {
                seq: first + i as u64,
                topic: Bytes::copy_from_slice(post.topic.as_bytes()),
                body: body.slice(ends[i]..ends[i + 1]),
                facts: Arc::clone(&facts),
            });
        }
        self.log.next_seq += posts.len() as u64;
        self.engine.appended(first, &body, &walked.runs, &facts, self.now, &mut self.fx);
        first
    }

    pub(crate) fn publish_to(&mut self, topic: &str, count: usize) -> Seq {
        self.publish(&vec![Post::to(topic); count])
    }

    pub(crate) fn settle(&mut self, session: SessionKey, settlement: Settlement<'_>) {
        self.engine.settle(session, settlement, self.now, &mut self.fx);
    }

    pub(crate) fn ack(&mut self, session: SessionKey, first_seq: Seq, count: u32) {
        self.settle(session, Settlement::Ack(range(first_seq, count)));
    }

    pub(crate) fn nack(&mut self, session: SessionKey, first_seq: Seq, count: u32, reason: &str) {
        self.settle(session, Settlement::Nack { range: range(first_seq, count), delay: None, reason });
    }

    /// Moves both clocks and lets timers run.
    pub(crate) fn advance(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.wall.0 += ms;
        self.engine.advance(self.now, &mut self.fx);
        self.serve();
    }

    /// Reads for every session that was kicked, until nobody has anything to read.
    pub(crate) fn serve(&mut self) {
        while let Some(key) = self.fx.kicks.pop_front() {
            while let Some(plan) = self.engine.plan(key, self.now) {
                self.finish(plan);
            }
        }
    }

    pub(crate) fn finish(&mut self, plan: Plan) {
        let block = self.log.read(&plan.request);
        self.engine.commit(plan, block, self.now, &mut self.fx);
    }

    /// What was said since the last time.
    pub(crate) fn said(&mut self) -> Vec<Said> {
        self.serve();
        std::mem::take(&mut self.fx.said)
    }

    /// What was delivered since the last time: session, seqs, attempt. Checks that bodies hold what they should.
    pub(crate) fn delivered(&mut self) -> Vec<(SessionKey, Vec<Seq>, u32)> {
        let mut out = Vec::new();
        for said in self.said() {
            if let Said::Deliver(key, d) = said {
                let seqs: Vec<_> = (d.first_seq..d.first_seq + u64::from(d.count)).collect();
                assert_eq!(seqs_in(&d), seqs, "the body is another's");
                out.push((key, seqs, d.attempt));
            }
        }
        out
    }

    /// Seqs that were delivered since the last time.
    pub(crate) fn seqs(&mut self) -> Vec<Seq> {
        self.delivered().into_iter().flat_map(|d| d.1).collect()
    }

    /// Refusals and confirmations since the last time.
    pub(crate) fn answers(&mut self) -> Vec<(Seq, u32, Result<(), ErrorCode>)> {
        let said = self.said();
        said.into_iter()
            .filter_map(|s| if let Said::Settled(_, f, n, r) = s { Some((f, n, r)) } else { None })
            .collect()
    }

    pub(crate) fn deaths(&mut self) -> Vec<Death> {
        self.said().into_iter().filter_map(|s| if let Said::Die(d) = s { Some(d) } else { None }).collect()
    }

    pub(crate) fn gaps(&mut self) -> Vec<Gap> {
        self.said().into_iter().filter_map(|s| if let Said::Gap(_, g) = s { Some(g) } else { None }).collect()
    }

    pub(crate) fn status(&mut self, id: u64, seq: Seq) -> MessageState {
        let topic = self.log.get(seq).map(|m| String::from_utf8(m.topic.to_vec()).unwrap()).unwrap();
        let all = self.engine.status(&topic, seq, self.now);
        all.into_iter().find(|s| s.subscription == SubscriptionId(id)).unwrap()
    }

    /// Journals everything and says that it is durable.
    pub(crate) fn sync(&mut self) -> Vec<Bytes> {
        let mut out = Vec::new();
        let mut last = None;
        while let Some((mark, bytes)) = self.engine.take_journal() {
            out.push(bytes);
            last = Some(mark);
        }
        if let Some(mark) = last {
            self.engine.journal_durable(mark, &mut self.fx);
        }
        out
    }

    /// An engine that takes up from records.
    pub(crate) fn restart(&mut self, records: &[Bytes], defs: &[(SubscriptionDef, Seq)]) {
        self.engine = Engine::new(EngineConfig::default());
        self.fx = Recorder::default();
        self.engine.restore(records, defs, self.log.first_seq, self.log.next_seq, self.now).unwrap();
        self.engine.advance(self.now, &mut self.fx);
    }
}
