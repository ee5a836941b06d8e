//! Whether the parts of the workspace that are built by themselves choose the same features of their dependencies as the
//! tests do, so that nothing is built twice (`testing/workspace-hack`).

use std::{collections::BTreeSet, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

/// What the tests build.
const TESTS: &[&str] =
    &["--workspace", "--features", "acb-ports/contract,acb-python/workspace-hack", "-e", "normal,build,dev"];
/// What is built apart from them.
const PARTS: [(&str, &[&str]); 2] = [
    ("the wheel for tests", &["-p", "acb-python", "--features", "workspace-hack", "-e", "normal,build"]),
    ("log and simulation", &["-p", "acb-log", "-p", "acb-sim", "-e", "normal,build,dev"]),
];

/// One line for each dependency that a part would build once more.
pub(super) fn unshared(root: &Path) -> Result<Vec<String>> {
    let tests = tree(root, TESTS)?;
    let mut out = Vec::new();
    for (part, selection) in PARTS {
        for crate_ in tree(root, selection)?.difference(&tests) {
            out.push(format!("testing/workspace-hack/Cargo.toml: {part} would build {crate_} once more"));
        }
    }
    Ok(out)
}

/// Crates of others, each with the features that cargo chooses.
fn tree(root: &Path, selection: &[&str]) -> Result<BTreeSet<String>> {
    let out = Command::new(env!("CARGO"))
        .args(["tree", "--quiet", "--locked", "--prefix", "none", "-f", "{p} {f}"])
        .args(selection)
        .current_dir(root)
        .output()
        .context("cargo tree")?;
    ensure!(out.status.success(), "cargo tree: {}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).context("cargo tree")?;
    // Ours are named with their folder. Those of which nothing else is left to say are marked.
    Ok(text.lines().filter(|l| !l.contains("(/")).map(|l| l.trim_end_matches(" (*)").trim().to_owned()).collect())
}
