//! The bus under test: the real server as a process, or the fake bus in this one. Scenarios do not see the difference.

use std::{sync::Arc, time::Duration};

use acb_sdk::Timestamp;
use acb_testing::{FakeBus, FakeBusBuilder, Network, Way as FakeWay};
use anyhow::{Context as _, Result, bail};

use crate::{
    driver::GuestBus,
    proxy::{Proxy, Way},
    raw::Reach,
    scenario::model::{NetworkAct, ServerAct, Settings},
    server::{Server, ServerOptions},
};

/// Which bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusKind {
    /// The server, as a process.
    Process,
    /// The fake, in this process.
    Fake,
}

/// A bus whose clock stands until it is moved.
#[derive(Debug)]
pub enum Bus {
    /// The server, as a process.
    Process(Box<Server>),
    /// The fake, in this process.
    Fake(Box<FakeBus>),
    /// The fake of another language's package, in a program of that language.
    Guest(GuestBus),
}

impl Bus {
    /// A new bus of a kind, with settings that are not the defaults.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(kind: BusKind, settings: &Settings) -> Result<Self> {
        Ok(match kind {
            BusKind::Process => {
                let set = |options: ServerOptions, (path, value)| options.arg("--set").arg(format!("{path}={value}"));
                Self::Process(Box::new(settings.iter().fold(ServerOptions::default(), set).start().await?))
            }
            BusKind::Fake => {
                let set = |builder: FakeBusBuilder, (path, value): (&String, &String)| builder.setting(path, value);
                Self::fake(settings.iter().fold(FakeBus::builder(), set)).await?
            }
        })
    }

    /// A fake one.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn fake(builder: FakeBusBuilder) -> Result<Self> {
        Ok(Self::Fake(Box::new(builder.start().await?)))
    }

    /// How clients reach it.
    pub fn reach(&self) -> Reach {
        match self {
            Self::Process(server) => Reach::Tcp(server.address()),
            Self::Fake(bus) => Reach::Dialer(bus.network().dialer()),
            Self::Guest(bus) => Reach::Guest(bus.clone()),
        }
    }

    /// A way to it for an agent, whose faults the test commands.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn line(&self, tenant: &str, agent: &str) -> Result<Line> {
        Ok(match self {
            Self::Process(server) => Line::Proxy(Proxy::start(server.address()).await?),
            Self::Fake(bus) => Line::Network(bus.network()),
            Self::Guest(bus) => Line::Guest { bus: bus.clone(), tenant: tenant.to_owned(), agent: agent.to_owned() },
        })
    }

    /// Moves its clock on. Answers with its wall clock, in milliseconds since 1970.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn advance(&self, span: Duration) -> Result<u64> {
        match self {
            Self::Process(server) => wall(&server.admin().advance(span).await?),
            Self::Fake(bus) => Ok(bus.advance(span)?.0),
            Self::Guest(bus) => Ok(bus.advance(span).await?),
        }
    }

    /// Sets its wall clock; no time passes by it. Answers with it.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn set_wall(&self, wall_ms: u64) -> Result<u64> {
        match self {
            Self::Process(server) => wall(&server.admin().set_wall(wall_ms).await?),
            Self::Fake(bus) => {
                bus.set_wall(Timestamp(wall_ms))?;
                Ok(bus.now().0)
            }
            Self::Guest(bus) => Ok(bus.set_wall(wall_ms).await?),
        }
    }

    /// Does to it what a scenario says. A start goes on from a wall clock: the machine's outlives the server, the
    /// monotonic one begins anew.
    ///
    /// # Errors
    /// When it does not start or stop as it should.
    pub async fn act(&mut self, act: ServerAct, wall_ms: u64) -> Result<()> {
        match self {
            Self::Process(server) => {
                if matches!(act, ServerAct::Kill | ServerAct::Restart) {
                    server.kill().await?;
                }
                if act == ServerAct::Stop {
                    let status = server.stop().await?;
                    if !status.success() {
                        bail!("the server did not stop in order: {status}\n{}", server.log_tail());
                    }
                }
                if matches!(act, ServerAct::Start | ServerAct::Restart) {
                    server.start_clock_at(wall_ms);
                    server.restart().await?;
                }
            }
            Self::Fake(bus) => match act {
                ServerAct::Kill => bus.kill().await,
                ServerAct::Stop => bus.stop().await,
                ServerAct::Start | ServerAct::Restart => bus.restart().await?,
            },
            Self::Guest(bus) => bus.act(act).await?,
        }
        Ok(())
    }

    /// What it said last, for the message of a failure.
    pub fn log_tail(&self) -> String {
        match self {
            Self::Process(server) => server.log_tail(),
            Self::Fake(_) | Self::Guest(_) => String::new(),
        }
    }
}

fn wall(told: &str) -> Result<u64> {
    let told: serde_json::Value = serde_json::from_str(told).context("the answer of the admin listener")?;
    told["wall_ms"].as_u64().context("the admin listener's answer has no wall_ms")
}

/// A way to a bus whose faults a test commands.
#[derive(Debug)]
pub enum Line {
    /// To a process.
    Proxy(Proxy),
    /// To the fake.
    Network(Network),
    /// To the fake in a program of another language.
    Guest {
        /// The bus.
        bus: GuestBus,
        /// The agent's tenant.
        tenant: String,
        /// Whose way it is.
        agent: String,
    },
}

impl Line {
    /// How clients come this way.
    pub fn reach(&self) -> Reach {
        match self {
            Self::Proxy(proxy) => Reach::Tcp(proxy.address()),
            Self::Network(network) => Reach::Dialer(Arc::new(network.clone())),
            Self::Guest { bus, .. } => Reach::Guest(bus.clone()),
        }
    }

    /// Does to it what a scenario says.
    ///
    /// # Errors
    /// When the program that has the bus does not answer.
    pub async fn act(&self, act: NetworkAct) -> Result<()> {
        match self {
            Self::Proxy(proxy) => match act {
                NetworkAct::Cut => proxy.cut(),
                NetworkAct::Part => {
                    proxy.refuse();
                    proxy.cut();
                }
                NetworkAct::Hold => proxy.hold(),
                NetworkAct::CutAfter(way, bytes) => proxy.cut_after(way, bytes),
                NetworkAct::Mend => proxy.mend(),
            },
            Self::Network(network) => match act {
                NetworkAct::Cut => network.cut(),
                NetworkAct::Part => network.part(),
                NetworkAct::Hold => network.hold(),
                NetworkAct::CutAfter(Way::Up, bytes) => network.cut_after(FakeWay::Up, bytes as usize),
                NetworkAct::CutAfter(Way::Down, bytes) => network.cut_after(FakeWay::Down, bytes as usize),
                NetworkAct::Mend => network.mend(),
            },
            Self::Guest { bus, tenant, agent } => bus.network(tenant, agent, act).await?,
        }
        Ok(())
    }
}
