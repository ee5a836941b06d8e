//! Waiting for a level, never for an edge and never for a span of time.

use std::{
    fmt::Display,
    future::Future,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Longest that a test waits for anything that should be there in milliseconds: long enough for a machine that does
/// other things as well, short enough to tell a hang from a slow answer.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// What [`patience`] says, in milliseconds.
static PATIENCE_MS: AtomicU64 = AtomicU64::new(PATIENCE.as_millis() as u64);

/// Longest that this process waits for anything that should be there: [`PATIENCE`], unless [`set_patience`] said less.
pub fn patience() -> Duration {
    Duration::from_millis(PATIENCE_MS.load(Ordering::Relaxed))
}

/// Sets [`patience`] for the whole process. For one whose every test is meant to fail, so that failing takes no quarter of
/// a minute each.
pub fn set_patience(span: Duration) {
    PATIENCE_MS.store(span.as_millis() as u64, Ordering::Relaxed);
}

/// Wait between two looks of those who look by themselves.
pub const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// First and longest wait between two looks.
const LOOKS: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));

/// What a look found.
#[derive(Debug)]
pub enum Level<T> {
    /// It is reached.
    Reached(T),
    /// Not yet; what was seen instead.
    NotYet(String),
}

impl<T> Level<T> {
    /// Not yet, with what was seen.
    pub fn not_yet(seen: impl Display) -> Self {
        Self::NotYet(seen.to_string())
    }

    /// Reached when a condition holds.
    pub fn when(holds: bool, value: T, seen: impl Display) -> Self {
        if holds { Self::Reached(value) } else { Self::not_yet(seen) }
    }
}

/// Looks again and again until a level is reached.
///
/// # Errors
/// When it was not reached in time: names what was waited for and the last thing that was seen.
pub async fn wait_until<T, F, Fut>(what: &str, within: Duration, mut look: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Level<T>>,
{
    let started = Instant::now();
    let mut pause = LOOKS.0;
    loop {
        let seen = match look().await {
            Level::Reached(value) => return Ok(value),
            Level::NotYet(seen) => seen,
        };
        if started.elapsed() >= within {
            bail!("waited {within:?} for {what}; last seen: {seen}");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LOOKS.1);
    }
}

/// Gives a future so long.
///
/// # Errors
/// When it did not end in time: names what it was.
pub async fn within<T>(what: &str, span: Duration, future: impl Future<Output = T>) -> Result<T> {
    match tokio::time::timeout(span, future).await {
        Ok(value) => Ok(value),
        Err(_) => bail!("waited {span:?} for {what}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_level_is_waited_for_until_it_is_reached() {
        let mut looks = 0;
        let seen = wait_until("three looks", Duration::from_secs(1), || {
            looks += 1;
            let now = looks;
            async move { Level::when(now >= 3, now, now) }
        });
        assert_eq!(seen.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn what_is_never_reached_says_what_was_seen_last() {
        let look = || async { Level::<()>::not_yet("generation 3") };
        let error = wait_until("generation 4", Duration::from_millis(20), look).await.unwrap_err();
        assert_eq!(error.to_string(), "waited 20ms for generation 4; last seen: generation 3");
    }
}
