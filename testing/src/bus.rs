//! The fake bus: the server over memory, started, moved on, killed and started again.

use std::{fmt, sync::Arc, time::Duration};

use acb_ports::{
    BlobStore, Clock, ManualClock, MessageLog, MetadataStore, StoreError, SystemClock,
    memory::{MemoryBlobs, MemoryKeep, MemoryLog, MemoryMetadata},
};
use acb_sdk::{Client, ClientBuilder, Credentials, Dialer, Timestamp};
use acb_server::{
    ServerBuilder, StartError, Stores,
    config::{
        Config,
        load::{Origin, Values},
    },
    in_process::RouteLayer,
};
use acb_types::ClassId;
use parking_lot::Mutex;

use crate::{
    error::FakeError,
    network::{Network, Switch},
    run::{End, Run},
};

/// Where clients think they connect.
const ENDPOINT: &str = "acb://fake";
/// The tenant that clients belong to unless somebody says otherwise.
const TENANT: &str = "default";
/// Bytes of messages that a tenant's class keeps. Then inboxes refuse and topics drop their oldest, as on a server.
const CLASS_BYTES_MAX: u64 = 256 << 20;

/// Puts something between the bus and what it stands on. For `acb-faults`, which shows that the conformance scenarios
/// find a bus that lies; nothing else has a use for it.
#[doc(hidden)]
pub trait Wrapping: Send + Sync + fmt::Debug + 'static {
    /// The log that the server sees.
    fn log(&self, log: Arc<dyn MessageLog>) -> Arc<dyn MessageLog> {
        log
    }

    /// The metadata store that the server sees, opened anew with each start.
    fn metadata(&self, metadata: Arc<dyn MetadataStore>) -> Result<Arc<dyn MetadataStore>, StoreError> {
        Ok(metadata)
    }

    /// The clock that the server sees.
    fn clock(&self, clock: Arc<dyn Clock>) -> Arc<dyn Clock> {
        clock
    }

    /// The blobs that the server sees.
    fn blobs(&self, blobs: Arc<dyn BlobStore>) -> Arc<dyn BlobStore> {
        blobs
    }

    /// The bus was killed: nothing of it is answered any more, and none of its work reaches log and metadata.
    fn killed(&self) {}

    /// What stands around the routes.
    fn routes(&self) -> Option<RouteLayer> {
        None
    }
}

/// What is decided before a fake bus starts. Made by [`FakeBus::builder`].
#[derive(Clone, Debug)]
#[must_use = "nothing runs before start()"]
pub struct FakeBusBuilder {
    credentials: bool,
    clock: Option<Timestamp>,
    tenant: String,
    settings: Vec<(String, String)>,
    wrapping: Option<Arc<dyn Wrapping>>,
}

impl FakeBusBuilder {
    /// Runs on the machine's time. Without it time stands until [`FakeBus::advance`].
    pub fn real_clock(mut self) -> Self {
        self.clock = None;
        self
    }

    /// Where the bus's clock stands at the start; 2026-01-01T00:00:00Z by default.
    pub fn starting_at(mut self, wall: Timestamp) -> Self {
        self.clock = Some(wall);
        self
    }

    /// Asks for credentials, as a server without `--dev`: see [`FakeBus::admin_key`]. By default every client is taken at
    /// its word.
    pub fn with_credentials(mut self) -> Self {
        self.credentials = true;
        self
    }

    /// The tenant of [`FakeBus::client`]; `default` unless set. With [`Self::with_credentials`] it must exist.
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = tenant.into();
        self
    }

    /// Sets one of the server's settings by its path, such as `delivery.durability_floor`. Those of listeners, TLS and
    /// storage mean nothing here.
    pub fn setting(mut self, path: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((path.into(), value.into()));
        self
    }

    /// See [`Wrapping`].
    #[doc(hidden)]
    pub fn wrapped(mut self, wrapping: Arc<dyn Wrapping>) -> Self {
        self.wrapping = Some(wrapping);
        self
    }

    /// Starts the bus and waits until it serves: some milliseconds. Needs no tokio runtime; the bus brings its own.
    ///
    /// # Errors
    /// [`FakeError::Setting`] for settings that the server does not take, [`FakeError::Thread`] when the system gives no
    /// thread.
    ///
    /// # Cancel safety
    /// Dropped, nothing is left running.
    pub async fn start(self) -> Result<FakeBus, FakeError> {
        let mut values = Values::default();
        // One log's flush at a time is enough where nothing is flushed, and a test's own work needs the processor more than
        // the bus's latency does.
        let own = [("delivery.committer_threads", "1"), ("edge.busy_poll", "0s")];
        let own = own.map(|(path, text)| (path.to_owned(), text.to_owned()));
        for (path, text) in own.into_iter().chain(self.settings) {
            values.set(&path, text, Origin::Flag("setting")).map_err(|p| FakeError::Setting(p.to_string()))?;
        }
        let config = Config::read(&values).map_err(|problems| {
            let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
            FakeError::Setting(all.join("; "))
        })?;
        let log = MemoryLog::new();
        for (class, inbox) in [(ClassId::INBOX, true), (ClassId::TOPICS, false), (ClassId::DEAD_LETTERS, false)] {
            let age = match class {
                ClassId::INBOX => acb_types::limits::INBOX_TTL,
                ClassId::DEAD_LETTERS => acb_types::limits::DEAD_LETTER_TTL,
                _ => config.retention.topics_age,
            };
            let keep = MemoryKeep { age, bytes: CLASS_BYTES_MAX, drop_oldest: !inbox, consumed_goes: inbox };
            log.keep(class, keep);
        }
        let bus = FakeBus {
            config,
            credentials: self.credentials,
            tenant: self.tenant,
            metadata: MemoryMetadata::new(),
            opened: Mutex::default(),
            blobs: MemoryBlobs::new(),
            log,
            clock: Mutex::new(match self.clock {
                Some(wall) => Time::Manual(Arc::new(ManualClock::new(wall))),
                None => Time::Real(Arc::new(SystemClock::new())),
            }),
            switch: Arc::default(),
            admin_key: Mutex::default(),
            run: tokio::sync::Mutex::new(None),
            wrapping: self.wrapping,
        };
        bus.restart().await?;
        Ok(bus)
    }
}

#[derive(Clone, Debug)]
enum Time {
    Manual(Arc<ManualClock>),
    Real(Arc<SystemClock>),
}

/// A bus in this process. Dropping it ends it; clients find it gone.
#[derive(Debug)]
pub struct FakeBus {
    config: Config,
    credentials: bool,
    tenant: String,
    metadata: MemoryMetadata,
    /// The running server's handle.
    opened: Mutex<MemoryMetadata>,
    blobs: MemoryBlobs,
    log: MemoryLog,
    clock: Mutex<Time>,
    switch: Arc<Switch>,
    admin_key: Mutex<Option<String>>,
    run: tokio::sync::Mutex<Option<Run>>,
    wrapping: Option<Arc<dyn Wrapping>>,
}

impl FakeBus {
    /// Starts a bus that asks for no credentials and whose time stands: what most tests want.
    ///
    /// # Errors
    /// When the system gives no thread.
    ///
    /// # Cancel safety
    /// Dropped, nothing is left running.
    pub async fn start() -> Result<Self, FakeError> {
        Self::builder().start().await
    }

    /// Begins with [`Self::start`]'s settings.
    pub fn builder() -> FakeBusBuilder {
        FakeBusBuilder {
            credentials: false,
            clock: Some(ManualClock::default().now().wall),
            tenant: TENANT.to_owned(),
            settings: Vec::new(),
            wrapping: None,
        }
    }

    /// A client of this bus, as an agent of the bus's tenant. Connect it; everything else can be set as on any client.
    /// With [`FakeBusBuilder::with_credentials`] set its credentials, too.
    pub fn client(&self, agent: impl Into<String>) -> ClientBuilder {
        self.client_of(&self.tenant, agent)
    }

    /// A client of another tenant, which is made by its first use.
    pub fn client_of(&self, tenant: &str, agent: impl Into<String>) -> ClientBuilder {
        client(self.network().dialer(), tenant, agent.into())
    }

    /// A way to the bus of its own, whose faults the test commands.
    pub fn network(&self) -> Network {
        Network::new(&self.switch, &self.tenant)
    }

    /// Address to go with a [`Network::dialer`].
    pub fn endpoint(&self) -> &'static str {
        ENDPOINT
    }

    /// The first admin key of a bus that asks for credentials.
    pub fn admin_key(&self) -> Option<String> {
        self.admin_key.lock().clone()
    }

    /// Lets a span of time pass on the bus, at once: leases end, attempts come due, messages and tokens expire, and all of
    /// that has happened when this returns. Answers with the bus's wall clock.
    ///
    /// While the bus does not run, only the machine's time passes.
    ///
    /// # Errors
    /// [`FakeError::RealClock`] when nobody moves the bus's time.
    pub fn advance(&self, span: Duration) -> Result<Timestamp, FakeError> {
        let clock = self.manual()?;
        let now = self.switch.door().and_then(|door| door.advance(span)).unwrap_or_else(|| clock.advance(span));
        Ok(now.wall)
    }

    /// Sets the bus's wall clock, forward or back, as somebody at the machine may: no time passes by it.
    ///
    /// # Errors
    /// [`FakeError::RealClock`] when nobody moves the bus's time.
    pub fn set_wall(&self, wall: Timestamp) -> Result<(), FakeError> {
        self.manual()?.set_wall(wall);
        Ok(())
    }

    /// The bus's wall clock.
    pub fn now(&self) -> Timestamp {
        match &*self.clock.lock() {
            Time::Manual(clock) => clock.now().wall,
            Time::Real(clock) => clock.now().wall,
        }
    }

    fn manual(&self) -> Result<Arc<ManualClock>, FakeError> {
        match &*self.clock.lock() {
            Time::Manual(clock) => Ok(Arc::clone(clock)),
            Time::Real(_) => Err(FakeError::RealClock),
        }
    }

    /// What the bus counts, as Prometheus reads it.
    ///
    /// # Errors
    /// [`FakeError::NotRunning`].
    pub fn metrics(&self) -> Result<String, FakeError> {
        let door = self.switch.door().ok_or(FakeError::NotRunning)?;
        door.metrics().map_err(|_| FakeError::Broken)
    }

    /// Ends the bus as kill -9 ends a server: connections break, and what was not written is gone. What was written stays
    /// for [`Self::restart`]. Killing what does not run does nothing.
    ///
    /// # Cancel safety
    /// Dropped, the bus is ended all the same, by the thread that drops it.
    pub async fn kill(&self) {
        let mut running = self.run.lock().await;
        self.switch.close();
        self.switch.cut();
        // Before anything is told to end: what is on its way must not reach the stores any more.
        self.log.kill();
        self.opened.lock().kill();
        if let Some(wrapping) = &self.wrapping {
            wrapping.killed();
        }
        if let Some(run) = running.take() {
            run.end(End::Kill).await;
        }
    }

    /// Stops the bus in order: clients are told and finish what they have. Stopping what does not run does nothing.
    ///
    /// # Cancel safety
    /// As [`Self::kill`].
    pub async fn stop(&self) {
        let mut running = self.run.lock().await;
        self.switch.close();
        if let Some(run) = running.take() {
            run.end(End::Stop).await;
        }
        self.switch.cut();
    }

    /// Starts the bus again over what it had stored; kills it first when it runs. The wall clock goes on from where it
    /// stood.
    ///
    /// # Errors
    /// As [`FakeBusBuilder::start`].
    ///
    /// # Cancel safety
    /// Dropped, the bus may be killed and not started.
    pub async fn restart(&self) -> Result<(), FakeError> {
        self.kill().await;
        let mut running = self.run.lock().await;
        let started = Run::start(self.server()?, self.wrapping.as_ref().and_then(|w| w.routes())).await?;
        if let Some(key) = started.admin_key {
            *self.admin_key.lock() = Some(key);
        }
        *running = Some(started.run);
        self.switch.open(started.door);
        Ok(())
    }

    /// Whether the bus runs.
    pub fn is_running(&self) -> bool {
        self.switch.door().is_some()
    }

    /// The next run of the server, over the same stores.
    fn server(&self) -> Result<ServerBuilder, StartError> {
        let mut log: Arc<dyn MessageLog> = Arc::new(self.log.clone());
        let time = {
            let mut time = self.clock.lock();
            // The machine's wall clock outlives a server; the monotonic half begins anew with each.
            if let Time::Manual(clock) = &*time {
                *time = Time::Manual(Arc::new(ManualClock::new(clock.now().wall)));
            }
            time.clone()
        };
        let mut clock: Arc<dyn Clock> = match &time {
            Time::Manual(clock) => Arc::clone(clock) as Arc<dyn Clock>,
            Time::Real(clock) => Arc::clone(clock) as Arc<dyn Clock>,
        };
        let mut blobs: Arc<dyn BlobStore> = Arc::new(self.blobs.reopened());
        let opened = self.metadata.reopened();
        self.opened.lock().clone_from(&opened);
        let mut metadata: Arc<dyn MetadataStore> = Arc::new(opened);
        if let Some(wrapping) = &self.wrapping {
            (log, clock, blobs) = (wrapping.log(log), wrapping.clock(clock), wrapping.blobs(blobs));
            metadata = wrapping.metadata(metadata)?;
        }
        let stores = Stores { metadata, log, blobs };
        let mut server = ServerBuilder::new(self.config.clone(), stores);
        if !self.credentials {
            server = server.dev();
        }
        if let Time::Manual(manual) = time {
            server = server.manual_clock(manual);
        }
        // Last: the clock that the server looks at is the one that may be wrapped.
        Ok(server.clock(clock))
    }
}

impl Drop for FakeBus {
    fn drop(&mut self) {
        self.switch.close();
        self.switch.cut();
        self.log.kill();
    }
}

/// A client builder that connects through a dialer.
pub(crate) fn client(dialer: Arc<dyn Dialer>, tenant: &str, agent: String) -> ClientBuilder {
    Client::builder(ENDPOINT).dialer(dialer).credentials(Credentials::dev(tenant, agent))
}
