//! `acb subscribe`: messages as they come.
//!
//! A message is acknowledged after it was printed, so that what a broken pipe swallowed comes again. Ctrl-C ends the
//! command; what was not printed goes back to the bus at once, uncounted.

use std::{fmt::Write as _, pin::pin, time::Duration};

use acb_sdk::{Client, ErrorCode, Message, SubscriptionSpec};
use clap::Args;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::{Context, guest::Guest, start::StartArg, subscriptions::RuleArgs};
use crate::{
    connect::{Target, Use},
    exit::Exit,
    failure::{Failure, Result},
    output::{message_json, text_or_size},
};

/// What `subscribe` takes.
#[derive(Args, Debug)]
pub(crate) struct SubscribeArgs {
    /// A durable subscription. With --filter it is made when it is not there.
    #[arg(required_unless_present_any = ["filters", "inbox"])]
    name: Option<String>,

    /// Topics to hear: `*` stands for one token, a last `>` for the rest; again for more. Without a name only as long
    /// as the command runs.
    #[arg(long = "filter", short, value_name = "PATTERN")]
    filters: Vec<String>,

    /// Your own inbox, and what is sent to everybody.
    #[arg(long, conflicts_with_all = ["name", "filters"])]
    inbox: bool,

    /// Where it begins, when it is made: new, all, seq:NUMBER or time:RFC3339.
    #[arg(long, value_name = "WHERE", default_value = "new")]
    from: StartArg,

    /// Stops after so many messages.
    #[arg(long, short = 'n', value_name = "COUNT")]
    count: Option<u64>,

    /// Stops when nothing came for so long: with --count that is a failure, without it the end.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    idle: Option<Duration>,

    /// Only looks: gives every message back at the end. At most --credits messages come.
    #[arg(long)]
    peek: bool,

    /// Messages that may be here at once.
    #[arg(long, value_name = "COUNT", default_value_t = 64)]
    credits: u32,

    /// Prints payloads and nothing else, a line each.
    #[arg(long)]
    raw: bool,

    #[command(flatten)]
    rules: RuleArgs,
}

pub(crate) async fn run(args: SubscribeArgs, context: &Context) -> Result {
    let need = if args.inbox { Use::OwnInbox } else { Use::Long };
    let (target, client) = context.connect_to(need).await?;
    let (subscription, guest) = context.or_stop(open(&args, context, &target, &client)).await??;
    let result = print(&args, context, subscription).await;
    // Releases and acknowledgements go out before the connection does.
    let drained = client.drain().await;
    if let Some(guest) = guest {
        guest.leave(&client).await;
    }
    result?;
    Ok(drained?)
}

async fn open(
    args: &SubscribeArgs,
    context: &Context,
    target: &Target,
    client: &Client,
) -> Result<(acb_sdk::Subscription, Option<Guest>)> {
    let mut guest = None;
    let builder = if args.inbox {
        let own = Guest::of(client, target, context.global.agent.is_some()).await?;
        context.out.note(&format!("listening to the inbox of {}", own.agent));
        guest = Some(own);
        client.inbox()
    } else if let Some(name) = &args.name {
        if !args.filters.is_empty() {
            make(args, name, client).await?;
        }
        client.subscribe(name)
    } else {
        client.listen(&args.filters).spec(|spec| args.rules.apply(spec.start_at(args.from.into())))
    };
    let opened = builder.credits(args.credits).open().await;
    let opened = opened.map_err(|error| match (error.code(), &args.name) {
        (ErrorCode::SubscriptionNotFound, Some(name)) => {
            let sentence = format!("there is no subscription {name}");
            Failure::own(Exit::NotFound, sentence, "add --filter to make it, or see `acb subscriptions ls`")
        }
        _ => error.into(),
    })?;
    if !args.inbox {
        let what = args.name.clone().unwrap_or_else(|| args.filters.join(" "));
        context.out.note(&format!("listening to {what}"));
    }
    Ok((opened, guest))
}

/// Makes the durable subscription; one that is there with another definition is an error.
async fn make(args: &SubscribeArgs, name: &str, client: &Client) -> Result {
    let mut spec = SubscriptionSpec::new(name).start_at(args.from.into());
    for filter in &args.filters {
        spec = spec.filter(filter);
    }
    client.subscriptions().create(args.rules.apply(spec)).await?;
    Ok(())
}

async fn print(args: &SubscribeArgs, context: &Context, mut subscription: acb_sdk::Subscription) -> Result {
    let mut peeked = Vec::new();
    let mut printed = 0;
    let mut idle = pin!(sleep_until(Instant::now()));
    while args.count.is_none_or(|count| printed < count) {
        if args.peek && printed >= u64::from(args.credits) {
            break;
        }
        let quiet = args.idle.is_some();
        if let Some(span) = args.idle {
            idle.as_mut().reset(Instant::now() + span);
        }
        // All three are cancel-safe.
        let next = tokio::select! {
            next = subscription.next() => next,
            () = context.stop.cancelled() => break,
            () = &mut idle, if quiet => return too_quiet(args, printed),
        };
        let message = match next {
            None => break,
            Some(Ok(message)) => message,
            Some(Err(error)) if error.gap().is_some() => {
                tell_gap(&error, context)?;
                continue;
            }
            Some(Err(error)) => return Err(error.into()),
        };
        show(args, context, &message)?;
        printed += 1;
        if args.peek {
            peeked.push(message);
        } else {
            message.ack()?;
        }
    }
    Ok(())
}

fn too_quiet(args: &SubscribeArgs, printed: u64) -> Result {
    match args.count {
        None => Ok(()),
        Some(count) => {
            let sentence = format!("{printed} of {count} messages came");
            Err(Failure::own(Exit::Unavailable, sentence, "wait longer with --idle"))
        }
    }
}

fn tell_gap(error: &acb_sdk::Error, context: &Context) -> Result {
    let Some(gap) = error.gap() else { return Ok(()) };
    if context.out.is_json() {
        let gap = json!({ "gap": { "from_seq": gap.from_seq, "to_seq": gap.to_seq, "reason": gap.reason } });
        return context.out.result(|| gap, String::new);
    }
    context.out.note(&format!("note: {}", error.message()));
    Ok(())
}

fn show(args: &SubscribeArgs, context: &Context, message: &Message) -> Result {
    if args.raw {
        return context.out.raw(message.payload_ref());
    }
    context.out.result(|| message_json(message), || to_text(context, message))
}

fn to_text(context: &Context, message: &Message) -> String {
    let mut head = format!("{}  {}  from {}  {}", message.stored_at(), message.topic(), message.from(), message.id());
    if message.is_redelivered() {
        let _ = write!(head, "  attempt {}", message.attempt());
    }
    if message.is_request() {
        head.push_str("  wants a reply");
    }
    if message.is_late() {
        head.push_str("  late");
    }
    for (name, value) in &message.attributes() {
        let _ = write!(head, "  {name}={value}");
    }
    let payload = text_or_size(message.payload_ref());
    let indented: String = payload.lines().map(|line| format!("  {line}\n")).collect();
    format!("{}\n{indented}", context.out.faint(&head))
}
