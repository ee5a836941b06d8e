//! Rounds of [`acb_engine::Engine::survey`]: once after the start, then every so often.
//!
//! A consumer that stays away reads nothing, so its floor stands where it was journaled last, and the lowest floor is
//! what retention by delivery may drop up to. The survey reads for it, one small read at a time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{partition::Partition, ticker::Partitions};

/// Starts the thread. Unpark it after setting `stop`.
///
/// # Errors
/// When the system gives no thread.
pub(super) fn start(
    partitions: Arc<Partitions>,
    stop: Arc<AtomicBool>,
    every: Duration,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("surveyor".into()).spawn(move || {
        while !stop.load(Ordering::Acquire) {
            let began = Instant::now();
            let open: Vec<Arc<Partition>> = partitions.read().clone();
            for partition in open {
                round(&partition, &stop);
            }
            while began.elapsed() < every && !stop.load(Ordering::Acquire) {
                std::thread::park_timeout(every.saturating_sub(began.elapsed()));
            }
        }
    })
}

fn round(partition: &Arc<Partition>, stop: &AtomicBool) {
    while !stop.load(Ordering::Acquire) {
        let Some(survey) = partition.with(|core, _, _| core.engine().survey()) else { return };
        let began = Instant::now();
        match partition.reader().read(&survey.request) {
            Ok(block) => partition.with(|core, now, _| core.engine().surveyed(&survey, &block, now)),
            // What cannot be read now holds the log until the next round.
            Err(error) => tracing::debug!(partition = %partition.id(), "survey: {error}"),
        }
        // Half of the time at most: those who are here come first.
        std::thread::park_timeout(began.elapsed());
    }
}
