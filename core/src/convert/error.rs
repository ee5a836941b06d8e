//! Errors from the wire: a status with its metadata, or an `acb.v1.Error` inside a stream's frame.

use std::{error::Error as StdError, time::Duration};

use acb_proto::v1;
use prost::Message as _;
use tonic::Status;

use crate::error::{Error, ErrorCode, Retry};

/// Metadata key of the error code.
const ERROR_CODE: &str = "acb-error-code";
/// Metadata key of the retry hint, in milliseconds.
const RETRY_AFTER_MS: &str = "acb-retry-after-ms";
/// Metadata key of the request id.
const REQUEST_ID: &str = "acb-request-id";

/// The error that a call ended with.
pub(crate) fn error_from_status(operation: &'static str, status: &Status) -> Error {
    if !status.details().is_empty()
        && let Ok(whole) = v1::Error::decode(status.details())
        && !whole.code.is_empty()
    {
        return error_from_proto(operation, whole);
    }
    let text = |key: &str| status.metadata().get(key).and_then(|v| v.to_str().ok());
    if let Some(code) = text(ERROR_CODE).and_then(ErrorCode::from_name) {
        let hint = text(RETRY_AFTER_MS).and_then(|t| t.parse().ok()).map(Duration::from_millis);
        let error = Error::new(code, operation, status.message().to_owned());
        let error = match hint {
            Some(hint) if !hint.is_zero() => error.with_retry(Retry::After(Some(hint))),
            _ => error,
        };
        return error.with_request_id(text(REQUEST_ID).unwrap_or_default());
    }
    // No server of ours said this: the connection broke, or somebody else answers.
    if let Some(cause) = broken(status) {
        return Error::new(ErrorCode::ConnectionLost, operation, format!("the connection broke: {cause}"));
    }
    let code = ErrorCode::from_grpc_status(status.code() as i32);
    let message = if status.message().is_empty() { code.meaning().to_owned() } else { status.message().to_owned() };
    Error::new(code, operation, message)
}

/// What broke the connection under a call, if that is what happened.
fn broken(status: &Status) -> Option<String> {
    let mut source = status.source();
    let mut last = None;
    while let Some(error) = source {
        if error.is::<hyper::Error>() || error.is::<std::io::Error>() {
            last = Some(error.to_string());
        }
        source = error.source();
    }
    last
}

/// The error that a frame carries. A code that this version does not know keeps its name and its retry facts.
pub(crate) fn error_from_proto(operation: &'static str, e: v1::Error) -> Error {
    let known = ErrorCode::from_name(&e.code);
    let code = known.unwrap_or(if e.retryable { ErrorCode::Unavailable } else { ErrorCode::Internal });
    let message = if e.message.is_empty() { code.meaning().to_owned() } else { e.message };
    let mut error = Error::new(code, operation, message);
    if e.retryable {
        let hint = (e.retry_after_ms != 0).then(|| Duration::from_millis(e.retry_after_ms)).or(code.retry_after());
        error = error.with_retry(Retry::After(hint));
    } else {
        error = error.with_retry(Retry::Never);
    }
    if known.is_none() {
        error = error.with("unknown_code", e.code);
    }
    for (name, value) in e.details {
        error = error.with(name, value);
    }
    error.with_request_id(e.request_id)
}

/// The answer lacks what it must have.
pub(crate) fn missing(operation: &'static str, what: &'static str) -> Error {
    Error::protocol(operation, format!("the server's answer has no {what}"))
}

#[cfg(test)]
mod tests {
    use acb_types::ErrorKind;
    use tonic::{
        Code,
        metadata::{MetadataMap, MetadataValue},
    };

    use super::*;

    #[test]
    fn a_status_with_details_gives_the_whole_error() {
        let proto = v1::Error {
            code: "slow_down".into(),
            message: "queue is full".into(),
            retryable: true,
            retry_after_ms: 250,
            request_id: "r1".into(),
            details: [("limit".to_owned(), "10".to_owned())].into(),
        };
        let status = Status::with_details(Code::ResourceExhausted, "x", proto.encode_to_vec().into());
        let error = error_from_status("op", &status);
        assert_eq!(error.code(), ErrorCode::SlowDown);
        assert_eq!(error.retry_after(), Some(Duration::from_millis(250)));
        assert_eq!((error.request_id(), error.message()), (Some("r1"), "queue is full"));
        assert!(error.context().any(|pair| pair == ("limit", "10")));
    }

    #[test]
    fn a_status_with_metadata_only_gives_code_hint_and_request_id() {
        let mut metadata = MetadataMap::new();
        for (key, value) in [(ERROR_CODE, "rate_limited"), (RETRY_AFTER_MS, "700"), (REQUEST_ID, "r2")] {
            metadata.insert(key, MetadataValue::from_static(value));
        }
        let status = Status::with_metadata(Code::ResourceExhausted, "too many", metadata);
        let error = error_from_status("op", &status);
        assert_eq!((error.code(), error.request_id()), (ErrorCode::RateLimited, Some("r2")));
        assert_eq!(error.retry_after(), Some(Duration::from_millis(700)));
    }

    #[test]
    fn a_bare_status_gives_the_nearest_code() {
        let error = error_from_status("op", &Status::new(Code::Unimplemented, ""));
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(!error.message().is_empty());
    }

    #[test]
    fn a_broken_socket_is_a_lost_connection() {
        let status = Status::from_error(Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionReset)));
        let error = error_from_status("op", &status);
        assert_eq!(error.code(), ErrorCode::ConnectionLost, "{error:?}");
        assert!(error.is_retryable());
    }

    #[test]
    fn a_code_of_a_newer_server_keeps_its_name_and_its_retry() {
        let proto = v1::Error { code: "brand_new".into(), message: "m".into(), retryable: true, ..Default::default() };
        let error = error_from_proto("op", proto);
        assert!(error.is_retryable());
        assert!(error.context().any(|pair| pair == ("unknown_code", "brand_new")));
    }
}
