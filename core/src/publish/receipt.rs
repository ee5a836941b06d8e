//! The promise of an acknowledgement: one shared cell a frame, an index a message.
//!
//! Nearly every frame is acknowledged whole, by one range: that is two atomics, whatever the number of messages. What
//! is answered in pieces goes to a list beside it.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, Waker},
};

use acb_types::{ClassId, Durability, MessageId};
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::{
    error::{Error, Result},
    transport::wire::Ack,
};

/// A message that is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// Its id, which is its position. The seq is 0 when this repeats a message so old that its position is forgotten.
    pub id: MessageId,
    /// The level that was reached.
    pub durability: Durability,
    /// Whether it had been stored before.
    pub duplicate: bool,
}

/// No answer yet.
const OPEN: u64 = 0;
/// Answered in pieces. No packed ack looks like it: the level's four bits would all be set.
const PIECES: u64 = u64::MAX;

/// What became of a frame's messages.
#[derive(Debug, Default)]
pub(crate) struct FrameCell {
    /// [`OPEN`], [`PIECES`], or everything of an ack but its seq.
    packed: AtomicU64,
    first_seq: AtomicU64,
    slow: Mutex<Slow>,
}

#[derive(Debug, Default)]
struct Slow {
    pieces: Vec<Piece>,
    /// One slot a waiting receipt.
    wakers: SmallVec<[Waker; 1]>,
    /// Raised when all slots are woken and given up: slots of an older round are nobody's.
    round: u32,
}

#[derive(Debug)]
struct Piece {
    index: u32,
    count: u32,
    result: Result<Published>,
}

/// Wakers that are woken after all locks are given back.
pub(crate) type Wakers = SmallVec<[Waker; 8]>;

fn pack(ack: &Ack) -> u64 {
    let level = u64::from(ack.durability & 7) | u64::from(ack.duplicate) << 3;
    let class = u64::from(ack.class & 0xff);
    let partition = u64::from(ack.partition & 0xffff);
    // The level is at least 1, so a packed ack is never `OPEN`.
    level << 56 | class << 48 | partition << 32 | u64::from(ack.epoch)
}

fn unpack(packed: u64, seq: u64) -> Published {
    let level = packed >> 56;
    Published {
        id: MessageId {
            class: ClassId((packed >> 48) as u8),
            partition: (packed >> 32) as u16,
            epoch: packed as u32,
            seq,
        },
        durability: Durability::from_wire((level & 7) as i32).unwrap_or(Durability::Memory),
        duplicate: level & 8 != 0,
    }
}

/// An ack with a level that this version can name.
fn with_level(mut ack: Ack) -> Ack {
    if Durability::from_wire(ack.durability as i32).is_none() {
        ack.durability = Durability::Memory as u32;
    }
    ack
}

impl FrameCell {
    /// All messages of the frame are stored, the first at the ack's seq.
    pub(crate) fn resolve_whole(&self, ack: &Ack, wakers: &mut Wakers) {
        self.first_seq.store(ack.first_seq, Ordering::Relaxed);
        self.packed.store(pack(&with_level(*ack)), Ordering::Release);
        self.wake(wakers);
    }

    /// Some messages of the frame are stored; `ack` starts at the first of them.
    pub(crate) fn resolve_stored(&self, index: u32, ack: &Ack, wakers: &mut Wakers) {
        let published = unpack(pack(&with_level(*ack)), ack.first_seq);
        self.resolve_piece(index, ack.count, Ok(published), wakers);
    }

    /// Some messages of the frame failed.
    pub(crate) fn resolve_failed(&self, index: u32, count: u32, error: Error, wakers: &mut Wakers) {
        self.resolve_piece(index, count, Err(error), wakers);
    }

    fn resolve_piece(&self, index: u32, count: u32, result: Result<Published>, wakers: &mut Wakers) {
        self.slow.lock().pieces.push(Piece { index, count, result });
        self.packed.store(PIECES, Ordering::Release);
        self.wake(wakers);
    }

    fn wake(&self, wakers: &mut Wakers) {
        let mut slow = self.slow.lock();
        if slow.wakers.is_empty() {
            return;
        }
        wakers.extend(slow.wakers.drain(..));
        slow.round = slow.round.wrapping_add(1);
    }

    fn get(&self, index: u32) -> Option<Result<Published>> {
        match self.packed.load(Ordering::Acquire) {
            OPEN => None,
            PIECES => self.slow.lock().get(index),
            packed => {
                let first = self.first_seq.load(Ordering::Relaxed);
                Some(Ok(unpack(packed, if first == 0 { 0 } else { first + u64::from(index) })))
            }
        }
    }
}

impl Slow {
    fn get(&self, index: u32) -> Option<Result<Published>> {
        let piece = self.pieces.iter().find(|p| index >= p.index && index - p.index < p.count)?;
        Some(piece.result.clone().map(|mut published| {
            if published.id.seq != 0 {
                published.id.seq += u64::from(index - piece.index);
            }
            published
        }))
    }
}

const NO_SLOT: u32 = u32::MAX;

/// The promise of an acknowledgement: a future of what became of one message.
///
/// It can be awaited or dropped; dropping it changes nothing about the message. It is answered once the server has
/// said that the message reached its level, or why not: at the latest when the publish timeout is over or the client is
/// closed.
///
/// # Cancel safety
/// Polling may stop and go on at any time; once ready it stays ready.
#[derive(Debug)]
#[must_use = "a receipt says whether the message was stored; await it, or drop it knowingly"]
pub struct Receipt {
    cell: Arc<FrameCell>,
    index: u32,
    /// Where its waker is, and since which round.
    slot: u32,
    round: u32,
}

impl Receipt {
    pub(crate) fn new(cell: Arc<FrameCell>, index: u32) -> Self {
        Self { cell, index, slot: NO_SLOT, round: 0 }
    }

    /// The answer, if it is there.
    pub fn try_get(&self) -> Option<Result<Published>> {
        self.cell.get(self.index)
    }
}

impl Future for Receipt {
    type Output = Result<Published>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(result) = self.cell.get(self.index) {
            return Poll::Ready(result);
        }
        let me = &mut *self;
        let mut slow = me.cell.slow.lock();
        let round = slow.round;
        match slow.wakers.get_mut(me.slot as usize) {
            Some(own) if me.round == round => own.clone_from(cx.waker()),
            _ => {
                me.slot = slow.wakers.len() as u32;
                me.round = round;
                slow.wakers.push(cx.waker().clone());
            }
        }
        drop(slow);
        // The answer may have come between the first look and the slot.
        match me.cell.get(me.index) {
            Some(result) => Poll::Ready(result),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

    fn ack(first_seq: u64, count: u32) -> Ack {
        Ack { counter: 1, count, class: 1, partition: 3, epoch: 9, first_seq, durability: 2, duplicate: false }
    }

    fn poll(receipt: &mut Receipt) -> Poll<Result<Published>> {
        Pin::new(receipt).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_frame_acked_whole_answers_each_of_its_receipts() {
        let cell = Arc::new(FrameCell::default());
        let mut receipts: Vec<_> = (0..3).map(|i| Receipt::new(Arc::clone(&cell), i)).collect();
        assert!(receipts.iter_mut().all(|r| poll(r).is_pending()));
        let mut wakers = Wakers::new();
        cell.resolve_whole(&ack(100, 3), &mut wakers);
        assert_eq!(wakers.len(), 3);
        for (i, receipt) in receipts.iter_mut().enumerate() {
            let Poll::Ready(Ok(published)) = poll(receipt) else { panic!("open") };
            assert_eq!(published.id.to_string(), format!("topics-3-9-{}", 100 + i));
            assert_eq!((published.durability, published.duplicate), (Durability::Written, false));
        }
    }

    #[test]
    fn pieces_are_answered_as_they_come() {
        let cell = Arc::new(FrameCell::default());
        let mut receipts: Vec<_> = (0..4).map(|i| Receipt::new(Arc::clone(&cell), i)).collect();
        let mut wakers = Wakers::new();
        cell.resolve_stored(0, &ack(7, 1), &mut wakers);
        cell.resolve_failed(1, 1, Error::new(ErrorCode::AgentNotFound, "x", "m"), &mut wakers);
        assert!(matches!(poll(&mut receipts[0]), Poll::Ready(Ok(p)) if p.id.seq == 7));
        assert!(matches!(poll(&mut receipts[1]), Poll::Ready(Err(e)) if e.code() == ErrorCode::AgentNotFound));
        assert!(poll(&mut receipts[2]).is_pending());
        cell.resolve_stored(2, &Ack { duplicate: true, ..ack(0, 2) }, &mut wakers);
        assert!(matches!(poll(&mut receipts[3]), Poll::Ready(Ok(p)) if p.id.seq == 0 && p.duplicate));
    }

    #[test]
    fn a_receipt_polled_often_keeps_one_waker() {
        let cell = Arc::new(FrameCell::default());
        let mut receipt = Receipt::new(Arc::clone(&cell), 0);
        for _ in 0..100 {
            assert!(poll(&mut receipt).is_pending());
        }
        assert_eq!(cell.slow.lock().wakers.len(), 1);
    }

    #[test]
    fn a_slot_of_an_older_round_is_not_taken_for_ones_own() {
        let cell = Arc::new(FrameCell::default());
        let mut wakers = Wakers::new();
        let mut first = Receipt::new(Arc::clone(&cell), 0);
        let mut second = Receipt::new(Arc::clone(&cell), 1);
        assert!(poll(&mut first).is_pending());
        cell.resolve_stored(3, &ack(1, 1), &mut wakers);
        assert!(poll(&mut second).is_pending());
        assert!(poll(&mut first).is_pending());
        assert_eq!(cell.slow.lock().wakers.len(), 2, "the first took the second's slot");
    }

    #[test]
    fn the_largest_ack_is_none_of_the_marks() {
        let most = Ack { class: 255, partition: 65_535, epoch: u32::MAX, durability: 4, duplicate: true, ..ack(1, 1) };
        assert!(![OPEN, PIECES].contains(&pack(&most)));
        assert_ne!(pack(&Ack { durability: 1, class: 0, partition: 0, epoch: 0, ..ack(1, 1) }), OPEN);
    }
}
