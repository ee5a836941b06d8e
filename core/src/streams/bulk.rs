//! A connection for one transfer: larger frames, windows of its own, ended with it.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    connection::{Core, Link},
    error::{Error, ErrorKind, Result},
    retry::{Decision, Safety, Schedule},
    transport::grpc::Channel,
};

/// An open connection. Dropping it closes it.
pub(super) struct Bulk {
    pub(super) channel: Channel,
    link: Link,
    _end: DropGuard,
}

impl Bulk {
    /// Waits until the bus is there and opens a connection beside the client's own.
    pub(super) async fn open(core: &Arc<Core>, idle: Duration) -> Result<Self> {
        let link = tokio::time::timeout(idle, core.link()).await;
        let link = link.map_err(|_| core.down().unwrap_or_else(|| Error::timeout("streams.connect", idle)))??;
        let end = CancellationToken::new();
        let channel = core.bulk_channel(end.clone()).await?;
        Ok(Self { channel, link, _end: end.drop_guard() })
    }

    /// The client's own connection that there was when this was opened: whose token it used.
    pub(super) fn link(&self) -> &Link {
        &self.link
    }
}

/// Decides after a transfer's connection failed: waits and says "again", or gives the final error.
pub(super) async fn after(
    core: &Core,
    error: &Error,
    link: Option<&Link>,
    schedule: &mut Schedule,
    renewed: &mut bool,
) -> Result<()> {
    if error.kind() == ErrorKind::Unauthenticated {
        let Some(link) = link.filter(|_| !*renewed) else { return Err(error.clone()) };
        *renewed = true;
        return core.renew(link).await.map_err(|_| error.clone());
    }
    match schedule.decide(error, Safety::Idempotent, None) {
        Decision::Again(wait) => {
            tokio::select! {
                () = tokio::time::sleep(wait) => Ok(()),
                () = core.closing() => Err(Error::closed(error.operation())),
            }
        }
        Decision::Stop(retry) => Err(error.clone().with_retry(retry)),
    }
}
