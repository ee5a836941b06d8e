//! What blobs and stages share: reading a file in pieces, and errors.

use std::{io, path::Path, path::PathBuf, sync::Arc};

use acb_log::DiskFile;
use acb_ports::{
    StoreError,
    blob_store::{BlobReader, Result},
};
use acb_types::ErrorCode;
use bytes::Bytes;

/// An open blob.
#[derive(Debug)]
pub(super) struct FileReader {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) path: PathBuf,
    pub(super) size: u64,
}

impl BlobReader for FileReader {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        let wanted = self.size.saturating_sub(offset).min(len as u64) as usize;
        let bytes = read(&*self.file, &self.path, offset, wanted)?;
        if bytes.len() < wanted {
            let message = format!("{} ends before its {} bytes", self.path.display(), self.size);
            return Err(StoreError::new(ErrorCode::DataDamaged, "blob.read", message));
        }
        Ok(bytes)
    }
}

/// Reads at most `len` bytes.
pub(super) fn read(file: &dyn DiskFile, path: &Path, offset: u64, len: usize) -> Result<Bytes> {
    let mut into = Vec::new();
    file.pread(&mut into, len, offset).map_err(|e| failed("blob.read", path, e))?;
    Ok(into.into())
}

pub(super) fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// The system's error as the port's.
pub(super) fn failed(operation: &'static str, path: &Path, error: io::Error) -> StoreError {
    let code = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            ErrorCode::StorageFull
        }
        io::ErrorKind::ReadOnlyFilesystem => ErrorCode::StorageReadOnly,
        _ => ErrorCode::StorageFailed,
    };
    StoreError::new(code, operation, format!("{}: {error}", path.display())).with_source(error)
}
