//! What the server says of itself: logs and metrics.

pub mod catalogue;
pub mod histogram;
pub mod logs;
pub mod metrics;

pub use histogram::TimeHistogram;
pub use metrics::{Metrics, PartitionMetrics, TenantMetrics};
