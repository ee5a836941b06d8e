//! Draining at the end of a hot runtime's round.
//!
//! A stream that submits an operation marks its partition and wakes one task of its runtime. That task runs after all
//! connections that are ready in this round, so one write and one lock serve all of them (measured against draining
//! inside each submit and against a thread of its own: ADR 0006). No timer and no lingering: an idle server drains at
//! once. The same task wakes the streams of its thread for which other threads have news ([`super::sleeper`]).
//!
//! Where work comes closely after work the same task keeps its thread awake for a moment, see `BusyPoll`.

use std::{
    cell::RefCell,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::poll;
use tokio::sync::Notify;

use super::{
    partition::Partition,
    sleeper::{Home, Sleepers},
};
use crate::telemetry::Metrics;

struct Tick {
    home: Arc<Home>,
    marked: Vec<Arc<Partition>>,
    metrics: Arc<Metrics>,
}

thread_local! {
    static TICK: RefCell<Option<Tick>> = const { RefCell::new(None) };
}

/// How long the next wait for work looks for it before the thread sleeps. To sleep and to be woken costs tens of
/// microseconds on each side, on a virtual machine more than the work itself; to look costs a core. So a thread looks only
/// where work came soon after the last, and gives that up by halves where it comes late: what Linux's `guest_halt_poll_ns`
/// does for a whole machine.
#[derive(Debug)]
struct BusyPoll {
    max: Duration,
    window: Duration,
}

impl BusyPoll {
    /// Shorter looks than this find nothing.
    const LEAST: Duration = Duration::from_micros(10);

    fn new(max: Duration) -> Self {
        Self { max, window: Duration::ZERO }
    }

    /// Waits for a notice.
    async fn notified(&mut self, notify: &Notify) {
        let started = Instant::now();
        let mut notified = pin!(notify.notified());
        while started.elapsed() < self.window {
            if poll!(notified.as_mut()).is_ready() {
                return;
            }
            // The others of this thread come first, and the runtime looks at its sockets without waiting for them.
            tokio::task::yield_now().await;
        }
        notified.await;
        self.slept(started.elapsed());
    }

    /// The look was in vain, and work came after so long.
    fn slept(&mut self, waited: Duration) {
        self.window = if waited < self.max { self.max } else { self.window / 2 };
        if self.window < Self::LEAST {
            self.window = Duration::ZERO;
        }
    }
}

/// Makes the current thread's runtime a hot one, which looks for more work for at most `busy_poll` before it sleeps. Call
/// once inside a current-thread runtime; the task ends with it.
pub fn install(metrics: Arc<Metrics>, busy_poll: Duration) {
    let home = Arc::new(Home::default());
    let tick = Tick { home: Arc::clone(&home), marked: Vec::new(), metrics };
    TICK.with(|slot| *slot.borrow_mut() = Some(tick));
    let task = async move {
        let mut busy_poll = BusyPoll::new(busy_poll);
        loop {
            // Cancel safe: what is marked stays marked.
            busy_poll.notified(home.notify()).await;
            home.wake_called();
            let marked = TICK.with(|tick| tick.borrow_mut().as_mut().map(|t| std::mem::take(&mut t.marked)));
            let started = Instant::now();
            for partition in marked.unwrap_or_default() {
                partition.unmark();
                partition.combine();
            }
            note_poll(started.elapsed());
        }
    };
    // The one task that a hot runtime owns itself: it lives exactly as long as the runtime.
    #[expect(clippy::disallowed_methods, reason = "belongs to the runtime, not to a tracker")]
    tokio::spawn(task);
}

/// Notes how long a poll on this hot thread took; nothing on other threads.
pub fn note_poll(took: Duration) {
    TICK.with(|tick| {
        if let Some(tick) = &*tick.borrow() {
            tick.metrics.poll(took);
        }
    });
}

/// Marks a partition for the end of this round; `false` when this thread is no hot one.
pub(super) fn mark(partition: &Arc<Partition>) -> bool {
    TICK.with(|tick| match tick.borrow_mut().as_mut() {
        Some(t) => {
            if partition.mark() {
                t.marked.push(Arc::clone(partition));
                t.home.notify().notify_one();
            }
            true
        }
        None => false,
    })
}

/// The present thread's home, where it is a hot one.
pub(super) fn home() -> Option<Arc<Home>> {
    TICK.with(|tick| tick.borrow().as_ref().map(|t| Arc::clone(&t.home)))
}

/// Wakes streams of this thread and of others.
pub(super) fn wake(sleepers: Sleepers) {
    if !sleepers.is_empty() {
        sleepers.wake_from(home().as_deref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_micros(200);

    #[test]
    fn a_thread_looks_for_work_only_where_it_came_soon_and_gives_up_by_halves() {
        let mut poll = BusyPoll::new(MAX);
        poll.slept(Duration::from_secs(1));
        assert_eq!(poll.window, Duration::ZERO, "nothing came soon so far");
        poll.slept(Duration::from_micros(199));
        assert_eq!(poll.window, MAX);
        let mut looked = Duration::ZERO;
        while !poll.window.is_zero() {
            looked += poll.window;
            poll.slept(MAX);
        }
        assert!(looked < 2 * MAX, "{looked:?} for nothing");
        poll.slept(Duration::from_micros(1));
        assert_eq!(poll.window, MAX, "and looks again");
    }

    #[test]
    fn a_thread_that_is_not_to_look_never_does() {
        let mut poll = BusyPoll::new(Duration::ZERO);
        poll.slept(Duration::ZERO);
        assert_eq!(poll.window, Duration::ZERO);
    }

    #[tokio::test]
    async fn work_that_comes_while_it_is_looked_for_is_found_and_the_others_of_the_thread_go_on() {
        let notify = Arc::new(Notify::new());
        // So long that the test's own slowness does not matter: the notice ends it.
        let mut poll = BusyPoll { max: Duration::from_mins(1), window: Duration::from_mins(1) };
        let other = Arc::clone(&notify);
        #[expect(clippy::disallowed_methods, reason = "ends with the test")]
        tokio::spawn(async move {
            tokio::task::yield_now().await;
            other.notify_one();
        });
        poll.notified(&notify).await;
        assert_eq!(poll.window, poll.max, "found without sleeping");
    }
}
