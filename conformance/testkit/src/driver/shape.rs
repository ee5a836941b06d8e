//! Results as JSON, in the spelling of the wire contract.

use acb_proto::v1;
use acb_types::{Attributes, Durability, ErrorCode, MessageKind, Priority};
use serde_json::{Map, Value, json};

use super::mark::Mark;
use crate::raw::{Delivered, Failure, Outcome, Stored};

/// An agent.
pub fn agent(agent: &v1::Agent) -> Value {
    let spec = agent.spec.clone().unwrap_or_default();
    let status = match agent.status() {
        v1::AgentStatus::Online => "online",
        v1::AgentStatus::Offline => "offline",
        v1::AgentStatus::Unknown => "unknown",
        v1::AgentStatus::Unspecified => "unspecified",
    };
    let capability = |c: &v1::AgentCapability| json!({"name": c.name, "version": c.version, "input_schema": c.input_schema, "output_schema": c.output_schema});
    json!({
        "id": spec.id, "type": spec.r#type, "name": spec.name, "description": spec.description,
        "version": spec.version, "location": spec.location, "endpoint": spec.endpoint, "groups": spec.groups,
        "metadata": spec.metadata, "capabilities": spec.capabilities.iter().map(capability).collect::<Vec<_>>(),
        "presence": presence(agent), "activity": activity(agent), "activity_until_ms": agent.activity_until_ms,
        "incarnation": agent.incarnation, "status": status, "registered_at_ms": agent.registered_at_ms,
        "updated_at_ms": agent.updated_at_ms, "last_seen_at_ms": agent.last_seen_at_ms, "revision": agent.revision,
    })
}

fn presence(agent: &v1::Agent) -> &'static str {
    match agent.presence() {
        v1::AgentPresence::Active => "active",
        v1::AgentPresence::Suspect => "suspect",
        v1::AgentPresence::Offline => "offline",
        v1::AgentPresence::Unknown => "unknown",
        v1::AgentPresence::Expired => "expired",
        v1::AgentPresence::Unspecified => "unspecified",
    }
}

fn activity(agent: &v1::Agent) -> &'static str {
    match agent.activity() {
        v1::AgentActivity::Unspecified => "",
        v1::AgentActivity::Idle => "idle",
        v1::AgentActivity::Busy => "busy",
        v1::AgentActivity::Waiting => "waiting",
        v1::AgentActivity::Blocked => "blocked",
    }
}

/// An event of a watch of agents.
pub fn agent_event(event: &v1::AgentEvent) -> Value {
    let of = event.agent.clone().unwrap_or_default();
    let (kind, mut shown) = match event.kind() {
        v1::AgentEventKind::State => ("state", agent(&of)),
        v1::AgentEventKind::Changed => ("changed", agent(&of)),
        v1::AgentEventKind::Presence => ("presence", agent(&of)),
        v1::AgentEventKind::Left => ("left", json!({ "id": of.spec.unwrap_or_default().id })),
        v1::AgentEventKind::Unspecified => ("unspecified", Value::Object(serde_json::Map::new())),
    };
    shown["kind"] = kind.into();
    shown
}

/// A page of agents.
pub fn agents(page: &v1::DiscoverAgentsResponse) -> Value {
    let agents: Vec<Value> = page.agents.iter().map(agent).collect();
    let ids: Vec<Value> = agents.iter().map(|a| a["id"].clone()).collect();
    json!({"agents": agents, "ids": ids, "next_page_token": page.next_page_token})
}

/// Name of a durability level; empty for none.
pub fn durability(wire: i32) -> &'static str {
    Durability::from_wire(wire).map_or("", Durability::name)
}

/// Where a message was stored.
pub fn stored(stored: &Stored) -> Value {
    json!({
        "message_id": stored.id, "seq": stored.seq, "epoch": stored.epoch,
        "durability": durability(stored.durability), "duplicate": stored.duplicate,
    })
}

/// What became of a message of a stream.
pub fn outcome(outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Stored(s) => stored(s),
        Outcome::Refused(failure) => refusal(failure),
    }
}

/// A refusal inside a result.
pub fn refusal(failure: &Failure) -> Value {
    json!({"code": failure.code, "message": failure.message, "retryable": failure.retryable})
}

/// The parts of a message.
///
/// # Errors
/// When its payload is another world's, or its attributes are none.
pub fn message(m: &v1::Message, mark: &Mark) -> Result<Map<String, Value>, Failure> {
    let name = |n: i32, of: fn(u64) -> Option<&'static str>| u64::try_from(n).ok().and_then(of).unwrap_or("?");
    let attributes = Attributes::from_block(m.attributes.clone())
        .map_err(|e| Failure::own("protocol_error", format!("attributes: {e}")))?;
    let attributes: Map<String, Value> =
        attributes.iter().map(|(k, v)| (k.to_owned(), Value::String(v.to_owned()))).collect();
    let value = json!({
        "topic": m.topic, "payload": mark.open(&m.payload)?,
        "kind": name(m.kind, |n| MessageKind::from_wire(n).map(MessageKind::name)),
        "priority": name(m.priority, |n| Priority::from_wire(n).map(Priority::name)),
        "correlation_id": m.correlation_id, "reply_to": m.reply_to, "key": m.idempotency_key,
        "expires_at_ms": m.expires_at_ms, "order_key": m.order_key, "content_type": m.content_type,
        "context_refs": m.context_refs, "trace": m.trace, "original_topic": m.original_topic,
        "attributes": attributes,
    });
    match value {
        Value::Object(map) => Ok(map),
        _ => Ok(Map::new()),
    }
}

/// A message as it came.
///
/// # Errors
/// As [`message`].
pub fn delivered(d: &Delivered, mark: &Mark) -> Result<Value, Failure> {
    let mut map = message(&d.message, mark)?;
    let facts = json!({
        "message_id": d.id(), "seq": d.seq, "epoch": d.epoch, "attempt": d.attempt, "delivery": d.delivery,
        "redelivered": d.attempt > 1, "stored_at_ms": d.stored_at_ms, "from": d.from,
        "from_incarnation": d.from_incarnation,
    });
    if let Value::Object(facts) = facts {
        map.extend(facts);
    }
    Ok(Value::Object(map))
}

/// A subscription with its counts.
pub fn subscription(s: &v1::Subscription) -> Value {
    let spec = s.spec.clone().unwrap_or_default();
    let dead_letters = match spec.dead_letters() {
        v1::DeadLetterPolicy::Drop => "drop",
        _ => "keep",
    };
    json!({
        "name": spec.name, "filters": spec.filters, "ack_wait_ms": spec.ack_wait_ms,
        "retry_schedule_ms": spec.retry_schedule_ms, "max_attempts": spec.max_attempts,
        "max_leased": spec.max_leased, "policy": dead_letters, "created_by": s.created_by,
        "created_at_ms": s.created_at_ms, "floor_seq": s.floor_seq, "cursor_seq": s.cursor_seq,
        "next_seq": s.next_seq, "leased": s.leased, "waiting_retry": s.waiting_retry, "consumers": s.consumers,
        "dead_letters": s.dead_letters,
    })
}

/// Where a message stands.
pub fn status(s: &v1::GetMessageStatusResponse) -> Value {
    let one = |s: &v1::SubscriptionStatus| {
        let state = match s.state() {
            v1::DeliveryState::Waiting => "waiting",
            v1::DeliveryState::Leased => "leased",
            v1::DeliveryState::Acked => "acked",
            v1::DeliveryState::Dead => "dead",
            v1::DeliveryState::Expired => "expired",
            v1::DeliveryState::Unspecified => "unspecified",
        };
        json!({
            "subscription": s.subscription, "state": state, "attempts": s.attempts, "due_at_ms": s.due_at_ms,
            "dead_letter_id": s.dead_letter_id,
        })
    };
    json!({
        "message_id": s.message_id, "topic": s.topic, "from": s.from, "stored_at_ms": s.stored_at_ms,
        "subscriptions": s.subscriptions.iter().map(one).collect::<Vec<_>>(),
    })
}

/// A dead letter. In lists its message has no payload.
///
/// # Errors
/// As [`message`].
pub fn dead_letter(d: &v1::DeadLetter, whole: bool, mark: &Mark) -> Result<Value, Failure> {
    let inner = match &d.message {
        Some(m) if whole => Value::Object(message(m, mark)?),
        Some(m) => json!({"topic": m.topic, "payload_len": m.payload.len()}),
        None => Value::Null,
    };
    Ok(json!({
        "id": d.dead_letter_id, "subscription": d.subscription, "message_id": d.message_id, "message": inner,
        "from": d.from, "reason": d.reason, "last_error": d.last_error, "attempts": d.attempts,
        "stored_at_ms": d.stored_at_ms, "died_at_ms": d.died_at_ms, "payload_bytes": d.payload_bytes,
    }))
}

/// A context, or its marker.
///
/// # Errors
/// When its payload is another world's.
pub fn context(c: &v1::Context, mark: &Mark) -> Result<Value, Failure> {
    let spec = c.spec.clone().unwrap_or_default();
    let scope = match spec.scope() {
        v1::ContextScope::Shared => "shared",
        v1::ContextScope::Group => "group",
        v1::ContextScope::Public => "public",
        v1::ContextScope::Private | v1::ContextScope::Unspecified => "private",
    };
    let share = |s: &v1::ContextShare| {
        let access = if s.access() == v1::ContextAccess::Write { "write" } else { "read" };
        (s.agent_id.clone(), Value::from(access))
    };
    let payload = if c.payload.is_empty() { Value::Null } else { mark.open(&c.payload)? };
    Ok(json!({
        "id": c.id, "key": spec.key, "type": spec.r#type, "scope": scope, "groups": spec.groups,
        "shares": Value::Object(spec.shares.iter().map(share).collect()), "content_type": spec.content_type,
        "description": spec.description, "labels": spec.labels, "metadata": spec.metadata, "version": spec.version,
        "owner": c.owner, "rev": c.rev, "size_bytes": c.size_bytes, "expires_at_ms": c.expires_at_ms,
        "created_at_ms": c.created_at_ms, "updated_at_ms": c.updated_at_ms, "updated_by": c.updated_by,
        "deleted": c.deleted, "payload": payload,
    }))
}

/// A pair of tokens.
pub fn tokens(t: &v1::Tokens) -> Value {
    json!({
        "access_token": t.access_token, "access_expires_at_ms": t.access_expires_at_ms,
        "refresh_token": t.refresh_token, "refresh_expires_at_ms": t.refresh_expires_at_ms, "agent_id": t.agent_id,
        "tenant_id": t.tenant_id, "roles": t.roles,
    })
}

/// An enrolment key's facts.
pub fn key(k: &v1::EnrolmentKey) -> Value {
    json!({
        "key_id": k.key_id, "label": k.label, "pattern": k.agent_pattern, "roles": k.roles,
        "created_at_ms": k.created_at_ms, "expires_at_ms": k.expires_at_ms, "revoked": k.revoked,
    })
}

/// Whether the table of errors has a code: a driver that invents one is found.
pub fn known(code: &str) -> bool {
    ErrorCode::ALL.iter().any(|c| c.name() == code)
}
