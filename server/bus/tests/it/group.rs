//! Groups: admins keep them, and they decide who sees contexts of the scope group.

use acb_proto::v1;
use acb_types::ErrorCode;

use crate::{
    context::{get, share, spec},
    support::{Client, Failure, Server, refused, told},
};

pub(crate) async fn make(admin: &Client, name: &str, members: &[&str]) {
    let group = v1::CreateGroupRequest { name: name.to_owned(), ..Default::default() };
    told(admin.admin().create_group(group).await).unwrap();
    add(admin, name, members).await.unwrap();
}

pub(crate) async fn add(admin: &Client, name: &str, members: &[&str]) -> Result<v1::Group, Failure> {
    let agent_ids = members.iter().map(ToString::to_string).collect();
    let request = v1::AddGroupMembersRequest { name: name.to_owned(), agent_ids };
    told(admin.admin().add_group_members(request).await).map(|r| r.group.unwrap())
}

pub(crate) async fn remove(admin: &Client, name: &str, members: &[&str]) -> Result<v1::Group, Failure> {
    let agent_ids = members.iter().map(ToString::to_string).collect();
    let request = v1::RemoveGroupMembersRequest { name: name.to_owned(), agent_ids };
    told(admin.admin().remove_group_members(request).await).map(|r| r.group.unwrap())
}

pub(crate) fn for_group(key: &str, group: &str) -> v1::ContextSpec {
    v1::ContextSpec { scope: v1::ContextScope::Group as i32, groups: vec![group.to_owned()], ..spec(key) }
}

#[tokio::test]
async fn groups_are_made_filled_listed_and_ended() {
    let server = Server::start().await;
    let admin = server.admin().await;
    let create = |name: &str, description: &str| {
        let request = v1::CreateGroupRequest { name: name.to_owned(), description: description.to_owned() };
        let admin = admin.clone();
        async move { told(admin.admin().create_group(request).await) }
    };
    let made = create("blue", "the blue ones").await.unwrap();
    assert!(!made.existed);
    assert_eq!(made.group.as_ref().map(|g| (g.members, g.created_by.as_str())), Some((0, "admin")));
    assert!(create("blue", "the blue ones").await.unwrap().existed);
    assert_eq!(refused(create("blue", "other").await), ErrorCode::GroupExists);
    assert_eq!(refused(create("Blue", "").await), ErrorCode::InvalidName);
    assert_eq!(refused(create("", "").await), ErrorCode::MissingField);
    assert_eq!(refused(create("x", &"x".repeat(1025)).await), ErrorCode::FieldTooLarge);
    create("azure", "").await.unwrap();
    assert_eq!(add(&admin, "blue", &["w2", "w1", "w3"]).await.unwrap().members, 3);
    let again = add(&admin, "blue", &["w2"]).await.unwrap();
    assert_eq!(again.members, 3);
    assert_eq!(remove(&admin, "blue", &["w3", "w9"]).await.unwrap().members, 2);
    assert_eq!(refused(add(&admin, "red", &["w1"]).await), ErrorCode::GroupNotFound);
    assert_eq!(refused(remove(&admin, "red", &["w1"]).await), ErrorCode::GroupNotFound);
    let many: Vec<String> = (0..501).map(|n| format!("m{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(refused(add(&admin, "blue", &many).await), ErrorCode::FieldTooLarge);
    let list = |token: &str| {
        let request = v1::ListGroupsRequest { page_size: 1, page_token: token.to_owned() };
        let admin = admin.clone();
        async move { told(admin.admin().list_groups(request).await).unwrap() }
    };
    let first = list("").await;
    let second = list(&first.next_page_token).await;
    assert_eq!((first.groups[0].name.as_str(), second.groups[0].name.as_str()), ("azure", "blue"));
    assert_eq!(second.next_page_token, "");
    let members = |name: &str| {
        let request = v1::ListGroupMembersRequest { name: name.to_owned(), ..Default::default() };
        let admin = admin.clone();
        async move { told(admin.admin().list_group_members(request).await).map(|r| r.members) }
    };
    let ids: Vec<_> = members("blue").await.unwrap().into_iter().map(|m| m.agent_id).collect();
    assert_eq!(ids, ["w1", "w2"]);
    assert_eq!(refused(members("red").await), ErrorCode::GroupNotFound);
    for _ in 0..2 {
        let gone = v1::DeleteGroupRequest { name: "blue".to_owned() };
        told(admin.admin().delete_group(gone).await).unwrap();
    }
    assert_eq!(refused(members("blue").await), ErrorCode::GroupNotFound);
}

/// What an agent says of itself in its registration opens nothing.
#[tokio::test]
async fn membership_is_what_admins_say_and_not_what_agents_say() {
    let server = Server::start().await;
    let admin = server.admin().await;
    make(&admin, "blue", &["w1"]).await;
    let owner = server.agent("owner", &["agent-full"]).await;
    let (member, pretender) = (server.agent("w1", &["agent-full"]).await, server.agent("w2", &["agent-full"]).await);
    let said = v1::AgentSpec { groups: vec!["blue".to_owned()], ..crate::support::spec("w2") };
    pretender.register(said).await.unwrap();
    let made = share(&owner, for_group("plan", "blue"), "x").await.unwrap();
    assert_eq!(get(&member, &made.id, 0).await.unwrap().payload, "x");
    assert_eq!(refused(get(&pretender, &made.id, 0).await), ErrorCode::ContextNotFound);
    remove(&admin, "blue", &["w1"]).await.unwrap();
    assert_eq!(refused(get(&member, &made.id, 0).await), ErrorCode::ContextNotFound);
    add(&admin, "blue", &["w2"]).await.unwrap();
    assert_eq!(get(&pretender, &made.id, 0).await.unwrap().payload, "x");
}
