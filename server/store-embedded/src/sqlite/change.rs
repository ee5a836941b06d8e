//! What changed, in SQLite: one row per revision, written with it.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use acb_ports::metadata::{Change, ChangePage, Changed, ContextFacts, Payloads, Trim, Trimmed};
use acb_types::{AgentId, ContextId, GroupName, TenantId};
use parking_lot::Mutex;
use rusqlite::{Connection, Row};
use tokio::sync::watch;

use super::{
    agent, context,
    convert::{collect, first, number, put},
    error::{Failure, Result},
    group,
    tenant::{self, Subject},
};

thread_local! {
    /// Revisions that the writer's thread raised in the transaction at hand. They are told when it is committed.
    static RAISED: RefCell<Vec<(TenantId, u64)>> = const { RefCell::new(Vec::new()) };
}

/// Writes down what a revision changed, in the transaction that raised it.
pub(super) fn note(c: &Connection, tenant: &TenantId, revision: u64, subject: Subject<'_>) -> Result<()> {
    let (kind, bytes): (u8, &[u8]) = match subject {
        Subject::Agent(id) => (1, id.as_str().as_bytes()),
        Subject::Context(id) => (2, id.as_bytes()),
        Subject::Group(name) => (3, name.as_str().as_bytes()),
    };
    c.prepare_cached("INSERT INTO changes (tenant_id, revision, kind, subject) VALUES (?1, ?2, ?3, ?4)")?.execute((
        tenant.as_str(),
        put(revision),
        kind,
        bytes,
    ))?;
    RAISED.with_borrow_mut(|raised| raised.push((tenant.clone(), revision)));
    Ok(())
}

/// How many revisions the transaction at hand has raised.
pub(super) fn raised() -> usize {
    RAISED.with_borrow(Vec::len)
}

/// Forgets what was raised after the first `keep`: that part of the transaction was taken back.
pub(super) fn raised_back_to(keep: usize) {
    RAISED.with_borrow_mut(|raised| raised.truncate(keep));
}

/// Who waits for revisions (META-37).
#[derive(Debug, Default)]
pub(super) struct Signals(Mutex<HashMap<TenantId, watch::Sender<u64>>>);

impl Signals {
    /// A receiver that is woken when the tenant's revision rises.
    pub(super) fn of(&self, tenant: &TenantId) -> watch::Receiver<u64> {
        let mut signals = self.0.lock();
        // Tenants that nobody waits for any more go when somebody new comes.
        signals.retain(|_, sender| sender.receiver_count() > 0);
        signals.entry(tenant.clone()).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    /// Tells what the transaction raised that was just committed.
    pub(super) fn committed(&self) {
        RAISED.with_borrow_mut(|raised| {
            if raised.is_empty() {
                return;
            }
            let signals = self.0.lock();
            for (tenant, revision) in raised.drain(..) {
                if let Some(sender) = signals.get(&tenant) {
                    sender.send_modify(|last| *last = (*last).max(revision));
                }
            }
        });
    }
}

fn text<T: std::str::FromStr<Err: std::fmt::Display>>(bytes: &[u8]) -> Result<T> {
    let text = std::str::from_utf8(bytes).map_err(|e| Failure::Damaged(format!("subject: {e}")))?;
    text.parse().map_err(|e| Failure::Damaged(format!("subject: {e}")))
}

/// Reads a page, all of it as of one moment.
pub(super) fn list(c: &Connection, tenant: &TenantId, after: u64, limit: u32) -> Result<ChangePage> {
    let moment = c.unchecked_transaction()?;
    let page = list_within(&moment, tenant, after, limit);
    moment.finish()?;
    page
}

fn list_within(c: &Connection, tenant: &TenantId, after: u64, limit: u32) -> Result<ChangePage> {
    let mut query = c.prepare_cached("SELECT revision, changes_trimmed FROM tenants WHERE tenant_id = ?1")?;
    let of_tenant = |row: &Row<'_>| Ok((number(row, "revision")?, number(row, "changes_trimmed")?));
    let Some((revision, oldest)) = first(query.query([tenant.as_str()])?, of_tenant)? else {
        return Ok(ChangePage::default());
    };
    let mut query = c.prepare_cached(
        "SELECT revision, kind, subject FROM changes WHERE tenant_id = ?1 AND revision > ?2 ORDER BY revision LIMIT ?3",
    )?;
    let rows = collect(query.query((tenant.as_str(), put(after), limit))?, |row| {
        Ok((number(row, "revision")?, row.get::<_, u8>("kind")?, row.get::<_, Vec<u8>>("subject")?))
    })?;
    let mut changes = Vec::with_capacity(rows.len());
    for (revision, kind, subject) in rows {
        let what = match kind {
            1 => of_agent(c, tenant, text(&subject)?, revision)?,
            2 => {
                let bytes = <[u8; 16]>::try_from(subject.as_slice())
                    .map_err(|_| Failure::Damaged(format!("subject: {} bytes", subject.len())))?;
                of_context(c, tenant, ContextId::from_bytes(bytes)?, revision)?
            }
            3 => {
                let name: GroupName = text(&subject)?;
                Changed::Group { name, moves: group::moves(c, tenant, revision)?.into() }
            }
            other => return Err(Failure::Damaged(format!("kind of change: {other}"))),
        };
        changes.push(Change { revision, what });
    }
    Ok(ChangePage { changes, oldest, revision })
}

fn of_agent(c: &Connection, tenant: &TenantId, id: AgentId, revision: u64) -> Result<Changed> {
    let row = agent::get(c, tenant, &id)?.filter(|row| row.revision == revision);
    Ok(Changed::Agent { id, row: row.map(Arc::new) })
}

fn of_context(c: &Connection, tenant: &TenantId, id: ContextId, revision: u64) -> Result<Changed> {
    let Some(after) = context::revision_at(c, tenant, &id, revision)? else {
        return Ok(Changed::ContextLost { id, facts: facts(c, tenant, &id)? });
    };
    let before = if after.created_rev == revision {
        None
    } else {
        match context::revision_before(c, tenant, &id, revision)? {
            Some(row) => Some(Arc::new(row)),
            None => return Ok(Changed::ContextLost { id, facts: facts(c, tenant, &id)? }),
        }
    };
    Ok(Changed::Context { before, after: Arc::new(after) })
}

fn facts(c: &Connection, tenant: &TenantId, id: &ContextId) -> Result<Option<ContextFacts>> {
    let row = context::get(c, tenant, id, Payloads::LeaveOut)?;
    Ok(row.map(|row| ContextFacts { key: row.spec.key, context_type: row.spec.context_type, owner: row.owner }))
}

pub(super) fn trim(c: &Connection, tenant: &TenantId, trim: Trim) -> Result<Trimmed> {
    let trimmed = tenant::one(c, tenant, "SELECT changes_trimmed FROM tenants WHERE tenant_id = ?1")?;
    let revision = tenant::one(c, tenant, "SELECT revision FROM tenants WHERE tenant_id = ?1")?;
    // Each revision has one row, so numbers are counts.
    let last = trim.changes_up_to.min(revision).min(trimmed + u64::from(trim.limit)).max(trimmed);
    if last > trimmed {
        c.prepare_cached("DELETE FROM changes WHERE tenant_id = ?1 AND revision <= ?2")?
            .execute((tenant.as_str(), put(last)))?;
        c.prepare_cached("UPDATE tenants SET changes_trimmed = ?2 WHERE tenant_id = ?1")?
            .execute((tenant.as_str(), put(last)))?;
        context::forget_repeats(c, tenant, last)?;
    }
    let markers = context::forget_markers(c, tenant, trim.markers_before, trim.limit)?;
    Ok(Trimmed { changes: last - trimmed, markers })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_that_nobody_waits_for_are_forgotten() {
        let signals = Signals::default();
        let a = signals.of(&"a".parse().unwrap());
        drop(signals.of(&"b".parse().unwrap()));
        let c = signals.of(&"c".parse().unwrap());
        assert_eq!(signals.0.lock().len(), 2);
        drop((a, c));
    }
}
