//! Starts one server at a time on a fresh store, and removes both afterwards.
//!
//! A fresh server per run rather than a long-lived one with its stream deleted: every run of both sides then
//! begins in the same state, and nothing of a run is left on the disk or in memory for the next.

pub(crate) mod acb;
mod nats;
mod redis;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    case::{Case, Peer, Target},
    cli::RunOptions,
    proc::file_system,
};

/// What is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Ours.
    Acb,
    /// A peer's server with the peer's setting.
    Peer(Peer),
}

/// The program that serves a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    Acb,
    Nats,
    Redis,
}

impl Kind {
    /// Files have no server: ours stands idle beside them, so that the run is the same in everything else.
    fn program(self) -> Program {
        match self {
            Self::Acb => Program::Acb,
            Self::Peer(peer) => match peer.target() {
                Target::Acb | Target::Files => Program::Acb,
                Target::Nats => Program::Nats,
                Target::Redis => Program::Redis,
            },
        }
    }
}

/// Where the programs and the stores are.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    acb_server: PathBuf,
    nats_server: PathBuf,
    redis_server: PathBuf,
    data_dir: PathBuf,
}

impl Programs {
    /// Takes the paths from the options; makes the data folder and refuses a tmpfs.
    pub(crate) fn new(options: &RunOptions) -> Result<Self> {
        let data_dir = &options.data_dir;
        fs::create_dir_all(data_dir).with_context(|| format!("cannot create {}", data_dir.display()))?;
        let kind = file_system(data_dir).unwrap_or_default();
        ensure!(
            kind != "tmpfs" && kind != "ramfs",
            "{} is a {kind}: stores must be on the disk under test (--data-dir)",
            data_dir.display()
        );
        Ok(Self {
            acb_server: options.acb_server.clone(),
            nats_server: options.peers_dir.join("nats-server"),
            redis_server: options.peers_dir.join("redis-server"),
            data_dir: data_dir.canonicalize()?,
        })
    }

    /// The program of a kind, or a plain sentence on how to get it.
    pub(crate) fn program(&self, kind: Kind) -> Result<&Path> {
        let (path, remedy) = match kind.program() {
            Program::Acb => (&self.acb_server, "cargo build --release -p acb-server"),
            Program::Redis => (&self.redis_server, "scripts/bench-peers.sh"),
            Program::Nats => (&self.nats_server, "scripts/bench-peers.sh"),
        };
        ensure!(path.is_file(), "{} is missing: run `{remedy}`", path.display());
        Ok(path)
    }

    /// The folder of the stores.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Starts a server and waits until it is ready, with what the case needs of ours.
    pub(crate) fn start(&self, kind: Kind, case: &Case) -> Result<Running> {
        let program = self.program(kind)?;
        let folder = self.data_dir.join(format!("run-{}", std::process::id()));
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        let [port, admin_port] = free_ports()?;
        let place = Place { folder, port, admin_port };
        fs::create_dir_all(place.work_dir())?;
        let command = match kind {
            Kind::Peer(peer) if kind.program() == Program::Redis => redis::command(program, &place, peer)?,
            Kind::Peer(peer) if kind.program() == Program::Nats => nats::command(program, &place, peer)?,
            _ => acb::command(program, &place, case)?,
        };
        let mut running = Running::spawn(command, place)?;
        running.wait_ready(|place| match kind.program() {
            Program::Acb => acb::ready(place),
            Program::Redis => redis::ready(place),
            Program::Nats => nats::ready(place),
        })?;
        Ok(running)
    }
}

/// Folder and ports of one server.
#[derive(Debug)]
pub(crate) struct Place {
    folder: PathBuf,
    port: u16,
    admin_port: u16,
}

impl Place {
    /// `host:port` that clients connect to.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `host:port` of ACB's admin listener.
    pub(crate) fn admin(&self) -> String {
        format!("127.0.0.1:{}", self.admin_port)
    }

    fn store(&self) -> PathBuf {
        self.folder.join("store")
    }

    /// Folder for files of a load, on the disk under test; goes with the store.
    pub(crate) fn work_dir(&self) -> PathBuf {
        self.folder.join("work")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    /// Writes a configuration file.
    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

/// A server that is up; dropped, it is killed and its store removed.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    place: Place,
}

/// How long a server may take to be ready.
const READY: Duration = Duration::from_secs(20);

impl Running {
    fn spawn(mut command: Command, place: Place) -> Result<Self> {
        let log = fs::File::create(place.log())?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
        Ok(Self { child, place })
    }

    fn wait_ready(&mut self, ready: impl Fn(&Place) -> bool) -> Result<()> {
        let deadline = Instant::now() + READY;
        while !ready(&self.place) {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended with {status}:\n{}", self.log_tail());
            }
            if Instant::now() > deadline {
                bail!("the server is not ready after {READY:?}:\n{}", self.log_tail());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Folder and addresses.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// The server's process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The last lines the server wrote.
    pub(crate) fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.place.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Its store goes with it, so nothing is gained by a graceful end.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.place.folder);
        let _ = fs::remove_file(acb::key_file(&self.place.address()));
    }
}

/// Two ports nobody listens on right now; held together, so that they differ.
fn free_ports() -> Result<[u16; 2]> {
    let (one, two) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    Ok([one.local_addr()?.port(), two.local_addr()?.port()])
}

/// Connects, sends `question` and returns what comes first; empty when nobody answers.
fn ask(address: &str, question: &[u8]) -> Vec<u8> {
    let talk = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        stream.write_all(question)?;
        let mut answer = vec![0; 4096];
        let length = stream.read(&mut answer)?;
        answer.truncate(length);
        Ok(answer)
    };
    talk().unwrap_or_default()
}
