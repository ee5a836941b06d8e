//! Pure rules: no async, no clock, no I/O.

pub mod agent;
pub mod durability;
pub mod presence;
pub mod subscription;
