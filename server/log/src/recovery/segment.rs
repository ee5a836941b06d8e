//! Reading one segment batch by batch.

use std::io;

use acb_types::{
    ErrorCode,
    frame::read_varint,
    position::{Epoch, Seq},
};

use super::folder::FoundFile;
use crate::{
    batch::{Fault, Kind},
    disk::DiskFile,
    error::{LogError, Result},
    planted::{self, Bug},
    postings::MemIndex,
    record::{StateRecord, state_records},
    scan::Scanner,
    segment::{BODY_START, Pos},
    shared::{Segment, Shared},
};

/// What has been seen so far, in the log's order.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) epoch: Epoch,
    pub(super) next_seq: Seq,
    pub(super) synced: Pos,
    pub(super) last: Option<Kind>,
    /// How far seqs jump after an unclean stop, as the last opening said.
    pub(super) reserve: u64,
}

/// State records with the place of their batch.
pub(super) type StateAt = (Pos, Vec<StateRecord>);

/// A segment that was read batch by batch.
pub(super) struct Read {
    pub(super) index: MemIndex,
    pub(super) state: Vec<StateAt>,
    pub(super) sealed: bool,
    /// Where it stopped, and why.
    pub(super) stop: (u32, Fault),
}

/// Reads a segment up to its seal or its first fault.
pub(super) fn read_segment(found: &FoundFile, walk: &mut Walk) -> io::Result<Read> {
    let number = found.ident.number;
    let mut index = MemIndex::new();
    let mut state = Vec::new();
    let mut scanner = Scanner::new(&*found.file, found.ident, BODY_START, found.size);
    loop {
        let at = scanner.offset();
        let batch = match scanner.next()? {
            Ok(batch) => batch,
            Err(fault) => {
                if planted::is(Bug::KeepBrokenTail)
                    && let Some((next, _)) = scanner.find(at)?
                {
                    scanner = Scanner::new(&*found.file, found.ident, next, found.size);
                    continue;
                }
                return Ok(Read { index, state, sealed: false, stop: (at, fault) });
            }
        };
        let header = batch.header;
        if header.epoch < walk.epoch || header.first_seq < walk.next_seq {
            return Ok(Read { index, state, sealed: false, stop: (at, Fault::Order) });
        }
        index.push_batch(batch.offset, &header);
        let fits = match header.kind {
            Kind::Messages => index.push_read(batch.offset, &header, batch.meta, batch.body),
            Kind::State => state_records(batch.meta, batch.body, header.count).map(|records| {
                state.push((Pos::new(number, batch.offset), records));
            }),
            Kind::Epoch => epoch_reserve(batch.meta).map(|reserve| walk.reserve = reserve),
            Kind::Mark | Kind::Seal | Kind::Close => Some(()),
        };
        if fits.is_none() {
            return Ok(Read { index, state, sealed: false, stop: (at, Fault::Header) });
        }
        walk.epoch = header.epoch;
        walk.next_seq = header.end_seq();
        walk.synced = walk.synced.max(header.synced);
        walk.last = Some(header.kind);
        if header.kind == Kind::Seal {
            return Ok(Read { index, state, sealed: true, stop: (at, Fault::Nothing) });
        }
    }
}

/// Syncs a part of a file, whatever happened to it before. After a failed sync the system may show bytes that it lost,
/// and claim to have synced them. So what it shows is compared with what the disk has, and only what differs is written
/// again: what is on disk already is never touched, or a power cut now could harm it.
pub(super) fn make_durable(file: &dyn DiskFile, from: u32, to: u32) -> io::Result<()> {
    const BLOCK: u32 = 1 << 20;
    file.fdatasync()?;
    let mut lost = false;
    for at in (from..to).step_by(BLOCK as usize) {
        let len = BLOCK.min(to - at);
        let (mut shown, mut stored) = (Vec::new(), Vec::new());
        file.pread(&mut shown, len as usize, u64::from(at))?;
        file.forget_cached(u64::from(at), u64::from(len))?;
        file.pread(&mut stored, len as usize, u64::from(at))?;
        if shown == stored {
            continue;
        }
        lost = true;
        for (i, (shown, stored)) in shown.chunks(512).zip(stored.chunks(512)).enumerate() {
            let differ = |(a, b): (&u8, &u8)| a != b;
            if let Some(first) = shown.iter().zip(stored).position(differ)
                && let Some(last) = shown.iter().zip(stored).rposition(differ)
            {
                file.pwrite(&shown[first..=last], u64::from(at) + (i * 512 + first) as u64)?;
            }
        }
    }
    if lost { file.fdatasync() } else { Ok(()) }
}

/// How far seqs jump after an unclean stop, from the meta of an epoch record.
fn epoch_reserve(meta: &[u8]) -> Option<u64> {
    let mut at = 1;
    read_varint(meta, &mut at)?;
    read_varint(meta, &mut at)
}

/// Makes the index of a sealed segment anew, when its sidecar cannot be read.
pub(crate) fn rebuild_index(shared: &Shared, segment: &Segment) -> Result<MemIndex> {
    let fail = |e| LogError::io("log.read", segment.path.display(), e);
    let file = shared.file(segment).map_err(fail)?;
    let found =
        FoundFile { ident: segment.ident, path: segment.path.clone(), size: segment.size, file, header: Ok(()) };
    let mut walk = Walk { epoch: 0, next_seq: 0, synced: Pos::default(), last: None, reserve: 0 };
    let read = read_segment(&found, &mut walk).map_err(fail)?;
    if !read.sealed {
        let message = format!("{} is damaged at byte {}: {}", segment.path.display(), read.stop.0, read.stop.1);
        return Err(LogError::new(ErrorCode::DataDamaged, "log.read", message));
    }
    let mut index = read.index;
    index.summary.snapshot = segment.summary().snapshot;
    Ok(index)
}
