//! One error for everything that a client can meet: what kind it is, whether trying again helps, and what to do.
//!
//! Kinds drive behaviour, codes drive documentation. Both come from `conformance/error_codes.yaml`, so that an error
//! has one name in every language.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

pub use acb_types::{ErrorCode, ErrorKind};

use crate::subscribe::Gap;

/// Whether the same call may succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retry {
    /// Not without somebody changing something.
    Never,
    /// Yes: after this time, or on the caller's own schedule when there is no hint.
    After(Option<Duration>),
    /// Yes in principle, but the client tried so often already.
    Exhausted {
        /// How many attempts were made.
        attempts: u32,
    },
}

/// Result of this crate's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. Cheap to clone.
///
/// `Display` gives one sentence that names the thing and the limit; [`Error::hint`] says what to do about it.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    code: ErrorCode,
    retry: Retry,
    operation: &'static str,
    message: Cow<'static, str>,
    request_id: Option<String>,
    context: Vec<(Cow<'static, str>, String)>,
    gap: Option<Gap>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of this code with one sentence for people, lowercase and without a full stop.
    pub fn new(code: ErrorCode, operation: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        let retry = if code.retryable() { Retry::After(code.retry_after()) } else { Retry::Never };
        Self(Arc::new(Inner {
            code,
            retry,
            operation,
            message: message.into(),
            request_id: None,
            context: Vec::new(),
            gap: None,
            source: None,
        }))
    }

    /// The client was closed or drained.
    pub(crate) fn closed(operation: &'static str) -> Self {
        Self::new(ErrorCode::ClientClosed, operation, "the client was closed")
    }

    /// No answer in time.
    pub(crate) fn timeout(operation: &'static str, after: Duration) -> Self {
        Self::new(ErrorCode::Timeout, operation, format!("no answer within {after:?}"))
    }

    /// The other side does not speak this protocol.
    pub(crate) fn protocol(operation: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::ProtocolError, operation, message)
    }

    /// A name that does not follow its grammar.
    pub(crate) fn name(operation: &'static str, error: &acb_types::InvalidName) -> Self {
        Self::new(ErrorCode::from(error), operation, error.to_string()).with("field", error.what())
    }

    /// A value over its limit.
    pub(crate) fn over_limit(
        code: ErrorCode,
        operation: &'static str,
        field: &'static str,
        actual: usize,
        limit: usize,
    ) -> Self {
        Self::new(code, operation, format!("{field} of {actual} bytes exceeds limit of {limit}"))
            .with("field", field)
            .with("actual", actual.to_string())
            .with("limit", limit.to_string())
    }

    fn edit(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// The same error with one more named fact.
    #[must_use]
    pub fn with(self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Self {
        self.edit(|e| e.context.push((name.into(), value.into())))
    }

    /// The same error with what lies under it.
    #[must_use]
    pub fn with_source(self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.edit(|e| e.source = Some(Arc::new(source)))
    }

    pub(crate) fn with_retry(self, retry: Retry) -> Self {
        self.edit(|e| e.retry = retry)
    }

    pub(crate) fn with_request_id(self, id: impl Into<String>) -> Self {
        let id = id.into();
        self.edit(|e| e.request_id = (!id.is_empty()).then_some(id))
    }

    pub(crate) fn with_operation(self, operation: &'static str) -> Self {
        self.edit(|e| e.operation = operation)
    }

    pub(crate) fn with_gap(self, gap: Gap) -> Self {
        self.edit(|e| e.gap = Some(gap))
    }

    /// What sort of failure it is: decide by this.
    pub fn kind(&self) -> ErrorKind {
        self.0.code.kind()
    }

    /// Its stable name; a page for each is in `docs/errors/`.
    pub fn code(&self) -> ErrorCode {
        self.0.code
    }

    /// Whether the same call may succeed later.
    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    /// Whether the same call may succeed later without anybody changing it.
    pub fn is_retryable(&self) -> bool {
        !matches!(self.0.retry, Retry::Never)
    }

    /// When the server says to try again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self.0.retry {
            Retry::After(after) => after,
            Retry::Never | Retry::Exhausted { .. } => None,
        }
    }

    /// What was being done, such as `agents.register`.
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// One sentence without the operation. For people; may change.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        self.0.code.what_to_do()
    }

    /// Names the request in the server's log.
    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }

    /// Named facts, such as `limit` and `actual`.
    pub fn context(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.context.iter().map(|(name, value)| (name.as_ref(), value.as_str()))
    }

    /// The messages that a subscription will never get, when that is what this says.
    pub fn gap(&self) -> Option<&Gap> {
        self.0.gap.as_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.operation, self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = &*self.0;
        let mut out = f.debug_struct("Error");
        out.field("code", &e.code.name()).field("operation", &e.operation).field("message", &e.message);
        out.field("retry", &e.retry);
        if let Some(id) = &e.request_id {
            out.field("request_id", id);
        }
        if !e.context.is_empty() {
            out.field("context", &e.context);
        }
        if let Some(source) = &e.source {
            out.field("source", source);
        }
        out.finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|e| e as _)
    }
}

/// Two errors are the same for a caller when they say the same.
impl PartialEq for Error {
    fn eq(&self, other: &Self) -> bool {
        self.code() == other.code() && self.operation() == other.operation() && self.message() == other.message()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_follows_the_table() {
        assert_eq!(Error::new(ErrorCode::SlowDown, "x", "m").retry(), Retry::After(Some(Duration::from_millis(100))));
        assert_eq!(Error::new(ErrorCode::InvalidTopic, "x", "m").retry(), Retry::Never);
        assert!(!Error::closed("x").is_retryable());
    }

    #[test]
    fn an_error_says_what_and_how_much() {
        let e = Error::over_limit(ErrorCode::PayloadTooLarge, "messages.publish", "payload", 1_048_577, 1_048_576);
        assert_eq!(e.to_string(), "messages.publish: payload of 1048577 bytes exceeds limit of 1048576");
        assert_eq!(e.kind(), ErrorKind::InvalidArgument);
        assert!(e.context().any(|(k, v)| k == "limit" && v == "1048576"), "{e:?}");
    }

    #[test]
    fn a_clone_is_changed_alone() {
        let first = Error::closed("a");
        let second = first.clone().with_operation("b");
        assert_eq!((first.operation(), second.operation()), ("a", "b"));
    }
}
