//! What a log lets go of: whole segments from its head, never the one it writes to, never what holds the delivery
//! state that the next opening needs.

use std::sync::Arc;

use acb_types::{Timestamp, position::Seq};

use crate::{
    dedupe::KeyWindow,
    error::{LogError, Result},
    log::Log,
    options::AtCap,
    planted::{self, Bug},
    postings::Summary,
    segment::Ident,
    shared::{Index, Segment},
    sidecar::{Section, Sidecar},
};

/// A sidecar that outlives its segment, because it remembers doubles that can still come: idempotency keys inside their
/// window, and the table of producer sessions until a later sidecar has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Orphan {
    pub(crate) ident: Ident,
    pub(crate) sidecar: Sidecar,
}

impl Orphan {
    /// Whether its keys can still be asked for.
    pub(crate) fn keys_live(&self, window: KeyWindow, now: Timestamp) -> bool {
        let KeyWindow::For(window) = window else { return false };
        self.sidecar.section_len(Section::Keys) > 0 && self.sidecar.summary.last_time.after(window) > now
    }
}

impl Log {
    /// Drops what retention allows, whole segments at a time, and answers the new first seq. What is older than the
    /// class's age or over its bytes goes once it lies below `floor`; where the class drops its oldest, what is over its
    /// bytes goes wherever it lies; where it says so, what lies below `floor` goes at once.
    ///
    /// # Errors
    /// `storage_failed` and its kin when files cannot be removed; what was removed stays so.
    pub fn retain(&mut self, floor: Seq, now: Timestamp) -> Result<Seq> {
        self.retained_at = self.active.as_ref().map_or(0, |a| a.segment.ident.number);
        let retention = self.shared.options.retention;
        let summaries = self.sealed_summaries();
        let mut kept = self.used;
        let mut go = 0;
        // When a segment was written to last. A clock that was ahead for a while is told by the segments behind.
        let mut times: Vec<Timestamp> = summaries.iter().map(|s| s.last_time).collect();
        let mut latest = now;
        for time in times.iter_mut().rev() {
            latest = latest.min(*time);
            *time = latest;
        }
        for (summary, time) in summaries.iter().zip(&times) {
            let below = summary.end_seq <= floor || summary.messages == 0;
            let old = retention.age.is_some_and(|age| time.after(age) <= now);
            let over = kept > retention.bytes;
            let goes =
                below && (old || over || retention.consumed_goes) || over && retention.at_cap == AtCap::DropOldest;
            if !goes {
                break;
            }
            kept -= u64::from(summary.end);
            go += 1;
        }
        if planted::is(Bug::TrimTooMuch) {
            go += 1;
        }
        let first = self.drop_head(go)?;
        self.drop_orphans(now)?;
        Ok(first)
    }

    /// Whether a segment was finished since [`Self::retain`] looked last, and what is over the bytes, or consumed, would go.
    pub fn wants_retain(&self) -> bool {
        let retention = &self.shared.options.retention;
        let active = self.active.as_ref().map(|a| a.segment.ident.number);
        active.is_some_and(|number| number != self.retained_at)
            && (self.used > retention.bytes || retention.consumed_goes)
    }

    /// Drops whole segments that hold nothing at or above `seq`, and answers the new first seq. Twice is once.
    ///
    /// # Errors
    /// As [`Self::retain`].
    pub fn trim_before(&mut self, seq: Seq) -> Result<Seq> {
        let go = self.sealed_summaries().iter().take_while(|s| s.end_seq <= seq).count();
        self.drop_head(go)
    }

    /// All segments but the one that is written to.
    fn sealed_summaries(&self) -> Vec<Summary> {
        let segments = self.shared.segments.read();
        segments.iter().take(segments.len().saturating_sub(1)).map(|s| s.summary()).collect()
    }

    /// The first segment that the next opening needs for its delivery state.
    fn state_guard(&self) -> u32 {
        let segments = self.shared.segments.read();
        let of_state = || segments.iter().find(|s| s.summary().has_state).map(|s| s.ident.number);
        match self.snapshots.synced {
            Some(at) => at.segment,
            None => of_state().unwrap_or(u32::MAX),
        }
    }

    fn drop_head(&mut self, count: usize) -> Result<Seq> {
        let guard = if planted::is(Bug::TrimTooMuch) { u32::MAX } else { self.state_guard() };
        let unwritten = |s: &Arc<Segment>| !matches!(&*s.index.read(), Index::Sidecar(_));
        let mut chores = Ok(());
        if count > 0 && self.shared.segments.read().iter().take(count).any(unwritten) {
            // What the segment remembers of doubles must be in a sidecar first.
            chores = self.shared.run_chores();
        }
        let mut result = self.finish_leaving();
        for _ in 0..count {
            if result.is_err() {
                break;
            }
            let head = {
                let mut segments = self.shared.segments.write();
                // What is not synced yet is not let go: an older state of the log could need it.
                let goes = segments.len() > 1
                    && segments.front().is_some_and(|s| s.ident.number < guard.min(self.synced.segment));
                if !goes {
                    break;
                }
                // Without its sidecar nobody would know its doubles after the next opening: it stays, and the disk says
                // why. Without a failure another thread is just writing it: the next call lets it go.
                if segments.front().is_some_and(unwritten) {
                    let what = format_args!("writing the indexes of {}", self.shared.id);
                    result = std::mem::replace(&mut chores, Ok(())).map_err(|e| LogError::io("log.retain", what, e));
                    break;
                }
                segments.pop_front()
            };
            let Some(head) = head else { break };
            self.used -= u64::from(head.summary().end);
            self.find_first();
            result = self.let_go(&head);
            if result.is_err() {
                self.leaving.push_back(head.path.clone());
            }
        }
        self.keys.trimmed(self.first_seq());
        result.map(|()| self.first_seq())
    }

    /// Removes files that could not be removed before. They go first: a log must not have a hole when it is opened.
    fn finish_leaving(&mut self) -> Result<()> {
        while let Some(path) = self.leaving.front() {
            let disk = self.shared.disk();
            disk.remove(path)
                .and_then(|()| disk.sync_dir(&self.shared.dir))
                .map_err(|e| LogError::io("log.retain", path.display(), e))?;
            self.leaving.pop_front();
        }
        Ok(())
    }

    /// Gives a segment's file to the pool, or removes it when somebody still reads it.
    fn let_go(&mut self, segment: &Arc<Segment>) -> Result<()> {
        let number = segment.ident.number;
        self.unsynced.retain(|s| s.ident.number != number);
        let fail = |e| LogError::io("log.retain", segment.path.display(), e);
        if let Index::Sidecar(sidecar) = &*segment.index.read() {
            self.orphans.push_back(Orphan { ident: segment.ident, sidecar: **sidecar });
        }
        let disk = self.shared.disk();
        let cached = self.shared.tenant.caches.files.lock().remove(&(self.shared.uid, number, false));
        let pinned = segment.pinned.lock().take();
        let file = pinned.or(cached);
        self.shared.uncache(number);
        // A reader may hold the segment (and open its file any moment) or the file itself.
        let idle = Arc::strong_count(segment) == 1 && file.as_ref().is_none_or(|f| Arc::strong_count(f) == 1);
        if idle {
            self.shared.tenant.pool.put(&segment.path, segment.size, segment.ident.generation).map_err(fail)
        } else {
            disk.remove(&segment.path).and_then(|()| disk.sync_dir(&self.shared.dir)).map_err(fail)
        }
    }

    /// Removes sidecars of trimmed segments that nobody can need any more.
    pub(crate) fn drop_orphans(&mut self, now: Timestamp) -> Result<()> {
        let window = self.shared.options.key_window;
        let full = |s: &Arc<Segment>| matches!(&*s.index.read(), Index::Sidecar(s) if s.producers_full);
        let later = self.shared.segments.read().iter().any(full);
        let newest = self.orphans.iter().rev().find(|o| o.sidecar.producers_full).map(|o| o.ident).filter(|_| !later);
        let (disk, dir) = (self.shared.disk(), &self.shared.dir);
        let mut result = Ok(());
        self.orphans.retain(|orphan| {
            let needed = orphan.keys_live(window, now) || Some(orphan.ident) == newest;
            if needed || result.is_err() {
                return true;
            }
            result = disk.remove(&dir.join(orphan.ident.sidecar_name()));
            result.is_err()
        });
        result.map_err(|e| LogError::io("log.retain", dir.display(), e))
    }
}
