//! The driver that speaks the wire contract by hand: what any client in any language could do.

mod build;
mod consume;
mod contexts;
mod identity;
mod messages;
mod registry;
mod streams;
mod watching;

use std::collections::HashMap;

use async_trait::async_trait;
use serde_json::{Value, json};

use self::{consume::Session, contexts::Watch, messages::Pending};
use super::{Args, Driver, Kind, Place, args::BAD_SCENARIO};
use crate::{
    raw::{Delivered, Failure, Identity, PublishSession, RawClient},
    wait::{LOOK_AGAIN, patience},
};

/// Raw gRPC.
#[derive(Clone, Copy, Debug)]
pub struct Raw;

impl Kind for Raw {
    fn name(&self) -> &'static str {
        "raw"
    }

    fn driver(&self, place: Place) -> Box<dyn Driver> {
        Box::new(RawDriver::new(place))
    }
}

/// One agent over raw gRPC.
#[derive(Debug)]
pub(crate) struct RawDriver {
    place: Place,
    identity: Identity,
    client: Option<RawClient>,
    incarnation: u64,
    sessions: HashMap<String, Session>,
    watches: HashMap<String, Watch>,
    /// Session ids of consumers that are being opened.
    openings: HashMap<String, [u8; 16]>,
    publisher: Option<PublishSession>,
    producer: [u8; 16],
    /// Number of the publisher's next message, over its reconnects.
    counter: u64,
    /// Producer sessions that a scenario counts for itself, by name and epoch.
    frames: HashMap<(String, u32), PublishSession>,
    pending: HashMap<String, Pending>,
    last_request: String,
    agent_watches: HashMap<String, watching::Watch>,
    uploads: HashMap<String, streams::Upload>,
    /// Replies that came before they were asked for, by correlation id.
    replies: HashMap<String, Delivered>,
}

impl RawDriver {
    pub(crate) fn new(place: Place) -> Self {
        let identity = Identity::dev(&place.tenant, &place.agent);
        Self {
            place,
            identity,
            client: None,
            incarnation: 0,
            sessions: HashMap::new(),
            watches: HashMap::new(),
            openings: HashMap::new(),
            publisher: None,
            producer: rand::random(),
            counter: 1,
            frames: HashMap::new(),
            pending: HashMap::new(),
            last_request: String::new(),
            replies: HashMap::new(),
            agent_watches: HashMap::new(),
            uploads: HashMap::new(),
        }
    }

    /// The connection; made when there is none.
    pub(crate) async fn client(&mut self) -> Result<RawClient, Failure> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let client = RawClient::connect_over(&self.place.reach, &self.identity).await?;
        self.client = Some(client.clone());
        Ok(client)
    }

    /// Forgets the connection and what lived on it. Consumers are opened again when they are next asked.
    fn disconnected(&mut self) {
        self.client = None;
        self.publisher = None;
        self.frames.clear();
        self.agent_watches.clear();
        self.uploads.clear();
        for session in self.sessions.values_mut() {
            session.lost();
        }
        for watch in self.watches.values_mut() {
            watch.lost();
        }
    }

    /// Speaks as somebody else from now on.
    fn become_identity(&mut self, identity: Identity) {
        self.disconnected();
        self.sessions.clear();
        self.identity = identity;
    }

    pub(super) async fn health(&mut self) -> Result<Value, Failure> {
        // The standard service, which the contract of this crate does not generate: asked by hand, answered with
        // `{status}` as field 1.
        let answer = self.client().await?.unary("/grpc.health.v1.Health/Check", bytes::Bytes::new()).await?;
        let status = match answer.as_ref() {
            [0x08, 1] => "serving",
            [0x08, 2] => "not_serving",
            _ => "unknown",
        };
        Ok(json!({ "status": status }))
    }

    async fn one(&mut self, verb: &str, args: &Args) -> Result<Value, Failure> {
        match verb {
            "connect" => self.connect(args).await,
            "close" => {
                for (_, session) in self.sessions.drain() {
                    session.leave().await?;
                }
                self.disconnected();
                Ok(Value::Null)
            }
            "health" => self.health().await,
            "register" => self.register(args).await,
            "get_agent" => self.get_agent(args).await,
            "update_agent" => self.update_agent(args).await,
            "unregister" => self.unregister(args).await,
            "heartbeat" => self.heartbeat(args).await,
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
            "open_upload" => self.open_upload(args).await,
            "send_chunks" => self.send_chunks(args).await,
            "offer_chunks" => self.offer_chunks(args).await,
            "complete_upload" => self.complete_upload(args).await,
            "upload_ended" => self.upload_ended(args).await,
            "upload_progress" => self.upload_progress(args).await,
            "abort_upload" => self.abort_upload(args).await,
            "upload" => self.upload(args).await,
            "download" => self.download(args).await,
            "create_group" => self.create_group(args).await,
            "delete_group" => self.delete_group(args).await,
            "list_groups" => self.list_groups().await,
            "add_members" => self.add_members(args).await,
            "remove_members" => self.remove_members(args).await,
            "list_members" => self.list_members(args).await,
            "send" => self.send(args).await,
            "publish" => self.publish(args).await,
            "publish_frame" => self.publish_frame(args).await,
            "request" => self.request(args).await,
            "answer" => self.answer(args).await,
            "reply" => self.reply(args).await,
            "status" => self.status(args).await,
            "dead_letters" => self.dead_letters(args).await,
            "dead_letter" => self.dead_letter(args).await,
            "redrive" => self.redrive(args).await,
            "discard" => self.discard(args).await,
            "consume" => self.consume(args).await,
            "credit" => self.credit(args).await,
            "receive" => self.receive(args).await,
            "nothing" => self.nothing(args).await,
            "ack" | "nack" | "progress" | "term" | "release" => self.settle(verb, args).await,
            "refused" => self.refused(args).await,
            "gap" => self.gap(args).await,
            "ended" => self.ended(args).await,
            "leave" => self.leave(args).await,
            "reauth" => self.reauth(args).await,
            "auth_expiring" => self.auth_expiring(args).await,
            "login" => self.login(args).await,
            "refresh" => self.refresh(args).await,
            "logout" => self.logout().await,
            "jwks" => self.jwks().await,
            "create_tenant" => self.create_tenant(args).await,
            "list_tenants" => self.list_tenants(args).await,
            "create_key" => self.create_key(args).await,
            "list_keys" => self.list_keys(args).await,
            "revoke_key" => self.revoke_key(args).await,
            "set_secret" => self.set_secret(args).await,
            "rotate_signing_key" => self.rotate_signing_key().await,
            other => Err(Failure::own(BAD_SCENARIO, format!("the raw driver does not know {other}"))),
        }
    }
}

/// Verbs that may be said twice: a break of the connection is met by saying them again, as every client does.
fn is_safe(verb: &str) -> bool {
    matches!(
        verb,
        "get_agent"
            | "discover"
            | "heartbeat"
            | "get_subscription"
            | "list_subscriptions"
            | "create_subscription"
            | "delete_subscription"
            | "status"
            | "dead_letters"
            | "dead_letter"
            | "discard"
            | "health"
            | "jwks"
            | "list_tenants"
            | "list_keys"
            | "unregister"
            | "register"
            | "consume"
            | "connect"
            | "login"
            | "get_context"
            | "list_contexts"
            | "context_history"
            | "renew_context"
            | "delete_context"
            | "create_group"
            | "delete_group"
            | "list_groups"
            | "add_members"
            | "remove_members"
            | "list_members"
            | "watch"
            | "upload_progress"
            | "abort_upload"
            | "download"
    )
}

#[async_trait]
impl Driver for RawDriver {
    async fn call(&mut self, verb: &str, args: &Args) -> Result<Value, Failure> {
        let started = std::time::Instant::now();
        loop {
            match self.one(verb, args).await {
                Err(failure) if failure.is_lost() && is_safe(verb) && started.elapsed() < patience() => {
                    self.disconnected();
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                other => return other,
            }
        }
    }

    async fn server_gone(&mut self) {
        self.disconnected();
    }
}

/// Names a producer or session that a scenario chose: the same bytes for the same name.
fn id_of(name: &str) -> [u8; 16] {
    let mut id = [0; 16];
    for (at, byte) in name.bytes().enumerate() {
        id[at % 16] ^= byte.rotate_left((at / 16) as u32);
    }
    id
}
