//! A watch of contexts.

use std::fmt;

use acb_proto::v1::{self, context_service_client::ContextServiceClient};
use acb_types::limits;
use tonic::{Request, Response, Status, Streaming};

use super::{builder::Filter, model::Context};
use crate::{
    client::Handle,
    connection::Link,
    convert,
    error::Result,
    watching::{Seen, Watched, Watcher},
};

/// Largest gRPC message that is read.
const FRAME_BYTES_MAX: usize = 4 << 20;

/// What a watch brings.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContextEvent {
    /// A context as it stands at the watch's first revision; by id.
    State(Context),
    /// The state is complete, as of this revision. What follows are changes.
    Synced(u64),
    /// A context was made, or came to match what is watched, or to be seen by the caller.
    Created(Context),
    /// A context changed.
    Updated(Context),
    /// A context was deleted, or matches no longer, or is no longer seen by the caller. A marker.
    Deleted(Context),
    /// A context's time was over. A marker.
    Expired(Context),
    /// The connection broke before the state was complete: forget what came so far, the state begins anew.
    Restarted,
}

impl ContextEvent {
    /// The context that it is about.
    pub fn context(&self) -> Option<&Context> {
        match self {
            Self::State(c) | Self::Created(c) | Self::Updated(c) | Self::Deleted(c) | Self::Expired(c) => Some(c),
            Self::Synced(_) | Self::Restarted => None,
        }
    }
}

/// What is watched.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    pub(crate) filter: Filter,
    pub(crate) after: u64,
    pub(crate) payload_bytes_max: u32,
}

/// A watch in the making. All conditions must hold; none watches all that the caller may see.
#[derive(Clone, Debug)]
#[must_use = "nothing is watched before the watch is opened"]
pub struct WatchBuilder {
    core: Handle,
    wish: Wish,
}

impl WatchBuilder {
    pub(super) fn new(core: Handle) -> Self {
        Self { core, wish: Wish::default() }
    }

    /// One context, by its id.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.wish.filter.id = id.into();
        self
    }

    /// Of exactly this key.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.wish.filter.key = key.into();
        self
    }

    /// With a key that begins so.
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.wish.filter.key_prefix = prefix.into();
        self
    }

    /// Of exactly this kind.
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.wish.filter.kind = kind.into();
        self
    }

    /// Made by this agent.
    pub fn owner(mut self, agent: impl Into<String>) -> Self {
        self.wish.filter.owner = agent.into();
        self
    }

    /// With this label; again for more, all of which it must have.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.wish.filter.labels.push(label.into());
        self
    }

    /// Begins with the changes after this revision instead of the state: one that an earlier watch, or a list, told.
    pub fn after(mut self, revision: u64) -> Self {
        self.wish.after = revision;
        self
    }

    /// Payloads of at most this many bytes come with their events: 0, which is the default, to 1 MiB.
    pub fn payloads_up_to(mut self, bytes: usize) -> Self {
        self.wish.payload_bytes_max = u32::try_from(bytes).unwrap_or(u32::MAX);
        self
    }

    /// Opens it.
    ///
    /// # Errors
    /// `revision_gap` with the detail `oldest_rev` when changes after [`Self::after`] are no longer kept: list what is there
    /// and watch from there. `too_many_streams`, `field_too_large`, `permission_denied`.
    pub async fn open(self) -> Result<ContextWatch> {
        let after = self.wish.after;
        Ok(ContextWatch(Watcher::open(self.core, self.wish, after).await?))
    }
}

impl Watched for Wish {
    type Request = v1::WatchRequest;
    type Frame = v1::WatchResponse;
    type Event = ContextEvent;

    const OPERATION: &'static str = "contexts.watch";

    fn request(&self, after: u64) -> v1::WatchRequest {
        convert::watch(self, after)
    }

    async fn open(
        core: &Handle,
        link: &Link,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Streaming<v1::WatchResponse>>, Status> {
        ContextServiceClient::with_origin(link.channel.clone(), core.origin().clone())
            .max_decoding_message_size(FRAME_BYTES_MAX + limits::CONTEXT_INLINE_BYTES_MAX)
            .watch(request)
            .await
    }

    fn read(frame: v1::WatchResponse) -> Result<Seen<ContextEvent>> {
        convert::contexts_seen(Self::OPERATION, frame)
    }

    fn synced(revision: u64) -> ContextEvent {
        ContextEvent::Synced(revision)
    }

    fn restarted() -> ContextEvent {
        ContextEvent::Restarted
    }

    fn made_since(event: ContextEvent) -> ContextEvent {
        match event {
            ContextEvent::State(context) => ContextEvent::Created(context),
            event => event,
        }
    }
}

/// A watch that is open. Dropping it ends it.
pub struct ContextWatch(Watcher<Wish>);

impl fmt::Debug for ContextWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContextWatch").field("revision", &self.revision()).finish_non_exhaustive()
    }
}

impl ContextWatch {
    /// The next event, waited for over broken connections and restarts of the server; `None` after an error that ended the
    /// watch.
    ///
    /// # Errors
    /// `revision_gap` when the client was away for longer than changes are kept; what else cannot be tried again.
    ///
    /// # Cancel safety
    /// No event is lost.
    pub async fn next(&mut self) -> Option<Result<ContextEvent>> {
        self.0.next().await
    }

    /// The revision up to which everything was handed out; 0 before the state is complete. [`WatchBuilder::after`] takes it,
    /// also in another process.
    pub fn revision(&self) -> u64 {
        self.0.revision()
    }
}
