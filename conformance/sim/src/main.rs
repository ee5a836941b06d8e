//! `acb-sim`: runs seeds and says which fails.

use std::time::{Duration, Instant};

use acb_sim::run::{Planted, run};
use clap::Parser;

/// Runs the simulation of engine and log.
#[derive(Debug, Parser)]
struct Args {
    /// How many seeds.
    #[arg(long, default_value_t = 2_000)]
    seeds: u64,
    /// Stop after so many seconds, however many seeds that was.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The first seed; with `--seeds 1` the one to replay.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> std::process::ExitCode {
    let args = Args::parse();
    let started = Instant::now();
    let (mut passed, mut failed, mut messages) = (0, 0, 0);
    for seed in args.seed..args.seed.saturating_add(args.seeds) {
        if started.elapsed() > Duration::from_secs(args.seconds) {
            break;
        }
        let outcome = run(seed, Planted::Nothing);
        messages += outcome.messages;
        match outcome.violation {
            None => passed += 1,
            Some(violation) => {
                failed += 1;
                println!("seed {seed} step {} trace {:016x}: {violation}", outcome.step, outcome.trace);
                println!("  replay: acb-sim --seed {seed} --seeds 1");
            }
        }
    }
    println!("{messages} messages over {} seeds in {:.1} s", passed + failed, started.elapsed().as_secs_f64());
    println!("{passed} passed, {failed} failed");
    if failed > 0 || passed == 0 { std::process::ExitCode::FAILURE } else { std::process::ExitCode::SUCCESS }
}
