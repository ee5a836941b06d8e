//! Downloads: pieces in order, checked, and the rest asked for when a connection broke.

use std::{
    io::{self, Read as _, Seek as _, Write as _},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use acb_proto::v1::{self, receive_context_response::Frame};
use acb_types::{RunningDigest, Sha256Digest, limits};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    sync::mpsc,
    time::Instant,
};

use super::{
    IDLE_TIMEOUT, Progress, ProgressFn,
    bulk::{self, Bulk},
    progress::Meter,
    resume::{self, DownloadToken, local},
};
use crate::{
    client::Handle,
    connection::Core,
    convert,
    error::{Error, ErrorCode, Result},
};

const OPERATION: &str = "streams.download";
/// Pieces that wait to be written.
const PIECES_WAITING: usize = 4;
/// Bytes of a file that are read at once to go on with its digest.
const READ_BYTES: usize = 1 << 20;

/// What was downloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Downloaded {
    /// The context.
    pub context_id: String,
    /// The revision whose content it is.
    pub rev: u64,
    /// Size of the whole content, in bytes.
    pub size: u64,
    /// SHA-256 of the whole content.
    pub sha256: Sha256Digest,
    /// Bytes that came in this process.
    pub received_bytes: u64,
    /// Connections that it took.
    pub connections: u32,
}

/// A download that is being prepared.
#[must_use = "nothing is read before it has somewhere to go"]
#[derive(Clone)]
pub struct DownloadBuilder {
    core: Handle,
    context_id: String,
    key: String,
    at_rev: u64,
    range: Range<u64>,
    progress: Option<ProgressFn>,
    idle_timeout: Duration,
}

impl std::fmt::Debug for DownloadBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DownloadBuilder")
            .field("context_id", &self.context_id)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl DownloadBuilder {
    pub(super) fn new(core: Handle, context_id: String, key: String) -> Self {
        Self { core, context_id, key, at_rev: 0, range: 0..u64::MAX, progress: None, idle_timeout: IDLE_TIMEOUT }
    }

    /// As it was at a revision; now by default.
    pub fn at_rev(mut self, rev: u64) -> Self {
        self.at_rev = rev;
        self
    }

    /// A part of it, which must lie inside the content and not be empty, else the download is an `invalid_argument`; an end
    /// of `u64::MAX` is the content's. The digest of a part is not
    /// checked against the whole's; each piece has its own.
    pub fn range(mut self, range: Range<u64>) -> Self {
        self.range = range;
        self
    }

    /// Is told of progress with every piece.
    pub fn progress(mut self, tell: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(tell));
        self
    }

    /// How long nothing may come before it is given up; 5 minutes by default.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// Downloads into memory.
    ///
    /// # Errors
    /// As [`Self::to_path`].
    pub async fn bytes(self) -> Result<Bytes> {
        let mut out = Vec::new();
        self.to_writer(&mut out).await?;
        Ok(out.into())
    }

    /// Downloads into a writer, which is flushed at the end. Goes on by itself over lost connections. The digest of a whole
    /// is known only at its end: what was written before an error is not to be used.
    ///
    /// # Errors
    /// As [`Self::to_path`].
    ///
    /// # Cancel safety
    /// What was written stays written.
    pub async fn to_writer(self, writer: &mut (impl AsyncWrite + Send + Unpin)) -> Result<Downloaded> {
        if self.range.is_empty() {
            let text = format!("bytes {} to {} are none", self.range.start, self.range.end);
            return Err(Error::new(ErrorCode::InvalidArgument, OPERATION, text));
        }
        let (give, mut take) = mpsc::channel::<Bytes>(PIECES_WAITING);
        let mut transfer = self.transfer(0, RunningDigest::default());
        let core = self.core.arc();
        let write = async {
            while let Some(piece) = take.recv().await {
                writer.write_all(&piece).await?;
            }
            writer.flush().await
        };
        let read = async {
            let outcome = transfer.carry_through(&core, self.idle_timeout, &give).await;
            drop(give);
            outcome
        };
        let (downloaded, written) = tokio::join!(read, write);
        let fail = |e: io::Error| {
            Error::new(ErrorCode::InvalidArgument, OPERATION, format!("the writer failed: {e}")).with_source(e)
        };
        // What the writer says is why the reading ended.
        written.map_err(fail)?;
        downloaded
    }

    /// Downloads the whole to a file: beside it first, under the name with `.acb-part` at its end; checked by the whole's
    /// SHA-256, synced, then renamed. A part that is there of the same revision is continued, also by another process.
    ///
    /// # Errors
    /// `context_not_found`, `revision_gap`, `invalid_argument` with a range, `data_damaged`, `digest_mismatch`, `timeout`;
    /// `storage_full` of this machine.
    ///
    /// # Cancel safety
    /// The part stays, and the next call goes on with it.
    pub async fn to_path(mut self, path: impl Into<PathBuf>) -> Result<Downloaded> {
        let path = path.into();
        if self.range != (0..u64::MAX) {
            return Err(Error::new(ErrorCode::InvalidArgument, OPERATION, "a range goes to a writer, not to a path"));
        }
        let (part, token_path) = (beside(&path, ".acb-part"), beside(&path, ".acb-part.json"));
        // The revision is fixed before the first byte, so that every process that goes on means the same.
        let token = match resume::read::<DownloadToken>(&token_path).filter(|token| self.is_of(token)) {
            Some(token) if part.exists() => token,
            _ => {
                resume::remove(&part);
                let head = self.head().await?;
                resume::write(OPERATION, &token_path, &head)?;
                head
            }
        };
        (self.context_id, self.at_rev) = (token.context_id.clone(), token.rev);
        self.key.clear();
        let (from, whole) = block(&part, continue_at).await?;
        let from = from.min(token.size);
        let mut transfer = self.transfer(from, whole);
        transfer.range.end = token.size;
        let core = self.core.arc();
        let (give, take) = mpsc::channel::<Bytes>(PIECES_WAITING);
        let writing = {
            let part = part.clone();
            tokio::task::spawn_blocking(move || append(&part, from, take))
        };
        let outcome = if from == token.size {
            transfer.end_of(&token)
        } else {
            transfer.carry_through(&core, self.idle_timeout, &give).await
        };
        drop(give);
        let written = writing.await.map_err(|e| Error::new(ErrorCode::Internal, OPERATION, e.to_string()))?;
        written.map_err(|e| local(OPERATION, &part, e))?;
        match outcome {
            Ok(downloaded) => {
                std::fs::rename(&part, &path).map_err(|e| local(OPERATION, &path, e))?;
                resume::remove(&token_path);
                Ok(downloaded)
            }
            Err(error) => {
                if matches!(
                    error.code(),
                    ErrorCode::DigestMismatch | ErrorCode::RevisionGap | ErrorCode::ContextNotFound
                ) {
                    // What is there is of no use to anybody.
                    resume::remove(&part);
                    resume::remove(&token_path);
                }
                Err(error)
            }
        }
    }

    /// Whether a part that was left is of what is asked for.
    fn is_of(&self, token: &DownloadToken) -> bool {
        let same = if self.context_id.is_empty() { self.key == token.key } else { self.context_id == token.context_id };
        same && (self.at_rev == 0 || self.at_rev == token.rev)
    }

    /// What the context is now, without a byte of it.
    async fn head(&self) -> Result<DownloadToken> {
        let core = self.core.arc();
        let mut transfer = self.transfer(0, RunningDigest::default());
        let (give, _take) = mpsc::channel(1);
        transfer.head_only = true;
        let found = transfer.carry_through(&core, self.idle_timeout, &give).await?;
        Ok(DownloadToken::new(self.key.clone(), found.context_id, found.rev, found.size, found.sha256.to_string()))
    }

    fn transfer(&self, from: u64, whole: RunningDigest) -> Transfer {
        Transfer {
            request: v1::ReceiveContextRequest {
                context_id: self.context_id.clone(),
                key: self.key.clone(),
                at_rev: self.at_rev,
                ..Default::default()
            },
            is_whole: self.range == (0..u64::MAX),
            range: self.range.start + from..self.range.end,
            whole: Some(whole),
            found: None,
            head_only: false,
            meter: Meter::new(self.progress.clone(), None),
            received: 0,
            connections: 0,
        }
    }
}

fn beside(path: &Path, word: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(word);
    name.into()
}

async fn block<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let owned = path.to_path_buf();
    let done = tokio::task::spawn_blocking(move || work(&owned)).await;
    done.map_err(|e| Error::new(ErrorCode::Internal, OPERATION, e.to_string()))?.map_err(|e| local(OPERATION, path, e))
}

/// Where a part goes on, and the digest so far. Only what is whole pieces is trusted to have been written in order; the
/// digest of all tells at the end.
fn continue_at(path: &Path) -> io::Result<(u64, RunningDigest)> {
    let mut whole = RunningDigest::default();
    let mut file = match std::fs::File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((0, whole)),
        other => other?,
    };
    let mut data = vec![0; READ_BYTES];
    let mut at = 0;
    loop {
        match file.read(&mut data)? {
            0 => return Ok((at, whole)),
            n => {
                whole.update(&data[..n]);
                at += n as u64;
            }
        }
    }
}

/// Writes what comes behind what is there, and syncs it.
fn append(path: &Path, from: u64, mut pieces: mpsc::Receiver<Bytes>) -> io::Result<()> {
    let file = std::fs::File::options().write(true).create(true).truncate(false).open(path)?;
    file.set_len(from)?;
    let mut part = Part { file, at: from };
    while let Some(piece) = pieces.blocking_recv() {
        part.write(&piece)?;
    }
    part.file.sync_all()
}

/// A part that grows.
struct Part {
    file: std::fs::File,
    at: u64,
}

impl Part {
    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        let mut written = 0;
        #[cfg(target_os = "linux")]
        if self.at >= limits::CONTENT_CACHED_BYTES {
            written = uncached(&self.file, piece, self.at)?;
        }
        self.file.seek(io::SeekFrom::Start(self.at + written as u64))?;
        self.file.write_all(&piece[written..])?;
        self.at += piece.len() as u64;
        Ok(())
    }
}

/// Writes as much as can be written without a trace in the page cache: all, or on older systems nothing. The server's
/// `OsFile` does the same: client and server share no crate that touches files.
#[cfg(target_os = "linux")]
fn uncached(file: &std::fs::File, piece: &[u8], at: u64) -> io::Result<usize> {
    use rustix::io::{Errno, ReadWriteFlags, pwritev2};
    /// `RWF_DONTCACHE`, since Linux 6.14 (`include/uapi/linux/fs.h`).
    const DONTCACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

    let mut written = 0;
    while written < piece.len() {
        match pwritev2(file, &[io::IoSlice::new(&piece[written..])], at + written as u64, DONTCACHE) {
            Ok(0) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => break,
            Ok(n) => written += n,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(written)
}

/// A download under way, over all its connections.
struct Transfer {
    request: v1::ReceiveContextRequest,
    is_whole: bool,
    /// What is still wanted.
    range: Range<u64>,
    /// Digest of what came, where the whole is wanted.
    whole: Option<RunningDigest>,
    found: Option<Downloaded>,
    head_only: bool,
    meter: Meter,
    received: u64,
    connections: u32,
}

impl Transfer {
    async fn carry_through(
        &mut self,
        core: &Arc<Core>,
        idle: Duration,
        give: &mpsc::Sender<Bytes>,
    ) -> Result<Downloaded> {
        let mut schedule = core.options().reconnect.schedule();
        let mut renewed = false;
        let mut last = (Instant::now(), self.range.start);
        loop {
            if self.range.start > last.1 {
                last = (Instant::now(), self.range.start);
                schedule.reset();
                renewed = false;
            }
            let (link, error) = match Bulk::open(core, idle).await {
                Err(error) => (None, error),
                Ok(bulk) => match self.turn(core, &bulk, idle, give).await {
                    Ok(()) => return self.done(),
                    Err(error) => (Some(bulk.link().clone()), error),
                },
            };
            if self.found.is_some() && self.range.start == self.range.end {
                // All had come when the connection broke. To ask for what is left, nothing, would be to ask for the rest.
                return self.done();
            }
            let error = error.with_operation(OPERATION);
            if error.code() == ErrorCode::Timeout || last.0.elapsed() >= idle {
                return Err(error);
            }
            tracing::debug!(%error, at = self.range.start, "download interrupted");
            bulk::after(core, &error, link.as_ref(), &mut schedule, &mut renewed).await?;
        }
    }

    async fn turn(&mut self, core: &Arc<Core>, bulk: &Bulk, idle: Duration, give: &mpsc::Sender<Bytes>) -> Result<()> {
        let mut client = convert::bulk_client(bulk.channel.clone(), core.origin().clone());
        let length = if self.range.end == u64::MAX { 0 } else { self.range.end.saturating_sub(self.range.start) };
        let mut request = tonic::Request::new(v1::ReceiveContextRequest {
            offset_bytes: self.range.start,
            length_bytes: length,
            ..self.request.clone()
        });
        *request.metadata_mut() = core.metadata()?;
        let status = |e: tonic::Status| convert::error_from_status(OPERATION, &e);
        let mut frames = client.receive_context(request).await.map_err(status)?.into_inner();
        self.connections += 1;
        let mut left = None;
        loop {
            let frame = tokio::select! {
                frame = tokio::time::timeout(idle, frames.message()) => frame,
                () = core.closing() => return Err(Error::closed(OPERATION)),
            };
            let frame = frame.map_err(|_| Error::timeout(OPERATION, idle))?.map_err(status)?;
            let lost = || Error::new(ErrorCode::ConnectionLost, OPERATION, "the server ended the stream");
            match (frame.ok_or_else(lost)?.frame, left) {
                (Some(Frame::Opened(opened)), None) => {
                    left = Some(opened.length_bytes);
                    self.opened(opened)?;
                    if self.head_only {
                        return Ok(());
                    }
                }
                (Some(Frame::Chunk(chunk)), Some(expected)) => {
                    let len = chunk.data.len() as u64;
                    if chunk.offset_bytes != self.range.start || len > expected {
                        return Err(Error::protocol(OPERATION, "a piece came out of its turn"));
                    }
                    let data = self.check(chunk).await?;
                    if give.send(data).await.is_err() {
                        return Err(Error::new(ErrorCode::Cancelled, OPERATION, "nobody takes the bytes any more"));
                    }
                    left = Some(expected - len);
                    self.range.start += len;
                    self.received += len;
                    self.meter.moved(len);
                    self.meter.add(len);
                }
                (Some(Frame::Completed(_)), Some(0)) => return Ok(()),
                _ => return Err(Error::protocol(OPERATION, "the server's frames are out of order")),
            }
        }
    }

    fn opened(&mut self, opened: v1::ReceiveOpened) -> Result<()> {
        let context = opened.context.ok_or_else(|| convert::missing(OPERATION, "context"))?;
        let sha256 = Sha256Digest::try_from(&context.sha256[..]).map_err(|_| convert::missing(OPERATION, "sha256"))?;
        let found = Downloaded {
            context_id: context.id,
            rev: context.rev,
            size: context.size_bytes,
            sha256,
            received_bytes: 0,
            connections: 0,
        };
        if let Some(before) = &self.found
            && (before.rev, before.sha256) != (found.rev, found.sha256)
        {
            return Err(Error::protocol(OPERATION, "the context changed under one revision"));
        }
        if self.found.is_none() {
            self.meter.total(self.range.start + opened.length_bytes);
            self.meter.start_at(self.range.start);
        }
        // From now on everybody means this one.
        (self.request.context_id, self.request.at_rev) = (found.context_id.clone(), found.rev);
        self.request.key.clear();
        self.range.end = self.range.start + opened.length_bytes;
        self.found = Some(found);
        Ok(())
    }

    /// Checks a piece, and lets the whole's digest go on over it, on a thread that may take its time.
    async fn check(&mut self, chunk: v1::ReceivedChunk) -> Result<Bytes> {
        let whole = if self.is_whole { self.whole.take() } else { None };
        let work = tokio::task::spawn_blocking(move || {
            let Some(before) = whole else {
                let good = Sha256::digest(&chunk.data)[..] == chunk.sha256[..];
                return (good, chunk.data, None);
            };
            let mut after = before.clone();
            let good = after.update_with_chunk(&chunk.data).0[..] == chunk.sha256[..];
            (good, chunk.data, Some(if good { after } else { before }))
        });
        let (good, data, whole) = work.await.map_err(|e| Error::new(ErrorCode::Internal, OPERATION, e.to_string()))?;
        if self.is_whole {
            self.whole = whole;
        }
        if !good {
            // Changed on its way: it is asked for again.
            return Err(Error::new(ErrorCode::ConnectionLost, OPERATION, "a piece has another SHA-256 than was said"));
        }
        Ok(data)
    }

    /// As if all had come: of a part that was whole already.
    fn end_of(&mut self, token: &DownloadToken) -> Result<Downloaded> {
        let sha256 = token.sha256.parse().map_err(|_| convert::missing(OPERATION, "sha256"))?;
        self.found = Some(Downloaded {
            context_id: token.context_id.clone(),
            rev: token.rev,
            size: token.size,
            sha256,
            received_bytes: 0,
            connections: 0,
        });
        self.done()
    }

    fn done(&mut self) -> Result<Downloaded> {
        let found = self.found.clone().ok_or_else(|| convert::missing(OPERATION, "opened"))?;
        if self.is_whole && !self.head_only {
            let is = self.whole.take().map(|whole| whole.digest());
            if is != Some(found.sha256) {
                let text = "the whole has another SHA-256 than its context says";
                return Err(Error::new(ErrorCode::DigestMismatch, OPERATION, text));
            }
        }
        Ok(Downloaded { received_bytes: self.received, connections: self.connections, ..found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_grows_in_order_over_the_end_of_what_may_be_cached() {
        for dir in [tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap()] {
            let path = dir.path().join("part");
            let file = std::fs::File::options().write(true).create(true).truncate(true).open(&path).unwrap();
            let from = limits::CONTENT_CACHED_BYTES - 5;
            let mut part = Part { file, at: from };
            let pieces: Vec<Vec<u8>> = (0..6u8).map(|n| vec![n; 100_003]).collect();
            for piece in &pieces {
                part.write(piece).unwrap();
            }
            let read = std::fs::read(&path).unwrap();
            assert!(read[from as usize..] == pieces.concat(), "in {}", dir.path().display());
        }
    }
}
