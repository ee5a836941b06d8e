//! Contexts, watches and groups.

use acb_proto::v1;
use serde_json::{Value, json};

use super::RawDriver;
use crate::{
    driver::{Args, args::BAD_SCENARIO, shape},
    raw::{Failure, RawClient, answer},
    wait::{LOOK_AGAIN, patience},
};

/// The watch that steps mean when they name none.
const MAIN: &str = "main";
/// Events of a frame that a scenario asks payloads of.
const WATCHED_PAYLOAD_MAX: u32 = 4096;

/// A watch, with what it takes to go on from where it broke.
#[derive(Debug)]
pub(super) struct Watch {
    wish: v1::WatchRequest,
    live: Option<tonic::Streaming<v1::WatchResponse>>,
    complete: bool,
    events: std::collections::VecDeque<v1::ContextEvent>,
}

impl Watch {
    pub(super) fn lost(&mut self) {
        self.live = None;
    }
}

fn scope(args: &Args) -> Result<v1::ContextScope, Failure> {
    use v1::ContextScope as S;
    Ok(match args.text("scope")?.as_deref() {
        // As every client has it: who names an audience means its scope.
        None if args.has("groups") => S::Group,
        None if args.has("shares") => S::Shared,
        None => S::Unspecified,
        Some("private") => S::Private,
        Some("shared") => S::Shared,
        Some("group") => S::Group,
        Some("public") => S::Public,
        Some(other) => return Err(Failure::own(BAD_SCENARIO, format!("no scope is called {other}"))),
    })
}

pub(super) fn spec(args: &Args) -> Result<v1::ContextSpec, Failure> {
    let share = |(agent_id, access): (String, String)| {
        let access = if access == "write" { v1::ContextAccess::Write } else { v1::ContextAccess::Read };
        v1::ContextShare { agent_id, access: access as i32 }
    };
    Ok(v1::ContextSpec {
        key: args.text_or_empty("key")?,
        r#type: args.text_or_empty("type")?,
        scope: scope(args)? as i32,
        groups: args.texts("groups")?,
        shares: args.pairs("shares")?.into_iter().map(share).collect(),
        content_type: args.text_or_empty("content_type")?,
        description: args.text_or_empty("description")?,
        labels: args.texts("labels")?,
        metadata: args.pairs("metadata")?.into_iter().collect(),
        ttl_ms: args.span("ttl")?.map_or(0, |ttl| ttl.as_millis() as u64),
        version: args.text_or_empty("version")?,
    })
}

impl RawDriver {
    pub(super) async fn share(&mut self, args: &Args) -> Result<Value, Failure> {
        let context_id = args.text("id")?.unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
        let payload = self.place.mark.payload(args, 0)?;
        let request = v1::CreateContextRequest { context_id, spec: Some(spec(args)?), payload };
        let made = answer(self.client().await?.contexts().create_context(request)).await?;
        let mut shown = shape::context(&made.context.unwrap_or_default(), &self.place.mark)?;
        shown["existed"] = made.existed.into();
        Ok(shown)
    }

    pub(super) async fn get_context(&mut self, args: &Args) -> Result<Value, Failure> {
        let request = v1::GetContextRequest {
            context_id: args.text_or_empty("id")?,
            key: args.text_or_empty("key")?,
            at_rev: args.number_or("at_rev", 0)?,
            without_payload: false,
        };
        let found = answer(self.client().await?.contexts().get_context(request)).await?;
        shape::context(&found.context.unwrap_or_default(), &self.place.mark)
    }

    pub(super) async fn update_context(&mut self, args: &Args) -> Result<Value, Failure> {
        let field = |name: &'static str, wire: &'static str| args.has(name).then(|| wire.to_owned());
        let fields = [
            field("scope", "scope").or_else(|| field("groups", "scope")).or_else(|| field("shares", "scope")),
            field("groups", "groups"),
            field("shares", "shares"),
            field("content_type", "content_type"),
            field("description", "description"),
            field("labels", "labels"),
            field("metadata", "metadata"),
            field("ttl", "ttl_ms"),
            field("version", "version"),
        ];
        let payload = if args.has("payload") { Some(self.place.mark.payload(args, 0)?) } else { None };
        let request = v1::UpdateContextRequest {
            context_id: args.need("id")?,
            spec: Some(spec(args)?),
            fields: fields.into_iter().flatten().collect(),
            payload,
            if_rev: args.number_or("if_rev", 0)?,
            force: args.flag("force")?,
            idempotency_key: args.text_or_empty("idempotency_key")?,
        };
        let written = answer(self.client().await?.contexts().update_context(request)).await?;
        let mut shown = shape::context(&written.context.unwrap_or_default(), &self.place.mark)?;
        shown["duplicate"] = written.duplicate.into();
        Ok(shown)
    }

    pub(super) async fn delete_context(&mut self, args: &Args) -> Result<Value, Failure> {
        let (if_rev, force) = (args.number_or("if_rev", 0)?, args.flag("force")?);
        let request = v1::DeleteContextRequest { context_id: args.need("id")?, if_rev, force };
        let gone = answer(self.client().await?.contexts().delete_context(request)).await?;
        Ok(json!({ "rev": gone.rev }))
    }

    pub(super) async fn renew_context(&mut self, args: &Args) -> Result<Value, Failure> {
        let ttl_ms = args.span("ttl")?.map_or(0, |ttl| ttl.as_millis() as u64);
        let request = v1::RenewContextTtlRequest { context_id: args.need("id")?, ttl_ms };
        let renewed = answer(self.client().await?.contexts().renew_context_ttl(request)).await?;
        Ok(json!({ "expires_at_ms": renewed.expires_at_ms }))
    }

    pub(super) async fn list_contexts(&mut self, args: &Args) -> Result<Value, Failure> {
        let request = v1::ListContextsRequest {
            r#type: args.text_or_empty("type")?,
            owner: args.text_or_empty("owner")?,
            scope: scope(args)? as i32,
            labels: args.texts("labels")?,
            key_prefix: args.text_or_empty("key_prefix")?,
            text: args.text_or_empty("text")?,
            page_size: args.small_or("page_size", 0)?,
            page_token: args.text_or_empty("page_token")?,
        };
        let page = answer(self.client().await?.contexts().list_contexts(request)).await?;
        let keys: Vec<_> = page.contexts.iter().map(|c| c.spec.clone().unwrap_or_default().key).collect();
        Ok(json!({"keys": keys, "next_page_token": page.next_page_token, "revision": page.revision}))
    }

    pub(super) async fn context_history(&mut self, args: &Args) -> Result<Value, Failure> {
        let request =
            v1::ListContextHistoryRequest { context_id: args.need("id")?, page_size: 64, ..Default::default() };
        let page = answer(self.client().await?.contexts().list_context_history(request)).await?;
        let revs: Vec<_> = page.revisions.iter().map(|c| c.rev).collect();
        let deleted = page.revisions.first().is_some_and(|c| c.deleted);
        Ok(json!({"revs": revs, "count": revs.len(), "deleted": deleted}))
    }

    pub(super) async fn watch(&mut self, args: &Args) -> Result<Value, Failure> {
        let wish = v1::WatchRequest {
            context_id: args.text_or_empty("id")?,
            key: args.text_or_empty("key")?,
            key_prefix: args.text_or_empty("key_prefix")?,
            r#type: args.text_or_empty("type")?,
            owner: args.text_or_empty("owner")?,
            labels: args.texts("labels")?,
            after_rev: args.number_or("after_rev", 0)?,
            payload_bytes_max: WATCHED_PAYLOAD_MAX,
        };
        let name = args.text("session")?.unwrap_or_else(|| MAIN.to_owned());
        let live = open(&self.client().await?, &wish).await?;
        let complete = wish.after_rev != 0;
        let events = std::collections::VecDeque::new();
        self.watches.insert(name.clone(), Watch { wish, live: Some(live), complete, events });
        let mut keys = Vec::new();
        // The state is complete when the frames say so; a resumed watch has none.
        while self.watches.get(&name).is_some_and(|w| !w.complete) {
            self.watch_frame(&name).await?;
            let watch = self.watches.get_mut(&name).ok_or_else(|| no_watch(&name))?;
            for event in watch.events.drain(..) {
                keys.push(event.context.and_then(|c| c.spec).unwrap_or_default().key);
            }
        }
        Ok(json!({ "keys": keys, "revision": self.watches.get(&name).map(|w| w.wish.after_rev) }))
    }

    /// Takes one frame, over a connection that is made anew when it broke.
    async fn watch_frame(&mut self, name: &str) -> Result<(), Failure> {
        let started = std::time::Instant::now();
        loop {
            let mut watch = self.watches.remove(name).ok_or_else(|| no_watch(name))?;
            let outcome = async {
                let client = self.client().await?;
                if watch.live.is_none() {
                    watch.live = Some(open(&client, &watch.wish).await?);
                }
                let Some(live) = &mut watch.live else { return Err(no_watch(name)) };
                let frame = tokio::time::timeout(patience(), live.message()).await;
                let frame = frame.map_err(|_| Failure::own("timeout", "no frame of the watch came"))?;
                frame.map_err(Failure::from)?.ok_or_else(|| Failure::lost("the watch's stream ended"))
            }
            .await;
            let outcome = match outcome {
                Ok(frame) => {
                    watch.wish.after_rev = watch.wish.after_rev.max(frame.revision);
                    watch.complete |= frame.state_complete;
                    watch.events.extend(frame.events);
                    Ok(())
                }
                Err(failure) => {
                    watch.live = None;
                    Err(failure)
                }
            };
            self.watches.insert(name.to_owned(), watch);
            match outcome {
                Err(failure) if failure.is_lost() && started.elapsed() < patience() => {
                    self.disconnected();
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                other => return other,
            }
        }
    }

    pub(super) async fn event(&mut self, args: &Args) -> Result<Value, Failure> {
        let name = args.text("session")?.unwrap_or_else(|| MAIN.to_owned());
        loop {
            let watch = self.watches.get_mut(&name).ok_or_else(|| no_watch(&name))?;
            if let Some(event) = watch.events.pop_front() {
                let kind = match event.kind() {
                    v1::ContextEventKind::State => "state",
                    v1::ContextEventKind::Created => "created",
                    v1::ContextEventKind::Updated => "updated",
                    v1::ContextEventKind::Deleted => "deleted",
                    v1::ContextEventKind::Expired => "expired",
                    v1::ContextEventKind::Unspecified => "unspecified",
                };
                let mut shown = shape::context(&event.context.unwrap_or_default(), &self.place.mark)?;
                shown["event"] = kind.into();
                return Ok(shown);
            }
            self.watch_frame(&name).await?;
        }
    }

    pub(super) async fn create_group(&mut self, args: &Args) -> Result<Value, Failure> {
        let (name, description) = (args.need("name")?, args.text_or_empty("description")?);
        let request = v1::CreateGroupRequest { name, description };
        let made = answer(self.client().await?.admin().create_group(request)).await?;
        Ok(json!({ "existed": made.existed, "members": made.group.unwrap_or_default().members }))
    }

    pub(super) async fn delete_group(&mut self, args: &Args) -> Result<Value, Failure> {
        let request = v1::DeleteGroupRequest { name: args.need("name")? };
        answer(self.client().await?.admin().delete_group(request)).await?;
        Ok(Value::Null)
    }

    pub(super) async fn list_groups(&mut self) -> Result<Value, Failure> {
        let page = answer(self.client().await?.admin().list_groups(v1::ListGroupsRequest::default())).await?;
        Ok(json!({ "names": page.groups.iter().map(|g| g.name.clone()).collect::<Vec<_>>() }))
    }

    pub(super) async fn add_members(&mut self, args: &Args) -> Result<Value, Failure> {
        let request = v1::AddGroupMembersRequest { name: args.need("name")?, agent_ids: args.texts("agents")? };
        let group = answer(self.client().await?.admin().add_group_members(request)).await?.group;
        Ok(json!({ "members": group.unwrap_or_default().members }))
    }

    pub(super) async fn remove_members(&mut self, args: &Args) -> Result<Value, Failure> {
        let request = v1::RemoveGroupMembersRequest { name: args.need("name")?, agent_ids: args.texts("agents")? };
        let group = answer(self.client().await?.admin().remove_group_members(request)).await?.group;
        Ok(json!({ "members": group.unwrap_or_default().members }))
    }

    pub(super) async fn list_members(&mut self, args: &Args) -> Result<Value, Failure> {
        let request = v1::ListGroupMembersRequest { name: args.need("name")?, ..Default::default() };
        let page = answer(self.client().await?.admin().list_group_members(request)).await?;
        Ok(json!({ "agents": page.members.iter().map(|m| m.agent_id.clone()).collect::<Vec<_>>() }))
    }
}

async fn open(client: &RawClient, wish: &v1::WatchRequest) -> Result<tonic::Streaming<v1::WatchResponse>, Failure> {
    answer(client.contexts().watch(wish.clone())).await
}

fn no_watch(name: &str) -> Failure {
    Failure::own(BAD_SCENARIO, format!("no watch is called {name}"))
}
