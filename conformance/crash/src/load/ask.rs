//! Requests and replies, across kills.

use std::{sync::Arc, time::Duration};

use acb_sdk::{Client, ErrorCode, Message};
use anyhow::{Context as _, Result};
use async_trait::async_trait;

use super::{
    Kind,
    consume::{Who, inbox_of, read, register},
    stage::{Stage, body_of, payload},
};
use crate::{
    check::{REPLY_END, REPLY_PREFIX},
    history::{Event, How, Level, Place},
};

/// Longest that a request waits for its reply.
const REPLY_WITHIN: Duration = Duration::from_secs(20);
/// Pause of a requester that found nobody to answer: a responder is back a moment after its server.
const NOBODY_THERE: Duration = Duration::from_millis(3);

/// Answers every request in its inbox, and acknowledges it only when the reply is stored.
#[derive(Debug)]
pub(super) struct Responder {
    agent: String,
    client: Option<Client>,
}

impl Responder {
    pub(super) fn new(agent: &str) -> Self {
        Self { agent: agent.to_owned(), client: None }
    }
}

#[async_trait]
impl Kind for Responder {
    fn name(&self) -> String {
        inbox_of(&self.agent)
    }

    async fn prepare(&mut self, stage: &Arc<Stage>) -> Result<()> {
        self.client = Some(register(stage, &self.agent).await?);
        Ok(())
    }

    async fn run(self: Box<Self>, stage: Arc<Stage>) -> Result<()> {
        let client = self.client.context("not prepared")?;
        let stream = client.inbox().await?;
        let who = Who { subscription: inbox_of(&self.agent), consumer: self.agent.clone() };
        let (shared, mut replies) = (Arc::clone(&stage), 0);
        read(&stage, stream, move |message, beside| {
            let delivery = who.delivered(&shared, &message);
            let (stage, who) = (Arc::clone(&shared), who.clone());
            replies += 1;
            let n = replies;
            beside.push(Box::pin(async move {
                if message.is_request() {
                    reply(&stage, &who.consumer, n, &message).await;
                }
                let place = Place::from(message.id());
                who.settle(&stage, delivery, place, How::Confirm);
                let settling = stage.settling();
                match message.ack_confirmed().await {
                    Ok(()) => who.confirmed(&stage, delivery, place),
                    Err(error) => who.not_settled(&stage, delivery, place, error.code().name()),
                }
                drop(settling);
            }));
        })
        .await
    }
}

async fn reply(stage: &Stage, producer: &str, n: u64, request: &Message) {
    let asked = body_of(request.payload_ref());
    let body = format!("{REPLY_PREFIX}{asked}{REPLY_END}{n}");
    let Ok(reply) = request.reply(payload(&body, 0)) else { return };
    stage.publishing(producer, n, request.reply_to(), Level::Written, None, &body);
    stage.published(producer, n, reply.confirm().await);
}

/// Asks, one request after the other.
#[derive(Debug)]
pub(super) struct Requester {
    agent: String,
    whom: String,
    client: Option<Client>,
}

impl Requester {
    pub(super) fn new(agent: &str, whom: &str) -> Self {
        Self { agent: agent.to_owned(), whom: whom.to_owned(), client: None }
    }
}

#[async_trait]
impl Kind for Requester {
    fn name(&self) -> String {
        self.agent.clone()
    }

    fn is_publisher(&self) -> bool {
        true
    }

    async fn prepare(&mut self, stage: &Arc<Stage>) -> Result<()> {
        let client = stage.client(&self.agent).await?;
        client.agents().register(&self.agent).await?;
        self.client = Some(client);
        Ok(())
    }

    async fn run(self: Box<Self>, stage: Arc<Stage>) -> Result<()> {
        let client = self.client.context("not prepared")?;
        let mut n = 0;
        // One at a time: it needs no budget.
        while !stage.closing.is_cancelled() {
            let (requester, body) = (self.agent.clone(), format!("{}?{n}", self.agent));
            stage.history.add(Event::Request { requester: requester.clone(), n, body: body.clone() });
            let result = client.messages().request(&self.whom, payload(&body, 0)).timeout(REPLY_WITHIN).await;
            let nobody = matches!(&result, Err(error) if error.code() == ErrorCode::NoResponders);
            let (reply, code) = match result {
                Ok(reply) => (Some(body_of(reply.payload_ref())), None),
                Err(error) => (None, Some(error.code().name().to_owned())),
            };
            stage.history.add(Event::Answered { requester, n, reply, code });
            n += 1;
            if nobody {
                tokio::time::sleep(NOBODY_THERE).await;
            }
        }
        Ok(())
    }
}
