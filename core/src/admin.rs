//! Tenants, enrolment keys and secrets. Every call needs the role admin.

use std::{fmt, time::Duration};

use acb_proto::v1::admin_service_client::AdminServiceClient;
use acb_types::{Timestamp, limits};

use crate::{
    client::Handle,
    convert,
    error::Result,
    pages::{Page, Pages},
    retry::Safety,
};

/// A wall that nothing crosses.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tenant {
    /// Its id.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// An enrolment key's facts, without the key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EnrolmentKey {
    /// Names the key.
    pub id: String,
    /// For people.
    pub label: String,
    /// Agent ids that it may take: an id, or a prefix and `*`. Empty for any.
    pub agent_pattern: String,
    /// Roles that its tokens get.
    pub roles: Vec<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends; not set means never.
    pub expires_at: Timestamp,
    /// Whether it was revoked.
    pub revoked: bool,
}

/// A key that was just made. Shown this once; masked in `Debug`.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreatedKey {
    /// `acb_…`.
    pub secret: String,
    /// Its facts.
    pub key: EnrolmentKey,
}

impl fmt::Debug for CreatedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreatedKey").field("key", &self.key).finish_non_exhaustive()
    }
}

/// What an enrolment key is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct KeySpec {
    pub(crate) tenant: String,
    pub(crate) label: String,
    pub(crate) agent_pattern: String,
    pub(crate) roles: Vec<String>,
    pub(crate) ttl: Option<Duration>,
}

impl KeySpec {
    /// A key with this label; of the caller's own tenant, for any agent id, with the role agent-full, for ever.
    pub fn new(label: impl Into<String>) -> Self {
        Self { label: label.into(), ..Self::default() }
    }

    /// For another tenant; only by admins of `default`.
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = tenant.into();
        self
    }

    /// Agent ids that it may take: an id, or a prefix and `*`.
    pub fn agent_pattern(mut self, pattern: impl Into<String>) -> Self {
        self.agent_pattern = pattern.into();
        self
    }

    /// A role that its tokens get; call it again for more.
    pub fn role(mut self, role: impl Into<String>) -> Self {
        self.roles.push(role.into());
        self
    }

    /// How long it lives.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }
}

/// Administration. Made by [`Client::admin`](crate::Client::admin).
///
#[doc = "```no_run"]
#[doc = include_str!("../doc/admin.rs")]
#[doc = "```"]
#[derive(Clone, Debug)]
pub struct Admin {
    core: Handle,
}

impl Admin {
    pub(crate) fn new(core: Handle) -> Self {
        Self { core }
    }

    pub(crate) fn core(&self) -> &Handle {
        &self.core
    }

    /// Makes a tenant with its logs.
    ///
    /// # Errors
    /// `tenant_exists`, `invalid_name`, `permission_denied`.
    pub async fn create_tenant(&self, id: impl Into<String>, name: impl Into<String>) -> Result<Tenant> {
        let operation = "admin.create_tenant";
        let request = convert::create_tenant(id.into(), name.into());
        let response = self
            .core
            .call(operation, Safety::Once, request, |to, request| async move {
                AdminServiceClient::with_origin(to.channel, to.origin).create_tenant(request).await
            })
            .await?;
        convert::tenant(operation, response.tenant)
    }

    /// All tenants, by id.
    pub fn tenants(&self) -> Pages<Tenant> {
        let me = self.clone();
        Pages::new(move |token| {
            let me = me.clone();
            async move {
                let operation = "admin.tenants";
                let request = convert::list_tenants(limits::PAGE_SIZE_MAX, token);
                let response = me
                    .core
                    .call(operation, Safety::Idempotent, request, |to, request| async move {
                        AdminServiceClient::with_origin(to.channel, to.origin).list_tenants(request).await
                    })
                    .await?;
                let items = response.tenants.into_iter().map(|t| convert::tenant(operation, Some(t)));
                Ok(Page::new(items.collect::<Result<_>>()?, response.next_page_token))
            }
        })
    }

    /// Makes an enrolment key and shows it this once.
    ///
    /// # Errors
    /// `tenant_not_found`, `invalid_argument`, `permission_denied`.
    pub async fn create_enrolment_key(&self, spec: KeySpec) -> Result<CreatedKey> {
        let operation = "admin.create_enrolment_key";
        let response = self
            .core
            .call(operation, Safety::Once, convert::create_enrolment_key(spec), |to, request| async move {
                AdminServiceClient::with_origin(to.channel, to.origin).create_enrolment_key(request).await
            })
            .await?;
        let key = convert::enrolment_key(operation, response.key)?;
        Ok(CreatedKey { secret: response.enrolment_key, key })
    }

    /// The tenant's enrolment keys, oldest first, without their secrets.
    pub fn enrolment_keys(&self) -> Pages<EnrolmentKey> {
        let me = self.clone();
        Pages::new(move |token| {
            let me = me.clone();
            async move {
                let operation = "admin.enrolment_keys";
                let request = convert::list_enrolment_keys(limits::PAGE_SIZE_MAX, token);
                let response = me
                    .core
                    .call(operation, Safety::Idempotent, request, |to, request| async move {
                        AdminServiceClient::with_origin(to.channel, to.origin).list_enrolment_keys(request).await
                    })
                    .await?;
                let items = response.keys.into_iter().map(|k| convert::enrolment_key(operation, Some(k)));
                Ok(Page::new(items.collect::<Result<_>>()?, response.next_page_token))
            }
        })
    }

    /// Ends a key and all tokens that came of it. Revoking what is absent succeeds.
    ///
    /// # Errors
    /// `permission_denied`.
    pub async fn revoke_enrolment_key(&self, id: impl Into<String>) -> Result<()> {
        let operation = "admin.revoke_enrolment_key";
        self.core
            .call(operation, Safety::Idempotent, convert::revoke_enrolment_key(id.into()), |to, request| async move {
                AdminServiceClient::with_origin(to.channel, to.origin).revoke_enrolment_key(request).await
            })
            .await?;
        Ok(())
    }

    /// Gives an agent a new secret, shows it this once, and ends tokens of the old one. Without roles it gets
    /// agent-full.
    ///
    /// # Errors
    /// `invalid_name`, `permission_denied`.
    pub async fn set_agent_secret<R: Into<String>>(
        &self,
        agent: impl Into<String>,
        roles: impl IntoIterator<Item = R>,
    ) -> Result<String> {
        let operation = "admin.set_agent_secret";
        let roles = roles.into_iter().map(Into::into).collect();
        let response = self
            .core
            .call(operation, Safety::Once, convert::set_agent_secret(agent.into(), roles), |to, request| async move {
                AdminServiceClient::with_origin(to.channel, to.origin).set_agent_secret(request).await
            })
            .await?;
        Ok(response.secret)
    }

    /// Makes a new signing key and gives its id; tokens of the old one stay good until they end.
    ///
    /// # Errors
    /// `permission_denied`.
    pub async fn rotate_signing_key(&self) -> Result<String> {
        let operation = "admin.rotate_signing_key";
        let response = self
            .core
            .call(operation, Safety::Once, convert::rotate_signing_key(), |to, request| async move {
                AdminServiceClient::with_origin(to.channel, to.origin).rotate_signing_key(request).await
            })
            .await?;
        Ok(response.key_id)
    }
}
