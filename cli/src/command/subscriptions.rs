//! `acb subscriptions`: durable subscriptions.

use std::time::Duration;

use acb_sdk::{DeadLetterPolicy, SpecParts, SubscriptionInfo, SubscriptionSpec};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Context, start::StartArg};
use crate::{
    connect::Use,
    failure::Result,
    output::{Table, age, when, when_json},
};

/// What can be done with subscriptions.
#[derive(Debug, Subcommand)]
pub(crate) enum SubscriptionsCommand {
    /// Makes a durable subscription. The same again changes nothing.
    Create(CreateArgs),
    /// Lists all.
    #[command(visible_alias = "list")]
    Ls,
    /// Shows one with its counts.
    Get {
        /// Its name.
        name: String,
    },
    /// Ends one. Its dead letters stay.
    Rm {
        /// Its name.
        name: String,
    },
}

/// A subscription's definition.
#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    /// Its name.
    name: String,
    /// Topics to hear: `*` stands for one token, a last `>` for the rest; again for more.
    #[arg(long = "filter", short, value_name = "PATTERN", required = true)]
    filters: Vec<String>,
    #[command(flatten)]
    rules: RuleArgs,
    /// Where it begins: new, all, seq:NUMBER or time:RFC3339.
    #[arg(long, value_name = "WHERE", default_value = "new")]
    from: StartArg,
}

/// How a subscription delivers.
#[derive(Args, Debug, Default)]
pub(crate) struct RuleArgs {
    /// How long a consumer has for one message [default: 30s].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    ack_wait: Option<Duration>,
    /// Waits before each redelivery, with commas [default: 1s,5s,30s,2m,10m].
    #[arg(long, value_name = "TIMES", value_delimiter = ',', value_parser = humantime::parse_duration)]
    retry: Vec<Duration>,
    /// Attempts before a message is given up [default: 5].
    #[arg(long, value_name = "COUNT")]
    max_attempts: Option<u32>,
    /// Messages that may be with consumers at once [default: 65536].
    #[arg(long, value_name = "COUNT")]
    max_leased: Option<u32>,
    /// Drops messages that are given up, instead of keeping them as dead letters.
    #[arg(long)]
    drop_dead_letters: bool,
}

impl RuleArgs {
    /// Puts the rules that were given onto a definition.
    pub(crate) fn apply(&self, mut spec: SubscriptionSpec) -> SubscriptionSpec {
        if let Some(span) = self.ack_wait {
            spec = spec.ack_wait(span);
        }
        if !self.retry.is_empty() {
            spec = spec.retry_schedule(self.retry.clone());
        }
        if let Some(attempts) = self.max_attempts {
            spec = spec.max_attempts(attempts);
        }
        if let Some(messages) = self.max_leased {
            spec = spec.max_leased(messages);
        }
        if self.drop_dead_letters {
            spec = spec.dead_letters(DeadLetterPolicy::Drop);
        }
        spec
    }
}

pub(crate) async fn run(command: SubscriptionsCommand, context: &Context) -> Result {
    let client = context.connect(Use::Short).await?;
    let subscriptions = client.subscriptions();
    match command {
        SubscriptionsCommand::Create(args) => {
            let mut spec = SubscriptionSpec::new(&args.name).start_at(args.from.into());
            for filter in &args.filters {
                spec = spec.filter(filter);
            }
            let created = subscriptions.create(args.rules.apply(spec)).await?;
            let word = if created.existed { "was there already" } else { "is made" };
            let mut object = to_json(&created.subscription);
            object["existed"] = created.existed.into();
            context.out.result(|| object, || format!("{} {word}, on {}", args.name, args.filters.join(" ")))?;
        }
        SubscriptionsCommand::Ls => {
            let all = subscriptions.list().all().await?;
            let mut table =
                Table::new(&["NAME", "FILTERS", "BEHIND#", "LEASED#", "RETRY#", "DEAD#", "CONSUMERS#", "AGE"]);
            for one in &all {
                table.row([
                    one.spec.name().to_owned(),
                    one.spec.filters().join(" "),
                    behind(one).to_string(),
                    one.leased.to_string(),
                    one.waiting_retry.to_string(),
                    one.dead_letters.to_string(),
                    one.consumers.to_string(),
                    age(one.created_at),
                ]);
            }
            context.out.rows(all.iter().map(to_json), table.or("no subscriptions"))?;
        }
        SubscriptionsCommand::Get { name } => {
            let one = subscriptions.get(name).await?;
            context.out.result(|| to_json(&one), || to_text(&one))?;
        }
        SubscriptionsCommand::Rm { name } => {
            subscriptions.delete(&name).await?;
            context.out.result(|| json!({ "name": name, "removed": true }), || format!("{name} is gone"))?;
        }
    }
    client.close().await;
    Ok(())
}

/// Seqs of the partition that are still before it. Not all of them need be its own.
fn behind(one: &SubscriptionInfo) -> u64 {
    one.next_seq.saturating_sub(one.cursor_seq)
}

fn to_text(one: &SubscriptionInfo) -> String {
    let rules = one.spec.parts();
    let span = |span: Duration| humantime::format_duration(span).to_string();
    super::facts(&[
        ("name", one.spec.name().to_owned()),
        ("filters", one.spec.filters().join(" ")),
        ("ack wait", rules.ack_wait.map(span).unwrap_or_default()),
        ("retry after", rules.retry_schedule.iter().map(|wait| span(*wait)).collect::<Vec<_>>().join(", ")),
        ("attempts at most", rules.max_attempts.map(|n| n.to_string()).unwrap_or_default()),
        ("leased at most", rules.max_leased.map(|n| n.to_string()).unwrap_or_default()),
        ("what is given up", policy(&rules).to_owned()),
        ("consumers", one.consumers.to_string()),
        ("leased", one.leased.to_string()),
        ("waiting for a retry", one.waiting_retry.to_string()),
        ("dead letters", one.dead_letters.to_string()),
        ("settled below", one.floor_seq.to_string()),
        ("next to deliver", one.cursor_seq.to_string()),
        ("next to come", one.next_seq.to_string()),
        ("made", when(one.created_at)),
        ("made by", one.created_by.clone()),
    ])
}

/// What becomes of messages that are given up.
fn policy(rules: &SpecParts) -> &'static str {
    match rules.dead_letters {
        Some(DeadLetterPolicy::Drop) => "drop",
        _ => "keep",
    }
}

fn to_json(one: &SubscriptionInfo) -> Value {
    let rules = one.spec.parts();
    let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    json!({
        "name": one.spec.name(),
        "filters": one.spec.filters(),
        "ack_wait_ms": rules.ack_wait.map(ms),
        "retry_schedule_ms": rules.retry_schedule.iter().map(|wait| ms(*wait)).collect::<Vec<_>>(),
        "max_attempts": rules.max_attempts,
        "max_leased": rules.max_leased,
        "dead_letter_policy": policy(&rules),
        "created_at": when_json(one.created_at),
        "created_by": one.created_by,
        "floor_seq": one.floor_seq,
        "cursor_seq": one.cursor_seq,
        "next_seq": one.next_seq,
        "leased": one.leased,
        "waiting_retry": one.waiting_retry,
        "dead_letters": one.dead_letters,
        "consumers": one.consumers,
    })
}
