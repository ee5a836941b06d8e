//! What can be set of a log.

use std::time::Duration;

use acb_types::{ClassId, limits};

use crate::dedupe::KeyWindow;

/// What happens when a log reaches its most bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtCap {
    /// Its oldest segments go, whoever still wanted them.
    DropOldest,
    /// New messages are refused with `storage_full`; state records are still taken, so that acks can make room.
    Refuse,
}

/// How long and how much a log keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Messages older than this may go once they lie below the floor. `None` keeps them.
    pub age: Option<Duration>,
    /// Most bytes of all segments together.
    pub bytes: u64,
    /// What happens there.
    pub at_cap: AtCap,
    /// Whether whatever lies below the floor may go at once, as in an inbox, where everybody has had it.
    pub consumed_goes: bool,
}

impl Retention {
    /// Keeps everything.
    pub const KEEP: Self = Self { age: None, bytes: u64::MAX, at_cap: AtCap::Refuse, consumed_goes: false };
}

/// Who runs a log's chores: writing sidecars, making the next segment ahead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChoreRun {
    /// Each sync, on its own thread, after it has synced.
    #[default]
    WithSync,
    /// Somebody who holds [`crate::Chores`].
    Elsewhere,
}

/// Settings of one log.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// Size of the first segment, in bytes; each next one is twice as large.
    pub segment_bytes_min: u32,
    /// Size of the largest segments, in bytes. At least 4 KiB and large enough for one batch of the largest message.
    pub segment_bytes_max: u32,
    /// How long idempotency keys are remembered.
    pub key_window: KeyWindow,
    /// What is kept.
    pub retention: Retention,
    /// Ranges that are remembered of a producer session.
    pub producer_ranges: usize,
    /// How long a quiet producer session is remembered.
    pub producer_ttl: Duration,
    /// Seqs that may be given out beyond the synced end. After an unclean stop seqs go on that much further, so that
    /// none that anybody saw is given again.
    pub seq_reserve: u64,
    /// Who runs the chores.
    pub chores: ChoreRun,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes_min: 1 << 20,
            segment_bytes_max: 64 << 20,
            key_window: KeyWindow::default(),
            retention: Retention::KEEP,
            producer_ranges: limits::PRODUCER_RANGES_MAX,
            producer_ttl: limits::PRODUCER_TTL,
            seq_reserve: 1 << 20,
            chores: ChoreRun::default(),
        }
    }
}

impl LogOptions {
    /// The settings of a built-in class with no more than `bytes` on disk.
    pub fn of_class(class: ClassId, bytes: u64) -> Self {
        let retention = match class {
            ClassId::INBOX => {
                Retention { age: Some(limits::INBOX_TTL), bytes, at_cap: AtCap::Refuse, consumed_goes: true }
            }
            ClassId::DEAD_LETTERS => {
                Retention { age: Some(limits::DEAD_LETTER_TTL), bytes, at_cap: AtCap::DropOldest, consumed_goes: false }
            }
            _ => Retention {
                age: Some(Duration::from_hours(168)),
                bytes,
                at_cap: AtCap::DropOldest,
                consumed_goes: false,
            },
        };
        let key_window = if class == ClassId::DEAD_LETTERS { KeyWindow::WhileKept } else { KeyWindow::default() };
        Self { key_window, retention, ..Self::default() }
    }

    /// Size of a segment of that number.
    pub(crate) fn segment_size(&self, number: u32) -> u32 {
        let doublings = number.saturating_sub(1).min(16);
        let size = u64::from(self.segment_bytes_min) << doublings;
        size.min(u64::from(self.segment_bytes_max)) as u32
    }
}
