//! Tables for people: the row list, the progress lines, the document.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};

use crate::{
    calm::Calm,
    case::{Peer, Row},
    floors::gates,
    machine::Machine,
    record::{GateResult, LoadReport, ResultRow},
};

/// The document's part between these lines is ours to replace; what stands around it is kept.
const BEGIN: &str = "<!-- results: begin (written by `make bench`) -->";
const END: &str = "<!-- results: end -->";

/// A number with a unit prefix and three significant digits: `3.88M`, `255k`, `8.08k`, `41.2`.
pub(crate) fn short(value: f64) -> String {
    let (scaled, suffix) = match value.abs() {
        size if size >= 999_500.0 => (value / 1e6, "M"),
        size if size >= 999.5 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    format!("{}{suffix}", digits(scaled))
}

/// Three significant digits without an exponent.
fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A latency given in µs, in µs or ms.
fn latency(microseconds: f64) -> String {
    if microseconds >= 1000.0 {
        format!("{} ms", digits(microseconds / 1000.0))
    } else {
        format!("{microseconds:.0} µs")
    }
}

fn latencies(p50: Option<f64>, p99: Option<f64>) -> String {
    match (p50, p99) {
        (Some(p50), Some(p99)) => format!("{} / {}", latency(p50), latency(p99)),
        _ => "-".to_owned(),
    }
}

/// Prints every row with its floor and goal.
pub(crate) fn print_rows(rows: &[Row]) {
    for row in rows {
        let bounds: Vec<String> = gates(row.case, row.mode, row.peer)
            .map(|gate| format!("{} {} / {}", gate.measure.name(), gate.floor, gate.goal))
            .collect();
        println!("{:<54} window {:>4}   {}", row.label(), row.window, bounds.join(", "));
    }
}

/// One run in one line.
pub(crate) fn run_line(report: &LoadReport, unit: &str) -> String {
    format!(
        "{:>7} {unit}, {} + {} µs CPU, {}{}",
        short(report.value),
        digits(report.server_cpu_us),
        digits(report.client_cpu_us),
        latencies(report.p50_us, report.p99_us),
        if report.foreign_cores > 0.05 { format!(", others {:.2} cores", report.foreign_cores) } else { String::new() }
    )
}

fn verdict(row: &ResultRow) -> &'static str {
    match row.pass {
        None => "-",
        Some(false) => "**below floor**",
        Some(true) if row.gates.iter().all(|gate| gate.goal_met) => "pass, goal met",
        Some(true) => "pass",
    }
}

fn bound(row: &ResultRow) -> String {
    let one = |gate: &GateResult| match gate.measure.as_str() {
        "ratio" => format!("{}x / {}x", gate.floor, gate.goal),
        "acb_at_least" => format!("≥ {} / {} {}", gate.floor, gate.goal, row.unit),
        "acb_p99_us" => format!("p99 < {}", latency(gate.floor)),
        "acb_wakes_per_1000" => format!("≤ {} wakes in 1,000", gate.floor),
        "acb_cpu_us_per_msg" => format!("server ≤ {} / {} µs", gate.floor, gate.goal),
        "p99_ratio" => "lower p99".to_owned(),
        _ => format!("≤ {} / {} {}", gate.floor, gate.goal, row.unit),
    };
    let bounds: Vec<String> = row.gates.iter().map(one).collect();
    if bounds.is_empty() { "-".to_owned() } else { bounds.join("; ") }
}

/// The results as a markdown table.
pub(crate) fn markdown(rows: &[ResultRow]) -> String {
    let mut text = String::from(
        "| case | mode | windows; acks; promise (ours \\| peer) | peer | peer: value; CPU µs server+client; p50 / p99 | \
         ACB: the same | ratio [range] | floor / goal | |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let side = |value: f64, server: f64, client: f64, p50, p99| {
            format!("**{}** {}; {}+{}; {}", short(value), row.unit, digits(server), digits(client), latencies(p50, p99))
        };
        let cpu = |value: Option<f64>| value.unwrap_or(0.0);
        let peer = row.peer_value.map_or_else(
            || "-".to_owned(),
            |value| {
                let (server, client) = (cpu(row.peer_cpu_us_per_msg), cpu(row.peer_client_cpu_us_per_msg));
                side(value, server, client, row.peer_p50_us, row.peer_p99_us)
            },
        );
        let mut ours =
            side(row.acb, row.acb_cpu_us_per_msg, row.acb_client_cpu_us_per_msg, row.acb_p50_us, row.acb_p99_us);
        if let Some(wakes) = row.acb_wakes_per_1000 {
            let _ = write!(ours, "; {} wakes in 1,000", digits(wakes));
        }
        let ratio = match (row.ratio, row.spread) {
            (Some(ratio), Some([low, high])) => format!("**{}** [{}–{}]", digits(ratio), digits(low), digits(high)),
            _ => "-".to_owned(),
        };
        // A String takes whatever is written to it.
        let _ = writeln!(
            text,
            "| `{}` | {} | {}; {}; {} | `{}` | {peer} | {ours} | {ratio} | {} | {} |",
            row.case,
            row.mode.name(),
            row.windows,
            row.acks,
            row.durability.replace('|', "\\|"),
            row.peer.name(),
            bound(row),
            verdict(row),
        );
    }
    text
}

/// What a Python operation costs above the same one of the Rust core, and the share of the core's rate that is left.
/// Empty when no row tells of it.
fn border(rows: &[ResultRow]) -> String {
    let mut text = String::new();
    for row in rows.iter().filter(|row| row.peer == Peer::RustCore) {
        let Some(core) = row.peer_value else { continue };
        let (python, core, difference) = if row.unit == "µs/op" {
            (format!("{} µs", digits(row.acb)), format!("{} µs", digits(core)), digits(row.acb - core))
        } else {
            let each = |rate: f64| 1e6 / rate;
            let share =
                format!("{} ({:.0} % of the core's rate)", digits(each(row.acb) - each(core)), row.acb / core * 100.0);
            (format!("{} {}", short(row.acb), row.unit), format!("{} {}", short(core), row.unit), share)
        };
        let _ = writeln!(text, "| `{}` | {} | {python} | {core} | {difference} |", row.case, row.windows);
    }
    if text.is_empty() {
        return text;
    }
    format!(
        "\nThe border: Python over the Rust core, medians of the same runs.\n\n\
         | case | in flight | Python | Rust core | border, µs per operation |\n|---|---|---|---|---|\n{text}"
    )
}

/// Machine, versions and table, as they stand in the document.
pub(crate) fn results_part(machine: &Machine, rows: &[ResultRow]) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "Run of {} at commit `{}`: {}, {} GiB, {} stores, Linux {}, TCP congestion control `{}`, loopback. {}\n",
        machine.started,
        machine.commit,
        machine.short(),
        machine.memory_gib,
        machine.file_system,
        machine.kernel,
        machine.congestion_control,
        machine.settings,
    );
    if let Some(calm) = Calm::sentence(&machine.calm) {
        let _ = writeln!(text, "{calm}\n");
    }
    let _ = writeln!(text, "| program | version |\n|---|---|");
    for (name, version) in &machine.versions {
        let _ = writeln!(text, "| {name} | {version} |");
    }
    let judged = rows.iter().filter(|row| row.pass.is_some()).count();
    let passed = rows.iter().filter(|row| row.pass == Some(true)).count();
    let disturbed: usize = rows.iter().map(|row| row.disturbed_runs).sum();
    let _ = writeln!(
        text,
        "\n{passed} of {judged} rows with floors pass. {disturbed} kept runs had other processes beside them \
         (over 0.25 core, after three attempts).\n"
    );
    text + &markdown(rows) + &border(rows)
}

/// Puts the results into the document, keeping what stands around them; a missing document is begun.
pub(crate) fn write_document(path: &Path, part: &str) -> Result<()> {
    let old = fs::read_to_string(path).unwrap_or_else(|_| format!("# Benchmarks\n\n{BEGIN}\n{END}\n"));
    let new = replaced(&old, part).with_context(|| format!("{} has no lines {BEGIN} .. {END}", path.display()))?;
    fs::write(path, new).with_context(|| format!("cannot write {}", path.display()))
}

fn replaced(document: &str, part: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{}\n{END}{after}", part.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{floors::judge, record::tests::sample};

    #[test]
    fn numbers_keep_three_digits() {
        let cases = [
            (3_884_000.0, "3.88M"),
            (999_600.0, "1.00M"),
            (255_400.0, "255k"),
            (8_080.0, "8.08k"),
            (999.4, "999"),
            (41.23, "41.2"),
            (0.219, "0.22"),
        ];
        for (value, text) in cases {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn latencies_change_their_unit() {
        assert_eq!(latencies(Some(114.4), Some(4500.0)), "114 µs / 4.50 ms");
        assert_eq!(latencies(None, Some(1.0)), "-");
    }

    #[test]
    fn every_line_has_the_columns_of_the_header() {
        let mut row = sample();
        judge(&mut row);
        let text = markdown(&[row.clone(), row]);
        let columns = |line: &str| line.replace("\\|", "").matches('|').count();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines.iter().all(|line| columns(line) == columns(lines[1])), "{text}");
        assert!(
            lines[2].contains("**17.0** [15.0–17.5] | 5x / 15x; server ≤ 0.8 / 0.3 µs | pass, goal met |"),
            "{text}"
        );
    }

    #[test]
    fn ours_alone_has_no_ratio_and_all_columns() {
        let mut row = sample();
        (row.peer, row.peer_value, row.ratio, row.spread) = (Peer::Alone, None, None, None);
        judge(&mut row);
        let text = markdown(&[row]);
        assert!(text.contains("| `alone` | - | **3.30M** msg/s;"), "{text}");
        assert!(text.ends_with("| - | - | - |\n"), "{text}");
    }

    #[test]
    fn the_border_is_what_python_costs_above_the_core() {
        let mut row = sample();
        (row.peer, row.unit, row.case) = (Peer::RustCore, "µs/op".into(), "python-border-10".into());
        (row.acb, row.peer_value) = (14.0, Some(11.5));
        let mut rate = row.clone();
        (rate.unit, rate.case) = ("msg/s".into(), "python-publish-256".into());
        (rate.acb, rate.peer_value) = (250_000.0, Some(1_000_000.0));
        let text = border(&[row, rate]);
        assert!(text.contains("| 14.0 µs | 11.5 µs | 2.50 |"), "{text}");
        assert!(text.contains("| 250k msg/s | 1.00M msg/s | 3.00 (25 % of the core's rate) |"), "{text}");
        assert_eq!(border(&[sample()]), "");
    }

    #[test]
    fn a_failed_floor_is_said() {
        let mut row = sample();
        row.ratio = Some(4.9);
        judge(&mut row);
        assert!(markdown(&[row]).contains("**below floor**"));
    }

    #[test]
    fn prose_around_the_results_is_kept() {
        let document = format!("# B\nbefore\n{BEGIN}\nold\n{END}\nafter\n");
        let new = replaced(&document, "new\n").unwrap();
        assert_eq!(new, format!("# B\nbefore\n{BEGIN}\nnew\n{END}\nafter\n"));
        assert_eq!(replaced(&new, "new").unwrap(), new);
        assert!(replaced("no marks", "new").is_none());
    }
}
