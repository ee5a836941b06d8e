//! Uploads and downloads, as a user has them: the client cuts, numbers, sends and resumes by itself.

use std::{
    future::poll_fn,
    io,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context as Poller, Poll},
};

use acb_sdk::{Progress, UploadBuilder, Uploaded};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, ReadBuf},
    sync::oneshot,
    task::JoinHandle,
};

use super::{
    CoreDriver,
    contexts::{scope, shares},
};
use crate::{
    driver::{Args, args::BAD_SCENARIO, content::Content},
    raw::Failure,
    wait::{Level, patience, wait_until},
};

/// The upload that steps mean when they name none.
const MAIN: &str = "main";
/// The smallest chunk that there is: scenarios are to be short.
const CHUNK_BYTES: u32 = acb_types::limits::CHUNK_BYTES_MIN as u32;

type Told = Arc<Mutex<Option<Progress>>>;

/// An upload whose source waits to give the rest.
#[derive(Debug)]
pub(super) struct Begun {
    rest: oneshot::Sender<()>,
    running: JoinHandle<acb_sdk::Result<Uploaded>>,
    told: Told,
}

/// The folder of an upload that was stopped: its file, and its resume file.
#[derive(Debug)]
pub(super) struct Stopped(TempDir);

impl Stopped {
    fn file(&self) -> PathBuf {
        self.0.path().join("source")
    }

    fn resume_file(&self) -> PathBuf {
        self.0.path().join("source.acb-upload")
    }
}

/// Gives a first part, and the rest when it is let.
struct Gated {
    content: Vec<u8>,
    at: usize,
    first: usize,
    rest: Option<oneshot::Receiver<()>>,
}

impl AsyncRead for Gated {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Poller<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.at >= self.first
            && let Some(rest) = &mut self.rest
        {
            match Pin::new(rest).poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => self.rest = None,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(io::Error::other("the scenario is over"))),
            }
        }
        let end = if self.rest.is_some() { self.first } else { self.content.len() };
        let take = into.remaining().min(end - self.at);
        into.put_slice(&self.content[self.at..self.at + take]);
        self.at += take;
        Poll::Ready(Ok(()))
    }
}

fn done(told: &Told) -> u64 {
    told.lock().map_or(0, |progress| progress.done_bytes)
}

fn shape(up: &Uploaded, told: &Told) -> Value {
    let progress = told.lock().map(|p| {
        let (done, total) = (p.done_bytes, p.total_bytes);
        json!({ "done_bytes": done, "total_bytes": total, "moved_bytes": p.moved_bytes })
    });
    json!({
        "id": up.context_id, "rev": up.rev, "version": up.version, "size_bytes": up.size,
        "sha256": up.sha256.to_string(), "sent_bytes": up.sent_bytes, "connections": up.connections,
        "progress": progress,
    })
}

impl CoreDriver {
    fn prepared(args: &Args, mut upload: UploadBuilder) -> Result<(UploadBuilder, Told), Failure> {
        upload = upload.key(args.text_or_empty("key")?).kind(args.text_or_empty("type")?);
        upload = upload.content_type(args.text_or_empty("content_type")?).version(args.text_or_empty("version")?);
        upload = upload.description(args.text_or_empty("description")?);
        upload = args.texts("labels")?.into_iter().fold(upload, UploadBuilder::label);
        upload = args.pairs("metadata")?.into_iter().fold(upload, |u, (k, v)| u.metadata(k, v));
        upload = args.texts("groups")?.into_iter().fold(upload, UploadBuilder::for_group);
        upload = shares(args)?.into_iter().fold(upload, |u, (agent, access)| match access {
            acb_sdk::ContextAccess::Write => u.share_write(agent),
            acb_sdk::ContextAccess::Read => u.share_read(agent),
        });
        if scope(args)? == Some(acb_sdk::ContextScope::Public) {
            upload = upload.public();
        }
        if let Some(ttl) = args.span("ttl")? {
            upload = upload.ttl(ttl);
        }
        if let Some(id) = args.text("id")? {
            upload = match args.number("if_rev")? {
                Some(rev) => upload.update(id, rev),
                None => upload.overwrite(id),
            };
        }
        upload = upload.chunk_bytes(args.small_or("chunk_bytes", CHUNK_BYTES)?);
        if let Some(bytes) = args.number("window_bytes")? {
            upload = upload.window_bytes(bytes);
        }
        let told: Told = Arc::default();
        let tell = Arc::clone(&told);
        Ok((upload.progress(move |progress| *tell.lock() = Some(progress)), told))
    }

    pub(super) async fn upload(&mut self, args: &Args) -> Result<Value, Failure> {
        let content = Content::need(args, &self.place.mark)?;
        let reader = io::Cursor::new(content.bytes().to_vec());
        let (upload, told) = Self::prepared(args, self.client().await?.streams().upload(reader))?;
        Ok(shape(&upload.await?, &told))
    }

    pub(super) async fn begin_upload(&mut self, args: &Args) -> Result<Value, Failure> {
        let content = Content::need(args, &self.place.mark)?.bytes().to_vec();
        let settled = args.number_or("settled_bytes", 0)?;
        let (rest, gate) = oneshot::channel();
        let first = settled as usize;
        if first > content.len() {
            return Err(Failure::own(BAD_SCENARIO, "more is to be settled than there is"));
        }
        let source = Gated { content, at: 0, first, rest: Some(gate) };
        let (upload, told) = Self::prepared(args, self.client().await?.streams().upload(source))?;
        let running = tokio::spawn(upload.into_future());
        let settling = wait_until("the first part to be settled", patience(), || {
            let (so_far, ended) = (done(&told), running.is_finished());
            async move { Level::when(so_far >= settled || ended, (), format!("{so_far} bytes are")) }
        });
        settling.await.map_err(|e| Failure::own("no_answer", e.to_string()))?;
        if running.is_finished() {
            let ended = running.await.map_err(|e| Failure::own("internal", e.to_string()))?;
            return Err(ended.map_or_else(Failure::from, |_| Failure::own(BAD_SCENARIO, "it was over too early")));
        }
        self.uploads.insert(args.text("name")?.unwrap_or_else(|| MAIN.to_owned()), Begun { rest, running, told });
        Ok(Value::Null)
    }

    pub(super) async fn uploaded(&mut self, args: &Args) -> Result<Value, Failure> {
        let name = args.text("name")?.unwrap_or_else(|| MAIN.to_owned());
        let unknown = || Failure::own(BAD_SCENARIO, format!("no upload was begun that is called {name}"));
        let begun = self.uploads.remove(&name).ok_or_else(unknown)?;
        // One that has failed meanwhile waits for nothing more.
        let _ = begun.rest.send(());
        let ended = tokio::time::timeout(patience(), begun.running).await;
        let ended = ended.map_err(|_| Failure::own("no_answer", "the upload did not end"))?;
        let uploaded = ended.map_err(|e| Failure::own("internal", e.to_string()))?;
        Ok(shape(&uploaded?, &begun.told))
    }

    pub(super) async fn stop_upload(&mut self, args: &Args) -> Result<Value, Failure> {
        let content = Content::need(args, &self.place.mark)?;
        let settled = args.number_or("settled_bytes", 1)?;
        let own = |e: io::Error| Failure::own("internal", e.to_string());
        let stopped = Stopped(tempfile::tempdir().map_err(own)?);
        std::fs::write(stopped.file(), content.bytes()).map_err(own)?;
        let upload = self.client().await?.streams().upload_path(stopped.file()).resume_file(stopped.resume_file());
        let (upload, told) = Self::prepared(args, upload)?;
        let mut running = Box::pin(upload.into_future());
        let ended =
            poll_fn(|cx| if done(&told) >= settled { Poll::Ready(None) } else { running.as_mut().poll(cx).map(Some) });
        match ended.await {
            None => {
                self.stopped.insert(args.text("name")?.unwrap_or_else(|| MAIN.to_owned()), stopped);
                Ok(Value::Null)
            }
            Some(Ok(_)) => Err(Failure::own(BAD_SCENARIO, "it was over too early")),
            Some(Err(error)) => Err(error.into()),
        }
    }

    fn resume_file(&self, args: &Args) -> Result<PathBuf, Failure> {
        let name = args.text("name")?.unwrap_or_else(|| MAIN.to_owned());
        let unknown = || Failure::own(BAD_SCENARIO, format!("no upload was stopped that is called {name}"));
        self.stopped.get(&name).map(Stopped::resume_file).ok_or_else(unknown)
    }

    pub(super) async fn stopped_upload(&mut self, args: &Args) -> Result<Value, Failure> {
        let resume_file = self.resume_file(args)?;
        Ok(match self.client().await?.streams().stopped(resume_file).await? {
            None => json!({ "state": "none" }),
            Some(status) => json!({
                "state": status.state, "received_bytes": status.received_bytes, "total_bytes": status.total_bytes,
                "id": status.context_id,
            }),
        })
    }

    pub(super) async fn abort_upload(&mut self, args: &Args) -> Result<Value, Failure> {
        let resume_file = self.resume_file(args)?;
        self.client().await?.streams().abort_stopped(resume_file).await?;
        Ok(Value::Null)
    }

    pub(super) async fn download(&mut self, args: &Args) -> Result<Value, Failure> {
        let streams = self.client().await?.streams();
        let mut download = match args.text("id")? {
            Some(id) => streams.download(id),
            None => streams.download_key(args.need("key")?),
        };
        if let Some(rev) = args.number("at_rev")? {
            download = download.at_rev(rev);
        }
        let from = args.number_or("from", 0)?;
        let end = args.number("bytes")?.map_or(u64::MAX, |bytes| from + bytes);
        let mut received = Vec::new();
        let down = download.range(from..end).to_writer(&mut received).await?;
        let same = Content::read(args, &self.place.mark)?.map(|content| content.part(from..end) == received);
        Ok(json!({
            "id": down.context_id, "rev": down.rev, "size_bytes": down.size, "sha256": down.sha256.to_string(),
            "received_bytes": down.received_bytes, "same": same,
        }))
    }
}
