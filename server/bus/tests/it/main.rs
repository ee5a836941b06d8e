//! The server as its clients see it: one binary, one file a noun, each test against a server of its own on port 0 with
//! the embedded stores in a temporary folder.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::duration_suboptimal_units,
    clippy::items_after_statements,
    clippy::result_large_err,
    reason = "tests fail by panicking, own their tasks, and stay plain"
)]

#[path = "../shared/certified.rs"]
mod certified;
mod support;

mod admin;
mod auth;
mod context;
mod context_access;
mod coverage;
mod dead_letter;
mod download;
mod edge;
mod generated;
mod group;
mod held_log;
mod message;
mod policy;
mod program;
mod reflection;
mod registry;
mod streams;
mod subscription;
mod upload;
mod watch;
