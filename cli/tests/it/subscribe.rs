use std::time::Duration;

use acb_testkit::wait::{Level, PATIENCE, wait_until};

use crate::bus::{Bus, objects};

#[tokio::test]
async fn a_durable_subscription_goes_on_where_it_stopped() {
    let bus = Bus::dev().await;
    bus.ok("subscriptions create work --filter jobs.>").await;
    bus.acb("publish jobs.a --lines").input("1\n2\n3").ok().await;
    assert_eq!(bus.ok("subscribe work --raw -n 2").await, "1\n2\n");
    assert_eq!(bus.ok("subscribe work --raw --idle 300ms").await, "3\n");
}

#[tokio::test]
async fn a_name_with_filters_makes_the_subscription() {
    let bus = Bus::dev().await;
    bus.ok("publish jobs.a before").await;
    assert_eq!(bus.ok("subscribe work --filter jobs.> --from all --raw -n 1").await, "before\n");
    assert_eq!(bus.json("subscriptions get work").await["filters"][0], "jobs.>");
    bus.acb("subscribe work --filter other.> -n 1").fails(5).await;
}

#[tokio::test]
async fn an_ephemeral_subscription_hears_what_comes_while_it_runs() {
    let bus = Bus::dev().await;
    let mut listening = bus.acb("subscribe --filter a.* --filter b.> --raw").start().await;
    listening.says("listening to a.* b.>").await;
    bus.ok("publish a.x one").await;
    bus.ok("publish a.x.y not-this").await;
    bus.ok("publish b.x.y two").await;
    assert_eq!((listening.line().await.as_str(), listening.line().await.as_str()), ("one", "two"));
    listening.signal("INT").await;
    let ran = listening.end().await;
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), ""), "{ran:?}");
    assert_eq!(bus.json_lines("subscriptions ls").await.len(), 0, "it left something behind");
}

#[tokio::test]
async fn a_start_in_the_past_is_a_seq_or_a_time() {
    let bus = Bus::dev().await;
    bus.acb("publish t --lines").input("1\n2\n3").ok().await;
    assert_eq!(bus.ok("subscribe --filter t --from seq:2 --raw -n 2").await, "2\n3\n");
    assert_eq!(bus.ok("subscribe --filter t --from time:2020-01-01T00:00:00Z --raw -n 1").await, "1\n");
    bus.acb("subscribe --filter t --from yesterday").fails(2).await;
}

#[tokio::test]
async fn what_was_only_looked_at_comes_again_as_if_for_the_first_time() {
    let bus = Bus::dev().await;
    bus.ok("subscriptions create work --filter t").await;
    bus.acb("publish t --lines").input("1\n2").ok().await;
    assert_eq!(bus.ok("subscribe work --peek --raw -n 2").await, "1\n2\n");
    for object in objects(&bus.ok("--json subscribe work -n 2").await) {
        assert_eq!(object["attempt"], 1, "{object}");
    }
}

#[tokio::test]
async fn ctrl_c_gives_back_what_was_not_shown() {
    let bus = Bus::dev().await;
    bus.ok("subscriptions create work --filter t").await;
    let mut peeking = bus.acb("subscribe work --peek --raw").start().await;
    peeking.says("listening").await;
    bus.acb("publish t --lines").input("1\n2").ok().await;
    assert_eq!((peeking.line().await.as_str(), peeking.line().await.as_str()), ("1", "2"));
    assert_eq!(bus.json("subscriptions get work").await["leased"], 2);
    peeking.signal("INT").await;
    let ran = peeking.end().await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    // Released, not left to run out: a lease lasts 30 s.
    let released = wait_until("the leases to go", PATIENCE, || async {
        let one = bus.json("subscriptions get work").await;
        Level::when(one["leased"] == 0, (), one)
    });
    released.await.unwrap();
    assert_eq!(bus.ok("subscribe work --raw -n 2").await, "1\n2\n");
}

#[tokio::test]
async fn a_reader_that_goes_away_ends_it_quietly_and_loses_nothing() {
    let bus = Bus::dev().await;
    bus.ok("subscriptions create work --filter t").await;
    let mut shown = bus.acb("subscribe work --raw").start().await;
    shown.says("listening").await;
    bus.ok("publish t seen").await;
    assert_eq!(shown.line().await, "seen");
    shown.stop_reading();
    bus.ok("publish t unseen").await;
    let ran = shown.end().await;
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:?}");
    assert_eq!(bus.ok("subscribe work --raw -n 1").await, "unseen\n");
}

#[tokio::test]
async fn a_subscription_that_is_not_there_says_how_to_make_it() {
    let bus = Bus::dev().await;
    let ran = bus.acb("subscribe nothing").fails(3).await;
    assert_eq!(ran.sentence(), "error: there is no subscription nothing");
    assert!(ran.err.contains("hint: add --filter"), "{ran:?}");
    bus.acb("subscribe").fails(2).await;
}

#[tokio::test]
async fn too_few_messages_in_time_are_exit_code_6() {
    let bus = Bus::dev().await;
    let ran = bus.acb("subscribe --filter t -n 1 --idle 100ms").fails(6).await;
    assert!(ran.err.contains("error: 0 of 1 messages came"), "{ran:?}");
    // Without a count, silence is the end that was asked for.
    assert_eq!(bus.ok("subscribe --filter t --idle 100ms").await, "");
}

#[tokio::test]
async fn it_outlives_a_kill_of_the_server() {
    let mut bus = Bus::dev().await;
    bus.ok("subscriptions create work --filter t").await;
    let mut listening = bus.acb("subscribe work --raw").start().await;
    listening.says("listening").await;
    bus.ok("publish t before").await;
    assert_eq!(listening.line().await, "before");
    bus.server.restart().await.unwrap();
    bus.ok("publish t after").await;
    // What was acknowledged just before the kill may come once more.
    let next = listening.line().await;
    let next = if next == "before" { listening.line().await } else { next };
    assert_eq!(next, "after");
}

#[tokio::test]
async fn a_subscription_is_made_shown_listed_and_removed() {
    let bus = Bus::dev().await;
    let said = bus.ok("subscriptions create work --filter jobs.> --ack-wait 2s --retry 1s,5s --max-attempts 3").await;
    assert_eq!(said, "work is made, on jobs.>\n");
    let same = "subscriptions create work --filter jobs.> --ack-wait 2s --retry 1s,5s --max-attempts 3";
    assert_eq!(bus.ok(same).await, "work was there already, on jobs.>\n");
    bus.acb("subscriptions create work --filter jobs.>").fails(5).await;
    bus.ok("publish jobs.a x").await;
    let listed = bus.ok("subs ls").await;
    let row: Vec<&str> = listed.lines().nth(1).unwrap_or_default().split_whitespace().collect();
    assert_eq!(row[..3], ["work", "jobs.>", "1"], "{listed}");
    let shown = bus.ok("subs get work").await;
    for row in [
        "filters              jobs.>\n",
        "ack wait             2s\n",
        "retry after          1s, 5s\n",
        "attempts at most     3\n",
        "leased at most       65536\n",
        "what is given up     keep\n",
    ] {
        assert!(shown.contains(row), "no {row:?} in {shown}");
    }
    let shown = bus.json("subs get work").await;
    assert_eq!((&shown["ack_wait_ms"], &shown["max_attempts"]), (&2000.into(), &3.into()), "{shown}");
    assert_eq!(shown["retry_schedule_ms"], serde_json::json!([1000, 5000]));
    bus.ok("subs create lossy --filter l --drop-dead-letters --max-leased 7").await;
    let lossy = bus.json("subs get lossy").await;
    assert_eq!((&lossy["dead_letter_policy"], &lossy["max_leased"]), (&"drop".into(), &7.into()), "{lossy}");
    // What it was not told is told as it is.
    assert_eq!((&lossy["ack_wait_ms"], &lossy["max_attempts"]), (&30_000.into(), &5.into()), "{lossy}");
    bus.ok("subs rm lossy").await;
    assert_eq!(bus.ok("subs rm work").await, "work is gone\n");
    assert_eq!(bus.ok("subs ls").await, "no subscriptions\n");
    bus.acb("subs get work").fails(3).await;
}

#[tokio::test]
async fn the_leases_of_one_that_is_killed_go_to_another() {
    let bus = Bus::dev().await;
    bus.ok("subscriptions create work --filter t --ack-wait 1s --retry 100ms").await;
    let mut peeking = bus.acb("subscribe work --peek --raw").start().await;
    peeking.says("listening").await;
    bus.ok("publish t x").await;
    assert_eq!(peeking.line().await, "x");
    peeking.signal("KILL").await;
    let got = tokio::time::timeout(Duration::from_secs(30), bus.json("subscribe work -n 1")).await.unwrap();
    assert_eq!(got["payload"], "x");
}
