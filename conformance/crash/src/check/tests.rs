//! One of each kind of wrong, and what is only nearly wrong.

use super::*;
use crate::history::{Event, How, Level, Place};

/// Time between two events of a made history.
const STEP_US: u64 = 1_000;

fn place(epoch: u32, seq: u64) -> Place {
    Place { class: 1, epoch, seq }
}

/// A history in the making: producer `p`, subscription `s` on `t.>`, consumers by name.
#[derive(Default)]
struct Tale {
    entries: Vec<Entry>,
    now_us: u64,
    deliveries: u64,
}

impl Tale {
    fn new() -> Self {
        let mut tale = Self::default();
        tale.add(Event::Started { life: 1 });
        tale.subscribed("s", 1, 3)
    }

    fn add(&mut self, event: Event) {
        self.now_us += STEP_US;
        self.entries.push(Entry { at_us: self.now_us, event });
    }

    fn with(mut self, event: Event) -> Self {
        self.add(event);
        self
    }

    fn after_ms(mut self, ms: u64) -> Self {
        self.now_us += ms * 1000;
        self
    }

    fn subscribed(self, name: &str, start_seq: u64, max_attempts: u32) -> Self {
        self.with(Event::Subscribed {
            subscription: name.into(),
            class: 1,
            filters: vec!["t.>".into()],
            start_seq,
            ack_wait_ms: 60_000,
            max_attempts,
            alone: true,
        })
    }

    fn publish(self, n: u64, level: Level, key: Option<&str>, body: &str) -> Self {
        let (producer, topic) = ("p".into(), "t.a".into());
        self.with(Event::Publish { producer, n, topic, level, key: key.map(str::to_owned), body: body.into() })
    }

    fn published(self, n: u64, place: Place, level: Level, duplicate: bool) -> Self {
        self.with(Event::Published { producer: "p".into(), n, place, level, duplicate })
    }

    /// A publish of its own body, acknowledged as written.
    fn acked(self, n: u64, at: Place) -> Self {
        self.publish(n, Level::Written, None, &format!("p#{n}")).published(n, at, Level::Written, false)
    }

    fn killed(self, life: u32) -> Self {
        self.with(Event::Killed { life, publishes_open: 1, settlements_open: 0 })
            .with(Event::Started { life: life + 1 })
    }

    fn delivered_to(mut self, consumer: &str, at: Place, attempt: u32, body: &str) -> Self {
        self.deliveries += 1;
        let delivery = self.deliveries;
        self.with(Event::Delivered {
            subscription: "s".into(),
            consumer: consumer.into(),
            delivery,
            place: at,
            topic: "t.a".into(),
            attempt,
            body: body.into(),
        })
    }

    fn delivered(self, at: Place, attempt: u32, body: &str) -> Self {
        self.delivered_to("c", at, attempt, body)
    }

    /// Settles the last delivery.
    fn settle(self, at: Place, how: How) -> Self {
        let delivery = self.deliveries;
        self.with(Event::Settle { subscription: "s".into(), consumer: "c".into(), delivery, place: at, how })
    }

    fn confirmed(self, at: Place) -> Self {
        let delivery = self.deliveries;
        let tale = self.settle(at, How::Confirm);
        tale.with(Event::Confirmed { subscription: "s".into(), consumer: "c".into(), delivery, place: at })
    }

    /// Delivered and confirmed.
    fn done(self, at: Place, body: &str) -> Self {
        self.delivered(at, 1, body).confirmed(at)
    }

    fn dead(self, letter: u64, at: Place, reason: &str, attempts: u32) -> Self {
        self.with(Event::Dead {
            subscription: "s".into(),
            letter: Place { class: 2, epoch: 1, seq: letter },
            place: at,
            reason: reason.into(),
            attempts,
            body: String::new(),
        })
    }

    /// The logs, read in the end.
    fn stored(mut self, records: &[(Place, &str)]) -> Self {
        self.add(Event::LogRead { class: 1, first_seq: 1, epoch: 9 });
        for (place, body) in records {
            self.add(Event::Stored { place: *place, topic: "t.a".into(), body: (*body).into(), expires: false });
        }
        self
    }

    fn request(self, n: u64, body: &str) -> Self {
        self.with(Event::Request { requester: "r".into(), n, body: body.into() })
    }

    fn answered(self, n: u64, reply: Option<&str>, code: Option<&str>) -> Self {
        let (reply, code) = (reply.map(str::to_owned), code.map(str::to_owned));
        self.with(Event::Answered { requester: "r".into(), n, reply, code })
    }

    #[track_caller]
    fn breaks(self, rules: &[Rule]) {
        let found = check(&self.entries);
        let mut broken: Vec<Rule> = found.iter().map(|v| v.rule).collect();
        broken.dedup();
        assert_eq!(broken, rules, "\n{}", told(&found));
        for violation in &found {
            assert!(violation.what.contains("line "), "names the lines: {violation}");
        }
    }

    #[track_caller]
    fn holds(self) {
        self.breaks(&[]);
    }
}

const A: Place = Place { class: 1, epoch: 1, seq: 1 };
const B: Place = Place { class: 1, epoch: 1, seq: 2 };

#[test]
fn a_history_in_which_all_went_well_has_nothing_wrong() {
    Tale::new()
        .acked(0, A)
        .acked(1, B)
        .done(A, "p#0")
        .delivered(B, 1, "p#1")
        .killed(1)
        .acked(2, place(2, 9))
        .delivered(B, 1, "p#1")
        .settle(B, How::Ack)
        .done(place(2, 9), "p#2")
        .request(0, "r?0")
        .answered(0, Some("re:r?0|7"), None)
        .stored(&[(A, "p#0"), (B, "p#1"), (place(2, 9), "p#2")])
        .holds();
}

#[test]
fn an_acknowledged_message_that_is_not_in_the_log_is_lost() {
    Tale::new().acked(0, A).killed(1).stored(&[]).breaks(&[Rule::AckedIsStored]);
    let elsewhere = Tale::new().acked(0, A).done(B, "p#0").stored(&[(B, "p#0")]);
    elsewhere.breaks(&[Rule::AckedIsStored]);
    let lower = Tale::new().publish(0, Level::Synced, None, "p#0").published(0, A, Level::Written, false);
    lower.done(A, "p#0").stored(&[(A, "p#0")]).breaks(&[Rule::AckedIsStored]);
}

#[test]
fn what_only_memory_had_may_be_lost_but_not_doubled() {
    let memory = || Tale::new().publish(0, Level::Memory, None, "p#0").published(0, A, Level::Memory, false);
    memory().delivered(A, 1, "p#0").killed(1).stored(&[]).holds();
    let twice = memory().done(A, "p#0").killed(1).done(place(2, 5), "p#0").stored(&[(A, "p#0"), (place(2, 5), "p#0")]);
    twice.breaks(&[Rule::StoredOnce]);
}

#[test]
fn a_message_that_is_stored_twice_is_named() {
    let tale = Tale::new().acked(0, A).done(A, "p#0").done(B, "p#0");
    tale.stored(&[(A, "p#0"), (B, "p#0")]).breaks(&[Rule::StoredOnce]);
}

#[test]
fn a_repeat_under_a_key_gets_the_first_place_and_says_so() {
    let first = |key| {
        Tale::new()
            .publish(0, Level::Synced, Some(key), "p#0")
            .published(0, A, Level::Synced, false)
            .done(A, "p#0")
            .killed(1)
            .publish(1, Level::Synced, Some(key), "p#0")
    };
    first("k").published(1, A, Level::Synced, true).stored(&[(A, "p#0")]).holds();
    first("k").published(1, A, Level::Synced, false).stored(&[(A, "p#0")]).breaks(&[
        Rule::RepeatHasFirstPlace,
        Rule::SeqsRise,
        Rule::EpochsRise,
    ]);
    let elsewhere = first("k").published(1, B, Level::Synced, true).stored(&[(A, "p#0")]);
    elsewhere.breaks(&[Rule::AckedIsStored, Rule::RepeatHasFirstPlace]);
}

#[test]
fn of_two_calls_under_a_key_that_were_open_at_once_either_may_be_the_first() {
    Tale::new()
        .publish(0, Level::Synced, Some("k"), "p#0")
        .publish(1, Level::Synced, Some("k"), "p#0")
        .published(1, A, Level::Synced, true)
        .published(0, A, Level::Synced, false)
        .done(A, "p#0")
        .stored(&[(A, "p#0")])
        .holds();
}

#[test]
fn what_was_refused_must_not_be_there() {
    let refused = || {
        let no = Event::Refused { producer: "p".into(), n: 0, code: "agent_not_found".into() };
        Tale::new().publish(0, Level::Written, None, "p#0").with(no)
    };
    refused().stored(&[]).holds();
    refused().done(A, "p#0").stored(&[(A, "p#0")]).breaks(&[Rule::RefusedIsNotStored]);
    let nobody = || Tale::new().request(0, "r?0").answered(0, None, Some("no_responders"));
    nobody().stored(&[]).holds();
    nobody().done(A, "r?0").stored(&[(A, "r?0")]).breaks(&[Rule::RefusedIsNotStored]);
}

#[test]
fn messages_of_one_producer_out_of_order_are_named() {
    Tale::new()
        .publish(0, Level::Written, None, "p#0")
        .publish(1, Level::Written, None, "p#1")
        .published(0, B, Level::Written, false)
        .published(1, A, Level::Written, false)
        .done(A, "p#1")
        .done(B, "p#0")
        .stored(&[(A, "p#1"), (B, "p#0")])
        .breaks(&[Rule::OrderPerProducer]);
}

#[test]
fn a_seq_that_was_seen_with_another_message_is_reused() {
    let memory = Tale::new().publish(0, Level::Memory, None, "p#0").published(0, A, Level::Memory, false).killed(1);
    // It was lost, which it may be; but its seq is given again.
    let reused = memory.publish(1, Level::Written, None, "p#1").published(1, place(2, 1), Level::Written, false);
    let reused = reused.done(place(2, 1), "p#1").stored(&[(place(2, 1), "p#1")]);
    reused.breaks(&[Rule::SeqNamesOneMessage, Rule::SeqsRise]);
    let delivered = Tale::new().publish(0, Level::Memory, None, "p#0").publish(1, Level::Memory, None, "p#1");
    let delivered = delivered.delivered(A, 1, "p#0").killed(1).done(A, "p#1").stored(&[(A, "p#1")]);
    delivered.breaks(&[Rule::SeqNamesOneMessage]);
}

#[test]
fn a_seq_below_one_that_was_acknowledged_before_has_gone_back() {
    Tale::new()
        .acked(0, B)
        .publish(1, Level::Written, None, "other")
        .published(1, A, Level::Written, false)
        .done(A, "other")
        .done(B, "p#0")
        .stored(&[(A, "other"), (B, "p#0")])
        .breaks(&[Rule::OrderPerProducer, Rule::SeqsRise]);
}

#[test]
fn a_life_that_goes_on_in_the_epoch_of_a_killed_one_is_named() {
    let tale = Tale::new().acked(0, A).done(A, "p#0").killed(1).acked(1, place(1, 5)).done(place(1, 5), "p#1");
    tale.stored(&[(A, "p#0"), (place(1, 5), "p#1")]).breaks(&[Rule::EpochsRise]);
    let backwards = Tale::new().done(A, "x").stored(&[(place(2, 1), "y"), (place(1, 2), "x")]);
    assert!(check(&backwards.entries).iter().any(|v| v.rule == Rule::EpochsRise));
}

#[test]
fn what_is_delivered_and_not_in_the_log_was_never_safe() {
    let lost = Tale::new().publish(0, Level::Written, None, "p#0").done(A, "p#0").killed(1).stored(&[]);
    lost.breaks(&[Rule::DeliveredIsStored]);
    let early = Tale::new().subscribed("s", 2, 3).acked(0, A).done(A, "p#0").stored(&[(A, "p#0")]);
    let broken = check(&early.entries);
    assert!(broken.iter().any(|v| v.rule == Rule::DeliveredIsStored), "below its start: {}", told(&broken));
}

#[test]
fn a_message_that_a_subscription_never_got_is_named() {
    Tale::new().acked(0, A).stored(&[(A, "p#0")]).breaks(&[Rule::EveryoneGetsEverything]);
}

#[test]
fn first_deliveries_out_of_order_are_named_and_later_ones_are_not() {
    let both = || Tale::new().acked(0, A).acked(1, B);
    both().done(B, "p#1").done(A, "p#0").stored(&[(A, "p#0"), (B, "p#1")]).breaks(&[Rule::DeliveredInOrder]);
    let again = both().delivered(A, 1, "p#0").settle(A, How::Nack { delay_ms: 1 }).done(B, "p#1").done(A, "p#0");
    again.stored(&[(A, "p#0"), (B, "p#1")]).holds();
}

#[test]
fn a_second_lease_beside_a_live_one_is_named() {
    let one = || Tale::new().acked(0, A).delivered_to("d", A, 1, "p#0");
    let log = [(A, "p#0")];
    one().done(A, "p#0").stored(&log).breaks(&[Rule::OneLease]);
    // Its server was killed, its consumer died, or its time was over: then it is another's.
    one().killed(1).done(A, "p#0").stored(&log).holds();
    one().with(Event::Died { subscription: "s".into(), consumer: "d".into() }).done(A, "p#0").stored(&log).holds();
    one().after_ms(60_000).done(A, "p#0").stored(&log).holds();
    // More time was asked for.
    let renewed = one().after_ms(40_000).settle(A, How::Progress).after_ms(30_000).done(A, "p#0").stored(&log);
    renewed.breaks(&[Rule::OneLease]);
    // Nobody gives again what was acknowledged.
    let acked = Tale::new().acked(0, A).delivered(A, 1, "p#0").settle(A, How::Ack).done(A, "p#0").stored(&log);
    acked.breaks(&[Rule::OneLease]);
    let released = Tale::new().acked(0, A).delivered(A, 1, "p#0").settle(A, How::Release).done(A, "p#0").stored(&log);
    released.holds();
}

#[test]
fn a_failed_message_that_comes_before_its_delay_is_named() {
    let failed = || Tale::new().acked(0, A).delivered(A, 1, "p#0").settle(A, How::Nack { delay_ms: 50 });
    failed().after_ms(20).done(A, "p#0").stored(&[(A, "p#0")]).breaks(&[Rule::NackWaits]);
    failed().after_ms(50).done(A, "p#0").stored(&[(A, "p#0")]).holds();
    failed().killed(1).done(A, "p#0").stored(&[(A, "p#0")]).holds();
}

#[test]
fn what_was_confirmed_and_comes_again_is_named() {
    let tale = Tale::new().acked(0, A).done(A, "p#0").killed(1).done(A, "p#0");
    tale.stored(&[(A, "p#0")]).breaks(&[Rule::ConfirmedStaysDone]);
    // A plain ack may be lost with its server.
    let plain = Tale::new().acked(0, A).delivered(A, 1, "p#0").settle(A, How::Ack).killed(1).done(A, "p#0");
    plain.stored(&[(A, "p#0")]).holds();
}

#[test]
fn what_is_confirmed_and_dead_is_named() {
    let tale = Tale::new().acked(0, A).delivered(A, 1, "p#0").settle(A, How::Term).killed(1).done(A, "p#0");
    tale.dead(1, A, "terminated", 1).stored(&[(A, "p#0")]).breaks(&[Rule::ConfirmedIsNotDead]);
}

#[test]
fn dead_letters_are_neither_lost_nor_doubled_nor_without_a_cause() {
    let given_up = || Tale::new().acked(0, A).delivered(A, 1, "p#0").settle(A, How::Term);
    let log = [(A, "p#0")];
    given_up().dead(1, A, "terminated", 1).stored(&log).holds();
    given_up().stored(&log).breaks(&[Rule::GivenUpIsDead]);
    given_up().dead(1, A, "terminated", 1).dead(2, A, "terminated", 1).stored(&log).breaks(&[Rule::OneLetterPerDeath]);
    let last = |attempt| Tale::new().acked(0, A).delivered(A, attempt, "p#0").settle(A, How::Nack { delay_ms: 1 });
    last(3).dead(1, A, "attempts_exhausted", 3).stored(&log).holds();
    last(3).stored(&log).breaks(&[Rule::GivenUpIsDead]);
    last(2).dead(1, A, "attempts_exhausted", 2).stored(&log).breaks(&[Rule::DeadHasCause]);
    let acked = || Tale::new().acked(0, A).delivered(A, 1, "p#0").settle(A, How::Ack);
    acked().dead(1, A, "attempts_exhausted", 5).stored(&log).breaks(&[Rule::DeadHasCause]);
    acked().dead(1, A, "connection_lost", 3).stored(&log).holds();
    Tale::new().dead(1, A, "terminated", 1).stored(&[]).breaks(&[Rule::DeadHasCause]);
}

#[test]
fn what_was_delivered_and_never_settled_is_forgotten() {
    let log = [(A, "p#0")];
    let held = || Tale::new().acked(0, A).delivered(A, 1, "p#0");
    held().stored(&log).breaks(&[Rule::NothingIsForgotten]);
    held().settle(A, How::Nack { delay_ms: 1 }).stored(&log).breaks(&[Rule::NothingIsForgotten]);
    held().settle(A, How::Release).stored(&log).breaks(&[Rule::NothingIsForgotten]);
    let refused = |tale: Tale| {
        let code = "lease_lost".into();
        let no = Event::NotSettled { subscription: "s".into(), consumer: "c".into(), delivery: 1, place: A, code };
        tale.with(no).stored(&log)
    };
    refused(held().settle(A, How::Confirm)).breaks(&[Rule::NothingIsForgotten]);
    // The server was killed before it answered: it may have kept the word.
    refused(held().settle(A, How::Confirm).killed(1)).holds();
}

#[test]
fn a_request_has_one_final_answer_and_its_own() {
    let asked = || Tale::new().request(0, "r?0");
    asked().answered(0, Some("re:r?0|1"), None).answered(0, None, Some("client_closed")).breaks(&[Rule::OneAnswer]);
    asked().answered(0, Some("re:r?1|1"), None).breaks(&[Rule::OneAnswer]);
    asked().breaks(&[Rule::OneAnswer]);
    Tale::new().answered(0, None, Some("client_closed")).breaks(&[Rule::OneAnswer]);
    asked().answered(0, None, Some("timeout")).breaks(&[Rule::AskedIsAnswered]);
    asked().answered(0, None, Some("no_responders")).holds();
}

#[test]
fn many_violations_of_a_rule_are_told_as_a_few_and_a_number() {
    let mut tale = Tale::new();
    for n in 0..9 {
        tale = tale.acked(n, place(1, n + 1));
    }
    let text = told(&check(&tale.stored(&[]).entries));
    assert!(text.contains("CRASH-1 AckedIsStored: 9 in all"), "{text}");
    assert_eq!(text.matches("is not in the log").count(), TOLD_MAX, "{text}");
}

#[test]
fn patterns_are_read_as_the_bus_reads_them() {
    for (filter, topic, hears) in [
        ("a.b", "a.b", true),
        ("a.b", "a.b.c", false),
        ("a.*", "a.b", true),
        ("a.*", "a", false),
        ("*.b", "a.b", true),
        ("a.>", "a.b.c", true),
        ("a.>", "a", false),
        (">", "a", true),
        ("a.*.c", "a.b.d", false),
    ] {
        assert_eq!(facts::matches(filter, topic), hears, "{filter} {topic}");
    }
}
