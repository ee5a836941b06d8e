//! Which token families were taken back, as flags that sessions share.
//!
//! A hot stream asks its session with every batch, so the answer is one atomic. The table itself is asked once a token.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use acb_types::Timestamp;
use ahash::AHashMap;
use parking_lot::Mutex;

use super::principal::FamilyId;

/// How long a revoked family is remembered here: no access token lives longer than a day (`limits::TABLE`).
const REMEMBERED_MS: u64 = 25 * 3_600_000;
/// Entries below which nothing is swept.
const SWEEP_FROM: usize = 4096;

#[derive(Debug)]
struct Entry {
    flag: Arc<AtomicBool>,
    /// When it was revoked, as far as this process knows.
    revoked_at: Timestamp,
}

#[derive(Debug, Default)]
struct Table {
    families: AHashMap<FamilyId, Entry>,
    sweep_at: usize,
}

/// The table. Families that are in use or revoked are in it.
#[derive(Debug, Default)]
pub struct Revocations {
    table: Mutex<Table>,
}

impl Revocations {
    /// The flag of a family, to be shared by its sessions.
    pub fn flag(&self, family: &FamilyId, now: Timestamp) -> Arc<AtomicBool> {
        let mut table = self.table.lock();
        if let Some(entry) = table.families.get(family) {
            return Arc::clone(&entry.flag);
        }
        table.sweep(now);
        let flag = Arc::new(AtomicBool::new(false));
        let entry = Entry { flag: Arc::clone(&flag), revoked_at: Timestamp::NONE };
        table.families.insert(family.clone(), entry);
        flag
    }

    /// Takes a family back: every session of it ends with its next batch.
    pub fn revoke(&self, family: FamilyId, now: Timestamp) {
        let mut table = self.table.lock();
        table.sweep(now);
        let fresh = || Entry { flag: Arc::new(AtomicBool::new(false)), revoked_at: Timestamp::NONE };
        let entry = table.families.entry(family).or_insert_with(fresh);
        entry.flag.store(true, Relaxed);
        entry.revoked_at = now;
    }
}

impl Table {
    /// Forgets families that nobody uses, and revoked ones of which no token can be left.
    fn sweep(&mut self, now: Timestamp) {
        if self.families.len() < self.sweep_at.max(SWEEP_FROM) {
            return;
        }
        self.families.retain(|_, e| {
            let remembered = e.revoked_at.is_set() && now.0.saturating_sub(e.revoked_at.0) < REMEMBERED_MS;
            remembered || Arc::strong_count(&e.flag) > 1
        });
        self.sweep_at = self.families.len() * 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revocation_reaches_flags_given_before_and_after_it() {
        let table = Revocations::default();
        let family = FamilyId::from("f");
        let before = table.flag(&family, Timestamp(1));
        table.revoke(family.clone(), Timestamp(2));
        assert!(before.load(Relaxed));
        assert!(table.flag(&family, Timestamp(3)).load(Relaxed));
        assert!(!table.flag(&FamilyId::from("g"), Timestamp(3)).load(Relaxed));
    }

    #[test]
    fn what_nobody_uses_is_forgotten_and_what_was_revoked_is_not() {
        let table = Revocations::default();
        let kept = table.flag(&FamilyId::from("kept"), Timestamp(1));
        table.revoke(FamilyId::from("gone"), Timestamp(1));
        for i in 0..SWEEP_FROM * 3 {
            table.flag(&FamilyId::from(i.to_string().as_str()), Timestamp(2));
        }
        let size = table.table.lock().families.len();
        assert!(size <= SWEEP_FROM + 2, "{size} families are kept");
        assert!(table.flag(&FamilyId::from("gone"), Timestamp(2)).load(Relaxed));
        assert!(Arc::ptr_eq(&kept, &table.flag(&FamilyId::from("kept"), Timestamp(2))));
    }
}
