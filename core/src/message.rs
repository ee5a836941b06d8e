//! A message as it was delivered. Reading it copies nothing: it points into the frame that it came in.

use std::{fmt, sync::Arc, time::Duration};

use acb_types::{
    Attributes, ClassId, Envelope, MessageId, MessageKind, Priority, Timestamp, envelope::Text, frame, limits,
};
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::{
    consume::{
        frame::{Frame, Span},
        settle::Negative,
    },
    error::{Error, ErrorCode, Result},
    messages::PublishBuilder,
    transport::wire::{Run, Value, read_field},
    within::timeout_or,
};

mod field {
    pub(super) const KIND: u32 = 2;
    pub(super) const PRIORITY: u32 = 3;
    pub(super) const CORRELATION_ID: u32 = 4;
    pub(super) const REPLY_TO: u32 = 5;
    pub(super) const IDEMPOTENCY_KEY: u32 = 6;
    pub(super) const EXPIRES_AT: u32 = 7;
    pub(super) const ORDER_KEY: u32 = 9;
    pub(super) const CONTENT_TYPE: u32 = 10;
    pub(super) const TRACE: u32 = 12;
    pub(super) const ORIGINAL_TOPIC: u32 = 13;
    pub(super) const ATTRIBUTES: u32 = 14;
}

/// A delivered message. Cheap to clone; holds its frame's memory until it is dropped.
///
/// Settle it with [`ack`](Self::ack), [`nack`](Self::nack), [`term`](Self::term) or [`release`](Self::release) before
/// its lease ends, or ask for more time with [`progress`](Self::progress). All of these are queued at once and sent
/// together with others; none waits for the network. A message that is dropped unsettled comes again when its lease
/// ends.
#[derive(Clone)]
pub struct Message {
    frame: Arc<Frame>,
    run: u32,
    seq: u64,
    whole: Span,
    topic: Span,
    payload: Span,
    late: bool,
}

impl Message {
    #[inline]
    pub(crate) fn new(frame: Arc<Frame>, run: u32, seq: u64, whole: Span, topic: Span, payload: Span) -> Self {
        Self { frame, run, seq, whole, topic, payload, late: false }
    }

    pub(crate) fn flagged_late(mut self) -> Self {
        self.late = true;
        self
    }

    fn facts(&self) -> &Run {
        &self.frame.runs[self.run as usize]
    }

    fn find(&self, wanted: u32) -> Option<Value<'_>> {
        let bytes = self.whole.of(&self.frame.body);
        let mut at = 0;
        while at < bytes.len() {
            let (number, value) = read_field(bytes, &mut at)?;
            if number == wanted {
                return Some(value);
            }
            if number > wanted {
                return None;
            }
        }
        None
    }

    fn text(&self, wanted: u32) -> &str {
        match self.find(wanted) {
            Some(Value::Slice(bytes)) => std::str::from_utf8(bytes).unwrap_or_default(),
            _ => "",
        }
    }

    fn number(&self, wanted: u32) -> u64 {
        match self.find(wanted) {
            Some(Value::Number(n)) => n,
            _ => 0,
        }
    }

    /// Its id, which is its position.
    pub fn id(&self) -> MessageId {
        MessageId {
            class: ClassId(self.frame.class),
            partition: self.frame.partition,
            epoch: self.facts().epoch,
            seq: self.seq,
        }
    }

    /// Number within its partition.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Where it was sent to.
    pub fn topic(&self) -> &str {
        std::str::from_utf8(self.topic.of(&self.frame.body)).unwrap_or_default()
    }

    /// The content. Shares the frame's memory.
    pub fn payload(&self) -> Bytes {
        if self.payload.from == self.payload.to {
            return Bytes::new();
        }
        self.frame.body.slice(self.payload.from as usize..self.payload.to as usize)
    }

    /// The content, borrowed.
    pub fn payload_ref(&self) -> &[u8] {
        self.payload.of(&self.frame.body)
    }

    /// What it is for. A kind that this version does not know counts as a plain message.
    pub fn kind(&self) -> MessageKind {
        MessageKind::from_wire(self.number(field::KIND)).unwrap_or_default()
    }

    /// How urgent it is.
    pub fn priority(&self) -> Priority {
        Priority::from_wire(self.number(field::PRIORITY)).unwrap_or_default()
    }

    /// The word that ties messages together; empty without one.
    pub fn correlation_id(&self) -> &str {
        self.text(field::CORRELATION_ID)
    }

    /// Topic that wants the reply; empty without one.
    pub fn reply_to(&self) -> &str {
        self.text(field::REPLY_TO)
    }

    /// The sender's key against doubles; empty without one.
    pub fn idempotency_key(&self) -> &str {
        self.text(field::IDEMPOTENCY_KEY)
    }

    /// After this it is of no use any more; not set means never.
    pub fn expires_at(&self) -> Timestamp {
        Timestamp(self.number(field::EXPIRES_AT))
    }

    /// Messages of one key are handled one after the other; empty without one.
    pub fn order_key(&self) -> &str {
        self.text(field::ORDER_KEY)
    }

    /// Media type of the payload; empty without one.
    pub fn content_type(&self) -> &str {
        self.text(field::CONTENT_TYPE)
    }

    /// W3C trace context (`traceparent`); empty without one.
    pub fn trace(&self) -> &str {
        self.text(field::TRACE)
    }

    /// The topic it was first published to, on a redriven dead letter; empty otherwise.
    pub fn original_topic(&self) -> &str {
        self.text(field::ORIGINAL_TOPIC)
    }

    /// Named values.
    pub fn attributes(&self) -> Attributes {
        match self.find(field::ATTRIBUTES) {
            Some(Value::Slice([]) | Value::Number(_)) | None => Attributes::EMPTY,
            Some(Value::Slice(block)) => {
                let from = block.as_ptr() as usize - self.frame.body.as_ptr() as usize;
                // The bus checked the block when it was published.
                Attributes::from_block(self.frame.body.slice(from..from + block.len())).unwrap_or_default()
            }
        }
    }

    /// One named value.
    pub fn attribute(&self, name: &str) -> Option<String> {
        self.attributes().get(name).map(str::to_owned)
    }

    /// All of it as its parts.
    ///
    /// # Errors
    /// `malformed_frame` when it has fields that this version does not know.
    pub fn envelope(&self) -> Result<Envelope> {
        let bytes = self.frame.body.slice(self.whole.from as usize..self.whole.to as usize);
        frame::decode(&bytes).map_err(|e| Error::new(ErrorCode::from(&e), "message.envelope", e.to_string()))
    }

    /// Agent that sent it. The bus knows it; a sender cannot forge it.
    pub fn from(&self) -> &str {
        std::str::from_utf8(&self.facts().from).unwrap_or_default()
    }

    /// That agent's incarnation; 0 when it had not registered.
    pub fn from_incarnation(&self) -> u64 {
        self.facts().from_incarnation
    }

    /// Which attempt this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.facts().attempt
    }

    /// Whether it was delivered before.
    pub fn is_redelivered(&self) -> bool {
        self.facts().attempt > 1
    }

    /// When it was stored.
    pub fn stored_at(&self) -> Timestamp {
        Timestamp(self.facts().stored_at)
    }

    /// Whether it wants a reply.
    pub fn is_request(&self) -> bool {
        self.kind() == MessageKind::Request
    }

    /// Whether it is a reply that came when nobody waited for it any more.
    pub fn is_late(&self) -> bool {
        self.late
    }

    /// How long a consumer has for one message of this subscription.
    pub fn ack_wait(&self) -> Duration {
        self.frame.consumer.ack_wait()
    }

    /// Says that it is done. Sent with others: at a quarter of the credits, with the next frame, or after the ack
    /// linger (5 ms by default). Journaled by the bus within 20 ms of its arrival.
    ///
    /// # Errors
    /// `lease_lost` when the connection that delivered it is gone and its leases with it, or the subscription is.
    #[inline]
    pub fn ack(&self) -> Result<()> {
        let size = u64::from(self.whole.to - self.whole.from);
        self.frame.consumer.ack(self.seq, size, self.frame.lease)
    }

    /// Says that it is done, and waits until that is on disk.
    ///
    /// # Errors
    /// `lease_lost`; `timeout` when no answer came within the request timeout: it may be done.
    ///
    /// # Cancel safety
    /// The ack is sent in any case; only the answer is not waited for.
    pub async fn ack_confirmed(&self) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        let consumer = &self.frame.consumer;
        consumer.finish(|s| s.ack_confirmed(self.seq, self.frame.lease, answer))?;
        let timeout = timeout_or(consumer.core().options().request_timeout);
        match tokio::time::timeout(timeout, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Error::closed("message.ack_confirmed")),
            Err(_) => Err(Error::timeout("message.ack_confirmed", timeout)),
        }
    }

    /// Says that it failed: it comes again after `delay` (up to 7 days), or by the subscription's schedule with `None`,
    /// or becomes a dead letter when this was its last attempt. The reason is kept with the dead letter; at most 1,024
    /// bytes, the rest is cut.
    ///
    /// # Errors
    /// `lease_lost`; `invalid_argument` for a delay over 7 days.
    pub fn nack(&self, delay: Option<Duration>, reason: impl Into<String>) -> Result<()> {
        if delay.is_some_and(|d| d > limits::NACK_DELAY_MAX) {
            let text = format!("delay exceeds limit of {:?}", limits::NACK_DELAY_MAX);
            return Err(Error::new(ErrorCode::InvalidArgument, "message.nack", text).with("field", "delay"));
        }
        let negative = Negative { seq: self.seq, delay: Some(delay.unwrap_or_default()), reason: cut(reason.into()) };
        self.frame.consumer.finish(|s| s.negative(negative, self.frame.lease, "message.nack"))
    }

    /// Says that it must not be tried again: it becomes a dead letter now, with this reason (at most 1,024 bytes).
    ///
    /// # Errors
    /// `lease_lost`.
    pub fn term(&self, reason: impl Into<String>) -> Result<()> {
        let negative = Negative { seq: self.seq, delay: None, reason: cut(reason.into()) };
        self.frame.consumer.finish(|s| s.negative(negative, self.frame.lease, "message.term"))
    }

    /// Says that work goes on: the lease starts anew.
    ///
    /// # Errors
    /// `lease_lost`.
    pub fn progress(&self) -> Result<()> {
        self.frame.consumer.settle(|s| s.progress(self.seq, self.frame.lease))
    }

    /// Gives it back untouched: it comes again at once, to whomever, and this does not count as an attempt.
    ///
    /// # Errors
    /// `lease_lost`.
    pub fn release(&self) -> Result<()> {
        self.frame.consumer.finish(|s| s.release(self.seq, self.frame.lease))
    }

    /// Starts a reply: sent to its `reply_to` under its correlation id, `written` unless said otherwise.
    ///
    /// # Errors
    /// `missing_field` when it wants no reply.
    pub fn reply(&self, payload: impl Into<Bytes>) -> Result<PublishBuilder> {
        let reply_to = self.reply_to();
        if reply_to.is_empty() {
            return Err(Error::new(ErrorCode::MissingField, "message.reply", "the message wants no reply"));
        }
        let core = Arc::clone(self.frame.consumer.core());
        Ok(PublishBuilder::reply(core, Text::from(reply_to), self.correlation_id(), payload.into()))
    }

    /// Renews its lease from now on: until it is settled, or the guard is dropped, or 12 hours are over. For handlers
    /// that run outside of [`Subscription::for_each`](crate::Subscription::for_each), which does this by itself.
    pub fn keep_lease(&self) -> KeptLease {
        self.frame.consumer.hold(self.seq);
        KeptLease(self.clone())
    }
}

/// A lease that is renewed as long as this lives. Made by [`Message::keep_lease`].
#[derive(Debug)]
#[must_use = "the lease is renewed until the guard is dropped"]
pub struct KeptLease(Message);

impl KeptLease {
    /// Whether the lease is still kept: the message was neither settled nor lost since.
    pub fn is_kept(&self) -> bool {
        self.0.frame.consumer.is_held(self.0.seq)
    }

    /// The message.
    pub fn message(&self) -> &Message {
        &self.0
    }
}

impl Drop for KeptLease {
    fn drop(&mut self) {
        self.0.frame.consumer.let_go(self.0.seq);
    }
}

/// A reason within its limit, cut between characters.
fn cut(mut reason: String) -> String {
    if reason.len() > limits::REASON_BYTES_MAX {
        let mut at = limits::REASON_BYTES_MAX;
        while !reason.is_char_boundary(at) {
            at -= 1;
        }
        reason.truncate(at);
    }
    reason
}

impl fmt::Debug for Message {
    /// Everything but the payload, which is nobody's business in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.id().to_string())
            .field("topic", &self.topic())
            .field("kind", &self.kind())
            .field("from", &self.from())
            .field("attempt", &self.attempt())
            .field("payload_bytes", &self.payload_ref().len())
            .field("late", &self.late)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let reason = cut("ä".repeat(1000));
        assert_eq!(reason.len(), 1024);
        assert_eq!(cut(format!("x{reason}")).len(), 1023);
        assert_eq!(cut("short".into()), "short");
    }
}
