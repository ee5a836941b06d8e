//! The metadata store's contract over its memory adapter.

use std::sync::Arc;

use acb_ports::{MetadataStore, contract::metadata::MetadataHarness, memory::MemoryMetadata};
use acb_types::ErrorCode;
use async_trait::async_trait;

#[derive(Default)]
struct Memory(MemoryMetadata);

#[async_trait]
impl MetadataHarness for Memory {
    async fn open(&mut self) -> Arc<dyn MetadataStore> {
        self.0 = self.0.reopened();
        Arc::new(self.0.clone())
    }

    async fn refuse_writes(&mut self, code: Option<ErrorCode>) -> bool {
        self.0.refuse_writes(code);
        true
    }
}

acb_ports::metadata_store_contract!(Memory::default());
