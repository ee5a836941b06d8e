//! The one pass over a frame that comes in.

use bytes::Bytes;

use super::{FrameError, MESSAGE_TAG, Run, Walked, field, field_limit, field_name, flag, read_canonical};
use crate::{
    attributes,
    envelope::{MessageKind, Priority},
    limits,
    name::{Address, Topic},
};

/// One message's fields while they are walked.
pub(super) enum Value<'a> {
    Number(u64),
    Slice(&'a [u8]),
}

/// Walks the fields of one message. `visit` gets each field's number and value, in order.
#[inline]
pub(super) fn walk_fields<'a>(
    message: &'a [u8],
    index: u32,
    mut visit: impl FnMut(u8, Value<'a>) -> Result<(), FrameError>,
) -> Result<(), FrameError> {
    let malformed = FrameError::Malformed { index };
    let (mut at, mut last) = (0, 0);
    while at < message.len() {
        let tag = message[at];
        // Numbers above 15 take two bytes; this version knows none of them.
        if tag >= 0x80 {
            return Err(FrameError::NotCanonical { index });
        }
        at += 1;
        let number = tag >> 3;
        let repeated = number == field::CONTEXT_REFS;
        if number < last || (number == last && !repeated) || number == 0 {
            return Err(FrameError::NotCanonical { index });
        }
        last = number;
        let is_number = matches!(number, field::KIND | field::PRIORITY | field::EXPIRES_AT | field::NOT_BEFORE);
        let wire = tag & 7;
        if wire != if is_number { 0 } else { 2 } {
            return Err(malformed);
        }
        let Some((value, shortest)) = read_canonical(message, &mut at) else { return Err(malformed) };
        if !shortest || (value == 0 && !repeated) {
            return Err(FrameError::NotCanonical { index });
        }
        if is_number {
            visit(number, Value::Number(value))?;
            continue;
        }
        let Some(slice) = usize::try_from(value).ok().and_then(|n| message.get(at..at.checked_add(n)?)) else {
            return Err(malformed);
        };
        at += slice.len();
        let limit = field_limit(number);
        if slice.len() > limit {
            return Err(FrameError::TooLarge { index, field: field_name(number), bytes: slice.len(), limit });
        }
        visit(number, Value::Slice(slice))?;
    }
    Ok(())
}

/// Checks the messages of a frame and sorts them into runs.
///
/// `body` is the frame from its first message tag to its end. At most [`limits::FRAME_MESSAGES_MAX`] messages; the
/// frame's byte limit is the transport's affair. Costs some 20 ns a message and nothing on the heap for frames of one
/// topic.
///
/// # Errors
/// The first message that cannot be taken, with its index. Nothing of the frame counts then.
pub fn walk(body: &Bytes) -> Result<Walked, FrameError> {
    let bytes = &body[..];
    let mut out = Walked::default();
    let mut at = 0;
    // Byte range of the topic of the run in progress.
    let mut current = 0..0;
    while at < bytes.len() {
        let index = out.count;
        let start = at;
        if bytes[at] != MESSAGE_TAG {
            return Err(FrameError::NotCanonical { index });
        }
        at += 1;
        let Some((len, shortest)) = read_canonical(bytes, &mut at) else {
            return Err(FrameError::Malformed { index });
        };
        if !shortest {
            return Err(FrameError::NotCanonical { index });
        }
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let from = at;
        let Some(message) = from.checked_add(len).and_then(|end| bytes.get(from..end)) else {
            return Err(FrameError::Malformed { index });
        };
        at += len;
        if index >= limits::FRAME_MESSAGES_MAX {
            return Err(FrameError::TooManyMessages { count: index + 1, limit: limits::FRAME_MESSAGES_MAX });
        }
        let mut topic = 0..0;
        let mut refs = 0;
        walk_fields(message, index, |number, value| {
            match value {
                Value::Number(n) => match number {
                    field::KIND => {
                        if MessageKind::from_wire(n).is_none() {
                            return Err(FrameError::UnknownEnum { index, field: "kind", value: n });
                        }
                        if n == MessageKind::Request as u64 {
                            out.flags |= flag::REQUEST;
                        }
                    }
                    field::PRIORITY => {
                        if Priority::from_wire(n).is_none() {
                            return Err(FrameError::UnknownEnum { index, field: "priority", value: n });
                        }
                        out.flags |= flag::PRIORITY;
                    }
                    field::EXPIRES_AT => out.flags |= flag::EXPIRY,
                    _ => out.flags |= flag::NOT_BEFORE,
                },
                Value::Slice(s) => match number {
                    field::TOPIC => {
                        let offset = s.as_ptr() as usize - bytes.as_ptr() as usize;
                        topic = offset..offset + s.len();
                    }
                    field::PAYLOAD => {}
                    field::ATTRIBUTES => {
                        attributes::check(s).map_err(|source| FrameError::Attributes { index, source })?;
                        out.flags |= flag::ATTRIBUTES;
                    }
                    _ => {
                        let Ok(text) = std::str::from_utf8(s) else {
                            return Err(FrameError::Utf8 { index, field: field_name(number) });
                        };
                        match number {
                            field::REPLY_TO => {
                                Topic::check_as("reply_to", text)
                                    .and_then(|()| Address::check_reply_to(text))
                                    .map_err(|source| FrameError::Topic { index, source })?;
                            }
                            field::ORIGINAL_TOPIC => out.flags |= flag::ORIGINAL_TOPIC,
                            field::IDEMPOTENCY_KEY => out.flags |= flag::IDEMPOTENCY,
                            field::ORDER_KEY => out.flags |= flag::ORDER_KEY,
                            field::CONTEXT_REFS => {
                                refs += 1;
                                if refs > limits::CONTEXT_REFS_MAX {
                                    let limit = limits::CONTEXT_REFS_MAX;
                                    return Err(FrameError::TooMany {
                                        index,
                                        field: "context_refs",
                                        count: refs,
                                        limit,
                                    });
                                }
                            }
                            _ => {}
                        }
                    }
                },
            }
            Ok(())
        })?;
        if topic.is_empty() {
            return Err(FrameError::NoTopic { index });
        }
        let size = (at - start) as u32;
        match out.runs.last_mut() {
            Some(run) if bytes[current.clone()] == bytes[topic.clone()] => {
                run.count += 1;
                run.len += size;
            }
            _ => {
                let text = std::str::from_utf8(&bytes[topic.clone()])
                    .map_err(|_| FrameError::Utf8 { index, field: "topic" })?;
                Topic::check(text).map_err(|source| FrameError::Topic { index, source })?;
                current = topic.clone();
                out.runs.push(Run { topic: body.slice(topic), count: 1, offset: start as u32, len: size });
            }
        }
        out.count += 1;
    }
    Ok(out)
}
