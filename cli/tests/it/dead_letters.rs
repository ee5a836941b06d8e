use acb_testkit::wait::{Level, PATIENCE, wait_until};
use serde_json::Value;

use crate::bus::{Bus, file};

/// A message that a subscription gave up on, and its dead letter.
async fn give_up(bus: &Bus, payload: &str) -> Value {
    bus.ok("subscriptions create work --filter t --max-attempts 1").await;
    let failing = bus.acb("reply --group work -- sh -c").word("echo boom >&2; exit 1").start().await;
    bus.acb("publish t -a file=a.rs").word(payload).ok().await;
    let letter = wait_until("a dead letter", PATIENCE, || async {
        let mut letters = bus.json_lines("dead-letters ls work").await;
        match letters.pop() {
            Some(letter) => Level::Reached(letter),
            None => Level::not_yet("none"),
        }
    });
    let letter = letter.await.unwrap();
    failing.signal("INT").await;
    assert_eq!(failing.end().await.code, Some(0));
    letter
}

#[tokio::test]
async fn what_was_given_up_is_listed_and_shown_whole() {
    let bus = Bus::dev().await;
    let letter = give_up(&bus, "the payload").await;
    assert_eq!((&letter["reason"], &letter["attempts"]), (&"attempts_exhausted".into(), &1.into()), "{letter}");
    assert_eq!(letter["last_error"], "sh ended with exit status: 1: boom");
    let id = letter["id"].as_str().unwrap();
    let listed = bus.ok("dlq ls work").await;
    assert!(listed.lines().nth(1).unwrap_or_default().starts_with(id), "{listed}");
    let shown = bus.ok(&format!("dlq show {id}")).await;
    assert!(shown.contains("attributes    file=a.rs\n") && shown.ends_with("\n\nthe payload\n"), "{shown}");
    assert_eq!(bus.ok(&format!("dlq show {id} --raw")).await, "the payload\n");
    assert_eq!(bus.json(&format!("dlq show {id}")).await["payload"], "the payload");
    let status = bus.json(&format!("status {}", letter["message_id"].as_str().unwrap())).await;
    assert_eq!(status["subscriptions"][0]["state"], "dead");
    assert_eq!(status["subscriptions"][0]["dead_letter_id"], id);
}

#[tokio::test]
async fn a_redrive_gives_it_to_its_subscription_again_as_it_was() {
    let bus = Bus::dev().await;
    let letter = give_up(&bus, "the payload").await;
    let id = letter["id"].as_str().unwrap();
    let said = bus.ok(&format!("dlq redrive {id}")).await;
    assert!(said.starts_with(&format!("{id} is on its way again, as ")), "{said}");
    let got = bus.json("subscribe work -n 1").await;
    assert_eq!((&got["payload"], &got["original_topic"]), (&"the payload".into(), &"t".into()), "{got}");
    assert_eq!(bus.ok("dlq ls work").await, "no dead letters\n");
    bus.acb(&format!("dlq redrive {id}")).fails(3).await;
}

#[tokio::test]
async fn a_redrive_can_carry_another_payload() {
    let bus = Bus::dev().await;
    let letter = give_up(&bus, "the payload").await;
    let id = letter["id"].as_str().unwrap();
    let path = file(&bus, "mended", "mended");
    bus.acb(&format!("dlq redrive {id} --payload-file")).word(path).ok().await;
    assert_eq!(bus.ok("subscribe work --raw -n 1").await, "mended\n");
}

#[tokio::test]
async fn what_is_discarded_is_gone() {
    let bus = Bus::dev().await;
    let letter = give_up(&bus, "x").await;
    let id = letter["id"].as_str().unwrap();
    assert_eq!(bus.ok(&format!("dlq discard {id}")).await, format!("{id} is gone\n"));
    assert_eq!(bus.ok("dlq ls work").await, "no dead letters\n");
    bus.acb(&format!("dlq show {id}")).fails(3).await;
    bus.acb("dlq show nonsense").fails(2).await;
}
