//! Kill -9 of the real server under load: `ACB_CRASH_ROUNDS` rounds, from `ACB_CRASH_SEED` or by chance.

use std::time::Instant;

use acb_crash::{
    SEED, asked,
    round::{folder, play},
    seed,
};
use tokio::task::JoinSet;

/// How many rounds; 30 by default.
const ROUNDS: &str = "ACB_CRASH_ROUNDS";
/// Rounds when nobody says how many.
const ROUNDS_DEFAULT: u64 = 30;
/// Rounds that are played at once, each with a server and a folder of its own: one leaves more than half of two cores
/// idle.
const AT_ONCE: usize = 2;

#[test]
fn nothing_acknowledged_is_lost_doubled_or_delivered_wrongly_when_the_server_is_killed_under_load() {
    let rounds = asked(ROUNDS).unwrap_or(ROUNDS_DEFAULT);
    assert!(rounds > 0, "{ROUNDS}=0 proves nothing");
    let first = seed();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut failed = Vec::new();
    let began = Instant::now();
    runtime.block_on(async {
        let mut playing = JoinSet::new();
        let mut seeds = first..first + rounds;
        loop {
            while playing.len() < AT_ONCE
                && let Some(seed) = seeds.next()
            {
                println!("round of seed {seed} (again: {SEED}={seed} {ROUNDS}=1)");
                playing.spawn(async move {
                    let at = Instant::now();
                    let played = play(seed, &folder(seed).unwrap()).await;
                    (seed, played, at.elapsed())
                });
            }
            let Some(ended) = playing.join_next().await else { break };
            match ended.expect("a round panicked") {
                (_, Ok(summary), took) => println!("  {summary}; {:.1} s", took.as_secs_f64()),
                (seed, Err(wrong), _) => {
                    println!("  FAILED {wrong}");
                    failed.push(seed);
                }
            }
        }
    });
    println!("{rounds} rounds in {:.0} s, {} failed", began.elapsed().as_secs_f64(), failed.len());
    assert!(failed.is_empty(), "rounds of these seeds failed: {failed:?}");
}
