//! The time. No one else asks for it, so that tests and `--manual-clock` own it.

use std::{
    fmt,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use acb_types::{Now, Timestamp};
use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;

/// Tells the time and waits for it.
#[async_trait]
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// The time now. Its monotonic half never goes back; the wall may step.
    fn now(&self) -> Now;

    /// Waits until the monotonic clock has reached a point. Returns at once when it has.
    ///
    /// *Cancel safety*: may be dropped at any time.
    async fn sleep_until(&self, mono_ms: u64);

    /// Waits for a span.
    ///
    /// *Cancel safety*: may be dropped at any time; called anew, it waits the whole span again.
    async fn sleep(&self, span: Duration) {
        self.sleep_until(self.now().mono_after(span)).await;
    }
}

/// The machine's clocks. Sleeping needs a tokio runtime with time.
#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// A clock whose monotonic half begins at 0 now.
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that asks the machine")]
    fn now(&self) -> Now {
        let mono_ms = self.origin.elapsed().as_millis() as u64;
        // A machine whose clock stands before 1970 gets 1970.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        Now { mono_ms, wall: Timestamp(wall) }
    }

    async fn sleep_until(&self, mono_ms: u64) {
        // A point past what the machine can name is never reached.
        match self.origin.checked_add(Duration::from_millis(mono_ms)) {
            // `now` cuts to whole milliseconds and the timer may not wake early, so one wait is enough.
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => std::future::pending().await,
        }
    }
}

/// A clock that stands until it is moved. For tests, simulations and `--manual-clock`.
#[derive(Debug)]
pub struct ManualClock {
    now: Mutex<Now>,
    mono: watch::Sender<u64>,
}

impl ManualClock {
    /// A clock that stands at a wall time, its monotonic half at 0.
    pub fn new(wall: Timestamp) -> Self {
        Self { now: Mutex::new(Now { mono_ms: 0, wall }), mono: watch::Sender::new(0) }
    }

    /// Moves both halves on and wakes who waited for that. Answers with the time then.
    pub fn advance(&self, span: Duration) -> Now {
        let now = {
            let mut now = self.now.lock();
            now.mono_ms = now.mono_after(span);
            now.wall = now.wall.after(span);
            *now
        };
        self.mono.send_if_modified(|mono| {
            let moved = now.mono_ms > *mono;
            *mono = (*mono).max(now.mono_ms);
            moved
        });
        now
    }

    /// Steps the wall clock, forward or back, as a machine's may. Wakes nobody.
    pub fn set_wall(&self, wall: Timestamp) {
        self.now.lock().wall = wall;
    }

    /// How many wait now. Lets a test know that a task is asleep before it moves the time.
    pub fn sleepers(&self) -> usize {
        self.mono.receiver_count()
    }
}

impl Default for ManualClock {
    /// Stands at 2026-01-01T00:00:00Z.
    fn default() -> Self {
        Self::new(Timestamp(1_767_225_600_000))
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Now {
        *self.now.lock()
    }

    async fn sleep_until(&self, mono_ms: u64) {
        if self.now().mono_ms >= mono_ms {
            return;
        }
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.mono.subscribe().wait_for(|mono| *mono >= mono_ms).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn advancing_wakes_who_waited_for_that_and_no_one_else() {
        let clock = Arc::new(ManualClock::default());
        let start = clock.now();
        let nap = |span| {
            let clock = Arc::clone(&clock);
            tokio::spawn(async move { clock.sleep(Duration::from_secs(span)).await })
        };
        let (short, long) = (nap(1), nap(5));
        while clock.sleepers() < 2 {
            tokio::task::yield_now().await;
        }
        clock.advance(Duration::from_secs(2));
        short.await.unwrap();
        assert!(!long.is_finished(), "5 s were not over");
        let now = clock.advance(Duration::from_secs(3));
        long.await.unwrap();
        assert_eq!(now.mono_ms, 5000);
        assert_eq!(now.wall, start.wall.after(Duration::from_secs(5)));
        assert_eq!(clock.sleepers(), 0);
    }

    #[tokio::test]
    async fn a_point_that_is_over_is_not_waited_for() {
        let clock = ManualClock::default();
        clock.advance(Duration::from_secs(1));
        clock.sleep_until(1000).await;
        SystemClock::new().sleep_until(0).await;
    }

    #[test]
    fn a_wall_step_moves_no_timer() {
        let clock = ManualClock::default();
        clock.advance(Duration::from_secs(1));
        clock.set_wall(Timestamp(1));
        assert_eq!(clock.now(), Now { mono_ms: 1000, wall: Timestamp(1) });
    }

    #[tokio::test]
    async fn the_system_clock_has_reached_what_it_waited_for() {
        let clock = SystemClock::new();
        let until = clock.now().mono_ms + 3;
        clock.sleep_until(until).await;
        assert!(clock.now().mono_ms >= until);
        assert!(clock.now().wall > Timestamp(1_700_000_000_000), "{}", clock.now().wall);
    }
}
