//! Deliberate faults. The simulation's checker is proven by finding each of them. Without the feature `planted` the
//! question [`is`] is a constant `false` and the planted places vanish.

/// A fault that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bug {
    /// A sync answers without syncing.
    SkipSync,
    /// A sync claims what was written while it ran.
    SyncedTooFar,
    /// A write claims to have written what it keeps for the next one.
    WrittenBeforeWrite,
    /// A new epoch begins right after what was found: seqs that were handed out are given again.
    ReuseSeq,
    /// Recovery and readers take batches without looking at their checksum.
    SkipCrc,
    /// Idempotency keys are forgotten when a segment begins.
    ForgetKeyOnRoll,
    /// Producer sessions are forgotten by recovery.
    ForgetProducerOnRecovery,
    /// Delivery state after the last snapshot is forgotten by recovery.
    ForgetStateOnRecovery,
    /// Recovery steps over a break and takes the batches behind it.
    KeepBrokenTail,
    /// Damage in what was synced is cut off like a torn tail.
    CutDamage,
    /// The keys of a batch that could not be written are remembered as stored.
    KeepFailedKeys,
    /// A failed sync is forgotten.
    IgnoreFailedSync,
    /// Retention takes one segment more than it may.
    TrimTooMuch,
    /// Readers go past the end they were given.
    ReadPastEnd,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::SkipSync,
        Self::SyncedTooFar,
        Self::WrittenBeforeWrite,
        Self::ReuseSeq,
        Self::SkipCrc,
        Self::ForgetKeyOnRoll,
        Self::ForgetProducerOnRecovery,
        Self::ForgetStateOnRecovery,
        Self::KeepBrokenTail,
        Self::CutDamage,
        Self::KeepFailedKeys,
        Self::IgnoreFailedSync,
        Self::TrimTooMuch,
        Self::ReadPastEnd,
    ];
}

#[cfg(feature = "planted")]
thread_local! {
    static ACTIVE: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants a fault for this thread, or takes it away.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Bug>) {
    ACTIVE.with(|active| active.set(bug));
}

/// Whether a fault is planted in this thread.
#[cfg(feature = "planted")]
#[inline]
pub fn is(bug: Bug) -> bool {
    ACTIVE.with(|active| active.get() == Some(bug))
}

/// Whether a fault is planted: never, in a build without the feature.
#[cfg(not(feature = "planted"))]
#[inline]
pub const fn is(_: Bug) -> bool {
    false
}
