//! `acb-bench` runs ACB and its peers on the same machine in the same run and reports ratios.
//!
//! - `run` is the orchestrator: it starts one server at a time, starts a load program against it,
//!   interleaves peer and ours, and computes medians of pairwise ratios (`bench/results/latest.json`,
//!   `docs/benchmarks.md`).
//! - `load` is that load program: one process, one case, one JSON line. Being a process of its own, its
//!   CPU time is the client's CPU time, and both sides' clients live in the same surroundings.
//! - `report` writes the document again from the stored results; `list` prints the rows; `calm` looks at the machine by
//!   itself, as `run` does before each pair.
//!
//! What keeps it fair is shared by construction: the loops, windows, clocks and checks are written once
//! (`load/`) over small traits, and each bus only says how it publishes, receives and acknowledges.
//! Rules and peer settings: `docs/benchmarks.md`.

#![allow(clippy::disallowed_methods, reason = "a benchmark measures real time and its load programs own their tasks")]

mod acb;
mod calm;
mod case;
mod cli;
mod floors;
mod load;
mod machine;
mod peer;
mod peers;
mod proc;
mod record;
mod run;
mod server;
mod stats;
mod table;

use std::process::ExitCode;

use clap::Parser as _;

/// Both sides' clients run in this binary, so both get the same allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    let done = match arguments.command {
        cli::Command::Run(options) => run::run(&options),
        cli::Command::Load(options) => load::main(&options).map(|()| ExitCode::SUCCESS),
        cli::Command::Report(options) => run::report(&options),
        cli::Command::List => {
            table::print_rows(case::ROWS);
            Ok(ExitCode::SUCCESS)
        }
        cli::Command::Calm => calm::main().map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        eprintln!("acb-bench: {error:#}");
        ExitCode::FAILURE
    })
}
