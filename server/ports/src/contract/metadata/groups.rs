//! Groups and who is in them.

use acb_types::{AgentId, ErrorCode, limits};

use super::{Context, fixture::*};
use crate::metadata::{ContextScope, ContextSpec, GroupMember, NewContext, NewGroup};

fn new(name: &str, description: &str) -> NewGroup {
    NewGroup { name: group(name), description: description.to_owned(), by: agent("admin"), now: at(1) }
}

/// META-34.
pub async fn meta_34_a_group_is_made_once_and_ends_with_its_memberships(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let made = c.store.group_create(&t, new("blue", "the blue ones")).await.unwrap();
    assert!(!made.existed);
    assert_eq!((made.row.members, made.row.revision, made.row.created_at), (0, 1, at(1)));
    c.turn().await;
    let again = c.store.group_create(&t, NewGroup { now: at(9), by: agent("b"), ..new("blue", "the blue ones") }).await;
    let again = again.unwrap();
    assert_eq!((again.existed, &again.row), (true, &made.row));
    refused(c.store.group_create(&t, new("blue", "other")).await, ErrorCode::GroupExists);
    c.store.group_create(&t, new("azure", "")).await.unwrap();
    c.store.group_members_add(&t, &group("blue"), &[agent("w1")], at(2)).await.unwrap();
    c.turn().await;
    let names = |rows: Vec<crate::metadata::GroupRow>| {
        rows.into_iter().map(|row| (row.name.to_string(), row.members)).collect::<Vec<_>>()
    };
    let listed = c.store.group_list(&t, None, 9).await.unwrap();
    assert_eq!(names(listed), [("azure".to_owned(), 0), ("blue".to_owned(), 1)]);
    assert_eq!(names(c.store.group_list(&t, Some(&group("azure")), 9).await.unwrap()), [("blue".to_owned(), 1)]);
    let ended = c.store.group_delete(&t, &group("blue")).await.unwrap().unwrap();
    assert_eq!((ended.name, ended.members, ended.revision), (group("blue"), 1, 3));
    assert_eq!(c.store.group_delete(&t, &group("blue")).await.unwrap(), None);
    c.turn().await;
    assert!(c.store.memberships(&t, &agent("w1"), None).await.unwrap().groups.is_empty());
    assert_eq!(c.store.group_member_list(&t, &group("blue"), None, 9).await.unwrap(), None);
    assert_eq!(c.store.tenant_revision(&t).await.unwrap(), 4);
    // A group of that name again is a new one, and nobody is in it.
    let anew = c.store.group_create(&t, new("blue", "")).await.unwrap();
    assert_eq!((anew.existed, anew.row.members), (false, 0));
    assert_eq!(c.store.group_member_list(&t, &group("blue"), None, 9).await.unwrap(), Some(vec![]));
}

/// META-34: contexts and the groups that they name.
pub async fn meta_34_a_context_names_groups_that_are_there(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    make_group(&*c.store, &t, "blue", &[]).await;
    let of = |n, name: &str| {
        let spec = ContextSpec { scope: ContextScope::Group, groups: [group(name)].into(), ..ContextSpec::new("x") };
        NewContext { spec, ..new_context(n, 1) }
    };
    refused(c.store.context_create(&t, of(1, "red")).await, ErrorCode::GroupNotFound);
    assert_eq!(c.store.context_get(&t, &context(1)).await.unwrap(), None);
    let made = make_context(&*c.store, &t, of(1, "blue")).await;
    c.store.group_delete(&t, &group("blue")).await.unwrap();
    c.turn().await;
    // It keeps the name of a group that is gone, also over an update; it cannot get another such.
    let next = update(&*c.store, &t, &made, "next", 2).await;
    assert_eq!(next.spec.groups, [group("blue")].into());
    let mut write = write(next.rev, "", 3);
    write.change.groups = Some([group("blue"), group("red")].into());
    refused(c.store.context_update(&t, &made.id, write).await, ErrorCode::GroupNotFound);
    refused(c.store.context_create(&t, of(2, "blue")).await, ErrorCode::GroupNotFound);
    assert_eq!(c.store.tenant_revision(&t).await.unwrap(), next.rev);
}

/// META-35.
pub async fn meta_35_members_come_and_go_and_twice_is_once(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    c.store.group_create(&t, new("blue", "")).await.unwrap();
    let ids = |of: &[&str]| of.iter().map(|id| agent(id)).collect::<Vec<AgentId>>();
    let added = c.store.group_members_add(&t, &group("blue"), &ids(&["w3", "w1", "w3"]), at(2)).await.unwrap();
    assert_eq!((added.members, added.revision), (2, 2));
    let again = c.store.group_members_add(&t, &group("blue"), &ids(&["w1"]), at(3)).await.unwrap();
    assert_eq!(again, added);
    c.store.group_members_add(&t, &group("blue"), &ids(&["w1", "w2"]), at(4)).await.unwrap();
    c.turn().await;
    let member = |id: &str, n| GroupMember { agent: agent(id), since: at(n) };
    let all = [member("w1", 2), member("w2", 4), member("w3", 2)];
    let listed = c.store.group_member_list(&t, &group("blue"), None, 9).await.unwrap().unwrap();
    assert_eq!(listed, all);
    let page = c.store.group_member_list(&t, &group("blue"), Some(&agent("w1")), 1).await.unwrap().unwrap();
    assert_eq!(page, all[1..2]);
    let removed = c.store.group_members_remove(&t, &group("blue"), &ids(&["w9", "w3", "w3"])).await.unwrap();
    assert_eq!((removed.members, removed.revision), (2, 4));
    let again = c.store.group_members_remove(&t, &group("blue"), &ids(&["w3"])).await.unwrap();
    assert_eq!(again, removed);
    assert_eq!(c.store.group_members_add(&t, &group("blue"), &[], at(5)).await.unwrap(), removed);
    c.turn().await;
    assert_eq!(c.store.tenant_revision(&t).await.unwrap(), 4);
    refused(c.store.group_members_add(&t, &group("red"), &ids(&["w1"]), at(5)).await, ErrorCode::GroupNotFound);
    refused(c.store.group_members_remove(&t, &group("red"), &ids(&["w1"])).await, ErrorCode::GroupNotFound);
}

/// META-35: memberships now and as they were at each revision.
pub async fn meta_35_memberships_are_read_as_they_were(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    let w = [agent("w1")];
    let (blue, red) = (group("blue"), group("red"));
    let mut expected: Vec<Vec<&str>> = vec![vec![]];
    c.store.group_create(&t, new("blue", "")).await.unwrap();
    expected.push(vec![]);
    c.store.group_create(&t, new("red", "")).await.unwrap();
    expected.push(vec![]);
    c.store.group_members_add(&t, &blue, &w, at(2)).await.unwrap();
    expected.push(vec!["blue"]);
    c.store.group_members_add(&t, &red, &w, at(2)).await.unwrap();
    expected.push(vec!["blue", "red"]);
    c.store.group_members_remove(&t, &blue, &w).await.unwrap();
    expected.push(vec!["red"]);
    c.store.group_members_add(&t, &blue, &w, at(2)).await.unwrap();
    expected.push(vec!["blue", "red"]);
    c.store.group_delete(&t, &blue).await.unwrap();
    expected.push(vec!["red"]);
    c.store.group_members_add(&t, &red, &[agent("w2")], at(3)).await.unwrap();
    expected.push(vec!["red"]);
    c.turn().await;
    for (revision, groups) in expected.iter().enumerate() {
        let then = c.store.memberships(&t, &agent("w1"), Some(revision as u64)).await.unwrap();
        let names: Vec<_> = then.groups.iter().map(acb_types::GroupName::as_str).collect();
        assert_eq!((names, then.revision), (groups.clone(), revision as u64));
    }
    let now = c.store.memberships(&t, &agent("w1"), None).await.unwrap();
    assert_eq!((now.groups, now.revision), ([red].into(), 8));
    let later = c.store.memberships(&t, &agent("w1"), Some(99)).await.unwrap();
    assert_eq!(later.revision, 8, "what has not happened yet is told as of now");
    assert!(c.store.memberships(&t, &agent("w7"), None).await.unwrap().groups.is_empty());
}

/// META-38, of groups.
pub async fn meta_38_groups_members_and_memberships_have_limits(mut c: Context) {
    let t = make_tenant(&*c.store, "a").await;
    for n in 0..limits::MEMBERSHIPS_MAX {
        make_group(&*c.store, &t, &format!("g{n:04}"), &["w1"]).await;
    }
    c.store.group_create(&t, new("more", "")).await.unwrap();
    c.turn().await;
    let revision = c.store.tenant_revision(&t).await.unwrap();
    let both = [agent("w0"), agent("w1")];
    refused(c.store.group_members_add(&t, &group("more"), &both, at(2)).await, ErrorCode::GroupLimit);
    assert_eq!(c.store.group_member_list(&t, &group("more"), None, 9).await.unwrap(), Some(vec![]), "none of the call");
    assert_eq!(c.store.tenant_revision(&t).await.unwrap(), revision);
    for n in limits::MEMBERSHIPS_MAX as u64 + 1..limits::TENANT_GROUPS_MAX {
        c.store.group_create(&t, new(&format!("h{n:04}"), "")).await.unwrap();
    }
    refused(c.store.group_create(&t, new("last", "")).await, ErrorCode::GroupLimit);
    assert!(c.store.group_create(&t, new("more", "")).await.unwrap().existed, "what is there is found");
    c.store.group_delete(&t, &group("h0300")).await.unwrap();
    c.store.group_create(&t, new("last", "")).await.unwrap();
    // A full group.
    let agents = |from: u32, to: u32| (from..to).map(|n| agent(&format!("m{n}"))).collect::<Vec<_>>();
    for from in (0..limits::GROUP_MEMBERS_MAX).step_by(1000) {
        c.store.group_members_add(&t, &group("last"), &agents(from, from + 1000), at(3)).await.unwrap();
    }
    c.turn().await;
    refused(c.store.group_members_add(&t, &group("last"), &[agent("w9")], at(4)).await, ErrorCode::GroupLimit);
    refused(c.store.group_members_add(&t, &group("last"), &agents(0, 1001), at(4)).await, ErrorCode::InvalidArgument);
    let full = c.store.group_members_remove(&t, &group("last"), &agents(0, 1)).await.unwrap();
    assert_eq!(full.members, limits::GROUP_MEMBERS_MAX - 1);
    c.store.group_members_add(&t, &group("last"), &[agent("w9")], at(4)).await.unwrap();
}
