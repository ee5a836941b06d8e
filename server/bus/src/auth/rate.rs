//! Token buckets: how often somebody may do something.

use std::{hash::Hash, time::Duration};

use acb_types::ErrorCode;
use ahash::AHashMap;
use parking_lot::Mutex;

use crate::error::AppError;

/// Buckets that are kept before full ones are forgotten.
const SWEEP_FROM: usize = 8192;
/// Most buckets. Beyond it a new key shares one bucket with all other new keys: memory stays bounded under a flood of
/// made-up names, and known callers are not hurt by it.
const BUCKETS_MAX: usize = 131_072;

/// What a bucket holds and how it fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many at once; at least 1.
    pub burst: u32,
    /// In which time a bucket fills from empty.
    pub per: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// When, on the monotonic clock, it will be full again, in microseconds (GCRA's "theoretical arrival time").
    full_at_us: u64,
}

/// A bucket for each key.
#[derive(Debug)]
pub struct Buckets<K> {
    rate: Rate,
    table: Mutex<Table<K>>,
}

#[derive(Debug)]
struct Table<K> {
    buckets: AHashMap<K, Bucket>,
    strangers: Bucket,
    sweep_at: usize,
}

impl<K: Hash + Eq> Buckets<K> {
    /// Buckets of one rate.
    pub fn new(rate: Rate) -> Self {
        let table = Table { buckets: AHashMap::new(), strangers: Bucket { full_at_us: 0 }, sweep_at: SWEEP_FROM };
        Self { rate, table: Mutex::new(table) }
    }

    /// Takes one.
    ///
    /// # Errors
    /// `rate_limited`, with the time until there is one again.
    pub fn take(&self, key: K, now_mono_ms: u64) -> Result<(), AppError> {
        self.with(key, now_mono_ms, true)
    }

    /// Whether there is one, without taking it.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn check(&self, key: K, now_mono_ms: u64) -> Result<(), AppError> {
        self.with(key, now_mono_ms, false)
    }

    fn with(&self, key: K, now_mono_ms: u64, take: bool) -> Result<(), AppError> {
        let now = now_mono_ms.saturating_mul(1000);
        let window = u64::try_from(self.rate.per.as_micros()).unwrap_or(u64::MAX);
        let step = (window / u64::from(self.rate.burst.max(1))).max(1);
        let mut table = self.table.lock();
        let bucket = table.bucket(key, now, take);
        let next = bucket.as_ref().map_or(0, |b| b.full_at_us).max(now) + step;
        if next > now + window {
            let wait = Duration::from_micros(next - now - window);
            let per_minute = u64::from(self.rate.burst) * 60_000_000 / window.max(1);
            return Err(AppError::new(ErrorCode::RateLimited, format!("more than {per_minute} a minute"))
                .retry_after(wait.max(Duration::from_millis(1))));
        }
        if take && let Some(bucket) = bucket {
            bucket.full_at_us = next;
        }
        Ok(())
    }
}

impl<K: Hash + Eq> Table<K> {
    fn bucket(&mut self, key: K, now: u64, make: bool) -> Option<&mut Bucket> {
        if self.buckets.len() >= self.sweep_at {
            // A full bucket is as good as none.
            self.buckets.retain(|_, b| b.full_at_us > now);
            self.sweep_at = (self.buckets.len() * 2).max(SWEEP_FROM);
        }
        if !make {
            return self.buckets.get_mut(&key);
        }
        if self.buckets.len() >= BUCKETS_MAX && !self.buckets.contains_key(&key) {
            return Some(&mut self.strangers);
        }
        Some(self.buckets.entry(key).or_insert(Bucket { full_at_us: 0 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 3, per: Duration::from_secs(3) };

    #[test]
    fn a_burst_passes_and_then_one_a_second() {
        let buckets = Buckets::new(RATE);
        for _ in 0..3 {
            buckets.take("a", 0).unwrap();
        }
        let refused = buckets.take("a", 0).unwrap_err();
        assert_eq!((refused.code(), refused.retry_hint()), (ErrorCode::RateLimited, Some(Duration::from_secs(1))));
        assert!(refused.message().contains("60 a minute"), "{}", refused.message());
        assert!(buckets.take("a", 999).is_err());
        buckets.take("a", 1000).unwrap();
        assert!(buckets.take("a", 1000).is_err());
        buckets.take("b", 0).unwrap();
    }

    #[test]
    fn looking_takes_nothing() {
        let buckets = Buckets::new(RATE);
        for _ in 0..10 {
            buckets.check("a", 0).unwrap();
        }
        for _ in 0..3 {
            buckets.take("a", 0).unwrap();
        }
        assert!(buckets.check("a", 0).is_err());
    }

    #[test]
    fn made_up_names_cost_bounded_memory() {
        let buckets = Buckets::new(RATE);
        for i in 0..BUCKETS_MAX + 5000 {
            let _ = buckets.take(i, 0);
        }
        assert!(buckets.table.lock().buckets.len() <= BUCKETS_MAX);
        assert!(buckets.take(usize::MAX, 0).is_err(), "strangers share a bucket, and it is empty");
        buckets.take(0, 0).unwrap();
    }
}
