//! Deliberate faults in the fake bus, each of which a conformance scenario must find (ADR 0010).
//!
//! The scenarios are what says that a bus, or a client in any language, is right. So they must notice when one is not: here
//! are buses that lie in one thing each, from [`TABLE`], and [`verdict`] plays the scenarios that should notice.
//!
//! The faults live in a crate of their own, which nothing that is shipped depends on: a feature of `acb-testing` would be
//! switched on for everybody who is built in the same command. They stand between the connections and the routes ([`wire`]),
//! before the log (`log`) or before the clock (`clock`) of an ordinary fake bus.

#![allow(clippy::disallowed_methods, reason = "the bans are the product's: a test kit owns its tasks and its time")]

mod clock;
mod log;
mod table;
pub mod wire;

use std::{fmt::Write as _, path::PathBuf, sync::Arc};

use acb_ports::{Clock, MessageLog};
use acb_testing::{FakeBus, Wrapping};
use acb_testkit::{
    bus::Bus,
    driver::{Fake, Kind, Raw},
    scenario::{Scenario, Stage},
};
use anyhow::{Context as _, Result, bail};

pub use self::{log::LogLie, table::TABLE};

/// Scenarios of different areas. A fault leaves one of them alone at least: it is a lie in one thing, and not a bus that
/// does nothing.
pub const CONTROLS: [&str; 3] = ["discover-by-what-agents-are", "start-at-new", "key-becomes-a-token"];

/// One deliberate fault.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Its name.
    pub name: &'static str,
    /// What the bus does wrong, one sentence.
    pub says: &'static str,
    /// Scenarios that must find it: at least one, and all of them do.
    pub finds: &'static [&'static str],
    /// Makes it, for one bus.
    pub lie: fn() -> Lie,
}

/// How a bus lies.
#[derive(Debug)]
pub enum Lie {
    /// In what it is told or tells.
    Wire(Vec<wire::Edit>),
    /// In what it keeps.
    Log(LogLie),
    /// About the time.
    Clock,
}

#[derive(Debug)]
struct Lying {
    edits: Option<Arc<[wire::Edit]>>,
    log: Option<log::Liar>,
    clock: bool,
}

impl Lying {
    fn new(lie: Lie) -> Self {
        match lie {
            Lie::Wire(edits) => Self { edits: Some(edits.into()), log: None, clock: false },
            Lie::Log(lie) => Self { edits: None, log: Some(log::Liar::new(lie)), clock: false },
            Lie::Clock => Self { edits: None, log: None, clock: true },
        }
    }
}

impl Wrapping for Lying {
    fn log(&self, inner: Arc<dyn MessageLog>) -> Arc<dyn MessageLog> {
        self.log.as_ref().map_or(Arc::clone(&inner), |liar| liar.around(inner))
    }

    fn clock(&self, inner: Arc<dyn Clock>) -> Arc<dyn Clock> {
        if self.clock { Arc::new(clock::WallClock::new(inner)) } else { inner }
    }

    fn routes(&self) -> Option<acb_testing::RouteLayer> {
        let edits = Arc::clone(self.edits.as_ref()?);
        Some(Arc::new(move |routes| wire::around(routes, Arc::clone(&edits))))
    }
}

/// Plays a scenario on a bus of its own that lies. `Err` is what the scenario found.
///
/// # Errors
/// What was not as the scenario says.
pub async fn play(lie: Lie, scenario: &Scenario) -> Result<()> {
    play_with(Arc::new(Fake), lie, scenario).await
}

async fn play_with(kind: Arc<dyn Kind>, lie: Lie, scenario: &Scenario) -> Result<()> {
    let bus = Bus::fake(FakeBus::builder().wrapped(Arc::new(Lying::new(lie)))).await?;
    Stage::on(bus).await?.play(scenario, &kind, std::slice::from_ref(&scenario.name)).await
}

/// What a scenario finds of a fault, by the Rust client, or by raw gRPC: our client checks names and topics itself, so of a
/// bus that takes bad ones only those see anything who have no such client.
async fn finds(fault: &Fault, scenario: &Scenario) -> Option<String> {
    let by_client = play((fault.lie)(), scenario).await.err();
    let found = match by_client {
        Some(found) => Some(found),
        None if Raw.runs(scenario) => play_with(Arc::new(Raw), (fault.lie)(), scenario).await.err(),
        None => None,
    };
    found.map(|found| format!("{found:#}"))
}

/// Who found a fault.
#[derive(Debug)]
pub struct Verdict {
    /// The fault.
    pub fault: &'static Fault,
    /// Scenarios that failed, with what they said.
    pub found: Vec<(&'static str, String)>,
}

/// Puts a fault into buses and plays the scenarios that must find it, then those that it must leave alone.
///
/// # Errors
/// When a scenario that must find it passes, or when nothing works any more.
pub async fn verdict(fault: &'static Fault, scenarios: &[Scenario]) -> Result<Verdict> {
    let named = |name: &str| {
        scenarios.iter().find(|s| s.name == name).with_context(|| format!("{}: no scenario {name}", fault.name))
    };
    let mut found = Vec::new();
    for name in fault.finds {
        match finds(fault, named(name)?).await {
            None => bail!("{}: {name} passes, though {}", fault.name, fault.says),
            Some(text) => found.push((*name, text)),
        }
    }
    let mut alone = 0;
    for name in CONTROLS {
        alone += usize::from(play((fault.lie)(), named(name)?).await.is_ok());
    }
    if alone == 0 {
        bail!("{}: nothing works any more, so anything would find it", fault.name);
    }
    Ok(Verdict { fault, found })
}

/// Where the list of faults stands.
pub fn document_path() -> PathBuf {
    // Two folders above this crate. Fixed when it is compiled: tests run where they were built.
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/faults.md")
}

/// The list of faults, for people.
pub fn document() -> String {
    let mut out = format!(
        "<!-- Written by `cargo run --bin acb-faults -- --write`. Do not edit. -->\n\n# Faults that the scenarios find\n\n\
         A suite of scenarios is worth what it notices. Here are {} buses that do one thing wrong each, and scenarios of \
         [conformance.md](conformance.md) that find it; `conformance/faults` plays them (`scripts/run-tests.sh integration`), \
         and `cargo run --bin acb-faults -- --all NAME` shows what else notices.\n\n\
         | Fault | What the bus does wrong | Found by |\n|---|---|---|\n",
        TABLE.len()
    );
    for fault in TABLE.iter() {
        let finds: Vec<String> = fault.finds.iter().map(|name| format!("`{name}`")).collect();
        let _ = writeln!(out, "| `{}` | {} | {} |", fault.name, fault.says, finds.join(", "));
    }
    out
}
