//! What a use case answers when it does not do what it was asked: one sentence for the caller, one for us.
//!
//! Only `api/` turns it into a gRPC status or, later, into problem details.

use std::{borrow::Cow, time::Duration};

use acb_ports::StoreError;
use acb_types::{ErrorCode, ErrorKind, InvalidName, attributes::InvalidAttributes, frame::FrameError};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A failed use case.
#[derive(Debug, thiserror::Error)]
#[error("{}: {message}", code.name())]
pub struct AppError {
    code: ErrorCode,
    message: Cow<'static, str>,
    retry_after: Option<Duration>,
    details: Vec<(&'static str, String)>,
    private: Option<String>,
    #[source]
    source: Option<BoxError>,
}

impl AppError {
    /// An error with a sentence for the caller: lowercase, no full stop, naming the thing and the limit.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after: code.retry_after(),
            details: Vec::new(),
            private: None,
            source: None,
        }
    }

    /// An error whose code says all there is to say.
    pub fn of(code: ErrorCode) -> Self {
        Self::new(code, code.meaning())
    }

    /// A fault of ours: the caller learns nothing but the request id, the log has the rest.
    pub fn internal(private: impl Into<String>) -> Self {
        Self::of(ErrorCode::Internal).private(private)
    }

    /// A field that must be given and is not.
    pub fn missing(field: &'static str) -> Self {
        Self::new(ErrorCode::MissingField, format!("{field} is missing")).detail("field", field)
    }

    /// A field over its limit.
    pub fn too_large(field: &'static str, actual: usize, limit: usize) -> Self {
        Self::new(ErrorCode::FieldTooLarge, format!("{field} of {actual} exceeds limit of {limit}"))
            .detail("field", field)
            .detail("actual", actual.to_string())
            .detail("limit", limit.to_string())
    }

    /// A field with a value that it cannot have.
    pub fn invalid(field: &'static str, message: impl std::fmt::Display) -> Self {
        Self::new(ErrorCode::InvalidArgument, format!("{field} {message}")).detail("field", field)
    }

    /// The same facts under another code.
    #[must_use]
    pub fn with_code(mut self, code: ErrorCode) -> Self {
        self.code = code;
        self.retry_after = code.retry_after();
        self
    }

    /// Adds a named fact that the caller may read.
    #[must_use]
    pub fn detail(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.details.push((name, value.into()));
        self
    }

    /// Says when the same call may succeed, in place of the code's own hint.
    #[must_use]
    pub fn retry_after(mut self, span: Duration) -> Self {
        self.retry_after = Some(span);
        self
    }

    /// Adds the sentence for our log. No payloads, secrets or tokens.
    #[must_use]
    pub fn private(mut self, note: impl Into<String>) -> Self {
        self.private = Some(note.into());
        self
    }

    /// Adds what lies under it, for our log.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Its stable code.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.code.kind()
    }

    /// The sentence for the caller.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// When to try again; `None` for what is not retryable.
    pub fn retry_hint(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Named facts for the caller.
    pub fn details(&self) -> &[(&'static str, String)] {
        &self.details
    }

    /// The sentence for our log with the chain of causes, when there is any.
    pub fn report(&self) -> Option<String> {
        let mut out = self.private.clone().unwrap_or_default();
        let mut cause = std::error::Error::source(self);
        while let Some(e) = cause {
            if !out.is_empty() {
                out.push_str(": ");
            }
            out.push_str(&e.to_string());
            cause = e.source();
        }
        (!out.is_empty()).then_some(out)
    }
}

impl From<ErrorCode> for AppError {
    fn from(code: ErrorCode) -> Self {
        Self::of(code)
    }
}

impl From<StoreError> for AppError {
    /// What is about the caller's own things is passed on; what is about our disks stays with us.
    fn from(e: StoreError) -> Self {
        let ours = matches!(
            e.kind(),
            ErrorKind::Internal | ErrorKind::DataLoss | ErrorKind::Unavailable | ErrorKind::Unsupported
        );
        if ours { Self::of(e.code).caused_by(e) } else { Self::new(e.code, e.message.clone()).caused_by(e) }
    }
}

impl From<InvalidName> for AppError {
    fn from(e: InvalidName) -> Self {
        Self::new(ErrorCode::from(&e), e.to_string())
    }
}

impl From<InvalidAttributes> for AppError {
    fn from(e: InvalidAttributes) -> Self {
        Self::new(ErrorCode::from(&e), e.to_string())
    }
}

impl From<FrameError> for AppError {
    fn from(e: FrameError) -> Self {
        Self::new(ErrorCode::from(&e), e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_the_disk_is_not_told_to_callers() {
        let store = StoreError::new(ErrorCode::DataDamaged, "log.read", "segment 7 of /srv/acb at 4096: bad checksum");
        let error = AppError::from(store);
        assert_eq!(error.message(), ErrorCode::DataDamaged.meaning());
        assert!(error.report().is_some_and(|r| r.contains("segment 7")));
    }

    #[test]
    fn what_is_about_the_callers_things_is_told() {
        let store =
            StoreError::new(ErrorCode::SubscriptionExists, "subscription.create", "subscription a has other filters");
        assert_eq!(AppError::from(store).message(), "subscription a has other filters");
    }

    #[test]
    fn a_retryable_code_brings_its_own_hint() {
        assert_eq!(AppError::of(ErrorCode::SlowDown).retry_hint(), Some(Duration::from_millis(100)));
        assert_eq!(AppError::of(ErrorCode::InvalidTopic).retry_hint(), None);
    }
}
