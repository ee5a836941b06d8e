//! The vocabulary of the Agentic Context Bus: ids, names, topics, positions, the message envelope and its byte layout,
//! limits and error codes.
//!
//! This crate is deliberately poor. It knows nothing of networks, disks, clocks or protobuf libraries, so that server,
//! client and bindings can agree without knowing each other. Whatever enters one of these types was parsed once, at an
//! edge, and is trusted inside.

pub mod attributes;
pub mod batch;
pub mod digest;
pub mod envelope;
pub mod error_code;
pub mod frame;
pub mod id;
pub mod limits;
pub mod name;
pub mod position;
pub mod stream;
pub mod time;

pub use attributes::Attributes;
pub use digest::{RunningDigest, Sha256Digest};
pub use envelope::{Durability, Envelope, MessageKind, Priority};
pub use error_code::{ErrorCode, ErrorKind};
pub use id::{
    AgentId, ContextId, ContextKey, CredentialId, GroupName, Incarnation, ProducerKey, SubscriptionId, TenantId,
};
pub use name::{Capability, InvalidName, SubscriptionName, Topic, TopicFilter};
pub use position::{ClassId, Epoch, MessageId, PartitionId, PartitionNo, Seq};
pub use stream::StreamId;
pub use time::{Now, Timestamp};
