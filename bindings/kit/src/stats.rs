//! What a port has done, in numbers.

/// Counts of one port since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Pieces of work that were submitted.
    pub submitted: u64,
    /// Those that were over before they crossed a thread.
    pub at_once: u64,
    /// Completions that were pushed.
    pub completed: u64,
    /// Cancellations that found their work on its way.
    pub cancelled: u64,
    /// Work on its way now.
    pub in_flight: u64,
    /// Wakes given to the guest.
    pub wakes: u64,
    /// Drains that the guest made.
    pub drains: u64,
    /// Most completions that ever waited.
    pub queue_deepest: u64,
}
