//! Unary calls: a deadline for the whole, a token, and again where that is safe.

use std::{future::Future, time::Duration};

use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::Core;
use crate::{
    convert,
    error::{Error, ErrorKind, Result},
    retry::{Decision, Safety},
    transport::grpc::Channel,
    within::timeout_or,
};

/// Where a generated client sends its calls.
pub(crate) struct To {
    pub(crate) channel: Channel,
    pub(crate) origin: http::Uri,
}

impl Core {
    /// Makes a unary call. `call` gets a fresh copy of the request for each attempt.
    ///
    /// # Errors
    /// What the server said; `timeout` when the deadline passed; what keeps the connection down when there was none.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the call on the wire; what was asked for may have happened.
    pub(crate) async fn call<Q, A, F, Fut>(
        &self,
        operation: &'static str,
        safety: Safety,
        request: Q,
        call: F,
    ) -> Result<A>
    where
        Q: Clone,
        F: Fn(To, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        let timeout = timeout_or(self.options.request_timeout);
        let deadline = Instant::now() + timeout;
        let mut schedule = self.options.retry.schedule();
        let mut renewed = false;
        loop {
            let link = match tokio::time::timeout_at(deadline, self.link()).await {
                Ok(link) => link.map_err(|e| e.with_operation(operation))?,
                Err(_) => return Err(self.no_link(operation, timeout)),
            };
            let left = deadline.saturating_duration_since(Instant::now());
            let mut attempt = Request::new(request.clone());
            *attempt.metadata_mut() = self.metadata()?;
            attempt.set_timeout(left);
            let to = To { channel: link.channel.clone(), origin: self.origin.clone() };
            let error = match tokio::time::timeout_at(deadline, call(to, attempt)).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => convert::error_from_status(operation, &status),
                Err(_) => return Err(Error::timeout(operation, timeout)),
            };
            if error.kind() == ErrorKind::Unauthenticated && !renewed && self.can_renew() {
                renewed = true;
                match tokio::time::timeout_at(deadline, self.renew(&link)).await {
                    Ok(Ok(())) => continue,
                    Ok(Err(_)) => return Err(error),
                    Err(_) => return Err(Error::timeout(operation, timeout)),
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match schedule.decide(&error, safety, Some(left)) {
                Decision::Again(wait) => tokio::time::sleep(wait).await,
                Decision::Stop(retry) => return Err(error.with_retry(retry)),
            }
        }
    }

    /// Whether new tokens can be had.
    fn can_renew(&self) -> bool {
        self.options.credentials.can_log_in() || self.tokens.tokens().is_some_and(|t| !t.refresh_token.is_empty())
    }

    /// The deadline passed without a connection: says what keeps it down.
    fn no_link(&self, operation: &'static str, timeout: Duration) -> Error {
        match self.down() {
            Some(error) => {
                Error::new(error.code(), operation, format!("not connected within {timeout:?}: {}", error.message()))
                    .with_retry(error.retry())
                    .with_source(error)
            }
            None => Error::timeout(operation, timeout),
        }
    }
}
