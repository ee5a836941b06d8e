//! From [`AppError`] to what stands on the wire: a gRPC status, or an `acb.v1.Error` inside a stream frame.

use acb_proto::v1;
use prost::Message as _;
use tonic::{
    Code, Status,
    metadata::{AsciiMetadataKey, MetadataMap, MetadataValue},
};

use crate::{error::AppError, request_id::RequestId};

/// Metadata key of the error code.
pub const ERROR_CODE: &str = "acb-error-code";
/// Metadata key of the retry hint, in milliseconds; only on what is retryable.
pub const RETRY_AFTER_MS: &str = "acb-retry-after-ms";
/// Metadata key of the request id.
pub const REQUEST_ID: &str = "acb-request-id";

/// The error as a frame carries it.
pub fn to_proto(error: &AppError, request_id: RequestId) -> v1::Error {
    v1::Error {
        code: error.code().name().to_owned(),
        message: error.message().to_owned(),
        retryable: error.code().retryable(),
        retry_after_ms: error.retry_hint().map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
        request_id: request_id.to_string(),
        details: error.details().iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect(),
    }
}

/// The error as a call's status: the same facts in metadata, for those who read no details, and whole in the details.
pub fn to_status(error: &AppError, request_id: RequestId) -> Status {
    let proto = to_proto(error, request_id);
    let mut metadata = MetadataMap::new();
    put(&mut metadata, ERROR_CODE, proto.code.as_str());
    put(&mut metadata, REQUEST_ID, &proto.request_id);
    if proto.retryable {
        put(&mut metadata, RETRY_AFTER_MS, &proto.retry_after_ms.to_string());
    }
    let details = proto.encode_to_vec().into();
    Status::with_details_and_metadata(Code::from_i32(error.code().grpc_status()), proto.message, details, metadata)
}

fn put(metadata: &mut MetadataMap, key: &'static str, value: &str) {
    // Codes, numbers and hex digits are ASCII, so this cannot fail.
    if let Ok(value) = MetadataValue::try_from(value) {
        metadata.insert(AsciiMetadataKey::from_static(key), value);
    }
}

/// Writes a failure to the log, once, where it is answered. What the caller did wrong is told to the caller, and here
/// only for those who ask for it.
pub fn log(error: &AppError, method: &'static str, request_id: RequestId) {
    use acb_types::ErrorKind as K;
    let code = error.code().name();
    let why = error.report().unwrap_or_default();
    match error.kind() {
        K::Internal | K::DataLoss => tracing::error!(method, code, %request_id, why, "{}", error.message()),
        K::Unavailable | K::ResourceExhausted => {
            tracing::warn!(method, code, %request_id, why, "{}", error.message());
        }
        _ => tracing::debug!(method, code, %request_id, why, "{}", error.message()),
    }
}

#[cfg(test)]
mod tests {
    use acb_types::ErrorCode;

    use super::*;

    #[test]
    fn a_status_carries_the_error_in_metadata_and_whole_in_its_details() {
        let id = RequestId::new();
        let error = AppError::too_large("label", 200, 128);
        let status = to_status(&error, id);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.metadata().get(ERROR_CODE).unwrap(), "field_too_large");
        assert!(status.metadata().get(RETRY_AFTER_MS).is_none());
        let whole = v1::Error::decode(status.details()).unwrap();
        assert_eq!(whole.request_id, id.to_string());
        assert_eq!(whole.details["limit"], "128");
        assert_eq!(whole.message, "label of 200 exceeds limit of 128");
    }

    #[test]
    fn every_code_has_the_grpc_status_of_the_table_and_a_hint_when_retryable() {
        for code in ErrorCode::ALL {
            let status = to_status(&AppError::of(*code), RequestId::new());
            assert_eq!(status.code() as i32, code.grpc_status(), "{code}");
            assert_eq!(status.metadata().get(RETRY_AFTER_MS).is_some(), code.retryable(), "{code}");
        }
    }

    #[test]
    fn a_fault_of_ours_tells_the_caller_nothing_of_it() {
        let error = AppError::internal("the answer of sqlite was odd");
        let status = to_status(&error, RequestId::new());
        assert!(!status.message().contains("sqlite"));
        assert!(!String::from_utf8_lossy(status.details()).contains("sqlite"));
    }
}
