//! Sets and maps of seq ranges: what is settled, what came back. Both cost by their number of ranges, never by the
//! numbers in them.

use std::{collections::BTreeMap, ops::Range};

use acb_types::position::Seq;
use smallvec::SmallVec;

/// Disjoint, non-adjacent ranges in rising order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RangeSet(Vec<(Seq, Seq)>);

impl RangeSet {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of ranges.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = Range<Seq>> + '_ {
        self.0.iter().map(|&(from, to)| from..to)
    }

    /// The lowest range.
    pub(crate) fn first(&self) -> Option<Range<Seq>> {
        self.0.first().map(|&(from, to)| from..to)
    }

    pub(crate) fn contains(&self, seq: Seq) -> bool {
        let at = self.0.partition_point(|r| r.1 <= seq);
        self.0.get(at).is_some_and(|r| r.0 <= seq)
    }

    /// Adds a range, joining what it touches.
    pub(crate) fn insert(&mut self, range: Range<Seq>) {
        if range.is_empty() {
            return;
        }
        // Seqs mostly rise: the end is where things happen.
        match self.0.last_mut() {
            None => return self.0.push((range.start, range.end)),
            Some(last) if range.start > last.1 => return self.0.push((range.start, range.end)),
            Some(last) if range.start >= last.0 => {
                last.1 = last.1.max(range.end);
                return;
            }
            Some(_) => {}
        }
        let from = self.0.partition_point(|r| r.1 < range.start);
        let to = self.0.partition_point(|r| r.0 <= range.end);
        if from == to {
            return self.0.insert(from, (range.start, range.end));
        }
        self.0[from] = (self.0[from].0.min(range.start), self.0[to - 1].1.max(range.end));
        self.0.drain(from + 1..to);
    }

    /// Takes a range out.
    pub(crate) fn remove(&mut self, range: Range<Seq>) {
        if range.is_empty() {
            return;
        }
        let from = self.0.partition_point(|r| r.1 <= range.start);
        let to = self.0.partition_point(|r| r.0 < range.end);
        if from >= to {
            return;
        }
        let (first, last) = (self.0[from].0, self.0[to - 1].1);
        let mut kept: SmallVec<[(Seq, Seq); 2]> = SmallVec::new();
        if first < range.start {
            kept.push((first, range.start));
        }
        if last > range.end {
            kept.push((range.end, last));
        }
        self.0.splice(from..to, kept);
    }

    /// Takes out everything below a seq.
    pub(crate) fn remove_below(&mut self, seq: Seq) {
        if self.0.first().is_some_and(|r| r.0 < seq) {
            self.remove(0..seq);
        }
    }

    /// Takes the lowest range out.
    pub(crate) fn pop_first(&mut self) -> Option<Range<Seq>> {
        if self.0.is_empty() {
            return None;
        }
        let (from, to) = self.0.remove(0);
        Some(from..to)
    }

    /// The parts of it inside a range.
    pub(crate) fn within(&self, range: Range<Seq>) -> impl Iterator<Item = Range<Seq>> + '_ {
        let from = self.0.partition_point(|r| r.1 <= range.start);
        self.0[from..]
            .iter()
            .take_while({
                let end = range.end;
                move |r| r.0 < end
            })
            .map(move |r| r.0.max(range.start)..r.1.min(range.end))
    }

    /// The parts of it inside a range, as a set.
    pub(crate) fn part(&self, range: Range<Seq>) -> Self {
        Self(self.within(range).map(|r| (r.start, r.end)).collect())
    }

    /// The parts of a range outside it.
    pub(crate) fn gaps(&self, range: Range<Seq>) -> SmallVec<[Range<Seq>; 1]> {
        let mut out = SmallVec::new();
        let mut at = range.start;
        for inside in self.within(range.clone()) {
            if at < inside.start {
                out.push(at..inside.start);
            }
            at = inside.end;
        }
        if at < range.end {
            out.push(at..range.end);
        }
        out
    }
}

/// Disjoint ranges with a value each, in rising order. Adjacent ranges of one value are joined.
#[derive(Clone, Debug)]
pub(crate) struct RangeMap<V>(BTreeMap<Seq, (Seq, V)>);

impl<V> Default for RangeMap<V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

/// Ranges that were taken out of a map, with their values.
pub(crate) type Taken<V> = SmallVec<[(Range<Seq>, V); 1]>;

impl<V: Clone + PartialEq> RangeMap<V> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of ranges.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The lowest range.
    pub(crate) fn first(&self) -> Option<(Range<Seq>, &V)> {
        self.0.first_key_value().map(|(from, (to, value))| (*from..*to, value))
    }

    pub(crate) fn get(&self, seq: Seq) -> Option<&V> {
        let (_, (to, value)) = self.0.range(..=seq).next_back()?;
        (*to > seq).then_some(value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Range<Seq>, &V)> {
        self.0.iter().map(|(from, (to, value))| (*from..*to, value))
    }

    /// Adds a range of which nothing is in the map.
    pub(crate) fn insert(&mut self, range: Range<Seq>, value: V) {
        if range.is_empty() {
            return;
        }
        debug_assert!(self.within(range.clone()).next().is_none(), "{range:?} is there already");
        let Range { start: mut from, end: mut to } = range;
        if let Some((before, (end, present))) = self.0.range(..from).next_back()
            && *end == from
            && *present == value
        {
            from = *before;
        }
        if let Some((end, present)) = self.0.get(&to)
            && *present == value
        {
            let joined = *end;
            self.0.remove(&to);
            to = joined;
        }
        self.0.insert(from, (to, value));
    }

    /// Takes out what lies in a range, cutting what lies across its ends.
    pub(crate) fn take(&mut self, range: Range<Seq>) -> Taken<V> {
        let mut out = Taken::new();
        if range.is_empty() || self.0.is_empty() {
            return out;
        }
        self.cut(range.start);
        self.cut(range.end);
        while let Some((&from, _)) = self.0.range(range.clone()).next() {
            if let Some((to, value)) = self.0.remove(&from) {
                out.push((from..to, value));
            }
        }
        out
    }

    /// Sees to it that no range lies across a seq.
    fn cut(&mut self, at: Seq) {
        if let Some((_, (to, value))) = self.0.range_mut(..at).next_back()
            && *to > at
        {
            let rest = (*to, value.clone());
            *to = at;
            self.0.insert(at, rest);
        }
    }

    /// The parts of it inside a range.
    pub(crate) fn within(&self, range: Range<Seq>) -> impl Iterator<Item = (Range<Seq>, &V)> {
        let start = match self.0.range(..=range.start).next_back() {
            Some((from, (to, _))) if *to > range.start => *from,
            _ => range.start,
        };
        let end = range.end.max(start);
        self.0.range(start..end).map(move |(from, (to, value))| ((*from).max(range.start)..(*to).min(range.end), value))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn members(set: &RangeSet) -> BTreeSet<Seq> {
        set.iter().flatten().collect()
    }

    proptest! {
        #[test]
        fn a_range_set_agrees_with_a_set(ops in prop::collection::vec((0u8..4, 0u64..60, 0u64..12), 1..80)) {
            let mut set = RangeSet::default();
            let mut model = BTreeSet::new();
            for (op, from, len) in ops {
                let range = from..from + len;
                match op {
                    0 | 1 => {
                        set.insert(range.clone());
                        model.extend(range);
                    }
                    2 => {
                        set.remove(range.clone());
                        model.retain(|s| !range.contains(s));
                    }
                    _ => {
                        set.remove_below(from);
                        model.retain(|s| *s >= from);
                    }
                }
                prop_assert_eq!(members(&set), model.clone());
                // Non-adjacent and rising.
                let ranges: Vec<_> = set.iter().collect();
                prop_assert!(ranges.windows(2).all(|w| w[0].end < w[1].start), "{:?}", ranges);
                prop_assert!(ranges.iter().all(|r| !r.is_empty()));
                prop_assert_eq!(set.contains(from), model.contains(&from));
                let probe = from..from + 20;
                let inside: BTreeSet<_> = set.within(probe.clone()).flatten().collect();
                let outside: BTreeSet<_> = set.gaps(probe.clone()).into_iter().flatten().collect();
                prop_assert_eq!(&inside, &model.range(probe.clone()).copied().collect::<BTreeSet<_>>());
                prop_assert_eq!(&outside, &probe.filter(|s| !model.contains(s)).collect::<BTreeSet<_>>());
            }
        }

        #[test]
        fn a_range_map_agrees_with_a_map(ops in prop::collection::vec((any::<bool>(), 0u64..60, 0u64..12, 0u8..3), 1..80)) {
            let mut map = RangeMap::default();
            let mut model: BTreeMap<Seq, u8> = BTreeMap::new();
            for (put, from, len, value) in ops {
                let range = from..from + len;
                let taken: BTreeMap<_, _> = map.take(range.clone()).into_iter().flat_map(|(r, v)| r.map(move |s| (s, v))).collect();
                let expected: BTreeMap<_, _> = range.clone().filter_map(|s| model.remove(&s).map(|v| (s, v))).collect();
                prop_assert_eq!(taken, expected);
                if put {
                    map.insert(range.clone(), value);
                    model.extend(range.clone().map(|s| (s, value)));
                }
                let all: BTreeMap<_, _> = map.iter().flat_map(|(r, v)| r.map(move |s| (s, *v))).collect();
                prop_assert_eq!(&all, &model);
                prop_assert_eq!(map.get(from), model.get(&from));
                let probe = from.saturating_sub(5)..from + 20;
                let inside: BTreeMap<_, _> = map.within(probe.clone()).flat_map(|(r, v)| r.map(move |s| (s, *v))).collect();
                prop_assert_eq!(inside, model.range(probe).map(|(s, v)| (*s, *v)).collect::<BTreeMap<_, _>>());
                // One value next to itself is one range.
                let ranges: Vec<_> = map.iter().collect();
                if put {
                    let at = ranges.windows(2).find(|w| w[0].0.end == w[1].0.start && w[0].1 == w[1].1);
                    prop_assert!(at.is_none_or(|w| !range.contains(&w[0].0.start)), "{:?}", at);
                }
                prop_assert_eq!(map.len(), ranges.len());
            }
        }
    }
}
