//! What a test can plan, and what it can ask afterwards.

use std::path::PathBuf;

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
