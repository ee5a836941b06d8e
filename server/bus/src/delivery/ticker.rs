//! The thread that beats time: engines' timers, the flush of what is only written, retention.
//!
//! It looks only at partitions that have something for it, and sleeps until the first of them is due: a server at rest
//! costs nothing, however many tenants it has.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use acb_ports::Clock;
use acb_types::limits;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::partition::Partition;

/// Passes are at least this far apart: timers that are due one after the other are run together.
const BEAT_MIN: Duration = Duration::from_millis(2);

/// What is only written is flushed after at most this long: half the promise of 20 ms, as the flush itself takes time.
const FLUSH_AFTER: Duration = Duration::from_millis(limits::WRITTEN_FLUSH.as_millis() as u64 / 2);

/// No timer is set.
pub(super) const NO_TIMER: u64 = u64::MAX;

/// All open partitions.
pub(super) type Partitions = RwLock<Vec<Arc<Partition>>>;

/// How partitions reach the thread.
#[derive(Debug)]
pub(super) struct Ticker {
    news: Notify,
    /// Partitions that have something for the ticker since it looked last.
    awake: Mutex<Vec<Arc<Partition>>>,
    /// Until when it sleeps, on the monotonic clock; [`NO_TIMER`] also while it is looking.
    sleeps_until: AtomicU64,
    stopping: AtomicBool,
}

impl Default for Ticker {
    fn default() -> Self {
        Self {
            news: Notify::new(),
            awake: Mutex::default(),
            sleeps_until: AtomicU64::new(NO_TIMER),
            stopping: AtomicBool::new(false),
        }
    }
}

impl Ticker {
    /// A partition that was left alone has a timer or something to flush now.
    pub(super) fn attend(&self, partition: Arc<Partition>) {
        self.awake.lock().push(partition);
        self.news.notify_one();
    }

    /// A partition that is attended to has become dirty.
    pub(super) fn dirty(&self) {
        self.news.notify_one();
    }

    /// A partition that is attended to has set its timer.
    pub(super) fn timer(&self, due: u64) {
        if due < self.sleeps_until.load(Ordering::Acquire) {
            self.news.notify_one();
        }
    }

    /// Ends the thread after its present pass.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.news.notify_one();
    }

    /// Forgets who wants something of it. For after its end.
    pub(super) fn forget(&self) {
        self.awake.lock().clear();
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(
        self: &Arc<Self>,
        partitions: Arc<Partitions>,
        clock: Arc<dyn Clock>,
        retain_every: Duration,
    ) -> std::io::Result<JoinHandle<()>> {
        let me = Arc::clone(self);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        std::thread::Builder::new()
            .name("ticker".into())
            .spawn(move || runtime.block_on(me.run(&partitions, &*clock, retain_every)))
    }

    async fn run(&self, partitions: &Partitions, clock: &dyn Clock, retain_every: Duration) {
        let mut attended: Vec<Arc<Partition>> = Vec::new();
        let mut flush_at: Option<Instant> = None;
        let mut retain_at = Instant::now() + retain_every;
        while !self.stopping.load(Ordering::Acquire) {
            // Whatever is set from here on wakes the sleep below.
            self.sleeps_until.store(NO_TIMER, Ordering::Release);
            attended.append(&mut self.awake.lock());
            let began = Instant::now();
            let flush = flush_at.take_if(|at| *at <= began).is_some();
            let now = clock.now();
            let mut due = NO_TIMER;
            let mut dirty = false;
            attended.retain(|partition| {
                partition.beat(now, flush);
                let Some(wants) = partition.wants() else { return false };
                due = due.min(wants.due);
                dirty |= wants.flush;
                true
            });
            if retain_at <= began {
                retain(partitions);
                retain_at = Instant::now() + retain_every;
            }
            if dirty && flush_at.is_none() {
                flush_at = Some(began + FLUSH_AFTER);
            }
            self.sleeps_until.store(due, Ordering::Release);
            let until = flush_at.map_or(retain_at, |at| at.min(retain_at));
            // Cancel safe: a permit that is not taken stays, the clocks only tell the time.
            tokio::select! {
                () = self.news.notified() => {}
                () = clock.sleep_until(due), if due != NO_TIMER => {}
                () = tokio::time::sleep_until(until.into()) => {}
            }
            tokio::time::sleep_until((began + BEAT_MIN).into()).await;
        }
    }
}

fn retain(partitions: &Partitions) {
    let open: Vec<Arc<Partition>> = partitions.read().clone();
    for partition in open {
        if let Err(error) = partition.retain() {
            tracing::warn!(partition = %partition.id(), "retention: {error}");
        }
    }
}
