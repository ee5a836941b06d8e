//! What proves the bus from outside: the real server as a process, faults on its network, clients of every kind, the
//! conformance scenarios with their runner, and the checker of crash histories.
//!
//! A dev-dependency and a set of programs; nothing of the product imports it. It may use anything, and keeps one rule:
//! a test waits for a level ([`wait`]), never for a span of time.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the bans are the product's: a test kit owns its tasks and its time"
)]

pub mod admin;
pub mod bus;
pub mod driver;
pub mod proxy;
pub mod raw;
pub mod scenario;
pub mod server;
pub mod wait;

pub use self::server::{Server, ServerOptions};
