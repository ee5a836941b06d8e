//! The edges: they translate and do nothing more.

pub mod admin;
pub mod grpc;
pub mod router;
