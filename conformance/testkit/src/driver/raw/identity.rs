//! Tokens, keys, secrets and tenants.

use acb_proto::v1;
use serde_json::{Value, json};

use super::{RawDriver, build::ms};
use crate::{
    driver::{Args, shape},
    raw::{Failure, Identity, RawClient, answer},
};

impl RawDriver {
    /// Connects by a credential, or by name alone.
    pub(super) async fn connect(&mut self, args: &Args) -> Result<Value, Failure> {
        let tenant = args.text("tenant")?.unwrap_or_else(|| self.place.tenant.clone());
        if let Some(agent) = args.text("agent")? {
            self.place.agent = agent;
        }
        if args.has("key") || args.has("secret") {
            let tokens = self.tokens(args).await?;
            self.become_identity(Identity::Token(tokens.access_token));
            return Ok(json!({"agent_id": tokens.agent_id, "tenant_id": tokens.tenant_id}));
        }
        self.become_identity(match args.text("token")? {
            Some(token) => Identity::Token(token),
            None => Identity::dev(&tenant, &self.place.agent),
        });
        self.client().await?;
        if args.has("timeout") {
            // A connection says nothing by itself. Nobody tries again here, so nobody waits.
            self.health().await?;
        }
        Ok(json!({"agent_id": self.place.agent, "tenant_id": tenant}))
    }

    async fn tokens(&mut self, args: &Args) -> Result<v1::Tokens, Failure> {
        let request = v1::LoginRequest {
            enrolment_key: args.text_or_empty("key")?,
            agent_id: args.text("agent")?.unwrap_or_else(|| self.place.agent.clone()),
            secret: args.text_or_empty("secret")?,
            tenant_id: args.text("tenant")?.unwrap_or_else(|| self.place.tenant.clone()),
        };
        // Whoever logs in has no token yet: the call goes without one.
        let client = RawClient::connect_over(&self.place.reach, &Identity::None).await?;
        Ok(answer(client.auth().login(request)).await?.tokens.unwrap_or_default())
    }

    pub(super) async fn login(&mut self, args: &Args) -> Result<Value, Failure> {
        Ok(shape::tokens(&self.tokens(args).await?))
    }

    pub(super) async fn refresh(&mut self, args: &Args) -> Result<Value, Failure> {
        let request = v1::RefreshRequest { refresh_token: args.need("token")? };
        let client = RawClient::connect_over(&self.place.reach, &Identity::None).await?;
        let tokens = answer(client.auth().refresh(request)).await?.tokens.unwrap_or_default();
        Ok(shape::tokens(&tokens))
    }

    pub(super) async fn logout(&mut self) -> Result<Value, Failure> {
        answer(self.client().await?.auth().logout(v1::LogoutRequest {})).await?;
        Ok(Value::Null)
    }

    pub(super) async fn jwks(&mut self) -> Result<Value, Failure> {
        let client = RawClient::connect_over(&self.place.reach, &Identity::None).await?;
        let jwks = answer(client.auth().get_jwks(v1::GetJwksRequest {})).await?;
        serde_json::from_str(&jwks.jwks_json).map_err(|e| Failure::own("protocol_error", format!("JWKS: {e}")))
    }

    pub(super) async fn create_tenant(&mut self, args: &Args) -> Result<Value, Failure> {
        let request = v1::CreateTenantRequest { id: args.need("id")?, name: args.text_or_empty("name")? };
        let tenant = answer(self.client().await?.admin().create_tenant(request)).await?.tenant.unwrap_or_default();
        Ok(json!({"id": tenant.id, "name": tenant.name, "created_at_ms": tenant.created_at_ms}))
    }

    pub(super) async fn list_tenants(&mut self, args: &Args) -> Result<Value, Failure> {
        let request = v1::ListTenantsRequest {
            page_size: args.small_or("page_size", 0)?,
            page_token: args.text_or_empty("page_token")?,
        };
        let page = answer(self.client().await?.admin().list_tenants(request)).await?;
        let ids: Vec<String> = page.tenants.into_iter().map(|t| t.id).collect();
        Ok(json!({"ids": ids, "next_page_token": page.next_page_token}))
    }

    pub(super) async fn create_key(&mut self, args: &Args) -> Result<Value, Failure> {
        let request = v1::CreateEnrolmentKeyRequest {
            tenant_id: args.text_or_empty("tenant")?,
            label: args.text_or_empty("label")?,
            agent_pattern: args.text_or_empty("pattern")?,
            roles: args.texts("roles")?,
            ttl_ms: ms(args.span("ttl")?),
        };
        let made = answer(self.client().await?.admin().create_enrolment_key(request)).await?;
        let mut shown = shape::key(&made.key.unwrap_or_default());
        shown["key"] = made.enrolment_key.into();
        Ok(shown)
    }

    pub(super) async fn list_keys(&mut self, args: &Args) -> Result<Value, Failure> {
        let request = v1::ListEnrolmentKeysRequest {
            page_size: args.small_or("page_size", 0)?,
            page_token: args.text_or_empty("page_token")?,
        };
        let page = answer(self.client().await?.admin().list_enrolment_keys(request)).await?;
        let keys: Vec<Value> = page.keys.iter().map(shape::key).collect();
        Ok(json!({"keys": keys, "next_page_token": page.next_page_token}))
    }

    pub(super) async fn revoke_key(&mut self, args: &Args) -> Result<Value, Failure> {
        let request = v1::RevokeEnrolmentKeyRequest { key_id: args.need("id")? };
        answer(self.client().await?.admin().revoke_enrolment_key(request)).await?;
        Ok(Value::Null)
    }

    pub(super) async fn set_secret(&mut self, args: &Args) -> Result<Value, Failure> {
        let request = v1::SetAgentSecretRequest { agent_id: args.need("agent")?, roles: args.texts("roles")? };
        let set = answer(self.client().await?.admin().set_agent_secret(request)).await?;
        Ok(json!({ "secret": set.secret }))
    }

    pub(super) async fn rotate_signing_key(&mut self) -> Result<Value, Failure> {
        let request = v1::RotateSigningKeyRequest {};
        let rotated = answer(self.client().await?.admin().rotate_signing_key(request)).await?;
        Ok(json!({ "key_id": rotated.key_id }))
    }
}
