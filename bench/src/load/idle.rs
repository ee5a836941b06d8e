//! Idle connections: how much resident memory of the server each one costs.
//!
//! Kernel socket memory is not counted, on neither side.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    Outcome, Plan,
    meter::{Latencies, Meter},
};
use crate::proc::{open_files_limit, resident_kib};

/// Connections opened at the same time.
const OPENING: usize = 32;

/// Files a process needs beside its connections.
const SPARE_FILES: u64 = 200;

/// Opens `connections`, waits until memory has come to rest, and reports KiB per connection.
pub(crate) async fn idle<C, F, Fut>(plan: &Plan, connections: usize, open: F) -> Result<Outcome>
where
    F: Fn(usize) -> Fut,
    Fut: Future<Output = Result<C>>,
{
    let needed = connections as u64 + SPARE_FILES;
    let limit = open_files_limit().unwrap_or(0);
    ensure!(limit >= needed, "{connections} connections need `ulimit -n {needed}`, the limit is {limit}");
    // The first connection pays for what the server allocates once.
    let first = open(0).await.context("the first connection")?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = resident_kib(plan.server_pid)?;
    let meter = Meter::start(plan.server_pid)?;
    let open = &open;
    let all: Vec<C> = stream::iter(1..=connections)
        .map(
            |number| async move { open(number).await.with_context(|| format!("connection {number} of {connections}")) },
        )
        .buffer_unordered(OPENING)
        .try_collect()
        .await?;
    let measured = meter.stop()?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = resident_kib(plan.server_pid)?;
    ensure!(all.len() == connections, "{} of {connections} connections are open", all.len());
    drop((first, all));
    Ok(Outcome {
        published: 0,
        acked: 0,
        delivered: 0,
        counted: connections as u64,
        value: Some(after.saturating_sub(before) as f64 / connections as f64),
        wakes: None,
        latencies: Latencies::new(),
        measured,
    })
}
