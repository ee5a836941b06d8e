//! Request and reply: each client has one open request and one responder answers all; or agents ask each other at a
//! fixed rate.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

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

/// Tells one agent after the other when its next request is due. A thread of its own: tokio's timers are late by up to two
/// milliseconds, which latencies would show.
fn beat(first: Instant, interval: Duration, rounds: usize, agents: &[mpsc::Sender<Instant>]) -> Result<()> {
    let mut due = first;
    for _ in 0..rounds {
        // Spread over the round: agents do not beat in time.
        for (number, agent) in agents.iter().enumerate() {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            agent.try_send(due).with_context(|| format!("agent {number} does not hear its beat"))?;
            due += interval;
        }
    }
    Ok(())
}

/// Agents ask each other at a fixed rate, all together `per_second`, and do not wait for an answer before they ask again.
/// Latency counts from the moment at which a request was due, so that nobody who is late hides it.
pub(crate) async fn open_loop<A: Ask>(plan: &Plan, agents: Vec<A>, per_second: u32) -> Result<Outcome> {
    let payloads = Payloads::new(plan.case.payload);
    let count = agents.len();
    let rounds = (plan.duration.as_secs_f64() * f64::from(per_second) / count as f64).ceil() as usize;
    let meter = Meter::start(plan.server_pid)?;
    // A moment for all tasks to be there before the first request is due.
    let first = Instant::now() + Duration::from_millis(20);
    let (due_to, dues): (Vec<_>, Vec<_>) = (0..count).map(|_| mpsc::channel::<Instant>(OPEN_MAX)).unzip();
    let asking: Vec<_> = agents
        .into_iter()
        .zip(dues)
        .enumerate()
        .map(|(number, (agent, mut dues))| {
            let payloads = payloads.clone();
            let agent = Arc::new(agent);
            tokio::spawn(async move {
                let open = Arc::new(Semaphore::new(OPEN_MAX));
                let mut requests = JoinSet::new();
                let mut done: Vec<Duration> = Vec::with_capacity(rounds);
                let mut round = 0;
                while let Some(due) = dues.recv().await {
                    // What is done gives its memory to the next. Kept until the end, it would be fresh memory for each, whose
                    // first touch stops this program for milliseconds, and the agents' latencies would show it.
                    while let Some(latency) = requests.try_join_next() {
                        done.push(latency??);
                    }
                    let slot = Arc::clone(&open).try_acquire_owned();
                    let slot = slot.ok().with_context(|| format!("agent {number} has {OPEN_MAX} open requests"))?;
                    // Another one each time, never itself.
                    let to = (number + 1 + round % (count - 1)) % count;
                    let head = Head { index: round as u64, stamp: number as u64 };
                    round += 1;
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
                while let Some(latency) = requests.join_next().await {
                    done.push(latency??);
                }
                Ok::<_, anyhow::Error>((done, agent))
            })
        })
        .collect();
    let beat = std::thread::Builder::new()
        .name("beat".to_owned())
        .spawn(move || beat(first, Duration::from_secs(1) / per_second, rounds, &due_to))?;
    let mut latencies = Latencies::new();
    let mut replies = 0;
    let mut open = Vec::new();
    for (number, agent) in asking.into_iter().enumerate() {
        let (done, agent) = agent.await?.with_context(|| format!("agent {number}"))?;
        replies += done.len() as u64;
        done.into_iter().for_each(|latency| latencies.record(latency));
        open.push(agent);
    }
    let measured = meter.stop()?;
    beat.join().map_err(|_| anyhow::anyhow!("the beat ended early"))??;
    let asked = rounds as u64 * count as u64;
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
