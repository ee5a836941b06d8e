//! `acb agents`: who is on the bus.

use acb_sdk::{Agent, AgentActivity, AgentCapability, AgentEvent, AgentStatus, Agents};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::Context;
use crate::{
    connect::Use,
    failure::{Failure, Result},
    message_args::pair,
    output::{Table, age, when, when_json},
};

/// What can be done with agents.
#[derive(Debug, Subcommand)]
pub(crate) enum AgentsCommand {
    /// Puts an agent on the bus and makes its inbox. Again, it is a new incarnation, and the older one is shut out.
    Register(RegisterArgs),
    /// Lists agents; with filters, those to which all of them apply.
    #[command(visible_aliases = ["list", "discover"])]
    Ls(LsArgs),
    /// Shows one agent.
    Get {
        /// Its id.
        id: String,
    },
    /// Shows who is there, and then who comes, changes and leaves, and what becomes of their presence, as it happens.
    Watch(WatchArgs),
    /// Takes an agent off the bus, with its subscriptions and its inbox.
    Rm {
        /// Its id.
        id: String,
        /// Keeps the inbox and what waits in it for a later registration.
        #[arg(long)]
        keep_inbox: bool,
    },
}

/// What an agent says of itself.
#[derive(Args, Debug)]
pub(crate) struct RegisterArgs {
    /// Its id [default: who you are].
    id: Option<String>,
    /// Kind of agent.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Name for people.
    #[arg(long)]
    name: Option<String>,
    /// What it is for.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Its semantic version. Like this because --version is the program's.
    #[arg(long = "agent-version", value_name = "VERSION")]
    agent_version: Option<String>,
    /// Where it runs.
    #[arg(long)]
    location: Option<String>,
    /// Something that it can do, such as code.review or code.review@1.2.0; again for more.
    #[arg(long = "capability", short, value_name = "NAME[@VERSION]")]
    capabilities: Vec<String>,
    /// A group that it is in; again for more.
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// Where else it can be reached.
    #[arg(long)]
    endpoint: Option<String>,
    /// A named value; again for more.
    #[arg(long = "metadata", short, value_name = "NAME=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,
}

/// Filters.
#[derive(Args, Debug)]
pub(crate) struct LsArgs {
    /// Of exactly this type.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// At exactly this location.
    #[arg(long)]
    location: Option<String>,
    /// With this capability; again for more, all of which it must have.
    #[arg(long = "all", value_name = "CAPABILITY")]
    all: Vec<String>,
    /// With at least one of the capabilities given this way.
    #[arg(long = "any", value_name = "CAPABILITY")]
    any: Vec<String>,
    /// With this status now.
    #[arg(long)]
    status: Option<StatusArg>,
    /// With this named value; again for more.
    #[arg(long = "metadata", short, value_name = "NAME=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,
    /// With this text in id, name or description, in any case.
    #[arg(long)]
    text: Option<String>,
}

/// What to watch.
#[derive(Args, Debug)]
pub(crate) struct WatchArgs {
    /// This one only.
    id: Option<String>,
    /// Of exactly this type.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// At exactly this location.
    #[arg(long)]
    location: Option<String>,
    /// With this capability; again for more, all of which it must have.
    #[arg(long = "capability", short, value_name = "NAME")]
    capabilities: Vec<String>,
    /// Only changes after this revision, and presence as it is now.
    #[arg(long, value_name = "REVISION")]
    after: Option<u64>,
    /// Ends after so many events.
    #[arg(long, short = 'n', value_name = "COUNT")]
    count: Option<u64>,
}

/// Whether an agent is there.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum StatusArg {
    Online,
    Offline,
    Unknown,
}

pub(crate) async fn run(command: AgentsCommand, context: &Context) -> Result {
    let need = if matches!(command, AgentsCommand::Watch(_)) { Use::Long } else { Use::Short };
    let client = context.connect(need).await?;
    let agents = client.agents();
    match command {
        AgentsCommand::Register(args) => {
            let id = args.id.clone().or_else(|| client.agent_id());
            let id = id.ok_or_else(|| Failure::usage("name the agent to register"))?;
            let agent = spec(args, agents.register(id)).await?;
            let incarnation = agent.incarnation;
            context
                .out
                .result(|| to_json(&agent), || format!("{} is registered, incarnation {incarnation}", agent.id()))?;
        }
        AgentsCommand::Ls(args) => list(search(args, agents.discover()).all().await?, context)?,
        AgentsCommand::Get { id } => {
            let agent = agents.get(id).await?;
            context.out.result(|| to_json(&agent), || to_text(&agent))?;
        }
        // Nothing is to be finished: told to stop, it has ended well at once.
        AgentsCommand::Watch(args) => return watch(args, &agents, context).await,
        AgentsCommand::Rm { id, keep_inbox } => {
            if keep_inbox {
                agents.unregister_keeping_inbox(&id).await?;
            } else {
                agents.unregister(&id).await?;
            }
            let inbox = if keep_inbox { "; its inbox is kept" } else { "" };
            context.out.result(|| json!({ "id": id, "removed": true }), || format!("{id} is off the bus{inbox}"))?;
        }
    }
    client.close().await;
    Ok(())
}

fn spec(args: RegisterArgs, mut register: acb_sdk::RegisterBuilder) -> acb_sdk::RegisterBuilder {
    for capability in args.capabilities {
        register = register.capability(match capability.split_once('@') {
            Some((name, version)) => AgentCapability::new(name).version(version),
            None => AgentCapability::new(capability),
        });
    }
    for group in args.groups {
        register = register.group(group);
    }
    for (name, value) in args.metadata {
        register = register.metadata(name, value);
    }
    register
        .kind(args.kind.unwrap_or_default())
        .name(args.name.unwrap_or_default())
        .description(args.description.unwrap_or_default())
        .version(args.agent_version.unwrap_or_default())
        .location(args.location.unwrap_or_default())
        .endpoint(args.endpoint.unwrap_or_default())
}

fn search(args: LsArgs, mut search: acb_sdk::DiscoverBuilder) -> acb_sdk::DiscoverBuilder {
    for capability in args.all {
        search = search.capability(capability);
    }
    for capability in args.any {
        search = search.any_capability(capability);
    }
    for (name, value) in args.metadata {
        search = search.metadata(name, value);
    }
    match args.status {
        None => {}
        Some(StatusArg::Online) => search = search.status(AgentStatus::Online),
        Some(StatusArg::Offline) => search = search.status(AgentStatus::Offline),
        Some(StatusArg::Unknown) => search = search.status(AgentStatus::Unknown),
    }
    search
        .kind(args.kind.unwrap_or_default())
        .location(args.location.unwrap_or_default())
        .text(args.text.unwrap_or_default())
}

async fn watch(args: WatchArgs, agents: &Agents, context: &Context) -> Result {
    let mut watch = agents.watch().after(args.after.unwrap_or(0));
    watch = watch.id(args.id.unwrap_or_default()).kind(args.kind.unwrap_or_default());
    watch = watch.location(args.location.unwrap_or_default());
    watch = args.capabilities.into_iter().fold(watch, acb_sdk::AgentWatchBuilder::capability);
    let mut watch = watch.open().await?;
    let mut left = args.count;
    while left != Some(0) {
        let Some(event) = context.next_or_stop(watch.next()).await else { return Ok(()) };
        let event = event?;
        let (word, agent) = match &event {
            AgentEvent::State(agent) => ("is", Some(agent)),
            AgentEvent::Changed(agent) => ("changed", Some(agent)),
            AgentEvent::Presence(agent) => ("presence", Some(agent)),
            AgentEvent::Left(_) => ("left", None),
            AgentEvent::Synced(_) => ("synced", None),
            AgentEvent::Restarted => ("restarted", None),
            _ => continue,
        };
        let object = || {
            let mut object = agent.map_or_else(|| json!({}), to_json);
            match &event {
                AgentEvent::Left(id) => object["id"] = id.as_str().into(),
                AgentEvent::Synced(revision) => object["revision"] = (*revision).into(),
                _ => {}
            }
            object["event"] = word.into();
            object
        };
        let line = || match (&event, agent) {
            (AgentEvent::Left(id), _) => format!("{:>8}  {word:<9} {id}", "-"),
            (AgentEvent::Synced(revision), _) => format!("{revision:>8}  {word}"),
            (_, Some(agent)) => {
                let doing = agent.activity.map(|activity| format!("  {}", activity.name())).unwrap_or_default();
                format!("{:>8}  {word:<9} {}  {}{doing}", agent.revision, agent.id(), agent.presence.name())
            }
            (_, None) => format!("{:>8}  {word}", "-"),
        };
        context.out.result(object, line)?;
        left = left.map(|left| left - 1);
    }
    Ok(())
}

fn list(agents: Vec<Agent>, context: &Context) -> Result {
    let mut table = Table::new(&["ID", "TYPE", "STATUS", "SEEN", "CAPABILITIES"]).or("no agents");
    for agent in &agents {
        table.row([
            agent.id().to_owned(),
            agent.spec.kind.clone(),
            agent.status.name().to_owned(),
            age(agent.last_seen_at),
            capabilities(agent).join(" "),
        ]);
    }
    context.out.rows(agents.iter().map(to_json), table)
}

fn capabilities(agent: &Agent) -> Vec<String> {
    let one = |c: &AgentCapability| {
        if c.version.is_empty() { c.name.clone() } else { format!("{}@{}", c.name, c.version) }
    };
    agent.spec.capabilities.iter().map(one).collect()
}

fn to_text(agent: &Agent) -> String {
    let spec = &agent.spec;
    let metadata: Vec<String> = spec.metadata.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let rows = [
        ("id", spec.id.clone()),
        ("status", agent.status.name().to_owned()),
        ("presence", agent.presence.name().to_owned()),
        ("activity", agent.activity.map(AgentActivity::name).unwrap_or_default().to_owned()),
        ("type", spec.kind.clone()),
        ("name", spec.name.clone()),
        ("description", spec.description.clone()),
        ("version", spec.version.clone()),
        ("location", spec.location.clone()),
        ("capabilities", capabilities(agent).join(" ")),
        ("endpoint", spec.endpoint.clone()),
        ("groups", spec.groups.join(" ")),
        ("metadata", metadata.join(" ")),
        ("incarnation", agent.incarnation.to_string()),
        ("registered", when(agent.registered_at)),
        ("updated", when(agent.updated_at)),
        ("last seen", when(agent.last_seen_at)),
    ];
    super::facts(&rows)
}

fn to_json(agent: &Agent) -> Value {
    let spec = &agent.spec;
    let capabilities: Vec<Value> = spec.capabilities.iter().map(capability_json).collect();
    json!({
        "id": spec.id,
        "type": spec.kind,
        "name": spec.name,
        "description": spec.description,
        "version": spec.version,
        "location": spec.location,
        "capabilities": capabilities,
        "endpoint": spec.endpoint,
        "groups": spec.groups,
        "metadata": spec.metadata,
        "status": agent.status.name(),
        "presence": agent.presence.name(),
        "activity": agent.activity.map(AgentActivity::name),
        "incarnation": agent.incarnation,
        "registered_at": when_json(agent.registered_at),
        "updated_at": when_json(agent.updated_at),
        "last_seen_at": when_json(agent.last_seen_at),
        "revision": agent.revision,
    })
}

fn capability_json(capability: &AgentCapability) -> Value {
    let mut out = json!({ "name": capability.name });
    for (name, text) in [
        ("version", &capability.version),
        ("input_schema", &capability.input_schema),
        ("output_schema", &capability.output_schema),
    ] {
        if !text.is_empty() {
            out[name] = text.as_str().into();
        }
    }
    out
}
