//! One run: a fresh server, a load program beside it, and another try when something disturbed it.

use std::{
    env,
    io::Read as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::source::Source;
use crate::{
    case::{Case, Form, Language, Peer, Row, TRANSFER_BYTES, Target, scaled},
    cli::RunOptions,
    record::{LoadReport, parse_report},
    server::{Kind, Programs, Running},
};

/// A run beside which other processes used more than this share of a core is repeated.
const FOREIGN_CORES: f64 = 0.25;
/// Runs in all, before the quietest is kept.
const ATTEMPTS: usize = 3;
/// Rest between `sync` and a run.
const PAUSE: Duration = Duration::from_millis(500);
/// Rest before a disturbed run is repeated.
const REST: Duration = Duration::from_secs(3);
/// What filling a backlog and opening connections may take beside the measured seconds.
const PATIENCE: Duration = Duration::from_mins(2);
/// Length of the discarded run of a warm case, as a share of the measured one.
const WARM_UP: f64 = 0.5;

/// A run that counts.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    /// What the load reported.
    pub(super) report: LoadReport,
    /// Other processes were busy in every attempt; this one is the quietest.
    pub(super) disturbed: bool,
}

/// Starts servers and loads.
#[derive(Debug)]
pub(super) struct Runner {
    programs: Programs,
    seconds: f64,
    load_program: PathBuf,
    python: PathBuf,
    source: Option<Source>,
}

impl Runner {
    /// Measures `seconds` per run.
    pub(super) fn new(programs: Programs, options: &RunOptions, seconds: f64, rows: &[Row]) -> Result<Self> {
        ensure!(seconds > 0.0, "--seconds must be above 0");
        let transfers = rows.iter().filter_map(|row| row.case().ok()).any(Case::moves_a_file);
        let source = transfers
            .then(|| Source::make(programs.data_dir(), scaled(TRANSFER_BYTES, seconds)))
            .transpose()
            .context("cannot make the file that goes up and down")?;
        Ok(Self { programs, seconds, load_program: env::current_exe()?, python: options.python.clone(), source })
    }

    /// Runs until nothing disturbs, three times at most; keeps the quietest. Every run is shown to `seen`.
    pub(super) fn quiet(
        &self,
        row: Row,
        kind: Kind,
        form: Form,
        mut seen: impl FnMut(usize, &LoadReport) -> Result<()>,
    ) -> Result<Kept> {
        let mut quietest: Option<LoadReport> = None;
        for attempt in 1..=ATTEMPTS {
            if attempt > 1 {
                thread::sleep(REST);
            }
            let report = self.once(row, kind, form)?;
            seen(attempt, &report)?;
            let quieter = quietest.as_ref().is_none_or(|kept| report.foreign_cores < kept.foreign_cores);
            if report.foreign_cores <= FOREIGN_CORES {
                return Ok(Kept { report, disturbed: false });
            }
            if quieter {
                quietest = Some(report);
            }
        }
        let report = quietest.context("no run was made")?;
        Ok(Kept { report, disturbed: true })
    }

    /// One run on a fresh server.
    fn once(&self, row: Row, kind: Kind, form: Form) -> Result<LoadReport> {
        let case = row.case()?;
        let seconds = self.seconds * case.share;
        let server = self.programs.start(kind, case)?;
        // Ours alone: segments that were written before are a state of our log. A peer is better off on its
        // fresh store (a warm-up took JetStream from 95k to 55k messages of 4 KB a second), so it has that.
        if case.warm && is_ours(kind) {
            // By the Rust core, whatever the case's language: it is what fills the log in the time.
            let filler = if case.language == Language::Python { Kind::Peer(Peer::RustCore) } else { kind };
            self.load(&server, row, filler, form, self.seconds * WARM_UP).context("the warm-up")?;
        }
        let synced = Command::new("sync").status().context("cannot run sync")?;
        ensure!(synced.success(), "sync failed");
        thread::sleep(PAUSE);
        self.load(&server, row, kind, form, seconds)
    }

    /// Starts a load program and waits for its report.
    fn load(&self, server: &Running, row: Row, kind: Kind, form: Form, seconds: f64) -> Result<LoadReport> {
        let case = row.case()?;
        let (target, language) = match kind {
            Kind::Acb => (Target::Acb, case.language),
            Kind::Peer(peer) => (peer.target(), peer.language(case.language)),
        };
        let mut command = Command::new(&self.load_program);
        command
            .arg("load")
            .args(["--target", target.name(), "--case", row.case, "--mode", row.mode.name(), "--form", form.name()])
            .args(["--window", &row.window.to_string(), "--seconds", &seconds.to_string()])
            .args(["--address", &server.place().address()])
            .args(["--server-pid", &server.pid().to_string()])
            .args(["--language", language.name()])
            .arg("--python")
            .arg(&self.python)
            .arg("--work-dir")
            .arg(server.place().work_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(source) = self.source.as_ref().filter(|_| case.moves_a_file()) {
            command.arg("--source").arg(&source.path);
        }
        let child = command.spawn().context("cannot start the load program")?;
        let deadline = Instant::now() + Duration::from_secs_f64(seconds) + PATIENCE;
        let (success, output, complaint) = wait(child, deadline)?;
        if !success {
            let complaint = complaint.trim();
            bail!("the load failed: {complaint}\nthe server's last lines:\n{}", server.log_tail());
        }
        parse_report(&output)
    }
}

/// Whether the log of a server of ours takes the load: what was written before counts for it alone.
fn is_ours(kind: Kind) -> bool {
    matches!(kind, Kind::Acb | Kind::Peer(Peer::RustCore))
}

/// Waits for a load program, not longer than the deadline. It prints one line (and little on error), so its
/// pipes hold all of it until it has ended.
fn wait(mut child: Child, deadline: Instant) -> Result<(bool, String, String)> {
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("the load did not end in time");
        }
        thread::sleep(Duration::from_millis(20));
    };
    let mut output = String::new();
    let mut complaint = String::new();
    if let Some(mut pipe) = child.stdout.take() {
        pipe.read_to_string(&mut output)?;
    }
    if let Some(mut pipe) = child.stderr.take() {
        pipe.read_to_string(&mut complaint)?;
    }
    Ok((status.success(), output, complaint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Child {
        Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    #[test]
    fn a_load_that_fails_is_quoted() {
        let deadline = Instant::now() + Duration::from_secs(20);
        let (success, output, complaint) = wait(shell("echo out; echo why >&2; exit 1"), deadline).unwrap();
        assert_eq!((success, output.as_str(), complaint.as_str()), (false, "out\n", "why\n"));
    }

    #[test]
    fn a_load_that_hangs_is_ended() {
        assert!(wait(shell("exec sleep 60"), Instant::now()).is_err());
    }
}
