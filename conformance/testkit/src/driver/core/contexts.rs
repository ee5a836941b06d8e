//! Contexts, watches and groups.

use acb_sdk::{Context, ContextAccess, ContextEvent, ContextScope, ContextWatch};
use serde_json::{Value, json};

use super::CoreDriver;
use crate::{
    driver::{Args, args::BAD_SCENARIO, mark::Mark},
    raw::Failure,
    wait::patience,
};

/// The watch that steps mean when they name none.
const MAIN: &str = "main";
/// Payloads of events are asked for up to this size.
const WATCHED_PAYLOAD_MAX: usize = 4096;

fn shape(c: &Context, mark: &Mark) -> Result<Value, Failure> {
    let shares = c.shares.iter().map(|(agent, access)| {
        let access = if *access == ContextAccess::Write { "write" } else { "read" };
        (agent.clone(), Value::from(access))
    });
    let payload = if c.payload.is_empty() { Value::Null } else { mark.open(&c.payload)? };
    Ok(json!({
        "id": c.id, "key": c.key.clone().unwrap_or_default(), "type": c.kind, "scope": c.scope.as_str(),
        "groups": c.groups, "shares": Value::Object(shares.collect()), "content_type": c.content_type,
        "description": c.description, "labels": c.labels, "metadata": c.metadata, "version": c.version,
        "owner": c.owner, "rev": c.rev, "size_bytes": c.size, "expires_at_ms": c.expires_at.0,
        "created_at_ms": c.created_at.0, "updated_at_ms": c.updated_at.0, "updated_by": c.updated_by,
        "deleted": c.deleted, "payload": payload,
    }))
}

pub(super) fn scope(args: &Args) -> Result<Option<ContextScope>, Failure> {
    Ok(args.text("scope")?.map(|text| text.parse()).transpose()?)
}

pub(super) fn shares(args: &Args) -> Result<Vec<(String, ContextAccess)>, Failure> {
    let access = |(agent, access): (String, String)| {
        (agent, if access == "write" { ContextAccess::Write } else { ContextAccess::Read })
    };
    Ok(args.pairs("shares")?.into_iter().map(access).collect())
}

fn no_watch(name: &str) -> Failure {
    Failure::own(BAD_SCENARIO, format!("no watch is called {name}"))
}

impl CoreDriver {
    pub(super) async fn share(&mut self, args: &Args) -> Result<Value, Failure> {
        let payload = self.place.mark.payload(args, 0)?;
        let contexts = self.client().await?.contexts();
        let mut share = contexts.share(args.text_or_empty("key")?, payload).kind(args.text_or_empty("type")?);
        if let Some(id) = args.text("id")? {
            share = share.id(id);
        }
        share = args.texts("groups")?.into_iter().fold(share, acb_sdk::ShareBuilder::group);
        share = shares(args)?.into_iter().fold(share, |s, (agent, access)| s.share_with(agent, access));
        if let Some(scope) = scope(args)? {
            share = share.scope(scope);
        }
        share = share.content_type(args.text_or_empty("content_type")?);
        share = share.description(args.text_or_empty("description")?).version(args.text_or_empty("version")?);
        share = args.texts("labels")?.into_iter().fold(share, acb_sdk::ShareBuilder::label);
        share = args.pairs("metadata")?.into_iter().fold(share, |s, (k, v)| s.metadata(k, v));
        if let Some(ttl) = args.span("ttl")? {
            share = share.expires_after(ttl);
        }
        let made = share.await?;
        let mut shown = shape(&made.context, &self.place.mark)?;
        shown["existed"] = made.existed.into();
        Ok(shown)
    }

    pub(super) async fn get_context(&mut self, args: &Args) -> Result<Value, Failure> {
        let which = args.text("id")?.map_or_else(|| args.need("key"), Ok)?;
        let mut get = self.client().await?.contexts().get(which);
        if let Some(rev) = args.number("at_rev")? {
            get = get.at_rev(rev);
        }
        shape(&get.await?, &self.place.mark)
    }

    pub(super) async fn update_context(&mut self, args: &Args) -> Result<Value, Failure> {
        let mut update = self.client().await?.contexts().update(args.need("id")?);
        if args.has("payload") {
            update = update.payload(self.place.mark.payload(args, 0)?);
        }
        if let Some(rev) = args.number("if_rev")? {
            update = update.if_rev(rev);
        }
        if args.flag("force")? {
            update = update.force();
        }
        if args.has("groups") {
            update = update.groups(args.texts("groups")?);
        }
        if args.has("shares") {
            update = update.shares(shares(args)?);
        }
        if let Some(scope) = scope(args)? {
            update = update.scope(scope);
        }
        if let Some(text) = args.text("content_type")? {
            update = update.content_type(text);
        }
        if let Some(text) = args.text("description")? {
            update = update.description(text);
        }
        if args.has("labels") {
            update = update.labels(args.texts("labels")?);
        }
        if args.has("metadata") {
            update = update.metadata(args.pairs("metadata")?);
        }
        if args.has("ttl") {
            update = update.expires_after(args.span("ttl")?);
        }
        if let Some(text) = args.text("version")? {
            update = update.version(text);
        }
        if let Some(key) = args.text("idempotency_key")? {
            update = update.idempotency_key(key);
        }
        let written = update.await?;
        let mut shown = shape(&written.context, &self.place.mark)?;
        shown["duplicate"] = written.duplicate.into();
        Ok(shown)
    }

    pub(super) async fn delete_context(&mut self, args: &Args) -> Result<Value, Failure> {
        let delete = self.client().await?.contexts().delete(args.need("id")?);
        let delete = match args.number("if_rev")? {
            Some(rev) => delete.if_rev(rev),
            None if args.flag("force")? => delete.force(),
            None => delete,
        };
        Ok(json!({ "rev": delete.await?.unwrap_or_default() }))
    }

    pub(super) async fn renew_context(&mut self, args: &Args) -> Result<Value, Failure> {
        let renewed = self.client().await?.contexts().renew(args.need("id")?, args.span("ttl")?).await?;
        Ok(json!({ "expires_at_ms": renewed.unwrap_or_default().0 }))
    }

    pub(super) async fn list_contexts(&mut self, args: &Args) -> Result<Value, Failure> {
        let mut list = self.client().await?.contexts().list().page_size(args.small_or("page_size", 0)?);
        list = list.kind(args.text_or_empty("type")?).owner(args.text_or_empty("owner")?);
        list = list.key_prefix(args.text_or_empty("key_prefix")?).text(args.text_or_empty("text")?);
        if let Some(scope) = scope(args)? {
            list = list.scope(scope);
        }
        list = args.texts("labels")?.into_iter().fold(list, acb_sdk::ListBuilder::label);
        let page = list.page(args.text_or_empty("page_token")?).await?;
        let keys: Vec<_> = page.contexts.iter().map(|c| c.key.clone().unwrap_or_default()).collect();
        let next = page.next.unwrap_or_default();
        Ok(json!({"keys": keys, "next_page_token": next, "revision": page.revision}))
    }

    pub(super) async fn context_history(&mut self, args: &Args) -> Result<Value, Failure> {
        let all = self.client().await?.contexts().history(args.need("id")?).all().await?;
        let revs: Vec<_> = all.iter().map(|c| c.rev).collect();
        let deleted = all.first().is_some_and(|c| c.deleted);
        Ok(json!({"revs": revs, "count": revs.len(), "deleted": deleted}))
    }

    pub(super) async fn watch(&mut self, args: &Args) -> Result<Value, Failure> {
        let contexts = self.client().await?.contexts();
        let mut watch = contexts.watch().id(args.text_or_empty("id")?).key(args.text_or_empty("key")?);
        watch = watch.key_prefix(args.text_or_empty("key_prefix")?).kind(args.text_or_empty("type")?);
        watch = watch.owner(args.text_or_empty("owner")?).payloads_up_to(WATCHED_PAYLOAD_MAX);
        watch = args.texts("labels")?.into_iter().fold(watch, acb_sdk::WatchBuilder::label);
        let after = args.number_or("after_rev", 0)?;
        let mut watch = within(watch.after(after).open()).await??;
        let mut keys = Vec::new();
        if after == 0 {
            loop {
                match next(&mut watch).await? {
                    ContextEvent::State(c) => keys.push(c.key.unwrap_or_default()),
                    ContextEvent::Restarted => keys.clear(),
                    _ => break,
                }
            }
        }
        let revision = watch.revision();
        self.watches.insert(args.text("session")?.unwrap_or_else(|| MAIN.to_owned()), watch);
        Ok(json!({ "keys": keys, "revision": revision }))
    }

    pub(super) async fn event(&mut self, args: &Args) -> Result<Value, Failure> {
        let name = args.text("session")?.unwrap_or_else(|| MAIN.to_owned());
        let watch = self.watches.get_mut(&name).ok_or_else(|| no_watch(&name))?;
        loop {
            let event = next(watch).await?;
            let kind = match &event {
                ContextEvent::State(_) => "state",
                ContextEvent::Created(_) => "created",
                ContextEvent::Updated(_) => "updated",
                ContextEvent::Deleted(_) => "deleted",
                ContextEvent::Expired(_) => "expired",
                _ => continue,
            };
            let Some(context) = event.context() else { continue };
            let mut shown = shape(context, &self.place.mark)?;
            shown["event"] = kind.into();
            return Ok(shown);
        }
    }

    pub(super) async fn create_group(&mut self, args: &Args) -> Result<Value, Failure> {
        let admin = self.client().await?.admin();
        let group = admin.create_group(args.need("name")?, args.text_or_empty("description")?).await?;
        Ok(json!({ "members": group.members }))
    }

    pub(super) async fn delete_group(&mut self, args: &Args) -> Result<Value, Failure> {
        self.client().await?.admin().delete_group(args.need("name")?).await?;
        Ok(Value::Null)
    }

    pub(super) async fn list_groups(&mut self) -> Result<Value, Failure> {
        let all = self.client().await?.admin().groups().all().await?;
        Ok(json!({ "names": all.into_iter().map(|g| g.name).collect::<Vec<_>>() }))
    }

    pub(super) async fn add_members(&mut self, args: &Args) -> Result<Value, Failure> {
        let group = self.client().await?.admin().add_group_members(args.need("name")?, args.texts("agents")?).await?;
        Ok(json!({ "members": group.members }))
    }

    pub(super) async fn remove_members(&mut self, args: &Args) -> Result<Value, Failure> {
        let admin = self.client().await?.admin();
        let group = admin.remove_group_members(args.need("name")?, args.texts("agents")?).await?;
        Ok(json!({ "members": group.members }))
    }

    pub(super) async fn list_members(&mut self, args: &Args) -> Result<Value, Failure> {
        let all = self.client().await?.admin().group_members(args.need("name")?).all().await?;
        Ok(json!({ "agents": all.into_iter().map(|m| m.agent_id).collect::<Vec<_>>() }))
    }
}

async fn within<T>(work: impl IntoFuture<Output = T>) -> Result<T, Failure> {
    let late = |_| Failure::own("timeout", "nothing of the watch came");
    tokio::time::timeout(patience(), work.into_future()).await.map_err(late)
}

async fn next(watch: &mut ContextWatch) -> Result<ContextEvent, Failure> {
    let over = || Failure::own("stream_closed", "the watch is over");
    Ok(within(watch.next()).await?.ok_or_else(over)??)
}
