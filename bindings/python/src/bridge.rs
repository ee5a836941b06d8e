//! Between the kit's queue and an event loop: one descriptor in the loop, one drain a wake, futures resolved in a row.

use std::{
    collections::HashMap,
    os::fd::RawFd,
    sync::atomic::{AtomicBool, Ordering},
};

use acb_kit::{Completion, Handle, Logs, Outcome, Port, Submitted, Token, Wake as _, WakeFd};
use acb_sdk::{Error, ErrorCode};
use parking_lot::Mutex;
use pyo3::{
    intern,
    prelude::*,
    sync::PyOnceLock,
    types::{PyDict, PyFunction},
};

use crate::{
    call::{Call, Give},
    error::{OrRaise as _, exception},
};

/// Completions of one drain; the loop sees to its other work before the next.
const BATCH: usize = 256;

/// The kit's side of one event loop. Lives as long as its loop watches the descriptor.
#[pyclass(frozen, weakref, module = "acb_sdk._native")]
pub(crate) struct Bridge {
    port: Port<Give>,
    wake: WakeFd,
    /// What waits for its completion. The only references to the loop from here: without work there are none, so that a
    /// loop that is gone is gone.
    futures: Mutex<HashMap<Token, Py<PyAny>>>,
    closed: AtomicBool,
}

#[pymethods]
impl Bridge {
    #[new]
    fn new(py: Python<'_>) -> PyResult<Self> {
        let wake = WakeFd::new()?;
        Ok(Self {
            port: Port::new(wake.clone()).or_raise(py)?,
            wake,
            futures: Mutex::default(),
            closed: AtomicBool::new(false),
        })
    }

    /// What the loop watches.
    fn fileno(&self) -> RawFd {
        self.wake.fd()
    }

    /// Starts work. Gives its result, or a future (made by `create_future`) and the token that cancels it: `(value, None)`,
    /// `(future, token)`.
    fn start(
        &self,
        py: Python<'_>,
        call: &Bound<'_, Call>,
        create_future: &Bound<'_, PyAny>,
    ) -> PyResult<(Py<PyAny>, Option<u64>)> {
        let call = call.get();
        let operation = call.operation();
        if self.closed.load(Ordering::Acquire) {
            let text = "the event loop of the client is closed";
            return Err(exception(py, &Error::new(ErrorCode::ClientClosed, operation, text)));
        }
        let work = call.take(py)?;
        match self.port.submit_boxed(operation, work).or_raise(py)? {
            Submitted::Now(Ok(give)) => Ok((give(py)?, None)),
            Submitted::Now(Err(error)) => Err(exception(py, &error)),
            Submitted::Later(token) => {
                let future = match create_future.call0() {
                    Ok(future) => future.unbind(),
                    Err(error) => {
                        self.port.cancel(token);
                        return Err(error);
                    }
                };
                // The loop drains on this thread, so no completion is looked for before this is here.
                self.futures.lock().insert(token, future.clone_ref(py));
                Ok((future, Some(token.to_raw())))
            }
        }
    }

    /// Gives work up; its future is the caller's affair.
    fn cancel(&self, py: Python<'_>, token: u64) {
        let token = Handle::from_raw(token);
        let future = self.futures.lock().remove(&token);
        drop(future);
        py.detach(|| self.port.cancel(token));
    }

    /// Called by the loop when the descriptor is readable: resolves futures, a batch at a time.
    fn drain(&self, py: Python<'_>) -> PyResult<()> {
        self.wake.clear();
        let mut batch = Vec::new();
        let more = self.port.drain(&mut batch, BATCH);
        let mut outcome = Ok(());
        for Completion { token, outcome: result } in batch {
            let Some(future) = self.futures.lock().remove(&token) else { continue };
            // One that cannot be resolved does not hold up the others.
            if let Err(error) = resolve(py, future.bind(py), result) {
                outcome = Err(error);
            }
        }
        if more {
            // The loop comes back after its other work.
            self.wake.wake();
        }
        if !Logs::get().is_empty() {
            static FLUSH: PyOnceLock<Py<PyFunction>> = PyOnceLock::new();
            FLUSH.import(py, "acb_sdk._logging", "flush")?.call0()?;
        }
        outcome
    }

    /// Gives everything up, and gives back the futures that nobody will resolve now: who awaits them is to be told. May be
    /// called twice.
    fn close(&self, py: Python<'_>) -> Vec<Py<PyAny>> {
        self.closed.store(true, Ordering::Release);
        py.detach(|| self.port.close());
        let futures = std::mem::take(&mut *self.futures.lock());
        futures.into_values().collect()
    }

    /// Counts since the start, by name.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = self.port.stats();
        let out = PyDict::new(py);
        out.set_item("submitted", stats.submitted)?;
        out.set_item("at_once", stats.at_once)?;
        out.set_item("completed", stats.completed)?;
        out.set_item("cancelled", stats.cancelled)?;
        out.set_item("in_flight", stats.in_flight)?;
        out.set_item("wakes", stats.wakes)?;
        out.set_item("drains", stats.drains)?;
        out.set_item("queue_deepest", stats.queue_deepest)?;
        Ok(out)
    }
}

fn resolve(py: Python<'_>, future: &Bound<'_, PyAny>, outcome: Outcome<Give>) -> PyResult<()> {
    if future.call_method0(intern!(py, "done"))?.is_truthy()? {
        // Its task was cancelled; what came all the same is dropped, and with it whatever it opened.
        return Ok(());
    }
    let result = match outcome {
        Outcome::Done(give) => give(py),
        Outcome::Failed(error) => Err(exception(py, &error)),
        Outcome::Cancelled => {
            future.call_method0(intern!(py, "cancel"))?;
            return Ok(());
        }
    };
    match result {
        Ok(value) => future.call_method1(intern!(py, "set_result"), (value,))?,
        Err(error) => future.call_method1(intern!(py, "set_exception"), (error.into_value(py),))?,
    };
    Ok(())
}
