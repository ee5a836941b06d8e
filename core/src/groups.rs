//! Groups: admins say which agents are in them, and contexts are shared with them.

use acb_proto::v1::admin_service_client::AdminServiceClient;
use acb_types::{Timestamp, limits};

use crate::{
    admin::Admin,
    convert,
    error::Result,
    pages::{Page, Pages},
    retry::Safety,
};

/// A named set of agents.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Group {
    /// Its name.
    pub name: String,
    /// For people.
    pub description: String,
    /// How many agents are in it.
    pub members: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// Agent that made it.
    pub created_by: String,
    /// The tenant's revision of its last change.
    pub revision: u64,
}

/// An agent in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupMember {
    /// Its id.
    pub agent_id: String,
    /// Since when.
    pub since: Timestamp,
}

impl Admin {
    /// Makes a group, or finds the one of the same description.
    ///
    #[doc = "```no_run"]
    #[doc = include_str!("../doc/groups.rs")]
    #[doc = "```"]
    /// # Errors
    /// `group_exists` for another description, `group_limit`, `invalid_name`, `permission_denied`.
    pub async fn create_group(&self, name: impl Into<String>, description: impl Into<String>) -> Result<Group> {
        let operation = "admin.create_group";
        let request = convert::create_group(name.into(), description.into());
        let response = self
            .core()
            .call(operation, Safety::Idempotent, request, |to, request| async move {
                AdminServiceClient::with_origin(to.channel, to.origin).create_group(request).await
            })
            .await?;
        convert::group(operation, response.group)
    }

    /// Ends a group and takes everybody out of it. Contexts keep its name. Deleting what is absent succeeds.
    ///
    /// # Errors
    /// `permission_denied`.
    pub async fn delete_group(&self, name: impl Into<String>) -> Result<()> {
        let request = convert::delete_group(name.into());
        self.core()
            .call("admin.delete_group", Safety::Idempotent, request, |to, request| async move {
                AdminServiceClient::with_origin(to.channel, to.origin).delete_group(request).await
            })
            .await?;
        Ok(())
    }

    /// The tenant's groups, by name.
    pub fn groups(&self) -> Pages<Group> {
        let me = self.clone();
        Pages::new(move |token| {
            let me = me.clone();
            async move {
                let operation = "admin.groups";
                let request = convert::list_groups(limits::PAGE_SIZE_MAX, token);
                let response = me
                    .core()
                    .call(operation, Safety::Idempotent, request, |to, request| async move {
                        AdminServiceClient::with_origin(to.channel, to.origin).list_groups(request).await
                    })
                    .await?;
                let items = response.groups.into_iter().map(|g| convert::group(operation, Some(g)));
                Ok(Page::new(items.collect::<Result<_>>()?, response.next_page_token))
            }
        })
    }

    /// Puts agents into a group, all or none of them; at most 500. Who is in it stays.
    ///
    /// # Errors
    /// `group_not_found`, `group_limit`, `field_too_large`, `permission_denied`.
    pub async fn add_group_members<A: Into<String>>(
        &self,
        name: impl Into<String>,
        agents: impl IntoIterator<Item = A>,
    ) -> Result<Group> {
        let operation = "admin.add_group_members";
        let request = convert::add_group_members(name.into(), agents.into_iter().map(Into::into).collect());
        let response = self
            .core()
            .call(operation, Safety::Idempotent, request, |to, request| async move {
                AdminServiceClient::with_origin(to.channel, to.origin).add_group_members(request).await
            })
            .await?;
        convert::group(operation, response.group)
    }

    /// Takes agents out of a group; at most 500. Taking out who is not in it succeeds.
    ///
    /// # Errors
    /// `group_not_found`, `field_too_large`, `permission_denied`.
    pub async fn remove_group_members<A: Into<String>>(
        &self,
        name: impl Into<String>,
        agents: impl IntoIterator<Item = A>,
    ) -> Result<Group> {
        let operation = "admin.remove_group_members";
        let request = convert::remove_group_members(name.into(), agents.into_iter().map(Into::into).collect());
        let response = self
            .core()
            .call(operation, Safety::Idempotent, request, |to, request| async move {
                AdminServiceClient::with_origin(to.channel, to.origin).remove_group_members(request).await
            })
            .await?;
        convert::group(operation, response.group)
    }

    /// The agents of a group, by id. Ends with `group_not_found` when there is no such group.
    pub fn group_members(&self, name: impl Into<String>) -> Pages<GroupMember> {
        let (me, name) = (self.clone(), name.into());
        Pages::new(move |token| {
            let (me, name) = (me.clone(), name.clone());
            async move {
                let request = convert::list_group_members(name, limits::PAGE_SIZE_MAX, token);
                let response = me
                    .core()
                    .call("admin.group_members", Safety::Idempotent, request, |to, request| async move {
                        AdminServiceClient::with_origin(to.channel, to.origin).list_group_members(request).await
                    })
                    .await?;
                let items = response.members.into_iter().map(convert::group_member).collect();
                Ok(Page::new(items, response.next_page_token))
            }
        })
    }
}
