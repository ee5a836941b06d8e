//! Pure rules: no async, no clock, no I/O.

pub mod agent;
pub mod context;
pub mod durability;
pub mod presence;
pub mod subscription;
