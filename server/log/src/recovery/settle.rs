//! Mending what was found, and the record of this opening.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use acb_types::position::Seq;
use smallvec::SmallVec;

use crate::{
    batch::Kind,
    disk::{Disk, DiskFile},
    error::{LogError, Result},
    log::{Log, Staged},
    record::{Opening, put_epoch_meta},
    recycle::SegmentPool,
};

/// What must be done before the first append.
#[derive(Debug)]
pub(crate) struct Settle {
    /// Torn or stale bytes behind the end: file, from, to.
    pub(super) zero: Option<(Arc<dyn DiskFile>, u32, u32)>,
    /// Files that hold nothing of the log.
    pub(super) remove: Vec<PathBuf>,
    /// Segments that hold nothing of the log: made ahead, or cut off. Last one first. Nobody knows which of them are
    /// there for good, so none is kept in its place.
    pub(super) retire: Vec<(PathBuf, u32, u32)>,
    pub(super) opening: Opening,
    pub(super) found_end: Seq,
}

impl Settle {
    fn mend(&self, disk: &dyn Disk, dir: &Path, pool: &SegmentPool) -> io::Result<()> {
        for path in &self.remove {
            disk.remove(path)?;
        }
        disk.sync_dir(dir)?;
        // Each for good before the next: there must never be a hole.
        for (path, size, generation) in &self.retire {
            pool.put(path, *size, *generation).or_else(|e| match e.kind() {
                // Done by an earlier try.
                io::ErrorKind::NotFound => disk.sync_dir(dir),
                _ => Err(e),
            })?;
        }
        if let Some((file, from, to)) = &self.zero {
            let zeroes = vec![0; ((to - from) as usize).min(1 << 20)];
            for at in (*from..*to).step_by(1 << 20) {
                file.pwrite(&zeroes[..((to - at) as usize).min(zeroes.len())], u64::from(at))?;
            }
            // Never tried again: after a failure nobody knows what is on disk, whatever the code says.
            file.fdatasync().map_err(io::Error::other)?;
        }
        Ok(())
    }
}

impl Log {
    /// Mends what recovery found, and writes and syncs the record of this opening. Before that no seq is given out.
    pub(crate) fn settle_now(&mut self) -> Result<()> {
        let Some(settle) = self.settle.take() else { return Ok(()) };
        let fail = |e| LogError::io("log.open", format_args!("opening {}", self.shared.id), e);
        let mended = settle.mend(self.shared.disk(), &self.shared.dir, &self.shared.tenant.pool).map_err(fail);
        let result = mended.and_then(|()| {
            self.synced = self.synced.max(self.tail);
            self.synced_seq = self.synced_seq.max(self.written_seq);
            let mut meta = Vec::new();
            put_epoch_meta(&mut meta, settle.opening, settle.found_end, self.shared.options.seq_reserve);
            self.staged.push(Staged::Own { kind: Kind::Epoch, meta: SmallVec::from_vec(meta) });
            self.write_staged()?;
            match self.sync_begin() {
                Some(mut ticket) => {
                    ticket.run();
                    self.sync_end(ticket)
                }
                None => Ok(()),
            }
        });
        match result {
            Err(e) if e.heals() => {
                self.settle = Some(settle);
                Err(e)
            }
            // Half mended, and never tried again: nothing may be appended to it.
            Err(e) => Err(self.give_up(e)),
            Ok(()) => Ok(()),
        }
    }
}
