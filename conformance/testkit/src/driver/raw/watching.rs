//! Watches of agents, and what agents say that they are doing.

use std::{collections::VecDeque, fmt, time::Duration};

use acb_proto::v1;
use serde_json::{Value, json};
use tonic::Streaming;

use super::RawDriver;
use crate::{
    driver::{Args, args::BAD_SCENARIO, shape},
    raw::{Failure, answer},
    wait::patience,
};

/// The watch that steps mean when they name none.
const MAIN: &str = "main";
/// What an answer that is on its way has left to go: one connection carries all.
const MOMENT: Duration = Duration::from_millis(10);

/// A watch that is open, and what it said.
pub(super) struct Watch {
    frames: Streaming<v1::WatchAgentsResponse>,
    events: VecDeque<Value>,
    revision: u64,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("revision", &self.revision).finish_non_exhaustive()
    }
}

impl Watch {
    /// Takes one more frame within a time; `false` when none came.
    async fn more(&mut self, span: Duration) -> Result<bool, Failure> {
        match tokio::time::timeout(span, self.frames.message()).await {
            Err(_) => Ok(false),
            Ok(frame) => {
                let frame = frame?.ok_or_else(|| Failure::own("ended", "the watch is over"))?;
                self.events.extend(frame.events.iter().map(shape::agent_event));
                self.revision = frame.revision;
                Ok(true)
            }
        }
    }
}

impl RawDriver {
    pub(super) async fn set_activity(&mut self, args: &Args) -> Result<Value, Failure> {
        let activity = match args.need("activity")?.as_str() {
            "idle" => v1::AgentActivity::Idle,
            "busy" => v1::AgentActivity::Busy,
            "waiting" => v1::AgentActivity::Waiting,
            "blocked" => v1::AgentActivity::Blocked,
            other => return Err(Failure::own(BAD_SCENARIO, format!("no activity is called {other}"))),
        };
        let request = v1::HeartbeatRequest {
            agent_id: self.place.agent.clone(),
            incarnation: self.incarnation,
            activity: activity as i32,
            activity_ttl_ms: args.span("ttl")?.map_or(0, |ttl| ttl.as_millis() as u64),
        };
        answer(self.client().await?.agents().heartbeat(request)).await?;
        Ok(Value::Null)
    }

    pub(super) async fn watch_agents(&mut self, args: &Args) -> Result<Value, Failure> {
        let request = v1::WatchAgentsRequest {
            agent_id: args.text_or_empty("id")?,
            r#type: args.text_or_empty("type")?,
            location: args.text_or_empty("location")?,
            capabilities_all: args.texts("capabilities_all")?,
            after_rev: args.number_or("after", 0)?,
        };
        let frames = answer(self.client().await?.agents().watch_agents(request)).await?;
        let name = args.text("session")?.unwrap_or_else(|| MAIN.to_owned());
        self.agent_watches.insert(name, Watch { frames, events: VecDeque::new(), revision: 0 });
        Ok(Value::Null)
    }

    fn agent_watch(&mut self, args: &Args) -> Result<&mut Watch, Failure> {
        let name = args.text("session")?.unwrap_or_else(|| MAIN.to_owned());
        let unknown = || Failure::own(BAD_SCENARIO, format!("no watch is called {name}"));
        self.agent_watches.get_mut(&name).ok_or_else(unknown)
    }

    pub(super) async fn agent_events(&mut self, args: &Args) -> Result<Value, Failure> {
        let count = args.number_or("count", 1)? as usize;
        let watch = self.agent_watch(args)?;
        while watch.events.len() < count {
            if !watch.more(patience()).await? {
                let text = format!("{} of {count} events came: {:?}", watch.events.len(), watch.events);
                return Err(Failure::own("no_answer", text));
            }
        }
        let events: Vec<Value> = watch.events.drain(..count).collect();
        Ok(json!({"events": events, "revision": watch.revision}))
    }

    pub(super) async fn no_agent_events(&mut self, args: &Args) -> Result<Value, Failure> {
        self.health().await?;
        self.health().await?;
        let watch = self.agent_watch(args)?;
        while watch.more(MOMENT).await? {}
        match watch.events.front() {
            None => Ok(Value::Null),
            Some(event) => Err(Failure::own("unexpected_message", event.to_string())),
        }
    }
}
