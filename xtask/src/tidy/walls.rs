//! Walls: which crate may import which, and which room of the server may know which.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};

use super::files::Source;

/// What each crate may import of ours, by folder (DESIGN section 2). Dev-dependencies are free.
const CRATES: [(&str, &[&str]); 20] = [
    ("types", &[]),
    ("proto", &[]),
    ("core", &["acb-types", "acb-proto"]),
    ("testing", &["acb-sdk", "acb-server", "acb-ports", "acb-types"]),
    ("testing/workspace-hack", &["acb-log", "acb-ports"]),
    ("cli", &["acb-sdk", "acb-types"]),
    ("bindings/kit", &["acb-sdk"]),
    ("bindings/python", &["acb-kit", "acb-sdk", "acb-testing", "acb-workspace-hack"]),
    ("server/ports", &["acb-types"]),
    ("server/log", &["acb-types"]),
    ("server/engine", &["acb-types"]),
    ("server/store-embedded", &["acb-ports", "acb-log", "acb-types"]),
    ("server/bus", &["acb-ports", "acb-engine", "acb-log", "acb-store-embedded", "acb-types", "acb-proto"]),
    ("conformance/testkit", &["acb-sdk", "acb-types", "acb-proto", "acb-testing"]),
    ("conformance/faults", &["acb-testkit", "acb-testing", "acb-ports", "acb-proto", "acb-types"]),
    (
        "conformance/crash",
        &[
            "acb-sdk",
            "acb-types",
            "acb-proto",
            "acb-log",
            "acb-ports",
            "acb-store-embedded",
            "acb-testing",
            "acb-testkit",
        ],
    ),
    (
        "conformance/sim",
        &["acb-types", "acb-ports", "acb-log", "acb-engine", "acb-store-embedded", "acb-server", "acb-workspace-hack"],
    ),
    ("bench", &["acb-sdk", "acb-types", "acb-proto", "acb-testkit"]),
    ("examples", &["acb-sdk", "acb-types", "acb-testkit", "acb-workspace-hack"]),
    ("xtask", &["acb-types"]),
];

/// One line for each import of ours that a crate may not have.
pub(super) fn crates(root: &Path) -> Result<Vec<String>> {
    let workspace = fs::read_to_string(root.join("Cargo.toml")).context("Cargo.toml")?;
    let mut out = Vec::new();
    for (folder, allowed) in CRATES {
        ensure!(workspace.contains(&format!("\"{folder}\"")), "{folder} is no member any more: change CRATES with it");
        let manifest = fs::read_to_string(root.join(folder).join("Cargo.toml")).with_context(|| folder.to_owned())?;
        for import in imports(&manifest) {
            if !allowed.contains(&import) {
                out.push(format!("{folder}/Cargo.toml: must not import {import}"));
            }
        }
    }
    for member in members(&workspace) {
        if !CRATES.iter().any(|(folder, _)| *folder == member) {
            out.push(format!("{member}: a crate without a row in xtask/src/tidy/walls.rs"));
        }
    }
    Ok(out)
}

fn members(workspace: &str) -> Vec<&str> {
    let Some((_, rest)) = workspace.split_once("members = [") else { return Vec::new() };
    let list = rest.split(']').next().unwrap_or_default();
    list.split('"').skip(1).step_by(2).collect()
}

/// Crates of ours under `[dependencies]` and its tables by target.
fn imports(manifest: &str) -> Vec<&str> {
    let mut inside = false;
    let mut out = Vec::new();
    for line in manifest.lines() {
        let line = line.trim();
        if line.starts_with('[') {
            inside = line == "[dependencies]" || (line.starts_with("[target.") && line.ends_with(".dependencies]"));
        } else if inside && line.starts_with("acb-") {
            out.extend(line.split(['.', ' ', '=']).next());
        }
    }
    out
}

/// What the files of a room must not name, and why. `domain` may name the ports' rows, which are plain values, and none
/// of their traits. The first row that fits a path holds.
const ROOMS: [(&str, &[&str]); 8] = [
    (
        "server/bus/src/domain/",
        &[
            "crate::app",
            "crate::api",
            "crate::auth",
            "crate::delivery",
            "acb_ports::MetadataStore",
            "acb_ports::message_log",
            "async fn",
            "tokio::",
            "axum",
            "tonic",
        ],
    ),
    ("server/bus/src/app/", &["crate::api", "axum", "tonic", "rusqlite", "acb_store_embedded", "acb_proto"]),
    ("server/bus/src/api/", &["acb_store_embedded", "acb_log", "rusqlite"]),
    ("server/bus/src/auth/", &["crate::api", "acb_store_embedded", "axum", "tonic"]),
    ("server/bus/src/delivery/", &["crate::api", "crate::app", "axum", "tonic", "acb_store_embedded"]),
    ("server/bus/src/tasks/", &["crate::api", "axum", "tonic", "acb_store_embedded"]),
    ("server/engine/src/", &["tokio", "std::fs", "std::net", "SystemTime", "Instant::now", "async "]),
    ("types/src/", &["tokio", "std::fs", "std::net", "SystemTime::now", "Instant::now", "prost"]),
];

/// Where the name of a concrete store may stand in the server.
const BOOT: [&str; 2] = ["server/bus/src/boot.rs", "server/bus/src/boot/"];

/// One line for each name that a room must not know.
pub(super) fn rooms(sources: &[Source]) -> Vec<String> {
    let mut out = Vec::new();
    for Source { path, text } in sources {
        let banned = ROOMS.iter().find(|(room, _)| path.starts_with(room)).map_or(&[][..], |(_, banned)| banned);
        let store = path.starts_with("server/bus/src/") && !BOOT.iter().any(|b| path.starts_with(b));
        for (at, line) in code(text) {
            for name in banned {
                if names(line, name) {
                    out.push(format!("{path}:{at}: this room must not know `{}`", name.trim()));
                }
            }
            if store && !banned.contains(&"acb_store_embedded") && names(line, "acb_store_embedded") {
                out.push(format!("{path}:{at}: only boot names a concrete store"));
            }
        }
    }
    out
}

/// Lines that are code, up to the file's tests, which may know what they like.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| line.trim() != "#[cfg(test)]")
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(at, line)| (at + 1, line))
}

/// Whether a line names something: the name starts at the edge of a word.
fn names(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + name.len()..].chars().next();
        let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let whole = !name.ends_with(|c: char| c.is_alphanumeric()) || !part(after);
        !part(before) && before != Some('"') && whole
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_those_of_dependencies_only() {
        let manifest = "[package]\nname = \"acb-x\"\n[dependencies]\nacb-types.workspace = true\nserde = \"1\"\n\
                        [dev-dependencies]\nacb-testkit.workspace = true\n[target.'cfg(unix)'.dependencies]\nacb-log = { path = \"l\" }\n";
        assert_eq!(imports(manifest), ["acb-types", "acb-log"]);
    }

    #[test]
    fn members_are_read_from_the_workspace() {
        assert_eq!(members("[workspace]\nmembers = [\n \"a\", \"b/c\",\n]\nexclude = [\"d\"]"), ["a", "b/c"]);
    }

    #[test]
    fn a_room_that_knows_too_much_is_told() {
        let source = |path: &str, text: &str| vec![Source { path: path.to_owned(), text: text.to_owned() }];
        let found =
            rooms(&source("server/bus/src/app/agent.rs", "// tonic\nuse tonic::Status;\n#[cfg(test)]\nuse axum::x;\n"));
        assert_eq!(found, ["server/bus/src/app/agent.rs:2: this room must not know `tonic`"]);
        assert!(rooms(&source("server/bus/src/api/x.rs", "use tonic::Status;")).is_empty());
        assert!(rooms(&source("server/bus/src/app/x.rs", "let tonics = 1;")).is_empty());
        assert_eq!(rooms(&source("server/bus/src/lib.rs", "use acb_store_embedded::X;")).len(), 1);
        assert!(rooms(&source("server/bus/src/boot.rs", "use acb_store_embedded::X;")).is_empty());
        assert_eq!(rooms(&source("server/engine/src/x.rs", "async fn f() {}")).len(), 1);
    }
}
