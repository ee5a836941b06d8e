//! Points in time as they are stored and sent. Nobody here asks for the time: that is the `Clock` port's.

use std::{fmt, time::Duration};

/// Milliseconds since 1970-01-01T00:00:00Z. 0 stands for "not set" on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Not set.
    pub const NONE: Self = Self(0);

    /// This point plus a span; the end of time when it would overflow.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }

    /// The span from an earlier point to this one; zero when that point is later, as after a clock step back.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Whether it is set.
    pub fn is_set(self) -> bool {
        self.0 != 0
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match i64::try_from(self.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()) {
            Some(t) => write!(f, "{t:.3}"),
            None => write!(f, "{}ms", self.0),
        }
    }
}

/// The time as a pure state machine is told it: a clock that never goes back for leases and timers, and the wall clock
/// for what is stored and for people. A step of the wall clock moves no lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds on a clock that never goes back, from an origin of the process's own.
    pub mono_ms: u64,
    /// The wall clock.
    pub wall: Timestamp,
}

impl Now {
    /// The point on the monotonic clock after a span.
    pub fn mono_after(self, span: Duration) -> u64 {
        self.mono_ms.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
    }
}
