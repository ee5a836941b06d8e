//! Ids and randomness. No one else rolls dice, so that a seed replays a run.

use std::fmt;

use acb_types::Timestamp;
use parking_lot::Mutex;
use rand::{RngCore, SeedableRng, rngs::StdRng};
use uuid::Uuid;

/// Largest counter of one millisecond's ids: 12 bits.
const COUNTER_MAX: u16 = 0x0fff;

/// Gives ids and random bytes.
pub trait IdSource: Send + Sync + fmt::Debug + 'static {
    /// Fills with random bytes, fit for keys and tokens when the source is [`SystemIds`].
    fn fill(&self, bytes: &mut [u8]);

    /// A UUIDv7 (RFC 9562) of that time, greater than every one that this source gave before, also when the clock went
    /// back.
    fn uuid_v7(&self, wall: Timestamp) -> Uuid;

    /// A random number, for jitter and the like.
    fn random_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// Time and counter of the last id.
#[derive(Debug, Default)]
struct Last {
    ms: u64,
    counter: u16,
}

impl Last {
    /// Time and counter of the next: the counter goes on within a millisecond, and time is borrowed when it is used up.
    fn next(&mut self, wall: Timestamp) -> (u64, u16) {
        if wall.0 > self.ms {
            *self = Self { ms: wall.0, counter: 0 };
        } else if self.counter == COUNTER_MAX {
            *self = Self { ms: self.ms + 1, counter: 0 };
        } else {
            self.counter += 1;
        }
        (self.ms, self.counter)
    }

    fn uuid(&mut self, wall: Timestamp, random: [u8; 8]) -> Uuid {
        let (ms, counter) = self.next(wall);
        let mut rest = [0; 10];
        // The builder puts version and variant over the top bits; what stands below them is kept.
        rest[..2].copy_from_slice(&counter.to_be_bytes());
        rest[2..].copy_from_slice(&random);
        uuid::Builder::from_unix_timestamp_millis(ms, &rest).into_uuid()
    }
}

/// The operating system's randomness, by way of a generator that is fit for keys.
#[derive(Debug, Default)]
pub struct SystemIds {
    last: Mutex<Last>,
}

impl SystemIds {
    /// A source.
    pub fn new() -> Self {
        Self::default()
    }
}

impl IdSource for SystemIds {
    fn fill(&self, bytes: &mut [u8]) {
        rand::rng().fill_bytes(bytes);
    }

    fn uuid_v7(&self, wall: Timestamp) -> Uuid {
        let mut random = [0; 8];
        self.fill(&mut random);
        self.last.lock().uuid(wall, random)
    }
}

/// The same ids and bytes for the same seed. Never for keys.
#[derive(Debug)]
pub struct SeededIds {
    state: Mutex<(StdRng, Last)>,
}

impl SeededIds {
    /// A source that a seed decides.
    pub fn new(seed: u64) -> Self {
        Self { state: Mutex::new((StdRng::seed_from_u64(seed), Last::default())) }
    }
}

impl IdSource for SeededIds {
    fn fill(&self, bytes: &mut [u8]) {
        self.state.lock().0.fill_bytes(bytes);
    }

    fn uuid_v7(&self, wall: Timestamp) -> Uuid {
        let (dice, last) = &mut *self.state.lock();
        let mut random = [0; 8];
        dice.fill_bytes(&mut random);
        last.uuid(wall, random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_rise_within_a_millisecond_and_when_the_clock_goes_back() {
        let ids = SystemIds::new();
        let mut last = ids.uuid_v7(Timestamp(5000));
        for i in 0..10_000 {
            let next = ids.uuid_v7(Timestamp(if i < 9_000 { 5000 } else { 10 }));
            assert!(next > last, "id {i}: {next} after {last}");
            assert_eq!(next.get_version_num(), 7);
            last = next;
        }
    }

    #[test]
    fn an_id_names_its_time() {
        let id = SystemIds::new().uuid_v7(Timestamp(1_767_225_600_123));
        let (seconds, nanos) = id.get_timestamp().unwrap().to_unix();
        assert_eq!((seconds, nanos), (1_767_225_600, 123_000_000));
    }

    #[test]
    fn a_seed_gives_the_same_ids_and_another_seed_others() {
        let draw = |seed| {
            let ids = SeededIds::new(seed);
            (ids.uuid_v7(Timestamp(1)), ids.random_u64(), ids.uuid_v7(Timestamp(1)))
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }
}
