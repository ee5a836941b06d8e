//! One large file that goes up with `acb upload`, while that process and the server are killed at random bytes of the way;
//! and what each kill made it send again.
//!
//! What lies between two kills is a stretch. It is measured by those who survive both ends of it:
//!
//! - *gain*: what the bus has on stable storage more than before, by its own word (`GetStreamProgress`), asked when nobody
//!   writes: of a server that was started a moment ago and has no client yet, or whose session of the dead client is over;
//! - *left*: what left the client, counted by a relay between the two, which no kill touches;
//! - *arrived*: `acb_upload_bytes_total` of the server. It begins at 0 with each life, and what came between the last look
//!   and the kill of a server is not in it: of such a stretch it is a lower bound.
//!
//! What a stretch sent beyond its gain is sent a second time: what was on the way when somebody was killed, or what was
//! there before the stretch began. So no kill may cost more than a window.

use std::{
    fmt,
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use acb_sdk::{Client, Credentials, RetryPolicy, Sha256Digest, StreamId};
use acb_testkit::{
    Server, ServerOptions,
    server::server_program,
    wait::{Level, PATIENCE, wait_until, within},
};
use anyhow::{Context as _, Result, bail, ensure};
use rand::{Rng as _, RngCore as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{Child, Command},
    task::JoinHandle,
};

use crate::relay::Relay;

/// Who uploads.
const AGENT: &str = "archivist";
/// Name of the file, and the key of what becomes of it.
const NAME: &str = "archive";
/// A file that is one chunk, and too large for one call.
const TINY_BYTES: u64 = 300 << 10;
/// What the file is made of at once.
const BLOCK_BYTES: usize = 1 << 20;
/// Longest from one kill to the next, and from the last to the end.
const STRETCH_WITHIN: Duration = Duration::from_mins(2);
/// HTTP/2 and gRPC add 9 bytes to each 16 KiB and less than 64 to a chunk: less than a thousandth.
const FRAMING_SHARE: u64 = 1000;
/// Settings, headers, and what the connection beside that of the chunks says, for each connection.
const FRAMING_BYTES: u64 = 16 << 10;

/// What is done.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Size of the file.
    pub size: u64,
    /// Kills, of client and server in equal shares and mixed order.
    pub kills: u64,
    /// Decides on content, order and moments.
    pub seed: u64,
}

/// Who was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The process `acb`.
    Client,
    /// The process `acb-server`.
    Server,
}

/// What went between two kills.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    /// Whose death ended it; nobody's for the last.
    pub ended_by: Option<Victim>,
    /// Bytes on stable storage at its end.
    pub stored: u64,
    /// How many more these are than at its beginning.
    pub gain: u64,
    /// Bytes that left the client, all that HTTP/2 and gRPC add included.
    pub left: u64,
    /// Connections over which they left.
    pub connections: u64,
    /// Bytes of chunks that the server counted.
    pub arrived: u64,
    /// The most memory that the client's process had had at its end.
    pub client_peak: u64,
}

impl Stretch {
    /// Bytes of chunks that left the client and are not in the gain: sent again, or to be sent again. At most
    /// [`Self::framing`] too many.
    pub fn again(&self) -> u64 {
        self.left.saturating_sub(self.gain)
    }

    /// The same by the server's count.
    pub fn again_arrived(&self) -> u64 {
        self.arrived.saturating_sub(self.gain)
    }

    /// The most that `left` is above the bytes of chunks.
    pub fn framing(&self) -> u64 {
        self.left / FRAMING_SHARE + self.connections * FRAMING_BYTES
    }
}

impl fmt::Display for Stretch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ended_by = match self.ended_by {
            Some(Victim::Client) => "client killed",
            Some(Victim::Server) => "server killed",
            None => "complete",
        };
        write!(
            f,
            "{ended_by:<13} at {:>6.1} MiB: sent {:>5.1} MiB for a gain of {:>5.1}, {:>4.1} again ({:>4.1} had arrived); \
             client {:.1} MiB",
            mib(self.stored),
            mib(self.left),
            mib(self.gain),
            mib(self.again()),
            mib(self.again_arrived()),
            mib(self.client_peak),
        )
    }
}

/// Bytes for people.
pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Found {
    /// One for each kill, and the last, which nobody ended.
    pub stretches: Vec<Stretch>,
    /// The most memory that the same program had for a file of one chunk.
    pub tiny_peak: u64,
    /// SHA-256 of the file.
    pub file: Sha256Digest,
    /// What the command said of its upload.
    pub said: Sha256Digest,
    /// What came down again, and how much it was.
    pub down: (Sha256Digest, u64),
    /// From the first byte to the last answer.
    pub took: Duration,
}

/// Uploads a file over kills.
///
/// # Errors
/// When something does not go on after a kill, or cannot be measured.
pub async fn upload(plan: Plan, folder: &Path) -> Result<Found> {
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let (home, path) = (folder.join("home"), folder.join("home").join(NAME));
    std::fs::create_dir(&home).context("a folder for the client")?;
    let file = write_noise(&path, plan.size, &mut rng)?;
    let server = ServerOptions::default().real_clock().data_dir(folder.join("data")).start().await?;
    let relay = Relay::start(server.address()).await?;
    let tiny_peak = tiny_peak(&home, &relay, &mut rng).await?;
    relay.quiet().await?;
    let keeper = connect(&server).await?;
    let mut way = Way { server, relay, keeper, home, at: Mark::default() };
    way.at = way.mark(0).await?;
    let began = Instant::now();
    let mut client = way.client(&path)?;
    let mut stretches = Vec::new();
    for (victim, point) in moments(plan, &mut rng) {
        let killed = way.kill(client, victim, point).await;
        let (stretch, goes_on) = killed.with_context(|| format!("after {} kills", stretches.len()))?;
        println!("  {stretch}");
        stretches.push(stretch);
        client = match goes_on {
            Some(client) => client,
            None => way.client(&path)?,
        };
    }
    let (said, client_peak) = within("the upload to end", STRETCH_WITHIN, client.end()).await??;
    let took = began.elapsed();
    way.relay.quiet().await?;
    let stretch = way.stretch(None, plan.size, client_peak, way.arrived().await?)?;
    println!("  {stretch}");
    stretches.push(stretch);
    let down = way.keeper.streams().download_key(NAME).to_writer(&mut tokio::io::sink()).await?;
    ensure!(way.token()?.is_none(), "a complete upload needs no token");
    way.keeper.close().await;
    way.server.stop().await?;
    Ok(Found { stretches, tiny_peak, file, said, down: (down.sha256, down.size), took })
}

/// Who is killed, and at which byte of the file: each somewhere in its share of the way.
fn moments(plan: Plan, rng: &mut StdRng) -> Vec<(Victim, u64)> {
    let mut victims: Vec<_> =
        (0..plan.kills).map(|n| if n % 2 == 0 { Victim::Client } else { Victim::Server }).collect();
    victims.shuffle(rng);
    // The last share is nobody's: the upload must not be over before the last kill.
    let share = plan.size / (plan.kills + 1);
    victims.into_iter().zip(0..).map(|(victim, n)| (victim, share * n + rng.random_range(share / 8..share))).collect()
}

/// A file of bytes that nobody can make smaller, and its digest.
fn write_noise(path: &Path, size: u64, rng: &mut StdRng) -> Result<Sha256Digest> {
    let mut file = File::create(path).context("the file to upload")?;
    let (mut whole, mut block, mut left) = (Sha256::new(), vec![0; BLOCK_BYTES], size);
    while left > 0 {
        let len = left.min(BLOCK_BYTES as u64) as usize;
        rng.fill_bytes(&mut block[..len]);
        whole.update(&block[..len]);
        file.write_all(&block[..len])?;
        left -= len as u64;
    }
    Ok(Sha256Digest(whole.finalize().into()))
}

async fn connect(server: &Server) -> Result<Client> {
    let policy = RetryPolicy::default().initial(Duration::from_millis(2)).max(Duration::from_millis(50));
    let builder =
        Client::builder(format!("acb://{}", server.address())).credentials(Credentials::dev("default", AGENT));
    Ok(builder.reconnect(policy.clone()).retry(policy).connect().await?)
}

/// What the program needs at the least: for a file of one chunk.
async fn tiny_peak(home: &Path, relay: &Relay, rng: &mut StdRng) -> Result<u64> {
    let path = home.join("tiny");
    write_noise(&path, TINY_BYTES, rng)?;
    let client = Uploading::start(home, relay, &path, "tiny")?;
    let (_, peak) = within("a tiny upload", STRETCH_WITHIN, client.end()).await??;
    ensure!(peak > 0, "a tiny upload ended before it was looked at");
    Ok(peak)
}

/// Where the stretch began.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    stored: u64,
    left: u64,
    connections: u64,
    arrived: u64,
}

/// The bus, the way to it, and how far the upload is.
struct Way {
    server: Server,
    relay: Relay,
    /// The same agent, past the relay.
    keeper: Client,
    home: PathBuf,
    at: Mark,
}

impl Way {
    fn client(&self, path: &Path) -> Result<Uploading> {
        Uploading::start(&self.home, &self.relay, path, NAME)
    }

    /// Kills somebody when the file's byte at `point` has been sent. Gives the client, if it lives, ready to go on.
    async fn kill(
        &mut self,
        mut client: Uploading,
        victim: Victim,
        point: u64,
    ) -> Result<(Stretch, Option<Uploading>)> {
        // A point that was passed before the last kill is reached with the first byte after it.
        let bytes = self.at.left + point.saturating_sub(self.at.stored).max(1);
        let reached = within("the next moment", STRETCH_WITHIN, async {
            tokio::select! {
                () = self.relay.reach(bytes) => Ok(()),
                ended = client.child.wait() => bail!("the upload ended too soon: {ended:?}"),
            }
        });
        reached.await??;
        let peak = client.peak();
        if victim == Victim::Client {
            let peak = client.kill().await?.max(peak?);
            self.relay.quiet().await?;
            let (stored, arrived) = (self.stored_after_session().await?, self.arrived().await?);
            let stretch = self.stretch(Some(victim), stored, peak, arrived)?;
            self.at = self.mark(stored).await?;
            return Ok((stretch, None));
        }
        let arrived = self.arrived().await?;
        // The client is back before anybody can ask the server how much survived.
        self.relay.shut();
        self.server.kill().await?;
        self.relay.quiet().await?;
        self.server.restart().await?;
        let stored = self.stored().await?;
        let stretch = self.stretch(Some(victim), stored, peak?, arrived)?;
        self.at = self.mark(stored).await?;
        self.relay.open();
        Ok((stretch, Some(client)))
    }

    fn stretch(&self, ended_by: Option<Victim>, stored: u64, client_peak: u64, arrived: u64) -> Result<Stretch> {
        let (left, connections) = self.relay.left();
        let gain = stored.checked_sub(self.at.stored);
        Ok(Stretch {
            ended_by,
            stored,
            gain: gain.with_context(|| format!("{stored} bytes are stored, and {} were", self.at.stored))?,
            left: left - self.at.left,
            connections: connections - self.at.connections,
            arrived: arrived - self.at.arrived,
            client_peak,
        })
    }

    /// Where the next stretch begins.
    async fn mark(&self, stored: u64) -> Result<Mark> {
        let (left, connections) = self.relay.left();
        Ok(Mark { stored, left, connections, arrived: self.arrived().await? })
    }

    /// Bytes of chunks that came to the server in this life.
    async fn arrived(&self) -> Result<u64> {
        Ok(self.server.admin().metrics().await?.sum("acb_upload_bytes_total", &[]) as u64)
    }

    /// Bytes on stable storage, when the session of a client that died is over.
    async fn stored_after_session(&self) -> Result<u64> {
        let admin = self.server.admin();
        wait_until("the session to end", PATIENCE, || async move {
            match admin.metrics().await {
                Ok(metrics) => {
                    let open = metrics.sum("acb_uploads_open", &[]);
                    Level::when(open == 0.0, (), format!("{open} uploads are open"))
                }
                Err(error) => Level::not_yet(error),
            }
        })
        .await?;
        // One writer serves the metadata: what is written now comes after all that the session still had in hand.
        let key = format!("after/{}", self.relay.left().1);
        self.keeper.contexts().share(key, "the session").await?;
        self.stored().await
    }

    /// Bytes on stable storage, by the server's word.
    async fn stored(&self) -> Result<u64> {
        let stream = self.token()?.context("an upload under way has a token")?;
        let status = self.keeper.streams().status(stream).await?;
        ensure!(status.state == "open", "the upload is {}", status.state);
        Ok(status.received_bytes)
    }

    /// The upload that the command left its token of.
    fn token(&self) -> Result<Option<StreamId>> {
        for entry in std::fs::read_dir(&self.home)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "acb-upload") {
                let token: Value = serde_json::from_slice(&std::fs::read(&path)?).context("the token")?;
                let stream = token["stream_id"].as_str().context("the token names no stream")?;
                return Ok(Some(stream.parse().map_err(|e| anyhow::anyhow!("{stream}: {e}"))?));
            }
        }
        Ok(None)
    }
}

/// The command, under way.
struct Uploading {
    child: Child,
    /// Reads its progress to the end, and looks at its memory with each line.
    progress: JoinHandle<Heard>,
}

/// What was learned of a command while it ran.
#[derive(Debug, Default)]
struct Heard {
    peak: u64,
    last: String,
}

impl Uploading {
    fn start(home: &Path, relay: &Relay, path: &Path, key: &str) -> Result<Self> {
        let program = server_program()?.with_file_name("acb");
        let mut command = Command::new(&program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"ACB_")) {
            command.env_remove(name);
        }
        command
            .args(["--json", "--agent", AGENT, "upload", "--key", key])
            .arg(path)
            .env("ACB_URL", format!("acb://{}", relay.address()))
            .env("XDG_CONFIG_HOME", home)
            .env("HOME", home)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        let pid = child.id().context("it ended at once")?;
        let stderr = child.stderr.take().context("its progress")?;
        let progress = tokio::spawn(async move {
            let (mut lines, mut heard) = (BufReader::new(stderr).lines(), Heard::default());
            while let Ok(Some(line)) = lines.next_line().await {
                // Who ended meanwhile is not there to be looked at.
                heard.peak = peak(pid).unwrap_or(0).max(heard.peak);
                heard.last = line;
            }
            heard
        });
        Ok(Self { child, progress })
    }

    /// The most memory that it has had so far.
    fn peak(&self) -> Result<u64> {
        peak(self.child.id().context("the client has ended")?)
    }

    /// SIGKILL, and waits for the end. The most memory that was seen.
    async fn kill(mut self) -> Result<u64> {
        self.child.kill().await.context("killing the client")?;
        Ok(self.progress.await?.peak)
    }

    /// Waits for its end: what it said the digest is, and the most memory that was seen.
    async fn end(mut self) -> Result<(Sha256Digest, u64)> {
        let mut said = String::new();
        self.child.stdout.take().context("its answer")?.read_to_string(&mut said).await?;
        let (status, heard) = (self.child.wait().await?, self.progress.await?);
        ensure!(status.success(), "acb upload: {status}: {}", heard.last);
        let said: Value = serde_json::from_str(&said).context("its answer")?;
        let digest = said["sha256"].as_str().context("its answer has no digest")?;
        Ok((digest.parse().map_err(|e| anyhow::anyhow!("{digest}: {e}"))?, heard.peak))
    }
}

/// The most memory that a process has had resident, in bytes.
fn peak(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("the process has ended")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().context("VmHWM")?;
    Ok(kib << 10)
}
