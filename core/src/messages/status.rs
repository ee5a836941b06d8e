//! Where a message stands.

use acb_types::{MessageId, Timestamp};

/// Where a message stands for one subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeliveryState {
    /// Stored, not with anybody now.
    Waiting,
    /// With a consumer, whose lease runs.
    Leased,
    /// Acknowledged.
    Acked,
    /// Given up; its dead letter is kept.
    Dead,
    /// Its time passed before it was acknowledged.
    Expired,
    /// Something that this version does not know.
    Unknown,
}

impl DeliveryState {
    /// Its name in text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Leased => "leased",
            Self::Acked => "acked",
            Self::Dead => "dead",
            Self::Expired => "expired",
            Self::Unknown => "unknown",
        }
    }
}

/// Where a message stands for all.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MessageStatus {
    /// The message.
    pub id: MessageId,
    /// Its topic.
    pub topic: String,
    /// Agent that sent it.
    pub from: String,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// One entry for each subscription that hears its topic, by name.
    pub subscriptions: Vec<SubscriptionStatus>,
}

/// Where a message stands for one subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionStatus {
    /// The subscription.
    pub subscription: String,
    /// Where it stands.
    pub state: DeliveryState,
    /// Failed or running attempts so far.
    pub attempts: u32,
    /// When it is tried again or its lease ends; not set when neither applies.
    pub due_at: Timestamp,
    /// The dead letter's id, when dead.
    pub dead_letter_id: Option<MessageId>,
}
