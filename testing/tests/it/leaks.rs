//! A thousand buses in one process leave nothing behind.

use std::{fs, time::Duration};

use acb_testing::FakeBus;

/// A line of this process's status, as a number.
fn status(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

async fn live(number: usize) {
    let bus = FakeBus::start().await.unwrap();
    let bob = bus.client("bob").connect().await.unwrap();
    bob.agents().register("bob").await.unwrap();
    let mut inbox = bob.inbox().await.unwrap();
    bob.messages().send("bob", vec![b'x'; 10_000]).confirm().await.unwrap();
    inbox.next().await.unwrap().unwrap();
    // Every kind of end: in order, as killed, started again, dropped with its clients still there.
    match number % 4 {
        0 => bus.stop().await,
        1 => bus.kill().await,
        2 => bus.restart().await.unwrap(),
        _ => {}
    }
    drop(bus);
    bob.close().await;
}

#[tokio::test]
async fn a_thousand_buses_leave_no_thread_no_file_and_no_memory() {
    // What is made once (tables, caches of the allocator) is there after these.
    for number in 0..100 {
        live(number).await;
    }
    let (threads, files, memory) = (status("Threads:"), open_files(), status("VmRSS:"));
    let began = std::time::Instant::now();
    for number in 0..1000 {
        live(number).await;
    }
    let took = began.elapsed();
    let grown = status("VmRSS:").saturating_sub(memory);
    println!("1,000 buses, each with a client and a message: {took:?}, {grown} KiB more");
    assert_eq!((status("Threads:"), open_files()), (threads, files));
    // What a bus keeps of its tenants alone is 15 KiB: one that is not let go of shows.
    assert!(grown < 4 * 1024, "{grown} KiB more after 1,000 buses");
    assert!(took < Duration::from_secs(100), "{took:?}");
}
