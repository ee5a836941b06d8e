//! Watches of agents, and what agents say that they are doing.

use acb_sdk::{AgentActivity, AgentEvent, AgentWatch};
use serde_json::{Value, json};

use super::{
    CoreDriver,
    consume::{MAIN, MOMENT},
    registry::shape,
};
use crate::{
    driver::{Args, args::BAD_SCENARIO},
    raw::Failure,
    wait::patience,
};

/// An event as results show it; nothing for those that only say how far the watch is.
fn shape_event(event: &AgentEvent) -> Option<Value> {
    let (kind, mut shown) = match event {
        AgentEvent::State(agent) => ("state", shape(agent)),
        AgentEvent::Changed(agent) => ("changed", shape(agent)),
        AgentEvent::Presence(agent) => ("presence", shape(agent)),
        AgentEvent::Left(id) => ("left", json!({ "id": id })),
        _ => return None,
    };
    shown["kind"] = kind.into();
    Some(shown)
}

impl CoreDriver {
    pub(super) async fn set_activity(&mut self, args: &Args) -> Result<Value, Failure> {
        let activity = match args.need("activity")?.as_str() {
            "idle" => AgentActivity::Idle,
            "busy" => AgentActivity::Busy,
            "waiting" => AgentActivity::Waiting,
            "blocked" => AgentActivity::Blocked,
            other => return Err(Failure::own(BAD_SCENARIO, format!("no activity is called {other}"))),
        };
        let agents = self.client().await?.agents();
        match args.span("ttl")? {
            Some(ttl) => agents.set_activity_for(activity, ttl).await?,
            None => agents.set_activity(activity).await?,
        }
        Ok(Value::Null)
    }

    pub(super) async fn watch_agents(&mut self, args: &Args) -> Result<Value, Failure> {
        let mut watch = self.client().await?.agents().watch();
        if let Some(id) = args.text("id")? {
            watch = watch.id(id);
        }
        if let Some(kind) = args.text("type")? {
            watch = watch.kind(kind);
        }
        if let Some(location) = args.text("location")? {
            watch = watch.location(location);
        }
        for name in args.texts("capabilities_all")? {
            watch = watch.capability(name);
        }
        let watch = watch.after(args.number_or("after", 0)?).open().await?;
        let name = args.text("session")?.unwrap_or_else(|| MAIN.to_owned());
        self.agent_watches.insert(name, watch);
        Ok(Value::Null)
    }

    fn agent_watch(&mut self, args: &Args) -> Result<&mut AgentWatch, Failure> {
        let name = args.text("session")?.unwrap_or_else(|| MAIN.to_owned());
        let unknown = || Failure::own(BAD_SCENARIO, format!("no watch is called {name}"));
        self.agent_watches.get_mut(&name).ok_or_else(unknown)
    }

    pub(super) async fn agent_events(&mut self, args: &Args) -> Result<Value, Failure> {
        let count = args.number_or("count", 1)? as usize;
        let watch = self.agent_watch(args)?;
        let mut events = Vec::new();
        while events.len() < count {
            match tokio::time::timeout(patience(), watch.next()).await {
                Ok(Some(event)) => events.extend(shape_event(&event?)),
                Ok(None) => return Err(Failure::own("ended", "the watch is over")),
                Err(_) => {
                    let text = format!("{} of {count} events came within {:?}: {events:?}", events.len(), patience());
                    return Err(Failure::own("no_answer", text));
                }
            }
        }
        Ok(json!({"events": events, "revision": watch.revision()}))
    }

    pub(super) async fn no_agent_events(&mut self, args: &Args) -> Result<Value, Failure> {
        let client = self.client().await?;
        client.health().await?;
        client.health().await?;
        let watch = self.agent_watch(args)?;
        loop {
            match tokio::time::timeout(MOMENT, watch.next()).await {
                Err(_) => return Ok(Value::Null),
                Ok(None) => return Err(Failure::own("ended", "the watch is over")),
                Ok(Some(event)) => {
                    if let Some(shown) = shape_event(&event?) {
                        return Err(Failure::own("unexpected_message", shown.to_string()));
                    }
                }
            }
        }
    }
}
