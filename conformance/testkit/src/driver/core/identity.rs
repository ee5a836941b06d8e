//! Tokens, keys, secrets and tenants.

use acb_sdk::{Client, Credentials, EnrolmentKey, KeySpec};
use serde_json::{Value, json};

use super::CoreDriver;
use crate::{driver::Args, raw::Failure};

fn shape_key(key: &EnrolmentKey) -> Value {
    json!({
        "key_id": key.id, "label": key.label, "pattern": key.agent_pattern, "roles": key.roles,
        "created_at_ms": key.created_at.0, "expires_at_ms": key.expires_at.0, "revoked": key.revoked,
    })
}

/// The tokens that a client holds, and its end: the refresh token works once, so nobody else may hold it.
async fn take_tokens(client: Client) -> Value {
    let tokens = client.auth().tokens().unwrap_or_default();
    client.close().await;
    let who = &tokens.identity;
    json!({
        "access_token": tokens.access_token, "access_expires_at_ms": who.access_expires_at.0,
        "refresh_token": tokens.refresh_token, "refresh_expires_at_ms": who.refresh_expires_at.0,
        "agent_id": who.agent_id, "tenant_id": who.tenant_id, "roles": who.roles,
    })
}

impl CoreDriver {
    fn credentials_of(&self, args: &Args) -> Result<Option<Credentials>, Failure> {
        let agent = self.own_or(args, "agent")?;
        let tenant = args.text("tenant")?.unwrap_or_else(|| self.place.tenant.clone());
        Ok(if let Some(key) = args.text("key")? {
            Some(Credentials::enrolment_key(key, agent))
        } else if let Some(secret) = args.text("secret")? {
            Some(Credentials::secret(tenant, agent, secret))
        } else if let Some(token) = args.text("token")? {
            Some(Credentials::token(token))
        } else {
            Some(Credentials::dev(tenant, agent))
        })
    }

    pub(super) async fn connect(&mut self, args: &Args) -> Result<Value, Failure> {
        self.hang_up().await;
        if let Some(agent) = args.text("agent")? {
            self.place.agent = agent;
        }
        self.credentials = self.credentials_of(args)?;
        self.connect_timeout = args.span("timeout")?;
        let client = self.client().await?;
        let tenant = args.text("tenant")?.unwrap_or_else(|| self.place.tenant.clone());
        let identity = client.identity();
        let agent = client.agent_id().unwrap_or_default();
        Ok(json!({
            "agent_id": agent,
            "tenant_id": identity.map_or(tenant, |i| i.tenant_id),
        }))
    }

    pub(super) async fn login(&mut self, args: &Args) -> Result<Value, Failure> {
        let credentials = self.credentials_of(args)?.unwrap_or_else(|| Credentials::token(""));
        Ok(take_tokens(self.connect_as(credentials).await?).await)
    }

    pub(super) async fn refresh(&mut self, args: &Args) -> Result<Value, Failure> {
        let credentials = Credentials::refresh_token(args.need("token")?);
        Ok(take_tokens(self.connect_as(credentials).await?).await)
    }

    pub(super) async fn logout(&mut self) -> Result<Value, Failure> {
        self.client().await?.auth().logout().await?;
        Ok(Value::Null)
    }

    pub(super) async fn jwks(&mut self) -> Result<Value, Failure> {
        let jwks = self.client().await?.auth().jwks().await?;
        serde_json::from_str(&jwks).map_err(|e| Failure::own("protocol_error", format!("JWKS: {e}")))
    }

    pub(super) async fn create_tenant(&mut self, args: &Args) -> Result<Value, Failure> {
        let (id, name) = (args.need("id")?, args.text_or_empty("name")?);
        let tenant = self.client().await?.admin().create_tenant(id, name).await?;
        Ok(json!({"id": tenant.id, "name": tenant.name, "created_at_ms": tenant.created_at.0}))
    }

    pub(super) async fn list_tenants(&mut self) -> Result<Value, Failure> {
        let tenants = self.client().await?.admin().tenants().all().await?;
        Ok(json!({"ids": tenants.into_iter().map(|t| t.id).collect::<Vec<_>>(), "next_page_token": ""}))
    }

    pub(super) async fn create_key(&mut self, args: &Args) -> Result<Value, Failure> {
        let mut spec = KeySpec::new(args.text_or_empty("label")?);
        if let Some(tenant) = args.text("tenant")? {
            spec = spec.tenant(tenant);
        }
        if let Some(pattern) = args.text("pattern")? {
            spec = spec.agent_pattern(pattern);
        }
        for role in args.texts("roles")? {
            spec = spec.role(role);
        }
        if let Some(ttl) = args.span("ttl")? {
            spec = spec.ttl(ttl);
        }
        let made = self.client().await?.admin().create_enrolment_key(spec).await?;
        let mut shown = shape_key(&made.key);
        shown["key"] = made.secret.into();
        Ok(shown)
    }

    pub(super) async fn list_keys(&mut self) -> Result<Value, Failure> {
        let keys = self.client().await?.admin().enrolment_keys().all().await?;
        Ok(json!({"keys": keys.iter().map(shape_key).collect::<Vec<_>>(), "next_page_token": ""}))
    }

    pub(super) async fn revoke_key(&mut self, args: &Args) -> Result<Value, Failure> {
        let id = args.need("id")?;
        self.client().await?.admin().revoke_enrolment_key(id).await?;
        Ok(Value::Null)
    }

    pub(super) async fn set_secret(&mut self, args: &Args) -> Result<Value, Failure> {
        let (agent, roles) = (args.need("agent")?, args.texts("roles")?);
        let secret = self.client().await?.admin().set_agent_secret(agent, roles).await?;
        Ok(json!({ "secret": secret }))
    }

    pub(super) async fn rotate_signing_key(&mut self) -> Result<Value, Failure> {
        let key_id = self.client().await?.admin().rotate_signing_key().await?;
        Ok(json!({ "key_id": key_id }))
    }
}
