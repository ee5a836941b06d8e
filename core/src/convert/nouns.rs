//! Requests and answers of the unary calls.

use std::time::Duration;

use acb_proto::v1;
use acb_types::{
    Durability, Envelope, MessageId, Timestamp,
    batch::{DeadLetterPolicy, StartAt},
    frame,
};
use bytes::{Bytes, BytesMut};
use prost::Message as _;

use super::missing;
use crate::{
    admin::{EnrolmentKey, KeySpec, Tenant},
    agent_watch::{AgentEvent, Wish},
    agents::{Agent, AgentActivity, AgentCapability, AgentPresence, AgentSpec, AgentStatus, Query},
    credentials::{Credentials, Identity, Kind, Tokens},
    dead_letters::DeadLetter,
    error::{Error, ErrorCode, Result},
    messages::{DeliveryState, MessageStatus, SubscriptionStatus},
    publish::Published,
    subscriptions::{SubscriptionInfo, SubscriptionSpec},
    time::millis,
    watching::Seen,
};

// Identity.

/// Whether these credentials work by tokens.
pub(crate) fn needs_token(credentials: &Credentials) -> bool {
    !matches!(credentials.0, Kind::None | Kind::Dev { .. })
}

/// How to log in; `None` for credentials that cannot.
pub(crate) fn login_request(credentials: &Credentials) -> Option<v1::LoginRequest> {
    Some(match &credentials.0 {
        Kind::EnrolmentKey { key, agent } => {
            v1::LoginRequest { enrolment_key: key.to_string(), agent_id: agent.to_string(), ..Default::default() }
        }
        Kind::Secret { tenant, agent, secret } => v1::LoginRequest {
            agent_id: agent.to_string(),
            secret: secret.to_string(),
            tenant_id: tenant.to_string(),
            ..Default::default()
        },
        Kind::None | Kind::Token { .. } | Kind::Refresh { .. } | Kind::Dev { .. } => return None,
    })
}

pub(crate) fn refresh_request(refresh_token: String) -> v1::RefreshRequest {
    v1::RefreshRequest { refresh_token }
}

pub(crate) fn logout() -> v1::LogoutRequest {
    v1::LogoutRequest {}
}

pub(crate) fn get_jwks() -> v1::GetJwksRequest {
    v1::GetJwksRequest {}
}

pub(crate) fn tokens(operation: &'static str, tokens: Option<v1::Tokens>) -> Result<Tokens> {
    let t = tokens.ok_or_else(|| missing(operation, "tokens"))?;
    Ok(Tokens {
        access_token: t.access_token,
        refresh_token: t.refresh_token,
        identity: Identity {
            agent_id: t.agent_id,
            tenant_id: t.tenant_id,
            roles: t.roles,
            access_expires_at: Timestamp(t.access_expires_at_ms),
            refresh_expires_at: Timestamp(t.refresh_expires_at_ms),
        },
    })
}

// Agents.

fn agent_spec(s: AgentSpec) -> v1::AgentSpec {
    v1::AgentSpec {
        id: s.id,
        r#type: s.kind,
        name: s.name,
        description: s.description,
        version: s.version,
        location: s.location,
        capabilities: s
            .capabilities
            .into_iter()
            .map(|c| v1::AgentCapability {
                name: c.name,
                version: c.version,
                input_schema: c.input_schema,
                output_schema: c.output_schema,
            })
            .collect(),
        endpoint: s.endpoint,
        groups: s.groups,
        metadata: s.metadata.into_iter().collect(),
    }
}

pub(crate) fn agent(operation: &'static str, agent: Option<v1::Agent>) -> Result<Agent> {
    let a = agent.ok_or_else(|| missing(operation, "agent"))?;
    let s = a.spec.ok_or_else(|| missing(operation, "agent spec"))?;
    let capabilities = s.capabilities.into_iter().map(|c| AgentCapability {
        name: c.name,
        version: c.version,
        input_schema: c.input_schema,
        output_schema: c.output_schema,
    });
    let status = match v1::AgentStatus::try_from(a.status) {
        Ok(v1::AgentStatus::Online) => AgentStatus::Online,
        Ok(v1::AgentStatus::Offline) => AgentStatus::Offline,
        _ => AgentStatus::Unknown,
    };
    let presence = match v1::AgentPresence::try_from(a.presence) {
        Ok(v1::AgentPresence::Active) => AgentPresence::Active,
        Ok(v1::AgentPresence::Suspect) => AgentPresence::Suspect,
        Ok(v1::AgentPresence::Offline) => AgentPresence::Offline,
        Ok(v1::AgentPresence::Expired) => AgentPresence::Expired,
        _ => AgentPresence::Unknown,
    };
    let activity = match v1::AgentActivity::try_from(a.activity) {
        Ok(v1::AgentActivity::Idle) => Some(AgentActivity::Idle),
        Ok(v1::AgentActivity::Busy) => Some(AgentActivity::Busy),
        Ok(v1::AgentActivity::Waiting) => Some(AgentActivity::Waiting),
        Ok(v1::AgentActivity::Blocked) => Some(AgentActivity::Blocked),
        _ => None,
    };
    Ok(Agent {
        spec: AgentSpec {
            id: s.id,
            kind: s.r#type,
            name: s.name,
            description: s.description,
            version: s.version,
            location: s.location,
            capabilities: capabilities.collect(),
            endpoint: s.endpoint,
            groups: s.groups,
            metadata: s.metadata.into_iter().collect(),
        },
        incarnation: a.incarnation,
        status,
        presence,
        activity,
        activity_until: Timestamp(a.activity_until_ms),
        registered_at: Timestamp(a.registered_at_ms),
        updated_at: Timestamp(a.updated_at_ms),
        last_seen_at: Timestamp(a.last_seen_at_ms),
        revision: a.revision,
    })
}

pub(crate) fn register_agent(spec: AgentSpec) -> v1::RegisterAgentRequest {
    v1::RegisterAgentRequest { spec: Some(agent_spec(spec)) }
}

pub(crate) fn get_agent(agent_id: String) -> v1::GetAgentRequest {
    v1::GetAgentRequest { agent_id }
}

pub(crate) fn update_agent(spec: AgentSpec, fields: Vec<String>) -> v1::UpdateAgentRequest {
    v1::UpdateAgentRequest { spec: Some(agent_spec(spec)), fields }
}

pub(crate) fn unregister_agent(agent_id: String, keep_inbox: bool) -> v1::UnregisterAgentRequest {
    v1::UnregisterAgentRequest { agent_id, keep_inbox }
}

pub(crate) fn heartbeat(agent_id: &str, incarnation: u64) -> v1::HeartbeatRequest {
    v1::HeartbeatRequest { agent_id: agent_id.to_owned(), incarnation, ..Default::default() }
}

pub(crate) fn activity(
    agent_id: &str,
    incarnation: u64,
    activity: AgentActivity,
    span: Duration,
) -> v1::HeartbeatRequest {
    let activity = match activity {
        AgentActivity::Idle => v1::AgentActivity::Idle,
        AgentActivity::Busy => v1::AgentActivity::Busy,
        AgentActivity::Waiting => v1::AgentActivity::Waiting,
        AgentActivity::Blocked => v1::AgentActivity::Blocked,
    };
    v1::HeartbeatRequest {
        activity: activity as i32,
        activity_ttl_ms: span.as_millis() as u64,
        ..heartbeat(agent_id, incarnation)
    }
}

pub(crate) fn watch_agents(wish: &Wish, after: u64) -> v1::WatchAgentsRequest {
    v1::WatchAgentsRequest {
        agent_id: wish.id.clone(),
        r#type: wish.kind.clone(),
        location: wish.location.clone(),
        capabilities_all: wish.capabilities.clone(),
        after_rev: after,
    }
}

pub(crate) fn agents_seen(operation: &'static str, frame: v1::WatchAgentsResponse) -> Result<Seen<AgentEvent>> {
    let event = |event: v1::AgentEvent| {
        let kind = event.kind();
        let agent = agent(operation, event.agent)?;
        Ok(Some(match kind {
            v1::AgentEventKind::State => AgentEvent::State(agent),
            v1::AgentEventKind::Changed => AgentEvent::Changed(agent),
            v1::AgentEventKind::Left => AgentEvent::Left(agent.spec.id),
            v1::AgentEventKind::Presence => AgentEvent::Presence(agent),
            // Of a kind that this version does not know.
            v1::AgentEventKind::Unspecified => return Ok(None),
        }))
    };
    let events = frame.events.into_iter().filter_map(|e| event(e).transpose()).collect::<Result<_>>()?;
    Ok(Seen { events, revision: frame.revision, state_complete: frame.state_complete })
}

pub(crate) fn discover(q: &Query, page_size: u32, page_token: String) -> v1::DiscoverAgentsRequest {
    let status = match q.status {
        None => v1::AgentStatus::Unspecified,
        Some(AgentStatus::Online) => v1::AgentStatus::Online,
        Some(AgentStatus::Offline) => v1::AgentStatus::Offline,
        Some(AgentStatus::Unknown) => v1::AgentStatus::Unknown,
    };
    v1::DiscoverAgentsRequest {
        r#type: q.kind.clone(),
        location: q.location.clone(),
        capabilities_all: q.capabilities_all.clone(),
        capabilities_any: q.capabilities_any.clone(),
        status: status as i32,
        metadata: q.metadata.clone().into_iter().collect(),
        text: q.text.clone(),
        page_size,
        page_token,
    }
}

// Messages.

pub(crate) fn message_id(operation: &'static str, text: &str) -> Result<MessageId> {
    text.parse().map_err(|_| Error::protocol(operation, "the server's answer has no readable message id"))
}

/// A message as the unary call carries it, by way of its bytes.
pub(crate) fn send_request(
    operation: &'static str,
    m: &Envelope,
    durability: Option<Durability>,
) -> Result<v1::SendRequest> {
    let mut bytes = BytesMut::new();
    frame::encode(&mut bytes, m);
    let fields = frame::messages(&bytes.freeze()).next().unwrap_or_default();
    let message = v1::Message::decode(fields)
        .map_err(|e| Error::new(ErrorCode::Internal, operation, "a message cannot be encoded").with_source(e))?;
    Ok(v1::SendRequest { message: Some(message), durability: durability.map_or(0, |d| d as i32) })
}

pub(crate) fn published(operation: &'static str, r: &v1::SendResponse) -> Result<Published> {
    Ok(Published {
        id: message_id(operation, &r.message_id)?,
        durability: Durability::from_wire(r.durability).ok_or_else(|| missing(operation, "durability"))?,
        duplicate: r.duplicate,
    })
}

pub(crate) fn message_status_request(id: MessageId) -> v1::GetMessageStatusRequest {
    v1::GetMessageStatusRequest { message_id: id.to_string() }
}

pub(crate) fn message_status(operation: &'static str, s: v1::GetMessageStatusResponse) -> Result<MessageStatus> {
    let subscriptions = s.subscriptions.into_iter().map(|s| SubscriptionStatus {
        state: match v1::DeliveryState::try_from(s.state) {
            Ok(v1::DeliveryState::Waiting) => DeliveryState::Waiting,
            Ok(v1::DeliveryState::Leased) => DeliveryState::Leased,
            Ok(v1::DeliveryState::Acked) => DeliveryState::Acked,
            Ok(v1::DeliveryState::Dead) => DeliveryState::Dead,
            Ok(v1::DeliveryState::Expired) => DeliveryState::Expired,
            _ => DeliveryState::Unknown,
        },
        subscription: s.subscription,
        attempts: s.attempts,
        due_at: Timestamp(s.due_at_ms),
        dead_letter_id: s.dead_letter_id.parse().ok(),
    });
    Ok(MessageStatus {
        id: message_id(operation, &s.message_id)?,
        topic: s.topic,
        from: s.from,
        stored_at: Timestamp(s.stored_at_ms),
        subscriptions: subscriptions.collect(),
    })
}

/// A message's parts, by way of its bytes: what reads frames reads this too.
fn envelope(operation: &'static str, message: Option<v1::Message>) -> Result<Envelope> {
    let bytes = Bytes::from(message.ok_or_else(|| missing(operation, "message"))?.encode_to_vec());
    frame::decode(&bytes).map_err(|e| Error::protocol(operation, format!("the server's message cannot be read: {e}")))
}

// Subscriptions.

pub(super) fn subscription_spec(s: &SubscriptionSpec) -> v1::SubscriptionSpec {
    let (start_at, start_seq, start_time_ms) = match s.start_at {
        None => (v1::StartAt::Unspecified, 0, 0),
        Some(StartAt::New) => (v1::StartAt::New, 0, 0),
        Some(StartAt::All) => (v1::StartAt::All, 0, 0),
        Some(StartAt::Sequence(seq)) => (v1::StartAt::Sequence, seq, 0),
        Some(StartAt::Time(at)) => (v1::StartAt::Time, 0, at.0),
    };
    let dead_letters = match s.dead_letters {
        None => v1::DeadLetterPolicy::Unspecified,
        Some(DeadLetterPolicy::Keep) => v1::DeadLetterPolicy::Keep,
        Some(DeadLetterPolicy::Drop) => v1::DeadLetterPolicy::Drop,
    };
    v1::SubscriptionSpec {
        name: s.name.clone(),
        filters: s.filters.clone(),
        ack_wait_ms: s.ack_wait.map_or(0, millis),
        retry_schedule_ms: s.retry_schedule.iter().copied().map(millis).collect(),
        max_attempts: s.max_attempts.unwrap_or_default(),
        dead_letters: dead_letters as i32,
        max_leased: s.max_leased.unwrap_or_default(),
        start_at: start_at as i32,
        start_seq,
        start_time_ms,
    }
}

fn spec_from(s: v1::SubscriptionSpec) -> SubscriptionSpec {
    let span = std::time::Duration::from_millis;
    SubscriptionSpec {
        name: s.name,
        filters: s.filters,
        ack_wait: (s.ack_wait_ms != 0).then(|| span(s.ack_wait_ms)),
        retry_schedule: s.retry_schedule_ms.into_iter().map(span).collect(),
        max_attempts: (s.max_attempts != 0).then_some(s.max_attempts),
        dead_letters: match v1::DeadLetterPolicy::try_from(s.dead_letters) {
            Ok(v1::DeadLetterPolicy::Keep) => Some(DeadLetterPolicy::Keep),
            Ok(v1::DeadLetterPolicy::Drop) => Some(DeadLetterPolicy::Drop),
            _ => None,
        },
        max_leased: (s.max_leased != 0).then_some(s.max_leased),
        start_at: match v1::StartAt::try_from(s.start_at) {
            Ok(v1::StartAt::New) => Some(StartAt::New),
            Ok(v1::StartAt::All) => Some(StartAt::All),
            Ok(v1::StartAt::Sequence) => Some(StartAt::Sequence(s.start_seq)),
            Ok(v1::StartAt::Time) => Some(StartAt::Time(Timestamp(s.start_time_ms))),
            _ => None,
        },
    }
}

pub(crate) fn create_subscription(spec: &SubscriptionSpec) -> v1::CreateSubscriptionRequest {
    v1::CreateSubscriptionRequest { spec: Some(subscription_spec(spec)) }
}

pub(crate) fn get_subscription(name: String) -> v1::GetSubscriptionRequest {
    v1::GetSubscriptionRequest { name }
}

pub(crate) fn list_subscriptions(page_size: u32, page_token: String) -> v1::ListSubscriptionsRequest {
    v1::ListSubscriptionsRequest { page_size, page_token }
}

pub(crate) fn delete_subscription(name: String) -> v1::DeleteSubscriptionRequest {
    v1::DeleteSubscriptionRequest { name }
}

pub(crate) fn subscription(operation: &'static str, s: Option<v1::Subscription>) -> Result<SubscriptionInfo> {
    let s = s.ok_or_else(|| missing(operation, "subscription"))?;
    Ok(SubscriptionInfo {
        spec: spec_from(s.spec.ok_or_else(|| missing(operation, "subscription spec"))?),
        created_at: Timestamp(s.created_at_ms),
        created_by: s.created_by,
        floor_seq: s.floor_seq,
        cursor_seq: s.cursor_seq,
        next_seq: s.next_seq,
        leased: s.leased,
        waiting_retry: s.waiting_retry,
        consumers: s.consumers,
        dead_letters: s.dead_letters,
    })
}

// Dead letters.

pub(crate) fn list_dead_letters(
    subscription: String,
    page_size: u32,
    page_token: String,
) -> v1::ListDeadLettersRequest {
    v1::ListDeadLettersRequest { subscription, page_size, page_token }
}

pub(crate) fn get_dead_letter(id: MessageId) -> v1::GetDeadLetterRequest {
    v1::GetDeadLetterRequest { dead_letter_id: id.to_string() }
}

pub(crate) fn redrive_dead_letter(id: MessageId, payload: Option<Bytes>) -> v1::RedriveDeadLetterRequest {
    v1::RedriveDeadLetterRequest { dead_letter_id: id.to_string(), payload }
}

pub(crate) fn discard_dead_letter(id: MessageId) -> v1::DiscardDeadLetterRequest {
    v1::DiscardDeadLetterRequest { dead_letter_id: id.to_string() }
}

pub(crate) fn dead_letter(operation: &'static str, letter: Option<v1::DeadLetter>) -> Result<DeadLetter> {
    let d = letter.ok_or_else(|| missing(operation, "dead letter"))?;
    Ok(DeadLetter {
        id: message_id(operation, &d.dead_letter_id)?,
        subscription: d.subscription,
        message_id: message_id(operation, &d.message_id)?,
        message: envelope(operation, d.message)?,
        from: d.from,
        reason: d.reason,
        last_error: d.last_error,
        attempts: d.attempts,
        stored_at: Timestamp(d.stored_at_ms),
        died_at: Timestamp(d.died_at_ms),
        payload_bytes: d.payload_bytes,
    })
}

// Administration.

pub(crate) fn create_tenant(id: String, name: String) -> v1::CreateTenantRequest {
    v1::CreateTenantRequest { id, name }
}

pub(crate) fn list_tenants(page_size: u32, page_token: String) -> v1::ListTenantsRequest {
    v1::ListTenantsRequest { page_size, page_token }
}

pub(crate) fn tenant(operation: &'static str, tenant: Option<v1::Tenant>) -> Result<Tenant> {
    let t = tenant.ok_or_else(|| missing(operation, "tenant"))?;
    Ok(Tenant { id: t.id, name: t.name, created_at: Timestamp(t.created_at_ms) })
}

pub(crate) fn create_enrolment_key(spec: KeySpec) -> v1::CreateEnrolmentKeyRequest {
    v1::CreateEnrolmentKeyRequest {
        tenant_id: spec.tenant,
        label: spec.label,
        agent_pattern: spec.agent_pattern,
        roles: spec.roles,
        ttl_ms: spec.ttl.map_or(0, millis),
    }
}

pub(crate) fn list_enrolment_keys(page_size: u32, page_token: String) -> v1::ListEnrolmentKeysRequest {
    v1::ListEnrolmentKeysRequest { page_size, page_token }
}

pub(crate) fn enrolment_key(operation: &'static str, key: Option<v1::EnrolmentKey>) -> Result<EnrolmentKey> {
    let k = key.ok_or_else(|| missing(operation, "enrolment key"))?;
    Ok(EnrolmentKey {
        id: k.key_id,
        label: k.label,
        agent_pattern: k.agent_pattern,
        roles: k.roles,
        created_at: Timestamp(k.created_at_ms),
        expires_at: Timestamp(k.expires_at_ms),
        revoked: k.revoked,
    })
}

pub(crate) fn revoke_enrolment_key(key_id: String) -> v1::RevokeEnrolmentKeyRequest {
    v1::RevokeEnrolmentKeyRequest { key_id }
}

pub(crate) fn set_agent_secret(agent_id: String, roles: Vec<String>) -> v1::SetAgentSecretRequest {
    v1::SetAgentSecretRequest { agent_id, roles }
}

pub(crate) fn rotate_signing_key() -> v1::RotateSigningKeyRequest {
    v1::RotateSigningKeyRequest {}
}
