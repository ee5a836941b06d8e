//! What agents can do in a scenario: the words, and what each may be given. One table for every driver, and for the
//! README.

use anyhow::{Result, bail};

/// A word of the scenarios' language.
#[derive(Clone, Copy, Debug)]
pub struct Verb {
    /// The word.
    pub name: &'static str,
    /// What it may be given.
    pub args: &'static [&'static str],
    /// What it does and gives.
    pub says: &'static str,
}

const AGENT: &[&str] = &[
    "id",
    "type",
    "name",
    "description",
    "version",
    "location",
    "capabilities",
    "endpoint",
    "groups",
    "metadata",
    "fields",
];
const MESSAGE: &[&str] = &[
    "to",
    "topic",
    "all",
    "payload",
    "kind",
    "key",
    "correlation_id",
    "reply_to",
    "content_type",
    "attributes",
    "priority",
    "ttl",
    "not_before",
    "order_key",
    "context_refs",
    "trace",
    "durability",
    "count",
];
const SUBSCRIPTION: &[&str] =
    &["name", "filters", "ack_wait", "retry", "max_attempts", "dead_letters", "max_leased", "start", "seq", "time"];

const CONTEXT: &[&str] = &[
    "id",
    "key",
    "type",
    "scope",
    "groups",
    "shares",
    "content_type",
    "description",
    "labels",
    "metadata",
    "ttl",
    "version",
    "payload",
    "if_rev",
    "force",
    "idempotency_key",
];
const UPLOAD: &[&str] = &[
    "name",
    "session",
    "content",
    "chunk_bytes",
    "window_bytes",
    "total_bytes",
    "settled_bytes",
    "id",
    "key",
    "type",
    "scope",
    "groups",
    "shares",
    "content_type",
    "description",
    "labels",
    "metadata",
    "ttl",
    "version",
    "if_rev",
    "force",
];
const WATCH: &[&str] = &["session", "id", "key", "key_prefix", "type", "owner", "labels", "after_rev"];

/// Every word.
pub const VERBS: &[Verb] = &[
    verb(
        "connect",
        &["key", "secret", "token", "tenant", "agent", "timeout"],
        "Connects as this agent by a credential; without one by name alone (`--dev`). `timeout` is the longest wait for a \
         connection that serves. Gives `agent_id`, `tenant_id`.",
    ),
    verb("close", &[], "Closes the connection in good order."),
    verb("health", &[], "Asks for the server's health. Gives `status`."),
    verb("register", AGENT, "Registers. Gives the agent."),
    verb("get_agent", &["id"], "Gives the agent."),
    verb("update_agent", AGENT, "Changes the agent. Gives it."),
    verb("unregister", &["id", "keep_inbox"], "Takes the agent off the bus."),
    verb("heartbeat", &["id", "incarnation"], "Says that the agent is alive. Gives `next_within_ms`."),
    verb("set_activity", &["activity", "ttl"], "Says what the agent is doing, for a span."),
    verb(
        "watch_agents",
        &["id", "type", "location", "capabilities_all", "after", "session"],
        "Opens a watch of agents: with the state first, or `after` a revision.",
    ),
    verb(
        "agent_events",
        &["count", "session"],
        "Waits for so many events of the watch. Gives `events`, each with `kind`, `id` and the agent's fields, and the `revision` reached.",
    ),
    verb("no_agent_events", &["session"], "The watch has nothing more to say."),
    verb(
        "discover",
        &[
            "type",
            "location",
            "capabilities_all",
            "capabilities_any",
            "status",
            "metadata",
            "text",
            "page_size",
            "page_token",
        ],
        "Searches. Gives `agents`, `ids`, `next_page_token`.",
    ),
    verb("send", MESSAGE, "Stores one message, each on its own. Gives `message_id`, `seq`, `durability`, `duplicate`."),
    verb(
        "publish",
        MESSAGE,
        "Stores messages over the hot stream: `count` of them, `{i}` in the payload is the number from 0. Gives `results`, one each like that of `send`, or `{code}`.",
    ),
    verb(
        "publish_frame",
        &["producer", "epoch", "counter", "incarnation", "messages", "durability"],
        "Sends one frame of a producer session under a number of one's choice. Gives `results`.",
    ),
    verb(
        "request",
        &["to", "topic", "payload", "timeout", "name", "key"],
        "Sends a request and goes on; `answer` has what comes.",
    ),
    verb(
        "answer",
        &["name"],
        "Waits for the answer to the last request, or to the one of that name. Gives the reply, or its error.",
    ),
    verb("reply", &["payload", "session"], "Answers the request that was received last."),
    verb("create_subscription", SUBSCRIPTION, "Makes a durable subscription. Gives it, and `existed`."),
    verb("get_subscription", &["name"], "Gives the subscription with its counts."),
    verb("list_subscriptions", &["page_size", "page_token"], "Gives `subscriptions`, `names`, `next_page_token`."),
    verb("delete_subscription", &["name"], "Ends a subscription."),
    verb(
        "consume",
        &[
            "subscription",
            "filters",
            "session",
            "credit",
            "credit_bytes",
            "start",
            "seq",
            "time",
            "ack_wait",
            "retry",
            "max_attempts",
            "dead_letters",
            "incarnation",
        ],
        "Opens a consumer: of the agent's inbox, of a subscription, or of its own filters. `session` names it in later steps.",
    ),
    verb("credit", &["messages", "bytes", "session"], "Changes what may be with the consumer at once."),
    verb(
        "receive",
        &["session", "count"],
        "Waits for the next message, or for `count`. Gives the message, or `messages` and `payloads`.",
    ),
    verb("nothing", &["session"], "Nothing waits for the consumer, and everything it did was taken."),
    verb(
        "ack",
        &["session", "seq", "count", "confirm"],
        "Acknowledges the last message, or what is named. With `confirm` it is on disk.",
    ),
    verb("nack", &["session", "seq", "count", "delay", "reason"], "Gives back as failed."),
    verb("progress", &["session", "seq", "count"], "Starts the lease anew."),
    verb("term", &["session", "seq", "count", "reason"], "Gives up for good."),
    verb("release", &["session", "seq", "count"], "Gives back untouched."),
    verb("refused", &["session", "seq"], "Waits for the refusal of a settlement that was sent before."),
    verb("gap", &["session"], "Waits for a notice of trimmed messages. Gives `from_seq`, `to_seq`, `reason`."),
    verb("ended", &["session"], "Waits for the end of a consumer's stream, which is the step's error."),
    verb("leave", &["session"], "Ends a consumer in good order."),
    verb("reauth", &["token", "session"], "Gives a consumer's stream a new token."),
    verb(
        "auth_expiring",
        &["session"],
        "Waits for the notice that the stream's token ends soon. Gives `expires_at_ms`.",
    ),
    verb("share", CONTEXT, "Shares a context. Gives it, and `existed`."),
    verb("get_context", &["id", "key", "at_rev"], "Gives the context with its payload."),
    verb("update_context", CONTEXT, "Changes what is given of a context. Gives it, and `duplicate`."),
    verb("delete_context", &["id", "if_rev", "force"], "Deletes a context. Gives the marker's `rev`; 0 for none."),
    verb("renew_context", &["id", "ttl"], "Starts a context's life anew. Gives `expires_at_ms`."),
    verb(
        "list_contexts",
        &["type", "owner", "scope", "labels", "key_prefix", "text", "page_size", "page_token"],
        "Gives `keys`, `next_page_token`, `revision`.",
    ),
    verb("context_history", &["id"], "Gives `revs`, newest first, their `count`, and whether the newest is a marker."),
    verb("watch", WATCH, "Opens a watch of contexts and takes its state. Gives `keys` of the state, `revision`."),
    verb("event", &["session"], "Waits for the watch's next change. Gives the context, and `event`."),
    verb(
        "upload",
        UPLOAD,
        "Uploads a content, `{of: name, bytes: n}`. Gives the context's `id`, `rev`, `version`, `size_bytes`, `sha256`; from a client that uploads by itself also `sent_bytes`, `connections` and the `progress` that was told last.",
    ),
    verb(
        "begin_upload",
        UPLOAD,
        "Uploads a content of which the source gives `settled_bytes` first; goes on when these are settled.",
    ),
    verb("uploaded", &["name"], "Lets the source give the rest, and waits for the end. Gives what `upload` gives."),
    verb(
        "stop_upload",
        UPLOAD,
        "Uploads a content from a file, with a resume file, and stops when `settled_bytes` of it are settled.",
    ),
    verb(
        "stopped_upload",
        &["name"],
        "What the resume file of a stopped upload tells. Gives `state`, which is `none` where there is no file, `received_bytes`, `total_bytes`, `id`.",
    ),
    verb(
        "download",
        &["id", "key", "at_rev", "from", "bytes", "content"],
        "Downloads a context or `bytes` of it `from` an offset. Gives `id`, `rev`, `size_bytes` and `sha256` of the whole, `received_bytes`, and whether these are the `same` as that part of the content.",
    ),
    verb(
        "open_upload",
        UPLOAD,
        "Opens an upload by its name, or opens it again; `session` names the connection where there are several. Gives what `upload_progress` gives, and `window_bytes`.",
    ),
    verb(
        "send_chunks",
        &["name", "session", "content", "chunk_bytes", "indexes", "bytes", "digest"],
        "Sends these chunks of a content, in this order, and waits until each is answered; with so many `bytes`, or a `digest` that is `wrong` or `short`. Gives `acked`, and `rejected` with index and code, by index.",
    ),
    verb(
        "offer_chunks",
        &["name", "session", "content", "chunk_bytes", "first", "count", "taken"],
        "Offers chunks by their digests, and waits until so many are `taken`. Gives `acked`.",
    ),
    verb(
        "complete_upload",
        &["name", "session", "content", "total_bytes", "digest"],
        "Says that all was sent; with another size, or a `digest` that is `wrong`. Gives what `upload` gives.",
    ),
    verb("upload_ended", &["name", "session"], "Waits for the end of an upload's stream, which is the step's error."),
    verb(
        "upload_progress",
        &["name"],
        "Gives `state`, `chunk_bytes`, `total_bytes`, `received_bytes`, `received` as pairs of first and count, `expires_at_ms`, `context_id`.",
    ),
    verb("abort_upload", &["name"], "Gives an upload up; a client that uploads by itself does by its resume file."),
    verb("create_group", &["name", "description"], "Makes a group. Gives `members`."),
    verb("delete_group", &["name"], "Ends a group."),
    verb("list_groups", &[], "Gives `names`."),
    verb("add_members", &["name", "agents"], "Puts agents into a group. Gives `members`."),
    verb("remove_members", &["name", "agents"], "Takes agents out of a group. Gives `members`."),
    verb("list_members", &["name"], "Gives `agents`."),
    verb("status", &["id"], "Where a message stands. Gives `topic`, `from`, `subscriptions`."),
    verb("dead_letters", &["subscription", "page_size", "page_token"], "Gives `dead_letters`, `next_page_token`."),
    verb("dead_letter", &["id"], "Gives one dead letter, whole."),
    verb("redrive", &["id", "payload"], "Brings a dead letter back. Gives `message_id`."),
    verb("discard", &["id"], "Takes a dead letter off the list."),
    verb(
        "login",
        &["key", "secret", "agent", "tenant"],
        "Gives `access_token`, `refresh_token`, their ends, `agent_id`, `tenant_id`, `roles`.",
    ),
    verb("refresh", &["token"], "Trades a refresh token. Gives what `login` gives."),
    verb("logout", &[], "Ends the connection's token family."),
    verb("jwks", &[], "Gives `keys`."),
    verb("create_tenant", &["id", "name"], "Makes a tenant."),
    verb("list_tenants", &["page_size", "page_token"], "Gives `ids`."),
    verb(
        "create_key",
        &["tenant", "label", "pattern", "roles", "ttl"],
        "Makes an enrolment key. Gives `key`, `key_id`.",
    ),
    verb("list_keys", &["page_size", "page_token"], "Gives `keys`."),
    verb("revoke_key", &["id"], "Ends an enrolment key."),
    verb("set_secret", &["agent", "roles"], "Gives an agent a secret. Gives `secret`."),
    verb("rotate_signing_key", &[], "Makes a new signing key. Gives `key_id`."),
];

const fn verb(name: &'static str, args: &'static [&'static str], says: &'static str) -> Verb {
    Verb { name, args, says }
}

/// Whether a call is one that drivers know.
///
/// # Errors
/// Names the word that is not.
pub fn check<'a>(name: &str, args: impl Iterator<Item = &'a str>) -> Result<()> {
    let Some(verb) = VERBS.iter().find(|v| v.name == name) else { bail!("no verb is called {name}") };
    for arg in args {
        if !verb.args.contains(&arg) {
            bail!("{name} does not take {arg}; it takes {}", verb.args.join(", "));
        }
    }
    Ok(())
}

/// Whether an error code is in the table.
pub fn is_code(name: &str) -> bool {
    acb_types::ErrorCode::ALL.iter().any(|c| c.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_there_once_and_explained() {
        for (at, verb) in VERBS.iter().enumerate() {
            assert!(verb.says.ends_with('.'), "{}", verb.name);
            assert!(VERBS[..at].iter().all(|v| v.name != verb.name), "{} is there twice", verb.name);
        }
    }

    #[test]
    fn codes_are_those_of_the_error_table() {
        assert!(is_code("lease_lost") && !is_code("lease_found"));
    }
}
