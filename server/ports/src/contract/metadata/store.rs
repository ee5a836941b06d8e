//! The store as a whole: settings, refusals, closing.

use std::{collections::HashSet, sync::Arc};

use acb_types::ErrorCode;

use super::{Context, fixture::*};
use crate::metadata::{AgentFilter, Registration};

/// META-20.
pub async fn meta_20_of_16_concurrent_puts_if_absent_one_puts(mut c: Context) {
    assert_eq!(c.store.setting_get("instance_id").await.unwrap(), None);
    let askers: Vec<_> = (0..16)
        .map(|n| {
            let store = Arc::clone(&c.store);
            tokio::spawn(async move { store.setting_put_if_absent("instance_id", &format!("i{n}")).await.unwrap() })
        })
        .collect();
    let mut answers = HashSet::new();
    for asker in askers {
        answers.insert(asker.await.unwrap());
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    c.turn().await;
    let kept = c.store.setting_get("instance_id").await.unwrap().unwrap();
    assert!(answers.contains(&kept));
    c.store.setting_put("instance_id", "other").await.unwrap();
    c.store.setting_put("format", "").await.unwrap();
    c.turn().await;
    assert_eq!(c.store.setting_get("instance_id").await.unwrap().as_deref(), Some("other"));
    assert_eq!(c.store.setting_get("format").await.unwrap().as_deref(), Some(""));
}

/// META-23, and META-3 with it.
pub async fn meta_23_refused_writes_change_nothing_and_heal(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let made = register(&*c.store, &t, "w1", "key:1", 1).await.agent;
    // Large, so that a full store cannot squeeze it in somewhere.
    let large = || {
        let mut spec = full_spec("w2");
        spec.description = "x".repeat(100_000);
        Registration::new(spec, credential("key:1"), at(2))
    };
    for code in [ErrorCode::StorageFull, ErrorCode::StorageReadOnly] {
        if !c.harness.refuse_writes(Some(code)).await {
            println!("skipped: this harness cannot make writes fail with {code}");
            continue;
        }
        refused(c.store.agent_register(&t, large()).await, code);
        refused(c.store.agent_register(&t, large()).await, code);
        assert_eq!(c.store.agent_get(&t, &agent("w1")).await.unwrap(), Some(made.clone()), "reads go on");
        assert_eq!(c.store.agent_get(&t, &agent("w2")).await.unwrap(), None);
        assert_eq!(c.store.subscription_list_all(&t).await.unwrap().len(), 2, "no inbox was left behind");
        assert_eq!(c.store.tenant_revision(&t).await.unwrap(), 1);
        assert!(c.harness.refuse_writes(None).await);
    }
    let healed = c.store.agent_register(&t, large()).await.unwrap();
    assert_eq!(healed.agent.revision, 2);
    c.turn().await;
    assert_eq!(c.store.agent_get(&t, &agent("w2")).await.unwrap(), Some(healed.agent));
}

/// A store that was closed answers `unavailable`, and its data is there for the next.
pub async fn meta_2_a_closed_store_says_so(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let closed = Arc::clone(&c.store);
    closed.close().await.unwrap();
    closed.close().await.unwrap();
    refused(closed.tenant_get(&t).await, ErrorCode::Unavailable);
    refused(closed.setting_put("k", "v").await, ErrorCode::Unavailable);
    refused(closed.agent_list(&t, &AgentFilter::default(), None, 1).await, ErrorCode::Unavailable);
    c.store = c.harness.open().await;
    assert!(c.store.tenant_get(&t).await.unwrap().is_some());
}
