//! `Watch`: the state at a revision, then every change after it, each once and in order.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use acb_proto::v1::{self, ContextEventKind as Kind};
use acb_types::ErrorCode;
use tonic::Streaming;

use crate::{
    context::{delete, payload_update, share, spec, update},
    group::{add, for_group, make, remove},
    support::{Client, Failure, Server, Setup, failure, refused},
};

/// How long a frame may take before it counts as never.
const SOON: Duration = Duration::from_secs(60);

/// A watch, and what came of it.
struct Watch {
    stream: Streaming<v1::WatchResponse>,
    revision: u64,
    complete: bool,
}

impl Watch {
    async fn open(client: &Client, request: v1::WatchRequest) -> Result<Self, Failure> {
        let stream = client.contexts().watch(request).await.map_err(|s| failure(&s))?.into_inner();
        Ok(Self { stream, revision: 0, complete: false })
    }

    async fn all(client: &Client) -> Self {
        Self::open(client, v1::WatchRequest::default()).await.unwrap()
    }

    /// The next frame, also one without events.
    async fn frame(&mut self) -> Result<Vec<v1::ContextEvent>, Failure> {
        let frame = tokio::time::timeout(SOON, self.stream.message()).await.expect("no frame came");
        let frame = frame.map_err(|s| failure(&s))?.expect("the stream ended without an error");
        assert!(frame.revision >= self.revision, "{} after {}", frame.revision, self.revision);
        self.revision = frame.revision;
        self.complete = frame.state_complete;
        Ok(frame.events)
    }

    /// All events until one is wanted for the last.
    async fn until(&mut self, mut last: impl FnMut(&v1::ContextEvent) -> bool) -> Vec<v1::ContextEvent> {
        let mut all = Vec::new();
        while !all.last().is_some_and(&mut last) {
            all.extend(self.frame().await.unwrap());
        }
        all
    }

    /// The state, up to where it is complete.
    async fn state(&mut self) -> Vec<v1::ContextEvent> {
        let mut all = Vec::new();
        while !self.complete {
            all.extend(self.frame().await.unwrap());
        }
        assert!(all.iter().all(|e| e.kind() == Kind::State), "{all:?}");
        all
    }
}

fn told(events: &[v1::ContextEvent]) -> Vec<(Kind, String, u64)> {
    let of = |e: &v1::ContextEvent| {
        let context = e.context.as_ref().unwrap();
        (e.kind(), context.spec.as_ref().unwrap().key.clone(), context.rev)
    };
    events.iter().map(of).collect()
}

fn event(kind: Kind, key: &str, rev: u64) -> (Kind, String, u64) {
    (kind, key.to_owned(), rev)
}

#[tokio::test]
async fn a_watch_brings_the_state_and_then_each_change() {
    let server = Setup::dev().start().await;
    let a = server.dev("default", "a");
    let one = share(&a, spec("one"), "1").await.unwrap();
    share(&a, spec("two"), "2").await.unwrap();
    let request = v1::WatchRequest { payload_bytes_max: 100_000, ..Default::default() };
    let mut watch = Watch::open(&a, request).await.unwrap();
    let state = watch.state().await;
    assert_eq!(told(&state), [event(Kind::State, "one", 1), event(Kind::State, "two", 2)]);
    assert_eq!((watch.revision, state[0].context.as_ref().unwrap().payload.as_ref()), (2, &b"1"[..]));
    let large = "x".repeat(50_000);
    let changed = update(&a, payload_update(&one, &large)).await.unwrap();
    share(&a, spec("three"), "3").await.unwrap();
    delete(&a, &one.id, changed.rev).await.unwrap();
    let short = v1::ContextSpec { ttl_ms: 1000, ..spec("short") };
    share(&a, short, "4").await.unwrap();
    server.advance(Duration::from_secs(1));
    let events = watch.until(|e| e.kind() == Kind::Expired).await;
    let expected = [
        event(Kind::Updated, "one", 3),
        event(Kind::Created, "three", 4),
        event(Kind::Deleted, "one", 5),
        event(Kind::Created, "short", 6),
        event(Kind::Expired, "short", 7),
    ];
    assert_eq!(told(&events), expected);
    assert_eq!(events[0].context.as_ref().unwrap().payload.len(), 50_000, "a blob's payload comes too");
    let marker = events[2].context.as_ref().unwrap();
    assert!(marker.deleted && marker.owner.is_empty() && marker.updated_by == "a");
}

#[tokio::test]
async fn each_condition_of_a_watch_narrows_it() {
    let server = Setup::dev().start().await;
    let (a, b) = (server.dev("default", "a"), server.dev("default", "b"));
    let public = |key: &str| v1::ContextSpec { scope: v1::ContextScope::Public as i32, ..spec(key) };
    let mut made = BTreeMap::new();
    for key in ["plans/1", "plans/2", "notes/1"] {
        made.insert(key, share(&a, public(key), "x").await.unwrap());
    }
    made.insert(
        "other",
        share(&b, v1::ContextSpec { r#type: "note".to_owned(), ..public("other") }, "x").await.unwrap(),
    );
    let labelled = v1::ContextSpec { labels: vec!["hot".to_owned()], ..public("labelled") };
    made.insert("labelled", share(&b, labelled, "x").await.unwrap());
    let none = v1::WatchRequest::default;
    let wishes: Vec<(v1::WatchRequest, Vec<&str>)> = vec![
        (v1::WatchRequest { context_id: made["plans/2"].id.clone(), ..none() }, vec!["plans/2"]),
        (v1::WatchRequest { key: "plans/1".to_owned(), ..none() }, vec!["plans/1"]),
        (v1::WatchRequest { key_prefix: "plans/".to_owned(), ..none() }, vec!["plans/1", "plans/2"]),
        (v1::WatchRequest { r#type: "note".to_owned(), ..none() }, vec!["other"]),
        (v1::WatchRequest { owner: "b".to_owned(), ..none() }, vec!["other", "labelled"]),
        (v1::WatchRequest { labels: vec!["hot".to_owned()], ..none() }, vec!["labelled"]),
    ];
    let mut watches = Vec::new();
    for (wish, keys) in wishes {
        let mut watch = Watch::open(&a, wish).await.unwrap();
        let state = watch.state().await;
        let seen: Vec<_> = told(&state).into_iter().map(|(_, key, _)| key).collect();
        assert_eq!(seen, keys);
        watches.push((watch, keys));
    }
    // Every context changes once, and each watch hears of its own.
    for context in made.values() {
        let owner = if ["other", "labelled"].contains(&context.spec.as_ref().unwrap().key.as_str()) { &b } else { &a };
        update(owner, payload_update(context, "y")).await.unwrap();
    }
    // A label goes: for its watch the context is gone, for others it changed.
    let unlabelled = v1::UpdateContextRequest {
        context_id: made["labelled"].id.clone(),
        spec: Some(v1::ContextSpec::default()),
        fields: vec!["labels".to_owned()],
        force: true,
        ..Default::default()
    };
    update(&b, unlabelled).await.unwrap();
    for (mut watch, keys) in watches {
        let mut seen = Vec::new();
        while watch.revision < 11 {
            seen.extend(told(&watch.frame().await.unwrap()));
            server.advance(Duration::from_secs(10));
        }
        let mut heard: Vec<_> =
            seen.iter().filter(|(kind, ..)| *kind == Kind::Updated).map(|(_, k, _)| k.as_str()).collect();
        heard.sort_unstable();
        heard.dedup();
        let mut keys = keys;
        keys.sort_unstable();
        assert_eq!(heard, keys);
        let deleted = seen.iter().any(|(kind, ..)| *kind == Kind::Deleted);
        assert_eq!(deleted, keys == ["labelled"], "{seen:?}");
    }
}

#[tokio::test]
async fn what_comes_into_sight_is_created_and_what_goes_out_of_it_deleted() {
    let server = Server::start().await;
    let admin = server.admin().await;
    make(&admin, "blue", &[]).await;
    make(&admin, "red", &["w"]).await;
    let owner = server.agent("owner", &["agent-full"]).await;
    let watcher = server.agent("w", &["observer"]).await;
    let blue = share(&owner, for_group("blue", "blue"), "secret").await.unwrap();
    let mut both = for_group("both", "blue");
    both.groups.push("red".to_owned());
    share(&owner, both, "x").await.unwrap();
    let private = share(&owner, spec("private"), "x").await.unwrap();
    let request = v1::WatchRequest { payload_bytes_max: 1000, ..Default::default() };
    let mut watch = Watch::open(&watcher, request).await.unwrap();
    let state = watch.state().await;
    assert_eq!(told(&state).into_iter().map(|(_, key, _)| key).collect::<Vec<_>>(), ["both"]);
    let begun = watch.revision;
    // The watcher comes into a group, and out of it again.
    add(&admin, "blue", &["w"]).await.unwrap();
    let joined = watch.until(|_| true).await;
    assert_eq!(told(&joined), [event(Kind::Created, "blue", blue.rev)]);
    assert_eq!(joined[0].context.as_ref().unwrap().payload, "secret");
    let changed = update(&owner, payload_update(&blue, "more")).await.unwrap();
    assert_eq!(told(&watch.until(|_| true).await), [event(Kind::Updated, "blue", changed.rev)]);
    remove(&admin, "blue", &["w"]).await.unwrap();
    let left = watch.until(|_| true).await;
    assert_eq!(told(&left), [event(Kind::Deleted, "blue", changed.rev)]);
    let marker = left[0].context.as_ref().unwrap();
    assert!(marker.deleted && marker.payload.is_empty() && marker.sha256.is_empty(), "{marker:?}");
    update(&owner, payload_update(&changed, "unseen")).await.unwrap();
    // A context is shared with it, and taken back.
    let scope = |scope: v1::ContextScope, shares: &[&str]| v1::UpdateContextRequest {
        context_id: private.id.clone(),
        spec: Some(v1::ContextSpec {
            scope: scope as i32,
            shares: shares.iter().map(|a| v1::ContextShare { agent_id: a.to_string(), access: 0 }).collect(),
            ..Default::default()
        }),
        fields: vec!["scope".to_owned(), "shares".to_owned()],
        force: true,
        ..Default::default()
    };
    let shared = update(&owner, scope(v1::ContextScope::Shared, &["w"])).await.unwrap();
    assert_eq!(told(&watch.until(|_| true).await), [event(Kind::Created, "private", shared.rev)]);
    let back = update(&owner, scope(v1::ContextScope::Private, &[])).await.unwrap();
    assert_eq!(told(&watch.until(|_| true).await), [event(Kind::Deleted, "private", back.rev)]);
    // The same again from the state's revision: a resume tells the same, as the groups were then.
    let request = v1::WatchRequest { after_rev: begun, ..Default::default() };
    let mut again = Watch::open(&watcher, request).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 5 {
        seen.extend(told(&again.frame().await.unwrap()).into_iter().map(|(kind, key, _)| (kind, key)));
    }
    let expected = [
        (Kind::Created, "blue"),
        (Kind::Updated, "blue"),
        (Kind::Deleted, "blue"),
        (Kind::Created, "private"),
        (Kind::Deleted, "private"),
    ];
    assert_eq!(seen, expected.map(|(kind, key)| (kind, key.to_owned())));
    // An ended group is left by everybody.
    add(&admin, "blue", &["w"]).await.unwrap();
    watch.until(|_| true).await;
    let gone = v1::DeleteGroupRequest { name: "blue".to_owned() };
    admin.admin().delete_group(gone).await.unwrap();
    assert_eq!(told(&watch.until(|_| true).await)[0].0, Kind::Deleted);
}

#[tokio::test]
async fn a_quiet_watch_says_every_10_s_how_far_it_is() {
    let server = Setup::dev().start().await;
    let (a, b) = (server.dev("default", "a"), server.dev("default", "b"));
    let mut watch = Watch::all(&a).await;
    assert!(watch.state().await.is_empty());
    for n in 1..=3 {
        share(&b, spec(&format!("private/{n}")), "x").await.unwrap();
        crate::support::wait_until("the watch sleeps", || async { server.clock.sleepers() }, |n| *n > 0).await;
        let frame = tokio::join!(watch.frame(), async {
            // As often as it takes: the watch may set its alarm after the first.
            let mut looks = tokio::time::interval(Duration::from_millis(5));
            for _ in 0..200 {
                looks.tick().await;
                server.advance(Duration::from_millis(500));
            }
        });
        assert!(frame.0.unwrap().is_empty());
        assert!(watch.revision >= n.min(1), "unseen changes move the revision on");
    }
}

#[tokio::test]
async fn a_watch_that_goes_on_where_nothing_is_new_says_at_once_that_it_stands() {
    // Time stands: no heartbeat comes.
    let server = Setup::dev().start().await;
    let (a, b) = (server.dev("default", "a"), server.dev("default", "b"));
    let mine = share(&a, spec("mine"), "x").await.unwrap();
    let resume = v1::WatchRequest { after_rev: mine.rev, ..Default::default() };
    let mut watch = Watch::open(&a, resume.clone()).await.unwrap();
    assert_eq!(watch.frame().await.unwrap(), []);
    assert_eq!(watch.revision, mine.rev);
    // What it does not see moves its revision on all the same.
    let hidden = share(&b, spec("hidden"), "x").await.unwrap();
    let mut watch = Watch::open(&a, resume).await.unwrap();
    assert_eq!(watch.frame().await.unwrap(), []);
    assert_eq!(watch.revision, hidden.rev);
}

#[tokio::test]
async fn a_resume_from_before_what_is_kept_is_a_typed_gap() {
    let server = Setup::dev().start().await;
    let a = server.dev("default", "a");
    let first = share(&a, spec("counter"), "0").await.unwrap();
    share(&a, spec("quiet"), "0").await.unwrap();
    let mut counter = first.clone();
    for n in 1..=66 {
        counter = update(&a, payload_update(&counter, &n.to_string())).await.unwrap();
    }
    let server = server.restart().await;
    let a = server.dev("default", "a");
    let resume = |after_rev, key: &str| v1::WatchRequest { after_rev, key: key.to_owned(), ..Default::default() };
    let mut lost = Watch::open(&a, resume(1, "counter")).await.unwrap();
    let gap = lost.frame().await.unwrap_err();
    assert_eq!(gap.code(), ErrorCode::RevisionGap);
    let oldest: u64 = gap.error.details["oldest_rev"].parse().unwrap();
    assert!(oldest > 1 && oldest < counter.rev, "{oldest}");
    // Who watches something else has no hole, and whoever is young enough neither.
    share(&a, spec("quiet2"), "0").await.unwrap();
    let mut quiet = Watch::open(&a, resume(1, "quiet")).await.unwrap();
    assert_eq!(told(&quiet.until(|_| true).await), [event(Kind::Created, "quiet", 2)]);
    let mut young = Watch::open(&a, resume(counter.rev - 10, "counter")).await.unwrap();
    let seen = young.until(|e| e.context.as_ref().unwrap().rev == counter.rev).await;
    assert_eq!(seen.len(), 10);
    let ahead = Watch::open(&a, resume(1_000_000, "")).await;
    assert_eq!(refused(ahead.map(|_| ())), ErrorCode::RevisionGap);
}

#[tokio::test]
async fn a_watch_ends_with_its_token_and_goes_on_with_another() {
    let server = Server::start().await;
    let key = server.key(&["agent-full"]).await;
    let (a, _) = server.login(&key, "a").await;
    share(&a, spec("one"), "x").await.unwrap();
    let mut watch = Watch::all(&a).await;
    watch.state().await;
    let at = watch.revision;
    server.advance(Duration::from_hours(1));
    assert_eq!(watch.frame().await.unwrap_err().code(), ErrorCode::TokenExpired);
    let (a, _) = server.login(&key, "a").await;
    share(&a, spec("two"), "x").await.unwrap();
    let request = v1::WatchRequest { after_rev: at, ..Default::default() };
    let mut watch = Watch::open(&a, request).await.unwrap();
    assert_eq!(told(&watch.until(|_| true).await)[0].1, "two");
}

#[tokio::test]
async fn an_agent_has_64_watches_and_a_drained_server_ends_them() {
    let server = Setup::dev().start().await;
    let a = server.dev("default", "a");
    let mut open = Vec::new();
    for _ in 0..64 {
        let mut watch = Watch::all(&a).await;
        watch.state().await;
        open.push(watch);
    }
    let one_more = Watch::open(&a, v1::WatchRequest::default()).await.map(|_| ());
    assert_eq!(refused(one_more), ErrorCode::TooManyStreams);
    assert!(server.metrics().await.contains("acb_watches{tenant=\"default\"} 64"));
    Watch::all(&server.dev("default", "b")).await.state().await;
    drop(open.pop());
    crate::support::wait_until(
        "the watch is forgotten",
        || async { Watch::open(&a, v1::WatchRequest::default()).await.is_ok() },
        |ok| *ok,
    )
    .await;
    let mut last = open.pop().unwrap();
    drop(open);
    let (ended, clean) = tokio::join!(last.frame(), server.stop_gently());
    assert_eq!(ended.unwrap_err().code(), ErrorCode::GoingAway);
    let _ = clean;
}

#[tokio::test]
async fn tenants_do_not_hear_of_each_other() {
    let server = Setup::dev().start().await;
    let (a, b) = (server.dev("amber", "a"), server.dev("blue", "a"));
    let mut watch = Watch::all(&a).await;
    watch.state().await;
    let public = v1::ContextSpec { scope: v1::ContextScope::Public as i32, ..spec("k") };
    share(&b, public.clone(), "x").await.unwrap();
    share(&a, public, "mine").await.unwrap();
    let seen = watch.until(|_| true).await;
    assert_eq!(told(&seen), [event(Kind::Created, "k", 1)], "its own tenant's first revision");
}

/// 10,000 concurrent writes of 16 writers, watchers that join at random: each sees every matching revision once and in
/// order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_that_join_at_random_see_every_revision_once_and_in_order() {
    const WRITERS: usize = 16;
    const EACH: usize = 625;
    const WATCHERS: usize = 12;
    let server = Setup::dev().start().await;
    let done = Arc::new(AtomicBool::new(false));
    let (wrote, written) = tokio::sync::watch::channel(0);
    let writers: Vec<_> = (0..WRITERS)
        .map(|w| {
            let client = server.dev("default", &format!("writer-{w}"));
            let wrote = wrote.clone();
            tokio::spawn(async move {
                // Contexts of its own in turn, some of which come and go; and one that all write over each other.
                let public = |key: &str| v1::ContextSpec { scope: v1::ContextScope::Public as i32, ..spec(key) };
                let mut row = share(&client, public(&format!("even-{}/{w}", w % 2)), "0").await.unwrap();
                let mut writes = 1;
                while writes < EACH {
                    row = update(&client, payload_update(&row, &writes.to_string())).await.unwrap();
                    writes += 1;
                    wrote.send_modify(|all| *all += 1);
                    if writes % 50 == 0 && writes + 2 < EACH {
                        delete(&client, &row.id, row.rev).await.unwrap();
                        row = share(&client, public(&format!("even-{}/{w}", w % 2)), "again").await.unwrap();
                        writes += 2;
                    }
                }
            })
        })
        .collect();
    let watchers: Vec<_> = (0..WATCHERS)
        .map(|n| {
            let client = server.dev("default", &format!("watcher-{n}"));
            let (done, mut written) = (Arc::clone(&done), written.clone());
            let prefix = ["", "even-0/", "even-1/"][n % 3];
            tokio::spawn(async move {
                // At random for what is written: the writers run free.
                written.wait_for(|all| *all >= n * WRITERS * EACH / (2 * WATCHERS)).await.unwrap();
                let request = v1::WatchRequest { key_prefix: prefix.to_owned(), ..Default::default() };
                let mut watch = Watch::open(&client, request).await.unwrap();
                // What the watcher knows of each context: its revision.
                let mut known: BTreeMap<String, u64> = BTreeMap::new();
                for (_, key, rev) in told(&watch.state().await) {
                    assert!(known.insert(key, rev).is_none(), "a context stands twice in the state");
                }
                let begun = watch.revision;
                assert!(known.values().all(|rev| *rev <= begun));
                let (mut last, mut heard) = (begun, 0_u64);
                loop {
                    let events = watch.frame().await.unwrap();
                    for (kind, key, rev) in told(&events) {
                        assert!(rev > last, "revision {rev} after {last}");
                        // Without a hole: an update of what is known, a create of what is not.
                        match kind {
                            Kind::Created => assert!(known.insert(key, rev).is_none(), "created twice"),
                            Kind::Updated => assert!(known.insert(key, rev).is_some(), "updated before it was created"),
                            Kind::Deleted => assert!(known.remove(&key).is_some(), "deleted before it was created"),
                            other => panic!("{other:?}"),
                        }
                        (last, heard) = (rev, heard + 1);
                    }
                    if done.load(SeqCst) && watch.revision >= (WRITERS * EACH) as u64 {
                        return (prefix, begun, heard, known);
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    done.store(true, SeqCst);
    let clock = Arc::clone(&server.clock);
    // Watches of a part end with a heartbeat.
    let beat = tokio::spawn(async move {
        let mut beats = tokio::time::interval(Duration::from_millis(50));
        loop {
            beats.tick().await;
            clock.advance(Duration::from_secs(10));
        }
    });
    let client = server.dev("default", "judge");
    let list = v1::ListContextsRequest { page_size: 500, ..Default::default() };
    let all = client.contexts().list_contexts(list).await.unwrap().into_inner();
    assert_eq!(all.revision, (WRITERS * EACH) as u64);
    let there: BTreeMap<String, u64> =
        all.contexts.iter().map(|c| (c.spec.as_ref().unwrap().key.clone(), c.rev)).collect();
    for watcher in watchers {
        let (prefix, begun, heard, known) = watcher.await.unwrap();
        let expected: BTreeMap<_, _> =
            there.iter().filter(|(key, _)| key.starts_with(prefix)).map(|(k, r)| (k.clone(), *r)).collect();
        assert_eq!(known, expected, "a watch of {prefix:?} from {begun} on ends where the list stands");
        if prefix.is_empty() {
            assert_eq!(heard, all.revision - begun, "each revision once");
        }
    }
    beat.abort();
}
