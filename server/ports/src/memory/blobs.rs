//! [`MemoryBlobs`]: contents and stages as maps. Everything counts as synced at once.

use std::{collections::BTreeMap, fmt, sync::Arc};

use acb_types::{ErrorCode, Sha256Digest, StreamId, TenantId, limits};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::{
    blob_store::{BlobEntry, BlobPin, BlobPins, BlobReader, BlobStore, BlobSweep, ENTRIES_MAX, Removal, Result, Stage},
    error::StoreError,
};

/// The blob store as maps in memory. Clones and [`Self::reopened`] share what it holds.
#[derive(Clone, Default)]
pub struct MemoryBlobs {
    state: Arc<Mutex<State>>,
    pins: BlobPins,
}

#[derive(Default)]
struct State {
    blobs: BTreeMap<(TenantId, Sha256Digest), Bytes>,
    stages: BTreeMap<(TenantId, StreamId), Arc<MemoryStage>>,
    refusal: Option<ErrorCode>,
}

impl fmt::Debug for MemoryBlobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("MemoryBlobs")
            .field("blobs", &state.blobs.len())
            .field("stages", &state.stages.len())
            .finish_non_exhaustive()
    }
}

impl MemoryBlobs {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// What opening the same data anew would give: the same contents and stages, and no pin.
    #[must_use]
    pub fn reopened(&self) -> Self {
        Self { state: Arc::clone(&self.state), pins: BlobPins::default() }
    }

    /// Refuses every change with a code from now on, as a full, read-only or failing disk does; `None` heals it.
    /// `storage_failed` hits syncs alone.
    pub fn refuse_writes(&self, code: Option<ErrorCode>) {
        self.state.lock().refusal = code;
    }
}

impl State {
    fn writable(&self, operation: &'static str) -> Result<()> {
        match self.refusal {
            Some(code) => Err(StoreError::new(code, operation, "changes are refused")),
            None => Ok(()),
        }
    }
}

fn entries(operation: &'static str, limit: u32) -> Result<usize> {
    if limit == 0 || limit > ENTRIES_MAX {
        let message = format!("limit of {limit} entries is outside 1 to {ENTRIES_MAX}");
        return Err(StoreError::new(ErrorCode::InvalidArgument, operation, message));
    }
    Ok(limit as usize)
}

/// A piece of what is there.
fn piece(content: &[u8], offset: u64, len: usize) -> Bytes {
    let from = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
    let to = from.saturating_add(len).min(content.len());
    Bytes::copy_from_slice(&content[from..to])
}

#[async_trait]
impl BlobStore for MemoryBlobs {
    async fn put(&self, tenant: &TenantId, digest: &Sha256Digest, content: Bytes) -> Result<BlobPin> {
        let pin = self.pins.pin(tenant, digest);
        let mut state = self.state.lock();
        let key = (tenant.clone(), *digest);
        if !state.blobs.contains_key(&key) {
            state.writable("blob.put")?;
            state.blobs.insert(key, content);
        }
        Ok(pin)
    }

    async fn pin(&self, tenant: &TenantId, digest: &Sha256Digest) -> Result<Option<BlobPin>> {
        let pin = self.pins.pin(tenant, digest);
        Ok(self.state.lock().blobs.contains_key(&(tenant.clone(), *digest)).then_some(pin))
    }

    async fn open(&self, tenant: &TenantId, digest: &Sha256Digest) -> Result<Option<Arc<dyn BlobReader>>> {
        let content = self.state.lock().blobs.get(&(tenant.clone(), *digest)).cloned();
        Ok(content.map(|content| Arc::new(MemoryReader(content)) as Arc<dyn BlobReader>))
    }

    async fn get(&self, tenant: &TenantId, digest: &Sha256Digest) -> Result<Option<Bytes>> {
        let content = self.state.lock().blobs.get(&(tenant.clone(), *digest)).cloned();
        match content {
            Some(content) if content.len() > limits::CONTEXT_INLINE_BYTES_MAX => {
                let message = format!("a blob of {} bytes is read in pieces", content.len());
                Err(StoreError::new(ErrorCode::InvalidArgument, "blob.get", message))
            }
            found => Ok(found),
        }
    }

    async fn list(&self, tenant: &TenantId, after: Option<&Sha256Digest>, limit: u32) -> Result<Vec<BlobEntry>> {
        let limit = entries("blob.list", limit)?;
        let state = self.state.lock();
        let own = state.blobs.iter().filter(|((t, digest), _)| t == tenant && after.is_none_or(|after| digest > after));
        Ok(own.take(limit).map(|((_, digest), c)| BlobEntry { digest: *digest, size: c.len() as u64 }).collect())
    }

    async fn sweep_begin(&self, tenant: &TenantId) -> Result<BlobSweep> {
        self.pins.sweep_begin(tenant)
    }

    async fn sweep_remove(&self, sweep: &BlobSweep, digest: &Sha256Digest) -> Result<Removal> {
        let key = (sweep.tenant().clone(), *digest);
        let removed = self.pins.remove_free(sweep.tenant(), digest, || {
            let mut state = self.state.lock();
            if !state.blobs.contains_key(&key) {
                return Ok(Removal::Absent);
            }
            // A full disk can still give back.
            if state.refusal == Some(ErrorCode::StorageReadOnly) {
                state.writable("blob.sweep")?;
            }
            Ok(state.blobs.remove(&key).map_or(Removal::Absent, |c| Removal::Removed(c.len() as u64)))
        });
        removed.unwrap_or(Ok(Removal::Pinned))
    }

    async fn stage_create(&self, tenant: &TenantId, id: &StreamId, size: Option<u64>) -> Result<Arc<dyn Stage>> {
        let mut state = self.state.lock();
        let key = (tenant.clone(), *id);
        if let Some(stage) = state.stages.get(&key) {
            return Ok(Arc::clone(stage) as Arc<dyn Stage>);
        }
        state.writable("stage.create")?;
        let content = vec![0; usize::try_from(size.unwrap_or(0)).unwrap_or(0)];
        let stage = Arc::new(MemoryStage {
            store: self.clone(),
            key: key.clone(),
            inner: Mutex::new(StageState { content, ended: false, poisoned: false }),
        });
        state.stages.insert(key, Arc::clone(&stage));
        Ok(stage)
    }

    async fn stage_open(&self, tenant: &TenantId, id: &StreamId) -> Result<Option<Arc<dyn Stage>>> {
        let stage = self.state.lock().stages.get(&(tenant.clone(), *id)).cloned();
        Ok(stage.map(|stage| stage as Arc<dyn Stage>))
    }

    async fn stage_drop(&self, tenant: &TenantId, id: &StreamId) -> Result<()> {
        let stage = self.state.lock().stages.remove(&(tenant.clone(), *id));
        if let Some(stage) = stage {
            stage.inner.lock().ended = true;
        }
        Ok(())
    }

    async fn stage_list(&self, tenant: &TenantId, after: Option<&StreamId>, limit: u32) -> Result<Vec<StreamId>> {
        let limit = entries("stage.list", limit)?;
        let state = self.state.lock();
        let own = state.stages.keys().filter(|(t, id)| t == tenant && after.is_none_or(|after| id > after));
        Ok(own.take(limit).map(|(_, id)| *id).collect())
    }
}

#[derive(Debug)]
struct MemoryReader(Bytes);

impl BlobReader for MemoryReader {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        Ok(piece(&self.0, offset, len))
    }
}

struct MemoryStage {
    store: MemoryBlobs,
    key: (TenantId, StreamId),
    inner: Mutex<StageState>,
}

struct StageState {
    content: Vec<u8>,
    ended: bool,
    poisoned: bool,
}

impl fmt::Debug for MemoryStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStage").field("key", &self.key).finish_non_exhaustive()
    }
}

impl StageState {
    fn check(&self, operation: &'static str) -> Result<()> {
        if self.ended {
            return Err(StoreError::new(ErrorCode::InvalidState, operation, "the stage has ended"));
        }
        if self.poisoned {
            return Err(StoreError::new(ErrorCode::StorageFailed, operation, "a sync of the stage failed"));
        }
        Ok(())
    }
}

impl MemoryStage {
    fn refusal(&self) -> Option<ErrorCode> {
        self.store.state.lock().refusal
    }

    fn flush(&self, inner: &mut StageState) -> Result<()> {
        if self.refusal() == Some(ErrorCode::StorageFailed) {
            inner.poisoned = true;
        }
        inner.check("stage.sync")
    }
}

impl Stage for MemoryStage {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut inner = self.inner.lock();
        inner.check("stage.write")?;
        if let Some(code) = self.refusal().filter(|code| *code != ErrorCode::StorageFailed) {
            return Err(StoreError::new(code, "stage.write", "changes are refused"));
        }
        let from = usize::try_from(offset).map_err(|e| {
            StoreError::new(ErrorCode::InvalidArgument, "stage.write", format!("offset {offset}")).with_source(e)
        })?;
        let end = from + bytes.len();
        if inner.content.len() < end {
            inner.content.resize(end, 0);
        }
        inner.content[from..end].copy_from_slice(bytes);
        Ok(())
    }

    fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        Ok(piece(&self.inner.lock().content, offset, len))
    }

    fn sync(&self) -> Result<()> {
        let mut inner = self.inner.lock();
        inner.check("stage.sync")?;
        self.flush(&mut inner)
    }

    fn commit(&self, size: u64, digest: &Sha256Digest) -> Result<BlobPin> {
        let mut inner = self.inner.lock();
        inner.check("stage.commit")?;
        let pin = self.store.pins.pin(&self.key.0, digest);
        self.flush(&mut inner)?;
        if (inner.content.len() as u64) < size {
            let message = format!("the stage has {} bytes of {size}", inner.content.len());
            return Err(StoreError::new(ErrorCode::InvalidArgument, "stage.commit", message));
        }
        let mut state = self.store.state.lock();
        state.writable("stage.commit")?;
        let content = Bytes::copy_from_slice(&inner.content[..size as usize]);
        state.blobs.entry((self.key.0.clone(), *digest)).or_insert(content);
        state.stages.remove(&self.key);
        inner.ended = true;
        Ok(pin)
    }
}
