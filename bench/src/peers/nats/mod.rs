//! NATS by `async-nats`: JetStream and core.
//!
//! - Publish, usual: `Context::publish(..).await` gives an ack future; the shared collector awaits them in
//!   order. With keys: the `Nats-Msg-Id` header. `lean.rs` has the forms without a result per message.
//! - Receive: a durable pull consumer, explicit acks, `max_ack_pending` 1000 (the default), pulled 500 at a
//!   time as a stream, one `ack()` per message.
//! - Request: core NATS `request`, the responder publishes to the reply subject; nothing is stored.
//!
//! - Files: the object store, `put` and `get`, in `object.rs`.
//! - Python: `nats-py` publishes and receives, driven from here; this client fills, counts and asks for the ack floor.
//!
//! Subject validation in the client is off: subjects here are constants, and ours does not pay it either.

mod lean;
mod object;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use async_nats::{
    Client, ConnectOptions, Subject,
    jetstream::{
        self,
        consumer::{AckPolicy, PullConsumer, pull},
        context::{ContextBuilder, PublishAckFuture},
        message::PublishMessage,
    },
};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde_json::json;

use crate::{
    case::{ACK_WINDOW, Form, Language, Shape},
    load::{
        Outcome, Plan,
        client::{Ask, Keys, Publish, Receive, Request},
        deliver, exchange, idle, publish, python, settle_disk,
    },
};

const STREAM: &str = "BENCH";
const SUBJECT: Subject = Subject::from_static("b.1");
const REQUESTS: &str = "req.work";

/// Deliveries per second a backlog is sized for, by payload: what the peer did once on this kind of machine.
const BACKLOG_256: u64 = 230_000;
const BACKLOG_4096: u64 = 50_000;
const BACKLOG_PUSH: u64 = 140_000;
const BACKLOG_FETCH: u64 = 40_000;

/// How long the last acks may take to the server.
const HELD_WITHIN: Duration = Duration::from_secs(30);

/// Runs the plan against a NATS server; the second figure is what the server says it stored.
pub(crate) async fn load(plan: Plan) -> Result<(Outcome, Option<u64>)> {
    let nats = Nats { address: plan.address.clone(), keyed: plan.case.keyed };
    match plan.case.shape {
        Shape::RequestReply { clients } => Ok((nats.request_reply(&plan, clients).await?, None)),
        Shape::Idle { connections } => {
            let outcome = idle::idle(&plan, connections, |number| nats.idle(number)).await?;
            Ok((outcome, None))
        }
        Shape::OpenLoop { agents, per_second } => Ok((nats.open_loop(&plan, agents, per_second).await?, None)),
        Shape::Upload | Shape::Download => object::load(&plan, nats.jetstream().await?).await,
        _ => {
            nats.create_stream(plan.form == Form::Lean).await?;
            let before = nats.stored().await?;
            let outcome = Box::pin(nats.durable(&plan)).await?;
            let stored = nats.stored().await? - before;
            Ok((outcome, Some(stored)))
        }
    }
}

struct Nats {
    address: String,
    keyed: bool,
}

impl Nats {
    async fn connect(&self) -> Result<Client> {
        let options = ConnectOptions::new().skip_subject_validation(true);
        options.connect(&self.address).await.context("cannot connect to nats-server")
    }

    async fn jetstream(&self) -> Result<jetstream::Context> {
        // `sync_interval: always` answers a full window in more than the default 5 s.
        Ok(ContextBuilder::new().timeout(Duration::from_secs(30)).build(self.connect().await?))
    }

    /// File storage, one replica, no limits. By the API's own JSON: the client's type has no `allow_batched`.
    async fn create_stream(&self, batched: bool) -> Result<()> {
        let config = json!({
            "name": STREAM, "subjects": ["b.>"], "storage": "file", "retention": "limits",
            "num_replicas": 1, "max_msgs": -1, "max_bytes": -1, "max_age": 0, "max_consumers": -1,
            "discard": "old", "allow_batched": batched,
        });
        let answer: serde_json::Value =
            self.jetstream().await?.request(format!("STREAM.CREATE.{STREAM}"), &config).await?;
        ensure!(answer.get("error").is_none(), "cannot create the stream: {answer}");
        let taken = answer.pointer("/config/allow_batched").and_then(serde_json::Value::as_bool);
        ensure!(!batched || taken == Some(true), "the server does not know allow_batched: {answer}");
        Ok(())
    }

    async fn stored(&self) -> Result<u64> {
        let jetstream = self.jetstream().await?;
        let stream = jetstream.get_stream(STREAM).await?;
        Ok(stream.cached_info().state.messages)
    }

    async fn publisher(&self) -> Result<Publisher> {
        Ok(Publisher { jetstream: self.jetstream().await?, keys: self.keyed.then(Keys::new) })
    }

    async fn receiver(&self, number: usize) -> Result<Receiver> {
        let stream = self.jetstream().await?.get_stream(STREAM).await?;
        let config = pull::Config {
            durable_name: Some(format!("d{number}")),
            ack_policy: AckPolicy::Explicit,
            max_ack_pending: ACK_WINDOW as i64,
            ..pull::Config::default()
        };
        let consumer: PullConsumer = stream.create_consumer(config).await?;
        let messages = consumer.stream().max_messages_per_batch(500).messages().await?;
        Ok(Receiver { consumer, messages })
    }

    async fn durable(&self, plan: &Plan) -> Result<Outcome> {
        match plan.case.shape {
            Shape::Pipelined if plan.language == Language::Python => python::publish(plan).await,
            Shape::Pipelined => match plan.form {
                Form::Usual => publish::pipelined(plan, self.publisher().await?).await,
                Form::Lean => lean::fast_ingest(plan, &self.connect().await?).await,
                Form::OwnInbox => lean::own_inbox(plan, &self.connect().await?).await,
                form => bail!("{} is a way to receive", form.name()),
            },
            Shape::OneInFlight { clients } => {
                let publishers = publish::open_many(clients, |_| self.publisher()).await?;
                publish::one_in_flight(plan, publishers).await
            }
            Shape::Backlog => {
                let rate = match (plan.language, plan.form) {
                    (Language::Python, Form::Fetch) => BACKLOG_FETCH,
                    (Language::Python, _) => BACKLOG_PUSH,
                    _ if plan.case.payload > 256 => BACKLOG_4096,
                    _ => BACKLOG_256,
                };
                let count = deliver::backlog_size(plan, rate)?;
                publish::fill(plan, &self.publisher().await?, count).await?;
                settle_disk().await?;
                if plan.language == Language::Python {
                    return python::receive(plan, count, Box::pin(self.held(count))).await;
                }
                deliver::backlog(plan, Box::pin(self.receiver(0)), count).await
            }
            Shape::Live { subscriptions } => {
                let receivers = publish::open_many(subscriptions, |number| self.receiver(number)).await?;
                deliver::live(plan, self.publisher().await?, receivers).await
            }
            _ => bail!("{} is not a case of JetStream", plan.case.name),
        }
    }

    async fn request_reply(&self, plan: &Plan, clients: usize) -> Result<Outcome> {
        let client = self.connect().await?;
        let mut requests = client.subscribe(REQUESTS).await?;
        client.flush().await?;
        tokio::spawn(async move {
            while let Some(request) = requests.next().await {
                if let Some(reply) = request.reply {
                    client.publish(reply, request.payload).await?;
                }
            }
            Ok::<_, anyhow::Error>(())
        });
        let requesters = publish::open_many(clients, |_| async {
            let client = self.connect().await?;
            Ok(Requester { client })
        })
        .await?;
        exchange::request_reply(plan, requesters).await
    }

    /// Waits until the consumer that the Python client made has all acks.
    async fn held(&self, count: u64) -> Result<()> {
        let stream = self.jetstream().await?.get_stream(STREAM).await?;
        let deadline = Instant::now() + HELD_WITHIN;
        loop {
            let info = stream.consumer_info("d0").await?;
            let floor = info.ack_floor.stream_sequence;
            if floor >= count && info.num_ack_pending == 0 {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the ack floor stays at {floor} of {count}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Agents with a subject each, over core NATS: nothing is stored.
    async fn open_loop(&self, plan: &Plan, agents: usize, per_second: u32) -> Result<Outcome> {
        let agents = publish::open_many(agents, |number| async move {
            let client = self.connect().await?;
            let mut requests = client.subscribe(format!("agent.{number}")).await?;
            client.flush().await?;
            let answering = client.clone();
            tokio::spawn(async move {
                while let Some(request) = requests.next().await {
                    if let Some(reply) = request.reply {
                        answering.publish(reply, request.payload).await?;
                    }
                }
                Ok::<_, anyhow::Error>(())
            });
            Ok(Agent { client })
        })
        .await?;
        exchange::open_loop(plan, agents, per_second).await
    }

    /// A connection with one subscription; small read buffers, for the client's sake alone.
    async fn idle(&self, number: usize) -> Result<(Client, async_nats::Subscriber)> {
        let options = ConnectOptions::new().read_buffer_capacity(512).subscription_capacity(16);
        let client = options.connect(&self.address).await?;
        let subscriber = client.subscribe(format!("inbox.{number}")).await?;
        client.flush().await?;
        Ok((client, subscriber))
    }
}

struct Publisher {
    jetstream: jetstream::Context,
    keys: Option<Keys>,
}

impl Publish for Publisher {
    type Receipt = PublishAckFuture;

    async fn publish(&self, payload: Bytes) -> Result<PublishAckFuture> {
        let receipt = match &self.keys {
            None => self.jetstream.publish(SUBJECT, payload).await?,
            Some(keys) => {
                let message = PublishMessage::build().payload(payload).message_id(keys.next());
                self.jetstream.send_publish(SUBJECT, message).await?
            }
        };
        Ok(receipt)
    }

    async fn settle(receipt: PublishAckFuture) -> Result<()> {
        let ack = receipt.await?;
        ensure!(!ack.duplicate, "message {} was taken for a duplicate", ack.sequence);
        Ok(())
    }
}

struct Receiver {
    consumer: PullConsumer,
    messages: pull::Stream,
}

impl Receive for Receiver {
    type Delivery = jetstream::Message;

    async fn next(&mut self) -> Result<jetstream::Message> {
        let message = self.messages.next().await.context("the consumer's stream ended")?;
        Ok(message?)
    }

    fn payload(delivery: &jetstream::Message) -> &[u8] {
        &delivery.payload
    }

    async fn ack(&mut self, delivery: jetstream::Message) -> Result<()> {
        delivery.ack().await.map_err(|error| anyhow!("cannot ack: {error}"))
    }

    async fn settled(&mut self, count: u64) -> Result<()> {
        let deadline = Instant::now() + HELD_WITHIN;
        loop {
            let info = self.consumer.info().await?;
            let floor = info.ack_floor.stream_sequence;
            if floor >= count && info.num_ack_pending == 0 {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the ack floor stays at {floor} of {count}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

struct Agent {
    client: Client,
}

impl Ask for Agent {
    async fn ask(&self, agent: usize, payload: Bytes) -> Result<Bytes> {
        Ok(self.client.request(format!("agent.{agent}"), payload).await?.payload)
    }
}

struct Requester {
    client: Client,
}

impl Request for Requester {
    async fn request(&mut self, payload: Bytes) -> Result<Bytes> {
        Ok(self.client.request(REQUESTS, payload).await?.payload)
    }
}
