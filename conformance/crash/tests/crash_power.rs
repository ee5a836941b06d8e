//! Power cuts under contexts and uploads: `ACB_POWER_ROUNDS` rounds from `ACB_CRASH_SEED`, or by chance.

use acb_crash::{
    asked,
    power::{Syncs, play},
    seed,
};

/// Rounds when nobody says how many.
const ROUNDS: u64 = 8;
/// Rounds in which a disk that lies must be found out.
const ROUNDS_OF_LIES: u64 = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_revision_and_no_chunk_is_lost_when_the_power_goes_under_writers_watchers_and_uploads() {
    let (first, rounds) = (seed(), asked("ACB_POWER_ROUNDS").unwrap_or(ROUNDS));
    let mut resumed = 0;
    for seed in first..first + rounds {
        println!("round of seed {seed} (again: ACB_CRASH_SEED={seed} ACB_POWER_ROUNDS=1)");
        let found = play(seed, Syncs::Kept).await.unwrap();
        println!("  {found:?}");
        assert!(found.revisions > 0 && found.contents > 0 && found.uploads > 0 && found.orphans > 0, "{found:?}");
        resumed += found.resumed;
    }
    assert!(resumed > 0, "no cut met an upload: these rounds prove nothing of chunks");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_sync_is_found_out() {
    let first = seed();
    for seed in first..first + ROUNDS_OF_LIES {
        if let Err(found) = play(seed, Syncs::Lost).await {
            println!("seed {seed}: {found:#}");
            return;
        }
    }
    panic!("{ROUNDS_OF_LIES} rounds from seed {first} saw nothing");
}
