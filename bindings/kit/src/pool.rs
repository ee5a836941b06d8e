//! Buffers that are used again. Fresh megabytes are dear (page faults: 20 µs becomes 1 ms), copies are not; so whatever
//! crosses in chunks crosses in these.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;

/// Sizes of buffers, in bytes. The third holds a chunk of 1 MiB with its head, the last the largest chunk with its.
pub const SIZES: [usize; 4] = [16 << 10, 256 << 10, (1 << 20) + (64 << 10), (8 << 20) + (64 << 10)];
/// Bytes of free buffers that are kept in all; more are given back to the system.
const KEPT_BYTES_MAX: usize = 32 << 20;

#[derive(Debug, Default)]
struct Inner {
    free: [Mutex<Vec<Box<[u8]>>>; SIZES.len()],
    kept_bytes: AtomicUsize,
    lent: AtomicUsize,
    made: AtomicU64,
}

/// A pool of buffers. Cheap to clone; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Pool(Arc<Inner>);

/// A buffer of a [`Pool`], back in it when it is dropped; so is the one that [`Self::freeze`] makes of it, with its last
/// clone.
pub struct Buffer {
    memory: Box<[u8]>,
    len: usize,
    /// Place in [`SIZES`]; `None` for one that is larger than all of them, which is not kept.
    class: Option<usize>,
    pool: Pool,
}

impl Pool {
    /// An empty pool.
    pub fn new() -> Self {
        Self::default()
    }

    /// A buffer of exactly so many bytes. What is in it is whatever was in it before.
    pub fn acquire(&self, len: usize) -> Buffer {
        self.0.lent.fetch_add(1, Ordering::Relaxed);
        let Some(class) = SIZES.iter().position(|size| *size >= len) else {
            return Buffer { memory: vec![0; len].into(), len, class: None, pool: self.clone() };
        };
        let kept = self.0.free[class].lock().pop();
        let memory = if let Some(memory) = kept {
            self.0.kept_bytes.fetch_sub(memory.len(), Ordering::AcqRel);
            memory
        } else {
            self.0.made.fetch_add(1, Ordering::Relaxed);
            vec![0; SIZES[class]].into()
        };
        Buffer { memory, len, class: Some(class), pool: self.clone() }
    }

    /// Buffers that are lent now.
    pub fn lent(&self) -> usize {
        self.0.lent.load(Ordering::Relaxed)
    }

    /// Buffers that were made because none was free, and bytes of free ones that are kept.
    pub fn counts(&self) -> (u64, usize) {
        (self.0.made.load(Ordering::Relaxed), self.0.kept_bytes.load(Ordering::Acquire))
    }

    fn take_back(&self, memory: Box<[u8]>, class: Option<usize>) {
        self.0.lent.fetch_sub(1, Ordering::Relaxed);
        let Some(class) = class else { return };
        let size = memory.len();
        if self.0.kept_bytes.fetch_add(size, Ordering::AcqRel) + size > KEPT_BYTES_MAX {
            self.0.kept_bytes.fetch_sub(size, Ordering::AcqRel);
            return;
        }
        self.0.free[class].lock().push(memory);
    }
}

impl Buffer {
    /// Keeps the first `len` bytes, at most what it has.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// As bytes that can be shared; the memory goes back when the last of them is dropped.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.len]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.take_back(std::mem::take(&mut self.memory), self.class);
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_chunk_and_its_head_fit_one_class_and_come_from_kept_memory() {
        let pool = Pool::new();
        let chunk = pool.acquire((1 << 20) + 64);
        let at = chunk.as_ptr();
        let shared = chunk.freeze();
        let clone = shared.clone();
        drop(shared);
        assert_eq!(pool.lent(), 1, "a clone holds it");
        drop(clone);
        assert_eq!((pool.lent(), pool.counts()), (0, (1, SIZES[2])));
        assert_eq!(pool.acquire(1 << 20).as_ptr(), at, "the same memory again");
    }

    proptest! {
        #[test]
        fn lent_buffers_do_not_overlap_and_what_is_kept_is_bounded(
            steps in proptest::collection::vec((any::<bool>(), 1_usize..(9 << 20), any::<usize>()), 1..60)
        ) {
            let pool = Pool::new();
            let mut held: Vec<(Buffer, u8)> = Vec::new();
            for (number, (acquire, len, at)) in steps.into_iter().enumerate() {
                if acquire && held.len() < 8 {
                    let mut buffer = pool.acquire(len);
                    prop_assert_eq!(buffer.len(), len);
                    let (first, last) = (0, len - 1);
                    buffer[first] = number as u8;
                    buffer[last] = number as u8;
                    held.push((buffer, number as u8));
                } else if !held.is_empty() {
                    held.swap_remove(at % held.len());
                }
                for (buffer, mark) in &held {
                    prop_assert_eq!((buffer[0], buffer[buffer.len() - 1]), (*mark, *mark));
                }
                prop_assert_eq!(pool.lent(), held.len());
                prop_assert!(pool.counts().1 <= KEPT_BYTES_MAX);
            }
        }
    }
}
