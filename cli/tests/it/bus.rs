//! The server, and `acb` run against it.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use acb_testkit::{
    Server, ServerOptions,
    wait::{PATIENCE, within},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdout, Command},
};

/// A command may take so long, on a busy machine: most take a hundredth of it.
const COMMAND_WITHIN: Duration = Duration::from_secs(30);

/// A server, and a home folder for its users.
pub(crate) struct Bus {
    pub(crate) server: Server,
    pub(crate) home: TempDir,
}

impl Bus {
    /// A server that believes everybody.
    pub(crate) async fn dev() -> Self {
        Self::start(ServerOptions::default().real_clock()).await
    }

    /// A server that asks for credentials, and its first admin key.
    pub(crate) async fn with_credentials() -> (Self, String) {
        let home = tempfile::tempdir().unwrap();
        let key_file = home.path().join("admin.key");
        let options = ServerOptions::default().real_clock().with_credentials();
        let server = options.arg(format!("--admin-key-file={}", key_file.display())).start().await.unwrap();
        let key = std::fs::read_to_string(key_file).unwrap().trim().to_owned();
        (Self { server, home }, key)
    }

    async fn start(options: ServerOptions) -> Self {
        Self { server: options.start().await.unwrap(), home: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn url(&self) -> String {
        format!("acb://{}", self.server.address())
    }

    /// `acb` with these words, for this server, at home here.
    pub(crate) fn acb(&self, words: &str) -> Acb {
        let words: Vec<&str> = words.split_whitespace().collect();
        Acb::new(self.home.path(), &words).env("ACB_URL", &self.url())
    }

    /// Runs `acb`, expects that it succeeds, and gives what it printed.
    pub(crate) async fn ok(&self, words: &str) -> String {
        self.acb(words).ok().await
    }

    /// Runs `acb --json`, expects that it succeeds and prints one object.
    pub(crate) async fn json(&self, words: &str) -> Value {
        let mut objects = self.json_lines(words).await;
        assert_eq!(objects.len(), 1, "{words} printed {objects:?}");
        objects.remove(0)
    }

    /// Runs `acb --json`, expects that it succeeds, and gives the objects that it printed.
    pub(crate) async fn json_lines(&self, words: &str) -> Vec<Value> {
        objects(&self.acb(&format!("--json {words}")).ok().await)
    }
}

/// The objects of JSON lines.
pub(crate) fn objects(lines: &str) -> Vec<Value> {
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line:?} is no JSON: {e}")))
        .collect()
}

/// `acb`, about to run.
pub(crate) struct Acb {
    command: Command,
    input: Vec<u8>,
}

impl Acb {
    /// With these words, and with nothing of the environment that says who the user is.
    pub(crate) fn new(home: &Path, words: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_acb"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ACB_")) {
            command.env_remove(name);
        }
        command
            .args(words)
            .env("XDG_CONFIG_HOME", home)
            .env("HOME", home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        Self { command, input: Vec::new() }
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// One more word, spaces and all.
    pub(crate) fn word(mut self, word: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.arg(word);
        self
    }

    /// What comes through the pipe.
    pub(crate) fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    /// Runs it to its end.
    pub(crate) async fn run(mut self) -> Ran {
        let shown = format!("{:?}", self.command.as_std());
        let mut child = self.command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let (feed, output) = tokio::join!(
            async move { input.write_all(&self.input).await },
            within(&shown, COMMAND_WITHIN, child.wait_with_output())
        );
        // A command need not read what it is given.
        let _ = feed;
        let output = output.unwrap().unwrap();
        Ran {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs it, expects that it succeeds, and gives what it printed.
    pub(crate) async fn ok(self) -> String {
        let ran = self.run().await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
        ran.out
    }

    /// Runs it and expects that it fails with this exit code.
    pub(crate) async fn fails(self, code: i32) -> Ran {
        let ran = self.run().await;
        assert_eq!(ran.code, Some(code), "{ran:?}");
        ran
    }

    /// Starts it, and waits for nothing.
    pub(crate) async fn start(mut self) -> Running {
        let mut child = self.command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(&self.input).await.unwrap();
        Running {
            out: Some(BufReader::new(child.stdout.take().unwrap()).lines()),
            err: BufReader::new(child.stderr.take().unwrap()).lines(),
            child,
        }
    }
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// The first line of standard error.
    pub(crate) fn sentence(&self) -> &str {
        self.err.lines().next().unwrap_or_default()
    }
}

/// A command that runs.
pub(crate) struct Running {
    child: Child,
    out: Option<Lines<BufReader<ChildStdout>>>,
    err: Lines<BufReader<ChildStderr>>,
}

impl Running {
    /// The next line that it prints.
    pub(crate) async fn line(&mut self) -> String {
        let next = self.out.as_mut().unwrap().next_line();
        within("a line", PATIENCE, next).await.unwrap().unwrap().expect("the command ended")
    }

    /// Reads what it says beside its results until a line holds this.
    pub(crate) async fn says(&mut self, text: &str) -> String {
        loop {
            let next = within(text, PATIENCE, self.err.next_line()).await.unwrap().unwrap();
            let line = next.unwrap_or_else(|| panic!("it ended and never said {text:?}"));
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Does not read any more what it prints.
    pub(crate) fn stop_reading(&mut self) {
        self.out = None;
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Sends it a signal, such as INT.
    pub(crate) async fn signal(&self, name: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().await.unwrap().success());
    }

    /// Waits for its end.
    pub(crate) async fn end(mut self) -> Ran {
        let (mut out, mut err) = (String::new(), String::new());
        let rest = async {
            if let Some(lines) = self.out.take() {
                lines.into_inner().read_to_string(&mut out).await.unwrap();
            }
            self.err.into_inner().read_to_string(&mut err).await.unwrap();
            self.child.wait().await.unwrap()
        };
        let status = within("the command to end", COMMAND_WITHIN, rest).await.unwrap();
        Ran { code: status.code(), out, err }
    }
}

/// A file with this content, at home.
pub(crate) fn file(bus: &Bus, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = bus.home.path().join(name);
    std::fs::write(&path, content).unwrap();
    path
}
