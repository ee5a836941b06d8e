//! One run of the server inside the fake: a thread with a runtime, from start to end.
//!
//! The runtime is the bus's own, so that a test may use any runtime, or none, and may block its thread.

use std::{thread::JoinHandle, time::Duration};

use acb_server::{Door, ServerBuilder, in_process::RouteLayer};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::error::FakeError;

/// Threads for what blocks: reads of logs, hashing of secrets.
const BLOCKING_THREADS: usize = 4;
/// How long such a thread stays for the next piece of work.
const BLOCKING_STAYS: Duration = Duration::from_secs(1);

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// In order: streams are told and finish, logs are flushed.
    Stop,
    /// As a killed process.
    Kill,
}

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Run {
    end: Option<oneshot::Sender<End>>,
    ended: Option<oneshot::Receiver<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What a start tells.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) run: Run,
    pub(crate) door: Door,
    pub(crate) admin_key: Option<String>,
}

impl Run {
    /// Starts a server on a thread of its own and waits until it serves.
    ///
    /// *Cancel safety*: dropped, the server ends by itself.
    pub(crate) async fn start(server: ServerBuilder, layer: Option<RouteLayer>) -> Result<Started, FakeError> {
        let (end, told_end) = oneshot::channel();
        let (tell_ended, ended) = oneshot::channel();
        let (tell, told) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_keep_alive(BLOCKING_STAYS)
            .thread_name("acb-fake-work")
            .build()?;
        let work = async move {
            let server = match server.start_in_process(layer).await {
                Ok(server) => server,
                Err(error) => return drop(tell.send(Err(FakeError::from(error)))),
            };
            if tell.send(Ok((server.door(), server.admin_key().map(str::to_owned)))).is_err() {
                return server.abandon().await;
            }
            // Whoever drops the run without a word kills it.
            match told_end.await.unwrap_or(End::Kill) {
                End::Stop => drop(server.shutdown(CancellationToken::new()).await),
                End::Kill => server.abandon().await,
            }
        };
        let thread = std::thread::Builder::new().name("acb-fake".to_owned()).spawn(move || {
            runtime.block_on(work);
            // Its blocking threads end with it, and only then is the run over.
            drop(runtime);
            let _ = tell_ended.send(());
        })?;
        let run = Self { end: Some(end), ended: Some(ended), thread: Some(thread) };
        let (door, admin_key) = told.await.map_err(|_| FakeError::Broken)??;
        Ok(Started { run, door, admin_key })
    }

    /// Ends the server and waits until nothing of it runs any more.
    ///
    /// *Cancel safety*: dropped, the end goes on, and the thread that drops it waits for it.
    pub(crate) async fn end(mut self, how: End) {
        if let Some(end) = self.end.take() {
            // One that ended by itself has nobody to tell.
            let _ = end.send(how);
        }
        if let Some(ended) = self.ended.take() {
            let _ = ended.await;
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.end = None;
        let Some(thread) = self.thread.take() else { return };
        // A panic of the thread has said so itself.
        let _ = thread.join();
    }
}
