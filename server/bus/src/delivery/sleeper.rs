//! Streams that wait for news, and how they are woken from other threads.
//!
//! A runtime is called from another thread by a system call, one for each task. A flush has news for as many streams as it
//! had publishers, so a committer hands all of them over at once, and the hot thread's own task wakes them there.

use std::{
    sync::Arc,
    task::{Context, Waker},
};

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::Notify;

use super::tick;

/// A hot thread as others see it.
#[derive(Debug, Default)]
pub(super) struct Home {
    /// There is something to do.
    notify: Notify,
    /// Streams of this thread that others have news for. At most as many as the thread has streams: a stream leaves its
    /// waker only when it has read the last news.
    called: Mutex<Vec<Waker>>,
}

impl Home {
    pub(super) fn notify(&self) -> &Notify {
        &self.notify
    }

    /// Wakes those who were called. By the thread itself.
    pub(super) fn wake_called(&self) {
        let called = std::mem::take(&mut *self.called.lock());
        called.into_iter().for_each(Waker::wake);
    }
}

/// A stream that waits, and the hot thread it lives on, if it does.
#[derive(Debug)]
pub struct Sleeper {
    waker: Waker,
    home: Option<Arc<Home>>,
}

impl Sleeper {
    /// Leaves the waker of the stream that is polled, in its place.
    pub(super) fn keep(slot: &mut Option<Self>, cx: &Context<'_>) {
        match slot {
            // A task stays on its thread.
            Some(sleeper) if sleeper.waker.will_wake(cx.waker()) => {}
            _ => *slot = Some(Self { waker: cx.waker().clone(), home: tick::home() }),
        }
    }

    fn lives_at(&self, home: &Home) -> bool {
        self.home.as_ref().is_some_and(|own| std::ptr::eq(Arc::as_ptr(own), home))
    }
}

/// Streams collected under a lock and woken after it.
#[derive(Debug, Default)]
pub struct Sleepers(SmallVec<[Sleeper; 4]>);

impl Sleepers {
    pub(super) fn extend(&mut self, sleeper: Option<Sleeper>) {
        self.0.extend(sleeper);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Wakes all of them. `here` is the home of the present thread.
    pub(super) fn wake_from(self, here: Option<&Home>) {
        let mut rest = self.0.into_iter().peekable();
        while let Some(first) = rest.next() {
            let is_here = here.is_some_and(|here| first.lives_at(here));
            let Some(home) = first.home.filter(|_| !is_here) else {
                first.waker.wake();
                continue;
            };
            let mut called = home.called.lock();
            let is_first = called.is_empty();
            called.push(first.waker);
            while let Some(next) = rest.next_if(|next| next.lives_at(&home)) {
                called.push(next.waker);
            }
            drop(called);
            // Whoever called before has told it, and it has not looked yet.
            if is_first {
                home.notify.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        task::Wake,
    };

    use futures_util::FutureExt as _;

    use super::*;

    #[derive(Debug, Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Woken {
        fn times(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }
    }

    /// Streams that live at the homes, in this order, and how often they were woken.
    fn streams(homes: &[Option<&Arc<Home>>]) -> (Sleepers, Vec<Arc<Woken>>) {
        let (mut sleepers, mut woken) = (Sleepers::default(), Vec::new());
        for home in homes {
            let stream = Arc::<Woken>::default();
            woken.push(Arc::clone(&stream));
            sleepers.extend(Some(Sleeper { waker: stream.into(), home: home.map(Arc::clone) }));
        }
        (sleepers, woken)
    }

    fn times(woken: &[Arc<Woken>]) -> Vec<usize> {
        woken.iter().map(|stream| stream.times()).collect()
    }

    fn is_told(home: &Home) -> bool {
        home.notify().notified().now_or_never().is_some()
    }

    #[test]
    fn streams_of_another_thread_are_handed_to_it_with_one_call_and_woken_there() {
        let home = Arc::default();
        let (sleepers, woken) = streams(&[Some(&home), Some(&home), Some(&home)]);
        sleepers.wake_from(None);
        assert_eq!(times(&woken), [0, 0, 0], "that is up to their own thread");
        assert!(is_told(&home));
        home.wake_called();
        assert_eq!(times(&woken), [1, 1, 1]);
        home.wake_called();
        assert_eq!(times(&woken), [1, 1, 1]);
    }

    #[test]
    fn a_thread_that_was_told_and_has_not_looked_yet_is_not_told_again_and_then_is() {
        let home = Arc::default();
        let one = || streams(&[Some(&home)]);
        let (first, woken) = one();
        first.wake_from(None);
        assert!(is_told(&home));
        let (second, _) = one();
        second.wake_from(None);
        assert!(!is_told(&home), "it will find both");
        home.wake_called();
        assert_eq!(times(&woken), [1]);
        let (third, _) = one();
        third.wake_from(None);
        assert!(is_told(&home));
    }

    #[test]
    fn streams_of_the_same_thread_and_of_none_are_woken_at_once() {
        let (here, there) = (Arc::default(), Arc::default());
        let (sleepers, woken) = streams(&[Some(&here), Some(&there), None, Some(&there), Some(&here)]);
        sleepers.wake_from(Some(&here));
        assert_eq!(times(&woken), [1, 0, 1, 0, 1]);
        assert!(!is_told(&here));
        there.wake_called();
        assert_eq!(times(&woken), [1, 1, 1, 1, 1]);
    }
}
