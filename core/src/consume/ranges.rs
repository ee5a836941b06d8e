//! Seqs that wait to be sent as ranges: neighbours merge as they come, the rest when they are sent.

use smallvec::SmallVec;

/// Ranges of seqs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ranges {
    list: SmallVec<[(u64, u32); 4]>,
    /// Whether the list may hold neighbours that are not merged.
    loose: bool,
}

impl Ranges {
    /// Adds one seq.
    #[inline]
    pub(crate) fn add(&mut self, seq: u64) {
        match self.list.last_mut() {
            Some((first, count)) if *first + u64::from(*count) == seq && *count < u32::MAX => *count += 1,
            Some((first, count)) if (*first..*first + u64::from(*count)).contains(&seq) => {}
            None => self.list.push((seq, 1)),
            Some(_) => {
                self.list.push((seq, 1));
                self.loose = true;
            }
        }
    }

    /// Adds a range.
    pub(crate) fn add_range(&mut self, first: u64, count: u32) {
        self.loose |= !self.list.is_empty();
        self.list.push((first, count));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.list.clear();
        self.loose = false;
    }

    /// Takes up to so many ranges, merged.
    pub(crate) fn take(&mut self, max: usize) -> SmallVec<[(u64, u32); 4]> {
        self.tighten();
        if self.list.len() <= max {
            return std::mem::take(&mut self.list);
        }
        let rest = self.list[max..].into();
        self.list.truncate(max);
        std::mem::replace(&mut self.list, rest)
    }

    fn tighten(&mut self) {
        if !std::mem::take(&mut self.loose) {
            return;
        }
        self.list.sort_unstable();
        let mut merged: SmallVec<[(u64, u32); 4]> = SmallVec::with_capacity(self.list.len());
        for (first, count) in self.list.drain(..) {
            match merged.last_mut() {
                Some((from, n)) if first <= *from + u64::from(*n) => {
                    let end = (first + u64::from(count)).max(*from + u64::from(*n));
                    match u32::try_from(end - *from) {
                        Ok(len) => *n = len,
                        Err(_) => merged.push((first, count)),
                    }
                }
                _ => merged.push((first, count)),
            }
        }
        self.list = merged;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ranges(seqs: impl IntoIterator<Item = u64>) -> Vec<(u64, u32)> {
        let mut r = Ranges::default();
        seqs.into_iter().for_each(|s| r.add(s));
        r.take(usize::MAX).to_vec()
    }

    #[test]
    fn neighbours_merge_whatever_the_order() {
        assert_eq!(ranges([1, 2, 3]), [(1, 3)]);
        assert_eq!(ranges([3, 1, 2, 9, 2]), [(1, 3), (9, 1)]);
        assert_eq!(ranges([5, 5, 5]), [(5, 1)]);
        assert_eq!(ranges([2, 4, 6]), [(2, 1), (4, 1), (6, 1)]);
    }

    #[test]
    fn a_frame_takes_what_it_may_and_leaves_the_rest() {
        let mut r = Ranges::default();
        (0..10).for_each(|i| r.add(i * 2));
        assert_eq!(r.take(4).len(), 4);
        assert_eq!(r.take(100).to_vec(), (4..10).map(|i| (i * 2, 1)).collect::<Vec<_>>());
        assert!(r.is_empty());
    }

    proptest! {
        #[test]
        fn ranges_cover_exactly_what_was_added(seqs in prop::collection::vec(1u64..60, 0..80)) {
            let mut covered: Vec<u64> = Vec::new();
            let taken = ranges(seqs.clone());
            for (first, count) in &taken {
                covered.extend(*first..*first + u64::from(*count));
            }
            let mut wanted = seqs;
            wanted.sort_unstable();
            wanted.dedup();
            prop_assert_eq!(covered, wanted);
            prop_assert!(taken.windows(2).all(|w| w[0].0 + u64::from(w[0].1) < w[1].0), "neighbours left: {taken:?}");
        }
    }
}
