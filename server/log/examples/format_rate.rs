//! How fast the log's format is on this machine's disk; the table of ADR 0003.
//!
//! `cargo run --release -p acb-log --example format_rate [folder]`
//!
//! Bounded: about a minute, and less than 2 GiB in a temporary folder beside the given one, which goes at the end.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a measurement")]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use acb_log::{DataDir, DataDirOptions, Log, LogOptions, OsDisk, SyncTicket};
use acb_types::{
    ClassId, Envelope, Incarnation, PartitionId, ProducerKey, Timestamp, TopicFilter,
    batch::{Batch, ReadRequest, Sender},
    frame,
    position::Seq,
};
use bytes::BytesMut;

/// How long each append case runs.
const SPAN: Duration = Duration::from_secs(2);
/// Most bytes that an append case writes.
const BYTES_MAX: u64 = 1 << 30;
/// Messages that may wait for a sync, as a publisher's window.
const WINDOW: u64 = 4096;
/// Messages of the log that is read.
const MESSAGES: u32 = 1_000_000;
/// Topics of that log.
const TOPICS: u32 = 10_000;
/// Topics of the segment that a wildcard reader asks while it is written to.
const ACTIVE_TOPICS: u32 = 100_000;

const NOW: Timestamp = Timestamp(1_800_000_000_000);

fn main() {
    let beside = std::env::args().nth(1).unwrap_or_else(|| ".".into());
    println!("| case | figure |\n|---|---|");
    for (count, len) in [(128, 256), (1, 256), (16, 4096)] {
        written(&beside, count, len);
    }
    for (count, len) in [(128, 256), (1, 256)] {
        synced(&beside, count, len);
    }
    recycled(&beside);
    recovery(&beside);
    postings(&beside);
    wildcard(&beside);
}

fn row(case: &str, figure: &str) {
    println!("| {case} | {figure} |");
}

struct Folder {
    temporary: tempfile::TempDir,
    data: DataDir,
}

impl Folder {
    fn new(beside: &str) -> Self {
        let temporary = tempfile::tempdir_in(beside).unwrap();
        let data = open(temporary.path());
        Self { temporary, data }
    }

    /// As after a stop that was not clean.
    fn again(self) -> Self {
        drop(self.data);
        let data = open(self.temporary.path());
        Self { temporary: self.temporary, data }
    }

    fn log(&self) -> Log {
        self.data.open_log(&id(), LogOptions::default(), NOW).unwrap().log
    }
}

fn open(path: &Path) -> DataDir {
    DataDir::open(OsDisk::shared(), path, DataDirOptions { pool_bytes_max: 1 << 30, ..DataDirOptions::default() })
        .unwrap()
}

fn id() -> PartitionId {
    PartitionId { tenant: "acme".parse().unwrap(), class: ClassId::TOPICS, partition: 0 }
}

/// Messages of one payload length, each on its topic.
fn batch<T: AsRef<str>>(topics: &[T], len: usize) -> Batch {
    let payload = vec![b'x'; len];
    let mut body = BytesMut::new();
    for topic in topics {
        frame::encode_parts(&mut body, &Envelope::default(), topic.as_ref(), &payload);
    }
    let body = body.freeze();
    let walked = frame::walk(&body).unwrap();
    Batch {
        count: walked.count,
        flags: walked.flags,
        body,
        runs: walked.runs,
        sender: Arc::new(Sender { agent: "planner".parse().unwrap(), incarnation: Incarnation(1) }),
        producer: ProducerKey(7),
        producer_epoch: 1,
        counter: 1,
        keys: smallvec::SmallVec::new(),
    }
}

/// The next of equal frames of a producer session: its bytes are shared.
fn next(of: &Batch, counter: &mut u64) -> Batch {
    let batch = Batch { counter: *counter, ..of.clone() };
    *counter += u64::from(of.count);
    batch
}

/// One thread stages a frame and writes it, again and again; syncs run beside it every 20 ms, as in the server.
fn written(beside: &str, count: usize, len: usize) {
    let folder = Folder::new(beside);
    let mut log = folder.log();
    let frame = batch(&vec!["bench.topic"; count], len);
    let (mut counter, begun, mut frames) = (1, Instant::now(), 0u64);
    with_syncer(|sync| {
        let mut last_sync = Instant::now();
        while begun.elapsed() < SPAN && log.bytes() < BYTES_MAX {
            log.stage(next(&frame, &mut counter), NOW).unwrap();
            log.write().unwrap();
            frames += 1;
            sync.collect(&mut log);
            if last_sync.elapsed() > Duration::from_millis(20) {
                sync.begin(&mut log);
                last_sync = Instant::now();
            }
        }
        sync.finish(&mut log);
    });
    let seconds = begun.elapsed().as_secs_f64();
    let messages = frames * count as u64;
    row(
        &format!("append at `written`, frames of {count} x {len} B"),
        &format!(
            "{:.0} messages/s, {:.2} µs a frame, {:.0} MB/s",
            messages as f64 / seconds,
            seconds * 1e6 / frames as f64,
            log.bytes() as f64 / seconds / 1e6
        ),
    );
}

/// As [`written`], at the level `synced`: alone, each frame waits for its sync; in a group, whatever came during a sync
/// goes with the next one.
fn synced(beside: &str, count: usize, len: usize) {
    let frame = batch(&vec!["bench.topic"; count], len);
    for window in [count as u64, WINDOW] {
        let folder = Folder::new(beside);
        let mut log = folder.log();
        let (mut counter, begun) = (1, Instant::now());
        let mut syncs = 0;
        with_syncer(|sync| {
            while begun.elapsed() < SPAN && log.bytes() < BYTES_MAX {
                if log.next_seq() + count as u64 <= log.synced_end() + window {
                    log.stage(next(&frame, &mut counter), NOW).unwrap();
                    log.write().unwrap();
                    sync.collect(&mut log);
                } else {
                    sync.wait(&mut log);
                }
                syncs += u64::from(sync.begin(&mut log));
            }
            sync.finish(&mut log);
        });
        let seconds = begun.elapsed().as_secs_f64();
        let what = if window == WINDOW { "group commit, window of 4096 messages" } else { "a sync for each" };
        row(
            &format!("append at `synced`, frames of {count} x {len} B, {what}"),
            &format!(
                "{:.0} messages/s, {:.0} syncs/s, {:.0} messages a sync",
                (log.synced_end() - 1) as f64 / seconds,
                f64::from(u32::try_from(syncs).unwrap()) / seconds,
                (log.synced_end() - 1) as f64 / syncs as f64
            ),
        );
    }
}

/// Runs tickets on a thread of its own, one at a time.
struct Syncer {
    tickets: mpsc::SyncSender<SyncTicket>,
    done: mpsc::Receiver<SyncTicket>,
    running: bool,
}

impl Syncer {
    fn begin(&mut self, log: &mut Log) -> bool {
        let ticket = if self.running { None } else { log.sync_begin() };
        self.running |= ticket.is_some();
        ticket.is_some_and(|ticket| self.tickets.send(ticket).is_ok())
    }

    fn collect(&mut self, log: &mut Log) {
        if let Ok(ticket) = self.done.try_recv() {
            self.running = false;
            log.sync_end(ticket).unwrap();
        }
    }

    fn wait(&mut self, log: &mut Log) {
        if self.running {
            log.sync_end(self.done.recv().unwrap()).unwrap();
            self.running = false;
        }
    }

    fn finish(&mut self, log: &mut Log) {
        self.wait(log);
        self.begin(log);
        self.wait(log);
    }
}

fn with_syncer(work: impl FnOnce(&mut Syncer)) {
    let (tickets, todo) = mpsc::sync_channel::<SyncTicket>(1);
    let (finished, done) = mpsc::sync_channel(1);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for mut ticket in todo {
                ticket.run();
                if finished.send(ticket).is_err() {
                    break;
                }
            }
        });
        work(&mut Syncer { tickets, done, running: false });
    });
}

/// The same frames into segments that are new, and into segments that were used before.
fn recycled(beside: &str) {
    /// Three segments of 2 MiB.
    const FRAMES: u32 = 1500;
    let folder = Folder::new(beside);
    let options = LogOptions { segment_bytes_min: 2 << 20, segment_bytes_max: 2 << 20, ..LogOptions::default() };
    let mut log = folder.data.open_log(&id(), options, NOW).unwrap().log;
    let frame = batch(&["bench.topic"], 4096);
    let mut counter = 1;
    let mut rates = Vec::new();
    for _ in 0..2 {
        let (begun, mut frames) = (Instant::now(), 0u32);
        while frames < FRAMES {
            log.stage(next(&frame, &mut counter), NOW).unwrap();
            log.sync().unwrap();
            frames += 1;
        }
        rates.push(begun.elapsed().as_secs_f64() * 1e6 / f64::from(frames));
        // All but the last segment go to the pool; the next round takes them from there.
        log.trim_before(Seq::MAX).unwrap();
    }
    row(
        "a sync for each 4 KiB message, new segments against recycled ones",
        &format!("{:.0} µs against {:.0} µs, {:.1} times", rates[0], rates[1], rates[0] / rates[1]),
    );
}

/// A million messages over ten thousand topics, 64 in a frame, topics in turn.
fn filled(folder: &Folder) -> u64 {
    let mut log = folder.log();
    let frames: Vec<Batch> = (0..TOPICS / 50)
        .map(|f| batch(&(0..50).map(|i| format!("t.{}", f * 50 + i)).collect::<Vec<_>>(), 256))
        .collect();
    let mut counter = 1;
    for i in 0..MESSAGES / 50 {
        log.stage(next(&frames[i as usize % frames.len()], &mut counter), NOW).unwrap();
        if i % 16 == 15 {
            log.write().unwrap();
        }
        if i % 1024 == 1023 {
            log.sync().unwrap();
        }
    }
    log.sync().unwrap();
    log.chores().run();
    log.bytes()
}

fn recovery(beside: &str) {
    let folder = Folder::new(beside);
    let bytes = filled(&folder);
    let folder = folder.again();
    let begun = Instant::now();
    let log = folder.log();
    let with = begun.elapsed();
    assert!(log.written_end() > u64::from(MESSAGES));
    drop(log);
    let mut removed = 0;
    for entry in std::fs::read_dir(folder.data.log_dir(&id())).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "idx") {
            std::fs::remove_file(path).unwrap();
            removed += 1;
        }
    }
    let folder = folder.again();
    let begun = Instant::now();
    drop(folder.log());
    let without = begun.elapsed();
    row(
        &format!("opening after an unclean stop, {} MB, {removed} sidecars", bytes / 1_000_000),
        &format!("{:.0} ms: only what no sidecar vouches for is read", with.as_secs_f64() * 1e3),
    );
    row(
        "the same without any sidecar: every batch is read, checked and compared with the disk",
        &format!("{:.0} ms, {:.0} MB/s", without.as_secs_f64() * 1e3, bytes as f64 / without.as_secs_f64() / 1e6),
    );
}

/// Bytes that this process has asked the system for.
fn read_bytes() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap();
    io.lines().find_map(|l| l.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

/// Reads all that is wanted, and answers how many messages there were.
fn read(log: &Log, filter: &str, topic: &str) -> u32 {
    let reader = log.reader();
    let filters: Arc<[TopicFilter]> = [filter.parse().unwrap()].into();
    let (mut at, mut found) = (1, 0);
    while at < log.written_end() {
        let request = ReadRequest {
            from_seq: at,
            end_seq: Seq::MAX,
            filters: Arc::clone(&filters),
            messages_max: u32::MAX,
            bytes_max: u64::MAX,
        };
        let block = reader.read(&request).unwrap();
        found += block.runs.iter().filter(|r| r.topic == topic.as_bytes()).map(|r| r.count).sum::<u32>();
        at = block.next_seq;
    }
    found
}

fn postings(beside: &str) {
    let folder = Folder::new(beside);
    filled(&folder);
    let folder = folder.again();
    let log = folder.log();
    let mut figures = Vec::new();
    for (filter, topic) in [("t.77", "t.77"), ("t.78", "t.78"), (">", "t.77")] {
        let (before, begun) = (read_bytes(), Instant::now());
        let found = read(&log, filter, topic);
        figures.push((found, begun.elapsed().as_secs_f64() * 1e3, read_bytes() - before));
    }
    assert!(figures.iter().all(|f| f.0 == MESSAGES / TOPICS), "{figures:?}");
    let [first, own, all] = figures[..] else { unreachable!("three reads") };
    row(
        "100 messages of one topic of 10,000 in a million, by postings",
        &format!(
            "{:.2} ms and {} KB (the first reader of all: {:.1} ms and {} KB, directories included)",
            own.1,
            own.2 / 1000,
            first.1,
            first.2 / 1000
        ),
    );
    row(
        "the same by reading everything",
        &format!(
            "{:.0} ms and {} KB: {:.0} times the time, {:.0} times the bytes",
            all.1,
            all.2 / 1000,
            all.1 / own.1,
            all.2 as f64 / own.2 as f64
        ),
    );
}

/// The longest that an append takes while a reader asks all topics of the segment that is written to.
fn wildcard(beside: &str) {
    let folder = Folder::new(beside);
    let options = LogOptions { segment_bytes_min: 64 << 20, ..LogOptions::default() };
    let mut log = folder.data.open_log(&id(), options, NOW).unwrap().log;
    let mut counter = 1;
    for f in 0..ACTIVE_TOPICS / 50 {
        let topics: Vec<String> = (0..50).map(|i| format!("t.{}.x", f * 50 + i)).collect();
        log.stage(next(&batch(&topics, 16), &mut counter), NOW).unwrap();
        log.write().unwrap();
    }
    log.sync().unwrap();
    let frame = batch(&["t.1.x"], 64);
    let mut figures = Vec::new();
    for with_reader in [false, true] {
        let done = AtomicBool::new(false);
        let reader = log.reader();
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| {
                let (mut plans, begun) = (0u32, Instant::now());
                while with_reader && !done.load(Ordering::Relaxed) {
                    let request = ReadRequest {
                        from_seq: 1,
                        end_seq: Seq::MAX,
                        filters: ["*.nobody.>".parse().unwrap()].into(),
                        messages_max: 1,
                        bytes_max: 1,
                    };
                    assert!(reader.read(&request).unwrap().runs.is_empty());
                    plans += 1;
                }
                begun.elapsed().as_secs_f64() * 1e3 / f64::from(plans.max(1))
            });
            let mut took = Vec::new();
            for i in 0..100_000 {
                let begun = Instant::now();
                log.stage(next(&frame, &mut counter), NOW).unwrap();
                log.write().unwrap();
                took.push(begun.elapsed());
                if i % 10_000 == 0 {
                    log.sync().unwrap();
                }
            }
            done.store(true, Ordering::Relaxed);
            took.sort_unstable();
            let micros = |part: usize| took[took.len() * part / 100_000].as_secs_f64() * 1e6;
            let long = took.iter().filter(|t| **t > Duration::from_millis(10)).count();
            figures.push((micros(50_000), micros(99_900), micros(99_990), asked.join().unwrap(), long));
        });
    }
    for (case, f) in ["nobody reads", "a wildcard reader asks 100,000 topics without end"].iter().zip(&figures) {
        let plan = if f.3 > 0.01 { format!("; one question takes {:.1} ms", f.3) } else { String::new() };
        row(
            &format!("append of one message while {case}"),
            &format!("median {:.1} µs, 99.9 % {:.0} µs, 99.99 % {:.0} µs, {} over 10 ms{plan}", f.0, f.1, f.2, f.4),
        );
    }
}
