//! The Rust client of the Agentic Context Bus: agents that find each other, send each other messages that are not lost,
//! and answer each other's requests.
//!
//! ```no_run
//! use acb_sdk::{Client, Credentials, SubscriptionSpec};
//!
//! # async fn example() -> acb_sdk::Result<()> {
//! let client = Client::builder("acb://127.0.0.1:7400")
//!     .credentials(Credentials::dev("default", "worker-1"))
//!     .connect()
//!     .await?;
//!
//! // Be on the bus, and say what you can do.
//! client.agents().register("worker-1").capability("text.count").await?;
//!
//! // Publish: durable when the receipt says so.
//! let stored = client.messages().publish("jobs.text", "count me").confirm().await?;
//! println!("{} is {}", stored.id, stored.durability);
//!
//! // Consume: each message is settled, and comes again when it is not.
//! client.subscriptions().create(SubscriptionSpec::new("jobs").filter("jobs.>")).await?;
//! let jobs = client.subscribe("jobs").await?;
//! jobs.for_each(4, |message| async move {
//!     println!("{}: {:?}", message.topic(), message.payload());
//!     Ok::<_, std::convert::Infallible>(())
//! })
//! .await?;
//! # Ok(())
//! # }
//! ```
//!
//! # How it behaves
//! - One connection a client, owned by one task; it comes back by itself, with jittered waits. Calls wait for it until
//!   their deadline.
//! - Publishes share one stream. Whatever was not acknowledged when a connection broke is sent again, in order, and
//!   stored once.
//! - Subscriptions resume. Settlements that could not be sent are sent then; when the bus has given a message to somebody
//!   else meanwhile, settling it says `lease_lost`.
//! - Everything has a deadline and a bound; all failures are one [`Error`] with a stable code.
//! - Works in any tokio runtime, current-thread ones included; there is no global state.
//!
//! # Features
//! None yet: gRPC is the transport, TLS is rustls with aws-lc-rs.

mod admin;
mod agent_watch;
mod agents;
mod auth;
mod client;
mod connection;
mod consume;
mod contexts;
mod convert;
mod credentials;
mod dead_letters;
mod error;
mod groups;
mod health;
mod idempotency;
mod message;
mod messages;
pub mod options;
mod pages;
mod publish;
pub mod retry;
mod streams;
mod subscribe;
mod subscriptions;
mod tasks;
mod time;
pub mod transport;
mod watching;
mod within;

pub use acb_types::{
    Attributes, ClassId, ContextId, Durability, Envelope, MessageId, MessageKind, Priority, Sha256Digest, StreamId,
    Timestamp,
    batch::{DeadLetterPolicy, StartAt},
    limits,
};
pub use bytes::Bytes;

pub use crate::{
    admin::{Admin, CreatedKey, EnrolmentKey, KeySpec, Tenant},
    agent_watch::{AgentEvent, AgentWatch, AgentWatchBuilder},
    agents::{
        Agent, AgentActivity, AgentCapability, AgentPresence, AgentSpec, AgentStatus, Agents, DiscoverBuilder,
        RegisterBuilder, UpdateBuilder,
    },
    auth::Auth,
    client::Client,
    connection::{Event, Events},
    contexts::{
        Context, ContextAccess, ContextEvent, ContextPage, ContextScope, ContextWatch, Contexts, DeleteBuilder,
        GetBuilder, ListBuilder, ShareBuilder, SharedContext, UpdateContextBuilder, UpdatedContext, WatchBuilder,
    },
    credentials::{Credentials, Identity, Tokens},
    dead_letters::{DeadLetter, DeadLetters},
    error::{Error, ErrorCode, ErrorKind, Result, Retry},
    groups::{Group, GroupMember},
    health::Health,
    idempotency::IdempotencyKey,
    message::{KeptLease, Message},
    messages::{
        DeliveryState, MessageStatus, Messages, PublishBuilder, Publisher, PublisherBuilder, Reply, RequestBuilder,
        SubscriptionStatus, TryPublishError,
    },
    options::ClientBuilder,
    pages::{Page, Pages},
    publish::{Published, Receipt},
    retry::RetryPolicy,
    streams::{DownloadBuilder, Downloaded, Progress, ProgressFn, Streams, UploadBuilder, UploadStatus, Uploaded},
    subscribe::{Gap, SubscribeBuilder, Subscription},
    subscriptions::{CreatedSubscription, SpecParts, SubscriptionInfo, SubscriptionSpec, Subscriptions},
    transport::{Dialer, Endpoint, TcpDialer, tls::TlsOptions},
    within::within,
};
