//! Credentials: keys, secrets, signing keys, token families.

use std::sync::Arc;

use acb_types::{ErrorCode, Timestamp};

use super::{Context, fixture::*};
use crate::metadata::{
    FAMILY_HASHES_MAX, MetadataStore, NewAgentSecret, Rotation, SecretBytes, SigningKeyRow, credential_of_key,
    credential_of_secret,
};

/// META-14: also what is revoked is shown, and lists run oldest first.
pub async fn meta_14_a_key_is_kept_as_it_was_given(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    for (id, n) in [("01b", 2), ("01a", 1), ("02", 3)] {
        c.store.enrolment_key_create(&t, key(id, n)).await.unwrap();
    }
    c.turn().await;
    refused(c.store.enrolment_key_create(&t, key("01a", 9)).await, ErrorCode::InvalidState);
    assert_eq!(c.store.enrolment_key_get(&t, "01a").await.unwrap(), Some(key("01a", 1)));
    assert_eq!(c.store.enrolment_key_get(&t, "none").await.unwrap(), None);
    let list = c.store.enrolment_key_list(&t, None, 2).await.unwrap();
    assert_eq!(list, [key("01a", 1), key("01b", 2)]);
    assert_eq!(c.store.enrolment_key_list(&t, Some("01b"), 2).await.unwrap(), [key("02", 3)]);
}

/// META-14: in one transaction, and only the families of that key.
pub async fn meta_14_revoking_a_key_revokes_its_families(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    c.store.enrolment_key_create(&t, key("k1", 1)).await.unwrap();
    let of = credential_of_key("k1").unwrap();
    for (id, of) in [("f2", of.as_str()), ("f1", of.as_str()), ("f3", "key:k2"), ("f4", "key:k1-and-more")] {
        c.store.family_create(&t, family(id, of, 1)).await.unwrap();
    }
    c.store.family_revoke(&t, "f2", at(2)).await.unwrap();
    c.turn().await;
    assert_eq!(c.store.enrolment_key_revoke(&t, "k1", at(3)).await.unwrap(), ["f1"], "f2 was revoked before");
    assert_eq!(c.store.enrolment_key_revoke(&t, "k1", at(4)).await.unwrap(), [""; 0]);
    assert_eq!(c.store.enrolment_key_revoke(&t, "none", at(4)).await.unwrap(), [""; 0]);
    c.turn().await;
    assert_eq!(c.store.enrolment_key_get(&t, "k1").await.unwrap().unwrap().revoked_at, at(3));
    let revoked_at = async |id| c.store.family_get(&t, id).await.unwrap().unwrap().revoked_at;
    assert_eq!(revoked_at("f2").await, at(2));
    assert_eq!(revoked_at("f1").await, at(3));
    assert_eq!(revoked_at("f3").await, Timestamp::NONE);
    assert_eq!(revoked_at("f4").await, Timestamp::NONE);
}

/// META-15.
pub async fn meta_15_a_new_secret_raises_the_version_and_revokes_the_old_families(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let planner = agent("planner");
    let secret = |n| NewAgentSecret { hash: format!("argon {n}"), roles: vec!["observer".into()], now: at(n) };
    let first = c.store.agent_secret_set(&t, &planner, secret(1)).await.unwrap();
    assert_eq!((first.version, first.revoked_families.len()), (1, 0));
    let of = credential_of_secret(&planner).unwrap();
    c.store.family_create(&t, family("f1", of.as_str(), 1)).await.unwrap();
    c.store.family_create(&t, family("f2", "secret:other", 1)).await.unwrap();
    c.turn().await;
    let second = c.store.agent_secret_set(&t, &planner, secret(2)).await.unwrap();
    assert_eq!((second.version, second.revoked_families), (2, vec!["f1".to_owned()]));
    c.turn().await;
    let row = c.store.agent_secret_get(&t, &planner).await.unwrap().unwrap();
    assert_eq!((row.hash.as_str(), row.version, row.set_at), ("argon 2", 2, at(2)));
    assert_eq!((row.agent, row.roles), (planner, vec!["observer".to_owned()]));
    assert_eq!(c.store.agent_secret_get(&t, &agent("other")).await.unwrap(), None);
}

/// META-16.
pub async fn meta_16_one_signing_key_signs_and_retired_ones_are_forgotten(mut c: Context) {
    let signing = |id: &str, n| SigningKeyRow {
        key_id: id.into(),
        private: SecretBytes(vec![0, n as u8, 255]),
        created_at: at(n),
        retired_at: Timestamp::NONE,
    };
    assert_eq!(c.store.signing_key_list().await.unwrap(), []);
    // The clock goes back before the third: it signs all the same.
    for (id, n) in [("k1", 10), ("k2", 20), ("k3", 5)] {
        c.store.signing_key_rotate(signing(id, n)).await.unwrap();
        c.turn().await;
        let list = c.store.signing_key_list().await.unwrap();
        assert_eq!(list[0], signing(id, n), "the newest comes first");
        assert_eq!(list.iter().filter(|key| !key.retired_at.is_set()).count(), 1, "{list:?}");
    }
    refused(c.store.signing_key_rotate(signing("k3", 30)).await, ErrorCode::InvalidState);
    let list = c.store.signing_key_list().await.unwrap();
    assert_eq!(list.len(), 3);
    assert!(!list[0].retired_at.is_set(), "META-3: a refused rotation retires nothing");
    // k1 was retired at 20, k2 at 5.
    assert_eq!(c.store.signing_key_forget(at(5)).await.unwrap(), 0);
    assert_eq!(c.store.signing_key_forget(at(6)).await.unwrap(), 1);
    c.turn().await;
    let left: Vec<_> = c.store.signing_key_list().await.unwrap().into_iter().map(|key| key.key_id).collect();
    assert_eq!(left, ["k3", "k1"]);
    assert_eq!(c.store.signing_key_forget(at(9999)).await.unwrap(), 1, "the one that signs is never forgotten");
}

async fn rotate(store: &dyn MetadataStore, id: &str, presented: u64, next: u64, n: u64) -> Rotation {
    store.family_rotate(&tenant("a"), id, rotation(presented, next, n)).await.unwrap()
}

/// META-17: the second use ends the family, for the thief and for the owner.
pub async fn meta_17_a_refresh_token_works_once(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let new = family("f1", "key:k1", 1);
    c.store.family_create(&t, new.clone()).await.unwrap();
    refused(c.store.family_create(&t, new).await, ErrorCode::InvalidState);
    c.turn().await;
    for n in 0..3 {
        let Rotation::Rotated(row) = rotate(&*c.store, "f1", n, n + 1, n + 2).await else { panic!("rotation {n}") };
        assert_eq!((row.generation, row.expires_at), (n + 1, at(n + 1002)), "the family lives on");
        assert_eq!((row.agent, row.roles), (agent("planner"), vec!["agent-full".to_owned()]));
        c.turn().await;
    }
    let reused = rotate(&*c.store, "f1", 1, 9, 7).await;
    let Rotation::Reused(row) = reused else { panic!("{reused:?}") };
    assert_eq!(row.revoked_at, at(7));
    c.turn().await;
    assert_eq!(c.store.family_get(&t, "f1").await.unwrap(), Some(row));
    assert_eq!(rotate(&*c.store, "f1", 3, 4, 8).await, Rotation::Revoked, "the owner's good token too");
    assert_eq!(rotate(&*c.store, "f1", 1, 4, 8).await, Rotation::Revoked);
}

/// META-17 under load.
pub async fn meta_17_of_16_concurrent_rotations_one_wins(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    c.store.family_create(&t, family("f1", "key:k1", 1)).await.unwrap();
    let askers: Vec<_> = (0..16)
        .map(|n| {
            let store = Arc::clone(&c.store);
            tokio::spawn(async move { rotate(&*store, "f1", 0, 100 + n, 2).await })
        })
        .collect();
    let (mut rotated, mut reused) = (0, 0);
    for asker in askers {
        match asker.await.unwrap() {
            Rotation::Rotated(_) => rotated += 1,
            Rotation::Reused(_) => reused += 1,
            // After the first reuse the family is revoked.
            Rotation::Revoked => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((rotated, reused), (1, 1));
    c.turn().await;
    assert!(c.store.family_get(&t, "f1").await.unwrap().unwrap().revoked_at.is_set());
}

/// META-17: the bound from both sides.
pub async fn meta_17_former_tokens_are_remembered_to_their_bound(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let rotations = FAMILY_HASHES_MAX as u64 + 1;
    for id in ["f1", "f2"] {
        c.store.family_create(&t, family(id, "key:k1", 1)).await.unwrap();
        for n in 0..rotations {
            let done = rotate(&*c.store, id, n, n + 1, 2).await;
            assert!(matches!(done, Rotation::Rotated(_)), "{done:?}");
        }
    }
    c.turn().await;
    // Token 0 is the oldest but one bound: forgotten, refused, and no alarm.
    assert_eq!(rotate(&*c.store, "f1", 0, 999, 3).await, Rotation::Absent);
    assert!(!c.store.family_get(&t, "f1").await.unwrap().unwrap().revoked_at.is_set());
    let reused = rotate(&*c.store, "f2", 1, 999, 3).await;
    assert!(matches!(reused, Rotation::Reused(_)), "{reused:?}");
}

/// META-17: each answer has its place.
pub async fn meta_17_a_family_that_is_over_or_revoked_says_so(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    for id in ["f1", "f2", "f3"] {
        c.store.family_create(&t, family(id, "key:k1", 1)).await.unwrap();
    }
    c.turn().await;
    assert_eq!(rotate(&*c.store, "none", 0, 1, 2).await, Rotation::Absent);
    assert_eq!(rotate(&*c.store, "f1", 77, 1, 2).await, Rotation::Absent, "a token of nobody");
    // It is over at 1001, that moment included.
    assert_eq!(rotate(&*c.store, "f1", 0, 1, 1001).await, Rotation::Expired);
    let done = rotate(&*c.store, "f1", 0, 1, 1000).await;
    assert!(matches!(done, Rotation::Rotated(_)), "an expired answer used nothing up: {done:?}");
    assert!(c.store.family_revoke(&t, "f2", at(5)).await.unwrap());
    assert!(!c.store.family_revoke(&t, "f2", at(6)).await.unwrap());
    assert!(!c.store.family_revoke(&t, "none", at(6)).await.unwrap());
    c.turn().await;
    assert_eq!(rotate(&*c.store, "f2", 0, 1, 1001).await, Rotation::Revoked, "revoked comes before expired");
    assert_eq!(c.store.family_get(&t, "f2").await.unwrap().unwrap().revoked_at, at(5));
    let swept = c.store.family_revoke_credential(&t, &credential("key:k1"), at(7)).await.unwrap();
    assert_eq!(swept, ["f1", "f3"]);
}

/// META-18: what a server loads at its start.
pub async fn meta_18_revoked_families_are_listed_until_they_are_over(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    for (n, id) in ["f0", "f1", "f2", "f3"].into_iter().enumerate() {
        c.store.family_create(&t, family(id, "key:k1", n as u64)).await.unwrap();
    }
    for id in ["f3", "f1", "f0"] {
        c.store.family_revoke(&t, id, at(10)).await.unwrap();
    }
    c.turn().await;
    let s = &c.store;
    assert_eq!(s.family_list_revoked(&t, at(10), None, 10).await.unwrap(), ["f0", "f1", "f3"]);
    assert_eq!(s.family_list_revoked(&t, at(10), Some("f0"), 1).await.unwrap(), ["f1"]);
    // f0 is over at 1000, f1 at 1001.
    assert_eq!(s.family_list_revoked(&t, at(1000), None, 10).await.unwrap(), ["f1", "f3"]);
    assert_eq!(s.family_forget(&t, at(1001)).await.unwrap(), 1);
    c.turn().await;
    assert_eq!(c.store.family_get(&t, "f0").await.unwrap(), None);
    assert!(c.store.family_get(&t, "f1").await.unwrap().is_some());
    assert_eq!(rotate(&*c.store, "f0", 0, 1, 5).await, Rotation::Absent);
}
