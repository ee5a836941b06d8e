//! Failures that tonic answers by itself, before any of our code runs: bytes that are no request, a message over the
//! codec's limit, a call that nobody has. They get a code of the table like every other failure.

use acb_types::ErrorCode;
use http::{HeaderMap, Response};
use tonic::Code;

use super::status;
use crate::{error::AppError, request_id::RequestId};

/// What prost says of a text that is not UTF-8: it has no error type that tells so.
const NOT_UTF8: &str = "UTF-8";

/// Gives a response that failed without a code its code. Looks at headers only: what fails later failed in our hands.
pub async fn typed(response: Response<axum::body::Body>) -> Response<axum::body::Body> {
    let Some(error) = untyped(response.headers()) else { return response };
    let request_id = RequestId::new();
    status::log(&error, "grpc", request_id);
    status::to_status(&error, request_id).into_http()
}

fn untyped(headers: &HeaderMap) -> Option<AppError> {
    if headers.contains_key(status::ERROR_CODE) {
        return None;
    }
    let code = headers.get("grpc-status")?;
    let text = tonic::Status::from_header_map(headers).map(|s| s.message().to_owned()).unwrap_or_default();
    let code = Code::from_bytes(code.as_bytes());
    Some(match code {
        Code::Ok => return None,
        // Health says so of a service that it does not know; reflection does of symbols, inside its answers.
        Code::NotFound => AppError::new(ErrorCode::RouteNotFound, text),
        Code::Unimplemented => AppError::new(ErrorCode::UnsupportedFeature, "the server has no such call"),
        _ => match undecodable(code, &text) {
            Some(undecodable) => AppError::new(undecodable, text),
            None => AppError::internal(format!("{code:?} without a code: {text}")),
        },
    })
}

/// Which error of the table a failure of tonic's own decoding is, if it is one.
fn undecodable(code: Code, text: &str) -> Option<ErrorCode> {
    match code {
        Code::OutOfRange | Code::ResourceExhausted => Some(ErrorCode::FrameTooLarge),
        _ if text.contains(NOT_UTF8) => Some(ErrorCode::InvalidUtf8),
        Code::Internal if text.to_lowercase().contains("decode") || text.contains("compress") => {
            Some(ErrorCode::MalformedFrame)
        }
        _ => None,
    }
}

/// What a hot stream ends with when its next frame could not be read; `None` when it is the connection that ended.
pub fn unreadable(status: &tonic::Status) -> Option<AppError> {
    undecodable(status.code(), status.message()).map(|code| AppError::new(code, status.message().to_owned()))
}

/// What a hot stream ends with when a frame is not the message that it must be.
pub fn no_frame(expected: &'static str, error: prost::DecodeError) -> AppError {
    let text = error.to_string();
    let code = if text.contains(NOT_UTF8) { ErrorCode::InvalidUtf8 } else { ErrorCode::MalformedFrame };
    AppError::new(code, format!("frame is no {expected}: {text}")).caused_by(error)
}

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::*;

    fn code_of(status: &Status) -> Option<ErrorCode> {
        let response: Response<axum::body::Body> = status.clone().into_http();
        untyped(response.headers()).map(|e| e.code())
    }

    #[test]
    fn what_tonic_refuses_gets_a_code() {
        let utf8 =
            "failed to decode Protobuf message: LoginRequest.agent_id: invalid string value: data is not UTF-8 encoded";
        for (status, code) in [
            (Status::internal("failed to decode Protobuf message: invalid wire type"), ErrorCode::MalformedFrame),
            (Status::internal(utf8), ErrorCode::InvalidUtf8),
            (Status::out_of_range("decoded message length too large"), ErrorCode::FrameTooLarge),
            (Status::unimplemented(""), ErrorCode::UnsupportedFeature),
        ] {
            assert_eq!(code_of(&status), Some(code), "{status:?}");
        }
    }

    #[test]
    fn a_broken_connection_is_nobodys_bad_frame() {
        for status in [Status::cancelled("h2 protocol error: stream reset"), Status::unknown("connection reset")] {
            assert!(unreadable(&status).is_none(), "{status:?}");
        }
        let large = unreadable(&Status::out_of_range("decoded message length too large")).map(|e| e.code());
        assert_eq!(large, Some(ErrorCode::FrameTooLarge));
    }

    #[test]
    fn our_own_failures_and_successes_stay_as_they_are() {
        let ours = status::to_status(&AppError::of(ErrorCode::InvalidTopic), RequestId::new());
        assert_eq!(code_of(&ours), None);
        assert!(untyped(&HeaderMap::new()).is_none());
    }
}
