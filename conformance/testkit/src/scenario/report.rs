//! The table of `docs/conformance.md`: what is shown, and which client shows it.

use std::{fmt::Write as _, path::PathBuf, sync::Arc};

use super::model::Scenario;
use crate::driver::Kind;

/// Where the table stands.
pub fn path() -> PathBuf {
    root().join("docs/conformance.md")
}

/// Where the scenarios stand.
pub fn folder() -> PathBuf {
    std::env::var_os("ACB_SCENARIOS").map_or_else(|| root().join("conformance/scenarios"), PathBuf::from)
}

fn root() -> PathBuf {
    // Two folders above this crate. Fixed when it is compiled: tests run where they were built.
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// How a scenario ended with a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// As it says.
    Passed,
    /// Otherwise.
    Failed,
    /// Not for this client.
    Left,
}

/// The table.
pub fn table(scenarios: &[Scenario], kinds: &[Arc<dyn Kind>], mark: impl Fn(&Scenario, &dyn Kind) -> Mark) -> String {
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
    let mut out = String::from(
        "<!-- Written by `cargo test -p acb-testkit --test conformance -- --write`. Do not edit. -->\n\n\
         # Conformance\n\n\
         What the bus promises, shown by scenarios (`conformance/scenarios/*.yaml`) that every client runs against the real \
         server, on a clock that the test moves. Each also runs in two tenants at once, with the same ids and names, but those \
         whose server is set up for them.\n\n\
         `raw` is gRPC by hand, `core` the Rust client; `fake` is the fake bus that users test with (`acb-testing`), reached \
         by the Rust client, or by raw gRPC where only that can run a scenario.\n",
    );
    let _ = writeln!(out, "\n{} scenarios.", scenarios.len());
    let mut areas: Vec<&str> = scenarios.iter().map(|s| s.area.as_str()).collect();
    areas.dedup();
    for area in areas {
        let _ = writeln!(out, "\n## {}\n", capitalised(area));
        let _ = writeln!(out, "| Scenario | Shows | {} |", names.join(" | "));
        let _ = writeln!(out, "|---|---|{}", "---|".repeat(kinds.len()));
        for scenario in scenarios.iter().filter(|s| s.area == area) {
            let marks = kinds.iter().map(|kind| match mark(scenario, &**kind) {
                Mark::Passed => "yes",
                Mark::Failed => "**no**",
                Mark::Left => "-",
            });
            let why = if scenario.why.is_empty() { String::new() } else { format!(" ({})", scenario.why) };
            let marks = marks.collect::<Vec<_>>().join(" | ");
            let _ = writeln!(out, "| `{}` | {}{why} | {marks} |", scenario.name, scenario.says);
        }
    }
    out
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().collect::<String>() + chars.as_str())
}

/// The table of a run in which everything passed: what must stand in the document.
pub fn fresh(scenarios: &[Scenario], kinds: &[Arc<dyn Kind>]) -> String {
    table(scenarios, kinds, |s, kind| if kind.runs(s) { Mark::Passed } else { Mark::Left })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        driver::{Core, Fake, Raw},
        scenario::model::parse,
    };

    #[test]
    fn a_table_says_who_shows_what_and_why_not_all() {
        let text = "area: acks\nscenarios:\n  - name: a\n    says: It acks.\n    steps: []\n  - name: b\n    says: It frames.\n    only: [raw]\n    why: frames are not for users\n    steps: []\n";
        let scenarios = parse(text).unwrap();
        let table = fresh(&scenarios, &[Arc::new(Raw), Arc::new(Core), Arc::new(Fake)]);
        assert!(table.contains("| `a` | It acks. | yes | yes | yes |"), "{table}");
        assert!(table.contains("| `b` | It frames. (frames are not for users) | yes | - | yes |"), "{table}");
        assert!(table.contains("## Acks") && table.contains("2 scenarios."), "{table}");
    }
}
