//! What can be said about a message that is sent or published.

use std::time::Duration;

use acb_sdk::{Durability, MessageKind, Priority, PublishBuilder, Published};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

/// The envelope of a message.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Message")]
pub(crate) struct MessageArgs {
    /// A named value, `name=value`; again for more.
    #[arg(long = "attribute", short = 'a', value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) attributes: Vec<(String, String)>,

    /// Media type of the payload, such as application/json.
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,

    /// A word of your own that ties messages together.
    #[arg(long, value_name = "ID")]
    correlation_id: Option<String>,

    /// A key against doubles: within 10 minutes a repeat is answered like the first.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,

    /// Messages of one key are handled one after the other.
    #[arg(long, value_name = "KEY")]
    order_key: Option<String>,

    /// How long it may wait; after that it is not delivered any more.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    ttl: Option<Duration>,

    /// How urgent it is.
    #[arg(long, value_name = "LEVEL")]
    priority: Option<PriorityArg>,

    /// What it is for.
    #[arg(long, value_name = "KIND")]
    kind: Option<KindArg>,

    /// How much it must survive before it counts as sent [default: the server's, synced].
    #[arg(long, value_name = "LEVEL")]
    durability: Option<DurabilityArg>,
}

/// How urgent a message is.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum PriorityArg {
    Critical,
    High,
    Normal,
    Low,
}

/// What a message is for.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum KindArg {
    Message,
    Event,
    Signal,
}

/// How much a message must survive.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum DurabilityArg {
    /// Nothing: it is in the server's memory.
    Memory,
    /// A kill -9 of the server.
    Written,
    /// A power cut.
    Synced,
    /// The loss of a node.
    Replicated,
}

impl From<DurabilityArg> for Durability {
    fn from(arg: DurabilityArg) -> Self {
        match arg {
            DurabilityArg::Memory => Self::Memory,
            DurabilityArg::Written => Self::Written,
            DurabilityArg::Synced => Self::Synced,
            DurabilityArg::Replicated => Self::Replicated,
        }
    }
}

impl MessageArgs {
    /// Puts what was said onto a message.
    pub(crate) fn apply(&self, mut message: PublishBuilder) -> PublishBuilder {
        message = message.attributes(self.attributes.clone());
        if let Some(media_type) = &self.content_type {
            message = message.content_type(media_type);
        }
        if let Some(id) = &self.correlation_id {
            message = message.correlation_id(id);
        }
        if let Some(key) = &self.idempotency_key {
            message = message.idempotency_key(key);
        }
        if let Some(key) = &self.order_key {
            message = message.order_key(key);
        }
        if let Some(ttl) = self.ttl {
            message = message.ttl(ttl);
        }
        if let Some(level) = self.durability {
            message = message.durability(level.into());
        }
        if let Some(kind) = self.kind {
            message = message.kind(match kind {
                KindArg::Message => MessageKind::Message,
                KindArg::Event => MessageKind::Event,
                KindArg::Signal => MessageKind::Signal,
            });
        }
        match self.priority {
            None => message,
            Some(PriorityArg::Critical) => message.priority(Priority::Critical),
            Some(PriorityArg::High) => message.priority(Priority::High),
            Some(PriorityArg::Normal) => message.priority(Priority::Normal),
            Some(PriorityArg::Low) => message.priority(Priority::Low),
        }
    }
}

/// A stored message for scripts.
pub(crate) fn published_json(published: &Published) -> Value {
    json!({
        "id": published.id.to_string(),
        "durability": published.durability.name(),
        "duplicate": published.duplicate,
    })
}

/// A stored message for people.
pub(crate) fn published_text(published: &Published) -> String {
    let repeat = if published.duplicate { ", stored before" } else { "" };
    format!("{} ({}{repeat})", published.id, published.durability)
}

/// A `name=value` pair.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("it must have the form name=value".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_cut_at_the_first_sign() {
        assert_eq!(pair("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(pair("a="), Ok(("a".into(), String::new())));
        assert!(pair("a").is_err() && pair("=b").is_err());
    }
}
