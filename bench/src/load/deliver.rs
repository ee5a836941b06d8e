//! Receiving with an explicit ack per message: a stored backlog, and live from publish to handler.

use std::{sync::Arc, time::Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use tokio::sync::Semaphore;

use super::{
    Outcome, Plan,
    client::{Head, LAST, Payloads, Publish, Receive, since, stamp},
    meter::{Latencies, Meter},
    publish::Acks,
};

/// One in so many live messages carries a stamp.
const STAMP_EVERY: u64 = 16;

/// Slots given back at a time in a live run; small against the window, the same on every bus.
const GIVE_BACK: usize = 16;

/// Works off `count` stored messages; ends when the server holds the last ack. Opening the subscription is
/// part of the measured time, on every bus.
pub(crate) async fn backlog<R, F>(plan: &Plan, open: F, count: u64) -> Result<Outcome>
where
    R: Receive,
    F: Future<Output = Result<R>>,
{
    let length = plan.case.payload;
    let meter = Meter::start(plan.server_pid)?;
    let mut receiver = open.await?;
    for index in 0..count {
        let delivery = receiver.next().await.with_context(|| format!("delivery {index} of {count}"))?;
        let head = Head::of(R::payload(&delivery), length)?;
        ensure!(head.index == index, "message {} came where {index} was due", head.index);
        receiver.ack(delivery).await?;
    }
    receiver.settled(count).await?;
    let measured = meter.stop()?;
    Ok(Outcome {
        published: count,
        acked: count,
        delivered: count,
        counted: count,
        value: None,
        wakes: None,
        latencies: Latencies::new(),
        measured,
    })
}

/// Publishes with `plan.window` messages open, where a message is open until the first subscription has it,
/// and delivers each to every subscription.
pub(crate) async fn live<P: Publish, R: Receive>(plan: &Plan, publisher: P, receivers: Vec<R>) -> Result<Outcome> {
    let payloads = Payloads::new(plan.case.payload);
    let epoch = Instant::now();
    let slots = Arc::new(Semaphore::new(plan.window));
    let readers: Vec<_> = receivers
        .into_iter()
        .enumerate()
        .map(|(number, receiver)| {
            let slots = Arc::clone(&slots);
            let length = payloads.length();
            tokio::spawn(async move {
                let give_back = (number == 0).then_some(&*slots);
                let read = read(receiver, length, epoch, give_back).await;
                if read.is_err() {
                    // Else the publisher would wait for slots that nobody gives back.
                    slots.close();
                }
                read
            })
        })
        .collect();
    let acks = Acks::new(publisher, plan.window);
    let meter = Meter::start(plan.server_pid)?;
    let started = meter.started();
    let mut published = 0u64;
    let publishing = async {
        while !published.is_multiple_of(STAMP_EVERY) || started.elapsed() < plan.duration {
            slots.acquire().await?.forget();
            let stamp = if published.is_multiple_of(STAMP_EVERY) { stamp(epoch) } else { 0 };
            acks.publish(payloads.with_head(Head { index: published, stamp })).await?;
            published += 1;
        }
        acks.publish(payloads.with_head(Head { index: published, stamp: LAST })).await?;
        published += 1;
        Ok::<_, anyhow::Error>(())
    };
    let publishing = publishing.await;
    let mut delivered = 0;
    let mut latencies = Latencies::new();
    let mut open = Vec::new();
    for (number, reader) in readers.into_iter().enumerate() {
        if publishing.is_err() && !reader.is_finished() {
            // It waits for messages that will not come; the reader that failed says why.
            continue;
        }
        let (count, own, receiver) = reader.await?.with_context(|| format!("subscription {number}"))?;
        delivered += count;
        latencies.merge(&own);
        open.push(receiver);
    }
    publishing?;
    let acked = acks.finish().await?;
    let measured = meter.stop()?;
    Ok(Outcome { published, acked, delivered, counted: delivered, value: None, wakes: None, latencies, measured })
}

/// Reads until the last message and until its acks are held.
async fn read<R: Receive>(
    mut receiver: R,
    length: usize,
    epoch: Instant,
    give_back: Option<&Semaphore>,
) -> Result<(u64, Latencies, R)> {
    let mut latencies = Latencies::new();
    let mut count = 0u64;
    let mut owed = 0;
    loop {
        let delivery = receiver.next().await?;
        let head = Head::of(R::payload(&delivery), length)?;
        ensure!(head.index == count, "message {} came where {count} was due", head.index);
        count += 1;
        if head.stamp != 0 && head.stamp != LAST {
            latencies.record(since(epoch, head.stamp));
        }
        receiver.ack(delivery).await?;
        if head.stamp == LAST {
            break;
        }
        owed += 1;
        if let Some(slots) = give_back
            && owed == GIVE_BACK
        {
            slots.add_permits(owed);
            owed = 0;
        }
    }
    receiver.settled(count).await?;
    Ok((count, latencies, receiver))
}

/// How many messages a backlog holds so that working it off lasts about `plan.duration`, for a server of
/// `per_second` deliveries; at least what keeps connecting out of the figure.
pub(crate) fn backlog_size(plan: &Plan, per_second: u64) -> Result<u64> {
    let count = (per_second as f64 * plan.duration.as_secs_f64()) as u64;
    (count >= 1000).then_some(count).ok_or_else(|| anyhow!("--seconds is too short for a backlog"))
}
