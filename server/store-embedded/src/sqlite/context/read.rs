//! One context at a time.

use acb_ports::metadata::{ContextRow, Payloads, RepeatKey};
use acb_types::{ContextId, ContextKey, ErrorCode, Sha256Digest, TenantId, Timestamp};
use rusqlite::Connection;

use super::{
    super::{
        convert::{collect, digest, first, number, put, time},
        error::{Result, refuse},
    },
    row::{columns, context_id, context_row},
};

const OF_ONE: &str = "FROM contexts c JOIN context_revisions r ON r.tenant_id = c.tenant_id AND \
                      r.context_id = c.context_id WHERE c.tenant_id = ?1 AND c.context_id = ?2";

pub(in super::super) fn get(
    c: &Connection,
    tenant: &TenantId,
    id: &ContextId,
    payloads: Payloads,
) -> Result<Option<ContextRow>> {
    let sql = format!("SELECT {} {OF_ONE} AND r.rev = c.rev", columns(payloads));
    let mut query = c.prepare_cached(&sql)?;
    first(query.query((tenant.as_str(), id.as_bytes()))?, |row| context_row(row, payloads))
}

/// The newest revision up to `rev`.
fn newest_up_to(
    c: &Connection,
    tenant: &TenantId,
    id: &ContextId,
    rev: u64,
    payloads: Payloads,
) -> Result<Option<ContextRow>> {
    let sql = format!("SELECT {} {OF_ONE} AND r.rev <= ?3 ORDER BY r.rev DESC LIMIT 1", columns(payloads));
    let mut query = c.prepare_cached(&sql)?;
    first(query.query((tenant.as_str(), id.as_bytes(), put(rev)))?, |row| context_row(row, payloads))
}

/// The revision before `rev`, if it is kept: the oldest go first, so no other can stand in its place.
pub(in super::super) fn revision_before(
    c: &Connection,
    tenant: &TenantId,
    id: &ContextId,
    rev: u64,
) -> Result<Option<ContextRow>> {
    newest_up_to(c, tenant, id, rev.saturating_sub(1), Payloads::LeaveOut)
}

/// A revision itself, with its payload.
pub(in super::super) fn revision_at(
    c: &Connection,
    tenant: &TenantId,
    id: &ContextId,
    rev: u64,
) -> Result<Option<ContextRow>> {
    Ok(newest_up_to(c, tenant, id, rev, Payloads::Read)?.filter(|row| row.rev == rev))
}

pub(in super::super) fn get_at(
    c: &Connection,
    tenant: &TenantId,
    id: &ContextId,
    rev: u64,
) -> Result<Option<ContextRow>> {
    if let Some(row) = newest_up_to(c, tenant, id, rev, Payloads::Read)? {
        return Ok(Some(row));
    }
    // Kept revisions go away for one reason only, so the head is of the same snapshot or of a later one: both tell the
    // revision that made it.
    let mut query = c.prepare_cached("SELECT created_rev FROM contexts WHERE tenant_id = ?1 AND context_id = ?2")?;
    let made = first(query.query((tenant.as_str(), id.as_bytes()))?, |row| number(row, "created_rev"))?;
    match made {
        Some(made) if made <= rev => gap(id, rev),
        _ => Ok(None),
    }
}

/// The refusal of what was then and is not kept.
pub(super) fn gap<T>(id: &ContextId, rev: u64) -> Result<T> {
    refuse(ErrorCode::RevisionGap, format!("what context {id} was at revision {rev} is no longer kept"))
}

pub(in super::super) fn find(
    c: &Connection,
    tenant: &TenantId,
    key: &ContextKey,
    at: Option<u64>,
) -> Result<Option<ContextId>> {
    let id = |row: &rusqlite::Row<'_>| context_id(row, "context_id");
    match at {
        None => {
            const SQL: &str = "SELECT context_id FROM contexts WHERE tenant_id = ?1 AND context_key = ?2 AND state = 0 \
                               AND context_key <> ''";
            first(c.prepare_cached(SQL)?.query([tenant.as_str(), key.as_str()])?, id)
        }
        Some(at) => {
            const SQL: &str = "SELECT context_id FROM contexts WHERE tenant_id = ?1 AND context_key = ?2 \
                               AND context_key <> '' AND created_rev <= ?3 AND (state = 0 OR rev > ?3) \
                               ORDER BY created_rev DESC LIMIT 1";
            first(c.prepare_cached(SQL)?.query((tenant.as_str(), key.as_str(), put(at)))?, id)
        }
    }
}

pub(in super::super) fn history(
    c: &Connection,
    tenant: &TenantId,
    id: &ContextId,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<ContextRow>> {
    let payloads = Payloads::LeaveOut;
    let sql = format!("SELECT {} {OF_ONE} AND r.rev < ?3 ORDER BY r.rev DESC LIMIT ?4", columns(payloads));
    let before = before.map_or(i64::MAX, put);
    let mut query = c.prepare_cached(&sql)?;
    collect(query.query((tenant.as_str(), id.as_bytes(), before, limit))?, |row| context_row(row, payloads))
}

/// The revision that a key belongs to, with the digest of what it asked for: one that is kept, or what is left of one.
pub(super) fn repeated(
    c: &Connection,
    tenant: &TenantId,
    id: &ContextId,
    by: &str,
    key: &RepeatKey,
) -> Result<Option<(ContextRow, Sha256Digest)>> {
    let payloads = Payloads::LeaveOut;
    for table in ["context_revisions", "context_repeats"] {
        let sql = format!(
            "SELECT {}, r.repeat_body FROM contexts c JOIN {table} r ON r.tenant_id = c.tenant_id AND \
             r.context_id = c.context_id WHERE c.tenant_id = ?1 AND c.context_id = ?2 AND r.repeat_key = ?3 \
             AND r.repeat_key <> '' AND r.updated_by = ?4 ORDER BY r.rev DESC LIMIT 1",
            columns(payloads)
        );
        let mut query = c.prepare_cached(&sql)?;
        let found = first(query.query((tenant.as_str(), id.as_bytes(), &key.key, by))?, |row| {
            Ok((context_row(row, payloads)?, Sha256Digest(digest(row, "repeat_body")?)))
        })?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

pub(in super::super) fn next_expiry(c: &Connection, tenant: &TenantId) -> Result<Option<Timestamp>> {
    const SQL: &str = "SELECT expires_at FROM contexts WHERE tenant_id = ?1 AND state = 0 AND expires_at > 0 \
                       ORDER BY expires_at LIMIT 1";
    first(c.prepare_cached(SQL)?.query([tenant.as_str()])?, |row| time(row, "expires_at"))
}

pub(in super::super) fn blobs_named(
    c: &Connection,
    tenant: &TenantId,
    after: Option<&Sha256Digest>,
    limit: u32,
) -> Result<Vec<Sha256Digest>> {
    const SQL: &str = "SELECT DISTINCT sha256 FROM context_revisions WHERE tenant_id = ?1 AND is_blob = 1 \
                       AND sha256 > ?2 ORDER BY sha256 LIMIT ?3";
    let after: &[u8] = after.map_or(&[], |digest| digest.as_bytes());
    collect(c.prepare_cached(SQL)?.query((tenant.as_str(), after, limit))?, |row| {
        Ok(Sha256Digest(digest(row, "sha256")?))
    })
}
