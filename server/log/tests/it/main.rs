//! The log's promises, on the test disk.

#![allow(unreachable_pub, reason = "a test binary exports nothing")]

mod append;
mod dedupe;
mod faults;
mod folder;
mod kit;
mod model;
mod reader;
mod recovery;
mod retention;
mod spares;
