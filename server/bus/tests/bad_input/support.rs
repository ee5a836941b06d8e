//! The real server, clients that speak to it byte by byte, and the proof that a refusal left nothing behind.

use std::time::Duration;

use acb_proto::v1;
use acb_testkit::{
    Server, ServerOptions,
    raw::{Failure, HotStream, Identity, Outcome, PublishSession, RawClient, answer},
};
use acb_types::ErrorCode;
use bytes::Bytes;

/// Number and name of an error, as `conformance/error_codes.yaml` has them.
pub(crate) type Code = (u16, &'static str);

/// Checks that a refusal is typed: the name is the one that is expected and has that number in the table, and the error
/// agrees with the table about being worth a repeat.
#[track_caller]
pub(crate) fn is(what: &str, failure: &Failure, (number, name): Code) {
    assert_eq!(failure.code, name, "{what}: {failure}");
    let code: ErrorCode = name.parse().unwrap();
    assert_eq!(code.number(), number, "{what}: the table has another number for {name}");
    assert_eq!(failure.retryable, code.retryable(), "{what}: {failure}");
    assert!(!failure.message.is_empty(), "{what}: an error without a sentence");
}

/// As [`is`], of a call that must have failed.
#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(what: &str, outcome: Result<T, Failure>, code: Code) {
    match outcome {
        Err(failure) => is(what, &failure, code),
        Ok(taken) => panic!("{what} was taken: {taken:?}"),
    }
}

/// A server that asks for no credentials, on a clock that stands.
pub(crate) async fn dev() -> Server {
    options().start().await.unwrap()
}

/// How every server of these tests is started: this build's own program.
pub(crate) fn options() -> ServerOptions {
    ServerOptions::default().program(env!("CARGO_BIN_EXE_acb-server"))
}

/// A client of a server with `--dev`.
pub(crate) async fn client(server: &Server, agent: &str) -> RawClient {
    RawClient::connect(server.address(), &Identity::dev("default", agent)).await.unwrap()
}

/// Registers an agent; answers with its incarnation.
pub(crate) async fn register(client: &RawClient, id: &str) -> Result<u64, Failure> {
    let spec = Some(v1::AgentSpec { id: id.to_owned(), ..Default::default() });
    let request = v1::RegisterAgentRequest { spec };
    Ok(answer(client.agents().register_agent(request)).await?.agent.unwrap().incarnation)
}

/// Sends a message by the unary call.
pub(crate) async fn send(client: &RawClient, message: v1::Message) -> Result<v1::SendResponse, Failure> {
    let request = v1::SendRequest { message: Some(message), durability: v1::Durability::Written as i32 };
    answer(client.messages().send(request)).await
}

/// A good message.
pub(crate) fn good(topic: &str) -> v1::Message {
    v1::Message { topic: topic.to_owned(), payload: Bytes::from_static(b"good"), ..Default::default() }
}

/// Opens a producer session of its own.
pub(crate) async fn producer(client: &RawClient) -> PublishSession {
    PublishSession::open(client, session_id(), 1, 0).await.unwrap()
}

/// 16 bytes that nobody else has in this test.
pub(crate) fn session_id() -> [u8; 16] {
    uuid::Uuid::new_v4().into_bytes()
}

/// What a refusal must not move: how many messages were stored, in all logs together, and the next seq of the topics' log.
#[derive(Debug)]
pub(crate) struct Log {
    stored: f64,
    seq: u64,
}

impl Log {
    /// Stores a good message and notes where it is.
    pub(crate) async fn mark(server: &Server, client: &RawClient) -> Self {
        let seq = probe(client).await;
        Self { stored: stored(server).await, seq }
    }

    /// Checks that exactly so many messages were stored since the mark, and that the next one, on the same connection,
    /// gets the seq behind them.
    pub(crate) async fn grew_by(self, count: u64, server: &Server, client: &RawClient) {
        let now = stored(server).await;
        assert_eq!(now - self.stored, count as f64, "messages stored since the mark");
        assert_eq!(probe(client).await, self.seq + count + 1, "the seq behind what was stored");
    }

    /// Checks that nothing was stored since the mark.
    pub(crate) async fn stands(self, server: &Server, client: &RawClient) {
        self.grew_by(0, server, client).await;
    }
}

async fn probe(client: &RawClient) -> u64 {
    let id = send(client, good("probe")).await.unwrap().message_id;
    id.rsplit('-').next().unwrap().parse().unwrap()
}

/// Messages that were stored since the start.
pub(crate) async fn stored(server: &Server) -> f64 {
    server.admin().metrics().await.unwrap().sum("acb_messages_in_total", &[])
}

/// What became of a message that must have been refused.
#[track_caller]
pub(crate) fn refusal(what: &str, outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Refused(failure) => failure,
        Outcome::Stored(at) => panic!("{what} was stored: {at:?}"),
    }
}

/// Opens a hot stream and sends these frames; answers with what the stream ended with. Frames that come before the end
/// are passed over.
pub(crate) async fn end_of(client: &RawClient, path: &'static str, frames: Vec<Bytes>) -> Result<(), Failure> {
    let mut stream = client.hot(path).await?;
    for frame in frames {
        // The server may have ended the stream already.
        let _ = stream.send(frame).await;
    }
    drain(&mut stream).await
}

/// Reads a stream to its end.
pub(crate) async fn drain(stream: &mut HotStream) -> Result<(), Failure> {
    while stream.next_within(acb_testkit::wait::PATIENCE).await?.is_some() {}
    Ok(())
}

/// Waits until the server has seen the end of a subscription's last consumer: from then on its grace runs.
pub(crate) async fn nobody_consumes(bus: &RawClient, subscription: &str) {
    let look = || async {
        let request = v1::GetSubscriptionRequest { name: subscription.to_owned() };
        let row = answer(bus.subscriptions().get_subscription(request)).await.unwrap().subscription.unwrap();
        acb_testkit::wait::Level::when(row.consumers == 0, (), row.consumers)
    };
    acb_testkit::wait::wait_until("the last consumer's end", acb_testkit::wait::PATIENCE, look).await.unwrap();
}

/// The frame that opens a producer session.
pub(crate) fn publish_open() -> v1::PublishStreamRequest {
    let open = v1::PublishOpen { producer_id: session_id().to_vec().into(), epoch: 1, incarnation: 0 };
    v1::PublishStreamRequest { open: Some(open), ..Default::default() }
}

/// The frame that opens a consumer session of an ephemeral subscription.
pub(crate) fn consume_open(filter: &str) -> v1::ConsumeRequest {
    let spec = v1::SubscriptionSpec { filters: vec![filter.to_owned()], ..Default::default() };
    let open = v1::ConsumeOpen {
        ephemeral: Some(spec),
        session_id: session_id().to_vec().into(),
        credit: Some(v1::Credit { messages: 64, bytes: 1 << 20 }),
        ..Default::default()
    };
    v1::ConsumeRequest { open: Some(open), ..Default::default() }
}

/// A frame as bytes.
pub(crate) fn bytes(frame: &impl prost::Message) -> Bytes {
    frame.encode_to_vec().into()
}

/// A number in protobuf's own spelling.
pub(crate) fn varint(mut n: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out
}

/// A field of bytes, whatever they are.
pub(crate) fn field(number: u64, value: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

/// A frame of a publisher with messages that are bytes, whatever they are.
pub(crate) fn publish_frame(counter: u64, messages: &[Vec<u8>]) -> Bytes {
    let mut out = [vec![0x18], varint(counter), vec![0x20, v1::Durability::Written as u8]].concat();
    for message in messages {
        out.extend(field(15, message));
    }
    out.into()
}

/// Waits that a count of the server reaches a level.
pub(crate) async fn metric(server: &Server, name: &str, within: Duration, reached: impl Fn(f64) -> bool) -> f64 {
    let admin = server.admin();
    let look = || async {
        match admin.metrics().await {
            Ok(all) => {
                let value = all.sum(name, &[]);
                acb_testkit::wait::Level::when(reached(value), value, value)
            }
            Err(error) => acb_testkit::wait::Level::not_yet(error),
        }
    };
    acb_testkit::wait::wait_until(name, within, look).await.unwrap()
}

/// Memory of a process that is in RAM, in bytes.
pub(crate) fn resident(server: &Server) -> u64 {
    let pid = server.pid().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}
