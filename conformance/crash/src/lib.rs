//! What proves that the bus survives: the real server is killed under load, its disk is traced, filled and taken away,
//! and a checker that knows nothing of the server reads the whole history.
//!
//! - [`contexts`]: contexts, revisions and chunks: writers, a watcher and uploads, and what must be there in the end.
//! - [`counter`]: many agents add to one number by compare-and-set, and the sum is right.
//! - [`upload`]: one large upload by the program `acb`, whose process and whose server are killed in turn by chance, and
//!   what each kill made it send again.
//! - [`history`]: what clients did and saw, as JSON lines.
//! - [`check`]: a pure function from a history to what is wrong with it, rule by rule.
//! - [`load`]: clients of every kind, one module a kind, behind one small trait.
//! - [`round`]: one seed: start, load, kill, start again, settle, read the log, check.
//! - [`power`]: contexts and uploads over a disk that forgets what was not synced, with the server in this process.
//! - [`trace`]: a server under `strace`, and the proof that a sync ended before an acknowledgement left.
//! - [`disk`]: small file systems that fill up and become read-only.
//!
//! The client is the Rust core, which has to come through every kill by itself: that is part of the proof.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the bans are the product's: a test kit owns its tasks and its time"
)]

pub mod check;
pub mod contexts;
mod count;
pub mod counter;
pub mod disk;
pub mod history;
pub mod load;
pub mod power;
mod relay;
pub mod round;
pub mod trace;
pub mod upload;

/// A number that the environment gives.
///
/// # Panics
/// When it is none.
pub fn asked(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

/// Names the seed of a test, or of its first round; the others follow it.
pub const SEED: &str = "ACB_CRASH_SEED";

/// The seed that the environment gives by [`SEED`], or one by chance.
pub fn seed() -> u64 {
    asked(SEED).unwrap_or_else(|| u64::from(rand::random::<u32>()))
}
