//! The form of delivery state in the log, and what reading it back gives.
//!
//! A record is a version byte, then entries, each an operation byte and varints. [`SUBSCRIPTION`] says whom the entries
//! after it are about. Entries only ever add: what is settled stays settled, a floor only rises, attempts are replaced
//! by later attempts. So a record may be cut between any two entries, read twice, or read after a snapshot that knows
//! it already, and the outcome is the same; that is what lets a snapshot be taken without stopping anything.
//!
//! Not in here: leases. A message that was leased when the process ended is given out again, with the attempts that
//! had failed by then.

use std::{collections::BTreeMap, ops::Range};

use acb_types::{
    ClassId, MessageId, Now, SubscriptionId, Timestamp,
    envelope::Text,
    frame::{put_varint, read_varint, varint_len},
    position::Seq,
};
use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    api::{Corrupt, DeathReason},
    ranges::{RangeMap, RangeSet},
    redelivery::{Back, Due, Dying},
    subscription::Dead,
};

/// The form of records that this version writes, and the newest that it reads.
const VERSION: u8 = 1;
/// Longest record.
pub(crate) const RECORD_BYTES_MAX: usize = 1 << 20;
/// Ranges in one entry at most, so that an entry always fits into a record.
const RANGES_PER_ENTRY: usize = 4096;

/// id
const SUBSCRIPTION: u8 = 1;
/// seq: everything below is settled
const FLOOR: u8 = 2;
/// n, then n times: gap from the end of the one before, length
const ACKED: u8 = 3;
/// as ACKED
const EXPIRED: u8 = 4;
/// first, length, failed, losses, due (ms since 1970), delay (ms)
const RETURNED: u8 = 5;
/// first, length, bytes, text
const ERROR: u8 = 6;
/// first, length, attempts, reason, bytes, text
const DYING: u8 = 7;
/// seq, attempts, 0 or 1; with 1: class, partition, epoch, seq of the dead letter
const DEAD: u8 = 8;

/// Writes records.
#[derive(Debug)]
pub(crate) struct Writer {
    parts: Vec<Bytes>,
    out: BytesMut,
    current: Option<SubscriptionId>,
    /// Whether `current` stands in `out` already.
    named: bool,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self { parts: Vec::new(), out: BytesMut::new(), current: None, named: false }
    }

    /// Whom the entries that follow are about. Costs nothing when none follows.
    pub(crate) fn subscription(&mut self, id: SubscriptionId) {
        self.current = Some(id);
        self.named = false;
    }

    /// Makes room for an entry of at most `len` bytes and starts it.
    fn entry(&mut self, op: u8, len: usize) {
        if self.out.len() + len + 16 > RECORD_BYTES_MAX {
            self.parts.push(self.out.split().freeze());
            self.named = false;
        }
        if self.out.is_empty() {
            self.out.put_u8(VERSION);
            self.named = false;
        }
        if !self.named
            && let Some(id) = self.current
        {
            self.out.put_u8(SUBSCRIPTION);
            put_varint(&mut self.out, id.0);
            self.named = true;
        }
        self.out.put_u8(op);
    }

    fn numbers<const N: usize>(&mut self, op: u8, numbers: [u64; N], room: usize) {
        self.entry(op, 1 + 10 * N + room);
        for n in numbers {
            put_varint(&mut self.out, n);
        }
    }

    fn text(&mut self, text: &Text) {
        put_varint(&mut self.out, text.as_bytes().len() as u64);
        self.out.put_slice(text.as_bytes());
    }

    pub(crate) fn floor(&mut self, seq: Seq) {
        self.numbers(FLOOR, [seq], 0);
    }

    pub(crate) fn acked(&mut self, ranges: impl Iterator<Item = Range<Seq>>) {
        self.ranges(ACKED, ranges);
    }

    pub(crate) fn expired(&mut self, ranges: impl Iterator<Item = Range<Seq>>) {
        self.ranges(EXPIRED, ranges);
    }

    fn ranges(&mut self, op: u8, mut ranges: impl Iterator<Item = Range<Seq>>) {
        loop {
            let chunk: Vec<_> = ranges.by_ref().take(RANGES_PER_ENTRY).collect();
            let mut at = 0;
            let gaps = |r: &Range<Seq>, at: &mut Seq| {
                let gap = r.start - *at;
                *at = r.end;
                [gap, r.end - r.start]
            };
            let len: usize = chunk.iter().flat_map(|r| gaps(r, &mut at)).map(varint_len).sum();
            if chunk.is_empty() {
                return;
            }
            self.numbers(op, [chunk.len() as u64], len);
            at = 0;
            for n in chunk.iter().flat_map(|r| gaps(r, &mut at)) {
                put_varint(&mut self.out, n);
            }
        }
    }

    pub(crate) fn returned(&mut self, range: Range<Seq>, back: &Back) {
        if (back.failed == 0 && back.losses == 0) || range.is_empty() {
            return;
        }
        let due = back.due;
        let len = range.end - range.start;
        self.numbers(RETURNED, [range.start, len, back.failed.into(), back.losses.into(), due.wall.0, due.delay_ms], 0);
    }

    pub(crate) fn error(&mut self, range: Range<Seq>, text: &Text) {
        if range.is_empty() {
            return;
        }
        self.numbers(ERROR, [range.start, range.end - range.start], 10 + text.as_bytes().len());
        self.text(text);
    }

    pub(crate) fn dying(&mut self, range: Range<Seq>, dying: &Dying) {
        if range.is_empty() {
            return;
        }
        let reason = match dying.reason {
            DeathReason::AttemptsExhausted => 0,
            DeathReason::Terminated => 1,
            DeathReason::ConnectionLost => 2,
        };
        let numbers = [range.start, range.end - range.start, dying.attempts.into(), reason];
        self.numbers(DYING, numbers, 10 + dying.last_error.as_bytes().len());
        self.text(&dying.last_error);
    }

    pub(crate) fn dead(&mut self, dead: impl Iterator<Item = (Seq, Dead)>) {
        for (seq, dead) in dead {
            match dead.letter {
                None => self.numbers(DEAD, [seq, dead.attempts.into(), 0], 0),
                Some(id) => {
                    let numbers =
                        [seq, dead.attempts.into(), 1, id.class.0.into(), id.partition.into(), id.epoch.into(), id.seq];
                    self.numbers(DEAD, numbers, 0);
                }
            }
        }
    }

    /// The records, in order.
    pub(crate) fn finish(mut self) -> Vec<Bytes> {
        if !self.out.is_empty() {
            self.parts.push(self.out.freeze());
        }
        self.parts
    }
}

/// What the records say of one subscription.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    pub(crate) floor: Seq,
    /// Settled, whichever way.
    pub(crate) settled: RangeSet,
    pub(crate) expired: RangeSet,
    pub(crate) returned: RangeMap<Back>,
    pub(crate) errors: RangeMap<Text>,
    pub(crate) dying: RangeMap<Dying>,
    pub(crate) dead: BTreeMap<Seq, Dead>,
}

impl Restored {
    fn settle(&mut self, range: Range<Seq>) {
        self.returned.take(range.clone());
        self.errors.take(range.clone());
        self.dying.take(range.clone());
        self.settled.insert(range);
    }

    fn raise_floor(&mut self, floor: Seq) {
        if floor > self.floor {
            self.settle(0..floor);
            self.floor = floor;
        }
    }

    /// The parts of a range that may still be changed.
    fn unsettled(&self, range: Range<Seq>) -> impl Iterator<Item = Range<Seq>> + use<> {
        self.settled.gaps(range).into_iter()
    }
}

/// Reads records in order, as [`Writer`] wrote them.
///
/// # Errors
/// The first byte that makes no sense, or a version of later days.
pub(crate) fn read(records: &[Bytes], now: Now) -> Result<BTreeMap<SubscriptionId, Restored>, Corrupt> {
    let mut out: BTreeMap<SubscriptionId, Restored> = BTreeMap::new();
    for (index, record) in records.iter().enumerate() {
        let mut reader = Reader { record: index, bytes: record, at: 0 };
        match record.first() {
            Some(&VERSION) => reader.at = 1,
            Some(_) => return Err(reader.corrupt("unknown version")),
            None => return Err(reader.corrupt("empty")),
        }
        let mut current = None;
        while reader.at < record.len() {
            let op = record[reader.at];
            reader.at += 1;
            if op == SUBSCRIPTION {
                current = Some(SubscriptionId(reader.number()?));
                continue;
            }
            let Some(id) = current else { return Err(reader.corrupt("entry of no subscription")) };
            reader.entry(op, out.entry(id).or_default(), now)?;
        }
    }
    Ok(out)
}

struct Reader<'a> {
    record: usize,
    bytes: &'a Bytes,
    at: usize,
}

impl Reader<'_> {
    fn corrupt(&self, what: &'static str) -> Corrupt {
        Corrupt { record: self.record, at: self.at, what }
    }

    fn number(&mut self) -> Result<u64, Corrupt> {
        read_varint(self.bytes, &mut self.at).ok_or_else(|| self.corrupt("truncated number"))
    }

    fn small<T: TryFrom<u64>>(&mut self) -> Result<T, Corrupt> {
        let n = self.number()?;
        T::try_from(n).map_err(|_| self.corrupt("number out of range"))
    }

    fn range(&mut self, base: Seq) -> Result<Range<Seq>, Corrupt> {
        let (gap, len) = (self.number()?, self.number()?);
        let ends = base.checked_add(gap).and_then(|from| Some(from..from.checked_add(len)?));
        match ends {
            Some(range) if !range.is_empty() => Ok(range),
            _ => Err(self.corrupt("bad range")),
        }
    }

    /// A text, in memory of its own: a slice would keep the whole record.
    fn text(&mut self) -> Result<Text, Corrupt> {
        let len: usize = self.small()?;
        let slice = self.at.checked_add(len).and_then(|end| self.bytes.get(self.at..end));
        let Some(text) = slice.and_then(|s| std::str::from_utf8(s).ok()) else { return Err(self.corrupt("bad text")) };
        self.at += len;
        Ok(if text.is_empty() { Text::EMPTY } else { Text::from(text) })
    }

    fn entry(&mut self, op: u8, into: &mut Restored, now: Now) -> Result<(), Corrupt> {
        match op {
            FLOOR => {
                let floor = self.number()?;
                into.raise_floor(floor);
            }
            ACKED | EXPIRED => {
                let mut at = 0;
                for _ in 0..self.number()? {
                    let range = self.range(at)?;
                    at = range.end;
                    if op == EXPIRED {
                        into.expired.insert(range.clone());
                    }
                    into.settle(range);
                }
            }
            RETURNED => {
                let range = self.range(0)?;
                let (failed, losses) = (self.small()?, self.small()?);
                let (wall, delay) = (Timestamp(self.number()?), self.number()?);
                for r in into.unsettled(range) {
                    into.returned.take(r.clone());
                    into.returned.insert(r, Back { failed, losses, due: Due::resumed(wall, delay, now) });
                }
            }
            ERROR => {
                let range = self.range(0)?;
                let text = self.text()?;
                for r in into.unsettled(range) {
                    into.errors.take(r.clone());
                    into.errors.insert(r, text.clone());
                }
            }
            DYING => {
                let range = self.range(0)?;
                let attempts = self.small()?;
                let reason = match self.number()? {
                    0 => DeathReason::AttemptsExhausted,
                    1 => DeathReason::Terminated,
                    2 => DeathReason::ConnectionLost,
                    _ => return Err(self.corrupt("unknown reason")),
                };
                let last_error = self.text()?;
                for r in into.unsettled(range) {
                    into.returned.take(r.clone());
                    into.dying.take(r.clone());
                    into.dying.insert(r, Dying { attempts, reason, last_error: last_error.clone() });
                }
            }
            DEAD => {
                let seq = self.number()?;
                let attempts = self.small()?;
                let letter = match self.number()? {
                    0 => None,
                    1 => Some(MessageId {
                        class: ClassId(self.small()?),
                        partition: self.small()?,
                        epoch: self.small()?,
                        seq: self.number()?,
                    }),
                    _ => return Err(self.corrupt("unknown form of a dead letter")),
                };
                let Some(end) = seq.checked_add(1) else { return Err(self.corrupt("bad seq")) };
                into.settle(seq..end);
                into.dead.insert(seq, Dead { attempts, letter });
            }
            _ => return Err(self.corrupt("unknown entry")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(wall: u64) -> Now {
        Now { mono_ms: 1000, wall: Timestamp(wall) }
    }

    fn letter(seq: Seq) -> MessageId {
        MessageId { class: ClassId::DEAD_LETTERS, partition: 3, epoch: 9, seq }
    }

    #[test]
    fn every_entry_reads_back_what_was_written() {
        let mut w = Writer::new();
        w.subscription(SubscriptionId(1));
        w.subscription(SubscriptionId(300));
        w.floor(10);
        w.acked([12..14, 20..700_000].into_iter());
        w.expired(std::iter::once(15..16));
        let back = Back { failed: 3, losses: 1, due: Due { mono_ms: 77, wall: Timestamp(5_400), delay_ms: 1000 } };
        w.returned(16..18, &back);
        w.returned(18..19, &Back::default());
        w.error(16..17, &Text::from("no such table"));
        let dying = Dying { attempts: 5, reason: DeathReason::ConnectionLost, last_error: Text::from("é") };
        w.dying(19..20, &dying);
        w.subscription(SubscriptionId(2));
        w.dead(
            [(4, Dead { attempts: 5, letter: Some(letter(1)) }), (6, Dead { attempts: 1, letter: None })].into_iter(),
        );
        let parts = w.finish();
        assert_eq!(parts.len(), 1);
        let read = read(&parts, now(5_000)).unwrap();
        assert_eq!(read.keys().map(|k| k.0).collect::<Vec<_>>(), [2, 300], "nothing is written of one without entries");
        let one = &read[&SubscriptionId(300)];
        assert_eq!(one.floor, 10);
        assert_eq!(one.settled.iter().collect::<Vec<_>>(), [0..10, 12..14, 15..16, 20..700_000]);
        assert!(one.expired.iter().eq(std::iter::once(15..16)));
        let due = Due { mono_ms: 1400, ..back.due };
        assert_eq!(one.returned.iter().collect::<Vec<_>>(), [(16..18, &Back { due, ..back })]);
        assert_eq!(one.errors.iter().collect::<Vec<_>>(), [(16..17, &Text::from("no such table"))]);
        assert_eq!(one.dying.iter().collect::<Vec<_>>(), [(19..20, &dying)]);
        let two = &read[&SubscriptionId(2)];
        assert_eq!(two.dead[&4].letter, Some(letter(1)));
        assert_eq!(two.dead[&6], Dead { attempts: 1, letter: None });
        assert_eq!(two.settled.iter().collect::<Vec<_>>(), [4..5, 6..7]);
    }

    #[test]
    fn what_is_settled_stays_settled_whatever_comes_after() {
        let back = Back { failed: 1, ..Back::default() };
        let mut w = Writer::new();
        w.subscription(SubscriptionId(1));
        w.returned(1..9, &back);
        w.acked(std::iter::once(3..5));
        w.returned(1..9, &Back { failed: 2, ..back });
        w.floor(2);
        w.floor(1);
        let read = read(&w.finish(), now(0)).unwrap();
        let one = &read[&SubscriptionId(1)];
        assert_eq!(one.floor, 2);
        assert_eq!(one.returned.iter().map(|(r, b)| (r, b.failed)).collect::<Vec<_>>(), [(2..3, 2), (5..9, 2)]);
    }

    #[test]
    fn long_state_is_cut_into_records_that_each_stand_alone() {
        let mut w = Writer::new();
        w.subscription(SubscriptionId(7));
        w.acked((0..300_000u64).map(|i| i * 1000 + 1..i * 1000 + 3));
        for i in 0..2000u64 {
            let dying =
                Dying { attempts: 5, reason: DeathReason::Terminated, last_error: Text::from("x".repeat(1024)) };
            w.dying(i * 1000..i * 1000 + 1, &dying);
        }
        let parts = w.finish();
        assert!(parts.len() > 2 && parts.iter().all(|p| p.len() <= RECORD_BYTES_MAX), "{}", parts.len());
        let one = read(&parts, now(0)).unwrap().remove(&SubscriptionId(7)).unwrap();
        assert_eq!((one.settled.len(), one.dying.len()), (300_000, 2000));
        for part in &parts {
            assert!(read(std::slice::from_ref(part), now(0)).is_ok());
        }
    }

    #[test]
    fn damaged_records_are_refused_wherever_they_are_cut_and_never_panic() {
        let mut w = Writer::new();
        w.subscription(SubscriptionId(7));
        w.floor(5);
        w.acked([300..400, 500..600].into_iter());
        w.returned(7..9, &Back { failed: 200, losses: 2, due: Due::default() });
        w.dying(9..10, &Dying { attempts: 5, reason: DeathReason::Terminated, last_error: Text::from("xyz") });
        w.dead(std::iter::once((4, Dead { attempts: 5, letter: Some(letter(1)) })));
        let whole = w.finish().remove(0);
        let mut refused = 0;
        for len in 0..whole.len() {
            let cut = whole.slice(..len);
            if let Err(e) = read(&[whole.clone(), cut], now(0)) {
                assert_eq!(e.record, 1);
                refused += 1;
            }
        }
        // Cuts between entries are whole records.
        assert!(refused >= whole.len() - 8, "{refused} of {}", whole.len());
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.to_vec();
                bytes[at] ^= 1 << bit;
                let _ = read(&[bytes.into()], now(0));
            }
        }
        let text = read(&[Bytes::from_static(&[2])], now(0)).unwrap_err().to_string();
        assert_eq!(text, "state record 0 is damaged at byte 0: unknown version");
        assert!(read(&[Bytes::from_static(&[1, FLOOR, 4])], now(0)).is_err(), "an entry of nobody");
        let huge = [1, SUBSCRIPTION, 1, ACKED, 1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1, 5];
        assert!(read(&[Bytes::copy_from_slice(&huge)], now(0)).is_err(), "a range past the end of numbers");
    }
}
