//! Gives contexts whose time is over their markers, and forgets old changes and old markers. Looks at the state, can run
//! twice and on several nodes at once, keeps nothing.

use std::{sync::Arc, time::Duration};

use acb_ports::{Clock, MetadataStore, metadata::Trim};
use acb_types::{TenantId, Timestamp, limits};
use tokio::sync::Notify;

use crate::{error::AppError, telemetry::Metrics};

/// Longest sleep: what another node wrote, or the wall clock skipped, is seen at the latest then.
const EVERY_AT_MOST: Duration = Duration::from_mins(1);
/// How often old changes are looked for.
const TRIM_EVERY: Duration = Duration::from_mins(10);
/// Rows of one transaction: other writers wait no longer than it takes.
const BATCH: u32 = 256;

/// What the reconciler stands on.
#[derive(Clone, Debug)]
pub struct Reconciler {
    /// Rows.
    pub metadata: Arc<dyn MetadataStore>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Told when some context's end was set.
    pub wake: Arc<Notify>,
}

impl Reconciler {
    /// Runs for ever.
    pub async fn run(self) {
        let mut trim_at_ms = 0;
        loop {
            let mut next = None;
            match self.expire().await {
                Ok(found) => next = found,
                Err(error) => tracing::warn!(report = error.report(), "expiry failed, will be tried again: {error}"),
            }
            let now = self.clock.now();
            if now.mono_ms >= trim_at_ms {
                trim_at_ms = now.mono_after(TRIM_EVERY);
                if let Err(error) = self.trim(now.wall).await {
                    tracing::warn!(report = error.report(), "trim failed, will be tried again: {error}");
                }
            }
            let sleep = next.map_or(EVERY_AT_MOST, |at: Timestamp| at.since(now.wall).min(EVERY_AT_MOST));
            // Until a point and not for a span: time may have gone on since it was looked at.
            let until = now.mono_after(sleep);
            // Both may be dropped at any time.
            tokio::select! {
                () = self.clock.sleep_until(until) => {}
                () = self.wake.notified() => {}
            }
        }
    }

    /// Marks what is over. Answers with the next end, if there is one.
    ///
    /// # Errors
    /// The store's.
    pub async fn expire(&self) -> Result<Option<Timestamp>, AppError> {
        let mut next: Option<Timestamp> = None;
        let mut after = None;
        loop {
            let (tenants, last) = self.tenants(&mut after).await?;
            for tenant in &tenants {
                loop {
                    let end = self.metadata.context_next_expiry(tenant).await?;
                    let now = self.clock.now().wall;
                    match end {
                        Some(end) if end <= now => {
                            let marked = self.metadata.context_expire(tenant, now, BATCH).await?;
                            self.metrics.tenant(tenant).context_expiries.inc_by(marked.len() as u64);
                            if marked.is_empty() {
                                // Another node was faster, or will be: the next round looks again.
                                break;
                            }
                        }
                        Some(end) => {
                            next = Some(next.map_or(end, |next| next.min(end)));
                            break;
                        }
                        None => break,
                    }
                }
            }
            if last {
                return Ok(next);
            }
        }
    }

    /// Forgets changes beyond the newest and markers that are old.
    ///
    /// # Errors
    /// The store's.
    pub async fn trim(&self, now: Timestamp) -> Result<(), AppError> {
        let keep = u64::try_from(limits::CONTEXT_MARKER_TTL.as_millis()).unwrap_or(u64::MAX);
        let markers_before = Timestamp(now.0.saturating_sub(keep));
        let mut after = None;
        loop {
            let (tenants, last) = self.tenants(&mut after).await?;
            for tenant in &tenants {
                let changes_up_to = self.metadata.tenant_revision(tenant).await?.saturating_sub(limits::CHANGES_KEPT);
                loop {
                    let trim = Trim { changes_up_to, markers_before, limit: BATCH };
                    let done = self.metadata.change_trim(tenant, trim).await?;
                    if done.changes < u64::from(BATCH) && done.markers < u64::from(BATCH) {
                        break;
                    }
                }
            }
            if last {
                return Ok(());
            }
        }
    }

    async fn tenants(&self, after: &mut Option<TenantId>) -> Result<(Vec<TenantId>, bool), AppError> {
        let page = self.metadata.tenant_list(after.as_ref(), limits::PAGE_SIZE_MAX).await?;
        *after = page.last().map(|row| row.id.clone());
        let last = page.len() < limits::PAGE_SIZE_MAX as usize;
        Ok((page.into_iter().map(|row| row.id).collect(), last))
    }
}
