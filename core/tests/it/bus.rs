//! The real server as a process, and a proxy before it that cuts connections at any byte.
//!
//! The program is `$ACB_SERVER_BIN`, or `target/debug/acb-server`, which must be built before: a test that is passed over in
//! silence proves nothing.

use std::{path::PathBuf, process::Stdio, time::Duration};

use acb_sdk::{Client, ClientBuilder, Credentials};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::{broadcast, watch},
};

use crate::peer::soon;

/// Between two looks of [`found`].
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A running server.
pub(crate) struct Bus {
    program: PathBuf,
    /// `SECTION.KEY=VALUE` each.
    settings: &'static [&'static str],
    folder: tempfile::TempDir,
    child: Child,
    pub(crate) port: u16,
}

fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("ACB_SERVER_BIN") {
        return path.into();
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/debug/acb-server");
    assert!(path.exists(), "there is no {}: cargo build --bin acb-server", path.display());
    path
}

impl Bus {
    /// Starts a server.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a server with some settings.
    pub(crate) async fn start_with(settings: &'static [&'static str]) -> Self {
        let program = program();
        let folder = tempfile::tempdir().unwrap();
        let (child, port) = run(&program, settings, &folder, 0).await;
        Self { program, settings, folder, child, port }
    }

    /// Kills it without warning, and starts it again on the same port and folder.
    pub(crate) async fn kill_and_restart(&mut self) {
        self.child.kill().await.unwrap();
        (self.child, _) = run(&self.program, self.settings, &self.folder, self.port).await;
    }

    pub(crate) fn builder(&self, agent: &str) -> ClientBuilder {
        builder(self.port, agent)
    }

    pub(crate) async fn client(&self, agent: &str) -> Client {
        self.builder(agent).connect().await.unwrap()
    }
}

pub(crate) fn builder(port: u16, agent: &str) -> ClientBuilder {
    Client::builder(format!("acb://127.0.0.1:{port}")).credentials(Credentials::dev("default", agent))
}

async fn run(program: &PathBuf, settings: &[&str], folder: &tempfile::TempDir, port: u16) -> (Child, u16) {
    let mut child = Command::new(program)
        .args(["--dev", "--admin-listen", "127.0.0.1:0", "--listen", &format!("127.0.0.1:{port}"), "--data-dir"])
        .arg(folder.path().join("data"))
        .args(settings.iter().flat_map(|s| ["--set", s]))
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (found, port) = tokio::sync::oneshot::channel();
    let mut found = Some(found);
    for out in [
        Box::new(child.stdout.take().unwrap()) as Box<dyn tokio::io::AsyncRead + Send + Unpin>,
        Box::new(child.stderr.take().unwrap()),
    ] {
        let mut found = found.take();
        tokio::spawn(async move {
            let mut lines = BufReader::new(out).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(rest) = line.split("acb://127.0.0.1:").nth(1)
                    && let Some(found) = found.take()
                {
                    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                    let _ = found.send(digits.parse::<u16>().unwrap());
                } else if line.contains("ERROR") || line.contains("panicked") {
                    eprintln!("server: {line}");
                }
            }
        });
    }
    let port = soon("the server to be ready", port).await.expect("the server ended before it was ready");
    (child, port)
}

/// Looks until there is what was looked for: for what only the server knows.
pub(crate) async fn found<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    soon(what, async {
        let mut looks = tokio::time::interval(LOOK_AGAIN);
        loop {
            looks.tick().await;
            if let Some(found) = look().await {
                return found;
            }
        }
    })
    .await
}

/// Forwards to a server, and cuts.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    cuts: broadcast::Sender<()>,
    /// Bytes that went up so far, over all connections.
    up: watch::Receiver<u64>,
}

impl Proxy {
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let (cuts, _) = broadcast::channel(16);
        let (counted, up) = watch::channel(0);
        let cut = cuts.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                near.set_nodelay(true).unwrap();
                let (mut cut, counted) = (cut.subscribe(), counted.clone());
                tokio::spawn(async move {
                    let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                    far.set_nodelay(true).unwrap();
                    let (near_read, near_write) = near.into_split();
                    let (far_read, far_write) = far.into_split();
                    tokio::select! {
                        () = pump(near_read, far_write, Some(&counted)) => {}
                        () = pump(far_read, near_write, None) => {}
                        _ = cut.recv() => {}
                    }
                });
            }
        });
        Self { port: own, cuts, up }
    }

    /// Cuts all connections, wherever their bytes are.
    pub(crate) fn cut(&self) {
        let _ = self.cuts.send(());
    }

    /// Waits until so many more bytes have gone up.
    pub(crate) async fn after(&self, bytes: u64) {
        let mut up = self.up.clone();
        let wanted = *up.borrow() + bytes;
        soon("bytes to go up", up.wait_for(|up| *up >= wanted)).await.unwrap();
    }
}

/// Copies in small pieces, so that a cut falls into the middle of frames.
async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    counted: Option<&watch::Sender<u64>>,
) {
    let mut piece = [0; 997];
    while let Ok(read @ 1..) = from.read(&mut piece).await {
        if to.write_all(&piece[..read]).await.is_err() {
            return;
        }
        if let Some(counted) = counted {
            counted.send_modify(|up| *up += read as u64);
        }
    }
}
