//! Changes in order of revisions, and the signal that says there are new ones.

use std::{sync::Arc, time::Duration};

use acb_types::{ErrorCode, limits};
use tokio::time::timeout;

use super::{Context, fixture::*};
use crate::metadata::{
    Change, Changed, ContextState, Inbox, MemberMove, MemberWay, MetadataStore, NewGroup, Trim, WriteCondition,
};

/// How long a wake may take before it counts as never.
const SOON: Duration = Duration::from_secs(20);

async fn all(store: &dyn MetadataStore, t: &acb_types::TenantId, after: u64) -> Vec<Change> {
    let page = store.change_list(t, after, 1000).await.unwrap();
    assert_eq!(page.revision, store.tenant_revision(t).await.unwrap());
    page.changes
}

/// META-32 and META-25: agents, contexts and groups raise one number, each by one, and each leaves one change that shows
/// it before and after.
pub async fn meta_32_each_revision_leaves_one_change(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let agent_row = register(&*c.store, &t, "w1", "key:1", 1).await.agent;
    let made = make_context(&*c.store, &t, new_context(1, 1)).await;
    let new = NewGroup { name: group("blue"), description: "x".into(), by: agent("admin"), now: at(2) };
    c.store.group_create(&t, new.clone()).await.unwrap();
    c.store.group_create(&t, new).await.unwrap();
    c.store.group_members_add(&t, &group("blue"), &[agent("w2"), agent("w1")], at(3)).await.unwrap();
    let updated = update(&*c.store, &t, &made, "second", 4).await;
    c.store.agent_remove(&t, &agent("w1"), removal(Inbox::Drop, 5)).await.unwrap();
    c.store.group_members_remove(&t, &group("blue"), &[agent("w1"), agent("w9")]).await.unwrap();
    let marker = c.store.context_remove(&t, &made.id, removing(WriteCondition::IfRev(updated.rev), 6)).await.unwrap();
    let marker = marker.unwrap();
    c.store.group_delete(&t, &group("blue")).await.unwrap();
    c.turn().await;
    let moved = |id: &str, way| MemberMove { agent: agent(id), way };
    let blue = |moves: Vec<MemberMove>| Changed::Group { name: group("blue"), moves: moves.into() };
    let row = |row: &crate::metadata::ContextRow| Some(Arc::new(unread(row)));
    let expected = [
        Changed::Agent { id: agent("w1"), row: None },
        Changed::Context { before: None, after: Arc::new(made.clone()) },
        blue(vec![]),
        blue(vec![moved("w1", MemberWay::Joined), moved("w2", MemberWay::Joined)]),
        Changed::Context { before: row(&made), after: Arc::new(updated.clone()) },
        Changed::Agent { id: agent("w1"), row: None },
        blue(vec![moved("w1", MemberWay::Left)]),
        Changed::Context { before: row(&updated), after: Arc::new(marker) },
        blue(vec![moved("w2", MemberWay::Left)]),
    ];
    let changes = all(&*c.store, &t, 0).await;
    let expected: Vec<_> = (1..).zip(expected).map(|(revision, what)| Change { revision, what }).collect();
    assert_eq!(changes, expected);
    assert_eq!(agent_row.revision, 1);
    // From anywhere, in pages.
    assert_eq!(all(&*c.store, &t, 6).await, expected[6..]);
    assert_eq!(c.store.change_list(&t, 2, 3).await.unwrap().changes, expected[2..5]);
    assert!(all(&*c.store, &t, 9).await.is_empty());
    // An agent's newest change shows it.
    let again = register(&*c.store, &t, "w1", "key:1", 9).await.agent;
    let last = all(&*c.store, &t, 9).await;
    assert_eq!(last[0].what, Changed::Agent { id: agent("w1"), row: Some(Arc::new(again)) });
}

/// META-32: a change whose context is no longer kept as it was then says so, and what never changes of it.
pub async fn meta_32_a_change_says_when_what_it_shows_is_no_longer_kept(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let made = make_context(&*c.store, &t, new_context(1, 0)).await;
    let mut row = made.clone();
    for n in 0..u64::from(limits::CONTEXT_HISTORY) {
        row = update(&*c.store, &t, &row, "x", 1 + n).await;
    }
    c.turn().await;
    let changes = all(&*c.store, &t, 0).await;
    assert_eq!(changes.len(), 65);
    for lost in &changes[..2] {
        // The first is gone, and with it what the second had before it.
        let Changed::ContextLost { id, facts: Some(facts) } = &lost.what else { panic!("{lost:?}") };
        assert_eq!((*id, facts.context_type.as_str(), &facts.owner), (made.id, "note", &agent("maker")));
    }
    assert!(matches!(&changes[2].what, Changed::Context { before: Some(b), .. } if b.rev == 2), "{:?}", changes[2]);
    let removal = removing(WriteCondition::IfRev(row.rev), 100);
    c.store.context_remove(&t, &made.id, removal).await.unwrap();
    c.store.change_trim(&t, Trim { changes_up_to: 0, markers_before: at(200), limit: 9 }).await.unwrap();
    c.turn().await;
    let changes = all(&*c.store, &t, 60).await;
    assert!(matches!(&changes[0].what, Changed::ContextLost { facts: None, .. }), "{:?}", changes[0]);
}

/// META-33, of changes.
pub async fn meta_33_trimming_forgets_the_oldest_changes_and_says_where_they_begin(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    make_group(&*c.store, &t, "blue", &["w1"]).await;
    for n in 1..=8 {
        make_context(&*c.store, &t, new_context(n, 0)).await;
    }
    let trim = |up_to, limit| Trim { changes_up_to: up_to, markers_before: at(0), limit };
    assert_eq!(c.store.change_trim(&t, trim(6, 4)).await.unwrap().changes, 4);
    c.turn().await;
    let page = c.store.change_list(&t, 0, 100).await.unwrap();
    assert_eq!((page.oldest, page.changes[0].revision, page.revision), (4, 5, 10));
    assert_eq!(c.store.change_trim(&t, trim(6, 4)).await.unwrap().changes, 2);
    assert_eq!(c.store.change_trim(&t, trim(6, 4)).await.unwrap().changes, 0);
    assert_eq!(c.store.change_trim(&t, trim(2, 4)).await.unwrap().changes, 0);
    c.turn().await;
    let page = c.store.change_list(&t, 8, 100).await.unwrap();
    assert_eq!((page.oldest, page.changes.len()), (6, 2));
    // What is there does not depend on it, memberships of then do.
    assert!(c.store.context_get(&t, &context(1)).await.unwrap().is_some());
    assert_eq!(c.store.memberships(&t, &agent("w1"), Some(6)).await.unwrap().groups, [group("blue")].into());
    refused(c.store.memberships(&t, &agent("w1"), Some(5)).await, ErrorCode::RevisionGap);
    // All of them, and no further than the present.
    assert_eq!(c.store.change_trim(&t, trim(u64::MAX >> 1, 100)).await.unwrap().changes, 4);
    let page = c.store.change_list(&t, 10, 100).await.unwrap();
    assert_eq!((page.oldest, page.revision, page.changes.len()), (10, 10, 0));
    make_context(&*c.store, &t, new_context(9, 0)).await;
    assert_eq!(c.store.change_list(&t, 10, 100).await.unwrap().changes[0].revision, 11);
}

/// META-37: what is committed wakes who waits, of that tenant; and the wake comes after the commit.
pub async fn meta_37_a_raised_revision_wakes_who_waits(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let other = make_tenant(&*c.store, "b").await;
    c.turn().await;
    let mut signal = c.store.revision_signal(&t);
    let mut others = c.store.revision_signal(&other);
    others.borrow_and_update();
    let mut reached = 0;
    for n in 1..=20 {
        let (store, tenant) = (Arc::clone(&c.store), t.clone());
        tokio::spawn(async move { store.context_create(&tenant, new_context(n, 0)).await });
        while reached < n {
            timeout(SOON, signal.changed()).await.expect("no wake").unwrap();
            let now = c.store.tenant_revision(&t).await.unwrap();
            assert!(*signal.borrow_and_update() <= now, "a wake came before its commit");
            reached = now;
        }
    }
    // What changes nothing and what is refused wakes nobody.
    refused(c.store.context_update(&t, &context(1), write(99, "no", 1)).await, ErrorCode::RevisionConflict);
    c.store.tenant_get(&t).await.unwrap();
    assert!(!others.has_changed().unwrap(), "another tenant's change woke this one");
    // A register, a group and an expiry do.
    signal.borrow_and_update();
    register(&*c.store, &t, "w1", "key:1", 1).await;
    timeout(SOON, signal.changed()).await.expect("no wake of an agent").unwrap();
    make_group(&*c.store, &t, "blue", &["w1"]).await;
    timeout(SOON, signal.changed()).await.expect("no wake of a group").unwrap();
}

/// META-32 and META-25 under 16 writers: no hole, no double, and each change shows the revision that it made.
pub async fn meta_32_changes_of_16_writers_have_no_hole(mut c: Context) {
    const EACH: u64 = 12;
    let t = make_tenant(&*c.store, "a").await;
    let writers: Vec<_> = (0..16)
        .map(|w| {
            let (store, t) = (Arc::clone(&c.store), t.clone());
            tokio::spawn(async move {
                let mut row = make_context(&*store, &t, new_context(w, 0)).await;
                for n in 1..EACH {
                    row = update(&*store, &t, &row, &format!("{w}/{n}"), n).await;
                }
            })
        })
        .collect();
    let (mut seen, mut last) = (Vec::new(), 0);
    while seen.len() < 16 * EACH as usize {
        let page = c.store.change_list(&t, last, 7).await.unwrap();
        for change in page.changes {
            assert_eq!(change.revision, last + 1);
            last = change.revision;
            seen.push(change);
        }
        tokio::task::yield_now().await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    c.turn().await;
    assert_eq!(all(&*c.store, &t, 0).await, seen, "the same afterwards as while it was written");
    for change in seen {
        let Changed::Context { before, after } = change.what else { panic!("{change:?}") };
        assert_eq!(after.rev, change.revision);
        assert_eq!(after.state, ContextState::Live);
        assert_eq!(before.is_none(), after.created_rev == change.revision);
        assert!(before.is_none_or(|before| before.rev < after.rev));
    }
}
