//! The segment log.
pub mod batch;
mod cache;
pub mod check;
mod data_dir;
mod dedupe;
pub mod disk;
mod error;
mod log;
mod options;
pub mod planted;
mod postings;
mod reader;
pub mod record;
mod recovery;
mod recycle;
mod retention;
mod scan;
pub mod segment;
mod shared;
mod sidecar;
#[cfg(any(test, feature = "sim"))]
pub mod sim_disk;
mod write;

pub use data_dir::{DataDir, DataDirOptions, FORMAT};
pub use dedupe::{Budget, KeyWindow};
pub use disk::{Disk, DiskFile, OsDisk};
pub use error::{LogError, Result};
pub use log::{Chores, Log, SyncTicket};
pub use options::{AtCap, ChoreRun, LogOptions, Retention};
pub use reader::{BLOCK_BYTES, Reader};
pub use record::{STATE_RECORD_BYTES_MAX, SnapshotPart};
pub use recovery::OpenedLog;
pub use recycle::SegmentPool;
pub use segment::Pos;
pub use shared::Tenant;
#[cfg(any(test, feature = "sim"))]
pub use sim_disk::{Counts, Event, Fault, FaultOn, Held, SimDisk, SimRng};
