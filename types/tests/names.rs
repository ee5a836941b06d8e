//! The grammar of topics and filters, and matching, against models that are slow and plain.

#![allow(clippy::unwrap_used, reason = "tests")]

use acb_types::{AgentId, Capability, SubscriptionName, Topic, TopicFilter, name::Address, name::InvalidName};
use proptest::prelude::*;

/// Pieces that make texts which are nearly names.
fn nearly() -> impl Strategy<Value = String> {
    let pieces =
        prop::sample::select(vec!["a", "b", "ab", ".", ".", ".", "*", ">", " ", "é", "\u{0}", "$acb", "$", "\u{a0}"]);
    proptest::collection::vec(pieces, 0..12).prop_map(|pieces| pieces.concat())
}

fn topic() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec!["a", "b", "c", "$acb", "inbox", "é"]);
    proptest::collection::vec(token, 1..6).prop_map(|tokens| tokens.join("."))
}

fn filter() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec!["a", "b", "*", "*", "$acb", "inbox", "é"]);
    (proptest::collection::vec(token, 0..5), any::<bool>()).prop_filter_map("empty", |(mut tokens, tail)| {
        if tail {
            tokens.push(">");
        }
        (!tokens.is_empty()).then(|| tokens.join("."))
    })
}

/// A filter, and a topic that it hears but for one token more or less at times.
fn near_pair() -> impl Strategy<Value = (String, String)> {
    let token = prop::sample::select(vec!["a", "b", "$acb", "é"]);
    (filter(), proptest::collection::vec(token, 8), 0..3usize, -1..2i32).prop_map(|(filter, spare, tail, off)| {
        let mut spare = spare.into_iter();
        let mut topic = Vec::new();
        for token in filter.split('.') {
            match token {
                "*" => topic.extend(spare.next()),
                ">" => topic.extend(spare.by_ref().take(tail)),
                token => topic.push(token),
            }
        }
        match off {
            -1 if topic.len() > 1 => drop(topic.pop()),
            1 => topic.push("a"),
            _ => {}
        }
        if topic.is_empty() {
            topic.push("a");
        }
        let topic = topic.join(".");
        (filter, topic)
    })
}

fn is_plain(token: &str) -> bool {
    !token.is_empty() && !token.chars().any(|c| c.is_whitespace() || c.is_control() || c == '*' || c == '>')
}

fn is_topic(text: &str) -> bool {
    let tokens: Vec<_> = text.split('.').collect();
    text.len() <= 512 && tokens.len() <= 32 && tokens.iter().all(|t| is_plain(t))
}

fn is_filter(text: &str) -> bool {
    let tokens: Vec<_> = text.split('.').collect();
    let (last, rest) = tokens.split_last().unwrap();
    let plain = |t: &&str| *t == "*" || is_plain(t);
    text.len() <= 512 && tokens.len() <= 32 && rest.iter().all(plain) && (*last == ">" || plain(last))
}

/// Matching as one would say it.
fn hears(filter: &[&str], topic: &[&str]) -> bool {
    match (filter, topic) {
        ([">"], rest) => !rest.is_empty(),
        ([], []) => true,
        (["*", f @ ..], [_, t @ ..]) => hears(f, t),
        ([a, f @ ..], [b, t @ ..]) => a == b && hears(f, t),
        _ => false,
    }
}

proptest! {
    #[test]
    fn topics_are_those_of_the_grammar(text in nearly()) {
        prop_assert_eq!(text.parse::<Topic>().is_ok(), is_topic(&text));
        prop_assert_eq!(Topic::check(&text).is_ok(), is_topic(&text));
        let reserved = text == "$acb" || text.starts_with("$acb.");
        prop_assert_eq!(Topic::user(&text).is_ok(), is_topic(&text) && !reserved);
    }

    #[test]
    fn filters_are_those_of_the_grammar(text in nearly()) {
        prop_assert_eq!(text.parse::<TopicFilter>().is_ok(), is_filter(&text));
        let reserved = text == "$acb" || text.starts_with("$acb.");
        prop_assert_eq!(TopicFilter::user(&text).is_ok(), is_filter(&text) && !reserved);
    }

    #[test]
    fn a_name_prints_what_it_was_parsed_from(text in topic(), filter in filter()) {
        prop_assert_eq!(text.parse::<Topic>().unwrap().to_string(), text);
        prop_assert_eq!(filter.parse::<TopicFilter>().unwrap().to_string(), filter);
    }

    #[test]
    fn a_filter_hears_what_the_model_says((filter, topic) in prop_oneof![near_pair(), (filter(), topic())]) {
        let f: Vec<_> = filter.split('.').collect();
        let t: Vec<_> = topic.split('.').collect();
        let shielded = t[0] == "$acb" && f[0] != "$acb";
        let expected = hears(&f, &t) && !shielded;
        let parsed: TopicFilter = filter.parse().unwrap();
        prop_assert_eq!(parsed.matches(&topic), expected);
        prop_assert_eq!(parsed.is_literal(), !f.contains(&"*") && !f.contains(&">"));
    }

    #[test]
    fn a_topic_as_a_filter_hears_itself_alone(one in topic(), other in topic()) {
        let filter: TopicFilter = one.parse::<Topic>().unwrap().into();
        prop_assert!(filter.matches(&one));
        prop_assert_eq!(filter.matches(&other), one == other);
    }

    #[test]
    fn every_agent_and_capability_has_good_topics(text in "[a-z0-9._-]{1,128}") {
        if let Ok(agent) = text.parse::<AgentId>() {
            let inbox = SubscriptionName::inbox(&agent);
            for topic in [
                Topic::inbox(&agent),
                Topic::reply(&agent),
                Topic::dead_letters(&inbox),
                Topic::redrive(&inbox),
                Topic::dead_letters(&SubscriptionName::reply(&agent)),
            ] {
                prop_assert_eq!(Topic::check(topic.as_str()), Ok(()), "{}", topic);
            }
            prop_assert_eq!(inbox.as_str().parse::<SubscriptionName>(), Ok(inbox.clone()));
            prop_assert!(inbox.is_implicit());
            let (to, answer) = (Topic::inbox(&agent), Topic::reply(&agent));
            prop_assert_eq!(to.address(), Address::Inbox(agent.as_str()));
            prop_assert_eq!(answer.address(), Address::Reply(agent.as_str()));
        }
        if let Ok(capability) = text.parse::<Capability>() {
            let topic = Topic::capability(&capability);
            prop_assert_eq!(Topic::check(topic.as_str()), Ok(()));
            prop_assert_eq!(topic.address(), Address::Capability(capability.as_str()));
        }
    }
}

#[test]
fn a_tail_stands_for_one_token_or_more() {
    let hears = |filter: &str, topic: &str| filter.parse::<TopicFilter>().unwrap().matches(topic);
    assert!(hears("a.>", "a.b") && hears("a.>", "a.b.c") && hears(">", "a"));
    assert!(!hears("a.>", "a") && !hears("a.>", "b.a") && !hears("a.*", "a") && !hears("a.*", "a.b.c"));
}

#[test]
fn ids_of_most_tokens_still_make_good_topics() {
    let tokens = |n: usize| vec!["a"; n].join(".");
    let agent: AgentId = tokens(16).parse().unwrap();
    assert_eq!(Topic::check(Topic::dead_letters(&SubscriptionName::inbox(&agent)).as_str()), Ok(()));
    assert!(matches!(tokens(17).parse::<AgentId>(), Err(InvalidName::TooManyTokens { tokens: 17, .. })));
    assert!(tokens(16).parse::<Capability>().is_ok());
    assert!(matches!(tokens(17).parse::<Capability>(), Err(InvalidName::TooManyTokens { .. })));
}

#[test]
fn faults_of_names_are_told_with_their_place() {
    use InvalidName as E;
    let topic = |text: &str| text.parse::<Topic>().unwrap_err();
    assert_eq!(topic(""), E::Empty { what: "topic" });
    assert_eq!(topic("a..b"), E::EmptyToken { what: "topic", at: 2 });
    assert_eq!(topic("a."), E::EmptyToken { what: "topic", at: 2 });
    assert_eq!(topic("aé. b"), E::Character { what: "topic", at: 4 });
    assert_eq!(topic("a.*"), E::Wildcard { what: "topic", at: 2 });
    assert_eq!(topic("a.b*"), E::Character { what: "topic", at: 3 });
    assert_eq!(topic(&"a".repeat(513)), E::TooLong { what: "topic", bytes: 513, limit: 512 });
    assert_eq!(topic(&vec!["a"; 33].join(".")), E::TooManyTokens { what: "topic", tokens: 33, limit: 32 });
    assert!("a".repeat(512).parse::<Topic>().is_ok());
    assert!(vec!["a"; 32].join(".").parse::<Topic>().is_ok());
    assert_eq!(Topic::user("$acb.all").unwrap_err(), E::Reserved { what: "topic" });
    assert_eq!("a.>.b".parse::<TopicFilter>().unwrap_err(), E::TailWildcard { what: "topic filter", at: 2 });

    let agent = |text: &str| text.parse::<AgentId>().unwrap_err();
    assert_eq!(agent(""), E::Empty { what: "agent id" });
    assert_eq!(agent("A"), E::Character { what: "agent id", at: 0 });
    assert_eq!(agent("-a"), E::Character { what: "agent id", at: 0 });
    assert_eq!(agent("a..b"), E::EmptyToken { what: "agent id", at: 2 });
    assert_eq!(agent("a."), E::EmptyToken { what: "agent id", at: 2 });
    assert_eq!(agent(&"a".repeat(129)), E::TooLong { what: "agent id", bytes: 129, limit: 128 });

    let name = |text: &str| SubscriptionName::user(text).unwrap_err();
    assert_eq!(name("a.b"), E::Character { what: "subscription name", at: 1 });
    assert_eq!(name("_a"), E::Character { what: "subscription name", at: 0 });
    assert_eq!(name("$inbox.a"), E::Character { what: "subscription name", at: 0 });
    assert!(SubscriptionName::user("Jobs_2-b").is_ok());
    assert!("$inbox.A".parse::<SubscriptionName>().is_err());
    assert!("$other.a".parse::<SubscriptionName>().is_err());

    assert_eq!("Code".parse::<Capability>().unwrap_err(), E::Character { what: "capability", at: 0 });
}

#[test]
fn addresses_of_the_bus_are_told_apart() {
    let cases = [
        ("jobs.new", Address::Topic("jobs.new")),
        ("$acbx.inbox.a", Address::Topic("$acbx.inbox.a")),
        ("$acb.inbox.a.b", Address::Inbox("a.b")),
        ("$acb.reply.a", Address::Reply("a")),
        ("$acb.all", Address::All),
        ("$acb.all.more", Address::Unknown("$acb.all.more")),
        ("$acb.cap.code.review", Address::Capability("code.review")),
        ("$acb.dlq.jobs", Address::DeadLetters("jobs")),
        ("$acb.redrive.jobs", Address::Redrive("jobs")),
        ("$acb", Address::Unknown("$acb")),
        ("$acb.x", Address::Unknown("$acb.x")),
    ];
    for (topic, address) in cases {
        assert_eq!(Address::of(topic), address, "{topic}");
    }
}
