//! `acb contexts`: what agents share.

use std::time::Duration;

use acb_sdk::{Context as Shared, ContextAccess, ContextEvent, ContextScope, Contexts, ErrorCode};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Context;
use crate::{
    connect::Use,
    failure::{Failure, Result},
    message_args::pair,
    output::{Table, age, bytes, payload_json, text_or_size, when, when_json},
    payload::PayloadArgs,
};

/// What can be done with contexts.
#[derive(Debug, Subcommand)]
pub(crate) enum ContextsCommand {
    /// Shares a context under a key, or writes a new revision of the one that is there.
    Put(PutArgs),
    /// Shows one, by id or key.
    Get(GetArgs),
    /// Lists those that you may see.
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Shows what is there, then every change as it comes, until Ctrl-C.
    Watch(WatchArgs),
    /// Shows the kept revisions of one, newest first.
    History {
        /// Its id or key.
        which: String,
    },
    /// Deletes one. What is not there is no error.
    Rm {
        /// Its id or key.
        which: String,
        /// Only if it is still at this revision [default: whatever is there, which is audited].
        #[arg(long, value_name = "REVISION")]
        if_rev: Option<u64>,
    },
}

/// What to write.
#[derive(Args, Debug)]
pub(crate) struct PutArgs {
    /// Its key, such as plans/alpha.
    key: String,
    #[command(flatten)]
    payload: PayloadArgs,
    /// Only if it is still at this revision; 0 only if it is not there [default: whatever is there, which is audited].
    #[arg(long, value_name = "REVISION")]
    if_rev: Option<u64>,
    /// Kind of context; looked at when it is made.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Who may see it: private, public, or as --group and --share say [default: private].
    #[arg(long)]
    scope: Option<ContextScope>,
    /// A group whose members may read it; again for more.
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// An agent that may read it, or with :w also write; again for more.
    #[arg(long = "share", value_name = "AGENT[:w]")]
    shares: Vec<String>,
    /// Media type of the payload.
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// For people.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// A word to filter by; again for more.
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// A named value; again for more.
    #[arg(long = "metadata", short, value_name = "NAME=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,
    /// How long it lives.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    ttl: Option<Duration>,
    /// Its semantic version [default: the next patch]. Like this because --version is the program's.
    #[arg(long, value_name = "VERSION")]
    context_version: Option<String>,
}

/// What to show.
#[derive(Args, Debug)]
pub(crate) struct GetArgs {
    /// Its id or key.
    which: String,
    /// As it was at this revision.
    #[arg(long, value_name = "REVISION")]
    at_rev: Option<u64>,
    /// Prints the payload alone, with a line's end.
    #[arg(long, conflicts_with = "json")]
    raw: bool,
}

/// Filters.
#[derive(Args, Debug)]
pub(crate) struct LsArgs {
    /// With a key that begins so.
    prefix: Option<String>,
    /// Of exactly this type.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Made by this agent.
    #[arg(long, value_name = "AGENT")]
    owner: Option<String>,
    /// With this scope.
    #[arg(long)]
    scope: Option<ContextScope>,
    /// With this label; again for more, all of which it must have.
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// With this text in key, type or description, in any case.
    #[arg(long)]
    text: Option<String>,
}

/// What to watch.
#[derive(Args, Debug)]
pub(crate) struct WatchArgs {
    /// With a key that begins so.
    prefix: Option<String>,
    /// Of exactly this type.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Made by this agent.
    #[arg(long, value_name = "AGENT")]
    owner: Option<String>,
    /// With this label; again for more, all of which it must have.
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// Only changes after this revision.
    #[arg(long, value_name = "REVISION")]
    after: Option<u64>,
    /// Ends after so many events.
    #[arg(long, short = 'n', value_name = "COUNT")]
    count: Option<u64>,
}

pub(crate) async fn run(command: ContextsCommand, context: &Context) -> Result {
    let need = if matches!(command, ContextsCommand::Watch(_)) { Use::Long } else { Use::Short };
    let client = context.connect(need).await?;
    let contexts = client.contexts();
    match command {
        ContextsCommand::Put(args) => put(args, &contexts, context).await?,
        ContextsCommand::Get(args) => {
            let mut get = contexts.get(args.which);
            if let Some(rev) = args.at_rev {
                get = get.at_rev(rev);
            }
            let one = get.await?;
            if args.raw {
                context.out.raw(&one.payload)?;
            } else {
                context.out.result(|| with_payload(&one), || to_text(&one))?;
            }
        }
        ContextsCommand::Ls(args) => list(args, &contexts, context).await?,
        // Nothing is to be finished: told to stop, it has ended well at once.
        ContextsCommand::Watch(args) => return watch(args, &contexts, context).await,
        ContextsCommand::History { which } => {
            let id = id_of(&contexts, which).await?;
            let all = contexts.history(id).all().await?;
            let mut table = Table::new(&["REV#", "VERSION", "SIZE", "BY", "AGE"]);
            for one in &all {
                let version = if one.deleted { "(gone)".to_owned() } else { one.version.clone() };
                let size = if one.deleted { "-".to_owned() } else { bytes(one.size) };
                table.row([one.rev.to_string(), version, size, one.updated_by.clone(), age(one.updated_at)]);
            }
            context.out.rows(all.iter().map(to_json), table.or("no revisions"))?;
        }
        ContextsCommand::Rm { which, if_rev } => {
            let rev = match id_of(&contexts, which.clone()).await {
                Ok(id) => {
                    let delete = contexts.delete(id);
                    if let Some(rev) = if_rev { delete.if_rev(rev).await? } else { delete.force().await? }
                }
                Err(Failure::Bus(error)) if error.code() == ErrorCode::ContextNotFound => None,
                Err(failure) => return Err(failure),
            };
            let word = if rev.is_some() { "is gone" } else { "was not there" };
            context.out.result(|| json!({ "which": which, "rev": rev }), || format!("{which} {word}"))?;
        }
    }
    client.close().await;
    Ok(())
}

/// The id of a context that is named by its id or key.
async fn id_of(contexts: &Contexts, which: String) -> Result<String> {
    if which.parse::<acb_types::ContextId>().is_ok() {
        return Ok(which);
    }
    Ok(contexts.get(which).without_payload().await?.id)
}

async fn put(args: PutArgs, contexts: &Contexts, context: &Context) -> Result {
    let payload = args.payload.read()?;
    let shares: Vec<(String, ContextAccess)> = args
        .shares
        .iter()
        .map(|share| match share.strip_suffix(":w") {
            Some(agent) => (agent.to_owned(), ContextAccess::Write),
            None => (share.clone(), ContextAccess::Read),
        })
        .collect();
    let there = match contexts.get(&args.key).without_payload().await {
        Ok(there) => Some(there),
        Err(error) if error.code() == ErrorCode::ContextNotFound => None,
        Err(error) => return Err(error.into()),
    };
    // Revision 0 is of what is not there: sharing it then says that the key is taken.
    let written = if let Some(there) = there.filter(|_| args.if_rev != Some(0)) {
        let mut update = contexts.update(&there.id).payload(payload);
        update = match args.if_rev {
            Some(rev) => update.if_rev(rev),
            None => update.force(),
        };
        if let Some(scope) = args.scope {
            update = update.scope(scope);
        }
        if !args.groups.is_empty() {
            update = update.groups(args.groups);
        }
        if !shares.is_empty() {
            update = update.shares(shares);
        }
        if let Some(text) = args.content_type {
            update = update.content_type(text);
        }
        if let Some(text) = args.description {
            update = update.description(text);
        }
        if !args.labels.is_empty() {
            update = update.labels(args.labels);
        }
        if !args.metadata.is_empty() {
            update = update.metadata(args.metadata);
        }
        if let Some(ttl) = args.ttl {
            update = update.expires_after(Some(ttl));
        }
        if let Some(version) = args.context_version {
            update = update.version(version);
        }
        update.await?.context
    } else {
        let mut share = contexts.share(&args.key, payload);
        if let Some(kind) = args.kind {
            share = share.kind(kind);
        }
        if let Some(scope) = args.scope {
            share = share.scope(scope);
        }
        share = args.groups.into_iter().fold(share, acb_sdk::ShareBuilder::group);
        share = shares.into_iter().fold(share, |s, (agent, access)| s.share_with(agent, access));
        share = share.content_type(args.content_type.unwrap_or_default());
        share = share.description(args.description.unwrap_or_default());
        share = args.labels.into_iter().fold(share, acb_sdk::ShareBuilder::label);
        share = args.metadata.into_iter().fold(share, |s, (name, value)| s.metadata(name, value));
        if let Some(ttl) = args.ttl {
            share = share.expires_after(ttl);
        }
        if let Some(version) = args.context_version {
            share = share.version(version);
        }
        share.await?.context
    };
    context.out.result(
        || to_json(&written),
        || format!("{} is version {} at revision {}", name(&written), written.version, written.rev),
    )
}

async fn list(args: LsArgs, contexts: &Contexts, context: &Context) -> Result {
    let mut list = contexts.list().key_prefix(args.prefix.unwrap_or_default());
    list = list.kind(args.kind.unwrap_or_default()).owner(args.owner.unwrap_or_default());
    list = list.text(args.text.unwrap_or_default());
    if let Some(scope) = args.scope {
        list = list.scope(scope);
    }
    let all = args.labels.into_iter().fold(list, acb_sdk::ListBuilder::label).all().await?;
    let mut table = Table::new(&["KEY", "TYPE", "VERSION", "REV#", "SIZE", "SCOPE", "OWNER", "AGE"]);
    for one in &all {
        table.row([
            name(one).to_owned(),
            one.kind.clone(),
            one.version.clone(),
            one.rev.to_string(),
            bytes(one.size),
            one.scope.to_string(),
            one.owner.clone(),
            age(one.updated_at),
        ]);
    }
    context.out.rows(all.iter().map(to_json), table.or("no contexts"))
}

async fn watch(args: WatchArgs, contexts: &Contexts, context: &Context) -> Result {
    let mut watch = contexts.watch().key_prefix(args.prefix.unwrap_or_default());
    watch = watch.kind(args.kind.unwrap_or_default()).owner(args.owner.unwrap_or_default());
    watch = args.labels.into_iter().fold(watch, acb_sdk::WatchBuilder::label);
    let mut watch = watch.after(args.after.unwrap_or(0)).open().await?;
    let mut left = args.count;
    while left != Some(0) {
        let Some(event) = context.next_or_stop(watch.next()).await else { return Ok(()) };
        let event = event?;
        let word = match &event {
            ContextEvent::State(_) => "is",
            ContextEvent::Created(_) => "created",
            ContextEvent::Updated(_) => "updated",
            ContextEvent::Deleted(_) => "deleted",
            ContextEvent::Expired(_) => "expired",
            ContextEvent::Restarted => "restarted",
            _ => continue,
        };
        let object = || {
            let mut object = event.context().map_or_else(|| json!({}), to_json);
            object["event"] = word.into();
            object
        };
        let line = || match event.context() {
            Some(one) if one.deleted => format!("{:>8}  {word:<8} {}", one.rev, name(one)),
            Some(one) => format!("{:>8}  {word:<8} {}  {} by {}", one.rev, name(one), one.version, one.updated_by),
            None => format!("{:>8}  {word}", "-"),
        };
        context.out.result(object, line)?;
        left = left.map(|left| left - 1);
    }
    Ok(())
}

/// Its key, or its id when it has none.
fn name(one: &Shared) -> &str {
    one.key.as_deref().unwrap_or(&one.id)
}

fn to_text(one: &Shared) -> String {
    let shares = one.shares.iter().map(|(agent, access)| match access {
        ContextAccess::Read => agent.clone(),
        ContextAccess::Write => format!("{agent}:w"),
    });
    let facts = super::facts(&[
        ("id", one.id.clone()),
        ("key", one.key.clone().unwrap_or_default()),
        ("type", one.kind.clone()),
        ("version", one.version.clone()),
        ("revision", one.rev.to_string()),
        ("scope", one.scope.to_string()),
        ("groups", one.groups.join(" ")),
        ("shared with", shares.collect::<Vec<_>>().join(" ")),
        ("media type", one.content_type.clone()),
        ("description", one.description.clone()),
        ("labels", one.labels.join(" ")),
        ("size", bytes(one.size)),
        ("owner", one.owner.clone()),
        ("expires", if one.expires_at.is_set() { when(one.expires_at) } else { String::new() }),
        ("changed", when(one.updated_at)),
        ("changed by", one.updated_by.clone()),
    ]);
    let payload =
        if one.streamed { format!("<{}: `acb download` it>", bytes(one.size)) } else { text_or_size(&one.payload) };
    format!("{facts}\n{payload}")
}

fn with_payload(one: &Shared) -> Value {
    let mut object = to_json(one);
    if !one.streamed {
        payload_json(&mut object, &one.payload);
    }
    object
}

fn to_json(one: &Shared) -> Value {
    let mut object = json!({ "id": one.id, "rev": one.rev, "deleted": one.deleted, "updated_by": one.updated_by });
    object["updated_at"] = when_json(one.updated_at);
    if let Some(key) = &one.key {
        object["key"] = key.as_str().into();
    }
    object["type"] = one.kind.as_str().into();
    if one.deleted {
        return object;
    }
    let shares = one.shares.iter().map(|(agent, access)| {
        let access = if *access == ContextAccess::Write { "write" } else { "read" };
        (agent.clone(), Value::from(access))
    });
    object["version"] = one.version.as_str().into();
    object["scope"] = one.scope.as_str().into();
    object["groups"] = one.groups.clone().into();
    object["shares"] = Value::Object(shares.collect());
    object["content_type"] = one.content_type.as_str().into();
    object["description"] = one.description.as_str().into();
    object["labels"] = one.labels.clone().into();
    object["metadata"] = json!(one.metadata);
    object["owner"] = one.owner.as_str().into();
    object["size"] = one.size.into();
    object["sha256"] = one.sha256.iter().map(|b| format!("{b:02x}")).collect::<String>().into();
    object["streamed"] = one.streamed.into();
    object["created_at"] = when_json(one.created_at);
    object["expires_at"] = when_json(one.expires_at);
    object
}
