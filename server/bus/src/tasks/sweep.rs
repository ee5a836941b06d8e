//! Forgets what is over: token families and retired signing keys. Looks at the state, can run twice, keeps nothing.

use std::{sync::Arc, time::Duration};

use acb_ports::{Clock, MetadataStore};

use crate::{auth::keyring, error::AppError};

/// How often.
const EVERY: Duration = Duration::from_hours(1);

/// Sweeps once an hour, from an hour after the start on: a start has better things to do.
pub async fn run(metadata: Arc<dyn MetadataStore>, clock: Arc<dyn Clock>) {
    loop {
        clock.sleep(EVERY).await;
        if let Err(error) = once(&*metadata, &*clock).await {
            tracing::warn!(report = error.report(), "sweep failed, will be tried again: {error}");
        }
    }
}

/// Sweeps now.
///
/// # Errors
/// The store's.
pub async fn once(metadata: &dyn MetadataStore, clock: &dyn Clock) -> Result<(), AppError> {
    let now = clock.now().wall;
    let mut after = None;
    loop {
        let page = metadata.tenant_list(after.as_ref(), acb_types::limits::PAGE_SIZE_MAX).await?;
        for tenant in &page {
            metadata.family_forget(&tenant.id, keyring::forget_before(now)).await?;
        }
        match page.last() {
            Some(row) if page.len() == acb_types::limits::PAGE_SIZE_MAX as usize => after = Some(row.id.clone()),
            _ => break,
        }
    }
    metadata.signing_key_forget(keyring::forget_before(now)).await?;
    Ok(())
}
