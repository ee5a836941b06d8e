//! Deterministic simulation of engine and log.
//!
//! A seed decides everything: what clients do, in which order the server's threads get their turn, when the process is
//! killed or the power goes, which unsynced sectors are left and which bits flip. The code under test is the real engine,
//! the real log and the real core that drives them; only the disk, the clock and the clients are ours. After each step
//! the [`model`] is asked whether anything happened that must never happen. The same seed makes the same run, step by
//! step, so a failing one is printed and can be looked at.

pub mod model;
pub mod run;
pub mod world;

use std::{path::Path, sync::Arc};

use acb_log::{AtCap, DataDir, DataDirOptions, KeyWindow, LogOptions, Retention, SimDisk};
use acb_ports::{Opened, StoreError};
use acb_types::{ClassId, PartitionId, TenantId, Timestamp};

pub(crate) fn tenant() -> TenantId {
    let Ok(tenant) = "sim".parse() else { unreachable!("sim is a tenant id") };
    tenant
}

/// Takes the data folder of the test disk.
///
/// # Errors
/// As [`DataDir::open`].
pub fn open_data(disk: &SimDisk) -> acb_log::Result<Arc<DataDir>> {
    let options = DataDirOptions { pool_bytes_max: 256 << 10, ..DataDirOptions::default() };
    DataDir::open(disk.shared(), Path::new("/data"), options).map(Arc::new)
}

/// Opens a partition as the embedded store does, with segments so small that a run sees many of them.
///
/// # Errors
/// As the log's recovery.
pub fn open_partition(
    data: &Arc<DataDir>,
    partition: &PartitionId,
    seq_reserve: u64,
    now: Timestamp,
) -> Result<Opened, StoreError> {
    let key_window = if partition.class == ClassId::DEAD_LETTERS { KeyWindow::WhileKept } else { KeyWindow::default() };
    let options = LogOptions {
        segment_bytes_min: 16 << 10,
        segment_bytes_max: 32 << 10,
        key_window,
        seq_reserve,
        retention: Retention { at_cap: AtCap::Refuse, ..Retention::KEEP },
        ..LogOptions::default()
    };
    acb_store_embedded::embedded_log::open_partition(data, partition, options, now)
}
