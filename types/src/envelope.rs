//! The message envelope: what travels with every payload.

use std::{fmt, ops::Deref};

use bytes::Bytes;

use crate::{attributes::Attributes, time::Timestamp};

/// How much a publish must survive before it is acknowledged. Ordered: a higher level includes the lower ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Durability {
    /// Accepted in the server's memory. Lost when the process dies.
    Memory = 1,
    /// Handed to the operating system: survives kill -9 of the server, not a power cut within the last 20 ms.
    Written = 2,
    /// On stable storage: survives a power cut. The default of sends and publishes.
    #[default]
    Synced = 3,
    /// On several nodes. Cluster profile only.
    Replicated = 4,
}

impl Durability {
    /// All levels, lowest first.
    pub const ALL: [Self; 4] = [Self::Memory, Self::Written, Self::Synced, Self::Replicated];

    /// The level of a wire number; `None` for 0 (not given) and for numbers that name no level.
    pub fn from_wire(n: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|l| *l as i32 == n)
    }

    /// Its name in text, settings and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Written => "written",
            Self::Synced => "synced",
            Self::Replicated => "replicated",
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Durability {
    type Err = crate::InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|l| l.name() == text)
            .ok_or(crate::InvalidName::Shape { what: "durability", shape: "memory, written, synced or replicated" })
    }
}

/// What a message is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MessageKind {
    /// Plain data. The default; absent on the wire.
    #[default]
    Message = 0,
    /// Wants a reply before its deadline.
    Request = 1,
    /// Answers a request.
    Reply = 2,
    /// Says that something happened.
    Event = 3,
    /// Asks for attention; nobody keeps it.
    Signal = 4,
}

impl MessageKind {
    /// All kinds, by wire number.
    pub const ALL: [Self; 5] = [Self::Message, Self::Request, Self::Reply, Self::Event, Self::Signal];

    /// The kind of a wire number.
    pub fn from_wire(n: u64) -> Option<Self> {
        usize::try_from(n).ok().and_then(|n| Self::ALL.get(n).copied())
    }

    /// Its name in text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Request => "request",
            Self::Reply => "reply",
            Self::Event => "event",
            Self::Signal => "signal",
        }
    }
}

/// How urgent a message is. Carried now; lanes come with the delivery rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Priority {
    /// The default; absent on the wire.
    #[default]
    Normal = 0,
    /// After everything else.
    Low = 1,
    /// Before normal.
    High = 2,
    /// Before everything else.
    Critical = 3,
}

impl Priority {
    /// All priorities, by wire number.
    pub const ALL: [Self; 4] = [Self::Normal, Self::Low, Self::High, Self::Critical];

    /// The priority of a wire number.
    pub fn from_wire(n: u64) -> Option<Self> {
        usize::try_from(n).ok().and_then(|n| Self::ALL.get(n).copied())
    }

    /// Its name in text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Low => "low",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// Text that shares a frame's memory. Checked to be UTF-8 when it was made.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(Bytes);

impl Text {
    /// Nothing.
    pub const EMPTY: Self = Self(Bytes::new());

    /// Wraps bytes; `None` when they are not UTF-8.
    pub fn from_utf8(bytes: Bytes) -> Option<Self> {
        if std::str::from_utf8(&bytes).is_ok() { Some(Self(bytes)) } else { None }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        // Checked once when it was made; checking again costs less than a promise that a reader must trust.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The bytes under it.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into_bytes().into())
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// One message as its parts. Texts and payload share the memory of the frame they came in. Absent texts are empty.
///
/// Who sent it, when it was stored and how often it was tried are facts of the delivery, not of the envelope: the
/// server knows them, so a sender cannot forge them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// Where it goes. See [`crate::Topic`].
    pub topic: Text,
    /// What it is for.
    pub kind: MessageKind,
    /// How urgent it is.
    pub priority: Priority,
    /// The sender's own word that ties messages together; at most 128 bytes.
    pub correlation_id: Text,
    /// The topic that wants the reply.
    pub reply_to: Text,
    /// The sender's key against doubles; at most 128 bytes.
    pub idempotency_key: Text,
    /// After this it is not delivered any more; not set means never.
    pub expires_at: Timestamp,
    /// Before this it is not delivered.
    pub not_before: Timestamp,
    /// Messages of one key are handled one after the other; at most 128 bytes.
    pub order_key: Text,
    /// Media type of the payload (RFC 9110); at most 128 bytes.
    pub content_type: Text,
    /// W3C trace context (`traceparent`).
    pub trace: Text,
    /// The topic it was first published to, on a redriven dead letter.
    pub original_topic: Text,
    /// Ids of contexts that it speaks of; at most 16.
    pub context_refs: Vec<Text>,
    /// Small named values that subscriptions can filter on.
    pub attributes: Attributes,
    /// The content; never looked at by the server; at most 1 MiB.
    pub payload: Bytes,
}
