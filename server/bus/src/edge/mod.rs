//! The edge: one port for everything, from socket to router (DESIGN sections 3 and 7).
//!
//! An [`acceptor`] thread takes connections, does TLS and finds out which protocol they speak. HTTP/2, which carries the
//! hot streams, goes to the [`hot`] runtime with the fewest connections: current-thread runtimes, because a connection's
//! frames, its streams and the partitions' queues then share one core without locks that anybody waits for. HTTP/1 has a
//! runtime of its own, so that long polls and pages never stand in the way of acknowledgements. Both run one axum
//! router.

pub mod acceptor;
pub mod fd_limit;
pub mod head;
pub mod hot;
pub mod limits;
mod stall;
pub mod stream;
pub mod timed;
pub mod tls;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::io::DuplexStream;
use tokio_util::sync::CancellationToken;

use self::{limits::EdgeLimits, stream::Connection};
use crate::telemetry::Metrics;

/// Where a request comes from. In the extensions of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddress(pub SocketAddr);

/// What the edge stands on.
#[derive(Clone, Debug)]
pub struct EdgeDeps {
    /// Where requests go.
    pub router: axum::Router,
    /// Where those of connections go that are turned away: it answers each with the same error.
    pub full: axum::Router,
    /// TLS, when it is configured.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// What is bounded.
    pub limits: EdgeLimits,
    /// Hot runtimes; at least 1.
    pub hot_runtimes: usize,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Fires when no more connections are to be taken.
    pub stop_accepting: CancellationToken,
    /// Fires when connections are to finish what they have and end.
    pub drain: CancellationToken,
    /// Fires when connections are to end now.
    pub kill: CancellationToken,
}

/// The running edge.
#[derive(Debug)]
pub struct Edge {
    threads: Vec<JoinHandle<()>>,
    connections: Arc<AtomicUsize>,
    /// Of an edge without sockets: where its connections go.
    pipes: Option<Arc<Pipes>>,
}

/// Takes connections from inside this process.
#[derive(Debug)]
pub struct Pipes {
    /// Gone when no more connections are to be taken; the thread ends with the last of them.
    runtime: Mutex<Option<hot::Runtime>>,
    crowd: Crowd,
}

impl Pipes {
    /// Bytes on their way in a pipe, each way: what the sockets of a machine hold.
    const PIPE_BYTES: usize = 256 * 1024;

    /// Opens a connection: the client's end of it. HTTP/2 only. One that is over the bound hears so, as over a socket.
    ///
    /// # Errors
    /// `ConnectionRefused` when the server has stopped, and when [`limits::TURNED_AWAY_MAX`] are being turned away.
    pub fn connect(&self) -> io::Result<DuplexStream> {
        let runtime = self.runtime.lock();
        let runtime = runtime.as_ref().ok_or(io::ErrorKind::ConnectionRefused)?;
        let peer = SocketAddr::from(([127, 0, 0, 1], 0));
        let place = match self.crowd.room(peer) {
            Room::Served => {
                hot::Place::Served(Counted::new(&self.crowd.connections, runtime.load(), &self.crowd.metrics))
            }
            Room::TurnedAway => hot::Place::TurnedAway(acceptor::Held::new(&self.crowd.turned_away)),
            Room::Nowhere => return Err(io::ErrorKind::ConnectionRefused.into()),
        };
        let (client, server) = tokio::io::duplex(Self::PIPE_BYTES);
        runtime.serve(hot::Handed { connection: Connection::Piped(server), peer, place });
        Ok(client)
    }

    /// Takes no more.
    fn close(&self) {
        *self.runtime.lock() = None;
    }
}

impl Edge {
    /// Starts the threads. The listener is bound by the caller, so that a port that is taken is known before anything
    /// else is started.
    ///
    /// # Errors
    /// When a thread or a runtime cannot be had.
    pub fn start(listener: TcpListener, deps: &EdgeDeps) -> io::Result<Self> {
        let connections = Arc::new(AtomicUsize::new(0));
        let mut threads = Vec::new();
        let mut hot = Vec::new();
        for number in 0..deps.hot_runtimes.max(1) {
            let (runtime, thread) = hot::start(hot::Kind::Hot, format!("acb-hot-{number}"), deps)?;
            hot.push(runtime);
            threads.push(thread);
        }
        let (http1, thread) = hot::start(hot::Kind::Http1, "acb-http1".to_owned(), deps)?;
        threads.push(thread);
        threads.push(acceptor::start(listener, deps, hot, http1, Arc::clone(&connections))?);
        Ok(Self { threads, connections, pipes: None })
    }

    /// Starts an edge without sockets: one thread, which serves the connections that [`Pipes`] hands in.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_in_process(deps: &EdgeDeps) -> io::Result<(Self, Arc<Pipes>)> {
        let connections = Arc::new(AtomicUsize::new(0));
        let (runtime, thread) = hot::start(hot::Kind::Hot, "acb-hot-0".to_owned(), deps)?;
        let pipes =
            Arc::new(Pipes { runtime: Mutex::new(Some(runtime)), crowd: Crowd::new(deps, Arc::clone(&connections)) });
        Ok((Self { threads: vec![thread], connections, pipes: Some(Arc::clone(&pipes)) }, pipes))
    }

    /// Takes no more connections from inside this process. Those from sockets end by `stop_accepting`.
    pub fn close_pipes(&self) {
        if let Some(pipes) = &self.pipes {
            pipes.close();
        }
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// Waits until all connections have ended, for a time at most. Answers whether they have.
    /// Real time: a drain is bounded also when a manual clock stands still.
    pub async fn drained(&self, within: Duration) -> bool {
        let ended = async {
            while self.connections() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(within, ended).await.is_ok()
    }

    /// Waits for the threads. Blocks; call it from a blocking thread after all tokens have fired.
    pub fn join(self) {
        self.close_pipes();
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the edge panicked");
            }
        }
    }
}

/// How many connections there are, and how many may be.
#[derive(Debug)]
struct Crowd {
    connections: Arc<AtomicUsize>,
    connections_max: usize,
    /// Connections over the bound, which are told so.
    turned_away: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

/// Where a new connection belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    /// There is room for it.
    Served,
    /// It is over the bound, and hears so.
    TurnedAway,
    /// [`limits::TURNED_AWAY_MAX`] are being told so already: it is closed without a word.
    Nowhere,
}

impl Crowd {
    fn new(deps: &EdgeDeps, connections: Arc<AtomicUsize>) -> Self {
        Self {
            connections,
            connections_max: deps.limits.connections_max,
            turned_away: Arc::default(),
            metrics: Arc::clone(&deps.metrics),
        }
    }

    /// Where one more belongs. Whoever asks counts it there before the next is asked for.
    fn room(&self, peer: SocketAddr) -> Room {
        if self.connections.load(Relaxed) < self.connections_max {
            return Room::Served;
        }
        self.metrics.connections_refused.inc();
        tracing::warn!(%peer, limit = self.connections_max, "too many connections, one turned away");
        let told = self.turned_away.load(Relaxed) < limits::TURNED_AWAY_MAX;
        if told { Room::TurnedAway } else { Room::Nowhere }
    }
}

/// Counts a connection for as long as it lives.
#[derive(Debug)]
pub(crate) struct Counted {
    all: Arc<AtomicUsize>,
    runtime: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

impl Counted {
    fn new(all: &Arc<AtomicUsize>, runtime: &Arc<AtomicUsize>, metrics: &Arc<Metrics>) -> Self {
        all.fetch_add(1, Relaxed);
        runtime.fetch_add(1, Relaxed);
        metrics.connections.inc();
        metrics.connections_accepted.inc();
        Self { all: Arc::clone(all), runtime: Arc::clone(runtime), metrics: Arc::clone(metrics) }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Relaxed);
        self.runtime.fetch_sub(1, Relaxed);
        self.metrics.connections.dec();
    }
}
