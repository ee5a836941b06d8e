//! Drivers: what a scenario's words mean for one kind of client.
//!
//! Every driver does the same verbs with the same named values and gives the same results, as JSON: so one set of
//! scenarios tells every client, in every language, what to do. What a driver promises beyond its client: a call that
//! returned was *taken* by the server (a nack that returned will not be overtaken by the next step), and a consumer
//! whose connection broke is there again, resumed, when it is next asked.

pub mod args;
pub mod content;
mod core;
mod fake;
mod guest;
mod mark;
mod raw;
pub mod shape;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use serde_json::Value;

pub use self::{
    args::Args,
    core::Core,
    fake::Fake,
    guest::{Guest, GuestBus},
    mark::Mark,
    raw::Raw,
};
use crate::{
    bus::BusKind,
    raw::{Failure, Reach},
    scenario::model::Scenario,
};

/// The server's wall clock, as far as the test moved it.
#[derive(Clone, Debug, Default)]
pub struct WorldClock(Arc<AtomicU64>);

impl WorldClock {
    /// Sets it, in milliseconds since 1970.
    pub fn set(&self, wall_ms: u64) {
        self.0.store(wall_ms, Ordering::SeqCst);
    }

    /// What it shows.
    pub fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// A point so far ahead.
    pub fn after(&self, span: Duration) -> u64 {
        self.now_ms() + span.as_millis() as u64
    }
}

/// Where and as whom an agent of a scenario acts.
#[derive(Clone, Debug)]
pub struct Place {
    /// How it connects.
    pub reach: Reach,
    /// Whether the scenario is one that only raw clients can run.
    pub raw_only: bool,
    /// Its tenant.
    pub tenant: String,
    /// Its id.
    pub agent: String,
    /// The mark of its world.
    pub mark: Mark,
    /// The server's clock.
    pub clock: WorldClock,
}

/// One agent of a scenario.
#[async_trait]
pub trait Driver: Send + fmt::Debug {
    /// Does what a verb says. Results and failures are those of [`crate::scenario::verbs::VERBS`].
    async fn call(&mut self, verb: &str, args: &Args) -> Result<Value, Failure>;

    /// The server was killed or stopped: what was connected is not any more.
    async fn server_gone(&mut self);
}

/// A kind of client.
pub trait Kind: Send + Sync + fmt::Debug {
    /// Its name, as scenarios and tables have it.
    fn name(&self) -> &'static str;

    /// An agent of that kind. Connects when it is first asked for something.
    fn driver(&self, place: Place) -> Box<dyn Driver>;

    /// Which bus it runs against.
    fn bus(&self) -> BusKind {
        BusKind::Process
    }

    /// Whether it can run a scenario.
    fn runs(&self, scenario: &Scenario) -> bool {
        scenario.runs_with(self.name())
    }
}

/// Every kind of client that there is here.
pub fn kinds() -> Vec<Arc<dyn Kind>> {
    let mut all: Vec<Arc<dyn Kind>> = vec![Arc::new(Raw), Arc::new(Core)];
    all.extend(Guest::python().map(|face| Arc::new(face) as Arc<dyn Kind>));
    all.push(Arc::new(Fake));
    all
}
