//! Prints which scenarios find which fault.
//!
//! `acb-faults` plays the scenarios that must find each fault; `acb-faults --all` plays every scenario with every fault, which
//! takes minutes and shows what else notices; names after it choose faults. `acb-faults --write` writes `docs/faults.md`.

use std::{process::ExitCode, sync::Arc, time::Duration};

use acb_faults::{Fault, TABLE, play, verdict};
use acb_testkit::{
    scenario::{Scenario, load, report},
    wait::set_patience,
};
use futures_util::{StreamExt as _, stream};

/// Faults at work at once. Most of their time is waiting for what does not come.
const AT_ONCE: usize = 8;
/// How long a scenario waits for what should be there.
const PATIENCE: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> ExitCode {
    set_patience(PATIENCE);
    let words: Vec<String> = std::env::args().skip(1).collect();
    let all = words.iter().any(|word| word == "--all");
    if words.iter().any(|word| word == "--write") {
        return match std::fs::write(acb_faults::document_path(), acb_faults::document()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("docs/faults.md: {error}");
                ExitCode::FAILURE
            }
        };
    }
    let named = |fault: &&Fault| words.iter().all(|w| w.starts_with('-')) || words.iter().any(|w| w == fault.name);
    let scenarios = match load(&report::folder()) {
        Ok(scenarios) => Arc::new(scenarios),
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    let work = stream::iter(TABLE.iter().filter(named)).map(|fault| {
        let scenarios = Arc::clone(&scenarios);
        #[expect(clippy::disallowed_methods, reason = "awaited by the loop below, and bounded by it")]
        tokio::spawn(async move { line(fault, &scenarios, all).await })
    });
    let mut missed = 0;
    let mut lines = work.buffered(AT_ONCE);
    println!("| Fault | What the bus does wrong | Found by |\n|---|---|---|");
    while let Some(line) = lines.next().await {
        match line {
            Ok(Ok(line)) => println!("{line}"),
            Ok(Err(error)) => {
                missed += 1;
                eprintln!("{error:#}");
            }
            Err(error) => {
                missed += 1;
                eprintln!("{error}");
            }
        }
    }
    println!("\n{} faults, {missed} not found.", TABLE.len());
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn line(fault: &'static Fault, scenarios: &[Scenario], all: bool) -> anyhow::Result<String> {
    let mut found: Vec<String> = Vec::new();
    if all {
        for scenario in scenarios {
            if play((fault.lie)(), scenario).await.is_err() {
                found.push(format!("`{}`", scenario.name));
            }
        }
        anyhow::ensure!(!found.is_empty(), "{}: no scenario finds it", fault.name);
    } else {
        found.extend(verdict(fault, scenarios).await?.found.iter().map(|(name, _)| format!("`{name}`")));
    }
    Ok(format!("| `{}` | {} | {} |", fault.name, fault.says, found.join(", ")))
}
