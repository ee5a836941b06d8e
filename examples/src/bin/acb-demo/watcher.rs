//! The watcher: follows how far everybody is, by one wildcard subscription, and knows none of them beforehand;
//! and each revision of what they share.

use std::collections::BTreeMap;

use acb_sdk::{ContextEvent, ErrorCode};
use acb_types::limits::CONTEXT_INLINE_BYTES_MAX;
use anyhow::{Context as _, Result};

use crate::{
    bus::{self, PLANNER, PROGRESS, Progress, WATCHER},
    findings::{self, Findings},
    report::thousands,
    team::{Event, say, tell},
};

/// Steps that are told, in percent of all files.
const STEP: usize = 20;

/// How the watcher is started.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct WatcherArgs {
    /// Where the bus is.
    #[arg(long)]
    url: String,
}

/// Watches until it is ended.
pub(crate) async fn run(args: WatcherArgs) -> Result<()> {
    let client = bus::connect(&args.url, WATCHER).await?;
    let mut progress = client.listen([format!("{PROGRESS}.>")]).await?;
    let mut shared =
        client.contexts().watch().key(findings::KEY).payloads_up_to(CONTEXT_INLINE_BYTES_MAX).open().await?;
    tell(&Event::Ready);
    let mut workers = BTreeMap::new();
    let mut told = 0;
    loop {
        // Both are cancel-safe: what was not taken stays.
        let message = tokio::select! {
            message = progress.next() => message,
            event = shared.next() => {
                revision(event.context("the watch ended")??)?;
                continue;
            }
        };
        let Some(message) = message else { return Ok(()) };
        let message = message?;
        let Progress { files, of } = serde_json::from_slice(message.payload_ref())?;
        if message.from() != PLANNER {
            workers.insert(message.from().to_owned(), files);
        } else if let Some(step) = step(files, of, told) {
            told = step;
            let each: Vec<String> = workers.iter().map(|(name, files)| format!("{name} {files}")).collect();
            let (files, of) = (thousands(files as u64), thousands(of as u64));
            say(format!("{files} of {of} files answered ({step} %)   {}", each.join(", ")));
        }
        match message.ack() {
            // A lease ends with the server that gave it: the message comes again, and tells nothing new.
            Err(error) if error.code() == ErrorCode::LeaseLost => {}
            settled => settled?,
        }
    }
}

/// Tells a revision of what the team shares.
fn revision(event: ContextEvent) -> Result<()> {
    if let ContextEvent::Created(context) | ContextEvent::Updated(context) = event {
        let findings = Findings::of(&context)?;
        let (files, languages) = (thousands(findings.files()), findings.languages.len());
        let (version, by) = (&context.version, &context.updated_by);
        say(format!("{} is now {version}, by {by}: {files} files in {languages} languages", findings::KEY));
    }
    Ok(())
}

/// The step that was reached, when it is one that was not told yet.
fn step(files: usize, of: usize, told: usize) -> Option<usize> {
    let step = (files * 100).checked_div(of)? / STEP * STEP;
    (step > told).then_some(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_is_told_once_and_none_twice() {
        assert_eq!(step(19, 100, 0), None);
        assert_eq!(step(20, 100, 0), Some(20));
        assert_eq!(step(39, 100, 20), None);
        assert_eq!(step(85, 100, 20), Some(80));
        assert_eq!(step(0, 0, 0), None);
    }
}
