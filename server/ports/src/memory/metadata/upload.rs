//! Uploads in memory.

use std::collections::BTreeMap;

use acb_types::{
    ErrorCode, Sha256Digest, StreamId, TenantId, Timestamp, limits,
    stream::{ChunkSet, StreamState},
};
use async_trait::async_trait;

use super::{MemoryMetadata, page, rows, tenant::Tenant};
use crate::{
    error::StoreError,
    metadata::{
        AddedChunks, Completing, Created, FoundChunk, NewUpload, Result, UPLOAD_CHUNKS_MAX, UploadRow, UploadStore,
    },
};

/// An upload and its chunks.
#[derive(Clone, Debug)]
pub(super) struct Upload {
    row: UploadRow,
    chunks: BTreeMap<u64, Sha256Digest>,
}

fn refuse<T>(code: ErrorCode, operation: &'static str, message: impl Into<String>) -> Result<T> {
    Err(StoreError::new(code, operation, message))
}

impl Tenant {
    fn upload(&self, operation: &'static str, id: &StreamId) -> Result<&Upload> {
        let absent = || StoreError::new(ErrorCode::StreamNotFound, operation, format!("no stream {id}"));
        self.uploads.get(id).ok_or_else(absent)
    }

    fn upload_create(&mut self, new: NewUpload) -> Result<Created<UploadRow>> {
        const OPERATION: &str = "upload.create";
        if let Some(upload) = self.uploads.get(&new.id) {
            if upload.row.owner != new.owner {
                return refuse(ErrorCode::StreamNotFound, OPERATION, format!("no stream {}", new.id));
            }
            return Ok(Created { row: upload.row.clone(), existed: true });
        }
        let unfinished = self.uploads.values().filter(|upload| upload.row.state.is_unfinished()).count();
        if unfinished >= limits::STREAMS_MAX {
            let message = format!("the tenant has {unfinished} unfinished uploads, which is the limit");
            return refuse(ErrorCode::TooManyStreams, OPERATION, message);
        }
        let row = new.row();
        self.uploads.insert(row.id, Upload { row: row.clone(), chunks: BTreeMap::new() });
        Ok(Created { row, existed: false })
    }

    fn upload_add(&mut self, id: &StreamId, added: &AddedChunks) -> Result<()> {
        const OPERATION: &str = "upload.add";
        let upload = self.upload(OPERATION, id)?;
        upload.row.check(OPERATION, added.session, StreamState::Open)?;
        let clash = added.chunks.iter().find(|(index, sha256)| upload.chunks.get(index).is_some_and(|is| is != sha256));
        if let Some((index, _)) = clash {
            return refuse(ErrorCode::ChunkMismatch, OPERATION, format!("chunk {index} is there with another content"));
        }
        if let Some(upload) = self.uploads.get_mut(id) {
            upload.chunks.extend(added.chunks.iter().copied());
            upload.row.received_bytes += added.bytes;
            upload.row.expires_at = added.expires_at;
            upload.row.chunking.total_bytes = upload.row.chunking.total_bytes.or(added.total_bytes);
        }
        Ok(())
    }

    fn upload_completing(&mut self, id: &StreamId, completing: &Completing) -> Result<UploadRow> {
        const OPERATION: &str = "upload.completing";
        self.upload(OPERATION, id)?.row.check_completing(OPERATION, completing)?;
        match self.uploads.get_mut(id) {
            Some(upload) => {
                upload.row.state = StreamState::Completing;
                upload.row.sha256 = Some(completing.sha256);
                upload.row.chunking.total_bytes = Some(completing.total_bytes);
                upload.row.expires_at = completing.expires_at;
                Ok(upload.row.clone())
            }
            None => refuse(ErrorCode::StreamNotFound, OPERATION, format!("no stream {id}")),
        }
    }

    /// Whether an upload, if there is one, can become complete now: asked before the transaction changes anything.
    pub(super) fn upload_can_complete(&self, id: Option<StreamId>) -> Result<()> {
        match id {
            Some(id) => self.upload("upload.complete", &id)?.row.check_complete("upload.complete"),
            None => Ok(()),
        }
    }

    /// Ends an upload as the context that it became (UP-6), within the caller's transaction.
    pub(super) fn upload_complete(&mut self, id: Option<StreamId>, rev: u64, now: Timestamp) {
        if let Some(upload) = id.and_then(|id| self.uploads.get_mut(&id)) {
            upload.row.state = StreamState::Complete;
            upload.row.rev = rev;
            upload.row.expires_at = now.after(limits::STREAM_TTL);
        }
    }

    fn upload_find(&self, sha256: &[Sha256Digest]) -> Vec<FoundChunk> {
        let mut out = Vec::new();
        for wanted in sha256 {
            let complete = self.uploads.values().filter(|upload| upload.row.state == StreamState::Complete);
            let hits = complete.flat_map(|upload| {
                let (row, blob) = (&upload.row, upload.row.sha256);
                upload.chunks.iter().filter(|(_, is)| *is == wanted).filter_map(move |(index, is)| {
                    Some(FoundChunk {
                        sha256: *is,
                        blob: blob?,
                        offset: row.chunking.offset(*index)?,
                        len: row.chunking.len(*index),
                        context: row.context,
                    })
                })
            });
            out.extend(hits.take(FoundChunk::PER_DIGEST));
        }
        out
    }
}

#[async_trait]
impl UploadStore for MemoryMetadata {
    async fn upload_create(&self, tenant: &TenantId, new: NewUpload) -> Result<Created<UploadRow>> {
        self.write_tenant("upload.create", tenant, |t| t.upload_create(new))
    }

    async fn upload_get(&self, tenant: &TenantId, id: &StreamId) -> Result<Option<UploadRow>> {
        self.read_tenant("upload.get", tenant, |t| t.uploads.get(id).map(|upload| upload.row.clone()))
    }

    async fn upload_open(&self, tenant: &TenantId, id: &StreamId) -> Result<Option<UploadRow>> {
        self.write_tenant("upload.open", tenant, |t| {
            Ok(t.uploads.get_mut(id).map(|upload| {
                upload.row.session += u64::from(upload.row.state.is_unfinished());
                upload.row.clone()
            }))
        })
    }

    async fn upload_received(&self, tenant: &TenantId, id: &StreamId) -> Result<ChunkSet> {
        self.read_tenant("upload.received", tenant, |t| {
            t.uploads.get(id).map(|upload| upload.chunks.keys().copied().collect()).unwrap_or_default()
        })
    }

    async fn upload_chunk(&self, tenant: &TenantId, id: &StreamId, index: u64) -> Result<Option<Sha256Digest>> {
        self.read_tenant("upload.chunk", tenant, |t| t.uploads.get(id)?.chunks.get(&index).copied())
    }

    async fn upload_add(&self, tenant: &TenantId, id: &StreamId, added: AddedChunks) -> Result<()> {
        at_most("upload.add", added.chunks.len())?;
        self.write_tenant("upload.add", tenant, |t| t.upload_add(id, &added))
    }

    async fn upload_completing(&self, tenant: &TenantId, id: &StreamId, completing: Completing) -> Result<UploadRow> {
        self.write_tenant("upload.completing", tenant, |t| t.upload_completing(id, &completing))
    }

    async fn upload_end(
        &self,
        tenant: &TenantId,
        id: &StreamId,
        state: StreamState,
        forget_at: Timestamp,
    ) -> Result<Option<UploadRow>> {
        UploadRow::check_end("upload.end", state)?;
        self.write_tenant("upload.end", tenant, |t| {
            Ok(t.uploads.get_mut(id).map(|upload| {
                if upload.row.state.is_unfinished() {
                    upload.row.state = state;
                    upload.row.expires_at = forget_at;
                    upload.chunks.clear();
                }
                upload.row.clone()
            }))
        })
    }

    async fn upload_list(&self, tenant: &TenantId, after: Option<&StreamId>, limit: u32) -> Result<Vec<UploadRow>> {
        let limit = rows("upload.list", limit)?;
        self.read_tenant("upload.list", tenant, |t| {
            page(&t.uploads, after, limit, |_| true).into_iter().map(|upload| upload.row).collect()
        })
    }

    async fn upload_forget(&self, tenant: &TenantId, id: &StreamId) -> Result<()> {
        self.write_tenant("upload.forget", tenant, |t| {
            t.uploads.retain(|is, upload| is != id || upload.row.state.is_unfinished());
            Ok(())
        })
    }

    async fn upload_find(&self, tenant: &TenantId, sha256: &[Sha256Digest]) -> Result<Vec<FoundChunk>> {
        at_most("upload.find", sha256.len())?;
        self.read_tenant("upload.find", tenant, |t| t.upload_find(sha256))
    }
}

fn at_most(operation: &'static str, chunks: usize) -> Result<()> {
    if chunks > UPLOAD_CHUNKS_MAX {
        let message = format!("{chunks} chunks at once, and at most {UPLOAD_CHUNKS_MAX} are taken");
        return refuse(ErrorCode::InvalidArgument, operation, message);
    }
    Ok(())
}
