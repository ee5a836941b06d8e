//! The wire contract of the Agentic Context Bus as Rust types, generated from `proto/acb/v1` and committed, so that a
//! build needs no compiler for protobuf. `cargo xtask codegen` writes it anew; a test fails when it is stale.
//!
//! [`v1`] holds messages, clients and server traits. The two hot streams, [`PUBLISH_STREAM`] and [`CONSUME`], have
//! neither: server and client route them by hand with a codec that passes message bytes through unread
//! (`acb_types::frame`). No logic lives here.

/// Version 1 of the contract, package `acb.v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    missing_debug_implementations,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    rustdoc::all,
    reason = "generated; its comments are those of the proto files"
)]
#[rustfmt::skip]
#[path = "generated/acb.v1.rs"]
pub mod v1;

/// All files of the contract, encoded as one `google.protobuf.FileDescriptorSet`, for reflection. Without comments.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/descriptor.bin");

/// Service that holds the publish stream.
pub const MESSAGE_SERVICE: &str = "acb.v1.MessageService";
/// Service that holds the consume stream.
pub const SUBSCRIPTION_SERVICE: &str = "acb.v1.SubscriptionService";
/// Path of the stream that carries messages up.
pub const PUBLISH_STREAM: &str = "/acb.v1.MessageService/PublishStream";
/// Path of the stream that carries messages down.
pub const CONSUME: &str = "/acb.v1.SubscriptionService/Consume";
