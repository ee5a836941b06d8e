//! Short words for the cases.

use std::sync::Arc;

use acb_types::{
    AgentId, Envelope, ErrorCode, Incarnation, PartitionId, ProducerKey, Timestamp,
    batch::{Batch, Keyed, Outcome, Parts, ReadBlock, ReadRequest, Sender},
    frame,
    position::{ClassId, Seq},
};
use bytes::{Bytes, BytesMut};

use super::Hand;
use crate::{
    error::StoreError,
    message_log::{LogReader, SnapshotPart},
};

pub(super) fn at(n: u64) -> Timestamp {
    Timestamp(1_767_225_600_000 + n)
}

pub(super) fn partition(tenant: &str, class: ClassId) -> PartitionId {
    PartitionId { tenant: tenant.parse().unwrap(), class, partition: 0 }
}

pub(super) fn topics() -> PartitionId {
    partition("a", ClassId::TOPICS)
}

/// Messages of (topic, payload) as a batch without producer and keys.
pub(super) fn batch<'a>(messages: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Batch {
    let mut body = BytesMut::new();
    for (topic, payload) in messages {
        frame::encode_parts(&mut body, &Envelope::default(), topic, payload);
    }
    let body = body.freeze();
    let walked = frame::walk(&body).unwrap();
    let agent: AgentId = "planner".parse().unwrap();
    Batch {
        count: walked.count,
        flags: walked.flags,
        body,
        runs: walked.runs,
        sender: Arc::new(Sender { agent, incarnation: Incarnation(3) }),
        producer: ProducerKey::NONE,
        producer_epoch: 0,
        counter: 0,
        keys: Keys::new(),
    }
}

type Keys = smallvec::SmallVec<[Keyed; 0]>;

/// `count` messages on `plans.a` whose payloads say `prefix` and their number.
pub(super) fn numbered(prefix: &str, count: u32) -> Batch {
    let payloads: Vec<_> = (0..count).map(|i| format!("{prefix}{i}")).collect();
    batch(payloads.iter().map(|p| ("plans.a", p.as_bytes())))
}

/// The batch as counters `counter..` of a producer session.
pub(super) fn from(producer: u64, epoch: u32, counter: u64, batch: Batch) -> Batch {
    Batch { producer: ProducerKey(producer), producer_epoch: epoch, counter, ..batch }
}

/// The batch with keys: (index, key, body).
pub(super) fn keyed(batch: Batch, keys: &[(u32, u128, u64)]) -> Batch {
    Batch { keys: keys.iter().map(|&(index, key, body)| Keyed { index, key, body }).collect(), ..batch }
}

/// What became of each message of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Stored(Seq),
    Duplicate(Option<Seq>),
    Refused(ErrorCode),
}

/// Parts, spread out: adapters may cut them differently.
pub(super) fn fates(parts: &Parts) -> Vec<Fate> {
    let mut out = Vec::new();
    for part in parts {
        assert_eq!(part.index as usize, out.len(), "parts are in order and cover the batch: {parts:?}");
        assert!(part.count > 0, "{parts:?}");
        if let Outcome::Stored { body, runs, .. } = &part.outcome {
            assert_eq!(runs.iter().map(|run| run.count).sum::<u32>(), part.count);
            assert_eq!(runs.iter().map(|run| run.len as usize).sum::<usize>(), body.len());
        }
        for i in 0..u64::from(part.count) {
            out.push(match &part.outcome {
                Outcome::Stored { first_seq, .. } => Fate::Stored(first_seq + i),
                Outcome::Duplicate { first_seq } => Fate::Duplicate(first_seq.map(|seq| seq + i)),
                Outcome::Refused(code) => Fate::Refused(*code),
            });
        }
    }
    out
}

/// Seqs of a batch that must have been stored whole.
pub(super) fn stored(parts: &Parts) -> Vec<Seq> {
    let seqs = fates(parts).into_iter().map(|fate| match fate {
        Fate::Stored(seq) => seq,
        other => panic!("stored was expected, got {other:?}"),
    });
    seqs.collect()
}

impl Hand {
    pub(super) fn stage(&mut self, batch: Batch, n: u64) -> Vec<Fate> {
        fates(&self.log.stage(batch, at(n)).unwrap())
    }

    /// Stages and writes; the messages must all be new.
    pub(super) fn append(&mut self, batch: Batch, n: u64) -> Vec<Seq> {
        let seqs = stored(&self.log.stage(batch, at(n)).unwrap());
        self.log.write().unwrap();
        seqs
    }

    pub(super) fn sync(&mut self) {
        self.log.write().unwrap();
        if let Some(mut ticket) = self.log.sync_begin() {
            ticket.run();
            self.log.sync_end(ticket).unwrap();
        }
        assert_eq!(self.log.synced_end(), self.log.written_end());
    }

    pub(super) fn state(&mut self, text: &'static str, part: SnapshotPart) {
        self.log.stage_state(Bytes::from_static(text.as_bytes()), part).unwrap();
    }

    /// State records of the opening, as text.
    pub(super) fn opened(&self) -> Vec<String> {
        self.state.iter().map(|b| String::from_utf8(b.to_vec()).unwrap()).collect()
    }

    /// Everything that is written, of all topics.
    pub(super) fn everything(&self) -> Vec<Read> {
        read_all(&*self.log.reader(), self.log.first_seq(), self.log.written_end(), &[">", "$acb.>"])
    }

    pub(super) fn payloads(&self) -> Vec<String> {
        self.everything().into_iter().map(|m| String::from_utf8(m.payload.to_vec()).unwrap()).collect()
    }
}

/// One message as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) seq: Seq,
    pub(super) topic: String,
    pub(super) payload: Bytes,
    pub(super) epoch: u32,
    pub(super) stored_at: Timestamp,
    pub(super) sender: Sender,
}

pub(super) fn request(from_seq: Seq, end_seq: Seq, filters: &[&str]) -> ReadRequest {
    let filters = filters.iter().map(|f| f.parse().unwrap()).collect();
    ReadRequest { from_seq, end_seq, filters, messages_max: 512, bytes_max: 256 * 1024 }
}

/// A block's messages, spread out.
pub(super) fn spread(block: &ReadBlock) -> Vec<Read> {
    let mut out: Vec<Read> = Vec::new();
    for run in &block.runs {
        let messages: Vec<_> = frame::messages(&run.body).collect();
        assert_eq!(messages.len(), run.count as usize, "{run:?}");
        for (i, message) in messages.into_iter().enumerate() {
            let envelope = frame::decode(&message).unwrap();
            assert_eq!(envelope.topic.as_bytes(), &run.topic);
            out.push(Read {
                seq: run.first_seq + i as u64,
                topic: envelope.topic.to_string(),
                payload: envelope.payload,
                epoch: run.facts.epoch,
                stored_at: run.facts.stored_at,
                sender: (*run.facts.sender).clone(),
            });
        }
    }
    assert!(out.is_sorted_by(|a, b| a.seq < b.seq), "LOG-4: in seq order: {out:?}");
    out
}

/// Reads block by block to the end.
pub(super) fn read_all(reader: &dyn LogReader, from: Seq, end: Seq, filters: &[&str]) -> Vec<Read> {
    let mut out = Vec::new();
    let mut next = from;
    while next < end {
        let block = reader.read(&request(next, end, filters)).unwrap();
        assert_eq!(block.gap, None, "read from {next}");
        assert!(block.next_seq > next, "reading goes on: {block:?}");
        let read = spread(&block);
        assert!(read.iter().all(|m| (next..block.next_seq).contains(&m.seq)), "{block:?}");
        out.extend(read);
        next = block.next_seq;
    }
    out
}

/// Asserts the code of a refusal.
#[track_caller]
pub(super) fn refused<T: std::fmt::Debug>(answer: Result<T, StoreError>, code: ErrorCode) {
    match answer {
        Err(e) => assert_eq!(e.code, code, "{e}"),
        Ok(value) => panic!("{code} expected, got {value:?}"),
    }
}
