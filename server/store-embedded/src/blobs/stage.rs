//! Stages: one preallocated file an upload.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use acb_log::{DiskFile, disk::OpenMode};
use acb_ports::{
    StoreError,
    blob_store::{BlobPin, Result, Stage},
};
use acb_types::{ErrorCode, Sha256Digest, StreamId, TenantId, limits};
use bytes::Bytes;
use parking_lot::RwLock;

use super::{
    Inner,
    files::{failed, is_absent, read},
};

/// Bytes that are copied at once where a stage is longer than its blob.
const COPY_BYTES: usize = 1024 * 1024;

/// An open stage.
pub(super) struct FileStage {
    inner: Arc<Inner>,
    tenant: TenantId,
    id: StreamId,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    /// Whether it was committed or dropped. Writers hold it shared: the file of a committed stage is a blob, and no late
    /// write may reach that.
    ended: RwLock<bool>,
}

impl fmt::Debug for FileStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStage").field("tenant", &self.tenant).field("id", &self.id).finish_non_exhaustive()
    }
}

impl Drop for FileStage {
    fn drop(&mut self) {
        let mut stages = self.inner.stages.lock();
        let key = (self.tenant.clone(), self.id);
        // A newer one may stand there already.
        if stages.get(&key).is_some_and(|open| open.strong_count() == 0) {
            stages.remove(&key);
        }
    }
}

impl Inner {
    fn stage_dir(&self, tenant: &TenantId) -> PathBuf {
        self.tenant_dir(tenant).join("stage")
    }

    pub(super) fn stage_create(
        self: &Arc<Self>,
        tenant: &TenantId,
        id: StreamId,
        size: Option<u64>,
    ) -> Result<Arc<dyn Stage>> {
        let dir = self.stage_dir(tenant);
        let path = dir.join(id.to_string());
        let fail = |e| failed("stage.create", &path, e);
        self.make_dir(&dir).map_err(fail)?;
        let (file, is_new) = match self.disk.open(&path, OpenMode::Create) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                (self.disk.open(&path, OpenMode::Write).map_err(fail)?, false)
            }
            made => (made.map_err(fail)?, true),
        };
        // Also for one that is there: a process may have died between its making and this.
        let reserved = size.map_or(Ok(()), |size| file.fallocate(size)).and_then(|()| self.disk.sync_dir(&dir));
        if let Err(e) = reserved {
            if is_new {
                let _ = self.disk.remove(&path);
            }
            return Err(fail(e));
        }
        Ok(self.stage(tenant, id, path, file))
    }

    pub(super) fn stage_open(self: &Arc<Self>, tenant: &TenantId, id: StreamId) -> Result<Option<Arc<dyn Stage>>> {
        let path = self.stage_dir(tenant).join(id.to_string());
        match self.disk.open(&path, OpenMode::Write) {
            Err(e) if is_absent(&e) => Ok(None),
            opened => {
                let file = opened.map_err(|e| failed("stage.open", &path, e))?;
                Ok(Some(self.stage(tenant, id, path, file)))
            }
        }
    }

    /// The one handle of a stage.
    fn stage(
        self: &Arc<Self>,
        tenant: &TenantId,
        id: StreamId,
        path: PathBuf,
        file: Arc<dyn DiskFile>,
    ) -> Arc<dyn Stage> {
        let mut stages = self.stages.lock();
        let slot = stages.entry((tenant.clone(), id)).or_default();
        let open = slot.upgrade();
        // One whose lock is taken is being ended, and says so to whoever uses it.
        if let Some(open) = &open
            && open.ended.try_read().is_none_or(|ended| !*ended)
        {
            return Arc::clone(open) as Arc<dyn Stage>;
        }
        let (inner, tenant, ended) = (Arc::clone(self), tenant.clone(), RwLock::new(false));
        let stage = Arc::new(FileStage { inner, tenant, id, path, file, ended });
        *slot = Arc::downgrade(&stage);
        // The last handle of the ended one may be ours, and its end takes the same lock.
        drop(stages);
        drop(open);
        stage
    }

    pub(super) fn stage_drop(&self, tenant: &TenantId, id: StreamId) -> Result<()> {
        let path = self.stage_dir(tenant).join(id.to_string());
        let key = (tenant.clone(), id);
        let open = self.stages.lock().get(&key).and_then(Weak::upgrade);
        // Not while a commit is about to give the file its name, and no write afterwards.
        let ended = open.as_ref().map(|open| open.ended.write());
        self.disk.remove(&path).map_err(|e| failed("stage.drop", &path, e))?;
        if let Some(mut ended) = ended {
            *ended = true;
        }
        self.poisoned.lock().remove(&key);
        Ok(())
    }

    pub(super) fn stage_list(&self, tenant: &TenantId, after: Option<StreamId>, limit: usize) -> Result<Vec<StreamId>> {
        let dir = self.stage_dir(tenant);
        let entries = self.disk.list(&dir).map_err(|e| failed("stage.list", &dir, e))?;
        let ids = entries.iter().filter_map(|entry| entry.name.parse().ok());
        Ok(ids.filter(|id| after.is_none_or(|after| *id > after)).take(limit).collect())
    }
}

impl FileStage {
    /// Whether it still takes anything.
    fn check(&self, operation: &'static str, ended: bool) -> Result<()> {
        let refuse = |code, message| Err(StoreError::new(code, operation, message));
        if ended {
            return refuse(ErrorCode::InvalidState, format!("stage {} has ended", self.id));
        }
        if self.inner.poisoned.lock().contains(&(self.tenant.clone(), self.id)) {
            let message = format!("a sync of stage {} failed: nobody knows what of it is on the disk", self.id);
            return refuse(ErrorCode::StorageFailed, message);
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.file.fdatasync().map_err(|e| {
            // The pages count as clean from now on, whatever reached the disk: a second sync would say yes to nothing.
            self.inner.poisoned.lock().insert((self.tenant.clone(), self.id));
            StoreError { code: ErrorCode::StorageFailed, ..failed("stage.sync", &self.path, e) }
        })
    }

    /// Gives the stage's first bytes a file of their own: an upload whose size was not known may have been longer once.
    fn cut(&self, size: u64, beside: &Path) -> std::io::Result<PathBuf> {
        let disk = &self.inner.disk;
        let path = self.inner.temporary(beside, "cut");
        let copy = || {
            let file = disk.open(&path, OpenMode::Create)?;
            let mut at = 0;
            let mut piece = Vec::new();
            while at < size {
                piece.clear();
                let wanted = (size - at).min(COPY_BYTES as u64) as usize;
                if self.file.pread(&mut piece, wanted, at)? < wanted {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                file.pwrite(&piece, at)?;
                at += wanted as u64;
            }
            file.fdatasync()
        };
        match copy() {
            Ok(()) => Ok(path),
            Err(e) => {
                let _ = disk.remove(&path);
                Err(e)
            }
        }
    }
}

impl Stage for FileStage {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let ended = self.ended.read();
        self.check("stage.write", *ended)?;
        let wrote = if offset < limits::CONTENT_CACHED_BYTES {
            self.file.pwrite(bytes, offset)
        } else {
            self.file.pwrite_uncached(bytes, offset)
        };
        wrote.map_err(|e| failed("stage.write", &self.path, e))
    }

    fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        read(&*self.file, &self.path, offset, len)
    }

    fn sync(&self) -> Result<()> {
        let ended = self.ended.read();
        self.check("stage.sync", *ended)?;
        self.flush()
    }

    fn commit(&self, size: u64, digest: &Sha256Digest) -> Result<BlobPin> {
        let mut ended = self.ended.write();
        self.check("stage.commit", *ended)?;
        let inner = &self.inner;
        let pin = inner.pins.pin(&self.tenant, digest);
        let (shard, path) = inner.blob_path(&self.tenant, digest);
        let fail = |e| failed("stage.commit", &path, e);
        self.flush()?;
        let len = self.file.len().map_err(fail)?;
        if len < size {
            let message = format!("the stage has {len} bytes of {size}");
            return Err(StoreError::new(ErrorCode::InvalidArgument, "stage.commit", message));
        }
        inner.make_dir(&shard).map_err(fail)?;
        let is_there = inner.find(&self.tenant, digest)?.is_some();
        let cut = if len > size && !is_there { Some(self.cut(size, &path).map_err(fail)?) } else { None };
        let mut named = || {
            match &cut {
                _ if is_there => {}
                Some(cut) => inner.disk.rename(cut, &path)?,
                None => {
                    inner.disk.rename(&self.path, &path)?;
                    // From here on the file is a blob, whatever comes.
                    *ended = true;
                }
            }
            // The blob first: when the power goes between the two, the stage is still there and is dropped later.
            inner.disk.sync_dir(&shard)?;
            inner.disk.remove(&self.path)?;
            *ended = true;
            inner.disk.sync_dir(&inner.stage_dir(&self.tenant))
        };
        named().map_err(fail)?;
        Ok(pin)
    }
}
