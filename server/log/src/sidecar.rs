//! The sidecar of a sealed segment: its index as a file, so that neither opening nor reading needs the segment itself.
//!
//! A sidecar is a copy of what the segment says, written after the segment was synced: a good sidecar proves that all
//! of its segment is on disk. A missing or damaged one is made anew from the segment. Only its table of producer
//! sessions knows more: it also remembers segments that retention took.
//!
//! Sections are loaded and checked one by one; a topic's list has its own checksum, so that a reader of one topic reads
//! the directory once and then its own lists.

use std::{collections::VecDeque, io, io::IoSlice};

use acb_types::Timestamp;

use crate::{
    dedupe::{Producer, ProducerTable, Range},
    disk::DiskFile,
    postings::{Entry, KeyRow, MemIndex, ProducerRow, Sparse, Summary, Wanted},
    segment::{Ident, Pos, u32_at, u64_at},
};

/// Bytes of a sidecar's header.
pub(crate) const HEADER: usize = 256;
const MAGIC: [u8; 8] = *b"ACBINDX1";
const VERSION: u16 = 1;
/// Bytes of a directory row, of a list's entry, of a sparse entry, of a key, of a producer row.
const ROW: usize = 24;
const ENTRY: usize = 12;
const SPARSE: usize = 16;
const KEY: usize = 32;
const PRODUCER: usize = 32;
/// Lists of more entries are kept in the cache; shorter ones are read each time.
pub(crate) const LONG_LIST: u32 = 1024;

/// Parts of a sidecar that are loaded on their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Section {
    Sparse = 0,
    Directory = 1,
    Names = 2,
    Lists = 3,
    Keys = 4,
    Producers = 5,
}

const SECTIONS: usize = 6;

/// Where a section lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    offset: u32,
    len: u32,
    crc: u32,
}

/// A sidecar's header: the segment in numbers, and where the sections lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sidecar {
    pub(crate) summary: Summary,
    places: [Place; SECTIONS],
    /// Whether the table of producers holds all sessions, not only this segment's.
    pub(crate) producers_full: bool,
}

/// One topic of a directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    name_offset: u32,
    name_len: u16,
    list_offset: u32,
    /// Entries of its list.
    pub(crate) count: u32,
    crc: u32,
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the sidecar's {what} is damaged"))
}

/// Hash of a topic in a directory. Stable on disk; two topics of one hash only cost a wasted look.
fn hash(topic: &[u8]) -> u32 {
    crc32c::crc32c(topic)
}

/// Writes a sidecar. `producers` holds all sessions, or nothing when that would be too much: then the segment's own rows
/// are written.
pub(crate) fn write(
    file: &dyn DiskFile,
    ident: Ident,
    index: &MemIndex,
    producers: Option<&ProducerTable>,
) -> io::Result<()> {
    let mut topics: Vec<(&[u8], &[Entry])> = index.topics().collect();
    topics.sort_unstable_by_key(|(name, _)| (hash(name), *name));
    let (mut directory, mut names, mut lists) = (Vec::new(), Vec::new(), Vec::new());
    for (name, list) in &topics {
        let start = lists.len();
        for entry in *list {
            lists.extend_from_slice(&entry.offset.to_le_bytes());
            lists.extend_from_slice(&entry.len.to_le_bytes());
            lists.extend_from_slice(&entry.last_seq.to_le_bytes());
        }
        let (list_offset, crc) = (start as u32, crc32c::crc32c(&lists[start..]));
        directory.extend_from_slice(&hash(name).to_le_bytes());
        directory.extend_from_slice(&(names.len() as u32).to_le_bytes());
        directory.extend_from_slice(&(name.len() as u16).to_le_bytes());
        // The priority lane, and room: all messages are in lane 0 today.
        directory.extend_from_slice(&[0, 0]);
        directory.extend_from_slice(&list_offset.to_le_bytes());
        directory.extend_from_slice(&(list.len() as u32).to_le_bytes());
        directory.extend_from_slice(&crc.to_le_bytes());
        names.extend_from_slice(name);
    }
    let mut sparse = Vec::with_capacity(index.sparse.len() * SPARSE);
    for s in &index.sparse {
        sparse.extend_from_slice(&s.seq.to_le_bytes());
        sparse.extend_from_slice(&s.offset.to_le_bytes());
        sparse.extend_from_slice(&s.time_max.0.to_le_bytes());
    }
    let mut keys = Vec::with_capacity(index.keys.len() * KEY);
    for k in &index.keys {
        keys.extend_from_slice(&k.key.to_le_bytes());
        keys.extend_from_slice(&k.body.to_le_bytes());
        keys.extend_from_slice(&k.seq.to_le_bytes());
        keys.extend_from_slice(&k.at.to_le_bytes());
    }
    let sessions = match producers {
        Some(table) => encode_sessions(table, index.summary.last_time),
        None => encode_rows(&index.producers),
    };
    let sections = [&sparse, &directory, &names, &lists, &keys, &sessions];
    let mut places = [Place::default(); SECTIONS];
    let mut offset = HEADER as u32;
    for (place, bytes) in places.iter_mut().zip(sections) {
        *place = Place { offset, len: bytes.len() as u32, crc: crc32c::crc32c(bytes) };
        offset += bytes.len() as u32;
    }
    let header = Sidecar { summary: index.summary, places, producers_full: producers.is_some() }.encode(ident);
    let mut slices: Vec<IoSlice<'_>> = vec![IoSlice::new(&header)];
    slices.extend(sections.iter().map(|s| IoSlice::new(s)));
    file.pwritev(&mut slices, 0)
}

fn encode_rows(rows: &[ProducerRow]) -> Vec<u8> {
    let mut out = Vec::with_capacity(rows.len() * 36);
    for r in rows {
        out.extend_from_slice(&r.producer.to_le_bytes());
        out.extend_from_slice(&r.counter.to_le_bytes());
        out.extend_from_slice(&r.at.0.to_le_bytes());
        out.extend_from_slice(&r.seq.to_le_bytes());
        out.extend_from_slice(&r.count.to_le_bytes());
        out.extend_from_slice(&r.epoch.to_le_bytes());
    }
    out
}

fn encode_sessions(table: &ProducerTable, now: Timestamp) -> Vec<u8> {
    let mut out = Vec::new();
    for (producer, session) in table.sorted(now) {
        out.extend_from_slice(&producer.to_le_bytes());
        out.extend_from_slice(&session.last_seen.0.to_le_bytes());
        out.extend_from_slice(&session.floor.to_le_bytes());
        out.extend_from_slice(&session.epoch.to_le_bytes());
        out.extend_from_slice(&(session.ranges.len() as u32).to_le_bytes());
        for r in &session.ranges {
            out.extend_from_slice(&r.counter.to_le_bytes());
            out.extend_from_slice(&r.seq.to_le_bytes());
            out.extend_from_slice(&r.count.to_le_bytes());
        }
    }
    out
}

impl Sidecar {
    fn encode(&self, ident: Ident) -> [u8; HEADER] {
        let s = &self.summary;
        let mut out = [0; HEADER];
        out[..8].copy_from_slice(&MAGIC);
        out[12..14].copy_from_slice(&VERSION.to_le_bytes());
        out[14] = u8::from(self.producers_full);
        out[15] = u8::from(s.has_state);
        out[16..20].copy_from_slice(&ident.number.to_le_bytes());
        out[20..24].copy_from_slice(&ident.generation.to_le_bytes());
        out[24..28].copy_from_slice(&ident.salt.to_le_bytes());
        out[28..32].copy_from_slice(&s.end.to_le_bytes());
        out[32..36].copy_from_slice(&s.epoch.to_le_bytes());
        let numbers = [
            s.base_seq,
            s.end_seq,
            s.first_message,
            s.messages,
            s.batches,
            s.first_time.0,
            s.last_time.0,
            s.synced.pack(),
            s.snapshot.pack(),
        ];
        for (i, n) in numbers.iter().enumerate() {
            out[40 + i * 8..48 + i * 8].copy_from_slice(&n.to_le_bytes());
        }
        for (i, p) in self.places.iter().enumerate() {
            let at = 128 + i * 12;
            out[at..at + 4].copy_from_slice(&p.offset.to_le_bytes());
            out[at + 4..at + 8].copy_from_slice(&p.len.to_le_bytes());
            out[at + 8..at + 12].copy_from_slice(&p.crc.to_le_bytes());
        }
        let crc = crc32c::crc32c(&out[12..]);
        out[8..12].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a sidecar's header.
    ///
    /// # Errors
    /// It is damaged, of another segment, or of a version that this server does not read: then it is made anew.
    pub(crate) fn load(file: &dyn DiskFile, ident: Ident) -> io::Result<Self> {
        let mut b = Vec::with_capacity(HEADER);
        file.pread(&mut b, HEADER, 0)?;
        let good = b.len() == HEADER
            && b[..8] == MAGIC
            && crc32c::crc32c(&b[12..]) == u32_at(&b, 8)
            && u16::from_le_bytes([b[12], b[13]]) == VERSION
            && Ident { number: u32_at(&b, 16), generation: u32_at(&b, 20), salt: u32_at(&b, 24) } == ident;
        if !good {
            return Err(damaged("header"));
        }
        let n = |i: usize| u64_at(&b, 40 + i * 8);
        let mut places = [Place::default(); SECTIONS];
        for (i, p) in places.iter_mut().enumerate() {
            let at = 128 + i * 12;
            *p = Place { offset: u32_at(&b, at), len: u32_at(&b, at + 4), crc: u32_at(&b, at + 8) };
        }
        let summary = Summary {
            base_seq: n(0),
            end_seq: n(1),
            first_message: n(2),
            messages: n(3),
            batches: n(4),
            first_time: Timestamp(n(5)),
            last_time: Timestamp(n(6)),
            end: u32_at(&b, 28),
            epoch: u32_at(&b, 32),
            synced: Pos::unpack(n(7)),
            has_state: b[15] != 0,
            snapshot: Pos::unpack(n(8)),
        };
        Ok(Self { summary, places, producers_full: b[14] != 0 })
    }

    /// Reads a section and checks it.
    ///
    /// # Errors
    /// It is damaged.
    pub(crate) fn section(&self, file: &dyn DiskFile, section: Section) -> io::Result<Vec<u8>> {
        let place = self.places[section as usize];
        let mut out = Vec::new();
        file.pread(&mut out, place.len as usize, u64::from(place.offset))?;
        if out.len() != place.len as usize || crc32c::crc32c(&out) != place.crc {
            return Err(damaged("section"));
        }
        Ok(out)
    }

    /// Bytes of a section.
    pub(crate) fn section_len(&self, section: Section) -> u32 {
        self.places[section as usize].len
    }

    /// Reads a topic's list and checks it.
    ///
    /// # Errors
    /// It is damaged.
    pub(crate) fn list(&self, file: &dyn DiskFile, row: &Row) -> io::Result<Vec<u8>> {
        let place = self.places[Section::Lists as usize];
        let len = row.count as usize * ENTRY;
        let mut out = Vec::with_capacity(len);
        file.pread(&mut out, len, u64::from(place.offset) + u64::from(row.list_offset))?;
        if out.len() != len || crc32c::crc32c(&out) != row.crc {
            return Err(damaged("list"));
        }
        Ok(out)
    }
}

/// The entries of a list that end at or after a seq: about as many as hold `bytes` bytes, and one more if there is.
pub(crate) fn entries_from(list: &[u8], from: u32, bytes: u32) -> Vec<Entry> {
    let at = |i: usize| {
        let b = &list[i * ENTRY..];
        Entry { offset: u32_at(b, 0), len: u32_at(b, 4), last_seq: u32_at(b, 8) }
    };
    let count = list.len() / ENTRY;
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = usize::midpoint(low, high);
        if at(middle).last_seq < from { low = middle + 1 } else { high = middle }
    }
    let mut out = Vec::new();
    let mut sum = 0u32;
    for entry in (low..count).map(at) {
        let full = sum >= bytes;
        sum = sum.saturating_add(entry.len);
        out.push(entry);
        if full {
            break;
        }
    }
    out
}

/// The sparse index of a section.
pub(crate) fn decode_sparse(bytes: &[u8]) -> Vec<Sparse> {
    let row = |b: &[u8]| Sparse { seq: u32_at(b, 0), offset: u32_at(b, 4), time_max: Timestamp(u64_at(b, 8)) };
    bytes.chunks_exact(SPARSE).map(row).collect()
}

/// The keys of a section.
pub(crate) fn decode_keys(bytes: &[u8]) -> impl Iterator<Item = KeyRow> {
    bytes.chunks_exact(KEY).map(|b| KeyRow {
        key: u128::from(u64_at(b, 0)) | u128::from(u64_at(b, 8)) << 64,
        body: u64_at(b, 16),
        seq: u32_at(b, 24),
        at: u32_at(b, 28),
    })
}

/// The rows of a section that is not full.
pub(crate) fn decode_producer_rows(bytes: &[u8]) -> impl Iterator<Item = ProducerRow> {
    bytes.chunks_exact(PRODUCER + 4).map(|b| ProducerRow {
        producer: u64_at(b, 0),
        counter: u64_at(b, 8),
        at: Timestamp(u64_at(b, 16)),
        seq: u32_at(b, 24),
        count: u32_at(b, 28),
        epoch: u32_at(b, 32),
    })
}

/// Takes the sessions of a full section into a table. False when they end in the middle.
pub(crate) fn restore_sessions(mut bytes: &[u8], table: &mut ProducerTable) -> bool {
    while bytes.len() >= PRODUCER {
        let (producer, ranges) = (u64_at(bytes, 0), u32_at(bytes, 28) as usize);
        let mut session = Producer {
            last_seen: Timestamp(u64_at(bytes, 8)),
            floor: u64_at(bytes, 16),
            epoch: u32_at(bytes, 24),
            ranges: VecDeque::with_capacity(ranges.min(bytes.len() / 20)),
        };
        bytes = &bytes[PRODUCER..];
        let Some(rows) = bytes.get(..ranges * 20) else { return false };
        for b in rows.chunks_exact(20) {
            session.ranges.push_back(Range { counter: u64_at(b, 0), seq: u64_at(b, 8), count: u32_at(b, 16) });
        }
        bytes = &bytes[ranges * 20..];
        table.restore(producer, session);
    }
    bytes.is_empty()
}

/// Rows of a directory that may be wanted. Those asked for by name are found by hash, so they may be others; the others
/// are matched against `names`, which is loaded only then.
pub(crate) fn wanted_rows<E>(
    directory: &[u8],
    names: impl FnOnce() -> Result<bytes::Bytes, E>,
    wanted: &mut Wanted<'_>,
) -> Result<Vec<(u32, Row)>, E> {
    let row = |i: usize| {
        let b = &directory[i * ROW..];
        Row {
            name_offset: u32_at(b, 4),
            name_len: u16::from_le_bytes([b[8], b[9]]),
            list_offset: u32_at(b, 12),
            count: u32_at(b, 16),
            crc: u32_at(b, 20),
        }
    };
    let count = directory.len() / ROW;
    let mut out = Vec::new();
    if let Some(literals) = wanted.literals() {
        for topic in literals {
            let hash = hash(topic);
            let (mut low, mut high) = (0, count);
            while low < high {
                let middle = usize::midpoint(low, high);
                if u32_at(directory, middle * ROW) < hash { low = middle + 1 } else { high = middle }
            }
            while low < count && u32_at(directory, low * ROW) == hash {
                out.push((low as u32, row(low)));
                low += 1;
            }
        }
        return Ok(out);
    }
    let names = names()?;
    for i in 0..count {
        let row = row(i);
        let from = row.name_offset as usize;
        if names.get(from..from + usize::from(row.name_len)).is_some_and(|name| wanted.hears(name)) {
            out.push((i as u32, row));
        }
    }
    Ok(out)
}
