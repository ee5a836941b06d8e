//! The byte layout that socket, log and subscriber share (ADR 0002).
//!
//! A frame's messages are protobuf field 15 of the publish frame, of the delivery frame and of a log batch alike, so a
//! frame's bytes go from one socket to the disk and to every subscriber unchanged. Their canonical form is what an
//! ordinary protobuf encoder writes: fields in rising order, so the small fields of a frame stand before its messages
//! and the topic stands first in each message. [`walk`] checks a frame's messages in one pass without allocating per
//! message and sorts them into runs of one topic; work downstream is per run.
//!
//! The walk looks at every field's tag, length and range, because what it lets through reaches other agents: a message
//! that a subscriber cannot read must be stopped here, at the one who sent it. It takes canonical form and nothing else,
//! so that equal messages are equal bytes and [`encode`] of what [`decode`] read gives back what came.

mod codec;
mod error;
mod walk;

use bytes::{BufMut, Bytes};
use smallvec::SmallVec;

pub use self::{
    codec::{decode, encode, encode_parts},
    error::FrameError,
    walk::walk,
};
use crate::limits;

/// Tag byte of a message in a frame: field 15, length-delimited.
pub const MESSAGE_TAG: u8 = 15 << 3 | 2;

mod field {
    pub(super) const TOPIC: u8 = 1;
    pub(super) const KIND: u8 = 2;
    pub(super) const PRIORITY: u8 = 3;
    pub(super) const CORRELATION_ID: u8 = 4;
    pub(super) const REPLY_TO: u8 = 5;
    pub(super) const IDEMPOTENCY_KEY: u8 = 6;
    pub(super) const EXPIRES_AT: u8 = 7;
    pub(super) const NOT_BEFORE: u8 = 8;
    pub(super) const ORDER_KEY: u8 = 9;
    pub(super) const CONTENT_TYPE: u8 = 10;
    pub(super) const CONTEXT_REFS: u8 = 11;
    pub(super) const TRACE: u8 = 12;
    pub(super) const ORIGINAL_TOPIC: u8 = 13;
    pub(super) const ATTRIBUTES: u8 = 14;
    pub(super) const PAYLOAD: u8 = 15;
}

/// What some message of a frame carries, so that per-message work is done only where it is asked for.
pub mod flag {
    /// An idempotency key.
    pub const IDEMPOTENCY: u16 = 1;
    /// An expiry.
    pub const EXPIRY: u16 = 2;
    /// A kind of `request`.
    pub const REQUEST: u16 = 4;
    /// A priority other than normal.
    pub const PRIORITY: u16 = 8;
    /// An order key.
    pub const ORDER_KEY: u16 = 16;
    /// A time before which it is not delivered.
    pub const NOT_BEFORE: u16 = 32;
    /// Attributes.
    pub const ATTRIBUTES: u16 = 64;
    /// The topic that it was first published to: only the server sets it, so edges refuse it from clients.
    pub const ORIGINAL_TOPIC: u16 = 128;
}

/// Consecutive messages of one topic inside a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Their topic, checked. A slice of the frame.
    pub topic: Bytes,
    /// How many they are; at least 1.
    pub count: u32,
    /// Where the first starts, counted from the start of the messages.
    pub offset: u32,
    /// How many bytes they take, tags included.
    pub len: u32,
}

impl Run {
    /// The topic as text.
    pub fn topic_str(&self) -> &str {
        std::str::from_utf8(&self.topic).unwrap_or_default()
    }
}

/// Runs of a frame; nearly always one.
pub type Runs = SmallVec<[Run; 1]>;

/// What [`walk`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// How many messages.
    pub count: u32,
    /// Union of [`flag`]s over all messages.
    pub flags: u16,
    /// The messages as runs, in order.
    pub runs: Runs,
}

/// Reads one varint at `at` and moves it on.
#[inline]
pub fn read_varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let first = *bytes.get(*at)?;
    *at += 1;
    if first < 0x80 {
        return Some(u64::from(first));
    }
    let mut value = u64::from(first & 0x7f);
    let mut shift = 7;
    loop {
        let next = *bytes.get(*at)?;
        *at += 1;
        // The tenth byte may hold one bit only.
        if shift == 63 && next > 1 {
            return None;
        }
        value |= u64::from(next & 0x7f) << shift;
        if next < 0x80 {
            return Some(value);
        }
        shift += 7;
        if shift > 63 {
            return None;
        }
    }
}

/// As [`read_varint`], and tells whether it was in its shortest form.
#[inline]
fn read_canonical(bytes: &[u8], at: &mut usize) -> Option<(u64, bool)> {
    let start = *at;
    let value = read_varint(bytes, at)?;
    // A varint is as short as can be unless its last of several bytes is zero.
    Some((value, *at - start == 1 || bytes[*at - 1] != 0))
}

/// Writes one varint.
#[inline]
pub fn put_varint(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// How many bytes [`put_varint`] writes.
#[inline]
pub fn varint_len(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

fn field_name(number: u8) -> &'static str {
    match number {
        field::TOPIC => "topic",
        field::KIND => "kind",
        field::PRIORITY => "priority",
        field::CORRELATION_ID => "correlation_id",
        field::REPLY_TO => "reply_to",
        field::IDEMPOTENCY_KEY => "idempotency_key",
        field::EXPIRES_AT => "expires_at_ms",
        field::NOT_BEFORE => "not_before_ms",
        field::ORDER_KEY => "order_key",
        field::CONTENT_TYPE => "content_type",
        field::CONTEXT_REFS => "context_refs",
        field::TRACE => "trace",
        field::ORIGINAL_TOPIC => "original_topic",
        field::ATTRIBUTES => "attributes",
        _ => "payload",
    }
}

/// Limit of a length-delimited field, in bytes.
fn field_limit(number: u8) -> usize {
    match number {
        field::TOPIC | field::REPLY_TO | field::ORIGINAL_TOPIC => crate::name::TOPIC_BYTES_MAX,
        field::ATTRIBUTES => limits::ATTRIBUTES_BYTES_MAX,
        field::PAYLOAD => limits::PAYLOAD_BYTES_MAX,
        _ => limits::SHORT_TEXT_BYTES_MAX,
    }
}

/// Byte length of the first `count` messages of a checked frame body.
pub fn prefix_len(body: &[u8], count: u32) -> usize {
    let mut at = 0;
    for _ in 0..count {
        at += 1;
        match read_varint(body, &mut at) {
            Some(n) => at = at.saturating_add(n as usize),
            None => return body.len(),
        }
    }
    at.min(body.len())
}

/// Iterates over the messages of a checked frame body: each item is one message's fields, without tag and length.
pub fn messages(body: &Bytes) -> Messages {
    Messages { body: body.clone(), at: 0 }
}

/// Iterator of [`messages`].
#[derive(Clone, Debug)]
pub struct Messages {
    body: Bytes,
    at: usize,
}

impl Messages {
    /// How many bytes of the body were consumed.
    pub fn consumed(&self) -> usize {
        self.at
    }
}

impl Iterator for Messages {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.at >= self.body.len() {
            return None;
        }
        let mut at = self.at + 1;
        let len = read_varint(&self.body, &mut at)? as usize;
        let end = at.checked_add(len).filter(|end| *end <= self.body.len())?;
        self.at = end;
        Some(self.body.slice(at..end))
    }
}
