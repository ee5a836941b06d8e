//! Sending: to an agent, to a topic, to all; requests and their replies; where a message stands.
//!
//! Everything goes up one stream per client. A publish is queued and answered by a [`Receipt`]; the stream's window, in
//! messages and bytes, is the back-pressure.

use acb_proto::v1::message_service_client::MessageServiceClient;
use acb_types::{AgentId, MessageId, Topic, envelope::Text};
use bytes::Bytes;

use crate::{
    client::Handle,
    convert,
    error::{Error, Result},
    retry::Safety,
};

mod builder;
mod publisher;
mod request;
mod status;

pub use builder::PublishBuilder;
pub use publisher::{Publisher, PublisherBuilder, TryPublishError};
pub(crate) use request::{LeaveUnless, Requests};
pub use request::{Reply, RequestBuilder};
pub use status::{DeliveryState, MessageStatus, SubscriptionStatus};

/// Messages of a client. Made by [`Client::messages`](crate::Client::messages).
///
#[doc = "```no_run"]
#[doc = include_str!("../../doc/messages.rs")]
#[doc = "```"]
#[derive(Clone, Debug)]
pub struct Messages {
    core: Handle,
}

impl Messages {
    pub(crate) fn new(core: Handle) -> Self {
        Self { core }
    }

    /// Starts a message to a topic: 1 to 32 dot tokens, no wildcards. Every subscription that hears it gets it.
    pub fn publish(&self, topic: impl AsRef<str>, payload: impl Into<Bytes>) -> PublishBuilder {
        let topic = topic.as_ref();
        let checked = Topic::user(topic).map(|_| Text::from(topic)).map_err(|e| Error::name("messages.publish", &e));
        PublishBuilder::to(self.core.arc(), "messages.publish", checked, payload.into())
    }

    /// Starts a message to one agent's inbox, where it waits until it is acknowledged.
    pub fn send(&self, agent: impl AsRef<str>, payload: impl Into<Bytes>) -> PublishBuilder {
        let topic = inbox_of("messages.send", agent.as_ref());
        PublishBuilder::to(self.core.arc(), "messages.send", topic, payload.into())
    }

    /// Starts a message to every agent of the tenant.
    pub fn broadcast(&self, payload: impl Into<Bytes>) -> PublishBuilder {
        let topic = Ok(Text::from(Topic::all().as_str()));
        PublishBuilder::to(self.core.arc(), "messages.broadcast", topic, payload.into())
    }

    /// Starts a request to one agent. Awaiting it gives the reply.
    ///
    /// The client must have registered its agent: replies come to `$acb.reply.<agent>`.
    pub fn request(&self, agent: impl AsRef<str>, payload: impl Into<Bytes>) -> RequestBuilder {
        let topic = inbox_of("messages.request", agent.as_ref());
        RequestBuilder::new(self.core.arc(), topic, payload.into())
    }

    /// Starts a request to whoever answers on a topic; the first reply counts.
    pub fn request_topic(&self, topic: impl AsRef<str>, payload: impl Into<Bytes>) -> RequestBuilder {
        let topic = topic.as_ref();
        let checked = Topic::user(topic).map(|_| Text::from(topic)).map_err(|e| Error::name("messages.request", &e));
        RequestBuilder::new(self.core.arc(), checked, payload.into())
    }

    /// Prepares many messages to one topic: everything but the payload is decided, checked and laid out once.
    pub fn publisher(&self, topic: impl AsRef<str>) -> PublisherBuilder {
        let topic = topic.as_ref();
        let checked = Topic::user(topic).map(|_| Text::from(topic)).map_err(|e| Error::name("messages.publisher", &e));
        PublisherBuilder::new(self.core.clone(), checked)
    }

    /// Prepares many messages to one agent's inbox.
    pub fn publisher_to_agent(&self, agent: impl AsRef<str>) -> PublisherBuilder {
        PublisherBuilder::new(self.core.clone(), inbox_of("messages.publisher", agent.as_ref()))
    }

    /// Where a message stands for each subscription that was to get it.
    ///
    /// # Errors
    /// `message_not_found` when the id names nothing that is kept.
    pub async fn status(&self, id: MessageId) -> Result<MessageStatus> {
        let operation = "messages.status";
        let request = convert::message_status_request(id);
        let response = self
            .core
            .call(operation, Safety::Idempotent, request, |to, request| async move {
                MessageServiceClient::with_origin(to.channel, to.origin).get_message_status(request).await
            })
            .await?;
        convert::message_status(operation, response)
    }

    /// Waits until every publish made so far is answered.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn flush(&self) {
        std::future::poll_fn(|cx| self.core.producer().poll_idle(cx)).await;
    }

    /// Publishes that are not answered yet.
    pub fn unacknowledged(&self) -> u32 {
        self.core.producer().open_messages()
    }
}

fn inbox_of(operation: &'static str, agent: &str) -> Result<Text> {
    match agent.parse::<AgentId>() {
        Ok(agent) => Ok(Text::from(Topic::inbox(&agent).as_str())),
        Err(e) => Err(Error::name(operation, &e)),
    }
}
