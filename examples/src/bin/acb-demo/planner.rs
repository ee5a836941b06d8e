//! The planner: finds workers by what they can do, publishes each file as work, and gathers what comes back.
//!
//! Findings come at least once. A file answered twice is recognised by its name; two answers that do not agree are an
//! error. A file that nobody answered for must stand in the dead letters, or the planner goes on waiting.

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    time::Duration,
};

use acb_sdk::{AgentStatus, Client, Message, Receipt};
use anyhow::{Context as _, Result, ensure};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::{
    bus::{self, Answer, CAPABILITY, FILE, PLANNER, Progress, SURVEY, WORK},
    folder::{self, Work},
    report::{Outcome, Table, thousands},
    team::{Event, say, tell},
};

/// Who answered for a file that was given up.
pub(crate) const NOBODY: &str = "nobody";
/// How long the planner looks for workers.
const WORKERS_WITHIN: Duration = Duration::from_secs(20);
/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often it looks for dead letters.
const DEAD_EVERY: Duration = Duration::from_millis(500);
/// The planner tells how far it is after so many answers.
const TELL_EVERY: usize = 20;
/// So often files are sent.
const TICK: Duration = Duration::from_millis(20);

/// How the planner is started.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct PlannerArgs {
    /// Where the bus is.
    #[arg(long)]
    url: String,
    /// The folder to survey.
    #[arg(long)]
    dir: PathBuf,
    /// Files of it, at most.
    #[arg(long)]
    files: usize,
    /// A folder whose files come on top.
    #[arg(long)]
    extra: PathBuf,
    /// Workers to wait for.
    #[arg(long)]
    workers: usize,
    /// Files to send in a second.
    #[arg(long)]
    rate: usize,
    /// Seconds after which it gives up.
    #[arg(long)]
    within: u64,
    /// Where the table is written.
    #[arg(long)]
    table: PathBuf,
}

/// All files of a survey: those of the folder, and among the first of them the extra ones, under `extra/`.
pub(crate) fn works(dir: &std::path::Path, files: usize, extra: &std::path::Path) -> Result<Vec<Work>> {
    let mut works = folder::choose(dir, files)?.works;
    let more = folder::choose(extra, usize::MAX)?.works;
    let among = works.len() / 4;
    works.splice(among..among, more.into_iter().map(|work| Work { name: format!("extra/{}", work.name), ..work }));
    Ok(works)
}

/// Plans until every file is answered for.
pub(crate) async fn run(args: PlannerArgs) -> Result<()> {
    let works = works(&args.dir, args.files, &args.extra)?;
    let client = bus::connect(&args.url, PLANNER).await?;
    let planner = client.agents().register(PLANNER).kind("planner").await?;
    // The streams that follow show that it is alive; before them a heartbeat does.
    client.agents().heartbeat().await?;
    let inbox = client.inbox().await?;
    tell(&Event::Ready);
    say(format!("registered, incarnation {}; looking for agents that can {CAPABILITY}", planner.incarnation));
    let workers = timeout(WORKERS_WITHIN, discover(&client, args.workers)).await;
    let workers = workers.with_context(|| format!("no {} workers within {WORKERS_WITHIN:?}", args.workers))??;
    say(format!("found {}: {}", workers.len(), workers.join(", ")));
    say(format!("sends {} files to {WORK}, {} a second", thousands(works.len() as u64), args.rate));
    let total = works.len();
    let mut plan = Plan { client, total, table: Table::new(), by: BTreeMap::new(), repeats: 0, open: VecDeque::new() };
    let limit = Duration::from_secs(args.within);
    if timeout(limit, plan.carry_out(works, inbox, args.rate)).await.map_err(|_| plan.late(limit))?? {
        say("every file is answered for");
    }
    std::fs::write(&args.table, serde_json::to_vec(&plan.table)?)?;
    plan.client.drain().await?;
    tell(&Event::Finished { repeats: plan.repeats });
    Ok(())
}

async fn discover(client: &Client, wanted: usize) -> Result<Vec<String>> {
    loop {
        let found = client.agents().discover().capability(CAPABILITY).status(AgentStatus::Online).all().await?;
        if found.len() >= wanted {
            return Ok(found.iter().map(|agent| agent.id().to_owned()).collect());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

struct Plan {
    client: Client,
    total: usize,
    table: Table,
    /// Files by who answered.
    by: BTreeMap<String, usize>,
    repeats: u64,
    /// Work that the bus has not confirmed yet, in order.
    open: VecDeque<Receipt>,
}

impl Plan {
    async fn carry_out(&mut self, works: Vec<Work>, mut inbox: acb_sdk::Subscription, rate: usize) -> Result<bool> {
        let mut works = works.into_iter();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (start, mut sent) = (Instant::now(), 0);
        let mut look = interval(DEAD_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.table.len() < self.total {
            // All three are cancel-safe: a message not taken stays, a tick missed comes again.
            tokio::select! {
                answer = inbox.next() => self.gather(&answer.context("the inbox ended")??).await?,
                _ = ticks.tick(), if works.len() > 0 => {
                    let due = (start.elapsed().as_secs_f64() * rate as f64) as usize + 1;
                    for work in works.by_ref().take(due.saturating_sub(sent)) {
                        self.send(&work).await?;
                        sent += 1;
                    }
                }
                _ = look.tick() => self.look_at_the_dead().await?,
            }
            while let Some(stored) = self.open.front().and_then(Receipt::try_get) {
                stored?;
                self.open.pop_front();
            }
        }
        for receipt in self.open.drain(..) {
            receipt.await?;
        }
        Ok(true)
    }

    async fn send(&mut self, work: &Work) -> Result<()> {
        let content = std::fs::read(&work.path).with_context(|| work.path.display().to_string())?;
        let message = self.client.messages().publish(WORK, content).attribute(FILE, work.name.as_str());
        self.open.push_back(message.send().await?);
        Ok(())
    }

    async fn gather(&mut self, message: &Message) -> Result<()> {
        let Answer { file, finding } = serde_json::from_slice(message.payload_ref())?;
        let outcome = Outcome::Found(finding);
        match self.table.get(&file) {
            Some(first) => {
                ensure!(*first == outcome, "two answers for {file} do not agree: {first:?} and {outcome:?}");
                self.repeats += 1;
            }
            None => self.settle(file, message.from(), outcome).await?,
        }
        message.ack()?;
        Ok(())
    }

    async fn settle(&mut self, file: String, by: &str, outcome: Outcome) -> Result<()> {
        *self.by.entry(by.to_owned()).or_default() += 1;
        tell(&Event::Answered { file: file.clone(), by: by.to_owned() });
        self.table.insert(file, outcome);
        let files = self.table.len();
        if files.is_multiple_of(TELL_EVERY) || files == self.total {
            bus::progress(&self.client, PLANNER, &Progress { files, of: self.total }).await?;
        }
        Ok(())
    }

    /// Files that the bus gave up on are answered for too: with the reason.
    async fn look_at_the_dead(&mut self) -> Result<()> {
        let mut letters = self.client.dead_letters().list(SURVEY);
        while let Some(letter) = letters.next().await {
            let letter = letter?;
            let file = letter.message.attributes.get(FILE).unwrap_or_default().to_owned();
            if self.table.contains_key(&file) {
                continue;
            }
            say(format!("sees a dead letter: {file}"));
            say(format!("  {} after {} attempts: it {}", letter.reason, letter.attempts, letter.last_error));
            say(format!("  kept as {}, whole, until somebody redrives or discards it", letter.id));
            self.settle(file, NOBODY, Outcome::Unreadable(letter.last_error)).await?;
        }
        Ok(())
    }

    fn late(&self, limit: Duration) -> anyhow::Error {
        let missing = self.total - self.table.len();
        anyhow::anyhow!("{missing} of {} files were not answered for within {limit:?}", self.total)
    }
}
