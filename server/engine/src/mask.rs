//! A set of positions out of 512: which messages of a lease run are meant.

/// Positions in a mask.
pub(crate) const SPAN: u64 = 512;

/// Which of [`SPAN`] consecutive seqs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mask([u64; 8]);

impl Mask {
    /// The positions `from..to`; `to` is at most [`SPAN`].
    pub(crate) fn range(from: u32, to: u32) -> Self {
        let mut out = Self::default();
        out.fill(from, to);
        out
    }

    /// Adds the positions `from..to`.
    pub(crate) fn fill(&mut self, from: u32, to: u32) {
        for word in from / 64..to.div_ceil(64).min(8) {
            let low = from.max(word * 64) - word * 64;
            let high = to.min(word * 64 + 64) - word * 64;
            self.0[word as usize] |= (u64::MAX << low) & (u64::MAX >> (64 - high));
        }
    }

    pub(crate) fn count(&self) -> u32 {
        self.0.iter().map(|w| w.count_ones()).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(|w| *w == 0)
    }

    pub(crate) fn and(mut self, other: &Self) -> Self {
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            *a &= b;
        }
        self
    }

    pub(crate) fn or(mut self, other: &Self) -> Self {
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            *a |= b;
        }
        self
    }

    pub(crate) fn without(mut self, other: &Self) -> Self {
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            *a &= !b;
        }
        self
    }

    /// The lowest position, if any.
    pub(crate) fn first(&self) -> Option<u32> {
        let word = self.0.iter().position(|w| *w != 0)?;
        Some(word as u32 * 64 + self.0[word].trailing_zeros())
    }

    /// The lowest position that is missing at or above `from`; [`SPAN`] when none is.
    fn first_absent(&self, from: u32) -> u32 {
        let mut at = from;
        while at < SPAN as u32 {
            let ones = (self.0[at as usize / 64] >> (at % 64)).trailing_ones();
            if ones < 64 - at % 64 {
                return at + ones;
            }
            at += ones;
        }
        SPAN as u32
    }

    /// The lowest position at or above `from`.
    fn first_from(&self, from: u32) -> Option<u32> {
        if from >= SPAN as u32 {
            return None;
        }
        let low = self.0[from as usize / 64] >> (from % 64);
        if low != 0 {
            return Some(from + low.trailing_zeros());
        }
        (from / 64 + 1..8).find(|w| self.0[*w as usize] != 0).map(|w| w * 64 + self.0[w as usize].trailing_zeros())
    }

    /// Its members after the `n` lowest.
    pub(crate) fn after_nth(mut self, n: u64) -> Self {
        let mut skip = n;
        for word in &mut self.0 {
            let ones = u64::from(word.count_ones());
            if skip >= ones {
                skip -= ones;
                *word = 0;
                continue;
            }
            while skip > 0 {
                *word &= *word - 1;
                skip -= 1;
            }
            break;
        }
        self
    }

    /// Runs of consecutive positions, as half-open pairs.
    pub(crate) fn stretches(self) -> impl Iterator<Item = (u32, u32)> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let from = self.first_from(at)?;
            at = self.first_absent(from);
            Some((from, at))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn positions(mask: Mask) -> BTreeSet<u32> {
        (0..SPAN as u32).filter(|p| mask.0[*p as usize / 64] >> (p % 64) & 1 == 1).collect()
    }

    #[test]
    fn ranges_cover_what_they_name_also_across_words() {
        for from in (0..=SPAN as u32).step_by(7) {
            for to in (from..=SPAN as u32).step_by(5) {
                let mask = Mask::range(from, to);
                assert_eq!(positions(mask), (from..to).collect(), "{from}..{to}");
                assert_eq!(mask.count(), to - from);
                assert_eq!(mask.is_empty(), from == to);
                assert_eq!(mask.first(), (from < to).then_some(from));
                assert_eq!(mask.stretches().collect::<Vec<_>>(), if from < to { vec![(from, to)] } else { vec![] });
            }
        }
    }

    #[test]
    fn set_operations_agree_with_a_set() {
        let a = Mask::range(3, 70).or(&Mask::range(200, 201)).or(&Mask::range(448, 512));
        let b = Mask::range(60, 210).or(&Mask::range(511, 512));
        let (pa, pb) = (positions(a), positions(b));
        assert_eq!(positions(a.and(&b)), &pa & &pb);
        assert_eq!(positions(a.or(&b)), &pa | &pb);
        assert_eq!(positions(a.without(&b)), &pa - &pb);
        assert_eq!(a.stretches().collect::<Vec<_>>(), [(3, 70), (200, 201), (448, 512)]);
        for n in 0..=pa.len() {
            assert_eq!(positions(a.after_nth(n as u64)), pa.iter().copied().skip(n).collect(), "{n}");
        }
    }
}
