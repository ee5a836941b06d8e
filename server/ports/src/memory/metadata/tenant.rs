//! What a tenant holds.

use std::collections::BTreeMap;

use acb_types::{AgentId, CredentialId, Incarnation, StreamId, SubscriptionId, SubscriptionName};

use super::{credential::Family, upload::Upload};
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
        }
    }

    /// The next revision (META-4).
    pub(super) fn raise(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }
}
