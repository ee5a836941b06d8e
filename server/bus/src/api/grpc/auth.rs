//! `AuthService`.

use acb_proto::v1;
use acb_types::ErrorCode;
use tonic::{Request, Response, Status};

use super::call::Grpc;
use crate::{
    app::session::{Proof, Tokens},
    auth::{Verb, authenticator::TENANT_DEFAULT},
    error::AppError,
};

#[tonic::async_trait]
impl v1::auth_service_server::AuthService for Grpc {
    async fn login(&self, request: Request<v1::LoginRequest>) -> Result<Response<v1::LoginResponse>, Status> {
        self.call_public(Verb::Login, request, |(app, caller, r)| async move {
            let tokens = app.login(caller, proof_in(r)?).await?;
            Ok(v1::LoginResponse { tokens: Some(tokens_out(tokens)) })
        })
        .await
    }

    async fn refresh(&self, request: Request<v1::RefreshRequest>) -> Result<Response<v1::RefreshResponse>, Status> {
        self.call_public(Verb::Refresh, request, |(app, caller, r)| async move {
            if r.refresh_token.is_empty() {
                return Err(AppError::missing("refresh_token"));
            }
            let tokens = app.refresh(caller, &r.refresh_token).await?;
            Ok(v1::RefreshResponse { tokens: Some(tokens_out(tokens)) })
        })
        .await
    }

    async fn logout(&self, request: Request<v1::LogoutRequest>) -> Result<Response<v1::LogoutResponse>, Status> {
        self.call(Verb::Logout, request, |(app, ctx, _)| async move {
            app.logout(&ctx).await?;
            Ok(v1::LogoutResponse {})
        })
        .await
    }

    async fn get_jwks(&self, request: Request<v1::GetJwksRequest>) -> Result<Response<v1::GetJwksResponse>, Status> {
        self.call_public(Verb::GetJwks, request, |(app, _, _)| async move {
            Ok(v1::GetJwksResponse { jwks_json: app.auth().keyring().jwks() })
        })
        .await
    }
}

fn proof_in(r: v1::LoginRequest) -> Result<Proof, AppError> {
    if r.agent_id.is_empty() {
        return Err(AppError::missing("agent_id"));
    }
    let agent = r.agent_id.parse()?;
    match (r.enrolment_key.is_empty(), r.secret.is_empty()) {
        (false, false) => Err(AppError::new(ErrorCode::InvalidArgument, "enrolment_key and secret exclude each other")),
        (true, true) => Err(AppError::missing("enrolment_key or secret")),
        (false, true) => Ok(Proof::Key { key: r.enrolment_key, agent }),
        (true, false) => {
            let tenant = if r.tenant_id.is_empty() { TENANT_DEFAULT } else { &r.tenant_id };
            Ok(Proof::Secret { tenant: tenant.parse()?, agent, secret: r.secret })
        }
    }
}

fn tokens_out(tokens: Tokens) -> v1::Tokens {
    v1::Tokens {
        access_token: tokens.access,
        access_expires_at_ms: tokens.access_expires_at.0,
        refresh_token: tokens.refresh,
        refresh_expires_at_ms: tokens.refresh_expires_at.0,
        agent_id: tokens.principal.agent.to_string(),
        tenant_id: tokens.principal.tenant.to_string(),
        roles: tokens.principal.roles.names(),
    }
}
