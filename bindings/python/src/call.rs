//! Work that may wait: started by an event loop's bridge, or waited for on the calling thread.

use std::{future::Future, pin::Pin, time::Duration};

use acb_kit::Waiting;
use acb_sdk::{Error, ErrorCode};
use parking_lot::Mutex;
use pyo3::prelude::*;

use crate::error::{OrRaise as _, exception, invalid};

/// A result on its way to Python: made into an object where the guest drains it, never on a thread of ours.
pub(crate) type Give = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;
/// Work whose result is given to Python.
pub(crate) type Work = Pin<Box<dyn Future<Output = Result<Give, Error>> + Send>>;

/// Longest timeout that a call may be given, in seconds: a day.
const TIMEOUT_MAX: f64 = 86_400.0;

/// Work that was not started yet. Start it once: with `Bridge.start`, or with `wait`.
#[pyclass(frozen, module = "acb_sdk._native")]
pub(crate) struct Call {
    operation: &'static str,
    work: Mutex<Option<Work>>,
    /// Of an async client: makes the coroutine that `await` runs.
    runner: Option<Py<PyAny>>,
}

impl Call {
    /// Work that gives what `give` makes of its result.
    pub(crate) fn new<T: Send + 'static>(
        operation: &'static str,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
        give: impl FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
    ) -> Self {
        let work: Work = Box::pin(async move {
            let value = work.await?;
            let give: Give = Box::new(move |py| give(py, value));
            Ok(give)
        });
        Self { operation, work: Mutex::new(Some(work)), runner: None }
    }

    /// The same, which an async guest can await as it is.
    pub(crate) fn run_by(mut self, runner: Option<Py<PyAny>>) -> Self {
        self.runner = runner;
        self
    }

    pub(crate) fn operation(&self) -> &'static str {
        self.operation
    }

    /// Takes the work out, to start it.
    pub(crate) fn take(&self, py: Python<'_>) -> PyResult<Work> {
        let again = || Error::new(ErrorCode::InvalidState, self.operation, "it was started before");
        self.work.lock().take().ok_or_else(again).or_raise(py)
    }
}

#[pymethods]
impl Call {
    /// Waits on this thread, with the interpreter released, looking for signals every 50 ms.
    pub(crate) fn wait(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let work = self.take(py)?;
        let operation = self.operation;
        let mut waiting = py.detach(|| Waiting::new(operation, work)).or_raise(py)?;
        loop {
            match py.detach(|| waiting.wait()) {
                Some(Ok(give)) => return give(py),
                Some(Err(error)) => return Err(exception(py, &error)),
                None => {
                    if let Err(interrupt) = py.check_signals() {
                        // Given up in the core too, before the exception goes on.
                        py.detach(|| drop(waiting));
                        return Err(interrupt);
                    }
                }
            }
        }
    }

    fn __await__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        if let Some(runner) = &slf.get().runner {
            return runner.bind(py).call1((slf,))?.call_method0("__await__");
        }
        let text = "what a sync client gives is not awaited";
        Err(exception(py, &Error::new(ErrorCode::InvalidState, slf.get().operation, text)))
    }
}

/// Nothing, as a result.
#[expect(clippy::unnecessary_wraps, reason = "one of those that give results")]
pub(crate) fn nothing(py: Python<'_>, _: ()) -> PyResult<Py<PyAny>> {
    Ok(py.None())
}

/// A timeout as Python gives it: seconds above 0, at most a day.
pub(crate) fn timeout(py: Python<'_>, operation: &'static str, seconds: Option<f64>) -> PyResult<Option<Duration>> {
    let Some(seconds) = seconds else { return Ok(None) };
    if !(seconds > 0.0 && seconds <= TIMEOUT_MAX) {
        let text = format!("timeout of {seconds} s is outside 0 to {TIMEOUT_MAX}");
        return Err(invalid(py, operation, "timeout", text));
    }
    Ok(Some(Duration::from_secs_f64(seconds)))
}

/// A span of time as Python gives it: seconds from 0 on.
pub(crate) fn span(py: Python<'_>, operation: &'static str, field: &'static str, seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| invalid(py, operation, field, format!("{field} of {seconds} s is no span of time")))
}

/// Unary calls with their own deadline, which travels with them.
pub(crate) async fn within<T>(
    timeout: Option<Duration>,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match timeout {
        Some(timeout) => acb_sdk::within(timeout, work).await,
        None => work.await,
    }
}

/// Work that is given up at its deadline on this side of the wire.
pub(crate) async fn limited<T>(
    operation: &'static str,
    timeout: Option<Duration>,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match timeout {
        None => work.await,
        Some(timeout) => tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorCode::Timeout, operation, format!("no answer within {timeout:?}")))
        }),
    }
}
