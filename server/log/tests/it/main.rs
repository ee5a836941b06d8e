//! The log's promises, on the test disk.
//!
//! `dedupe.rs`, `faults.rs`, `folder.rs`, `reader.rs`, `recovery.rs` and `retention.rs` lie beside this file but have never
//! been compiled or run. Name them here one by one when they have been.

#![allow(unreachable_pub, reason = "a test binary exports nothing")]

mod append;
mod kit;
mod model;
