//! The peers' clients, in Rust like ours and in the same shared loops.
//!
//! They follow each project's own documentation for the fastest call that keeps the promise of the row;
//! `docs/benchmarks.md` names the calls. Behind the feature `peers`: tests do not build two more clients.

#[cfg(feature = "peers")]
mod nats;
#[cfg(feature = "peers")]
mod redis;

#[cfg(feature = "peers")]
pub(crate) use self::{nats::load as nats, redis::load as redis};

#[cfg(not(feature = "peers"))]
pub(crate) use self::absent::{load as nats, load as redis};

#[cfg(not(feature = "peers"))]
mod absent {
    use anyhow::{Result, bail};

    use crate::load::{Outcome, Plan};

    /// Stands in for the peers' loads in a build without them.
    pub(crate) async fn load(_plan: Plan) -> Result<(Outcome, Option<u64>)> {
        bail!("built without the peers' clients: cargo build --release -p acb-bench --features peers")
    }
}
