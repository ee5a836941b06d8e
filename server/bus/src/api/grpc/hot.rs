//! What the two hot streams share: how they are reached, who may open them, and what ends them from outside.
//!
//! Neither has a task of its own. The response stream polls its request stream, hands operations to partitions and
//! drains its outbox, so an idle pair costs its buffers and nothing else.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use acb_ports::Clock;
use acb_types::{ErrorCode, Timestamp, limits};
use axum::{Router, routing::post_service};
use bytes::Bytes;
use futures_core::Stream;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming, metadata::MetadataMap};

use super::{
    codec::{FrameCodec, OutFrame},
    consume::ConsumeStream,
    publish_stream::PublishStream,
    status,
};
use crate::{
    auth::{AuthSession, Authenticator, Mode, policy::Verb},
    delivery::{Delivery, TenantDelivery},
    domain::durability::DurabilityPolicy,
    error::AppError,
    presence::Presence,
    request_id::RequestId,
    telemetry::Metrics,
};

/// Warning before the token of a stream ends.
const AUTH_WARNING: Duration = Duration::from_mins(1);
/// Grace after the token of a stream ended.
const AUTH_GRACE: Duration = Duration::from_secs(30);
/// Request frames that one poll takes before it lets other streams have the thread.
pub(super) const FRAMES_PER_POLL: usize = 16;
/// Largest frame that is read at all. Above what is legal, so that a frame that is too large gets its own error.
const FRAME_READ_MAX: usize = 2 * limits::MESSAGE_BYTES_MAX;

/// What the hot streams stand on.
#[derive(Debug)]
pub struct HotContext {
    /// Where messages go and come from.
    pub delivery: Arc<Delivery>,
    /// Who calls.
    pub auth: Arc<Authenticator>,
    /// Who is there.
    pub presence: Arc<Presence>,
    /// Levels of messages.
    pub durability: DurabilityPolicy,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Fires when the server drains.
    pub drain: CancellationToken,
}

/// The exact routes of the two hot methods. Merge before the generated services, whose routes are wider.
pub fn router(context: Arc<HotContext>) -> Router {
    let publish = Method { context: Arc::clone(&context), verb: Verb::PublishStream };
    let consume = Method { context, verb: Verb::Consume };
    Router::new()
        .route(acb_proto::PUBLISH_STREAM, post_service(publish))
        .route(acb_proto::CONSUME, post_service(consume))
}

/// A response stream.
type Frames = Pin<Box<dyn Stream<Item = Result<OutFrame, Status>> + Send>>;

#[derive(Clone, Debug)]
struct Method {
    context: Arc<HotContext>,
    verb: Verb,
}

impl tower::Service<axum::extract::Request> for Method {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: axum::extract::Request) -> Self::Future {
        let opening = Opening(self.clone());
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(FrameCodec).max_decoding_message_size(FRAME_READ_MAX);
            Ok(grpc.streaming(opening, request).await)
        })
    }
}

struct Opening(Method);

impl tonic::server::StreamingService<Bytes> for Opening {
    type Response = OutFrame;
    type ResponseStream = Frames;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<Frames>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<Streaming<Bytes>>) -> Self::Future {
        let Method { context, verb } = self.0.clone();
        Box::pin(async move {
            let request_id = RequestId::new();
            let (metadata, _, input) = request.into_parts();
            let caller = match caller(&context, metadata, verb, request_id).await {
                Ok(caller) => caller,
                Err(error) => {
                    return Err(failed(&context, verb, &error, request_id));
                }
            };
            let frames: Frames = match verb {
                Verb::Consume => Box::pin(ConsumeStream::new(context, caller, input)),
                _ => Box::pin(PublishStream::new(context, caller, input)),
            };
            Ok(tonic::Response::new(frames))
        })
    }
}

/// Who opened a stream.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) session: Arc<AuthSession>,
    pub(super) tenant: Arc<TenantDelivery>,
    pub(super) request_id: RequestId,
}

async fn caller(
    context: &Arc<HotContext>,
    metadata: MetadataMap,
    verb: Verb,
    request_id: RequestId,
) -> Result<Caller, AppError> {
    let session = context.auth.authenticate(&metadata.into_headers())?;
    crate::auth::policy::allows(&session.principal, verb)?;
    let tenant = if let Ok(tenant) = context.delivery.tenant(&session.principal.tenant) {
        tenant
    } else {
        // A tenant may have been made since the start, and with `--dev` it is made by its first use.
        let may_make = context.auth.mode() == Mode::Dev;
        context.delivery.tenant_ready(&session.principal.tenant, may_make).await?
    };
    Ok(Caller { session, tenant, request_id })
}

/// What comes to a stream from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    /// Its token ends soon.
    AuthSoon,
    /// Its token ended and no other came.
    TokenExpired,
    /// A newer incarnation of the agent has registered.
    Fenced,
    /// The server drains.
    Drain,
}

/// Waits for the next [`Control`] of a stream, and is polled only when it has something to say: a stream's poll is too
/// frequent to ask three sources each time.
pub(super) struct Watch {
    future: Pin<Box<dyn Future<Output = Control> + Send>>,
    flag: Arc<Flag>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Flag {
    raised: AtomicBool,
    stream: Mutex<Option<Waker>>,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.raised.store(true, Ordering::Release);
        let waker = self.stream.lock().clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Watch {
    /// Watches a session's end, a fence and the server's drain. `warned` says that [`Control::AuthSoon`] has come.
    pub(super) fn new(
        context: &Arc<HotContext>,
        session: &AuthSession,
        fence: CancellationToken,
        warned: bool,
    ) -> Self {
        let context = Arc::clone(context);
        let expires_at = session.expires_at;
        let future = async move {
            let clock = &*context.clock;
            let due = async {
                if !expires_at.is_set() || expires_at.0 == u64::MAX {
                    return std::future::pending().await;
                }
                if warned {
                    sleep_to(clock, expires_at.after(AUTH_GRACE)).await;
                    Control::TokenExpired
                } else {
                    sleep_to(clock, Timestamp(expires_at.0.saturating_sub(AUTH_WARNING.as_millis() as u64))).await;
                    Control::AuthSoon
                }
            };
            // All three may be dropped at any time.
            tokio::select! {
                control = due => control,
                () = fence.cancelled() => Control::Fenced,
                () = context.drain.cancelled() => Control::Drain,
            }
        };
        let flag = Arc::new(Flag { raised: AtomicBool::new(true), stream: Mutex::default() });
        Self { future: Box::pin(future), flag }
    }

    /// The next control, if there is one now.
    pub(super) fn poll(&mut self, cx: &Context<'_>) -> Option<Control> {
        if !self.flag.raised.swap(false, Ordering::AcqRel) {
            return None;
        }
        *self.flag.stream.lock() = Some(cx.waker().clone());
        let waker = Waker::from(Arc::clone(&self.flag));
        match self.future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(control) => Some(control),
            Poll::Pending => None,
        }
    }
}

async fn sleep_to(clock: &dyn Clock, wall: Timestamp) {
    loop {
        let now = clock.now();
        if now.wall >= wall {
            return;
        }
        clock.sleep_until(now.mono_after(wall.since(now.wall))).await;
    }
}

/// Ends a stream with an error, counted and named.
pub(super) fn failed(context: &HotContext, verb: Verb, error: &AppError, request_id: RequestId) -> Status {
    context.metrics.failure(verb.name(), error.code());
    status::log(error, verb.name(), request_id);
    status::to_status(error, request_id)
}

/// What a drain tells streams.
pub(super) fn going_away() -> acb_proto::v1::GoingAway {
    acb_proto::v1::GoingAway { reason: "the server is shutting down".into(), retry_after_ms: 0 }
}

/// The error that a [`Control`] ends a stream with; `None` for those that do not end it.
pub(super) fn ending(control: Control) -> Option<AppError> {
    match control {
        Control::AuthSoon | Control::Drain => None,
        Control::TokenExpired => Some(AppError::of(ErrorCode::TokenExpired)),
        Control::Fenced => Some(AppError::of(ErrorCode::SessionFenced)),
    }
}
