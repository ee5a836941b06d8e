//! How calm the machine is when nothing of ours or the peers' runs on it.
//!
//! A virtual machine loses its cores to its neighbours now and then, and memory that it gave back to its host costs many
//! times as much at its first touch. No program that runs here does better than that, so it stands beside the figures.

use std::{
    env,
    hint::black_box,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::stats::median;

/// How long the clock is read.
const WATCHED: Duration = Duration::from_secs(1);
/// Two readings of the clock that lie further apart have something in between.
const GAP: Duration = Duration::from_micros(200);
const GIB: usize = 1 << 30;
const PAGE: usize = 4096;

/// One look at the machine.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Calm {
    /// Share of their time that programs lost which only read the clock, one a core, in percent.
    pub(crate) lost_percent: f64,
    /// The longest time at which one of them stood still, in milliseconds.
    pub(crate) longest_ms: f64,
    /// Seconds to touch each page of a new GiB of memory.
    pub(crate) first_touch_s: f64,
}

/// Time that one program lost.
#[derive(Debug, Clone, Copy, Default)]
struct Lost {
    sum: Duration,
    longest: Duration,
}

impl Lost {
    fn note(&mut self, between: Duration) {
        if between > GAP {
            self.sum += between;
            self.longest = self.longest.max(between);
        }
    }
}

/// Prints what this process sees as one JSON line.
pub(crate) fn main() -> Result<()> {
    println!("{}", serde_json::to_string(&Calm::seen())?);
    Ok(())
}

impl Calm {
    /// Looks, for some seconds, in a process of its own: an allocator that was used before would give memory that was
    /// touched before. Nothing else of ours may run meanwhile.
    pub(crate) fn look() -> Result<Self> {
        let output = Command::new(env::current_exe()?).arg("calm").output().context("cannot look at the machine")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        serde_json::from_slice(&output.stdout).context("looking at the machine printed no JSON")
    }

    fn seen() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let lost: Vec<Lost> = thread::scope(|scope| {
            let readers: Vec<_> = (0..cores).map(|_| scope.spawn(read_clock)).collect();
            readers.into_iter().map(|reader| reader.join().unwrap_or_default()).collect()
        });
        let sum: Duration = lost.iter().map(|l| l.sum).sum();
        let longest = lost.iter().map(|l| l.longest).max().unwrap_or_default();
        Self {
            lost_percent: 100.0 * sum.as_secs_f64() / (WATCHED.as_secs_f64() * cores as f64),
            longest_ms: longest.as_secs_f64() * 1e3,
            first_touch_s: touch().as_secs_f64(),
        }
    }

    /// All looks of a run as a sentence; nothing where nobody looked.
    pub(crate) fn sentence(looks: &[Self]) -> Option<String> {
        let of = |value: fn(&Self) -> f64| {
            let values: Vec<f64> = looks.iter().map(value).collect();
            let (least, most) = values.iter().fold((f64::MAX, 0.0_f64), |(l, m), v| (l.min(*v), m.max(*v)));
            Some((median(&values)?, least, most))
        };
        let (lost, lost_least, lost_most) = of(|look| look.lost_percent)?;
        let (longest, _, longest_most) = of(|look| look.longest_ms)?;
        let (touch, touch_least, touch_most) = of(|look| look.first_touch_s)?;
        Some(format!(
            "The machine by itself, before each pair: programs that do nothing but read the clock, one a core, stood still \
             for {lost:.1} % of their time [{lost_least:.1}–{lost_most:.1}], for {longest:.1} ms at the longest (median; \
             {longest_most:.1} ms once); the first touch of a GiB of memory took {touch:.2} s \
             [{touch_least:.2}–{touch_most:.2}]."
        ))
    }
}

fn read_clock() -> Lost {
    let started = Instant::now();
    let (mut last, mut lost) = (started, Lost::default());
    while last - started < WATCHED {
        let now = Instant::now();
        lost.note(now - last);
        last = now;
    }
    lost
}

fn touch() -> Duration {
    let started = Instant::now();
    let mut memory = vec![0_u8; GIB];
    memory.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
    black_box(&memory);
    started.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_lost_where_two_readings_lie_further_apart_than_a_reading_takes() {
        let mut lost = Lost::default();
        for between in [1, 200, 3000, 201] {
            lost.note(Duration::from_micros(between));
        }
        assert_eq!((lost.sum, lost.longest), (Duration::from_micros(3_201), Duration::from_millis(3)));
    }

    #[test]
    fn looks_are_told_with_their_median_and_range() {
        let look = |lost_percent, longest_ms, first_touch_s| Calm { lost_percent, longest_ms, first_touch_s };
        let told = Calm::sentence(&[look(0.5, 2.0, 0.4), look(2.5, 9.3, 2.0), look(1.0, 4.0, 0.5)]).unwrap();
        assert!(told.contains("for 1.0 % of their time [0.5–2.5], for 4.0 ms at the longest (median; 9.3 ms once)"));
        assert!(told.contains("took 0.50 s [0.40–2.00]"));
        assert_eq!(Calm::sentence(&[]), None);
    }
}
