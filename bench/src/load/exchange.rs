//! Request and reply: each client has one open request and one responder answers all; or agents ask each other at a
//! fixed rate.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    Outcome, Plan,
    client::{Ask, Head, Payloads, Request},
    meter::{Latencies, Meter},
};

/// Runs the requesters until the time is up. The responder is the bus' own task: it sends back the payload it
/// got, and each reply is checked against its request.
pub(crate) async fn request_reply<Q: Request>(plan: &Plan, requesters: Vec<Q>) -> Result<Outcome> {
    let payloads = Payloads::new(plan.case.payload);
    let meter = Meter::start(plan.server_pid)?;
    let started = meter.started();
    let duration = plan.duration;
    let clients: Vec<_> = (0u64..)
        .zip(requesters)
        .map(|(number, mut requester)| {
            let payloads = payloads.clone();
            tokio::spawn(async move {
                let mut latencies = Latencies::new();
                let mut count = 0u64;
                while started.elapsed() < duration {
                    let head = Head { index: count, stamp: number };
                    let moment = Instant::now();
                    let reply = requester.request(payloads.with_head(head)).await?;
                    latencies.record(moment.elapsed());
                    let got = Head::of(&reply, payloads.length())?;
                    ensure!(got == head, "the reply to {got:?} came for {head:?}");
                    count += 1;
                }
                Ok::<_, anyhow::Error>((count, latencies, requester))
            })
        })
        .collect();
    let mut latencies = Latencies::new();
    let mut replies = 0;
    let mut open = Vec::new();
    for (number, client) in clients.into_iter().enumerate() {
        let (count, own, requester) = client.await?.with_context(|| format!("requester {number}"))?;
        replies += count;
        latencies.merge(&own);
        open.push(requester);
    }
    let measured = meter.stop()?;
    Ok(Outcome {
        published: replies,
        acked: replies,
        delivered: replies,
        counted: replies,
        value: None,
        wakes: None,
        latencies,
        measured,
    })
}

/// Requests of one agent that may be open: one that has more does not keep up with the rate, and there is no figure.
const OPEN_MAX: usize = 1000;

/// Agents ask each other at a fixed rate, all together `per_second`, and do not wait for an answer before they ask again.
/// Latency counts from the moment at which a request was due, so that nobody who is late hides it.
pub(crate) async fn open_loop<A: Ask>(plan: &Plan, agents: Vec<A>, per_second: u32) -> Result<Outcome> {
    let payloads = Payloads::new(plan.case.payload);
    let count = agents.len();
    let period = Duration::from_secs(1) * u32::try_from(count)? / per_second;
    let rounds = (plan.duration.as_secs_f64() / period.as_secs_f64()).ceil() as u32;
    let meter = Meter::start(plan.server_pid)?;
    // A moment for all tasks to be there before the first request is due.
    let first = Instant::now() + Duration::from_millis(20);
    let asking: Vec<_> = agents
        .into_iter()
        .enumerate()
        .map(|(number, agent)| {
            let payloads = payloads.clone();
            let agent = Arc::new(agent);
            // Spread over the period: agents do not beat in time.
            let own_first = first + period * number as u32 / count as u32;
            tokio::spawn(async move {
                let open = Arc::new(Semaphore::new(OPEN_MAX));
                let mut requests = JoinSet::new();
                for round in 0..rounds {
                    let due = own_first + period * round;
                    tokio::time::sleep_until(due.into()).await;
                    let slot = Arc::clone(&open).try_acquire_owned();
                    let slot = slot.ok().with_context(|| format!("agent {number} has {OPEN_MAX} open requests"))?;
                    // Another one each time, never itself.
                    let to = (number + 1 + round as usize % (count - 1)) % count;
                    let head = Head { index: u64::from(round), stamp: number as u64 };
                    let (agent, payload) = (Arc::clone(&agent), payloads.with_head(head));
                    let length = payloads.length();
                    requests.spawn(async move {
                        let reply = agent.ask(to, payload).await?;
                        let latency = due.elapsed();
                        let got = Head::of(&reply, length)?;
                        ensure!(got == head, "the reply to {got:?} came for {head:?}");
                        drop(slot);
                        Ok::<_, anyhow::Error>(latency)
                    });
                }
                let mut latencies = Latencies::new();
                let mut replies = 0u64;
                while let Some(done) = requests.join_next().await {
                    latencies.record(done??);
                    replies += 1;
                }
                Ok::<_, anyhow::Error>((replies, latencies, agent))
            })
        })
        .collect();
    let mut latencies = Latencies::new();
    let mut replies = 0;
    let mut open = Vec::new();
    for (number, agent) in asking.into_iter().enumerate() {
        let (own_replies, own, agent) = agent.await?.with_context(|| format!("agent {number}"))?;
        replies += own_replies;
        latencies.merge(&own);
        open.push(agent);
    }
    let measured = meter.stop()?;
    let asked = u64::from(rounds) * count as u64;
    ensure!(replies == asked, "{asked} requests, {replies} replies");
    Ok(Outcome {
        published: asked,
        acked: replies,
        delivered: replies,
        counted: replies,
        value: None,
        wakes: None,
        latencies,
        measured,
    })
}
