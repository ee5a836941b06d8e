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
//!
//! The store asks no clock: whoever writes gives the time. `TenantId` comes first wherever a tenant owns what is touched;
//! signing keys and settings are the server's own and take none.
//!
//! Not in this port: status and presence (derived from live streams), delivery state (in the log), any transaction with
//! the log.

mod agent;
mod audit;
mod credential;
mod subscription;
mod tenant;

use std::fmt;

use acb_types::{AgentId, CredentialId, SubscriptionId, SubscriptionName, TenantId, Timestamp};
use async_trait::async_trait;

pub use self::{
    agent::{
        AgentCapability, AgentFilter, AgentRemoval, AgentRow, AgentSpec, AgentUpdate, Inbox, Registered, Registration,
        RemovedAgent,
    },
    audit::{AuditDigest, AuditEntry, AuditRow},
    credential::{
        AgentSecretRow, EnrolmentKeyRow, FAMILY_HASHES_MAX, NewAgentSecret, NewFamily, RefreshHash, Rotation,
        RotationRequest, SecretBytes, SecretSet, SigningKeyRow, TokenFamilyRow, credential_of_key,
        credential_of_secret,
    },
    subscription::{Created, NewSubscription, SubscriptionRow, SubscriptionSet, SubscriptionSpec},
    tenant::TenantRow,
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
pub trait MetadataStore: Send + Sync + fmt::Debug + 'static {
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
