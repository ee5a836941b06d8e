use acb_testkit::wait::{Level, PATIENCE, wait_until};

use crate::bus::{Bus, Running};

async fn responder(bus: &Bus, words: &str) -> Running {
    let mut running = bus.acb(words).start().await;
    running.says("answer").await;
    running
}

#[tokio::test]
async fn a_command_answers_what_is_asked() {
    let bus = Bus::dev().await;
    let mut counter = responder(&bus, "--agent counter reply -- wc -w").await;
    assert_eq!(bus.acb("request counter").word("how many words").ok().await.trim(), "3");
    let told = counter.line().await;
    assert!(told.starts_with("answered inbox-0-1-1 from acb-cli-"), "{told}");
    let reply = bus.json("request counter one").await;
    assert_eq!(
        (&reply["kind"], &reply["from"], &reply["payload"]),
        (&"reply".into(), &"counter".into(), &"1\n".into())
    );
    counter.signal("INT").await;
    let ran = counter.end().await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

#[tokio::test]
async fn a_command_knows_what_it_answers() {
    let bus = Bus::dev().await;
    let command = "--agent knower reply -- sh -c";
    let mut knower =
        bus.acb(command).word("echo $ACB_MESSAGE_FROM $ACB_MESSAGE_TOPIC $ACB_MESSAGE_ATTEMPT").start().await;
    knower.says("answer").await;
    assert_eq!(bus.ok("--agent asker request knower x --raw").await, "asker $acb.inbox.knower 1\n");
}

#[tokio::test]
async fn an_echo_gives_back_every_byte() {
    let bus = Bus::dev().await;
    let _echo = responder(&bus, "--agent echo reply --echo").await;
    assert_eq!(bus.acb("request echo --raw").input("a\nb\n").ok().await, "a\nb\n");
}

#[tokio::test]
async fn whoever_answers_on_a_topic_is_asked_by_topic() {
    let bus = Bus::dev().await;
    let _echo = responder(&bus, "reply --echo --topic svc.*").await;
    assert_eq!(bus.ok("request --topic svc.echo hello").await, "hello\n");
    assert_eq!(bus.ok("agents ls").await, "no agents\n", "those who ask leave no agents behind");
}

#[tokio::test]
async fn those_who_answer_as_one_group_share_the_requests() {
    let bus = Bus::dev().await;
    let _one = responder(&bus, "reply --echo --group workers --topic svc.*").await;
    let _other = responder(&bus, "reply --echo --group workers").await;
    assert_eq!(bus.ok("request --topic svc.a hello").await, "hello\n");
    assert_eq!(bus.json("subscriptions get workers").await["consumers"], 2);
    bus.acb("reply --echo --group nothing").fails(3).await;
}

#[tokio::test]
async fn a_request_that_nobody_can_answer_fails_at_once() {
    let bus = Bus::dev().await;
    // A wait for the answer would be 30 s, and longer than this test's patience with a command.
    let ran = bus.acb("--json request --topic svc.nobody hello").fails(6).await;
    assert!(ran.err.contains(r#""code":"no_responders""#), "{ran:?}");
    bus.acb("request nobody hello").fails(3).await;
}

#[tokio::test]
async fn an_answer_that_does_not_come_in_time_is_exit_code_6() {
    let bus = Bus::dev().await;
    let _slow = responder(&bus, "--agent slow reply -- sleep 60").await;
    let ran = bus.acb("request slow hello --timeout 300ms").fails(6).await;
    assert_eq!(ran.sentence(), "error: no reply within 300ms");
}

#[tokio::test]
async fn a_command_that_fails_gives_the_request_back_with_its_last_words() {
    let bus = Bus::dev().await;
    let failing = bus.acb("--json --agent failing reply -- sh -c").word("echo first >&2; echo last words >&2; exit 3");
    let mut failing = failing.start().await;
    bus.ok("agents ls").await;
    wait_until("the agent to be online", PATIENCE, || async {
        let agents = bus.json_lines("agents ls --status online").await;
        Level::when(agents.len() == 1, (), agents.len())
    })
    .await
    .unwrap();
    bus.ok("send failing x").await;
    for _attempt in 1..=2 {
        let told: serde_json::Value = serde_json::from_str(&failing.line().await).unwrap();
        assert_eq!(told["ok"], false, "{told}");
        assert_eq!(told["error"], "sh ended with exit status: 3: last words", "{told}");
    }
}

#[tokio::test]
async fn ctrl_c_while_a_command_runs_gives_its_request_back() {
    let bus = Bus::dev().await;
    bus.ok("subscriptions create work --filter t").await;
    let slow = responder(&bus, "reply --group work -- sleep 600").await;
    bus.ok("publish t x").await;
    wait_until("the request to be handled", PATIENCE, || async {
        let one = bus.json("subscriptions get work").await;
        Level::when(one["leased"] == 1, (), one)
    })
    .await
    .unwrap();
    slow.signal("TERM").await;
    let ran = slow.end().await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let again = bus.json("subscribe work -n 1").await;
    assert_eq!((&again["payload"], &again["attempt"]), (&"x".into(), &1.into()), "{again}");
}

#[tokio::test]
async fn ctrl_c_while_waiting_for_an_answer_is_exit_code_130() {
    let bus = Bus::dev().await;
    let _slow = responder(&bus, "--agent slow reply -- sleep 600").await;
    let asking = bus.acb("--agent asker request slow hello").start().await;
    wait_until("the request to be handled", PATIENCE, || async {
        let one = bus.json("subscriptions get $inbox.slow").await;
        Level::when(one["leased"] == 1, (), one)
    })
    .await
    .unwrap();
    asking.signal("INT").await;
    let ran = asking.end().await;
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(130), "", ""), "{ran:?}");
}
