//! Values as people and scripts read them.

use std::time::{Duration, SystemTime};

use acb_sdk::Message;
use acb_types::Timestamp;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

/// Now, by this machine's clock.
#[expect(
    clippy::disallowed_methods,
    reason = "ages for people, and how long a kept token lasts: no test owns that time"
)]
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// How long ago a point in time is, as one short word; `-` when it is not set.
pub(crate) fn age(at: Timestamp) -> String {
    if at.is_set() { short(now().since(at)) } else { "-".into() }
}

fn short(span: Duration) -> String {
    match span.as_secs() {
        s @ 0..120 => format!("{s}s"),
        s @ 120..7_200 => format!("{}m", s / 60),
        s @ 7_200..172_800 => format!("{}h", s / 3_600),
        s => format!("{}d", s / 86_400),
    }
}

/// A point in time for people; `-` when it is not set.
pub(crate) fn when(at: Timestamp) -> String {
    if at.is_set() { at.to_string() } else { "-".into() }
}

/// A point in time for scripts: RFC 3339, or null when it is not set.
pub(crate) fn when_json(at: Timestamp) -> Value {
    if at.is_set() { at.to_string().into() } else { Value::Null }
}

/// A number of bytes for people.
pub(crate) fn bytes(count: u64) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => format!("{:.1} KiB", count as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", count as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", count as f64 / 1_073_741_824.0),
    }
}

/// A payload for people: as text when it is some, else its size.
pub(crate) fn text_or_size(payload: &[u8]) -> String {
    match std::str::from_utf8(payload) {
        Ok(text) if !text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) => text.to_owned(),
        _ => format!("<{} of binary payload>", bytes(payload.len() as u64)),
    }
}

/// A payload for scripts: `payload` when it is UTF-8, else `payload_base64`.
pub(crate) fn payload_json(into: &mut Value, payload: &[u8]) {
    match std::str::from_utf8(payload) {
        Ok(text) => into["payload"] = text.into(),
        Err(_) => into["payload_base64"] = STANDARD.encode(payload).into(),
    }
}

/// A delivered message for scripts. What it does not have is left out.
pub(crate) fn message_json(message: &Message) -> Value {
    let mut out = json!({
        "id": message.id().to_string(),
        "topic": message.topic(),
        "kind": message.kind().name(),
        "from": message.from(),
        "attempt": message.attempt(),
        "stored_at": when_json(message.stored_at()),
    });
    for (name, text) in [
        ("correlation_id", message.correlation_id()),
        ("reply_to", message.reply_to()),
        ("idempotency_key", message.idempotency_key()),
        ("order_key", message.order_key()),
        ("content_type", message.content_type()),
        ("trace", message.trace()),
        ("original_topic", message.original_topic()),
    ] {
        if !text.is_empty() {
            out[name] = text.into();
        }
    }
    if message.expires_at().is_set() {
        out["expires_at"] = when_json(message.expires_at());
    }
    if message.is_late() {
        out["late"] = true.into();
    }
    let attributes: Map<String, Value> =
        message.attributes().iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    if !attributes.is_empty() {
        out["attributes"] = attributes.into();
    }
    payload_json(&mut out, message.payload_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_one_word() {
        let word = |secs| short(Duration::from_secs(secs));
        assert_eq!([5, 119, 120, 7_199, 7_200, 172_800].map(word), ["5s", "119s", "2m", "119m", "2h", "2d"]);
        assert_eq!(age(Timestamp::NONE), "-");
    }

    #[test]
    fn sizes_read_easily() {
        assert_eq!([0, 1023, 1536, 5 << 20, 3 << 30].map(bytes), ["0 B", "1023 B", "1.5 KiB", "5.0 MiB", "3.0 GiB"]);
    }

    #[test]
    fn a_payload_that_is_no_text_does_not_reach_the_terminal() {
        assert_eq!(text_or_size("grüße\n".as_bytes()), "grüße\n");
        assert_eq!(text_or_size(b"\xff\xfe"), "<2 B of binary payload>");
        assert_eq!(text_or_size(b"\x1b[2J"), "<4 B of binary payload>");
    }

    #[test]
    fn scripts_get_every_byte() {
        let (mut text, mut binary) = (json!({}), json!({}));
        payload_json(&mut text, b"\x1b[2J");
        payload_json(&mut binary, b"\xff");
        assert_eq!((text, binary), (json!({ "payload": "\u{1b}[2J" }), json!({ "payload_base64": "/w==" })));
    }

    #[test]
    fn times_are_rfc_3339_or_nothing() {
        assert_eq!(when_json(Timestamp(1_000)), json!("1970-01-01T00:00:01.000Z"));
        assert_eq!(when_json(Timestamp::NONE), Value::Null);
    }
}
