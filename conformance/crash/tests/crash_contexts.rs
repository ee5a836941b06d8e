//! Contexts, revisions and chunks over kills: a few rounds of `ACB_CRASH_ROUNDS`, from `ACB_CRASH_SEED` or by chance.

use acb_crash::{asked, contexts::play, seed};

/// Rounds when nobody says how many; as many as a fifth of what is asked of the message path.
const ROUNDS: u64 = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_revision_and_no_chunk_is_lost_when_the_server_is_killed_under_writers_watchers_and_uploads() {
    let rounds = asked("ACB_CRASH_ROUNDS").map_or(ROUNDS, |rounds| rounds.div_ceil(5));
    let first = seed();
    let mut resumed = 0;
    for seed in first..first + rounds {
        println!("round of seed {seed} (again: ACB_CRASH_SEED={seed} ACB_CRASH_ROUNDS=1)");
        let folder = tempfile::tempdir().unwrap();
        let found = play(seed, &folder.path().join("data")).await.unwrap();
        println!("  {found:?}");
        assert!(found.revisions > 0 && found.contents > 0 && found.uploads > 0 && found.orphans > 0, "{found:?}");
        resumed += found.resumed;
    }
    assert!(resumed > 0, "no kill met an upload: these rounds prove nothing of chunks");
}
