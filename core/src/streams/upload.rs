//! Uploads: chunks inside a window, sent again when a connection broke, never more than that.

use std::{
    collections::{BTreeMap, VecDeque},
    future::{Future, IntoFuture},
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use acb_proto::v1;
use acb_types::{
    Sha256Digest, StreamId, limits,
    stream::{ChunkSet, Chunking},
};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::{sync::mpsc, time::Instant};

use super::{
    IDLE_TIMEOUT, Progress, ProgressFn,
    bulk::{self, Bulk},
    progress::Meter,
    resume::{self, UploadToken},
    source::{self, Chunk, Item, Source},
};
use crate::{
    client::Handle,
    connection::Core,
    contexts, convert,
    error::{Error, ErrorCode, Result},
    idempotency::IdempotencyKey,
};

const OPERATION: &str = "streams.upload";
/// Frames on their way to the connection: what the window allows is sent as fast as HTTP/2 takes it.
const FRAMES_WAITING: usize = 1;
/// How often one chunk may be refused as changed on its way before its source is taken to be at fault.
const RESENDS_MAX: u32 = 3;

/// An upload that became a context.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Uploaded {
    /// The context.
    pub context_id: String,
    /// The revision that it has now: what `if_rev` takes.
    pub rev: u64,
    /// Its version.
    pub version: String,
    /// Size of the content, in bytes.
    pub size: u64,
    /// SHA-256 of the content.
    pub sha256: Sha256Digest,
    /// Bytes of chunks that this process sent, those that were sent again included.
    pub sent_bytes: u64,
    /// Connections that it took.
    pub connections: u32,
}

/// An upload that is being prepared. Await it to run it.
#[must_use = "nothing is sent before it is awaited"]
pub struct UploadBuilder {
    core: Handle,
    source: Source,
    spec: v1::ContextSpec,
    context_id: String,
    if_rev: u64,
    force: bool,
    /// Fields of `spec` that change, when the context exists; empty for those that are not empty.
    fields: Vec<String>,
    /// Names the upload where a repeat of it is to be known.
    stream: Option<StreamId>,
    chunk_bytes: u32,
    window_bytes: u64,
    resume_file: Option<PathBuf>,
    progress: Option<ProgressFn>,
    idle_timeout: Duration,
}

impl std::fmt::Debug for UploadBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UploadBuilder").field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl UploadBuilder {
    pub(super) fn new(core: Handle, source: Source) -> Self {
        Self {
            core,
            source,
            spec: v1::ContextSpec::default(),
            context_id: String::new(),
            if_rev: 0,
            force: false,
            fields: Vec::new(),
            stream: None,
            chunk_bytes: limits::CHUNK_BYTES as u32,
            window_bytes: limits::UPLOAD_WINDOW_BYTES,
            resume_file: None,
            progress: None,
            idle_timeout: IDLE_TIMEOUT,
        }
    }

    /// Path that names the context beside its id; unique in the tenant.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.spec.key = key.into();
        self
    }

    /// Kind of the context; at most 128 bytes.
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.spec.r#type = kind.into();
        self
    }

    /// Media type of the content.
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.spec.content_type = content_type.into();
        self
    }

    /// For people; at most 1,024 bytes.
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.spec.description = description.into();
        self
    }

    /// One more word to filter by.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.spec.labels.push(label.into());
        self
    }

    /// One more fact.
    pub fn metadata(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.spec.metadata.insert(name.into(), value.into());
        self
    }

    /// Life from the completion on; for ever by default.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.spec.ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// Semantic version; `0.1.0`, or the next patch, by default.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.spec.version = version.into();
        self
    }

    /// All agents of the tenant may read it. By default the context is its owner's alone.
    pub fn public(mut self) -> Self {
        self.spec.scope = v1::ContextScope::Public as i32;
        self
    }

    /// One more group whose members may read it.
    pub fn for_group(mut self, group: impl Into<String>) -> Self {
        self.spec.scope = v1::ContextScope::Group as i32;
        self.spec.groups.push(group.into());
        self
    }

    /// One more agent that may read it.
    pub fn share_read(mut self, agent_id: impl Into<String>) -> Self {
        self.spec.scope = v1::ContextScope::Shared as i32;
        self.spec.shares.push(v1::ContextShare { agent_id: agent_id.into(), access: v1::ContextAccess::Read as i32 });
        self
    }

    /// One more agent that may read and change it.
    pub fn share_write(mut self, agent_id: impl Into<String>) -> Self {
        self.spec.scope = v1::ContextScope::Shared as i32;
        self.spec.shares.push(v1::ContextShare { agent_id: agent_id.into(), access: v1::ContextAccess::Write as i32 });
        self
    }

    /// Makes a new revision of a context, if it is still at `if_rev` when the upload is complete. What is not said of it
    /// stays.
    pub fn update(mut self, context_id: impl Into<String>, if_rev: u64) -> Self {
        (self.context_id, self.if_rev, self.force) = (context_id.into(), if_rev, false);
        self
    }

    /// Makes a new revision of a context, whatever is there then. Audited.
    pub fn overwrite(mut self, context_id: impl Into<String>) -> Self {
        (self.context_id, self.if_rev, self.force) = (context_id.into(), 0, true);
        self
    }

    /// Size of a chunk, 262,144 to 8,388,608 bytes; 1 MiB by default.
    pub fn chunk_bytes(mut self, bytes: u32) -> Self {
        self.chunk_bytes = bytes;
        self
    }

    /// Bytes that may be sent and not yet acknowledged; 16 MiB by default, at least one chunk, at most what the server
    /// allows. It is also what is kept in memory.
    pub fn window_bytes(mut self, bytes: u64) -> Self {
        self.window_bytes = bytes;
        self
    }

    /// Keeps a small file there while the upload runs, so that another process that uploads the same path with the same
    /// file goes on where this one was stopped. Removed when the upload is complete. For [`Streams::upload_path`] only.
    ///
    /// [`Streams::upload_path`]: super::Streams::upload_path
    pub fn resume_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.resume_file = Some(path.into());
        self
    }

    /// Is told of progress with every acknowledgement.
    pub fn progress(mut self, tell: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(tell));
        self
    }

    /// How long nothing may be acknowledged before it is given up; 5 minutes by default. It can be resumed.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// The upload that stands for a call whose payload is too large for one.
    pub(crate) fn of_call(core: Handle, call: LargeCall) -> Self {
        let source = Source::Bytes(call.payload);
        let (spec, context_id, fields, stream) = (call.spec, call.context_id, call.fields, Some(call.stream));
        let (if_rev, force) = call.condition;
        Self { spec, context_id, if_rev, force, fields, stream, ..Self::new(core, source) }
    }

    async fn run(self) -> Result<Uploaded> {
        let done = self.carry().await?;
        Ok(Uploaded {
            context_id: done.context.id,
            rev: done.context.rev,
            version: done.context.spec.unwrap_or_default().version,
            size: done.size,
            sha256: done.sha256,
            sent_bytes: done.sent_bytes,
            connections: done.connections,
        })
    }

    /// Carries it through, in one call where it is small enough.
    pub(crate) async fn carry(mut self) -> Result<Carried> {
        let range = limits::CHUNK_BYTES_MIN as u32..=limits::CHUNK_BYTES_MAX as u32;
        if !range.contains(&self.chunk_bytes) {
            let text = format!("chunks of {} bytes are outside {} to {}", self.chunk_bytes, range.start(), range.end());
            return Err(Error::new(ErrorCode::InvalidArgument, OPERATION, text));
        }
        let core = self.core.arc();
        // A reader may take its time, or never say anything: then it is given up as it would be later.
        let small = tokio::select! {
            small = self.source.small() => small?,
            () = tokio::time::sleep(self.idle_timeout) => return Err(Error::timeout(OPERATION, self.idle_timeout)),
            () = core.closing() => return Err(Error::closed(OPERATION)),
        };
        if let Some(content) = small {
            return self.in_one_call(content).await;
        }
        let plan = self.plan().await?;
        let open = v1::StreamOpen {
            stream_id: plan.stream.0.to_vec().into(),
            context_id: plan.context_id,
            spec: Some(self.spec),
            if_rev: self.if_rev,
            force: self.force,
            total_bytes: plan.total_bytes.unwrap_or(0),
            chunk_bytes: self.chunk_bytes,
            fields: self.fields,
        };
        let mut transfer = Transfer {
            open,
            chunking: Chunking { chunk_bytes: self.chunk_bytes, total_bytes: plan.total_bytes },
            window: self.window_bytes.max(u64::from(self.chunk_bytes)),
            source: Some(self.source),
            items: None,
            unacked: BTreeMap::new(),
            acked: ChunkSet::new(),
            refused: BTreeMap::new(),
            end: None,
            meter: Meter::new(self.progress, plan.total_bytes),
            sent_bytes: 0,
            connections: 0,
            found: false,
        };
        let outcome = transfer.carry_through(&core, self.idle_timeout).await;
        if let Some(path) = &self.resume_file {
            match &outcome {
                Ok(_) => resume::remove(path),
                Err(error) if is_over(error) => resume::remove(path),
                Err(_) => {}
            }
        }
        outcome
    }

    async fn in_one_call(self, content: Bytes) -> Result<Carried> {
        let size = content.len() as u64;
        let sha256 = Sha256Digest(Sha256::digest(&content).into());
        let mut meter = Meter::new(self.progress.clone(), Some(size));
        meter.start_at(0);
        let new = self.if_rev == 0 && !self.force;
        let context_id = self.context_id();
        let context = if new {
            let request = v1::CreateContextRequest { context_id, spec: Some(self.spec), payload: content };
            contexts::create(&self.core, OPERATION, request).await?.context
        } else {
            let fields = if self.fields.is_empty() { convert::given_fields(&self.spec) } else { self.fields };
            let request = v1::UpdateContextRequest {
                context_id,
                spec: Some(self.spec),
                fields,
                payload: Some(content),
                if_rev: self.if_rev,
                force: self.force,
                idempotency_key: IdempotencyKey::random().as_str().to_owned(),
            };
            contexts::update(&self.core, OPERATION, request).await?.context
        };
        meter.moved(size);
        meter.add(size);
        // The file may have been larger once, and its upload never ended.
        if let Some(path) = &self.resume_file {
            resume::remove(path);
        }
        let context = context.ok_or_else(|| convert::missing(OPERATION, "context"))?;
        Ok(Carried { context, size, sha256, sent_bytes: size, connections: 1, found: false })
    }

    /// Which upload it is: that of the token, or a new one.
    async fn plan(&mut self) -> Result<Plan> {
        let context_id = self.context_id();
        let stream = self.stream.unwrap_or_else(|| StreamId(*uuid::Uuid::new_v4().as_bytes()));
        let fresh = move || (stream, context_id);
        let Source::Path(path) = &self.source else {
            let (stream, context_id) = fresh();
            let total_bytes = if let Source::Bytes(content) = &self.source { Some(content.len() as u64) } else { None };
            return Ok(Plan { stream, context_id, total_bytes });
        };
        let path = path.clone();
        let file = tokio::fs::metadata(&path).await.map_err(|e| resume::local(OPERATION, &path, e))?;
        let total_bytes = Some(file.len()).filter(|len| *len > 0);
        let Some(token_path) = self.resume_file.clone() else {
            let (stream, context_id) = fresh();
            return Ok(Plan { stream, context_id, total_bytes });
        };
        if let Some(token) = resume::read::<UploadToken>(&token_path)
            && token.is_of(&file)
            && token.chunk_bytes == self.chunk_bytes
            && let Ok(stream) = token.stream_id.parse()
        {
            // One that has ended meanwhile is begun anew.
            match super::Streams::new(self.core.clone()).status(stream).await {
                Err(e) if matches!(e.code(), ErrorCode::StreamNotFound | ErrorCode::StreamExpired) => {}
                Ok(status) if status.state == "aborted" => {}
                Ok(_) => return Ok(Plan { stream, context_id: token.context_id, total_bytes }),
                Err(e) => return Err(e.with_operation(OPERATION)),
            }
        }
        let (stream, context_id) = fresh();
        let token = UploadToken::new(stream.to_string(), context_id.clone(), self.chunk_bytes, &file);
        // Before the first byte is sent: a process that is stopped right after it can go on.
        resume::write(OPERATION, &token_path, &token)?;
        Ok(Plan { stream, context_id, total_bytes })
    }

    fn context_id(&self) -> String {
        if self.context_id.is_empty() { uuid::Uuid::now_v7().to_string() } else { self.context_id.clone() }
    }
}

impl IntoFuture for UploadBuilder {
    type Output = Result<Uploaded>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<Uploaded>> + Send>>;

    /// Runs the upload.
    ///
    /// # Errors
    /// `context_exists`, `revision_conflict`, `permission_denied`, `storage_full`, `session_fenced` when another process
    /// uploads the same; `chunk_mismatch` when the source changed; `timeout`.
    ///
    /// # Cancel safety
    /// What was acknowledged is kept for 24 h; with a resume file the next upload goes on from there.
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// A call that goes as an upload, for its payload is too large for one.
pub(crate) struct LargeCall {
    pub(crate) stream: StreamId,
    pub(crate) context_id: String,
    pub(crate) spec: v1::ContextSpec,
    pub(crate) fields: Vec<String>,
    pub(crate) condition: (u64, bool),
    pub(crate) payload: Bytes,
}

/// A content that became a context.
pub(crate) struct Carried {
    pub(crate) context: v1::Context,
    pub(crate) size: u64,
    pub(crate) sha256: Sha256Digest,
    pub(crate) sent_bytes: u64,
    pub(crate) connections: u32,
    /// Whether it was there when the upload began.
    pub(crate) found: bool,
}

struct Plan {
    stream: StreamId,
    context_id: String,
    total_bytes: Option<u64>,
}

/// Whether the upload has ended, so that its token is good for nothing.
fn is_over(error: &Error) -> bool {
    let given_up = error.context().any(|(name, value)| name == "stream" && value == "aborted");
    given_up || matches!(error.code(), ErrorCode::StreamClosed | ErrorCode::StreamExpired | ErrorCode::StreamNotFound)
}

/// An upload under way, over all its connections.
struct Transfer {
    open: v1::StreamOpen,
    chunking: Chunking,
    window: u64,
    source: Option<Source>,
    items: Option<mpsc::Receiver<Result<Item>>>,
    /// Read and not yet known to be on stable storage: at most a window.
    unacked: BTreeMap<u64, Chunk>,
    acked: ChunkSet,
    refused: BTreeMap<u64, u32>,
    end: Option<(u64, Sha256Digest)>,
    meter: Meter,
    sent_bytes: u64,
    connections: u32,
    found: bool,
}

/// One connection's share of it.
struct Turn {
    /// Chunks to send again, in order.
    again: VecDeque<u64>,
    window: u64,
    complete_sent: bool,
}

impl Transfer {
    async fn carry_through(&mut self, core: &Arc<Core>, idle: Duration) -> Result<Carried> {
        let mut schedule = core.options().reconnect.schedule();
        let mut renewed = false;
        let mut last = (Instant::now(), 0);
        loop {
            let done = self.meter.done();
            if done > last.1 {
                last = (Instant::now(), done);
                schedule.reset();
                renewed = false;
            }
            let (link, error) = match Bulk::open(core, idle).await {
                Err(error) => (None, error),
                Ok(bulk) => match self.turn(core, &bulk, idle).await {
                    Ok(carried) => return Ok(carried),
                    Err(error) => (Some(bulk.link().clone()), error),
                },
            };
            let error = error.with_operation(OPERATION);
            if error.code() == ErrorCode::Timeout || last.0.elapsed() >= idle {
                return Err(error);
            }
            tracing::debug!(%error, done = self.meter.done(), "upload interrupted");
            bulk::after(core, &error, link.as_ref(), &mut schedule, &mut renewed).await?;
        }
    }

    /// Goes on over one connection.
    async fn turn(&mut self, core: &Arc<Core>, bulk: &Bulk, idle: Duration) -> Result<Carried> {
        let (send, frames) = mpsc::channel(FRAMES_WAITING);
        // The head of the answer may come only after the first frame.
        let first = v1::stream_context_request::Frame::Open(self.open.clone());
        let _ = send.try_send(v1::StreamContextRequest { frame: Some(first) });
        let mut client = convert::bulk_client(bulk.channel.clone(), core.origin().clone());
        let mut request = tonic::Request::new(convert::frames(frames));
        *request.metadata_mut() = core.metadata()?;
        let status = |e: tonic::Status| convert::error_from_status(OPERATION, &e);
        let mut answers = client.stream_context(request).await.map_err(status)?.into_inner();
        self.connections += 1;
        let opened = answers.message().await.map_err(status)?.and_then(|frame| frame.opened);
        let opened = opened.ok_or_else(|| convert::missing(OPERATION, "opened"))?;
        let mut turn = self.begin(core, opened)?;
        let mut heard = Instant::now();
        loop {
            let in_flight: u64 = self.unacked.values().map(|chunk| chunk.data.len() as u64).sum();
            let has_room = in_flight < turn.window.min(self.window);
            let wants_to_send = !turn.again.is_empty() || self.end.is_some() && !turn.complete_sent;
            let items = self.items.as_mut().filter(|_| self.end.is_none() && turn.again.is_empty() && has_room);
            let item = async {
                match items {
                    Some(items) => items.recv().await,
                    None => std::future::pending().await,
                }
            };
            // All may be dropped at any time: a place in the channel is taken before anything is moved.
            tokio::select! {
                biased;
                answer = answers.message() => {
                    heard = Instant::now();
                    let answer = answer.map_err(status)?;
                    let lost = || Error::new(ErrorCode::ConnectionLost, OPERATION, "the server ended the stream");
                    if let Some(uploaded) = self.answer(&mut turn, answer.ok_or_else(lost)?)? {
                        return Ok(uploaded);
                    }
                }
                place = send.reserve(), if wants_to_send => {
                    let place = place.map_err(|_| Error::new(ErrorCode::ConnectionLost, OPERATION, "the stream broke"))?;
                    if let Some(chunk) = turn.again.pop_front().map(|index| self.unacked.get(&index)) {
                        let Some(chunk) = chunk.cloned() else { continue };
                        self.sent_bytes += chunk.data.len() as u64;
                        self.meter.moved(chunk.data.len() as u64);
                        place.send(convert::chunk_frame(chunk.index, chunk.sha256, chunk.data));
                    } else if let Some((total, sha256)) = self.end {
                        turn.complete_sent = true;
                        place.send(convert::complete_frame(total, sha256));
                    }
                }
                item = item => match item {
                    Some(Ok(Item::Chunk(chunk))) => {
                        turn.again.push_back(chunk.index);
                        self.unacked.insert(chunk.index, chunk);
                    }
                    Some(Ok(Item::End { total_bytes, sha256 })) => {
                        self.end = Some((total_bytes, sha256));
                        self.meter.total(total_bytes);
                    }
                    Some(Err(error)) => return Err(error),
                    None => return Err(Error::new(ErrorCode::Internal, OPERATION, "the source ended without an end")),
                },
                () = tokio::time::sleep_until(heard + idle) => return Err(Error::timeout(OPERATION, idle)),
                () = core.closing() => return Err(Error::closed(OPERATION)),
            }
        }
    }

    /// Takes the server's word for what is there, and starts the source with the first connection.
    fn begin(&mut self, core: &Core, opened: v1::StreamOpened) -> Result<Turn> {
        let progress = opened.progress.unwrap_or_default();
        if progress.chunk_bytes != 0 && progress.chunk_bytes != self.chunking.chunk_bytes {
            let text = format!("the upload was begun with chunks of {} bytes", progress.chunk_bytes);
            return Err(Error::new(ErrorCode::InvalidState, OPERATION, text));
        }
        let is_complete = progress.state() == v1::StreamState::Complete;
        self.found |= is_complete && self.connections == 1;
        for range in &progress.received {
            self.acked.insert_range(range.first_index, range.count);
        }
        if is_complete && let Some(count) = self.chunking.count() {
            self.acked.insert_range(0, count);
        }
        self.unacked.retain(|index, _| !self.acked.contains(*index));
        self.meter.start_at(progress.received_bytes.max(self.meter.done()));
        if let Some(source) = self.source.take() {
            let chunk_bytes = self.chunking.chunk_bytes as usize;
            self.items = Some(source::start(core, source, chunk_bytes, self.acked.clone()));
        }
        let again = self.unacked.keys().copied().collect();
        Ok(Turn { again, window: opened.window_bytes, complete_sent: false })
    }

    /// Takes a frame of the server.
    fn answer(&mut self, turn: &mut Turn, answer: v1::StreamContextResponse) -> Result<Option<Carried>> {
        for range in answer.acks {
            for index in range.first_index..range.first_index.saturating_add(range.count) {
                // An ack of what was never sent says nothing to us.
                let Some(chunk) = self.unacked.remove(&index) else { continue };
                self.acked.insert(index);
                self.meter.add(chunk.data.len() as u64);
            }
        }
        for reject in answer.rejects {
            let error = convert::error_from_proto(OPERATION, reject.error.unwrap_or_default());
            let times = self.refused.entry(reject.index).or_default();
            *times += 1;
            // Bytes can change on their way; a source that is at fault goes on being so.
            let again = error.code() == ErrorCode::DigestMismatch && *times <= RESENDS_MAX;
            if !again {
                return Err(error.with("chunk", reject.index.to_string()));
            }
            turn.again.push_back(reject.index);
        }
        if let Some(going) = answer.going_away {
            let text = format!("the server goes away: {}", going.reason);
            return Err(Error::new(ErrorCode::GoingAway, OPERATION, text));
        }
        let Some(completed) = answer.completed else { return Ok(None) };
        let context = completed.context.ok_or_else(|| convert::missing(OPERATION, "context"))?;
        let (size, sha256) = self.end.ok_or_else(|| convert::missing(OPERATION, "end"))?;
        let left = size.saturating_sub(self.meter.done());
        self.meter.add(left);
        Ok(Some(Carried {
            context,
            size,
            sha256,
            sent_bytes: self.sent_bytes,
            connections: self.connections,
            found: self.found,
        }))
    }
}
