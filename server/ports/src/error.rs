//! What a store can answer when it cannot do what it was asked.

use acb_types::{ErrorCode, ErrorKind};

/// A failure of a port. The code decides what callers see; the source is for our log only.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {message}")]
pub struct StoreError {
    /// Stable code.
    pub code: ErrorCode,
    /// What was being done, such as `log.write`.
    pub operation: &'static str,
    /// One sentence, without secrets and payloads.
    pub message: String,
    /// What lies under it.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StoreError {
    /// An error without a source.
    pub fn new(code: ErrorCode, operation: &'static str, message: impl Into<String>) -> Self {
        Self { code, operation, message: message.into(), source: None }
    }

    /// The same error with what lies under it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The code's kind.
    pub fn kind(&self) -> ErrorKind {
        self.code.kind()
    }
}
