//! What clients did and what they saw, in the order in which they did and saw it.
//!
//! An intention is written down before it leaves, an answer after it came: so what stands before something else in a
//! history really was before it. Events of the load go through one lock; nothing is lost when a round fails.

use std::{
    fmt::Write as _,
    fs::File,
    io::{BufRead as _, BufReader, BufWriter, Write as _},
    path::Path,
    time::Instant,
};

use acb_types::{Durability, MessageId};
use anyhow::{Context as _, Result};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Where a message is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Log class: 0 inbox, 1 topics, 2 dead letters.
    pub class: u8,
    /// The log's epoch when it was stored.
    pub epoch: u32,
    /// Its number in the log; 0 when the server does not remember it any more.
    pub seq: u64,
}

impl From<MessageId> for Place {
    fn from(id: MessageId) -> Self {
        Self { class: id.class.0, epoch: id.epoch, seq: id.seq }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}-{}", self.class, self.epoch, self.seq)
    }
}

/// How much a message survives, as far as this checker is concerned. A killed process loses what only its memory had;
/// what was written lies in the system's page cache and survives. That what is `synced` survives a power cut too is
/// shown by [`crate::trace`] and by the simulation, not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// May be gone after a kill.
    Memory,
    /// Survives a kill.
    Written,
    /// Survives a kill.
    Synced,
}

impl From<Durability> for Level {
    fn from(level: Durability) -> Self {
        match level {
            Durability::Memory => Self::Memory,
            Durability::Written => Self::Written,
            _ => Self::Synced,
        }
    }
}

impl From<Level> for Durability {
    fn from(level: Level) -> Self {
        match level {
            Level::Memory => Self::Memory,
            Level::Written => Self::Written,
            Level::Synced => Self::Synced,
        }
    }
}

/// What a consumer says of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// Done; nobody answers.
    Ack,
    /// Done, and say so when it is on disk.
    Confirm,
    /// Failed: again after so long.
    Nack {
        /// In milliseconds.
        delay_ms: u64,
    },
    /// Never again.
    Term,
    /// Untouched, for anybody.
    Release,
    /// More time.
    Progress,
}

impl How {
    /// Whether the message is not with the consumer any more.
    pub fn ends(self) -> bool {
        self != Self::Progress
    }
}

/// Something that happened. Names of subscriptions, consumers and producers are the load's own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The server is about to be started for the n-th time.
    Started {
        /// From 1.
        life: u32,
    },
    /// The server is about to be killed.
    Killed {
        /// The life that ends.
        life: u32,
        /// Publishes that were not answered.
        publishes_open: u64,
        /// Settlements that were not answered or not known to have arrived.
        settlements_open: u64,
    },
    /// A subscription is there.
    Subscribed {
        /// Its name.
        subscription: String,
        /// Log class that it reads.
        class: u8,
        /// Topics or patterns.
        filters: Vec<String>,
        /// First seq that it must get.
        start_seq: u64,
        /// How long a lease lasts, in milliseconds.
        ack_wait_ms: u64,
        /// Attempts before a message is dead.
        max_attempts: u32,
        /// Whether one consumer alone reads it: then first deliveries come in order.
        alone: bool,
    },
    /// A message is about to be published.
    Publish {
        /// Who.
        producer: String,
        /// Number of the call, from 0, rising.
        n: u64,
        /// Where to.
        topic: String,
        /// At which level.
        level: Level,
        /// Under which idempotency key, if any: further calls of one key are repeats.
        key: Option<String>,
        /// What; one of its kind, but for repeats.
        body: String,
    },
    /// It is stored.
    Published {
        /// Who.
        producer: String,
        /// Which call.
        n: u64,
        /// Where it is.
        place: Place,
        /// The level that was reached.
        level: Level,
        /// Whether it had been stored before.
        duplicate: bool,
    },
    /// It was refused for good: it must not be stored.
    Refused {
        /// Who.
        producer: String,
        /// Which call.
        n: u64,
        /// Why.
        code: String,
    },
    /// Nobody knows what became of it.
    Unanswered {
        /// Who.
        producer: String,
        /// Which call.
        n: u64,
        /// Why.
        code: String,
    },
    /// A message came.
    Delivered {
        /// For this subscription.
        subscription: String,
        /// To this consumer of it.
        consumer: String,
        /// Number of this delivery in the history: what follows names it.
        delivery: u64,
        /// Where it is.
        place: Place,
        /// Its topic.
        topic: String,
        /// Which attempt this is, from 1.
        attempt: u32,
        /// What.
        body: String,
    },
    /// A consumer is about to settle it.
    Settle {
        /// For this subscription.
        subscription: String,
        /// This consumer of it.
        consumer: String,
        /// Which delivery.
        delivery: u64,
        /// Which message.
        place: Place,
        /// How.
        how: How,
    },
    /// A confirmed acknowledgement is on disk.
    Confirmed {
        /// For this subscription.
        subscription: String,
        /// This consumer of it.
        consumer: String,
        /// Which delivery.
        delivery: u64,
        /// Which message.
        place: Place,
    },
    /// A settlement was not taken: the message comes again, or is with somebody else.
    NotSettled {
        /// For this subscription.
        subscription: String,
        /// This consumer of it.
        consumer: String,
        /// Which delivery.
        delivery: u64,
        /// Which message.
        place: Place,
        /// Why.
        code: String,
    },
    /// A consumer is gone without a word: what it held may go to others.
    Died {
        /// For this subscription.
        subscription: String,
        /// This consumer of it.
        consumer: String,
    },
    /// A request is about to be made.
    Request {
        /// Who.
        requester: String,
        /// Number of the request.
        n: u64,
        /// What; one of its kind.
        body: String,
    },
    /// A request's future ended: with a reply, or an error.
    Answered {
        /// Who.
        requester: String,
        /// Number of the request.
        n: u64,
        /// Body of the reply.
        reply: Option<String>,
        /// Code of the error.
        code: Option<String>,
    },
    /// A message stands in a log, as read from the data folder after the server's end.
    Stored {
        /// Where.
        place: Place,
        /// Its topic.
        topic: String,
        /// What.
        body: String,
        /// Whether it is lost on purpose when its time is over: a request or a reply.
        expires: bool,
    },
    /// A log was read from here.
    LogRead {
        /// Its class.
        class: u8,
        /// First seq that is kept.
        first_seq: u64,
        /// Epoch of the opening that read it.
        epoch: u32,
    },
    /// A dead letter is on the list at the end.
    Dead {
        /// Of this subscription.
        subscription: String,
        /// Its own place.
        letter: Place,
        /// The message's place.
        place: Place,
        /// Why.
        reason: String,
        /// Attempts that were made.
        attempts: u32,
        /// What.
        body: String,
    },
}

/// An event and when it was written down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Microseconds since the history began.
    pub at_us: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// A history that is being written.
#[derive(Debug)]
pub struct Recorder {
    began: Instant,
    entries: Mutex<Vec<Entry>>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { began: Instant::now(), entries: Mutex::default() }
    }
}

impl Recorder {
    /// Writes an event down.
    pub fn add(&self, event: Event) {
        let mut entries = self.entries.lock();
        // The time is taken under the lock: entries and times are in one order.
        entries.push(Entry { at_us: self.began.elapsed().as_micros() as u64, event });
    }

    /// All of it so far.
    pub fn entries(&self) -> Vec<Entry> {
        self.entries.lock().clone()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.lock().len()
    }

    /// Whether nothing has happened.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Writes a history as JSON lines.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, entries: &[Entry]) -> Result<()> {
    let file = File::create(path).with_context(|| path.display().to_string())?;
    let mut out = BufWriter::new(file);
    for entry in entries {
        serde_json::to_writer(&mut out, entry)?;
        out.write_all(b"\n")?;
    }
    out.flush().context("the history")
}

/// Reads a history back, to check it again.
///
/// # Errors
/// When the file cannot be read or is none.
pub fn read(path: &Path) -> Result<Vec<Entry>> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    BufReader::new(file)
        .lines()
        .map(|line| {
            let line = line?;
            serde_json::from_str(&line).with_context(|| format!("no entry: {line}"))
        })
        .collect()
}

/// One entry as a line, for messages.
pub fn line(at: usize, entry: &Entry) -> String {
    let mut out = format!("line {}: ", at + 1);
    match serde_json::to_string(entry) {
        Ok(text) => out.push_str(&text),
        Err(error) => {
            let _ = write!(out, "{entry:?} ({error})");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_read_back_as_it_was_written() {
        let recorder = Recorder::default();
        let place = Place { class: 1, epoch: 2, seq: 3 };
        let (subscription, consumer) = ("s".to_owned(), "c".to_owned());
        recorder.add(Event::Started { life: 1 });
        recorder.add(Event::Settle { subscription, consumer, delivery: 1, place, how: How::Nack { delay_ms: 5 } });
        recorder.add(Event::Answered { requester: "r".into(), n: 1, reply: None, code: Some("timeout".into()) });
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.jsonl");
        write(&path, &recorder.entries()).unwrap();
        assert_eq!(read(&path).unwrap(), recorder.entries());
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 3);
    }
}
