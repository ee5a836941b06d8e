//! `acb reply`: answers requests, by a command that runs for each or by sending back what came.
//!
//! What the command reads on standard input is the request, what it writes to standard output is the answer. A command
//! that fails gives the request back for another attempt; after the last one it is a dead letter.

use std::{process::Stdio, sync::Arc, time::Duration};

use acb_sdk::{Bytes, Client, ErrorCode, Message, SubscriptionSpec, Timestamp};
use acb_types::limits::PAYLOAD_BYTES_MAX;
use clap::Args;
use serde_json::json;
use tokio::{io::AsyncReadExt as _, io::AsyncWriteExt as _, process::Command, time::Instant};

use super::{Context, guest::Guest};
use crate::{
    connect::Use,
    failure::{Failure, Result},
    output::now,
};

/// Bytes of a failed command's last words that are kept.
const ERROR_BYTES_MAX: u64 = 64 * 1024;

/// What `reply` takes.
#[derive(Args, Debug)]
pub(crate) struct ReplyArgs {
    /// Answers on these topics instead of your inbox; again for more.
    #[arg(long = "topic", value_name = "PATTERN")]
    topics: Vec<String>,

    /// Answers what comes to a durable subscription, and shares it with all who do the same. With --topic it is made when
    /// it is not there.
    #[arg(long, value_name = "NAME")]
    group: Option<String>,

    /// Sends back what came.
    #[arg(long, conflicts_with = "command", required_unless_present = "command")]
    echo: bool,

    /// Requests that are handled at once.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: u16,

    /// The command, after `--`. It finds ACB_MESSAGE_ID, ACB_MESSAGE_TOPIC, ACB_MESSAGE_FROM, ACB_MESSAGE_ATTEMPT and
    /// ACB_MESSAGE_CONTENT_TYPE in its environment.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(crate) async fn run(args: ReplyArgs, context: &Context) -> Result {
    let need = if args.topics.is_empty() && args.group.is_none() { Use::OwnInbox } else { Use::Long };
    let (target, client) = context.connect_to(need).await?;
    let named = context.global.agent.is_some();
    // Only an inbox needs a registration.
    let guest = match need {
        Use::OwnInbox => Some(context.or_stop(Guest::of(&client, &target, named)).await??),
        Use::Short | Use::Long => None,
    };
    let subscription = context.or_stop(open(&args, &client)).await??;
    context.out.note(&match &guest {
        Some(Guest { agent, .. }) => format!("{agent} answers in its inbox; ask it with: acb request {agent} …"),
        None => format!("answering on {}", args.group.clone().unwrap_or_else(|| args.topics.join(" "))),
    });
    let (parallel, args) = (usize::from(args.parallel), Arc::new(args));
    let handling = subscription.for_each(parallel, |message| {
        let args = Arc::clone(&args);
        async move { handle(&args, context, &message).await }
    });
    // Dropping the loop ends running commands, and their requests go back to the bus.
    let outcome = tokio::select! {
        outcome = handling => outcome.map_err(Failure::from),
        () = context.stop.cancelled() => Ok(()),
    };
    let drained = client.drain().await;
    if let Some(guest) = guest {
        guest.leave(&client).await;
    }
    outcome?;
    Ok(drained?)
}

async fn open(args: &ReplyArgs, client: &Client) -> Result<acb_sdk::Subscription> {
    let builder = match &args.group {
        Some(group) => {
            make(args, group, client).await?;
            client.subscribe(group)
        }
        None if args.topics.is_empty() => client.inbox(),
        None => client.listen(&args.topics),
    };
    // No more than can be handled: what waits here could be answered elsewhere.
    Ok(builder.credits(u32::from(args.parallel)).open().await?)
}

/// Makes the group's subscription, unless it is there: then its own rules hold.
async fn make(args: &ReplyArgs, group: &str, client: &Client) -> Result {
    match client.subscriptions().get(group).await {
        Err(error) if error.code() == ErrorCode::SubscriptionNotFound && !args.topics.is_empty() => {
            let spec = args.topics.iter().fold(SubscriptionSpec::new(group), acb_sdk::SubscriptionSpec::filter);
            client.subscriptions().create(spec).await?;
            Ok(())
        }
        other => Ok(other.map(drop)?),
    }
}

/// Handles one message; what it fails with is the reason that goes back to the bus.
async fn handle(args: &ReplyArgs, context: &Context, message: &Message) -> Result<(), String> {
    let start = Instant::now();
    let answered = answer(args, message).await;
    let ms = start.elapsed().as_millis() as u64;
    let (id, from) = (message.id().to_string(), message.from());
    let told = match &answered {
        Ok(bytes) => context.out.result(
            || json!({ "id": id, "from": from, "ok": true, "bytes": bytes, "ms": ms }),
            || format!("answered {id} from {from}: {bytes} bytes in {ms} ms"),
        ),
        Err(why) => context.out.result(
            || json!({ "id": id, "from": from, "ok": false, "error": why, "ms": ms }),
            || format!("could not answer {id} from {from} (attempt {}): {why}", message.attempt()),
        ),
    };
    if told.is_err() {
        // Nobody reads along any more; the answers matter, not their lines.
        context.stop.cancel();
    }
    answered.map(drop)
}

async fn answer(args: &ReplyArgs, message: &Message) -> Result<usize, String> {
    let payload = if args.echo { message.payload() } else { run_command(&args.command, message).await? };
    let bytes = payload.len();
    if !message.reply_to().is_empty() {
        let reply = message.reply(payload).map_err(|e| e.message().to_owned())?;
        let reply = if args.echo { reply.content_type(message.content_type()) } else { reply };
        reply.confirm().await.map_err(|e| e.message().to_owned())?;
    }
    Ok(bytes)
}

async fn run_command(command: &[String], message: &Message) -> Result<Bytes, String> {
    let [program, arguments @ ..] = command else { return Err("no command".into()) };
    let mut child = Command::new(program)
        .args(arguments)
        .env("ACB_MESSAGE_ID", message.id().to_string())
        .env("ACB_MESSAGE_TOPIC", message.topic())
        .env("ACB_MESSAGE_FROM", message.from())
        .env("ACB_MESSAGE_ATTEMPT", message.attempt().to_string())
        .env("ACB_MESSAGE_CONTENT_TYPE", message.content_type())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("cannot run {program}: {error}"))?;
    let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (mut answer, mut said) = (Vec::new(), Vec::new());
    let work = async {
        // All at once, so that neither side waits for the other. A command need not read what it does not want.
        tokio::join!(
            async {
                if let Some(mut input) = input {
                    let _ = input.write_all(message.payload_ref()).await;
                }
            },
            async {
                if let Some(output) = output {
                    let _ = output.take(PAYLOAD_BYTES_MAX as u64 + 1).read_to_end(&mut answer).await;
                }
            },
            async {
                if let Some(errors) = errors {
                    let _ = errors.take(ERROR_BYTES_MAX).read_to_end(&mut said).await;
                }
            },
        );
        child.wait().await
    };
    let status = match left(message) {
        None => work.await,
        Some(left) => match tokio::time::timeout(left, work).await {
            Ok(status) => status,
            Err(_) => return Err("the request's time was over before the command was done".into()),
        },
    };
    let status = status.map_err(|error| error.to_string())?;
    if answer.len() > PAYLOAD_BYTES_MAX {
        return Err(format!("the answer exceeds limit of {PAYLOAD_BYTES_MAX} bytes"));
    }
    if !status.success() {
        let said = String::from_utf8_lossy(&said);
        let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
        return Err(format!("{program} ended with {status}: {last}").trim_end_matches(": ").to_owned());
    }
    Ok(answer.into())
}

/// How long somebody still waits for the answer; `None` when there is no limit.
fn left(message: &Message) -> Option<Duration> {
    let Timestamp(end) = message.expires_at();
    (end != 0).then(|| Duration::from_millis(end.saturating_sub(now().0)))
}
