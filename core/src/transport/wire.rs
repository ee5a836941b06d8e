//! The frames of the two hot streams, written and read by hand (ADR 0002): small fields here, messages as the bytes
//! they are. Rare parts go through the generated types in `convert`.

use acb_types::frame::{MESSAGE_TAG, put_varint, read_varint, varint_len};
use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

use crate::error::Error;

/// A frame up: a small head, then message bytes that are shared with the resend buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outgoing {
    pub(crate) head: SmallVec<[u8; 24]>,
    pub(crate) body: Bytes,
}

impl Outgoing {
    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// A frame that is all small fields.
    pub(crate) fn small(bytes: BytesMut) -> Self {
        Self { head: SmallVec::new(), body: bytes.freeze() }
    }

    /// A frame of messages. Their acknowledgements may come `linger_ms` late.
    pub(crate) fn publish(counter: u64, level: u8, linger_ms: u8, body: Bytes) -> Self {
        let mut head = Head(SmallVec::new());
        head.0.push(PUBLISH_COUNTER);
        head.varint(counter);
        if level != 0 {
            head.0.extend_from_slice(&[PUBLISH_DURABILITY, level]);
        }
        if linger_ms != 0 {
            head.0.push(PUBLISH_ACK_LINGER);
            head.varint(linger_ms.into());
        }
        Self { head: head.0, body }
    }
}

struct Head(SmallVec<[u8; 24]>);

impl Head {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

const PUBLISH_COUNTER: u8 = 3 << 3;
const PUBLISH_DURABILITY: u8 = 4 << 3;
const PUBLISH_ACK_LINGER: u8 = 5 << 3;
/// Longest head of a publish frame.
pub(crate) const PUBLISH_HEAD_MAX: usize = 1 + 10 + 2 + 3;

/// Fields of a consumer's frame up that hold ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RangeField {
    Ack = 4,
    ConfirmedAck = 5,
    Progress = 7,
    Release = 9,
}

/// Appends a range of seqs to a consumer's frame.
pub(crate) fn put_range(out: &mut BytesMut, field: RangeField, first_seq: u64, count: u32) {
    let len = 1 + varint_len(first_seq) + 1 + varint_len(count.into());
    out.put_u8((field as u8) << 3 | 2);
    put_varint(out, len as u64);
    out.put_u8(1 << 3);
    put_varint(out, first_seq);
    out.put_u8(2 << 3);
    put_varint(out, count.into());
}

/// A field's value while a message is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Number(u64),
    Slice(&'a [u8]),
}

impl<'a> Value<'a> {
    fn number(self) -> Option<u64> {
        match self {
            Self::Number(n) => Some(n),
            Self::Slice(_) => None,
        }
    }

    fn slice(self) -> Option<&'a [u8]> {
        match self {
            Self::Slice(s) => Some(s),
            Self::Number(_) => None,
        }
    }
}

/// Reads the next field at `at` and moves on. `None` for bytes that are no field. Fixed-width fields, which no message
/// of ours has, are skipped as numbers.
#[inline]
pub(crate) fn read_field<'a>(bytes: &'a [u8], at: &mut usize) -> Option<(u32, Value<'a>)> {
    let tag = read_varint(bytes, at)?;
    let number = u32::try_from(tag >> 3).ok()?;
    let value = match tag & 7 {
        0 => Value::Number(read_varint(bytes, at)?),
        2 => {
            let len = usize::try_from(read_varint(bytes, at)?).ok()?;
            let slice = bytes.get(*at..at.checked_add(len)?)?;
            *at += len;
            Value::Slice(slice)
        }
        wire @ (1 | 5) => {
            let len = if wire == 1 { 8 } else { 4 };
            bytes.get(*at..*at + len)?;
            *at += len;
            Value::Number(0)
        }
        _ => return None,
    };
    Some((number, value))
}

/// Consecutive messages that were stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ack {
    pub(crate) counter: u64,
    pub(crate) count: u32,
    pub(crate) class: u32,
    pub(crate) partition: u32,
    pub(crate) epoch: u32,
    pub(crate) first_seq: u64,
    pub(crate) durability: u32,
    pub(crate) duplicate: bool,
}

/// One thing that a frame down of the publish stream says.
#[derive(Debug)]
pub(crate) enum PublishNews<'a> {
    Ack(Ack),
    /// An encoded `PublishReject`.
    Reject(&'a [u8]),
    AuthExpiring,
    /// An encoded `GoingAway`.
    GoingAway(&'a [u8]),
    /// An encoded `SlowDown`.
    SlowDown(&'a [u8]),
}

/// Reads a frame down of the publish stream.
pub(crate) fn read_publish(frame: &[u8], mut visit: impl FnMut(PublishNews<'_>)) -> Result<(), Error> {
    let mut at = 0;
    while at < frame.len() {
        let (number, value) = read_field(frame, &mut at).ok_or_else(malformed_publish)?;
        let Value::Slice(slice) = value else { continue };
        visit(match number {
            2 => PublishNews::Ack(read_ack(slice).ok_or_else(malformed_publish)?),
            3 => PublishNews::Reject(slice),
            4 => PublishNews::AuthExpiring,
            5 => PublishNews::GoingAway(slice),
            6 => PublishNews::SlowDown(slice),
            _ => continue,
        });
    }
    Ok(())
}

fn malformed_publish() -> Error {
    Error::protocol("messages.publish", "the server's frame cannot be read")
}

fn read_ack(bytes: &[u8]) -> Option<Ack> {
    let mut ack = Ack::default();
    let mut at = 0;
    while at < bytes.len() {
        let (number, value) = read_field(bytes, &mut at)?;
        let n = value.number()?;
        match number {
            1 => ack.counter = n,
            2 => ack.count = u32::try_from(n).ok()?,
            3 => ack.class = u32::try_from(n).ok()?,
            4 => ack.partition = u32::try_from(n).ok()?,
            5 => ack.epoch = u32::try_from(n).ok()?,
            6 => ack.first_seq = n,
            7 => ack.durability = u32::try_from(n).ok()?,
            8 => ack.duplicate = n != 0,
            _ => {}
        }
    }
    Some(ack)
}

/// Facts of consecutive messages of a frame down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first_seq: u64,
    pub(crate) count: u32,
    pub(crate) attempt: u32,
    pub(crate) epoch: u32,
    pub(crate) stored_at: u64,
    pub(crate) from: Bytes,
    pub(crate) from_incarnation: u64,
}

/// A frame down of a consume stream.
#[derive(Debug, Default)]
pub(crate) struct ConsumeFrame {
    /// An encoded `ConsumeOpened`.
    pub(crate) opened: Option<Bytes>,
    pub(crate) delivery: u64,
    pub(crate) runs: SmallVec<[Run; 1]>,
    /// Encoded `Gap`s.
    pub(crate) gaps: Vec<Bytes>,
    /// Encoded `Settled`s.
    pub(crate) settled: Vec<Bytes>,
    /// An encoded `AuthExpiring`.
    pub(crate) auth_expiring: Option<Bytes>,
    /// An encoded `GoingAway`.
    pub(crate) going_away: Option<Bytes>,
    /// The messages, tags included.
    pub(crate) body: Bytes,
}

impl ConsumeFrame {
    /// How many messages it has.
    pub(crate) fn count(&self) -> u64 {
        self.runs.iter().map(|r| u64::from(r.count)).sum()
    }
}

/// Reads a frame down of a consume stream. Its messages are left as they are.
pub(crate) fn read_consume(frame: &Bytes) -> Result<ConsumeFrame, Error> {
    let malformed = || Error::protocol("subscription.next", "the server's frame cannot be read");
    let bytes = &frame[..];
    let base = bytes.as_ptr() as usize;
    let share = |s: &[u8]| {
        let from = s.as_ptr() as usize - base;
        frame.slice(from..from + s.len())
    };
    let mut out = ConsumeFrame::default();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == MESSAGE_TAG {
            // Canonical order: nothing but messages from here on.
            out.body = frame.slice(at..);
            break;
        }
        let (number, value) = read_field(bytes, &mut at).ok_or_else(malformed)?;
        match (number, value) {
            (1, Value::Slice(s)) => out.opened = Some(share(s)),
            (2, Value::Number(n)) => out.delivery = n,
            (3, Value::Slice(s)) => out.runs.push(read_run(s, share).ok_or_else(malformed)?),
            (4, Value::Slice(s)) => out.gaps.push(share(s)),
            (5, Value::Slice(s)) => out.settled.push(share(s)),
            (6, Value::Slice(s)) => out.auth_expiring = Some(share(s)),
            (7, Value::Slice(s)) => out.going_away = Some(share(s)),
            _ => {}
        }
    }
    Ok(out)
}

fn read_run(bytes: &[u8], share: impl Fn(&[u8]) -> Bytes) -> Option<Run> {
    let mut run = Run { attempt: 1, ..Run::default() };
    let mut at = 0;
    while at < bytes.len() {
        let (number, value) = read_field(bytes, &mut at)?;
        match number {
            1 => run.first_seq = value.number()?,
            2 => run.count = u32::try_from(value.number()?).ok()?,
            3 => run.attempt = u32::try_from(value.number()?).ok()?,
            4 => run.epoch = u32::try_from(value.number()?).ok()?,
            5 => run.stored_at = value.number()?,
            6 => run.from = share(value.slice()?),
            7 => run.from_incarnation = value.number()?,
            _ => {}
        }
    }
    Some(run)
}

#[cfg(test)]
mod tests {
    use acb_proto::v1;
    use prost::Message as _;

    use super::*;

    #[test]
    fn a_publish_frame_is_what_protobuf_would_write() {
        let mut body = BytesMut::new();
        let envelope =
            acb_types::Envelope { topic: "a.b".into(), payload: Bytes::from_static(b"x"), ..Default::default() };
        acb_types::frame::encode(&mut body, &envelope);
        let frame = Outgoing::publish(300, 2, 200, body.freeze());
        let bytes = [&frame.head[..], &frame.body[..]].concat();
        let read = v1::PublishStreamRequest::decode(&bytes[..]).unwrap();
        assert_eq!((read.counter, read.durability, read.ack_linger_ms, read.messages.len()), (300, 2, 200, 1));
        assert_eq!(read.messages[0].topic, "a.b");
        assert_eq!(read.encode_to_vec(), bytes, "canonical: the same bytes come out again");
        assert!(Outgoing::publish(u64::MAX, 4, u8::MAX, Bytes::new()).head.len() <= PUBLISH_HEAD_MAX);
    }

    #[test]
    fn acks_and_refusals_are_read_as_protobuf_wrote_them() {
        let ack = v1::PublishAck {
            counter: 7,
            count: 3,
            class: 1,
            partition: 2,
            epoch: 4,
            first_seq: 500,
            durability: 3,
            duplicate: true,
        };
        let reject = v1::PublishReject { counter: 10, count: 1, error: None };
        let response = v1::PublishStreamResponse {
            acks: vec![ack, v1::PublishAck::default()],
            rejects: vec![reject],
            ..Default::default()
        };
        let mut seen = Vec::new();
        let mut rejects = 0;
        read_publish(&response.encode_to_vec(), |news| match news {
            PublishNews::Ack(a) => seen.push(a),
            PublishNews::Reject(r) => rejects += v1::PublishReject::decode(r).unwrap().counter,
            other => panic!("{other:?}"),
        })
        .unwrap();
        let expected = Ack {
            counter: 7,
            count: 3,
            class: 1,
            partition: 2,
            epoch: 4,
            first_seq: 500,
            durability: 3,
            duplicate: true,
        };
        assert_eq!((seen, rejects), (vec![expected, Ack::default()], 10));
        assert!(read_publish(&[0x12, 0x05, 0x08], |_| ()).is_err());
    }

    #[test]
    fn a_delivery_frame_is_read_with_its_messages_untouched() {
        let message =
            |topic: &str| v1::Message { topic: topic.into(), payload: Bytes::from_static(b"p"), ..Default::default() };
        let run = v1::DeliveryRun {
            first_seq: 9,
            count: 2,
            attempt: 2,
            epoch: 1,
            stored_at_ms: 5,
            from: "planner".into(),
            from_incarnation: 3,
        };
        let response = v1::ConsumeResponse {
            opened: Some(v1::ConsumeOpened { ack_wait_ms: 30_000, ..Default::default() }),
            delivery: 41,
            runs: vec![run],
            gaps: vec![v1::Gap { from_seq: 1, to_seq: 9, reason: "retention".into() }],
            settled: vec![v1::Settled { first_seq: 1, count: 1, error: None }],
            messages: vec![message("a"), message("b")],
            ..Default::default()
        };
        let bytes = Bytes::from(response.encode_to_vec());
        let frame = read_consume(&bytes).unwrap();
        assert_eq!((frame.delivery, frame.count(), frame.gaps.len(), frame.settled.len()), (41, 2, 1, 1));
        assert_eq!(&frame.runs[0].from[..], b"planner");
        assert_eq!((frame.runs[0].attempt, frame.runs[0].from_incarnation), (2, 3));
        assert_eq!(acb_types::frame::messages(&frame.body).count(), 2);
        assert!(frame.opened.is_some());
    }

    #[test]
    fn ranges_are_what_protobuf_would_write() {
        let mut out = BytesMut::new();
        put_range(&mut out, RangeField::Ack, 1, 3);
        put_range(&mut out, RangeField::Ack, 1 << 40, 1);
        put_range(&mut out, RangeField::ConfirmedAck, 9, 1);
        put_range(&mut out, RangeField::Progress, 300, 200);
        put_range(&mut out, RangeField::Release, 2, 1);
        let read = v1::ConsumeRequest::decode(&out[..]).unwrap();
        assert_eq!(read.encode_to_vec(), out);
        assert_eq!((read.acks.len(), read.confirmed_acks[0].first_seq, read.progress[0].count), (2, 9, 200));
    }
}
