//! Subscribers on the Rust core: inboxes, topics with wildcards, shared groups, late ones, deadly ones, and one that
//! dies with work in its hands.

use std::{sync::Arc, time::Duration};

use acb_sdk::{Client, Message, StartAt, Subscription, SubscriptionSpec};
use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::sync::oneshot;

use super::{
    Kind,
    publish::Process,
    stage::{Stage, body_of},
};
use crate::history::{Event, How, Place};

/// Lease of every subscription: longer than a round, so that nothing ends but by kills and settlements. Leases that run
/// out are the simulation's.
pub(super) const ACK_WAIT: Duration = Duration::from_mins(1);
/// Attempts before a message is dead, where messages are meant to die.
const DEADLY_ATTEMPTS: u32 = 3;
/// Attempts elsewhere, more than anything here fails.
const ATTEMPTS: u32 = 100;
/// Delay of a message that failed.
const NACK_DELAY: Duration = Duration::from_millis(25);
/// Messages that a consumer holds at once.
const CREDITS: u32 = 64;

/// How a subscriber settles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Habit {
    /// Plain acks, which the core sends as ranges.
    Plain,
    /// Confirmed acks.
    Confirmed,
    /// A bit of everything.
    Moody,
    /// Gives messages up, or fails them until they are dead.
    Deadly,
}

/// What is to be done with a message.
enum Verdict {
    Settle(How),
    ProgressThenAck,
}

impl Habit {
    /// Decides by the message, not by who got it.
    fn verdict(self, stage: &Stage, body: &str, attempt: u32) -> Verdict {
        let seed = stage.seed;
        let nack = How::Nack { delay_ms: NACK_DELAY.as_millis() as u64 };
        let hash = body.bytes().fold(seed | 1, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        let dice = (hash >> 24) % 100;
        let how = match self {
            Self::Plain => How::Ack,
            Self::Confirmed => How::Confirm,
            Self::Moody => match dice {
                0..10 if attempt == 1 => nack,
                // It does not count as an attempt: once is enough.
                10..15 if stage.first_time(body) => How::Release,
                15..25 => return Verdict::ProgressThenAck,
                25..50 => How::Confirm,
                _ => How::Ack,
            },
            Self::Deadly => match dice {
                0..20 => How::Term,
                20..45 => nack,
                45..60 if attempt == 1 => nack,
                _ => How::Confirm,
            },
        };
        Verdict::Settle(how)
    }
}

/// A consumer's name in the history.
#[derive(Clone, Debug)]
pub(super) struct Who {
    pub(super) subscription: String,
    pub(super) consumer: String,
}

impl Who {
    /// Writes a delivery down; gives its number.
    pub(super) fn delivered(&self, stage: &Stage, message: &Message) -> u64 {
        let delivery = stage.next_delivery();
        stage.history.add(Event::Delivered {
            subscription: self.subscription.clone(),
            consumer: self.consumer.clone(),
            delivery,
            place: Place::from(message.id()),
            topic: message.topic().to_owned(),
            attempt: message.attempt(),
            body: body_of(message.payload_ref()),
        });
        delivery
    }

    pub(super) fn settle(&self, stage: &Stage, delivery: u64, place: Place, how: How) {
        let (subscription, consumer) = (self.subscription.clone(), self.consumer.clone());
        stage.history.add(Event::Settle { subscription, consumer, delivery, place, how });
    }

    pub(super) fn confirmed(&self, stage: &Stage, delivery: u64, place: Place) {
        let (subscription, consumer) = (self.subscription.clone(), self.consumer.clone());
        stage.history.add(Event::Confirmed { subscription, consumer, delivery, place });
    }

    pub(super) fn not_settled(&self, stage: &Stage, delivery: u64, place: Place, code: &str) {
        let (subscription, consumer) = (self.subscription.clone(), self.consumer.clone());
        let code = code.to_owned();
        stage.history.add(Event::NotSettled { subscription, consumer, delivery, place, code });
    }
}

/// What goes on beside reading: confirmed acks, replies.
pub(super) type Beside = FuturesUnordered<BoxFuture<'static, ()>>;

/// Reads a subscription until the end of the round, and does with each message what `handle` does.
///
/// # Errors
/// When the subscription ends before the round.
pub(super) async fn read(
    stage: &Arc<Stage>,
    mut stream: Subscription,
    mut handle: impl FnMut(Message, &mut Beside) + Send,
) -> Result<()> {
    let mut beside = Beside::new();
    stage.busy(true);
    loop {
        while let Some(Some(())) = beside.next().now_or_never() {}
        let next = if let Some(next) = stream.try_next() {
            Some(next)
        } else {
            stage.busy(false);
            // All three may be dropped at any await: nothing is lost.
            let next = tokio::select! {
                next = stream.next() => Some(next),
                Some(()) = beside.next(), if !beside.is_empty() => None,
                () = stage.leaving.cancelled() => {
                    while let Some(()) = beside.next().await {}
                    return Ok(());
                }
            };
            stage.busy(true);
            match next {
                None => continue,
                Some(next) => next,
            }
        };
        match next {
            Some(Ok(message)) => handle(message, &mut beside),
            Some(Err(error)) => bail!("the subscription {} ended: {error}", stream.name()),
            None => bail!("the subscription {} ended", stream.name()),
        }
    }
}

/// Settles a message as it was decided, and writes down what came of it.
fn settle(stage: &Arc<Stage>, who: &Who, message: Message, delivery: u64, how: How, beside: &mut Beside) {
    let place = Place::from(message.id());
    who.settle(stage, delivery, place, how);
    let result = match how {
        How::Ack => message.ack(),
        How::Nack { delay_ms } => message.nack(Some(Duration::from_millis(delay_ms)), "failed on purpose"),
        How::Term => message.term("given up on purpose"),
        How::Release => message.release(),
        How::Progress => message.progress(),
        How::Confirm => {
            let (stage, who, settling) = (Arc::clone(stage), who.clone(), stage.settling());
            beside.push(Box::pin(async move {
                let result = message.ack_confirmed().await;
                match result {
                    Ok(()) => who.confirmed(&stage, delivery, place),
                    Err(error) => who.not_settled(&stage, delivery, place, error.code().name()),
                }
                drop(settling);
            }));
            return;
        }
    };
    if let Err(error) = result {
        who.not_settled(stage, delivery, place, error.code().name());
    }
}

/// Reads a subscription with a habit.
async fn follow(stage: Arc<Stage>, stream: Subscription, who: Who, habit: Habit) -> Result<()> {
    let shared = Arc::clone(&stage);
    read(&stage, stream, move |message, beside| {
        let delivery = who.delivered(&shared, &message);
        let body = body_of(message.payload_ref());
        match habit.verdict(&shared, &body, message.attempt()) {
            Verdict::Settle(how) => settle(&shared, &who, message, delivery, how, beside),
            Verdict::ProgressThenAck => {
                settle(&shared, &who, message.clone(), delivery, How::Progress, beside);
                settle(&shared, &who, message, delivery, How::Ack, beside);
            }
        }
    })
    .await
}

/// A named subscription as it is to be.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    name: String,
    filters: Vec<String>,
    habit: Habit,
    start: StartAt,
}

impl Plan {
    pub(super) fn new(name: &str, filters: &[&str], habit: Habit) -> Self {
        let filters = filters.iter().map(|f| (*f).to_owned()).collect();
        Self { name: name.to_owned(), filters, habit, start: StartAt::All }
    }

    /// Makes it, and writes down what it must get.
    async fn make(&self, stage: &Stage, client: &Client, alone: bool) -> Result<()> {
        let max_attempts = if self.habit == Habit::Deadly { DEADLY_ATTEMPTS } else { ATTEMPTS };
        let mut spec = SubscriptionSpec::new(&self.name).ack_wait(ACK_WAIT).max_attempts(max_attempts);
        for filter in &self.filters {
            spec = spec.filter(filter);
        }
        stage.history.add(Event::Subscribed {
            subscription: self.name.clone(),
            class: acb_types::ClassId::TOPICS.0,
            filters: self.filters.clone(),
            start_seq: if let StartAt::Sequence(seq) = self.start { seq } else { 1 },
            ack_wait_ms: ACK_WAIT.as_millis() as u64,
            max_attempts,
            alone,
        });
        client.subscriptions().create(spec.start_at(self.start)).await.with_context(|| self.name.clone())?;
        Ok(())
    }
}

/// A durable subscription on topics, with one consumer or several.
#[derive(Debug)]
pub(super) struct Named {
    plan: Plan,
    consumers: usize,
    life: u32,
    clients: Vec<Client>,
}

impl Named {
    pub(super) fn new(plan: Plan) -> Self {
        Self { plan, consumers: 1, life: 1, clients: Vec::new() }
    }

    pub(super) fn consumers(mut self, consumers: usize) -> Self {
        self.consumers = consumers;
        self
    }

    pub(super) fn start_at(mut self, start: StartAt) -> Self {
        self.plan.start = start;
        self
    }

    pub(super) fn in_life(mut self, life: u32) -> Self {
        self.life = life;
        self
    }
}

#[async_trait]
impl Kind for Named {
    fn name(&self) -> String {
        self.plan.name.clone()
    }

    fn enters_in(&self) -> u32 {
        self.life
    }

    async fn prepare(&mut self, stage: &Arc<Stage>) -> Result<()> {
        for i in 0..self.consumers {
            self.clients.push(stage.client(&format!("{}-{i}", self.plan.name)).await?);
        }
        self.plan.make(stage, &self.clients[0], self.consumers == 1).await
    }

    async fn run(self: Box<Self>, stage: Arc<Stage>) -> Result<()> {
        let (name, habit) = (&self.plan.name, self.plan.habit);
        let all = self.clients.iter().enumerate().map(|(i, client)| {
            let (stage, who) = (Arc::clone(&stage), who(name, &format!("{name}-{i}")));
            async move {
                let stream = client.subscribe(name).credits(CREDITS).await?;
                follow(stage, stream, who, habit).await
            }
        });
        futures_util::future::try_join_all(all).await.map(drop)
    }
}

fn who(subscription: &str, consumer: &str) -> Who {
    Who { subscription: subscription.to_owned(), consumer: consumer.to_owned() }
}

/// An agent that reads its inbox.
#[derive(Debug)]
pub(super) struct Inbox {
    agent: String,
    habit: Habit,
    client: Option<Client>,
}

impl Inbox {
    pub(super) fn new(agent: &str, habit: Habit) -> Self {
        Self { agent: agent.to_owned(), habit, client: None }
    }
}

/// Registers an agent, and writes down what its inbox must get.
pub(super) async fn register(stage: &Stage, agent: &str) -> Result<Client> {
    let client = stage.client(agent).await?;
    stage.history.add(Event::Subscribed {
        subscription: inbox_of(agent),
        class: acb_types::ClassId::INBOX.0,
        filters: vec![format!("$acb.inbox.{agent}"), "$acb.all".to_owned()],
        start_seq: 1,
        ack_wait_ms: acb_types::limits::LEASE.as_millis() as u64,
        max_attempts: acb_types::limits::MAX_ATTEMPTS,
        alone: true,
    });
    client.agents().register(agent).await.with_context(|| agent.to_owned())?;
    Ok(client)
}

/// Name of an agent's inbox among subscriptions.
pub(super) fn inbox_of(agent: &str) -> String {
    format!("$inbox.{agent}")
}

#[async_trait]
impl Kind for Inbox {
    fn name(&self) -> String {
        inbox_of(&self.agent)
    }

    async fn prepare(&mut self, stage: &Arc<Stage>) -> Result<()> {
        self.client = Some(register(stage, &self.agent).await?);
        Ok(())
    }

    async fn run(self: Box<Self>, stage: Arc<Stage>) -> Result<()> {
        let client = self.client.context("not prepared")?;
        let stream = client.inbox().credits(CREDITS).await?;
        follow(stage, stream, who(&inbox_of(&self.agent), &self.agent), self.habit).await
    }
}

/// A consumer of a shared subscription that dies with messages in its hands. They go to the others when the bus gives its
/// leases up: 10 s later, or when the server is started again.
#[derive(Debug)]
pub(super) struct Mortal {
    subscription: String,
    after: usize,
}

impl Mortal {
    pub(super) fn new(subscription: &str, after: usize) -> Self {
        Self { subscription: subscription.to_owned(), after }
    }
}

#[async_trait]
impl Kind for Mortal {
    fn name(&self) -> String {
        format!("{}-mortal", self.subscription)
    }

    async fn prepare(&mut self, _: &Arc<Stage>) -> Result<()> {
        Ok(())
    }

    async fn run(self: Box<Self>, stage: Arc<Stage>) -> Result<()> {
        let process = Process::new()?;
        let (tell, told) = oneshot::channel::<()>();
        let who = who(&self.subscription, &self.name());
        let builder = stage.builder(&who.consumer);
        let (shared, me, after) = (Arc::clone(&stage), who.clone(), self.after);
        process.spawn(async move {
            let Ok(client) = builder.connect().await else { return };
            let Ok(mut stream) = client.subscribe(&me.subscription).credits(CREDITS).await else { return };
            let mut held = Vec::new();
            while let Some(Ok(message)) = stream.next().await {
                let delivery = me.delivered(&shared, &message);
                if held.len() % 2 == 0 {
                    me.settle(&shared, delivery, Place::from(message.id()), How::Ack);
                    if let Err(error) = message.ack() {
                        me.not_settled(&shared, delivery, Place::from(message.id()), error.code().name());
                    }
                }
                held.push(message);
                if held.len() == after {
                    break;
                }
            }
            let _ = tell.send(());
            std::future::pending::<()>().await;
        });
        tokio::select! {
            _ = told => {}
            () = stage.closing.cancelled() => {}
        }
        drop(process);
        // Written down when it cannot do anything any more.
        stage.history.add(Event::Died { subscription: who.subscription, consumer: who.consumer });
        Ok(())
    }
}
