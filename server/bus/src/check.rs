//! `acb-server check`: what a data folder holds, what is damaged in it, and a copy of what is not.
//!
//! Looking changes nothing and needs no lock. Saving needs the server to be stopped, and never writes into the folder
//! that it saves from.

use std::{fmt::Write as _, path::Path, process::ExitCode};

use acb_log::check::{LogReport, Report, Salvaged};

use crate::{
    boot,
    program::{complain, say},
};

/// Exit code when something is damaged.
const DAMAGED: u8 = 3;

/// Runs the command to its end.
pub(crate) fn run(folder: &Path, salvage_into: Option<&Path>) -> ExitCode {
    let report = match boot::inspect(folder) {
        Ok(report) => report,
        Err(error) => {
            complain(&format!("{}: {}\n", folder.display(), error.message));
            return ExitCode::FAILURE;
        }
    };
    say(&told(folder, &report));
    let damaged = report.logs.iter().any(|log| log.damage.is_some());
    if let Some(into) = salvage_into {
        return match boot::salvage(folder, into) {
            Ok(saved) => {
                say(&saved_told(into, &saved));
                ExitCode::SUCCESS
            }
            Err(error) => {
                complain(&format!("nothing more is saved: {}\n", error.message));
                ExitCode::FAILURE
            }
        };
    }
    if damaged { ExitCode::from(DAMAGED) } else { ExitCode::SUCCESS }
}

fn told(folder: &Path, report: &Report) -> String {
    let mut s = format!("{}: {}\n", folder.display(), count(report.logs.len() as u64, "log"));
    for log in &report.logs {
        let _ = writeln!(s, "\n  {}", log.id);
        let _ = writeln!(s, "    {}", holds(log));
        let state = match (&log.damage, log.clean) {
            (Some(damage), _) => format!("DAMAGED below what had been synced: {damage}"),
            (None, true) => "sound, closed in good order".to_owned(),
            (None, false) => "sound, not closed: the next start cuts what was not synced, if it is torn".to_owned(),
        };
        let _ = writeln!(s, "    {state}");
    }
    let damaged = report.logs.iter().filter(|log| log.damage.is_some()).count();
    if damaged > 0 {
        let _ = writeln!(
            s,
            "\n{} of {} cannot be opened; the others start. What can be read is saved into a new folder by\n  acb-server check \
             {} --salvage-into NEW-FOLDER",
            damaged,
            count(report.logs.len() as u64, "log"),
            folder.display(),
        );
    } else {
        s.push_str("\nNothing is damaged.\n");
    }
    s
}

fn holds(log: &LogReport) -> String {
    let bytes: u64 = log.segments.iter().map(|segment| segment.size).sum();
    let mut s = format!(
        "{} in {} of {bytes} bytes",
        count(log.messages, "message"),
        count(log.segments.len() as u64, "segment"),
    );
    if let Some((first, last)) = log.seqs {
        let _ = write!(s, ", seqs {first} to {last}");
    }
    if let Some((first, last)) = log.epochs {
        let _ = write!(s, ", epochs {first} to {last}");
    }
    let _ = write!(s, ", {} of delivery state", count(log.state_batches, "batch"));
    s
}

fn saved_told(into: &Path, saved: &[Salvaged]) -> String {
    let mut s = format!("\nSaved into {}, with the metadata:\n", into.display());
    for log in saved {
        let _ = writeln!(s, "  {}: {} in {}", log.id, count(log.messages, "message"), count(log.batches, "batch"));
        for (path, from, to) in &log.skipped {
            let _ = writeln!(s, "    left out: {} from byte {from} to {to}", path.display());
        }
    }
    let _ = writeln!(s, "Start on it with\n  acb-server --data-dir {}", into.display());
    s
}

fn count(n: u64, what: &str) -> String {
    match (n, what) {
        (1, _) => format!("1 {what}"),
        (_, "batch") => format!("{n} batches"),
        _ => format!("{n} {what}s"),
    }
}
