//! How contents travel: nobody needs to know, but the bus can tell.

use std::{future::IntoFuture as _, io::Cursor, path::Path, sync::Arc, time::Duration};

use acb_sdk::{Client, ContextScope, ErrorCode, UploadBuilder};
use acb_testing::FakeBus;
use tokio::{io::AsyncWriteExt as _, sync::Notify};

/// Most that goes in one call.
const ONE_CALL: usize = acb_types::limits::CONTEXT_ONE_CALL_BYTES;
/// The smallest chunk.
const CHUNK: usize = 256 << 10;

/// Uploads that the bus has completed.
fn uploads(bus: &FakeBus) -> u64 {
    let metrics = bus.metrics().unwrap();
    let line = metrics.lines().find(|line| line.starts_with("acb_uploads_complete_total ")).unwrap();
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[tokio::test]
async fn what_is_larger_than_one_call_takes_is_streamed_and_nothing_else_is() {
    let bus = FakeBus::start().await.unwrap();
    let alice = bus.client("alice").connect().await.unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let (contexts, streams) = (alice.contexts(), alice.streams());
    for (size, streamed) in [(0, 0), (ONE_CALL, 0), (ONE_CALL + 1, 1)] {
        let content: Vec<u8> = (0..size).map(|n| n as u8).collect();
        let mut before = uploads(&bus);
        let mut count = || {
            let now = uploads(&bus);
            now - std::mem::replace(&mut before, now)
        };
        let shared = contexts.share("", content.clone()).scope(ContextScope::Public).await.unwrap();
        assert_eq!((count(), shared.size, shared.existed), (streamed, size as u64, false));
        let updated = contexts.update(shared.id.as_str()).payload(content.clone()).force().await.unwrap();
        assert_eq!((count(), updated.size, updated.duplicate), (streamed, size as u64, false));
        // What is not said of it stays, however it travelled.
        assert_eq!((updated.scope, updated.version.as_str()), (ContextScope::Public, "0.1.1"));
        let read = streams.upload(Cursor::new(content.clone())).await.unwrap();
        assert_eq!((count(), read.size, read.sent_bytes), (streamed, size as u64, size as u64));
        std::fs::write(file.path(), &content).unwrap();
        let from_file = streams.upload_path(file.path()).update(read.context_id.as_str(), read.rev).await.unwrap();
        assert_eq!((count(), from_file.sha256), (streamed, read.sha256));
        for id in [shared.id.as_str(), &read.context_id] {
            assert_eq!(contexts.get(id).await.unwrap().payload, content);
        }
    }
}

#[tokio::test]
async fn a_large_call_that_is_repeated_is_done_once() {
    let bus = FakeBus::start().await.unwrap();
    let alice = bus.client("alice").connect().await.unwrap();
    let contexts = alice.contexts();
    let content = vec![7; ONE_CALL + 1];
    let made = contexts.share("big", content.clone()).await.unwrap();
    let share = || contexts.share("big", content.clone()).id(made.id.as_str());
    assert!(share().await.unwrap().existed);
    let change = || {
        let change = contexts.update(made.id.as_str()).payload(content.clone());
        change.if_rev(made.rev).idempotency_key("once")
    };
    let first = change().await.unwrap();
    let again = change().await.unwrap();
    assert_eq!((first.duplicate, again.duplicate, again.rev), (false, true, first.rev));
    let other = change().payload(vec![8; ONE_CALL + 1]).await.unwrap_err();
    assert_eq!(other.code(), ErrorCode::IdempotencyConflict);
    // The bus forgets an upload in the end, and the context never.
    for _ in 0..4 {
        assert!(share().await.unwrap().existed);
        let other = contexts.share("big", vec![8; ONE_CALL + 1]).id(made.id.as_str()).await.unwrap_err();
        assert_eq!(other.code(), ErrorCode::ContextExists);
        bus.advance(Duration::from_hours(25)).unwrap();
    }
}

#[tokio::test]
async fn a_reader_that_says_nothing_is_given_up_and_goes_with_its_client() {
    let bus = FakeBus::start().await.unwrap();
    let alice = bus.client("alice").connect().await.unwrap();
    let (_silent, reader) = tokio::io::duplex(64);
    let late = alice.streams().upload(reader).idle_timeout(Duration::from_millis(30)).await.unwrap_err();
    assert_eq!(late.code(), ErrorCode::Timeout);
    let (mut silent, reader) = tokio::io::duplex(64);
    let upload = tokio::spawn(alice.streams().upload(reader).into_future());
    // It has begun to read: what is written is taken.
    silent.write_all(&[7; 200]).await.unwrap();
    alice.close().await;
    assert_eq!(upload.await.unwrap().unwrap_err().code(), ErrorCode::ClientClosed);
    // Who feeds it learns by that.
    silent.write_all(&[7; 200]).await.unwrap_err();
}

#[tokio::test]
async fn an_upload_that_goes_in_one_call_leaves_no_resume_file() {
    let bus = FakeBus::start().await.unwrap();
    let alice = bus.client("alice").connect().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (file, token) = (folder.path().join("f"), folder.path().join("token"));
    std::fs::write(&file, "small by now").unwrap();
    std::fs::write(&token, "of when it was large").unwrap();
    alice.streams().upload_path(&file).resume_file(&token).await.unwrap();
    assert!(!token.exists());
}

fn in_small_chunks(alice: &Client, file: &Path, token: &Path) -> UploadBuilder {
    let upload = alice.streams().upload_path(file).resume_file(token);
    upload.chunk_bytes(CHUNK as u32).window_bytes(CHUNK as u64)
}

/// A bus, a client of it, and a folder with the file `f`.
async fn with_a_file_of_40_chunks() -> (FakeBus, Client, tempfile::TempDir) {
    let bus = FakeBus::start().await.unwrap();
    let alice = bus.client("alice").connect().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("f"), vec![7; 40 * CHUNK]).unwrap();
    (bus, alice, folder)
}

/// Begins the upload of a file and stops it when the bus has some of it.
async fn stop_in_the_middle(alice: &Client, file: &Path, token: &Path) {
    let some = Arc::new(Notify::new());
    let told = Arc::clone(&some);
    let upload = in_small_chunks(alice, file, token).progress(move |p| {
        if p.done_bytes > 0 {
            told.notify_one();
        }
    });
    tokio::select! {
        biased;
        () = some.notified() => {}
        done = upload.into_future() => panic!("{done:?}"),
    }
}

#[tokio::test]
async fn an_upload_that_was_stopped_can_be_asked_for_and_given_up_by_its_resume_file() {
    let (bus, alice, folder) = with_a_file_of_40_chunks().await;
    let (streams, file, token) = (alice.streams(), folder.path().join("f"), folder.path().join("token"));
    assert_eq!(streams.stopped(&token).await.unwrap(), None, "nothing was begun");
    streams.abort_stopped(&token).await.unwrap();

    stop_in_the_middle(&alice, &file, &token).await;
    let status = streams.stopped(&token).await.unwrap().unwrap();
    assert_eq!((status.state, status.total_bytes, status.context_id), ("open", Some(40 * CHUNK as u64), None));
    assert!((1..40).contains(&(status.received_bytes / CHUNK as u64)), "{}", status.received_bytes);
    let bob = bus.client("bob").connect().await.unwrap();
    assert_eq!(bob.streams().stopped(&token).await.unwrap_err().code(), ErrorCode::StreamNotFound);
    streams.abort_stopped(&token).await.unwrap();
    assert!(!token.exists());

    stop_in_the_middle(&alice, &file, &token).await;
    bus.advance(Duration::from_hours(25)).unwrap();
    assert_eq!(streams.stopped(&token).await.unwrap_err().code(), ErrorCode::StreamExpired);
    streams.abort_stopped(&token).await.unwrap();
    assert!(!token.exists(), "the bus has given it up itself");
}

#[tokio::test]
async fn an_upload_that_was_completed_cannot_be_given_up_by_a_resume_file_that_was_left() {
    let (_bus, alice, folder) = with_a_file_of_40_chunks().await;
    let (streams, file) = (alice.streams(), folder.path().join("f"));
    let (token, kept) = (folder.path().join("token"), folder.path().join("kept"));
    stop_in_the_middle(&alice, &file, &token).await;
    std::fs::copy(&token, &kept).unwrap();
    let uploaded = in_small_chunks(&alice, &file, &token).await.unwrap();
    // As if this process had ended between the bus's answer and the end of the file.
    let status = streams.stopped(&kept).await.unwrap().unwrap();
    assert_eq!((status.state, status.context_id.as_ref()), ("complete", Some(&uploaded.context_id)));
    assert_eq!(streams.abort_stopped(&kept).await.unwrap_err().code(), ErrorCode::StreamClosed);
    assert!(kept.exists(), "what was not given up keeps its file");
    let again = in_small_chunks(&alice, &file, &kept).await.unwrap();
    assert_eq!((again.context_id, again.sent_bytes, kept.exists()), (uploaded.context_id, 0, false));
}

#[tokio::test]
async fn a_file_that_is_no_resume_file_is_said_to_be_none_and_left_alone() {
    let bus = FakeBus::start().await.unwrap();
    let alice = bus.client("alice").connect().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other");
    for content in ["", "{}", "[1, 2]"] {
        std::fs::write(&other, content).unwrap();
        let status = alice.streams().stopped(&other).await.unwrap_err();
        let abort = alice.streams().abort_stopped(&other).await.unwrap_err();
        assert_eq!([status.code(), abort.code()], [ErrorCode::InvalidArgument; 2]);
        assert_eq!(std::fs::read_to_string(&other).unwrap(), content);
    }
    let folder = alice.streams().stopped(folder.path()).await.unwrap_err();
    assert_eq!(folder.code(), ErrorCode::InvalidArgument);
}
