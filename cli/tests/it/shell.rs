use acb_sdk::ErrorCode;

use crate::bus::{Acb, Bus, Ran};

async fn alone(words: &[&str]) -> Ran {
    let home = tempfile::tempdir().unwrap();
    Acb::new(home.path(), words).run().await
}

#[tokio::test]
async fn help_shows_every_exit_code() {
    let ran = alone(&["help", "exit-codes"]).await;
    assert_eq!(ran.code, Some(0));
    for code in ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "130"] {
        assert!(ran.out.lines().any(|l| l.split_whitespace().next() == Some(code)), "{code} is not in {}", ran.out);
    }
    assert_eq!(alone(&["exit-codes"]).await.out.trim_end(), ran.out.trim_end());
}

#[tokio::test]
async fn what_can_never_be_right_is_exit_code_2() {
    for words in [
        &["bogus"][..],
        &["publish"],
        &["send"],
        &["reply"],
        &["agents", "get"],
        &["--connect-timeout", "soon", "status"],
    ] {
        assert_eq!(alone(words).await.code, Some(2), "{words:?}");
    }
}

#[tokio::test]
async fn completions_are_there_for_three_shells() {
    for (shell, sign) in [("bash", "complete -F _acb"), ("zsh", "#compdef acb"), ("fish", "complete -c acb")] {
        let ran = alone(&["completions", shell]).await;
        assert_eq!(ran.code, Some(0));
        assert!(ran.out.contains(sign) && ran.out.contains("dead-letters"), "{shell}");
    }
    assert_eq!(alone(&["completions", "cmd"]).await.code, Some(2));
}

#[tokio::test]
async fn every_command_that_a_hint_names_is_there() {
    let hints = ErrorCode::ALL.iter().map(|code| code.what_to_do());
    let commands =
        hints.flat_map(|hint| hint.split('`').skip(1).step_by(2)).filter_map(|span| span.strip_prefix("acb "));
    for command in commands {
        let words: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        assert_eq!(alone(&words).await.code, Some(0), "acb {command}");
    }
}

#[tokio::test]
async fn verbose_adds_the_code_and_the_request_to_an_error() {
    let bus = Bus::dev().await;
    let ran = bus.acb("-v agents get nobody").fails(3).await;
    assert!(ran.err.contains("\ncode: agent_not_found (not_found), while agents.get\n"), "{ran:?}");
    let request = ran.err.lines().find_map(|l| l.strip_prefix("request: ")).unwrap_or_default();
    assert!(request.len() >= 8, "{ran:?}");
}

#[tokio::test]
async fn a_measurement_counts_what_it_sent_and_leaves_nothing_behind() {
    let bus = Bus::dev().await;
    let measured = bus.json("bench --duration 300ms --rate 500 --size 64 --consumers 2").await;
    let (sent, got) = (&measured["publish"]["messages"], &measured["deliver"]["messages"]);
    assert!(sent.as_u64().is_some_and(|n| n > 50) && sent == got, "{measured}");
    assert_eq!(bus.ok("subs ls").await, "no subscriptions\n");
    let shown = bus.ok("bench --duration 100ms --consumers 0").await;
    assert!(shown.contains("published to acknowledged") && !shown.contains("delivered"), "{shown}");
}
