//! Builders of the unary verbs. Each is awaited.

use std::{
    collections::BTreeMap,
    future::{Future, IntoFuture},
    pin::Pin,
    time::Duration,
};

use acb_proto::v1::context_service_client::ContextServiceClient;
use acb_types::{ContextId, limits};
use bytes::Bytes;

use super::{
    model::{Context, ContextAccess, ContextPage, ContextScope, SharedContext, UpdatedContext},
    write,
};
use crate::{
    client::Handle,
    convert,
    error::Result,
    pages::{Page, Pages},
    retry::Safety,
};

type Pending<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

macro_rules! awaited {
    ($builder:ident -> $output:ty) => {
        impl IntoFuture for $builder {
            type Output = Result<$output>;
            type IntoFuture = Pending<$output>;

            fn into_future(self) -> Self::IntoFuture {
                Box::pin(self.send())
            }
        }
    };
}

/// What is said of a context.
#[derive(Clone, Debug, Default)]
pub(crate) struct SpecParts {
    pub(crate) key: String,
    pub(crate) kind: String,
    pub(crate) scope: Option<ContextScope>,
    pub(crate) groups: Vec<String>,
    pub(crate) shares: Vec<(String, ContextAccess)>,
    pub(crate) content_type: String,
    pub(crate) description: String,
    pub(crate) labels: Vec<String>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) version: String,
}

/// A context in the making. Await it.
#[derive(Clone, Debug)]
#[must_use = "a context is shared when the builder is awaited"]
pub struct ShareBuilder {
    core: Handle,
    id: Option<String>,
    spec: SpecParts,
    payload: Bytes,
}

impl ShareBuilder {
    pub(super) fn new(core: Handle, key: String, payload: Bytes) -> Self {
        Self { core, id: None, spec: SpecParts { key, ..SpecParts::default() }, payload }
    }

    /// Its id, a UUIDv7; chosen at random by default. Choose it to repeat the whole call after a restart.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Its kind; at most 128 bytes. Cannot be changed.
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.spec.kind = kind.into();
        self
    }

    /// Who may see it; its owner alone by default.
    pub fn scope(mut self, scope: ContextScope) -> Self {
        self.spec.scope = Some(scope);
        self
    }

    /// Lets the members of a group read it; again for more, at most 64. Sets the scope to `group`.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.spec.scope = Some(ContextScope::Group);
        self.spec.groups.push(group.into());
        self
    }

    /// Shares it with an agent; again for more, at most 64. Sets the scope to `shared`.
    pub fn share_with(mut self, agent: impl Into<String>, access: ContextAccess) -> Self {
        self.spec.scope = Some(ContextScope::Shared);
        self.spec.shares.push((agent.into(), access));
        self
    }

    /// Media type of the payload; at most 128 bytes.
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.spec.content_type = content_type.into();
        self
    }

    /// For people; at most 1,024 bytes.
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.spec.description = description.into();
        self
    }

    /// A word to filter by; again for more, at most 32 of 128 bytes each.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.spec.labels.push(label.into());
        self
    }

    /// One more fact; at most 64, 16 KiB in all.
    pub fn metadata(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.spec.metadata.insert(name.into(), value.into());
        self
    }

    /// How long it lives; for ever by default.
    pub fn expires_after(mut self, ttl: Duration) -> Self {
        self.spec.ttl = Some(ttl);
        self
    }

    /// Its semantic version; `0.1.0` by default.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.spec.version = version.into();
        self
    }

    /// Shares it.
    ///
    /// # Errors
    /// `context_exists` for a key that is taken, `context_too_large` above 1 TiB, `group_not_found`, `permission_denied`,
    /// `storage_full`.
    ///
    /// # Cancel safety
    /// Dropped, it may or may not have been shared; the same builder with the same [`Self::id`] finds it.
    pub async fn send(self) -> Result<SharedContext> {
        let id = self.id.unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
        write::share(self.core, convert::create_context(id, self.spec, self.payload)).await
    }
}

awaited!(ShareBuilder -> SharedContext);

/// A read in the making. Await it.
#[derive(Clone, Debug)]
#[must_use = "a context is got when the builder is awaited"]
pub struct GetBuilder {
    core: Handle,
    id: String,
    key: String,
    at_rev: u64,
    without_payload: bool,
}

impl GetBuilder {
    pub(super) fn new(core: Handle, which: String) -> Self {
        let is_id = which.parse::<ContextId>().is_ok();
        let (id, key) = if is_id { (which, String::new()) } else { (String::new(), which) };
        Self { core, id, key, at_rev: 0, without_payload: false }
    }

    /// As it was at this revision.
    pub fn at_rev(mut self, rev: u64) -> Self {
        self.at_rev = rev;
        self
    }

    /// Leaves the payload out.
    pub fn without_payload(mut self) -> Self {
        self.without_payload = true;
        self
    }

    /// Gets it.
    ///
    /// # Errors
    /// `context_not_found`, also for what the caller may not see; `revision_gap` for a revision that is no longer kept.
    pub async fn send(self) -> Result<Context> {
        let operation = "contexts.get";
        let request = convert::get_context(self.id, self.key, self.at_rev, self.without_payload);
        let response = self
            .core
            .call(operation, Safety::Idempotent, request, |to, request| async move {
                ContextServiceClient::with_origin(to.channel, to.origin)
                    .max_decoding_message_size(limits::CONTEXT_INLINE_BYTES_MAX + (64 << 10))
                    .get_context(request)
                    .await
            })
            .await?;
        convert::context(operation, response.context)
    }
}

awaited!(GetBuilder -> Context);

/// A change of a context in the making. Await it.
#[derive(Clone, Debug)]
#[must_use = "a context is changed when the builder is awaited"]
pub struct UpdateContextBuilder {
    core: Handle,
    id: String,
    spec: SpecParts,
    fields: Vec<&'static str>,
    payload: Option<Bytes>,
    if_rev: u64,
    force: bool,
    key: Option<String>,
}

impl UpdateContextBuilder {
    pub(super) fn new(core: Handle, id: String) -> Self {
        let (spec, fields) = (SpecParts::default(), Vec::new());
        Self { core, id, spec, fields, payload: None, if_rev: 0, force: false, key: None }
    }

    fn field(mut self, name: &'static str) -> Self {
        if !self.fields.contains(&name) {
            self.fields.push(name);
        }
        self
    }

    /// Only if the context is still at this revision.
    pub fn if_rev(mut self, rev: u64) -> Self {
        (self.if_rev, self.force) = (rev, false);
        self
    }

    /// Whatever is there is overwritten. Audited.
    pub fn force(mut self) -> Self {
        (self.if_rev, self.force) = (0, true);
        self
    }

    /// Its new payload, streamed above 256 KiB; the old one stays by default.
    pub fn payload(mut self, payload: impl Into<Bytes>) -> Self {
        self.payload = Some(payload.into());
        self
    }

    /// New scope. Groups and shares that do not go with it end. Owners only.
    pub fn scope(mut self, scope: ContextScope) -> Self {
        self.spec.scope = Some(scope);
        self.field("scope")
    }

    /// New groups, all of them; sets the scope to `group`. Owners only.
    pub fn groups(mut self, groups: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.spec.scope = Some(ContextScope::Group);
        self.spec.groups = groups.into_iter().map(Into::into).collect();
        self.field("scope").field("groups")
    }

    /// New shares, all of them; sets the scope to `shared`. Owners only.
    pub fn shares(mut self, shares: impl IntoIterator<Item = (impl Into<String>, ContextAccess)>) -> Self {
        self.spec.scope = Some(ContextScope::Shared);
        self.spec.shares = shares.into_iter().map(|(agent, access)| (agent.into(), access)).collect();
        self.field("scope").field("shares")
    }

    /// New media type.
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.spec.content_type = content_type.into();
        self.field("content_type")
    }

    /// New description.
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.spec.description = description.into();
        self.field("description")
    }

    /// New labels, all of them.
    pub fn labels(mut self, labels: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.spec.labels = labels.into_iter().map(Into::into).collect();
        self.field("labels")
    }

    /// New metadata, all of it.
    pub fn metadata(mut self, entries: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>) -> Self {
        self.spec.metadata = entries.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        self.field("metadata")
    }

    /// New life from now on; `None` is for ever.
    pub fn expires_after(mut self, ttl: Option<Duration>) -> Self {
        self.spec.ttl = ttl;
        self.field("ttl_ms")
    }

    /// New version, above the present one; the next patch by default.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.spec.version = version.into();
        self.field("version")
    }

    /// The caller's key against doubles, for who repeats the whole call after a restart; random by default.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Changes it. Made again by itself after a broken connection, and done once.
    ///
    /// # Errors
    /// `revision_conflict` with the detail `rev` when somebody was faster, `missing_field` without [`Self::if_rev`] and
    /// [`Self::force`], `context_not_found`, `permission_denied`, `context_too_large`, `invalid_version`.
    ///
    /// # Cancel safety
    /// Dropped, it may or may not have been changed.
    pub async fn send(self) -> Result<UpdatedContext> {
        let fields = self.fields.into_iter().map(str::to_owned).collect();
        let request = convert::update_context(self.id, self.spec, fields, self.payload, (self.if_rev, self.force));
        write::change(self.core, request, self.key).await
    }
}

awaited!(UpdateContextBuilder -> UpdatedContext);

/// A delete in the making. Await it.
#[derive(Clone, Debug)]
#[must_use = "a context is deleted when the builder is awaited"]
pub struct DeleteBuilder {
    core: Handle,
    id: String,
    if_rev: u64,
    force: bool,
}

impl DeleteBuilder {
    pub(super) fn new(core: Handle, id: String) -> Self {
        Self { core, id, if_rev: 0, force: false }
    }

    /// Only if the context is still at this revision.
    pub fn if_rev(mut self, rev: u64) -> Self {
        (self.if_rev, self.force) = (rev, false);
        self
    }

    /// Whatever is there is deleted. Audited.
    pub fn force(mut self) -> Self {
        (self.if_rev, self.force) = (0, true);
        self
    }

    /// Deletes it. Answers with the marker's revision; `None` when nothing was there. Safe to repeat.
    ///
    /// # Errors
    /// `permission_denied`, `revision_conflict`, `missing_field` without [`Self::if_rev`] and [`Self::force`].
    pub async fn send(self) -> Result<Option<u64>> {
        let request = convert::delete_context(self.id, self.if_rev, self.force);
        let response = self
            .core
            .call("contexts.delete", Safety::Idempotent, request, |to, request| async move {
                ContextServiceClient::with_origin(to.channel, to.origin).delete_context(request).await
            })
            .await?;
        Ok(Some(response.rev).filter(|rev| *rev != 0))
    }
}

awaited!(DeleteBuilder -> Option<u64>);

/// What a list or a watch is of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) key_prefix: String,
    pub(crate) kind: String,
    pub(crate) owner: String,
    pub(crate) scope: Option<ContextScope>,
    pub(crate) labels: Vec<String>,
    pub(crate) text: String,
}

/// A list in the making. All conditions must hold.
#[derive(Clone, Debug)]
#[must_use = "a list asks for nothing until it is read"]
pub struct ListBuilder {
    core: Handle,
    filter: Filter,
    page_size: u32,
}

impl ListBuilder {
    pub(super) fn new(core: Handle) -> Self {
        Self { core, filter: Filter::default(), page_size: limits::PAGE_SIZE_MAX }
    }

    /// Of exactly this kind.
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.filter.kind = kind.into();
        self
    }

    /// Made by this agent.
    pub fn owner(mut self, agent: impl Into<String>) -> Self {
        self.filter.owner = agent.into();
        self
    }

    /// With this scope.
    pub fn scope(mut self, scope: ContextScope) -> Self {
        self.filter.scope = Some(scope);
        self
    }

    /// With this label; again for more, all of which it must have.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.filter.labels.push(label.into());
        self
    }

    /// With a key that begins so.
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.filter.key_prefix = prefix.into();
        self
    }

    /// With this text in key, kind or description, in any case.
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.filter.text = text.into();
        self
    }

    /// Contexts of a page: 1 to 500, which is also the default.
    pub fn page_size(mut self, size: u32) -> Self {
        self.page_size = size;
        self
    }

    /// One page: the first with an empty token, then with [`ContextPage::next`].
    ///
    /// # Errors
    /// `invalid_page_token`, `field_too_large`.
    pub async fn page(&self, token: impl Into<String>) -> Result<ContextPage> {
        let operation = "contexts.list";
        let request = convert::list_contexts(self.filter.clone(), self.page_size, token.into());
        let response = self
            .core
            .call(operation, Safety::Idempotent, request, |to, request| async move {
                ContextServiceClient::with_origin(to.channel, to.origin).list_contexts(request).await
            })
            .await?;
        let contexts = response.contexts.into_iter().map(|c| convert::context(operation, Some(c)));
        let page = Page::new(contexts.collect::<Result<_>>()?, response.next_page_token);
        Ok(ContextPage { contexts: page.items, next: page.next, revision: response.revision })
    }

    /// All of them, page by page.
    pub fn items(self) -> Pages<Context> {
        Pages::new(move |token| {
            let me = self.clone();
            async move {
                let page = me.page(token).await?;
                Ok(Page::new(page.contexts, page.next.unwrap_or_default()))
            }
        })
    }

    /// All of them at once. For lists that are known to be short: it holds them all.
    ///
    /// # Errors
    /// As [`Self::page`].
    pub async fn all(self) -> Result<Vec<Context>> {
        self.items().all().await
    }
}
