//! The names, kinds, labels and meanings of all metrics: what `docs/guide/metrics.md` is written from.

use std::fmt::Write as _;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, from 0 at the start.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Times by bucket, in seconds.
    Histogram,
}

/// A metric as people read it.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Its name as it is scraped.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it says, as a sentence.
    pub meaning: &'static str,
}

impl Line {
    /// The name to register under: the encoder adds `_total` to counters by itself.
    pub(super) fn registered_name(&self) -> &'static str {
        match self.kind {
            Kind::Counter => self.name.strip_suffix("_total").unwrap_or(self.name),
            Kind::Gauge | Kind::Histogram => self.name,
        }
    }
}

const PARTITION: &[&str] = &["tenant", "class", "partition"];
const TENANT: &[&str] = &["tenant"];

macro_rules! catalogue {
    ($($id:ident = $kind:ident $name:literal $labels:expr, $meaning:literal;)*) => {
        $(pub(super) const $id: Line = Line { name: $name, kind: Kind::$kind, labels: $labels, meaning: $meaning };)*

        /// All metrics, in the order in which people read them.
        pub const CATALOGUE: &[Line] = &[$($id),*];
    };
}

catalogue! {
    MESSAGES_IN = Counter "acb_messages_in_total" PARTITION, "Messages stored.";
    MESSAGES_OUT = Counter "acb_messages_out_total" PARTITION, "Messages handed to consumers, every attempt counted.";
    REDELIVERED = Counter "acb_messages_redelivered_total" PARTITION, "Messages handed to consumers again, after a nack, a lost lease or a lost connection.";
    DUPLICATES = Counter "acb_messages_duplicate_total" PARTITION, "Messages that were stored before and were answered with their first position.";
    REFUSED = Counter "acb_messages_refused_total" PARTITION, "Messages refused: nobody there, storage full, a conflict of keys.";
    DEAD_LETTERS = Counter "acb_dead_letters_total" PARTITION, "Messages of this log that a subscription gave up.";
    DELIVERY_LATENCY = Histogram "acb_delivery_latency_seconds" PARTITION, "Time from storing a message to handing it to a consumer, first attempts only.";
    QUEUE_DEPTH = Gauge "acb_queue_depth" PARTITION, "Messages that are leased or wait for another try, summed over subscriptions; set at each scrape.";
    LOG_BYTES = Gauge "acb_log_bytes" PARTITION, "Bytes of the log on disk; set at each scrape.";
    LOG_READ_BYTES = Counter "acb_log_read_bytes_total" PARTITION, "Bytes read from the log's files, indexes included, for consumers that are behind; set at each scrape.";
    SYNC_TIME = Histogram "acb_log_sync_seconds" PARTITION, "Time of one sync of the log to stable storage.";
    REGISTRATIONS = Counter "acb_agent_registrations_total" TENANT, "Registrations of agents.";
    DISCOVERIES = Counter "acb_agent_discoveries_total" TENANT, "Pages of discovery.";
    HEARTBEATS = Counter "acb_agent_heartbeats_total" TENANT, "Heartbeats; agents with an open stream need none.";
    PRESENCE_CHANGES = Counter "acb_presence_changes_total" TENANT, "Times that an agent's presence or activity became another.";
    ACTIVE_AGENTS = Gauge "acb_agents_active" TENANT, "Agents that are online now.";
    CONTEXT_READS = Counter "acb_context_reads_total" TENANT, "Reads of one context.";
    CONTEXT_WRITES = Counter "acb_context_writes_total" TENANT, "Contexts made, changed or deleted.";
    CONTEXT_CONFLICTS = Counter "acb_context_conflicts_total" TENANT, "Writes of contexts refused because somebody was faster.";
    CONTEXT_EXPIRIES = Counter "acb_context_expiries_total" TENANT, "Contexts whose time was over.";
    WATCHES = Gauge "acb_watches" TENANT, "Watches of contexts and agents that are open.";
    WATCH_EVENTS = Counter "acb_watch_events_total" TENANT, "Events sent to watches of contexts and agents.";
    LOGINS = Counter "acb_logins_total" &[], "Logins that gave tokens.";
    CALLS = Counter "acb_requests_total" &["method"], "Unary calls answered.";
    CALL_TIME = Histogram "acb_request_seconds" &["method"], "Time of unary calls inside the server.";
    FAILURES = Counter "acb_failures_total" &["method", "code"], "Calls and streams that failed, by error code.";
    CONNECTIONS = Gauge "acb_connections" &[], "Connections that are open.";
    CONNECTIONS_ACCEPTED = Counter "acb_connections_accepted_total" &[], "Connections taken since the start.";
    CONNECTIONS_REFUSED = Counter "acb_connections_refused_total" &[], "Connections turned away: over the limit, or a handshake that failed or took too long.";
    STREAMS = Gauge "acb_streams" &["stream"], "Hot streams that are open, `publish` and `consume`.";
    UPLOADS_OPEN = Gauge "acb_uploads_open" &[], "Uploads that have a connection now.";
    UPLOADS_COMPLETE = Counter "acb_uploads_complete_total" &[], "Uploads that became contexts.";
    UPLOAD_BYTES = Counter "acb_upload_bytes_total" &[], "Bytes of chunks that came in, refused and repeated ones too.";
    UPLOAD_CHUNKS = Counter "acb_upload_chunks_total" &[], "Chunks that reached stable storage.";
    UPLOAD_CHUNKS_FOUND = Counter "acb_upload_chunks_found_total" &[], "Chunks that were offered and copied from contexts that the caller may read, and so were not sent.";
    DOWNLOAD_BYTES = Counter "acb_download_bytes_total" &[], "Bytes of contexts that were read for downloads.";
    BLOBS_SWEPT = Counter "acb_blobs_swept_total" &[], "Contents that no row named any more and that were removed.";
    LONGEST_POLL = Gauge "acb_longest_poll_seconds" &[], "Longest time that one task held a serving thread since the last scrape; above 0.0002 something does not belong there.";
    UPTIME = Gauge "acb_uptime_seconds" &[], "Time since the server became ready.";
    BUILD_INFO = Gauge "acb_build_info" &["version"], "Always 1; the version stands in the label.";
}

/// The page `docs/guide/metrics.md`.
pub fn page() -> String {
    let mut out = String::from(
        "# Metrics\n\n\
         `GET /metrics` on the admin listener (127.0.0.1:7401) gives these in the OpenMetrics text format. Times are in \
         seconds.\nThis page is written from `server/bus/src/telemetry/catalogue.rs` by a test of that crate.\n\n\
         | metric | kind | labels | meaning |\n|---|---|---|---|\n",
    );
    for line in CATALOGUE {
        let kind = match line.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let labels = line.labels.iter().map(|l| format!("`{l}`")).collect::<Vec<_>>().join(", ");
        let _ = writeln!(out, "| `{}` | {kind} | {labels} | {} |", line.name, line.meaning);
    }
    out
}
