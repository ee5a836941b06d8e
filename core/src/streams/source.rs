//! Reads what is uploaded, in chunks, and hashes each and the whole on a blocking thread.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use acb_types::{RunningDigest, Sha256Digest, limits, stream::ChunkSet};
use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::mpsc,
};

use super::resume::local;
use crate::error::{Error, ErrorCode, Result};

const OPERATION: &str = "streams.upload";

/// Where an upload's bytes come from.
pub(super) enum Source {
    Path(PathBuf),
    Reader(Box<dyn AsyncRead + Send + Unpin>),
    Bytes(Bytes),
}

impl Source {
    /// The whole content, when it is small enough for one call.
    pub(super) async fn small(&mut self) -> Result<Option<Bytes>> {
        let head = match self {
            Self::Bytes(content) => {
                return Ok(Some(content.clone()).filter(|c| c.len() <= limits::CONTEXT_ONE_CALL_BYTES));
            }
            Self::Path(path) => {
                let file = tokio::fs::File::open(&*path).await.map_err(|e| local(OPERATION, path, e))?;
                let about = file.metadata().await.map_err(|e| local(OPERATION, path, e))?;
                if !about.is_file() || about.len() > limits::CONTEXT_ONE_CALL_BYTES as u64 {
                    return Ok(None);
                }
                read_head(file).await.map_err(|e| local(OPERATION, path, e))?
            }
            Self::Reader(reader) => read_head(&mut *reader).await.map_err(reader_failed)?,
        };
        if head.len() <= limits::CONTEXT_ONE_CALL_BYTES {
            return Ok(Some(head));
        }
        if let Self::Reader(reader) = self {
            // What was read comes first again.
            let rest = std::mem::replace(reader, Box::new(tokio::io::empty()));
            *reader = Box::new(AsyncReadExt::chain(io::Cursor::new(head), rest));
        }
        Ok(None)
    }
}

/// A byte more than one call takes, or all there is.
async fn read_head(from: impl AsyncRead + Send + Unpin) -> io::Result<Bytes> {
    let mut head = Vec::new();
    from.take(limits::CONTEXT_ONE_CALL_BYTES as u64 + 1).read_to_end(&mut head).await?;
    Ok(head.into())
}

fn reader_failed(error: io::Error) -> Error {
    Error::new(ErrorCode::InvalidArgument, OPERATION, format!("the reader failed: {error}")).with_source(error)
}

/// A chunk that is ready to be sent.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) index: u64,
    pub(super) sha256: Sha256Digest,
    pub(super) data: Bytes,
}

/// What a source gives.
#[derive(Debug)]
pub(super) enum Item {
    Chunk(Chunk),
    End { total_bytes: u64, sha256: Sha256Digest },
}

/// Items that wait to be taken: one, so that with the one at hand no more than two chunks stand beside the window.
const WAITING: usize = 1;

/// Reads the source from its beginning. What the bus has already is hashed and not given.
pub(super) fn start(
    core: &crate::connection::Core,
    source: Source,
    chunk_bytes: usize,
    skip: ChunkSet,
) -> mpsc::Receiver<Result<Item>> {
    let (give, take) = mpsc::channel(WAITING);
    core.tasks.spawn("upload source", async move {
        let outcome = match source {
            Source::Path(path) => {
                let give = give.clone();
                blocking(move || read_file(&path, chunk_bytes, &skip, &give)).await
            }
            Source::Bytes(mut content) => {
                let give = give.clone();
                let next = move || {
                    let len = content.len().min(chunk_bytes);
                    Ok(content.split_to(len))
                };
                blocking(move || cut(next, chunk_bytes, &skip, &give)).await
            }
            // The reader goes with its upload, also while it has nothing to give: who feeds it learns by that.
            Source::Reader(reader) => tokio::select! {
                outcome = read_stream(reader, chunk_bytes, &give) => outcome,
                () = give.closed() => return,
            },
        };
        if let Err(error) = outcome {
            // Nobody waits for it when the upload has ended.
            let _ = give.send(Err(error)).await;
        }
    });
    take
}

async fn blocking(read: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    let read = tokio::task::spawn_blocking(read);
    read.await.unwrap_or_else(|e| Err(Error::new(ErrorCode::Internal, OPERATION, e.to_string())))
}

fn read_file(path: &Path, chunk_bytes: usize, skip: &ChunkSet, give: &mpsc::Sender<Result<Item>>) -> Result<()> {
    let fail = |e| local(OPERATION, path, e);
    let mut file = std::fs::File::open(path).map_err(fail)?;
    let next = || {
        let mut data = vec![0; chunk_bytes];
        let len = read_full(&mut file, &mut data).map_err(fail)?;
        data.truncate(len);
        Ok(data.into())
    };
    cut(next, chunk_bytes, skip, give)
}

/// Gives chunks until there is one that is not full.
fn cut(
    mut next: impl FnMut() -> Result<Bytes>,
    chunk_bytes: usize,
    skip: &ChunkSet,
    give: &mpsc::Sender<Result<Item>>,
) -> Result<()> {
    let mut whole = RunningDigest::default();
    let mut total = 0;
    for index in 0.. {
        let data = next()?;
        let len = data.len();
        if len == 0 {
            break;
        }
        total += len as u64;
        if skip.contains(index) {
            whole.update(&data);
        } else {
            let sha256 = whole.update_with_chunk(&data);
            let chunk = Chunk { index, sha256, data };
            if give.blocking_send(Ok(Item::Chunk(chunk))).is_err() {
                return Ok(());
            }
        }
        if len < chunk_bytes {
            break;
        }
    }
    let sha256 = whole.digest();
    // Nobody waits for it when the upload has ended.
    let _ = give.blocking_send(Ok(Item::End { total_bytes: total, sha256 }));
    Ok(())
}

fn read_full(file: &mut std::fs::File, into: &mut [u8]) -> io::Result<usize> {
    let mut at = 0;
    while at < into.len() {
        match file.read(&mut into[at..]) {
            Ok(0) => break,
            Ok(n) => at += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(at)
}

async fn read_stream(
    mut reader: Box<dyn AsyncRead + Send + Unpin>,
    chunk_bytes: usize,
    give: &mpsc::Sender<Result<Item>>,
) -> Result<()> {
    let mut whole = RunningDigest::default();
    let mut total = 0;
    for index in 0.. {
        let mut data = BytesMut::with_capacity(chunk_bytes);
        while data.len() < chunk_bytes {
            let room = (chunk_bytes - data.len()) as u64;
            if (&mut reader).take(room).read_buf(&mut data).await.map_err(reader_failed)? == 0 {
                break;
            }
        }
        if data.is_empty() {
            break;
        }
        let data = data.freeze();
        total += data.len() as u64;
        let short = data.len() < chunk_bytes;
        let hashing = tokio::task::spawn_blocking(move || {
            let sha256 = whole.update_with_chunk(&data);
            (sha256, data, whole)
        });
        let (sha256, data, back) =
            hashing.await.map_err(|e| Error::new(ErrorCode::Internal, OPERATION, e.to_string()))?;
        whole = back;
        if give.send(Ok(Item::Chunk(Chunk { index, sha256, data }))).await.is_err() {
            return Ok(());
        }
        if short {
            break;
        }
    }
    let sha256 = whole.digest();
    // Nobody waits for it when the upload has ended.
    let _ = give.send(Ok(Item::End { total_bytes: total, sha256 })).await;
    Ok(())
}
