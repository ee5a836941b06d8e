//! Which batches of a segment hold which topics. A lagging reader asks here first, so that it reads its own records
//! and nothing else, and steps over segments that hold nothing for it without reading them.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::Arc,
};

use acb_types::{
    Timestamp,
    batch::{Batch, Keyed},
    name::{TopicFilter, is_reserved},
    position::{Epoch, Seq},
};
use smallvec::SmallVec;

use crate::{
    batch::{Header, Kind, Meta, topic_of},
    segment::{BODY_START, Pos},
};

/// Distance of the sparse index's entries, in bytes.
pub(crate) const SPARSE_BYTES: u32 = 32 * 1024;

/// A batch that holds messages of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Where the batch starts.
    pub(crate) offset: u32,
    /// Its bytes, header and meta included.
    pub(crate) len: u32,
    /// Seq of the last message of the topic in it, counted from the segment's base.
    pub(crate) last_seq: u32,
}

/// A place in a segment, one every 32 KiB or so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sparse {
    /// First seq at or after the place, counted from the segment's base.
    pub(crate) seq: u32,
    /// Where a batch starts.
    pub(crate) offset: u32,
    /// Latest time of any message from here to the next place.
    pub(crate) time_max: Timestamp,
}

/// An idempotency key of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyRow {
    pub(crate) key: u128,
    pub(crate) body: u64,
    pub(crate) seq: u32,
    /// When it was stored, in seconds since 1970, rounded up.
    pub(crate) at: u32,
}

/// A batch of a producer session in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProducerRow {
    pub(crate) producer: u64,
    pub(crate) counter: u64,
    pub(crate) at: Timestamp,
    pub(crate) seq: u32,
    pub(crate) count: u32,
    pub(crate) epoch: u32,
}

/// What a segment holds, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Seqs in the segment are counted from here.
    pub(crate) base_seq: Seq,
    /// First seq after it.
    pub(crate) end_seq: Seq,
    /// First message; 0 when there is none.
    pub(crate) first_message: Seq,
    pub(crate) messages: u64,
    pub(crate) batches: u64,
    /// When the first message was stored; not set when there is none.
    pub(crate) first_time: Timestamp,
    /// Latest time of any message.
    pub(crate) last_time: Timestamp,
    /// Where the segment ends; [`BODY_START`] when it is empty.
    pub(crate) end: u32,
    /// Epoch of the last batch.
    pub(crate) epoch: Epoch,
    /// Highest `synced` of any batch.
    pub(crate) synced: Pos,
    /// Whether there are state records.
    pub(crate) has_state: bool,
    /// Where the latest snapshot that was completed in this segment begins; segment 0 for none.
    pub(crate) snapshot: Pos,
}

impl Summary {
    /// Where a snapshot begins that was completed here.
    pub(crate) fn snapshot(&self) -> Option<Pos> {
        (self.snapshot.segment != 0).then_some(self.snapshot)
    }
}

/// The index of a segment in memory: of the active one, and of sealed ones until their sidecar is written.
#[derive(Debug, Default)]
pub(crate) struct MemIndex {
    pub(crate) summary: Summary,
    topics: HashMap<Arc<[u8]>, u32, ahash::RandomState>,
    names: Names,
    lists: Vec<Vec<Entry>>,
    /// The topic that came last, which is nearly always the next one too.
    last: Option<(Vec<u8>, u32)>,
    pub(crate) sparse: Vec<Sparse>,
    pub(crate) keys: Vec<KeyRow>,
    pub(crate) producers: Vec<ProducerRow>,
}

impl MemIndex {
    pub(crate) fn new() -> Self {
        Self { summary: Summary { end: BODY_START, ..Summary::default() }, ..Self::default() }
    }

    /// Notes any batch. Batches of messages are followed by [`Self::push_runs`] or [`Self::push_stored`].
    pub(crate) fn push_batch(&mut self, offset: u32, header: &Header) {
        let s = &mut self.summary;
        if s.batches == 0 {
            s.base_seq = header.first_seq;
        }
        s.batches += 1;
        s.end = offset + header.len();
        s.end_seq = header.end_seq();
        s.epoch = header.epoch;
        s.synced = s.synced.max(header.synced);
        s.has_state |= header.kind == Kind::State;
        if header.kind == Kind::Messages {
            if s.messages == 0 {
                s.first_message = header.first_seq;
                s.first_time = header.stored_at;
            }
            s.messages += u64::from(header.count);
            s.last_time = s.last_time.max(header.stored_at);
        }
        let seq = (header.first_seq - s.base_seq) as u32;
        let time = if header.kind == Kind::Messages { header.stored_at } else { Timestamp::NONE };
        match self.sparse.last_mut() {
            Some(last) if offset - last.offset < SPARSE_BYTES => last.time_max = last.time_max.max(time),
            _ => self.sparse.push(Sparse { seq, offset, time_max: time }),
        }
    }

    /// Notes a run of a batch.
    fn push_run(&mut self, topic: &[u8], entry: Entry) {
        let id = match &self.last {
            Some((name, id)) if name == topic => *id,
            _ => {
                let id = if let Some(id) = self.topics.get(topic) {
                    *id
                } else {
                    let id = self.lists.len() as u32;
                    // An own copy: a slice would keep the whole frame in memory.
                    let name: Arc<[u8]> = topic.into();
                    self.names.push(Arc::clone(&name));
                    self.topics.insert(name, id);
                    self.lists.push(Vec::new());
                    id
                };
                let (name, last) = self.last.get_or_insert_default();
                name.clear();
                name.extend_from_slice(topic);
                *last = id;
                id
            }
        };
        let list = &mut self.lists[id as usize];
        match list.last_mut() {
            Some(last) if last.offset == entry.offset => *last = entry,
            _ => list.push(entry),
        }
    }

    /// Notes the runs, keys and producer of a batch that was just written.
    pub(crate) fn push_stored(&mut self, offset: u32, header: &Header, batch: &Batch) {
        let mut seq = (header.first_seq - self.summary.base_seq) as u32;
        for run in &batch.runs {
            seq += run.count;
            self.push_run(&run.topic, Entry { offset, len: header.len(), last_seq: seq - 1 });
        }
        self.push_dedupe(header, batch.keys.iter().copied());
    }

    /// Notes the runs, keys and producer of a batch that was read back. `None` when its meta does not fit its body.
    pub(crate) fn push_read(&mut self, offset: u32, header: &Header, meta: &[u8], body: &[u8]) -> Option<()> {
        let meta = Meta::decode(meta)?;
        let mut seq = (header.first_seq - self.summary.base_seq) as u32;
        for (count, range) in meta.runs(header.count, header.body_len) {
            seq += count;
            let run = body.get(range)?;
            self.push_run(&run[topic_of(run)?], Entry { offset, len: header.len(), last_seq: seq - 1 });
        }
        self.push_dedupe(header, meta.keys());
        Some(())
    }

    fn push_dedupe(&mut self, header: &Header, keys: impl Iterator<Item = Keyed>) {
        let seq = (header.first_seq - self.summary.base_seq) as u32;
        let at = u32::try_from(header.stored_at.0.div_ceil(1000)).unwrap_or(u32::MAX);
        self.keys.extend(keys.map(|k| KeyRow { key: k.key, body: k.body, seq: seq + k.index, at }));
        if header.producer == 0 {
            return;
        }
        let row = ProducerRow {
            producer: header.producer,
            counter: header.counter,
            at: header.stored_at,
            seq,
            count: header.count,
            epoch: header.producer_epoch,
        };
        match self.producers.last_mut() {
            Some(last)
                if last.producer == row.producer
                    && last.epoch == row.epoch
                    && last.counter + u64::from(last.count) == row.counter
                    && last.seq + last.count == row.seq =>
            {
                last.count += row.count;
                last.at = last.at.max(row.at);
            }
            _ => self.producers.push(row),
        }
    }

    /// Topics with their lists, in no order.
    pub(crate) fn topics(&self) -> impl Iterator<Item = (&[u8], &[Entry])> {
        self.topics.iter().map(|(name, id)| (&**name, &*self.lists[*id as usize]))
    }

    /// Where to read for a reader that wants these topics from a seq on. Not for an index under a lock, unless
    /// [`Wanted::is_quick`]: all topics are asked.
    pub(crate) fn plan(&self, wanted: &mut Wanted, want: Want) -> Plan {
        if wanted.everything() {
            return self.scan(want);
        }
        let mut gathered = Gathered::default();
        match wanted.literals() {
            Some(literals) => {
                let ids: SmallVec<[u32; 4]> = literals.filter_map(|topic| self.topics.get(topic).copied()).collect();
                self.gather(&ids, want, self.summary.end, &mut gathered);
            }
            None => self.gather(&self.names.wanted(wanted), want, self.summary.end, &mut gathered),
        }
        self.finish(gathered, want)
    }

    /// The topics' names, to be asked without holding a lock on the index.
    pub(crate) fn names(&self) -> Names {
        self.names.clone()
    }

    /// Adds the first batches of some topics that begin before a place in the file.
    pub(crate) fn gather(&self, ids: &[u32], want: Want, end: u32, into: &mut Gathered) {
        let from = want.relative(self.summary.base_seq);
        let after = |id: &u32| {
            let list = &self.lists[*id as usize][..];
            let list = &list[list.partition_point(|e| e.last_seq < from)..];
            &list[..list.partition_point(|e| e.offset < end)]
        };
        let lists: SmallVec<[&[Entry]; 4]> = ids.iter().map(after).collect();
        into.add(&lists, want.bytes);
    }

    /// The plan, when all wanted topics were gathered.
    pub(crate) fn finish(&self, gathered: Gathered, want: Want) -> Plan {
        if mostly(gathered.wanted, self.summary.batches) { self.scan(want) } else { gathered.plan(want.bytes) }
    }

    fn scan(&self, want: Want) -> Plan {
        scan(&self.sparse, self.summary.end, want.relative(self.summary.base_seq), want.bytes)
    }
}

/// What a reader wants of a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Want {
    pub(crate) from: Seq,
    /// About so many bytes at once.
    pub(crate) bytes: u32,
}

impl Want {
    pub(crate) fn relative(self, base: Seq) -> u32 {
        u32::try_from(self.from.saturating_sub(base)).unwrap_or(u32::MAX)
    }
}

/// Where to read in a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Nothing wanted is there.
    Nothing,
    /// Only these batches. `complete` when nothing wanted comes after them in the segment.
    Batches { entries: Vec<Entry>, complete: bool },
    /// A stretch of the file. `complete` when it reaches the segment's end.
    Stretch { from: u32, to: u32, complete: bool },
}

/// Whether reading everything costs less than picking: at least half of the batches are wanted.
pub(crate) fn mostly(wanted: u64, batches: u64) -> bool {
    wanted > 0 && wanted * 2 >= batches
}

/// The first batches of some lists, up to a number of bytes and at least one.
pub(crate) fn gather(lists: &[&[Entry]], bytes: u32) -> Plan {
    let mut gathered = Gathered::default();
    gathered.add(lists, bytes);
    gathered.plan(bytes)
}

/// The next entry of a list: its place and last seq, which list, where in it. The one with the lowest place comes first.
type Head = Reverse<((u32, u32), usize, usize)>;

/// The first batches of lists that are added some at a time.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    /// In order. As soon as they are more than the bytes that are wanted, what lies behind them is left out; so nothing
    /// within these bytes is.
    entries: Vec<Entry>,
    more: bool,
    /// How many entries the lists have.
    wanted: u64,
}

impl Gathered {
    /// Adds lists. Costs what is taken, not how long they are.
    fn add(&mut self, lists: &[&[Entry]], bytes: u32) {
        self.wanted += lists.iter().map(|l| l.len() as u64).sum::<u64>();
        let before = std::mem::take(&mut self.entries);
        let lists: SmallVec<[&[Entry]; 4]> = lists.iter().copied().chain([&before[..]]).collect();
        // The next entry of each list, the first in the file on top.
        let key = |e: &Entry| (e.offset, e.last_seq);
        let heads = lists.iter().enumerate().filter_map(|(i, l)| Some(Reverse((key(l.first()?), i, 0))));
        let mut heads: BinaryHeap<Head> = heads.collect();
        let mut sum = 0u32;
        while let Some(Reverse((_, list, at))) = heads.pop() {
            let entry = lists[list][at];
            match self.entries.last_mut() {
                // A batch in several lists is read once, up to its last wanted message.
                Some(last) if last.offset == entry.offset => *last = entry,
                _ if sum >= bytes && sum > 0 => {
                    self.more = true;
                    return;
                }
                _ => {
                    sum = sum.saturating_add(entry.len);
                    self.entries.push(entry);
                }
            }
            if let Some(next) = lists[list].get(at + 1) {
                heads.push(Reverse((key(next), list, at + 1)));
            }
        }
    }

    fn plan(mut self, bytes: u32) -> Plan {
        let mut sum = 0u32;
        let cut = self.entries.iter().position(|e| {
            let full = sum > 0 && sum.saturating_add(e.len) > bytes;
            sum = sum.saturating_add(e.len);
            full
        });
        if let Some(cut) = cut {
            self.entries.truncate(cut);
        }
        let complete = cut.is_none() && !self.more;
        if self.entries.is_empty() { Plan::Nothing } else { Plan::Batches { entries: self.entries, complete } }
    }
}

/// Names of one chunk.
const NAMES_CHUNK: usize = 256;

/// Names of a segment's topics by their ids. They only ever grow, so a copy is cheap: full chunks are shared.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    full: Vec<Arc<[Arc<[u8]>]>>,
    /// Fewer than [`NAMES_CHUNK`].
    rest: Vec<Arc<[u8]>>,
}

impl Names {
    fn push(&mut self, name: Arc<[u8]>) {
        self.rest.push(name);
        if self.rest.len() == NAMES_CHUNK {
            self.full.push(std::mem::take(&mut self.rest).into());
        }
    }

    /// Ids of the topics that are wanted.
    pub(crate) fn wanted(&self, wanted: &mut Wanted<'_>) -> Vec<u32> {
        let names = self.full.iter().flat_map(|chunk| chunk.iter()).chain(&self.rest);
        names.zip(0..).filter(|(name, _)| wanted.hears(name)).map(|(_, id)| id).collect()
    }
}

/// A stretch from the place before a seq, about so many bytes long, ending where a batch starts.
pub(crate) fn scan(sparse: &[Sparse], end: u32, from: u32, bytes: u32) -> Plan {
    if sparse.is_empty() {
        return Plan::Nothing;
    }
    let first = sparse.partition_point(|s| s.seq <= from).saturating_sub(1);
    let start = sparse[first].offset;
    let stop = sparse.partition_point(|s| s.offset <= start.saturating_add(bytes)).max(first + 2) - 1;
    match sparse.get(stop) {
        Some(stop) if end - start > bytes => Plan::Stretch { from: start, to: stop.offset, complete: false },
        _ => Plan::Stretch { from: start, to: end, complete: true },
    }
}

/// A reader's filters, asked topic by topic.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    filters: &'a [TopicFilter],
    /// Set when no filter has a wildcard.
    literal: bool,
    everything: bool,
    last: (Vec<u8>, bool),
}

impl<'a> Wanted<'a> {
    pub(crate) fn new(filters: &'a [TopicFilter]) -> Self {
        Self {
            filters,
            literal: filters.iter().all(TopicFilter::is_literal),
            everything: filters.iter().any(|f| f.as_str() == ">"),
            last: (Vec::new(), false),
        }
    }

    /// Whether it hears all topics but the bus's own.
    pub(crate) fn everything(&self) -> bool {
        self.everything
    }

    /// Whether planning costs about as much as there are filters, not as there are topics.
    pub(crate) fn is_quick(&self) -> bool {
        self.literal || self.everything
    }

    /// The topics, when they are so few that each is asked for by name.
    pub(crate) fn literals(&self) -> Option<impl Iterator<Item = &'a [u8]> + use<'a>> {
        let filters = self.filters;
        self.literal.then(|| filters.iter().map(|f| f.as_str().as_bytes()))
    }

    /// Whether a topic is wanted. Remembers the last answer: runs of one topic come one after the other.
    pub(crate) fn hears(&mut self, topic: &[u8]) -> bool {
        if self.last.0 == topic {
            return self.last.1;
        }
        let Ok(text) = std::str::from_utf8(topic) else { return false };
        let answer = if self.literal {
            self.filters.iter().any(|f| f.as_str() == text)
        } else {
            self.everything && !is_reserved(text) || self.filters.iter().any(|f| f.matches(text))
        };
        self.last.0.clear();
        self.last.0.extend_from_slice(topic);
        self.last.1 = answer;
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn e(offset: u32, len: u32, last_seq: u32) -> Entry {
        Entry { offset, len, last_seq }
    }

    #[test]
    fn gathering_takes_the_first_batches_of_all_lists_in_order() {
        let a = [e(0, 10, 0), e(40, 10, 4), e(80, 10, 8)];
        let b = [e(20, 10, 2), e(40, 10, 5), e(60, 10, 6)];
        assert_eq!(
            gather(&[&a, &b], 35),
            Plan::Batches { entries: vec![e(0, 10, 0), e(20, 10, 2), e(40, 10, 5)], complete: false }
        );
        assert_eq!(
            gather(&[&a, &b], 1000),
            Plan::Batches {
                entries: vec![e(0, 10, 0), e(20, 10, 2), e(40, 10, 5), e(60, 10, 6), e(80, 10, 8)],
                complete: true
            }
        );
        assert_eq!(gather(&[&a], 1), Plan::Batches { entries: vec![e(0, 10, 0)], complete: false }, "at least one");
        assert_eq!(gather(&[&a], 30), Plan::Batches { entries: a.to_vec(), complete: true });
        assert_eq!(gather(&[], 10), Plan::Nothing);
        assert_eq!(gather(&[&[]], 10), Plan::Nothing);
    }

    #[test]
    fn gathering_some_lists_at_a_time_takes_what_gathering_all_at_once_does() {
        for seed in 0..300u64 {
            let mut rng = crate::sim_disk::SimRng::new(seed);
            let lists: Vec<Vec<Entry>> = (0..=rng.below(9))
                .map(|_| {
                    // Batches of ten bytes, some of them in several lists.
                    let mut batches: Vec<u32> = (0..rng.below(12)).map(|_| rng.below(40) as u32).collect();
                    batches.sort_unstable();
                    batches.dedup();
                    batches.iter().map(|b| e(b * 10, 10, b * 4 + rng.below(4) as u32)).collect()
                })
                .collect();
            let lists: Vec<&[Entry]> = lists.iter().map(|l| &l[..]).collect();
            let bytes = 1 + rng.below(150) as u32;
            let mut gathered = Gathered::default();
            lists.chunks(1 + rng.below(4) as usize).for_each(|some| gathered.add(some, bytes));
            // The plain way: all in order, each batch once up to its last message, as many as fit.
            let mut all: Vec<Entry> = lists.iter().flat_map(|l| l.iter().copied()).collect();
            all.sort_unstable_by_key(|e| (e.offset, Reverse(e.last_seq)));
            all.dedup_by_key(|e| e.offset);
            let fit = all.len().min((bytes as usize / 10).max(1));
            let expected = if all.is_empty() {
                Plan::Nothing
            } else {
                Plan::Batches { entries: all[..fit].to_vec(), complete: fit == all.len() }
            };
            assert_eq!(gathered.plan(bytes), expected, "seed {seed}");
        }
    }

    #[test]
    fn names_are_asked_by_their_ids_also_when_there_are_many() {
        let mut names = Names::default();
        for i in 0..1000u32 {
            names.push(format!("{}.{i}", ["a", "b"][i as usize % 2]).into_bytes().into());
        }
        let early = names.clone();
        names.push(b"b.late"[..].into());
        let filters = ["b.*".parse().unwrap()];
        let odd: Vec<u32> = (0..1000).filter(|i| i % 2 == 1).collect();
        assert_eq!(early.wanted(&mut Wanted::new(&filters)), odd, "a copy stays as it was");
        assert_eq!(names.wanted(&mut Wanted::new(&filters)).last(), Some(&1000));
    }

    #[test]
    fn a_scan_starts_at_or_before_the_seq_and_ends_where_a_batch_starts() {
        let s = |seq, offset| Sparse { seq, offset, time_max: Timestamp(0) };
        let sparse = [s(0, 512), s(10, 33_000), s(20, 66_000), s(30, 99_000)];
        let at = |from, bytes| scan(&sparse, 120_000, from, bytes);
        assert_eq!(at(0, 70_000), Plan::Stretch { from: 512, to: 66_000, complete: false });
        assert_eq!(at(15, 1), Plan::Stretch { from: 33_000, to: 66_000, complete: false }, "at least one stretch");
        assert_eq!(at(35, 1), Plan::Stretch { from: 99_000, to: 120_000, complete: true });
        assert_eq!(at(0, 1_000_000), Plan::Stretch { from: 512, to: 120_000, complete: true });
        assert_eq!(scan(&[], 512, 0, 10), Plan::Nothing);
    }
}
