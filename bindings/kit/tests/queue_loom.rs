//! The queue under loom: every way in which two pushing threads and a draining guest can interleave. The queue's own file
//! is compiled here with loom's lock in place of its own.

#![allow(dead_code, reason = "the queue's whole file is compiled, and only part of it is asked for")]
#![allow(missing_docs, unreachable_pub, reason = "a test")]

#[path = "../src/queue.rs"]
mod queue;

mod sync {
    /// The lock of the queue, made of loom's.
    pub(crate) struct Lock<T>(loom::sync::Mutex<T>);

    impl<T> Lock<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }
    }
}

use loom::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};
use queue::{Queue, Wake};

/// What a descriptor is to a guest: readable from a wake until it is cleared. The kernel orders writes and reads of one, so
/// a lock stands for it here (loom lets a swap read what is older than the newest store, which no descriptor does).
#[derive(Clone)]
struct Edge {
    readable: Arc<Mutex<bool>>,
    wakes: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
}

impl Edge {
    fn new() -> Self {
        let zero = || Arc::new(AtomicUsize::new(0));
        Self { readable: Arc::new(Mutex::new(false)), wakes: zero(), closed: zero() }
    }
}

impl Wake for Edge {
    fn wake(&self) {
        assert_eq!(self.closed.load(Ordering::SeqCst), 0, "a wake after close had returned");
        self.wakes.fetch_add(1, Ordering::SeqCst);
        *self.readable.lock().unwrap() = true;
    }
}

/// One turn of the guest's loop: when it is readable, clear it and drain one batch; back at once when some are left.
fn turn(queue: &Queue<u32>, edge: &Edge, got: &mut Vec<u32>, batch: usize) {
    if !std::mem::take(&mut *edge.readable.lock().unwrap()) {
        return;
    }
    while queue.drain(got, batch) {}
}

#[test]
fn no_wake_is_lost_and_none_is_given_while_the_guest_was_told() {
    loom::model(|| {
        let edge = Edge::new();
        let queue = Arc::new(Queue::new(edge.clone()));
        let pushers: Vec<_> = [[1, 2], [3, 4]]
            .into_iter()
            .map(|items| {
                let queue = Arc::clone(&queue);
                thread::spawn(move || items.into_iter().for_each(|item| queue.push(item)))
            })
            .collect();
        let mut got = Vec::new();
        turn(&queue, &edge, &mut got, 1);
        for pusher in pushers {
            pusher.join().unwrap();
        }
        // Whatever came after that turn has left the descriptor readable: one more turn gets all of it.
        turn(&queue, &edge, &mut got, 1);
        assert!(queue.is_empty(), "items wait and nobody is told: {got:?}, {queue:?}");
        let place = |item| got.iter().position(|g| *g == item);
        assert!(place(1) < place(2) && place(3) < place(4), "out of order: {got:?}");
        got.sort_unstable();
        assert_eq!(got, [1, 2, 3, 4]);
        // One for each time that the guest had found it empty, at most.
        let wakes = edge.wakes.load(Ordering::SeqCst);
        assert!((1..=4).contains(&wakes), "{wakes} wakes");
        assert_eq!(queue.counts().0, wakes as u64);
    });
}

#[test]
fn what_is_pushed_while_it_closes_is_given_back_or_dropped_and_wakes_nobody_afterwards() {
    loom::model(|| {
        let edge = Edge::new();
        let queue = Arc::new(Queue::new(edge.clone()));
        let pusher = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                queue.push(1);
                queue.push(2);
            })
        };
        let left = queue.close();
        edge.closed.store(1, Ordering::SeqCst);
        pusher.join().unwrap();
        assert!(left.len() <= 2 && queue.is_empty(), "{left:?}");
    });
}
