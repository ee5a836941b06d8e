//! Tells the story: one line after another, with the time and who it is about.

use tokio::time::Instant;

/// Tells lines, and knows when it began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Teller {
    start: Instant,
}

impl Teller {
    /// Begins now.
    pub(crate) fn begin() -> Self {
        Self { start: Instant::now() }
    }

    /// Tells a line.
    pub(crate) fn say(&self, who: &str, what: impl AsRef<str>) {
        println!("{:7.2}s  {who:<9} {}", self.seconds(), what.as_ref());
    }

    /// Seconds since it began.
    pub(crate) fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }
}
