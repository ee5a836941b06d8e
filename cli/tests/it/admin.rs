use serde_json::Value;

use crate::bus::Bus;

async fn root(bus: &Bus, key: &str, words: &str) -> Vec<Value> {
    let acb = bus.acb(&format!("--json {words}")).env("ACB_KEY", key).env("ACB_AGENT", "root");
    crate::bus::objects(&acb.ok().await)
}

#[tokio::test]
async fn tenants_are_made_and_listed() {
    let (bus, key) = Bus::with_credentials().await;
    let made = root(&bus, &key, "admin tenants create acme --name Acme").await;
    assert_eq!((&made[0]["id"], &made[0]["name"]), (&"acme".into(), &"Acme".into()));
    let all = root(&bus, &key, "admin tenants ls").await;
    assert_eq!(all.len(), 2, "{all:?}");
    let again = bus.acb("admin tenants create acme").env("ACB_KEY", &key).env("ACB_AGENT", "root");
    again.fails(5).await;
}

#[tokio::test]
async fn a_key_serves_the_agents_and_roles_it_was_made_for_until_it_is_revoked() {
    let (bus, key) = Bus::with_credentials().await;
    let made = root(&bus, &key, "admin keys create --label w --agents worker-* --role agent-consumer --ttl 1h").await;
    let (id, worker) = (made[0]["id"].as_str().unwrap(), made[0]["enrolment_key"].as_str().unwrap());
    let as_worker = |agent: &str, words: &str| bus.acb(words).env("ACB_KEY", worker).env("ACB_AGENT", agent);
    as_worker("worker-1", "agents register").ok().await;
    as_worker("root", "agents ls").fails(4).await;
    let ran = as_worker("worker-1", "publish a.b x").fails(4).await;
    assert!(ran.err.contains("agent-producer"), "{ran:?}");
    as_worker("worker-1", "admin keys ls").fails(4).await;
    let listed = root(&bus, &key, "admin keys ls").await;
    assert!(listed.iter().all(|k| k.get("enrolment_key").is_none()), "{listed:?}");
    assert!(listed.iter().any(|k| k["id"] == id && k["agent_pattern"] == "worker-*"), "{listed:?}");
    root(&bus, &key, &format!("admin keys revoke {id}")).await;
    as_worker("worker-1", "agents ls").fails(4).await;
}

#[tokio::test]
async fn a_key_alone_is_printed_for_those_who_pipe_it_on() {
    let (bus, key) = Bus::with_credentials().await;
    let acb = bus.acb("admin keys create --raw").env("ACB_KEY", &key).env("ACB_AGENT", "root");
    let printed = acb.ok().await;
    assert!(printed.starts_with("acb_default_") && printed.lines().count() == 1, "{printed}");
}

#[tokio::test]
async fn a_secret_is_shown_once_and_logs_its_agent_in() {
    let (bus, key) = Bus::with_credentials().await;
    let made = root(&bus, &key, "admin set-secret bob").await;
    let secret = made[0]["secret"].as_str().unwrap();
    let said = bus.acb("--agent bob login --secret").input(secret).ok().await;
    assert!(said.contains(" as bob (tenant default, agent-full)"), "{said}");
    bus.ok("agents register").await;
    let direct = bus.acb("send bob hi").env("ACB_SECRET", secret).env("ACB_AGENT", "bob");
    direct.ok().await;
    // A new one ends the old one, and its tokens.
    root(&bus, &key, "admin set-secret bob").await;
    bus.acb("agents ls").fails(4).await;
}

#[tokio::test]
async fn a_signing_key_is_replaced_and_tokens_stay_good() {
    let (bus, key) = Bus::with_credentials().await;
    bus.acb("--agent root login").input(key.as_str()).ok().await;
    let rotated = bus.json("admin rotate-signing-key").await;
    assert!(rotated["key_id"].as_str().is_some_and(|id| !id.is_empty()), "{rotated}");
    assert_eq!(bus.ok("agents ls").await, "no agents\n");
}
