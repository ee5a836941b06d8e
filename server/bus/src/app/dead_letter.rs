//! Dead letters: shown, brought back, thrown away.

use acb_types::{ErrorCode, MessageId, SubscriptionName, limits};
use bytes::Bytes;

use super::{
    App, OpContext,
    page::{self, Page, Query},
    subscription::may_see,
};
use crate::{delivery::DeadLetter, error::AppError};

impl App {
    /// Whether the caller may handle a subscription's dead letters: as for the subscription itself.
    async fn dead_letters_open(&self, ctx: &OpContext, name: &SubscriptionName) -> Result<bool, AppError> {
        if !name.is_implicit() {
            return Ok(true);
        }
        let row = self.deps.metadata.subscription_get(&ctx.principal().tenant, name).await?;
        Ok(row.is_some_and(|row| may_see(ctx, &row)))
    }

    /// Lists a subscription's dead letters, oldest first.
    ///
    /// # Errors
    /// `subscription_not_found`, `invalid_page_token`.
    pub async fn dead_letter_list(
        &self,
        ctx: &OpContext,
        subscription: SubscriptionName,
        size: u32,
        token: &str,
    ) -> Result<Page<DeadLetter>, AppError> {
        let tenant = ctx.principal().tenant.clone();
        let size = page::size(size)?;
        let query = Query::new(&self.deps.page_key, "dead_letters", &tenant).with(subscription.as_str());
        let from: u64 = query.after(token)?.unwrap_or(1);
        if !self.dead_letters_open(ctx, &subscription).await? {
            return Err(AppError::of(ErrorCode::SubscriptionNotFound));
        }
        let (items, next) =
            self.block(move |delivery| delivery.dead_letter_list(&tenant, &subscription, from, size)).await?;
        Ok(Page { items, next: next.map(|seq| query.token(&seq.to_string())).unwrap_or_default() })
    }

    /// Shows one, whole.
    ///
    /// # Errors
    /// `dead_letter_not_found`.
    pub async fn dead_letter_get(&self, ctx: &OpContext, id: MessageId) -> Result<DeadLetter, AppError> {
        let tenant = ctx.principal().tenant.clone();
        let letter = self.block(move |delivery| delivery.dead_letter_get(&tenant, id)).await?;
        if self.dead_letters_open(ctx, &letter.subscription).await? {
            Ok(letter)
        } else {
            Err(AppError::of(ErrorCode::DeadLetterNotFound))
        }
    }

    /// Gives one to its subscription again, as it was or with another payload. Answers with the new message's id.
    ///
    /// # Errors
    /// `dead_letter_not_found`, `payload_too_large`, `storage_full`.
    pub async fn dead_letter_redrive(
        &self,
        ctx: &OpContext,
        id: MessageId,
        payload: Option<Bytes>,
    ) -> Result<MessageId, AppError> {
        if let Some(bytes) = payload.as_ref().map(Bytes::len).filter(|n| *n > limits::PAYLOAD_BYTES_MAX) {
            let message = format!("payload of {bytes} bytes exceeds limit of {}", limits::PAYLOAD_BYTES_MAX);
            return Err(AppError::new(ErrorCode::PayloadTooLarge, message));
        }
        self.dead_letter_get(ctx, id).await?;
        self.deps.delivery.dead_letter_redrive(&ctx.principal().tenant, id, payload).await
    }

    /// Takes one off the list for good. Discarding what is absent succeeds.
    ///
    /// # Errors
    /// The log's.
    pub async fn dead_letter_discard(&self, ctx: &OpContext, id: MessageId) -> Result<(), AppError> {
        match self.dead_letter_get(ctx, id).await {
            Ok(_) => self.deps.delivery.dead_letter_discard(&ctx.principal().tenant, id).await,
            Err(e) if e.code() == ErrorCode::DeadLetterNotFound => Ok(()),
            Err(e) => Err(e),
        }
    }
}
