//! Bugs that a simulation can put in, to prove that its checker finds them. Without the feature `planted` every
//! question here is a constant `false` and nothing is left of them in the program.

/// A bug that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bug {
    /// A nacked message is taken for settled.
    ForgetNack,
    /// A lease that ended is kept while its message goes to another.
    DoubleLease,
    /// Settlements are applied to whoever holds the lease.
    AckForeignLease,
    /// Failed attempts are not counted.
    SkipAttemptCount,
    /// A message dies twice.
    DieTwice,
    /// Released messages are taken for settled.
    LoseOnRelease,
    /// Where credit ends inside a run, the rest of the run is skipped.
    CursorSkipsOnCredit,
    /// Acks are not journaled.
    ForgetJournal,
    /// Leases end at half their time.
    ExpireEarly,
    /// Confirmed acks are answered before they are durable.
    ConfirmEarly,
    /// What was on the way when a connection was lost is not given again.
    ResumeForgets,
    /// The cap on outstanding messages is not looked at.
    IgnoreMaxLeased,
    /// A retry is due at once.
    RetryAtOnce,
    /// Messages are delivered after their time.
    DeliverExpired,
    /// A message that is dying can still be acknowledged.
    AckTheDying,
    /// After a restart a subscription begins at the end.
    RestoreAtEnd,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::ForgetNack,
        Self::DoubleLease,
        Self::AckForeignLease,
        Self::SkipAttemptCount,
        Self::DieTwice,
        Self::LoseOnRelease,
        Self::CursorSkipsOnCredit,
        Self::ForgetJournal,
        Self::ExpireEarly,
        Self::ConfirmEarly,
        Self::ResumeForgets,
        Self::IgnoreMaxLeased,
        Self::RetryAtOnce,
        Self::DeliverExpired,
        Self::AckTheDying,
        Self::RestoreAtEnd,
    ];
}

#[cfg(feature = "planted")]
mod active {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static ACTIVE: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Plants a bug in every engine that this thread runs, or takes it out again.
    pub fn plant(bug: Option<Bug>) {
        ACTIVE.set(bug);
    }

    pub(crate) fn planted(bug: Bug) -> bool {
        ACTIVE.get() == Some(bug)
    }
}

#[cfg(feature = "planted")]
pub use active::plant;
#[cfg(feature = "planted")]
pub(crate) use active::planted;

#[cfg(not(feature = "planted"))]
pub(crate) const fn planted(_: Bug) -> bool {
    false
}
