//! How long tasks hold a serving thread: the metric `acb_longest_poll_seconds`.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use hyper::rt::Executor;

use crate::telemetry::Metrics;

/// Spawns on the present runtime and times every poll: two readings of the clock, some 50 ns.
#[derive(Clone, Debug)]
pub struct TimedExecutor(pub Arc<Metrics>);

impl<F> Executor<F> for TimedExecutor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "a connection's own tasks end with it")]
    fn execute(&self, future: F) {
        tokio::spawn(Timed { future: Box::pin(future), metrics: Arc::clone(&self.0) });
    }
}

/// A future whose polls are timed.
#[derive(Debug)]
pub struct Timed<F> {
    future: Pin<Box<F>>,
    metrics: Arc<Metrics>,
}

impl<F> Timed<F> {
    /// Times the polls of a future.
    pub fn new(future: F, metrics: Arc<Metrics>) -> Self {
        Self { future: Box::pin(future), metrics }
    }
}

impl<F: Future> Future for Timed<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let started = Instant::now();
        let polled = self.future.as_mut().poll(cx);
        self.metrics.poll(started.elapsed());
        polled
    }
}
