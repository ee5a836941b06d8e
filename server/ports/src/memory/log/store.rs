//! What is kept of a partition: its records, and the line below which they are synced.

use std::sync::Arc;

use acb_types::{
    ErrorCode, PartitionId,
    batch::{Batch, Facts, StoredRun},
    position::{Epoch, Seq},
};
use bytes::Bytes;

use super::dedupe::Dedupe;
use crate::{error::StoreError, message_log::SnapshotPart};

/// One thing that was appended.
#[derive(Clone, Debug)]
pub(super) enum Record {
    /// Messages. What is trimmed keeps its producer's numbers and keys, and loses its bytes.
    Messages { batch: Batch, first_seq: Seq, facts: Arc<Facts>, kept: bool },
    /// A state record.
    State(SnapshotPart, Bytes),
}

/// A partition as it is kept, and as readers see it.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) id: PartitionId,
    /// Written records; those below `synced` survive a power cut.
    pub(super) records: Vec<Record>,
    pub(super) synced: usize,
    /// Beyond every seq that was given to anybody: it survives everything, as a real log's reserve does.
    pub(super) next_seq: Seq,
    pub(super) first_seq: Seq,
    pub(super) epoch: Epoch,
    /// Which opening owns it; raised by each.
    pub(super) session: u64,
    pub(super) open: bool,
    pub(super) closed_cleanly: bool,
}

impl Store {
    pub(super) fn new(id: PartitionId) -> Self {
        Self {
            id,
            records: Vec::new(),
            synced: 0,
            next_seq: 1,
            first_seq: 1,
            epoch: 0,
            session: 0,
            open: false,
            closed_cleanly: false,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    pub(super) fn open(&mut self) -> Result<(u64, Vec<Bytes>), StoreError> {
        if self.open {
            let message = format!("partition {} is open already", self.id);
            return Err(StoreError::new(ErrorCode::InvalidState, "log.open", message));
        }
        if !self.closed_cleanly {
            self.epoch += 1;
        }
        self.open = true;
        self.closed_cleanly = false;
        self.session += 1;
        // What an opening gives back is on disk: nothing of it can be lost again.
        self.synced = self.records.len();
        Ok((self.session, self.state()))
    }

    pub(super) fn owner_lost(&mut self) {
        self.open = false;
        self.session += 1;
    }

    pub(super) fn power_cut(&mut self) {
        self.owner_lost();
        self.records.truncate(self.synced);
    }

    /// LOG-6: the last complete snapshot, then the ordinary records since it began.
    fn state(&self) -> Vec<Bytes> {
        let (mut complete, mut since) = (Vec::new(), Vec::new());
        let mut begun: Option<(Vec<Bytes>, Vec<Bytes>)> = None;
        for record in &self.records {
            let Record::State(part, bytes) = record else { continue };
            match part {
                SnapshotPart::None => {
                    since.push(bytes.clone());
                    if let Some((_, since)) = &mut begun {
                        since.push(bytes.clone());
                    }
                }
                SnapshotPart::First | SnapshotPart::Whole => begun = Some((vec![bytes.clone()], Vec::new())),
                SnapshotPart::Middle | SnapshotPart::Last => {
                    if let Some((parts, _)) = &mut begun {
                        parts.push(bytes.clone());
                    }
                }
            }
            if matches!(part, SnapshotPart::Last | SnapshotPart::Whole)
                && let Some((parts, later)) = begun.take()
            {
                (complete, since) = (parts, later);
            }
        }
        complete.append(&mut since);
        complete
    }

    /// What is remembered of doubles.
    pub(super) fn dedupe(&self) -> Dedupe {
        let mut dedupe = Dedupe::default();
        for record in &self.records {
            if let Record::Messages { batch, first_seq, facts, .. } = record {
                dedupe.remember(batch, *first_seq, facts.stored_at);
            }
        }
        dedupe
    }

    /// Bytes of kept messages.
    pub(super) fn bytes(&self) -> u64 {
        let kept = self.records.iter().filter_map(|record| match record {
            Record::Messages { batch, kept: true, .. } => Some(batch.body.len() as u64),
            _ => None,
        });
        kept.sum()
    }

    /// First seq that is kept; `next_seq` when nothing is.
    pub(super) fn first_kept(&self, next_seq: Seq) -> Seq {
        let first = self.records.iter().find_map(|record| match record {
            Record::Messages { first_seq, kept: true, .. } => Some(*first_seq),
            _ => None,
        });
        first.unwrap_or(next_seq)
    }

    /// Kept messages as runs, in order.
    pub(super) fn runs(&self) -> impl Iterator<Item = StoredRun> {
        self.records.iter().flat_map(|record| {
            let mut out = Vec::new();
            if let Record::Messages { batch, first_seq, facts, kept: true } = record {
                let mut first_seq = *first_seq;
                for run in &batch.runs {
                    let from = run.offset as usize;
                    out.push(StoredRun {
                        first_seq,
                        count: run.count,
                        topic: run.topic.clone(),
                        body: batch.body.slice(from..from + run.len as usize),
                        facts: Arc::clone(facts),
                    });
                    first_seq += u64::from(run.count);
                }
            }
            out
        })
    }
}
