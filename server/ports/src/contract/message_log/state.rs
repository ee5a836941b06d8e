//! State records of the delivery engine.

use bytes::Bytes;

use acb_types::ErrorCode;

use super::{Context, Crash, fixture::*};
use crate::message_log::SnapshotPart::{First, Last, Middle, None as Plain, Whole};

/// LOG-6: in order, whatever stands between them.
pub async fn log_6_state_records_come_back_in_order(mut c: Context) {
    let mut hand = c.open(&topics()).await;
    assert_eq!(hand.opened(), [""; 0]);
    hand.state("one", Plain);
    hand.append(numbered("x", 2), 1);
    hand.state("two", Plain);
    hand.state("", Plain);
    hand.state("three", Plain);
    assert!(hand.log.has_staged());
    hand.sync();
    for _ in 0..3 {
        hand = c.reopen(hand).await;
        assert_eq!(hand.opened(), ["one", "two", "", "three"]);
    }
    hand.state("four", Plain);
    hand = c.reopen(hand).await;
    assert_eq!(hand.opened(), ["one", "two", "", "three", "four"], "a close writes what is staged");
    assert_eq!(hand.payloads(), ["x0", "x1"], "state has no seq and is no message");
    let large = Bytes::from(vec![1; (1 << 20) + 1]);
    refused(hand.log.stage_state(large.clone(), Plain), ErrorCode::InvalidArgument);
    hand.log.stage_state(large.slice(1..), Plain).unwrap();
    hand = c.reopen(hand).await;
    assert_eq!(hand.state.last(), Some(&large.slice(1..)));
}

/// LOG-6: the snapshot first, then what came since it began.
pub async fn log_6_a_complete_snapshot_replaces_what_came_before(mut c: Context) {
    let mut hand = c.open(&topics()).await;
    hand.state("old", Plain);
    hand.append(numbered("x", 1), 1);
    hand.state("S1", First);
    hand.state("S2", Middle);
    hand = {
        hand.log.write().unwrap();
        hand
    };
    hand.state("S3", Last);
    hand.state("new", Plain);
    hand = c.reopen(hand).await;
    assert_eq!(hand.opened(), ["S1", "S2", "S3", "new"]);
    hand.state("T", Whole);
    hand = c.reopen(hand).await;
    assert_eq!(hand.opened(), ["T"]);
}

/// LOG-6: half a snapshot is none.
pub async fn log_6_an_incomplete_snapshot_is_as_if_not_there(mut c: Context) {
    let mut hand = c.open(&topics()).await;
    hand.state("S", Whole);
    hand.state("a", Plain);
    hand.state("T1", First);
    hand.state("T2", Middle);
    hand.state("b", Plain);
    hand = c.reopen(hand).await;
    assert_eq!(hand.opened(), ["S", "a", "b"]);
    // Its end, without its beginning in this opening, completes nothing.
    hand.state("T3", Last);
    hand.state("c", Plain);
    hand = c.reopen(hand).await;
    assert_eq!(hand.opened(), ["S", "a", "b", "c"]);
}

/// LOG-6: durable with the first sync after it.
pub async fn log_6_synced_state_survives_a_power_cut(mut c: Context) {
    let mut hand = c.open(&topics()).await;
    hand.state("synced", Plain);
    hand.append(numbered("x", 1), 1);
    hand.sync();
    hand.state("written", Plain);
    hand.log.write().unwrap();
    hand.state("staged", Plain);
    let Some(hand) = c.crash(hand, Crash::Kill).await else { return };
    assert_eq!(hand.opened(), ["synced", "written"]);
    let Some(mut hand) = c.crash(hand, Crash::PowerCut).await else { return };
    assert_eq!(hand.opened(), ["synced", "written"], "what an opening gave is on disk");
    hand.state("lost", Plain);
    hand.log.write().unwrap();
    let Some(hand) = c.crash(hand, Crash::PowerCut).await else { return };
    let opened = hand.opened();
    assert!(opened.starts_with(&["synced".into(), "written".into()]), "{opened:?}");
}
