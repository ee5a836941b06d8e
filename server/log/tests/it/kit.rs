//! What the tests share: a world on the test disk, batches, and what a log holds.

use std::{path::Path, sync::Arc};

use acb_log::{DataDir, DataDirOptions, Log, LogOptions, OpenedLog, Result, SimDisk, SimRng};
use acb_types::{
    AgentId, ClassId, Envelope, Incarnation, PartitionId, ProducerKey, Timestamp, TopicFilter,
    batch::{Batch, Keyed, Outcome, Parts, ReadBlock, ReadRequest, Sender, StoredRun},
    frame,
    position::Seq,
};
use bytes::{Bytes, BytesMut};

pub const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// Small segments, so that a few batches fill one.
pub fn small() -> LogOptions {
    LogOptions { segment_bytes_min: 4096, segment_bytes_max: 16 * 1024, seq_reserve: 1000, ..LogOptions::default() }
}

pub fn id() -> PartitionId {
    PartitionId { tenant: "acme".parse().unwrap(), class: ClassId::TOPICS, partition: 0 }
}

/// A disk with a data folder on it.
pub struct World {
    pub disk: SimDisk,
    pub dir: DataDir,
    pub options: LogOptions,
    pub rng: SimRng,
    pub now: Timestamp,
}

impl World {
    pub fn new(seed: u64, options: LogOptions) -> Self {
        let disk = SimDisk::new(seed);
        Self { dir: data_dir(&disk), disk, options, rng: SimRng::new(seed), now: NOW }
    }

    pub fn small(seed: u64) -> Self {
        Self::new(seed, small())
    }

    pub fn try_open(&self) -> Result<OpenedLog> {
        self.dir.open_log(&id(), self.options, self.now)
    }

    pub fn open(&self) -> OpenedLog {
        self.try_open().unwrap()
    }

    pub fn log(&self) -> Log {
        self.open().log
    }

    /// The process is killed; what it wrote is there.
    pub fn kill(&mut self) {
        self.disk.kill();
        self.dir = data_dir(&self.disk);
    }

    /// The power goes.
    pub fn power_cut(&mut self) {
        self.disk.power_cut(&mut self.rng);
        self.dir = data_dir(&self.disk);
    }

    /// The files of the log, by ending.
    pub fn files(&self, ending: &str) -> Vec<std::path::PathBuf> {
        let dir = self.dir.log_dir(&id());
        self.disk
            .paths()
            .into_iter()
            .filter(|p| p.starts_with(&dir) && p.extension().is_some_and(|e| e == ending))
            .collect()
    }
}

pub fn data_dir(disk: &SimDisk) -> DataDir {
    DataDir::open(disk.shared(), Path::new("/data"), DataDirOptions::default()).unwrap()
}

pub fn sender() -> Arc<Sender> {
    Arc::new(Sender { agent: "planner".parse::<AgentId>().unwrap(), incarnation: Incarnation(1) })
}

/// One message for each (topic, payload).
pub fn batch<T: AsRef<str>>(messages: &[(&str, T)]) -> Batch {
    let mut body = BytesMut::new();
    for (topic, payload) in messages {
        frame::encode_parts(&mut body, &Envelope::default(), topic, payload.as_ref().as_bytes());
    }
    let body = body.freeze();
    let walked = frame::walk(&body).unwrap();
    Batch {
        count: walked.count,
        flags: walked.flags,
        body,
        runs: walked.runs,
        sender: sender(),
        producer: ProducerKey::NONE,
        producer_epoch: 0,
        counter: 0,
        keys: smallvec::SmallVec::new(),
    }
}

/// One message.
pub fn one(topic: &str, payload: &str) -> Batch {
    batch(&[(topic, payload)])
}

pub trait BatchExt {
    #[expect(clippy::wrong_self_convention, reason = "reads as the sentence that it is")]
    fn from_producer(self, producer: u64, epoch: u32, counter: u64) -> Batch;
    /// Keys by index; the digest of the body is the payload's length times ten plus `salt`.
    fn keyed(self, keys: &[(u32, u128, u64)]) -> Batch;
}

impl BatchExt for Batch {
    fn from_producer(self, producer: u64, epoch: u32, counter: u64) -> Batch {
        Batch { producer: ProducerKey(producer), producer_epoch: epoch, counter, ..self }
    }

    fn keyed(self, keys: &[(u32, u128, u64)]) -> Batch {
        Batch {
            keys: keys.iter().map(|(index, key, body)| Keyed { index: *index, key: *key, body: *body }).collect(),
            ..self
        }
    }
}

/// Seqs of a batch that was stored whole.
pub fn stored(parts: &Parts) -> Seq {
    match &parts[..] {
        [part] => match part.outcome {
            Outcome::Stored { first_seq, .. } => first_seq,
            ref other => panic!("not stored: {other:?}"),
        },
        other => panic!("not one part: {other:?}"),
    }
}

/// Parts as short words: `new 5+2`, `dup 3+1`, `dup ?+1`, `producer_fenced+1`.
pub fn words(parts: &Parts) -> String {
    let word = |p: &acb_types::batch::Part| match &p.outcome {
        Outcome::Stored { first_seq, .. } => format!("new {first_seq}+{}", p.count),
        Outcome::Duplicate { first_seq: Some(seq) } => format!("dup {seq}+{}", p.count),
        Outcome::Duplicate { first_seq: None } => format!("dup ?+{}", p.count),
        Outcome::Refused(code) => format!("{}+{}", code.name(), p.count),
    };
    parts.iter().map(word).collect::<Vec<_>>().join(", ")
}

pub fn filters(filters: &[&str]) -> Arc<[TopicFilter]> {
    filters.iter().map(|f| f.parse().unwrap()).collect()
}

pub fn request(from: Seq, topics: &[&str]) -> ReadRequest {
    ReadRequest {
        from_seq: from,
        end_seq: Seq::MAX,
        filters: filters(topics),
        messages_max: u32::MAX,
        bytes_max: u64::MAX,
    }
}

/// A message that was read: seq, topic, payload.
pub type Got = (Seq, String, String);

pub fn unpack(run: &StoredRun) -> Vec<Got> {
    let topic = String::from_utf8(run.topic.to_vec()).unwrap();
    let messages: Vec<Bytes> = frame::messages(&run.body).collect();
    assert_eq!(messages.len(), run.count as usize, "a run has the messages it says");
    messages
        .iter()
        .enumerate()
        .map(|(i, m)| {
            let envelope = frame::decode(m).unwrap();
            assert_eq!(&*envelope.topic, topic, "a run has one topic");
            (run.first_seq + i as u64, topic.clone(), String::from_utf8(envelope.payload.to_vec()).unwrap())
        })
        .collect()
}

pub fn messages(block: &ReadBlock) -> Vec<Got> {
    block.runs.iter().flat_map(unpack).collect()
}

/// Everything on these topics from a seq on, read block by block.
pub fn read_all(log: &Log, from: Seq, topics: &[&str]) -> Vec<Got> {
    let reader = log.reader();
    let mut out = Vec::new();
    let mut at = from;
    loop {
        let block = reader.read(&request(at, topics)).unwrap();
        out.extend(messages(&block));
        if block.next_seq <= at || block.next_seq >= log.written_end() {
            return out;
        }
        at = block.next_seq;
    }
}

/// Payloads only.
pub fn payloads(got: &[Got]) -> Vec<&str> {
    got.iter().map(|(_, _, p)| p.as_str()).collect()
}

/// Stages one message and writes it.
pub fn put(log: &mut Log, topic: &str, payload: &str) -> Seq {
    let seq = stored(&log.stage(one(topic, payload), NOW).unwrap());
    log.write().unwrap();
    seq
}

/// As [`put`], synced.
pub fn put_synced(log: &mut Log, topic: &str, payload: &str) -> Seq {
    let seq = put(log, topic, payload);
    log.sync().unwrap();
    seq
}
