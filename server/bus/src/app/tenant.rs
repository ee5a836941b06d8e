//! Tenants.

use acb_ports::metadata::TenantRow;
use acb_types::{ErrorCode, TenantId, limits};

use super::{
    App, OpContext,
    page::{self, Page, Query},
};
use crate::{
    auth::{Mode, authenticator::TENANT_DEFAULT},
    error::AppError,
};

impl App {
    /// Makes a tenant with its logs.
    ///
    /// # Errors
    /// `permission_denied` outside the tenant `default`, `tenant_exists`, `field_too_large`.
    pub async fn tenant_create(&self, ctx: &OpContext, id: TenantId, name: String) -> Result<TenantRow, AppError> {
        of_default(ctx)?;
        if name.len() > limits::SHORT_TEXT_BYTES_MAX {
            return Err(AppError::too_large("name", name.len(), limits::SHORT_TEXT_BYTES_MAX));
        }
        let row = self.deps.metadata.tenant_create(&id, &name, self.now()).await?;
        // A crash here leaves a tenant without logs; they are made when the server starts.
        self.deps.delivery.tenant_open(&id).await?;
        self.audit_own(ctx, "tenant.create", id.as_str()).await;
        Ok(row)
    }

    /// Lists tenants by id.
    ///
    /// # Errors
    /// `permission_denied` outside the tenant `default`, `invalid_page_token`.
    pub async fn tenant_list(&self, ctx: &OpContext, size: u32, token: &str) -> Result<Page<TenantRow>, AppError> {
        of_default(ctx)?;
        let size = page::size(size)?;
        let query = Query::new(&self.deps.page_key, "tenants", &ctx.principal().tenant);
        let after: Option<TenantId> = query.after(token)?;
        let rows = self.deps.metadata.tenant_list(after.as_ref(), size + 1).await?;
        Ok(Page::of(rows, size, &query, |row| row.id.to_string()))
    }

    /// Makes a tenant that a caller of `--dev` names for the first time. Does nothing otherwise.
    ///
    /// # Errors
    /// The store's and the log's.
    pub async fn tenant_for_dev(&self, tenant: &TenantId) -> Result<(), AppError> {
        if self.deps.auth.mode() != Mode::Dev || self.known_tenants.lock().contains(tenant) {
            return Ok(());
        }
        self.deps.delivery.tenant_ready(tenant, true).await?;
        self.known_tenants.lock().insert(tenant.clone());
        Ok(())
    }
}

/// Tenants and signing keys are the affair of admins of `default`.
pub(super) fn of_default(ctx: &OpContext) -> Result<(), AppError> {
    if ctx.principal().tenant.as_str() == TENANT_DEFAULT {
        Ok(())
    } else {
        Err(AppError::new(ErrorCode::PermissionDenied, "only admins of the tenant default may do this"))
    }
}
