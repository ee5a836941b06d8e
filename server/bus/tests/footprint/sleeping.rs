//! Messages that wait behind a subscriber which sleeps cost disk and no memory.

use std::time::Instant;

use acb_proto::v1;
use acb_testkit::raw::{ConsumeSession, Opening, PublishSession, answer};

use super::{asked, client, mib, options, resident};

/// How many messages, unless `ACB_FOOTPRINT_MESSAGES` says otherwise. Twenty seconds and 150 MiB of disk with a debug build,
/// on two cores that do other things as well.
const MESSAGES: u64 = 5_000_000;
/// Messages before memory is looked at: caches, pools and the allocator have what they keep by then.
const WARM_UP: u64 = 200_000;
/// What memory may grow by after that, however many messages come.
const GROWTH_MAX: u64 = 20 << 20;
/// Messages of a frame, and frames on their way.
const FRAME: u64 = 512;
const WINDOW: u64 = 16;
/// A look at memory after so many messages.
const LOOK_EVERY: u64 = 100_000;
/// What the sleeper took before it fell asleep.
const TAKEN: u32 = 64;
const TOPIC: &str = "sleep.on";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_behind_a_sleeping_subscriber_leave_memory_flat() {
    let messages = asked("ACB_FOOTPRINT_MESSAGES", MESSAGES);
    let server = options().start().await.unwrap();
    let bus = client(&server, "publisher").await;
    let spec = v1::SubscriptionSpec {
        name: "sleeper".to_owned(),
        filters: vec!["sleep.>".to_owned()],
        // It sleeps longer than the test runs.
        ack_wait_ms: 12 * 3_600_000,
        ..Default::default()
    };
    answer(bus.subscriptions().create_subscription(v1::CreateSubscriptionRequest { spec: Some(spec) })).await.unwrap();
    let opening = |session: u8, credit| Opening {
        subscription: "sleeper".to_owned(),
        session: [session; 16],
        credit_messages: credit,
        credit_bytes: 1 << 20,
        ..Default::default()
    };
    // It takes what it has credit for, and settles nothing from then on.
    let mut sleeper = ConsumeSession::open(&client(&server, "sleeper").await, &opening(1, TAKEN)).await.unwrap();
    let mut producer = PublishSession::open(&bus, [2; 16], 1, 0).await.unwrap();
    let frame: Vec<_> = (0..FRAME)
        .map(|_| v1::Message { topic: TOPIC.to_owned(), payload: "0123456789abcdef".into(), ..Default::default() })
        .collect();
    let started = Instant::now();
    let (mut sent, mut acked, mut next_look) = (0, 0, WARM_UP);
    let (mut base, mut most) = (None, 0);
    while acked < WARM_UP + messages {
        while sent < acked + WINDOW * FRAME {
            producer.send(frame.clone(), v1::Durability::Written).await.unwrap();
            sent += FRAME;
        }
        producer.read().await.unwrap();
        acked += producer.drain().len() as u64;
        if acked >= next_look {
            let now = resident(&server);
            let base = *base.get_or_insert(now);
            most = most.max(now.saturating_sub(base));
            next_look += LOOK_EVERY;
        }
    }
    while acked < sent {
        producer.read().await.unwrap();
        acked += producer.drain().len() as u64;
    }
    let took = started.elapsed();
    let disk = server.admin().metrics().await.unwrap().sum("acb_log_bytes", &["class=\"topics\""]) as u64;
    eprintln!(
        "{acked} messages in {took:.1?}; memory {:.1} MiB after {WARM_UP}, {:.1} MiB more at most; {:.0} MiB of log",
        mib(base.unwrap()),
        mib(most),
        mib(disk),
    );
    assert!(most <= GROWTH_MAX, "memory grew by {:.1} MiB", mib(most));
    // They do wait there: the sleeper has its share, and somebody else gets what comes behind it, in order.
    for seq in 1..=u64::from(TAKEN) {
        assert_eq!(sleeper.message().await.unwrap().seq, seq);
    }
    let get = v1::GetSubscriptionRequest { name: "sleeper".to_owned() };
    let row = answer(bus.subscriptions().get_subscription(get)).await.unwrap().subscription.unwrap();
    assert_eq!((row.floor_seq, row.leased, row.next_seq), (1, u64::from(TAKEN), acked + 1), "{row:?}");
    let mut awake = ConsumeSession::open(&client(&server, "awake").await, &opening(3, 1000)).await.unwrap();
    for seq in u64::from(TAKEN) + 1..u64::from(TAKEN) + 1000 {
        assert_eq!(awake.message().await.unwrap().seq, seq);
    }
}
