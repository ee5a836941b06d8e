//! What all watches have in common: one stream from the server after another, and one row of events for the caller.

use std::{collections::VecDeque, future::Future};

use tonic::{Request, Response, Status, Streaming};

use crate::{
    ErrorCode,
    client::Handle,
    connection::Link,
    convert,
    error::{Error, Result},
    retry::Schedule,
};

/// One frame of the server.
pub(crate) struct Seen<E> {
    pub(crate) events: Vec<E>,
    /// Up to here all was sent; 0 while the state is not complete, and where nothing ever changed.
    pub(crate) revision: u64,
    pub(crate) state_complete: bool,
}

/// Something that is watched: how its streams are asked for, and what their frames say.
pub(crate) trait Watched {
    type Request: Send;
    type Frame: Send + 'static;
    type Event: Send;

    const OPERATION: &'static str;

    /// What is asked for, after a revision; 0 begins with the state.
    fn request(&self, after: u64) -> Self::Request;

    fn open(
        core: &Handle,
        link: &Link,
        request: Request<Self::Request>,
    ) -> impl Future<Output = Result<Response<Streaming<Self::Frame>>, Status>> + Send;

    fn read(frame: Self::Frame) -> Result<Seen<Self::Event>>;

    /// The state is complete.
    fn synced(revision: u64) -> Self::Event;

    /// The state begins anew.
    fn restarted() -> Self::Event;

    /// An event of the state as one of a change.
    fn made_since(event: Self::Event) -> Self::Event;
}

/// A watch that is open. Dropping it ends it.
pub(crate) struct Watcher<W: Watched> {
    core: Handle,
    wish: W,
    stream: Option<(Link, Streaming<W::Frame>)>,
    pending: VecDeque<(u64, W::Event)>,
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

impl<W: Watched> Watcher<W> {
    /// Opens a watch: of changes after a revision, or with the state first when that is 0. What is refused is told here, as
    /// the first frame, which the server sends at once, shows that it was taken.
    pub(crate) async fn open(core: Handle, wish: W, after: u64) -> Result<Self> {
        let schedule = core.options().retry.schedule();
        let mut watch = Self {
            core,
            wish,
            stream: None,
            pending: VecDeque::new(),
            revision: after,
            told: after,
            synced: after != 0,
            begun: false,
            schedule,
            over: false,
        };
        watch.more().await?;
        Ok(watch)
    }

    /// The next event; `None` after an error that ended the watch.
    ///
    /// # Cancel safety
    /// No event is lost.
    pub(crate) async fn next(&mut self) -> Option<Result<W::Event>> {
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

    /// The revision up to which everything was handed out; 0 before the state is complete.
    pub(crate) fn revision(&self) -> u64 {
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
                    self.take(W::read(frame)?);
                    return Ok(());
                }
                Ok(None) => Error::new(ErrorCode::ConnectionLost, W::OPERATION, "the stream ended"),
                Err(status) => convert::error_from_status(W::OPERATION, &status),
            };
            self.stream = None;
            self.core.after_stream_error(&link, &error, &mut self.schedule).await?;
        }
    }

    fn take(&mut self, frame: Seen<W::Event>) {
        let before = self.revision;
        for event in frame.events {
            self.begun = true;
            // A watch that was complete before anything ever changed has no revision to resume from: what its second stream
            // shows as the state was made since.
            let event = if self.synced { W::made_since(event) } else { event };
            self.pending.push_back((before, event));
        }
        self.revision = self.revision.max(frame.revision);
        if !self.synced && frame.state_complete {
            self.synced = true;
            self.pending.push_back((frame.revision, W::synced(frame.revision)));
        } else if let Some((reached, _)) = self.pending.back_mut() {
            *reached = self.revision;
        }
    }

    /// Opens a stream from where the last one ended.
    async fn reopen(&mut self) -> Result<(Link, Streaming<W::Frame>)> {
        loop {
            let link = self.core.link().await.map_err(|e| e.with_operation(W::OPERATION))?;
            let mut request = Request::new(self.wish.request(self.revision));
            *request.metadata_mut() = self.core.metadata()?;
            match W::open(&self.core, &link, request).await {
                Ok(response) => {
                    if self.begun && !self.synced {
                        // What came of the state may have changed: it comes again, whole.
                        self.begun = false;
                        self.pending.clear();
                        self.pending.push_back((0, W::restarted()));
                    }
                    return Ok((link, response.into_inner()));
                }
                Err(status) => {
                    let error = convert::error_from_status(W::OPERATION, &status);
                    self.core.after_stream_error(&link, &error, &mut self.schedule).await?;
                }
            }
        }
    }
}
