//! The commands, one file each.

use acb_sdk::{Client, ErrorKind};
use tokio_util::sync::CancellationToken;

use crate::{
    args::{Command, Global},
    connect::{self, Proof, Target, Use},
    failure::{Failure, Result},
    output::Output,
};

pub(crate) mod admin;
pub(crate) mod agents;
pub(crate) mod bench;
pub(crate) mod completions;
pub(crate) mod contexts;
pub(crate) mod dead_letters;
pub(crate) mod download;
pub(crate) mod groups;
pub(crate) mod guest;
pub(crate) mod login;
pub(crate) mod profiles;
pub(crate) mod publish;
pub(crate) mod reply;
pub(crate) mod request;
pub(crate) mod send;
pub(crate) mod start;
pub(crate) mod status;
pub(crate) mod subscribe;
pub(crate) mod subscriptions;
pub(crate) mod transfer;
pub(crate) mod upload;

/// What every command works with.
#[derive(Debug)]
pub(crate) struct Context {
    /// What the command line said before or after any command.
    pub(crate) global: Global,
    /// Where results go.
    pub(crate) out: Output,
    /// Cancelled at Ctrl-C.
    pub(crate) stop: CancellationToken,
}

impl Context {
    /// Connects.
    pub(crate) async fn connect(&self, need: Use) -> Result<Client> {
        Ok(self.connect_to(need).await?.1)
    }

    /// Connects, and says where to and as whom.
    pub(crate) async fn connect_to(&self, need: Use) -> Result<(Target, Client)> {
        let target = connect::target(&self.global, need)?;
        let client = self.or_stop(target.connect(&self.global)).await??;
        if need == Use::Short {
            login::keep_token(&target, &client);
        }
        Ok((target, client))
    }

    /// The next of what never ends by itself; nothing more after Ctrl-C. Dropping the wait must lose nothing.
    pub(crate) async fn next_or_stop<T>(&self, next: impl Future<Output = Option<T>>) -> Option<T> {
        tokio::select! {
            next = next => next,
            () = self.stop.cancelled() => None,
        }
    }

    /// Waits for something, but no longer than until Ctrl-C.
    pub(crate) async fn or_stop<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        // What is given up here was said to be cancel-safe, or belongs to a process that ends.
        // Work first: a watch ends by itself when it is told to stop, and that is no interruption.
        tokio::select! {
            biased;
            result = work => Ok(result),
            () = self.stop.cancelled() => Err(Failure::Interrupted),
        }
    }
}

/// Runs a command.
pub(crate) async fn run(command: Command, context: &Context) -> Result {
    let result = dispatch(command, context).await;
    if let Err(Failure::Bus(error)) = &result
        && error.kind() == ErrorKind::Unauthenticated
        && let Ok(target) = connect::target(&context.global, Use::Short)
        && matches!(target.proof, Proof::Token { kept: true, .. })
    {
        login::forget_token(&target);
    }
    result
}

async fn dispatch(command: Command, context: &Context) -> Result {
    match command {
        Command::Send(args) => context.or_stop(send::run(args, context)).await?,
        Command::Publish(args) => context.or_stop(publish::run(args, context)).await?,
        Command::Subscribe(args) => subscribe::run(args, context).await,
        Command::Request(args) => request::run(args, context).await,
        Command::Reply(args) => reply::run(args, context).await,
        Command::Agents(command) => context.or_stop(Box::pin(agents::run(command, context))).await?,
        Command::Subscriptions(command) => context.or_stop(subscriptions::run(command, context)).await?,
        Command::DeadLetters(command) => context.or_stop(dead_letters::run(command, context)).await?,
        Command::Contexts(command @ contexts::ContextsCommand::Watch(_)) => contexts::run(command, context).await,
        Command::Contexts(command) => context.or_stop(Box::pin(contexts::run(command, context))).await?,
        Command::Groups(command) => context.or_stop(groups::run(command, context)).await?,
        Command::Upload(args) => context.or_stop(upload::run(args, context)).await?,
        Command::Download(args) => context.or_stop(download::run(args, context)).await?,
        Command::Status(args) => context.or_stop(status::run(args, context)).await?,
        Command::Bench(args) => bench::run(args, context).await,
        Command::Login(args) => context.or_stop(login::run(args, context)).await?,
        Command::Logout => context.or_stop(login::logout(context)).await?,
        Command::Profiles(command) => profiles::run(command, context),
        Command::Admin(command) => context.or_stop(admin::run(command, context)).await?,
        Command::Completions(args) => completions::run(&args),
        Command::ExitCodes => context.out.result(|| serde_json::json!({}), crate::exit::help),
    }
}

/// Facts about one thing, a line each; what is empty is left out.
pub(crate) fn facts(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let shown = rows.iter().filter(|(_, value)| !value.is_empty());
    shown.map(|(name, value)| format!("{name:<width$}  {value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        crate::args::Cli::command().debug_assert();
    }

    #[test]
    fn facts_line_up_without_the_empty_ones() {
        let rows = [("id", "a".into()), ("name", String::new()), ("status", "online".into())];
        assert_eq!(facts(&rows), "id      a\nstatus  online\n");
    }
}
