//! Contexts through the SDK: commits, creates of 1 MiB, gets of a hot one, watches of many agents. No peer has them; ours
//! stands alone.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use acb_sdk::{Client, ContextEvent, ContextScope, ContextWatch};
use anyhow::{Context as _, Result, bail, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::{sync::mpsc, task::JoinHandle};

use super::Acb;
use crate::{
    case::scaled,
    load::{
        Outcome, Plan,
        client::Payloads,
        meter::{Latencies, Measured, Meter},
        publish,
        transfer::sha256sum,
    },
};

/// Watchers that connect at the same time.
const OPENING: usize = 32;
/// Longest that a change may take to the last watcher.
const SEEN_WITHIN: Duration = Duration::from_secs(30);
/// Contexts of which each writer reads one back.
const READ_BACK_EVERY: u64 = 10;

fn outcome(published: u64, delivered: u64, counted: u64, latencies: Latencies, measured: Measured) -> Outcome {
    Outcome { published, acked: published, delivered, counted, value: None, wakes: None, latencies, measured }
}

async fn writers(acb: &Acb, count: usize) -> Result<Vec<Client>> {
    publish::open_many(count, |number| async move { acb.connect(&format!("bench-w{number}")).await }).await
}

/// Writers that each update a context of their own at the revision that the last update gave it.
pub(super) async fn updates(plan: &Plan, acb: &Acb, count: usize) -> Result<(Outcome, Option<u64>)> {
    let payload = Payloads::new(plan.case.payload).shared();
    let mut ready = Vec::new();
    for (number, client) in writers(acb, count).await?.into_iter().enumerate() {
        let context = client.contexts().share(format!("bench/commits/{number}"), payload.clone()).await?.context;
        ready.push((client, context));
    }
    let meter = Meter::start(plan.server_pid)?;
    let (started, duration) = (meter.started(), plan.duration);
    let running: Vec<_> = ready
        .into_iter()
        .map(|(client, context)| {
            let payload = payload.clone();
            tokio::spawn(async move {
                let (contexts, mut rev, mut done) = (client.contexts(), context.rev, 0u64);
                let mut latencies = Latencies::new();
                while started.elapsed() < duration {
                    let moment = Instant::now();
                    rev = contexts.update(&context.id).payload(payload.clone()).if_rev(rev).await?.context.rev;
                    latencies.record(moment.elapsed());
                    done += 1;
                }
                Ok::<_, anyhow::Error>((client, context.id, rev, done, latencies))
            })
        })
        .collect();
    let (mut commits, mut latencies, mut written) = (0, Latencies::new(), Vec::new());
    for task in running {
        let (client, id, rev, done, own) = task.await??;
        commits += done;
        latencies.merge(&own);
        written.push((client, id, rev, done));
    }
    let measured = meter.stop()?;
    let mut stored = 0;
    for (client, id, rev, done) in written {
        let context = client.contexts().get(&id).await?;
        ensure!(context.rev == rev, "context {id} is at revision {}, its last update made {rev}", context.rev);
        // The server raises the patch with every update: 0.1.0 was the first.
        let patch = context.version.rsplit('.').next().and_then(|patch| patch.parse().ok());
        let patch: u64 = patch.with_context(|| format!("no patch in version {}", context.version))?;
        ensure!(patch == done, "{done} updates made version {}", context.version);
        stored += patch;
    }
    Ok((outcome(commits, 0, commits, latencies, measured), Some(stored)))
}

/// Contexts of 1 MiB, each with bytes of its own, by several writers with one call open each; the figure is MB/s.
pub(super) async fn creates(plan: &Plan, acb: &Acb, contexts: u64, count: usize) -> Result<(Outcome, Option<u64>)> {
    let contexts = scaled(contexts, plan.duration.as_secs_f64()).max(count as u64);
    let filler = Payloads::new(plan.case.payload).shared();
    let ready = writers(acb, count).await?;
    let meter = Meter::start(plan.server_pid)?;
    let running: Vec<_> = ready
        .into_iter()
        .enumerate()
        .map(|(first, client)| {
            let filler = filler.clone();
            tokio::spawn(async move {
                let mut made = Vec::new();
                let mut latencies = Latencies::new();
                for number in (first as u64..contexts).step_by(count) {
                    let payload = numbered(&filler, number);
                    let moment = Instant::now();
                    let context = client.contexts().share(format!("bench/large/{number}"), payload).await?.context;
                    latencies.record(moment.elapsed());
                    made.push((number, context));
                }
                Ok::<_, anyhow::Error>((client, made, latencies))
            })
        })
        .collect();
    let (mut latencies, mut all) = (Latencies::new(), Vec::new());
    for task in running {
        let (client, made, own) = task.await??;
        latencies.merge(&own);
        all.push((client, made));
    }
    let measured = meter.stop()?;
    let work = plan.work_dir.clone().context("this case needs --work-dir")?;
    let mut stored = 0;
    for (client, made) in all {
        for (number, context) in made {
            ensure!(context.size == filler.len() as u64, "context {number} has {} bytes", context.size);
            if number % READ_BACK_EVERY == 0 {
                let kept = client.contexts().get(&context.id).await?;
                ensure!(kept.payload == numbered(&filler, number), "context {number} came back changed");
                let path = work.join("context");
                tokio::fs::write(&path, &kept.payload).await?;
                let sha256 = sha256sum(&path)?;
                let said = crate::load::transfer::hex(&context.sha256);
                ensure!(said == sha256, "context {number} is said to have SHA-256 {said}, it has {sha256}");
            }
            stored += 1;
        }
    }
    let megabytes = contexts as f64 * filler.len() as f64 / 1e6;
    let value = Some(megabytes / measured.elapsed.as_secs_f64());
    Ok((Outcome { value, ..outcome(contexts, 0, contexts, latencies, measured) }, Some(stored)))
}

/// The filler with a number at its head: no two contexts share a blob.
fn numbered(filler: &Bytes, number: u64) -> Bytes {
    let mut bytes = BytesMut::with_capacity(filler.len());
    bytes.put_u64_le(number);
    bytes.extend_from_slice(filler.get(8..).unwrap_or_default());
    bytes.freeze()
}

/// Readers of one context, each with one call open.
pub(super) async fn gets(plan: &Plan, acb: &Acb, count: usize) -> Result<(Outcome, Option<u64>)> {
    let payload = Payloads::new(plan.case.payload).shared();
    let owner = acb.connect("bench-owner").await?;
    let shared = owner.contexts().share("bench/hot", payload.clone()).scope(ContextScope::Public).await?;
    let readers = writers(acb, count).await?;
    let meter = Meter::start(plan.server_pid)?;
    let (started, duration) = (meter.started(), plan.duration);
    let running: Vec<_> = readers
        .into_iter()
        .map(|client| {
            let (payload, id) = (payload.clone(), shared.context.id.clone());
            tokio::spawn(async move {
                let (mut latencies, mut done) = (Latencies::new(), 0u64);
                while started.elapsed() < duration {
                    let moment = Instant::now();
                    let context = client.contexts().get(&id).await?;
                    latencies.record(moment.elapsed());
                    ensure!(context.payload == payload, "the payload came back changed");
                    done += 1;
                }
                Ok((client, done, latencies))
            })
        })
        .collect();
    let (mut got, mut latencies, mut open) = (0, Latencies::new(), Vec::new());
    for task in running {
        let (client, done, own) = task.await??;
        got += done;
        latencies.merge(&own);
        open.push(client);
    }
    let measured = meter.stop()?;
    Ok((outcome(got, got, got, latencies, measured), None))
}

/// Changes one context and waits until all watchers, a connection and an agent each, have seen the change; then the next.
/// Latency is from the write's call until the last watcher saw it; the figure is events seen in a second, by all.
pub(super) async fn watch(plan: &Plan, acb: &Acb, watchers: usize) -> Result<(Outcome, Option<u64>)> {
    let payload = Payloads::new(plan.case.payload).shared();
    let writer = acb.connect("bench-writer").await?;
    let shared = writer.contexts().share("bench/watched", payload.clone()).scope(ContextScope::Public).await?;
    let (id, mut rev) = (shared.context.id.clone(), shared.context.rev);
    let (seen, mut reports) = mpsc::channel::<u64>(watchers);
    let watching: Vec<JoinHandle<Result<()>>> = stream::iter(0..watchers)
        .map(|number| {
            let (id, seen) = (id.clone(), seen.clone());
            async move {
                let client = acb.connect(&format!("bench-v{number}")).await?;
                let watch = synced(&client, &id).await.with_context(|| format!("watcher {number} of {watchers}"))?;
                Ok::<_, anyhow::Error>(tokio::spawn(follow(client, watch, seen)))
            }
        })
        .buffer_unordered(OPENING)
        .try_collect()
        .await?;
    drop(seen);
    let meter = Meter::start(plan.server_pid)?;
    let (started, mut changes, mut latencies) = (meter.started(), 0u64, Latencies::new());
    while started.elapsed() < plan.duration {
        let moment = Instant::now();
        rev = writer.contexts().update(&id).payload(payload.clone()).if_rev(rev).await?.context.rev;
        for number in 0..watchers {
            let report = tokio::time::timeout(SEEN_WITHIN, reports.recv()).await;
            match report.with_context(|| format!("revision {rev} was seen by {number} of {watchers}"))? {
                Some(told) => ensure!(told == rev, "a watcher told of revision {told} where {rev} was due"),
                None => bail!("the watchers ended"),
            }
        }
        latencies.record(moment.elapsed());
        changes += 1;
    }
    let measured = meter.stop()?;
    for task in watching {
        ensure!(!task.is_finished(), "a watch ended by itself");
        task.abort();
    }
    let events = changes * watchers as u64;
    let last = writer.contexts().get(&id).await?;
    ensure!(last.rev == rev, "the context is at revision {}, the last change made {rev}", last.rev);
    Ok((outcome(changes, events, events, latencies, measured), None))
}

/// A watch that has its state: what it brings from now on are changes.
async fn synced(client: &Client, id: &str) -> Result<ContextWatch> {
    let mut watch = client.contexts().watch().id(id).open().await?;
    loop {
        match watch.next().await.context("the watch ended")?? {
            ContextEvent::Synced(_) => return Ok(watch),
            ContextEvent::State(_) | ContextEvent::Restarted => {}
            other => bail!("{other:?} came before the state was complete"),
        }
    }
}

/// Reports each change of a watch.
async fn follow(client: Client, mut watch: ContextWatch, seen: mpsc::Sender<u64>) -> Result<()> {
    // The watch lives on its client's connection.
    let _client = Arc::new(client);
    while let Some(event) = watch.next().await {
        if let ContextEvent::Updated(context) = event? {
            seen.send(context.rev).await?;
        }
    }
    Ok(())
}
