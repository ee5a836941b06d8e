//! A watch of agents: the state at a revision, then registrations, updates and departures after it in order, and presence as
//! it changes.
//!
//! The two come from two places. The registry's changes have revisions and a history, so they are followed like those of
//! contexts, each once, also over a resume. Presence is derived and has neither: what is promised of it is that the last word a
//! watch has of an agent is what holds. So a watch that was too slow for single changes is sent everybody's presence again, and
//! a resume begins with it.

use std::{collections::VecDeque, fmt, sync::Arc};

use acb_ports::{
    Clock, MetadataStore,
    metadata::{AgentFilter, AgentRow, Change, Changed, ROWS_MAX},
};
use acb_types::{AgentId, ErrorCode, limits};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

use super::{Follower, Next, Watch};
use crate::{
    auth::AuthSession,
    error::AppError,
    presence::{Presence, PresenceChange, Seen},
};

/// Agents of one page of the state.
const STATE_PAGE: u32 = 256;
/// Events of one frame.
const FRAME_EVENTS: usize = 256;

/// What happened to an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentEventKind {
    /// So it stands at the watch's first revision.
    State,
    /// It registered, or changed.
    Changed,
    /// It left, or matches no longer.
    Left,
    /// Its presence or activity is another.
    Presence,
}

/// One event.
#[derive(Clone, Debug)]
pub struct AgentEvent {
    /// What happened.
    pub kind: AgentEventKind,
    /// Whom it happened to.
    pub agent: AgentId,
    /// The agent then; nothing of one that left.
    pub view: Option<(AgentRow, Seen)>,
}

/// Events that go out together.
#[derive(Clone, Debug)]
pub struct AgentFrame {
    /// In order.
    pub events: Vec<AgentEvent>,
    /// All of the registry up to here was sent; 0 while the state is not complete.
    pub revision: u64,
    /// Whether the state was sent, all of it.
    pub state_complete: bool,
}

/// What a watch stands on.
#[derive(Clone, Debug)]
pub struct AgentWatchDeps {
    /// Rows.
    pub metadata: Arc<dyn MetadataStore>,
    /// Who is there.
    pub presence: Arc<Presence>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Fires when the server drains.
    pub drain: CancellationToken,
}

/// What is watched, by whom.
#[derive(Debug)]
pub struct AgentWish {
    /// Who watches.
    pub session: Arc<AuthSession>,
    /// One agent, or all.
    pub agent: Option<AgentId>,
    /// Which of them.
    pub filter: AgentFilter,
    /// Changes after this revision; `None` begins with the state.
    pub after: Option<u64>,
}

/// Where a watch stands.
enum Phase {
    /// Reading all agents, after one of them.
    Listing { kind: AgentEventKind, after: Option<AgentId> },
    /// In the changes.
    Changes,
}

/// A watch that is open.
pub struct AgentWatch {
    deps: AgentWatchDeps,
    session: Arc<AuthSession>,
    agent: Option<AgentId>,
    filter: AgentFilter,
    phase: Phase,
    /// Revision of the state; what changed later comes as a change.
    at: u64,
    follower: Follower,
    changes: broadcast::Receiver<PresenceChange>,
    pending: VecDeque<AgentEvent>,
    /// Reached when all that is pending was sent.
    reached: u64,
    /// Reached by what was sent.
    sent: u64,
    /// Whether a frame was sent: the first comes at once, also without events, for it says that the watch stands.
    greeted: bool,
    heartbeat_at_ms: u64,
}

impl fmt::Debug for AgentWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentWatch").field("filter", &self.filter).field("sent", &self.sent).finish_non_exhaustive()
    }
}

impl Watch for AgentWatch {
    type Frame = AgentFrame;

    /// # Errors
    /// `token_expired`, `token_revoked`, `revision_gap`, `going_away`.
    fn next(&mut self) -> impl Future<Output = Result<AgentFrame, AppError>> + Send {
        self.next_frame()
    }

    fn events(frame: &AgentFrame) -> usize {
        frame.events.len()
    }
}

impl AgentWatch {
    /// Opens a watch. `follow` gives a place in the tenant's changes.
    ///
    /// # Errors
    /// `revision_gap` for a revision that is not reached yet.
    pub async fn open(
        deps: AgentWatchDeps,
        wish: AgentWish,
        follow: impl FnOnce(u64) -> Follower,
    ) -> Result<Self, AppError> {
        let AgentWish { session, agent, filter, after } = wish;
        let tenant = &session.principal.tenant;
        // Before the state is read: what changes meanwhile comes again, and nothing is missed.
        let changes = deps.presence.watch(tenant);
        let present = deps.metadata.tenant_revision(tenant).await?;
        if let Some(after) = after.filter(|after| *after > present) {
            let message = format!("revision {after} is not reached yet: the tenant is at {present}");
            return Err(AppError::new(ErrorCode::RevisionGap, message).detail("oldest_rev", present.to_string()));
        }
        let kind = if after.is_some() { AgentEventKind::Presence } else { AgentEventKind::State };
        let at = after.unwrap_or(present);
        Ok(Self {
            follower: follow(at),
            heartbeat_at_ms: deps.clock.now().mono_after(limits::WATCH_HEARTBEAT),
            deps,
            session,
            agent,
            filter,
            phase: Phase::Listing { kind, after: None },
            at,
            changes,
            pending: VecDeque::new(),
            reached: after.unwrap_or(0),
            sent: after.unwrap_or(0),
            greeted: false,
        })
    }

    async fn next_frame(&mut self) -> Result<AgentFrame, AppError> {
        loop {
            self.session.check(self.deps.clock.now().wall)?;
            if !self.pending.is_empty() {
                return Ok(self.frame());
            }
            let frame = match &self.phase {
                Phase::Listing { kind, after } => self.list(*kind, after.clone()).await?,
                Phase::Changes => self.wait().await?,
            };
            if let Some(frame) = frame {
                return Ok(frame);
            }
        }
    }

    fn wants(&self, row: &AgentRow) -> bool {
        self.agent.as_ref().is_none_or(|agent| *agent == row.spec.id) && self.filter.wants(&row.spec)
    }

    fn push(&mut self, kind: AgentEventKind, row: AgentRow) {
        let agent = row.spec.id.clone();
        let seen = self.deps.presence.seen(&self.session.principal.tenant, &agent);
        self.pending.push_back(AgentEvent { kind, agent, view: Some((row, seen)) });
    }

    /// Reads a page of all agents. Answers with the frame that ends the state, if that has no events.
    async fn list(&mut self, kind: AgentEventKind, after: Option<AgentId>) -> Result<Option<AgentFrame>, AppError> {
        let tenant = &self.session.principal.tenant;
        let page = STATE_PAGE.min(ROWS_MAX);
        let rows = match &self.agent {
            Some(agent) => self.deps.metadata.agent_get(tenant, agent).await?.into_iter().collect(),
            None => self.deps.metadata.agent_list(tenant, &self.filter, after.as_ref(), page).await?,
        };
        let last = self.agent.is_some() || rows.len() < page as usize;
        let next = rows.last().map(|row| row.spec.id.clone());
        for row in rows {
            // What changed after the state's revision comes as a change. Of presence, what holds now is what counts.
            if self.wants(&row) && (kind == AgentEventKind::Presence || row.revision <= self.at) {
                self.push(kind, row);
            }
        }
        if !last {
            self.phase = Phase::Listing { kind, after: next };
            return Ok(None);
        }
        self.phase = Phase::Changes;
        self.reached = self.reached.max(self.at);
        // A watch of nothing yet: its watcher still learns that the state is complete, and that it is watched from here.
        let due = kind == AgentEventKind::State || !self.greeted;
        Ok((self.pending.is_empty() && due).then(|| self.frame()))
    }

    /// Waits for changes, a heartbeat or the end.
    async fn wait(&mut self) -> Result<Option<AgentFrame>, AppError> {
        let now = self.deps.clock.now();
        let until = self.heartbeat_at_ms.min(now.mono_after(self.session.expires_at.since(now.wall)));
        // `next` hands out nothing when it is dropped, `recv` takes nothing; the others hold nothing.
        tokio::select! {
            biased;
            () = self.deps.drain.cancelled() => Err(AppError::of(ErrorCode::GoingAway)),
            next = self.follower.next() => {
                match next? {
                    Next::Gap(oldest) => {
                        let message = format!("changes after revision {} are no longer kept", self.reached);
                        return Err(AppError::new(ErrorCode::RevisionGap, message).detail("oldest_rev", oldest.to_string()));
                    }
                    Next::Changes(changes) => {
                        for change in &changes {
                            self.take(change).await?;
                        }
                        self.reached = self.follower.after();
                    }
                }
                if self.pending.is_empty() {
                    self.sent = self.reached;
                }
                Ok(None)
            }
            change = self.changes.recv() => {
                match change {
                    Ok(change) => self.presence_changed(change).await?,
                    // Everybody's presence once more: whatever was missed is in it.
                    Err(RecvError::Lagged(_)) => {
                        self.phase = Phase::Listing { kind: AgentEventKind::Presence, after: None };
                    }
                    // The table outlives its watches.
                    Err(RecvError::Closed) => return Err(AppError::of(ErrorCode::GoingAway)),
                }
                Ok(None)
            }
            () = self.deps.clock.sleep_until(until) => {
                self.session.check(self.deps.clock.now().wall)?;
                Ok(Some(self.frame()))
            }
        }
    }

    /// Makes an event of a change of the registry.
    async fn take(&mut self, change: &Change) -> Result<(), AppError> {
        let Changed::Agent { id, row } = &change.what else { return Ok(()) };
        if self.agent.as_ref().is_some_and(|agent| agent != id) {
            return Ok(());
        }
        match row {
            Some(row) if self.wants(row) => self.push(AgentEventKind::Changed, AgentRow::clone(row)),
            Some(_) => self.left(id),
            None => {
                // Left, or changed again since: then that change follows.
                let present = self.deps.metadata.agent_get(&self.session.principal.tenant, id).await?;
                if present.is_none() {
                    self.left(id);
                }
            }
        }
        Ok(())
    }

    fn left(&mut self, agent: &AgentId) {
        self.pending.push_back(AgentEvent { kind: AgentEventKind::Left, agent: agent.clone(), view: None });
    }

    async fn presence_changed(&mut self, change: PresenceChange) -> Result<(), AppError> {
        let PresenceChange { agent, seen } = change;
        if self.agent.as_ref().is_some_and(|watched| *watched != agent) {
            return Ok(());
        }
        // Whoever has a stream and no registration is nobody's affair.
        let row = self.deps.metadata.agent_get(&self.session.principal.tenant, &agent).await?;
        if let Some(row) = row.filter(|row| self.wants(row)) {
            self.pending.push_back(AgentEvent { kind: AgentEventKind::Presence, agent, view: Some((row, seen)) });
        }
        Ok(())
    }

    fn frame(&mut self) -> AgentFrame {
        self.greeted = true;
        let count = self.pending.len().min(FRAME_EVENTS);
        let events = self.pending.drain(..count).collect();
        if self.pending.is_empty() && matches!(self.phase, Phase::Changes) {
            self.sent = self.reached;
        }
        self.heartbeat_at_ms = self.deps.clock.now().mono_after(limits::WATCH_HEARTBEAT);
        let in_state = matches!(self.phase, Phase::Listing { kind: AgentEventKind::State, .. });
        let state_pending = self.pending.front().is_some_and(|event| event.kind == AgentEventKind::State);
        AgentFrame { events, revision: self.sent, state_complete: !in_state && !state_pending }
    }
}
