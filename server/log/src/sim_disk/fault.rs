//! What a test can plan, and what it can ask afterwards.

use std::{path::PathBuf, sync::Arc};

use parking_lot::{Condvar, Mutex};

use super::SimDisk;

/// What a planned failure hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultOn {
    /// Writing into files.
    Write,
    /// Writing, allocating, making, renaming and removing: all that a full or read-only disk refuses.
    Change,
    /// Giving a file its blocks, and making files.
    Allocate,
    /// `fdatasync`.
    Sync,
    /// Reading from files.
    Read,
}

/// A planned failure.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// What it hits.
    pub on: FaultOn,
    /// What the system says, such as `libc::ENOSPC`.
    pub errno: i32,
    /// How many such operations pass first.
    pub after: u64,
    /// How many fail then.
    pub times: u64,
}

/// Operations of one kind wait until this is dropped: a disk that takes its time. Made by [`SimDisk::hold`].
#[derive(Debug)]
pub struct Held {
    pub(super) disk: SimDisk,
    pub(super) gate: Arc<Gate>,
}

impl Held {
    /// Returns when an operation waits.
    pub fn has_one(&self) {
        let mut at = self.gate.at.lock();
        while at.waiting == 0 {
            self.gate.changed.wait(&mut at);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.disk.0.lock().gates.retain(|gate| !Arc::ptr_eq(gate, &self.gate));
        self.gate.at.lock().is_open = true;
        self.gate.changed.notify_all();
    }
}

/// What they wait at.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) on: FaultOn,
    at: Mutex<At>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct At {
    waiting: usize,
    is_open: bool,
}

impl Gate {
    pub(super) fn new(on: FaultOn) -> Arc<Self> {
        Arc::new(Self { on, at: Mutex::default(), changed: Condvar::new() })
    }

    pub(super) fn pass(&self) {
        let mut at = self.at.lock();
        at.waiting += 1;
        self.changed.notify_all();
        while !at.is_open {
            self.changed.wait(&mut at);
        }
        at.waiting -= 1;
    }
}

/// What the disk was asked to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Bytes were written.
    Write {
        /// Into this file.
        path: PathBuf,
        /// From here.
        offset: u64,
        /// So many.
        len: u64,
    },
    /// A file was synced.
    Sync {
        /// This file.
        path: PathBuf,
    },
    /// Bytes may begin to go to the disk.
    WriteBack {
        /// Of this file.
        path: PathBuf,
        /// From here.
        offset: u64,
        /// So many.
        len: u64,
    },
    /// A folder was synced.
    SyncDir {
        /// This folder.
        path: PathBuf,
    },
    /// A name changed.
    Rename {
        /// From this.
        from: PathBuf,
        /// To this.
        to: PathBuf,
    },
    /// A file was removed.
    Remove {
        /// This file.
        path: PathBuf,
    },
}

/// How often and how much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls that wrote.
    pub writes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Calls that read.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// `fdatasync`s.
    pub syncs: u64,
}
