//! Measures a stretch of time: clock, CPU of both processes, use of the machine, latencies.

use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;

use crate::proc::{MachineCpu, ProcessCpu};

/// A running measurement.
#[derive(Debug)]
pub(crate) struct Meter {
    server_pid: u32,
    client_pid: Option<u32>,
    machine: MachineCpu,
    server: ProcessCpu,
    client: ProcessCpu,
    started: Instant,
}

/// A finished one.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Measured {
    /// Wall time.
    pub(crate) elapsed: Duration,
    /// CPU of the server process.
    pub(crate) server_cpu: Duration,
    /// CPU of the client's process.
    pub(crate) client_cpu: Duration,
    /// Cores used by processes that are neither.
    pub(crate) foreign_cores: f64,
    /// Cores used by kernel threads.
    pub(crate) kernel_cores: f64,
    /// Cores the hypervisor gave to others.
    pub(crate) steal_cores: f64,
}

impl Meter {
    /// Starts measuring. The clock is read last, and first in [`Meter::stop`]: reading `/proc` takes
    /// milliseconds that belong to neither side.
    pub(crate) fn start(server_pid: u32) -> Result<Self> {
        Self::start_for(server_pid, None)
    }

    /// The same with another process as the client; `None` is this one.
    pub(crate) fn start_for(server_pid: u32, client_pid: Option<u32>) -> Result<Self> {
        let machine = MachineCpu::read()?;
        let server = ProcessCpu::read(Some(server_pid))?;
        let client = ProcessCpu::read(client_pid)?;
        Ok(Self { server_pid, client_pid, machine, server, client, started: Instant::now() })
    }

    /// When it started.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Ends the measurement.
    pub(crate) fn stop(self) -> Result<Measured> {
        let elapsed = self.started.elapsed();
        let client_cpu = ProcessCpu::read(self.client_pid)?.since(self.client);
        let server_cpu = ProcessCpu::read(Some(self.server_pid))?.since(self.server);
        let machine_elapsed = self.started.elapsed();
        let used = MachineCpu::read()?.since(self.machine, machine_elapsed);
        let seconds = machine_elapsed.as_secs_f64();
        let others =
            used.busy.saturating_sub(client_cpu).saturating_sub(server_cpu).saturating_sub(used.kernel_threads);
        Ok(Measured {
            elapsed,
            server_cpu,
            client_cpu,
            foreign_cores: others.as_secs_f64() / seconds,
            kernel_cores: used.kernel_threads.as_secs_f64() / seconds,
            steal_cores: used.steal.as_secs_f64() / seconds,
        })
    }
}

/// One in so many pipelined messages has its latency taken: reading the clock for each would cost a tenth of
/// what is measured.
pub(crate) const SAMPLE_EVERY: u64 = 64;

/// A histogram of latencies in nanoseconds, three significant digits, up to two minutes.
#[derive(Debug)]
pub(crate) struct Latencies(Option<Histogram<u64>>);

impl Latencies {
    const HIGHEST_NS: u64 = 120_000_000_000;

    /// An empty one.
    pub(crate) fn new() -> Self {
        // The bounds are constants the histogram accepts; without it percentiles are absent, nothing else.
        Self(Histogram::new_with_bounds(1, Self::HIGHEST_NS, 3).ok())
    }

    /// Counts one.
    pub(crate) fn record(&mut self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        if let Some(histogram) = &mut self.0 {
            histogram.saturating_record(nanoseconds.max(1));
        }
    }

    /// Takes in all of another.
    pub(crate) fn merge(&mut self, other: &Self) {
        if let (Some(histogram), Some(other)) = (&mut self.0, &other.0) {
            // Both have the same bounds, so nothing can be out of range.
            let _ = histogram.add(other);
        }
    }

    /// A percentile in µs; `None` when nothing was counted.
    pub(crate) fn percentile_us(&self, percentile: f64) -> Option<f64> {
        let histogram = self.0.as_ref().filter(|histogram| !histogram.is_empty())?;
        Some(histogram.value_at_percentile(percentile) as f64 / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_come_from_all_merged_parts() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.percentile_us(50.0), None);
        let mut other = Latencies::new();
        for microseconds in 1..=50 {
            latencies.record(Duration::from_micros(microseconds));
            other.record(Duration::from_micros(microseconds + 50));
        }
        latencies.merge(&other);
        let median = latencies.percentile_us(50.0).unwrap();
        let high = latencies.percentile_us(99.0).unwrap();
        assert!((median - 50.0).abs() < 0.5, "{median}");
        assert!((high - 99.0).abs() < 0.5, "{high}");
    }

    #[test]
    fn a_stretch_of_work_shows_up_as_client_cpu() {
        let meter = Meter::start(std::process::id()).unwrap();
        let started = meter.started();
        while started.elapsed() < Duration::from_millis(60) {
            std::hint::spin_loop();
        }
        let measured = meter.stop().unwrap();
        assert!(measured.elapsed >= Duration::from_millis(60));
        assert!(measured.client_cpu > Duration::from_millis(1), "{measured:?}");
    }
}
