//! What comes out: two tables side by side, file by file, and what is shown of them. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::{
    folder::Work,
    survey::{self, Finding},
};

/// Differences that are printed; the rest is counted.
const DIFFERENCES_SHOWN: usize = 20;
/// Characters of a name that are shown in the story.
const NAME_SHOWN: usize = 50;
/// Languages that have a row of their own.
const LANGUAGES_SHOWN: usize = 10;

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// It was surveyed.
    Found(Finding),
    /// It cannot be, and this is why: in the planner's table the last words on its dead letter.
    Unreadable(String),
}

/// Outcomes by the file's name.
pub(crate) type Table = BTreeMap<String, Outcome>;

/// Surveys all files here, one after the other, in this process: what the team is measured by.
pub(crate) fn local(works: &[Work]) -> std::io::Result<Table> {
    let outcome = |work: &Work| -> std::io::Result<Outcome> {
        let content = std::fs::read(&work.path)?;
        Ok(match survey::survey(&work.name, &content) {
            Ok(finding) => Outcome::Found(finding),
            Err(why) => Outcome::Unreadable(why.to_string()),
        })
    };
    works.iter().map(|work| Ok((work.name.clone(), outcome(work)?))).collect()
}

/// A file on which two tables do not agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// The file.
    pub(crate) name: String,
    /// What the team's table says.
    pub(crate) team: Option<Outcome>,
    /// What the local table says.
    pub(crate) local: Option<Outcome>,
}

/// Compares two tables, file by file.
pub(crate) fn differences(team: &Table, local: &Table) -> Vec<Difference> {
    let names: BTreeSet<&String> = team.keys().chain(local.keys()).collect();
    names
        .into_iter()
        .filter(|name| team.get(*name) != local.get(*name))
        .map(|name| Difference { name: name.clone(), team: team.get(name).cloned(), local: local.get(name).cloned() })
        .collect()
}

/// Differences as people read them.
pub(crate) fn show_differences(differences: &[Difference]) -> String {
    let say = |outcome: &Option<Outcome>| match outcome {
        None => "not in the table".to_owned(),
        Some(Outcome::Unreadable(why)) => format!("unreadable: {why}"),
        Some(Outcome::Found(f)) => {
            format!("{}, {} lines, longest {}, {}", f.language, f.lines, f.longest_line, f.sha256)
        }
    };
    let mut out = String::new();
    for difference in differences.iter().take(DIFFERENCES_SHOWN) {
        let (team, local) = (say(&difference.team), say(&difference.local));
        let _ = writeln!(out, "  {}\n    team:  {team}\n    local: {local}", difference.name);
    }
    if differences.len() > DIFFERENCES_SHOWN {
        let _ = writeln!(out, "  and {} more", differences.len() - DIFFERENCES_SHOWN);
    }
    out
}

/// Files, lines and longest line by language.
pub(crate) fn sums(table: &Table) -> BTreeMap<&str, [u64; 3]> {
    let mut sums: BTreeMap<&str, [u64; 3]> = BTreeMap::new();
    for outcome in table.values() {
        if let Outcome::Found(f) = outcome {
            let sum = sums.entry(&f.language).or_default();
            *sum = [sum[0] + 1, sum[1] + f.lines, sum[2].max(f.longest_line)];
        }
    }
    sums
}

/// Languages of a table with their files, lines and longest line.
pub(crate) fn languages(table: &Table) -> String {
    let unreadable = table.values().filter(|outcome| matches!(outcome, Outcome::Unreadable(_))).count() as u64;
    let mut sums: Vec<_> = sums(table).into_iter().collect();
    sums.sort_by_key(|(language, sum)| (std::cmp::Reverse(sum[0]), *language));
    let rest = sums.split_off(sums.len().min(LANGUAGES_SHOWN));
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |name: String, sum: [u64; 3]| {
        rows.push(std::iter::once(name).chain(sum.map(thousands)).collect());
    };
    for (language, sum) in sums {
        row(language.to_owned(), sum);
    }
    if !rest.is_empty() {
        let sum = rest.iter().fold([0; 3], |a, (_, b)| [a[0] + b[0], a[1] + b[1], a[2].max(b[2])]);
        row(format!("{} others", rest.len()), sum);
    }
    if unreadable > 0 {
        rows.push(vec!["(unreadable)".into(), thousands(unreadable), String::new(), String::new()]);
    }
    columns(&["language", "files", "lines", "longest line"], &rows)
}

/// Rows under a heading, the first column to the left and the others to the right, indented by two.
pub(crate) fn columns(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
        cells.chain([head[at].chars().count()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let head: Vec<String> = head.iter().map(|&cell| cell.to_owned()).collect();
    let mut out = String::new();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = if at == 0 { write!(line, "  {cell:<width$}") } else { write!(line, "  {cell:>width$}") };
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

/// The end of a long name.
pub(crate) fn short(name: &str) -> String {
    let length = name.chars().count();
    if length <= NAME_SHOWN {
        return name.to_owned();
    }
    let end: String = name.chars().skip(length - NAME_SHOWN + 1).collect();
    format!("…{end}")
}

/// A number with a comma at each thousand.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bytes as people read them.
pub(crate) fn bytes(number: u64) -> String {
    match number {
        0..1_000 => format!("{number} B"),
        1_000..1_000_000 => format!("{:.1} kB", number as f64 / 1e3),
        _ => format!("{:.1} MB", number as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(language: &str, lines: u64) -> Outcome {
        let sha256 = format!("{lines:064}");
        Outcome::Found(Finding { language: language.into(), lines, longest_line: lines, sha256 })
    }

    fn table(rows: &[(&str, Outcome)]) -> Table {
        rows.iter().map(|(name, outcome)| ((*name).to_owned(), outcome.clone())).collect()
    }

    #[test]
    fn equal_tables_have_no_difference() {
        let one = table(&[("a", found("Rust", 1)), ("b", Outcome::Unreadable("x".into()))]);
        assert_eq!(differences(&one, &one.clone()), []);
    }

    #[test]
    fn what_is_missing_or_other_on_either_side_is_a_difference() {
        let team = table(&[("a", found("Rust", 1)), ("b", found("Rust", 2)), ("c", Outcome::Unreadable("x".into()))]);
        let local = table(&[("b", found("Rust", 3)), ("c", Outcome::Unreadable("y".into())), ("d", found("C", 1))]);
        let names: Vec<String> = differences(&team, &local).into_iter().map(|d| d.name).collect();
        assert_eq!(names, ["a", "b", "c", "d"]);
    }

    #[test]
    fn differences_are_shown_with_both_sides_and_bounded() {
        let team: Table = (0..30).map(|n| (format!("{n:02}"), found("Rust", n))).collect();
        let shown = show_differences(&differences(&team, &Table::new()));
        assert!(shown.starts_with("  00\n    team:  Rust, 0 lines"), "{shown}");
        assert!(shown.contains("local: not in the table"), "{shown}");
        assert!(shown.ends_with("  and 10 more\n"), "{shown}");
    }

    #[test]
    fn languages_come_with_the_most_files_first_and_the_rest_together() {
        let mut rows: Vec<(String, Outcome)> =
            (0..12).map(|n| (format!("x{n}"), found(&format!("L{n:02}"), n))).collect();
        rows.push(("y".into(), found("L05", 9)));
        rows.push(("z".into(), Outcome::Unreadable("x".into())));
        let shown = languages(&rows.into_iter().collect());
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["L05", "2", "14", "9"]);
        assert_eq!(lines[11].split_whitespace().collect::<Vec<_>>(), ["2", "others", "2", "21", "11"]);
        assert_eq!(lines[12].split_whitespace().collect::<Vec<_>>(), ["(unreadable)", "1"]);
    }

    #[test]
    fn columns_line_up() {
        let shown = columns(&["name", "n"], &[vec!["ä".into(), "1,000".into()], vec!["longer".into(), "1".into()]]);
        assert_eq!(shown, "  name        n\n  ä       1,000\n  longer      1\n");
    }

    #[test]
    fn of_a_long_name_the_end_is_shown() {
        assert_eq!(short("a/b.rs"), "a/b.rs");
        let shown = short(&format!("{}/ä.rs", "x".repeat(100)));
        assert!(shown.starts_with("…x") && shown.ends_with("/ä.rs") && shown.chars().count() == NAME_SHOWN, "{shown}");
    }

    #[test]
    fn numbers_read_easily() {
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([999, 1500, 61_200_000].map(bytes), ["999 B", "1.5 kB", "61.2 MB"]);
    }
}
