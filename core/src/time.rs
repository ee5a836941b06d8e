//! The one place that asks for the wall clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use acb_types::Timestamp;

/// Now, by the system's clock.
#[expect(clippy::disallowed_methods, reason = "the client's one place for the wall clock; the ban is for servers")]
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(millis(since))
}

/// A span in whole milliseconds, as the wire has them.
pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
