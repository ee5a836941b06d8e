//! The embedded profile: one data folder, all stores.
//!
//! ```text
//! acb-data/LOCK FORMAT tenants/…          the message log's
//! acb-data/metadata.sqlite (-wal, -shm)   the metadata store's
//! ```
//!
//! The folder's lock is taken first, so two servers never meet in one database.

use std::{path::PathBuf, sync::Arc};

use acb_log::OsDisk;
use acb_ports::{BlobStore, Clock, LogCapability, MessageLog, MetadataStore, StoreError};
use acb_types::ErrorCode;

use crate::{
    blobs::EmbeddedBlobs,
    embedded_log::{EmbeddedLog, EmbeddedLogConfig},
    sqlite::{READERS, SqliteConfig, SqliteMetadata},
};

/// The metadata store's file inside the data folder.
pub const METADATA_FILE: &str = "metadata.sqlite";

/// What the embedded profile is built from.
#[derive(Clone, Debug)]
pub struct EmbeddedConfig {
    /// The data folder. Made when it is absent.
    pub path: PathBuf,
    /// Reader threads of the metadata store.
    pub metadata_readers: usize,
    /// Largest size of the metadata store, in bytes; `None` leaves it to the disk.
    pub metadata_bytes_max: Option<u64>,
    /// Sizes of the logs.
    pub log: EmbeddedLogConfig,
}

impl EmbeddedConfig {
    /// A data folder with every default.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            metadata_readers: READERS,
            metadata_bytes_max: None,
            log: EmbeddedLogConfig::default(),
        }
    }
}

/// The stores of one machine, open.
#[derive(Clone, Debug)]
pub struct EmbeddedProfile {
    /// The metadata store.
    pub metadata: Arc<dyn MetadataStore>,
    /// The message log.
    pub log: Arc<dyn MessageLog>,
    /// The blob store.
    pub blobs: Arc<dyn BlobStore>,
    /// What the message log can do.
    pub capability: LogCapability,
}

impl EmbeddedProfile {
    /// Opens the data folder, making it when it is absent. The clock tells recovery which idempotency keys are still
    /// known. Needs a tokio runtime; blocks none of its threads.
    ///
    /// # Errors
    /// `invalid_state` when another server holds the folder, `unsupported_feature` or `invalid_state` when a newer one
    /// wrote it, `data_damaged`, and the codes of the disk.
    ///
    /// *Cancel safety*: dropped half way, it opens nothing, or opens and closes.
    pub async fn open(config: EmbeddedConfig, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let opening = tokio::task::spawn_blocking(move || Self::open_blocking(&config, clock));
        let given_up = |e| StoreError::new(ErrorCode::Unavailable, "data.open", format!("opening was given up: {e}"));
        opening.await.map_err(given_up)?
    }

    /// As [`Self::open`], in this thread.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_blocking(config: &EmbeddedConfig, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let log = EmbeddedLog::open(OsDisk::shared(), &config.path, config.log, clock)?;
        let metadata = SqliteMetadata::open(&SqliteConfig {
            readers: config.metadata_readers,
            bytes_max: config.metadata_bytes_max,
            ..SqliteConfig::new(config.path.join(METADATA_FILE))
        })?;
        let blobs = EmbeddedBlobs::open(OsDisk::shared(), &config.path);
        Ok(Self {
            metadata: Arc::new(metadata),
            log: Arc::new(log),
            blobs: Arc::new(blobs),
            capability: LogCapability::EMBEDDED,
        })
    }

    /// Closes the metadata store. Partitions are closed by who opened them, before this; the folder is free when the last
    /// of them and this are dropped.
    ///
    /// # Errors
    /// As [`MetadataStore::close`].
    pub async fn close(self) -> Result<(), StoreError> {
        self.metadata.close().await
    }
}
