//! One round: start, load, kill, start again, settle, read the log, check. Everything that is decided by chance comes
//! from one seed; what threads and disks make of it does not, so a failed round keeps all that it left.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use acb_log::{DataDir, DataDirOptions, LogOptions, OsDisk};
use acb_sdk::Client;
use acb_testkit::{
    Server, ServerOptions,
    wait::{Level, wait_until, within},
};
use acb_types::{ClassId, MessageKind, PartitionId, Timestamp, TopicFilter, batch::ReadRequest, frame, position::Seq};
use anyhow::{Context as _, Result, bail};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::task::JoinSet;

use crate::{
    check::{Rule, Violation, check, told},
    history::{self, Event, Place, Recorder},
    load::{Kind, Stage, cast},
};

/// Kills of a round: from, to.
const KILLS: (u32, u32) = (3, 5);
/// Publishes that are made in one life at most.
const BUDGET: usize = 900;
/// Answers after which a life may end: from, to. Below the budget by more than all windows together, so that there is
/// always something on its way.
const ANSWERS: (u64, u64) = (20, 400);
/// Longest wait after that, in microseconds: wider than any commit takes, so that kills fall into every part of one.
const AIM_US: u64 = 12_000;
/// Longest that a life may take to so many answers.
const LIFE_WITHIN: Duration = Duration::from_mins(1);
/// Longest from the last publish until everything is settled. Includes the grace of a consumer that died.
const SETTLED_WITHIN: Duration = Duration::from_secs(40);
/// Longest that clients take to end.
const ENDED_WITHIN: Duration = Duration::from_secs(30);
/// Subscriptions on a page.
const PAGE: u32 = 500;

/// What a round did.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Its seed.
    pub seed: u64,
    /// Kills, and how many of them found publishes on their way.
    pub kills: u32,
    /// Kills with publishes on their way.
    pub kills_in_flight: u32,
    /// Publishes and confirmed acks that were open at each kill.
    pub open_at_kills: Vec<(u64, u64)>,
    /// Publishes that were acknowledged.
    pub acknowledged: usize,
    /// Deliveries.
    pub deliveries: usize,
    /// Confirmed acks.
    pub confirmed: usize,
    /// Dead letters.
    pub dead: usize,
    /// Replies.
    pub replies: usize,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seed, kills, kills_in_flight, acknowledged, deliveries, confirmed, dead, replies, .. } = self;
        write!(f, "seed {seed}: {kills_in_flight} of {kills} kills met work (publishes+acks open:")?;
        for (publishes, acks) in &self.open_at_kills {
            write!(f, " {publishes}+{acks}")?;
        }
        write!(
            f,
            "), {acknowledged} acknowledged, {deliveries} delivered, {confirmed} confirmed, {dead} dead, {replies} replies"
        )
    }
}

/// A round that went wrong, and where all of it lies.
#[derive(Debug)]
pub struct Failed {
    /// What was wrong.
    pub what: String,
    /// Folder with history, data and the server's log.
    pub kept: PathBuf,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\nkept: {} (history.jsonl, data, server.log)", self.what, self.kept.display())
    }
}

/// Plays a round under a folder, which it empties first and removes when all was well.
///
/// # Errors
/// What was wrong. The folder stays then.
pub async fn play(seed: u64, folder: &Path) -> Result<Summary, Failed> {
    let failed = |what: String| Failed { what, kept: folder.to_owned() };
    let fresh = || {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder)
    };
    fresh().map_err(|e| failed(format!("seed {seed}: {}: {e}", folder.display())))?;
    let data = folder.join("data");
    let started = async {
        let options = ServerOptions::default().real_clock().data_dir(&data);
        // Nothing is trimmed while a round lasts: what was stored can be read in the end.
        options.arg("--set").arg("delivery.retain_every=1h").start().await
    };
    let mut server = started.await.map_err(|e| failed(format!("seed {seed}: {e:#}")))?;
    let stage = Stage::new(server.address(), seed);
    let result = perform(seed, &stage, &mut server, &data).await;
    let entries = stage.history.entries();
    let mut wrong = match &result {
        Ok(()) => String::new(),
        Err(error) => format!("  {error:#}\n"),
    };
    // What was not played to its end is checked too, but for what only shows at the end.
    let violations: Vec<Violation> = check(&entries)
        .into_iter()
        .filter(|v| {
            let at_the_end = [Rule::AckedIsStored, Rule::DeliveredIsStored, Rule::OneAnswer, Rule::AskedIsAnswered];
            result.is_ok() || !at_the_end.contains(&v.rule)
        })
        .collect();
    wrong.push_str(&told(&violations));
    let summary = summary(seed, &entries);
    if wrong.is_empty() && summary.kills_in_flight == 0 {
        wrong.push_str("  no kill met anything on its way: this round proves nothing\n");
    }
    if wrong.is_empty() {
        fs::remove_dir_all(folder).map_err(|e| failed(format!("seed {seed}: {}: {e}", folder.display())))?;
        return Ok(summary);
    }
    let keep = || -> Result<()> {
        history::write(&folder.join("history.jsonl"), &entries)?;
        fs::write(folder.join("server.log"), server.log()?).context("the server's log")
    };
    if let Err(error) = keep() {
        wrong.push_str(&format!("  and the history could not be kept: {error:#}\n"));
    }
    Err(failed(format!("{summary}\n{wrong}")))
}

async fn perform(seed: u64, stage: &Arc<Stage>, server: &mut Server, data: &Path) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(seed.rotate_left(17));
    stage.history.add(Event::Started { life: 1 });
    let mut waiting = cast(seed);
    let (mut publishers, mut subscribers) = (JoinSet::new(), JoinSet::new());
    let kills = rng.random_range(KILLS.0..=KILLS.1);
    for life in 1..=kills + 1 {
        enter(stage, &mut waiting, life, &mut publishers, &mut subscribers).await?;
        stage.begin(BUDGET);
        let answers = rng.random_range(ANSWERS.0..=ANSWERS.1);
        reached(stage, answers, &mut publishers, &mut subscribers).await?;
        if life <= kills {
            tokio::time::sleep(Duration::from_micros(rng.random_range(0..AIM_US))).await;
            kill(stage, server, life).await?;
            stage.quiet().await?;
            stage.history.add(Event::Started { life: life + 1 });
            server.restart().await.with_context(|| format!("life {} on the folder of a killed server", life + 1))?;
        }
    }
    stage.closing.cancel();
    within("publishers to end", ENDED_WITHIN, all(&mut publishers)).await??;
    let auditor = stage.client("auditor").await?;
    settled(&auditor, &mut subscribers).await?;
    bury(stage, &auditor).await?;
    stage.leaving.cancel();
    within("subscribers to end", ENDED_WITHIN, all(&mut subscribers)).await??;
    auditor.close().await;
    let status = server.stop().await?;
    if !status.success() {
        bail!("the server ended with {status}");
    }
    read_logs(&stage.history, data)
}

/// Those who come in this life, prepared and set to work.
async fn enter(
    stage: &Arc<Stage>,
    waiting: &mut Vec<Box<dyn Kind>>,
    life: u32,
    publishers: &mut JoinSet<Result<()>>,
    subscribers: &mut JoinSet<Result<()>>,
) -> Result<()> {
    let (now, later) = std::mem::take(waiting).into_iter().partition(|k| k.enters_in() == life);
    *waiting = later;
    let mut now: Vec<Box<dyn Kind>> = now;
    for kind in &mut now {
        kind.prepare(stage).await.with_context(|| format!("preparing {}", kind.name()))?;
    }
    for kind in now {
        let (stage, name) = (Arc::clone(stage), kind.name());
        let set = if kind.is_publisher() { &mut *publishers } else { &mut *subscribers };
        set.spawn(async move { kind.run(stage).await.context(name) });
    }
    Ok(())
}

/// Waits until so many publishes were answered in this life.
async fn reached(
    stage: &Stage,
    answers: u64,
    publishers: &mut JoinSet<Result<()>>,
    subscribers: &mut JoinSet<Result<()>>,
) -> Result<()> {
    let began = Instant::now();
    while stage.answered() < answers {
        if began.elapsed() > LIFE_WITHIN {
            bail!("{} publishes answered within {LIFE_WITHIN:?}, {answers} were to be", stage.answered());
        }
        // A client that gave up has failed the round: say so at once.
        for set in [&mut *publishers, &mut *subscribers] {
            while let Some(ended) = set.try_join_next() {
                ended.context("a client panicked")??;
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

async fn kill(stage: &Stage, server: &mut Server, life: u32) -> Result<()> {
    let (publishes_open, settlements_open) = stage.open();
    stage.history.add(Event::Killed { life, publishes_open, settlements_open });
    server.kill().await
}

async fn all(set: &mut JoinSet<Result<()>>) -> Result<()> {
    while let Some(ended) = set.join_next().await {
        ended.context("a client panicked")??;
    }
    Ok(())
}

/// Waits until nobody holds or waits for anything.
async fn settled(auditor: &Client, subscribers: &mut JoinSet<Result<()>>) -> Result<()> {
    wait_until("everything to be settled", SETTLED_WITHIN, || {
        let ended = subscribers.try_join_next();
        async move {
            if let Some(ended) = ended {
                match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return Level::Reached(Err(error)),
                    Err(error) => return Level::Reached(Err(error.into())),
                }
            }
            let page = match auditor.subscriptions().page(PAGE, "").await {
                Ok(page) => page,
                Err(error) => return Level::not_yet(error),
            };
            let behind: Vec<String> = page
                .items
                .iter()
                .filter(|s| s.floor_seq < s.next_seq || s.leased + s.waiting_retry > 0)
                .map(|s| {
                    let (name, floor, cursor, next) = (s.spec.name(), s.floor_seq, s.cursor_seq, s.next_seq);
                    format!(
                        "{name}: floor {floor}, cursor {cursor} of {next}, {} leased, {} wait",
                        s.leased, s.waiting_retry
                    )
                })
                .collect();
            Level::when(behind.is_empty(), Ok(()), behind.join("; "))
        }
    })
    .await?
}

/// Writes down the dead letters of every subscription.
async fn bury(stage: &Stage, auditor: &Client) -> Result<()> {
    let names: BTreeSet<String> = stage
        .history
        .entries()
        .into_iter()
        .filter_map(|e| if let Event::Subscribed { subscription, .. } = e.event { Some(subscription) } else { None })
        .collect();
    for subscription in names {
        let mut letters = auditor.dead_letters().list(&subscription);
        while let Some(letter) = letters.next().await {
            let letter = letter.with_context(|| format!("dead letters of {subscription}"))?;
            let whole =
                auditor.dead_letters().get(letter.id).await.with_context(|| format!("dead letter {}", letter.id))?;
            stage.history.add(Event::Dead {
                subscription: subscription.clone(),
                letter: Place::from(letter.id),
                place: Place::from(letter.message_id),
                reason: letter.reason,
                attempts: letter.attempts,
                body: crate::load::body_of(&whole.message.payload),
            });
        }
    }
    Ok(())
}

/// Writes down what the logs of a stopped server hold, read by the log's own reader, past server and engine.
///
/// # Errors
/// When they cannot be read.
pub fn read_logs(history: &Recorder, data: &Path) -> Result<()> {
    let folder = DataDir::open(OsDisk::shared(), data, DataDirOptions::default())?;
    for id in folder.partitions()?.into_iter().filter(|p| p.class != ClassId::DEAD_LETTERS) {
        read_log(history, &folder, &id).with_context(|| format!("log {id}"))?;
    }
    Ok(())
}

fn read_log(history: &Recorder, folder: &DataDir, id: &PartitionId) -> Result<()> {
    // What users name, and the bus's own tree, which `>` does not hear.
    let everything: [TopicFilter; 2] = [">".parse()?, "$acb.>".parse()?];
    let log = folder.open_log(id, LogOptions::of_class(id.class, u64::MAX), Timestamp(0))?.log;
    let reader = log.reader();
    history.add(Event::LogRead { class: id.class.0, first_seq: reader.first_seq(), epoch: log.epoch() });
    let mut from: Seq = reader.first_seq();
    loop {
        let block = reader.read(&ReadRequest {
            from_seq: from,
            end_seq: Seq::MAX,
            filters: everything.clone().into(),
            messages_max: u32::MAX,
            bytes_max: u64::MAX,
        })?;
        for run in &block.runs {
            for (message, seq) in frame::messages(&run.body).zip(run.first_seq..) {
                let envelope = frame::decode(&message)?;
                history.add(Event::Stored {
                    place: Place { class: id.class.0, epoch: run.facts.epoch, seq },
                    topic: String::from_utf8_lossy(&run.topic).into_owned(),
                    body: crate::load::body_of(&envelope.payload),
                    expires: matches!(envelope.kind, MessageKind::Request | MessageKind::Reply),
                });
            }
        }
        if block.next_seq <= from || block.runs.is_empty() {
            return Ok(());
        }
        from = block.next_seq;
    }
}

fn summary(seed: u64, entries: &[history::Entry]) -> Summary {
    let mut summary = Summary { seed, ..Summary::default() };
    for entry in entries {
        match &entry.event {
            Event::Killed { publishes_open, settlements_open, .. } => {
                summary.kills += 1;
                summary.kills_in_flight += u32::from(*publishes_open > 0);
                summary.open_at_kills.push((*publishes_open, *settlements_open));
            }
            Event::Published { .. } => summary.acknowledged += 1,
            Event::Delivered { .. } => summary.deliveries += 1,
            Event::Confirmed { .. } => summary.confirmed += 1,
            Event::Dead { .. } => summary.dead += 1,
            Event::Answered { reply: Some(_), .. } => summary.replies += 1,
            _ => {}
        }
    }
    summary
}

/// Where rounds lie: beside the program that plays them, on the disk that is built on.
///
/// # Errors
/// When that cannot be found out.
pub fn folder(seed: u64) -> Result<PathBuf> {
    let program = std::env::current_exe().context("where this test lies")?;
    let target = program.ancestors().nth(3).context("no target folder")?;
    Ok(target.join("crash").join(format!("seed-{seed}")))
}
