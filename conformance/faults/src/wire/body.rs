//! One way of a call: gRPC's messages out of HTTP's pieces, changed, and back again.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http_body::Frame;
use parking_lot::Mutex;

use super::{Change, Conversation};

/// Compression flag and length before each message.
const PREFIX_BYTES: usize = 5;

/// Which way a body goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Up,
    Down,
}

/// A body whose messages are changed as they pass.
pub(super) struct Edited {
    inner: Body,
    way: Way,
    changes: Vec<Change>,
    conversation: Arc<Mutex<Conversation>>,
    buffer: BytesMut,
}

impl Edited {
    pub(super) fn new(inner: Body, way: Way, changes: Vec<Change>, conversation: &Arc<Mutex<Conversation>>) -> Self {
        Self { inner, way, changes, conversation: Arc::clone(conversation), buffer: BytesMut::new() }
    }

    /// All whole messages of the buffer, changed.
    fn pass(&mut self) -> Bytes {
        let mut out = BytesMut::new();
        while let Some(message) = take(&mut self.buffer) {
            let mut conversation = self.conversation.lock();
            if self.way == Way::Up && conversation.request.is_empty() {
                conversation.request = message.clone();
            }
            let changed = self.changes.iter().fold(message, |message, change| change(&mut conversation, message));
            put(&mut out, &changed);
        }
        out.freeze()
    }

    fn injected(&self, cx: &Context<'_>) -> Option<Bytes> {
        if self.way == Way::Up {
            return None;
        }
        let mut conversation = self.conversation.lock();
        conversation.reader = Some(cx.waker().clone());
        let message = conversation.injected.pop_front()?;
        let mut out = BytesMut::new();
        put(&mut out, &message);
        Some(out.freeze())
    }
}

/// Takes the first whole message off a buffer.
pub(super) fn take(buffer: &mut BytesMut) -> Option<Bytes> {
    let head = buffer.get(..PREFIX_BYTES)?;
    let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if buffer.len() < PREFIX_BYTES + len {
        return None;
    }
    buffer.advance(PREFIX_BYTES);
    Some(buffer.split_to(len).freeze())
}

/// Appends a message with its prefix.
pub(super) fn put(out: &mut BytesMut, message: &[u8]) {
    out.put_u8(0);
    out.put_u32(message.len() as u32);
    out.put_slice(message);
}

impl http_body::Body for Edited {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        loop {
            if let Some(bytes) = self.injected(cx) {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            let frame = match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(None) if self.way == Way::Up && self.conversation.lock().breaks_at_end => {
                    let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
                    return Poll::Ready(Some(Err(axum::Error::new(broken))));
                }
                other => return other,
            };
            match frame.into_data() {
                Ok(data) => {
                    self.buffer.extend_from_slice(&data);
                    let out = self.pass();
                    if !out.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(out))));
                    }
                }
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
    }
}
