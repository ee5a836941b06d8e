//! Contexts: what agents share, versioned and governed.

mod builder;
mod model;
mod watch;
mod write;

use std::time::Duration;

use acb_proto::v1::context_service_client::ContextServiceClient;
use acb_types::{Timestamp, limits};
use bytes::Bytes;

pub use self::{
    builder::{DeleteBuilder, GetBuilder, ListBuilder, ShareBuilder, UpdateContextBuilder},
    model::{Context, ContextAccess, ContextPage, ContextScope, SharedContext, UpdatedContext},
    watch::{ContextEvent, ContextWatch, WatchBuilder},
};
pub(crate) use self::{
    builder::{Filter, SpecParts as ContextParts},
    watch::Wish,
    write::{create, update},
};
use crate::{
    client::Handle,
    convert,
    error::Result,
    pages::{Page, Pages},
    retry::{RetryPolicy, Safety},
};

/// Wait after a write lost against another, and the longest: they grow, and vary by their whole length, so that of many who
/// write one context most write it alone.
const CONFLICT_WAITS: (Duration, Duration) = (Duration::from_millis(4), Duration::from_millis(250));

/// Contexts. Made by [`Client::contexts`](crate::Client::contexts).
///
/// Every change of a context makes a new revision. Writes name the revision that they were made for, so that two agents
/// never overwrite each other unseen.
///
#[doc = "```no_run"]
#[doc = include_str!("../../doc/contexts.rs")]
#[doc = "```"]
#[derive(Clone, Debug)]
pub struct Contexts {
    core: Handle,
}

impl Contexts {
    pub(crate) fn new(core: Handle) -> Self {
        Self { core }
    }

    /// Shares a new context under a key, private unless said otherwise; an empty key gives it none. Await the builder.
    ///
    /// A payload above 256 KiB is streamed, in chunks that resume. Above 1 MiB [`Self::get`] leaves it out and says
    /// [`streamed`](Context::streamed): [download](crate::Streams::download) it.
    ///
    /// Repeats itself safely: it chooses the id, so a call that was made again after a broken connection finds what the
    /// first one made.
    pub fn share(&self, key: impl Into<String>, payload: impl Into<Bytes>) -> ShareBuilder {
        ShareBuilder::new(self.core.clone(), key.into(), payload.into())
    }

    /// Gets a context by its id or by its key: what reads as an id is one. Await the builder.
    pub fn get(&self, id_or_key: impl Into<String>) -> GetBuilder {
        GetBuilder::new(self.core.clone(), id_or_key.into())
    }

    /// Changes a context by its id. Say [`UpdateContextBuilder::if_rev`] or [`UpdateContextBuilder::force`], then await the
    /// builder.
    pub fn update(&self, id: impl Into<String>) -> UpdateContextBuilder {
        UpdateContextBuilder::new(self.core.clone(), id.into())
    }

    /// Changes the payload of a context by its id or key, however many others do so at the same time: gets it, asks
    /// `change` for the new payload, writes it at the revision that was got, and begins anew, a moment later, when somebody
    /// was faster.
    /// `None` leaves it as it is.
    ///
    /// `change` may run several times; only what the last one answered is written.
    ///
    /// # Errors
    /// As [`Self::get`] and [`Self::update`], but for `revision_conflict`: it tries until it succeeds or the future is
    /// dropped.
    pub async fn modify(
        &self,
        id_or_key: impl Into<String>,
        mut change: impl FnMut(&Context) -> Option<Bytes> + Send,
    ) -> Result<Context> {
        let which = id_or_key.into();
        let waits = RetryPolicy::default().initial(CONFLICT_WAITS.0).max(CONFLICT_WAITS.1).jitter(1.0);
        let mut waits = waits.schedule();
        loop {
            let present = self.get(which.clone()).await?;
            let Some(payload) = change(&present) else { return Ok(present) };
            match self.update(present.id.clone()).payload(payload).if_rev(present.rev).await {
                Ok(updated) => return Ok(updated.context),
                Err(error) if error.code() == crate::ErrorCode::RevisionConflict => {
                    tokio::time::sleep(waits.next_wait().unwrap_or(CONFLICT_WAITS.1)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Deletes a context by its id. Say [`DeleteBuilder::if_rev`] or [`DeleteBuilder::force`], then await the builder.
    pub fn delete(&self, id: impl Into<String>) -> DeleteBuilder {
        DeleteBuilder::new(self.core.clone(), id.into())
    }

    /// Starts the life of a context anew; `None` is for ever. Answers when it ends.
    ///
    /// # Errors
    /// `context_not_found`, `permission_denied`.
    pub async fn renew(&self, id: impl Into<String>, ttl: Option<Duration>) -> Result<Option<Timestamp>> {
        let request = convert::renew_context(id.into(), ttl);
        let response = self
            .core
            .call("contexts.renew", Safety::Idempotent, request, |to, request| async move {
                ContextServiceClient::with_origin(to.channel, to.origin).renew_context_ttl(request).await
            })
            .await?;
        Ok(Some(Timestamp(response.expires_at_ms)).filter(|at| at.is_set()))
    }

    /// Lists the contexts that the caller may see, oldest first, without payloads.
    pub fn list(&self) -> ListBuilder {
        ListBuilder::new(self.core.clone())
    }

    /// The kept revisions of a context (64), newest first, without payloads; the first may be the marker of a delete.
    pub fn history(&self, id: impl Into<String>) -> Pages<Context> {
        let (core, id) = (self.core.clone(), id.into());
        Pages::new(move |token| {
            let (core, id) = (core.clone(), id.clone());
            async move {
                let operation = "contexts.history";
                let request = convert::list_context_history(id, limits::CONTEXT_HISTORY, token);
                let response = core
                    .call(operation, Safety::Idempotent, request, |to, request| async move {
                        ContextServiceClient::with_origin(to.channel, to.origin).list_context_history(request).await
                    })
                    .await?;
                let rows = response.revisions.into_iter().map(|c| convert::context(operation, Some(c)));
                Ok(Page::new(rows.collect::<Result<_>>()?, response.next_page_token))
            }
        })
    }

    /// Watches contexts: what is there, then every change, each once and in order, over any number of broken connections.
    ///
    #[doc = "```no_run"]
    #[doc = include_str!("../../doc/context_watch.rs")]
    #[doc = "```"]
    pub fn watch(&self) -> WatchBuilder {
        WatchBuilder::new(self.core.clone())
    }
}
