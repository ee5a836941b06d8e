//! The examples in the client's documentation, one a noun: the very text that people read, run against a server. Each is
//! a file of `core/doc` that the documentation shows.

use acb_sdk::{Client, Credentials, ErrorCode, Message, MessageKind, SubscriptionSpec};
use acb_testkit::{Server, ServerOptions, wait::within};

mod admin {
    include!("../../../core/doc/admin.rs");
}
mod agents {
    include!("../../../core/doc/agents.rs");
}
mod auth {
    include!("../../../core/doc/auth.rs");
}
mod client {
    include!("../../../core/doc/client.rs");
}
mod dead_letters {
    include!("../../../core/doc/dead_letters.rs");
}
mod messages {
    include!("../../../core/doc/messages.rs");
}
mod subscribe {
    include!("../../../core/doc/subscribe.rs");
}
mod subscriptions {
    include!("../../../core/doc/subscriptions.rs");
}

async fn dev() -> Server {
    ServerOptions::default().real_clock().start().await.unwrap()
}

fn url(server: &Server) -> String {
    format!("acb://{}", server.address())
}

async fn connect(server: &Server, agent: &str) -> Client {
    Client::builder(url(server)).credentials(Credentials::dev("default", agent)).connect().await.unwrap()
}

/// A server that asks for credentials, and its first admin as a client.
async fn with_credentials() -> (Server, Client) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("admin.key");
    let options = ServerOptions::default().real_clock().with_credentials();
    let server = options.arg(format!("--admin-key-file={}", file.display())).start().await.unwrap();
    let key = std::fs::read_to_string(file).unwrap();
    let credentials = Credentials::enrolment_key(key.trim(), "root");
    let client = Client::builder(url(&server)).credentials(credentials).connect().await.unwrap();
    (server, client)
}

#[tokio::test]
async fn a_client_registers_publishes_and_drains() {
    let server = dev().await;
    client::example(&url(&server)).await.unwrap();
    let client = connect(&server, "observer").await;
    assert_eq!(client.agents().get("planner").await.unwrap().id(), "planner");
    let status = client.messages().status("topics-0-1-1".parse().unwrap()).await.unwrap();
    assert_eq!((status.topic.as_str(), status.from.as_str()), ("news.today", "planner"));
}

#[tokio::test]
async fn agents_register_and_are_found() {
    let server = dev().await;
    let client = connect(&server, "reviewer-1").await;
    agents::example(client.clone()).await.unwrap();
    let agent = client.agents().get("reviewer-1").await.unwrap();
    assert_eq!((agent.spec.kind.as_str(), agent.spec.capabilities[0].name.as_str()), ("reviewer", "code.review"));
}

async fn half_way(message: Message) -> acb_sdk::Result<()> {
    if message.kind() == MessageKind::Request {
        message.reply("half way")?.confirm().await?;
    }
    Ok(())
}

#[tokio::test]
async fn messages_are_sent_published_and_asked() {
    let server = dev().await;
    let (planner, worker) = (connect(&server, "planner").await, connect(&server, "worker-1").await);
    planner.agents().register("planner").await.unwrap();
    worker.agents().register("worker-1").await.unwrap();
    let mut measurements = worker.listen(["measurements.>"]).await.unwrap();
    let inbox = worker.inbox().await.unwrap();
    let answering = tokio::spawn(inbox.for_each(1, half_way));
    messages::example(planner).await.unwrap();
    for number in 0..1000u32 {
        let message = within("a measurement", acb_testkit::wait::PATIENCE, measurements.next()).await.unwrap();
        let message = message.unwrap().unwrap();
        assert_eq!(message.payload_ref(), number.to_le_bytes());
        message.ack().unwrap();
    }
    drop(measurements);
    worker.drain().await.unwrap();
    answering.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_subscription_is_made_and_looked_at() {
    let server = dev().await;
    let client = connect(&server, "planner").await;
    subscriptions::example(client.clone()).await.unwrap();
    assert_eq!(client.subscriptions().get("work").await.unwrap().spec.filters(), ["jobs.*"]);
}

#[tokio::test]
async fn a_subscription_is_read_until_its_client_drains() {
    let server = dev().await;
    let client = connect(&server, "worker").await;
    let work = client.subscriptions().create(SubscriptionSpec::new("work").filter("jobs.*")).await.unwrap();
    assert!(!work.existed);
    for number in 0..3 {
        client.messages().publish("jobs.x", format!("job {number}")).confirm().await.unwrap();
    }
    let reading = tokio::spawn(subscribe::example(client.clone()));
    let other = connect(&server, "observer").await;
    let settled = acb_testkit::wait::wait_until("all to be settled", acb_testkit::wait::PATIENCE, || async {
        let work = other.subscriptions().get("work").await.unwrap();
        acb_testkit::wait::Level::when(work.floor_seq == 4, (), format!("{work:?}"))
    });
    settled.await.unwrap();
    client.drain().await.unwrap();
    reading.await.unwrap().unwrap();
}

#[tokio::test]
async fn dead_letters_are_redriven() {
    let server = dev().await;
    let client = connect(&server, "worker").await;
    client.subscriptions().create(SubscriptionSpec::new("work").filter("jobs.*")).await.unwrap();
    client.messages().publish("jobs.x", "bad").confirm().await.unwrap();
    let mut work = client.subscribe("work").await.unwrap();
    work.next().await.unwrap().unwrap().term("cannot").unwrap();
    let dead = acb_testkit::wait::wait_until("a dead letter", acb_testkit::wait::PATIENCE, || async {
        let all = client.dead_letters().list("work").all().await.unwrap();
        acb_testkit::wait::Level::when(all.len() == 1, (), all.len())
    });
    dead.await.unwrap();
    dead_letters::example(client.clone()).await.unwrap();
    assert!(client.dead_letters().list("work").all().await.unwrap().is_empty());
    let again = work.next().await.unwrap().unwrap();
    assert_eq!((again.payload_ref(), again.attempt()), (&b"bad"[..], 1));
}

#[tokio::test]
async fn tokens_are_renewed_by_hand() {
    let (_server, client) = with_credentials().await;
    let before = client.auth().tokens().unwrap().access_token;
    auth::example(client.clone()).await.unwrap();
    assert_ne!(client.auth().tokens().unwrap().access_token, before);
}

#[tokio::test]
async fn an_admin_makes_a_tenant_and_a_key_for_its_workers() {
    let (server, root) = with_credentials().await;
    admin::example(root.clone()).await.unwrap();
    let tenants = root.admin().tenants().all().await.unwrap();
    assert!(tenants.iter().any(|tenant| tenant.id == "acme" && tenant.name == "Acme Inc."), "{tenants:?}");
    let again = admin::example(root.clone()).await.unwrap_err();
    assert_eq!(again.code(), ErrorCode::TenantExists);
    drop(server);
}
