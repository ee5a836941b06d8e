//! What is to happen when.
//!
//! Not a wheel of leases: with one entry per lease, a request and its ack leave an entry behind for the thirty seconds
//! that the lease would have run, and 50,000 requests a second leave a million and a half. Here a subscription has one
//! entry, for the earliest thing that can happen to it, and looks when it fires; so the queue is about as long as the
//! number of subscriptions at work, settling costs no timer at all, and [`Timers::next`] is exact.

use std::{cmp::Reverse, collections::BinaryHeap};

/// Whom a timer wakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wakes {
    /// The subscription in a slot; stale unless it is armed for just this time.
    Subscription(u32),
    /// The session of an index, whose grace ends; stale unless the generation is still its own.
    Session(u32, u32),
}

/// Timers, on the monotonic clock in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Timers(BinaryHeap<Reverse<(u64, Wakes)>>);

impl Timers {
    pub(crate) fn add(&mut self, due: u64, wakes: Wakes) {
        self.0.push(Reverse((due, wakes)));
    }

    /// The earliest, stale ones included.
    pub(crate) fn next(&self) -> Option<u64> {
        self.0.peek().map(|Reverse((due, _))| *due)
    }

    /// Takes out the earliest that is due.
    pub(crate) fn pop_due(&mut self, now: u64) -> Option<(u64, Wakes)> {
        if self.next()? > now {
            return None;
        }
        self.0.pop().map(|Reverse(entry)| entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_come_in_order_and_not_before_their_time() {
        let mut timers = Timers::default();
        for due in [30, 10, 20] {
            timers.add(due, Wakes::Subscription(due as u32));
        }
        assert_eq!(timers.next(), Some(10));
        assert_eq!(timers.pop_due(9), None);
        assert_eq!(timers.pop_due(25), Some((10, Wakes::Subscription(10))));
        assert_eq!(timers.pop_due(25), Some((20, Wakes::Subscription(20))));
        assert_eq!(timers.pop_due(25), None);
        assert_eq!(timers.next(), Some(30));
    }
}
