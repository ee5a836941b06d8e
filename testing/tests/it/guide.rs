//! What the guide to testing shows, as it stands there.

use std::time::Duration;

use acb_testing::FakeBus;

#[tokio::test]
async fn a_job_that_nobody_settles_is_tried_again() {
    let bus = FakeBus::start().await.unwrap();
    let worker = bus.client("worker").connect().await.unwrap();
    worker.agents().register("worker").await.unwrap();
    let mut inbox = worker.inbox().await.unwrap();
    let planner = bus.client("planner").connect().await.unwrap();
    planner.messages().send("worker", "count me").confirm().await.unwrap();
    assert_eq!(inbox.next().await.unwrap().unwrap().attempt(), 1);
    bus.advance(Duration::from_secs(30)).unwrap(); // the lease ends
    bus.advance(Duration::from_secs(1)).unwrap(); // and its wait for the next attempt
    assert_eq!(inbox.next().await.unwrap().unwrap().attempt(), 2);
}
