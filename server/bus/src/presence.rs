//! Who is there: derived from live streams and heartbeats each time somebody asks, never stored. What changes by itself is
//! told to watches when it does, by one timer for all agents; each change is told once.
//!
//! Kept in memory only. After a restart of the server everybody is unknown until heard of: the server was away, not
//! the agents. What does survive is the incarnation, which comes from the metadata store when a tenant is opened.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use acb_ports::Clock;
use acb_types::{AgentId, ErrorCode, Incarnation, Now, TenantId, Timestamp, limits};
use ahash::AHashMap;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::presence::{AgentActivity, AgentPresence, AgentStatus, Heard, presence},
    error::AppError,
    telemetry::Metrics,
};

/// What is known of one agent. Touched by streams without a lock.
#[derive(Debug)]
struct Entry {
    incarnation: AtomicU64,
    streams: AtomicU32,
    /// Whether it was a stream that was heard of last, and has ended.
    lost: AtomicBool,
    /// Milliseconds on the monotonic clock plus one; 0 when not heard of.
    heard_mono: AtomicU64,
    heard_wall: AtomicU64,
    /// Fires when a newer incarnation comes; replaced by a fresh one then.
    fence: Mutex<CancellationToken>,
    /// What watches were told. Changes are told under this lock, so each is told once and in order.
    told: Mutex<Told>,
}

/// What watches were told of an agent.
#[derive(Debug)]
struct Told {
    presence: AgentPresence,
    activity: Option<Doing>,
    /// The earliest point on the monotonic clock at which it will be looked at again.
    armed: Option<u64>,
    /// The agent was unregistered: nothing more is told.
    gone: bool,
}

/// What an agent says that it is doing, and until when that holds.
#[derive(Clone, Copy, Debug)]
struct Doing {
    activity: AgentActivity,
    until_mono: u64,
    until_wall: Timestamp,
}

impl Entry {
    fn new() -> Self {
        Self {
            incarnation: AtomicU64::new(0),
            streams: AtomicU32::new(0),
            lost: AtomicBool::new(false),
            heard_mono: AtomicU64::new(0),
            heard_wall: AtomicU64::new(0),
            fence: Mutex::new(CancellationToken::new()),
            told: Mutex::new(Told { presence: AgentPresence::Unknown, activity: None, armed: None, gone: false }),
        }
    }

    fn hear(&self, now: Now) {
        self.heard_mono.store(now.mono_ms.saturating_add(1), Relaxed);
        self.heard_wall.store(now.wall.0, Relaxed);
    }

    fn heard(&self, now_mono_ms: u64) -> Heard {
        if self.streams.load(Relaxed) > 0 {
            return Heard::Now;
        }
        match self.heard_mono.load(Relaxed) {
            0 => Heard::Never,
            at => {
                let ago = Duration::from_millis(now_mono_ms.saturating_sub(at - 1));
                if self.lost.load(Relaxed) { Heard::Lost(ago) } else { Heard::Ago(ago) }
            }
        }
    }

    fn seen(&self, told: &Told, now: Now) -> Seen {
        let heard = self.heard(now.mono_ms);
        let (presence, _) = presence(heard);
        let wall = if heard == Heard::Now { now.wall.0 } else { self.heard_wall.load(Relaxed) };
        let doing = told.activity.filter(|doing| doing.until_mono > now.mono_ms);
        let doing = doing.filter(|_| presence.status() == AgentStatus::Online);
        Seen {
            status: presence.status(),
            presence,
            activity: doing.map(|doing| doing.activity),
            activity_until: doing.map_or(Timestamp::NONE, |doing| doing.until_wall),
            last_seen_at: Timestamp(wall),
        }
    }
}

type Agents = AHashMap<AgentId, Arc<Entry>>;

/// A point in time at which an agent is looked at: whatever else happened until then, what is told follows from what is
/// known then.
type Due = Reverse<(u64, TenantId, AgentId)>;

/// The live table of all tenants' agents.
pub struct Presence {
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    tenants: RwLock<AHashMap<TenantId, Agents>>,
    /// One entry an agent, and seldom more: one that is not due any more when its time comes is put back.
    timers: Mutex<BinaryHeap<Due>>,
    sooner: Notify,
    /// Where changes are told, of tenants that somebody watches.
    watched: RwLock<AHashMap<TenantId, broadcast::Sender<PresenceChange>>>,
}

impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presence").field("timers", &self.timers.lock().len()).finish_non_exhaustive()
    }
}

/// An agent's presence, now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Whether it is there.
    pub status: AgentStatus,
    /// How surely.
    pub presence: AgentPresence,
    /// What it says that it is doing.
    pub activity: Option<AgentActivity>,
    /// Until when that holds; not set without it.
    pub activity_until: Timestamp,
    /// Last stream or heartbeat; not set when none since the server started.
    pub last_seen_at: Timestamp,
}

impl Seen {
    const NOTHING: Self = Self {
        status: AgentStatus::Unknown,
        presence: AgentPresence::Unknown,
        activity: None,
        activity_until: Timestamp::NONE,
        last_seen_at: Timestamp::NONE,
    };
}

/// An agent's presence or activity is another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceChange {
    /// Whose.
    pub agent: AgentId,
    /// As it is now.
    pub seen: Seen,
}

impl Presence {
    /// A table in which nobody was heard of.
    pub fn new(clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        Self {
            clock,
            metrics,
            tenants: RwLock::default(),
            timers: Mutex::default(),
            sooner: Notify::new(),
            watched: RwLock::default(),
        }
    }

    /// Notes an open stream of an agent, which is online until the guard is dropped, and for the grace after it.
    /// Incarnation 0 is an agent that did not register, or does not say: it is never fenced by number.
    ///
    /// # Errors
    /// `session_fenced` when a newer incarnation is registered.
    pub fn stream_opened(
        self: &Arc<Self>,
        tenant: &TenantId,
        agent: &AgentId,
        incarnation: Incarnation,
    ) -> Result<PresenceGuard, AppError> {
        let entry = self.entry(tenant, agent);
        // The fence is taken before the number is looked at: a registration between the two fires the token taken here.
        let fence = if incarnation.0 == 0 { CancellationToken::new() } else { entry.fence.lock().clone() };
        check_incarnation(&entry, incarnation)?;
        entry.streams.fetch_add(1, Relaxed);
        let now = self.clock.now();
        entry.hear(now);
        self.look(tenant, agent, &entry, now);
        Ok(PresenceGuard { entry, fence, presence: Arc::clone(self), tenant: tenant.clone(), agent: agent.clone() })
    }

    /// Notes a heartbeat, with what the agent says that it is doing and for how long that holds.
    ///
    /// # Errors
    /// `session_fenced` when a newer incarnation is registered.
    pub fn touch(
        &self,
        tenant: &TenantId,
        agent: &AgentId,
        incarnation: Incarnation,
        activity: Option<(AgentActivity, Duration)>,
    ) -> Result<(), AppError> {
        let entry = self.entry(tenant, agent);
        check_incarnation(&entry, incarnation)?;
        let now = self.clock.now();
        entry.lost.store(false, Relaxed);
        entry.hear(now);
        let news = activity.map(|(activity, ttl)| Doing {
            activity,
            until_mono: now.mono_after(ttl),
            until_wall: now.wall.after(ttl),
        });
        self.look_again(tenant, agent, &entry, now, news);
        Ok(())
    }

    /// Notes a registration: streams of older incarnations are fenced, and what the older self was doing is over.
    pub fn registered(&self, tenant: &TenantId, agent: &AgentId, incarnation: Incarnation) {
        let entry = self.entry(tenant, agent);
        let newer = {
            let mut fence = entry.fence.lock();
            let newer = entry.incarnation.fetch_max(incarnation.0, Relaxed) < incarnation.0;
            if newer {
                // The new one has not been heard of yet; it says so itself in a moment.
                std::mem::replace(&mut *fence, CancellationToken::new()).cancel();
            }
            newer
        };
        if newer && entry.told.lock().activity.take().is_some() {
            self.tell(tenant, agent, entry.seen(&entry.told.lock(), self.clock.now()));
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
            entry.told.lock().gone = true;
            entry.fence.lock().cancel();
        }
    }

    /// Incarnation of an agent; 0 when it is not registered.
    pub fn incarnation(&self, tenant: &TenantId, agent: &AgentId) -> Incarnation {
        self.find(tenant, agent).map_or(Incarnation(0), |e| Incarnation(e.incarnation.load(Relaxed)))
    }

    /// Whether an agent is there.
    pub fn seen(&self, tenant: &TenantId, agent: &AgentId) -> Seen {
        let Some(entry) = self.find(tenant, agent) else { return Seen::NOTHING };
        let told = entry.told.lock();
        entry.seen(&told, self.clock.now())
    }

    /// How many agents of each tenant are online.
    pub fn active(&self) -> Vec<(TenantId, usize)> {
        let tenants = self.tenants.read();
        let now = self.clock.now();
        let is_online = |entry: &&Arc<Entry>| presence(entry.heard(now.mono_ms)).0.status() == AgentStatus::Online;
        let online = |agents: &Agents| agents.values().filter(is_online).count();
        tenants.iter().map(|(tenant, agents)| (tenant.clone(), online(agents))).collect()
    }

    /// Follows the changes of a tenant from now on. Who is more than [`limits::PRESENCE_CHANGES_WAITING`] behind has missed
    /// some, and is told so.
    pub fn watch(&self, tenant: &TenantId) -> broadcast::Receiver<PresenceChange> {
        let mut watched = self.watched.write();
        watched.retain(|_, sender| sender.receiver_count() > 0);
        let sender =
            watched.entry(tenant.clone()).or_insert_with(|| broadcast::Sender::new(limits::PRESENCE_CHANGES_WAITING));
        sender.subscribe()
    }

    /// Tells what time alone changes, for as long as the server runs.
    pub async fn run(self: Arc<Self>) {
        loop {
            self.run_due(self.clock.now());
            let due = self.timers.lock().peek().map(|Reverse((due, ..))| *due);
            // A permit that is not taken stays; the clock only tells the time.
            tokio::select! {
                () = self.sooner.notified() => {}
                () = self.clock.sleep_until(due.unwrap_or(u64::MAX)), if due.is_some() => {}
            }
        }
    }

    /// Tells what time has changed until now.
    pub fn run_due(&self, now: Now) {
        loop {
            let (due, tenant, agent) = {
                let mut timers = self.timers.lock();
                match timers.peek() {
                    Some(Reverse((due, ..))) if *due <= now.mono_ms => {}
                    _ => return,
                }
                let Some(Reverse(first)) = timers.pop() else { return };
                first
            };
            let Some(entry) = self.find(&tenant, &agent) else { continue };
            {
                let mut told = entry.told.lock();
                if told.armed == Some(due) {
                    told.armed = None;
                }
            }
            self.look(&tenant, &agent, &entry, now);
        }
    }

    fn look(&self, tenant: &TenantId, agent: &AgentId, entry: &Entry, now: Now) {
        self.look_again(tenant, agent, entry, now, None);
    }

    /// Compares what is with what was told, tells the difference, and sees to it that somebody looks again when time alone
    /// makes another.
    fn look_again(&self, tenant: &TenantId, agent: &AgentId, entry: &Entry, now: Now, doing: Option<Doing>) {
        let mut told = entry.told.lock();
        if told.gone {
            return;
        }
        let (is, change) = presence(entry.heard(now.mono_ms));
        let was_doing = told.activity.map(|doing| doing.activity);
        if let Some(doing) = doing {
            told.activity = Some(doing);
        }
        let over = |doing: &Doing| doing.until_mono <= now.mono_ms || is.status() != AgentStatus::Online;
        if told.activity.as_ref().is_some_and(over) {
            told.activity = None;
        }
        let news = told.presence != is || was_doing != told.activity.map(|doing| doing.activity);
        told.presence = is;
        let next = change.map(|span| now.mono_after(span));
        let next = next.into_iter().chain(told.activity.map(|doing| doing.until_mono)).min();
        if let Some(next) = next
            && told.armed.is_none_or(|armed| next < armed)
        {
            told.armed = Some(next);
            let mut timers = self.timers.lock();
            let first = timers.peek().is_none_or(|Reverse((due, ..))| next < *due);
            timers.push(Reverse((next, tenant.clone(), agent.clone())));
            drop(timers);
            if first {
                self.sooner.notify_one();
            }
        }
        if news {
            self.metrics.tenant(tenant).presence_changes.inc();
            self.tell(tenant, agent, entry.seen(&told, now));
        }
    }

    fn tell(&self, tenant: &TenantId, agent: &AgentId, seen: Seen) {
        if let Some(sender) = self.watched.read().get(tenant) {
            // Nobody listens any more: fine.
            let _ = sender.send(PresenceChange { agent: agent.clone(), seen });
        }
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
    presence: Arc<Presence>,
    tenant: TenantId,
    agent: AgentId,
}

impl PresenceGuard {
    /// Fires when a newer incarnation registers, or the agent is unregistered.
    pub fn fenced(&self) -> &CancellationToken {
        &self.fence
    }

    /// Notes that the stream said something. Two relaxed stores.
    pub fn touch(&self) {
        self.entry.hear(self.presence.clock.now());
    }
}

impl Drop for PresenceGuard {
    fn drop(&mut self) {
        let now = self.presence.clock.now();
        self.entry.hear(now);
        // Before the count: who looks in between finds a stream that is still open.
        self.entry.lost.store(true, Relaxed);
        self.entry.streams.fetch_sub(1, Relaxed);
        self.presence.look(&self.tenant, &self.agent, &self.entry, now);
    }
}
