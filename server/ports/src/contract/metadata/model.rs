//! Random calls on the store under test and on the memory adapter: both must answer alike, in every field.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    time::Duration,
};

use acb_types::{Sha256Digest, TenantId, Timestamp};
use semver::Version;

use super::{Context, fixture::*};
use crate::{
    error::StoreError,
    ids::{IdSource, SeededIds},
    memory::MemoryMetadata,
    metadata::{
        AgentCapability, AgentFilter, AgentRemoval, AgentSpec, AgentUpdate, AuditEntry, ContextChange, ContextContent,
        ContextFilter, ContextRemoval, ContextRenewal, ContextRow, ContextScope, ContextSpec, ContextWrite, Inbox,
        ListedAt, MetadataStore, NewAgentSecret, NewContext, NewGroup, NewSubscription, Payloads, Registration,
        RepeatKey, RotationRequest, ShareAccess, SubscriptionSet, Trim, Viewer, WriteCondition,
    },
};

const CALLS: u64 = 600;

/// The call's answer as text; of a refusal its code.
fn told<T: Debug>(answer: Result<T, StoreError>) -> String {
    match answer {
        Ok(value) => format!("{value:?}"),
        Err(e) => e.code.to_string(),
    }
}

/// Dice with few sides, so that calls meet each other's rows.
struct Dice(SeededIds);

impl Dice {
    fn below(&self, n: u64) -> u64 {
        self.0.random_u64() % n
    }

    fn pick<'a>(&self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len() as u64) as usize]
    }

    fn maybe<T>(&self, value: impl FnOnce() -> T) -> Option<T> {
        (self.below(2) == 0).then(value)
    }

    fn spec(&self) -> AgentSpec {
        let mut spec = if self.below(3) == 0 { full_spec("x") } else { spec("x") };
        spec.id = agent(self.pick(&["a1", "a2", "a3", "a4", "a5"]));
        spec.agent_type = self.pick(&["", "worker", "planner"]).into();
        spec.name = self.pick(&["", "Ärmel", "b", "ß"]).into();
        spec.capabilities = self.capabilities();
        spec.metadata = self.metadata();
        spec
    }

    fn capabilities(&self) -> Vec<AgentCapability> {
        let all = ["plan", "files.hash", "lines.count"];
        all.iter().filter(|_| self.below(2) == 0).map(|name| AgentCapability::named(capability(name))).collect()
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        let all = ["gpu", "tier"];
        let pairs = all.iter().filter(|_| self.below(2) == 0);
        pairs.map(|k| ((*k).to_owned(), self.pick(&["1", "2"]).to_owned())).collect()
    }

    fn filter(&self) -> AgentFilter {
        let names = || self.capabilities().into_iter().map(|c| c.name).collect();
        AgentFilter {
            agent_type: self.maybe(|| self.pick(&["", "worker", "planner"]).to_owned()),
            location: (self.below(6) == 0).then(|| "eu-west/4".to_owned()),
            capabilities_all: if self.below(3) == 0 { names() } else { vec![] },
            capabilities_any: if self.below(3) == 0 { names() } else { vec![] },
            metadata: if self.below(3) == 0 { self.metadata() } else { BTreeMap::new() },
            text: self.maybe(|| self.pick(&["a", "Ä", "RME", "SS", "ß", "count"]).to_owned()),
        }
    }

    fn context_spec(&self) -> ContextSpec {
        let mut spec = ContextSpec::new(self.pick(&["plan", "note"]));
        spec.key = self.maybe(|| self.pick(&["k/1", "k/2", "l"]).parse().unwrap());
        spec.description = self.pick(&["", "Ärmel", "ß"]).to_owned();
        spec.labels = self.labels();
        spec.ttl = (self.below(3) == 0).then(|| Duration::from_millis(1 + self.below(40)));
        match self.below(4) {
            0 => spec.scope = ContextScope::Public,
            1 => {
                spec.scope = ContextScope::Group;
                spec.groups = [group(self.pick(&["blue", "red"]))].into();
            }
            2 => {
                spec = ContextSpec {
                    key: spec.key,
                    ..shared_with(&[("a1", ShareAccess::Read), ("a2", ShareAccess::Write)])
                }
            }
            _ => {}
        }
        spec
    }

    fn labels(&self) -> BTreeSet<String> {
        ["x", "y"].iter().filter(|_| self.below(2) == 0).map(|l| (*l).to_owned()).collect()
    }

    fn content(&self, n: u64) -> ContextContent {
        if self.below(3) == 0 { blob(self.below(5) as u8) } else { inline(format!("{n}").as_bytes()) }
    }

    fn condition(&self, row: Option<&ContextRow>) -> WriteCondition {
        let (rev, access_rev) = row.map_or((1, 1), |row| (row.rev, row.access_rev));
        match self.below(6) {
            0 => WriteCondition::IfRev(rev.saturating_sub(1)),
            1 => WriteCondition::Force { access_rev },
            2 => WriteCondition::Force { access_rev: access_rev.saturating_sub(1) },
            _ => WriteCondition::IfRev(rev),
        }
    }

    fn context_write(&self, row: Option<&ContextRow>, n: u64) -> ContextWrite {
        let spec = self.context_spec();
        let access = self.below(3) == 0;
        ContextWrite {
            condition: self.condition(row),
            change: ContextChange {
                scope: access.then_some(spec.scope),
                groups: access.then_some(spec.groups),
                shares: access.then_some(spec.shares),
                description: self.maybe(|| spec.description),
                labels: self.maybe(|| self.labels()),
                ttl: (self.below(4) == 0).then_some(spec.ttl),
                version: (self.below(5) == 0).then(|| Version::new(0, 1, self.below(60))),
                ..ContextChange::default()
            },
            content: self.maybe(|| self.content(n)),
            by: agent(self.pick(&["a1", "a2"])),
            repeat: (self.below(3) == 0).then(|| RepeatKey {
                key: self.pick(&["r1", "r2"]).to_owned(),
                body: Sha256Digest([self.below(2) as u8; 32]),
            }),
            stream: None,
            now: at(n),
        }
    }

    fn context_filter(&self) -> ContextFilter {
        let groups = ["blue", "red"].iter().filter(|_| self.below(2) == 0).map(|g| group(g)).collect();
        ContextFilter {
            key_prefix: self.pick(&["", "", "k", "k/1", "z"]).to_owned(),
            context_type: (self.below(3) == 0).then(|| "plan".to_owned()),
            owner: (self.below(3) == 0).then(|| agent("a1")),
            scope: (self.below(4) == 0).then_some(ContextScope::Group),
            labels: if self.below(3) == 0 { self.labels() } else { BTreeSet::new() },
            text: (self.below(4) == 0).then(|| self.pick(&["Ä", "SS", "K/", "note"]).to_owned()),
            viewer: self.maybe(|| Viewer { agent: agent(self.pick(&["a1", "a2", "a3"])), groups }),
            group: (self.below(5) == 0).then(|| group("blue")),
            ..ContextFilter::default()
        }
    }

    fn subscription(&self, n: u64) -> NewSubscription {
        let mut new = full_subscription(self.pick(&["s1", "s2", "s3"]), n);
        new.spec.max_attempts = 1 + self.below(2) as u32;
        new
    }
}

async fn call(store: &dyn MetadataStore, t: &TenantId, dice: &Dice, n: u64) -> String {
    let now = at(n);
    let id = agent(dice.pick(&["a1", "a2", "a3", "a4", "a5"]));
    let by = credential(dice.pick(&["key:k1", "key:k1", "key:k1", "secret:a1"]));
    let family_id = dice.pick(&["f1", "f2"]);
    let key_id = dice.pick(&["k1", "k2"]);
    let held_by = dice.maybe(|| by.clone());
    match dice.below(24) {
        0..4 => told(store.agent_register(t, Registration::new(dice.spec(), by, now)).await),
        4..6 => {
            let update = AgentUpdate {
                held_by,
                name: dice.maybe(|| dice.spec().name),
                capabilities: dice.maybe(|| dice.capabilities()),
                metadata: dice.maybe(|| dice.metadata()),
                now,
                ..AgentUpdate::default()
            };
            told(store.agent_update(t, &id, update).await)
        }
        6..8 => {
            let inbox = if dice.below(2) == 0 { Inbox::Keep } else { Inbox::Drop };
            told(store.agent_remove(t, &id, AgentRemoval { held_by, inbox, now }).await)
        }
        8 => told(store.agent_get(t, &id).await),
        9..12 => {
            let after = dice.maybe(|| id);
            told(store.agent_list(t, &dice.filter(), after.as_ref(), 1 + dice.below(4) as u32).await)
        }
        12 => told(store.subscription_create(t, dice.subscription(n)).await),
        13 => told(store.subscription_delete(t, &dice.subscription(n).spec.name).await),
        14 => {
            let set = if dice.below(2) == 0 { SubscriptionSet::All } else { SubscriptionSet::Chosen };
            told(store.subscription_list(t, set, None, 1 + dice.below(9) as u32).await)
        }
        15 => told(store.subscription_list_all(t).await),
        16 => told(store.enrolment_key_create(t, key(key_id, n)).await),
        17 => told(store.enrolment_key_revoke(t, key_id, now).await),
        18 => {
            let secret = NewAgentSecret { hash: format!("{n}"), roles: vec![], now };
            told(store.agent_secret_set(t, &id, secret).await)
        }
        19 => told(store.family_create(t, family(family_id, by.as_str(), n)).await),
        20..22 => {
            let request = RotationRequest {
                presented: token(dice.below(4)),
                next: token(dice.below(4)),
                expires_at: at(n + dice.below(100)),
                now,
            };
            told(store.family_rotate(t, family_id, request).await)
        }
        22 => told(store.family_forget(t, now).await) + &told(store.family_list_revoked(t, now, None, 9).await),
        _ => {
            let entry = AuditEntry {
                at: now,
                node: "n".into(),
                actor: id.to_string(),
                action: "x".into(),
                target: String::new(),
                outcome: "ok".into(),
                details: String::new(),
                request_id: String::new(),
            };
            told(store.audit_append(t, entry).await)
        }
    }
}

async fn context_call(store: &dyn MetadataStore, t: &TenantId, dice: &Dice, n: u64) -> String {
    let now = at(n);
    let id = context(dice.below(6));
    let row = store.context_get(t, &id).await.unwrap();
    let revision = store.tenant_revision(t).await.unwrap();
    let who = agent(dice.pick(&["a1", "a2", "a3"]));
    let name = group(dice.pick(&["blue", "red"]));
    match dice.below(24) {
        0..4 => {
            let new = NewContext {
                id,
                spec: dice.context_spec(),
                owner: who,
                content: dice.content(n),
                fingerprint: Sha256Digest([dice.below(2) as u8; 32]),
                stream: None,
                now,
            };
            told(store.context_create(t, new).await)
        }
        4..11 => told(store.context_update(t, &id, dice.context_write(row.as_ref(), n)).await),
        11 => {
            let removal = ContextRemoval { condition: dice.condition(row.as_ref()), by: who, now };
            told(store.context_remove(t, &id, removal).await)
        }
        12 => {
            let ttl = dice.maybe(|| Duration::from_millis(dice.below(50)));
            let access_rev = row.map_or(0, |row| row.access_rev);
            told(store.context_renew(t, &id, ContextRenewal { access_rev, ttl, now }).await)
        }
        13 => told(store.context_get(t, &id).await),
        14 => told(store.context_get_at(t, &id, dice.below(revision + 3)).await),
        15 => {
            let key = dice.pick(&["k/1", "k/2", "l"]).parse().unwrap();
            let at = dice.maybe(|| dice.below(revision + 3));
            told(store.context_find(t, &key, at).await)
        }
        16..18 => {
            let when =
                if dice.below(2) == 0 { ListedAt::Now(now) } else { ListedAt::Revision(dice.below(revision + 3)) };
            let payloads = if dice.below(2) == 0 { Payloads::Read } else { Payloads::LeaveOut };
            let (filter, after) = (dice.context_filter(), dice.maybe(|| id));
            told(store.context_list(t, &filter, when, payloads, after.as_ref(), 1 + dice.below(5) as u32).await)
        }
        18 => {
            let before = dice.maybe(|| dice.below(revision + 3));
            told(store.context_history(t, &id, before, 1 + dice.below(9) as u32).await)
        }
        19 => {
            let expired = told(store.context_expire(t, now, 1 + dice.below(2) as u32).await);
            expired + &told(store.context_next_expiry(t).await)
        }
        20 => {
            let new = NewGroup { name, description: dice.pick(&["", "", "other"]).to_owned(), by: who, now };
            told(store.group_create(t, new).await)
        }
        21 => {
            if dice.below(4) == 0 {
                told(store.group_delete(t, &name).await)
            } else if dice.below(2) == 0 {
                told(store.group_members_add(t, &name, &[who, agent("a2")], now).await)
            } else {
                told(store.group_members_remove(t, &name, &[who]).await)
            }
        }
        22 => {
            let at = dice.maybe(|| dice.below(revision + 3));
            told(store.memberships(t, &who, at).await) + &told(store.context_blobs_named(t, None, 9).await)
        }
        _ => {
            let limit = 1 + dice.below(3) as u32;
            let changes_up_to = dice.below(revision / 2 + 1);
            let markers_before = Timestamp(now.0 - dice.below(100));
            let trimmed = told(store.change_trim(t, Trim { changes_up_to, markers_before, limit }).await);
            trimmed + &told(store.change_list(t, dice.below(revision + 1), 1 + dice.below(40) as u32).await)
        }
    }
}

/// META-2 to META-38 at once, by comparison. A failing seed prints itself.
pub async fn meta_2_random_calls_answer_as_the_model_does(mut c: Context) {
    let model = MemoryMetadata::new();
    for seed in 0..8 {
        let t = make_tenant(&*c.store, &format!("t{seed}")).await;
        make_tenant(&model, &format!("t{seed}")).await;
        // One set of dice each, of one seed: both throw the same.
        let (ours, theirs) = (Dice(SeededIds::new(seed)), Dice(SeededIds::new(seed)));
        for n in 1..CALLS {
            let (told, expected) = if seed % 2 == 0 {
                (call(&*c.store, &t, &ours, n).await, call(&model, &t, &theirs, n).await)
            } else {
                (context_call(&*c.store, &t, &ours, n).await, context_call(&model, &t, &theirs, n).await)
            };
            assert_eq!(told, expected, "seed {seed}, call {n}");
            if n % 100 == 0 {
                c.turn().await;
            }
        }
        assert_eq!(c.store.tenant_revision(&t).await.unwrap(), model.tenant_revision(&t).await.unwrap());
    }
}
