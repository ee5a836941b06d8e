//! What a load prints and what `bench/results/latest.json` keeps.

use std::{fs, io::Write as _, path::Path};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::case::{Form, Mode, Peer, Target};

/// The one line a load program prints.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LoadReport {
    /// What was spoken to.
    pub(crate) target: Target,
    /// Name of the case.
    pub(crate) case: String,
    /// Level asked for (ours only).
    pub(crate) mode: Mode,
    /// How the client published.
    pub(crate) form: Form,
    /// Open publishes or unacknowledged deliveries.
    pub(crate) window: usize,
    /// The case's figure, in its unit: a rate, KiB per connection, µs per operation, ms.
    pub(crate) value: f64,
    /// Messages published in the measured part (a backlog: before it).
    pub(crate) published: u64,
    /// Publishes acknowledged.
    pub(crate) acked: u64,
    /// Messages the server says it stored; absent where nothing is stored.
    pub(crate) stored: Option<u64>,
    /// Deliveries or replies, over all subscriptions.
    pub(crate) delivered: u64,
    /// Seconds measured.
    pub(crate) elapsed_s: f64,
    /// CPU µs of the server process per message.
    pub(crate) server_cpu_us: f64,
    /// CPU µs of this process per message.
    pub(crate) client_cpu_us: f64,
    /// Median latency in µs, where the case has one.
    pub(crate) p50_us: Option<f64>,
    /// 99th percentile of latency in µs.
    pub(crate) p99_us: Option<f64>,
    /// Wakes of a binding's event loop for a thousand messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) wakes_per_1000: Option<f64>,
    /// Cores that other processes used meanwhile.
    pub(crate) foreign_cores: f64,
    /// Cores that kernel threads used meanwhile.
    pub(crate) kernel_cores: f64,
    /// Cores that the hypervisor gave to others meanwhile.
    pub(crate) steal_cores: f64,
}

/// One line of `raw.jsonl`: a run with its place in the interleaving.
#[derive(Debug, Serialize)]
pub(crate) struct RawRun<'a> {
    /// `case mode peer` of the row it was run for.
    pub(crate) row: &'a str,
    /// Number of the pair, from 1.
    pub(crate) pair: usize,
    /// Number of the attempt, from 1; above 1 only after a disturbed run.
    pub(crate) attempt: usize,
    /// The load's own line.
    #[serde(flatten)]
    pub(crate) report: &'a LoadReport,
}

/// One bound of a row, with what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct GateResult {
    /// What is bounded: `ratio`, `acb`, `acb_at_least`, `acb_cpu_us_per_msg`, `p99_ratio`, `acb_p99_us`,
    /// `acb_wakes_per_1000`.
    pub(crate) measure: String,
    /// What was measured.
    pub(crate) value: f64,
    /// The bound that must hold.
    pub(crate) floor: f64,
    /// Where we are going.
    pub(crate) goal: f64,
    /// The floor holds.
    pub(crate) pass: bool,
    /// The goal is met.
    pub(crate) goal_met: bool,
}

/// One line of `latest.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ResultRow {
    /// Name of the case.
    pub(crate) case: String,
    /// Our level.
    pub(crate) mode: Mode,
    /// Median of ours, in `unit`.
    pub(crate) acb: f64,
    /// Against whom.
    pub(crate) peer: Peer,
    /// Median of the peer's, in `unit`; absent, as all of the peer's, where ours stands alone.
    pub(crate) peer_value: Option<f64>,
    /// Median of the pairwise ratios, ours / peer.
    pub(crate) ratio: Option<f64>,
    /// Unit of `acb` and `peer_value`.
    pub(crate) unit: String,
    /// Median server CPU of ours.
    pub(crate) acb_cpu_us_per_msg: f64,
    /// Median server CPU of the peer.
    pub(crate) peer_cpu_us_per_msg: Option<f64>,
    /// Median client CPU of ours.
    pub(crate) acb_client_cpu_us_per_msg: f64,
    /// Median client CPU of the peer.
    pub(crate) peer_client_cpu_us_per_msg: Option<f64>,
    /// Smallest and largest pairwise ratio.
    pub(crate) spread: Option<[f64; 2]>,
    /// Window, the same on both sides.
    pub(crate) windows: String,
    /// Acknowledgements, the same on both sides.
    pub(crate) acks: String,
    /// What an ack promises: ours | the peer's.
    pub(crate) durability: String,
    /// Median of the runs' median latencies, µs.
    pub(crate) acb_p50_us: Option<f64>,
    /// Median of the runs' 99th percentiles, µs.
    pub(crate) acb_p99_us: Option<f64>,
    /// Median wakes of our binding's event loop for a thousand messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) acb_wakes_per_1000: Option<f64>,
    /// The same of the peer.
    pub(crate) peer_p50_us: Option<f64>,
    /// The same of the peer.
    pub(crate) peer_p99_us: Option<f64>,
    /// Main floor of the row, where it has one (DESIGN section 12).
    pub(crate) floor: Option<f64>,
    /// Main goal of the row.
    pub(crate) goal: Option<f64>,
    /// Every floor of the row holds.
    pub(crate) pass: Option<bool>,
    /// Each bound of the row.
    pub(crate) gates: Vec<GateResult>,
    /// Pairs behind the figures.
    pub(crate) pairs: usize,
    /// Kept runs beside which other processes used over a quarter of a core, after all attempts.
    pub(crate) disturbed_runs: usize,
    /// The machine, so that figures of another one are not taken for a change.
    pub(crate) machine: String,
}

/// Reads a file of result rows, one JSON object a line.
pub(crate) fn read_rows(path: &Path) -> Result<Vec<ResultRow>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse_rows(&text).with_context(|| format!("{} is damaged", path.display()))
}

fn parse_rows(text: &str) -> Result<Vec<ResultRow>> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(index, line)| serde_json::from_str(line).with_context(|| format!("line {}", index + 1)))
        .collect()
}

/// Writes result rows, one JSON object a line, by way of a temporary file: a run that is stopped in the
/// middle leaves the old results whole.
pub(crate) fn write_rows(path: &Path, rows: &[ResultRow]) -> Result<()> {
    let mut text = String::new();
    for row in rows {
        text.push_str(&serde_json::to_string(row)?);
        text.push('\n');
    }
    let draft = path.with_extension("json.new");
    fs::write(&draft, text).with_context(|| format!("cannot write {}", draft.display()))?;
    fs::rename(&draft, path).with_context(|| format!("cannot write {}", path.display()))
}

/// Appends a run to the raw output.
pub(crate) fn append_raw(path: &Path, run: &RawRun<'_>) -> Result<()> {
    let mut file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    writeln!(file, "{}", serde_json::to_string(run)?)?;
    Ok(())
}

/// The load's report out of its standard output: the last line that is not empty.
pub(crate) fn parse_report(output: &str) -> Result<LoadReport> {
    let line = output.lines().rev().find(|line| !line.trim().is_empty()).context("the load printed nothing")?;
    serde_json::from_str(line).with_context(|| format!("the load printed no report but: {line}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample() -> ResultRow {
        ResultRow {
            case: "publish-256-pipelined".into(),
            mode: Mode::Written,
            acb: 3_300_000.0,
            peer: Peer::NatsDefault,
            peer_value: Some(194_000.0),
            ratio: Some(17.0),
            unit: "msg/s".into(),
            acb_cpu_us_per_msg: 0.22,
            peer_cpu_us_per_msg: Some(4.9),
            acb_client_cpu_us_per_msg: 0.26,
            peer_client_cpu_us_per_msg: Some(2.6),
            spread: Some([15.0, 17.5]),
            windows: "512 open".into(),
            acks: "each publish acked".into(),
            durability: "written | after write(), fsync every 2 min".into(),
            acb_p50_us: Some(114.0),
            acb_p99_us: Some(566.0),
            acb_wakes_per_1000: None,
            peer_p50_us: Some(2100.0),
            peer_p99_us: Some(4500.0),
            floor: Some(5.0),
            goal: Some(15.0),
            pass: Some(true),
            gates: vec![GateResult {
                measure: "ratio".into(),
                value: 17.0,
                floor: 5.0,
                goal: 15.0,
                pass: true,
                goal_met: true,
            }],
            pairs: 5,
            disturbed_runs: 0,
            machine: "test, 2 cores".into(),
        }
    }

    #[test]
    fn rows_survive_a_round_trip_and_lines_are_objects() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("latest.json");
        let mut second = sample();
        second.peer = Peer::RedisAlways;
        second.pass = None;
        write_rows(&path, &[sample(), second]).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.lines().all(|line| line.starts_with('{') && line.ends_with('}')), "{text}");
        for key in ["case", "mode", "acb", "peer", "peer_value", "ratio", "unit", "acb_cpu_us_per_msg"] {
            assert!(text.contains(&format!("\"{key}\":")), "{key}");
        }
        let rows = read_rows(&path).unwrap();
        assert_eq!(rows[1].peer, Peer::RedisAlways);
        assert_eq!(rows[0].gates, sample().gates);
    }

    #[test]
    fn a_damaged_line_is_named() {
        let error = parse_rows("\n{\"case\":1}\n").unwrap_err();
        assert!(format!("{error:#}").contains("line 2"), "{error:#}");
    }

    #[test]
    fn the_report_is_the_last_line_and_anything_else_is_an_error() {
        let report = LoadReport {
            target: Target::Nats,
            case: "live-256".into(),
            mode: Mode::Written,
            form: Form::Usual,
            window: 512,
            value: 1.0,
            published: 1,
            acked: 1,
            stored: None,
            delivered: 1,
            elapsed_s: 1.0,
            server_cpu_us: 1.0,
            client_cpu_us: 1.0,
            p50_us: None,
            p99_us: None,
            wakes_per_1000: None,
            foreign_cores: 0.0,
            kernel_cores: 0.0,
            steal_cores: 0.0,
        };
        let text = format!("warning: something\n{}\n\n", serde_json::to_string(&report).unwrap());
        assert_eq!(parse_report(&text).unwrap().case, "live-256");
        assert!(parse_report("").is_err());
        assert!(parse_report("thread panicked").is_err());
    }
}
