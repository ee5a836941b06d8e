//! A consumer that speaks the wire contract by hand: it acknowledges in ranges over whatever lies between, plain and
//! confirmed, and finds its own way back after a kill.

use std::{sync::Arc, time::Duration};

use acb_proto::v1;
use acb_sdk::{Client, StartAt, SubscriptionSpec};
use acb_testkit::{
    raw::{ConsumeSession, Delivered, Failure, Identity, Opening, RawClient},
    wait::LOOK_AGAIN,
};
use anyhow::{Context as _, Result};
use async_trait::async_trait;

use super::{
    Kind,
    consume::{ACK_WAIT, Who},
    stage::{Stage, TENANT, body_of},
};
use crate::history::{Event, How, Place};

/// Messages that it takes before it acknowledges.
const BATCH: usize = 24;
/// Every so many batches are confirmed.
const CONFIRM_EVERY: u64 = 3;
/// What it holds at once.
const CREDIT: (u32, u64) = (64, 1 << 20);
/// How long it waits for more before it acknowledges what it has.
const MORE_WITHIN: Duration = Duration::from_millis(20);
/// Attempts before a message is dead: more than anything here fails.
const ATTEMPTS: u32 = 100;

/// The consumer.
#[derive(Debug)]
pub(super) struct Ranges {
    name: String,
    filters: Vec<String>,
    client: Option<Client>,
}

impl Ranges {
    pub(super) fn new(name: &str, filters: &[&str]) -> Self {
        Self { name: name.to_owned(), filters: filters.iter().map(|f| (*f).to_owned()).collect(), client: None }
    }
}

#[async_trait]
impl Kind for Ranges {
    fn name(&self) -> String {
        self.name.clone()
    }

    async fn prepare(&mut self, stage: &Arc<Stage>) -> Result<()> {
        let client = stage.client(&self.name).await?;
        let mut spec =
            SubscriptionSpec::new(&self.name).ack_wait(ACK_WAIT).max_attempts(ATTEMPTS).start_at(StartAt::All);
        for filter in &self.filters {
            spec = spec.filter(filter);
        }
        stage.history.add(Event::Subscribed {
            subscription: self.name.clone(),
            class: acb_types::ClassId::TOPICS.0,
            filters: self.filters.clone(),
            start_seq: 1,
            ack_wait_ms: ACK_WAIT.as_millis() as u64,
            max_attempts: ATTEMPTS,
            alone: true,
        });
        client.subscriptions().create(spec).await.context("ranges")?;
        self.client = Some(client);
        Ok(())
    }

    async fn run(self: Box<Self>, stage: Arc<Stage>) -> Result<()> {
        let mut session = 0;
        while !stage.leaving.is_cancelled() {
            session += 1;
            // Whatever a session ends with, its server was killed or the round is over: the next one begins anew.
            let _ended = self.session(&stage, session).await;
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }
}

impl Ranges {
    async fn session(&self, stage: &Arc<Stage>, number: u64) -> Result<(), Failure> {
        let client = RawClient::connect(stage.address, &Identity::dev(TENANT, &self.name)).await?;
        let opening = Opening {
            subscription: self.name.clone(),
            session: u128::from(number).to_be_bytes(),
            credit_messages: CREDIT.0,
            credit_bytes: CREDIT.1,
            ..Opening::default()
        };
        let mut session = ConsumeSession::open(&client, &opening).await?;
        let who = Who { subscription: self.name.clone(), consumer: self.name.clone() };
        let mut held: Vec<(u64, Place)> = Vec::new();
        let mut batches = 0;
        while !stage.leaving.is_cancelled() {
            let more = session.read_within(MORE_WITHIN).await?;
            stage.busy(true);
            while let Some(message) = session.buffered() {
                held.push((delivered(stage, &who, &message), place(&message)));
            }
            stage.busy(false);
            if held.len() >= BATCH || (!more && !held.is_empty()) {
                batches += 1;
                let confirm = batches % CONFIRM_EVERY == 0;
                acknowledge(stage, &who, &mut session, std::mem::take(&mut held), confirm).await?;
            }
        }
        session.leave().await
    }
}

fn place(message: &Delivered) -> Place {
    Place { class: message.class as u8, epoch: message.epoch, seq: message.seq }
}

fn delivered(stage: &Stage, who: &Who, message: &Delivered) -> u64 {
    let delivery = stage.next_delivery();
    stage.history.add(Event::Delivered {
        subscription: who.subscription.clone(),
        consumer: who.consumer.clone(),
        delivery,
        place: place(message),
        topic: message.message.topic.clone(),
        attempt: message.attempt,
        body: body_of(&message.message.payload),
    });
    delivery
}

/// One range from the lowest to the highest that is held, over seqs that this consumer never had.
async fn acknowledge(
    stage: &Arc<Stage>,
    who: &Who,
    session: &mut ConsumeSession,
    held: Vec<(u64, Place)>,
    confirm: bool,
) -> Result<(), Failure> {
    let how = if confirm { How::Confirm } else { How::Ack };
    let first = held.iter().map(|(_, place)| place.seq).min().unwrap_or(0);
    let last = held.iter().map(|(_, place)| place.seq).max().unwrap_or(0);
    for (delivery, place) in &held {
        who.settle(stage, *delivery, *place, how);
    }
    let range = vec![v1::SeqRange { first_seq: first, count: (last - first + 1) as u32 }];
    if !confirm {
        return session.send(v1::ConsumeRequest { acks: range, ..Default::default() }).await;
    }
    let settling = stage.settling();
    session.send(v1::ConsumeRequest { confirmed_acks: range, ..Default::default() }).await?;
    let mut waiting = held;
    while !waiting.is_empty() {
        session.read().await?;
        for settled in session.take_settled() {
            let range = settled.first_seq..settled.first_seq + u64::from(settled.count);
            waiting.retain(|(delivery, place)| {
                let answered = range.contains(&place.seq);
                match &settled.error {
                    _ if !answered => {}
                    None => who.confirmed(stage, *delivery, *place),
                    Some(error) => who.not_settled(stage, *delivery, *place, &error.code),
                }
                !answered
            });
        }
    }
    drop(settling);
    Ok(())
}
