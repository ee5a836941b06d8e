//! The program itself: its command line, its settings, its screen, its signals, its exit codes.

use std::{
    fs,
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_acb-server"));
    command.current_dir(folder).stdin(Stdio::null());
    // Those of the test run are not the server's.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"ACB_")) {
        command.env_remove(name);
    }
    command
}

fn run(folder: &Path, args: &[&str]) -> Output {
    program(folder).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A running program. Killed when the test ends, whatever happens.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Starts on ports of the system's choice and waits for the screen.
    fn start(folder: &Path, args: &[&str]) -> (Self, String) {
        let fixed = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        let mut child =
            program(folder).args(fixed).args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = child.stdout.take().unwrap();
        let running = Self(child);
        let mut screen = Vec::new();
        let mut some = [0; 4096];
        // The screen comes in one piece when the server is ready.
        let n = out.read(&mut some).unwrap();
        screen.extend_from_slice(&some[..n]);
        (running, text(&screen))
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.0.id().to_string()]).status().unwrap().success());
    }

    fn code(mut self) -> (Option<i32>, String) {
        // Its log ends with it. One that never ends is ended by the runner's own limit.
        let mut log = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (self.0.wait().unwrap().code(), log)
    }
}

#[test]
fn the_settings_are_printed_with_who_said_so() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("acb.toml"),
        "[server]\nlisten = \"127.0.0.1:9000\"\n[auth]\naccess_token_ttl = \"2h\"\n",
    )
    .unwrap();
    let output = program(folder.path())
        .args(["config", "--log-format", "json"])
        .env("ACB_SERVER_LISTEN", "127.0.0.1:9001")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let printed = text(&output.stdout);
    let line = |key: &str| printed.lines().find(|l| l.starts_with(key)).unwrap_or_else(|| panic!("{key} in {printed}"));
    assert!(line("listen").contains("9001") && line("listen").ends_with("# ACB_SERVER_LISTEN"), "{printed}");
    assert!(line("access_token_ttl").ends_with("# acb.toml"), "{printed}");
    assert!(line("format").ends_with("# --log-format"), "{printed}");
    assert!(line("data_dir").ends_with("# default"), "{printed}");
}

#[test]
fn a_flag_beats_a_variable_a_variable_the_file_and_the_file_the_default() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("acb.toml"), "[log]\nfilter = \"of-file\"\nformat = \"text\"\n").unwrap();
    let printed = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let all = text(&output.stdout);
        all.lines().find(|l| l.starts_with("filter")).unwrap_or_else(|| panic!("{all}")).to_owned()
    };
    let variable = |command: &mut Command| {
        command.env("ACB_LOG_FILTER", "of-variable");
    };
    let mut all = program(folder.path());
    variable(all.args(["config", "--log-filter", "of-flag"]));
    assert!(printed(&mut all).contains("of-flag"), "a flag beats a variable");
    // Each of the flags that assign, too.
    let mut set = program(folder.path());
    variable(set.args(["config", "--set", "log.filter=of-set"]));
    assert!(printed(&mut set).contains("of-set"), "--set beats a variable");
    let mut two = program(folder.path());
    variable(two.arg("config"));
    assert!(printed(&mut two).contains("of-variable"), "a variable beats the file");
    assert!(printed(program(folder.path()).arg("config")).contains("of-file"), "the file beats the default");
    fs::remove_file(folder.path().join("acb.toml")).unwrap();
    assert!(printed(program(folder.path()).arg("config")).contains("info"), "the default");
}

#[test]
fn wrong_settings_are_told_together_and_end_with_2() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("acb.toml"), "[server]\nlisen = \"x\"\n[edge]\nconnections_max = \"many\"\n").unwrap();
    let output = run(folder.path(), &["--set", "edge.hot_runtime=1"]);
    assert_eq!(output.status.code(), Some(2));
    let told = text(&output.stderr);
    for part in [
        "3 problems with the settings",
        "acb.toml: server.lisen: no such key; did you mean server.listen?",
        "acb.toml: edge.connections_max: \"many\" is no number",
        "--set: edge.hot_runtime: no such key; did you mean edge.hot_runtimes?",
    ] {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
    assert!(!folder.path().join("acb-data").exists(), "nothing was started");
}

#[test]
fn an_address_that_others_reach_is_refused_without_tls_or_a_word() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["--listen", "0.0.0.0:0"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("needs TLS") && text(&output.stderr).contains("--allow-plaintext"),
        "{output:?}"
    );
    let output = run(folder.path(), &["--listen", "0.0.0.0:0", "--allow-plaintext", "--dev"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("loopback only"), "{output:?}");
    let output = run(folder.path(), &["--tls-certificate", "c.pem", "--tls-key", "k.pem"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("TLS: certificates in c.pem"), "{output:?}");
    let (running, screen) = Running::start(folder.path(), &["--listen", "0.0.0.0:0", "--allow-plaintext"]);
    assert!(screen.contains("!! Plain text on an address that others can reach"), "{screen}");
    running.signal("-TERM");
    assert_eq!(running.code().0, Some(0));
}

#[test]
fn the_first_start_shows_an_admin_key_once_and_keeps_it_in_a_file_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("admin.key");
    let (running, screen) = Running::start(folder.path(), &["--admin-key-file", "admin.key"]);
    let key = screen.split_whitespace().find(|w| w.starts_with("acb_default_")).expect("a key is shown").to_owned();
    assert!(screen.contains("is ready") && screen.contains("acb login --agent admin"), "{screen}");
    assert_eq!(fs::read_to_string(&key_file).unwrap().trim(), key);
    assert_eq!(fs::metadata(&key_file).unwrap().permissions().mode() & 0o777, 0o600);
    running.signal("-TERM");
    let (code, log) = running.code();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains(&key), "the key reached the log");
    fs::remove_file(&key_file).unwrap();
    let (running, screen) = Running::start(folder.path(), &["--admin-key-file", "admin.key"]);
    assert!(!screen.contains("acb_default_") && !key_file.exists(), "{screen}");
    drop(running);
    let (running, screen) = Running::start(folder.path(), &["--new-admin-key"]);
    assert!(screen.contains("acb_default_") && !screen.contains(&key), "{screen}");
    drop(running);
}

/// From the process to the screen that says ready, on an empty folder.
const READY_WITHIN: Duration = Duration::from_millis(200);
/// Starts that are tried: a machine that does other things as well makes some dearer, and not for the server's sake.
const STARTS: usize = 10;

/// Processor time of a process, own and the system's, from `/proc`: what it took, whatever else the machine did meanwhile.
fn worked(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // After the name, which may hold anything, come the 3rd field and those that follow; 14 and 15 are counted in 1/100 s.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(10 * ticks)
}

#[test]
fn an_empty_folder_is_served_within_200_ms() {
    let mut best = Duration::MAX;
    for _ in 0..STARTS {
        let folder = tempfile::tempdir().unwrap();
        let started = Instant::now();
        let (running, screen) = Running::start(folder.path(), &[]);
        // By the wall on a quiet machine, else by the work that it took.
        best = best.min(started.elapsed()).min(worked(running.0.id()));
        assert!(screen.contains("is ready"), "{screen}");
        drop(running);
        if best < READY_WITHIN / 2 {
            break;
        }
    }
    eprintln!("ready after {best:?}");
    assert!(best < READY_WITHIN, "ready after {best:?} at best");
}

#[cfg(target_os = "linux")]
#[test]
fn the_server_takes_memory_in_small_pages_only() {
    let folder = tempfile::tempdir().unwrap();
    let (running, _) = Running::start(folder.path(), &[]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.0.id())).unwrap();
    assert!(status.lines().any(|line| line.replace('\t', "") == "THP_enabled:0"), "{status}");
}

#[test]
fn development_mode_says_so_loudly_and_shows_no_key() {
    let folder = tempfile::tempdir().unwrap();
    let (running, screen) = Running::start(folder.path(), &["--dev", "--manual-clock"]);
    assert!(screen.contains("!! --dev: nobody is asked for credentials"), "{screen}");
    assert!(screen.contains("!! --manual-clock") && !screen.contains("acb_default_"), "{screen}");
    running.signal("-INT");
    assert_eq!(running.code().0, Some(0));
    let (running, screen) = Running::start(folder.path(), &["--dev", "--manual-clock=2027-03-04T05:06:07Z"]);
    assert!(screen.contains("time stands at 2027-03-04T05:06:07.000Z until"), "{screen}");
    drop(running);
    let output = run(folder.path(), &["--manual-clock"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_second_server_is_told_that_the_folder_or_the_port_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let (running, screen) = Running::start(folder.path(), &[]);
    let output = run(folder.path(), &["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("acb-data"), "{output:?}");
    let address = screen.split("acb://").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    let other = tempfile::tempdir().unwrap();
    let output = run(other.path(), &["--listen", &address, "--admin-listen", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("is another server running?"), "{output:?}");
    drop(running);
}

#[test]
fn a_killed_server_starts_again_on_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (running, _) = Running::start(folder.path(), &[]);
    running.signal("-KILL");
    assert_eq!(running.code().0, None);
    let (running, screen) = Running::start(folder.path(), &[]);
    assert!(screen.contains("is ready"), "{screen}");
    running.signal("-TERM");
    assert_eq!(running.code().0, Some(0));
}

#[test]
fn the_log_is_json_when_nobody_looks() {
    let folder = tempfile::tempdir().unwrap();
    let (running, _) = Running::start(folder.path(), &[]);
    running.signal("-TERM");
    let (_, log) = running.code();
    let line: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!((line["message"].as_str(), line["clean"].as_bool()), (Some("stopped"), Some(true)), "{log}");
}

#[test]
fn the_version_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["--version"]);
    assert_eq!(text(&output.stdout).trim(), format!("acb-server {}", env!("CARGO_PKG_VERSION")));
}

/// A folder with a stopped server's data: three messages on a topic, one in an inbox.
async fn stopped() -> std::sync::Arc<tempfile::TempDir> {
    let server = crate::support::Setup::dev().start().await;
    let bus = server.dev("default", "a");
    bus.register(crate::support::spec("a")).await.unwrap();
    for i in 0..3 {
        bus.send(crate::support::message("t", &format!("message {i}"))).await.unwrap();
    }
    bus.send(crate::support::message("$acb.inbox.a", "x")).await.unwrap();
    let folder = server.data_folder();
    server.stop().await;
    folder
}

#[tokio::test]
async fn a_sound_folder_is_told_so_and_is_left_as_it_was() {
    let folder = stopped().await;
    let output = run(folder.path(), &["check", "data"]);
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for part in [
        "data: 3 logs",
        "default/topics/0",
        "3 messages in 1 segment",
        "seqs 1 to 3",
        "closed in good order",
        "Nothing is damaged",
    ] {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
    let output = run(folder.path(), &["check", "nowhere"]);
    assert_eq!(output.status.code(), Some(1));
    let output = run(folder.path(), &["check", "."]);
    assert!(output.status.code() == Some(1) && text(&output.stderr).contains("no data folder"), "{output:?}");
}

#[tokio::test]
async fn damage_is_told_with_its_place_and_the_rest_is_saved_into_a_copy() {
    let folder = stopped().await;
    let topics = folder.path().join("data/tenants/default/log/topics-0");
    let segment = fs::read_dir(&topics)
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| p.extension().is_some_and(|e| e == "seg"))
        .unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    let at = bytes.windows(9).position(|w| w == b"message 1").unwrap();
    bytes[at] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    let output = run(folder.path(), &["check", "data"]);
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    for part in [
        "DAMAGED",
        segment.file_name().unwrap().to_str().unwrap(),
        "at byte",
        "1 of 3 logs cannot be opened",
        "--salvage-into",
    ] {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
    let output = run(folder.path(), &["check", "data", "--salvage-into", "saved"]);
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(told.contains("default/topics/0: 2 messages") && told.contains("left out:"), "{told}");
    assert_eq!(fs::read(&segment).unwrap(), bytes, "the damaged folder was changed");
    let output = run(folder.path(), &["check", "saved"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let output = run(folder.path(), &["check", "data", "--salvage-into", "saved"]);
    assert!(output.status.code() == Some(1) && text(&output.stderr).contains("is not empty"), "{output:?}");
    // The copy is a whole folder: agents and keys are in it.
    let (running, screen) = Running::start(folder.path(), &["--data-dir", "saved"]);
    assert!(screen.contains("is ready"), "{screen}");
    let output = run(folder.path(), &["check", "saved", "--salvage-into", "other"]);
    assert!(output.status.code() == Some(1) && text(&output.stderr).contains("stop it first"), "{output:?}");
    running.signal("-TERM");
    assert_eq!(running.code().0, Some(0));
}
