//! Messages to bytes and back.

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    FrameError, MESSAGE_TAG, field, field_name, put_varint, varint_len,
    walk::{Value, walk_fields},
};
use crate::{
    attributes::Attributes,
    envelope::{Envelope, MessageKind, Priority, Text},
    time::Timestamp,
};

/// Reads one message's fields. Leaves the grammar of topics and the number of context ids to [`walk`](super::walk()).
///
/// # Errors
/// As [`walk`](super::walk()) for the rest; `index` is 0.
pub fn decode(message: &Bytes) -> Result<Envelope, FrameError> {
    let base = message.as_ptr() as usize;
    let slice = |s: &[u8]| {
        let offset = s.as_ptr() as usize - base;
        message.slice(offset..offset + s.len())
    };
    let mut out = Envelope::default();
    walk_fields(message, 0, |number, value| {
        match value {
            Value::Number(n) => match number {
                field::KIND => {
                    out.kind = MessageKind::from_wire(n).ok_or(FrameError::UnknownEnum {
                        index: 0,
                        field: "kind",
                        value: n,
                    })?;
                }
                field::PRIORITY => {
                    out.priority = Priority::from_wire(n).ok_or(FrameError::UnknownEnum {
                        index: 0,
                        field: "priority",
                        value: n,
                    })?;
                }
                field::EXPIRES_AT => out.expires_at = Timestamp(n),
                _ => out.not_before = Timestamp(n),
            },
            Value::Slice(s) => {
                let bytes = slice(s);
                match number {
                    field::PAYLOAD => out.payload = bytes,
                    field::ATTRIBUTES => {
                        out.attributes = Attributes::from_block(bytes)
                            .map_err(|source| FrameError::Attributes { index: 0, source })?;
                    }
                    _ => {
                        let text =
                            Text::from_utf8(bytes).ok_or(FrameError::Utf8 { index: 0, field: field_name(number) })?;
                        match number {
                            field::TOPIC => out.topic = text,
                            field::CORRELATION_ID => out.correlation_id = text,
                            field::REPLY_TO => out.reply_to = text,
                            field::IDEMPOTENCY_KEY => out.idempotency_key = text,
                            field::ORDER_KEY => out.order_key = text,
                            field::CONTENT_TYPE => out.content_type = text,
                            field::CONTEXT_REFS => out.context_refs.push(text),
                            field::TRACE => out.trace = text,
                            _ => out.original_topic = text,
                        }
                    }
                }
            }
        }
        Ok(())
    })?;
    Ok(out)
}

/// Writes one message in canonical form, tag and length included, and returns how many bytes that took.
///
/// Does not check limits: builders do, where the caller can still be told.
pub fn encode(out: &mut BytesMut, m: &Envelope) -> usize {
    write(out, m, m.topic.as_bytes(), &m.payload)
}

/// As [`encode`], with topic and payload taken from elsewhere: a publisher that sends many messages of one shape keeps
/// one envelope and lends these two.
pub fn encode_parts(out: &mut BytesMut, m: &Envelope, topic: &str, payload: &[u8]) -> usize {
    write(out, m, topic.as_bytes(), payload)
}

fn write(out: &mut BytesMut, m: &Envelope, topic: &[u8], payload: &[u8]) -> usize {
    let texts = [
        &m.correlation_id,
        &m.reply_to,
        &m.idempotency_key,
        &m.order_key,
        &m.content_type,
        &m.trace,
        &m.original_topic,
    ];
    let attributes = m.attributes.block();
    let mut len = slice_len(topic.len())
        + number_len(m.kind as u64)
        + number_len(m.priority as u64)
        + number_len(m.expires_at.0)
        + number_len(m.not_before.0)
        + slice_len(attributes.len())
        + slice_len(payload.len());
    for text in texts {
        len += slice_len(text.as_bytes().len());
    }
    for text in &m.context_refs {
        len += entry_len(text.as_bytes().len());
    }
    let whole = entry_len(len);
    out.reserve(whole);
    let before = out.len();
    put_entry_head(out, MESSAGE_TAG, len);
    put_slice(out, field::TOPIC, topic);
    put_number(out, field::KIND, m.kind as u64);
    put_number(out, field::PRIORITY, m.priority as u64);
    put_slice(out, field::CORRELATION_ID, m.correlation_id.as_bytes());
    put_slice(out, field::REPLY_TO, m.reply_to.as_bytes());
    put_slice(out, field::IDEMPOTENCY_KEY, m.idempotency_key.as_bytes());
    put_number(out, field::EXPIRES_AT, m.expires_at.0);
    put_number(out, field::NOT_BEFORE, m.not_before.0);
    put_slice(out, field::ORDER_KEY, m.order_key.as_bytes());
    put_slice(out, field::CONTENT_TYPE, m.content_type.as_bytes());
    for text in &m.context_refs {
        put_entry_head(out, field::CONTEXT_REFS << 3 | 2, text.as_bytes().len());
        out.extend_from_slice(text.as_bytes());
    }
    put_slice(out, field::TRACE, m.trace.as_bytes());
    put_slice(out, field::ORIGINAL_TOPIC, m.original_topic.as_bytes());
    put_slice(out, field::ATTRIBUTES, attributes);
    put_slice(out, field::PAYLOAD, payload);
    debug_assert_eq!(out.len() - before, whole, "the length was counted right");
    whole
}

/// Bytes of a tag of one byte, a length, and what it counts.
fn entry_len(n: usize) -> usize {
    1 + varint_len(n as u64) + n
}

fn slice_len(n: usize) -> usize {
    if n == 0 { 0 } else { entry_len(n) }
}

fn number_len(n: u64) -> usize {
    if n == 0 { 0 } else { 1 + varint_len(n) }
}

/// Tag and length in one write: each write to a buffer costs a check of its room.
fn put_entry_head(out: &mut BytesMut, tag: u8, len: usize) {
    if len < 0x80 {
        out.extend_from_slice(&[tag, len as u8]);
    } else if len < 0x4000 {
        out.extend_from_slice(&[tag, len as u8 | 0x80, (len >> 7) as u8]);
    } else {
        out.put_u8(tag);
        put_varint(out, len as u64);
    }
}

fn put_slice(out: &mut BytesMut, number: u8, value: &[u8]) {
    if !value.is_empty() {
        put_entry_head(out, number << 3 | 2, value.len());
        out.extend_from_slice(value);
    }
}

fn put_number(out: &mut BytesMut, number: u8, value: u64) {
    if value != 0 {
        out.put_u8(number << 3);
        put_varint(out, value);
    }
}
