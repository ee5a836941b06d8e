//! Agents and subscriptions.

use acb_sdk::{
    Agent, AgentCapability, AgentStatus, DeadLetterPolicy, StartAt, SubscriptionInfo, SubscriptionSpec, Timestamp,
};
use serde_json::{Value, json};

use super::CoreDriver;
use crate::{
    driver::{Args, args::BAD_SCENARIO},
    raw::Failure,
};

pub(super) fn shape(agent: &Agent) -> Value {
    let spec = &agent.spec;
    let capability = |c: &AgentCapability| json!({"name": c.name, "version": c.version, "input_schema": c.input_schema, "output_schema": c.output_schema});
    json!({
        "id": spec.id, "type": spec.kind, "name": spec.name, "description": spec.description,
        "version": spec.version, "location": spec.location, "endpoint": spec.endpoint, "groups": spec.groups,
        "metadata": spec.metadata, "capabilities": spec.capabilities.iter().map(capability).collect::<Vec<_>>(),
        "incarnation": agent.incarnation, "status": agent.status.name(), "presence": agent.presence.name(),
        "activity": agent.activity.map_or("", acb_sdk::AgentActivity::name), "activity_until_ms": agent.activity_until.0,
        "registered_at_ms": agent.registered_at.0, "updated_at_ms": agent.updated_at.0,
        "last_seen_at_ms": agent.last_seen_at.0, "revision": agent.revision,
    })
}

fn shape_subscription(s: &SubscriptionInfo) -> Value {
    let parts = s.spec.parts();
    let policy = match parts.dead_letters {
        Some(DeadLetterPolicy::Drop) => "drop",
        _ => "keep",
    };
    let ms = |span: std::time::Duration| span.as_millis() as u64;
    json!({
        "name": s.spec.name(), "filters": s.spec.filters(), "ack_wait_ms": parts.ack_wait.map(ms),
        "retry_schedule_ms": parts.retry_schedule.iter().map(|s| ms(*s)).collect::<Vec<_>>(),
        "max_attempts": parts.max_attempts, "max_leased": parts.max_leased, "policy": policy,
        "created_by": s.created_by, "created_at_ms": s.created_at.0, "floor_seq": s.floor_seq,
        "cursor_seq": s.cursor_seq, "next_seq": s.next_seq, "leased": s.leased, "waiting_retry": s.waiting_retry,
        "consumers": s.consumers, "dead_letters": s.dead_letters,
    })
}

/// A subscription's definition as a step gives it.
pub(super) fn definition(args: &Args, mut spec: SubscriptionSpec) -> Result<SubscriptionSpec, Failure> {
    if let Some(wait) = args.span("ack_wait")? {
        spec = spec.ack_wait(wait);
    }
    if args.has("retry") {
        spec = spec.retry_schedule(args.spans("retry")?);
    }
    if args.has("max_attempts") {
        spec = spec.max_attempts(args.small_or("max_attempts", 0)?);
    }
    if args.has("max_leased") {
        spec = spec.max_leased(args.small_or("max_leased", 0)?);
    }
    match args.text("dead_letters")?.as_deref() {
        Some("drop") => spec = spec.dead_letters(DeadLetterPolicy::Drop),
        Some(_) => spec = spec.dead_letters(DeadLetterPolicy::Keep),
        None => {}
    }
    Ok(match args.text("start")?.as_deref() {
        None => spec,
        Some("new") => spec.start_at(StartAt::New),
        Some("all") => spec.start_at(StartAt::All),
        Some("sequence") => spec.start_at(StartAt::Sequence(args.number_or("seq", 0)?)),
        Some("time") => spec.start_at(StartAt::Time(Timestamp(args.number_or("time", 0)?))),
        Some(other) => return Err(Failure::own(BAD_SCENARIO, format!("no start is called {other}"))),
    })
}

fn capability(value: &Value) -> AgentCapability {
    let part = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    match value.as_str() {
        Some(name) => AgentCapability::new(name),
        None => AgentCapability::new(part("name"))
            .version(part("version"))
            .input_schema(part("input_schema"))
            .output_schema(part("output_schema")),
    }
}

/// Sets what a step gives, and only that.
macro_rules! set {
    ($builder:ident, $args:ident, $wanted:expr) => {
        let wanted = $wanted;
        for (field, value) in [
            ("type", $args.text("type")?),
            ("name", $args.text("name")?),
            ("description", $args.text("description")?),
            ("version", $args.text("version")?),
            ("location", $args.text("location")?),
            ("endpoint", $args.text("endpoint")?),
        ] {
            let Some(text) = value.filter(|_| wanted(field)) else { continue };
            $builder = match field {
                "type" => $builder.kind(text),
                "name" => $builder.name(text),
                "description" => $builder.description(text),
                "version" => $builder.version(text),
                "location" => $builder.location(text),
                _ => $builder.endpoint(text),
            };
        }
        for value in $args.list("capabilities")?.iter().filter(|_| wanted("capabilities")) {
            $builder = $builder.capability(capability(value));
        }
        for group in $args.texts("groups")?.into_iter().filter(|_| wanted("groups")) {
            $builder = $builder.group(group);
        }
        for (name, value) in $args.pairs("metadata")?.into_iter().filter(|_| wanted("metadata")) {
            $builder = $builder.metadata(name, value);
        }
    };
}

impl CoreDriver {
    pub(super) fn own_or(&self, args: &Args, name: &str) -> Result<String, Failure> {
        Ok(args.text(name)?.unwrap_or_else(|| self.place.agent.clone()))
    }

    pub(super) async fn register(&mut self, args: &Args) -> Result<Value, Failure> {
        let id = self.own_or(args, "id")?;
        let mut builder = self.client().await?.agents().register(id);
        set!(builder, args, |_: &str| true);
        Ok(shape(&builder.await?))
    }

    pub(super) async fn get_agent(&mut self, args: &Args) -> Result<Value, Failure> {
        let id = self.own_or(args, "id")?;
        Ok(shape(&self.client().await?.agents().get(id).await?))
    }

    pub(super) async fn update_agent(&mut self, args: &Args) -> Result<Value, Failure> {
        let (id, fields) = (self.own_or(args, "id")?, args.texts("fields")?);
        let mut builder = self.client().await?.agents().update(id);
        set!(builder, args, |field: &str| fields.is_empty() || fields.iter().any(|f| f == field));
        Ok(shape(&builder.await?))
    }

    pub(super) async fn unregister(&mut self, args: &Args) -> Result<Value, Failure> {
        let id = self.own_or(args, "id")?;
        let agents = self.client().await?.agents();
        if args.flag("keep_inbox")? {
            agents.unregister_keeping_inbox(id).await?;
        } else {
            agents.unregister(id).await?;
        }
        Ok(Value::Null)
    }

    pub(super) async fn heartbeat(&mut self) -> Result<Value, Failure> {
        let next = self.client().await?.agents().heartbeat().await?;
        Ok(json!({ "next_within_ms": next.as_millis() as u64 }))
    }

    pub(super) async fn discover(&mut self, args: &Args) -> Result<Value, Failure> {
        let mut search = self.client().await?.agents().discover();
        if let Some(kind) = args.text("type")? {
            search = search.kind(kind);
        }
        if let Some(location) = args.text("location")? {
            search = search.location(location);
        }
        for name in args.texts("capabilities_all")? {
            search = search.capability(name);
        }
        for name in args.texts("capabilities_any")? {
            search = search.any_capability(name);
        }
        for (name, value) in args.pairs("metadata")? {
            search = search.metadata(name, value);
        }
        if let Some(text) = args.text("text")? {
            search = search.text(text);
        }
        search = match args.text("status")?.as_deref() {
            None => search,
            Some("online") => search.status(AgentStatus::Online),
            Some("offline") => search.status(AgentStatus::Offline),
            Some(_) => search.status(AgentStatus::Unknown),
        };
        let page = search.page(args.small_or("page_size", 0)?, args.text_or_empty("page_token")?).await?;
        let agents: Vec<Value> = page.items.iter().map(shape).collect();
        let ids: Vec<&Value> = agents.iter().map(|a| &a["id"]).collect();
        Ok(json!({"ids": ids, "agents": agents, "next_page_token": page.next.unwrap_or_default()}))
    }

    pub(super) async fn create_subscription(&mut self, args: &Args) -> Result<Value, Failure> {
        let mut spec = SubscriptionSpec::new(args.text_or_empty("name")?);
        for filter in args.texts("filters")? {
            spec = spec.filter(filter);
        }
        let spec = definition(args, spec)?;
        let created = self.client().await?.subscriptions().create(spec).await?;
        let mut shown = shape_subscription(&created.subscription);
        shown["existed"] = created.existed.into();
        Ok(shown)
    }

    pub(super) async fn get_subscription(&mut self, args: &Args) -> Result<Value, Failure> {
        let name = args.need("name")?;
        Ok(shape_subscription(&self.client().await?.subscriptions().get(name).await?))
    }

    pub(super) async fn list_subscriptions(&mut self, args: &Args) -> Result<Value, Failure> {
        let (size, token) = (args.small_or("page_size", 0)?, args.text_or_empty("page_token")?);
        let page = self.client().await?.subscriptions().page(size, token).await?;
        let subscriptions: Vec<Value> = page.items.iter().map(shape_subscription).collect();
        let names: Vec<&Value> = subscriptions.iter().map(|s| &s["name"]).collect();
        Ok(json!({"names": names, "subscriptions": subscriptions, "next_page_token": page.next.unwrap_or_default()}))
    }

    pub(super) async fn delete_subscription(&mut self, args: &Args) -> Result<Value, Failure> {
        let name = args.need("name")?;
        self.client().await?.subscriptions().delete(name).await?;
        Ok(Value::Null)
    }
}
