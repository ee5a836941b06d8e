//! Contexts: share, get, change, delete, renew, list, history.

use acb_sdk::{Context, ContextAccess, ContextScope, ListBuilder, Sha256Digest, ShareBuilder, UpdateContextBuilder};
use pyo3::{
    prelude::*,
    types::{PyBytes, PyDict},
};

use crate::{
    call::{Call, span, timeout, within},
    client::NativeClient,
    convert::{Options, list, make, time},
};

const SCOPES: [ContextScope; 4] =
    [ContextScope::Private, ContextScope::Shared, ContextScope::Group, ContextScope::Public];
const ACCESSES: [ContextAccess; 2] = [ContextAccess::Read, ContextAccess::Write];

fn access_name(access: ContextAccess) -> &'static str {
    match access {
        ContextAccess::Read => "read",
        ContextAccess::Write => "write",
    }
}

fn digest(bytes: &[u8]) -> String {
    Sha256Digest::try_from(bytes).map(|d| d.to_string()).unwrap_or_default()
}

fn give_as(py: Python<'_>, class: &str, c: Context, more: Option<(&str, bool)>) -> PyResult<Py<PyAny>> {
    let shares = PyDict::new(py);
    for (agent, access) in c.shares {
        shares.set_item(agent, access_name(access))?;
    }
    make(py, class, |f| {
        f.set_item("id", c.id)?;
        f.set_item("key", c.key)?;
        f.set_item("type", c.kind)?;
        f.set_item("scope", c.scope.as_str())?;
        f.set_item("groups", c.groups)?;
        f.set_item("shares", shares)?;
        f.set_item("content_type", c.content_type)?;
        f.set_item("description", c.description)?;
        f.set_item("labels", c.labels)?;
        f.set_item("metadata", c.metadata)?;
        f.set_item("ttl", c.ttl.map(|ttl| ttl.as_secs_f64()))?;
        f.set_item("version", c.version)?;
        f.set_item("owner", c.owner)?;
        f.set_item("rev", c.rev)?;
        f.set_item("size", c.size)?;
        f.set_item("sha256", digest(&c.sha256))?;
        f.set_item("streamed", c.streamed)?;
        f.set_item("expires_at", time(py, c.expires_at)?)?;
        f.set_item("created_at", time(py, c.created_at)?)?;
        f.set_item("updated_at", time(py, c.updated_at)?)?;
        f.set_item("updated_by", c.updated_by)?;
        f.set_item("deleted", c.deleted)?;
        f.set_item("payload", PyBytes::new(py, &c.payload))?;
        more.map_or(Ok(()), |(name, value)| f.set_item(name, value))
    })
}

/// A context as `acb_sdk.Context`.
pub(crate) fn give(py: Python<'_>, context: Context) -> PyResult<Py<PyAny>> {
    give_as(py, "Context", context, None)
}

pub(crate) fn scope(o: &Options<'_, '_>) -> PyResult<Option<ContextScope>> {
    o.word("scope", SCOPES, |s| s.as_str())
}

/// With whom it is shared, and how.
pub(crate) fn shares(o: &Options<'_, '_>) -> PyResult<Option<Vec<(String, ContextAccess)>>> {
    let Some(pairs) = o.pairs("shares")? else { return Ok(None) };
    let one = |(agent, word): (String, String)| {
        let access = ACCESSES.into_iter().find(|a| access_name(*a) == word);
        access.map(|access| (agent, access)).ok_or(word)
    };
    pairs
        .into_iter()
        .map(one)
        .collect::<Result<_, _>>()
        .map(Some)
        .map_err(|word| o.refuse("shares", format!("an agent may read or write, not {word:?}")))
}

fn filled(mut share: ShareBuilder, o: &Options<'_, '_>) -> PyResult<ShareBuilder> {
    if let Some(text) = o.text("id")? {
        share = share.id(text);
    }
    if let Some(text) = o.text("type")? {
        share = share.kind(text);
    }
    share = o.texts("groups")?.unwrap_or_default().into_iter().fold(share, ShareBuilder::group);
    for (agent, access) in shares(o)?.unwrap_or_default() {
        share = share.share_with(agent, access);
    }
    // What is said beats what follows from whom it is shared with.
    if let Some(scope) = scope(o)? {
        share = share.scope(scope);
    }
    if let Some(text) = o.text("content_type")? {
        share = share.content_type(text);
    }
    if let Some(text) = o.text("description")? {
        share = share.description(text);
    }
    share = o.texts("labels")?.unwrap_or_default().into_iter().fold(share, ShareBuilder::label);
    for (name, value) in o.pairs("metadata")?.unwrap_or_default() {
        share = share.metadata(name, value);
    }
    if let Some(ttl) = o.span("ttl")? {
        share = share.expires_after(ttl);
    }
    if let Some(text) = o.text("version")? {
        share = share.version(text);
    }
    Ok(share)
}

fn changed(mut update: UpdateContextBuilder, o: &Options<'_, '_>) -> PyResult<UpdateContextBuilder> {
    if let Some(rev) = o.number("if_rev")? {
        update = update.if_rev(rev);
    }
    if o.flag("force")? {
        update = update.force();
    }
    if let Some(groups) = o.texts("groups")? {
        update = update.groups(groups);
    }
    if let Some(shares) = shares(o)? {
        update = update.shares(shares);
    }
    if let Some(scope) = scope(o)? {
        update = update.scope(scope);
    }
    if let Some(text) = o.text("content_type")? {
        update = update.content_type(text);
    }
    if let Some(text) = o.text("description")? {
        update = update.description(text);
    }
    if let Some(labels) = o.texts("labels")? {
        update = update.labels(labels);
    }
    if let Some(metadata) = o.pairs("metadata")? {
        update = update.metadata(metadata);
    }
    if o.flag("forever")? {
        update = update.expires_after(None);
    } else if let Some(ttl) = o.span("ttl")? {
        update = update.expires_after(Some(ttl));
    }
    if let Some(text) = o.text("version")? {
        update = update.version(text);
    }
    if let Some(text) = o.text("idempotency_key")? {
        update = update.idempotency_key(text);
    }
    Ok(update)
}

fn filtered(mut list: ListBuilder, o: &Options<'_, '_>) -> PyResult<ListBuilder> {
    if let Some(text) = o.text("type")? {
        list = list.kind(text);
    }
    if let Some(text) = o.text("owner")? {
        list = list.owner(text);
    }
    if let Some(scope) = scope(o)? {
        list = list.scope(scope);
    }
    list = o.texts("labels")?.unwrap_or_default().into_iter().fold(list, ListBuilder::label);
    if let Some(text) = o.text("key_prefix")? {
        list = list.key_prefix(text);
    }
    if let Some(text) = o.text("text")? {
        list = list.text(text);
    }
    Ok(list)
}

#[pymethods]
impl NativeClient {
    fn contexts_share(
        &self,
        py: Python<'_>,
        key: String,
        payload: &Bound<'_, PyBytes>,
        fields: &Bound<'_, PyDict>,
        seconds: Option<f64>,
    ) -> PyResult<Call> {
        let operation = "contexts.share";
        let contexts = self.core(py, operation)?.contexts();
        let timeout = timeout(py, operation, seconds)?;
        let share = contexts.share(key, payload.as_bytes().to_vec());
        let share = filled(share, &Options::new(py, operation, Some(fields)))?;
        Ok(Call::new(operation, within(timeout, share.send()), |py, made| {
            give_as(py, "SharedContext", made.context, Some(("existed", made.existed)))
        }))
    }

    fn contexts_get(
        &self,
        py: Python<'_>,
        which: String,
        at_rev: Option<u64>,
        payload: bool,
        seconds: Option<f64>,
    ) -> PyResult<Call> {
        let operation = "contexts.get";
        let mut get = self.core(py, operation)?.contexts().get(which);
        let timeout = timeout(py, operation, seconds)?;
        if let Some(rev) = at_rev {
            get = get.at_rev(rev);
        }
        if !payload {
            get = get.without_payload();
        }
        Ok(Call::new(operation, within(timeout, get.send()), give))
    }

    fn contexts_update(
        &self,
        py: Python<'_>,
        id: String,
        payload: Option<&Bound<'_, PyBytes>>,
        fields: &Bound<'_, PyDict>,
        seconds: Option<f64>,
    ) -> PyResult<Call> {
        let operation = "contexts.update";
        let mut update = self.core(py, operation)?.contexts().update(id);
        let timeout = timeout(py, operation, seconds)?;
        if let Some(payload) = payload {
            update = update.payload(payload.as_bytes().to_vec());
        }
        let update = changed(update, &Options::new(py, operation, Some(fields)))?;
        Ok(Call::new(operation, within(timeout, update.send()), |py, made| {
            give_as(py, "UpdatedContext", made.context, Some(("duplicate", made.duplicate)))
        }))
    }

    fn contexts_delete(
        &self,
        py: Python<'_>,
        id: String,
        if_rev: Option<u64>,
        force: bool,
        seconds: Option<f64>,
    ) -> PyResult<Call> {
        let operation = "contexts.delete";
        let mut delete = self.core(py, operation)?.contexts().delete(id);
        let timeout = timeout(py, operation, seconds)?;
        if let Some(rev) = if_rev {
            delete = delete.if_rev(rev);
        }
        if force {
            delete = delete.force();
        }
        Ok(Call::new(operation, within(timeout, delete.send()), |py, rev| {
            Ok(rev.into_pyobject(py)?.into_any().unbind())
        }))
    }

    fn contexts_renew(&self, py: Python<'_>, id: String, ttl: Option<f64>, seconds: Option<f64>) -> PyResult<Call> {
        let operation = "contexts.renew";
        let contexts = self.core(py, operation)?.contexts();
        let timeout = timeout(py, operation, seconds)?;
        let ttl = ttl.map(|ttl| span(py, operation, "ttl", ttl)).transpose()?;
        let work = async move { within(timeout, contexts.renew(id, ttl)).await };
        Ok(Call::new(operation, work, |py, end| {
            let end = end.map(|end| time(py, end)).transpose()?.flatten();
            Ok(end.unwrap_or_else(|| py.None()))
        }))
    }

    fn contexts_page(
        &self,
        py: Python<'_>,
        query: &Bound<'_, PyDict>,
        size: u32,
        token: String,
        seconds: Option<f64>,
    ) -> PyResult<Call> {
        let operation = "contexts.list";
        let list_of = self.core(py, operation)?.contexts().list().page_size(size);
        let timeout = timeout(py, operation, seconds)?;
        let list_of = filtered(list_of, &Options::new(py, operation, Some(query)))?;
        let work = async move { within(timeout, list_of.page(token)).await };
        Ok(Call::new(operation, work, |py, found| {
            let items = list(py, found.contexts, give)?;
            make(py, "ContextPage", |f| {
                f.set_item("items", items)?;
                f.set_item("next_token", found.next)?;
                f.set_item("revision", found.revision)
            })
        }))
    }

    fn contexts_history(&self, py: Python<'_>, id: String, seconds: Option<f64>) -> PyResult<Call> {
        let operation = "contexts.history";
        let history = self.core(py, operation)?.contexts().history(id);
        let timeout = timeout(py, operation, seconds)?;
        Ok(Call::new(operation, within(timeout, history.all()), |py, rows| list(py, rows, give)))
    }
}
