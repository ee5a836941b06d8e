//! The server put together: from settings and stores to listening sockets, and back.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
};

use acb_ports::{
    BlobStore, Clock, IdSource, ManualClock, MessageLog, MetadataStore, SystemClock, SystemIds,
    metadata::{AgentFilter, ROWS_MAX},
};
use acb_types::{ErrorCode, TenantId};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{admin, grpc, router},
    app::{App, AppConfig, AppDeps, page::PageKey},
    auth::{Authenticator, FamilyId, Mode, authenticator::TENANT_DEFAULT, keyring, revocation::Revocations},
    changes::Changes,
    config::Config,
    delivery::{Delivery, DeliveryConfig, DeliveryDeps},
    domain::durability::DurabilityPolicy,
    edge::{Edge, EdgeDeps, limits::EdgeLimits, tls},
    error::AppError,
    presence::Presence,
    shutdown::{Clean, Phases},
    tasks::{Tasks, contexts::Reconciler, sweep, uploads},
    telemetry::Metrics,
};

/// Why a server does not start. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}; is another server running?")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A switch that does not go with the settings.
    #[error("{0}")]
    Refused(String),
    /// TLS is not set up.
    #[error("TLS: {0}")]
    Tls(#[from] tls::TlsError),
    /// A thread or runtime cannot be had.
    #[error("no thread: {0}")]
    Thread(#[source] io::Error),
    /// The admin key cannot be written to its file.
    #[error("admin key not written to {path}: {source}")]
    KeyFile {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The stores answered with an error.
    #[error("{error}{}", .error.report().map(|r| format!(" ({r})")).unwrap_or_default())]
    Store {
        /// What.
        error: AppError,
    },
}

impl From<AppError> for StartError {
    fn from(error: AppError) -> Self {
        Self::Store { error }
    }
}

impl From<acb_ports::StoreError> for StartError {
    fn from(error: acb_ports::StoreError) -> Self {
        Self::Store { error: error.into() }
    }
}

/// What a server keeps things in.
#[derive(Clone, Debug)]
pub struct Stores {
    /// Everything but the messages.
    pub metadata: Arc<dyn MetadataStore>,
    /// The messages.
    pub log: Arc<dyn MessageLog>,
    /// Payloads too large for a row.
    pub blobs: Arc<dyn BlobStore>,
}

/// Builds a server. Ports that are 0 are chosen by the system; [`ServerHandle`] says which.
#[derive(Debug)]
#[must_use = "nothing runs before start()"]
pub struct ServerBuilder {
    config: Config,
    stores: Stores,
    clock: Arc<dyn Clock>,
    manual: Option<Arc<ManualClock>>,
    ids: Arc<dyn IdSource>,
    mode: Mode,
    new_admin_key: bool,
    admin_key_file: Option<PathBuf>,
}

impl ServerBuilder {
    /// A server over these stores, with the machine's clock and dice.
    pub fn new(config: Config, stores: Stores) -> Self {
        Self {
            config,
            stores,
            clock: Arc::new(SystemClock::new()),
            manual: None,
            ids: Arc::new(SystemIds::new()),
            mode: Mode::Tokens,
            new_admin_key: false,
            admin_key_file: None,
        }
    }

    /// Asks nobody for credentials. Loopback only.
    pub fn dev(mut self) -> Self {
        self.mode = Mode::Dev;
        self
    }

    /// Runs on a clock that the admin listener moves by `POST /advance?ms=`. Goes with [`Self::dev`] only, because whoever
    /// moves the time ends every token.
    pub fn manual_clock(mut self, clock: Arc<ManualClock>) -> Self {
        self.clock = Arc::clone(&clock) as Arc<dyn Clock>;
        self.manual = Some(clock);
        self
    }

    /// Runs on another clock, without a way to move it from outside. For tests.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Makes an admin key also when there are keys already: for those who lost theirs and still have the data folder.
    pub fn new_admin_key(mut self) -> Self {
        self.new_admin_key = true;
        self
    }

    /// Writes an admin key that is made to a file as well, readable by its owner only.
    pub fn admin_key_file(mut self, path: PathBuf) -> Self {
        self.admin_key_file = Some(path);
        self
    }

    /// Starts. Must run inside a tokio runtime, which the server's own tasks and blocking work then use; connections have
    /// threads of their own.
    ///
    /// # Errors
    /// See [`StartError`]. Nothing is left running then.
    pub async fn start(self) -> Result<ServerHandle, StartError> {
        let config = self.config.clone();
        if self.mode == Mode::Dev && !config.server.listen.ip().is_loopback() {
            let listen = config.server.listen;
            return Err(StartError::Refused(format!(
                "--dev asks nobody who they are, so it listens on loopback only, not on {listen}"
            )));
        }
        if self.manual.is_some() && self.mode != Mode::Dev {
            return Err(StartError::Refused("--manual-clock goes with --dev only".to_owned()));
        }
        let tls = match (&config.tls.certificate, &config.tls.key) {
            (Some(certificate), Some(key)) => Some(tls::load(certificate, key)?),
            _ => None,
        };
        // Ports first: a second server on one machine is the most common mistake, and this says so at once.
        let listener = listen(config.server.listen)?;
        let admin_listener = listen(config.server.admin_listen)?;
        let address = listener.local_addr().map_err(StartError::Thread)?;
        let admin_address = admin_listener.local_addr().map_err(StartError::Thread)?;
        let inside = self.assemble().await?;
        let edge = Edge::start(listener, &inside.edge_deps(tls)).map_err(StartError::Thread)?;
        inside.tasks.spawn("admin", serve_admin(admin_listener, admin::router(inside.admin.clone())));
        let (admin_key, phases) = inside.serve(edge).await;
        Ok(ServerHandle { address, admin_address, admin_key, phases })
    }

    /// Puts together everything that is behind the edge.
    pub(crate) async fn assemble(self) -> Result<Inside, StartError> {
        let config = &self.config;
        let metrics = Arc::new(Metrics::new());
        let stop = CancellationToken::new();
        let tasks = Tasks::new(stop.clone());
        let identity = self.identity().await?;
        let delivery = Delivery::start(DeliveryDeps {
            log: Arc::clone(&self.stores.log),
            metadata: Arc::clone(&self.stores.metadata),
            clock: Arc::clone(&self.clock),
            metrics: Arc::clone(&metrics),
            config: DeliveryConfig {
                committer_threads: config.delivery.committer_threads,
                retain_every: config.delivery.retain_every,
                survey_every: config.delivery.survey_every,
            },
        })
        .await?;
        let presence = Arc::new(Presence::new(Arc::clone(&self.clock), Arc::clone(&metrics)));
        let revocations = Arc::new(Revocations::default());
        self.remember(&presence, &revocations).await?;
        let auth =
            Arc::new(Authenticator::new(self.mode, Arc::clone(&self.clock), Arc::new(identity.keyring), revocations));
        let drain = CancellationToken::new();
        let expiry = Arc::new(tokio::sync::Notify::new());
        let app = Arc::new(App::new(AppDeps {
            metadata: Arc::clone(&self.stores.metadata),
            blobs: Arc::clone(&self.stores.blobs),
            delivery: Arc::clone(&delivery),
            presence: Arc::clone(&presence),
            auth: Arc::clone(&auth),
            clock: Arc::clone(&self.clock),
            ids: Arc::clone(&self.ids),
            metrics: Arc::clone(&metrics),
            config: self.app_config(),
            page_key: identity.page_key,
            node: identity.node,
            changes: Arc::new(Changes::new(Arc::clone(&self.stores.metadata))),
            expiry: Arc::clone(&expiry),
            drain: drain.clone(),
            blocking: tokio::runtime::Handle::current(),
        })?);
        let admin_key = self.admin_key(&app).await?;
        let readiness = router::Readiness::default();
        let (services, health) = grpc::routes(&app, &tasks)?;
        let hot = hot_routes(&delivery, &auth, &presence, self.durability(), &self.clock, &metrics, &drain);
        let admin = admin::AdminDeps {
            readiness: readiness.clone(),
            metrics,
            presence,
            delivery: Arc::clone(&delivery),
            clock: Arc::clone(&self.clock),
            started_mono_ms: self.clock.now().mono_ms,
            manual: self.manual,
        };
        Ok(Inside {
            routes: router::router(hot, services, readiness),
            admin,
            admin_key,
            health,
            drain,
            stop,
            tasks,
            delivery,
            app,
            metadata: self.stores.metadata,
            expiry,
            clock: self.clock,
            config: self.config,
            stop_accepting: CancellationToken::new(),
            kill: CancellationToken::new(),
        })
    }

    /// What this data folder is called, and the keys that it signs with; made at the first start.
    async fn identity(&self) -> Result<Identity, StartError> {
        let metadata = &self.stores.metadata;
        let now = self.clock.now().wall;
        let node = metadata.setting_put_if_absent("instance_id", &self.ids.uuid_v7(now).simple().to_string()).await?;
        let mut random = [0; 32];
        self.ids.fill(&mut random);
        let page_key = metadata.setting_put_if_absent("page_key", &hex::encode(random)).await?;
        let tenant = default_tenant()?;
        match metadata.tenant_create(&tenant, "Default", now).await {
            Err(e) if e.code != ErrorCode::TenantExists => return Err(e.into()),
            _ => {}
        }
        let mut keys = metadata.signing_key_list().await?;
        if !keys.iter().any(|k| !k.retired_at.is_set()) {
            let key_id = self.ids.uuid_v7(now).simple().to_string();
            metadata.signing_key_rotate(keyring::new_signing_key(key_id, now)?).await?;
            keys = metadata.signing_key_list().await?;
        }
        let keyring = keyring::Keyring::new(format!("acb:{node}"), &keys)?;
        Ok(Identity { node, page_key: PageKey::new(page_key.as_bytes()), keyring })
    }

    /// What must be known from memory before the first call: incarnations, so that old sessions are fenced, and token
    /// families that were taken back.
    async fn remember(&self, presence: &Presence, revocations: &Revocations) -> Result<(), StartError> {
        let metadata = &self.stores.metadata;
        let now = self.clock.now().wall;
        let mut tenant_after: Option<TenantId> = None;
        loop {
            let tenants = metadata.tenant_list(tenant_after.as_ref(), ROWS_MAX).await?;
            for tenant in &tenants {
                let mut after = None;
                loop {
                    let agents =
                        metadata.agent_list(&tenant.id, &AgentFilter::default(), after.as_ref(), ROWS_MAX).await?;
                    for row in &agents {
                        presence.known(&tenant.id, &row.spec.id, row.incarnation);
                    }
                    match agents.last() {
                        Some(row) if agents.len() == ROWS_MAX as usize => after = Some(row.spec.id.clone()),
                        _ => break,
                    }
                }
                let mut after: Option<String> = None;
                loop {
                    let families = metadata.family_list_revoked(&tenant.id, now, after.as_deref(), ROWS_MAX).await?;
                    let last = families.len() < ROWS_MAX as usize;
                    after = families.last().cloned();
                    for family in families {
                        revocations.revoke(FamilyId::from(family.as_str()), now);
                    }
                    if last {
                        break;
                    }
                }
            }
            match tenants.last() {
                Some(row) if tenants.len() == ROWS_MAX as usize => tenant_after = Some(row.id.clone()),
                _ => return Ok(()),
            }
        }
    }

    fn app_config(&self) -> AppConfig {
        let config = &self.config;
        AppConfig {
            access_ttl: config.auth.access_token_ttl,
            refresh_ttl: config.auth.refresh_token_ttl,
            // With --dev everybody is one of few agents, and a manual clock fills no bucket.
            calls_per_minute: if self.mode == Mode::Dev { None } else { config.auth.calls_per_minute.0 },
            durability: self.durability(),
        }
    }

    fn durability(&self) -> DurabilityPolicy {
        let delivery = &self.config.delivery;
        DurabilityPolicy { default: delivery.durability_default, floor: delivery.durability_floor }
    }

    /// The admin key of a first start, or of one that asked for it.
    async fn admin_key(&self, app: &App) -> Result<Option<String>, StartError> {
        let tenant = default_tenant()?;
        let first = self.stores.metadata.enrolment_key_list(&tenant, None, 1).await?.is_empty();
        if self.mode == Mode::Dev || !(first || self.new_admin_key) {
            return Ok(None);
        }
        let key = app.first_key_create(&tenant).await?;
        if let Some(path) = &self.admin_key_file {
            write_secret(path, &key).map_err(|source| StartError::KeyFile { path: path.clone(), source })?;
        }
        Ok(Some(key))
    }
}

/// A server without its edge.
pub(crate) struct Inside {
    pub(crate) routes: axum::Router,
    pub(crate) admin: admin::AdminDeps,
    admin_key: Option<String>,
    health: grpc::Health,
    stop_accepting: CancellationToken,
    drain: CancellationToken,
    kill: CancellationToken,
    stop: CancellationToken,
    tasks: Tasks,
    delivery: Arc<Delivery>,
    app: Arc<App>,
    metadata: Arc<dyn MetadataStore>,
    expiry: Arc<tokio::sync::Notify>,
    clock: Arc<dyn Clock>,
    config: Config,
}

impl Inside {
    /// What an edge for it stands on.
    pub(crate) fn edge_deps(&self, tls: Option<Arc<rustls::ServerConfig>>) -> EdgeDeps {
        EdgeDeps {
            router: self.routes.clone(),
            full: router::full(),
            tls,
            limits: edge_limits(&self.config),
            hot_runtimes: hot_runtimes(self.config.edge.hot_runtimes),
            metrics: Arc::clone(&self.admin.metrics),
            stop_accepting: self.stop_accepting.clone(),
            drain: self.drain.clone(),
            kill: self.kill.clone(),
        }
    }

    /// Says that it serves. Answers with the admin key, if one was made, and with what stops it.
    pub(crate) async fn serve(self, edge: Edge) -> (Option<String>, Phases) {
        self.tasks.spawn("uploads", uploads::run(self.app));
        let reconciler = Reconciler {
            metadata: Arc::clone(&self.metadata),
            clock: Arc::clone(&self.clock),
            metrics: Arc::clone(&self.admin.metrics),
            wake: self.expiry,
        };
        self.tasks.spawn("contexts", reconciler.run());
        self.tasks.spawn("presence", Arc::clone(&self.admin.presence).run());
        self.tasks.spawn("sweep", sweep::run(Arc::clone(&self.metadata), self.clock));
        self.health.set(true).await;
        self.admin.readiness.set(true);
        let phases = Phases {
            settings: self.config.shutdown,
            readiness: self.admin.readiness,
            health: self.health,
            stop_accepting: self.stop_accepting,
            drain: self.drain,
            kill: self.kill,
            stop: self.stop,
            tasks: self.tasks,
            edge,
            delivery: self.delivery,
            metadata: self.metadata,
        };
        (self.admin_key, phases)
    }
}

struct Identity {
    node: String,
    page_key: PageKey,
    keyring: keyring::Keyring,
}

fn default_tenant() -> Result<TenantId, StartError> {
    TENANT_DEFAULT.parse().map_err(|e| StartError::Store { error: AppError::from(e) })
}

fn edge_limits(config: &Config) -> EdgeLimits {
    let edge = &config.edge;
    EdgeLimits {
        connections_max: edge.connections_max,
        streams_per_connection: edge.streams_per_connection,
        handshake_timeout: edge.handshake_timeout,
        handshakes_max: edge.handshakes_max,
        keep_alive_interval: edge.keep_alive_interval,
        keep_alive_timeout: edge.keep_alive_timeout,
        busy_poll: edge.busy_poll,
    }
}

/// Half of the cores, at least one: on two cores a second hot runtime costs more than it brings (measured, 20-30 %).
fn hot_runtimes(asked: usize) -> usize {
    if asked > 0 {
        return asked;
    }
    std::thread::available_parallelism().map_or(1, |n| n.get() / 2).max(1)
}

fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    let bound = || -> io::Result<TcpListener> {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
        // A restart must not wait for the last server's connections to be forgotten.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(4096)?;
        Ok(socket.into())
    };
    bound().map_err(|source| StartError::Listen { address, source })
}

fn write_secret(path: &std::path::Path, secret: &str) -> io::Result<()> {
    use std::{
        io::Write as _,
        os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    };
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    // Before the secret is in it: a file that was there keeps its own mode otherwise.
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    writeln!(file, "{secret}")?;
    file.sync_all()
}

async fn serve_admin(listener: TcpListener, router: axum::Router) {
    let served = async {
        listener.set_nonblocking(true)?;
        axum::serve(tokio::net::TcpListener::from_std(listener)?, router).await
    };
    if let Err(error) = served.await {
        tracing::error!("the admin listener ended: {error}");
    }
}

fn hot_routes(
    delivery: &Arc<Delivery>,
    auth: &Arc<Authenticator>,
    presence: &Arc<Presence>,
    durability: DurabilityPolicy,
    clock: &Arc<dyn Clock>,
    metrics: &Arc<Metrics>,
    drain: &CancellationToken,
) -> axum::Router {
    grpc::hot::router(Arc::new(grpc::hot::HotContext {
        delivery: Arc::clone(delivery),
        auth: Arc::clone(auth),
        presence: Arc::clone(presence),
        durability,
        clock: Arc::clone(clock),
        metrics: Arc::clone(metrics),
        drain: drain.clone(),
    }))
}

/// A running server. Dropping it leaves the server running to the end of the process; [`Self::shutdown`] ends it.
#[derive(Debug)]
pub struct ServerHandle {
    address: SocketAddr,
    admin_address: SocketAddr,
    admin_key: Option<String>,
    phases: Phases,
}

impl ServerHandle {
    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the admin listener is.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// The admin key, when this start made one. Nobody can show it again.
    pub fn admin_key(&self) -> Option<&str> {
        self.admin_key.as_deref()
    }

    /// Stops in order. `hurry` skips the waiting when it fires: nothing that was acknowledged is lost either way.
    pub async fn shutdown(self, hurry: CancellationToken) -> Clean {
        self.phases.run(hurry).await
    }
}
