//! The threads that flush logs, and the one that beats time.
//!
//! Partitions wait in one queue and are served in turn, each by one thread at a time, so one busy tenant gets one turn
//! per round like everybody else, and logs are flushed side by side.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use acb_ports::Clock;
use acb_types::limits;
use parking_lot::{Condvar, Mutex, RwLock};

use super::partition::Partition;

/// How often timers are looked at.
const BEAT: Duration = Duration::from_millis(5);

/// What is only written is flushed after at most this long: half the promise of 20 ms, as the flush itself takes time.
const FLUSH_EVERY: Duration = Duration::from_millis(limits::WRITTEN_FLUSH.as_millis() as u64 / 2);

/// The queue in front of the committer threads.
#[derive(Debug, Default)]
pub(crate) struct Committer {
    ready: Mutex<VecDeque<Arc<Partition>>>,
    more: Condvar,
    stopping: AtomicBool,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Committer {
    /// Starts `threads` committer threads.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(threads: usize) -> std::io::Result<Arc<Self>> {
        let committer = Arc::new(Self::default());
        for i in 0..threads.max(1) {
            let me = Arc::clone(&committer);
            let handle = std::thread::Builder::new().name(format!("commit-{i}")).spawn(move || me.run())?;
            committer.threads.lock().push(handle);
        }
        Ok(committer)
    }

    pub(super) fn push(&self, partition: Arc<Partition>) {
        self.ready.lock().push_back(partition);
        self.more.notify_one();
    }

    fn run(&self) {
        loop {
            let partition = {
                let mut ready = self.ready.lock();
                loop {
                    if let Some(partition) = ready.pop_front() {
                        break partition;
                    }
                    if self.stopping.load(Ordering::Acquire) {
                        return;
                    }
                    self.more.wait(&mut ready);
                }
            };
            partition.commit_all();
        }
    }

    /// Serves what is queued, then ends the threads. Called once all partitions are closed.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.more.notify_all();
        for handle in std::mem::take(&mut *self.threads.lock()) {
            if handle.join().is_err() {
                tracing::error!("a committer thread panicked");
            }
        }
    }
}

/// All open partitions, for the ticker and for metrics.
pub(super) type Partitions = RwLock<Vec<Arc<Partition>>>;

/// Beats for timers, the 20 ms flush and retention, until `stop` is set.
///
/// # Errors
/// When the system gives no thread.
pub(super) fn start_ticker(
    partitions: Arc<Partitions>,
    clock: Arc<dyn Clock>,
    stop: Arc<AtomicBool>,
    retain_every: Duration,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("ticker".into()).spawn(move || {
        let (mut flushed, mut retained) = (Instant::now(), Instant::now());
        while !stop.load(Ordering::Acquire) {
            std::thread::park_timeout(BEAT);
            let flush = flushed.elapsed() >= FLUSH_EVERY;
            if flush {
                flushed = Instant::now();
            }
            let retain = retained.elapsed() >= retain_every;
            if retain {
                retained = Instant::now();
            }
            let now = clock.now();
            let open: Vec<Arc<Partition>> = partitions.read().clone();
            for partition in open {
                partition.beat(now, flush);
                if retain && let Err(error) = partition.retain() {
                    tracing::warn!(partition = %partition.id(), "retention: {error}");
                }
            }
        }
    })
}
