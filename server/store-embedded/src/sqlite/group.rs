//! Groups and memberships in SQLite.

use std::collections::{BTreeMap, BTreeSet};

use acb_ports::metadata::{Created, GroupMember, GroupRow, MemberMove, MemberWay, Memberships, NewGroup};
use acb_types::{AgentId, ErrorCode, GroupName, TenantId, Timestamp, limits};
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::{
    convert::{collect, first, number, parse, put, time},
    error::{Result, refuse},
    tenant::{self, Subject},
};

const COLUMNS: &str = "name, description, members, created_at, created_by, revision";

fn group_row(row: &Row<'_>) -> Result<GroupRow> {
    Ok(GroupRow {
        name: parse(row, "name")?,
        description: row.get("description")?,
        members: row.get("members")?,
        created_at: time(row, "created_at")?,
        created_by: parse(row, "created_by")?,
        revision: number(row, "revision")?,
    })
}

fn get(c: &Connection, tenant: &TenantId, name: &GroupName) -> Result<Option<GroupRow>> {
    let sql = format!("SELECT {COLUMNS} FROM member_groups WHERE tenant_id = ?1 AND name = ?2");
    first(c.prepare_cached(&sql)?.query([tenant.as_str(), name.as_str()])?, group_row)
}

/// Whether a group is there.
pub(super) fn exists(c: &Connection, tenant: &TenantId, name: &GroupName) -> Result<bool> {
    let mut query = c.prepare_cached("SELECT 1 FROM member_groups WHERE tenant_id = ?1 AND name = ?2")?;
    Ok(query.query_row([tenant.as_str(), name.as_str()], |_| Ok(())).optional()?.is_some())
}

/// The refusal of a group that is not there.
pub(super) fn absent<T>(name: &GroupName) -> Result<T> {
    refuse(ErrorCode::GroupNotFound, format!("no group {name}"))
}

pub(super) fn create(c: &Connection, tenant: &TenantId, new: NewGroup) -> Result<Created<GroupRow>> {
    let count = tenant::one(c, tenant, "SELECT group_count FROM tenants WHERE tenant_id = ?1")?;
    if let Some(row) = get(c, tenant, &new.name)? {
        if row.description == new.description {
            return Ok(Created { row, existed: true });
        }
        return refuse(ErrorCode::GroupExists, format!("group {} is there with another description", new.name));
    }
    if count >= limits::TENANT_GROUPS_MAX {
        return refuse(ErrorCode::GroupLimit, format!("the tenant has {count} groups, which is the limit"));
    }
    let revision = tenant::raise(c, tenant, Subject::Group(&new.name))?;
    let row = GroupRow {
        name: new.name,
        description: new.description,
        members: 0,
        created_at: new.now,
        created_by: new.by,
        revision,
    };
    let sql = format!("INSERT INTO member_groups (tenant_id, {COLUMNS}) VALUES (?1, ?2, ?3, 0, ?4, ?5, ?6)");
    c.prepare_cached(&sql)?.execute((
        tenant.as_str(),
        row.name.as_str(),
        &row.description,
        put(row.created_at.0),
        row.created_by.as_str(),
        put(revision),
    ))?;
    count_groups(c, tenant, 1)?;
    Ok(Created { row, existed: false })
}

fn count_groups(c: &Connection, tenant: &TenantId, change: i64) -> Result<()> {
    c.prepare_cached("UPDATE tenants SET group_count = group_count + ?2 WHERE tenant_id = ?1")?
        .execute((tenant.as_str(), change))?;
    Ok(())
}

pub(super) fn delete(c: &Connection, tenant: &TenantId, name: &GroupName) -> Result<Option<GroupRow>> {
    tenant::must_exist(c, tenant)?;
    let Some(row) = get(c, tenant, name)? else { return Ok(None) };
    let members = collect(
        c.prepare_cached("SELECT agent_id FROM group_members WHERE tenant_id = ?1 AND name = ?2")?
            .query([tenant.as_str(), name.as_str()])?,
        |row| parse(row, "agent_id"),
    )?;
    let revision = tenant::raise(c, tenant, Subject::Group(name))?;
    note(c, tenant, name, revision, &members, MemberWay::Left)?;
    // Its members go with it.
    c.prepare_cached("DELETE FROM member_groups WHERE tenant_id = ?1 AND name = ?2")?
        .execute([tenant.as_str(), name.as_str()])?;
    count_groups(c, tenant, -1)?;
    Ok(Some(row))
}

pub(super) fn list(c: &Connection, tenant: &TenantId, after: Option<&GroupName>, limit: u32) -> Result<Vec<GroupRow>> {
    let sql = format!("SELECT {COLUMNS} FROM member_groups WHERE tenant_id = ?1 AND name > ?2 ORDER BY name LIMIT ?3");
    let after = after.map_or("", GroupName::as_str);
    collect(c.prepare_cached(&sql)?.query((tenant.as_str(), after, limit))?, group_row)
}

pub(super) fn members_add(
    c: &Connection,
    tenant: &TenantId,
    name: &GroupName,
    agents: &[AgentId],
    now: Timestamp,
) -> Result<GroupRow> {
    tenant::must_exist(c, tenant)?;
    let Some(row) = get(c, tenant, name)? else { return absent(name) };
    let mut insert = c.prepare_cached(
        "INSERT INTO group_members (tenant_id, name, agent_id, since) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
    )?;
    let mut moved = Vec::new();
    for agent in agents {
        let new = insert.execute((tenant.as_str(), name.as_str(), agent.as_str(), put(now.0)))? > 0;
        if new {
            let groups = count_of(c, tenant, agent)?;
            if groups > limits::MEMBERSHIPS_MAX as u64 {
                let message = format!("agent {agent} is in {} groups, which is the limit", limits::MEMBERSHIPS_MAX);
                return refuse(ErrorCode::GroupLimit, message);
            }
            moved.push(agent.clone());
        }
    }
    let members = row.members + u32::try_from(moved.len()).unwrap_or(u32::MAX);
    if members > limits::GROUP_MEMBERS_MAX {
        let message = format!("group {name} of {members} members exceeds limit of {}", limits::GROUP_MEMBERS_MAX);
        return refuse(ErrorCode::GroupLimit, message);
    }
    moved_to(c, tenant, row, members, &moved, MemberWay::Joined)
}

fn count_of(c: &Connection, tenant: &TenantId, agent: &AgentId) -> Result<u64> {
    let mut query = c.prepare_cached("SELECT count(*) FROM group_members WHERE tenant_id = ?1 AND agent_id = ?2")?;
    Ok(query.query_row([tenant.as_str(), agent.as_str()], |row| row.get::<_, i64>(0))? as u64)
}

pub(super) fn members_remove(
    c: &Connection,
    tenant: &TenantId,
    name: &GroupName,
    agents: &[AgentId],
) -> Result<GroupRow> {
    tenant::must_exist(c, tenant)?;
    let Some(row) = get(c, tenant, name)? else { return absent(name) };
    let mut delete =
        c.prepare_cached("DELETE FROM group_members WHERE tenant_id = ?1 AND name = ?2 AND agent_id = ?3")?;
    let mut moved = Vec::new();
    for agent in agents {
        if delete.execute([tenant.as_str(), name.as_str(), agent.as_str()])? > 0 {
            moved.push(agent.clone());
        }
    }
    let members = row.members - u32::try_from(moved.len()).unwrap_or(u32::MAX);
    moved_to(c, tenant, row, members, &moved, MemberWay::Left)
}

/// Writes down that agents moved, if any did.
fn moved_to(
    c: &Connection,
    tenant: &TenantId,
    row: GroupRow,
    members: u32,
    moved: &[AgentId],
    way: MemberWay,
) -> Result<GroupRow> {
    if moved.is_empty() {
        return Ok(row);
    }
    let revision = tenant::raise(c, tenant, Subject::Group(&row.name))?;
    note(c, tenant, &row.name, revision, moved, way)?;
    c.prepare_cached("UPDATE member_groups SET members = ?3, revision = ?4 WHERE tenant_id = ?1 AND name = ?2")?
        .execute((tenant.as_str(), row.name.as_str(), members, put(revision)))?;
    Ok(GroupRow { members, revision, ..row })
}

fn note(
    c: &Connection,
    tenant: &TenantId,
    name: &GroupName,
    revision: u64,
    agents: &[AgentId],
    way: MemberWay,
) -> Result<()> {
    let mut insert = c.prepare_cached(
        "INSERT INTO member_moves (tenant_id, revision, agent_id, name, joined) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for agent in agents {
        let joined = way == MemberWay::Joined;
        insert.execute((tenant.as_str(), put(revision), agent.as_str(), name.as_str(), joined))?;
    }
    Ok(())
}

fn way(row: &Row<'_>) -> Result<MemberWay> {
    Ok(if row.get("joined")? { MemberWay::Joined } else { MemberWay::Left })
}

/// Who moved at a revision, by agent.
pub(super) fn moves(c: &Connection, tenant: &TenantId, revision: u64) -> Result<Vec<MemberMove>> {
    let mut query = c.prepare_cached(
        "SELECT agent_id, joined FROM member_moves WHERE tenant_id = ?1 AND revision = ?2 ORDER BY agent_id",
    )?;
    collect(query.query((tenant.as_str(), put(revision)))?, |row| {
        Ok(MemberMove { agent: parse(row, "agent_id")?, way: way(row)? })
    })
}

pub(super) fn member_list(
    c: &Connection,
    tenant: &TenantId,
    name: &GroupName,
    after: Option<&AgentId>,
    limit: u32,
) -> Result<Option<Vec<GroupMember>>> {
    if !exists(c, tenant, name)? {
        return Ok(None);
    }
    let mut query = c.prepare_cached(
        "SELECT agent_id, since FROM group_members WHERE tenant_id = ?1 AND name = ?2 AND agent_id > ?3 \
         ORDER BY agent_id LIMIT ?4",
    )?;
    let after = after.map_or("", AgentId::as_str);
    let members = collect(query.query((tenant.as_str(), name.as_str(), after, limit))?, |row| {
        Ok(GroupMember { agent: parse(row, "agent_id")?, since: time(row, "since")? })
    })?;
    Ok(Some(members))
}

/// The groups of an agent, all of it as of one moment.
pub(super) fn memberships(c: &Connection, tenant: &TenantId, agent: &AgentId, at: Option<u64>) -> Result<Memberships> {
    let moment = c.unchecked_transaction()?;
    let memberships = memberships_within(&moment, tenant, agent, at);
    moment.finish()?;
    memberships
}

/// At a revision: those of now, with the first move of each since then taken back.
fn memberships_within(c: &Connection, tenant: &TenantId, agent: &AgentId, at: Option<u64>) -> Result<Memberships> {
    const OF_TENANT: &str = "SELECT revision, changes_trimmed FROM tenants WHERE tenant_id = ?1";
    let mut query = c.prepare_cached(OF_TENANT)?;
    let found =
        first(query.query([tenant.as_str()])?, |row| Ok((number(row, "revision")?, number(row, "changes_trimmed")?)))?;
    let Some((revision, trimmed)) = found else { return Ok(Memberships::default()) };
    let mut query = c.prepare_cached("SELECT name FROM group_members WHERE tenant_id = ?1 AND agent_id = ?2")?;
    let mut groups: BTreeSet<GroupName> =
        collect(query.query([tenant.as_str(), agent.as_str()])?, |row| parse(row, "name"))?.into_iter().collect();
    let Some(at) = at.filter(|at| *at < revision) else { return Ok(Memberships { groups, revision }) };
    if at < trimmed {
        return refuse(
            ErrorCode::RevisionGap,
            format!("memberships at revision {at} are no longer known; those from {trimmed} on are"),
        );
    }
    let mut query = c.prepare_cached(
        "SELECT name, joined FROM member_moves WHERE tenant_id = ?1 AND agent_id = ?2 AND revision > ?3 \
         ORDER BY revision DESC",
    )?;
    let moves = collect(query.query((tenant.as_str(), agent.as_str(), put(at)))?, |row| {
        Ok((parse::<GroupName>(row, "name")?, way(row)?))
    })?;
    // Newest first, so that the oldest move of each group is what stays.
    let first_moves: BTreeMap<GroupName, MemberWay> = moves.into_iter().collect();
    for (name, way) in first_moves {
        match way {
            MemberWay::Joined => groups.remove(&name),
            MemberWay::Left => groups.insert(name),
        };
    }
    Ok(Memberships { groups, revision: at })
}
