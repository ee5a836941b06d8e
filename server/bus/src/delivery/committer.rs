//! The threads that flush logs.
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
};

use parking_lot::{Condvar, Mutex};

use super::partition::Partition;

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

    /// Forgets who waits for it. For after its end.
    pub(super) fn forget(&self) {
        self.ready.lock().clear();
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
        // Under the lock: a thread that has just looked and is about to wait would miss the call otherwise.
        let ready = self.ready.lock();
        self.stopping.store(true, Ordering::Release);
        drop(ready);
        self.more.notify_all();
        for handle in std::mem::take(&mut *self.threads.lock()) {
            if handle.join().is_err() {
                tracing::error!("a committer thread panicked");
            }
        }
    }
}
