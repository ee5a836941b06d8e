//! Groups: admins say who is in them, contexts are shared with them.

use acb_ports::metadata::{GroupMember, GroupRow, NewGroup};
use acb_types::{AgentId, ErrorCode, GroupName};

use super::{
    App, OpContext,
    page::{self, Page, Query},
};
use crate::{domain::context as rules, error::AppError};

impl App {
    /// Makes a group, or finds the one that is there. Answers whether it was.
    ///
    /// # Errors
    /// `group_exists` for another description, `group_limit`, `field_too_large`.
    pub async fn group_create(
        &self,
        ctx: &OpContext,
        name: GroupName,
        description: String,
    ) -> Result<(GroupRow, bool), AppError> {
        let p = ctx.principal();
        rules::check_group(&description)?;
        let new = NewGroup { name, description, by: p.agent.clone(), now: self.now() };
        let made = self.deps.metadata.group_create(&p.tenant, new).await?;
        if !made.existed {
            self.audit_own(ctx, "group.create", made.row.name.as_str()).await;
        }
        Ok((made.row, made.existed))
    }

    /// Ends a group with its memberships. Ending what is absent succeeds.
    ///
    /// # Errors
    /// The store's.
    pub async fn group_delete(&self, ctx: &OpContext, name: &GroupName) -> Result<(), AppError> {
        if self.deps.metadata.group_delete(&ctx.principal().tenant, name).await?.is_some() {
            self.audit_own(ctx, "group.delete", name.as_str()).await;
        }
        Ok(())
    }

    /// Lists groups by name.
    ///
    /// # Errors
    /// `invalid_page_token`.
    pub async fn group_list(&self, ctx: &OpContext, size: u32, token: &str) -> Result<Page<GroupRow>, AppError> {
        let tenant = &ctx.principal().tenant;
        let size = page::size(size)?;
        let query = Query::new(&self.deps.page_key, "groups", tenant);
        let after: Option<GroupName> = query.after(token)?;
        let rows = self.deps.metadata.group_list(tenant, after.as_ref(), size + 1).await?;
        Ok(Page::of(rows, size, &query, |row| row.name.to_string()))
    }

    /// Puts agents into a group.
    ///
    /// # Errors
    /// `group_not_found`, `group_limit`, `field_too_large`.
    pub async fn group_members_add(
        &self,
        ctx: &OpContext,
        name: &GroupName,
        agents: &[AgentId],
    ) -> Result<GroupRow, AppError> {
        rules::check_members(agents)?;
        let tenant = &ctx.principal().tenant;
        let row = self.deps.metadata.group_members_add(tenant, name, agents, self.now()).await?;
        self.audit_members(ctx, "group.members.add", name, agents).await;
        Ok(row)
    }

    /// Takes agents out of a group.
    ///
    /// # Errors
    /// `group_not_found`, `field_too_large`.
    pub async fn group_members_remove(
        &self,
        ctx: &OpContext,
        name: &GroupName,
        agents: &[AgentId],
    ) -> Result<GroupRow, AppError> {
        rules::check_members(agents)?;
        let row = self.deps.metadata.group_members_remove(&ctx.principal().tenant, name, agents).await?;
        self.audit_members(ctx, "group.members.remove", name, agents).await;
        Ok(row)
    }

    /// Lists the agents of a group by id.
    ///
    /// # Errors
    /// `group_not_found`, `invalid_page_token`.
    pub async fn group_member_list(
        &self,
        ctx: &OpContext,
        name: &GroupName,
        size: u32,
        token: &str,
    ) -> Result<Page<GroupMember>, AppError> {
        let tenant = &ctx.principal().tenant;
        let size = page::size(size)?;
        let query = Query::new(&self.deps.page_key, "group_members", tenant).with(name.as_str());
        let after: Option<AgentId> = query.after(token)?;
        let rows = self.deps.metadata.group_member_list(tenant, name, after.as_ref(), size + 1).await?;
        let rows = rows.ok_or_else(|| AppError::new(ErrorCode::GroupNotFound, format!("no group {name}")))?;
        Ok(Page::of(rows, size, &query, |row| row.agent.to_string()))
    }

    async fn audit_members(&self, ctx: &OpContext, action: &'static str, name: &GroupName, agents: &[AgentId]) {
        // One row a call: the first names the others' number.
        let target = match agents {
            [] => return,
            [one] => format!("{name}: {one}"),
            [first, rest @ ..] => format!("{name}: {first} and {} more", rest.len()),
        };
        self.audit_own(ctx, action, &target).await;
    }
}
