use serde_json::json;

use crate::bus::{Bus, Ran};

#[tokio::test]
async fn an_agent_is_registered_shown_listed_and_removed() {
    let bus = Bus::dev().await;
    let said = bus.ok("agents register reviewer --type critic -c code.review@1.2.0 -c text.count -m team=blue").await;
    assert_eq!(said, "reviewer is registered, incarnation 1\n");
    let shown = bus.ok("agents get reviewer").await;
    assert!(shown.contains("capabilities  code.review@1.2.0 text.count\n"), "{shown}");
    assert!(shown.contains("metadata      team=blue\n"), "{shown}");
    let listed = bus.ok("agents ls").await;
    let lines: Vec<Vec<&str>> = listed.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["ID", "TYPE", "STATUS", "SEEN", "CAPABILITIES"]);
    assert_eq!((lines[1][0], lines[1][1], lines.len()), ("reviewer", "critic", 2), "{listed}");
    let again = bus.json("agents register reviewer --type critic").await;
    assert_eq!((&again["incarnation"], &again["id"]), (&json!(2), &json!("reviewer")));
    assert_eq!(bus.ok("agents rm reviewer").await, "reviewer is off the bus\n");
    assert_eq!(bus.ok("agents ls").await, "no agents\n");
}

#[tokio::test]
async fn an_agent_that_names_none_registers_itself() {
    let bus = Bus::dev().await;
    let said = bus.ok("--agent me agents register").await;
    assert_eq!(said, "me is registered, incarnation 1\n");
}

#[tokio::test]
async fn every_filter_narrows_the_list() {
    let bus = Bus::dev().await;
    bus.ok("agents register a --type t1 --location here -c one -c two -m k=v --description Rusty").await;
    bus.ok("agents register b --type t2 --location there -c two -m k=w").await;
    for (filter, found) in [
        ("", "a b"),
        ("--type t1", "a"),
        ("--location there", "b"),
        ("--all two", "a b"),
        ("--all one --all two", "a"),
        ("--any one --any nothing", "a"),
        ("--metadata k=w", "b"),
        ("--text rust", "a"),
        ("--status unknown", "a b"),
        ("--status online", ""),
        ("--type t1 --location there", ""),
    ] {
        let agents = bus.json_lines(&format!("agents ls {filter}")).await;
        let ids: Vec<&str> = agents.iter().filter_map(|a| a["id"].as_str()).collect();
        assert_eq!(ids.join(" "), found, "agents ls {filter}");
    }
}

#[tokio::test]
async fn an_agent_is_online_while_it_listens() {
    let bus = Bus::dev().await;
    let mut listening = bus.acb("--agent ears subscribe --inbox").start().await;
    listening.says("listening to the inbox of ears").await;
    let agents = bus.json_lines("agents ls --status online").await;
    assert_eq!(agents.len(), 1, "{agents:?}");
    assert_eq!(agents[0]["id"], "ears");
}

#[tokio::test]
async fn an_unknown_agent_is_exit_code_3_with_a_sentence_and_a_hint() {
    let bus = Bus::dev().await;
    let Ran { out, err, .. } = bus.acb("agents get nobody").fails(3).await;
    assert_eq!(out, "");
    let lines: Vec<&str> = err.lines().collect();
    assert_eq!(lines.len(), 2, "{err}");
    assert!(lines[0].starts_with("error: ") && lines[0].contains("nobody"), "{err}");
    assert!(lines[1].starts_with("hint: "), "{err}");
}

#[tokio::test]
async fn an_inbox_that_is_kept_holds_its_messages_for_the_next_registration() {
    let bus = Bus::dev().await;
    bus.ok("--agent me agents register").await;
    bus.ok("send me later").await;
    bus.ok("--agent me agents rm me --keep-inbox").await;
    bus.ok("--agent me agents register").await;
    assert_eq!(bus.ok("--agent me subscribe --inbox --raw -n 1").await, "later\n");
}

#[tokio::test]
async fn a_watch_shows_who_is_there_and_then_who_comes_changes_and_leaves() {
    let bus = Bus::dev().await;
    bus.ok("agents register reviewer --type critic -c code.review").await;
    bus.ok("agents register cook --type cook").await;
    let mut watch = bus.acb("--json agents watch --type critic").start().await;
    let mut next = async || -> serde_json::Value { serde_json::from_str(&watch.line().await).unwrap() };
    let state = next().await;
    assert_eq!((&state["event"], &state["id"]), (&json!("is"), &json!("reviewer")), "{state}");
    assert_eq!((&state["presence"], &state["activity"]), (&json!("unknown"), &json!(null)), "{state}");
    let synced = next().await;
    assert_eq!(synced["event"], "synced");
    bus.ok("agents register waiter --type cook").await;
    bus.ok("agents register second --type critic").await;
    let mut came = next().await;
    // Of one that never matched it may be told that it does not.
    if came["id"] == "waiter" {
        assert_eq!(came["event"], "left", "{came}");
        came = next().await;
    }
    assert_eq!((&came["event"], &came["id"]), (&json!("changed"), &json!("second")), "{came}");
    let after = synced["revision"].as_u64().unwrap();
    let since = bus.ok(&format!("agents watch second --after {after} -n 2")).await;
    assert!(since.contains("changed   second  unknown"), "{since}");
    let mut listening = bus.acb("--agent reviewer subscribe --inbox").start().await;
    listening.says("listening to the inbox of reviewer").await;
    loop {
        let seen = next().await;
        if seen["event"] == "presence" && seen["id"] == "reviewer" && seen["presence"] == "active" {
            break;
        }
        assert!(seen["event"] != "left", "{seen}");
    }
    bus.ok("agents rm second").await;
    loop {
        let seen = next().await;
        if seen["event"] == "left" && seen["id"] != "waiter" {
            assert_eq!(seen["id"], "second", "{seen}");
            break;
        }
    }
    watch.signal("INT").await;
    assert_eq!(watch.end().await.code, Some(0));
    listening.signal("INT").await;
    listening.end().await;
}
