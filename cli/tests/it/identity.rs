use std::os::unix::fs::PermissionsExt as _;

use crate::bus::{Bus, file};

async fn login(bus: &Bus, key: &str, words: &str) -> String {
    let path = file(bus, "key", key);
    bus.acb(&format!("{words} login --key-file")).word(path).ok().await
}

#[tokio::test]
async fn a_login_is_kept_as_a_profile_that_only_its_owner_can_read() {
    let (bus, key) = Bus::with_credentials().await;
    let said = login(&bus, &key, "--agent root").await;
    assert_eq!(said, format!("logged in to {} as root (tenant default, admin); profile default\n", bus.url()));
    let path = bus.home.path().join("acb").join("profiles.toml");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let status = bus.json("status").await;
    assert_eq!((&status["agent"], &status["profile"]), (&"root".into(), &"default".into()), "{status}");
    assert_eq!(bus.ok("agents ls").await, "no agents\n");
}

#[tokio::test]
async fn a_profile_knows_its_bus_by_itself() {
    let (bus, key) = Bus::with_credentials().await;
    login(&bus, &key, "--agent root").await;
    let status = bus.acb("status --json").env("ACB_URL", "").ok().await;
    assert!(status.contains(&bus.url()), "{status}");
}

#[tokio::test]
async fn without_a_login_the_answer_is_exit_code_4_and_how_to_log_in() {
    let (bus, _key) = Bus::with_credentials().await;
    let ran = bus.acb("agents ls").fails(4).await;
    assert!(ran.err.contains("hint: log in with `acb login`"), "{ran:?}");
}

#[tokio::test]
async fn a_wrong_key_is_exit_code_4_and_keeps_nothing() {
    let (bus, key) = Bus::with_credentials().await;
    let wrong = file(&bus, "key", format!("{key}x"));
    bus.acb("--agent root login --key-file").word(wrong).fails(4).await;
    assert!(!bus.home.path().join("acb").join("profiles.toml").exists());
    let empty = file(&bus, "key", "\n");
    bus.acb("--agent root login --key-file").word(empty).fails(2).await;
    bus.acb("login").input(key).fails(2).await;
}

#[tokio::test]
async fn a_key_comes_through_a_pipe_or_the_environment_too() {
    let (bus, key) = Bus::with_credentials().await;
    bus.acb("--agent root --profile pipe login").input(format!("{key}\n")).ok().await;
    bus.acb("--agent root --profile env login").env("ACB_KEY", &key).ok().await;
    let names: Vec<_> = bus.json_lines("profiles ls").await.into_iter().map(|p| p["name"].clone()).collect();
    assert_eq!(names, ["env", "pipe"]);
    // And a command needs no profile at all.
    let plain = bus.acb("agents ls").env("ACB_KEY", &key).env("ACB_AGENT", "root").env("XDG_CONFIG_HOME", "/absent");
    assert_eq!(plain.ok().await, "no agents\n");
}

#[tokio::test]
async fn profiles_are_listed_changed_and_forgotten() {
    let (bus, key) = Bus::with_credentials().await;
    login(&bus, &key, "--agent one --profile first").await;
    login(&bus, &key, "--agent two --profile second").await;
    assert_eq!(bus.json("status").await["agent"], "two");
    assert_eq!(bus.json("--profile first status").await["agent"], "one");
    assert_eq!(bus.ok("profiles use first").await, "first is the current profile\n");
    assert_eq!(bus.json("status").await["agent"], "one");
    let listed = bus.ok("profiles ls").await;
    let current: Vec<&str> = listed.lines().nth(1).unwrap_or_default().split_whitespace().collect();
    assert_eq!(current[..2], ["*", "first"], "{listed}");
    assert_eq!(bus.ok("profiles rm first").await, "first is forgotten\n");
    bus.acb("profiles rm first").fails(3).await;
    bus.acb("profiles use first").fails(3).await;
    bus.acb("--profile first agents ls").fails(3).await;
}

#[tokio::test]
async fn a_logout_ends_the_token_on_the_bus_and_forgets_the_key() {
    let (bus, key) = Bus::with_credentials().await;
    login(&bus, &key, "--agent root").await;
    let profiles = bus.home.path().join("acb").join("profiles.toml");
    let kept = std::fs::read_to_string(&profiles).unwrap();
    let token = kept.lines().find_map(|l| l.strip_prefix("access_token = ")).unwrap().trim_matches('"').to_owned();
    assert_eq!(bus.acb("agents ls").env("ACB_TOKEN", &token).ok().await, "no agents\n");
    assert_eq!(bus.ok("logout").await, "logged out of profile default\n");
    assert!(!std::fs::read_to_string(&profiles).unwrap().contains(&key));
    bus.acb("agents ls").fails(4).await;
    bus.acb("agents ls").env("ACB_TOKEN", &token).fails(4).await;
    bus.acb("logout --profile nothing").fails(3).await;
}

#[tokio::test]
async fn a_kept_token_that_was_taken_back_is_forgotten_and_the_key_tried_next() {
    let (bus, key) = Bus::with_credentials().await;
    login(&bus, &key, "--agent root").await;
    let profiles = bus.home.path().join("acb").join("profiles.toml");
    let kept = std::fs::read_to_string(&profiles).unwrap();
    let token = kept.lines().find_map(|l| l.strip_prefix("access_token = ")).unwrap().to_owned();
    std::fs::write(&profiles, kept.replace(&token, "\"a.b.c\"")).unwrap();
    bus.acb("agents ls").fails(4).await;
    assert_eq!(bus.ok("agents ls").await, "no agents\n");
}

#[tokio::test]
async fn a_key_of_a_profile_is_not_shown_to_another_bus() {
    let (bus, key) = Bus::with_credentials().await;
    login(&bus, &key, "--agent root").await;
    let (other, _) = Bus::with_credentials().await;
    let elsewhere = bus.acb("agents ls").env("ACB_URL", &other.url());
    // It went there by word alone, which that server does not take.
    let ran = elsewhere.fails(4).await;
    assert!(ran.err.contains("`acb login`"), "{ran:?}");
    assert!(!other.server.log().unwrap().contains("login failed"), "a key was shown");
}

#[tokio::test]
async fn nothing_secret_stands_in_help_or_errors() {
    let (bus, key) = Bus::with_credentials().await;
    for words in ["--help", "-v agents ls", "login"] {
        let ran = bus.acb(words).env("ACB_KEY", &key).run().await;
        assert!(!ran.out.contains(&key) && !ran.err.contains(&key), "{words} shows the key");
    }
}
