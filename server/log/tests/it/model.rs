//! Random lives of a log on the test disk, step by step against a model: what was acknowledged at its level is there
//! after every fall, what is there was staged, nothing comes back, no seq is given twice, doubles are known.

use std::collections::BTreeMap;

use acb_log::{Fault, FaultOn, Log, LogOptions, SimRng, SnapshotPart, SyncTicket, planted};
use acb_types::{
    Timestamp,
    batch::{Outcome, Part},
    position::Seq,
};
use bytes::Bytes;

use crate::kit::*;

const TOPICS: [&str; 4] = ["a.one", "a.two", "b.one", "c"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Staged,
    Written,
    Synced,
}

#[derive(Clone, Debug)]
struct Message {
    topic: &'static str,
    payload: String,
    level: Level,
    producer: Option<(u64, u64)>,
    key: Option<u128>,
}

/// A state record, or a snapshot of all before it.
#[derive(Clone, Debug)]
struct State {
    bytes: Bytes,
    part: SnapshotPart,
    level: Level,
}

struct Model {
    world: World,
    log: Option<Log>,
    tickets: Vec<(SyncTicket, Seq, usize)>,
    messages: BTreeMap<Seq, Message>,
    /// Messages that were trimmed but whose keys and counters are still known.
    trimmed: BTreeMap<Seq, Message>,
    states: Vec<State>,
    /// What a failed write may have left behind, until the next one goes over it.
    maybe: BTreeMap<Seq, Message>,
    maybe_states: Vec<State>,
    /// Messages that could not be written in this life: they may be sent again.
    dropped: Vec<Message>,
    /// Where the log was when it was opened: its opening says that all before was synced.
    opened_at: acb_log::Pos,
    /// Whether the log follows a snapshot: it forgets one that was torn by a failed write.
    snapshot_open: bool,
    given: Seq,
    synced_end: Seq,
    counters: [u64; 3],
    epochs: [u32; 3],
    next_key: u128,
    serial: u64,
    steps: u64,
    /// Failures that were planned: some checks must be told.
    faulty: bool,
}

/// Runs one life after the other; panics with the seed when a promise is broken.
pub fn run(seed: u64, steps: u64, faulty: bool) {
    let mut rng = SimRng::new(seed ^ 0x5eed);
    let options = LogOptions {
        segment_bytes_min: 2048,
        segment_bytes_max: 2048 << rng.below(4),
        seq_reserve: 64 + rng.below(64),
        ..LogOptions::default()
    };
    let mut model = Model {
        world: World::new(seed, options),
        log: None,
        tickets: Vec::new(),
        messages: BTreeMap::new(),
        trimmed: BTreeMap::new(),
        states: Vec::new(),
        maybe: BTreeMap::new(),
        maybe_states: Vec::new(),
        dropped: Vec::new(),
        opened_at: acb_log::Pos::default(),
        snapshot_open: false,
        given: 1,
        synced_end: 1,
        counters: [1; 3],
        epochs: [1; 3],
        next_key: 1,
        serial: 0,
        steps: 0,
        faulty,
    };
    model.open();
    while model.steps < steps {
        model.steps += 1;
        model.step(&mut rng);
    }
    model.fall(false);
    model.open();
}

impl Model {
    fn log(&mut self) -> &mut Log {
        self.log.as_mut().unwrap()
    }

    fn step(&mut self, rng: &mut SimRng) {
        let dice = rng.below(100);
        if std::env::var_os("ACB_LOG_TRACE").is_some() {
            let steps = self.steps;
            let log = self.log();
            eprintln!(
                "step {}: dice {dice}, next {}, written {}, synced {} at {}, staged {}",
                steps,
                log.next_seq(),
                log.written_end(),
                log.synced_end(),
                log.synced_position(),
                log.has_staged()
            );
        }
        match dice {
            0..30 => self.stage(rng),
            30..40 => self.resend(rng),
            40..50 => self.state(rng),
            50..65 => self.write(),
            65..75 => self.sync_begin(),
            75..83 => self.sync_end(rng),
            83..86 => self.sync(),
            86..92 => self.read(rng),
            92..94 => self.trim(rng),
            94 => self.close(),
            95 if self.faulty => self.plan_fault(rng),
            96..98 => {
                self.fall(true);
                self.damage(rng);
                self.open();
            }
            98 => {
                self.fall(false);
                while rng.chance(1, 2) {
                    self.stumble(rng);
                }
                self.open();
            }
            _ => self.world.now = self.world.now.after(std::time::Duration::from_millis(rng.below(500))),
        }
    }

    fn stage(&mut self, rng: &mut SimRng) {
        let count = 1 + rng.below(4) as usize;
        let producer = rng.below(6) as usize;
        let mut messages = Vec::new();
        let mut keys = Vec::new();
        for i in 0..count {
            self.serial += 1;
            let topic = TOPICS[rng.below(4) as usize];
            let payload = format!("m{} {}", self.serial, "x".repeat(rng.below(300) as usize));
            if rng.chance(1, 6) {
                self.next_key += 1;
                keys.push((i as u32, self.next_key, self.serial));
            }
            messages.push((topic, payload));
        }
        let mut b = batch(&messages).keyed(&keys);
        let mut counter = 0;
        if producer < 3 {
            if rng.chance(1, 40) {
                self.epochs[producer] += 1;
                self.counters[producer] = 1;
                let gone = |m: &mut Message| {
                    if m.producer.is_some_and(|(p, _)| p == producer as u64 + 1) {
                        m.producer = None;
                    }
                };
                self.messages.values_mut().chain(self.trimmed.values_mut()).chain(&mut self.dropped).for_each(gone);
            }
            counter = self.counters[producer];
            b = b.from_producer(producer as u64 + 1, self.epochs[producer], counter);
        }
        let now = self.world.now;
        let Ok(parts) = self.log().stage(b, now) else { return self.refused() };
        let [Part { outcome: Outcome::Stored { first_seq, .. }, .. }] = &parts[..] else {
            panic!("new messages were not stored: {}", words(&parts));
        };
        assert!(*first_seq >= self.given, "LOG-1: seq {first_seq} was given out before, {} comes next", self.given);
        self.given = first_seq + count as u64;
        if producer < 3 {
            self.counters[producer] += count as u64;
        }
        for (i, (topic, payload)) in messages.into_iter().enumerate() {
            let key = keys.iter().find(|k| k.0 == i as u32).map(|k| k.1);
            let producer = (producer < 3).then(|| (producer as u64 + 1, counter + i as u64));
            self.messages.insert(first_seq + i as u64, Message { topic, payload, level: Level::Staged, producer, key });
        }
    }

    /// Sends something again that was stored; it must be known.
    fn resend(&mut self, rng: &mut SimRng) {
        if let Some(m) = self.dropped.pop() {
            return self.send_dropped(m);
        }
        let all: Vec<(Seq, Message)> = self
            .trimmed
            .iter()
            .chain(&self.messages)
            .filter(|(_, m)| m.producer.is_some() || m.key.is_some())
            .map(|(s, m)| (*s, m.clone()))
            .collect();
        if all.is_empty() {
            return;
        }
        let (seq, message) = &all[rng.below(all.len() as u64) as usize];
        let now = self.world.now;
        let mut b = one(message.topic, &message.payload);
        let expected = match (message.producer, message.key) {
            (Some((producer, counter)), _) if message.key.is_none() || rng.chance(1, 2) => {
                b = b.from_producer(producer, self.epochs[producer as usize - 1], counter);
                format!("dup {seq}+1")
            }
            (_, Some(key)) => {
                let serial: u64 = message.payload[1..].split(' ').next().unwrap().parse().unwrap();
                let other = rng.chance(1, 4);
                b = b.keyed(&[(0, key, serial + u64::from(other))]);
                if other { "idempotency_conflict+1".into() } else { format!("dup {seq}+1") }
            }
            _ => return,
        };
        let Ok(parts) = self.log().stage(b, now) else { return self.refused() };
        assert_eq!(words(&parts), expected, "LOG-2/LOG-7: {message:?} at {seq}");
    }

    /// Sends a message again that could not be written: it is new.
    fn send_dropped(&mut self, m: Message) {
        let now = self.world.now;
        let mut b = one(m.topic, &m.payload);
        if let Some((producer, counter)) = m.producer {
            b = b.from_producer(producer, self.epochs[producer as usize - 1], counter);
        }
        if let Some(key) = m.key {
            let serial: u64 = m.payload[1..].split(' ').next().unwrap().parse().unwrap();
            b = b.keyed(&[(0, key, serial)]);
        }
        let Ok(parts) = self.log().stage(b, now) else { return self.refused() };
        assert!(words(&parts).starts_with("new"), "LOG-8: {m:?} was dropped, and is {} now", words(&parts));
        let seq = stored(&parts);
        self.given = seq + 1;
        self.messages.insert(seq, Message { level: Level::Staged, ..m });
    }

    /// Flips a byte of what the last opening said was synced: the log must refuse to open until it is mended.
    fn damage(&mut self, rng: &mut SimRng) {
        let Some(path) = self.world.files("seg").into_iter().find(|p| {
            let name = p.file_name().unwrap().to_str().unwrap();
            name.starts_with(&format!("{:010}-", self.opened_at.segment))
        }) else {
            return;
        };
        let sealed = self.world.files("idx").contains(&path.with_extension("idx"));
        if self.opened_at.offset <= 512 || sealed {
            return;
        }
        let at = 512 + rng.below(u64::from(self.opened_at.offset) - 512);
        let mask = 1 << rng.below(8);
        self.world.disk.corrupt(&path, at, mask);
        let refused = self.world.try_open();
        let code = refused.as_ref().err().map(|e| e.code);
        assert_eq!(code, Some(acb_types::ErrorCode::DataDamaged), "byte {at} of {} was flipped", path.display());
        drop(refused);
        self.world.disk.corrupt(&path, at, mask);
    }

    fn state(&mut self, rng: &mut SimRng) {
        self.serial += 1;
        let (serial, wants) = (self.serial, self.log().wants_snapshot());
        let parts: &[SnapshotPart] = match rng.below(4) {
            0 if wants => &[SnapshotPart::Whole],
            1 if wants => &[SnapshotPart::First, SnapshotPart::Middle, SnapshotPart::Last],
            2 if wants => &[SnapshotPart::First],
            _ => &[SnapshotPart::None],
        };
        for (i, part) in parts.iter().enumerate() {
            let bytes = Bytes::from(format!("s{serial}.{i} {}", "y".repeat(rng.below(60) as usize)));
            if self.log().stage_state(bytes.clone(), *part).is_err() {
                return self.refused();
            }
            self.snapshot_open |= matches!(part, SnapshotPart::First | SnapshotPart::Whole);
            if *part == SnapshotPart::None || self.snapshot_open {
                self.states.push(State { bytes, part: *part, level: Level::Staged });
            }
            self.snapshot_open &= !matches!(part, SnapshotPart::Last | SnapshotPart::Whole);
            // Sometimes the parts of a snapshot are in different batches.
            if rng.chance(1, 3) {
                self.write();
            }
        }
    }

    fn raise(&mut self, from: Level, to: Level, below: Seq, states: usize) {
        self.messages.range_mut(..below).filter(|(_, m)| m.level == from).for_each(|(_, m)| m.level = to);
        self.states[..states].iter_mut().filter(|s| s.level == from).for_each(|s| s.level = to);
    }

    fn write(&mut self) {
        match self.log().write() {
            Ok(()) => {
                let (end, states) = (self.log().written_end(), self.states.len());
                assert_eq!(end, self.log().next_seq());
                if self.messages.values().any(|m| m.level == Level::Staged)
                    || self.states.iter().any(|s| s.level == Level::Staged)
                {
                    self.forget_maybe();
                }
                self.raise(Level::Staged, Level::Written, Seq::MAX, states);
            }
            Err(e) => {
                assert!(self.faulty, "a write failed on a good disk: {e}");
                self.drop_staged();
                self.refused();
            }
        }
    }

    fn forget_maybe(&mut self) {
        self.maybe.clear();
        self.maybe_states.clear();
    }

    fn drop_staged(&mut self) {
        self.snapshot_open = false;
        let dropped: Vec<Seq> =
            self.messages.iter().filter(|(_, m)| m.level == Level::Staged).map(|(s, _)| *s).collect();
        if !dropped.is_empty() || self.states.iter().any(|s| s.level == Level::Staged) {
            self.forget_maybe();
        }
        for seq in dropped {
            let m = self.messages.remove(&seq).unwrap();
            self.dropped.push(m.clone());
            self.maybe.insert(seq, m);
        }
        self.maybe_states.extend(self.states.extract_if(.., |s| s.level == Level::Staged));
    }

    fn sync_begin(&mut self) {
        if let Some(ticket) = self.log().sync_begin() {
            let written = self.states.iter().take_while(|s| s.level >= Level::Written).count();
            let end = ticket.covers();
            self.tickets.push((ticket, end, written));
        }
    }

    /// Runs and ends any ticket: they may overtake each other.
    fn sync_end(&mut self, rng: &mut SimRng) {
        if self.tickets.is_empty() {
            return;
        }
        let i = rng.below(self.tickets.len() as u64) as usize;
        let (mut ticket, end, states) = self.tickets.swap_remove(i);
        ticket.run();
        match self.log().sync_end(ticket) {
            Ok(()) => {
                assert!(self.log().synced_end() >= end);
                self.raise(Level::Written, Level::Synced, end, states);
            }
            Err(e) => {
                assert!(self.faulty, "a sync failed on a good disk: {e}");
                self.refused();
            }
        }
        self.check_ends();
    }

    fn sync(&mut self) {
        self.write();
        let had_staged = self.log().has_staged();
        if self.log().sync().is_ok() {
            let (end, states) = (self.log().synced_end(), self.states.len());
            assert_eq!(end, self.log().written_end());
            if had_staged {
                self.forget_maybe();
            }
            self.raise(Level::Staged, Level::Synced, end, states);
            self.raise(Level::Written, Level::Synced, end, states);
        } else {
            assert!(self.faulty);
            self.refused();
        }
        self.check_ends();
    }

    fn check_ends(&mut self) {
        let synced = self.log().synced_end();
        assert!(synced >= self.synced_end && synced <= self.log().written_end(), "LOG-3: ends only rise, in order");
        self.synced_end = synced;
        let next = self.log().next_seq();
        assert!(next <= synced + self.world.options.seq_reserve, "seqs stay within the reserve");
    }

    fn read(&mut self, rng: &mut SimRng) {
        let filters: &[&str] =
            [&["a.one"] as &[&str], &["c", "b.one"], &["a.*"], &[">"], &["nothing.here"]][rng.below(5) as usize];
        let written = self.log().written_end();
        let first = self.log().first_seq();
        let from = rng.below(written + 3).max(1);
        let mut request = request(from, filters);
        request.end_seq = if rng.chance(1, 2) { from + rng.below(20) } else { Seq::MAX };
        request.messages_max = 1 + rng.below(8) as u32;
        request.bytes_max = rng.below(2000);
        let wanted = |m: &Message| request.filters.iter().any(|f| f.matches(m.topic));
        let end = request.end_seq.min(written);
        let mut at = from;
        let mut got = Vec::new();
        loop {
            let block =
                match self.log().reader().read(&acb_types::batch::ReadRequest { from_seq: at, ..request.clone() }) {
                    Ok(block) => block,
                    Err(e) => {
                        assert!(self.faulty, "reading failed on a good disk: {e}");
                        return;
                    }
                };
            if let Some(gap) = block.gap {
                assert!(gap.from_seq == at && gap.to_seq > at && first > at, "{gap:?} from {at}, first {first}");
            }
            let more = messages(&block);
            assert!(more.len() as u32 <= request.messages_max);
            got.extend(more);
            assert!(block.next_seq >= at, "{} after {at}", block.next_seq);
            if block.next_seq >= end || block.next_seq == at {
                break;
            }
            at = block.next_seq;
        }
        let expected: Vec<Got> = self
            .messages
            .range(from.min(end)..end)
            .filter(|(_, m)| m.level >= Level::Written && wanted(m))
            .map(|(seq, m)| (*seq, m.topic.to_owned(), m.payload.clone()))
            .collect();
        assert_eq!(got, expected, "LOG-4: reading {filters:?} from {from} to {end}");
    }

    fn trim(&mut self, rng: &mut SimRng) {
        let floor = rng.below(self.given + 1);
        let before = self.log().first_seq();
        match self.log().trim_before(floor) {
            Ok(first) => {
                assert!(
                    first >= before
                        && (first <= floor
                            || first == before
                            || self.messages.range(before..first).all(|(s, _)| *s < floor)),
                    "LOG-9: trimmed to {first}, asked {floor}"
                );
                let kept = self.messages.split_off(&first);
                self.trimmed.append(&mut std::mem::replace(&mut self.messages, kept));
            }
            Err(e) => {
                assert!(self.faulty, "trimming failed on a good disk: {e}");
                let first = self.log().first_seq();
                let kept = self.messages.split_off(&first);
                self.trimmed.append(&mut std::mem::replace(&mut self.messages, kept));
            }
        }
    }

    fn close(&mut self) {
        self.tickets.clear();
        match self.log().close() {
            Ok(()) => {
                let states = self.states.len();
                self.raise(Level::Staged, Level::Synced, Seq::MAX, states);
                self.raise(Level::Written, Level::Synced, Seq::MAX, states);
                self.log = None;
                let given = self.given;
                let next = self.open();
                assert!(self.faulty || next == given, "a clean stop makes no jump: {next} after {given}");
            }
            Err(e) => {
                assert!(self.faulty, "closing failed on a good disk: {e}");
                self.fall(true);
                self.open();
            }
        }
    }

    /// An append was refused: only with a planned failure. A log that gave up is opened anew.
    fn refused(&mut self) {
        assert!(self.faulty, "an append was refused on a good disk");
        // Refusing may have written or dropped what was staged.
        let written = self.log().written_end();
        if !self.log().has_staged() {
            self.raise(Level::Staged, Level::Written, written, 0);
            self.drop_staged();
        }
        self.world.disk.heal();
        let now = self.world.now;
        let probe = self.log().stage_state("probe".into(), SnapshotPart::None);
        let _ = now;
        if let Ok(()) = probe {
            self.states.push(State { bytes: "probe".into(), part: SnapshotPart::None, level: Level::Staged });
        } else {
            self.fall(true);
            self.open();
        }
    }

    fn plan_fault(&mut self, rng: &mut SimRng) {
        let (on, errno) = [
            (FaultOn::Change, libc::ENOSPC),
            (FaultOn::Allocate, libc::ENOSPC),
            (FaultOn::Change, libc::EROFS),
            (FaultOn::Write, libc::EIO),
            (FaultOn::Sync, libc::EIO),
        ][rng.below(5) as usize];
        let fault = Fault { on, errno, after: rng.below(4), times: 1 + rng.below(3) };
        if std::env::var_os("ACB_LOG_TRACE").is_some() {
            eprintln!("{fault:?}");
        }
        self.world.disk.inject(fault);
    }

    fn fall(&mut self, kill: bool) {
        self.tickets.clear();
        self.log = None;
        self.world.disk.heal();
        let kept = if kill { Level::Written } else { Level::Synced };
        if kill {
            self.world.kill();
        } else {
            self.world.power_cut();
        }
        // Only what survives the fall must be there; the rest may be.
        for m in self.messages.values_mut() {
            m.level = if m.level >= kept { Level::Synced } else { Level::Staged };
        }
        for s in &mut self.states {
            s.level = if s.level >= kept { Level::Synced } else { Level::Staged };
        }
    }

    /// The power goes again while the log is being opened.
    fn stumble(&mut self, rng: &mut SimRng) {
        let (on, errno) = [(FaultOn::Change, libc::EIO), (FaultOn::Change, libc::ENOSPC), (FaultOn::Sync, libc::EIO)]
            [rng.below(3) as usize];
        self.world.disk.inject(Fault { on, errno, after: rng.below(8), times: u64::MAX });
        if let Ok(opened) = self.world.try_open() {
            assert!(opened.log.next_seq() >= self.given, "LOG-1: {} comes next", opened.log.next_seq());
        }
        self.world.disk.heal();
        self.world.power_cut();
    }

    /// Opens the log, compares all that it holds, and answers the seq that came next.
    fn open(&mut self) -> Seq {
        self.world.disk.heal();
        if std::env::var_os("ACB_LOG_TRACE").is_some() {
            self.world.disk.take_trace().iter().for_each(|event| eprintln!("{event:?}"));
            self.world.disk.start_trace();
        }
        let opened =
            self.world.try_open().unwrap_or_else(|e| panic!("step {}: the log does not open: {e}", self.steps));
        let mut log = opened.log;
        assert!(log.next_seq() >= self.given, "LOG-1: {} comes next, {} was given out", log.next_seq(), self.given - 1);
        let next = log.next_seq();
        self.opened_at = log.synced_position();
        self.dropped.clear();
        self.snapshot_open = false;
        self.synced_end = log.synced_end();
        let first = log.first_seq();
        let found: BTreeMap<Seq, (String, String)> =
            read_all(&log, 1, &[">"]).into_iter().map(|(seq, topic, payload)| (seq, (topic, payload))).collect();
        // A trim that was not durable may be undone by a power cut.
        for seq in found.keys() {
            if let Some(m) = self.trimmed.remove(seq) {
                self.messages.insert(*seq, m);
            }
        }
        let mut lost = None;
        for (seq, m) in std::mem::take(&mut self.maybe) {
            if found.contains_key(&seq) {
                self.messages.insert(seq, m);
            }
        }
        for (seq, m) in &self.messages {
            if let Some((topic, payload)) = found.get(seq) {
                assert!(topic == m.topic && *payload == m.payload, "seq {seq} holds another message");
                assert_eq!(lost, None, "seq {seq} is there, though one before it was lost");
            } else {
                assert!(m.level < Level::Synced, "LOG-3: seq {seq} was acknowledged and is gone (first is {first})");
                lost = Some(*seq);
            }
        }
        for seq in found.keys() {
            assert!(self.messages.contains_key(seq), "seq {seq} was never staged, or was lost before and came back");
        }
        self.messages.retain(|seq, _| found.contains_key(seq));
        self.messages.values_mut().for_each(|m| m.level = Level::Synced);
        self.check_state(&opened.state);
        // Whatever the clock says.
        let past = Timestamp(1 + self.steps % 3);
        log.stage(one("c", "probe"), past).unwrap();
        log.write().unwrap();
        let probe = log.next_seq() - 1;
        let message = Message { topic: "c", payload: "probe".into(), level: Level::Written, producer: None, key: None };
        self.messages.insert(probe, message);
        self.given = log.next_seq();
        self.log = Some(log);
        next
    }

    /// The state that came back is that of some point not before the last that had to survive.
    fn check_state(&mut self, found: &[Bytes]) {
        let maybe = std::mem::take(&mut self.maybe_states);
        let must = self.states.iter().rposition(|s| s.level == Level::Synced).map_or(0, |i| i + 1);
        self.states.extend(maybe.into_iter().map(|s| State { level: Level::Staged, ..s }));
        let end = (must..=self.states.len()).rev().find(|end| expected_state(&self.states[..*end]) == found);
        let Some(end) = end else {
            panic!("LOG-6: found {found:?}, had {:?}", self.states);
        };
        self.states.truncate(end);
        self.states.iter_mut().for_each(|s| s.level = Level::Synced);
    }
}

/// What an open must give after these records.
fn expected_state(states: &[State]) -> Vec<Bytes> {
    let (mut complete, mut since): (Vec<Bytes>, Vec<Bytes>) = (Vec::new(), Vec::new());
    let mut open: Option<(Vec<Bytes>, Vec<Bytes>)> = None;
    for s in states {
        match s.part {
            SnapshotPart::None => {
                since.push(s.bytes.clone());
                if let Some((_, after)) = &mut open {
                    after.push(s.bytes.clone());
                }
            }
            SnapshotPart::First => open = Some((vec![s.bytes.clone()], vec![])),
            SnapshotPart::Middle => {
                if let Some((parts, _)) = &mut open {
                    parts.push(s.bytes.clone());
                }
            }
            SnapshotPart::Last => {
                if let Some((mut parts, after)) = open.take() {
                    parts.push(s.bytes.clone());
                    (complete, since) = (parts, after);
                }
            }
            SnapshotPart::Whole => {
                open = None;
                (complete, since) = (vec![s.bytes.clone()], vec![]);
            }
        }
    }
    complete.extend(since);
    complete
}

/// Runs seeds; the first line of a failure says which.
fn seeds(from: u64, count: u64, faulty: bool) {
    for seed in from..from + count {
        let run = std::panic::AssertUnwindSafe(|| run(seed, 120, faulty));
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("seed {seed}, faulty {faulty}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// Runs one seed: `ACB_LOG_SEED=7 ACB_LOG_TRACE=1 cargo test -p acb-log --test it model::one_seed -- --nocapture`.
#[test]
fn one_seed() {
    if let Some(seed) = std::env::var("ACB_LOG_SEED").ok().and_then(|n| n.parse().ok()) {
        run(seed, 120, seed >= 1 << 32);
    }
}

fn count() -> u64 {
    std::env::var("ACB_LOG_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1500)
}

#[test]
fn every_promise_holds_through_kills_and_power_cuts() {
    seeds(0, count(), false);
}

#[test]
fn every_promise_holds_through_full_disks_failed_writes_and_failed_syncs() {
    seeds(1 << 32, count(), true);
}

thread_local! {
    static QUIET: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

#[test]
fn each_planted_bug_is_found() {
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !QUIET.get() {
            loud(info);
        }
    }));
    QUIET.set(true);
    let mut missed = Vec::new();
    for bug in planted::Bug::ALL {
        planted::plant(Some(bug));
        let seeds = 0..400;
        match seeds.clone().find(|seed| std::panic::catch_unwind(|| run(*seed, 120, seed % 2 == 1)).is_err()) {
            Some(seed) => eprintln!("{bug:?}: seed {seed}"),
            None => missed.push(bug),
        }
    }
    planted::plant(None);
    QUIET.set(false);
    assert!(missed.is_empty(), "not found: {missed:?}");
}
