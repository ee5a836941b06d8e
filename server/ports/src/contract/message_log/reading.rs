//! Reading: order, pages, filters, gaps.

use std::sync::Arc;

use acb_types::{
    Incarnation,
    batch::{Batch, Gap, Sender},
    position::ClassId,
};

use super::{Context, fixture::*};

/// LOG-4: bytes in are bytes out, with their facts.
pub async fn log_4_messages_come_back_as_they_were_staged(mut c: Context) {
    let mut hand = c.open(&topics()).await;
    let one =
        batch([("plans.a", &b"\x00\xff"[..]), ("plans.a", &b""[..]), ("wörk.b.c", &b"x"[..]), ("plans.a", &b"y"[..])]);
    let big = vec![7; 1_000_000];
    let two = batch([("big", &big[..])]);
    let other = Arc::new(Sender { agent: "w.1-x".parse().unwrap(), incarnation: Incarnation(0) });
    let bodies = [one.body.clone(), two.body.clone()].concat();
    hand.append(one, 1);
    hand.append(Batch { sender: other, ..two }, 2);
    hand = c.turn(hand).await;
    let read = hand.everything();
    let told: Vec<_> = read.iter().map(|m| (m.topic.as_str(), m.payload.len(), m.stored_at)).collect();
    assert_eq!(
        told,
        [
            ("plans.a", 2, at(1)),
            ("plans.a", 0, at(1)),
            ("wörk.b.c", 1, at(1)),
            ("plans.a", 1, at(1)),
            ("big", 1_000_000, at(2))
        ]
    );
    assert_eq!(read[0].sender, Sender { agent: "planner".parse().unwrap(), incarnation: Incarnation(3) });
    assert_eq!(read[4].sender.agent.as_str(), "w.1-x");
    // The bytes themselves, tags included.
    let mut bytes = Vec::new();
    let (reader, mut next) = (hand.log.reader(), 1);
    while next < hand.log.written_end() {
        let block = reader.read(&request(next, hand.log.written_end(), &[">"])).unwrap();
        block.runs.iter().for_each(|run| bytes.extend_from_slice(&run.body));
        next = block.next_seq;
    }
    assert!(bytes == bodies, "{} bytes instead of {}", bytes.len(), bodies.len());
}

/// LOG-4: whatever the limits, nothing is lost or doubled between two blocks.
pub async fn log_4_pages_of_any_size_give_every_message_once(mut c: Context) {
    let mut hand = c.open(&topics()).await;
    for n in 0..10 {
        hand.append(numbered(&format!("x{n}-"), 7), n);
    }
    let large = vec![1; 5000];
    hand.append(batch([("plans.b", &large[..]), ("plans.a", &b"last"[..])]), 11);
    hand = c.turn(hand).await;
    let all = hand.everything();
    assert_eq!(all.len(), 72);
    let (reader, end) = (hand.log.reader(), hand.log.written_end());
    for (messages_max, bytes_max) in [(1, 1), (3, 1 << 20), (512, 60), (7, 100), (512, 4999), (512, 1 << 20)] {
        let (mut read, mut next) = (Vec::new(), 1);
        while next < end {
            let request = acb_types::batch::ReadRequest { messages_max, bytes_max, ..request(next, end, &[">"]) };
            let block = reader.read(&request).unwrap();
            let messages = spread(&block);
            assert!(messages.len() as u32 <= messages_max, "{} > {messages_max}", messages.len());
            let bytes: usize = block.runs.iter().map(|run| run.body.len()).sum();
            assert!(bytes as u64 <= bytes_max || messages.len() == 1, "{bytes} bytes > {bytes_max}");
            assert!(block.next_seq > next);
            read.extend(messages);
            next = block.next_seq;
        }
        assert_eq!(read, all, "by {messages_max} messages and {bytes_max} bytes");
    }
}

/// LOG-4: what is not wanted is passed over, also the bus's own tree.
pub async fn log_4_filters_choose_topics(mut c: Context) {
    let mut hand = c.open(&topics()).await;
    let names = ["plans.a", "plans.b", "plans.b.c", "work", "$acb.all", "plans.a"];
    for (n, name) in names.into_iter().enumerate() {
        hand.append(batch([(name, name.as_bytes())]), n as u64);
    }
    hand.append(batch(names.map(|name| (name, &b"again"[..]))), 9);
    hand = c.turn(hand).await;
    let (reader, end) = (hand.log.reader(), hand.log.written_end());
    let chosen = |filters: &[&str]| {
        let read = read_all(&*reader, 1, end, filters);
        read.into_iter().map(|m| m.topic).collect::<Vec<_>>()
    };
    assert_eq!(chosen(&["plans.*"]), ["plans.a", "plans.b", "plans.a", "plans.a", "plans.b", "plans.a"]);
    assert_eq!(chosen(&["plans.>"]).len(), 8);
    assert_eq!(chosen(&["work"]), ["work", "work"]);
    assert_eq!(chosen(&["work", "*"]), ["work", "work"], "two filters give a message once");
    assert_eq!(chosen(&[">"]).len(), 10, "wildcards do not hear the bus's own tree");
    assert_eq!(chosen(&["$acb.all"]).len(), 2);
    assert_eq!(chosen(&["nope", "plans"]), [""; 0]);
    // Reading what nobody sent ends at once.
    let block = reader.read(&request(1, end, &["nope"])).unwrap();
    assert!(block.runs.is_empty());
}

/// LOG-4: the visible end is the caller's.
pub async fn log_4_nothing_at_or_after_the_end_is_given(mut c: Context) {
    let mut hand = c.open(&topics()).await;
    let seqs = hand.append(numbered("x", 6), 1);
    hand = c.turn(hand).await;
    let reader = hand.log.reader();
    for (i, end) in seqs.iter().enumerate() {
        let block = reader.read(&request(1, *end, &[">"])).unwrap();
        assert_eq!(spread(&block).len(), i, "end {end}");
        assert!(block.next_seq <= (*end).max(1));
    }
    let past = reader.read(&request(100, 50, &[">"])).unwrap();
    assert!(past.runs.is_empty(), "{past:?}");
    assert_eq!(reader.first_seq(), 1);
}

/// LOG-4, by time of storing.
pub async fn log_4_seq_at_finds_the_first_message_of_a_time(mut c: Context) {
    let mut hand = c.open(&topics()).await;
    let mut firsts = Vec::new();
    for n in [10, 20, 20, 30] {
        firsts.push(hand.append(numbered("x", 3), n)[0]);
    }
    hand.sync();
    hand = c.turn(hand).await;
    let reader = hand.log.reader();
    let seq_at = |n| reader.seq_at(at(n)).unwrap();
    assert_eq!((seq_at(0), seq_at(10)), (firsts[0], firsts[0]));
    assert_eq!((seq_at(11), seq_at(20)), (firsts[1], firsts[1]));
    assert_eq!((seq_at(21), seq_at(30)), (firsts[3], firsts[3]));
    let end = seq_at(31);
    assert!(end > firsts[3] + 2 && end <= hand.log.next_seq(), "{end}");
}

/// Fills an inbox until several segments are behind it. Answers the seqs.
fn fill(hand: &mut super::Hand) -> Vec<u64> {
    let payload = vec![9; 60_000];
    let mut seqs = Vec::new();
    for n in 0..150 {
        let messages = [("$acb.inbox.w", &payload[..]), ("$acb.inbox.w", &payload[..])];
        seqs.extend(hand.append(batch(messages), n));
    }
    hand.sync();
    seqs
}

/// LOG-5: from inside what is gone, and from where it begins.
pub async fn log_5_what_was_trimmed_is_a_gap(mut c: Context) {
    let mut hand = c.open(&partition("a", ClassId::INBOX)).await;
    let seqs = fill(&mut hand);
    let bytes = hand.log.bytes();
    let first = hand.log.retain(hand.log.synced_end(), at(200)).unwrap();
    assert!(first > 1, "18 MB of consumed messages must be worth some trimming");
    assert!(hand.log.bytes() < bytes);
    hand = c.turn(hand).await;
    assert_eq!(hand.log.first_seq(), first);
    let (reader, end) = (hand.log.reader(), hand.log.written_end());
    assert_eq!(reader.first_seq(), first);
    for from in [1, first / 2, first - 1] {
        let block = reader.read(&request(from, end, &["$acb.>"])).unwrap();
        assert_eq!(block.gap, Some(Gap { from_seq: from, to_seq: first }), "read from {from}");
        assert!(block.next_seq > from);
        assert!(spread(&block).iter().all(|m| m.seq >= first));
        assert!(block.next_seq >= first.min(end));
    }
    let left: Vec<_> = hand.everything().iter().map(|m| m.seq).collect();
    assert_eq!(left, seqs.into_iter().filter(|seq| *seq >= first).collect::<Vec<_>>());
    // Seqs go on as if nothing had been.
    let next = hand.append(numbered("after", 1), 300)[0];
    assert!(next >= end);
}

/// LOG-9.
pub async fn log_9_retention_stays_below_the_floor(mut c: Context) {
    let mut hand = c.open(&partition("a", ClassId::INBOX)).await;
    let seqs = fill(&mut hand);
    let mut last = 1;
    for floor in [1, 2, seqs[100], seqs[50], seqs[250]] {
        let first = hand.log.retain(floor, at(200)).unwrap();
        assert!(first <= floor.max(last), "first seq {first} at floor {floor}");
        assert!(first >= last, "it never goes back");
        assert_eq!(hand.log.retain(floor, at(200)).unwrap(), first, "twice is once");
        last = first;
        hand = c.turn(hand).await;
        assert_eq!(hand.log.first_seq(), first);
        let left = hand.everything();
        assert_eq!(left.len(), seqs.iter().filter(|seq| **seq >= first).count(), "nothing above it went");
    }
    assert!(last > 1, "15 MB of consumed messages must be worth some trimming");
}
