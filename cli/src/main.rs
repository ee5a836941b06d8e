//! `acb`: the command line of the Agentic Context Bus, for people and for scripts.

use std::process::ExitCode;

use clap::Parser as _;

mod args;
mod command;
mod connect;
mod exit;
mod failure;
mod message_args;
mod output;
mod payload;
mod profile;
mod stop;

use crate::{args::Cli, command::Context, failure::Result, output::Output};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let (json, verbose) = (cli.global.json, cli.global.verbose);
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell(json, verbose);
            ExitCode::from(failure.exit().number())
        }
    }
}

fn run(cli: Cli) -> Result {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let stop = stop::on_signals()?;
        let context = Context { out: Output::new(cli.global.json), global: cli.global, stop };
        command::run(cli.command, &context).await
    });
    // A read of standard input that nobody waits for any more must not hold the program up.
    runtime.shutdown_background();
    result
}
