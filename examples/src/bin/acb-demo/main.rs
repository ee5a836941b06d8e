//! A team of agents surveys a folder over the bus, while one of them dies and the server is killed in the middle.
//!
//! `make demo` builds and runs it. Each agent is a process of its own: this same program with a role, or one of
//! `examples/python/demo`. What they do is in `planner.py`, `worker.py`, `worker.rs` and `watcher.rs`; what happens to them
//! is in `story.rs`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

mod bus;
mod findings;
mod folder;
mod metrics;
mod report;
mod server;
mod shared;
mod story;
mod streaming;
mod survey;
mod team;
mod teller;
mod watcher;
mod worker;

/// Surveys a folder with a team of agents over an Agentic Context Bus, and compares the result with the same survey done
/// by one process alone. One worker is killed on the way, and so is the server.
#[derive(Debug, Parser)]
#[command(name = "acb-demo", args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,

    #[command(flatten)]
    story: story::StoryArgs,
}

/// What a process of the team is.
#[derive(Debug, Subcommand)]
enum Role {
    /// Surveys files.
    #[command(hide = true, name = "as-worker")]
    Worker(worker::WorkerArgs),
    /// Follows the progress.
    #[command(hide = true, name = "as-watcher")]
    Watcher(watcher::WatcherArgs),
    /// Starts the server, and ends it with the demo.
    #[command(hide = true, name = "as-guard")]
    Guard {
        /// The server.
        program: PathBuf,
        /// Its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(arguments)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<ExitCode> {
    let Some(role) = arguments.role else { return story::run(arguments.story).await };
    if let Role::Guard { program, arguments } = role {
        server::guard(&program, &arguments).await?;
        return Ok(ExitCode::SUCCESS);
    }
    team::listen_to_parent();
    match role {
        Role::Worker(args) => worker::run(args).await?,
        Role::Watcher(args) => watcher::run(args).await?,
        Role::Guard { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}
