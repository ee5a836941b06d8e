//! Messages out, one at a time and over the hot stream; requests; what became of them.

use std::time::{Duration, Instant};

use acb_proto::v1;
use prost::Message as _;
use serde_json::{Value, json};

use super::{RawDriver, build, id_of};
use crate::{
    driver::{Args, args::BAD_SCENARIO, shape},
    raw::{Failure, Outcome, PublishSession, answer},
    wait::{LOOK_AGAIN, patience},
};

/// Messages and bytes of one frame, as a client that batches would choose.
const FRAME: (usize, usize) = (64, 128 * 1024);

/// A request whose answer was not asked for yet.
#[derive(Debug)]
pub(super) struct Pending {
    correlation_id: String,
    within: Duration,
    refused: Option<Failure>,
}

impl RawDriver {
    pub(super) async fn send(&mut self, args: &Args) -> Result<Value, Failure> {
        let message = build::message(args, &self.place, 0)?;
        let request = v1::SendRequest { message: Some(message), durability: build::durability(args)? as i32 };
        self.send_message(request).await
    }

    async fn send_message(&mut self, request: v1::SendRequest) -> Result<Value, Failure> {
        let sent = answer(self.client().await?.messages().send(request)).await?;
        let number = |at: usize| sent.message_id.rsplit('-').nth(at).and_then(|n| n.parse::<u64>().ok());
        Ok(json!({
            "message_id": sent.message_id, "seq": number(0), "epoch": number(1),
            "durability": shape::durability(sent.durability), "duplicate": sent.duplicate,
        }))
    }

    /// Over the hot stream, resent under the same numbers when the connection breaks.
    pub(super) async fn publish(&mut self, args: &Args) -> Result<Value, Failure> {
        let level = build::durability(args)?;
        let count = args.number_or("count", 1)?;
        let messages = (0..count).map(|i| build::message(args, &self.place, i)).collect::<Result<Vec<_>, _>>()?;
        let first = self.counter;
        self.counter += count;
        let mut outcomes: Vec<Option<Outcome>> = vec![None; messages.len()];
        let started = Instant::now();
        loop {
            match self.publish_missing(first, &messages, level, &mut outcomes).await {
                Ok(()) => break,
                Err(failure) if failure.is_lost() && started.elapsed() < patience() => {
                    self.disconnected();
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                Err(failure) => return Err(failure),
            }
        }
        let results: Vec<Value> = outcomes.iter().flatten().map(shape::outcome).collect();
        Ok(json!({ "results": results }))
    }

    async fn publish_missing(
        &mut self,
        first: u64,
        messages: &[v1::Message],
        level: v1::Durability,
        outcomes: &mut [Option<Outcome>],
    ) -> Result<(), Failure> {
        let mut session = match self.publisher.take() {
            Some(session) => session,
            None => PublishSession::open(&self.client().await?, self.producer, 1, self.incarnation).await?,
        };
        // What was answered is always a head of the list: frames are answered in order of their partition, and those
        // that were not are sent again from the first unanswered on.
        let from = outcomes.iter().position(Option::is_none).unwrap_or(messages.len());
        let mut at = from;
        while at < messages.len() {
            let (mut end, mut bytes) = (at, 0);
            while end < messages.len() && end - at < FRAME.0 && (end == at || bytes < FRAME.1) {
                bytes += messages[end].encoded_len();
                end += 1;
            }
            if end - at > 1 && bytes > FRAME.1 {
                end -= 1;
            }
            session.send_as(first + at as u64, messages[at..end].to_vec(), level).await?;
            at = end;
        }
        for (i, outcome) in outcomes.iter_mut().enumerate().skip(from) {
            *outcome = Some(session.outcome(first + i as u64).await?);
        }
        self.publisher = Some(session);
        Ok(())
    }

    /// One frame, under a number that the scenario chose.
    pub(super) async fn publish_frame(&mut self, args: &Args) -> Result<Value, Failure> {
        let name = args.text("producer")?.unwrap_or_else(|| "producer".to_owned());
        let epoch = args.small_or("epoch", 1)?;
        let incarnation = args.number_or("incarnation", self.incarnation)?;
        let messages = args.each("messages")?;
        let messages =
            messages.iter().map(|m| build::message(m, &self.place, 0)).collect::<Result<Vec<_>, Failure>>()?;
        let key = (name.clone(), epoch);
        if !self.frames.contains_key(&key) {
            let session = PublishSession::open(&self.client().await?, id_of(&name), epoch, incarnation).await?;
            self.frames.insert(key.clone(), session);
        }
        let Some(session) = self.frames.get_mut(&key) else { return Err(Failure::own(BAD_SCENARIO, name)) };
        let counter = args.number_or("counter", session.next_counter())?;
        let count = messages.len() as u64;
        session.count_from(counter + count);
        let run = async {
            session.send_as(counter, messages, build::durability(args)?).await?;
            let mut results = Vec::new();
            for n in counter..counter + count {
                results.push(shape::outcome(&session.outcome(n).await?));
            }
            Ok(json!({ "results": results }))
        };
        let outcome: Result<Value, Failure> = run.await;
        if outcome.is_err() {
            self.frames.remove(&key);
        }
        outcome
    }

    pub(super) async fn request(&mut self, args: &Args) -> Result<Value, Failure> {
        let own = &self.place.agent;
        let name = args.text("name")?.unwrap_or_else(|| format!("request-{}", self.pending.len() + 1));
        let correlation_id = format!("{own}-{name}-{:016x}", rand::random::<u64>());
        let timeout = args.span("timeout")?;
        let mut message = build::message(args, &self.place, 0)?;
        message.kind = v1::MessageKind::Request as i32;
        message.reply_to = format!("$acb.reply.{own}");
        message.correlation_id.clone_from(&correlation_id);
        message.expires_at_ms = timeout.map_or(0, |t| self.place.clock.after(t));
        // Whoever asks listens first: an answer must not wait for somebody to come.
        let request = v1::SendRequest { message: Some(message), durability: build::durability(args)? as i32 };
        let refused = match self.listen_for_replies().await {
            Ok(()) => self.send_message(request).await.err(),
            Err(failure) => Some(failure),
        };
        let pending = Pending { correlation_id, within: timeout.unwrap_or_else(patience), refused };
        self.pending.insert(name.clone(), pending);
        self.last_request.clone_from(&name);
        Ok(json!({ "name": name }))
    }

    pub(super) async fn answer(&mut self, args: &Args) -> Result<Value, Failure> {
        let name = args.text("name")?.unwrap_or_else(|| self.last_request.clone());
        let unknown = || Failure::own(BAD_SCENARIO, format!("no request is called {name}"));
        let Pending { correlation_id, within, refused } = self.pending.remove(&name).ok_or_else(unknown)?;
        match refused {
            Some(failure) => Err(failure),
            None => self.reply_to(&correlation_id, within).await,
        }
    }

    /// Answers the request that a session received last.
    pub(super) async fn reply(&mut self, args: &Args) -> Result<Value, Failure> {
        let request = self.last_received(args)?.message;
        let message = v1::Message {
            topic: request.reply_to,
            kind: v1::MessageKind::Reply as i32,
            correlation_id: request.correlation_id,
            payload: self.place.mark.payload(args, 0)?,
            ..Default::default()
        };
        self.send_message(v1::SendRequest { message: Some(message), durability: 0 }).await
    }

    pub(super) async fn status(&mut self, args: &Args) -> Result<Value, Failure> {
        let request = v1::GetMessageStatusRequest { message_id: args.need("id")? };
        Ok(shape::status(&answer(self.client().await?.messages().get_message_status(request)).await?))
    }

    pub(super) async fn dead_letters(&mut self, args: &Args) -> Result<Value, Failure> {
        let request = v1::ListDeadLettersRequest {
            subscription: args.need("subscription")?,
            page_size: args.small_or("page_size", 0)?,
            page_token: args.text_or_empty("page_token")?,
        };
        let page = answer(self.client().await?.dead_letters().list_dead_letters(request)).await?;
        let letters = page.dead_letters.iter().map(|d| shape::dead_letter(d, false, &self.place.mark));
        let letters = letters.collect::<Result<Vec<_>, _>>()?;
        Ok(json!({"dead_letters": letters, "next_page_token": page.next_page_token}))
    }

    pub(super) async fn dead_letter(&mut self, args: &Args) -> Result<Value, Failure> {
        let request = v1::GetDeadLetterRequest { dead_letter_id: args.need("id")? };
        let found = answer(self.client().await?.dead_letters().get_dead_letter(request)).await?;
        shape::dead_letter(&found.dead_letter.unwrap_or_default(), true, &self.place.mark)
    }

    pub(super) async fn redrive(&mut self, args: &Args) -> Result<Value, Failure> {
        let payload = if args.has("payload") { Some(self.place.mark.payload(args, 0)?) } else { None };
        let request = v1::RedriveDeadLetterRequest { dead_letter_id: args.need("id")?, payload };
        let driven = answer(self.client().await?.dead_letters().redrive_dead_letter(request)).await?;
        Ok(json!({ "message_id": driven.message_id }))
    }

    pub(super) async fn discard(&mut self, args: &Args) -> Result<Value, Failure> {
        let request = v1::DiscardDeadLetterRequest { dead_letter_id: args.need("id")? };
        answer(self.client().await?.dead_letters().discard_dead_letter(request)).await?;
        Ok(Value::Null)
    }
}
