//! Writes of contexts. Each runs inside the writer's transaction, so what is read here is what is written over.

use std::collections::BTreeSet;

use acb_ports::metadata::{
    ContentPlace, ContextRemoval, ContextRenewal, ContextRow, ContextSpec, ContextState, ContextWrite, Created,
    NewContext, Payloads, RepeatKey, Written,
};
use acb_types::{AgentId, ContextId, ErrorCode, GroupName, Sha256Digest, StreamId, TenantId, Timestamp, limits};
use rusqlite::{Connection, named_params};

use super::{
    super::{
        convert::{collect, digest, first, number, put},
        error::{Failure, Result, refuse},
        group,
        tenant::{self, Subject},
        upload,
    },
    list::{key_text, of_agent, of_group},
    read::{find, get, repeated},
    row::{context_id, scope_to_number, spec_to_json, state_to_number},
};

/// How the store is to be said to have failed without a name for the operation.
fn refused(error: acb_ports::StoreError) -> Failure {
    Failure::Refused(error.code, error.message)
}

fn absent<T>(id: &ContextId) -> Result<T> {
    refuse(ErrorCode::ContextNotFound, format!("no context {id}"))
}

fn conflict<T>(row: &ContextRow) -> Result<T> {
    refuse(ErrorCode::RevisionConflict, format!("context {} is at revision {}", row.id, row.rev))
}

pub(in super::super) fn create(c: &Connection, tenant: &TenantId, new: NewContext) -> Result<Created<ContextRow>> {
    let mut live = tenant::one(c, tenant, "SELECT live_contexts FROM tenants WHERE tenant_id = ?1")?;
    let NewContext { id, spec, owner, content, fingerprint, stream, now } = new;
    if let Some(row) = get(c, tenant, &id, Payloads::LeaveOut)? {
        if row.is_there(now) && row.owner == owner && first_fingerprint(c, tenant, &id)? == Some(fingerprint) {
            complete(c, tenant, stream, &row, now)?;
            return Ok(Created { row, existed: true });
        }
        return refuse(ErrorCode::ContextExists, format!("context id {id} is taken"));
    }
    if let Some(key) = &spec.key
        && let Some(holder) = find(c, tenant, key, None)?
    {
        match get(c, tenant, &holder, Payloads::LeaveOut)? {
            Some(row) if !row.is_there(now) => {
                end(c, tenant, &row, ContextState::Expired, &row.updated_by, now)?;
                live -= 1;
            }
            _ => return refuse(ErrorCode::ContextExists, format!("context key {key} is taken")),
        }
    }
    if live >= limits::CONTEXTS_MAX {
        return refuse(ErrorCode::ContextLimit, format!("the tenant has {live} contexts, which is the limit"));
    }
    groups_exist(c, tenant, &spec.groups, &BTreeSet::new())?;
    let rev = tenant::raise(c, tenant, Subject::Context(&id))?;
    let row = ContextRow {
        id,
        rev,
        created_rev: rev,
        access_rev: rev,
        content,
        expires_at: spec.expires_at(now),
        created_at: now,
        updated_at: now,
        updated_by: owner.clone(),
        state: ContextState::Live,
        spec,
        owner,
    };
    let mut head = c.prepare_cached(
        "INSERT INTO contexts (tenant_id, context_id, context_key, context_type, owner, fingerprint, rev, created_rev, \
         created_at, state, scope, expires_at, ended_at, search_text) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8, 0, ?9, \
         ?10, 0, ?11)",
    )?;
    head.execute((
        tenant.as_str(),
        row.id.as_bytes(),
        key_text(row.spec.key.as_ref()),
        &row.spec.context_type,
        row.owner.as_str(),
        fingerprint.as_bytes(),
        put(rev),
        put(now.0),
        scope_to_number(row.spec.scope),
        put(row.expires_at.0),
        row.spec.search_text(),
    ))?;
    keep(c, tenant, &row, None)?;
    index(c, tenant, &row, None)?;
    count_live(c, tenant, 1)?;
    complete(c, tenant, stream, &row, now)?;
    Ok(Created { row, existed: false })
}

fn first_fingerprint(c: &Connection, tenant: &TenantId, id: &ContextId) -> Result<Option<Sha256Digest>> {
    let mut query = c.prepare_cached("SELECT fingerprint FROM contexts WHERE tenant_id = ?1 AND context_id = ?2")?;
    first(query.query((tenant.as_str(), id.as_bytes()))?, |row| Ok(Sha256Digest(digest(row, "fingerprint")?)))
}

pub(in super::super) fn update(
    c: &Connection,
    tenant: &TenantId,
    id: &ContextId,
    write: &ContextWrite,
) -> Result<Written> {
    tenant::must_exist(c, tenant)?;
    // The payload is read too: a write without one keeps it, and it moves to the new revision.
    let payloads = if write.content.is_some() { Payloads::LeaveOut } else { Payloads::Read };
    let Some(before) = get(c, tenant, id, payloads)?.filter(|row| row.is_there(write.now)) else { return absent(id) };
    if let Some(key) = &write.repeat
        && let Some((row, body)) = repeated(c, tenant, id, write.by.as_str(), key)?
    {
        if body != key.body {
            let message = format!("the idempotency key was used for another update of context {id}");
            return refuse(ErrorCode::IdempotencyConflict, message);
        }
        complete(c, tenant, write.stream, &row, write.now)?;
        return Ok(Written { row, duplicate: true });
    }
    if !write.condition.holds(&before) {
        return conflict(&before);
    }
    // What may be refused is looked at before the revision is raised, with a number that stands for it.
    let after = before.written(write, before.rev).map_err(refused)?;
    groups_exist(c, tenant, &after.spec.groups, &before.spec.groups)?;
    let rev = tenant::raise(c, tenant, Subject::Context(id))?;
    let row = before.written(write, rev).map_err(refused)?;
    head(c, tenant, &row)?;
    keep(c, tenant, &row, write.repeat.as_ref())?;
    index(c, tenant, &row, Some(&before.spec))?;
    trim_history(c, tenant, id)?;
    complete(c, tenant, write.stream, &row, write.now)?;
    Ok(Written { row, duplicate: false })
}

pub(in super::super) fn remove(
    c: &Connection,
    tenant: &TenantId,
    id: &ContextId,
    removal: &ContextRemoval,
) -> Result<Option<ContextRow>> {
    tenant::must_exist(c, tenant)?;
    let Some(row) = get(c, tenant, id, Payloads::Read)? else { return Ok(None) };
    if row.is_marker() {
        return Ok(Some(row));
    }
    if !row.is_there(removal.now) {
        return Ok(None);
    }
    if !removal.condition.holds(&row) {
        return conflict(&row);
    }
    end(c, tenant, &row, ContextState::Deleted, &removal.by, removal.now).map(Some)
}

/// Puts a marker in place of a context that is there.
fn end(
    c: &Connection,
    tenant: &TenantId,
    row: &ContextRow,
    state: ContextState,
    by: &AgentId,
    now: Timestamp,
) -> Result<ContextRow> {
    let rev = tenant::raise(c, tenant, Subject::Context(&row.id))?;
    let marker = row.ended(state, by, rev, now);
    head(c, tenant, &marker)?;
    keep(c, tenant, &marker, None)?;
    unindex(c, tenant, &marker.id)?;
    trim_history(c, tenant, &marker.id)?;
    count_live(c, tenant, -1)?;
    Ok(marker)
}

pub(in super::super) fn renew(
    c: &Connection,
    tenant: &TenantId,
    id: &ContextId,
    renewal: &ContextRenewal,
) -> Result<ContextRow> {
    tenant::must_exist(c, tenant)?;
    let found = get(c, tenant, id, Payloads::Read)?.filter(|row| row.is_there(renewal.now));
    let Some(mut row) = found else { return absent(id) };
    if row.access_rev != renewal.access_rev {
        return conflict(&row);
    }
    row.spec.ttl = renewal.ttl;
    row.expires_at = row.spec.expires_at(renewal.now);
    let ids = (tenant.as_str(), id.as_bytes(), put(row.expires_at.0));
    c.prepare_cached("UPDATE contexts SET expires_at = ?3 WHERE tenant_id = ?1 AND context_id = ?2")?.execute(ids)?;
    c.prepare_cached(
        "UPDATE context_revisions SET expires_at = ?3, spec = ?4 WHERE tenant_id = ?1 AND context_id = ?2 AND rev = ?5",
    )?
    .execute((ids.0, ids.1, ids.2, spec_to_json(&row.spec)?, put(row.rev)))?;
    Ok(row)
}

pub(in super::super) fn expire(
    c: &Connection,
    tenant: &TenantId,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<ContextRow>> {
    const DUE: &str = "SELECT context_id FROM contexts WHERE tenant_id = ?1 AND state = 0 AND expires_at > 0 \
                       AND expires_at <= ?2 ORDER BY expires_at, context_id LIMIT ?3";
    tenant::must_exist(c, tenant)?;
    let mut query = c.prepare_cached(DUE)?;
    let due = collect(query.query((tenant.as_str(), put(now.0), limit))?, |row| context_id(row, "context_id"))?;
    let mut markers = Vec::with_capacity(due.len());
    for id in due {
        if let Some(row) = get(c, tenant, &id, Payloads::LeaveOut)? {
            markers.push(end(c, tenant, &row, ContextState::Expired, &row.updated_by, now)?);
        }
    }
    Ok(markers)
}

/// Forgets contexts whose markers are old, with all their revisions. Answers how many.
pub(in super::super) fn forget_markers(
    c: &Connection,
    tenant: &TenantId,
    before: Timestamp,
    limit: u32,
) -> Result<u64> {
    const SQL: &str = "DELETE FROM contexts WHERE tenant_id = ?1 AND context_id IN (SELECT context_id FROM contexts \
                       WHERE tenant_id = ?1 AND state <> 0 AND ended_at < ?2 ORDER BY ended_at, context_id LIMIT ?3)";
    Ok(c.prepare_cached(SQL)?.execute((tenant.as_str(), put(before.0), limit))? as u64)
}

/// Writes what the head has of its newest revision.
fn head(c: &Connection, tenant: &TenantId, row: &ContextRow) -> Result<()> {
    const SQL: &str = "UPDATE contexts SET rev = ?3, state = ?4, scope = ?5, expires_at = ?6, ended_at = ?7, \
                       search_text = ?8 WHERE tenant_id = ?1 AND context_id = ?2";
    let ended = if row.is_marker() { row.updated_at } else { Timestamp::NONE };
    c.prepare_cached(SQL)?.execute((
        tenant.as_str(),
        row.id.as_bytes(),
        put(row.rev),
        state_to_number(row.state),
        scope_to_number(row.spec.scope),
        put(row.expires_at.0),
        put(ended.0),
        row.spec.search_text(),
    ))?;
    Ok(())
}

/// Keeps a revision.
fn keep(c: &Connection, tenant: &TenantId, row: &ContextRow, repeat: Option<&RepeatKey>) -> Result<()> {
    const SQL: &str = "INSERT INTO context_revisions (tenant_id, context_id, rev, state, spec, access_rev, expires_at, \
         updated_at, updated_by, repeat_key, repeat_body, size, sha256, is_blob, payload) VALUES (:tenant, :id, :rev, \
         :state, :spec, :access, :expires, :updated, :by, :key, :body, :size, :sha256, :blob, :payload)";
    let (is_blob, payload): (bool, &[u8]) = match &row.content.place {
        ContentPlace::Inline(bytes) => (false, bytes),
        ContentPlace::Blob => (true, &[]),
        ContentPlace::Unread => {
            return refuse(ErrorCode::Internal, "a payload that was not read cannot be written");
        }
    };
    if payload.len() > limits::CONTEXT_INLINE_ROW_BYTES {
        let (actual, limit) = (payload.len(), limits::CONTEXT_INLINE_ROW_BYTES);
        return refuse(ErrorCode::Internal, format!("payload of {actual} bytes in a row exceeds limit of {limit}"));
    }
    let body: &[u8] = repeat.map_or(&[], |key| key.body.as_bytes());
    c.prepare_cached(SQL)?.execute(named_params! {
        ":tenant": tenant.as_str(),
        ":id": row.id.as_bytes(),
        ":rev": put(row.rev),
        ":state": state_to_number(row.state),
        ":spec": spec_to_json(&row.spec)?,
        ":access": put(row.access_rev),
        ":expires": put(row.expires_at.0),
        ":updated": put(row.updated_at.0),
        ":by": row.updated_by.as_str(),
        ":key": repeat.map_or("", |key| key.key.as_str()),
        ":body": body,
        ":size": put(row.content.size),
        ":sha256": row.content.sha256.as_bytes(),
        ":blob": is_blob,
        ":payload": payload,
    })?;
    Ok(())
}

/// Writes the tables that are searched. An update that says the same leaves them as they are.
fn index(c: &Connection, tenant: &TenantId, row: &ContextRow, before: Option<&ContextSpec>) -> Result<()> {
    let (ids, spec) = ((tenant.as_str(), row.id.as_bytes()), &row.spec);
    if before.is_none_or(|before| before.labels != spec.labels) {
        if before.is_some() {
            c.prepare_cached("DELETE FROM context_labels WHERE tenant_id = ?1 AND context_id = ?2")?.execute(ids)?;
        }
        let mut insert =
            c.prepare_cached("INSERT INTO context_labels (tenant_id, context_id, label) VALUES (?1, ?2, ?3)")?;
        for label in &spec.labels {
            insert.execute((ids.0, ids.1, label))?;
        }
    }
    if before.is_none_or(|before| (&before.groups, &before.shares) != (&spec.groups, &spec.shares)) {
        if before.is_some() {
            c.prepare_cached("DELETE FROM context_audience WHERE tenant_id = ?1 AND context_id = ?2")?.execute(ids)?;
        }
        let mut insert =
            c.prepare_cached("INSERT INTO context_audience (tenant_id, context_id, audience) VALUES (?1, ?2, ?3)")?;
        for audience in spec.groups.iter().map(of_group).chain(spec.shares.keys().map(of_agent)) {
            insert.execute((ids.0, ids.1, audience))?;
        }
    }
    Ok(())
}

/// Takes a context out of the tables that are searched.
fn unindex(c: &Connection, tenant: &TenantId, id: &ContextId) -> Result<()> {
    let ids = (tenant.as_str(), id.as_bytes());
    c.prepare_cached("DELETE FROM context_labels WHERE tenant_id = ?1 AND context_id = ?2")?.execute(ids)?;
    c.prepare_cached("DELETE FROM context_audience WHERE tenant_id = ?1 AND context_id = ?2")?.execute(ids)?;
    Ok(())
}

/// Forgets revisions beyond the newest (META-28), but for the keys of those that have one (META-27).
fn trim_history(c: &Connection, tenant: &TenantId, id: &ContextId) -> Result<()> {
    const OLDEST: &str = "SELECT rev FROM context_revisions WHERE tenant_id = ?1 AND context_id = ?2 \
                          ORDER BY rev DESC LIMIT 1 OFFSET ?3";
    const KEYS: &str = "INSERT OR REPLACE INTO context_repeats (tenant_id, context_id, repeat_key, updated_by, \
         repeat_body, rev, state, spec, access_rev, expires_at, updated_at, size, sha256, is_blob) SELECT tenant_id, \
         context_id, repeat_key, updated_by, repeat_body, rev, state, spec, access_rev, expires_at, updated_at, size, \
         sha256, is_blob FROM context_revisions WHERE tenant_id = ?1 AND context_id = ?2 AND rev <= ?3 \
         AND repeat_key <> ''";
    let mut query = c.prepare_cached(OLDEST)?;
    let ids = (tenant.as_str(), id.as_bytes());
    let over = first(query.query((ids.0, ids.1, limits::CONTEXT_HISTORY))?, |row| number(row, "rev"))?;
    let Some(over) = over.map(put) else { return Ok(()) };
    c.prepare_cached(KEYS)?.execute((ids.0, ids.1, over))?;
    c.prepare_cached("DELETE FROM context_revisions WHERE tenant_id = ?1 AND context_id = ?2 AND rev <= ?3")?
        .execute((ids.0, ids.1, over))?;
    Ok(())
}

/// Forgets keys of revisions that are not kept, with the changes up to there.
pub(in super::super) fn forget_repeats(c: &Connection, tenant: &TenantId, up_to: u64) -> Result<()> {
    c.prepare_cached("DELETE FROM context_repeats WHERE tenant_id = ?1 AND rev <= ?2")?
        .execute((tenant.as_str(), put(up_to)))?;
    Ok(())
}

/// Refuses groups that are not there, unless the context names them already.
fn groups_exist(
    c: &Connection,
    tenant: &TenantId,
    groups: &BTreeSet<GroupName>,
    before: &BTreeSet<GroupName>,
) -> Result<()> {
    for name in groups.difference(before) {
        if !group::exists(c, tenant, name)? {
            return group::absent(name);
        }
    }
    Ok(())
}

fn count_live(c: &Connection, tenant: &TenantId, change: i64) -> Result<()> {
    c.prepare_cached("UPDATE tenants SET live_contexts = live_contexts + ?2 WHERE tenant_id = ?1")?
        .execute((tenant.as_str(), change))?;
    Ok(())
}

/// Completes the upload that a context comes of.
fn complete(
    c: &Connection,
    tenant: &TenantId,
    stream: Option<StreamId>,
    row: &ContextRow,
    now: Timestamp,
) -> Result<()> {
    match stream {
        None => Ok(()),
        Some(stream) => upload::complete(c, tenant, &stream, row.rev, now),
    }
}
