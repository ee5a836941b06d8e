//! Error codes: what went wrong, under a stable name.
//!
//! The table is `conformance/error_codes.yaml`; `cargo xtask codegen` writes [`ErrorCode`] and the pages of
//! `docs/errors/` from it. Kinds drive behaviour, codes drive documentation: add a code freely, a kind never.

use std::{fmt, str::FromStr, time::Duration};

use crate::{attributes::InvalidAttributes, frame::FrameError, name::InvalidName};

#[rustfmt::skip]
mod table;

pub use table::ErrorCode;

/// What sort of failure it is: the short list that callers decide by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// It is not there, or the caller may not know that it is.
    NotFound,
    /// It is there already.
    AlreadyExists,
    /// It does not fit the state that things are in; ask for the state and decide anew.
    Conflict,
    /// It can never be, whatever the state.
    InvalidArgument,
    /// Who calls is not known.
    Unauthenticated,
    /// Who calls may not.
    PermissionDenied,
    /// A limit, a quota or a disk is full.
    ResourceExhausted,
    /// The other side is not there now.
    Unavailable,
    /// Time ran out; it may have happened.
    DeadlineExceeded,
    /// The caller gave it up.
    Cancelled,
    /// Stored or sent data is damaged.
    DataLoss,
    /// This server or version does not do it.
    Unsupported,
    /// A fault of ours.
    Internal,
}

impl ErrorKind {
    /// All kinds.
    pub const ALL: [Self; 13] = [
        Self::NotFound,
        Self::AlreadyExists,
        Self::Conflict,
        Self::InvalidArgument,
        Self::Unauthenticated,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::Unavailable,
        Self::DeadlineExceeded,
        Self::Cancelled,
        Self::DataLoss,
        Self::Unsupported,
        Self::Internal,
    ];

    /// Its name in text, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::Conflict => "conflict",
            Self::InvalidArgument => "invalid_argument",
            Self::Unauthenticated => "unauthenticated",
            Self::PermissionDenied => "permission_denied",
            Self::ResourceExhausted => "resource_exhausted",
            Self::Unavailable => "unavailable",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Cancelled => "cancelled",
            Self::DataLoss => "data_loss",
            Self::Unsupported => "unsupported",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
struct Row {
    name: &'static str,
    number: u16,
    kind: ErrorKind,
    retryable: bool,
    retry_after_ms: Option<u64>,
    grpc: i32,
    http: u16,
    meaning: &'static str,
    action: &'static str,
}

/// The given text names no error code that this version knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an error code that this version knows")]
pub struct UnknownErrorCode;

impl ErrorCode {
    /// Its stable name, such as `payload_too_large`.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Its stable number.
    pub fn number(self) -> u16 {
        self.row().number
    }

    /// What sort of failure it is.
    pub fn kind(self) -> ErrorKind {
        self.row().kind
    }

    /// Whether the same call may succeed later without anybody changing it.
    pub fn retryable(self) -> bool {
        self.row().retryable
    }

    /// When to try again where the server gives no hint of its own; `None` for what is not retryable.
    pub fn retry_after(self) -> Option<Duration> {
        self.row().retry_after_ms.map(Duration::from_millis)
    }

    /// The status code of gRPC.
    pub fn grpc_status(self) -> i32 {
        self.row().grpc
    }

    /// The status code of HTTP.
    pub fn http_status(self) -> u16 {
        self.row().http
    }

    /// What it means, in one sentence or two.
    pub fn meaning(self) -> &'static str {
        self.row().meaning
    }

    /// What the caller does about it.
    pub fn what_to_do(self) -> &'static str {
        self.row().action
    }

    /// The code of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|c| c.name() == name)
    }

    /// The code of that number.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|c| c.number() == number)
    }

    /// The nearest code of a bare gRPC status, for answers that carry no code: of a proxy, or of another kind of server.
    pub fn from_grpc_status(status: i32) -> Self {
        match status {
            1 => Self::Cancelled,
            3 | 11 => Self::InvalidArgument,
            4 => Self::DeadlineExceeded,
            5 => Self::RouteNotFound,
            6 | 9 | 10 => Self::InvalidState,
            7 => Self::PermissionDenied,
            8 => Self::SlowDown,
            12 => Self::UnsupportedFeature,
            14 => Self::Unavailable,
            15 => Self::DataDamaged,
            16 => Self::Unauthenticated,
            _ => Self::Internal,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ErrorCode {
    type Err = UnknownErrorCode;

    fn from_str(text: &str) -> Result<Self, UnknownErrorCode> {
        Self::from_name(text).ok_or(UnknownErrorCode)
    }
}

impl From<&InvalidName> for ErrorCode {
    fn from(e: &InvalidName) -> Self {
        match (e, e.what()) {
            (InvalidName::Wildcard { .. }, _) => Self::WildcardInPublish,
            (InvalidName::Reserved { .. }, _) => Self::TopicReserved,
            (_, "topic" | "reply_to") => Self::InvalidTopic,
            (_, "topic filter") => Self::InvalidFilter,
            (_, "message id") => Self::InvalidPosition,
            (_, "durability") => Self::InvalidArgument,
            _ => Self::InvalidName,
        }
    }
}

impl From<&InvalidAttributes> for ErrorCode {
    fn from(e: &InvalidAttributes) -> Self {
        match e {
            InvalidAttributes::TooLarge { .. } => Self::AttributesTooLarge,
            _ => Self::InvalidAttributes,
        }
    }
}

impl From<&FrameError> for ErrorCode {
    fn from(e: &FrameError) -> Self {
        match e {
            FrameError::Malformed { .. } | FrameError::NotCanonical { .. } => Self::MalformedFrame,
            FrameError::Topic { source, .. } => source.into(),
            FrameError::NoTopic { .. } => Self::MissingField,
            FrameError::Utf8 { .. } => Self::InvalidUtf8,
            FrameError::UnknownEnum { .. } => Self::UnknownEnum,
            FrameError::TooLarge { field: "payload", .. } => Self::PayloadTooLarge,
            FrameError::TooLarge { field: "attributes", .. } => Self::AttributesTooLarge,
            FrameError::TooLarge { field: "topic", .. } => Self::InvalidTopic,
            FrameError::TooLarge { .. } | FrameError::TooMany { .. } => Self::FieldTooLarge,
            FrameError::Attributes { source, .. } => source.into(),
            FrameError::TooManyMessages { .. } => Self::FrameTooLarge,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_and_numbers_are_unique_and_lead_back() {
        let (mut names, mut numbers) = (HashSet::new(), HashSet::new());
        for &code in ErrorCode::ALL {
            assert!(names.insert(code.name()) && numbers.insert(code.number()), "{code} stands twice");
            assert_eq!(code.name().parse(), Ok(code));
            assert_eq!(ErrorCode::from_number(code.number()), Some(code));
        }
        assert_eq!("no_such_code".parse::<ErrorCode>(), Err(UnknownErrorCode));
    }

    #[test]
    fn each_variant_has_its_own_row() {
        for &code in ErrorCode::ALL {
            let words = code.name().split('_').map(|word| word[..1].to_uppercase() + &word[1..]);
            assert_eq!(format!("{code:?}"), words.collect::<String>());
        }
    }

    #[test]
    fn a_retry_hint_goes_with_what_is_retryable() {
        for &code in ErrorCode::ALL {
            assert_eq!(code.retryable(), code.retry_after().is_some(), "{code}");
        }
    }

    #[test]
    fn a_bare_status_gives_a_code_that_would_be_sent_with_a_kin_status() {
        for status in 1..=16 {
            let code = ErrorCode::from_grpc_status(status);
            let kin = match status {
                6 | 9 | 10 => 9,
                11 => 3,
                2 => 13,
                s => s,
            };
            assert_eq!(code.grpc_status(), kin, "{status} became {code}");
        }
    }

    #[test]
    fn what_a_frame_can_do_wrong_has_its_own_code() {
        let large = |field| FrameError::TooLarge { index: 0, field, bytes: 2, limit: 1 };
        assert_eq!(ErrorCode::from(&large("payload")), ErrorCode::PayloadTooLarge);
        assert_eq!(ErrorCode::from(&large("attributes")), ErrorCode::AttributesTooLarge);
        assert_eq!(ErrorCode::from(&large("order_key")), ErrorCode::FieldTooLarge);
        let wild = crate::Topic::check("a.*").unwrap_err();
        assert_eq!(ErrorCode::from(&wild), ErrorCode::WildcardInPublish);
        assert_eq!(ErrorCode::from(&crate::Topic::user("$acb.x").unwrap_err()), ErrorCode::TopicReserved);
        assert_eq!(ErrorCode::from(&"a..b".parse::<crate::TopicFilter>().unwrap_err()), ErrorCode::InvalidFilter);
        assert_eq!(ErrorCode::from(&"A".parse::<crate::AgentId>().unwrap_err()), ErrorCode::InvalidName);
    }
}
