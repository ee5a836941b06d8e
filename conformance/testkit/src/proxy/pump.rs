//! One connection of a proxy: two pumps, and the faults between.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

use super::{Fault, Shared, Way};

/// Bytes that a pump takes at once. Small, so that a held or slow proxy does not hide much in its own memory.
const PIECE_BYTES: usize = 16 * 1024;

/// Closes with a reset, as a machine does that went away: what is on the way is lost, and the peer's next word meets
/// nobody.
pub(super) fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

/// Carries bytes both ways until either side ends or the connection is cut.
pub(super) async fn run(client: TcpStream, server: TcpStream, shared: &Shared, mut cuts: watch::Receiver<u64>) {
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    cuts.mark_unchanged();
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let mut up = Pump { from: client_read, to: server_write, way: Way::Up, shared };
    let mut down = Pump { from: server_read, to: client_write, way: Way::Down, shared };
    let was_cut = {
        // Both pumps may be dropped at any time: nobody counts on what is on its way.
        let both = async { tokio::join!(up.run(), down.run()) };
        tokio::select! {
            _ = both => false,
            _ = cuts.changed() => true,
        }
    };
    if was_cut {
        reset(up.from.as_ref());
        reset(down.from.as_ref());
    }
}

struct Pump<'a> {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    way: Way,
    shared: &'a Shared,
}

impl Pump<'_> {
    /// Carries until the reading side ends, and then ends the writing side.
    async fn run(&mut self) {
        let mut faults = self.shared.fault(self.way).subscribe();
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            // A pump that is held does not even read: the sender's own window fills, as with a network that stands.
            let fault = match faults.wait_for(|fault| !fault.hold).await {
                Ok(fault) => *fault,
                Err(_) => return,
            };
            let most = if fault.bytes_per_second == 0 { PIECE_BYTES } else { 1 };
            let Ok(len @ 1..) = self.from.read(&mut buffer[..most]).await else { break };
            let fault = match faults.wait_for(|fault| !fault.hold).await {
                Ok(fault) => *fault,
                Err(_) => return,
            };
            if self.carry(&buffer[..len], fault).await.is_err() {
                break;
            }
        }
        let _ = self.to.shutdown().await;
    }

    async fn carry(&mut self, piece: &[u8], fault: Fault) -> std::io::Result<()> {
        if !fault.delay.is_zero() {
            tokio::time::sleep(fault.delay).await;
        }
        if fault.bytes_per_second != 0 {
            tokio::time::sleep(Duration::from_secs(1) / fault.bytes_per_second).await;
        }
        let (piece, last) = self.budgeted(piece);
        if !fault.swallow {
            self.to.write_all(piece).await?;
        }
        self.shared.carried[self.way as usize].fetch_add(piece.len() as u64, Ordering::SeqCst);
        if last {
            // The bytes before the cut must reach the other side: ended in order, and only then cut.
            self.to.shutdown().await?;
            self.shared.cut();
        }
        Ok(())
    }

    /// What of a piece still goes, and whether the connection ends with it.
    fn budgeted<'b>(&self, piece: &'b [u8]) -> (&'b [u8], bool) {
        let budget = &self.shared.budget[self.way as usize];
        let left = budget.load(Ordering::SeqCst);
        if left < 0 {
            return (piece, false);
        }
        let len = piece.len() as i64;
        if len < left {
            budget.store(left - len, Ordering::SeqCst);
            return (piece, false);
        }
        budget.store(-1, Ordering::SeqCst);
        (&piece[..left as usize], true)
    }
}
