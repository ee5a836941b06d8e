//! The metadata store's contract over SQLite.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::sync::Arc;

use acb_ports::{MetadataStore, contract::metadata::MetadataHarness};
use acb_store_embedded::{SqliteConfig, SqliteMetadata, sqlite::Drill};
use acb_types::ErrorCode;
use async_trait::async_trait;

struct Sqlite {
    folder: tempfile::TempDir,
    open: Option<Arc<SqliteMetadata>>,
}

impl Sqlite {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), open: None }
    }
}

#[async_trait]
impl MetadataHarness for Sqlite {
    async fn open(&mut self) -> Arc<dyn MetadataStore> {
        let store = Arc::new(SqliteMetadata::open(&SqliteConfig::new(self.folder.path().join("meta.db"))).unwrap());
        self.open = Some(Arc::clone(&store));
        store
    }

    async fn refuse_writes(&mut self, code: Option<ErrorCode>) -> bool {
        let drill = match code {
            None => Drill::Off,
            Some(ErrorCode::StorageFull) => Drill::Full,
            Some(ErrorCode::StorageReadOnly) => Drill::ReadOnly,
            Some(_) => return false,
        };
        self.open.as_ref().unwrap().drill(drill).await.unwrap();
        true
    }
}

acb_ports::metadata_store_contract!(Sqlite::new());
