//! `acb status`: how the server is, or where a message stands.

use acb_sdk::{MessageId, MessageStatus};
use clap::Args;
use serde_json::{Value, json};

use super::Context;
use crate::{
    connect::{Target, Use},
    exit::Exit,
    failure::{Failure, Result},
    output::{Table, when, when_json},
};

/// What `status` takes.
#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// A message's id; without one the server is asked.
    message: Option<MessageId>,
}

pub(crate) async fn run(args: StatusArgs, context: &Context) -> Result {
    let (target, client) = context.connect_to(Use::Short).await?;
    match args.message {
        Some(id) => message(&client.messages().status(id).await?, context)?,
        None => server(&target, &client, context).await?,
    }
    client.close().await;
    Ok(())
}

async fn server(target: &Target, client: &acb_sdk::Client, context: &Context) -> Result {
    let health = client.health().await?;
    // A call that needs credentials: whoever asks how things are wants to know whether it may do something.
    let agent = client.agent_id().unwrap_or_default();
    let agents = client.agents().discover().page(1, "").await;
    let identity = client.identity().unwrap_or_default();
    let ms = health.round_trip.as_secs_f64() * 1e3;
    let word = if health.serving { "serving" } else { "not serving" };
    let object = json!({
        "url": target.url,
        "profile": target.profile,
        "serving": health.serving,
        "round_trip_ms": (ms * 1000.0).round() / 1000.0,
        "agent": agent,
        "tenant": identity.tenant_id,
        "roles": identity.roles,
        "authenticated": agents.is_ok(),
    });
    let facts = super::facts(&[
        ("server", format!("{} ({word}, {ms:.1} ms)", target.url)),
        ("profile", target.profile.clone().unwrap_or_default()),
        ("agent", agent),
        ("tenant", identity.tenant_id),
        ("roles", identity.roles.join(" ")),
    ]);
    context.out.result(|| object, || facts)?;
    agents?;
    if !health.serving {
        let hint = "it starts or drains; try again in a moment";
        return Err(Failure::own(Exit::Unavailable, "the server takes no work now", hint));
    }
    Ok(())
}

fn message(status: &MessageStatus, context: &Context) -> Result {
    if context.out.is_json() {
        return context.out.result(|| to_json(status), String::new);
    }
    let facts = super::facts(&[
        ("message", status.id.to_string()),
        ("topic", status.topic.clone()),
        ("from", status.from.clone()),
        ("stored", when(status.stored_at)),
    ]);
    let mut table = Table::new(&["SUBSCRIPTION", "STATE", "ATTEMPTS#", "DUE", "DEAD LETTER"]);
    for one in &status.subscriptions {
        table.row([
            one.subscription.clone(),
            one.state.name().to_owned(),
            one.attempts.to_string(),
            when(one.due_at),
            one.dead_letter_id.map(|id| id.to_string()).unwrap_or_default(),
        ]);
    }
    context.out.result(|| Value::Null, || facts)?;
    context.out.result(|| Value::Null, String::new)?;
    context.out.rows([], table.or("no subscription hears it"))
}

fn to_json(status: &MessageStatus) -> Value {
    let subscriptions: Vec<Value> = status
        .subscriptions
        .iter()
        .map(|one| {
            json!({
                "subscription": one.subscription,
                "state": one.state.name(),
                "attempts": one.attempts,
                "due_at": when_json(one.due_at),
                "dead_letter_id": one.dead_letter_id.map(|id| id.to_string()),
            })
        })
        .collect();
    json!({
        "id": status.id.to_string(),
        "topic": status.topic,
        "from": status.from,
        "stored_at": when_json(status.stored_at),
        "subscriptions": subscriptions,
    })
}
