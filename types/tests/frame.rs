//! The byte layout: what is written can be read, only canonical bytes are taken, nothing panics.

#![allow(clippy::unwrap_used, reason = "tests")]

use acb_types::{
    Attributes, Envelope, InvalidName, MessageKind, Priority, Timestamp,
    attributes::InvalidAttributes,
    envelope::Text,
    frame::{self, FrameError, flag},
};
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

fn text() -> impl Strategy<Value = Text> {
    prop_oneof![Just(String::new()), "\\PC{1,30}"].prop_map(Text::from)
}

fn topic() -> impl Strategy<Value = Text> {
    prop::sample::select(vec!["a", "a.b", "jobs.new", "$acb.inbox.planner", "é.ü"]).prop_map(Text::from)
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 1..300u64, any::<u64>()]
}

prop_compose! {
    fn envelope()(
        texts in (topic(), text(), prop_oneof![Just(Text::EMPTY), topic()], text(), text(), text()),
        more in (text(), prop_oneof![Just(Text::EMPTY), topic()]),
        kind in prop::sample::select(MessageKind::ALL.to_vec()),
        priority in prop::sample::select(Priority::ALL.to_vec()),
        expires in number(),
        not_before in number(),
        context_refs in proptest::collection::vec(text(), 0..4),
        attributes in proptest::collection::btree_map("\\PC{1,10}", "\\PC{0,20}", 0..4),
        payload in proptest::collection::vec(any::<u8>(), 0..300),
    ) -> Envelope {
        let (topic, correlation_id, reply_to, idempotency_key, order_key, content_type) = texts;
        let (trace, original_topic) = more;
        Envelope {
            topic, kind, priority, correlation_id, reply_to, idempotency_key,
            expires_at: Timestamp(expires), not_before: Timestamp(not_before),
            order_key, content_type, trace, original_topic, context_refs,
            attributes: Attributes::from_pairs(attributes).unwrap(),
            payload: payload.into(),
        }
    }
}

fn encode(messages: &[Envelope]) -> Bytes {
    let mut out = BytesMut::new();
    for message in messages {
        let before = out.len();
        assert_eq!(frame::encode(&mut out, message), out.len() - before);
    }
    out.freeze()
}

fn expected_flags(m: &Envelope) -> u16 {
    let when = |yes: bool, flag: u16| if yes { flag } else { 0 };
    when(!m.idempotency_key.is_empty(), flag::IDEMPOTENCY)
        | when(m.expires_at.is_set(), flag::EXPIRY)
        | when(m.kind == MessageKind::Request, flag::REQUEST)
        | when(m.priority != Priority::Normal, flag::PRIORITY)
        | when(!m.order_key.is_empty(), flag::ORDER_KEY)
        | when(m.not_before.is_set(), flag::NOT_BEFORE)
        | when(!m.attributes.is_empty(), flag::ATTRIBUTES)
        | when(!m.original_topic.is_empty(), flag::ORIGINAL_TOPIC)
}

/// What holds of any bytes that the walk takes.
fn check_taken(body: &Bytes) {
    let Ok(walked) = frame::walk(body) else { return };
    let messages: Vec<_> = frame::messages(body).collect();
    assert_eq!(messages.len(), walked.count as usize);
    let envelopes: Vec<_> = messages.iter().map(|m| frame::decode(m).unwrap()).collect();
    assert_eq!(encode(&envelopes), body, "taken, but not what would be written");
    let mut at = (0, 0);
    for run in &walked.runs {
        assert_eq!(run.offset as usize, at.0);
        assert_eq!(frame::prefix_len(body, at.1), at.0);
        for m in &envelopes[at.1 as usize..][..run.count as usize] {
            assert_eq!(&*m.topic, run.topic_str());
        }
        at = (at.0 + run.len as usize, at.1 + run.count);
    }
    assert_eq!(at, (body.len(), walked.count));
    assert!(walked.runs.windows(2).all(|two| two[0].topic != two[1].topic));
    assert_eq!(walked.flags, envelopes.iter().map(expected_flags).fold(0, |a, b| a | b));
}

proptest! {
    #[test]
    fn a_frame_gives_back_its_messages(messages in proptest::collection::vec(envelope(), 0..8)) {
        let body = encode(&messages);
        let walked = frame::walk(&body).unwrap();
        prop_assert_eq!(walked.count as usize, messages.len());
        let read: Vec<_> = frame::messages(&body).map(|m| frame::decode(&m).unwrap()).collect();
        prop_assert_eq!(read, messages);
        check_taken(&body);
    }

    #[test]
    fn any_bytes_are_answered(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let body = Bytes::from(body);
        check_taken(&body);
        let _ = frame::decode(&body);
        frame::messages(&body).for_each(drop);
        frame::prefix_len(&body, 1000);
    }

    #[test]
    fn a_damaged_frame_is_answered(
        messages in proptest::collection::vec(envelope(), 1..4),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut body = encode(&messages).to_vec();
        check_taken(&Bytes::copy_from_slice(&body[..cut.index(body.len())]));
        for (at, byte) in damage {
            let at = at.index(body.len());
            body[at] = byte;
            check_taken(&Bytes::copy_from_slice(&body));
        }
    }

    #[test]
    fn a_varint_gives_back_its_number(n in prop_oneof![any::<u64>(), 0..70_000u64, Just(u64::MAX)], tail in any::<u8>()) {
        let mut out = BytesMut::new();
        frame::put_varint(&mut out, n);
        prop_assert_eq!(out.len(), frame::varint_len(n));
        out.extend_from_slice(&[tail]);
        let mut at = 0;
        prop_assert_eq!(frame::read_varint(&out, &mut at), Some(n));
        prop_assert_eq!(at, out.len() - 1);
        prop_assert_eq!(frame::read_varint(&out[..at - 1], &mut 0), None);
    }
}

#[test]
fn a_varint_of_more_than_64_bits_is_refused() {
    let mut bytes = [0xff; 11];
    assert_eq!(frame::read_varint(&bytes, &mut 0), None);
    bytes[9] = 1;
    assert_eq!(frame::read_varint(&bytes, &mut 0), Some(u64::MAX));
    bytes[9] = 2;
    assert_eq!(frame::read_varint(&bytes, &mut 0), None);
}

/// The bytes are the contract: a change of this test is a change of the wire and of the log.
#[test]
fn golden_bytes() {
    let message = Envelope {
        topic: "jobs.new".into(),
        kind: MessageKind::Request,
        priority: Priority::High,
        correlation_id: "c".into(),
        reply_to: "r".into(),
        idempotency_key: "i".into(),
        expires_at: Timestamp(300),
        not_before: Timestamp(1),
        order_key: "o".into(),
        content_type: "t/p".into(),
        context_refs: vec!["x".into(), Text::EMPTY],
        trace: "w".into(),
        original_topic: "q".into(),
        attributes: Attributes::from_pairs([("k", "v")]).unwrap(),
        payload: Bytes::from_static(b"\x00\xff"),
    };
    let golden = b"\x7a\x39\
        \x0a\x08jobs.new\
        \x10\x01\
        \x18\x02\
        \x22\x01c\
        \x2a\x01r\
        \x32\x01i\
        \x38\xac\x02\
        \x40\x01\
        \x4a\x01o\
        \x52\x03t/p\
        \x5a\x01x\x5a\x00\
        \x62\x01w\
        \x6a\x01q\
        \x72\x04\x01k\x01v\
        \x7a\x02\x00\xff";
    assert_eq!(encode(&[message]), &golden[..]);
    let least = Envelope { topic: "a".into(), ..Envelope::default() };
    assert_eq!(encode(&[least]), &b"\x7a\x03\x0a\x01a"[..]);
    check_taken(&Bytes::from_static(golden));
}

#[test]
fn topic_and_payload_can_be_lent() {
    let template = Envelope { topic: "x".into(), payload: Bytes::from_static(b"y"), ..Envelope::default() };
    let mut out = BytesMut::new();
    frame::encode_parts(&mut out, &template, "lent", b"too");
    let whole = Envelope { topic: "lent".into(), payload: Bytes::from_static(b"too"), ..Envelope::default() };
    assert_eq!(out.freeze(), encode(&[whole]));
}

/// One message of the given fields, as a frame.
fn framed(fields: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.extend_from_slice(&[frame::MESSAGE_TAG]);
    frame::put_varint(&mut out, fields.len() as u64);
    out.extend_from_slice(fields);
    out.freeze()
}

fn refusal(fields: &[u8]) -> FrameError {
    frame::walk(&framed(fields)).unwrap_err()
}

#[test]
fn each_fault_has_its_own_answer() {
    use FrameError as E;
    let index = 0;
    let cases: &[(&[u8], E)] = &[
        (b"", E::NoTopic { index }),
        (b"\x10\x01", E::NoTopic { index }),
        (b"\x0a", E::Malformed { index }),
        (b"\x0a\x05a", E::Malformed { index }),
        (b"\x08\x01", E::Malformed { index }),
        (b"\x0a\x01a\x12\x01a", E::Malformed { index }),
        (b"\x0a\x01a\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", E::Malformed { index }),
        (b"\x10\x01\x0a\x01a", E::NotCanonical { index }),
        (b"\x0a\x01a\x0a\x01a", E::NotCanonical { index }),
        (b"\x0a\x01a\x10\x00", E::NotCanonical { index }),
        (b"\x0a\x01a\x22\x00", E::NotCanonical { index }),
        (b"\x0a\x81\x00a", E::NotCanonical { index }),
        (b"\x0a\x01a\x10\x81\x00", E::NotCanonical { index }),
        (b"\x0a\x01a\x02\x00", E::NotCanonical { index }),
        (b"\x0a\x01a\x82\x01\x01a", E::NotCanonical { index }),
        (b"\x0a\x01\xff", E::Utf8 { index, field: "topic" }),
        (b"\x0a\x01a\x22\x01\xff", E::Utf8 { index, field: "correlation_id" }),
        (b"\x0a\x01a\x10\x05", E::UnknownEnum { index, field: "kind", value: 5 }),
        (b"\x0a\x01a\x18\x04", E::UnknownEnum { index, field: "priority", value: 4 }),
        (b"\x0a\x01*", E::Topic { index, source: InvalidName::Wildcard { what: "topic", at: 0 } }),
        (b"\x0a\x01a\x2a\x01.", E::Topic { index, source: InvalidName::EmptyToken { what: "reply_to", at: 0 } }),
        (b"\x0a\x01a\x72\x01\x01", E::Attributes { index, source: InvalidAttributes::Malformed { at: 0 } }),
    ];
    for (fields, error) in cases {
        assert_eq!(refusal(fields), *error, "{fields:?}");
        assert_eq!(error.index(), Some(0));
    }
    let mut second = encode(&[Envelope { topic: "a".into(), ..Envelope::default() }]).to_vec();
    second.extend_from_slice(&framed(b""));
    assert_eq!(frame::walk(&second.into()), Err(E::NoTopic { index: 1 }));
    assert_eq!(frame::walk(&Bytes::from_static(b"\x0a\x00")), Err(E::NotCanonical { index }));
    assert_eq!(frame::walk(&Bytes::from_static(b"\x7a\x02\x0a")), Err(E::Malformed { index }));
    assert_eq!(frame::walk(&Bytes::from_static(b"\x7a\x83\x00\x0a\x01a")), Err(E::NotCanonical { index }));
    assert_eq!(frame::walk(&Bytes::new()), Ok(frame::Walked::default()));
}

type Change = fn(&mut Envelope, Text);

#[test]
fn limits_hold_at_their_edge() {
    let message = |change: &dyn Fn(&mut Envelope)| {
        let mut m = Envelope { topic: "a".into(), ..Envelope::default() };
        change(&mut m);
        frame::walk(&encode(&[m]))
    };
    let long = |n: usize| Text::from("x".repeat(n));
    let fields: [(&str, usize, Change); 7] = [
        ("topic", 512, |m, t| m.topic = t),
        ("correlation_id", 128, |m, t| m.correlation_id = t),
        ("reply_to", 512, |m, t| m.reply_to = t),
        ("idempotency_key", 128, |m, t| m.idempotency_key = t),
        ("order_key", 128, |m, t| m.order_key = t),
        ("content_type", 128, |m, t| m.content_type = t),
        ("context_refs", 128, |m, t| m.context_refs = vec![t]),
    ];
    for (field, limit, set) in fields {
        assert!(message(&|m| set(m, long(limit))).is_ok(), "{field}");
        let error = FrameError::TooLarge { index: 0, field, bytes: limit + 1, limit };
        assert_eq!(message(&|m| set(m, long(limit + 1))), Err(error));
    }
    let limit = 1_048_576;
    assert!(message(&|m| m.payload = vec![0; limit].into()).is_ok());
    let error = FrameError::TooLarge { index: 0, field: "payload", bytes: limit + 1, limit };
    assert_eq!(error.to_string(), "message 0: payload of 1048577 bytes exceeds limit of 1048576");
    assert_eq!(message(&|m| m.payload = vec![0; limit + 1].into()), Err(error));
    assert!(message(&|m| m.context_refs = vec!["x".into(); 16]).is_ok());
    let error = FrameError::TooMany { index: 0, field: "context_refs", count: 17, limit: 16 };
    assert_eq!(message(&|m| m.context_refs = vec!["x".into(); 17]), Err(error));

    let least = encode(&[Envelope { topic: "a".into(), ..Envelope::default() }]);
    assert_eq!(frame::walk(&least.repeat(512).into()).unwrap().runs.len(), 1);
    let error = FrameError::TooManyMessages { count: 513, limit: 512 };
    assert_eq!(error.index(), None);
    assert_eq!(frame::walk(&least.repeat(513).into()), Err(error));
}

#[test]
fn runs_are_consecutive_messages_of_one_topic() {
    let messages = ["a", "a", "b", "a"].map(|t| Envelope { topic: t.into(), ..Envelope::default() });
    let walked = frame::walk(&encode(&messages)).unwrap();
    let runs: Vec<_> = walked.runs.iter().map(|r| (r.topic_str(), r.count, r.offset, r.len)).collect();
    assert_eq!(runs, [("a", 2, 0, 10), ("b", 1, 10, 5), ("a", 1, 15, 5)]);
}
