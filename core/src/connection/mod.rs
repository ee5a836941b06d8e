//! What everything of a client shares: the link to the bus, who it is, and who must be told when either changes.
//!
//! One task, [`supervise`], owns the connection. All others ask for the [`Link`] and wait while there is none; nobody
//! else dials, and nobody holds a lock while waiting.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc, watch};
use tonic::metadata::{MetadataMap, MetadataValue};

use crate::{
    consume::Consumer,
    credentials::{Kind, TokenStore},
    error::{Error, ErrorCode, ErrorKind, Result},
    messages::Requests,
    options::Options,
    publish::{Producer, Window},
    retry::{Decision, Safety, Schedule},
    tasks::Tasks,
    transport::{grpc::Channel, tls::Tls},
};

mod bulk;
mod call;
mod events;
mod login;
mod supervise;

pub use events::{Event, Events};

/// Events that a slow listener may leave unread before it loses the oldest.
const EVENTS_MAX: usize = 256;
/// Words to the supervisor that may wait.
const CONTROLS_MAX: usize = 16;

/// One connection.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    /// Counts connections from 1.
    pub(crate) generation: u64,
    pub(crate) channel: Channel,
}

/// What is known of the connection.
#[derive(Clone, Debug)]
enum State {
    Down(Option<Error>),
    Up(Link),
    Closed(Error),
}

/// A word to the supervisor.
#[derive(Debug)]
enum Control {
    /// Make a new connection after this time; the old one ends with its streams.
    Retire(u64, Duration),
    /// The token ends soon.
    TokenExpires,
    /// Something changed that decides about heartbeats.
    Presence,
}

/// The agent that registered through this client.
#[derive(Clone, Debug)]
pub(crate) struct Registration {
    pub(crate) agent_id: String,
    pub(crate) incarnation: u64,
}

/// Shared by all handles and tasks of a client.
#[derive(Debug)]
pub(crate) struct Core {
    options: Options,
    origin: http::Uri,
    tls: Option<Tls>,
    tokens: TokenStore,
    login: tokio::sync::Mutex<()>,
    state: watch::Sender<State>,
    control: mpsc::Sender<Control>,
    events: broadcast::Sender<Event>,
    producer: Arc<Producer>,
    consumers: Mutex<Vec<Weak<Consumer>>>,
    requests: Requests,
    registration: Mutex<Option<Registration>>,
    incarnation: AtomicU64,
    hot_streams: AtomicUsize,
    /// Whether the present connection carried anything.
    progress: AtomicBool,
    /// Subscriptions end, handlers finish; publishes still go.
    pub(crate) draining: tokio_util::sync::CancellationToken,
    pub(crate) tasks: Tasks,
}

/// Counts an open hot stream: while there is one, the bus sees the agent without heartbeats.
pub(crate) struct HotStream<'a>(&'a Core);

impl Drop for HotStream<'_> {
    fn drop(&mut self) {
        self.0.hot_streams.fetch_sub(1, Ordering::Relaxed);
        self.0.presence_changed();
    }
}

impl Core {
    /// Starts the tasks. Must be called inside a runtime.
    pub(crate) fn start(options: Options) -> Result<Arc<Self>> {
        let origin =
            options.endpoint.origin().parse().map_err(|_| {
                Error::new(ErrorCode::InvalidArgument, "connect", "the endpoint's host is no host name")
            })?;
        let tls = if options.endpoint.is_tls() { Some(options.tls.connector(&options.endpoint)?) } else { None };
        let window = Window {
            messages: options.window_messages,
            bytes: options.window_bytes,
            frame_messages: options.frame_cap(),
        };
        let (control, controls) = mpsc::channel(CONTROLS_MAX);
        let core = Arc::new(Self {
            tokens: TokenStore::new(&options.credentials)?,
            producer: Arc::new(Producer::new(rand::random(), window)),
            options,
            origin,
            tls,
            login: tokio::sync::Mutex::new(()),
            state: watch::Sender::new(State::Down(None)),
            control,
            events: broadcast::Sender::new(EVENTS_MAX),
            consumers: Mutex::default(),
            requests: Requests::new(),
            registration: Mutex::default(),
            incarnation: AtomicU64::new(0),
            hot_streams: AtomicUsize::new(0),
            progress: AtomicBool::new(false),
            draining: tokio_util::sync::CancellationToken::new(),
            tasks: Tasks::default(),
        });
        core.tasks.spawn("connection", supervise::run(Arc::clone(&core), controls));
        core.tasks.spawn("publish", crate::publish::stream::run(Arc::clone(&core)));
        Ok(core)
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn origin(&self) -> &http::Uri {
        &self.origin
    }

    pub(crate) fn producer(&self) -> &Arc<Producer> {
        &self.producer
    }

    pub(crate) fn requests(&self) -> &Requests {
        &self.requests
    }

    pub(crate) fn tokens(&self) -> &TokenStore {
        &self.tokens
    }

    pub(crate) fn events(&self) -> Events {
        Events::new(self.events.subscribe())
    }

    pub(crate) fn tell(&self, event: Event) {
        tracing::debug!(?event, "connection event");
        // Nobody listening is fine.
        let _ = self.events.send(event);
    }

    /// Resolves when the client is being closed.
    pub(crate) async fn closing(&self) {
        self.tasks.closing.cancelled().await;
    }

    /// The connection, once there is one.
    ///
    /// # Errors
    /// When the client is closed.
    pub(crate) async fn link(&self) -> Result<Link> {
        let mut watch = self.state.subscribe();
        loop {
            match &*watch.borrow_and_update() {
                State::Up(link) if !link.channel.is_closed() => return Ok(link.clone()),
                State::Closed(error) => return Err(error.clone()),
                // A connection that just broke: the supervisor is about to say so.
                State::Up(_) | State::Down(_) => {}
            }
            if watch.changed().await.is_err() {
                return Err(Error::closed("connect"));
            }
        }
    }

    /// Why there is no connection now; `None` when there is one or it was not tried yet.
    pub(crate) fn down(&self) -> Option<Error> {
        match &*self.state.borrow() {
            State::Down(error) => error.clone(),
            State::Closed(error) => Some(error.clone()),
            State::Up(_) => None,
        }
    }

    /// Whether there is a connection now.
    pub(crate) fn is_up(&self) -> bool {
        matches!(&*self.state.borrow(), State::Up(link) if !link.channel.is_closed())
    }

    /// Asks for a new connection in place of one whose server drains.
    pub(crate) fn retire(&self, generation: u64, after: Duration) {
        self.order(Control::Retire(generation, after));
        // At once, so that no stream is opened on it again before the supervisor has looked.
        self.state.send_if_modified(|state| match state {
            State::Up(up) if up.generation == generation => {
                *state = State::Down(None);
                true
            }
            _ => false,
        });
    }

    /// The server says that the token ends soon.
    pub(crate) fn token_expires(&self) {
        self.order(Control::TokenExpires);
    }

    fn presence_changed(&self) {
        self.order(Control::Presence);
    }

    fn order(&self, control: Control) {
        // A full queue means that the supervisor has as much to do already.
        let _ = self.control.try_send(control);
    }

    /// What every call carries: the token, or with dev credentials the names that the server takes at their word.
    pub(crate) fn metadata(&self) -> Result<MetadataMap> {
        let mut metadata = MetadataMap::new();
        if let Kind::Dev { tenant, agent } = &self.options.credentials.0 {
            for (key, value) in [("acb-tenant", tenant), ("acb-agent", agent)] {
                let value = MetadataValue::try_from(&**value)
                    .map_err(|_| Error::new(ErrorCode::InvalidName, "connect", format!("{key} is not plain text")))?;
                metadata.insert(key, value);
            }
        } else if let Some(bearer) = self.tokens.bearer() {
            metadata.insert("authorization", bearer);
        }
        Ok(metadata)
    }

    /// The agent that this client speaks for.
    pub(crate) fn agent_id(&self) -> Option<String> {
        match &self.options.credentials.0 {
            Kind::Dev { agent, .. } | Kind::EnrolmentKey { agent, .. } | Kind::Secret { agent, .. } => {
                Some(agent.to_string())
            }
            Kind::None => None,
            Kind::Token { .. } | Kind::Refresh { .. } => {
                self.tokens.tokens().map(|t| t.identity.agent_id.clone()).filter(|id| !id.is_empty())
            }
        }
    }

    pub(crate) fn registration(&self) -> Option<Registration> {
        self.registration.lock().clone()
    }

    /// Notes what this client registered, or that it did not.
    pub(crate) fn registered(&self, registration: Option<Registration>) {
        self.incarnation.store(registration.as_ref().map_or(0, |r| r.incarnation), Ordering::Relaxed);
        *self.registration.lock() = registration;
        self.presence_changed();
    }

    /// Incarnation of the registered agent; 0 without one.
    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation.load(Ordering::Relaxed)
    }

    /// Counts a hot stream while the guard lives.
    pub(crate) fn hot_stream(&self) -> HotStream<'_> {
        self.hot_streams.fetch_add(1, Ordering::Relaxed);
        HotStream(self)
    }

    /// Whether the bus sees the agent by a stream.
    fn has_hot_stream(&self) -> bool {
        self.hot_streams.load(Ordering::Relaxed) > 0
    }

    /// A stream of the present connection was answered.
    pub(crate) fn progressed(&self) {
        self.progress.store(true, Ordering::Relaxed);
    }

    fn took_progress(&self) -> bool {
        self.progress.swap(false, Ordering::Relaxed)
    }

    /// Adds a consumer that is to be told of new tokens.
    pub(crate) fn add_consumer(&self, consumer: &Arc<Consumer>) {
        let mut all = self.consumers.lock();
        all.retain(|c| c.strong_count() > 0);
        all.push(Arc::downgrade(consumer));
    }

    /// All consumers that are there.
    pub(crate) fn consumers(&self) -> Vec<Arc<Consumer>> {
        self.consumers.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// Decides what becomes of a hot stream that broke: waits and says "open it again", or gives the final error.
    pub(crate) async fn after_stream_error(&self, link: &Link, error: &Error, schedule: &mut Schedule) -> Result<()> {
        if self.tasks.closing.is_cancelled() {
            return Err(Error::closed(error.operation()));
        }
        if error.kind() == ErrorKind::Unauthenticated {
            // Once per row of failures: a server that refuses a token just made refuses the next one too.
            if schedule.attempts() > 0 || self.renew(link).await.is_err() {
                return Err(error.clone());
            }
            schedule.next_wait();
            return Ok(());
        }
        if error.code() == ErrorCode::ConnectionLost && self.is_over(link).await {
            // The supervisor paces the way back.
            return Ok(());
        }
        match schedule.decide(error, Safety::Idempotent, None) {
            Decision::Again(wait) => {
                tokio::time::sleep(wait).await;
                Ok(())
            }
            Decision::Stop(retry) => Err(error.clone().with_retry(retry)),
        }
    }

    /// Whether the connection under a stream that broke is over too. It may take a moment to know of itself.
    async fn is_over(&self, link: &Link) -> bool {
        /// Long enough for the connection's own task to run, short against any wait for another attempt.
        const MOMENT: Duration = Duration::from_millis(20);
        let over = |state: &State| match state {
            State::Up(up) => up.generation != link.generation,
            State::Down(_) | State::Closed(_) => true,
        };
        let mut watch = self.state.subscribe();
        link.channel.is_closed() || tokio::time::timeout(MOMENT, watch.wait_for(over)).await.is_ok()
    }
}

impl Core {
    /// The next time that connecting fails.
    pub(crate) async fn next_failure(&self) -> Error {
        let mut watch = self.state.subscribe();
        // What failed before this was called counts too: a first attempt may be over already.
        if let State::Down(Some(error)) = &*watch.borrow() {
            let error = error.clone();
            if !error.is_retryable() {
                return error;
            }
        }
        loop {
            if watch.changed().await.is_err() {
                return Error::closed("connect");
            }
            if let State::Down(Some(error)) | State::Closed(error) = &*watch.borrow_and_update() {
                return error.clone();
            }
        }
    }

    /// Ends subscriptions, waits until what was handed out is settled, then until every publish is answered.
    pub(crate) async fn drain(&self) {
        /// How often it is looked whether subscriptions are gone: their streams end within a round trip.
        const LOOK: Duration = Duration::from_millis(5);
        self.draining.cancel();
        for consumer in self.consumers() {
            consumer.wake_reader();
        }
        loop {
            let mut left = 0;
            for consumer in self.consumers().iter().filter(|c| c.is_queue() && !c.is_gone()) {
                left += 1;
                // Whoever holds a message settles it first.
                if !consumer.is_handling() {
                    consumer.leave();
                }
            }
            if left == 0 {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        std::future::poll_fn(|cx| self.producer.poll_idle(cx)).await;
        self.requests.close();
    }

    /// Tells the bus that the registered agent is there.
    async fn heartbeat(&self) {
        let Some(registration) = self.registration() else { return };
        match crate::agents::heartbeat(self, &registration).await {
            Ok(_) => {}
            Err(error) if error.code() == ErrorCode::SessionFenced => {
                self.registered(None);
                self.tell(Event::Fenced { agent_id: registration.agent_id });
            }
            Err(error) => tracing::debug!(%error, "a heartbeat failed"),
        }
    }
}
