//! Contexts: made, read, written, ended. Who may is decided by [`rules::decide`] over what the store says of the row; the
//! store's conditions make sure that it still holds when the write happens.

use std::{collections::BTreeSet, time::Duration};

use acb_ports::{
    blob_store::BlobPin,
    metadata::{
        ContentPlace, ContextChange, ContextContent, ContextFilter, ContextRelation, ContextRemoval, ContextRenewal,
        ContextRow, ContextScope, ContextSpec, ContextWrite, ListedAt, NewContext, Payloads, RepeatKey, Viewer,
        WriteCondition,
    },
};
use acb_types::{ContextId, ContextKey, ErrorCode, Sha256Digest, Timestamp, limits};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::{
    App, OpContext,
    page::{self, Page, Query},
};
use crate::{
    auth::{Mode, Role, Roles},
    domain::context::{self as rules, ContextVerb, Verdict},
    error::AppError,
};

/// Hashes of payloads from this size on are made on a blocking thread: a serving thread must not be held.
const HASH_BLOCKING_FROM: usize = 64 * 1024;
/// Bytes of a page; clients read answers of 4 MiB.
const PAGE_BYTES: usize = 1024 * 1024;
/// How often a forced write looks again when somebody changed in between who may see the context.
const FORCE_ATTEMPTS: usize = 8;

/// A context with its payload, where it was asked for and fits an answer.
#[derive(Clone, Debug)]
pub struct ContextView {
    /// What is kept.
    pub row: ContextRow,
    /// Its payload; `None` when it was not asked for, or is streamed.
    pub payload: Option<Bytes>,
}

/// Names a context.
#[derive(Clone, Debug)]
pub enum ContextRef {
    /// By its id.
    Id(ContextId),
    /// By its key.
    Key(ContextKey),
}

/// What a caller asks a write to depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum If {
    /// The context is at this revision.
    Rev(u64),
    /// Nothing: whatever is there is overwritten. Audited.
    Force,
}

/// An update as it is asked for.
#[derive(Clone, Debug)]
pub struct ContextUpdate {
    /// When.
    pub condition: If,
    /// What changes of what is said of it.
    pub change: ContextChange,
    /// Its new payload.
    pub payload: Option<Bytes>,
    /// The caller's key against doubles; may be empty.
    pub idempotency_key: String,
}

/// A page of contexts.
#[derive(Clone, Debug)]
pub struct ContextPage {
    /// Its items.
    pub page: Page<ContextRow>,
    /// The tenant's revision before the first page was read.
    pub revision: u64,
}

/// A payload that is kept, and held from the sweep until its row is.
pub(crate) struct KeptPayload {
    pub(crate) content: ContextContent,
    _pin: Option<BlobPin>,
}

impl App {
    /// Makes a context. The id that the caller chose makes it repeatable.
    ///
    /// # Errors
    /// `context_exists`, `context_too_large`, `context_limit`, `group_not_found`, and what [`rules::check_spec`] refuses.
    pub async fn context_create(
        &self,
        ctx: &OpContext,
        id: Option<ContextId>,
        spec: ContextSpec,
        payload: Bytes,
    ) -> Result<(ContextRow, bool), AppError> {
        let p = ctx.principal();
        rules::check_spec(&spec)?;
        rules::check_payload(payload.len())?;
        let now = self.now();
        let id = match id {
            Some(id) => id,
            None => ContextId::try_from(self.deps.ids.uuid_v7(now))?,
        };
        let kept = self.payload_keep(ctx, payload).await?;
        let new = NewContext {
            id,
            fingerprint: rules::fingerprint(&spec, &kept.content.sha256),
            spec,
            owner: p.agent.clone(),
            content: kept.content.clone(),
            stream: None,
            now,
        };
        let made = self.deps.metadata.context_create(&p.tenant, new).await?;
        self.context_written(ctx, &made.row);
        Ok((made.row, made.existed))
    }

    /// Shows a context, as it is or as it was at a revision. Who looks back must see it both as it was then and now.
    ///
    /// # Errors
    /// `context_not_found`; `revision_gap` when that revision is no longer kept.
    pub async fn context_get(
        &self,
        ctx: &OpContext,
        which: &ContextRef,
        at: Option<u64>,
        payloads: Payloads,
    ) -> Result<ContextView, AppError> {
        let tenant = &ctx.principal().tenant;
        self.deps.metrics.tenant(tenant).context_reads.inc();
        let id = match which {
            ContextRef::Id(id) => *id,
            ContextRef::Key(key) => {
                self.deps.metadata.context_find(tenant, key, at).await?.ok_or_else(|| absent(which))?
            }
        };
        let present = self.deps.metadata.context_get(tenant, &id).await?.ok_or_else(|| absent(which))?;
        let row = match at {
            None if present.is_there(self.now()) => present,
            None => return Err(absent(which)),
            Some(at) => {
                self.permit(ctx, &present, ContextVerb::Read).await?;
                let then = self.deps.metadata.context_get_at(tenant, &id, at).await;
                let then = match then {
                    Err(e) if e.code == ErrorCode::RevisionGap => return Err(self.gap(ctx, &id, e.into()).await),
                    then => then?,
                };
                then.filter(|row| !row.is_marker()).ok_or_else(|| absent(which))?
            }
        };
        self.permit(ctx, &row, ContextVerb::Read).await?;
        let payload = match payloads {
            Payloads::Read => self.payload_read(ctx, &row.content).await?,
            Payloads::LeaveOut => None,
        };
        Ok(ContextView { row, payload })
    }

    /// Tells from where on a context's revisions are kept.
    async fn gap(&self, ctx: &OpContext, id: &ContextId, error: AppError) -> AppError {
        let tenant = &ctx.principal().tenant;
        match self.deps.metadata.context_history(tenant, id, None, limits::CONTEXT_HISTORY).await {
            Ok(rows) => match rows.last() {
                Some(oldest) => error.detail("oldest_rev", oldest.rev.to_string()),
                None => error,
            },
            Err(_) => error,
        }
    }

    /// Changes what is given, if the context is still as the caller saw it. Answers also whether this repeats an update.
    ///
    /// # Errors
    /// `context_not_found`, `permission_denied`, `revision_conflict`, `invalid_version`, `context_too_large`,
    /// `idempotency_conflict`, `group_not_found`, and what [`rules::check_spec`] refuses.
    pub async fn context_update(
        &self,
        ctx: &OpContext,
        id: &ContextId,
        update: ContextUpdate,
    ) -> Result<(ContextRow, bool), AppError> {
        let p = ctx.principal();
        let ContextUpdate { condition, change, payload, idempotency_key } = update;
        if idempotency_key.len() > limits::SHORT_TEXT_BYTES_MAX {
            let actual = idempotency_key.len();
            return Err(AppError::too_large("idempotency_key", actual, limits::SHORT_TEXT_BYTES_MAX));
        }
        rules::check_payload(payload.as_ref().map_or(0, Bytes::len))?;
        let verb = if change.is_of_access() { ContextVerb::Share } else { ContextVerb::Update };
        // The caller's right comes before its payload is kept: nobody fills the disk with what is refused.
        let mut row = self.context_for(ctx, id, verb).await?;
        let kept = match payload {
            Some(payload) => Some(self.payload_keep(ctx, payload).await?),
            None => None,
        };
        let if_rev = if let If::Rev(rev) = condition { rev } else { 0 };
        let repeat = (!idempotency_key.is_empty()).then(|| RepeatKey {
            body: rules::update_fingerprint(&change, kept.as_ref().map(|k| &k.content.sha256), if_rev),
            key: idempotency_key,
        });
        for _ in 0..FORCE_ATTEMPTS {
            // What the caller saw cannot be newer than what is there.
            if let If::Rev(rev) = condition
                && rev > row.rev
            {
                return Err(self.conflict(ctx, &row));
            }
            let unversioned = ContextChange { version: None, ..change.clone() };
            rules::check_spec(&unversioned.applied_to(&row.spec)?)?;
            let write = ContextWrite {
                condition: store_condition(condition, &row),
                change: change.clone(),
                content: kept.as_ref().map(|k| k.content.clone()),
                by: p.agent.clone(),
                repeat: repeat.clone(),
                stream: None,
                now: self.now(),
            };
            match self.deps.metadata.context_update(&p.tenant, id, write).await {
                Ok(written) => {
                    if !written.duplicate {
                        self.context_written(ctx, &written.row);
                        self.audit_write(ctx, "context.update", id, condition, verb).await;
                    }
                    return Ok((written.row, written.duplicate));
                }
                Err(e) if e.code == ErrorCode::RevisionConflict => {
                    row = self.context_for(ctx, id, verb).await?;
                    if condition != If::Force {
                        return Err(self.conflict(ctx, &row));
                    }
                }
                Err(e) => return Err(e.into()),
            }
        }
        Err(self.conflict(ctx, &row))
    }

    /// Puts a marker in place of a context. Answers with the marker's revision; 0 when nothing was there for the caller.
    ///
    /// # Errors
    /// `permission_denied`, `revision_conflict`.
    pub async fn context_delete(&self, ctx: &OpContext, id: &ContextId, condition: If) -> Result<u64, AppError> {
        let p = ctx.principal();
        for _ in 0..FORCE_ATTEMPTS {
            let Some(row) = self.deps.metadata.context_get(&p.tenant, id).await? else { return Ok(0) };
            let verdict = self.verdict(ctx, &row, ContextVerb::Delete).await?;
            if !row.is_there(self.now()) {
                return Ok(if row.is_marker() && verdict == Verdict::Allow { row.rev } else { 0 });
            }
            match verdict {
                Verdict::Allow => {}
                Verdict::Hide => return Ok(0),
                Verdict::Deny => return Err(denied(&row, ContextVerb::Delete)),
            }
            if let If::Rev(rev) = condition
                && rev != row.rev
            {
                return Err(self.conflict(ctx, &row));
            }
            let condition_kept = store_condition(condition, &row);
            let removal = ContextRemoval { condition: condition_kept, by: p.agent.clone(), now: self.now() };
            match self.deps.metadata.context_remove(&p.tenant, id, removal).await {
                Ok(marker) => {
                    self.deps.metrics.tenant(&p.tenant).context_writes.inc();
                    self.audit_write(ctx, "context.delete", id, condition, ContextVerb::Delete).await;
                    return Ok(marker.map_or(0, |marker| marker.rev));
                }
                // Looked at again: somebody was faster.
                Err(e) if e.code == ErrorCode::RevisionConflict => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(AppError::of(ErrorCode::RevisionConflict))
    }

    /// Starts the life of a context anew. Answers when it ends.
    ///
    /// # Errors
    /// `context_not_found`, `permission_denied`, `invalid_argument` for a life over the limit.
    pub async fn context_renew(
        &self,
        ctx: &OpContext,
        id: &ContextId,
        ttl: Option<Duration>,
    ) -> Result<Timestamp, AppError> {
        let tenant = &ctx.principal().tenant;
        rules::check_spec(&ContextSpec { ttl, ..ContextSpec::new("") })?;
        for _ in 0..FORCE_ATTEMPTS {
            let row = self.context_for(ctx, id, ContextVerb::Renew).await?;
            let renewal = ContextRenewal { access_rev: row.access_rev, ttl, now: self.now() };
            match self.deps.metadata.context_renew(tenant, id, renewal).await {
                Ok(row) => {
                    self.expiry_moved(row.expires_at);
                    return Ok(row.expires_at);
                }
                Err(e) if e.code == ErrorCode::RevisionConflict => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(AppError::of(ErrorCode::RevisionConflict))
    }

    /// Lists the contexts that the caller may see, by id, without payloads.
    ///
    /// # Errors
    /// `invalid_page_token`, and what [`rules::check_filter`] refuses.
    pub async fn context_list(
        &self,
        ctx: &OpContext,
        mut filter: ContextFilter,
        size: u32,
        token: &str,
    ) -> Result<ContextPage, AppError> {
        let tenant = &ctx.principal().tenant;
        rules::check_filter(&filter)?;
        let size = page::size(size)?;
        let query = list_query(Query::new(&self.deps.page_key, "contexts", tenant), &filter);
        let (revision, after) = match query.after::<ListCursor>(token)? {
            Some(cursor) => (cursor.revision, Some(cursor.id)),
            None => (self.deps.metadata.tenant_revision(tenant).await?, None),
        };
        filter.viewer = self.viewer(ctx).await?;
        let at = ListedAt::Now(self.now());
        let rows =
            self.deps.metadata.context_list(tenant, &filter, at, Payloads::LeaveOut, after.as_ref(), size + 1).await?;
        let mut page = sized_page(rows, size, &query, |row| ListCursor { revision, id: row.id }.to_string());
        // The store narrows by what it knows of the viewer; whether a row leaves is decided where all else is.
        let roles = self.context_roles(ctx);
        page.items.retain(|row| sees(roles, filter.viewer.as_ref(), row));
        Ok(ContextPage { page, revision })
    }

    /// Lists the kept revisions of a context that the caller may see, newest first, without payloads.
    ///
    /// # Errors
    /// `context_not_found`, `invalid_page_token`, `invalid_argument` for a page of more than are kept.
    pub async fn context_history(
        &self,
        ctx: &OpContext,
        id: &ContextId,
        size: u32,
        token: &str,
    ) -> Result<Page<ContextRow>, AppError> {
        let tenant = &ctx.principal().tenant;
        let size = if size == 0 { limits::PAGE_SIZE } else { size };
        if size > limits::CONTEXT_HISTORY {
            return Err(AppError::invalid(
                "page_size",
                format!("of {size} exceeds limit of {}", limits::CONTEXT_HISTORY),
            )
            .detail("limit", limits::CONTEXT_HISTORY.to_string()));
        }
        let query = Query::new(&self.deps.page_key, "context_history", tenant).with(id.as_bytes());
        let before: Option<u64> = query.after(token)?;
        let present = self.deps.metadata.context_get(tenant, id).await?;
        let present = present.ok_or_else(|| absent(&ContextRef::Id(*id)))?;
        self.permit(ctx, &present, ContextVerb::Read).await?;
        let viewer = self.viewer(ctx).await?;
        let rows = self.deps.metadata.context_history(tenant, id, before, size + 1).await?;
        let mut page = sized_page(rows, size, &query, |row| row.rev.to_string());
        let roles = self.context_roles(ctx);
        page.items.retain(|row| sees(roles, viewer.as_ref(), row));
        Ok(page)
    }

    /// A context that is there, for a caller who may do this with it.
    pub(crate) async fn context_for(
        &self,
        ctx: &OpContext,
        id: &ContextId,
        verb: ContextVerb,
    ) -> Result<ContextRow, AppError> {
        let row = self.deps.metadata.context_get(&ctx.principal().tenant, id).await?;
        let row = row.filter(|row| row.is_there(self.now())).ok_or_else(|| absent(&ContextRef::Id(*id)))?;
        self.permit(ctx, &row, verb).await?;
        Ok(row)
    }

    /// Refuses what the caller may not do with a context.
    pub(crate) async fn permit(&self, ctx: &OpContext, row: &ContextRow, verb: ContextVerb) -> Result<(), AppError> {
        match self.verdict(ctx, row, verb).await? {
            Verdict::Allow => Ok(()),
            Verdict::Hide => Err(absent(&ContextRef::Id(row.id))),
            Verdict::Deny => Err(denied(row, verb)),
        }
    }

    /// The roles that decide over contexts. With `--dev` everybody has every role; there each is an agent like any other, so
    /// that scopes mean what they will mean with credentials.
    pub(crate) fn context_roles(&self, ctx: &OpContext) -> Roles {
        match self.deps.auth.mode() {
            Mode::Dev => Roles::of(&[Role::AgentFull]),
            Mode::Tokens => ctx.principal().roles,
        }
    }

    async fn verdict(&self, ctx: &OpContext, row: &ContextRow, verb: ContextVerb) -> Result<Verdict, AppError> {
        let p = ctx.principal();
        // Memberships are asked for only where they decide.
        let roles = self.context_roles(ctx);
        let asks_groups = row.spec.scope == ContextScope::Group && row.owner != p.agent && !roles.has(Role::Admin);
        let groups = if asks_groups {
            self.deps.metadata.memberships(&p.tenant, &p.agent, None).await?.groups
        } else {
            BTreeSet::new()
        };
        let relation = row.relation(&Viewer { agent: p.agent.clone(), groups });
        Ok(rules::decide(roles, relation, row.spec.scope, verb))
    }

    /// The caller as one who looks; `None` for an admin, who sees all.
    async fn viewer(&self, ctx: &OpContext) -> Result<Option<Viewer>, AppError> {
        let p = ctx.principal();
        if self.context_roles(ctx).has(Role::Admin) {
            return Ok(None);
        }
        let groups = self.deps.metadata.memberships(&p.tenant, &p.agent, None).await?.groups;
        Ok(Some(Viewer { agent: p.agent.clone(), groups }))
    }

    /// Keeps a payload where it belongs: in the row, or as a blob that is durable when this answers.
    async fn payload_keep(&self, ctx: &OpContext, payload: Bytes) -> Result<KeptPayload, AppError> {
        let size = payload.len() as u64;
        let sha256 = self.digest(payload.clone()).await?;
        if payload.len() <= limits::CONTEXT_INLINE_ROW_BYTES {
            // A copy, so that a small payload does not keep its whole request's buffer alive.
            let place = ContentPlace::Inline(Bytes::copy_from_slice(&payload));
            return Ok(KeptPayload { content: ContextContent { size, sha256, place }, _pin: None });
        }
        let pin = self.deps.blobs.put(&ctx.principal().tenant, &sha256, payload).await?;
        Ok(KeptPayload { content: ContextContent { size, sha256, place: ContentPlace::Blob }, _pin: Some(pin) })
    }

    async fn digest(&self, payload: Bytes) -> Result<Sha256Digest, AppError> {
        let small = payload.len() < HASH_BLOCKING_FROM;
        let hash = move || Sha256Digest(Sha256::digest(&payload).into());
        if small {
            return Ok(hash());
        }
        let task = self.deps.blocking.spawn_blocking(hash);
        task.await.map_err(|e| AppError::internal("hashing ended early").caused_by(e))
    }

    /// A payload that fits an answer; `None` for one that is streamed.
    pub(crate) async fn payload_read(
        &self,
        ctx: &OpContext,
        content: &ContextContent,
    ) -> Result<Option<Bytes>, AppError> {
        match &content.place {
            ContentPlace::Inline(bytes) => Ok(Some(bytes.clone())),
            ContentPlace::Unread => Err(AppError::internal("a payload was needed and not read")),
            ContentPlace::Blob if content.size > limits::CONTEXT_INLINE_BYTES_MAX as u64 => Ok(None),
            ContentPlace::Blob => {
                let found = self.deps.blobs.get(&ctx.principal().tenant, &content.sha256).await?;
                let missing = || {
                    let what = format!("blob {} of {} bytes is missing", content.sha256, content.size);
                    AppError::of(ErrorCode::DataDamaged).private(what)
                };
                found.filter(|bytes| bytes.len() as u64 == content.size).map(Some).ok_or_else(missing)
            }
        }
    }

    /// Counts a write and lets the reconciler know of an end.
    pub(crate) fn context_written(&self, ctx: &OpContext, row: &ContextRow) {
        self.deps.metrics.tenant(&ctx.principal().tenant).context_writes.inc();
        self.expiry_moved(row.expires_at);
    }

    fn expiry_moved(&self, expires_at: Timestamp) {
        if expires_at.is_set() {
            self.deps.expiry.notify_one();
        }
    }

    fn conflict(&self, ctx: &OpContext, row: &ContextRow) -> AppError {
        self.deps.metrics.tenant(&ctx.principal().tenant).context_conflicts.inc();
        let message = format!("context {} is at revision {}", row.id, row.rev);
        AppError::new(ErrorCode::RevisionConflict, message).detail("rev", row.rev.to_string())
    }

    /// Notes what is relevant to security: that somebody wrote over what they had not seen, or changed who may see.
    async fn audit_write(
        &self,
        ctx: &OpContext,
        action: &'static str,
        id: &ContextId,
        condition: If,
        verb: ContextVerb,
    ) {
        let action = match (action, condition, verb) {
            ("context.update", If::Force, _) => "context.update.force",
            ("context.delete", If::Force, _) => "context.delete.force",
            (_, _, ContextVerb::Share) => "context.share",
            _ => return,
        };
        self.audit_own(ctx, action, &id.to_string()).await;
    }
}

/// Whether a row may leave to a caller.
fn sees(roles: Roles, viewer: Option<&Viewer>, row: &ContextRow) -> bool {
    let relation = viewer.map_or(ContextRelation::Stranger, |viewer| row.relation(viewer));
    rules::decide(roles, relation, row.spec.scope, ContextVerb::Read) == Verdict::Allow
}

fn store_condition(condition: If, row: &ContextRow) -> WriteCondition {
    match condition {
        If::Rev(rev) => WriteCondition::IfRev(rev),
        If::Force => WriteCondition::Force { access_rev: row.access_rev },
    }
}

/// A page of rows that is not larger than clients read: at most [`PAGE_BYTES`], or one row.
fn sized_page(
    mut rows: Vec<ContextRow>,
    size: u32,
    query: &Query,
    key: impl Fn(&ContextRow) -> String,
) -> Page<ContextRow> {
    let mut bytes = 0;
    let fitting = rows.iter().take_while(|row| {
        bytes += row.spec.size();
        bytes <= PAGE_BYTES
    });
    let fitting = u32::try_from(fitting.count()).unwrap_or(u32::MAX).max(1).min(size);
    // One more than fits tells that there is a next.
    rows.truncate(fitting as usize + 1);
    Page::of(rows, fitting, query, key)
}

/// What absent, over, foreign and hidden contexts alike are answered with.
pub(crate) fn absent(which: &ContextRef) -> AppError {
    let message = match which {
        ContextRef::Id(id) => format!("no context {id}"),
        ContextRef::Key(key) => format!("no context has the key {key}"),
    };
    AppError::new(ErrorCode::ContextNotFound, message)
}

fn denied(row: &ContextRow, verb: ContextVerb) -> AppError {
    let what = match verb {
        ContextVerb::Read => "read",
        ContextVerb::Update => "changed",
        ContextVerb::Share => "shared otherwise",
        ContextVerb::Renew => "renewed",
        ContextVerb::Delete => "deleted",
    };
    AppError::new(ErrorCode::PermissionDenied, format!("context {} may not be {what} by the caller", row.id))
}

/// Where a list goes on: after an id, of a revision that all its pages tell.
struct ListCursor {
    revision: u64,
    id: ContextId,
}

impl std::fmt::Display for ListCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.revision, self.id)
    }
}

impl std::str::FromStr for ListCursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (revision, id) = text.split_once(':').ok_or(())?;
        Ok(Self { revision: revision.parse().map_err(|_| ())?, id: id.parse().map_err(|_| ())? })
    }
}

fn list_query(query: Query, f: &ContextFilter) -> Query {
    query
        .with(f.context_type.as_deref().unwrap_or_default())
        .with(f.owner.as_ref().map_or("", |owner| owner.as_str()))
        .with(f.scope.map_or("", ContextScope::name))
        .with_all(f.labels.iter())
        .with(&f.key_prefix)
        .with(f.text.as_deref().unwrap_or_default())
}
