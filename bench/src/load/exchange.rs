//! Request and reply: each client has one open request, one responder answers all.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use super::{
    Outcome, Plan,
    client::{Head, Payloads, Request},
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
        latencies,
        measured,
    })
}
