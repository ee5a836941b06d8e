//! Publishers: pipelined, one by one, with keys that are repeated, and one that dies with its messages on the way.

use std::sync::Arc;

use acb_sdk::{Client, PublishBuilder, Receipt};
use anyhow::Result;
use async_trait::async_trait;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::{runtime::Runtime, sync::oneshot};

use super::{
    Kind,
    stage::{Stage, durability, payload},
};
use crate::history::Level;

/// Largest filler of a payload, in bytes: some messages of a round share a sector, some span several.
const FILLER_MAX: usize = 600;
/// How often a key is used again: one call in so many.
const REPEAT_ONE_IN: u32 = 4;

/// Where messages go.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// To these topics in turn.
    Topics(Vec<String>),
    /// To one agent's inbox.
    Agent(String),
    /// To all agents.
    Everybody,
}

impl Target {
    fn topic(&self, n: u64) -> String {
        match self {
            Self::Topics(topics) => topics[n as usize % topics.len()].clone(),
            Self::Agent(agent) => format!("$acb.inbox.{agent}"),
            Self::Everybody => "$acb.all".to_owned(),
        }
    }

    fn message(&self, client: &Client, n: u64, payload: String) -> PublishBuilder {
        match self {
            Self::Topics(_) => client.messages().publish(self.topic(n), payload),
            Self::Agent(agent) => client.messages().send(agent, payload),
            Self::Everybody => client.messages().broadcast(payload),
        }
    }
}

/// How messages are sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Manner {
    /// So many unanswered at once.
    Pipelined(usize),
    /// Each after the answer to the one before.
    OneByOne,
    /// One by one under idempotency keys; some are sent again, by another connection.
    Keyed,
    /// As many at once as it can, and after so many answers its process is gone.
    Mortal(u64),
}

/// A publisher.
#[derive(Debug)]
pub(super) struct Publisher {
    name: String,
    level: Level,
    target: Target,
    manner: Manner,
    client: Option<Client>,
}

impl Publisher {
    pub(super) fn new(name: &str, level: Level, target: Target, manner: Manner) -> Self {
        Self { name: name.to_owned(), level, target, manner, client: None }
    }
}

#[async_trait]
impl Kind for Publisher {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn is_publisher(&self) -> bool {
        true
    }

    async fn prepare(&mut self, stage: &Arc<Stage>) -> Result<()> {
        if !matches!(self.manner, Manner::Mortal(_)) {
            self.client = Some(stage.client(&self.name).await?);
        }
        Ok(())
    }

    async fn run(self: Box<Self>, stage: Arc<Stage>) -> Result<()> {
        let mut work = Work {
            rng: StdRng::seed_from_u64(stage.seed ^ self.name.len() as u64 ^ u64::from(self.name.as_bytes()[0]) << 8),
            name: self.name.clone(),
            level: self.level,
            target: self.target.clone(),
            next: 0,
            stage: Arc::clone(&stage),
        };
        match (self.manner, self.client) {
            (Manner::Mortal(answers), _) => die(&stage, work, answers).await,
            (Manner::Pipelined(window), Some(client)) => {
                work.pipelined(&client, window, None).await;
                Ok(())
            }
            (Manner::OneByOne, Some(client)) => {
                work.pipelined(&client, 1, None).await;
                Ok(())
            }
            (Manner::Keyed, Some(client)) => {
                let second = stage.client(&self.name).await?;
                work.keyed(&client, &second).await;
                Ok(())
            }
            (_, None) => anyhow::bail!("{} was not prepared", self.name),
        }
    }
}

struct Work {
    name: String,
    level: Level,
    target: Target,
    next: u64,
    rng: StdRng,
    stage: Arc<Stage>,
}

impl Work {
    /// Begins one call. The message is named by the call that first carried it.
    async fn begin(&mut self, client: &Client, key: Option<&str>, of: u64) -> Option<(u64, Receipt)> {
        let n = self.next;
        self.next += 1;
        let body = format!("{}#{of}", self.name);
        let topic = self.target.topic(of);
        // A repeat is the same message, byte for byte.
        let filler = (of as usize).wrapping_mul(2_654_435_761) % FILLER_MAX;
        let mut message = self.target.message(client, of, payload(&body, filler)).durability(durability(self.level));
        if let Some(key) = key {
            message = message.idempotency_key(key);
        }
        self.stage.publishing(&self.name, n, &topic, self.level, key, &body);
        match message.send().await {
            Ok(receipt) => Some((n, receipt)),
            Err(error) => {
                self.stage.published(&self.name, n, Err(error));
                None
            }
        }
    }

    /// Publishes with a window, until the end of the round or so many answers.
    async fn pipelined(&mut self, client: &Client, window: usize, answers: Option<u64>) {
        let mut open = FuturesUnordered::new();
        let mut answered = 0;
        loop {
            if open.len() < window {
                if !self.stage.turn().await {
                    break;
                }
                let of = self.next;
                if let Some((n, receipt)) = self.begin(client, None, of).await {
                    open.push(async move { (n, receipt.await) });
                }
                continue;
            }
            if let Some((n, result)) = open.next().await {
                self.stage.published(&self.name, n, result);
                answered += 1;
            }
            if answers.is_some_and(|most| answered >= most) {
                return;
            }
        }
        while let Some((n, result)) = open.next().await {
            self.stage.published(&self.name, n, result);
        }
    }

    async fn keyed(&mut self, client: &Client, second: &Client) {
        let mut sent: Vec<u64> = Vec::new();
        while self.stage.turn().await {
            let repeat = !sent.is_empty() && self.rng.random_range(0..REPEAT_ONE_IN) == 0;
            let (of, through) = if repeat {
                (sent[self.rng.random_range(0..sent.len())], if self.rng.random() { client } else { second })
            } else {
                sent.push(self.next);
                (self.next, client)
            };
            let key = format!("{}-key-{of}", self.name);
            if let Some((n, receipt)) = self.begin(through, Some(&key), of).await {
                let result = receipt.await;
                self.stage.published(&self.name, n, result);
            }
        }
    }
}

/// A runtime that is gone at once, with its sockets: as if its process had been killed.
#[derive(Debug)]
pub(super) struct Process(Option<Runtime>);

impl Process {
    pub(super) fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.0 {
            runtime.spawn(work);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Publishes in a process of its own, which dies after so many answers with more on the way. Whatever was not answered
/// may be stored or not; but not twice.
async fn die(stage: &Arc<Stage>, mut work: Work, answers: u64) -> Result<()> {
    const WINDOW: usize = 32;
    let process = Process::new()?;
    let (tell, told) = oneshot::channel();
    let builder = stage.builder(&work.name);
    let shared = Arc::clone(stage);
    process.spawn(async move {
        let Ok(client) = builder.connect().await else { return };
        work.pipelined(&client, WINDOW, Some(answers)).await;
        shared.abandoned(u64::min(work.next.saturating_sub(answers), WINDOW as u64));
        // Nobody ends it in good order.
        let _ = tell.send(());
        std::future::pending::<()>().await;
    });
    tokio::select! {
        _ = told => {}
        () = stage.closing.cancelled() => {}
    }
    Ok(())
}
