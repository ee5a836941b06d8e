//! What a log holds beside messages: state records of the delivery engine, and the log's own marks.

use acb_types::{
    frame::{put_varint, read_varint},
    position::Seq,
};
use bytes::Bytes;

/// Which part of a snapshot a state record is. As in the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotPart {
    /// None: an ordinary record.
    None,
    /// The first record of a snapshot.
    First,
    /// One in the middle.
    Middle,
    /// The last: the snapshot is complete.
    Last,
    /// First and last at once.
    Whole,
}

impl SnapshotPart {
    const ALL: [Self; 5] = [Self::None, Self::First, Self::Middle, Self::Last, Self::Whole];

    fn byte(self) -> u8 {
        Self::ALL.iter().position(|p| *p == self).unwrap_or_default() as u8
    }

    fn from_byte(n: u8) -> Option<Self> {
        Self::ALL.get(usize::from(n)).copied()
    }
}

/// Largest state record.
pub const STATE_RECORD_BYTES_MAX: usize = 1024 * 1024;
/// State records that come one after the other share a batch up to this size.
pub(crate) const STATE_GROUP_BYTES: usize = 64 * 1024;

/// One state record.
pub(crate) type StateRecord = (SnapshotPart, Bytes);

/// Appends the meta of a batch of state records.
pub(crate) fn put_state_meta(out: &mut Vec<u8>, records: &[StateRecord]) {
    for (part, bytes) in records {
        out.push(part.byte());
        put_varint(out, bytes.len() as u64);
    }
}

/// The records of a batch: its meta, its body, how many there are. `None` when meta and body do not fit together.
pub(crate) fn state_records(meta: &[u8], body: &[u8], count: u32) -> Option<Vec<StateRecord>> {
    let (mut at, mut from) = (0, 0usize);
    let mut out = Vec::new();
    for _ in 0..count {
        let part = SnapshotPart::from_byte(*meta.get(at)?)?;
        at += 1;
        let len = usize::try_from(read_varint(meta, &mut at)?).ok()?;
        let bytes = body.get(from..from.checked_add(len)?)?;
        from += len;
        out.push((part, Bytes::copy_from_slice(bytes)));
    }
    (from == body.len()).then_some(out)
}

/// Why an epoch record was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opening {
    /// The log is new.
    New = 0,
    /// It had been closed in good order: the epoch goes on.
    Clean = 1,
    /// It had not: a new epoch, and seqs jump.
    Unclean = 2,
}

/// Meta of an epoch record: why, the end of what was found, and how far seqs jump if this opening ends uncleanly.
pub(crate) fn put_epoch_meta(out: &mut Vec<u8>, why: Opening, found_end: Seq, reserve: u64) {
    out.push(why as u8);
    put_varint(out, found_end);
    put_varint(out, reserve);
}

/// Follows snapshots through state records: finds the last complete one, and what came after its first record.
#[derive(Clone, Debug, Default)]
pub(crate) struct StateReplay {
    /// Records of the last complete snapshot.
    complete: Vec<Bytes>,
    /// Ordinary records since that snapshot began.
    since: Vec<Bytes>,
    /// A snapshot that has begun: its records, and the ordinary ones since it did.
    open: Option<(Vec<Bytes>, Vec<Bytes>)>,
}

impl StateReplay {
    /// Takes the next record. True when it completes a snapshot.
    pub(crate) fn push(&mut self, part: SnapshotPart, bytes: Bytes) -> bool {
        match part {
            SnapshotPart::None => {
                if let Some((_, since)) = &mut self.open {
                    since.push(bytes.clone());
                }
                self.since.push(bytes);
                return false;
            }
            SnapshotPart::First | SnapshotPart::Whole => self.open = Some((vec![bytes], Vec::new())),
            SnapshotPart::Middle | SnapshotPart::Last => match &mut self.open {
                Some((records, _)) => records.push(bytes),
                // Its beginning was never written: it can never be complete.
                None => return false,
            },
        }
        if matches!(part, SnapshotPart::Last | SnapshotPart::Whole)
            && let Some((records, since)) = self.open.take()
        {
            self.complete = records;
            self.since = since;
            return true;
        }
        false
    }

    /// All records that an open gives back, in order.
    pub(crate) fn into_records(mut self) -> Vec<Bytes> {
        self.complete.append(&mut self.since);
        self.complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn b(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn state_records_read_back() {
        let records =
            vec![(SnapshotPart::None, b("ack")), (SnapshotPart::First, b("")), (SnapshotPart::Whole, b("snap"))];
        let mut meta = Vec::new();
        put_state_meta(&mut meta, &records);
        assert_eq!(state_records(&meta, b"acksnap", 3), Some(records));
        assert_eq!(state_records(&meta, b"acksnapx", 3), None, "bytes without a record");
        assert_eq!(state_records(&meta, b"ack", 3), None, "a record without bytes");
    }

    #[test]
    fn replay_gives_the_last_complete_snapshot_and_what_came_since_it_began() {
        use SnapshotPart::{First, Last, Middle, None, Whole};
        let replay = |parts: &[(SnapshotPart, &'static str)]| {
            let mut r = StateReplay::default();
            for (part, text) in parts {
                r.push(*part, b(text));
            }
            r.into_records().iter().map(|b| String::from_utf8(b.to_vec()).unwrap()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(replay(&[(None, "a"), (None, "b")]), "a b");
        assert_eq!(replay(&[(None, "a"), (Whole, "S"), (None, "b")]), "S b");
        assert_eq!(replay(&[(First, "S1"), (None, "x"), (Middle, "S2"), (Last, "S3"), (None, "y")]), "S1 S2 S3 x y");
        assert_eq!(
            replay(&[(Whole, "S"), (None, "a"), (First, "T1"), (None, "b")]),
            "S a b",
            "incomplete: as if not there"
        );
        assert_eq!(replay(&[(Whole, "S"), (Middle, "?"), (Last, "?"), (None, "a")]), "S a", "no beginning");
        assert_eq!(replay(&[(First, "S1"), (First, "T1"), (Last, "T2")]), "T1 T2", "begun anew");
    }
}
