//! Names of requests and streams, for the log and for the caller who reports a failure.

use std::{
    fmt,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// Names one request or one stream. Printed as 24 hex digits: 8 that are the process's own, 16 that count.
///
/// Counting costs a nanosecond where a random id costs a system call now and then; the process's part keeps ids of two
/// runs or nodes apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId {
    process: u32,
    number: u64,
}

static PROCESS: LazyLock<u32> = LazyLock::new(rand::random);
static NEXT: AtomicU64 = AtomicU64::new(1);

impl RequestId {
    /// The next one.
    #[expect(clippy::new_without_default, reason = "each one differs, which a default would not say")]
    pub fn new() -> Self {
        Self { process: *PROCESS, number: NEXT.fetch_add(1, Ordering::Relaxed) }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}{:016x}", self.process, self.number)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
