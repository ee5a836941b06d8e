//! What a log must know again when it is opened: delivery state, producer sessions, idempotency keys.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::Arc,
};

use acb_types::{Timestamp, batch::Keyed, position::Seq};
use bytes::Bytes;

use super::{
    Opener,
    folder::FoundFile,
    segment::{Read, Walk},
};
use crate::{
    dedupe::{KeyTable, KeyWindow, ProducerTable},
    disk::OpenMode,
    error::Result,
    planted::{self, Bug},
    postings::{KeyRow, MemIndex, ProducerRow},
    record::{SnapshotPart, StateReplay},
    retention::Orphan,
    segment::{Ident, Pos},
    shared::SealedProducers,
    sidecar::{self, Section, Sidecar},
};

impl Opener {
    /// Delivery state: from the beginning of the last complete snapshot on.
    pub(super) fn state(
        &self,
        files: &[FoundFile],
        sidecars: &[Option<Sidecar>],
        reads: &mut BTreeMap<usize, Read>,
        segments: usize,
    ) -> Result<State> {
        // The newest segment in which a snapshot was completed says where that begins.
        let mut start = 0;
        for i in (0..segments).rev() {
            let begins = match (&sidecars[i], reads.get(&i)) {
                (_, Some(read)) => completed_in(read),
                (Some(sidecar), None) => sidecar.summary.snapshot(),
                (None, None) => None,
            };
            if let Some(begins) = begins {
                start = files.iter().position(|f| f.ident.number == begins.segment).unwrap_or(0);
                break;
            }
        }
        let mut replay = StateReplay::default();
        let (mut first, mut guard) = (None, None);
        for i in start..segments {
            let read;
            let batches = match (reads.get(&i), &sidecars[i]) {
                (Some(read), _) => &read.state,
                (None, Some(s)) if s.summary.has_state => {
                    let mut walk = Walk { epoch: 0, next_seq: 0, synced: Pos::default(), last: None, reserve: 0 };
                    read = self.read_sealed(&files[i], &mut walk)?;
                    &read.state
                }
                _ => continue,
            };
            let mut completed = None;
            for (at, records) in batches {
                for (part, bytes) in records {
                    if planted::is(Bug::ForgetStateOnRecovery) && *part == SnapshotPart::None && i + 1 == segments {
                        continue;
                    }
                    if matches!(part, SnapshotPart::First | SnapshotPart::Whole) {
                        first = Some(*at);
                    }
                    if replay.push(*part, bytes.clone()) {
                        completed = first;
                    }
                }
            }
            guard = completed.or(guard);
            if let (Some(read), Some(at)) = (reads.get_mut(&i), completed) {
                read.index.summary.snapshot = at;
            }
        }
        Ok(State { records: replay.into_records(), guard })
    }

    /// Producer sessions: as they are now, and as the last sidecar has them.
    pub(super) fn producers(
        &self,
        files: &[FoundFile],
        sidecars: &[Option<Sidecar>],
        orphans: &VecDeque<Orphan>,
        reads: &BTreeMap<usize, Read>,
        tail_start: usize,
        segments: usize,
    ) -> Result<(ProducerTable, SealedProducers)> {
        let options = &self.options;
        let mut sealed = ProducerTable::unlimited(options.producer_ranges, options.producer_ttl);
        let mut from = None;
        // The newest full table; what is unreadable of a sidecar is read from its segment.
        let mut rows: BTreeMap<usize, (Vec<ProducerRow>, Seq)> = BTreeMap::new();
        for i in (0..tail_start).rev() {
            let Some(sidecar) = &sidecars[i] else { continue };
            let section = self.section(files[i].ident, sidecar, Section::Producers);
            if sidecar.producers_full
                && let Ok(bytes) = &section
                && sidecar::restore_sessions(bytes, &mut sealed)
            {
                from = Some(i + 1);
                break;
            }
            sealed.clear();
            let own = match section {
                Ok(bytes) if !sidecar.producers_full => sidecar::decode_producer_rows(&bytes).collect(),
                _ => self.index_of(&files[i])?.producers,
            };
            rows.insert(i, (own, sidecar.summary.base_seq));
        }
        // Or that of the newest segment that was trimmed.
        for orphan in orphans.iter().rev().filter(|o| o.sidecar.producers_full && from.is_none()) {
            let section = self.section(orphan.ident, &orphan.sidecar, Section::Producers);
            if section.is_ok_and(|bytes| sidecar::restore_sessions(&bytes, &mut sealed)) {
                break;
            }
            sealed.clear();
        }
        let mut apply = |table: &mut ProducerTable, i: usize| {
            if let Some(read) = reads.get(&i) {
                let base = read.index.summary.base_seq;
                read.index.producers.iter().for_each(|row| table.replay_row(row, base));
            } else if let Some((rows, base)) = rows.remove(&i) {
                rows.iter().for_each(|row| table.replay_row(row, base));
            }
        };
        (from.unwrap_or(0)..tail_start).for_each(|i| apply(&mut sealed, i));
        let budget = Arc::clone(&self.tenant.producers);
        let mut live = ProducerTable::new(budget, options.producer_ranges, options.producer_ttl);
        if !planted::is(Bug::ForgetProducerOnRecovery) {
            for (producer, session) in sealed.sorted(self.now) {
                live.restore(producer, session.clone());
            }
            (tail_start..segments).for_each(|i| apply(&mut live, i));
        }
        let applied =
            files.get(tail_start).map_or_else(|| files.last().map_or(0, |f| f.ident.number), |f| f.ident.number - 1);
        Ok((live, SealedProducers { table: sealed, applied }))
    }

    /// Idempotency keys inside the window.
    pub(super) fn keys(
        &self,
        files: &[FoundFile],
        sidecars: &[Option<Sidecar>],
        orphans: &VecDeque<Orphan>,
        reads: &BTreeMap<usize, Read>,
        segments: usize,
    ) -> Result<KeyTable> {
        let mut keys = KeyTable::new(self.options.key_window, Arc::clone(&self.tenant.keys), self.now);
        let recent = |time: Timestamp| match self.options.key_window {
            KeyWindow::For(window) => time.after(window) > self.now,
            KeyWindow::WhileKept => true,
        };
        let mut take = |rows: &mut dyn Iterator<Item = KeyRow>, base: Seq| {
            for row in rows {
                let at = Timestamp(u64::from(row.at) * 1000);
                if recent(at) {
                    keys.replay(&Keyed { index: 0, key: row.key, body: row.body }, base + u64::from(row.seq), at);
                }
            }
        };
        for orphan in orphans.iter().filter(|o| o.keys_live(self.options.key_window, self.now)) {
            let s = orphan.sidecar.summary;
            if let Ok(bytes) = self.section(orphan.ident, &orphan.sidecar, Section::Keys) {
                take(&mut sidecar::decode_keys(&bytes), s.base_seq);
            }
        }
        for i in 0..segments {
            match (reads.get(&i), &sidecars[i]) {
                (Some(read), _) => {
                    let s = read.index.summary;
                    take(&mut read.index.keys.iter().copied(), s.base_seq);
                }
                (None, Some(sidecar)) if recent(sidecar.summary.last_time) => {
                    let s = sidecar.summary;
                    match self.section(files[i].ident, sidecar, Section::Keys) {
                        Ok(bytes) => take(&mut sidecar::decode_keys(&bytes), s.base_seq),
                        Err(_) => take(&mut self.index_of(&files[i])?.keys.into_iter(), s.base_seq),
                    }
                }
                _ => {}
            }
        }
        Ok(keys)
    }

    fn section(&self, ident: Ident, sidecar: &Sidecar, section: Section) -> io::Result<Vec<u8>> {
        let file = self.disk().open(&self.dir.join(ident.sidecar_name()), OpenMode::Read)?;
        sidecar.section(&*file, section)
    }

    fn index_of(&self, found: &FoundFile) -> Result<MemIndex> {
        let mut walk = Walk { epoch: 0, next_seq: 0, synced: Pos::default(), last: None, reserve: 0 };
        Ok(self.read_sealed(found, &mut walk)?.index)
    }
}

pub(super) struct State {
    pub(super) records: Vec<Bytes>,
    pub(super) guard: Option<Pos>,
}

/// Where the last snapshot begins that this segment completes, if it also begins in a segment at hand.
fn completed_in(read: &Read) -> Option<Pos> {
    let mut first = None;
    let mut complete = None;
    for (at, records) in &read.state {
        for (part, _) in records {
            match part {
                SnapshotPart::First => first = Some(*at),
                SnapshotPart::Whole => {
                    first = None;
                    complete = Some(*at);
                }
                SnapshotPart::Last => complete = first.take().or(complete),
                SnapshotPart::None | SnapshotPart::Middle => {}
            }
        }
    }
    complete
}
