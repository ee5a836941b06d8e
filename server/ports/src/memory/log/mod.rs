//! [`MemoryLog`]: partitions as lists of records, with a line that says what is written and one that says what is synced.
//! A kill forgets what is above the first, a power cut what is above the second.

mod dedupe;
mod partition;
mod reader;
mod store;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use acb_types::{ClassId, ErrorCode, PartitionId, TenantId, limits};
use async_trait::async_trait;
use parking_lot::Mutex;

use self::{partition::Owner, store::Store};
use crate::{
    error::StoreError,
    message_log::{MessageLog, Opened},
};

/// Age after which a published message may go.
const TOPICS_AGE: Duration = Duration::from_hours(7 * 24);

/// What [`MemoryLog`] keeps of a class. A batch is its unit: it goes as a whole or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryKeep {
    /// Batches older than this may go once they lie below the floor.
    pub age: Duration,
    /// Most bytes of messages.
    pub bytes: u64,
    /// At that many bytes: whether the oldest go, or new ones are refused with `storage_full`.
    pub drop_oldest: bool,
    /// Whether what lies below the floor goes at once.
    pub consumed_goes: bool,
}

impl MemoryKeep {
    /// What holds for a class unless [`MemoryLog::keep`] says otherwise.
    fn of_class(class: ClassId) -> Self {
        let (age, inbox) = match class {
            ClassId::INBOX => (limits::INBOX_TTL, true),
            ClassId::DEAD_LETTERS => (limits::DEAD_LETTER_TTL, false),
            _ => (TOPICS_AGE, false),
        };
        Self { age, bytes: u64::MAX, drop_oldest: !inbox, consumed_goes: inbox }
    }
}

/// The message log in memory. Clones share what it holds.
#[derive(Clone, Debug, Default)]
pub struct MemoryLog {
    disk: Arc<Mutex<Disk>>,
}

/// What would be on the disk, and how the disk behaves.
#[derive(Debug, Default)]
struct Disk {
    partitions: BTreeMap<PartitionId, Arc<Mutex<Store>>>,
    keep: BTreeMap<ClassId, MemoryKeep>,
    refusal: Option<ErrorCode>,
}

impl MemoryLog {
    /// An empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what is kept of a class, for partitions that are opened from now on.
    pub fn keep(&self, class: ClassId, keep: MemoryKeep) {
        self.disk.lock().keep.insert(class, keep);
    }

    /// Makes every write fail from now on: `storage_full` and `storage_read_only` heal with `None`, after `storage_failed`
    /// a partition must be opened anew.
    pub fn refuse_writes(&self, code: Option<ErrorCode>) {
        self.disk.lock().refusal = code;
    }

    /// What kill -9 of the process does: every partition's owner is gone, and with it what was staged and not written.
    pub fn kill(&self) {
        for store in self.disk.lock().partitions.values() {
            store.lock().owner_lost();
        }
    }

    /// What a power cut does: as [`Self::kill`], and what was written and not synced is gone too.
    pub fn power_cut(&self) {
        for store in self.disk.lock().partitions.values() {
            store.lock().power_cut();
        }
    }
}

#[async_trait]
impl MessageLog for MemoryLog {
    async fn open(&self, partition: &PartitionId) -> Result<Opened, StoreError> {
        let (store, keep) = {
            let mut disk = self.disk.lock();
            let keep = disk.keep.get(&partition.class).copied();
            let fresh = || Arc::new(Mutex::new(Store::new(partition.clone())));
            let store = Arc::clone(disk.partitions.entry(partition.clone()).or_insert_with(fresh));
            (store, keep.unwrap_or_else(|| MemoryKeep::of_class(partition.class)))
        };
        let (session, state) = store.lock().open()?;
        Ok(Opened { log: Box::new(Owner::new(self.disk.clone(), store, session, keep)), state })
    }

    async fn partitions(&self) -> Result<Vec<PartitionId>, StoreError> {
        Ok(self.disk.lock().partitions.keys().cloned().collect())
    }

    async fn remove_tenant(&self, tenant: &TenantId) -> Result<(), StoreError> {
        let mut disk = self.disk.lock();
        let open = disk.partitions.iter().find(|(id, store)| id.tenant == *tenant && store.lock().is_open());
        if let Some((id, _)) = open {
            let message = format!("partition {id} is open");
            return Err(StoreError::new(ErrorCode::InvalidState, "log.remove_tenant", message));
        }
        disk.partitions.retain(|id, _| id.tenant != *tenant);
        Ok(())
    }
}
