//! Messages sent one at a time: what is taken, what is refused, and what each refusal says.

use acb_proto::v1;
use acb_types::{ErrorCode, MessageId, limits};

use crate::support::{Server, Setup, message, refused, spec, told};

#[tokio::test]
async fn a_message_is_stored_and_its_id_says_where() {
    let server = Setup::dev().start().await;
    let bus = server.dev("default", "a");
    let mut last = 0;
    for i in 0..3 {
        let sent = bus.send(message("plans.new", &i.to_string())).await.unwrap();
        let id: MessageId = sent.message_id.parse().unwrap();
        assert!(id.seq > last, "{id}");
        last = id.seq;
        assert_eq!((sent.durability, sent.duplicate), (v1::Durability::Synced as i32, false));
    }
    let request = v1::GetMessageStatusRequest { message_id: format!("topics-0-1-{last}") };
    let status = told(bus.messages().get_message_status(request).await).unwrap();
    assert_eq!((status.topic.as_str(), status.from.as_str()), ("plans.new", "a"));
    assert_eq!(status.stored_at_ms, server.clock_ms());
    assert!(status.subscriptions.is_empty());
}

#[tokio::test]
async fn each_kind_has_its_level_and_the_level_that_is_asked_for_is_reached() {
    let server = Setup::dev().start().await;
    let bus = server.dev("default", "a");
    bus.register(spec("a")).await.unwrap();
    let send = |kind: v1::MessageKind, durability: v1::Durability| {
        let bus = bus.clone();
        let message = v1::Message { kind: kind as i32, ..message("$acb.inbox.a", "x") };
        let request = v1::SendRequest { message: Some(message), durability: durability as i32 };
        async move { told(bus.messages().send(request).await).map(|r| r.durability) }
    };
    use v1::{Durability as D, MessageKind as K};
    assert_eq!(send(K::Unspecified, D::Unspecified).await.unwrap(), D::Synced as i32);
    assert_eq!(send(K::Reply, D::Unspecified).await.unwrap(), D::Written as i32);
    for level in [D::Memory, D::Written, D::Synced] {
        assert_eq!(send(K::Unspecified, level).await.unwrap(), level as i32);
    }
    assert_eq!(refused(send(K::Unspecified, D::Replicated).await), ErrorCode::DurabilityUnavailable);
    assert_eq!(refused(send(K::Request, D::Unspecified).await), ErrorCode::NoResponders);
}

#[tokio::test]
async fn a_floor_refuses_what_is_below_it() {
    let server = Setup::dev().set("delivery.durability_floor", "synced").start().await;
    let bus = server.dev("default", "a");
    let request = v1::SendRequest { message: Some(message("t", "x")), durability: v1::Durability::Written as i32 };
    assert_eq!(refused(told(bus.messages().send(request).await)), ErrorCode::DurabilityUnavailable);
    bus.send(message("t", "x")).await.unwrap();
}

#[tokio::test]
async fn a_repeat_under_one_key_is_the_first_and_another_body_is_a_conflict() {
    let server = Setup::dev().start().await;
    let bus = server.dev("default", "a");
    let keyed = |payload: &str| v1::Message { idempotency_key: "k".to_owned(), ..message("t", payload) };
    let first = bus.send(keyed("x")).await.unwrap();
    let again = bus.send(keyed("x")).await.unwrap();
    assert_eq!((again.message_id, again.duplicate), (first.message_id.clone(), true));
    assert_eq!(refused(bus.send(keyed("y")).await), ErrorCode::IdempotencyConflict);
    let other = server.dev("default", "b").send(keyed("y")).await.unwrap();
    assert!(!other.duplicate, "keys are each agent's own");
    assert_ne!(other.message_id, first.message_id);
}

#[tokio::test]
async fn what_no_message_can_be_is_refused_by_name() {
    let server = Setup::dev().start().await;
    let bus = server.dev("default", "a");
    let t = |topic: &str| message(topic, "");
    let long = "x".repeat(129);
    let cases: Vec<(&str, v1::Message, ErrorCode)> = vec![
        ("no topic", t(""), ErrorCode::MissingField),
        ("white space", t("a b"), ErrorCode::InvalidTopic),
        ("an empty token", t("a..b"), ErrorCode::InvalidTopic),
        ("a wildcard", t("a.*"), ErrorCode::WildcardInPublish),
        ("a tail", t("a.>"), ErrorCode::WildcardInPublish),
        ("a long topic", t(&"x".repeat(513)), ErrorCode::InvalidTopic),
        ("the bus's tree", t("$acb.secret"), ErrorCode::TopicReserved),
        ("a dead-letter queue", t("$acb.dlq.s"), ErrorCode::TopicReserved),
        ("a redrive", t("$acb.redrive.s"), ErrorCode::TopicReserved),
        ("a capability", t("$acb.cap.read"), ErrorCode::UnsupportedFeature),
        ("an inbox that nobody has", t("$acb.inbox.nobody"), ErrorCode::AgentNotFound),
        ("a kind", v1::Message { kind: 77, ..t("a") }, ErrorCode::UnknownEnum),
        ("a priority", v1::Message { priority: -3, ..t("a") }, ErrorCode::UnknownEnum),
        ("a delay", v1::Message { not_before_ms: 5, ..t("a") }, ErrorCode::UnsupportedFeature),
        ("a forged origin", v1::Message { original_topic: "x".to_owned(), ..t("a") }, ErrorCode::InvalidArgument),
        (
            "a reply into the bus's tree",
            v1::Message { reply_to: "$acb.dlq.s".to_owned(), ..t("a") },
            ErrorCode::TopicReserved,
        ),
        ("a malformed reply_to", v1::Message { reply_to: "a b".to_owned(), ..t("a") }, ErrorCode::InvalidArgument),
        ("a long key", v1::Message { idempotency_key: long.clone(), ..t("a") }, ErrorCode::FieldTooLarge),
        ("a long correlation", v1::Message { correlation_id: long, ..t("a") }, ErrorCode::FieldTooLarge),
        ("many contexts", v1::Message { context_refs: vec!["c".to_owned(); 17], ..t("a") }, ErrorCode::FieldTooLarge),
        ("no attributes", v1::Message { attributes: vec![9].into(), ..t("a") }, ErrorCode::InvalidAttributes),
        (
            "large attributes",
            v1::Message { attributes: vec![1; 16_385].into(), ..t("a") },
            ErrorCode::AttributesTooLarge,
        ),
        (
            "a large payload",
            v1::Message { payload: vec![0; limits::PAYLOAD_BYTES_MAX + 1].into(), ..t("a") },
            ErrorCode::PayloadTooLarge,
        ),
    ];
    let codes: Vec<(&str, ErrorCode)> = cases.iter().map(|(what, _, code)| (*what, *code)).collect();
    for ((what, code), (_, message, _)) in codes.into_iter().zip(cases) {
        match bus.send(message).await {
            Err(failure) => assert!(
                failure.code() == code
                    || code == ErrorCode::InvalidArgument && failure.status == tonic::Code::InvalidArgument,
                "{what}: {failure:?}"
            ),
            Ok(sent) => panic!("{what} was taken: {sent:?}"),
        }
    }
    let none = v1::SendRequest::default();
    assert_eq!(refused(told(bus.messages().send(none).await)), ErrorCode::MissingField);
    let level = v1::SendRequest { message: Some(t("a")), durability: 9 };
    assert_eq!(refused(told(bus.messages().send(level).await)), ErrorCode::UnknownEnum);
    // Nothing of all that was stored: the first good one is the first of the log.
    let sent = bus.send(t("a")).await.unwrap();
    assert!(sent.message_id.ends_with("-1"), "{}", sent.message_id);
}

#[tokio::test]
async fn the_largest_payload_passes() {
    let server = Setup::dev().start().await;
    let bus = server.dev("default", "a");
    let large = v1::Message { payload: vec![7; limits::PAYLOAD_BYTES_MAX].into(), ..message("a", "") };
    bus.send(large).await.unwrap();
}

#[tokio::test]
async fn an_id_that_names_nothing_says_so() {
    let server = Setup::dev().start().await;
    let bus = server.dev("default", "a");
    let sent = bus.send(message("t", "x")).await.unwrap().message_id;
    let status = |id: &str| {
        let (bus, request) = (bus.clone(), v1::GetMessageStatusRequest { message_id: id.to_owned() });
        async move { told(bus.messages().get_message_status(request).await).map(|_| ()) }
    };
    status(&sent).await.unwrap();
    for (id, code) in [
        ("", ErrorCode::MissingField),
        ("topics-0-1", ErrorCode::InvalidPosition),
        ("nope-0-1-1", ErrorCode::InvalidPosition),
        ("topics-0-1-999", ErrorCode::MessageNotFound),
        ("topics-0-9-1", ErrorCode::MessageNotFound),
        ("topics-7-1-1", ErrorCode::MessageNotFound),
        ("inbox-0-1-1", ErrorCode::MessageNotFound),
        ("topics-0-1-0", ErrorCode::MessageNotFound),
    ] {
        assert_eq!(refused(status(id).await), code, "{id:?}");
    }
    // Another tenant's id is an absent one.
    let other = server.dev("other", "a");
    other.send(message("$acb.all", "x")).await.unwrap();
    let request = v1::GetMessageStatusRequest { message_id: sent };
    assert_eq!(refused(told(other.messages().get_message_status(request).await)), ErrorCode::MessageNotFound);
}

#[tokio::test]
async fn a_stored_message_is_there_after_a_restart() {
    let server = Server::start().await;
    let bus = server.agent("a", &[]).await;
    let sent = bus.send(message("t", "x")).await.unwrap().message_id;
    let identity = bus.identity.clone();
    let server = server.restart().await;
    let bus = crate::support::Client { channel: server.channel(), identity };
    let request = v1::GetMessageStatusRequest { message_id: sent };
    told(bus.messages().get_message_status(request).await).unwrap();
}
