//! How much may be on its way across the border at once, in pieces and bytes.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

/// A bound in pieces and bytes. Cheap to clone; clones share it.
///
/// What is full is said at once ([`Self::take`] gives nothing): the guest awaits (Python, Node) or blocks (Go), by its own
/// means. One piece always passes when nothing else is on its way, however large it is.
#[derive(Clone, Debug)]
pub struct Window(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pieces_max: usize,
    bytes_max: u64,
    pieces: AtomicUsize,
    bytes: AtomicU64,
}

/// Room that was taken; given back when it is dropped.
#[derive(Debug)]
#[must_use = "the room is given back when the permit is dropped"]
pub struct Permit {
    window: Window,
    bytes: u64,
}

impl Window {
    /// A bound of so many pieces, at least 1, and bytes.
    pub fn new(pieces_max: usize, bytes_max: u64) -> Self {
        Self(Arc::new(Inner {
            pieces_max: pieces_max.max(1),
            bytes_max,
            pieces: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
        }))
    }

    /// Room for one piece of so many bytes; `None` when there is none.
    pub fn take(&self, bytes: u64) -> Option<Permit> {
        let inner = &*self.0;
        let before = inner.pieces.fetch_add(1, Ordering::AcqRel);
        let held = inner.bytes.fetch_add(bytes, Ordering::AcqRel);
        let fits = before < inner.pieces_max && held.saturating_add(bytes) <= inner.bytes_max;
        // Made first, so that it is given back also when it is refused.
        let permit = Permit { window: self.clone(), bytes };
        (fits || before == 0).then_some(permit)
    }

    /// Pieces and bytes on their way.
    pub fn used(&self) -> (usize, u64) {
        (self.0.pieces.load(Ordering::Acquire), self.0.bytes.load(Ordering::Acquire))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.window.0.pieces.fetch_sub(1, Ordering::AcqRel);
        self.window.0.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_piece_passes_whatever_its_size() {
        let window = Window::new(4, 100);
        let big = window.take(1000).unwrap();
        assert!(window.take(1).is_none());
        drop(big);
        assert_eq!(window.used(), (0, 0));
        assert!(window.take(100).is_some());
    }

    proptest! {
        #[test]
        fn what_is_taken_is_within_the_bound_and_comes_back(
            steps in proptest::collection::vec((any::<bool>(), 0_u64..60, any::<usize>()), 1..100)
        ) {
            let window = Window::new(5, 100);
            let mut held: Vec<Permit> = Vec::new();
            for (take, bytes, at) in steps {
                if take {
                    let sum: u64 = held.iter().map(|p| p.bytes).sum();
                    let fits = held.is_empty() || held.len() < 5 && sum + bytes <= 100;
                    let got = window.take(bytes);
                    prop_assert_eq!(got.is_some(), fits, "{} held, {} bytes, {} asked", held.len(), sum, bytes);
                    held.extend(got);
                } else if !held.is_empty() {
                    let _ = held.swap_remove(at % held.len());
                }
                prop_assert_eq!(window.used(), (held.len(), held.iter().map(|p| p.bytes).sum()));
            }
        }
    }
}
