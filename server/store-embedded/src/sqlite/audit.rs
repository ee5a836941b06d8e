//! The audit log in SQLite.

use acb_ports::metadata::{AuditEntry, AuditRow};
use acb_types::TenantId;
use rusqlite::{Connection, Row};

use super::{
    convert::{collect, digest, first, number, put, time},
    error::Result,
    tenant,
};

fn audit_row(row: &Row<'_>) -> Result<AuditRow> {
    Ok(AuditRow {
        id: number(row, "audit_id")?,
        entry: AuditEntry {
            at: time(row, "at")?,
            node: row.get("node")?,
            actor: row.get("actor")?,
            action: row.get("action")?,
            target: row.get("target")?,
            outcome: row.get("outcome")?,
            details: row.get("details")?,
            request_id: row.get("request_id")?,
        },
        previous: digest(row, "previous")?,
        digest: digest(row, "digest")?,
    })
}

pub(super) fn append(c: &Connection, tenant: &TenantId, entry: AuditEntry) -> Result<AuditRow> {
    const INSERT: &str = "INSERT INTO audit (tenant_id, audit_id, at, node, actor, action, target, outcome, details, \
         request_id, previous, digest) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
    tenant::must_exist(c, tenant)?;
    let mut last =
        c.prepare_cached("SELECT audit_id, digest FROM audit WHERE tenant_id = ?1 ORDER BY audit_id DESC LIMIT 1")?;
    let last = first(last.query([tenant.as_str()])?, |row| Ok((number(row, "audit_id")?, digest(row, "digest")?)))?;
    let row = AuditRow::chained(last, entry);
    let e = &row.entry;
    c.prepare_cached(INSERT)?.execute((
        tenant.as_str(),
        put(row.id),
        put(e.at.0),
        &e.node,
        &e.actor,
        &e.action,
        &e.target,
        &e.outcome,
        &e.details,
        &e.request_id,
        row.previous,
        row.digest,
    ))?;
    Ok(row)
}

pub(super) fn list(c: &Connection, tenant: &TenantId, after: Option<u64>, limit: u32) -> Result<Vec<AuditRow>> {
    let mut query =
        c.prepare_cached("SELECT * FROM audit WHERE tenant_id = ?1 AND audit_id > ?2 ORDER BY audit_id LIMIT ?3")?;
    collect(query.query((tenant.as_str(), put(after.unwrap_or(0)), limit))?, audit_row)
}
