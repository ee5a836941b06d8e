//! What can be wrong with a frame.

use crate::{attributes::InvalidAttributes, name::InvalidName};

/// Why a frame's bytes are not messages that the bus takes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Ends inside a field, or a length or number is no varint.
    #[error("message {index} is truncated or malformed")]
    Malformed {
        /// Which message of the frame, from 0.
        index: u32,
    },
    /// Perhaps readable, but not in canonical form: fields out of order, given with their default, with lengths or
    /// numbers longer than need be, or not known to this version. The caller decodes it with a protobuf library and
    /// encodes it anew, or refuses it.
    #[error("message {index} is not in canonical form")]
    NotCanonical {
        /// Which message of the frame, from 0.
        index: u32,
    },
    /// A topic that the grammar refuses.
    #[error("message {index}: {source}")]
    Topic {
        /// Which message of the frame, from 0.
        index: u32,
        /// What is wrong with it.
        source: InvalidName,
    },
    /// No topic at all.
    #[error("message {index} has no topic")]
    NoTopic {
        /// Which message of the frame, from 0.
        index: u32,
    },
    /// A text that is not UTF-8.
    #[error("message {index}: field {field} is not UTF-8")]
    Utf8 {
        /// Which message of the frame, from 0.
        index: u32,
        /// Name of the field.
        field: &'static str,
    },
    /// A number that names no member of its enum.
    #[error("message {index}: {field} has no member {value}")]
    UnknownEnum {
        /// Which message of the frame, from 0.
        index: u32,
        /// Name of the field.
        field: &'static str,
        /// What was given.
        value: u64,
    },
    /// A field over its limit.
    #[error("message {index}: {field} of {bytes} bytes exceeds limit of {limit}")]
    TooLarge {
        /// Which message of the frame, from 0.
        index: u32,
        /// Name of the field.
        field: &'static str,
        /// How many bytes it has.
        bytes: usize,
        /// How many it may have.
        limit: usize,
    },
    /// More entries of a repeated field than the limit.
    #[error("message {index}: {count} {field} exceed limit of {limit}")]
    TooMany {
        /// Which message of the frame, from 0.
        index: u32,
        /// Name of the field.
        field: &'static str,
        /// How many there are, at least.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// Attributes that are no attribute block.
    #[error("message {index}: {source}")]
    Attributes {
        /// Which message of the frame, from 0.
        index: u32,
        /// What is wrong with them.
        source: InvalidAttributes,
    },
    /// More messages in a frame than the limit.
    #[error("frame of {count} messages exceeds limit of {limit}")]
    TooManyMessages {
        /// How many there are, at least.
        count: u32,
        /// How many there may be.
        limit: u32,
    },
}

impl FrameError {
    /// Which message of the frame, from 0; `None` when it is the frame as a whole.
    pub fn index(&self) -> Option<u32> {
        match self {
            Self::Malformed { index }
            | Self::NotCanonical { index }
            | Self::Topic { index, .. }
            | Self::NoTopic { index }
            | Self::Utf8 { index, .. }
            | Self::UnknownEnum { index, .. }
            | Self::TooLarge { index, .. }
            | Self::TooMany { index, .. }
            | Self::Attributes { index, .. } => Some(*index),
            Self::TooManyMessages { .. } => None,
        }
    }
}
