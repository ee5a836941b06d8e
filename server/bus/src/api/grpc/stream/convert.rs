//! Between frames of streams and what the use cases know.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use acb_ports::metadata::{
    ContextChange, ContextRow, ContextScope, ContextSpec, ContextState, ShareAccess, UploadRow, UploadTarget,
};
use acb_proto::v1;
use acb_types::{
    AgentId, ErrorCode, GroupName, Sha256Digest, StreamId, limits,
    stream::{ChunkSet, StreamState},
};

use crate::{
    app::{
        download::{Named, Wanted},
        upload::Opening,
    },
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
        return Ok(UploadTarget::Create { spec: spec_in(spec)? });
    }
    if open.if_rev > 0 && open.force {
        return Err(AppError::invalid("force", "does not go with if_rev"));
    }
    if !spec.key.is_empty() || !spec.r#type.is_empty() {
        return Err(AppError::invalid("spec", "of a new revision cannot change key or type"));
    }
    Ok(UploadTarget::Update { change: change_in(spec)?, if_rev: (open.if_rev > 0).then_some(open.if_rev) })
}

fn short(field: &'static str, text: String, limit: usize) -> Result<String, AppError> {
    if text.len() > limit { Err(AppError::too_large(field, text.len(), limit)) } else { Ok(text) }
}

fn scope_in(n: i32) -> Result<Option<ContextScope>, AppError> {
    Ok(match n {
        0 => None,
        1 => Some(ContextScope::Private),
        2 => Some(ContextScope::Shared),
        3 => Some(ContextScope::Group),
        4 => Some(ContextScope::Public),
        _ => return Err(AppError::new(ErrorCode::UnknownEnum, format!("scope has no member {n}"))),
    })
}

/// What is given of a spec; empty fields are not.
fn change_in(spec: v1::ContextSpec) -> Result<ContextChange, AppError> {
    let groups: BTreeSet<GroupName> = spec.groups.iter().map(|g| g.parse()).collect::<Result<_, _>>()?;
    let mut shares: BTreeMap<AgentId, ShareAccess> = BTreeMap::new();
    for share in &spec.shares {
        let access = match share.access {
            0 | 1 => ShareAccess::Read,
            2 => ShareAccess::Write,
            n => return Err(AppError::new(ErrorCode::UnknownEnum, format!("access has no member {n}"))),
        };
        shares.insert(share.agent_id.parse()?, access);
    }
    for (field, count) in [("groups", spec.groups.len()), ("shares", spec.shares.len())] {
        if count > limits::CONTEXT_AUDIENCE_MAX {
            return Err(AppError::too_large(field, count, limits::CONTEXT_AUDIENCE_MAX));
        }
    }
    if spec.labels.len() > limits::LABELS_MAX {
        return Err(AppError::too_large("labels", spec.labels.len(), limits::LABELS_MAX));
    }
    let labels: BTreeSet<String> = spec
        .labels
        .into_iter()
        .map(|label| short("label", label, limits::SHORT_TEXT_BYTES_MAX))
        .collect::<Result<_, _>>()?;
    let metadata: BTreeMap<String, String> = spec.metadata.into_iter().collect();
    let bytes = metadata.iter().map(|(k, v)| k.len() + v.len()).sum();
    if metadata.len() > limits::METADATA_MAX {
        return Err(AppError::too_large("metadata", metadata.len(), limits::METADATA_MAX));
    }
    if bytes > limits::METADATA_BYTES_MAX {
        return Err(AppError::too_large("metadata", bytes, limits::METADATA_BYTES_MAX));
    }
    let ttl = Duration::from_millis(spec.ttl_ms);
    if ttl > limits::CONTEXT_TTL_MAX {
        return Err(AppError::invalid("ttl_ms", format!("of {} exceeds the longest life", spec.ttl_ms)));
    }
    let version = if spec.version.is_empty() {
        None
    } else {
        let invalid = |e| AppError::new(ErrorCode::InvalidVersion, format!("version {:?}: {e}", spec.version));
        Some(spec.version.parse().map_err(invalid)?)
    };
    let text = |text: String| (!text.is_empty()).then_some(text);
    Ok(ContextChange {
        scope: scope_in(spec.scope)?,
        groups: (!groups.is_empty()).then_some(groups),
        shares: (!shares.is_empty()).then_some(shares),
        content_type: text(short("content_type", spec.content_type, limits::SHORT_TEXT_BYTES_MAX)?),
        description: text(short("description", spec.description, limits::DESCRIPTION_BYTES_MAX)?),
        labels: (!labels.is_empty()).then_some(labels),
        metadata: (!metadata.is_empty()).then_some(metadata),
        ttl: (!ttl.is_zero()).then_some(Some(ttl)),
        version,
    })
}

fn spec_in(spec: v1::ContextSpec) -> Result<ContextSpec, AppError> {
    let key = if spec.key.is_empty() { None } else { Some(spec.key.parse()?) };
    let context_type = short("type", spec.r#type.clone(), limits::SHORT_TEXT_BYTES_MAX)?;
    let change = change_in(spec)?;
    let spec = ContextSpec {
        key,
        context_type,
        scope: change.scope.unwrap_or_default(),
        groups: change.groups.unwrap_or_default(),
        shares: change.shares.unwrap_or_default(),
        content_type: change.content_type.unwrap_or_default(),
        description: change.description.unwrap_or_default(),
        labels: change.labels.unwrap_or_default(),
        metadata: change.metadata.unwrap_or_default(),
        ttl: change.ttl.flatten(),
        version: change.version.unwrap_or(ContextSpec::FIRST_VERSION),
    };
    for (field, is_there, belongs) in [
        ("groups", !spec.groups.is_empty(), spec.scope == ContextScope::Group),
        ("shares", !spec.shares.is_empty(), spec.scope == ContextScope::Shared),
    ] {
        if is_there != belongs {
            return Err(AppError::invalid(field, format!("do not go with scope {}", spec.scope.name())));
        }
    }
    Ok(spec)
}

pub(super) fn wanted_in(request: &v1::ReceiveContextRequest) -> Result<Wanted, AppError> {
    let context = match (request.context_id.as_str(), request.key.as_str()) {
        ("", "") => return Err(AppError::missing("context_id")),
        ("", key) => Named::Key(key.parse()?),
        (id, _) => Named::Id(id.parse()?),
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

/// A context without its payload.
pub(super) fn context_out(row: &ContextRow) -> v1::Context {
    let spec = &row.spec;
    let scope = match spec.scope {
        ContextScope::Private => v1::ContextScope::Private,
        ContextScope::Shared => v1::ContextScope::Shared,
        ContextScope::Group => v1::ContextScope::Group,
        ContextScope::Public => v1::ContextScope::Public,
    };
    let share = |(agent, access): (&AgentId, &ShareAccess)| v1::ContextShare {
        agent_id: agent.to_string(),
        access: match access {
            ShareAccess::Read => v1::ContextAccess::Read,
            ShareAccess::Write => v1::ContextAccess::Write,
        } as i32,
    };
    v1::Context {
        id: row.id.to_string(),
        spec: Some(v1::ContextSpec {
            key: spec.key.as_ref().map(ToString::to_string).unwrap_or_default(),
            r#type: spec.context_type.clone(),
            scope: scope as i32,
            groups: spec.groups.iter().map(ToString::to_string).collect(),
            shares: spec.shares.iter().map(share).collect(),
            content_type: spec.content_type.clone(),
            description: spec.description.clone(),
            labels: spec.labels.iter().cloned().collect(),
            metadata: spec.metadata.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
            ttl_ms: spec.ttl.map_or(0, |ttl| ttl.as_millis() as u64),
            version: spec.version.to_string(),
        }),
        owner: row.owner.to_string(),
        rev: row.rev,
        size_bytes: row.content.size,
        sha256: row.content.sha256.0.to_vec().into(),
        streamed: row.content.size > limits::CONTEXT_INLINE_BYTES_MAX as u64,
        expires_at_ms: row.expires_at.0,
        created_at_ms: row.created_at.0,
        updated_at_ms: row.updated_at.0,
        updated_by: row.updated_by.to_string(),
        deleted: row.state != ContextState::Live,
        payload: bytes::Bytes::new(),
    }
}
