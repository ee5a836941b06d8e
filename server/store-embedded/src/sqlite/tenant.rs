//! Tenants and settings in SQLite.

use acb_ports::metadata::TenantRow;
use acb_types::{AgentId, ContextId, ErrorCode, GroupName, TenantId, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row};

use super::{
    change,
    convert::{collect, first, parse, put, time},
    error::{Failure, Result, refuse},
};

fn tenant_row(row: &Row<'_>) -> Result<TenantRow> {
    Ok(TenantRow { id: parse(row, "tenant_id")?, name: row.get("name")?, created_at: time(row, "created_at")? })
}

pub(super) fn create(c: &Connection, tenant: &TenantId, name: &str, now: Timestamp) -> Result<TenantRow> {
    let made = c
        .prepare_cached("INSERT INTO tenants (tenant_id, name, created_at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")?
        .execute((tenant.as_str(), name, put(now.0)))?;
    if made == 0 {
        return refuse(ErrorCode::TenantExists, format!("tenant {tenant} is there already"));
    }
    Ok(TenantRow { id: tenant.clone(), name: name.to_owned(), created_at: now })
}

pub(super) fn get(c: &Connection, tenant: &TenantId) -> Result<Option<TenantRow>> {
    let mut query = c.prepare_cached("SELECT tenant_id, name, created_at FROM tenants WHERE tenant_id = ?1")?;
    first(query.query([tenant.as_str()])?, tenant_row)
}

pub(super) fn list(c: &Connection, after: Option<&TenantId>, limit: u32) -> Result<Vec<TenantRow>> {
    let mut query = c.prepare_cached(
        "SELECT tenant_id, name, created_at FROM tenants WHERE tenant_id > ?1 ORDER BY tenant_id LIMIT ?2",
    )?;
    // No id is empty, so all come after the empty one.
    collect(query.query((after.map_or("", TenantId::as_str), limit))?, tenant_row)
}

pub(super) fn revision(c: &Connection, tenant: &TenantId) -> Result<u64> {
    one(c, tenant, "SELECT revision FROM tenants WHERE tenant_id = ?1")
}

/// What a revision is a change of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Subject<'a> {
    Agent(&'a AgentId),
    Context(&'a ContextId),
    Group(&'a GroupName),
}

/// Raises the revision (META-4, META-25) and writes down of what (META-32), within the caller's transaction.
pub(super) fn raise(c: &Connection, tenant: &TenantId, subject: Subject<'_>) -> Result<u64> {
    let revision =
        one(c, tenant, "UPDATE tenants SET revision = revision + 1 WHERE tenant_id = ?1 RETURNING revision")?;
    change::note(c, tenant, revision, subject)?;
    Ok(revision)
}

/// Refuses unless the tenant is there (META-22).
pub(super) fn must_exist(c: &Connection, tenant: &TenantId) -> Result<()> {
    one(c, tenant, "SELECT 1 FROM tenants WHERE tenant_id = ?1").map(|_| ())
}

/// One number of a tenant's row.
pub(super) fn one(c: &Connection, tenant: &TenantId, sql: &str) -> Result<u64> {
    let number: Option<i64> = c.prepare_cached(sql)?.query_row([tenant.as_str()], |row| row.get(0)).optional()?;
    number.map(|n| n as u64).ok_or_else(|| Failure::Refused(ErrorCode::TenantNotFound, format!("no tenant {tenant}")))
}

pub(super) fn setting_get(c: &Connection, key: &str) -> Result<Option<String>> {
    let mut query = c.prepare_cached("SELECT value FROM settings WHERE key = ?1")?;
    Ok(query.query_row([key], |row| row.get(0)).optional()?)
}

pub(super) fn setting_put(c: &Connection, key: &str, value: &str) -> Result<()> {
    const SQL: &str = "INSERT INTO settings (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2";
    c.prepare_cached(SQL)?.execute((key, value))?;
    Ok(())
}

pub(super) fn setting_put_if_absent(c: &Connection, key: &str, value: &str) -> Result<String> {
    const SQL: &str = "INSERT INTO settings (key, value) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    c.prepare_cached(SQL)?.execute((key, value))?;
    Ok(setting_get(c, key)?.unwrap_or_default())
}
