//! A clock whose monotonic half is the wall: what a program gets that measures spans with the time of day.

use std::sync::Arc;

use acb_ports::Clock;
use acb_types::{Now, Timestamp};
use async_trait::async_trait;

/// See above.
#[derive(Debug)]
pub(crate) struct WallClock {
    inner: Arc<dyn Clock>,
    origin: Timestamp,
}

impl WallClock {
    pub(crate) fn new(inner: Arc<dyn Clock>) -> Self {
        let origin = inner.now().wall;
        Self { inner, origin }
    }
}

#[async_trait]
impl Clock for WallClock {
    fn now(&self) -> Now {
        let now = self.inner.now();
        Now { mono_ms: now.wall.0.saturating_sub(self.origin.0), wall: now.wall }
    }

    async fn sleep_until(&self, mono_ms: u64) {
        self.inner.sleep_until(mono_ms).await;
    }
}
