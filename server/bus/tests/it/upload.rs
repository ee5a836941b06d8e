//! Uploads: chunks in any order, and everything that can be wrong with them.

use std::{path::PathBuf, time::Duration};

use acb_ports::memory::MemoryBlobs;
use acb_proto::v1::{self, stream_context_request::Frame};
use acb_types::{ErrorCode, limits};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tonic::Streaming;

use crate::support::{Client, Failure, Server, Setup, failure, told, wait_until};

/// The smallest chunk that is allowed.
pub(crate) const CHUNK: usize = limits::CHUNK_BYTES_MIN;
/// What agents may do who are no admins.
pub(crate) const AGENT: &[&str] = &["agent-full"];

/// Bytes that tell where they are.
pub(crate) fn content(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| ((i + seed * 1_000_003).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

pub(crate) fn sha256(bytes: &[u8]) -> Vec<u8> {
    Sha256::digest(bytes).to_vec()
}

pub(crate) fn stream_id(n: u8) -> Vec<u8> {
    vec![n; 16]
}

/// Asks for an upload of a new private context.
pub(crate) fn opening(n: u8, total: usize) -> v1::StreamOpen {
    v1::StreamOpen {
        stream_id: stream_id(n).into(),
        spec: Some(v1::ContextSpec { r#type: "archive".into(), ..Default::default() }),
        total_bytes: total as u64,
        chunk_bytes: CHUNK as u32,
        ..Default::default()
    }
}

/// An upload as one connection has it.
pub(crate) struct Upload {
    send: mpsc::Sender<v1::StreamContextRequest>,
    frames: Streaming<v1::StreamContextResponse>,
    pub(crate) opened: v1::StreamOpened,
}

impl Upload {
    pub(crate) async fn open(client: &Client, open: v1::StreamOpen) -> Result<Self, Failure> {
        let (send, rx) = mpsc::channel(64);
        send.send(v1::StreamContextRequest { frame: Some(Frame::Open(open)) }).await.unwrap();
        let input = tokio_stream::wrappers::ReceiverStream::new(rx);
        let outcome = client.streams().stream_context(input).await;
        let mut frames = outcome.map_err(|status| failure(&status))?.into_inner();
        let first = frames.message().await.map_err(|status| failure(&status))?.expect("an answer to open");
        Ok(Self { send, frames, opened: first.opened.expect("the first frame answers open") })
    }

    pub(crate) async fn frame(&self, frame: Frame) {
        // A stream that was ended takes nothing; what it said is read next.
        let _ = self.send.send(v1::StreamContextRequest { frame: Some(frame) }).await;
    }

    pub(crate) async fn chunk(&self, index: u64, data: &[u8]) {
        self.chunk_as(index, data, sha256(data)).await;
    }

    async fn chunk_as(&self, index: u64, data: &[u8], sha256: Vec<u8>) {
        self.frame(Frame::Chunk(v1::StreamChunk { index, sha256: sha256.into(), data: data.to_vec().into() })).await;
    }

    pub(crate) async fn next(&mut self) -> Result<v1::StreamContextResponse, Failure> {
        let within =
            tokio::time::timeout(Duration::from_secs(20), self.frames.message()).await.expect("an answer in time");
        within.map_err(|status| failure(&status)).map(|frame| frame.expect("a frame"))
    }

    /// Reads until so many chunks are acknowledged; a refusal fails the test.
    pub(crate) async fn acked(&mut self, count: u64) {
        let mut seen = 0;
        while seen < count {
            let frame = self.next().await.unwrap();
            assert!(frame.rejects.is_empty(), "{frame:?}");
            seen += frame.acks.iter().map(|range| range.count).sum::<u64>();
        }
        assert_eq!(seen, count);
    }

    /// Reads the refusal of a chunk.
    async fn rejected(&mut self, index: u64) -> ErrorCode {
        loop {
            let frame = self.next().await.unwrap();
            if let Some(reject) = frame.rejects.first() {
                assert_eq!(reject.index, index);
                return reject.error.as_ref().unwrap().code.parse().unwrap();
            }
            assert!(!frame.acks.iter().any(|r| (r.first_index..r.first_index + r.count).contains(&index)), "{frame:?}");
        }
    }

    pub(crate) async fn complete(&mut self, whole: &[u8]) -> Result<v1::Context, Failure> {
        self.complete_as(whole.len() as u64, sha256(whole)).await
    }

    async fn complete_as(&mut self, total_bytes: u64, sha256: Vec<u8>) -> Result<v1::Context, Failure> {
        self.frame(Frame::Complete(v1::StreamComplete { total_bytes, sha256: sha256.into() })).await;
        loop {
            if let Some(completed) = self.next().await?.completed {
                return Ok(completed.context.unwrap());
            }
        }
    }

    /// Reads what ends the stream.
    async fn ended(&mut self) -> ErrorCode {
        loop {
            match self.next().await {
                Ok(_) => {}
                Err(failure) => return failure.code(),
            }
        }
    }
}

/// Uploads a whole.
pub(crate) async fn upload(client: &Client, open: v1::StreamOpen, whole: &[u8]) -> Result<v1::Context, Failure> {
    let mut upload = Upload::open(client, open).await?;
    for (index, data) in whole.chunks(CHUNK).enumerate() {
        upload.chunk(index as u64, data).await;
    }
    upload.complete(whole).await
}

async fn progress(client: &Client, n: u8) -> Result<v1::StreamProgress, Failure> {
    let request = v1::GetStreamProgressRequest { stream_id: stream_id(n).into() };
    Ok(told(client.streams().get_stream_progress(request).await)?.progress.unwrap())
}

async fn abort(client: &Client, n: u8) -> Result<(), Failure> {
    told(client.streams().abort_stream(v1::AbortStreamRequest { stream_id: stream_id(n).into() }).await).map(|_| ())
}

/// Files of a folder of the tenant `default`, its subfolders included.
fn files(server: &Server, folder: &str) -> Vec<PathBuf> {
    fn walk(path: PathBuf, out: &mut Vec<PathBuf>) {
        let Ok(entries) = std::fs::read_dir(&path) else { return };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(path, out) } else { out.push(path) }
        }
    }
    let mut out = Vec::new();
    walk(server.data_folder().path().join("data/tenants/default").join(folder), &mut out);
    out
}

#[tokio::test]
async fn chunks_in_any_order_become_a_context() {
    let server = Setup::dev().start().await;
    let client = server.dev("default", "planner");
    let whole = content(1, 5 * CHUNK + 1000);
    let mut upload = Upload::open(&client, opening(1, whole.len())).await.unwrap();
    let opened = upload.opened.progress.clone().unwrap();
    assert_eq!(
        (opened.state(), opened.chunk_bytes, opened.total_bytes),
        (v1::StreamState::Open, CHUNK as u32, whole.len() as u64)
    );
    assert!(upload.opened.window_bytes >= 4 * CHUNK as u64);
    let chunks: Vec<&[u8]> = whole.chunks(CHUNK).collect();
    for index in [5, 2, 0, 4, 1, 3] {
        upload.chunk(index as u64, chunks[index]).await;
    }
    upload.acked(6).await;
    let seen = progress(&client, 1).await.unwrap();
    assert_eq!((seen.received_bytes, seen.received.len()), (whole.len() as u64, 1));
    let context = upload.complete(&whole).await.unwrap();
    assert_eq!((context.size_bytes, &context.sha256[..]), (whole.len() as u64, &sha256(&whole)[..]));
    assert_eq!((context.owner.as_str(), context.spec.unwrap().r#type.as_str()), ("planner", "archive"));
    let seen = progress(&client, 1).await.unwrap();
    assert_eq!((seen.state(), seen.context_id), (v1::StreamState::Complete, context.id));
    assert_eq!(files(&server, "stage"), [] as [PathBuf; 0], "nothing is left of the upload");
    assert_eq!(files(&server, "blobs").len(), 1);
    let metrics = server.metrics().await;
    assert!(
        metrics.contains("acb_uploads_complete_total 1") && metrics.contains("acb_upload_chunks_total 6"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_small_upload_is_kept_in_its_row() {
    let server = Setup::dev().start().await;
    let client = server.dev("default", "planner");
    for (n, len) in [(1, 0), (2, 1), (3, limits::CONTEXT_INLINE_ROW_BYTES)] {
        let whole = content(n, len);
        let context = upload(&client, opening(n as u8, len), &whole).await.unwrap();
        assert_eq!((context.size_bytes, &context.sha256[..]), (len as u64, &sha256(&whole)[..]));
        assert!(crate::download::whole(&client, &context.id).await == whole);
    }
    assert_eq!(files(&server, "stage").len() + files(&server, "blobs").len(), 0);
}

#[tokio::test]
async fn an_upload_goes_on_after_a_restart_with_what_was_acknowledged() {
    let server = Setup::dev().start().await;
    let whole = content(2, 6 * CHUNK);
    let chunks: Vec<&[u8]> = whole.chunks(CHUNK).collect();
    let client = server.dev("default", "planner");
    let mut upload = Upload::open(&client, opening(1, whole.len())).await.unwrap();
    for index in [0, 1, 4] {
        upload.chunk(index as u64, chunks[index]).await;
    }
    upload.acked(3).await;
    let server = server.restart().await;
    let client = server.dev("default", "planner");
    // On a resume the id alone counts.
    let open = v1::StreamOpen { stream_id: stream_id(1).into(), ..Default::default() };
    let mut upload = Upload::open(&client, open).await.unwrap();
    let seen = upload.opened.progress.clone().unwrap();
    let ranges: Vec<(u64, u64)> = seen.received.iter().map(|r| (r.first_index, r.count)).collect();
    assert_eq!((ranges, seen.received_bytes), (vec![(0, 2), (4, 1)], 3 * CHUNK as u64));
    for index in [5, 3, 2] {
        upload.chunk(index as u64, chunks[index]).await;
    }
    let context = upload.complete(&whole).await.unwrap();
    assert!(crate::download::whole(&client, &context.id).await == whole);
}

#[tokio::test]
async fn an_upload_of_which_nothing_is_missing_completes_at_once_after_a_resume() {
    let server = Setup::dev().start().await;
    let client = server.dev("default", "planner");
    let whole = content(17, 40 * CHUNK);
    let mut upload = Upload::open(&client, opening(1, whole.len())).await.unwrap();
    for (index, data) in whole.chunks(CHUNK).enumerate() {
        upload.chunk(index as u64, data).await;
    }
    upload.acked(40).await;
    // The digest of the whole begins anew, and is what the completion waits for last.
    let mut again = Upload::open(&client, opening(1, whole.len())).await.unwrap();
    let context = again.complete(&whole).await.unwrap();
    assert_eq!(context.sha256, sha256(&whole));
}

#[tokio::test]
async fn a_chunk_that_does_not_fit_is_refused_alone() {
    let server = Setup::dev().start().await;
    let client = server.dev("default", "planner");
    let whole = content(3, 2 * CHUNK + 500);
    let mut upload = Upload::open(&client, opening(1, whole.len())).await.unwrap();
    let chunks: Vec<&[u8]> = whole.chunks(CHUNK).collect();

    upload.chunk_as(0, chunks[0], sha256(chunks[1])).await;
    assert_eq!(upload.rejected(0).await, ErrorCode::DigestMismatch, "changed on its way");
    upload.chunk_as(0, chunks[0], vec![1; 31]).await;
    assert_eq!(upload.rejected(0).await, ErrorCode::InvalidArgument, "no digest");
    upload.chunk(0, &chunks[0][..CHUNK - 1]).await;
    assert_eq!(upload.rejected(0).await, ErrorCode::ChunkMismatch, "truncated");
    upload.chunk(1, &whole[CHUNK..]).await;
    assert_eq!(upload.rejected(1).await, ErrorCode::ChunkMismatch, "runs over into the next");
    upload.chunk(2, &whole[CHUNK..2 * CHUNK]).await;
    assert_eq!(upload.rejected(2).await, ErrorCode::ChunkMismatch, "longer than the whole");
    upload.chunk(3, chunks[2]).await;
    assert_eq!(upload.rejected(3).await, ErrorCode::ChunkMismatch, "after the end");
    upload.chunk(u64::MAX, chunks[0]).await;
    assert_eq!(upload.rejected(u64::MAX).await, ErrorCode::ChunkMismatch, "far after the end");
    upload.chunk(0, &[]).await;
    assert_eq!(upload.rejected(0).await, ErrorCode::ChunkMismatch, "empty");

    for (index, data) in chunks.iter().enumerate() {
        upload.chunk(index as u64, data).await;
    }
    upload.acked(3).await;
    upload.chunk(1, chunks[1]).await;
    upload.acked(1).await;
    let other = content(99, CHUNK);
    upload.chunk(1, &other).await;
    assert_eq!(upload.rejected(1).await, ErrorCode::ChunkMismatch, "another content under a number that is there");
    let context = upload.complete(&whole).await.unwrap();
    assert!(crate::download::whole(&client, &context.id).await == whole, "what was refused left no trace");
    // Of what was refused: four whole chunks, one that is short by a byte, one that is long by 500, and the end.
    let sent = (4 * CHUNK) + (CHUNK - 1) + (CHUNK + 500) + 500 + whole.len() + CHUNK;
    let metrics = server.metrics().await;
    assert!(metrics.contains(&format!("acb_upload_bytes_total {sent}\n")), "not {sent}: {metrics}");
}

#[tokio::test]
async fn chunks_that_are_refused_among_others_in_order_leave_the_rest_and_the_whole_right() {
    let server = Setup::dev().start().await;
    let client = server.dev("default", "planner");
    let whole = content(3, 20 * CHUNK + 77);
    let chunks: Vec<&[u8]> = whole.chunks(CHUNK).collect();
    let mut upload = Upload::open(&client, opening(1, whole.len())).await.unwrap();
    // They come in order and are checked several at a time: the first of some, one behind another, and the last of all.
    let bad = [0, 5, 6, 11, 20];
    for (index, data) in chunks.iter().enumerate() {
        let mut sent = data.to_vec();
        if bad.contains(&index) {
            // Changed on its way.
            sent[7] ^= 1;
        }
        upload.chunk_as(index as u64, &sent, sha256(data)).await;
    }
    let (mut rejected, mut acked) = (Vec::new(), 0);
    while rejected.len() + acked < chunks.len() {
        let frame = upload.next().await.unwrap();
        acked += frame.acks.iter().map(|range| range.count as usize).sum::<usize>();
        rejected.extend(frame.rejects.iter().map(|reject| {
            assert_eq!(reject.error.as_ref().unwrap().code, ErrorCode::DigestMismatch.name());
            reject.index as usize
        }));
    }
    rejected.sort_unstable();
    assert_eq!(rejected, bad);
    for index in bad {
        upload.chunk(index as u64, chunks[index]).await;
    }
    upload.acked(bad.len() as u64).await;
    let context = upload.complete(&whole).await.unwrap();
    assert!(crate::download::whole(&client, &context.id).await == whole);
}

#[tokio::test]
async fn a_whole_that_is_not_what_was_said_ends_the_upload_and_frees_its_space() {
    let server = Setup::dev().start().await;
    let client = server.dev("default", "planner");
    let whole = content(4, 2 * CHUNK);
    let mut first = Upload::open(&client, opening(1, whole.len())).await.unwrap();
    for (index, data) in whole.chunks(CHUNK).enumerate() {
        first.chunk(index as u64, data).await;
    }
    let wrong = first.complete_as(whole.len() as u64, sha256(b"something else")).await.unwrap_err();
    assert_eq!(wrong.code(), ErrorCode::DigestMismatch);
    assert_eq!(files(&server, "stage").len() + files(&server, "blobs").len(), 0, "space was given back");
    let again = Upload::open(&client, opening(1, whole.len())).await.map(|_| ());
    assert_eq!(again.unwrap_err().code(), ErrorCode::StreamClosed);
    // Another one from the same source goes well.
    upload(&client, opening(2, whole.len()), &whole).await.unwrap();
}

#[tokio::test]
async fn a_size_that_lies_and_missing_chunks_are_told_and_the_upload_goes_on() {
    let server = Setup::dev().start().await;
    let client = server.dev("default", "planner");
    let whole = content(5, 3 * CHUNK);
    let chunks: Vec<&[u8]> = whole.chunks(CHUNK).collect();
    let mut upload = Upload::open(&client, opening(1, whole.len())).await.unwrap();
    upload.chunk(0, chunks[0]).await;
    upload.chunk(2, chunks[2]).await;
    let early = upload.complete(&whole).await.unwrap_err();
    assert_eq!((early.code(), early.error.details["missing"].as_str()), (ErrorCode::InvalidState, "1"));
    let mut upload = Upload::open(&client, opening(1, 0)).await.unwrap();
    upload.chunk(1, chunks[1]).await;
    let lies = upload.complete_as(whole.len() as u64 - 1, sha256(&whole)).await.unwrap_err();
    assert_eq!(lies.code(), ErrorCode::ChunkMismatch);
    let mut upload = Upload::open(&client, opening(1, 0)).await.unwrap();
    assert_eq!(upload.opened.progress.as_ref().unwrap().received_bytes, whole.len() as u64);
    upload.complete(&whole).await.unwrap();
    // One that never said its size.
    let mut upload = Upload::open(&client, opening(2, 0)).await.unwrap();
    upload.chunk(1, chunks[1]).await;
    upload.acked(1).await;
    upload.chunk(0, &chunks[0][..7]).await;
    assert_eq!(upload.rejected(0).await, ErrorCode::ChunkMismatch, "only the last may be short");
    upload.chunk(0, chunks[0]).await;
    upload.chunk(2, &chunks[2][..7]).await;
    upload.acked(2).await;
    upload.chunk(3, &chunks[2][..7]).await;
    assert_eq!(upload.rejected(3).await, ErrorCode::ChunkMismatch, "after the last");
    let context = upload.complete(&whole[..2 * CHUNK + 7]).await.unwrap();
    assert_eq!(context.size_bytes, 2 * CHUNK as u64 + 7);
}

#[tokio::test]
async fn an_upload_is_its_owners_alone() {
    let server = Setup::dev().start().await;
    let (client, stranger) = (server.dev("default", "planner"), server.dev("default", "stranger"));
    let whole = content(6, CHUNK);
    let mut upload = Upload::open(&client, opening(1, whole.len())).await.unwrap();
    let foreign = Upload::open(&stranger, opening(1, whole.len())).await.map(|_| ()).unwrap_err();
    let absent = progress(&stranger, 77).await.unwrap_err();
    let hidden = progress(&stranger, 1).await.unwrap_err();
    assert_eq!(
        (foreign.code(), absent.code(), hidden.code()),
        (ErrorCode::StreamNotFound, ErrorCode::StreamNotFound, ErrorCode::StreamNotFound)
    );
    abort(&stranger, 1).await.unwrap();
    upload.chunk(0, &whole).await;
    upload.complete(&whole).await.unwrap();
}

#[tokio::test]
async fn an_upload_that_nobody_continues_expires_and_gives_its_space_back() {
    let server = Setup::dev().start().await;
    let client = server.dev("default", "planner");
    let whole = content(7, 2 * CHUNK);
    let mut upload = Upload::open(&client, opening(1, whole.len())).await.unwrap();
    upload.chunk(0, &whole[..CHUNK]).await;
    upload.acked(1).await;
    server.advance(limits::STREAM_TTL.saturating_sub(Duration::from_secs(1)));
    assert_eq!(progress(&client, 1).await.unwrap().received_bytes, CHUNK as u64);
    server.advance(Duration::from_secs(2));
    assert_eq!(progress(&client, 1).await.unwrap_err().code(), ErrorCode::StreamExpired);
    let late = Upload::open(&client, opening(1, whole.len())).await.map(|_| ());
    assert_eq!(late.unwrap_err().code(), ErrorCode::StreamExpired);
    assert_eq!(upload.ended().await, ErrorCode::SessionFenced, "the connection that held it is told");
    // Another one, of which nobody takes notice, is found by the reconciler.
    drop(Upload::open(&client, opening(2, whole.len())).await.unwrap());
    server.advance(limits::STREAM_TTL + Duration::from_secs(1));
    let stages = || async { files(&server, "stage").len() };
    wait_until("stages are dropped", stages, |n| *n == 0).await;
    assert_eq!(progress(&client, 2).await.unwrap_err().code(), ErrorCode::StreamExpired);
}

#[tokio::test]
async fn of_two_clients_on_one_stream_the_newer_goes_on_and_the_older_is_told() {
    let server = Setup::dev().start().await;
    let client = server.dev("default", "planner");
    let whole = content(8, 3 * CHUNK);
    let chunks: Vec<&[u8]> = whole.chunks(CHUNK).collect();
    let mut older = Upload::open(&client, opening(1, whole.len())).await.unwrap();
    older.chunk(0, chunks[0]).await;
    older.acked(1).await;
    let mut newer = Upload::open(&client, opening(1, whole.len())).await.unwrap();
    assert_eq!(newer.opened.progress.as_ref().unwrap().received_bytes, CHUNK as u64);
    assert_eq!(older.ended().await, ErrorCode::SessionFenced);
    newer.chunk(1, chunks[1]).await;
    newer.chunk(2, chunks[2]).await;
    newer.complete(&whole).await.unwrap();
}

#[tokio::test]
async fn a_completed_upload_answers_the_same_again() {
    let server = Setup::dev().start().await;
    let client = server.dev("default", "planner");
    let whole = content(9, 2 * CHUNK);
    let first = upload(&client, opening(1, whole.len()), &whole).await.unwrap();
    let server = server.restart().await;
    let client = server.dev("default", "planner");
    let mut again = Upload::open(&client, opening(1, whole.len())).await.unwrap();
    assert_eq!(again.opened.progress.as_ref().unwrap().state(), v1::StreamState::Complete);
    assert_eq!(again.complete(&whole).await.unwrap(), first);
    let mut other = Upload::open(&client, opening(1, whole.len())).await.unwrap();
    assert_eq!(other.complete(b"other").await.unwrap_err().code(), ErrorCode::DigestMismatch);
    assert_eq!(abort(&client, 1).await.unwrap_err().code(), ErrorCode::StreamClosed);
    assert_eq!(files(&server, "blobs").len(), 1);
}

#[tokio::test]
async fn an_abort_gives_the_space_back_and_may_be_repeated() {
    let server = Setup::dev().start().await;
    let client = server.dev("default", "planner");
    let whole = content(10, 2 * CHUNK);
    let mut open = Upload::open(&client, opening(1, whole.len())).await.unwrap();
    open.chunk(0, &whole[..CHUNK]).await;
    open.acked(1).await;
    abort(&client, 1).await.unwrap();
    abort(&client, 1).await.unwrap();
    abort(&client, 44).await.unwrap();
    assert_eq!(open.ended().await, ErrorCode::SessionFenced);
    assert_eq!(progress(&client, 1).await.unwrap().state(), v1::StreamState::Aborted);
    assert_eq!(files(&server, "stage"), [] as [PathBuf; 0]);
}

#[tokio::test]
async fn a_new_revision_is_made_for_the_revision_that_it_was_made_for() {
    let server = Server::start().await;
    let client = server.agent("planner", AGENT).await;
    let (one, two) = (content(11, CHUNK), content(12, 2 * CHUNK));
    let first = upload(&client, opening(1, one.len()), &one).await.unwrap();
    let update = |n: u8, if_rev: u64, len: usize| v1::StreamOpen {
        context_id: first.id.clone(),
        if_rev,
        spec: Some(v1::ContextSpec { description: "grown".into(), ..Default::default() }),
        ..opening(n, len)
    };
    let stale = Upload::open(&client, update(2, first.rev + 5, two.len())).await.map(|_| ());
    assert_eq!(stale.unwrap_err().code(), ErrorCode::RevisionConflict, "told before anything is sent");
    let unknown = v1::StreamOpen { fields: vec!["owner".into()], ..update(5, first.rev, two.len()) };
    let unknown = Upload::open(&client, unknown).await.map(|_| ());
    assert_eq!(unknown.unwrap_err().code(), ErrorCode::InvalidArgument, "no field that can change");
    let stranger = server.agent("stranger", AGENT).await;
    let hidden = Upload::open(&stranger, update(3, first.rev, two.len())).await.map(|_| ());
    assert_eq!(hidden.unwrap_err().code(), ErrorCode::ContextNotFound);
    // Two uploads for one revision: the first to end wins.
    let mut slow = Upload::open(&client, update(4, first.rev, two.len())).await.unwrap();
    let second = upload(&client, update(5, first.rev, two.len()), &two).await.unwrap();
    assert_eq!((&second.id, second.spec.as_ref().unwrap().version.as_str()), (&first.id, "0.1.1"));
    assert_eq!(second.spec.as_ref().unwrap().description, "grown");
    assert!(second.rev > first.rev);
    let third = content(13, 2 * CHUNK);
    for (index, data) in third.chunks(CHUNK).enumerate() {
        slow.chunk(index as u64, data).await;
    }
    assert_eq!(slow.complete(&third).await.unwrap_err().code(), ErrorCode::RevisionConflict);
    assert_eq!(progress(&client, 4).await.unwrap().state(), v1::StreamState::Aborted);
    assert!(crate::download::whole(&client, &first.id).await == two);
    // What the loser had sent is a blob that nobody names: the sweep takes it, and leaves the two revisions'.
    server.advance(Duration::from_secs(700));
    let blobs = || async { files(&server, "blobs").len() };
    wait_until("the unnamed blob is swept", blobs, |n| *n == 2).await;
    server.advance(Duration::from_secs(700));
    assert!(crate::download::whole(&client, &first.id).await == two, "swept twice, and nothing that is named went");
}

#[tokio::test]
async fn a_key_that_is_taken_is_told_before_anything_is_sent() {
    let server = Setup::dev().start().await;
    let client = server.dev("default", "planner");
    let whole = content(14, CHUNK);
    let keyed = |n| v1::StreamOpen {
        spec: Some(v1::ContextSpec { key: "plans/alpha".into(), ..Default::default() }),
        ..opening(n, CHUNK)
    };
    let mut slow = Upload::open(&client, keyed(1)).await.unwrap();
    upload(&client, keyed(2), &whole).await.unwrap();
    let late = Upload::open(&client, keyed(3)).await.map(|_| ());
    assert_eq!(late.unwrap_err().code(), ErrorCode::ContextExists);
    slow.chunk(0, &whole).await;
    assert_eq!(slow.complete(&whole).await.unwrap_err().code(), ErrorCode::ContextExists, "taken meanwhile");
}

#[tokio::test]
async fn chunks_of_contexts_that_the_caller_may_read_need_not_be_sent() {
    let server = Server::start().await;
    // With --dev everybody is an admin and may read all.
    let (client, stranger) = (server.agent("planner", AGENT).await, server.agent("stranger", AGENT).await);
    let whole = content(15, 3 * CHUNK);
    upload(&client, opening(1, whole.len()), &whole).await.unwrap();
    let digests: Vec<_> = whole.chunks(CHUNK).map(|chunk| sha256(chunk).into()).collect();
    let offer = |digests: &[bytes::Bytes]| Frame::Offer(v1::ChunkOffer { first_index: 0, sha256: digests.to_vec() });

    let mut own = Upload::open(&client, opening(2, whole.len())).await.unwrap();
    own.frame(offer(&digests)).await;
    own.acked(3).await;
    own.complete(&whole).await.unwrap();
    let metrics = server.metrics().await;
    assert!(metrics.contains("acb_upload_chunks_found_total 3"), "{metrics}");

    // A private context must not be found out by its digests.
    let mut theirs = Upload::open(&stranger, opening(3, whole.len())).await.unwrap();
    theirs.frame(offer(&digests)).await;
    theirs.chunk(2, &whole[2 * CHUNK..]).await;
    theirs.acked(1).await;
    let missing = theirs.complete(&whole).await.unwrap_err();
    assert_eq!((missing.code(), missing.error.details["missing"].as_str()), (ErrorCode::InvalidState, "0"));
}

#[tokio::test]
async fn a_full_disk_is_told_and_the_upload_goes_on_when_there_is_room() {
    let blobs = MemoryBlobs::new();
    let server = Setup::dev().blobs(&blobs).start().await;
    let client = server.dev("default", "planner");
    let whole = content(16, 3 * CHUNK);
    let chunks: Vec<&[u8]> = whole.chunks(CHUNK).collect();
    let mut upload = Upload::open(&client, opening(1, whole.len())).await.unwrap();
    upload.chunk(0, chunks[0]).await;
    upload.acked(1).await;
    blobs.refuse_writes(Some(ErrorCode::StorageFull));
    upload.chunk(1, chunks[1]).await;
    assert_eq!(upload.rejected(1).await, ErrorCode::StorageFull);
    let other = Upload::open(&client, opening(2, whole.len())).await.map(|_| ());
    assert_eq!(other.unwrap_err().code(), ErrorCode::StorageFull);
    assert_eq!(progress(&client, 2).await.unwrap_err().code(), ErrorCode::StreamNotFound, "nothing was begun");
    blobs.refuse_writes(None);
    upload.chunk(1, chunks[1]).await;
    upload.chunk(2, chunks[2]).await;
    let context = upload.complete(&whole).await.unwrap();
    assert!(crate::download::whole(&client, &context.id).await == whole);
}

#[tokio::test]
async fn a_whole_that_no_disk_holds_is_refused_at_the_opening() {
    let server = Setup::dev().start().await;
    let client = server.dev("default", "planner");
    let huge = v1::StreamOpen { total_bytes: limits::STREAM_BYTES_MAX, chunk_bytes: 8 << 20, ..opening(1, 0) };
    let refused = Upload::open(&client, huge).await.map(|_| ()).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::StorageFull, "a terabyte is more than this machine has");
    assert_eq!(files(&server, "stage"), [] as [PathBuf; 0]);
    let larger = v1::StreamOpen { total_bytes: limits::STREAM_BYTES_MAX + 1, ..opening(1, 0) };
    assert_eq!(Upload::open(&client, larger).await.map(|_| ()).unwrap_err().code(), ErrorCode::ContextTooLarge);
    let cut = v1::StreamOpen { chunk_bytes: 1000, ..opening(1, 0) };
    assert_eq!(Upload::open(&client, cut).await.map(|_| ()).unwrap_err().code(), ErrorCode::InvalidArgument);
    upload(&client, opening(1, 10), &content(1, 10)).await.unwrap();
}
