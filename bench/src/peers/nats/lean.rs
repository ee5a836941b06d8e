//! The leanest forms of publishing to JetStream: no result per message.
//!
//! - Fast ingest (server 2.14+, stream option `allow_batched`): the reply subject of each message carries a
//!   batch id, its number and an operation; the server answers about every 500th message with how far it has
//!   stored, and the commit with the total. Two such answers may be open: 2 x 500.
//! - Own inbox: one reply inbox for all messages, a slot given back per reply.
//!
//! Both check what they promise: the committed count, or an ack in every reply.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use async_nats::{Client, Message, Subject, Subscriber};
use futures_util::StreamExt as _;
use serde::Deserialize;
use tokio::{sync::Semaphore, time::timeout};

use super::SUBJECT;
use crate::load::{
    Outcome, Plan,
    client::Payloads,
    meter::{Latencies, Meter, SAMPLE_EVERY},
};

/// How long an answer may take before the run is given up.
const ANSWER: Duration = Duration::from_secs(30);

/// What the server says in a batch: a flow ack (`seq`, `msgs`), or the ack of the commit (`batch`, `count`),
/// or an error.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FlowAnswer {
    #[serde(rename = "type")]
    kind: Option<String>,
    seq: u64,
    batch: Option<String>,
    count: u64,
    error: Option<serde_json::Value>,
}

/// How far a batch is stored.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    /// All up to this message.
    Stored(u64),
    /// The whole batch of so many.
    Committed(u64),
}

fn progress(payload: &[u8]) -> Result<Progress> {
    let answer: FlowAnswer = serde_json::from_slice(payload)
        .with_context(|| format!("not a flow answer: {}", String::from_utf8_lossy(payload)))?;
    if answer.error.is_some() || answer.kind.as_deref().is_some_and(|kind| kind != "ack") {
        bail!("fast ingest failed: {}", String::from_utf8_lossy(payload));
    }
    Ok(match answer.batch {
        Some(_) => Progress::Committed(answer.count),
        None => Progress::Stored(answer.seq),
    })
}

/// Operations of a batch message.
#[derive(Clone, Copy)]
enum Operation {
    Start = 0,
    Append = 1,
    Commit = 2,
}

/// Publishes one long batch; an answer is asked for every `window / 2` messages.
pub(super) async fn fast_ingest(plan: &Plan, client: &Client) -> Result<Outcome> {
    let payload = Payloads::new(plan.case.payload).shared();
    let window = plan.window as u64;
    let inbox = client.new_inbox();
    let prefix = format!("{inbox}.{}.fail.", (window / 2).max(1));
    let reply = |number: u64, operation: Operation| Subject::from(format!("{prefix}{number}.{}.$FI", operation as u8));
    let mut answers = client.subscribe(format!("{inbox}.>")).await?;
    client.flush().await?;
    let meter = Meter::start(plan.server_pid)?;
    let started = meter.started();
    let (mut published, mut stored) = (0u64, 0u64);
    while !published.is_multiple_of(SAMPLE_EVERY) || started.elapsed() < plan.duration {
        while published >= stored + window {
            match progress(&answer(&mut answers).await?.payload)? {
                Progress::Stored(number) => stored = stored.max(number),
                Progress::Committed(count) => bail!("the batch was committed at {count} by itself"),
            }
        }
        published += 1;
        let operation = if published == 1 { Operation::Start } else { Operation::Append };
        client.publish_with_reply(SUBJECT, reply(published, operation), payload.clone()).await?;
    }
    published += 1;
    client.publish_with_reply(SUBJECT, reply(published, Operation::Commit), payload).await?;
    let committed = loop {
        if let Progress::Committed(count) = progress(&answer(&mut answers).await?.payload)? {
            break count;
        }
    };
    let measured = meter.stop()?;
    Ok(Outcome {
        published,
        acked: committed,
        delivered: 0,
        counted: committed,
        value: None,
        wakes: None,
        latencies: Latencies::new(),
        measured,
    })
}

/// Publishes with one reply inbox and `plan.window` slots.
pub(super) async fn own_inbox(plan: &Plan, client: &Client) -> Result<Outcome> {
    let payload = Payloads::new(plan.case.payload).shared();
    let inbox = Subject::from(client.new_inbox());
    let mut replies = client.subscribe(inbox.clone()).await?;
    client.flush().await?;
    let slots = Semaphore::new(plan.window);
    let acked = AtomicU64::new(0);
    let meter = Meter::start(plan.server_pid)?;
    let started = meter.started();
    let publishing = async {
        let mut published = 0u64;
        while !published.is_multiple_of(SAMPLE_EVERY) || started.elapsed() < plan.duration {
            slots.acquire().await?.forget();
            client.publish_with_reply(SUBJECT, inbox.clone(), payload.clone()).await?;
            published += 1;
        }
        // All slots back: all replies are here.
        timeout(ANSWER, slots.acquire_many(plan.window as u32)).await.context("replies are missing")??.forget();
        Ok::<_, anyhow::Error>(published)
    };
    let collecting = async {
        loop {
            let Some(message) = replies.next().await else { bail!("the inbox was closed") };
            ensure!(is_ack(&message.payload), "not an ack: {}", String::from_utf8_lossy(&message.payload));
            acked.fetch_add(1, Ordering::Relaxed);
            slots.add_permits(1);
        }
    };
    let published = tokio::select! {
        // Neither arm is resumed after the other has ended.
        published = publishing => published?,
        failed = collecting => return failed,
    };
    let measured = meter.stop()?;
    Ok(Outcome {
        published,
        acked: acked.into_inner(),
        delivered: 0,
        counted: published,
        value: None,
        wakes: None,
        latencies: Latencies::new(),
        measured,
    })
}

/// Whether a reply is a publish ack: `{"stream":..., "seq":...}`. Looked at as bytes: parsing each would
/// charge the lean form with what it is there to spare.
fn is_ack(payload: &[u8]) -> bool {
    payload.starts_with(b"{\"stream\":")
}

async fn answer(answers: &mut Subscriber) -> Result<Message> {
    let started = Instant::now();
    timeout(ANSWER, answers.next())
        .await
        .with_context(|| format!("no answer for {:?}", started.elapsed()))?
        .context("the inbox was closed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flow_answers_and_commits_are_told_apart() {
        assert_eq!(progress(br#"{"type":"ack","seq":500,"msgs":500}"#).unwrap(), Progress::Stored(500));
        let commit = br#"{"stream":"BENCH", "seq":1200,"batch":"x","count":1200}"#;
        assert_eq!(progress(commit).unwrap(), Progress::Committed(1200));
    }

    #[test]
    fn gaps_and_errors_end_the_run() {
        assert!(progress(br#"{"type":"gap","last_seq":4,"seq":6}"#).is_err());
        assert!(progress(br#"{"error":{"code":400,"description":"no"},"stream":"BENCH","seq":0}"#).is_err());
        assert!(progress(b"").is_err());
    }
}
