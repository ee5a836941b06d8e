//! What the command line takes.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

use crate::command::{
    admin::AdminCommand, agents::AgentsCommand, bench::BenchArgs, completions::CompletionsArgs,
    contexts::ContextsCommand, dead_letters::DeadLettersCommand, download::DownloadArgs, groups::GroupsCommand,
    login::LoginArgs, profiles::ProfilesCommand, publish::PublishArgs, reply::ReplyArgs, request::RequestArgs,
    send::SendArgs, status::StatusArgs, subscribe::SubscribeArgs, subscriptions::SubscriptionsCommand,
    upload::UploadArgs,
};

const AFTER: &str = "\
Examples:
  acb subscribe --filter 'orders.>'            watch what is published there
  acb publish orders.new '{\"id\":7}'            publish one message
  acb send reviewer --file change.diff         send a file to one agent's inbox
  acb request reviewer 'are you there?'        ask, and wait for the answer
  acb --json agents ls --all code.review | jq  find agents by what they can do

Exit codes: `acb help exit-codes`. More: docs/guide/cli.md";

/// Talks to an Agentic Context Bus: agents, messages, subscriptions.
///
/// Who you are comes from a profile (`acb login`), or from ACB_TOKEN, or from ACB_KEY with ACB_AGENT. Without any of
/// them you are taken at your word, which only a server started with --dev does.
#[derive(Debug, Parser)]
#[command(name = "acb", version, after_help = AFTER, disable_help_subcommand = false, propagate_version = false)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection and output")]
pub(crate) struct Global {
    /// Where the bus is: acb://host:port, or acbs://host:port over TLS [default: the profile's, else
    /// acb://127.0.0.1:7400].
    #[arg(long, global = true, env = "ACB_URL", value_name = "URL", hide_env_values = true)]
    pub(crate) url: Option<String>,

    /// The profile to use instead of the current one.
    #[arg(long, global = true, env = "ACB_PROFILE", value_name = "NAME", hide_env_values = true)]
    pub(crate) profile: Option<String>,

    /// The agent to be.
    #[arg(long, global = true, env = "ACB_AGENT", value_name = "ID", hide_env_values = true)]
    pub(crate) agent: Option<String>,

    /// The agent's tenant, with a secret or with a server in --dev.
    #[arg(long, global = true, env = "ACB_TENANT", value_name = "ID", hide_env_values = true)]
    pub(crate) tenant: Option<String>,

    /// Roots to check the server's certificate against, as PEM.
    #[arg(long, global = true, env = "ACB_CA_FILE", value_name = "PATH", hide_env_values = true)]
    pub(crate) ca_file: Option<PathBuf>,

    /// How long to wait for the bus.
    #[arg(long, global = true, value_name = "TIME", default_value = "3s", value_parser = humantime::parse_duration)]
    pub(crate) connect_timeout: Duration,

    /// One JSON object a line, for scripts; errors too.
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Says more: with an error its code and the id of its request in the server's log.
    #[arg(long, short, global = true)]
    pub(crate) verbose: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Sends a message to one agent's inbox, where it waits until it is handled.
    Send(SendArgs),
    /// Publishes a message to a topic.
    Publish(PublishArgs),
    /// Shows messages as they come: of a durable subscription, of topics, or of your inbox.
    #[command(visible_alias = "sub")]
    Subscribe(SubscribeArgs),
    /// Asks an agent, and waits for its answer.
    Request(RequestArgs),
    /// Answers requests: runs a command for each, or sends back what came.
    Reply(ReplyArgs),
    /// Who is on the bus.
    #[command(subcommand)]
    Agents(AgentsCommand),
    /// What agents share: versioned documents with an owner and an audience.
    #[command(subcommand, visible_alias = "ctx")]
    Contexts(ContextsCommand),
    /// Groups of agents that contexts are shared with.
    #[command(subcommand)]
    Groups(GroupsCommand),
    /// Durable subscriptions.
    #[command(subcommand, visible_alias = "subs")]
    Subscriptions(SubscriptionsCommand),
    /// Messages that a subscription gave up on.
    #[command(subcommand, visible_alias = "dlq")]
    DeadLetters(DeadLettersCommand),
    /// Uploads a file as a context, in chunks. Interrupted, the same command again goes on.
    Upload(UploadArgs),
    /// Downloads a context to a file. Interrupted, the same command again goes on.
    Download(DownloadArgs),
    /// How the server is, or where a message stands.
    Status(StatusArgs),
    /// Measures this bus from here: publishes and consumes for a while.
    Bench(BenchArgs),
    /// Logs in, and keeps that as a profile.
    Login(LoginArgs),
    /// Ends the login of a profile, and forgets its key.
    Logout,
    /// Buses you know, and who you are there.
    #[command(subcommand)]
    Profiles(ProfilesCommand),
    /// Tenants, keys and secrets; for admins.
    #[command(subcommand)]
    Admin(AdminCommand),
    /// Prints what a shell needs to complete commands.
    Completions(CompletionsArgs),
    /// What the exit codes mean.
    #[command(hide = true, help_template = "{about}\n", about = crate::exit::help())]
    ExitCodes,
}
