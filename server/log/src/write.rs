//! How staged batches reach the file: laid out one behind the other, over the end of a segment if need be, then one
//! `pwrite` or `pwritev` per segment, then the index, then the readers' end. In this order: what readers see is in the
//! file, and what is in the index is in the file.

use std::{
    io::IoSlice,
    sync::{Arc, atomic::Ordering},
};

use acb_types::{ErrorCode, Timestamp};
use bytes::Bytes;
use smallvec::SmallVec;

use crate::{
    batch::{self, HEADER, Header, Kind},
    disk::DiskFile,
    error::{LogError, Result},
    log::{Active, Log, Staged},
    planted::{self, Bug},
    record::{SnapshotPart, put_state_meta},
    segment::{BODY_START, Pos},
    shared::{Chore, Index, Segment},
};

/// Bodies up to this size are copied beside their headers: one long slice should cost the kernel less than many short
/// ones. A guess: not measured yet.
const COPY_BODY: usize = 4 * 1024;
/// A write up to this size is one buffer.
const COPY_ALL: u64 = 16 * 1024;
/// Above this the buffer is given back after the write.
const ARENA_KEEP: usize = 1 << 20;
/// Room that is kept at the end of each segment for its seal.
const SEAL_BYTES: u32 = HEADER as u32;

/// Where batches are put together before they are written.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    /// Headers, metas and short bodies.
    bytes: Vec<u8>,
    /// What is written, in order.
    pieces: Vec<Slice>,
    chunks: Vec<Chunk>,
    /// Where each staged batch went.
    placed: Vec<Placed>,
}

#[derive(Debug)]
enum Slice {
    /// A part of the arena.
    Own { from: usize, to: usize },
    /// The body of a staged batch.
    Body { staged: usize },
}

/// What goes into one segment.
#[derive(Debug)]
struct Chunk {
    segment: Arc<Segment>,
    file: Arc<dyn DiskFile>,
    /// Where it starts in the file.
    start: u32,
    /// Its slices: from here to the next chunk's.
    pieces_from: usize,
    /// Whether the segment ends with it, and where the seal is.
    seal: Option<(u32, Header)>,
}

#[derive(Debug)]
struct Placed {
    chunk: usize,
    offset: u32,
    header: Header,
}

impl Log {
    /// Writes all that is staged. Raises [`Self::written_end`].
    ///
    /// # Errors
    /// `storage_full` and `storage_read_only` heal: all that was staged since the last write is dropped, its seqs stay
    /// unused, and a later write may succeed. `storage_failed` does not heal.
    pub fn write(&mut self) -> Result<()> {
        if self.staged.is_empty() {
            return match &self.failed {
                Some(failed) => Err(failed.again()),
                None => Ok(()),
            };
        }
        self.accept("log.write")?;
        self.write_staged()
    }

    /// As [`Self::write`], also while the opening is not settled.
    pub(crate) fn write_staged(&mut self) -> Result<()> {
        if planted::is(Bug::WrittenBeforeWrite) && self.staged.len() == 1 && self.active.is_some() {
            self.written_seq = self.next_seq;
            return Ok(());
        }
        let mut arena = std::mem::take(&mut self.arena);
        let result = match self.lay_out(&mut arena) {
            Ok(()) => match put_out(&arena, &self.staged) {
                Ok(()) => {
                    self.wrote(&mut arena);
                    Ok(())
                }
                Err(e) => Err(self.undo(&arena, e)),
            },
            Err(e) => {
                self.drop_staged();
                Err(e)
            }
        };
        // Segments that were begun and not used wait for the next roll.
        let active = self.active.as_ref().map_or(0, |a| a.segment.ident.number);
        while let Some(chunk) = arena.chunks.pop_if(|chunk| chunk.segment.ident.number > active) {
            // Rare, and no lock otherwise: who makes or fills a spare has it for as long as the disk takes.
            self.shared.spares.lock().ready.push_front(chunk.segment);
        }
        arena.chunks.clear();
        arena.placed.clear();
        arena.pieces.clear();
        arena.bytes.clear();
        if arena.bytes.capacity() > ARENA_KEEP {
            arena.bytes = Vec::new();
        }
        self.arena = arena;
        match result {
            Err(e) if !e.heals() => Err(self.give_up(e)),
            other => other,
        }
    }

    /// Gives every staged batch its place and its header. Touches the disk only to begin a segment.
    fn lay_out(&mut self, arena: &mut Arena) -> Result<()> {
        let copy_all = self.staged_bytes <= COPY_ALL;
        let mut at = self.tail;
        if let Some(active) = &self.active {
            arena.begin(Arc::clone(&active.segment), Arc::clone(&active.file), at.offset);
        }
        // The base of relative seqs in the segment that is being filled.
        let mut base = self.active.as_ref().and_then(|a| {
            let summary = a.segment.summary();
            (summary.batches > 0).then_some(summary.base_seq)
        });
        for i in 0..self.staged.len() {
            let start = arena.bytes.len();
            let mut header = self.put_head(arena, i);
            let len = header.len();
            let fits = arena.chunks.last().is_some_and(|c| {
                at.offset.checked_add(len + SEAL_BYTES).is_some_and(|end| end <= c.segment.size)
                    && base.is_none_or(|base| header.end_seq() - base < u64::from(u32::MAX))
            });
            if !fits {
                // The new batch's head moves behind the seal of the old segment.
                let head = arena.bytes.split_off(start);
                self.seal(arena, at, &header);
                let segment = self.begin_segment(len + SEAL_BYTES)?;
                at = Pos::new(segment.0.ident.number, BODY_START);
                arena.begin(segment.0, segment.1, BODY_START);
                arena.bytes.extend_from_slice(&head);
                base = None;
            }
            base = base.or(Some(header.first_seq));
            let chunk = arena.chunks.len() - 1;
            let ident = arena.chunks[chunk].segment.ident;
            header.generation = ident.generation;
            let start = arena.bytes.len() - HEADER - header.meta_len as usize;
            arena.bytes[start..start + HEADER].copy_from_slice(&header.encode());
            let body = body_of(&self.staged[i]);
            batch::seal(&mut arena.bytes[start..], body.iter().map(|b| &b[..]), ident.salt);
            let one = (body.len() == 1).then(|| body[0].len());
            if one.is_none_or(|len| copy_all || len <= COPY_BODY) {
                body.iter().for_each(|b| arena.bytes.extend_from_slice(b));
                arena.own(start);
            } else {
                arena.own(start);
                arena.pieces.push(Slice::Body { staged: i });
            }
            arena.placed.push(Placed { chunk, offset: at.offset, header });
            at.offset += len;
        }
        Ok(())
    }

    /// Puts an empty header and the meta of a staged batch into the arena.
    fn put_head(&self, arena: &mut Arena, i: usize) -> Header {
        let start = arena.bytes.len();
        arena.bytes.resize(start + HEADER, 0);
        let own = |kind, first_seq| Header {
            body_len: 0,
            meta_len: 0,
            count: 0,
            kind,
            flags: 0,
            generation: 0,
            epoch: self.epoch,
            first_seq,
            stored_at: Timestamp::NONE,
            producer: 0,
            counter: 0,
            synced: self.synced,
            producer_epoch: 0,
        };
        let mut header = match &self.staged[i] {
            Staged::Messages { batch: b, first_seq, now } => {
                batch::put_meta(&mut arena.bytes, &b.sender, &b.runs, &b.keys);
                Header {
                    body_len: b.body.len() as u32,
                    count: b.count,
                    flags: b.flags,
                    stored_at: *now,
                    producer: b.producer.0,
                    counter: b.counter,
                    producer_epoch: b.producer_epoch,
                    ..own(Kind::Messages, *first_seq)
                }
            }
            Staged::State { records, bytes } => {
                put_state_meta(&mut arena.bytes, records);
                Header { body_len: *bytes as u32, count: records.len() as u32, ..own(Kind::State, self.seq_of(i)) }
            }
            Staged::Own { kind, meta } => {
                arena.bytes.extend_from_slice(meta);
                own(*kind, self.seq_of(i))
            }
        };
        header.meta_len = (arena.bytes.len() - start - HEADER) as u32;
        header
    }

    /// Seq of the next message after a staged batch that has none.
    fn seq_of(&self, i: usize) -> u64 {
        let later = self.staged[i..].iter().find_map(|s| match s {
            Staged::Messages { first_seq, .. } => Some(*first_seq),
            _ => None,
        });
        later.unwrap_or(self.next_seq)
    }

    /// Ends the present segment, if one is open.
    fn seal(&self, arena: &mut Arena, at: Pos, next: &Header) {
        let Some(chunk) = arena.chunks.last_mut() else { return };
        let ident = chunk.segment.ident;
        let header = Header {
            body_len: 0,
            meta_len: 0,
            count: 0,
            kind: Kind::Seal,
            flags: 0,
            generation: ident.generation,
            stored_at: Timestamp::NONE,
            producer: 0,
            counter: 0,
            producer_epoch: 0,
            ..*next
        };
        chunk.seal = Some((at.offset, header));
        let start = arena.bytes.len();
        arena.bytes.extend_from_slice(&header.encode());
        batch::seal(&mut arena.bytes[start..], [], ident.salt);
        arena.own(start);
    }

    /// Takes the segment that was made ahead, or makes one.
    fn begin_segment(&mut self, need: u32) -> Result<(Arc<Segment>, Arc<dyn DiskFile>)> {
        let mut spares = self.shared.spares.lock();
        // Whatever is used now: the next one may be asked for.
        self.shared.spare_asked.store(false, Ordering::Relaxed);
        let segment = if let Some(segment) = spares.ready.pop_front() {
            segment
        } else {
            let number = spares.next_number;
            let size = self.shared.options.segment_size(number).max(need + BODY_START);
            let made = self.shared.make_segment(number, size).map_err(|e| {
                LogError::io("log.write", format_args!("beginning segment {number} of {}", self.shared.id), e)
            })?;
            spares.next_number += 1;
            made
        };
        drop(spares);
        let file = self.shared.file(&segment).map_err(|e| LogError::io("log.write", segment.path.display(), e))?;
        Ok((segment, file))
    }

    /// Everything is in the file: notes it in the indexes and shows it to readers.
    fn wrote(&mut self, arena: &mut Arena) {
        let mut placed = arena.placed.iter().zip(&self.staged).peekable();
        let mut complete = None;
        let chunks = arena.chunks.len();
        for (n, chunk) in arena.chunks.iter().enumerate() {
            let number = chunk.segment.ident.number;
            if let Index::Active(index) = &mut *chunk.segment.index.write() {
                while let Some((p, staged)) = placed.next_if(|(p, _)| p.chunk == n) {
                    index.push_batch(p.offset, &p.header);
                    match staged {
                        Staged::Messages { batch, .. } => index.push_stored(p.offset, &p.header, batch),
                        Staged::State { records, .. } => {
                            let at = Pos::new(number, p.offset);
                            for (part, _) in records {
                                match part {
                                    SnapshotPart::First => self.snapshots.first = Some(at),
                                    SnapshotPart::Whole => {
                                        self.snapshots.first = None;
                                        complete = Some((at, at.offset + p.header.len()));
                                    }
                                    SnapshotPart::Last => {
                                        let first = self.snapshots.first.take().unwrap_or(at);
                                        complete = Some((first, at.offset + p.header.len()));
                                    }
                                    SnapshotPart::None | SnapshotPart::Middle => {}
                                }
                                if let Some((first, end)) = complete.take() {
                                    index.summary.snapshot = first;
                                    self.snapshots.written = Some((first, Pos::new(number, end)));
                                }
                            }
                        }
                        Staged::Own { .. } => {}
                    }
                    self.tail = Pos::new(number, p.offset + p.header.len());
                }
                if let Some((offset, header)) = chunk.seal {
                    index.push_batch(offset, &header);
                }
            }
            self.used += u64::from(chunk.segment.summary().end - chunk.start);
            if chunk.seal.is_some() {
                chunk.segment.seal();
                self.unsynced.push_back(Arc::clone(&chunk.segment));
            }
            let active = self.active.as_ref().map(|a| a.segment.ident.number);
            if active != Some(number) {
                self.used += u64::from(BODY_START);
                self.shared.segments.write().push_back(Arc::clone(&chunk.segment));
                self.active = Some(Active { segment: Arc::clone(&chunk.segment), file: Arc::clone(&chunk.file) });
                // The first segment of all has nothing before it to take a snapshot of.
                self.snapshots.wanted |= active.is_some() || number > 1;
                if planted::is(Bug::ForgetKeyOnRoll) && active.is_some() {
                    self.keys.clear();
                }
            }
            debug_assert!(n + 1 == chunks || chunk.seal.is_some(), "only the last segment stays open");
        }
        self.staged.clear();
        self.staged_bytes = 0;
        self.producers.commit();
        self.keys.commit();
        self.written_seq = self.next_seq;
        self.publish();
        self.ask_for_spare();
    }

    /// Asks for the next segment when the present one is half full.
    fn ask_for_spare(&self) {
        let Some(active) = &self.active else { return };
        let next = active.segment.ident.number + 1;
        if self.tail.offset > active.segment.size / 2 && !self.shared.spare_asked.load(Ordering::Relaxed) {
            self.shared.spare_asked.store(true, Ordering::Relaxed);
            self.shared.chores.lock().push_back(Chore::Spare { size: self.shared.options.segment_size(next) });
        }
    }

    /// A write failed: takes back what may have arrived, so that no later opening finds it.
    fn undo(&mut self, arena: &Arena, error: std::io::Error) -> LogError {
        let error = LogError::io("log.write", format_args!("writing to {}", self.shared.id), error);
        self.drop_staged();
        if error.heals()
            && let Some(chunk) = arena.chunks.first()
        {
            // Best effort: the next write goes to the same place anyway.
            let room = (chunk.segment.size.saturating_sub(chunk.start) as usize).min(HEADER);
            if chunk.file.pwrite(&[0; HEADER][..room], u64::from(chunk.start)).is_ok()
                && let Err(e) = chunk.file.fdatasync()
            {
                // The system tells of a failed sync once, and it told us: the next one would claim what is lost.
                let what = format!("syncing {} failed, so nobody knows what of it is on disk", self.shared.id);
                return LogError { code: ErrorCode::StorageFailed, ..LogError::io("log.write", what, e) };
            }
        }
        error
    }
}

/// The parts of a staged batch's body.
fn body_of(staged: &Staged) -> SmallVec<[&Bytes; 4]> {
    match staged {
        Staged::Messages { batch, .. } => SmallVec::from_slice(&[&batch.body]),
        Staged::State { records, .. } => records.iter().map(|(_, bytes)| bytes).collect(),
        Staged::Own { .. } => SmallVec::new(),
    }
}

impl Arena {
    fn begin(&mut self, segment: Arc<Segment>, file: Arc<dyn DiskFile>, start: u32) {
        self.chunks.push(Chunk { segment, file, start, pieces_from: self.pieces.len(), seal: None });
    }

    /// The arena from `from` to its end is written next.
    fn own(&mut self, from: usize) {
        let to = self.bytes.len();
        let begins_chunk = self.chunks.last().is_some_and(|c| c.pieces_from == self.pieces.len());
        match self.pieces.last_mut() {
            Some(Slice::Own { to: end, .. }) if *end == from && !begins_chunk => *end = to,
            _ => self.pieces.push(Slice::Own { from, to }),
        }
    }
}

/// Writes the arena's chunks.
fn put_out(arena: &Arena, staged: &[Staged]) -> std::io::Result<()> {
    for (n, chunk) in arena.chunks.iter().enumerate() {
        let end = arena.chunks.get(n + 1).map_or(arena.pieces.len(), |next| next.pieces_from);
        let pieces = &arena.pieces[chunk.pieces_from..end];
        let offset = u64::from(chunk.start);
        match pieces {
            [] => {}
            [Slice::Own { from, to }] => chunk.file.pwrite(&arena.bytes[*from..*to], offset)?,
            pieces => {
                let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(pieces.len());
                for piece in pieces {
                    match piece {
                        Slice::Own { from, to } => slices.push(IoSlice::new(&arena.bytes[*from..*to])),
                        Slice::Body { staged: i } => {
                            slices.extend(body_of(&staged[*i]).into_iter().map(|b| IoSlice::new(b)));
                        }
                    }
                }
                chunk.file.pwritev(&mut slices, offset)?;
            }
        }
    }
    Ok(())
}
