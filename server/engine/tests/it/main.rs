//! The engine as a runner and a simulation see it.

mod bed;
mod credit;
mod dead_letters;
mod delivery;
mod journal;
mod model;
mod sessions;
mod settling;
#[cfg(feature = "planted")]
mod planted;
