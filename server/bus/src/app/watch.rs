//! Watches of contexts and agents: how many, and of what.

use std::sync::Arc;

use acb_ports::metadata::{AgentFilter, ContextFilter};
use acb_types::{AgentId, ErrorCode, TenantId, limits};
use ahash::AHashMap;
use futures_core::Stream;
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;

use super::{App, OpContext};
use crate::{
    changes::{
        Watch,
        agent_watch::{AgentWatch, AgentWatchDeps, AgentWish},
        context_watch::{ContextWatch, WatchDeps, WatchWish},
    },
    domain::context as rules,
    error::AppError,
};

type Counts = Arc<Mutex<AHashMap<(TenantId, AgentId), usize>>>;

/// How many watches each agent has open.
#[derive(Debug, Default)]
pub(super) struct Watches(Counts);

/// One of an agent's watches, for as long as it is held.
#[derive(Debug)]
struct Slot {
    counts: Counts,
    who: (TenantId, AgentId),
    open: Gauge,
}

impl Watches {
    fn take(&self, who: (TenantId, AgentId), open: Gauge) -> Result<Slot, AppError> {
        let mut counts = self.0.lock();
        let count = counts.entry(who.clone()).or_default();
        if *count >= limits::WATCHES_PER_AGENT_MAX {
            let limit = limits::WATCHES_PER_AGENT_MAX;
            return Err(AppError::new(ErrorCode::TooManyStreams, format!("the agent has {count} watches open"))
                .detail("limit", limit.to_string()));
        }
        *count += 1;
        open.inc();
        Ok(Slot { counts: Arc::clone(&self.0), who, open })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.open.dec();
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.who);
            }
        }
    }
}

/// A watch that counts as open until it is dropped.
#[derive(Debug)]
pub struct OpenWatch<W> {
    watch: W,
    events: prometheus_client::metrics::counter::Counter,
    _slot: Slot,
}

impl<W: Watch> OpenWatch<W> {
    /// Its frames; an error is the last.
    pub fn frames(self) -> impl Stream<Item = Result<W::Frame, AppError>> + Send {
        futures_util::stream::unfold(Some(self), |open| async move {
            let mut open = open?;
            Some(match open.watch.next().await {
                Ok(frame) => {
                    open.events.inc_by(W::events(&frame) as u64);
                    (Ok(frame), Some(open))
                }
                Err(error) => (Err(error), None),
            })
        })
    }
}

impl App {
    /// Opens a watch of agents: from a revision on, or with the state first.
    ///
    /// # Errors
    /// `revision_gap` with the detail `oldest_rev`, `too_many_streams`, and what [`crate::domain::agent::check_filter`]
    /// refuses.
    pub async fn agent_watch(
        &self,
        ctx: &OpContext,
        agent: Option<AgentId>,
        filter: AgentFilter,
        after: Option<u64>,
    ) -> Result<OpenWatch<AgentWatch>, AppError> {
        let p = ctx.principal();
        crate::domain::agent::check_filter(&filter)?;
        let metrics = self.deps.metrics.tenant(&p.tenant);
        let slot = self.watches.take((p.tenant.clone(), p.agent.clone()), metrics.watches)?;
        let deps = AgentWatchDeps {
            metadata: Arc::clone(&self.deps.metadata),
            presence: Arc::clone(&self.deps.presence),
            clock: Arc::clone(&self.deps.clock),
            drain: self.deps.drain.clone(),
        };
        let wish = AgentWish { session: Arc::clone(&ctx.session), agent, filter, after };
        let watch = AgentWatch::open(deps, wish, |at| self.deps.changes.follow(&p.tenant, at)).await?;
        Ok(OpenWatch { watch, events: metrics.watch_events, _slot: slot })
    }

    /// Opens a watch of contexts: from a revision on, or with the state first.
    ///
    /// # Errors
    /// `revision_gap` with the detail `oldest_rev`, `too_many_streams`, and what [`rules::check_filter`] refuses.
    pub async fn context_watch(
        &self,
        ctx: &OpContext,
        filter: ContextFilter,
        after: Option<u64>,
        payload_bytes_max: usize,
    ) -> Result<OpenWatch<ContextWatch>, AppError> {
        let p = ctx.principal();
        rules::check_filter(&filter)?;
        rules::check_payload_bytes_max(payload_bytes_max)?;
        let metrics = self.deps.metrics.tenant(&p.tenant);
        let slot = self.watches.take((p.tenant.clone(), p.agent.clone()), metrics.watches)?;
        let deps = WatchDeps {
            metadata: Arc::clone(&self.deps.metadata),
            blobs: Arc::clone(&self.deps.blobs),
            clock: Arc::clone(&self.deps.clock),
            drain: self.deps.drain.clone(),
        };
        let (session, roles) = (Arc::clone(&ctx.session), self.context_roles(ctx));
        let wish = WatchWish { session, roles, filter, after, payload_bytes_max };
        let watch = ContextWatch::open(deps, wish, |at| self.deps.changes.follow(&p.tenant, at)).await?;
        Ok(OpenWatch { watch, events: metrics.watch_events, _slot: slot })
    }
}
