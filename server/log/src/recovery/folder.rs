//! What lies in a log's folder: segments in order, their sidecars, and what is left over.

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::Arc,
};

use acb_types::ErrorCode;

use super::Opener;
use crate::{
    disk::{DiskFile, OpenMode},
    error::{LogError, Result},
    retention::Orphan,
    scan::Scanner,
    segment::{BODY_START, HeaderFault, Ident, SEGMENT_VERSION, SegmentHeader},
    sidecar::Sidecar,
};

/// A segment's file as it was found.
pub(super) struct FoundFile {
    pub(super) ident: Ident,
    pub(super) path: PathBuf,
    pub(super) size: u32,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) header: std::result::Result<(), HeaderFault>,
}

impl Opener {
    #[expect(clippy::type_complexity, reason = "taken apart at once by the one caller")]
    /// The segments of the folder in order, each with its sidecar where that is good.
    pub(super) fn list(
        &self,
        remove: &mut Vec<PathBuf>,
    ) -> Result<(Vec<FoundFile>, Vec<Option<Sidecar>>, VecDeque<Orphan>)> {
        let entries = self.disk().list(&self.dir).map_err(|e| self.io(e))?;
        if entries.is_empty() {
            self.disk().create_dir_all(&self.dir).map_err(|e| self.io(e))?;
        }
        let mut by_number: BTreeMap<u32, Vec<FoundFile>> = BTreeMap::new();
        let mut sidecars = Vec::new();
        for entry in &entries {
            match Ident::parse(&entry.name) {
                Some((ident, "seg")) => {
                    by_number.entry(ident.number).or_default().push(self.find(ident)?);
                }
                Some((ident, "idx")) => sidecars.push(ident),
                Some((_, "tmp")) => remove.push(self.dir.join(&entry.name)),
                _ => {}
            }
        }
        let mut files: Vec<FoundFile> = Vec::new();
        for (number, mut found) in by_number {
            // Making a segment may have failed half way and been done again.
            found.sort_by_key(|f| f.header.is_ok());
            while found.len() > 1
                && let Some(i) = found.iter().position(|f| !holds_batches(f))
            {
                remove.push(found.remove(i).path);
            }
            let Some(one) = found.pop() else { continue };
            if let Some(other) = found.pop() {
                let what = format_args!("{} is a second segment {number}", other.path.display());
                return Err(self.damaged(&one.path, 0, what));
            }
            if let Err(HeaderFault::Version(version)) = one.header {
                let message = format!(
                    "{} was written by a newer acb-server (segment version {version}, this one reads {SEGMENT_VERSION})",
                    one.path.display()
                );
                return Err(LogError::new(ErrorCode::InvalidState, "log.open", message));
            }
            if let Some(last) = files.last()
                && last.ident.number + 1 != number
            {
                let what = format_args!("segment {} is missing", last.ident.number + 1);
                return Err(self.damaged(&last.path, last.size, what));
            }
            files.push(one);
        }
        let load = |ident: Ident| {
            let file = self.disk().open(&self.dir.join(ident.sidecar_name()), OpenMode::Read).ok()?;
            Sidecar::load(&*file, ident).ok()
        };
        let loaded = files.iter().map(|f| {
            let i = sidecars.iter().position(|s| *s == f.ident)?;
            load(sidecars.swap_remove(i))
        });
        let loaded = loaded.collect();
        // Sidecars whose segment was trimmed may still know doubles; others are left over.
        sidecars.sort_unstable_by_key(|s| s.number);
        let first = files.first().map_or(0, |f| f.ident.number);
        let mut orphans = VecDeque::new();
        for ident in sidecars {
            match load(ident) {
                Some(sidecar) if ident.number < first => orphans.push_back(Orphan { ident, sidecar }),
                _ => remove.push(self.dir.join(ident.sidecar_name())),
            }
        }
        Ok((files, loaded, orphans))
    }

    fn find(&self, ident: Ident) -> Result<FoundFile> {
        let path = self.dir.join(ident.file_name());
        let file = match self.disk().open(&path, OpenMode::Write) {
            Err(e) if e.raw_os_error() == Some(libc::EROFS) => self.disk().open(&path, OpenMode::Read),
            other => other,
        };
        let file = file.map_err(|e| self.io(e))?;
        let mut head = Vec::new();
        file.pread(&mut head, BODY_START as usize, 0).map_err(|e| self.io(e))?;
        let size = file.len().map_err(|e| self.io(e))?;
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        let header = SegmentHeader::expect(&head, ident, &self.id).map(|_| ());
        Ok(FoundFile { ident, path, size, file, header })
    }
}

fn holds_batches(found: &FoundFile) -> bool {
    let mut scanner = Scanner::new(&*found.file, found.ident, BODY_START, found.size);
    matches!(scanner.find(BODY_START), Ok(Some(_)))
}
