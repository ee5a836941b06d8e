//! The two hot streams as identity and presence see them: who may open them, how long, and what their being open says of
//! an agent. What flows in them is told elsewhere.

use std::time::Duration;

use acb_proto::v1::{self, AgentStatus};
use acb_types::{ErrorCode, limits};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::support::{Client, Server, Setup, failure, message, refused, spec, told, wait_until};

/// One hot stream: what goes up, and what comes down.
pub(crate) struct Stream<Up, Down> {
    pub(crate) up: mpsc::Sender<Up>,
    down: Streaming<Down>,
}

impl<Up, Down> Stream<Up, Down>
where
    Up: prost::Message + Default + Send + 'static,
    Down: prost::Message + Default + Send + 'static,
{
    async fn open(client: &Client, path: &'static str, first: Up) -> Result<Self, Status> {
        let (up, receiver) = mpsc::channel(16);
        up.send(first).await.unwrap();
        let mut grpc = tonic::client::Grpc::new(client.bound());
        grpc.ready().await.unwrap();
        let codec: ProstCodec<Up, Down> = ProstCodec::default();
        let path = http::uri::PathAndQuery::from_static(path);
        let response = grpc.streaming(Request::new(ReceiverStream::new(receiver)), path, codec).await?;
        Ok(Self { up, down: response.into_inner() })
    }

    pub(crate) async fn next(&mut self) -> Result<Down, ErrorCode> {
        let next = tokio::time::timeout(Duration::from_secs(10), self.down.message()).await.expect("nothing came");
        match next {
            Ok(Some(frame)) => Ok(frame),
            Ok(None) => panic!("the stream ended without a word"),
            Err(status) => Err(failure(&status).code()),
        }
    }
}

pub(crate) type Consume = Stream<v1::ConsumeRequest, v1::ConsumeResponse>;
type Publish = Stream<v1::PublishStreamRequest, v1::PublishStreamResponse>;

pub(crate) async fn consume(client: &Client, subscription: &str, incarnation: u64) -> Result<Consume, ErrorCode> {
    let open = v1::ConsumeOpen {
        subscription: subscription.to_owned(),
        session_id: uuid::Uuid::new_v4().as_bytes().to_vec().into(),
        incarnation,
        credit: Some(v1::Credit { messages: 10, bytes: 1 << 20 }),
        ..v1::ConsumeOpen::default()
    };
    let first = v1::ConsumeRequest { open: Some(open), ..v1::ConsumeRequest::default() };
    let opened = Consume::open(client, acb_proto::CONSUME, first).await;
    let mut stream = opened.map_err(|status| failure(&status).code())?;
    let frame = stream.next().await?;
    assert!(frame.opened.is_some(), "{frame:?}");
    Ok(stream)
}

async fn publish(client: &Client) -> Result<Publish, ErrorCode> {
    publish_as(client, 0).await
}

async fn publish_as(client: &Client, incarnation: u64) -> Result<Publish, ErrorCode> {
    publish_in(client, uuid::Uuid::new_v4(), incarnation).await
}

async fn publish_in(client: &Client, session: uuid::Uuid, incarnation: u64) -> Result<Publish, ErrorCode> {
    let producer_id = session.as_bytes().to_vec().into();
    let open = v1::PublishOpen { producer_id, epoch: 1, incarnation };
    let first = v1::PublishStreamRequest { open: Some(open), ..v1::PublishStreamRequest::default() };
    let opened = Publish::open(client, acb_proto::PUBLISH_STREAM, first).await;
    let mut stream = opened.map_err(|status| failure(&status).code())?;
    let frame = stream.next().await?;
    assert!(frame.opened.is_some(), "{frame:?}");
    Ok(stream)
}

fn batch(counter: u64, topic: &str) -> v1::PublishStreamRequest {
    v1::PublishStreamRequest { counter, messages: vec![message(topic, "x")], ..v1::PublishStreamRequest::default() }
}

async fn status(client: &Client, agent: &str) -> AgentStatus {
    AgentStatus::try_from(client.get_agent(agent).await.unwrap().status).unwrap()
}

#[tokio::test]
async fn what_is_published_reaches_the_inbox_and_its_ack_counts() {
    let server = Setup::dev().start().await;
    let bus = server.dev("default", "a");
    bus.register(spec("a")).await.unwrap();
    let mut down = consume(&bus, "$inbox.a", 1).await.unwrap();
    let mut up = publish_as(&bus, 1).await.unwrap();
    up.up.send(batch(1, "$acb.inbox.a")).await.unwrap();
    let acks = up.next().await.unwrap().acks;
    assert_eq!((acks[0].counter, acks[0].count, acks[0].first_seq), (1, 1, 1));
    let frame = down.next().await.unwrap();
    assert_eq!((frame.delivery, frame.messages.len()), (1, 1));
    assert_eq!((frame.runs[0].from.as_str(), frame.runs[0].from_incarnation), ("a", 1));
    let ack = v1::ConsumeRequest {
        confirmed_acks: vec![v1::SeqRange { first_seq: 1, count: 1 }],
        ..v1::ConsumeRequest::default()
    };
    down.up.send(ack).await.unwrap();
    let settled = down.next().await.unwrap().settled;
    assert_eq!((settled[0].first_seq, settled[0].error.clone()), (1, None));
    let get = v1::GetSubscriptionRequest { name: "$inbox.a".to_owned() };
    let row = told(bus.subscriptions().get_subscription(get).await).unwrap().subscription.unwrap();
    assert_eq!((row.floor_seq, row.consumers), (2, 1));
}

#[tokio::test]
async fn the_operators_levels_hold_for_streams_too() {
    let low = Setup::dev().set("delivery.durability_default", "memory").start().await;
    let mut up = publish(&low.dev("default", "a")).await.unwrap();
    up.up.send(batch(1, "t")).await.unwrap();
    assert_eq!(up.next().await.unwrap().acks[0].durability, v1::Durability::Memory as i32);

    let high = Setup::dev().set("delivery.durability_floor", "synced").start().await;
    let mut up = publish(&high.dev("default", "a")).await.unwrap();
    let asks = v1::PublishStreamRequest { durability: v1::Durability::Written as i32, ..batch(1, "t") };
    up.up.send(asks).await.unwrap();
    let rejects = up.next().await.unwrap().rejects;
    let codes: Vec<_> = rejects.iter().map(|r| (r.counter, r.error.as_ref().unwrap().name.as_str())).collect();
    assert_eq!(codes, [(1, "durability_unavailable")]);
    up.up.send(batch(2, "t")).await.unwrap();
    assert_eq!(up.next().await.unwrap().acks[0].durability, v1::Durability::Synced as i32);
}

fn patient(counter: u64, topic: &str) -> v1::PublishStreamRequest {
    v1::PublishStreamRequest { ack_linger_ms: u32::MAX, ..batch(counter, topic) }
}

/// Waits until a number was acknowledged; how many messages the last frame acknowledged.
async fn acked(up: &mut Publish, counter: u64) -> u32 {
    loop {
        let acks = up.next().await.unwrap().acks;
        if acks.iter().any(|ack| (ack.counter..ack.counter + u64::from(ack.count)).contains(&counter)) {
            return acks.iter().map(|ack| ack.count).sum();
        }
    }
}

#[tokio::test]
async fn a_patient_acknowledgement_waits_for_an_impatient_one_but_not_for_long() {
    let server = Setup::dev().start().await;
    let bus = server.dev("default", "a");
    let mut up = publish(&bus).await.unwrap();
    up.up.send(patient(1, "t")).await.unwrap();
    assert_eq!(acked(&mut up, 1).await, 1, "nothing else comes, and yet it is told");
    // A slow machine may take longer than the longest wait; it is not that slow every time.
    for first in (2..100).step_by(2) {
        up.up.send(patient(first, "t")).await.unwrap();
        // By the time of this answer the first is stored, and its acknowledgement would be on its way.
        bus.send(message("t", "x")).await.unwrap();
        up.up.send(batch(first + 1, "t")).await.unwrap();
        if acked(&mut up, first + 1).await == 2 {
            return;
        }
    }
    panic!("each acknowledgement came alone");
}

#[tokio::test]
async fn a_publisher_that_ends_in_good_order_is_told_of_everything_first() {
    let server = Setup::dev().start().await;
    let bus = server.dev("default", "a");
    let Publish { up, mut down } = publish(&bus).await.unwrap();
    up.send(patient(1, "t")).await.unwrap();
    drop(up);
    let frame = down.message().await.unwrap().expect("an answer before the end");
    assert_eq!(frame.acks.iter().map(|ack| ack.count).sum::<u32>(), 1);
    assert!(down.message().await.unwrap().is_none());
}

/// Found by the crash rounds: the message was stored before the server was killed, its sender was told that nobody is
/// there, and the responder got it all the same when it was back.
#[tokio::test]
async fn a_stored_request_that_is_sent_again_before_its_responder_is_back_gets_its_first_answer() {
    let server = Setup::dev().start().await;
    let bus = server.dev("default", "a");
    bus.register(spec("a")).await.unwrap();
    let responder = consume(&bus, "$inbox.a", 1).await.unwrap();
    let session = uuid::Uuid::new_v4();
    let request = |counter| {
        let mut batch = batch(counter, "$acb.inbox.a");
        batch.messages[0].kind = v1::MessageKind::Request as i32;
        batch.messages[0].reply_to = "$acb.reply.a".to_owned();
        batch
    };
    let mut up = publish_in(&bus, session, 0).await.unwrap();
    up.up.send(request(1)).await.unwrap();
    let first = up.next().await.unwrap().acks.remove(0);
    assert!(!first.duplicate && first.first_seq > 0, "{first:?}");
    drop((up, responder, bus));

    let server = server.restart().await;
    let bus = server.dev("default", "a");
    let mut up = publish_in(&bus, session, 0).await.unwrap();
    up.up.send(request(1)).await.unwrap();
    let again = up.next().await.unwrap();
    assert_eq!(again.rejects, [], "it is stored");
    let again = &again.acks[0];
    assert_eq!((again.first_seq, again.epoch, again.duplicate), (first.first_seq, first.epoch, true));
    // One that is new finds nobody.
    up.up.send(request(2)).await.unwrap();
    let refused = up.next().await.unwrap().rejects.remove(0);
    assert_eq!((refused.counter, refused.error.unwrap().code.as_str()), (2, "no_responders"));
}

#[tokio::test]
async fn an_open_stream_is_presence_and_a_lost_one_is_not_after_the_grace() {
    let server = Setup::dev().start().await;
    let bus = server.dev("default", "a");
    let agent = server.dev("default", "a");
    bus.register(spec("a")).await.unwrap();
    assert_eq!(status(&bus, "a").await, AgentStatus::Unknown);
    let stream = consume(&agent, "$inbox.a", 1).await.unwrap();
    assert_eq!(status(&bus, "a").await, AgentStatus::Online);
    // However long it is silent.
    server.advance(limits::PRESENCE_GRACE * 10);
    assert_eq!(status(&bus, "a").await, AgentStatus::Online);
    drop((stream, agent));
    let consumers = || async {
        let get = v1::GetSubscriptionRequest { name: "$inbox.a".to_owned() };
        told(bus.subscriptions().get_subscription(get).await).unwrap().subscription.unwrap().consumers
    };
    wait_until("the stream's end", consumers, |n| *n == 0).await;
    assert_eq!(status(&bus, "a").await, AgentStatus::Online, "within the grace");
    server.advance(limits::PRESENCE_GRACE + Duration::from_millis(1));
    assert_eq!(status(&bus, "a").await, AgentStatus::Offline);
}

#[tokio::test]
async fn a_newer_registration_ends_the_older_ones_stream() {
    let server = Setup::dev().start().await;
    let bus = server.dev("default", "a");
    let first = bus.register(spec("a")).await.unwrap().incarnation;
    let mut old = consume(&bus, "$inbox.a", first).await.unwrap();
    let second = bus.register(spec("a")).await.unwrap().incarnation;
    assert_eq!(old.next().await.unwrap_err(), ErrorCode::SessionFenced);
    assert_eq!(consume(&bus, "$inbox.a", first).await.err(), Some(ErrorCode::SessionFenced));
    let mut new = consume(&bus, "$inbox.a", second).await.unwrap();
    let remove = v1::UnregisterAgentRequest { agent_id: "a".to_owned(), keep_inbox: false };
    told(bus.agents().unregister_agent(remove).await).unwrap();
    assert!(new.next().await.is_err(), "an agent that is off the bus hears nothing more");
}

#[tokio::test]
async fn streams_need_a_token_and_the_role() {
    let server = Server::start().await;
    assert_eq!(publish(&server.anybody()).await.err(), Some(ErrorCode::Unauthenticated));
    assert_eq!(consume(&server.with_token("junk"), "s", 0).await.err(), Some(ErrorCode::TokenInvalid));
    let consumer = server.agent("c", &["agent-consumer"]).await;
    assert_eq!(publish(&consumer).await.err(), Some(ErrorCode::PermissionDenied));
    let producer = server.agent("p", &["agent-producer"]).await;
    assert_eq!(consume(&producer, "s", 0).await.err(), Some(ErrorCode::PermissionDenied));
    publish(&producer).await.unwrap();
    consumer.register(spec("c")).await.unwrap();
    consume(&consumer, "$inbox.c", 1).await.unwrap();
    assert_eq!(consume(&consumer, "$inbox.p", 1).await.err(), Some(ErrorCode::PermissionDenied));
}

#[tokio::test]
async fn a_stream_is_warned_takes_a_new_token_and_goes_on() {
    let server = Server::start().await;
    let (client, first) = server.login(&server.admin_key, "a").await;
    let mut stream = publish(&client).await.unwrap();
    server.advance(Duration::from_secs(3600 - 60));
    let warned = stream.next().await.unwrap().auth_expiring.unwrap();
    assert_eq!(warned.expires_at_ms, first.access_expires_at_ms);
    let second = server.anybody().refresh(&first.refresh_token).await.unwrap();
    let reauth = v1::PublishStreamRequest {
        reauth: Some(v1::Reauth { token: second.access_token.clone() }),
        ..v1::PublishStreamRequest::default()
    };
    stream.up.send(reauth).await.unwrap();
    stream.up.send(batch(1, "t")).await.unwrap();
    assert_eq!(stream.next().await.unwrap().acks[0].counter, 1);
    // Past the first token's grace, and not yet near the second's end.
    server.advance(Duration::from_secs(100));
    stream.up.send(batch(2, "t")).await.unwrap();
    assert_eq!(stream.next().await.unwrap().acks[0].counter, 2);
}

#[tokio::test]
async fn a_stream_without_a_new_token_ends_after_the_grace() {
    let server = Server::start().await;
    let (client, _) = server.login(&server.admin_key, "a").await;
    let mut stream = publish(&client).await.unwrap();
    server.advance(Duration::from_secs(3600 - 60));
    assert!(stream.next().await.unwrap().auth_expiring.is_some());
    server.advance(Duration::from_secs(60 + 29));
    stream.up.send(batch(1, "t")).await.unwrap();
    assert_eq!(stream.next().await.unwrap().acks[0].counter, 1, "within the grace");
    server.advance(Duration::from_secs(1));
    assert_eq!(stream.next().await.unwrap_err(), ErrorCode::TokenExpired);
}

#[tokio::test]
async fn anothers_token_ends_the_stream() {
    let server = Server::start().await;
    let (client, _) = server.login(&server.admin_key, "a").await;
    let (_, other) = server.login(&server.admin_key, "b").await;
    let mut stream = publish(&client).await.unwrap();
    let reauth = v1::PublishStreamRequest {
        reauth: Some(v1::Reauth { token: other.access_token }),
        ..v1::PublishStreamRequest::default()
    };
    stream.up.send(reauth).await.unwrap();
    assert_eq!(stream.next().await.unwrap_err(), ErrorCode::TokenMismatch);
}

#[tokio::test]
async fn a_revoked_token_is_refused_with_the_next_batch() {
    let server = Server::start().await;
    let (client, _) = server.login(&server.admin_key, "a").await;
    let mut up = publish(&client).await.unwrap();
    client.register(spec("a")).await.unwrap();
    let mut down = consume(&client, "$inbox.a", 1).await.unwrap();
    up.up.send(batch(1, "t")).await.unwrap();
    up.next().await.unwrap();
    told(client.auth().logout(v1::LogoutRequest {}).await).unwrap();
    up.up.send(batch(2, "t")).await.unwrap();
    assert_eq!(up.next().await.unwrap_err(), ErrorCode::TokenRevoked);
    let credit = v1::Credit { messages: 5, bytes: 1000 };
    down.up.send(v1::ConsumeRequest { credit: Some(credit), ..Default::default() }).await.unwrap();
    assert_eq!(down.next().await.unwrap_err(), ErrorCode::TokenRevoked);
    // What came after it was not stored.
    let admin = server.admin().await;
    let status = v1::GetMessageStatusRequest { message_id: "topics-0-1-2".to_owned() };
    assert_eq!(refused(told(admin.messages().get_message_status(status).await)), ErrorCode::MessageNotFound);
}

#[tokio::test]
async fn a_stopping_server_says_so_and_ends_when_its_streams_do() {
    let server = Setup::dev().start().await;
    let bus = server.dev("default", "a");
    bus.register(spec("a")).await.unwrap();
    let mut up = publish(&bus).await.unwrap();
    let mut down = consume(&bus, "$inbox.a", 1).await.unwrap();
    let stopping = tokio::spawn(server.stop_gently());
    assert!(up.next().await.unwrap().going_away.is_some());
    assert!(down.next().await.unwrap().going_away.is_some());
    drop((up, down, bus));
    assert_eq!(stopping.await.unwrap(), acb_server::Clean::Yes);
}

#[tokio::test]
async fn clients_that_stay_do_not_hold_a_stop_up() {
    let server = Setup::dev().start().await;
    let bus = server.dev("default", "a");
    bus.register(spec("a")).await.unwrap();
    let mut down = consume(&bus, "$inbox.a", 1).await.unwrap();
    let mut up = publish(&bus).await.unwrap();
    let started = std::time::Instant::now();
    let stopping = tokio::spawn(server.stop_gently());
    assert!(down.next().await.unwrap().going_away.is_some());
    assert!(up.next().await.unwrap().going_away.is_some());
    assert_eq!(stopping.await.unwrap(), acb_server::Clean::Yes);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    drop((up, down));
}
