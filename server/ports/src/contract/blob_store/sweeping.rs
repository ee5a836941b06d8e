//! Sweeps and pins.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use acb_types::{ErrorCode, Sha256Digest};
use parking_lot::Mutex;

use super::{Context, content, refused, tenant};
use crate::blob_store::Removal;

/// BLOB-6.
pub async fn blob_6_a_sweep_leaves_what_is_pinned(mut c: Context) {
    let t = tenant("a");
    let (digest, bytes) = content(1, 1000);
    let pin = c.store().put(&t, &digest, bytes.clone()).await.unwrap();
    assert_eq!(*pin.digest(), digest);
    let second = c.store().pin(&t, &digest).await.unwrap().unwrap();
    drop(pin);
    let sweep = c.store().sweep_begin(&t).await.unwrap();
    assert_eq!(c.store().sweep_remove(&sweep, &digest).await.unwrap(), Removal::Pinned);
    refused(c.store().sweep_begin(&t).await, ErrorCode::InvalidState);
    drop(c.store().sweep_begin(&tenant("b")).await.unwrap());
    drop((second, sweep));
    c.turn().await;
    let sweep = c.store().sweep_begin(&t).await.unwrap();
    assert_eq!(c.store().sweep_remove(&sweep, &digest).await.unwrap(), Removal::Removed(1000));
    assert!(c.store().pin(&t, &digest).await.unwrap().is_none());
}

/// BLOB-6.
pub async fn blob_6_a_sweep_leaves_what_was_pinned_since_it_began(mut c: Context) {
    let t = tenant("a");
    let made: Vec<_> = (0..4).map(|n| content(n, 1000)).collect();
    for (digest, bytes) in &made[..3] {
        drop(c.store().put(&t, digest, bytes.clone()).await.unwrap());
    }
    c.turn().await;
    let held = c.store().pin(&t, &made[0].0).await.unwrap();
    let sweep = c.store().sweep_begin(&t).await.unwrap();
    drop(held);
    drop(c.store().pin(&t, &made[1].0).await.unwrap());
    drop(c.store().put(&t, &made[3].0, made[3].1.clone()).await.unwrap());
    let mut went = Vec::new();
    for (digest, _) in &made {
        went.push(c.store().sweep_remove(&sweep, digest).await.unwrap());
    }
    assert_eq!(went, [Removal::Pinned, Removal::Pinned, Removal::Removed(1000), Removal::Pinned]);
    drop(sweep);
    c.turn().await;
    let sweep = c.store().sweep_begin(&t).await.unwrap();
    assert_eq!(c.store().sweep_remove(&sweep, &made[0].0).await.unwrap(), Removal::Removed(1000));
}

/// BLOB-6: what the bus does, with a set in place of the rows.
pub async fn blob_6_no_row_loses_its_blob_to_sweeps_that_run_beside_it(c: Context) {
    let t = tenant("a");
    // Which writers' rows name a content.
    let rows: Arc<Mutex<HashMap<Sha256Digest, HashSet<u64>>>> = Arc::default();
    let done = Arc::new(AtomicBool::new(false));
    // Few contents, so that writers meet one another and the sweep on the same ones.
    let made: Arc<Vec<_>> = Arc::new((0..6).map(|n| content(n, 2000)).collect());
    let writers: Vec<_> = (0..4u64)
        .map(|writer| {
            let (store, t, rows, made) = (Arc::clone(c.store()), t.clone(), Arc::clone(&rows), Arc::clone(&made));
            tokio::spawn(async move {
                for round in 0..60u64 {
                    let (digest, bytes) = &made[((round * 7 + writer * 3) % 6) as usize];
                    let pin = store.put(&t, digest, bytes.clone()).await.unwrap();
                    tokio::task::yield_now().await;
                    rows.lock().entry(*digest).or_default().insert(writer);
                    drop(pin);
                    tokio::task::yield_now().await;
                    // What a row names is there, whatever is swept meanwhile.
                    let found = store.get(&t, digest).await.unwrap();
                    assert_eq!(found.as_ref(), Some(bytes), "a row lost its blob in round {round}");
                    if round % 3 > 0 {
                        rows.lock().entry(*digest).or_default().remove(&writer);
                    }
                }
            })
        })
        .collect();
    let sweeper = {
        let (store, t, rows, done) = (Arc::clone(c.store()), t.clone(), Arc::clone(&rows), Arc::clone(&done));
        tokio::spawn(async move {
            let mut removed = 0u64;
            while !done.load(Ordering::Acquire) {
                let sweep = store.sweep_begin(&t).await.unwrap();
                for entry in store.list(&t, None, 100).await.unwrap() {
                    let named = rows.lock().get(&entry.digest).is_some_and(|writers| !writers.is_empty());
                    if !named && matches!(store.sweep_remove(&sweep, &entry.digest).await.unwrap(), Removal::Removed(_))
                    {
                        removed += 1;
                    }
                }
                drop(sweep);
                tokio::task::yield_now().await;
            }
            removed
        })
    };
    for writer in writers {
        writer.await.unwrap();
    }
    done.store(true, Ordering::Release);
    sweeper.await.unwrap();
    let rows = rows.lock().clone();
    let named = rows.into_iter().filter(|(_, writers)| !writers.is_empty()).map(|(digest, _)| digest);
    for digest in named {
        assert!(c.content(&t, &digest).await.is_some(), "a row lost its blob");
    }
}
