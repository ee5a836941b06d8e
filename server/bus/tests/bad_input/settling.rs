//! Settlements and positions that cannot be: of what was never given, of what another has, beyond the log's end. Each is
//! answered for itself; the stream and the real leases stay.

use acb_proto::v1;
use acb_testkit::{
    Server,
    raw::{ConsumeSession, Delivered, Failure, Opening, RawClient, answer},
};
use acb_types::limits;

use super::support::{Code, Log, client, dev, good, is, nobody_consumes, refused, send, session_id};

const INVALID_ARGUMENT: Code = (100, "invalid_argument");
const FIELD: Code = (112, "field_too_large");
const SETTLEMENTS: Code = (114, "too_many_settlements");
const POSITION: Code = (115, "invalid_position");
const NOT_FOUND: Code = (205, "message_not_found");
const NO_DEAD_LETTER: Code = (206, "dead_letter_not_found");
const LEASE_LOST: Code = (301, "lease_lost");

const JOBS: &str = "jobs";

/// A server with one subscription and some messages in it.
async fn jobs(count: usize) -> (Server, RawClient) {
    let server = dev().await;
    let bus = client(&server, "boss").await;
    create(&bus, v1::SubscriptionSpec::default()).await.unwrap();
    for _ in 0..count {
        send(&bus, good(JOBS)).await.unwrap();
    }
    (server, bus)
}

async fn create(bus: &RawClient, spec: v1::SubscriptionSpec) -> Result<v1::CreateSubscriptionResponse, Failure> {
    let name = if spec.name.is_empty() { JOBS.to_owned() } else { spec.name };
    let spec = v1::SubscriptionSpec { name, filters: vec![JOBS.to_owned()], ..spec };
    let request = v1::CreateSubscriptionRequest { spec: Some(spec) };
    answer(bus.subscriptions().create_subscription(request)).await
}

async fn consumer(bus: &RawClient, credit: u32) -> ConsumeSession {
    let opening = Opening {
        subscription: JOBS.to_owned(),
        session: session_id(),
        credit_messages: credit,
        credit_bytes: 1 << 20,
        ..Default::default()
    };
    ConsumeSession::open(bus, &opening).await.unwrap()
}

async fn take(session: &mut ConsumeSession, count: usize) -> Vec<Delivered> {
    let mut out = Vec::new();
    for _ in 0..count {
        out.push(session.message().await.unwrap());
    }
    out
}

async fn counts(bus: &RawClient) -> v1::Subscription {
    let request = v1::GetSubscriptionRequest { name: JOBS.to_owned() };
    answer(bus.subscriptions().get_subscription(request)).await.unwrap().subscription.unwrap()
}

fn range(first_seq: u64, count: u32) -> v1::SeqRange {
    v1::SeqRange { first_seq, count }
}

/// Each way to settle a range.
fn ways(first_seq: u64, count: u32) -> [(&'static str, v1::ConsumeRequest); 6] {
    let one = vec![range(first_seq, count)];
    let frame = v1::ConsumeRequest::default;
    let nack = v1::Nack { first_seq, count, ..Default::default() };
    let term = v1::Term { first_seq, count, ..Default::default() };
    [
        ("ack", v1::ConsumeRequest { acks: one.clone(), ..frame() }),
        ("confirmed ack", v1::ConsumeRequest { confirmed_acks: one.clone(), ..frame() }),
        ("nack", v1::ConsumeRequest { nacks: vec![nack], ..frame() }),
        ("progress", v1::ConsumeRequest { progress: one.clone(), ..frame() }),
        ("term", v1::ConsumeRequest { terms: vec![term], ..frame() }),
        ("release", v1::ConsumeRequest { releases: one, ..frame() }),
    ]
}

/// The one answer to a frame of settlements.
async fn settled(session: &mut ConsumeSession, frame: v1::ConsumeRequest) -> v1::Settled {
    session.send(frame).await.unwrap();
    loop {
        session.read().await.unwrap();
        if let Some(settled) = session.take_settled().into_iter().next() {
            return settled;
        }
    }
}

#[tokio::test]
async fn what_was_never_leased_cannot_be_settled_in_any_way() {
    let (server, bus) = jobs(3).await;
    let mut session = consumer(&bus, 2).await;
    let mine = take(&mut session, 2).await;
    let never = mine[1].seq + 1;
    let log = Log::mark(&server, &bus).await;
    for (what, seq) in [("a message that waits", never), ("a seq of the future", 1 << 40)] {
        for (way, frame) in ways(seq, 1) {
            let answer = settled(&mut session, frame).await;
            let error = Failure::from(answer.error.unwrap_or_else(|| panic!("{way} of {what} was taken")));
            is(&format!("{way} of {what}"), &error, LEASE_LOST);
            assert_eq!((answer.first_seq, answer.count), (seq, 1), "{way} of {what}");
        }
    }
    let now = counts(&bus).await;
    assert_eq!((now.leased, now.waiting_retry, now.dead_letters), (2, 0, 0), "{now:?}");
    assert_eq!(now.floor_seq, mine[0].seq, "nothing is settled");
    log.stands(&server, &bus).await;
    // What is leased is as before.
    session.ack_confirmed(mine[0].seq).await.unwrap();
    assert_eq!(take(&mut session, 1).await[0].seq, never);
}

#[tokio::test]
async fn anothers_lease_cannot_be_settled_in_any_way() {
    let (_server, bus) = jobs(1).await;
    let mut holder = consumer(&bus, 1).await;
    let held = take(&mut holder, 1).await.remove(0);
    let mut thief = consumer(&bus, 10).await;
    for (way, frame) in ways(held.seq, 1) {
        let answer = settled(&mut thief, frame).await;
        let error = Failure::from(answer.error.unwrap_or_else(|| panic!("{way} of another's was taken")));
        is(&format!("{way} of another's"), &error, LEASE_LOST);
        let now = counts(&bus).await;
        assert_eq!((now.leased, now.floor_seq), (1, held.seq), "{way} changed {now:?}");
    }
    holder.ack_confirmed(held.seq).await.unwrap();
    assert_eq!(counts(&bus).await.leased, 0);
}

#[tokio::test]
async fn ranges_that_are_none_are_refused_and_the_stream_goes_on() {
    let (_server, bus) = jobs(2).await;
    let mut session = consumer(&bus, 10).await;
    let mine = take(&mut session, 2).await;
    for (what, first, count) in [
        ("seq 0", 0, 1),
        ("no message", mine[0].seq, 0),
        ("a range that runs backwards, past the last number there is", u64::MAX, 2),
        ("minus one", u64::MAX, u32::MAX),
    ] {
        for (way, frame) in ways(first, count) {
            let answer = settled(&mut session, frame).await;
            let error = Failure::from(answer.error.unwrap_or_else(|| panic!("{way} of {what} was taken")));
            is(&format!("{way} of {what}"), &error, POSITION);
        }
    }
    assert_eq!(counts(&bus).await.leased, 2);
    for message in mine {
        session.ack_confirmed(message.seq).await.unwrap();
    }
    assert_eq!(counts(&bus).await.leased, 0);
}

#[tokio::test]
async fn a_range_wider_than_what_was_given_settles_what_was_given_and_nothing_else() {
    let (_server, bus) = jobs(3).await;
    let mut other = consumer(&bus, 1).await;
    let theirs = take(&mut other, 1).await.remove(0);
    let mut session = consumer(&bus, 2).await;
    let mine = take(&mut session, 2).await;
    let all = v1::ConsumeRequest { confirmed_acks: vec![range(1, u32::MAX)], ..Default::default() };
    session.send(all).await.unwrap();
    session.settled(mine[1].seq).await.unwrap();
    let now = counts(&bus).await;
    assert_eq!((now.leased, now.floor_seq), (1, theirs.seq), "the other's lease is its own: {now:?}");
    other.ack_confirmed(theirs.seq).await.unwrap();
}

#[tokio::test]
async fn settlements_over_their_bounds_are_refused() {
    let (server, bus) = jobs(1).await;
    let mut session = consumer(&bus, 10).await;
    let mine = take(&mut session, 1).await.remove(0);
    let first_seq = mine.seq;
    let long = "x".repeat(limits::REASON_BYTES_MAX + 1);
    let week = limits::NACK_DELAY_MAX.as_millis() as u64;
    let nack = |delay_ms, reason: &str| v1::ConsumeRequest {
        nacks: vec![v1::Nack { first_seq, count: 1, delay_ms, reason: reason.to_owned() }],
        ..Default::default()
    };
    let term = v1::Term { first_seq, count: 1, reason: long.clone() };
    for (what, frame, code) in [
        ("a reason of a nack", nack(0, &long), FIELD),
        ("a reason of a term", v1::ConsumeRequest { terms: vec![term], ..Default::default() }, FIELD),
        ("a delay over a week", nack(week + 1, ""), INVALID_ARGUMENT),
        ("a delay without end", nack(u64::MAX, ""), INVALID_ARGUMENT),
    ] {
        let answer = settled(&mut session, frame).await;
        is(what, &Failure::from(answer.error.unwrap_or_else(|| panic!("{what} was taken"))), code);
    }
    assert_eq!(counts(&bus).await.leased, 1);
    // A frame of too many is refused whole, and ends its stream: nothing of it counts.
    let many = v1::ConsumeRequest {
        confirmed_acks: vec![range(first_seq, 1); limits::SETTLEMENTS_PER_FRAME_MAX + 1],
        ..Default::default()
    };
    session.send(many).await.unwrap();
    let ended = loop {
        match session.read().await {
            Ok(_) => assert!(session.take_settled().is_empty(), "one of too many was taken"),
            Err(failure) => break failure,
        }
    };
    is("4,097 settlements", &ended, SETTLEMENTS);
    nobody_consumes(&bus, JOBS).await;
    server.admin().advance(limits::SESSION_GRACE).await.unwrap();
    let mut next = consumer(&bus, 10).await;
    assert_eq!(take(&mut next, 1).await[0].seq, first_seq, "it was not acknowledged");
}

#[tokio::test]
async fn credit_over_its_bounds_ends_the_stream() {
    let (_server, bus) = jobs(1).await;
    for (messages, bytes) in
        [(limits::CREDIT_MESSAGES_MAX + 1, 1), (1, limits::CREDIT_BYTES_MAX + 1), (u32::MAX, u64::MAX)]
    {
        let mut session = consumer(&bus, 0).await;
        session.credit(messages, bytes).await.unwrap();
        refused("a credit", session.read().await, FIELD);
    }
    let mut session = consumer(&bus, 0).await;
    session.credit(limits::CREDIT_MESSAGES_MAX, limits::CREDIT_BYTES_MAX).await.unwrap();
    take(&mut session, 1).await;
}

#[tokio::test]
async fn a_resume_from_the_future_counts_for_what_was_given_and_shows_as_a_hole() {
    let (server, bus) = jobs(4).await;
    let session = session_id();
    let opening = |resume, credit| Opening {
        subscription: JOBS.to_owned(),
        session,
        resume,
        credit_messages: credit,
        credit_bytes: 1 << 20,
        ..Default::default()
    };
    let mut first = ConsumeSession::open(&bus, &opening(0, 3)).await.unwrap();
    let given = take(&mut first, 3).await;
    drop(first);
    nobody_consumes(&bus, JOBS).await;
    // "Number 1,000,000 was the last that arrived": of the three that were given, all did. The next is number 4 all the
    // same, so the client sees that it has lost count.
    let mut second = ConsumeSession::open(&bus, &opening(1_000_000, 4)).await.unwrap();
    let hole = second.message().await.unwrap_err();
    assert!(hole.message.contains("delivery 4 after 1000000"), "{hole}");
    let now = counts(&bus).await;
    assert_eq!((now.leased, now.floor_seq), (4, given[0].seq), "nothing is settled by it: {now:?}");
    // And nothing is lost: unsettled, all of them come again to whoever asks when the session's grace is over.
    drop(second);
    nobody_consumes(&bus, JOBS).await;
    server.admin().advance(limits::SESSION_GRACE).await.unwrap();
    let mut next = consumer(&bus, 10).await;
    let again: Vec<u64> = take(&mut next, 4).await.iter().map(|m| m.seq).collect();
    assert!(given.iter().all(|m| again.contains(&m.seq)), "{again:?}");
}

#[tokio::test]
async fn ids_of_messages_that_cannot_be_or_are_not_yet_are_told_apart() {
    let (server, bus) = jobs(1).await;
    let sent = send(&bus, good("t")).await.unwrap().message_id;
    let (log_and_epoch, seq) = sent.rsplit_once('-').unwrap();
    let log = log_and_epoch.rsplit_once('-').unwrap().0;
    let mark = Log::mark(&server, &bus).await;
    for (what, id, code) in [
        ("the next seq but ten", format!("{log_and_epoch}-{}", seq.parse::<u64>().unwrap() + 10), NOT_FOUND),
        ("the largest seq", format!("{log_and_epoch}-{}", u64::MAX), NOT_FOUND),
        ("a seq beyond any", format!("{log_and_epoch}-{}0", u64::MAX), POSITION),
        ("minus one", format!("{log_and_epoch}--1"), POSITION),
        ("a later epoch", format!("{log}-99-{seq}"), NOT_FOUND),
        ("an epoch beyond any", format!("{log}-4294967296-{seq}"), POSITION),
        ("epoch 0", format!("{log}-0-{seq}"), NOT_FOUND),
        ("a partition that is not there", format!("topics-9-1-{seq}"), NOT_FOUND),
        ("a log that is none", format!("nothing-0-1-{seq}"), POSITION),
        ("a plus", format!("{log_and_epoch}-+{seq}"), POSITION),
        ("zeros before", format!("{log_and_epoch}-0{seq}"), POSITION),
        ("garbage", "%00".to_owned(), POSITION),
        ("much garbage", "x".repeat(10_000), POSITION),
    ] {
        let status = v1::GetMessageStatusRequest { message_id: id.clone() };
        refused(what, answer(bus.messages().get_message_status(status)).await, code);
        let letter = v1::GetDeadLetterRequest { dead_letter_id: id };
        let expected = if code == NOT_FOUND { NO_DEAD_LETTER } else { code };
        refused(what, answer(bus.dead_letters().get_dead_letter(letter)).await, expected);
    }
    mark.stands(&server, &bus).await;
    let status = v1::GetMessageStatusRequest { message_id: sent };
    answer(bus.messages().get_message_status(status)).await.unwrap();
}

#[tokio::test]
async fn a_subscription_that_starts_beyond_the_log_waits_there_and_one_that_starts_wrongly_is_not_made() {
    let (_server, bus) = jobs(1).await;
    let start = |name: &str, start_at: i32, start_seq, start_time_ms| v1::SubscriptionSpec {
        name: name.to_owned(),
        start_at,
        start_seq,
        start_time_ms,
        ..Default::default()
    };
    for (what, spec, code) in [
        ("no seq", start("a", v1::StartAt::Sequence as i32, 0, 0), (113, "missing_field")),
        ("no time", start("a", v1::StartAt::Time as i32, 0, 0), (113, "missing_field")),
        ("a seq that is not asked for", start("a", v1::StartAt::All as i32, 5, 0), INVALID_ARGUMENT),
        ("a time that is not asked for", start("a", v1::StartAt::New as i32, 0, 5), INVALID_ARGUMENT),
        ("a start that is none", start("a", 99, 0, 0), (106, "unknown_enum")),
    ] {
        refused(what, create(&bus, spec).await, code);
        let get = v1::GetSubscriptionRequest { name: "a".to_owned() };
        let there = answer(bus.subscriptions().get_subscription(get)).await;
        refused(what, there, (202, "subscription_not_found"));
    }
    // A seq that was not given out yet cannot be skipped to: the subscription hears what comes next.
    let made = create(&bus, start("ahead", v1::StartAt::Sequence as i32, u64::MAX, 0)).await;
    let made = made.unwrap().subscription.unwrap();
    assert!(made.cursor_seq <= made.next_seq, "a cursor beyond the log: {made:?}");
    let opening = Opening {
        subscription: "ahead".to_owned(),
        session: session_id(),
        credit_messages: 10,
        credit_bytes: 1 << 20,
        ..Default::default()
    };
    let mut session = ConsumeSession::open(&bus, &opening).await.unwrap();
    send(&bus, v1::Message { payload: "next".into(), ..good(JOBS) }).await.unwrap();
    assert_eq!(&session.message().await.unwrap().message.payload[..], b"next");
}
