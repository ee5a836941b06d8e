//! The suite of [`BlobStore`].

mod blobs;
mod faults;
mod stages;
mod sweeping;

use std::sync::Arc;

use acb_types::{ErrorCode, Sha256Digest, StreamId, TenantId};
use async_trait::async_trait;
use bytes::Bytes;
use sha2::Digest as _;

use super::{Turns, message_log::Crash};
use crate::{
    blob_store::{BlobStore, Result, Stage},
    error::StoreError,
};

/// Opens and breaks one adapter. Data lives as long as the harness.
#[async_trait]
pub trait BlobHarness: Send + 'static {
    /// Opens the data; what this opened before was dropped.
    async fn open(&mut self) -> Arc<dyn BlobStore>;

    /// Whether it can crash in this way.
    fn can_crash(&self, crash: Crash) -> bool;

    /// Crashes. Everything that was open was dropped.
    async fn crash(&mut self, crash: Crash);

    /// Makes changes fail as with a full (`storage_full`) or read-only (`storage_read_only`) disk, syncs as with a failing
    /// one (`storage_failed`), or heals it. Answers whether this harness can.
    async fn refuse_writes(&mut self, code: Option<ErrorCode>) -> bool;

    /// Makes the disk fail from some operation on, as in the moment of a crash: a later one, or one of another kind, for
    /// each number. `None` heals. Answers whether this harness can.
    async fn stop_after(&mut self, point: Option<u64>) -> bool {
        let _ = point;
        false
    }
}

/// A store under test.
pub struct Context {
    harness: Box<dyn BlobHarness>,
    turns: Turns,
    /// The store; `None` only while it is being opened.
    store: Option<Arc<dyn BlobStore>>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Context {
    /// Opens a store for one case.
    pub async fn new(harness: impl BlobHarness, turns: Turns) -> Self {
        let mut harness: Box<dyn BlobHarness> = Box::new(harness);
        let store = harness.open().await;
        Self { harness, turns, store: Some(store) }
    }

    fn store(&self) -> &Arc<dyn BlobStore> {
        self.store.as_ref().unwrap()
    }

    /// A turn of the case: closes and opens the store where the suite runs that way. Whatever was open must be dropped.
    async fn turn(&mut self) {
        if self.turns == Turns::Reopened {
            self.reopen().await;
        }
    }

    async fn reopen(&mut self) {
        self.store = None;
        self.store = Some(self.harness.open().await);
    }

    /// Crashes and opens anew. Answers whether the harness can, and says aloud when not.
    async fn crash(&mut self, crash: Crash) -> bool {
        if !self.harness.can_crash(crash) {
            println!("skipped: this harness cannot do {crash:?}");
            return false;
        }
        self.store = None;
        self.harness.crash(crash).await;
        self.store = Some(self.harness.open().await);
        true
    }

    /// The content of a blob, read in uneven pieces; `None` when it is absent.
    async fn content(&self, tenant: &TenantId, digest: &Sha256Digest) -> Option<Vec<u8>> {
        let reader = self.store().open(tenant, digest).await.unwrap()?;
        let mut out = Vec::new();
        while (out.len() as u64) < reader.size() {
            let piece = reader.read_at(out.len() as u64, 70_001).unwrap();
            assert!(!piece.is_empty(), "a piece inside a blob has bytes");
            out.extend_from_slice(&piece);
        }
        Some(out)
    }
}

fn tenant(id: &str) -> TenantId {
    id.parse().unwrap()
}

fn stream(n: u8) -> StreamId {
    StreamId([n; 16])
}

/// Bytes that tell where they are, and their digest.
fn content(seed: u64, len: usize) -> (Sha256Digest, Bytes) {
    let bytes: Vec<u8> =
        (0..len as u64).map(|i| (i.wrapping_mul(2_654_435_761).wrapping_add(seed * 97) >> 7) as u8).collect();
    let digest: [u8; 32] = sha2::Sha256::digest(&bytes).into();
    (digest.into(), bytes.into())
}

/// Runs what blocks on a thread that may.
async fn block<T: Send + 'static>(stage: &Arc<dyn Stage>, work: impl FnOnce(&dyn Stage) -> T + Send + 'static) -> T {
    let stage = Arc::clone(stage);
    tokio::task::spawn_blocking(move || work(&*stage)).await.unwrap()
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T>, code: ErrorCode) -> StoreError {
    match answer {
        Err(e) => {
            assert_eq!(e.code, code, "{e}");
            e
        }
        Ok(value) => panic!("{code} expected, got {value:?}"),
    }
}

/// The cases, by noun.
pub mod cases {
    pub use super::{blobs::*, faults::*, stages::*, sweeping::*};
}

/// Runs the suite of the blob store: `$harness` is an expression that makes a fresh [`BlobHarness`].
#[macro_export]
macro_rules! blob_store_contract {
    ($harness:expr) => {
        $crate::contract_cases!($harness, blob_store =>
            blob_1_tenants_share_nothing,
            blob_2_what_was_put_survives_every_crash,
            blob_3_of_16_concurrent_puts_all_succeed_and_one_blob_is_there,
            blob_4_removing_what_is_absent_succeeds_and_open_readers_never_lie,
            blob_5_any_range_reads_as_it_was_put,
            blob_5_a_whole_is_read_at_once_up_to_its_bound,
            blob_6_a_sweep_leaves_what_is_pinned,
            blob_6_a_sweep_leaves_what_was_pinned_since_it_began,
            blob_6_no_row_loses_its_blob_to_sweeps_that_run_beside_it,
            blob_7_what_was_synced_in_a_stage_survives_every_crash,
            blob_8_pieces_come_in_any_order_from_any_thread,
            blob_9_a_commit_ends_the_stage_and_makes_the_blob,
            blob_9_a_commit_of_what_is_there_ends_the_stage,
            blob_9_a_stage_that_is_longer_than_its_blob_is_cut,
            blob_9_a_commit_that_is_cut_short_can_be_ended,
            blob_10_a_dropped_stage_is_gone_and_its_handles_change_nothing,
            blob_11_lists_are_paged_in_order,
            blob_12_a_full_disk_refuses_changes_nothing_and_heals,
            blob_12_a_stage_whose_sync_failed_commits_nothing,
        );
    };
}
