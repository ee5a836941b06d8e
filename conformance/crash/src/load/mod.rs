//! Clients of every kind, one module a kind of behaviour, behind [`Kind`]. What comes later (contexts, streams) is one
//! more module here, and rules for it in [`crate::check`].

mod ask;
mod consume;
mod publish;
mod ranges;
mod stage;

use std::sync::Arc;

use acb_sdk::StartAt;
use anyhow::Result;
use async_trait::async_trait;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

pub use self::stage::{Stage, body_of};
use self::{
    ask::{Requester, Responder},
    consume::{Habit, Inbox, Mortal, Named, Plan},
    publish::{Manner, Publisher, Target},
    ranges::Ranges,
};
use crate::history::Level;

/// A client, or a few of one kind, that does its work through all lives of the server.
#[async_trait]
pub trait Kind: Send {
    /// Its name in the history.
    fn name(&self) -> String;

    /// In which life of the server it comes.
    fn enters_in(&self) -> u32 {
        1
    }

    /// Registers, subscribes: what must be there before the load begins. Asked once, with the server running.
    ///
    /// # Errors
    /// When that cannot be done: the round has failed.
    async fn prepare(&mut self, stage: &Arc<Stage>) -> Result<()>;

    /// Works until the stage says that it is over ([`Stage::turn`], [`Stage::leaving`]), and then until what it began is
    /// answered.
    ///
    /// # Errors
    /// What no client should meet, however often its server is killed.
    async fn run(self: Box<Self>, stage: Arc<Stage>) -> Result<()>;

    /// Whether it ends when publishing ends; others end when everything is settled.
    fn is_publisher(&self) -> bool {
        false
    }
}

/// Everybody who plays in a round. The seed decides on windows, starts and habits.
pub fn cast(seed: u64) -> Vec<Box<dyn Kind>> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut all: Vec<Box<dyn Kind>> = Vec::new();
    let topic = |name: &str| Target::Topics(vec![format!("load.{name}.a"), format!("load.{name}.b")]);
    let publishers = [
        ("pipe-written", Level::Written, topic("pipe"), Manner::Pipelined(rng.random_range(8..=256))),
        ("pipe-synced", Level::Synced, topic("sync"), Manner::Pipelined(rng.random_range(8..=128))),
        ("pipe-memory", Level::Memory, topic("memory"), Manner::Pipelined(rng.random_range(8..=64))),
        ("one-written", Level::Written, topic("one"), Manner::OneByOne),
        ("one-synced", Level::Synced, topic("one"), Manner::OneByOne),
        ("keyed-written", Level::Written, topic("keyed"), Manner::Keyed),
        ("keyed-synced", Level::Synced, topic("keyed"), Manner::Keyed),
        ("poison", Level::Written, topic("poison"), Manner::Pipelined(8)),
        ("to-inbox", Level::Synced, Target::Agent("inbox-plain".into()), Manner::Pipelined(32)),
        ("to-inbox-one", Level::Written, Target::Agent("inbox-confirmed".into()), Manner::OneByOne),
        ("keyed-inbox", Level::Synced, Target::Agent("inbox-plain".into()), Manner::Keyed),
        ("to-all", Level::Synced, Target::Everybody, Manner::OneByOne),
        ("to-all-pipe", Level::Written, Target::Everybody, Manner::Pipelined(4)),
        ("dies", Level::Synced, topic("dies"), Manner::Mortal(rng.random_range(20..=80))),
    ];
    for (name, level, target, manner) in publishers {
        all.push(Box::new(Publisher::new(name, level, target, manner)));
    }
    all.push(Box::new(Inbox::new("inbox-plain", Habit::Plain)));
    all.push(Box::new(Inbox::new("inbox-confirmed", Habit::Confirmed)));
    let named = |name: &str, filters: &[&str], habit: Habit| Named::new(Plan::new(name, filters, habit));
    all.push(Box::new(named("everything", &["load.>"], Habit::Confirmed)));
    all.push(Box::new(named("wildcards", &["load.*.a", "load.one.>"], Habit::Plain)));
    all.push(Box::new(named("shared", &["load.>"], Habit::Moody).consumers(3)));
    all.push(Box::new(Mortal::new("shared", rng.random_range(5..=60))));
    all.push(Box::new(named("graves", &["load.poison.*"], Habit::Deadly)));
    all.push(Box::new(named("late-all", &["load.sync.*", "load.keyed.>"], Habit::Confirmed).in_life(2)));
    let from = StartAt::Sequence(rng.random_range(1..=200));
    all.push(Box::new(named("late-from", &["load.pipe.*", "load.memory.*"], Habit::Plain).start_at(from).in_life(2)));
    all.push(Box::new(Ranges::new("ranges", &["load.pipe.>", "load.sync.>", "load.one.*"])));
    all.push(Box::new(Responder::new("responder")));
    for name in ["asks-1", "asks-2"] {
        all.push(Box::new(Requester::new(name, "responder")));
    }
    all
}
