//! A watch of contexts: the state at a revision, then what changed after it, each once and in order, as far as the caller
//! sees it.
//!
//! Nothing is remembered of what was sent but a revision: whether a change brings a context into sight or takes it out is
//! told by how it was before and after, and by the groups that the caller was in. So a watch costs the same however much it
//! watches, and goes on from its last revision on any connection.

use std::{collections::VecDeque, sync::Arc};

use acb_ports::{
    BlobStore, Clock, MetadataStore,
    metadata::{
        Change, Changed, ContentPlace, ContextFilter, ContextRelation, ContextRow, ContextState, ListedAt, MemberWay,
        Payloads, Viewer,
    },
};
use acb_types::{ContextId, ErrorCode, GroupName, TenantId, limits};
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::{Follower, Next, Watch};
use crate::{
    auth::{AuthSession, Role, Roles},
    domain::context::{ContextVerb, Verdict, decide},
    error::AppError,
};

/// Contexts of one page of the state.
const STATE_PAGE: u32 = 64;
/// Bytes of one frame; one context always goes.
const FRAME_BYTES: usize = 1024 * 1024;
/// Events of one frame.
const FRAME_EVENTS: usize = 256;

/// What happened to a context, as the watcher sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// So it stands at the watch's first revision.
    State,
    /// It was made, or came into sight.
    Created,
    /// It changed.
    Updated,
    /// It was deleted, or went out of sight.
    Deleted,
    /// Its time was over.
    Expired,
}

/// One event.
#[derive(Clone, Debug)]
pub struct WatchEvent {
    /// What happened.
    pub kind: EventKind,
    /// The context then; what went out of sight must be shown as a marker.
    pub row: Arc<ContextRow>,
    /// Its payload, where the watcher takes payloads of its size.
    pub payload: Option<Bytes>,
}

impl WatchEvent {
    /// Whether the context is not there any more for the watcher.
    pub fn is_gone(&self) -> bool {
        matches!(self.kind, EventKind::Deleted | EventKind::Expired)
    }
}

/// Events that go out together.
#[derive(Clone, Debug)]
pub struct WatchFrame {
    /// In order of revisions.
    pub events: Vec<WatchEvent>,
    /// All up to here was sent; 0 while the state is not complete.
    pub revision: u64,
    /// Whether the state was sent, all of it.
    pub state_complete: bool,
}

/// What a watch stands on.
#[derive(Clone, Debug)]
pub struct WatchDeps {
    /// Rows.
    pub metadata: Arc<dyn MetadataStore>,
    /// Large payloads.
    pub blobs: Arc<dyn BlobStore>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Fires when the server drains.
    pub drain: CancellationToken,
}

/// What is watched, by whom.
#[derive(Debug)]
pub struct WatchWish {
    /// Who watches.
    pub session: Arc<AuthSession>,
    /// What decides over contexts for it.
    pub roles: Roles,
    /// What; its viewer is not looked at.
    pub filter: ContextFilter,
    /// Changes after this revision; `None` begins with the state.
    pub after: Option<u64>,
    /// Largest payload that comes with its event; 0 for none.
    pub payload_bytes_max: usize,
}

/// Where a watch stands.
enum Phase {
    /// In the state, after a context.
    State { at: u64, after: Option<ContextId> },
    /// In the changes.
    Changes,
}

/// A watch that is open.
pub struct ContextWatch {
    deps: WatchDeps,
    session: Arc<AuthSession>,
    roles: Roles,
    filter: ContextFilter,
    /// Who looks; nobody in particular for an admin, who sees all.
    viewer: Option<Viewer>,
    payload_bytes_max: usize,
    phase: Phase,
    follower: Follower,
    /// The tenant's revision when the watch was opened.
    present_then: u64,
    /// Whether it was reached: from then on a hole is the watcher's slowness.
    caught_up: bool,
    /// Events that wait for their frame, each with its change's revision; 0 for the state's.
    pending: VecDeque<(u64, WatchEvent)>,
    /// The revision that is reached when nothing is pending any more.
    reached: u64,
    sent: u64,
    /// Whether a frame was sent: the first comes at once, also without events, for it says that the watch stands.
    greeted: bool,
    heartbeat_at_ms: u64,
}

impl std::fmt::Debug for ContextWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContextWatch").field("filter", &self.filter).field("sent", &self.sent).finish_non_exhaustive()
    }
}

impl Watch for ContextWatch {
    type Frame = WatchFrame;

    /// # Errors
    /// `token_expired`, `token_revoked`, `revision_gap`, `slow_down`, `going_away`.
    fn next(&mut self) -> impl Future<Output = Result<WatchFrame, AppError>> + Send {
        self.next_frame()
    }

    fn events(frame: &WatchFrame) -> usize {
        frame.events.len()
    }
}

impl ContextWatch {
    /// Opens a watch. `follow` gives a place in the tenant's changes.
    ///
    /// # Errors
    /// `revision_gap` with the detail `oldest_rev`.
    pub async fn open(
        deps: WatchDeps,
        wish: WatchWish,
        follow: impl FnOnce(u64) -> Follower,
    ) -> Result<Self, AppError> {
        let WatchWish { session, roles, filter, after, payload_bytes_max } = wish;
        let p = &session.principal;
        let present = deps.metadata.tenant_revision(&p.tenant).await?;
        if let Some(after) = after
            && after > present
        {
            // Its numbers are of another life of these data, such as before they came from a backup.
            let message = format!("revision {after} is not reached yet: the tenant is at {present}");
            return Err(AppError::new(ErrorCode::RevisionGap, message).detail("oldest_rev", present.to_string()));
        }
        let (at, viewer) = if roles.has(Role::Admin) {
            (after.unwrap_or(present), None)
        } else {
            let then = deps.metadata.memberships(&p.tenant, &p.agent, after).await;
            let then = match then {
                Err(e) if e.code == ErrorCode::RevisionGap => {
                    let oldest = deps.metadata.change_list(&p.tenant, present, 1).await?.oldest;
                    return Err(gap(after.unwrap_or(0), oldest));
                }
                then => then?,
            };
            (then.revision, Some(Viewer { agent: p.agent.clone(), groups: then.groups }))
        };
        let (phase, sent) = match after {
            None => (Phase::State { at, after: None }, 0),
            Some(after) => (Phase::Changes, after),
        };
        let heartbeat_at_ms = deps.clock.now().mono_after(limits::WATCH_HEARTBEAT);
        let filter = ContextFilter { viewer: None, ..filter };
        let follower = follow(at);
        let pending = VecDeque::new();
        let caught_up = false;
        Ok(Self {
            deps,
            session,
            roles,
            filter,
            viewer,
            payload_bytes_max,
            phase,
            follower,
            present_then: present,
            caught_up,
            pending,
            reached: sent,
            sent,
            greeted: false,
            heartbeat_at_ms,
        })
    }

    fn tenant(&self) -> &TenantId {
        &self.session.principal.tenant
    }

    async fn next_frame(&mut self) -> Result<WatchFrame, AppError> {
        loop {
            self.session.check(self.deps.clock.now().wall)?;
            if !self.pending.is_empty() {
                return Ok(self.frame());
            }
            match self.phase {
                Phase::State { at, after } => {
                    if let Some(frame) = self.state_page(at, after).await? {
                        return Ok(frame);
                    }
                }
                // All that is past was looked at, and nothing of it is wanted.
                Phase::Changes if !self.greeted && self.reached >= self.present_then => return Ok(self.frame()),
                Phase::Changes => {
                    if let Some(frame) = self.wait().await? {
                        return Ok(frame);
                    }
                }
            }
        }
    }

    /// Reads a page of the state. Answers with the frame that ends it, if that has no events.
    async fn state_page(&mut self, at: u64, after: Option<ContextId>) -> Result<Option<WatchFrame>, AppError> {
        let filter = ContextFilter { viewer: self.viewer.clone(), ..self.filter.clone() };
        let rows = self.list(&filter, at, after.as_ref()).await?;
        let last = rows.len() < STATE_PAGE as usize;
        let next = rows.last().map(|row| row.id);
        for row in rows {
            if self.sees(&row, self.viewer.as_ref()) {
                self.push(0, EventKind::State, Arc::new(row)).await?;
            }
        }
        if !last {
            self.phase = Phase::State { at, after: next };
            return Ok(None);
        }
        self.phase = Phase::Changes;
        self.reached = at;
        // Also of nothing: its watcher still learns that the state is complete.
        Ok(Some(self.frame()))
    }

    /// Lists contexts as they were at a revision.
    async fn list(
        &self,
        filter: &ContextFilter,
        at: u64,
        after: Option<&ContextId>,
    ) -> Result<Vec<ContextRow>, AppError> {
        let payloads = if self.payload_bytes_max > 0 { Payloads::Read } else { Payloads::LeaveOut };
        let revision = ListedAt::Revision(at);
        let rows = self.deps.metadata.context_list(self.tenant(), filter, revision, payloads, after, STATE_PAGE).await;
        match rows {
            // So much was written while the state was read that it is no longer there to be read.
            Err(e) if e.code == ErrorCode::RevisionGap => Err(too_slow("the state changed faster than it was read")),
            rows => Ok(rows?),
        }
    }

    /// Waits for changes, a heartbeat or the end.
    async fn wait(&mut self) -> Result<Option<WatchFrame>, AppError> {
        let now = self.deps.clock.now();
        // A session of `--dev` has no end; a point that far away is never reached.
        let ends_in = self.session.expires_at.since(now.wall);
        let until = self.heartbeat_at_ms.min(now.mono_after(ends_in));
        // `next` hands out nothing when it is dropped; the others hold nothing.
        let next = tokio::select! {
            biased;
            () = self.deps.drain.cancelled() => return Err(AppError::of(ErrorCode::GoingAway)),
            next = self.follower.next() => next?,
            () = self.deps.clock.sleep_until(until) => {
                self.session.check(self.deps.clock.now().wall)?;
                self.caught_up = true;
                return Ok(Some(self.frame()));
            }
        };
        match next {
            Next::Gap(oldest) if self.caught_up => Err(too_slow(format!("changes up to {oldest} are no longer kept"))),
            Next::Gap(oldest) => Err(gap(self.sent, oldest)),
            Next::Changes(changes) => {
                for change in &changes {
                    self.take(change).await?;
                }
                let reached = self.follower.after();
                let behind = self.follower.present().saturating_sub(reached);
                if behind > limits::WATCH_BEHIND_MAX {
                    return Err(too_slow(format!("the watch is {behind} changes behind")));
                }
                self.caught_up |= reached >= self.present_then;
                self.reached = reached;
                Ok(None)
            }
        }
    }

    /// Makes events of a change.
    async fn take(&mut self, change: &Change) -> Result<(), AppError> {
        match &change.what {
            Changed::Agent { .. } => Ok(()),
            Changed::Context { before, after } => {
                let viewer = self.viewer.as_ref();
                let was = before.as_ref().is_some_and(|row| self.sees(row, viewer));
                let is = self.sees(after, viewer);
                let kind = match (was, is) {
                    (false, false) => return Ok(()),
                    (false, true) => EventKind::Created,
                    (true, true) => EventKind::Updated,
                    (true, false) if after.state == ContextState::Expired => EventKind::Expired,
                    (true, false) => EventKind::Deleted,
                };
                self.push(change.revision, kind, Arc::clone(after)).await
            }
            Changed::ContextLost { id, facts } => {
                let wanted =
                    facts.as_ref().is_none_or(|f| self.filter.may_want(*id, f.key.as_ref(), &f.context_type, &f.owner));
                match (wanted, self.caught_up) {
                    (false, _) => Ok(()),
                    (true, false) => Err(gap(self.sent, change.revision)),
                    (true, true) => Err(too_slow(format!("revision {} is no longer kept", change.revision))),
                }
            }
            Changed::Group { name, moves } => {
                let Some(viewer) = &self.viewer else { return Ok(()) };
                match moves.iter().find(|m| m.agent == viewer.agent).map(|m| m.way) {
                    Some(way) => self.moved(change.revision, name, way).await,
                    None => Ok(()),
                }
            }
        }
    }

    /// The watcher came into a group or left it: what it shows comes into sight or goes, as it stands at that revision.
    async fn moved(&mut self, revision: u64, group: &GroupName, way: MemberWay) -> Result<(), AppError> {
        let Some(mut viewer) = self.viewer.clone() else { return Ok(()) };
        match way {
            MemberWay::Joined => viewer.groups.insert(group.clone()),
            MemberWay::Left => viewer.groups.remove(group),
        };
        let filter = ContextFilter { group: Some(group.clone()), ..self.filter.clone() };
        let before = self.viewer.replace(viewer);
        let mut after = None;
        loop {
            let rows = self.list(&filter, revision, after.as_ref()).await?;
            let last = rows.len() < STATE_PAGE as usize;
            after = rows.last().map(|row| row.id);
            for row in rows {
                let kind = match (self.sees(&row, before.as_ref()), self.sees(&row, self.viewer.as_ref())) {
                    (false, true) => EventKind::Created,
                    (true, false) => EventKind::Deleted,
                    _ => continue,
                };
                self.push(revision, kind, Arc::new(row)).await?;
            }
            if last {
                return Ok(());
            }
        }
    }

    /// Whether a context is there, wanted, and to be seen.
    fn sees(&self, row: &ContextRow, viewer: Option<&Viewer>) -> bool {
        let relation = viewer.map_or(ContextRelation::Stranger, |viewer| row.relation(viewer));
        !row.is_marker()
            && self.filter.wants(row)
            && decide(self.roles, relation, row.spec.scope, ContextVerb::Read) == Verdict::Allow
    }

    async fn push(&mut self, revision: u64, kind: EventKind, row: Arc<ContextRow>) -> Result<(), AppError> {
        let mut event = WatchEvent { kind, row, payload: None };
        if !event.is_gone() && event.row.content.size <= self.payload_bytes_max as u64 && self.payload_bytes_max > 0 {
            event.payload = match &event.row.content.place {
                ContentPlace::Inline(bytes) => Some(bytes.clone()),
                // A payload that is gone went with its revision: the change that took it follows.
                ContentPlace::Blob => self.deps.blobs.get(self.tenant(), &event.row.content.sha256).await?,
                ContentPlace::Unread => None,
            };
        }
        self.pending.push_back((revision, event));
        Ok(())
    }

    /// The frame of what is pending, as much as one takes.
    fn frame(&mut self) -> WatchFrame {
        self.greeted = true;
        let (mut events, mut bytes) = (Vec::new(), 0);
        while let Some((revision, event)) = self.pending.front() {
            let (revision, size) = (*revision, event.row.spec.size() + event.payload.as_ref().map_or(0, Bytes::len));
            if !events.is_empty() && (bytes + size > FRAME_BYTES || events.len() == FRAME_EVENTS) {
                break;
            }
            bytes += size;
            events.extend(self.pending.pop_front().map(|(_, event)| event));
            // A revision is reached with the last of its events, of which a group's change may have many.
            if self.pending.front().is_none_or(|(next, _)| *next != revision) {
                self.sent = self.sent.max(revision);
            }
        }
        if self.pending.is_empty() {
            self.sent = self.sent.max(self.reached);
        }
        self.heartbeat_at_ms = self.deps.clock.now().mono_after(limits::WATCH_HEARTBEAT);
        // The state's events are the only ones of no revision, and stand before all others.
        let state_pending = self.pending.front().is_some_and(|(revision, _)| *revision == 0);
        let state_complete = matches!(self.phase, Phase::Changes) && !state_pending;
        WatchFrame { events, revision: self.sent, state_complete }
    }
}

fn gap(after: u64, oldest: u64) -> AppError {
    let message = format!("changes after revision {after} are no longer kept; those after {oldest} are");
    AppError::new(ErrorCode::RevisionGap, message).detail("oldest_rev", oldest.to_string())
}

fn too_slow(why: impl Into<std::borrow::Cow<'static, str>>) -> AppError {
    AppError::new(ErrorCode::SlowDown, why)
}
