//! The batch: header, meta, body. The unit of writing, of checksums and of recovery. ADR 0003 has the table of bytes.
//!
//! A batch of messages carries the frame's messages unchanged. Beside them, its meta says who sent them, where their
//! runs of one topic lie (so that no reader walks messages) and which idempotency keys they have.

use std::ops::Range;

use acb_types::{
    batch::{Keyed, Sender},
    frame::{self, Run, put_varint, read_varint},
    position::{Epoch, Seq},
    time::Timestamp,
};

use crate::segment::{Ident, Pos, u32_at, u64_at};

/// Bytes of a batch header.
pub const HEADER: usize = 80;
/// First bytes of every batch.
pub const MAGIC: [u8; 4] = *b"ACB\x01";
/// Longest meta: 512 runs, 512 keys and a sender.
pub const META_MAX: u32 = 64 * 1024;
/// Longest body: one message of the largest size and some room.
pub const BODY_MAX: u32 = 1_280 * 1024;

/// Tag of a message's topic, its first field.
const TOPIC_TAG: u8 = 1 << 3 | 2;

/// What a batch holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Messages; they alone have seqs.
    Messages = 1,
    /// State records of the delivery engine.
    State = 2,
    /// An opening of the log: the epoch, and from where seqs go on.
    Epoch = 3,
    /// Seqs below this one were given out; some were never written.
    Mark = 4,
    /// The segment ends here; the next number goes on.
    Seal = 5,
    /// The log was closed in good order.
    Close = 6,
}

impl Kind {
    fn from_byte(n: u8) -> Option<Self> {
        [Self::Messages, Self::State, Self::Epoch, Self::Mark, Self::Seal, Self::Close]
            .into_iter()
            .find(|k| *k as u8 == n)
    }
}

/// A batch's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the body.
    pub body_len: u32,
    /// Bytes of the meta, which stands before the body.
    pub meta_len: u32,
    /// Messages or records.
    pub count: u32,
    /// What it holds.
    pub kind: Kind,
    /// Union of [`frame::flag`]s.
    pub flags: u16,
    /// The segment's generation.
    pub generation: u32,
    /// The log's epoch.
    pub epoch: Epoch,
    /// Seq of the first message; for other kinds, of the next message.
    pub first_seq: Seq,
    /// When it was staged.
    pub stored_at: Timestamp,
    /// Producer session, or 0.
    pub producer: u64,
    /// The first message's number in the producer session.
    pub counter: u64,
    /// Everything below was synced when this was written.
    pub synced: Pos,
    /// The producer session's epoch.
    pub producer_epoch: u32,
}

impl Header {
    /// Header, meta and body together, in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a batch is never empty: it has a header")]
    pub fn len(&self) -> u32 {
        HEADER as u32 + self.meta_len + self.body_len
    }

    /// Seqs that it takes.
    pub fn seqs(&self) -> u32 {
        if self.kind == Kind::Messages { self.count } else { 0 }
    }

    /// First seq after it.
    pub fn end_seq(&self) -> Seq {
        self.first_seq.saturating_add(u64::from(self.seqs()))
    }

    /// Its bytes, with room for the checksum.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[..4].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&self.body_len.to_le_bytes());
        out[12..16].copy_from_slice(&self.meta_len.to_le_bytes());
        out[16..20].copy_from_slice(&self.count.to_le_bytes());
        out[20] = self.kind as u8;
        out[22..24].copy_from_slice(&self.flags.to_le_bytes());
        out[24..28].copy_from_slice(&self.generation.to_le_bytes());
        out[28..32].copy_from_slice(&self.epoch.to_le_bytes());
        out[32..40].copy_from_slice(&self.first_seq.to_le_bytes());
        out[40..48].copy_from_slice(&self.stored_at.0.to_le_bytes());
        out[48..56].copy_from_slice(&self.producer.to_le_bytes());
        out[56..64].copy_from_slice(&self.counter.to_le_bytes());
        out[64..72].copy_from_slice(&self.synced.pack().to_le_bytes());
        out[72..76].copy_from_slice(&self.producer_epoch.to_le_bytes());
        out
    }

    fn decode(b: &[u8]) -> Option<Self> {
        Some(Self {
            body_len: u32_at(b, 8),
            meta_len: u32_at(b, 12),
            count: u32_at(b, 16),
            kind: Kind::from_byte(b[20])?,
            flags: u16::from_le_bytes([b[22], b[23]]),
            generation: u32_at(b, 24),
            epoch: u32_at(b, 28),
            first_seq: u64_at(b, 32),
            stored_at: Timestamp(u64_at(b, 40)),
            producer: u64_at(b, 48),
            counter: u64_at(b, 56),
            synced: Pos::unpack(u64_at(b, 64)),
            producer_epoch: u32_at(b, 72),
        })
    }
}

/// Why bytes are not a batch of this segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing was written here, or it is of an earlier use of the file.
    Nothing,
    /// The segment ends inside it.
    Short,
    /// The header's lengths or numbers cannot be.
    Header,
    /// The checksum does not match.
    Checksum,
    /// The checksum matches, but seq or epoch go backwards.
    Order,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nothing => "no batch stands here",
            Self::Short => "the segment ends inside a batch",
            Self::Header => "the header of a batch is damaged",
            Self::Checksum => "a batch does not match its checksum",
            Self::Order => "a batch's seq or epoch goes backwards",
        })
    }
}

/// Reads a header without looking at the checksum. `bytes` starts with it.
///
/// # Errors
/// Anything but a plausible header of this segment.
pub fn peek(bytes: &[u8], ident: Ident) -> Result<Header, Fault> {
    if bytes.len() < HEADER {
        return Err(Fault::Short);
    }
    if bytes[..4] != MAGIC || u32_at(bytes, 24) != ident.generation {
        return Err(Fault::Nothing);
    }
    let header = Header::decode(bytes).ok_or(Fault::Header)?;
    if header.meta_len > META_MAX || header.body_len > BODY_MAX {
        return Err(Fault::Header);
    }
    Ok(header)
}

/// Reads the batch that `bytes` starts with and checks its checksum.
///
/// # Errors
/// What is wrong with it.
pub fn check(bytes: &[u8], ident: Ident) -> Result<Header, Fault> {
    let header = peek(bytes, ident)?;
    let Some(whole) = bytes.get(..header.len() as usize) else { return Err(Fault::Short) };
    let crc = crc32c::crc32c_append(ident.salt, &whole[8..]);
    if crc != u32_at(whole, 4) && !crate::planted::is(crate::planted::Bug::SkipCrc) {
        return Err(Fault::Checksum);
    }
    Ok(header)
}

/// Puts the checksum into a header that stands before its meta in `head`.
pub fn seal<'a>(head: &mut [u8], body: impl IntoIterator<Item = &'a [u8]>, salt: u32) {
    let mut crc = crc32c::crc32c_append(salt, &head[8..]);
    for part in body {
        crc = crc32c::crc32c_append(crc, part);
    }
    head[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Appends the meta of a batch of messages. One run needs no table: it is the whole body.
pub fn put_meta(out: &mut Vec<u8>, sender: &Sender, runs: &[Run], keys: &[Keyed]) {
    let agent = sender.agent.as_str().as_bytes();
    put_varint(out, agent.len() as u64);
    out.extend_from_slice(agent);
    put_varint(out, sender.incarnation.0);
    if runs.len() <= 1 {
        put_varint(out, 0);
    } else {
        put_varint(out, runs.len() as u64);
        for run in runs {
            put_varint(out, u64::from(run.count));
            put_varint(out, u64::from(run.len));
        }
    }
    put_varint(out, keys.len() as u64);
    for keyed in keys {
        put_varint(out, u64::from(keyed.index));
        out.extend_from_slice(&keyed.key.to_le_bytes());
        out.extend_from_slice(&keyed.body.to_le_bytes());
    }
}

/// The meta of a batch of messages, read where it lies.
#[derive(Clone, Copy, Debug)]
pub struct Meta<'a> {
    /// The sending agent's id.
    pub agent: &'a str,
    /// Its incarnation.
    pub incarnation: u64,
    runs: u64,
    run_bytes: &'a [u8],
    keys: u64,
    key_bytes: &'a [u8],
}

impl<'a> Meta<'a> {
    /// Reads a meta; `None` when it is none.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut at = 0;
        let len = usize::try_from(read_varint(bytes, &mut at)?).ok()?;
        let agent = std::str::from_utf8(bytes.get(at..at.checked_add(len)?)?).ok()?;
        at += len;
        let incarnation = read_varint(bytes, &mut at)?;
        let runs = read_varint(bytes, &mut at)?;
        let start = at;
        for _ in 0..runs {
            read_varint(bytes, &mut at)?;
            read_varint(bytes, &mut at)?;
        }
        let run_bytes = &bytes[start..at];
        let keys = read_varint(bytes, &mut at)?;
        Some(Self { agent, incarnation, runs, run_bytes, keys, key_bytes: &bytes[at..] })
    }

    /// The runs of a batch with this many messages and body bytes: count of messages, and their byte range.
    pub fn runs(&self, count: u32, body_len: u32) -> impl Iterator<Item = (u32, Range<usize>)> + use<'a> {
        let bytes = self.run_bytes;
        let listed = self.runs;
        let (mut at, mut offset, mut n) = (0, 0usize, 0);
        std::iter::from_fn(move || {
            if listed == 0 {
                n += 1;
                return (n == 1 && count > 0).then_some((count, 0..body_len as usize));
            }
            if n == listed {
                return None;
            }
            n += 1;
            let count = u32::try_from(read_varint(bytes, &mut at)?).ok()?;
            let len = usize::try_from(read_varint(bytes, &mut at)?).ok()?;
            let from = offset;
            offset = offset.checked_add(len).filter(|end| *end <= body_len as usize)?;
            Some((count, from..offset))
        })
    }

    /// The idempotency keys.
    pub fn keys(&self) -> impl Iterator<Item = Keyed> + use<'a> {
        let bytes = self.key_bytes;
        let (mut at, mut left) = (0, self.keys);
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let index = u32::try_from(read_varint(bytes, &mut at)?).ok()?;
            let key = u128::from_le_bytes(bytes.get(at..at + 16)?.try_into().ok()?);
            let body = u64::from_le_bytes(bytes.get(at + 16..at + 24)?.try_into().ok()?);
            at += 24;
            Some(Keyed { index, key, body })
        })
    }
}

/// Where the topic of the first of these messages stands in `body`: it is the same for the whole run.
pub fn topic_of(body: &[u8]) -> Option<Range<usize>> {
    if *body.first()? != frame::MESSAGE_TAG {
        return None;
    }
    let mut at = 1;
    read_varint(body, &mut at)?;
    if *body.get(at)? != TOPIC_TAG {
        return None;
    }
    at += 1;
    let len = usize::try_from(read_varint(body, &mut at)?).ok()?;
    let end = at.checked_add(len).filter(|end| *end <= body.len())?;
    Some(at..end)
}

#[cfg(test)]
mod tests {
    use acb_types::{AgentId, Envelope, Incarnation};
    use bytes::BytesMut;

    use super::*;

    const IDENT: Ident = Ident { number: 1, generation: 5, salt: 0x1234_5678 };

    fn sender() -> Sender {
        Sender { agent: "planner".parse::<AgentId>().unwrap(), incarnation: Incarnation(3) }
    }

    fn bytes(runs: &[Run], keys: &[Keyed], body: &[u8], count: u32) -> Vec<u8> {
        let mut head = vec![0; HEADER];
        put_meta(&mut head, &sender(), runs, keys);
        let header = Header {
            body_len: body.len() as u32,
            meta_len: (head.len() - HEADER) as u32,
            count,
            kind: Kind::Messages,
            flags: 9,
            generation: IDENT.generation,
            epoch: 2,
            first_seq: 77,
            stored_at: Timestamp(1_700_000_000_000),
            producer: 11,
            counter: 12,
            synced: Pos::new(3, 4),
            producer_epoch: 13,
        };
        head[..HEADER].copy_from_slice(&header.encode());
        seal(&mut head, [body], IDENT.salt);
        head.extend_from_slice(body);
        assert_eq!(check(&head, IDENT), Ok(header));
        head
    }

    #[test]
    fn a_batch_reads_back_with_its_runs_keys_and_topics() {
        let mut out = BytesMut::new();
        for topic in ["a.b", "a.b", "c"] {
            frame::encode_parts(&mut out, &Envelope::default(), topic, b"hello");
        }
        let body = out.freeze();
        let walked = frame::walk(&body).unwrap();
        let keys = [Keyed { index: 1, key: u128::MAX - 5, body: 6 }];
        let stored = bytes(&walked.runs, &keys, &body, 3);
        let header = check(&stored, IDENT).unwrap();
        let meta = Meta::decode(&stored[HEADER..HEADER + header.meta_len as usize]).unwrap();
        assert_eq!((meta.agent, meta.incarnation), ("planner", 3));
        let runs: Vec<_> = meta.runs(header.count, header.body_len).collect();
        let expected: Vec<_> =
            walked.runs.iter().map(|r| (r.count, r.offset as usize..(r.offset + r.len) as usize)).collect();
        assert_eq!(runs, expected);
        assert_eq!(&body[runs[1].1.clone()][topic_of(&body[runs[1].1.clone()]).unwrap()], b"c");
        assert_eq!(meta.keys().collect::<Vec<_>>(), keys);
    }

    #[test]
    fn every_flipped_bit_of_a_batch_is_noticed() {
        let stored = bytes(&[], &[], b"body", 1);
        for bit in 0..stored.len() * 8 {
            let mut broken = stored.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(check(&broken, IDENT).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_batch_of_another_use_of_the_file_is_no_batch() {
        let stored = bytes(&[], &[], b"body", 1);
        assert_eq!(check(&stored, Ident { generation: 6, ..IDENT }), Err(Fault::Nothing));
        assert_eq!(check(&stored, Ident { salt: 1, ..IDENT }), Err(Fault::Checksum));
        assert_eq!(check(&stored[..HEADER + 3], IDENT), Err(Fault::Short));
    }

    #[test]
    fn any_bytes_can_be_given_to_the_readers() {
        for seed in 0..2000u64 {
            let mut rng = crate::sim_disk::SimRng::new(seed);
            let noise: Vec<u8> = (0..rng.below(60)).map(|_| rng.next_u64() as u8).collect();
            if let Some(meta) = Meta::decode(&noise) {
                let _ = (meta.runs(5, 50).count(), meta.keys().count());
            }
            let _ = (topic_of(&noise), check(&noise, IDENT));
        }
    }
}
