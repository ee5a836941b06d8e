//! A TCP proxy whose faults a test commands: cut now, cut in the middle of what flows, hold, delay, trickle, swallow,
//! refuse.
//!
//! Faults are levels, not events: they hold for every connection until they are taken back, so a test cannot be too
//! early or too late with them. [`Proxy::cut`] alone is an event: it ends the connections that are there.

mod pump;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

use crate::server::{free_port, local};

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// What happens to bytes that go one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// Nothing moves, and nothing is lost: a network that holds its breath.
    pub hold: bool,
    /// Bytes are taken and dropped: a half-open connection, of which the sender knows nothing.
    pub swallow: bool,
    /// Each piece comes so much later.
    pub delay: Duration,
    /// At most so many bytes a second; 0 for no bound.
    pub bytes_per_second: u32,
}

/// What all connections of a proxy share.
#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    up: watch::Sender<Fault>,
    down: watch::Sender<Fault>,
    /// Raised to end the connections that are there.
    cuts: watch::Sender<u64>,
    /// Connections are taken and closed at once.
    refusing: watch::Sender<bool>,
    /// Bytes until the next cut of its own, by way; negative for never.
    budget: [AtomicI64; 2],
    accepted: AtomicU64,
    open: AtomicU64,
    carried: [AtomicU64; 2],
}

impl Shared {
    fn fault(&self, way: Way) -> &watch::Sender<Fault> {
        match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        }
    }

    fn cut(&self) {
        self.cuts.send_modify(|n| *n += 1);
    }
}

/// Stands between clients and a server. Ends when dropped, with its connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.acceptor.abort();
        self.shared.cut();
    }
}

impl Proxy {
    /// A faultless proxy to a target, which need not be there yet.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(local(free_port()?)).await.context("the proxy's port")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target,
            up: watch::Sender::default(),
            down: watch::Sender::default(),
            cuts: watch::Sender::default(),
            refusing: watch::Sender::default(),
            budget: [AtomicI64::new(-1), AtomicI64::new(-1)],
            accepted: AtomicU64::new(0),
            open: AtomicU64::new(0),
            carried: [AtomicU64::new(0), AtomicU64::new(0)],
        });
        let acceptor = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, acceptor })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends the connections that are there, at once and without a word.
    pub fn cut(&self) {
        self.shared.cut();
    }

    /// Ends the connections that are there when so many more bytes have gone one way: in the middle of a frame, if that
    /// is where they end.
    pub fn cut_after(&self, way: Way, bytes: u32) {
        self.shared.budget[way as usize].store(i64::from(bytes), Ordering::SeqCst);
    }

    /// Whether a commanded cut is still to come.
    pub fn is_armed(&self) -> bool {
        self.shared.budget.iter().any(|b| b.load(Ordering::SeqCst) >= 0)
    }

    /// New connections are closed at once, until [`Proxy::accept`]. Those that are there stay.
    pub fn refuse(&self) {
        self.shared.refusing.send_replace(true);
    }

    /// New connections are taken again.
    pub fn accept(&self) {
        self.shared.refusing.send_replace(false);
    }

    /// Changes what happens to bytes that go one way.
    pub fn set(&self, way: Way, fault: Fault) {
        self.shared.fault(way).send_replace(fault);
    }

    /// Nothing moves either way until [`Proxy::mend`].
    pub fn hold(&self) {
        for way in [Way::Up, Way::Down] {
            self.set(way, Fault { hold: true, ..Fault::default() });
        }
    }

    /// Takes every fault back.
    pub fn mend(&self) {
        self.accept();
        for way in [Way::Up, Way::Down] {
            self.set(way, Fault::default());
            self.shared.budget[way as usize].store(-1, Ordering::SeqCst);
        }
    }

    /// How many connections were taken.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// How many connections are there now.
    pub fn open(&self) -> u64 {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Bytes that went one way, over all connections.
    pub fn carried(&self, way: Way) -> u64 {
        self.shared.carried[way as usize].load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        if *shared.refusing.borrow() {
            pump::reset(&client);
            continue;
        }
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(serve(client, Arc::clone(&shared)));
    }
}

async fn serve(client: TcpStream, shared: Arc<Shared>) {
    // Seen before the connection is made, so that a cut in between ends it too.
    let cuts = shared.cuts.subscribe();
    let Ok(server) = TcpStream::connect(shared.target).await else {
        pump::reset(&client);
        return;
    };
    shared.open.fetch_add(1, Ordering::SeqCst);
    pump::run(client, server, &shared, cuts).await;
    shared.open.fetch_sub(1, Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::wait::{Level, PATIENCE, wait_until};

    /// A server that sends everything back.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        address
    }

    async fn pair() -> (Proxy, TcpStream) {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let client = TcpStream::connect(proxy.address()).await.unwrap();
        (proxy, client)
    }

    async fn said(client: &mut TcpStream, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        client.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    #[tokio::test]
    async fn a_faultless_proxy_carries_both_ways_and_counts() {
        let (proxy, mut client) = pair().await;
        client.write_all(b"hello").await.unwrap();
        assert_eq!(said(&mut client, 5).await, b"hello");
        assert_eq!((proxy.accepted(), proxy.open()), (1, 1));
        assert_eq!((proxy.carried(Way::Up), proxy.carried(Way::Down)), (5, 5));
    }

    #[tokio::test]
    async fn a_cut_ends_what_is_there_and_lets_new_ones_in() {
        let (proxy, mut client) = pair().await;
        client.write_all(b"a").await.unwrap();
        said(&mut client, 1).await;
        proxy.cut();
        let end = client.read(&mut [0; 1]).await;
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
        let mut again = TcpStream::connect(proxy.address()).await.unwrap();
        again.write_all(b"b").await.unwrap();
        assert_eq!(said(&mut again, 1).await, b"b");
    }

    #[tokio::test]
    async fn a_cut_after_so_many_bytes_falls_inside_a_write() {
        let (proxy, mut client) = pair().await;
        proxy.cut_after(Way::Down, 3);
        client.write_all(b"frame").await.unwrap();
        let mut got = Vec::new();
        let _ = client.read_to_end(&mut got).await;
        assert_eq!(got, b"fra");
        assert!(!proxy.is_armed());
    }

    #[tokio::test]
    async fn what_is_held_comes_when_it_is_let_go() {
        let (proxy, mut client) = pair().await;
        proxy.hold();
        client.write_all(b"x").await.unwrap();
        let mut byte = [0; 1];
        let early = tokio::time::timeout(Duration::from_millis(20), client.read(&mut byte)).await;
        assert!(early.is_err(), "it came while it was held");
        proxy.mend();
        assert_eq!(said(&mut client, 1).await, b"x");
    }

    #[tokio::test]
    async fn what_is_swallowed_never_comes() {
        let (proxy, mut client) = pair().await;
        proxy.set(Way::Up, Fault { swallow: true, ..Fault::default() });
        client.write_all(b"lost").await.unwrap();
        let gone = || async { Level::when(proxy.carried(Way::Up) == 4, (), proxy.carried(Way::Up)) };
        wait_until("the bytes to be taken", PATIENCE, gone).await.unwrap();
        proxy.mend();
        client.write_all(b"kept").await.unwrap();
        assert_eq!(said(&mut client, 4).await, b"kept");
    }

    #[tokio::test]
    async fn who_is_refused_is_told_by_the_closing() {
        let (proxy, _client) = pair().await;
        proxy.refuse();
        // The reset may come as early as with the answer to the connect itself.
        if let Ok(mut other) = TcpStream::connect(proxy.address()).await {
            assert!(matches!(other.read(&mut [0; 1]).await, Ok(0) | Err(_)));
        }
        proxy.accept();
        let mut again = TcpStream::connect(proxy.address()).await.unwrap();
        again.write_all(b"b").await.unwrap();
        assert_eq!(said(&mut again, 1).await, b"b");
    }

    #[tokio::test]
    async fn a_delay_and_a_trickle_take_their_time() {
        let (proxy, mut client) = pair().await;
        proxy.set(Way::Up, Fault { delay: Duration::from_millis(30), ..Fault::default() });
        proxy.set(Way::Down, Fault { bytes_per_second: 100, ..Fault::default() });
        let started = std::time::Instant::now();
        client.write_all(b"12345").await.unwrap();
        assert_eq!(said(&mut client, 5).await, b"12345");
        assert!(started.elapsed() >= Duration::from_millis(70), "{:?}", started.elapsed());
    }
}
