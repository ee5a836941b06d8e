//! The scenarios notice a bus that lies: each of the faults is found by those that must find it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use acb_faults::{Lie, TABLE, document, document_path, play, verdict};
use acb_testkit::{
    scenario::{Scenario, load, report},
    wait::set_patience,
};
use futures_util::{StreamExt as _, stream};

/// Faults at work at once. Most of their time is waiting for what does not come.
const AT_ONCE: usize = 8;

fn scenarios() -> Arc<Vec<Scenario>> {
    // What should come on a fake bus is there in milliseconds, also beside others at work; what does not come is waited for.
    set_patience(Duration::from_secs(2));
    Arc::new(load(&report::folder()).unwrap())
}

#[test]
fn there_are_forty_faults_and_none_is_there_twice() {
    let names: BTreeSet<_> = TABLE.iter().map(|fault| fault.name).collect();
    assert_eq!(names.len(), TABLE.len());
    assert!(names.len() >= 40, "{}", names.len());
    assert!(TABLE.iter().all(|fault| !fault.finds.is_empty()));
}

#[test]
fn the_document_lists_them_all() {
    let stands = std::fs::read_to_string(document_path()).unwrap();
    assert_eq!(stands, document(), "cargo run --bin acb-faults -- --write");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_is_found_and_leaves_the_rest_alone() {
    let scenarios = scenarios();
    let verdicts = stream::iter(TABLE.iter()).map(|fault| {
        let scenarios = Arc::clone(&scenarios);
        tokio::spawn(async move { verdict(fault, &scenarios).await })
    });
    let mut missed = Vec::new();
    let mut verdicts = verdicts.buffered(AT_ONCE);
    while let Some(outcome) = verdicts.next().await {
        match outcome.unwrap() {
            Ok(verdict) => {
                for (scenario, said) in &verdict.found {
                    let said = said.lines().take(2).collect::<Vec<_>>().join(" ");
                    println!("{:45} {scenario}: {said}", verdict.fault.name);
                }
            }
            Err(error) => missed.push(format!("{error:#}")),
        }
    }
    assert!(missed.is_empty(), "{} faults: {missed:#?}", missed.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_with_the_layer_and_without_a_fault_passes_what_finds_faults() {
    let scenarios = scenarios();
    let names: BTreeSet<&str> = TABLE.iter().flat_map(|fault| fault.finds).copied().collect();
    let plays = stream::iter(names).map(|name| {
        let scenario =
            scenarios.iter().find(|s| s.name == name).unwrap_or_else(|| panic!("no scenario {name}")).clone();
        tokio::spawn(async move { play(Lie::Wire(Vec::new()), &scenario).await })
    });
    let outcomes: Vec<_> = plays.buffered(AT_ONCE).collect().await;
    let failed: Vec<String> = outcomes.into_iter().filter_map(|o| o.unwrap().err()).map(|e| format!("{e:#}")).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}
