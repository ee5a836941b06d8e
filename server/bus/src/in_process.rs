//! The server inside another program: everything but sockets. Connections are pipes, the admin listener is functions.
//!
//! It is what `acb-testing` gives to people's tests: the use cases, the delivery, the codecs and the connection handling
//! that users meet, over whichever stores they are given. What is missing are the listeners, TLS, and the check that a
//! manual clock goes with `--dev` only: nobody but the program itself can reach it.

use std::{fmt, io, sync::Arc, time::Duration};

use acb_types::{Now, Timestamp};
use tokio::io::DuplexStream;
use tokio_util::sync::CancellationToken;

use crate::{
    api::admin::AdminDeps,
    edge::{Edge, Pipes},
    server::{ServerBuilder, StartError},
    shutdown::{Clean, Phases},
};

/// What stands between the connections and the routes; see [`ServerBuilder::start_in_process`].
pub type RouteLayer = Arc<dyn Fn(axum::Router) -> axum::Router + Send + Sync>;

/// A running server without sockets.
#[derive(Debug)]
pub struct InProcess {
    door: Door,
    admin_key: Option<String>,
    phases: Phases,
}

/// The way in, and the hands of the clock. Cheap to clone; usable from any thread.
#[derive(Clone)]
pub struct Door {
    pipes: Arc<Pipes>,
    admin: AdminDeps,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("pipes", &self.pipes).finish_non_exhaustive()
    }
}

impl ServerBuilder {
    /// Starts without sockets. Must run inside a tokio runtime, which the server's own tasks and blocking work then use;
    /// connections have a thread of their own. `layer`, when there is one, is put around all routes.
    ///
    /// # Errors
    /// See [`StartError`]. Nothing is left running then.
    pub async fn start_in_process(self, layer: Option<RouteLayer>) -> Result<InProcess, StartError> {
        let mut inside = self.assemble().await?;
        if let Some(layer) = layer {
            inside.routes = layer(inside.routes);
        }
        let (edge, pipes) = Edge::start_in_process(&inside.edge_deps(None)).map_err(StartError::Thread)?;
        let door = Door { pipes, admin: inside.admin.clone() };
        let (admin_key, phases) = inside.serve(edge).await;
        Ok(InProcess { door, admin_key, phases })
    }
}

impl InProcess {
    /// The way in.
    pub fn door(&self) -> Door {
        self.door.clone()
    }

    /// The admin key, when this start made one. Nobody can show it again.
    pub fn admin_key(&self) -> Option<&str> {
        self.admin_key.as_deref()
    }

    /// Stops in order, as [`crate::ServerHandle::shutdown`].
    pub async fn shutdown(self, hurry: CancellationToken) -> Clean {
        self.phases.run(hurry).await
    }

    /// Ends as a killed process does: nothing is drained, flushed or closed, and clients hear nothing but the end of
    /// their connections. When this returns, nothing of the server runs any more.
    pub async fn abandon(self) {
        self.phases.abandon().await;
    }
}

impl Door {
    /// Opens a connection: the client's end of a pipe that speaks HTTP/2.
    ///
    /// # Errors
    /// `ConnectionRefused` when the server has stopped.
    pub fn connect(&self) -> io::Result<DuplexStream> {
        self.pipes.connect()
    }

    /// Moves a manual clock on, and deals with what came due thereby before it returns. `None` when the clock is the
    /// machine's.
    pub fn advance(&self, span: Duration) -> Option<Now> {
        self.admin.advance(span)
    }

    /// Sets the wall half of a manual clock; no time passes by it. `None` when the clock is the machine's.
    pub fn set_wall(&self, wall: Timestamp) -> Option<Now> {
        self.admin.set_wall(wall)
    }

    /// The time on the server's clock.
    pub fn now(&self) -> Now {
        self.admin.clock.now()
    }

    /// What is counted, as Prometheus reads it.
    ///
    /// # Errors
    /// When it cannot be written as text.
    pub fn metrics(&self) -> Result<String, fmt::Error> {
        self.admin.metrics_text()
    }
}
