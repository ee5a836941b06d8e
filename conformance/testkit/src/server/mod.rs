//! The real server, as a process: started, killed, stopped, started again on the same folder and ports.

mod place;

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use tokio::process::{Child, Command};

pub use self::place::{DataDir, SERVER_BIN, free_port, local, server_program};
use crate::{
    admin::Admin,
    wait::{Level, wait_until, within},
};

/// Longest from start to ready. An empty folder takes under 200 ms; a folder after a crash, on a busy machine, more.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Longest from SIGTERM to the end.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// How much of a server's log a failure shows.
const LOG_SHOWN_BYTES: u64 = 2 * 1024;

/// How a server is started.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    dev: bool,
    manual_clock: bool,
    data_dir: Option<PathBuf>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    wrapper: Vec<String>,
    program: Option<PathBuf>,
}

impl Default for ServerOptions {
    /// `--dev --manual-clock` on a new folder.
    fn default() -> Self {
        Self {
            dev: true,
            manual_clock: true,
            data_dir: None,
            args: Vec::new(),
            env: Vec::new(),
            wrapper: Vec::new(),
            program: None,
        }
    }
}

impl ServerOptions {
    /// Credentials are asked for.
    #[must_use]
    pub fn with_credentials(mut self) -> Self {
        self.dev = false;
        self
    }

    /// The machine's own time.
    #[must_use]
    pub fn real_clock(mut self) -> Self {
        self.manual_clock = false;
        self
    }

    /// A folder that stays, such as a mount.
    #[must_use]
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(path.into());
        self
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// One more variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A program that runs it, with its arguments, such as `strace -f`.
    #[must_use]
    pub fn wrapper(mut self, words: &[&str]) -> Self {
        self.wrapper = words.iter().map(|w| (*w).to_owned()).collect();
        self
    }

    /// Another program than the built server.
    #[must_use]
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = Some(path.into());
        self
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When it is not built, ends at once or is not ready in time: with its log.
    pub async fn start(self) -> Result<Server> {
        Server::start(self).await
    }
}

/// A server that runs, or ran.
#[derive(Debug)]
pub struct Server {
    options: ServerOptions,
    data: DataDir,
    log: tempfile::NamedTempFile,
    listen: SocketAddr,
    admin: SocketAddr,
    child: Option<Child>,
    started_in: Duration,
    /// Where a manual clock stands at the next start; where the server's own stands without.
    clock_at: Option<u64>,
}

impl Server {
    async fn start(options: ServerOptions) -> Result<Self> {
        let data = match &options.data_dir {
            Some(path) => DataDir::Given(path.clone()),
            None => DataDir::new()?,
        };
        let mut server = Self {
            data,
            log: tempfile::Builder::new().prefix("acb-server-").suffix(".log").tempfile().context("the log")?,
            listen: local(free_port()?),
            admin: local(free_port()?),
            child: None,
            started_in: Duration::ZERO,
            clock_at: None,
            options,
        };
        server.run().await?;
        Ok(server)
    }

    /// Starts the process and waits until it is ready.
    async fn run(&mut self) -> Result<()> {
        let started = Instant::now();
        let mut child = self.command()?.spawn().context("starting acb-server")?;
        let admin = self.admin();
        let ready = wait_until("the server to be ready", READY_WITHIN, || {
            let ended = child.try_wait();
            async move {
                match ended {
                    Ok(None) => Level::when(admin.is_ready().await, Ok(()), "not ready"),
                    Ok(Some(status)) => Level::Reached(Err(status)),
                    Err(error) => Level::not_yet(error),
                }
            }
        })
        .await;
        self.child = Some(child);
        self.started_in = started.elapsed();
        match ready {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => bail!("acb-server ended at its start ({status})\n{}", self.log_tail()),
            Err(error) => bail!("{error}\n{}", self.log_tail()),
        }
    }

    fn command(&self) -> Result<Command> {
        let program = match &self.options.program {
            Some(path) => path.clone(),
            None => server_program()?,
        };
        let mut words = self.options.wrapper.iter();
        let mut command = match words.next() {
            Some(wrapper) => {
                let mut command = Command::new(wrapper);
                command.args(words).arg(program);
                command
            }
            None => Command::new(program),
        };
        // What the test run was told, such as where the program lies or how many rounds to do, is not the server's: it
        // takes every `ACB_<SECTION>_...` for a setting, and refuses those that it does not know.
        for name in own_variables(std::env::vars_os().map(|(name, _)| name)) {
            command.env_remove(name);
        }
        if self.options.dev {
            command.arg("--dev");
        }
        if self.options.manual_clock {
            command.arg(match self.clock_at {
                Some(wall_ms) => format!("--manual-clock={wall_ms}"),
                None => "--manual-clock".to_owned(),
            });
        }
        command
            .args(["--listen", &self.listen.to_string()])
            .args(["--admin-listen", &self.admin.to_string()])
            .arg("--data-dir")
            .arg(self.data.path())
            .args(&self.options.args)
            // It is meant for us: a server takes every `ACB_SERVER_…` for a setting of its own.
            .env_remove(SERVER_BIN)
            .envs(self.options.env.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(self.log_file()?)
            .stderr(self.log_file()?)
            .kill_on_drop(true);
        Ok(command)
    }

    fn log_file(&self) -> Result<File> {
        OpenOptions::new().append(true).open(self.log.path()).context("the server's log")
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.listen
    }

    /// Its admin listener.
    pub fn admin(&self) -> Admin {
        Admin::new(self.admin)
    }

    /// Its data folder.
    pub fn data_dir(&self) -> &Path {
        self.data.path()
    }

    /// How long its last start took, from the process to ready.
    pub fn started_in(&self) -> Duration {
        self.started_in
    }

    /// Its process; `None` when it does not run.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// SIGKILL, and waits for the end.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the server does not run")?;
        child.kill().await.context("killing the server")
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        let mut child = self.child.take().context("the server does not run")?;
        let pid = child.id().context("the server has ended")?.to_string();
        let told = Command::new("kill").args(["-TERM", &pid]).status().await.context("kill -TERM")?;
        if !told.success() {
            bail!("kill -TERM {pid}: {told}");
        }
        match within("the server to stop", STOP_WITHIN, child.wait()).await {
            Ok(status) => Ok(status?),
            Err(error) => bail!("{error}\n{}", self.log_tail()),
        }
    }

    /// Starts it again on the same folder and ports. Kills it first when it runs.
    ///
    /// # Errors
    /// As the first start.
    pub async fn restart(&mut self) -> Result<()> {
        if self.child.is_some() {
            self.kill().await?;
        }
        self.run().await
    }

    /// Where the manual clock stands at the next start, in milliseconds since 1970: a machine's time goes on while its
    /// server is down.
    pub fn start_clock_at(&mut self, wall_ms: u64) {
        self.clock_at = Some(wall_ms);
    }

    /// All that it wrote to its outputs, over all starts.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn log(&self) -> Result<String> {
        let bytes = std::fs::read(self.log.path()).context("the server's log")?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The end of its log, for the message of a failure.
    pub fn log_tail(&self) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = File::open(self.log.path())?;
            let len = file.metadata()?.len();
            file.seek(SeekFrom::Start(len.saturating_sub(LOG_SHOWN_BYTES)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        match read() {
            Ok(text) => format!("--- the server's log ends with\n{text}---"),
            Err(error) => format!("the server's log cannot be read: {error}"),
        }
    }
}

/// Of a process's variables, those that a server would take for its own.
fn own_variables(names: impl Iterator<Item = OsString>) -> Vec<OsString> {
    names.filter(|name| name.as_encoded_bytes().starts_with(b"ACB_")).collect()
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_told_what_a_test_gives_it_and_not_what_the_test_run_was_told() {
        let given = ["PATH", "ACB_SERVER_BIN", "ACB_CRASH_ROUNDS", "NOT_ACB_X", "ACB"].map(OsString::from);
        assert_eq!(own_variables(given.into_iter()), ["ACB_SERVER_BIN", "ACB_CRASH_ROUNDS"].map(OsString::from));
    }
}
