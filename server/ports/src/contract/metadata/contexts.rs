//! Contexts, one at a time: made, written, read, ended.

use std::{sync::Arc, time::Duration};

use acb_types::{ErrorCode, Sha256Digest, Timestamp, limits};

use super::{Context, fixture::*};
use crate::metadata::{
    ContentPlace, ContextChange, ContextRenewal, ContextScope, ContextSpec, ContextState, NewContext, RepeatKey,
    ShareAccess, Trim, WriteCondition,
};

/// META-24: nothing is lost or changed on the way, in both places of a payload.
pub async fn meta_24_a_context_is_kept_as_it_was_given(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    make_group(&*c.store, &t, "blue", &[]).await;
    let full = NewContext { spec: full_context_spec("plans/alpha"), ..new_context(1, 5) };
    let full = make_context(&*c.store, &t, full).await;
    let shared = NewContext {
        spec: shared_with(&[("w1", ShareAccess::Read), ("w2", ShareAccess::Write)]),
        content: blob(9),
        ..new_context(2, 6)
    };
    let shared = make_context(&*c.store, &t, shared).await;
    let empty = make_context(&*c.store, &t, NewContext { content: inline(b""), ..new_context(3, 7) }).await;
    assert_eq!((full.rev, full.created_rev, full.access_rev), (2, 2, 2), "the group took one");
    assert_eq!(full.expires_at, at(5 + 600_000));
    assert_eq!(full.spec, full_context_spec("plans/alpha"));
    assert_eq!(shared.expires_at, Timestamp::NONE);
    c.turn().await;
    for row in [full, shared, empty] {
        assert_eq!(c.store.context_get(&t, &row.id).await.unwrap(), Some(row));
    }
    assert_eq!(c.store.context_get(&t, &context(4)).await.unwrap(), None);
}

/// META-24.
pub async fn meta_24_making_it_again_finds_it_and_another_use_of_its_id_is_refused(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let keyed = |n, fingerprint: u8| {
        let spec = ContextSpec { key: Some("plans/alpha".parse().unwrap()), ..ContextSpec::new("plan") };
        NewContext { spec, fingerprint: Sha256Digest([fingerprint; 32]), ..new_context(n, 1) }
    };
    let made = make_context(&*c.store, &t, keyed(1, 7)).await;
    let updated = update(&*c.store, &t, &made, "later", 2).await;
    c.turn().await;
    let again = c.store.context_create(&t, keyed(1, 7)).await.unwrap();
    assert_eq!((again.existed, again.row), (true, unread(&updated)), "as it is now, however often it was updated");
    refused(c.store.context_create(&t, keyed(1, 8)).await, ErrorCode::ContextExists);
    let stranger = NewContext { owner: agent("other"), ..keyed(1, 7) };
    refused(c.store.context_create(&t, stranger).await, ErrorCode::ContextExists);
    refused(c.store.context_create(&t, keyed(2, 7)).await, ErrorCode::ContextExists);
    // A marker keeps its id and gives its key back.
    let marker =
        c.store.context_remove(&t, &context(1), removing(WriteCondition::IfRev(updated.rev), 3)).await.unwrap();
    c.turn().await;
    refused(c.store.context_create(&t, keyed(1, 7)).await, ErrorCode::ContextExists);
    let next = make_context(&*c.store, &t, keyed(2, 7)).await;
    assert_eq!(next.rev, marker.unwrap().rev + 1);
    assert_eq!(c.store.context_find(&t, &"plans/alpha".parse().unwrap(), None).await.unwrap(), Some(context(2)));
}

/// META-24 and META-30: a key whose context is over is free at once, and the one that had it gets its marker first.
pub async fn meta_24_a_key_is_free_as_soon_as_its_context_is_over(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let keyed = |n, at_ms| {
        let ttl = Some(Duration::from_millis(10));
        let spec = ContextSpec { key: Some("lock".parse().unwrap()), ttl, ..ContextSpec::new("lock") };
        NewContext { spec, ..new_context(n, at_ms) }
    };
    make_context(&*c.store, &t, keyed(1, 0)).await;
    refused(c.store.context_create(&t, keyed(2, 9)).await, ErrorCode::ContextExists);
    assert_eq!(c.store.tenant_revision(&t).await.unwrap(), 1);
    c.turn().await;
    let next = make_context(&*c.store, &t, keyed(2, 10)).await;
    assert_eq!(next.rev, 3);
    let marker = c.store.context_get(&t, &context(1)).await.unwrap().unwrap();
    assert_eq!((marker.state, marker.rev), (ContextState::Expired, 2));
}

/// META-24: of many who want one key, one gets it.
pub async fn meta_24_of_16_concurrent_creations_of_a_key_one_makes_it(c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let askers: Vec<_> = (0..16)
        .map(|n| {
            let (store, t) = (Arc::clone(&c.store), t.clone());
            let spec = ContextSpec { key: Some("one".parse().unwrap()), ..ContextSpec::new("x") };
            tokio::spawn(async move { store.context_create(&t, NewContext { spec, ..new_context(n, 1) }).await })
        })
        .collect();
    let mut made = 0;
    for asker in askers {
        match asker.await.unwrap() {
            Ok(_) => made += 1,
            Err(e) => assert_eq!(e.code, ErrorCode::ContextExists),
        }
    }
    assert_eq!((made, c.store.tenant_revision(&t).await.unwrap()), (1, 1));
}

/// META-26.
pub async fn meta_26_a_write_happens_only_at_its_revision(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let made = make_context(&*c.store, &t, new_context(1, 0)).await;
    let second = update(&*c.store, &t, &made, "second", 1).await;
    c.turn().await;
    for stale in [0, made.rev, second.rev + 1, u64::MAX >> 1] {
        refused(c.store.context_update(&t, &made.id, write(stale, "no", 2)).await, ErrorCode::RevisionConflict);
        let removal = removing(WriteCondition::IfRev(stale), 2);
        refused(c.store.context_remove(&t, &made.id, removal).await, ErrorCode::RevisionConflict);
    }
    assert_eq!(c.store.context_get(&t, &made.id).await.unwrap(), Some(second.clone()));
    assert_eq!(c.store.tenant_revision(&t).await.unwrap(), second.rev);
    assert_eq!((second.updated_at, second.created_at, second.created_rev), (at(1), at(0), made.rev));
    refused(c.store.context_update(&t, &context(9), write(1, "no", 2)).await, ErrorCode::ContextNotFound);
}

/// META-26: what compare-and-set is for.
pub async fn meta_26_increments_of_16_writers_are_all_counted(c: Context) {
    const EACH: u64 = 12;
    let t = make_tenant(&*c.store, "a").await;
    let made = make_context(&*c.store, &t, NewContext { content: inline(b"0"), ..new_context(1, 0) }).await;
    let writers: Vec<_> = (0..16)
        .map(|_| {
            let (store, t, id) = (Arc::clone(&c.store), t.clone(), made.id);
            tokio::spawn(async move {
                let mut done = 0;
                while done < EACH {
                    let row = store.context_get(&t, &id).await.unwrap().unwrap();
                    let ContentPlace::Inline(bytes) = &row.content.place else { panic!("{row:?}") };
                    let n: u64 = std::str::from_utf8(bytes).unwrap().parse().unwrap();
                    match store.context_update(&t, &id, write(row.rev, &(n + 1).to_string(), 1)).await {
                        Ok(_) => done += 1,
                        Err(e) => assert_eq!(e.code, ErrorCode::RevisionConflict),
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let last = c.store.context_get(&t, &made.id).await.unwrap().unwrap();
    assert_eq!(last.content, inline((16 * EACH).to_string().as_bytes()));
    assert_eq!(last.rev, 1 + 16 * EACH);
    assert_eq!(last.spec.version, "0.1.192".parse().unwrap());
}

/// META-26: force overwrites whatever is there, and stops where somebody else decides who may see it.
pub async fn meta_26_force_overwrites_until_access_was_changed(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let made = make_context(&*c.store, &t, new_context(1, 0)).await;
    update(&*c.store, &t, &made, "second", 1).await;
    let force = WriteCondition::Force { access_rev: made.access_rev };
    let forced = c
        .store
        .context_update(&t, &made.id, {
            let mut w = write(0, "third", 2);
            w.condition = force;
            w
        })
        .await;
    let forced = forced.unwrap().row;
    assert_eq!((forced.access_rev, &forced.content), (made.access_rev, &inline(b"third")));
    let change = ContextChange { scope: Some(ContextScope::Public), ..ContextChange::default() };
    let public = c
        .store
        .context_update(&t, &made.id, {
            let mut w = write(forced.rev, "", 3);
            w.change = change;
            w
        })
        .await;
    let public = public.unwrap().row;
    assert_eq!(public.access_rev, public.rev);
    c.turn().await;
    let mut late = write(0, "late", 4);
    late.condition = force;
    refused(c.store.context_update(&t, &made.id, late).await, ErrorCode::RevisionConflict);
    refused(c.store.context_remove(&t, &made.id, removing(force, 4)).await, ErrorCode::RevisionConflict);
    let renewal = ContextRenewal { access_rev: made.access_rev, ttl: None, now: at(4) };
    refused(c.store.context_renew(&t, &made.id, renewal).await, ErrorCode::RevisionConflict);
}

/// META-26: fields that are not given stay, versions rise.
pub async fn meta_26_an_update_changes_what_is_given(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    make_group(&*c.store, &t, "blue", &[]).await;
    let made = make_context(&*c.store, &t, NewContext { spec: full_context_spec("k"), ..new_context(1, 0) }).await;
    let mut row = made.clone();
    let changes = [
        (ContextChange::default(), "1.2.3"),
        (ContextChange { description: Some("new".into()), ..ContextChange::default() }, "1.2.4"),
        (ContextChange { labels: Some([].into()), metadata: Some([].into()), ..ContextChange::default() }, "1.2.5"),
        (ContextChange { version: Some("2.0.0".parse().unwrap()), ..ContextChange::default() }, "2.0.0"),
        (ContextChange { content_type: Some("a/b".into()), ..ContextChange::default() }, "2.0.1"),
    ];
    for (n, (change, version)) in changes.into_iter().enumerate() {
        let mut write = write(row.rev, "", 1 + n as u64);
        (write.change, write.content) = (change, None);
        row = c.store.context_update(&t, &row.id, write).await.unwrap().row;
        assert_eq!(row.spec.version, version.parse().unwrap());
        c.turn().await;
    }
    assert_eq!(row.content, made.content, "an update without a payload keeps it");
    assert_eq!(row.expires_at, made.expires_at);
    assert_eq!((row.spec.description.as_str(), row.spec.content_type.as_str()), ("new", "a/b"));
    assert_eq!((&row.spec.key, &row.spec.groups), (&made.spec.key, &made.spec.groups));
    assert!(row.spec.labels.is_empty() && row.spec.metadata.is_empty());
    for low in ["2.0.1", "2.0.0", "2.0.1+x", "2.0.1-rc.1"] {
        let mut write = write(row.rev, "", 9);
        write.change.version = Some(low.parse().unwrap());
        refused(c.store.context_update(&t, &row.id, write).await, ErrorCode::InvalidVersion);
    }
    // Another scope ends what does not go with it; a new life counts from the write.
    let mut write = write(row.rev, "", 50);
    write.change.scope = Some(ContextScope::Private);
    write.change.ttl = Some(Some(Duration::from_millis(7)));
    let private = c.store.context_update(&t, &row.id, write).await.unwrap().row;
    assert!(private.spec.groups.is_empty());
    assert_eq!(private.expires_at, at(57));
    c.turn().await;
    assert_eq!(c.store.context_get(&t, &row.id).await.unwrap(), Some(private));
}

/// META-27.
pub async fn meta_27_a_repeated_update_is_answered_with_the_first(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let made = make_context(&*c.store, &t, new_context(1, 0)).await;
    let keyed = |if_rev, key: &str, body: u8, n| {
        let mut write = write(if_rev, "x", n);
        write.repeat = Some(RepeatKey { key: key.to_owned(), body: Sha256Digest([body; 32]) });
        write
    };
    let first = c.store.context_update(&t, &made.id, keyed(made.rev, "k1", 1, 1)).await.unwrap();
    assert!(!first.duplicate);
    let second = c.store.context_update(&t, &made.id, keyed(first.row.rev, "k2", 1, 2)).await.unwrap().row;
    c.turn().await;
    let again = c.store.context_update(&t, &made.id, keyed(made.rev, "k1", 1, 3)).await.unwrap();
    assert_eq!((again.duplicate, again.row), (true, unread(&first.row)));
    refused(c.store.context_update(&t, &made.id, keyed(made.rev, "k1", 2, 3)).await, ErrorCode::IdempotencyConflict);
    let mut others = keyed(made.rev, "k1", 1, 3);
    others.by = agent("other");
    refused(c.store.context_update(&t, &made.id, others).await, ErrorCode::RevisionConflict);
    assert_eq!(c.store.context_get(&t, &made.id).await.unwrap().unwrap().rev, second.rev);
    // The key outlives its revision, by as many changes as are kept.
    let mut row = second;
    for n in 0..u64::from(limits::CONTEXT_HISTORY) {
        row = update(&*c.store, &t, &row, "y", 4 + n).await;
    }
    refused(c.store.context_get_at(&t, &made.id, first.row.rev).await, ErrorCode::RevisionGap);
    let trim = |changes_up_to| Trim { changes_up_to, markers_before: at(0), limit: 100 };
    c.store.change_trim(&t, trim(first.row.rev - 1)).await.unwrap();
    c.turn().await;
    let late = c.store.context_update(&t, &made.id, keyed(made.rev, "k1", 1, 99)).await.unwrap();
    assert_eq!((late.duplicate, late.row), (true, unread(&first.row)));
    refused(c.store.context_update(&t, &made.id, keyed(made.rev, "k1", 2, 99)).await, ErrorCode::IdempotencyConflict);
    c.store.change_trim(&t, trim(first.row.rev)).await.unwrap();
    c.turn().await;
    refused(c.store.context_update(&t, &made.id, keyed(made.rev, "k1", 1, 99)).await, ErrorCode::RevisionConflict);
}

/// META-28.
pub async fn meta_28_the_newest_64_revisions_are_kept_and_read_back(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let history = u64::from(limits::CONTEXT_HISTORY);
    make_context(&*c.store, &t, new_context(9, 0)).await;
    let made = make_context(&*c.store, &t, new_context(1, 0)).await;
    assert_eq!(c.store.context_get_at(&t, &made.id, 1).await.unwrap(), None, "it was not made yet");
    let mut rows = vec![made.clone()];
    for n in 0..history - 1 {
        let next = update(&*c.store, &t, &rows[n as usize], &format!("update {n}"), 1 + n).await;
        rows.push(next);
    }
    c.turn().await;
    for row in &rows {
        assert_eq!(c.store.context_get_at(&t, &made.id, row.rev).await.unwrap().as_ref(), Some(row));
    }
    let last = rows.last().unwrap().clone();
    assert_eq!(c.store.context_get_at(&t, &made.id, last.rev + 100).await.unwrap(), Some(last.clone()));
    let newest_first: Vec<_> = rows.iter().rev().map(unread).collect();
    assert_eq!(c.store.context_history(&t, &made.id, None, 1000).await.unwrap(), newest_first);
    let page = c.store.context_history(&t, &made.id, Some(rows[10].rev), 4).await.unwrap();
    assert_eq!(page, newest_first[history as usize - 10..][..4]);
    // One more, and the first is gone.
    let one_more = update(&*c.store, &t, &last, "one more", 99).await;
    c.turn().await;
    refused(c.store.context_get_at(&t, &made.id, made.rev).await, ErrorCode::RevisionGap);
    let second = c.store.context_get_at(&t, &made.id, rows[1].rev).await.unwrap();
    assert_eq!(second.as_ref(), Some(&rows[1]));
    let kept = c.store.context_history(&t, &made.id, None, 1000).await.unwrap();
    assert_eq!((kept.len() as u64, &kept[0]), (history, &unread(&one_more)));
    assert!(c.store.context_history(&t, &context(5), None, 9).await.unwrap().is_empty());
}

/// META-29.
pub async fn meta_29_a_marker_stands_for_what_was_removed(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let spec = ContextSpec { key: Some("k".parse().unwrap()), ..shared_with(&[("w1", ShareAccess::Read)]) };
    let made = make_context(&*c.store, &t, NewContext { spec, ..new_context(1, 0) }).await;
    assert_eq!(c.store.context_remove(&t, &context(2), removing(WriteCondition::IfRev(1), 1)).await.unwrap(), None);
    let marker = c.store.context_remove(&t, &made.id, removing(WriteCondition::IfRev(made.rev), 5)).await.unwrap();
    let marker = marker.unwrap();
    assert_eq!((marker.state, marker.rev, marker.content.size), (ContextState::Deleted, made.rev + 1, 0));
    assert_eq!((marker.updated_at, marker.updated_by.clone()), (at(5), agent("cleaner")));
    assert_eq!(marker.spec, made.spec, "it tells who might see it");
    c.turn().await;
    for condition in [WriteCondition::IfRev(made.rev), WriteCondition::Force { access_rev: 99 }] {
        let again = c.store.context_remove(&t, &made.id, removing(condition, 9)).await.unwrap();
        assert_eq!(again.as_ref(), Some(&marker));
    }
    assert_eq!(c.store.context_get(&t, &made.id).await.unwrap(), Some(marker.clone()));
    refused(c.store.context_update(&t, &made.id, write(marker.rev, "no", 9)).await, ErrorCode::ContextNotFound);
    let renewal = ContextRenewal { access_rev: marker.access_rev, ttl: None, now: at(9) };
    refused(c.store.context_renew(&t, &made.id, renewal).await, ErrorCode::ContextNotFound);
    // What was before is still to be read, by id and by key.
    assert_eq!(c.store.context_get_at(&t, &made.id, made.rev).await.unwrap(), Some(made.clone()));
    let key = "k".parse().unwrap();
    assert_eq!(c.store.context_find(&t, &key, None).await.unwrap(), None);
    assert_eq!(c.store.context_find(&t, &key, Some(made.rev)).await.unwrap(), Some(made.id));
    assert_eq!(c.store.context_find(&t, &key, Some(marker.rev)).await.unwrap(), None);
    assert_eq!(c.store.tenant_revision(&t).await.unwrap(), marker.rev);
}

/// META-30.
pub async fn meta_30_what_is_over_is_absent_and_gets_its_marker_once(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let ttl = |n, ms| {
        let spec = ContextSpec { ttl: Some(Duration::from_millis(ms)), ..ContextSpec::new("note") };
        NewContext { spec, ..new_context(n, 0) }
    };
    assert_eq!(c.store.context_next_expiry(&t).await.unwrap(), None);
    let mut rows = Vec::new();
    for (n, ms) in [(1, 30), (2, 10), (3, 20), (4, 99)] {
        rows.push(make_context(&*c.store, &t, ttl(n, ms)).await);
    }
    make_context(&*c.store, &t, new_context(5, 0)).await;
    c.turn().await;
    assert_eq!(c.store.context_next_expiry(&t).await.unwrap(), Some(at(10)));
    assert!(c.store.context_expire(&t, at(9), 10).await.unwrap().is_empty());
    // Over, and not yet marked: absent to writers.
    refused(c.store.context_update(&t, &context(2), write(rows[1].rev, "no", 10)).await, ErrorCode::ContextNotFound);
    let removal = removing(WriteCondition::IfRev(rows[1].rev), 10);
    assert_eq!(c.store.context_remove(&t, &context(2), removal).await.unwrap(), None);
    let renewal = ContextRenewal { access_rev: rows[1].access_rev, ttl: None, now: at(10) };
    refused(c.store.context_renew(&t, &context(2), renewal).await, ErrorCode::ContextNotFound);
    // Earliest end first, in batches; twice is once.
    let first = c.store.context_expire(&t, at(30), 2).await.unwrap();
    assert_eq!(first.iter().map(|row| row.id).collect::<Vec<_>>(), [context(2), context(3)]);
    c.turn().await;
    let rest = c.store.context_expire(&t, at(30), 2).await.unwrap();
    assert_eq!(rest.iter().map(|row| (row.id, row.rev)).collect::<Vec<_>>(), [(context(1), 8)]);
    assert!(c.store.context_expire(&t, at(30), 2).await.unwrap().is_empty());
    let marker = &first[0];
    assert_eq!((marker.state, marker.rev, marker.updated_at), (ContextState::Expired, 6, at(30)));
    assert_eq!(marker.updated_by, agent("maker"));
    assert_eq!(c.store.context_get(&t, &marker.id).await.unwrap().as_ref(), Some(marker));
    // A renewal moves the end without a revision, and is kept.
    let renewal = ContextRenewal { access_rev: rows[3].access_rev, ttl: Some(Duration::from_secs(1)), now: at(50) };
    let renewed = c.store.context_renew(&t, &context(4), renewal).await.unwrap();
    assert_eq!((renewed.rev, renewed.expires_at), (rows[3].rev, at(1050)));
    c.turn().await;
    assert_eq!(c.store.context_get(&t, &context(4)).await.unwrap(), Some(renewed));
    assert_eq!(c.store.context_next_expiry(&t).await.unwrap(), Some(at(1050)));
    assert_eq!(c.store.tenant_revision(&t).await.unwrap(), 8);
}

/// META-33, of markers.
pub async fn meta_33_old_markers_go_with_all_that_is_kept_of_them(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    for n in 1..=4 {
        let made = make_context(&*c.store, &t, NewContext { content: blob(n as u8), ..new_context(n, 0) }).await;
        if n < 4 {
            c.store.context_remove(&t, &made.id, removing(WriteCondition::IfRev(made.rev), n * 10)).await.unwrap();
        }
    }
    let revision = c.store.tenant_revision(&t).await.unwrap();
    let trim = |ms, limit| Trim { changes_up_to: 0, markers_before: at(ms), limit };
    assert_eq!(c.store.change_trim(&t, trim(10, 9)).await.unwrap().markers, 0);
    assert_eq!(c.store.change_trim(&t, trim(25, 1)).await.unwrap().markers, 1);
    c.turn().await;
    assert_eq!(c.store.change_trim(&t, trim(25, 9)).await.unwrap().markers, 1);
    assert_eq!(c.store.change_trim(&t, trim(25, 9)).await.unwrap().markers, 0);
    for gone in [1, 2] {
        assert_eq!(c.store.context_get(&t, &context(gone)).await.unwrap(), None);
        assert!(c.store.context_history(&t, &context(gone), None, 9).await.unwrap().is_empty());
    }
    let named = c.store.context_blobs_named(&t, None, 9).await.unwrap();
    assert_eq!(named, [Sha256Digest([3; 32]), Sha256Digest([4; 32])]);
    assert!(c.store.context_get(&t, &context(3)).await.unwrap().is_some(), "a young marker stays");
    assert_eq!(c.store.tenant_revision(&t).await.unwrap(), revision);
    // Its id may be used again, as if it had never been.
    make_context(&*c.store, &t, new_context(1, 99)).await;
}

/// META-36.
pub async fn meta_36_every_kept_blob_is_named_and_no_other(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let other = make_tenant(&*c.store, "b").await;
    make_context(&*c.store, &other, NewContext { content: blob(200), ..new_context(1, 0) }).await;
    let mut row = make_context(&*c.store, &t, NewContext { content: blob(7), ..new_context(1, 0) }).await;
    make_context(&*c.store, &t, NewContext { content: blob(7), ..new_context(2, 0) }).await;
    make_context(&*c.store, &t, new_context(3, 0)).await;
    for n in [3, 9, 5] {
        let mut write = write(row.rev, "", 1);
        write.content = Some(blob(n));
        row = c.store.context_update(&t, &row.id, write).await.unwrap().row;
    }
    c.turn().await;
    let named = |names: &[u8]| names.iter().map(|n| Sha256Digest([*n; 32])).collect::<Vec<_>>();
    assert_eq!(c.store.context_blobs_named(&t, None, 9).await.unwrap(), named(&[3, 5, 7, 9]));
    let after = Sha256Digest([3; 32]);
    assert_eq!(c.store.context_blobs_named(&t, Some(&after), 2).await.unwrap(), named(&[5, 7]));
    // Revisions that fall out of the history name nothing any more; the second context still does.
    for n in 0..u64::from(limits::CONTEXT_HISTORY) {
        row = update(&*c.store, &t, &row, "small", 2 + n).await;
    }
    c.turn().await;
    assert_eq!(c.store.context_blobs_named(&t, None, 9).await.unwrap(), named(&[7]));
}
