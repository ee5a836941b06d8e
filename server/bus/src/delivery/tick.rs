//! Draining at the end of a hot runtime's round.
//!
//! A stream that submits an operation marks its partition and wakes one task of its runtime. That task runs after all
//! connections that are ready in this round, so one write and one lock serve all of them (measured against draining
//! inside each submit and against a thread of its own: ADR 0006). No timer and no lingering: an idle server drains at
//! once.

use std::{
    cell::RefCell,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::partition::Partition;
use crate::telemetry::Metrics;

struct Tick {
    notify: Arc<Notify>,
    marked: Vec<Arc<Partition>>,
    metrics: Arc<Metrics>,
}

thread_local! {
    static TICK: RefCell<Option<Tick>> = const { RefCell::new(None) };
}

/// Makes the current thread's runtime a hot one. Call once inside a current-thread runtime; the task ends with it.
pub fn install(metrics: Arc<Metrics>) {
    let notify = Arc::new(Notify::new());
    let tick = Tick { notify: Arc::clone(&notify), marked: Vec::new(), metrics };
    TICK.with(|slot| *slot.borrow_mut() = Some(tick));
    let task = async move {
        loop {
            // Cancel safe: what is marked stays marked.
            notify.notified().await;
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
                t.notify.notify_one();
            }
            true
        }
        None => false,
    })
}
