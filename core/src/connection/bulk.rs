//! Connections beside the client's own, for bytes in bulk: unread chunks must never stop acknowledgements of messages.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Core, supervise};
use crate::{
    error::{Error, ErrorCode, Result},
    transport::grpc::{self, Channel, KeepAlive, Sizes},
};

const OPERATION: &str = "streams.connect";

impl Core {
    /// Opens a connection that lives until `end` fires or the client is closed.
    pub(crate) async fn bulk_channel(self: &Arc<Self>, end: CancellationToken) -> Result<Channel> {
        let timeout = self.options.connect_timeout;
        let attempt = async {
            let endpoint = &self.options.endpoint;
            let io = self.options.dialer.dial(endpoint).await.map_err(|e| {
                let text = format!("cannot connect to {endpoint}: {e}");
                Error::new(ErrorCode::Unavailable, OPERATION, text).with_source(e)
            })?;
            let io = match &self.tls {
                None => io,
                Some(tls) => tls.wrap(io).await.map_err(|e| supervise::tls_error(endpoint, e))?,
            };
            let keep_alive =
                KeepAlive { interval: self.options.keep_alive_interval, timeout: self.options.keep_alive_timeout };
            let (channel, driver) = grpc::handshake(io, keep_alive, Sizes::BULK).await.map_err(|e| {
                let text = format!("{endpoint} does not speak HTTP/2");
                Error::new(ErrorCode::Unavailable, OPERATION, text).with_source(e)
            })?;
            let closing = self.tasks.closing.clone();
            self.tasks.spawn("bulk wire", async move {
                // The driver may be dropped at any await: then the socket closes.
                tokio::select! {
                    () = closing.cancelled() => {}
                    () = end.cancelled() => {}
                    ended = driver => if let Err(error) = ended {
                        tracing::debug!(%error, "a bulk connection broke");
                    },
                }
            });
            Ok(channel)
        };
        tokio::time::timeout(timeout, attempt).await.unwrap_or_else(|_| {
            let text = format!("no answer from {} within {timeout:?}", self.options.endpoint);
            Err(Error::new(ErrorCode::Unavailable, OPERATION, text))
        })
    }
}
