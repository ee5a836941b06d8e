//! The blob store's contract over files: on the system's disk, and on the test disk whose power can be cut.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::{path::Path, sync::Arc};

use acb_log::{Disk as _, Event, Fault, FaultOn, OsDisk, SimDisk, SimRng};
use acb_ports::{
    BlobStore,
    contract::{blob_store::BlobHarness, message_log::Crash},
};
use acb_store_embedded::EmbeddedBlobs;
use acb_types::{ErrorCode, Sha256Digest, TenantId};
use async_trait::async_trait;

mod on_the_systems_disk {
    use super::*;

    struct OnDisk(tempfile::TempDir);

    #[async_trait]
    impl BlobHarness for OnDisk {
        async fn open(&mut self) -> Arc<dyn BlobStore> {
            Arc::new(EmbeddedBlobs::open(OsDisk::shared(), self.0.path()))
        }

        fn can_crash(&self, crash: Crash) -> bool {
            crash == Crash::Kill
        }

        /// Dropping is what kill -9 leaves: the system keeps what was written.
        async fn crash(&mut self, _crash: Crash) {}

        async fn refuse_writes(&mut self, _code: Option<ErrorCode>) -> bool {
            false
        }
    }

    acb_ports::blob_store_contract!(OnDisk(tempfile::tempdir().unwrap()));
}

mod on_the_test_disk {
    use super::*;

    struct Simulated {
        disk: SimDisk,
        rng: SimRng,
    }

    impl Simulated {
        fn new() -> Self {
            let disk = SimDisk::new(1);
            // The data folder is there before anything is kept in it: the log makes it.
            disk.create_dir_all(Path::new("/data")).unwrap();
            disk.sync_dir(Path::new("/")).unwrap();
            Self { disk, rng: SimRng::new(2) }
        }
    }

    #[async_trait]
    impl BlobHarness for Simulated {
        async fn open(&mut self) -> Arc<dyn BlobStore> {
            Arc::new(EmbeddedBlobs::open(self.disk.shared(), Path::new("/data")))
        }

        fn can_crash(&self, _crash: Crash) -> bool {
            true
        }

        async fn crash(&mut self, crash: Crash) {
            match crash {
                Crash::Kill => self.disk.kill(),
                Crash::PowerCut => self.disk.power_cut(&mut self.rng),
            }
        }

        async fn refuse_writes(&mut self, code: Option<ErrorCode>) -> bool {
            self.disk.heal();
            match code {
                None => {}
                Some(ErrorCode::StorageFull) => self.disk.fail(FaultOn::Change, libc::ENOSPC),
                Some(ErrorCode::StorageReadOnly) => self.disk.fail(FaultOn::Change, libc::EROFS),
                Some(ErrorCode::StorageFailed) => self.disk.fail(FaultOn::Sync, libc::EIO),
                Some(_) => return false,
            }
            true
        }

        async fn stop_after(&mut self, point: Option<u64>) -> bool {
            self.disk.heal();
            if let Some(point) = point {
                let stop = |on, after| Fault { on, errno: libc::EIO, after, times: u64::MAX };
                self.disk.inject(stop(FaultOn::Change, point % 9));
                self.disk.inject(stop(FaultOn::Sync, point / 9));
            }
            true
        }
    }

    acb_ports::blob_store_contract!(Simulated::new());
}

fn digest(n: u8) -> Sha256Digest {
    Sha256Digest([n; 32])
}

/// What the disk was asked, in words: the order is what a power cut sees.
fn words(trace: &[Event]) -> Vec<&'static str> {
    trace
        .iter()
        .map(|event| match event {
            Event::Write { .. } => "write",
            Event::Sync { .. } => "sync",
            Event::WriteBack { .. } => "write back",
            Event::SyncDir { .. } => "sync folder",
            Event::Rename { .. } => "rename",
            Event::Remove { .. } => "remove",
        })
        .collect()
}

#[tokio::test]
async fn a_put_syncs_the_bytes_before_the_name_and_the_folder_after() {
    let disk = SimDisk::new(3);
    let store = EmbeddedBlobs::open(disk.shared(), Path::new("/data"));
    let t: TenantId = "a".parse().unwrap();
    drop(store.put(&t, &digest(1), "first, which makes the folders".into()).await.unwrap());
    disk.start_trace();
    // Another shard would make its folder first; this is the same one.
    let mut second = digest(1);
    second.0[31] = 2;
    drop(store.put(&t, &second, "second".into()).await.unwrap());
    assert_eq!(words(&disk.take_trace()), ["write", "sync", "rename", "sync folder"]);
}

#[tokio::test]
async fn what_another_process_left_half_done_goes_with_the_next_listing() {
    let folder = tempfile::tempdir().unwrap();
    let t: TenantId = "a".parse().unwrap();
    let store = EmbeddedBlobs::open(OsDisk::shared(), folder.path());
    drop(store.put(&t, &digest(0xab), "kept".into()).await.unwrap());
    let shard = folder.path().join("tenants/a/blobs/ab");
    let left = shard.join(format!("{}.put-0123456789abcdef-7", digest(0xab)));
    std::fs::write(&left, "half").unwrap();
    assert_eq!(store.list(&t, None, 10).await.unwrap().len(), 1);
    assert!(!left.exists(), "it takes space for nothing");
    assert!(shard.join(digest(0xab).to_string()).exists());
}

#[tokio::test]
async fn a_stage_with_a_size_has_its_space_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let t: TenantId = "a".parse().unwrap();
    let store = EmbeddedBlobs::open(OsDisk::shared(), folder.path());
    let id = acb_types::StreamId([5; 16]);
    let _stage = store.stage_create(&t, &id, Some(1 << 20)).await.unwrap();
    let file = std::fs::metadata(folder.path().join(format!("tenants/a/stage/{id}"))).unwrap();
    assert_eq!(file.len(), 1 << 20);
    assert!(std::os::unix::fs::MetadataExt::blocks(&file) * 512 >= 1 << 20, "blocks are reserved, not only a length");
}
