//! `acb upload`: a file as a context. Interrupted, the same command again goes on.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash as _, Hasher as _},
    path::{Path, PathBuf},
};

use acb_sdk::{Client, UploadBuilder};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::{Context, facts, transfer::Teller};
use crate::{
    connect::Use,
    failure::{Failure, Result},
    output::bytes,
};

/// Who may read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
enum Scope {
    /// You alone.
    Private,
    /// All agents of the tenant.
    Public,
}

/// What `upload` takes.
#[derive(Args, Debug, Hash)]
pub(crate) struct UploadArgs {
    /// The file; - for standard input, which cannot be resumed by another command.
    file: PathBuf,

    /// Path that names the context, such as archives/today.
    #[arg(long)]
    key: Option<String>,

    /// Kind of the context.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,

    /// Media type of the content.
    #[arg(long)]
    content_type: Option<String>,

    /// A word to filter by; may be given again.
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,

    /// Who may read it.
    #[arg(long, value_enum, default_value = "private", conflicts_with_all = ["groups", "readers", "writers"])]
    scope: Scope,

    /// A group whose members may read it; may be given again.
    #[arg(long = "group", value_name = "GROUP", conflicts_with_all = ["readers", "writers"])]
    groups: Vec<String>,

    /// An agent that may read it; may be given again.
    #[arg(long = "share-read", value_name = "AGENT")]
    readers: Vec<String>,

    /// An agent that may read and change it; may be given again.
    #[arg(long = "share-write", value_name = "AGENT")]
    writers: Vec<String>,

    /// Makes a new revision of this context instead of a new one; with --if-rev or --force.
    #[arg(long, value_name = "ID")]
    update: Option<String>,

    /// The revision that the new one was made for.
    #[arg(long, requires = "update", conflicts_with = "force")]
    if_rev: Option<u64>,

    /// Overwrites whatever is there.
    #[arg(long, requires = "update")]
    force: bool,

    /// Size of a chunk in bytes, 262144 to 8388608.
    #[arg(long, default_value_t = 1_048_576)]
    chunk_bytes: u32,

    /// Begins anew, whatever was sent before.
    #[arg(long)]
    no_resume: bool,

    /// Gives up what the same command sent before it was interrupted, and its space on the bus back.
    #[arg(long, conflicts_with = "no_resume")]
    abort: bool,
}

pub(crate) async fn run(mut args: UploadArgs, context: &Context) -> Result {
    // Whatever is done with it, the command is the same one.
    let abort = std::mem::take(&mut args.abort);
    let is_stdin = args.file == Path::new("-");
    if abort && is_stdin {
        return Err(Failure::usage("what comes from standard input leaves nothing to give up: --abort needs the file"));
    }
    let (target, client) = context.connect_to(Use::Long).await?;
    if abort {
        return abort_stopped(&client, &resume_file(&args, &target.url, client.agent_id().as_deref()), context).await;
    }
    let mut upload =
        if is_stdin { client.streams().upload(tokio::io::stdin()) } else { client.streams().upload_path(&args.file) };
    if !is_stdin && !args.no_resume {
        upload = upload.resume_file(resume_file(&args, &target.url, client.agent_id().as_deref()));
    }
    let teller = Teller::new(context.out);
    let outcome = described(&args, upload)?.progress(teller.tell()).await;
    teller.done();
    let done = outcome?;
    client.close().await;
    context.out.result(
        || {
            json!({
                "context_id": done.context_id,
                "rev": done.rev,
                "version": done.version,
                "size_bytes": done.size,
                "sha256": done.sha256.to_string(),
                "sent_bytes": done.sent_bytes,
                "connections": done.connections,
            })
        },
        || {
            facts(&[
                ("context", done.context_id.clone()),
                ("revision", done.rev.to_string()),
                ("version", done.version.clone()),
                ("size", bytes(done.size)),
                ("sha256", done.sha256.to_string()),
            ])
        },
    )
}

async fn abort_stopped(client: &Client, resume_file: &Path, context: &Context) -> Result {
    let was_begun = resume_file.exists();
    client.streams().abort_stopped(resume_file).await?;
    client.close().await;
    context.out.result(
        || json!({ "aborted": was_begun }),
        || if was_begun { "given up" } else { "there was nothing to give up" }.to_owned(),
    )
}

fn described(args: &UploadArgs, mut upload: UploadBuilder) -> Result<UploadBuilder> {
    upload = upload.chunk_bytes(args.chunk_bytes);
    if let Some(key) = &args.key {
        upload = upload.key(key);
    }
    if let Some(kind) = &args.kind {
        upload = upload.kind(kind);
    }
    if let Some(content_type) = &args.content_type {
        upload = upload.content_type(content_type);
    }
    for label in &args.labels {
        upload = upload.label(label);
    }
    if args.scope == Scope::Public {
        upload = upload.public();
    }
    for group in &args.groups {
        upload = upload.for_group(group);
    }
    for agent in &args.readers {
        upload = upload.share_read(agent);
    }
    for agent in &args.writers {
        upload = upload.share_write(agent);
    }
    match (&args.update, args.if_rev, args.force) {
        (None, ..) => Ok(upload),
        (Some(id), Some(rev), _) => Ok(upload.update(id, rev)),
        (Some(id), None, true) => Ok(upload.overwrite(id)),
        (Some(_), None, false) => Err(Failure::usage("--update needs --if-rev or --force")),
    }
}

/// Beside the file, under a name that the whole command decides: another command about the same file is another upload.
fn resume_file(args: &UploadArgs, bus: &str, agent: Option<&str>) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    (args, bus, agent).hash(&mut hasher);
    let name = args.file.file_name().unwrap_or_default().to_string_lossy();
    args.file.with_file_name(format!(".{name}.{:016x}.acb-upload", hasher.finish()))
}
