//! The message log's contract over its memory adapter.

use std::sync::Arc;

use acb_ports::{
    MessageLog,
    contract::message_log::{Crash, LogHarness},
    memory::MemoryLog,
};
use acb_types::ErrorCode;
use async_trait::async_trait;

#[derive(Default)]
struct Memory(MemoryLog);

#[async_trait]
impl LogHarness for Memory {
    async fn open(&mut self) -> Arc<dyn MessageLog> {
        Arc::new(self.0.clone())
    }

    fn can_crash(&self, _crash: Crash) -> bool {
        true
    }

    async fn crash(&mut self, crash: Crash) {
        match crash {
            Crash::Kill => self.0.kill(),
            Crash::PowerCut => self.0.power_cut(),
        }
    }

    async fn refuse_writes(&mut self, code: Option<ErrorCode>) -> bool {
        self.0.refuse_writes(code);
        true
    }
}

acb_ports::message_log_contract!(Memory::default());
