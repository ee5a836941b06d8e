//! Doubles: producer sessions and keys.

use acb_types::{
    ErrorCode,
    batch::{Batch, Outcome},
    limits,
};

use super::{
    Context, Hand,
    fixture::{Fate::*, *},
};

/// LOG-2, staged, written, and after a turn.
pub async fn log_2_a_repeated_batch_is_answered_with_its_first_seqs(mut c: Context) {
    let mut hand = c.open(&topics()).await;
    let one = || from(7, 1, 1, numbered("x", 3));
    let first = hand.stage(one(), 1);
    let Stored(seq) = first[0] else { panic!("{first:?}") };
    let again = [Duplicate(Some(seq)), Duplicate(Some(seq + 1)), Duplicate(Some(seq + 2))];
    assert_eq!(hand.stage(one(), 2), again, "while the first is only staged");
    hand.log.write().unwrap();
    assert_eq!(hand.stage(one(), 3), again);
    hand.append(from(7, 1, 4, numbered("y", 1)), 4);
    hand = c.turn(hand).await;
    assert_eq!(hand.stage(one(), 5), again);
    // Another cut of the same numbers is the same.
    assert_eq!(hand.stage(from(7, 1, 2, numbered("x", 1)), 6), again[1..2]);
    hand.sync();
    assert_eq!(hand.payloads(), ["x0", "x1", "x2", "y0"]);
}

/// LOG-2: a resend that is cut differently.
pub async fn log_2_the_new_part_of_a_repeated_batch_is_stored(mut c: Context) {
    let mut hand = c.open(&topics()).await;
    let seqs = hand.append(from(7, 1, 1, numbered("x", 3)), 1);
    hand = c.turn(hand).await;
    let fates = hand.stage(from(7, 1, 2, numbered("y", 4)), 2);
    assert_eq!(fates[..2], [Duplicate(Some(seqs[1])), Duplicate(Some(seqs[2]))]);
    assert!(matches!(fates[2..], [Stored(a), Stored(b)] if a > seqs[2] && b == a + 1), "{fates:?}");
    hand.sync();
    hand = c.turn(hand).await;
    assert_eq!(hand.payloads(), ["x0", "x1", "x2", "y2", "y3"]);
    // And both are known now.
    let again = hand.stage(from(7, 1, 1, numbered("z", 5)), 3);
    assert!(again.iter().all(|fate| matches!(fate, Duplicate(Some(_)))), "{again:?}");
}

/// LOG-2 and LOG-7, for those who must know of a repeat before they decide whether a message is to be taken in at all.
pub async fn log_2_a_repeat_is_known_without_being_taken_in(mut c: Context) {
    let mut hand = c.open(&topics()).await;
    let first = from(7, 1, 1, keyed(numbered("x", 1), &[(0, 5, 50)]));
    assert!(hand.log.repeat(&first, at(1)).is_none(), "nothing is known yet");
    assert!(hand.log.repeat(&first, at(1)).is_none(), "and asking made nothing known");
    let seq = hand.append(first.clone(), 1)[0];
    hand = c.turn(hand).await;
    let known = |hand: &mut Hand, one: &Batch| match hand.log.repeat(one, at(2)) {
        Some(Outcome::Duplicate { first_seq }) => Some(Duplicate(first_seq)),
        Some(Outcome::Refused(code)) => Some(Refused(code)),
        Some(other) => panic!("{other:?}"),
        None => None,
    };
    assert_eq!(known(&mut hand, &first), Some(Duplicate(Some(seq))), "by its number");
    let by_key = from(8, 1, 1, keyed(numbered("x", 1), &[(0, 5, 50)]));
    assert_eq!(known(&mut hand, &by_key), Some(Duplicate(Some(seq))), "by its key");
    let other = from(8, 1, 1, keyed(numbered("y", 1), &[(0, 5, 51)]));
    assert_eq!(known(&mut hand, &other), Some(Refused(ErrorCode::IdempotencyConflict)));
    assert_eq!(known(&mut hand, &from(7, 1, 2, numbered("y", 1))), None);
    hand.sync();
    assert_eq!(hand.payloads(), ["x0"]);
}

/// LOG-2: a producer that began anew owns the session.
pub async fn log_2_an_older_epoch_is_fenced_and_a_newer_one_counts_anew(mut c: Context) {
    let mut hand = c.open(&topics()).await;
    hand.append(from(7, 1, 1, numbered("x", 2)), 1);
    hand = c.turn(hand).await;
    hand.append(from(7, 2, 1, numbered("y", 2)), 2);
    hand = c.turn(hand).await;
    assert_eq!(hand.stage(from(7, 1, 3, numbered("z", 2)), 3), [Refused(ErrorCode::ProducerFenced); 2]);
    assert_eq!(hand.stage(from(7, 1, 1, numbered("x", 1)), 3), [Refused(ErrorCode::ProducerFenced)]);
    let again = hand.stage(from(7, 2, 1, numbered("y", 1)), 3);
    assert!(matches!(again[..], [Duplicate(Some(_))]), "{again:?}");
    hand.sync();
    assert_eq!(hand.payloads(), ["x0", "x1", "y0", "y1"]);
}

/// LOG-2: the bound, from the side that is promised.
pub async fn log_2_the_last_ranges_of_a_producer_are_remembered(mut c: Context) {
    let mut hand = c.open(&topics()).await;
    let ranges = limits::PRODUCER_RANGES_MAX as u64;
    let mut seqs = Vec::new();
    for n in 0..ranges + 10 {
        // A stranger's message between two of them keeps them from growing together.
        seqs.push(hand.append(from(7, 1, n + 1, numbered("x", 1)), 1)[0]);
        hand.append(numbered("other", 1), 1);
    }
    hand = c.turn(hand).await;
    for (n, seq) in seqs.iter().enumerate() {
        let fate = hand.stage(from(7, 1, n as u64 + 1, numbered("x", 1)), 2)[0];
        let promised = n as u64 >= 10;
        let known = fate == Duplicate(Some(*seq));
        assert!(known || !promised && fate == Duplicate(None), "message {n}: {fate:?}");
    }
}

/// LOG-2: sessions are named by their key alone, and no producer counts nothing.
pub async fn log_2_sessions_do_not_touch_each_other(mut c: Context) {
    let mut hand = c.open(&topics()).await;
    hand.append(from(7, 5, 1, numbered("a", 1)), 1);
    hand.append(from(8, 1, 1, numbered("b", 1)), 1);
    hand = c.turn(hand).await;
    hand.append(from(9, 1, 1, numbered("c", 1)), 1);
    hand.append(numbered("d", 1), 1);
    hand.append(numbered("d", 1), 1);
    assert_eq!(hand.payloads(), ["a0", "b0", "c0", "d0", "d0"]);
}

/// LOG-7, across turns.
pub async fn log_7_a_key_is_stored_once_and_another_body_is_refused(mut c: Context) {
    let mut hand = c.open(&topics()).await;
    let seqs = hand.append(keyed(numbered("x", 3), &[(0, 100, 1), (2, 102, 3)]), 1);
    hand = c.turn(hand).await;
    // The same key again, at another place of another batch, beside a new one and one without.
    let fates = hand.stage(keyed(numbered("y", 4), &[(1, 102, 3), (2, 103, 9), (3, 100, 2)]), 2);
    assert!(matches!(fates[0], Stored(_)), "{fates:?}");
    assert_eq!(fates[1], Duplicate(Some(seqs[2])));
    assert!(matches!(fates[2], Stored(_)), "{fates:?}");
    assert_eq!(fates[3], Refused(ErrorCode::IdempotencyConflict));
    hand.sync();
    hand = c.turn(hand).await;
    assert_eq!(hand.payloads(), ["x0", "x1", "x2", "y0", "y2"]);
    let Stored(seq) = fates[2] else { return };
    assert_eq!(hand.stage(keyed(numbered("z", 1), &[(0, 103, 9)]), 3), [Duplicate(Some(seq))]);
}

/// LOG-7: inside one batch.
pub async fn log_7_a_key_twice_in_one_batch_is_stored_once(mut c: Context) {
    let mut hand = c.open(&topics()).await;
    let fates = hand.stage(keyed(numbered("x", 4), &[(0, 5, 1), (1, 5, 1), (2, 5, 2), (3, 6, 1)]), 1);
    let Stored(seq) = fates[0] else { panic!("{fates:?}") };
    assert_eq!(fates[1..3], [Duplicate(Some(seq)), Refused(ErrorCode::IdempotencyConflict)]);
    assert!(matches!(fates[3], Stored(_)), "{fates:?}");
    hand.sync();
    hand = c.turn(hand).await;
    assert_eq!(hand.payloads(), ["x0", "x3"]);
}

/// LOG-7: inside the window always, a good while after it never.
pub async fn log_7_a_key_is_forgotten_after_its_window(mut c: Context) {
    let mut hand = c.open(&topics()).await;
    let window = limits::IDEMPOTENCY_WINDOW.as_millis() as u64;
    hand.append(keyed(numbered("x", 1), &[(0, 5, 1)]), 0);
    hand = c.turn(hand).await;
    let fate = hand.stage(keyed(numbered("y", 1), &[(0, 5, 1)]), window - 1);
    assert!(matches!(fate[..], [Duplicate(Some(_))]), "{fate:?}");
    // Stores may forget in steps.
    let fate = hand.stage(keyed(numbered("z", 1), &[(0, 5, 2)]), window + 5000);
    assert!(matches!(fate[..], [Stored(_)]), "{fate:?}");
    hand.sync();
    assert_eq!(hand.payloads(), ["x0", "z0"]);
}
