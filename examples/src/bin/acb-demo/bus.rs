//! What all members know of the bus: the names of things on it, and how to get there.

use std::time::Duration;

use acb_sdk::{Client, Credentials, Event, Events, SubscriptionSpec};
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::{
    survey::Finding,
    team::{self, say, tell},
};

/// Who sends the work, and gets the findings.
pub(crate) const PLANNER: &str = "planner";
/// Who follows the progress.
pub(crate) const WATCHER: &str = "watcher";
/// What a worker can do.
pub(crate) const CAPABILITY: &str = "file.survey";
/// Where work is published: one message a file, its content as the payload.
pub(crate) const WORK: &str = "work.survey";
/// The durable subscription on it. All workers open it, and share it: each file goes to one of them.
pub(crate) const SURVEY: &str = "survey";
/// Where everybody tells how far it is: `progress.<agent>`.
pub(crate) const PROGRESS: &str = "progress";
/// Attribute of a work message: the file's name.
pub(crate) const FILE: &str = "file";
/// Attribute of a work message: the file's number among all.
pub(crate) const NUMBER: &str = "number";
/// Who asks for the result in the end.
pub(crate) const READER: &str = "reader";
/// Workers of the team. Every other one is written in Python.
pub(crate) const WORKERS: [(&str, Language); 4] = [
    ("worker-1", Language::Rust),
    ("worker-2", Language::Python),
    ("worker-3", Language::Rust),
    ("worker-4", Language::Python),
];

/// How long a worker has for one file. Short, so that one sees leases move.
pub(crate) const LEASE: Duration = Duration::from_secs(3);
/// Attempts before a file ends in the dead letters.
pub(crate) const ATTEMPTS: u32 = 5;
/// Waits between them.
const RETRY: [Duration; 3] = [Duration::from_millis(100), Duration::from_millis(200), Duration::from_millis(400)];

/// What a member is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    /// This program.
    Rust,
    /// A file of `examples/python/demo`.
    Python,
}

/// The subscription's definition.
pub(crate) fn survey() -> SubscriptionSpec {
    SubscriptionSpec::new(SURVEY).filter(WORK).ack_wait(LEASE).max_attempts(ATTEMPTS).retry_schedule(RETRY)
}

/// A worker's answer for one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// The file.
    pub(crate) file: String,
    /// What it is.
    pub(crate) finding: Finding,
}

/// How far somebody is. Counts from its own start: a line that is missed does not matter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Files done so far; of the planner: answered for.
    pub(crate) files: usize,
    /// Files there are; only the planner knows.
    #[serde(default)]
    pub(crate) of: usize,
}

/// Connects as an agent, with the key that came through the environment, and tells when the connection goes and comes.
pub(crate) async fn connect(url: &str, agent: &str) -> Result<Client> {
    let key = std::env::var("ACB_KEY").context("ACB_KEY is not set")?;
    let client = Client::builder(url)
        .credentials(Credentials::enrolment_key(key, agent))
        .connect()
        .await
        .with_context(|| format!("{agent} cannot connect to {url}"))?;
    tell_of_connection(client.events());
    Ok(client)
}

#[expect(clippy::disallowed_methods, reason = "ends with the client, and the client with the process")]
fn tell_of_connection(mut events: Events) {
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            match event {
                Event::Suspended { .. } => tell(&team::Event::Lost),
                Event::Resumed { .. } => tell(&team::Event::Back),
                Event::Gap { gap, .. } => say(format!("missed messages {} to {}", gap.from_seq, gap.to_seq)),
                _ => {}
            }
        }
    });
}

/// Tells how far an agent is. Nobody waits for that to be stored, and a lost line is made good by the next.
pub(crate) async fn progress(client: &Client, agent: &str, progress: &Progress) -> Result<()> {
    let text = serde_json::to_vec(progress)?;
    let receipt = client
        .messages()
        .publish(format!("{PROGRESS}.{agent}"), text)
        .kind(acb_sdk::MessageKind::Event)
        .durability(acb_sdk::Durability::Memory)
        .send()
        .await?;
    drop(receipt);
    Ok(())
}
