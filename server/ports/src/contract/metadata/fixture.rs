//! Short words for the cases.

use std::{collections::BTreeMap, time::Duration};

use acb_types::{
    AgentId, Capability, ClassId, ContextId, CredentialId, ErrorCode, GroupName, Sha256Digest, SubscriptionName,
    TenantId, Timestamp, TopicFilter,
    batch::{DeadLetterPolicy, StartAt},
};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::{
    error::StoreError,
    metadata::{
        AgentCapability, AgentRemoval, AgentSpec, AgentUpdate, ContentPlace, ContextContent, ContextRemoval,
        ContextRow, ContextScope, ContextSpec, ContextWrite, EnrolmentKeyRow, Inbox, MetadataStore, NewContext,
        NewFamily, NewGroup, NewSubscription, RefreshHash, Registered, Registration, RotationRequest, ShareAccess,
        SubscriptionSpec, WriteCondition, Written,
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

pub(super) fn group(text: &str) -> GroupName {
    text.parse().unwrap()
}

/// The id of the `n`th context; ids rise with `n`.
pub(super) fn context(n: u64) -> ContextId {
    format!("0194f0c1-{:04x}-7000-8000-{:012x}", n >> 48, n & 0xffff_ffff_ffff).parse().unwrap()
}

/// A payload in the row.
pub(super) fn inline(bytes: &[u8]) -> ContextContent {
    ContextContent {
        size: bytes.len() as u64,
        sha256: Sha256Digest(Sha256::digest(bytes).into()),
        place: ContentPlace::Inline(Bytes::copy_from_slice(bytes)),
    }
}

/// A payload that is a blob; the store trusts that it is there.
pub(super) fn blob(n: u8) -> ContextContent {
    ContextContent { size: 20_000, sha256: Sha256Digest([n; 32]), place: ContentPlace::Blob }
}

/// A spec with every field filled, for a group named `blue`.
pub(super) fn full_context_spec(key: &str) -> ContextSpec {
    ContextSpec {
        key: Some(key.parse().unwrap()),
        context_type: "plan".into(),
        scope: ContextScope::Group,
        groups: [group("blue")].into(),
        shares: BTreeMap::new(),
        content_type: "text/plain; charset=utf-8".into(),
        description: "Ärmel; 'quotes' and \"more\" \u{0} too".into(),
        labels: ["draft".to_owned(), "größe".to_owned()].into(),
        metadata: BTreeMap::from([("a".to_owned(), "1".to_owned()), (String::new(), String::new())]),
        ttl: Some(Duration::from_mins(10)),
        version: "1.2.3-rc.1+build.5".parse().unwrap(),
    }
}

/// A private context of `maker` with a payload that says its number.
pub(super) fn new_context(n: u64, at_ms: u64) -> NewContext {
    NewContext {
        id: context(n),
        spec: ContextSpec::new("note"),
        owner: agent("maker"),
        content: inline(format!("payload {n}").as_bytes()),
        fingerprint: Sha256Digest([n as u8; 32]),
        stream: None,
        now: at(at_ms),
    }
}

pub(super) async fn make_context(store: &dyn MetadataStore, tenant: &TenantId, new: NewContext) -> ContextRow {
    let made = store.context_create(tenant, new).await.unwrap();
    assert!(!made.existed);
    made.row
}

/// A write of a payload at a revision.
pub(super) fn write(if_rev: u64, payload: &str, n: u64) -> ContextWrite {
    ContextWrite {
        condition: WriteCondition::IfRev(if_rev),
        change: crate::metadata::ContextChange::default(),
        content: Some(inline(payload.as_bytes())),
        by: agent("maker"),
        repeat: None,
        stream: None,
        now: at(n),
    }
}

pub(super) async fn update(
    store: &dyn MetadataStore,
    tenant: &TenantId,
    row: &ContextRow,
    payload: &str,
    n: u64,
) -> ContextRow {
    let Written { row, duplicate } = store.context_update(tenant, &row.id, write(row.rev, payload, n)).await.unwrap();
    assert!(!duplicate);
    row
}

pub(super) fn removing(condition: WriteCondition, n: u64) -> ContextRemoval {
    ContextRemoval { condition, by: agent("cleaner"), now: at(n) }
}

pub(super) fn shared_with(agents: &[(&str, ShareAccess)]) -> ContextSpec {
    ContextSpec {
        scope: ContextScope::Shared,
        shares: agents.iter().map(|(id, access)| (agent(id), *access)).collect(),
        ..ContextSpec::new("note")
    }
}

pub(super) async fn make_group(store: &dyn MetadataStore, tenant: &TenantId, name: &str, members: &[&str]) -> u64 {
    let new = NewGroup { name: group(name), description: String::new(), by: agent("admin"), now: at(0) };
    store.group_create(tenant, new).await.unwrap();
    let members: Vec<_> = members.iter().map(|id| agent(id)).collect();
    store.group_members_add(tenant, &group(name), &members, at(0)).await.unwrap().revision
}

/// The row as lists show it.
pub(super) fn unread(row: &ContextRow) -> ContextRow {
    ContextRow { content: row.content.clone().unread(), ..row.clone() }
}

/// Asserts the code of a refusal.
#[track_caller]
pub(super) fn refused<T: std::fmt::Debug>(answer: Result<T, StoreError>, code: ErrorCode) {
    match answer {
        Err(e) => assert_eq!(e.code, code, "{e}"),
        Ok(value) => panic!("{code} expected, got {value:?}"),
    }
}
