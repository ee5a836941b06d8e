//! Which messages of a batch have somebody to go to, looked up before anything is stored: nobody there is an answer, not
//! a record.

use std::sync::Arc;

use acb_engine::Engine;
use acb_types::{
    Durability, ErrorCode, MessageKind, Now,
    batch::{Batch, Keyed, Outcome},
    frame::{self, flag},
    name::Address,
};
use smallvec::SmallVec;

use super::{After, PartitionCore};
use crate::delivery::outbox::PublishOutbox;

/// Which messages of a batch have somebody to go to.
pub(super) fn admit(engine: &mut Engine, batch: &Batch) -> Admission {
    let mut pieces: SmallVec<[Piece; 4]> = SmallVec::new();
    let mut index = 0;
    for run in &batch.runs {
        let topic = run.topic_str();
        let known = match Address::of(topic) {
            Address::Inbox(_) | Address::Reply(_) => engine.hears(topic),
            _ => true,
        };
        if !known {
            push_piece(&mut pieces, index, run.count, Some(ErrorCode::AgentNotFound));
        } else if batch.flags & flag::REQUEST != 0 && !engine.has_live_consumer(topic) {
            let bytes = batch.body.slice(run.offset as usize..(run.offset + run.len) as usize);
            for (i, message) in frame::messages(&bytes).enumerate() {
                let request = frame::decode(&message).is_ok_and(|m| m.kind == MessageKind::Request);
                let refused = request.then_some(ErrorCode::NoResponders);
                push_piece(&mut pieces, index + i as u32, 1, refused);
            }
        } else {
            push_piece(&mut pieces, index, run.count, None);
        }
        index += run.count;
    }
    if pieces.iter().all(|p| p.refused.is_none()) { Admission::All } else { Admission::Split(pieces) }
}

impl PartitionCore {
    /// Refuses messages that have nobody to go to. One that was stored when there was somebody, and is sent again because
    /// a connection or the server broke before the answer, gets its first answer: its sender must not believe that it
    /// went nowhere.
    #[expect(clippy::too_many_arguments, reason = "a publish and who is to be told")]
    pub(super) fn turn_away(
        &mut self,
        batch: &Batch,
        piece: &Piece,
        code: ErrorCode,
        level: Durability,
        outbox: &Arc<PublishOutbox>,
        now: Now,
        after: &mut After,
    ) {
        let at = |index: u32| batch.counter + u64::from(index);
        let mut new_from = piece.index;
        let end = piece.index + piece.count;
        for index in piece.index..end {
            let Some(known) = cut(batch, index, 1).and_then(|one| self.log.repeat(&one, now.wall)) else { continue };
            if new_from < index {
                self.refuse(outbox, at(new_from), index - new_from, code, after);
            }
            new_from = index + 1;
            match known {
                Outcome::Duplicate { first_seq } => self.repeated(at(index), 1, first_seq, level, outbox),
                Outcome::Refused(code) => self.refuse(outbox, at(index), 1, code, after),
                Outcome::Stored { .. } => self.refuse(outbox, at(index), 1, code, after),
            }
        }
        if new_from < end {
            self.refuse(outbox, at(new_from), end - new_from, code, after);
        }
        if !self.duplicates.is_empty() {
            self.answer_duplicates(after);
        }
    }
}

/// Consecutive messages of one fate.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) index: u32,
    pub(super) count: u32,
    pub(super) refused: Option<ErrorCode>,
}

/// What [`admit`] found.
#[derive(Debug)]
pub(super) enum Admission {
    /// All may be stored.
    All,
    /// Some may not.
    Split(SmallVec<[Piece; 4]>),
}

fn push_piece(pieces: &mut SmallVec<[Piece; 4]>, index: u32, count: u32, refused: Option<ErrorCode>) {
    match pieces.last_mut() {
        Some(last) if last.refused == refused => last.count += count,
        _ => pieces.push(Piece { index, count, refused }),
    }
}

/// Some of a batch's messages as a batch of their own. They were checked once, so this finds them well formed.
pub(crate) fn cut(batch: &Batch, index: u32, count: u32) -> Option<Batch> {
    let from = frame::prefix_len(&batch.body, index);
    let len = frame::prefix_len(&batch.body[from..], count);
    let body = batch.body.slice(from..from + len);
    let walked = frame::walk(&body).ok()?;
    let keys = batch
        .keys
        .iter()
        .filter(|k| k.index >= index && k.index < index + count)
        .map(|k| Keyed { index: k.index - index, ..*k })
        .collect();
    Some(Batch {
        count,
        flags: walked.flags,
        body,
        runs: walked.runs,
        sender: Arc::clone(&batch.sender),
        producer: batch.producer,
        producer_epoch: batch.producer_epoch,
        counter: if batch.counter == 0 { 0 } else { batch.counter + u64::from(index) },
        keys,
    })
}
