//! The server as a process that can be killed and started again on the same data.
//!
//! Between the demo and the server stands a guard: this same program, which starts the server, kills it when it is told
//! to, and when the demo itself is gone. So no server outlives the demo, however that ends.

use std::{
    fs::File,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStdin, ChildStdout, Command},
    time::Instant,
};

/// How long a start may take, on a busy machine and after a kill.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// How long one question to the admin listener may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How often a server that starts is asked whether it is ready.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// Largest answer of the admin listener that is read.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// Word to the guard.
const KILL: &str = "kill";

/// Where a server lives: its program, its ports, its files. The same from start to start.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The program.
    pub(crate) program: PathBuf,
    /// Where agents reach it.
    pub(crate) listen: SocketAddr,
    /// Where it answers `/ready` and `/metrics`.
    pub(crate) admin: SocketAddr,
    /// Its data.
    pub(crate) data: PathBuf,
    /// What it prints.
    pub(crate) log: PathBuf,
    /// Where it writes its first admin key.
    pub(crate) admin_key: PathBuf,
}

impl Place {
    /// A place in a folder, on two ports that are free now.
    pub(crate) fn new(program: &Path, folder: &Path) -> Result<Self> {
        ensure!(
            program.is_file(),
            "there is no server at {}; build it with: cargo build -p acb-server",
            program.display()
        );
        // Both are held until both are known, so that they differ.
        let (first, second) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
        Ok(Self {
            program: program.canonicalize()?,
            listen: first.local_addr()?,
            admin: second.local_addr()?,
            data: folder.join("data"),
            log: folder.join("server.log"),
            admin_key: folder.join("admin.key"),
        })
    }

    fn arguments(&self) -> Vec<String> {
        let path = |path: &Path| path.display().to_string();
        vec![
            format!("--listen={}", self.listen),
            format!("--admin-listen={}", self.admin),
            format!("--data-dir={}", path(&self.data)),
            format!("--admin-key-file={}", path(&self.admin_key)),
        ]
    }

    /// The address as clients take it.
    pub(crate) fn url(&self) -> String {
        format!("acb://{}", self.listen)
    }

    /// The metrics as they are now.
    pub(crate) async fn metrics(&self) -> Result<String> {
        let (status, body) = ask(self.admin, "/metrics").await?;
        ensure!(status == 200, "the metrics answer with status {status}");
        Ok(body)
    }
}

/// A server that runs.
pub(crate) struct Server {
    guard: Child,
    words: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    /// Its process.
    pub(crate) pid: u32,
}

impl Server {
    /// Starts the server and waits until it is ready.
    pub(crate) async fn start(place: &Place) -> Result<Self> {
        let log = File::options().create(true).append(true).open(&place.log)?;
        let mut guard = Command::new(std::env::current_exe()?);
        // Neither settings in the user's environment nor a file of them where the user is are the demo's.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ACB_")) {
            guard.env_remove(name);
        }
        let mut guard = guard
            .arg("as-guard")
            .arg(&place.program)
            .args(place.arguments())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .current_dir(place.data.parent().unwrap_or(&place.data))
            .spawn()?;
        let words = guard.stdin.take().context("standard input is piped")?;
        let mut answers = BufReader::new(guard.stdout.take().context("standard output is piped")?).lines();
        let first = answers.next_line().await?.unwrap_or_default();
        let Some(pid) = first.strip_prefix("pid ").and_then(|pid| pid.parse().ok()) else {
            bail!("the server did not start: {first}");
        };
        let mut server = Self { guard, words, answers, pid };
        server.ready(place).await?;
        Ok(server)
    }

    async fn ready(&mut self, place: &Place) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if matches!(ask(place.admin, "/ready").await, Ok((200, _))) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the server is not ready after {READY_WITHIN:?}");
            // Cancel-safe: a line half read stays in the reader.
            if let Ok(line) = tokio::time::timeout(ASK_EVERY, self.answers.next_line()).await {
                bail!("the server ended while it started: {}", line?.unwrap_or_default());
            }
        }
    }

    /// Ends the server with SIGKILL, at once: it does not get to do anything.
    pub(crate) async fn kill(mut self) -> Result<String> {
        self.words.write_all(format!("{KILL}\n").as_bytes()).await?;
        let how = self.answers.next_line().await?.unwrap_or_default();
        self.guard.wait().await?;
        Ok(how)
    }
}

/// The guard: starts the server, and kills it on a word or when nobody is there any more to say one.
///
/// # Errors
/// When the server cannot be started.
pub(crate) async fn guard(program: &Path, arguments: &[String]) -> Result<()> {
    let mut server = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::from(std::io::stderr()))
        .kill_on_drop(true)
        // A group of its own: Ctrl-C on the terminal ends the demo, and the demo ends the server.
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    println!("pid {}", server.id().unwrap_or_default());
    let mut words = BufReader::new(tokio::io::stdin()).lines();
    // Both arms are cancel-safe.
    let ended = tokio::select! {
        ended = server.wait() => ended?,
        _ = words.next_line() => {
            server.kill().await?;
            server.wait().await?
        }
    };
    println!("{ended}");
    Ok(())
}

/// One question over HTTP/1.1: status and body.
async fn ask(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let talk = async {
        let mut stream = TcpStream::connect(address).await?;
        let question = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(question.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
        parse(&String::from_utf8_lossy(&answer))
    };
    tokio::time::timeout(ANSWER_WITHIN, talk).await.context("no answer")?
}

fn parse(answer: &str) -> Result<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer breaks off")?;
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok()).context("no status")?;
    let chunked = head.lines().any(|line| line.to_ascii_lowercase().starts_with("transfer-encoding: chunked"));
    Ok((status, if chunked { unchunk(body) } else { body.to_owned() }))
}

fn unchunk(body: &str) -> String {
    let (mut rest, mut out) = (body, String::new());
    while let Some((size, after)) = rest.split_once("\r\n") {
        let Ok(size @ 1..) = usize::from_str_radix(size.trim(), 16) else { break };
        let Some(chunk) = after.get(..size) else { break };
        out.push_str(chunk);
        rest = after[size..].trim_start_matches("\r\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whole_and_in_chunks() {
        assert_eq!(parse("HTTP/1.1 503 No\r\nx: y\r\n\r\nhi").unwrap(), (503, "hi".into()));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        assert_eq!(parse(chunked).unwrap(), (200, "abcde".into()));
        assert!(parse("HTTP/1.1 200 OK\r\n").is_err());
    }

    #[test]
    fn a_missing_server_is_named_with_what_to_do() {
        let refused = Place::new(Path::new("/absent/acb-server"), Path::new("/tmp")).unwrap_err().to_string();
        assert!(refused.contains("/absent/acb-server") && refused.contains("cargo build"), "{refused}");
    }
}
