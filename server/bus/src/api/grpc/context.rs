//! `ContextService`.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    time::Duration,
};

use acb_ports::metadata::{
    ContentPlace, ContextChange, ContextFilter, ContextRow, ContextScope, ContextSpec, Payloads, ShareAccess,
};
use acb_proto::v1;
use acb_types::{ContextId, ErrorCode, limits};
use bytes::Bytes;
use futures_core::Stream;
use futures_util::TryStreamExt;
use tonic::{Request, Response, Status};

use super::call::Grpc;
use crate::{
    app::context::{ContextRef, ContextUpdate, If},
    auth::Verb,
    changes::context_watch::{EventKind, WatchEvent, WatchFrame},
    domain::agent::version,
    error::AppError,
};

#[tonic::async_trait]
impl v1::context_service_server::ContextService for Grpc {
    async fn create_context(
        &self,
        request: Request<v1::CreateContextRequest>,
    ) -> Result<Response<v1::CreateContextResponse>, Status> {
        self.call(Verb::CreateContext, request, |(app, ctx, r)| async move {
            let id = if r.context_id.is_empty() { None } else { Some(r.context_id.parse()?) };
            let spec = spec_in(r.spec.ok_or_else(|| AppError::missing("spec"))?)?;
            let (row, existed) = app.context_create(&ctx, id, spec, r.payload).await?;
            Ok(v1::CreateContextResponse { context: Some(context_out(row, None)), existed })
        })
        .await
    }

    async fn get_context(
        &self,
        request: Request<v1::GetContextRequest>,
    ) -> Result<Response<v1::GetContextResponse>, Status> {
        self.call(Verb::GetContext, request, |(app, ctx, r)| async move {
            let which = match (r.context_id.as_str(), r.key.as_str()) {
                ("", "") => return Err(AppError::missing("context_id")),
                ("", key) => ContextRef::Key(key.parse()?),
                (id, _) => ContextRef::Id(id.parse()?),
            };
            let payloads = if r.without_payload { Payloads::LeaveOut } else { Payloads::Read };
            let view = app.context_get(&ctx, &which, (r.at_rev != 0).then_some(r.at_rev), payloads).await?;
            Ok(v1::GetContextResponse { context: Some(context_out(view.row, view.payload)) })
        })
        .await
    }

    async fn update_context(
        &self,
        request: Request<v1::UpdateContextRequest>,
    ) -> Result<Response<v1::UpdateContextResponse>, Status> {
        self.call(Verb::UpdateContext, request, |(app, ctx, r)| async move {
            let id = id_in(&r.context_id)?;
            let update = ContextUpdate {
                condition: condition_in(r.if_rev, r.force)?,
                change: change_in(r.spec, &r.fields)?,
                payload: r.payload,
                idempotency_key: r.idempotency_key,
            };
            let (row, duplicate) = app.context_update(&ctx, &id, update).await?;
            Ok(v1::UpdateContextResponse { context: Some(context_out(row, None)), duplicate })
        })
        .await
    }

    async fn delete_context(
        &self,
        request: Request<v1::DeleteContextRequest>,
    ) -> Result<Response<v1::DeleteContextResponse>, Status> {
        self.call(Verb::DeleteContext, request, |(app, ctx, r)| async move {
            let condition = condition_in(r.if_rev, r.force)?;
            let rev = app.context_delete(&ctx, &id_in(&r.context_id)?, condition).await?;
            Ok(v1::DeleteContextResponse { rev })
        })
        .await
    }

    async fn list_contexts(
        &self,
        request: Request<v1::ListContextsRequest>,
    ) -> Result<Response<v1::ListContextsResponse>, Status> {
        self.call(Verb::ListContexts, request, |(app, ctx, r)| async move {
            let given = |text: String| (!text.is_empty()).then_some(text);
            let filter = ContextFilter {
                key_prefix: r.key_prefix,
                context_type: given(r.r#type),
                owner: given(r.owner).map(|owner| owner.parse()).transpose()?,
                scope: scope_in(r.scope)?,
                labels: r.labels.into_iter().collect(),
                text: given(r.text),
                ..ContextFilter::default()
            };
            let listed = app.context_list(&ctx, filter, r.page_size, &r.page_token).await?;
            Ok(v1::ListContextsResponse {
                contexts: listed.page.items.into_iter().map(|row| context_out(row, None)).collect(),
                next_page_token: listed.page.next,
                revision: listed.revision,
            })
        })
        .await
    }

    async fn list_context_history(
        &self,
        request: Request<v1::ListContextHistoryRequest>,
    ) -> Result<Response<v1::ListContextHistoryResponse>, Status> {
        self.call(Verb::ListContextHistory, request, |(app, ctx, r)| async move {
            let page = app.context_history(&ctx, &id_in(&r.context_id)?, r.page_size, &r.page_token).await?;
            Ok(v1::ListContextHistoryResponse {
                revisions: page.items.into_iter().map(|row| context_out(row, None)).collect(),
                next_page_token: page.next,
            })
        })
        .await
    }

    async fn renew_context_ttl(
        &self,
        request: Request<v1::RenewContextTtlRequest>,
    ) -> Result<Response<v1::RenewContextTtlResponse>, Status> {
        self.call(Verb::RenewContextTtl, request, |(app, ctx, r)| async move {
            let expires_at = app.context_renew(&ctx, &id_in(&r.context_id)?, ttl_in(r.ttl_ms)).await?;
            Ok(v1::RenewContextTtlResponse { expires_at_ms: expires_at.0 })
        })
        .await
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        self.call_stream(Verb::WatchContexts, request, |(app, ctx, r)| async move {
            let (filter, after, payload_bytes_max) = watch_in(r)?;
            let watch = app.context_watch(&ctx, filter, after, payload_bytes_max).await?;
            Ok(watch.frames().map_ok(frame_out))
        })
        .await
    }
}

fn id_in(text: &str) -> Result<ContextId, AppError> {
    if text.is_empty() { Err(AppError::missing("context_id")) } else { Ok(text.parse()?) }
}

fn ttl_in(ms: u64) -> Option<Duration> {
    (ms != 0).then(|| Duration::from_millis(ms))
}

fn condition_in(if_rev: u64, force: bool) -> Result<If, AppError> {
    match (if_rev, force) {
        (0, false) => Err(AppError::missing("if_rev")),
        (rev, false) => Ok(If::Rev(rev)),
        (0, true) => Ok(If::Force),
        (_, true) => Err(AppError::invalid("force", "and if_rev exclude each other")),
    }
}

fn unknown(field: &'static str, value: i32) -> AppError {
    AppError::new(ErrorCode::UnknownEnum, format!("{field} has no member {value}"))
}

/// A scope; nothing when none is said.
fn scope_in(scope: i32) -> Result<Option<ContextScope>, AppError> {
    Ok(match v1::ContextScope::try_from(scope).map_err(|_| unknown("scope", scope))? {
        v1::ContextScope::Unspecified => None,
        v1::ContextScope::Private => Some(ContextScope::Private),
        v1::ContextScope::Shared => Some(ContextScope::Shared),
        v1::ContextScope::Group => Some(ContextScope::Group),
        v1::ContextScope::Public => Some(ContextScope::Public),
    })
}

fn shares_in(shares: Vec<v1::ContextShare>) -> Result<BTreeMap<acb_types::AgentId, ShareAccess>, AppError> {
    let mut out = BTreeMap::new();
    for share in shares {
        let access = match v1::ContextAccess::try_from(share.access).map_err(|_| unknown("access", share.access))? {
            v1::ContextAccess::Unspecified | v1::ContextAccess::Read => ShareAccess::Read,
            v1::ContextAccess::Write => ShareAccess::Write,
        };
        let agent: acb_types::AgentId = share.agent_id.parse()?;
        if out.insert(agent, access).is_some() {
            return Err(AppError::invalid("shares", format!("hold {} twice", share.agent_id)));
        }
    }
    Ok(out)
}

/// A spec as it is asked for. Uploads say the same of what they become.
pub(super) fn spec_in(spec: v1::ContextSpec) -> Result<ContextSpec, AppError> {
    Ok(ContextSpec {
        key: if spec.key.is_empty() { None } else { Some(spec.key.parse()?) },
        context_type: spec.r#type,
        scope: scope_in(spec.scope)?.unwrap_or_default(),
        groups: spec.groups.iter().map(|g| g.parse()).collect::<Result<_, _>>()?,
        shares: shares_in(spec.shares)?,
        content_type: spec.content_type,
        description: spec.description,
        labels: spec.labels.into_iter().collect::<BTreeSet<_>>(),
        metadata: spec.metadata.into_iter().collect(),
        ttl: ttl_in(spec.ttl_ms),
        version: version("version", &spec.version)?.unwrap_or(ContextSpec::FIRST_VERSION),
    })
}

/// The fields of a spec that are to change: those that are named.
pub(super) fn change_in(spec: Option<v1::ContextSpec>, fields: &[String]) -> Result<ContextChange, AppError> {
    const ALL: [&str; 9] =
        ["scope", "groups", "shares", "content_type", "description", "labels", "metadata", "ttl_ms", "version"];
    if let Some(unknown) = fields.iter().find(|f| !ALL.contains(&f.as_str())) {
        let message = format!("holds {unknown:.64}, which is no field that can change; those are {}", ALL.join(", "));
        return Err(AppError::invalid("fields", message));
    }
    if fields.is_empty() {
        return Ok(ContextChange::default());
    }
    let spec = spec.ok_or_else(|| AppError::missing("spec"))?;
    let has = |name: &str| fields.iter().any(|f| f == name);
    let given_version = version("version", &spec.version)?;
    let spec = spec_in(spec)?;
    Ok(ContextChange {
        scope: has("scope").then_some(spec.scope),
        groups: has("groups").then_some(spec.groups),
        shares: has("shares").then_some(spec.shares),
        content_type: has("content_type").then_some(spec.content_type),
        description: has("description").then_some(spec.description),
        labels: has("labels").then_some(spec.labels),
        metadata: has("metadata").then_some(spec.metadata),
        ttl: has("ttl_ms").then_some(spec.ttl),
        version: if has("version") { given_version } else { None },
    })
}

fn watch_in(r: v1::WatchRequest) -> Result<(ContextFilter, Option<u64>, usize), AppError> {
    let filter = ContextFilter {
        id: if r.context_id.is_empty() { None } else { Some(r.context_id.parse()?) },
        key: if r.key.is_empty() { None } else { Some(r.key.parse()?) },
        key_prefix: r.key_prefix,
        context_type: (!r.r#type.is_empty()).then_some(r.r#type),
        owner: if r.owner.is_empty() { None } else { Some(r.owner.parse()?) },
        labels: r.labels.into_iter().collect(),
        ..ContextFilter::default()
    };
    Ok((filter, (r.after_rev != 0).then_some(r.after_rev), r.payload_bytes_max as usize))
}

fn scope_out(scope: ContextScope) -> i32 {
    match scope {
        ContextScope::Private => v1::ContextScope::Private as i32,
        ContextScope::Shared => v1::ContextScope::Shared as i32,
        ContextScope::Group => v1::ContextScope::Group as i32,
        ContextScope::Public => v1::ContextScope::Public as i32,
    }
}

fn spec_out(spec: ContextSpec) -> v1::ContextSpec {
    let share_out = |(agent, access): (acb_types::AgentId, ShareAccess)| v1::ContextShare {
        agent_id: agent.to_string(),
        access: match access {
            ShareAccess::Read => v1::ContextAccess::Read as i32,
            ShareAccess::Write => v1::ContextAccess::Write as i32,
        },
    };
    v1::ContextSpec {
        key: spec.key.map(|key| key.to_string()).unwrap_or_default(),
        r#type: spec.context_type,
        scope: scope_out(spec.scope),
        groups: spec.groups.iter().map(ToString::to_string).collect(),
        shares: spec.shares.into_iter().map(share_out).collect(),
        content_type: spec.content_type,
        description: spec.description,
        labels: spec.labels.into_iter().collect(),
        metadata: spec.metadata.into_iter().collect(),
        ttl_ms: spec.ttl.map_or(0, |ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
        version: spec.version.to_string(),
    }
}

/// A context as callers see it; a marker as a marker.
pub(super) fn context_out(row: ContextRow, payload: Option<Bytes>) -> v1::Context {
    if row.is_marker() {
        return marker_out(&row);
    }
    let streamed =
        row.content.place == ContentPlace::Blob && row.content.size > limits::CONTEXT_INLINE_BYTES_MAX as u64;
    v1::Context {
        id: row.id.to_string(),
        spec: Some(spec_out(row.spec)),
        owner: row.owner.to_string(),
        rev: row.rev,
        size_bytes: row.content.size,
        sha256: Bytes::copy_from_slice(row.content.sha256.as_bytes()),
        streamed,
        expires_at_ms: row.expires_at.0,
        created_at_ms: row.created_at.0,
        updated_at_ms: row.updated_at.0,
        updated_by: row.updated_by.to_string(),
        deleted: false,
        payload: payload.unwrap_or_default(),
    }
}

/// What is told of a context that is not there any more, or not for this caller.
fn marker_out(row: &ContextRow) -> v1::Context {
    v1::Context {
        id: row.id.to_string(),
        spec: Some(v1::ContextSpec {
            key: row.spec.key.as_ref().map(ToString::to_string).unwrap_or_default(),
            r#type: row.spec.context_type.clone(),
            ..v1::ContextSpec::default()
        }),
        rev: row.rev,
        updated_at_ms: row.updated_at.0,
        updated_by: row.updated_by.to_string(),
        deleted: true,
        ..v1::Context::default()
    }
}

fn event_out(event: WatchEvent) -> v1::ContextEvent {
    let gone = event.is_gone();
    let kind = match event.kind {
        EventKind::State => v1::ContextEventKind::State,
        EventKind::Created => v1::ContextEventKind::Created,
        EventKind::Updated => v1::ContextEventKind::Updated,
        EventKind::Deleted => v1::ContextEventKind::Deleted,
        EventKind::Expired => v1::ContextEventKind::Expired,
    };
    let context = if gone { marker_out(&event.row) } else { context_out(ContextRow::clone(&event.row), event.payload) };
    v1::ContextEvent { kind: kind as i32, context: Some(context) }
}

fn frame_out(frame: WatchFrame) -> v1::WatchResponse {
    v1::WatchResponse {
        events: frame.events.into_iter().map(event_out).collect(),
        revision: frame.revision,
        state_complete: frame.state_complete,
    }
}
