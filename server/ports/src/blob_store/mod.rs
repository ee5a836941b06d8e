//! The blob store: contents too large for a row, each named by its SHA-256, and the stages in which uploads gather.
//!
//! Written at the weakest guarantee that files on one machine and an object store behind several nodes can both keep.
//! Clauses are quoted by the contract suite.
//!
//! - BLOB-1  Tenants share nothing: the same content in two tenants is two blobs, and no call shows or frees what is
//!   another tenant's.
//! - BLOB-2  A blob that [`BlobStore::put`] or [`Stage::commit`] answered for is on stable storage, name and content. A
//!   blob is there whole or not at all, whatever is killed and whenever.
//! - BLOB-3  A blob never changes. Putting or committing what is there succeeds and takes no more space; of any number of
//!   concurrent ones all succeed.
//! - BLOB-4  Removing what is absent succeeds. A reader that was opened before gives the right bytes or an error, never
//!   others.
//! - BLOB-5  Reading gives exactly the bytes that were put; fewer only at the end.
//! - BLOB-6  A blob is removed by a sweep only: [`BlobStore::sweep_remove`] leaves what is pinned, and what was pinned at
//!   any time since the sweep began. So a writer that holds its pin until its row is kept never loses the blob to a sweep
//!   that looked at the rows before.
//! - BLOB-7  What was written to a stage is read back at once. What was written before a [`Stage::sync`] that succeeded is
//!   on stable storage, and the stage is found by [`BlobStore::stage_open`] after any kill.
//! - BLOB-8  Writes to a stage come in any order, from any number of threads; where two overlap, either may win.
//! - BLOB-9  A commit ends the stage. After a kill in its middle the stage is there, or the blob, or both; committing again
//!   what is left, or dropping it, ends it.
//! - BLOB-10 Dropping a stage gives its space back. Dropping what is absent succeeds. Handles of it that are still open
//!   never change a blob.
//! - BLOB-11 Lists are in order, begin after what is given and hold at most `limit` entries, 1 to [`ENTRIES_MAX`]; fewer
//!   are the last. What is there throughout is seen exactly once.
//! - BLOB-12 A full or read-only disk refuses with `storage_full` or `storage_read_only`, keeps nothing half done, goes on
//!   reading, and heals. A stage with a size is refused when it is made, where the disk can tell. After a sync that failed
//!   the stage takes and commits nothing any more (`storage_failed`).
//!
//! The store trusts the digests it is given: who puts has computed them, and who reads a whole can check them. It knows
//! nothing of who may read. Not in this port: names other than digests, times, references, transactions with metadata.

mod pins;

use std::{any::Any, fmt, sync::Arc};

use acb_types::{Sha256Digest, StreamId, TenantId};
use async_trait::async_trait;
use bytes::Bytes;

pub use self::pins::BlobPins;
use crate::error::StoreError;

/// Most entries that one call lists.
pub const ENTRIES_MAX: u32 = 1000;

/// What every call answers.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Keeps contents by digest. See the module for what it promises.
///
/// *Cancel safety*: a dropped call happens wholly or not at all; what a dropped `put` left is found by the next sweep.
#[async_trait]
pub trait BlobStore: Send + Sync + fmt::Debug + 'static {
    /// Keeps a content under its digest. On stable storage when this answers, and pinned for as long as the answer is
    /// held: keep it until the row that names the blob is committed.
    ///
    /// # Errors
    /// `storage_full`, `storage_read_only`, `storage_failed`: nothing is kept.
    async fn put(&self, tenant: &TenantId, digest: &Sha256Digest, content: Bytes) -> Result<BlobPin>;

    /// Pins a blob that is there, so that a row may name it; `None` when it is absent.
    async fn pin(&self, tenant: &TenantId, digest: &Sha256Digest) -> Result<Option<BlobPin>>;

    /// Opens a blob to be read in pieces, by any thread that may block; `None` when it is absent.
    ///
    /// # Errors
    /// `storage_failed`.
    async fn open(&self, tenant: &TenantId, digest: &Sha256Digest) -> Result<Option<Arc<dyn BlobReader>>>;

    /// Reads a whole blob; `None` when it is absent. For contents of at most `CONTEXT_INLINE_BYTES_MAX` bytes.
    ///
    /// # Errors
    /// `invalid_argument` for a larger one; `storage_failed`.
    async fn get(&self, tenant: &TenantId, digest: &Sha256Digest) -> Result<Option<Bytes>>;

    /// Lists blobs by digest.
    async fn list(&self, tenant: &TenantId, after: Option<&Sha256Digest>, limit: u32) -> Result<Vec<BlobEntry>>;

    /// Begins a sweep: from now on every pin is remembered until the answer is dropped. Look at the rows after this.
    ///
    /// # Errors
    /// `invalid_state` while another sweep of the tenant runs.
    async fn sweep_begin(&self, tenant: &TenantId) -> Result<BlobSweep>;

    /// Removes a blob that no row names, unless it is or was pinned since the sweep began.
    ///
    /// # Errors
    /// `storage_failed`, `storage_read_only`.
    async fn sweep_remove(&self, sweep: &BlobSweep, digest: &Sha256Digest) -> Result<Removal>;

    /// Makes a stage for an upload, or opens the one that is there. A size reserves the space.
    ///
    /// # Errors
    /// `storage_full`, `storage_read_only`, `storage_failed`: no stage is left.
    async fn stage_create(&self, tenant: &TenantId, id: &StreamId, size: Option<u64>) -> Result<Arc<dyn Stage>>;

    /// Opens a stage; `None` when it is absent.
    async fn stage_open(&self, tenant: &TenantId, id: &StreamId) -> Result<Option<Arc<dyn Stage>>>;

    /// Gives a stage up.
    ///
    /// # Errors
    /// `storage_failed`, `storage_read_only`.
    async fn stage_drop(&self, tenant: &TenantId, id: &StreamId) -> Result<()>;

    /// Lists stages by id.
    async fn stage_list(&self, tenant: &TenantId, after: Option<&StreamId>, limit: u32) -> Result<Vec<StreamId>>;
}

/// A blob in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobEntry {
    /// Its name.
    pub digest: Sha256Digest,
    /// Its size, in bytes.
    pub size: u64,
}

/// What became of a blob that a sweep found unnamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It is gone, with so many bytes.
    Removed(u64),
    /// It was not there.
    Absent,
    /// It is or was pinned since the sweep began.
    Pinned,
}

/// Reads a blob. Blocks for as long as the disk takes: never on a serving thread.
pub trait BlobReader: Send + Sync + fmt::Debug {
    /// Size of the blob, in bytes.
    fn size(&self) -> u64;

    /// Reads at most `len` bytes from an offset; fewer at the end only.
    ///
    /// # Errors
    /// `data_damaged` when fewer are there than the size says; `storage_failed`.
    fn read_at(&self, offset: u64, len: usize) -> Result<Bytes>;
}

/// An upload's bytes before they are a blob. Every method blocks for as long as the disk takes: never on a serving
/// thread.
pub trait Stage: Send + Sync + fmt::Debug {
    /// Writes all of `bytes` at an offset.
    ///
    /// # Errors
    /// `storage_full` and `storage_read_only` heal: any part of `bytes` may have been written. `storage_failed` after a
    /// failed sync.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()>;

    /// Reads at most `len` bytes from an offset; what was never written reads as zeroes or is not there.
    ///
    /// # Errors
    /// `storage_failed`.
    fn read_at(&self, offset: u64, len: usize) -> Result<Bytes>;

    /// Makes everything durable that was written when this was called.
    ///
    /// # Errors
    /// `storage_failed`: nobody knows what is on the disk. Give the stage up.
    fn sync(&self) -> Result<()>;

    /// Makes a blob of the first `size` bytes and ends the stage. The caller has checked the digest. Syncs what was not.
    ///
    /// # Errors
    /// `invalid_argument` when the stage has fewer bytes; otherwise as [`Self::sync`] and [`Self::write_at`].
    fn commit(&self, size: u64, digest: &Sha256Digest) -> Result<BlobPin>;
}

/// Keeps a blob from being swept until it is dropped.
pub struct BlobPin {
    digest: Sha256Digest,
    _hold: Box<dyn Any + Send + Sync>,
}

impl BlobPin {
    /// A pin that lasts as long as `hold`. For adapters.
    pub fn new(digest: Sha256Digest, hold: Box<dyn Any + Send + Sync>) -> Self {
        Self { digest, _hold: hold }
    }

    /// The blob's name.
    pub fn digest(&self) -> &Sha256Digest {
        &self.digest
    }
}

impl fmt::Debug for BlobPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BlobPin").field(&self.digest).finish()
    }
}

/// A sweep that goes on until it is dropped.
pub struct BlobSweep {
    tenant: TenantId,
    _hold: Box<dyn Any + Send + Sync>,
}

impl BlobSweep {
    /// A sweep that lasts as long as `hold`. For adapters.
    pub fn new(tenant: TenantId, hold: Box<dyn Any + Send + Sync>) -> Self {
        Self { tenant, _hold: hold }
    }

    /// Whose blobs are swept.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }
}

impl fmt::Debug for BlobSweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BlobSweep").field(&self.tenant).finish()
    }
}
