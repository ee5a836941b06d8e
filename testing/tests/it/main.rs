//! The fake bus as users' tests meet it.

#![allow(clippy::disallowed_methods, reason = "a test owns its tasks")]

mod contexts;
mod guide;
mod leaks;
mod life;
mod network;
mod presence;
