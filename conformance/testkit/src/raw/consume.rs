//! A consumer session over `Consume`, frame by frame.

use std::collections::VecDeque;

use acb_proto::v1;
use bytes::Bytes;
use prost::Message as _;

use super::{client::RawClient, failure::Failure, hot::HotStream, publish::Notices};
use crate::wait::patience;

/// A message as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivered {
    /// Its seq.
    pub seq: u64,
    /// Its log's epoch when it was stored.
    pub epoch: u32,
    /// Its log's class.
    pub class: u32,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// Its number in the session, from 1.
    pub delivery: u64,
    /// When it was stored.
    pub stored_at_ms: u64,
    /// Who sent it.
    pub from: String,
    /// That agent's incarnation.
    pub from_incarnation: u64,
    /// What was sent.
    pub message: v1::Message,
}

impl Delivered {
    /// The message's id.
    pub fn id(&self) -> String {
        format!("{}-0-{}-{}", super::publish::class_name(self.class), self.epoch, self.seq)
    }
}

/// How a session is opened.
#[derive(Clone, Debug, Default)]
pub struct Opening {
    /// A durable subscription.
    pub subscription: String,
    /// An ephemeral one instead.
    pub ephemeral: Option<v1::SubscriptionSpec>,
    /// Chosen by the client.
    pub session: [u8; 16],
    /// Of the agent.
    pub incarnation: u64,
    /// Number of the last message that arrived, on a resume.
    pub resume: u64,
    /// Messages at once.
    pub credit_messages: u32,
    /// Bytes at once.
    pub credit_bytes: u64,
}

/// An open consumer session.
#[derive(Debug)]
pub struct ConsumeSession {
    stream: HotStream,
    /// What the opening was answered with.
    pub opened: v1::ConsumeOpened,
    messages: VecDeque<Delivered>,
    settled: Vec<v1::Settled>,
    /// What the subscription will never get.
    pub gaps: Vec<v1::Gap>,
    /// Number of the last message that came.
    pub last_delivery: u64,
    /// Notices that came.
    pub notices: Notices,
}

impl ConsumeSession {
    /// Opens a session.
    ///
    /// # Errors
    /// What the opening was refused with.
    pub async fn open(client: &RawClient, opening: &Opening) -> Result<Self, Failure> {
        let stream = client.hot(acb_proto::CONSUME).await?;
        let open = v1::ConsumeOpen {
            subscription: opening.subscription.clone(),
            ephemeral: opening.ephemeral.clone(),
            session_id: opening.session.to_vec().into(),
            incarnation: opening.incarnation,
            resume_delivery: opening.resume,
            credit: Some(v1::Credit { messages: opening.credit_messages, bytes: opening.credit_bytes }),
        };
        stream.send_message(&v1::ConsumeRequest { open: Some(open), ..Default::default() }).await?;
        let mut session = Self {
            stream,
            opened: v1::ConsumeOpened::default(),
            messages: VecDeque::new(),
            settled: Vec::new(),
            gaps: Vec::new(),
            last_delivery: opening.resume,
            notices: Notices::default(),
        };
        while !session.read().await? {}
        Ok(session)
    }

    /// The stream under it, for frames of one's own.
    pub fn stream(&mut self) -> &mut HotStream {
        &mut self.stream
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// `connection_lost` when the stream ended.
    pub async fn send(&mut self, frame: v1::ConsumeRequest) -> Result<(), Failure> {
        self.stream.send_message(&frame).await
    }

    /// Changes the credit.
    ///
    /// # Errors
    /// `connection_lost` when the stream ended.
    pub async fn credit(&mut self, messages: u32, bytes: u64) -> Result<(), Failure> {
        let credit = Some(v1::Credit { messages, bytes });
        self.send(v1::ConsumeRequest { credit, ..Default::default() }).await
    }

    /// Acknowledges one message, and waits until that is on disk.
    ///
    /// # Errors
    /// What the ack was refused with.
    pub async fn ack_confirmed(&mut self, seq: u64) -> Result<(), Failure> {
        let confirmed_acks = vec![one(seq)];
        self.send(v1::ConsumeRequest { confirmed_acks, ..Default::default() }).await?;
        self.settled(seq).await
    }

    /// The answer to a settlement of a seq; waits for it.
    ///
    /// # Errors
    /// What it was refused with.
    pub async fn settled(&mut self, seq: u64) -> Result<(), Failure> {
        self.answer_to(seq).await?.error.map_or(Ok(()), |e| Err(e.into()))
    }

    async fn answer_to(&mut self, seq: u64) -> Result<v1::Settled, Failure> {
        loop {
            let of = |s: &v1::Settled| s.first_seq <= seq && seq < s.first_seq + u64::from(s.count);
            if let Some(at) = self.settled.iter().position(of) {
                return Ok(self.settled.remove(at));
            }
            self.read().await?;
        }
    }

    /// Answers to settlements that have come and were not asked for.
    pub fn take_settled(&mut self) -> Vec<v1::Settled> {
        std::mem::take(&mut self.settled)
    }

    /// The next message; waits for it.
    ///
    /// # Errors
    /// What the stream ended with, `no_answer` when nothing comes.
    pub async fn message(&mut self) -> Result<Delivered, Failure> {
        loop {
            if let Some(message) = self.messages.pop_front() {
                return Ok(message);
            }
            self.read().await?;
        }
    }

    /// A message that has come already.
    pub fn buffered(&mut self) -> Option<Delivered> {
        self.messages.pop_front()
    }

    /// Waits until the server has worked off all that this stream has sent, and until what that brought is here: a
    /// settlement of a seq that this session never had is answered at once, behind everything that was on its way.
    ///
    /// # Errors
    /// As [`Self::message`].
    pub async fn barrier(&mut self) -> Result<(), Failure> {
        const NEVER_GIVEN: u64 = u64::MAX / 2;
        let confirmed_acks = vec![one(NEVER_GIVEN)];
        self.send(v1::ConsumeRequest { confirmed_acks, ..Default::default() }).await?;
        self.answer_to(NEVER_GIVEN).await.map(drop)
    }

    /// Ends the session in good order and reads what was still on its way.
    ///
    /// # Errors
    /// What the stream ended with.
    pub async fn leave(mut self) -> Result<(), Failure> {
        self.stream.half_close();
        while self.stream.next_within(patience()).await?.is_some() {}
        Ok(())
    }

    /// Takes one frame; says whether it answered the opening.
    ///
    /// # Errors
    /// As [`Self::message`].
    pub async fn read(&mut self) -> Result<bool, Failure> {
        match self.stream.next_within(patience()).await? {
            Some(frame) => self.take(frame),
            None => Err(Failure::lost("the stream was ended by the server")),
        }
    }

    /// Takes one frame, but does not wait longer than given; says whether one came.
    ///
    /// # Errors
    /// What the stream ended with.
    pub async fn read_within(&mut self, span: std::time::Duration) -> Result<bool, Failure> {
        match self.stream.next_within(span).await {
            Ok(Some(frame)) => self.take(frame).map(|_| true),
            Ok(None) => Err(Failure::lost("the stream was ended by the server")),
            Err(failure) if failure.code == "no_answer" => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    fn take(&mut self, frame: Bytes) -> Result<bool, Failure> {
        let frame = v1::ConsumeResponse::decode(frame)
            .map_err(|e| Failure::own("protocol_error", format!("no ConsumeResponse: {e}")))?;
        let answers = frame.opened.is_some();
        if let Some(opened) = frame.opened {
            if !opened.resumed {
                self.last_delivery = 0;
            }
            self.opened = opened;
        }
        self.gaps.extend(frame.gaps);
        self.settled.extend(frame.settled);
        if let Some(expiring) = frame.auth_expiring {
            self.notices.auth_expiring = Some(expiring.expires_at_ms);
        }
        self.notices.going_away |= frame.going_away.is_some();
        let told: u64 = frame.runs.iter().map(|r| u64::from(r.count)).sum();
        if told != frame.messages.len() as u64 {
            let text = format!("runs of {told} messages, and {} messages", frame.messages.len());
            return Err(Failure::own("protocol_error", text));
        }
        if frame.messages.is_empty() {
            return Ok(answers);
        }
        if frame.delivery != self.last_delivery + 1 {
            let text = format!("delivery {} after {}: a hole", frame.delivery, self.last_delivery);
            return Err(Failure::own("protocol_error", text));
        }
        let mut messages = frame.messages.into_iter();
        for run in &frame.runs {
            for (i, message) in (0..u64::from(run.count)).zip(&mut messages) {
                self.last_delivery += 1;
                self.messages.push_back(Delivered {
                    seq: run.first_seq + i,
                    epoch: run.epoch,
                    class: self.opened.class,
                    attempt: run.attempt,
                    delivery: self.last_delivery,
                    stored_at_ms: run.stored_at_ms,
                    from: run.from.clone(),
                    from_incarnation: run.from_incarnation,
                    message,
                });
            }
        }
        Ok(answers)
    }
}

/// One seq.
pub fn one(seq: u64) -> v1::SeqRange {
    v1::SeqRange { first_seq: seq, count: 1 }
}
