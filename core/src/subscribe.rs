//! Receiving: a stream of messages, settled one by one or by a handler.

use std::{
    future::{Future, IntoFuture, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use acb_types::{AgentId, SubscriptionName, TopicFilter, limits};
use futures_core::Stream;
use futures_util::{StreamExt as _, stream::FuturesUnordered};

use crate::{
    client::Handle,
    consume::{Consumer, Credit, Item, Sink, Source, frame::Cursor, stream},
    error::{Error, ErrorCode, Result},
    message::Message,
    messages::LeaveUnless,
    subscriptions::SubscriptionSpec,
};

const OPERATION: &str = "subscribe";
/// Handlers that may run at once.
const CONCURRENCY_MAX: usize = 65_536;

/// Messages that a subscription will never get, because they were trimmed before it read them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// The first seq that is missing.
    pub from_seq: u64,
    /// The first that is there again.
    pub to_seq: u64,
    /// `retention` or `damage`.
    pub reason: String,
}

impl Gap {
    pub(crate) fn into_error(self) -> Error {
        let code = if self.reason == "damage" { ErrorCode::DataDamaged } else { ErrorCode::MessageNotFound };
        let text = format!("messages {} to {} are gone: {}", self.from_seq, self.to_seq.saturating_sub(1), self.reason);
        Error::new(code, "subscription.next", text).with_gap(self)
    }
}

/// Opens a [`Subscription`]. Await it.
#[derive(Clone, Debug)]
#[must_use = "a subscription is opened when the builder is awaited"]
pub struct SubscribeBuilder {
    core: Handle,
    source: Result<Source>,
    credit: Credit,
}

impl SubscribeBuilder {
    fn new(core: Handle, source: Result<Source>) -> Self {
        let credit = Credit { messages: core.options().credit_messages, bytes: core.options().credit_bytes };
        Self { core, source, credit }
    }

    pub(crate) fn durable(core: Handle, name: &str) -> Self {
        let source = name
            .parse::<SubscriptionName>()
            .map(|name| Source::Named(name.as_str().to_owned()))
            .map_err(|e| Error::name(OPERATION, &e));
        Self::new(core, source)
    }

    pub(crate) fn inbox(core: Handle) -> Self {
        let nobody = || {
            let text = "an inbox needs credentials that name an agent";
            Error::new(ErrorCode::Unauthenticated, OPERATION, text)
        };
        let source = core.agent_id().ok_or_else(nobody).and_then(|agent| {
            let agent: AgentId = agent.parse().map_err(|e| Error::name(OPERATION, &e))?;
            Ok(Source::Named(SubscriptionName::inbox(&agent).as_str().to_owned()))
        });
        Self::new(core, source)
    }

    pub(crate) fn ephemeral<S: AsRef<str>>(core: Handle, filters: impl IntoIterator<Item = S>) -> Self {
        let mut spec = SubscriptionSpec::new("");
        let mut bad = None;
        for filter in filters {
            match filter.as_ref().parse::<TopicFilter>() {
                Ok(filter) => spec = spec.filter(filter.as_str()),
                Err(e) => bad = Some(Error::name(OPERATION, &e)),
            }
        }
        Self::new(core, bad.map_or(Ok(Source::Ephemeral(spec)), Err))
    }

    /// Messages that may be here at once, unacknowledged: 0 to 65,536; 64 by default. With 0 nothing comes until
    /// [`Subscription::set_credits`].
    pub fn credits(mut self, messages: u32) -> Self {
        self.credit.messages = messages;
        self
    }

    /// Bytes that may be here at once, unacknowledged: to 1 GiB; 8 MiB by default. One message always passes.
    pub fn credit_bytes(mut self, bytes: u64) -> Self {
        self.credit.bytes = bytes;
        self
    }

    /// Changes the definition of an ephemeral subscription: its start, lease, attempts. Ignored for durable ones, which
    /// have theirs.
    pub fn spec(mut self, change: impl FnOnce(SubscriptionSpec) -> SubscriptionSpec) -> Self {
        if let Ok(Source::Ephemeral(spec)) = self.source {
            self.source = Ok(Source::Ephemeral(change(spec)));
        }
        self
    }

    /// Opens the subscription.
    ///
    /// # Errors
    /// `subscription_not_found`, `permission_denied`, `session_fenced`; `invalid_argument` for credits out of range;
    /// `timeout`.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing open.
    pub async fn open(self) -> Result<Subscription> {
        let source = self.source?;
        check_credit(self.credit)?;
        if let Source::Ephemeral(spec) = &source {
            spec.check(OPERATION, false)?;
        }
        let consumer = Consumer::new(self.core.arc(), source, Sink::Queue, self.credit);
        let leave = LeaveUnless { consumer: Some(&consumer) };
        stream::start(&consumer).await?;
        leave.keep();
        Ok(Subscription { consumer, cursor: None, done: false, _handle: self.core })
    }
}

fn check_credit(credit: Credit) -> Result<()> {
    if credit.messages > limits::CREDIT_MESSAGES_MAX || credit.bytes > limits::CREDIT_BYTES_MAX {
        let text = format!(
            "credits exceed limit of {} messages or {} bytes",
            limits::CREDIT_MESSAGES_MAX,
            limits::CREDIT_BYTES_MAX
        );
        return Err(Error::new(ErrorCode::InvalidArgument, OPERATION, text).with("field", "credits"));
    }
    Ok(())
}

impl IntoFuture for SubscribeBuilder {
    type Output = Result<Subscription>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<Subscription>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.open())
    }
}

/// An open subscription: a stream of messages.
///
/// Messages come in order, at most as many as the credits at once. A lost connection is resumed by itself; what was
/// settled meanwhile is sent then. Dropping the subscription leaves it in good order: settlements are sent, and whatever
/// is unsettled goes back to the bus at once, uncounted.
#[derive(Debug)]
pub struct Subscription {
    consumer: Arc<Consumer>,
    cursor: Option<Cursor>,
    done: bool,
    /// Keeps the connection as long as this lives.
    _handle: Handle,
}

impl Subscription {
    /// Name of the subscription; empty for an ephemeral one without a name.
    pub fn name(&self) -> &str {
        self.consumer.name()
    }

    /// How long a consumer has for one message.
    pub fn ack_wait(&self) -> Duration {
        self.consumer.ack_wait()
    }

    /// Changes what may be here at once.
    ///
    /// # Errors
    /// `invalid_argument` for values out of range.
    pub fn set_credits(&self, messages: u32, bytes: u64) -> Result<()> {
        let credit = Credit { messages, bytes };
        check_credit(credit)?;
        self.consumer.set_credit(credit);
        Ok(())
    }

    /// The next message. `None` when the subscription is over: the client drains or is closed, or the error that ended it
    /// was given before.
    ///
    /// # Errors
    /// A [`Gap`] is an error of this one call ([`Error::gap`] tells); the subscription goes on after it. Any other error
    /// is the last: `session_fenced`, `subscription_not_found`, `permission_denied`, `client_closed`.
    ///
    /// # Cancel safety
    /// No message is lost.
    pub async fn next(&mut self) -> Option<Result<Message>> {
        poll_fn(|cx| self.poll_message(cx)).await
    }

    /// The next message if one is here already.
    pub fn try_next(&mut self) -> Option<Result<Message>> {
        match self.poll_message(&mut Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(next) => next,
            Poll::Pending => None,
        }
    }

    /// Waits for a message, then takes up to `max` that are here. Empty when the subscription is over.
    ///
    /// # Errors
    /// As [`Self::next`]; messages taken before the error come first, the error with the next call.
    ///
    /// # Cancel safety
    /// No message is lost.
    pub async fn next_batch(&mut self, max: usize) -> Result<Vec<Message>> {
        let Some(first) = self.next().await else { return Ok(Vec::new()) };
        let mut batch = vec![first?];
        while batch.len() < max
            && let Some(message) = self.try_here()
        {
            batch.push(message);
        }
        Ok(batch)
    }

    /// The next message of what was taken from the queue, or of the queue's next frame.
    fn try_here(&mut self) -> Option<Message> {
        loop {
            if let Some(cursor) = &mut self.cursor
                && let Some(Ok(message)) = cursor.next()
            {
                return Some(message);
            }
            self.cursor = None;
            match self.consumer.peek_frame() {
                Some(frame) => self.cursor = self.fresh(frame),
                None => return None,
            }
        }
    }

    /// A cursor over a frame, unless its leases ended while it waited here: the bus gives those messages again.
    fn fresh(&self, frame: Arc<crate::consume::frame::Frame>) -> Option<Cursor> {
        if frame.arrived.elapsed() >= self.consumer.ack_wait() && !self.consumer.renews() {
            tracing::debug!(subscription = self.name(), "messages waited here for longer than their lease, dropped");
            return None;
        }
        if self.consumer.renews() {
            self.consumer.hold_frame(&frame);
        }
        Some(Cursor::new(frame))
    }

    #[inline]
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message>>> {
        loop {
            if let Some(cursor) = &mut self.cursor {
                if let Some(message) = cursor.next() {
                    return Poll::Ready(Some(message));
                }
                self.cursor = None;
            }
            if self.done {
                return Poll::Ready(None);
            }
            if self.consumer.core().draining.is_cancelled() {
                self.done = true;
                return Poll::Ready(None);
            }
            match self.consumer.poll_item(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => {
                    self.done = true;
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Err(error))) => {
                    self.done = true;
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(Some(Ok(Item::Frame(frame)))) => self.cursor = self.fresh(frame),
                Poll::Ready(Some(Ok(Item::Message(message)))) => return Poll::Ready(Some(Ok(message))),
                Poll::Ready(Some(Ok(Item::Gap(gap)))) => return Poll::Ready(Some(Err(gap.into_error()))),
            }
        }
    }

    /// Handles messages with at most `concurrency` handlers at once: acks on `Ok`, nacks with the error's text on `Err`,
    /// unless the handler settled the message itself, and renews leases while handlers run and while messages wait here for their turn. Ends when the subscription
    /// does; handlers that run are finished first. Gaps go to the client's events.
    ///
    /// Handlers run inside this future. One that computes for long should do so in a task of its own.
    ///
    /// # Errors
    /// What ended the subscription, as [`Self::next`].
    ///
    /// # Cancel safety
    /// Dropping the future drops running handlers; their messages go back to the bus with the subscription.
    pub async fn for_each<F, Fut, E>(mut self, concurrency: usize, mut handler: F) -> Result<()>
    where
        F: FnMut(Message) -> Fut,
        Fut: Future<Output = Result<(), E>>,
        E: std::fmt::Display,
    {
        let concurrency = concurrency.clamp(1, CONCURRENCY_MAX);
        self.consumer.keep_leases();
        let mut running = FuturesUnordered::new();
        let mut outcome = Ok(());
        let mut over = false;
        while !over || !running.is_empty() {
            // Both may be dropped at any await: `next` loses nothing, and handlers stay in `running`.
            tokio::select! {
                next = self.next(), if !over && running.len() < concurrency => match next {
                    None => over = true,
                    Some(Ok(message)) => running.push(handle(&mut handler, message)),
                    Some(Err(error)) if error.gap().is_some() => {}
                    Some(Err(error)) => {
                        over = true;
                        outcome = Err(error);
                    }
                },
                Some(()) = running.next(), if !running.is_empty() => {}
            }
        }
        outcome
    }

    /// Renews the leases of messages that wait here to be taken, from now on: for those who handle them outside of
    /// [`Self::for_each`], which does this by itself. What was taken is renewed by [`Message::keep_lease`].
    pub fn keep_leases(&self) {
        self.consumer.keep_leases();
    }

    /// Leaves: settlements are sent, unsettled messages go back to the bus. The same as dropping it.
    pub fn close(self) {}
}

/// Runs one handler and settles its message.
fn handle<F, Fut, E>(handler: &mut F, message: Message) -> impl Future<Output = ()> + use<F, Fut, E>
where
    F: FnMut(Message) -> Fut,
    Fut: Future<Output = Result<(), E>>,
    E: std::fmt::Display,
{
    let held = message.keep_lease();
    let running = handler(message);
    async move {
        let result = running.await;
        if !held.is_kept() {
            // The handler settled it itself, or its lease is lost.
            return;
        }
        let settled = match result {
            Ok(()) => held.message().ack(),
            Err(error) => held.message().nack(None, error.to_string()),
        };
        if let Err(error) = settled {
            tracing::debug!(id = %held.message().id(), %error, "a handled message could not be settled");
        }
    }
}

impl Stream for Subscription {
    type Item = Result<Message>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_message(cx)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.consumer.leave();
    }
}
