//! The threads of the kit: one tokio runtime a process, made when it is first needed, ended in two phases.

use std::{
    future::Future,
    ptr,
    sync::atomic::{AtomicPtr, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use acb_sdk::{Error, ErrorCode};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::fork::Home;

/// Threads that run clients. Two, so that one that computes does not stop the others' acknowledgements; the work of a
/// client is small beside its guest's.
pub const WORKERS: usize = 2;
/// Threads for what blocks: looking up names, reading files.
const BLOCKING_MAX: usize = 4;
/// A thread for what blocks ends after this without work.
const BLOCKING_KEPT: Duration = Duration::from_secs(10);

/// The runtime of this process. Made once and never freed: a handle may be asked at any time, also after the end.
#[derive(Debug)]
pub struct Runtime {
    home: Home,
    handle: tokio::runtime::Handle,
    runtime: Mutex<Option<tokio::runtime::Runtime>>,
    /// Told first of all when it ends, so that nobody waits on a timer that goes.
    ending: watch::Sender<bool>,
    /// Guests' threads inside [`Self::wait`].
    waiting: AtomicUsize,
}

static CURRENT: AtomicPtr<Runtime> = AtomicPtr::new(ptr::null_mut());

impl Runtime {
    /// This process's. A child that was forked gets its own; its parent's is left alone.
    ///
    /// # Errors
    /// `internal` when the process may have no more threads.
    #[expect(unsafe_code, reason = "a lock here could be one that a fork left locked")]
    pub fn get() -> Result<&'static Self, Error> {
        loop {
            let current = CURRENT.load(Ordering::Acquire);
            if !current.is_null() {
                // SAFETY: whatever is stored there came from `Box::leak` and is never freed.
                let current: &'static Self = unsafe { &*current };
                if current.home.is_here() {
                    return Ok(current);
                }
            }
            let fresh = Box::leak(Box::new(Self::start()?));
            match CURRENT.compare_exchange(current, fresh, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(fresh),
                // Another thread was first: what this one started ends again.
                Err(_) => fresh.end(Duration::ZERO),
            }
        }
    }

    /// This process's, if one was made.
    #[expect(unsafe_code, reason = "as in `get`")]
    pub fn current() -> Option<&'static Self> {
        let current = CURRENT.load(Ordering::Acquire);
        // SAFETY: whatever is stored there came from `Box::leak` and is never freed.
        let current: Option<&'static Self> = unsafe { current.as_ref() };
        current.filter(|r| r.home.is_here())
    }

    fn start() -> Result<Self, Error> {
        let home = Home::here();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .max_blocking_threads(BLOCKING_MAX)
            .thread_keep_alive(BLOCKING_KEPT)
            .thread_name("acb-sdk")
            .enable_all()
            .build()
            .map_err(|e| Error::new(ErrorCode::Internal, "connect", "no threads for the client").with_source(e))?;
        let handle = runtime.handle().clone();
        let runtime = Mutex::new(Some(runtime));
        Ok(Self { home, handle, runtime, ending: watch::Sender::new(false), waiting: AtomicUsize::new(0) })
    }

    /// Where tasks go.
    pub fn handle(&self) -> &tokio::runtime::Handle {
        &self.handle
    }

    /// Runs a future on the calling thread, for at most `slice`. `None` when it is not done by then; it can go on.
    ///
    /// # Errors
    /// `client_closed` when the runtime ends meanwhile.
    ///
    /// # Panics
    /// On a thread of the runtime itself.
    pub fn wait<T, F>(&self, operation: &'static str, future: &mut F, slice: Duration) -> Option<Result<T, Error>>
    where
        F: Future<Output = Result<T, Error>> + Unpin,
    {
        let _inside = Inside::new(&self.waiting);
        let mut ending = self.ending.subscribe();
        if *ending.borrow() {
            return Some(Err(over(operation)));
        }
        self.handle.block_on(async {
            // All three may be dropped at any await: the future goes on with the next slice.
            tokio::select! {
                biased;
                _ = ending.wait_for(|over| *over) => Some(Err(over(operation))),
                done = tokio::time::timeout(slice, future) => done.ok(),
            }
        })
    }

    /// Ends all threads, waiting for them up to `within`. What was running is dropped, and its tokens are completed; who
    /// waits on a thread of its own is told. No task starts after this. May be called twice.
    pub fn end(&self, within: Duration) {
        /// How often it is looked whether all who waited have gone.
        const LOOK: Duration = Duration::from_millis(1);
        self.ending.send_replace(true);
        let until = Instant::now() + within;
        while self.waiting.load(Ordering::Acquire) > 0 && Instant::now() < until {
            std::thread::park_timeout(LOOK);
        }
        let runtime = self.runtime.lock().take();
        if let Some(runtime) = runtime {
            runtime.shutdown_timeout(until.saturating_duration_since(Instant::now()));
        }
    }

    /// Whether it was ended.
    pub fn is_over(&self) -> bool {
        *self.ending.borrow()
    }
}

/// The process ends, and the client with it.
pub(crate) fn over(operation: &'static str) -> Error {
    Error::new(ErrorCode::ClientClosed, operation, "the process ends")
}

/// Counts a thread that waits.
struct Inside<'a>(&'a AtomicUsize);

impl<'a> Inside<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
