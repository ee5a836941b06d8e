//! Who did what to keys, secrets, tokens and tenants.

use acb_ports::metadata::AuditEntry;
use acb_types::{ErrorCode, TenantId};

use super::{App, Caller, OpContext};
use crate::error::AppError;

impl App {
    /// Notes an act and what came of it. A failure to note is logged and does not undo the act.
    pub(super) async fn audit(
        &self,
        caller: Caller,
        tenant: &TenantId,
        actor: &str,
        action: &'static str,
        target: &str,
        failure: Option<&AppError>,
    ) {
        let entry = AuditEntry {
            at: self.now(),
            node: self.deps.node.clone(),
            actor: actor.to_owned(),
            action: action.to_owned(),
            target: target.to_owned(),
            outcome: failure.map_or("ok", |e| e.code().name()).to_owned(),
            details: caller.address.map(|a| format!("{{\"address\":\"{a}\"}}")).unwrap_or_default(),
            request_id: caller.request_id.to_string(),
        };
        if let Err(error) = self.deps.metadata.audit_append(tenant, entry).await {
            // A caller may name a tenant that is not there; there is no chain to write to then.
            if error.code == ErrorCode::TenantNotFound {
                return;
            }
            tracing::error!(%tenant, actor, action, request_id = %caller.request_id, "not audited: {error}");
        }
    }

    /// As [`Self::audit`], of a caller who is known, in its own tenant.
    pub(super) async fn audit_own(&self, ctx: &OpContext, action: &'static str, target: &str) {
        let p = ctx.principal();
        self.audit(ctx.caller, &p.tenant, p.agent.as_str(), action, target, None).await;
    }
}
