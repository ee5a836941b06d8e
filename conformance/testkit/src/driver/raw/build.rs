//! From a step's values to messages of the wire contract.

use std::time::Duration;

use acb_proto::v1;
use acb_types::{Attributes, MessageKind, Priority};
use serde_json::Value;

use crate::{
    driver::{
        Place,
        args::{Args, BAD_SCENARIO},
    },
    raw::Failure,
};

fn bad(text: impl Into<String>) -> Failure {
    Failure::own(BAD_SCENARIO, text)
}

pub(super) fn ms(span: Option<Duration>) -> u64 {
    span.map_or(0, |s| s.as_millis() as u64)
}

/// What an agent says of itself. Without an id, its own.
pub(super) fn agent_spec(args: &Args, own: &str) -> Result<v1::AgentSpec, Failure> {
    let capability = |value: &Value| -> Result<v1::AgentCapability, Failure> {
        let part = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(match value {
            Value::String(name) => v1::AgentCapability { name: name.clone(), ..Default::default() },
            Value::Object(_) => v1::AgentCapability {
                name: part("name"),
                version: part("version"),
                input_schema: part("input_schema"),
                output_schema: part("output_schema"),
            },
            other => return Err(bad(format!("a capability is a name or a map, not {other}"))),
        })
    };
    Ok(v1::AgentSpec {
        id: args.text("id")?.unwrap_or_else(|| own.to_owned()),
        r#type: args.text_or_empty("type")?,
        name: args.text_or_empty("name")?,
        description: args.text_or_empty("description")?,
        version: args.text_or_empty("version")?,
        location: args.text_or_empty("location")?,
        capabilities: args.list("capabilities")?.iter().map(capability).collect::<Result<_, _>>()?,
        endpoint: args.text_or_empty("endpoint")?,
        groups: args.texts("groups")?,
        metadata: args.pairs("metadata")?.into_iter().collect(),
    })
}

/// A message: `to`, `all` or `topic` says where.
pub(super) fn message(args: &Args, place: &Place, number: u64) -> Result<v1::Message, Failure> {
    let topic = match (args.text("to")?, args.flag("all")?, args.text("topic")?) {
        (Some(agent), false, None) => format!("$acb.inbox.{agent}"),
        (None, true, None) => "$acb.all".to_owned(),
        (None, false, Some(topic)) => topic,
        (None, false, None) => String::new(),
        _ => return Err(bad("a message goes `to` an agent, to `all` or to a `topic`")),
    };
    let attributes = Attributes::from_pairs(args.pairs("attributes")?).map_err(|e| bad(e.to_string()))?;
    let expires_at_ms = args.span("ttl")?.map_or(0, |ttl| place.clock.after(ttl));
    Ok(v1::Message {
        topic,
        kind: named(args, "kind", &MessageKind::ALL.map(|k| (k.name(), k as i32)))?,
        priority: named(args, "priority", &Priority::ALL.map(|p| (p.name(), p as i32)))?,
        correlation_id: args.text_or_empty("correlation_id")?,
        reply_to: args.text_or_empty("reply_to")?,
        idempotency_key: args.text_or_empty("key")?.replace("{i}", &number.to_string()),
        expires_at_ms,
        not_before_ms: args.span("not_before")?.map_or(0, |span| place.clock.after(span)),
        order_key: args.text_or_empty("order_key")?,
        content_type: args.text_or_empty("content_type")?,
        context_refs: args.texts("context_refs")?,
        trace: args.text_or_empty("trace")?,
        original_topic: String::new(),
        attributes: attributes.as_bytes().clone(),
        payload: place.mark.payload(args, number)?,
    })
}

/// A member of an enum by its name; a number is taken as it is.
fn named(args: &Args, field: &str, names: &[(&str, i32)]) -> Result<i32, Failure> {
    match args.get(field) {
        None => Ok(0),
        Some(Value::Number(n)) => n.as_i64().and_then(|n| n.try_into().ok()).ok_or_else(|| bad(field)),
        Some(_) => {
            let name = args.need(field)?;
            let found = names.iter().find(|(n, _)| *n == name);
            found.map(|(_, wire)| *wire).ok_or_else(|| bad(format!("{field} has no member {name}")))
        }
    }
}

pub(super) fn durability(args: &Args) -> Result<v1::Durability, Failure> {
    use v1::Durability as D;
    Ok(match args.text("durability")?.as_deref() {
        None => D::Unspecified,
        Some("memory") => D::Memory,
        Some("written") => D::Written,
        Some("synced") => D::Synced,
        Some("replicated") => D::Replicated,
        Some(other) => return Err(bad(format!("no durability is called {other}"))),
    })
}

/// A subscription's definition.
pub(super) fn subscription(args: &Args) -> Result<v1::SubscriptionSpec, Failure> {
    use v1::StartAt as S;
    let start = match args.text("start")?.as_deref() {
        None => S::Unspecified,
        Some("new") => S::New,
        Some("all") => S::All,
        Some("sequence") => S::Sequence,
        Some("time") => S::Time,
        Some(other) => return Err(bad(format!("no start is called {other}"))),
    };
    let policy = match args.text("dead_letters")?.as_deref() {
        None => v1::DeadLetterPolicy::Unspecified,
        Some("keep") => v1::DeadLetterPolicy::Keep,
        Some("drop") => v1::DeadLetterPolicy::Drop,
        Some(other) => return Err(bad(format!("no dead-letter policy is called {other}"))),
    };
    Ok(v1::SubscriptionSpec {
        name: args.text_or_empty("name")?,
        filters: args.texts("filters")?,
        ack_wait_ms: ms(args.span("ack_wait")?),
        retry_schedule_ms: args.spans("retry")?.into_iter().map(|s| ms(Some(s))).collect(),
        max_attempts: args.small_or("max_attempts", 0)?,
        dead_letters: policy as i32,
        max_leased: args.small_or("max_leased", 0)?,
        start_at: start as i32,
        start_seq: args.number_or("seq", 0)?,
        start_time_ms: args.number_or("time", 0)?,
    })
}
