//! From what SQLite says to what callers decide by.

use std::path::Path;

use acb_ports::StoreError;
use acb_types::{ErrorCode, InvalidName};
use rusqlite::ffi;

/// Why one operation failed, before its name is known.
#[derive(Debug)]
pub(super) enum Failure {
    /// The caller asked for what cannot be.
    Refused(ErrorCode, String),
    /// SQLite could not.
    Sqlite(rusqlite::Error),
    /// A row holds what nobody wrote.
    Damaged(String),
}

/// What the functions of the nouns answer.
pub(super) type Result<T, E = Failure> = std::result::Result<T, E>;

impl From<rusqlite::Error> for Failure {
    fn from(e: rusqlite::Error) -> Self {
        Self::Sqlite(e)
    }
}

impl From<InvalidName> for Failure {
    fn from(e: InvalidName) -> Self {
        Self::Damaged(e.to_string())
    }
}

impl From<serde_json::Error> for Failure {
    fn from(e: serde_json::Error) -> Self {
        Self::Damaged(e.to_string())
    }
}

/// A refusal.
pub(super) fn refuse<T>(code: ErrorCode, message: impl Into<String>) -> Result<T> {
    Err(Failure::Refused(code, message.into()))
}

impl Failure {
    /// The failure as the port's error. `folder` is asked when SQLite cannot say why a write failed.
    pub(super) fn into_store(self, operation: &'static str, folder: &Path) -> StoreError {
        match self {
            Self::Refused(code, message) => StoreError::new(code, operation, message),
            Self::Damaged(what) => StoreError::new(
                ErrorCode::DataDamaged,
                operation,
                format!("the metadata store holds a bad row: {what}"),
            ),
            Self::Sqlite(e) => {
                let code = code_of(&e, folder);
                StoreError::new(code, operation, sentence(code)).with_source(e)
            }
        }
    }

    /// Whether SQLite could not say what of the write reached the disk.
    pub(super) fn is_doubtful(&self) -> bool {
        matches!(self, Self::Sqlite(rusqlite::Error::SqliteFailure(e, _)) if e.code == ffi::ErrorCode::SystemIoFailure)
    }
}

fn code_of(error: &rusqlite::Error, folder: &Path) -> ErrorCode {
    let rusqlite::Error::SqliteFailure(e, _) = error else { return ErrorCode::Internal };
    match e.code {
        ffi::ErrorCode::DiskFull => ErrorCode::StorageFull,
        ffi::ErrorCode::ReadOnly => ErrorCode::StorageReadOnly,
        ffi::ErrorCode::DatabaseCorrupt | ffi::ErrorCode::NotADatabase => ErrorCode::DataDamaged,
        ffi::ErrorCode::DatabaseBusy | ffi::ErrorCode::DatabaseLocked => ErrorCode::Unavailable,
        // SQLite tells a full disk apart, but neither a quota nor a file system that became read-only.
        ffi::ErrorCode::SystemIoFailure | ffi::ErrorCode::CannotOpen | ffi::ErrorCode::PermissionDenied => {
            probe(folder).unwrap_or(ErrorCode::StorageFailed)
        }
        _ => ErrorCode::Internal,
    }
}

/// Asks the file system what it thinks of a small write.
fn probe(folder: &Path) -> Option<ErrorCode> {
    let path = folder.join(".acb-probe");
    let outcome = std::fs::write(&path, [0; 4096]);
    let _ = std::fs::remove_file(&path);
    match outcome.err()?.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Some(ErrorCode::StorageFull),
        std::io::ErrorKind::ReadOnlyFilesystem => Some(ErrorCode::StorageReadOnly),
        _ => None,
    }
}

fn sentence(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::StorageFull => "the disk of the metadata store is full, or the store is at its size limit",
        ErrorCode::StorageReadOnly => "the disk of the metadata store is read-only",
        ErrorCode::StorageFailed => "the disk of the metadata store failed; writes are refused until it is opened anew",
        ErrorCode::DataDamaged => "the metadata store is damaged; `acb-server check` salvages into a copy",
        ErrorCode::Unavailable => "the metadata store is busy",
        _ => "the metadata store could not do it",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sqlite_says_becomes_what_callers_decide_by() {
        let table = [
            (ffi::SQLITE_FULL, ErrorCode::StorageFull),
            (ffi::SQLITE_READONLY, ErrorCode::StorageReadOnly),
            (ffi::SQLITE_READONLY_DBMOVED, ErrorCode::StorageReadOnly),
            (ffi::SQLITE_CORRUPT, ErrorCode::DataDamaged),
            (ffi::SQLITE_NOTADB, ErrorCode::DataDamaged),
            (ffi::SQLITE_BUSY, ErrorCode::Unavailable),
            (ffi::SQLITE_IOERR_FSYNC, ErrorCode::StorageFailed),
            (ffi::SQLITE_MISUSE, ErrorCode::Internal),
            (ffi::SQLITE_CONSTRAINT, ErrorCode::Internal),
        ];
        for (raw, code) in table {
            let failure = Failure::Sqlite(rusqlite::Error::SqliteFailure(ffi::Error::new(raw), None));
            assert_eq!(failure.is_doubtful(), raw == ffi::SQLITE_IOERR_FSYNC);
            let error = failure.into_store("test", &std::env::temp_dir());
            assert_eq!(error.code, code, "{raw}");
            assert!(error.source.is_some());
        }
    }
}
