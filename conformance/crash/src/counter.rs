//! Many agents, one counter: each adds one by compare-and-set, over kills of the server, and the sum is exact.
//!
//! An agent reads the counter, writes it plus one for the revision that it read, and begins anew when somebody was faster:
//! `Contexts::modify`.
//! A lost answer is asked for again by the client itself, under one idempotency key: an increment that was made is not made
//! again, and one that was not is.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use acb_sdk::{Client, ClientBuilder, Context, ContextAccess, Credentials, RetryPolicy};
use acb_testkit::{Server, ServerOptions};
use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::{sync::Barrier, task::JoinSet};

use crate::count::Count;

/// Key of the counter.
const COUNTER: &str = "crash/counter";
/// Longest that a call may take, kills included.
const ANSWER_WITHIN: Duration = Duration::from_mins(1);
/// Waits between attempts to connect again: a killed server is back in a moment.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));

/// How much is counted.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Agents that count.
    pub agents: u64,
    /// Increments of each.
    pub increments: u64,
    /// Kills of the server, at random points of the way.
    pub kills: u64,
    /// Decides on these points.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    /// What the counter says.
    pub sum: u64,
    /// Writes that lost against another.
    pub conflicts: u64,
    /// Writes that were on their way at the kills, together.
    pub open_at_kills: u64,
    /// How long it took.
    pub took: Duration,
}

#[derive(Debug, Default)]
struct Tally {
    added: Count,
    conflicts: AtomicU64,
    open: AtomicU64,
}

fn builder(server: &Server, agent: &str) -> ClientBuilder {
    let reconnect = RetryPolicy::default().initial(RECONNECT.0).max(RECONNECT.1);
    Client::builder(format!("acb://{}", server.address()))
        .credentials(Credentials::dev("default", agent))
        .reconnect(reconnect.clone())
        .retry(reconnect)
        .request_timeout(ANSWER_WITHIN)
        .connect_timeout(ANSWER_WITHIN)
}

fn number(payload: &[u8]) -> Result<u64> {
    std::str::from_utf8(payload)?.parse().context("the counter is a number")
}

/// Counts, killing the server meanwhile, and reads the sum.
///
/// # Errors
/// When a call fails that no client should see fail, or a revision was given twice.
pub async fn count(plan: Plan, data: &Path) -> Result<Counted> {
    let mut server = ServerOptions::default().real_clock().data_dir(data).start().await?;
    let keeper = builder(&server, "keeper").connect().await?;
    let shares = (0..plan.agents).map(|n| (format!("counter-{n}"), ContextAccess::Write));
    let share = keeper.contexts().share(COUNTER, "0");
    let counter = shares.fold(share, |s, (agent, access)| s.share_with(agent, access)).await?.context;
    let (tally, start) = (Arc::new(Tally::default()), Arc::new(Barrier::new(plan.agents as usize + 1)));
    let mut agents = JoinSet::new();
    for n in 0..plan.agents {
        let client = builder(&server, &format!("counter-{n}")).connect().await?;
        let (tally, start, id) = (Arc::clone(&tally), Arc::clone(&start), counter.id.clone());
        agents.spawn(async move {
            start.wait().await;
            let revs = add(&client, &id, plan.increments, &tally).await.with_context(|| format!("counter-{n}"))?;
            client.close().await;
            anyhow::Ok(revs)
        });
    }
    start.wait().await;
    let began = Instant::now();
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let mut revs = Vec::new();
    let (whole, mut open_at_kills) = (plan.agents * plan.increments, 0);
    for kill in 0..plan.kills {
        // Somewhere in its share of the way.
        let (from, to) = (whole * kill / plan.kills, whole * (kill + 1) / plan.kills);
        let point = rng.random_range(from..to.max(from + 1));
        let reached = tally.added.reach(point);
        tokio::pin!(reached);
        loop {
            // Who gave up has failed the count: say so at once.
            tokio::select! {
                () = &mut reached => break,
                Some(ended) = agents.join_next() => revs.extend(ended??),
            }
        }
        tokio::time::sleep(Duration::from_micros(rng.random_range(0..5_000))).await;
        open_at_kills += tally.open.load(Ordering::Relaxed);
        server.kill().await?;
        server.restart().await?;
    }
    while let Some(ended) = agents.join_next().await {
        revs.extend(ended??);
    }
    let took = began.elapsed();
    let increments = revs.len();
    revs.sort_unstable();
    revs.dedup();
    ensure!(revs.len() == increments, "{} of {increments} increments have a revision of their own", revs.len());
    let last = keeper.contexts().get(COUNTER).await?;
    ensure!(revs.last() == Some(&last.rev), "the last increment is {:?}, the counter at {}", revs.last(), last.rev);
    let sum = number(&last.payload)?;
    keeper.close().await;
    server.stop().await?;
    Ok(Counted { sum, conflicts: tally.conflicts.load(Ordering::Relaxed), open_at_kills, took })
}

/// Adds one so many times; the revisions that this made.
async fn add(client: &Client, id: &str, times: u64, tally: &Tally) -> Result<Vec<u64>> {
    let contexts = client.contexts();
    let mut revs = Vec::new();
    for _ in 0..times {
        let mut tries = 0;
        let add = |present: &Context| {
            tries += 1;
            // What is no number is left as it is, and the sum will not be right.
            number(&present.payload).ok().map(|n| Bytes::from((n + 1).to_string()))
        };
        tally.open.fetch_add(1, Ordering::Relaxed);
        let counted = contexts.modify(id, add).await;
        tally.open.fetch_sub(1, Ordering::Relaxed);
        revs.push(counted?.rev);
        tally.conflicts.fetch_add(tries - 1, Ordering::Relaxed);
        tally.added.add(1);
    }
    Ok(revs)
}
