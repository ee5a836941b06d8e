//! Contexts in memory.

use std::collections::BTreeSet;

use acb_types::{AgentId, ContextId, ContextKey, ErrorCode, GroupName, Sha256Digest, Timestamp, limits};

use super::{change::Subject, tenant::Tenant};
use crate::{
    error::StoreError,
    metadata::{
        ContentPlace, ContextContent, ContextFilter, ContextRemoval, ContextRenewal, ContextRow, ContextState,
        ContextWrite, Created, ListedAt, NewContext, Payloads, RepeatKey, Result, Written,
    },
};

/// A context with its kept revisions.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    fingerprint: Sha256Digest,
    /// Oldest first; never empty.
    revisions: Vec<Revision>,
    /// What is left of older ones that have a key: no payload.
    repeats: Vec<Revision>,
}

#[derive(Clone, Debug)]
struct Revision {
    row: ContextRow,
    repeat: Option<RepeatKey>,
}

impl Kept {
    /// As it is now.
    pub(super) fn newest(&self) -> &ContextRow {
        &self.revisions[self.revisions.len() - 1].row
    }

    fn up_to(&self, rev: u64) -> Option<&ContextRow> {
        self.revisions.iter().rev().map(|r| &r.row).find(|row| row.rev <= rev)
    }

    /// As it was at a revision; nothing before it was made.
    fn at(&self, rev: u64) -> Result<Option<&ContextRow>> {
        match self.up_to(rev) {
            Some(row) => Ok(Some(row)),
            None if self.newest().created_rev > rev => Ok(None),
            None => {
                let id = self.newest().id;
                let message = format!("what context {id} was at revision {rev} is no longer kept");
                Err(StoreError::new(ErrorCode::RevisionGap, "context.get", message))
            }
        }
    }

    /// A revision itself, with the one before it if the revision did not make the context; nothing unless all is kept.
    pub(super) fn change(&self, rev: u64) -> Option<(Option<&ContextRow>, &ContextRow)> {
        let after = self.up_to(rev).filter(|row| row.rev == rev)?;
        if after.created_rev == rev {
            return Some((None, after));
        }
        self.up_to(rev - 1).map(|before| (Some(before), after))
    }

    fn push(&mut self, row: ContextRow, repeat: Option<RepeatKey>) {
        self.revisions.push(Revision { row, repeat });
        if self.revisions.len() > limits::CONTEXT_HISTORY as usize {
            let Revision { row, repeat } = self.revisions.remove(0);
            if repeat.is_some() {
                self.repeats.push(Revision { row: shown(&row, Payloads::LeaveOut), repeat });
            }
        }
    }

    /// Forgets keys of revisions that are not kept.
    pub(super) fn forget_repeats(&mut self, up_to: u64) {
        self.repeats.retain(|revision| revision.row.rev > up_to);
    }
}

fn shown(row: &ContextRow, payloads: Payloads) -> ContextRow {
    match payloads {
        Payloads::Read => row.clone(),
        Payloads::LeaveOut => ContextRow { content: row.content.clone().unread(), ..row.clone() },
    }
}

fn absent(operation: &'static str, id: &ContextId) -> StoreError {
    StoreError::new(ErrorCode::ContextNotFound, operation, format!("no context {id}"))
}

fn conflict(operation: &'static str, row: &ContextRow) -> StoreError {
    let message = format!("context {} is at revision {}", row.id, row.rev);
    StoreError::new(ErrorCode::RevisionConflict, operation, message)
}

fn fits(operation: &'static str, content: &ContextContent) -> Result<()> {
    match &content.place {
        ContentPlace::Inline(bytes) if bytes.len() <= limits::CONTEXT_INLINE_ROW_BYTES => Ok(()),
        ContentPlace::Blob => Ok(()),
        ContentPlace::Inline(_) | ContentPlace::Unread => {
            Err(StoreError::new(ErrorCode::Internal, operation, "the payload is no row's"))
        }
    }
}

impl Tenant {
    /// The context of an id that is there.
    fn live(&self, operation: &'static str, id: &ContextId, now: Timestamp) -> Result<&ContextRow> {
        let row = self.contexts.get(id).map(Kept::newest).filter(|row| row.is_there(now));
        row.ok_or_else(|| absent(operation, id))
    }

    pub(super) fn context_create(&mut self, new: NewContext) -> Result<Created<ContextRow>> {
        const OPERATION: &str = "context.create";
        let NewContext { id, spec, owner, content, fingerprint, stream, now } = new;
        let taken = |what: String| StoreError::new(ErrorCode::ContextExists, OPERATION, format!("{what} is taken"));
        if let Some(kept) = self.contexts.get(&id) {
            let row = kept.newest();
            if row.is_there(now) && row.owner == owner && kept.fingerprint == fingerprint {
                let row = shown(row, Payloads::LeaveOut);
                self.upload_can_complete(stream)?;
                self.upload_complete(stream, row.rev, now);
                return Ok(Created { row, existed: true });
            }
            return Err(taken(format!("context id {id}")));
        }
        let mut over = None;
        if let Some(key) = &spec.key
            && let Some(holder) = self.context_find(key, None)
        {
            if self.live(OPERATION, &holder, now).is_ok() {
                return Err(taken(format!("context key {key}")));
            }
            over = Some(holder);
        }
        let live =
            self.contexts.values().filter(|kept| !kept.newest().is_marker()).count() - usize::from(over.is_some());
        if live as u64 >= limits::CONTEXTS_MAX {
            let message = format!("the tenant has {live} contexts, which is the limit");
            return Err(StoreError::new(ErrorCode::ContextLimit, OPERATION, message));
        }
        self.groups_exist(OPERATION, &spec.groups, &BTreeSet::new())?;
        self.upload_can_complete(stream)?;
        fits(OPERATION, &content)?;
        if let Some(holder) = over {
            self.context_end(&holder, ContextState::Expired, None, now);
        }
        let rev = self.raise(Subject::Context(id));
        let row = ContextRow {
            id,
            rev,
            created_rev: rev,
            access_rev: rev,
            content,
            expires_at: spec.expires_at(now),
            created_at: now,
            updated_at: now,
            updated_by: owner.clone(),
            state: ContextState::Live,
            spec,
            owner,
        };
        let revisions = vec![Revision { row: row.clone(), repeat: None }];
        self.contexts.insert(id, Kept { fingerprint, revisions, repeats: Vec::new() });
        self.upload_complete(stream, rev, now);
        Ok(Created { row, existed: false })
    }

    pub(super) fn context_update(&mut self, id: &ContextId, write: &ContextWrite) -> Result<Written> {
        const OPERATION: &str = "context.update";
        let before = self.live(OPERATION, id, write.now)?.clone();
        if let Some(key) = &write.repeat
            && let Some(first) = self.repeated(id, &write.by, key)
        {
            if first.repeat.as_ref().is_some_and(|of| of.body != key.body) {
                let message = format!("the idempotency key was used for another update of context {id}");
                return Err(StoreError::new(ErrorCode::IdempotencyConflict, OPERATION, message));
            }
            let row = shown(&first.row, Payloads::LeaveOut);
            self.upload_can_complete(write.stream)?;
            self.upload_complete(write.stream, row.rev, write.now);
            return Ok(Written { row, duplicate: true });
        }
        if !write.condition.holds(&before) {
            return Err(conflict(OPERATION, &before));
        }
        let row = before.written(write, self.revision + 1)?;
        self.groups_exist(OPERATION, &row.spec.groups, &before.spec.groups)?;
        self.upload_can_complete(write.stream)?;
        fits(OPERATION, &row.content)?;
        self.raise(Subject::Context(*id));
        self.upload_complete(write.stream, row.rev, write.now);
        if let Some(kept) = self.contexts.get_mut(id) {
            kept.push(row.clone(), write.repeat.clone());
        }
        Ok(Written { row, duplicate: false })
    }

    fn repeated(&self, id: &ContextId, by: &AgentId, key: &RepeatKey) -> Option<&Revision> {
        let same = |r: &&Revision| r.row.updated_by == *by && r.repeat.as_ref().is_some_and(|of| of.key == key.key);
        let kept = self.contexts.get(id)?;
        kept.revisions.iter().rev().chain(&kept.repeats).find(same)
    }

    pub(super) fn context_remove(&mut self, id: &ContextId, removal: &ContextRemoval) -> Result<Option<ContextRow>> {
        let Some(row) = self.contexts.get(id).map(Kept::newest) else { return Ok(None) };
        if row.is_marker() {
            return Ok(Some(row.clone()));
        }
        if !row.is_there(removal.now) {
            return Ok(None);
        }
        if !removal.condition.holds(row) {
            return Err(conflict("context.remove", row));
        }
        Ok(self.context_end(id, ContextState::Deleted, Some(&removal.by), removal.now))
    }

    /// Puts a marker in place of a context that is there; nobody ends what is over.
    fn context_end(
        &mut self,
        id: &ContextId,
        state: ContextState,
        by: Option<&AgentId>,
        now: Timestamp,
    ) -> Option<ContextRow> {
        let rev = self.raise(Subject::Context(*id));
        let kept = self.contexts.get_mut(id)?;
        let row = kept.newest();
        let marker = row.ended(state, by.unwrap_or(&row.updated_by), rev, now);
        kept.push(marker.clone(), None);
        Some(marker)
    }

    pub(super) fn context_renew(&mut self, id: &ContextId, renewal: &ContextRenewal) -> Result<ContextRow> {
        const OPERATION: &str = "context.renew";
        let row = self.live(OPERATION, id, renewal.now)?;
        if row.access_rev != renewal.access_rev {
            return Err(conflict(OPERATION, row));
        }
        let mut row = row.clone();
        row.spec.ttl = renewal.ttl;
        row.expires_at = row.spec.expires_at(renewal.now);
        if let Some(last) = self.contexts.get_mut(id).and_then(|kept| kept.revisions.last_mut()) {
            last.row = row.clone();
        }
        Ok(row)
    }

    pub(super) fn context_get(&self, id: &ContextId) -> Option<ContextRow> {
        self.contexts.get(id).map(|kept| kept.newest().clone())
    }

    pub(super) fn context_get_at(&self, id: &ContextId, rev: u64) -> Result<Option<ContextRow>> {
        self.contexts.get(id).map_or(Ok(None), |kept| Ok(kept.at(rev)?.cloned()))
    }

    pub(super) fn context_find(&self, key: &ContextKey, at: Option<u64>) -> Option<ContextId> {
        let named = self.contexts.values().map(Kept::newest).filter(|row| row.spec.key.as_ref() == Some(key));
        match at {
            None => named.into_iter().find(|row| !row.is_marker()).map(|row| row.id),
            Some(at) => named
                .filter(|row| row.created_rev <= at && (!row.is_marker() || row.rev > at))
                .max_by_key(|row| row.created_rev)
                .map(|row| row.id),
        }
    }

    pub(super) fn context_list(
        &self,
        filter: &ContextFilter,
        at: ListedAt,
        payloads: Payloads,
        after: Option<&ContextId>,
        limit: usize,
    ) -> Result<Vec<ContextRow>> {
        let mut out = Vec::new();
        for (id, kept) in self.contexts.iter().filter(|(id, _)| after.is_none_or(|after| *id > after)) {
            if out.len() == limit {
                break;
            }
            let newest = kept.newest();
            if !filter.may_want(*id, newest.spec.key.as_ref(), &newest.spec.context_type, &newest.owner) {
                continue;
            }
            let found = match at {
                ListedAt::Now(now) => Some(newest).filter(|row| row.is_there(now)),
                ListedAt::Revision(rev) => kept.at(rev)?.filter(|row| !row.is_marker()),
            };
            out.extend(found.filter(|row| filter.wants(row)).map(|row| shown(row, payloads)));
        }
        Ok(out)
    }

    pub(super) fn context_history(&self, id: &ContextId, before: Option<u64>, limit: usize) -> Vec<ContextRow> {
        let Some(kept) = self.contexts.get(id) else { return Vec::new() };
        let rows = kept.revisions.iter().rev().map(|r| &r.row).filter(|row| before.is_none_or(|b| row.rev < b));
        rows.take(limit).map(|row| shown(row, Payloads::LeaveOut)).collect()
    }

    pub(super) fn context_expire(&mut self, now: Timestamp, limit: usize) -> Vec<ContextRow> {
        let over = self.contexts.values().map(Kept::newest).filter(|row| !row.is_marker() && !row.is_there(now));
        let mut due: Vec<_> = over.map(|row| (row.expires_at, row.id)).collect();
        due.sort_unstable();
        let due = due.into_iter().take(limit);
        due.filter_map(|(_, id)| self.context_end(&id, ContextState::Expired, None, now)).collect()
    }

    pub(super) fn context_next_expiry(&self) -> Option<Timestamp> {
        let live = self.contexts.values().map(Kept::newest).filter(|row| !row.is_marker());
        live.map(|row| row.expires_at).filter(|at| at.is_set()).min()
    }

    /// Forgets contexts whose markers are old. Answers how many.
    pub(super) fn markers_forget(&mut self, before: Timestamp, limit: usize) -> u64 {
        let markers = self.contexts.values().map(Kept::newest).filter(|row| row.is_marker());
        let mut old: Vec<_> = markers.map(|row| (row.updated_at, row.id)).filter(|(at, _)| *at < before).collect();
        old.sort_unstable();
        old.truncate(limit);
        for (_, id) in &old {
            self.contexts.remove(id);
        }
        old.len() as u64
    }

    pub(super) fn context_blobs_named(&self, after: Option<&Sha256Digest>, limit: usize) -> Vec<Sha256Digest> {
        let rows = self.contexts.values().flat_map(|kept| kept.revisions.iter().map(|r| &r.row.content));
        let blobs = rows.filter(|content| content.place == ContentPlace::Blob).map(|content| content.sha256);
        let named: BTreeSet<_> = blobs.filter(|digest| after.is_none_or(|after| digest > after)).collect();
        named.into_iter().take(limit).collect()
    }

    fn groups_exist(
        &self,
        operation: &'static str,
        groups: &BTreeSet<GroupName>,
        before: &BTreeSet<GroupName>,
    ) -> Result<()> {
        match groups.difference(before).find(|name| !self.groups.contains_key(*name)) {
            Some(name) => Err(super::group::absent(operation, name)),
            None => Ok(()),
        }
    }
}
