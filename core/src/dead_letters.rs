//! Dead letters: messages that a subscription gave up on, whole and with the reason.

use acb_proto::v1::dead_letter_service_client::DeadLetterServiceClient;
use acb_types::{Envelope, MessageId, Timestamp, limits};
use bytes::Bytes;

use crate::{
    client::Handle,
    convert,
    error::Result,
    pages::{Page, Pages},
    retry::Safety,
};

/// A message that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Its own id.
    pub id: MessageId,
    /// The subscription that gave it up.
    pub subscription: String,
    /// The message's id.
    pub message_id: MessageId,
    /// The message; without its payload in lists.
    pub message: Envelope,
    /// Agent that sent it.
    pub from: String,
    /// `attempts_exhausted`, `terminated`, `connection_lost` or `oversize`.
    pub reason: String,
    /// What the last consumer said.
    pub last_error: String,
    /// Attempts that were made.
    pub attempts: u32,
    /// When the message was stored.
    pub stored_at: Timestamp,
    /// When it was given up.
    pub died_at: Timestamp,
    /// Size of the message's payload.
    pub payload_bytes: u64,
}

/// Dead letters of a client's tenant. Made by [`Client::dead_letters`](crate::Client::dead_letters).
///
#[doc = "```no_run"]
#[doc = include_str!("../doc/dead_letters.rs")]
#[doc = "```"]
#[derive(Clone, Debug)]
pub struct DeadLetters {
    core: Handle,
}

impl DeadLetters {
    pub(crate) fn new(core: Handle) -> Self {
        Self { core }
    }

    /// A subscription's, oldest first, without payloads.
    pub fn list(&self, subscription: impl Into<String>) -> Pages<DeadLetter> {
        let (me, subscription) = (self.clone(), subscription.into());
        Pages::new(move |token| {
            let (me, subscription) = (me.clone(), subscription.clone());
            async move { me.page(subscription, limits::PAGE_SIZE_MAX, token).await }
        })
    }

    /// One page of a subscription's: 1 to 500 of them, from the token of the page before, or an empty one.
    ///
    /// # Errors
    /// `invalid_page_token`.
    pub async fn page(
        &self,
        subscription: impl Into<String>,
        size: u32,
        token: impl Into<String>,
    ) -> Result<Page<DeadLetter>> {
        let operation = "dead_letters.list";
        let request = convert::list_dead_letters(subscription.into(), size, token.into());
        let response = self
            .core
            .call(operation, Safety::Idempotent, request, |to, request| async move {
                DeadLetterServiceClient::with_origin(to.channel, to.origin).list_dead_letters(request).await
            })
            .await?;
        let items = response
            .dead_letters
            .into_iter()
            .map(|d| convert::dead_letter(operation, Some(d)))
            .collect::<Result<_>>()?;
        Ok(Page::new(items, response.next_page_token))
    }

    /// Shows one, whole.
    ///
    /// # Errors
    /// `dead_letter_not_found`.
    pub async fn get(&self, id: MessageId) -> Result<DeadLetter> {
        let operation = "dead_letters.get";
        let response = self
            .core
            .call(operation, Safety::Idempotent, convert::get_dead_letter(id), |to, request| async move {
                DeadLetterServiceClient::with_origin(to.channel, to.origin).get_dead_letter(request).await
            })
            .await?;
        convert::dead_letter(operation, response.dead_letter)
    }

    /// Gives one to its subscription again, as it was, and takes it off the list. Gives the new message's id.
    ///
    /// # Errors
    /// `dead_letter_not_found`, also when it was redriven before.
    pub async fn redrive(&self, id: MessageId) -> Result<MessageId> {
        self.redrive_as(id, None).await
    }

    /// Gives one to its subscription again with another payload.
    ///
    /// # Errors
    /// As [`Self::redrive`], and `payload_too_large`.
    pub async fn redrive_with_payload(&self, id: MessageId, payload: impl Into<Bytes>) -> Result<MessageId> {
        self.redrive_as(id, Some(payload.into())).await
    }

    async fn redrive_as(&self, id: MessageId, payload: Option<Bytes>) -> Result<MessageId> {
        let operation = "dead_letters.redrive";
        let response = self
            .core
            .call(operation, Safety::Once, convert::redrive_dead_letter(id, payload), |to, request| async move {
                DeadLetterServiceClient::with_origin(to.channel, to.origin).redrive_dead_letter(request).await
            })
            .await?;
        convert::message_id(operation, &response.message_id)
    }

    /// Takes one off the list for good. Discarding what is absent succeeds.
    ///
    /// # Errors
    /// `permission_denied`.
    pub async fn discard(&self, id: MessageId) -> Result<()> {
        let operation = "dead_letters.discard";
        self.core
            .call(operation, Safety::Idempotent, convert::discard_dead_letter(id), |to, request| async move {
                DeadLetterServiceClient::with_origin(to.channel, to.origin).discard_dead_letter(request).await
            })
            .await?;
        Ok(())
    }
}
