//! Downloads: whole, in ranges, of revisions, and by whom.

use std::os::unix::fs::FileExt as _;

use acb_proto::v1::{self, receive_context_response::Frame};
use acb_types::ErrorCode;

use crate::{
    support::{Client, Failure, Server, Setup, failure},
    upload::{AGENT, CHUNK, content, opening, sha256, upload},
};

/// What came of a download.
struct Received {
    context: v1::Context,
    offset: u64,
    data: Vec<u8>,
}

async fn receive(client: &Client, request: v1::ReceiveContextRequest) -> Result<Received, Failure> {
    let outcome = client.streams().receive_context(request.clone()).await;
    let mut frames = outcome.map_err(|status| failure(&status))?.into_inner();
    let mut received: Option<Received> = None;
    let (mut length, mut completed) = (0, None);
    while let Some(frame) = frames.message().await.map_err(|status| failure(&status))? {
        match frame.frame.unwrap() {
            Frame::Opened(opened) => {
                length = opened.length_bytes;
                received =
                    Some(Received { context: opened.context.unwrap(), offset: request.offset_bytes, data: vec![] });
            }
            Frame::Chunk(chunk) => {
                let received = received.as_mut().expect("opened comes first");
                assert_eq!(
                    chunk.offset_bytes,
                    received.offset + received.data.len() as u64,
                    "in order, without a hole"
                );
                assert_eq!(chunk.sha256, sha256(&chunk.data));
                assert!(chunk.data.len() <= 1 << 20);
                received.data.extend_from_slice(&chunk.data);
            }
            Frame::Completed(end) => completed = Some(end.length_bytes),
        }
    }
    assert_eq!(completed, Some(length), "the last frame says that it is whole");
    Ok(received.unwrap())
}

fn wanted(id: &str) -> v1::ReceiveContextRequest {
    v1::ReceiveContextRequest { context_id: id.to_owned(), ..Default::default() }
}

/// A context's whole content.
pub(crate) async fn whole(client: &Client, id: &str) -> Vec<u8> {
    receive(client, wanted(id)).await.unwrap().data
}

impl std::fmt::Debug for Received {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes from {} of {}", self.data.len(), self.offset, self.context.id)
    }
}

#[tokio::test]
async fn any_range_comes_as_it_was_sent() {
    let server = Setup::dev().start().await;
    let client = server.dev("default", "planner");
    let bytes = content(1, 11 * CHUNK + 123);
    let open = v1::StreamOpen {
        spec: Some(v1::ContextSpec { key: "data/one".into(), ..Default::default() }),
        ..opening(1, bytes.len())
    };
    let context = upload(&client, open, &bytes).await.unwrap();
    let by_key = v1::ReceiveContextRequest { key: "data/one".into(), ..Default::default() };
    let got = receive(&client, by_key).await.unwrap();
    assert!((got.data, got.context) == (bytes.clone(), context.clone()));
    let end = bytes.len() as u64;
    for (offset, length) in [(0, 1), (5, CHUNK as u64 * 9), (1 << 20, 1 << 20), (end - 7, 0), (end, 0), (17, end - 17)]
    {
        let request = v1::ReceiveContextRequest { offset_bytes: offset, length_bytes: length, ..wanted(&context.id) };
        let until = if length == 0 { end } else { offset + length };
        let got = receive(&client, request).await.unwrap();
        assert!(got.data == bytes[offset as usize..until as usize], "{length} bytes from {offset}");
    }
    for (offset, length) in [(end + 1, 0), (0, end + 1), (end, 1), (u64::MAX, 1), (1, u64::MAX)] {
        let request = v1::ReceiveContextRequest { offset_bytes: offset, length_bytes: length, ..wanted(&context.id) };
        assert_eq!(
            receive(&client, request).await.unwrap_err().code(),
            ErrorCode::InvalidArgument,
            "{length} from {offset}"
        );
    }
}

#[tokio::test]
async fn an_older_revision_is_downloaded_as_it_was() {
    let server = Setup::dev().start().await;
    let client = server.dev("default", "planner");
    let (one, two) = (content(1, 2 * CHUNK), content(2, CHUNK));
    let first = upload(&client, opening(1, one.len()), &one).await.unwrap();
    let update =
        v1::StreamOpen { context_id: first.id.clone(), if_rev: first.rev, spec: None, ..opening(2, two.len()) };
    let second = upload(&client, update, &two).await.unwrap();
    assert!(whole(&client, &first.id).await == two);
    let at = |rev| v1::ReceiveContextRequest { at_rev: rev, ..wanted(&first.id) };
    assert!(receive(&client, at(first.rev)).await.unwrap().data == one);
    assert!(receive(&client, at(second.rev)).await.unwrap().data == two);
}

#[tokio::test]
async fn who_may_not_see_a_context_cannot_tell_it_from_none() {
    let server = Server::start().await;
    let client = server.agent("planner", AGENT).await;
    let (stranger, friend) = (server.agent("stranger", AGENT).await, server.agent("friend", AGENT).await);
    let bytes = content(3, CHUNK);
    let share = v1::ContextShare { agent_id: "friend".into(), access: v1::ContextAccess::Read as i32 };
    let open = v1::StreamOpen {
        spec: Some(v1::ContextSpec {
            scope: v1::ContextScope::Shared as i32,
            shares: vec![share],
            ..Default::default()
        }),
        ..opening(1, bytes.len())
    };
    let context = upload(&client, open, &bytes).await.unwrap();
    assert!(whole(&friend, &context.id).await == bytes);
    let hidden = receive(&stranger, wanted(&context.id)).await.unwrap_err();
    let absent = receive(&stranger, wanted("0194f0c1-7b1e-7c3a-9d2f-5a6b7c8d9e0f")).await.unwrap_err();
    assert_eq!((hidden.code(), absent.code()), (ErrorCode::ContextNotFound, ErrorCode::ContextNotFound));
    assert_eq!(receive(&client, wanted("")).await.unwrap_err().code(), ErrorCode::MissingField);
}

#[tokio::test]
async fn a_content_that_has_lost_bytes_on_the_disk_is_told_as_damaged() {
    let server = Setup::dev().start().await;
    let client = server.dev("default", "planner");
    let bytes = content(4, 3 * CHUNK);
    let context = upload(&client, opening(1, bytes.len()), &bytes).await.unwrap();
    let name: String = context.sha256.iter().map(|b| format!("{b:02x}")).collect();
    let path = server.data_folder().path().join(format!("data/tenants/default/blobs/{}/{name}", &name[..2]));
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"damaged", CHUNK as u64).unwrap();
    let got = receive(&client, wanted(&context.id)).await.unwrap();
    assert_ne!(sha256(&got.data), context.sha256, "the digest of the whole is what tells");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(receive(&client, wanted(&context.id)).await.unwrap_err().code(), ErrorCode::DataDamaged);
}
