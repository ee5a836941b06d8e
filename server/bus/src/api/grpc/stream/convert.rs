//! Between frames of streams and what the use cases know.

use acb_ports::metadata::{ContextChange, UploadRow, UploadTarget};
use acb_proto::v1;
use acb_types::{
    Sha256Digest, StreamId,
    stream::{ChunkSet, StreamState},
};

use crate::{
    api::grpc::context,
    app::{context::ContextRef, download::Wanted, upload::Opening},
    error::AppError,
};

pub(super) fn stream_id_in(bytes: &[u8]) -> Result<StreamId, AppError> {
    if bytes.is_empty() {
        return Err(AppError::missing("stream_id"));
    }
    StreamId::try_from(bytes).map_err(|_| AppError::invalid("stream_id", "must have 16 bytes"))
}

pub(super) fn sha256_in(bytes: &[u8], field: &'static str) -> Result<Sha256Digest, AppError> {
    Sha256Digest::try_from(bytes).map_err(|_| AppError::invalid(field, "must have 32 bytes"))
}

pub(super) fn opening_in(open: v1::StreamOpen) -> Result<Opening, AppError> {
    Ok(Opening {
        id: stream_id_in(&open.stream_id)?,
        context: if open.context_id.is_empty() { None } else { Some(open.context_id.parse()?) },
        total_bytes: (open.total_bytes > 0).then_some(open.total_bytes),
        chunk_bytes: open.chunk_bytes,
        target: target_in(open),
    })
}

fn target_in(open: v1::StreamOpen) -> Result<UploadTarget, AppError> {
    let spec = open.spec.unwrap_or_default();
    if open.if_rev == 0 && !open.force {
        return Ok(UploadTarget::Create { spec: context::spec_in(spec)? });
    }
    if open.if_rev > 0 && open.force {
        return Err(AppError::invalid("force", "does not go with if_rev"));
    }
    if !spec.key.is_empty() || !spec.r#type.is_empty() {
        return Err(AppError::invalid("spec", "of a new revision cannot change key or type"));
    }
    let change = if open.fields.is_empty() { change_in(spec)? } else { context::change_in(Some(spec), &open.fields)? };
    Ok(UploadTarget::Update { change, if_rev: (open.if_rev > 0).then_some(open.if_rev) })
}

/// What is given of a spec; empty fields leave what is there.
fn change_in(spec: v1::ContextSpec) -> Result<ContextChange, AppError> {
    let (scope_given, version_given) = (spec.scope != 0, !spec.version.is_empty());
    let spec = context::spec_in(spec)?;
    let text = |text: String| (!text.is_empty()).then_some(text);
    Ok(ContextChange {
        scope: scope_given.then_some(spec.scope),
        groups: (!spec.groups.is_empty()).then_some(spec.groups),
        shares: (!spec.shares.is_empty()).then_some(spec.shares),
        content_type: text(spec.content_type),
        description: text(spec.description),
        labels: (!spec.labels.is_empty()).then_some(spec.labels),
        metadata: (!spec.metadata.is_empty()).then_some(spec.metadata),
        ttl: spec.ttl.map(Some),
        version: version_given.then_some(spec.version),
    })
}

pub(super) fn wanted_in(request: &v1::ReceiveContextRequest) -> Result<Wanted, AppError> {
    let context = match (request.context_id.as_str(), request.key.as_str()) {
        ("", "") => return Err(AppError::missing("context_id")),
        ("", key) => ContextRef::Key(key.parse()?),
        (id, _) => ContextRef::Id(id.parse()?),
    };
    Ok(Wanted {
        context,
        at_rev: (request.at_rev > 0).then_some(request.at_rev),
        offset: request.offset_bytes,
        length: (request.length_bytes > 0).then_some(request.length_bytes),
    })
}

pub(super) fn progress_out(row: &UploadRow, received: &ChunkSet) -> v1::StreamProgress {
    let state = match row.state {
        StreamState::Open => v1::StreamState::Open,
        StreamState::Completing => v1::StreamState::Completing,
        StreamState::Complete => v1::StreamState::Complete,
        StreamState::Aborted => v1::StreamState::Aborted,
        StreamState::Expired => v1::StreamState::Expired,
    };
    v1::StreamProgress {
        stream_id: row.id.0.to_vec().into(),
        state: state as i32,
        chunk_bytes: row.chunking.chunk_bytes,
        total_bytes: row.chunking.total_bytes.unwrap_or(0),
        received_bytes: row.received_bytes,
        received: received.ranges().map(|(first_index, count)| v1::ChunkRange { first_index, count }).collect(),
        expires_at_ms: row.expires_at.0,
        context_id: if row.state == StreamState::Complete { row.context.to_string() } else { String::new() },
    }
}
