//! What all clients of a round share: the history, the pace, and who is busy.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use acb_sdk::{Client, ClientBuilder, Credentials, Durability, Error, ErrorCode, Published, RetryPolicy};
use acb_testkit::wait::{Level as Reached, wait_until};
use anyhow::{Context as _, Result};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::history::{Event, Level, Place, Recorder};

/// The tenant of all clients.
pub(super) const TENANT: &str = "default";
/// Waits between attempts to connect again: a killed server is back in a moment.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));
/// Longest that a call or an acknowledgement may take, kills included.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Longest that clients need to find out that their server is gone, and to look at what had arrived.
const QUIET_WITHIN: Duration = Duration::from_secs(10);
/// Looks in a row that must find the stage quiet: a task that was woken may not have run yet.
const QUIET_LOOKS: u32 = 3;

/// The stage of one round.
#[derive(Debug)]
pub struct Stage {
    /// Where the server is, over all its lives.
    pub address: SocketAddr,
    /// Decides what clients decide by chance.
    pub seed: u64,
    /// What happens.
    pub history: Recorder,
    /// Over when nobody is to begin anything new.
    pub closing: CancellationToken,
    /// Over when everything is settled: subscribers go.
    pub leaving: CancellationToken,
    /// Publishes that may still be made in this life, so that a round stays small.
    budget: Semaphore,
    /// Publishes that are not answered.
    publishes_open: AtomicU64,
    /// Confirmed acknowledgements that are not answered.
    settlements_open: AtomicU64,
    /// Publishes that were answered in this life.
    answered: AtomicU64,
    deliveries: AtomicU64,
    /// Consumers that look at something.
    busy: AtomicI64,
    clients: Mutex<Vec<Client>>,
    /// Messages that were given back once.
    seen: Mutex<HashSet<String>>,
}

impl Stage {
    /// A stage in front of a server.
    pub fn new(address: SocketAddr, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            address,
            seed,
            history: Recorder::default(),
            closing: CancellationToken::new(),
            leaving: CancellationToken::new(),
            budget: Semaphore::new(0),
            publishes_open: AtomicU64::new(0),
            settlements_open: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            deliveries: AtomicU64::new(0),
            busy: AtomicI64::new(0),
            clients: Mutex::default(),
            seen: Mutex::default(),
        })
    }

    /// How a client of this round is built.
    pub fn builder(&self, agent: &str) -> ClientBuilder {
        let reconnect = RetryPolicy::default().initial(RECONNECT.0).max(RECONNECT.1);
        Client::builder(format!("acb://{}", self.address))
            .credentials(Credentials::dev(TENANT, agent))
            .reconnect(reconnect.clone())
            .retry(reconnect)
            .request_timeout(ANSWER_WITHIN)
            .publish_timeout(ANSWER_WITHIN)
            .connect_timeout(ANSWER_WITHIN)
    }

    /// A client as an agent, known to the stage.
    ///
    /// # Errors
    /// When it cannot connect.
    pub async fn client(&self, agent: &str) -> Result<Client> {
        let client = self.builder(agent).connect().await.with_context(|| agent.to_owned())?;
        self.clients.lock().push(client.clone());
        Ok(client)
    }

    /// Begins a life: publishers may make so many publishes.
    pub fn begin(&self, publishes: usize) {
        self.answered.store(0, Ordering::Relaxed);
        self.budget.forget_permits(usize::MAX >> 4);
        self.budget.add_permits(publishes);
    }

    /// A publisher's turn; `false` when it is over.
    pub async fn turn(&self) -> bool {
        tokio::select! {
            biased;
            () = self.closing.cancelled() => false,
            permit = self.budget.acquire() => permit.map(tokio::sync::SemaphorePermit::forget).is_ok(),
        }
    }

    /// Publishes that were answered in this life.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Publishes and confirmed acknowledgements that are not answered.
    pub fn open(&self) -> (u64, u64) {
        (self.publishes_open.load(Ordering::Relaxed), self.settlements_open.load(Ordering::Relaxed))
    }

    /// Whether this is asked of a message for the first time.
    pub fn first_time(&self, body: &str) -> bool {
        self.seen.lock().insert(body.to_owned())
    }

    /// A number for a delivery.
    pub fn next_delivery(&self) -> u64 {
        self.deliveries.fetch_add(1, Ordering::Relaxed)
    }

    /// A consumer looks at something, or has done so.
    pub fn busy(&self, busy: bool) {
        self.busy.fetch_add(if busy { 1 } else { -1 }, Ordering::SeqCst);
    }

    /// A confirmed acknowledgement is on its way while this lives.
    pub fn settling(self: &Arc<Self>) -> Settling {
        self.settlements_open.fetch_add(1, Ordering::Relaxed);
        Settling(Arc::clone(self))
    }

    /// Writes down that a message is about to be published.
    pub fn publishing(&self, producer: &str, n: u64, topic: &str, level: Level, key: Option<&str>, body: &str) {
        self.history.add(Event::Publish {
            producer: producer.to_owned(),
            n,
            topic: topic.to_owned(),
            level,
            key: key.map(str::to_owned),
            body: body.to_owned(),
        });
        self.publishes_open.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes down what became of it.
    pub fn published(&self, producer: &str, n: u64, result: Result<Published, Error>) {
        let producer = producer.to_owned();
        let event = match result {
            Ok(stored) => Event::Published {
                producer,
                n,
                place: Place::from(stored.id),
                level: Level::from(stored.durability),
                duplicate: stored.duplicate,
            },
            Err(error) if is_unknown(&error) => Event::Unanswered { producer, n, code: error.code().name().into() },
            Err(error) => Event::Refused { producer, n, code: error.code().name().into() },
        };
        self.history.add(event);
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.publishes_open.fetch_sub(1, Ordering::Relaxed);
    }

    /// A publisher died: nobody waits for these any more.
    pub fn abandoned(&self, publishes: u64) {
        self.publishes_open.fetch_sub(publishes, Ordering::Relaxed);
    }

    /// Waits until every client has noticed that the server is gone and every consumer has looked at what had arrived:
    /// what comes after this in the history came from the next life.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn quiet(&self) -> Result<()> {
        let mut looks = 0;
        wait_until("clients to notice that the server is gone", QUIET_WITHIN, || {
            let connected = self.clients.lock().iter().filter(|c| c.is_connected()).count();
            let busy = self.busy.load(Ordering::SeqCst);
            looks = if connected == 0 && busy == 0 { looks + 1 } else { 0 };
            let quiet = looks >= QUIET_LOOKS;
            async move { Reached::when(quiet, (), format!("{connected} connected, {busy} consumers busy")) }
        })
        .await
    }
}

/// Counts a confirmed acknowledgement that is on its way.
#[derive(Debug)]
pub struct Settling(Arc<Stage>);

impl Drop for Settling {
    fn drop(&mut self) {
        self.0.settlements_open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether an error leaves open what became of the message.
fn is_unknown(error: &Error) -> bool {
    error.is_retryable() || matches!(error.code(), ErrorCode::Timeout | ErrorCode::ClientClosed)
}

/// A level as the client names it.
pub(super) fn durability(level: Level) -> Durability {
    level.into()
}

/// A payload: what names the message, then bytes that nobody looks at.
pub(super) fn payload(body: &str, filler: usize) -> String {
    format!("{body} {}", "x".repeat(filler))
}

/// What names the message of a payload.
pub fn body_of(payload: &[u8]) -> String {
    let name = payload.split(|b| *b == b' ').next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}
