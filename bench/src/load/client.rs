//! What a bus's client must be able to do for the shared loops, and the head that payloads carry.
//!
//! The traits follow the usual calls of the clients: a publish gives a receipt that settles later, a delivery
//! is acknowledged one by one. Nothing here batches: batching is each client's own business.

use std::{
    future::Future,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};

/// A publisher with a connection of its own.
pub(crate) trait Publish: Send + Sync + 'static {
    /// The promise of an ack.
    type Receipt: Send + 'static;

    /// Hands a message to the client; ready when the client has taken it, not when it is acked.
    fn publish(&self, payload: Bytes) -> impl Future<Output = Result<Self::Receipt>> + Send;

    /// Waits until the server has acknowledged the message.
    fn settle(receipt: Self::Receipt) -> impl Future<Output = Result<()>> + Send;
}

/// A durable subscription on a connection of its own.
pub(crate) trait Receive: Send + 'static {
    /// A message with what is needed to acknowledge it.
    type Delivery: Send;

    /// The next message.
    fn next(&mut self) -> impl Future<Output = Result<Self::Delivery>> + Send;

    /// Its payload.
    fn payload(delivery: &Self::Delivery) -> &[u8];

    /// Acknowledges one message, explicitly.
    fn ack(&mut self, delivery: Self::Delivery) -> impl Future<Output = Result<()>> + Send;

    /// Waits until the server holds the acks of all of the first `count` messages.
    fn settled(&mut self, count: u64) -> impl Future<Output = Result<()>> + Send;
}

/// A requester with a connection of its own and one open request.
pub(crate) trait Request: Send + 'static {
    /// Sends a request and waits for the reply's payload.
    fn request(&mut self, payload: Bytes) -> impl Future<Output = Result<Bytes>> + Send;
}

/// An agent among others that it can ask, with a connection of its own.
pub(crate) trait Ask: Send + Sync + 'static {
    /// Asks the agent of this number and waits for the reply's payload.
    fn ask(&self, agent: usize, payload: Bytes) -> impl Future<Output = Result<Bytes>> + Send;
}

/// The first bytes of a checked payload: the message's number, then the moment it was published in ns after
/// the run's start (0: not sampled).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// Number in the order of publishing, from 0.
    pub(crate) index: u64,
    /// Nanoseconds, 0 or [`LAST`].
    pub(crate) stamp: u64,
}

/// Stamp of the last message of a live run.
pub(crate) const LAST: u64 = u64::MAX;

const HEAD_BYTES: usize = 16;

impl Head {
    /// Reads the head of a payload that must be `length` long.
    pub(crate) fn of(payload: &[u8], length: usize) -> Result<Self> {
        ensure!(payload.len() == length, "payload of {} bytes instead of {length}", payload.len());
        let (Some(index), Some(stamp)) = (payload.first_chunk(), payload.get(8..).and_then(<[u8]>::first_chunk)) else {
            anyhow::bail!("payload of {length} bytes has no head");
        };
        Ok(Self { index: u64::from_le_bytes(*index), stamp: u64::from_le_bytes(*stamp) })
    }
}

/// Makes payloads of one length.
#[derive(Debug, Clone)]
pub(crate) struct Payloads {
    filler: Bytes,
}

impl Payloads {
    /// Payloads of `length` bytes.
    pub(crate) fn new(length: usize) -> Self {
        let filler: Vec<u8> = (0..length).map(|index| (index * 31 % 251) as u8).collect();
        Self { filler: filler.into() }
    }

    /// Bytes of each.
    pub(crate) fn length(&self) -> usize {
        self.filler.len()
    }

    /// The same shared bytes each time: what a publisher that has its payload at hand pays.
    pub(crate) fn shared(&self) -> Bytes {
        self.filler.clone()
    }

    /// A payload of its own with a head.
    pub(crate) fn with_head(&self, head: Head) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.filler.len());
        bytes.put_u64_le(head.index);
        bytes.put_u64_le(head.stamp);
        bytes.extend_from_slice(self.filler.get(HEAD_BYTES..).unwrap_or_default());
        bytes.freeze()
    }
}

/// Deduplication keys that no other run on this server uses: 24 characters, the same on every bus.
#[derive(Debug)]
pub(crate) struct Keys {
    run: u32,
    next: AtomicU64,
}

impl Keys {
    /// Keys of this process.
    pub(crate) fn new() -> Self {
        Self { run: std::process::id(), next: AtomicU64::new(0) }
    }

    /// The next one.
    pub(crate) fn next(&self) -> String {
        format!("{:08x}{:016x}", self.run, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// Nanoseconds since `epoch`, never 0 (which says "not sampled").
pub(crate) fn stamp(epoch: Instant) -> u64 {
    u64::try_from(epoch.elapsed().as_nanos()).unwrap_or(LAST - 1).clamp(1, LAST - 1)
}

/// Time since a stamp.
pub(crate) fn since(epoch: Instant, stamp: u64) -> Duration {
    epoch.elapsed().saturating_sub(Duration::from_nanos(stamp))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_survive_and_lengths_are_checked() {
        let payloads = Payloads::new(256);
        let head = Head { index: 7, stamp: 9 };
        let bytes = payloads.with_head(head);
        assert_eq!(Head::of(&bytes, 256).unwrap(), head);
        assert_eq!(bytes[16..], payloads.shared()[16..]);
        assert!(Head::of(&bytes, 255).is_err());
        assert!(Head::of(&[0; 15], 15).is_err());
    }

    #[test]
    fn keys_do_not_repeat() {
        let keys = Keys::new();
        assert_ne!(keys.next(), keys.next());
        assert_eq!(keys.next().len(), 24);
    }

    #[test]
    fn stamps_are_never_one_of_the_reserved_values() {
        let stamp = stamp(Instant::now());
        assert!(stamp != 0 && stamp != LAST);
    }
}
