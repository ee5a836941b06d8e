//! A producer session over `PublishStream`, frame by frame.

use std::collections::BTreeMap;

use acb_proto::v1;
use bytes::Bytes;
use prost::Message as _;

use super::{client::RawClient, failure::Failure, hot::HotStream};
use crate::wait::patience;

/// What became of one message of a stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Stored, or stored before.
    Stored(Stored),
    /// Refused.
    Refused(Failure),
}

/// Where a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its id; `None` for a duplicate whose position is no longer known.
    pub id: Option<String>,
    /// Its seq; 0 when not known.
    pub seq: u64,
    /// Its log's epoch.
    pub epoch: u32,
    /// Its log's class.
    pub class: u32,
    /// The level that was reached.
    pub durability: i32,
    /// Whether it was there before.
    pub duplicate: bool,
}

/// Name of a log class, as ids have it.
pub fn class_name(class: u32) -> String {
    let known = u8::try_from(class).ok().and_then(|c| acb_types::ClassId(c).name());
    known.map_or_else(|| format!("class{class}"), str::to_owned)
}

/// An open producer session.
#[derive(Debug)]
pub struct PublishSession {
    stream: HotStream,
    outcomes: BTreeMap<u64, Outcome>,
    next: u64,
    /// Notices that came, latest first to be asked for.
    pub notices: Notices,
}

/// What a server says on a hot stream beside answers.
#[derive(Clone, Debug, Default)]
pub struct Notices {
    /// The token ends at this time.
    pub auth_expiring: Option<u64>,
    /// The server drains.
    pub going_away: bool,
    /// The server is behind.
    pub slow_down: u32,
}

impl PublishSession {
    /// Opens a session of a producer id.
    ///
    /// # Errors
    /// What the opening was refused with.
    pub async fn open(client: &RawClient, producer: [u8; 16], epoch: u32, incarnation: u64) -> Result<Self, Failure> {
        let stream = client.hot(acb_proto::PUBLISH_STREAM).await?;
        let open = v1::PublishOpen { producer_id: producer.to_vec().into(), epoch, incarnation };
        stream.send_message(&v1::PublishStreamRequest { open: Some(open), ..Default::default() }).await?;
        let mut session = Self { stream, outcomes: BTreeMap::new(), next: 1, notices: Notices::default() };
        while !session.read().await? {}
        Ok(session)
    }

    /// The stream under it, for frames of one's own.
    pub fn stream(&mut self) -> &mut HotStream {
        &mut self.stream
    }

    /// Goes on counting from here.
    pub fn count_from(&mut self, counter: u64) {
        self.next = counter;
    }

    /// Number of the next message.
    pub fn next_counter(&self) -> u64 {
        self.next
    }

    /// Sends messages as one frame; answers with the number of the first.
    ///
    /// # Errors
    /// `connection_lost` when the stream ended.
    pub async fn send(&mut self, messages: Vec<v1::Message>, durability: v1::Durability) -> Result<u64, Failure> {
        let counter = self.next;
        self.next += messages.len() as u64;
        self.send_as(counter, messages, durability).await?;
        Ok(counter)
    }

    /// Sends messages under a number of one's choice.
    ///
    /// # Errors
    /// `connection_lost` when the stream ended.
    pub async fn send_as(
        &mut self,
        counter: u64,
        messages: Vec<v1::Message>,
        durability: v1::Durability,
    ) -> Result<(), Failure> {
        let frame = v1::PublishStreamRequest { counter, durability: durability as i32, messages, ..Default::default() };
        self.stream.send_message(&frame).await
    }

    /// Sends a new token.
    ///
    /// # Errors
    /// `connection_lost` when the stream ended.
    pub async fn reauth(&mut self, token: &str) -> Result<(), Failure> {
        let reauth = Some(v1::Reauth { token: token.to_owned() });
        self.stream.send_message(&v1::PublishStreamRequest { reauth, ..Default::default() }).await
    }

    /// What became of a message; waits for it.
    ///
    /// # Errors
    /// What the stream ended with, `no_answer` when it says nothing.
    pub async fn outcome(&mut self, counter: u64) -> Result<Outcome, Failure> {
        loop {
            if let Some(outcome) = self.outcomes.remove(&counter) {
                return Ok(outcome);
            }
            self.read().await?;
        }
    }

    /// Sends one frame and waits for what became of each message.
    ///
    /// # Errors
    /// As [`Self::outcome`].
    pub async fn publish(
        &mut self,
        messages: Vec<v1::Message>,
        durability: v1::Durability,
    ) -> Result<Vec<Outcome>, Failure> {
        let count = messages.len() as u64;
        let first = self.send(messages, durability).await?;
        let mut outcomes = Vec::new();
        for counter in first..first + count {
            outcomes.push(self.outcome(counter).await?);
        }
        Ok(outcomes)
    }

    /// All outcomes that have come and were not asked for.
    pub fn drain(&mut self) -> BTreeMap<u64, Outcome> {
        std::mem::take(&mut self.outcomes)
    }

    /// Takes one frame; says whether it answered the opening.
    ///
    /// # Errors
    /// As [`Self::outcome`].
    pub async fn read(&mut self) -> Result<bool, Failure> {
        match self.stream.next_within(patience()).await? {
            Some(frame) => self.take(frame),
            None => Err(Failure::lost("the stream was ended by the server")),
        }
    }

    fn take(&mut self, frame: Bytes) -> Result<bool, Failure> {
        let frame = v1::PublishStreamResponse::decode(frame)
            .map_err(|e| Failure::own("protocol_error", format!("no PublishStreamResponse: {e}")))?;
        for ack in &frame.acks {
            for i in 0..u64::from(ack.count) {
                let known = ack.first_seq != 0;
                let seq = if known { ack.first_seq + i } else { 0 };
                let id = format!("{}-{}-{}-{seq}", class_name(ack.class), ack.partition, ack.epoch);
                let stored = Stored {
                    id: known.then_some(id),
                    seq,
                    epoch: ack.epoch,
                    class: ack.class,
                    durability: ack.durability,
                    duplicate: ack.duplicate,
                };
                self.outcomes.insert(ack.counter + i, Outcome::Stored(stored));
            }
        }
        for reject in frame.rejects {
            let failure = Failure::from(reject.error.unwrap_or_default());
            for i in 0..u64::from(reject.count) {
                self.outcomes.insert(reject.counter + i, Outcome::Refused(failure.clone()));
            }
        }
        if let Some(expiring) = frame.auth_expiring {
            self.notices.auth_expiring = Some(expiring.expires_at_ms);
        }
        self.notices.going_away |= frame.going_away.is_some();
        self.notices.slow_down += u32::from(frame.slow_down.is_some());
        Ok(frame.opened.is_some())
    }
}
