//! What a transfer leaves on the disk, so that another process can go on with it.

use std::{
    io::{self, Write as _},
    path::Path,
    time::UNIX_EPOCH,
};

use acb_types::StreamId;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::error::{Error, ErrorCode, Result};

/// Format of token files.
const VERSION: u32 = 1;

/// An upload of a file that was begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct UploadToken {
    pub(super) version: u32,
    pub(super) stream_id: String,
    pub(super) context_id: String,
    pub(super) chunk_bytes: u32,
    /// The file, so that another one under the same name is not taken for it.
    pub(super) size: u64,
    pub(super) modified_ns: u64,
}

/// A download that was begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DownloadToken {
    pub(super) version: u32,
    /// How it was asked for, when by its key.
    pub(super) key: String,
    pub(super) context_id: String,
    pub(super) rev: u64,
    pub(super) size: u64,
    pub(super) sha256: String,
}

impl UploadToken {
    pub(super) fn new(stream_id: String, context_id: String, chunk_bytes: u32, file: &std::fs::Metadata) -> Self {
        let modified = file.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let modified_ns = modified.map_or(0, |at| at.as_nanos() as u64);
        Self { version: VERSION, stream_id, context_id, chunk_bytes, size: file.len(), modified_ns }
    }

    /// Whether it is of this file as it is now.
    pub(super) fn is_of(&self, file: &std::fs::Metadata) -> bool {
        let now = Self::new(String::new(), String::new(), 0, file);
        self.version == VERSION && (self.size, self.modified_ns) == (now.size, now.modified_ns)
    }
}

impl DownloadToken {
    pub(super) fn new(key: String, context_id: String, rev: u64, size: u64, sha256: String) -> Self {
        Self { version: VERSION, key, context_id, rev, size, sha256 }
    }
}

/// Reads a token; `None` when there is none, or one that cannot be read.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// The upload that a token stands for; `None` when there is no file.
pub(super) fn stream_in(operation: &'static str, path: &Path) -> Result<Option<StreamId>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(local(operation, path, e)),
    };
    let token = serde_json::from_slice::<UploadToken>(&bytes).ok();
    let stream = token.filter(|token| token.version == VERSION).and_then(|token| token.stream_id.parse().ok());
    stream.map(Some).ok_or_else(|| {
        let text = format!("{} is not the resume file of an upload", path.display());
        Error::new(ErrorCode::InvalidArgument, operation, text)
    })
}

/// Writes a token whole or not at all.
pub(super) fn write<T: Serialize>(operation: &'static str, path: &Path, token: &T) -> Result<()> {
    let written = || -> io::Result<()> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(&serde_json::to_vec(token).map_err(io::Error::other)?)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    written().map_err(|e| local(operation, path, e))
}

/// Removes a token. One that is absent is removed.
pub(super) fn remove(path: &Path) {
    let _ = std::fs::remove_file(path);
}

/// A failure of this machine's own files.
pub(super) fn local(operation: &'static str, path: &Path, e: io::Error) -> Error {
    let code = match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorCode::StorageFull,
        io::ErrorKind::ReadOnlyFilesystem => ErrorCode::StorageReadOnly,
        _ => ErrorCode::InvalidArgument,
    };
    // What is wrong on this side is not mended by trying again.
    Error::new(code, operation, format!("{}: {e}", path.display()))
        .with_source(e)
        .with_retry(crate::error::Retry::Never)
}
