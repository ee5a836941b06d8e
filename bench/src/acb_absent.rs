//! Stands in for `acb.rs` in a build without the feature `sdk`.

use anyhow::{Result, bail};

use crate::load::{Outcome, Plan};

/// Says how to get the real one.
#[expect(
    clippy::unused_async,
    reason = "same signature as the load it stands in for"
)]
pub(crate) async fn load(_plan: Plan) -> Result<(Outcome, Option<u64>)> {
    bail!("built without the feature `sdk`: ACB cannot be measured")
}
