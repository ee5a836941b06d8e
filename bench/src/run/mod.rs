//! The orchestrator: pairs of runs, interleaved, repetitions outermost.
//!
//! The order is pair 1 of every row, then pair 2 of every row, ...: the pairs of a row are minutes apart, so
//! a passing mood of the machine cannot colour them all. Within a pair the two sides follow each other
//! directly and take turns to go first.

mod quick;
mod single;
mod source;

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    calm::Calm,
    case::{CASES, Language, Peer, ROWS, Row, SECONDS},
    cli::{ReportOptions, RunOptions, Side},
    floors::judge,
    machine::Machine,
    record::{LoadReport, RawRun, ResultRow, append_raw, read_rows, write_rows},
    server::{Kind, Programs},
    stats::{Pair, median, paired, significant},
    table,
};
use single::{Kept, Runner};

const PAIRS: usize = 5;

/// Runs the rows that the options select.
pub(crate) fn run(options: &RunOptions) -> Result<ExitCode> {
    let rows = selected(options)?;
    if options.quick {
        return quick::run(options, &rows);
    }
    let pairs = options.pairs.unwrap_or(PAIRS);
    let seconds = options.seconds.unwrap_or(SECONDS);
    ensure!(pairs > 0, "--pairs must be above 0");
    let programs = Programs::new(options)?;
    let present = needed(&programs, &rows, options.side)?;
    let present: Vec<&Path> = present.iter().map(AsRef::as_ref).collect();
    let settings = format!("{seconds} s per run, {pairs} pairs per row.");
    let mut machine = Machine::read(programs.data_dir(), &present, settings);
    if python_present(options, &rows)? {
        machine.versions.extend(python_versions(&options.python)?);
    }
    fs::create_dir_all(&options.results_dir)
        .with_context(|| format!("cannot create {}", options.results_dir.display()))?;
    let raw = options.results_dir.join(if whole(options, pairs) { "raw.jsonl" } else { "partial-raw.jsonl" });
    // Raw output belongs to one run; an older one is not mixed in.
    let _ = fs::remove_file(&raw);

    let runner = Runner::new(programs, options, seconds, &rows)?;
    let mut runs: Vec<RowRuns> = rows.iter().map(|row| RowRuns::new(*row)).collect();
    for pair in 1..=pairs {
        if options.side == Side::Both {
            machine.calm.push(Calm::look()?);
        }
        // Our run of the row before, which the peers of a shared case have in common.
        let mut before: Option<(Row, Kept)> = None;
        for row in &mut runs {
            let ready = before.take().filter(|(earlier, _)| row.row.shares_run_of(*earlier)).map(|(_, kept)| kept);
            row.run_pair(&runner, pair, options.side, ready, &raw)?;
            before = row.ours.last().map(|kept| (row.row, kept.clone()));
        }
    }
    finish(options, &machine, &runs, pairs)
}

/// Whether some of the rows are Python's; refuses when its clients are not there.
fn python_present(options: &RunOptions, rows: &[Row]) -> Result<bool> {
    let mut python = false;
    for row in rows {
        python |= row.case()?.language == Language::Python;
    }
    ensure!(
        !python || options.python.is_file(),
        "{} is missing: scripts/bench.sh makes it; without it leave the python cases out (--cases)",
        options.python.display()
    );
    Ok(python)
}

/// Versions of the interpreter and of the clients in it.
fn python_versions(python: &Path) -> Result<Vec<(String, String)>> {
    let script = "import importlib.metadata as m, platform; print('python', platform.python_version()); \
                  [print(n, m.version(n)) for n in ('acb-sdk', 'nats-py', 'redis', 'hiredis', 'uvloop')]";
    let printed = Command::new(python).args(["-c", script]).output()?;
    ensure!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr).trim());
    let text = String::from_utf8_lossy(&printed.stdout).into_owned();
    Ok(text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, version)| (if name == "python" { name.into() } else { format!("python {name}") }, version.into()))
        .collect())
}

/// Writes the document again from stored results.
pub(crate) fn report(options: &ReportOptions) -> Result<ExitCode> {
    let mut rows = read_rows(&options.results_dir.join("latest.json"))?;
    // Floors may have moved since the run; the figures have not.
    rows.iter_mut().for_each(judge);
    let machine = Machine::load(&options.results_dir.join("machine.json"))?;
    table::write_document(&options.document, &table::results_part(&machine, &rows))?;
    Ok(ExitCode::SUCCESS)
}

fn selected(options: &RunOptions) -> Result<Vec<Row>> {
    for name in &options.cases {
        ensure!(CASES.iter().any(|case| case.name == name), "no case is named {name}; `acb-bench list` shows them");
    }
    for name in &options.peers {
        ensure!(ROWS.iter().any(|row| row.peer.name() == name), "no peer is named {name}");
    }
    let wanted = |list: &[String], name: &str| list.is_empty() || list.iter().any(|wanted| wanted == name);
    let rows: Vec<Row> = ROWS
        .iter()
        .filter(|row| wanted(&options.cases, row.case) && wanted(&options.peers, row.peer.name()))
        .copied()
        .collect();
    ensure!(!rows.is_empty(), "no row has these cases and these peers");
    Ok(rows)
}

/// Every program the rows need, all present before the first run: better to fail now than after 20 minutes.
fn needed(programs: &Programs, rows: &[Row], side: Side) -> Result<Vec<std::path::PathBuf>> {
    let mut kinds = Vec::new();
    if side != Side::Peer {
        kinds.push(Kind::Acb);
    }
    if side != Side::Acb {
        ensure!(cfg!(feature = "peers"), "built without the peers' clients: add `--features peers`");
        kinds.extend(rows.iter().filter(|row| row.peer != Peer::Alone).map(|row| Kind::Peer(row.peer)));
    }
    let mut paths: Vec<std::path::PathBuf> = Vec::new();
    for kind in kinds {
        let path = programs.program(kind)?.to_path_buf();
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    Ok(paths)
}

/// A row with the runs it has had.
struct RowRuns {
    row: Row,
    ours: Vec<Kept>,
    peer: Vec<Kept>,
}

impl RowRuns {
    fn new(row: Row) -> Self {
        Self { row, ours: Vec::new(), peer: Vec::new() }
    }

    /// Runs both sides, or the peer alone beside a run of ours that is ready.
    fn run_pair(&mut self, runner: &Runner, pair: usize, side: Side, ready: Option<Kept>, raw: &Path) -> Result<()> {
        let order = match side {
            _ if self.row.peer == Peer::Alone => vec![Kind::Acb],
            _ if ready.is_some() => vec![Kind::Peer(self.row.peer)],
            Side::Acb => vec![Kind::Acb],
            Side::Peer => vec![Kind::Peer(self.row.peer)],
            Side::Both if pair % 2 == 1 => vec![Kind::Peer(self.row.peer), Kind::Acb],
            Side::Both => vec![Kind::Acb, Kind::Peer(self.row.peer)],
        };
        if side == Side::Peer && self.row.peer == Peer::Alone {
            return Ok(());
        }
        // With one side alone there is nothing that it could be shared with.
        self.ours.extend(ready.filter(|_| side == Side::Both));
        for kind in order {
            let kept = self.run_side(runner, pair, kind, raw)?;
            match kind {
                Kind::Acb => self.ours.push(kept),
                Kind::Peer(_) => self.peer.push(kept),
            }
        }
        if let (Some(ours), Some(peer)) = (self.ours.last(), self.peer.last())
            && side == Side::Both
        {
            println!("    ratio {:.2}", ours.report.value / peer.report.value);
        }
        Ok(())
    }

    /// Runs one side in each of its client forms and keeps the best: the peer is its fastest form.
    fn run_side(&self, runner: &Runner, pair: usize, kind: Kind, raw: &Path) -> Result<Kept> {
        let row = self.row;
        let case = row.case()?;
        let forms = match kind {
            Kind::Acb => &[row.peer.our_form()],
            Kind::Peer(peer) => peer.forms(),
        };
        let label = row.label();
        let mut best: Option<Kept> = None;
        for &form in forms {
            let kept = runner
                .quiet(row, kind, form, |attempt, report| {
                    append_raw(raw, &RawRun { row: &label, pair, attempt, report })
                })
                .with_context(|| format!("{label}, {}", name(kind)))?;
            println!(
                "{pair} {label}: {:<14} {:<9} {}",
                name(kind),
                form.name(),
                table::run_line(&kept.report, case.unit())
            );
            // More is better in every case that has several forms.
            if best.as_ref().is_none_or(|best| kept.report.value > best.report.value) {
                best = Some(kept);
            }
        }
        best.context("a peer without a client form")
    }

    /// The row's line in the results; `None` without pairs.
    fn result(&self, machine: &Machine) -> Result<Option<ResultRow>> {
        let case = self.row.case()?;
        let pairs: Vec<Pair> = self
            .ours
            .iter()
            .zip(&self.peer)
            .map(|(ours, peer)| Pair { ours: ours.report.value, peer: peer.report.value })
            .collect();
        let alone = self.row.peer == Peer::Alone;
        let summary = paired(&pairs);
        if (alone && self.ours.is_empty()) || (!alone && summary.is_none()) {
            return Ok(None);
        }
        let of = |runs: &[Kept], field: fn(&LoadReport) -> f64| {
            let values: Vec<f64> = runs.iter().map(|kept| field(&kept.report)).collect();
            median(&values).map_or(0.0, |value| significant(value, 4))
        };
        let maybe = |runs: &[Kept], field: fn(&LoadReport) -> Option<f64>| {
            let values: Vec<f64> = runs.iter().filter_map(|kept| field(&kept.report)).collect();
            median(&values).map(|value| significant(value, 4))
        };
        let mut row = ResultRow {
            case: case.name.to_owned(),
            mode: self.row.mode,
            acb: of(&self.ours, |report| report.value),
            peer: self.row.peer,
            peer_value: summary.map(|summary| significant(summary.peer, 4)),
            ratio: summary.map(|summary| significant(summary.ratio, 4)),
            unit: case.unit().to_owned(),
            acb_cpu_us_per_msg: of(&self.ours, |report| report.server_cpu_us),
            peer_cpu_us_per_msg: maybe(&self.peer, |report| Some(report.server_cpu_us)),
            acb_client_cpu_us_per_msg: of(&self.ours, |report| report.client_cpu_us),
            peer_client_cpu_us_per_msg: maybe(&self.peer, |report| Some(report.client_cpu_us)),
            spread: summary.map(|summary| summary.spread.map(|value| significant(value, 4))),
            windows: self.row.windows(case),
            acks: case.acks(self.row.peer.our_form()).to_owned(),
            durability: format!("{} | {}", case.our_durability(self.row.mode), self.row.peer.durability()),
            acb_p50_us: maybe(&self.ours, |report| report.p50_us),
            acb_p99_us: maybe(&self.ours, |report| report.p99_us),
            acb_wakes_per_1000: maybe(&self.ours, |report| report.wakes_per_1000),
            peer_p50_us: maybe(&self.peer, |report| report.p50_us),
            peer_p99_us: maybe(&self.peer, |report| report.p99_us),
            floor: None,
            goal: None,
            pass: None,
            gates: Vec::new(),
            pairs: if alone { self.ours.len() } else { pairs.len() },
            disturbed_runs: self.ours.iter().chain(&self.peer).filter(|kept| kept.disturbed).count(),
            machine: machine.short(),
        };
        judge(&mut row);
        Ok(Some(row))
    }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Acb => "acb",
        Kind::Peer(peer) => Peer::name(peer),
    }
}

/// Whether a run is one whose figures are kept: every row, both sides, enough pairs, nothing shrunk.
fn whole(options: &RunOptions, pairs: usize) -> bool {
    options.cases.is_empty()
        && options.peers.is_empty()
        && options.side == Side::Both
        && pairs >= PAIRS
        && options.seconds.is_none_or(|seconds| seconds >= SECONDS)
}

/// Writes what the run yields. Only a whole run of both sides replaces the kept results.
fn finish(options: &RunOptions, machine: &Machine, runs: &[RowRuns], pairs: usize) -> Result<ExitCode> {
    if options.side != Side::Both {
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = Vec::new();
    for row in runs {
        rows.extend(row.result(machine)?);
    }
    println!("\n{}", table::markdown(&rows));
    println!("{}\n", Calm::sentence(&machine.calm).unwrap_or_default());
    let whole = whole(options, pairs);
    let file = if whole { "latest.json" } else { "partial.json" };
    write_rows(&options.results_dir.join(file), &rows)?;
    if whole {
        machine.save(&options.results_dir.join("machine.json"))?;
        table::write_document(&options.document, &table::results_part(machine, &rows))?;
    } else {
        println!(
            "part of the rows, fewer than {PAIRS} pairs or shorter runs: kept as {file}, the document stays as it was"
        );
    }
    let below: Vec<String> = rows
        .iter()
        .filter(|row| row.pass == Some(false))
        .map(|row| format!("{} {} {}", row.case, row.mode.name(), row.peer.name()))
        .collect();
    if !below.is_empty() {
        bail!("below their floor: {}", below.join("; "));
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Form, Mode, Target};

    fn kept(target: Target, value: f64, server_cpu_us: f64, disturbed: bool) -> Kept {
        let report = LoadReport {
            target,
            case: "live-256".into(),
            mode: Mode::Written,
            form: Form::Usual,
            window: 512,
            value,
            published: 1,
            acked: 1,
            stored: Some(1),
            delivered: 1,
            elapsed_s: 1.0,
            server_cpu_us,
            client_cpu_us: 1.0,
            p50_us: Some(1e6 / value),
            p99_us: Some(2e6 / value),
            wakes_per_1000: None,
            foreign_cores: 0.0,
            kernel_cores: 0.0,
            steal_cores: 0.0,
        };
        Kept { report, disturbed }
    }

    fn row(case: &str, mode: Mode, peer: Peer) -> Row {
        let found = ROWS.iter().find(|row| row.case == case && row.mode == mode && row.peer == peer);
        *found.unwrap()
    }

    #[test]
    fn a_row_reports_medians_of_its_pairs_and_is_judged() {
        let mut runs = RowRuns::new(row("live-256", Mode::Written, Peer::NatsDefault));
        for (ours, peer, disturbed) in [(1e6, 1e5, false), (2e6, 1e5, true), (1e6, 2e5, false)] {
            runs.ours.push(kept(Target::Acb, ours, 0.5, disturbed));
            runs.peer.push(kept(Target::Nats, peer, 5.0, false));
        }
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine::read(folder.path(), &[], String::new());
        let result = runs.result(&machine).unwrap().unwrap();
        assert!((result.ratio.unwrap() - 10.0).abs() < 1e-9, "{result:?}");
        assert!((result.acb_cpu_us_per_msg - 0.5).abs() < 1e-9);
        assert_eq!((result.pairs, result.disturbed_runs, result.pass), (3, 1, Some(true)));
        assert_eq!(result.windows, "512 open, 1000 unacked");
    }

    #[test]
    fn ours_alone_reports_medians_without_a_ratio() {
        let mut runs = RowRuns::new(row("context-commits-16", Mode::Synced, Peer::Alone));
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine::read(folder.path(), &[], String::new());
        assert!(runs.result(&machine).unwrap().is_none());
        for value in [1e3, 3e3, 2e3] {
            runs.ours.push(kept(Target::Acb, value, 0.5, false));
        }
        let result = runs.result(&machine).unwrap().unwrap();
        assert_eq!((result.pairs, result.ratio, result.peer_value, result.spread), (3, None, None, None));
        assert!((result.acb - 2e3).abs() < 1e-9, "{result:?}");
    }

    #[test]
    fn a_run_is_shared_by_the_peers_of_a_shared_case_alone() {
        let upload = row("upload-1g", Mode::Synced, Peer::NatsDefault);
        assert!(row("upload-1g", Mode::Synced, Peer::CpSha256).shares_run_of(upload));
        assert!(!row("download-1g", Mode::Synced, Peer::CpSha256).shares_run_of(upload));
        // The same work at the same window, but short and of a case that is not shared: each peer has a run of its own.
        let always = row("publish-256-50x1", Mode::Synced, Peer::RedisAlways);
        assert!(!row("publish-256-50x1", Mode::Synced, Peer::NatsAlways).shares_run_of(always));
    }

    #[test]
    fn without_pairs_there_is_no_line() {
        let mut runs = RowRuns::new(row("live-256", Mode::Written, Peer::NatsDefault));
        runs.peer.push(kept(Target::Nats, 1e5, 5.0, false));
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine::read(folder.path(), &[], String::new());
        assert!(runs.result(&machine).unwrap().is_none());
    }
}
