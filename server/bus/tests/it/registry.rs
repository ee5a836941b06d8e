//! Agents: registered, found, alive, gone.

use std::{collections::HashMap, time::Duration};

use acb_proto::v1::{self, AgentEventKind as Kind, AgentStatus};
use acb_types::{ErrorCode, limits};

use crate::support::{Server, Setup, message, refused, spec, told};

fn status_of(agent: &v1::Agent) -> AgentStatus {
    AgentStatus::try_from(agent.status).unwrap()
}

#[tokio::test]
async fn an_agent_is_shown_as_it_registered() {
    let server = Server::start().await;
    let planner = server.agent("planner", &[]).await;
    let capability = v1::AgentCapability {
        name: "code.review".to_owned(),
        version: "1.2.0".to_owned(),
        input_schema: r#"{"type":"object"}"#.to_owned(),
        output_schema: String::new(),
    };
    let full = v1::AgentSpec {
        id: "planner".to_owned(),
        r#type: "llm".to_owned(),
        name: "Planner".to_owned(),
        description: "plans".to_owned(),
        version: "0.3.1-rc.1".to_owned(),
        location: "eu-1".to_owned(),
        capabilities: vec![capability],
        endpoint: "http://x".to_owned(),
        groups: vec!["core".to_owned()],
        metadata: HashMap::from([("team".to_owned(), "a".to_owned())]),
    };
    let made = planner.register(full.clone()).await.unwrap();
    assert_eq!(made.spec.as_ref(), Some(&full));
    assert_eq!((made.incarnation, status_of(&made)), (1, AgentStatus::Unknown));
    assert_eq!(made.registered_at_ms, server.clock_ms());
    assert_eq!(planner.get_agent("planner").await.unwrap(), made);
    assert_eq!(refused(planner.get_agent("nobody").await), ErrorCode::AgentNotFound);
    assert_eq!(refused(planner.get_agent("").await), ErrorCode::MissingField);
    assert_eq!(refused(planner.get_agent("No Body").await), ErrorCode::InvalidName);
}

#[tokio::test]
async fn registering_again_is_a_new_incarnation_that_fences_the_older() {
    let server = Server::start().await;
    let planner = server.agent("planner", &[]).await;
    let first = planner.register(spec("planner")).await.unwrap();
    planner.heartbeat("planner", first.incarnation).await.unwrap();
    let second = planner.register(spec("planner")).await.unwrap();
    assert_eq!(second.incarnation, first.incarnation + 1);
    assert_eq!(second.registered_at_ms, first.registered_at_ms);
    assert_eq!(refused(planner.heartbeat("planner", first.incarnation).await), ErrorCode::SessionFenced);
    planner.heartbeat("planner", second.incarnation).await.unwrap();
    // The number is known after a restart too.
    let token = planner.identity.clone();
    let server = server.restart().await;
    let planner = crate::support::Client { channel: server.channel(), identity: token };
    assert_eq!(refused(planner.heartbeat("planner", first.incarnation).await), ErrorCode::SessionFenced);
    planner.heartbeat("planner", second.incarnation).await.unwrap();
}

#[tokio::test]
async fn an_id_belongs_to_the_credential_that_registered_it() {
    let server = Server::start().await;
    let one = server.agent("planner", &[]).await;
    let other = server.agent("planner", &[]).await;
    one.register(spec("planner")).await.unwrap();
    assert_eq!(refused(other.register(spec("planner")).await), ErrorCode::AgentExists);
    let stranger = server.agent("stranger", &[]).await;
    assert_eq!(refused(stranger.register(spec("planner")).await), ErrorCode::PermissionDenied);
    let update = |spec| v1::UpdateAgentRequest { spec: Some(spec), fields: Vec::new() };
    assert_eq!(
        refused(told(stranger.agents().update_agent(update(spec("planner"))).await)),
        ErrorCode::PermissionDenied
    );
    assert_eq!(refused(told(other.agents().update_agent(update(spec("planner"))).await)), ErrorCode::PermissionDenied);
    let remove = || v1::UnregisterAgentRequest { agent_id: "planner".to_owned(), keep_inbox: false };
    assert_eq!(refused(told(other.agents().unregister_agent(remove()).await)), ErrorCode::PermissionDenied);
    assert_eq!(refused(stranger.heartbeat("planner", 1).await), ErrorCode::PermissionDenied);
    assert_eq!(one.get_agent("planner").await.unwrap().incarnation, 1, "nothing was half done");
    let admin = server.admin().await;
    told(admin.agents().unregister_agent(remove()).await).unwrap();
    assert_eq!(refused(one.get_agent("planner").await), ErrorCode::AgentNotFound);
}

#[tokio::test]
async fn an_update_changes_what_is_named_and_nothing_else() {
    let server = Server::start().await;
    let planner = server.agent("planner", &[]).await;
    let before = v1::AgentSpec { name: "P".to_owned(), location: "eu".to_owned(), ..spec("planner") };
    let made = planner.register(before).await.unwrap();
    let update = |spec, fields: &[&str]| {
        let fields = fields.iter().map(ToString::to_string).collect();
        let request = v1::UpdateAgentRequest { spec: Some(spec), fields };
        let planner = planner.clone();
        async move { told(planner.agents().update_agent(request).await).map(|r| r.agent.unwrap()) }
    };
    let new = v1::AgentSpec { location: "us".to_owned(), name: "ignored".to_owned(), ..spec("planner") };
    let after = update(new, &["location"]).await.unwrap();
    let after_spec = after.spec.clone().unwrap();
    assert_eq!((after_spec.name.as_str(), after_spec.location.as_str()), ("P", "us"));
    assert!(after.revision > made.revision && after.incarnation == made.incarnation);
    let all = update(spec("planner"), &[]).await.unwrap().spec.unwrap();
    assert_eq!((all.name.as_str(), all.location.as_str()), ("", ""));
    assert_eq!(refused(update(spec("planner"), &["id"]).await), ErrorCode::InvalidArgument);
    let long = v1::AgentSpec { name: "x".repeat(129), ..spec("planner") };
    assert_eq!(refused(update(long, &["name"]).await), ErrorCode::FieldTooLarge);
    let admin = server.admin().await;
    let nobody = v1::UpdateAgentRequest { spec: Some(spec("nobody")), fields: Vec::new() };
    assert_eq!(refused(told(admin.agents().update_agent(nobody).await)), ErrorCode::AgentNotFound);
}

#[tokio::test]
async fn what_is_over_a_limit_or_malformed_is_refused_and_leaves_nothing() {
    let server = Server::start().await;
    let planner = server.agent("planner", &[]).await;
    let capability = |name: &str, version: &str| v1::AgentCapability {
        name: name.to_owned(),
        version: version.to_owned(),
        ..v1::AgentCapability::default()
    };
    let cases = [
        (spec(""), ErrorCode::MissingField),
        (spec("Planner"), ErrorCode::InvalidName),
        (spec(&"a".repeat(129)), ErrorCode::InvalidName),
        (v1::AgentSpec { version: "one".to_owned(), ..spec("planner") }, ErrorCode::InvalidVersion),
        (v1::AgentSpec { capabilities: vec![capability("A B", "")], ..spec("planner") }, ErrorCode::InvalidName),
        (v1::AgentSpec { capabilities: vec![capability("a", "x")], ..spec("planner") }, ErrorCode::InvalidVersion),
        (
            v1::AgentSpec { capabilities: vec![capability("a", ""), capability("a", "1.0.0")], ..spec("planner") },
            ErrorCode::InvalidArgument,
        ),
        (v1::AgentSpec { description: "x".repeat(1025), ..spec("planner") }, ErrorCode::FieldTooLarge),
        (v1::AgentSpec { groups: vec![String::new()], ..spec("planner") }, ErrorCode::InvalidArgument),
    ];
    for (spec, code) in cases {
        let named = format!("{spec:?}");
        assert_eq!(refused(planner.register(spec).await), code, "{named:.200}");
    }
    let none = told(planner.agents().register_agent(v1::RegisterAgentRequest { spec: None }).await);
    assert_eq!(refused(none), ErrorCode::MissingField);
    assert_eq!(refused(planner.get_agent("planner").await), ErrorCode::AgentNotFound);
}

#[tokio::test]
async fn unregistering_takes_the_inbox_along_unless_it_is_to_stay() {
    let server = Server::start().await;
    let planner = server.agent("planner", &[]).await;
    let inbox = |name: &str| {
        let (planner, request) = (planner.clone(), v1::GetSubscriptionRequest { name: name.to_owned() });
        async move { told(planner.subscriptions().get_subscription(request).await) }
    };
    let remove = |keep_inbox| {
        let (planner, request) =
            (planner.clone(), v1::UnregisterAgentRequest { agent_id: "planner".to_owned(), keep_inbox });
        async move { told(planner.agents().unregister_agent(request).await) }
    };
    // What is absent is off the bus already.
    remove(false).await.unwrap();
    planner.register(spec("planner")).await.unwrap();
    inbox("$inbox.planner").await.unwrap();
    inbox("$reply.planner").await.unwrap();
    planner.send(message("$acb.inbox.planner", "waits")).await.unwrap();
    remove(true).await.unwrap();
    assert_eq!(refused(planner.get_agent("planner").await), ErrorCode::AgentNotFound);
    planner.send(message("$acb.inbox.planner", "waits too")).await.unwrap();
    remove(false).await.unwrap();
    assert_eq!(refused(inbox("$inbox.planner").await), ErrorCode::SubscriptionNotFound);
    assert_eq!(refused(planner.send(message("$acb.inbox.planner", "no")).await), ErrorCode::AgentNotFound);
    assert_eq!(refused(planner.heartbeat("planner", 1).await), ErrorCode::AgentNotFound);
}

#[tokio::test]
async fn status_follows_heartbeats_and_the_grace_and_a_restart_makes_it_unknown() {
    let server = Server::start().await;
    let planner = server.agent("planner", &[]).await;
    let made = planner.register(spec("planner")).await.unwrap();
    assert_eq!(status_of(&made), AgentStatus::Unknown);
    planner.heartbeat("planner", made.incarnation).await.unwrap();
    let seen = planner.get_agent("planner").await.unwrap();
    assert_eq!((status_of(&seen), seen.last_seen_at_ms), (AgentStatus::Online, server.clock_ms()));
    server.advance(limits::PRESENCE_GRACE);
    assert_eq!(status_of(&planner.get_agent("planner").await.unwrap()), AgentStatus::Online);
    server.advance(Duration::from_millis(1));
    assert_eq!(status_of(&planner.get_agent("planner").await.unwrap()), AgentStatus::Offline);
    planner.heartbeat("planner", made.incarnation).await.unwrap();
    assert_eq!(status_of(&planner.get_agent("planner").await.unwrap()), AgentStatus::Online);
    let identity = planner.identity.clone();
    let server = server.restart().await;
    let planner = crate::support::Client { channel: server.channel(), identity };
    let seen = planner.get_agent("planner").await.unwrap();
    assert_eq!((status_of(&seen), seen.last_seen_at_ms), (AgentStatus::Unknown, 0));
}

#[tokio::test]
async fn discovery_finds_by_every_condition() {
    let server = Setup::dev().start().await;
    let bus = server.dev("default", "anonymous");
    let agent = |id: &str, kind: &str, location: &str, capabilities: &[&str], team: &str| v1::AgentSpec {
        r#type: kind.to_owned(),
        location: location.to_owned(),
        description: format!("The {id} of Team {team}"),
        capabilities: capabilities
            .iter()
            .map(|c| v1::AgentCapability { name: (*c).to_owned(), ..v1::AgentCapability::default() })
            .collect(),
        metadata: HashMap::from([("team".to_owned(), team.to_owned())]),
        ..spec(id)
    };
    bus.register(agent("a", "llm", "eu", &["read", "write"], "x")).await.unwrap();
    bus.register(agent("b", "llm", "us", &["read"], "y")).await.unwrap();
    bus.register(agent("c", "tool", "eu", &["write"], "x")).await.unwrap();
    bus.heartbeat("b", 1).await.unwrap();
    let found = |request: v1::DiscoverAgentsRequest| {
        let bus = bus.clone();
        async move {
            let agents = bus.discover(request).await.unwrap().agents;
            agents.into_iter().map(|a| a.spec.unwrap().id).collect::<String>()
        }
    };
    let any = v1::DiscoverAgentsRequest::default;
    let texts = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(found(any()).await, "abc");
    assert_eq!(found(v1::DiscoverAgentsRequest { r#type: "llm".to_owned(), ..any() }).await, "ab");
    assert_eq!(found(v1::DiscoverAgentsRequest { location: "eu".to_owned(), ..any() }).await, "ac");
    let all = texts(&["read", "write"]);
    assert_eq!(found(v1::DiscoverAgentsRequest { capabilities_all: all.clone(), ..any() }).await, "a");
    assert_eq!(found(v1::DiscoverAgentsRequest { capabilities_any: all, ..any() }).await, "abc");
    let team = HashMap::from([("team".to_owned(), "x".to_owned())]);
    assert_eq!(found(v1::DiscoverAgentsRequest { metadata: team.clone(), ..any() }).await, "ac");
    assert_eq!(found(v1::DiscoverAgentsRequest { text: "TEAM Y".to_owned(), ..any() }).await, "b");
    let online = AgentStatus::Online as i32;
    assert_eq!(found(v1::DiscoverAgentsRequest { status: online, ..any() }).await, "b");
    let unknown = AgentStatus::Unknown as i32;
    let both = v1::DiscoverAgentsRequest { status: unknown, metadata: team, r#type: "tool".to_owned(), ..any() };
    assert_eq!(found(both).await, "c");
    for (request, code) in [
        (v1::DiscoverAgentsRequest { status: 9, ..any() }, ErrorCode::UnknownEnum),
        (v1::DiscoverAgentsRequest { page_size: 501, ..any() }, ErrorCode::InvalidArgument),
        (v1::DiscoverAgentsRequest { capabilities_all: texts(&["A"]), ..any() }, ErrorCode::InvalidName),
        (v1::DiscoverAgentsRequest { text: "x".repeat(129), ..any() }, ErrorCode::FieldTooLarge),
        (v1::DiscoverAgentsRequest { page_token: "nonsense".to_owned(), ..any() }, ErrorCode::InvalidPageToken),
    ] {
        assert_eq!(refused(bus.discover(request).await), code);
    }
}

#[tokio::test]
async fn pages_go_on_where_they_were_cut_and_their_tokens_fit_one_query_only() {
    let server = Setup::dev().start().await;
    let bus = server.dev("default", "anonymous");
    for i in 0..7 {
        bus.register(v1::AgentSpec {
            r#type: if i % 2 == 0 { "even" } else { "odd" }.to_owned(),
            ..spec(&format!("a{i}"))
        })
        .await
        .unwrap();
        if i < 5 {
            bus.heartbeat(&format!("a{i}"), 1).await.unwrap();
        }
    }
    for status in [AgentStatus::Unspecified, AgentStatus::Online] {
        let (mut ids, mut token, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let request = v1::DiscoverAgentsRequest {
                page_size: 2,
                page_token: token,
                status: status as i32,
                ..v1::DiscoverAgentsRequest::default()
            };
            let page = bus.discover(request).await.unwrap();
            assert!(page.agents.len() <= 2);
            pages += 1;
            ids.extend(page.agents.into_iter().map(|a| a.spec.unwrap().id));
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        let expected: Vec<String> =
            (0..if status == AgentStatus::Online { 5 } else { 7 }).map(|i| format!("a{i}")).collect();
        assert_eq!(ids, expected);
        assert_eq!(pages, expected.len().div_ceil(2));
    }
    let page = bus.discover(v1::DiscoverAgentsRequest { page_size: 2, ..Default::default() }).await.unwrap();
    let token = page.next_page_token;
    let other = |request| {
        let bus = bus.clone();
        async move { refused(bus.discover(request).await) }
    };
    let with = |change: fn(&mut v1::DiscoverAgentsRequest)| {
        let mut request = v1::DiscoverAgentsRequest { page_token: token.clone(), ..Default::default() };
        change(&mut request);
        request
    };
    assert_eq!(other(with(|r| r.r#type = "odd".to_owned())).await, ErrorCode::InvalidPageToken);
    let mut tampered = token.clone().into_bytes();
    let last = tampered.len() - 1;
    tampered[last] = if tampered[last] == b'A' { b'B' } else { b'A' };
    let tampered = String::from_utf8(tampered).unwrap();
    let request = v1::DiscoverAgentsRequest { page_token: tampered, ..Default::default() };
    assert_eq!(other(request).await, ErrorCode::InvalidPageToken);
    let elsewhere = server.dev("elsewhere", "anonymous");
    assert_eq!(refused(elsewhere.discover(with(|_| ())).await), ErrorCode::InvalidPageToken);
    bus.discover(with(|r| r.page_size = 3)).await.unwrap();
}

#[tokio::test]
async fn a_watch_sends_the_state_and_then_what_changes_and_goes_on_from_a_revision() {
    let server = Server::start().await;
    let planner = server.agent("planner", &[]).await;
    planner.register(spec("planner")).await.unwrap();
    let mut watch = planner.agents().watch_agents(v1::WatchAgentsRequest::default()).await.unwrap().into_inner();
    let mut seen = Vec::new();
    let mut revision = 0;
    while revision == 0 {
        let frame = watch.message().await.unwrap().unwrap();
        revision = frame.revision;
        seen.extend(frame.events);
    }
    let named = |e: &v1::AgentEvent| (e.kind(), e.agent.as_ref().unwrap().spec.as_ref().unwrap().id.clone());
    assert_eq!(seen.iter().map(named).collect::<Vec<_>>(), [(Kind::State, "planner".to_owned())]);

    let worker = server.agent("worker", &[]).await;
    worker.register(spec("worker")).await.unwrap();
    let leave = v1::UnregisterAgentRequest { agent_id: "worker".to_owned(), keep_inbox: false };
    told(worker.agents().unregister_agent(leave).await).unwrap();
    for mut watch in [
        watch,
        // One that begins later, after that revision, misses nothing either.
        {
            let request = v1::WatchAgentsRequest { after_rev: revision, ..Default::default() };
            planner.agents().watch_agents(request).await.unwrap().into_inner()
        },
    ] {
        let mut changes = Vec::new();
        while changes.last() != Some(&(Kind::Left, "worker".to_owned())) {
            let events = watch.message().await.unwrap().unwrap().events;
            changes.extend(events.iter().map(named).filter(|(kind, _)| *kind != Kind::Presence));
        }
        assert_eq!(changes, [(Kind::Changed, "worker".to_owned()), (Kind::Left, "worker".to_owned())]);
    }
    // One that finds nobody says at once that it stands.
    let nobody = v1::WatchAgentsRequest { after_rev: revision, r#type: "critic".to_owned(), ..Default::default() };
    let mut watch = planner.agents().watch_agents(nobody).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().events, []);
}

#[tokio::test]
async fn a_watch_where_nothing_ever_changed_says_that_its_state_is_complete() {
    let server = Setup::dev().start().await;
    let bus = server.dev("default", "anonymous");
    let mut watch = bus.agents().watch_agents(v1::WatchAgentsRequest::default()).await.unwrap().into_inner();
    let first = watch.message().await.unwrap().unwrap();
    assert_eq!((first.events.len(), first.revision, first.state_complete), (0, 0, true));
    bus.register(spec("anonymous")).await.unwrap();
    let next = watch.message().await.unwrap().unwrap();
    assert_eq!((next.events[0].kind(), next.revision, next.state_complete), (Kind::Changed, 1, true));
}

#[tokio::test]
async fn two_tenants_with_one_id_are_two_agents() {
    let server = Setup::dev().start().await;
    let (one, two) = (server.dev("one", "planner"), server.dev("two", "planner"));
    one.register(v1::AgentSpec { name: "first".to_owned(), ..spec("planner") }).await.unwrap();
    one.register(v1::AgentSpec { name: "first".to_owned(), ..spec("planner") }).await.unwrap();
    let made = two.register(v1::AgentSpec { name: "second".to_owned(), ..spec("planner") }).await.unwrap();
    assert_eq!(made.incarnation, 1);
    one.heartbeat("planner", 2).await.unwrap();
    assert_eq!(status_of(&one.get_agent("planner").await.unwrap()), AgentStatus::Online);
    assert_eq!(status_of(&two.get_agent("planner").await.unwrap()), AgentStatus::Unknown);
    assert_eq!(two.get_agent("planner").await.unwrap().spec.unwrap().name, "second");
    assert_eq!(two.discover(v1::DiscoverAgentsRequest::default()).await.unwrap().agents.len(), 1);
}

#[tokio::test]
async fn what_agents_do_is_counted() {
    let server = Setup::dev().start().await;
    let bus = server.dev("default", "anonymous");
    bus.register(spec("a")).await.unwrap();
    bus.heartbeat("a", 1).await.unwrap();
    bus.discover(v1::DiscoverAgentsRequest::default()).await.unwrap();
    let _ = bus.get_agent("nobody").await;
    let metrics = server.metrics().await;
    for line in [
        "acb_agent_registrations_total{tenant=\"default\"} 1",
        "acb_agent_heartbeats_total{tenant=\"default\"} 1",
        "acb_agent_discoveries_total{tenant=\"default\"} 1",
        "acb_agents_active{tenant=\"default\"} 1",
        "acb_requests_total{method=\"RegisterAgent\"} 1",
        "acb_failures_total{method=\"GetAgent\",code=\"agent_not_found\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}
