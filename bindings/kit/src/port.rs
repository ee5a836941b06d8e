//! The way in: a guest submits work and gets a token, and for each token exactly one completion comes back.

use std::{
    any::Any,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use acb_sdk::{Error, ErrorCode};
use futures_util::{FutureExt as _, future::AbortHandle, future::Abortable};

use crate::{
    fork::Inherited,
    handle::{Handle, Handles},
    queue::{Queue, Wake},
    runtime::{Runtime, over},
    stats::Stats,
};

/// Work that may be on its way at once through one port.
pub const IN_FLIGHT_MAX: usize = 65_536;

/// Names work on its way. Stale once its completion was pushed.
pub type Token = Handle;

/// What became of work.
#[derive(Debug)]
pub enum Outcome<T> {
    /// It succeeded.
    Done(T),
    /// It did not, or it panicked (`internal`), or its runtime ended (`client_closed`).
    Failed(Error),
    /// The guest gave it up before it was done.
    Cancelled,
}

/// The end of one piece of work.
#[derive(Debug)]
pub struct Completion<T> {
    /// Which.
    pub token: Token,
    /// How.
    pub outcome: Outcome<T>,
}

/// What [`Port::submit`] made of work.
#[derive(Debug)]
pub enum Submitted<T> {
    /// It was over at once: no completion follows.
    Now(Result<T, Error>),
    /// It is on its way.
    Later(Token),
}

struct Shared<T> {
    queue: Queue<Completion<T>>,
    running: Handles<AbortHandle>,
    submitted: AtomicU64,
    at_once: AtomicU64,
    cancelled: AtomicU64,
    drains: AtomicU64,
}

/// One guest thread's or event loop's side of the border. Dropping it gives up what is on its way.
pub struct Port<T: Send + 'static> {
    shared: Inherited<Arc<Shared<T>>>,
    runtime: &'static Runtime,
}

impl<T: Send + 'static> std::fmt::Debug for Port<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Port").field("in_flight", &self.shared.running.len()).finish_non_exhaustive()
    }
}

/// The promise of exactly one completion: kept by [`Self::keep`], or by its drop.
struct Promise<T> {
    shared: Arc<Shared<T>>,
    token: Token,
    operation: &'static str,
    kept: bool,
}

impl<T> Promise<T> {
    fn keep(mut self, outcome: Outcome<T>) {
        self.kept = true;
        self.push(outcome);
    }

    fn push(&self, outcome: Outcome<T>) {
        // First out of the table, so that a token whose completion is there is stale.
        self.shared.running.remove(self.token);
        self.shared.queue.push(Completion { token: self.token, outcome });
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        if !self.kept {
            self.push(Outcome::Failed(over(self.operation)));
        }
    }
}

impl<T: Send + 'static> Port<T> {
    /// A port whose guest is told by `wake`.
    ///
    /// # Errors
    /// As [`Runtime::get`].
    pub fn new(wake: impl Wake + 'static) -> Result<Self, Error> {
        let shared = Shared {
            queue: Queue::new(wake),
            running: Handles::new(IN_FLIGHT_MAX),
            submitted: AtomicU64::new(0),
            at_once: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            drains: AtomicU64::new(0),
        };
        Ok(Self { shared: Inherited::new(Arc::new(shared)), runtime: Runtime::get()? })
    }

    /// Starts work. It is looked at once on the calling thread, so that what needs no waiting crosses no thread, and so
    /// that work of one thread begins in the order in which it was submitted; the rest runs on the kit's threads.
    ///
    /// # Errors
    /// `client_forked`; `client_closed` when the runtime was ended; `in_flight_limit` when [`IN_FLIGHT_MAX`] are on
    /// their way: the guest waits for a completion, then tries again. Nothing was started then.
    pub fn submit(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<Submitted<T>, Error> {
        self.submit_boxed(operation, Box::pin(work))
    }

    /// As [`Self::submit`], for work that is boxed already.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub fn submit_boxed(
        &self,
        operation: &'static str,
        mut work: Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>,
    ) -> Result<Submitted<T>, Error> {
        let shared = self.shared.get(operation)?;
        if self.runtime.is_over() {
            return Err(over(operation));
        }
        shared.submitted.fetch_add(1, Ordering::Relaxed);
        let first = {
            let _inside = self.runtime.handle().enter();
            let mut cx = Context::from_waker(Waker::noop());
            std::panic::catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(&mut cx)))
        };
        match first {
            Ok(Poll::Pending) => {}
            Ok(Poll::Ready(result)) => {
                shared.at_once.fetch_add(1, Ordering::Relaxed);
                return Ok(Submitted::Now(result));
            }
            Err(panic) => return Ok(Submitted::Now(Err(panicked(operation, &*panic)))),
        }
        let (abort, registration) = AbortHandle::new_pair();
        let token = shared.running.insert(abort).map_err(|_| {
            let text = format!("{IN_FLIGHT_MAX} calls are on their way");
            Error::new(ErrorCode::InFlightLimit, operation, text).with("limit", IN_FLIGHT_MAX.to_string())
        })?;
        let promise = Promise { shared: Arc::clone(shared), token, operation, kept: false };
        let work = Abortable::new(stop_panic(operation, work), registration);
        let task = async move {
            let outcome = match work.await {
                Ok(Ok(value)) => Outcome::Done(value),
                Ok(Err(error)) => Outcome::Failed(error),
                Err(_) => Outcome::Cancelled,
            };
            promise.keep(outcome);
        };
        // Its name is its token, its owner the port, its end the promise.
        self.runtime.handle().spawn(task);
        Ok(Submitted::Later(token))
    }

    /// Gives work up. Its one completion still comes: `Cancelled`, or what it was when it was quicker. Says whether it
    /// was still on its way.
    pub fn cancel(&self, token: Token) -> bool {
        if !self.shared.home().is_here() {
            return false;
        }
        let found = self.shared.running.with(token, |abort| abort.clone());
        match found {
            Some(abort) => {
                self.shared.cancelled.fetch_add(1, Ordering::Relaxed);
                abort.abort();
                true
            }
            None => false,
        }
    }

    /// Takes up to `max` completions. Says whether some are left; until this has said `false` there is no further wake.
    pub fn drain(&self, out: &mut Vec<Completion<T>>, max: usize) -> bool {
        if !self.shared.home().is_here() {
            return false;
        }
        self.shared.drains.fetch_add(1, Ordering::Relaxed);
        self.shared.queue.drain(out, max)
    }

    /// Gives everything up and wakes nobody any more, from the moment that this returns. May be called twice.
    pub fn close(&self) {
        if !self.shared.home().is_here() {
            return;
        }
        drop(self.shared.queue.close());
        for abort in self.shared.running.clear() {
            abort.abort();
        }
    }

    /// What happened so far.
    pub fn stats(&self) -> Stats {
        let shared = &**self.shared;
        let (wakes, completed, deepest) = shared.queue.counts();
        Stats {
            submitted: shared.submitted.load(Ordering::Relaxed),
            at_once: shared.at_once.load(Ordering::Relaxed),
            completed,
            cancelled: shared.cancelled.load(Ordering::Relaxed),
            in_flight: shared.running.len() as u64,
            wakes,
            drains: shared.drains.load(Ordering::Relaxed),
            queue_deepest: deepest as u64,
        }
    }
}

impl<T: Send + 'static> Drop for Port<T> {
    fn drop(&mut self) {
        self.close();
    }
}

/// Makes an error of a panic, so that none crosses the border.
pub async fn stop_panic<T>(operation: &'static str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(result) => result,
        Err(panic) => Err(panicked(operation, &*panic)),
    }
}

pub(crate) fn panicked(operation: &'static str, panic: &(dyn Any + Send)) -> Error {
    let said = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let text = format!("a fault in the client: {}", said.unwrap_or("it did not say what"));
    Error::new(ErrorCode::Internal, operation, text)
}
