//! Contexts, revisions and chunks over kills: writers, a watcher and uploads at work while the server is killed at random
//! moments; then everything that was acknowledged is looked for, from outside.
//!
//! What must hold ([`Found`] counts what was looked at, so that a round that proved nothing shows):
//!
//! - each acknowledged revision reads back as it was written, by its revision, while it is among the 64 that are kept;
//! - no revision was given twice, and each writer's rise;
//! - a watcher that lived through all of it was told each acknowledged revision once, in order;
//! - whatever a list shows comes down with the digest that its row names: no row names a blob that is absent;
//! - an upload ends with the digest of what was sent, and sends at most a window again for each kill;
//! - a day later stages of uploads that nobody continued are gone, and no content that a row names went with them.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use acb_sdk::{Client, ClientBuilder, ContextEvent, ContextWatch, Credentials, ErrorCode, RetryPolicy, Sha256Digest};
use acb_testkit::{
    Server, ServerOptions,
    wait::{Level, PATIENCE, wait_until, within},
};
use anyhow::{Context as _, Result, bail, ensure};
use parking_lot::Mutex;
use rand::{Rng as _, RngCore as _, SeedableRng as _, rngs::StdRng};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::count::Count;

/// Writers, each with contexts of its own.
const WRITERS: u64 = 4;
/// Writes after which a writer takes another context: below the 64 that are kept.
const REVISIONS: u64 = 40;
/// Largest payload of a write: above 16 KiB it is a blob.
const PAYLOAD_MAX: usize = 40 << 10;
/// Uploaders, one upload after the other each.
const UPLOADERS: u64 = 2;
/// Sizes of uploads: from, to.
const UPLOAD: (usize, usize) = (600_000, 3_000_000);
const CHUNK: u32 = 256 << 10;
const WINDOW: u64 = 1 << 20;
/// Kills of a round.
const KILLS: u64 = 4;
/// Answers that a life gives before it is over: from, to.
const ANSWERS: (u64, u64) = (10, 60);
/// Longest that a call may take, kills included.
const ANSWER_WITHIN: Duration = Duration::from_mins(1);
/// How long uploads are kept that nobody continues, and a little more.
const A_DAY: Duration = Duration::from_hours(25);

/// More than there is between two sweeps.
const AN_HOUR: Duration = Duration::from_hours(1);

/// What was looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    /// Acknowledged revisions that were read back.
    pub revisions: usize,
    /// Revisions that the watcher was told.
    pub watched: usize,
    /// Contexts whose content came down.
    pub contents: usize,
    /// Uploads that ended, and how many of them went over a kill.
    pub uploads: usize,
    /// The same that took more than one connection.
    pub resumed: usize,
    /// Stages that were left behind, and are gone in the end.
    pub orphans: usize,
}

/// A write that was acknowledged.
#[derive(Clone, Debug)]
struct Written {
    id: String,
    rev: u64,
    payload: Vec<u8>,
}

#[derive(Debug, Default)]
struct Log {
    writes: Mutex<Vec<Vec<Written>>>,
    uploads: Mutex<Vec<(String, Sha256Digest, u32)>>,
    answered: Count,
}

/// Where a round is played: a server, and what happens to it.
pub(crate) trait Place {
    /// A client of an agent, to be set further.
    fn client(&self, agent: &str) -> ClientBuilder;

    /// Takes its server away in the middle of what it does, and brings it back.
    async fn strike(&mut self) -> Result<()>;

    /// Lets time pass for it.
    async fn advance(&self, span: Duration) -> Result<()>;

    /// Uploads that have a file.
    fn stages(&self) -> usize;
}

/// The real server, killed by SIGKILL.
struct Killed<'a> {
    server: Server,
    data: &'a Path,
}

impl Place for Killed<'_> {
    fn client(&self, agent: &str) -> ClientBuilder {
        Client::builder(format!("acb://{}", self.server.address())).credentials(Credentials::dev("default", agent))
    }

    async fn strike(&mut self) -> Result<()> {
        self.server.kill().await?;
        self.server.restart().await
    }

    async fn advance(&self, span: Duration) -> Result<()> {
        self.server.admin().advance(span).await?;
        Ok(())
    }

    fn stages(&self) -> usize {
        std::fs::read_dir(self.data.join("tenants/default/stage")).map_or(0, Iterator::count)
    }
}

async fn connect(place: &impl Place, agent: &str) -> Result<Client> {
    let policy = RetryPolicy::default().initial(Duration::from_millis(2)).max(Duration::from_millis(50));
    let builder = place.client(agent).reconnect(policy.clone()).retry(policy).request_timeout(ANSWER_WITHIN);
    builder.connect_timeout(ANSWER_WITHIN).connect().await.with_context(|| agent.to_owned())
}

fn noise(rng: &mut StdRng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rng.fill_bytes(&mut bytes);
    bytes
}

async fn write(client: Client, seed: u64, log: Arc<Log>, over: CancellationToken) -> Result<Vec<Written>> {
    let (mut rng, mut all) = (StdRng::seed_from_u64(seed), Vec::new());
    let mut present: Option<(String, u64)> = None;
    let mut count = 0_u64;
    while !over.is_cancelled() {
        let len = rng.random_range(1..PAYLOAD_MAX);
        let payload = noise(&mut rng, len);
        let (id, rev) = match &present {
            Some((id, rev)) if !count.is_multiple_of(REVISIONS) => {
                let updated = client.contexts().update(id.as_str()).payload(payload.clone()).if_rev(*rev).await?;
                (id.clone(), updated.context.rev)
            }
            _ => {
                let made =
                    client.contexts().share("", payload.clone()).kind("written").scope(acb_sdk::ContextScope::Public);
                let made = made.await?.context;
                (made.id, made.rev)
            }
        };
        count += 1;
        log.answered.add(1);
        present = Some((id.clone(), rev));
        all.push(Written { id, rev, payload });
    }
    client.close().await;
    Ok(all)
}

async fn upload(client: Client, seed: u64, log: Arc<Log>, over: CancellationToken) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    while !over.is_cancelled() {
        let bytes = rng.random_range(UPLOAD.0..UPLOAD.1);
        let content = noise(&mut rng, bytes);
        let size = content.len() as u64;
        let upload = client.streams().upload(std::io::Cursor::new(content)).kind("uploaded").public();
        let up = upload.chunk_bytes(CHUNK).window_bytes(WINDOW).await?;
        let most = size + u64::from(up.connections - 1) * WINDOW;
        ensure!(up.sent_bytes <= most, "{} bytes sent for {size} over {} connections", up.sent_bytes, up.connections);
        log.answered.add(1);
        log.uploads.lock().push((up.context_id, up.sha256, up.connections));
    }
    client.close().await;
    Ok(())
}

/// Opens a watch that stands before anything is written, at a revision that it can go on from.
async fn open_watch(client: &Client) -> Result<ContextWatch> {
    client.contexts().share("", "there before").await?;
    let mut watch = client.contexts().watch().kind("written").open().await?;
    let first = watch.next().await.context("the watch is over")??;
    ensure!(matches!(first, ContextEvent::Synced(1..)), "a watch of nothing begins with {first:?}");
    Ok(watch)
}

/// Watches until it has been told the revision that ends it.
async fn watch(
    client: Client,
    mut watch: ContextWatch,
    mut last: tokio::sync::watch::Receiver<u64>,
) -> Result<Vec<(String, u64)>> {
    let mut told = Vec::new();
    loop {
        let end = *last.borrow_and_update();
        if end != 0 && told.last().is_some_and(|(_, rev)| *rev >= end) {
            client.close().await;
            return Ok(told);
        }
        tokio::select! {
            event = watch.next() => match event.context("the watch is over")?? {
                ContextEvent::Created(c) | ContextEvent::Updated(c) => told.push((c.id, c.rev)),
                other => bail!("the watch, which stood before, was told {other:?}"),
            },
            changed = last.changed() => changed?,
        }
    }
}

/// Plays a round against the real server.
///
/// # Errors
/// What did not hold.
pub async fn play(seed: u64, data: &Path) -> Result<Found> {
    let mut place = Killed { server: ServerOptions::default().data_dir(data).start().await?, data };
    let found = round(seed, &mut place).await?;
    place.server.stop().await?;
    Ok(found)
}

/// Plays a round.
pub(crate) async fn round(seed: u64, place: &mut impl Place) -> Result<Found> {
    let (log, over) = (Arc::new(Log::default()), CancellationToken::new());
    let (end, last) = tokio::sync::watch::channel(0);
    let client = connect(place, "watcher").await?;
    let begun = open_watch(&client).await?;
    let watcher = tokio::spawn(watch(client, begun, last));
    let (mut writers, mut uploaders) = (JoinSet::new(), JoinSet::new());
    for n in 0..WRITERS {
        let client = connect(place, &format!("writer-{n}")).await?;
        writers.spawn(write(client, seed ^ n << 8, Arc::clone(&log), over.clone()));
    }
    for n in 0..UPLOADERS {
        let client = connect(place, &format!("uploader-{n}")).await?;
        uploaders.spawn(upload(client, seed ^ n << 16 ^ 1, Arc::clone(&log), over.clone()));
    }
    let mut rng = StdRng::seed_from_u64(seed.rotate_left(17));
    for _ in 0..KILLS {
        let until = log.answered.get() + rng.random_range(ANSWERS.0..ANSWERS.1);
        let reached = log.answered.reach(until);
        tokio::pin!(reached);
        loop {
            // Who gave up has failed the round: say so at once.
            tokio::select! {
                () = &mut reached => break,
                Some(ended) = writers.join_next() => log.writes.lock().push(ended??),
                Some(ended) = uploaders.join_next() => ended??,
            }
        }
        tokio::time::sleep(Duration::from_micros(rng.random_range(0..12_000))).await;
        place.strike().await?;
    }
    over.cancel();
    while let Some(ended) = within("writers to end", ANSWER_WITHIN, writers.join_next()).await? {
        log.writes.lock().push(ended??);
    }
    while let Some(ended) = within("uploads to end", ANSWER_WITHIN, uploaders.join_next()).await? {
        ended??;
    }
    let auditor = connect(place, "auditor").await?;
    let writes = log.writes.lock().clone();
    let mut found = Found::default();
    let acknowledged = revisions_rise(&writes)?;
    end.send_replace(acknowledged.last_key_value().map_or(0, |(rev, _)| *rev));
    let told = within("the watcher to be told the last revision", ANSWER_WITHIN, watcher).await???;
    found.watched = told.len();
    told_once(&told, &acknowledged)?;
    for write in writes.iter().flatten() {
        let read = auditor.contexts().get(write.id.as_str()).at_rev(write.rev).await;
        let read = read.with_context(|| format!("revision {} of {}", write.rev, write.id))?;
        ensure!(read.payload == write.payload, "revision {} of {} reads as another", write.rev, write.id);
        found.revisions += 1;
    }
    let uploads = log.uploads.lock().clone();
    found.uploads = uploads.len();
    found.resumed = uploads.iter().filter(|(_, _, connections)| *connections > 1).count();
    leave_orphans(place, &mut rng).await?;
    place.strike().await?;
    found.orphans = place.stages();
    place.advance(A_DAY).await?;
    let here = &*place;
    wait_until("stages to be given back", PATIENCE, || async move {
        let left = here.stages();
        // The sweep that the start began may have come before the day was over: then it is the next.
        match here.advance(AN_HOUR).await {
            Ok(()) => Level::when(left == 0, (), format!("{left} stages")),
            Err(error) => Level::not_yet(error),
        }
    })
    .await?;
    let all = auditor.contexts().list().all().await?;
    for context in &all {
        let down = auditor.streams().download(context.id.as_str()).to_writer(&mut tokio::io::sink()).await;
        let down = down.with_context(|| format!("the content of {} ({})", context.id, context.kind))?;
        ensure!(down.size == context.size, "{} has {} bytes, not {}", context.id, down.size, context.size);
        found.contents += 1;
    }
    for (id, sha256, _) in &uploads {
        let down = auditor.streams().download(id.as_str()).to_writer(&mut tokio::io::sink()).await?;
        ensure!(down.sha256 == *sha256, "{id} came down as another content");
    }
    auditor.close().await;
    Ok(found)
}

/// No revision is there twice and each writer's rise. Gives all of them with their contexts.
fn revisions_rise(writes: &[Vec<Written>]) -> Result<BTreeMap<u64, String>> {
    let mut all = BTreeMap::new();
    for writer in writes {
        for pair in writer.windows(2) {
            ensure!(pair[0].rev < pair[1].rev, "revision {} was acknowledged before {}", pair[1].rev, pair[0].rev);
        }
        for write in writer {
            let before = all.insert(write.rev, write.id.clone());
            ensure!(before.is_none(), "revision {} was given to {} and to {before:?}", write.rev, write.id);
        }
    }
    Ok(all)
}

/// A watcher was told each acknowledged revision once, and all in order.
fn told_once(told: &[(String, u64)], acknowledged: &BTreeMap<u64, String>) -> Result<()> {
    for pair in told.windows(2) {
        ensure!(pair[0].1 < pair[1].1, "the watcher was told {:?} after {:?}", pair[1], pair[0]);
    }
    for (rev, id) in acknowledged {
        ensure!(told.contains(&(id.clone(), *rev)), "the watcher was not told revision {rev} of {id}");
    }
    Ok(())
}

/// Begins uploads and drops them in the middle.
async fn leave_orphans(place: &impl Place, rng: &mut StdRng) -> Result<()> {
    let client = connect(place, "forgetful").await?;
    let before = place.stages();
    let content = noise(rng, 2 << 20);
    // Its source never ends: what is there of it is on disk when it is dropped.
    let (mut give, take) = tokio::io::duplex(64 << 10);
    let upload = tokio::spawn(client.streams().upload(take).chunk_bytes(CHUNK).into_future());
    tokio::io::AsyncWriteExt::write_all(&mut give, &content).await?;
    wait_until("a stage", PATIENCE, || {
        let now = place.stages();
        async move { Level::when(now > before, (), format!("{now} stages")) }
    })
    .await?;
    upload.abort();
    client.close().await;
    match upload.await {
        Ok(Err(error)) if error.code() != ErrorCode::ClientClosed => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(id: &str, rev: u64) -> Written {
        Written { id: id.to_owned(), rev, payload: Vec::new() }
    }

    fn seen(id: &str, rev: u64) -> (String, u64) {
        (id.to_owned(), rev)
    }

    #[test]
    fn a_revision_that_is_given_twice_or_falls_is_found() {
        let good = [vec![written("a", 1), written("a", 3)], vec![written("b", 2)]];
        assert_eq!(revisions_rise(&good).unwrap().len(), 3);
        assert!(revisions_rise(&[vec![written("a", 1)], vec![written("b", 1)]]).is_err(), "given twice");
        assert!(revisions_rise(&[vec![written("a", 3), written("a", 2)]]).is_err(), "fell");
    }

    #[test]
    fn a_watcher_that_misses_doubles_or_swaps_a_revision_is_found() {
        let all = revisions_rise(&[vec![written("a", 1), written("a", 3)], vec![written("b", 2)]]).unwrap();
        // What was done and not acknowledged may come too.
        told_once(&[seen("a", 1), seen("b", 2), seen("a", 3), seen("c", 4)], &all).unwrap();
        assert!(told_once(&[seen("a", 1), seen("a", 3)], &all).is_err(), "missed");
        assert!(told_once(&[seen("a", 1), seen("b", 2), seen("b", 2), seen("a", 3)], &all).is_err(), "doubled");
        assert!(told_once(&[seen("b", 2), seen("a", 1), seen("a", 3)], &all).is_err(), "swapped");
        assert!(told_once(&[seen("a", 1), seen("a", 2), seen("a", 3)], &all).is_err(), "of another context");
    }
}
