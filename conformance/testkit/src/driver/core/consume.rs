//! Messages in: subscriptions, credit, settlements.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use acb_proto::v1;
use acb_sdk::{Message, Subscription};
use serde_json::{Value, json};

use super::{CoreDriver, messages::on_the_wire, registry::definition};
use crate::{
    driver::{Args, Place, args::BAD_SCENARIO, shape},
    raw::{Delivered, Failure, answer},
    wait::{LOOK_AGAIN, patience},
};

/// The consumer that steps mean when they name none.
pub(super) const MAIN: &str = "main";

/// Long enough for the client's own tasks to hand on what has arrived.
pub(super) const MOMENT: Duration = Duration::from_millis(10);

/// An open subscription and what came of it.
#[derive(Debug)]
pub(super) struct Session {
    subscription: Subscription,
    credit: (u32, u64),
    received: BTreeMap<u64, Message>,
    last: Option<Message>,
    count: u64,
}

/// A message as results show it.
pub(super) fn shape_message(m: &Message, place: &Place) -> Result<Value, Failure> {
    let id = m.id();
    let delivered = Delivered {
        seq: m.seq(),
        epoch: id.epoch,
        class: u32::from(id.class.0),
        attempt: m.attempt(),
        delivery: 0,
        stored_at_ms: m.stored_at().0,
        from: m.from().to_owned(),
        from_incarnation: m.from_incarnation(),
        message: on_the_wire(&m.envelope()?)?,
    };
    let mut shown = shape::delivered(&delivered, &place.mark)?;
    shown["late"] = m.is_late().into();
    Ok(shown)
}

impl CoreDriver {
    fn named(&mut self, args: &Args) -> Result<&mut Session, Failure> {
        let name = args.text("session")?.unwrap_or_else(|| MAIN.to_owned());
        let unknown = || Failure::own(BAD_SCENARIO, format!("no consumer is called {name}"));
        self.sessions.get_mut(&name).ok_or_else(unknown)
    }

    pub(super) fn last_received(&mut self, args: &Args) -> Result<Message, Failure> {
        let last = self.named(args)?.last.clone();
        last.ok_or_else(|| Failure::own(BAD_SCENARIO, "nothing was received yet"))
    }

    pub(super) async fn consume(&mut self, args: &Args) -> Result<Value, Failure> {
        let client = self.client().await?;
        let builder = match args.text("subscription")? {
            Some(name) => client.subscribe(name),
            None if args.has("filters") => {
                // Whatever is wrong with the definition is this step's failure, not the driver's.
                let empty = acb_sdk::SubscriptionSpec::new("");
                let _ = definition(args, empty)?;
                client.listen(args.texts("filters")?).spec(|spec| definition(args, spec).unwrap_or_default())
            }
            None => client.inbox(),
        };
        let credit = (args.small_or("credit", 64)?, args.number_or("credit_bytes", 8 << 20)?);
        let subscription = builder.credits(credit.0).credit_bytes(credit.1).await?;
        let ack_wait_ms = subscription.ack_wait().as_millis() as u64;
        let name = args.text("session")?.unwrap_or_else(|| MAIN.to_owned());
        let session = Session { subscription, credit, received: BTreeMap::new(), last: None, count: 0 };
        self.sessions.insert(name, session);
        Ok(json!({ "ack_wait_ms": ack_wait_ms }))
    }

    pub(super) fn credit(&mut self, args: &Args) -> Result<Value, Failure> {
        let session = self.named(args)?;
        session.credit = (args.small_or("messages", session.credit.0)?, args.number_or("bytes", session.credit.1)?);
        session.subscription.set_credits(session.credit.0, session.credit.1)?;
        Ok(Value::Null)
    }

    pub(super) async fn receive(&mut self, args: &Args) -> Result<Value, Failure> {
        let count = args.number_or("count", 1)?;
        let mut messages = Vec::new();
        for number in 0..count {
            let session = self.named(args)?;
            let message = match tokio::time::timeout(patience(), session.subscription.next()).await {
                Ok(Some(message)) => message?,
                Ok(None) => return Err(Failure::own("ended", "the subscription is over")),
                Err(_) => {
                    let text = format!("{number} of {count} came within {:?}", patience());
                    return Err(Failure::own("no_answer", text));
                }
            };
            session.received.insert(message.seq(), message.clone());
            session.last = Some(message.clone());
            session.count += 1;
            let delivery = session.count;
            let mut shown = shape_message(&message, &self.place)?;
            shown["delivery"] = delivery.into();
            messages.push(shown);
        }
        if !args.has("count") {
            return Ok(messages.pop().unwrap_or_default());
        }
        let payloads: Vec<&Value> = messages.iter().map(|m| &m["payload"]).collect();
        Ok(json!({"payloads": payloads, "messages": messages}))
    }

    pub(super) async fn nothing(&mut self, args: &Args) -> Result<Value, Failure> {
        // The answer of a call comes behind what the same connection was being told. It is a weaker proof than a raw
        // client's: it can miss a message that comes too late, and never sees one that does not come.
        let client = self.client().await?;
        client.health().await?;
        client.health().await?;
        // What has arrived still has to go from the connection's task to the subscription.
        match tokio::time::timeout(MOMENT, self.named(args)?.subscription.next()).await {
            Err(_) => Ok(Value::Null),
            Ok(None) => Err(Failure::own("ended", "the subscription is over")),
            Ok(Some(Ok(message))) => {
                let shown = shape_message(&message, &self.place)?;
                Err(Failure::own("unexpected_message", shown.to_string()))
            }
            Ok(Some(Err(error))) => Err(error.into()),
        }
    }

    pub(super) async fn settle(&mut self, verb: &str, args: &Args) -> Result<Value, Failure> {
        let count = args.number_or("count", 1)?;
        let first = match args.number("seq")? {
            Some(seq) => seq,
            None => self.last_received(args)?.seq(),
        };
        for seq in first..first + count {
            let message = self.named(args)?.received.get(&seq).cloned();
            let unknown = || Failure::own(BAD_SCENARIO, format!("seq {seq} was not received"));
            self.settle_one(verb, args, &message.ok_or_else(unknown)?).await?;
        }
        Ok(Value::Null)
    }

    async fn settle_one(&mut self, verb: &str, args: &Args, message: &Message) -> Result<(), Failure> {
        let (delay, reason) = (args.span("delay")?, args.text_or_empty("reason")?);
        let id = message.id().to_string();
        let before = self.standing(&id).await?;
        match verb {
            "ack" if args.flag("confirm")? => return Ok(message.ack_confirmed().await?),
            "ack" => message.ack()?,
            "nack" => message.nack(delay, reason)?,
            "progress" => message.progress()?,
            "term" => message.term(reason)?,
            _ => message.release()?,
        }
        // Given back, it may be with the same consumer again before anybody looks.
        if verb == "release" || verb == "progress" && !self.may_move(&before, message) {
            return Ok(());
        }
        // A client does not say when the server has taken a settlement; the server does.
        let started = Instant::now();
        while self.standing(&id).await? == before && started.elapsed() < patience() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Whether a lease that starts anew now ends later than it did.
    fn may_move(&self, before: &Value, message: &Message) -> bool {
        let end = self.place.clock.after(message.ack_wait());
        let leases = before.as_array().into_iter().flatten();
        leases.filter(|s| s["state"] == "leased").any(|s| s["due_at_ms"].as_u64().is_some_and(|due| due < end))
    }

    /// Where a message stands, as the server says.
    async fn standing(&mut self, id: &str) -> Result<Value, Failure> {
        let probe = self.probe().await?;
        let request = v1::GetMessageStatusRequest { message_id: id.to_owned() };
        match answer(probe.messages().get_message_status(request)).await {
            Ok(status) => Ok(shape::status(&status)["subscriptions"].clone()),
            Err(failure) if failure.is_lost() => {
                self.probe = None;
                Ok(Value::Null)
            }
            Err(_) => Ok(Value::Null),
        }
    }

    /// The end of a subscription, as this step's failure.
    pub(super) async fn ended(&mut self, args: &Args) -> Result<Value, Failure> {
        let session = self.named(args)?;
        let end = async {
            loop {
                match session.subscription.next().await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Failure::from(error),
                    None => return Failure::own("ended", "the subscription is over, without a reason"),
                }
            }
        };
        match tokio::time::timeout(patience(), end).await {
            Ok(failure) => Err(failure),
            Err(_) => Err(Failure::own("no_answer", "the subscription goes on")),
        }
    }

    pub(super) fn leave(&mut self, args: &Args) -> Result<Value, Failure> {
        let name = args.text("session")?.unwrap_or_else(|| MAIN.to_owned());
        match self.sessions.remove(&name) {
            Some(session) => session.subscription.close(),
            None => return Err(Failure::own(BAD_SCENARIO, format!("no consumer is called {name}"))),
        }
        Ok(Value::Null)
    }
}
