//! What the bus needs from the world, as traits with numbered clauses, a memory adapter that is the model, and one
//! contract suite per port.
//!
//! Features: `contract` builds the suites (`metadata_store_contract!`, `message_log_contract!`) that every adapter runs
//! in its own tests.

pub mod blob_store;
pub mod capability;
pub mod clock;
#[cfg(feature = "contract")]
pub mod contract;
pub mod error;
pub mod ids;
pub mod memory;
pub mod message_log;
pub mod metadata;

pub use blob_store::{BlobPin, BlobReader, BlobStore, Stage};
pub use capability::LogCapability;
pub use clock::{Clock, ManualClock, SystemClock};
pub use error::StoreError;
pub use ids::{IdSource, SeededIds, SystemIds};
pub use message_log::{LogReader, MessageLog, Opened, PartitionLog, SnapshotPart, SyncTicket};
pub use metadata::MetadataStore;
