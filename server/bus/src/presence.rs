//! Who is there: derived from live streams and heartbeats each time somebody asks, never stored.
//!
//! Kept in memory only. After a restart of the server everybody is unknown until heard of: the server was away, not
//! the agents. What does survive is the incarnation, which comes from the metadata store when a tenant is opened.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use acb_ports::Clock;
use acb_types::{AgentId, ErrorCode, Incarnation, TenantId, Timestamp, limits};
use ahash::AHashMap;
use parking_lot::{Mutex, RwLock};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::presence::{AgentStatus, Heard, status},
    error::AppError,
};

/// What is known of one agent. Touched by streams without a lock.
#[derive(Debug)]
struct Entry {
    incarnation: AtomicU64,
    streams: AtomicU32,
    /// Milliseconds on the monotonic clock plus one; 0 when not heard of.
    heard_mono: AtomicU64,
    heard_wall: AtomicU64,
    /// Fires when a newer incarnation comes; replaced by a fresh one then.
    fence: Mutex<CancellationToken>,
}

impl Entry {
    fn new() -> Self {
        Self {
            incarnation: AtomicU64::new(0),
            streams: AtomicU32::new(0),
            heard_mono: AtomicU64::new(0),
            heard_wall: AtomicU64::new(0),
            fence: Mutex::new(CancellationToken::new()),
        }
    }

    fn hear(&self, now: acb_types::Now) {
        self.heard_mono.store(now.mono_ms.saturating_add(1), Relaxed);
        self.heard_wall.store(now.wall.0, Relaxed);
    }

    fn heard(&self, now_mono_ms: u64) -> Heard {
        match self.heard_mono.load(Relaxed) {
            0 => Heard::Never,
            at => Heard::Ago(Duration::from_millis(now_mono_ms.saturating_sub(at - 1))),
        }
    }
}

type Agents = AHashMap<AgentId, Arc<Entry>>;

/// The live table of all tenants' agents.
pub struct Presence {
    clock: Arc<dyn Clock>,
    grace: Duration,
    tenants: RwLock<AHashMap<TenantId, Agents>>,
}

impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presence").field("grace", &self.grace).finish_non_exhaustive()
    }
}

/// An agent's presence, now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Whether it is there.
    pub status: AgentStatus,
    /// Last stream or heartbeat; not set when none since the server started.
    pub last_seen_at: Timestamp,
}

impl Presence {
    /// A table in which nobody was heard of.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, grace: limits::PRESENCE_GRACE, tenants: RwLock::new(AHashMap::new()) }
    }

    /// Notes an open stream of an agent, which is online until the guard is dropped, and for the grace after it.
    /// Incarnation 0 is an agent that did not register, or does not say: it is never fenced by number.
    ///
    /// # Errors
    /// `session_fenced` when a newer incarnation is registered.
    pub fn stream_opened(
        &self,
        tenant: &TenantId,
        agent: &AgentId,
        incarnation: Incarnation,
    ) -> Result<PresenceGuard, AppError> {
        let entry = self.entry(tenant, agent);
        // The fence is taken before the number is looked at: a registration between the two fires the token taken here.
        let fence = if incarnation.0 == 0 { CancellationToken::new() } else { entry.fence.lock().clone() };
        check_incarnation(&entry, incarnation)?;
        entry.streams.fetch_add(1, Relaxed);
        entry.hear(self.clock.now());
        Ok(PresenceGuard { entry, fence, clock: Arc::clone(&self.clock) })
    }

    /// Notes a heartbeat.
    ///
    /// # Errors
    /// `session_fenced` when a newer incarnation is registered.
    pub fn touch(&self, tenant: &TenantId, agent: &AgentId, incarnation: Incarnation) -> Result<(), AppError> {
        let entry = self.entry(tenant, agent);
        check_incarnation(&entry, incarnation)?;
        entry.hear(self.clock.now());
        Ok(())
    }

    /// Notes a registration: streams of older incarnations are fenced.
    pub fn registered(&self, tenant: &TenantId, agent: &AgentId, incarnation: Incarnation) {
        let entry = self.entry(tenant, agent);
        let mut fence = entry.fence.lock();
        if entry.incarnation.fetch_max(incarnation.0, Relaxed) < incarnation.0 {
            // The new one has not been heard of yet; it says so itself in a moment.
            std::mem::replace(&mut *fence, CancellationToken::new()).cancel();
        }
    }

    /// Takes over what the metadata store knows of an agent, when its tenant is opened.
    pub fn known(&self, tenant: &TenantId, agent: &AgentId, incarnation: Incarnation) {
        self.entry(tenant, agent).incarnation.fetch_max(incarnation.0, Relaxed);
    }

    /// Forgets an agent: its streams are fenced.
    pub fn unregistered(&self, tenant: &TenantId, agent: &AgentId) {
        let entry = self.tenants.write().get_mut(tenant).and_then(|agents| agents.remove(agent));
        if let Some(entry) = entry {
            entry.fence.lock().cancel();
        }
    }

    /// Incarnation of an agent; 0 when it is not registered.
    pub fn incarnation(&self, tenant: &TenantId, agent: &AgentId) -> Incarnation {
        self.find(tenant, agent).map_or(Incarnation(0), |e| Incarnation(e.incarnation.load(Relaxed)))
    }

    /// Whether an agent is there.
    pub fn seen(&self, tenant: &TenantId, agent: &AgentId) -> Seen {
        let Some(entry) = self.find(tenant, agent) else {
            return Seen { status: AgentStatus::Unknown, last_seen_at: Timestamp::NONE };
        };
        self.seen_entry(&entry)
    }

    /// How many agents of each tenant are online.
    pub fn active(&self) -> Vec<(TenantId, usize)> {
        let tenants = self.tenants.read();
        let online =
            |agents: &Agents| agents.values().filter(|e| self.seen_entry(e).status == AgentStatus::Online).count();
        tenants.iter().map(|(tenant, agents)| (tenant.clone(), online(agents))).collect()
    }

    fn seen_entry(&self, entry: &Entry) -> Seen {
        let now = self.clock.now();
        let streams = entry.streams.load(Relaxed);
        let heard = if streams > 0 { Heard::Ago(Duration::ZERO) } else { entry.heard(now.mono_ms) };
        let wall = if streams > 0 { now.wall.0 } else { entry.heard_wall.load(Relaxed) };
        Seen { status: status(heard, self.grace), last_seen_at: Timestamp(wall) }
    }

    fn find(&self, tenant: &TenantId, agent: &AgentId) -> Option<Arc<Entry>> {
        self.tenants.read().get(tenant)?.get(agent).map(Arc::clone)
    }

    fn entry(&self, tenant: &TenantId, agent: &AgentId) -> Arc<Entry> {
        if let Some(entry) = self.find(tenant, agent) {
            return entry;
        }
        let mut tenants = self.tenants.write();
        let agents = tenants.entry(tenant.clone()).or_default();
        Arc::clone(agents.entry(agent.clone()).or_insert_with(|| Arc::new(Entry::new())))
    }
}

fn check_incarnation(entry: &Entry, given: Incarnation) -> Result<(), AppError> {
    let present = entry.incarnation.load(Relaxed);
    if given.0 != 0 && given.0 < present {
        return Err(AppError::new(
            ErrorCode::SessionFenced,
            format!("incarnation {given} of the agent was replaced by {present}"),
        )
        .detail("incarnation", present.to_string()));
    }
    Ok(())
}

/// Keeps an agent online while its stream is open.
#[derive(Debug)]
#[must_use = "the agent counts as connected only while the guard lives"]
pub struct PresenceGuard {
    entry: Arc<Entry>,
    fence: CancellationToken,
    clock: Arc<dyn Clock>,
}

impl PresenceGuard {
    /// Fires when a newer incarnation registers, or the agent is unregistered.
    pub fn fenced(&self) -> &CancellationToken {
        &self.fence
    }

    /// Notes that the stream said something. Two relaxed stores.
    pub fn touch(&self) {
        self.entry.hear(self.clock.now());
    }
}

impl Drop for PresenceGuard {
    fn drop(&mut self) {
        self.entry.hear(self.clock.now());
        self.entry.streams.fetch_sub(1, Relaxed);
    }
}
