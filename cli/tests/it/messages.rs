use crate::bus::{Acb, Bus, file, objects};

#[tokio::test]
async fn a_message_waits_in_the_inbox_until_it_is_shown() {
    let bus = Bus::dev().await;
    bus.ok("agents register bob").await;
    assert_eq!(bus.ok("--agent alice send bob hello").await, "inbox-0-1-1 (synced)\n");
    let shown = bus.ok("--agent bob subscribe --inbox -n 1").await;
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[0].ends_with("$acb.inbox.bob  from alice  inbox-0-1-1"), "{shown}");
    assert_eq!(lines[1], "  hello");
    let none = bus.acb("--agent bob subscribe --inbox -n 1 --idle 300ms").fails(6).await;
    assert_eq!(none.out, "", "it came twice");
}

#[tokio::test]
async fn a_payload_comes_from_an_argument_a_file_or_a_pipe() {
    let bus = Bus::dev().await;
    bus.ok("subscriptions create all --filter t").await;
    let path = file(&bus, "payload", "from a file");
    bus.acb("publish t").word("from an argument").ok().await;
    bus.acb("publish t --file").word(&path).ok().await;
    bus.acb("publish t").input("from a pipe").ok().await;
    bus.acb("publish t -").input("from a dash").ok().await;
    let shown = bus.ok("subscribe all --raw -n 4").await;
    assert_eq!(shown, "from an argument\nfrom a file\nfrom a pipe\nfrom a dash\n");
}

#[tokio::test]
async fn a_payload_over_the_limit_is_refused_before_it_is_sent() {
    let bus = Bus::dev().await;
    let ran = bus.acb("publish t").input(vec![b'x'; 1_048_577]).fails(2).await;
    assert!(ran.sentence().contains("1048576 bytes"), "{ran:?}");
    let ran = bus.acb("publish t --file /absent/file").fails(3).await;
    assert!(ran.sentence().starts_with("error: /absent/file: "), "{ran:?}");
}

#[tokio::test]
async fn what_is_said_about_a_message_arrives_with_it() {
    let bus = Bus::dev().await;
    bus.ok("subscriptions create all --filter t").await;
    let sent = bus
        .json("publish t {} --content-type application/json -a color=blue -a size=7 --correlation-id c --order-key o --kind event --ttl 1h --durability written")
        .await;
    assert_eq!((&sent["durability"], &sent["duplicate"]), (&"written".into(), &false.into()));
    let got = bus.json("subscribe all -n 1").await;
    assert_eq!(got["id"], sent["id"]);
    for (name, value) in [
        ("content_type", "application/json"),
        ("correlation_id", "c"),
        ("order_key", "o"),
        ("kind", "event"),
        ("payload", "{}"),
    ] {
        assert_eq!(got[name], value, "{got}");
    }
    assert_eq!(got["attributes"], serde_json::json!({ "color": "blue", "size": "7" }));
    assert!(got["expires_at"].is_string(), "{got}");
}

#[tokio::test]
async fn a_payload_that_is_no_text_reaches_scripts_whole_and_no_terminal() {
    let bus = Bus::dev().await;
    bus.ok("subscriptions create all --filter t").await;
    for _ in 0..2 {
        bus.acb("publish t").input([0xff, 0x00]).ok().await;
    }
    assert_eq!(bus.json("subscribe all -n 1").await["payload_base64"], "/wA=");
    assert!(bus.ok("subscribe all -n 1").await.contains("<2 B of binary payload>"));
}

#[tokio::test]
async fn a_repeat_under_one_key_is_stored_once_and_another_payload_is_a_conflict() {
    let bus = Bus::dev().await;
    let first = bus.json("publish t one --idempotency-key k").await;
    let again = bus.json("publish t one --idempotency-key k").await;
    assert_eq!((&again["id"], &again["duplicate"]), (&first["id"], &true.into()));
    let said = bus.ok("publish t one --idempotency-key k").await;
    assert!(said.ends_with(" (synced, stored before)\n"), "{said}");
    bus.acb("publish t two --idempotency-key k").fails(5).await;
}

#[tokio::test]
async fn a_broadcast_reaches_every_inbox() {
    let bus = Bus::dev().await;
    bus.ok("agents register a").await;
    bus.ok("agents register b").await;
    bus.acb("send --all").input("to all").ok().await;
    for agent in ["a", "b"] {
        assert_eq!(bus.ok(&format!("--agent {agent} subscribe --inbox --raw -n 1")).await, "to all\n");
    }
}

#[tokio::test]
async fn each_line_of_the_input_becomes_a_message_and_its_id_a_line() {
    let bus = Bus::dev().await;
    bus.ok("subscriptions create all --filter t").await;
    let printed = bus.acb("--json publish t --lines").input("one\ntwo\r\n\nlast").ok().await;
    let ids: Vec<_> = objects(&printed).into_iter().map(|o| o["id"].clone()).collect();
    assert_eq!(ids, ["topics-0-1-1", "topics-0-1-2", "topics-0-1-3", "topics-0-1-4"]);
    assert_eq!(bus.ok("subscribe all --raw -n 4").await, "one\ntwo\n\nlast\n");
}

#[tokio::test]
async fn a_bad_topic_is_exit_code_2_and_names_the_byte() {
    let bus = Bus::dev().await;
    let ran = bus.acb("publish a..b x").fails(2).await;
    assert!(ran.sentence().contains("byte 2"), "{ran:?}");
    bus.acb("publish orders.* x").fails(2).await;
    bus.acb("publish $acb.x x").fails(2).await;
}

#[tokio::test]
async fn a_message_to_nobody_is_exit_code_3() {
    let bus = Bus::dev().await;
    bus.acb("send nobody hello").fails(3).await;
}

#[tokio::test]
async fn the_status_of_a_message_follows_it() {
    let bus = Bus::dev().await;
    bus.ok("subscriptions create work --filter jobs.*").await;
    let id = bus.json("publish jobs.one x").await["id"].as_str().unwrap().to_owned();
    let state = async |expected: &str| {
        let status = bus.json(&format!("status {id}")).await;
        assert_eq!(status["subscriptions"][0]["subscription"], "work");
        assert_eq!(status["subscriptions"][0]["state"], expected, "{status}");
    };
    state("waiting").await;
    bus.ok("subscribe work -n 1").await;
    state("acked").await;
    let shown = bus.ok(&format!("status {id}")).await;
    assert!(shown.starts_with(&format!("message  {id}\n")) && shown.contains("\nSUBSCRIPTION  STATE"), "{shown}");
    bus.acb("status topics-0-1-99").fails(3).await;
    bus.acb("status nonsense").fails(2).await;
}

#[tokio::test]
async fn the_server_tells_how_it_is() {
    let bus = Bus::dev().await;
    let said = bus.ok("--agent me status").await;
    assert!(said.starts_with(&format!("server   {} (serving, ", bus.url())), "{said}");
    assert_eq!(bus.json("--agent me status").await["agent"], "me");
}

#[tokio::test]
async fn a_bus_that_is_not_there_is_exit_code_6_with_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let port = acb_testkit::server::free_port().unwrap();
    let acb = Acb::new(home.path(), &["--connect-timeout", "100ms", "publish", "t", "x"]);
    let ran = acb.env("ACB_URL", &format!("acb://127.0.0.1:{port}")).fails(6).await;
    assert!(ran.sentence().contains(&port.to_string()), "{ran:?}");
    assert!(ran.err.contains("hint: is the server running? Start it with `acb-server`"), "{ran:?}");
}
