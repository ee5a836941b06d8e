//! Messages of a subscription, pulled by the guest in batches.
//!
//! The guest takes what is here without waiting ([`Feed::take`]); when there is nothing it submits [`Feed::ready`] and
//! takes again when that is done. `ready` reserves the next message in the feed and hands out nothing, so giving it up,
//! at any moment, loses none: reserve, then commit.
//!
//! A feed holds nothing of its own but that one message. What waits is core's queue of frames, which the subscription's
//! credit bounds in messages and bytes.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use acb_sdk::{Error, Message, Subscription};
use futures_util::Stream as _;
use parking_lot::Mutex;

use crate::fork::Inherited;

/// What [`Feed::take`] found.
#[derive(Debug)]
pub enum Taken {
    /// Messages, which were added to the batch.
    Some,
    /// Nothing now.
    Empty,
    /// An error: of one gap, after which it goes on, or the last one.
    Failed(Error),
    /// Nothing ever again.
    Over,
}

#[derive(Debug)]
struct State {
    subscription: Option<Subscription>,
    reserved: Option<Result<Message, Error>>,
}

/// Those who wait for a message. One waker is all that core keeps, so it gets this.
#[derive(Debug, Default)]
struct Waiters(Mutex<Vec<Waker>>);

impl Wake for Waiters {
    fn wake(self: Arc<Self>) {
        let all = std::mem::take(&mut *self.0.lock());
        all.into_iter().for_each(Waker::wake);
    }
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    waiters: Arc<Waiters>,
}

/// A subscription as guests read it.
#[derive(Debug)]
pub struct Feed(Inherited<Arc<Inner>>);

impl Feed {
    /// Reads from a subscription.
    pub fn new(subscription: Subscription) -> Self {
        let state = State { subscription: Some(subscription), reserved: None };
        Self(Inherited::new(Arc::new(Inner { state: Mutex::new(state), waiters: Arc::default() })))
    }

    /// Takes what is here: up to `max` messages, and no more once their payloads have reached `bytes_max`. Never waits.
    ///
    /// Messages that come before an error are given first, the error with the next call.
    pub fn take(&self, out: &mut Vec<Message>, max: usize, bytes_max: usize) -> Taken {
        let inner = match self.0.get("subscription.next") {
            Ok(inner) => inner,
            Err(error) => return Taken::Failed(error),
        };
        let mut state = inner.state.lock();
        let (mut count, mut bytes) = (0, 0);
        while count < max && bytes < bytes_max {
            match inner.next(&mut state) {
                Poll::Ready(Some(Ok(message))) => {
                    bytes += message.payload_ref().len();
                    out.push(message);
                    count += 1;
                }
                Poll::Ready(Some(Err(error))) if count > 0 => {
                    state.reserved = Some(Err(error));
                    break;
                }
                Poll::Ready(Some(Err(error))) => return Taken::Failed(error),
                Poll::Ready(None) if count == 0 => return Taken::Over,
                Poll::Pending if count == 0 => return Taken::Empty,
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        Taken::Some
    }

    /// Is done when [`Self::take`] has something to say. Giving it up loses nothing.
    ///
    /// # Errors
    /// None of its own; the type is that of submitted work.
    pub fn ready(&self) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        let inner = self.0.get("subscription.next").map(Arc::clone);
        async move {
            let inner = inner?;
            poll_fn(|cx| inner.poll_ready(cx)).await;
            Ok(())
        }
    }

    /// Looks at the subscription, while there is one.
    pub fn with<R>(&self, look: impl FnOnce(&Subscription) -> R) -> Option<R> {
        let inner = self.0.get("subscription").ok()?;
        inner.state.lock().subscription.as_ref().map(look)
    }

    /// Leaves: settlements are sent, what is unsettled goes back to the bus; whoever waits is told. May be called twice.
    pub fn close(&self) {
        let Ok(inner) = self.0.get("subscription.close") else { return };
        let mut state = inner.state.lock();
        let (subscription, reserved) = (state.subscription.take(), state.reserved.take());
        drop(state);
        drop((subscription, reserved));
        Arc::clone(&inner.waiters).wake();
    }
}

impl Inner {
    /// The next message: the reserved one, or the subscription's. Always asked with the waker of all who wait.
    fn next(&self, state: &mut State) -> Poll<Option<Result<Message, Error>>> {
        if let Some(reserved) = state.reserved.take() {
            return Poll::Ready(Some(reserved));
        }
        let Some(subscription) = &mut state.subscription else { return Poll::Ready(None) };
        let waker = Waker::from(Arc::clone(&self.waiters));
        Pin::new(subscription).poll_next(&mut Context::from_waker(&waker))
    }

    fn poll_ready(&self, cx: &Context<'_>) -> Poll<()> {
        // In the list before the look: what comes in between wakes it.
        let mut waiters = self.waiters.0.lock();
        if !waiters.iter().any(|w| w.will_wake(cx.waker())) {
            waiters.push(cx.waker().clone());
        }
        drop(waiters);
        let mut state = self.state.lock();
        if state.reserved.is_some() {
            return Poll::Ready(());
        }
        match self.next(&mut state) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(next)) => {
                state.reserved = Some(next);
                Poll::Ready(())
            }
            Poll::Ready(None) => Poll::Ready(()),
        }
    }
}
