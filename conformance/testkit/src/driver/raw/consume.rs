//! Messages in: consumers, credit, settlements. A consumer whose connection broke is opened again, under the same
//! session, when it is next asked.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use acb_proto::v1;
use serde_json::{Value, json};

use super::{RawDriver, build};
use crate::{
    driver::{Args, args::BAD_SCENARIO, shape},
    raw::{ConsumeSession, Delivered, Failure, Opening, RawClient},
    wait::{LOOK_AGAIN, patience},
};

/// The consumer that steps mean when they name none.
const MAIN: &str = "main";
/// The consumer of replies to this agent's requests.
const REPLIES: &str = "$reply";

/// Does something with a live consumer, which is opened again when its connection breaks.
macro_rules! with_session {
    ($self:ident, $args:expr, |$live:ident| $work:expr) => {{
        let started = Instant::now();
        loop {
            let attempt: Result<_, Failure> = async {
                let $live = $self.live($args).await?;
                $work
            }
            .await;
            match attempt {
                Ok(value) => break Ok(value),
                Err(failure) => {
                    if let Err(failure) = $self.over(failure, started).await {
                        break Err(failure);
                    }
                }
            }
        }
    }};
}

/// A consumer, with what it takes to open it again.
#[derive(Debug)]
pub(super) struct Session {
    opening: Opening,
    live: Option<ConsumeSession>,
    last: Option<Delivered>,
    /// Number of the last message that came over any connection.
    arrived: u64,
    /// What came over a connection that broke and was not asked for yet.
    kept: VecDeque<Delivered>,
}

impl Session {
    pub(super) fn lost(&mut self) {
        if let Some(mut live) = self.live.take() {
            self.arrived = live.last_delivery;
            while let Some(message) = live.buffered() {
                self.kept.push_back(message);
            }
        }
    }

    pub(super) async fn leave(self) -> Result<(), Failure> {
        match self.live {
            Some(live) => live.leave().await,
            None => Ok(()),
        }
    }

    async fn open(&mut self, client: &RawClient) -> Result<(), Failure> {
        let opening = Opening { resume: self.arrived, ..self.opening.clone() };
        let live = ConsumeSession::open(client, &opening).await?;
        if !live.opened.resumed {
            // The server knows nothing of the earlier connection: what it held is not ours any more.
            self.kept.clear();
        }
        self.live = Some(live);
        Ok(())
    }
}

impl RawDriver {
    pub(super) async fn consume(&mut self, args: &Args) -> Result<Value, Failure> {
        let own = &self.place.agent;
        let name = args.text("session")?.unwrap_or_else(|| MAIN.to_owned());
        let ephemeral = if args.has("filters") { Some(build::subscription(args)?) } else { None };
        let subscription = match (&ephemeral, args.text("subscription")?) {
            (Some(_), None) => String::new(),
            (None, Some(name)) => name,
            (None, None) => format!("$inbox.{own}"),
            (Some(_), Some(_)) => {
                return Err(Failure::own(BAD_SCENARIO, "a consumer has a subscription or filters of its own"));
            }
        };
        // An opening that broke is opened again under the same session: its leases wait for it.
        let session = *self.openings.entry(name.clone()).or_insert_with(rand::random);
        let opening = Opening {
            subscription,
            ephemeral,
            session,
            incarnation: args.number_or("incarnation", self.incarnation)?,
            resume: 0,
            credit_messages: args.small_or("credit", 64)?,
            credit_bytes: args.number_or("credit_bytes", 8 << 20)?,
        };
        let mut session = Session { opening, live: None, last: None, arrived: 0, kept: VecDeque::new() };
        let client = self.client().await?;
        match session.open(&client).await {
            Err(failure) if failure.is_lost() => return Err(failure),
            outcome => {
                self.openings.remove(&name);
                outcome?;
            }
        }
        let opened = session.live.as_ref().map(|l| l.opened.clone()).unwrap_or_default();
        self.sessions.insert(name, session);
        Ok(json!({"resumed": opened.resumed, "ack_wait_ms": opened.ack_wait_ms, "class": opened.class}))
    }

    fn named(&mut self, args: &Args) -> Result<&mut Session, Failure> {
        let name = args.text("session")?.unwrap_or_else(|| MAIN.to_owned());
        let unknown = || Failure::own(BAD_SCENARIO, format!("no consumer is called {name}"));
        self.sessions.get_mut(&name).ok_or_else(unknown)
    }

    /// A consumer that is open, opened again if need be.
    async fn live(&mut self, args: &Args) -> Result<&mut ConsumeSession, Failure> {
        let client = self.client().await?;
        let session = self.named(args)?;
        if session.live.is_none() {
            session.open(&client).await?;
        }
        session.live.as_mut().ok_or_else(|| Failure::lost("the consumer is not open"))
    }

    /// Gets over a break: the next attempt opens everything again. Gives up when it is too late.
    async fn over(&mut self, failure: Failure, started: Instant) -> Result<(), Failure> {
        if !failure.is_lost() || started.elapsed() >= patience() {
            return Err(failure);
        }
        self.disconnected();
        tokio::time::sleep(LOOK_AGAIN).await;
        Ok(())
    }

    pub(super) fn last_received(&mut self, args: &Args) -> Result<Delivered, Failure> {
        let last = self.named(args)?.last.clone();
        last.ok_or_else(|| Failure::own(BAD_SCENARIO, "nothing was received yet"))
    }

    pub(super) async fn credit(&mut self, args: &Args) -> Result<Value, Failure> {
        let (messages, bytes) = {
            let opening = &mut self.named(args)?.opening;
            opening.credit_messages = args.small_or("messages", opening.credit_messages)?;
            opening.credit_bytes = args.number_or("bytes", opening.credit_bytes)?;
            (opening.credit_messages, opening.credit_bytes)
        };
        with_session!(self, args, |live| {
            live.credit(messages, bytes).await?;
            live.barrier().await
        })?;
        Ok(Value::Null)
    }

    pub(super) async fn receive(&mut self, args: &Args) -> Result<Value, Failure> {
        let count = args.number_or("count", 1)?;
        let mut messages = Vec::new();
        for number in 0..count {
            let kept = self.named(args)?.kept.pop_front();
            let message = match kept {
                Some(message) => message,
                None => with_session!(self, args, |live| live.message().await).map_err(|mut failure: Failure| {
                    if number > 0 {
                        failure.message = format!("{} of {count} came; {}", number, failure.message);
                    }
                    failure
                })?,
            };
            messages.push(shape::delivered(&message, &self.place.mark)?);
            self.named(args)?.last = Some(message);
        }
        if !args.has("count") {
            return Ok(messages.pop().unwrap_or_default());
        }
        let payloads: Vec<Value> = messages.iter().map(|m| m["payload"].clone()).collect();
        Ok(json!({"messages": messages, "payloads": payloads}))
    }

    pub(super) async fn nothing(&mut self, args: &Args) -> Result<Value, Failure> {
        let buffered = with_session!(self, args, |live| {
            live.barrier().await?;
            Ok(live.buffered())
        })?;
        let kept = self.named(args)?.kept.pop_front();
        match kept.or(buffered) {
            None => Ok(Value::Null),
            Some(message) => {
                let shown = shape::delivered(&message, &self.place.mark)?;
                Err(Failure::own("unexpected_message", shown.to_string()))
            }
        }
    }

    pub(super) async fn settle(&mut self, verb: &str, args: &Args) -> Result<Value, Failure> {
        let first_seq = match args.number("seq")? {
            Some(seq) => seq,
            None => self.last_received(args)?.seq,
        };
        let count = args.small_or("count", 1)?;
        let confirm = args.flag("confirm")?;
        let reason = args.text_or_empty("reason")?;
        let range = || vec![v1::SeqRange { first_seq, count }];
        let mut frame = v1::ConsumeRequest::default();
        match verb {
            "ack" if confirm => frame.confirmed_acks = range(),
            "ack" => frame.acks = range(),
            "nack" => {
                let delay_ms = build::ms(args.span("delay")?);
                frame.nacks = vec![v1::Nack { first_seq, count, delay_ms, reason }];
            }
            "progress" => frame.progress = range(),
            "term" => frame.terms = vec![v1::Term { first_seq, count, reason }],
            _ => frame.releases = range(),
        }
        with_session!(self, args, |live| {
            live.send(frame.clone()).await?;
            if confirm { live.settled(first_seq).await } else { live.barrier().await }
        })?;
        Ok(Value::Null)
    }

    /// The refusal of a plain settlement, as this step's failure.
    pub(super) async fn refused(&mut self, args: &Args) -> Result<Value, Failure> {
        let seq = match args.number("seq")? {
            Some(seq) => seq,
            None => self.last_received(args)?.seq,
        };
        with_session!(self, args, |live| live.settled(seq).await)?;
        Ok(Value::Null)
    }

    pub(super) async fn gap(&mut self, args: &Args) -> Result<Value, Failure> {
        let gap = with_session!(self, args, |live| {
            while live.gaps.is_empty() {
                live.read().await?;
            }
            Ok(live.gaps.remove(0))
        })?;
        Ok(json!({"from_seq": gap.from_seq, "to_seq": gap.to_seq, "reason": gap.reason}))
    }

    /// The end of a consumer's stream, as this step's failure.
    pub(super) async fn ended(&mut self, args: &Args) -> Result<Value, Failure> {
        let session = self.named(args)?;
        let Some(mut live) = session.live.take() else { return Err(Failure::lost("the consumer is not open")) };
        loop {
            live.read().await?;
        }
    }

    pub(super) async fn leave(&mut self, args: &Args) -> Result<Value, Failure> {
        let name = args.text("session")?.unwrap_or_else(|| MAIN.to_owned());
        match self.sessions.remove(&name) {
            Some(session) => session.leave().await?,
            None => return Err(Failure::own(BAD_SCENARIO, format!("no consumer is called {name}"))),
        }
        Ok(Value::Null)
    }

    pub(super) async fn reauth(&mut self, args: &Args) -> Result<Value, Failure> {
        let token = args.need("token")?;
        with_session!(self, args, |live| {
            let reauth = Some(v1::Reauth { token: token.clone() });
            live.send(v1::ConsumeRequest { reauth, ..Default::default() }).await?;
            live.barrier().await
        })?;
        Ok(Value::Null)
    }

    pub(super) async fn auth_expiring(&mut self, args: &Args) -> Result<Value, Failure> {
        let at = with_session!(self, args, |live| loop {
            if let Some(at) = live.notices.auth_expiring.take() {
                break Ok(at);
            }
            live.read().await?;
        })?;
        Ok(json!({ "expires_at_ms": at }))
    }

    /// Opens the consumer of replies, if it is not open.
    pub(super) async fn listen_for_replies(&mut self) -> Result<(), Failure> {
        if self.sessions.contains_key(REPLIES) {
            return Ok(());
        }
        let subscription = format!("$reply.{}", self.place.agent);
        let opening = Opening {
            subscription,
            session: rand::random(),
            incarnation: self.incarnation,
            credit_messages: 64,
            credit_bytes: 8 << 20,
            ..Opening::default()
        };
        let mut session = Session { opening, live: None, last: None, arrived: 0, kept: VecDeque::new() };
        session.open(&self.client().await?).await?;
        self.sessions.insert(REPLIES.to_owned(), session);
        Ok(())
    }

    /// Waits for the reply of a correlation id and acknowledges it. Replies to other requests are kept for those who
    /// will ask for them.
    pub(super) async fn reply_to(&mut self, correlation_id: &str, within: Duration) -> Result<Value, Failure> {
        if let Some(reply) = self.replies.remove(correlation_id) {
            return shape::delivered(&reply, &self.place.mark);
        }
        let args = Args::from(json!({ "session": REPLIES }).as_object().cloned().unwrap_or_default());
        let waiting = async {
            loop {
                let reply = with_session!(self, &args, |live| {
                    let message = live.message().await?;
                    let acks = vec![crate::raw::one(message.seq)];
                    live.send(v1::ConsumeRequest { acks, ..Default::default() }).await?;
                    Ok(message)
                });
                match reply {
                    Ok(reply) if reply.message.correlation_id != correlation_id => {
                        self.replies.insert(reply.message.correlation_id.clone(), reply);
                    }
                    other => break other,
                }
            }
        };
        match tokio::time::timeout(within, waiting).await {
            Ok(reply) => shape::delivered(&reply?, &self.place.mark),
            Err(_) => Err(Failure::own("timeout", format!("no reply within {within:?}"))),
        }
    }
}
