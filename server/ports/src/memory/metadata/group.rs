//! Groups in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use acb_types::{AgentId, ErrorCode, GroupName, Timestamp, limits};

use super::{change::Subject, tenant::Tenant};
use crate::{
    error::StoreError,
    metadata::{Created, GroupMember, GroupRow, MemberMove, MemberWay, Memberships, NewGroup, Result},
};

/// A group with who is in it since when.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) row: GroupRow,
    pub(super) members: BTreeMap<AgentId, Timestamp>,
}

pub(super) fn absent(operation: &'static str, name: &GroupName) -> StoreError {
    StoreError::new(ErrorCode::GroupNotFound, operation, format!("no group {name}"))
}

fn limit(operation: &'static str, message: String) -> StoreError {
    StoreError::new(ErrorCode::GroupLimit, operation, message)
}

impl Tenant {
    pub(super) fn group_create(&mut self, new: NewGroup) -> Result<Created<GroupRow>> {
        const OPERATION: &str = "group.create";
        if let Some(group) = self.groups.get(&new.name) {
            if group.row.description == new.description {
                return Ok(Created { row: group.row.clone(), existed: true });
            }
            let message = format!("group {} is there with another description", new.name);
            return Err(StoreError::new(ErrorCode::GroupExists, OPERATION, message));
        }
        if self.groups.len() as u64 >= limits::TENANT_GROUPS_MAX {
            let count = self.groups.len();
            return Err(limit(OPERATION, format!("the tenant has {count} groups, which is the limit")));
        }
        let revision = self.raise(Subject::Group(new.name.clone(), [].into()));
        let row = GroupRow {
            name: new.name.clone(),
            description: new.description,
            members: 0,
            created_at: new.now,
            created_by: new.by,
            revision,
        };
        self.groups.insert(new.name, Group { row: row.clone(), members: BTreeMap::new() });
        Ok(Created { row, existed: false })
    }

    pub(super) fn group_delete(&mut self, name: &GroupName) -> Option<GroupRow> {
        let group = self.groups.remove(name)?;
        self.raise(Subject::Group(name.clone(), moves(group.members.into_keys(), MemberWay::Left)));
        Some(group.row)
    }

    pub(super) fn group_list(&self, after: Option<&GroupName>, limit: usize) -> Vec<GroupRow> {
        let later = self.groups.iter().filter(|(name, _)| after.is_none_or(|after| *name > after));
        later.take(limit).map(|(_, group)| group.row.clone()).collect()
    }

    pub(super) fn group_members_add(
        &mut self,
        name: &GroupName,
        agents: &[AgentId],
        now: Timestamp,
    ) -> Result<GroupRow> {
        const OPERATION: &str = "group.members_add";
        let group = self.groups.get(name).ok_or_else(|| absent(OPERATION, name))?;
        let new: BTreeSet<_> = agents.iter().filter(|agent| !group.members.contains_key(*agent)).cloned().collect();
        if let Some(agent) = new.iter().find(|agent| self.groups_of(agent).len() >= limits::MEMBERSHIPS_MAX) {
            let message = format!("agent {agent} is in {} groups, which is the limit", limits::MEMBERSHIPS_MAX);
            return Err(limit(OPERATION, message));
        }
        let members = group.members.len() + new.len();
        if members > limits::GROUP_MEMBERS_MAX as usize {
            let message = format!("group {name} of {members} members exceeds limit of {}", limits::GROUP_MEMBERS_MAX);
            return Err(limit(OPERATION, message));
        }
        let since = new.iter().map(|agent| (agent.clone(), now)).collect::<Vec<_>>();
        self.group_moved(name, new, MemberWay::Joined, |members| members.extend(since))
    }

    pub(super) fn group_members_remove(&mut self, name: &GroupName, agents: &[AgentId]) -> Result<GroupRow> {
        let group = self.groups.get(name).ok_or_else(|| absent("group.members_remove", name))?;
        let old: BTreeSet<_> = agents.iter().filter(|agent| group.members.contains_key(*agent)).cloned().collect();
        let gone = old.clone();
        self.group_moved(name, old, MemberWay::Left, |members| members.retain(|agent, _| !gone.contains(agent)))
    }

    fn group_moved(
        &mut self,
        name: &GroupName,
        moved: BTreeSet<AgentId>,
        way: MemberWay,
        change: impl FnOnce(&mut BTreeMap<AgentId, Timestamp>),
    ) -> Result<GroupRow> {
        let raised = !moved.is_empty();
        if raised {
            self.raise(Subject::Group(name.clone(), moves(moved.into_iter(), way)));
        }
        let revision = self.revision;
        let group = self.groups.get_mut(name).ok_or_else(|| absent("group.members", name))?;
        change(&mut group.members);
        group.row.members = u32::try_from(group.members.len()).unwrap_or(u32::MAX);
        if raised {
            group.row.revision = revision;
        }
        Ok(group.row.clone())
    }

    pub(super) fn group_member_list(
        &self,
        name: &GroupName,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Option<Vec<GroupMember>> {
        let members = self.groups.get(name)?.members.iter();
        let later = members.filter(|(agent, _)| after.is_none_or(|after| *agent > after)).take(limit);
        Some(later.map(|(agent, since)| GroupMember { agent: agent.clone(), since: *since }).collect())
    }

    fn groups_of(&self, agent: &AgentId) -> BTreeSet<GroupName> {
        let of = self.groups.iter().filter(|(_, group)| group.members.contains_key(agent));
        of.map(|(name, _)| name.clone()).collect()
    }

    /// Those of now, with every move since then taken back, the newest first.
    pub(super) fn memberships(&self, agent: &AgentId, at: Option<u64>) -> Result<Memberships> {
        let mut groups = self.groups_of(agent);
        let Some(at) = at.filter(|at| *at < self.revision) else {
            return Ok(Memberships { groups, revision: self.revision });
        };
        if at < self.changes_trimmed {
            let message = format!("memberships at revision {at} are no longer known");
            return Err(StoreError::new(ErrorCode::RevisionGap, "memberships", message));
        }
        for (_, subject) in self.changes.range(at + 1..).rev() {
            let Subject::Group(name, moves) = subject else { continue };
            match moves.iter().find(|m| m.agent == *agent).map(|m| m.way) {
                Some(MemberWay::Joined) => groups.remove(name),
                Some(MemberWay::Left) => groups.insert(name.clone()),
                None => false,
            };
        }
        Ok(Memberships { groups, revision: at })
    }
}

fn moves(agents: impl Iterator<Item = AgentId>, way: MemberWay) -> Arc<[MemberMove]> {
    agents.map(|agent| MemberMove { agent, way }).collect()
}
