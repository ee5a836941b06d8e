//! The blob store's contract over its memory adapter.

use std::sync::Arc;

use acb_ports::{
    BlobStore,
    contract::{blob_store::BlobHarness, message_log::Crash},
    memory::MemoryBlobs,
};
use acb_types::ErrorCode;
use async_trait::async_trait;

#[derive(Default)]
struct Memory(MemoryBlobs);

#[async_trait]
impl BlobHarness for Memory {
    async fn open(&mut self) -> Arc<dyn BlobStore> {
        self.0 = self.0.reopened();
        Arc::new(self.0.clone())
    }

    fn can_crash(&self, crash: Crash) -> bool {
        crash == Crash::Kill
    }

    async fn crash(&mut self, _crash: Crash) {}

    async fn refuse_writes(&mut self, code: Option<ErrorCode>) -> bool {
        self.0.refuse_writes(code);
        true
    }
}

acb_ports::blob_store_contract!(Memory::default());
