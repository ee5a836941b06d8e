//! Publishing until acked: pipelined with a window, one in flight, and filling a backlog.

use std::{sync::Arc, time::Instant};

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use tokio::{sync::mpsc, task::JoinHandle};

use super::{
    Outcome, Plan,
    client::{Head, Payloads, Publish},
    meter::{Latencies, Measured, Meter, SAMPLE_EVERY},
};

/// A receipt on its way to the collector, with the moment of its publish if it is sampled.
type Open<P> = (<P as Publish>::Receipt, Option<Instant>);

/// Awaits every receipt in order, as a program that looks at each result would.
struct Collector<P: Publish> {
    open: mpsc::Sender<Open<P>>,
    task: JoinHandle<Result<(u64, Latencies)>>,
}

impl<P: Publish> Collector<P> {
    /// With room for `window` open receipts.
    fn new(window: usize) -> Self {
        let (open, mut receipts) = mpsc::channel::<Open<P>>(window);
        let task = tokio::spawn(async move {
            let mut latencies = Latencies::new();
            let mut acked = 0;
            while let Some((receipt, published_at)) = receipts.recv().await {
                P::settle(receipt).await?;
                acked += 1;
                if let Some(moment) = published_at {
                    latencies.record(moment.elapsed());
                }
            }
            Ok((acked, latencies))
        });
        Self { open, task }
    }

    /// Publishes one message. The slot is taken first, so the window is never exceeded.
    async fn publish(&self, publisher: &P, payload: Bytes, sampled: bool) -> Result<Option<()>> {
        let Ok(slot) = self.open.reserve().await else {
            // The collector ended early: its error is found in `finish`.
            return Ok(None);
        };
        let moment = sampled.then(Instant::now);
        slot.send((publisher.publish(payload).await?, moment));
        Ok(Some(()))
    }

    /// Waits for the receipts that are still open.
    async fn finish(self) -> Result<(u64, Latencies)> {
        drop(self.open);
        self.task.await?
    }
}

/// One client, `plan.window` publishes open, each receipt awaited in order.
pub(crate) async fn pipelined<P: Publish>(plan: &Plan, publisher: P) -> Result<Outcome> {
    let payload = Payloads::new(plan.case.payload).shared();
    let collector = Collector::<P>::new(plan.window);
    let meter = Meter::start(plan.server_pid)?;
    let started = meter.started();
    let mut published = 0u64;
    while !published.is_multiple_of(SAMPLE_EVERY) || started.elapsed() < plan.duration {
        let sampled = published.is_multiple_of(SAMPLE_EVERY);
        if collector.publish(&publisher, payload.clone(), sampled).await?.is_none() {
            break;
        }
        published += 1;
    }
    let (acked, latencies) = collector.finish().await?;
    let measured = meter.stop()?;
    Ok(Outcome { published, acked, delivered: 0, counted: acked, value: None, wakes: None, latencies, measured })
}

/// Clients that each wait for the ack before the next publish.
pub(crate) async fn one_in_flight<P: Publish>(plan: &Plan, publishers: Vec<P>) -> Result<Outcome> {
    let payload = Payloads::new(plan.case.payload).shared();
    let meter = Meter::start(plan.server_pid)?;
    let started = meter.started();
    let duration = plan.duration;
    let clients: Vec<_> = publishers
        .into_iter()
        .map(|publisher| {
            let payload = payload.clone();
            tokio::spawn(async move {
                let mut latencies = Latencies::new();
                let mut acked = 0u64;
                while started.elapsed() < duration {
                    let moment = Instant::now();
                    P::settle(publisher.publish(payload.clone()).await?).await?;
                    latencies.record(moment.elapsed());
                    acked += 1;
                }
                Ok::<_, anyhow::Error>((acked, latencies, publisher))
            })
        })
        .collect();
    let mut latencies = Latencies::new();
    let mut acked = 0;
    let mut open = Vec::new();
    for client in clients {
        let (count, own, publisher) = client.await??;
        acked += count;
        latencies.merge(&own);
        // Connections close after the measurement.
        open.push(publisher);
    }
    let measured = meter.stop()?;
    Ok(Outcome { published: acked, acked, delivered: 0, counted: acked, value: None, wakes: None, latencies, measured })
}

/// Tasks of one client that each publish and wait for the ack; the figure is µs per operation.
pub(crate) async fn tasks<P: Publish>(plan: &Plan, publisher: P, tasks: usize) -> Result<Outcome> {
    let publisher = Arc::new(publisher);
    let payload = Payloads::new(plan.case.payload).shared();
    let meter = Meter::start(plan.server_pid)?;
    let started = meter.started();
    let duration = plan.duration;
    let running: Vec<_> = (0..tasks)
        .map(|_| {
            let (publisher, payload) = (Arc::clone(&publisher), payload.clone());
            tokio::spawn(async move {
                let mut acked = 0u64;
                while started.elapsed() < duration {
                    P::settle(publisher.publish(payload.clone()).await?).await?;
                    acked += 1;
                }
                Ok::<_, anyhow::Error>(acked)
            })
        })
        .collect();
    let mut acked = 0;
    for task in running {
        acked += task.await??;
    }
    let measured = meter.stop()?;
    Ok(Outcome {
        published: acked,
        acked,
        delivered: 0,
        counted: acked,
        value: Some(per_operation(acked, measured)),
        wakes: None,
        latencies: Latencies::new(),
        measured,
    })
}

/// µs for one of so many operations.
pub(crate) fn per_operation(count: u64, measured: Measured) -> f64 {
    measured.elapsed.as_secs_f64() * 1e6 / count.max(1) as f64
}

/// Stores `count` numbered messages, not measured.
pub(crate) async fn fill<P: Publish>(plan: &Plan, publisher: &P, count: u64) -> Result<()> {
    /// Wide enough that filling is not what takes the time.
    const WINDOW: usize = 2000;
    let payloads = Payloads::new(plan.case.payload);
    let collector = Collector::<P>::new(WINDOW);
    for index in 0..count {
        let payload = payloads.with_head(Head { index, stamp: 0 });
        if collector.publish(publisher, payload, false).await?.is_none() {
            break;
        }
    }
    let (acked, _) = collector.finish().await.context("cannot fill the backlog")?;
    anyhow::ensure!(acked == count, "{acked} of {count} backlog messages acked");
    Ok(())
}

/// Opens `count` publishers, each with a connection of its own.
pub(crate) async fn open_many<P, F, Fut>(count: usize, open: F) -> Result<Vec<P>>
where
    F: Fn(usize) -> Fut,
    Fut: Future<Output = Result<P>>,
{
    let mut all = Vec::with_capacity(count);
    for index in 0..count {
        all.push(open(index).await.with_context(|| format!("client {} of {count}", index + 1))?);
    }
    Ok(all)
}

/// A collector for live runs: receipts are awaited beside the deliveries and must all come.
pub(super) struct Acks<P: Publish> {
    collector: Collector<P>,
    publisher: Arc<P>,
}

impl<P: Publish> Acks<P> {
    /// Receipts may lag behind deliveries a little, so there is room for more than the window.
    pub(super) fn new(publisher: P, window: usize) -> Self {
        Self { collector: Collector::new(window * 4), publisher: Arc::new(publisher) }
    }

    /// Publishes one message.
    pub(super) async fn publish(&self, payload: Bytes) -> Result<()> {
        self.collector.publish(&self.publisher, payload, false).await?.ok_or_else(|| anyhow!("a publish was refused"))
    }

    /// How many were acked, once all are.
    pub(super) async fn finish(self) -> Result<u64> {
        Ok(self.collector.finish().await?.0)
    }
}
