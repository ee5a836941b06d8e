//! Transfers of content: a task of the kit moves the bytes, the guest looks in on it. Progress is the last that was told,
//! never a row of them: a guest that is slow to look sees fewer. So nothing of ours calls a guest from a foreign thread.
//!
//! Bytes that only the guest can read or write (its file objects) go through a [`Pipe`] of a bounded size, a piece at a
//! time.

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use acb_sdk::{Error, Progress};
use bytes::{Buf as _, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, DuplexStream, ReadBuf},
    sync,
};

use crate::{
    fork::Inherited,
    port::stop_panic,
    runtime::{Runtime, over},
};

/// Pieces that wait to be read by the core: with the one at hand, two stand beside the upload's window.
const PIECES_WAITING: usize = 1;
/// Bytes that wait to be taken by the guest, and the most that it takes at once.
const TAKEN_BYTES: usize = 1 << 20;

/// What a guest sees of a transfer.
#[derive(Clone, Copy, Debug, Default)]
struct News {
    progress: Option<Progress>,
    is_over: bool,
}

struct Shared<T> {
    operation: &'static str,
    news: sync::watch::Sender<News>,
    outcome: Mutex<Option<Result<T, Error>>>,
}

impl<T> Shared<T> {
    fn end(&self, outcome: Result<T, Error>) {
        let mut place = self.outcome.lock();
        if !self.news.borrow().is_over {
            *place = Some(outcome);
            drop(place);
            self.news.send_modify(|news| news.is_over = true);
        }
    }
}

/// Says that it is over also when its task is dropped.
struct Ending<T>(Arc<Shared<T>>);

impl<T> Drop for Ending<T> {
    fn drop(&mut self) {
        self.0.end(Err(over(self.0.operation)));
    }
}

/// Ends the task when it goes.
struct Task(tokio::task::AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A transfer under way. Dropping it gives it up.
pub struct Transfer<T>(Inherited<(Arc<Shared<T>>, Task)>);

impl<T> fmt::Debug for Transfer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transfer")
    }
}

impl<T: Send + 'static> Transfer<T> {
    /// Starts a transfer that `work` makes. It is given what tells its progress.
    ///
    /// # Errors
    /// `client_closed` when the runtime was ended.
    pub fn start<F>(
        operation: &'static str,
        work: impl FnOnce(Box<dyn Fn(Progress) + Send + Sync>) -> F,
    ) -> Result<Self, Error>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let runtime = Runtime::get()?;
        if runtime.is_over() {
            return Err(over(operation));
        }
        let news = sync::watch::Sender::new(News::default());
        let shared = Arc::new(Shared { operation, news, outcome: Mutex::new(None) });
        let told = Arc::clone(&shared);
        let tell = Box::new(move |progress| told.news.send_modify(|news| news.progress = Some(progress)));
        let work = stop_panic(operation, work(tell));
        let ending = Ending(Arc::clone(&shared));
        let task = runtime.handle().spawn(async move {
            let outcome = work.await;
            ending.0.end(outcome);
        });
        Ok(Self(Inherited::new((shared, Task(task.abort_handle())))))
    }

    /// Is done when there is progress that was not taken yet, or the transfer is over. Giving it up loses nothing.
    ///
    /// # Errors
    /// `client_forked`.
    pub fn news(&self) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        let shared = self.0.get("transfer").map(|(shared, _)| Arc::clone(shared));
        async move {
            let mut news = shared?.news.subscribe();
            // It is told of nothing more only when its sender is gone, which is here.
            let _ = news.wait_for(|news| news.is_over || news.progress.is_some()).await;
            Ok(())
        }
    }

    /// Is done when the transfer is over.
    ///
    /// # Errors
    /// `client_forked`.
    pub fn over(&self) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        let shared = self.0.get("transfer").map(|(shared, _)| Arc::clone(shared));
        async move {
            let mut news = shared?.news.subscribe();
            // As above.
            let _ = news.wait_for(|news| news.is_over).await;
            Ok(())
        }
    }

    /// Takes the last progress, when there is one that was not taken.
    pub fn progress(&self) -> Option<Progress> {
        let (shared, _) = self.0.get("transfer").ok()?;
        let mut taken = None;
        // Nobody waits for progress to go.
        shared.news.send_if_modified(|news| {
            taken = news.progress.take();
            false
        });
        taken
    }

    /// Takes what became of it: `None` while it is under way, and when it was taken.
    pub fn outcome(&self) -> Option<Result<T, Error>> {
        match self.0.get("transfer") {
            Ok((shared, _)) => shared.outcome.lock().take(),
            Err(error) => Some(Err(error)),
        }
    }

    /// Gives it up. May be called twice.
    pub fn close(&self) {
        if let Ok((_, task)) = self.0.get("transfer") {
            task.0.abort();
        }
    }
}

/// A way for bytes between a guest and a transfer.
#[derive(Debug)]
pub struct Pipe;

impl Pipe {
    /// The guest writes, the core reads.
    pub fn to_core() -> (PipeWriter, PipeReader) {
        let (give, take) = sync::mpsc::channel(PIECES_WAITING);
        let ended = Arc::new(AtomicBool::new(false));
        let writer = PipeWriter { give: Mutex::new(Some(give)), ended: Arc::clone(&ended) };
        (writer, PipeReader { take, ended, piece: Bytes::new() })
    }

    /// The core writes, the guest reads.
    pub fn to_guest() -> (DuplexStream, PipeTaker) {
        // Of two ways one is used: the other kind of pipe does not end when its writer goes.
        let (read, write) = tokio::io::duplex(TAKEN_BYTES);
        (write, PipeTaker(Arc::new(sync::Mutex::new(read))))
    }
}

/// The guest's end of a pipe to the core.
#[derive(Debug)]
pub struct PipeWriter {
    give: Mutex<Option<sync::mpsc::Sender<Bytes>>>,
    ended: Arc<AtomicBool>,
}

impl PipeWriter {
    /// Gives a piece, waiting for room: `false` when the transfer takes no more, and says why by its outcome.
    ///
    /// # Errors
    /// None of its own; the type is that of submitted work.
    pub fn write(&self, piece: Bytes) -> impl Future<Output = Result<bool, Error>> + Send + 'static {
        let give = self.give.lock().clone();
        async move {
            let Some(give) = give else { return Ok(false) };
            Ok(give.send(piece).await.is_ok())
        }
    }

    /// Says that what was given is all. A pipe that goes without this is broken, and is not taken for a whole.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.give.lock().take();
    }
}

/// The core's end of a pipe from the guest.
#[derive(Debug)]
pub struct PipeReader {
    take: sync::mpsc::Receiver<Bytes>,
    ended: Arc<AtomicBool>,
    piece: Bytes,
}

impl AsyncRead for PipeReader {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        while me.piece.is_empty() {
            match ready!(me.take.poll_recv(cx)) {
                Some(piece) => me.piece = piece,
                None if me.ended.load(Ordering::Acquire) => return Poll::Ready(Ok(())),
                None => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            }
        }
        let len = me.piece.len().min(into.remaining());
        into.put_slice(&me.piece[..len]);
        me.piece.advance(len);
        Poll::Ready(Ok(()))
    }
}

/// The guest's end of a pipe from the core.
#[derive(Clone, Debug)]
pub struct PipeTaker(Arc<sync::Mutex<DuplexStream>>);

impl PipeTaker {
    /// The next bytes, at most 1 MiB; empty when nothing ever comes again.
    ///
    /// # Errors
    /// None of its own; the type is that of submitted work.
    pub fn take(&self) -> impl Future<Output = Result<Bytes, Error>> + Send + 'static {
        let half = Arc::clone(&self.0);
        async move {
            let mut piece = BytesMut::with_capacity(TAKEN_BYTES);
            // A pipe in memory fails by ending.
            let _ = half.lock().await.read_buf(&mut piece).await;
            Ok(piece.freeze())
        }
    }
}

#[cfg(test)]
mod tests {
    use acb_sdk::ErrorCode;

    use super::*;

    #[tokio::test]
    async fn a_pipe_is_whole_when_its_end_was_said() {
        let (write, mut read) = Pipe::to_core();
        let reading = tokio::spawn(async move {
            let mut all = Vec::new();
            read.read_to_end(&mut all).await.map(|_| all)
        });
        for piece in ["ab", "", "c"] {
            assert!(write.write(piece.into()).await.unwrap());
        }
        write.end();
        assert_eq!(reading.await.unwrap().unwrap(), b"abc");
        assert!(!write.write("d".into()).await.unwrap(), "nobody takes more");
    }

    #[tokio::test]
    async fn a_pipe_that_just_goes_is_broken() {
        let (write, mut read) = Pipe::to_core();
        assert!(write.write("ab".into()).await.unwrap());
        drop(write);
        let error = read.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn what_a_transfer_wrote_is_taken_and_ends_when_its_writer_goes() {
        let (mut write, take) = Pipe::to_guest();
        let writing = tokio::spawn(async move {
            let piece = vec![7; TAKEN_BYTES + 3];
            tokio::io::AsyncWriteExt::write_all(&mut write, &piece).await
        });
        let mut sizes = Vec::new();
        loop {
            let piece = take.take().await.unwrap();
            if piece.is_empty() {
                break;
            }
            sizes.push(piece.len());
        }
        writing.await.unwrap().unwrap();
        assert_eq!(sizes.iter().sum::<usize>(), TAKEN_BYTES + 3);
        assert!(sizes.iter().all(|size| *size <= TAKEN_BYTES), "{sizes:?}");
    }

    #[tokio::test]
    async fn closing_a_transfer_drops_its_work_and_says_so() {
        struct Told(Option<sync::oneshot::Sender<()>>);
        impl Drop for Told {
            fn drop(&mut self) {
                let _ = self.0.take().map(|tell| tell.send(()));
            }
        }
        let (tell, told) = sync::oneshot::channel();
        let guard = Told(Some(tell));
        let transfer: Transfer<()> = Transfer::start("test", |_| async move {
            let _guard = guard;
            std::future::pending().await
        })
        .unwrap();
        assert!(transfer.outcome().is_none());
        transfer.close();
        told.await.unwrap();
        transfer.over().await.unwrap();
        assert_eq!(transfer.outcome().unwrap().unwrap_err().code(), ErrorCode::ClientClosed);
    }

    #[tokio::test]
    async fn a_panic_in_a_transfer_is_its_error() {
        let transfer: Transfer<()> = Transfer::start("test", |_| async { std::panic::panic_any("oh") }).unwrap();
        transfer.news().await.unwrap();
        assert_eq!(transfer.outcome().unwrap().unwrap_err().code(), ErrorCode::Internal);
    }
}
