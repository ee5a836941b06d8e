//! Rows of agents, and what is asked of them.

use std::collections::{BTreeMap, BTreeSet};

use acb_types::{AgentId, Capability, CredentialId, Incarnation, Timestamp};
use semver::Version;

use super::subscription::{Created, SubscriptionRow, SubscriptionSpec};

/// Something an agent can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentCapability {
    /// Its name.
    pub name: Capability,
    /// Its version, when it has one.
    pub version: Option<Version>,
    /// JSON Schema of what it takes; may be empty.
    pub input_schema: String,
    /// JSON Schema of what it gives; may be empty.
    pub output_schema: String,
}

impl AgentCapability {
    /// A capability of that name and nothing more.
    pub fn named(name: Capability) -> Self {
        Self { name, version: None, input_schema: String::new(), output_schema: String::new() }
    }
}

/// What an agent says of itself. Limits were checked at the edge; each capability stands once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentSpec {
    /// Its id.
    pub id: AgentId,
    /// Kind of agent; may be empty.
    pub agent_type: String,
    /// Name for people; may be empty.
    pub name: String,
    /// What it is for; may be empty.
    pub description: String,
    /// Its version, when it has one.
    pub version: Option<Version>,
    /// Where it runs; may be empty.
    pub location: String,
    /// What it can do, in its own order.
    pub capabilities: Vec<AgentCapability>,
    /// Where else it can be reached; may be empty.
    pub endpoint: String,
    /// Groups that it is in.
    pub groups: BTreeSet<String>,
    /// Named values.
    pub metadata: BTreeMap<String, String>,
}

impl AgentSpec {
    /// An agent that says nothing but its id.
    pub fn new(id: AgentId) -> Self {
        Self {
            id,
            agent_type: String::new(),
            name: String::new(),
            description: String::new(),
            version: None,
            location: String::new(),
            capabilities: Vec::new(),
            endpoint: String::new(),
            groups: BTreeSet::new(),
            metadata: BTreeMap::new(),
        }
    }
}

/// An agent as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentRow {
    /// What it says of itself.
    pub spec: AgentSpec,
    /// What holds its id.
    pub credential: CredentialId,
    /// Raised by each registration.
    pub incarnation: Incarnation,
    /// When it came onto the bus; later registrations leave it.
    pub registered_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// The tenant's revision of its last change.
    pub revision: u64,
}

/// Asks for an agent to be put on the bus.
#[derive(Clone, Debug)]
pub struct Registration {
    /// What it says of itself.
    pub spec: AgentSpec,
    /// What the caller proved itself with.
    pub credential: CredentialId,
    /// Subscriptions that come with it, made unless their names are there; see [`SubscriptionSpec::implicit`].
    pub implicit: Vec<SubscriptionSpec>,
    /// The time.
    pub now: Timestamp,
}

impl Registration {
    /// A registration with the two subscriptions that every agent has.
    pub fn new(spec: AgentSpec, credential: CredentialId, now: Timestamp) -> Self {
        let implicit = SubscriptionSpec::implicit(&spec.id).into();
        Self { spec, credential, implicit, now }
    }
}

/// What a registration made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The agent, as it is now.
    pub agent: AgentRow,
    /// Whether it was on the bus before: then its older session is to be fenced.
    pub existed: bool,
    /// Its implicit subscriptions, in the order in which they were asked for.
    pub implicit: Vec<Created<SubscriptionRow>>,
}

/// Changes of an agent. `None` leaves a field; `Some` replaces it whole.
#[derive(Clone, Debug, Default)]
pub struct AgentUpdate {
    /// Only if this credential holds the id.
    pub held_by: Option<CredentialId>,
    /// New kind.
    pub agent_type: Option<String>,
    /// New name.
    pub name: Option<String>,
    /// New description.
    pub description: Option<String>,
    /// New version; `Some(None)` takes it away.
    pub version: Option<Option<Version>>,
    /// New location.
    pub location: Option<String>,
    /// New capabilities.
    pub capabilities: Option<Vec<AgentCapability>>,
    /// New endpoint.
    pub endpoint: Option<String>,
    /// New groups.
    pub groups: Option<BTreeSet<String>>,
    /// New metadata.
    pub metadata: Option<BTreeMap<String, String>>,
    /// The time.
    pub now: Timestamp,
}

impl AgentUpdate {
    /// The spec after this update.
    #[must_use]
    pub fn applied_to(&self, spec: &AgentSpec) -> AgentSpec {
        fn take<T: Clone>(new: Option<&T>, old: &T) -> T {
            new.unwrap_or(old).clone()
        }
        AgentSpec {
            id: spec.id.clone(),
            agent_type: take(self.agent_type.as_ref(), &spec.agent_type),
            name: take(self.name.as_ref(), &spec.name),
            description: take(self.description.as_ref(), &spec.description),
            version: take(self.version.as_ref(), &spec.version),
            location: take(self.location.as_ref(), &spec.location),
            capabilities: take(self.capabilities.as_ref(), &spec.capabilities),
            endpoint: take(self.endpoint.as_ref(), &spec.endpoint),
            groups: take(self.groups.as_ref(), &spec.groups),
            metadata: take(self.metadata.as_ref(), &spec.metadata),
        }
    }
}

/// What becomes of an inbox when its agent leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbox {
    /// It stays, and what waits in it, for the same credential to come back.
    Keep,
    /// It ends.
    Drop,
}

/// Asks for an agent to be taken off the bus.
#[derive(Clone, Debug)]
pub struct AgentRemoval {
    /// Only if this credential holds the id.
    pub held_by: Option<CredentialId>,
    /// What becomes of its inbox.
    pub inbox: Inbox,
    /// The time.
    pub now: Timestamp,
}

/// What a removal took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemovedAgent {
    /// The agent as it last was; `None` when it was not on the bus.
    pub agent: Option<AgentRow>,
    /// Implicit subscriptions that ended.
    pub subscriptions: Vec<SubscriptionRow>,
    /// The tenant's revision of the removal; `None` when there was nothing to remove.
    pub revision: Option<u64>,
}

/// Which agents to list. All conditions must hold; one that is not given always does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentFilter {
    /// Exactly this kind.
    pub agent_type: Option<String>,
    /// Exactly this location.
    pub location: Option<String>,
    /// All of these capabilities, in any version.
    pub capabilities_all: Vec<Capability>,
    /// At least one of these capabilities, in any version; empty always holds.
    pub capabilities_any: Vec<Capability>,
    /// All of these named values.
    pub metadata: BTreeMap<String, String>,
    /// Part of id, name or description, in any case.
    pub text: Option<String>,
}

impl AgentFilter {
    /// Whether an agent is wanted.
    pub fn wants(&self, spec: &AgentSpec) -> bool {
        let has = |wanted: &Capability| spec.capabilities.iter().any(|c| c.name == *wanted);
        self.agent_type.as_ref().is_none_or(|t| *t == spec.agent_type)
            && self.location.as_ref().is_none_or(|l| *l == spec.location)
            && self.capabilities_all.iter().all(has)
            && (self.capabilities_any.is_empty() || self.capabilities_any.iter().any(has))
            && self.metadata.iter().all(|(k, v)| spec.metadata.get(k) == Some(v))
            && self.text.as_ref().is_none_or(|t| spec.search_text().contains(&t.to_lowercase()))
    }
}

impl AgentSpec {
    /// What [`AgentFilter::text`] is looked for in: id, name and description in lower case, on a line each. Stores keep
    /// it in a column, so that all of them fold case alike.
    pub fn search_text(&self) -> String {
        format!("{}\n{}\n{}", self.id, self.name, self.description).to_lowercase()
    }
}
