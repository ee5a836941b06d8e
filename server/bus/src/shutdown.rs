//! How the server stops: phases in order, each with a deadline.
//!
//! 1. Unready: probes and health say so, and balancers send nobody any more.
//! 2. No new connections.
//! 3. Streams are told that the server goes away and finish what they have; calls end. Consumers that are still there at
//!    the deadline are closed with `going_away`: their leases go to whoever comes next.
//! 4. Logs are flushed and closed, then the metadata.
//!
//! Nothing acknowledged depends on any of this: a killed server loses nothing either. What it spares is redeliveries and
//! clients that have to find out by themselves.

use std::{sync::Arc, time::Duration};

use acb_ports::MetadataStore;
use acb_types::ErrorCode;
use tokio_util::sync::CancellationToken;

use crate::{
    api::{grpc::Health, router::Readiness},
    config::ShutdownSettings,
    delivery::Delivery,
    edge::Edge,
    tasks::Tasks,
};

/// What streams have to end in after they were closed: no work is left then, only the last frames.
const LAST_FRAMES: Duration = Duration::from_secs(1);

/// Whether everything ended within its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clean {
    /// It did.
    Yes,
    /// A deadline passed: the log says which.
    No,
}

/// Everything that has to be stopped.
#[derive(Debug)]
pub(crate) struct Phases {
    pub(crate) settings: ShutdownSettings,
    pub(crate) readiness: Readiness,
    pub(crate) health: Health,
    pub(crate) stop_accepting: CancellationToken,
    pub(crate) drain: CancellationToken,
    pub(crate) kill: CancellationToken,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: Tasks,
    pub(crate) edge: Edge,
    pub(crate) delivery: Arc<Delivery>,
    pub(crate) metadata: Arc<dyn MetadataStore>,
}

impl Phases {
    pub(crate) async fn run(self, hurry: CancellationToken) -> Clean {
        let mut clean = Clean::Yes;
        tracing::info!(connections = self.edge.connections(), "stopping");
        self.readiness.set(false);
        self.health.set(false).await;
        self.stop_accepting.cancel();
        self.edge.close_pipes();
        self.drain.cancel();
        let drained = tokio::select! {
            drained = self.edge.drained(self.settings.drain_timeout) => drained,
            () = hurry.cancelled() => false,
        };
        if !drained {
            tracing::info!(connections = self.edge.connections(), "closing the streams that are still open");
            self.delivery.close_sessions(ErrorCode::GoingAway);
            if !self.edge.drained(LAST_FRAMES).await {
                tracing::warn!(connections = self.edge.connections(), "connections cut");
                clean = Clean::No;
            }
        }
        self.kill.cancel();
        self.stop.cancel();
        let (tasks, edge, delivery, metadata) = (self.tasks, self.edge, self.delivery, self.metadata);
        let flush = async move {
            tasks.finished().await;
            let closed = tokio::task::spawn_blocking(move || {
                edge.join();
                delivery.close();
            });
            if closed.await.is_err() {
                tracing::error!("closing the logs panicked");
            }
            if let Err(error) = metadata.close().await {
                tracing::error!("metadata not closed cleanly: {error}");
            }
        };
        if tokio::time::timeout(self.settings.flush_timeout, flush).await.is_err() {
            tracing::error!("logs and metadata were not closed in time; the next start recovers them");
            clean = Clean::No;
        }
        tracing::info!(clean = clean == Clean::Yes, "stopped");
        clean
    }

    /// Ends everything at once, as the end of the process would: nothing is flushed, and nothing more reaches a store.
    pub(crate) async fn abandon(self) {
        self.stop_accepting.cancel();
        self.edge.close_pipes();
        self.kill.cancel();
        self.stop.cancel();
        self.tasks.finished().await;
        let (edge, delivery) = (self.edge, self.delivery);
        let ended = tokio::task::spawn_blocking(move || {
            edge.join();
            delivery.abandon();
        });
        if ended.await.is_err() {
            tracing::error!("ending the threads panicked");
        }
    }
}
