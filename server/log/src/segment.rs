//! Segments: the files of a log, their names and headers, and positions in them.

use std::fmt;

use acb_types::{ClassId, PartitionId, PartitionNo};

/// Where the first batch of a segment starts: batches share no sector with the header.
pub const BODY_START: u32 = 512;
/// Bytes of a segment's header.
pub const SEGMENT_HEADER: usize = 128;
/// Version of segment and batch layout.
pub const SEGMENT_VERSION: u16 = 1;

const MAGIC: [u8; 8] = *b"ACBSEGM1";

/// A place in a log: segment number and byte offset. Ordered as the log is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pos {
    /// Number of the segment, from 1.
    pub segment: u32,
    /// Offset in its file, in bytes.
    pub offset: u32,
}

impl Pos {
    /// A place.
    pub const fn new(segment: u32, offset: u32) -> Self {
        Self { segment, offset }
    }

    /// As one number, in the same order.
    pub const fn pack(self) -> u64 {
        (self.segment as u64) << 32 | self.offset as u64
    }

    /// Back from [`Self::pack`].
    pub const fn unpack(n: u64) -> Self {
        Self { segment: (n >> 32) as u32, offset: n as u32 }
    }
}

impl fmt::Display for Pos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {} offset {}", self.segment, self.offset)
    }
}

/// What tells a segment's batches from any other bytes: its number, how often its file was used, and a secret start
/// for its checksums. All three stand in the file's name, so they outlive a damaged header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ident {
    /// Number of the segment in its log.
    pub number: u32,
    /// Higher each time the file is used again.
    pub generation: u32,
    /// Start of every checksum. Nobody outside can guess it, so a payload that looks like a batch is never taken for
    /// one, and neither are a recycled file's old batches.
    pub salt: u32,
}

impl Ident {
    /// Name of the segment's file.
    pub fn file_name(self) -> String {
        format!("{:010}-{:08x}-{:08x}.seg", self.number, self.generation, self.salt)
    }

    /// Name of its sidecar.
    pub fn sidecar_name(self) -> String {
        format!("{:010}-{:08x}-{:08x}.idx", self.number, self.generation, self.salt)
    }

    /// Reads a file's name, whatever its ending; the ending is given back.
    pub fn parse(name: &str) -> Option<(Self, &str)> {
        let (stem, ending) = name.split_once('.')?;
        let mut parts = stem.split('-');
        let (number, generation, salt) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || number.len() != 10 || generation.len() != 8 || salt.len() != 8 {
            return None;
        }
        let ident = Self {
            number: number.parse().ok().filter(|n| *n > 0)?,
            generation: u32::from_str_radix(generation, 16).ok()?,
            salt: u32::from_str_radix(salt, 16).ok()?,
        };
        Some((ident, ending))
    }
}

/// A segment's header: whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Which segment.
    pub ident: Ident,
    /// Bytes of the file.
    pub size: u32,
    /// The log's class.
    pub class: ClassId,
    /// The log's partition.
    pub partition: PartitionNo,
    /// Checksum of the tenant's id.
    pub tenant: u32,
}

/// What is wrong with a segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFault {
    /// No header, or one that does not match its checksum.
    Broken,
    /// Of a version that this server does not read.
    Version(u16),
    /// A good header of another segment or another log.
    Foreign,
}

impl SegmentHeader {
    /// The header of a new segment.
    pub fn new(ident: Ident, size: u32, log: &PartitionId) -> Self {
        let tenant = crc32c::crc32c(log.tenant.as_str().as_bytes());
        Self { ident, size, class: log.class, partition: log.partition, tenant }
    }

    /// Its bytes.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut out = [0; SEGMENT_HEADER];
        out[..8].copy_from_slice(&MAGIC);
        out[12..14].copy_from_slice(&SEGMENT_VERSION.to_le_bytes());
        out[14] = self.class.0;
        out[16..20].copy_from_slice(&self.ident.number.to_le_bytes());
        out[20..24].copy_from_slice(&self.ident.generation.to_le_bytes());
        out[24..28].copy_from_slice(&self.ident.salt.to_le_bytes());
        out[28..32].copy_from_slice(&self.size.to_le_bytes());
        out[32..34].copy_from_slice(&self.partition.to_le_bytes());
        out[36..40].copy_from_slice(&self.tenant.to_le_bytes());
        let crc = crc32c::crc32c(&out[12..]);
        out[8..12].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a header.
    ///
    /// # Errors
    /// It is broken, or of a version from the future.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let bytes = bytes.get(..SEGMENT_HEADER).ok_or(HeaderFault::Broken)?;
        if bytes[..8] != MAGIC || crc32c::crc32c(&bytes[12..]).to_le_bytes() != bytes[8..12] {
            return Err(HeaderFault::Broken);
        }
        let version = u16::from_le_bytes([bytes[12], bytes[13]]);
        if version != SEGMENT_VERSION {
            return Err(HeaderFault::Version(version));
        }
        Ok(Self {
            ident: Ident { number: u32_at(bytes, 16), generation: u32_at(bytes, 20), salt: u32_at(bytes, 24) },
            size: u32_at(bytes, 28),
            class: ClassId(bytes[14]),
            partition: u16::from_le_bytes([bytes[32], bytes[33]]),
            tenant: u32_at(bytes, 36),
        })
    }

    /// Reads a header and checks that it belongs to this segment of this log.
    ///
    /// # Errors
    /// As [`Self::decode`], and [`HeaderFault::Foreign`].
    pub fn expect(bytes: &[u8], ident: Ident, log: &PartitionId) -> Result<Self, HeaderFault> {
        let found = Self::decode(bytes)?;
        if found == Self::new(ident, found.size, log) { Ok(found) } else { Err(HeaderFault::Foreign) }
    }
}

/// Little-endian number at an offset that the caller knows to be inside.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// As [`u32_at`], for eight bytes.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> PartitionId {
        PartitionId { tenant: "acme".parse().unwrap(), class: ClassId::TOPICS, partition: 3 }
    }

    #[test]
    fn a_segments_name_says_who_it_is() {
        let ident = Ident { number: 12, generation: 0x1a, salt: 0xdead_beef };
        assert_eq!(ident.file_name(), "0000000012-0000001a-deadbeef.seg");
        assert_eq!(Ident::parse(&ident.file_name()), Some((ident, "seg")));
        assert_eq!(Ident::parse(&ident.sidecar_name()), Some((ident, "idx")));
        for other in ["LOCK", "0000000000-00000001-00000001.seg", "1-1-1.seg", "0000000001-00000001.seg", "x.seg"] {
            assert_eq!(Ident::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_header_reads_back_and_every_flipped_bit_is_noticed() {
        let header = SegmentHeader::new(Ident { number: 7, generation: 2, salt: 99 }, 1 << 20, &log());
        let bytes = header.encode();
        assert_eq!(SegmentHeader::expect(&bytes, header.ident, &log()), Ok(header.clone()));
        for bit in 0..SEGMENT_HEADER * 8 {
            let mut broken = bytes;
            broken[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&broken), Err(HeaderFault::Broken), "bit {bit}");
        }
        let other = PartitionId { partition: 4, ..log() };
        assert_eq!(SegmentHeader::expect(&bytes, header.ident, &other), Err(HeaderFault::Foreign));
    }

    #[test]
    fn positions_keep_their_order_as_numbers() {
        let (a, b) = (Pos::new(1, u32::MAX), Pos::new(2, 0));
        assert!(a < b && a.pack() < b.pack());
        assert_eq!(Pos::unpack(a.pack()), a);
    }
}
