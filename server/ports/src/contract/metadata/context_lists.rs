//! Contexts, many at a time.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use acb_types::{ContextId, ErrorCode, limits};

use super::{Context, fixture::*};
use crate::metadata::{
    ContentPlace, ContextFilter, ContextRow, ContextScope, ContextSpec, ListedAt, MetadataStore, NewContext, Payloads,
    ShareAccess, Viewer, WriteCondition,
};

async fn ids(
    store: &dyn MetadataStore,
    t: &acb_types::TenantId,
    filter: &ContextFilter,
    at: ListedAt,
) -> Vec<ContextId> {
    let rows = store.context_list(t, filter, at, Payloads::LeaveOut, None, 1000).await.unwrap();
    rows.into_iter().map(|row| row.id).collect()
}

fn numbers(of: &[u64]) -> Vec<ContextId> {
    of.iter().map(|n| context(*n)).collect()
}

/// META-31: each condition by itself, together, and none.
pub async fn meta_31_all_conditions_of_a_filter_must_hold(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    make_group(&*c.store, &t, "blue", &["w3"]).await;
    let spec = |key: &str, kind: &str, description: &str, labels: &[&str]| ContextSpec {
        key: (!key.is_empty()).then(|| key.parse().unwrap()),
        description: description.into(),
        labels: labels.iter().map(|l| (*l).to_owned()).collect(),
        ..ContextSpec::new(kind)
    };
    let shared = shared_with(&[("w1", ShareAccess::Read), ("w2", ShareAccess::Write)]);
    let specs = [
        spec("plans/alpha", "plan", "the Ärmel", &["draft", "big"]),
        spec("plans/beta", "plan", "", &["draft"]),
        spec("plansx", "note", "of plans", &[]),
        ContextSpec { scope: ContextScope::Public, ..spec("notes/1", "note", "", &["big"]) },
        ContextSpec { labels: ["draft".to_owned()].into(), ..shared },
        ContextSpec { scope: ContextScope::Group, groups: [group("blue")].into(), ..spec("", "plan", "", &[]) },
        ContextSpec { ttl: Some(Duration::from_millis(10)), ..spec("short", "plan", "", &["draft"]) },
        spec("gone", "plan", "", &["draft"]),
    ];
    for (n, spec) in (1..).zip(specs) {
        let owner = agent(if n == 2 { "w1" } else { "maker" });
        let made = make_context(&*c.store, &t, NewContext { spec, owner, ..new_context(n, 0) }).await;
        if n == 8 {
            c.store.context_remove(&t, &made.id, removing(WriteCondition::IfRev(made.rev), 1)).await.unwrap();
        }
    }
    c.turn().await;
    let none = ContextFilter::default;
    let viewer = |id: &str, groups: &[&str]| {
        let groups: BTreeSet<_> = groups.iter().map(|g| group(g)).collect();
        Some(Viewer { agent: agent(id), groups })
    };
    let labels = |of: &[&str]| of.iter().map(|l| (*l).to_owned()).collect::<BTreeSet<_>>();
    let cases: Vec<(ContextFilter, &[u64])> = vec![
        (none(), &[1, 2, 3, 4, 5, 6]),
        (ContextFilter { id: Some(context(3)), ..none() }, &[3]),
        (ContextFilter { id: Some(context(8)), ..none() }, &[]),
        (ContextFilter { key: Some("plans/beta".parse().unwrap()), ..none() }, &[2]),
        (ContextFilter { key_prefix: "plans/".into(), ..none() }, &[1, 2]),
        (ContextFilter { key_prefix: "plans".into(), ..none() }, &[1, 2, 3]),
        (ContextFilter { context_type: Some("note".into()), ..none() }, &[3, 4, 5]),
        (ContextFilter { owner: Some(agent("w1")), ..none() }, &[2]),
        (ContextFilter { scope: Some(ContextScope::Private), ..none() }, &[1, 2, 3]),
        (ContextFilter { scope: Some(ContextScope::Public), ..none() }, &[4]),
        (ContextFilter { labels: labels(&["draft"]), ..none() }, &[1, 2, 5]),
        (ContextFilter { labels: labels(&["draft", "big"]), ..none() }, &[1]),
        (ContextFilter { labels: labels(&["draf"]), ..none() }, &[]),
        (ContextFilter { text: Some("PLANS".into()), ..none() }, &[1, 2, 3]),
        (ContextFilter { text: Some("äRMEL".into()), ..none() }, &[1]),
        (ContextFilter { text: Some("%".into()), ..none() }, &[]),
        (ContextFilter { group: Some(group("blue")), ..none() }, &[6]),
        (ContextFilter { viewer: viewer("maker", &[]), ..none() }, &[1, 3, 4, 5, 6]),
        (ContextFilter { viewer: viewer("w1", &[]), ..none() }, &[2, 4, 5]),
        (ContextFilter { viewer: viewer("w2", &[]), ..none() }, &[4, 5]),
        (ContextFilter { viewer: viewer("w3", &["blue"]), ..none() }, &[4, 6]),
        (ContextFilter { viewer: viewer("w4", &["red"]), ..none() }, &[4]),
        (ContextFilter { viewer: viewer("w1", &[]), labels: labels(&["draft"]), ..none() }, &[2, 5]),
        (ContextFilter { key_prefix: "plans/".into(), owner: Some(agent("maker")), ..none() }, &[1]),
    ];
    let revision = c.store.tenant_revision(&t).await.unwrap();
    for (filter, expected) in cases {
        assert_eq!(ids(&*c.store, &t, &filter, ListedAt::Now(at(10))).await, numbers(expected), "{filter:?}");
        let mut then = numbers(expected);
        // As of a revision, what is over and has no marker yet is there: number 7.
        let seven = ContextFilter { id: filter.id, ..filter.clone() };
        if ids(&*c.store, &t, &seven, ListedAt::Now(at(9))).await.contains(&context(7)) {
            then.push(context(7));
        }
        assert_eq!(ids(&*c.store, &t, &filter, ListedAt::Revision(revision)).await, then, "{filter:?}");
    }
}

/// META-31: lists follow what updates say.
pub async fn meta_31_a_list_shows_what_the_last_update_said(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    make_group(&*c.store, &t, "blue", &[]).await;
    let spec = ContextSpec { labels: ["old".to_owned()].into(), ..shared_with(&[("w1", ShareAccess::Read)]) };
    let made = make_context(&*c.store, &t, NewContext { spec, ..new_context(1, 0) }).await;
    let mut write = write(made.rev, "new", 1);
    write.change.labels = Some(["new".to_owned()].into());
    write.change.scope = Some(ContextScope::Group);
    write.change.groups = Some([group("blue")].into());
    write.change.description = Some("Nadel".into());
    let updated = c.store.context_update(&t, &made.id, write).await.unwrap().row;
    c.turn().await;
    let seen = |id: &str, groups: &[&str]| ContextFilter {
        viewer: Some(Viewer { agent: agent(id), groups: groups.iter().map(|g| group(g)).collect() }),
        ..ContextFilter::default()
    };
    let label = |text: &str| ContextFilter { labels: [text.to_owned()].into(), ..ContextFilter::default() };
    let now = ListedAt::Now(at(2));
    assert!(ids(&*c.store, &t, &seen("w1", &[]), now).await.is_empty());
    assert_eq!(ids(&*c.store, &t, &seen("w1", &["blue"]), now).await, [made.id]);
    assert!(ids(&*c.store, &t, &label("old"), now).await.is_empty());
    assert_eq!(ids(&*c.store, &t, &label("new"), now).await, [made.id]);
    let text = ContextFilter { text: Some("nadel".into()), ..ContextFilter::default() };
    let rows = c.store.context_list(&t, &text, now, Payloads::Read, None, 9).await.unwrap();
    assert_eq!(rows, std::slice::from_ref(&updated));
    let rows = c.store.context_list(&t, &text, now, Payloads::LeaveOut, None, 9).await.unwrap();
    assert_eq!(rows[0].content.place, ContentPlace::Unread);
    // And as it was before.
    let then = ListedAt::Revision(made.rev);
    assert_eq!(ids(&*c.store, &t, &seen("w1", &[]), then).await, [made.id]);
    assert_eq!(ids(&*c.store, &t, &label("old"), then).await, [made.id]);
    assert!(ids(&*c.store, &t, &text, then).await.is_empty());
    let rows = c.store.context_list(&t, &label("old"), then, Payloads::Read, None, 9).await.unwrap();
    assert_eq!(rows, [made]);
}

/// META-31: what was there at a revision, after much was written, made and removed since.
pub async fn meta_31_a_list_at_a_revision_shows_what_was_there_then(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let mut rows = Vec::new();
    for n in 1..=5 {
        rows.push(make_context(&*c.store, &t, new_context(n, 0)).await);
    }
    let then = c.store.tenant_revision(&t).await.unwrap();
    let of = |store: Arc<dyn MetadataStore>, at: u64| {
        let t = t.clone();
        async move {
            let filter = ContextFilter::default();
            store.context_list(&t, &filter, ListedAt::Revision(at), Payloads::Read, None, 1000).await
        }
    };
    let expected = rows.clone();
    update(&*c.store, &t, &rows[0], "changed", 1).await;
    c.store.context_remove(&t, &context(2), removing(WriteCondition::IfRev(rows[1].rev), 2)).await.unwrap();
    make_context(&*c.store, &t, new_context(6, 3)).await;
    c.turn().await;
    assert_eq!(of(Arc::clone(&c.store), then).await.unwrap(), expected);
    assert_eq!(of(Arc::clone(&c.store), 2).await.unwrap(), expected[..2]);
    assert!(of(Arc::clone(&c.store), 0).await.unwrap().is_empty());
    let now: Vec<_> = of(Arc::clone(&c.store), u64::MAX >> 1).await.unwrap().iter().map(|row| row.id).collect();
    assert_eq!(now, numbers(&[1, 3, 4, 5, 6]));
    // Once its revision of then is gone, the list cannot be had, and says so.
    let mut row = rows[2].clone();
    for n in 0..u64::from(limits::CONTEXT_HISTORY) {
        row = update(&*c.store, &t, &row, "again", 4 + n).await;
    }
    c.turn().await;
    refused(of(Arc::clone(&c.store), then).await, ErrorCode::RevisionGap);
    let elsewhere = ContextFilter { id: Some(context(4)), ..ContextFilter::default() };
    assert_eq!(ids(&*c.store, &t, &elsewhere, ListedAt::Revision(then)).await, [context(4)]);
}

/// META-21, of contexts.
pub async fn meta_21_contexts_are_paged_without_doubles_while_others_come_and_go(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let mut made: Vec<ContextRow> = Vec::new();
    for n in 0..20 {
        made.push(make_context(&*c.store, &t, new_context(n * 10, 0)).await);
    }
    let (mut seen, mut after) = (Vec::new(), None);
    for round in 0..20 {
        let filter = ContextFilter::default();
        let page = c.store.context_list(&t, &filter, ListedAt::Now(at(1)), Payloads::LeaveOut, after.as_ref(), 3).await;
        let page = page.unwrap();
        seen.extend(page.iter().map(|row| row.id));
        if page.len() < 3 {
            break;
        }
        after = page.last().map(|row| row.id);
        // One before and one after where the page ended; and one that was seen goes.
        make_context(&*c.store, &t, new_context(round + 1, 1)).await;
        let gone = &made[round as usize];
        c.store.context_remove(&t, &gone.id, removing(WriteCondition::IfRev(gone.rev), 1)).await.unwrap();
        c.turn().await;
    }
    let there_throughout: Vec<_> = made.iter().map(|row| row.id).collect();
    let doubles: BTreeSet<_> = seen.iter().collect();
    assert_eq!(doubles.len(), seen.len(), "{seen:?}");
    assert!(there_throughout.iter().all(|id| seen.contains(id)), "{seen:?}");
    for limit in [0, 1001] {
        let filter = ContextFilter::default();
        let page = c.store.context_list(&t, &filter, ListedAt::Now(at(1)), Payloads::Read, None, limit).await;
        refused(page, ErrorCode::InvalidArgument);
        refused(c.store.change_list(&t, 0, limit).await, ErrorCode::InvalidArgument);
        refused(c.store.context_history(&t, &context(0), None, limit).await, ErrorCode::InvalidArgument);
    }
}
