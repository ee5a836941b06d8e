//! The end of patience with a peer that takes nothing.
//!
//! HTTP/2's own keep-alive finds such a peer too, but ends the connection in order: it waits until its last frame has
//! gone out, which it never does when the peer's window is shut. So a write that makes no progress has a bound of its own.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

/// A connection whose writes fail when the peer has taken no byte for a time.
#[derive(Debug)]
pub(super) struct Stall<T> {
    inner: T,
    bound: Duration,
    /// Runs while a write waits.
    since: Option<Pin<Box<Sleep>>>,
}

impl<T> Stall<T> {
    pub(super) fn new(inner: T, bound: Duration) -> Self {
        Self { inner, bound, since: None }
    }

    fn bounded<V>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<V>>) -> Poll<io::Result<V>> {
        if polled.is_ready() {
            self.since = None;
            return polled;
        }
        let bound = self.bound;
        let since = self.since.get_or_insert_with(|| Box::pin(tokio::time::sleep(bound)));
        std::task::ready!(since.as_mut().poll(cx));
        let text = format!("the peer took nothing for {} s", bound.as_secs_f64());
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Stall<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Stall<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.bounded(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.bounded(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        self.bounded(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.bounded(cx, polled)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
        time::Instant,
    };

    use super::*;

    const BOUND: Duration = Duration::from_secs(5);
    const JUST_BELOW: Duration = Duration::from_millis(4_999);

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_given_up_after_the_bound_and_not_before() {
        let (ours, _theirs) = duplex(10);
        let mut ours = Stall::new(ours, BOUND);
        let started = Instant::now();
        let error = ours.write_all(&[7; 11]).await.unwrap_err();
        assert_eq!((error.kind(), started.elapsed()), (io::ErrorKind::TimedOut, BOUND));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_something_in_time_may_take_for_ever() {
        let (ours, mut theirs) = duplex(1);
        let mut ours = Stall::new(ours, BOUND);
        let reading = async {
            for _ in 0..20 {
                tokio::time::sleep(JUST_BELOW).await;
                theirs.read_u8().await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(ours.write_all(&[7; 20]), reading);
        written.unwrap();
    }
}
