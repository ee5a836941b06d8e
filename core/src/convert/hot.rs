//! The small frames of the hot streams, which are rare, by the generated types.

use std::time::Duration;

use acb_proto::v1;
use bytes::{Bytes, BytesMut};
use prost::Message as _;

use super::{error_from_proto, nouns};
use crate::{
    consume::{Source, settle::Negative},
    error::{Error, Result},
    subscribe::Gap,
    time::millis,
    transport::wire::Outgoing,
};

fn frame(message: &impl prost::Message) -> Outgoing {
    Outgoing { body: message.encode_to_vec().into(), ..Outgoing::default() }
}

fn unreadable(operation: &'static str) -> Error {
    Error::protocol(operation, "the server's frame cannot be read")
}

/// The first frame of a publish stream.
pub(crate) fn publish_open(producer_id: &[u8], epoch: u32, incarnation: u64) -> Outgoing {
    let open = v1::PublishOpen { producer_id: Bytes::copy_from_slice(producer_id), epoch, incarnation };
    frame(&v1::PublishStreamRequest { open: Some(open), ..Default::default() })
}

/// A fresh token for a publish stream.
pub(crate) fn publish_reauth(access_token: &str) -> Outgoing {
    let reauth = v1::Reauth { token: access_token.to_owned() };
    frame(&v1::PublishStreamRequest { reauth: Some(reauth), ..Default::default() })
}

/// A fresh token for a consume stream.
pub(crate) fn consume_reauth(access_token: &str) -> Outgoing {
    let reauth = v1::Reauth { token: access_token.to_owned() };
    frame(&v1::ConsumeRequest { reauth: Some(reauth), ..Default::default() })
}

/// First counter, count and error of a refusal.
pub(crate) fn publish_reject(operation: &'static str, bytes: &[u8]) -> Result<(u64, u32, Error)> {
    let reject = v1::PublishReject::decode(bytes).map_err(|_| unreadable(operation))?;
    let error = error_from_proto(operation, reject.error.unwrap_or_default());
    Ok((reject.counter, reject.count, error))
}

/// How long to stay away.
pub(crate) fn going_away(bytes: &[u8]) -> Duration {
    Duration::from_millis(v1::GoingAway::decode(bytes).unwrap_or_default().retry_after_ms)
}

/// How long to hold back.
pub(crate) fn slow_down(bytes: &[u8]) -> Duration {
    Duration::from_millis(v1::SlowDown::decode(bytes).unwrap_or_default().retry_after_ms)
}

/// What a consume stream opens with.
pub(crate) struct ConsumeOpening<'a> {
    pub(crate) source: &'a Source,
    pub(crate) session: &'a [u8],
    pub(crate) incarnation: u64,
    /// Number of the last delivery that arrived.
    pub(crate) resume_delivery: u64,
    pub(crate) credit: (u32, u64),
}

/// The first frame of a consume stream.
pub(crate) fn consume_open(o: &ConsumeOpening<'_>) -> Outgoing {
    let (subscription, ephemeral) = match o.source {
        Source::Named(name) => (name.clone(), None),
        Source::Ephemeral(spec) => (String::new(), Some(nouns::subscription_spec(spec))),
    };
    let open = v1::ConsumeOpen {
        subscription,
        ephemeral,
        session_id: Bytes::copy_from_slice(o.session),
        incarnation: o.incarnation,
        resume_delivery: o.resume_delivery,
        credit: Some(v1::Credit { messages: o.credit.0, bytes: o.credit.1 }),
    };
    frame(&v1::ConsumeRequest { open: Some(open), ..Default::default() })
}

/// A server's answer to a consume stream's open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opened {
    pub(crate) resumed: bool,
    pub(crate) class: u32,
    pub(crate) partition: u32,
    pub(crate) ack_wait_ms: u64,
}

pub(crate) fn consume_opened(bytes: &[u8]) -> Result<Opened> {
    let opened = v1::ConsumeOpened::decode(bytes).map_err(|_| unreadable("subscribe"))?;
    Ok(Opened {
        resumed: opened.resumed,
        class: opened.class,
        partition: opened.partition,
        ack_wait_ms: opened.ack_wait_ms.max(1),
    })
}

/// Appends a change of credit to a consumer's frame.
pub(crate) fn put_credit(out: &mut BytesMut, messages: u32, bytes: u64) {
    append(out, &v1::ConsumeRequest { credit: Some(v1::Credit { messages, bytes }), ..Default::default() });
}

/// Appends a nack or a term to a consumer's frame.
pub(crate) fn put_negative(out: &mut BytesMut, n: &Negative) {
    let (first_seq, count, reason) = (n.seq, 1, n.reason.clone());
    let mut request = v1::ConsumeRequest::default();
    match n.delay {
        Some(delay) => request.nacks.push(v1::Nack { first_seq, count, delay_ms: millis(delay), reason }),
        None => request.terms.push(v1::Term { first_seq, count, reason }),
    }
    append(out, &request);
}

/// Encoded messages of one type put one behind the other are one message with the fields of all.
fn append(out: &mut BytesMut, request: &v1::ConsumeRequest) {
    out.reserve(request.encoded_len());
    out.extend_from_slice(&request.encode_to_vec());
}

pub(crate) fn gap(bytes: &[u8]) -> Gap {
    let gap = v1::Gap::decode(bytes).unwrap_or_default();
    Gap { from_seq: gap.from_seq, to_seq: gap.to_seq, reason: gap.reason }
}

/// First seq, count and error of an answered settlement.
pub(crate) fn settled(operation: &'static str, bytes: &[u8]) -> Result<(u64, u32, Option<Error>)> {
    let settled = v1::Settled::decode(bytes).map_err(|_| unreadable(operation))?;
    let error = settled.error.map(|e| error_from_proto(operation, e));
    Ok((settled.first_seq, settled.count, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appended_parts_read_as_one_frame() {
        let mut out = BytesMut::new();
        put_credit(&mut out, 5, 6);
        put_negative(&mut out, &Negative { seq: 1, delay: Some(Duration::from_secs(2)), reason: "later".into() });
        put_negative(&mut out, &Negative { seq: 2, delay: None, reason: "never".into() });
        let read = v1::ConsumeRequest::decode(&out[..]).unwrap();
        assert_eq!(read.credit.unwrap().messages, 5);
        assert_eq!((read.nacks[0].first_seq, read.nacks[0].delay_ms), (1, 2000));
        assert_eq!(read.terms[0].reason, "never");
    }
}
