//! Runs a scenario: in one tenant, or in several at once and in step.
//!
//! With several tenants each step is done in all of them together, under the same ids and names, and only then comes the
//! next: so the server's one clock, and its end, are the same moment for all, and whatever crosses the wall between them
//! shows as a foreign mark in a payload, as a count that is not right, or as a name that is taken.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use acb_proto::v1;
use anyhow::{Context as _, Result, anyhow, bail};
use futures_util::future::join_all;
use serde_json::Value;

use super::{
    matching,
    model::{Action, NetworkAct, Outcome, Scenario, ServerAct, Settings, Step},
    scope::Scope,
};
use crate::{
    bus::{Bus, BusKind, Line},
    driver::{Args, Driver, Kind, Mark, Place, WorldClock},
    raw::{Failure, Identity, RawClient, Reach, answer},
    wait::patience,
};

/// Wait between two tries of an `until`.
const TRY_AGAIN: Duration = Duration::from_millis(10);

/// A bus, and the time on it.
#[derive(Debug)]
pub struct Stage {
    bus: Bus,
    clock: WorldClock,
    /// By how much a scenario has set the wall clock off; put right when it is over.
    jumped_ms: i64,
    running: bool,
}

impl Stage {
    /// A new bus of a kind, with these settings and a clock that stands.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn new(kind: BusKind, settings: &Settings) -> Result<Self> {
        Self::on(Bus::start(kind, settings).await?).await
    }

    /// A bus that is there, whose clock stands.
    ///
    /// # Errors
    /// When it does not tell the time.
    pub async fn on(bus: Bus) -> Result<Self> {
        let mut stage = Self { bus, clock: WorldClock::default(), jumped_ms: 0, running: true };
        stage.advance(Duration::ZERO).await?;
        Ok(stage)
    }

    async fn advance(&mut self, span: Duration) -> Result<()> {
        self.clock.set(self.bus.advance(span).await?);
        Ok(())
    }

    /// Sets the wall clock off, forward or back; no time passes by it.
    async fn jump(&mut self, ms: i64) -> Result<()> {
        let wall = self.clock.now_ms().checked_add_signed(ms).context("a jump to before 1970")?;
        self.clock.set(self.bus.set_wall(wall).await?);
        self.jumped_ms += ms;
        Ok(())
    }

    async fn act(&mut self, act: ServerAct) -> Result<()> {
        self.bus.act(act, self.clock.now_ms()).await?;
        self.running = matches!(act, ServerAct::Start | ServerAct::Restart);
        Ok(())
    }

    /// Plays a scenario in these tenants at once, and puts the bus as the next one wants to find it.
    ///
    /// # Errors
    /// As [`Self::play`].
    pub async fn run(&mut self, scenario: &Scenario, kind: &Arc<dyn Kind>, tenants: &[String]) -> Result<()> {
        self.play(scenario, kind, tenants).await?;
        self.put_right().await?;
        for tenant in tenants {
            self.sweep(scenario, tenant).await.with_context(|| format!("sweeping up after {}", scenario.name))?;
        }
        Ok(())
    }

    /// Plays a scenario in a tenant that no other will be played in, so that nothing needs to be swept up.
    ///
    /// # Errors
    /// As [`Self::play`].
    pub async fn play_alone(&mut self, scenario: &Scenario, kind: &Arc<dyn Kind>, tenant: &str) -> Result<()> {
        let played = self.play(scenario, kind, &[tenant.to_owned()]).await;
        self.put_right().await?;
        played
    }

    /// Starts a bus that was stopped, and sets its clock right.
    async fn put_right(&mut self) -> Result<()> {
        if !self.running {
            self.act(ServerAct::Start).await?;
        }
        if self.jumped_ms != 0 {
            self.jump(-self.jumped_ms).await?;
        }
        Ok(())
    }

    /// Plays a scenario in these tenants at once.
    ///
    /// # Errors
    /// What was not as the scenario says: step, expectation and result, with the end of the server's log.
    pub async fn play(&mut self, scenario: &Scenario, kind: &Arc<dyn Kind>, tenants: &[String]) -> Result<()> {
        let mut worlds = Vec::new();
        for tenant in tenants {
            worlds.push(World::new(scenario, Arc::clone(kind), tenant, self).await?);
        }
        for (at, step) in scenario.steps.iter().enumerate() {
            if let Err(error) = self.step(step, &mut worlds).await {
                let text = format!("{} with {}, step {} {}", scenario.name, kind.name(), at + 1, step.text);
                return Err(anyhow!("{text}\n  {error:#}\n{}", self.bus.log_tail()));
            }
        }
        Ok(())
    }

    async fn step(&mut self, step: &Step, worlds: &mut [World]) -> Result<()> {
        match &step.action {
            Action::Advance(span) => self.advance(*span).await,
            Action::Jump(ms) => self.jump(*ms).await,
            Action::Server(act) => {
                self.act(*act).await?;
                for driver in worlds.iter_mut().flat_map(|w| w.drivers.values_mut()) {
                    driver.server_gone().await;
                }
                Ok(())
            }
            Action::Network(act, agent) => {
                for world in worlds.iter_mut() {
                    world.network(*act, agent).await?;
                }
                Ok(())
            }
            Action::Call { agent, verb, args } => {
                let calls = worlds.iter_mut().map(|world| world.call(agent, verb, args, step));
                for (outcome, world) in join_all(calls).await.into_iter().zip(&*worlds) {
                    outcome.with_context(|| format!("in tenant {}", world.tenant))?;
                }
                Ok(())
            }
        }
    }

    /// Takes away what a scenario left in a tenant, so that the next finds it empty.
    async fn sweep(&self, scenario: &Scenario, tenant: &str) -> Result<(), Failure> {
        let identity = Identity::dev(tenant, "sweeper");
        let client = RawClient::connect_over(&self.bus.reach(), &identity).await?;
        loop {
            let all = v1::ListSubscriptionsRequest { page_size: 500, ..Default::default() };
            let page = answer(client.subscriptions().list_subscriptions(all)).await?;
            for name in page.subscriptions.into_iter().filter_map(|s| s.spec).map(|s| s.name) {
                answer(client.subscriptions().delete_subscription(v1::DeleteSubscriptionRequest { name })).await?;
            }
            if page.next_page_token.is_empty() {
                break;
            }
        }
        // What is private is shown to its owner alone.
        for agent in scenario.agents() {
            self.sweep_contexts(tenant, agent).await?;
        }
        let all = v1::ListGroupsRequest { page_size: 500, ..Default::default() };
        for name in answer(client.admin().list_groups(all)).await?.groups.into_iter().map(|g| g.name) {
            answer(client.admin().delete_group(v1::DeleteGroupRequest { name })).await?;
        }
        loop {
            let all = v1::DiscoverAgentsRequest { page_size: 500, ..Default::default() };
            let page = answer(client.agents().discover_agents(all)).await?;
            for agent_id in page.agents.into_iter().filter_map(|a| a.spec).map(|s| s.id) {
                let request = v1::UnregisterAgentRequest { agent_id, keep_inbox: false };
                answer(client.agents().unregister_agent(request)).await?;
            }
            if page.next_page_token.is_empty() {
                return Ok(());
            }
        }
    }
}

/// Longest page of contexts.
const PAGE: u32 = 500;

impl Stage {
    /// Takes away the contexts of an agent.
    async fn sweep_contexts(&self, tenant: &str, agent: &str) -> Result<(), Failure> {
        let client = RawClient::connect_over(&self.bus.reach(), &Identity::dev(tenant, agent)).await?;
        loop {
            let all = v1::ListContextsRequest { owner: agent.to_owned(), page_size: PAGE, ..Default::default() };
            let page = answer(client.contexts().list_contexts(all)).await?;
            if page.contexts.is_empty() {
                return Ok(());
            }
            for context_id in page.contexts.into_iter().map(|c| c.id) {
                let request = v1::DeleteContextRequest { context_id, force: true, if_rev: 0 };
                answer(client.contexts().delete_context(request)).await?;
            }
        }
    }
}

/// One tenant of a run.
#[derive(Debug)]
struct World {
    tenant: String,
    kind: Arc<dyn Kind>,
    reach: Reach,
    raw_only: bool,
    clock: WorldClock,
    drivers: BTreeMap<String, Box<dyn Driver>>,
    lines: BTreeMap<String, Line>,
    scope: Scope,
}

impl World {
    async fn new(scenario: &Scenario, kind: Arc<dyn Kind>, tenant: &str, stage: &Stage) -> Result<Self> {
        let mut lines = BTreeMap::new();
        for agent in scenario.proxied() {
            lines.insert(agent.to_owned(), stage.bus.line(tenant, agent).await?);
        }
        let mut scope = Scope::default();
        scope.set("tenant", tenant.into());
        Ok(Self {
            tenant: tenant.to_owned(),
            kind,
            reach: stage.bus.reach(),
            raw_only: !scenario.runs_with("core"),
            clock: stage.clock.clone(),
            drivers: BTreeMap::new(),
            lines,
            scope,
        })
    }

    async fn network(&mut self, act: NetworkAct, agent: &str) -> Result<()> {
        self.lines.get(agent).with_context(|| format!("{agent} has no line of its own"))?.act(act).await
    }

    fn driver(&mut self, agent: &str) -> &mut Box<dyn Driver> {
        let place = || Place {
            reach: self.lines.get(agent).map_or_else(|| self.reach.clone(), Line::reach),
            raw_only: self.raw_only,
            tenant: self.tenant.clone(),
            agent: agent.to_owned(),
            mark: Mark::new(&self.tenant),
            clock: self.clock.clone(),
        };
        self.drivers.entry(agent.to_owned()).or_insert_with(|| self.kind.driver(place()))
    }

    async fn call(
        &mut self,
        agent: &str,
        verb: &str,
        args: &serde_json::Map<String, Value>,
        step: &Step,
    ) -> Result<()> {
        self.scope.set("now_ms", self.clock.now_ms().into());
        let args = Args::from(self.scope.fill_map(args)?);
        let started = Instant::now();
        let result = loop {
            let result = self.driver(agent).call(verb, &args).await;
            let wrong = match &step.outcome {
                Outcome::Until(wanted) => {
                    let wrong = wrong(&Outcome::Expect(self.scope.fill(wanted)?), &result);
                    if wrong.is_some() && started.elapsed() < patience() {
                        tokio::time::sleep(TRY_AGAIN).await;
                        continue;
                    }
                    wrong
                }
                Outcome::Expect(wanted) => wrong(&Outcome::Expect(self.scope.fill(wanted)?), &result),
                error @ Outcome::Error(_) => wrong(error, &result),
            };
            match wrong {
                Some(wrong) => bail!("{wrong}"),
                None => break result,
            }
        };
        if let Ok(result) = &result {
            for (name, path) in &step.save {
                self.scope.save(name, result, path)?;
            }
        }
        Ok(())
    }
}

/// What is wrong with the outcome of a call.
fn wrong(wanted: &Outcome, result: &Result<Value, Failure>) -> Option<String> {
    match (wanted, result) {
        (Outcome::Expect(wanted) | Outcome::Until(wanted), Ok(result)) => matching::differs(wanted, result)
            .map(|wrong| format!("{wrong}\n  the whole result: {}", matching::short(result))),
        (Outcome::Expect(_) | Outcome::Until(_), Err(failure)) => Some(format!("it failed: {failure}")),
        (Outcome::Error(code), Err(failure)) if *code == failure.code => None,
        (Outcome::Error(code), Err(failure)) => Some(format!("it failed with {failure}, not with {code}")),
        (Outcome::Error(code), Ok(result)) => Some(format!("it did not fail with {code}: {result}")),
    }
}
