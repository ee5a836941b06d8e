//! Completions on their way to the guest: many threads push, one guest drains, and it is woken once a batch.
//!
//! The wake is an edge. It is given when something is pushed and the guest was not told since it last found the queue
//! empty; a guest that is busy draining is not told again. So the number of wakes follows how often the guest runs dry,
//! not how much there is to do.
//!
//! The queue needs no bound of its own: what is pushed are completions of tokens, and their number is bounded where they
//! are given out ([`Port`](crate::Port)).

use std::{collections::VecDeque, fmt};

use super::sync::Lock;

/// Tells a guest that there is something to drain.
///
/// Called from any thread, with the queue's lock held: it must be short, must not block, and must not call back into the
/// queue. Writing to a descriptor, filling a channel of one slot, or scheduling a callback are what it is for.
pub trait Wake: Send + Sync {
    /// Tells it.
    fn wake(&self);
}

struct State<T> {
    items: VecDeque<T>,
    /// The guest was told, and has not found the queue empty since.
    told: bool,
    closed: bool,
    wakes: u64,
    pushed: u64,
    deepest: usize,
}

/// A queue with an edge-triggered wake.
pub struct Queue<T> {
    state: Lock<State<T>>,
    wake: Box<dyn Wake>,
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Queue")
            .field("waiting", &state.items.len())
            .field("told", &state.told)
            .field("closed", &state.closed)
            .finish_non_exhaustive()
    }
}

impl<T> Queue<T> {
    /// An empty queue.
    pub fn new(wake: impl Wake + 'static) -> Self {
        let state = State { items: VecDeque::new(), told: false, closed: false, wakes: 0, pushed: 0, deepest: 0 };
        Self { state: Lock::new(state), wake: Box::new(wake) }
    }

    /// Adds an item, and tells the guest when it has not been told yet. After [`Self::close`] the item is dropped.
    pub fn push(&self, item: T) {
        let mut state = self.state.lock();
        if state.closed {
            drop(state);
            // Whatever the item's end does, it does without the lock.
            drop(item);
            return;
        }
        state.items.push_back(item);
        state.pushed += 1;
        state.deepest = state.deepest.max(state.items.len());
        if !state.told {
            state.told = true;
            state.wakes += 1;
            // Under the lock, so that no wake comes after `close` has returned.
            self.wake.wake();
        }
    }

    /// Takes up to `max` items, the oldest first. Says whether some are left; until this has said `false` there is no
    /// further wake.
    pub fn drain(&self, out: &mut Vec<T>, max: usize) -> bool {
        let mut state = self.state.lock();
        let count = max.min(state.items.len());
        out.extend(state.items.drain(..count));
        let more = !state.items.is_empty();
        state.told = more;
        more
    }

    /// Takes nothing more and wakes nobody any more, from the moment that this returns. Gives what was not drained.
    pub fn close(&self) -> Vec<T> {
        let mut state = self.state.lock();
        state.closed = true;
        state.items.drain(..).collect()
    }

    /// Items that wait.
    pub fn len(&self) -> usize {
        self.state.lock().items.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Wakes given, items pushed, and the most that ever waited.
    pub fn counts(&self) -> (u64, u64, usize) {
        let state = self.state.lock();
        (state.wakes, state.pushed, state.deepest)
    }
}
