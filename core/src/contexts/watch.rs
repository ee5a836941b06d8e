//! A watch: one stream from the server after another, and one row of events for the caller.

use std::{collections::VecDeque, fmt};

use acb_proto::v1::{WatchResponse, context_service_client::ContextServiceClient};
use acb_types::limits;
use tonic::{Request, Streaming};

use super::{builder::Filter, model::Context};
use crate::{
    client::Handle,
    connection::Link,
    convert,
    error::{Error, Result},
    retry::Schedule,
};

/// Largest gRPC message that is read.
const FRAME_BYTES_MAX: usize = 4 << 20;
const OPERATION: &str = "contexts.watch";

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

/// One frame of the server.
pub(crate) struct WatchFrame {
    pub(crate) events: Vec<ContextEvent>,
    pub(crate) revision: u64,
    pub(crate) state_complete: bool,
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
        let schedule = self.core.options().retry.schedule();
        let (synced, revision) = (self.wish.after != 0, self.wish.after);
        let mut watch = ContextWatch {
            core: self.core,
            wish: self.wish,
            stream: None,
            pending: VecDeque::new(),
            revision,
            told: revision,
            synced,
            begun: false,
            schedule,
            over: false,
        };
        // The first frame shows that the server has taken it; before that, what is refused is told here.
        watch.more().await?;
        Ok(watch)
    }
}

/// A watch that is open. Dropping it ends it.
pub struct ContextWatch {
    core: Handle,
    wish: Wish,
    stream: Option<(Link, Streaming<WatchResponse>)>,
    pending: VecDeque<(u64, ContextEvent)>,
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

impl fmt::Debug for ContextWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContextWatch").field("revision", &self.told).finish_non_exhaustive()
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

    /// The revision up to which everything was handed out; 0 before the state is complete. [`WatchBuilder::after`] takes it,
    /// also in another process.
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
                    self.take(convert::watch_frame(OPERATION, frame)?);
                    return Ok(());
                }
                Ok(None) => Error::new(crate::ErrorCode::ConnectionLost, OPERATION, "the stream ended"),
                Err(status) => convert::error_from_status(OPERATION, &status),
            };
            self.stream = None;
            self.core.after_stream_error(&link, &error, &mut self.schedule).await?;
        }
    }

    fn take(&mut self, frame: WatchFrame) {
        let before = self.revision;
        for event in frame.events {
            self.begun = true;
            self.pending.push_back((
                before,
                match event {
                    // A watch that was complete before anything ever changed has no revision to resume from: what its second
                    // stream shows as the state was made since.
                    ContextEvent::State(context) if self.synced => ContextEvent::Created(context),
                    event => event,
                },
            ));
        }
        self.revision = self.revision.max(frame.revision);
        if !self.synced && frame.state_complete {
            self.synced = true;
            self.pending.push_back((frame.revision, ContextEvent::Synced(frame.revision)));
        } else if let Some((reached, _)) = self.pending.back_mut() {
            *reached = self.revision;
        }
    }

    /// Opens a stream from where the last one ended.
    async fn reopen(&mut self) -> Result<(Link, Streaming<WatchResponse>)> {
        loop {
            let link = self.core.link().await.map_err(|e| e.with_operation(OPERATION))?;
            let mut request = Request::new(convert::watch(&Wish { after: self.revision, ..self.wish.clone() }));
            *request.metadata_mut() = self.core.metadata()?;
            let mut client = ContextServiceClient::with_origin(link.channel.clone(), self.core.origin().clone())
                .max_decoding_message_size(FRAME_BYTES_MAX + limits::CONTEXT_INLINE_BYTES_MAX);
            match client.watch(request).await {
                Ok(response) => {
                    if self.begun && !self.synced {
                        // What came of the state may have changed: it comes again, whole.
                        self.begun = false;
                        self.pending.clear();
                        self.pending.push_back((0, ContextEvent::Restarted));
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
