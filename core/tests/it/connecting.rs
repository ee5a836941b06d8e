//! Connecting, tokens, retries, events, and what errors say.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use acb_proto::v1;
use acb_sdk::{Client, Credentials, ErrorCode, ErrorKind, Event, RetryPolicy, TlsOptions};
use tonic::Status;

use crate::peer::{Peer, opened, soon};

const LOGIN: &str = "/acb.v1.AuthService/Login";
const REFRESH: &str = "/acb.v1.AuthService/Refresh";
const GET_AGENT: &str = "/acb.v1.AgentRegistry/GetAgent";
const HEALTH: &str = "/grpc.health.v1.Health/Check";

fn now_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64
}

fn tokens(n: u32, life_ms: u64) -> Option<v1::Tokens> {
    Some(v1::Tokens {
        access_token: format!("access-{n}"),
        access_expires_at_ms: now_ms() + life_ms,
        refresh_token: format!("refresh-{n}"),
        refresh_expires_at_ms: now_ms() + 1_000_000,
        agent_id: "tester".into(),
        tenant_id: "default".into(),
        roles: vec!["agent-full".into()],
    })
}

/// A status with one of our codes.
fn status(code: &str) -> Status {
    let code: ErrorCode = code.parse().unwrap();
    let mut metadata = tonic::metadata::MetadataMap::new();
    metadata.insert("acb-error-code", code.name().parse().unwrap());
    metadata.insert("acb-request-id", "req-1".parse().unwrap());
    Status::with_metadata(tonic::Code::from_i32(code.grpc_status()), "scripted", metadata)
}

fn agent(id: &str) -> v1::GetAgentResponse {
    let spec = v1::AgentSpec { id: id.into(), ..Default::default() };
    v1::GetAgentResponse { agent: Some(v1::Agent { spec: Some(spec), ..Default::default() }) }
}

#[tokio::test]
async fn a_refused_dial_is_tried_again_until_the_deadline() {
    let peer = Peer::new();
    peer.refuse(3);
    let client = peer.client().await;
    assert_eq!(peer.dials(), 4);
    assert!(client.is_connected());
}

#[tokio::test]
async fn nobody_there_is_unavailable_after_the_connect_timeout() {
    let peer = Peer::new();
    peer.refuse(u32::MAX);
    let error = peer.builder().connect_timeout(Duration::from_millis(200)).connect().await.unwrap_err();
    assert_eq!((error.code(), error.operation()), (ErrorCode::Unavailable, "connect"));
    assert!(error.message().contains("cannot connect"), "{error}");
}

#[tokio::test]
async fn bad_credentials_fail_at_once() {
    let peer = Peer::new();
    peer.on(LOGIN, |_, _: v1::LoginRequest| Err::<v1::LoginResponse, _>(status("invalid_credentials")));
    let started = std::time::Instant::now();
    let error =
        peer.builder().credentials(Credentials::secret("default", "tester", "wrong")).connect().await.unwrap_err();
    assert_eq!((error.code(), error.request_id()), (ErrorCode::InvalidCredentials, Some("req-1")));
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_login_gives_the_token_that_calls_carry() {
    let peer = Peer::new();
    peer.on(LOGIN, |metadata, request: v1::LoginRequest| {
        assert!(metadata.get("authorization").is_none());
        assert_eq!((request.enrolment_key.as_str(), request.agent_id.as_str()), ("acb_k", "tester"));
        Ok(v1::LoginResponse { tokens: tokens(1, 3_600_000) })
    });
    peer.on(GET_AGENT, |metadata, request: v1::GetAgentRequest| {
        assert_eq!(metadata.get("authorization").unwrap(), "Bearer access-1");
        assert!(metadata.get("grpc-timeout").is_some(), "no deadline on the wire");
        Ok(agent(&request.agent_id))
    });
    let client = peer.builder().credentials(Credentials::enrolment_key("acb_k", "tester")).connect().await.unwrap();
    assert_eq!(client.agents().get("x").await.unwrap().id(), "x");
    assert_eq!(client.identity().unwrap().tenant_id, "default");
}

#[tokio::test]
async fn dev_credentials_name_themselves() {
    let peer = Peer::new();
    peer.on(GET_AGENT, |metadata, request: v1::GetAgentRequest| {
        assert_eq!(metadata.get("acb-agent").unwrap(), "tester");
        assert_eq!(metadata.get("acb-tenant").unwrap(), "default");
        Ok(agent(&request.agent_id))
    });
    peer.client().await.agents().get("x").await.unwrap();
    assert_eq!((peer.calls(LOGIN), peer.calls(HEALTH)), (0, 1));
}

#[tokio::test]
async fn an_expired_token_is_refreshed_once_and_the_call_made_again() {
    let peer = Peer::new();
    peer.on(LOGIN, |_, _: v1::LoginRequest| Ok(v1::LoginResponse { tokens: tokens(1, 3_600_000) }));
    peer.on(REFRESH, |_, request: v1::RefreshRequest| {
        assert_eq!(request.refresh_token, "refresh-1");
        Ok(v1::RefreshResponse { tokens: tokens(2, 3_600_000) })
    });
    peer.on(GET_AGENT, |metadata, request: v1::GetAgentRequest| {
        if metadata.get("authorization").unwrap() == "Bearer access-1" {
            return Err(status("token_expired"));
        }
        Ok(agent(&request.agent_id))
    });
    let client = peer.builder().credentials(Credentials::enrolment_key("acb_k", "tester")).connect().await.unwrap();
    let calls: Vec<_> = (0..10)
        .map(|_| {
            tokio::spawn({
                let agents = client.agents();
                async move { agents.get("x").await }
            })
        })
        .collect();
    for call in calls {
        soon("a call", call).await.unwrap().unwrap();
    }
    assert_eq!((peer.calls(REFRESH), peer.calls(LOGIN)), (1, 1), "ten callers renewed the token more than once");
}

#[tokio::test]
async fn a_token_is_refreshed_before_it_ends_and_given_to_open_streams() {
    let mut peer = Peer::new();
    peer.on(LOGIN, |_, _: v1::LoginRequest| Ok(v1::LoginResponse { tokens: tokens(1, 31_000) }));
    peer.on(REFRESH, |_, _: v1::RefreshRequest| Ok(v1::RefreshResponse { tokens: tokens(2, 3_600_000) }));
    let client = peer.builder().credentials(Credentials::enrolment_key("acb_k", "tester")).connect().await.unwrap();
    let opening = tokio::spawn(client.subscribe("work").open());
    let (mut consume, _) = peer.consume().await;
    assert_eq!(consume.metadata.get("authorization").unwrap(), "Bearer access-1");
    consume.answer(opened(false)).await;
    let _work = soon("the subscription", opening).await.unwrap().unwrap();
    drop(client.messages().publish("t", "1").send().await.unwrap());
    let (mut publish, _) = peer.publish().await;
    publish.next().await;
    // The server's warning hurries it.
    let soon_over = v1::AuthExpiring { expires_at_ms: now_ms() + 1000 };
    publish.answer(v1::PublishStreamResponse { auth_expiring: Some(soon_over), ..Default::default() }).await;
    assert_eq!(publish.next().await.reauth.unwrap().token, "access-2");
    assert_eq!(consume.next().await.reauth.unwrap().token, "access-2");
}

#[tokio::test]
async fn a_refresh_that_fails_is_followed_by_a_login_and_never_by_the_same_refresh() {
    let peer = Peer::new();
    let logins = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&logins);
    peer.on(LOGIN, move |_, _: v1::LoginRequest| {
        let n = counted.fetch_add(1, Ordering::Relaxed);
        Ok(v1::LoginResponse { tokens: tokens(10 + n, 3_600_000) })
    });
    peer.on(REFRESH, |_, _: v1::RefreshRequest| Err::<v1::RefreshResponse, _>(status("unavailable")));
    let client = peer.builder().credentials(Credentials::enrolment_key("acb_k", "tester")).connect().await.unwrap();
    client.auth().refresh().await.unwrap();
    client.auth().refresh().await.unwrap();
    assert_eq!((logins.load(Ordering::Relaxed), peer.calls(REFRESH)), (3, 2));
}

#[tokio::test]
async fn safe_calls_are_repeated_and_unsafe_ones_are_not() {
    let peer = Peer::new();
    let left = Arc::new(AtomicU32::new(2));
    let failing = Arc::clone(&left);
    peer.on(GET_AGENT, move |_, request: v1::GetAgentRequest| {
        match failing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)) {
            Ok(_) => Err(status("unavailable")),
            Err(_) => Ok(agent(&request.agent_id)),
        }
    });
    let redrive = "/acb.v1.DeadLetterService/RedriveDeadLetter";
    peer.on(redrive, |_, _: v1::RedriveDeadLetterRequest| {
        Err::<v1::RedriveDeadLetterResponse, _>(status("unavailable"))
    });
    let client = peer.client().await;
    client.agents().get("x").await.unwrap();
    assert_eq!(peer.calls(GET_AGENT), 3);
    let id = "dead-letters-0-1-1".parse().unwrap();
    assert_eq!(client.dead_letters().redrive(id).await.unwrap_err().code(), ErrorCode::Unavailable);
    assert_eq!(peer.calls(redrive), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_nobody_answers_ends_at_its_deadline() {
    let peer = Peer::new();
    peer.silence(GET_AGENT);
    let client = peer.builder().request_timeout(Duration::from_secs(7)).connect().await.unwrap();
    let started = tokio::time::Instant::now();
    let error = client.agents().get("x").await.unwrap_err();
    assert_eq!((error.code(), error.operation()), (ErrorCode::Timeout, "agents.get"));
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(7) && took < Duration::from_secs(8), "took {took:?}");
    assert_eq!(peer.calls(GET_AGENT), 1);
}

#[tokio::test]
async fn a_call_that_would_have_to_wait_past_its_deadline_says_why_at_once() {
    let peer = Peer::new();
    peer.on(GET_AGENT, |_, _: v1::GetAgentRequest| {
        let error = v1::Error {
            code: "unavailable".into(),
            message: "not now".into(),
            retryable: true,
            retry_after_ms: 600_000,
            ..Default::default()
        };
        let details = prost::Message::encode_to_vec(&error).into();
        Err::<v1::GetAgentResponse, _>(Status::with_details(tonic::Code::Unavailable, "not now", details))
    });
    let client = peer.client().await;
    let error = soon("an answer", client.agents().get("x")).await.unwrap_err();
    assert_eq!((error.code(), error.retry_after()), (ErrorCode::Unavailable, Some(Duration::from_mins(10))));
    assert_eq!(peer.calls(GET_AGENT), 1);
}

#[tokio::test]
async fn a_final_error_says_what_the_server_said() {
    let peer = Peer::new();
    peer.on(GET_AGENT, |_, _: v1::GetAgentRequest| Err::<v1::GetAgentResponse, _>(status("agent_not_found")));
    let client = peer.client().await;
    let error = client.agents().get("x").await.unwrap_err();
    assert_eq!(
        (error.code(), error.kind(), error.operation()),
        (ErrorCode::AgentNotFound, ErrorKind::NotFound, "agents.get")
    );
    assert_eq!((error.request_id(), error.is_retryable()), (Some("req-1"), false));
    assert_eq!(peer.calls(GET_AGENT), 1);
}

#[tokio::test]
async fn a_call_waits_for_the_connection_to_come_back() {
    let peer = Peer::new();
    peer.on(GET_AGENT, |_, request: v1::GetAgentRequest| Ok(agent(&request.agent_id)));
    let client = peer.client().await;
    let mut events = client.events();
    peer.refuse(2);
    peer.cut();
    client.agents().get("x").await.unwrap();
    assert!(matches!(soon("an event", events.next()).await, Some(Event::Suspended { .. })));
    assert!(matches!(soon("an event", events.next()).await, Some(Event::Resumed { generation: 2 })));
}

#[tokio::test]
async fn a_call_without_a_connection_says_why_there_is_none() {
    let peer = Peer::new();
    let client = peer.builder().request_timeout(Duration::from_millis(300)).connect().await.unwrap();
    peer.refuse(u32::MAX);
    peer.cut();
    let error = client.agents().get("x").await.unwrap_err();
    assert_eq!(error.operation(), "agents.get");
    assert!(matches!(error.kind(), ErrorKind::Unavailable), "{error:?}");
    assert!(!client.is_connected());
}

#[tokio::test]
async fn bounded_attempts_close_the_client() {
    let peer = Peer::new();
    let policy = RetryPolicy::default().initial(Duration::from_millis(1)).attempts_max(3);
    let client = peer.builder().reconnect(policy).connect().await.unwrap();
    let mut events = client.events();
    peer.refuse(u32::MAX);
    peer.cut();
    while !matches!(soon("the end", events.next()).await, Some(Event::Closed)) {}
    let error = client.agents().get("x").await.unwrap_err();
    assert_eq!(error.retry(), acb_sdk::Retry::Exhausted { attempts: 3 }, "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_accepts_and_hangs_up_is_not_dialled_in_a_circle() {
    let peer = Peer::new();
    let policy = RetryPolicy::default().initial(Duration::from_millis(100)).max(Duration::from_secs(10)).jitter(0.0);
    let client = peer.builder().reconnect(policy).connect().await.unwrap();
    let mut events = client.events();
    let started = tokio::time::Instant::now();
    for _ in 0..6 {
        peer.cut();
        while !matches!(events.next().await, Some(Event::Resumed { .. })) {}
    }
    // 100, 200, 400, 800, 1600 and 3200 ms; the first is cut short.
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(6), "six connections that broke at once were made within {took:?}");
}

#[tokio::test]
async fn a_registered_agent_without_a_stream_sends_heartbeats_and_learns_that_it_is_fenced() {
    tokio::time::pause();
    let peer = Peer::new();
    let beats = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&beats);
    peer.on("/acb.v1.AgentRegistry/Heartbeat", move |_, request: v1::HeartbeatRequest| {
        assert_eq!((request.agent_id.as_str(), request.incarnation), ("tester", 7));
        if counted.fetch_add(1, Ordering::Relaxed) < 3 {
            Ok(v1::HeartbeatResponse { next_within_ms: 10_000 })
        } else {
            Err(status("session_fenced"))
        }
    });
    let client = peer.builder().keep_alive(Duration::from_mins(150), Duration::from_mins(150)).connect().await.unwrap();
    let mut events = client.events();
    client.agents().register("tester").await.unwrap();
    let started = tokio::time::Instant::now();
    loop {
        match tokio::time::timeout(Duration::from_mins(5), events.next()).await {
            Ok(Some(Event::Fenced { agent_id })) => break assert_eq!(agent_id, "tester"),
            Ok(Some(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(24) && took <= Duration::from_secs(40), "four heartbeats took {took:?}");
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(beats.load(Ordering::Relaxed), 4, "a fenced agent goes on beating");
}

#[tokio::test]
async fn the_incarnation_travels_with_the_streams() {
    let mut peer = Peer::new();
    let client = peer.client().await;
    client.agents().register("tester").await.unwrap();
    drop(client.messages().publish("t", "1").send().await.unwrap());
    let (_publish, open) = peer.publish().await;
    assert_eq!(open.incarnation, 7);
}

#[tokio::test]
async fn what_is_no_bus_is_told_apart() {
    let error = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            use tokio::io::AsyncWriteExt;
            while let Ok((mut socket, _)) = listener.accept().await {
                let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
            }
        });
        let builder = Client::builder(format!("acb://127.0.0.1:{port}"));
        builder.connect_timeout(Duration::from_secs(1)).connect().await.unwrap_err()
    };
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Internal), "{error:?}");
}

#[test]
fn everything_works_in_a_runtime_of_one_thread_and_of_many() {
    let work = || async {
        let mut peer = Peer::new();
        let client = peer.client().await;
        let receipt = client.messages().publish("t", "1").send().await.unwrap();
        let (mut call, _) = peer.publish().await;
        call.next().await;
        call.answer(crate::peer::ack(1, 1, 1)).await;
        soon("a receipt", receipt).await.unwrap();
        client.close().await;
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work());
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work());
}

#[tokio::test]
async fn tls_is_spoken_to_whom_the_given_root_vouches_for() {
    let peer = Peer::new();
    let root = peer.speak_tls("bus.test");
    let tls = |pem: &str| TlsOptions::default().root_pem(pem);
    let at = |endpoint| peer.builder_at(endpoint).connect_timeout(Duration::from_secs(5));
    let client = at("acbs://bus.test").tls(tls(&root)).connect().await.unwrap();
    assert!(client.is_connected());
    at("acbs://10.1.2.3").tls(tls(&root).server_name("bus.test")).connect().await.unwrap();
    let other = at("acbs://else.test").tls(tls(&root)).connect().await.unwrap_err();
    assert_eq!(other.code(), ErrorCode::ProtocolError, "another name was taken: {other}");
    let stranger = Peer::new().speak_tls("bus.test");
    let unknown = at("acbs://bus.test").tls(tls(&stranger)).connect().await.unwrap_err();
    assert_eq!(unknown.code(), ErrorCode::ProtocolError, "another root was taken: {unknown}");
}

#[tokio::test]
async fn a_posted_message_has_a_key_and_is_repeated_under_it() {
    let peer = Peer::new();
    let keys = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let seen = Arc::clone(&keys);
    peer.on("/acb.v1.MessageService/Send", move |_, request: v1::SendRequest| {
        let message = request.message.unwrap();
        assert_eq!((message.topic.as_str(), message.payload.as_ref()), ("t", b"x".as_ref()));
        seen.lock().push(message.idempotency_key);
        if seen.lock().len() == 1 {
            return Err(status("unavailable"));
        }
        Ok(v1::SendResponse { message_id: "topics-0-1-9".into(), durability: 3, duplicate: true })
    });
    let client = peer.client().await;
    let posted = client.messages().publish("t", "x").post().await.unwrap();
    assert_eq!((posted.id.seq, posted.duplicate), (9, true));
    let keys = keys.lock();
    assert!(keys.len() == 2 && keys[0] == keys[1] && keys[0].len() == 32, "{keys:?}");
}
