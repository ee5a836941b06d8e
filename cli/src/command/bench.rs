//! `acb bench`: how fast this bus is from here. A quick look with this one program, no comparison: that is `make bench`.

use std::{
    fmt::Display,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use acb_sdk::{Client, Durability, Publisher, Receipt, Subscription, SubscriptionSpec};
use clap::Args;
use hdrhistogram::Histogram;
use rand::Rng as _;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::Context;
use crate::{
    connect::Use,
    exit::Exit,
    failure::{Failure, Result},
    message_args::DurabilityArg,
    output::Table,
};

/// Bytes of a payload that hold the time of sending.
const STAMP_BYTES: usize = 8;
/// How often a paced publisher looks what is due.
const PACE: Duration = Duration::from_millis(1);
/// How long the last messages may take to arrive.
const LAST_WITHIN: Duration = Duration::from_secs(10);
/// Longest time that is told apart; longer ones count as this.
const LONGEST: Duration = Duration::from_mins(1);

/// What `bench` takes.
#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    /// How long to publish.
    #[arg(long, short, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    duration: Duration,

    /// Bytes of a payload.
    #[arg(long, short, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u32).range(8..=1_048_576))]
    size: u32,

    /// Messages a second; 0 is as fast as it goes.
    #[arg(long, short, value_name = "COUNT", default_value_t = 0)]
    rate: u64,

    /// Messages that may be unacknowledged at once.
    #[arg(long, short, value_name = "COUNT", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    window: u32,

    /// Consumers that share the messages; 0 only publishes.
    #[arg(long, short, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=64))]
    consumers: u16,

    /// How much each message must survive [default: the server's, synced].
    #[arg(long, value_name = "LEVEL")]
    durability: Option<DurabilityArg>,

    /// The topic [default: one of its own].
    #[arg(long)]
    topic: Option<String>,
}

/// One way of messages: how many, how long, how fast.
struct Measured {
    messages: u64,
    seconds: f64,
    micros: Histogram<u64>,
}

impl Measured {
    fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.messages as f64 / self.seconds } else { 0.0 }
    }

    fn ms(&self, quantile: f64) -> f64 {
        self.micros.value_at_quantile(quantile) as f64 / 1e3
    }

    fn json(&self, size: u32) -> Value {
        json!({
            "messages": self.messages,
            "seconds": rounded(self.seconds),
            "per_second": rounded(self.rate()),
            "mib_per_second": rounded(self.rate() * f64::from(size) / 1_048_576.0),
            "p50_ms": self.ms(0.5),
            "p99_ms": self.ms(0.99),
            "max_ms": self.ms(1.0),
        })
    }
}

/// With three places: more is noise.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

fn micros() -> Result<Histogram<u64>> {
    Histogram::new_with_max(LONGEST.as_micros() as u64, 3).map_err(broken)
}

fn broken(error: impl Display) -> Failure {
    Failure::own(Exit::Failed, error.to_string(), "")
}

pub(crate) async fn run(args: BenchArgs, context: &Context) -> Result {
    let (target, publisher) = {
        let target = crate::connect::target(&context.global, Use::Long)?;
        let builder = target.builder(&context.global)?.publish_window(args.window, 64 << 20);
        let client = context.or_stop(builder.connect()).await?.map_err(|error| target.explain(error))?;
        (target, client)
    };
    let id: u32 = rand::rng().random();
    let topic = args.topic.clone().unwrap_or_else(|| format!("bench.{id:08x}"));
    let name = format!("acb-bench-{id:08x}");
    let consumer = context.or_stop(target.connect(&context.global)).await??;
    if args.consumers > 0 {
        let spec = SubscriptionSpec::new(&name).filter(&topic);
        context.or_stop(consumer.subscriptions().create(spec)).await??;
    }
    let level = args.durability.map(Durability::from);
    let shown = level.map_or("the server's default level", Durability::name);
    let span = humantime::format_duration(args.duration);
    context
        .out
        .note(&format!("publishing {} B messages to {topic} for {span}, window {}, {shown}", args.size, args.window));
    let result = measure(&args, context, &publisher, &consumer, &topic, &name, level).await;
    if args.consumers > 0 {
        // Nothing is left behind, whatever happened.
        consumer.subscriptions().delete(&name).await?;
    }
    publisher.close().await;
    consumer.close().await;
    let (published, delivered) = result?;
    show(&args, context, &published, delivered.as_ref())
}

async fn measure(
    args: &BenchArgs,
    context: &Context,
    publisher: &Client,
    consumer: &Client,
    topic: &str,
    name: &str,
    level: Option<Durability>,
) -> Result<(Measured, Option<Measured>)> {
    let origin = Instant::now();
    let arrived = Arc::new(AtomicU64::new(0));
    let done = CancellationToken::new();
    let mut consumers = JoinSet::new();
    for _ in 0..args.consumers {
        let subscription = consumer.subscribe(name).credits(args.window.max(64)).open().await?;
        consumers.spawn(consume(subscription, origin, Arc::clone(&arrived), done.clone()));
    }
    let mut sender = publisher.messages().publisher(topic);
    if let Some(level) = level {
        sender = sender.durability(level);
    }
    let published = publish(args, context, sender.build()?, origin).await?;
    if args.consumers == 0 {
        return Ok((published, None));
    }
    let all = published.messages;
    let last = timeout(LAST_WITHIN, until(|| arrived.load(Ordering::Relaxed) >= all)).await;
    let seconds = origin.elapsed().as_secs_f64();
    done.cancel();
    let mut together = micros()?;
    while let Some(joined) = consumers.join_next().await {
        together.add(joined.map_err(broken)??).map_err(broken)?;
    }
    let messages = arrived.load(Ordering::Relaxed);
    if last.is_err() {
        let sentence =
            format!("{messages} of {all} messages arrived within {LAST_WITHIN:?} after the last was published");
        return Err(Failure::own(Exit::Unavailable, sentence, "take a lower --rate"));
    }
    Ok((published, Some(Measured { messages, seconds, micros: together })))
}

/// Polls a level until it is reached.
async fn until(reached: impl Fn() -> bool) {
    let mut ticks = interval(PACE);
    while !reached() {
        ticks.tick().await;
    }
}

async fn publish(args: &BenchArgs, context: &Context, sender: Publisher, origin: Instant) -> Result<Measured> {
    let (open, receipts) = mpsc::channel(args.window as usize);
    let mut collector = JoinSet::new();
    collector.spawn(collect(receipts));
    let mut payload = vec![b'x'; args.size as usize];
    let mut ticks = interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let start = Instant::now();
    let mut sent = 0u64;
    'publishing: while start.elapsed() < args.duration && !context.stop.is_cancelled() {
        let due = if args.rate == 0 {
            sent + u64::from(args.window)
        } else {
            ticks.tick().await;
            (start.elapsed().as_secs_f64() * args.rate as f64) as u64 + 1
        };
        while sent < due && start.elapsed() < args.duration {
            payload[..STAMP_BYTES].copy_from_slice(&(origin.elapsed().as_micros() as u64).to_le_bytes());
            let receipt = sender.publish(&payload).await?;
            sent += 1;
            // The collector ends early only when a publish failed; it says why.
            if open.send((Instant::now(), receipt)).await.is_err() {
                break 'publishing;
            }
        }
    }
    drop(open);
    let collected = collector.join_next().await.ok_or_else(|| broken("nobody collected the receipts"))?;
    let (messages, micros) = collected.map_err(broken)??;
    Ok(Measured { messages, seconds: start.elapsed().as_secs_f64(), micros })
}

async fn collect(mut receipts: mpsc::Receiver<(Instant, Receipt)>) -> Result<(u64, Histogram<u64>)> {
    let (mut count, mut times) = (0, micros()?);
    while let Some((sent, receipt)) = receipts.recv().await {
        receipt.await?;
        times.saturating_record(sent.elapsed().as_micros() as u64);
        count += 1;
    }
    Ok((count, times))
}

async fn consume(
    mut subscription: Subscription,
    origin: Instant,
    arrived: Arc<AtomicU64>,
    done: CancellationToken,
) -> Result<Histogram<u64>> {
    let mut times = micros()?;
    loop {
        // Both are cancel-safe.
        let next = tokio::select! {
            next = subscription.next() => next,
            () = done.cancelled() => return Ok(times),
        };
        let Some(message) = next else { return Ok(times) };
        let message = message?;
        if let Some(stamp) = message.payload_ref().first_chunk::<STAMP_BYTES>() {
            let now = origin.elapsed().as_micros() as u64;
            times.saturating_record(now.saturating_sub(u64::from_le_bytes(*stamp)));
        }
        message.ack()?;
        arrived.fetch_add(1, Ordering::Relaxed);
    }
}

fn show(args: &BenchArgs, context: &Context, published: &Measured, delivered: Option<&Measured>) -> Result {
    let object = || {
        json!({
            "size": args.size,
            "window": args.window,
            "rate": args.rate,
            "consumers": args.consumers,
            "publish": published.json(args.size),
            "deliver": delivered.map(|d| d.json(args.size)),
        })
    };
    if context.out.is_json() {
        return context.out.result(object, String::new);
    }
    let mut table = Table::new(&["", "MESSAGES#", "PER SECOND#", "MiB/s#", "p50 ms#", "p99 ms#", "max ms#"]);
    let rows = [("published to acknowledged", Some(published)), ("published to delivered", delivered)];
    for (name, measured) in rows.into_iter().filter_map(|(name, measured)| Some((name, measured?))) {
        table.row([
            name.to_owned(),
            measured.messages.to_string(),
            format!("{:.0}", measured.rate()),
            format!("{:.1}", measured.rate() * f64::from(args.size) / 1_048_576.0),
            format!("{:.2}", measured.ms(0.5)),
            format!("{:.2}", measured.ms(0.99)),
            format!("{:.2}", measured.ms(1.0)),
        ]);
    }
    context.out.rows([], table)
}
