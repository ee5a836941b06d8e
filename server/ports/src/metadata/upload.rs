//! Uploads: which are under way, which of their chunks are on stable storage, what became of them.
//!
//! - UP-1  An upload is its owner's: the id of another owner's is `stream_not_found`, and so is every use of it.
//! - UP-2  Creating again by the same owner finds the row, whatever its state, and changes nothing of it.
//! - UP-3  Each opening raises the session by one. Chunks and completion of an older session are `session_fenced`.
//! - UP-4  A chunk that was added is there after a power cut. It is added once: again with the same digest changes nothing,
//!   with another is `chunk_mismatch`, and then none of the call's chunks is added.
//! - UP-5  Only an unfinished upload takes chunks; an ended one is `stream_closed` or `stream_expired`. Once its completion
//!   has begun it takes no more chunks.
//! - UP-6  It becomes complete in the transaction that writes its context, and only if it is completing; exactly once.
//! - UP-7  Ending drops the chunks. What is complete stays complete; ending twice is ending once.
//! - UP-8  A tenant has at most `STREAMS_MAX` unfinished uploads; then `too_many_streams`.
//! - UP-9  Chunks of complete uploads are found by digest, with the blob and the context that have them, until the upload
//!   is forgotten.

use std::fmt;

use acb_types::{
    AgentId, ContextId, ErrorCode, Sha256Digest, StreamId, TenantId, Timestamp,
    stream::{ChunkSet, Chunking, StreamState},
};
use async_trait::async_trait;

use super::{ContextChange, ContextSpec, Created, Result};
use crate::error::StoreError;

/// Most chunks that one call adds or looks for.
pub const UPLOAD_CHUNKS_MAX: usize = 4096;

/// What an upload is to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadTarget {
    /// A new context.
    Create {
        /// What to say of it, defaults filled in.
        spec: ContextSpec,
    },
    /// A new revision of one that is there.
    Update {
        /// What changes of what is said of it.
        change: ContextChange,
        /// The revision that it was made for; `None` overwrites.
        if_rev: Option<u64>,
    },
}

/// Asks for an upload.
#[derive(Clone, Debug)]
pub struct NewUpload {
    /// Its id, chosen by the client.
    pub id: StreamId,
    /// Who uploads.
    pub owner: AgentId,
    /// The context that it is for.
    pub context: ContextId,
    /// What becomes of that.
    pub target: UploadTarget,
    /// Size of its chunks, and of the whole where it was said.
    pub chunking: Chunking,
    /// When it is given up unless a chunk comes.
    pub expires_at: Timestamp,
    /// The time.
    pub now: Timestamp,
}

/// An upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadRow {
    /// Its id.
    pub id: StreamId,
    /// Who uploads.
    pub owner: AgentId,
    /// The context that it is for.
    pub context: ContextId,
    /// What becomes of that.
    pub target: UploadTarget,
    /// Size of its chunks, and of the whole as soon as it is known.
    pub chunking: Chunking,
    /// Where it stands.
    pub state: StreamState,
    /// How often it was opened.
    pub session: u64,
    /// Bytes on stable storage.
    pub received_bytes: u64,
    /// Digest of the whole, from completing on.
    pub sha256: Option<Sha256Digest>,
    /// Revision of its context, when complete.
    pub rev: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it is given up unless a chunk comes; of an ended one, when it may be forgotten.
    pub expires_at: Timestamp,
}

/// Chunks that have reached stable storage.
#[derive(Clone, Debug)]
pub struct AddedChunks {
    /// Session of who sent them.
    pub session: u64,
    /// Number and digest of each; at most [`UPLOAD_CHUNKS_MAX`].
    pub chunks: Vec<(u64, Sha256Digest)>,
    /// How many bytes they have.
    pub bytes: u64,
    /// Size of the whole, if one of them was the last.
    pub total_bytes: Option<u64>,
    /// When the upload is given up unless more come.
    pub expires_at: Timestamp,
}

/// The end of sending.
#[derive(Clone, Copy, Debug)]
pub struct Completing {
    /// Session of who says so.
    pub session: u64,
    /// Size of the whole.
    pub total_bytes: u64,
    /// Its digest, which was checked.
    pub sha256: Sha256Digest,
    /// When it is given up unless the rest follows.
    pub expires_at: Timestamp,
}

/// Where a chunk's content can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundChunk {
    /// Its digest.
    pub sha256: Sha256Digest,
    /// The blob that has it.
    pub blob: Sha256Digest,
    /// Its first byte there.
    pub offset: u64,
    /// Its size, in bytes.
    pub len: u64,
    /// The context that had this blob. Whether it still has, and who may read it, its row says.
    pub context: ContextId,
}

/// Keeps uploads, in the same store as contexts, so that both change in one transaction. Clauses META-1 to META-3 and
/// META-21 to META-23 hold here too.
#[async_trait]
pub trait UploadStore: Send + Sync + fmt::Debug {
    /// Makes an upload, or finds it.
    ///
    /// # Errors
    /// `stream_not_found` for another owner's id, `too_many_streams`.
    async fn upload_create(&self, tenant: &TenantId, new: NewUpload) -> Result<Created<UploadRow>>;

    /// Shows an upload.
    async fn upload_get(&self, tenant: &TenantId, id: &StreamId) -> Result<Option<UploadRow>>;

    /// Begins a session of an unfinished upload, or shows an ended one; `None` when it is absent.
    async fn upload_open(&self, tenant: &TenantId, id: &StreamId) -> Result<Option<UploadRow>>;

    /// Numbers of the chunks that are there.
    async fn upload_received(&self, tenant: &TenantId, id: &StreamId) -> Result<ChunkSet>;

    /// Digest of a chunk that is there.
    async fn upload_chunk(&self, tenant: &TenantId, id: &StreamId, index: u64) -> Result<Option<Sha256Digest>>;

    /// Adds chunks. Only after their bytes are on stable storage.
    ///
    /// # Errors
    /// `stream_not_found`, `stream_closed`, `stream_expired`, `session_fenced`, `chunk_mismatch`.
    async fn upload_add(&self, tenant: &TenantId, id: &StreamId, added: AddedChunks) -> Result<()>;

    /// Begins completion. Again with the same size and digest succeeds.
    ///
    /// # Errors
    /// `stream_not_found`, `stream_closed`, `stream_expired`, `session_fenced`; `digest_mismatch` for another whole than the
    /// one whose completion has begun.
    async fn upload_completing(&self, tenant: &TenantId, id: &StreamId, completing: Completing) -> Result<UploadRow>;

    /// Ends an unfinished upload as aborted or expired. Answers with the row as it is then; `None` when it is absent.
    async fn upload_end(
        &self,
        tenant: &TenantId,
        id: &StreamId,
        state: StreamState,
        forget_at: Timestamp,
    ) -> Result<Option<UploadRow>>;

    /// Lists uploads by id.
    async fn upload_list(&self, tenant: &TenantId, after: Option<&StreamId>, limit: u32) -> Result<Vec<UploadRow>>;

    /// Forgets an ended upload with its chunks. Forgetting what is absent or unfinished changes nothing.
    async fn upload_forget(&self, tenant: &TenantId, id: &StreamId) -> Result<()>;

    /// Looks for chunks of complete uploads by digest; at most a few for each.
    async fn upload_find(&self, tenant: &TenantId, sha256: &[Sha256Digest]) -> Result<Vec<FoundChunk>>;
}

impl FoundChunk {
    /// Most places that are told of one digest: whoever may read none of them sends the chunk.
    pub const PER_DIGEST: usize = 4;
}

impl NewUpload {
    /// The row that it makes: open, in its first session.
    pub fn row(&self) -> UploadRow {
        UploadRow {
            id: self.id,
            owner: self.owner.clone(),
            context: self.context,
            target: self.target.clone(),
            chunking: self.chunking,
            state: StreamState::Open,
            session: 1,
            received_bytes: 0,
            sha256: None,
            rev: 0,
            created_at: self.now,
            expires_at: self.expires_at,
        }
    }
}

/// The rules that every store follows, so that they stand once.
impl UploadRow {
    /// Whether a session may go on in a state (UP-3, UP-5).
    ///
    /// # Errors
    /// `stream_closed`, `stream_expired`, `session_fenced`.
    pub fn check(&self, operation: &'static str, session: u64, in_state: StreamState) -> Result<()> {
        let refuse = |code, message| Err(StoreError::new(code, operation, message));
        if self.state == StreamState::Expired {
            return refuse(ErrorCode::StreamExpired, format!("stream {} has expired", self.id));
        }
        if !self.state.is_unfinished() {
            return refuse(ErrorCode::StreamClosed, format!("stream {} is {}", self.id, self.state.name()));
        }
        if self.session != session {
            return refuse(ErrorCode::SessionFenced, format!("stream {} was opened again", self.id));
        }
        if self.state != in_state {
            return refuse(ErrorCode::StreamClosed, format!("stream {} is {}", self.id, self.state.name()));
        }
        Ok(())
    }

    /// Whether completion may begin, or has begun with the same whole.
    ///
    /// # Errors
    /// As [`Self::check`]; `digest_mismatch` for another whole.
    pub fn check_completing(&self, operation: &'static str, completing: &Completing) -> Result<()> {
        let state = if self.state == StreamState::Completing { self.state } else { StreamState::Open };
        self.check(operation, completing.session, state)?;
        let same = (self.sha256, self.chunking.total_bytes) == (Some(completing.sha256), Some(completing.total_bytes));
        if self.state == StreamState::Completing && !same {
            let message = format!("stream {} is being completed with another whole", self.id);
            return Err(StoreError::new(ErrorCode::DigestMismatch, operation, message));
        }
        Ok(())
    }

    /// Whether it may become complete (UP-6).
    ///
    /// # Errors
    /// `stream_expired`, `stream_closed`.
    pub fn check_complete(&self, operation: &'static str) -> Result<()> {
        self.check(operation, self.session, StreamState::Completing)
    }

    /// Whether a state is one that an upload is ended with.
    ///
    /// # Errors
    /// `invalid_argument`.
    pub fn check_end(operation: &'static str, state: StreamState) -> Result<()> {
        if matches!(state, StreamState::Aborted | StreamState::Expired) {
            return Ok(());
        }
        let message = format!("an upload is not ended as {}", state.name());
        Err(StoreError::new(ErrorCode::InvalidArgument, operation, message))
    }
}
