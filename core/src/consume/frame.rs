//! A delivered frame and the way through it: messages are found in place, nothing is copied.

use std::{sync::Arc, time::Instant};

use acb_types::frame::{MESSAGE_TAG, read_varint};
use bytes::Bytes;
use smallvec::SmallVec;

use super::{Consumer, settle::Lease};
use crate::{
    error::{Error, Result},
    message::Message,
    transport::wire::{Run, Value, read_field},
};

/// Messages that came together, and what is known of them.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) body: Bytes,
    pub(crate) runs: SmallVec<[Run; 1]>,
    pub(crate) consumer: Arc<Consumer>,
    pub(crate) lease: Lease,
    pub(crate) arrived: Instant,
    pub(crate) class: u8,
    pub(crate) partition: u16,
}

/// A range of bytes in a frame's body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: u32,
    pub(crate) to: u32,
}

impl Span {
    pub(crate) fn of(self, body: &[u8]) -> &[u8] {
        body.get(self.from as usize..self.to as usize).unwrap_or_default()
    }
}

const TOPIC: u32 = 1;
const PAYLOAD: u32 = 15;

/// Where a reader is in a frame.
#[derive(Debug)]
pub(crate) struct Cursor {
    frame: Arc<Frame>,
    at: usize,
    run: usize,
    in_run: u32,
}

impl Cursor {
    pub(crate) fn new(frame: Arc<Frame>) -> Self {
        Self { frame, at: 0, run: 0, in_run: 0 }
    }

    /// The next message; `None` at the end.
    ///
    /// # Errors
    /// For bytes that are no messages, or that do not fit their runs; the frame is over then.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<Result<Message>> {
        let body = &self.frame.body[..];
        if self.at >= body.len() {
            return None;
        }
        if let Some(message) = self.step() {
            return Some(Ok(message));
        }
        self.at = self.frame.body.len();
        Some(Err(Error::protocol("subscription.next", "a delivered frame cannot be read")))
    }

    fn step(&mut self) -> Option<Message> {
        let body = &self.frame.body[..];
        while self.in_run == self.frame.runs.get(self.run)?.count {
            self.run += 1;
            self.in_run = 0;
        }
        let run = &self.frame.runs[self.run];
        let mut at = self.at;
        if body[at] != MESSAGE_TAG {
            return None;
        }
        at += 1;
        let len = usize::try_from(read_varint(body, &mut at)?).ok()?;
        let end = at.checked_add(len).filter(|end| *end <= body.len())?;
        let whole = Span { from: at as u32, to: end as u32 };
        let (mut topic, mut payload) = (Span::default(), Span::default());
        let mut field = at;
        while field < end {
            let (number, value) = read_field(&body[..end], &mut field)?;
            if let Value::Slice(slice) = value
                && (number == TOPIC || number == PAYLOAD)
            {
                let span = Span { from: (field - slice.len()) as u32, to: field as u32 };
                *(if number == TOPIC { &mut topic } else { &mut payload }) = span;
            }
        }
        let seq = run.first_seq + u64::from(self.in_run);
        let message = Message::new(Arc::clone(&self.frame), self.run as u32, seq, whole, topic, payload);
        self.at = end;
        self.in_run += 1;
        self.frame.consumer.handed_out();
        Some(message)
    }
}
