//! Runs scenarios as tests, and speaks libtest's dialect so that `cargo test` and nextest see one test per scenario and
//! client. No build script and no macro: the list is read when it is asked for.

use std::{
    collections::BTreeMap,
    io::Write as _,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{
    model::{Scenario, Settings, load},
    report::{self, Mark},
    run::Stage,
};
use crate::{
    bus::BusKind,
    driver::{Kind, kinds},
};

/// Longest that a scenario may take, whatever it waits for.
const SCENARIO_WITHIN: Duration = Duration::from_mins(1);
/// Longest that a whole set may take.
const SET_WITHIN: Duration = Duration::from_mins(15);
/// The two tenants of the test of isolation.
const TENANTS: [&str; 2] = ["left", "right"];

/// What the command line asks for.
#[derive(Debug, Default)]
struct Asked {
    list: bool,
    ignored: bool,
    exact: bool,
    write: bool,
    filters: Vec<String>,
    skip: Vec<String>,
}

impl Asked {
    fn read(mut words: impl Iterator<Item = String>) -> Self {
        let mut asked = Self::default();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--list" => asked.list = true,
                "--ignored" => asked.ignored = true,
                "--exact" => asked.exact = true,
                "--write" => asked.write = true,
                "--skip" => asked.skip.extend(words.next()),
                // Options of libtest that take a value which means nothing here.
                "--format" | "--test-threads" | "--color" | "--logfile" => drop(words.next()),
                other if other.starts_with('-') => {}
                _ => asked.filters.push(word),
            }
        }
        asked
    }

    fn wants(&self, name: &str) -> bool {
        let like = |filter: &String| if self.exact { name == filter } else { name.contains(filter.as_str()) };
        !self.ignored && (self.filters.is_empty() || self.filters.iter().any(like)) && !self.skip.iter().any(like)
    }
}

/// One test.
#[derive(Debug)]
enum Test {
    /// A scenario with a client.
    One(Arc<dyn Kind>, Scenario),
    /// All scenarios with a client, in two tenants at once.
    Set(Arc<dyn Kind>),
    /// The document's list is that of the files.
    Document,
}

fn tests(scenarios: &[Scenario], kinds: &[Arc<dyn Kind>]) -> Vec<(String, Test)> {
    let mut tests = Vec::new();
    for kind in kinds {
        for scenario in scenarios.iter().filter(|s| kind.runs(s)) {
            let name = format!("{}::{}", kind.name(), scenario.name);
            tests.push((name, Test::One(Arc::clone(kind), scenario.clone())));
        }
        tests.push((format!("{}::all_in_two_tenants_at_once", kind.name()), Test::Set(Arc::clone(kind))));
    }
    tests.push(("the_document_is_fresh".to_owned(), Test::Document));
    tests
}

/// What the test binary does.
pub fn main() -> ExitCode {
    match run(&Asked::read(std::env::args().skip(1))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) {
    // A reader who went away has what it wanted.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

fn run(asked: &Asked) -> Result<bool> {
    let kinds = kinds();
    let scenarios = load(&report::folder())?;
    let tests: Vec<(String, Test)> =
        tests(&scenarios, &kinds).into_iter().filter(|(name, _)| asked.wants(name)).collect();
    if asked.list {
        tests.iter().for_each(|(name, _)| say(&format!("{name}: test")));
        return Ok(true);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    say(&format!("\nrunning {} tests", tests.len()));
    let started = Instant::now();
    let mut results: BTreeMap<String, bool> = BTreeMap::new();
    let mut failures = Vec::new();
    let mut stage: Option<(BusKind, Stage)> = None;
    for (name, test) in &tests {
        let outcome = runtime.block_on(one(test, &scenarios, &kinds, &mut stage, asked.write));
        say(&format!("test {name} ... {}", if outcome.is_ok() { "ok" } else { "FAILED" }));
        if let Err(error) = &outcome {
            // Whatever it left behind must not fail the next.
            stage = None;
            failures.push((name, format!("{error:#}")));
        }
        results.insert(name.clone(), outcome.is_ok());
    }
    runtime.block_on(async { drop(stage) });
    if !failures.is_empty() {
        say("\nfailures:");
        for (name, text) in &failures {
            say(&format!("\n---- {name} ----\n{text}"));
        }
    }
    if asked.write {
        write(&scenarios, &kinds, &results)?;
    }
    let (verdict, failed) = (if failures.is_empty() { "ok" } else { "FAILED" }, failures.len());
    say(&format!(
        "\ntest result: {verdict}. {} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out; finished in {:.2}s\n",
        tests.len() - failed,
        started.elapsed().as_secs_f64()
    ));
    Ok(failures.is_empty())
}

async fn one(
    test: &Test,
    scenarios: &[Scenario],
    kinds: &[Arc<dyn Kind>],
    stage: &mut Option<(BusKind, Stage)>,
    writing: bool,
) -> Result<()> {
    match test {
        Test::One(kind, scenario) if !scenario.settings.is_empty() => {
            bounded(SCENARIO_WITHIN, async {
                let mut stage = Stage::new(kind.bus(), &scenario.settings).await?;
                stage.play_alone(scenario, kind, &scenario.name).await
            })
            .await
        }
        Test::One(kind, scenario) => {
            // One bus for all that run against its kind.
            if stage.as_ref().is_none_or(|(bus, _)| *bus != kind.bus()) {
                *stage = Some((kind.bus(), Stage::new(kind.bus(), &Settings::new()).await?));
            }
            let Some((_, stage)) = stage else { bail!("there is a stage") };
            let tenants = [format!("{}-{}", kind.name(), scenario.name)];
            bounded(SCENARIO_WITHIN, stage.run(scenario, kind, &tenants)).await
        }
        Test::Set(kind) => {
            let mut stage = Stage::new(kind.bus(), &Settings::new()).await?;
            bounded(SET_WITHIN, async {
                for scenario in scenarios.iter().filter(|s| kind.runs(s) && s.settings.is_empty()) {
                    stage.run(scenario, kind, &TENANTS.map(str::to_owned)).await?;
                }
                Ok(())
            })
            .await
        }
        Test::Document => {
            let path = report::path();
            if writing {
                return Ok(());
            }
            let stands = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            if stands != report::fresh(scenarios, kinds) {
                bail!(
                    "{} is not what the scenarios are: cargo test -p acb-testkit --test conformance -- --write",
                    path.display()
                );
            }
            Ok(())
        }
    }
}

async fn bounded(span: Duration, work: impl Future<Output = Result<()>>) -> Result<()> {
    match tokio::time::timeout(span, work).await {
        Ok(outcome) => outcome,
        Err(_) => bail!("not over within {span:?}"),
    }
}

fn write(scenarios: &[Scenario], kinds: &[Arc<dyn Kind>], results: &BTreeMap<String, bool>) -> Result<()> {
    let table = report::table(scenarios, kinds, |scenario, kind| {
        if !kind.runs(scenario) {
            return Mark::Left;
        }
        match results.get(&format!("{}::{}", kind.name(), scenario.name)) {
            Some(true) => Mark::Passed,
            _ => Mark::Failed,
        }
    });
    let path = report::path();
    std::fs::write(&path, table).with_context(|| path.display().to_string())?;
    say(&format!("wrote {}", path.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(words: &str) -> Asked {
        Asked::read(words.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn it_understands_what_nextest_and_cargo_ask() {
        let listing = asked("--list --format terse --ignored");
        assert!(listing.list && !listing.wants("raw::a"), "there are no ignored tests");
        let one = asked("raw::a --nocapture --exact");
        assert!(one.wants("raw::a") && !one.wants("raw::ab"));
        let some = asked("--skip two raw");
        assert!(some.wants("raw::a") && !some.wants("raw::two") && !some.wants("core::a"));
    }

    #[test]
    fn every_scenario_file_reads_and_there_are_enough() {
        let scenarios = load(&report::folder()).unwrap();
        assert!(scenarios.len() >= 50, "{} scenarios", scenarios.len());
        let tests = tests(&scenarios, &kinds());
        let names: std::collections::BTreeSet<&String> = tests.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), tests.len(), "two tests have one name");
    }
}
