//! [`EmbeddedBlobs`]: contents and uploads as files of the data folder (ADR 0008).
//!
//! ```text
//! tenants/<tenant>/blobs/<2 digits>/<64 digits>          a blob: its bytes and nothing else
//! tenants/<tenant>/blobs/<2 digits>/<64 digits>.<word>   on its way in or out; what another process left goes with
//!                                                        the next listing
//! tenants/<tenant>/stage/<32 digits>                     an upload's bytes
//! ```
//!
//! A blob's bytes are synced before it gets its name, and its folder after: it is there whole or not at all. All access
//! goes through the log's [`Disk`], so that tests can cut the power between any two calls. Nothing is kept in memory but
//! pins.

mod files;
mod stage;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use acb_log::{Disk, disk::OpenMode};
use acb_ports::{
    StoreError,
    blob_store::{BlobEntry, BlobPin, BlobPins, BlobReader, BlobStore, BlobSweep, ENTRIES_MAX, Removal, Result, Stage},
};
use acb_types::{ErrorCode, Sha256Digest, StreamId, TenantId, limits};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use self::files::{failed, is_absent};

/// Contents and uploads of a data folder. Clones share what is held.
#[derive(Clone)]
pub struct EmbeddedBlobs {
    inner: Arc<Inner>,
    blocking: Handle,
}

impl fmt::Debug for EmbeddedBlobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedBlobs").field("path", &self.inner.root).finish_non_exhaustive()
    }
}

/// What handles share.
#[derive(Debug)]
struct Inner {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    pins: BlobPins,
    /// Tells this process's temporary names from those that another left.
    life: u64,
    last_name: AtomicU64,
    /// Stages that are open. Every handle of a stage is the same one, so that its end is known to all.
    stages: Mutex<HashMap<(TenantId, StreamId), Weak<stage::FileStage>>>,
    /// Stages whose sync failed: nobody knows what of them is on the disk.
    poisoned: Mutex<HashSet<(TenantId, StreamId)>>,
}

impl EmbeddedBlobs {
    /// The blobs of a data folder, which this process holds. What blocks runs on the pool of the present tokio runtime.
    /// Touches no file.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open(disk: Arc<dyn Disk>, path: &Path) -> Self {
        let life = disk.entropy();
        let inner = Inner {
            disk,
            root: path.to_path_buf(),
            pins: BlobPins::default(),
            life,
            last_name: AtomicU64::new(0),
            stages: Mutex::default(),
            poisoned: Mutex::default(),
        };
        Self { inner: Arc::new(inner), blocking: Handle::current() }
    }

    /// Does work that may wait for the disk.
    async fn block<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Arc<Inner>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.inner);
        let done = self.blocking.spawn_blocking(move || work(&inner)).await;
        done.map_err(|e| StoreError::new(ErrorCode::Unavailable, operation, format!("the work was given up: {e}")))?
    }
}

/// Checks a list's limit (BLOB-11).
fn entries(operation: &'static str, limit: u32) -> Result<usize> {
    if limit == 0 || limit > ENTRIES_MAX {
        let message = format!("limit of {limit} entries is outside 1 to {ENTRIES_MAX}");
        return Err(StoreError::new(ErrorCode::InvalidArgument, operation, message));
    }
    Ok(limit as usize)
}

#[async_trait]
impl BlobStore for EmbeddedBlobs {
    async fn put(&self, tenant: &TenantId, digest: &Sha256Digest, content: Bytes) -> Result<BlobPin> {
        let (tenant, digest) = (tenant.clone(), *digest);
        self.block("blob.put", move |inner| inner.put(&tenant, &digest, &content)).await
    }

    async fn pin(&self, tenant: &TenantId, digest: &Sha256Digest) -> Result<Option<BlobPin>> {
        let (tenant, digest) = (tenant.clone(), *digest);
        self.block("blob.pin", move |inner| {
            let pin = inner.pins.pin(&tenant, &digest);
            Ok(inner.find(&tenant, &digest)?.map(|_| pin))
        })
        .await
    }

    async fn open(&self, tenant: &TenantId, digest: &Sha256Digest) -> Result<Option<Arc<dyn BlobReader>>> {
        let (tenant, digest) = (tenant.clone(), *digest);
        self.block("blob.open", move |inner| {
            let found = inner.find(&tenant, &digest)?;
            Ok(found.map(|reader| Arc::new(reader) as Arc<dyn BlobReader>))
        })
        .await
    }

    async fn get(&self, tenant: &TenantId, digest: &Sha256Digest) -> Result<Option<Bytes>> {
        let (tenant, digest) = (tenant.clone(), *digest);
        self.block("blob.get", move |inner| {
            let Some(reader) = inner.find(&tenant, &digest)? else { return Ok(None) };
            if reader.size() > limits::CONTEXT_INLINE_BYTES_MAX as u64 {
                let message = format!("a blob of {} bytes is read in pieces", reader.size());
                return Err(StoreError::new(ErrorCode::InvalidArgument, "blob.get", message));
            }
            reader.read_at(0, reader.size() as usize).map(Some)
        })
        .await
    }

    async fn list(&self, tenant: &TenantId, after: Option<&Sha256Digest>, limit: u32) -> Result<Vec<BlobEntry>> {
        let (tenant, after, limit) = (tenant.clone(), after.copied(), entries("blob.list", limit)?);
        self.block("blob.list", move |inner| inner.list(&tenant, after.as_ref(), limit)).await
    }

    async fn sweep_begin(&self, tenant: &TenantId) -> Result<BlobSweep> {
        self.inner.pins.sweep_begin(tenant)
    }

    async fn sweep_remove(&self, sweep: &BlobSweep, digest: &Sha256Digest) -> Result<Removal> {
        let (tenant, digest) = (sweep.tenant().clone(), *digest);
        self.block("blob.sweep", move |inner| inner.sweep(&tenant, &digest)).await
    }

    async fn stage_create(&self, tenant: &TenantId, id: &StreamId, size: Option<u64>) -> Result<Arc<dyn Stage>> {
        let (tenant, id) = (tenant.clone(), *id);
        self.block("stage.create", move |inner| inner.stage_create(&tenant, id, size)).await
    }

    async fn stage_open(&self, tenant: &TenantId, id: &StreamId) -> Result<Option<Arc<dyn Stage>>> {
        let (tenant, id) = (tenant.clone(), *id);
        self.block("stage.open", move |inner| inner.stage_open(&tenant, id)).await
    }

    async fn stage_drop(&self, tenant: &TenantId, id: &StreamId) -> Result<()> {
        let (tenant, id) = (tenant.clone(), *id);
        self.block("stage.drop", move |inner| inner.stage_drop(&tenant, id)).await
    }

    async fn stage_list(&self, tenant: &TenantId, after: Option<&StreamId>, limit: u32) -> Result<Vec<StreamId>> {
        let (tenant, after, limit) = (tenant.clone(), after.copied(), entries("stage.list", limit)?);
        self.block("stage.list", move |inner| inner.stage_list(&tenant, after, limit)).await
    }
}

impl Inner {
    fn tenant_dir(&self, tenant: &TenantId) -> PathBuf {
        self.root.join("tenants").join(tenant.as_str())
    }

    fn blob_path(&self, tenant: &TenantId, digest: &Sha256Digest) -> (PathBuf, PathBuf) {
        let name = digest.to_string();
        let shard = self.tenant_dir(tenant).join("blobs").join(&name[..2]);
        let path = shard.join(name);
        (shard, path)
    }

    /// A name of this process that nobody has.
    fn temporary(&self, path: &Path, word: &str) -> PathBuf {
        let n = self.last_name.fetch_add(1, Relaxed);
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{word}-{:016x}-{n}", self.life));
        name.into()
    }

    fn find(&self, tenant: &TenantId, digest: &Sha256Digest) -> Result<Option<files::FileReader>> {
        let (_, path) = self.blob_path(tenant, digest);
        match self.disk.open(&path, OpenMode::Read) {
            Err(e) if is_absent(&e) => Ok(None),
            opened => {
                let file = opened.map_err(|e| failed("blob.open", &path, e))?;
                let size = file.len().map_err(|e| failed("blob.open", &path, e))?;
                Ok(Some(files::FileReader { file, path, size }))
            }
        }
    }

    fn put(&self, tenant: &TenantId, digest: &Sha256Digest, content: &[u8]) -> Result<BlobPin> {
        // Pinned before anybody looks whether it is there: no sweep comes between.
        let pin = self.pins.pin(tenant, digest);
        let (shard, path) = self.blob_path(tenant, digest);
        let fail = |e| failed("blob.put", &path, e);
        if self.find(tenant, digest)?.is_some() {
            // Its name may be younger than the last sync of its folder, if a process died in between.
            self.disk.sync_dir(&shard).map_err(fail)?;
            return Ok(pin);
        }
        self.make_dir(&shard).map_err(fail)?;
        let temporary = self.temporary(&path, "put");
        let written = || {
            let file = self.disk.open(&temporary, OpenMode::Create)?;
            file.pwrite(content, 0)?;
            file.fdatasync()?;
            self.disk.rename(&temporary, &path)?;
            self.disk.sync_dir(&shard)
        };
        written().map_err(|e| {
            let _ = self.disk.remove(&temporary);
            fail(e)
        })?;
        Ok(pin)
    }

    fn list(&self, tenant: &TenantId, after: Option<&Sha256Digest>, limit: usize) -> Result<Vec<BlobEntry>> {
        let blobs = self.tenant_dir(tenant).join("blobs");
        let fail = |e| failed("blob.list", &blobs, e);
        let after = after.map(ToString::to_string).unwrap_or_default();
        let from_shard = after.get(..2).unwrap_or_default();
        let mut out = Vec::new();
        for shard in self.disk.list(&blobs).map_err(fail)? {
            if !shard.is_dir || shard.name.as_str() < from_shard {
                continue;
            }
            let folder = blobs.join(&shard.name);
            for entry in self.disk.list(&folder).map_err(fail)? {
                let path = folder.join(&entry.name);
                let Ok(digest) = entry.name.parse::<Sha256Digest>() else {
                    // What another process was about to put or had given up. A failure is the next listing's.
                    if entry.name.contains('.') && !entry.name.contains(&format!("-{:016x}-", self.life)) {
                        let _ = self.disk.remove(&path);
                    }
                    continue;
                };
                if entry.name <= after {
                    continue;
                }
                match self.find(tenant, &digest)? {
                    Some(reader) => out.push(BlobEntry { digest, size: reader.size() }),
                    None => continue,
                }
                if out.len() == limit {
                    return Ok(out);
                }
            }
        }
        Ok(out)
    }

    fn sweep(&self, tenant: &TenantId, digest: &Sha256Digest) -> Result<Removal> {
        let Some(found) = self.find(tenant, digest)? else { return Ok(Removal::Absent) };
        let (_, path) = self.blob_path(tenant, digest);
        let fail = |e| failed("blob.sweep", &path, e);
        // Its name goes while nobody can pin it; its blocks, which may take long, afterwards.
        let gone = self.temporary(&path, "gone");
        match self.pins.remove_free(tenant, digest, || self.disk.rename(&path, &gone)) {
            None => return Ok(Removal::Pinned),
            Some(Err(e)) if is_absent(&e) => return Ok(Removal::Absent),
            Some(renamed) => renamed.map_err(fail)?,
        }
        self.disk.remove(&gone).map_err(fail)?;
        Ok(Removal::Removed(found.size()))
    }

    /// Makes a folder of a tenant, and makes durable that it and those above it are there.
    fn make_dir(&self, dir: &Path) -> std::io::Result<()> {
        if !self.disk.list(dir)?.is_empty() {
            return Ok(());
        }
        self.disk.create_dir_all(dir)?;
        for above in dir.ancestors().skip(1).take_while(|a| a.starts_with(&self.root)) {
            self.disk.sync_dir(above)?;
        }
        Ok(())
    }
}
