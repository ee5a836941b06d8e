//! Newtype ids. Each parses once through [`FromStr`] or [`TryFrom`] and is trusted afterwards.

use std::{fmt, str::FromStr, sync::Arc};

use uuid::Uuid;

use crate::{
    limits,
    name::{self, InvalidName},
};

/// Longest tenant id, in bytes.
pub const TENANT_ID_BYTES_MAX: usize = 63;
/// Longest agent id, in bytes.
pub const AGENT_ID_BYTES_MAX: usize = 128;
/// Longest group name, in bytes.
pub const GROUP_NAME_BYTES_MAX: usize = 128;

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
    /// A group of agents that admins keep; contexts are shared with it. `[a-z0-9][a-z0-9._-]{0,127}`. Not one of the words
    /// that an agent says of itself in its registration.
    GroupName,
    "group",
    |text| slug("group name", text, GROUP_NAME_BYTES_MAX, b"._-")
);

string_id!(
    /// A context's name beside its id: a path such as `plans/alpha`. 1 to 512 bytes: segments of `[A-Za-z0-9._-]` with `/`
    /// between them.
    ContextKey,
    "key",
    |text| {
        const WHAT: &str = "context key";
        if text.is_empty() {
            return Err(InvalidName::Empty { what: WHAT });
        }
        if text.len() > limits::CONTEXT_KEY_BYTES_MAX {
            return Err(InvalidName::TooLong { what: WHAT, bytes: text.len(), limit: limits::CONTEXT_KEY_BYTES_MAX });
        }
        let mut at = 0;
        for segment in text.split('/') {
            if segment.is_empty() {
                return Err(InvalidName::EmptyToken { what: WHAT, at });
            }
            let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
            if let Some(offset) = segment.bytes().position(|b| !good(b)) {
                return Err(InvalidName::Character { what: WHAT, at: at + offset });
            }
            at += segment.len() + 1;
        }
        Ok(())
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

/// A context: a UUIDv7 (RFC 9562), so that ids sort by the time at which they were made. Written in lower case with
/// hyphens, and read only so, so that one id has one spelling.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContextId(Uuid);

impl ContextId {
    const WHAT: &str = "context id";
    const SHAPE: &str = "of a UUIDv7 in lower case, such as 0194f0c1-7b1e-7c3a-9d2f-5a6b7c8d9e0f";

    /// The id of these bytes.
    ///
    /// # Errors
    /// When they are no UUIDv7.
    pub fn from_bytes(bytes: [u8; 16]) -> Result<Self, InvalidName> {
        Self::try_from(Uuid::from_bytes(bytes))
    }

    /// Its bytes, which sort as it does.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl TryFrom<Uuid> for ContextId {
    type Error = InvalidName;

    fn try_from(id: Uuid) -> Result<Self, InvalidName> {
        if id.get_version_num() == 7 && id.get_variant() == uuid::Variant::RFC4122 {
            Ok(Self(id))
        } else {
            Err(InvalidName::Shape { what: Self::WHAT, shape: Self::SHAPE })
        }
    }
}

impl FromStr for ContextId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let wrong = InvalidName::Shape { what: Self::WHAT, shape: Self::SHAPE };
        // The library also reads braces, urns and capital letters.
        if text.len() != 36 || text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(wrong);
        }
        Self::try_from(Uuid::try_parse(text).map_err(|_| wrong)?)
    }
}

impl fmt::Display for ContextId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for ContextId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "context({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_id_has_one_spelling_and_is_a_uuid_of_version_7() {
        let text = "0194f0c1-7b1e-7c3a-9d2f-5a6b7c8d9e0f";
        let id: ContextId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(ContextId::from_bytes(*id.as_bytes()).unwrap(), id);
        let bad = [
            "",
            "plans",
            "0194F0C1-7B1E-7C3A-9D2F-5A6B7C8D9E0F",
            "{0194f0c1-7b1e-7c3a-9d2f-5a6b7c8d9e0f}",
            "0194f0c17b1e7c3a9d2f5a6b7c8d9e0f",
            // Versions 4 and 1, and another variant.
            "0194f0c1-7b1e-4c3a-9d2f-5a6b7c8d9e0f",
            "0194f0c1-7b1e-1c3a-9d2f-5a6b7c8d9e0f",
            "0194f0c1-7b1e-7c3a-1d2f-5a6b7c8d9e0f",
        ];
        for text in bad {
            assert!(text.parse::<ContextId>().is_err(), "{text}");
        }
    }

    #[test]
    fn ids_of_contexts_sort_as_their_text_does() {
        let low: ContextId = "0194f0c1-7b1e-7c3a-9d2f-5a6b7c8d9e0f".parse().unwrap();
        let high: ContextId = "0194f0c1-7b1f-7000-8000-000000000000".parse().unwrap();
        assert!(low < high && low.to_string() < high.to_string() && low.as_bytes() < high.as_bytes());
    }

    #[test]
    fn a_key_is_a_path_of_plain_segments() {
        for good in ["a", "plans/alpha", "A.b_c-9/x", ".", "a/.."] {
            assert!(good.parse::<ContextKey>().is_ok(), "{good}");
        }
        assert!("k".repeat(512).parse::<ContextKey>().is_ok());
        for bad in ["", "/", "a/", "/a", "a//b", "a b", "a:b", "ä", &"k".repeat(513)] {
            assert!(bad.parse::<ContextKey>().is_err(), "{bad}");
        }
    }
}
