//! Contents of any size: uploads and downloads. The core moves the bytes on threads of the kit; the guest looks in on it,
//! and reads or writes what only it can reach: its file objects.

use std::path::PathBuf;

use acb_kit::{Inherited, Pipe, PipeTaker, PipeWriter, Transfer};
use acb_sdk::{
    ContextAccess, ContextId, ContextScope, DownloadBuilder, Downloaded, Progress, UploadBuilder, UploadStatus,
    Uploaded,
};
use bytes::Bytes;
use pyo3::{
    prelude::*,
    types::{PyBytes, PyDict},
};

use crate::{
    call::{Call, limited, nothing, timeout, within},
    client::NativeClient,
    contexts::{scope, shares},
    convert::{Options, make},
    error::{OrRaise as _, exception},
};

const UPLOAD: &str = "contexts.upload";
const DOWNLOAD: &str = "contexts.download";

fn give_progress(py: Python<'_>, p: Progress) -> PyResult<Py<PyAny>> {
    make(py, "Progress", |f| {
        f.set_item("done_bytes", p.done_bytes)?;
        f.set_item("total_bytes", p.total_bytes)?;
        f.set_item("moved_bytes", p.moved_bytes)?;
        f.set_item("bytes_per_second", p.bytes_per_second)?;
        f.set_item("time_left", p.time_left.map(|d| d.as_secs_f64()))
    })
}

fn give_uploaded(py: Python<'_>, u: Uploaded) -> PyResult<Py<PyAny>> {
    make(py, "Uploaded", |f| {
        f.set_item("context_id", u.context_id)?;
        f.set_item("rev", u.rev)?;
        f.set_item("version", u.version)?;
        f.set_item("size", u.size)?;
        f.set_item("sha256", u.sha256.to_string())?;
        f.set_item("sent_bytes", u.sent_bytes)?;
        f.set_item("connections", u.connections)
    })
}

fn give_downloaded(py: Python<'_>, d: Downloaded) -> PyResult<Py<PyAny>> {
    make(py, "Downloaded", |f| {
        f.set_item("context_id", d.context_id)?;
        f.set_item("rev", d.rev)?;
        f.set_item("size", d.size)?;
        f.set_item("sha256", d.sha256.to_string())?;
        f.set_item("received_bytes", d.received_bytes)?;
        f.set_item("connections", d.connections)
    })
}

fn give_status(py: Python<'_>, u: UploadStatus) -> PyResult<Py<PyAny>> {
    make(py, "UploadStatus", |f| {
        f.set_item("state", u.state)?;
        f.set_item("received_bytes", u.received_bytes)?;
        f.set_item("total_bytes", u.total_bytes)?;
        f.set_item("context_id", u.context_id)
    })
}

enum Kind {
    Up(Transfer<Uploaded>, Option<Inherited<PipeWriter>>),
    Down(Transfer<Downloaded>, Option<Inherited<PipeTaker>>),
}

/// A transfer under way. Dropping it gives it up.
#[pyclass(frozen, module = "acb_sdk._native")]
pub(crate) struct NativeTransfer(Kind);

#[pymethods]
impl NativeTransfer {
    /// Is done when there is progress that was not taken, or all is over.
    fn news(&self) -> Call {
        match &self.0 {
            Kind::Up(transfer, _) => Call::new(UPLOAD, transfer.news(), nothing),
            Kind::Down(transfer, _) => Call::new(DOWNLOAD, transfer.news(), nothing),
        }
    }

    /// Is done when all is over.
    fn over(&self) -> Call {
        match &self.0 {
            Kind::Up(transfer, _) => Call::new(UPLOAD, transfer.over(), nothing),
            Kind::Down(transfer, _) => Call::new(DOWNLOAD, transfer.over(), nothing),
        }
    }

    /// Takes the last progress, if there is one that was not taken.
    fn progress(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let progress = match &self.0 {
            Kind::Up(transfer, _) => transfer.progress(),
            Kind::Down(transfer, _) => transfer.progress(),
        };
        progress.map(|p| give_progress(py, p)).transpose()
    }

    /// Takes what became of it: `None` while it is under way.
    fn outcome(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        match &self.0 {
            Kind::Up(transfer, _) => transfer.outcome().transpose().or_raise(py)?.map(|u| give_uploaded(py, u)),
            Kind::Down(transfer, _) => transfer.outcome().transpose().or_raise(py)?.map(|d| give_downloaded(py, d)),
        }
        .transpose()
    }

    /// Gives a piece of what is uploaded, waiting for room: `False` when no more is taken.
    fn write(&self, py: Python<'_>, piece: &Bound<'_, PyBytes>) -> PyResult<Call> {
        let Kind::Up(_, Some(pipe)) = &self.0 else { return Err(no_pipe(py, UPLOAD)) };
        let piece = Bytes::copy_from_slice(piece.as_bytes());
        Ok(Call::new(UPLOAD, pipe.get(UPLOAD).or_raise(py)?.write(piece), |py, taken| {
            Ok(taken.into_pyobject(py)?.to_owned().into_any().unbind())
        }))
    }

    /// Says that what was given is all.
    fn end(&self) {
        if let Kind::Up(_, Some(pipe)) = &self.0
            && let Ok(pipe) = pipe.get(UPLOAD)
        {
            pipe.end();
        }
    }

    /// The next piece of what is downloaded; empty when there is none any more.
    fn read(&self, py: Python<'_>) -> PyResult<Call> {
        let Kind::Down(_, Some(pipe)) = &self.0 else { return Err(no_pipe(py, DOWNLOAD)) };
        Ok(Call::new(DOWNLOAD, pipe.get(DOWNLOAD).or_raise(py)?.take(), |py, piece| {
            Ok(PyBytes::new(py, &piece).into_any().unbind())
        }))
    }

    /// Gives it up. May be called twice.
    fn close(&self, py: Python<'_>) {
        py.detach(|| match &self.0 {
            Kind::Up(transfer, _) => transfer.close(),
            Kind::Down(transfer, _) => transfer.close(),
        });
    }
}

fn no_pipe(py: Python<'_>, operation: &'static str) -> PyErr {
    let text = "its bytes do not go through here";
    exception(py, &acb_sdk::Error::new(acb_sdk::ErrorCode::InvalidState, operation, text))
}

fn described(mut upload: UploadBuilder, o: &Options<'_, '_>) -> PyResult<UploadBuilder> {
    if let Some(text) = o.text("key")? {
        upload = upload.key(text);
    }
    if let Some(text) = o.text("type")? {
        upload = upload.kind(text);
    }
    if let Some(text) = o.text("content_type")? {
        upload = upload.content_type(text);
    }
    if let Some(text) = o.text("description")? {
        upload = upload.description(text);
    }
    upload = o.texts("labels")?.unwrap_or_default().into_iter().fold(upload, UploadBuilder::label);
    for (name, value) in o.pairs("metadata")?.unwrap_or_default() {
        upload = upload.metadata(name, value);
    }
    if let Some(ttl) = o.span("ttl")? {
        upload = upload.ttl(ttl);
    }
    if let Some(text) = o.text("version")? {
        upload = upload.version(text);
    }
    upload = o.texts("groups")?.unwrap_or_default().into_iter().fold(upload, UploadBuilder::for_group);
    for (agent, access) in shares(o)?.unwrap_or_default() {
        upload = match access {
            ContextAccess::Read => upload.share_read(agent),
            ContextAccess::Write => upload.share_write(agent),
        };
    }
    // The others follow from whom it is for, and private is what it is without a word.
    if scope(o)? == Some(ContextScope::Public) {
        upload = upload.public();
    }
    Ok(upload)
}

fn moved(mut upload: UploadBuilder, o: &Options<'_, '_>) -> PyResult<UploadBuilder> {
    if let Some(id) = o.text("update")? {
        upload = if o.flag("force")? {
            upload.overwrite(id)
        } else {
            upload.update(id, o.number("if_rev")?.unwrap_or_default())
        };
    }
    if let Some(bytes) = o.small("chunk_bytes")? {
        upload = upload.chunk_bytes(bytes);
    }
    if let Some(bytes) = o.number("window_bytes")? {
        upload = upload.window_bytes(bytes);
    }
    if let Some(path) = o.text("resume_file")? {
        upload = upload.resume_file(path);
    }
    if let Some(span) = o.span("idle_timeout")? {
        upload = upload.idle_timeout(span);
    }
    Ok(upload)
}

#[pymethods]
impl NativeClient {
    /// Starts an upload: of a file by its path, of bytes, or of what is written to it then.
    fn contexts_upload(
        &self,
        py: Python<'_>,
        path: Option<PathBuf>,
        content: Option<&Bound<'_, PyBytes>>,
        options: &Bound<'_, PyDict>,
        tell: bool,
        seconds: Option<f64>,
    ) -> PyResult<NativeTransfer> {
        let streams = self.core(py, UPLOAD)?.streams();
        let timeout = timeout(py, UPLOAD, seconds)?;
        let mut pipe = None;
        let upload = match (path, content) {
            (Some(path), _) => streams.upload_path(path),
            (None, Some(content)) => streams.upload(std::io::Cursor::new(Bytes::copy_from_slice(content.as_bytes()))),
            (None, None) => {
                let (write, read) = Pipe::to_core();
                pipe = Some(Inherited::new(write));
                streams.upload(read)
            }
        };
        let o = Options::new(py, UPLOAD, Some(options));
        let upload = moved(described(upload, &o)?, &o)?;
        let transfer = Transfer::start(UPLOAD, |progress| {
            let upload = if tell { upload.progress(progress) } else { upload };
            limited(UPLOAD, timeout, async move { upload.await })
        });
        Ok(NativeTransfer(Kind::Up(transfer.or_raise(py)?, pipe)))
    }

    fn contexts_stopped_upload(&self, py: Python<'_>, resume_file: PathBuf, seconds: Option<f64>) -> PyResult<Call> {
        let operation = "contexts.stopped_upload";
        let streams = self.core(py, operation)?.streams();
        let timeout = timeout(py, operation, seconds)?;
        let work = async move { within(timeout, streams.stopped(resume_file)).await };
        Ok(Call::new(operation, work, |py, status| {
            status.map_or_else(|| Ok(py.None()), |status| give_status(py, status))
        }))
    }

    fn contexts_abort_upload(&self, py: Python<'_>, resume_file: PathBuf, seconds: Option<f64>) -> PyResult<Call> {
        let operation = "contexts.abort_upload";
        let streams = self.core(py, operation)?.streams();
        let timeout = timeout(py, operation, seconds)?;
        let work = async move { within(timeout, streams.abort_stopped(resume_file)).await };
        Ok(Call::new(operation, work, nothing))
    }

    /// Starts a download: to a file by its path, or to whoever reads it then.
    fn contexts_download(
        &self,
        py: Python<'_>,
        which: String,
        path: Option<PathBuf>,
        options: &Bound<'_, PyDict>,
        tell: bool,
        seconds: Option<f64>,
    ) -> PyResult<NativeTransfer> {
        let streams = self.core(py, DOWNLOAD)?.streams();
        let timeout = timeout(py, DOWNLOAD, seconds)?;
        let is_id = which.parse::<ContextId>().is_ok();
        let mut download = if is_id { streams.download(which) } else { streams.download_key(which) };
        let o = Options::new(py, DOWNLOAD, Some(options));
        if let Some(rev) = o.number("at_rev")? {
            download = download.at_rev(rev);
        }
        let (start, end) = (o.number("start")?, o.number("end")?);
        if start.is_some() || end.is_some() {
            let range = start.unwrap_or(0)..end.unwrap_or(u64::MAX);
            if range.is_empty() {
                return Err(o.refuse("end", format!("bytes {} to {} are none", range.start, range.end)));
            }
            download = download.range(range);
        }
        if let Some(span) = o.span("idle_timeout")? {
            download = download.idle_timeout(span);
        }
        let with = |tell_of: Box<dyn Fn(Progress) + Send + Sync>, download: DownloadBuilder| {
            if tell { download.progress(tell_of) } else { download }
        };
        if let Some(path) = path {
            let transfer = Transfer::start(DOWNLOAD, |progress| {
                limited(DOWNLOAD, timeout, with(progress, download).to_path(path))
            });
            return Ok(NativeTransfer(Kind::Down(transfer.or_raise(py)?, None)));
        }
        let (mut write, take) = Pipe::to_guest();
        let transfer = Transfer::start(DOWNLOAD, |progress| {
            let download = with(progress, download);
            limited(DOWNLOAD, timeout, async move { download.to_writer(&mut write).await })
        });
        Ok(NativeTransfer(Kind::Down(transfer.or_raise(py)?, Some(Inherited::new(take)))))
    }
}
