//! The examples as users run them: the real programs, against the real server.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests fail by panicking, and wait for programs as they like"
)]

mod demo;
mod samples;
