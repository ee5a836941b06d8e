//! The client's own tokens. Login and refresh happen by themselves; these are for those who want a hand in it.

use acb_proto::v1::auth_service_client::AuthServiceClient;

use crate::{
    client::Handle,
    convert,
    credentials::{Identity, Tokens},
    error::Result,
    retry::Safety,
};

/// Tokens of a client. Made by [`Client::auth`](crate::Client::auth).
///
#[doc = "```no_run"]
#[doc = include_str!("../doc/auth.rs")]
#[doc = "```"]
#[derive(Clone, Debug)]
pub struct Auth {
    core: Handle,
}

impl Auth {
    pub(crate) fn new(core: Handle) -> Self {
        Self { core }
    }

    /// Tokens as they are now, for programs that keep them. The refresh token works once: whoever takes it from here
    /// must close this client first.
    pub fn tokens(&self) -> Option<Tokens> {
        self.core.tokens().tokens().map(|t| Tokens::clone(&t))
    }

    /// Gets fresh tokens now, and hands them to the open streams.
    ///
    /// # Errors
    /// `invalid_credentials`, `refresh_reused`, `token_expired` when there is nothing to refresh with.
    pub async fn refresh(&self) -> Result<Identity> {
        let link = self.core.link().await?;
        self.core.renew(&link).await?;
        Ok(self.core.tokens().tokens().map(|t| t.identity.clone()).unwrap_or_default())
    }

    /// Ends this client's tokens and all that came of the same login. The client can do nothing more that needs one,
    /// unless its credentials let it log in again.
    ///
    /// # Errors
    /// `unauthenticated` without a token.
    pub async fn logout(&self) -> Result<()> {
        self.core
            .call("auth.logout", Safety::Idempotent, convert::logout(), |to, request| async move {
                AuthServiceClient::with_origin(to.channel, to.origin).logout(request).await
            })
            .await?;
        self.core.tokens().clear();
        Ok(())
    }

    /// The public keys of tokens as a JSON Web Key Set.
    ///
    /// # Errors
    /// When no answer came within the request timeout.
    pub async fn jwks(&self) -> Result<String> {
        let response = self
            .core
            .call("auth.jwks", Safety::Idempotent, convert::get_jwks(), |to, request| async move {
                AuthServiceClient::with_origin(to.channel, to.origin).get_jwks(request).await
            })
            .await?;
        Ok(response.jwks_json)
    }
}
