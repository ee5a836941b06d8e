//! Background work: every task of the server is born here, has a name and ends with the server.

pub mod contexts;
pub mod sweep;
pub mod uploads;

use std::future::Future;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The server's tasks on its own runtime.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// None yet; all end when the token fires.
    pub fn new(stop: CancellationToken) -> Self {
        Self { tracker: TaskTracker::new(), stop }
    }

    /// Fires when the server's tasks are to end.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Runs a task on the present runtime until it ends or the server stops. What it does must bear to be dropped at any
    /// await.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.born(async move {
            // Both may be dropped at any time.
            tokio::select! {
                () = task => tracing::debug!(task = name, "ended"),
                () = stop.cancelled() => {}
            }
        });
    }

    /// Runs a task that nobody cuts short; shutdown waits for it, within its deadline.
    pub fn spawn_to_the_end(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.born(task);
    }

    #[expect(clippy::disallowed_methods, reason = "the one place where the server's tasks are born")]
    fn born(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(self.tracker.track_future(task));
    }

    /// Waits for all tasks.
    pub async fn finished(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}
