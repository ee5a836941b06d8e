//! A watch of agents.

use std::fmt;

use acb_proto::v1::{self, agent_registry_client::AgentRegistryClient};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    agents::Agent,
    client::Handle,
    connection::Link,
    convert,
    error::Result,
    watching::{Seen, Watched, Watcher},
};

/// What a watch of agents brings.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AgentEvent {
    /// An agent as it stands at the watch's first revision; by id.
    State(Agent),
    /// The state is complete, as of this revision. What follows are changes.
    Synced(u64),
    /// An agent registered, registered again, or changed.
    Changed(Agent),
    /// The agent of this id unregistered, or matches no longer what is watched.
    Left(String),
    /// An agent's presence or activity is another. After a break it comes for every agent, as it is then.
    Presence(Agent),
    /// The connection broke before the state was complete: forget what came so far, the state begins anew.
    Restarted,
}

/// What is watched.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) location: String,
    pub(crate) capabilities: Vec<String>,
    pub(crate) after: u64,
}

/// A watch in the making. All conditions must hold; none watches all agents of the tenant.
#[derive(Clone, Debug)]
#[must_use = "nothing is watched before the watch is opened"]
pub struct AgentWatchBuilder {
    core: Handle,
    wish: Wish,
}

impl AgentWatchBuilder {
    pub(crate) fn new(core: Handle) -> Self {
        Self { core, wish: Wish::default() }
    }

    /// One agent, by its id.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.wish.id = id.into();
        self
    }

    /// Of exactly this kind.
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.wish.kind = kind.into();
        self
    }

    /// At exactly this location.
    pub fn location(mut self, location: impl Into<String>) -> Self {
        self.wish.location = location.into();
        self
    }

    /// With this capability; again for more, all of which it must have.
    pub fn capability(mut self, name: impl Into<String>) -> Self {
        self.wish.capabilities.push(name.into());
        self
    }

    /// Begins with the changes after this revision instead of the state: one that an earlier watch told. Presence has no
    /// history; it comes for every agent that matches, as it is now.
    pub fn after(mut self, revision: u64) -> Self {
        self.wish.after = revision;
        self
    }

    /// Opens it.
    ///
    /// # Errors
    /// `revision_gap` with the detail `oldest_rev` when changes after [`Self::after`] are no longer kept: watch anew without
    /// it. `too_many_streams`, `invalid_name`, `permission_denied`.
    pub async fn open(self) -> Result<AgentWatch> {
        let after = self.wish.after;
        Ok(AgentWatch(Watcher::open(self.core, self.wish, after).await?))
    }
}

impl Watched for Wish {
    type Request = v1::WatchAgentsRequest;
    type Frame = v1::WatchAgentsResponse;
    type Event = AgentEvent;

    const OPERATION: &'static str = "agents.watch";

    fn request(&self, after: u64) -> v1::WatchAgentsRequest {
        convert::watch_agents(self, after)
    }

    async fn open(
        core: &Handle,
        link: &Link,
        request: Request<v1::WatchAgentsRequest>,
    ) -> Result<Response<Streaming<v1::WatchAgentsResponse>>, Status> {
        AgentRegistryClient::with_origin(link.channel.clone(), core.origin().clone()).watch_agents(request).await
    }

    fn read(frame: v1::WatchAgentsResponse) -> Result<Seen<AgentEvent>> {
        convert::agents_seen(Self::OPERATION, frame)
    }

    fn synced(revision: u64) -> AgentEvent {
        AgentEvent::Synced(revision)
    }

    fn restarted() -> AgentEvent {
        AgentEvent::Restarted
    }

    fn made_since(event: AgentEvent) -> AgentEvent {
        match event {
            AgentEvent::State(agent) => AgentEvent::Changed(agent),
            event => event,
        }
    }
}

/// A watch of agents that is open. Dropping it ends it.
pub struct AgentWatch(Watcher<Wish>);

impl fmt::Debug for AgentWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentWatch").field("revision", &self.revision()).finish_non_exhaustive()
    }
}

impl AgentWatch {
    /// The next event, waited for over broken connections and restarts of the server; `None` after an error that ended the
    /// watch.
    ///
    /// # Errors
    /// `revision_gap` when the client was away for longer than changes are kept; what else cannot be tried again.
    ///
    /// # Cancel safety
    /// No event is lost.
    pub async fn next(&mut self) -> Option<Result<AgentEvent>> {
        self.0.next().await
    }

    /// The revision up to which everything was handed out; 0 before the state is complete. [`AgentWatchBuilder::after`]
    /// takes it, also in another process.
    pub fn revision(&self) -> u64 {
        self.0.revision()
    }
}
