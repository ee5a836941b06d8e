//! Stages.

use std::sync::Arc;

use acb_types::ErrorCode;

use super::{Context, block, content, refused, stream, tenant};
use crate::contract::message_log::Crash;

const PIECE: usize = 10_000;

/// BLOB-7.
pub async fn blob_7_what_was_synced_in_a_stage_survives_every_crash(mut c: Context) {
    let t = tenant("a");
    let (digest, bytes) = content(7, 6 * PIECE);
    for (n, crash) in [Crash::Kill, Crash::PowerCut, Crash::PowerCut].into_iter().enumerate() {
        let id = stream(n as u8);
        let stage = c.store().stage_create(&t, &id, (n % 2 == 0).then_some(6 * PIECE as u64)).await.unwrap();
        let pieces = bytes.clone();
        block(&stage, move |stage| {
            for at in [4, 1] {
                stage.write_at((at * PIECE) as u64, &pieces[at * PIECE..(at + 1) * PIECE]).unwrap();
            }
            assert_eq!(stage.read_at(PIECE as u64, PIECE).unwrap(), pieces[PIECE..2 * PIECE], "read back at once");
            stage.sync().unwrap();
            // Perhaps there afterwards, perhaps not.
            stage.write_at(0, &pieces[..PIECE]).unwrap();
        })
        .await;
        drop(stage);
        if !c.crash(crash).await {
            return;
        }
        let stage = c.store().stage_open(&t, &id).await.unwrap().expect("the stage is found");
        for at in [4, 1] {
            assert_eq!(stage.read_at((at * PIECE) as u64, PIECE).unwrap(), bytes[at * PIECE..(at + 1) * PIECE]);
        }
        let pieces = bytes.clone();
        let pin = block(&stage, move |stage| {
            for at in [0, 2, 3, 5] {
                stage.write_at((at * PIECE) as u64, &pieces[at * PIECE..(at + 1) * PIECE]).unwrap();
            }
            stage.commit(6 * PIECE as u64, &digest).unwrap()
        })
        .await;
        drop((pin, stage));
        if !c.crash(crash).await {
            return;
        }
        assert_eq!(c.content(&t, &digest).await.as_deref(), Some(&bytes[..]), "after {crash:?}");
        assert!(c.store().stage_open(&t, &id).await.unwrap().is_none());
    }
}

/// BLOB-8.
pub async fn blob_8_pieces_come_in_any_order_from_any_thread(mut c: Context) {
    let t = tenant("a");
    let (digest, bytes) = content(8, 40 * PIECE + 17);
    let stage = c.store().stage_create(&t, &stream(8), None).await.unwrap();
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (stage, bytes) = (Arc::clone(&stage), bytes.clone());
            tokio::task::spawn_blocking(move || {
                for at in (0..=40).rev().filter(|at| at % 4 == writer) {
                    let from = at * PIECE;
                    stage.write_at(from as u64, &bytes[from..bytes.len().min(from + PIECE)]).unwrap();
                    if at % 8 == 0 {
                        stage.sync().unwrap();
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    drop(stage);
    c.turn().await;
    let stage = c.store().stage_open(&t, &stream(8)).await.unwrap().unwrap();
    let size = bytes.len() as u64;
    drop(block(&stage, move |stage| stage.commit(size, &digest).unwrap()).await);
    drop(stage);
    c.turn().await;
    assert_eq!(c.content(&t, &digest).await.as_deref(), Some(&bytes[..]));
}

/// BLOB-9.
pub async fn blob_9_a_commit_ends_the_stage_and_makes_the_blob(mut c: Context) {
    let t = tenant("a");
    let (digest, bytes) = content(9, PIECE);
    let stage = c.store().stage_create(&t, &stream(9), Some(PIECE as u64)).await.unwrap();
    let again = c.store().stage_create(&t, &stream(9), Some(PIECE as u64)).await.unwrap();
    let whole = bytes.clone();
    let pin = block(&stage, move |stage| {
        stage.write_at(0, &whole).unwrap();
        refused(stage.commit(PIECE as u64 + 1, &digest), ErrorCode::InvalidArgument);
        stage.commit(PIECE as u64, &digest).unwrap()
    })
    .await;
    assert_eq!(*pin.digest(), digest);
    for late in [stage, again] {
        block(&late, move |late| {
            refused(late.write_at(0, b"late"), ErrorCode::InvalidState);
            refused(late.commit(4, &digest), ErrorCode::InvalidState);
        })
        .await;
    }
    drop(pin);
    c.turn().await;
    assert_eq!(c.content(&t, &digest).await.as_deref(), Some(&bytes[..]));
    assert!(c.store().stage_open(&t, &stream(9)).await.unwrap().is_none());
    assert_eq!(c.store().stage_list(&t, None, 10).await.unwrap(), []);
}

/// BLOB-9 and BLOB-3.
pub async fn blob_9_a_commit_of_what_is_there_ends_the_stage(mut c: Context) {
    let t = tenant("a");
    let (digest, bytes) = content(10, PIECE);
    drop(c.store().put(&t, &digest, bytes.clone()).await.unwrap());
    let stage = c.store().stage_create(&t, &stream(1), None).await.unwrap();
    let whole = bytes.clone();
    drop(
        block(&stage, move |stage| {
            stage.write_at(0, &whole).unwrap();
            stage.commit(PIECE as u64, &digest).unwrap()
        })
        .await,
    );
    drop(stage);
    c.turn().await;
    assert_eq!(c.store().list(&t, None, 10).await.unwrap().len(), 1);
    assert_eq!(c.content(&t, &digest).await.as_deref(), Some(&bytes[..]));
    assert_eq!(c.store().stage_list(&t, None, 10).await.unwrap(), []);
}

/// BLOB-9.
pub async fn blob_9_a_stage_that_is_longer_than_its_blob_is_cut(mut c: Context) {
    let t = tenant("a");
    let (digest, bytes) = content(11, PIECE);
    let stage = c.store().stage_create(&t, &stream(1), None).await.unwrap();
    let whole = bytes.clone();
    drop(
        block(&stage, move |stage| {
            stage.write_at(PIECE as u64, b"what was sent once and is no part of it").unwrap();
            stage.write_at(0, &whole).unwrap();
            stage.commit(PIECE as u64, &digest).unwrap()
        })
        .await,
    );
    drop(stage);
    c.turn().await;
    assert_eq!(c.content(&t, &digest).await.as_deref(), Some(&bytes[..]));
    assert_eq!(c.store().list(&t, None, 10).await.unwrap()[0].size, PIECE as u64);
    assert_eq!(c.store().stage_list(&t, None, 10).await.unwrap(), []);
}

/// BLOB-10.
pub async fn blob_10_a_dropped_stage_is_gone_and_its_handles_change_nothing(mut c: Context) {
    let t = tenant("a");
    c.store().stage_drop(&t, &stream(1)).await.unwrap();
    let stage = c.store().stage_create(&t, &stream(1), Some(PIECE as u64)).await.unwrap();
    block(&stage, |stage| stage.write_at(0, b"something").unwrap()).await;
    c.store().stage_drop(&t, &stream(1)).await.unwrap();
    c.store().stage_drop(&t, &stream(1)).await.unwrap();
    assert!(c.store().stage_open(&t, &stream(1)).await.unwrap().is_none());
    block(&stage, |stage| {
        refused(stage.write_at(0, b"late"), ErrorCode::InvalidState);
        refused(stage.commit(4, &content(1, 4).0), ErrorCode::InvalidState);
    })
    .await;
    // Under the same id a new one begins, and the old handle does not reach it.
    let anew = c.store().stage_create(&t, &stream(1), Some(PIECE as u64)).await.unwrap();
    let seen = block(&anew, |anew| anew.read_at(0, 9).unwrap()).await;
    assert_eq!(seen, [0; 9][..]);
    drop((stage, anew));
    c.turn().await;
    assert_eq!(c.store().stage_list(&t, None, 10).await.unwrap(), [stream(1)]);
    assert_eq!(c.store().list(&t, None, 10).await.unwrap(), []);
}
