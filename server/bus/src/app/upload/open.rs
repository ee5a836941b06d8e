//! Opening: a new upload, or one that goes on.

use std::sync::Arc;

use acb_ports::{
    blob_store::Stage,
    metadata::{NewUpload, UploadRow, UploadTarget},
};
use acb_types::{
    ContextId, ErrorCode, StreamId, limits,
    stream::{ChunkSet, Chunking, StreamState},
};

use super::{Opened, Opening, UploadSession, expired, not_found};
use crate::{
    app::{App, OpContext},
    domain::context::check_spec,
    error::AppError,
};

impl App {
    /// Opens an upload: makes it, or goes on with the caller's own of that id.
    ///
    /// # Errors
    /// `stream_not_found` for somebody else's, `stream_expired`, `stream_closed`, `too_many_streams`, `storage_full`; for a
    /// new one what its target, sizes and rights forbid.
    ///
    /// # Cancel safety
    /// An upload may have been made; opening it again goes on with it.
    pub async fn upload_open(self: &Arc<Self>, ctx: OpContext, opening: Opening) -> Result<Opened, AppError> {
        let id = opening.id;
        let tenant = ctx.principal().tenant.clone();
        match self.deps.metadata.upload_get(&tenant, &id).await? {
            Some(row) if row.owner != ctx.principal().agent => return Err(not_found(&id)),
            Some(_) => {}
            None => self.upload_make(&ctx, opening).await?,
        }
        let (hold, fence) = self.upload_take(&tenant, id).await;
        // Whoever had it may have ended it meanwhile.
        let row = self.deps.metadata.upload_open(&tenant, &id).await?.ok_or_else(|| not_found(&id))?;
        match row.state {
            StreamState::Complete => return Ok(Opened::Complete(Box::new(row))),
            StreamState::Aborted => {
                return Err(AppError::new(ErrorCode::StreamClosed, format!("stream {id} is {}", row.state.name())));
            }
            StreamState::Expired => return Err(expired(&id)),
            StreamState::Open | StreamState::Completing if row.expires_at <= self.now() => {
                self.upload_give_up(&tenant, &id, StreamState::Expired).await?;
                return Err(expired(&id));
            }
            StreamState::Open | StreamState::Completing => {}
        }
        let received = self.deps.metadata.upload_received(&tenant, &id).await?;
        let stage = self.upload_stage(&ctx, &row, &received).await?;
        Ok(Opened::Session(Box::new(UploadSession::new(Arc::clone(self), ctx, row, received, stage, hold, fence))))
    }

    async fn upload_make(&self, ctx: &OpContext, opening: Opening) -> Result<(), AppError> {
        let Opening { id, context, target, total_bytes, chunk_bytes } = opening;
        let (tenant, agent) = (&ctx.principal().tenant, &ctx.principal().agent);
        let target = target?;
        let chunking = chunking(chunk_bytes, total_bytes)?;
        let now = self.now();
        let context = self.upload_target_check(ctx, context, &target).await?;
        let new = NewUpload {
            id,
            owner: agent.clone(),
            context,
            target,
            chunking,
            expires_at: now.after(limits::STREAM_TTL),
            now,
        };
        self.deps.metadata.upload_create(tenant, new).await?;
        // The space of the whole is taken now: a disk that is too full says so before anything is sent.
        if let Err(error) = self.deps.blobs.stage_create(tenant, &id, total_bytes).await {
            self.upload_give_up(tenant, &id, StreamState::Aborted).await?;
            // Nothing came of it: the same id may be tried again when there is room.
            self.deps.metadata.upload_forget(tenant, &id).await?;
            return Err(error.into());
        }
        Ok(())
    }

    /// Looks at what will be looked at again on completion, so that nobody sends gigabytes for a plain refusal. Answers with
    /// the context's id.
    async fn upload_target_check(
        &self,
        ctx: &OpContext,
        context: Option<ContextId>,
        target: &UploadTarget,
    ) -> Result<ContextId, AppError> {
        let tenant = &ctx.principal().tenant;
        match target {
            UploadTarget::Create { spec } => {
                check_spec(spec)?;
                let taken = |what: String| AppError::new(ErrorCode::ContextExists, format!("{what} is taken"));
                if let Some(key) = &spec.key
                    && let Some(holder) = self.deps.metadata.context_find(tenant, key, None).await?
                    && let Some(row) = self.deps.metadata.context_get(tenant, &holder).await?
                    && row.is_there(self.now())
                {
                    return Err(taken(format!("context key {key}")));
                }
                let Some(id) = context else {
                    return ContextId::try_from(self.deps.ids.uuid_v7(self.now())).map_err(AppError::from);
                };
                if self.deps.metadata.context_get(tenant, &id).await?.is_some() {
                    return Err(taken(format!("context id {id}")));
                }
                Ok(id)
            }
            UploadTarget::Update { change, if_rev } => {
                let id = context.ok_or_else(|| AppError::missing("context_id"))?;
                self.upload_update_check(ctx, &id, change, *if_rev).await?;
                Ok(id)
            }
        }
    }

    /// The stage of an unfinished upload. None is left when a crash came after the commit.
    async fn upload_stage(
        &self,
        ctx: &OpContext,
        row: &UploadRow,
        received: &ChunkSet,
    ) -> Result<Option<Arc<dyn Stage>>, AppError> {
        let tenant = &ctx.principal().tenant;
        if let Some(stage) = self.deps.blobs.stage_open(tenant, &row.id).await? {
            return Ok(Some(stage));
        }
        if row.state == StreamState::Completing {
            return Ok(None);
        }
        if received.is_empty() {
            // A crash between the row and its stage.
            return Ok(Some(self.deps.blobs.stage_create(tenant, &row.id, row.chunking.total_bytes).await?));
        }
        Err(lost(&row.id))
    }
}

/// What was acknowledged is not there.
pub(super) fn lost(id: &StreamId) -> AppError {
    AppError::of(ErrorCode::DataDamaged).private(format!("the stage of stream {id} is gone"))
}

fn chunking(chunk_bytes: u32, total_bytes: Option<u64>) -> Result<Chunking, AppError> {
    let chunk_bytes = if chunk_bytes == 0 { limits::CHUNK_BYTES as u32 } else { chunk_bytes };
    let range = limits::CHUNK_BYTES_MIN as u32..=limits::CHUNK_BYTES_MAX as u32;
    if !range.contains(&chunk_bytes) {
        let message = format!("of {chunk_bytes} is outside {} to {}", range.start(), range.end());
        return Err(AppError::invalid("chunk_bytes", message));
    }
    if let Some(total) = total_bytes.filter(|total| *total > limits::STREAM_BYTES_MAX) {
        let limit = limits::STREAM_BYTES_MAX;
        return Err(AppError::new(
            ErrorCode::ContextTooLarge,
            format!("context of {total} bytes exceeds limit of {limit}"),
        )
        .detail("actual", total.to_string())
        .detail("limit", limit.to_string()));
    }
    Ok(Chunking { chunk_bytes, total_bytes })
}
