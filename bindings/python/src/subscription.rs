//! Messages in: pulled in batches by whoever reads.

use acb_kit::Taken;
use acb_sdk::Subscription;
use pyo3::{prelude::*, types::PyList};

use crate::{
    call::{Call, limited, nothing, timeout},
    error::{OrRaise as _, exception, invalid},
    message::give_message,
};

const CLOSED: &str = "the subscription was left";

/// An open subscription.
#[pyclass(frozen, module = "acb_sdk._native")]
pub(crate) struct Feed {
    feed: acb_kit::Feed,
    name: String,
    runner: Option<Py<PyAny>>,
}

impl Feed {
    pub(crate) fn new(subscription: Subscription, runner: Option<Py<PyAny>>) -> Self {
        let name = subscription.name().to_owned();
        Self { feed: acb_kit::Feed::new(subscription), name, runner }
    }
}

#[pymethods]
impl Feed {
    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// How long a consumer has for one message, in seconds; `None` when it was left.
    #[getter]
    fn ack_wait(&self) -> Option<f64> {
        self.feed.with(|s| s.ack_wait().as_secs_f64())
    }

    /// Takes what is here, up to `max` messages and about so many bytes: a list, empty when nothing is here now, or
    /// `None` when nothing ever comes again.
    fn take<'py>(&self, py: Python<'py>, max: usize, bytes_max: usize) -> PyResult<Option<Bound<'py, PyList>>> {
        let mut batch = Vec::new();
        match self.feed.take(&mut batch, max, bytes_max) {
            Taken::Some | Taken::Empty => {}
            Taken::Over => return Ok(None),
            Taken::Failed(error) => return Err(exception(py, &error)),
        }
        let out = PyList::empty(py);
        for message in batch {
            out.append(give_message(py, message, self.runner.as_ref())?)?;
        }
        Ok(Some(out))
    }

    /// Is done when `take` has something to say. Giving it up loses nothing.
    fn ready(&self, py: Python<'_>, seconds: Option<f64>) -> PyResult<Call> {
        let operation = "subscription.next";
        let timeout = timeout(py, operation, seconds)?;
        Ok(Call::new(operation, limited(operation, timeout, self.feed.ready()), nothing))
    }

    fn set_credits(&self, py: Python<'_>, messages: u32, bytes: u64) -> PyResult<()> {
        let set = self.feed.with(|s| s.set_credits(messages, bytes));
        let left = || invalid(py, "subscription.set_max_pending", "subscription", CLOSED.to_owned());
        set.ok_or_else(left)?.or_raise(py)
    }

    /// Renews leases of what waits here, from now on.
    fn keep_leases(&self) {
        self.feed.with(Subscription::keep_leases);
    }

    /// Leaves. May be called twice.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.feed.close());
    }
}
