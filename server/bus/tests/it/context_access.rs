//! Who may do what with a context: each verb by each role, scope and relation, through the server, against a table that
//! people wrote by hand. And what is hidden looks like what is absent.

use std::collections::BTreeMap;

use acb_proto::v1;
use acb_types::ErrorCode;

use crate::{
    context::{delete, get, share, spec, update},
    group::make,
    support::{Client, Failure, Server, refused, told},
};

const ROLES: [&str; 5] = ["admin", "agent-producer", "agent-consumer", "agent-full", "observer"];
const VERBS: [&str; 5] = ["read", "update", "share", "renew", "delete"];

/// A context of `owner` that `who` has this relation to.
async fn make_context(owner: &Client, who: &str, relation: &str, scope: &str, key: &str) -> v1::Context {
    let share_with = |agent: &str, access: v1::ContextAccess| {
        vec![v1::ContextShare { agent_id: agent.to_owned(), access: access as i32 }]
    };
    let mut said = spec(key);
    match scope {
        "private" => {}
        "public" => said.scope = v1::ContextScope::Public as i32,
        "group" => {
            said.scope = v1::ContextScope::Group as i32;
            said.groups = vec![if relation == "member" { "members" } else { "others" }.to_owned()];
        }
        "shared" => {
            said.scope = v1::ContextScope::Shared as i32;
            said.shares = match relation {
                "writer" => share_with(who, v1::ContextAccess::Write),
                "reader" => share_with(who, v1::ContextAccess::Read),
                _ => share_with("somebody-else", v1::ContextAccess::Write),
            };
        }
        other => panic!("{other}"),
    }
    share(owner, said, "x").await.unwrap()
}

/// Tries one verb, and says what came of it.
async fn attempt(client: &Client, verb: &str, context: &v1::Context) -> char {
    let outcome: Result<Option<u64>, Failure> = match verb {
        "read" => get(client, &context.id, 0).await.map(|_| None),
        "update" => {
            let request = v1::UpdateContextRequest {
                context_id: context.id.clone(),
                payload: Some("y".into()),
                force: true,
                ..Default::default()
            };
            update(client, request).await.map(|_| None)
        }
        "share" => {
            let request = v1::UpdateContextRequest {
                context_id: context.id.clone(),
                spec: context.spec.clone(),
                fields: vec!["scope".to_owned(), "groups".to_owned(), "shares".to_owned()],
                force: true,
                ..Default::default()
            };
            update(client, request).await.map(|_| None)
        }
        "renew" => {
            let request = v1::RenewContextTtlRequest { context_id: context.id.clone(), ttl_ms: 0 };
            told(client.contexts().renew_context_ttl(request).await).map(|_| None)
        }
        "delete" => delete(client, &context.id, 0).await.map(Some),
        other => panic!("{other}"),
    };
    match outcome {
        // Deleting what is absent succeeds, without a marker.
        Ok(Some(0)) => '.',
        Ok(_) => '+',
        Err(e) if e.code() == ErrorCode::PermissionDenied => '-',
        Err(e) if e.code() == ErrorCode::ContextNotFound => '.',
        Err(e) => panic!("{verb}: {e:?}"),
    }
}

#[tokio::test]
async fn each_verb_by_each_role_scope_and_relation_is_as_the_table_says() {
    let golden = include_str!("../golden/context-access.txt");
    let server = Server::start().await;
    let admin = server.admin().await;
    make(&admin, "members", &ROLES.map(|role| format!("the-{role}")).each_ref().map(String::as_str)).await;
    make(&admin, "others", &[]).await;
    let other = server.agent("other", &["agent-full"]).await;
    // Each acts with its role; to own something it is made with another role of the same agent.
    let mut actors = BTreeMap::new();
    for role in ROLES {
        let id = format!("the-{role}");
        actors.insert(role, (server.agent(&id, &[role]).await, server.agent(&id, &["agent-full"]).await));
    }
    let mut wrong = Vec::new();
    let mut cells = 0;
    for line in golden.lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty()) {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (relation, scope, expected) = (columns[0], columns[1], &columns[2..]);
        for (role, expected) in ROLES.iter().zip(expected) {
            let (actor, maker) = &actors[role];
            let who = format!("the-{role}");
            let owner = if relation == "owner" { maker } else { &other };
            let context = make_context(owner, &who, relation, scope, "").await;
            let mut actual = String::new();
            for verb in VERBS {
                actual.push(attempt(actor, verb, &context).await);
                cells += 1;
            }
            if actual != *expected {
                wrong.push(format!("{relation} {scope} {role}: {actual} instead of {expected}"));
            }
            // Lists, histories and watches show exactly what may be read.
            let visible = expected.starts_with('+') && !expected.ends_with('+');
            let list = v1::ListContextsRequest { page_size: 500, ..Default::default() };
            let listed = told(actor.contexts().list_contexts(list).await).unwrap().contexts;
            assert_eq!(listed.iter().any(|c| c.id == context.id), visible, "{relation} {scope} {role}: list");
            let history = v1::ListContextHistoryRequest { context_id: context.id.clone(), ..Default::default() };
            let history = told(actor.contexts().list_context_history(history).await);
            assert_eq!(history.is_ok(), expected.starts_with('+'), "{relation} {scope} {role}: history");
            let watch = v1::WatchRequest { context_id: context.id.clone(), ..Default::default() };
            let mut watch = actor.contexts().watch(watch).await.unwrap().into_inner();
            let first = watch.message().await.unwrap().unwrap();
            assert_eq!(first.events.len(), usize::from(visible), "{relation} {scope} {role}: watch");
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(cells, 11 * 5 * 5);
}

/// What is hidden, what is over, what was deleted by others and what never was answer alike: the same code, the same
/// words but for the id, no other details.
#[tokio::test]
async fn a_foreign_id_and_an_absent_one_answer_alike() {
    let server = Server::start().await;
    let (owner, stranger) =
        (server.agent("owner", &["agent-full"]).await, server.agent("stranger", &["agent-full"]).await);
    let hidden = share(&owner, spec("secret/plan"), "x").await.unwrap();
    let gone = share(&owner, spec("gone"), "x").await.unwrap();
    delete(&owner, &gone.id, gone.rev).await.unwrap();
    let never = uuid::Uuid::now_v7().to_string();
    let mut answers = Vec::new();
    for id in [&hidden.id, &gone.id, &never] {
        let force = v1::UpdateContextRequest { context_id: id.clone(), force: true, ..Default::default() };
        let at = v1::UpdateContextRequest { if_rev: hidden.rev, force: false, ..force.clone() };
        let failures = [
            get(&stranger, id, 0).await.map(|_| ()).unwrap_err(),
            get(&stranger, id, hidden.rev).await.map(|_| ()).unwrap_err(),
            update(&stranger, force).await.map(|_| ()).unwrap_err(),
            update(&stranger, at).await.map(|_| ()).unwrap_err(),
            told(
                stranger
                    .contexts()
                    .renew_context_ttl(v1::RenewContextTtlRequest { context_id: id.clone(), ttl_ms: 1 })
                    .await,
            )
            .map(|_| ())
            .unwrap_err(),
            told(
                stranger
                    .contexts()
                    .list_context_history(v1::ListContextHistoryRequest {
                        context_id: id.clone(),
                        ..Default::default()
                    })
                    .await,
            )
            .map(|_| ())
            .unwrap_err(),
        ];
        let told: Vec<_> = failures
            .iter()
            .map(|f| (f.code(), f.error.message.replace(id.as_str(), "ID"), f.error.details.clone(), f.status))
            .collect();
        answers.push((told, delete(&stranger, id, 0).await.unwrap(), delete(&stranger, id, hidden.rev).await.unwrap()));
    }
    assert_eq!(answers[0], answers[2], "hidden and never");
    assert_eq!(answers[1], answers[2], "deleted and never");
    let by_key = |key: &str| v1::GetContextRequest { key: key.to_owned(), ..Default::default() };
    for key in ["secret/plan", "gone", "never"] {
        let found = told(stranger.contexts().get_context(by_key(key)).await);
        assert_eq!(refused(found), ErrorCode::ContextNotFound, "{key}");
    }
    assert_eq!(get(&owner, &hidden.id, 0).await.unwrap().rev, hidden.rev, "nothing came of it");
}

/// Whoever is let in later sees what is, and not what was before.
#[tokio::test]
async fn history_before_somebody_was_let_in_stays_hidden() {
    let server = Server::start().await;
    let (owner, reader) = (server.agent("owner", &["agent-full"]).await, server.agent("reader", &["agent-full"]).await);
    let secret = share(&owner, spec("plan"), "the secret").await.unwrap();
    let open = v1::UpdateContextRequest {
        context_id: secret.id.clone(),
        if_rev: secret.rev,
        spec: Some(v1::ContextSpec { scope: v1::ContextScope::Public as i32, ..Default::default() }),
        fields: vec!["scope".to_owned()],
        payload: Some("for all".into()),
        ..Default::default()
    };
    let public = update(&owner, open).await.unwrap();
    assert_eq!(get(&reader, &secret.id, 0).await.unwrap().payload, "for all");
    assert_eq!(refused(get(&reader, &secret.id, secret.rev).await), ErrorCode::ContextNotFound);
    let history = v1::ListContextHistoryRequest { context_id: secret.id.clone(), ..Default::default() };
    let rows = told(reader.contexts().list_context_history(history.clone()).await).unwrap().revisions;
    assert_eq!(rows.iter().map(|c| c.rev).collect::<Vec<_>>(), [public.rev]);
    assert_eq!(told(owner.contexts().list_context_history(history).await).unwrap().revisions.len(), 2);
}
