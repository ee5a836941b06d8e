//! Between rows of contexts and their types.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use acb_ports::metadata::{
    ContentPlace, ContextContent, ContextRow, ContextScope, ContextSpec, ContextState, Payloads, ShareAccess,
};
use acb_types::{ContextId, Sha256Digest};
use bytes::Bytes;
use rusqlite::Row;
use serde::{Deserialize, Serialize};

use super::super::{
    convert::{digest, json, number, parse, time, to_json},
    error::{Failure, Result},
};

/// What a revision's row has beside the head's, for a query that calls the head `c` and the revision `r`.
pub(super) const COLUMNS: &str = "c.context_id, c.context_key, c.context_type, c.owner, c.created_rev, c.created_at, \
                                  r.rev, r.state, r.spec, r.access_rev, r.expires_at, r.updated_at, r.updated_by, \
                                  r.size, r.sha256, r.is_blob";

/// The columns of a query, with or without payloads: what is not asked for is not read from its pages.
pub(super) fn columns(payloads: Payloads) -> String {
    match payloads {
        Payloads::LeaveOut => COLUMNS.to_owned(),
        Payloads::Read => format!("{COLUMNS}, r.payload"),
    }
}

/// A spec as it stands in JSON, without key and type.
#[derive(Serialize, Deserialize)]
struct StoredSpec {
    scope: String,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    groups: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    shares: BTreeMap<String, StoredAccess>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    content_type: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    description: String,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    labels: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u64>,
    version: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StoredAccess {
    Read,
    Write,
}

/// A spec as a JSON column.
pub(super) fn spec_to_json(spec: &ContextSpec) -> Result<String> {
    let access = |access: &ShareAccess| match access {
        ShareAccess::Read => StoredAccess::Read,
        ShareAccess::Write => StoredAccess::Write,
    };
    to_json(&StoredSpec {
        scope: spec.scope.name().to_owned(),
        groups: spec.groups.iter().map(|g| g.as_str().to_owned()).collect(),
        shares: spec.shares.iter().map(|(agent, a)| (agent.as_str().to_owned(), access(a))).collect(),
        content_type: spec.content_type.clone(),
        description: spec.description.clone(),
        labels: spec.labels.clone(),
        metadata: spec.metadata.clone(),
        ttl_ms: spec.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
        version: spec.version.to_string(),
    })
}

fn spec(row: &Row<'_>) -> Result<ContextSpec> {
    let stored: StoredSpec = json(row, "spec")?;
    let access = |access: StoredAccess| match access {
        StoredAccess::Read => ShareAccess::Read,
        StoredAccess::Write => ShareAccess::Write,
    };
    let key: String = row.get("context_key")?;
    Ok(ContextSpec {
        key: if key.is_empty() { None } else { Some(key.parse()?) },
        context_type: row.get("context_type")?,
        scope: ContextScope::from_name(&stored.scope)
            .ok_or_else(|| Failure::Damaged(format!("spec: no scope {}", stored.scope)))?,
        groups: stored.groups.into_iter().map(|g| g.parse().map_err(Failure::from)).collect::<Result<_>>()?,
        shares: stored.shares.into_iter().map(|(id, a)| Ok((id.parse()?, access(a)))).collect::<Result<_>>()?,
        content_type: stored.content_type,
        description: stored.description,
        labels: stored.labels,
        metadata: stored.metadata,
        ttl: stored.ttl_ms.map(Duration::from_millis),
        version: stored.version.parse().map_err(|e| Failure::Damaged(format!("spec: version: {e}")))?,
    })
}

/// The id in a column of 16 bytes.
pub(super) fn context_id(row: &Row<'_>, column: &str) -> Result<ContextId> {
    let bytes = row.get_ref(column)?.as_blob().map_err(|e| Failure::Damaged(format!("{column}: {e}")))?;
    let bytes = bytes.try_into().map_err(|_| Failure::Damaged(format!("{column}: {} bytes", bytes.len())))?;
    Ok(ContextId::from_bytes(bytes)?)
}

/// A state as its number.
pub(super) const fn state_to_number(state: ContextState) -> u8 {
    match state {
        ContextState::Live => 0,
        ContextState::Deleted => 1,
        ContextState::Expired => 2,
    }
}

/// A scope as its number, for the column that is searched.
pub(super) const fn scope_to_number(scope: ContextScope) -> u8 {
    match scope {
        ContextScope::Private => 0,
        ContextScope::Shared => 1,
        ContextScope::Group => 2,
        ContextScope::Public => 3,
    }
}

fn state(row: &Row<'_>) -> Result<ContextState> {
    match row.get::<_, u8>("state")? {
        0 => Ok(ContextState::Live),
        1 => Ok(ContextState::Deleted),
        2 => Ok(ContextState::Expired),
        other => Err(Failure::Damaged(format!("state: {other}"))),
    }
}

fn content(row: &Row<'_>, payloads: Payloads) -> Result<ContextContent> {
    let size = number(row, "size")?;
    let place = match (row.get::<_, bool>("is_blob")?, payloads) {
        (true, _) => ContentPlace::Blob,
        (false, Payloads::LeaveOut) => ContentPlace::Unread,
        (false, Payloads::Read) => {
            let bytes = row.get_ref("payload")?.as_blob().map_err(|e| Failure::Damaged(format!("payload: {e}")))?;
            if bytes.len() as u64 != size {
                return Err(Failure::Damaged(format!("payload: {} bytes instead of {size}", bytes.len())));
            }
            ContentPlace::Inline(Bytes::copy_from_slice(bytes))
        }
    };
    Ok(ContextContent { size, sha256: Sha256Digest(digest(row, "sha256")?), place })
}

/// A row of a query with [`columns`].
pub(super) fn context_row(row: &Row<'_>, payloads: Payloads) -> Result<ContextRow> {
    Ok(ContextRow {
        id: context_id(row, "context_id")?,
        spec: spec(row)?,
        owner: parse(row, "owner")?,
        rev: number(row, "rev")?,
        created_rev: number(row, "created_rev")?,
        access_rev: number(row, "access_rev")?,
        content: content(row, payloads)?,
        expires_at: time(row, "expires_at")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
        updated_by: parse(row, "updated_by")?,
        state: state(row)?,
    })
}
