//! The message log's contract over segment logs: on the system's disk, and on the test disk whose power can be cut.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::sync::Arc;

use acb_log::{Disk, FaultOn, OsDisk, SimDisk, SimRng};
use acb_ports::{
    ManualClock, MessageLog,
    contract::message_log::{Crash, LogHarness},
};
use acb_store_embedded::{EmbeddedLog, EmbeddedLogConfig};
use acb_types::ErrorCode;
use async_trait::async_trait;

fn open(disk: Arc<dyn Disk>, path: &std::path::Path) -> Arc<dyn MessageLog> {
    // Stands where the suite's messages are stored, so that no idempotency key is over at an opening.
    let clock = Arc::new(ManualClock::default());
    Arc::new(EmbeddedLog::open(disk, path, EmbeddedLogConfig::default(), clock).unwrap())
}

mod on_the_systems_disk {
    use super::*;

    struct OnDisk(tempfile::TempDir);

    #[async_trait]
    impl LogHarness for OnDisk {
        async fn open(&mut self) -> Arc<dyn MessageLog> {
            open(OsDisk::shared(), self.0.path())
        }

        fn can_crash(&self, crash: Crash) -> bool {
            crash == Crash::Kill
        }

        /// Dropping without a close is what kill -9 leaves: the system keeps what was written.
        async fn crash(&mut self, _crash: Crash) {}

        async fn refuse_writes(&mut self, _code: Option<ErrorCode>) -> bool {
            false
        }
    }

    acb_ports::message_log_contract!(OnDisk(tempfile::tempdir().unwrap()));
}

mod on_the_test_disk {
    use super::*;

    struct Simulated {
        disk: SimDisk,
        rng: SimRng,
    }

    impl Simulated {
        fn new() -> Self {
            Self { disk: SimDisk::new(1), rng: SimRng::new(2) }
        }
    }

    #[async_trait]
    impl LogHarness for Simulated {
        async fn open(&mut self) -> Arc<dyn MessageLog> {
            open(self.disk.shared(), std::path::Path::new("/data"))
        }

        fn can_crash(&self, _crash: Crash) -> bool {
            true
        }

        async fn crash(&mut self, crash: Crash) {
            match crash {
                Crash::Kill => self.disk.kill(),
                Crash::PowerCut => self.disk.power_cut(&mut self.rng),
            }
        }

        async fn refuse_writes(&mut self, code: Option<ErrorCode>) -> bool {
            self.disk.heal();
            match code {
                None => {}
                Some(ErrorCode::StorageFull) => self.disk.fail(FaultOn::Change, libc::ENOSPC),
                Some(ErrorCode::StorageReadOnly) => self.disk.fail(FaultOn::Change, libc::EROFS),
                Some(ErrorCode::StorageFailed) => self.disk.fail(FaultOn::Sync, libc::EIO),
                Some(_) => return false,
            }
            true
        }
    }

    acb_ports::message_log_contract!(Simulated::new());
}
