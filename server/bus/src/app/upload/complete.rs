//! Completion: from chunks to a context, in steps of which each can be done again.

use std::sync::Arc;

use acb_ports::{
    blob_store::BlobPin,
    metadata::{
        Completing, ContentPlace, ContextChange, ContextContent, ContextRow, ContextWrite, NewContext, UploadRow,
        UploadTarget, WriteCondition,
    },
};
use acb_types::{ContextId, ErrorCode, ErrorKind, Sha256Digest, StreamId, limits, stream::StreamState};
use sha2::{Digest as _, Sha256};

use super::{News, UploadSession, open::lost, session::ended_early};
use crate::{
    app::{App, OpContext},
    domain::context::{self as domain, ContextVerb},
    error::AppError,
};

impl UploadSession {
    /// Ends the upload as a context. Answers with its row.
    ///
    /// # Errors
    /// `chunk_mismatch` for another size than was said, `invalid_state` while chunks are missing: the upload goes on.
    /// `digest_mismatch`, and what keeps the context from being written (`context_exists`, `revision_conflict`,
    /// `permission_denied`, …): the upload has ended, and its space is given back. A store that fails: try again.
    pub async fn complete(mut self, total_bytes: u64, sha256: Sha256Digest) -> Result<ContextRow, AppError> {
        if self.row.state == StreamState::Open {
            self.end_sending(total_bytes, sha256).await?;
        }
        let tenant = self.ctx.principal().tenant.clone();
        let completing = Completing {
            session: self.row.session,
            total_bytes,
            sha256,
            expires_at: self.app.now().after(limits::STREAM_TTL),
        };
        self.row = self.app.deps.metadata.upload_completing(&tenant, &self.row.id, completing).await?;
        let (content, pin) = self.content(total_bytes, sha256).await?;
        match self.app.upload_context(&self.ctx, &self.row, content).await {
            Ok(row) => {
                self.app.context_written(&self.ctx, &row);
                // The row names the blob: now it needs no pin. What is left of a small upload is dropped.
                drop(pin);
                self.app.deps.blobs.stage_drop(&tenant, &self.row.id).await?;
                self.app.deps.metrics.uploads_complete.inc();
                Ok(row)
            }
            Err(error) if is_final(&error) => Err(self.give_up(error).await),
            Err(error) => Err(error),
        }
    }

    /// Everything is there, flushed, and is what was said.
    async fn end_sending(&mut self, total_bytes: u64, sha256: Sha256Digest) -> Result<(), AppError> {
        // What was refused meanwhile is missing below.
        while !self.is_settled() || self.whole.as_ref().is_some_and(|whole| whole.next < self.written.prefix()) {
            self.hurry();
            // Step by step, not from news to news: the last that is done may be the digest, which is no news.
            if let Some(News::Rejected(_, error)) = self.step().await? {
                return Err(error);
            }
        }
        let said = self.row.chunking.total_bytes;
        self.row.chunking.total_bytes = Some(total_bytes);
        let chunking = self.row.chunking;
        let count = chunking.count().unwrap_or(0);
        let size_lies = said.is_some_and(|said| said != total_bytes) || self.written.end() > count;
        if size_lies {
            self.row.chunking.total_bytes = said;
            let message = format!("the upload has another size than the {total_bytes} bytes that its end says");
            return Err(AppError::new(ErrorCode::ChunkMismatch, message));
        }
        if self.written.prefix() < count {
            self.row.chunking.total_bytes = said;
            let missing = self.written.prefix();
            let message = format!("chunk {missing} is missing, of {count}");
            return Err(AppError::new(ErrorCode::InvalidState, message).detail("missing", missing.to_string()));
        }
        if self.row.received_bytes != total_bytes {
            self.row.chunking.total_bytes = said;
            let message = format!("{} bytes were sent, and the end says {total_bytes}", self.row.received_bytes);
            return Err(AppError::new(ErrorCode::ChunkMismatch, message));
        }
        let is = self.whole.as_ref().map(super::whole::Whole::digest);
        if is != Some(sha256) {
            let message = "the whole has another SHA-256 than its end says; the upload is given up";
            return Err(self.give_up(AppError::new(ErrorCode::DigestMismatch, message)).await);
        }
        Ok(())
    }

    /// The content as a row has it: in the row, or a blob that is durable and pinned.
    async fn content(
        &mut self,
        size: u64,
        sha256: Sha256Digest,
    ) -> Result<(ContextContent, Option<BlobPin>), AppError> {
        let tenant = &self.ctx.principal().tenant;
        let Some(stage) = self.stage.clone() else {
            // A crash came after the commit: the sweep leaves what a row names that is being completed.
            let pin = self.app.deps.blobs.pin(tenant, &sha256).await?.ok_or_else(|| lost(&self.row.id))?;
            return Ok((ContextContent { size, sha256, place: ContentPlace::Blob }, Some(pin)));
        };
        let hold = Arc::clone(&self.hold);
        let job = self.app.deps.blocking.spawn_blocking(move || {
            let _hold = hold;
            if size <= limits::CONTEXT_INLINE_ROW_BYTES as u64 {
                let bytes = stage.read_at(0, size as usize)?;
                return Ok((ContentPlace::Inline(bytes), None));
            }
            stage.commit(size, &sha256).map(|pin| (ContentPlace::Blob, Some(pin)))
        });
        let (place, pin) = job.await.map_err(ended_early)?.map_err(AppError::from)?;
        Ok((ContextContent { size, sha256, place }, pin))
    }

    /// Ends the upload because of what cannot be mended by sending more.
    async fn give_up(&mut self, error: AppError) -> AppError {
        let tenant = &self.ctx.principal().tenant;
        match self.app.upload_give_up(tenant, &self.row.id, StreamState::Aborted).await {
            Ok(()) => error.detail("stream", StreamState::Aborted.name()),
            // It stays as it is, and the next attempt meets the same.
            Err(failed) => {
                tracing::warn!(stream = %self.row.id, "upload not given up: {failed}");
                error
            }
        }
    }
}

/// Whether the same completion will be refused again, whatever the client does.
fn is_final(error: &AppError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::AlreadyExists
            | ErrorKind::Conflict
            | ErrorKind::NotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::InvalidArgument
    ) || error.code() == ErrorCode::ContextLimit
}

impl App {
    /// Writes the context of an upload, which becomes complete in the same transaction.
    async fn upload_context(
        &self,
        ctx: &OpContext,
        upload: &UploadRow,
        content: ContextContent,
    ) -> Result<ContextRow, AppError> {
        let (tenant, agent, now) = (&ctx.principal().tenant, &ctx.principal().agent, self.now());
        match &upload.target {
            UploadTarget::Create { spec } => {
                let new = NewContext {
                    id: upload.context,
                    spec: spec.clone(),
                    owner: agent.clone(),
                    content,
                    fingerprint: fingerprint(&upload.id),
                    stream: Some(upload.id),
                    now,
                };
                Ok(self.deps.metadata.context_create(tenant, new).await?.row)
            }
            UploadTarget::Update { change, if_rev } => {
                let before = self.upload_update_check(ctx, &upload.context, change, *if_rev).await?;
                let condition = match if_rev {
                    Some(rev) => WriteCondition::IfRev(*rev),
                    None => WriteCondition::Force { access_rev: before.access_rev },
                };
                let write = ContextWrite {
                    condition,
                    change: change.clone(),
                    content: Some(content),
                    by: agent.clone(),
                    repeat: None,
                    stream: Some(upload.id),
                    now,
                };
                let row = self.deps.metadata.context_update(tenant, &upload.context, write).await?.row;
                if if_rev.is_none() {
                    self.audit_own(ctx, "context.force", &upload.context.to_string()).await;
                }
                Ok(row)
            }
        }
    }

    /// Whether the caller may write this update now. Answers with the context as it is.
    pub(super) async fn upload_update_check(
        &self,
        ctx: &OpContext,
        id: &ContextId,
        change: &ContextChange,
        if_rev: Option<u64>,
    ) -> Result<ContextRow, AppError> {
        let row = self.context_for(ctx, id, ContextVerb::Update).await?;
        if change.is_of_access() {
            self.permit(ctx, &row, ContextVerb::Share).await?;
        }
        // Said of the context as it would be: what is given and what stays must go together.
        domain::check_spec(&change.applied_to(&row.spec)?)?;
        if if_rev.is_some_and(|rev| rev != row.rev) {
            let message = format!("context {id} is at revision {}", row.rev);
            return Err(AppError::new(ErrorCode::RevisionConflict, message).detail("rev", row.rev.to_string()));
        }
        Ok(row)
    }

    /// Digest of a context's content, if the caller may read that now.
    pub(super) async fn upload_readable(
        &self,
        ctx: &OpContext,
        id: &ContextId,
    ) -> Result<Option<Sha256Digest>, AppError> {
        let row = self.deps.metadata.context_get(&ctx.principal().tenant, id).await?;
        let Some(row) = row.filter(|row| row.is_there(self.now())) else { return Ok(None) };
        match self.permit(ctx, &row, ContextVerb::Read).await {
            Ok(()) => Ok(Some(row.content.sha256)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The context that a complete upload became, as it was then.
    ///
    /// # Errors
    /// `digest_mismatch` when the caller's whole is another, `revision_gap`, `context_not_found`.
    pub async fn upload_completed(
        &self,
        ctx: &OpContext,
        upload: &UploadRow,
        total_bytes: u64,
        sha256: Sha256Digest,
    ) -> Result<ContextRow, AppError> {
        if (upload.sha256, upload.chunking.total_bytes) != (Some(sha256), Some(total_bytes)) {
            let message = format!("stream {} was completed with another whole", upload.id);
            return Err(AppError::new(ErrorCode::DigestMismatch, message));
        }
        let tenant = &ctx.principal().tenant;
        let row = self.deps.metadata.context_get_at(tenant, &upload.context, upload.rev).await?;
        row.ok_or_else(|| AppError::new(ErrorCode::ContextNotFound, format!("no context {}", upload.context)))
    }
}

/// Tells the context of an upload from every other that is asked for.
fn fingerprint(id: &StreamId) -> Sha256Digest {
    let mut hasher = Sha256::new();
    hasher.update(b"stream:");
    hasher.update(id.0);
    Sha256Digest(hasher.finalize().into())
}
