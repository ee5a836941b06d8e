//! Python's fake bus (`acb_sdk.testing`) under the scenarios: the bus and its clients are in one Python process, and reach
//! each other as in a user's tests. `scripts/build-wheel.sh` first.

use std::{sync::Arc, time::Duration};

use acb_testkit::{
    bus::Bus,
    driver::{Guest, GuestBus, Kind},
    scenario::{Settings, Stage, load, report},
};

/// Longest that a scenario may take, whatever it waits for.
const SCENARIO_WITHIN: Duration = Duration::from_secs(30);

async fn every_scenario_of(face: &str, kind: Guest) {
    let scenarios = load(&report::folder()).unwrap();
    let kind: Arc<dyn Kind> = Arc::new(kind);
    let bus =
        async |settings: &Settings| Stage::on(Bus::Guest(GuestBus::python(face, settings).unwrap())).await.unwrap();
    let mut shared = bus(&Settings::new()).await;
    let (mut ran, mut failed) = (0, Vec::new());
    for scenario in scenarios.iter().filter(|s| kind.runs(s)) {
        ran += 1;
        // Nobody sweeps up after a scenario here: each has a tenant of its own.
        let tenant = format!("{}-{}", kind.name(), scenario.name);
        let mut own = if scenario.settings.is_empty() { None } else { Some(bus(&scenario.settings).await) };
        let played = own.as_mut().unwrap_or(&mut shared).play_alone(scenario, &kind, &tenant);
        match tokio::time::timeout(SCENARIO_WITHIN, played).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failed.push(format!("{error:#}")),
            Err(_) => failed.push(format!("{}: not over within {SCENARIO_WITHIN:?}", scenario.name)),
        }
    }
    println!("{face}: {} of {ran} scenarios", ran - failed.len());
    assert!(ran >= 100, "only {ran} scenarios were run");
    assert!(failed.is_empty(), "{} of {ran} failed:\n{}", failed.len(), failed.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_scenario_passes_on_the_async_face_of_pythons_fake() {
    let [face, _] = Guest::python();
    every_scenario_of("async", face).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_scenario_passes_on_the_sync_face_of_pythons_fake() {
    let [_, face] = Guest::python();
    every_scenario_of("sync", face).await;
}
