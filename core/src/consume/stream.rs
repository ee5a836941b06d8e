//! The task that keeps a consume stream open: opens and resumes it, hands arrivals to the consumer, renews leases, and
//! says goodbye.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use acb_types::limits;
use bytes::Bytes;
use futures_core::Stream;
use tokio::{
    sync::oneshot,
    time::{Sleep, sleep},
};
use tonic::Streaming;

use super::{Consumer, settle::Next};
use crate::{
    connection::{Event, Link},
    convert,
    error::{Error, ErrorCode, Result},
    transport::{
        grpc,
        wire::{self, Outgoing},
    },
};

const OPERATION: &str = "subscribe";
/// Frames that are read before other tasks get their turn.
const FRAMES_PER_POLL: usize = 32;
/// How long a stream that ends may still say something.
const FAREWELL: Duration = Duration::from_secs(2);
/// Shortest wait between two renewals of leases.
const RENEW_MIN: Duration = Duration::from_millis(100);

/// Tells the one who subscribes that the stream stands, or why not.
pub(crate) type Ready = oneshot::Sender<Result<()>>;

/// The request side of the stream: first `open`, then what the consumer has to say. Polled by the connection's own task.
struct Body {
    consumer: Arc<Consumer>,
    stream: u64,
    open: Option<Outgoing>,
    linger: Option<Pin<Box<Sleep>>>,
}

impl Stream for Body {
    type Item = Outgoing;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Outgoing>> {
        let me = &mut *self;
        if let Some(open) = me.open.take() {
            return Poll::Ready(Some(open));
        }
        loop {
            if let Some(linger) = &mut me.linger
                && linger.as_mut().poll(cx).is_ready()
            {
                me.linger = None;
                me.consumer.settle.lock().lingered();
            }
            let next = me.consumer.settle.lock().next(me.stream, Instant::now(), cx);
            match next {
                Next::Frame(frame) => return Poll::Ready(Some(frame)),
                Next::End => return Poll::Ready(None),
                Next::Wait => return Poll::Pending,
                Next::Linger if me.linger.is_some() => return Poll::Pending,
                Next::Linger => me.linger = Some(Box::pin(sleep(me.consumer.core.options().ack_linger))),
            }
        }
    }
}

/// How a stream ended.
enum Ended {
    Left,
    GoingAway(Duration),
    /// Deliveries are missing: resume at once.
    Hole,
    Broken(Error),
}

/// Keeps the stream open until it is left, refused for good, or the client is closed.
pub(crate) async fn run(consumer: Arc<Consumer>, ready: Ready) {
    let core = Arc::clone(&consumer.core);
    // All three may be dropped at any await: the consumer holds all state.
    let error = tokio::select! {
        () = core.closing() => None,
        () = goodbye(&consumer) => None,
        error = keep_open(&consumer, ready) => error,
    };
    consumer.end(error);
}

/// Ends when the consumer has left and had its time to say so: longer when settlements might be lost otherwise, but no
/// longer than the bus keeps the leases.
async fn goodbye(consumer: &Consumer) {
    consumer.left.cancelled().await;
    sleep(FAREWELL).await;
    if !consumer.core.is_up() && consumer.settle.lock().has_unsaid() {
        sleep(limits::SESSION_GRACE.saturating_sub(FAREWELL)).await;
    }
}

async fn keep_open(consumer: &Arc<Consumer>, ready: Ready) -> Option<Error> {
    let core = &consumer.core;
    let mut ready = Some(ready);
    let mut schedule = core.options().reconnect.schedule();
    loop {
        let link = loop {
            let left = consumer.left.is_cancelled();
            if left && !core.is_up() && !consumer.settle.lock().has_unsaid() {
                return None;
            }
            // Both may be dropped at any await: they hold nothing.
            tokio::select! {
                link = core.link() => break link,
                () = consumer.left.cancelled(), if !left => {}
            }
        };
        let outcome = match link {
            Ok(link) => match one_stream(consumer, &link, &mut ready, &mut schedule).await {
                Ended::Left => return None,
                Ended::Hole => {
                    tracing::warn!(subscription = consumer.name, "deliveries are missing, will resume");
                    Ok(())
                }
                Ended::GoingAway(after) => {
                    core.retire(link.generation, after);
                    Ok(())
                }
                Ended::Broken(_) if consumer.left.is_cancelled() && !consumer.settle.lock().has_unsaid() => {
                    return None;
                }
                Ended::Broken(error) => core.after_stream_error(&link, &error, &mut schedule).await,
            },
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            let error = error.with_operation(OPERATION);
            return match ready.take() {
                Some(ready) => {
                    // Whoever stopped waiting wants no answer.
                    let _ = ready.send(Err(error));
                    None
                }
                None => Some(error),
            };
        }
    }
}

async fn one_stream(
    consumer: &Arc<Consumer>,
    link: &Link,
    ready: &mut Option<Ready>,
    schedule: &mut crate::retry::Schedule,
) -> Ended {
    let core = &consumer.core;
    let stream = consumer.settle.lock().begin_stream();
    let arrived = consumer.arrived.lock().expected - 1;
    let credit = *consumer.credit.lock();
    let open = convert::ConsumeOpening {
        source: &consumer.source,
        session: &consumer.session,
        incarnation: core.incarnation(),
        resume_delivery: arrived,
        credit: (credit.messages, credit.bytes),
    };
    let body = Body { consumer: Arc::clone(consumer), stream, open: Some(convert::consume_open(&open)), linger: None };
    let metadata = match core.metadata() {
        Ok(metadata) => metadata,
        Err(error) => return Ended::Broken(error),
    };
    let opening = grpc::open_stream(link.channel.clone(), core.origin().clone(), acb_proto::CONSUME, metadata, body);
    let input = match tokio::time::timeout(core.options().request_timeout, opening).await {
        Ok(Ok(input)) => input,
        Ok(Err(status)) => return Ended::Broken(convert::error_from_status(OPERATION, &status)),
        Err(_) => return Ended::Broken(Error::timeout(OPERATION, core.options().request_timeout)),
    };
    let _open = core.hot_stream();
    let mut reader = Reader { consumer, input, ready, schedule, renewal: None };
    poll_fn(|cx| reader.poll(cx)).await
}

/// The response side of the stream.
struct Reader<'a> {
    consumer: &'a Arc<Consumer>,
    input: Streaming<Bytes>,
    ready: &'a mut Option<Ready>,
    schedule: &'a mut crate::retry::Schedule,
    renewal: Option<Pin<Box<Sleep>>>,
}

impl Reader<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        for _ in 0..FRAMES_PER_POLL {
            match pin!(&mut self.input).poll_next(cx) {
                Poll::Ready(Some(Ok(frame))) => match self.take(&frame) {
                    Ok(None) => {}
                    Ok(Some(ended)) => return Poll::Ready(ended),
                    Err(error) => return Poll::Ready(Ended::Broken(error)),
                },
                Poll::Ready(Some(Err(status))) => {
                    return Poll::Ready(Ended::Broken(convert::error_from_status(OPERATION, &status)));
                }
                Poll::Ready(None) if self.consumer.left.is_cancelled() => return Poll::Ready(Ended::Left),
                Poll::Ready(None) => {
                    let text = "the server ended the stream";
                    return Poll::Ready(Ended::Broken(Error::new(ErrorCode::GoingAway, OPERATION, text)));
                }
                Poll::Pending => {
                    self.poll_renewal(cx);
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Renews the leases of what is being handled, at a third of their time.
    fn poll_renewal(&mut self, cx: &mut Context<'_>) {
        let every = (self.consumer.ack_wait() / 3).max(RENEW_MIN);
        loop {
            let renewal = self.renewal.get_or_insert_with(|| Box::pin(sleep(every)));
            if renewal.as_mut().poll(cx).is_pending() {
                return;
            }
            self.renewal = None;
            self.consumer.renew();
        }
    }

    fn take(&mut self, frame: &Bytes) -> Result<Option<Ended>> {
        let mut frame = wire::read_consume(frame)?;
        if let Some(opened) = frame.opened.take() {
            let opened = convert::consume_opened(&opened)?;
            self.consumer.opened(&opened);
            self.renewal = None;
            self.schedule.reset();
            self.consumer.core.progressed();
            if let Some(ready) = self.ready.take() {
                let _ = ready.send(Ok(()));
            }
        }
        for settled in &frame.settled {
            let (first_seq, count, error) = convert::settled("message.ack", settled)?;
            let waited = self.consumer.settle.lock().settled(first_seq, count, error.as_ref());
            if let Some(error) = error
                && !waited
            {
                let subscription = self.consumer.name.clone();
                self.consumer.core.tell(Event::SettlementRefused { subscription, first_seq, count, error });
            }
        }
        if frame.auth_expiring.is_some() {
            self.consumer.core.token_expires();
        }
        let going_away = frame.going_away.take();
        if !self.consumer.deliver(frame) {
            return Ok(Some(Ended::Hole));
        }
        Ok(going_away.map(|bytes| Ended::GoingAway(convert::going_away(&bytes))))
    }
}

/// Starts a consumer's task and waits until its stream stands.
pub(crate) async fn start(consumer: &Arc<Consumer>) -> Result<()> {
    let core = &consumer.core;
    let (ready, stands) = oneshot::channel();
    core.tasks.spawn("consume", run(Arc::clone(consumer), ready));
    let timeout = core.options().request_timeout;
    match tokio::time::timeout(timeout, stands).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(Error::closed(OPERATION)),
        Err(_) => match core.down() {
            Some(error) => Err(Error::timeout(OPERATION, timeout).with_source(error)),
            None => Err(Error::timeout(OPERATION, timeout)),
        },
    }
}
