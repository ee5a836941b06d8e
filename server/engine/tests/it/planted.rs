//! The checker is checked: each planted bug is found by the model, and no bug is found where none is.

use acb_engine::planted::{Bug, plant};
use proptest::{
    collection::vec,
    strategy::{Strategy, ValueTree},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use crate::model::{op, run};

/// Runs histories until one is wrong; how many that took, and what was wrong.
fn hunt(histories: u32) -> Option<(u32, String)> {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let strategy = vec(op(), 1..120);
    (1..=histories).find_map(|n| {
        let ops = strategy.new_tree(&mut runner).ok()?.current();
        run(u64::from(n), &ops).err().map(|wrong| (n, wrong))
    })
}

#[test]
fn each_planted_bug_is_found() {
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        plant(Some(bug));
        let found = std::panic::catch_unwind(|| hunt(3000));
        plant(None);
        match found {
            Ok(Some((n, wrong))) => println!("{bug:?}: history {n}: {}", wrong.chars().take(200).collect::<String>()),
            Ok(None) => missed.push(bug),
            // The engine's own assertions may be quicker.
            Err(_) => println!("{bug:?}: by an assertion of the engine"),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn nothing_is_found_where_no_bug_is_planted() {
    assert_eq!(hunt(300), None);
}
