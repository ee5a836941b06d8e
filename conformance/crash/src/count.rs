//! A count that can be waited for.

use tokio::sync::watch;

/// Counts what many tasks do.
#[derive(Debug, Default)]
pub(crate) struct Count(watch::Sender<u64>);

impl Count {
    /// So many more.
    pub(crate) fn add(&self, more: u64) {
        self.0.send_modify(|count| *count += more);
    }

    pub(crate) fn get(&self) -> u64 {
        *self.0.borrow()
    }

    /// Waits until it is so many.
    pub(crate) async fn reach(&self, count: u64) {
        // It fails when the sender is gone, which `self` is.
        let _ = self.0.subscribe().wait_for(|present| *present >= count).await;
    }
}
