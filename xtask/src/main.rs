//! `cargo xtask`: the chores of this workspace, in Rust rather than shell. `make` targets call it.

mod codegen;
mod tidy;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Chores of the ACB workspace")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Writes what is generated: protobuf and gRPC code, error codes and their pages, the table of limits.
    Codegen {
        /// Changes nothing; fails when something committed is not what would be written.
        #[arg(long)]
        check: bool,
    },
    /// Checks what compilers do not: walls between crates, pages of error codes, leftover markers, sizes of files,
    /// freshness of what is generated.
    Tidy,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Codegen { check: false } => codegen::write(&root()),
        Task::Codegen { check: true } => codegen::check(&root()),
        Task::Tidy => tidy::run(&root()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e:#}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's own folder: the one above this crate's.
fn root() -> PathBuf {
    let mut here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.pop();
    here
}
