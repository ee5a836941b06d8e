//! How far a transfer is, how fast, and how long it will take.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

/// How far a transfer is.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes that are settled: of an upload on the bus's stable storage, of a download written.
    pub done_bytes: u64,
    /// Size of the whole, where it is known.
    pub total_bytes: Option<u64>,
    /// Bytes that this process has sent or received, those that were sent again included.
    pub moved_bytes: u64,
    /// Bytes in a second, over the last few seconds; 0 at first.
    pub bytes_per_second: f64,
    /// What is left at this rate; `None` while nobody knows.
    pub time_left: Option<Duration>,
}

/// Is told of progress. Called often, on a thread that has other things to do: be quick.
pub type ProgressFn = Arc<dyn Fn(Progress) + Send + Sync>;

/// Measures a transfer.
pub(super) struct Meter {
    tell: Option<ProgressFn>,
    total: Option<u64>,
    done: u64,
    moved: u64,
    rate: f64,
    since: Instant,
    since_bytes: u64,
}

/// How much of the rate is renewed with each second.
const RENEWED: f64 = 0.4;
/// Shortest span that a rate is measured over.
const SPAN: Duration = Duration::from_millis(200);

impl Meter {
    pub(super) fn new(tell: Option<ProgressFn>, total: Option<u64>) -> Self {
        Self { tell, total, done: 0, moved: 0, rate: 0.0, since: Instant::now(), since_bytes: 0 }
    }

    /// What was there before counts as done and not as speed.
    pub(super) fn start_at(&mut self, done: u64) {
        (self.done, self.since_bytes, self.since) = (done, done, Instant::now());
        self.report();
    }

    pub(super) fn total(&mut self, total: u64) {
        self.total = Some(total);
    }

    /// Bytes went over the wire.
    pub(super) fn moved(&mut self, bytes: u64) {
        self.moved += bytes;
    }

    pub(super) fn done(&self) -> u64 {
        self.done
    }

    pub(super) fn add(&mut self, bytes: u64) {
        self.done += bytes;
        let span = self.since.elapsed();
        if span >= SPAN {
            let now = self.done.saturating_sub(self.since_bytes) as f64 / span.as_secs_f64();
            let share = if self.rate == 0.0 { 1.0 } else { 1.0 - (1.0 - RENEWED).powf(span.as_secs_f64()) };
            self.rate += (now - self.rate) * share;
            (self.since, self.since_bytes) = (Instant::now(), self.done);
        }
        self.report();
    }

    fn report(&self) {
        let Some(tell) = &self.tell else { return };
        let left = self.total.map(|total| total.saturating_sub(self.done));
        let time_left = left.filter(|_| self.rate >= 1.0).map(|left| Duration::from_secs_f64(left as f64 / self.rate));
        tell(Progress {
            done_bytes: self.done,
            total_bytes: self.total,
            moved_bytes: self.moved,
            bytes_per_second: self.rate,
            time_left,
        });
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_rate_follows_what_was_done_and_says_what_is_left() {
        let last: Arc<Mutex<Option<Progress>>> = Arc::default();
        let seen = Arc::clone(&last);
        let mut meter = Meter::new(Some(Arc::new(move |p| *seen.lock() = Some(p))), Some(10_000));
        meter.start_at(4_000);
        assert_eq!(last.lock().unwrap().time_left, None, "what was there before is no speed");
        for _ in 0..4 {
            tokio::time::advance(Duration::from_secs(1)).await;
            meter.add(1_000);
        }
        let p = last.lock().unwrap();
        assert_eq!((p.done_bytes, p.total_bytes), (8_000, Some(10_000)));
        assert!((p.bytes_per_second - 1_000.0).abs() < 1.0, "{p:?}");
        assert_eq!(p.time_left.unwrap().as_secs_f64().round() as u64, 2);
    }
}
