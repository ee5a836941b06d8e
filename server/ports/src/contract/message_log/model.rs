//! Random use of the log under test and of the memory adapter: both must read alike. Seqs may differ, since a store may
//! leave gaps, so messages are compared by their payloads, which no two share.

use std::collections::BTreeMap;

use acb_types::{batch::Batch, position::Seq};
use bytes::Bytes;

use super::{
    Context, Crash, Hand,
    fixture::{Fate, *},
};
use crate::{
    ids::{IdSource, SeededIds},
    memory::MemoryLog,
    message_log::{MessageLog, Opened, SnapshotPart},
};

const STEPS: u64 = 300;
const TOPICS: [&str; 4] = ["plans.a", "plans.b", "work", "wörk.x.y"];

/// What one side knows of its own seqs.
#[derive(Default)]
struct Names(BTreeMap<Seq, String>);

impl Names {
    /// Fates with payloads instead of seqs.
    fn told(&mut self, fates: Vec<Fate>, payloads: &[String]) -> Vec<String> {
        let told = fates.into_iter().zip(payloads).map(|(fate, payload)| match fate {
            Fate::Stored(seq) => {
                assert!(self.0.keys().next_back().is_none_or(|last| *last < seq), "LOG-1: seq {seq} is not new");
                self.0.insert(seq, payload.clone());
                "stored".to_owned()
            }
            Fate::Duplicate(seq) => format!("duplicate of {:?}", seq.and_then(|seq| self.0.get(&seq))),
            Fate::Refused(code) => code.to_string(),
        });
        told.collect()
    }
}

/// Few sides, so that calls meet each other's messages.
fn below(dice: &SeededIds, n: u64) -> u64 {
    dice.random_u64() % n
}

/// A batch of some messages with payloads of its own.
fn random_batch(dice: &SeededIds, step: u64, counters: &mut BTreeMap<(u64, u32), u64>) -> (Batch, Vec<String>) {
    let count = 1 + below(dice, 6);
    let payloads: Vec<_> = (0..count).map(|i| format!("{step}.{i}")).collect();
    let chosen: Vec<_> = payloads.iter().map(|p| (TOPICS[below(dice, 4) as usize], p.as_bytes())).collect();
    let mut out = batch(chosen);
    if below(dice, 3) > 0 {
        let (producer, epoch) = (1 + below(dice, 2), 1 + (step / 100) as u32);
        let next = counters.entry((producer, epoch)).or_insert(1);
        // A resend starts somewhere before the next number.
        let counter = if below(dice, 3) == 0 { 1 + below(dice, *next) } else { *next };
        *next = (*next).max(counter + count);
        let epoch = if below(dice, 10) == 0 { epoch.saturating_sub(1).max(1) } else { epoch };
        out = from(producer, epoch, counter, out);
    }
    if below(dice, 3) == 0 {
        let keys: Vec<_> = (0..count as u32)
            .filter(|_| below(dice, 2) == 0)
            .map(|i| (i, u128::from(below(dice, 40)), below(dice, 5) / 4))
            .collect();
        out = keyed(out, &keys);
    }
    (out, payloads)
}

/// Payloads, topics and times of a read through some filters, by blocks of some size.
fn told_read(hand: &Hand, filters: &[&str], messages_max: u32) -> Vec<(String, String, u64)> {
    let reader = hand.log.reader();
    let (mut out, mut next) = (Vec::new(), 1);
    while next < hand.log.written_end() {
        let request = acb_types::batch::ReadRequest { messages_max, ..request(next, hand.log.written_end(), filters) };
        let block = reader.read(&request).unwrap();
        for m in spread(&block) {
            out.push((String::from_utf8(m.payload.to_vec()).unwrap(), m.topic, m.stored_at.0));
        }
        next = block.next_seq;
    }
    out
}

/// LOG-1, 2, 3, 4, 6 and 7 at once, by comparison. A failing seed and step print themselves.
pub async fn log_4_random_use_reads_as_the_model_does(mut c: Context) {
    for seed in 0..6 {
        let id = partition(&format!("t{seed}"), acb_types::ClassId::TOPICS);
        let model = MemoryLog::new();
        let Opened { log, state } = model.open(&id).await.unwrap();
        let mut theirs = Hand { id: id.clone(), log, state };
        let mut ours = c.open(&id).await;
        let (mut our_names, mut their_names) = (Names::default(), Names::default());
        let dice = SeededIds::new(seed);
        let mut counters = BTreeMap::new();
        for step in 1..STEPS {
            let place = format!("seed {seed}, step {step}");
            match below(&dice, 16) {
                0..8 => {
                    let (batch, payloads) = random_batch(&dice, step, &mut counters);
                    let told = our_names.told(ours.stage(batch.clone(), step), &payloads);
                    assert_eq!(told, their_names.told(theirs.stage(batch, step), &payloads), "{place}");
                }
                8..10 => {
                    let part = match below(&dice, 12) {
                        0 => SnapshotPart::Whole,
                        1 => SnapshotPart::First,
                        2 => SnapshotPart::Last,
                        _ => SnapshotPart::None,
                    };
                    for hand in [&mut ours, &mut theirs] {
                        hand.log.stage_state(Bytes::from(format!("s{step}")), part).unwrap();
                    }
                }
                10 => {
                    ours.log.write().unwrap();
                    theirs.log.write().unwrap();
                }
                11 => {
                    ours.sync();
                    theirs.sync();
                }
                12..14 => {
                    ours.log.write().unwrap();
                    theirs.log.write().unwrap();
                    let filters: &[&str] =
                        [&[">"][..], &["plans.*"], &["work", "plans.b"], &["*.x.>"]][below(&dice, 4) as usize];
                    let max = [1, 3, 512][below(&dice, 3) as usize];
                    assert_eq!(told_read(&ours, filters, max), told_read(&theirs, filters, 512), "{place}");
                }
                14 => {
                    ours = c.reopen(ours).await;
                    theirs.log.close().unwrap();
                    theirs = reopened(&model, theirs).await;
                    assert_eq!(ours.opened(), theirs.opened(), "{place}");
                }
                _ => {
                    let Some(next) =
                        (if c.harness.can_crash(Crash::Kill) { c.crash(ours, Crash::Kill).await } else { return })
                    else {
                        return;
                    };
                    ours = next;
                    model.kill();
                    theirs = reopened(&model, theirs).await;
                    assert_eq!(ours.opened(), theirs.opened(), "{place}");
                    assert_eq!(told_read(&ours, &[">"], 512), told_read(&theirs, &[">"], 512), "{place}");
                }
            }
        }
        ours.log.close().unwrap();
    }
}

async fn reopened(model: &MemoryLog, before: Hand) -> Hand {
    let id = before.id.clone();
    drop(before);
    let Opened { log, state } = model.open(&id).await.unwrap();
    Hand { id, log, state }
}
