//! Clients that take and do not give: who reads slowly or not at all, and who floods. Others are served meanwhile, and
//! what the server keeps for them has a bound.

use std::time::Duration;

use acb_proto::v1;
use acb_testkit::{
    Server, ServerOptions,
    proxy::{Fault, Proxy, Way},
    raw::{ConsumeSession, Identity, Opening, PublishSession, RawClient, answer},
    wait::{PATIENCE, within},
};
use acb_types::limits;
use tokio::time::Instant;

use super::support::{
    Code, bytes, client, consume_open, good, is, metric, options, producer, publish_open, resident, session_id,
};

const RATE_LIMITED: Code = (501, "rate_limited");
/// Longest that a bystander may wait for one round trip while somebody else misbehaves. Ordinary ones take milliseconds;
/// the rest is for a machine that does other things as well.
const BYSTANDER_MAX: Duration = Duration::from_secs(2);
/// What a client that does not read may cost: its credit in bytes, its two windows of HTTP/2, and what the allocator
/// does not give back.
const DEAF_BYTES_MAX: u64 = limits::CREDIT_BYTES + (4 << 20) + (1 << 20) + (40 << 20);
/// How often silent connections are asked, and how long they have to answer.
const ASKED_EVERY: &str = "edge.keep_alive_interval=1s";
const ANSWERS_WITHIN: &str = "edge.keep_alive_timeout=2s";
/// Longest until a deaf connection is cut: both of the above, and room for a busy machine.
const CUT_WITHIN: Duration = Duration::from_secs(20);

fn watchful() -> ServerOptions {
    let set = |options: ServerOptions, what: &str| options.arg("--set").arg(what);
    set(set(options().real_clock(), ASKED_EVERY), ANSWERS_WITHIN).env("ACB_LOG_FILTER", "info,acb_server::edge=debug")
}

fn opening(credit: u32) -> Opening {
    Opening {
        ephemeral: Some(v1::SubscriptionSpec { filters: vec!["load.>".to_owned()], ..Default::default() }),
        session: session_id(),
        credit_messages: credit,
        credit_bytes: limits::CREDIT_BYTES,
        ..Default::default()
    }
}

/// A publisher and a consumer that behave; answers with their slowest round trip.
struct Bystander {
    producer: PublishSession,
    consumer: ConsumeSession,
}

impl Bystander {
    async fn start(server: &Server) -> Self {
        let bus = client(server, "bystander").await;
        Self {
            producer: producer(&bus).await,
            consumer: ConsumeSession::open(&bus, &opening(limits::CREDIT_MESSAGES)).await.unwrap(),
        }
    }

    /// Sends so many messages of a size, one after the other, each acknowledged, delivered and settled.
    async fn round_trips(&mut self, count: usize, size: usize) -> Duration {
        let mut slowest = Duration::ZERO;
        for _ in 0..count {
            let started = Instant::now();
            let message = v1::Message { payload: vec![7; size].into(), ..good("load.by") };
            self.producer.publish(vec![message], v1::Durability::Memory).await.unwrap();
            loop {
                let got = self.consumer.message().await.unwrap();
                let ack = vec![acb_testkit::raw::one(got.seq)];
                self.consumer.send(v1::ConsumeRequest { acks: ack, ..Default::default() }).await.unwrap();
                if got.message.topic == "load.by" {
                    break;
                }
            }
            slowest = slowest.max(started.elapsed());
        }
        slowest
    }
}

/// A consumer behind a proxy through which, from now on, bytes come down as the fault says.
async fn deaf_consumer(server: &Server, fault: Fault) -> (Proxy, ConsumeSession) {
    let proxy = Proxy::start(server.address()).await.unwrap();
    let bus = RawClient::connect(proxy.address(), &Identity::dev("default", "deaf")).await.unwrap();
    let session = ConsumeSession::open(&bus, &opening(limits::CREDIT_MESSAGES_MAX)).await.unwrap();
    proxy.set(Way::Down, fault);
    (proxy, session)
}

async fn does_not_hurt(fault: Fault) {
    let server = watchful().start().await.unwrap();
    let mut bystander = Bystander::start(&server).await;
    bystander.round_trips(200, 64 * 1024).await;
    let before = resident(&server);
    let (_proxy, _session) = deaf_consumer(&server, fault).await;
    // Four times what the deaf one may have at once.
    let count = (4 * limits::CREDIT_BYTES / (64 * 1024)) as usize;
    let slowest = bystander.round_trips(count, 64 * 1024).await;
    assert!(slowest < BYSTANDER_MAX, "a bystander waited {slowest:?}");
    let grown = resident(&server).saturating_sub(before);
    eprintln!("slowest round trip of a bystander {slowest:?}; the server grew by {} KiB", grown / 1024);
    assert!(grown <= DEAF_BYTES_MAX, "the server grew by {} KiB", grown / 1024);
    // It hears the question as little as anything else, and is cut for want of an answer; or, when even the last word to
    // it cannot be said, for taking nothing.
    metric(&server, "acb_connections", CUT_WITHIN, |n| n <= 1.0).await;
    let log = server.log().unwrap();
    assert!(log.contains("keep-alive timed out") || log.contains("the peer took nothing for 3 s"), "{log}");
    assert!(bystander.round_trips(10, 100).await < BYSTANDER_MAX);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_reads_one_byte_a_second_is_cut_by_the_keep_alive_and_hurts_nobody() {
    does_not_hurt(Fault { bytes_per_second: 1, ..Fault::default() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_reads_nothing_is_cut_by_the_keep_alive_and_hurts_nobody() {
    does_not_hurt(Fault { hold: true, ..Fault::default() }).await;
}

/// What is kept for a consumer that does not read is bounded by the credit that it granted (64 MiB can be granted), with
/// its buffers' spare room, and the cut gives it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_asks_for_much_and_reads_nothing_costs_its_credit_and_no_more() {
    const CREDIT: u64 = 32 << 20;
    /// A message's buffer may be twice its size: it grew while it was received.
    const SPARE: u64 = 3;
    let server = watchful().start().await.unwrap();
    let proxy = Proxy::start(server.address()).await.unwrap();
    let bus = RawClient::connect(proxy.address(), &Identity::dev("default", "greedy")).await.unwrap();
    let greedy = Opening { credit_bytes: CREDIT, ..opening(limits::CREDIT_MESSAGES_MAX) };
    let _session = ConsumeSession::open(&bus, &greedy).await.unwrap();
    let mut bystander = Bystander::start(&server).await;
    bystander.round_trips(20, 256 * 1024).await;
    let before = resident(&server);
    proxy.set(Way::Down, Fault { hold: true, ..Fault::default() });
    // Four times what it has credit for.
    bystander.round_trips((4 * CREDIT / (256 * 1024)) as usize, 256 * 1024).await;
    let grown = resident(&server).saturating_sub(before);
    eprintln!("with a credit of {} KiB the server grew by {} KiB", CREDIT / 1024, grown / 1024);
    assert!(grown <= SPARE * CREDIT + DEAF_BYTES_MAX, "the server grew by {} KiB", grown / 1024);
    metric(&server, "acb_connections", CUT_WITHIN, |n| n <= 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_reads_no_answer_hurts_nobody_and_is_cut() {
    let server = watchful().start().await.unwrap();
    let mut bystander = Bystander::start(&server).await;
    bystander.round_trips(20, 1024).await;
    let proxy = Proxy::start(server.address()).await.unwrap();
    let bus = RawClient::connect(proxy.address(), &Identity::dev("default", "deaf")).await.unwrap();
    let mut stream = bus.hot(acb_proto::PUBLISH_STREAM).await.unwrap();
    stream.send(bytes(&publish_open())).await.unwrap();
    stream.next_within(PATIENCE).await.unwrap();
    let before = resident(&server);
    proxy.set(Way::Down, Fault { hold: true, ..Fault::default() });
    // It publishes on until it is cut: sends wait where nobody reads, so they are given a bound.
    let flood = tokio::spawn(async move {
        let mut counter = 1;
        loop {
            let frame = v1::PublishStreamRequest {
                counter,
                durability: v1::Durability::Memory as i32,
                messages: vec![good("flood.x"); 64],
                ..Default::default()
            };
            counter += 64;
            match tokio::time::timeout(CUT_WITHIN, stream.send(bytes(&frame))).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return counter,
            }
        }
    });
    let slowest = bystander.round_trips(200, 1024).await;
    assert!(slowest < BYSTANDER_MAX, "a bystander waited {slowest:?}");
    let grown = resident(&server).saturating_sub(before);
    eprintln!("slowest round trip of a bystander {slowest:?}; the server grew by {} KiB", grown / 1024);
    assert!(grown <= DEAF_BYTES_MAX, "the server grew by {} KiB", grown / 1024);
    metric(&server, "acb_connections", CUT_WITHIN * 2, |n| n <= 1.0).await;
    flood.abort();
    assert!(bystander.round_trips(10, 100).await < BYSTANDER_MAX);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_frames_leaves_room_for_others() {
    let server = options().real_clock().start().await.unwrap();
    let mut bystander = Bystander::start(&server).await;
    bystander.round_trips(20, 1024).await;
    let before = resident(&server);
    let mut flooders = tokio::task::JoinSet::new();
    for i in 0..4 {
        let bus =
            RawClient::connect(server.address(), &Identity::dev("default", format!("flooder-{i}"))).await.unwrap();
        let mut session = producer(&bus).await;
        flooders.spawn(async move {
            // As many frames on the way as the stream takes, never waiting for one answer.
            loop {
                session.send(vec![good("flood.x"); 512], v1::Durability::Memory).await.unwrap();
                while session.stream().next_within(Duration::ZERO).await.is_ok() {}
            }
        });
    }
    let slowest = bystander.round_trips(100, 1024).await;
    eprintln!("slowest round trip of a bystander {slowest:?}");
    assert!(slowest < BYSTANDER_MAX, "a bystander waited {slowest:?}");
    let grown = resident(&server).saturating_sub(before);
    assert!(grown <= DEAF_BYTES_MAX, "the server grew by {} KiB", grown / 1024);
    flooders.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_calls_meets_the_rate_limit_and_others_do_not() {
    const CALLS: usize = 1500;
    let server = options().with_credentials().real_clock().start().await.unwrap();
    let screen = server.log().unwrap();
    let key = screen.split_whitespace().find(|w| w.starts_with("acb_default_")).unwrap().to_owned();
    let anybody = RawClient::connect(server.address(), &Identity::None).await.unwrap();
    let login = |agent: &str| {
        let request = v1::LoginRequest { enrolment_key: key.clone(), agent_id: agent.to_owned(), ..Default::default() };
        let mut auth = anybody.auth();
        async move { answer(auth.login(request)).await.unwrap().tokens.unwrap().access_token }
    };
    let flooder = RawClient::connect(server.address(), &Identity::Token(login("flooder").await)).await.unwrap();
    let other = RawClient::connect(server.address(), &Identity::Token(login("other").await)).await.unwrap();
    let call = |bus: &RawClient| {
        let mut agents = bus.agents();
        async move { answer(agents.discover_agents(v1::DiscoverAgentsRequest::default())).await }
    };
    let started = Instant::now();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..CALLS {
        calls.spawn(call(&flooder));
    }
    let mut slowest = Duration::ZERO;
    let mut outcomes = Vec::new();
    while outcomes.len() < CALLS {
        let begun = Instant::now();
        call(&other).await.unwrap();
        slowest = slowest.max(begun.elapsed());
        outcomes.push(within("a call", PATIENCE, calls.join_next()).await.unwrap().unwrap().unwrap());
        while let Some(outcome) = calls.try_join_next() {
            outcomes.push(outcome.unwrap());
        }
    }
    let taken = outcomes.iter().filter(|o| o.is_ok()).count() as u64;
    for failure in outcomes.into_iter().filter_map(Result::err) {
        is("a call over the rate", &failure, RATE_LIMITED);
        assert!(failure.details.unwrap().retry_after_ms > 0, "without a hint");
    }
    let rate = u64::from(limits::CALLS_PER_MINUTE);
    let refilled = (started.elapsed().as_millis() as u64 * rate).div_ceil(60_000) + 1;
    assert!((rate..=rate + refilled).contains(&taken), "{taken} calls were taken in {:?}", started.elapsed());
    assert!(slowest < BYSTANDER_MAX, "another's call took {slowest:?}");
    // The hot streams have flow control of their own: the limit of calls does not stop them.
    let mut stream = flooder.hot(acb_proto::CONSUME).await.unwrap();
    stream.send(bytes(&consume_open("t"))).await.unwrap();
    stream.next_within(PATIENCE).await.unwrap();
}
