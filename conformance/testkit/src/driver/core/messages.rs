//! Messages out, requests, and what became of them.

use acb_proto::v1;
use acb_sdk::{
    Client, DeadLetter, Durability, Envelope, MessageKind, MessageStatus, Priority, PublishBuilder, Published, Reply,
    Timestamp,
};
use acb_types::frame;
use bytes::BytesMut;
use prost::Message as _;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{CoreDriver, id};
use crate::{
    driver::{Args, Place, args::BAD_SCENARIO, shape},
    raw::Failure,
    wait::patience,
};

/// A request whose answer was not asked for yet.
#[derive(Debug)]
pub(super) struct Pending(JoinHandle<acb_sdk::Result<Reply>>);

fn bad(text: impl Into<String>) -> Failure {
    Failure::own(BAD_SCENARIO, text)
}

fn shape_published(published: &Published) -> Value {
    let known = published.id.seq != 0;
    json!({
        "message_id": known.then(|| published.id.to_string()), "seq": published.id.seq, "epoch": published.id.epoch,
        "durability": published.durability.name(), "duplicate": published.duplicate,
    })
}

fn shape_status(status: &MessageStatus) -> Value {
    let one = |s: &acb_sdk::SubscriptionStatus| {
        json!({
            "subscription": s.subscription, "state": s.state.name(), "attempts": s.attempts, "due_at_ms": s.due_at.0,
            "dead_letter_id": s.dead_letter_id.map(|id| id.to_string()),
        })
    };
    json!({
        "message_id": status.id.to_string(), "topic": status.topic, "from": status.from,
        "stored_at_ms": status.stored_at.0, "subscriptions": status.subscriptions.iter().map(one).collect::<Vec<_>>(),
    })
}

/// An envelope as the wire has it, to be shown by the one hand that shows messages: written by the bus's own encoder and
/// read by protobuf's.
pub(super) fn on_the_wire(m: &Envelope) -> Result<v1::Message, Failure> {
    let mut body = BytesMut::new();
    frame::encode(&mut body, m);
    let read = v1::PublishStreamRequest::decode(body).map_err(|e| Failure::own("protocol_error", e.to_string()))?;
    let one = read.messages.into_iter().next();
    one.ok_or_else(|| Failure::own("protocol_error", "an encoded message is none"))
}

fn shape_dead_letter(d: &DeadLetter, whole: bool, place: &Place) -> Result<Value, Failure> {
    let message = on_the_wire(&d.message)?;
    let inner = if whole {
        Value::Object(shape::message(&message, &place.mark)?)
    } else {
        json!({"topic": message.topic, "payload_len": message.payload.len()})
    };
    Ok(json!({
        "id": d.id.to_string(), "subscription": d.subscription, "message_id": d.message_id.to_string(),
        "message": inner, "from": d.from, "reason": d.reason, "last_error": d.last_error, "attempts": d.attempts,
        "stored_at_ms": d.stored_at.0, "died_at_ms": d.died_at.0, "payload_bytes": d.payload_bytes,
    }))
}

/// A message in the making.
fn build(client: &Client, args: &Args, place: &Place, number: u64) -> Result<PublishBuilder, Failure> {
    let payload = place.mark.payload(args, number)?;
    let messages = client.messages();
    let mut m = match (args.text("to")?, args.flag("all")?, args.text("topic")?) {
        (Some(agent), false, None) => messages.send(agent, payload),
        (None, true, None) => messages.broadcast(payload),
        (None, false, Some(topic)) => messages.publish(topic, payload),
        _ => return Err(bad("a message goes `to` an agent, to `all` or to a `topic`")),
    };
    if let Some(level) = args.text("durability")? {
        m = m.durability(level.parse::<Durability>().map_err(|e| bad(e.to_string()))?);
    }
    if let Some(kind) = args.text("kind")? {
        let named = MessageKind::ALL.into_iter().find(|k| k.name() == kind);
        m = m.kind(named.ok_or_else(|| bad(format!("no kind is called {kind}")))?);
    }
    if let Some(priority) = args.text("priority")? {
        let named = Priority::ALL.into_iter().find(|p| p.name() == priority);
        m = m.priority(named.ok_or_else(|| bad(format!("no priority is called {priority}")))?);
    }
    if let Some(key) = args.text("key")? {
        m = m.idempotency_key(key.replace("{i}", &number.to_string()));
    }
    if let Some(text) = args.text("correlation_id")? {
        m = m.correlation_id(text);
    }
    if let Some(text) = args.text("reply_to")? {
        m = m.reply_to(text);
    }
    if let Some(text) = args.text("content_type")? {
        m = m.content_type(text);
    }
    if let Some(text) = args.text("order_key")? {
        m = m.order_key(text);
    }
    if let Some(text) = args.text("trace")? {
        m = m.trace(text);
    }
    for context in args.texts("context_refs")? {
        m = m.context_ref(context);
    }
    if let Some(ttl) = args.span("ttl")? {
        // By the server's clock, which the test moves: the client's own stands elsewhere.
        m = m.expires_at(Timestamp(place.clock.after(ttl)));
    }
    Ok(m.attributes(args.pairs("attributes")?))
}

impl CoreDriver {
    pub(super) async fn send(&mut self, args: &Args) -> Result<Value, Failure> {
        let client = self.client().await?;
        Ok(shape_published(&build(&client, args, &self.place, 0)?.confirm().await?))
    }

    pub(super) async fn publish(&mut self, args: &Args) -> Result<Value, Failure> {
        let client = self.client().await?;
        let mut receipts = Vec::new();
        for number in 0..args.number_or("count", 1)? {
            receipts.push(build(&client, args, &self.place, number)?.send().await);
        }
        let mut results = Vec::new();
        for receipt in receipts {
            let outcome = match receipt {
                Ok(receipt) => receipt.await,
                Err(error) => Err(error),
            };
            results.push(match outcome {
                Ok(published) => shape_published(&published),
                Err(error) => shape::refusal(&Failure::from(error)),
            });
        }
        Ok(json!({ "results": results }))
    }

    pub(super) async fn request(&mut self, args: &Args) -> Result<Value, Failure> {
        let name = args.text("name")?.unwrap_or_else(|| format!("request-{}", self.pending.len() + 1));
        let payload = self.place.mark.payload(args, 0)?;
        let messages = self.client().await?.messages();
        let request = match (args.text("to")?, args.text("topic")?) {
            (Some(agent), None) => messages.request(agent, payload),
            (None, Some(topic)) => messages.request_topic(topic, payload),
            _ => return Err(bad("a request goes `to` an agent or to a `topic`")),
        };
        let request = request.timeout(args.span("timeout")?.unwrap_or_else(patience));
        self.pending.insert(name.clone(), Pending(tokio::spawn(request.send())));
        self.last_request.clone_from(&name);
        Ok(json!({ "name": name }))
    }

    pub(super) async fn answer(&mut self, args: &Args) -> Result<Value, Failure> {
        let name = args.text("name")?.unwrap_or_else(|| self.last_request.clone());
        let Pending(task) = self.pending.remove(&name).ok_or_else(|| bad(format!("no request is called {name}")))?;
        let reply = task.await.map_err(|e| Failure::own("internal", format!("the request's task: {e}")))??;
        super::consume::shape_message(&reply.into_message(), &self.place)
    }

    pub(super) async fn reply(&mut self, args: &Args) -> Result<Value, Failure> {
        let payload = self.place.mark.payload(args, 0)?;
        let reply = self.last_received(args)?.reply(payload)?;
        Ok(shape_published(&reply.confirm().await?))
    }

    pub(super) async fn status(&mut self, args: &Args) -> Result<Value, Failure> {
        let id = id(&args.need("id")?)?;
        Ok(shape_status(&self.client().await?.messages().status(id).await?))
    }

    pub(super) async fn dead_letters(&mut self, args: &Args) -> Result<Value, Failure> {
        let (size, token) = (args.small_or("page_size", 0)?, args.text_or_empty("page_token")?);
        let subscription = args.need("subscription")?;
        let page = self.client().await?.dead_letters().page(subscription, size, token).await?;
        let letters = page.items.iter().map(|d| shape_dead_letter(d, false, &self.place));
        let letters = letters.collect::<Result<Vec<_>, _>>()?;
        Ok(json!({"dead_letters": letters, "next_page_token": page.next.unwrap_or_default()}))
    }

    pub(super) async fn dead_letter(&mut self, args: &Args) -> Result<Value, Failure> {
        let id = id(&args.need("id")?)?;
        shape_dead_letter(&self.client().await?.dead_letters().get(id).await?, true, &self.place)
    }

    pub(super) async fn redrive(&mut self, args: &Args) -> Result<Value, Failure> {
        let id = id(&args.need("id")?)?;
        let payload = if args.has("payload") { Some(self.place.mark.payload(args, 0)?) } else { None };
        let dead_letters = self.client().await?.dead_letters();
        let message = match payload {
            Some(payload) => dead_letters.redrive_with_payload(id, payload).await?,
            None => dead_letters.redrive(id).await?,
        };
        Ok(json!({ "message_id": message.to_string() }))
    }

    pub(super) async fn discard(&mut self, args: &Args) -> Result<Value, Failure> {
        let id = id(&args.need("id")?)?;
        self.client().await?.dead_letters().discard(id).await?;
        Ok(Value::Null)
    }
}
