//! Files up and down: the object store's `put` and `get`, as its documentation shows them, with its own chunk size. `put`
//! takes the SHA-256 of the whole and `get` checks it, as ours do.

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream::{
    Context,
    object_store::{Config, ObjectStore},
};
use tokio::{fs::File, io::AsyncWriteExt as _};

use crate::{
    case::{Language, Shape},
    load::{Outcome, Plan, meter::Meter, settle_disk, transfer::Files},
};

const BUCKET: &str = "files";
const NAME: &str = "file";

/// Runs the plan; the second figure is the size that the store tells of the object.
pub(super) async fn load(plan: &Plan, jetstream: Context) -> Result<(Outcome, Option<u64>)> {
    ensure!(plan.language == Language::Rust, "the object store is measured through its Rust client");
    let files = Files::of(plan)?;
    let config = Config { bucket: BUCKET.to_owned(), num_replicas: 1, max_bytes: -1, ..Config::default() };
    let store = jetstream.create_object_store(config).await.context("cannot make the object store")?;
    let outcome = if plan.case.shape == Shape::Download {
        put(&store, &files).await?;
        settle_disk().await?;
        let meter = Meter::start(plan.server_pid)?;
        get(&store, &files).await?;
        let measured = meter.stop()?;
        files.check_copy().await?;
        files.outcome(plan, measured)
    } else {
        let meter = Meter::start(plan.server_pid)?;
        put(&store, &files).await?;
        let measured = meter.stop()?;
        // What `put` says of it is what the client counted: read back what the server has.
        get(&store, &files).await?;
        files.check_copy().await?;
        files.outcome(plan, measured)
    };
    let stored = store.info(NAME).await?.size;
    Ok((outcome, Some(stored as u64)))
}

async fn put(store: &ObjectStore, files: &Files) -> Result<()> {
    let mut source = File::open(&files.source).await?;
    store.put(NAME, &mut source).await.context("put")?;
    Ok(())
}

/// Its reader checks the digest when it has read the last byte.
async fn get(store: &ObjectStore, files: &Files) -> Result<()> {
    let mut object = store.get(NAME).await.context("get")?;
    let mut copy = File::create(&files.copy).await?;
    let size = tokio::io::copy(&mut object, &mut copy).await.context("get")?;
    copy.flush().await?;
    ensure!(size == files.bytes, "{size} bytes came of {}", files.bytes);
    Ok(())
}
