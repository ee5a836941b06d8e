//! The client against a scripted peer that speaks real HTTP/2 and gRPC over memory, and against the real server where
//! its program is there.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::unnecessary_wraps,
    reason = "tests say what they expect, stop when it is not so, and own their tasks"
)]

mod bus;
mod connecting;
mod consuming;
mod peer;
mod publishing;
mod requests;
mod server;
