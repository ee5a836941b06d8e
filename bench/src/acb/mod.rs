//! ACB through its Rust SDK, as a user would call it: the calls of the crate's front page, nothing internal.
//!
//! - Publish, usual: `messages().publish(..).send()` gives a receipt; the shared collector awaits them in
//!   order. Lean: receipts are dropped, `drain` is awaited at the end.
//! - Receive: a durable subscription from the beginning, one `ack()` per message.
//! - Request: to an agent's inbox, the responder answers with `reply`; stored, as everything is.
//!
//! - Agents that ask each other: each has an inbox and answers from it, and asks over the same connection.
//!
//! What the server stored is read from a durable subscription that hears nothing: its `next_seq` is the
//! partition's.

mod contexts;
mod transfer;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use acb_sdk::{Client, Credentials, Durability, Message, Receipt, StartAt, Subscription, SubscriptionSpec};
use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;

use crate::{
    case::{ACK_WINDOW, Form, Language, Mode, Shape},
    load::{
        Outcome, Plan,
        client::{Ask, Keys, Payloads, Publish, Receive, Request},
        deliver, exchange, idle,
        meter::{Latencies, Meter, SAMPLE_EVERY},
        publish, python, settle_disk,
    },
};

const TOPIC: &str = "b.1";
const PROBE: &str = "bench-probe";
const RESPONDER: &str = "bench-responder";

/// Deliveries per second a backlog is sized for, by payload; at least a second's worth of the fastest seen.
const BACKLOG_256: u64 = 1_200_000;
const BACKLOG_4096: u64 = 130_000;
const BACKLOG_PYTHON: u64 = 400_000;

/// Unacknowledged bytes of a publisher: never what holds it back.
const WINDOW_BYTES: usize = 16 << 20;

/// Credit in bytes beside the credit in messages, the SDK's default.
const CREDIT_BYTES: u64 = 8 << 20;

/// Runs the plan against `acb-server`; the second figure is what the server says it stored.
pub(crate) async fn load(plan: Plan) -> Result<(Outcome, Option<u64>)> {
    let acb = Acb { plan: Arc::new(plan.clone()) };
    match plan.case.shape {
        Shape::RequestReply { clients } => Ok((acb.request_reply(&plan, clients).await?, None)),
        Shape::Idle { connections } => {
            let outcome = idle::idle(&plan, connections, |number| acb.idle(number)).await?;
            Ok((outcome, None))
        }
        Shape::OpenLoop { agents, per_second } => Ok((acb.open_loop(&plan, agents, per_second).await?, None)),
        Shape::ContextUpdates { writers } => contexts::updates(&plan, &acb, writers).await,
        Shape::ContextCreates { contexts, writers } => contexts::creates(&plan, &acb, contexts, writers).await,
        Shape::ContextGets { readers } => contexts::gets(&plan, &acb, readers).await,
        Shape::ContextWatch { watchers } => contexts::watch(&plan, &acb, watchers).await,
        Shape::Upload | Shape::Download => {
            let client = acb.connect("bench-files").await?;
            let down = plan.case.shape == Shape::Download;
            match plan.language {
                Language::Python => transfer::by_python(&plan, &client, down).await,
                Language::Rust if down => transfer::download(&plan, &client).await,
                Language::Rust => transfer::upload(&plan, &client).await,
            }
        }
        Shape::Import => Ok((python::import(&plan).await?, None)),
        _ => {
            let probe = acb.connect("bench-probe").await?;
            probe.subscriptions().create(SubscriptionSpec::new(PROBE).filter("probe.nothing")).await?;
            let before = probe.subscriptions().get(PROBE).await?.next_seq;
            let outcome = Box::pin(acb.durable(&plan)).await?;
            let stored = probe.subscriptions().get(PROBE).await?.next_seq - before;
            Ok((outcome, Some(stored)))
        }
    }
}

/// The key that the server wrote at its first start: authentication is on, as in production.
pub(crate) fn enrolment_key(address: &str) -> Result<String> {
    let path = crate::server::acb::key_file(address);
    let key = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(key.trim().to_owned())
}

struct Acb {
    plan: Arc<Plan>,
}

impl Acb {
    /// A connection of its own. Window, frame cap and credits are those of the case; everything else is the
    /// default.
    async fn connect(&self, agent: &str) -> Result<Client> {
        let plan = &self.plan;
        let window = match plan.case.shape {
            Shape::Pipelined => plan.window,
            // The shared loop holds the window: a slot may come back before the receipt does.
            Shape::Live { .. } => plan.window * 4,
            // Filling is not measured.
            Shape::Backlog => 2000,
            Shape::Tasks { tasks } => tasks.max(16),
            _ => 16,
        };
        let mut builder = Client::builder(format!("acb://{}", plan.address))
            .credentials(Credentials::enrolment_key(enrolment_key(&plan.address)?, agent))
            .publish_window(u32::try_from(window)?, WINDOW_BYTES)
            .credits(ACK_WINDOW as u32, CREDIT_BYTES);
        if plan.case.one_frame {
            builder = builder.frame_messages_max(1);
        }
        builder.connect().await.context("cannot connect to acb-server")
    }

    fn level(&self) -> Durability {
        match self.plan.mode {
            Mode::Written => Durability::Written,
            Mode::Synced => Durability::Synced,
        }
    }

    async fn publisher(&self, number: usize) -> Result<Publisher> {
        let client = self.connect(&format!("bench-p{number}")).await?;
        let publisher = client.messages().publisher(TOPIC).durability(self.level()).build()?;
        Ok(Publisher { client, publisher, keys: self.plan.case.keyed.then(Keys::new) })
    }

    /// A durable subscription from the beginning, not opened.
    async fn subscribed(&self, number: usize) -> Result<(Client, String)> {
        let client = self.connect(&format!("bench-r{number}")).await?;
        let name = format!("d{number}");
        client.subscriptions().create(SubscriptionSpec::new(&name).filter("b.>").start_at(StartAt::All)).await?;
        Ok((client, name))
    }

    async fn receiver(&self, number: usize) -> Result<Receiver> {
        let (client, name) = self.subscribed(number).await?;
        let subscription = client.subscribe(&name).open().await?;
        Ok(Receiver { client, name, subscription })
    }

    async fn durable(&self, plan: &Plan) -> Result<Outcome> {
        match plan.case.shape {
            Shape::Pipelined | Shape::Tasks { .. } if plan.language == Language::Python => python::publish(plan).await,
            Shape::Tasks { tasks } => publish::tasks(plan, self.publisher(0).await?, tasks).await,
            Shape::Pipelined => match plan.form {
                Form::Usual => publish::pipelined(plan, self.publisher(0).await?).await,
                Form::Lean => lean(plan, self.publisher(0).await?).await,
                form => bail!("{} is a form of NATS", form.name()),
            },
            Shape::OneInFlight { clients } => {
                let publishers = publish::open_many(clients, |number| self.publisher(number)).await?;
                publish::one_in_flight(plan, publishers).await
            }
            Shape::Backlog => {
                let rate = match plan.language {
                    Language::Python => BACKLOG_PYTHON,
                    Language::Rust if plan.case.payload > 256 => BACKLOG_4096,
                    Language::Rust => BACKLOG_256,
                };
                let count = deliver::backlog_size(plan, rate)?;
                publish::fill(plan, &self.publisher(0).await?, count).await?;
                settle_disk().await?;
                if plan.language == Language::Python {
                    let (client, name) = self.subscribed(0).await?;
                    return python::receive(plan, count, held(&client, &name, count)).await;
                }
                deliver::backlog(plan, Box::pin(self.receiver(0)), count).await
            }
            Shape::Live { subscriptions } => {
                let receivers = publish::open_many(subscriptions, |number| self.receiver(number)).await?;
                deliver::live(plan, self.publisher(0).await?, receivers).await
            }
            _ => bail!("{} is not a publishing case", plan.case.name),
        }
    }

    async fn request_reply(&self, plan: &Plan, clients: usize) -> Result<Outcome> {
        let responder = self.connect(RESPONDER).await?;
        responder.agents().register(RESPONDER).send().await?;
        let mut inbox = responder.inbox().open().await?;
        tokio::spawn(async move {
            while let Some(request) = inbox.next().await {
                let request = request?;
                // The receipt is dropped: the requester's own deadline watches over the reply.
                drop(request.reply(request.payload())?.durability(Durability::Written).send().await?);
                request.ack()?;
            }
            Ok::<_, anyhow::Error>(())
        });
        let requesters = publish::open_many(clients, |number| async move {
            let agent = format!("bench-q{number}");
            let client = self.connect(&agent).await?;
            client.agents().register(&agent).send().await?;
            Ok(Requester { client })
        })
        .await?;
        exchange::request_reply(plan, requesters).await
    }

    async fn open_loop(&self, plan: &Plan, agents: usize, per_second: u32) -> Result<Outcome> {
        let level = self.level();
        let agents = publish::open_many(agents, |number| async move {
            let agent = format!("bench-a{number}");
            let client = self.connect(&agent).await?;
            client.agents().register(&agent).send().await?;
            let mut inbox = client.inbox().open().await?;
            tokio::spawn(async move {
                while let Some(request) = inbox.next().await {
                    let request = request?;
                    drop(request.reply(request.payload())?.durability(level).send().await?);
                    request.ack()?;
                }
                Ok::<_, anyhow::Error>(())
            });
            Ok(Agent { client, level })
        })
        .await?;
        exchange::open_loop(plan, agents, per_second).await
    }

    /// A registered agent with both hot streams open: it has published once and listens to its inbox.
    async fn idle(&self, number: usize) -> Result<(Client, Subscription)> {
        let agent = format!("bench-i{number}");
        let client = self.connect(&agent).await?;
        client.agents().register(&agent).send().await?;
        let inbox = client.inbox().open().await?;
        let receipt =
            client.messages().publish(TOPIC, Bytes::from_static(b"x")).durability(Durability::Written).send().await?;
        receipt.await?;
        Ok((client, inbox))
    }
}

/// Publishes without looking at results, and waits until all are acknowledged.
async fn lean(plan: &Plan, publisher: Publisher) -> Result<Outcome> {
    let payload = Payloads::new(plan.case.payload).shared();
    let meter = Meter::start(plan.server_pid)?;
    let started = meter.started();
    let mut published = 0u64;
    while !published.is_multiple_of(SAMPLE_EVERY) || started.elapsed() < plan.duration {
        drop(publisher.publish(payload.clone()).await?);
        published += 1;
    }
    publisher.client.messages().flush().await;
    let measured = meter.stop()?;
    // `flush` fails when one was refused; the stored count is compared by the caller.
    Ok(Outcome {
        published,
        acked: published,
        delivered: 0,
        counted: published,
        value: None,
        wakes: None,
        latencies: Latencies::new(),
        measured,
    })
}

struct Publisher {
    client: Client,
    publisher: acb_sdk::Publisher,
    keys: Option<Keys>,
}

impl Publish for Publisher {
    type Receipt = Receipt;

    async fn publish(&self, payload: Bytes) -> Result<Receipt> {
        Ok(match &self.keys {
            Some(keys) => self.publisher.publish_keyed(&keys.next(), payload).await?,
            None => self.publisher.publish(payload).await?,
        })
    }

    async fn settle(receipt: Receipt) -> Result<()> {
        receipt.await?;
        Ok(())
    }
}

struct Receiver {
    client: Client,
    name: String,
    subscription: Subscription,
}

impl Receive for Receiver {
    type Delivery = Message;

    async fn next(&mut self) -> Result<Message> {
        Ok(self.subscription.next().await.context("the subscription ended")??)
    }

    fn payload(delivery: &Message) -> &[u8] {
        delivery.payload_ref()
    }

    async fn ack(&mut self, delivery: Message) -> Result<()> {
        delivery.ack()?;
        Ok(())
    }

    async fn settled(&mut self, count: u64) -> Result<()> {
        held(&self.client, &self.name, count).await
    }
}

/// Waits until the server holds the acks of all that was published.
async fn held(client: &Client, name: &str, count: u64) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let info = client.subscriptions().get(name).await?;
        // All that was published is below the floor, and nothing is leased or waits for another try.
        if info.floor_seq >= info.next_seq && info.leased == 0 && info.waiting_retry == 0 {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "after {count} acks the floor stays at {} of {}",
            info.floor_seq,
            info.next_seq
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// An agent with an inbox that a task of its own answers from.
struct Agent {
    client: Client,
    level: Durability,
}

impl Ask for Agent {
    async fn ask(&self, agent: usize, payload: Bytes) -> Result<Bytes> {
        let request = self.client.messages().request(format!("bench-a{agent}"), payload).durability(self.level);
        Ok(request.send().await?.payload())
    }
}

struct Requester {
    client: Client,
}

impl Request for Requester {
    async fn request(&mut self, payload: Bytes) -> Result<Bytes> {
        let reply = self.client.messages().request(RESPONDER, payload).durability(Durability::Written).send().await?;
        Ok(reply.payload())
    }
}
