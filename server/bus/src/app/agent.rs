//! Agents: on the bus, off it, and found.

use std::time::Duration;

use acb_ports::metadata::{AgentFilter, AgentRemoval, AgentRow, AgentSpec, AgentUpdate, Inbox, Registration};
use acb_types::{AgentId, ErrorCode, Incarnation, limits};

use super::{
    App, OpContext,
    page::{self, Page, Query},
};
use crate::{
    auth::Role,
    domain::{
        agent as rules,
        presence::{AgentActivity, AgentStatus},
    },
    error::AppError,
    presence::Seen,
};

/// Rows read at most for one page of a discovery by status: status is not in the store, so rows are read on until the
/// page is full, and a caller's condition must not make that unbounded. What is left over comes with the next page.
const ROWS_PER_DISCOVERY_MAX: u32 = 2000;

/// An agent as it is now.
#[derive(Clone, Debug)]
pub struct AgentView {
    /// What is kept.
    pub row: AgentRow,
    /// Whether it is there.
    pub seen: Seen,
}

/// A search.
#[derive(Clone, Debug, Default)]
pub struct Discovery {
    /// What the store can tell.
    pub filter: AgentFilter,
    /// Status now; any when not given.
    pub status: Option<AgentStatus>,
    /// Items of a page.
    pub page_size: u32,
    /// From the page before.
    pub page_token: String,
}

impl App {
    fn view(&self, ctx: &OpContext, row: AgentRow) -> AgentView {
        let seen = self.deps.presence.seen(&ctx.principal().tenant, &row.spec.id);
        AgentView { row, seen }
    }

    /// Puts an agent on the bus with its inbox, or takes it over as a new incarnation that fences the older session.
    ///
    /// # Errors
    /// `permission_denied` for another's id, `agent_exists` when another credential holds it, and what
    /// [`rules::check_spec`] refuses.
    pub async fn agent_register(&self, ctx: &OpContext, spec: AgentSpec) -> Result<AgentView, AppError> {
        let p = ctx.principal();
        may_act_for(ctx, &spec.id)?;
        rules::check_spec(&spec)?;
        let id = spec.id.clone();
        let _order = self.in_agent_order(&p.tenant, &id).await;
        let registration = Registration::new(spec, p.credential.clone(), self.now());
        let registered = self.deps.metadata.agent_register(&p.tenant, registration).await?;
        // Opened also when they existed: a crash may have come between the row and the opening. Opening twice is once.
        for implicit in &registered.implicit {
            let row = &implicit.row;
            self.deps.delivery.subscription_open(&p.tenant, row.def(), row.spec.class, row.start).await?;
        }
        self.deps.presence.registered(&p.tenant, &id, registered.agent.incarnation);
        self.deps.metrics.tenant(&p.tenant).registrations.inc();
        Ok(self.view(ctx, registered.agent))
    }

    /// Shows an agent.
    ///
    /// # Errors
    /// `agent_not_found`.
    pub async fn agent_get(&self, ctx: &OpContext, id: &AgentId) -> Result<AgentView, AppError> {
        let row = self.deps.metadata.agent_get(&ctx.principal().tenant, id).await?;
        row.map(|row| self.view(ctx, row)).ok_or_else(|| absent(id))
    }

    /// Changes what is given.
    ///
    /// # Errors
    /// `agent_not_found`; `permission_denied` for an agent that another credential holds.
    pub async fn agent_update(
        &self,
        ctx: &OpContext,
        id: &AgentId,
        mut update: AgentUpdate,
    ) -> Result<AgentView, AppError> {
        let p = ctx.principal();
        may_act_for(ctx, id)?;
        let row = self.deps.metadata.agent_get(&p.tenant, id).await?.ok_or_else(|| absent(id))?;
        rules::check_spec(&update.applied_to(&row.spec))?;
        update.held_by = self.held_by(ctx);
        update.now = self.now();
        Ok(self.view(ctx, self.deps.metadata.agent_update(&p.tenant, id, update).await?))
    }

    /// Takes an agent off the bus with what belongs to it. Unregistering what is absent succeeds.
    ///
    /// # Errors
    /// `permission_denied` for an agent that another credential holds.
    pub async fn agent_unregister(&self, ctx: &OpContext, id: &AgentId, inbox: Inbox) -> Result<(), AppError> {
        let p = ctx.principal();
        may_act_for(ctx, id)?;
        let _order = self.in_agent_order(&p.tenant, id).await;
        let removal = AgentRemoval { held_by: self.held_by(ctx), inbox, now: self.now() };
        let removed = self.deps.metadata.agent_remove(&p.tenant, id, removal).await?;
        for row in &removed.subscriptions {
            self.deps.delivery.subscription_close(&p.tenant, row.spec.class, &row.spec.name);
        }
        if removed.agent.is_some() {
            self.deps.presence.unregistered(&p.tenant, id);
        }
        Ok(())
    }

    /// Whose credential must hold an agent that the caller changes: nobody asks an admin.
    fn held_by(&self, ctx: &OpContext) -> Option<acb_types::CredentialId> {
        let p = ctx.principal();
        let dev = self.deps.auth.mode() == crate::auth::Mode::Dev;
        (!p.roles.has(Role::Admin) && !dev).then(|| p.credential.clone())
    }

    /// Notes that an agent is alive, and what it says that it is doing. Answers when the next heartbeat is due.
    ///
    /// # Errors
    /// `agent_not_found`; `session_fenced` for an older incarnation; `invalid_argument` for a time outside its limits.
    pub fn agent_heartbeat(
        &self,
        ctx: &OpContext,
        id: &AgentId,
        incarnation: Incarnation,
        activity: Option<(AgentActivity, Duration)>,
    ) -> Result<Duration, AppError> {
        let tenant = &ctx.principal().tenant;
        may_act_for(ctx, id)?;
        rules::check_activity(activity.map(|(_, ttl)| ttl))?;
        // From memory: ten thousand agents that beat every ten seconds must not cost the database anything.
        if self.deps.presence.incarnation(tenant, id) == Incarnation(0) {
            return Err(absent(id));
        }
        self.deps.presence.touch(tenant, id, incarnation, activity)?;
        self.deps.metrics.tenant(tenant).heartbeats.inc();
        Ok(limits::HEARTBEAT_INTERVAL)
    }

    /// Lists agents by id.
    ///
    /// # Errors
    /// `invalid_page_token`, and what [`rules::check_filter`] refuses.
    pub async fn agent_discover(&self, ctx: &OpContext, discovery: Discovery) -> Result<Page<AgentView>, AppError> {
        let tenant = &ctx.principal().tenant;
        rules::check_filter(&discovery.filter)?;
        let size = page::size(discovery.page_size)?;
        let query = query_of(Query::new(&self.deps.page_key, "agents", tenant), &discovery);
        let mut after: Option<AgentId> = query.after(&discovery.page_token)?;
        self.deps.metrics.tenant(tenant).discoveries.inc();
        let mut items: Vec<AgentView> = Vec::new();
        let mut read = 0;
        loop {
            let wanted = if discovery.status.is_some() { limits::PAGE_SIZE_MAX } else { size + 1 };
            let rows = self.deps.metadata.agent_list(tenant, &discovery.filter, after.as_ref(), wanted).await?;
            let last = rows.len() < wanted as usize;
            read += wanted;
            for row in rows {
                // One more than the page holds is there: the page is full, and there is a next.
                if items.len() == size as usize {
                    let next = after.map(|id| query.token(id.as_str())).unwrap_or_default();
                    return Ok(Page { items, next });
                }
                after = Some(row.spec.id.clone());
                let view = self.view(ctx, row);
                if discovery.status.is_none_or(|s| s == view.seen.status) {
                    items.push(view);
                }
            }
            if last {
                return Ok(Page { items, next: String::new() });
            }
            if read >= ROWS_PER_DISCOVERY_MAX {
                let next = after.map(|id| query.token(id.as_str())).unwrap_or_default();
                return Ok(Page { items, next });
            }
        }
    }
}

fn query_of(query: Query, d: &Discovery) -> Query {
    let f = &d.filter;
    let status = match d.status {
        None => "",
        Some(AgentStatus::Online) => "online",
        Some(AgentStatus::Offline) => "offline",
        Some(AgentStatus::Unknown) => "unknown",
    };
    query
        .with(f.agent_type.as_deref().unwrap_or_default())
        .with(f.location.as_deref().unwrap_or_default())
        .with_all(f.capabilities_all.iter().map(acb_types::Capability::as_str))
        .with_all(f.capabilities_any.iter().map(acb_types::Capability::as_str))
        .with_all(f.metadata.keys())
        .with_all(f.metadata.values())
        .with(f.text.as_deref().unwrap_or_default())
        .with(status)
}

fn absent(id: &AgentId) -> AppError {
    AppError::new(ErrorCode::AgentNotFound, format!("no agent {id} is registered"))
}

fn may_act_for(ctx: &OpContext, id: &AgentId) -> Result<(), AppError> {
    if ctx.principal().may_act_for(id) {
        Ok(())
    } else {
        let own = &ctx.principal().agent;
        Err(AppError::new(ErrorCode::PermissionDenied, format!("the caller speaks for {own}, not for {id}")))
    }
}
