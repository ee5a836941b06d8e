//! What belongs to the process and not to a client: its end, its logs, its dice.

use std::time::Duration;

use acb_kit::{Logs, Runtime};
use acb_sdk::IdempotencyKey;
use pyo3::prelude::*;

/// Ends the client's threads, waiting up to `within` seconds. Called by `atexit`, before the interpreter goes.
#[pyfunction]
pub(crate) fn shutdown(py: Python<'_>, within: f64) {
    if let Some(runtime) = Runtime::current() {
        let within = Duration::try_from_secs_f64(within).unwrap_or_default();
        py.detach(|| runtime.end(within));
    }
}

/// Takes the lines that the core has logged: level (1 error to 5 trace), target, text; and how many were dropped.
#[pyfunction]
pub(crate) fn drain_logs() -> (Vec<(u8, &'static str, String)>, u64) {
    let (lines, dropped) = Logs::get().drain();
    (lines.into_iter().map(|l| (l.level, l.target, l.text)).collect(), dropped)
}

/// Keeps lines up to this level, 0 for none.
#[pyfunction]
pub(crate) fn set_log_level(level: u8) {
    Logs::get().set_level(level);
}

/// A key against doubles, of 128 random bits.
#[pyfunction]
pub(crate) fn random_key() -> String {
    IdempotencyKey::random().as_str().to_owned()
}
