//! `acb dead-letters`: messages that a subscription gave up on.

use std::path::PathBuf;

use acb_sdk::{DeadLetter, MessageId};
use clap::Subcommand;
use serde_json::{Map, Value, json};

use super::Context;
use crate::{
    connect::Use,
    failure::Result,
    output::{Table, age, bytes, payload_json, text_or_size, when, when_json},
    payload,
};

/// What can be done with dead letters.
#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// Lists a subscription's, oldest first, without payloads.
    #[command(visible_alias = "list")]
    Ls {
        /// The subscription.
        subscription: String,
        /// At most so many.
        #[arg(long, value_name = "COUNT", default_value_t = 1000)]
        limit: usize,
    },
    /// Shows one, whole.
    Show {
        /// Its id.
        id: MessageId,
        /// Prints the payload's bytes and nothing else.
        #[arg(long)]
        raw: bool,
    },
    /// Gives one to its subscription again, and takes it off the list.
    Redrive {
        /// Its id.
        id: MessageId,
        /// With this file's content in place of the payload; `-` is standard input.
        #[arg(long, value_name = "PATH")]
        payload_file: Option<PathBuf>,
    },
    /// Takes one off the list for good.
    Discard {
        /// Its id.
        id: MessageId,
    },
}

pub(crate) async fn run(command: DeadLettersCommand, context: &Context) -> Result {
    let client = context.connect(Use::Short).await?;
    let letters = client.dead_letters();
    match command {
        DeadLettersCommand::Ls { subscription, limit } => {
            let mut pages = letters.list(&subscription);
            let mut found = Vec::new();
            while found.len() < limit
                && let Some(letter) = pages.next().await
            {
                found.push(letter?);
            }
            list(&found, context)?;
            if found.len() == limit && pages.next().await.is_some() {
                context.out.note(&format!("there are more; --limit shows more than {limit}"));
            }
        }
        DeadLettersCommand::Show { id, raw } => {
            let letter = letters.get(id).await?;
            if raw {
                context.out.raw(&letter.message.payload)?;
            } else {
                context.out.result(|| whole_json(&letter), || to_text(&letter))?;
            }
        }
        DeadLettersCommand::Redrive { id, payload_file } => {
            let new = match payload_file {
                None => letters.redrive(id).await?,
                Some(path) => letters.redrive_with_payload(id, payload::file_or_input(&path)?).await?,
            };
            let object = json!({ "id": id.to_string(), "message_id": new.to_string() });
            context.out.result(|| object, || format!("{id} is on its way again, as {new}"))?;
        }
        DeadLettersCommand::Discard { id } => {
            letters.discard(id).await?;
            let object = json!({ "id": id.to_string(), "discarded": true });
            context.out.result(|| object, || format!("{id} is gone"))?;
        }
    }
    client.close().await;
    Ok(())
}

fn list(found: &[DeadLetter], context: &Context) -> Result {
    let mut table = Table::new(&["ID", "TOPIC", "FROM", "REASON", "ATTEMPTS#", "SIZE#", "DIED", "LAST ERROR"]);
    for letter in found {
        table.row([
            letter.id.to_string(),
            letter.message.topic.to_string(),
            letter.from.clone(),
            letter.reason.clone(),
            letter.attempts.to_string(),
            bytes(letter.payload_bytes),
            age(letter.died_at),
            letter.last_error.lines().next().unwrap_or_default().to_owned(),
        ]);
    }
    context.out.rows(found.iter().map(to_json), table.or("no dead letters"))
}

fn to_text(letter: &DeadLetter) -> String {
    let attributes: Vec<String> = letter.message.attributes.iter().map(|(n, v)| format!("{n}={v}")).collect();
    let facts = super::facts(&[
        ("id", letter.id.to_string()),
        ("message", letter.message_id.to_string()),
        ("subscription", letter.subscription.clone()),
        ("topic", letter.message.topic.to_string()),
        ("from", letter.from.clone()),
        ("reason", letter.reason.clone()),
        ("attempts", letter.attempts.to_string()),
        ("last error", letter.last_error.clone()),
        ("stored", when(letter.stored_at)),
        ("died", when(letter.died_at)),
        ("attributes", attributes.join(" ")),
        ("size", bytes(letter.payload_bytes)),
    ]);
    format!("{facts}\n{}", text_or_size(&letter.message.payload))
}

fn to_json(letter: &DeadLetter) -> Value {
    let attributes: Map<String, Value> =
        letter.message.attributes.iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    json!({
        "id": letter.id.to_string(),
        "subscription": letter.subscription,
        "message_id": letter.message_id.to_string(),
        "topic": &*letter.message.topic,
        "from": letter.from,
        "reason": letter.reason,
        "last_error": letter.last_error,
        "attempts": letter.attempts,
        "attributes": attributes,
        "payload_bytes": letter.payload_bytes,
        "stored_at": when_json(letter.stored_at),
        "died_at": when_json(letter.died_at),
    })
}

fn whole_json(letter: &DeadLetter) -> Value {
    let mut out = to_json(letter);
    payload_json(&mut out, &letter.message.payload);
    out
}
