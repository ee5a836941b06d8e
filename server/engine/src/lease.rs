//! Who has what until when. Leases are kept as runs of at most 512 seqs with a bit per message, so that a full frame
//! costs one entry and settling it touches eight words.
//!
//! Runs lie in a queue sorted by their first seq. Their spans may overlap (a redelivery inside an older run, a part of a
//! run whose lease was renewed), so a search for a seq starts 512 seqs below it; a message has one bit in one run only.
//! A run that is used up stays as an empty entry until it reaches an end of the queue or empty ones are the majority:
//! removal from the middle would cost more than skipping.

use std::{collections::VecDeque, ops::Range};

use acb_types::{limits, position::Seq};

use crate::{
    mask::{Mask, SPAN},
    planted::{Bug, planted},
};

/// Leases given at most this long after a run's first join it: their own leases then last up to this much longer.
const JOIN_MS: u64 = 10;
/// A run of several messages has at most so many bytes. A run that is settled in part gives back equal shares, so this
/// bounds how far a session's account of bytes can be off.
const JOIN_BYTES: u64 = limits::FRAME_BYTES_MAX as u64;

/// Consecutive or nearly consecutive messages leased to one session on one attempt.
#[derive(Clone, Debug)]
pub(crate) struct LeaseRun {
    /// Seq of position 0 of the masks.
    pub(crate) first: Seq,
    /// Number, in the session, of the first message given.
    delivery: u64,
    /// When the lease ends, on the monotonic clock.
    pub(crate) deadline: u64,
    since: u64,
    /// Bytes of what is open. A part settled gives back its share.
    bytes: u32,
    /// Slab index of the session.
    pub(crate) session: u32,
    /// Attempts that failed before this one.
    pub(crate) failed: u32,
    /// Connections lost since the last failed attempt.
    pub(crate) losses: u8,
    given: Mask,
    /// One more than the highest position given.
    span: u32,
    open: Mask,
    remaining: u32,
}

impl LeaseRun {
    /// The messages whose lease runs, as ranges of seqs.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range<Seq>> {
        seqs(self.first, self.open)
    }

    /// Those of them inside a range.
    pub(crate) fn within(&self, range: &Range<Seq>) -> impl Iterator<Item = Range<Seq>> + use<> {
        seqs(self.first, self.select(range))
    }

    /// The open positions inside a range of seqs.
    fn select(&self, range: &Range<Seq>) -> Mask {
        let from = range.start.saturating_sub(self.first).min(SPAN);
        let to = range.end.saturating_sub(self.first).min(SPAN);
        if from >= to {
            return Mask::default();
        }
        if from == 0 && to == SPAN { self.open } else { self.open.and(&Mask::range(from as u32, to as u32)) }
    }
}

/// A mask's members as ranges of seqs.
pub(crate) fn seqs(first: Seq, mask: Mask) -> impl Iterator<Item = Range<Seq>> {
    mask.stretches().map(move |(from, to)| first + u64::from(from)..first + u64::from(to))
}

/// Messages given to a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grant {
    pub(crate) session: u32,
    pub(crate) delivery: u64,
    pub(crate) first: Seq,
    pub(crate) count: u32,
    pub(crate) bytes: u64,
    pub(crate) failed: u32,
    pub(crate) losses: u8,
    pub(crate) now: u64,
    pub(crate) deadline: u64,
}

/// Leases that ended, of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    first: Seq,
    mask: Mask,
    pub(crate) count: u32,
    pub(crate) bytes: u64,
    pub(crate) session: u32,
    pub(crate) failed: u32,
    pub(crate) losses: u8,
}

impl Ended {
    /// The messages, as ranges of seqs.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range<Seq>> + use<> {
        seqs(self.first, self.mask)
    }
}

/// The leases of one subscription.
#[derive(Debug, Default)]
pub(crate) struct LeaseTable {
    runs: VecDeque<LeaseRun>,
    empty: usize,
    messages: u32,
}

impl LeaseTable {
    /// Messages whose lease runs.
    pub(crate) fn messages(&self) -> u32 {
        self.messages
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// Runs with something open, in order of their first seq.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &LeaseRun> {
        self.runs.iter().filter(|r| r.remaining > 0)
    }

    /// Runs that may have something open in a range.
    pub(crate) fn overlapping(&self, range: &Range<Seq>) -> impl Iterator<Item = &LeaseRun> {
        self.runs.range(self.span_of(range)).filter(|r| r.remaining > 0)
    }

    /// The lowest leased seq.
    pub(crate) fn first(&self) -> Option<Seq> {
        let mut best: Option<Seq> = None;
        for run in self.iter() {
            if best.is_some_and(|b| run.first >= b) {
                break;
            }
            let low = run.open.first().map(|p| run.first + u64::from(p));
            best = match (best, low) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        best
    }

    /// The run that holds a seq.
    pub(crate) fn get(&self, seq: Seq) -> Option<&LeaseRun> {
        let range = seq..seq + 1;
        self.overlapping(&range).find(|r| !r.select(&range).is_empty())
    }

    fn span_of(&self, range: &Range<Seq>) -> Range<usize> {
        // Acks mostly name what is at the front.
        let from = match self.runs.front() {
            Some(front) if front.first + SPAN > range.start => 0,
            _ => self.runs.partition_point(|r| r.first + SPAN <= range.start),
        };
        let to = match self.runs.back() {
            Some(back) if back.first < range.end => self.runs.len(),
            _ => self.runs.partition_point(|r| r.first < range.end),
        };
        from..to.max(from)
    }

    /// Leases messages. Their seqs are consecutive and none of them is leased.
    pub(crate) fn grant(&mut self, mut grant: Grant) {
        debug_assert!(
            planted(Bug::DoubleLease)
                || (grant.first..grant.first + u64::from(grant.count)).all(|s| self.get(s).is_none()),
            "{grant:?}"
        );
        self.messages += grant.count;
        while grant.count > 0 {
            let at = match self.runs.back() {
                Some(back) if back.first > grant.first => self.runs.partition_point(|r| r.first <= grant.first),
                _ => self.runs.len(),
            };
            let joined = at.checked_sub(1).and_then(|i| self.runs.get_mut(i)).map_or(0, |run| join(run, &grant));
            let count = if joined > 0 { joined } else { grant.count.min(SPAN as u32) };
            let bytes = share(grant.bytes, count, grant.count);
            if joined > 0 {
                if let Some(run) = self.runs.get_mut(at - 1) {
                    run.bytes += bytes as u32;
                }
            } else {
                let mask = Mask::range(0, count);
                let run = LeaseRun {
                    first: grant.first,
                    delivery: grant.delivery,
                    deadline: grant.deadline,
                    since: grant.now,
                    bytes: bytes as u32,
                    session: grant.session,
                    failed: grant.failed,
                    losses: grant.losses,
                    given: mask,
                    span: count,
                    open: mask,
                    remaining: count,
                };
                if at == self.runs.len() {
                    self.runs.push_back(run);
                } else {
                    self.runs.insert(at, run);
                }
            }
            grant.first += u64::from(count);
            grant.delivery += u64::from(count);
            grant.count -= count;
            grant.bytes -= bytes;
        }
    }

    /// Ends leases in a range. `each` sees every run that has something open there and says whether that ends; what
    /// ended is handed to it first as if it had.
    pub(crate) fn end(&mut self, range: Range<Seq>, mut each: impl FnMut(&LeaseRun, Ended) -> bool) {
        if range.is_empty() {
            return;
        }
        for i in self.span_of(&range) {
            let run = &mut self.runs[i];
            if run.remaining == 0 {
                continue;
            }
            let mask = run.select(&range);
            let count = if mask == run.open { run.remaining } else { mask.count() };
            if count == 0 {
                continue;
            }
            let bytes = share(u64::from(run.bytes), count, run.remaining);
            let ended = Ended {
                first: run.first,
                mask,
                count,
                bytes,
                session: run.session,
                failed: run.failed,
                losses: run.losses,
            };
            if !each(run, ended) {
                continue;
            }
            run.open = run.open.without(&mask);
            run.remaining -= count;
            run.bytes -= bytes as u32;
            self.messages -= count;
            if run.remaining == 0 {
                self.empty += 1;
            }
        }
        self.tidy();
    }

    /// Ends what a session was given after its `delivery`-th message.
    pub(crate) fn end_after(&mut self, session: u32, delivery: u64, mut each: impl FnMut(Ended)) {
        for run in &mut self.runs {
            if run.session != session || run.remaining == 0 {
                continue;
            }
            let arrived = (delivery + 1).saturating_sub(run.delivery);
            let mask = run.open.and(&run.given.after_nth(arrived));
            let count = mask.count();
            if count == 0 {
                continue;
            }
            let bytes = share(u64::from(run.bytes), count, run.remaining);
            run.open = run.open.without(&mask);
            run.remaining -= count;
            run.bytes -= bytes as u32;
            self.messages -= count;
            if run.remaining == 0 {
                self.empty += 1;
            }
            each(Ended { first: run.first, mask, count, bytes, session, failed: run.failed, losses: run.losses });
        }
        self.tidy();
    }

    /// Starts the leases of a session in a range anew.
    pub(crate) fn renew(&mut self, range: Range<Seq>, session: u32, now: u64, deadline: u64) {
        let mut parts: Vec<LeaseRun> = Vec::new();
        for i in self.span_of(&range) {
            let run = &mut self.runs[i];
            if run.session != session || run.remaining == 0 {
                continue;
            }
            let mask = run.select(&range);
            let count = mask.count();
            if count == run.remaining {
                run.deadline = deadline;
                run.since = now;
            } else if count > 0 {
                let bytes = share(u64::from(run.bytes), count, run.remaining) as u32;
                parts.push(LeaseRun { deadline, since: now, bytes, open: mask, remaining: count, ..run.clone() });
                run.open = run.open.without(&mask);
                run.remaining -= count;
                run.bytes -= bytes;
            }
        }
        for part in parts {
            self.rejoin(part);
        }
    }

    /// Puts a part of a run back with a deadline of its own, into a part that has the same if there is one.
    fn rejoin(&mut self, part: LeaseRun) {
        let from = self.runs.partition_point(|r| r.first < part.first);
        let to = self.runs.partition_point(|r| r.first <= part.first);
        let twin = self.runs.range_mut(from..to).find(|r| {
            r.remaining > 0
                && r.deadline == part.deadline
                && r.session == part.session
                && r.delivery == part.delivery
                && r.given == part.given
                && r.failed == part.failed
                && r.losses == part.losses
        });
        match twin {
            Some(run) => {
                run.open = run.open.or(&part.open);
                run.remaining += part.remaining;
                run.bytes += part.bytes;
            }
            None => self.runs.insert(to, part),
        }
    }

    /// Drops used-up runs where that is cheap.
    fn tidy(&mut self) {
        while self.runs.front().is_some_and(|r| r.remaining == 0) {
            self.runs.pop_front();
            self.empty -= 1;
        }
        while self.runs.back().is_some_and(|r| r.remaining == 0) {
            self.runs.pop_back();
            self.empty -= 1;
        }
        if self.empty > 64 && self.empty * 2 > self.runs.len() {
            self.runs.retain(|r| r.remaining > 0);
            self.empty = 0;
        }
        if self.runs.is_empty() && self.runs.capacity() > 64 {
            self.runs.shrink_to(16);
        }
    }
}

/// Adds messages to a run they continue; answers how many fitted.
fn join(run: &mut LeaseRun, grant: &Grant) -> u32 {
    let offset = grant.first.wrapping_sub(run.first);
    let follows = run.remaining > 0
        && run.session == grant.session
        && run.failed == grant.failed
        && run.losses == grant.losses
        && (u64::from(run.span)..SPAN).contains(&offset)
        && grant.now.saturating_sub(run.since) <= JOIN_MS
        && u64::from(run.bytes) + grant.bytes <= JOIN_BYTES
        && run.delivery + u64::from(run.given.count()) == grant.delivery;
    if !follows {
        return 0;
    }
    let offset = offset as u32;
    let count = grant.count.min(SPAN as u32 - offset);
    run.given.fill(offset, offset + count);
    run.open.fill(offset, offset + count);
    run.span = offset + count;
    run.remaining += count;
    run.deadline = run.deadline.max(grant.deadline);
    count
}

/// The share of `part` in `whole`; all of it for the whole.
fn share(bytes: u64, part: u32, whole: u32) -> u64 {
    if part == whole { bytes } else { bytes * u64::from(part) / u64::from(whole.max(1)) }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn grant(session: u32, delivery: u64, first: Seq, count: u32, now: u64) -> Grant {
        Grant {
            session,
            delivery,
            first,
            count,
            bytes: u64::from(count) * 100,
            failed: 0,
            losses: 0,
            now,
            deadline: now + 1000,
        }
    }

    fn open(table: &LeaseTable) -> BTreeMap<Seq, (u32, u64)> {
        table.iter().flat_map(|r| r.ranges().flatten().map(|s| (s, (r.session, r.deadline)))).collect()
    }

    #[test]
    fn consecutive_deliveries_to_one_session_share_a_run() {
        let mut table = LeaseTable::default();
        for i in 0..512u64 {
            table.grant(grant(1, i + 1, 10 + i, 1, i / 100));
        }
        assert_eq!(table.runs.len(), 1);
        table.grant(grant(1, 513, 522, 1, 6));
        assert_eq!(table.runs.len(), 2, "a run spans 512 seqs");
        table.grant(grant(1, 514, 523, 1, 6 + JOIN_MS + 1));
        assert_eq!(table.runs.len(), 3, "leases of a run start together");
        table.grant(Grant { bytes: JOIN_BYTES, ..grant(1, 515, 524, 1, 6 + JOIN_MS + 1) });
        assert_eq!(table.runs.len(), 4, "a large message is accounted for alone");
    }

    #[test]
    fn what_came_after_a_delivery_ends_whatever_was_settled_between() {
        let mut table = LeaseTable::default();
        // Deliveries 1..=4 are seqs 10, 12, 14, 16.
        for (i, seq) in [10, 12, 14, 16].into_iter().enumerate() {
            table.grant(grant(1, i as u64 + 1, seq, 1, 0));
        }
        assert_eq!(table.runs.len(), 1);
        table.end(12..13, |_, _| true);
        let mut ended = Vec::new();
        table.end_after(1, 2, |e| ended.extend(e.ranges().flatten()));
        assert_eq!(ended, [14, 16]);
        assert_eq!(open(&table).into_keys().collect::<Vec<_>>(), [10]);
    }

    #[test]
    fn used_up_runs_behind_a_held_one_do_not_pile_up() {
        let mut table = LeaseTable::default();
        table.grant(grant(1, 1, 1, 1, 0));
        for i in 0..10_000u64 {
            let seq = 1000 + i * 600;
            table.grant(grant(1, 2 + i, seq, 1, i));
            table.end(seq..seq + 1, |_, _| true);
        }
        assert!(table.runs.len() < 200, "{} runs", table.runs.len());
        assert_eq!(table.messages(), 1);
        assert_eq!(table.first(), Some(1));
    }

    proptest! {
        #[test]
        fn a_lease_table_agrees_with_a_map(ops in prop::collection::vec((0u8..8, 0u64..1600, 1u32..700, 0u32..2), 1..60)) {
            let mut table = LeaseTable::default();
            let mut model: BTreeMap<Seq, (u32, u64)> = BTreeMap::new();
            let mut numbers: BTreeMap<Seq, u64> = BTreeMap::new();
            let mut next = [1u64, 1];
            let mut now = 0;
            for (op, from, len, session) in ops {
                let range = from..from + u64::from(len);
                now += u64::from(len % 7);
                match op {
                    0..=3 => {
                        // Grants what is free in the range, stretch by stretch.
                        let free: BTreeSet<_> = range.clone().filter(|s| !model.contains_key(s)).collect();
                        let mut set = crate::ranges::RangeSet::default();
                        for s in free {
                            set.insert(s..s + 1);
                        }
                        for r in set.iter() {
                            let count = (r.end - r.start) as u32;
                            table.grant(grant(session, next[session as usize], r.start, count, now));
                            for s in r {
                                numbers.insert(s, next[session as usize]);
                                next[session as usize] += 1;
                                model.insert(s, (session, now + 1000));
                            }
                        }
                    }
                    4 | 5 => {
                        let mut ended = BTreeSet::new();
                        table.end(range.clone(), |run, e| {
                            if run.session == session {
                                ended.extend(e.ranges().flatten());
                            }
                            run.session == session
                        });
                        let expected: BTreeSet<_> = model.range(range).filter(|(_, v)| v.0 == session).map(|(s, _)| *s).collect();
                        prop_assert_eq!(&ended, &expected);
                        model.retain(|s, _| !ended.contains(s));
                    }
                    6 => {
                        table.renew(range.clone(), session, now, now + 1000);
                        for (_, v) in model.range_mut(range).filter(|(_, v)| v.0 == session) {
                            v.1 = now + 1000;
                        }
                    }
                    _ => {
                        let after = next[session as usize].saturating_sub(u64::from(len) / 4);
                        let mut ended = BTreeSet::new();
                        table.end_after(session, after, |e| ended.extend(e.ranges().flatten()));
                        let expected: BTreeSet<_> =
                            model.iter().filter(|(s, v)| v.0 == session && numbers[s] > after).map(|(s, _)| *s).collect();
                        prop_assert_eq!(&ended, &expected);
                        model.retain(|s, _| !ended.contains(s));
                    }
                }
                let is = open(&table);
                prop_assert_eq!(is.keys().collect::<Vec<_>>(), model.keys().collect::<Vec<_>>());
                for (seq, (session, deadline)) in &is {
                    let (wanted, due) = model[seq];
                    prop_assert_eq!(*session, wanted);
                    prop_assert!((due..=due + JOIN_MS).contains(deadline), "seq {}: {} for {}", seq, deadline, due);
                }
                prop_assert_eq!(table.messages() as usize, model.len());
                prop_assert_eq!(table.first(), model.keys().next().copied());
                prop_assert!(table.runs.iter().zip(table.runs.iter().skip(1)).all(|(a, b)| a.first <= b.first));
                prop_assert_eq!(table.get(from).map(|r| r.session), model.get(&from).map(|v| v.0));
                let bytes: u64 = table.runs.iter().map(|r| u64::from(r.bytes)).sum();
                prop_assert_eq!(bytes == 0, model.is_empty());
            }
        }
    }
}
