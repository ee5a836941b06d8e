//! Rows of contexts, and what is asked of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use acb_types::{AgentId, ContextId, ContextKey, ErrorCode, GroupName, Sha256Digest, StreamId, Timestamp};
use bytes::Bytes;
use semver::Version;

use crate::error::StoreError;

/// Who may see a context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ContextScope {
    /// Its owner alone.
    #[default]
    Private,
    /// The agents that it names, each to read or to write.
    Shared,
    /// Members of the groups that it names, to read.
    Group,
    /// All agents of the tenant, to read.
    Public,
}

impl ContextScope {
    /// All scopes.
    pub const ALL: [Self; 4] = [Self::Private, Self::Shared, Self::Group, Self::Public];

    /// Its name in text.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Shared => "shared",
            Self::Group => "group",
            Self::Public => "public",
        }
    }

    /// The scope of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }
}

/// What a share allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ShareAccess {
    /// To read.
    Read,
    /// To read, to update and to renew.
    Write,
}

/// What a writer says of a context. Limits were checked at the edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextSpec {
    /// Its name beside its id; unique in the tenant while the context is there. Never changes.
    pub key: Option<ContextKey>,
    /// Its kind; may be empty. Never changes.
    pub context_type: String,
    /// Who may see it.
    pub scope: ContextScope,
    /// With [`ContextScope::Group`]: whom it is for. Empty otherwise.
    pub groups: BTreeSet<GroupName>,
    /// With [`ContextScope::Shared`]: whom it is for. Empty otherwise.
    pub shares: BTreeMap<AgentId, ShareAccess>,
    /// Media type of the payload; may be empty.
    pub content_type: String,
    /// For people; may be empty.
    pub description: String,
    /// Words to filter by.
    pub labels: BTreeSet<String>,
    /// More facts.
    pub metadata: BTreeMap<String, String>,
    /// Life from when it is said; `None` is for ever.
    pub ttl: Option<Duration>,
    /// Its version.
    pub version: Version,
}

impl ContextSpec {
    /// Version of a context whose writer says none.
    pub const FIRST_VERSION: Version = Version::new(0, 1, 0);

    /// A private context of a type and nothing more.
    pub fn new(context_type: impl Into<String>) -> Self {
        Self {
            key: None,
            context_type: context_type.into(),
            scope: ContextScope::Private,
            groups: BTreeSet::new(),
            shares: BTreeMap::new(),
            content_type: String::new(),
            description: String::new(),
            labels: BTreeSet::new(),
            metadata: BTreeMap::new(),
            ttl: None,
            version: Self::FIRST_VERSION,
        }
    }

    /// When a life that begins now ends; [`Timestamp::NONE`] for never.
    pub fn expires_at(&self, now: Timestamp) -> Timestamp {
        self.ttl.map_or(Timestamp::NONE, |ttl| now.after(ttl))
    }

    /// How much it weighs in an answer, in bytes, roughly.
    pub fn size(&self) -> usize {
        let texts = [&self.context_type, &self.content_type, &self.description].into_iter().map(String::len);
        let labels = self.labels.iter().map(|label| label.len() + 2);
        let metadata = self.metadata.iter().map(|(k, v)| k.len() + v.len() + 6);
        let groups = self.groups.iter().map(|group| group.as_str().len() + 2);
        let shares = self.shares.keys().map(|agent| agent.as_str().len() + 6);
        200 + self.key.as_ref().map_or(0, |key| key.as_str().len())
            + texts.chain(labels).chain(metadata).chain(groups).chain(shares).sum::<usize>()
    }

    /// What [`ContextFilter::text`] is looked for in: key, type and description in lower case, on a line each. Stores
    /// keep it in a column, so that all of them fold case alike.
    pub fn search_text(&self) -> String {
        let key = self.key.as_ref().map_or("", ContextKey::as_str);
        format!("{key}\n{}\n{}", self.context_type, self.description).to_lowercase()
    }
}

/// Where a payload is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContentPlace {
    /// In the row: at most `CONTEXT_INLINE_ROW_BYTES`.
    Inline(Bytes),
    /// In the blob store, under its digest, durable before the row was.
    Blob,
    /// In the row, and not read: lists leave payloads where they are.
    Unread,
}

/// A context's payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextContent {
    /// Its size, in bytes.
    pub size: u64,
    /// Its digest.
    pub sha256: Sha256Digest,
    /// Where it is.
    pub place: ContentPlace,
}

impl ContextContent {
    /// What a marker has.
    pub fn none() -> Self {
        Self { size: 0, sha256: Sha256Digest([0; 32]), place: ContentPlace::Inline(Bytes::new()) }
    }

    /// The same content as a list shows it.
    #[must_use]
    pub fn unread(self) -> Self {
        match self.place {
            ContentPlace::Inline(_) => Self { place: ContentPlace::Unread, ..self },
            ContentPlace::Blob | ContentPlace::Unread => self,
        }
    }
}

/// Whether a context is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContextState {
    /// It is.
    Live,
    /// The row is the marker of a delete.
    Deleted,
    /// The row is the marker of an expiry.
    Expired,
}

/// A context as it was at one revision. A marker has no content and otherwise tells what the context last was, so that who
/// might see it may still be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextRow {
    /// Its id.
    pub id: ContextId,
    /// What its last writer said of it, defaults filled in.
    pub spec: ContextSpec,
    /// Who made it.
    pub owner: AgentId,
    /// The tenant's revision of this change.
    pub rev: u64,
    /// The revision that made it.
    pub created_rev: u64,
    /// The last revision that changed scope, groups or shares; that of its making otherwise.
    pub access_rev: u64,
    /// Its payload.
    pub content: ContextContent,
    /// When its time is over; not set for never. A renewal moves it without a revision.
    pub expires_at: Timestamp,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
    /// Who changed it last; of an expiry, who did before it.
    pub updated_by: AgentId,
    /// Whether it is there.
    pub state: ContextState,
}

impl ContextRow {
    /// Whether this is a marker.
    pub fn is_marker(&self) -> bool {
        self.state != ContextState::Live
    }

    /// Whether it is there at a time: no marker, and its own time not over. What is over and waits for its marker is
    /// absent to everybody.
    pub fn is_there(&self, now: Timestamp) -> bool {
        self.state == ContextState::Live && !(self.expires_at.is_set() && self.expires_at <= now)
    }

    /// What an agent is to it.
    pub fn relation(&self, viewer: &Viewer) -> ContextRelation {
        if self.owner == viewer.agent {
            return ContextRelation::Owner;
        }
        match self.spec.scope {
            ContextScope::Shared => match self.spec.shares.get(&viewer.agent) {
                Some(ShareAccess::Write) => ContextRelation::Writer,
                Some(ShareAccess::Read) => ContextRelation::Reader,
                None => ContextRelation::Stranger,
            },
            ContextScope::Group if !self.spec.groups.is_disjoint(&viewer.groups) => ContextRelation::Member,
            ContextScope::Group | ContextScope::Private | ContextScope::Public => ContextRelation::Stranger,
        }
    }

    /// The row after a write, which gets the revision `rev`. Contents and conditions were looked at before.
    ///
    /// # Errors
    /// `invalid_version` for one that is not above the present one.
    pub fn written(&self, write: &ContextWrite, rev: u64) -> Result<Self, StoreError> {
        let change = &write.change;
        let spec = change.applied_to(&self.spec)?;
        let access =
            (&spec.scope, &spec.groups, &spec.shares) != (&self.spec.scope, &self.spec.groups, &self.spec.shares);
        Ok(Self {
            id: self.id,
            owner: self.owner.clone(),
            rev,
            created_rev: self.created_rev,
            access_rev: if access { rev } else { self.access_rev },
            content: write.content.clone().unwrap_or_else(|| self.content.clone()),
            expires_at: if change.ttl.is_some() { spec.expires_at(write.now) } else { self.expires_at },
            created_at: self.created_at,
            updated_at: write.now,
            updated_by: write.by.clone(),
            state: ContextState::Live,
            spec,
        })
    }

    /// The marker that takes its place at the revision `rev`.
    #[must_use]
    pub fn ended(&self, state: ContextState, by: &AgentId, rev: u64, now: Timestamp) -> Self {
        Self { rev, content: ContextContent::none(), updated_at: now, updated_by: by.clone(), state, ..self.clone() }
    }
}

/// An agent and the groups that it is a member of, to tell what it may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Viewer {
    /// Who looks.
    pub agent: AgentId,
    /// Groups that admins put it in.
    pub groups: BTreeSet<GroupName>,
}

/// What an agent is to a context. The first that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContextRelation {
    /// It made it.
    Owner,
    /// It is shared with it, to write.
    Writer,
    /// It is shared with it, to read.
    Reader,
    /// It is a member of one of its groups.
    Member,
    /// Nothing of these.
    Stranger,
}

impl ContextRelation {
    /// All relations.
    pub const ALL: [Self; 5] = [Self::Owner, Self::Writer, Self::Reader, Self::Member, Self::Stranger];
}

/// Asks for a context.
#[derive(Clone, Debug)]
pub struct NewContext {
    /// Its id.
    pub id: ContextId,
    /// What to say of it, defaults filled in.
    pub spec: ContextSpec,
    /// Who makes it.
    pub owner: AgentId,
    /// Its payload. A blob is durable and pinned by the caller.
    pub content: ContextContent,
    /// Digest of what was asked, so that the same again is known for the same after any update.
    pub fingerprint: Sha256Digest,
    /// The upload that it comes of, which becomes complete in the same transaction.
    pub stream: Option<StreamId>,
    /// The time.
    pub now: Timestamp,
}

/// When a write may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteCondition {
    /// The context is at this revision.
    IfRev(u64),
    /// Who may see it was not changed since this revision: whatever else was, is overwritten. The caller has looked at
    /// the context, and what it concluded of scope, groups and shares must still hold.
    Force {
        /// [`ContextRow::access_rev`] of what the caller looked at.
        access_rev: u64,
    },
}

impl WriteCondition {
    /// Whether a row meets it.
    pub fn holds(self, row: &ContextRow) -> bool {
        match self {
            Self::IfRev(rev) => row.rev == rev,
            Self::Force { access_rev } => row.access_rev == access_rev,
        }
    }
}

/// Tells the repeat of an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepeatKey {
    /// The caller's key.
    pub key: String,
    /// Digest of what was asked: the same key for something else is a conflict.
    pub body: Sha256Digest,
}

/// Changes of a spec. `None` leaves a field; `Some` replaces it whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContextChange {
    /// New scope. Groups and shares that do not go with it end, unless they are given too.
    pub scope: Option<ContextScope>,
    /// New groups.
    pub groups: Option<BTreeSet<GroupName>>,
    /// New shares.
    pub shares: Option<BTreeMap<AgentId, ShareAccess>>,
    /// New media type.
    pub content_type: Option<String>,
    /// New description.
    pub description: Option<String>,
    /// New labels.
    pub labels: Option<BTreeSet<String>>,
    /// New metadata.
    pub metadata: Option<BTreeMap<String, String>>,
    /// New life, from now on; `Some(None)` is for ever.
    pub ttl: Option<Option<Duration>>,
    /// New version, above the present one. Not given: the next patch.
    pub version: Option<Version>,
}

impl ContextChange {
    /// Whether it is about who may see the context.
    pub fn is_of_access(&self) -> bool {
        self.scope.is_some() || self.groups.is_some() || self.shares.is_some()
    }

    /// The spec after this change.
    ///
    /// # Errors
    /// `invalid_version` for one that is not above the present one.
    pub fn applied_to(&self, spec: &ContextSpec) -> Result<ContextSpec, StoreError> {
        fn take<T: Clone>(new: Option<&T>, old: &T) -> T {
            new.unwrap_or(old).clone()
        }
        let scope = self.scope.unwrap_or(spec.scope);
        let kept_groups = if scope == ContextScope::Group { spec.groups.clone() } else { BTreeSet::new() };
        let kept_shares = if scope == ContextScope::Shared { spec.shares.clone() } else { BTreeMap::new() };
        Ok(ContextSpec {
            key: spec.key.clone(),
            context_type: spec.context_type.clone(),
            scope,
            groups: self.groups.clone().unwrap_or(kept_groups),
            shares: self.shares.clone().unwrap_or(kept_shares),
            content_type: take(self.content_type.as_ref(), &spec.content_type),
            description: take(self.description.as_ref(), &spec.description),
            labels: take(self.labels.as_ref(), &spec.labels),
            metadata: take(self.metadata.as_ref(), &spec.metadata),
            ttl: self.ttl.unwrap_or(spec.ttl),
            version: next_version(&spec.version, self.version.as_ref())?,
        })
    }
}

/// The version after an update: the one that is given, or the next patch, which is the release itself after a version on
/// its way to it (`1.2.0-rc.1` becomes `1.2.0`). Build metadata does not make one version higher than another.
fn next_version(present: &Version, given: Option<&Version>) -> Result<Version, StoreError> {
    match given {
        Some(given) if given.cmp_precedence(present).is_gt() => Ok(given.clone()),
        Some(given) => Err(StoreError::new(
            ErrorCode::InvalidVersion,
            "context.update",
            format!("version {given} is not above the present {present}"),
        )),
        None if !present.pre.is_empty() => Ok(Version::new(present.major, present.minor, present.patch)),
        None => Ok(Version::new(present.major, present.minor, present.patch.saturating_add(1))),
    }
}

/// Asks for a change of a context.
#[derive(Clone, Debug)]
pub struct ContextWrite {
    /// When it may happen.
    pub condition: WriteCondition,
    /// What changes of what is said of it.
    pub change: ContextChange,
    /// Its new payload; `None` keeps the old one. A blob is durable and pinned by the caller.
    pub content: Option<ContextContent>,
    /// Who writes.
    pub by: AgentId,
    /// Tells a repeat.
    pub repeat: Option<RepeatKey>,
    /// The upload that the payload comes of, which becomes complete in the same transaction.
    pub stream: Option<StreamId>,
    /// The time.
    pub now: Timestamp,
}

/// What a write made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The context as this write, or the one that it repeats, left it. The payload may be unread.
    pub row: ContextRow,
    /// Whether it repeats an earlier one.
    pub duplicate: bool,
}

/// Asks for a context to go.
#[derive(Clone, Debug)]
pub struct ContextRemoval {
    /// When it may happen.
    pub condition: WriteCondition,
    /// Who removes it.
    pub by: AgentId,
    /// The time.
    pub now: Timestamp,
}

/// Asks for a new life of a context.
#[derive(Clone, Debug)]
pub struct ContextRenewal {
    /// Only if who may see it was not changed since: [`ContextRow::access_rev`] of what the caller looked at.
    pub access_rev: u64,
    /// Life from now on; `None` is for ever.
    pub ttl: Option<Duration>,
    /// The time.
    pub now: Timestamp,
}

/// Which contexts to list. All conditions must hold; one that is not given always does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContextFilter {
    /// This one.
    pub id: Option<ContextId>,
    /// Exactly this key.
    pub key: Option<ContextKey>,
    /// Start of the key; empty for any.
    pub key_prefix: String,
    /// Exactly this type.
    pub context_type: Option<String>,
    /// Made by this agent.
    pub owner: Option<AgentId>,
    /// With this scope.
    pub scope: Option<ContextScope>,
    /// All of these labels.
    pub labels: BTreeSet<String>,
    /// Part of key, type or description, in any case.
    pub text: Option<String>,
    /// That this agent sees, be it by relation or because they are public.
    pub viewer: Option<Viewer>,
    /// That name this group.
    pub group: Option<GroupName>,
}

impl ContextFilter {
    /// Whether what never changes of a context lets it be wanted at some revision.
    pub fn may_want(&self, id: ContextId, key: Option<&ContextKey>, context_type: &str, owner: &AgentId) -> bool {
        let text = key.map_or("", ContextKey::as_str);
        self.id.is_none_or(|wanted| wanted == id)
            && self.key.as_ref().is_none_or(|wanted| Some(wanted) == key)
            && text.starts_with(&self.key_prefix)
            && self.context_type.as_ref().is_none_or(|t| t == context_type)
            && self.owner.as_ref().is_none_or(|o| o == owner)
    }

    /// Whether a context is wanted. Says nothing of whether it is there.
    pub fn wants(&self, row: &ContextRow) -> bool {
        let spec = &row.spec;
        self.may_want(row.id, spec.key.as_ref(), &spec.context_type, &row.owner)
            && self.scope.is_none_or(|s| s == spec.scope)
            && self.labels.is_subset(&spec.labels)
            && self.group.as_ref().is_none_or(|g| spec.groups.contains(g))
            && self.text.as_ref().is_none_or(|t| spec.search_text().contains(&t.to_lowercase()))
            && self
                .viewer
                .as_ref()
                .is_none_or(|v| spec.scope == ContextScope::Public || row.relation(v) != ContextRelation::Stranger)
    }
}

/// Whether a list brings payloads that are in rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Payloads {
    /// It leaves them: [`ContentPlace::Unread`].
    #[default]
    LeaveOut,
    /// It brings them.
    Read,
}

/// When a list is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListedAt {
    /// What is there when the call runs, what is over at this time left out.
    Now(Timestamp),
    /// What was there at a revision, what had no marker yet included.
    Revision(u64),
}

/// What [`trim`](super::MetadataStore::change_trim) may forget.
#[derive(Clone, Copy, Debug)]
pub struct Trim {
    /// Changes up to this revision, and the keys of updates up to there whose revisions are no longer kept.
    pub changes_up_to: u64,
    /// Markers that were set before this time, with all that is kept of their contexts.
    pub markers_before: Timestamp,
    /// Rows of each kind that one call forgets at most.
    pub limit: u32,
}

/// How much a call forgot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Changes.
    pub changes: u64,
    /// Markers.
    pub markers: u64,
}
