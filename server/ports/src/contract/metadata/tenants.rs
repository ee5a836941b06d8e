//! Tenants: the walls.

use acb_types::ErrorCode;

use super::{Context, fixture::*};
use crate::metadata::{AgentFilter, AuditEntry, Inbox, NewAgentSecret, Registration, Rotation, SubscriptionSet};

fn entry() -> AuditEntry {
    AuditEntry {
        at: at(1),
        node: "n1".into(),
        actor: "planner".into(),
        action: "agent.register".into(),
        target: "planner".into(),
        outcome: "ok".into(),
        details: String::new(),
        request_id: "r1".into(),
    }
}

/// META-1: everything that has an id exists in two tenants under the same id, and ends in one only.
pub async fn meta_1_tenants_share_nothing(mut c: Context) {
    let (a, b) = (make_tenant(&*c.store, "a").await, make_tenant(&*c.store, "b").await);
    let secret = |n| NewAgentSecret { hash: format!("argon {n}"), roles: vec![], now: at(n) };
    for (n, t) in [(1, &a), (2, &b)] {
        let mut spec = spec("planner");
        spec.name = t.to_string();
        // The same id under different credentials: each tenant has its own holder.
        let by = credential(&format!("key:{t}"));
        let made = c.store.agent_register(t, Registration::new(spec, by, at(n))).await.unwrap();
        assert_eq!((made.agent.incarnation.0, made.agent.revision), (1, 1), "{t} counts for itself");
        let made = c.store.subscription_create(t, full_subscription("work", n)).await.unwrap();
        assert_eq!((made.row.id.0, made.existed), (3, false), "{t} numbers for itself");
        c.store.enrolment_key_create(t, key("k1", n)).await.unwrap();
        c.store.agent_secret_set(t, &agent("planner"), secret(n)).await.unwrap();
        c.store.family_create(t, family("f1", "key:k1", n)).await.unwrap();
        let row = c.store.audit_append(t, entry()).await.unwrap();
        assert_eq!(row.id, 1, "{t} chains for itself");
    }
    c.turn().await;
    // All of it goes in `a`.
    let gone = c.store.agent_remove(&a, &agent("planner"), removal(Inbox::Drop, 3)).await.unwrap();
    assert_eq!(gone.agent.unwrap().spec.name, "a");
    c.store.subscription_delete(&a, &name("work")).await.unwrap();
    assert_eq!(c.store.enrolment_key_revoke(&a, "k1", at(3)).await.unwrap(), ["f1"]);
    c.store.agent_secret_set(&a, &agent("planner"), secret(3)).await.unwrap();
    c.turn().await;
    // None of it in `b`.
    let kept = c.store.agent_get(&b, &agent("planner")).await.unwrap().unwrap();
    assert_eq!((kept.spec.name.as_str(), kept.revision), ("b", 1));
    assert_eq!(c.store.tenant_revision(&b).await.unwrap(), 1);
    assert_eq!(c.store.subscription_list_all(&b).await.unwrap().len(), 3);
    assert_eq!(c.store.enrolment_key_get(&b, "k1").await.unwrap(), Some(key("k1", 2)));
    assert_eq!(c.store.agent_secret_get(&b, &agent("planner")).await.unwrap().unwrap().version, 1);
    assert!(c.store.family_list_revoked(&b, at(3), None, 10).await.unwrap().is_empty());
    let rotated = c.store.family_rotate(&b, "f1", rotation(0, 1, 4)).await.unwrap();
    assert!(matches!(rotated, Rotation::Rotated(_)), "{rotated:?}");
    assert_eq!(c.store.audit_list(&b, None, 10).await.unwrap().len(), 1);
    assert_eq!(c.store.agent_list(&a, &AgentFilter::default(), None, 10).await.unwrap(), []);
    assert_eq!(c.store.subscription_list(&a, SubscriptionSet::All, None, 10).await.unwrap(), []);
}

/// META-3: a second creation is refused and changes nothing.
pub async fn meta_3_a_tenant_is_made_once(mut c: Context) {
    let a = tenant("a");
    let made = c.store.tenant_create(&a, "Äpfel", at(1)).await.unwrap();
    c.turn().await;
    refused(c.store.tenant_create(&a, "again", at(2)).await, ErrorCode::TenantExists);
    assert_eq!(c.store.tenant_get(&a).await.unwrap(), Some(made.clone()));
    assert_eq!((made.name.as_str(), made.created_at), ("Äpfel", at(1)));
    assert_eq!(c.store.tenant_revision(&a).await.unwrap(), 0);
    for id in ["c", "b", "b-1", "b1"] {
        make_tenant(&*c.store, id).await;
    }
    c.turn().await;
    let ids = |rows: Vec<crate::metadata::TenantRow>| rows.into_iter().map(|t| t.id.to_string()).collect::<Vec<_>>();
    assert_eq!(ids(c.store.tenant_list(None, 3).await.unwrap()), ["a", "b", "b-1"]);
    assert_eq!(ids(c.store.tenant_list(Some(&tenant("b-1")), 3).await.unwrap()), ["b1", "c"]);
}

/// META-22.
pub async fn meta_22_an_unknown_tenant_refuses_writes_and_shows_nothing(c: Context) {
    let (s, t) = (&c.store, tenant("nobody"));
    let none = ErrorCode::TenantNotFound;
    let secret = NewAgentSecret { hash: "x".into(), roles: vec![], now: at(1) };
    let p = agent("planner");
    refused(s.agent_register(&t, Registration::new(spec("planner"), credential("key:1"), at(1))).await, none);
    refused(s.agent_update(&t, &p, rename("x", 1)).await, none);
    refused(s.agent_remove(&t, &p, removal(Inbox::Drop, 1)).await, none);
    refused(s.subscription_create(&t, full_subscription("work", 1)).await, none);
    refused(s.subscription_delete(&t, &name("work")).await, none);
    refused(s.enrolment_key_create(&t, key("k1", 1)).await, none);
    refused(s.enrolment_key_revoke(&t, "k1", at(1)).await, none);
    refused(s.agent_secret_set(&t, &p, secret).await, none);
    refused(s.family_create(&t, family("f1", "key:1", 1)).await, none);
    refused(s.family_rotate(&t, "f1", rotation(0, 1, 1)).await, none);
    refused(s.family_revoke(&t, "f1", at(1)).await, none);
    refused(s.family_revoke_credential(&t, &credential("key:1"), at(1)).await, none);
    refused(s.family_forget(&t, at(1)).await, none);
    refused(s.audit_append(&t, entry()).await, none);
    refused(s.tenant_revision(&t).await, none);
    assert_eq!(s.tenant_get(&t).await.unwrap(), None);
    assert_eq!(s.agent_get(&t, &p).await.unwrap(), None);
    assert_eq!(s.agent_list(&t, &AgentFilter::default(), None, 10).await.unwrap(), []);
    assert_eq!(s.subscription_get(&t, &name("work")).await.unwrap(), None);
    assert_eq!(s.subscription_list_all(&t).await.unwrap(), []);
    assert_eq!(s.enrolment_key_get(&t, "k1").await.unwrap(), None);
    assert_eq!(s.enrolment_key_list(&t, None, 10).await.unwrap(), []);
    assert_eq!(s.agent_secret_get(&t, &p).await.unwrap(), None);
    assert_eq!(s.family_get(&t, "f1").await.unwrap(), None);
    assert!(s.family_list_revoked(&t, at(1), None, 10).await.unwrap().is_empty());
    assert_eq!(s.audit_list(&t, None, 10).await.unwrap(), []);
}

/// META-19, over reopening too: a broken chain would show.
pub async fn meta_19_audit_rows_are_chained(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let mut written = Vec::new();
    for n in 0..5 {
        let entry = AuditEntry { at: at(n), details: format!("{{\"n\":{n}}}"), ..entry() };
        written.push(c.store.audit_append(&t, entry).await.unwrap());
        c.turn().await;
    }
    let read = c.store.audit_list(&t, None, 100).await.unwrap();
    assert_eq!(read, written);
    for (i, row) in read.iter().enumerate() {
        assert!(row.follows(i.checked_sub(1).map(|before| &read[before])), "{row:?}");
    }
    let mut forged = read[2].clone();
    forged.entry.actor.push('x');
    assert!(!forged.follows(Some(&read[1])));
    assert_eq!(c.store.audit_list(&t, Some(3), 1).await.unwrap(), written[3..4]);
}
