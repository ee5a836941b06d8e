//! Files up and down through the SDK's streams.

use acb_sdk::Client;
use anyhow::{Result, ensure};

use crate::load::{Outcome, Plan, meter::Meter, python, transfer::Files};

/// Uploads the file; the figure is the file's size by the time until the bus has made it a context.
pub(super) async fn upload(plan: &Plan, client: &Client) -> Result<(Outcome, Option<u64>)> {
    let files = Files::of(plan)?;
    let meter = Meter::start(plan.server_pid)?;
    let uploaded = client.streams().upload_path(&files.source).key("bench/file").await?;
    let measured = meter.stop()?;
    files.check(&uploaded.sha256.to_string())?;
    ensure!(uploaded.sent_bytes == files.bytes, "{} bytes were sent for {}", uploaded.sent_bytes, files.bytes);
    Ok((files.outcome(plan, measured), Some(uploaded.size)))
}

/// Downloads what was uploaded before, not measured, to a file.
pub(super) async fn download(plan: &Plan, client: &Client) -> Result<(Outcome, Option<u64>)> {
    let files = Files::of(plan)?;
    let uploaded = stored(&files, client).await?;
    let meter = Meter::start(plan.server_pid)?;
    let downloaded = client.streams().download(uploaded).to_path(&files.copy).await?;
    let measured = meter.stop()?;
    files.check(&downloaded.sha256.to_string())?;
    files.check_copy().await?;
    Ok((files.outcome(plan, measured), Some(downloaded.size)))
}

/// Uploads the file and lets the disk come to rest; the context's id.
async fn stored(files: &Files, client: &Client) -> Result<String> {
    let uploaded = client.streams().upload_path(&files.source).key("bench/file").await?;
    files.check(&uploaded.sha256.to_string())?;
    crate::load::settle_disk().await?;
    Ok(uploaded.context_id)
}

/// The same by the Python client; what it says of size and digest is compared with the file's.
pub(super) async fn by_python(plan: &Plan, client: &Client, down: bool) -> Result<(Outcome, Option<u64>)> {
    let files = Files::of(plan)?;
    let mut job = python::Job::new(plan)?;
    job.path = Some(if down { files.copy.clone() } else { files.source.clone() });
    if down {
        job.context = Some(stored(&files, client).await?);
    }
    let mut python = python::Client::start(plan, job).await?;
    let meter = Meter::start_for(plan.server_pid, Some(python.pid()?))?;
    let done = python.run().await?;
    let measured = meter.stop()?;
    python.end().await?;
    files.check(&done.sha256)?;
    if down {
        files.check_copy().await?;
    }
    Ok((files.outcome(plan, measured), Some(done.count)))
}
