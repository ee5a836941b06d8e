//! What compilers do not check: walls between crates and rooms, leftovers, sizes, freshness.
//!
//! Each check returns its findings as lines; nothing stops at the first.

mod features;
mod files;
mod walls;

use std::path::Path;

use anyhow::{Result, bail};

use crate::codegen;

/// Runs every check and says what it found.
pub(crate) fn run(root: &Path) -> Result<()> {
    let findings = findings(root)?;
    if findings.is_empty() {
        println!("tidy: nothing to say");
        return Ok(());
    }
    for line in &findings {
        eprintln!("{line}");
    }
    bail!("tidy: {} findings", findings.len());
}

fn findings(root: &Path) -> Result<Vec<String>> {
    let sources = files::all(root)?;
    let mut out = walls::crates(root)?;
    out.extend(features::unshared(root)?);
    out.extend(walls::rooms(&sources));
    out.extend(files::leftovers(&sources));
    out.extend(files::sizes(&sources));
    // Pages of error codes are generated: one that is missing shows here.
    out.extend(codegen::stale(root)?);
    Ok(out)
}
