//! Whether the parts of the workspace that are built by themselves choose the same features of their dependencies as the
//! tests do, so that nothing is built twice (`testing/workspace-hack`).

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

/// Where the scripts say with which features the tests see the workspace.
const SCRIPTS: &str = "scripts/lib.sh";
/// What is built apart from the tests.
const PARTS: [(&str, &[&str]); 3] = [
    ("the wheel for tests", &["-p", "acb-python", "--features", "workspace-hack", "-e", "normal,build"]),
    ("log and simulation", &["-p", "acb-log", "-p", "acb-sim", "-e", "normal,build,dev"]),
    ("`make build`", &["--features", "acb-examples/workspace-hack", "-e", "normal,build"]),
];

/// One line for each dependency that a part would build once more.
pub(super) fn unshared(root: &Path) -> Result<Vec<String>> {
    let scripts = fs::read_to_string(root.join(SCRIPTS)).context(SCRIPTS)?;
    let features = scripts.lines().find_map(|line| line.strip_prefix("test_features="));
    let features = features.with_context(|| format!("{SCRIPTS}: no test_features"))?;
    let others = ["--workspace", "--exclude", "acb-log", "--exclude", "acb-sim", "-e", "normal,build,dev"];
    let tests = tree(root, &[&others[..], &["--features", features]].concat())?;
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
