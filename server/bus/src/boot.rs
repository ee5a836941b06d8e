//! The composition root: the only file that names concrete stores.

use std::sync::Arc;

use acb_ports::{Clock, StoreError};
use acb_store_embedded::{EmbeddedConfig, EmbeddedLogConfig, EmbeddedProfile};

use crate::{config::Config, server::Stores};

/// Opens the stores that the settings ask for: so far the embedded profile, under the data folder.
///
/// # Errors
/// When another server has the folder, when a newer one wrote it, or when the disk says no.
pub async fn stores(config: &Config, clock: Arc<dyn Clock>) -> Result<Stores, StoreError> {
    let keep = &config.retention;
    let embedded = EmbeddedConfig {
        log: EmbeddedLogConfig {
            inbox_bytes_max: keep.inbox_bytes.0,
            topics_bytes_max: keep.topics_bytes.0,
            topics_age: keep.topics_age,
            dead_letters_bytes_max: keep.dead_letters_bytes.0,
            ..EmbeddedLogConfig::default()
        },
        ..EmbeddedConfig::new(&config.storage.data_dir)
    };
    let profile = EmbeddedProfile::open(embedded, clock).await?;
    Ok(Stores { metadata: profile.metadata, log: profile.log })
}
