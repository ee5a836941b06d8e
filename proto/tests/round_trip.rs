//! The hand-written byte layout of `acb-types` and the generated protobuf types agree, byte for byte.

#![allow(clippy::unwrap_used, reason = "tests")]

use acb_proto::v1;
use acb_types::{
    Attributes, Envelope, MessageKind, Priority, Timestamp,
    envelope::Text,
    frame::{self, FrameError},
};
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use prost::Message as _;

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

fn to_proto(m: &Envelope) -> v1::Message {
    v1::Message {
        topic: m.topic.to_string(),
        kind: m.kind as i32,
        priority: m.priority as i32,
        correlation_id: m.correlation_id.to_string(),
        reply_to: m.reply_to.to_string(),
        idempotency_key: m.idempotency_key.to_string(),
        expires_at_ms: m.expires_at.0,
        not_before_ms: m.not_before.0,
        order_key: m.order_key.to_string(),
        content_type: m.content_type.to_string(),
        context_refs: m.context_refs.iter().map(ToString::to_string).collect(),
        trace: m.trace.to_string(),
        original_topic: m.original_topic.to_string(),
        attributes: m.attributes.as_bytes().clone(),
        payload: m.payload.clone(),
    }
}

fn encode(messages: &[Envelope]) -> Bytes {
    let mut out = BytesMut::new();
    for message in messages {
        frame::encode(&mut out, message);
    }
    out.freeze()
}

proptest! {
    #[test]
    fn both_write_the_same_frame(
        messages in proptest::collection::vec(envelope(), 0..5),
        counter in number(),
        durability in 0..5,
    ) {
        let body = encode(&messages);
        let up = v1::PublishStreamRequest {
            open: None,
            reauth: None,
            ack_linger_ms: 7,
            counter,
            durability,
            messages: messages.iter().map(to_proto).collect(),
        };
        let bytes = up.encode_to_vec();
        prop_assert!(bytes.ends_with(&body), "messages stand last, in the same bytes");
        let mut by_hand = v1::PublishStreamRequest { messages: Vec::new(), ..up.clone() }.encode_to_vec();
        by_hand.extend_from_slice(&body);
        prop_assert_eq!(&by_hand, &bytes);
        prop_assert_eq!(v1::PublishStreamRequest::decode(&by_hand[..]).unwrap(), up);

        let down = v1::ConsumeResponse {
            delivery: counter,
            messages: messages.iter().map(to_proto).collect(),
            ..Default::default()
        };
        prop_assert!(down.encode_to_vec().ends_with(&body));
    }

    #[test]
    fn what_protobuf_writes_is_read_by_hand(message in envelope()) {
        let bytes = Bytes::from(to_proto(&message).encode_to_vec());
        prop_assert_eq!(frame::decode(&bytes).unwrap(), message);
    }

    /// Whatever the walk lets through, a subscriber's protobuf library can read, and would write the same.
    #[test]
    fn what_the_walk_takes_every_subscriber_can_read(
        message in envelope(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut body = encode(&[message]).to_vec();
        for (at, byte) in damage {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let body = Bytes::from(body);
        if frame::walk(&body).is_ok() {
            let read = v1::PublishStreamRequest::decode(body.clone());
            prop_assert!(read.is_ok(), "{read:?} of {body:?}");
            prop_assert_eq!(read.unwrap().encode_to_vec(), &body[..]);
        }
    }

    /// What other writers order as they like is canonical after one pass through a protobuf library.
    #[test]
    fn what_is_not_canonical_can_be_encoded_anew(message in envelope(), empty in any::<bool>()) {
        let proto = to_proto(&message);
        let topic_last = {
            let mut bytes = v1::Message { topic: String::new(), ..proto.clone() }.encode_to_vec();
            if empty {
                // Normal priority, written out.
                bytes.extend([3 << 3, 0]);
            }
            v1::Message { topic: proto.topic.clone(), ..Default::default() }.encode(&mut bytes).unwrap();
            bytes
        };
        let strange = { let mut m = Vec::new(); prost::encoding::encode_key(15, prost::encoding::WireType::LengthDelimited, &mut m);
            prost::encoding::encode_varint(topic_last.len() as u64, &mut m); m.extend(&topic_last); Bytes::from(m) };
        let plain = Envelope { topic: message.topic.clone(), ..Envelope::default() };
        if message == plain && !empty {
            prop_assert!(frame::walk(&strange).is_ok());
        } else {
            prop_assert_eq!(frame::walk(&strange), Err(FrameError::NotCanonical { index: 0 }));
        }
        let mut anew = v1::PublishStreamRequest::decode(strange).unwrap();
        if empty {
            anew.messages[0].priority = message.priority as i32;
        }
        let anew = Bytes::from(anew.encode_to_vec());
        prop_assert!(frame::walk(&anew).is_ok());
        prop_assert_eq!(anew, encode(&[message]));
    }
}

#[test]
fn absent_and_empty_are_one() {
    let least = Envelope { topic: "a".into(), ..Envelope::default() };
    let proto = v1::Message { topic: "a".into(), ..Default::default() };
    assert_eq!(proto.encode_to_vec(), b"\x0a\x01a");
    assert_eq!(encode(std::slice::from_ref(&least)), &b"\x7a\x03\x0a\x01a"[..]);
    assert_eq!(frame::decode(&Bytes::from_static(b"\x0a\x01a")).unwrap(), least);
    assert_eq!(to_proto(&least), proto);
}

#[test]
fn numbers_of_enums_agree() {
    use v1::{Durability as D, MessageKind as K, Priority as P};
    let kinds = [K::Unspecified, K::Request, K::Reply, K::Event, K::Signal];
    assert_eq!(kinds.map(|k| k as u64), MessageKind::ALL.map(|k| k as u64));
    assert!(K::try_from(kinds.len() as i32).is_err());
    let priorities = [P::Unspecified, P::Low, P::High, P::Critical];
    assert_eq!(priorities.map(|p| p as u64), Priority::ALL.map(|p| p as u64));
    assert!(P::try_from(priorities.len() as i32).is_err());
    let levels = [D::Memory, D::Written, D::Synced, D::Replicated];
    assert_eq!(levels.map(|d| d as i32), acb_types::Durability::ALL.map(|d| d as i32));
    for n in -1..7 {
        let known = acb_types::Durability::from_wire(n).is_some();
        assert_eq!(known, n != 0 && D::try_from(n).is_ok(), "{n}");
    }
}
