//! Subscriptions in memory.

use acb_types::{ErrorCode, SubscriptionId, SubscriptionName, limits};

use super::tenant::Tenant;
use crate::{
    error::StoreError,
    metadata::{Created, NewSubscription, Result, SubscriptionRow, SubscriptionSet},
};

impl Tenant {
    pub(super) fn subscription_named(&self, name: &SubscriptionName) -> Option<&SubscriptionRow> {
        self.subscription_names.get(name).and_then(|id| self.subscriptions.get(id))
    }

    /// Gives the next number (META-10) and keeps the row.
    pub(super) fn subscription_add(&mut self, new: NewSubscription) -> SubscriptionRow {
        let id = SubscriptionId(self.last_subscription.0 + 1);
        self.last_subscription = id;
        let row =
            SubscriptionRow { id, spec: new.spec, start: new.start, created_by: new.created_by, created_at: new.now };
        self.chosen += usize::from(!row.spec.name.is_implicit());
        self.subscription_names.insert(row.spec.name.clone(), id);
        self.subscriptions.insert(id, row.clone());
        row
    }

    pub(super) fn subscription_create(&mut self, new: NewSubscription) -> Result<Created<SubscriptionRow>> {
        const OPERATION: &str = "subscription.create";
        let name = &new.spec.name;
        if name.is_implicit() {
            let message = format!("{name} is a name of the bus's own");
            return Err(StoreError::new(ErrorCode::InvalidArgument, OPERATION, message));
        }
        if let Some(row) = self.subscription_named(name) {
            if row.spec == new.spec {
                return Ok(Created { row: row.clone(), existed: true });
            }
            let message = format!("subscription {name} is there with another definition");
            return Err(StoreError::new(ErrorCode::SubscriptionExists, OPERATION, message));
        }
        if self.chosen >= limits::SUBSCRIPTIONS_MAX {
            let message = format!("the tenant has {} subscriptions, which is the limit", self.chosen);
            return Err(StoreError::new(ErrorCode::SubscriptionLimit, OPERATION, message));
        }
        Ok(Created { row: self.subscription_add(new), existed: false })
    }

    pub(super) fn subscriptions_by_name(
        &self,
        set: SubscriptionSet,
        after: Option<&SubscriptionName>,
        limit: usize,
    ) -> Vec<SubscriptionRow> {
        let wanted = |name: &SubscriptionName| {
            (set == SubscriptionSet::All || !name.is_implicit()) && after.is_none_or(|after| name > after)
        };
        let ids = self.subscription_names.iter().filter(|(name, _)| wanted(name)).take(limit);
        ids.filter_map(|(_, id)| self.subscriptions.get(id).cloned()).collect()
    }

    pub(super) fn subscription_delete(&mut self, name: &SubscriptionName) -> Result<Option<SubscriptionRow>> {
        if name.is_implicit() {
            let message = format!("{name} goes with its agent");
            return Err(StoreError::new(ErrorCode::InvalidArgument, "subscription.delete", message));
        }
        let id = self.subscription_names.get(name).copied();
        Ok(id.and_then(|id| self.subscription_end(id)))
    }

    pub(super) fn subscription_end(&mut self, id: SubscriptionId) -> Option<SubscriptionRow> {
        let row = self.subscriptions.remove(&id)?;
        self.subscription_names.remove(&row.spec.name);
        self.chosen -= usize::from(!row.spec.name.is_implicit());
        Some(row)
    }
}
