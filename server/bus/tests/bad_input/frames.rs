//! Frames of the hot streams that cannot be, and bytes of unary calls that are no request. A frame that can be counted is
//! answered message by message; one that cannot ends its stream with an error, and never the connection.

use acb_proto::v1;
use acb_testkit::raw::{ConsumeSession, Failure, Opening, Outcome, RawClient};
use acb_types::limits;
use bytes::Bytes;
use prost::Message as _;

use super::support::{
    Code, Log, bytes, client, consume_open, dev, end_of, field, good, is, nobody_consumes, producer, publish_frame,
    publish_open, refusal, refused, register, send, session_id,
};

const INVALID_ARGUMENT: Code = (100, "invalid_argument");
const INVALID_NAME: Code = (104, "invalid_name");
const INVALID_UTF8: Code = (105, "invalid_utf8");
const UNKNOWN_ENUM: Code = (106, "unknown_enum");
const MALFORMED: Code = (107, "malformed_frame");
const FRAME: Code = (108, "frame_too_large");
const FIELD: Code = (112, "field_too_large");
const MISSING: Code = (113, "missing_field");
const FILTER: Code = (117, "invalid_filter");
const NO_SUBSCRIPTION: Code = (202, "subscription_not_found");
const FENCED: Code = (302, "session_fenced");
const PRODUCER_FENCED: Code = (303, "producer_fenced");
const DURABILITY: Code = (404, "durability_unavailable");

const PUBLISH: &str = acb_proto::PUBLISH_STREAM;
const CONSUME: &str = acb_proto::CONSUME;

#[tokio::test]
async fn a_frame_of_too_many_messages_or_bytes_is_refused_whole_and_the_stream_goes_on() {
    let server = dev().await;
    let bus = client(&server, "sender").await;
    let mut session = producer(&bus).await;
    let many = vec![good("t"); limits::FRAME_MESSAGES_MAX as usize + 1];
    let half = v1::Message { payload: vec![7; limits::FRAME_BYTES_MAX / 2].into(), ..good("t") };
    for (what, messages) in [("513 messages", many), ("more than 256 KiB in two messages", vec![half.clone(), half])] {
        let log = Log::mark(&server, &bus).await;
        let outcomes = session.publish(messages, v1::Durability::Written).await.unwrap();
        for outcome in outcomes {
            is(what, &refusal(what, outcome), FRAME);
        }
        log.stands(&server, &bus).await;
        let outcomes = session.publish(vec![good("t")], v1::Durability::Written).await.unwrap();
        assert!(matches!(outcomes[..], [Outcome::Stored(_)]), "{what}: {outcomes:?}");
    }
    // The bounds themselves pass.
    let outcomes = session.publish(vec![good("t"); 512], v1::Durability::Written).await.unwrap();
    assert!(outcomes.iter().all(|o| matches!(o, Outcome::Stored(_))), "{outcomes:?}");
}

#[tokio::test]
async fn a_frame_of_many_bad_messages_is_refused_message_by_message_and_its_good_ones_before_the_bound_are_stored() {
    let server = dev().await;
    let bus = client(&server, "sender").await;
    let mut session = producer(&bus).await;
    let log = Log::mark(&server, &bus).await;
    // Every second one is bad: more of them than the server looks at one by one.
    let frame: Vec<_> = (0..100).map(|i| good(if i % 2 == 0 { "t" } else { "a..b" })).collect();
    let outcomes = session.publish(frame, v1::Durability::Written).await.unwrap();
    let mut stored = 0;
    for (i, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Outcome::Stored(_) => {
                assert_eq!(i % 2, 0, "message {i} is bad and was stored");
                stored += 1;
            }
            Outcome::Refused(failure) => is("a bad message, or one behind the bound", &failure, (101, "invalid_topic")),
        }
    }
    assert_eq!(stored, 16, "one before each bad message that is looked at by itself; behind them nothing is");
    log.grew_by(stored, &server, &bus).await;
}

/// Ends of hot streams: what is sent after a good opening, or instead of it, and what the stream ends with.
async fn each_ends_its_stream(cases: Vec<(&str, &'static str, Vec<Bytes>, Code)>) {
    let server = dev().await;
    let bus = client(&server, "sender").await;
    for (what, path, frames, code) in cases {
        let log = Log::mark(&server, &bus).await;
        refused(what, end_of(&bus, path, frames).await, code);
        // The same connection serves on, streams too.
        log.stands(&server, &bus).await;
    }
    let mut session = producer(&bus).await;
    let outcomes = session.publish(vec![good("t")], v1::Durability::Written).await.unwrap();
    assert!(matches!(outcomes[..], [Outcome::Stored(_)]), "{outcomes:?}");
}

fn publish(change: impl FnOnce(&mut v1::PublishStreamRequest)) -> Bytes {
    let mut frame = v1::PublishStreamRequest { counter: 1, messages: vec![good("t")], ..Default::default() };
    change(&mut frame);
    bytes(&frame)
}

fn publish_opened(change: impl FnOnce(&mut v1::PublishOpen)) -> Bytes {
    let mut frame = publish_open();
    change(frame.open.as_mut().unwrap());
    bytes(&frame)
}

#[tokio::test]
async fn a_publisher_that_speaks_out_of_turn_is_told_so_and_stores_nothing() {
    let open = || bytes(&publish_open());
    let token = |text: &str| Some(v1::Reauth { token: text.to_owned() });
    each_ends_its_stream(vec![
        ("messages before open", PUBLISH, vec![publish(|_| {})], MISSING),
        ("open twice", PUBLISH, vec![open(), open()], MALFORMED),
        ("no counter", PUBLISH, vec![open(), publish(|f| f.counter = 0)], MALFORMED),
        ("a durability that is none", PUBLISH, vec![open(), publish(|f| f.durability = 9)], UNKNOWN_ENUM),
        ("a negative durability", PUBLISH, vec![open(), publish(|f| f.durability = -1)], UNKNOWN_ENUM),
        (
            "a short producer id",
            PUBLISH,
            vec![publish_opened(|o| o.producer_id = vec![1; 15].into())],
            INVALID_ARGUMENT,
        ),
        ("a long producer id", PUBLISH, vec![publish_opened(|o| o.producer_id = vec![1; 17].into())], INVALID_ARGUMENT),
        ("no producer id", PUBLISH, vec![publish_opened(|o| o.producer_id = Bytes::new())], INVALID_ARGUMENT),
        (
            "a new token that is none",
            PUBLISH,
            vec![open(), publish(|f| f.reauth = token("junk"))],
            (603, "token_invalid"),
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_publishers_bytes_that_are_no_frame_end_its_stream_with_an_error() {
    let open = || bytes(&publish_open());
    let good_message = good("t").encode_to_vec();
    let mut cut = publish_frame(1, &[good_message.clone(), good_message.clone()]).to_vec();
    cut.truncate(cut.len() - 3);
    // A frame with a field of another version is decoded by the book, and must be sound for that.
    let of_tomorrow = |message: Vec<u8>| Bytes::from([vec![0x30, 1, 0x18, 1], field(15, &message)].concat());
    let bad_text = [field(1, b"t"), field(4, b"\xff\xfe")].concat();
    each_ends_its_stream(vec![
        ("garbage", PUBLISH, vec![open(), vec![0xff; 100].into()], MALFORMED),
        ("garbage instead of open", PUBLISH, vec![vec![0x0a, 0x7f, 1].into()], MALFORMED),
        ("a frame that ends inside a message", PUBLISH, vec![open(), cut.into()], MALFORMED),
        (
            "a length beyond any memory",
            PUBLISH,
            vec![open(), Bytes::from_static(b"\x7a\xff\xff\xff\xff\xff\xff\xff\xff\x7f")],
            MALFORMED,
        ),
        ("a text that is no UTF-8 in a frame of tomorrow", PUBLISH, vec![open(), of_tomorrow(bad_text)], INVALID_UTF8),
        ("a token that is no UTF-8", PUBLISH, vec![open(), field(2, &field(1, b"\xff")).into()], INVALID_UTF8),
        ("more than any frame has", PUBLISH, vec![open(), vec![0x7a; 3 << 20].into()], FRAME),
    ])
    .await;
}

#[tokio::test]
async fn a_level_that_is_not_there_is_refused_message_by_message() {
    let server = dev().await;
    let bus = client(&server, "sender").await;
    let mut session = producer(&bus).await;
    let log = Log::mark(&server, &bus).await;
    let outcomes = session.publish(vec![good("t"); 3], v1::Durability::Replicated).await.unwrap();
    for outcome in outcomes {
        is("replicated", &refusal("replicated", outcome), DURABILITY);
    }
    log.stands(&server, &bus).await;
}

#[tokio::test]
async fn an_older_producer_epoch_and_an_older_incarnation_are_fenced() {
    let server = dev().await;
    let bus = client(&server, "sender").await;
    let old = register(&bus, "sender").await.unwrap();
    let new = register(&bus, "sender").await.unwrap();
    let log = Log::mark(&server, &bus).await;
    let fenced = end_of(&bus, PUBLISH, vec![publish_opened(|o| o.incarnation = old), publish(|_| {})]).await;
    refused("a publisher of the older incarnation", fenced, FENCED);
    let mut open = consume_open("t");
    open.open.as_mut().unwrap().incarnation = old;
    refused("a consumer of the older incarnation", end_of(&bus, CONSUME, vec![bytes(&open)]).await, FENCED);
    assert!(new > old);
    log.stands(&server, &bus).await;
    // Two sessions of one producer: the one with the lower epoch is refused, message by message.
    let id = session_id();
    let mut newer = acb_testkit::raw::PublishSession::open(&bus, id, 2, new).await.unwrap();
    let mut older = acb_testkit::raw::PublishSession::open(&bus, id, 1, new).await.unwrap();
    newer.publish(vec![good("t")], v1::Durability::Written).await.unwrap();
    let log = Log::mark(&server, &bus).await;
    let outcomes = older.publish(vec![good("t")], v1::Durability::Written).await.unwrap();
    for outcome in outcomes {
        is("an older epoch", &refusal("an older epoch", outcome), PRODUCER_FENCED);
    }
    log.stands(&server, &bus).await;
}

fn consume(change: impl FnOnce(&mut v1::ConsumeOpen, &mut v1::SubscriptionSpec)) -> Bytes {
    let mut frame = consume_open("t");
    let open = frame.open.as_mut().unwrap();
    let mut spec = open.ephemeral.take().unwrap();
    open.ephemeral = Some(v1::SubscriptionSpec::default());
    change(open, &mut spec);
    if open.ephemeral.is_some() {
        open.ephemeral = Some(spec);
    }
    bytes(&frame)
}

fn named(name: &str) -> Bytes {
    let name = name.to_owned();
    consume(|o, _| (o.ephemeral, o.subscription) = (None, name))
}

#[tokio::test]
async fn a_consumer_that_cannot_be_opened_is_told_what_is_wrong() {
    let open = || bytes(&consume_open("t"));
    let credit = |messages, bytes| Some(v1::Credit { messages, bytes });
    let filters = |list: Vec<String>| consume(|_, s| s.filters = list);
    each_ends_its_stream(vec![
        (
            "credit before open",
            CONSUME,
            vec![bytes(&v1::ConsumeRequest { credit: credit(1, 1), ..Default::default() })],
            MISSING,
        ),
        ("open twice", CONSUME, vec![open(), open()], MALFORMED),
        ("a short session id", CONSUME, vec![consume(|o, _| o.session_id = vec![1; 15].into())], INVALID_ARGUMENT),
        ("no session id", CONSUME, vec![consume(|o, _| o.session_id = Bytes::new())], INVALID_ARGUMENT),
        ("no subscription at all", CONSUME, vec![named("")], MISSING),
        ("a name that is none", CONSUME, vec![named("a b")], INVALID_NAME),
        ("a subscription that nobody made", CONSUME, vec![named("absent")], NO_SUBSCRIPTION),
        ("credit for too many messages", CONSUME, vec![consume(|o, _| o.credit = credit(65_537, 1))], FIELD),
        (
            "credit for too many bytes",
            CONSUME,
            vec![consume(|o, _| o.credit = credit(1, limits::CREDIT_BYTES_MAX + 1))],
            FIELD,
        ),
        ("no filter", CONSUME, vec![filters(vec![])], FILTER),
        ("33 filters", CONSUME, vec![filters((0..33).map(|i| format!("t.{i}")).collect())], FILTER),
        ("half a wildcard", CONSUME, vec![filters(vec!["plan*".to_owned()])], FILTER),
        ("a tail in the middle", CONSUME, vec![filters(vec!["a.>.b".to_owned()])], FILTER),
        ("the bus's tree", CONSUME, vec![filters(vec!["$acb.inbox.>".to_owned()])], (102, "topic_reserved")),
        ("a policy that is none", CONSUME, vec![consume(|_, s| s.dead_letters = 9)], UNKNOWN_ENUM),
        ("a start that is none", CONSUME, vec![consume(|_, s| s.start_at = -7)], UNKNOWN_ENUM),
        ("a start at no seq", CONSUME, vec![consume(|_, s| s.start_at = v1::StartAt::Sequence as i32)], MISSING),
        ("a lease of a day", CONSUME, vec![consume(|_, s| s.ack_wait_ms = 86_400_000)], INVALID_ARGUMENT),
        ("more attempts than there may be", CONSUME, vec![consume(|_, s| s.max_attempts = 1001)], INVALID_ARGUMENT),
        ("more leases than there may be", CONSUME, vec![consume(|_, s| s.max_leased = 65_537)], INVALID_ARGUMENT),
    ])
    .await;
}

#[tokio::test]
async fn a_consumers_bytes_that_are_no_frame_end_its_stream_with_an_error() {
    let open = || bytes(&consume_open("t"));
    let name = |text: &[u8]| Bytes::from(field(1, &field(1, text)));
    let reason = |text: &[u8]| Bytes::from(field(6, &[vec![0x08, 1, 0x10, 1], field(4, text)].concat()));
    each_ends_its_stream(vec![
        ("garbage", CONSUME, vec![open(), vec![0xff; 100].into()], MALFORMED),
        ("garbage instead of open", CONSUME, vec![vec![0x0a, 0x7f, 1].into()], MALFORMED),
        ("a range that is cut", CONSUME, vec![open(), Bytes::from_static(b"\x22\x04\x08\x01")], MALFORMED),
        ("a name that is no UTF-8", CONSUME, vec![name(b"\xff")], INVALID_UTF8),
        ("a reason that is no UTF-8", CONSUME, vec![open(), reason(b"\xc3\x28")], INVALID_UTF8),
        ("a token that is no UTF-8", CONSUME, vec![open(), field(2, &field(1, b"\xff")).into()], INVALID_UTF8),
        ("more than any frame has", CONSUME, vec![open(), vec![0x22; 3 << 20].into()], FRAME),
    ])
    .await;
}

#[tokio::test]
async fn a_consumer_that_ends_badly_gives_its_messages_to_the_next() {
    let server = dev().await;
    let bus = client(&server, "worker").await;
    let incarnation = register(&bus, "worker").await.unwrap();
    let opening = || Opening {
        subscription: "$inbox.worker".to_owned(),
        session: session_id(),
        incarnation,
        credit_messages: 10,
        credit_bytes: 1 << 20,
        ..Default::default()
    };
    send(&bus, good("$acb.inbox.worker")).await.unwrap();
    let mut first = ConsumeSession::open(&bus, &opening()).await.unwrap();
    assert_eq!(first.message().await.unwrap().attempt, 1);
    first.stream().send(vec![0xff; 10].into()).await.unwrap();
    let ended: Failure = loop {
        match first.read().await {
            Ok(_) => {}
            Err(failure) => break failure,
        }
    };
    is("garbage of a consumer with a lease", &ended, MALFORMED);
    nobody_consumes(&bus, "$inbox.worker").await;
    // The lease is kept for the session to come back, as after any break, and then goes to the next, uncounted.
    server.admin().advance(limits::SESSION_GRACE).await.unwrap();
    let mut second = ConsumeSession::open(&bus, &opening()).await.unwrap();
    let again = second.message().await.unwrap();
    assert_eq!((again.attempt, &again.message.payload[..]), (1, &b"good"[..]));
    second.ack_confirmed(again.seq).await.unwrap();
}

#[tokio::test]
async fn bytes_that_are_no_request_are_refused_by_every_unary_call_and_change_nothing() {
    let server = dev().await;
    let bus = client(&server, "sender").await;
    register(&bus, "sender").await.unwrap();
    for path in unary_paths() {
        let log = Log::mark(&server, &bus).await;
        for (what, body, code) in [
            ("garbage", vec![0xff; 40], MALFORMED),
            ("a field that is cut", vec![0x0a, 50, 1], MALFORMED),
            ("more than any request has", vec![0; 5 << 20], FRAME),
        ] {
            refused(&format!("{what} to {path}"), bus.unary(path, body.into()).await, code);
        }
        log.stands(&server, &bus).await;
    }
    let agents = agents(&bus).await;
    assert_eq!(agents, ["sender"], "the registry");
}

async fn agents(bus: &RawClient) -> Vec<String> {
    let request = v1::DiscoverAgentsRequest::default();
    let found = acb_testkit::raw::answer(bus.agents().discover_agents(request)).await.unwrap();
    found.agents.into_iter().map(|a| a.spec.unwrap().id).collect()
}

/// Every unary call of the contract that this version serves.
fn unary_paths() -> Vec<&'static str> {
    use prost_types::FileDescriptorSet;
    let later = ["ContextService", "StreamService"];
    let files = FileDescriptorSet::decode(acb_proto::FILE_DESCRIPTOR_SET).unwrap().file;
    let mut paths = Vec::new();
    for file in files {
        for service in file.service.iter().filter(|s| !later.contains(&s.name())) {
            let unary = service.method.iter().filter(|m| !m.client_streaming() && !m.server_streaming());
            let path = |name: &str| format!("/{}.{}/{name}", file.package(), service.name());
            // Leaked: the client takes names that live for ever, and there are thirty of them.
            paths.extend(unary.map(|m| &*path(m.name()).leak()));
        }
    }
    assert!(paths.len() > 25, "{paths:?}");
    paths
}
