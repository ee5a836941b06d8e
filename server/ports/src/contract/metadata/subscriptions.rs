//! Subscriptions: numbers, definitions, the implicit ones.

use std::sync::Arc;

use acb_types::{
    ClassId, ErrorCode, SubscriptionId, SubscriptionName,
    batch::{DeadLetterPolicy, StartAt},
    limits,
};

use super::{Context, fixture::*};
use crate::metadata::{Inbox, NewSubscription, SubscriptionRow, SubscriptionSet, SubscriptionSpec};

fn names(rows: &[SubscriptionRow]) -> Vec<&str> {
    rows.iter().map(|row| row.spec.name.as_str()).collect()
}

/// META-7: in the registration's transaction, with the numbers they had.
pub async fn meta_7_implicit_subscriptions_come_with_the_registration_and_keep_their_number(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let first = register(&*c.store, &t, "w.1", "key:1", 1).await;
    let rows: Vec<_> = first.implicit.iter().map(|made| made.row.clone()).collect();
    assert_eq!(names(&rows), ["$inbox.w.1", "$reply.w.1"]);
    assert!(first.implicit.iter().all(|made| !made.existed));
    for row in &rows {
        assert_eq!((row.spec.class, &row.created_by, row.created_at), (ClassId::INBOX, &agent("w.1"), at(1)));
    }
    let heard: Vec<_> = rows[0].def().filters.iter().map(ToString::to_string).collect();
    assert_eq!(heard, ["$acb.inbox.w.1", "$acb.all", "$acb.redrive.$inbox.w.1"]);
    assert_eq!(rows[1].spec.filters[0].as_str(), "$acb.reply.w.1");
    c.turn().await;
    assert_eq!(c.store.subscription_list_all(&t).await.unwrap(), rows);
    // A takeover finds them.
    let again = register(&*c.store, &t, "w.1", "key:1", 2).await;
    assert!(again.implicit.iter().zip(&rows).all(|(made, row)| made.existed && made.row == *row), "{again:?}");
    // So does a registration after a leave that kept the inbox.
    let kept = c.store.agent_remove(&t, &agent("w.1"), removal(Inbox::Keep, 3)).await.unwrap();
    assert_eq!(kept.subscriptions, []);
    c.turn().await;
    assert_eq!(c.store.subscription_list_all(&t).await.unwrap(), rows);
    let back = register(&*c.store, &t, "w.1", "key:1", 4).await;
    assert!(!back.existed);
    assert!(back.implicit.iter().zip(&rows).all(|(made, row)| made.existed && made.row == *row), "{back:?}");
    // They hear users' definitions only by number and name.
    for row in &rows {
        assert_eq!(c.store.subscription_get(&t, &row.spec.name).await.unwrap().as_ref(), Some(row));
        assert_eq!(c.store.subscription_get_by_id(&t, row.id).await.unwrap().as_ref(), Some(row));
    }
}

/// META-8: what goes, and that it is gone for good.
pub async fn meta_8_removing_ends_the_inbox_unless_it_is_kept(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let made = register(&*c.store, &t, "w1", "key:1", 1).await;
    register(&*c.store, &t, "w2", "key:1", 1).await;
    let chosen = NewSubscription { created_by: agent("w1"), ..full_subscription("team", 2) };
    c.store.subscription_create(&t, chosen).await.unwrap();
    c.turn().await;
    let kept = c.store.agent_remove(&t, &agent("w1"), removal(Inbox::Keep, 3)).await.unwrap();
    assert_eq!(kept.agent, Some(made.agent.clone()));
    assert_eq!(c.store.agent_get(&t, &agent("w1")).await.unwrap(), None);
    c.turn().await;
    // Removing again without keeping ends the inbox; nothing that is seen changes, so no revision.
    let dropped = c.store.agent_remove(&t, &agent("w1"), removal(Inbox::Drop, 4)).await.unwrap();
    assert_eq!((dropped.agent, dropped.revision), (None, None));
    assert_eq!(names(&dropped.subscriptions), ["$inbox.w1", "$reply.w1"]);
    c.turn().await;
    let left = c.store.subscription_list_all(&t).await.unwrap();
    assert_eq!(names(&left), ["$inbox.w2", "$reply.w2", "team"], "a team's subscription outlives its maker");
    let nothing = c.store.agent_remove(&t, &agent("w1"), removal(Inbox::Drop, 5)).await.unwrap();
    assert_eq!(nothing, crate::metadata::RemovedAgent::default());
    // Coming back, it starts with a new inbox under new numbers.
    let back = register(&*c.store, &t, "w1", "key:1", 6).await;
    assert!(back.implicit.iter().all(|new| !new.existed && new.row.id > left[2].id), "{back:?}");
}

/// META-10: deletion frees no number, whatever is closed in between.
pub async fn meta_10_subscription_numbers_are_never_given_again(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let mut last = SubscriptionId(0);
    for n in 0..6 {
        let made = c.store.subscription_create(&t, full_subscription(&format!("s{n}"), n)).await.unwrap();
        assert!(made.row.id > last, "{} after {last}", made.row.id);
        last = made.row.id;
        let gone = c.store.subscription_delete(&t, &made.row.spec.name).await.unwrap();
        assert_eq!(gone, Some(made.row.clone()));
        c.turn().await;
        assert_eq!(c.store.subscription_get_by_id(&t, made.row.id).await.unwrap(), None);
    }
    // A refused creation may not take one either way that others see: the next is still greater.
    refused(c.store.subscription_delete(&t, &name("$inbox.w1")).await, ErrorCode::InvalidArgument);
    assert_eq!(c.store.subscription_delete(&t, &name("s0")).await.unwrap(), None, "META-12: absent is fine");
}

/// META-11: the row that is there, whoever asks and wherever they want to start.
pub async fn meta_11_the_same_definition_again_finds_the_row(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let made = c.store.subscription_create(&t, full_subscription("work", 1)).await.unwrap();
    let asked = full_subscription("work", 1);
    assert!(!made.existed);
    assert_eq!(made.row.spec, asked.spec);
    assert_eq!((made.row.start, made.row.created_at), (StartAt::Sequence(42), at(1)));
    c.turn().await;
    assert_eq!(c.store.subscription_get(&t, &name("work")).await.unwrap(), Some(made.row.clone()));
    let again = NewSubscription { start: StartAt::All, created_by: agent("other"), ..full_subscription("work", 9) };
    let again = c.store.subscription_create(&t, again).await.unwrap();
    assert!(again.existed);
    assert_eq!(again.row, made.row);
    // Every way to start is kept.
    for (n, start) in [StartAt::New, StartAt::All, StartAt::Sequence(7), StartAt::Time(at(7))].into_iter().enumerate() {
        let new = NewSubscription { start, ..full_subscription(&format!("s{n}"), 1) };
        let id = c.store.subscription_create(&t, new).await.unwrap().row.id;
        c.turn().await;
        assert_eq!(c.store.subscription_get_by_id(&t, id).await.unwrap().unwrap().start, start);
    }
}

/// META-11: any difference of the definition counts.
pub async fn meta_11_another_definition_under_the_name_is_refused(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let made = c.store.subscription_create(&t, full_subscription("work", 1)).await.unwrap().row;
    c.turn().await;
    let change: [fn(&mut SubscriptionSpec); 7] = [
        |s| s.filters.reverse(),
        |s| s.ack_wait *= 2,
        |s| s.retry_schedule.truncate(1),
        |s| s.max_attempts += 1,
        |s| s.dead_letters = DeadLetterPolicy::Keep,
        |s| s.max_leased += 1,
        |s| s.class = ClassId::DEAD_LETTERS,
    ];
    for (n, change) in change.into_iter().enumerate() {
        let mut other = full_subscription("work", 2);
        change(&mut other.spec);
        assert_ne!(other.spec, made.spec, "change {n} changes nothing");
        refused(c.store.subscription_create(&t, other).await, ErrorCode::SubscriptionExists);
    }
    assert_eq!(c.store.subscription_get(&t, &name("work")).await.unwrap(), Some(made));
}

/// META-11 under load.
pub async fn meta_11_of_16_concurrent_creations_one_makes_the_row(c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let askers: Vec<_> = (0..16)
        .map(|n| {
            let (store, t) = (Arc::clone(&c.store), t.clone());
            tokio::spawn(async move { store.subscription_create(&t, full_subscription("work", n)).await.unwrap() })
        })
        .collect();
    let mut made = Vec::new();
    for asker in askers {
        made.push(asker.await.unwrap());
    }
    assert_eq!(made.iter().filter(|m| !m.existed).count(), 1);
    assert!(made.iter().all(|m| m.row == made[0].row), "{made:?}");
}

/// META-12.
pub async fn meta_12_implicit_names_are_not_for_users(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    register(&*c.store, &t, "w1", "key:1", 1).await;
    let inbox = SubscriptionName::inbox(&agent("w1"));
    refused(c.store.subscription_delete(&t, &inbox).await, ErrorCode::InvalidArgument);
    let mut new = full_subscription("x", 2);
    new.spec.name = SubscriptionName::inbox(&agent("w2"));
    refused(c.store.subscription_create(&t, new).await, ErrorCode::InvalidArgument);
    c.turn().await;
    assert_eq!(c.store.subscription_list_all(&t).await.unwrap().len(), 2);
}

/// META-13: implicit ones do not count, deleted ones free their place.
pub async fn meta_13_a_tenant_has_a_limit_of_subscriptions(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    register(&*c.store, &t, "w1", "key:1", 1).await;
    // Many at once, so that stores that gather writes can.
    let mut left = limits::SUBSCRIPTIONS_MAX;
    while left > 0 {
        let some = left.min(500);
        let askers: Vec<_> = (left - some..left)
            .map(|n| {
                let (store, t) = (Arc::clone(&c.store), t.clone());
                let new = full_subscription(&format!("s{n}"), 1);
                tokio::spawn(async move { store.subscription_create(&t, new).await.map(|_| ()) })
            })
            .collect();
        for asker in askers {
            asker.await.unwrap().unwrap();
        }
        left -= some;
    }
    c.turn().await;
    let one_more = || full_subscription("one-more", 2);
    refused(c.store.subscription_create(&t, one_more()).await, ErrorCode::SubscriptionLimit);
    assert!(c.store.subscription_create(&t, full_subscription("s7", 2)).await.unwrap().existed, "finding is free");
    register(&*c.store, &t, "w2", "key:1", 3).await;
    c.store.subscription_delete(&t, &name("s7")).await.unwrap().unwrap();
    c.store.subscription_delete(&t, &name("s7")).await.unwrap();
    c.store.subscription_create(&t, one_more()).await.unwrap();
    refused(c.store.subscription_create(&t, full_subscription("and-one", 2)).await, ErrorCode::SubscriptionLimit);
    // A second tenant has its own.
    let b = make_tenant(&*c.store, "b").await;
    c.store.subscription_create(&b, one_more()).await.unwrap();
}

/// META-21: bytewise by name, and by number over several pages.
pub async fn meta_21_subscriptions_are_listed_by_name_and_by_number(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    register(&*c.store, &t, "w1", "key:1", 1).await;
    for text in ["b", "A", "a_1", "a-1", "Z"] {
        c.store.subscription_create(&t, full_subscription(text, 1)).await.unwrap();
    }
    c.turn().await;
    let s = &c.store;
    let all = s.subscription_list(&t, SubscriptionSet::All, None, 100).await.unwrap();
    assert_eq!(names(&all), ["$inbox.w1", "$reply.w1", "A", "Z", "a-1", "a_1", "b"]);
    let chosen = s.subscription_list(&t, SubscriptionSet::Chosen, None, 100).await.unwrap();
    assert_eq!(names(&chosen), ["A", "Z", "a-1", "a_1", "b"]);
    let page = s.subscription_list(&t, SubscriptionSet::Chosen, Some(&name("Z")), 2).await.unwrap();
    assert_eq!(names(&page), ["a-1", "a_1"]);
    let by_number = s.subscription_list_by_id(&t, None, 3).await.unwrap();
    assert_eq!(by_number.iter().map(|row| row.id.0).collect::<Vec<_>>(), [1, 2, 3]);
    let rest = s.subscription_list_by_id(&t, Some(by_number[2].id), 100).await.unwrap();
    assert_eq!(names(&rest), ["A", "a_1", "a-1", "Z"]);
    assert_eq!(s.subscription_list_all(&t).await.unwrap().len(), 7);
}
