//! Uploads that nobody continues, and contents that no row names: expired, swept, forgotten. Looks at the state, takes no
//! input, keeps nothing, and can run twice.

use std::{collections::HashSet, sync::Arc, time::Duration};

use acb_ports::{
    blob_store::{ENTRIES_MAX, Removal},
    metadata::{ROWS_MAX, UploadRow},
};
use acb_types::{Sha256Digest, StreamId, TenantId, stream::StreamState};

use crate::{app::App, error::AppError};

/// How often.
const EVERY: Duration = Duration::from_mins(10);

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Uploads that were given up.
    pub expired: u64,
    /// Ended uploads that were forgotten.
    pub forgotten: u64,
    /// Stages that no unfinished upload has.
    pub stages: u64,
    /// Blobs that no row names.
    pub blobs: u64,
    /// Bytes of these blobs.
    pub bytes: u64,
}

/// Runs every ten minutes, and once soon after the start: a crash may have left something.
pub async fn run(app: Arc<App>) {
    let clock = Arc::clone(&app.deps.clock);
    let mut wait = Duration::from_secs(5);
    loop {
        clock.sleep(wait).await;
        wait = EVERY;
        match once(&app).await {
            Ok(swept) if swept != Swept::default() => tracing::info!(?swept, "uploads and blobs swept"),
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(report = error.report(), "sweep of uploads failed, will be tried again: {error}");
            }
        }
    }
}

/// Runs now, for all tenants.
///
/// # Errors
/// The stores'.
pub async fn once(app: &Arc<App>) -> Result<Swept, AppError> {
    let mut swept = Swept::default();
    let mut after = None;
    loop {
        let page = app.deps.metadata.tenant_list(after.as_ref(), ROWS_MAX).await?;
        for tenant in &page {
            of_tenant(app, &tenant.id, &mut swept).await?;
        }
        match page.last() {
            Some(row) if page.len() == ROWS_MAX as usize => after = Some(row.id.clone()),
            _ => break,
        }
    }
    app.deps.metrics.blobs_swept.inc_by(swept.blobs);
    Ok(swept)
}

async fn of_tenant(app: &Arc<App>, tenant: &TenantId, swept: &mut Swept) -> Result<(), AppError> {
    uploads(app, tenant, swept).await?;
    stages(app, tenant, swept).await?;
    blobs(app, tenant, swept).await
}

/// Contents of uploads whose completion was cut short.
async fn completing(app: &App, tenant: &TenantId) -> Result<HashSet<Sha256Digest>, AppError> {
    let mut out = HashSet::new();
    let mut after: Option<StreamId> = None;
    loop {
        let page = app.deps.metadata.upload_list(tenant, after.as_ref(), ROWS_MAX).await?;
        out.extend(page.iter().filter(|row| row.state == StreamState::Completing).filter_map(|row| row.sha256));
        match page.last() {
            Some(row) if page.len() == ROWS_MAX as usize => after = Some(row.id),
            _ => return Ok(out),
        }
    }
}

async fn uploads(app: &Arc<App>, tenant: &TenantId, swept: &mut Swept) -> Result<(), AppError> {
    let mut after: Option<StreamId> = None;
    loop {
        let page = app.deps.metadata.upload_list(tenant, after.as_ref(), ROWS_MAX).await?;
        for row in &page {
            if row.expires_at > app.now() {
                continue;
            }
            if row.state.is_unfinished() {
                swept.expired += u64::from(app.upload_expire(tenant, &row.id).await?);
            } else if row.state != StreamState::Complete || !is_named(app, tenant, row).await? {
                // The chunks of a complete one tell where contents can be had, for as long as its blob is there.
                app.deps.metadata.upload_forget(tenant, &row.id).await?;
                swept.forgotten += 1;
            }
        }
        match page.last() {
            Some(row) if page.len() == ROWS_MAX as usize => after = Some(row.id),
            _ => return Ok(()),
        }
    }
}

async fn is_named(app: &App, tenant: &TenantId, row: &UploadRow) -> Result<bool, AppError> {
    let Some(sha256) = row.sha256 else { return Ok(false) };
    let before = predecessor(&sha256);
    let named = app.deps.metadata.context_blobs_named(tenant, before.as_ref(), 1).await?;
    Ok(named.first() == Some(&sha256))
}

/// The digest just before another one, so that a list after it begins with that one; `None` for the first.
fn predecessor(sha256: &Sha256Digest) -> Option<Sha256Digest> {
    let mut bytes = sha256.0;
    for byte in bytes.iter_mut().rev() {
        if *byte > 0 {
            *byte -= 1;
            return Some(Sha256Digest(bytes));
        }
        *byte = 0xff;
    }
    None
}

/// Stages whose upload has ended, or was never kept.
async fn stages(app: &Arc<App>, tenant: &TenantId, swept: &mut Swept) -> Result<(), AppError> {
    let mut after: Option<StreamId> = None;
    loop {
        let page = app.deps.blobs.stage_list(tenant, after.as_ref(), ENTRIES_MAX).await?;
        for id in &page {
            // The row is made before the stage, so one without a row is nobody's.
            let row = app.deps.metadata.upload_get(tenant, id).await?;
            if !row.is_some_and(|row| row.state.is_unfinished()) {
                app.deps.blobs.stage_drop(tenant, id).await?;
                swept.stages += 1;
            }
        }
        match page.last() {
            Some(id) if page.len() == ENTRIES_MAX as usize => after = Some(*id),
            _ => return Ok(()),
        }
    }
}

/// Blobs that neither a kept revision nor an upload in completion names. Both lists are in order of digests, so they are
/// walked side by side, a page of each at a time.
async fn blobs(app: &Arc<App>, tenant: &TenantId, swept: &mut Swept) -> Result<(), AppError> {
    // Before the rows are looked at: what is put from now on is left.
    let sweep = app.deps.blobs.sweep_begin(tenant).await?;
    let completing = completing(app, tenant).await?;
    let mut after: Option<Sha256Digest> = None;
    loop {
        let page = app.deps.blobs.list(tenant, after.as_ref(), ENTRIES_MAX).await?;
        let Some(last) = page.last().map(|entry| entry.digest) else { return Ok(()) };
        let named = named_between(app, tenant, after.as_ref(), &last).await?;
        for entry in &page {
            if named.contains(&entry.digest) || completing.contains(&entry.digest) {
                continue;
            }
            if let Removal::Removed(bytes) = app.deps.blobs.sweep_remove(&sweep, &entry.digest).await? {
                swept.blobs += 1;
                swept.bytes += bytes;
            }
        }
        if page.len() < ENTRIES_MAX as usize {
            return Ok(());
        }
        after = Some(last);
    }
}

/// Digests that rows name, after one and up to another.
async fn named_between(
    app: &App,
    tenant: &TenantId,
    after: Option<&Sha256Digest>,
    to: &Sha256Digest,
) -> Result<HashSet<Sha256Digest>, AppError> {
    let mut out = HashSet::new();
    let mut after = after.copied();
    loop {
        let page = app.deps.metadata.context_blobs_named(tenant, after.as_ref(), ROWS_MAX).await?;
        let is_last = page.len() < ROWS_MAX as usize || page.last().is_some_and(|digest| digest > to);
        after = page.last().copied();
        out.extend(page.into_iter().filter(|digest| digest <= to));
        if is_last {
            return Ok(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_before_another_is_the_next_lower_number() {
        let mut bytes = [0; 32];
        assert_eq!(predecessor(&Sha256Digest(bytes)), None);
        bytes[30] = 1;
        let mut before = [0; 32];
        before[31] = 0xff;
        assert_eq!(predecessor(&Sha256Digest(bytes)), Some(Sha256Digest(before)));
    }
}
