//! Sessions: from a key or a secret to tokens, from a refresh token to the next, and to their end.

use std::{net::IpAddr, time::Duration};

use acb_ports::metadata::{NewFamily, Rotation, RotationRequest, credential_of_key, credential_of_secret};
use acb_types::{AgentId, CredentialId, ErrorCode, TenantId, Timestamp};

use super::{App, Caller, OpContext};
use crate::{
    auth::{
        FamilyId, Principal, Roles,
        credential::{AgentPattern, Handle},
        rate::{Buckets, Rate},
    },
    error::AppError,
};

/// What a caller proves itself with.
#[derive(Debug)]
pub enum Proof {
    /// An enrolment key, and the agent id that the caller takes.
    Key {
        /// The key as it was handed out.
        key: String,
        /// The id.
        agent: AgentId,
    },
    /// An agent's secret.
    Secret {
        /// The agent's tenant.
        tenant: TenantId,
        /// The agent.
        agent: AgentId,
        /// The secret.
        secret: String,
    },
}

/// A pair of tokens.
#[derive(Debug)]
pub struct Tokens {
    /// JWT.
    pub access: String,
    /// When it ends.
    pub access_expires_at: Timestamp,
    /// Opaque, works once.
    pub refresh: String,
    /// When it ends.
    pub refresh_expires_at: Timestamp,
    /// Who they speak for.
    pub principal: Principal,
}

/// Failed logins, by who tried and at what. Only failures count: a thousand agents that start at once are no attack.
#[derive(Debug)]
pub(super) struct FailedLogins {
    /// By address and credential: guessing at one.
    targets: Buckets<(Option<IpAddr>, String)>,
    /// By address: guessing at many.
    addresses: Buckets<Option<IpAddr>>,
}

impl FailedLogins {
    pub(super) fn new() -> Self {
        let minute = |burst| Rate { burst, per: Duration::from_mins(1) };
        Self { targets: Buckets::new(minute(10)), addresses: Buckets::new(minute(100)) }
    }

    fn check(&self, caller: Caller, target: &str, mono_ms: u64) -> Result<(), AppError> {
        self.targets.check((caller.address, target.to_owned()), mono_ms)?;
        self.addresses.check(caller.address, mono_ms)
    }

    fn count(&self, caller: Caller, target: &str, mono_ms: u64) {
        // What is refused here was refused anyway; the next attempt meets the empty bucket.
        let _ = self.targets.take((caller.address, target.to_owned()), mono_ms);
        let _ = self.addresses.take(caller.address, mono_ms);
    }
}

/// Who a good proof speaks for.
struct Proven {
    tenant: TenantId,
    agent: AgentId,
    roles: Roles,
    credential: CredentialId,
    /// The credential's own end.
    until: Timestamp,
}

impl App {
    /// Trades a proof for tokens of a new family.
    ///
    /// # Errors
    /// `invalid_credentials`, whatever was wrong; `rate_limited` after many of those; `slow_down`.
    pub async fn login(&self, caller: Caller, proof: Proof) -> Result<Tokens, AppError> {
        let (target, tenant, agent) = match &proof {
            Proof::Key { key, agent } => match Handle::parse(Handle::KEY, key) {
                Some(handle) => (format!("key:{}:{}", handle.tenant, handle.row), Some(handle.tenant), agent.clone()),
                None => ("key".to_owned(), None, agent.clone()),
            },
            Proof::Secret { tenant, agent, .. } => {
                (format!("secret:{tenant}:{agent}"), Some(tenant.clone()), agent.clone())
            }
        };
        let mono = self.deps.clock.now().mono_ms;
        self.failed_logins.check(caller, &target, mono)?;
        let outcome = match self.prove(proof).await {
            Ok(proven) => self.tokens(proven).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &outcome
            && error.code() == ErrorCode::InvalidCredentials
        {
            self.failed_logins.count(caller, &target, mono);
            tracing::warn!(request_id = %caller.request_id, target, address = ?caller.address, "login failed");
        }
        if let Some(tenant) = tenant {
            self.audit(caller, &tenant, agent.as_str(), "session.login", &target, outcome.as_ref().err()).await;
        }
        if outcome.is_ok() {
            self.deps.metrics.logins.inc();
        }
        outcome
    }

    async fn prove(&self, proof: Proof) -> Result<Proven, AppError> {
        let bad = || AppError::of(ErrorCode::InvalidCredentials);
        let now = self.now();
        match proof {
            Proof::Key { key, agent } => {
                let handle = Handle::parse(Handle::KEY, &key).ok_or_else(bad)?;
                let row = self.deps.metadata.enrolment_key_get(&handle.tenant, &handle.row).await?.ok_or_else(bad)?;
                let ended = row.revoked_at.is_set() || row.expires_at.is_set() && now >= row.expires_at;
                if !handle.is(&row.hash) || ended || !AgentPattern::parse(&row.agent_pattern)?.allows(&agent) {
                    return Err(bad());
                }
                let credential = credential_of_key(&row.key_id).map_err(|e| AppError::from(e).private("key id"))?;
                let until = if row.expires_at.is_set() { row.expires_at } else { Timestamp(u64::MAX) };
                Ok(Proven { tenant: handle.tenant, agent, roles: Roles::parse(&row.roles)?, credential, until })
            }
            Proof::Secret { tenant, agent, secret } => {
                let row = self.deps.metadata.agent_secret_get(&tenant, &agent).await?;
                let (hash, roles) = row.map_or((None, Vec::new()), |r| (Some(r.hash), r.roles));
                if !self.hasher.is(secret, hash).await? {
                    return Err(bad());
                }
                let credential = credential_of_secret(&agent).map_err(|e| AppError::from(e).private("agent id"))?;
                let roles = Roles::parse(&roles)?;
                Ok(Proven { tenant, agent, roles, credential, until: Timestamp(u64::MAX) })
            }
        }
    }

    async fn tokens(&self, proven: Proven) -> Result<Tokens, AppError> {
        let now = self.now();
        let family = self.deps.ids.uuid_v7(now).simple().to_string();
        let refresh = Handle::new(Handle::REFRESH, &proven.tenant, &family, &*self.deps.ids);
        let refresh_expires_at = now.after(self.deps.config.refresh_ttl).min(proven.until);
        let new = NewFamily {
            family_id: family.clone(),
            agent: proven.agent.clone(),
            credential: proven.credential.clone(),
            roles: proven.roles.names(),
            refresh_hash: refresh.hash(),
            expires_at: refresh_expires_at,
            now,
        };
        self.deps.metadata.family_create(&proven.tenant, new).await?;
        let principal = Principal {
            tenant: proven.tenant,
            agent: proven.agent,
            roles: proven.roles,
            credential: proven.credential,
            family: FamilyId::from(family.as_str()),
        };
        self.sign(principal, &refresh, refresh_expires_at, now)
    }

    fn sign(
        &self,
        principal: Principal,
        refresh: &Handle,
        refresh_expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<Tokens, AppError> {
        // No access token outlives its family. Tokens count in whole seconds.
        let end = now.after(self.deps.config.access_ttl).min(refresh_expires_at);
        let access_expires_at = Timestamp(end.0 / 1000 * 1000);
        let token_id = self.deps.ids.uuid_v7(now).simple().to_string();
        let access = self.deps.auth.keyring().sign(&principal, now, access_expires_at, token_id)?;
        Ok(Tokens { access, access_expires_at, refresh: refresh.reveal().to_owned(), refresh_expires_at, principal })
    }

    /// Trades a refresh token for new tokens. Each works once; a second use ends the family.
    ///
    /// # Errors
    /// `refresh_reused`, `token_revoked`, `token_expired`, or `invalid_credentials` for what is no refresh token.
    pub async fn refresh(&self, caller: Caller, token: &str) -> Result<Tokens, AppError> {
        let bad = || AppError::of(ErrorCode::InvalidCredentials);
        let mono = self.deps.clock.now().mono_ms;
        self.failed_logins.check(caller, "refresh", mono)?;
        let old = Handle::parse(Handle::REFRESH, token).ok_or_else(|| {
            self.failed_logins.count(caller, "refresh", mono);
            bad()
        })?;
        let now = self.now();
        let next = Handle::new(Handle::REFRESH, &old.tenant, &old.row, &*self.deps.ids);
        let expires_at = self.refresh_end(&old, now).await?;
        let request = RotationRequest { presented: old.hash(), next: next.hash(), expires_at, now };
        match self.deps.metadata.family_rotate(&old.tenant, &old.row, request).await? {
            Rotation::Rotated(row) => {
                let principal = Principal {
                    tenant: old.tenant,
                    agent: row.agent,
                    roles: Roles::parse(&row.roles)?,
                    credential: row.credential,
                    family: FamilyId::from(row.family_id.as_str()),
                };
                self.sign(principal, &next, row.expires_at, now)
            }
            Rotation::Reused(row) => {
                self.deps.auth.revocations().revoke(FamilyId::from(row.family_id.as_str()), now);
                let error = AppError::of(ErrorCode::RefreshReused);
                tracing::warn!(agent = %row.agent, family = row.family_id, "a refresh token was used twice");
                self.audit(caller, &old.tenant, row.agent.as_str(), "session.refresh", &row.family_id, Some(&error))
                    .await;
                Err(error)
            }
            Rotation::Revoked => Err(AppError::of(ErrorCode::TokenRevoked)),
            // The refresh token's own end: retrying with it does not help, so it is not `token_expired`.
            Rotation::Expired => Err(bad().private("the refresh token is over")),
            Rotation::Absent => {
                self.failed_logins.count(caller, "refresh", mono);
                Err(bad())
            }
        }
    }

    /// When the next refresh token ends: a new span, but not after the enrolment key's own end.
    async fn refresh_end(&self, old: &Handle, now: Timestamp) -> Result<Timestamp, AppError> {
        let end = now.after(self.deps.config.refresh_ttl);
        let Some(family) = self.deps.metadata.family_get(&old.tenant, &old.row).await? else { return Ok(end) };
        let Some(key_id) = family.credential.as_str().strip_prefix("key:") else { return Ok(end) };
        let key = self.deps.metadata.enrolment_key_get(&old.tenant, key_id).await?;
        Ok(key.filter(|k| k.expires_at.is_set()).map_or(end, |k| end.min(k.expires_at)))
    }

    /// Ends the caller's token family.
    ///
    /// # Errors
    /// The store's.
    pub async fn logout(&self, ctx: &OpContext) -> Result<(), AppError> {
        let p = ctx.principal();
        self.deps.metadata.family_revoke(&p.tenant, p.family.as_str(), self.now()).await?;
        self.deps.auth.revocations().revoke(p.family.clone(), self.now());
        self.audit_own(ctx, "session.logout", p.family.as_str()).await;
        Ok(())
    }
}
