//! The thread that takes connections: bounds, TLS, protocol; then each goes to the runtime that serves it.
//!
//! TLS handshakes cost a millisecond of CPU each, so they happen here and not where messages flow. A connection that says
//! nothing in time is closed: a slow-loris costs a socket for ten seconds and nothing more.

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

use tokio::{net::TcpStream, sync::Semaphore};
use tokio_rustls::TlsAcceptor;

use super::{
    Counted, Crowd, EdgeDeps, Room,
    head::{Head, Protocol},
    hot::{Handed, Place, Runtime},
    limits::TURNED_AWAY_WITHIN,
    stream::{Connection, Greeted, Socket},
};

/// How long the acceptor waits after the system had no more sockets for it.
const PAUSE: Duration = Duration::from_millis(50);

struct Acceptor {
    deps: EdgeDeps,
    hot: Vec<Runtime>,
    http1: Runtime,
    crowd: Crowd,
    handshakes: Semaphore,
}

pub(super) fn start(
    listener: TcpListener,
    deps: &EdgeDeps,
    hot: Vec<Runtime>,
    http1: Runtime,
    connections: Arc<AtomicUsize>,
) -> io::Result<JoinHandle<()>> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let handshakes = Semaphore::new(deps.limits.handshakes_max);
    let crowd = Crowd::new(deps, connections);
    let acceptor = Arc::new(Acceptor { deps: deps.clone(), hot, http1, crowd, handshakes });
    std::thread::Builder::new().name("acb-acceptor".to_owned()).spawn(move || {
        runtime.block_on(async move {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => acceptor.run(listener).await,
                Err(error) => tracing::error!("not listening: {error}"),
            }
        });
    })
}

impl Acceptor {
    async fn run(self: Arc<Self>, listener: tokio::net::TcpListener) {
        loop {
            // Both are cancel-safe.
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.deps.stop_accepting.cancelled() => return,
            };
            match accepted {
                Ok((stream, peer)) => self.take(stream, peer),
                // The peer gave up before we looked: its affair.
                Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {}
                Err(error) => {
                    tracing::warn!("no connection taken: {error}");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn take(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        // Those in the handshake count too: they hold a socket.
        let timeout = self.deps.limits.handshake_timeout;
        let room = self.crowd.room(peer);
        let (count, within) = match room {
            Room::Served => (&self.crowd.connections, timeout),
            Room::TurnedAway => (&self.crowd.turned_away, timeout.min(TURNED_AWAY_WITHIN)),
            Room::Nowhere => return,
        };
        let full = room == Room::TurnedAway;
        let held = Held::new(count);
        let me = Arc::clone(self);
        let task = async move {
            let greeted = tokio::time::timeout(within, me.greet(stream)).await;
            match greeted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok((connection, _)) if full => me.turn_away(connection, peer, held),
                Ok((connection, protocol)) => me.hand(connection, protocol, peer, held),
                Err(error) if !full => me.refused(peer, &error),
                // Who is turned away was counted before.
                Err(_) => {}
            }
        };
        #[expect(clippy::disallowed_methods, reason = "bounded by the handshake's time and the number of connections")]
        tokio::spawn(task);
    }

    fn refused(&self, peer: SocketAddr, error: &io::Error) {
        self.deps.metrics.connections_refused.inc();
        tracing::debug!(%peer, "no handshake: {error}");
    }

    async fn greet(&self, stream: TcpStream) -> io::Result<(Connection, Protocol)> {
        stream.set_nodelay(true)?;
        let Some(tls) = &self.deps.tls else {
            let protocol = peek(&stream).await?;
            return Ok((Connection::Plain(Socket::Here(stream)), protocol));
        };
        let _slot = self.handshakes.acquire().await.map_err(io::Error::other)?;
        let mut stream = TlsAcceptor::from(Arc::clone(tls)).accept(Socket::Here(stream)).await?;
        let agreed = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let mut head = Head::default();
        let protocol = loop {
            match head.protocol() {
                Some(protocol) => break protocol,
                None if head.read(&mut stream).await? == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                None => {}
            }
        };
        if agreed && protocol != Protocol::Http2 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "h2 was agreed on and is not spoken"));
        }
        Ok((Connection::Tls(Box::new(Greeted::new(stream, head))), protocol))
    }

    fn hand(&self, mut connection: Connection, protocol: Protocol, peer: SocketAddr, held: Held) {
        let fewest = self.hot.iter().min_by_key(|r| r.connections());
        let runtime = match protocol {
            Protocol::Http2 => fewest.unwrap_or(&self.http1),
            Protocol::Http1 => &self.http1,
        };
        if let Err(error) = connection.leave() {
            return self.refused(peer, &error);
        }
        let counted = Counted::new(&self.crowd.connections, runtime.load(), &self.deps.metrics);
        drop(held);
        runtime.serve(Handed { connection, peer, place: Place::Served(counted) });
    }

    /// Hands it to where messages do not flow, whatever it speaks: there it hears why.
    fn turn_away(&self, mut connection: Connection, peer: SocketAddr, held: Held) {
        if connection.leave().is_ok() {
            self.http1.serve(Handed { connection, peer, place: Place::TurnedAway(held) });
        }
    }
}

/// Counts a connection while it is greeted, or while it is turned away.
#[derive(Debug)]
pub(super) struct Held(Arc<AtomicUsize>);

impl Held {
    pub(super) fn new(connections: &Arc<AtomicUsize>) -> Self {
        connections.fetch_add(1, Relaxed);
        Self(Arc::clone(connections))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Tells the protocol by the first bytes, without taking them.
async fn peek(stream: &TcpStream) -> io::Result<Protocol> {
    loop {
        let mut head = Head::default();
        if head.peek(stream).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match head.protocol() {
            Some(protocol) => return Ok(protocol),
            // Part of the preface: the rest is on its way. A peek does not wait for more, so we do.
            None => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
}
