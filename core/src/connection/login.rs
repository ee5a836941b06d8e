//! From credentials to tokens, and to fresh ones before the old end. One at a time.

use acb_proto::v1::auth_service_client::AuthServiceClient;
use tokio::time::Instant;
use tonic::Request;

use super::{Core, Link};
use crate::{
    convert,
    credentials::Tokens,
    error::{Error, ErrorCode, Result},
};

const LOGIN: &str = "auth.login";
const REFRESH: &str = "auth.refresh";

impl Core {
    /// Makes sure that there is a token that lasts a little longer.
    pub(super) async fn ensure_token(&self, link: &Link) -> Result<()> {
        let _one = self.login.lock().await;
        if !convert::needs_token(&self.options.credentials) || self.tokens.is_fresh(Instant::now()) {
            return Ok(());
        }
        self.new_tokens(link).await
    }

    /// Gets new tokens, whatever is left of the old, and hands them to the open streams.
    pub(crate) async fn renew(&self, link: &Link) -> Result<()> {
        let before = self.tokens.tokens();
        let _one = self.login.lock().await;
        let after = self.tokens.tokens();
        // Somebody else renewed them while this one waited.
        let renewed = match (&before, &after) {
            (Some(before), Some(after)) => before.access_token != after.access_token,
            (None, Some(_)) => true,
            _ => false,
        };
        if renewed {
            return Ok(());
        }
        self.new_tokens(link).await
    }

    async fn new_tokens(&self, link: &Link) -> Result<()> {
        // A refresh token works once: it is taken away first, so that an answer that never came back is followed by a
        // login and never by a second use, which would end the whole family.
        let refreshed = match self.tokens.take_refresh() {
            Some(refresh) => self.refresh(link, refresh).await,
            None => Err(Error::new(ErrorCode::TokenExpired, REFRESH, "there is no refresh token")
                .with_retry(crate::Retry::Never)),
        };
        let tokens = match refreshed {
            Ok(tokens) => tokens,
            Err(_) if self.options.credentials.can_log_in() => self.login(link).await?,
            Err(error) => return Err(error),
        };
        let tokens = self.tokens.put(tokens, Instant::now())?;
        let frame = convert::publish_reauth(&tokens.access_token);
        self.producer.reauth(frame);
        for consumer in self.consumers() {
            consumer.reauth(&tokens.access_token);
        }
        Ok(())
    }

    async fn login(&self, link: &Link) -> Result<Tokens> {
        let Some(request) = convert::login_request(&self.options.credentials) else {
            return Err(Error::new(ErrorCode::Unauthenticated, LOGIN, "the client has no credentials to log in with"));
        };
        let mut client = AuthServiceClient::with_origin(link.channel.clone(), self.origin.clone());
        let call = client.login(Request::new(request));
        let response = self.within(LOGIN, call).await?;
        convert::tokens(LOGIN, response.tokens)
    }

    async fn refresh(&self, link: &Link, refresh_token: String) -> Result<Tokens> {
        let request = convert::refresh_request(refresh_token);
        let mut client = AuthServiceClient::with_origin(link.channel.clone(), self.origin.clone());
        let call = client.refresh(Request::new(request));
        let response = self.within(REFRESH, call).await?;
        convert::tokens(REFRESH, response.tokens)
    }

    async fn within<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T> {
        let timeout = self.options.request_timeout;
        match tokio::time::timeout(timeout, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(convert::error_from_status(operation, &status)),
            Err(_) => Err(Error::timeout(operation, timeout)),
        }
    }
}
