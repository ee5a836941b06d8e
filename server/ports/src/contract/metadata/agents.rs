//! Agents: registration, revision, incarnation, search.

use std::{collections::BTreeMap, sync::Arc};

use acb_types::{AgentId, ErrorCode};

use super::{Context, fixture::*};
use crate::metadata::{
    AgentCapability, AgentFilter, AgentRemoval, AgentRow, AgentUpdate, Inbox, MetadataStore, ROWS_MAX, Registration,
};

/// META-2: every field comes back as it was given.
pub async fn meta_2_an_agent_is_kept_as_it_was_given(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let registration = Registration::new(full_spec("w1"), credential("key:1"), at(5));
    let made = c.store.agent_register(&t, registration).await.unwrap();
    c.turn().await;
    let row = c.store.agent_get(&t, &agent("w1")).await.unwrap().unwrap();
    assert_eq!(row, made.agent);
    assert_eq!(row.spec, full_spec("w1"));
    assert_eq!(row.credential, credential("key:1"));
    assert_eq!((row.registered_at, row.updated_at), (at(5), at(5)));
    assert!(!made.existed);
    // Each field can be changed alone, and to nothing.
    let empty = AgentUpdate {
        held_by: None,
        agent_type: Some(String::new()),
        name: Some(String::new()),
        description: Some(String::new()),
        version: Some(None),
        location: Some(String::new()),
        capabilities: Some(vec![]),
        endpoint: Some(String::new()),
        groups: Some([].into()),
        metadata: Some(BTreeMap::new()),
        now: at(6),
    };
    let changed = c.store.agent_update(&t, &agent("w1"), rename("other", 6)).await.unwrap();
    let mut expected = full_spec("w1");
    expected.name = "other".into();
    assert_eq!(changed.spec, expected);
    let changed = c.store.agent_update(&t, &agent("w1"), empty).await.unwrap();
    assert_eq!(changed.spec, spec("w1"));
    c.turn().await;
    assert_eq!(c.store.agent_get(&t, &agent("w1")).await.unwrap(), Some(changed.clone()));
    assert_eq!((changed.registered_at, changed.updated_at, changed.incarnation.0), (at(5), at(6), 1));
}

/// META-4: registration, update and removal each raise by one; what changes nothing does not.
pub async fn meta_4_every_change_of_an_agent_raises_the_revision_by_one(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    assert_eq!(register(&*c.store, &t, "w1", "key:1", 1).await.agent.revision, 1);
    assert_eq!(register(&*c.store, &t, "w2", "key:1", 2).await.agent.revision, 2);
    c.turn().await;
    assert_eq!(c.store.agent_update(&t, &agent("w1"), rename("x", 3)).await.unwrap().revision, 3);
    let same = c.store.agent_update(&t, &agent("w1"), rename("x", 4)).await.unwrap();
    assert_eq!((same.revision, same.updated_at), (3, at(3)), "nothing changed");
    refused(c.store.agent_update(&t, &agent("w9"), rename("x", 5)).await, ErrorCode::AgentNotFound);
    let gone = c.store.agent_remove(&t, &agent("w2"), removal(Inbox::Drop, 6)).await.unwrap();
    assert_eq!(gone.revision, Some(4));
    let nothing = c.store.agent_remove(&t, &agent("w2"), removal(Inbox::Drop, 7)).await.unwrap();
    assert_eq!(nothing.revision, None);
    c.turn().await;
    assert_eq!(register(&*c.store, &t, "w1", "key:1", 8).await.agent.revision, 5);
    assert_eq!(c.store.tenant_revision(&t).await.unwrap(), 5);
}

/// META-4 under load: who sees revision R sees every change up to R.
pub async fn meta_4_revisions_of_16_writers_have_no_hole_and_follow_commit_order(mut c: Context) {
    const WRITERS: u64 = 16;
    const EACH: u64 = 12;
    let t = make_tenant(&*c.store, "a").await;
    let writers: Vec<_> = (0..WRITERS)
        .map(|w| {
            let (store, t) = (Arc::clone(&c.store), t.clone());
            tokio::spawn(async move {
                let mut seen = Vec::new();
                for n in 0..EACH {
                    let row = register(&*store, &t, &format!("w{w}-{n}"), "key:1", n).await.agent;
                    assert!(store.tenant_revision(&t).await.unwrap() >= row.revision);
                    seen.push(row.revision);
                }
                seen
            })
        })
        .collect();
    let reader = {
        let (store, t) = (Arc::clone(&c.store), t.clone());
        tokio::spawn(async move {
            loop {
                let revision = store.tenant_revision(&t).await.unwrap();
                let agents = store.agent_list(&t, &AgentFilter::default(), None, ROWS_MAX).await.unwrap();
                let below = agents.iter().filter(|row| row.revision <= revision).count() as u64;
                assert_eq!(below, revision, "revision {revision} was seen before a change below it");
                if revision == WRITERS * EACH {
                    return;
                }
            }
        })
    };
    let mut all = Vec::new();
    for writer in writers {
        let seen = writer.await.unwrap();
        assert!(seen.is_sorted(), "one writer's revisions rise: {seen:?}");
        all.extend(seen);
    }
    all.sort_unstable();
    assert_eq!(all, (1..=WRITERS * EACH).collect::<Vec<_>>());
    reader.await.unwrap();
    c.turn().await;
    assert_eq!(c.store.tenant_revision(&t).await.unwrap(), WRITERS * EACH);
}

/// META-5, and META-3: the refusal changes nothing.
pub async fn meta_5_another_credential_cannot_take_a_held_id(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let made = register(&*c.store, &t, "w1", "key:1", 1).await.agent;
    c.turn().await;
    let other = || Registration::new(full_spec("w1"), credential("key:2"), at(2));
    refused(c.store.agent_register(&t, other()).await, ErrorCode::AgentExists);
    assert_eq!(c.store.agent_get(&t, &agent("w1")).await.unwrap(), Some(made));
    assert_eq!(c.store.tenant_revision(&t).await.unwrap(), 1);
    // A kept inbox still belongs to the first.
    c.store.agent_remove(&t, &agent("w1"), removal(Inbox::Keep, 3)).await.unwrap();
    c.turn().await;
    refused(c.store.agent_register(&t, other()).await, ErrorCode::AgentExists);
    // Once it is dropped the id is free.
    c.store.agent_remove(&t, &agent("w1"), removal(Inbox::Drop, 4)).await.unwrap();
    c.turn().await;
    let taken = c.store.agent_register(&t, other()).await.unwrap();
    assert_eq!(taken.agent.credential, credential("key:2"));
    assert!(!taken.existed);
}

/// META-5 and META-6: a takeover.
pub async fn meta_5_the_same_credential_replaces_what_the_agent_says(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let full = Registration::new(full_spec("w1"), credential("key:1"), at(1));
    c.store.agent_register(&t, full).await.unwrap();
    c.turn().await;
    let again = register(&*c.store, &t, "w1", "key:1", 2).await;
    assert!(again.existed);
    assert_eq!(again.agent.spec, spec("w1"), "nothing of the old spec is left");
    assert_eq!((again.agent.registered_at, again.agent.updated_at), (at(1), at(2)));
    assert_eq!(again.agent.incarnation.0, 2);
    c.turn().await;
    assert_eq!(c.store.agent_get(&t, &agent("w1")).await.unwrap(), Some(again.agent));
    let old = AgentFilter { capabilities_all: vec![capability("files.hash")], ..AgentFilter::default() };
    assert_eq!(c.store.agent_list(&t, &old, None, 10).await.unwrap(), [], "old capabilities are not found");
}

/// META-6: a session of before a removal can never be mistaken for one after it.
pub async fn meta_6_incarnations_rise_over_removals(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let mut last = 0;
    for (round, inbox) in [Inbox::Keep, Inbox::Drop, Inbox::Keep, Inbox::Drop].into_iter().enumerate() {
        for n in 0..2 {
            let row = register(&*c.store, &t, "w1", "key:1", n).await.agent;
            assert!(row.incarnation.0 > last, "round {round}: {} after {last}", row.incarnation);
            last = row.incarnation.0;
            c.turn().await;
        }
        c.store.agent_remove(&t, &agent("w1"), removal(inbox, 9)).await.unwrap();
        c.turn().await;
    }
    // Also when another takes the id.
    let other = register(&*c.store, &t, "w1", "key:2", 10).await.agent;
    assert!(other.incarnation.0 > last, "{} after {last}", other.incarnation);
}

/// META-8, with the guard against a race between a check and the act.
pub async fn meta_8_only_the_holder_removes_and_updates_when_asked_so(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    register(&*c.store, &t, "w1", "key:1", 1).await;
    c.turn().await;
    let held_by = |by: &str| Some(credential(by));
    let update = |by| AgentUpdate { held_by: held_by(by), ..rename("x", 2) };
    let remove = |by| AgentRemoval { held_by: held_by(by), inbox: Inbox::Keep, now: at(3) };
    let id = agent("w1");
    refused(c.store.agent_update(&t, &id, update("key:2")).await, ErrorCode::PermissionDenied);
    refused(c.store.agent_remove(&t, &id, remove("key:2")).await, ErrorCode::PermissionDenied);
    assert_eq!(c.store.tenant_revision(&t).await.unwrap(), 1);
    assert_eq!(c.store.agent_update(&t, &id, update("key:1")).await.unwrap().spec.name, "x");
    assert!(c.store.agent_remove(&t, &id, remove("key:1")).await.unwrap().agent.is_some());
    // The kept inbox is still the holder's, and removing what is absent still succeeds.
    refused(c.store.agent_remove(&t, &id, remove("key:2")).await, ErrorCode::PermissionDenied);
    assert_eq!(c.store.agent_remove(&t, &agent("w2"), remove("key:2")).await.unwrap().agent, None);
}

fn ids(rows: &[AgentRow]) -> Vec<&str> {
    rows.iter().map(|row| row.spec.id.as_str()).collect()
}

async fn found(store: &dyn MetadataStore, filter: &AgentFilter) -> Vec<String> {
    let rows = store.agent_list(&tenant("a"), filter, None, 100).await.unwrap();
    assert!(rows.iter().all(|row| filter.wants(&row.spec)), "{filter:?} found {rows:?}");
    ids(&rows).into_iter().map(str::to_owned).collect()
}

/// META-9: each condition alone, and together.
pub async fn meta_9_all_conditions_of_a_filter_must_hold(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let rows: [(&str, &str, &str, &[&str], &[(&str, &str)]); 4] = [
        ("a1", "worker", "berlin", &["lines.count", "files.hash"], &[("gpu", "no"), ("tier", "1")]),
        ("a2", "worker", "paris", &["files.hash"], &[("gpu", "yes"), ("tier", "1")]),
        ("a3", "planner", "berlin", &["plan"], &[("tier", "2")]),
        ("a4", "worker", "berlin", &[], &[]),
    ];
    for (n, (id, agent_type, location, capabilities, metadata)) in rows.into_iter().enumerate() {
        let mut spec = spec(id);
        spec.agent_type = agent_type.into();
        spec.location = location.into();
        spec.capabilities = capabilities.iter().map(|name| AgentCapability::named(capability(name))).collect();
        spec.metadata = metadata.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        c.store.agent_register(&t, Registration::new(spec, credential("key:1"), at(n as u64))).await.unwrap();
    }
    c.turn().await;
    let s = &*c.store;
    let any = AgentFilter::default;
    let caps = |names: &[&str]| names.iter().map(|name| capability(name)).collect::<Vec<_>>();
    let metadata = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    assert_eq!(found(s, &any()).await, ["a1", "a2", "a3", "a4"]);
    assert_eq!(found(s, &AgentFilter { agent_type: Some("worker".into()), ..any() }).await, ["a1", "a2", "a4"]);
    assert_eq!(found(s, &AgentFilter { location: Some("berlin".into()), ..any() }).await, ["a1", "a3", "a4"]);
    let all = |names| AgentFilter { capabilities_all: caps(names), ..any() };
    assert_eq!(found(s, &all(&["files.hash"])).await, ["a1", "a2"]);
    assert_eq!(found(s, &all(&["files.hash", "lines.count"])).await, ["a1"]);
    assert_eq!(found(s, &all(&["files.hash", "files.hash"])).await, ["a1", "a2"], "a name given twice counts once");
    assert_eq!(found(s, &all(&["files"])).await, [""; 0], "a part of a name is not the name");
    let either = AgentFilter { capabilities_any: caps(&["plan", "lines.count", "nope"]), ..any() };
    assert_eq!(found(s, &either).await, ["a1", "a3"]);
    assert_eq!(found(s, &AgentFilter { metadata: metadata(&[("tier", "1")]), ..any() }).await, ["a1", "a2"]);
    let both = AgentFilter { metadata: metadata(&[("tier", "1"), ("gpu", "yes")]), ..any() };
    assert_eq!(found(s, &both).await, ["a2"]);
    let everything = AgentFilter {
        agent_type: Some("worker".into()),
        location: Some("berlin".into()),
        capabilities_all: caps(&["lines.count"]),
        capabilities_any: caps(&["files.hash", "plan"]),
        metadata: metadata(&[("gpu", "no")]),
        text: Some("A1".into()),
    };
    assert_eq!(found(s, &everything).await, ["a1"]);
    let no_type = AgentFilter { agent_type: Some(String::new()), ..any() };
    assert_eq!(found(s, &no_type).await, [""; 0], "an empty type is a type");
    // What an update takes away is not found any more.
    let fewer = AgentUpdate {
        capabilities: Some(vec![]),
        metadata: Some(BTreeMap::new()),
        now: at(9),
        ..AgentUpdate::default()
    };
    s.agent_update(&t, &agent("a1"), fewer).await.unwrap();
    assert_eq!(found(s, &all(&["files.hash"])).await, ["a2"]);
    assert_eq!(found(s, &AgentFilter { metadata: metadata(&[("tier", "1")]), ..any() }).await, ["a2"]);
}

/// META-9: id, name and description, and nothing else.
pub async fn meta_9_text_is_found_in_any_case(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let mut one = spec("alpha-1");
    one.name = "Größter PLANER".into();
    one.description = "100% of it_all".into();
    one.location = "hidden".into();
    let mut two = spec("beta");
    two.description = "ALPHABET".into();
    for spec in [one, two] {
        c.store.agent_register(&t, Registration::new(spec, credential("key:1"), at(1))).await.unwrap();
    }
    c.turn().await;
    let text = |text: &str| AgentFilter { text: Some(text.into()), ..AgentFilter::default() };
    let s = &*c.store;
    assert_eq!(found(s, &text("ALPHA")).await, ["alpha-1", "beta"]);
    assert_eq!(found(s, &text("alpha-")).await, ["alpha-1"]);
    assert_eq!(found(s, &text("GRÖẞTER")).await, ["alpha-1"], "beyond ASCII");
    assert_eq!(found(s, &text("0% OF")).await, ["alpha-1"]);
    assert_eq!(found(s, &text("t_a")).await, ["alpha-1"], "no character stands for another");
    assert_eq!(found(s, &text("t%a")).await, [""; 0]);
    assert_eq!(found(s, &text("hidden")).await, [""; 0], "only id, name, description");
    assert_eq!(found(s, &text("")).await, ["alpha-1", "beta"]);
}

/// META-21.
pub async fn meta_21_agents_are_paged_without_doubles_while_others_come_and_go(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    for n in 0..20 {
        register(&*c.store, &t, &format!("w{n:02}"), "key:1", n).await;
    }
    let mut seen: Vec<String> = Vec::new();
    let mut after: Option<AgentId> = None;
    loop {
        c.turn().await;
        let page = c.store.agent_list(&t, &AgentFilter::default(), after.as_ref(), 7).await.unwrap();
        let last = page.len() < 7;
        seen.extend(ids(&page).into_iter().map(str::to_owned));
        // One that was seen goes: the very place where the next page begins, or another. One comes before that place.
        let gone = page.iter().rev().nth(seen.len() % 2).map(|row| row.spec.id.clone());
        after = page.into_iter().last().map(|row| row.spec.id);
        c.store.agent_remove(&t, gone.as_ref().unwrap(), removal(Inbox::Drop, 50)).await.unwrap();
        register(&*c.store, &t, &format!("a{}", seen.len()), "key:1", 51).await;
        if last {
            break;
        }
    }
    assert_eq!(seen, (0..20).map(|n| format!("w{n:02}")).collect::<Vec<_>>());
}

/// META-21: no request's cost grows with a caller's number.
pub async fn meta_21_a_limit_outside_its_range_is_refused(c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    for limit in [0, ROWS_MAX + 1, u32::MAX] {
        refused(c.store.agent_list(&t, &AgentFilter::default(), None, limit).await, ErrorCode::InvalidArgument);
        refused(c.store.tenant_list(None, limit).await, ErrorCode::InvalidArgument);
        refused(c.store.subscription_list_by_id(&t, None, limit).await, ErrorCode::InvalidArgument);
        refused(c.store.audit_list(&t, None, limit).await, ErrorCode::InvalidArgument);
    }
    assert!(c.store.agent_list(&t, &AgentFilter::default(), None, ROWS_MAX).await.unwrap().is_empty());
}
