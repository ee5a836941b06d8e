//! Every task of a client is born here: named, tracked, and ended with the client.

use std::future::Future;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A client's tasks.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    /// Ends them all.
    pub(crate) closing: CancellationToken,
}

impl Tasks {
    /// Starts a task. It must end by itself soon after `closing`.
    pub(crate) fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(async move {
            task.await;
            tracing::trace!(task = name, "ended");
        });
    }

    /// Waits until all tasks have ended.
    pub(crate) async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}
