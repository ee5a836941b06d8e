//! The engine as a runner and a simulation see it.
#![expect(clippy::unwrap_used, reason = "tests and their helpers")]

mod bed;
mod credit;
mod dead_letters;
mod delivery;
mod journal;
mod model;
#[cfg(feature = "planted")]
mod planted;
mod sessions;
mod settling;
mod survey;
