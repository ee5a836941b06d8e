//! The metadata store: tenants, agents, subscriptions, credentials, audit, settings. Everything but the messages.
//!
//! Written at the weakest guarantee that SQLite on one machine and PostgreSQL behind several nodes can both keep.
//! Clauses are quoted by the contract suite.
//!
//! - META-1  Tenants share nothing: one id in two tenants is two things, and no call shows or changes what is another
//!   tenant's.
//! - META-2  What a call that returned `Ok` wrote survives a power cut and is seen by every call that starts later. A
//!   call whose future is dropped happens wholly or not at all.
//! - META-3  A call that returned an error changed nothing.
//! - META-4  Every change of an agent raises the tenant's revision by one, in the same transaction. Revisions have no
//!   holes and follow commit order: who sees revision R sees every change up to R.
//! - META-5  Registering again by the same credential replaces what the agent says of itself and keeps `registered_at`;
//!   by another credential it is `agent_exists`, also while only a kept inbox is left of the agent.
//! - META-6  An id's incarnations strictly rise with each registration, over removals too. They begin at 1 in a tenant
//!   where nothing was removed.
//! - META-7  The implicit subscriptions of a registration are made in its transaction. Those that are there keep their
//!   number and definition.
//! - META-8  Removing an agent ends its implicit subscriptions, unless its inbox is kept; removing what is absent
//!   succeeds. A kept inbox waits for the same credential; removing the agent again without keeping ends it.
//! - META-9  An agent is listed when all conditions of the filter hold. Text is found in any case.
//! - META-10 Subscription numbers strictly rise within a tenant and are never given again.
//! - META-11 Creating a subscription of the same definition again answers with the row that is there; another
//!   definition under its name is `subscription_exists`. Where it starts and who made it are no part of the definition.
//! - META-12 Deleting an absent subscription succeeds; an implicit one is refused with `invalid_argument`.
//! - META-13 A tenant has at most `SUBSCRIPTIONS_MAX` subscriptions, implicit ones not counted; then `subscription_limit`.
//! - META-14 Revoking an enrolment key revokes, in the same transaction, the token families that came of it. Revoking
//!   twice is revoking once; revoking what is absent succeeds.
//! - META-15 Setting an agent's secret raises its version by one and revokes, in the same transaction, the families of
//!   the old one.
//! - META-16 One signing key signs at any time: the newest that is not retired. A rotation retires the others in the
//!   same transaction.
//! - META-17 A refresh token works once: of any number of rotations with one token exactly one answers `Rotated`. One of
//!   a family's last [`FAMILY_HASHES_MAX`] tokens, presented again, revokes the family and answers `Reused`.
//! - META-18 Every family that is revoked and not yet over is in `family_list_revoked`.
//! - META-19 Audit rows of a tenant are numbered from 1 without holes, and each carries the digest of the one before it.
//! - META-20 Of any number of `setting_put_if_absent` one puts, and all answer with what it put.
//! - META-21 Lists are in order of their key, begin after the key that is given, and hold at most `limit` rows, 1 to
//!   [`ROWS_MAX`]; fewer than `limit` rows are the last. A row that is there throughout is seen exactly once.
//! - META-22 In an unknown tenant every write is `tenant_not_found`, and every read finds nothing.
//! - META-23 A full or read-only disk refuses writes with `storage_full` or `storage_read_only`, reads go on, and it heals.
//! - META-24 Making a context again by the same owner with the same fingerprint answers with what is there now; any other
//!   use of an id or of the key of a context that is there is `context_exists`. A marker's id stays taken, its key is free.
//! - META-25 Every change of a context or a group raises the tenant's revision by one, as META-4 has it of agents: one
//!   number for all three. A renewal changes no revision.
//! - META-26 A write happens only if its condition holds, in one step with it; otherwise `revision_conflict`. Of any number
//!   of writes for one revision exactly one happens.
//! - META-27 A write with the key of an earlier one, by the same agent, is answered with the revision that it made and changes
//!   nothing; with another body it is `idempotency_conflict`. A key is known while its revision or its change is kept.
//! - META-28 Of each context the newest `CONTEXT_HISTORY` revisions are kept, markers included. Reading at a revision gives
//!   what was there then; `revision_gap` when that is no longer kept.
//! - META-29 Removing puts a marker. What has one is answered with it and changed by nothing; removing what is absent
//!   succeeds.
//! - META-30 What is over counts as absent from that moment on. Expiring gives it a marker of its own kind, at most `limit`
//!   contexts a call, earliest end first; expiring twice is expiring once.
//! - META-31 A context is listed when all conditions of the filter hold and it is there. A list at a revision shows what
//!   was there then, however much was written since, or is `revision_gap`.
//! - META-32 Each revision leaves one change. Changes are listed in order, the page tells from where on there is no hole,
//!   and each shows the context as it was before and after, or says that this is no longer kept.
//! - META-33 Trimming forgets the oldest changes, and markers with all that is kept of their contexts. Nothing else is
//!   forgotten, and trimming twice is trimming once.
//! - META-34 Making a group of the same description again finds it; another is `group_exists`. Ending a group ends its
//!   memberships in the same transaction; contexts keep its name. A context cannot newly name a group that is not there:
//!   `group_not_found`.
//! - META-35 Adding a member twice is adding it once, removing what is absent succeeds; a call that changes nothing raises
//!   no revision. Memberships are read now, or as they were at a revision whose later changes are kept.
//! - META-36 Every digest that a kept revision names as a blob is in `context_blobs_named`, and no other.
//! - META-37 A receiver of [`MetadataStore::revision_signal`] is woken after every commit that raised the revision, once for
//!   any number of them. The commit is seen by reads that start after the wake.
//! - META-38 A tenant has at most `CONTEXTS_MAX` contexts, markers not counted (`context_limit`), and `TENANT_GROUPS_MAX`
//!   groups of at most `GROUP_MEMBERS_MAX` agents, each in at most `MEMBERSHIPS_MAX` (`group_limit`).
//!
//! The store asks no clock: whoever writes gives the time. `TenantId` comes first wherever a tenant owns what is touched;
//! signing keys and settings are the server's own and take none.
//!
//! Not in this port: who may do what with a context (the use case decides, from what a row says), the blobs that rows name, status and presence (derived from live streams), delivery state (in the log), any transaction with
//! the log.

mod agent;
mod audit;
mod change;
mod context;
mod credential;
mod group;
mod subscription;
mod tenant;
mod upload;

use std::fmt;

use acb_types::{
    AgentId, ContextId, ContextKey, CredentialId, GroupName, Sha256Digest, SubscriptionId, SubscriptionName, TenantId,
    Timestamp,
};
use async_trait::async_trait;
use tokio::sync::watch;

pub use self::{
    agent::{
        AgentCapability, AgentFilter, AgentRemoval, AgentRow, AgentSpec, AgentUpdate, Inbox, Registered, Registration,
        RemovedAgent,
    },
    audit::{AuditDigest, AuditEntry, AuditRow},
    change::{Change, ChangePage, Changed, ContextFacts, MemberMove, MemberWay},
    context::{
        ContentPlace, ContextChange, ContextContent, ContextFilter, ContextRelation, ContextRemoval, ContextRenewal,
        ContextRow, ContextScope, ContextSpec, ContextState, ContextWrite, ListedAt, NewContext, Payloads, RepeatKey,
        ShareAccess, Trim, Trimmed, Viewer, WriteCondition, Written,
    },
    credential::{
        AgentSecretRow, EnrolmentKeyRow, FAMILY_HASHES_MAX, NewAgentSecret, NewFamily, RefreshHash, Rotation,
        RotationRequest, SecretBytes, SecretSet, SigningKeyRow, TokenFamilyRow, credential_of_key,
        credential_of_secret,
    },
    group::{GroupMember, GroupRow, Memberships, NewGroup},
    subscription::{Created, NewSubscription, SubscriptionRow, SubscriptionSet, SubscriptionSpec},
    tenant::TenantRow,
    upload::{AddedChunks, Completing, FoundChunk, NewUpload, UPLOAD_CHUNKS_MAX, UploadRow, UploadStore, UploadTarget},
};
use crate::error::StoreError;

/// Most rows that one call lists.
pub const ROWS_MAX: u32 = 1000;

/// What every call answers.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Keeps everything but the messages. See the module for what it promises.
///
/// *Cancel safety*: a dropped write happens wholly or not at all (META-2); reads may be dropped at any time.
#[async_trait]
pub trait MetadataStore: UploadStore + Send + Sync + fmt::Debug + 'static {
    /// Makes a tenant.
    ///
    /// # Errors
    /// `tenant_exists`.
    async fn tenant_create(&self, tenant: &TenantId, name: &str, now: Timestamp) -> Result<TenantRow>;

    /// Shows a tenant.
    async fn tenant_get(&self, tenant: &TenantId) -> Result<Option<TenantRow>>;

    /// Lists tenants by id.
    async fn tenant_list(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<TenantRow>>;

    /// The tenant's present revision; 0 before the first change.
    ///
    /// # Errors
    /// `tenant_not_found`.
    async fn tenant_revision(&self, tenant: &TenantId) -> Result<u64>;

    /// Puts an agent on the bus with its implicit subscriptions, or takes it over as a new incarnation.
    ///
    /// # Errors
    /// `agent_exists` when another credential holds the id.
    async fn agent_register(&self, tenant: &TenantId, registration: Registration) -> Result<Registered>;

    /// Shows an agent. One of which only the inbox is left is not there.
    async fn agent_get(&self, tenant: &TenantId, agent: &AgentId) -> Result<Option<AgentRow>>;

    /// Changes what is given. An update that changes nothing answers with the row as it was and raises no revision.
    ///
    /// # Errors
    /// `agent_not_found`; `permission_denied` when `held_by` is given and another credential holds the id.
    async fn agent_update(&self, tenant: &TenantId, agent: &AgentId, update: AgentUpdate) -> Result<AgentRow>;

    /// Takes an agent off the bus. Answers with what went.
    ///
    /// # Errors
    /// `permission_denied` when `held_by` is given and another credential holds the id.
    async fn agent_remove(&self, tenant: &TenantId, agent: &AgentId, removal: AgentRemoval) -> Result<RemovedAgent>;

    /// Lists agents by id. Status is not known here: who filters by it reads on until the page is full.
    async fn agent_list(
        &self,
        tenant: &TenantId,
        filter: &AgentFilter,
        after: Option<&AgentId>,
        limit: u32,
    ) -> Result<Vec<AgentRow>>;

    /// Is woken when the tenant's revision was raised (META-37). The value is a revision that was reached, for logs: read the
    /// store for the present one.
    fn revision_signal(&self, tenant: &TenantId) -> watch::Receiver<u64>;

    /// Changes after a revision, of agents, contexts and groups alike.
    async fn change_list(&self, tenant: &TenantId, after: u64, limit: u32) -> Result<ChangePage>;

    /// Forgets old changes and old markers. Answers how much; less than the limit of either is all there was of it.
    async fn change_trim(&self, tenant: &TenantId, trim: Trim) -> Result<Trimmed>;

    /// Makes a context, or finds the one that the same call made.
    ///
    /// # Errors
    /// `context_exists`, `context_limit`, `group_not_found`; `stream_not_found` and `stream_closed` of the upload.
    async fn context_create(&self, tenant: &TenantId, new: NewContext) -> Result<Created<ContextRow>>;

    /// Changes a context.
    ///
    /// # Errors
    /// `context_not_found`, `revision_conflict`, `invalid_version`, `idempotency_conflict`, `group_not_found`;
    /// `stream_not_found` and `stream_closed` of the upload.
    async fn context_update(&self, tenant: &TenantId, id: &ContextId, write: ContextWrite) -> Result<Written>;

    /// Puts a marker in place of a context. Answers with the marker, an older one too; `None` when nothing was there.
    ///
    /// # Errors
    /// `revision_conflict`.
    async fn context_remove(
        &self,
        tenant: &TenantId,
        id: &ContextId,
        removal: ContextRemoval,
    ) -> Result<Option<ContextRow>>;

    /// Starts the life of a context anew.
    ///
    /// # Errors
    /// `context_not_found`, `revision_conflict`.
    async fn context_renew(&self, tenant: &TenantId, id: &ContextId, renewal: ContextRenewal) -> Result<ContextRow>;

    /// Shows a context or its marker with its payload. Whether it is over, the caller sees for itself.
    async fn context_get(&self, tenant: &TenantId, id: &ContextId) -> Result<Option<ContextRow>>;

    /// Shows a context or its marker as it was at a revision, with its payload; `None` before it was made.
    ///
    /// # Errors
    /// `revision_gap`.
    async fn context_get_at(&self, tenant: &TenantId, id: &ContextId, rev: u64) -> Result<Option<ContextRow>>;

    /// The context that has a key, or had it at a revision. One whose time is over has it until it gets its marker.
    async fn context_find(&self, tenant: &TenantId, key: &ContextKey, at: Option<u64>) -> Result<Option<ContextId>>;

    /// Lists contexts by id, which is by age.
    ///
    /// # Errors
    /// `revision_gap`, of a list at a revision.
    async fn context_list(
        &self,
        tenant: &TenantId,
        filter: &ContextFilter,
        at: ListedAt,
        payloads: Payloads,
        after: Option<&ContextId>,
        limit: u32,
    ) -> Result<Vec<ContextRow>>;

    /// Lists the kept revisions of a context, newest first, from below `before` on; payloads unread.
    async fn context_history(
        &self,
        tenant: &TenantId,
        id: &ContextId,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<ContextRow>>;

    /// Gives contexts whose time is over their markers, and answers with those.
    async fn context_expire(&self, tenant: &TenantId, now: Timestamp, limit: u32) -> Result<Vec<ContextRow>>;

    /// When the next context's time is over, be it past; `None` when no context has an end.
    async fn context_next_expiry(&self, tenant: &TenantId) -> Result<Option<Timestamp>>;

    /// Blobs that kept revisions name, by digest, each once: what a sweep must leave.
    async fn context_blobs_named(
        &self,
        tenant: &TenantId,
        after: Option<&Sha256Digest>,
        limit: u32,
    ) -> Result<Vec<Sha256Digest>>;

    /// Makes a group, or finds it.
    ///
    /// # Errors
    /// `group_exists`, `group_limit`.
    async fn group_create(&self, tenant: &TenantId, new: NewGroup) -> Result<Created<GroupRow>>;

    /// Ends a group with its memberships, and shows what it was.
    async fn group_delete(&self, tenant: &TenantId, name: &GroupName) -> Result<Option<GroupRow>>;

    /// Lists groups by name.
    async fn group_list(&self, tenant: &TenantId, after: Option<&GroupName>, limit: u32) -> Result<Vec<GroupRow>>;

    /// Puts agents into a group, at most [`ROWS_MAX`] a call.
    ///
    /// # Errors
    /// `group_not_found`, `group_limit`: then none was put in.
    async fn group_members_add(
        &self,
        tenant: &TenantId,
        name: &GroupName,
        agents: &[AgentId],
        now: Timestamp,
    ) -> Result<GroupRow>;

    /// Takes agents out of a group, at most [`ROWS_MAX`] a call.
    ///
    /// # Errors
    /// `group_not_found`.
    async fn group_members_remove(&self, tenant: &TenantId, name: &GroupName, agents: &[AgentId]) -> Result<GroupRow>;

    /// Lists the agents of a group by id; `None` when there is no such group.
    async fn group_member_list(
        &self,
        tenant: &TenantId,
        name: &GroupName,
        after: Option<&AgentId>,
        limit: u32,
    ) -> Result<Option<Vec<GroupMember>>>;

    /// The groups that an agent is in, now or at a revision.
    ///
    /// # Errors
    /// `revision_gap` when changes since that revision are no longer kept.
    async fn memberships(&self, tenant: &TenantId, agent: &AgentId, at: Option<u64>) -> Result<Memberships>;

    /// Makes a durable subscription, or finds it.
    ///
    /// # Errors
    /// `subscription_exists`, `subscription_limit`; `invalid_argument` for a name of the bus's own.
    async fn subscription_create(&self, tenant: &TenantId, new: NewSubscription) -> Result<Created<SubscriptionRow>>;

    /// Shows a subscription by name, implicit ones too.
    async fn subscription_get(&self, tenant: &TenantId, name: &SubscriptionName) -> Result<Option<SubscriptionRow>>;

    /// Shows a subscription by number, implicit ones too.
    async fn subscription_get_by_id(&self, tenant: &TenantId, id: SubscriptionId) -> Result<Option<SubscriptionRow>>;

    /// Lists subscriptions by name, bytewise.
    async fn subscription_list(
        &self,
        tenant: &TenantId,
        set: SubscriptionSet,
        after: Option<&SubscriptionName>,
        limit: u32,
    ) -> Result<Vec<SubscriptionRow>>;

    /// Lists all subscriptions by number, implicit ones too: what a partition's owner reads at its start.
    async fn subscription_list_by_id(
        &self,
        tenant: &TenantId,
        after: Option<SubscriptionId>,
        limit: u32,
    ) -> Result<Vec<SubscriptionRow>>;

    /// Every subscription of a tenant, by number: [`Self::subscription_list_by_id`] to its end.
    async fn subscription_list_all(&self, tenant: &TenantId) -> Result<Vec<SubscriptionRow>> {
        let mut all: Vec<SubscriptionRow> = Vec::new();
        loop {
            let page = self.subscription_list_by_id(tenant, all.last().map(|r| r.id), ROWS_MAX).await?;
            let last = page.len() < ROWS_MAX as usize;
            all.extend(page);
            if last {
                return Ok(all);
            }
        }
    }

    /// Ends a subscription and shows what it was.
    ///
    /// # Errors
    /// `invalid_argument` for an implicit one: it goes with its agent.
    async fn subscription_delete(&self, tenant: &TenantId, name: &SubscriptionName) -> Result<Option<SubscriptionRow>>;

    /// Keeps an enrolment key.
    ///
    /// # Errors
    /// `invalid_state` when a key of that id is there.
    async fn enrolment_key_create(&self, tenant: &TenantId, key: EnrolmentKeyRow) -> Result<()>;

    /// Shows an enrolment key, revoked and expired ones too.
    async fn enrolment_key_get(&self, tenant: &TenantId, key_id: &str) -> Result<Option<EnrolmentKeyRow>>;

    /// Lists enrolment keys by id. Ids sort by time, so the oldest come first.
    async fn enrolment_key_list(
        &self,
        tenant: &TenantId,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<EnrolmentKeyRow>>;

    /// Revokes a key and the token families that came of it. Answers with the families that this call revoked.
    async fn enrolment_key_revoke(&self, tenant: &TenantId, key_id: &str, now: Timestamp) -> Result<Vec<String>>;

    /// Gives an agent a secret and revokes the families of the old one. The agent need not be registered.
    async fn agent_secret_set(&self, tenant: &TenantId, agent: &AgentId, secret: NewAgentSecret) -> Result<SecretSet>;

    /// Shows an agent's secret, hashed.
    async fn agent_secret_get(&self, tenant: &TenantId, agent: &AgentId) -> Result<Option<AgentSecretRow>>;

    /// Adds a signing key and retires all others.
    ///
    /// # Errors
    /// `invalid_state` when a key of that id is there.
    async fn signing_key_rotate(&self, key: SigningKeyRow) -> Result<()>;

    /// All signing keys, newest first: the first one signs, the others only verify.
    async fn signing_key_list(&self) -> Result<Vec<SigningKeyRow>>;

    /// Forgets keys that were retired before a time. Answers how many.
    async fn signing_key_forget(&self, retired_before: Timestamp) -> Result<u64>;

    /// Begins a token family.
    ///
    /// # Errors
    /// `invalid_state` when a family of that id is there.
    async fn family_create(&self, tenant: &TenantId, family: NewFamily) -> Result<()>;

    /// Shows a token family.
    async fn family_get(&self, tenant: &TenantId, family_id: &str) -> Result<Option<TokenFamilyRow>>;

    /// Trades the present refresh token for the next, in one atomic compare-and-set.
    async fn family_rotate(&self, tenant: &TenantId, family_id: &str, request: RotationRequest) -> Result<Rotation>;

    /// Revokes one family. Answers whether this call did it; absent and revoked ones are left as they are.
    async fn family_revoke(&self, tenant: &TenantId, family_id: &str, now: Timestamp) -> Result<bool>;

    /// Revokes all families of a credential. Answers with those that this call revoked.
    async fn family_revoke_credential(
        &self,
        tenant: &TenantId,
        credential: &CredentialId,
        now: Timestamp,
    ) -> Result<Vec<String>>;

    /// Ids of families that are revoked and not yet over at `now`, by id: what a server must refuse from its start on.
    async fn family_list_revoked(
        &self,
        tenant: &TenantId,
        now: Timestamp,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>>;

    /// Forgets families that were over before a time. Answers how many.
    async fn family_forget(&self, tenant: &TenantId, over_before: Timestamp) -> Result<u64>;

    /// Adds an audit entry to the tenant's chain.
    async fn audit_append(&self, tenant: &TenantId, entry: AuditEntry) -> Result<AuditRow>;

    /// Lists audit rows by number.
    async fn audit_list(&self, tenant: &TenantId, after: Option<u64>, limit: u32) -> Result<Vec<AuditRow>>;

    /// Reads a setting of the server itself, such as `instance_id`.
    async fn setting_get(&self, key: &str) -> Result<Option<String>>;

    /// Writes a setting.
    async fn setting_put(&self, key: &str, value: &str) -> Result<()>;

    /// Writes a setting unless it is there. Answers with what it holds then.
    async fn setting_put_if_absent(&self, key: &str, value: &str) -> Result<String>;

    /// Ends what is in hand and closes. Later calls are `unavailable`. Closing twice is closing once.
    async fn close(&self) -> Result<()>;
}
