//! `AdminService`.

use std::time::Duration;

use acb_ports::metadata::{EnrolmentKeyRow, GroupMember, GroupRow, TenantRow};
use acb_proto::v1;
use acb_types::{AgentId, GroupName};
use tonic::{Request, Response, Status};

use super::{agent::id_in, call::Grpc};
use crate::{
    app::credential::NewKey,
    auth::{Roles, Verb},
    error::AppError,
};

#[tonic::async_trait]
impl v1::admin_service_server::AdminService for Grpc {
    async fn create_tenant(
        &self,
        request: Request<v1::CreateTenantRequest>,
    ) -> Result<Response<v1::CreateTenantResponse>, Status> {
        self.call(Verb::CreateTenant, request, |(app, ctx, r)| async move {
            if r.id.is_empty() {
                return Err(AppError::missing("id"));
            }
            let tenant = app.tenant_create(&ctx, r.id.parse()?, r.name).await?;
            Ok(v1::CreateTenantResponse { tenant: Some(tenant_out(tenant)) })
        })
        .await
    }

    async fn list_tenants(
        &self,
        request: Request<v1::ListTenantsRequest>,
    ) -> Result<Response<v1::ListTenantsResponse>, Status> {
        self.call(Verb::ListTenants, request, |(app, ctx, r)| async move {
            let page = app.tenant_list(&ctx, r.page_size, &r.page_token).await?;
            Ok(v1::ListTenantsResponse {
                tenants: page.items.into_iter().map(tenant_out).collect(),
                next_page_token: page.next,
            })
        })
        .await
    }

    async fn create_enrolment_key(
        &self,
        request: Request<v1::CreateEnrolmentKeyRequest>,
    ) -> Result<Response<v1::CreateEnrolmentKeyResponse>, Status> {
        self.call(Verb::CreateEnrolmentKey, request, |(app, ctx, r)| async move {
            let new = NewKey {
                tenant: if r.tenant_id.is_empty() { None } else { Some(r.tenant_id.parse()?) },
                label: r.label,
                agent_pattern: r.agent_pattern,
                roles: Roles::parse(&r.roles)?,
                ttl: (r.ttl_ms != 0).then(|| Duration::from_millis(r.ttl_ms)),
            };
            let (enrolment_key, row) = app.enrolment_key_create(&ctx, new).await?;
            Ok(v1::CreateEnrolmentKeyResponse { enrolment_key, key: Some(key_out(row)) })
        })
        .await
    }

    async fn list_enrolment_keys(
        &self,
        request: Request<v1::ListEnrolmentKeysRequest>,
    ) -> Result<Response<v1::ListEnrolmentKeysResponse>, Status> {
        self.call(Verb::ListEnrolmentKeys, request, |(app, ctx, r)| async move {
            let page = app.enrolment_key_list(&ctx, r.page_size, &r.page_token).await?;
            Ok(v1::ListEnrolmentKeysResponse {
                keys: page.items.into_iter().map(key_out).collect(),
                next_page_token: page.next,
            })
        })
        .await
    }

    async fn revoke_enrolment_key(
        &self,
        request: Request<v1::RevokeEnrolmentKeyRequest>,
    ) -> Result<Response<v1::RevokeEnrolmentKeyResponse>, Status> {
        self.call(Verb::RevokeEnrolmentKey, request, |(app, ctx, r)| async move {
            if r.key_id.is_empty() {
                return Err(AppError::missing("key_id"));
            }
            app.enrolment_key_revoke(&ctx, &r.key_id).await?;
            Ok(v1::RevokeEnrolmentKeyResponse {})
        })
        .await
    }

    async fn set_agent_secret(
        &self,
        request: Request<v1::SetAgentSecretRequest>,
    ) -> Result<Response<v1::SetAgentSecretResponse>, Status> {
        self.call(Verb::SetAgentSecret, request, |(app, ctx, r)| async move {
            let secret = app.agent_secret_set(&ctx, &id_in(&r.agent_id)?, Roles::parse(&r.roles)?).await?;
            Ok(v1::SetAgentSecretResponse { secret })
        })
        .await
    }

    async fn rotate_signing_key(
        &self,
        request: Request<v1::RotateSigningKeyRequest>,
    ) -> Result<Response<v1::RotateSigningKeyResponse>, Status> {
        self.call(Verb::RotateSigningKey, request, |(app, ctx, _)| async move {
            let key_id = app.signing_key_rotate(&ctx).await?;
            Ok(v1::RotateSigningKeyResponse { key_id })
        })
        .await
    }

    async fn create_group(
        &self,
        request: Request<v1::CreateGroupRequest>,
    ) -> Result<Response<v1::CreateGroupResponse>, Status> {
        self.call(Verb::CreateGroup, request, |(app, ctx, r)| async move {
            let (row, existed) = app.group_create(&ctx, group_in(&r.name)?, r.description).await?;
            Ok(v1::CreateGroupResponse { group: Some(group_out(row)), existed })
        })
        .await
    }

    async fn delete_group(
        &self,
        request: Request<v1::DeleteGroupRequest>,
    ) -> Result<Response<v1::DeleteGroupResponse>, Status> {
        self.call(Verb::DeleteGroup, request, |(app, ctx, r)| async move {
            app.group_delete(&ctx, &group_in(&r.name)?).await?;
            Ok(v1::DeleteGroupResponse {})
        })
        .await
    }

    async fn list_groups(
        &self,
        request: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        self.call(Verb::ListGroups, request, |(app, ctx, r)| async move {
            let page = app.group_list(&ctx, r.page_size, &r.page_token).await?;
            Ok(v1::ListGroupsResponse {
                groups: page.items.into_iter().map(group_out).collect(),
                next_page_token: page.next,
            })
        })
        .await
    }

    async fn add_group_members(
        &self,
        request: Request<v1::AddGroupMembersRequest>,
    ) -> Result<Response<v1::AddGroupMembersResponse>, Status> {
        self.call(Verb::AddGroupMembers, request, |(app, ctx, r)| async move {
            let row = app.group_members_add(&ctx, &group_in(&r.name)?, &agents_in(&r.agent_ids)?).await?;
            Ok(v1::AddGroupMembersResponse { group: Some(group_out(row)) })
        })
        .await
    }

    async fn remove_group_members(
        &self,
        request: Request<v1::RemoveGroupMembersRequest>,
    ) -> Result<Response<v1::RemoveGroupMembersResponse>, Status> {
        self.call(Verb::RemoveGroupMembers, request, |(app, ctx, r)| async move {
            let row = app.group_members_remove(&ctx, &group_in(&r.name)?, &agents_in(&r.agent_ids)?).await?;
            Ok(v1::RemoveGroupMembersResponse { group: Some(group_out(row)) })
        })
        .await
    }

    async fn list_group_members(
        &self,
        request: Request<v1::ListGroupMembersRequest>,
    ) -> Result<Response<v1::ListGroupMembersResponse>, Status> {
        self.call(Verb::ListGroupMembers, request, |(app, ctx, r)| async move {
            let page = app.group_member_list(&ctx, &group_in(&r.name)?, r.page_size, &r.page_token).await?;
            let member_out = |m: GroupMember| v1::GroupMember { agent_id: m.agent.to_string(), since_ms: m.since.0 };
            Ok(v1::ListGroupMembersResponse {
                members: page.items.into_iter().map(member_out).collect(),
                next_page_token: page.next,
            })
        })
        .await
    }
}

fn group_in(name: &str) -> Result<GroupName, AppError> {
    if name.is_empty() { Err(AppError::missing("name")) } else { Ok(name.parse()?) }
}

fn agents_in(ids: &[String]) -> Result<Vec<AgentId>, AppError> {
    ids.iter().map(|id| id.parse().map_err(AppError::from)).collect()
}

fn group_out(row: GroupRow) -> v1::Group {
    v1::Group {
        name: row.name.to_string(),
        description: row.description,
        members: row.members,
        created_at_ms: row.created_at.0,
        created_by: row.created_by.to_string(),
        revision: row.revision,
    }
}

fn tenant_out(row: TenantRow) -> v1::Tenant {
    v1::Tenant { id: row.id.to_string(), name: row.name, created_at_ms: row.created_at.0 }
}

fn key_out(row: EnrolmentKeyRow) -> v1::EnrolmentKey {
    v1::EnrolmentKey {
        key_id: row.key_id,
        label: row.label,
        agent_pattern: row.agent_pattern,
        roles: row.roles,
        created_at_ms: row.created_at.0,
        expires_at_ms: row.expires_at.0,
        revoked: row.revoked_at.is_set(),
    }
}
