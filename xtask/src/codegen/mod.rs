//! Writes generated files, and tells whether those that are committed are fresh.
//!
//! Every generator returns files as paths and bytes and touches nothing; only `write` does. So writing and checking
//! cannot differ.

mod errors;
mod limits;
mod proto;
mod python;
mod rust;

use std::{collections::BTreeMap, fs, io, path::Path};

use anyhow::{Context, Result, bail};

/// Files by their path from the workspace's root, `/` between names.
type Files = BTreeMap<String, Vec<u8>>;

/// Folders that hold nothing but generated files: what is in them and is not generated any more goes.
const OWNED: [&str; 2] = ["docs/errors", "proto/src/generated"];

fn generate(root: &Path) -> Result<Files> {
    let mut files = Files::new();
    proto::generate(root, &mut files).context("protobuf")?;
    let codes = errors::generate(root, &mut files).context("error codes")?;
    python::generate(root, &codes, &mut files).context("Python")?;
    rust::generate(root, &mut files).context("reference of the Rust client")?;
    limits::generate(&mut files);
    Ok(files)
}

/// Writes everything that differs, and says what it was.
pub(crate) fn write(root: &Path) -> Result<()> {
    let files = generate(root)?;
    let differences = compare(root, &files)?;
    for Difference { path, what } in &differences {
        let full = root.join(path);
        match files.get(path) {
            Some(bytes) => {
                if let Some(folder) = full.parent() {
                    fs::create_dir_all(folder)?;
                }
                fs::write(&full, bytes).with_context(|| format!("cannot write {path}"))?;
            }
            None => fs::remove_file(&full).with_context(|| format!("cannot remove {path}"))?,
        }
        println!("{path}: {what}");
    }
    println!("{} generated files, {} written", files.len(), differences.len());
    Ok(())
}

/// Fails when something committed is not what would be written, and says what and where.
pub(crate) fn check(root: &Path) -> Result<()> {
    let differences = stale(root)?;
    if differences.is_empty() {
        println!("generated files are fresh");
        return Ok(());
    }
    for line in &differences {
        eprintln!("{line}");
    }
    bail!("{} generated files are stale: run `cargo xtask codegen`", differences.len());
}

/// One line for each generated file that is not fresh.
pub(crate) fn stale(root: &Path) -> Result<Vec<String>> {
    let files = generate(root)?;
    Ok(compare(root, &files)?.into_iter().map(|d| format!("{}: {}", d.path, d.what)).collect())
}

#[derive(Debug, PartialEq, Eq)]
struct Difference {
    path: String,
    what: String,
}

fn compare(root: &Path, files: &Files) -> Result<Vec<Difference>> {
    let mut out = Vec::new();
    for (path, wanted) in files {
        let what = match fs::read(root.join(path)) {
            Ok(found) if found == *wanted => continue,
            Ok(found) => summary(&found, wanted),
            Err(e) if e.kind() == io::ErrorKind::NotFound => "missing".to_owned(),
            Err(e) => return Err(e).with_context(|| format!("cannot read {path}")),
        };
        out.push(Difference { path: path.clone(), what });
    }
    for folder in OWNED {
        let Ok(entries) = fs::read_dir(root.join(folder)) else { continue };
        for entry in entries {
            let path = format!("{folder}/{}", entry?.file_name().to_string_lossy());
            if !files.contains_key(&path) {
                out.push(Difference { path, what: "not generated any more".to_owned() });
            }
        }
    }
    Ok(out)
}

/// Where two versions first differ, as people would look for it.
fn summary(found: &[u8], wanted: &[u8]) -> String {
    let (Ok(found), Ok(wanted)) = (std::str::from_utf8(found), std::str::from_utf8(wanted)) else {
        return format!("{} bytes, would be {}", found.len(), wanted.len());
    };
    let (mut old, mut new) = (found.lines(), wanted.lines());
    let mut line = 1;
    loop {
        match (old.next(), new.next()) {
            (Some(a), Some(b)) if a == b => line += 1,
            (None, None) => return "line ends differ".to_owned(),
            (a, b) => {
                let show = |l: Option<&str>| l.map_or_else(|| "end of file".to_owned(), |l| format!("`{}`", l.trim()));
                return format!("line {line} is {}, would be {}", show(a), show(b));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_files_are_what_would_be_generated() {
        let stale = stale(&crate::root()).unwrap();
        assert!(stale.is_empty(), "run `cargo xtask codegen`:\n{}", stale.join("\n"));
    }

    #[test]
    fn a_summary_names_the_first_line_that_differs() {
        assert_eq!(summary(b"a\nb\n", b"a\nc\n"), "line 2 is `b`, would be `c`");
        assert_eq!(summary(b"a\n", b"a\nc\n"), "line 2 is end of file, would be `c`");
        assert_eq!(summary(&[0xff], &[0xff, 0xff]), "1 bytes, would be 2");
    }
}
