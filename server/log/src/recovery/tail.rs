//! Where a log ends: the segments that no sidecar vouches for.

use std::{collections::BTreeMap, sync::Arc};

use acb_types::ErrorCode;

use super::{
    Opener,
    folder::FoundFile,
    segment::{Read, Walk, make_durable, read_segment},
};
use crate::{
    batch::Fault,
    disk::DiskFile,
    error::{LogError, Result},
    planted::{self, Bug},
    scan::Scanner,
    segment::{BODY_START, Pos},
};

impl Opener {
    /// Reads a segment whose every byte had been synced.
    pub(super) fn read_sealed(&self, found: &FoundFile, walk: &mut Walk) -> Result<Read> {
        if found.header.is_err() {
            return Err(self.damaged(&found.path, 0, "the segment's header is damaged"));
        }
        let read = self.read_durably(found, walk)?;
        if read.sealed { Ok(read) } else { Err(self.damaged(&found.path, read.stop.0, read.stop.1)) }
    }

    /// Reads a segment and makes sure that what was read is on disk.
    fn read_durably(&self, found: &FoundFile, walk: &mut Walk) -> Result<Read> {
        let read = read_segment(found, walk).map_err(|e| self.io(e))?;
        let end = read.index.summary.end;
        make_durable(&*found.file, BODY_START, end)
            .map_err(|e| LogError { code: ErrorCode::StorageFailed, ..self.io(e) })?;
        Ok(read)
    }

    /// Reads the segments that no sidecar vouches for, and finds where the log ends.
    pub(super) fn read_tail(
        &self,
        files: &[FoundFile],
        tail_start: usize,
        walk: &mut Walk,
        reads: &mut BTreeMap<usize, Read>,
    ) -> Result<End> {
        // Where the log ends if there is nothing more: a segment that is yet to be made.
        let next =
            files.get(tail_start).map_or_else(|| files.last().map_or(1, |f| f.ident.number + 1), |f| f.ident.number);
        let mut end = Pos::new(next, BODY_START);
        let (mut broken, mut fault) = (files.len(), Fault::Nothing);
        let mut segments = tail_start;
        for (i, found) in files.iter().enumerate().skip(tail_start) {
            end = Pos::new(found.ident.number, BODY_START);
            if found.header.is_err() {
                (broken, fault, end.offset) = (i, Fault::Header, 0);
                break;
            }
            let before = walk.last;
            let read = self.read_durably(found, walk)?;
            let (stop, sealed, empty) = (read.stop, read.sealed, read.index.summary.batches == 0);
            // An empty segment was made ahead; it is no part of the log yet, except as the very first.
            if !empty {
                reads.insert(i, read);
                segments = i + 1;
            }
            if !sealed {
                (broken, fault, end.offset) = (i, stop.1, stop.0);
                debug_assert!(!empty || walk.last == before);
                break;
            }
            end = Pos::new(found.ident.number + 1, BODY_START);
        }
        let (mut zero, mut more) = (None, false);
        let mut highest = walk.synced;
        for (i, found) in files.iter().enumerate().skip(broken) {
            let from = if i == broken { end.offset.max(BODY_START) } else { BODY_START };
            let mut scanner = Scanner::new(&*found.file, found.ident, from, found.size);
            let (mut at, mut stale) = (from, from);
            while let Some((_, header)) = scanner.find(at).map_err(|e| self.io(e))? {
                highest = highest.max(header.synced);
                at = scanner.offset();
                stale = at;
                more |= header.epoch >= walk.epoch && header.first_seq >= walk.next_seq;
            }
            if i == broken && reads.contains_key(&i) && stale > from {
                zero = Some((Arc::clone(&found.file), from, stale));
            }
        }
        if highest > end && !planted::is(Bug::CutDamage) {
            let path = files.get(broken).map_or(self.dir.clone(), |f| f.path.clone());
            return Err(self.damaged(&path, end.offset, fault));
        }
        walk.synced = walk.synced.max(highest.min(end));
        if end.offset == 0 {
            end.offset = BODY_START;
        }
        Ok(End { tail: end, segments, zero, more })
    }
}

/// Where the log ends.
pub(super) struct End {
    pub(super) tail: Pos,
    /// How many of the files are part of the log.
    pub(super) segments: usize,
    pub(super) zero: Option<(Arc<dyn DiskFile>, u32, u32)>,
    /// Whether there are batches behind the end that were newer than it.
    pub(super) more: bool,
}
