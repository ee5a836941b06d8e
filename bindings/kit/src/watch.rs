//! Events of a watch, pulled by the guest in batches, as messages are from a [`Feed`](crate::Feed): [`Watch::ready`] puts
//! what came aside and hands out nothing, so that giving it up loses none; [`Watch::take`] never waits.
//!
//! What is put aside is at most [`EVENTS_MAX`] events, and no more once their payloads have reached [`BYTES_MAX`]; what
//! comes after that stays with the connection, whose window the server fills and no more.

use std::{collections::VecDeque, fmt, future::Future, sync::Arc};

use acb_sdk::{AgentEvent, AgentWatch, ContextEvent, ContextWatch, Error};
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::sync;

use crate::fork::Inherited;

/// Events that are put aside at once.
pub const EVENTS_MAX: usize = 256;
/// Bytes of their payloads after which no more are put aside.
pub const BYTES_MAX: usize = 4 << 20;

/// A watch of the core.
pub trait Watched: Send + 'static {
    /// What it brings.
    type Event: Send + 'static;

    /// The next event; `None` when there is none ever again. Loses none when it is dropped.
    fn next(&mut self) -> impl Future<Output = Option<Result<Self::Event, Error>>> + Send;

    /// The revision up to which everything was given out.
    fn revision(&self) -> u64;

    /// Bytes of an event's payload.
    fn bytes(event: &Self::Event) -> usize;
}

impl Watched for ContextWatch {
    type Event = ContextEvent;

    fn next(&mut self) -> impl Future<Output = Option<Result<ContextEvent, Error>>> + Send {
        Self::next(self)
    }

    fn revision(&self) -> u64 {
        Self::revision(self)
    }

    fn bytes(event: &ContextEvent) -> usize {
        event.context().map_or(0, |c| c.payload.len())
    }
}

impl Watched for AgentWatch {
    type Event = AgentEvent;

    fn next(&mut self) -> impl Future<Output = Option<Result<AgentEvent, Error>>> + Send {
        Self::next(self)
    }

    fn revision(&self) -> u64 {
        Self::revision(self)
    }

    fn bytes(_: &AgentEvent) -> usize {
        0
    }
}

/// An event, and the revision that was reached with it.
pub type Seen<E> = (E, u64);

struct Inner<W: Watched> {
    /// `None` when it is over.
    watch: sync::Mutex<Option<W>>,
    here: Mutex<Here<W::Event>>,
    closed: sync::watch::Sender<bool>,
}

struct Here<E> {
    events: VecDeque<Seen<Result<E, Error>>>,
    over: bool,
}

/// A watch as guests read it.
pub struct Watch<W: Watched>(Inherited<Arc<Inner<W>>>);

impl<W: Watched> fmt::Debug for Watch<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

impl<W: Watched> Watch<W> {
    /// Reads from a watch.
    pub fn new(watch: W) -> Self {
        let here = Mutex::new(Here { events: VecDeque::new(), over: false });
        let watch = sync::Mutex::new(Some(watch));
        Self(Inherited::new(Arc::new(Inner { watch, here, closed: sync::watch::Sender::new(false) })))
    }

    /// Takes what is here, up to `max` events: empty when nothing is here now, `None` when nothing ever comes again.
    ///
    /// # Errors
    /// The error that ended the watch, after the events before it.
    pub fn take(&self, max: usize) -> Result<Option<Vec<Seen<W::Event>>>, Error> {
        let inner = self.0.get("watch.next")?;
        let mut here = inner.here.lock();
        let mut out = Vec::new();
        while out.len() < max {
            match here.events.pop_front() {
                Some((Ok(event), revision)) => out.push((event, revision)),
                Some((Err(error), _)) if out.is_empty() => return Err(error),
                Some(failed) => {
                    here.events.push_front(failed);
                    break;
                }
                None => break,
            }
        }
        Ok((!out.is_empty() || !here.over).then_some(out))
    }

    /// Is done when [`Self::take`] has something to say. Giving it up loses nothing.
    ///
    /// # Errors
    /// `client_forked`; what the watch ended with comes from [`Self::take`].
    pub fn ready(&self) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        let inner = self.0.get("watch.next").map(Arc::clone);
        async move {
            let inner = inner?;
            let mut closed = inner.closed.subscribe();
            let closed = async move { closed.wait_for(|closed| *closed).await.is_ok() };
            let is_closed = tokio::select! {
                biased;
                is_closed = closed => is_closed,
                () = inner.gather() => false,
            };
            if is_closed {
                inner.watch.lock().await.take();
            }
            Ok(())
        }
    }

    /// Ends it; whoever waits is told. May be called twice.
    pub fn close(&self) {
        let Ok(inner) = self.0.get("watch.close") else { return };
        let mut here = inner.here.lock();
        here.events.clear();
        here.over = true;
        drop(here);
        inner.closed.send_replace(true);
        // Whoever waits has it in hand, and lets it go.
        if let Ok(mut watch) = inner.watch.try_lock() {
            watch.take();
        }
    }
}

impl<W: Watched> Inner<W> {
    /// Waits for an event, then puts aside what has come with it.
    async fn gather(&self) {
        let mut held = self.watch.lock().await;
        if !self.here.lock().events.is_empty() {
            // Another who waited has seen to it.
            return;
        }
        let Some(watch) = held.as_mut() else { return };
        let (mut count, mut bytes) = (0, 0);
        let mut next = watch.next().await;
        loop {
            let Some(outcome) = next else {
                self.here.lock().over = true;
                *held = None;
                return;
            };
            bytes += outcome.as_ref().map_or(0, W::bytes);
            count += 1;
            let seen = (outcome, watch.revision());
            let mut here = self.here.lock();
            if here.over {
                // It was closed meanwhile.
                return;
            }
            here.events.push_back(seen);
            drop(here);
            if count >= EVENTS_MAX || bytes >= BYTES_MAX {
                return;
            }
            match watch.next().now_or_never() {
                Some(more) => next = more,
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use acb_sdk::ErrorCode;

    use super::*;

    /// Gives numbers as they are sent, with ten times the number as the revision.
    struct Numbers(sync::mpsc::UnboundedReceiver<Result<u64, Error>>, u64);

    impl Watched for Numbers {
        type Event = u64;

        async fn next(&mut self) -> Option<Result<u64, Error>> {
            let next = self.0.recv().await;
            if let Some(Ok(number)) = &next {
                self.1 = number * 10;
            }
            next
        }

        fn revision(&self) -> u64 {
            self.1
        }

        fn bytes(event: &u64) -> usize {
            if *event == 7 { BYTES_MAX } else { 0 }
        }
    }

    fn numbers() -> (sync::mpsc::UnboundedSender<Result<u64, Error>>, Watch<Numbers>) {
        let (give, take) = sync::mpsc::unbounded_channel();
        (give, Watch::new(Numbers(take, 0)))
    }

    #[tokio::test]
    async fn who_gives_up_waiting_loses_no_event() {
        let (give, watch) = numbers();
        assert_eq!(watch.take(9).unwrap(), Some(vec![]), "nothing is here, and something may come");
        // Given up before anything came, and after something did.
        assert!(watch.ready().now_or_never().is_none());
        for number in 1..=3 {
            give.send(Ok(number)).unwrap();
            assert!(watch.ready().now_or_never().is_some());
            drop(watch.ready());
        }
        assert_eq!(
            watch.take(2).unwrap(),
            Some(vec![(1, 10)]),
            "later waits found the first one's event and took no more"
        );
        watch.ready().await.unwrap();
        assert_eq!(watch.take(2).unwrap(), Some(vec![(2, 20), (3, 30)]));
        assert_eq!(watch.take(2).unwrap(), Some(vec![]));
    }

    #[tokio::test]
    async fn large_events_are_put_aside_one_by_one() {
        let (give, watch) = numbers();
        for number in [7, 8] {
            give.send(Ok(number)).unwrap();
        }
        watch.ready().await.unwrap();
        assert_eq!(watch.take(9).unwrap(), Some(vec![(7, 70)]));
        watch.ready().await.unwrap();
        assert_eq!(watch.take(9).unwrap(), Some(vec![(8, 80)]));
    }

    #[tokio::test]
    async fn an_error_comes_after_what_was_before_it_and_then_the_end() {
        let (give, watch) = numbers();
        give.send(Ok(1)).unwrap();
        give.send(Err(Error::new(ErrorCode::RevisionGap, "test", "gone"))).unwrap();
        drop(give);
        watch.ready().await.unwrap();
        assert_eq!(watch.take(9).unwrap(), Some(vec![(1, 10)]));
        assert_eq!(watch.take(9).unwrap_err().code(), ErrorCode::RevisionGap);
        watch.ready().await.unwrap();
        assert_eq!(watch.take(9).unwrap(), None);
    }

    #[tokio::test]
    async fn closing_tells_who_waits_and_lets_the_watch_go() {
        let (give, watch) = numbers();
        let waiting = tokio::spawn(watch.ready());
        tokio::task::yield_now().await;
        watch.close();
        waiting.await.unwrap().unwrap();
        assert_eq!(watch.take(9).unwrap(), None);
        assert!(give.is_closed(), "the core's watch was let go");
        watch.close();
    }
}
