//! Agents: who is on the bus, what they can do, and whether they are there.

use std::{
    collections::BTreeMap,
    future::{Future, IntoFuture},
    pin::Pin,
    time::Duration,
};

use acb_proto::v1::agent_registry_client::AgentRegistryClient;
use acb_types::{AgentId, Timestamp, limits};

use crate::{
    agent_watch::AgentWatchBuilder,
    client::Handle,
    connection::{Core, Registration},
    convert,
    error::{Error, Result},
    pages::{Page, Pages},
    retry::Safety,
};

/// Something that an agent can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct AgentCapability {
    /// Dot tokens, such as `code.review`.
    pub name: String,
    /// Semantic version; may be empty.
    pub version: String,
    /// JSON Schema of what it takes; may be empty.
    pub input_schema: String,
    /// JSON Schema of what it gives; may be empty.
    pub output_schema: String,
}

impl AgentCapability {
    /// A capability of this name: dot tokens of `[a-z0-9_-]`, at most 128 bytes.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Its semantic version.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// JSON Schema of what it takes, at most 16 KiB.
    pub fn input_schema(mut self, schema: impl Into<String>) -> Self {
        self.input_schema = schema.into();
        self
    }

    /// JSON Schema of what it gives, at most 16 KiB.
    pub fn output_schema(mut self, schema: impl Into<String>) -> Self {
        self.output_schema = schema.into();
        self
    }
}

impl<T: Into<String>> From<T> for AgentCapability {
    fn from(name: T) -> Self {
        Self::new(name)
    }
}

/// What an agent says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct AgentSpec {
    /// `[a-z0-9][a-z0-9._-]{0,127}`, unique in the tenant.
    pub id: String,
    /// Kind of agent; at most 128 bytes.
    pub kind: String,
    /// Name for people; at most 128 bytes.
    pub name: String,
    /// At most 1,024 bytes.
    pub description: String,
    /// Semantic version; may be empty.
    pub version: String,
    /// Where it runs; at most 128 bytes.
    pub location: String,
    /// At most 64.
    pub capabilities: Vec<AgentCapability>,
    /// Where else it can be reached; at most 512 bytes.
    pub endpoint: String,
    /// At most 64 groups of 128 bytes each.
    pub groups: Vec<String>,
    /// At most 64 entries and 16 KiB in all.
    pub metadata: BTreeMap<String, String>,
}

/// Whether an agent is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AgentStatus {
    /// A live stream, or heartbeats in time.
    Online,
    /// Neither, for longer than the grace of 30 s.
    Offline,
    /// Not heard of since it registered, or since the server started.
    Unknown,
}

impl AgentStatus {
    /// Its name in text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Unknown => "unknown",
        }
    }
}

/// How surely an agent is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AgentPresence {
    /// A live stream, or a heartbeat within 15 s.
    Active,
    /// Its last stream ended, or a heartbeat is late; it has until 30 s after it was heard of last.
    Suspect,
    /// Not heard of for 30 s.
    Offline,
    /// Not heard of since it registered, or since the server started.
    Unknown,
    /// Offline for 24 h. It stays registered, and what is sent to it is kept.
    Expired,
}

impl AgentPresence {
    /// Its name in text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspect => "suspect",
            Self::Offline => "offline",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
        }
    }
}

/// What an agent says that it is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AgentActivity {
    /// Ready for work.
    Idle,
    /// At work.
    Busy,
    /// At work that waits for others.
    Waiting,
    /// Cannot go on without help.
    Blocked,
}

impl AgentActivity {
    /// Its name in text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Waiting => "waiting",
            Self::Blocked => "blocked",
        }
    }
}

/// An agent as the bus knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Agent {
    /// What it says of itself.
    pub spec: AgentSpec,
    /// Raised by each registration.
    pub incarnation: u64,
    /// Whether it was there when it was asked for.
    pub status: AgentStatus,
    /// How surely it was there then.
    pub presence: AgentPresence,
    /// What it said that it is doing; `None` when it says nothing, or its word was too old.
    pub activity: Option<AgentActivity>,
    /// Until when that holds.
    pub activity_until: Timestamp,
    /// When it registered first.
    pub registered_at: Timestamp,
    /// When it changed last.
    pub updated_at: Timestamp,
    /// Last stream or heartbeat; not set when there was none since the server started.
    pub last_seen_at: Timestamp,
    /// Tenant revision of its last change.
    pub revision: u64,
}

impl Agent {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.spec.id
    }
}

/// Agents of a client's tenant. Made by [`Client::agents`](crate::Client::agents).
///
#[doc = "```no_run"]
#[doc = include_str!("../doc/agents.rs")]
#[doc = "```"]
#[derive(Clone, Debug)]
pub struct Agents {
    core: Handle,
}

impl Agents {
    pub(crate) fn new(core: Handle) -> Self {
        Self { core }
    }

    /// Starts a registration: puts this client's agent on the bus and makes its inbox. Await it. From then on the client
    /// keeps the agent online: by its streams, or by heartbeats while none is open.
    ///
    /// Again by the same credential it is a new incarnation, and the older session is fenced.
    pub fn register(&self, id: impl Into<String>) -> RegisterBuilder {
        RegisterBuilder { core: self.core.clone(), spec: AgentSpec { id: id.into(), ..AgentSpec::default() } }
    }

    /// Shows one agent.
    ///
    /// # Errors
    /// `agent_not_found`.
    pub async fn get(&self, id: impl Into<String>) -> Result<Agent> {
        let operation = "agents.get";
        let response = self
            .core
            .call(operation, Safety::Idempotent, convert::get_agent(id.into()), |to, request| async move {
                AgentRegistryClient::with_origin(to.channel, to.origin).get_agent(request).await
            })
            .await?;
        convert::agent(operation, response.agent)
    }

    /// Starts a change of an agent; only what is set is changed. Await it.
    pub fn update(&self, id: impl Into<String>) -> UpdateBuilder {
        let spec = AgentSpec { id: id.into(), ..AgentSpec::default() };
        UpdateBuilder { core: self.core.clone(), spec, fields: Vec::new() }
    }

    /// Takes an agent off the bus with its subscriptions and its inbox. Unregistering what is absent succeeds.
    ///
    /// # Errors
    /// `permission_denied` for another's agent.
    pub async fn unregister(&self, id: impl Into<String>) -> Result<()> {
        self.unregister_with(id.into(), false).await
    }

    /// As [`Self::unregister`], but keeps the inbox and what waits in it for a later registration by the same
    /// credential.
    ///
    /// # Errors
    /// `permission_denied` for another's agent.
    pub async fn unregister_keeping_inbox(&self, id: impl Into<String>) -> Result<()> {
        self.unregister_with(id.into(), true).await
    }

    async fn unregister_with(&self, id: String, keep_inbox: bool) -> Result<()> {
        if self.core.registration().is_some_and(|r| r.agent_id == id) {
            self.core.registered(None);
        }
        let request = convert::unregister_agent(id, keep_inbox);
        self.core
            .call("agents.unregister", Safety::Idempotent, request, |to, request| async move {
                AgentRegistryClient::with_origin(to.channel, to.origin).unregister_agent(request).await
            })
            .await?;
        Ok(())
    }

    /// Says that the registered agent is alive, and gives when the next heartbeat is due. The client does this by itself
    /// while none of its streams is open.
    ///
    /// # Errors
    /// `session_fenced` when a newer registration took over; `agent_not_found` when this client registered none.
    pub async fn heartbeat(&self) -> Result<Duration> {
        let Some(registration) = self.core.registration() else {
            let text = "this client registered no agent";
            return Err(Error::new(crate::ErrorCode::AgentNotFound, "agents.heartbeat", text));
        };
        heartbeat(&self.core, &registration).await
    }

    /// Says what the registered agent is doing, for one minute unless it is said again. It is a heartbeat, too.
    ///
    /// # Errors
    /// As [`Self::heartbeat`].
    pub async fn set_activity(&self, activity: AgentActivity) -> Result<()> {
        self.set_activity_for(activity, limits::ACTIVITY_TTL).await
    }

    /// As [`Self::set_activity`], for a span of 1 s to 1 h.
    ///
    /// # Errors
    /// As [`Self::heartbeat`], and `invalid_argument` for another span.
    pub async fn set_activity_for(&self, activity: AgentActivity, span: Duration) -> Result<()> {
        let operation = "agents.set_activity";
        let Some(registration) = self.core.registration() else {
            let text = "this client registered no agent";
            return Err(Error::new(crate::ErrorCode::AgentNotFound, operation, text));
        };
        let request = convert::activity(&registration.agent_id, registration.incarnation, activity, span);
        self.core
            .call(operation, Safety::Idempotent, request, |to, request| async move {
                AgentRegistryClient::with_origin(to.channel, to.origin).heartbeat(request).await
            })
            .await?;
        Ok(())
    }

    /// Watches agents: who is there, then who comes, changes and leaves, and presence and activity as they change, over any
    /// number of broken connections.
    pub fn watch(&self) -> AgentWatchBuilder {
        AgentWatchBuilder::new(self.core.clone())
    }

    /// Starts a search. All conditions must hold.
    pub fn discover(&self) -> DiscoverBuilder {
        DiscoverBuilder { core: self.core.clone(), query: Query::default() }
    }
}

pub(crate) async fn heartbeat(core: &Core, registration: &Registration) -> Result<Duration> {
    let request = convert::heartbeat(&registration.agent_id, registration.incarnation);
    let response = core
        .call("agents.heartbeat", Safety::Idempotent, request, |to, request| async move {
            AgentRegistryClient::with_origin(to.channel, to.origin).heartbeat(request).await
        })
        .await?;
    Ok(Duration::from_millis(response.next_within_ms))
}

/// A registration in the making. Await it.
#[derive(Clone, Debug)]
#[must_use = "an agent is registered when the builder is awaited"]
pub struct RegisterBuilder {
    core: Handle,
    spec: AgentSpec,
}

macro_rules! text_setters {
    ($(#[$doc:meta] $name:ident;)*) => {
        $(
            #[$doc]
            pub fn $name(mut self, text: impl Into<String>) -> Self {
                self.set(|spec| spec.$name = text.into(), stringify!($name));
                self
            }
        )*
    };
}

macro_rules! spec_setters {
    () => {
        text_setters! {
            #[doc = "Kind of agent; at most 128 bytes."] kind;
            #[doc = "Name for people; at most 128 bytes."] name;
            #[doc = "What it is for; at most 1,024 bytes."] description;
            #[doc = "Semantic version."] version;
            #[doc = "Where it runs; at most 128 bytes."] location;
            #[doc = "Where else it can be reached; at most 512 bytes."] endpoint;
        }

        /// Something that it can do; at most 64 of them.
        pub fn capability(mut self, capability: impl Into<AgentCapability>) -> Self {
            let capability = capability.into();
            self.set(|spec| spec.capabilities.push(capability), "capabilities");
            self
        }

        /// A group that it is in; at most 64 of them.
        pub fn group(mut self, group: impl Into<String>) -> Self {
            let group = group.into();
            self.set(|spec| spec.groups.push(group), "groups");
            self
        }

        /// A named value; at most 64 of them and 16 KiB in all.
        pub fn metadata(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
            let (name, value) = (name.into(), value.into());
            self.set(|spec| drop(spec.metadata.insert(name, value)), "metadata");
            self
        }
    };
}

impl RegisterBuilder {
    spec_setters!();

    fn set(&mut self, change: impl FnOnce(&mut AgentSpec), _field: &'static str) {
        change(&mut self.spec);
    }

    /// Everything at once.
    pub fn spec(mut self, spec: AgentSpec) -> Self {
        self.spec = spec;
        self
    }

    /// Registers.
    ///
    /// # Errors
    /// `agent_exists` when the id is another credential's; `invalid_name`, `field_too_large`, `invalid_version`.
    ///
    /// # Cancel safety
    /// It may have been registered; doing it again is safe and makes a new incarnation.
    pub async fn send(self) -> Result<Agent> {
        let operation = "agents.register";
        self.spec.id.parse::<AgentId>().map_err(|e| Error::name(operation, &e))?;
        let response = self
            .core
            .call(operation, Safety::Idempotent, convert::register_agent(self.spec), |to, request| async move {
                AgentRegistryClient::with_origin(to.channel, to.origin).register_agent(request).await
            })
            .await?;
        let agent = convert::agent(operation, response.agent)?;
        // An admin may register others; only its own agent is this client's session.
        if self.core.agent_id().is_none_or(|own| own == agent.spec.id) {
            let registration = Registration { agent_id: agent.spec.id.clone(), incarnation: agent.incarnation };
            self.core.registered(Some(registration));
        }
        Ok(agent)
    }
}

impl IntoFuture for RegisterBuilder {
    type Output = Result<Agent>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<Agent>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// A change of an agent in the making. Await it.
#[derive(Clone, Debug)]
#[must_use = "an agent is changed when the builder is awaited"]
pub struct UpdateBuilder {
    core: Handle,
    spec: AgentSpec,
    fields: Vec<String>,
}

impl UpdateBuilder {
    spec_setters!();

    fn set(&mut self, change: impl FnOnce(&mut AgentSpec), field: &'static str) {
        change(&mut self.spec);
        // The contract calls an agent's kind its type.
        let field = if field == "kind" { "type" } else { field };
        if !self.fields.iter().any(|f| f == field) {
            self.fields.push(field.to_owned());
        }
    }

    /// Takes all capabilities away; those set after this are the new ones.
    pub fn no_capabilities(mut self) -> Self {
        self.set(|spec| spec.capabilities.clear(), "capabilities");
        self
    }

    /// Takes all metadata away; what is set after this is the new.
    pub fn no_metadata(mut self) -> Self {
        self.set(|spec| spec.metadata.clear(), "metadata");
        self
    }

    /// Changes the agent. With nothing set it only shows it.
    ///
    /// # Errors
    /// `agent_not_found`, `permission_denied`.
    pub async fn send(self) -> Result<Agent> {
        let operation = "agents.update";
        if self.fields.is_empty() {
            return Agents::new(self.core).get(self.spec.id).await;
        }
        let request = convert::update_agent(self.spec, self.fields);
        let response = self
            .core
            .call(operation, Safety::Idempotent, request, |to, request| async move {
                AgentRegistryClient::with_origin(to.channel, to.origin).update_agent(request).await
            })
            .await?;
        convert::agent(operation, response.agent)
    }
}

impl IntoFuture for UpdateBuilder {
    type Output = Result<Agent>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<Agent>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// What to look for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query {
    pub(crate) kind: String,
    pub(crate) location: String,
    pub(crate) capabilities_all: Vec<String>,
    pub(crate) capabilities_any: Vec<String>,
    pub(crate) status: Option<AgentStatus>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) text: String,
}

/// A search for agents. Finish it with [`stream`](Self::stream), [`all`](Self::all) or [`page`](Self::page).
#[derive(Clone, Debug)]
#[must_use = "a search asks for nothing until it is finished"]
pub struct DiscoverBuilder {
    core: Handle,
    query: Query,
}

impl DiscoverBuilder {
    /// Of exactly this kind.
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.query.kind = kind.into();
        self
    }

    /// At exactly this location.
    pub fn location(mut self, location: impl Into<String>) -> Self {
        self.query.location = location.into();
        self
    }

    /// With this capability; call it again for more, all of which an agent must have.
    pub fn capability(mut self, name: impl Into<String>) -> Self {
        self.query.capabilities_all.push(name.into());
        self
    }

    /// With at least one of the capabilities that are given this way.
    pub fn any_capability(mut self, name: impl Into<String>) -> Self {
        self.query.capabilities_any.push(name.into());
        self
    }

    /// With this status now.
    pub fn status(mut self, status: AgentStatus) -> Self {
        self.query.status = Some(status);
        self
    }

    /// With this named value.
    pub fn metadata(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.query.metadata.insert(name.into(), value.into());
        self
    }

    /// With this text in id, name or description, in any case.
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.query.text = text.into();
        self
    }

    /// All that are found, by id, page by page.
    pub fn stream(self) -> Pages<Agent> {
        Pages::new(move |token| {
            let me = self.clone();
            async move { me.page(limits::PAGE_SIZE_MAX, token).await }
        })
    }

    /// All that are found at once.
    ///
    /// # Errors
    /// The first error of a page.
    pub async fn all(self) -> Result<Vec<Agent>> {
        self.stream().all().await
    }

    /// One page: 1 to 500 agents, from the token of the page before, or an empty one.
    ///
    /// # Errors
    /// `invalid_page_token`, `invalid_name`.
    pub async fn page(&self, size: u32, token: impl Into<String>) -> Result<Page<Agent>> {
        let operation = "agents.discover";
        let request = convert::discover(&self.query, size, token.into());
        let response = self
            .core
            .call(operation, Safety::Idempotent, request, |to, request| async move {
                AgentRegistryClient::with_origin(to.channel, to.origin).discover_agents(request).await
            })
            .await?;
        let items = response.agents.into_iter().map(|a| convert::agent(operation, Some(a))).collect::<Result<_>>()?;
        Ok(Page::new(items, response.next_page_token))
    }
}
