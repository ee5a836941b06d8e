//! The log's promises, on the test disk.

#![allow(unreachable_pub, reason = "a test binary exports nothing")]

mod append;
mod kit;
mod model;
