//! What the core says of itself, kept for the guest's own logging: a ring that is drained in batches, never a callback a
//! line.

use std::{
    collections::VecDeque,
    fmt::{self, Write as _},
    sync::atomic::{AtomicU8, AtomicU64, Ordering},
};

use parking_lot::Mutex;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// Lines that wait for the guest; of more the oldest are dropped and counted.
const LINES_MAX: usize = 1024;
/// Longest text of a line, in bytes; the rest is cut.
const TEXT_MAX: usize = 4096;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// How grave: 1 error, 2 warning, 3 information, 4 debugging, 5 tracing.
    pub level: u8,
    /// Module that says it.
    pub target: &'static str,
    /// The sentence and its fields.
    pub text: String,
}

/// The lines of this process's clients. There is one; guests ask for it by [`Logs::get`].
#[derive(Debug)]
pub struct Logs {
    lines: Mutex<VecDeque<LogLine>>,
    dropped: AtomicU64,
    level: AtomicU8,
}

static LOGS: Logs = Logs { lines: Mutex::new(VecDeque::new()), dropped: AtomicU64::new(0), level: AtomicU8::new(2) };

struct Collect;

impl Logs {
    /// The lines. From the first call on what the core says is kept, warnings and worse to begin with.
    ///
    /// Where the guest's process has a subscriber of its own for `tracing`, that one keeps them and these stay empty.
    pub fn get() -> &'static Self {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            // Fails when there is a subscriber already: then it has the lines.
            let _ = tracing::subscriber::set_global_default(Collect);
        });
        &LOGS
    }

    /// Keeps lines up to this level: 0 none, 1 errors, 2 warnings, 3 information, 4 debugging, 5 tracing.
    pub fn set_level(&self, level: u8) {
        if self.level.swap(level.min(5), Ordering::AcqRel) != level.min(5) {
            tracing::callsite::rebuild_interest_cache();
        }
    }

    /// Takes all lines, and how many were dropped since the last time.
    pub fn drain(&self) -> (Vec<LogLine>, u64) {
        let lines = std::mem::take(&mut *self.lines.lock());
        (lines.into(), self.dropped.swap(0, Ordering::AcqRel))
    }

    /// Whether there is nothing to drain.
    pub fn is_empty(&self) -> bool {
        self.lines.lock().is_empty()
    }

    fn push(&self, line: LogLine) {
        let mut lines = self.lines.lock();
        if lines.len() == LINES_MAX {
            lines.pop_front();
            self.dropped.fetch_add(1, Ordering::AcqRel);
        }
        lines.push_back(line);
    }
}

fn number(level: Level) -> u8 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

impl Subscriber for Collect {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // What its libraries say (h2, rustls) is of no use to a guest.
        metadata.is_event()
            && metadata.target().starts_with("acb_")
            && number(*metadata.level()) <= LOGS.level.load(Ordering::Acquire)
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let mut said = text.message;
        said.push_str(&text.fields);
        if said.len() > TEXT_MAX {
            let mut at = TEXT_MAX;
            while !said.is_char_boundary(at) {
                at -= 1;
            }
            said.truncate(at);
        }
        let metadata = event.metadata();
        LOGS.push(LogLine { level: number(*metadata.level()), target: metadata.target(), text: said });
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a text cannot fail.
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_up_to_the_level_are_kept_with_their_fields_and_the_oldest_go() {
        let logs = Logs::get();
        tracing::info!(target: "acb_sdk::test", "not asked for");
        tracing::warn!(target: "acb_sdk::test", tries = 3, "connection lost");
        tracing::warn!(target: "h2", "not ours");
        let (lines, dropped) = logs.drain();
        assert_eq!(dropped, 0);
        let shown: Vec<(u8, &str)> = lines.iter().map(|l| (l.level, l.text.as_str())).collect();
        assert_eq!(shown, [(2, "connection lost tries=3")]);
        logs.set_level(4);
        for number in 0..LINES_MAX + 5 {
            tracing::debug!(target: "acb_sdk::test", number, "many");
        }
        logs.set_level(2);
        let (lines, dropped) = logs.drain();
        assert_eq!((lines.len(), dropped), (LINES_MAX, 5));
        assert_eq!(lines[0].text, "many number=5");
        assert!(logs.is_empty());
    }
}
