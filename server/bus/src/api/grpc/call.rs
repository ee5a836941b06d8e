//! What every unary call goes through: who calls, may they, how often, how long; then the use case; then what is
//! counted, logged and answered.

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use acb_types::ErrorCode;
use futures_core::Stream;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status,
    metadata::{MetadataMap, MetadataValue},
};

use super::status;
use crate::{
    app::{App, Caller, OpContext},
    auth::{Verb, policy},
    edge::PeerAddress,
    error::AppError,
    request_id::RequestId,
    tasks::Tasks,
};

/// Longest that a unary call runs, also when the caller would wait longer.
const CALL_TIME_MAX: Duration = Duration::from_mins(1);

/// All services' state.
#[derive(Clone, Debug)]
pub struct Grpc {
    app: Arc<App>,
    tasks: Tasks,
}

/// A stream of answers.
pub(super) type Answers<A> = Pin<Box<dyn Stream<Item = Result<A, Status>> + Send>>;

/// What a use case is given: the use cases themselves, who calls, and the request.
pub(super) type Input<C, T> = (Arc<App>, C, T);

impl Grpc {
    /// Services over these use cases.
    pub fn new(app: Arc<App>, tasks: Tasks) -> Self {
        Self { app, tasks }
    }

    /// The use cases.
    pub(super) fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Where tasks of streams are born.
    pub(super) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Fires when the server drains.
    pub(super) fn drain(&self) -> &CancellationToken {
        &self.app.deps.drain
    }

    /// Lets a caller open a stream: known, allowed, and within its rate.
    pub(super) async fn open<T: Sync>(&self, verb: Verb, request: &Request<T>) -> Result<OpContext, Status> {
        let caller = caller(request);
        let metadata = request.metadata().clone();
        let admitted = self.admit(verb, caller, &metadata).await;
        admitted.map_err(|error| refusal(&self.app, verb, &error, caller.request_id))
    }

    /// Makes a call of a caller who must be known.
    pub(super) async fn call<Q, A, F>(
        &self,
        verb: Verb,
        request: Request<Q>,
        use_case: impl FnOnce(Input<OpContext, Q>) -> F,
    ) -> Result<Response<A>, Status>
    where
        A: Send + 'static,
        F: Future<Output = Result<A, AppError>> + Send + 'static,
    {
        let started = Instant::now();
        let caller = caller(&request);
        let within = deadline(request.metadata());
        let outcome = match self.admit(verb, caller, request.metadata()).await {
            Ok(ctx) => {
                let work = use_case((Arc::clone(&self.app), ctx, request.into_inner()));
                if verb.changes_two_places() { self.to_the_end(within, work).await } else { run(within, work).await }
            }
            Err(error) => Err(error),
        };
        self.answer(verb, caller.request_id, started, outcome)
    }

    /// Makes a call that anybody may make.
    pub(super) async fn call_public<Q, A, F>(
        &self,
        verb: Verb,
        request: Request<Q>,
        use_case: impl FnOnce(Input<Caller, Q>) -> F,
    ) -> Result<Response<A>, Status>
    where
        A: Send + 'static,
        F: Future<Output = Result<A, AppError>> + Send + 'static,
    {
        let started = Instant::now();
        let caller = caller(&request);
        let within = deadline(request.metadata());
        let outcome = run(within, use_case((Arc::clone(&self.app), caller, request.into_inner()))).await;
        self.answer(verb, caller.request_id, started, outcome)
    }

    /// Opens a stream of answers to a caller who must be known. What ends the stream is its last item.
    pub(super) async fn call_stream<Q, A, S, F>(
        &self,
        verb: Verb,
        request: Request<Q>,
        use_case: impl FnOnce(Input<OpContext, Q>) -> F,
    ) -> Result<Response<Answers<A>>, Status>
    where
        A: Send + 'static,
        S: Stream<Item = Result<A, AppError>> + Send + 'static,
        F: Future<Output = Result<S, AppError>> + Send + 'static,
    {
        let started = Instant::now();
        let caller = caller(&request);
        let outcome = match self.admit(verb, caller, request.metadata()).await {
            Ok(ctx) => run(CALL_TIME_MAX, use_case((Arc::clone(&self.app), ctx, request.into_inner()))).await,
            Err(error) => Err(error),
        };
        let (app, id) = (Arc::clone(&self.app), caller.request_id);
        let answers = outcome.map(|stream| -> Answers<A> {
            Box::pin(stream.map(move |item| {
                item.map_err(|error| {
                    app.metrics().failure(verb.name(), error.code());
                    status::log(&error, verb.name(), id);
                    status::to_status(&error, id)
                })
            }))
        });
        self.answer(verb, caller.request_id, started, answers)
    }

    async fn admit(&self, verb: Verb, caller: Caller, metadata: &MetadataMap) -> Result<OpContext, AppError> {
        let session = self.app.auth().authenticate(metadata.as_ref())?;
        policy::allows(&session.principal, verb)?;
        let ctx = OpContext { caller, session };
        self.app.admit(&ctx)?;
        self.app.tenant_for_dev(&ctx.principal().tenant).await?;
        Ok(ctx)
    }

    /// Runs work that a caller who hangs up must not cut in two: a row written and its subscription not opened.
    async fn to_the_end<A: Send + 'static>(
        &self,
        within: Duration,
        work: impl Future<Output = Result<A, AppError>> + Send + 'static,
    ) -> Result<A, AppError> {
        let (tx, rx) = tokio::sync::oneshot::channel();
        self.tasks.spawn_to_the_end(async move {
            let outcome = run(CALL_TIME_MAX, work).await;
            // The caller may have hung up.
            let _ = tx.send(outcome);
        });
        let ended = async { rx.await.unwrap_or_else(|_| Err(AppError::internal("the call's task ended early"))) };
        run(within, ended).await
    }

    fn answer<A>(
        &self,
        verb: Verb,
        request_id: RequestId,
        started: Instant,
        outcome: Result<A, AppError>,
    ) -> Result<Response<A>, Status> {
        let failure = outcome.as_ref().err().map(AppError::code);
        self.app.metrics().call(verb.name(), started.elapsed(), failure);
        match outcome {
            Ok(answer) => {
                let mut response = Response::new(answer);
                if let Ok(id) = MetadataValue::try_from(request_id.to_string()) {
                    response.metadata_mut().insert(status::REQUEST_ID, id);
                }
                Ok(response)
            }
            Err(error) => {
                status::log(&error, verb.name(), request_id);
                Err(status::to_status(&error, request_id))
            }
        }
    }
}

/// Ends a stream with an error, counted, logged and named.
pub(super) fn refusal(app: &App, verb: Verb, error: &AppError, request_id: RequestId) -> Status {
    app.metrics().failure(verb.name(), error.code());
    status::log(error, verb.name(), request_id);
    status::to_status(error, request_id)
}

/// Runs work for a time at most. A panic becomes `internal`, and the server lives on.
async fn run<A>(within: Duration, work: impl Future<Output = Result<A, AppError>>) -> Result<A, AppError> {
    let guarded = AssertUnwindSafe(work).catch_unwind();
    match tokio::time::timeout(within, guarded).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(panic)) => {
            let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            Err(AppError::internal(format!("panic: {text}")))
        }
        Err(_) => Err(AppError::of(ErrorCode::DeadlineExceeded)),
    }
}

fn caller<T>(request: &Request<T>) -> Caller {
    let address = request.extensions().get::<PeerAddress>().map(|peer| peer.0.ip());
    Caller { request_id: RequestId::new(), address }
}

/// How long the caller waits (`grpc-timeout`), as far as we do.
fn deadline(metadata: &MetadataMap) -> Duration {
    let asked = metadata.get("grpc-timeout").and_then(|v| v.to_str().ok()).and_then(parse_timeout);
    asked.map_or(CALL_TIME_MAX, |d| d.min(CALL_TIME_MAX))
}

/// At most eight digits and a unit, as the gRPC protocol has it. What is none counts as not given.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (unit_at, unit) = text.char_indices().last()?;
    let digits = &text[..unit_at];
    if digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        'H' => Duration::from_hours(n),
        'M' => Duration::from_mins(n),
        'S' => Duration::from_secs(n),
        'm' => Duration::from_millis(n),
        'u' => Duration::from_micros(n),
        'n' => Duration::from_nanos(n),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_read_as_grpc_writes_it() {
        assert_eq!(parse_timeout("5S"), Some(Duration::from_secs(5)));
        assert_eq!(parse_timeout("99999999H"), Some(Duration::from_hours(99_999_999)));
        assert_eq!(parse_timeout("250m"), Some(Duration::from_millis(250)));
        for bad in ["", "S", "5", "-5S", "123456789S", "5é", "5 S"] {
            assert_eq!(parse_timeout(bad), None, "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_panic_is_answered_and_told_to_us_only() {
        let error = run::<()>(CALL_TIME_MAX, async { panic!("secret detail") }).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::Internal);
        assert!(!error.message().contains("secret"));
        assert!(error.report().is_some_and(|r| r.contains("secret detail")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_at_its_deadline() {
        let error = run::<()>(Duration::from_millis(5), std::future::pending()).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::DeadlineExceeded);
    }
}
