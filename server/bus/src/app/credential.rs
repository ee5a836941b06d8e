//! Enrolment keys, agents' secrets and signing keys, in the hands of admins.

use std::time::Duration;

use acb_ports::metadata::{EnrolmentKeyRow, NewAgentSecret};
use acb_types::{AgentId, ErrorCode, TenantId, Timestamp, limits};

use super::{
    App, OpContext,
    page::{self, Page, Query},
    tenant::of_default,
};
use crate::{
    auth::{
        FamilyId, Role, Roles,
        credential::{AgentPattern, Handle, new_secret},
        keyring,
    },
    error::AppError,
};

/// Asks for an enrolment key.
#[derive(Clone, Debug, Default)]
pub struct NewKey {
    /// Its tenant; the caller's own when not given.
    pub tenant: Option<TenantId>,
    /// For people.
    pub label: String,
    /// Agent ids that it may take.
    pub agent_pattern: String,
    /// Roles of its tokens; agent-full when empty.
    pub roles: Roles,
    /// Its life; for ever when not given.
    pub ttl: Option<Duration>,
}

fn or_agent(roles: Roles) -> Roles {
    if roles.is_empty() { Roles::of(&[Role::AgentFull]) } else { roles }
}

impl App {
    /// Makes an enrolment key. What comes back first is the key itself, which nobody can show again.
    ///
    /// # Errors
    /// `permission_denied` for another tenant's, `tenant_not_found`, `invalid_argument`, `field_too_large`.
    pub async fn enrolment_key_create(
        &self,
        ctx: &OpContext,
        new: NewKey,
    ) -> Result<(String, EnrolmentKeyRow), AppError> {
        let own = &ctx.principal().tenant;
        let tenant = new.tenant.clone().unwrap_or_else(|| own.clone());
        if tenant != *own {
            of_default(ctx)?;
        }
        let made = self.key_make(&tenant, new).await?;
        let target = format!("{tenant}/{}", made.1.key_id);
        self.audit_own(ctx, "enrolment_key.create", &target).await;
        Ok(made)
    }

    /// Makes the first key of a new data folder: an admin's, of the tenant `default`.
    ///
    /// # Errors
    /// The store's.
    pub async fn first_key_create(&self, tenant: &TenantId) -> Result<String, AppError> {
        let label = "first admin, made at the first start".to_owned();
        let new = NewKey { label, roles: Roles::of(&[Role::Admin]), ..NewKey::default() };
        Ok(self.key_make(tenant, new).await?.0)
    }

    async fn key_make(&self, tenant: &TenantId, new: NewKey) -> Result<(String, EnrolmentKeyRow), AppError> {
        if new.label.len() > limits::SHORT_TEXT_BYTES_MAX {
            return Err(AppError::too_large("label", new.label.len(), limits::SHORT_TEXT_BYTES_MAX));
        }
        AgentPattern::parse(&new.agent_pattern)?;
        let now = self.now();
        let key_id = self.deps.ids.uuid_v7(now).simple().to_string();
        let handle = Handle::new(Handle::KEY, tenant, &key_id, &*self.deps.ids);
        let row = EnrolmentKeyRow {
            key_id,
            hash: handle.hash(),
            label: new.label,
            agent_pattern: new.agent_pattern,
            roles: or_agent(new.roles).names(),
            created_at: now,
            expires_at: new.ttl.map_or(Timestamp::NONE, |ttl| now.after(ttl)),
            revoked_at: Timestamp::NONE,
        };
        self.deps.metadata.enrolment_key_create(tenant, row.clone()).await?;
        Ok((handle.reveal().to_owned(), row))
    }

    /// Lists the tenant's keys, oldest first.
    ///
    /// # Errors
    /// `invalid_page_token`.
    pub async fn enrolment_key_list(
        &self,
        ctx: &OpContext,
        size: u32,
        token: &str,
    ) -> Result<Page<EnrolmentKeyRow>, AppError> {
        let tenant = &ctx.principal().tenant;
        let size = page::size(size)?;
        let query = Query::new(&self.deps.page_key, "enrolment_keys", tenant);
        let after: Option<String> = query.after(token)?;
        let rows = self.deps.metadata.enrolment_key_list(tenant, after.as_deref(), size + 1).await?;
        Ok(Page::of(rows, size, &query, |row| row.key_id.clone()))
    }

    /// Ends a key and every token that came of it. What is absent, or another tenant's, is left as it is.
    ///
    /// # Errors
    /// The store's.
    pub async fn enrolment_key_revoke(&self, ctx: &OpContext, key_id: &str) -> Result<(), AppError> {
        let tenant = &ctx.principal().tenant;
        let families = self.deps.metadata.enrolment_key_revoke(tenant, key_id, self.now()).await?;
        self.end_families(families);
        self.audit_own(ctx, "enrolment_key.revoke", key_id).await;
        Ok(())
    }

    /// Gives an agent a new secret and ends the tokens of the old one. Answers with the secret.
    ///
    /// # Errors
    /// `slow_down`, and the store's.
    pub async fn agent_secret_set(&self, ctx: &OpContext, agent: &AgentId, roles: Roles) -> Result<String, AppError> {
        let tenant = &ctx.principal().tenant;
        let secret = new_secret(&*self.deps.ids);
        let hash = self.hasher.hash(secret.clone(), &*self.deps.ids).await?;
        let new = NewAgentSecret { hash, roles: or_agent(roles).names(), now: self.now() };
        let set = self.deps.metadata.agent_secret_set(tenant, agent, new).await?;
        self.end_families(set.revoked_families);
        self.audit_own(ctx, "agent_secret.set", agent.as_str()).await;
        Ok(secret)
    }

    fn end_families(&self, families: Vec<String>) {
        for family in families {
            self.deps.auth.revocations().revoke(FamilyId::from(family.as_str()), self.now());
        }
    }

    /// Makes a new signing key; tokens of the old ones stay good until they end. Answers with its id.
    ///
    /// # Errors
    /// `permission_denied` outside the tenant `default`.
    pub async fn signing_key_rotate(&self, ctx: &OpContext) -> Result<String, AppError> {
        of_default(ctx)?;
        let now = self.now();
        self.deps.metadata.signing_key_forget(keyring::forget_before(now)).await?;
        let key = keyring::new_signing_key(self.deps.ids.uuid_v7(now).simple().to_string(), now)?;
        let key_id = key.key_id.clone();
        self.deps.metadata.signing_key_rotate(key).await?;
        let rows = self.deps.metadata.signing_key_list().await?;
        self.deps.auth.keyring().replace(&rows)?;
        self.audit_own(ctx, "signing_key.rotate", &key_id).await;
        if rows.is_empty() { Err(AppError::of(ErrorCode::Internal)) } else { Ok(key_id) }
    }
}
