//! What is told to whom when the log refuses: nobody who waits may be forgotten, and nobody taken for served.

use acb_ports::StoreError;
use acb_types::{ErrorCode, Now};

use super::{After, PartitionCore, Rejected};

impl PartitionCore {
    /// An append was refused. Making room for it may have written what was staged before it, or failed to and dropped
    /// that: who waits must not be taken for served by a later write that goes over the same seqs.
    pub(super) fn stage_failed(&mut self, error: &StoreError, now: Now, after: &mut After) {
        let kept = self.log.written_end();
        if !self.log.has_staged() && self.waiting.back().is_some_and(|w| w.first_seq >= kept) {
            self.write_failed(error, after);
        }
        self.progress(now, after);
        if error.code == ErrorCode::StorageFailed {
            self.sync_failed(error, after);
        }
    }

    /// A failed write dropped all that was staged: those who wait for it are told, and nothing of it is shown. What was
    /// settled meanwhile is journaled anew.
    pub(super) fn write_failed(&mut self, error: &StoreError, after: &mut After) {
        self.engine.journal_lost();
        self.marks_written.clear();
        let kept = self.log.written_end();
        while self.waiting.back().is_some_and(|w| w.first_seq >= kept) {
            let Some(w) = self.waiting.pop_back() else { break };
            if !w.acked {
                self.counts.refused += u64::from(w.count);
                let reject = Rejected { counter: w.counter, count: w.count, code: error.code };
                w.outbox.reject(reject, &mut after.sleepers);
            }
        }
        let code = error.code;
        let class = self.class;
        self.duplicates.retain(|d| {
            let lost = d.end > kept;
            if lost {
                let reject = Rejected { counter: d.ack.counter, count: d.ack.count, code };
                d.outbox.reject(reject, &mut after.sleepers);
            }
            !lost
        });
        tracing::warn!(class = %class, code = code.name(), "write refused: {error}");
    }

    /// A failed sync leaves nobody knowing what is on the disk: all that wait are refused, and the log takes no more.
    pub(super) fn sync_failed(&mut self, error: &StoreError, after: &mut After) {
        for w in std::mem::take(&mut self.waiting) {
            if !w.acked {
                self.counts.refused += u64::from(w.count);
                let reject = Rejected { counter: w.counter, count: w.count, code: error.code };
                w.outbox.reject(reject, &mut after.sleepers);
            }
        }
        for d in std::mem::take(&mut self.duplicates) {
            let reject = Rejected { counter: d.ack.counter, count: d.ack.count, code: error.code };
            d.outbox.reject(reject, &mut after.sleepers);
        }
        self.marks_syncing.clear();
        self.wants_sync = false;
        tracing::error!(class = %self.class, code = error.code.name(), "sync failed, writes to this log stop: {error}");
    }
}
