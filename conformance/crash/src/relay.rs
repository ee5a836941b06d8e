//! What stands between a client and its server and counts what leaves the client, byte for byte, whoever of the two is
//! killed.
//!
//! The server's own counters die with it, and a client's die with the client. The test kit's proxy counts what arrived
//! somewhere; this one reads a client to its end also when nobody is there to hear it any more.

use std::{net::SocketAddr, sync::Arc};

use acb_testkit::{
    server::{free_port, local},
    wait::{Level, PATIENCE, wait_until},
};
use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

use crate::count::Count;

/// Bytes that are taken at once.
const PIECE_BYTES: usize = 64 * 1024;

#[derive(Debug, Default)]
struct Shared {
    left: Count,
    connections: Count,
    ended: Count,
    is_shut: watch::Sender<bool>,
}

/// A relay to a server, on a port of its own. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

impl Relay {
    /// Begins to take connections.
    ///
    /// # Errors
    /// When no port can be had.
    pub(crate) async fn start(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(local(free_port()?)).await.context("the relay's port")?;
        let address = listener.local_addr()?;
        let shared = Arc::<Shared>::default();
        let acceptor = tokio::spawn(accept(listener, server, Arc::clone(&shared)));
        Ok(Self { address, shared, acceptor })
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets new connections wait, until [`Relay::open`]. Those that are there stay.
    pub(crate) fn shut(&self) {
        self.shared.is_shut.send_replace(true);
    }

    /// Serves connections again.
    pub(crate) fn open(&self) {
        self.shared.is_shut.send_replace(false);
    }

    /// Bytes that left clients so far, and connections that they went over.
    pub(crate) fn left(&self) -> (u64, u64) {
        (self.shared.left.get(), self.shared.connections.get())
    }

    /// Waits until so many bytes have left clients.
    pub(crate) async fn reach(&self, bytes: u64) {
        self.shared.left.reach(bytes).await;
    }

    /// Waits until every connection that was served has ended, and so all is counted that left over it.
    ///
    /// # Errors
    /// When one does not end.
    pub(crate) async fn quiet(&self) -> Result<()> {
        wait_until("the relay's connections to end", PATIENCE, || async {
            let (ended, begun) = (self.shared.ended.get(), self.shared.connections.get());
            Level::when(ended == begun, (), format!("{ended} of {begun} have ended"))
        })
        .await
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, shared: Arc<Shared>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            // It fails when the sender is gone, which `shared` has.
            let _ = shared.is_shut.subscribe().wait_for(|is_shut| !is_shut).await;
            shared.connections.add(1);
            if let Ok(server) = TcpStream::connect(server).await {
                carry(client, server, &shared.left).await;
            }
            shared.ended.add(1);
        });
    }
}

/// Carries both ways, until the client has ended.
async fn carry(client: TcpStream, server: TcpStream, left: &Count) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async {
        let (mut piece, mut is_heard) = (vec![0; PIECE_BYTES], true);
        while let Ok(len @ 1..) = from_client.read(&mut piece).await {
            left.add(len as u64);
            // What left the client was sent, whether or not the server lives to hear it.
            is_heard = is_heard && to_server.write_all(&piece[..len]).await.is_ok();
        }
        let _ = to_server.shutdown().await;
    };
    let down = async {
        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
        let _ = to_client.shutdown().await;
    };
    tokio::join!(up, down);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_client_sends_is_counted_though_its_server_dies() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = Relay::start(server.local_addr().unwrap()).await.unwrap();
        let mut client = TcpStream::connect(relay.address()).await.unwrap();
        let (mut dies, _) = server.accept().await.unwrap();
        client.write_all(b"heard").await.unwrap();
        dies.read_exact(&mut [0; 5]).await.unwrap();
        dies.set_zero_linger().unwrap();
        drop(dies);
        // The end comes back to the client, which still says something.
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
        client.write_all(b"unheard").await.unwrap();
        drop(client);
        relay.quiet().await.unwrap();
        assert_eq!(relay.left(), (12, 1));
    }
}
