use crate::bus::Bus;

#[tokio::test]
async fn a_context_is_put_got_changed_listed_and_removed() {
    let bus = Bus::dev().await;
    let said = bus.ok("contexts put plans/alpha step1 --type plan --label draft --scope public").await;
    assert_eq!(said, "plans/alpha is version 0.1.0 at revision 1\n");
    let got = bus.json("contexts get plans/alpha").await;
    assert_eq!((&got["payload"], &got["type"], &got["scope"]), (&"step1".into(), &"plan".into(), &"public".into()));
    assert_eq!(bus.ok("contexts get plans/alpha --raw").await, "step1\n");
    let written = bus.json("contexts put plans/alpha step2 --if-rev 1").await;
    assert_eq!((&written["rev"], &written["version"]), (&2.into(), &"0.1.1".into()));
    // Somebody was faster: a conflict, with its own exit code.
    let late = bus.acb("contexts put plans/alpha step3 --if-rev 1").fails(5).await;
    assert!(late.err.contains("revision 2"), "{late:?}");
    bus.acb("contexts put plans/alpha new --if-rev 0").fails(5).await;
    assert_eq!(bus.json("contexts get plans/alpha --at-rev 1").await["payload"], "step1");
    let listed = bus.json_lines("contexts ls plans/ --label draft").await;
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!(bus.ok("contexts ls nothing/").await, "no contexts\n");
    let history = bus.json_lines("contexts history plans/alpha").await;
    assert_eq!(history.iter().map(|h| h["rev"].as_u64().unwrap()).collect::<Vec<_>>(), [2, 1]);
    bus.acb("contexts rm plans/alpha --if-rev 1").fails(5).await;
    assert_eq!(bus.ok("contexts rm plans/alpha").await, "plans/alpha is gone\n");
    assert_eq!(bus.ok("contexts rm plans/alpha").await, "plans/alpha was not there\n");
    bus.acb("contexts get plans/alpha").fails(3).await;
}

#[tokio::test]
async fn a_watch_shows_what_is_there_and_then_each_change() {
    let bus = Bus::dev().await;
    bus.ok("contexts put plans/a 1").await;
    bus.ok("contexts put notes/a 1").await;
    let mut watch = bus.acb("--json contexts watch plans/ -n 4").start().await;
    let state = watch.line().await;
    assert!(state.contains("\"event\":\"is\"") && state.contains("plans/a"), "{state}");
    for command in ["contexts put notes/a 2", "contexts put plans/a 2", "contexts put plans/b 1", "contexts rm plans/a"]
    {
        bus.ok(command).await;
    }
    for (event, key) in [("updated", "plans/a"), ("created", "plans/b"), ("deleted", "plans/a")] {
        let line = watch.line().await;
        assert!(line.contains(&format!("\"event\":\"{event}\"")) && line.contains(key), "{line}");
    }
    watch.end().await;
}

#[tokio::test]
async fn groups_are_made_filled_and_ended() {
    let bus = Bus::dev().await;
    assert_eq!(bus.ok("groups create blue --description blues").await, "blue is there\n");
    assert_eq!(bus.ok("groups add blue w1 w2").await, "blue has 2 members\n");
    assert_eq!(bus.ok("groups remove blue w1 w9").await, "blue has 1 members\n");
    let members = bus.json_lines("groups members blue").await;
    assert_eq!(members[0]["agent_id"], "w2");
    assert_eq!(bus.json_lines("groups ls").await[0]["members"], 1);
    bus.acb("groups add red w1").fails(3).await;
    bus.acb("contexts put k x --group red").fails(3).await;
    bus.ok("contexts put k x --group blue").await;
    bus.acb("--agent w1 contexts get k").fails(3).await;
    assert_eq!(bus.acb("--agent w2 contexts get k --raw").ok().await, "x\n");
    assert_eq!(bus.ok("groups rm blue").await, "blue is gone\n");
    assert_eq!(bus.ok("groups ls").await, "no groups\n");
}
