//! Disks that are full, fail, or stop in the middle.

use acb_types::ErrorCode;

use super::{Context, block, content, refused, stream, tenant};
use crate::contract::message_log::Crash;

const SIZE: usize = 30_000;
/// Points at which a commit is stopped.
const STOPS: u64 = 90;

/// BLOB-12.
pub async fn blob_12_a_full_disk_refuses_changes_nothing_and_heals(mut c: Context) {
    let t = tenant("a");
    let (kept, before) = content(1, SIZE);
    drop(c.store().put(&t, &kept, before.clone()).await.unwrap());
    let (digest, bytes) = content(2, SIZE);
    let stage = c.store().stage_create(&t, &stream(1), None).await.unwrap();
    for code in [ErrorCode::StorageFull, ErrorCode::StorageReadOnly] {
        if !c.harness.refuse_writes(Some(code)).await {
            println!("skipped: this harness cannot make writes fail with {code}");
            continue;
        }
        refused(c.store().put(&t, &digest, bytes.clone()).await, code);
        refused(c.store().stage_create(&t, &stream(2), Some(SIZE as u64)).await, code);
        let whole = bytes.clone();
        block(&stage, move |stage| drop(refused(stage.write_at(0, &whole), code))).await;
        assert_eq!(c.content(&t, &kept).await.as_deref(), Some(&before[..]), "reads go on");
        assert!(c.store().open(&t, &digest).await.unwrap().is_none(), "nothing half put");
        assert_eq!(c.store().list(&t, None, 10).await.unwrap().len(), 1);
        assert_eq!(c.store().stage_list(&t, None, 10).await.unwrap(), [stream(1)], "no stage is left");
        assert!(c.harness.refuse_writes(None).await);
    }
    let whole = bytes.clone();
    drop(
        block(&stage, move |stage| {
            stage.write_at(0, &whole).unwrap();
            stage.commit(SIZE as u64, &digest).unwrap()
        })
        .await,
    );
    drop(stage);
    c.turn().await;
    assert_eq!(c.content(&t, &digest).await.as_deref(), Some(&bytes[..]), "healed");
}

/// BLOB-12.
pub async fn blob_12_a_stage_whose_sync_failed_commits_nothing(mut c: Context) {
    let t = tenant("a");
    let (digest, bytes) = content(3, SIZE);
    let stage = c.store().stage_create(&t, &stream(1), Some(SIZE as u64)).await.unwrap();
    block(&stage, move |stage| stage.write_at(0, &bytes).unwrap()).await;
    if !c.harness.refuse_writes(Some(ErrorCode::StorageFailed)).await {
        println!("skipped: this harness cannot make syncs fail");
        return;
    }
    block(&stage, |stage| drop(refused(stage.sync(), ErrorCode::StorageFailed))).await;
    assert!(c.harness.refuse_writes(None).await);
    let other = c.store().stage_open(&t, &stream(1)).await.unwrap().unwrap();
    for handle in [stage, other] {
        block(&handle, move |stage| {
            refused(stage.sync(), ErrorCode::StorageFailed);
            refused(stage.write_at(0, b"more"), ErrorCode::StorageFailed);
            refused(stage.commit(SIZE as u64, &digest), ErrorCode::StorageFailed);
        })
        .await;
    }
    assert!(c.store().open(&t, &digest).await.unwrap().is_none());
    c.store().stage_drop(&t, &stream(1)).await.unwrap();
    let anew = c.store().stage_create(&t, &stream(1), Some(4)).await.unwrap();
    block(&anew, |stage| {
        stage.write_at(0, b"anew").unwrap();
        stage.sync().unwrap();
    })
    .await;
}

/// BLOB-9 and BLOB-2: the power goes after each single operation of a commit.
pub async fn blob_9_a_commit_that_is_cut_short_can_be_ended(mut c: Context) {
    let t = tenant("a");
    if !c.harness.stop_after(None).await || !c.harness.can_crash(Crash::PowerCut) {
        println!("skipped: this harness cannot stop in the middle");
        return;
    }
    let mut ended = false;
    for operations in 0..STOPS {
        let (digest, bytes) = content(100 + operations, SIZE);
        let id = stream(operations as u8);
        // Longer than the blob in every other round, so that it has to be cut.
        let longer = operations % 2 == 1;
        let stage = c.store().stage_create(&t, &id, None).await.unwrap();
        let whole = bytes.clone();
        block(&stage, move |stage| {
            if longer {
                stage.write_at(SIZE as u64, b"more").unwrap();
            }
            stage.write_at(0, &whole).unwrap();
            stage.sync().unwrap();
        })
        .await;
        assert!(c.harness.stop_after(Some(operations)).await);
        let committed = block(&stage, move |stage| stage.commit(SIZE as u64, &digest).is_ok()).await;
        ended |= committed;
        drop(stage);
        assert!(c.harness.stop_after(None).await);
        c.crash(Crash::PowerCut).await;
        let blob = c.content(&t, &digest).await;
        assert!(blob.as_deref().is_none_or(|blob| blob == &bytes[..]), "half a blob after {operations} operations");
        assert!(!committed || blob.is_some(), "a commit that succeeded is lost after {operations} operations");
        match c.store().stage_open(&t, &id).await.unwrap() {
            Some(stage) => drop(block(&stage, move |stage| stage.commit(SIZE as u64, &digest).unwrap()).await),
            None => assert!(blob.is_some(), "neither stage nor blob after {operations} operations"),
        }
        assert_eq!(c.content(&t, &digest).await.as_deref(), Some(&bytes[..]), "ended after {operations} operations");
        assert!(c.store().stage_open(&t, &id).await.unwrap().is_none());
    }
    assert!(ended, "so many operations are enough for a commit");
}
