//! What happens: the server starts, the team works, a worker dies, the server is killed, and nothing is lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    pin::Pin,
    process::ExitCode,
    time::Duration,
};

use acb_sdk::{Client, Credentials, KeySpec};
use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    bus::{self, Language, PLANNER, READER, WATCHER, WORKERS},
    findings,
    folder::{self, Work},
    metrics,
    report::{self, Table, bytes, columns, thousands},
    server::{Place, Server},
    shared::{self, Shared},
    streaming::{self, Streamed},
    team::{Event, Team, Told},
    teller::Teller,
};

/// Who answered for a file that was given up.
const NOBODY: &str = "nobody";
/// A worker shares its findings when it has so much of all files, in percent.
const SHARED_AT: usize = 5;
/// The members that are written in Python.
const PYTHON_MEMBERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python/demo");
/// The busiest worker dies when so much of all files is answered, in percent.
const DIES_AT: usize = 15;
/// The server is killed when so much is answered and the dead worker's files found another, in percent.
const KILLED_AT: usize = 50;
/// At the latest then.
const KILLED_AT_LATEST: usize = 80;
/// How long the server stays away at most, when somebody does not notice.
const NOTICED_WITHIN: Duration = Duration::from_secs(3);
/// How long a member may take to get ready.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// What the planner does not need to give up by itself.
const SPARE: Duration = Duration::from_secs(10);
/// How long packing, uploading and downloading may take.
const STREAMED_WITHIN: Duration = Duration::from_mins(1);
/// Lines of a log that are shown when something went wrong.
const LOG_LINES_SHOWN: usize = 20;
/// A UTF-16 file that ends in the middle of a character: nobody can survey it.
const POISON: &[u8] = b"\xff\xfeh\0a\0l\0f\0 \0a\0 \0c\0h\0a\0r\0a\0c\0t\0e\0r";

/// How the demo is run.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct StoryArgs {
    /// The folder to survey [default: the unpacked sources of dependencies in cargo's registry folder].
    dir: Option<PathBuf>,

    /// The same, for those who like to name it.
    #[arg(long = "dir", value_name = "DIR", conflicts_with = "dir")]
    named_dir: Option<PathBuf>,

    /// The server's program [default: acb-server beside this program].
    #[arg(long, value_name = "PATH")]
    server: Option<PathBuf>,

    /// Python with the package acb-sdk [default: the one that scripts/build-wheel.sh made beside this program].
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,

    /// Files to survey, at most; spread evenly over the folder.
    #[arg(long, value_name = "COUNT", default_value_t = folder::FILES)]
    files: usize,

    /// Files that the planner sends in a second.
    #[arg(long, value_name = "COUNT", default_value_t = 400)]
    rate: usize,

    /// Seconds after which the planner gives up.
    #[arg(long, value_name = "SECONDS", default_value_t = 45)]
    within: u64,

    /// Size of the archive that is streamed, in megabytes of 1,000,000 bytes: what the files do not fill is generated.
    #[arg(long, value_name = "MEGABYTES", default_value_t = 320)]
    stream_mb: u64,
}

/// Runs the demo. What it needs is in a temporary folder, which is kept only when something went wrong.
pub(crate) async fn run(args: StoryArgs) -> Result<ExitCode> {
    let folder = tempfile::Builder::new().prefix("acb-demo-").tempdir()?;
    let mut story = Story { teller: Teller::begin(), folder: folder.path().to_owned(), logged: Logged::default() };
    let outcome = tokio::select! {
        outcome = story.tell_it(&args) => outcome,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    match outcome {
        Ok(true) => Ok(ExitCode::SUCCESS),
        Ok(false) => {
            keep(folder);
            Ok(ExitCode::FAILURE)
        }
        Err(error) => {
            println!("\nThe demo failed: {error:#}");
            show_end_of(&story.folder.join("team.log"));
            show_end_of(&story.folder.join("server.log"));
            keep(folder);
            Ok(ExitCode::FAILURE)
        }
    }
}

fn keep(folder: TempDir) {
    println!("Logs and data are kept in {}", folder.keep().display());
}

fn show_end_of(log: &Path) {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    if !lines.is_empty() {
        println!("\nThe end of {}:", log.display());
        for line in &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..] {
            println!("  {line}");
        }
    }
}

/// What is remembered for the summary.
#[derive(Debug, Default)]
struct Logged {
    /// Files by who answered for them.
    answered: BTreeMap<String, usize>,
    /// Files that the dead worker held and nobody answered for yet.
    held: BTreeSet<String>,
    /// How many it held.
    held_count: usize,
    /// The worker that dies; empty until it is chosen.
    victim: String,
    /// Whether it is dead.
    victim_dead: bool,
    /// Members that lost the bus since the server was killed.
    lost: usize,
    /// When the server was killed.
    killed: Option<Instant>,
    /// How long the server was away.
    away: Duration,
    /// Answers that came a second time.
    repeats: u64,
    /// Merges into the shared context.
    merges: u64,
    /// Merges that were made again because somebody was faster.
    races: u64,
}

impl Logged {
    fn count(&self) -> usize {
        self.answered.values().sum()
    }

    /// Who answered most.
    fn busiest(&self) -> String {
        let most = self.answered.iter().max_by_key(|(_, count)| **count);
        most.map(|(who, _)| who.clone()).unwrap_or_default()
    }
}

/// The server's life.
#[expect(clippy::large_enum_variant, reason = "there is one of it")]
enum Life {
    /// It runs.
    Up(Server),
    /// It was killed, and stays away until everybody noticed, or until then.
    Down { until: Instant },
    /// It is being started.
    Starting(Pin<Box<dyn Future<Output = Result<Server>>>>),
}

impl Life {
    /// The server, once it is started; `None` when it was away for long enough. While it runs, nothing comes.
    async fn turn(&mut self) -> Result<Option<Server>> {
        match self {
            Self::Starting(start) => start.as_mut().await.map(Some),
            Self::Down { until } => {
                tokio::time::sleep_until(*until).await;
                Ok(None)
            }
            Self::Up(_) => std::future::pending().await,
        }
    }
}

struct Story {
    teller: Teller,
    folder: PathBuf,
    logged: Logged,
}

/// Keys of the members.
struct Keys {
    planner: String,
    workers: String,
    watcher: String,
    reader: String,
}

impl Story {
    fn say(&self, who: &str, what: impl AsRef<str>) {
        self.teller.say(who, what);
    }

    async fn tell_it(&mut self, args: &StoryArgs) -> Result<bool> {
        println!(
            "A planner, four workers and a watcher survey a folder together, each a process of its own. The planner and"
        );
        println!(
            "two workers are written in Python, the others in Rust. On the way a worker is killed, and the server twice.\n"
        );
        let dir = args.dir.clone().or(args.named_dir.clone()).map_or_else(folder::dependency_sources, Ok)?;
        let choice = folder::choose(&dir, args.files)?;
        let extra = self.folder.join("extra");
        fs::create_dir(&extra)?;
        fs::write(extra.join("cut-in-half.txt"), POISON)?;
        let (count, size) = (thousands(choice.works.len() as u64), bytes(choice.bytes));
        self.say("demo", format!("{count} text files ({size}) of {}", dir.display()));
        let (spare, unfit) = (thousands(choice.spare as u64), thousands(choice.unfit as u64));
        self.say("demo", format!("left out: {spare} more text files, {unfit} without text or over 1 MiB"));
        self.say("demo", "and one made to fail: extra/cut-in-half.txt, UTF-16 that ends inside a character");
        let works = folder::works(&dir, args.files, &extra)?;
        let total = works.len();
        let works_file = self.folder.join("works.jsonl");
        fs::write(&works_file, lines_of(&works)?)?;

        let program = args.server.clone().map_or_else(beside_this, Ok)?;
        let place = Place::new(&program, &self.folder)?;
        let starting = Instant::now();
        let server = Server::start(&place).await?;
        let (pid, ms) = (server.pid, starting.elapsed().as_millis());
        self.say("server", format!("ready after {ms} ms at {} (pid {pid})", place.url()));
        let keys = self.furnish(&place).await?;
        let reader = self.share(&place, &keys).await?;

        let programs = Programs::new(args)?;
        let log = self.folder.join("team.log");
        let (mut team, mut told) = Team::new(&log);
        let merge_every = (total * SHARED_AT / 100).max(1);
        self.assemble(&mut team, &mut told, &programs, &place.url(), &keys, merge_every).await?;
        let table = self.folder.join("table.json");
        let planner = [
            programs.file("planner.py"),
            format!("--url={}", place.url()),
            format!("--works={}", works_file.display()),
            format!("--workers={}", WORKERS.len()),
            format!("--rate={}", args.rate.max(1)),
            format!("--within={}", args.within),
            format!("--table={}", table.display()),
        ];
        let pid = team.start(PLANNER, &keys.planner, &programs.python, &planner)?;
        self.say("demo", format!("planner started (Python, pid {pid})"));

        let limit = Instant::now() + Duration::from_secs(args.within) + SPARE;
        let work = self.follow(&mut team, &mut told, server, &place, total);
        let (server, before) = timeout_at(limit, work).await.context("the team did not finish in time")??;
        let table: Table = serde_json::from_slice(&fs::read(&table)?)?;
        let shared = shared::conclude(&reader, &works, &table).await?;
        let files = thousands(table.len() as u64);
        self.say(READER, format!("asked the planner for the result, and has the answer: {files} files"));
        let (added, version) = (thousands(shared.added.new), &shared.version);
        self.say(READER, format!("merged {added} findings that no worker had shared: {} {version}", findings::KEY));
        team.end();

        let watcher = connect_with(&place, &keys.watcher, WATCHER).await?;
        let size = args.stream_mb * 1_000_000;
        let streaming = streaming::stream(self.teller, &reader, &watcher, (server, &place), (&works, size));
        let (server, streamed) = timeout(STREAMED_WITHIN, streaming).await.context("streaming took too long")??;
        let after = place.metrics().await?;
        watcher.close().await;
        reader.close().await;
        server.kill().await?;
        self.conclude(&works, &table, &shared, &streamed, [&before, &streamed.metrics, &after])
    }

    /// Makes the context that the team will share, and tries two more doors that must stay shut.
    async fn share(&self, place: &Place, keys: &Keys) -> Result<Client> {
        let reader = connect_with(place, &keys.reader, READER).await?;
        shared::furnish(&reader).await?;
        self.say(READER, format!("shares {} with the workers, to write, and with the watcher, to read", findings::KEY));
        let stranger = connect_with(place, &keys.watcher, WATCHER).await?;
        let code = shared::refuse_a_stranger(&reader, &stranger).await?;
        self.say("demo", format!("refused, as it must be: the reader's private notes to the watcher ({code})"));
        stranger.close().await;
        let code = shared::refuse_the_late(&reader).await?;
        self.say("demo", format!("refused, as it must be: a second change of one and the same revision ({code})"));
        Ok(reader)
    }

    /// Makes keys for the members and the subscription that the workers share. Two doors are tried that must stay shut.
    async fn furnish(&self, place: &Place) -> Result<Keys> {
        let admin_key = fs::read_to_string(&place.admin_key)
            .with_context(|| format!("the server left no admin key in {}", place.admin_key.display()))?;
        let admin = connect_with(place, admin_key.trim(), "demo-admin").await?;
        let key = async |agents: &str, role: &str| -> Result<String> {
            let spec = KeySpec::new("demo").agent_pattern(agents).role(role);
            Ok(admin.admin().create_enrolment_key(spec).await?.secret)
        };
        let keys = Keys {
            planner: key(PLANNER, "agent-full").await?,
            workers: key("worker-*", "agent-full").await?,
            watcher: key(WATCHER, "agent-consumer").await?,
            reader: key(READER, "agent-full").await?,
        };
        self.say("demo", "made four keys with the server's first admin key: planner, worker-*, watcher, reader");
        admin.subscriptions().create(bus::survey()).await?;
        let (lease, attempts) = (bus::LEASE, bus::ATTEMPTS);
        self.say(
            "demo",
            format!("made the shared subscription on {}: lease {lease:?}, {attempts} attempts", bus::WORK),
        );

        let Err(refused) = connect_with(place, &keys.watcher, PLANNER).await else {
            bail!("the watcher's key took the planner's name");
        };
        self.say("demo", format!("refused, as it must be: the watcher's key as the planner ({})", code_of(&refused)));
        let Err(refused) = admin.messages().send("nobody", "hello").confirm().await else {
            bail!("a message to an agent that never registered was taken");
        };
        self.say("demo", format!("refused, as it must be: a message to an agent nobody knows ({})", refused.code()));
        admin.close().await;
        Ok(keys)
    }

    async fn assemble(
        &mut self,
        team: &mut Team<'_>,
        told: &mut mpsc::Receiver<Told>,
        programs: &Programs,
        url: &str,
        keys: &Keys,
        merge_every: usize,
    ) -> Result<()> {
        team.start(WATCHER, &keys.watcher, &programs.rust, &["as-watcher".into(), format!("--url={url}")])?;
        let mut workers = Vec::new();
        for (name, language) in WORKERS {
            let (program, role) = match language {
                Language::Rust => (&programs.rust, "as-worker".to_owned()),
                Language::Python => (&programs.python, programs.file("worker.py")),
            };
            let merge = format!("--merge-every={merge_every}");
            let arguments = vec![role, format!("--url={url}"), format!("--name={name}"), merge];
            let pid = team.start(name, &keys.workers, program, &arguments)?;
            workers.push(format!("{name} ({language:?}, pid {pid})"));
        }
        let mut waiting = WORKERS.len() + 1;
        while waiting > 0 {
            let next = timeout(READY_WITHIN, told.recv()).await.context("the team did not get ready")?;
            match next.context("the team is gone")? {
                (_, Event::Ready) => waiting -= 1,
                (who, Event::Ended { how, .. }) => bail!("{who} ended before it was ready: {how}"),
                (who, Event::Say { text }) => self.say(&who, text),
                _ => {}
            }
        }
        self.say("demo", format!("on the bus: the watcher, {}", workers.join(", ")));
        Ok(())
    }

    /// Follows the team to its end, and does to it what is to be done. Gives the server back, and its metrics from before
    /// it was killed.
    async fn follow(
        &mut self,
        team: &mut Team<'_>,
        told: &mut mpsc::Receiver<Told>,
        server: Server,
        place: &Place,
        total: usize,
    ) -> Result<(Server, String)> {
        let (mut life, mut before) = (Life::Up(server), None);
        loop {
            // All arms are cancel-safe: an event stays in its channel, a start goes on with the next turn.
            tokio::select! {
                told = told.recv() => {
                    let (who, event) = told.context("the team is gone")?;
                    if let Event::Finished { repeats } = event {
                        self.logged.repeats = repeats;
                        let Life::Up(server) = life else { bail!("the planner finished while the server was away") };
                        let before = before.context("all was done before the server could be killed: take more files")?;
                        return Ok((server, before));
                    }
                    self.hear(team, who, event)?;
                }
                turn = life.turn() => life = match turn? {
                    Some(server) => Life::Up(self.server_is_back(server, place)),
                    None => self.start_again(place),
                },
            }
            let percent = self.logged.count() * 100 / total;
            if self.logged.victim.is_empty() && percent >= DIES_AT {
                self.logged.victim = self.logged.busiest();
                team.freeze(&self.logged.victim);
            }
            let moved = self.logged.victim_dead && self.logged.held.is_empty();
            if before.is_none() && (moved && percent >= KILLED_AT || percent >= KILLED_AT_LATEST) {
                before = Some(place.metrics().await?);
                life = self.kill_server(life).await?;
            }
            // Everybody has noticed: nobody can say that the server was not away.
            if matches!(life, Life::Down { .. }) && self.logged.lost >= team.len() {
                life = self.start_again(place);
            }
        }
    }

    /// Hears what a member tells.
    fn hear(&mut self, team: &mut Team<'_>, who: String, event: Event) -> Result<()> {
        match event {
            Event::Say { text } => self.say(&who, text),
            Event::Lost => {
                self.logged.lost += 1;
                self.say(&who, "lost the bus, and tries to get back");
            }
            Event::Back => self.say(&who, "is back on the bus"),
            Event::Holding { files } => self.kill_victim(team, &who, files),
            Event::Answered { file, by } => self.answered(file, by),
            Event::Ended { .. } if who == self.logged.victim && self.logged.victim_dead => {}
            Event::Ended { how, .. } => bail!("{who} ended too early: {how}"),
            Event::Merged { races } => {
                self.logged.merges += 1;
                self.logged.races += races;
            }
            Event::Ready | Event::Finished { .. } => {}
        }
        Ok(())
    }

    fn kill_victim(&mut self, team: &mut Team<'_>, who: &str, files: Vec<String>) {
        team.kill(who);
        self.say(who, format!("killed with SIGKILL, with {} unfinished files in its hands", files.len()));
        self.logged.held_count = files.len();
        self.logged.held.extend(files);
        self.logged.victim_dead = true;
    }

    fn answered(&mut self, file: String, by: String) {
        if self.logged.held.remove(&file) {
            let (file, victim) = (report::short(&file), &self.logged.victim);
            self.say(&by, format!("got and finished what {victim} had held: {file}"));
        }
        *self.logged.answered.entry(by).or_default() += 1;
    }

    async fn kill_server(&mut self, life: Life) -> Result<Life> {
        let Life::Up(server) = life else { bail!("the server is to be killed twice") };
        let (pid, count) = (server.pid, thousands(self.logged.count() as u64));
        let killed = Instant::now();
        let how = server.kill().await?;
        self.say("server", format!("killed with SIGKILL after {count} answers (pid {pid}: {how})"));
        self.logged.lost = 0;
        self.logged.killed = Some(killed);
        Ok(Life::Down { until: killed + NOTICED_WITHIN })
    }

    fn start_again(&self, place: &Place) -> Life {
        self.say("server", "started again on the same data");
        let place = place.clone();
        Life::Starting(Box::pin(async move { Server::start(&place).await }))
    }

    fn server_is_back(&mut self, server: Server, place: &Place) -> Server {
        self.logged.away = self.logged.killed.map(|killed| killed.elapsed()).unwrap_or_default();
        let ms = self.logged.away.as_millis();
        self.say("server", format!("ready at {} (pid {}), {ms} ms after the kill", place.url(), server.pid));
        server
    }

    /// Compares and shows everything. Says whether the tables are equal.
    fn conclude(
        &self,
        works: &[Work],
        team: &Table,
        shared: &Shared,
        streamed: &Streamed,
        scrapes: [&str; 3],
    ) -> Result<bool> {
        let local_start = Instant::now();
        let local = report::local(works)?;
        let local_time = local_start.elapsed();
        self.say("demo", format!("surveyed the same files in one local process, in {:.2} s", local_time.as_secs_f64()));
        let differences = report::differences(team, &local);

        println!("\nWhat the team found\n\n{}", report::languages(team));
        println!("How it went\n\n{}", self.summary(team, shared, streamed, &differences));
        let scrapes = scrapes.map(metrics::Scrape::parse);
        println!("The server's metrics, which start anew with it\n\n{}", metrics::table(&scrapes));
        if differences.is_empty() {
            println!(
                "The planner's table equals the local survey, file by file: {} files.",
                thousands(team.len() as u64)
            );
        } else {
            println!("The planner's table differs from the local survey in {} files:\n", differences.len());
            println!("{}", report::show_differences(&differences));
        }
        if !shared.equal {
            println!("What the planner answered, or the shared context, differs from the planner's table.");
        }
        let [source, downloaded] = &streamed.digests;
        if streamed.equal() {
            println!("The archive that was downloaded equals its source, SHA-256 {source}.");
        } else {
            println!("The archive that was downloaded differs from its source:\n  source:     {source}");
            println!("  downloaded: {downloaded}");
        }
        Ok(differences.is_empty() && shared.equal && streamed.equal())
    }

    fn summary(
        &self,
        team: &Table,
        shared: &Shared,
        streamed: &Streamed,
        differences: &[report::Difference],
    ) -> String {
        let logged = &self.logged;
        let mut rows = Vec::new();
        let mut row = |what: &str, value: String| rows.push(vec![what.to_owned(), value]);
        row("files", thousands(team.len() as u64));
        for (who, count) in logged.answered.iter().filter(|(who, _)| *who != NOBODY) {
            let dead = if *who == logged.victim { ", until it was killed" } else { "" };
            row(&format!("answered by {who}{dead}"), thousands(*count as u64));
        }
        let dead = logged.answered.get(NOBODY).copied().unwrap_or_default();
        row("given up, in the dead letters", thousands(dead as u64));
        row("held by a worker when it died, answered by others", thousands(logged.held_count as u64));
        row("answered twice, and recognised", thousands(logged.repeats));
        row("in the shared context, merged by compare-and-set", thousands(shared.files));
        row("merges by workers", thousands(logged.merges));
        row("merges made again, because somebody was faster", thousands(logged.races));
        row("merged last, which no worker had shared", thousands(shared.added.new));
        row("seconds until the killed server was ready again", format!("{:.2}", logged.away.as_secs_f64()));
        row("streamed as one context", bytes(streamed.size));
        row("sent again, because the server was killed on the way", bytes(streamed.sent_again));
        row("seconds to upload it, the kill included", format!("{:.2}", streamed.up.as_secs_f64()));
        row("seconds to download it", format!("{:.2}", streamed.down.as_secs_f64()));
        row("times the server was killed", "2".into());
        row("different from the local survey", thousands(differences.len() as u64));
        row("seconds in all", format!("{:.1}", self.teller.seconds()));
        columns(&["", ""], &rows).trim_start_matches('\n').to_owned()
    }
}

async fn connect_with(place: &Place, key: &str, agent: &str) -> acb_sdk::Result<Client> {
    Client::builder(place.url()).credentials(Credentials::enrolment_key(key, agent)).connect().await
}

/// The programs that members are.
struct Programs {
    rust: PathBuf,
    python: PathBuf,
}

impl Programs {
    fn new(args: &StoryArgs) -> Result<Self> {
        let rust = std::env::current_exe()?;
        let built = || Some(rust.parent()?.parent()?.join("python/venv/bin/python"));
        let python = args.python.clone().or_else(built).context("no folder above this program")?;
        ensure!(
            python.is_file(),
            "there is no Python with acb-sdk at {}; make it with: scripts/build-wheel.sh",
            python.display()
        );
        Ok(Self { rust, python })
    }

    /// A member that is written in Python.
    fn file(&self, name: &str) -> String {
        format!("{PYTHON_MEMBERS}/{name}")
    }
}

/// Files as the planner reads them: one JSON object a line.
fn lines_of(works: &[Work]) -> Result<String> {
    let lines = works.iter().map(|work| Ok(serde_json::to_string(work)? + "\n"));
    lines.collect()
}

fn code_of(error: &acb_sdk::Error) -> &'static str {
    error.code().name()
}

fn beside_this() -> Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("acb-server"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_poison_is_poison() {
        assert!(crate::survey::survey("cut-in-half.txt", POISON).is_err());
    }

    #[test]
    fn the_busiest_worker_is_the_one_that_dies() {
        let answered = [("worker-1", 3), ("worker-2", 9), ("worker-3", 2)];
        let answered = answered.map(|(who, count)| (who.to_owned(), count)).into();
        assert_eq!(Logged { answered, ..Logged::default() }.busiest(), "worker-2");
    }
}
