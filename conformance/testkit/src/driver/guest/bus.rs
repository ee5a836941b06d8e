//! The fake bus of another language's package, inside the program that has its clients: what it promises there is what it
//! promises anywhere. Commands to agent 0 are for the bus.

use std::{fmt, sync::Arc, time::Duration};

use serde_json::{Value, json};

use super::process::Process;
use crate::{
    proxy::Way,
    raw::Failure,
    scenario::model::{NetworkAct, ServerAct, Settings},
    wait::PATIENCE,
};

/// What clients of such a program call their endpoint.
pub(super) const ENDPOINT: &str = "fake";
/// Whom commands to the bus go to.
const BUS: u64 = 0;
/// Who looks at messages beside an agent's client: the agent's number with this bit. Agents are counted from 1 on.
const PROBE: u64 = 1 << 62;

/// A fake bus in a program. Ended with the last clone.
#[derive(Clone)]
pub struct GuestBus {
    process: Arc<Process>,
}

impl fmt::Debug for GuestBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestBus").finish_non_exhaustive()
    }
}

impl GuestBus {
    /// Python's, by one of its faces: `async` or `sync`, with settings that are not the defaults.
    ///
    /// # Errors
    /// When the program does not start.
    pub fn python(face: &str, settings: &Settings) -> Result<Self, Failure> {
        let settings: Vec<String> = settings.iter().map(|(path, value)| format!("{path}={value}")).collect();
        let arguments: Vec<&str> = [face, "fake"].into_iter().chain(settings.iter().map(String::as_str)).collect();
        Ok(Self { process: Arc::new(Process::start(&super::python(&arguments))?) })
    }

    pub(super) fn process(&self) -> Arc<Process> {
        Arc::clone(&self.process)
    }

    /// Says something to the bus. Answers with its wall clock, in milliseconds since 1970.
    async fn say(&self, verb: &str, args: Value) -> Result<u64, Failure> {
        let told = self.process.call(BUS, verb, args).await?;
        let wrong = || Failure::own("protocol_error", format!("the bus's answer has no wall_ms: {told}"));
        told["wall_ms"].as_u64().ok_or_else(wrong)
    }

    pub(crate) async fn advance(&self, span: Duration) -> Result<u64, Failure> {
        self.say("advance", json!({"seconds": span.as_secs_f64()})).await
    }

    pub(crate) async fn set_wall(&self, wall_ms: u64) -> Result<u64, Failure> {
        self.say("set_wall", json!({"wall_ms": wall_ms})).await
    }

    pub(crate) async fn act(&self, act: ServerAct) -> Result<(), Failure> {
        let verb = match act {
            ServerAct::Kill => "kill",
            ServerAct::Stop => "stop",
            ServerAct::Start | ServerAct::Restart => "restart",
        };
        self.say(verb, json!({})).await.map(drop)
    }

    pub(crate) async fn network(&self, tenant: &str, agent: &str, act: NetworkAct) -> Result<(), Failure> {
        let (act, way, bytes) = match act {
            NetworkAct::Cut => ("cut", "", 0),
            NetworkAct::Part => ("part", "", 0),
            NetworkAct::Hold => ("hold", "", 0),
            NetworkAct::Mend => ("mend", "", 0),
            NetworkAct::CutAfter(Way::Up, bytes) => ("cut_after", "up", bytes),
            NetworkAct::CutAfter(Way::Down, bytes) => ("cut_after", "down", bytes),
        };
        let args = json!({"tenant": tenant, "agent": agent, "act": act, "way": way, "bytes": bytes});
        self.say("network", args).await.map(drop)
    }

    /// Lets go of what looked at messages beside this agent.
    pub(super) async fn forget(&self, agent: u64) {
        // A program that is gone holds nothing.
        let _ = self.process.call(agent | PROBE, "forget", Value::Null).await;
    }

    /// Where a message stands, as a client of the bus beside this agent is told. Nothing while there is no answer.
    pub(super) async fn standing(&self, agent: u64, tenant: &str, id: &str) -> Value {
        let probe = agent | PROBE;
        let place = json!({
            "endpoint": ENDPOINT, "tenant": tenant, "agent": "probe", "patience": PATIENCE.as_secs_f64(),
        });
        let asked = async {
            self.process.call(probe, "place", place).await?;
            self.process.call(probe, "status", json!({"id": id})).await
        };
        asked.await.map_or(Value::Null, |mut status: Value| status["subscriptions"].take())
    }
}
