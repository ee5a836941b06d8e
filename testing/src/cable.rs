//! A client's end of a connection, with the faults that a test commands between it and the bus.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use crate::network::{Faults, Way};

/// What others may do to a cable.
#[derive(Debug, Default)]
pub(crate) struct Cut {
    cut: AtomicBool,
    /// Who waits to read, and who to write.
    wakers: Mutex<[Option<Waker>; 2]>,
}

impl Cut {
    /// Ends the connection, for both sides, without a word.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        self.wake();
    }

    /// Lets who waits look again.
    pub(crate) fn wake(&self) {
        let wakers = std::mem::take(&mut *self.wakers.lock());
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }

    /// Notes who waits. Before the flags are looked at: what is set afterwards wakes.
    fn wait(&self, way: Way, cx: &Context<'_>) {
        let mut wakers = self.wakers.lock();
        let slot = &mut wakers[way as usize];
        if !slot.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *slot = Some(cx.waker().clone());
        }
    }
}

/// The client's end of a connection.
#[derive(Debug)]
pub(crate) struct Cable {
    /// Gone once it was cut: then the bus sees the end, too.
    pipe: Option<DuplexStream>,
    cut: Arc<Cut>,
    faults: Arc<Faults>,
}

impl Cable {
    pub(crate) fn new(pipe: DuplexStream, cut: Arc<Cut>, faults: Arc<Faults>) -> Self {
        Self { pipe: Some(pipe), cut, faults }
    }

    /// The pipe, when bytes may go this way now, and how many.
    fn ready(&mut self, way: Way, cx: &Context<'_>) -> Poll<io::Result<(Pin<&mut DuplexStream>, Option<usize>)>> {
        self.cut.wait(way, cx);
        if self.cut.is_cut() {
            self.pipe = None;
        }
        let Some(pipe) = &mut self.pipe else { return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())) };
        match self.faults.may_pass(way) {
            None => Poll::Pending,
            Some(most) => Poll::Ready(Ok((Pin::new(pipe), most))),
        }
    }
}

impl AsyncRead for Cable {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        let faults = Arc::clone(&me.faults);
        let (pipe, most) = match me.ready(Way::Down, cx) {
            Poll::Ready(ready) => ready?,
            Poll::Pending => return Poll::Pending,
        };
        let Some(most) = most else { return pipe.poll_read(cx, buf) };
        let mut part = buf.take(most);
        let polled = pipe.poll_read(cx, &mut part);
        let read = part.filled().len();
        // The part lies at the end of what is filled, and the pipe has written so much of it.
        let bytes = part.filled().to_vec();
        buf.put_slice(&bytes);
        if read > 0 {
            faults.passed(Way::Down, read);
        }
        polled
    }
}

impl AsyncWrite for Cable {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        let faults = Arc::clone(&me.faults);
        let (pipe, most) = match me.ready(Way::Up, cx) {
            Poll::Ready(ready) => ready?,
            Poll::Pending => return Poll::Pending,
        };
        let Some(most) = most else { return pipe.poll_write(cx, bytes) };
        let polled = pipe.poll_write(cx, &bytes[..most.min(bytes.len())]);
        if let Poll::Ready(Ok(written)) = polled {
            faults.passed(Way::Up, written);
        }
        polled
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().pipe {
            Some(pipe) => Pin::new(pipe).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().pipe {
            Some(pipe) => Pin::new(pipe).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}
