//! What scripts get: the names and kinds of all that `--json` prints, kept in `tests/json-shapes.txt`. `ACB_UPDATE=1`
//! writes the file anew; then look at the change before you keep it, because scripts read these names.

use std::{fmt::Write as _, path::Path};

use serde_json::Value;

use crate::bus::{Bus, objects};

/// An object's names, each with the kind of its value.
fn shape(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "bool".into(),
        Value::Number(_) => "number".into(),
        Value::String(_) => "string".into(),
        Value::Array(all) => format!("[{}]", all.first().map(shape).unwrap_or_default()),
        Value::Object(all) => {
            let entries: Vec<String> = all.iter().map(|(name, value)| format!("{name}: {}", shape(value))).collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}

#[tokio::test]
async fn what_scripts_read_keeps_its_names() {
    let (bus, key) = Bus::with_credentials().await;
    let path = crate::bus::file(&bus, "key", &key);
    let mut seen = String::new();
    let mut note = |command: &str, printed: &str| {
        for object in objects(printed).iter().take(1) {
            let _ = writeln!(seen, "acb {command}\n  {}", shape(object));
        }
    };
    let logged_in = bus.acb("--json --agent root login --key-file").word(path).ok().await;
    note("login", &logged_in);
    let failed = bus.acb("--json agents get nobody").fails(3).await;
    note("agents get nobody (an error)", &failed.err);
    for command in [
        "agents register root --type t --capability a.b@1.0.0 --metadata k=v --group g",
        "agents ls",
        "agents get root",
        "agents watch root -n 1",
        "contexts put plans/a text --type plan --label hot",
        "contexts get plans/a",
        "contexts ls",
        "contexts history plans/a",
        "contexts watch plans/ -n 1",
        "groups create blue --description blues",
        "groups add blue root",
        "groups ls",
        "groups members blue",
        "groups remove blue root",
        "groups rm blue",
        "contexts rm plans/a",
        "subscriptions create work --filter jobs.* --max-attempts 1",
        "subscriptions ls",
        "subscriptions get work",
        "publish jobs.one hello --attribute a=b --correlation-id c --idempotency-key k --order-key o --content-type text/plain --ttl 1h",
        "status topics-0-1-1",
        "status",
        "subscribe work --peek -n 1",
        "send root hello",
        "bench --duration 50ms --rate 100",
        "profiles ls",
        "admin tenants create acme",
        "admin tenants ls",
        "admin keys create --agents w-* --ttl 1h",
        "admin keys ls",
        "admin keys revoke nothing",
        "admin set-secret bob",
        "admin rotate-signing-key",
    ] {
        note(command, &bus.ok(&format!("--json {command}")).await);
    }
    let mut failing = bus.acb("--json reply --group work -- false").start().await;
    note("reply (a failure)", &failing.line().await);
    failing.signal("INT").await;
    failing.end().await;
    let mut echo = bus.acb("--json reply --echo --topic svc.echo").start().await;
    // Asked until it is there to answer.
    let answer = acb_testkit::wait::wait_until("an answer", acb_testkit::wait::PATIENCE, || async {
        let ran = bus.acb("--json request --topic svc.echo hello").run().await;
        if ran.code == Some(0) {
            acb_testkit::wait::Level::Reached(ran.out)
        } else {
            acb_testkit::wait::Level::not_yet(ran.err)
        }
    });
    note("request", &answer.await.unwrap());
    note("reply", &echo.line().await);
    for command in
        ["dead-letters ls work", "dead-letters show ID", "dead-letters redrive ID", "dead-letters discard ID"]
    {
        let letters = bus.json_lines("dead-letters ls work").await;
        let id = letters.first().map_or("dead-letters-0-1-1", |l| l["id"].as_str().unwrap_or_default());
        note(command, &bus.ok(&format!("--json {}", command.replace("ID", id))).await);
    }
    for command in ["subscriptions rm work", "agents rm root", "profiles use default", "logout", "profiles rm default"]
    {
        note(command, &bus.ok(&format!("--json {command}")).await);
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join("json-shapes.txt");
    if std::env::var_os("ACB_UPDATE").is_some() {
        std::fs::write(&file, &seen).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    for (seen, kept) in seen.lines().zip(kept.lines()) {
        assert_eq!(seen, kept, "another shape than in {}", file.display());
    }
    assert_eq!(seen.lines().count(), kept.lines().count(), "{seen}");
}
