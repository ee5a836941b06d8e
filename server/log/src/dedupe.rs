//! Doubles, in two grades: producer sessions count their messages, so a resent frame is known by one number; and
//! messages with an idempotency key are known by its digest. Both are checked and taken in one step, while a batch is
//! staged, and both are given back when the batch could not be written.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use acb_types::{ErrorCode, Timestamp, batch::Keyed, limits, position::Seq};
use smallvec::SmallVec;

use crate::{
    planted::{self, Bug},
    postings::ProducerRow,
};

/// A number of things that a tenant may have at once, over all its logs.
#[derive(Debug)]
pub struct Budget {
    used: AtomicUsize,
    max: usize,
}

impl Budget {
    /// So many.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), max })
    }

    /// How many there are.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn try_take(&self) -> bool {
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < self.max).then_some(n + 1)).is_ok()
    }

    /// What is on disk already is remembered even beyond the limit.
    fn force(&self) {
        self.used.fetch_add(1, Ordering::Relaxed);
    }

    fn give_back(&self, n: usize) {
        self.used.fetch_sub(n, Ordering::Relaxed);
    }
}

/// Consecutive messages of a producer session that were stored with consecutive seqs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) counter: u64,
    pub(crate) seq: Seq,
    pub(crate) count: u32,
}

impl Range {
    fn end(&self) -> u64 {
        self.counter + u64::from(self.count)
    }
}

/// What is remembered of a producer session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Producer {
    pub(crate) epoch: u32,
    pub(crate) last_seen: Timestamp,
    /// Ranges below were forgotten: what is there counts as stored, at an unknown seq. Above it, what is in no range
    /// was never stored.
    pub(crate) floor: u64,
    /// In order of counters, apart from each other.
    pub(crate) ranges: VecDeque<Range>,
}

impl Producer {
    fn add(&mut self, range: Range) {
        match self.ranges.back_mut() {
            Some(last)
                if last.end() == range.counter
                    && last.seq + u64::from(last.count) == range.seq
                    && last.count.checked_add(range.count).is_some() =>
            {
                last.count += range.count;
            }
            Some(last) if last.end() > range.counter => {
                let at = self.ranges.partition_point(|r| r.counter < range.counter);
                self.ranges.insert(at, range);
            }
            _ => self.ranges.push_back(range),
        }
    }

    fn prune(&mut self, ranges_max: usize) {
        while self.ranges.len() > ranges_max
            && let Some(oldest) = self.ranges.pop_front()
        {
            self.floor = self.floor.max(oldest.end());
        }
    }

    /// Takes back what has a seq at or above `seq`.
    fn forget_from(&mut self, seq: Seq) {
        self.ranges.retain_mut(|r| {
            if r.seq + u64::from(r.count) > seq {
                r.count = u32::try_from(seq.saturating_sub(r.seq)).unwrap_or(0);
            }
            r.count > 0
        });
    }
}

/// What is to become of consecutive messages of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) index: u32,
    pub(crate) count: u32,
    pub(crate) verdict: Verdict,
}

/// What is to become of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    New,
    Duplicate(Option<Seq>),
    Refused(ErrorCode),
}

/// Pieces of a batch; nearly always one.
pub(crate) type Pieces = SmallVec<[Piece; 1]>;

/// Appends a piece, or lengthens the last one when it says the same.
fn push(pieces: &mut Pieces, piece: Piece) {
    if piece.count == 0 {
        return;
    }
    if let Some(last) = pieces.last_mut() {
        let same = match (last.verdict, piece.verdict) {
            (Verdict::Duplicate(Some(a)), Verdict::Duplicate(Some(b))) => a + u64::from(last.count) == b,
            (a, b) => a == b,
        };
        if same {
            last.count += piece.count;
            return;
        }
    }
    pieces.push(piece);
}

/// Who a batch is from, as the producer session says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) producer: u64,
    pub(crate) epoch: u32,
    pub(crate) counter: u64,
}

/// All producer sessions of a log.
#[derive(Debug)]
pub(crate) struct ProducerTable {
    sessions: HashMap<u64, Producer, ahash::RandomState>,
    budget: Arc<Budget>,
    ranges_max: usize,
    ttl: Duration,
    /// Sessions that the staged batches changed.
    touched: Vec<u64>,
    /// What sessions were before a staged batch began them anew.
    replaced: Vec<(u64, Option<Producer>)>,
    /// Before this no session can be idle long enough.
    next_sweep: Timestamp,
}

impl ProducerTable {
    pub(crate) fn new(budget: Arc<Budget>, ranges_max: usize, ttl: Duration) -> Self {
        Self {
            sessions: HashMap::default(),
            budget,
            ranges_max,
            ttl,
            touched: Vec::new(),
            replaced: Vec::new(),
            next_sweep: Timestamp::NONE,
        }
    }

    /// A table without limits on its number of sessions, to fold tables together.
    pub(crate) fn unlimited(ranges_max: usize, ttl: Duration) -> Self {
        Self::new(Budget::new(usize::MAX), ranges_max, ttl)
    }

    /// Says what is to become of `count` messages.
    pub(crate) fn judge(&mut self, origin: Origin, count: u32, now: Timestamp) -> Pieces {
        let mut out = Pieces::new();
        let one = |verdict| SmallVec::from_buf([Piece { index: 0, count, verdict }]);
        let Some(session) = self.sessions.get(&origin.producer) else {
            return one(if self.make_room(now) {
                Verdict::New
            } else {
                Verdict::Refused(ErrorCode::ProducersExhausted)
            });
        };
        if origin.epoch < session.epoch {
            return one(Verdict::Refused(ErrorCode::ProducerFenced));
        }
        if origin.epoch > session.epoch || session.ranges.back().map_or(session.floor, Range::end) <= origin.counter {
            return one(Verdict::New);
        }
        let (start, end) = (origin.counter, origin.counter.saturating_add(u64::from(count)));
        let mut at = start;
        let mut give = |from: &mut u64, to: u64, verdict| {
            let to = to.min(end);
            if *from < to {
                push(&mut out, Piece { index: (*from - start) as u32, count: (to - *from) as u32, verdict });
                *from = to;
            }
        };
        give(&mut at, session.floor, Verdict::Duplicate(None));
        let first = session.ranges.partition_point(|r| r.end() <= at);
        for range in session.ranges.range(first..) {
            give(&mut at, range.counter, Verdict::New);
            let known = range.seq + at.saturating_sub(range.counter);
            give(&mut at, range.end(), Verdict::Duplicate(Some(known)));
            if at >= end {
                break;
            }
        }
        give(&mut at, end, Verdict::New);
        out
    }

    /// Whether there is room for one more session; the long idle make some.
    fn make_room(&mut self, now: Timestamp) -> bool {
        if self.budget.used() < self.budget.max {
            return true;
        }
        if now < self.next_sweep {
            return false;
        }
        let before = self.sessions.len();
        let mut oldest = now;
        self.sessions.retain(|_, p| {
            let keep = p.last_seen.after(self.ttl) > now;
            if keep {
                oldest = oldest.min(p.last_seen);
            }
            keep
        });
        self.budget.give_back(before - self.sessions.len());
        // Sessions of the tenant's other logs may go meanwhile, so not later than in a second.
        self.next_sweep = oldest.after(self.ttl).min(now.after(Duration::from_secs(1)));
        self.budget.used() < self.budget.max
    }

    /// Remembers messages that were staged.
    pub(crate) fn stage(&mut self, origin: Origin, range: Range, now: Timestamp) {
        match self.sessions.get_mut(&origin.producer) {
            None => {
                self.budget.force();
                self.replaced.push((origin.producer, None));
                let fresh = Producer { epoch: origin.epoch, ..Producer::default() };
                self.sessions.insert(origin.producer, fresh);
            }
            Some(session) if session.epoch < origin.epoch => {
                let fresh = Producer { epoch: origin.epoch, ..Producer::default() };
                self.replaced.push((origin.producer, Some(std::mem::replace(session, fresh))));
            }
            Some(_) => {}
        }
        if let Some(session) = self.sessions.get_mut(&origin.producer) {
            session.last_seen = session.last_seen.max(now);
            session.add(range);
        }
        if self.touched.last() != Some(&origin.producer) {
            self.touched.push(origin.producer);
        }
    }

    /// The staged batches were written.
    pub(crate) fn commit(&mut self) {
        for producer in self.touched.drain(..) {
            if let Some(session) = self.sessions.get_mut(&producer) {
                session.prune(self.ranges_max);
            }
        }
        self.replaced.clear();
    }

    /// The staged batches, from `seq` on, were not written.
    pub(crate) fn rollback(&mut self, seq: Seq) {
        // What a newer epoch replaced comes back first: it may hold ranges of this very write, which must go too.
        for (producer, before) in std::mem::take(&mut self.replaced).into_iter().rev() {
            // A clock that jumps may have let the sweep take the session meanwhile, and its place in the budget with it.
            match before {
                Some(session) => self.restore(producer, session),
                None if self.sessions.remove(&producer).is_some() => self.budget.give_back(1),
                None => {}
            }
        }
        for producer in self.touched.drain(..) {
            if let Some(session) = self.sessions.get_mut(&producer) {
                session.forget_from(seq);
            }
        }
    }

    /// Takes in what a log holds, in the log's order.
    pub(crate) fn replay(&mut self, origin: Origin, range: Range, at: Timestamp) {
        self.stage(origin, range, at);
        self.commit();
    }

    /// Takes in a row of a segment's index.
    pub(crate) fn replay_row(&mut self, row: &ProducerRow, base_seq: Seq) {
        let origin = Origin { producer: row.producer, epoch: row.epoch, counter: row.counter };
        // A session of an older epoch was fenced when this was written.
        if self.sessions.get(&row.producer).is_some_and(|p| p.epoch > row.epoch) {
            return;
        }
        let range = Range { counter: row.counter, seq: base_seq + u64::from(row.seq), count: row.count };
        self.replay(origin, range, row.at);
    }

    /// Bytes that a sidecar needs for all of it.
    pub(crate) fn encoded_len(&self) -> usize {
        self.sessions.values().map(|p| 32 + p.ranges.len() * 20).sum()
    }

    /// Takes in a session as a sidecar has it.
    pub(crate) fn restore(&mut self, producer: u64, session: Producer) {
        if self.sessions.insert(producer, session).is_none() {
            self.budget.force();
        }
    }

    /// All sessions that are not idle for too long, by key.
    pub(crate) fn sorted(&self, now: Timestamp) -> Vec<(u64, &Producer)> {
        let mut out: Vec<_> =
            self.sessions.iter().filter(|(_, p)| p.last_seen.after(self.ttl) > now).map(|(k, p)| (*k, p)).collect();
        out.sort_unstable_by_key(|(k, _)| *k);
        out
    }

    pub(crate) fn clear(&mut self) {
        self.budget.give_back(self.sessions.len());
        self.sessions.clear();
    }
}

impl Drop for ProducerTable {
    fn drop(&mut self) {
        self.clear();
    }
}

/// How long idempotency keys are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyWindow {
    /// For this long after the message was stored.
    For(Duration),
    /// For as long as the message's segment is there.
    WhileKept,
}

impl Default for KeyWindow {
    fn default() -> Self {
        Self::For(limits::IDEMPOTENCY_WINDOW)
    }
}

/// A key's digest in two halves: 16 bytes without the alignment of a `u128`.
type Digest = [u64; 2];

fn digest(key: u128) -> Digest {
    [key as u64, (key >> 64) as u64]
}

#[derive(Debug)]
struct Bucket {
    /// When the first of its keys was stored, on the table's own clock; the last came within [`BUCKET_MS`] after it.
    time: u64,
    /// All its keys have seqs below.
    end_seq: Seq,
    keys: Vec<Digest>,
}

/// Keys of one bucket are stored within this time.
const BUCKET_MS: u64 = 1000;
/// Keys of one bucket at most, so that trimming by seq stays close.
const BUCKET_KEYS: usize = 4096;

/// A clock that never goes back, made of one that may. A step back stops it until the time comes again, and a step of
/// more than ten minutes is taken for a corrected clock: it goes on from there.
#[derive(Debug)]
struct Ticker {
    seen: Timestamp,
    ms: u64,
}

impl Ticker {
    const STEP: Duration = Duration::from_mins(10);

    fn tick(&mut self, now: Timestamp) {
        if now >= self.seen {
            self.ms += now.0 - self.seen.0;
            self.seen = now;
        } else if self.seen.since(now) > Self::STEP {
            self.seen = now;
        }
    }

    /// An earlier time on this clock; what claims to be later is now.
    fn earlier(&self, at: Timestamp) -> u64 {
        self.ms.saturating_sub(self.seen.0.saturating_sub(at.0))
    }
}

/// All idempotency keys of a log.
#[derive(Debug)]
pub(crate) struct KeyTable {
    keys: HashMap<Digest, (u64, Seq), ahash::RandomState>,
    /// In the order in which the keys came.
    buckets: VecDeque<Bucket>,
    window: KeyWindow,
    clock: Ticker,
    /// Keys stored below this seq are forgotten, although some may still be in the map.
    expired_below: Seq,
    /// How many of the first buckets are known to be expired.
    expired: usize,
    budget: Arc<Budget>,
    /// How many of the last keys belong to staged batches.
    staged: usize,
}

/// What a key's digest is known for.
enum Known {
    No,
    Same(Seq),
    Other,
}

impl KeyTable {
    pub(crate) fn new(window: KeyWindow, budget: Arc<Budget>, now: Timestamp) -> Self {
        // Far enough from zero for any key that the log still holds.
        let clock = Ticker { seen: now, ms: 1 << 50 };
        Self {
            keys: HashMap::default(),
            buckets: VecDeque::new(),
            window,
            clock,
            expired_below: 0,
            expired: 0,
            budget,
            staged: 0,
        }
    }

    fn find(&self, keyed: &Keyed) -> Known {
        match self.keys.get(&digest(keyed.key)) {
            Some((_, seq)) if *seq < self.expired_below => Known::No,
            Some((body, seq)) if *body == keyed.body => Known::Same(*seq),
            Some(_) => Known::Other,
            None => Known::No,
        }
    }

    /// What a key is known for; `None` when it is not. Remembers nothing.
    pub(crate) fn known(&mut self, keyed: &Keyed, now: Timestamp) -> Option<Verdict> {
        self.expire(now);
        match self.find(keyed) {
            Known::Same(seq) => Some(Verdict::Duplicate(Some(seq))),
            Known::Other => Some(Verdict::Refused(ErrorCode::IdempotencyConflict)),
            Known::No => None,
        }
    }

    /// Splits pieces at messages whose key is known, gives seqs from `next_seq` to the rest and remembers their keys.
    pub(crate) fn judge(&mut self, pieces: &Pieces, keys: &[Keyed], next_seq: Seq, now: Timestamp) -> Pieces {
        self.expire(now);
        let mut out = Pieces::new();
        let mut seq = next_seq;
        let mut keys = keys.iter().peekable();
        for piece in pieces {
            let end = piece.index + piece.count;
            if piece.verdict != Verdict::New {
                while keys.next_if(|k| k.index < end).is_some() {}
                push(&mut out, *piece);
                continue;
            }
            let mut index = piece.index;
            while let Some(keyed) = keys.next_if(|k| k.index < end) {
                // What stands between has no key.
                push(&mut out, Piece { index, count: keyed.index - index, verdict: Verdict::New });
                seq += u64::from(keyed.index - index);
                let verdict = match self.find(keyed) {
                    Known::Same(seq) => Verdict::Duplicate(Some(seq)),
                    Known::Other => Verdict::Refused(ErrorCode::IdempotencyConflict),
                    Known::No if self.take_room() => {
                        self.insert(keyed, seq, self.clock.ms);
                        self.staged += 1;
                        Verdict::New
                    }
                    Known::No => Verdict::Refused(ErrorCode::IdempotencyKeysExhausted),
                };
                seq += u64::from(verdict == Verdict::New);
                push(&mut out, Piece { index: keyed.index, count: 1, verdict });
                index = keyed.index + 1;
            }
            push(&mut out, Piece { index, count: end - index, verdict: Verdict::New });
            seq += u64::from(end - index);
        }
        out
    }

    fn take_room(&mut self) -> bool {
        while !self.budget.try_take() {
            if self.sweep(1024) == 0 {
                return false;
            }
        }
        true
    }

    /// Remembers a key; the budget was asked before.
    fn insert(&mut self, keyed: &Keyed, seq: Seq, at: u64) {
        let key = digest(keyed.key);
        if self.keys.insert(key, (keyed.body, seq)).is_some() {
            // An expired one that was still in the map. Its place in an old bucket finds a newer seq and lets it be.
            self.budget.give_back(1);
        }
        match self.buckets.back_mut() {
            Some(b) if b.keys.len() < BUCKET_KEYS && at < b.time + BUCKET_MS => {
                b.end_seq = seq + 1;
                b.keys.push(key);
            }
            _ => self.buckets.push_back(Bucket { time: at, end_seq: seq + 1, keys: vec![key] }),
        }
    }

    /// Takes in a key that the log holds.
    pub(crate) fn replay(&mut self, keyed: &Keyed, seq: Seq, stored_at: Timestamp) {
        self.budget.force();
        self.insert(keyed, seq, self.clock.earlier(stored_at));
    }

    /// Forgets what is older than the window.
    pub(crate) fn expire(&mut self, now: Timestamp) {
        self.clock.tick(now);
        if let KeyWindow::For(window) = self.window {
            let window = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
            while let Some(b) = self.buckets.get(self.expired)
                && b.time.saturating_add(BUCKET_MS).saturating_add(window) <= self.clock.ms
            {
                self.expired_below = self.expired_below.max(b.end_seq);
                self.expired += 1;
            }
        }
        self.sweep(64);
    }

    /// Forgets keys of messages below a seq that are no longer kept.
    pub(crate) fn trimmed(&mut self, first_seq: Seq) {
        if self.window == KeyWindow::WhileKept {
            self.expired_below = self.expired_below.max(first_seq);
        }
    }

    /// Takes some expired keys out of the map: a little with each batch, so that no batch pays for all.
    fn sweep(&mut self, most: usize) -> usize {
        let mut done = 0;
        while done < most
            && let Some(bucket) = self.buckets.front_mut()
            && bucket.end_seq <= self.expired_below
        {
            let end_seq = bucket.end_seq;
            if let Some(key) = bucket.keys.pop() {
                done += 1;
                if self.keys.get(&key).is_some_and(|(_, seq)| *seq < end_seq) {
                    self.keys.remove(&key);
                    self.budget.give_back(1);
                }
            } else {
                self.buckets.pop_front();
                self.expired = self.expired.saturating_sub(1);
            }
        }
        done
    }

    /// The staged batches were written.
    pub(crate) fn commit(&mut self) {
        self.staged = 0;
    }

    /// The staged batches were not written: their keys are free again.
    pub(crate) fn rollback(&mut self) {
        if planted::is(Bug::KeepFailedKeys) {
            self.staged = 0;
        }
        while self.staged > 0
            && let Some(bucket) = self.buckets.back_mut()
        {
            match bucket.keys.pop() {
                Some(key) => {
                    self.staged -= 1;
                    if self.keys.remove(&key).is_some() {
                        self.budget.give_back(1);
                    }
                }
                None => {
                    self.buckets.pop_back();
                }
            }
        }
        self.staged = 0;
    }

    pub(crate) fn clear(&mut self) {
        self.budget.give_back(self.keys.len());
        self.keys.clear();
        self.buckets.clear();
        self.expired = 0;
        self.staged = 0;
    }
}

impl Drop for KeyTable {
    fn drop(&mut self) {
        self.clear();
    }
}
