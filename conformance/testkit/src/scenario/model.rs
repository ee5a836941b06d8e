//! Scenarios as they stand in `conformance/scenarios/*.yaml`, checked when they are read: a word that no driver knows
//! fails at once and not at its step.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::verbs;
use crate::proxy::Way;

/// Settings of a server that are not its defaults: path and value.
pub type Settings = BTreeMap<String, String>;

/// One file: scenarios of one area.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    area: String,
    scenarios: Vec<Written>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    says: String,
    #[serde(default)]
    only: Vec<String>,
    #[serde(default)]
    why: String,
    #[serde(default)]
    settings: Settings,
    steps: Vec<Map<String, Value>>,
}

/// One scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its file's subject.
    pub area: String,
    /// Unique over all files.
    pub name: String,
    /// What it shows, one sentence.
    pub says: String,
    /// Drivers that can run it; empty for all.
    pub only: Vec<String>,
    /// Why not all can.
    pub why: String,
    /// What it is about is a server that is set up so: it has one of its own, and is not played in two tenants at once.
    pub settings: Settings,
    /// What happens.
    pub steps: Vec<Step>,
}

/// One step of a scenario.
#[derive(Clone, Debug)]
pub struct Step {
    /// What is done.
    pub action: Action,
    /// What must come of it.
    pub outcome: Outcome,
    /// Parts of the result that later steps use: name and path.
    pub save: Vec<(String, String)>,
    /// The step as it is written, for failures.
    pub text: String,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// An agent calls the bus.
    Call {
        /// The agent.
        agent: String,
        /// What it does; see [`verbs::VERBS`].
        verb: String,
        /// With what; captures are still in it.
        args: Map<String, Value>,
    },
    /// The server's clock moves.
    Advance(std::time::Duration),
    /// The server's wall clock is set, by so many milliseconds forward or back; no time passes by it.
    Jump(i64),
    /// Something happens to the server.
    Server(ServerAct),
    /// Something happens to an agent's network.
    Network(NetworkAct, String),
}

/// What can happen to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerAct {
    /// SIGKILL.
    Kill,
    /// A start after a kill or stop.
    Start,
    /// SIGKILL and start.
    Restart,
    /// SIGTERM, and its end.
    Stop,
}

/// What can happen to an agent's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkAct {
    /// Connections break; new ones are let in.
    Cut,
    /// Connections break; new ones are refused until it is mended.
    Part,
    /// Nothing moves until it is mended.
    Hold,
    /// Connections break when so many more bytes have gone one way.
    CutAfter(Way, u32),
    /// Everything is well again.
    Mend,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CutAfter {
    agent: String,
    way: String,
    bytes: u32,
}

/// What must come of a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Success with a result that has all of this.
    Expect(Value),
    /// As [`Self::Expect`], tried again until it holds.
    Until(Value),
    /// Failure with this code.
    Error(String),
}

impl Scenario {
    /// Whether a driver can run it. What is only for the core is for every client that stands on it, in whatever
    /// language: all but raw ones.
    pub fn runs_with(&self, driver: &str) -> bool {
        let named = |only: &String| only == driver || only == "core" && driver != "raw";
        self.only.is_empty() || self.only.iter().any(named)
    }

    /// Agents whose network something happens to: these go through a proxy.
    pub fn proxied(&self) -> BTreeSet<&str> {
        self.steps
            .iter()
            .filter_map(|step| if let Action::Network(_, agent) = &step.action { Some(agent.as_str()) } else { None })
            .collect()
    }

    /// Every agent that does something.
    pub fn agents(&self) -> BTreeSet<&str> {
        self.steps
            .iter()
            .filter_map(|step| if let Action::Call { agent, .. } = &step.action { Some(agent.as_str()) } else { None })
            .collect()
    }
}

/// Reads every scenario of a folder, by file and place.
///
/// # Errors
/// When a file cannot be read, says something that no driver knows, or uses a name twice.
pub fn load(folder: &Path) -> Result<Vec<Scenario>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .with_context(|| format!("scenarios in {}", folder.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|e| e == "yaml"));
    files.sort();
    let mut scenarios: Vec<Scenario> = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        for scenario in parse(&text).with_context(|| path.display().to_string())? {
            if scenarios.iter().any(|s| s.name == scenario.name) {
                bail!("{}: scenario {} is there twice", path.display(), scenario.name);
            }
            scenarios.push(scenario);
        }
    }
    Ok(scenarios)
}

/// Reads the scenarios of one file.
///
/// # Errors
/// As [`load`].
pub fn parse(text: &str) -> Result<Vec<Scenario>> {
    let file: File = serde_norway::from_str(text)?;
    file.scenarios.into_iter().map(|written| scenario(&file.area, written)).collect()
}

fn scenario(area: &str, written: Written) -> Result<Scenario> {
    let name = written.name;
    let sound = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    ensure!(!name.is_empty() && name.chars().all(sound), "scenario name {name:?} is not words with '-' between");
    ensure!(!written.says.is_empty(), "{name} does not say what it shows");
    ensure!(written.only.is_empty() == written.why.is_empty(), "{name}: `only` and `why` belong together");
    // What one client alone can do or see is a reason. What is not done yet is work.
    ensure!(!written.why.starts_with("open"), "{name}: `why` names a property of the client, not what is open");
    let steps = written.steps.into_iter().enumerate();
    let steps = steps.map(|(at, step)| self::step(step).with_context(|| format!("{name}, step {}", at + 1)));
    Ok(Scenario {
        area: area.to_owned(),
        says: written.says,
        only: written.only,
        why: written.why,
        settings: written.settings,
        steps: steps.collect::<Result<_>>()?,
        name,
    })
}

fn step(mut written: Map<String, Value>) -> Result<Step> {
    let text = serde_json::to_string(&written)?;
    let outcome = match (written.remove("expect"), written.remove("until"), written.remove("error")) {
        (None, None, None) => Outcome::Expect(Value::Object(Map::new())),
        (Some(expect), None, None) => Outcome::Expect(expect),
        (None, Some(until), None) => Outcome::Until(until),
        (None, None, Some(Value::String(code))) => {
            ensure!(verbs::is_code(&code), "no error code is called {code}");
            Outcome::Error(code)
        }
        _ => bail!("a step has one of `expect`, `until` and `error: code`"),
    };
    let save = match written.remove("save") {
        None => Vec::new(),
        Some(Value::Object(map)) => {
            let path = |(name, path): (String, Value)| match path {
                Value::String(path) => Ok((name, path)),
                other => bail!("`save` of {name} has {other} for a path"),
            };
            map.into_iter().map(path).collect::<Result<_>>()?
        }
        Some(other) => bail!("`save` is {other}, not names with paths"),
    };
    ensure!(written.len() == 1, "a step does one thing, not {}", written.len());
    let Some((word, value)) = written.into_iter().next() else { bail!("a step does something") };
    let action = action(&word, value).with_context(|| word.clone())?;
    let plain = matches!(&outcome, Outcome::Expect(Value::Object(map)) if map.is_empty()) && save.is_empty();
    ensure!(plain || matches!(action, Action::Call { .. }), "only an agent's call has a result");
    Ok(Step { action, outcome, save, text })
}

fn action(word: &str, value: Value) -> Result<Action> {
    let text = |value: Value| match value {
        Value::String(text) => Ok(text),
        other => bail!("takes a text, not {other}"),
    };
    Ok(match word.split_once('.') {
        Some((agent, verb)) => {
            let args = match value {
                Value::Object(args) => args,
                Value::Null => Map::new(),
                other => bail!("takes named values, not {other}"),
            };
            verbs::check(verb, args.keys().map(String::as_str))?;
            Action::Call { agent: agent.to_owned(), verb: verb.to_owned(), args }
        }
        None => match word {
            "advance" => Action::Advance(humantime::parse_duration(&text(value)?)?),
            "jump" => Action::Jump(jump(&text(value)?)?),
            "server" => Action::Server(serde_json::from_value(value)?),
            "cut" => Action::Network(NetworkAct::Cut, text(value)?),
            "part" => Action::Network(NetworkAct::Part, text(value)?),
            "hold" => Action::Network(NetworkAct::Hold, text(value)?),
            "cut_after" => {
                let parts: CutAfter = serde_json::from_value(value)?;
                let way = if parts.way == "up" { Way::Up } else { Way::Down };
                ensure!(matches!(parts.way.as_str(), "up" | "down"), "`way` is up or down");
                Action::Network(NetworkAct::CutAfter(way, parts.bytes), parts.agent)
            }
            "mend" => Action::Network(NetworkAct::Mend, text(value)?),
            _ => bail!("no such step; an agent's call is written `agent.verb`"),
        },
    })
}

/// A span with the direction before it, such as `+3h` or `-90m`, in milliseconds.
fn jump(text: &str) -> Result<i64> {
    let (sign, span) = match text.split_at_checked(1) {
        Some(("+", span)) => (1, span),
        Some(("-", span)) => (-1, span),
        _ => bail!("takes a span with its direction, such as +3h or -90m, not {text}"),
    };
    Ok(sign * i64::try_from(humantime::parse_duration(span)?.as_millis())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(steps: &str) -> Result<Scenario> {
        let indented: String = steps.lines().map(|l| format!("      {l}\n")).collect();
        let text = format!("area: a\nscenarios:\n  - name: n\n    says: s\n    steps:\n{indented}");
        Ok(parse(&text)?.remove(0))
    }

    #[test]
    fn a_step_is_a_call_with_an_outcome_and_what_is_saved() {
        let s = one("- bob.receive: {session: s}\n  expect: {payload: x}\n  save: {id: message_id}").unwrap();
        let step = &s.steps[0];
        assert!(matches!(&step.action, Action::Call { agent, verb, .. } if agent == "bob" && verb == "receive"));
        assert_eq!(step.outcome, Outcome::Expect(serde_json::json!({"payload": "x"})));
        assert_eq!(step.save, [("id".to_owned(), "message_id".to_owned())]);
    }

    #[test]
    fn what_no_driver_knows_is_refused_when_it_is_read() {
        for (steps, wanted) in [
            ("- bob.juggle: {}", "juggle"),
            ("- bob.send: {tow: x}", "tow"),
            ("- bob.send: {to: x}\n  error: no_such_code", "no_such_code"),
            ("- sleep: 1s", "no such step"),
            ("- advance: soon", "advance"),
            ("- jump: 3h", "direction"),
            ("- jump: -soon", "jump"),
            ("- advance: 1s\n  expect: {a: 1}", "only an agent's call"),
            ("- bob.send: {}\n  amy.send: {}", "one thing"),
            ("- bob.send: {}\n  expect: {}\n  error: timeout", "one of"),
        ] {
            let error = format!("{:#}", one(steps).unwrap_err());
            assert!(error.contains(wanted), "{steps}: {error}");
        }
    }

    #[test]
    fn a_scenario_for_one_client_says_what_is_so_about_that_client() {
        let read = |only: &str| parse(&format!("area: a\nscenarios:\n  - name: n\n    says: s\n{only}    steps: []\n"));
        assert!(read("    only: [raw]\n    why: frames are looked at\n").is_ok());
        for bad in ["    only: [raw]\n", "    why: frames\n", "    only: [raw]\n    why: \"open: not done\"\n"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_jump_has_a_direction() {
        let s = one("- jump: +90m\n- jump: -2h").unwrap();
        let actions: Vec<&Action> = s.steps.iter().map(|step| &step.action).collect();
        assert_eq!(actions, [&Action::Jump(5_400_000), &Action::Jump(-7_200_000)]);
    }

    #[test]
    fn those_whose_network_suffers_go_through_a_proxy() {
        let s = one("- bob.receive: {}\n- amy.receive: {}\n- cut: bob").unwrap();
        assert_eq!(s.proxied().into_iter().collect::<Vec<_>>(), ["bob"]);
        assert_eq!(s.agents().len(), 2);
    }
}
