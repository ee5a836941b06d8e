//! Contents of any size: up in chunks, down in pieces, on a connection of their own, so that unread bytes never stop
//! acknowledgements of messages. Both resume by themselves.

mod bulk;
mod download;
mod progress;
mod resume;
mod source;
mod upload;

use std::{path::Path, time::Duration};

use acb_types::StreamId;

pub(crate) use self::upload::LargeCall;
pub use self::{
    download::{DownloadBuilder, Downloaded},
    progress::{Progress, ProgressFn},
    upload::{UploadBuilder, Uploaded},
};
use crate::{client::Handle, convert, error::Result, retry::Safety};

/// How long a transfer may go without a byte before it is given up. It can be resumed.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_mins(5);

/// Uploads and downloads of a client's tenant. Made by [`Client::streams`](crate::Client::streams).
///
/// ```no_run
/// # async fn example(client: acb_sdk::Client) -> acb_sdk::Result<()> {
/// let archive = client
///     .streams()
///     .upload_path("archive.tar")
///     .key("archives/today")
///     .resume_file("archive.tar.acb-upload")
///     .progress(|p| println!("{} bytes, {:?} left", p.done_bytes, p.time_left))
///     .await?;
/// client.streams().download(archive.context_id).to_path("copy.tar").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Streams {
    core: Handle,
}

/// How far an upload is, as the bus knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UploadStatus {
    /// `open`, `completing`, `complete`, `aborted` or `expired`.
    pub state: &'static str,
    /// Bytes on the bus's stable storage.
    pub received_bytes: u64,
    /// Size of the whole, where it is known.
    pub total_bytes: Option<u64>,
    /// The context that it became, when complete.
    pub context_id: Option<String>,
}

impl Streams {
    pub(crate) fn new(core: Handle) -> Self {
        Self { core }
    }

    /// Uploads a file. Read once from its beginning to its end; it must not change meanwhile. One of at most 256 KiB goes in
    /// one call.
    pub fn upload_path(&self, path: impl Into<std::path::PathBuf>) -> UploadBuilder {
        UploadBuilder::new(self.core.clone(), source::Source::Path(path.into()))
    }

    /// Uploads what a reader gives, to its end. Resumes over lost connections, from memory; not over the process's end.
    /// 256 KiB and less go in one call.
    pub fn upload(&self, reader: impl tokio::io::AsyncRead + Send + Unpin + 'static) -> UploadBuilder {
        UploadBuilder::new(self.core.clone(), source::Source::Reader(Box::new(reader)))
    }

    /// Downloads a context by its id.
    pub fn download(&self, context_id: impl Into<String>) -> DownloadBuilder {
        DownloadBuilder::new(self.core.clone(), context_id.into(), String::new())
    }

    /// Downloads the context that has a key.
    pub fn download_key(&self, key: impl Into<String>) -> DownloadBuilder {
        DownloadBuilder::new(self.core.clone(), String::new(), key.into())
    }

    /// Asks how far an upload is.
    ///
    /// # Errors
    /// `stream_not_found`, `stream_expired`.
    pub async fn status(&self, stream: StreamId) -> Result<UploadStatus> {
        let operation = "streams.status";
        let response = self
            .core
            .call(operation, Safety::Idempotent, convert::get_stream_progress(stream), |to, request| async move {
                convert::StreamClient::with_origin(to.channel, to.origin).get_stream_progress(request).await
            })
            .await?;
        convert::upload_status(operation, response)
    }

    /// Asks how far the upload is that a resume file stands for. `None` where there is no such
    /// file: nothing was begun under it, or it is complete.
    ///
    /// # Errors
    /// As [`Self::status`]; `invalid_argument` for a file that cannot be read or is none of ours.
    pub async fn stopped(&self, resume_file: impl AsRef<Path>) -> Result<Option<UploadStatus>> {
        match resume::stream_in("streams.stopped", resume_file.as_ref())? {
            Some(stream) => self.status(stream).await.map(Some),
            None => Ok(None),
        }
    }

    /// Gives the upload up that a resume file stands for, and removes the file: what the bus has
    /// of it is gone at once, not after 24 h. Where there is no such file, there is nothing to give up.
    ///
    /// *Cancel safety*: call it again.
    ///
    /// # Errors
    /// As [`Self::abort`]; `invalid_argument` for a file that cannot be read or is none of ours.
    pub async fn abort_stopped(&self, resume_file: impl AsRef<Path>) -> Result<()> {
        let path = resume_file.as_ref();
        if let Some(stream) = resume::stream_in("streams.abort_stopped", path)? {
            self.abort(stream).await?;
            resume::remove(path);
        }
        Ok(())
    }

    /// Gives an upload up and its space back. Aborting what is absent succeeds.
    ///
    /// # Errors
    /// `stream_closed` for one that is complete.
    pub async fn abort(&self, stream: StreamId) -> Result<()> {
        self.core
            .call("streams.abort", Safety::Idempotent, convert::abort_stream(stream), |to, request| async move {
                convert::StreamClient::with_origin(to.channel, to.origin).abort_stream(request).await
            })
            .await?;
        Ok(())
    }
}
