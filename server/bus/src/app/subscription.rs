//! Subscriptions: who hears what.

use acb_ports::metadata::{NewSubscription, SubscriptionRow, SubscriptionSet};
use acb_types::{ErrorCode, SubscriptionName, batch::StartAt};

use super::{
    App, OpContext,
    page::{self, Page, Query},
};
use crate::{
    auth::Role,
    delivery::SubscriptionCounts,
    domain::subscription::{Wanted, define},
    error::AppError,
};

/// A subscription as it is now.
#[derive(Clone, Debug)]
pub struct SubscriptionView {
    /// What is kept.
    pub row: SubscriptionRow,
    /// Its counts; `None` in the moment between its row and its opening.
    pub counts: Option<SubscriptionCounts>,
}

impl App {
    fn subscription_view(&self, ctx: &OpContext, row: SubscriptionRow) -> SubscriptionView {
        let counts = self.deps.delivery.subscription_counts(&ctx.principal().tenant, &row.spec.name);
        SubscriptionView { row, counts }
    }

    /// Makes a durable subscription, or finds it. The second answer is whether it was there.
    ///
    /// # Errors
    /// `subscription_exists` with another definition, `subscription_limit`, and what [`define`] refuses.
    pub async fn subscription_create(
        &self,
        ctx: &OpContext,
        wanted: Wanted,
        start: StartAt,
    ) -> Result<(SubscriptionView, bool), AppError> {
        let p = ctx.principal();
        let spec = define(wanted)?;
        let _order = self.in_subscription_order(&p.tenant, &spec.name).await;
        let new = NewSubscription { spec, start, created_by: p.agent.clone(), now: self.now() };
        let created = self.deps.metadata.subscription_create(&p.tenant, new).await?;
        let row = created.row;
        // Opened also when it existed: a crash may have come between the row and the opening. Opening twice is once.
        self.deps.delivery.subscription_open(&p.tenant, row.def(), row.spec.class, row.start).await?;
        Ok((self.subscription_view(ctx, row), created.existed))
    }

    /// Shows a subscription. Implicit ones are shown to their agent and to admins.
    ///
    /// # Errors
    /// `subscription_not_found`.
    pub async fn subscription_get(
        &self,
        ctx: &OpContext,
        name: &SubscriptionName,
    ) -> Result<SubscriptionView, AppError> {
        let absent =
            || AppError::new(ErrorCode::SubscriptionNotFound, format!("no subscription {name} is in the tenant"));
        let row = self.deps.metadata.subscription_get(&ctx.principal().tenant, name).await?.ok_or_else(absent)?;
        if may_see(ctx, &row) { Ok(self.subscription_view(ctx, row)) } else { Err(absent()) }
    }

    /// Lists the subscriptions that users made, by name.
    ///
    /// # Errors
    /// `invalid_page_token`.
    pub async fn subscription_list(
        &self,
        ctx: &OpContext,
        size: u32,
        token: &str,
    ) -> Result<Page<SubscriptionView>, AppError> {
        let tenant = &ctx.principal().tenant;
        let size = page::size(size)?;
        let query = Query::new(&self.deps.page_key, "subscriptions", tenant);
        let after: Option<SubscriptionName> = query.after(token)?;
        let rows =
            self.deps.metadata.subscription_list(tenant, SubscriptionSet::Chosen, after.as_ref(), size + 1).await?;
        let page = Page::of(rows, size, &query, |row| row.spec.name.to_string());
        Ok(page.map(|row| self.subscription_view(ctx, row)))
    }

    /// Ends a subscription; its dead letters stay until they expire. Deleting what is absent succeeds.
    ///
    /// # Errors
    /// `invalid_state` for an implicit one: it goes with its agent.
    pub async fn subscription_delete(&self, ctx: &OpContext, name: &SubscriptionName) -> Result<(), AppError> {
        let tenant = &ctx.principal().tenant;
        if name.is_implicit() {
            let message = format!("{name} goes with its agent and cannot be deleted");
            return Err(AppError::new(ErrorCode::InvalidState, message));
        }
        let _order = self.in_subscription_order(tenant, name).await;
        if let Some(row) = self.deps.metadata.subscription_delete(tenant, name).await? {
            self.deps.delivery.subscription_close(tenant, row.spec.class, &row.spec.name);
        }
        Ok(())
    }
}

/// Another agent's inbox is nobody's affair, and answers like an absent one.
pub(super) fn may_see(ctx: &OpContext, row: &SubscriptionRow) -> bool {
    let p = ctx.principal();
    !row.spec.name.is_implicit() || row.created_by == p.agent || p.roles.has(Role::Admin) || p.roles.has(Role::Observer)
}
