//! The server of the Agentic Context Bus, as a library: `acb-server` is this and a few lines.

pub mod api;
pub mod app;
pub mod args;
pub mod auth;
pub mod boot;
pub mod changes;
mod check;
pub mod config;
pub mod delivery;
pub mod domain;
pub mod edge;
pub mod error;
pub mod in_process;
pub mod presence;
pub mod program;
pub mod request_id;
mod server;
mod shutdown;
pub mod tasks;
pub mod telemetry;

pub use self::{
    in_process::{Door, InProcess},
    server::{ServerBuilder, ServerHandle, StartError, Stores},
    shutdown::Clean,
};
