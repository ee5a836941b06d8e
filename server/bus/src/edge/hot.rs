//! The runtimes that serve connections: current-thread ones, each on its own thread.
//!
//! A hot runtime also runs delivery's round (`tick`): partitions are drained after all
//! connections that were ready have been read. Events are looked at every 61 polls, tokio's own number: measured, nothing
//! is won by another.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use hyper::{body::Incoming, server::conn::http2};
use hyper_util::{rt::TokioIo, server::conn::auto};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service as _;

use super::{
    Counted, EdgeDeps, PeerAddress,
    acceptor::Held,
    limits::TURNED_AWAY_WITHIN,
    stall::Stall,
    stream::Connection,
    timed::{Timed, TimedExecutor},
};
use crate::{delivery::tick, telemetry::Metrics};

/// Connections on their way to a runtime. When it is full the acceptor drops the newest: a thread that does not come to
/// take sockets for that long serves nobody anyway.
const HANDED_MAX: usize = 4096;

/// Which connections a runtime serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// HTTP/2, with delivery's round.
    Hot,
    /// Everything else.
    Http1,
}

/// A connection on its way.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) connection: Connection,
    pub(super) peer: SocketAddr,
    pub(super) place: Place,
}

/// What a connection is here for. Counts it for as long as it lives.
#[derive(Debug)]
pub(super) enum Place {
    /// To be served.
    Served(#[expect(dead_code, reason = "counts until it is dropped")] Counted),
    /// To hear that there is no room.
    TurnedAway(#[expect(dead_code, reason = "counts until it is dropped")] Held),
}

/// The way to a runtime.
#[derive(Clone, Debug)]
pub(super) struct Runtime {
    sender: mpsc::Sender<Handed>,
    load: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

impl Runtime {
    pub(super) fn connections(&self) -> usize {
        self.load.load(Relaxed)
    }

    pub(super) fn load(&self) -> &Arc<AtomicUsize> {
        &self.load
    }

    pub(super) fn serve(&self, handed: Handed) {
        if let Err(error) = self.sender.try_send(handed) {
            self.metrics.connections_refused.inc();
            tracing::warn!("a serving thread takes no connections: {error}");
        }
    }
}

/// Starts a runtime on a thread of its own. The thread ends when the acceptor has gone and all connections have ended, or
/// when they are killed.
pub(super) fn start(kind: Kind, name: String, deps: &EdgeDeps) -> io::Result<(Runtime, JoinHandle<()>)> {
    let (sender, receiver) = mpsc::channel(HANDED_MAX);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Only hyper's and tonic's own needs; what blocks goes to the server's pool.
        .max_blocking_threads(2)
        .build()?;
    let serving = Serving {
        router: deps.router.clone(),
        full: deps.full.clone(),
        limits: deps.limits,
        metrics: Arc::clone(&deps.metrics),
        drain: deps.drain.clone(),
        kill: deps.kill.clone(),
        kind,
    };
    let thread = std::thread::Builder::new().name(name).spawn(move || runtime.block_on(serving.run(receiver)))?;
    Ok((Runtime { sender, load: Arc::default(), metrics: Arc::clone(&deps.metrics) }, thread))
}

struct Serving {
    router: axum::Router,
    full: axum::Router,
    limits: super::limits::EdgeLimits,
    metrics: Arc<Metrics>,
    drain: CancellationToken,
    kill: CancellationToken,
    kind: Kind,
}

impl Serving {
    async fn run(self, mut receiver: mpsc::Receiver<Handed>) {
        if self.kind == Kind::Hot {
            tick::install(Arc::clone(&self.metrics), self.limits.busy_poll);
        }
        let executor = TimedExecutor(Arc::clone(&self.metrics));
        let mut http2 = http2::Builder::new(executor.clone());
        self.limits.http2(&mut http2);
        let mut auto = auto::Builder::new(executor);
        self.limits.auto(&mut auto);
        let connections = TaskTracker::new();
        while let Some(handed) = receiver.recv().await {
            let turned_away = matches!(handed.place, Place::TurnedAway(_));
            // Who is turned away is answered once, and then asked to go.
            let drain = if turned_away { self.drain.child_token() } else { self.drain.clone() };
            let service = PerConnection {
                router: if turned_away { self.full.clone() } else { self.router.clone() },
                peer: handed.peer,
                once: turned_away.then(|| drain.clone()),
            };
            let ends = Ends { drain, kill: self.kill.clone(), stall_timeout: self.limits.stall_timeout() };
            let task = Timed::new(
                serve(self.kind, handed, service, http2.clone(), auto.clone(), ends),
                Arc::clone(&self.metrics),
            );
            #[expect(clippy::disallowed_methods, reason = "tracked here, and bounded by the number of connections")]
            if turned_away {
                tokio::spawn(connections.track_future(tokio::time::timeout(TURNED_AWAY_WITHIN, task)));
            } else {
                tokio::spawn(connections.track_future(task));
            }
        }
        connections.close();
        connections.wait().await;
    }
}

/// What ends a connection from this side.
struct Ends {
    /// The server drains.
    drain: CancellationToken,
    /// Its time to drain is over.
    kill: CancellationToken,
    /// The peer takes nothing any more.
    stall_timeout: Duration,
}

async fn serve(
    kind: Kind,
    mut handed: Handed,
    service: PerConnection,
    http2: http2::Builder<TimedExecutor>,
    auto: auto::Builder<TimedExecutor>,
    ends: Ends,
) {
    let Ends { drain, kill, stall_timeout } = ends;
    let _place = handed.place;
    let peer = handed.peer;
    if let Err(error) = handed.connection.join() {
        tracing::debug!(%peer, "connection lost on its way: {error}");
        return;
    }
    let io = TokioIo::new(Stall::new(handed.connection, stall_timeout));
    // In both loops: the connection future keeps its place over `select!`, and tokens are cancel-safe.
    macro_rules! drive {
        ($connection:expr) => {{
            let mut connection = std::pin::pin!($connection);
            let mut draining = false;
            loop {
                tokio::select! {
                    ended = connection.as_mut() => {
                        if let Err(error) = ended {
                            tracing::debug!(%peer, "connection ended: {}", reasons(error.into()));
                        }
                        return;
                    }
                    () = drain.cancelled(), if !draining => {
                        draining = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    () = kill.cancelled() => return,
                }
            }
        }};
    }
    match kind {
        Kind::Hot => drive!(http2.serve_connection(io, service)),
        Kind::Http1 => drive!(auto.serve_connection_with_upgrades(io, service)),
    }
}

/// An error and what caused it: of a connection that was cut, only the innermost says by which bound.
fn reasons(error: Box<dyn std::error::Error + Send + Sync>) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// The router as one connection sees it: every request knows where it comes from.
#[derive(Clone, Debug)]
struct PerConnection {
    router: axum::Router,
    peer: SocketAddr,
    /// Fired by the first request, after which there is to be no other.
    once: Option<CancellationToken>,
}

impl hyper::service::Service<http::Request<Incoming>> for PerConnection {
    type Response = axum::response::Response;
    type Error = std::convert::Infallible;
    type Future = axum::routing::future::RouteFuture<std::convert::Infallible>;

    fn call(&self, mut request: http::Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(PeerAddress(self.peer));
        if let Some(once) = &self.once {
            once.cancel();
        }
        // The router is ready at any time.
        self.router.clone().call(request)
    }
}
