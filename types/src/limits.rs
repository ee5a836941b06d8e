//! Every limit of the bus, in one place.
//!
//! Plain constants are what code uses; [`TABLE`] is what people read: `docs/limits.md` is written from it. A limit
//! whose minimum and maximum are equal is part of the contract and cannot be set.

use std::time::Duration;

/// Largest payload of a message.
pub const PAYLOAD_BYTES_MAX: usize = 1_048_576;
/// Largest attribute block of a message.
pub const ATTRIBUTES_BYTES_MAX: usize = 16_384;
/// Most attributes of a message.
pub const ATTRIBUTES_MAX: usize = 64;
/// Longest short text: keys, correlation ids, media types, labels, attribute names.
pub const SHORT_TEXT_BYTES_MAX: usize = 128;
/// Most contexts that a message may speak of.
pub const CONTEXT_REFS_MAX: usize = 16;
/// Room for all of a message's fields but payload and attributes.
pub const SMALL_FIELDS_BYTES_MAX: usize = 8 * 1024;
/// Largest message, all fields together.
pub const MESSAGE_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + ATTRIBUTES_BYTES_MAX + SMALL_FIELDS_BYTES_MAX;
/// Most messages of a frame.
pub const FRAME_MESSAGES_MAX: u32 = 512;
/// Bytes that a frame of more than one message may have; a frame of one message may have [`MESSAGE_BYTES_MAX`] and its
/// own small fields.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;
/// Most settlements (ranges of all lists together) in one frame of a consumer.
pub const SETTLEMENTS_PER_FRAME_MAX: usize = 4096;
/// Longest text of what went wrong with a nack or a term.
pub const REASON_BYTES_MAX: usize = 1024;
/// Longest description of an agent or a context.
pub const DESCRIPTION_BYTES_MAX: usize = 1024;
/// Longest endpoint of an agent.
pub const ENDPOINT_BYTES_MAX: usize = 512;
/// Most capabilities of an agent.
pub const CAPABILITIES_MAX: usize = 64;
/// Largest input or output schema of a capability.
pub const SCHEMA_BYTES_MAX: usize = 16_384;
/// Most groups of an agent.
pub const GROUPS_MAX: usize = 64;
/// Most metadata entries of an agent or a context.
pub const METADATA_MAX: usize = 64;
/// Largest metadata, names and values together.
pub const METADATA_BYTES_MAX: usize = 16_384;
/// Length of a producer id or of a consumer's session id.
pub const SESSION_ID_BYTES: usize = 16;

/// Items of a page when the caller does not say.
pub const PAGE_SIZE: u32 = 50;
/// Most items of a page.
pub const PAGE_SIZE_MAX: u32 = 500;
/// Longest page token.
pub const PAGE_TOKEN_BYTES_MAX: usize = 1024;

/// Ranges that are remembered of one producer session.
pub const PRODUCER_RANGES_MAX: usize = 512;
/// Producer sessions that are remembered in a tenant.
pub const PRODUCERS_MAX: usize = 100_000;
/// How long a quiet producer session is remembered.
pub const PRODUCER_TTL: Duration = Duration::from_hours(7 * 24);
/// How long an idempotency key is remembered.
pub const IDEMPOTENCY_WINDOW: Duration = Duration::from_mins(10);
/// Longest window that a tenant can ask for.
pub const IDEMPOTENCY_WINDOW_MAX: Duration = Duration::from_hours(24);
/// Idempotency keys that are remembered in a tenant at once.
pub const IDEMPOTENCY_KEYS_MAX: usize = 4_000_000;

/// How long a consumer has for one message.
pub const LEASE: Duration = Duration::from_secs(30);
/// Shortest lease.
pub const LEASE_MIN: Duration = Duration::from_secs(1);
/// Longest lease.
pub const LEASE_MAX: Duration = Duration::from_hours(12);
/// Attempts before a message is dead.
pub const MAX_ATTEMPTS: u32 = 5;
/// Most attempts that can be asked for.
pub const MAX_ATTEMPTS_MAX: u32 = 1000;
/// Waits before each redelivery; the last repeats.
pub const RETRY_SCHEDULE: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_mins(2),
    Duration::from_mins(10),
];
/// Most entries of a retry schedule.
pub const RETRY_SCHEDULE_MAX: usize = 16;
/// Longest wait that a nack or a retry schedule can ask for.
pub const NACK_DELAY_MAX: Duration = Duration::from_hours(7 * 24);
/// Messages of a subscription that may be leased at once; also the cap of its holes.
pub const MAX_LEASED: u32 = 65_536;
/// Lost connections that do not count as a failed attempt of a message; one more does.
pub const CONNECTION_LOSSES_UNCOUNTED: u32 = 3;
/// Messages that an SDK's consumer takes at once.
pub const CREDIT_MESSAGES: u32 = 64;
/// Most messages that a consumer can ask for at once.
pub const CREDIT_MESSAGES_MAX: u32 = 65_536;
/// Bytes that an SDK's consumer takes at once.
pub const CREDIT_BYTES: u64 = 8 * 1024 * 1024;
/// Most bytes that a consumer can ask for at once. Also what the server keeps for one that asks and does not read.
pub const CREDIT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Most filters of a subscription.
pub const FILTERS_MAX: usize = 32;
/// Most subscriptions of a tenant, implicit ones not counted.
pub const SUBSCRIPTIONS_MAX: usize = 10_000;
/// How long a lost connection's leases and ephemeral subscriptions wait for the same session to come back.
pub const SESSION_GRACE: Duration = Duration::from_secs(10);
/// How long an agent counts as there after its last stream ended or its last heartbeat came.
pub const PRESENCE_GRACE: Duration = Duration::from_secs(30);
/// How long an agent without a stream counts as active after its last heartbeat.
pub const PRESENCE_ACTIVE: Duration = Duration::from_secs(15);
/// How long an agent is offline before it is expired.
pub const PRESENCE_EXPIRY: Duration = Duration::from_hours(24);
/// How long an agent's word about its activity holds when it does not say.
pub const ACTIVITY_TTL: Duration = Duration::from_mins(1);
/// Shortest that it may say.
pub const ACTIVITY_TTL_MIN: Duration = Duration::from_secs(1);
/// Longest that it may say.
pub const ACTIVITY_TTL_MAX: Duration = Duration::from_hours(1);
/// Changes of presence that wait for a watch; one that is slower is sent everybody's presence anew.
pub const PRESENCE_CHANGES_WAITING: usize = 4096;
/// After this a heartbeat is due.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);
/// Longest time until a plain ack is on disk.
pub const PLAIN_ACK_FLUSH: Duration = Duration::from_millis(20);
/// Longest time until a message that is `written` is on disk.
pub const WRITTEN_FLUSH: Duration = Duration::from_millis(20);
/// Longest time that acknowledgements of patient publishes wait for company.
pub const PUBLISH_ACK_LINGER: Duration = Duration::from_millis(20);
/// How long a message waits in an inbox.
pub const INBOX_TTL: Duration = Duration::from_hours(7 * 24);
/// How long a dead letter is kept.
pub const DEAD_LETTER_TTL: Duration = Duration::from_hours(30 * 24);
/// How long a request waits for its reply when the caller does not say.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Life of an access token.
pub const ACCESS_TOKEN_TTL: Duration = Duration::from_hours(1);
/// Life of a refresh token.
pub const REFRESH_TOKEN_TTL: Duration = Duration::from_hours(7 * 24);
/// How long before a token's end a hot stream is told.
pub const AUTH_EXPIRING_BEFORE: Duration = Duration::from_mins(1);
/// How long after a token's end a hot stream lives on.
pub const AUTH_EXPIRED_GRACE: Duration = Duration::from_secs(30);
/// Unary calls of an agent in a minute.
pub const CALLS_PER_MINUTE: u32 = 1000;

/// Largest payload of a context that is not streamed.
pub const CONTEXT_INLINE_BYTES_MAX: usize = 1_048_576;
/// Largest content that clients send in one call; what is larger they stream by themselves.
pub const CONTEXT_ONE_CALL_BYTES: usize = 262_144;
/// First bytes of a content's file that the system may keep in its page cache. What comes behind them would push out what
/// is read more often, and taking fresh memory for it costs more than writing it does (ADR 0008).
pub const CONTENT_CACHED_BYTES: u64 = 32 * 1024 * 1024;
/// Largest payload that stands in a context's row; above it the row names a blob.
pub const CONTEXT_INLINE_ROW_BYTES: usize = 16 * 1024;
/// Revisions of a context that are kept.
pub const CONTEXT_HISTORY: u32 = 64;
/// Most contexts of a tenant.
pub const CONTEXTS_MAX: u64 = 1_000_000;
/// Longest life that a context can be given; none at all is for ever.
pub const CONTEXT_TTL_MAX: Duration = Duration::from_hours(100 * 365 * 24);
/// How long the marker of a deleted or expired context is kept, and its history with it.
pub const CONTEXT_MARKER_TTL: Duration = Duration::from_hours(24);
/// Most groups that one context is for, and most agents that one context is shared with.
pub const CONTEXT_AUDIENCE_MAX: usize = 64;
/// Newest changes of a tenant that are kept for those who resume a watch.
pub const CHANGES_KEPT: u64 = 100_000;
/// Open watches of one agent.
pub const WATCHES_PER_AGENT_MAX: usize = 64;
/// Changes that a watch may be behind before it is ended with `slow_down`.
pub const WATCH_BEHIND_MAX: u64 = 50_000;
/// Longest time between two frames of a watch.
pub const WATCH_HEARTBEAT: Duration = Duration::from_secs(10);
/// Most groups of a tenant.
pub const TENANT_GROUPS_MAX: u64 = 1000;
/// Most agents of a group.
pub const GROUP_MEMBERS_MAX: u32 = 10_000;
/// Most agents that one call puts into a group or takes out of it.
pub const GROUP_MEMBERS_PER_CALL_MAX: usize = 500;
/// Most groups that one agent is in.
pub const MEMBERSHIPS_MAX: usize = 256;
/// Longest key of a context.
pub const CONTEXT_KEY_BYTES_MAX: usize = 512;
/// Most labels of a context.
pub const LABELS_MAX: usize = 32;
/// Size of a chunk when the caller does not say.
pub const CHUNK_BYTES: usize = 1024 * 1024;
/// Smallest chunk, the last one excepted.
pub const CHUNK_BYTES_MIN: usize = 256 * 1024;
/// Largest chunk.
pub const CHUNK_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes that an upload may have on the way.
pub const UPLOAD_WINDOW_BYTES: u64 = 16 * 1024 * 1024;
/// Largest streamed context.
pub const STREAM_BYTES_MAX: u64 = 1 << 40;
/// How long an upload that nobody continues is kept.
pub const STREAM_TTL: Duration = Duration::from_hours(24);
/// Unfinished uploads of a tenant.
pub const STREAMS_MAX: usize = 1000;

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Bytes.
    Bytes,
    /// Milliseconds.
    Milliseconds,
}

/// One limit, as people read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Its name in errors, settings and documents.
    pub name: &'static str,
    /// What holds when nobody says otherwise.
    pub default: u64,
    /// The least that can be asked for.
    pub minimum: u64,
    /// The most that can be asked for.
    pub maximum: u64,
    /// What it counts.
    pub unit: Unit,
    /// What it bounds and what happens at it.
    pub meaning: &'static str,
}

impl Limit {
    /// Whether it is part of the contract and cannot be set.
    pub const fn is_fixed(&self) -> bool {
        self.minimum == self.maximum
    }
}

const fn limit(name: &'static str, unit: Unit, [default, minimum, maximum]: [u64; 3], meaning: &'static str) -> Limit {
    Limit { name, default, minimum, maximum, unit, meaning }
}

const fn count(name: &'static str, range: [u64; 3], meaning: &'static str) -> Limit {
    limit(name, Unit::Count, range, meaning)
}

const fn bytes(name: &'static str, range: [u64; 3], meaning: &'static str) -> Limit {
    limit(name, Unit::Bytes, range, meaning)
}

const fn time(name: &'static str, [default, minimum, maximum]: [Duration; 3], meaning: &'static str) -> Limit {
    limit(name, Unit::Milliseconds, [ms(default), ms(minimum), ms(maximum)], meaning)
}

const fn ms(span: Duration) -> u64 {
    span.as_millis() as u64
}

/// Default, minimum and maximum of a limit that cannot be set.
const fn fixed(n: usize) -> [u64; 3] {
    [n as u64; 3]
}

/// As [`fixed`], for times.
const fn fixed_time(span: Duration) -> [Duration; 3] {
    [span; 3]
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const DAY: Duration = Duration::from_hours(24);

/// Every limit, in the order in which people read them: messages, frames, delivery, agents, identity, contexts.
pub const TABLE: &[Limit] = &[
    bytes(
        "payload_bytes",
        fixed(PAYLOAD_BYTES_MAX),
        "Payload of a message. Above it: `payload_too_large`; share a context and send its id.",
    ),
    count("attributes", fixed(ATTRIBUTES_MAX), "Attributes of a message. Above it: `invalid_attributes`."),
    bytes(
        "attributes_bytes",
        fixed(ATTRIBUTES_BYTES_MAX),
        "Attributes of a message, names, values and lengths together. Above it: `attributes_too_large`.",
    ),
    bytes(
        "short_text_bytes",
        fixed(SHORT_TEXT_BYTES_MAX),
        "Correlation ids, idempotency and order keys, media types, trace contexts, attribute names, labels. Above it: `field_too_large`.",
    ),
    bytes("topic_bytes", fixed(crate::name::TOPIC_BYTES_MAX), "A topic or topic filter. Above it: `invalid_topic`."),
    count(
        "topic_tokens",
        fixed(crate::name::TOPIC_TOKENS_MAX),
        "Dot tokens of a topic or topic filter. Above it: `invalid_topic`.",
    ),
    count("context_refs", fixed(CONTEXT_REFS_MAX), "Contexts that one message speaks of. Above it: `field_too_large`."),
    bytes("message_bytes", fixed(MESSAGE_BYTES_MAX), "A message, all fields together."),
    count("frame_messages", fixed(FRAME_MESSAGES_MAX as usize), "Messages of one frame. Above it: `frame_too_large`."),
    bytes(
        "frame_bytes",
        fixed(FRAME_BYTES_MAX),
        "A frame of more than one message; a frame of one message may have `message_bytes`. Above it: `frame_too_large`.",
    ),
    count(
        "settlements_per_frame",
        fixed(SETTLEMENTS_PER_FRAME_MAX),
        "Ranges of all lists in one frame of a consumer. Above it: `too_many_settlements`.",
    ),
    bytes("reason_bytes", fixed(REASON_BYTES_MAX), "Reason of a nack or a term. Above it: `field_too_large`."),
    count(
        "producers",
        fixed(PRODUCERS_MAX),
        "Producer sessions that a tenant's log remembers. Above it: `producers_exhausted` until quiet ones are forgotten.",
    ),
    count(
        "producer_ranges",
        fixed(PRODUCER_RANGES_MAX),
        "Stored ranges that are remembered of a producer session. A repeat of an older one is a duplicate of unknown position.",
    ),
    time("producer_ttl", fixed_time(PRODUCER_TTL), "How long a quiet producer session is remembered."),
    time(
        "idempotency_window",
        [IDEMPOTENCY_WINDOW, SECOND, IDEMPOTENCY_WINDOW_MAX],
        "How long an idempotency key is remembered.",
    ),
    count(
        "idempotency_keys",
        [IDEMPOTENCY_KEYS_MAX as u64, 1, IDEMPOTENCY_KEYS_MAX as u64],
        "Idempotency keys that a tenant has in the window. Above it: `idempotency_keys_exhausted`, never silent forgetting.",
    ),
    time(
        "ack_wait",
        [LEASE, LEASE_MIN, LEASE_MAX],
        "How long a consumer has for one message before it is given to another. Progress starts it anew.",
    ),
    count("max_attempts", [MAX_ATTEMPTS as u64, 1, MAX_ATTEMPTS_MAX as u64], "Attempts before a message is dead."),
    count(
        "retry_schedule",
        [RETRY_SCHEDULE.len() as u64, 1, RETRY_SCHEDULE_MAX as u64],
        "Entries of a retry schedule: 1 s, 5 s, 30 s, 2 min, 10 min by default; the last repeats.",
    ),
    time(
        "nack_delay",
        [Duration::ZERO, Duration::ZERO, NACK_DELAY_MAX],
        "Wait that a nack, or an entry of a retry schedule, asks for. 0 takes the schedule.",
    ),
    count(
        "max_leased",
        [MAX_LEASED as u64, 1, MAX_LEASED as u64],
        "Messages of a subscription that are leased at once; then delivery waits.",
    ),
    count(
        "connection_losses_uncounted",
        fixed(CONNECTION_LOSSES_UNCOUNTED as usize),
        "Lost connections that do not count as a failed attempt of a message; each further one does.",
    ),
    count(
        "credit_messages",
        [CREDIT_MESSAGES as u64, 0, CREDIT_MESSAGES_MAX as u64],
        "Messages that one consumer takes at once.",
    ),
    bytes(
        "credit_bytes",
        [CREDIT_BYTES, 0, CREDIT_BYTES_MAX],
        "Bytes that one consumer takes at once. One message always passes while nothing is leased.",
    ),
    count("filters", [1, 1, FILTERS_MAX as u64], "Topic filters of a subscription. Above it: `invalid_filter`."),
    count(
        "subscriptions",
        [SUBSCRIPTIONS_MAX as u64, 1, SUBSCRIPTIONS_MAX as u64],
        "Subscriptions of a tenant, implicit ones not counted. Above it: `subscription_limit`.",
    ),
    time(
        "session_grace",
        fixed_time(SESSION_GRACE),
        "How long leases and ephemeral subscriptions of a lost connection wait for the same session.",
    ),
    time(
        "presence_grace",
        fixed_time(PRESENCE_GRACE),
        "How long an agent counts as online after its last stream ended or its last heartbeat came.",
    ),
    time(
        "presence_active",
        fixed_time(PRESENCE_ACTIVE),
        "How long an agent without a stream counts as active after a heartbeat.",
    ),
    time("presence_expiry", fixed_time(PRESENCE_EXPIRY), "How long an agent is offline before it is expired."),
    time(
        "activity_ttl",
        [ACTIVITY_TTL, ACTIVITY_TTL_MIN, ACTIVITY_TTL_MAX],
        "How long an agent's word about what it is doing holds.",
    ),
    count(
        "presence_changes_waiting",
        fixed(PRESENCE_CHANGES_WAITING),
        "Changes of presence that wait for a watch. One that is slower is sent everybody's presence anew.",
    ),
    time(
        "heartbeat_interval",
        fixed_time(HEARTBEAT_INTERVAL),
        "When the next heartbeat of an agent without a stream is due.",
    ),
    time("plain_ack_flush", fixed_time(PLAIN_ACK_FLUSH), "Longest time until a plain ack is on disk."),
    time("written_flush", fixed_time(WRITTEN_FLUSH), "Longest time until a message at level `written` is on disk."),
    time(
        "publish_ack_linger",
        fixed_time(PUBLISH_ACK_LINGER),
        "Longest time that acknowledgements of publishes with `ack_linger_ms` wait for company.",
    ),
    time("inbox_ttl", [INBOX_TTL, MINUTE, Duration::from_hours(365 * 24)], "How long a message waits in an inbox."),
    time(
        "dead_letter_ttl",
        [DEAD_LETTER_TTL, MINUTE, Duration::from_hours(365 * 24)],
        "How long a dead letter is kept.",
    ),
    time(
        "request_timeout",
        [REQUEST_TIMEOUT, Duration::from_millis(1), DAY],
        "How long a request waits for its reply.",
    ),
    count("page_size", [PAGE_SIZE as u64, 1, PAGE_SIZE_MAX as u64], "Items of a page."),
    bytes("agent_id_bytes", fixed(crate::id::AGENT_ID_BYTES_MAX), "An agent's id."),
    bytes("tenant_id_bytes", fixed(crate::id::TENANT_ID_BYTES_MAX), "A tenant's id."),
    bytes("subscription_name_bytes", fixed(crate::name::SUBSCRIPTION_NAME_BYTES_MAX), "A subscription's name."),
    bytes("description_bytes", fixed(DESCRIPTION_BYTES_MAX), "Description of an agent or a context."),
    bytes("endpoint_bytes", fixed(ENDPOINT_BYTES_MAX), "Endpoint of an agent."),
    count("capabilities", fixed(CAPABILITIES_MAX), "Capabilities of an agent."),
    bytes("schema_bytes", fixed(SCHEMA_BYTES_MAX), "Input or output schema of a capability."),
    count("groups", fixed(GROUPS_MAX), "Groups that an agent says of itself."),
    count("metadata", fixed(METADATA_MAX), "Metadata entries of an agent or a context."),
    bytes("metadata_bytes", fixed(METADATA_BYTES_MAX), "Metadata of an agent or a context, names and values together."),
    time("access_token_ttl", [ACCESS_TOKEN_TTL, MINUTE, DAY], "Life of an access token."),
    time(
        "refresh_token_ttl",
        [REFRESH_TOKEN_TTL, MINUTE, Duration::from_hours(90 * 24)],
        "Life of a refresh token; each works once.",
    ),
    time(
        "auth_expiring_before",
        fixed_time(AUTH_EXPIRING_BEFORE),
        "How long before its token's end a hot stream is told.",
    ),
    time(
        "auth_expired_grace",
        fixed_time(AUTH_EXPIRED_GRACE),
        "How long after its token's end a hot stream lives on, then `token_expired`.",
    ),
    count(
        "calls_per_minute",
        [CALLS_PER_MINUTE as u64, 1, 1_000_000],
        "Unary calls of an agent. Above it: `rate_limited`. The hot streams have their own flow control.",
    ),
    bytes(
        "context_inline_bytes",
        fixed(CONTEXT_INLINE_BYTES_MAX),
        "Payload of a context that is not streamed. Above it: `context_too_large`.",
    ),
    bytes(
        "context_one_call_bytes",
        fixed(CONTEXT_ONE_CALL_BYTES),
        "Content that clients send in one call. They stream by themselves what is larger.",
    ),
    bytes(
        "content_cached_bytes",
        fixed(CONTENT_CACHED_BYTES as usize),
        "First bytes of a content's file that may stay in the page cache of server or client, where the system lets them choose.",
    ),
    bytes(
        "context_inline_row_bytes",
        fixed(CONTEXT_INLINE_ROW_BYTES),
        "Payload of a context that stands in its row. Larger ones are blobs, named by their digest.",
    ),
    bytes("context_key_bytes", fixed(CONTEXT_KEY_BYTES_MAX), "Key of a context. Above it: `invalid_name`."),
    count("contexts", fixed(CONTEXTS_MAX as usize), "Contexts of a tenant. Above it: `context_limit`."),
    time(
        "context_ttl",
        [Duration::ZERO, Duration::ZERO, CONTEXT_TTL_MAX],
        "Life of a context; 0 is for ever. Above it: `invalid_argument`.",
    ),
    time(
        "context_marker_ttl",
        fixed_time(CONTEXT_MARKER_TTL),
        "How long the marker and the history of a deleted or expired context are kept.",
    ),
    count(
        "context_audience",
        fixed(CONTEXT_AUDIENCE_MAX),
        "Groups that a context is for, or agents that it is shared with. Above it: `field_too_large`.",
    ),
    count(
        "changes_kept",
        fixed(CHANGES_KEPT as usize),
        "Newest changes of a tenant. A watch that resumes from before them: `revision_gap`.",
    ),
    count("watches_per_agent", fixed(WATCHES_PER_AGENT_MAX), "Open watches of an agent. Above it: `too_many_streams`."),
    count(
        "watch_behind",
        fixed(WATCH_BEHIND_MAX as usize),
        "Changes that a watch may be behind. Above it: `slow_down`.",
    ),
    time("watch_heartbeat", fixed_time(WATCH_HEARTBEAT), "Longest time between two frames of a watch."),
    count("tenant_groups", fixed(TENANT_GROUPS_MAX as usize), "Groups of a tenant. Above it: `group_limit`."),
    bytes("group_name_bytes", fixed(crate::id::GROUP_NAME_BYTES_MAX), "A group's name."),
    count("group_members", fixed(GROUP_MEMBERS_MAX as usize), "Agents of a group. Above it: `group_limit`."),
    count(
        "group_members_per_call",
        fixed(GROUP_MEMBERS_PER_CALL_MAX),
        "Agents that one call puts into a group or takes out of it. Above it: `field_too_large`.",
    ),
    count("memberships", fixed(MEMBERSHIPS_MAX), "Groups that an agent is in. Above it: `group_limit`."),
    count(
        "context_history",
        [CONTEXT_HISTORY as u64, 1, CONTEXT_HISTORY as u64],
        "Revisions of a context that are kept.",
    ),
    count("labels", fixed(LABELS_MAX), "Labels of a context."),
    bytes(
        "chunk_bytes",
        [CHUNK_BYTES as u64, CHUNK_BYTES_MIN as u64, CHUNK_BYTES_MAX as u64],
        "A chunk of a stream; the last may be smaller.",
    ),
    bytes(
        "upload_window_bytes",
        [UPLOAD_WINDOW_BYTES, CHUNK_BYTES_MIN as u64, 64 * 1024 * 1024],
        "Bytes of an upload that are on the way.",
    ),
    bytes("stream_bytes", [STREAM_BYTES_MAX, 1, STREAM_BYTES_MAX], "A streamed context."),
    time("stream_ttl", [STREAM_TTL, MINUTE, DAY], "How long an upload that nobody continues is kept."),
    count("streams", [STREAMS_MAX as u64, 1, STREAMS_MAX as u64], "Unfinished uploads of a tenant."),
];

/// The limit of that name.
pub fn find(name: &str) -> Option<&'static Limit> {
    TABLE.iter().find(|l| l.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_limit_stands_once_and_its_default_lies_in_its_range() {
        let mut names = HashSet::new();
        for limit in TABLE {
            assert!(names.insert(limit.name), "{} stands twice", limit.name);
            assert!(
                (limit.minimum..=limit.maximum).contains(&limit.default),
                "{}: default {} outside {}..={}",
                limit.name,
                limit.default,
                limit.minimum,
                limit.maximum
            );
            assert!(limit.meaning.ends_with('.'), "{}: the meaning is a sentence", limit.name);
        }
    }

    #[test]
    fn limits_are_found_by_name() {
        assert_eq!(find("ack_wait").map(|l| l.default), Some(30_000));
        assert_eq!(find("nope"), None);
    }
}
