//! Rows of subscriptions.

use std::time::Duration;

use acb_types::{
    AgentId, ClassId, SubscriptionId, SubscriptionName, Timestamp, Topic, TopicFilter,
    batch::{DeadLetterPolicy, StartAt, SubscriptionDef},
    limits,
};

/// A subscription's definition, defaults filled in. Limits were checked at the edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionSpec {
    /// Its name.
    pub name: SubscriptionName,
    /// Log class that it reads.
    pub class: ClassId,
    /// What it hears, without its redrive topic.
    pub filters: Vec<TopicFilter>,
    /// How long a consumer has for one message.
    pub ack_wait: Duration,
    /// Waits before redeliveries; the last repeats. Not empty.
    pub retry_schedule: Vec<Duration>,
    /// Attempts before a message is dead; at least 1.
    pub max_attempts: u32,
    /// What becomes of the dead.
    pub dead_letters: DeadLetterPolicy,
    /// Messages leased or waiting for a retry at once.
    pub max_leased: u32,
}

impl SubscriptionSpec {
    /// A definition with every default.
    pub fn new(name: SubscriptionName, class: ClassId, filters: Vec<TopicFilter>) -> Self {
        Self {
            name,
            class,
            filters,
            ack_wait: limits::LEASE,
            retry_schedule: limits::RETRY_SCHEDULE.to_vec(),
            max_attempts: limits::MAX_ATTEMPTS,
            dead_letters: DeadLetterPolicy::default(),
            max_leased: limits::MAX_LEASED,
        }
    }

    /// What every agent has from its registration on: its inbox, which hears broadcasts too, and replies to its requests.
    pub fn implicit(agent: &AgentId) -> [Self; 2] {
        let inbox = vec![Topic::inbox(agent).into(), Topic::all().into()];
        let reply = vec![Topic::reply(agent).into()];
        [
            Self::new(SubscriptionName::inbox(agent), ClassId::INBOX, inbox),
            Self::new(SubscriptionName::reply(agent), ClassId::INBOX, reply),
        ]
    }
}

/// Asks for a subscription.
#[derive(Clone, Debug)]
pub struct NewSubscription {
    /// Its definition.
    pub spec: SubscriptionSpec,
    /// Where it begins; looked at only when it is made.
    pub start: StartAt,
    /// Who makes it.
    pub created_by: AgentId,
    /// The time.
    pub now: Timestamp,
}

/// A subscription as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionRow {
    /// Its number in the tenant.
    pub id: SubscriptionId,
    /// Its definition.
    pub spec: SubscriptionSpec,
    /// Where it began, for an owner that finds no delivery state of it in the log.
    pub start: StartAt,
    /// Who made it; of an implicit one, whose it is.
    pub created_by: AgentId,
    /// When it was made.
    pub created_at: Timestamp,
}

impl SubscriptionRow {
    /// The rules as the engine needs them, redrive topic included.
    pub fn def(&self) -> SubscriptionDef {
        let redrive = TopicFilter::from(Topic::redrive(&self.spec.name));
        SubscriptionDef {
            id: self.id,
            name: self.spec.name.clone(),
            filters: self.spec.filters.iter().cloned().chain([redrive]).collect(),
            ack_wait: self.spec.ack_wait,
            retry_schedule: self.spec.retry_schedule.as_slice().into(),
            max_attempts: self.spec.max_attempts,
            dead_letters: self.spec.dead_letters,
            max_leased: self.spec.max_leased,
            ephemeral: false,
        }
    }
}

/// A row that was made, or was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created<T> {
    /// The row as it is now.
    pub row: T,
    /// Whether it was there before.
    pub existed: bool,
}

/// Which subscriptions to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriptionSet {
    /// Those that users made.
    Chosen,
    /// Those and the implicit ones.
    All,
}
