//! One connection's turn at an upload: chunks in, acknowledgements out.
//!
//! A chunk is checked and written on the blocking pool. What was written waits for a flush that serves 8 chunks or 20 ms
//! of them; then its numbers and digests are committed; then it is acknowledged. The whole digest follows the unbroken run
//! from the start. Chunks that come in order stand in a line: one pass over each gives its own digest and lets the whole's
//! go on. Of the others a chunk that continues it is hashed while it is at hand, or read back when its turn comes.
//!
//! Not a task: whoever has it polls [`UploadSession::next`]. Dropping it loses what was not acknowledged and no more.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    future::Future,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use acb_ports::{
    StoreError,
    blob_store::Stage,
    metadata::{AddedChunks, FoundChunk, UPLOAD_CHUNKS_MAX, UploadRow},
};
use acb_types::{
    ContextId, ErrorCode, Sha256Digest, limits,
    stream::{ChunkSet, Chunking, StreamState},
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Hold,
    whole::{Ahead, Passed, Queued, Whole, Written, advance, pass, write},
    window_bytes,
};
use crate::{
    app::{App, OpContext},
    error::AppError,
};

/// Chunks that wait for one flush.
const FLUSH_CHUNKS: usize = 8;
/// Longest time that a chunk waits for company before the flush.
const FLUSH_AFTER: Duration = Duration::from_millis(20);
/// Chunks that one piece of work takes from the line.
const LINE_CHUNKS: usize = 4;
/// Chunks that one hashing of what was written takes, so that a resume of much does not hold a thread for long.
const HASH_CHUNKS: u64 = 16;
/// Chunks that are copied from other contents at once.
const COPIES: usize = 2;
/// Chunks that wait to be copied; offers beyond are answered by nothing, and their chunks are sent.
const COPIES_WAITING: usize = 16_384;
/// Questions to the metadata store that may be open at once: repeats and offers carry no bytes that the window counts.
const ASKED_MAX: usize = 16;

/// A chunk on its way in.
#[derive(Debug)]
pub struct Chunk {
    /// Its number.
    pub index: u64,
    /// The digest that it was sent with.
    pub sha256: Sha256Digest,
    /// Its bytes.
    pub data: Bytes,
    /// Its share of the memory; given back when it is written.
    pub memory: OwnedSemaphorePermit,
}

/// What a connection is told.
#[derive(Debug)]
pub enum News {
    /// These are on stable storage: first and count.
    Acked(Vec<(u64, u64)>),
    /// This one was refused, and may be sent again.
    Rejected(u64, AppError),
}

/// What a piece of work came to.
enum Done {
    Chunk {
        written: Written,
        outcome: Result<(), AppError>,
        data: Bytes,
    },
    /// Chunks of the line, and the digest behind them.
    Line {
        whole: Whole,
        passed: Vec<Passed>,
    },
    /// A repeat: what is there under its number.
    Repeat {
        index: u64,
        sha256: Sha256Digest,
        stored: Result<Option<Sha256Digest>, StoreError>,
    },
    Flushed {
        chunks: Vec<Written>,
        outcome: Result<(), AppError>,
    },
    Hashed(Result<Whole, AppError>),
    /// As a chunk, from another content.
    Copied {
        written: Written,
        outcome: Result<(), AppError>,
    },
    /// Chunks that were offered, and where they can be had.
    Found(Vec<(u64, FoundChunk)>),
}

type Work = Pin<Box<dyn Future<Output = Result<Done, AppError>> + Send>>;

/// A connection's turn at an upload.
pub struct UploadSession {
    pub(super) app: Arc<App>,
    pub(super) ctx: OpContext,
    pub(super) row: UploadRow,
    /// None only when completion was cut short after the commit.
    pub(super) stage: Option<Arc<dyn Stage>>,
    /// On stable storage.
    received: ChunkSet,
    /// These and what is written.
    pub(super) written: ChunkSet,
    /// Under way: taken and not yet acknowledged.
    under_way: BTreeMap<u64, Written>,
    under_way_bytes: u64,
    waiting: Vec<Written>,
    flush_at: Option<Instant>,
    is_flushing: bool,
    /// `None` while it is at work.
    pub(super) whole: Option<Whole>,
    /// Chunks that are written and not yet in the whole digest, so that they need not be read back: the first of those that
    /// continue it.
    ahead: BTreeMap<u64, Ahead>,
    /// Chunks that came in order, one behind the other: the first continues the whole digest, when that is at home.
    line: VecDeque<Queued>,
    /// The chunk that would come next in the line, while there is one or work on it.
    line_end: Option<u64>,
    work: FuturesUnordered<Work>,
    /// The chunk that told the size of the whole.
    last: Option<u64>,
    /// Chunks that are to be copied from other contents.
    to_copy: VecDeque<(u64, FoundChunk)>,
    copying: usize,
    /// Open questions to the metadata store.
    asked: usize,
    fence: CancellationToken,
    pub(super) hold: Arc<Hold>,
}

impl std::fmt::Debug for UploadSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UploadSession")
            .field("id", &self.row.id)
            .field("session", &self.row.session)
            .finish_non_exhaustive()
    }
}

impl UploadSession {
    pub(super) fn new(
        app: Arc<App>,
        ctx: OpContext,
        row: UploadRow,
        received: ChunkSet,
        stage: Option<Arc<dyn Stage>>,
        hold: Arc<Hold>,
        fence: CancellationToken,
    ) -> Self {
        Self {
            app,
            ctx,
            row,
            stage,
            written: received.clone(),
            received,
            under_way: BTreeMap::new(),
            under_way_bytes: 0,
            waiting: Vec::new(),
            flush_at: None,
            is_flushing: false,
            whole: Some(Whole::default()),
            ahead: BTreeMap::new(),
            line: VecDeque::new(),
            line_end: None,
            work: FuturesUnordered::new(),
            last: None,
            to_copy: VecDeque::new(),
            copying: 0,
            asked: 0,
            fence,
            hold,
        }
    }

    /// The upload as it stands.
    pub fn row(&self) -> &UploadRow {
        &self.row
    }

    /// Chunks on stable storage.
    pub fn received(&self) -> &ChunkSet {
        &self.received
    }

    /// How the content is cut.
    pub fn chunking(&self) -> Chunking {
        self.row.chunking
    }

    /// Whether another frame may be taken: less than a window is under way, and few questions are open.
    pub fn has_room(&self) -> bool {
        self.window_has_room() && self.asked < ASKED_MAX
    }

    fn window_has_room(&self) -> bool {
        self.under_way_bytes < window_bytes(&self.row.chunking)
    }

    /// Who uploads.
    pub fn context(&self) -> &OpContext {
        &self.ctx
    }

    /// Takes a chunk. What becomes of it is told by [`Self::next`]; what can be refused at once is.
    ///
    /// # Errors
    /// `chunk_mismatch`, `digest_mismatch` for a digest of another length, `stream_closed` once completion has begun.
    pub fn chunk(&mut self, chunk: Chunk) -> Result<(), AppError> {
        let Chunk { index, sha256, data, memory } = chunk;
        let len = data.len() as u64;
        // Whatever becomes of it, it came over the wire.
        self.app.deps.metrics.upload_bytes.inc_by(len);
        let (Some(stage), StreamState::Open) = (&self.stage, self.row.state) else {
            return Err(AppError::new(ErrorCode::StreamClosed, format!("stream {} is being completed", self.row.id)));
        };
        let offset = self.row.chunking.check(index, len).map_err(mismatch)?;
        if let Some(other) = self.under_way.get(&index) {
            // The first is answered, and that answers both.
            return if other.sha256 == sha256 { Ok(()) } else { Err(another_content(index)) };
        }
        if self.received.contains(index) {
            let (app, tenant, id) = (Arc::clone(&self.app), self.ctx.principal().tenant.clone(), self.row.id);
            self.asked += 1;
            self.work.push(Box::pin(async move {
                let stored = app.deps.metadata.upload_chunk(&tenant, &id, index).await;
                Ok(Done::Repeat { index, sha256, stored })
            }));
            return Ok(());
        }
        if self.row.chunking.total_bytes.is_none() && len < u64::from(self.row.chunking.chunk_bytes) {
            // Only the last may be short, so this says how large the whole is.
            let end = self.written.end().max(self.under_way.last_key_value().map_or(0, |(at, _)| at + 1));
            if end > index + 1 {
                let message = format!("chunk {index} of {len} bytes is short, and chunk {} comes after it", end - 1);
                return Err(AppError::new(ErrorCode::ChunkMismatch, message));
            }
            self.row.chunking.total_bytes = Some(offset + len);
            self.last = Some(index);
        }
        let written = Written { index, sha256, len };
        self.under_way.insert(index, written);
        self.under_way_bytes += len;
        let (stage, chunk) = (Arc::clone(stage), Queued { written, offset, data, memory });
        if self.line_end.or(self.whole.as_ref().map(|whole| whole.next)) == Some(index) {
            self.line_end = Some(index + 1);
            self.line.push_back(chunk);
        } else {
            self.store(stage, chunk);
        }
        Ok(())
    }

    /// Checks and writes a chunk on the blocking pool.
    fn store(&mut self, stage: Arc<dyn Stage>, chunk: Queued) {
        let Queued { written, offset, data, memory } = chunk;
        let hold = Arc::clone(&self.hold);
        let job = self.app.deps.blocking.spawn_blocking(move || {
            let outcome = write(&*stage, &written, offset, &data);
            drop((memory, hold));
            Done::Chunk { written, outcome, data }
        });
        self.work.push(Box::pin(async move { job.await.map_err(ended_early) }));
    }

    /// Looks for chunks in contents that the caller may read, so that they need not be sent. Those that are found are
    /// told as acknowledged, the others by nothing.
    ///
    /// # Errors
    /// `field_too_large` for more than 4,096 digests.
    pub fn offer(&mut self, first_index: u64, sha256: Vec<Sha256Digest>) -> Result<(), AppError> {
        if sha256.len() > UPLOAD_CHUNKS_MAX {
            return Err(AppError::too_large("sha256", sha256.len(), UPLOAD_CHUNKS_MAX));
        }
        if self.stage.is_none() || self.row.state != StreamState::Open || self.to_copy.len() >= COPIES_WAITING {
            return Ok(());
        }
        let (app, ctx) = (Arc::clone(&self.app), self.ctx.clone());
        self.asked += 1;
        self.work.push(Box::pin(async move {
            let tenant = &ctx.principal().tenant;
            let found = app.deps.metadata.upload_find(tenant, &sha256).await?;
            // One answer per context: a digest in a content that the caller may not read must look like none.
            let mut readable: HashMap<ContextId, Option<Sha256Digest>> = HashMap::new();
            let mut places: HashMap<Sha256Digest, FoundChunk> = HashMap::new();
            for chunk in found {
                if let std::collections::hash_map::Entry::Vacant(unknown) = readable.entry(chunk.context) {
                    unknown.insert(app.upload_readable(&ctx, &chunk.context).await?);
                }
                if readable.get(&chunk.context) == Some(&Some(chunk.blob)) {
                    places.insert(chunk.sha256, chunk);
                }
            }
            let at = |(n, digest)| Some((first_index.checked_add(n as u64)?, *places.get(&digest)?));
            Ok(Done::Found(sha256.into_iter().enumerate().filter_map(at).collect()))
        }));
        Ok(())
    }

    /// Copies a chunk of another content.
    fn copy(&mut self, index: u64, found: FoundChunk) {
        let Some(stage) = self.stage.clone() else { return };
        let is_new = !self.received.contains(index) && !self.under_way.contains_key(&index);
        let Ok(offset) = self.row.chunking.check(index, found.len) else { return };
        // A short one would say where the end is, which its sender has not said.
        let is_whole = found.len == self.row.chunking.len(index);
        if !is_new || !is_whole {
            return;
        }
        let written = Written { index, sha256: found.sha256, len: found.len };
        self.under_way.insert(index, written);
        self.under_way_bytes += found.len;
        self.copying += 1;
        let (app, tenant, hold) = (Arc::clone(&self.app), self.ctx.principal().tenant.clone(), Arc::clone(&self.hold));
        self.work.push(Box::pin(async move {
            let memory = app.upload_memory(found.len as usize).await?;
            let reader = app.deps.blobs.open(&tenant, &found.blob).await?;
            let job = app.deps.blocking.spawn_blocking(move || {
                let _held = (memory, hold);
                let Some(reader) = reader else { return Err(AppError::of(ErrorCode::ContextNotFound)) };
                let data = reader.read_at(found.offset, found.len as usize)?;
                write(&*stage, &written, offset, &data)
            });
            let outcome = job.await.map_err(ended_early)?;
            Ok(Done::Copied { written, outcome })
        }));
    }

    /// The next thing to tell. Waits for ever when nothing is under way.
    ///
    /// # Errors
    /// What ends the connection's turn: `session_fenced`, or a store that fails.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Result<News, AppError> {
        loop {
            if let Some(news) = self.step().await? {
                return Ok(news);
            }
        }
    }

    /// Waits until one piece of work is done, and gives what there is to tell of it: of hashing there is nothing.
    pub(super) async fn step(&mut self) -> Result<Option<News>, AppError> {
        self.start_due();
        let flush_at = self.flush_at;
        let due = async move {
            match flush_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        // All may be dropped at any time: work that runs goes on, and is asked again.
        tokio::select! {
            biased;
            () = self.fence.cancelled() => Err(fenced(&self.row)),
            Some(done) = self.work.next(), if !self.work.is_empty() => self.take(done?),
            () = due, if !self.is_flushing => {
                self.flush();
                Ok(None)
            }
        }
    }

    /// Whether everything that was taken is settled.
    pub(super) fn is_settled(&self) -> bool {
        self.under_way.is_empty() && self.whole.is_some()
    }

    /// Flushes without waiting for more.
    pub(super) fn hurry(&mut self) {
        if !self.waiting.is_empty() && !self.is_flushing {
            self.flush();
        }
    }

    /// Starts what is due: a flush of what is enough, and the whole digest where it can go on.
    fn start_due(&mut self) {
        let bytes: u64 = self.waiting.iter().map(|w| w.len).sum();
        let enough = self.waiting.len() >= FLUSH_CHUNKS || bytes >= window_bytes(&self.row.chunking) / 2;
        if enough && !self.is_flushing {
            self.flush();
        }
        while self.copying < COPIES && self.window_has_room() {
            let Some((index, found)) = self.to_copy.pop_front() else { break };
            self.copy(index, found);
        }
        if let Some(stage) = &self.stage
            && !self.line.is_empty()
            && let Some(whole) = self.whole.take()
        {
            let (stage, hold) = (Arc::clone(stage), Arc::clone(&self.hold));
            let chunks: Vec<_> = self.line.drain(..self.line.len().min(LINE_CHUNKS)).collect();
            let job = self.app.deps.blocking.spawn_blocking(move || {
                let (whole, passed) = pass(&*stage, whole, chunks);
                drop(hold);
                Done::Line { whole, passed }
            });
            self.work.push(Box::pin(async move { job.await.map_err(ended_early) }));
        }
        if let (Some(whole), Some(stage)) = (&self.whole, &self.stage)
            && whole.next < self.written.prefix()
            && let Some(whole) = self.whole.take()
        {
            let (stage, hold, chunking) = (Arc::clone(stage), Arc::clone(&self.hold), self.row.chunking);
            let end = self.written.prefix().min(whole.next + HASH_CHUNKS);
            let kept: Vec<_> = (whole.next..end).map_while(|index| self.ahead.remove(&index)).collect();
            let job = self.app.deps.blocking.spawn_blocking(move || {
                let hashed =
                    if kept.is_empty() { advance(&*stage, whole, chunking, end) } else { Ok(whole.over(kept)) };
                drop(hold);
                Done::Hashed(hashed)
            });
            self.work.push(Box::pin(async move { job.await.map_err(ended_early) }));
        }
    }

    /// Makes what is written durable, then known. The order is the promise: a row is never older than its bytes.
    fn flush(&mut self) {
        self.flush_at = None;
        let Some(stage) = &self.stage else { return };
        if self.waiting.is_empty() {
            return;
        }
        self.is_flushing = true;
        let chunks = std::mem::take(&mut self.waiting);
        let is_last = self.last.is_some_and(|last| chunks.iter().any(|chunk| chunk.index == last));
        let added = AddedChunks {
            session: self.row.session,
            chunks: chunks.iter().map(|chunk| (chunk.index, chunk.sha256)).collect(),
            bytes: chunks.iter().map(|chunk| chunk.len).sum(),
            total_bytes: if is_last { self.row.chunking.total_bytes } else { None },
            expires_at: self.app.now().after(limits::STREAM_TTL),
        };
        let (app, stage, hold) = (Arc::clone(&self.app), Arc::clone(stage), Arc::clone(&self.hold));
        let (tenant, id) = (self.ctx.principal().tenant.clone(), self.row.id);
        self.work.push(Box::pin(async move {
            let synced = app.deps.blocking.spawn_blocking(move || {
                let synced = stage.sync();
                drop(hold);
                synced
            });
            let outcome = match synced.await.map_err(ended_early)? {
                Ok(()) => app.deps.metadata.upload_add(&tenant, &id, added).await,
                failed => failed,
            };
            Ok(Done::Flushed { chunks, outcome: outcome.map_err(AppError::from) })
        }));
    }

    /// Keeps what will soon be in the whole digest: all before it is here, or on its way here.
    fn keep(&mut self, index: u64, data: Bytes) {
        let kept: u64 = self.ahead.values().map(|ahead| ahead.data.len() as u64).sum();
        let comes_soon = (self.written.prefix()..index).all(|before| self.under_way.contains_key(&before));
        if comes_soon
            && kept < window_bytes(&self.row.chunking)
            && let Some(memory) = self.app.upload_ahead(data.len())
        {
            self.ahead.insert(index, Ahead { data, _memory: memory });
        }
    }

    fn wait_for_flush(&mut self, written: Written) {
        self.written.insert(written.index);
        self.waiting.push(written);
        self.flush_at = self.flush_at.or_else(|| Some(Instant::now() + FLUSH_AFTER));
    }

    fn settle(&mut self, index: u64) {
        if let Some(written) = self.under_way.remove(&index) {
            self.under_way_bytes -= written.len;
        }
    }

    fn take(&mut self, done: Done) -> Result<Option<News>, AppError> {
        match done {
            Done::Chunk { written, outcome, data } => {
                if let Err(error) = outcome {
                    self.settle(written.index);
                    if self.last == Some(written.index) {
                        (self.last, self.row.chunking.total_bytes) = (None, None);
                    }
                    return Ok(Some(News::Rejected(written.index, error)));
                }
                self.keep(written.index, data);
                self.wait_for_flush(written);
                Ok(None)
            }
            Done::Line { whole, passed } => {
                let next = whole.next;
                self.whole = Some(whole);
                for Passed { written, outcome, data, hashed } in passed {
                    if hashed {
                        self.wait_for_flush(written);
                    } else {
                        // One that failed, or came behind it: as if it had come by itself.
                        let done = Done::Chunk { written, outcome, data };
                        self.work.push(Box::pin(std::future::ready(Ok(done))));
                    }
                }
                if self.line.front().is_some_and(|chunk| chunk.written.index != next)
                    && let Some(stage) = self.stage.clone()
                {
                    for chunk in std::mem::take(&mut self.line) {
                        self.store(Arc::clone(&stage), chunk);
                    }
                }
                if self.line.is_empty() {
                    self.line_end = None;
                }
                Ok(None)
            }
            Done::Repeat { index, sha256, stored } => {
                self.asked -= 1;
                Ok(Some(match stored? {
                    Some(is) if is == sha256 => News::Acked(vec![(index, 1)]),
                    _ => News::Rejected(index, another_content(index)),
                }))
            }
            Done::Flushed { chunks, outcome } => {
                self.is_flushing = false;
                outcome?;
                let mut acked = ChunkSet::new();
                for chunk in chunks {
                    self.row.received_bytes += chunk.len;
                    self.settle(chunk.index);
                    self.received.insert(chunk.index);
                    acked.insert(chunk.index);
                }
                self.app.deps.metrics.upload_chunks.inc_by(acked.len());
                Ok(Some(News::Acked(acked.ranges().collect())))
            }
            Done::Hashed(whole) => {
                let whole = whole?;
                // What came while it was read back is in the digest already.
                self.ahead = self.ahead.split_off(&whole.next);
                self.whole = Some(whole);
                Ok(None)
            }
            Done::Found(found) => {
                self.asked -= 1;
                let room = COPIES_WAITING.saturating_sub(self.to_copy.len());
                self.to_copy.extend(found.into_iter().take(room));
                Ok(None)
            }
            Done::Copied { written, outcome } => {
                self.copying -= 1;
                match outcome {
                    Ok(()) => {
                        self.app.deps.metrics.upload_chunks_found.inc();
                        self.wait_for_flush(written);
                    }
                    // It is sent instead; nobody counts on it.
                    Err(error) => {
                        tracing::debug!(index = written.index, "offered chunk not copied: {error}");
                        self.settle(written.index);
                    }
                }
                Ok(None)
            }
        }
    }
}

fn mismatch(fault: acb_types::stream::ChunkFault) -> AppError {
    AppError::new(ErrorCode::ChunkMismatch, fault.to_string())
}

fn another_content(index: u64) -> AppError {
    AppError::new(ErrorCode::ChunkMismatch, format!("chunk {index} was sent before with another content"))
}

fn fenced(row: &UploadRow) -> AppError {
    AppError::new(ErrorCode::SessionFenced, format!("stream {} was opened again", row.id))
}

pub(super) fn ended_early(error: tokio::task::JoinError) -> AppError {
    AppError::internal("blocking work ended early").caused_by(error)
}
