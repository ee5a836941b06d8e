//! The one lock that the queue knows, so that its test under loom can put another in its place
//! (`tests/queue_loom.rs`).

pub(crate) use parking_lot::Mutex as Lock;
