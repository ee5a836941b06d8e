//! Downloads: a context's content, whole or a range, in pieces that are read as they are taken.

use std::sync::Arc;

use acb_ports::{
    StoreError,
    blob_store::BlobReader,
    metadata::{ContentPlace, ContextRow, Payloads},
};
use acb_types::{ErrorCode, Sha256Digest};
use bytes::Bytes;
use futures_core::Stream;
use futures_util::{StreamExt as _, stream};
use sha2::{Digest as _, Sha256};

use super::{App, OpContext, context::ContextRef};
use crate::error::AppError;

/// Size of a piece.
pub const PIECE_BYTES: usize = 1024 * 1024;
/// Pieces that are read ahead of what the connection takes.
const PIECES_AHEAD: usize = 2;

/// Asks for a content.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Of which context.
    pub context: ContextRef,
    /// As it was at this revision; `None` is now.
    pub at_rev: Option<u64>,
    /// First byte.
    pub offset: u64,
    /// How many bytes; `None` is to the end.
    pub length: Option<u64>,
}

/// A download that was opened.
#[derive(Debug)]
pub struct Download {
    /// The context, without its payload's bytes.
    pub row: ContextRow,
    /// Bytes that will come.
    pub length: u64,
    offset: u64,
    source: Source,
    app: Arc<App>,
}

#[derive(Clone, Debug)]
enum Source {
    Row(Bytes),
    Blob(Arc<dyn BlobReader>),
}

/// A piece of a content.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Where it starts in the whole.
    pub offset: u64,
    /// SHA-256 of it.
    pub sha256: Sha256Digest,
    /// Its bytes.
    pub data: Bytes,
}

impl App {
    /// Opens a download.
    ///
    /// # Errors
    /// `context_not_found`, also where the caller may not see it; `revision_gap`; `invalid_argument` for a range outside the
    /// content; `data_damaged` when its bytes are gone.
    pub async fn download_open(self: &Arc<Self>, ctx: &OpContext, wanted: Wanted) -> Result<Download, AppError> {
        let row = self.context_get(ctx, &wanted.context, wanted.at_rev, Payloads::LeaveOut).await?.row;
        let size = row.content.size;
        let left = size.checked_sub(wanted.offset);
        let length = match (left, wanted.length) {
            (Some(left), None) => left,
            (Some(left), Some(length)) if length <= left => length,
            _ => {
                let message = format!(
                    "of {} bytes from {} lies outside the {size} bytes",
                    wanted.length.unwrap_or(0),
                    wanted.offset
                );
                return Err(AppError::invalid("range", message).detail("size_bytes", size.to_string()));
            }
        };
        let source = match &row.content.place {
            ContentPlace::Inline(bytes) => Source::Row(bytes.clone()),
            ContentPlace::Blob => {
                let tenant = &ctx.principal().tenant;
                let gone =
                    || AppError::of(ErrorCode::DataDamaged).private(format!("blob {} is gone", row.content.sha256));
                Source::Blob(self.deps.blobs.open(tenant, &row.content.sha256).await?.ok_or_else(gone)?)
            }
            ContentPlace::Unread => return Err(AppError::internal("a payload that was asked for was left out")),
        };
        Ok(Download { row, length, offset: wanted.offset, source, app: Arc::clone(self) })
    }
}

impl Download {
    /// The pieces, in order. They are read and hashed on the blocking pool, a little ahead of who takes them.
    ///
    /// # Errors
    /// An item is `data_damaged` or `storage_failed`; it is the last.
    pub fn pieces(&self) -> impl Stream<Item = Result<Piece, AppError>> + Send + use<> {
        let (source, blocking) = (self.source.clone(), self.app.deps.blocking.clone());
        let metrics = Arc::clone(&self.app.deps.metrics);
        let (start, end) = (self.offset, self.offset + self.length);
        let count = self.length.div_ceil(PIECE_BYTES as u64);
        let read = move |n: u64| {
            let offset = start + n * PIECE_BYTES as u64;
            let len = (end - offset).min(PIECE_BYTES as u64) as usize;
            let (source, metrics) = (source.clone(), Arc::clone(&metrics));
            let job = blocking.spawn_blocking(move || read_piece(&source, offset, len));
            async move {
                let piece = job.await.map_err(|e| AppError::internal("blocking work ended early").caused_by(e))?;
                metrics.download_bytes.inc_by(len as u64);
                Ok(piece?)
            }
        };
        stream::iter(0..count).map(read).buffered(PIECES_AHEAD)
    }
}

fn read_piece(source: &Source, offset: u64, len: usize) -> Result<Piece, StoreError> {
    let data = match source {
        Source::Row(bytes) => bytes.slice(offset as usize..offset as usize + len),
        Source::Blob(reader) => reader.read_at(offset, len)?,
    };
    if data.len() < len {
        let message = format!("a content ends {} bytes early", len - data.len());
        return Err(StoreError::new(ErrorCode::DataDamaged, "download.read", message));
    }
    let sha256 = Sha256Digest(Sha256::digest(&data).into());
    Ok(Piece { offset, sha256, data })
}
