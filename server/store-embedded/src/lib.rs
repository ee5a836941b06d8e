//! The bus's stores on one machine: metadata in SQLite, messages in segment logs, contents in files, all under one data folder.
//!
//! This crate knows the ports, the log and the vocabulary; it knows nothing of who calls.

pub mod blobs;
pub mod embedded_log;
pub mod profile;
pub mod sqlite;

pub use blobs::EmbeddedBlobs;
pub use embedded_log::{EmbeddedLog, EmbeddedLogConfig};
pub use profile::{EmbeddedConfig, EmbeddedProfile};
pub use sqlite::{SqliteConfig, SqliteMetadata};
