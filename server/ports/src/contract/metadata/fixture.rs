//! Short words for the cases.

use std::{collections::BTreeMap, time::Duration};

use acb_types::{
    AgentId, Capability, ClassId, CredentialId, ErrorCode, SubscriptionName, TenantId, Timestamp, TopicFilter,
    batch::{DeadLetterPolicy, StartAt},
};

use crate::{
    error::StoreError,
    metadata::{
        AgentCapability, AgentRemoval, AgentSpec, AgentUpdate, EnrolmentKeyRow, Inbox, MetadataStore, NewFamily,
        NewSubscription, RefreshHash, Registered, Registration, RotationRequest, SubscriptionSpec,
    },
};

pub(super) fn at(n: u64) -> Timestamp {
    Timestamp(1_767_225_600_000 + n)
}

pub(super) fn tenant(id: &str) -> TenantId {
    id.parse().unwrap()
}

pub(super) fn agent(id: &str) -> AgentId {
    id.parse().unwrap()
}

pub(super) fn credential(id: &str) -> CredentialId {
    id.parse().unwrap()
}

pub(super) fn name(text: &str) -> SubscriptionName {
    text.parse().unwrap()
}

pub(super) fn capability(text: &str) -> Capability {
    text.parse().unwrap()
}

/// Makes a tenant.
pub(super) async fn make_tenant(store: &dyn MetadataStore, id: &str) -> TenantId {
    let id = tenant(id);
    store.tenant_create(&id, "", at(0)).await.unwrap();
    id
}

/// A spec with every field filled.
pub(super) fn full_spec(id: &str) -> AgentSpec {
    AgentSpec {
        id: agent(id),
        agent_type: "worker".into(),
        name: "Wörker No. 1".into(),
        description: "Counts lines; 'quotes' and \"more\" \u{0} too".into(),
        version: Some("1.2.3-rc.1+build.5".parse().unwrap()),
        location: "eu-west/4".into(),
        capabilities: vec![
            AgentCapability {
                name: capability("lines.count"),
                version: Some("2.0.0".parse().unwrap()),
                input_schema: r#"{"type":"string"}"#.into(),
                output_schema: r#"{"type":"integer"}"#.into(),
            },
            AgentCapability::named(capability("files.hash")),
        ],
        endpoint: "https://worker.example/inbox".into(),
        groups: ["blue".to_owned(), "green, or so".to_owned()].into(),
        metadata: BTreeMap::from([("gpu".to_owned(), "no".to_owned()), (String::new(), String::new())]),
    }
}

pub(super) fn spec(id: &str) -> AgentSpec {
    AgentSpec::new(agent(id))
}

pub(super) async fn register(store: &dyn MetadataStore, tenant: &TenantId, id: &str, by: &str, n: u64) -> Registered {
    store.agent_register(tenant, Registration::new(spec(id), credential(by), at(n))).await.unwrap()
}

pub(super) fn removal(inbox: Inbox, n: u64) -> AgentRemoval {
    AgentRemoval { held_by: None, inbox, now: at(n) }
}

pub(super) fn rename(to: &str, n: u64) -> AgentUpdate {
    AgentUpdate { name: Some(to.to_owned()), now: at(n), ..AgentUpdate::default() }
}

/// A definition with nothing at its default.
pub(super) fn full_subscription(text: &str, n: u64) -> NewSubscription {
    let filters: Vec<TopicFilter> = vec!["plans.*".parse().unwrap(), "wörk.>".parse().unwrap()];
    NewSubscription {
        spec: SubscriptionSpec {
            ack_wait: Duration::from_millis(1234),
            retry_schedule: vec![Duration::from_millis(7), Duration::from_secs(7)],
            max_attempts: 17,
            dead_letters: DeadLetterPolicy::Drop,
            max_leased: 99,
            ..SubscriptionSpec::new(name(text), ClassId::TOPICS, filters)
        },
        start: StartAt::Sequence(42),
        created_by: agent("maker"),
        now: at(n),
    }
}

pub(super) fn key(id: &str, n: u64) -> EnrolmentKeyRow {
    EnrolmentKeyRow {
        key_id: id.to_owned(),
        hash: [n as u8; 32],
        label: "for the team".into(),
        agent_pattern: "worker-*".into(),
        roles: vec!["agent-full".into(), "observer".into()],
        created_at: at(n),
        expires_at: at(n + 1000),
        revoked_at: Timestamp::NONE,
    }
}

/// The digest of the `n`th token.
pub(super) fn token(n: u64) -> RefreshHash {
    let mut hash = [7; 32];
    hash[..8].copy_from_slice(&n.to_be_bytes());
    hash
}

pub(super) fn family(id: &str, of: &str, n: u64) -> NewFamily {
    NewFamily {
        family_id: id.to_owned(),
        agent: agent("planner"),
        credential: credential(of),
        roles: vec!["agent-full".into()],
        refresh_hash: token(0),
        expires_at: at(n + 1000),
        now: at(n),
    }
}

pub(super) fn rotation(presented: u64, next: u64, n: u64) -> RotationRequest {
    RotationRequest { presented: token(presented), next: token(next), expires_at: at(n + 1000), now: at(n) }
}

/// Asserts the code of a refusal.
#[track_caller]
pub(super) fn refused<T: std::fmt::Debug>(answer: Result<T, StoreError>, code: ErrorCode) {
    match answer {
        Err(e) => assert_eq!(e.code, code, "{e}"),
        Ok(value) => panic!("{code} expected, got {value:?}"),
    }
}
