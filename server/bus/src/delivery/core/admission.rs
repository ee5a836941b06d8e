//! Which messages of a batch have somebody to go to, looked up before anything is stored: nobody there is an answer, not
//! a record.

use std::sync::Arc;

use acb_engine::Engine;
use acb_types::{
    ErrorCode, MessageKind,
    batch::{Batch, Keyed},
    frame::{self, flag},
    name::Address,
};
use smallvec::SmallVec;

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
