//! `StreamService.StreamContext`: a connection's frames to an upload's session and back.

use std::sync::Arc;

use acb_proto::v1::{self, stream_context_request::Frame};
use acb_types::{ErrorCode, Sha256Digest, limits};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::{
    convert::{opening_in, progress_out, sha256_in},
    error_out,
};
use crate::{
    api::grpc::{call::refusal, context::context_out, hot::going_away, untyped},
    app::{
        App, OpContext,
        upload::{Chunk, News, Opened, UploadSession, window_bytes},
    },
    auth::Verb,
    error::AppError,
};

type Out = mpsc::Sender<Result<v1::StreamContextResponse, Status>>;
type Input = Streaming<v1::StreamContextRequest>;

/// Serves one upload stream to its end.
pub(super) async fn run(app: Arc<App>, ctx: OpContext, input: Input, out: Out, drain: CancellationToken) {
    let request_id = ctx.request_id();
    let mut stream = UploadStream { app: Arc::clone(&app), ctx, input, out: out.clone(), drain };
    if let Err(Ended::Failed(error)) = stream.serve().await {
        // Who hung up is not told.
        let _ = out.send(Err(refusal(&app, Verb::StreamContext, &error, request_id))).await;
    }
}

/// Why a stream ends before its completion.
enum Ended {
    Failed(AppError),
    /// The client has gone.
    Left,
}

impl From<AppError> for Ended {
    fn from(error: AppError) -> Self {
        Self::Failed(error)
    }
}

struct UploadStream {
    app: Arc<App>,
    ctx: OpContext,
    input: Input,
    out: Out,
    drain: CancellationToken,
}

/// What comes next.
enum Event {
    Frame(Box<Frame>),
    Memory(tokio::sync::OwnedSemaphorePermit),
    News(News),
    Drain,
}

impl UploadStream {
    async fn serve(&mut self) -> Result<(), Ended> {
        let Frame::Open(open) = frame(&mut self.input).await? else { return Err(AppError::missing("open").into()) };
        let opening = opening_in(open)?;
        match self.app.upload_open(self.ctx.clone(), opening).await? {
            Opened::Session(session) => self.drive(*session).await,
            Opened::Complete(row) => {
                let received = self.app.upload_progress(&self.ctx, &row.id).await?.received;
                self.opened(&row, &received).await?;
                let Frame::Complete(complete) = frame(&mut self.input).await? else {
                    let message = format!("stream {} is complete", row.id);
                    return Err(AppError::new(ErrorCode::StreamClosed, message).into());
                };
                let (total, sha256) = whole_in(&complete)?;
                let context = self.app.upload_completed(&self.ctx, &row, total, sha256).await?;
                self.completed(&context).await
            }
        }
    }

    async fn drive(&mut self, mut session: UploadSession) -> Result<(), Ended> {
        let (row, received) = (session.row().clone(), session.received().clone());
        self.opened(&row, &received).await?;
        // A chunk that is here and waits for its share of the memory.
        let mut held: Option<v1::StreamChunk> = None;
        loop {
            let has_room = session.has_room();
            let held_bytes = held.as_ref().map(|chunk| chunk.data.len());
            // All may be dropped at any time: what came is in `held`, and work goes on by itself.
            let event = tokio::select! {
                biased;
                () = self.drain.cancelled() => Event::Drain,
                news = session.next() => Event::News(news?),
                memory = self.app.upload_memory(held_bytes.unwrap_or(0)), if held_bytes.is_some() => Event::Memory(memory?),
                frame = frame(&mut self.input), if held_bytes.is_none() && has_room => Event::Frame(Box::new(frame?)),
            };
            match event {
                Event::Drain => {
                    let going_away = Some(going_away());
                    return self.send(v1::StreamContextResponse { going_away, ..Default::default() }).await;
                }
                Event::News(news) => self.news(news).await?,
                Event::Memory(memory) => {
                    let Some(chunk) = held.take() else { continue };
                    let index = chunk.index;
                    let taken = sha256_in(&chunk.sha256, "sha256")
                        .and_then(|sha256| session.chunk(Chunk { index, sha256, data: chunk.data, memory }));
                    if let Err(error) = taken {
                        self.news(News::Rejected(index, error)).await?;
                    }
                }
                Event::Frame(frame) => {
                    self.check_token()?;
                    match *frame {
                        Frame::Chunk(chunk) => held = Some(chunk),
                        Frame::Offer(offer) => {
                            let digests =
                                offer.sha256.iter().map(|d| sha256_in(d, "sha256")).collect::<Result<_, _>>()?;
                            session.offer(offer.first_index, digests)?;
                        }
                        Frame::Complete(complete) => {
                            let (total, sha256) = whole_in(&complete)?;
                            let context = session.complete(total, sha256).await?;
                            return self.completed(&context).await;
                        }
                        Frame::Open(_) => {
                            let message = "open comes in the first frame only";
                            return Err(AppError::new(ErrorCode::MalformedFrame, message).into());
                        }
                    }
                }
            }
        }
    }

    /// A token that is over or taken back ends the stream: the client comes again with a new one and goes on.
    fn check_token(&self) -> Result<(), AppError> {
        let session = &self.ctx.session;
        if session.is_revoked() {
            return Err(AppError::of(ErrorCode::TokenRevoked));
        }
        let until = session.expires_at;
        if until.is_set() && until.0 < u64::MAX && self.app.now() >= until.after(limits::AUTH_EXPIRED_GRACE) {
            return Err(AppError::of(ErrorCode::TokenExpired));
        }
        Ok(())
    }

    async fn opened(
        &self,
        row: &acb_ports::metadata::UploadRow,
        received: &acb_types::stream::ChunkSet,
    ) -> Result<(), Ended> {
        let opened = Some(v1::StreamOpened {
            progress: Some(progress_out(row, received)),
            window_bytes: window_bytes(&row.chunking),
            request_id: self.ctx.request_id().to_string(),
        });
        self.send(v1::StreamContextResponse { opened, ..Default::default() }).await
    }

    async fn news(&self, news: News) -> Result<(), Ended> {
        let mut response = v1::StreamContextResponse::default();
        match news {
            News::Acked(ranges) => {
                response.acks =
                    ranges.into_iter().map(|(first_index, count)| v1::ChunkRange { first_index, count }).collect();
            }
            News::Rejected(index, error) => {
                self.app.metrics().failure(Verb::StreamContext.name(), error.code());
                let error = Some(error_out(&error, self.ctx.request_id()));
                response.rejects = vec![v1::ChunkReject { index, error }];
            }
        }
        self.send(response).await
    }

    async fn completed(&self, context: &acb_ports::metadata::ContextRow) -> Result<(), Ended> {
        let completed = Some(v1::StreamCompleted { context: Some(context_out(context.clone(), None)) });
        self.send(v1::StreamContextResponse { completed, ..Default::default() }).await
    }

    async fn send(&self, response: v1::StreamContextResponse) -> Result<(), Ended> {
        self.out.send(Ok(response)).await.map_err(|_| Ended::Left)
    }
}

/// The next frame.
async fn frame(input: &mut Input) -> Result<Frame, Ended> {
    match input.message().await {
        Ok(Some(request)) => request.frame.ok_or_else(|| AppError::missing("frame").into()),
        // The client ended its side, or the connection is gone: there is nobody to tell.
        Ok(None) => Err(Ended::Left),
        Err(status) => Err(untyped::unreadable(&status).map_or(Ended::Left, Ended::Failed)),
    }
}

fn whole_in(complete: &v1::StreamComplete) -> Result<(u64, Sha256Digest), AppError> {
    Ok((complete.total_bytes, sha256_in(&complete.sha256, "sha256")?))
}
