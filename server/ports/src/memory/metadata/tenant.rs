//! What a tenant holds.

use std::collections::BTreeMap;

use acb_types::{AgentId, ContextId, CredentialId, GroupName, Incarnation, StreamId, SubscriptionId, SubscriptionName};

use super::{change::Subject, context::Kept, credential::Family, group::Group, upload::Upload};
use crate::metadata::{AgentRow, AgentSecretRow, AuditRow, EnrolmentKeyRow, SubscriptionRow, TenantRow};

/// Everything of one tenant. Nothing outside it is reachable from here (META-1).
#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) row: TenantRow,
    pub(super) revision: u64,
    /// Incarnations up to this may have been given to agents that are gone.
    pub(super) incarnation_floor: Incarnation,
    pub(super) last_subscription: SubscriptionId,
    pub(super) agents: BTreeMap<AgentId, AgentRow>,
    /// Agents of which only the inbox is left: what holds it.
    pub(super) kept_inboxes: BTreeMap<AgentId, CredentialId>,
    pub(super) subscriptions: BTreeMap<SubscriptionId, SubscriptionRow>,
    pub(super) subscription_names: BTreeMap<SubscriptionName, SubscriptionId>,
    /// Subscriptions that users made.
    pub(super) chosen: usize,
    pub(super) enrolment_keys: BTreeMap<String, EnrolmentKeyRow>,
    pub(super) secrets: BTreeMap<AgentId, AgentSecretRow>,
    pub(super) families: BTreeMap<String, Family>,
    pub(super) audit: Vec<AuditRow>,
    pub(super) uploads: BTreeMap<StreamId, Upload>,
    pub(super) contexts: BTreeMap<ContextId, Kept>,
    pub(super) groups: BTreeMap<GroupName, Group>,
    /// By revision.
    pub(super) changes: BTreeMap<u64, Subject>,
    /// Changes up to this revision are not kept.
    pub(super) changes_trimmed: u64,
}

impl Tenant {
    pub(super) fn new(row: TenantRow) -> Self {
        Self {
            row,
            revision: 0,
            incarnation_floor: Incarnation(0),
            last_subscription: SubscriptionId(0),
            agents: BTreeMap::new(),
            kept_inboxes: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            subscription_names: BTreeMap::new(),
            chosen: 0,
            enrolment_keys: BTreeMap::new(),
            secrets: BTreeMap::new(),
            families: BTreeMap::new(),
            audit: Vec::new(),
            uploads: BTreeMap::new(),
            contexts: BTreeMap::new(),
            groups: BTreeMap::new(),
            changes: BTreeMap::new(),
            changes_trimmed: 0,
        }
    }

    /// The next revision (META-4, META-25), and what it is a change of (META-32).
    pub(super) fn raise(&mut self, subject: Subject) -> u64 {
        self.revision += 1;
        self.changes.insert(self.revision, subject);
        self.revision
    }
}
