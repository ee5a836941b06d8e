//! The server's metrics, as scraped three times: before each of the two times that it was killed, and at the end. Counters start anew with the server.

use std::collections::BTreeMap;

use crate::report::{columns, thousands};

/// Documented metrics, and why one may well stand still here. `docs/guide/metrics.md` tells what each means; a test
/// compares the two.
pub(crate) const DOCUMENTED: &[(&str, &str)] = &[
    ("acb_messages_in_total", ""),
    ("acb_messages_out_total", ""),
    ("acb_messages_redelivered_total", ""),
    (
        "acb_messages_duplicate_total",
        "nothing that was stored had to be sent again: all acks came through before the kill",
    ),
    ("acb_messages_refused_total", ""),
    ("acb_dead_letters_total", ""),
    ("acb_delivery_latency_seconds", ""),
    ("acb_queue_depth", "all queues were empty at all scrapes"),
    ("acb_log_bytes", ""),
    (
        "acb_log_read_bytes_total",
        "nobody lagged behind: all deliveries came from memory, and a start reads the logs before it counts",
    ),
    ("acb_log_sync_seconds", ""),
    ("acb_agent_registrations_total", ""),
    ("acb_agent_discoveries_total", ""),
    ("acb_agent_heartbeats_total", ""),
    ("acb_presence_changes_total", ""),
    ("acb_agents_active", ""),
    ("acb_context_reads_total", ""),
    ("acb_context_writes_total", ""),
    ("acb_context_conflicts_total", ""),
    ("acb_context_expiries_total", "no context here has a time to live"),
    ("acb_watches", ""),
    ("acb_watch_events_total", ""),
    ("acb_logins_total", ""),
    ("acb_requests_total", ""),
    ("acb_request_seconds", ""),
    ("acb_failures_total", ""),
    ("acb_connections", ""),
    ("acb_connections_accepted_total", ""),
    ("acb_connections_refused_total", "nobody was turned away: far fewer connections than the limit, and no TLS"),
    ("acb_streams", ""),
    ("acb_uploads_open", "nothing was being uploaded at any scrape"),
    ("acb_uploads_complete_total", ""),
    ("acb_upload_bytes_total", ""),
    ("acb_upload_chunks_total", ""),
    ("acb_upload_chunks_found_total", "no chunk was offered that the bus had already"),
    ("acb_download_bytes_total", ""),
    ("acb_blobs_swept_total", "every content that is kept is named by a context"),
    ("acb_longest_poll_seconds", ""),
    ("acb_uptime_seconds", ""),
    ("acb_build_info", ""),
];

/// One scrape: for each series name the sum over its labels.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    /// Reads the OpenMetrics text format. Lines that are none are passed over.
    pub(crate) fn parse(text: &str) -> Self {
        let mut sums = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            // A label's value may hold anything but its own quote: the value starts after the last brace.
            let (name, rest) = match (line.find('{'), line.rfind('}')) {
                (Some(open), Some(close)) if open < close => (&line[..open], &line[close + 1..]),
                _ => line.split_once(' ').unwrap_or((line, "")),
            };
            if let Some(value) = rest.split_whitespace().next().and_then(|v| v.parse::<f64>().ok()) {
                *sums.entry(name.to_owned()).or_default() += value;
            }
        }
        Self(sums)
    }

    /// A metric's value: of a histogram, how many times it was observed.
    pub(crate) fn value(&self, metric: &str) -> Option<f64> {
        self.0.get(metric).or_else(|| self.0.get(&format!("{metric}_count"))).copied()
    }
}

/// All documented metrics with their values in all scrapes; what stood still comes with its reason.
pub(crate) fn table(scrapes: &[Scrape; 3]) -> String {
    let row = |metric: &str| {
        std::iter::once(metric.to_owned()).chain(scrapes.iter().map(|scrape| show(metric, scrape))).collect()
    };
    let rows: Vec<Vec<String>> = DOCUMENTED.iter().map(|(metric, _)| row(metric)).collect();
    let mut out = columns(&["metric", "before the first kill", "before the second", "at the end"], &rows);
    for (metric, reason) in still(scrapes) {
        let reason = if reason.is_empty() { "it was expected to move" } else { reason };
        out.push_str(&format!("  {metric} did not move: {reason}\n"));
    }
    out
}

/// Documented metrics that moved in no scrape, with the reason why that may be; without one it should have.
pub(crate) fn still<'a>(scrapes: &[Scrape]) -> Vec<(&'a str, &'a str)> {
    let moved = |metric: &str| scrapes.iter().any(|scrape| scrape.value(metric).is_some_and(|v| v != 0.0));
    DOCUMENTED.iter().filter(|(metric, _)| !moved(metric)).copied().collect()
}

fn show(metric: &str, scrape: &Scrape) -> String {
    match scrape.value(metric) {
        None => "-".into(),
        Some(value) if metric.ends_with("_seconds") && value.fract() != 0.0 => format!("{value:.6}"),
        Some(value) => thousands(value.round() as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP acb_messages_in Messages stored.
# TYPE acb_messages_in counter
acb_messages_in_total{tenant=\"default\",class=\"topics\",partition=\"0\"} 40
acb_messages_in_total{tenant=\"a } b\",class=\"inbox\",partition=\"0\"} 2
acb_log_sync_seconds_sum{tenant=\"default\"} 0.5
acb_log_sync_seconds_count{tenant=\"default\"} 7
acb_connections 3
acb_longest_poll_seconds 0.000113
# EOF
";

    #[test]
    fn values_are_summed_over_labels_and_histograms_counted() {
        let scrape = Scrape::parse(TEXT);
        assert_eq!(scrape.value("acb_messages_in_total"), Some(42.0));
        assert_eq!(scrape.value("acb_log_sync_seconds"), Some(7.0));
        assert_eq!(scrape.value("acb_connections"), Some(3.0));
        assert_eq!(scrape.value("acb_dead_letters_total"), None);
    }

    #[test]
    fn what_stands_still_comes_with_its_reason() {
        let still = still(&[Scrape::parse(TEXT), Scrape::default()]);
        assert!(still.iter().any(|(m, why)| *m == "acb_connections_refused_total" && !why.is_empty()));
        assert!(still.iter().any(|(m, why)| *m == "acb_dead_letters_total" && why.is_empty()));
        assert!(!still.iter().any(|(m, _)| *m == "acb_connections"));
    }

    #[test]
    fn all_scrapes_stand_side_by_side() {
        let shown = table(&[Scrape::parse(TEXT), Scrape::default(), Scrape::parse("acb_connections 5\n")]);
        let row =
            |metric: &str| shown.lines().find(|l| l.trim_start().starts_with(metric)).unwrap_or_default().to_owned();
        assert_eq!(row("acb_connections ").split_whitespace().collect::<Vec<_>>(), ["acb_connections", "3", "-", "5"]);
        assert!(row("acb_longest_poll_seconds").contains("0.000113"));
        assert!(shown.contains("acb_dead_letters_total did not move: it was expected to move"));
    }

    #[test]
    fn the_list_is_the_documented_one() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guide/metrics.md");
        let page = std::fs::read_to_string(page).unwrap();
        let documented: Vec<&str> = page.lines().filter_map(|l| l.strip_prefix("| `")?.split('`').next()).collect();
        let listed: Vec<&str> = DOCUMENTED.iter().map(|(metric, _)| *metric).collect();
        assert_eq!(listed, documented);
    }
}
