//! Chunked transfers, as arithmetic: which bytes a chunk has, and which chunks are there.

use std::{collections::BTreeMap, fmt, str::FromStr};

use crate::{
    digest::{InvalidDigest, read_hex, write_hex},
    limits,
};

/// An upload, named by the client: 16 random bytes, the same on every resume. As text: 32 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub [u8; 16]);

/// What was given is no stream id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stream id is 16 bytes, as text 32 hex digits in lower case")]
pub struct InvalidStreamId;

impl From<InvalidDigest> for InvalidStreamId {
    fn from(_: InvalidDigest) -> Self {
        Self
    }
}

impl TryFrom<&[u8]> for StreamId {
    type Error = InvalidStreamId;

    fn try_from(bytes: &[u8]) -> Result<Self, InvalidStreamId> {
        bytes.try_into().map(Self).map_err(|_| InvalidStreamId)
    }
}

impl FromStr for StreamId {
    type Err = InvalidStreamId;

    fn from_str(text: &str) -> Result<Self, InvalidStreamId> {
        let mut out = [0; 16];
        read_hex(text, &mut out).ok_or(InvalidStreamId)?;
        Ok(Self(out))
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream({self})")
    }
}

/// Where an upload stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamState {
    /// Takes chunks.
    Open,
    /// All chunks are there; the whole digest is being checked.
    Completing,
    /// Became a context.
    Complete,
    /// Given up by its owner, or because the whole was not what was said.
    Aborted,
    /// Given up by the server.
    Expired,
}

impl StreamState {
    /// Its name in text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Completing => "completing",
            Self::Complete => "complete",
            Self::Aborted => "aborted",
            Self::Expired => "expired",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Open, Self::Completing, Self::Complete, Self::Aborted, Self::Expired]
            .into_iter()
            .find(|s| s.name() == name)
    }

    /// Whether it takes chunks or may still become a context.
    pub fn is_unfinished(self) -> bool {
        matches!(self, Self::Open | Self::Completing)
    }
}

/// How a content is cut: every chunk but the last has the same size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunking {
    /// Size of each chunk but the last, in bytes.
    pub chunk_bytes: u32,
    /// Size of the whole, in bytes, where it is known.
    pub total_bytes: Option<u64>,
}

/// Why a chunk does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkFault {
    /// It has no bytes.
    #[error("chunk {index} is empty")]
    Empty {
        /// Its number.
        index: u64,
    },
    /// It starts at or after the end.
    #[error("chunk {index} starts at or after the end of {total} bytes")]
    Outside {
        /// Its number.
        index: u64,
        /// Size of the whole, as it was said.
        total: u64,
    },
    /// It has another size than its place asks for.
    #[error("chunk {index} has {bytes} bytes where {expected} belong")]
    Size {
        /// Its number.
        index: u64,
        /// Its size.
        bytes: u64,
        /// The size that belongs there; at most so many when the whole's size is not known.
        expected: u64,
    },
}

impl Chunking {
    /// First byte of a chunk; `None` beyond [`limits::STREAM_BYTES_MAX`].
    pub fn offset(&self, index: u64) -> Option<u64> {
        index.checked_mul(u64::from(self.chunk_bytes)).filter(|at| *at < limits::STREAM_BYTES_MAX)
    }

    /// How many chunks the whole has, where its size is known.
    pub fn count(&self) -> Option<u64> {
        self.total_bytes.map(|total| total.div_ceil(u64::from(self.chunk_bytes)))
    }

    /// Size of a chunk; without a known whole: of a full one.
    pub fn len(&self, index: u64) -> u64 {
        let full = u64::from(self.chunk_bytes);
        match (self.total_bytes, self.offset(index)) {
            (Some(total), Some(at)) => total.saturating_sub(at).min(full),
            (None, Some(_)) => full,
            (_, None) => 0,
        }
    }

    /// Checks a chunk's size against its place. Answers with its first byte.
    ///
    /// # Errors
    /// As [`ChunkFault`] says. With an unknown whole, any size from 1 to a full chunk fits.
    pub fn check(&self, index: u64, bytes: u64) -> Result<u64, ChunkFault> {
        let total = self.total_bytes.unwrap_or(limits::STREAM_BYTES_MAX);
        let outside = ChunkFault::Outside { index, total };
        let at = self.offset(index).ok_or(outside)?;
        if bytes == 0 {
            return Err(ChunkFault::Empty { index });
        }
        if at >= total {
            return Err(outside);
        }
        let expected = self.len(index);
        let fits = if self.total_bytes.is_some() { bytes == expected } else { bytes <= expected };
        if fits { Ok(at) } else { Err(ChunkFault::Size { index, bytes, expected }) }
    }
}

/// A set of chunk numbers, kept as the ranges that it consists of: no two of them touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChunkSet {
    /// First to one past the last.
    ranges: BTreeMap<u64, u64>,
    count: u64,
}

impl ChunkSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one number. Answers whether it is new.
    pub fn insert(&mut self, index: u64) -> bool {
        if self.contains(index) {
            return false;
        }
        let end = index + 1;
        let before = self.ranges.range(..index).next_back().map(|(first, end)| (*first, *end));
        let after = self.ranges.remove(&end);
        let end = after.unwrap_or(end);
        match before {
            Some((first, until)) if until == index => self.ranges.insert(first, end),
            _ => self.ranges.insert(index, end),
        };
        self.count += 1;
        true
    }

    /// Adds `count` numbers from `first` on.
    pub fn insert_range(&mut self, first: u64, count: u64) {
        if count == 0 {
            return;
        }
        let mut start = first;
        let mut end = first.saturating_add(count);
        // All ranges that overlap or touch become one.
        let touching: Vec<(u64, u64)> =
            self.ranges.range(..=end).rev().take_while(|(_, until)| **until >= start).map(|(f, e)| (*f, *e)).collect();
        for (f, e) in touching {
            self.ranges.remove(&f);
            self.count -= e - f;
            start = start.min(f);
            end = end.max(e);
        }
        self.ranges.insert(start, end);
        self.count += end - start;
    }

    /// Whether it has a number.
    pub fn contains(&self, index: u64) -> bool {
        self.ranges.range(..=index).next_back().is_some_and(|(_, end)| *end > index)
    }

    /// How many numbers it has.
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The smallest number that it lacks: how long the unbroken run from 0 is.
    pub fn prefix(&self) -> u64 {
        self.ranges.get(&0).copied().unwrap_or(0)
    }

    /// The smallest number from `from` on that it lacks.
    pub fn next_missing(&self, from: u64) -> u64 {
        match self.ranges.range(..=from).next_back() {
            Some((_, end)) if *end > from => *end,
            _ => from,
        }
    }

    /// Its ranges as (first, count), in order.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ranges.iter().map(|(first, end)| (*first, end - first))
    }

    /// One past its largest number; 0 when it is empty.
    pub fn end(&self) -> u64 {
        self.ranges.last_key_value().map_or(0, |(_, end)| *end)
    }
}

impl FromIterator<u64> for ChunkSet {
    fn from_iter<I: IntoIterator<Item = u64>>(numbers: I) -> Self {
        let mut set = Self::new();
        for number in numbers {
            set.insert(number);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const CUT: Chunking = Chunking { chunk_bytes: 100, total_bytes: Some(250) };

    #[test]
    fn the_last_chunk_has_what_is_left() {
        assert_eq!((CUT.count(), CUT.len(0), CUT.len(1), CUT.len(2), CUT.len(3)), (Some(3), 100, 100, 50, 0));
        let even = Chunking { total_bytes: Some(200), ..CUT };
        assert_eq!((even.count(), even.len(1)), (Some(2), 100));
    }

    #[test]
    fn a_chunk_that_does_not_fit_its_place_is_refused() {
        assert_eq!(CUT.check(2, 50), Ok(200));
        assert_eq!(CUT.check(2, 49), Err(ChunkFault::Size { index: 2, bytes: 49, expected: 50 }));
        assert_eq!(CUT.check(2, 100), Err(ChunkFault::Size { index: 2, bytes: 100, expected: 50 }));
        assert_eq!(CUT.check(0, 0), Err(ChunkFault::Empty { index: 0 }));
        assert_eq!(CUT.check(3, 1), Err(ChunkFault::Outside { index: 3, total: 250 }));
        assert!(matches!(CUT.check(u64::MAX, 1), Err(ChunkFault::Outside { .. })));
        let unknown = Chunking { total_bytes: None, ..CUT };
        assert_eq!(unknown.check(7, 33), Ok(700));
        assert_eq!(unknown.check(7, 101), Err(ChunkFault::Size { index: 7, bytes: 101, expected: 100 }));
        assert!(matches!(unknown.check(1 << 40, 1), Err(ChunkFault::Outside { .. })));
    }

    #[test]
    fn states_read_back_from_their_names() {
        for state in ["open", "completing", "complete", "aborted", "expired"] {
            assert_eq!(StreamState::from_name(state).map(StreamState::name), Some(state));
        }
        assert_eq!(StreamState::from_name("done"), None);
    }

    #[test]
    fn a_stream_id_reads_back_from_its_text() {
        let id = StreamId(*b"0123456789abcdef");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("00".parse::<StreamId>(), Err(InvalidStreamId));
    }

    proptest! {
        #[test]
        fn a_chunk_set_is_a_set_of_numbers(steps in prop::collection::vec((0u64..40, 0u64..6), 0..60)) {
            let (mut set, mut model) = (ChunkSet::new(), BTreeSet::new());
            for (first, count) in steps {
                if count == 1 {
                    prop_assert_eq!(set.insert(first), model.insert(first));
                } else {
                    set.insert_range(first, count);
                    model.extend(first..first + count);
                }
                prop_assert_eq!(set.len(), model.len() as u64);
                let mut last_end = None;
                let mut flat = BTreeSet::new();
                for (first, count) in set.ranges() {
                    prop_assert!(last_end.is_none_or(|end| first > end), "two ranges touch");
                    last_end = Some(first + count);
                    flat.extend(first..first + count);
                }
                prop_assert_eq!(&flat, &model);
                prop_assert_eq!(set.prefix(), (0..=u64::MAX).find(|i| !model.contains(i)).unwrap());
                prop_assert_eq!(set.next_missing(17), (17..=u64::MAX).find(|i| !model.contains(i)).unwrap());
                prop_assert_eq!(set.contains(9), model.contains(&9));
                prop_assert_eq!(set.end(), model.last().map_or(0, |l| l + 1));
            }
        }
    }
}
