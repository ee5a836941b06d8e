//! Every fault, by the area of what the bus promises.

mod contexts;
mod delivering;
mod identity;
mod publishing;
mod registry;
mod settling;
mod storing;
mod streams;
mod subscribing;

use std::sync::LazyLock;

use crate::{Fault, Lie, wire::Edit};

/// Every fault.
pub static TABLE: LazyLock<Vec<Fault>> = LazyLock::new(|| {
    [
        settling::FAULTS,
        delivering::FAULTS,
        publishing::FAULTS,
        registry::FAULTS,
        subscribing::FAULTS,
        identity::FAULTS,
        storing::FAULTS,
        contexts::FAULTS,
        streams::FAULTS,
    ]
    .concat()
});

const fn fault(name: &'static str, says: &'static str, finds: &'static [&'static str], lie: fn() -> Lie) -> Fault {
    Fault { name, says, finds, lie }
}

fn wire<const N: usize>(edits: [Edit; N]) -> Lie {
    Lie::Wire(edits.into())
}
