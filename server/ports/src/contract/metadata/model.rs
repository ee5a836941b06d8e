//! Random calls on the store under test and on the memory adapter: both must answer alike, in every field.

use std::{collections::BTreeMap, fmt::Debug};

use acb_types::TenantId;

use super::{Context, fixture::*};
use crate::{
    error::StoreError,
    ids::{IdSource, SeededIds},
    memory::MemoryMetadata,
    metadata::{
        AgentCapability, AgentFilter, AgentRemoval, AgentSpec, AgentUpdate, AuditEntry, Inbox, MetadataStore,
        NewAgentSecret, NewSubscription, Registration, RotationRequest, SubscriptionSet,
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

/// META-2 to META-21 at once, by comparison. A failing seed prints itself.
pub async fn meta_2_random_calls_answer_as_the_model_does(mut c: Context) {
    let model = MemoryMetadata::new();
    for seed in 0..4 {
        let t = make_tenant(&*c.store, &format!("t{seed}")).await;
        make_tenant(&model, &format!("t{seed}")).await;
        // One set of dice each, of one seed: both throw the same.
        let (ours, theirs) = (Dice(SeededIds::new(seed)), Dice(SeededIds::new(seed)));
        for n in 1..CALLS {
            let told = call(&*c.store, &t, &ours, n).await;
            let expected = call(&model, &t, &theirs, n).await;
            assert_eq!(told, expected, "seed {seed}, call {n}");
            if n % 100 == 0 {
                c.turn().await;
            }
        }
        assert_eq!(c.store.tenant_revision(&t).await.unwrap(), model.tenant_revision(&t).await.unwrap());
    }
}
