//! `acb completions`: what a shell needs to complete commands.

use std::io::{self, Write as _};

use clap::{Args, CommandFactory as _, ValueEnum};
use clap_complete::Shell;

use crate::{args::Cli, failure::Result};

/// What `completions` takes. For bash: `acb completions bash > ~/.local/share/bash-completion/completions/acb`
#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    shell: ShellArg,
}

/// A shell.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ShellArg {
    Bash,
    Zsh,
    Fish,
}

pub(crate) fn run(args: &CompletionsArgs) -> Result {
    let shell = match args.shell {
        ShellArg::Bash => Shell::Bash,
        ShellArg::Zsh => Shell::Zsh,
        ShellArg::Fish => Shell::Fish,
    };
    // Written to memory first: the generator cannot say that its reader went away.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "acb", &mut script);
    let mut out = io::stdout().lock();
    out.write_all(&script)?;
    out.flush()?;
    Ok(())
}
