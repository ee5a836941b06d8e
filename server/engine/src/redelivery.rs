//! Messages that came back: ready to go again, waiting for their time, or on their way to the dead letters; and how
//! long they wait.
//!
//! What came back is kept as ranges of equal fate: a run of 512 whose lease ended is one entry. Seam: priority lanes put
//! one `ready` per lane here, and order keys a set of keys that wait for an earlier message of theirs.

use std::{ops::Range, time::Duration};

use acb_types::{Now, Timestamp, envelope::Text, limits, position::Seq};

use crate::{
    api::DeathReason,
    ranges::{RangeMap, Taken},
};

/// Most bytes of a consumer's error that are kept while a message waits for its next attempt. The error of the attempt
/// that kills it goes into the dead letter whole.
const KEPT_ERROR_BYTES: usize = 256;
/// Errors that are kept of one subscription; above it further ones are not.
pub(crate) const KEPT_ERRORS: usize = 4096;

/// What is known of a message between two attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Back {
    /// Attempts that failed.
    pub(crate) failed: u32,
    /// Connections lost since the last of them.
    pub(crate) losses: u8,
    /// When it goes again.
    pub(crate) due: Due,
}

/// How leases ended without their messages being done.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Failure<'a> {
    /// The consumer failed.
    Nacked { delay: Option<Duration>, reason: &'a str },
    /// Its time was over.
    LeaseEnded,
    /// The connection was lost.
    Lost,
    /// The consumer gave the message up.
    Terminated { reason: &'a str },
    /// The consumer gave it back untouched.
    Released,
}

impl<'a> Failure<'a> {
    /// What the consumer said.
    pub(crate) fn reason(self) -> &'a str {
        match self {
            Self::Nacked { reason, .. } | Self::Terminated { reason } => reason,
            Self::LeaseEnded | Self::Lost | Self::Released => "",
        }
    }
}

/// When a message goes again. The monotonic clock decides; the wall clock and the span are what survives a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) mono_ms: u64,
    pub(crate) wall: Timestamp,
    pub(crate) delay_ms: u64,
}

impl Due {
    pub(crate) fn after(delay_ms: u64, now: Now) -> Self {
        Self {
            mono_ms: now.mono_ms.saturating_add(delay_ms),
            wall: Timestamp(now.wall.0.saturating_add(delay_ms)),
            delay_ms,
        }
    }

    /// Takes up a wait of an earlier process: until its time on the wall clock, but no longer than it was told to wait,
    /// whatever the wall clock did meanwhile.
    pub(crate) fn resumed(wall: Timestamp, delay_ms: u64, now: Now) -> Self {
        let left = wall.0.saturating_sub(now.wall.0).min(delay_ms);
        Self { mono_ms: now.mono_ms.saturating_add(left), wall, delay_ms }
    }
}

/// A message that was given up and whose dead letter is not durable yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dying {
    pub(crate) attempts: u32,
    pub(crate) reason: DeathReason,
    pub(crate) last_error: Text,
}

/// What came back to a subscription and is not settled.
#[derive(Debug, Default)]
pub(crate) struct Returned {
    /// May go at once.
    pub(crate) ready: RangeMap<Back>,
    /// Waits for its time.
    pub(crate) later: RangeMap<Back>,
    /// Waits for its dead letter.
    pub(crate) dying: RangeMap<Dying>,
    /// How many, all three together.
    pub(crate) messages: u32,
    /// How many of them are dying.
    pub(crate) dying_messages: u32,
}

pub(crate) fn count(range: &Range<Seq>) -> u32 {
    (range.end - range.start) as u32
}

fn count_all<V>(taken: &Taken<V>) -> u32 {
    taken.iter().map(|(r, _)| count(r)).sum()
}

impl Returned {
    pub(crate) fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// The lowest seq.
    pub(crate) fn first(&self) -> Option<Seq> {
        let low = |r: Option<(Range<Seq>, &Back)>| r.map(|(r, _)| r.start);
        let dying = self.dying.first().map(|(r, _)| r.start);
        [low(self.ready.first()), low(self.later.first()), dying].into_iter().flatten().min()
    }

    /// All of it, as ranges, in no order.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range<Seq>> {
        let waiting = self.ready.iter().chain(self.later.iter()).map(|(r, _)| r);
        waiting.chain(self.dying.iter().map(|(r, _)| r))
    }

    /// What lies in a range, in no order.
    pub(crate) fn within(&self, range: Range<Seq>) -> impl Iterator<Item = Range<Seq>> {
        let waiting = self.ready.within(range.clone()).chain(self.later.within(range.clone())).map(|(r, _)| r);
        waiting.chain(self.dying.within(range).map(|(r, _)| r)).filter(|r| !r.is_empty())
    }

    pub(crate) fn put_ready(&mut self, range: Range<Seq>, back: Back) {
        self.messages += count(&range);
        // Entries that differ in a time that has passed are joined.
        self.ready.insert(range, Back { due: Due::default(), ..back });
    }

    pub(crate) fn put_later(&mut self, range: Range<Seq>, back: Back) {
        self.messages += count(&range);
        self.later.insert(range, back);
    }

    pub(crate) fn put_dying(&mut self, range: Range<Seq>, dying: Dying) {
        self.messages += count(&range);
        self.dying_messages += count(&range);
        self.dying.insert(range, dying);
    }

    /// Takes ready ones out.
    pub(crate) fn take_ready(&mut self, range: Range<Seq>) -> Taken<Back> {
        let taken = self.ready.take(range);
        self.messages -= count_all(&taken);
        taken
    }

    /// Takes ready and waiting ones out.
    pub(crate) fn take_waiting(&mut self, range: Range<Seq>) -> Taken<Back> {
        let mut taken = self.take_ready(range.clone());
        let later = self.later.take(range);
        self.messages -= count_all(&later);
        taken.extend(later);
        taken
    }

    /// Takes everything out; says how many they were.
    pub(crate) fn take(&mut self, range: Range<Seq>) -> u32 {
        let waiting = count_all(&self.take_waiting(range.clone()));
        let dying = count_all(&self.dying.take(range));
        self.messages -= dying;
        self.dying_messages -= dying;
        waiting + dying
    }

    /// Makes ready what is due; answers when the next is.
    pub(crate) fn ripen(&mut self, now_ms: u64) -> Option<u64> {
        let mut next = None;
        let mut due: Vec<Range<Seq>> = Vec::new();
        for (range, back) in self.later.iter() {
            if back.due.mono_ms <= now_ms {
                due.push(range);
            } else {
                next = Some(next.map_or(back.due.mono_ms, |n: u64| n.min(back.due.mono_ms)));
            }
        }
        for range in due {
            for (range, back) in self.later.take(range) {
                self.messages -= count(&range);
                self.put_ready(range, back);
            }
        }
        next
    }

    /// Number of entries that [`Self::ripen`] looks at.
    pub(crate) fn waiting_entries(&self) -> usize {
        self.later.len()
    }
}

/// The wait before the next attempt, in milliseconds: the schedule's entry, drawn between its half and the whole. An
/// explicit delay is taken as it is; none, or none to speak of, is the schedule's affair, so that a bare nack never
/// comes back at once.
pub(crate) fn wait_ms(schedule: &[Duration], failed: u32, explicit: Option<Duration>, jitter: &mut Jitter) -> u64 {
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    if let Some(delay) = explicit.map(|d| ms(d.min(limits::NACK_DELAY_MAX)))
        && delay > 0
    {
        return delay;
    }
    let at = (failed.max(1) as usize - 1).min(schedule.len().saturating_sub(1));
    let whole = schedule.get(at).map_or(1000, |d| ms((*d).min(limits::NACK_DELAY_MAX))).max(1);
    let half = whole / 2;
    half + jitter.below(whole - half + 1)
}

/// An error cut to what is kept of it while its message waits, in memory of its own: a slice would keep a whole frame.
pub(crate) fn kept_error(text: &str) -> Text {
    let mut end = text.len().min(KEPT_ERROR_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    if end == 0 { Text::EMPTY } else { Text::from(&text[..end]) }
}

/// The engine's only dice: a seeded splitmix64.
#[derive(Clone, Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`, which is not 0.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        // The bias of a product over 2^64 is far below what a wait could show.
        ((u128::from(z) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_follow_the_schedule_between_half_and_whole_and_its_last_entry_repeats() {
        let schedule = limits::RETRY_SCHEDULE;
        let mut jitter = Jitter::new(7);
        for (failed, whole) in
            [(1, 1000), (2, 5000), (3, 30_000), (4, 120_000), (5, 600_000), (6, 600_000), (1000, 600_000)]
        {
            let (mut low, mut high) = (u64::MAX, 0);
            for _ in 0..1000 {
                let wait = wait_ms(&schedule, failed, None, &mut jitter);
                assert!((whole / 2..=whole).contains(&wait), "attempt {failed}: {wait}");
                (low, high) = (low.min(wait), high.max(wait));
            }
            assert!(low < whole * 52 / 100 && high > whole * 98 / 100, "no spread: {low}..{high} of {whole}");
        }
    }

    #[test]
    fn an_explicit_delay_is_kept_and_bounded_and_zero_takes_the_schedule() {
        let mut jitter = Jitter::new(7);
        let mut wait = |d| wait_ms(&limits::RETRY_SCHEDULE, 1, Some(d), &mut jitter);
        assert_eq!(wait(Duration::from_millis(1)), 1);
        assert_eq!(wait(Duration::from_hours(1)), 3_600_000);
        assert_eq!(wait(Duration::MAX), 7 * 86_400_000);
        assert!(wait(Duration::ZERO) >= 500);
        assert!(wait(Duration::from_nanos(1)) >= 500, "a delay that rounds to nothing is none");
    }

    #[test]
    fn a_wait_taken_up_again_is_never_longer_than_it_was() {
        let now = |wall| Now { mono_ms: 50, wall: Timestamp(wall) };
        let due = Due::after(1000, Now { mono_ms: 9, wall: Timestamp(10_000) });
        assert_eq!((due.mono_ms, due.wall.0), (1009, 11_000));
        assert_eq!(Due::resumed(due.wall, 1000, now(10_400)).mono_ms, 50 + 600);
        assert_eq!(Due::resumed(due.wall, 1000, now(99_000)).mono_ms, 50, "its time has passed");
        assert_eq!(Due::resumed(due.wall, 1000, now(0)).mono_ms, 1050, "the wall clock went back");
    }

    #[test]
    fn errors_are_cut_between_characters() {
        assert_eq!(kept_error("").as_str(), "");
        assert_eq!(kept_error("no").as_str(), "no");
        assert_eq!(kept_error(&"é".repeat(300)).as_str(), "é".repeat(128));
        assert_eq!(kept_error(&format!("a{}", "é".repeat(300))).as_str(), format!("a{}", "é".repeat(127)));
    }

    #[test]
    fn what_is_due_becomes_ready_and_the_rest_waits() {
        let mut back = Returned::default();
        let at = |ms| Back { failed: 1, due: Due::after(ms, Now::default()), ..Back::default() };
        back.put_later(1..4, at(100));
        back.put_later(4..6, at(200));
        back.put_later(9..10, at(100));
        assert_eq!(back.ripen(99), Some(100));
        assert!(back.ready.is_empty());
        assert_eq!(back.ripen(100), Some(200));
        assert_eq!(back.ready.iter().map(|(r, _)| r).collect::<Vec<_>>(), [1..4, 9..10]);
        assert_eq!(back.ripen(1000), None);
        assert_eq!(back.ready.iter().map(|(r, _)| r).collect::<Vec<_>>(), [1..6, 9..10]);
        assert_eq!(back.messages, 6);
        assert_eq!(back.take(2..20), 5);
        assert_eq!((back.messages, back.first()), (1, Some(1)));
    }
}
