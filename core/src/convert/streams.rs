//! Frames and answers of streams.

use acb_proto::v1::{self, stream_context_request::Frame, stream_service_client::StreamServiceClient};
use acb_types::{Sha256Digest, StreamId, limits};
use bytes::Bytes;
use futures_core::Stream;
use tokio::sync::mpsc;

use super::missing;
use crate::{error::Result, streams::UploadStatus, transport::grpc::Channel};

/// A client of the client's own connection, for the unary calls.
pub(crate) type StreamClient = StreamServiceClient<Channel>;

/// Largest frame of a stream, with room for what stands around a chunk.
const FRAME_MAX: usize = limits::CHUNK_BYTES_MAX + (64 << 10);

/// A client of a bulk connection.
pub(crate) fn bulk_client(channel: Channel, origin: http::Uri) -> StreamServiceClient<Channel> {
    StreamServiceClient::with_origin(channel, origin)
        .max_decoding_message_size(FRAME_MAX)
        .max_encoding_message_size(FRAME_MAX)
}

/// A queue of frames as a stream of them.
pub(crate) fn frames<T: Send + 'static>(mut queue: mpsc::Receiver<T>) -> impl Stream<Item = T> + Send + 'static {
    futures_util::stream::poll_fn(move |cx| queue.poll_recv(cx))
}

pub(crate) fn chunk_frame(index: u64, sha256: Sha256Digest, data: Bytes) -> v1::StreamContextRequest {
    let chunk = v1::StreamChunk { index, sha256: sha256.0.to_vec().into(), data };
    v1::StreamContextRequest { frame: Some(Frame::Chunk(chunk)) }
}

pub(crate) fn complete_frame(total_bytes: u64, sha256: Sha256Digest) -> v1::StreamContextRequest {
    let complete = v1::StreamComplete { total_bytes, sha256: sha256.0.to_vec().into() };
    v1::StreamContextRequest { frame: Some(Frame::Complete(complete)) }
}

pub(crate) fn get_stream_progress(stream: StreamId) -> v1::GetStreamProgressRequest {
    v1::GetStreamProgressRequest { stream_id: stream.0.to_vec().into() }
}

pub(crate) fn abort_stream(stream: StreamId) -> v1::AbortStreamRequest {
    v1::AbortStreamRequest { stream_id: stream.0.to_vec().into() }
}

pub(crate) fn upload_status(operation: &'static str, response: v1::GetStreamProgressResponse) -> Result<UploadStatus> {
    let progress = response.progress.ok_or_else(|| missing(operation, "progress"))?;
    Ok(UploadStatus {
        state: match progress.state() {
            v1::StreamState::Open => "open",
            v1::StreamState::Completing => "completing",
            v1::StreamState::Complete => "complete",
            v1::StreamState::Aborted => "aborted",
            v1::StreamState::Expired => "expired",
            v1::StreamState::Unspecified => return Err(missing(operation, "state")),
        },
        received_bytes: progress.received_bytes,
        total_bytes: (progress.total_bytes > 0).then_some(progress.total_bytes),
        context_id: (!progress.context_id.is_empty()).then_some(progress.context_id),
    })
}
