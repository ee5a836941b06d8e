//! The quick form: ACB alone, server CPU per message against the committed figures.
//!
//! CPU per message moves less than rates do when a machine is shared, so it is what a short run can watch.
//! It warns and never fails: the judgement belongs to the whole run.

use std::process::ExitCode;

use anyhow::{Result, ensure};

use super::{python_present, single::Runner};
use crate::{
    case::{Row, Shape},
    cli::RunOptions,
    machine::Machine,
    record::{LoadReport, ResultRow, read_rows},
    server::{Kind, Programs},
    stats::dearer,
    table,
};

const RUNS: usize = 2;
const QUICK_SECONDS: f64 = 1.5;

/// Dearer by more than this is worth a warning.
const TOLERANCE: f64 = 0.25;

/// Runs our side of every case once per level and compares.
pub(super) fn run(options: &RunOptions, rows: &[Row]) -> Result<ExitCode> {
    let runs = options.pairs.unwrap_or(RUNS);
    ensure!(runs > 0, "--pairs must be above 0");
    let programs = Programs::new(options)?;
    programs.program(Kind::Acb)?;
    python_present(options, rows)?;
    let committed = options.results_dir.join("latest.json");
    let baseline = if committed.is_file() {
        read_rows(&committed)?
    } else {
        println!("{} is not there: figures are printed, nothing is compared", committed.display());
        Vec::new()
    };
    let here = Machine::read(programs.data_dir(), &[], String::new()).short();
    if let Some(row) = baseline.iter().find(|row| row.machine != here) {
        println!("the committed figures are of another machine ({}; here {here}): read changes with care", row.machine);
    }
    let runner = Runner::new(programs, options, options.seconds.unwrap_or(QUICK_SECONDS), rows)?;
    let mut warnings = 0;
    for row in distinct(rows) {
        let case = row.case()?;
        let mut best: Option<LoadReport> = None;
        for _ in 0..runs {
            let report = runner.quiet(row, Kind::Acb, row.peer.our_form(), |_, _| Ok(()))?.report;
            // The lower of the runs: disturbances only ever add.
            if best.as_ref().is_none_or(|best| cost(case.shape, &report) < cost(case.shape, best)) {
                best = Some(report);
            }
        }
        let Some(report) = best else { continue };
        println!("{} {}: {}", row.case, row.mode.name(), table::run_line(&report, case.unit()));
        if let Some(warning) = warning(row, case.shape, &report, &baseline) {
            println!("warning: {warning}");
            warnings += 1;
        }
    }
    println!("{warnings} of the cases got more than {:.0} % dearer", TOLERANCE * 100.0);
    Ok(ExitCode::SUCCESS)
}

/// The figure watched: server CPU per message; memory per connection, or time to import, where that is the case.
fn cost(shape: Shape, report: &LoadReport) -> f64 {
    match shape {
        Shape::Idle { .. } | Shape::Import => report.value,
        _ => report.server_cpu_us,
    }
}

/// The first row of each case and level: our side is the same against every peer of it.
fn distinct(rows: &[Row]) -> Vec<Row> {
    let mut first: Vec<Row> = Vec::new();
    for row in rows {
        if !first.iter().any(|seen| seen.case == row.case && seen.mode == row.mode) {
            first.push(*row);
        }
    }
    first
}

/// A sentence when the run is dearer than the committed figure of the same row allows.
fn warning(row: Row, shape: Shape, report: &LoadReport, baseline: &[ResultRow]) -> Option<String> {
    let before =
        baseline.iter().find(|kept| kept.case == row.case && kept.mode == row.mode && kept.peer == row.peer)?;
    let (before, unit) = match shape {
        Shape::Idle { .. } => (before.acb, "KiB per connection"),
        Shape::Import => (before.acb, "ms to import"),
        Shape::Upload | Shape::Download => (before.acb_cpu_us_per_msg, "µs of server CPU per MB"),
        _ => (before.acb_cpu_us_per_msg, "µs of server CPU per message"),
    };
    let now = cost(shape, report);
    let share = dearer(before, now)?;
    (share > TOLERANCE).then(|| {
        format!("{} {} got {:.0} % dearer: {before:.3} -> {now:.3} {unit}", row.case, row.mode.name(), share * 100.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        case::{Form, Mode, Peer, ROWS, Target},
        record::tests::sample,
    };

    fn report(server_cpu_us: f64) -> LoadReport {
        LoadReport {
            target: Target::Acb,
            case: "publish-256-pipelined".into(),
            mode: Mode::Written,
            form: Form::Usual,
            window: 512,
            value: 1.0,
            published: 1,
            acked: 1,
            stored: Some(1),
            delivered: 0,
            elapsed_s: 1.0,
            server_cpu_us,
            client_cpu_us: 0.1,
            p50_us: None,
            p99_us: None,
            wakes_per_1000: None,
            foreign_cores: 0.0,
            kernel_cores: 0.0,
            steal_cores: 0.0,
        }
    }

    #[test]
    fn a_quarter_dearer_is_tolerated_more_is_not() {
        let row = Row { case: "publish-256-pipelined", mode: Mode::Written, peer: Peer::NatsDefault, window: 512 };
        let baseline = [sample()];
        assert_eq!(warning(row, Shape::Pipelined, &report(0.274), &baseline), None);
        let text = warning(row, Shape::Pipelined, &report(0.33), &baseline).unwrap();
        assert!(text.contains("50 % dearer: 0.220 -> 0.330"), "{text}");
        assert_eq!(warning(row, Shape::Pipelined, &report(9.0), &[]), None);
    }

    #[test]
    fn each_case_and_level_runs_once() {
        let rows = distinct(ROWS);
        let published = rows.iter().filter(|row| row.case == "publish-256-pipelined").count();
        assert_eq!(published, 2);
        assert!(rows.len() < ROWS.len());
    }
}
