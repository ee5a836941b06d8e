//! The driver of our own Rust client. What the client does by itself (reconnects, resends, refreshes, heartbeats) it
//! does here too; the scenarios see only what a user sees.

mod consume;
mod contexts;
mod identity;
mod messages;
mod registry;
mod streams;
mod watching;

use std::{collections::HashMap, sync::Arc, time::Duration};

use acb_sdk::{Client, ContextWatch, Credentials, Error};
use async_trait::async_trait;
use serde_json::{Value, json};

use self::{consume::Session, messages::Pending};
use super::{Args, Driver, Kind, Place, args::BAD_SCENARIO};
use crate::raw::{Failure, Identity, RawClient, Reach};

/// The Rust core.
#[derive(Clone, Copy, Debug)]
pub struct Core;

impl Kind for Core {
    fn name(&self) -> &'static str {
        "core"
    }

    fn driver(&self, place: Place) -> Box<dyn Driver> {
        Box::new(CoreDriver {
            place,
            credentials: None,
            connect_timeout: None,
            client: None,
            sessions: HashMap::new(),
            watches: HashMap::new(),
            pending: HashMap::new(),
            last_request: String::new(),
            probe: None,
            agent_watches: HashMap::new(),
            uploads: HashMap::new(),
            stopped: HashMap::new(),
        })
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let mut failure = Self::own(error.code().name(), error.to_string());
        failure.retryable = error.code().retryable();
        failure
    }
}

/// One agent over `acb_sdk`.
#[derive(Debug)]
struct CoreDriver {
    place: Place,
    credentials: Option<Credentials>,
    connect_timeout: Option<Duration>,
    client: Option<Client>,
    sessions: HashMap<String, Session>,
    watches: HashMap<String, ContextWatch>,
    pending: HashMap<String, Pending>,
    last_request: String,
    agent_watches: HashMap<String, acb_sdk::AgentWatch>,
    uploads: HashMap<String, streams::Begun>,
    stopped: HashMap<String, streams::Stopped>,
    /// Looks at the server beside the client, to know when it has taken something.
    probe: Option<RawClient>,
}

impl CoreDriver {
    async fn client(&mut self) -> Result<Client, Failure> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let credentials = match &self.credentials {
            Some(credentials) => credentials.clone(),
            None => Credentials::dev(&self.place.tenant, &self.place.agent),
        };
        let client = self.connect_as(credentials).await?;
        self.client = Some(client.clone());
        Ok(client)
    }

    async fn connect_as(&self, credentials: Credentials) -> Result<Client, Failure> {
        let builder = match &self.place.reach {
            Reach::Tcp(address) => Client::builder(format!("acb://{address}")),
            Reach::Dialer(dialer) => Client::builder("acb://fake").dialer(Arc::clone(dialer)),
            Reach::Guest(_) => {
                return Err(Failure::own(BAD_SCENARIO, "no way leads into the program of another language"));
            }
        };
        let builder = match self.connect_timeout {
            Some(timeout) => builder.connect_timeout(timeout),
            None => builder,
        };
        Ok(builder.credentials(credentials).connect().await?)
    }

    /// A raw connection of a caller who may look at everything in the tenant.
    async fn probe(&mut self) -> Result<RawClient, Failure> {
        if let Some(probe) = &self.probe {
            return Ok(probe.clone());
        }
        let identity = Identity::dev(&self.place.tenant, "probe");
        let probe = RawClient::connect_over(&self.place.reach, &identity).await?;
        self.probe = Some(probe.clone());
        Ok(probe)
    }

    async fn hang_up(&mut self) {
        self.sessions.clear();
        self.watches.clear();
        self.pending.clear();
        self.agent_watches.clear();
        self.uploads.clear();
        if let Some(client) = self.client.take() {
            client.close().await;
        }
    }

    async fn health(&mut self) -> Result<Value, Failure> {
        let health = self.client().await?.health().await?;
        Ok(json!({ "status": if health.serving { "serving" } else { "not_serving" } }))
    }
}

#[async_trait]
impl Driver for CoreDriver {
    async fn call(&mut self, verb: &str, args: &Args) -> Result<Value, Failure> {
        match verb {
            "connect" => self.connect(args).await,
            "close" => {
                self.hang_up().await;
                Ok(Value::Null)
            }
            "health" => self.health().await,
            "register" => self.register(args).await,
            "get_agent" => self.get_agent(args).await,
            "update_agent" => self.update_agent(args).await,
            "unregister" => self.unregister(args).await,
            "heartbeat" => self.heartbeat().await,
            "set_activity" => self.set_activity(args).await,
            "watch_agents" => self.watch_agents(args).await,
            "agent_events" => self.agent_events(args).await,
            "no_agent_events" => self.no_agent_events(args).await,
            "discover" => self.discover(args).await,
            "create_subscription" => self.create_subscription(args).await,
            "get_subscription" => self.get_subscription(args).await,
            "list_subscriptions" => self.list_subscriptions(args).await,
            "delete_subscription" => self.delete_subscription(args).await,
            "share" => self.share(args).await,
            "get_context" => self.get_context(args).await,
            "update_context" => self.update_context(args).await,
            "delete_context" => self.delete_context(args).await,
            "renew_context" => self.renew_context(args).await,
            "list_contexts" => self.list_contexts(args).await,
            "context_history" => self.context_history(args).await,
            "watch" => self.watch(args).await,
            "event" => self.event(args).await,
            "upload" => self.upload(args).await,
            "begin_upload" => self.begin_upload(args).await,
            "uploaded" => self.uploaded(args).await,
            "stop_upload" => self.stop_upload(args).await,
            "stopped_upload" => self.stopped_upload(args).await,
            "abort_upload" => self.abort_upload(args).await,
            "download" => self.download(args).await,
            "create_group" => self.create_group(args).await,
            "delete_group" => self.delete_group(args).await,
            "list_groups" => self.list_groups().await,
            "add_members" => self.add_members(args).await,
            "remove_members" => self.remove_members(args).await,
            "list_members" => self.list_members(args).await,
            "send" => self.send(args).await,
            "publish" => self.publish(args).await,
            "request" => self.request(args).await,
            "answer" => self.answer(args).await,
            "reply" => self.reply(args).await,
            "status" => self.status(args).await,
            "dead_letters" => self.dead_letters(args).await,
            "dead_letter" => self.dead_letter(args).await,
            "redrive" => self.redrive(args).await,
            "discard" => self.discard(args).await,
            "consume" => self.consume(args).await,
            "credit" => self.credit(args),
            "receive" => self.receive(args).await,
            "nothing" => self.nothing(args).await,
            "ack" | "nack" | "progress" | "term" | "release" => self.settle(verb, args).await,
            "ended" => self.ended(args).await,
            "leave" => self.leave(args),
            "login" => self.login(args).await,
            "refresh" => self.refresh(args).await,
            "logout" => self.logout().await,
            "jwks" => self.jwks().await,
            "create_tenant" => self.create_tenant(args).await,
            "list_tenants" => self.list_tenants().await,
            "create_key" => self.create_key(args).await,
            "list_keys" => self.list_keys().await,
            "revoke_key" => self.revoke_key(args).await,
            "set_secret" => self.set_secret(args).await,
            "rotate_signing_key" => self.rotate_signing_key().await,
            other => Err(Failure::own(BAD_SCENARIO, format!("the Rust core has nothing for {other}"))),
        }
    }

    async fn server_gone(&mut self) {
        // The client notices by itself; the probe is ours.
        self.probe = None;
    }
}

fn id(text: &str) -> Result<acb_sdk::MessageId, Failure> {
    text.parse().map_err(|e| Failure::own("invalid_position", format!("{text}: {e}")))
}
