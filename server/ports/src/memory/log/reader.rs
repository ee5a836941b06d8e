//! Reading a partition in memory.

use std::sync::Arc;

use acb_types::{
    Timestamp,
    batch::{Gap, ReadBlock, ReadRequest, StoredRun},
    frame,
    position::Seq,
};
use parking_lot::Mutex;

use super::store::Store;
use crate::{error::StoreError, message_log::LogReader};

/// Most bytes of one block.
const BLOCK_BYTES: u64 = 256 * 1024;

#[derive(Debug)]
pub(super) struct Reader(pub(super) Arc<Mutex<Store>>);

impl LogReader for Reader {
    fn read(&self, request: &ReadRequest) -> Result<ReadBlock, StoreError> {
        let store = self.0.lock();
        let from = request.from_seq.max(1);
        let mut block = ReadBlock { runs: Vec::new(), gap: None, next_seq: from.max(request.end_seq) };
        if from < store.first_seq {
            // LOG-5: what was trimmed is a gap, up to where the log begins again.
            block.gap = Some(Gap { from_seq: from, to_seq: store.first_seq });
            block.next_seq = block.next_seq.max(store.first_seq);
        }
        let (mut messages, mut bytes) = (request.messages_max.max(1), request.bytes_max.min(BLOCK_BYTES));
        for run in store.runs() {
            let Some(run) = clip(run, from, request.end_seq) else { continue };
            let topic = String::from_utf8_lossy(&run.topic);
            if !request.filters.iter().any(|filter| filter.matches(&topic)) {
                continue;
            }
            let first = block.runs.is_empty();
            let fits = fitting(&run, messages, bytes, first);
            let next = run.first_seq + u64::from(fits);
            let whole = fits == run.count;
            messages -= fits;
            if fits > 0 {
                let given =
                    StoredRun { count: fits, body: run.body.slice(..frame::prefix_len(&run.body, fits)), ..run };
                bytes = bytes.saturating_sub(given.body.len() as u64);
                block.runs.push(given);
            }
            if !whole {
                block.next_seq = next;
                return Ok(block);
            }
        }
        Ok(block)
    }

    fn seq_at(&self, time: Timestamp) -> Result<Seq, StoreError> {
        let store = self.0.lock();
        let mut end = store.first_seq;
        for run in store.runs() {
            if run.facts.stored_at >= time {
                return Ok(run.first_seq);
            }
            end = run.first_seq + u64::from(run.count);
        }
        Ok(end)
    }

    fn first_seq(&self) -> Seq {
        let store = self.0.lock();
        let end = store.runs().last().map_or(store.first_seq, |run| run.first_seq + u64::from(run.count));
        store.first_kept(end)
    }

    fn read_bytes(&self) -> u64 {
        0
    }
}

/// The part of a run inside `from..end`.
fn clip(run: StoredRun, from: Seq, end: Seq) -> Option<StoredRun> {
    let run_end = run.first_seq + u64::from(run.count);
    let (from, end) = (from.max(run.first_seq), end.min(run_end));
    if from >= end {
        return None;
    }
    let start = frame::prefix_len(&run.body, (from - run.first_seq) as u32);
    let stop = frame::prefix_len(&run.body, (end - run.first_seq) as u32);
    Some(StoredRun { first_seq: from, count: (end - from) as u32, body: run.body.slice(start..stop), ..run })
}

/// How many messages of a run still fit. The very first always does.
fn fitting(run: &StoredRun, messages: u32, bytes: u64, first: bool) -> u32 {
    let mut fits = run.count.min(messages);
    while fits > 0 && frame::prefix_len(&run.body, fits) as u64 > bytes {
        fits -= 1;
    }
    if first { fits.max(1) } else { fits }
}
