//! What happens to the connection, for those who want to know. Nobody has to listen.

use std::time::Duration;

use tokio::sync::broadcast;

use crate::{error::Error, subscribe::Gap};

/// Something that happened to a client. The list grows.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The first connection stands.
    Connected,
    /// The connection is lost; the client tries to make another. Calls wait for it.
    Suspended {
        /// What broke it.
        error: Error,
    },
    /// A connection stands again; what was unacknowledged is sent again.
    Resumed {
        /// How many connections there have been.
        generation: u64,
    },
    /// The server drains; the client moves by itself.
    GoingAway,
    /// The server asks publishers to hold back; the client does.
    SlowDown {
        /// For how long.
        after: Duration,
    },
    /// A subscription will never get some messages.
    Gap {
        /// The subscription; empty for an ephemeral one without a name.
        subscription: String,
        /// Which messages.
        gap: Gap,
    },
    /// A settlement was refused, most often because the lease had ended.
    SettlementRefused {
        /// The subscription; empty for an ephemeral one without a name.
        subscription: String,
        /// First seq.
        first_seq: u64,
        /// How many.
        count: u32,
        /// Why.
        error: Error,
    },
    /// A newer registration of the agent took over; this client speaks for it no more.
    Fenced {
        /// The agent.
        agent_id: String,
    },
    /// The client is closed.
    Closed,
}

/// A client's events from now on. A listener that is more than 256 events behind loses the oldest.
#[derive(Debug)]
pub struct Events(broadcast::Receiver<Event>);

impl Events {
    pub(super) fn new(receiver: broadcast::Receiver<Event>) -> Self {
        Self(receiver)
    }

    /// The next event; `None` when the client is gone.
    ///
    /// # Cancel safety
    /// No event is lost.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            match self.0.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}
