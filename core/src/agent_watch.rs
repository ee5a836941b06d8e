//! A watch of agents: one stream from the server after another, and one row of events for the caller.

use std::{collections::VecDeque, fmt};

use acb_proto::v1::{WatchAgentsResponse, agent_registry_client::AgentRegistryClient};
use tonic::{Request, Streaming};

use crate::{
    agents::Agent,
    client::Handle,
    connection::Link,
    convert,
    error::{Error, Result},
    retry::Schedule,
};

const OPERATION: &str = "agents.watch";

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
        let schedule = self.core.options().retry.schedule();
        let (synced, revision) = (self.wish.after != 0, self.wish.after);
        let stream = None;
        let mut watch = AgentWatch {
            core: self.core,
            wish: self.wish,
            stream,
            pending: VecDeque::new(),
            revision,
            told: revision,
            synced,
            begun: false,
            schedule,
            over: false,
        };
        // What is refused is told here. A resumed watch may have nothing to say for a while, and is open all the same.
        watch.stream = Some(watch.reopen().await?);
        Ok(watch)
    }
}

/// A watch of agents that is open. Dropping it ends it.
pub struct AgentWatch {
    core: Handle,
    wish: Wish,
    stream: Option<(Link, Streaming<WatchAgentsResponse>)>,
    pending: VecDeque<(u64, AgentEvent)>,
    /// Up to here all frames came.
    revision: u64,
    /// Up to here all events were handed out.
    told: u64,
    synced: bool,
    /// Whether events of a state that is not complete were taken.
    begun: bool,
    schedule: Schedule,
    over: bool,
}

impl fmt::Debug for AgentWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentWatch").field("revision", &self.told).finish_non_exhaustive()
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
        loop {
            if let Some((revision, event)) = self.pending.pop_front() {
                self.told = self.told.max(revision);
                return Some(Ok(event));
            }
            self.told = self.revision;
            if self.over {
                return None;
            }
            if let Err(error) = self.more().await {
                self.over = true;
                self.stream = None;
                return Some(Err(error));
            }
        }
    }

    /// The revision up to which everything was handed out; 0 before the state is complete. [`AgentWatchBuilder::after`]
    /// takes it, also in another process.
    pub fn revision(&self) -> u64 {
        if self.synced { self.told } else { 0 }
    }

    /// Takes one more frame.
    async fn more(&mut self) -> Result<()> {
        loop {
            if self.stream.is_none() {
                self.stream = Some(self.reopen().await?);
            }
            // It stays where it is during the wait: a caller who drops that finds it again.
            let Some((link, stream)) = &mut self.stream else { continue };
            let link = link.clone();
            let error = match stream.message().await {
                Ok(Some(frame)) => {
                    self.schedule.reset();
                    return self.take(frame);
                }
                Ok(None) => Error::new(crate::ErrorCode::ConnectionLost, OPERATION, "the stream ended"),
                Err(status) => convert::error_from_status(OPERATION, &status),
            };
            self.stream = None;
            self.core.after_stream_error(&link, &error, &mut self.schedule).await?;
        }
    }

    fn take(&mut self, frame: WatchAgentsResponse) -> Result<()> {
        let before = self.revision;
        for event in frame.events {
            self.begun = true;
            if let Some(event) = convert::agent_event(OPERATION, event)? {
                self.pending.push_back((before, event));
            }
        }
        self.revision = self.revision.max(frame.revision);
        if !self.synced && frame.revision != 0 {
            self.synced = true;
            self.pending.push_back((frame.revision, AgentEvent::Synced(frame.revision)));
        } else if let Some((reached, _)) = self.pending.back_mut() {
            *reached = self.revision;
        }
        Ok(())
    }

    /// Opens a stream from where the last one ended.
    async fn reopen(&mut self) -> Result<(Link, Streaming<WatchAgentsResponse>)> {
        loop {
            let link = self.core.link().await.map_err(|e| e.with_operation(OPERATION))?;
            let mut request = Request::new(convert::watch_agents(&self.wish, self.revision));
            *request.metadata_mut() = self.core.metadata()?;
            let mut client = AgentRegistryClient::with_origin(link.channel.clone(), self.core.origin().clone());
            match client.watch_agents(request).await {
                Ok(response) => {
                    if self.begun && !self.synced {
                        // What came of the state may have changed: it comes again, whole.
                        self.begun = false;
                        self.pending.clear();
                        self.pending.push_back((0, AgentEvent::Restarted));
                    }
                    return Ok((link, response.into_inner()));
                }
                Err(status) => {
                    let error = convert::error_from_status(OPERATION, &status);
                    self.core.after_stream_error(&link, &error, &mut self.schedule).await?;
                }
            }
        }
    }
}
