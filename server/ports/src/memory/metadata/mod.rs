//! [`MemoryMetadata`]: every table a map, every call one lock.

mod agent;
mod audit;
mod change;
mod context;
mod credential;
mod group;
mod subscription;
mod tenant;
mod upload;

use std::{collections::BTreeMap, sync::Arc};

use acb_types::{
    AgentId, ContextId, ContextKey, CredentialId, ErrorCode, GroupName, Sha256Digest, SubscriptionId, SubscriptionName,
    TenantId, Timestamp,
};
use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use self::tenant::Tenant;
use crate::{
    error::StoreError,
    metadata::{
        AgentFilter, AgentRemoval, AgentRow, AgentSecretRow, AgentUpdate, AuditEntry, AuditRow, ChangePage,
        ContextFilter, ContextRemoval, ContextRenewal, ContextRow, ContextWrite, Created, EnrolmentKeyRow, GroupMember,
        GroupRow, ListedAt, Memberships, MetadataStore, NewAgentSecret, NewContext, NewFamily, NewGroup,
        NewSubscription, Payloads, ROWS_MAX, Registered, Registration, RemovedAgent, Result, Rotation, RotationRequest,
        SecretSet, SigningKeyRow, SubscriptionRow, SubscriptionSet, TenantRow, TokenFamilyRow, Trim, Trimmed, Written,
    },
};

/// The metadata store as maps in memory. Clones and [`Self::reopened`] share what it holds.
#[derive(Clone, Debug, Default)]
pub struct MemoryMetadata {
    state: Arc<Mutex<State>>,
    open: Arc<Mutex<Open>>,
}

/// What is kept.
#[derive(Debug, Default)]
struct State {
    tenants: BTreeMap<TenantId, Tenant>,
    signing_keys: BTreeMap<String, SigningKeyRow>,
    settings: BTreeMap<String, String>,
    /// Woken when a tenant's revision rises (META-37).
    signals: BTreeMap<TenantId, watch::Sender<u64>>,
    refusal: Option<ErrorCode>,
}

/// Whether this handle is open.
#[derive(Debug, Default, PartialEq, Eq)]
enum Open {
    #[default]
    Yes,
    No,
}

impl MemoryMetadata {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// What opening the same data folder anew would give: the same rows, open again.
    #[must_use]
    pub fn reopened(&self) -> Self {
        Self { state: Arc::clone(&self.state), open: Arc::default() }
    }

    /// Refuses every write with a code from now on, as a full or read-only disk does; `None` heals it.
    pub fn refuse_writes(&self, code: Option<ErrorCode>) {
        self.state.lock().refusal = code;
    }

    /// What kill -9 of its process does to this handle: nothing that comes later reaches the rows.
    pub fn kill(&self) {
        *self.open.lock() = Open::No;
    }

    fn read(&self, operation: &'static str) -> Result<MutexGuard<'_, State>> {
        if *self.open.lock() == Open::No {
            return Err(StoreError::new(ErrorCode::Unavailable, operation, "the metadata store is closed"));
        }
        Ok(self.state.lock())
    }

    fn write(&self, operation: &'static str) -> Result<MutexGuard<'_, State>> {
        let state = self.read(operation)?;
        match state.refusal {
            Some(code) => Err(StoreError::new(code, operation, "writes are refused")),
            None => Ok(state),
        }
    }

    fn write_tenant<T>(
        &self,
        operation: &'static str,
        tenant: &TenantId,
        work: impl FnOnce(&mut Tenant) -> Result<T>,
    ) -> Result<T> {
        let state = &mut *self.write(operation)?;
        let held = state.tenants.get_mut(tenant).ok_or_else(|| no_tenant(operation, tenant))?;
        let before = held.revision;
        let answer = work(held);
        if held.revision != before
            && let Some(signal) = state.signals.get(tenant)
        {
            signal.send_replace(held.revision);
        }
        answer
    }

    /// Reads a tenant; an unknown one is empty (META-22).
    fn read_tenant<T: Default>(
        &self,
        operation: &'static str,
        tenant: &TenantId,
        work: impl FnOnce(&Tenant) -> T,
    ) -> Result<T> {
        Ok(self.read(operation)?.tenants.get(tenant).map(work).unwrap_or_default())
    }
}

fn no_tenant(operation: &'static str, tenant: &TenantId) -> StoreError {
    StoreError::new(ErrorCode::TenantNotFound, operation, format!("no tenant {tenant}"))
}

/// Checks a list's limit (META-21).
fn rows(operation: &'static str, limit: u32) -> Result<usize> {
    if limit == 0 || limit > ROWS_MAX {
        let message = format!("limit of {limit} rows is outside 1 to {ROWS_MAX}");
        return Err(StoreError::new(ErrorCode::InvalidArgument, operation, message));
    }
    Ok(limit as usize)
}

/// The first rows of a sorted map after a key.
fn page<K: Ord, V: Clone>(
    map: &BTreeMap<K, V>,
    after: Option<&K>,
    limit: usize,
    wanted: impl Fn(&V) -> bool,
) -> Vec<V> {
    map.iter()
        .filter(|(key, value)| after.is_none_or(|after| *key > after) && wanted(value))
        .take(limit)
        .map(|(_, value)| value.clone())
        .collect()
}

#[async_trait]
impl MetadataStore for MemoryMetadata {
    async fn tenant_create(&self, tenant: &TenantId, name: &str, now: Timestamp) -> Result<TenantRow> {
        let mut state = self.write("tenant.create")?;
        if state.tenants.contains_key(tenant) {
            let message = format!("tenant {tenant} is there already");
            return Err(StoreError::new(ErrorCode::TenantExists, "tenant.create", message));
        }
        let row = TenantRow { id: tenant.clone(), name: name.to_owned(), created_at: now };
        state.tenants.insert(tenant.clone(), Tenant::new(row.clone()));
        Ok(row)
    }

    async fn tenant_get(&self, tenant: &TenantId) -> Result<Option<TenantRow>> {
        self.read_tenant("tenant.get", tenant, |t| Some(t.row.clone()))
    }

    async fn tenant_list(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<TenantRow>> {
        let limit = rows("tenant.list", limit)?;
        let state = self.read("tenant.list")?;
        let later = state.tenants.iter().filter(|(id, _)| after.is_none_or(|after| *id > after));
        Ok(later.take(limit).map(|(_, t)| t.row.clone()).collect())
    }

    async fn tenant_revision(&self, tenant: &TenantId) -> Result<u64> {
        self.read_tenant("tenant.revision", tenant, |t| Some(t.revision))?
            .ok_or_else(|| no_tenant("tenant.revision", tenant))
    }

    async fn agent_register(&self, tenant: &TenantId, registration: Registration) -> Result<Registered> {
        self.write_tenant("agent.register", tenant, |t| t.agent_register(registration))
    }

    async fn agent_get(&self, tenant: &TenantId, agent: &AgentId) -> Result<Option<AgentRow>> {
        self.read_tenant("agent.get", tenant, |t| t.agents.get(agent).cloned())
    }

    async fn agent_update(&self, tenant: &TenantId, agent: &AgentId, update: AgentUpdate) -> Result<AgentRow> {
        self.write_tenant("agent.update", tenant, |t| t.agent_update(agent, &update))
    }

    async fn agent_remove(&self, tenant: &TenantId, agent: &AgentId, removal: AgentRemoval) -> Result<RemovedAgent> {
        self.write_tenant("agent.remove", tenant, |t| t.agent_remove(agent, &removal))
    }

    async fn agent_list(
        &self,
        tenant: &TenantId,
        filter: &AgentFilter,
        after: Option<&AgentId>,
        limit: u32,
    ) -> Result<Vec<AgentRow>> {
        let limit = rows("agent.list", limit)?;
        self.read_tenant("agent.list", tenant, |t| page(&t.agents, after, limit, |row| filter.wants(&row.spec)))
    }

    fn revision_signal(&self, tenant: &TenantId) -> watch::Receiver<u64> {
        let mut state = self.state.lock();
        state.signals.entry(tenant.clone()).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    async fn change_list(&self, tenant: &TenantId, after: u64, limit: u32) -> Result<ChangePage> {
        let limit = rows("change.list", limit)?;
        self.read_tenant("change.list", tenant, |t| t.change_list(after, limit))
    }

    async fn change_trim(&self, tenant: &TenantId, trim: Trim) -> Result<Trimmed> {
        rows("change.trim", trim.limit)?;
        self.write_tenant("change.trim", tenant, |t| Ok(t.change_trim(trim)))
    }

    async fn context_create(&self, tenant: &TenantId, new: NewContext) -> Result<Created<ContextRow>> {
        self.write_tenant("context.create", tenant, |t| t.context_create(new))
    }

    async fn context_update(&self, tenant: &TenantId, id: &ContextId, write: ContextWrite) -> Result<Written> {
        self.write_tenant("context.update", tenant, |t| t.context_update(id, &write))
    }

    async fn context_remove(
        &self,
        tenant: &TenantId,
        id: &ContextId,
        removal: ContextRemoval,
    ) -> Result<Option<ContextRow>> {
        self.write_tenant("context.remove", tenant, |t| t.context_remove(id, &removal))
    }

    async fn context_renew(&self, tenant: &TenantId, id: &ContextId, renewal: ContextRenewal) -> Result<ContextRow> {
        self.write_tenant("context.renew", tenant, |t| t.context_renew(id, &renewal))
    }

    async fn context_get(&self, tenant: &TenantId, id: &ContextId) -> Result<Option<ContextRow>> {
        self.read_tenant("context.get", tenant, |t| t.context_get(id))
    }

    async fn context_get_at(&self, tenant: &TenantId, id: &ContextId, rev: u64) -> Result<Option<ContextRow>> {
        self.read_tenant("context.get", tenant, |t| Some(t.context_get_at(id, rev)))?.unwrap_or(Ok(None))
    }

    async fn context_find(&self, tenant: &TenantId, key: &ContextKey, at: Option<u64>) -> Result<Option<ContextId>> {
        self.read_tenant("context.find", tenant, |t| t.context_find(key, at))
    }

    async fn context_list(
        &self,
        tenant: &TenantId,
        filter: &ContextFilter,
        at: ListedAt,
        payloads: Payloads,
        after: Option<&ContextId>,
        limit: u32,
    ) -> Result<Vec<ContextRow>> {
        let limit = rows("context.list", limit)?;
        let list = |t: &Tenant| Some(t.context_list(filter, at, payloads, after, limit));
        self.read_tenant("context.list", tenant, list)?.unwrap_or_else(|| Ok(Vec::new()))
    }

    async fn context_history(
        &self,
        tenant: &TenantId,
        id: &ContextId,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<ContextRow>> {
        let limit = rows("context.history", limit)?;
        self.read_tenant("context.history", tenant, |t| t.context_history(id, before, limit))
    }

    async fn context_expire(&self, tenant: &TenantId, now: Timestamp, limit: u32) -> Result<Vec<ContextRow>> {
        let limit = rows("context.expire", limit)?;
        self.write_tenant("context.expire", tenant, |t| Ok(t.context_expire(now, limit)))
    }

    async fn context_next_expiry(&self, tenant: &TenantId) -> Result<Option<Timestamp>> {
        self.read_tenant("context.next_expiry", tenant, Tenant::context_next_expiry)
    }

    async fn context_blobs_named(
        &self,
        tenant: &TenantId,
        after: Option<&Sha256Digest>,
        limit: u32,
    ) -> Result<Vec<Sha256Digest>> {
        let limit = rows("context.blobs_named", limit)?;
        self.read_tenant("context.blobs_named", tenant, |t| t.context_blobs_named(after, limit))
    }

    async fn group_create(&self, tenant: &TenantId, new: NewGroup) -> Result<Created<GroupRow>> {
        self.write_tenant("group.create", tenant, |t| t.group_create(new))
    }

    async fn group_delete(&self, tenant: &TenantId, name: &GroupName) -> Result<Option<GroupRow>> {
        self.write_tenant("group.delete", tenant, |t| Ok(t.group_delete(name)))
    }

    async fn group_list(&self, tenant: &TenantId, after: Option<&GroupName>, limit: u32) -> Result<Vec<GroupRow>> {
        let limit = rows("group.list", limit)?;
        self.read_tenant("group.list", tenant, |t| t.group_list(after, limit))
    }

    async fn group_members_add(
        &self,
        tenant: &TenantId,
        name: &GroupName,
        agents: &[AgentId],
        now: Timestamp,
    ) -> Result<GroupRow> {
        rows("group.members_add", u32::try_from(agents.len().max(1)).unwrap_or(u32::MAX))?;
        self.write_tenant("group.members_add", tenant, |t| t.group_members_add(name, agents, now))
    }

    async fn group_members_remove(&self, tenant: &TenantId, name: &GroupName, agents: &[AgentId]) -> Result<GroupRow> {
        rows("group.members_remove", u32::try_from(agents.len().max(1)).unwrap_or(u32::MAX))?;
        self.write_tenant("group.members_remove", tenant, |t| t.group_members_remove(name, agents))
    }

    async fn group_member_list(
        &self,
        tenant: &TenantId,
        name: &GroupName,
        after: Option<&AgentId>,
        limit: u32,
    ) -> Result<Option<Vec<GroupMember>>> {
        let limit = rows("group.member_list", limit)?;
        self.read_tenant("group.member_list", tenant, |t| t.group_member_list(name, after, limit))
    }

    async fn memberships(&self, tenant: &TenantId, agent: &AgentId, at: Option<u64>) -> Result<Memberships> {
        let found = self.read_tenant("memberships", tenant, |t| Some(t.memberships(agent, at)))?;
        found.unwrap_or_else(|| Ok(Memberships::default()))
    }

    async fn subscription_create(&self, tenant: &TenantId, new: NewSubscription) -> Result<Created<SubscriptionRow>> {
        self.write_tenant("subscription.create", tenant, |t| t.subscription_create(new))
    }

    async fn subscription_get(&self, tenant: &TenantId, name: &SubscriptionName) -> Result<Option<SubscriptionRow>> {
        self.read_tenant("subscription.get", tenant, |t| t.subscription_named(name).cloned())
    }

    async fn subscription_get_by_id(&self, tenant: &TenantId, id: SubscriptionId) -> Result<Option<SubscriptionRow>> {
        self.read_tenant("subscription.get", tenant, |t| t.subscriptions.get(&id).cloned())
    }

    async fn subscription_list(
        &self,
        tenant: &TenantId,
        set: SubscriptionSet,
        after: Option<&SubscriptionName>,
        limit: u32,
    ) -> Result<Vec<SubscriptionRow>> {
        let limit = rows("subscription.list", limit)?;
        self.read_tenant("subscription.list", tenant, |t| t.subscriptions_by_name(set, after, limit))
    }

    async fn subscription_list_by_id(
        &self,
        tenant: &TenantId,
        after: Option<SubscriptionId>,
        limit: u32,
    ) -> Result<Vec<SubscriptionRow>> {
        let limit = rows("subscription.list", limit)?;
        self.read_tenant("subscription.list", tenant, |t| page(&t.subscriptions, after.as_ref(), limit, |_| true))
    }

    async fn subscription_delete(&self, tenant: &TenantId, name: &SubscriptionName) -> Result<Option<SubscriptionRow>> {
        self.write_tenant("subscription.delete", tenant, |t| t.subscription_delete(name))
    }

    async fn enrolment_key_create(&self, tenant: &TenantId, key: EnrolmentKeyRow) -> Result<()> {
        self.write_tenant("enrolment_key.create", tenant, |t| t.enrolment_key_create(key))
    }

    async fn enrolment_key_get(&self, tenant: &TenantId, key_id: &str) -> Result<Option<EnrolmentKeyRow>> {
        self.read_tenant("enrolment_key.get", tenant, |t| t.enrolment_keys.get(key_id).cloned())
    }

    async fn enrolment_key_list(
        &self,
        tenant: &TenantId,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<EnrolmentKeyRow>> {
        let limit = rows("enrolment_key.list", limit)?;
        let after = after.map(str::to_owned);
        self.read_tenant("enrolment_key.list", tenant, |t| page(&t.enrolment_keys, after.as_ref(), limit, |_| true))
    }

    async fn enrolment_key_revoke(&self, tenant: &TenantId, key_id: &str, now: Timestamp) -> Result<Vec<String>> {
        self.write_tenant("enrolment_key.revoke", tenant, |t| t.enrolment_key_revoke(key_id, now))
    }

    async fn agent_secret_set(&self, tenant: &TenantId, agent: &AgentId, secret: NewAgentSecret) -> Result<SecretSet> {
        self.write_tenant("agent_secret.set", tenant, |t| t.agent_secret_set(agent, secret))
    }

    async fn agent_secret_get(&self, tenant: &TenantId, agent: &AgentId) -> Result<Option<AgentSecretRow>> {
        self.read_tenant("agent_secret.get", tenant, |t| t.secrets.get(agent).cloned())
    }

    async fn signing_key_rotate(&self, key: SigningKeyRow) -> Result<()> {
        let mut state = self.write("signing_key.rotate")?;
        credential::signing_key_rotate(&mut state.signing_keys, key)
    }

    async fn signing_key_list(&self) -> Result<Vec<SigningKeyRow>> {
        let state = self.read("signing_key.list")?;
        Ok(credential::signing_keys_newest_first(&state.signing_keys))
    }

    async fn signing_key_forget(&self, retired_before: Timestamp) -> Result<u64> {
        let mut state = self.write("signing_key.forget")?;
        let before = state.signing_keys.len();
        state.signing_keys.retain(|_, key| !(key.retired_at.is_set() && key.retired_at < retired_before));
        Ok((before - state.signing_keys.len()) as u64)
    }

    async fn family_create(&self, tenant: &TenantId, family: NewFamily) -> Result<()> {
        self.write_tenant("family.create", tenant, |t| t.family_create(family))
    }

    async fn family_get(&self, tenant: &TenantId, family_id: &str) -> Result<Option<TokenFamilyRow>> {
        self.read_tenant("family.get", tenant, |t| t.families.get(family_id).map(|f| f.row.clone()))
    }

    async fn family_rotate(&self, tenant: &TenantId, family_id: &str, request: RotationRequest) -> Result<Rotation> {
        self.write_tenant("family.rotate", tenant, |t| Ok(t.family_rotate(family_id, &request)))
    }

    async fn family_revoke(&self, tenant: &TenantId, family_id: &str, now: Timestamp) -> Result<bool> {
        self.write_tenant("family.revoke", tenant, |t| {
            Ok(!t.families_revoke(now, |row| row.family_id == family_id).is_empty())
        })
    }

    async fn family_revoke_credential(
        &self,
        tenant: &TenantId,
        credential: &CredentialId,
        now: Timestamp,
    ) -> Result<Vec<String>> {
        self.write_tenant("family.revoke", tenant, |t| Ok(t.families_revoke(now, |row| row.credential == *credential)))
    }

    async fn family_list_revoked(
        &self,
        tenant: &TenantId,
        now: Timestamp,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>> {
        let limit = rows("family.list_revoked", limit)?;
        let after = after.map(str::to_owned);
        let good = |row: &TokenFamilyRow| row.revoked_at.is_set() && row.expires_at > now;
        self.read_tenant("family.list_revoked", tenant, |t| {
            let pages = page(&t.families, after.as_ref(), limit, |f| good(&f.row));
            pages.into_iter().map(|f| f.row.family_id).collect()
        })
    }

    async fn family_forget(&self, tenant: &TenantId, over_before: Timestamp) -> Result<u64> {
        self.write_tenant("family.forget", tenant, |t| {
            let before = t.families.len();
            t.families.retain(|_, family| family.row.expires_at >= over_before);
            Ok((before - t.families.len()) as u64)
        })
    }

    async fn audit_append(&self, tenant: &TenantId, entry: AuditEntry) -> Result<AuditRow> {
        self.write_tenant("audit.append", tenant, |t| Ok(t.audit_append(entry)))
    }

    async fn audit_list(&self, tenant: &TenantId, after: Option<u64>, limit: u32) -> Result<Vec<AuditRow>> {
        let limit = rows("audit.list", limit)?;
        self.read_tenant("audit.list", tenant, |t| t.audit_list(after, limit))
    }

    async fn setting_get(&self, key: &str) -> Result<Option<String>> {
        Ok(self.read("setting.get")?.settings.get(key).cloned())
    }

    async fn setting_put(&self, key: &str, value: &str) -> Result<()> {
        self.write("setting.put")?.settings.insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    async fn setting_put_if_absent(&self, key: &str, value: &str) -> Result<String> {
        let mut state = self.write("setting.put")?;
        Ok(state.settings.entry(key.to_owned()).or_insert_with(|| value.to_owned()).clone())
    }

    async fn close(&self) -> Result<()> {
        *self.open.lock() = Open::No;
        Ok(())
    }
}
