//! Uploads: clauses UP-1 to UP-9.

use std::sync::Arc;

use acb_types::{
    ContextId, ErrorCode, Sha256Digest, StreamId, TenantId, limits,
    stream::{Chunking, StreamState},
};

use super::{Context, fixture::*};
use crate::metadata::{
    AddedChunks, Completing, ContentPlace, ContextChange, ContextContent, ContextScope, ContextSpec, MetadataStore,
    NewContext, NewUpload, UploadTarget,
};

const CHUNK: u32 = 1 << 20;

fn stream(n: u8) -> StreamId {
    StreamId([n; 16])
}

fn context_id(n: u8) -> ContextId {
    let mut bytes = [n; 16];
    (bytes[6], bytes[8]) = (0x70, 0x80);
    ContextId::from_bytes(bytes).unwrap()
}

fn sha(n: u64) -> Sha256Digest {
    let mut bytes = [9; 32];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    Sha256Digest(bytes)
}

fn upload(n: u8, owner: &str) -> NewUpload {
    NewUpload {
        id: stream(n),
        owner: agent(owner),
        context: context_id(n),
        target: UploadTarget::Create { spec: ContextSpec::new("archive") },
        chunking: Chunking { chunk_bytes: CHUNK, total_bytes: Some(3 * u64::from(CHUNK)) },
        expires_at: at(1000),
        now: at(1),
    }
}

fn added(session: u64, chunks: &[(u64, u64)]) -> AddedChunks {
    AddedChunks {
        session,
        chunks: chunks.iter().map(|(index, digest)| (*index, sha(*digest))).collect(),
        bytes: chunks.len() as u64 * u64::from(CHUNK),
        total_bytes: None,
        expires_at: at(2000),
    }
}

fn completing(session: u64, digest: u64) -> Completing {
    Completing { session, total_bytes: 3 * u64::from(CHUNK), sha256: sha(digest), expires_at: at(3000) }
}

fn content(digest: u64) -> ContextContent {
    ContextContent { size: 3 * u64::from(CHUNK), sha256: sha(digest), place: ContentPlace::Blob }
}

/// The context of an upload.
fn becomes(n: u8, owner: &str, digest: u64) -> NewContext {
    NewContext {
        id: context_id(n),
        spec: ContextSpec::new("archive"),
        owner: agent(owner),
        content: content(digest),
        fingerprint: sha(u64::from(n)),
        stream: Some(stream(n)),
        now: at(5),
    }
}

async fn make(store: &dyn MetadataStore, t: &TenantId, n: u8) {
    assert!(!store.upload_create(t, upload(n, "maker")).await.unwrap().existed);
}

/// UP-1 and UP-2.
pub async fn up_1_an_upload_is_kept_as_it_was_asked_for_and_is_its_owners(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let other = make_tenant(&*c.store, "b").await;
    let full = ContextChange {
        scope: Some(ContextScope::Shared),
        groups: Some(["team".parse().unwrap()].into()),
        shares: Some([(agent("w1"), crate::metadata::ShareAccess::Write)].into()),
        content_type: Some("text/plain; 'quoted'".into()),
        description: Some("wörds".into()),
        labels: Some(["x".to_owned()].into()),
        metadata: Some([("k".to_owned(), "v".to_owned())].into()),
        ttl: Some(None),
        version: Some("2.0.0-rc.1".parse().unwrap()),
    };
    let update = NewUpload { target: UploadTarget::Update { change: full, if_rev: Some(7) }, ..upload(1, "maker") };
    let spec = ContextSpec { ttl: Some(std::time::Duration::from_secs(5)), ..ContextSpec::new("t") };
    let unknown = NewUpload {
        target: UploadTarget::Create { spec },
        chunking: Chunking { chunk_bytes: CHUNK, total_bytes: None },
        ..upload(2, "maker")
    };
    let first = c.store.upload_create(&t, update.clone()).await.unwrap().row;
    let second = c.store.upload_create(&t, unknown).await.unwrap().row;
    c.turn().await;
    assert_eq!(c.store.upload_get(&t, &stream(1)).await.unwrap(), Some(first.clone()));
    assert_eq!(c.store.upload_get(&t, &stream(2)).await.unwrap(), Some(second));
    let again = c.store.upload_create(&t, NewUpload { expires_at: at(9), ..update.clone() }).await.unwrap();
    assert_eq!((again.existed, again.row), (true, first));
    let foreign = NewUpload { owner: agent("stranger"), ..update };
    refused(c.store.upload_create(&t, foreign).await, ErrorCode::StreamNotFound);
    assert_eq!(c.store.upload_get(&other, &stream(1)).await.unwrap(), None, "another tenant's");
    assert_eq!(c.store.upload_open(&other, &stream(1)).await.unwrap(), None);
    refused(c.store.upload_add(&other, &stream(1), added(1, &[(0, 0)])).await, ErrorCode::StreamNotFound);
    refused(c.store.upload_create(&tenant("nobody"), upload(9, "maker")).await, ErrorCode::TenantNotFound);
}

/// UP-3.
pub async fn up_3_an_opening_fences_the_session_before_it(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    make(&*c.store, &t, 1).await;
    c.store.upload_add(&t, &stream(1), added(1, &[(0, 10)])).await.unwrap();
    assert_eq!(c.store.upload_open(&t, &stream(1)).await.unwrap().unwrap().session, 2);
    c.turn().await;
    refused(c.store.upload_add(&t, &stream(1), added(1, &[(1, 11)])).await, ErrorCode::SessionFenced);
    refused(c.store.upload_completing(&t, &stream(1), completing(1, 1)).await, ErrorCode::SessionFenced);
    c.store.upload_add(&t, &stream(1), added(2, &[(2, 12)])).await.unwrap();
    let received: Vec<_> = c.store.upload_received(&t, &stream(1)).await.unwrap().ranges().collect();
    assert_eq!(received, [(0, 1), (2, 1)]);
}

/// UP-4.
pub async fn up_4_a_chunk_is_added_once_and_all_of_a_call_or_none(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    make(&*c.store, &t, 1).await;
    c.store.upload_add(&t, &stream(1), added(1, &[(0, 10), (1, 11)])).await.unwrap();
    c.turn().await;
    let clash = AddedChunks { total_bytes: Some(5), ..added(1, &[(2, 12), (1, 99)]) };
    refused(c.store.upload_add(&t, &stream(1), clash).await, ErrorCode::ChunkMismatch);
    assert_eq!(c.store.upload_received(&t, &stream(1)).await.unwrap().len(), 2, "nothing of the call was kept");
    let row = c.store.upload_get(&t, &stream(1)).await.unwrap().unwrap();
    assert_eq!((row.received_bytes, row.expires_at), (2 * u64::from(CHUNK), at(2000)));
    c.store.upload_add(&t, &stream(1), AddedChunks { bytes: 0, ..added(1, &[(1, 11)]) }).await.unwrap();
    c.turn().await;
    assert_eq!(c.store.upload_chunk(&t, &stream(1), 1).await.unwrap(), Some(sha(11)));
    assert_eq!(c.store.upload_chunk(&t, &stream(1), 2).await.unwrap(), None);
    let many = (0..4097).map(|n| (n, n)).collect::<Vec<_>>();
    refused(c.store.upload_add(&t, &stream(1), added(1, &many)).await, ErrorCode::InvalidArgument);
    // The size becomes known with the last chunk, and stays.
    let open = NewUpload { chunking: Chunking { chunk_bytes: CHUNK, total_bytes: None }, ..upload(2, "maker") };
    c.store.upload_create(&t, open).await.unwrap();
    for total in [None, Some(77), Some(78)] {
        let more = AddedChunks { total_bytes: total, ..added(1, &[(total.unwrap_or(0), 1)]) };
        c.store.upload_add(&t, &stream(2), more).await.unwrap();
    }
    let row = c.store.upload_get(&t, &stream(2)).await.unwrap().unwrap();
    assert_eq!(row.chunking.total_bytes, Some(77));
}

/// UP-5 and UP-7.
pub async fn up_7_an_upload_ends_once_and_drops_its_chunks(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    for (n, state, code) in
        [(1, StreamState::Aborted, ErrorCode::StreamClosed), (2, StreamState::Expired, ErrorCode::StreamExpired)]
    {
        make(&*c.store, &t, n).await;
        c.store.upload_add(&t, &stream(n), added(1, &[(0, 10)])).await.unwrap();
        let row = c.store.upload_end(&t, &stream(n), state, at(7000)).await.unwrap().unwrap();
        assert_eq!((row.state, row.expires_at), (state, at(7000)));
        c.turn().await;
        let again = c.store.upload_end(&t, &stream(n), StreamState::Aborted, at(8000)).await.unwrap().unwrap();
        assert_eq!((again.state, again.expires_at), (state, at(7000)), "ended once");
        assert!(c.store.upload_received(&t, &stream(n)).await.unwrap().is_empty());
        refused(c.store.upload_add(&t, &stream(n), added(1, &[(1, 11)])).await, code);
        assert_eq!(c.store.upload_open(&t, &stream(n)).await.unwrap().unwrap().session, 1, "no session any more");
    }
    assert_eq!(c.store.upload_end(&t, &stream(9), StreamState::Aborted, at(1)).await.unwrap(), None);
    refused(c.store.upload_end(&t, &stream(1), StreamState::Complete, at(1)).await, ErrorCode::InvalidArgument);
    make(&*c.store, &t, 3).await;
    c.store.upload_forget(&t, &stream(3)).await.unwrap();
    c.store.upload_forget(&t, &stream(1)).await.unwrap();
    c.store.upload_forget(&t, &stream(1)).await.unwrap();
    c.turn().await;
    let left: Vec<_> = c.store.upload_list(&t, None, 10).await.unwrap().into_iter().map(|row| row.id).collect();
    assert_eq!(left, [stream(2), stream(3)], "what is unfinished is not forgotten");
    let after: Vec<_> =
        c.store.upload_list(&t, Some(&stream(2)), 10).await.unwrap().into_iter().map(|r| r.id).collect();
    assert_eq!(after, [stream(3)]);
}

/// UP-6.
pub async fn up_6_an_upload_becomes_complete_with_its_context_or_neither(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    make(&*c.store, &t, 1).await;
    refused(c.store.context_create(&t, becomes(1, "maker", 1)).await, ErrorCode::StreamClosed);
    assert_eq!(c.store.context_get(&t, &context_id(1)).await.unwrap(), None, "not completing, so no context");
    c.store.upload_completing(&t, &stream(1), completing(1, 1)).await.unwrap();
    c.store.upload_completing(&t, &stream(1), completing(1, 1)).await.unwrap();
    refused(c.store.upload_completing(&t, &stream(1), completing(1, 2)).await, ErrorCode::DigestMismatch);
    refused(c.store.upload_add(&t, &stream(1), added(1, &[(2, 12)])).await, ErrorCode::StreamClosed);
    c.turn().await;
    // A context that is refused leaves the upload as it was.
    let keyed = |n: u8| {
        let spec = ContextSpec { key: Some("k".parse().unwrap()), ..ContextSpec::new("archive") };
        NewContext { spec, ..becomes(n, "maker", 1) }
    };
    let holder = NewContext { stream: None, ..keyed(8) };
    c.store.context_create(&t, holder).await.unwrap();
    refused(c.store.context_create(&t, keyed(1)).await, ErrorCode::ContextExists);
    let row = c.store.upload_get(&t, &stream(1)).await.unwrap().unwrap();
    assert_eq!((row.state, row.rev), (StreamState::Completing, 0));
    let made = c.store.context_create(&t, becomes(1, "maker", 1)).await.unwrap().row;
    c.turn().await;
    let row = c.store.upload_get(&t, &stream(1)).await.unwrap().unwrap();
    assert_eq!((row.state, row.rev, row.sha256), (StreamState::Complete, made.rev, Some(sha(1))));
    assert_eq!(row.expires_at, at(5).after(limits::STREAM_TTL), "it answers for as long");
    refused(c.store.context_create(&t, becomes(1, "maker", 1)).await, ErrorCode::StreamClosed);
    assert_eq!(c.store.tenant_revision(&t).await.unwrap(), made.rev, "once");
    let ended = c.store.upload_end(&t, &stream(1), StreamState::Aborted, at(1)).await.unwrap().unwrap();
    assert_eq!(ended.state, StreamState::Complete);
}

/// UP-6: two who complete one upload.
pub async fn up_6_of_16_concurrent_completions_one_makes_the_context(c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    make(&*c.store, &t, 1).await;
    c.store.upload_completing(&t, &stream(1), completing(1, 1)).await.unwrap();
    let tries: Vec<_> = (0..16)
        .map(|_| {
            let (store, t) = (Arc::clone(&c.store), t.clone());
            tokio::spawn(async move { store.context_create(&t, becomes(1, "maker", 1)).await.is_ok() })
        })
        .collect();
    let mut made = 0;
    for each in tries {
        made += u32::from(each.await.unwrap());
    }
    assert_eq!((made, c.store.tenant_revision(&t).await.unwrap()), (1, 1));
}

/// UP-8.
pub async fn up_8_a_tenant_has_a_limit_of_unfinished_uploads(c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let numbered = |n: usize| {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(n as u64).to_be_bytes());
        NewUpload { id: StreamId(id), ..upload(1, "maker") }
    };
    for n in 0..limits::STREAMS_MAX {
        c.store.upload_create(&t, numbered(n)).await.unwrap();
    }
    refused(c.store.upload_create(&t, numbered(limits::STREAMS_MAX)).await, ErrorCode::TooManyStreams);
    assert!(c.store.upload_create(&t, numbered(3)).await.unwrap().existed, "what is there is found all the same");
    c.store.upload_end(&t, &numbered(3).id, StreamState::Aborted, at(1)).await.unwrap();
    c.store.upload_create(&t, numbered(limits::STREAMS_MAX)).await.unwrap();
}

/// UP-9.
pub async fn up_9_chunks_of_complete_uploads_are_found_by_digest(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let other = make_tenant(&*c.store, "b").await;
    make(&*c.store, &t, 1).await;
    c.store.upload_add(&t, &stream(1), added(1, &[(0, 10), (1, 11), (2, 12)])).await.unwrap();
    assert_eq!(c.store.upload_find(&t, &[sha(11)]).await.unwrap(), [], "not complete yet");
    c.store.upload_completing(&t, &stream(1), completing(1, 1)).await.unwrap();
    c.store.context_create(&t, becomes(1, "maker", 1)).await.unwrap();
    c.turn().await;
    let found = c.store.upload_find(&t, &[sha(11), sha(77)]).await.unwrap();
    let facts: Vec<_> = found.iter().map(|f| (f.sha256, f.blob, f.offset, f.len, f.context)).collect();
    assert_eq!(facts, [(sha(11), sha(1), u64::from(CHUNK), u64::from(CHUNK), context_id(1))]);
    assert_eq!(c.store.upload_find(&other, &[sha(11)]).await.unwrap(), []);
    c.store.upload_forget(&t, &stream(1)).await.unwrap();
    assert_eq!(c.store.upload_find(&t, &[sha(11)]).await.unwrap(), []);
}
