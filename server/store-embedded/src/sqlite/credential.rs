//! Credentials in SQLite.

use acb_ports::metadata::{
    AgentSecretRow, EnrolmentKeyRow, FAMILY_HASHES_MAX, NewAgentSecret, NewFamily, Rotation, RotationRequest,
    SecretBytes, SecretSet, SigningKeyRow, TokenFamilyRow, credential_of_key, credential_of_secret,
};
use acb_types::{AgentId, CredentialId, ErrorCode, TenantId, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row};

use super::{
    convert::{collect, digest, first, json, number, parse, put, time, to_json},
    error::{Failure, Result, refuse},
    tenant,
};

fn key_row(row: &Row<'_>) -> Result<EnrolmentKeyRow> {
    Ok(EnrolmentKeyRow {
        key_id: row.get("key_id")?,
        hash: digest(row, "hash")?,
        label: row.get("label")?,
        agent_pattern: row.get("agent_pattern")?,
        roles: json(row, "roles")?,
        created_at: time(row, "created_at")?,
        expires_at: time(row, "expires_at")?,
        revoked_at: time(row, "revoked_at")?,
    })
}

pub(super) fn key_create(c: &Connection, tenant: &TenantId, key: &EnrolmentKeyRow) -> Result<()> {
    const SQL: &str = "INSERT INTO enrolment_keys (tenant_id, key_id, hash, label, agent_pattern, roles, created_at, \
         expires_at, revoked_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING";
    tenant::must_exist(c, tenant)?;
    let made = c.prepare_cached(SQL)?.execute((
        tenant.as_str(),
        &key.key_id,
        key.hash,
        &key.label,
        &key.agent_pattern,
        to_json(&key.roles)?,
        put(key.created_at.0),
        put(key.expires_at.0),
        put(key.revoked_at.0),
    ))?;
    if made == 0 {
        return refuse(ErrorCode::InvalidState, format!("enrolment key {} is there already", key.key_id));
    }
    Ok(())
}

pub(super) fn key_get(c: &Connection, tenant: &TenantId, key_id: &str) -> Result<Option<EnrolmentKeyRow>> {
    let mut query = c.prepare_cached("SELECT * FROM enrolment_keys WHERE tenant_id = ?1 AND key_id = ?2")?;
    first(query.query([tenant.as_str(), key_id])?, key_row)
}

pub(super) fn key_list(
    c: &Connection,
    tenant: &TenantId,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<EnrolmentKeyRow>> {
    let mut query = c.prepare_cached(
        "SELECT * FROM enrolment_keys WHERE tenant_id = ?1 AND (?2 IS NULL OR key_id > ?2) ORDER BY key_id LIMIT ?3",
    )?;
    collect(query.query((tenant.as_str(), after, limit))?, key_row)
}

pub(super) fn key_revoke(c: &Connection, tenant: &TenantId, key_id: &str, now: Timestamp) -> Result<Vec<String>> {
    tenant::must_exist(c, tenant)?;
    if key_get(c, tenant, key_id)?.is_none() {
        return Ok(Vec::new());
    }
    c.prepare_cached(
        "UPDATE enrolment_keys SET revoked_at = ?3 WHERE tenant_id = ?1 AND key_id = ?2 AND revoked_at = 0",
    )?
    .execute((tenant.as_str(), key_id, put(now.0)))?;
    let credential = credential_of_key(key_id).map_err(|e| bad_credential(&e))?;
    revoke_credential(c, tenant, &credential, now)
}

fn bad_credential(e: &acb_types::InvalidName) -> Failure {
    Failure::Refused(ErrorCode::InvalidArgument, e.to_string())
}

pub(super) fn secret_set(
    c: &Connection,
    tenant: &TenantId,
    agent: &AgentId,
    secret: &NewAgentSecret,
) -> Result<SecretSet> {
    const SQL: &str = "INSERT INTO agent_secrets (tenant_id, agent_id, hash, roles, version, set_at) \
         VALUES (?1, ?2, ?3, ?4, 1, ?5) ON CONFLICT (tenant_id, agent_id) DO UPDATE SET hash = ?3, roles = ?4, \
         version = version + 1, set_at = ?5 RETURNING version";
    tenant::must_exist(c, tenant)?;
    let values = (tenant.as_str(), agent.as_str(), &secret.hash, to_json(&secret.roles)?, put(secret.now.0));
    let version: i64 = c.prepare_cached(SQL)?.query_row(values, |row| row.get(0))?;
    let credential = credential_of_secret(agent).map_err(|e| bad_credential(&e))?;
    let revoked_families = revoke_credential(c, tenant, &credential, secret.now)?;
    Ok(SecretSet { version: version as u64, revoked_families })
}

pub(super) fn secret_get(c: &Connection, tenant: &TenantId, agent: &AgentId) -> Result<Option<AgentSecretRow>> {
    let mut query = c.prepare_cached("SELECT * FROM agent_secrets WHERE tenant_id = ?1 AND agent_id = ?2")?;
    first(query.query([tenant.as_str(), agent.as_str()])?, |row| {
        Ok(AgentSecretRow {
            agent: parse(row, "agent_id")?,
            hash: row.get("hash")?,
            roles: json(row, "roles")?,
            version: number(row, "version")?,
            set_at: time(row, "set_at")?,
        })
    })
}

pub(super) fn signing_rotate(c: &Connection, key: &SigningKeyRow) -> Result<()> {
    const INSERT: &str = "INSERT INTO signing_keys (key_id, private_key, created_at, retired_at) VALUES (?1, ?2, ?3, 0) \
         ON CONFLICT DO NOTHING";
    let made = c.prepare_cached(INSERT)?.execute((&key.key_id, &key.private.0, put(key.created_at.0)))?;
    if made == 0 {
        return refuse(ErrorCode::InvalidState, format!("signing key {} is there already", key.key_id));
    }
    c.prepare_cached("UPDATE signing_keys SET retired_at = ?2 WHERE retired_at = 0 AND key_id <> ?1")?
        .execute((&key.key_id, put(key.created_at.0)))?;
    Ok(())
}

pub(super) fn signing_list(c: &Connection) -> Result<Vec<SigningKeyRow>> {
    let mut query = c.prepare_cached(
        "SELECT key_id, private_key, created_at, retired_at FROM signing_keys \
         ORDER BY retired_at > 0, created_at DESC, key_id DESC",
    )?;
    collect(query.query(())?, |row| {
        Ok(SigningKeyRow {
            key_id: row.get("key_id")?,
            private: SecretBytes(row.get("private_key")?),
            created_at: time(row, "created_at")?,
            retired_at: time(row, "retired_at")?,
        })
    })
}

pub(super) fn signing_forget(c: &Connection, retired_before: Timestamp) -> Result<u64> {
    let mut delete = c.prepare_cached("DELETE FROM signing_keys WHERE retired_at > 0 AND retired_at < ?1")?;
    Ok(delete.execute([put(retired_before.0)])? as u64)
}

const FAMILY: &str = "family_id, agent_id, credential, roles, generation, created_at, expires_at, revoked_at";

fn family_row(row: &Row<'_>) -> Result<TokenFamilyRow> {
    Ok(TokenFamilyRow {
        family_id: row.get("family_id")?,
        agent: parse(row, "agent_id")?,
        credential: parse(row, "credential")?,
        roles: json(row, "roles")?,
        generation: number(row, "generation")?,
        created_at: time(row, "created_at")?,
        expires_at: time(row, "expires_at")?,
        revoked_at: time(row, "revoked_at")?,
    })
}

pub(super) fn family_create(c: &Connection, tenant: &TenantId, new: &NewFamily) -> Result<()> {
    const SQL: &str = "INSERT INTO token_families (tenant_id, family_id, agent_id, credential, roles, generation, \
         refresh_hash, created_at, expires_at, revoked_at) VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6, ?7, ?8, 0) \
         ON CONFLICT DO NOTHING";
    tenant::must_exist(c, tenant)?;
    let made = c.prepare_cached(SQL)?.execute((
        tenant.as_str(),
        &new.family_id,
        new.agent.as_str(),
        new.credential.as_str(),
        to_json(&new.roles)?,
        new.refresh_hash,
        put(new.now.0),
        put(new.expires_at.0),
    ))?;
    if made == 0 {
        return refuse(ErrorCode::InvalidState, format!("token family {} is there already", new.family_id));
    }
    Ok(())
}

pub(super) fn family_get(c: &Connection, tenant: &TenantId, family_id: &str) -> Result<Option<TokenFamilyRow>> {
    let sql = format!("SELECT {FAMILY} FROM token_families WHERE tenant_id = ?1 AND family_id = ?2");
    first(c.prepare_cached(&sql)?.query([tenant.as_str(), family_id])?, family_row)
}

pub(super) fn family_rotate(
    c: &Connection,
    tenant: &TenantId,
    family_id: &str,
    request: &RotationRequest,
) -> Result<Rotation> {
    tenant::must_exist(c, tenant)?;
    let sql = format!("SELECT {FAMILY}, refresh_hash FROM token_families WHERE tenant_id = ?1 AND family_id = ?2");
    let found = first(c.prepare_cached(&sql)?.query([tenant.as_str(), family_id])?, |row| {
        Ok((family_row(row)?, digest(row, "refresh_hash")?))
    })?;
    let Some((mut family, current)) = found else { return Ok(Rotation::Absent) };
    let is_current = current == request.presented;
    if !is_current && !was_used(c, tenant, family_id, request)? {
        return Ok(Rotation::Absent);
    }
    if family.revoked_at.is_set() {
        return Ok(Rotation::Revoked);
    }
    if !is_current {
        family_revoke(c, tenant, family_id, request.now)?;
        family.revoked_at = request.now;
        return Ok(Rotation::Reused(family));
    }
    if family.expires_at <= request.now {
        return Ok(Rotation::Expired);
    }
    c.prepare_cached(
        "INSERT INTO token_family_hashes (tenant_id, family_id, generation, hash) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute((tenant.as_str(), family_id, put(family.generation), current))?;
    family.generation += 1;
    family.expires_at = request.expires_at;
    let oldest = family.generation.saturating_sub(FAMILY_HASHES_MAX as u64);
    c.prepare_cached("DELETE FROM token_family_hashes WHERE tenant_id = ?1 AND family_id = ?2 AND generation < ?3")?
        .execute((tenant.as_str(), family_id, put(oldest)))?;
    c.prepare_cached(
        "UPDATE token_families SET generation = ?3, refresh_hash = ?4, expires_at = ?5 \
         WHERE tenant_id = ?1 AND family_id = ?2",
    )?
    .execute((tenant.as_str(), family_id, put(family.generation), request.next, put(family.expires_at.0)))?;
    Ok(Rotation::Rotated(family))
}

fn was_used(c: &Connection, tenant: &TenantId, family_id: &str, request: &RotationRequest) -> Result<bool> {
    let mut query =
        c.prepare_cached("SELECT 1 FROM token_family_hashes WHERE tenant_id = ?1 AND family_id = ?2 AND hash = ?3")?;
    let found = query.query_row((tenant.as_str(), family_id, request.presented), |_| Ok(())).optional()?;
    Ok(found.is_some())
}

pub(super) fn family_revoke(c: &Connection, tenant: &TenantId, family_id: &str, now: Timestamp) -> Result<bool> {
    tenant::must_exist(c, tenant)?;
    let changed = c
        .prepare_cached(
            "UPDATE token_families SET revoked_at = ?3 WHERE tenant_id = ?1 AND family_id = ?2 AND revoked_at = 0",
        )?
        .execute((tenant.as_str(), family_id, put(now.0)))?;
    Ok(changed > 0)
}

pub(super) fn revoke_credential(
    c: &Connection,
    tenant: &TenantId,
    credential: &CredentialId,
    now: Timestamp,
) -> Result<Vec<String>> {
    tenant::must_exist(c, tenant)?;
    let mut update = c.prepare_cached(
        "UPDATE token_families SET revoked_at = ?3 WHERE tenant_id = ?1 AND credential = ?2 AND revoked_at = 0 \
         RETURNING family_id",
    )?;
    let rows = update.query((tenant.as_str(), credential.as_str(), put(now.0)))?;
    let mut revoked = collect(rows, |row| Ok(row.get::<_, String>(0)?))?;
    revoked.sort();
    Ok(revoked)
}

pub(super) fn list_revoked(
    c: &Connection,
    tenant: &TenantId,
    now: Timestamp,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<String>> {
    let mut query = c.prepare_cached(
        "SELECT family_id FROM token_families WHERE tenant_id = ?1 AND revoked_at > 0 AND expires_at > ?2 \
         AND (?3 IS NULL OR family_id > ?3) ORDER BY family_id LIMIT ?4",
    )?;
    collect(query.query((tenant.as_str(), put(now.0), after, limit))?, |row| Ok(row.get(0)?))
}

pub(super) fn family_forget(c: &Connection, tenant: &TenantId, over_before: Timestamp) -> Result<u64> {
    tenant::must_exist(c, tenant)?;
    let mut delete = c.prepare_cached("DELETE FROM token_families WHERE tenant_id = ?1 AND expires_at < ?2")?;
    Ok(delete.execute((tenant.as_str(), put(over_before.0)))? as u64)
}
