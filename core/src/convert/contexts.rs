//! Contexts and groups.

use std::time::Duration;

use acb_proto::v1;
use acb_types::Timestamp;
use bytes::Bytes;

use super::missing;
use crate::{
    contexts::{Context, ContextAccess, ContextEvent, ContextParts, ContextScope, Filter, Wish},
    error::Result,
    groups::{Group, GroupMember},
    time::millis,
    watching::Seen,
};

fn scope(scope: Option<ContextScope>) -> i32 {
    let scope = match scope {
        None => v1::ContextScope::Unspecified,
        Some(ContextScope::Private) => v1::ContextScope::Private,
        Some(ContextScope::Shared) => v1::ContextScope::Shared,
        Some(ContextScope::Group) => v1::ContextScope::Group,
        Some(ContextScope::Public) => v1::ContextScope::Public,
    };
    scope as i32
}

pub(crate) fn context_spec(s: ContextParts) -> v1::ContextSpec {
    let share = |(agent_id, access): (String, ContextAccess)| {
        let access = match access {
            ContextAccess::Read => v1::ContextAccess::Read,
            ContextAccess::Write => v1::ContextAccess::Write,
        };
        v1::ContextShare { agent_id, access: access as i32 }
    };
    v1::ContextSpec {
        key: s.key,
        r#type: s.kind,
        scope: scope(s.scope),
        groups: s.groups,
        shares: s.shares.into_iter().map(share).collect(),
        content_type: s.content_type,
        description: s.description,
        labels: s.labels,
        metadata: s.metadata.into_iter().collect(),
        ttl_ms: s.ttl.map_or(0, millis),
        version: s.version,
    }
}

pub(crate) fn create_context(id: String, spec: ContextParts, payload: Bytes) -> v1::CreateContextRequest {
    v1::CreateContextRequest { context_id: id, spec: Some(context_spec(spec)), payload }
}

pub(crate) fn get_context(id: String, key: String, at_rev: u64, without_payload: bool) -> v1::GetContextRequest {
    v1::GetContextRequest { context_id: id, key, at_rev, without_payload }
}

pub(crate) fn update_context(
    id: String,
    spec: ContextParts,
    fields: Vec<String>,
    payload: Option<Bytes>,
    (if_rev, force): (u64, bool),
) -> v1::UpdateContextRequest {
    let spec = Some(context_spec(spec));
    v1::UpdateContextRequest { context_id: id, spec, fields, payload, if_rev, force, idempotency_key: String::new() }
}

/// The fields of a spec that are not empty, as a change names them.
pub(crate) fn given_fields(s: &v1::ContextSpec) -> Vec<String> {
    let fields = [
        ("scope", s.scope != 0),
        ("groups", !s.groups.is_empty()),
        ("shares", !s.shares.is_empty()),
        ("content_type", !s.content_type.is_empty()),
        ("description", !s.description.is_empty()),
        ("labels", !s.labels.is_empty()),
        ("metadata", !s.metadata.is_empty()),
        ("ttl_ms", s.ttl_ms != 0),
        ("version", !s.version.is_empty()),
    ];
    fields.into_iter().filter(|(_, given)| *given).map(|(name, _)| name.to_owned()).collect()
}

pub(crate) fn delete_context(id: String, if_rev: u64, force: bool) -> v1::DeleteContextRequest {
    v1::DeleteContextRequest { context_id: id, if_rev, force }
}

pub(crate) fn renew_context(id: String, ttl: Option<Duration>) -> v1::RenewContextTtlRequest {
    v1::RenewContextTtlRequest { context_id: id, ttl_ms: ttl.map_or(0, millis) }
}

pub(crate) fn list_contexts(f: Filter, page_size: u32, page_token: String) -> v1::ListContextsRequest {
    v1::ListContextsRequest {
        r#type: f.kind,
        owner: f.owner,
        scope: scope(f.scope),
        labels: f.labels,
        key_prefix: f.key_prefix,
        text: f.text,
        page_size,
        page_token,
    }
}

pub(crate) fn list_context_history(id: String, page_size: u32, page_token: String) -> v1::ListContextHistoryRequest {
    v1::ListContextHistoryRequest { context_id: id, page_size, page_token }
}

pub(crate) fn watch(wish: &Wish, after_rev: u64) -> v1::WatchRequest {
    let f = wish.filter.clone();
    v1::WatchRequest {
        context_id: f.id,
        key: f.key,
        key_prefix: f.key_prefix,
        r#type: f.kind,
        owner: f.owner,
        labels: f.labels,
        after_rev,
        payload_bytes_max: wish.payload_bytes_max,
    }
}

pub(crate) fn context(operation: &'static str, context: Option<v1::Context>) -> Result<Context> {
    let c = context.ok_or_else(|| missing(operation, "context"))?;
    let s = c.spec.ok_or_else(|| missing(operation, "context spec"))?;
    let share = |share: v1::ContextShare| {
        let write = share.access == v1::ContextAccess::Write as i32;
        (share.agent_id, if write { ContextAccess::Write } else { ContextAccess::Read })
    };
    let scope = match v1::ContextScope::try_from(s.scope) {
        Ok(v1::ContextScope::Shared) => ContextScope::Shared,
        Ok(v1::ContextScope::Group) => ContextScope::Group,
        Ok(v1::ContextScope::Public) => ContextScope::Public,
        _ => ContextScope::Private,
    };
    Ok(Context {
        id: c.id,
        key: (!s.key.is_empty()).then_some(s.key),
        kind: s.r#type,
        scope,
        groups: s.groups,
        shares: s.shares.into_iter().map(share).collect(),
        content_type: s.content_type,
        description: s.description,
        labels: s.labels,
        metadata: s.metadata.into_iter().collect(),
        ttl: (s.ttl_ms != 0).then(|| Duration::from_millis(s.ttl_ms)),
        version: s.version,
        owner: c.owner,
        rev: c.rev,
        size: c.size_bytes,
        sha256: c.sha256,
        streamed: c.streamed,
        expires_at: Timestamp(c.expires_at_ms),
        created_at: Timestamp(c.created_at_ms),
        updated_at: Timestamp(c.updated_at_ms),
        updated_by: c.updated_by,
        deleted: c.deleted,
        payload: c.payload,
    })
}

pub(crate) fn contexts_seen(operation: &'static str, frame: v1::WatchResponse) -> Result<Seen<ContextEvent>> {
    let event = |event: v1::ContextEvent| {
        let c = context(operation, event.context)?;
        Ok(match v1::ContextEventKind::try_from(event.kind) {
            Ok(v1::ContextEventKind::State) => ContextEvent::State(c),
            Ok(v1::ContextEventKind::Created) => ContextEvent::Created(c),
            Ok(v1::ContextEventKind::Deleted) => ContextEvent::Deleted(c),
            Ok(v1::ContextEventKind::Expired) => ContextEvent::Expired(c),
            // A kind that this version does not know is a change of some sort.
            _ if c.deleted => ContextEvent::Deleted(c),
            _ => ContextEvent::Updated(c),
        })
    };
    let events = frame.events.into_iter().map(event).collect::<Result<_>>()?;
    Ok(Seen { events, revision: frame.revision, state_complete: frame.state_complete })
}

// Groups.

pub(crate) fn create_group(name: String, description: String) -> v1::CreateGroupRequest {
    v1::CreateGroupRequest { name, description }
}

pub(crate) fn delete_group(name: String) -> v1::DeleteGroupRequest {
    v1::DeleteGroupRequest { name }
}

pub(crate) fn list_groups(page_size: u32, page_token: String) -> v1::ListGroupsRequest {
    v1::ListGroupsRequest { page_size, page_token }
}

pub(crate) fn add_group_members(name: String, agent_ids: Vec<String>) -> v1::AddGroupMembersRequest {
    v1::AddGroupMembersRequest { name, agent_ids }
}

pub(crate) fn remove_group_members(name: String, agent_ids: Vec<String>) -> v1::RemoveGroupMembersRequest {
    v1::RemoveGroupMembersRequest { name, agent_ids }
}

pub(crate) fn list_group_members(name: String, page_size: u32, page_token: String) -> v1::ListGroupMembersRequest {
    v1::ListGroupMembersRequest { name, page_size, page_token }
}

pub(crate) fn group(operation: &'static str, group: Option<v1::Group>) -> Result<Group> {
    let g = group.ok_or_else(|| missing(operation, "group"))?;
    Ok(Group {
        name: g.name,
        description: g.description,
        members: g.members,
        created_at: Timestamp(g.created_at_ms),
        created_by: g.created_by,
        revision: g.revision,
    })
}

pub(crate) fn group_member(m: v1::GroupMember) -> GroupMember {
    GroupMember { agent_id: m.agent_id, since: Timestamp(m.since_ms) }
}
