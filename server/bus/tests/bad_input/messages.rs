//! Messages that cannot be. Each goes over both ways of publishing, as the same bytes: over the hot stream between two
//! good ones, which must be stored, and by the unary call.

use acb_proto::v1;
use acb_testkit::raw::{Outcome, RawClient};
use acb_types::limits;
use bytes::Bytes;
use prost::Message as _;

use super::support::{Code, Log, client, dev, field, good, is, producer, publish_frame, refusal, refused, varint};

const INVALID_TOPIC: Code = (101, "invalid_topic");
const TOPIC_RESERVED: Code = (102, "topic_reserved");
const WILDCARD: Code = (103, "wildcard_in_publish");
const INVALID_UTF8: Code = (105, "invalid_utf8");
const UNKNOWN_ENUM: Code = (106, "unknown_enum");
const MALFORMED: Code = (107, "malformed_frame");
const PAYLOAD: Code = (109, "payload_too_large");
const ATTRIBUTES_LARGE: Code = (110, "attributes_too_large");
const ATTRIBUTES: Code = (111, "invalid_attributes");
const FIELD: Code = (112, "field_too_large");
const MISSING: Code = (113, "missing_field");
const AGENT: Code = (200, "agent_not_found");
const UNSUPPORTED: Code = (504, "unsupported_feature");

/// Sends each bad message both ways, and proves after each that it alone was refused.
async fn each_is_refused_alone(cases: Vec<(&str, Vec<u8>, Code)>) {
    let server = dev().await;
    let bus = client(&server, "sender").await;
    let mut session = producer(&bus).await;
    let fine = good("neighbour").encode_to_vec();
    for (what, bad, code) in cases {
        let log = Log::mark(&server, &bus).await;
        // By the unary call.
        refused(what, unary(&bus, &bad).await, code);
        // Between two good ones of one frame.
        let counter = session.next_counter();
        session.count_from(counter + 3);
        let frame = publish_frame(counter, &[fine.clone(), bad, fine.clone()]);
        session.stream().send(frame).await.unwrap();
        let before = session.outcome(counter).await.unwrap_or_else(|e| panic!("{what} ended the stream: {e}"));
        let refused = refusal(what, session.outcome(counter + 1).await.unwrap());
        let after = session.outcome(counter + 2).await.unwrap();
        is(what, &refused, code);
        let neighbours = matches!((&before, &after), (Outcome::Stored(_), Outcome::Stored(_)));
        assert!(neighbours, "{what}: its neighbours were {before:?} and {after:?}");
        log.grew_by(2, &server, &bus).await;
    }
}

async fn unary(bus: &RawClient, message: &[u8]) -> Result<Bytes, acb_testkit::raw::Failure> {
    bus.unary("/acb.v1.MessageService/Send", field(1, message).into()).await
}

/// A good message with one thing changed.
fn with(change: impl FnOnce(&mut v1::Message)) -> Vec<u8> {
    let mut message = good("t");
    change(&mut message);
    message.encode_to_vec()
}

fn on(topic: &str) -> Vec<u8> {
    good(topic).encode_to_vec()
}

/// A block of attributes, written without looking at what it says.
fn attributes(pairs: &[(&[u8], &[u8])]) -> Bytes {
    let text = |t: &[u8]| [varint(t.len() as u64), t.to_vec()].concat();
    pairs.iter().flat_map(|(name, value)| [text(name), text(value)].concat()).collect::<Vec<u8>>().into()
}

fn with_attributes(block: impl Into<Bytes>) -> Vec<u8> {
    with(|m| m.attributes = block.into())
}

#[tokio::test]
async fn a_payload_or_a_text_over_its_limit_is_refused_alone() {
    let long = || "x".repeat(limits::SHORT_TEXT_BYTES_MAX + 1);
    each_is_refused_alone(vec![
        ("a payload", with(|m| m.payload = vec![7; limits::PAYLOAD_BYTES_MAX + 1].into()), PAYLOAD),
        ("a correlation id", with(|m| m.correlation_id = long()), FIELD),
        ("an idempotency key", with(|m| m.idempotency_key = long()), FIELD),
        ("an order key", with(|m| m.order_key = long()), FIELD),
        ("a media type", with(|m| m.content_type = long()), FIELD),
        ("a trace", with(|m| m.trace = long()), FIELD),
        ("a context id", with(|m| m.context_refs = vec![long()]), FIELD),
        ("many context ids", with(|m| m.context_refs = vec!["c".to_owned(); limits::CONTEXT_REFS_MAX + 1]), FIELD),
    ])
    .await;
}

#[tokio::test]
async fn attributes_that_are_too_many_too_large_or_malformed_are_refused_alone() {
    let names: Vec<String> = (0..=limits::ATTRIBUTES_MAX).map(|i| format!("name-{i:03}")).collect();
    let many: Vec<(&[u8], &[u8])> = names.iter().map(|n| (n.as_bytes(), &b"v"[..])).collect();
    let long = vec![b'n'; limits::SHORT_TEXT_BYTES_MAX + 1];
    let large = vec![b'v'; limits::ATTRIBUTES_BYTES_MAX];
    each_is_refused_alone(vec![
        ("65 attributes", with_attributes(attributes(&many)), ATTRIBUTES),
        ("a name of 129 bytes", with_attributes(attributes(&[(&long, b"v")])), ATTRIBUTES),
        ("a name of no bytes", with_attributes(attributes(&[(b"", b"v")])), ATTRIBUTES),
        ("a value that makes them too large", with_attributes(attributes(&[(b"n", &large)])), ATTRIBUTES_LARGE),
        ("names out of order", with_attributes(attributes(&[(b"b", b"v"), (b"a", b"v")])), ATTRIBUTES),
        ("a name given twice", with_attributes(attributes(&[(b"a", b"v"), (b"a", b"v")])), ATTRIBUTES),
        ("a name that is no UTF-8", with_attributes(attributes(&[(b"\xff", b"v")])), ATTRIBUTES),
        ("a value that is no UTF-8", with_attributes(attributes(&[(b"a", b"\xc3\x28")])), ATTRIBUTES),
        ("a length that leads out of the block", with_attributes(&b"\x01a\x09v"[..]), ATTRIBUTES),
        ("a name without a value", with_attributes(&b"\x01a"[..]), ATTRIBUTES),
        ("a length longer than need be", with_attributes(&b"\x81\x00a\x01v"[..]), ATTRIBUTES),
    ])
    .await;
}

#[tokio::test]
async fn text_that_is_not_utf_8_is_refused_alone_in_every_field() {
    let bad = b"caf\xe9";
    // Fields of `Message` that are texts, but the topic, which must be there and comes first.
    let texts = [
        ("correlation_id", 4),
        ("reply_to", 5),
        ("idempotency_key", 6),
        ("order_key", 9),
        ("content_type", 10),
        ("context_refs", 11),
        ("trace", 12),
        ("original_topic", 13),
    ];
    let mut cases = vec![("topic", field(1, bad), INVALID_UTF8)];
    cases.extend(texts.map(|(what, number)| (what, [field(1, b"t"), field(number, bad)].concat(), INVALID_UTF8)));
    each_is_refused_alone(cases).await;
}

#[tokio::test]
async fn numbers_that_name_nothing_are_refused_alone() {
    each_is_refused_alone(vec![
        ("a kind of tomorrow", with(|m| m.kind = 77), UNKNOWN_ENUM),
        ("a negative kind", with(|m| m.kind = -1), UNKNOWN_ENUM),
        ("a priority of tomorrow", with(|m| m.priority = 4), UNKNOWN_ENUM),
        ("a negative priority", with(|m| m.priority = i32::MIN), UNKNOWN_ENUM),
    ])
    .await;
}

#[tokio::test]
async fn topics_that_no_message_goes_to_are_refused_alone() {
    let deep = ["t"; 33].join(".");
    let long = "x".repeat(513);
    let reply_to = |topic: &str| with(|m| m.reply_to = topic.to_owned());
    each_is_refused_alone(vec![
        ("no topic", Vec::from(&b"\x7a\x01p"[..]), MISSING),
        ("a dot first", on(".a"), INVALID_TOPIC),
        ("a dot last", on("a."), INVALID_TOPIC),
        ("two dots", on("a..b"), INVALID_TOPIC),
        ("white space", on("a b"), INVALID_TOPIC),
        ("a line feed", on("a\nb"), INVALID_TOPIC),
        ("a byte of zero", on("a\0b"), INVALID_TOPIC),
        ("33 tokens", on(&deep), INVALID_TOPIC),
        ("513 bytes", on(&long), INVALID_TOPIC),
        ("a wildcard", on("a.*"), WILDCARD),
        ("a tail", on("a.>"), WILDCARD),
        ("everything", on(">"), WILDCARD),
        ("the bus's tree", on("$acb.secret"), TOPIC_RESERVED),
        ("the root of the bus's tree", on("$acb"), TOPIC_RESERVED),
        ("a dead-letter queue", on("$acb.dlq.s"), TOPIC_RESERVED),
        ("a redrive", on("$acb.redrive.s"), TOPIC_RESERVED),
        ("an inbox of a name that is none", on("$acb.inbox.A B"), INVALID_TOPIC),
        ("an inbox that nobody has", on("$acb.inbox.nobody"), AGENT),
        ("a reply to a wildcard", reply_to("a.*"), WILDCARD),
        ("a reply to no topic", reply_to("a..b"), INVALID_TOPIC),
        ("a reply into the bus's tree", reply_to("$acb.dlq.s"), TOPIC_RESERVED),
    ])
    .await;
}

#[tokio::test]
async fn bytes_that_are_no_message_are_refused_alone_while_their_length_holds() {
    each_is_refused_alone(vec![
        ("a field that ends inside", [field(1, b"t"), vec![0x22, 9, b'c']].concat(), MALFORMED),
        ("a topic as a number", vec![0x08, 5], MALFORMED),
        ("a wire type that is none", [field(1, b"t"), vec![0x27]].concat(), MALFORMED),
        ("a number without end", [field(1, b"t"), vec![0x10], vec![0xff; 11]].concat(), MALFORMED),
        ("garbage", vec![0x5a; 64], MALFORMED),
    ])
    .await;
}

#[tokio::test]
async fn what_this_version_does_not_do_is_refused_alone_and_not_dropped_in_silence() {
    each_is_refused_alone(vec![
        ("a delay", with(|m| m.not_before_ms = 5), UNSUPPORTED),
        ("a capability", on("$acb.cap.text.count"), UNSUPPORTED),
        ("a forged origin", with(|m| m.original_topic = "x".to_owned()), (100, "invalid_argument")),
    ])
    .await;
}
