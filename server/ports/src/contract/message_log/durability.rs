//! Seqs, and what survives.

use super::{Context, Crash, fixture::*};

/// LOG-1, with every turn in between.
pub async fn log_1_seqs_rise_from_1_without_doubles(mut c: Context) {
    let mut hand = c.open(&topics()).await;
    assert_eq!((hand.log.next_seq(), hand.log.first_seq()), (1, 1));
    assert_eq!((hand.log.written_end(), hand.log.synced_end()), (1, 1));
    let mut all = Vec::new();
    for n in 0..5 {
        all.extend(hand.append(numbered("x", 3), n));
        let epoch = hand.log.epoch();
        hand = c.turn(hand).await;
        assert_eq!(hand.log.epoch(), epoch, "a clean close begins no epoch");
        assert!(hand.log.next_seq() > *all.last().unwrap());
        assert_eq!(hand.log.first_seq(), 1);
    }
    assert_eq!(all[0], 1);
    assert!(all.is_sorted_by(|a, b| a < b), "{all:?}");
    let read: Vec<_> = hand.everything().iter().map(|m| m.seq).collect();
    assert_eq!(read, all);
}

async fn never_given_again(mut c: Context, crash: Crash) {
    let mut hand = c.open(&topics()).await;
    let mut given = hand.append(numbered("synced", 3), 1);
    hand.sync();
    for round in 0..3 {
        // Written, and only staged: both were shown to somebody.
        given.extend(hand.append(numbered("written", 3), 2));
        given.extend(stored(&hand.log.stage(numbered("staged", 3), at(3)).unwrap()));
        let epoch = hand.log.epoch();
        let Some(next) = c.crash(hand, crash).await else { return };
        hand = next;
        assert!(hand.log.epoch() > epoch, "round {round}: an unclean stop begins an epoch");
        let first = hand.append(numbered("after", 1), 4)[0];
        assert!(given.iter().all(|seq| *seq < first), "round {round}: {first} after {given:?}");
        given.push(first);
    }
}

/// LOG-1.
pub async fn log_1_a_seq_that_was_given_is_never_given_again_after_a_kill(c: Context) {
    never_given_again(c, Crash::Kill).await;
}

/// LOG-1.
pub async fn log_1_a_seq_that_was_given_is_never_given_again_after_a_power_cut(c: Context) {
    never_given_again(c, Crash::PowerCut).await;
}

/// LOG-3: below `written_end`.
pub async fn log_3_what_is_written_survives_a_kill(mut c: Context) {
    let mut hand = c.open(&topics()).await;
    hand.append(numbered("a", 2), 1);
    hand.append(numbered("b", 2), 2);
    let before = hand.everything();
    hand.stage(numbered("staged", 1), 3);
    assert!(hand.log.has_staged());
    let Some(mut hand) = c.crash(hand, Crash::Kill).await else { return };
    assert_eq!(hand.everything(), before);
    assert!(!hand.log.has_staged());
    // Once more: what an opening gave is not lost by the next kill.
    hand.append(numbered("c", 1), 4);
    let Some(hand) = c.crash(hand, Crash::Kill).await else { return };
    assert_eq!(hand.payloads(), ["a0", "a1", "b0", "b1", "c0"]);
}

/// LOG-3: below `synced_end`. What is above may be lost, whole batches from the end.
pub async fn log_3_what_is_synced_survives_a_power_cut(mut c: Context) {
    let mut hand = c.open(&topics()).await;
    let (mut written, mut synced) = (1, 1);
    for n in 0..4 {
        hand.append(numbered("x", 2), n);
        if n < 3 {
            hand.sync();
        }
        assert!(hand.log.written_end() > written && hand.log.synced_end() >= synced, "both only rise");
        (written, synced) = (hand.log.written_end(), hand.log.synced_end());
        assert!(synced <= written);
    }
    let (before, synced) = (hand.everything(), hand.log.synced_end());
    let Some(hand) = c.crash(hand, Crash::PowerCut).await else { return };
    let after = hand.everything();
    assert!(before.starts_with(&after), "what is left is what was there: {after:?}");
    let expected = before.iter().filter(|m| m.seq < synced).count();
    assert!(after.len() >= expected, "{} of {expected} synced messages are left", after.len());
}

/// LOG-3: a ticket says nothing of what is written while it runs.
pub async fn log_3_a_ticket_covers_what_was_written_before_it(mut c: Context) {
    let mut hand = c.open(&topics()).await;
    assert!(hand.log.sync_begin().is_none(), "nothing to sync");
    hand.append(numbered("a", 2), 1);
    let end = hand.log.written_end();
    let mut ticket = hand.log.sync_begin().unwrap();
    assert_eq!(hand.log.synced_end(), 1, "not before the ticket comes back");
    // It runs elsewhere while writing goes on.
    let ticket = std::thread::spawn(move || {
        ticket.run();
        ticket
    });
    hand.append(numbered("b", 2), 2);
    hand.log.sync_end(ticket.join().unwrap()).unwrap();
    assert_eq!(hand.log.synced_end(), end);
    assert!(hand.log.written_end() > end);
    hand.sync();
    assert!(hand.log.sync_begin().is_none(), "all is synced");
    assert!(hand.log.bytes() > 0);
    let hand = c.turn(hand).await;
    assert_eq!(hand.payloads(), ["a0", "a1", "b0", "b1"]);
}
