//! `AgentRegistry`.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    time::Duration,
};

use acb_ports::metadata::{AgentCapability, AgentFilter, AgentSpec, AgentUpdate, Inbox};
use acb_proto::v1;
use acb_types::{AgentId, Capability, ErrorCode, Incarnation, limits};
use futures_core::Stream;
use futures_util::TryStreamExt;
use tonic::{Request, Response, Status};

use super::call::Grpc;
use crate::{
    app::agent::{AgentView, Discovery},
    auth::Verb,
    changes::agent_watch::{AgentEvent, AgentEventKind, AgentFrame},
    domain::{
        agent::version,
        presence::{AgentActivity, AgentPresence, AgentStatus},
    },
    error::AppError,
};

#[tonic::async_trait]
impl v1::agent_registry_server::AgentRegistry for Grpc {
    async fn register_agent(
        &self,
        request: Request<v1::RegisterAgentRequest>,
    ) -> Result<Response<v1::RegisterAgentResponse>, Status> {
        self.call(Verb::RegisterAgent, request, |(app, ctx, r)| async move {
            let spec = spec_in(r.spec.ok_or_else(|| AppError::missing("spec"))?)?;
            let agent = app.agent_register(&ctx, spec).await?;
            Ok(v1::RegisterAgentResponse { agent: Some(agent_out(agent)) })
        })
        .await
    }

    async fn get_agent(&self, request: Request<v1::GetAgentRequest>) -> Result<Response<v1::GetAgentResponse>, Status> {
        self.call(Verb::GetAgent, request, |(app, ctx, r)| async move {
            let agent = app.agent_get(&ctx, &id_in(&r.agent_id)?).await?;
            Ok(v1::GetAgentResponse { agent: Some(agent_out(agent)) })
        })
        .await
    }

    async fn update_agent(
        &self,
        request: Request<v1::UpdateAgentRequest>,
    ) -> Result<Response<v1::UpdateAgentResponse>, Status> {
        self.call(Verb::UpdateAgent, request, |(app, ctx, r)| async move {
            let spec = spec_in(r.spec.ok_or_else(|| AppError::missing("spec"))?)?;
            let agent = app.agent_update(&ctx, &spec.id.clone(), update_in(spec, &r.fields)?).await?;
            Ok(v1::UpdateAgentResponse { agent: Some(agent_out(agent)) })
        })
        .await
    }

    async fn unregister_agent(
        &self,
        request: Request<v1::UnregisterAgentRequest>,
    ) -> Result<Response<v1::UnregisterAgentResponse>, Status> {
        self.call(Verb::UnregisterAgent, request, |(app, ctx, r)| async move {
            let inbox = if r.keep_inbox { Inbox::Keep } else { Inbox::Drop };
            app.agent_unregister(&ctx, &id_in(&r.agent_id)?, inbox).await?;
            Ok(v1::UnregisterAgentResponse {})
        })
        .await
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        self.call(Verb::Heartbeat, request, |(app, ctx, r)| async move {
            let activity = activity_in(r.activity, r.activity_ttl_ms)?;
            let next = app.agent_heartbeat(&ctx, &id_in(&r.agent_id)?, Incarnation(r.incarnation), activity)?;
            Ok(v1::HeartbeatResponse { next_within_ms: next.as_millis() as u64 })
        })
        .await
    }

    async fn discover_agents(
        &self,
        request: Request<v1::DiscoverAgentsRequest>,
    ) -> Result<Response<v1::DiscoverAgentsResponse>, Status> {
        self.call(Verb::DiscoverAgents, request, |(app, ctx, r)| async move {
            let page = app.agent_discover(&ctx, discovery_in(r)?).await?;
            Ok(v1::DiscoverAgentsResponse {
                agents: page.items.into_iter().map(agent_out).collect(),
                next_page_token: page.next,
            })
        })
        .await
    }

    type WatchAgentsStream = Pin<Box<dyn Stream<Item = Result<v1::WatchAgentsResponse, Status>> + Send>>;

    async fn watch_agents(
        &self,
        request: Request<v1::WatchAgentsRequest>,
    ) -> Result<Response<Self::WatchAgentsStream>, Status> {
        self.call_stream(Verb::WatchAgents, request, |(app, ctx, r)| async move {
            let agent = if r.agent_id.is_empty() { None } else { Some(r.agent_id.parse()?) };
            let filter = AgentFilter {
                agent_type: given(r.r#type),
                location: given(r.location),
                capabilities_all: capabilities(&r.capabilities_all)?,
                ..AgentFilter::default()
            };
            let watch = app.agent_watch(&ctx, agent, filter, (r.after_rev != 0).then_some(r.after_rev)).await?;
            Ok(watch.frames().map_ok(frame_out))
        })
        .await
    }
}

fn frame_out(frame: AgentFrame) -> v1::WatchAgentsResponse {
    let event_out = |event: AgentEvent| v1::AgentEvent {
        kind: match event.kind {
            AgentEventKind::State => v1::AgentEventKind::State,
            AgentEventKind::Changed => v1::AgentEventKind::Changed,
            AgentEventKind::Left => v1::AgentEventKind::Left,
            AgentEventKind::Presence => v1::AgentEventKind::Presence,
        } as i32,
        agent: Some(match event.view {
            Some((row, seen)) => agent_out(AgentView { row, seen }),
            None => v1::Agent {
                spec: Some(v1::AgentSpec { id: event.agent.to_string(), ..Default::default() }),
                ..Default::default()
            },
        }),
    };
    v1::WatchAgentsResponse {
        events: frame.events.into_iter().map(event_out).collect(),
        revision: frame.revision,
        state_complete: frame.state_complete,
    }
}

/// What an agent says that it is doing; nothing when it does not.
fn activity_in(activity: i32, ttl_ms: u64) -> Result<Option<(AgentActivity, Duration)>, AppError> {
    let unknown = || AppError::new(ErrorCode::UnknownEnum, format!("activity has no member {activity}"));
    let activity = match v1::AgentActivity::try_from(activity).map_err(|_| unknown())? {
        v1::AgentActivity::Unspecified => return Ok(None),
        v1::AgentActivity::Idle => AgentActivity::Idle,
        v1::AgentActivity::Busy => AgentActivity::Busy,
        v1::AgentActivity::Waiting => AgentActivity::Waiting,
        v1::AgentActivity::Blocked => AgentActivity::Blocked,
    };
    let ttl = if ttl_ms == 0 { limits::ACTIVITY_TTL } else { Duration::from_millis(ttl_ms) };
    Ok(Some((activity, ttl)))
}

fn given(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn capabilities(names: &[String]) -> Result<Vec<Capability>, AppError> {
    names.iter().map(|name| name.parse()).collect::<Result<_, _>>().map_err(AppError::from)
}

pub(super) fn id_in(text: &str) -> Result<AgentId, AppError> {
    if text.is_empty() { Err(AppError::missing("agent_id")) } else { Ok(text.parse()?) }
}

fn spec_in(spec: v1::AgentSpec) -> Result<AgentSpec, AppError> {
    Ok(AgentSpec {
        id: if spec.id.is_empty() { return Err(AppError::missing("spec.id")) } else { spec.id.parse()? },
        agent_type: spec.r#type,
        name: spec.name,
        description: spec.description,
        version: version("version", &spec.version)?,
        location: spec.location,
        capabilities: spec.capabilities.into_iter().map(capability_in).collect::<Result<_, _>>()?,
        endpoint: spec.endpoint,
        groups: spec.groups.into_iter().collect::<BTreeSet<_>>(),
        metadata: spec.metadata.into_iter().collect::<BTreeMap<_, _>>(),
    })
}

fn capability_in(capability: v1::AgentCapability) -> Result<AgentCapability, AppError> {
    Ok(AgentCapability {
        name: capability.name.parse()?,
        version: version("capabilities.version", &capability.version)?,
        input_schema: capability.input_schema,
        output_schema: capability.output_schema,
    })
}

/// The fields of a spec that are to change: those that are named, or all but the id.
fn update_in(spec: AgentSpec, fields: &[String]) -> Result<AgentUpdate, AppError> {
    const ALL: [&str; 9] =
        ["type", "name", "description", "version", "location", "capabilities", "endpoint", "groups", "metadata"];
    if let Some(unknown) = fields.iter().find(|f| !ALL.contains(&f.as_str())) {
        let message = format!("holds {unknown:.64}, which is no field that can change; those are {}", ALL.join(", "));
        return Err(AppError::invalid("fields", message));
    }
    let has = |name: &str| fields.is_empty() || fields.iter().any(|f| f == name);
    Ok(AgentUpdate {
        agent_type: has("type").then_some(spec.agent_type),
        name: has("name").then_some(spec.name),
        description: has("description").then_some(spec.description),
        version: has("version").then_some(spec.version),
        location: has("location").then_some(spec.location),
        capabilities: has("capabilities").then_some(spec.capabilities),
        endpoint: has("endpoint").then_some(spec.endpoint),
        groups: has("groups").then_some(spec.groups),
        metadata: has("metadata").then_some(spec.metadata),
        ..AgentUpdate::default()
    })
}

fn discovery_in(r: v1::DiscoverAgentsRequest) -> Result<Discovery, AppError> {
    let unknown = || AppError::new(ErrorCode::UnknownEnum, format!("status has no member {}", r.status));
    Ok(Discovery {
        status: match v1::AgentStatus::try_from(r.status).map_err(|_| unknown())? {
            v1::AgentStatus::Unspecified => None,
            v1::AgentStatus::Online => Some(AgentStatus::Online),
            v1::AgentStatus::Offline => Some(AgentStatus::Offline),
            v1::AgentStatus::Unknown => Some(AgentStatus::Unknown),
        },
        filter: AgentFilter {
            agent_type: given(r.r#type),
            location: given(r.location),
            capabilities_all: capabilities(&r.capabilities_all)?,
            capabilities_any: capabilities(&r.capabilities_any)?,
            metadata: r.metadata.into_iter().collect(),
            text: given(r.text),
        },
        page_size: r.page_size,
        page_token: r.page_token,
    })
}

fn agent_out(view: AgentView) -> v1::Agent {
    let AgentView { row, seen } = view;
    let version_out = |v: Option<semver::Version>| v.map(|v| v.to_string()).unwrap_or_default();
    let spec = row.spec;
    let capability_out = |c: AgentCapability| v1::AgentCapability {
        name: c.name.to_string(),
        version: version_out(c.version),
        input_schema: c.input_schema,
        output_schema: c.output_schema,
    };
    v1::Agent {
        spec: Some(v1::AgentSpec {
            id: spec.id.to_string(),
            r#type: spec.agent_type,
            name: spec.name,
            description: spec.description,
            version: version_out(spec.version),
            location: spec.location,
            capabilities: spec.capabilities.into_iter().map(capability_out).collect(),
            endpoint: spec.endpoint,
            groups: spec.groups.into_iter().collect(),
            metadata: spec.metadata.into_iter().collect(),
        }),
        incarnation: row.incarnation.0,
        status: match seen.status {
            AgentStatus::Online => v1::AgentStatus::Online,
            AgentStatus::Offline => v1::AgentStatus::Offline,
            AgentStatus::Unknown => v1::AgentStatus::Unknown,
        } as i32,
        registered_at_ms: row.registered_at.0,
        updated_at_ms: row.updated_at.0,
        last_seen_at_ms: seen.last_seen_at.0,
        revision: row.revision,
        presence: match seen.presence {
            AgentPresence::Active => v1::AgentPresence::Active,
            AgentPresence::Suspect => v1::AgentPresence::Suspect,
            AgentPresence::Offline => v1::AgentPresence::Offline,
            AgentPresence::Expired => v1::AgentPresence::Expired,
            AgentPresence::Unknown => v1::AgentPresence::Unknown,
        } as i32,
        activity: match seen.activity {
            None => v1::AgentActivity::Unspecified,
            Some(AgentActivity::Idle) => v1::AgentActivity::Idle,
            Some(AgentActivity::Busy) => v1::AgentActivity::Busy,
            Some(AgentActivity::Waiting) => v1::AgentActivity::Waiting,
            Some(AgentActivity::Blocked) => v1::AgentActivity::Blocked,
        } as i32,
        activity_until_ms: seen.activity_until.0,
    }
}
