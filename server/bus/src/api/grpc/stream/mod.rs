//! `StreamService`: contents of any size, up in chunks and down in pieces.

mod convert;
mod upload;

use std::pin::Pin;

use acb_proto::v1::{self, receive_context_response::Frame};
use acb_types::{ErrorCode, StreamId};
use futures_core::Stream;
use futures_util::{StreamExt as _, stream};
use tonic::{Request, Response, Status, Streaming};

use self::convert::{progress_out, stream_id_in, wanted_in};
use super::{
    call::{Grpc, refusal},
    context::context_out,
    status,
};
use crate::{app::download::Piece, auth::Verb, error::AppError};

/// Largest frame that is read: a chunk of the largest size with what stands around it, or 4,096 digests.
pub(super) const FRAME_BYTES_MAX: usize = acb_types::limits::CHUNK_BYTES_MAX + 64 * 1024;
/// Frames down that wait for the connection.
const FRAMES_WAITING: usize = 16;

#[tonic::async_trait]
impl v1::stream_service_server::StreamService for Grpc {
    type StreamContextStream = tokio_stream::wrappers::ReceiverStream<Result<v1::StreamContextResponse, Status>>;
    type ReceiveContextStream = Pin<Box<dyn Stream<Item = Result<v1::ReceiveContextResponse, Status>> + Send>>;

    async fn stream_context(
        &self,
        request: Request<Streaming<v1::StreamContextRequest>>,
    ) -> Result<Response<Self::StreamContextStream>, Status> {
        let ctx = self.open(Verb::StreamContext, &request).await?;
        let (out, frames) = tokio::sync::mpsc::channel(FRAMES_WAITING);
        let (app, drain) = (self.app().clone(), self.drain().clone());
        let input = request.into_inner();
        self.tasks().spawn("upload", upload::run(app, ctx, input, out, drain));
        Ok(Response::new(frames.into()))
    }

    async fn receive_context(
        &self,
        request: Request<v1::ReceiveContextRequest>,
    ) -> Result<Response<Self::ReceiveContextStream>, Status> {
        const VERB: Verb = Verb::ReceiveContext;
        let ctx = self.open(VERB, &request).await?;
        let request_id = ctx.request_id();
        let opened = async { self.app().download_open(&ctx, wanted_in(request.get_ref())?).await }.await;
        let download = opened.map_err(|error| refusal(self.app(), VERB, &error, request_id))?;
        let first =
            v1::ReceiveOpened { context: Some(context_out(download.row.clone(), None)), length_bytes: download.length };
        let last = v1::ReceiveCompleted { length_bytes: download.length };
        let (app, session) = (self.app().clone(), ctx.session.clone());
        let pieces = download.pieces().map(move |piece| {
            let piece = piece.and_then(|piece| {
                if session.is_revoked() { Err(AppError::of(ErrorCode::TokenRevoked)) } else { Ok(piece_out(piece)) }
            });
            piece.map_err(|error| refusal(&app, VERB, &error, request_id))
        });
        let frame = |frame| v1::ReceiveContextResponse { frame: Some(frame) };
        let frames = stream::iter([Ok(frame(Frame::Opened(first)))])
            .chain(pieces.map(move |piece| piece.map(|piece| frame(Frame::Chunk(piece)))))
            .chain(stream::iter([Ok(frame(Frame::Completed(last)))]));
        Ok(Response::new(Box::pin(frames)))
    }

    async fn get_stream_progress(
        &self,
        request: Request<v1::GetStreamProgressRequest>,
    ) -> Result<Response<v1::GetStreamProgressResponse>, Status> {
        self.call(Verb::GetStreamProgress, request, |(app, ctx, r)| async move {
            let progress = app.upload_progress(&ctx, &stream_id_in(&r.stream_id)?).await?;
            Ok(v1::GetStreamProgressResponse { progress: Some(progress_out(&progress.row, &progress.received)) })
        })
        .await
    }

    async fn abort_stream(
        &self,
        request: Request<v1::AbortStreamRequest>,
    ) -> Result<Response<v1::AbortStreamResponse>, Status> {
        self.call(Verb::AbortStream, request, |(app, ctx, r)| async move {
            let id: StreamId = stream_id_in(&r.stream_id)?;
            app.upload_abort(&ctx, &id).await?;
            Ok(v1::AbortStreamResponse {})
        })
        .await
    }
}

fn piece_out(piece: Piece) -> v1::ReceivedChunk {
    v1::ReceivedChunk { offset_bytes: piece.offset, sha256: piece.sha256.0.to_vec().into(), data: piece.data }
}

/// As [`refusal`], for a frame.
fn error_out(error: &AppError, request_id: crate::request_id::RequestId) -> v1::Error {
    status::to_proto(error, request_id)
}
