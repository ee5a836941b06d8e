//! A deadline of one's own for the calls of a future, in place of the client's.

use std::{future::Future, time::Duration};

tokio::task_local! {
    static TIMEOUT: Duration;
}

/// Gives the unary calls that `work` makes this long each, in place of the client's request timeout: shorter or longer.
/// The deadline travels with them. Confirmed acks take it too; publishes and requests have timeouts of their own.
///
/// ```no_run
/// # async fn example(client: acb_sdk::Client) -> acb_sdk::Result<()> {
/// use std::time::Duration;
///
/// let peer = acb_sdk::within(Duration::from_millis(200), client.agents().get("worker-1")).await?;
/// # drop(peer); Ok(())
/// # }
/// ```
///
/// # Cancel safety
/// That of `work`.
pub async fn within<F: Future>(timeout: Duration, work: F) -> F::Output {
    TIMEOUT.scope(timeout, work).await
}

/// What a call has: what [`within`] says, or the client's own.
pub(crate) fn timeout_or(own: Duration) -> Duration {
    TIMEOUT.try_with(|t| *t).unwrap_or(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_nearest_timeout_holds_and_ends_with_its_future() {
        let (own, short, long) = (Duration::from_secs(10), Duration::from_secs(1), Duration::from_mins(1));
        assert_eq!(timeout_or(own), own);
        let inside = within(long, async { (timeout_or(own), within(short, async { timeout_or(own) }).await) }).await;
        assert_eq!(inside, (long, short));
        assert_eq!(timeout_or(own), own);
    }
}
