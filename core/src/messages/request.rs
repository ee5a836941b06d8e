//! Requests: a message with a deadline, and the one stream on which all replies to this agent come back.

use std::{
    collections::HashMap,
    fmt,
    future::{Future, IntoFuture},
    ops::Deref,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use acb_types::{Durability, MessageKind, SubscriptionName, Topic, envelope::Text, limits};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::Instant};

use super::builder::{PublishBuilder, queue};
use crate::{
    connection::Core,
    consume::{Consumer, Credit, Sink, Source, stream},
    error::{Error, ErrorCode, Result},
    message::Message,
    time::now,
};

const OPERATION: &str = "messages.request";
/// Replies that may be on their way to this client at once. Late ones that nobody takes hold their place until their
/// lease ends.
const REPLY_CREDIT: u32 = 1024;

/// A reply. Acknowledged already.
#[derive(Clone, Debug)]
pub struct Reply(Message);

impl Reply {
    /// The message itself.
    pub fn into_message(self) -> Message {
        self.0
    }
}

impl Deref for Reply {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.0
    }
}

/// Those of a client who wait for replies.
#[derive(Default)]
pub(crate) struct Requests {
    /// Tells this client's correlation ids from those of others who use the same agent.
    prefix: String,
    next: AtomicU64,
    waiters: Mutex<HashMap<u64, oneshot::Sender<Message>>>,
    consumer: Mutex<Option<Arc<Consumer>>>,
    /// Held while the stream is being opened.
    opening: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests").field("waiting", &self.waiters.lock().len()).finish_non_exhaustive()
    }
}

impl Requests {
    pub(crate) fn new() -> Self {
        Self { prefix: format!("{:016x}", rand::random::<u64>()), ..Self::default() }
    }

    /// Ends the stream of replies.
    pub(crate) fn close(&self) {
        if let Some(consumer) = self.consumer.lock().take() {
            consumer.leave();
        }
    }

    fn correlation_id(&self, number: u64) -> String {
        format!("{}-{number:x}", self.prefix)
    }

    fn number_of(&self, correlation_id: &str) -> Option<u64> {
        let number = correlation_id.strip_prefix(&self.prefix)?.strip_prefix('-')?;
        u64::from_str_radix(number, 16).ok()
    }

    /// Hands a reply to the one who waits for it; gives it back when nobody does.
    fn route(&self, message: Message) -> Option<Message> {
        let waiter = self.number_of(message.correlation_id()).and_then(|n| self.waiters.lock().remove(&n));
        let Some(waiter) = waiter else { return Some(message) };
        let ack = message.clone();
        match waiter.send(message) {
            Ok(()) => {
                // The lease can only be lost by a lost connection; then it comes again and finds nobody waiting.
                let _ = ack.ack();
                None
            }
            Err(message) => Some(message),
        }
    }
}

/// A late reply goes to whoever reads the agent's inbox, flagged; with nobody there it stays on the bus.
fn late(core: &Core, message: &Message) {
    let taken = core.consumers().iter().any(|c| c.is_inbox() && c.push_late(message.clone()));
    tracing::debug!(id = %message.id(), taken, "a reply came late");
}

/// Makes sure that the stream of replies stands, and says where replies are to go.
async fn reply_stream(core: &Arc<Core>) -> Result<Text> {
    let agent = core.agent_id().ok_or_else(|| {
        Error::new(ErrorCode::Unauthenticated, OPERATION, "a request needs credentials that name an agent")
    })?;
    let agent = agent.parse().map_err(|e| Error::name(OPERATION, &e))?;
    let reply_to = Text::from(Topic::reply(&agent).as_str());
    let open = |requests: &Requests| requests.consumer.lock().as_ref().is_some_and(|c| c.is_open());
    let requests = core.requests();
    if open(requests) {
        return Ok(reply_to);
    }
    let _one = requests.opening.lock().await;
    if open(requests) {
        return Ok(reply_to);
    }
    let weak: Weak<Core> = Arc::downgrade(core);
    let sink = Sink::Replies(Arc::new(move |message| {
        if let Some(core) = weak.upgrade()
            && let Some(message) = core.requests().route(message)
        {
            late(&core, &message);
        }
    }));
    let source = Source::Named(SubscriptionName::reply(&agent).as_str().to_owned());
    let credit = Credit { messages: REPLY_CREDIT, bytes: limits::CREDIT_BYTES };
    let consumer = Consumer::new(Arc::clone(core), source, sink, credit);
    let leave = LeaveUnless { consumer: Some(&consumer) };
    stream::start(&consumer).await.map_err(|e| {
        let unregistered = e.code() == ErrorCode::SubscriptionNotFound;
        let e = e.with_operation(OPERATION);
        if unregistered { e.with("hint", "register the agent before it makes requests") } else { e }
    })?;
    leave.keep();
    *requests.consumer.lock() = Some(consumer);
    Ok(reply_to)
}

/// Ends a consumer whose opening failed or was cancelled.
pub(crate) struct LeaveUnless<'a> {
    pub(crate) consumer: Option<&'a Arc<Consumer>>,
}

impl LeaveUnless<'_> {
    pub(crate) fn keep(mut self) {
        self.consumer = None;
    }
}

impl Drop for LeaveUnless<'_> {
    fn drop(&mut self) {
        if let Some(consumer) = self.consumer {
            consumer.leave();
        }
    }
}

/// Forgets a request that is over.
struct Waiting<'a> {
    requests: &'a Requests,
    number: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.requests.waiters.lock().remove(&self.number);
    }
}

/// A request in the making. Awaiting it sends it and gives the reply.
#[derive(Clone, Debug)]
#[must_use = "a request goes nowhere until it is awaited"]
pub struct RequestBuilder {
    message: PublishBuilder,
    timeout: Duration,
}

impl RequestBuilder {
    pub(super) fn new(core: Arc<Core>, topic: Result<Text>, payload: Bytes) -> Self {
        let message = PublishBuilder::to(core, OPERATION, topic, payload)
            .kind(MessageKind::Request)
            .durability(Durability::Written);
        Self { message, timeout: limits::REQUEST_TIMEOUT }
    }

    /// How long to wait for the reply; 30 s by default. Travels with the request, so that nobody works on one that is
    /// over.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How much the request must survive; `written` by default, so that a round trip never waits for a disk.
    pub fn durability(mut self, level: Durability) -> Self {
        self.message = self.message.durability(level);
        self
    }

    /// A named value that subscriptions can filter on.
    pub fn attribute(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.message = self.message.attribute(name, value);
        self
    }

    /// Media type of the payload.
    pub fn content_type(mut self, media_type: impl AsRef<str>) -> Self {
        self.message = self.message.content_type(media_type);
        self
    }

    /// How urgent it is.
    pub fn priority(mut self, priority: acb_types::Priority) -> Self {
        self.message = self.message.priority(priority);
        self
    }

    /// W3C trace context (`traceparent`).
    pub fn trace(mut self, traceparent: impl AsRef<str>) -> Self {
        self.message = self.message.trace(traceparent);
        self
    }

    /// Sends the request and waits for its reply.
    ///
    /// # Errors
    /// `no_responders` at once when nobody is there to answer, and nothing is stored then; `agent_not_found`; `timeout`
    /// when no reply came in time: it then goes to the agent's inbox stream, flagged late, when one is open.
    ///
    /// # Cancel safety
    /// Dropping the future gives up waiting; the request may be answered all the same.
    pub async fn send(self) -> Result<Reply> {
        let timeout = self.timeout;
        let deadline = Instant::now() + timeout;
        let expires_at = now().after(timeout);
        let (core, mut envelope, durability) = self.message.finish()?;
        let requests = core.requests();
        let exchange = async {
            envelope.reply_to = reply_stream(&core).await?;
            let number = requests.next.fetch_add(1, Ordering::Relaxed);
            envelope.correlation_id = requests.correlation_id(number).into();
            envelope.expires_at = expires_at;
            let (waiter, mut reply) = oneshot::channel();
            requests.waiters.lock().insert(number, waiter);
            let _waiting = Waiting { requests, number };
            let mut receipt = queue(&core, OPERATION, &envelope, durability, true).await?;
            let mut stored = false;
            loop {
                // Both may be dropped at any await; the reply is looked at first, it often overtakes the receipt.
                tokio::select! {
                    biased;
                    reply = &mut reply => {
                        return reply.map(Reply).map_err(|_| Error::closed(OPERATION));
                    }
                    result = &mut receipt, if !stored => {
                        result.map_err(|e| e.with_operation(OPERATION))?;
                        stored = true;
                    }
                }
            }
        };
        match tokio::time::timeout_at(deadline, exchange).await {
            Ok(result) => result,
            Err(_) => Err(Error::new(ErrorCode::Timeout, OPERATION, format!("no reply within {timeout:?}"))),
        }
    }
}

impl IntoFuture for RequestBuilder {
    type Output = Result<Reply>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<Reply>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}
