//! A worker: takes files from the shared subscription, surveys them, and sends what it finds to the planner.
//!
//! A file is acknowledged only after its answer is safely with the bus. So a worker may die at any moment: either the
//! answer is on its way to the planner, or the file comes again to somebody else, or both, and then the planner sees the
//! answer twice.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use acb_sdk::{Client, Message};
use anyhow::Result;
use parking_lot::Mutex;

use crate::{
    bus::{self, Answer, CAPABILITY, FILE, NUMBER, PLANNER, Progress, SURVEY},
    findings::{self, Numbered},
    survey::{Finding, survey},
    team::{Event, is_frozen, say, tell},
};

/// Files that a worker handles at once.
const AT_ONCE: usize = 4;
/// Files that may be with a worker at once, those that wait for their turn included.
const CREDITS: u32 = 8;
/// How long a worker that was told to stop waits for its hands to be full.
const HANDS_FULL_WITHIN: Duration = Duration::from_millis(200);
/// A worker tells how far it is after so many files.
const TELL_EVERY: usize = 20;

/// How a worker is started.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct WorkerArgs {
    /// Where the bus is.
    #[arg(long)]
    url: String,
    /// Its id.
    #[arg(long)]
    name: String,
    /// It merges so many findings at once into what the team shares.
    #[arg(long)]
    merge_every: usize,
}

struct Worker {
    client: Client,
    args: WorkerArgs,
    done: AtomicUsize,
    held: Mutex<Vec<String>>,
    /// Findings that are not in the shared context yet.
    unmerged: Mutex<Vec<Numbered>>,
}

/// Works until it is ended.
pub(crate) async fn run(args: WorkerArgs) -> Result<()> {
    let client = bus::connect(&args.url, &args.name).await?;
    client.agents().register(&args.name).kind("surveyor").capability(CAPABILITY).await?;
    let work = client.subscribe(SURVEY).credits(CREDITS).await?;
    tell(&Event::Ready);
    let worker = Arc::new(Worker {
        client,
        args,
        done: AtomicUsize::new(0),
        held: Mutex::default(),
        unmerged: Mutex::default(),
    });
    // What a handler fails with goes back to the bus as the reason, and the file comes again later.
    work.for_each(AT_ONCE, |message| {
        let worker = Arc::clone(&worker);
        async move { worker.handle(&message).await }
    })
    .await?;
    Ok(())
}

impl Worker {
    async fn handle(&self, message: &Message) -> Result<()> {
        let file = message.attribute(FILE).unwrap_or_default();
        if is_frozen() {
            self.hold(file).await;
        }
        let finding = survey(&file, message.payload_ref()).map_err(|why| {
            say(format!("cannot survey {file}, attempt {}", message.attempt()));
            anyhow::anyhow!("{why}")
        })?;
        let number = message.attribute(NUMBER).unwrap_or_default().parse()?;
        let answer = serde_json::to_vec(&Answer { file, finding: finding.clone() })?;
        self.client.messages().send(PLANNER, answer).content_type("application/json").confirm().await?;
        self.share(number, finding).await?;
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if done.is_multiple_of(TELL_EVERY) {
            bus::progress(&self.client, &self.args.name, &Progress { files: done, of: 0 }).await?;
        }
        Ok(())
    }

    /// Puts a finding aside, and merges what is there once it is enough.
    async fn share(&self, number: usize, finding: Finding) -> Result<()> {
        let batch = {
            let mut unmerged = self.unmerged.lock();
            unmerged.push((number, finding));
            if unmerged.len() < self.args.merge_every {
                return Ok(());
            }
            std::mem::take(&mut *unmerged)
        };
        match findings::merge(&self.client, &batch).await {
            Ok(merged) => tell(&Event::Merged { races: merged.races }),
            Err(error) => {
                self.unmerged.lock().extend(batch);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Keeps a file and does nothing with it. The first one says a moment later what is in hand; the end comes from
    /// outside.
    async fn hold(&self, file: String) -> ! {
        let first = {
            let mut held = self.held.lock();
            held.push(file);
            held.len() == 1
        };
        if first {
            tokio::time::sleep(HANDS_FULL_WITHIN).await;
            tell(&Event::Holding { files: self.held.lock().clone() });
        }
        std::future::pending().await
    }
}
