//! Full, read-only and failed disks; partitions and owners.

use acb_types::{ErrorCode, position::ClassId};

use super::{
    Context,
    fixture::{Fate::*, *},
};
use crate::message_log::SnapshotPart;

/// LOG-8: the codes that heal.
pub async fn log_8_a_full_or_read_only_disk_refuses_and_heals(mut c: Context) {
    let mut hand = c.open(&topics()).await;
    hand.append(numbered("a", 2), 1);
    hand.sync();
    let mut expected = hand.everything();
    let mut given = hand.log.next_seq();
    for code in [ErrorCode::StorageFull, ErrorCode::StorageReadOnly] {
        if !c.harness.refuse_writes(Some(code)).await {
            println!("skipped: this harness cannot make writes fail with {code}");
            continue;
        }
        for _ in 0..2 {
            // A store may refuse at once or when it writes.
            let staged = hand.log.stage(numbered("lost", 3), at(2));
            let state = hand.log.stage_state("lost".into(), SnapshotPart::None);
            match staged {
                Ok(_) => refused(hand.log.write(), code),
                Err(e) => assert_eq!((e.code, state.map_err(|e| e.code)), (code, Err(code))),
            }
            assert!(!hand.log.has_staged(), "nothing is half stored");
            assert_eq!(hand.everything(), expected, "reads go on");
            given = given.max(hand.log.next_seq());
        }
        assert!(c.harness.refuse_writes(None).await);
        let healed = hand.append(numbered(code.name(), 1), 3)[0];
        assert!(healed >= given, "a dropped seq is not given again: {healed} < {given}");
        hand.sync();
        expected.extend(hand.everything().last().cloned());
        assert_eq!(hand.everything(), expected);
    }
    hand = c.reopen(hand).await;
    assert_eq!(hand.everything(), expected);
    assert_eq!(hand.opened(), [""; 0], "a dropped state record stays dropped");
}

/// LOG-8 with LOG-2 and LOG-7: what was not stored is not known.
pub async fn log_8_what_a_failed_write_dropped_can_be_sent_again(mut c: Context) {
    let mut hand = c.open(&topics()).await;
    let session = |counter, prefix| from(7, 2, counter, numbered(prefix, 2));
    hand.append(session(1, "a"), 1);
    let with_key = || keyed(numbered("k", 1), &[(0, 5, 1)]);
    let newer = || from(8, 3, 1, numbered("n", 1));
    hand.append(from(8, 2, 1, numbered("o", 1)), 1);
    if !c.harness.refuse_writes(Some(ErrorCode::StorageFull)).await {
        println!("skipped: this harness cannot make writes fail");
        return;
    }
    for batch in [session(3, "b"), with_key(), newer()] {
        let _ = hand.log.stage(batch, at(2));
    }
    let _ = hand.log.write();
    c.harness.refuse_writes(None).await;
    for batch in [session(3, "b"), with_key(), newer()] {
        let fates = hand.stage(batch, 3);
        assert!(fates.iter().all(|fate| matches!(fate, Stored(_))), "{fates:?}");
    }
    hand.sync();
    hand = c.turn(hand).await;
    assert_eq!(hand.payloads(), ["a0", "a1", "o0", "b0", "b1", "k0", "n0"]);
    let again = hand.stage(session(1, "a"), 4);
    assert!(matches!(again[..], [Duplicate(Some(_)), Duplicate(Some(_))]), "{again:?}");
}

/// LOG-8: the code that does not heal.
pub async fn log_8_a_failed_disk_is_given_up_until_opened_anew(mut c: Context) {
    let mut hand = c.open(&topics()).await;
    hand.append(numbered("a", 2), 1);
    hand.sync();
    let expected = hand.everything();
    let _ = hand.log.stage(numbered("lost", 1), at(2));
    if !c.harness.refuse_writes(Some(ErrorCode::StorageFailed)).await {
        println!("skipped: this harness cannot fail");
        return;
    }
    let failed = ErrorCode::StorageFailed;
    let outcome = hand.log.write().and_then(|()| match hand.log.sync_begin() {
        Some(mut ticket) => {
            ticket.run();
            hand.log.sync_end(ticket)
        }
        None => Ok(()),
    });
    refused(outcome, failed);
    c.harness.refuse_writes(None).await;
    refused(hand.log.stage(numbered("b", 1), at(3)).map(|_| ()), failed);
    refused(hand.log.stage_state("b".into(), SnapshotPart::None), failed);
    refused(hand.log.write(), failed);
    assert!(hand.log.sync_begin().is_none());
    let end = expected.last().unwrap().seq + 1;
    assert_eq!(read_all(&*hand.log.reader(), 1, end, &[">"]), expected, "reads go on");
    let given = hand.log.next_seq();
    let id = hand.id.clone();
    drop(hand);
    let mut hand = c.open(&id).await;
    assert!(hand.everything().starts_with(&expected));
    assert!(hand.append(numbered("b", 1), 4)[0] >= given);
}

/// LOG-10: partitions of one tenant, and of two with the same names.
pub async fn log_10_partitions_share_nothing(mut c: Context) {
    let ids = [
        partition("a", ClassId::TOPICS),
        partition("a", ClassId::INBOX),
        partition("b", ClassId::TOPICS),
        partition("a-b", ClassId::TOPICS),
    ];
    for id in &ids {
        let mut hand = c.open(id).await;
        let text = id.to_string();
        let seqs = hand.append(from(7, 1, 1, keyed(batch([("t", text.as_bytes())]), &[(0, 5, 1)])), 1);
        assert_eq!(seqs, [1], "{id} counts for itself, and knows no other's producers and keys");
        hand.log.stage_state(text.into(), SnapshotPart::None).unwrap();
        hand.log.close().unwrap();
    }
    let mut sorted = ids.to_vec();
    sorted.sort();
    assert_eq!(c.log().partitions().await.unwrap(), sorted);
    for id in &ids {
        let mut hand = c.open(id).await;
        hand = c.turn(hand).await;
        assert_eq!(hand.payloads(), [id.to_string()]);
        assert_eq!(hand.opened(), [id.to_string()]);
        hand.log.close().unwrap();
    }
}

/// LOG-10: removal.
pub async fn log_10_a_tenant_is_removed_alone(mut c: Context) {
    let (a, b) = (topics(), partition("b", ClassId::TOPICS));
    let mut open = c.open(&a).await;
    open.append(numbered("x", 1), 1);
    let mut other = c.open(&b).await;
    other.append(numbered("y", 1), 1);
    refused(c.log().remove_tenant(&a.tenant).await, ErrorCode::InvalidState);
    assert_eq!(open.payloads(), ["x0"], "refused while it is open");
    open.log.close().unwrap();
    drop(open);
    c.log().remove_tenant(&a.tenant).await.unwrap();
    c.log().remove_tenant(&a.tenant).await.unwrap();
    assert_eq!(c.log().partitions().await.unwrap(), [b]);
    assert_eq!(other.payloads(), ["y0"]);
    other = c.turn(other).await;
    assert_eq!(other.payloads(), ["y0"]);
    // Made anew, it is empty.
    let hand = c.open(&a).await;
    assert_eq!((hand.payloads().len(), hand.log.first_seq()), (0, hand.log.next_seq()));
}

/// One owner at a time.
pub async fn log_10_a_partition_has_one_owner(mut c: Context) {
    let mut hand = c.open(&topics()).await;
    refused(c.log().open(&topics()).await, ErrorCode::InvalidState);
    hand.append(numbered("x", 1), 1);
    hand = c.reopen(hand).await;
    assert_eq!(hand.payloads(), ["x0"]);
    hand.log.close().unwrap();
    hand.log.close().unwrap();
    refused(hand.log.stage(numbered("y", 1), at(2)).map(|_| ()), ErrorCode::InvalidState);
    drop(hand);
    let mut hand = c.open(&topics()).await;
    assert_eq!(hand.payloads(), ["x0"]);
    hand.append(numbered("z", 1), 3);
    // An owner that is dropped without a close leaves the partition free.
    drop(hand);
    assert_eq!(c.open(&topics()).await.payloads(), ["x0", "z0"]);
}
