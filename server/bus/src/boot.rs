//! The composition root: the only file that names concrete stores.

use std::{fs, path::Path, sync::Arc};

use acb_log::{
    LogError, OsDisk,
    check::{self, Report, Salvaged},
};
use acb_ports::{Clock, StoreError};
use acb_store_embedded::{EmbeddedConfig, EmbeddedLogConfig, EmbeddedProfile, profile::METADATA_FILE};
use acb_types::ErrorCode;

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
    Ok(Stores { metadata: profile.metadata, log: profile.log, blobs: profile.blobs })
}

/// Looks at the logs of a data folder. Changes nothing.
///
/// # Errors
/// When the folder is none of ours, of another format, or cannot be read.
pub fn inspect(folder: &Path) -> Result<Report, StoreError> {
    check::inspect(&OsDisk, folder).map_err(store)
}

/// Copies what can be read of the logs, and the metadata, into a new folder.
///
/// # Errors
/// When a server holds the folder, when the new one is not empty, or when the disk says no.
pub fn salvage(folder: &Path, into: &Path) -> Result<Vec<Salvaged>, StoreError> {
    let saved = check::salvage(&OsDisk::shared(), folder, into).map_err(store)?;
    // A database brings its write-ahead log along: without it the last commits would be missing.
    for suffix in ["", "-wal", "-shm"] {
        let name = format!("{METADATA_FILE}{suffix}");
        let from = folder.join(&name);
        if from.exists() {
            let failed = |e: std::io::Error| {
                let message = format!("{}: {e}", from.display());
                StoreError::new(ErrorCode::StorageFailed, "check.salvage", message).with_source(e)
            };
            fs::copy(&from, into.join(&name)).map_err(failed)?;
        }
    }
    Ok(saved)
}

fn store(e: LogError) -> StoreError {
    StoreError::new(e.code, e.operation, e.message.clone()).with_source(e)
}
