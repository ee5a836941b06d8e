//! Agents in SQLite.

use std::fmt::Write as _;

use acb_ports::metadata::{
    AgentCapability, AgentFilter, AgentRemoval, AgentRow, AgentSpec, AgentUpdate, Created, Inbox, NewSubscription,
    Registered, Registration, RemovedAgent,
};
use acb_types::{AgentId, CredentialId, ErrorCode, Incarnation, TenantId, batch::StartAt};
use rusqlite::{Connection, Row, named_params, params_from_iter, types::Value};
use serde::{Deserialize, Serialize};

use super::{
    convert::{collect, first, json, number, parse, put, time, to_json},
    error::{Failure, Result, refuse},
    subscription,
    tenant::{self, Subject},
};

const COLUMNS: &str = "a.agent_id, a.agent_type, a.name, a.description, a.version, a.location, a.capabilities, \
                       a.endpoint, a.agent_groups, a.metadata, a.credential, a.incarnation, a.registered_at, \
                       a.updated_at, a.revision";

/// A capability as it stands in JSON.
#[derive(Serialize, Deserialize)]
struct StoredCapability {
    name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    version: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    input_schema: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    output_schema: String,
}

impl From<&AgentCapability> for StoredCapability {
    fn from(c: &AgentCapability) -> Self {
        Self {
            name: c.name.as_str().to_owned(),
            version: c.version.as_ref().map(ToString::to_string).unwrap_or_default(),
            input_schema: c.input_schema.clone(),
            output_schema: c.output_schema.clone(),
        }
    }
}

impl TryFrom<StoredCapability> for AgentCapability {
    type Error = Failure;

    fn try_from(c: StoredCapability) -> Result<Self> {
        Ok(Self {
            name: c.name.parse()?,
            version: version(&c.version)?,
            input_schema: c.input_schema,
            output_schema: c.output_schema,
        })
    }
}

fn version(text: &str) -> Result<Option<semver::Version>> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|e| Failure::Damaged(format!("version: {e}")))
}

fn agent_row(row: &Row<'_>) -> Result<AgentRow> {
    let stored: Vec<StoredCapability> = json(row, "capabilities")?;
    Ok(AgentRow {
        spec: AgentSpec {
            id: parse(row, "agent_id")?,
            agent_type: row.get("agent_type")?,
            name: row.get("name")?,
            description: row.get("description")?,
            version: version(&row.get::<_, String>("version")?)?,
            location: row.get("location")?,
            capabilities: stored.into_iter().map(TryInto::try_into).collect::<Result<_>>()?,
            endpoint: row.get("endpoint")?,
            groups: json(row, "agent_groups")?,
            metadata: json(row, "metadata")?,
        },
        credential: parse(row, "credential")?,
        incarnation: Incarnation(number(row, "incarnation")?),
        registered_at: time(row, "registered_at")?,
        updated_at: time(row, "updated_at")?,
        revision: number(row, "revision")?,
    })
}

pub(super) fn get(c: &Connection, tenant: &TenantId, agent: &AgentId) -> Result<Option<AgentRow>> {
    let sql = format!("SELECT {COLUMNS} FROM agents a WHERE a.tenant_id = ?1 AND a.agent_id = ?2");
    first(c.prepare_cached(&sql)?.query([tenant.as_str(), agent.as_str()])?, agent_row)
}

/// What holds a kept inbox.
fn kept_by(c: &Connection, tenant: &TenantId, agent: &AgentId) -> Result<Option<CredentialId>> {
    let mut query = c.prepare_cached("SELECT credential FROM kept_inboxes WHERE tenant_id = ?1 AND agent_id = ?2")?;
    first(query.query([tenant.as_str(), agent.as_str()])?, |row| parse(row, "credential"))
}

fn drop_kept(c: &Connection, tenant: &TenantId, agent: &AgentId) -> Result<()> {
    c.prepare_cached("DELETE FROM kept_inboxes WHERE tenant_id = ?1 AND agent_id = ?2")?
        .execute([tenant.as_str(), agent.as_str()])?;
    Ok(())
}

/// Writes a row and what is searched of it.
fn save(c: &Connection, tenant: &TenantId, row: &AgentRow, before: Option<&AgentSpec>) -> Result<()> {
    const SQL: &str = "INSERT INTO agents (tenant_id, agent_id, agent_type, name, description, version, location, \
         capabilities, endpoint, agent_groups, metadata, search_text, credential, incarnation, registered_at, updated_at, \
         revision) VALUES (:tenant, :agent, :type, :name, :description, :version, :location, :capabilities, :endpoint, \
         :groups, :metadata, :search, :credential, :incarnation, :registered, :updated, :revision) \
         ON CONFLICT (tenant_id, agent_id) DO UPDATE SET agent_type = :type, name = :name, description = :description, \
         version = :version, location = :location, capabilities = :capabilities, endpoint = :endpoint, \
         agent_groups = :groups, metadata = :metadata, search_text = :search, credential = :credential, \
         incarnation = :incarnation, registered_at = :registered, updated_at = :updated, revision = :revision";
    let spec = &row.spec;
    let capabilities: Vec<StoredCapability> = spec.capabilities.iter().map(Into::into).collect();
    c.prepare_cached(SQL)?.execute(named_params! {
        ":tenant": tenant.as_str(),
        ":agent": spec.id.as_str(),
        ":type": spec.agent_type,
        ":name": spec.name,
        ":description": spec.description,
        ":version": spec.version.as_ref().map(ToString::to_string).unwrap_or_default(),
        ":location": spec.location,
        ":capabilities": to_json(&capabilities)?,
        ":endpoint": spec.endpoint,
        ":groups": to_json(&spec.groups)?,
        ":metadata": to_json(&spec.metadata)?,
        ":search": spec.search_text(),
        ":credential": row.credential.as_str(),
        ":incarnation": put(row.incarnation.0),
        ":registered": put(row.registered_at.0),
        ":updated": put(row.updated_at.0),
        ":revision": put(row.revision),
    })?;
    let ids = [tenant.as_str(), spec.id.as_str()];
    // A takeover by the same program says the same: then the search tables stay as they are.
    if before.is_none_or(|before| before.capabilities != spec.capabilities) {
        if before.is_some() {
            c.prepare_cached("DELETE FROM agent_capabilities WHERE tenant_id = ?1 AND agent_id = ?2")?.execute(ids)?;
        }
        let mut insert = c.prepare_cached("INSERT OR IGNORE INTO agent_capabilities VALUES (?1, ?2, ?3)")?;
        for capability in &spec.capabilities {
            insert.execute([tenant.as_str(), capability.name.as_str(), spec.id.as_str()])?;
        }
    }
    if before.is_none_or(|before| before.metadata != spec.metadata) {
        if before.is_some() {
            c.prepare_cached("DELETE FROM agent_metadata WHERE tenant_id = ?1 AND agent_id = ?2")?.execute(ids)?;
        }
        let mut insert = c.prepare_cached("INSERT INTO agent_metadata VALUES (?1, ?2, ?3, ?4)")?;
        for (key, value) in &spec.metadata {
            insert.execute([tenant.as_str(), key, value, spec.id.as_str()])?;
        }
    }
    Ok(())
}

pub(super) fn register(c: &Connection, tenant: &TenantId, registration: Registration) -> Result<Registered> {
    let Registration { spec, credential, implicit, now } = registration;
    let id = spec.id.clone();
    let floor = tenant::one(c, tenant, "SELECT incarnation_floor FROM tenants WHERE tenant_id = ?1")?;
    let before = get(c, tenant, &id)?;
    let kept = if before.is_some() { None } else { kept_by(c, tenant, &id)? };
    let holder = before.as_ref().map(|row| &row.credential).or(kept.as_ref());
    if holder.is_some_and(|holder| *holder != credential) {
        return refuse(ErrorCode::AgentExists, format!("agent {id} is held by another credential"));
    }
    if kept.is_some() {
        drop_kept(c, tenant, &id)?;
    }
    let (last, registered_at) = before.as_ref().map_or((floor, now), |row| (row.incarnation.0, row.registered_at));
    let agent = AgentRow {
        spec,
        credential,
        incarnation: Incarnation(last + 1),
        registered_at,
        updated_at: now,
        revision: tenant::raise(c, tenant, Subject::Agent(&id))?,
    };
    save(c, tenant, &agent, before.as_ref().map(|row| &row.spec))?;
    let mut made = Vec::with_capacity(implicit.len());
    for spec in implicit {
        made.push(if let Some(row) = subscription::get(c, tenant, &spec.name)? {
            Created { row, existed: true }
        } else {
            let new = NewSubscription { spec, start: StartAt::New, created_by: id.clone(), now };
            Created { row: subscription::add(c, tenant, new)?, existed: false }
        });
    }
    Ok(Registered { agent, existed: before.is_some(), implicit: made })
}

fn check_holder(agent: &AgentId, wanted: Option<&CredentialId>, holder: Option<&CredentialId>) -> Result<()> {
    match (wanted, holder) {
        (Some(wanted), Some(holder)) if wanted != holder => {
            refuse(ErrorCode::PermissionDenied, format!("agent {agent} is held by another credential"))
        }
        _ => Ok(()),
    }
}

pub(super) fn update(c: &Connection, tenant: &TenantId, agent: &AgentId, update: &AgentUpdate) -> Result<AgentRow> {
    tenant::must_exist(c, tenant)?;
    let Some(before) = get(c, tenant, agent)? else {
        return refuse(ErrorCode::AgentNotFound, format!("no agent {agent}"));
    };
    check_holder(agent, update.held_by.as_ref(), Some(&before.credential))?;
    let spec = update.applied_to(&before.spec);
    if spec == before.spec {
        return Ok(before);
    }
    let revision = tenant::raise(c, tenant, Subject::Agent(agent))?;
    let row = AgentRow { spec, updated_at: update.now, revision, ..before.clone() };
    save(c, tenant, &row, Some(&before.spec))?;
    Ok(row)
}

pub(super) fn remove(
    c: &Connection,
    tenant: &TenantId,
    agent: &AgentId,
    removal: &AgentRemoval,
) -> Result<RemovedAgent> {
    tenant::must_exist(c, tenant)?;
    let row = get(c, tenant, agent)?;
    let kept = kept_by(c, tenant, agent)?;
    let holder = row.as_ref().map(|row| &row.credential).or(kept.as_ref());
    check_holder(agent, removal.held_by.as_ref(), holder)?;
    let mut removed = RemovedAgent::default();
    if let Some(row) = row {
        c.prepare_cached("DELETE FROM agents WHERE tenant_id = ?1 AND agent_id = ?2")?
            .execute([tenant.as_str(), agent.as_str()])?;
        c.prepare_cached("UPDATE tenants SET incarnation_floor = max(incarnation_floor, ?2) WHERE tenant_id = ?1")?
            .execute((tenant.as_str(), put(row.incarnation.0)))?;
        removed.revision = Some(tenant::raise(c, tenant, Subject::Agent(agent))?);
        if removal.inbox == Inbox::Keep {
            c.prepare_cached("INSERT INTO kept_inboxes (tenant_id, agent_id, credential) VALUES (?1, ?2, ?3)")?
                .execute([tenant.as_str(), agent.as_str(), row.credential.as_str()])?;
        }
        removed.agent = Some(row);
    }
    if removal.inbox == Inbox::Drop {
        drop_kept(c, tenant, agent)?;
        removed.subscriptions = subscription::end_implicit(c, tenant, agent)?;
    }
    Ok(removed)
}

/// A query that grows by conditions, with its values.
struct Query {
    sql: String,
    values: Vec<Value>,
}

impl Query {
    /// Remembers a value and gives its place.
    fn value(&mut self, text: &str) -> usize {
        self.values.push(Value::Text(text.to_owned()));
        self.values.len()
    }

    fn condition(&mut self, before: &str, text: &str, after: &str) {
        let n = self.value(text);
        // Writing to a text cannot fail.
        let _ = write!(self.sql, " AND {before}?{n}{after}");
    }
}

/// Lists by id. What narrows most is asked first: a capability's own index is in order of ids, so a rare one costs its
/// own agents and not the tenant's.
pub(super) fn list(
    c: &Connection,
    tenant: &TenantId,
    filter: &AgentFilter,
    after: Option<&AgentId>,
    limit: u32,
) -> Result<Vec<AgentRow>> {
    const HAS: &str = "EXISTS (SELECT 1 FROM agent_capabilities c WHERE c.tenant_id = ?1 AND c.agent_id = a.agent_id \
                       AND c.capability ";
    let (lead, others) = match filter.capabilities_all.split_first() {
        Some((lead, others)) => (Some(lead), others),
        None => (None, &[][..]),
    };
    let mut query = Query { sql: format!("SELECT {COLUMNS} FROM "), values: vec![] };
    query.value(tenant.as_str());
    query.value(after.map_or("", AgentId::as_str));
    if let Some(lead) = lead {
        query.sql.push_str(
            "agent_capabilities l CROSS JOIN agents a ON a.tenant_id = l.tenant_id AND a.agent_id = l.agent_id \
             WHERE l.tenant_id = ?1 AND l.agent_id > ?2",
        );
        query.condition("l.capability = ", lead.as_str(), "");
    } else {
        query.sql.push_str("agents a WHERE a.tenant_id = ?1 AND a.agent_id > ?2");
    }
    for capability in others {
        query.condition(&format!("{HAS}= "), capability.as_str(), ")");
    }
    if !filter.capabilities_any.is_empty() {
        let places: Vec<_> =
            filter.capabilities_any.iter().map(|name| format!("?{}", query.value(name.as_str()))).collect();
        let _ = write!(query.sql, " AND {HAS}IN ({}))", places.join(", "));
    }
    if let Some(agent_type) = &filter.agent_type {
        query.condition("a.agent_type = ", agent_type, "");
    }
    if let Some(location) = &filter.location {
        query.condition("a.location = ", location, "");
    }
    for (key, value) in &filter.metadata {
        let k = query.value(key);
        let before = format!(
            "EXISTS (SELECT 1 FROM agent_metadata m WHERE m.tenant_id = ?1 AND m.agent_id = a.agent_id \
             AND m.key = ?{k} AND m.value = "
        );
        query.condition(&before, value, ")");
    }
    if let Some(text) = &filter.text {
        query.condition("instr(a.search_text, ", &text.to_lowercase(), ") > 0");
    }
    let order = if lead.is_some() { "l.agent_id" } else { "a.agent_id" };
    let _ = write!(query.sql, " ORDER BY {order} LIMIT {limit}");
    collect(c.prepare_cached(&query.sql)?.query(params_from_iter(query.values))?, agent_row)
}
