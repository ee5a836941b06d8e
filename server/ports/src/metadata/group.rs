//! Rows of groups, and who is in them.

use std::collections::BTreeSet;

use acb_types::{AgentId, GroupName, Timestamp};

/// Asks for a group.
#[derive(Clone, Debug)]
pub struct NewGroup {
    /// Its name.
    pub name: GroupName,
    /// For people; may be empty.
    pub description: String,
    /// Who makes it.
    pub by: AgentId,
    /// The time.
    pub now: Timestamp,
}

/// A group of agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRow {
    /// Its name.
    pub name: GroupName,
    /// For people; may be empty.
    pub description: String,
    /// How many agents are in it.
    pub members: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// Who made it.
    pub created_by: AgentId,
    /// The tenant's revision of its last change.
    pub revision: u64,
}

/// An agent in a group. It need not be registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// Which.
    pub agent: AgentId,
    /// Since when.
    pub since: Timestamp,
}

/// The groups that an agent is in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memberships {
    /// Which.
    pub groups: BTreeSet<GroupName>,
    /// The tenant's revision at which it is so.
    pub revision: u64,
}
