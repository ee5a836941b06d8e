//! From the core's error to an exception of the right class, with all its facts.

use acb_sdk::{Error, ErrorCode};
use pyo3::{
    prelude::*,
    sync::PyOnceLock,
    types::{PyDict, PyFunction},
};

/// The exception of an error. What class it is, `acb_sdk._errors` decides by its code.
pub(crate) fn exception(py: Python<'_>, error: &Error) -> PyErr {
    static MAKE: PyOnceLock<Py<PyFunction>> = PyOnceLock::new();
    let made = MAKE.import(py, "acb_sdk._errors", "from_native").and_then(|make| {
        let context = PyDict::new(py);
        for (name, value) in error.context() {
            context.set_item(name, value)?;
        }
        let gap = error.gap().map(|g| (g.from_seq, g.to_seq, g.reason.clone()));
        let retry_after = error.retry_after().map(|d| d.as_secs_f64());
        make.call1((
            error.code().name(),
            error.message(),
            error.operation(),
            error.is_retryable(),
            retry_after,
            error.request_id(),
            context,
            gap,
        ))
    });
    match made {
        Ok(exception) => PyErr::from_value(exception),
        // What went wrong in making it is the error then.
        Err(other) => other,
    }
}

/// An error of an argument: what was given and what it may be.
pub(crate) fn invalid(py: Python<'_>, operation: &'static str, field: &'static str, text: String) -> PyErr {
    exception(py, &Error::new(ErrorCode::InvalidArgument, operation, text).with("field", field))
}

/// The result of a core call as Python's.
pub(crate) trait OrRaise<T> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T>;
}

impl<T> OrRaise<T> for Result<T, Error> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|error| exception(py, &error))
    }
}
