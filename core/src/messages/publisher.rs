//! Many messages of one shape: checked and laid out once, then one lock and one copy each.

use std::sync::Arc;

use acb_types::{
    Attributes, ClassId, Durability, Envelope, MessageKind, Priority, Topic, envelope::Text, frame, limits,
};

use super::builder::{check, check_payload, class_of, queue_with, size_of, wire_level};
use crate::{
    client::Handle,
    error::{Error, ErrorCode, Result},
    publish::{Receipt, Refused},
};

const OPERATION: &str = "publisher.publish";

/// Builds a [`Publisher`]. Made by [`Messages::publisher`](super::Messages::publisher).
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until build is called"]
pub struct PublisherBuilder {
    core: Handle,
    envelope: Envelope,
    attributes: Vec<(String, String)>,
    durability: Option<Durability>,
    error: Option<Error>,
}

impl PublisherBuilder {
    pub(super) fn new(core: Handle, topic: Result<Text>) -> Self {
        let durability = core.options().durability;
        let (topic, error) = match topic {
            Ok(topic) => (topic, None),
            Err(error) => (Text::EMPTY, Some(error)),
        };
        let envelope = Envelope { topic, ..Envelope::default() };
        Self { core, envelope, attributes: Vec::new(), durability, error }
    }

    /// How much each must survive before it is acknowledged; the server's default without it.
    pub fn durability(mut self, level: Durability) -> Self {
        self.durability = Some(level);
        self
    }

    /// Media type of the payloads.
    pub fn content_type(mut self, media_type: impl AsRef<str>) -> Self {
        self.envelope.content_type = media_type.as_ref().into();
        self
    }

    /// What they are for; plain messages by default.
    pub fn kind(mut self, kind: MessageKind) -> Self {
        self.envelope.kind = kind;
        self
    }

    /// How urgent they are.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.envelope.priority = priority;
        self
    }

    /// Messages of one key are handled one after the other.
    pub fn order_key(mut self, key: impl AsRef<str>) -> Self {
        self.envelope.order_key = key.as_ref().into();
        self
    }

    /// A named value on each.
    pub fn attribute(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.push((name.into(), value.into()));
        self
    }

    /// Checks everything and makes the publisher.
    ///
    /// # Errors
    /// `invalid_topic`, `field_too_large`, `invalid_attributes` and their kin.
    pub fn build(mut self) -> Result<Publisher> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if !self.attributes.is_empty() {
            self.envelope.attributes = Attributes::from_pairs(self.attributes)
                .map_err(|e| Error::new(ErrorCode::from(&e), "messages.publisher", e.to_string()))?;
        }
        check("messages.publisher", &self.envelope)?;
        let shape = Shape {
            class: class_of(&self.envelope.topic),
            level: wire_level(self.durability),
            size: size_of(&self.envelope),
            envelope: self.envelope,
        };
        Ok(Publisher { core: self.core, shape: Arc::new(shape) })
    }
}

#[derive(Debug)]
struct Shape {
    envelope: Envelope,
    class: ClassId,
    level: u8,
    /// Of a message with an empty payload.
    size: usize,
}

/// Publishes many messages of one shape. Cheap to clone; shares the client's stream and window.
///
/// The way of a message is one short lock and one copy of its payload into the open frame; nothing is allocated for it.
#[derive(Clone, Debug)]
pub struct Publisher {
    core: Handle,
    shape: Arc<Shape>,
}

/// Why [`Publisher::try_publish`] did not take a message.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TryPublishError {
    /// The window is full: wait for receipts, or use `publish`.
    #[error("the publish window is full")]
    Full,
    /// It will not be taken.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl Publisher {
    /// Queues one message, waiting for room in the window. See [`PublishBuilder::send`](super::PublishBuilder::send).
    ///
    /// # Errors
    /// `payload_too_large`, `timeout` when there was no room within the publish timeout, `client_closed`.
    ///
    /// # Cancel safety
    /// Dropping the future before it is ready queues nothing.
    #[inline]
    pub async fn publish(&self, payload: impl AsRef<[u8]>) -> Result<Receipt> {
        let (payload, shape) = (payload.as_ref(), &*self.shape);
        check_payload(OPERATION, payload.len())?;
        queue_with(&self.core, OPERATION, shape.class, shape.level, false, shape.size + payload.len(), |out| {
            frame::encode_parts(out, &shape.envelope, &shape.envelope.topic, payload);
        })
        .await
    }

    /// Queues one message of this shape to another topic.
    ///
    /// # Errors
    /// As [`Self::publish`], and `invalid_topic` and its kin.
    ///
    /// # Cancel safety
    /// Dropping the future before it is ready queues nothing.
    pub async fn publish_to(&self, topic: &str, payload: impl AsRef<[u8]>) -> Result<Receipt> {
        let (payload, shape) = (payload.as_ref(), &*self.shape);
        check_payload(OPERATION, payload.len())?;
        Topic::check(topic).map_err(|e| Error::name(OPERATION, &e))?;
        if acb_types::name::is_reserved(topic) {
            let text = "topic is in the reserved tree $acb.";
            return Err(Error::new(ErrorCode::TopicReserved, OPERATION, text).with("field", "topic"));
        }
        let size = shape.size + topic.len() + payload.len();
        queue_with(&self.core, OPERATION, ClassId::TOPICS, shape.level, false, size, |out| {
            frame::encode_parts(out, &shape.envelope, topic, payload);
        })
        .await
    }

    /// Queues one message if there is room now.
    ///
    /// # Errors
    /// [`TryPublishError::Full`] when there is none.
    #[inline]
    pub fn try_publish(&self, payload: impl AsRef<[u8]>) -> Result<Receipt, TryPublishError> {
        let (payload, shape) = (payload.as_ref(), &*self.shape);
        check_payload(OPERATION, payload.len())?;
        let pushed = self.core.producer().push(shape.class, shape.level, false, shape.size + payload.len(), |out| {
            frame::encode_parts(out, &shape.envelope, &shape.envelope.topic, payload);
        });
        pushed.map_err(|refused| match refused {
            Refused::Full => TryPublishError::Full,
            Refused::Closed(error) => TryPublishError::Failed(error.with_operation(OPERATION)),
        })
    }

    /// Queues one message with a key against doubles (at most 128 bytes), waiting for room.
    ///
    /// # Errors
    /// As [`Self::publish`], and `field_too_large` for the key.
    ///
    /// # Cancel safety
    /// Dropping the future before it is ready queues nothing.
    pub async fn publish_keyed(&self, key: &str, payload: impl AsRef<[u8]>) -> Result<Receipt> {
        let (payload, shape) = (payload.as_ref(), &*self.shape);
        check_payload(OPERATION, payload.len())?;
        if key.len() > limits::SHORT_TEXT_BYTES_MAX {
            let limit = limits::SHORT_TEXT_BYTES_MAX;
            return Err(Error::over_limit(ErrorCode::FieldTooLarge, OPERATION, "idempotency_key", key.len(), limit));
        }
        let mut envelope = shape.envelope.clone();
        envelope.idempotency_key = key.into();
        let size = shape.size + key.len() + payload.len();
        queue_with(&self.core, OPERATION, shape.class, shape.level, false, size, |out| {
            frame::encode_parts(out, &envelope, &envelope.topic, payload);
        })
        .await
    }

    /// The topic that it publishes to.
    pub fn topic(&self) -> &str {
        &self.shape.envelope.topic
    }
}
