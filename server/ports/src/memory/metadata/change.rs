//! What changed, in memory.

use std::sync::Arc;

use acb_types::{AgentId, ContextId, GroupName};

use super::tenant::Tenant;
use crate::metadata::{
    Change, ChangePage, Changed, ContextContent, ContextFacts, ContextRow, MemberMove, Trim, Trimmed,
};

/// What a revision is a change of.
#[derive(Clone, Debug)]
pub(super) enum Subject {
    Agent(AgentId),
    Context(ContextId),
    Group(GroupName, Arc<[MemberMove]>),
}

impl Tenant {
    pub(super) fn change_list(&self, after: u64, limit: usize) -> ChangePage {
        let later = self.changes.range(after + 1..).take(limit);
        let changes =
            later.map(|(revision, subject)| Change { revision: *revision, what: self.changed(*revision, subject) });
        ChangePage { changes: changes.collect(), oldest: self.changes_trimmed, revision: self.revision }
    }

    fn changed(&self, revision: u64, subject: &Subject) -> Changed {
        match subject {
            Subject::Agent(id) => {
                let row = self.agents.get(id).filter(|row| row.revision == revision);
                Changed::Agent { id: id.clone(), row: row.cloned().map(Arc::new) }
            }
            Subject::Group(name, moves) => Changed::Group { name: name.clone(), moves: Arc::clone(moves) },
            Subject::Context(id) => {
                let unread = |row: &ContextRow| {
                    let content: ContextContent = row.content.clone().unread();
                    Arc::new(ContextRow { content, ..row.clone() })
                };
                let kept = self.contexts.get(id);
                match kept.and_then(|kept| kept.change(revision)) {
                    Some((before, after)) => {
                        Changed::Context { before: before.map(unread), after: Arc::new(after.clone()) }
                    }
                    None => Changed::ContextLost { id: *id, facts: kept.map(|kept| facts(kept.newest())) },
                }
            }
        }
    }

    pub(super) fn change_trim(&mut self, trim: Trim) -> Trimmed {
        let most = self.changes_trimmed + u64::from(trim.limit);
        let last = trim.changes_up_to.min(self.revision).min(most).max(self.changes_trimmed);
        let changes = last - self.changes_trimmed;
        self.changes = self.changes.split_off(&(last + 1));
        self.changes_trimmed = last;
        for kept in self.contexts.values_mut() {
            kept.forget_repeats(last);
        }
        Trimmed { changes, markers: self.markers_forget(trim.markers_before, trim.limit as usize) }
    }
}

fn facts(row: &ContextRow) -> ContextFacts {
    ContextFacts { key: row.spec.key.clone(), context_type: row.spec.context_type.clone(), owner: row.owner.clone() }
}
