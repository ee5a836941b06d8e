//! The client: a cheap handle that hands out one small handle per noun.

use std::{ops::Deref, sync::Arc, time::Duration};

use crate::{
    admin::Admin,
    agents::Agents,
    auth::Auth,
    connection::{Core, Events},
    contexts::Contexts,
    credentials::Identity,
    dead_letters::DeadLetters,
    error::{Error, Result},
    health::Health,
    messages::Messages,
    options::{ClientBuilder, Options},
    streams::Streams,
    subscribe::SubscribeBuilder,
    subscriptions::Subscriptions,
};

/// A connection to a bus, as one agent. Cheap to clone; all clones share one connection, and the last one to be dropped
/// closes it.
///
/// One client per process and agent is enough: all of its calls, publishes and subscriptions share one connection that
/// comes back by itself.
///
#[doc = "```no_run"]
#[doc = include_str!("../doc/client.rs")]
#[doc = "```"]
#[derive(Clone, Debug)]
pub struct Client {
    core: Handle,
}

/// What keeps a client's tasks alive. Its tasks hold [`Core`] only, so that they end with the last handle.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    core: Arc<Core>,
    _guard: Arc<Guard>,
}

#[derive(Debug)]
struct Guard(Arc<Core>);

impl Drop for Guard {
    fn drop(&mut self) {
        stop(&self.0);
    }
}

fn stop(core: &Core) {
    core.requests().close();
    core.tasks.closing.cancel();
}

impl Handle {
    pub(crate) fn arc(&self) -> Arc<Core> {
        Arc::clone(&self.core)
    }
}

impl Deref for Handle {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}

impl Client {
    /// Starts a client for a bus at `acb://host:port` (plain text) or `acbs://host:port` (TLS 1.3). The port is 7400
    /// when it is left out.
    pub fn builder(endpoint: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new(endpoint.into())
    }

    pub(crate) async fn connect(options: Options) -> Result<Self> {
        let timeout = options.connect_timeout;
        let core = Core::start(options)?;
        let core = Handle { _guard: Arc::new(Guard(Arc::clone(&core))), core };
        match tokio::time::timeout(timeout, core.first_link()).await {
            Ok(result) => result?,
            Err(_) => {
                return Err(core.down().unwrap_or_else(|| Error::timeout("connect", timeout)));
            }
        }
        Ok(Self { core })
    }

    /// Agents: who is on the bus, and what they can do.
    pub fn agents(&self) -> Agents {
        Agents::new(self.core.clone())
    }

    /// Messages: send, publish, broadcast, request.
    pub fn messages(&self) -> Messages {
        Messages::new(self.core.clone())
    }

    /// Durable subscriptions: create, get, list, delete.
    pub fn subscriptions(&self) -> Subscriptions {
        Subscriptions::new(self.core.clone())
    }

    /// Dead letters: list, get, redrive, discard.
    pub fn dead_letters(&self) -> DeadLetters {
        DeadLetters::new(self.core.clone())
    }

    /// Contents of any size: uploads and downloads.
    pub fn streams(&self) -> Streams {
        Streams::new(self.core.clone())
    }

    /// The client's own tokens.
    pub fn auth(&self) -> Auth {
        Auth::new(self.core.clone())
    }

    /// Contexts: share, get, update, watch.
    pub fn contexts(&self) -> Contexts {
        Contexts::new(self.core.clone())
    }

    /// Tenants, keys, secrets and groups; for admins.
    pub fn admin(&self) -> Admin {
        Admin::new(self.core.clone())
    }

    /// Receives from a durable subscription. Several consumers of one name share it: each message goes to one of them.
    ///
    #[doc = "```no_run"]
    #[doc = include_str!("../doc/subscribe.rs")]
    #[doc = "```"]
    pub fn subscribe(&self, name: impl AsRef<str>) -> SubscribeBuilder {
        SubscribeBuilder::durable(self.core.clone(), name.as_ref())
    }

    /// Receives what is sent to this client's agent, and broadcasts.
    pub fn inbox(&self) -> SubscribeBuilder {
        SubscribeBuilder::inbox(self.core.clone())
    }

    /// Receives new messages of topics as long as the subscription lives (and 10 s after a lost connection). `*` stands
    /// for one token, a last `>` for one or more.
    pub fn listen<S: AsRef<str>>(&self, filters: impl IntoIterator<Item = S>) -> SubscribeBuilder {
        SubscribeBuilder::ephemeral(self.core.clone(), filters)
    }

    /// Id of the agent that this client speaks for, when its credentials name one.
    pub fn agent_id(&self) -> Option<String> {
        self.core.agent_id()
    }

    /// Whom the tokens speak for; `None` before a login, and always with dev credentials.
    pub fn identity(&self) -> Option<Identity> {
        self.core.tokens().tokens().map(|t| t.identity.clone())
    }

    /// What happens to the connection from now on.
    pub fn events(&self) -> Events {
        self.core.events()
    }

    /// Whether there is a connection now. There may be none a moment later; calls wait for it in any case.
    pub fn is_connected(&self) -> bool {
        self.core.is_up()
    }

    /// Asks the server how it is.
    ///
    /// # Errors
    /// When no answer came within the request timeout.
    pub async fn health(&self) -> Result<Health> {
        self.core.health().await
    }

    /// Finishes what is in hand, then closes: subscriptions end, so that loops over them and running handlers finish;
    /// publishes are flushed; acks are sent. May be called twice.
    ///
    /// # Errors
    /// `timeout` when that takes longer than the drain timeout; the client is closed all the same.
    ///
    /// # Cancel safety
    /// May be called again; until then subscriptions stay ended and the connection stays.
    pub async fn drain(&self) -> Result<()> {
        let timeout = self.core.options().drain_timeout;
        let drained = tokio::time::timeout(timeout, self.core.drain()).await;
        self.close().await;
        drained.map_err(|_| Error::timeout("drain", timeout))
    }

    /// Stops now: what is unacknowledged is answered with `client_closed`, unsettled messages go back to the bus after
    /// their grace. May be called twice.
    ///
    /// # Cancel safety
    /// The client is closed as soon as this was polled once.
    pub async fn close(&self) {
        /// Tasks end within one poll of theirs; a handler that blocks the thread may hold them up.
        const ENDED_WITHIN: Duration = Duration::from_secs(5);
        stop(&self.core);
        if tokio::time::timeout(ENDED_WITHIN, self.core.tasks.ended()).await.is_err() {
            tracing::warn!("tasks of a closed client still run");
        }
    }
}

impl Core {
    /// Waits for the first connection, or for an error that waiting does not mend.
    async fn first_link(&self) -> Result<()> {
        loop {
            tokio::select! {
                link = self.link() => return link.map(drop),
                error = self.next_failure() => {
                    if !error.is_retryable() {
                        return Err(error);
                    }
                }
            }
        }
    }
}
