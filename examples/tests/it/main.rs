//! The examples as users run them: the real programs, against the real server.

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    clippy::disallowed_methods,
    reason = "tests fail by panicking, wait for programs as they like, and include what the documentation shows"
)]

mod demo;
mod guides;
mod nouns;
mod samples;
