//! Checks of single files: leftover markers and sizes.

use std::{ffi::OsStr, fs, path::Path};

use anyhow::{Context, Result};

/// A file that people wrote, by its path from the workspace's root.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: String,
    pub(super) text: String,
}

/// Folders that hold nothing that people wrote here.
const SKIPPED: [&str; 6] = ["target", "node_modules", "generated", ".git", ".venv", ".peers"];
/// What people write here.
const KINDS: [&str; 8] = ["rs", "proto", "py", "ts", "go", "sh", "sql", "toml"];
/// Past this many lines a file is asked which two nouns share its room.
const LINES_MAX: usize = 700;
/// Files that were asked and gave a reason.
const LONG: [(&str, &str); 2] = [
    ("types/src/error_code/table.rs", "generated"),
    ("server/log/tests/it/model.rs", "a model and the driver that compares with it"),
];

/// Every file that people wrote.
pub(super) fn all(root: &Path) -> Result<Vec<Source>> {
    let mut out = Vec::new();
    collect(root, root, &mut out)?;
    out.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(out)
}

fn collect(root: &Path, folder: &Path, out: &mut Vec<Source>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if !SKIPPED.contains(&name.as_str()) && !name.starts_with("target-") {
                collect(root, &path, out)?;
            }
        } else if kind.is_file() && path.extension().and_then(OsStr::to_str).is_some_and(|e| KINDS.contains(&e)) {
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let path = path.strip_prefix(root)?.to_string_lossy().replace('\\', "/");
            out.push(Source { path, text });
        }
    }
    Ok(())
}

/// Words that say that something is not done. Put together here, so that this file does not find itself.
fn markers() -> [String; 5] {
    [("FIX", "ME"), ("XX", "X"), ("HA", "CK"), ("todo", "!("), ("unimplemented", "!(")].map(|(a, b)| format!("{a}{b}"))
}

/// One line for each leftover marker.
pub(super) fn leftovers(sources: &[Source]) -> Vec<String> {
    let markers = markers();
    let mut out = Vec::new();
    for Source { path, text } in sources {
        for (at, line) in text.lines().enumerate() {
            if let Some(marker) = markers.iter().find(|m| holds_word(line, m)) {
                out.push(format!("{path}:{}: leftover `{marker}`", at + 1));
            }
        }
    }
    out
}

/// Whether a line holds a word that is not part of a longer one.
fn holds_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let open = word.ends_with('(');
        !part(line[..at].chars().next_back()) && (open || !part(line[at + word.len()..].chars().next()))
    })
}

/// One line for each file past its size.
pub(super) fn sizes(sources: &[Source]) -> Vec<String> {
    sources
        .iter()
        .filter(|s| !LONG.iter().any(|(path, _)| *path == s.path))
        .filter_map(|s| {
            let lines = s.text.lines().count();
            (lines > LINES_MAX)
                .then(|| format!("{}: {lines} lines, more than {LINES_MAX}: which two nouns share it?", s.path))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: String) -> Vec<Source> {
        vec![Source { path: "a.rs".to_owned(), text }]
    }

    #[test]
    fn leftovers_are_found_as_words_only() {
        for marker in markers() {
            let found = leftovers(&source(format!("fine\n// {marker} later")));
            assert_eq!(found, [format!("a.rs:2: leftover `{marker}`")]);
            assert!(leftovers(&source(format!("a{marker}"))).is_empty(), "{marker}");
        }
        assert!(leftovers(&source(format!("{}Y", markers()[1]))).is_empty());
    }

    #[test]
    fn long_files_are_asked() {
        assert!(sizes(&source("x\n".repeat(700))).is_empty());
        assert_eq!(sizes(&source("x\n".repeat(701))).len(), 1);
    }
}
