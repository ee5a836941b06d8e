//! The checker is proven by faults that are planted in the code under test: each must be found.

use acb_engine::planted::Bug as EngineBug;
use acb_log::planted::Bug as LogBug;
use acb_sim::run::{Planted, run};

/// Seeds within which a planted fault must show.
const SEEDS: u64 = 4_000;

/// Faults that this simulation is there to find. Those of the log that only its own tests can see (readers that go past
/// an end, damage that is cut off) are planted there.
fn faults() -> Vec<Planted> {
    let log = [
        LogBug::SkipSync,
        LogBug::SyncedTooFar,
        LogBug::WrittenBeforeWrite,
        LogBug::ReuseSeq,
        LogBug::ForgetProducerOnRecovery,
        LogBug::ForgetStateOnRecovery,
        LogBug::KeepBrokenTail,
        LogBug::KeepFailedKeys,
        LogBug::IgnoreFailedSync,
        LogBug::SkipCrc,
        LogBug::ForgetKeyOnRoll,
        LogBug::ReadPastEnd,
    ];
    let engine = [
        EngineBug::ForgetNack,
        EngineBug::DoubleLease,
        EngineBug::SkipAttemptCount,
        EngineBug::DieTwice,
        EngineBug::LoseOnRelease,
        EngineBug::CursorSkipsOnCredit,
        EngineBug::ForgetJournal,
        EngineBug::ExpireEarly,
        EngineBug::ConfirmEarly,
        EngineBug::ResumeForgets,
        EngineBug::IgnoreMaxLeased,
        EngineBug::RestoreAtEnd,
    ];
    let log = log.into_iter().map(Planted::Log);
    log.chain(engine.into_iter().map(Planted::Engine)).chain([Planted::AckBeforeWrite]).collect()
}

fn found(planted: Planted) -> Option<(u64, String)> {
    (1..=SEEDS).find_map(|seed| run(seed, planted).violation.map(|v| (seed, v.to_string())))
}

#[test]
fn every_planted_fault_is_found() {
    let mut missed = Vec::new();
    for planted in faults() {
        match found(planted) {
            Some((seed, what)) => println!("{planted:?}: seed {seed}: {what}"),
            None => missed.push(planted),
        }
    }
    assert!(missed.is_empty(), "not found within {SEEDS} seeds: {missed:?}");
}

#[test]
fn a_healthy_build_breaks_nothing() {
    for seed in 1..=200 {
        let outcome = run(seed, Planted::Nothing);
        assert!(outcome.violation.is_none(), "seed {seed} step {}: {:?}", outcome.step, outcome.violation);
    }
}

#[test]
fn a_seed_replays_to_the_same_step() {
    for seed in [1, 17, 99] {
        let (a, b) = (run(seed, Planted::Nothing), run(seed, Planted::Nothing));
        assert_eq!((a.step, a.trace, a.messages), (b.step, b.trace, b.messages));
    }
    // A failing seed too.
    let planted = Planted::AckBeforeWrite;
    let seed = (1..=SEEDS).find(|seed| run(*seed, planted).violation.is_some()).expect("found above");
    let (a, b) = (run(seed, planted), run(seed, planted));
    assert_eq!((a.step, a.trace, a.violation), (b.step, b.trace, b.violation));
}
