//! What uploads and downloads share: how far they are, for people as a bar, for scripts as lines.

use std::{
    io::{self, IsTerminal as _, Write as _},
    sync::Arc,
    time::{Duration, Instant},
};

use acb_sdk::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde_json::json;

use crate::output::Output;

/// How often scripts are told.
const TOLD_EVERY: Duration = Duration::from_millis(100);

/// Tells of progress on standard error.
#[derive(Clone)]
pub(crate) struct Teller {
    bar: Option<ProgressBar>,
    json: bool,
    last: Arc<pace::Last>,
}

mod pace {
    use std::sync::atomic::{AtomicU64, Ordering};

    /// When something was last said, in milliseconds after a beginning; 0 is never.
    #[derive(Debug, Default)]
    pub(super) struct Last(AtomicU64);

    impl Last {
        /// Whether so long has passed that something may be said again, and notes that it is.
        pub(super) fn take(&self, now_ms: u64, every_ms: u64) -> bool {
            let last = self.0.load(Ordering::Relaxed);
            let due = last == 0 || now_ms >= last + every_ms;
            due && self.0.compare_exchange(last, now_ms.max(1), Ordering::Relaxed, Ordering::Relaxed).is_ok()
        }
    }
}

impl Teller {
    /// A bar on a terminal, lines of JSON with `--json`, nothing otherwise.
    pub(crate) fn new(out: Output) -> Self {
        let bar = (!out.is_json() && io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            bar.set_style(style());
            bar
        });
        Self { bar, json: out.is_json(), last: Arc::default() }
    }

    /// What is handed to the transfer.
    pub(crate) fn tell(&self) -> impl Fn(Progress) + Send + Sync + 'static {
        let me = self.clone();
        let begun = Instant::now();
        move |p| {
            if let Some(bar) = &me.bar {
                if let Some(total) = p.total_bytes {
                    bar.set_length(total);
                }
                bar.set_position(p.done_bytes);
                let left = p.time_left.map(|left| format!("{} left", humantime::format_duration(whole(left))));
                bar.set_message(format!("{}/s  {}", rate(p.bytes_per_second), left.unwrap_or_default()));
            } else if me.json {
                let is_last = p.total_bytes == Some(p.done_bytes);
                let now = begun.elapsed().as_millis() as u64;
                if me.last.take(now, TOLD_EVERY.as_millis() as u64) || is_last {
                    let line = json!({
                        "done_bytes": p.done_bytes,
                        "total_bytes": p.total_bytes,
                        "moved_bytes": p.moved_bytes,
                        "bytes_per_second": p.bytes_per_second as u64,
                        "seconds_left": p.time_left.map(|left| left.as_secs()),
                    });
                    // Who does not read it misses nothing else.
                    let _ = writeln!(io::stderr(), "{line}");
                }
            }
        }
    }

    /// Takes the bar away.
    pub(crate) fn done(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style() -> ProgressStyle {
    let template = "{percent:>3}% {bar:40} {done} of {total}  {msg}";
    let bytes = |n: u64| crate::output::bytes(n);
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("done", move |state: &ProgressState, w: &mut dyn std::fmt::Write| {
            let _ = write!(w, "{}", bytes(state.pos()));
        })
        .with_key("total", move |state: &ProgressState, w: &mut dyn std::fmt::Write| {
            let _ = write!(w, "{}", state.len().map_or_else(|| "?".to_owned(), bytes));
        })
}

fn rate(bytes_per_second: f64) -> String {
    crate::output::bytes(bytes_per_second as u64)
}

fn whole(span: Duration) -> Duration {
    Duration::from_secs(span.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_told_at_most_ten_times_a_second() {
        let last = pace::Last::default();
        let told: Vec<u64> = (1..1000).filter(|ms| last.take(*ms, 100)).collect();
        assert_eq!(told.len(), 10, "{told:?}");
    }
}
