//! `acb upload` and `acb download`: files of any size, and going on after an interruption.

use std::path::Path;

use serde_json::{Value, json};

use crate::bus::{Bus, Running, file, objects};

/// What a client may have on the way, and so sends again after it was stopped.
const WINDOW: u64 = 16 << 20;

/// Bytes that tell where they are.
fn content(len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn number(object: &Value, name: &str) -> u64 {
    object[name].as_u64().unwrap_or_else(|| panic!("no {name} in {object}"))
}

/// Reads progress until so much is done.
async fn until_done(running: &mut Running, bytes: u64) -> Value {
    loop {
        let line = running.says("done_bytes").await;
        let progress: Value = serde_json::from_str(&line).unwrap();
        if number(&progress, "done_bytes") >= bytes {
            return progress;
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn a_file_goes_up_and_comes_down_the_same() {
    let bus = Bus::dev().await;
    let bytes = content(3 << 20);
    let path = file(&bus, "plan.bin", &bytes);
    let up =
        objects(&bus.acb("--json upload --key plans/alpha --type plan --label q3").word(&path).ok().await).remove(0);
    assert_eq!(
        (number(&up, "size_bytes"), number(&up, "sent_bytes"), &up["version"]),
        (3 << 20, 3 << 20, &"0.1.0".into())
    );
    let copy = bus.home.path().join("copy.bin");
    let down = objects(&bus.acb("--json download plans/alpha --output").word(&copy).ok().await).remove(0);
    assert_eq!((&down["sha256"], &down["context_id"]), (&up["sha256"], &up["context_id"]));
    assert!(std::fs::read(&copy).unwrap() == bytes);
    assert!(!names(bus.home.path()).iter().any(|name| name.contains("acb-")), "{:?}", names(bus.home.path()));
    let id = up["context_id"].as_str().unwrap();
    let part = bus.acb(&format!("download {id} --range 7-12 -o")).word(bus.home.path().join("part")).ok().await;
    assert!(part.contains("sha256"), "{part}");
    assert!(std::fs::read(bus.home.path().join("part")).unwrap() == bytes[7..12]);
    let shorter = file(&bus, "shorter", &bytes[..100]);
    let rev = number(&up, "rev");
    let again = bus.acb(&format!("--json upload --update {id} --if-rev {rev}")).word(&shorter).ok().await;
    let again = objects(&again).remove(0);
    assert_eq!((&again["context_id"], &again["version"]), (&up["context_id"], &"0.1.1".into()));
    let stale = bus.acb(&format!("upload --update {id} --if-rev {rev}")).word(&shorter).run().await;
    assert!(stale.code != Some(0) && stale.sentence().contains("revision"), "{stale:?}");
    bus.acb(&format!("upload --update {id}")).word(&shorter).fails(2).await;
    bus.acb("upload /absent/file").run().await.code.filter(|code| *code != 0).expect("there is no such file");
    bus.acb("download absent/key -o").word(bus.home.path().join("absent")).fails(3).await;
}

#[tokio::test]
async fn the_same_command_goes_on_after_ctrl_c_and_after_a_kill() {
    let bus = Bus::dev().await;
    let bytes = content(200 << 20);
    let path = file(&bus, "archive", &bytes);
    let size = bytes.len() as u64;
    let upload = || bus.acb("--json upload --key big/one").word(&path);
    let mut done = 0;
    for (signal, share) in [("INT", 4), ("KILL", 2)] {
        let mut running = upload().start().await;
        let first = until_done(&mut running, 0).await;
        assert!(number(&first, "done_bytes") + WINDOW >= done, "{first}: {done} were done before");
        let last = until_done(&mut running, size / share).await;
        done = number(&last, "done_bytes");
        running.signal(signal).await;
        let ended = running.end().await;
        assert_ne!(ended.code, Some(0), "{ended:?}");
    }
    assert!(names(bus.home.path()).iter().any(|name| name.ends_with(".acb-upload")), "the token is there");
    let up = objects(&upload().ok().await).remove(0);
    assert!(number(&up, "sent_bytes") <= size - done + WINDOW, "{up}: {done} were done before");
    assert!(!names(bus.home.path()).iter().any(|name| name.ends_with(".acb-upload")), "the token has gone");

    let copy = bus.home.path().join("copy");
    let download = || bus.acb("--json download big/one --output").word(&copy);
    let mut running = download().start().await;
    let last = until_done(&mut running, size / 3).await;
    running.signal("INT").await;
    running.end().await;
    assert!(!copy.exists(), "a part is not the whole");
    let down = objects(&download().ok().await).remove(0);
    assert!(number(&down, "received_bytes") <= size - number(&last, "done_bytes") + (8 << 20), "{down} after {last}");
    assert_eq!(down["sha256"], up["sha256"]);
    assert!(std::fs::read(&copy).unwrap() == bytes);
}

#[tokio::test]
async fn what_was_interrupted_is_given_up_by_the_same_command_with_abort() {
    let bus = Bus::dev().await;
    let path = file(&bus, "archive", content(200 << 20));
    let abort = || bus.acb("--json upload --key big/one --abort").word(&path);
    assert_eq!(objects(&abort().ok().await), [json!({"aborted": false})]);
    let mut running = bus.acb("--json upload --key big/one").word(&path).start().await;
    until_done(&mut running, 50 << 20).await;
    running.signal("INT").await;
    running.end().await;
    assert!(names(bus.home.path()).iter().any(|name| name.ends_with(".acb-upload")), "the token is there");
    assert_eq!(objects(&abort().ok().await), [json!({"aborted": true})]);
    assert!(!names(bus.home.path()).iter().any(|name| name.ends_with(".acb-upload")), "the token has gone");
    let again = bus.acb("upload --key big/one --abort").word(&path).ok().await;
    assert!(again.contains("nothing to give up"), "{again}");
    bus.acb("upload --abort --no-resume").word(&path).fails(2).await;
    bus.acb("upload --abort -").fails(2).await;
}

/// The most memory that a command has had so far, in bytes.
fn peak(running: &Running) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn a_client_keeps_no_more_than_its_window_and_a_little() {
    let bus = Bus::dev().await;
    let large = file(&bus, "large", content(160 << 20));
    let mut running = bus.acb("--json upload").word(&large).start().await;
    until_done(&mut running, 0).await;
    let least = peak(&running);
    until_done(&mut running, 120 << 20).await;
    let most = peak(&running);
    assert_eq!(running.end().await.code, Some(0));
    assert!(most - least <= WINDOW + (16 << 20), "{} MiB above {} MiB", (most - least) >> 20, least >> 20);
}
