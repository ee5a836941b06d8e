//! One message, from its parts to the open frame.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use acb_proto::v1::message_service_client::MessageServiceClient;
use acb_types::{
    Attributes, ClassId, Durability, Envelope, MessageKind, Priority, Timestamp, envelope::Text, frame, limits,
    name::Address,
};
use bytes::{Bytes, BytesMut};

use crate::{
    connection::Core,
    convert,
    error::{Error, ErrorCode, Result},
    idempotency::IdempotencyKey,
    publish::{Published, Receipt, Refused, window::Ticket},
    retry::Safety,
    time::now,
};

/// Room for tags, lengths and numbers of a message, more than they ever take.
const OVERHEAD_MAX: usize = 160;

/// One message in the making. Finish it with [`send`](Self::send), which queues it, or [`confirm`](Self::confirm), which
/// waits until it is stored.
#[derive(Clone, Debug)]
#[must_use = "a message goes nowhere until send or confirm is awaited"]
pub struct PublishBuilder {
    core: Arc<Core>,
    operation: &'static str,
    envelope: Envelope,
    attributes: Vec<(String, String)>,
    durability: Option<Durability>,
    error: Option<Error>,
}

impl PublishBuilder {
    pub(super) fn to(core: Arc<Core>, operation: &'static str, topic: Result<Text>, payload: Bytes) -> Self {
        let durability = core.options().durability;
        let (topic, error) = match topic {
            Ok(topic) => (topic, None),
            Err(error) => (Text::EMPTY, Some(error)),
        };
        let envelope = Envelope { topic, payload, ..Envelope::default() };
        Self { core, operation, envelope, attributes: Vec::new(), durability, error }
    }

    pub(crate) fn reply(core: Arc<Core>, reply_to: Text, correlation_id: &str, payload: Bytes) -> Self {
        let mut reply = Self::to(core, "message.reply", Ok(reply_to), payload);
        reply.envelope.kind = MessageKind::Reply;
        reply.envelope.correlation_id = correlation_id.into();
        reply.durability = Some(Durability::Written);
        reply
    }

    /// How much it must survive before it is acknowledged. By default the server decides, which is `synced` for sends
    /// and publishes, `written` for requests and replies.
    pub fn durability(mut self, level: Durability) -> Self {
        self.durability = Some(level);
        self
    }

    /// A named value that subscriptions can filter on; at most 64 of them and 16 KiB in all.
    pub fn attribute(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.push((name.into(), value.into()));
        self
    }

    /// Several named values.
    pub fn attributes<K: Into<String>, V: Into<String>>(mut self, pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        self.attributes.extend(pairs.into_iter().map(|(k, v)| (k.into(), v.into())));
        self
    }

    /// The sender's key against doubles, at most 128 bytes, kept for 10 minutes: a repeat is answered like the first,
    /// with `duplicate` set; another topic or payload under the same key is `idempotency_conflict`. Not needed against
    /// the client's own resends: those are stored once in any case.
    pub fn idempotency_key(mut self, key: impl AsRef<str>) -> Self {
        self.envelope.idempotency_key = key.as_ref().into();
        self
    }

    /// A fresh key of 128 random bits, for those who repeat the whole call themselves.
    pub fn with_new_idempotency_key(self) -> Self {
        self.idempotency_key(IdempotencyKey::random().as_str())
    }

    /// How urgent it is; normal by default.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.envelope.priority = priority;
        self
    }

    /// What it is for; a plain message by default.
    pub fn kind(mut self, kind: MessageKind) -> Self {
        self.envelope.kind = kind;
        self
    }

    /// How long it may wait, from now on. After that it is not delivered any more.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.envelope.expires_at = now().after(ttl);
        self
    }

    /// When it is not delivered any more.
    pub fn expires_at(mut self, at: Timestamp) -> Self {
        self.envelope.expires_at = at;
        self
    }

    /// Messages of one key are handled one after the other; at most 128 bytes.
    pub fn order_key(mut self, key: impl AsRef<str>) -> Self {
        self.envelope.order_key = key.as_ref().into();
        self
    }

    /// A word of one's own that ties messages together; at most 128 bytes.
    pub fn correlation_id(mut self, id: impl AsRef<str>) -> Self {
        self.envelope.correlation_id = id.as_ref().into();
        self
    }

    /// Topic that wants an answer.
    pub fn reply_to(mut self, topic: impl AsRef<str>) -> Self {
        self.envelope.reply_to = topic.as_ref().into();
        self
    }

    /// Media type of the payload, such as `application/json`; at most 128 bytes.
    pub fn content_type(mut self, media_type: impl AsRef<str>) -> Self {
        self.envelope.content_type = media_type.as_ref().into();
        self
    }

    /// W3C trace context (`traceparent`); at most 128 bytes.
    pub fn trace(mut self, traceparent: impl AsRef<str>) -> Self {
        self.envelope.trace = traceparent.as_ref().into();
        self
    }

    /// A context that it speaks of; at most 16 of them, 128 bytes each.
    pub fn context_ref(mut self, id: impl AsRef<str>) -> Self {
        self.envelope.context_refs.push(id.as_ref().into());
        self
    }

    /// Queues the message, waiting for room in the window. The receipt says later what became of it.
    ///
    /// Messages are stored in the order in which they were queued, whatever breaks on the way. One exception: what the
    /// bus refuses for a moment (`slow_down`, `storage_full`) is sent again by itself, and may then be stored after
    /// messages that were on their way already.
    ///
    /// # Errors
    /// `payload_too_large` and its kin at once; `timeout` when there was no room within the publish timeout: then it
    /// was not queued; `client_closed`.
    ///
    /// # Cancel safety
    /// Dropping the future before it is ready queues nothing.
    pub async fn send(self) -> Result<Receipt> {
        let operation = self.operation;
        let (core, envelope, durability) = self.finish()?;
        queue(&core, operation, &envelope, durability, false).await
    }

    /// Queues the message and waits until it is stored.
    ///
    /// # Errors
    /// As [`Self::send`], then whatever the bus refused it with: `agent_not_found`, `no_responders`,
    /// `idempotency_conflict`, `storage_full`, `durability_unavailable`; `timeout` when no answer came within the
    /// publish timeout: it may have been stored.
    ///
    /// # Cancel safety
    /// Once queued the message is sent whether or not the future goes on.
    pub async fn confirm(self) -> Result<Published> {
        self.send().await?.await
    }

    /// Stores the message by a call of its own and waits for the answer: for programs that send one and end. It opens no
    /// stream, costs several times as much as [`confirm`](Self::confirm), and has no order with what goes up the stream.
    ///
    /// Without an idempotency key it gets one, so that the call is repeated safely.
    ///
    /// # Errors
    /// As [`Self::confirm`].
    ///
    /// # Cancel safety
    /// It may have been stored.
    pub async fn post(self) -> Result<Published> {
        let operation = self.operation;
        let (core, mut envelope, durability) = self.finish()?;
        if envelope.idempotency_key.as_bytes().is_empty() {
            envelope.idempotency_key = IdempotencyKey::random().as_str().into();
        }
        let request = convert::send_request(operation, &envelope, durability)?;
        let response = core
            .call(operation, Safety::Idempotent, request, |to, request| async move {
                MessageServiceClient::with_origin(to.channel, to.origin).send(request).await
            })
            .await?;
        convert::published(operation, &response)
    }

    pub(super) fn finish(mut self) -> Result<(Arc<Core>, Envelope, Option<Durability>)> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if !self.attributes.is_empty() {
            self.envelope.attributes = Attributes::from_pairs(self.attributes)
                .map_err(|e| Error::new(ErrorCode::from(&e), self.operation, e.to_string()))?;
        }
        check(self.operation, &self.envelope)?;
        Ok((self.core, self.envelope, self.durability))
    }
}

/// Checks what the bus would refuse, while the caller can still be told.
pub(super) fn check(operation: &'static str, m: &Envelope) -> Result<()> {
    check_payload(operation, m.payload.len())?;
    let texts = [
        ("correlation_id", &m.correlation_id),
        ("idempotency_key", &m.idempotency_key),
        ("order_key", &m.order_key),
        ("content_type", &m.content_type),
        ("trace", &m.trace),
    ];
    for (field, text) in texts.into_iter().chain(m.context_refs.iter().map(|t| ("context_refs", t))) {
        let bytes = text.as_bytes().len();
        if bytes > limits::SHORT_TEXT_BYTES_MAX {
            let limit = limits::SHORT_TEXT_BYTES_MAX;
            return Err(Error::over_limit(ErrorCode::FieldTooLarge, operation, field, bytes, limit));
        }
    }
    if m.context_refs.len() > limits::CONTEXT_REFS_MAX {
        let text = format!("{} context_refs exceed limit of {}", m.context_refs.len(), limits::CONTEXT_REFS_MAX);
        return Err(Error::new(ErrorCode::FieldTooLarge, operation, text));
    }
    if !m.reply_to.as_bytes().is_empty() {
        acb_types::Topic::check(&m.reply_to).map_err(|e| Error::name(operation, &e))?;
    }
    Ok(())
}

pub(super) fn check_payload(operation: &'static str, bytes: usize) -> Result<()> {
    if bytes > limits::PAYLOAD_BYTES_MAX {
        let limit = limits::PAYLOAD_BYTES_MAX;
        return Err(Error::over_limit(ErrorCode::PayloadTooLarge, operation, "payload", bytes, limit));
    }
    Ok(())
}

/// The log class that a topic's messages go to: a frame holds messages of one class.
pub(super) fn class_of(topic: &str) -> ClassId {
    match Address::of(topic) {
        Address::Topic(_) => ClassId::TOPICS,
        _ => ClassId::INBOX,
    }
}

/// At least what a message takes in a frame.
pub(super) fn size_of(m: &Envelope) -> usize {
    let texts = [&m.topic, &m.correlation_id, &m.reply_to, &m.idempotency_key, &m.order_key, &m.content_type, &m.trace];
    let texts: usize = texts.iter().map(|t| t.as_bytes().len()).sum();
    let refs: usize = m.context_refs.iter().map(|t| t.as_bytes().len() + 3).sum();
    OVERHEAD_MAX + texts + refs + m.attributes.block().len() + m.payload.len()
}

/// The wire's number of a level; 0 leaves it to the server.
pub(super) fn wire_level(level: Option<Durability>) -> u8 {
    level.map_or(0, |l| l as u8)
}

/// Queues a checked message. `patient` says that its receipt matters only when it is a refusal.
pub(super) async fn queue(
    core: &Core,
    operation: &'static str,
    m: &Envelope,
    durability: Option<Durability>,
    patient: bool,
) -> Result<Receipt> {
    let (class, level, size) = (class_of(&m.topic), wire_level(durability), size_of(m));
    queue_with(core, operation, class, level, patient, size, |out| {
        frame::encode(out, m);
    })
    .await
}

/// Queues what `encode` writes, waiting for room.
#[inline]
pub(super) async fn queue_with(
    core: &Core,
    operation: &'static str,
    class: ClassId,
    level: u8,
    patient: bool,
    size: usize,
    encode: impl Fn(&mut BytesMut),
) -> Result<Receipt> {
    match core.producer().push(class, level, patient, size, &encode) {
        Ok(receipt) => Ok(receipt),
        Err(Refused::Closed(error)) => Err(error.with_operation(operation)),
        Err(Refused::Full) => {
            let timeout = core.options().publish_timeout;
            let waiting = async {
                loop {
                    Room { core, size, ticket: None }.await;
                    match core.producer().push(class, level, patient, size, &encode) {
                        Ok(receipt) => return Ok(receipt),
                        Err(Refused::Closed(error)) => return Err(error.with_operation(operation)),
                        Err(Refused::Full) => {}
                    }
                }
            };
            tokio::time::timeout(timeout, waiting).await.unwrap_or_else(|_| {
                let text = format!("no room in the publish window within {timeout:?}, nothing was queued");
                let error = Error::new(ErrorCode::Timeout, operation, text);
                Err(match core.down() {
                    Some(why) => error.with_source(why),
                    None => error,
                })
            })
        }
    }
}

/// Waits for room; gives its turn to the next when it is dropped.
struct Room<'a> {
    core: &'a Core,
    size: usize,
    ticket: Option<Ticket>,
}

impl Future for Room<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let me = &mut *self;
        let room = me.core.producer().poll_room(me.size, &mut me.ticket, cx);
        if room.is_ready() {
            me.ticket = None;
        }
        room
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.core.producer().leave_room(ticket);
        }
    }
}
