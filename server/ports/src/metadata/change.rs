//! What changed in a tenant, in order of revisions.

use std::sync::Arc;

use acb_types::{AgentId, ContextId, ContextKey, GroupName};

use super::{AgentRow, ContextRow};

/// Changes after a revision.
#[derive(Clone, Debug, Default)]
pub struct ChangePage {
    /// In order, without a hole when `oldest` is at most the revision that was asked for.
    pub changes: Vec<Change>,
    /// Changes after this revision are kept.
    pub oldest: u64,
    /// The tenant's revision when the page was read.
    pub revision: u64,
}

/// One change: it raised the tenant's revision by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The revision that it made.
    pub revision: u64,
    /// What it was.
    pub what: Changed,
}

/// What a change was of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// An agent came, changed or left.
    Agent {
        /// Which.
        id: AgentId,
        /// How this change left it; `None` when it left, or when a later change of it follows: agents have no history.
        row: Option<Arc<AgentRow>>,
    },
    /// A context was made, changed, or got its marker.
    Context {
        /// As it was; `None` when this made it. Its payload is unread.
        before: Option<Arc<ContextRow>>,
        /// As it is, its payload read where it is in the row.
        after: Arc<ContextRow>,
    },
    /// A context changed, and what it was then is no longer kept.
    ContextLost {
        /// Which.
        id: ContextId,
        /// What never changes of it; `None` when nothing of it is kept.
        facts: Option<ContextFacts>,
    },
    /// A group was made or ended, or agents came into it or left.
    Group {
        /// Which.
        name: GroupName,
        /// Whose membership changed, by agent.
        moves: Arc<[MemberMove]>,
    },
}

/// What never changes of a context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextFacts {
    /// Its key.
    pub key: Option<ContextKey>,
    /// Its type.
    pub context_type: String,
    /// Who made it.
    pub owner: AgentId,
}

/// A change of one membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberMove {
    /// Whose.
    pub agent: AgentId,
    /// Which way.
    pub way: MemberWay,
}

/// Which way an agent went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberWay {
    /// Into the group.
    Joined,
    /// Out of it, also because it ended.
    Left,
}
