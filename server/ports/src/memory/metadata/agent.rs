//! Agents in memory.

use acb_types::{AgentId, CredentialId, ErrorCode, Incarnation, batch::StartAt};

use super::{change::Subject, tenant::Tenant};
use crate::{
    error::StoreError,
    metadata::{
        AgentRemoval, AgentRow, AgentUpdate, Created, Inbox, NewSubscription, Registered, Registration, RemovedAgent,
        Result, SubscriptionRow,
    },
};

impl Tenant {
    /// What holds an id, be it an agent's or only a kept inbox's.
    fn holder(&self, agent: &AgentId) -> Option<&CredentialId> {
        self.agents.get(agent).map(|row| &row.credential).or_else(|| self.kept_inboxes.get(agent))
    }

    pub(super) fn agent_register(&mut self, registration: Registration) -> Result<Registered> {
        let Registration { spec, credential, implicit, now } = registration;
        let id = spec.id.clone();
        if self.holder(&id).is_some_and(|holder| *holder != credential) {
            let message = format!("agent {id} is held by another credential");
            return Err(StoreError::new(ErrorCode::AgentExists, "agent.register", message));
        }
        let before = self.agents.get(&id);
        let existed = before.is_some();
        let (last, registered_at) =
            before.map_or((self.incarnation_floor, now), |row| (row.incarnation, row.registered_at));
        let row = AgentRow {
            spec,
            credential,
            incarnation: Incarnation(last.0 + 1),
            registered_at,
            updated_at: now,
            revision: self.raise(Subject::Agent(id.clone())),
        };
        self.kept_inboxes.remove(&id);
        self.agents.insert(id.clone(), row.clone());
        let implicit = implicit.into_iter().map(|spec| {
            if let Some(row) = self.subscription_named(&spec.name) {
                return Created { row: row.clone(), existed: true };
            }
            let new = NewSubscription { spec, start: StartAt::New, created_by: id.clone(), now };
            Created { row: self.subscription_add(new), existed: false }
        });
        Ok(Registered { implicit: implicit.collect(), agent: row, existed })
    }

    pub(super) fn agent_update(&mut self, agent: &AgentId, update: &AgentUpdate) -> Result<AgentRow> {
        let Some(row) = self.agents.get(agent) else {
            let message = format!("no agent {agent}");
            return Err(StoreError::new(ErrorCode::AgentNotFound, "agent.update", message));
        };
        check_holder("agent.update", agent, update.held_by.as_ref(), Some(&row.credential))?;
        let spec = update.applied_to(&row.spec);
        if spec == row.spec {
            return Ok(row.clone());
        }
        let row = AgentRow { spec, updated_at: update.now, revision: self.revision + 1, ..row.clone() };
        self.raise(Subject::Agent(agent.clone()));
        self.agents.insert(agent.clone(), row.clone());
        Ok(row)
    }

    pub(super) fn agent_remove(&mut self, agent: &AgentId, removal: &AgentRemoval) -> Result<RemovedAgent> {
        check_holder("agent.remove", agent, removal.held_by.as_ref(), self.holder(agent))?;
        let mut removed = RemovedAgent::default();
        if let Some(row) = self.agents.remove(agent) {
            self.incarnation_floor = self.incarnation_floor.max(row.incarnation);
            removed.revision = Some(self.raise(Subject::Agent(agent.clone())));
            if removal.inbox == Inbox::Keep {
                self.kept_inboxes.insert(agent.clone(), row.credential.clone());
            }
            removed.agent = Some(row);
        }
        if removal.inbox == Inbox::Drop {
            self.kept_inboxes.remove(agent);
            let own = |row: &&SubscriptionRow| row.spec.name.is_implicit() && row.created_by == *agent;
            let ended: Vec<_> = self.subscriptions.values().filter(own).map(|row| row.id).collect();
            removed.subscriptions = ended.into_iter().filter_map(|id| self.subscription_end(id)).collect();
        }
        Ok(removed)
    }
}

fn check_holder(
    operation: &'static str,
    agent: &AgentId,
    wanted: Option<&CredentialId>,
    holder: Option<&CredentialId>,
) -> Result<()> {
    match (wanted, holder) {
        (Some(wanted), Some(holder)) if wanted != holder => {
            let message = format!("agent {agent} is held by another credential");
            Err(StoreError::new(ErrorCode::PermissionDenied, operation, message))
        }
        _ => Ok(()),
    }
}
