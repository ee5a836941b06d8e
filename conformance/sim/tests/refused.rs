//! Who waits for a write that fails is told so, whatever came between: the partition's core on the test disk, step by
//! step. The simulation would need many seeds to come to these places.

use std::{
    path::Path,
    sync::Arc,
    task::{Context, Waker},
};

use acb_engine::{Engine, EngineConfig};
use acb_log::{AtCap, DataDir, DataDirOptions, FaultOn, LogOptions, Retention, SimDisk};
use acb_server::delivery::{
    core::{After, Op, PartitionCore},
    outbox::PublishOutbox,
};
use acb_types::{
    Durability, Envelope, ErrorCode, Incarnation, Now, PartitionId, ProducerKey, Timestamp,
    batch::{Batch, Sender},
    frame,
    position::ClassId,
};
use bytes::BytesMut;

const NOW: Now = Now { mono_ms: 0, wall: Timestamp(1_767_225_600_000) };
/// Seqs that are given out beyond the synced end: the second of two frames must wait for a write and a sync.
const RESERVE: u64 = 16;

struct Bench {
    disk: SimDisk,
    core: PartitionCore,
    outbox: Arc<PublishOutbox>,
    counter: u64,
}

impl Bench {
    fn new() -> Self {
        let disk = SimDisk::new(1);
        let data = Arc::new(DataDir::open(disk.shared(), Path::new("/data"), DataDirOptions::default()).unwrap());
        let partition = PartitionId { tenant: "acme".parse().unwrap(), class: ClassId::TOPICS, partition: 0 };
        let options = LogOptions {
            seq_reserve: RESERVE,
            retention: Retention { at_cap: AtCap::Refuse, ..Retention::KEEP },
            ..LogOptions::default()
        };
        let opened = acb_store_embedded::embedded_log::open_partition(&data, &partition, options, NOW.wall).unwrap();
        let core = PartitionCore::new(Engine::new(EngineConfig::default()), opened.log, ClassId::TOPICS);
        Self { disk, core, outbox: Arc::default(), counter: 1 }
    }

    fn append(&mut self, count: u32, level: Durability) -> Op {
        let mut body = BytesMut::new();
        for _ in 0..count {
            frame::encode(&mut body, &Envelope { topic: "a".into(), payload: "m".into(), ..Envelope::default() });
        }
        let body = body.freeze();
        let walked = frame::walk(&body).unwrap();
        let batch = Batch {
            count,
            flags: walked.flags,
            body,
            runs: walked.runs,
            sender: Arc::new(Sender { agent: "planner".parse().unwrap(), incarnation: Incarnation(1) }),
            producer: ProducerKey(7),
            producer_epoch: 1,
            counter: self.counter,
            keys: smallvec(),
        };
        self.counter += u64::from(count);
        Op::Append { batch, level, outbox: Arc::clone(&self.outbox) }
    }

    fn drain(&mut self, mut ops: Vec<Op>) {
        self.core.drain(&mut ops, NOW, &mut After::default());
    }

    /// Answers since the last call: counters that were acknowledged as new, and those that were refused with their code.
    fn answers(&mut self) -> (Vec<u64>, Vec<(u64, ErrorCode)>) {
        let Some(news) = self.outbox.take(&Context::from_waker(Waker::noop())) else { return Default::default() };
        let acked =
            news.acks.iter().filter(|a| !a.duplicate).flat_map(|a| a.counter..a.counter + u64::from(a.count)).collect();
        let refused = |r: &acb_server::delivery::outbox::Rejected| (r.counter, r.code);
        (acked, news.rejects.iter().map(refused).collect())
    }
}

fn smallvec<T: Default>() -> T {
    T::default()
}

#[test]
fn what_a_refused_append_dropped_is_not_taken_for_written_by_the_next_one() {
    let mut bench = Bench::new();
    let (first, second) = (bench.append(8, Durability::Written), bench.append(12, Durability::Written));
    bench.disk.fail(FaultOn::Write, libc::ENOSPC);
    bench.drain(vec![first, second]);
    bench.disk.heal();
    let third = bench.append(1, Durability::Written);
    bench.drain(vec![third]);
    let (acked, mut refused) = bench.answers();
    refused.sort_by_key(|r| r.0);
    assert_eq!(refused, [(1, ErrorCode::StorageFull), (9, ErrorCode::StorageFull)]);
    assert_eq!(acked, [21], "only what is there is acknowledged");
    assert_eq!(bench.core.log().first_seq(), bench.core.log().next_seq() - 1, "one message is there");
}

#[test]
fn what_making_room_has_written_is_acknowledged_although_the_append_was_a_repeat() {
    let mut bench = Bench::new();
    let first = bench.append(12, Durability::Written);
    bench.counter = 1;
    let again = bench.append(12, Durability::Written);
    bench.drain(vec![first, again]);
    assert_eq!(bench.answers(), ((1..=12).collect(), vec![]));
    assert_eq!(bench.core.log().next_seq(), 13, "stored once");
}

#[test]
fn a_log_that_gives_up_answers_all_who_wait_for_a_sync() {
    let mut bench = Bench::new();
    let first = bench.append(1, Durability::Synced);
    bench.drain(vec![first]);
    assert_eq!(bench.answers(), (vec![], vec![]), "written, and not synced yet");
    bench.disk.fail(FaultOn::Write, libc::EIO);
    let second = bench.append(1, Durability::Written);
    bench.drain(vec![second]);
    let (acked, mut refused) = bench.answers();
    refused.sort_by_key(|r| r.0);
    assert_eq!((acked, refused), (vec![], vec![(1, ErrorCode::StorageFailed), (2, ErrorCode::StorageFailed)]));
}
