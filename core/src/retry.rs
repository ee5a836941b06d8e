//! When to try again: policy × error → decision. Pure: no clock, no sleeping, no network.
//!
//! `backoff` is named by the owner and no longer maintained, so it lives behind this file alone, as the policy type. It
//! gets a clock that stands still: deadlines are the caller's affair.

use std::time::{Duration, Instant};

use backoff::{Clock, backoff::Backoff as _, exponential::ExponentialBackoff};

use crate::error::{Error, ErrorCode, ErrorKind, Retry};

/// First wait of the default policy.
pub const INITIAL_DEFAULT: Duration = Duration::from_millis(50);
/// Longest wait of the default policy.
pub const MAX_DEFAULT: Duration = Duration::from_secs(5);
/// Growth of the default policy.
pub const MULTIPLIER_DEFAULT: f64 = 2.0;
/// Share of a wait that is drawn at random, up and down.
pub const JITTER_DEFAULT: f64 = 0.5;

/// How waits grow between attempts. Each wait is drawn between half and one and a half of its base by default, so that
/// many clients do not come back at once.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct RetryPolicy {
    initial: Duration,
    max: Duration,
    multiplier: f64,
    jitter: f64,
    attempts_max: Option<u32>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            initial: INITIAL_DEFAULT,
            max: MAX_DEFAULT,
            multiplier: MULTIPLIER_DEFAULT,
            jitter: JITTER_DEFAULT,
            attempts_max: None,
        }
    }
}

impl RetryPolicy {
    /// First wait; 50 ms by default, at least 1 ms.
    pub fn initial(mut self, wait: Duration) -> Self {
        self.initial = wait.max(Duration::from_millis(1));
        self
    }

    /// Longest wait; 5 s by default.
    pub fn max(mut self, wait: Duration) -> Self {
        self.max = wait.max(Duration::from_millis(1));
        self
    }

    /// Growth from one wait to the next; 2 by default, at least 1.
    pub fn multiplier(mut self, multiplier: f64) -> Self {
        self.multiplier = if multiplier.is_finite() { multiplier.max(1.0) } else { MULTIPLIER_DEFAULT };
        self
    }

    /// Share of a wait that is drawn at random, up and down; 0 to 1, 0.5 by default.
    pub fn jitter(mut self, share: f64) -> Self {
        self.jitter = if share.is_finite() { share.clamp(0.0, 1.0) } else { JITTER_DEFAULT };
        self
    }

    /// Gives up after so many attempts, the first included. Not set by default: the call's deadline ends it.
    pub fn attempts_max(mut self, attempts: u32) -> Self {
        self.attempts_max = Some(attempts.max(1));
        self
    }

    /// Tries once.
    pub fn never() -> Self {
        Self::default().attempts_max(1)
    }

    pub(crate) fn schedule(&self) -> Schedule {
        let still = Still(Instant::now());
        let initial = self.initial.min(self.max);
        Schedule {
            waits: ExponentialBackoff {
                current_interval: initial,
                initial_interval: initial,
                randomization_factor: self.jitter,
                multiplier: self.multiplier,
                max_interval: self.max,
                start_time: still.0,
                max_elapsed_time: None,
                clock: still,
            },
            attempts: 0,
            attempts_max: self.attempts_max,
        }
    }
}

/// A clock that stands still.
#[derive(Clone, Debug)]
struct Still(Instant);

impl Clock for Still {
    fn now(&self) -> Instant {
        self.0
    }
}

/// Whether a call may be made again when nobody knows what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Safety {
    /// Doing it twice is doing it once.
    Idempotent,
    /// Only when it was certainly not done.
    Once,
}

/// What to do after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Wait so long, then again.
    Again(Duration),
    /// Give the error to the caller.
    Stop(Retry),
}

/// One call's or one connection's attempts.
#[derive(Debug)]
pub(crate) struct Schedule {
    waits: ExponentialBackoff<Still>,
    attempts: u32,
    attempts_max: Option<u32>,
}

impl Schedule {
    /// How many attempts failed since the last success.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// An attempt succeeded: the next failure starts anew.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
        self.waits.reset();
    }

    /// The next wait, whatever the error; `None` when the attempts are used up.
    pub(crate) fn next_wait(&mut self) -> Option<Duration> {
        self.attempts += 1;
        if self.attempts_max.is_some_and(|max| self.attempts >= max) {
            return None;
        }
        self.waits.next_backoff()
    }

    /// Decides after a failed attempt. `left` is what remains until the deadline: a wait that does not fit stops.
    pub(crate) fn decide(&mut self, error: &Error, safety: Safety, left: Option<Duration>) -> Decision {
        let safe = match safety {
            Safety::Idempotent => error.is_retryable(),
            Safety::Once => error.is_retryable() && certainly_not_done(error),
        };
        if !safe {
            return Decision::Stop(error.retry());
        }
        let Some(own) = self.next_wait() else {
            return Decision::Stop(Retry::Exhausted { attempts: self.attempts });
        };
        // The server's hint is the least; the client's own growth comes on top when it is longer.
        let wait = own.max(error.retry_after().unwrap_or_default());
        if left.is_some_and(|left| wait >= left) { Decision::Stop(error.retry()) } else { Decision::Again(wait) }
    }
}

/// Errors that are given before anything was done.
fn certainly_not_done(error: &Error) -> bool {
    matches!(
        error.code(),
        ErrorCode::SlowDown
            | ErrorCode::RateLimited
            | ErrorCode::TooManyConnections
            | ErrorCode::TooManyStreams
            | ErrorCode::GoingAway
            | ErrorCode::StorageFull
            | ErrorCode::StorageReadOnly
    ) || error.kind() == ErrorKind::Unauthenticated
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: ErrorCode) -> Error {
        Error::new(code, "test", "m")
    }

    #[test]
    fn waits_grow_within_their_jitter_up_to_the_maximum() {
        let policy = RetryPolicy::default().initial(Duration::from_millis(100)).max(Duration::from_millis(400));
        let mut schedule = policy.schedule();
        for base in [100u64, 200, 400, 400, 400] {
            let wait = schedule.next_wait().unwrap();
            let (least, most) = (base / 2, base + base / 2 + 1);
            assert!((least..=most).contains(&(wait.as_millis() as u64)), "{wait:?} around {base}");
        }
        schedule.reset();
        assert!(schedule.next_wait().unwrap() <= Duration::from_millis(151));
    }

    #[test]
    fn jitter_spreads_waits() {
        let waits: std::collections::HashSet<_> =
            (0..50).map(|_| RetryPolicy::default().schedule().next_wait().unwrap()).collect();
        assert!(waits.len() > 10, "only {} different waits", waits.len());
    }

    #[test]
    fn only_safe_repeats_are_made() {
        let mut s = RetryPolicy::default().schedule();
        let lost = error(ErrorCode::ConnectionLost);
        assert!(matches!(s.decide(&lost, Safety::Idempotent, None), Decision::Again(_)));
        assert_eq!(s.decide(&lost, Safety::Once, None), Decision::Stop(lost.retry()));
        let slow = error(ErrorCode::SlowDown);
        assert!(matches!(s.decide(&slow, Safety::Once, None), Decision::Again(w) if w >= Duration::from_millis(100)));
        for code in [ErrorCode::InvalidTopic, ErrorCode::PayloadTooLarge, ErrorCode::PermissionDenied] {
            assert_eq!(s.decide(&error(code), Safety::Idempotent, None), Decision::Stop(Retry::Never));
        }
    }

    #[test]
    fn a_wait_past_the_deadline_stops() {
        let mut s = RetryPolicy::default().schedule();
        let e = error(ErrorCode::StorageFull);
        assert_eq!(s.decide(&e, Safety::Idempotent, Some(Duration::from_millis(900))), Decision::Stop(e.retry()));
        assert!(matches!(s.decide(&e, Safety::Idempotent, Some(Duration::from_mins(1))), Decision::Again(_)));
    }

    #[test]
    fn bounded_attempts_end_as_exhausted() {
        let mut s = RetryPolicy::default().attempts_max(3).schedule();
        let e = error(ErrorCode::Unavailable);
        assert!(matches!(s.decide(&e, Safety::Idempotent, None), Decision::Again(_)));
        assert!(matches!(s.decide(&e, Safety::Idempotent, None), Decision::Again(_)));
        assert_eq!(s.decide(&e, Safety::Idempotent, None), Decision::Stop(Retry::Exhausted { attempts: 3 }));
        assert_eq!(s.attempts(), 3);
    }
}
