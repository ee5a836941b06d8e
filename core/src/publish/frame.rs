//! A frame that was sealed and is not answered yet: which of its messages are, and what of it goes again.

use std::sync::Arc;

use acb_types::frame;
use bytes::Bytes;
use smallvec::SmallVec;

use super::receipt::FrameCell;

/// A frame, or what is left of one, that is not answered yet.
#[derive(Debug)]
pub(super) struct Frame {
    /// Number of its first message in the session.
    pub(super) first: u64,
    pub(super) count: u32,
    pub(super) body: Bytes,
    pub(super) level: u8,
    /// Whoever holds its receipts can do without them for a while.
    pub(super) patient: bool,
    pub(super) cell: Arc<FrameCell>,
    /// Its first message's index in the cell.
    pub(super) index: u32,
    /// Whether it is all that the cell stands for.
    pub(super) whole: bool,
    /// Answered parts, as ranges of indexes, sorted and disjoint.
    pub(super) done: SmallVec<[(u32, u32); 2]>,
    /// Bytes it still takes of the window.
    pub(super) bytes: usize,
    /// Tick at which it was sealed.
    pub(super) tick: u32,
}

impl Frame {
    pub(super) fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }

    pub(super) fn is_done(&self) -> bool {
        self.done.iter().map(|(from, to)| to - from).sum::<u32>() == self.count
    }

    /// Marks a range of indexes as answered and calls back for the parts of it that were not before.
    pub(super) fn mark(&mut self, from: u32, to: u32, mut fresh: impl FnMut(u32, u32)) {
        let mut at = from;
        for (done_from, done_to) in self.done.iter().copied() {
            if done_from >= to {
                break;
            }
            if done_from > at {
                fresh(at, done_from);
            }
            at = at.max(done_to);
        }
        if at < to {
            fresh(at, to);
        }
        self.done.push((from, to));
        self.done.sort_unstable();
        let mut merged: SmallVec<[(u32, u32); 2]> = SmallVec::new();
        for (from, to) in self.done.drain(..) {
            match merged.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => merged.push((from, to)),
            }
        }
        self.done = merged;
    }

    /// The parts that are not answered.
    pub(super) fn open_parts(&self) -> SmallVec<[(u32, u32); 2]> {
        let mut parts = SmallVec::new();
        let mut at = 0;
        for (from, to) in &self.done {
            if *from > at {
                parts.push((at, *from));
            }
            at = *to;
        }
        if at < self.count {
            parts.push((at, self.count));
        }
        parts
    }

    /// A part of it as a frame of its own: the same bytes of the same messages under the same numbers.
    pub(super) fn part(&self, from: u32, to: u32) -> Self {
        let start = frame::prefix_len(&self.body, from);
        let len = frame::prefix_len(&self.body[start..], to - from);
        Self {
            first: self.first + u64::from(from),
            count: to - from,
            body: self.body.slice(start..start + len),
            level: self.level,
            patient: self.patient,
            cell: Arc::clone(&self.cell),
            index: self.index + from,
            whole: self.whole && from == 0 && to == self.count,
            done: SmallVec::new(),
            bytes: len,
            tick: self.tick,
        }
    }
}
