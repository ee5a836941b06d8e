//! A histogram of plain atomics: an observation is three relaxed additions and takes no lock, so the hot path can
//! afford one a run. Buckets are the same for all times of the bus, 50 µs to 60 s, roughly two a decade and more where
//! budgets lie.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, TypedMetric, exemplar::Exemplar},
};

/// Upper bounds of the buckets, in microseconds; what is above the last goes to `+Inf`.
const BOUNDS_US: [u64; 18] = [
    50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000,
    5_000_000, 20_000_000, 60_000_000,
];

#[derive(Debug, Default)]
struct Inner {
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

/// Times, counted by how long they were. Clones share their counts.
#[derive(Clone, Default)]
pub struct TimeHistogram(Arc<Inner>);

impl TimeHistogram {
    /// Counts one time.
    pub fn observe(&self, time: Duration) {
        self.observe_many(time, 1);
    }

    /// Counts one time for several things at once, such as the messages of a run.
    pub fn observe_many(&self, time: Duration, count: u64) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < us);
        self.0.buckets[bucket].fetch_add(count, Relaxed);
        self.0.sum_us.fetch_add(us.saturating_mul(count), Relaxed);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.0.buckets.iter().map(|b| b.load(Relaxed)).sum()
    }
}

impl fmt::Debug for TimeHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeHistogram").field("count", &self.count()).finish_non_exhaustive()
    }
}

impl TypedMetric for TimeHistogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for TimeHistogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let mut buckets = [(f64::INFINITY, 0); BOUNDS_US.len() + 1];
        for (at, bucket) in buckets.iter_mut().enumerate() {
            if let Some(us) = BOUNDS_US.get(at) {
                bucket.0 = *us as f64 / 1e6;
            }
            bucket.1 = self.0.buckets[at].load(Relaxed);
        }
        // The count is summed from what was read, so that it never differs from the buckets beside it.
        let count = buckets.iter().map(|b| b.1).sum();
        let none: Option<&HashMap<usize, Exemplar<NoLabelSet, f64>>> = None;
        encoder.encode_histogram(self.0.sum_us.load(Relaxed) as f64 / 1e6, count, &buckets, none)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_falls_into_the_first_bucket_that_holds_it() {
        let h = TimeHistogram::default();
        h.observe(Duration::from_micros(50));
        h.observe(Duration::from_micros(51));
        h.observe_many(Duration::from_secs(90), 3);
        let counts: Vec<u64> = h.0.buckets.iter().map(|b| b.load(Relaxed)).collect();
        assert_eq!((counts[0], counts[1], counts[BOUNDS_US.len()]), (1, 1, 3));
        assert_eq!(h.count(), 5);
    }
}
