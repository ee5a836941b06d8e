//! Newtype ids. Each parses once through [`FromStr`] or [`TryFrom`] and is trusted afterwards.

use std::{fmt, str::FromStr, sync::Arc};

use crate::name::{self, InvalidName};

/// Longest tenant id, in bytes.
pub const TENANT_ID_BYTES_MAX: usize = 63;
/// Longest agent id, in bytes.
pub const AGENT_ID_BYTES_MAX: usize = 128;

macro_rules! string_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                let check: fn(&str) -> Result<(), InvalidName> = $check;
                check(text)?;
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<&str> for $name {
            type Error = InvalidName;

            fn try_from(text: &str) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($what, "({})"), &self.0)
            }
        }
    };
}

fn slug(what: &'static str, text: &str, max: usize, extra: &[u8]) -> Result<(), InvalidName> {
    if text.is_empty() {
        return Err(InvalidName::Empty { what });
    }
    if text.len() > max {
        return Err(InvalidName::TooLong { what, bytes: text.len(), limit: max });
    }
    for (at, b) in text.bytes().enumerate() {
        let plain = b.is_ascii_lowercase() || b.is_ascii_digit();
        if !(plain || at > 0 && extra.contains(&b)) {
            return Err(InvalidName::Character { what, at });
        }
    }
    Ok(())
}

string_id!(
    /// A tenant: the wall that nothing crosses. `[a-z0-9][a-z0-9-]{0,62}`, so that it can name a folder.
    TenantId,
    "tenant",
    |text| slug("tenant id", text, TENANT_ID_BYTES_MAX, b"-")
);

string_id!(
    /// An agent, chosen by its owner and unique in its tenant. `[a-z0-9][a-z0-9._-]{0,127}`, with no dot at the end or
    /// beside another and at most 16 dot tokens: it stands inside topics such as that of its inbox.
    AgentId,
    "agent",
    |text| {
        slug("agent id", text, AGENT_ID_BYTES_MAX, b"._-")?;
        name::check_id_tokens("agent id", text)
    }
);

string_id!(
    /// What a caller proved itself with, for example `key:01J…` or `secret:planner`. Made by the server only.
    CredentialId,
    "credential",
    |text| {
        if text.is_empty() {
            return Err(InvalidName::Empty { what: "credential id" });
        }
        if text.len() > 256 {
            return Err(InvalidName::TooLong { what: "credential id", bytes: text.len(), limit: 256 });
        }
        Ok(())
    }
);

/// How many times an agent id has been taken by a registration: 1 at first, one more each time. A session of an older
/// incarnation is fenced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A subscription's number inside its tenant. Given once by the metadata store, never reused, so that delivery state
/// in the log can name a subscription in eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(pub u64);

impl fmt::Display for SubscriptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The server's key of a producer session: a digest of (agent id, producer id), so that no agent can repeat another's
/// counters. 0 means "no producer": unary sends, which are deduplicated by idempotency key only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerKey(pub u64);

impl ProducerKey {
    /// No producer session.
    pub const NONE: Self = Self(0);
}
