//! `acb-server config`: what holds, and who said so. What it prints is an `acb.toml`.

use std::fmt::Write as _;

use super::{KEYS, Key, load::Values};

/// What a secret is shown as.
const MASK: &str = "***";

/// All effective values, by section, each with its origin.
pub fn effective(values: &Values) -> String {
    let mut out = String::new();
    let mut section = "";
    for key in KEYS {
        if key.section() != section {
            if !section.is_empty() {
                out.push('\n');
            }
            section = key.section();
            let _ = writeln!(out, "[{section}]");
        }
        let (text, origin) = values.get(key.path).unwrap_or((key.default, &super::load::Origin::Default));
        let line = format!("{} = {}", key.name(), shown(key, text));
        let _ = writeln!(out, "{line:<44} # {origin}");
    }
    out
}

/// A value as it may be shown: as TOML, or masked.
fn shown(key: &Key, text: &str) -> String {
    let text = if key.secret && !text.is_empty() { MASK } else { text };
    let bare = text == "true" || text == "false" || !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if bare { text.to_owned() } else { toml::Value::from(text).to_string() }
}

/// The page `docs/guide/configuration.md`.
pub fn page() -> String {
    let mut out = String::from(
        "# Configuration\n\n\
         Defaults < `acb.toml` (in the working folder, or `--config`) < `ACB_…` variables < flags. `--set section.key=value` \
         sets any key.\n`acb-server config` prints what holds and who said so. Times are written `30s`, `2h`, `7days`; bytes \
         `64 MiB`.\nUnknown keys are errors. This page is written from `server/bus/src/config/mod.rs` by a test of that \
         crate.\n",
    );
    let mut section = "";
    for key in KEYS {
        if key.section() != section {
            section = key.section();
            let _ = write!(out, "\n## [{section}]\n\n| key | default | meaning |\n|---|---|---|\n");
        }
        let default = if key.default.is_empty() { "none".to_owned() } else { format!("`{}`", key.default) };
        let _ = writeln!(out, "| `{}` | {default} | {} |", key.name(), key.meaning.trim());
    }
    out
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, load::Origin};

    #[test]
    fn what_is_printed_is_a_file_that_says_the_same() {
        let mut values = Values::default();
        values.set("server.listen", "127.0.0.1:9", Origin::Flag("--listen")).unwrap();
        values
            .set("storage.data_dir", "a \"quoted\" path", Origin::Variable("ACB_STORAGE_DATA_DIR".to_owned()))
            .unwrap();
        let printed = effective(&values);
        assert!(
            printed.lines().any(|l| l.starts_with("listen = \"127.0.0.1:9\"") && l.ends_with("# --listen")),
            "{printed}"
        );
        assert!(printed.contains("# ACB_STORAGE_DATA_DIR") && printed.contains("# default"), "{printed}");
        let (mut read, mut problems) = (Values::default(), Vec::new());
        read.toml(Path::new("x"), &printed, &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        let config = Config::read(&read).unwrap();
        assert_eq!(config.server.listen.port(), 9);
        assert_eq!(config.storage.data_dir, Path::new("a \"quoted\" path"));
    }

    #[test]
    fn a_secret_is_masked() {
        let key = Key { path: "x.y", default: "", meaning: "", secret: true };
        assert_eq!(shown(&key, "hunter2"), "\"***\"");
        assert_eq!(shown(&key, ""), "\"\"");
    }
}
