//! Every metric of the bus: names, labels and meanings in one table ([`CATALOGUE`](super::catalogue::CATALOGUE), from which `docs/guide/metrics.md`
//! is written), and the counters behind them.
//!
//! Whoever counts often takes its counters once (a partition its [`PartitionMetrics`]) and then adds to plain atomics.
//! Looking a label up is for calls that cost a database anyway.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use acb_types::{ErrorCode, PartitionId, TenantId};
use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder},
    metrics::{MetricType, TypedMetric, counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{catalogue as m, histogram::TimeHistogram};

/// Label set of metrics of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TenantLabels {
    tenant: String,
}

/// Label set of metrics of a log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartitionLabels {
    tenant: String,
    class: String,
    partition: u16,
}

/// Label set of calls.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabels {
    method: &'static str,
}

/// Label set of failures.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    method: &'static str,
    code: &'static str,
}

/// Label set of hot streams.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StreamLabels {
    stream: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabels {
    version: &'static str,
}

/// Counters of one log, taken once and kept beside it.
#[derive(Clone, Debug, Default)]
pub struct PartitionMetrics {
    /// Messages stored.
    pub messages_in: Counter,
    /// Messages that were there before.
    pub duplicates: Counter,
    /// Messages refused.
    pub refused: Counter,
    /// Messages handed to consumers, each time.
    pub messages_out: Counter,
    /// Of these, not for the first time.
    pub redelivered: Counter,
    /// Messages given up.
    pub dead_letters: Counter,
    /// From stored to handed to a consumer, first attempts only.
    pub delivery_latency: TimeHistogram,
    /// Time of one sync.
    pub sync_time: TimeHistogram,
    /// Messages that some subscription has yet to settle.
    pub queue_depth: Gauge,
    /// Bytes on disk.
    pub log_bytes: Gauge,
    /// Bytes read from disk; set at each scrape.
    pub log_read_bytes: Counter,
}

/// Counters of one tenant's registry.
#[derive(Clone, Debug, Default)]
pub struct TenantMetrics {
    /// Registrations.
    pub registrations: Counter,
    /// Discoveries.
    pub discoveries: Counter,
    /// Heartbeats.
    pub heartbeats: Counter,
    /// Agents that are online; set at each scrape.
    pub active_agents: Gauge,
    /// Reads of one context.
    pub context_reads: Counter,
    /// Contexts made, changed or deleted.
    pub context_writes: Counter,
    /// Writes refused because somebody was faster.
    pub context_conflicts: Counter,
    /// Contexts whose time was over.
    pub context_expiries: Counter,
    /// Watches that are open.
    pub watches: Gauge,
    /// Changes of presence.
    pub presence_changes: Counter,
    /// Events sent to watches.
    pub watch_events: Counter,
}

/// Longest single poll of a serving thread since the last scrape.
#[derive(Clone, Debug, Default)]
struct LongestPoll(Arc<AtomicU64>);

impl LongestPoll {
    fn note(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        // A load first: the maximum rarely changes, and a plain load keeps the cache line shared.
        if us > self.0.load(Relaxed) {
            self.0.fetch_max(us, Relaxed);
        }
    }
}

impl TypedMetric for LongestPoll {
    const TYPE: MetricType = MetricType::Gauge;
}

impl EncodeMetric for LongestPoll {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_gauge(&(self.0.swap(0, Relaxed) as f64 / 1e6))
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// All counters of a server.
pub struct Metrics {
    registry: Mutex<Registry>,
    /// Connections that are open.
    pub connections: Gauge,
    /// Connections taken since the start.
    pub connections_accepted: Counter,
    /// Connections turned away: too many, or a handshake that failed.
    pub connections_refused: Counter,
    /// Publish streams that are open.
    pub publish_streams: Gauge,
    /// Consume streams that are open.
    pub consume_streams: Gauge,
    /// Uploads that have a connection now.
    pub uploads_open: Gauge,
    /// Uploads that became contexts.
    pub uploads_complete: Counter,
    /// Bytes of chunks that came in.
    pub upload_bytes: Counter,
    /// Chunks that reached stable storage.
    pub upload_chunks: Counter,
    /// Chunks that were copied from other contexts.
    pub upload_chunks_found: Counter,
    /// Bytes read for downloads.
    pub download_bytes: Counter,
    /// Contents that were removed.
    pub blobs_swept: Counter,
    /// Logins that gave tokens.
    pub logins: Counter,
    /// Seconds since the start; set at each scrape.
    pub uptime: Gauge,
    registrations: Family<TenantLabels, Counter>,
    discoveries: Family<TenantLabels, Counter>,
    heartbeats: Family<TenantLabels, Counter>,
    active_agents: Family<TenantLabels, Gauge>,
    context_reads: Family<TenantLabels, Counter>,
    context_writes: Family<TenantLabels, Counter>,
    context_conflicts: Family<TenantLabels, Counter>,
    context_expiries: Family<TenantLabels, Counter>,
    watches: Family<TenantLabels, Gauge>,
    presence_changes: Family<TenantLabels, Counter>,
    watch_events: Family<TenantLabels, Counter>,
    messages_in: Family<PartitionLabels, Counter>,
    duplicates: Family<PartitionLabels, Counter>,
    refused: Family<PartitionLabels, Counter>,
    messages_out: Family<PartitionLabels, Counter>,
    redelivered: Family<PartitionLabels, Counter>,
    dead_letters: Family<PartitionLabels, Counter>,
    delivery_latency: Family<PartitionLabels, TimeHistogram>,
    sync_time: Family<PartitionLabels, TimeHistogram>,
    queue_depth: Family<PartitionLabels, Gauge>,
    log_bytes: Family<PartitionLabels, Gauge>,
    log_read_bytes: Family<PartitionLabels, Counter>,
    calls: Family<MethodLabels, Counter>,
    call_time: Family<MethodLabels, TimeHistogram>,
    failures: Family<FailureLabels, Counter>,
    longest_poll: LongestPoll,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let mut r = Registry::default();
        let streams: Family<StreamLabels, Gauge> = registered(&mut r, &m::STREAMS);
        let stream = |name| streams.get_or_create_owned(&StreamLabels { stream: name });
        let info: Family<VersionLabels, Gauge> = registered(&mut r, &m::BUILD_INFO);
        info.get_or_create(&VersionLabels { version: env!("CARGO_PKG_VERSION") }).set(1);
        Self {
            connections: registered(&mut r, &m::CONNECTIONS),
            connections_accepted: registered(&mut r, &m::CONNECTIONS_ACCEPTED),
            connections_refused: registered(&mut r, &m::CONNECTIONS_REFUSED),
            publish_streams: stream("publish"),
            consume_streams: stream("consume"),
            uploads_open: registered(&mut r, &m::UPLOADS_OPEN),
            uploads_complete: registered(&mut r, &m::UPLOADS_COMPLETE),
            upload_bytes: registered(&mut r, &m::UPLOAD_BYTES),
            upload_chunks: registered(&mut r, &m::UPLOAD_CHUNKS),
            upload_chunks_found: registered(&mut r, &m::UPLOAD_CHUNKS_FOUND),
            download_bytes: registered(&mut r, &m::DOWNLOAD_BYTES),
            blobs_swept: registered(&mut r, &m::BLOBS_SWEPT),
            logins: registered(&mut r, &m::LOGINS),
            uptime: registered(&mut r, &m::UPTIME),
            registrations: registered(&mut r, &m::REGISTRATIONS),
            discoveries: registered(&mut r, &m::DISCOVERIES),
            heartbeats: registered(&mut r, &m::HEARTBEATS),
            active_agents: registered(&mut r, &m::ACTIVE_AGENTS),
            context_reads: registered(&mut r, &m::CONTEXT_READS),
            context_writes: registered(&mut r, &m::CONTEXT_WRITES),
            context_conflicts: registered(&mut r, &m::CONTEXT_CONFLICTS),
            context_expiries: registered(&mut r, &m::CONTEXT_EXPIRIES),
            watches: registered(&mut r, &m::WATCHES),
            presence_changes: registered(&mut r, &m::PRESENCE_CHANGES),
            watch_events: registered(&mut r, &m::WATCH_EVENTS),
            messages_in: registered(&mut r, &m::MESSAGES_IN),
            duplicates: registered(&mut r, &m::DUPLICATES),
            refused: registered(&mut r, &m::REFUSED),
            messages_out: registered(&mut r, &m::MESSAGES_OUT),
            redelivered: registered(&mut r, &m::REDELIVERED),
            dead_letters: registered(&mut r, &m::DEAD_LETTERS),
            delivery_latency: registered(&mut r, &m::DELIVERY_LATENCY),
            sync_time: registered(&mut r, &m::SYNC_TIME),
            queue_depth: registered(&mut r, &m::QUEUE_DEPTH),
            log_bytes: registered(&mut r, &m::LOG_BYTES),
            log_read_bytes: registered(&mut r, &m::LOG_READ_BYTES),
            calls: registered(&mut r, &m::CALLS),
            call_time: registered(&mut r, &m::CALL_TIME),
            failures: registered(&mut r, &m::FAILURES),
            longest_poll: registered(&mut r, &m::LONGEST_POLL),
            registry: Mutex::new(r),
        }
    }

    /// Counters of a log; the same ones each time.
    pub fn partition(&self, id: &PartitionId) -> PartitionMetrics {
        let l = PartitionLabels { tenant: id.tenant.to_string(), class: id.class.to_string(), partition: id.partition };
        PartitionMetrics {
            messages_in: self.messages_in.get_or_create_owned(&l),
            duplicates: self.duplicates.get_or_create_owned(&l),
            refused: self.refused.get_or_create_owned(&l),
            messages_out: self.messages_out.get_or_create_owned(&l),
            redelivered: self.redelivered.get_or_create_owned(&l),
            dead_letters: self.dead_letters.get_or_create_owned(&l),
            delivery_latency: self.delivery_latency.get_or_create_owned(&l),
            sync_time: self.sync_time.get_or_create_owned(&l),
            queue_depth: self.queue_depth.get_or_create_owned(&l),
            log_bytes: self.log_bytes.get_or_create_owned(&l),
            log_read_bytes: self.log_read_bytes.get_or_create_owned(&l),
        }
    }

    /// Counters of a tenant's registry; the same ones each time.
    pub fn tenant(&self, tenant: &TenantId) -> TenantMetrics {
        let l = TenantLabels { tenant: tenant.to_string() };
        TenantMetrics {
            registrations: self.registrations.get_or_create_owned(&l),
            discoveries: self.discoveries.get_or_create_owned(&l),
            heartbeats: self.heartbeats.get_or_create_owned(&l),
            active_agents: self.active_agents.get_or_create_owned(&l),
            context_reads: self.context_reads.get_or_create_owned(&l),
            context_writes: self.context_writes.get_or_create_owned(&l),
            context_conflicts: self.context_conflicts.get_or_create_owned(&l),
            context_expiries: self.context_expiries.get_or_create_owned(&l),
            watches: self.watches.get_or_create_owned(&l),
            presence_changes: self.presence_changes.get_or_create_owned(&l),
            watch_events: self.watch_events.get_or_create_owned(&l),
        }
    }

    /// Notes how long one poll held a serving thread.
    pub fn poll(&self, time: Duration) {
        self.longest_poll.note(time);
    }

    /// Counts a unary call and what became of it.
    pub fn call(&self, method: &'static str, time: Duration, failure: Option<ErrorCode>) {
        let l = MethodLabels { method };
        self.calls.get_or_create(&l).inc();
        self.call_time.get_or_create(&l).observe(time);
        if let Some(code) = failure {
            self.failure(method, code);
        }
    }

    /// Counts a failure, of a call or of a stream.
    pub fn failure(&self, method: &'static str, code: ErrorCode) {
        self.failures.get_or_create(&FailureLabels { method, code: code.name() }).inc();
    }

    /// All metrics in the OpenMetrics text format.
    ///
    /// # Errors
    /// None in practice: text is written to memory.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut out = String::with_capacity(16 * 1024);
        prometheus_client::encoding::text::encode(&mut out, &self.registry.lock())?;
        Ok(out)
    }
}

/// Registers a metric under its line of the catalogue.
fn registered<M>(registry: &mut Registry, line: &m::Line) -> M
where
    M: prometheus_client::registry::Metric + Clone + Default,
{
    let metric = M::default();
    registry.register(line.registered_name(), line.meaning.trim_end_matches('.'), metric.clone());
    metric
}
