//! Contexts as values.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use acb_types::Timestamp;
use bytes::Bytes;

use crate::error::{Error, ErrorCode};

/// Who may see a context. Admins of the tenant may see all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ContextScope {
    /// Its owner alone.
    #[default]
    Private,
    /// The agents that it is shared with, each to read or to write.
    Shared,
    /// Members of its groups, to read. Admins say who is in a group.
    Group,
    /// All agents of the tenant, to read.
    Public,
}

impl ContextScope {
    /// Its name in text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Shared => "shared",
            Self::Group => "group",
            Self::Public => "public",
        }
    }
}

impl fmt::Display for ContextScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ContextScope {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        [Self::Private, Self::Shared, Self::Group, Self::Public].into_iter().find(|s| s.as_str() == text).ok_or_else(
            || {
                let message = format!("{text:?} is no scope; those are private, shared, group and public");
                Error::new(ErrorCode::InvalidArgument, "contexts", message)
            },
        )
    }
}

/// What a share allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContextAccess {
    /// To read.
    Read,
    /// To read, to update and to renew. Not to delete, nor to change who may see it.
    Write,
}

/// A context at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Context {
    /// Its id: a UUIDv7.
    pub id: String,
    /// Its key, when it has one.
    pub key: Option<String>,
    /// Its kind; may be empty. The contract calls it its type.
    pub kind: String,
    /// Who may see it.
    pub scope: ContextScope,
    /// With [`ContextScope::Group`]: for whom.
    pub groups: Vec<String>,
    /// With [`ContextScope::Shared`]: with whom.
    pub shares: BTreeMap<String, ContextAccess>,
    /// Media type of the payload; may be empty.
    pub content_type: String,
    /// For people; may be empty.
    pub description: String,
    /// Words to filter by.
    pub labels: Vec<String>,
    /// More facts.
    pub metadata: BTreeMap<String, String>,
    /// Life that it was given; `None` is for ever.
    pub ttl: Option<Duration>,
    /// Semantic version.
    pub version: String,
    /// Agent that made it.
    pub owner: String,
    /// The tenant's revision of this change: what [`if_rev`](super::UpdateContextBuilder::if_rev) takes.
    pub rev: u64,
    /// Size of the payload, in bytes.
    pub size: u64,
    /// SHA-256 of the payload; empty for a marker.
    pub sha256: Bytes,
    /// Whether the payload is too large for an answer and comes as a stream.
    pub streamed: bool,
    /// When its time is over; not set means never.
    pub expires_at: Timestamp,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
    /// Agent that changed it last.
    pub updated_by: String,
    /// Whether this is a marker: the context is gone, and only id, key, kind, revision and the last change are told.
    pub deleted: bool,
    /// Its payload; empty where it was not asked for, or is streamed.
    pub payload: Bytes,
}

/// What [`Contexts::share`](super::Contexts::share) made or found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SharedContext {
    /// As it is now, without payload.
    pub context: Context,
    /// Whether an earlier attempt of the same call had made it.
    pub existed: bool,
}

impl std::ops::Deref for SharedContext {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.context
    }
}

/// What [`Contexts::update`](super::Contexts::update) made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UpdatedContext {
    /// As this update left it, without payload.
    pub context: Context,
    /// Whether an earlier attempt with the same idempotency key had made it.
    pub duplicate: bool,
}

impl std::ops::Deref for UpdatedContext {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.context
    }
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContextPage {
    /// Oldest first, without payloads.
    pub contexts: Vec<Context>,
    /// Asks for the next page; `None` on the last.
    pub next: Option<String>,
    /// The tenant's revision before the first page was read, the same on all pages: a watch after it brings what changed
    /// since.
    pub revision: u64,
}
