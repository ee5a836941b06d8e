//! Compare-and-set over kills: 32 agents add one 1,000 times each, and none is lost or counted twice.
//! `ACB_CRASH_INCREMENTS` makes it another number for each agent, `ACB_CRASH_SEED` chooses the moments.

use acb_crash::{
    asked,
    counter::{Plan, count},
    seed,
};

const AGENTS: u64 = 32;
/// Increments of each agent.
const INCREMENTS: u64 = 1000;
const KILLS: u64 = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_that_count_by_compare_and_set_lose_and_double_nothing_when_the_server_is_killed() {
    let increments = asked("ACB_CRASH_INCREMENTS").unwrap_or(INCREMENTS);
    let seed = seed();
    println!("again: ACB_CRASH_SEED={seed} ACB_CRASH_INCREMENTS={increments}");
    let folder = tempfile::tempdir().unwrap();
    let plan = Plan { agents: AGENTS, increments, kills: KILLS, seed };
    let counted = count(plan, &folder.path().join("data")).await.unwrap();
    println!("{counted:?}, {:.0} increments/s", counted.sum as f64 / counted.took.as_secs_f64());
    assert_eq!(counted.sum, AGENTS * increments);
    assert!(counted.open_at_kills > 0, "no kill met a write: {counted:?}");
}
