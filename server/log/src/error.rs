//! What the log answers when it cannot do what it was asked.

use std::io;

use acb_types::ErrorCode;

/// A failure of the log. The code decides what callers do; the message is for people and names file and offset.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {message}")]
pub struct LogError {
    /// Stable code: `storage_full`, `storage_read_only`, `storage_failed`, `data_damaged`, `invalid_state`,
    /// `invalid_argument`.
    pub code: ErrorCode,
    /// What was being done, such as `log.write`.
    pub operation: &'static str,
    /// One sentence, without payloads.
    pub message: String,
    /// What the system said.
    #[source]
    pub source: Option<io::Error>,
}

/// Result of everything here that can fail.
pub type Result<T, E = LogError> = std::result::Result<T, E>;

impl LogError {
    pub(crate) fn new(code: ErrorCode, operation: &'static str, message: impl Into<String>) -> Self {
        Self { code, operation, message: message.into(), source: None }
    }

    /// Wraps an error of the disk; the code follows from what the system said.
    pub(crate) fn io(operation: &'static str, what: impl std::fmt::Display, source: io::Error) -> Self {
        let code = code_of(&source);
        Self { code, operation, message: format!("{what}: {source}"), source: Some(source) }
    }

    /// Whether a later try may succeed without opening the log anew.
    pub fn heals(&self) -> bool {
        matches!(self.code, ErrorCode::StorageFull | ErrorCode::StorageReadOnly)
    }

    /// The same error once more: what the system said is copied as text.
    pub(crate) fn again(&self) -> Self {
        Self { code: self.code, operation: self.operation, message: self.message.clone(), source: None }
    }
}

/// Which of the three storage codes an error of the system is.
pub(crate) fn code_of(error: &io::Error) -> ErrorCode {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => ErrorCode::StorageFull,
        Some(libc::EROFS) => ErrorCode::StorageReadOnly,
        _ => ErrorCode::StorageFailed,
    }
}
