//! Writes dead letters: the way from "given up" to "kept".
//!
//! A message that dies stays with its subscription, undelivered, until its dead letter is on disk; only then does the
//! engine journal it as dead. A crash between the two makes the engine give it up again, and the dead letter's key
//! makes the second writing a repeat of the first: neither lost nor doubled.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::Duration,
};

use acb_engine::Death;
use acb_types::batch::DeadLetterPolicy;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Delivery, partition::Partition};
use crate::error::AppError;

/// Wait before a dead letter that could not be written is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Messages on their way to the dead letters. Bounded by what subscriptions may have outstanding: a dying message
/// counts there until it is dead.
#[derive(Debug, Default)]
pub(crate) struct Deaths {
    queue: Mutex<VecDeque<(Arc<Partition>, Death)>>,
    more: Notify,
}

impl Deaths {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(super) fn push(&self, partition: Arc<Partition>, death: Death) {
        self.queue.lock().push_back((partition, death));
        self.more.notify_one();
    }

    /// Forgets what is queued: after a restart it dies again.
    pub(super) fn forget(&self) {
        self.queue.lock().clear();
    }

    /// Starts the task that works the queue off. It ends with the delivery that it serves.
    pub(super) fn start(self: &Arc<Self>, delivery: Weak<Delivery>) {
        let me = Arc::clone(self);
        let task = async move {
            loop {
                let next = me.queue.lock().pop_front();
                let Some((partition, death)) = next else {
                    // Cancel safe: what is queued stays queued.
                    tokio::select! {
                        () = me.more.notified() => {}
                        // Looks up now and then whether there is still somebody to serve.
                        () = tokio::time::sleep(RETRY_AFTER) => {}
                    }
                    if delivery.strong_count() == 0 {
                        return;
                    }
                    continue;
                };
                let Some(delivery) = delivery.upgrade() else { return };
                if let Err(error) = bury(&delivery, &partition, &death).await {
                    tracing::warn!(partition = %partition.id(), seq = death.seq, report = ?error.report(),
                        "dead letter not written, will retry: {error}");
                    me.queue.lock().push_back((partition, death));
                    drop(delivery);
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        };
        #[expect(clippy::disallowed_methods, reason = "ends by itself with the delivery it serves")]
        tokio::spawn(task);
    }
}

async fn bury(delivery: &Delivery, partition: &Arc<Partition>, death: &Death) -> Result<(), AppError> {
    let letter = match death.policy {
        DeadLetterPolicy::Keep => delivery.dead_letter_write(partition, death).await?,
        DeadLetterPolicy::Drop => None,
    };
    partition.dead(death, letter);
    Ok(())
}
