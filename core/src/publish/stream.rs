//! The task that keeps the publish stream open: opens it at the first publish, feeds answers to the producer, and opens
//! it anew when it breaks.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_core::Stream;
use tokio::time::{Sleep, sleep_until};
use tonic::Streaming;

use super::{
    producer::{Next, Producer, TICKS_MAX, wake},
    receipt::Wakers,
};
use crate::{
    connection::{Core, Event, Link},
    convert,
    error::{Error, ErrorCode, Result},
    retry::Schedule,
    transport::{
        grpc,
        wire::{self, Outgoing, PublishNews},
    },
};

const OPERATION: &str = "messages.publish";
/// Frames that are read before other tasks get their turn.
const FRAMES_PER_POLL: usize = 32;
/// How long a stream that the server ends may still answer what was sent.
const FAREWELL: Duration = Duration::from_secs(5);

/// The request side of the stream: first `open`, then whatever the producer has. Polled by the connection's own task.
struct Body {
    producer: Arc<Producer>,
    stream: u64,
    open: Option<Outgoing>,
    hold: Option<Pin<Box<Sleep>>>,
}

impl Stream for Body {
    type Item = Outgoing;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Outgoing>> {
        let me = &mut *self;
        if let Some(open) = me.open.take() {
            return Poll::Ready(Some(open));
        }
        loop {
            match me.producer.next_frame(me.stream, cx) {
                Next::Frame(frame) => return Poll::Ready(Some(frame)),
                Next::End => return Poll::Ready(None),
                Next::Wait => {
                    me.hold = None;
                    return Poll::Pending;
                }
                Next::Hold(until) => {
                    let until = until.into();
                    let hold = me.hold.get_or_insert_with(|| Box::pin(sleep_until(until)));
                    if hold.deadline() != until {
                        hold.as_mut().reset(until);
                    }
                    match hold.as_mut().poll(cx) {
                        Poll::Ready(()) => me.hold = None,
                        Poll::Pending => return Poll::Pending,
                    }
                }
            }
        }
    }
}

/// How a stream ended.
enum Ended {
    /// The server drains; come back after this.
    GoingAway(Duration),
    /// It broke, or the server ended it.
    Broken(Error),
}

/// Keeps the stream open until the client is closed.
pub(crate) async fn run(core: Arc<Core>) {
    let producer = Arc::clone(core.producer());
    let mut schedule = core.options().reconnect.schedule();
    let ticking = ticker(Arc::clone(&core));
    let streaming = async {
        loop {
            producer.start.notified().await;
            keep_open(&core, &producer, &mut schedule).await;
        }
    };
    // Both may be dropped at any await: the producer holds all state.
    tokio::select! {
        () = core.closing() => {}
        () = ticking => {}
        () = streaming => {}
    }
    producer.close(&Error::closed(OPERATION));
}

/// Gives up what is unanswered for longer than the publish timeout.
async fn ticker(core: Arc<Core>) {
    let timeout = core.options().publish_timeout;
    let mut ticks = tokio::time::interval(timeout / TICKS_MAX);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let why = match core.down() {
            Some(error) => Error::timeout(OPERATION, timeout).with_source(error),
            None => Error::timeout(OPERATION, timeout),
        };
        core.producer().tick(&why);
    }
}

/// Opens the stream again and again; returns when the server refused it for good.
async fn keep_open(core: &Arc<Core>, producer: &Arc<Producer>, schedule: &mut Schedule) {
    loop {
        let link = match core.link().await {
            Ok(link) => link,
            Err(error) => return producer.fail(&error.with_operation(OPERATION)),
        };
        let ended = one_stream(core, producer, &link, schedule).await;
        let error = match ended {
            Ended::GoingAway(after) => {
                core.retire(link.generation, after);
                continue;
            }
            Ended::Broken(error) => error,
        };
        match core.after_stream_error(&link, &error, schedule).await {
            Ok(()) => {}
            Err(error) => return producer.fail(&error.with_operation(OPERATION)),
        }
    }
}

async fn one_stream(core: &Arc<Core>, producer: &Arc<Producer>, link: &Link, schedule: &mut Schedule) -> Ended {
    let stream = producer.begin_stream();
    let open = convert::publish_open(&producer.id(), producer.epoch(), core.incarnation());
    let body = Body { producer: Arc::clone(producer), stream, open: Some(open), hold: None };
    let metadata = match core.metadata() {
        Ok(metadata) => metadata,
        Err(error) => return Ended::Broken(error),
    };
    let opening =
        grpc::open_stream(link.channel.clone(), core.origin().clone(), acb_proto::PUBLISH_STREAM, metadata, body);
    let input = match tokio::time::timeout(core.options().request_timeout, opening).await {
        Ok(Ok(input)) => input,
        Ok(Err(status)) => return Ended::Broken(convert::error_from_status(OPERATION, &status)),
        Err(_) => return Ended::Broken(Error::timeout(OPERATION, core.options().request_timeout)),
    };
    let _open = core.hot_stream();
    let mut reader = Reader { core, producer, input, farewell: None, going_away: None, read: false };
    let error = poll_fn(|cx| reader.poll(cx)).await;
    if reader.read {
        // It answered: the next failure starts a new row of attempts.
        schedule.reset();
    }
    match reader.going_away {
        Some(after) => Ended::GoingAway(after),
        None => Ended::Broken(error),
    }
}

/// The response side of the stream.
struct Reader<'a> {
    core: &'a Core,
    producer: &'a Producer,
    input: Streaming<Bytes>,
    farewell: Option<Pin<Box<Sleep>>>,
    going_away: Option<Duration>,
    read: bool,
}

impl Reader<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        for _ in 0..FRAMES_PER_POLL {
            match pin!(&mut self.input).poll_next(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    if !std::mem::replace(&mut self.read, true) {
                        self.core.progressed();
                    }
                    if let Err(error) = self.take(&frame) {
                        return Poll::Ready(error);
                    }
                }
                Poll::Ready(Some(Err(status))) => {
                    return Poll::Ready(convert::error_from_status(OPERATION, &status));
                }
                Poll::Ready(None) => {
                    return Poll::Ready(Error::new(ErrorCode::GoingAway, OPERATION, "the server ended the stream"));
                }
                Poll::Pending => {
                    return match &mut self.farewell {
                        Some(sleep) => sleep
                            .as_mut()
                            .poll(cx)
                            .map(|()| Error::new(ErrorCode::GoingAway, OPERATION, "the server drains")),
                        None => Poll::Pending,
                    };
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn take(&mut self, frame: &[u8]) -> Result<()> {
        let mut wakers = Wakers::new();
        let mut failed = None;
        wire::read_publish(frame, |news| match news {
            PublishNews::Ack(ack) => self.producer.acked(&ack, &mut wakers),
            PublishNews::Reject(bytes) => match convert::publish_reject(OPERATION, bytes) {
                Ok((counter, count, error)) => {
                    self.producer.rejected(counter, count, &error, Instant::now(), &mut wakers);
                }
                Err(error) => failed = Some(error),
            },
            PublishNews::AuthExpiring => self.core.token_expires(),
            PublishNews::GoingAway(bytes) => {
                let after = convert::going_away(bytes);
                self.producer.half_close();
                self.going_away = Some(after);
                self.farewell = Some(Box::pin(tokio::time::sleep(FAREWELL)));
            }
            PublishNews::SlowDown(bytes) => {
                let after = convert::slow_down(bytes);
                self.producer.hold_until(Instant::now() + after);
                self.core.tell(Event::SlowDown { after });
            }
        })?;
        wake(wakers);
        failed.map_or(Ok(()), Err)
    }
}
