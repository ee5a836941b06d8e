//! Subscriptions: made, shown, listed, ended.

use acb_proto::v1;
use acb_types::{ErrorCode, limits};

use crate::support::{Client, Failure, Server, Setup, message, refused, spec, told, wait_until};

fn subscription(name: &str, filters: &[&str]) -> v1::SubscriptionSpec {
    v1::SubscriptionSpec {
        name: name.to_owned(),
        filters: filters.iter().map(ToString::to_string).collect(),
        ..v1::SubscriptionSpec::default()
    }
}

async fn create(client: &Client, spec: v1::SubscriptionSpec) -> Result<v1::CreateSubscriptionResponse, Failure> {
    let request = v1::CreateSubscriptionRequest { spec: Some(spec) };
    told(client.subscriptions().create_subscription(request).await)
}

async fn get(client: &Client, name: &str) -> Result<v1::Subscription, Failure> {
    let request = v1::GetSubscriptionRequest { name: name.to_owned() };
    told(client.subscriptions().get_subscription(request).await).map(|r| r.subscription.unwrap())
}

async fn delete(client: &Client, name: &str) -> Result<(), Failure> {
    let request = v1::DeleteSubscriptionRequest { name: name.to_owned() };
    told(client.subscriptions().delete_subscription(request).await).map(|_| ())
}

#[tokio::test]
async fn a_subscription_comes_with_its_defaults_and_counts_from_its_start() {
    let server = Setup::dev().start().await;
    let bus = server.dev("default", "planner");
    bus.send(message("plans.old", "x")).await.unwrap();
    let made = create(&bus, subscription("plans", &["plans.>", "other"])).await.unwrap();
    assert!(!made.existed);
    let made = made.subscription.unwrap();
    let spec = made.spec.unwrap();
    assert_eq!(spec.filters, ["plans.>", "other"]);
    assert_eq!(spec.ack_wait_ms, 30_000);
    assert_eq!(spec.retry_schedule_ms, [1000, 5000, 30_000, 120_000, 600_000]);
    assert_eq!((spec.max_attempts, spec.max_leased), (limits::MAX_ATTEMPTS, limits::MAX_LEASED));
    assert_eq!(spec.start_at, v1::StartAt::New as i32);
    assert_eq!((made.created_by.as_str(), made.created_at_ms), ("planner", server.clock_ms()));
    assert_eq!((made.cursor_seq, made.next_seq), (2, 2), "new messages only");
    bus.send(message("plans.new", "x")).await.unwrap();
    let now = get(&bus, "plans").await.unwrap();
    assert_eq!((now.next_seq, now.floor_seq, now.leased, now.consumers), (3, 2, 0, 0));
    let all = v1::SubscriptionSpec { start_at: v1::StartAt::All as i32, ..subscription("all", &["plans.>"]) };
    assert_eq!(create(&bus, all).await.unwrap().subscription.unwrap().cursor_seq, 1);
    let at = v1::SubscriptionSpec {
        start_at: v1::StartAt::Sequence as i32,
        start_seq: 2,
        ..subscription("at", &["plans.>"])
    };
    assert_eq!(create(&bus, at).await.unwrap().subscription.unwrap().cursor_seq, 2);
}

#[tokio::test]
async fn the_same_again_is_the_same_and_another_definition_is_refused() {
    let server = Setup::dev().start().await;
    let bus = server.dev("default", "planner");
    create(&bus, subscription("s", &["a"])).await.unwrap();
    let again = create(&server.dev("default", "other"), subscription("s", &["a"])).await.unwrap();
    assert!(again.existed);
    assert_eq!(again.subscription.unwrap().created_by, "planner");
    assert_eq!(refused(create(&bus, subscription("s", &["b"])).await), ErrorCode::SubscriptionExists);
    let longer = v1::SubscriptionSpec { ack_wait_ms: 5000, ..subscription("s", &["a"]) };
    assert_eq!(refused(create(&bus, longer).await), ErrorCode::SubscriptionExists);
    assert_eq!(get(&bus, "s").await.unwrap().spec.unwrap().filters, ["a"]);
    let elsewhere = create(&server.dev("elsewhere", "planner"), subscription("s", &["b"])).await.unwrap();
    assert!(!elsewhere.existed);
}

#[tokio::test]
async fn what_no_subscription_can_be_is_refused_by_name() {
    let server = Setup::dev().start().await;
    let bus = server.dev("default", "planner");
    let s = |change: fn(&mut v1::SubscriptionSpec)| {
        let mut spec = subscription("s", &["a"]);
        change(&mut spec);
        spec
    };
    let cases: Vec<(v1::SubscriptionSpec, ErrorCode)> = vec![
        (subscription("", &["a"]), ErrorCode::InvalidName),
        (subscription("a b", &["a"]), ErrorCode::InvalidName),
        (subscription("$inbox.planner", &["a"]), ErrorCode::InvalidName),
        (subscription("s", &[]), ErrorCode::InvalidFilter),
        (subscription("s", &["a.>.b"]), ErrorCode::InvalidFilter),
        (subscription("s", &["pl*n"]), ErrorCode::InvalidFilter),
        (subscription("s", &["$acb.inbox.other"]), ErrorCode::TopicReserved),
        (s(|s| s.ack_wait_ms = 1), ErrorCode::InvalidArgument),
        (s(|s| s.max_attempts = 1001), ErrorCode::InvalidArgument),
        (s(|s| s.max_leased = 65_537), ErrorCode::InvalidArgument),
        (s(|s| s.retry_schedule_ms = vec![1; 17]), ErrorCode::FieldTooLarge),
        (s(|s| s.dead_letters = 9), ErrorCode::UnknownEnum),
        (s(|s| s.start_at = 9), ErrorCode::UnknownEnum),
        (s(|s| s.start_seq = 9), ErrorCode::InvalidArgument),
        (s(|s| s.start_at = v1::StartAt::Time as i32), ErrorCode::MissingField),
    ];
    for (spec, code) in cases {
        let shown = format!("{spec:?}");
        assert_eq!(refused(create(&bus, spec).await), code, "{shown}");
    }
    let none = v1::CreateSubscriptionRequest { spec: None };
    assert_eq!(refused(told(bus.subscriptions().create_subscription(none).await)), ErrorCode::MissingField);
    assert_eq!(refused(get(&bus, "s").await), ErrorCode::SubscriptionNotFound);
}

#[tokio::test]
async fn a_deleted_subscription_is_gone_and_an_implicit_one_stays() {
    let server = Setup::dev().start().await;
    let bus = server.dev("default", "planner");
    create(&bus, subscription("s", &["a"])).await.unwrap();
    delete(&bus, "s").await.unwrap();
    delete(&bus, "s").await.unwrap();
    assert_eq!(refused(get(&bus, "s").await), ErrorCode::SubscriptionNotFound);
    bus.register(spec("planner")).await.unwrap();
    assert_eq!(refused(delete(&bus, "$inbox.planner").await), ErrorCode::InvalidState);
    get(&bus, "$inbox.planner").await.unwrap();
    assert_eq!(refused(delete(&bus, "").await), ErrorCode::MissingField);
    // The name is free for another definition.
    assert!(!create(&bus, subscription("s", &["b"])).await.unwrap().existed);
}

#[tokio::test]
async fn lists_hold_what_users_made_page_by_page_and_survive_a_restart() {
    let server = Setup::dev().start().await;
    let bus = server.dev("default", "planner");
    bus.register(spec("planner")).await.unwrap();
    for name in ["c", "a", "b"] {
        create(&bus, subscription(name, &["x"])).await.unwrap();
    }
    let server = server.restart().await;
    let bus = server.dev("default", "planner");
    let page = |size, token: &str| {
        let request = v1::ListSubscriptionsRequest { page_size: size, page_token: token.to_owned() };
        let bus = bus.clone();
        async move { told(bus.subscriptions().list_subscriptions(request).await) }
    };
    let names = |r: &v1::ListSubscriptionsResponse| {
        r.subscriptions.iter().map(|s| s.spec.as_ref().unwrap().name.clone()).collect::<Vec<_>>()
    };
    let first = page(2, "").await.unwrap();
    assert_eq!(names(&first), ["a", "b"]);
    let rest = page(2, &first.next_page_token).await.unwrap();
    assert_eq!((names(&rest), rest.next_page_token.as_str()), (vec!["c".to_owned()], ""));
    assert_eq!(refused(page(0, "zzz").await), ErrorCode::InvalidPageToken);
    assert_eq!(get(&bus, "a").await.unwrap().next_seq, 1);
}

#[tokio::test]
async fn anothers_inbox_answers_like_an_absent_one() {
    let server = Server::start().await;
    let one = server.agent("one", &[]).await;
    let two = server.agent("two", &[]).await;
    one.register(spec("one")).await.unwrap();
    get(&one, "$inbox.one").await.unwrap();
    let foreign = get(&two, "$inbox.one").await.unwrap_err();
    let absent = get(&two, "$inbox.absent").await.unwrap_err();
    assert_eq!(foreign.error.message.replace(".one", ".absent"), absent.error.message);
    assert_eq!(foreign.code(), absent.code());
    get(&server.admin().await, "$inbox.one").await.unwrap();
}

#[tokio::test]
async fn what_expired_while_no_consumer_was_there_holds_no_log() {
    let server = Setup::dev().set("delivery.survey_every", "10ms").start().await;
    let bus = server.dev("default", "planner");
    create(&bus, subscription("plans", &["plans.>"])).await.unwrap();
    let short_lived = |payload| v1::Message { expires_at_ms: server.clock_ms() + 1000, ..message("plans.a", payload) };
    for payload in ["one", "two", "three"] {
        bus.send(short_lived(payload)).await.unwrap();
    }
    bus.send(message("plans.a", "stays")).await.unwrap();
    server.advance(std::time::Duration::from_secs(2));
    let look = || async { get(&bus, "plans").await.unwrap().floor_seq };
    wait_until("the floor", look, |floor| *floor == 4).await;
    let now = get(&bus, "plans").await.unwrap();
    assert_eq!((now.cursor_seq, now.next_seq), (4, 5), "what has not expired still waits");
}
