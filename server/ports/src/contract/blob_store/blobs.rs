//! Blobs as wholes: putting, reading, listing.

use std::sync::Arc;

use acb_types::{ErrorCode, Sha256Digest, limits};

use super::{Context, content, refused, stream, tenant};
use crate::contract::message_log::Crash;

/// BLOB-1.
pub async fn blob_1_tenants_share_nothing(mut c: Context) {
    let (a, b) = (tenant("a"), tenant("b"));
    let (digest, bytes) = content(1, 100_000);
    drop(c.store().put(&a, &digest, bytes.clone()).await.unwrap());
    drop(c.store().stage_create(&a, &stream(1), None).await.unwrap());
    c.turn().await;
    assert_eq!(c.content(&b, &digest).await, None);
    assert!(c.store().pin(&b, &digest).await.unwrap().is_none());
    assert_eq!(c.store().list(&b, None, 10).await.unwrap(), []);
    assert!(c.store().stage_open(&b, &stream(1)).await.unwrap().is_none());
    assert_eq!(c.store().stage_list(&b, None, 10).await.unwrap(), []);
    drop(c.store().put(&b, &digest, bytes.clone()).await.unwrap());
    let sweep = c.store().sweep_begin(&b).await.unwrap();
    c.store().sweep_remove(&sweep, &digest).await.unwrap();
    drop(sweep);
    c.store().stage_drop(&b, &stream(1)).await.unwrap();
    c.turn().await;
    assert_eq!(c.content(&a, &digest).await.as_deref(), Some(&bytes[..]), "another tenant's sweep took it");
    assert_eq!(c.content(&b, &digest).await, None);
    assert_eq!(c.store().stage_list(&a, None, 10).await.unwrap(), [stream(1)]);
}

/// BLOB-2.
pub async fn blob_2_what_was_put_survives_every_crash(mut c: Context) {
    let t = tenant("a");
    let mut kept: Vec<(Sha256Digest, bytes::Bytes)> = Vec::new();
    for (n, crash) in [Crash::Kill, Crash::PowerCut, Crash::PowerCut, Crash::PowerCut].into_iter().enumerate() {
        for part in 0..4 {
            let (digest, bytes) = content(10 + n as u64 * 4 + part, 40_000 + part as usize);
            drop(c.store().put(&t, &digest, bytes.clone()).await.unwrap());
            kept.push((digest, bytes));
        }
        if !c.crash(crash).await {
            return;
        }
        for (digest, bytes) in &kept {
            assert_eq!(c.content(&t, digest).await.as_deref(), Some(&bytes[..]), "after {crash:?} number {n}");
        }
    }
}

/// BLOB-3.
pub async fn blob_3_of_16_concurrent_puts_all_succeed_and_one_blob_is_there(mut c: Context) {
    let t = tenant("a");
    let (digest, bytes) = content(3, 50_000);
    let putters: Vec<_> = (0..16)
        .map(|_| {
            let (store, t, bytes) = (Arc::clone(c.store()), t.clone(), bytes.clone());
            tokio::spawn(async move { drop(store.put(&t, &digest, bytes).await.unwrap()) })
        })
        .collect();
    for putter in putters {
        putter.await.unwrap();
    }
    c.turn().await;
    drop(c.store().put(&t, &digest, bytes.clone()).await.unwrap());
    let listed = c.store().list(&t, None, 10).await.unwrap();
    assert_eq!(listed.iter().map(|e| (e.digest, e.size)).collect::<Vec<_>>(), [(digest, 50_000)]);
    assert_eq!(c.content(&t, &digest).await.as_deref(), Some(&bytes[..]));
}

/// BLOB-4.
pub async fn blob_4_removing_what_is_absent_succeeds_and_open_readers_never_lie(mut c: Context) {
    use crate::blob_store::Removal;
    let t = tenant("a");
    let (digest, bytes) = content(4, 300_000);
    let sweep = c.store().sweep_begin(&t).await.unwrap();
    assert_eq!(c.store().sweep_remove(&sweep, &digest).await.unwrap(), Removal::Absent);
    drop(sweep);
    drop(c.store().put(&t, &digest, bytes.clone()).await.unwrap());
    c.turn().await;
    let reader = c.store().open(&t, &digest).await.unwrap().unwrap();
    let sweep = c.store().sweep_begin(&t).await.unwrap();
    assert_eq!(c.store().sweep_remove(&sweep, &digest).await.unwrap(), Removal::Removed(300_000));
    assert_eq!(c.store().sweep_remove(&sweep, &digest).await.unwrap(), Removal::Absent);
    drop(sweep);
    if let Ok(piece) = reader.read_at(250_000, 100_000) {
        assert_eq!(piece, bytes[250_000..]);
    }
    drop(reader);
    c.turn().await;
    assert!(c.store().open(&t, &digest).await.unwrap().is_none());
    assert_eq!(c.store().list(&t, None, 10).await.unwrap(), []);
}

/// BLOB-5.
pub async fn blob_5_any_range_reads_as_it_was_put(mut c: Context) {
    let t = tenant("a");
    for len in [0, 1, 4096, 123_457] {
        let (digest, bytes) = content(len as u64, len);
        drop(c.store().put(&t, &digest, bytes.clone()).await.unwrap());
        c.turn().await;
        let reader = c.store().open(&t, &digest).await.unwrap().unwrap();
        assert_eq!(reader.size(), len as u64);
        for (offset, wanted) in
            [(0, 10), (0, len + 5), (len / 2, 3), (len.saturating_sub(1), 4), (len, 1), (len + 9, 2)]
        {
            let expected = &bytes[offset.min(len)..(offset + wanted).min(len)];
            assert_eq!(reader.read_at(offset as u64, wanted).unwrap(), expected, "{len}: {wanted} from {offset}");
        }
    }
}

/// BLOB-5.
pub async fn blob_5_a_whole_is_read_at_once_up_to_its_bound(mut c: Context) {
    let t = tenant("a");
    let (digest, bytes) = content(5, limits::CONTEXT_INLINE_BYTES_MAX);
    let (larger, more) = content(6, limits::CONTEXT_INLINE_BYTES_MAX + 1);
    drop(c.store().put(&t, &digest, bytes.clone()).await.unwrap());
    drop(c.store().put(&t, &larger, more).await.unwrap());
    c.turn().await;
    assert_eq!(c.store().get(&t, &digest).await.unwrap(), Some(bytes));
    assert_eq!(c.store().get(&t, &content(7, 1).0).await.unwrap(), None);
    refused(c.store().get(&t, &larger).await, ErrorCode::InvalidArgument);
}

/// BLOB-11.
pub async fn blob_11_lists_are_paged_in_order(mut c: Context) {
    let t = tenant("a");
    let mut wanted = Vec::new();
    for n in 0..30 {
        let (digest, bytes) = content(n, 10 + n as usize);
        drop(c.store().put(&t, &digest, bytes).await.unwrap());
        wanted.push((digest, 10 + n));
    }
    wanted.sort();
    for n in [7, 3, 5, 1] {
        drop(c.store().stage_create(&t, &stream(n), Some(10)).await.unwrap());
    }
    c.turn().await;
    let mut seen = Vec::new();
    loop {
        let after = seen.last().map(|(digest, _)| *digest);
        let page = c.store().list(&t, after.as_ref(), 7).await.unwrap();
        seen.extend(page.iter().map(|e| (e.digest, e.size)));
        if page.len() < 7 {
            break;
        }
    }
    assert_eq!(seen, wanted);
    assert_eq!(c.store().stage_list(&t, None, 3).await.unwrap(), [stream(1), stream(3), stream(5)]);
    assert_eq!(c.store().stage_list(&t, Some(&stream(5)), 3).await.unwrap(), [stream(7)]);
    for limit in [0, 1001] {
        refused(c.store().list(&t, None, limit).await, ErrorCode::InvalidArgument);
        refused(c.store().stage_list(&t, None, limit).await, ErrorCode::InvalidArgument);
    }
}
