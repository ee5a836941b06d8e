//! Dead letters, as far as they can be reached without a consumer: what each verb says of what is not there. How letters
//! come to be, and come back, is told with the hot streams.

use acb_proto::v1;
use acb_types::{ErrorCode, position::ClassId};

use crate::{
    held_log::Hold,
    streams::consume,
    support::{Server, Setup, message, refused, spec, told, wait_until},
};

#[tokio::test]
async fn verbs_on_absent_letters_say_so_or_succeed() {
    let server = Setup::dev().start().await;
    let bus = server.dev("default", "a");
    bus.register(spec("a")).await.unwrap();
    let list = |subscription: &str, token: &str| {
        let request = v1::ListDeadLettersRequest {
            subscription: subscription.to_owned(),
            page_token: token.to_owned(),
            ..v1::ListDeadLettersRequest::default()
        };
        let bus = bus.clone();
        async move { told(bus.dead_letters().list_dead_letters(request).await) }
    };
    assert!(list("$inbox.a", "").await.unwrap().dead_letters.is_empty());
    assert_eq!(refused(list("nope", "").await), ErrorCode::SubscriptionNotFound);
    assert_eq!(refused(list("", "").await), ErrorCode::MissingField);
    assert_eq!(refused(list("$inbox.a", "xx").await), ErrorCode::InvalidPageToken);
    for (id, code) in [
        ("dead-letters-0-1-1", ErrorCode::DeadLetterNotFound),
        ("topics-0-1-1", ErrorCode::DeadLetterNotFound),
        ("junk", ErrorCode::InvalidPosition),
        ("", ErrorCode::MissingField),
    ] {
        let get = v1::GetDeadLetterRequest { dead_letter_id: id.to_owned() };
        assert_eq!(refused(told(bus.dead_letters().get_dead_letter(get).await)), code, "{id}");
        let redrive = v1::RedriveDeadLetterRequest { dead_letter_id: id.to_owned(), payload: None };
        assert_eq!(refused(told(bus.dead_letters().redrive_dead_letter(redrive).await)), code, "{id}");
    }
    let large = v1::RedriveDeadLetterRequest {
        dead_letter_id: "dead-letters-0-1-1".to_owned(),
        payload: Some(vec![0; 1_048_577].into()),
    };
    assert_eq!(refused(told(bus.dead_letters().redrive_dead_letter(large).await)), ErrorCode::PayloadTooLarge);
    let discard = v1::DiscardDeadLetterRequest { dead_letter_id: "dead-letters-0-1-1".to_owned() };
    told(bus.dead_letters().discard_dead_letter(discard).await).unwrap();
}

#[tokio::test]
async fn the_dead_letters_of_anothers_inbox_are_nobodys_affair() {
    let server = Server::start().await;
    let (one, two) = (server.agent("one", &[]).await, server.agent("two", &[]).await);
    one.register(spec("one")).await.unwrap();
    let request = || v1::ListDeadLettersRequest { subscription: "$inbox.one".to_owned(), ..Default::default() };
    told(one.dead_letters().list_dead_letters(request()).await).unwrap();
    assert_eq!(refused(told(two.dead_letters().list_dead_letters(request()).await)), ErrorCode::SubscriptionNotFound);
    let observer = server.agent("o", &["observer"]).await;
    told(observer.dead_letters().list_dead_letters(request()).await).unwrap();
    let get = v1::GetDeadLetterRequest { dead_letter_id: "dead-letters-0-1-1".to_owned() };
    assert_eq!(refused(told(observer.dead_letters().get_dead_letter(get).await)), ErrorCode::PermissionDenied);
}

#[tokio::test]
async fn a_letter_is_listed_once_it_can_be_discarded_and_not_after_that() {
    // A letter is its facts, seq 1, and the message, seq 2.
    let hold = Hold::of(ClassId::DEAD_LETTERS, 2);
    let server = Setup::dev().holding(&hold).start().await;
    let bus = server.dev("default", "a");
    let incarnation = bus.register(spec("a")).await.unwrap().incarnation;
    let mut stream = consume(&bus, "$inbox.a", incarnation).await.unwrap();
    let send = v1::SendRequest { message: Some(message("$acb.inbox.a", "poison")), ..v1::SendRequest::default() };
    told(bus.messages().send(send).await).unwrap();
    let delivered = stream.next().await.unwrap();
    let first_seq = delivered.runs[0].first_seq;
    let term = v1::Term { first_seq, count: 1, reason: "no".to_owned() };
    stream.up.send(v1::ConsumeRequest { terms: vec![term], ..Default::default() }).await.unwrap();
    let list = || {
        let bus = bus.clone();
        async move {
            let request = v1::ListDeadLettersRequest { subscription: "$inbox.a".to_owned(), ..Default::default() };
            told(bus.dead_letters().list_dead_letters(request).await).unwrap().dead_letters
        }
    };
    let discard = |id: String| {
        let bus = bus.clone();
        async move {
            let request = v1::DiscardDeadLetterRequest { dead_letter_id: id };
            told(bus.dead_letters().discard_dead_letter(request).await).unwrap();
        }
    };
    // Written, and its sync held: it may not be seen, as it cannot be thrown away yet.
    wait_until("facts and message", || async { hold.written_end() }, |end| *end > 2).await;
    for letter in list().await {
        discard(letter.dead_letter_id).await;
        assert!(list().await.is_empty(), "it was discarded and is listed still");
    }
    hold.let_go();
    let letters = wait_until("the letter", list, |l| !l.is_empty()).await;
    assert_eq!((letters.len(), letters[0].reason.as_str()), (1, "terminated"));
    discard(letters[0].dead_letter_id.clone()).await;
    assert!(list().await.is_empty(), "it was discarded and is listed still");
}
