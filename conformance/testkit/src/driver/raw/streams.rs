//! Uploads chunk by chunk, and downloads.

use std::collections::BTreeSet;

use acb_proto::v1::{self, receive_context_response::Frame as Down, stream_context_request::Frame as Up};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tonic::Streaming;

use super::{RawDriver, contexts::spec, id_of};
use crate::{
    driver::{
        Args,
        args::BAD_SCENARIO,
        content::{Content, sha256},
    },
    raw::{Failure, answer},
    wait::patience,
};

/// The upload that steps mean when they name none.
const MAIN: &str = "main";
/// Frames on their way up.
const FRAMES_WAITING: usize = 64;
/// The smallest chunk that there is: scenarios are to be short.
const CHUNK_BYTES: u32 = acb_types::limits::CHUNK_BYTES_MIN as u32;

/// An upload as one connection has it.
#[derive(Debug)]
pub(super) struct Upload {
    up: mpsc::Sender<v1::StreamContextRequest>,
    down: Streaming<v1::StreamContextResponse>,
}

impl Upload {
    async fn say(&self, frame: Up) {
        // A stream that has ended takes nothing; why it ended is read next.
        let _ = self.up.send(v1::StreamContextRequest { frame: Some(frame) }).await;
    }

    async fn hear(&mut self) -> Result<v1::StreamContextResponse, Failure> {
        let frame = tokio::time::timeout(patience(), self.down.message()).await;
        let frame = frame.map_err(|_| Failure::own("no_answer", "the upload's stream said nothing"))?;
        frame.map_err(Failure::from)?.ok_or_else(|| Failure::lost("the upload's stream ended"))
    }
}

/// What an upload is called: its stream's id.
fn name(args: &Args) -> Result<String, Failure> {
    Ok(args.text("name")?.unwrap_or_else(|| MAIN.to_owned()))
}

/// What a connection to it is called, where there are several.
fn session(args: &Args) -> Result<String, Failure> {
    args.text("session")?.map_or_else(|| name(args), Ok)
}

fn progress(p: &v1::StreamProgress) -> Value {
    let state = match p.state() {
        v1::StreamState::Open => "open",
        v1::StreamState::Completing => "completing",
        v1::StreamState::Complete => "complete",
        v1::StreamState::Aborted => "aborted",
        v1::StreamState::Expired => "expired",
        v1::StreamState::Unspecified => "unspecified",
    };
    let received: Vec<_> = p.received.iter().map(|r| json!([r.first_index, r.count])).collect();
    json!({
        "state": state, "chunk_bytes": p.chunk_bytes, "total_bytes": p.total_bytes, "received": received,
        "received_bytes": p.received_bytes, "expires_at_ms": p.expires_at_ms, "context_id": p.context_id,
    })
}

fn uploaded(context: &v1::Context) -> Value {
    let version = context.spec.clone().unwrap_or_default().version;
    json!({
        "id": context.id, "rev": context.rev, "version": version, "size_bytes": context.size_bytes,
        "sha256": hex::encode(&context.sha256),
    })
}

/// The digest that a step sends: the right one, unless it says otherwise.
fn digest(args: &Args, right: [u8; 32]) -> Result<Vec<u8>, Failure> {
    let mut digest = right.to_vec();
    match args.text("digest")?.as_deref() {
        None => {}
        Some("wrong") => digest[0] ^= 1,
        Some("short") => digest.truncate(31),
        Some(other) => return Err(Failure::own(BAD_SCENARIO, format!("a digest is wrong or short, not {other}"))),
    }
    Ok(digest)
}

impl RawDriver {
    fn upload_of(&mut self, args: &Args) -> Result<&mut Upload, Failure> {
        let session = session(args)?;
        let unknown = || Failure::own(BAD_SCENARIO, format!("no upload is open that is called {session}"));
        self.uploads.get_mut(&session).ok_or_else(unknown)
    }

    pub(super) async fn open_upload(&mut self, args: &Args) -> Result<Value, Failure> {
        let name = name(args)?;
        let content = Content::read(args, &self.place.mark)?;
        let said = content.map_or(0, |content| content.bytes().len() as u64);
        let open = v1::StreamOpen {
            stream_id: id_of(&name).to_vec().into(),
            context_id: args.text_or_empty("id")?,
            spec: Some(spec(args)?),
            if_rev: args.number_or("if_rev", 0)?,
            force: args.flag("force")?,
            total_bytes: args.number_or("total_bytes", said)?,
            chunk_bytes: args.small_or("chunk_bytes", CHUNK_BYTES)?,
            fields: Vec::new(),
        };
        let (up, frames) = mpsc::channel(FRAMES_WAITING);
        // The head of the answer may come only after the first frame.
        let _ = up.send(v1::StreamContextRequest { frame: Some(Up::Open(open)) }).await;
        let frames = tokio_stream::wrappers::ReceiverStream::new(frames);
        let down = answer(self.client().await?.streams().stream_context(frames)).await?;
        let mut upload = Upload { up, down };
        let opened = upload.hear().await?.opened;
        let opened = opened.ok_or_else(|| Failure::own("malformed_frame", "the first frame does not answer open"))?;
        self.uploads.insert(session(args)?, upload);
        let mut shown = progress(&opened.progress.unwrap_or_default());
        shown["window_bytes"] = opened.window_bytes.into();
        Ok(shown)
    }

    pub(super) async fn send_chunks(&mut self, args: &Args) -> Result<Value, Failure> {
        let content = Content::need(args, &self.place.mark)?;
        let chunk_bytes = u64::from(args.small_or("chunk_bytes", CHUNK_BYTES)?);
        let bytes = args.number_or("bytes", chunk_bytes)?;
        let mut indexes = Vec::new();
        for index in args.list("indexes")? {
            let number = || Failure::own(BAD_SCENARIO, format!("an index is a number, not {index}"));
            indexes.push(index.as_u64().ok_or_else(number)?);
        }
        let mut chunks = Vec::new();
        for index in &indexes {
            let from = index.saturating_mul(chunk_bytes);
            let data = content.part(from..from.saturating_add(bytes)).to_vec();
            let sha256 = digest(args, sha256(&data))?;
            chunks.push(v1::StreamChunk { index: *index, sha256: sha256.into(), data: data.into() });
        }
        let upload = self.upload_of(args)?;
        for chunk in chunks {
            upload.say(Up::Chunk(chunk)).await;
        }
        let (mut acked, mut rejected, mut open) = (Vec::new(), Vec::new(), indexes.len());
        while open > 0 {
            let frame = upload.hear().await?;
            for index in frame.acks.iter().flat_map(|r| r.first_index..r.first_index.saturating_add(r.count)) {
                acked.push(index);
                open = open.saturating_sub(1);
            }
            for reject in frame.rejects {
                rejected.push((reject.index, reject.error.unwrap_or_default().code));
                open = open.saturating_sub(1);
            }
        }
        acked.sort_unstable();
        rejected.sort_unstable();
        Ok(json!({ "acked": acked, "rejected": rejected }))
    }

    pub(super) async fn offer_chunks(&mut self, args: &Args) -> Result<Value, Failure> {
        let content = Content::need(args, &self.place.mark)?;
        let chunk_bytes = u64::from(args.small_or("chunk_bytes", CHUNK_BYTES)?);
        let first = args.number_or("first", 0)?;
        let digests = (first..first + args.number_or("count", 1)?)
            .map(|index| sha256(content.part(index * chunk_bytes..(index + 1) * chunk_bytes)).to_vec().into());
        let offer = v1::ChunkOffer { first_index: first, sha256: digests.collect() };
        let taken = args.number_or("taken", 0)? as usize;
        let upload = self.upload_of(args)?;
        upload.say(Up::Offer(offer)).await;
        let mut acked = BTreeSet::new();
        while acked.len() < taken {
            let frame = upload.hear().await?;
            acked.extend(frame.acks.iter().flat_map(|r| r.first_index..r.first_index.saturating_add(r.count)));
        }
        Ok(json!({ "acked": acked }))
    }

    pub(super) async fn complete_upload(&mut self, args: &Args) -> Result<Value, Failure> {
        let content = Content::need(args, &self.place.mark)?;
        let complete = v1::StreamComplete {
            total_bytes: args.number_or("total_bytes", content.bytes().len() as u64)?,
            sha256: digest(args, content.sha256())?.into(),
        };
        let upload = self.upload_of(args)?;
        upload.say(Up::Complete(complete)).await;
        loop {
            if let Some(completed) = upload.hear().await?.completed {
                self.uploads.remove(&session(args)?);
                return Ok(uploaded(&completed.context.unwrap_or_default()));
            }
        }
    }

    pub(super) async fn upload_ended(&mut self, args: &Args) -> Result<Value, Failure> {
        let upload = self.upload_of(args)?;
        loop {
            upload.hear().await?;
        }
    }

    pub(super) async fn upload_progress(&mut self, args: &Args) -> Result<Value, Failure> {
        let request = v1::GetStreamProgressRequest { stream_id: id_of(&name(args)?).to_vec().into() };
        let told = answer(self.client().await?.streams().get_stream_progress(request)).await?;
        Ok(progress(&told.progress.unwrap_or_default()))
    }

    pub(super) async fn abort_upload(&mut self, args: &Args) -> Result<Value, Failure> {
        let request = v1::AbortStreamRequest { stream_id: id_of(&name(args)?).to_vec().into() };
        answer(self.client().await?.streams().abort_stream(request)).await?;
        Ok(Value::Null)
    }

    /// What a client that uploads by itself does, in its simplest form: all chunks at once, in order.
    pub(super) async fn upload(&mut self, args: &Args) -> Result<Value, Failure> {
        let name = match args.text("name")? {
            Some(name) => name,
            // Another upload each time, as with every client.
            None => uuid::Uuid::new_v4().to_string(),
        };
        let count = Content::need(args, &self.place.mark)?.bytes().len() as u64;
        let count = count.div_ceil(u64::from(args.small_or("chunk_bytes", CHUNK_BYTES)?));
        let args = args.clone().with("name", name.into()).with("indexes", (0..count).collect());
        self.open_upload(&args).await?;
        let sent = self.send_chunks(&args).await?;
        if sent["rejected"].as_array().is_some_and(|r| !r.is_empty()) {
            return Err(Failure::own("chunk_mismatch", sent["rejected"].to_string()));
        }
        self.complete_upload(&args).await
    }

    pub(super) async fn download(&mut self, args: &Args) -> Result<Value, Failure> {
        let request = v1::ReceiveContextRequest {
            context_id: args.text_or_empty("id")?,
            key: args.text_or_empty("key")?,
            at_rev: args.number_or("at_rev", 0)?,
            offset_bytes: args.number_or("from", 0)?,
            length_bytes: args.number_or("bytes", 0)?,
        };
        let (from, length) = (request.offset_bytes, request.length_bytes);
        let mut frames = answer(self.client().await?.streams().receive_context(request)).await?;
        let (mut context, mut received) = (v1::Context::default(), Vec::new());
        loop {
            let frame = tokio::time::timeout(patience(), frames.message()).await;
            let frame = frame.map_err(|_| Failure::own("no_answer", "no piece of the download came"))??;
            match frame.and_then(|frame| frame.frame) {
                Some(Down::Opened(opened)) => context = opened.context.unwrap_or_default(),
                Some(Down::Chunk(chunk)) => {
                    if chunk.offset_bytes != from + received.len() as u64 {
                        let text = format!("a piece at {} where {from}+{} was due", chunk.offset_bytes, received.len());
                        return Err(Failure::own("invalid_argument", text));
                    }
                    if sha256(&chunk.data)[..] != chunk.sha256[..] {
                        return Err(Failure::own("data_damaged", "a piece is not what its digest says"));
                    }
                    received.extend_from_slice(&chunk.data);
                }
                Some(Down::Completed(done)) if done.length_bytes == received.len() as u64 => break,
                Some(Down::Completed(done)) => {
                    let text = format!("{} bytes are said, {} came", done.length_bytes, received.len());
                    return Err(Failure::own("data_damaged", text));
                }
                None => return Err(Failure::lost("the download ended before it was whole")),
            }
        }
        let same = Content::read(args, &self.place.mark)?.map(|content| {
            let end = if length == 0 { u64::MAX } else { from + length };
            content.part(from..end) == received
        });
        let received = received.len();
        let mut shown = uploaded(&context);
        (shown["received_bytes"], shown["same"]) = (received.into(), same.into());
        Ok(shown)
    }
}
