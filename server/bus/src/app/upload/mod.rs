//! Uploads: contexts of any size, in chunks, resumable (ADR 0008).
//!
//! [`App::upload_open`] gives a [`UploadSession`], which its connection feeds and asks for news. One session at a time
//! has an upload: opening it again fences the one before, and begins only when that has written its last.

mod complete;
mod open;
mod session;
mod whole;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use acb_ports::metadata::{UploadRow, UploadTarget};
use acb_types::{
    ContextId, ErrorCode, StreamId, TenantId, limits, stream::ChunkSet, stream::Chunking, stream::StreamState,
};
use ahash::AHashMap;
use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

pub use self::session::{Chunk, News, UploadSession};
use super::{App, OpContext};
use crate::error::AppError;

/// Bytes of chunks that all uploads together have in memory before they are written; then connections are read later.
const MEMORY_BYTES: usize = 64 * 1024 * 1024;
/// Bytes that all uploads together keep for the digest of the whole after they are written. What does not fit is read again.
const AHEAD_BYTES: usize = 64 * 1024 * 1024;
/// What memory is counted in.
const MEMORY_UNIT: usize = 1024;

type Key = (TenantId, StreamId);

/// Asks for an upload. On a resume only the id counts.
#[derive(Debug)]
pub struct Opening {
    /// Chosen by the client.
    pub id: StreamId,
    /// The context to make or change; `None` lets the server choose.
    pub context: Option<ContextId>,
    /// What becomes of it; an error when the caller said what cannot be, told only if the upload is not there yet.
    pub target: Result<UploadTarget, AppError>,
    /// Size of the whole, where it is known.
    pub total_bytes: Option<u64>,
    /// Size of a chunk; 0 takes the default.
    pub chunk_bytes: u32,
}

/// An upload that was opened.
#[derive(Debug)]
pub enum Opened {
    /// It goes on.
    Session(Box<UploadSession>),
    /// It is complete.
    Complete(Box<UploadRow>),
}

/// How far an upload is.
#[derive(Clone, Debug)]
pub struct Progress {
    /// What is kept of it.
    pub row: UploadRow,
    /// Chunks on stable storage.
    pub received: ChunkSet,
}

/// Uploads that have a connection here.
#[derive(Debug)]
pub(super) struct Uploads {
    open: Mutex<AHashMap<Key, Entry>>,
    last: AtomicU64,
    memory: Arc<Semaphore>,
    ahead: Arc<Semaphore>,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    fence: CancellationToken,
    gate: Arc<tokio::sync::Mutex<()>>,
}

/// Says that a session may write. Everything that still writes for it holds it; the next session begins when it is gone.
#[derive(Debug)]
pub(super) struct Hold {
    app: Arc<App>,
    key: Key,
    number: u64,
    _gate: OwnedMutexGuard<()>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.app.deps.metrics.uploads_open.dec();
        let mut open = self.app.uploads.open.lock();
        if open.get(&self.key).is_some_and(|entry| entry.number == self.number) {
            open.remove(&self.key);
        }
    }
}

impl Uploads {
    pub(super) fn new() -> Self {
        Self {
            open: Mutex::default(),
            last: AtomicU64::new(0),
            memory: Arc::new(Semaphore::new(MEMORY_BYTES / MEMORY_UNIT)),
            ahead: Arc::new(Semaphore::new(AHEAD_BYTES / MEMORY_UNIT)),
        }
    }

    /// Fences whoever has the upload, and gives a fence and a gate to whoever comes now.
    fn fence(&self, key: &Key) -> (u64, CancellationToken, Arc<tokio::sync::Mutex<()>>) {
        let number = self.last.fetch_add(1, Relaxed) + 1;
        let fence = CancellationToken::new();
        let mut open = self.open.lock();
        let before = open.remove(key);
        if let Some(before) = &before {
            before.fence.cancel();
        }
        let gate = before.map(|before| before.gate).unwrap_or_default();
        open.insert(key.clone(), Entry { number, fence: fence.clone(), gate: Arc::clone(&gate) });
        (number, fence, gate)
    }
}

impl App {
    /// Waits until a chunk of this size may be in memory.
    ///
    /// # Cancel safety
    /// Dropping it gives the place in the row up.
    pub async fn upload_memory(&self, bytes: usize) -> Result<OwnedSemaphorePermit, AppError> {
        let units = bytes.div_ceil(MEMORY_UNIT).min(MEMORY_BYTES / MEMORY_UNIT) as u32;
        let memory = Arc::clone(&self.uploads.memory);
        memory.acquire_many_owned(units).await.map_err(|e| AppError::internal("upload memory").caused_by(e))
    }

    /// Room to keep what is written until it is hashed, when there is any.
    fn upload_ahead(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = bytes.div_ceil(MEMORY_UNIT) as u32;
        Arc::clone(&self.uploads.ahead).try_acquire_many_owned(units).ok()
    }

    /// Takes an upload for a session of its own: fences the one that has it and waits until that writes no more.
    async fn upload_take(self: &Arc<Self>, tenant: &TenantId, id: StreamId) -> (Arc<Hold>, CancellationToken) {
        let key = (tenant.clone(), id);
        let (number, fence, gate) = self.uploads.fence(&key);
        let gate = gate.lock_owned().await;
        self.deps.metrics.uploads_open.inc();
        (Arc::new(Hold { app: Arc::clone(self), key, number, _gate: gate }), fence)
    }

    /// The caller's upload of an id.
    async fn upload_own(&self, ctx: &OpContext, id: &StreamId) -> Result<Option<UploadRow>, AppError> {
        let p = ctx.principal();
        Ok(self.deps.metadata.upload_get(&p.tenant, id).await?.filter(|row| row.owner == p.agent))
    }

    /// Tells how far the caller's upload is.
    ///
    /// # Errors
    /// `stream_not_found`, `stream_expired`.
    pub async fn upload_progress(&self, ctx: &OpContext, id: &StreamId) -> Result<Progress, AppError> {
        let row = self.upload_own(ctx, id).await?.ok_or_else(|| not_found(id))?;
        if row.state == StreamState::Expired || row.state.is_unfinished() && row.expires_at <= self.now() {
            return Err(expired(id));
        }
        let received = self.deps.metadata.upload_received(&ctx.principal().tenant, id).await?;
        Ok(Progress { row, received })
    }

    /// Gives the caller's upload up and its space back. Aborting what is absent or has ended without a context succeeds.
    ///
    /// # Errors
    /// `stream_closed` for one that is complete.
    pub async fn upload_abort(self: &Arc<Self>, ctx: &OpContext, id: &StreamId) -> Result<(), AppError> {
        let tenant = &ctx.principal().tenant;
        let Some(row) = self.upload_own(ctx, id).await? else { return Ok(()) };
        if row.state.is_unfinished() {
            let (_hold, _) = self.upload_take(tenant, *id).await;
            self.upload_give_up(tenant, id, StreamState::Aborted).await?;
        }
        match self.upload_own(ctx, id).await? {
            Some(row) if row.state == StreamState::Complete => {
                Err(AppError::new(ErrorCode::StreamClosed, format!("stream {id} is complete")))
            }
            _ => Ok(()),
        }
    }

    /// Ends an unfinished upload: the row first, so that nobody goes on with a stage that is being dropped; a stage that
    /// is left by a crash in between is the reconciler's.
    pub(crate) async fn upload_give_up(
        &self,
        tenant: &TenantId,
        id: &StreamId,
        state: StreamState,
    ) -> Result<(), AppError> {
        let forget_at = self.now().after(limits::STREAM_TTL);
        let row = self.deps.metadata.upload_end(tenant, id, state, forget_at).await?;
        if row.is_some_and(|row| row.state != StreamState::Complete) {
            self.deps.blobs.stage_drop(tenant, id).await?;
        }
        Ok(())
    }

    /// Fences the session of an upload and gives the upload up as expired, if its time is over still.
    pub(crate) async fn upload_expire(self: &Arc<Self>, tenant: &TenantId, id: &StreamId) -> Result<bool, AppError> {
        let (_hold, _) = self.upload_take(tenant, *id).await;
        let row = self.deps.metadata.upload_get(tenant, id).await?;
        let over = row.is_some_and(|row| row.state.is_unfinished() && row.expires_at <= self.now());
        if over {
            self.upload_give_up(tenant, id, StreamState::Expired).await?;
        }
        Ok(over)
    }
}

fn not_found(id: &StreamId) -> AppError {
    AppError::new(ErrorCode::StreamNotFound, format!("no stream {id} of this agent"))
}

fn expired(id: &StreamId) -> AppError {
    AppError::new(ErrorCode::StreamExpired, format!("stream {id} has expired"))
}

/// Bytes that an upload may have on the way: at least 4 chunks.
pub fn window_bytes(chunking: &Chunking) -> u64 {
    limits::UPLOAD_WINDOW_BYTES.max(4 * u64::from(chunking.chunk_bytes))
}
