//! `ContextService`: made, read, written, ended, by the good way and by each error that the contract names.

use std::time::Duration;

use acb_proto::v1;
use acb_types::ErrorCode;

use crate::support::{Client, Failure, Server, Setup, refused, told};

pub(crate) fn spec(key: &str) -> v1::ContextSpec {
    v1::ContextSpec { key: key.to_owned(), r#type: "plan".to_owned(), ..Default::default() }
}

pub(crate) async fn share(client: &Client, spec: v1::ContextSpec, payload: &str) -> Result<v1::Context, Failure> {
    let request =
        v1::CreateContextRequest { spec: Some(spec), payload: payload.to_owned().into(), ..Default::default() };
    told(client.contexts().create_context(request).await).map(|r| r.context.unwrap())
}

pub(crate) async fn get(client: &Client, id: &str, at_rev: u64) -> Result<v1::Context, Failure> {
    let request = v1::GetContextRequest { context_id: id.to_owned(), at_rev, ..Default::default() };
    told(client.contexts().get_context(request).await).map(|r| r.context.unwrap())
}

pub(crate) fn payload_update(context: &v1::Context, payload: &str) -> v1::UpdateContextRequest {
    v1::UpdateContextRequest {
        context_id: context.id.clone(),
        payload: Some(payload.to_owned().into()),
        if_rev: context.rev,
        ..Default::default()
    }
}

pub(crate) async fn update(client: &Client, request: v1::UpdateContextRequest) -> Result<v1::Context, Failure> {
    told(client.contexts().update_context(request).await).map(|r| r.context.unwrap())
}

pub(crate) async fn delete(client: &Client, id: &str, if_rev: u64) -> Result<u64, Failure> {
    let request = v1::DeleteContextRequest { context_id: id.to_owned(), if_rev, force: if_rev == 0 };
    told(client.contexts().delete_context(request).await).map(|r| r.rev)
}

#[tokio::test]
async fn a_context_is_shared_read_changed_and_deleted() {
    let server = Setup::dev().start().await;
    let a = server.dev("default", "planner");
    share(&a, spec("other"), "x").await.unwrap();
    let made = share(&a, spec("plans/alpha"), "step 1").await.unwrap();
    assert_eq!((made.owner.as_str(), made.size_bytes, made.payload.len()), ("planner", 6, 0));
    let said = made.spec.clone().unwrap();
    assert_eq!((said.version.as_str(), said.scope()), ("0.1.0", v1::ContextScope::Private));
    let by_key = v1::GetContextRequest { key: "plans/alpha".to_owned(), ..Default::default() };
    let found = told(a.contexts().get_context(by_key).await).unwrap().context.unwrap();
    assert_eq!((found.payload.as_ref(), found.id.as_str()), (&b"step 1"[..], made.id.as_str()));
    let changed = update(&a, payload_update(&made, "step 2")).await.unwrap();
    assert_eq!((changed.rev, changed.spec.as_ref().unwrap().version.as_str()), (made.rev + 1, "0.1.1"));
    let stale = update(&a, payload_update(&made, "step 3")).await.unwrap_err();
    assert_eq!(
        (stale.code(), stale.error.details["rev"].clone()),
        (ErrorCode::RevisionConflict, changed.rev.to_string())
    );
    assert_eq!(get(&a, &made.id, made.rev).await.unwrap().payload, "step 1");
    assert_eq!(refused(get(&a, &made.id, made.rev - 1).await), ErrorCode::ContextNotFound);
    assert_eq!(refused(share(&a, spec("plans/alpha"), "other").await), ErrorCode::ContextExists);
    assert_eq!(refused(delete(&a, &made.id, made.rev).await), ErrorCode::RevisionConflict);
    let gone = delete(&a, &made.id, changed.rev).await.unwrap();
    assert_eq!(gone, changed.rev + 1);
    assert_eq!(delete(&a, &made.id, changed.rev).await.unwrap(), gone, "again is once");
    assert_eq!(refused(get(&a, &made.id, 0).await), ErrorCode::ContextNotFound);
    assert_eq!(get(&a, &made.id, changed.rev).await.unwrap().payload, "step 2", "history stays");
    let history = v1::ListContextHistoryRequest { context_id: made.id.clone(), page_size: 2, ..Default::default() };
    let first = told(a.contexts().list_context_history(history.clone()).await).unwrap();
    let revs = |page: &v1::ListContextHistoryResponse| page.revisions.iter().map(|c| c.rev).collect::<Vec<_>>();
    assert_eq!(revs(&first), [gone, changed.rev]);
    assert!(first.revisions[0].deleted && first.revisions[0].owner.is_empty());
    let history = v1::ListContextHistoryRequest { page_token: first.next_page_token, ..history };
    let rest = told(a.contexts().list_context_history(history).await).unwrap();
    assert_eq!((revs(&rest), rest.next_page_token.as_str()), (vec![made.rev], ""));
    share(&a, spec("plans/alpha"), "anew").await.unwrap();
}

#[tokio::test]
async fn payloads_of_every_size_come_back_and_larger_ones_name_the_way() {
    let server = Setup::dev().start().await;
    let a = server.dev("default", "planner");
    let sizes = [0, 1, 16 * 1024, 16 * 1024 + 1, 300_000, 1_048_576];
    let mut made = Vec::new();
    for n in sizes {
        let payload: String = (0..n).map(|i| char::from(b'a' + (i % 23) as u8)).collect();
        made.push((share(&a, spec(""), &payload).await.unwrap(), payload));
    }
    let server = server.restart().await;
    let a = server.dev("default", "planner");
    for (context, payload) in &made {
        let back = get(&a, &context.id, 0).await.unwrap();
        assert_eq!((back.size_bytes as usize, back.streamed), (payload.len(), false));
        assert!(back.payload == payload.as_bytes(), "{} bytes", payload.len());
        assert_eq!(back.sha256, context.sha256);
    }
    let large = share(&a, spec(""), &"x".repeat(1_048_577)).await.unwrap_err();
    assert_eq!((large.code(), large.error.details["limit"].as_str()), (ErrorCode::ContextTooLarge, "1048576"));
    assert!(large.error.message.contains("StreamService"), "{large:?}");
    let larger = update(&a, payload_update(&made[0].0, &"x".repeat(1_048_577))).await;
    assert_eq!(refused(larger), ErrorCode::ContextTooLarge);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_by_name() {
    let server = Setup::dev().start().await;
    let a = server.dev("default", "planner");
    let made = share(&a, spec("k"), "x").await.unwrap();
    let with = |change: &dyn Fn(&mut v1::ContextSpec)| {
        let mut spec = spec("");
        change(&mut spec);
        spec
    };
    let cases: Vec<(v1::ContextSpec, ErrorCode)> = vec![
        (with(&|s| s.key = "a b".to_owned()), ErrorCode::InvalidName),
        (with(&|s| s.r#type = "x".repeat(129)), ErrorCode::FieldTooLarge),
        (with(&|s| s.version = "1.2".to_owned()), ErrorCode::InvalidVersion),
        (with(&|s| s.scope = 9), ErrorCode::UnknownEnum),
        (with(&|s| s.scope = v1::ContextScope::Group as i32), ErrorCode::MissingField),
        (with(&|s| s.groups = vec!["blue".to_owned()]), ErrorCode::InvalidArgument),
        (
            with(&|s| {
                s.scope = v1::ContextScope::Group as i32;
                s.groups = vec!["nowhere".to_owned()];
            }),
            ErrorCode::GroupNotFound,
        ),
        (with(&|s| s.ttl_ms = u64::MAX), ErrorCode::InvalidArgument),
        (with(&|s| s.labels = vec![String::new()]), ErrorCode::InvalidArgument),
    ];
    for (spec, code) in cases {
        assert_eq!(refused(share(&a, spec.clone(), "").await), code, "{spec:?}");
    }
    let id = |id: &str| v1::CreateContextRequest {
        context_id: id.to_owned(),
        spec: Some(v1::ContextSpec::default()),
        ..Default::default()
    };
    assert_eq!(refused(told(a.contexts().create_context(id("nope")).await)), ErrorCode::InvalidName);
    let none = v1::CreateContextRequest::default();
    assert_eq!(refused(told(a.contexts().create_context(none).await)), ErrorCode::MissingField);
    let neither = v1::UpdateContextRequest { context_id: made.id.clone(), ..Default::default() };
    assert_eq!(refused(update(&a, neither.clone()).await), ErrorCode::MissingField);
    let both = v1::UpdateContextRequest { if_rev: 1, force: true, ..neither.clone() };
    assert_eq!(refused(update(&a, both).await), ErrorCode::InvalidArgument);
    let field = v1::UpdateContextRequest { if_rev: made.rev, fields: vec!["key".to_owned()], ..neither.clone() };
    assert_eq!(refused(update(&a, field).await), ErrorCode::InvalidArgument);
    let low = v1::ContextSpec { version: "0.1.0".to_owned(), ..Default::default() };
    let low = v1::UpdateContextRequest {
        if_rev: made.rev,
        fields: vec!["version".to_owned()],
        spec: Some(low),
        ..neither.clone()
    };
    assert_eq!(refused(update(&a, low).await), ErrorCode::InvalidVersion);
    let key = v1::UpdateContextRequest { if_rev: made.rev, idempotency_key: "x".repeat(129), ..neither };
    assert_eq!(refused(update(&a, key).await), ErrorCode::FieldTooLarge);
    assert_eq!(get(&a, &made.id, 0).await.unwrap().rev, made.rev, "nothing of it was done");
}

#[tokio::test]
async fn a_repeated_create_and_a_repeated_update_are_done_once() {
    let server = Setup::dev().start().await;
    let a = server.dev("default", "planner");
    let request = v1::CreateContextRequest {
        context_id: uuid::Uuid::now_v7().to_string(),
        spec: Some(spec("k")),
        payload: "x".into(),
    };
    let first = told(a.contexts().create_context(request.clone()).await).unwrap();
    let again = told(a.contexts().create_context(request.clone()).await).unwrap();
    assert_eq!((first.existed, again.existed, &first.context), (false, true, &again.context));
    let other = v1::CreateContextRequest { payload: "y".into(), ..request };
    assert_eq!(refused(told(a.contexts().create_context(other).await)), ErrorCode::ContextExists);
    let made = first.context.unwrap();
    let keyed = v1::UpdateContextRequest { idempotency_key: "once".to_owned(), ..payload_update(&made, "z") };
    let first = told(a.contexts().update_context(keyed.clone()).await).unwrap();
    let again = told(a.contexts().update_context(keyed.clone()).await).unwrap();
    assert_eq!((first.duplicate, again.duplicate, &first.context), (false, true, &again.context));
    let other = v1::UpdateContextRequest { payload: Some("w".into()), ..keyed };
    assert_eq!(refused(update(&a, other).await), ErrorCode::IdempotencyConflict);
}

#[tokio::test]
async fn lists_are_filtered_and_paged_and_tell_their_revision() {
    let server = Setup::dev().start().await;
    let (a, b) = (server.dev("default", "a"), server.dev("default", "b"));
    for n in 0..7 {
        let label = if n % 2 == 0 { "even" } else { "odd" };
        let said = v1::ContextSpec {
            labels: vec![label.to_owned()],
            scope: v1::ContextScope::Public as i32,
            description: format!("number {n}"),
            ..spec(&format!("n/{n}"))
        };
        share(&a, said, "x").await.unwrap();
    }
    share(&b, spec("private"), "x").await.unwrap();
    let list = |client: &Client, request: v1::ListContextsRequest| {
        let client = client.clone();
        async move { told(client.contexts().list_contexts(request).await) }
    };
    let keys = |page: &v1::ListContextsResponse| {
        page.contexts.iter().map(|c| c.spec.as_ref().unwrap().key.clone()).collect::<Vec<_>>()
    };
    let even = v1::ListContextsRequest { labels: vec!["even".to_owned()], page_size: 3, ..Default::default() };
    let first = list(&a, even.clone()).await.unwrap();
    assert_eq!((keys(&first), first.revision), (vec!["n/0".to_owned(), "n/2".to_owned(), "n/4".to_owned()], 8));
    share(&a, spec("later"), "x").await.unwrap();
    let next = v1::ListContextsRequest { page_token: first.next_page_token.clone(), ..even.clone() };
    let rest = list(&a, next.clone()).await.unwrap();
    assert_eq!((keys(&rest), rest.revision, rest.next_page_token.as_str()), (vec!["n/6".to_owned()], 8, ""));
    let other = v1::ListContextsRequest { labels: vec![], ..next };
    assert_eq!(refused(list(&a, other).await), ErrorCode::InvalidPageToken);
    let text = v1::ListContextsRequest { text: "NUMBER 5".to_owned(), ..Default::default() };
    assert_eq!(keys(&list(&a, text).await.unwrap()), ["n/5"]);
    assert_eq!(
        list(&b, v1::ListContextsRequest::default()).await.unwrap().contexts.len(),
        8,
        "public ones and its own"
    );
    let mine = v1::ListContextsRequest { owner: "b".to_owned(), ..Default::default() };
    assert!(list(&a, mine).await.unwrap().contexts.is_empty());
    assert!(first.contexts.iter().all(|c| c.payload.is_empty()));
}

#[tokio::test]
async fn what_is_over_is_absent_at_once_and_gets_a_marker() {
    let server = Setup::dev().start().await;
    let a = server.dev("default", "a");
    let short = v1::ContextSpec { ttl_ms: 60_000, ..spec("short") };
    let made = share(&a, short.clone(), "x").await.unwrap();
    assert_eq!(made.expires_at_ms, server.clock_ms() + 60_000);
    let renewed = v1::RenewContextTtlRequest { context_id: made.id.clone(), ttl_ms: 120_000 };
    let renewed = told(a.contexts().renew_context_ttl(renewed).await).unwrap();
    assert_eq!(renewed.expires_at_ms, server.clock_ms() + 120_000);
    server.advance(Duration::from_millis(119_999));
    assert_eq!(get(&a, &made.id, 0).await.unwrap().rev, made.rev);
    server.advance(Duration::from_millis(1));
    assert_eq!(refused(get(&a, &made.id, 0).await), ErrorCode::ContextNotFound);
    assert_eq!(refused(update(&a, payload_update(&made, "y")).await), ErrorCode::ContextNotFound);
    share(&a, short, "the key is free").await.unwrap();
    let history = v1::ListContextHistoryRequest { context_id: made.id.clone(), ..Default::default() };
    let rows = told(a.contexts().list_context_history(history).await).unwrap().revisions;
    assert_eq!((rows.len(), rows[0].deleted), (2, true));
    assert!(server.metrics().await.contains("acb_context_expiries_total{tenant=\"default\"}"));
}

#[tokio::test]
async fn force_and_shares_are_audited_and_counted() {
    let server = Server::start().await;
    let a = server.agent("a", &["agent-full"]).await;
    let made = share(&a, spec("k"), "x").await.unwrap();
    update(&a, payload_update(&made, "y")).await.unwrap();
    let forced = v1::UpdateContextRequest { if_rev: 0, force: true, ..payload_update(&made, "z") };
    update(&a, forced).await.unwrap();
    delete(&a, &made.id, 0).await.unwrap();
    let folder = server.data_folder();
    let metrics = server.metrics().await;
    assert!(metrics.contains("acb_context_writes_total{tenant=\"default\"} 4"), "{metrics}");
    server.stop().await;
    let store = acb_store_embedded::SqliteMetadata::open(&acb_store_embedded::SqliteConfig::new(
        folder.path().join("data/metadata.sqlite"),
    ))
    .unwrap();
    let rows = acb_ports::MetadataStore::audit_list(&store, &"default".parse().unwrap(), None, 100).await.unwrap();
    let of: Vec<_> = rows
        .iter()
        .filter(|r| r.entry.target == made.id)
        .map(|r| (r.entry.action.as_str(), r.entry.actor.as_str()))
        .collect();
    assert_eq!(of, [("context.update.force", "a"), ("context.delete.force", "a")]);
}
