//! What a call was refused with, as a foreign client sees it.

use std::fmt;

use acb_proto::v1;
use prost::Message as _;
use tonic::Status;

/// A refusal, or a break.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The error's code; `grpc:<status>` where the other side gave none, `connection_lost` where there is none.
    pub code: String,
    /// One sentence.
    pub message: String,
    /// Whether the error says that a repeat may succeed.
    pub retryable: bool,
    /// The whole error, where the other side gave it.
    pub details: Option<Box<v1::Error>>,
}

impl Failure {
    /// A failure of the test's own side.
    pub fn own(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), retryable: false, details: None }
    }

    /// The connection, or the stream, ended before the answer came.
    pub fn lost(message: impl Into<String>) -> Self {
        Self { retryable: true, ..Self::own("connection_lost", message) }
    }

    /// Whether it is the connection that failed, and not the call.
    pub fn is_lost(&self) -> bool {
        self.code == "connection_lost"
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Failure {}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let named = status.metadata().get("acb-error-code").and_then(|v| v.to_str().ok()).map(str::to_owned);
        let details = v1::Error::decode(status.details()).ok().filter(|e| !e.code.is_empty()).map(Box::new);
        let code = match named {
            Some(code) => code,
            // Without a name it is not the bus that answered but the connection that broke.
            None if is_break(&status) => return Self::lost(format!("{:?}: {}", status.code(), status.message())),
            None => format!("grpc:{:?}", status.code()).to_lowercase(),
        };
        let retryable = details.as_ref().is_some_and(|e| e.retryable);
        Self { code, message: status.message().to_owned(), retryable, details }
    }
}

fn is_break(status: &Status) -> bool {
    use tonic::Code as C;
    matches!(status.code(), C::Unavailable | C::Unknown | C::Cancelled | C::Internal) && status.details().is_empty()
}

impl From<v1::Error> for Failure {
    fn from(error: v1::Error) -> Self {
        Self {
            code: error.code.clone(),
            message: error.message.clone(),
            retryable: error.retryable,
            details: Some(Box::new(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::metadata::MetadataMap;

    use super::*;

    #[test]
    fn the_bus_names_its_errors_in_the_metadata() {
        let mut metadata = MetadataMap::new();
        metadata.insert("acb-error-code", "agent_not_found".parse().unwrap());
        let failure = Failure::from(Status::with_metadata(tonic::Code::NotFound, "no agent x", metadata));
        assert_eq!((failure.code.as_str(), failure.is_lost()), ("agent_not_found", false));
    }

    #[test]
    fn what_the_bus_did_not_name_is_a_break_or_another_layers() {
        assert!(Failure::from(Status::unavailable("broken pipe")).is_lost());
        assert_eq!(Failure::from(Status::unimplemented("")).code, "grpc:unimplemented");
    }
}
