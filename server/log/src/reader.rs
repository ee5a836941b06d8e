//! Reading: from any seq, any topics, while appends go on.
//!
//! A read asks the segment's index where the wanted topics are. Where they are few, only their batches are read, close
//! ones together; where they are most of the segment, stretches of it are. At most one block of 256 KiB is held (or one
//! batch, when that is larger); reading is done outside of all locks; every batch is checked before its bytes are
//! given out.

use std::{
    io,
    ops::ControlFlow,
    sync::{Arc, atomic::Ordering},
};

use acb_types::{
    ErrorCode, Incarnation, Timestamp,
    batch::{Facts, Gap, ReadBlock, ReadRequest, Sender, StoredRun},
    frame,
    position::Seq,
};
use bytes::Bytes;

use crate::{
    batch::{self, Fault, HEADER, Header, Kind, Meta, topic_of},
    disk::DiskFile,
    error::{LogError, Result},
    planted::{self, Bug},
    postings::{Entry, Gathered, Plan, Sparse, Summary, Want, Wanted, gather, mostly, scan},
    recovery::rebuild_index,
    shared::{Chore, Index, Segment, Shared},
    sidecar::{Section, decode_sparse, entries_from, wanted_rows},
};

/// Most bytes that a read holds, unless one batch is larger.
pub const BLOCK_BYTES: u32 = 256 * 1024;
/// Batches no further apart than this are read together: a call costs more than some bytes too many.
const JOIN_BYTES: u32 = 1024;

/// Reads a log. Clones read the same log; any thread may use one.
#[derive(Clone, Debug)]
pub struct Reader {
    shared: Arc<Shared>,
}

/// Why a read of a segment stopped.
enum Stop {
    /// The segment was trimmed meanwhile.
    Trimmed,
    Failed(LogError),
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// First seq that is kept; the written end when nothing is.
    pub fn first_seq(&self) -> Seq {
        self.shared.first_seq().min(self.shared.written_seq())
    }

    /// Bytes that readers of this log took from its files since it was opened, indexes included: what answers to reads
    /// cost, where the answers themselves are what they gave.
    pub fn read_bytes(&self) -> u64 {
        self.shared.read_bytes.load(Ordering::Relaxed)
    }

    /// Reads messages of wanted topics that are written, in order. At most about 256 KiB are held at once. Blocks for as
    /// long as the disk takes.
    ///
    /// # Errors
    /// `data_damaged` names file and offset; `storage_failed` when the disk cannot be read.
    pub fn read(&self, request: &ReadRequest) -> Result<ReadBlock> {
        loop {
            match self.try_read(request) {
                Ok(block) => return Ok(block),
                // What was trimmed while it was read lies below the floor now: a gap.
                Err(Stop::Trimmed) => {}
                Err(Stop::Failed(e)) => return Err(e),
            }
        }
    }

    fn try_read(&self, request: &ReadRequest) -> Result<ReadBlock, Stop> {
        let written = self.shared.written_seq();
        let limit = if planted::is(Bug::ReadPastEnd) { written } else { written.min(request.end_seq) };
        let floor = self.shared.floor.load(Ordering::Acquire);
        let mut take = Take::new(request, limit);
        let mut from = request.from_seq.max(1);
        if from < floor {
            let to_seq = self.first_seq().max(floor);
            take.block.gap = Some(Gap { from_seq: request.from_seq, to_seq });
            from = floor;
        }
        take.block.next_seq = from;
        let mut wanted = Wanted::new(&request.filters);
        let bytes = u32::try_from(request.bytes_max).unwrap_or(u32::MAX).clamp(1, BLOCK_BYTES);
        let mut segment = self.find(from);
        while let Some(here) = segment {
            if from >= limit {
                break;
            }
            let (summary, plan) = self.plan(&here, &mut wanted, Want { from, bytes })?;
            if summary.base_seq >= limit {
                // Seqs between the segments were never given to a message: an unclean stop skipped them.
                take.block.next_seq = take.block.next_seq.max(limit);
                break;
            }
            take.from = from;
            let complete = match plan {
                Plan::Nothing => true,
                Plan::Batches { entries, complete } => {
                    let last = entries.last().map_or(0, |e| e.last_seq);
                    if self.read_batches(&here, &entries, &mut wanted, &mut take)?.is_break() {
                        return Ok(take.block);
                    }
                    take.block.next_seq = (summary.base_seq + u64::from(last) + 1).min(limit);
                    complete
                }
                Plan::Stretch { from, to, complete } => {
                    if self.read_stretch(&here, from, to, &mut wanted, &mut take)?.is_break() {
                        return Ok(take.block);
                    }
                    complete
                }
            };
            if complete {
                take.block.next_seq = take.block.next_seq.max(summary.end_seq.min(limit));
                segment = self.shared.segment(here.ident.number + 1);
                if segment.is_none() {
                    take.block.next_seq = take.block.next_seq.max(limit);
                }
            } else {
                segment = Some(here);
            }
            from = take.block.next_seq.max(from);
            if !take.block.runs.is_empty() {
                break;
            }
        }
        take.block.next_seq = take.block.next_seq.max(from);
        Ok(take.block)
    }

    /// The segment in which a seq lies, or the first one.
    fn find(&self, seq: Seq) -> Option<Arc<Segment>> {
        let segments = self.shared.segments.read();
        let after = segments.partition_point(|s| s.summary().base_seq <= seq);
        segments.get(after.saturating_sub(1)).cloned()
    }

    fn plan(&self, segment: &Arc<Segment>, wanted: &mut Wanted<'_>, want: Want) -> Result<(Summary, Plan), Stop> {
        if let Some(planned) = plan_active(segment, wanted, want) {
            return Ok(planned);
        }
        let index = segment.index.read();
        let sidecar = match &*index {
            // Never: an index that was not active does not become so.
            Index::Active(i) => return Ok((i.summary, i.plan(wanted, want))),
            Index::Memory(i) => {
                let i = Arc::clone(i);
                drop(index);
                return Ok((i.summary, i.plan(wanted, want)));
            }
            Index::Sidecar(sidecar) => Arc::clone(sidecar),
        };
        drop(index);
        let summary = sidecar.summary;
        let planned = (|| -> io::Result<Plan> {
            if summary.messages == 0 {
                return Ok(Plan::Nothing);
            }
            let from = want.relative(summary.base_seq);
            let stretch = || {
                let sparse = decode_sparse(&self.shared.section(segment, &sidecar, Section::Sparse)?);
                Ok(scan(&sparse, summary.end, from, want.bytes))
            };
            if wanted.everything() {
                return stretch();
            }
            let directory = self.shared.section(segment, &sidecar, Section::Directory)?;
            let rows = wanted_rows(&directory, || self.shared.section(segment, &sidecar, Section::Names), wanted)?;
            if mostly(rows.iter().map(|(_, r)| u64::from(r.count)).sum(), summary.batches) {
                return stretch();
            }
            let mut lists = Vec::with_capacity(rows.len());
            for (i, row) in &rows {
                let list = self.shared.list(segment, &sidecar, (*i, row))?;
                lists.push(entries_from(&list, from, want.bytes));
            }
            let lists: Vec<&[Entry]> = lists.iter().map(|l| &l[..]).collect();
            Ok(gather(&lists, want.bytes))
        })();
        match planned {
            Ok(plan) => Ok((summary, plan)),
            Err(_) if !self.shared.holds(segment) => Err(Stop::Trimmed),
            // A sidecar is a copy: what it cannot say, the segment can.
            Err(_) => {
                self.rebuild(segment).map(|index| (index.summary, index.plan(wanted, want))).map_err(Stop::Failed)
            }
        }
    }

    fn rebuild(&self, segment: &Arc<Segment>) -> Result<Arc<crate::postings::MemIndex>> {
        let index = Arc::new(rebuild_index(&self.shared, segment)?);
        self.shared.uncache(segment.ident.number);
        *segment.index.write() = Index::Memory(Arc::clone(&index));
        self.shared.chores.lock().push_back(Chore::Sidecar(Arc::clone(segment)));
        Ok(index)
    }

    /// Reads batches, close ones together.
    fn read_batches(
        &self,
        segment: &Segment,
        entries: &[Entry],
        wanted: &mut Wanted<'_>,
        take: &mut Take,
    ) -> Result<ControlFlow<()>, Stop> {
        let file = self.shared.file(segment).map_err(|e| self.stop(segment, e))?;
        let mut rest = entries;
        while let Some(first) = rest.first() {
            let mut end = first.offset + first.len;
            let together = rest.iter().take_while(|e| {
                let near =
                    e.offset <= end + JOIN_BYTES && e.offset + e.len - first.offset <= BLOCK_BYTES.max(first.len);
                if near {
                    end = e.offset + e.len;
                }
                near
            });
            let count = together.count();
            let block = self.block(segment, &*file, first.offset, end)?;
            for entry in &rest[..count] {
                let at = (entry.offset - first.offset) as usize;
                let header = self.check(segment, entry.offset, &block[at..])?;
                if take.batch(&block, at, &header, wanted).map_err(|f| self.fault(segment, entry.offset, f))?.is_break()
                {
                    return Ok(ControlFlow::Break(()));
                }
            }
            rest = &rest[count..];
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Reads a stretch that begins and ends where batches do.
    fn read_stretch(
        &self,
        segment: &Segment,
        from: u32,
        to: u32,
        wanted: &mut Wanted<'_>,
        take: &mut Take,
    ) -> Result<ControlFlow<()>, Stop> {
        let file = self.shared.file(segment).map_err(|e| self.stop(segment, e))?;
        let block = self.block(segment, &*file, from, to)?;
        let mut at = 0;
        while at < block.len() {
            let offset = from + at as u32;
            let header = batch::peek(&block[at..], segment.ident).map_err(|f| self.fault(segment, offset, f))?;
            if header.kind == Kind::Messages && header.end_seq() > take.from {
                self.check(segment, offset, &block[at..])?;
                if take.batch(&block, at, &header, wanted).map_err(|f| self.fault(segment, offset, f))?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                take.block.next_seq = header.end_seq().min(take.limit);
            }
            at += header.len() as usize;
        }
        Ok(ControlFlow::Continue(()))
    }

    fn block(&self, segment: &Segment, file: &dyn DiskFile, from: u32, to: u32) -> Result<Bytes, Stop> {
        let mut bytes = Vec::with_capacity((to - from) as usize);
        file.pread(&mut bytes, (to - from) as usize, u64::from(from)).map_err(|e| self.stop(segment, e))?;
        self.shared.count_read(bytes.len());
        Ok(bytes.into())
    }

    fn check(&self, segment: &Segment, offset: u32, bytes: &[u8]) -> Result<Header, Stop> {
        batch::check(bytes, segment.ident).map_err(|f| self.fault(segment, offset, f))
    }

    fn fault(&self, segment: &Segment, offset: u32, fault: Fault) -> Stop {
        if !self.shared.holds(segment) {
            return Stop::Trimmed;
        }
        let message = format!(
            "{} is damaged at byte {offset}: {fault}; run `acb-server check` on the data folder",
            segment.path.display()
        );
        Stop::Failed(LogError::new(ErrorCode::DataDamaged, "log.read", message))
    }

    fn stop(&self, segment: &Segment, error: io::Error) -> Stop {
        if self.shared.holds(segment) {
            Stop::Failed(LogError::io("log.read", segment.path.display(), error))
        } else {
            Stop::Trimmed
        }
    }

    /// First seq stored at or after a time; the written end when there is none.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn seq_at(&self, time: Timestamp) -> Result<Seq> {
        let segments: Vec<Arc<Segment>> = self.shared.segments.read().iter().cloned().collect();
        for segment in &segments {
            let summary = segment.summary();
            if summary.messages == 0 || summary.last_time < time {
                continue;
            }
            match self.seq_in(segment, &summary, time) {
                Ok(Some(seq)) => return Ok(seq),
                Ok(None) | Err(Stop::Trimmed) => {}
                Err(Stop::Failed(e)) => return Err(e),
            }
        }
        Ok(self.shared.written_seq())
    }

    fn seq_in(&self, segment: &Arc<Segment>, summary: &Summary, time: Timestamp) -> Result<Option<Seq>, Stop> {
        let sidecar = match &*segment.index.read() {
            Index::Active(i) => Err(i.sparse.clone()),
            Index::Memory(i) => Err(i.sparse.clone()),
            Index::Sidecar(sidecar) => Ok(Arc::clone(sidecar)),
        };
        let sparse: Vec<Sparse> = match sidecar {
            Err(sparse) => sparse,
            Ok(sidecar) => match self.shared.section(segment, &sidecar, Section::Sparse) {
                Ok(bytes) => decode_sparse(&bytes),
                Err(_) if !self.shared.holds(segment) => return Err(Stop::Trimmed),
                Err(_) => self.rebuild(segment).map_err(Stop::Failed)?.sparse.clone(),
            },
        };
        let Some(i) = sparse.iter().position(|s| s.time_max >= time) else { return Ok(None) };
        let (from, to) = (sparse[i].offset, sparse.get(i + 1).map_or(summary.end, |s| s.offset));
        let file = self.shared.file(segment).map_err(|e| self.stop(segment, e))?;
        let block = self.block(segment, &*file, from, to)?;
        let mut at = 0;
        while at + HEADER <= block.len() {
            let header = self.check(segment, from + at as u32, &block[at..])?;
            if header.kind == Kind::Messages && header.stored_at >= time {
                return Ok(Some(header.first_seq));
            }
            at += header.len() as usize;
        }
        Ok(None)
    }
}

/// Topics whose lists are looked at under one lock.
const TOPICS_PER_LOCK: usize = 256;

/// Plans in the segment that is written to; `None` when it is not. Every append waits for the lock of its index, so it
/// is held for a bounded time only: all topics are asked without it, and their lists looked at some at a time. What is
/// appended meanwhile is left out.
fn plan_active(segment: &Segment, wanted: &mut Wanted<'_>, want: Want) -> Option<(Summary, Plan)> {
    let (summary, names) = match &*segment.index.read() {
        Index::Active(i) if wanted.is_quick() => return Some((i.summary, i.plan(wanted, want))),
        Index::Active(i) => (i.summary, i.names()),
        _ => return None,
    };
    let ids = names.wanted(wanted);
    let mut gathered = Gathered::default();
    for ids in ids.chunks(TOPICS_PER_LOCK) {
        match &*segment.index.read() {
            Index::Active(i) => i.gather(ids, want, summary.end, &mut gathered),
            // Sealed meanwhile: it has an index without a lock now.
            _ => return None,
        }
    }
    match &*segment.index.read() {
        Index::Active(i) => Some((summary, i.finish(gathered, want))),
        _ => None,
    }
}

/// Collects what a read gives.
struct Take {
    block: ReadBlock,
    /// Messages below are not wanted.
    from: Seq,
    /// Messages at or above are not wanted.
    limit: Seq,
    messages_left: u32,
    bytes_left: u64,
    /// Facts of the last batch: the next one's are often the same.
    facts: Option<Arc<Facts>>,
}

impl Take {
    fn new(request: &ReadRequest, limit: Seq) -> Self {
        Self {
            block: ReadBlock::default(),
            from: request.from_seq,
            limit,
            messages_left: request.messages_max.max(1),
            bytes_left: request.bytes_max,
            facts: None,
        }
    }

    /// Takes what is wanted of a checked batch. Breaks when nothing more can be taken; `next_seq` is set then.
    fn batch(
        &mut self,
        block: &Bytes,
        at: usize,
        header: &Header,
        wanted: &mut Wanted<'_>,
    ) -> Result<ControlFlow<()>, Fault> {
        let meta_at = at + HEADER;
        let body_at = meta_at + header.meta_len as usize;
        let meta = Meta::decode(&block[meta_at..body_at]).ok_or(Fault::Header)?;
        let body = &block[body_at..body_at + header.body_len as usize];
        let mut seq = header.first_seq;
        for (count, range) in meta.runs(header.count, header.body_len) {
            let first = seq;
            seq += u64::from(count);
            if first >= self.limit {
                self.block.next_seq = self.limit;
                return Ok(ControlFlow::Break(()));
            }
            let run = &body[range.clone()];
            let topic = topic_of(run).ok_or(Fault::Header)?;
            if seq <= self.from || !wanted.hears(&run[topic.clone()]) {
                continue;
            }
            let skip = self.from.saturating_sub(first) as u32;
            let most = (self.limit.min(seq) - first) as u32 - skip;
            let from = if skip == 0 { 0 } else { frame::prefix_len(run, skip) };
            // A whole run needs no walk.
            let len = if most + skip == count { run.len() - from } else { frame::prefix_len(&run[from..], most) };
            let (fits, len) = self.fit(&run[from..from + len], most);
            if fits > 0 {
                let start = body_at + range.start;
                self.messages_left -= fits;
                self.bytes_left = self.bytes_left.saturating_sub(len as u64);
                let stored = StoredRun {
                    first_seq: first + u64::from(skip),
                    count: fits,
                    topic: block.slice(start + topic.start..start + topic.end),
                    body: block.slice(start + from..start + from + len),
                    facts: self.facts(header, &meta)?,
                };
                self.block.runs.push(stored);
            }
            if fits < most || self.messages_left == 0 {
                self.block.next_seq = first + u64::from(skip + fits);
                return Ok(ControlFlow::Break(()));
            }
            if seq > self.limit {
                self.block.next_seq = self.limit;
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// How many of `count` messages fit into what is left, and their bytes. The first of all always fits.
    fn fit(&self, run: &[u8], count: u32) -> (u32, usize) {
        if count <= self.messages_left && run.len() as u64 <= self.bytes_left {
            return (count, run.len());
        }
        let most = count.min(self.messages_left);
        let (mut fits, mut len) = (0, 0);
        while fits < most {
            let next = len + frame::prefix_len(&run[len..], 1);
            if next as u64 > self.bytes_left && !(fits == 0 && self.block.runs.is_empty()) {
                break;
            }
            (fits, len) = (fits + 1, next);
        }
        (fits, len)
    }

    fn facts(&mut self, header: &Header, meta: &Meta<'_>) -> Result<Arc<Facts>, Fault> {
        let same_sender =
            |f: &Facts| f.sender.agent.as_str() == meta.agent && f.sender.incarnation.0 == meta.incarnation;
        let sender = match &self.facts {
            Some(f) if same_sender(f) => {
                if f.epoch == header.epoch && f.stored_at == header.stored_at && f.flags == header.flags {
                    return Ok(Arc::clone(f));
                }
                Arc::clone(&f.sender)
            }
            _ => {
                let agent = meta.agent.parse().map_err(|_| Fault::Header)?;
                Arc::new(Sender { agent, incarnation: Incarnation(meta.incarnation) })
            }
        };
        let facts = Arc::new(Facts { epoch: header.epoch, stored_at: header.stored_at, sender, flags: header.flags });
        self.facts = Some(Arc::clone(&facts));
        Ok(facts)
    }
}
