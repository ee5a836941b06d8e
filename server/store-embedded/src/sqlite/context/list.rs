//! Many contexts. What a column tells, SQL asks; the filter itself has the last word over each row, so that both stores
//! mean the same by it.

use std::fmt::Write as _;

use acb_ports::metadata::{ContextFilter, ContextRow, ListedAt, Payloads, Viewer};
use acb_types::{AgentId, ContextId, ContextKey, GroupName, TenantId};
use rusqlite::{Connection, params_from_iter, types::Value};

use super::{
    super::{convert::put, error::Result},
    read::gap,
    row::{columns, context_id, context_row, scope_to_number},
};

/// An agent as an audience.
pub(super) fn of_agent(agent: &AgentId) -> String {
    format!("a:{agent}")
}

/// A group as an audience.
pub(super) fn of_group(group: &GroupName) -> String {
    format!("g:{group}")
}

/// A query that grows by conditions, with its values.
struct Query {
    sql: String,
    values: Vec<Value>,
}

impl Query {
    /// Remembers a value and gives its place.
    fn value(&mut self, value: impl Into<Value>) -> usize {
        self.values.push(value.into());
        self.values.len()
    }

    fn condition(&mut self, before: &str, value: impl Into<Value>, after: &str) {
        let n = self.value(value);
        // Writing to a text cannot fail.
        let _ = write!(self.sql, " AND {before}?{n}{after}");
    }

    /// What never changes of a context.
    fn fixed(&mut self, filter: &ContextFilter) {
        if let Some(id) = &filter.id {
            self.condition("c.context_id = ", id.as_bytes().to_vec(), "");
        }
        if let Some(key) = &filter.key {
            self.condition("c.context_key = ", key.as_str().to_owned(), "");
        }
        if !filter.key_prefix.is_empty() {
            self.condition("c.context_key >= ", filter.key_prefix.clone(), "");
            // Keys are ASCII, so all that begin with the prefix stand before it with the highest character behind.
            self.condition("c.context_key < ", format!("{}\u{10ffff}", filter.key_prefix), "");
        }
        if let Some(context_type) = &filter.context_type {
            self.condition("c.context_type = ", context_type.clone(), "");
        }
        if let Some(owner) = &filter.owner {
            self.condition("c.owner = ", owner.as_str().to_owned(), "");
        }
    }

    /// What the tables say of the newest revision.
    fn present(&mut self, filter: &ContextFilter) {
        if let Some(scope) = filter.scope {
            self.condition("c.scope = ", i64::from(scope_to_number(scope)), "");
        }
        for label in &filter.labels {
            self.condition(
                "EXISTS (SELECT 1 FROM context_labels l WHERE l.tenant_id = ?1 AND l.context_id = c.context_id \
                 AND l.label = ",
                label.clone(),
                ")",
            );
        }
        if let Some(text) = &filter.text {
            self.condition("instr(c.search_text, ", text.to_lowercase(), ") > 0");
        }
        if let Some(group) = &filter.group {
            self.audience(std::iter::once(of_group(group)));
        }
        if let Some(viewer) = &filter.viewer {
            self.seen_by(viewer);
        }
    }

    fn audience(&mut self, of: impl Iterator<Item = String>) {
        self.sql.push_str(" AND ");
        self.audience_in(of);
    }

    fn audience_in(&mut self, of: impl Iterator<Item = String>) {
        let places: Vec<_> = of.map(|audience| format!("?{}", self.value(audience))).collect();
        let _ = write!(
            self.sql,
            "EXISTS (SELECT 1 FROM context_audience a WHERE a.tenant_id = ?1 AND a.context_id = c.context_id \
             AND a.audience IN ({}))",
            places.join(", ")
        );
    }

    fn seen_by(&mut self, viewer: &Viewer) {
        let owner = self.value(viewer.agent.as_str().to_owned());
        let _ = write!(self.sql, " AND (c.scope = 3 OR c.owner = ?{owner} OR (c.scope IN (1, 2) AND ");
        let groups = viewer.groups.iter().map(of_group);
        self.audience_in(std::iter::once(of_agent(&viewer.agent)).chain(groups).collect::<Vec<_>>().into_iter());
        self.sql.push_str("))");
    }
}

pub(in super::super) fn list(
    c: &Connection,
    tenant: &TenantId,
    filter: &ContextFilter,
    at: ListedAt,
    payloads: Payloads,
    after: Option<&ContextId>,
    limit: u32,
) -> Result<Vec<ContextRow>> {
    let mut query = Query { sql: format!("SELECT {} FROM ", columns(payloads)), values: vec![] };
    query.value(tenant.as_str().to_owned());
    query.value(after.map_or(Vec::new(), |id| id.as_bytes().to_vec()));
    // Without a condition on the key, its index is of no use to a list by id: the planner has no statistics to know it.
    let by_key = filter.key.is_some() || !filter.key_prefix.is_empty();
    let index = if by_key { "" } else { " AND +c.context_key >= ''" };
    match at {
        ListedAt::Now(now) => {
            query.sql.push_str(
                "contexts c JOIN context_revisions r ON r.tenant_id = c.tenant_id AND r.context_id = c.context_id \
                 AND r.rev = c.rev WHERE c.tenant_id = ?1 AND c.context_id > ?2 AND c.state = 0",
            );
            query.condition("(c.expires_at = 0 OR c.expires_at > ", put(now.0), ")");
            query.fixed(filter);
            query.present(filter);
        }
        ListedAt::Revision(rev) => {
            let n = query.value(put(rev));
            let _ = write!(
                query.sql,
                "contexts c LEFT JOIN context_revisions r ON r.tenant_id = c.tenant_id AND \
                 r.context_id = c.context_id AND r.rev = (SELECT max(x.rev) FROM context_revisions x WHERE \
                 x.tenant_id = c.tenant_id AND x.context_id = c.context_id AND x.rev <= ?{n}) \
                 WHERE c.tenant_id = ?1 AND c.context_id > ?2 AND c.created_rev <= ?{n}"
            );
            query.fixed(filter);
        }
    }
    let _ = write!(query.sql, "{index} ORDER BY c.context_id");
    let mut statement = c.prepare_cached(&query.sql)?;
    let mut rows = statement.query(params_from_iter(query.values))?;
    let mut out = Vec::new();
    while out.len() < limit as usize
        && let Some(row) = rows.next()?
    {
        if let ListedAt::Revision(rev) = at
            && row.get_ref("rev")? == rusqlite::types::ValueRef::Null
        {
            return gap(&context_id(row, "context_id")?, rev);
        }
        let found = context_row(row, payloads)?;
        if !found.is_marker() && filter.wants(&found) {
            out.push(found);
        }
    }
    Ok(out)
}

/// The text of a key column.
pub(super) fn key_text(key: Option<&ContextKey>) -> &str {
    key.map_or("", ContextKey::as_str)
}
