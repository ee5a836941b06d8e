//! Which blobs a sweep must leave, in memory. For adapters of one process; pins of a process that died need no keeping,
//! since its rows were never committed.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use acb_types::{ErrorCode, Sha256Digest, TenantId};
use parking_lot::Mutex;

use super::{BlobPin, BlobSweep, Result};
use crate::error::StoreError;

type Named = (TenantId, Sha256Digest);

/// The pins of a store. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct BlobPins {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// How many hold a blob now.
    held: HashMap<Named, usize>,
    /// What was pinned since a tenant's sweep began.
    since: HashMap<TenantId, HashSet<Sha256Digest>>,
}

impl BlobPins {
    /// Pins a blob, whether it is there or not: pin first, look afterwards, so that no sweep comes between.
    pub fn pin(&self, tenant: &TenantId, digest: &Sha256Digest) -> BlobPin {
        let mut state = self.state.lock();
        *state.held.entry((tenant.clone(), *digest)).or_default() += 1;
        if let Some(since) = state.since.get_mut(tenant) {
            since.insert(*digest);
        }
        drop(state);
        let hold = Hold { pins: self.clone(), named: (tenant.clone(), *digest) };
        BlobPin::new(*digest, Box::new(hold))
    }

    /// Begins a sweep.
    ///
    /// # Errors
    /// `invalid_state` while another one of the tenant runs.
    pub fn sweep_begin(&self, tenant: &TenantId) -> Result<BlobSweep> {
        let mut state = self.state.lock();
        if state.since.contains_key(tenant) {
            let message = format!("the blobs of tenant {tenant} are being swept already");
            return Err(StoreError::new(ErrorCode::InvalidState, "blob.sweep", message));
        }
        // What is held now was perhaps put for a row that the sweep will not see yet.
        let held = state.held.keys().filter(|(t, _)| t == tenant).map(|(_, digest)| *digest).collect();
        state.since.insert(tenant.clone(), held);
        drop(state);
        let sweeping = Sweeping { pins: self.clone(), tenant: tenant.clone() };
        Ok(BlobSweep::new(tenant.clone(), Box::new(sweeping)))
    }

    /// Does `remove`, which must be quick, while nobody can pin the blob; `None` when it is or was pinned since the sweep began, or when no
    /// sweep runs.
    pub fn remove_free<T>(&self, tenant: &TenantId, digest: &Sha256Digest, remove: impl FnOnce() -> T) -> Option<T> {
        let state = self.state.lock();
        let since = state.since.get(tenant)?;
        if since.contains(digest) {
            return None;
        }
        Some(remove())
    }
}

/// One pin.
#[derive(Debug)]
struct Hold {
    pins: BlobPins,
    named: Named,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.pins.state.lock();
        if let Some(count) = state.held.get_mut(&self.named) {
            *count -= 1;
            if *count == 0 {
                state.held.remove(&self.named);
            }
        }
    }
}

/// One sweep.
#[derive(Debug)]
struct Sweeping {
    pins: BlobPins,
    tenant: TenantId,
}

impl Drop for Sweeping {
    fn drop(&mut self) {
        self.pins.state.lock().since.remove(&self.tenant);
    }
}
