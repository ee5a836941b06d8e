//! Use cases: one file a noun, each `fn(&OpContext, typed input) -> Result<_, AppError>`. They know ports and delivery,
//! and neither HTTP nor SQL.

pub mod agent;
pub mod audit;
pub mod context;
pub mod credential;
pub mod dead_letter;
pub mod download;
pub mod group;
pub mod message;
pub mod op_context;
pub mod page;
pub mod session;
pub mod subscription;
pub mod tenant;
pub mod upload;
pub mod watch;

use std::{fmt, sync::Arc, time::Duration};

use acb_ports::{BlobStore, Clock, IdSource, MetadataStore};
use acb_types::{Timestamp, limits};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

pub use self::op_context::{Caller, OpContext};
use crate::{
    auth::{Authenticator, credential::SecretHasher, rate::Buckets, rate::Rate},
    changes::Changes,
    delivery::Delivery,
    domain::durability::DurabilityPolicy,
    error::AppError,
    presence::Presence,
    telemetry::Metrics,
};

/// What use cases are told at the start.
#[derive(Clone, Debug)]
pub struct AppConfig {
    /// Life of an access token.
    pub access_ttl: Duration,
    /// Life of a refresh token.
    pub refresh_ttl: Duration,
    /// Unary calls of an agent in a minute; `None` for no bound.
    pub calls_per_minute: Option<u32>,
    /// Levels of messages.
    pub durability: DurabilityPolicy,
}

impl Default for AppConfig {
    fn default() -> Self {
        Self {
            access_ttl: limits::ACCESS_TOKEN_TTL,
            refresh_ttl: limits::REFRESH_TOKEN_TTL,
            calls_per_minute: Some(limits::CALLS_PER_MINUTE),
            durability: DurabilityPolicy::default(),
        }
    }
}

/// What use cases stand on.
#[derive(Debug)]
pub struct AppDeps {
    /// Everything but the messages.
    pub metadata: Arc<dyn MetadataStore>,
    /// Payloads too large for a row.
    pub blobs: Arc<dyn BlobStore>,
    /// The messages.
    pub delivery: Arc<Delivery>,
    /// Who is there.
    pub presence: Arc<Presence>,
    /// Who calls.
    pub auth: Arc<Authenticator>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Ids and dice.
    pub ids: Arc<dyn IdSource>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What was set.
    pub config: AppConfig,
    /// Signs page tokens.
    pub page_key: page::PageKey,
    /// Names this server in the audit.
    pub node: String,
    /// What changed, for those who follow it.
    pub changes: Arc<Changes>,
    /// Wakes the reconciler of contexts when an end comes closer.
    pub expiry: Arc<tokio::sync::Notify>,
    /// Fires when the server drains.
    pub drain: CancellationToken,
    /// Where blocking work goes, a bounded pool.
    pub blocking: tokio::runtime::Handle,
}

/// The use cases.
pub struct App {
    pub(crate) deps: AppDeps,
    hasher: SecretHasher,
    calls: Option<Buckets<CallerKey>>,
    failed_logins: session::FailedLogins,
    /// One registration or removal of an agent at a time in each of these shards, so that the store's order is the
    /// order in which delivery and presence hear of it.
    agent_order: [tokio::sync::Mutex<()>; 16],
    /// The same for subscriptions.
    subscription_order: [tokio::sync::Mutex<()>; 16],
    uploads: upload::Uploads,
    watches: watch::Watches,
    known_tenants: Mutex<ahash::AHashSet<acb_types::TenantId>>,
}

type CallerKey = (acb_types::TenantId, acb_types::AgentId);

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("config", &self.deps.config).finish_non_exhaustive()
    }
}

impl App {
    /// The use cases over these.
    ///
    /// # Errors
    /// `internal` when argon2 refuses its own defaults.
    pub fn new(deps: AppDeps) -> Result<Self, AppError> {
        let hasher = SecretHasher::new(&*deps.ids, deps.blocking.clone())?;
        let minute = |burst| Buckets::new(Rate { burst, per: Duration::from_mins(1) });
        Ok(Self {
            hasher,
            calls: deps.config.calls_per_minute.map(minute),
            failed_logins: session::FailedLogins::new(),
            agent_order: Default::default(),
            subscription_order: Default::default(),
            uploads: upload::Uploads::new(),
            watches: watch::Watches::default(),
            known_tenants: Mutex::default(),
            deps,
        })
    }

    /// Who calls.
    pub fn auth(&self) -> &Arc<Authenticator> {
        &self.deps.auth
    }

    /// What is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.deps.metrics
    }

    /// The wall clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.deps.clock.now().wall
    }

    /// Takes one call from the caller's bucket.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn admit(&self, ctx: &OpContext) -> Result<(), AppError> {
        let Some(calls) = &self.calls else { return Ok(()) };
        let p = ctx.principal();
        calls.take((p.tenant.clone(), p.agent.clone()), self.deps.clock.now().mono_ms)
    }

    /// Runs what may block for longer than a serving thread may be held, such as reads of the log.
    pub(crate) async fn block<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Delivery) -> Result<T, AppError> + Send + 'static,
    ) -> Result<T, AppError> {
        let delivery = Arc::clone(&self.deps.delivery);
        let task = self.deps.blocking.spawn_blocking(move || work(&delivery));
        task.await.map_err(|e| AppError::internal("blocking work ended early").caused_by(e))?
    }

    pub(crate) async fn in_agent_order(
        &self,
        tenant: &acb_types::TenantId,
        agent: &acb_types::AgentId,
    ) -> tokio::sync::MutexGuard<'_, ()> {
        shard(&self.agent_order, tenant.as_str(), agent.as_str()).lock().await
    }

    pub(crate) async fn in_subscription_order(
        &self,
        tenant: &acb_types::TenantId,
        name: &acb_types::SubscriptionName,
    ) -> tokio::sync::MutexGuard<'_, ()> {
        shard(&self.subscription_order, tenant.as_str(), name.as_str()).lock().await
    }
}

fn shard<'a, T, const N: usize>(shards: &'a [T; N], a: &str, b: &str) -> &'a T {
    use std::hash::{BuildHasher as _, Hasher as _};
    let mut hasher = ahash::RandomState::with_seeds(1, 2, 3, 4).build_hasher();
    hasher.write(a.as_bytes());
    hasher.write_u8(0);
    hasher.write(b.as_bytes());
    &shards[hasher.finish() as usize % N]
}
