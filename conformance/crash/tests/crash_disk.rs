//! A disk that is full or read-only under the real server: typed refusals, nothing half done, reads go on, and it heals
//! by itself.

use std::{collections::HashSet, time::Duration};

use acb_crash::{
    check::{check, told},
    disk::{Failing, SmallDisk},
    history::{Event, How, Level, Place, Recorder},
    round::read_logs,
};
use acb_proto::v1;
use acb_sdk::{Client, Credentials, RetryPolicy, StartAt, Subscription, SubscriptionSpec};
use acb_testkit::{
    Server, ServerOptions,
    raw::{Failure, Identity, Outcome, PublishSession, RawClient},
    wait::{Level as Reached, wait_until, within},
};

/// Size of the small disk: the server's first files, and segments of 1, 2, 4, 8, 16 and 32 MiB.
const DISK_BYTES: u64 = 80 << 20;
/// What is taken of it, to be given back when it is to heal: the segment of 8 MiB has no room then.
const TAKEN_BYTES: u64 = 66 << 20;
/// Size of a payload.
const PAYLOAD_BYTES: usize = 16 * 1024;
/// Messages after which a disk that still takes them is no small one.
const MESSAGES_MAX: usize = 4000;
/// Refusals that are looked at.
const REFUSALS: usize = 12;
/// Longest until a healed disk is used again.
const HEALS_WITHIN: Duration = Duration::from_secs(20);
/// Longest until what is stored has been delivered.
const DELIVERED_WITHIN: Duration = Duration::from_secs(20);
const TOPIC: &str = "disk.a";
const SUBSCRIPTION: &str = "reader";

/// A publisher without any patience, and a reader, on a server whose disk gives out.
struct Bed {
    server: Server,
    history: Recorder,
    client: Client,
    session: PublishSession,
    reader: Subscription,
    published: u64,
    delivered: u64,
    stored: HashSet<String>,
    got: HashSet<String>,
}

impl Bed {
    async fn new(options: ServerOptions) -> Self {
        let history = Recorder::default();
        history.add(Event::Started { life: 1 });
        let server = options.real_clock().arg("--set").arg("delivery.retain_every=1h").start().await.unwrap();
        let client = Client::builder(format!("acb://{}", server.address()))
            .credentials(Credentials::dev("default", "keeper"))
            .reconnect(RetryPolicy::default().max(Duration::from_millis(100)))
            .publish_timeout(Duration::from_mins(2))
            .connect()
            .await
            .unwrap();
        let spec = SubscriptionSpec::new(SUBSCRIPTION).filter("disk.>").start_at(StartAt::All);
        client.subscriptions().create(spec).await.unwrap();
        history.add(Event::Subscribed {
            subscription: SUBSCRIPTION.into(),
            class: 1,
            filters: vec!["disk.>".into()],
            start_seq: 1,
            ack_wait_ms: 30_000,
            max_attempts: 5,
            alone: true,
        });
        let reader = client.subscribe(SUBSCRIPTION).await.unwrap();
        let session = open(&server, 1).await;
        let (stored, got) = (HashSet::new(), HashSet::new());
        Self { server, history, client, session, reader, published: 0, delivered: 0, stored, got }
    }

    /// Publishes one message at a level, once.
    async fn publish(&mut self, level: Level) -> Result<(), Failure> {
        let n = self.published;
        self.published += 1;
        let body = format!("raw#{n}");
        self.begin("raw", n, level, &body);
        let payload = format!("{body} {}", "x".repeat(PAYLOAD_BYTES));
        let message = v1::Message { topic: TOPIC.into(), payload: payload.into(), ..Default::default() };
        let durability = if level == Level::Synced { v1::Durability::Synced } else { v1::Durability::Written };
        let outcome = self.session.publish(vec![message], durability).await.unwrap().remove(0);
        let producer = "raw".to_owned();
        match outcome {
            Outcome::Stored(stored) => {
                let place = Place { class: stored.class as u8, epoch: stored.epoch, seq: stored.seq };
                self.history.add(Event::Published { producer, n, place, level, duplicate: stored.duplicate });
                self.stored.insert(body);
                Ok(())
            }
            Outcome::Refused(why) => {
                self.history.add(Event::Refused { producer, n, code: why.code.clone() });
                Err(why)
            }
        }
    }

    fn begin(&self, producer: &str, n: u64, level: Level, body: &str) {
        let (producer, topic, body) = (producer.to_owned(), TOPIC.to_owned(), body.to_owned());
        self.history.add(Event::Publish { producer, n, topic, level, key: None, body });
    }

    /// Publishes until the disk gives out, then some more: every refusal says why.
    async fn until_refused(&mut self, code: &str) {
        let mut taken = 0;
        let first = loop {
            match self.publish(Level::Synced).await {
                Ok(()) => taken += 1,
                Err(why) => break why,
            }
            assert!(taken < MESSAGES_MAX, "the disk takes everything");
        };
        assert_eq!(first.code, code, "after {taken} messages: {first}");
        assert!(first.retryable, "{first}");
        for i in 0..REFUSALS {
            let level = if i % 2 == 0 { Level::Written } else { Level::Synced };
            let why = self.publish(level).await.expect_err("the disk has not healed");
            assert_eq!(why.code, code, "{why}");
        }
        println!("{taken} messages were taken before {code}");
    }

    /// Reads until everything that was stored is here.
    async fn read_all(&mut self, when: &str) {
        while self.got.len() < self.stored.len() {
            let what = format!("{} of {} messages {when}", self.got.len(), self.stored.len());
            let message = within(&what, DELIVERED_WITHIN, self.reader.next()).await.unwrap().unwrap().unwrap();
            let (delivery, place) = (self.delivered, Place::from(message.id()));
            self.delivered += 1;
            let body = String::from_utf8_lossy(message.payload_ref()).split(' ').next().unwrap_or_default().to_owned();
            let (subscription, consumer) = (SUBSCRIPTION.to_owned(), "keeper".to_owned());
            self.history.add(Event::Delivered {
                subscription: subscription.clone(),
                consumer: consumer.clone(),
                delivery,
                place,
                topic: message.topic().to_owned(),
                attempt: message.attempt(),
                body: body.clone(),
            });
            assert!(self.stored.contains(&body), "{body} was never acknowledged");
            self.got.insert(body);
            self.history.add(Event::Settle { subscription, consumer, delivery, place, how: How::Ack });
            message.ack().unwrap();
        }
    }

    /// The same server answers questions and delivers.
    async fn reads_go_on(&mut self) {
        assert!(self.server.admin().is_ready().await, "a server that can read is ready");
        self.client.subscriptions().get(SUBSCRIPTION).await.unwrap();
        self.read_all("while the disk refuses").await;
    }

    /// Takes messages again, without a restart.
    async fn heals(&mut self) {
        let began = std::time::Instant::now();
        let mut tries = tokio::time::interval(Duration::from_millis(20));
        while let Err(why) = self.publish(Level::Synced).await {
            assert!(began.elapsed() < HEALS_WITHIN, "not healed within {HEALS_WITHIN:?}: {why}");
            tries.tick().await;
        }
        println!("healed after {:?}", began.elapsed());
        for _ in 0..20 {
            self.publish(Level::Written).await.unwrap();
            self.publish(Level::Synced).await.unwrap();
        }
        self.read_all("after it healed").await;
    }

    /// What the Rust core does meanwhile: it goes on trying, and the message is stored when there is room.
    fn patient(&mut self, n: u64) -> tokio::task::JoinHandle<acb_sdk::Result<acb_sdk::Published>> {
        let body = format!("core#{n}");
        self.begin("core", n, Level::Synced, &body);
        let payload = format!("{body} {}", "x".repeat(PAYLOAD_BYTES));
        let publish = self.client.messages().publish(TOPIC, payload);
        self.stored.insert(body);
        tokio::spawn(publish.durability(acb_sdk::Durability::Synced).confirm())
    }

    async fn patience_pays(&mut self, n: u64, waiting: tokio::task::JoinHandle<acb_sdk::Result<acb_sdk::Published>>) {
        let stored = within("the core's publish", HEALS_WITHIN, waiting).await.unwrap().unwrap().unwrap();
        let (producer, place, duplicate) = ("core".to_owned(), Place::from(stored.id), stored.duplicate);
        self.history.add(Event::Published { producer, n, place, level: Level::Synced, duplicate });
    }

    /// Started again on the same folder.
    async fn restarted(&mut self, life: u32) -> anyhow::Result<()> {
        self.history.add(Event::Started { life });
        self.server.restart().await?;
        self.session = open(&self.server, life).await;
        Ok(())
    }

    /// Everything acknowledged is there once, nothing refused is.
    async fn judged(mut self) {
        drop(self.reader);
        self.client.drain().await.unwrap();
        assert!(self.server.stop().await.unwrap().success());
        read_logs(&self.history, self.server.data_dir()).unwrap();
        let wrong = check(&self.history.entries());
        assert!(wrong.is_empty(), "\n{}", told(&wrong));
    }
}

async fn open(server: &Server, epoch: u32) -> PublishSession {
    let client = RawClient::connect(server.address(), &Identity::dev("default", "raw")).await.unwrap();
    PublishSession::open(&client, [9; 16], epoch, 0).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_whole_publishes_reads_go_on_it_heals_and_a_restart_on_it_loses_nothing() {
    let disk = match SmallDisk::mount(DISK_BYTES) {
        Ok(disk) => disk,
        Err(why) => {
            println!("mounting is not allowed here ({why:#}): the disk is filled by failing its calls instead");
            return gives_out_while_it_runs("ENOSPC", "storage_full").await;
        }
    };
    let mut bed = Bed::new(ServerOptions::default().data_dir(disk.data())).await;
    disk.take(Some(TAKEN_BYTES)).unwrap();
    bed.until_refused("storage_full").await;
    let waiting = bed.patient(0);
    bed.stored.remove("core#0");
    bed.reads_go_on().await;
    bed.stored.insert("core#0".into());
    disk.give_back().unwrap();
    bed.patience_pays(0, waiting).await;
    bed.heals().await;

    // To the last byte, and killed there.
    disk.take(None).unwrap();
    bed.until_refused("storage_full").await;
    // What waits in the client when its server dies would be told as if the next server had sent it.
    bed.read_all("before the kill").await;
    bed.server.kill().await.unwrap();
    match bed.restarted(2).await {
        Ok(()) => {
            println!("started on the full disk");
            bed.reads_go_on().await;
            disk.give_back().unwrap();
        }
        Err(why) => {
            let why = format!("{why:#}");
            println!("did not start on the full disk: {why}");
            assert!(why.contains("storage_full") || why.contains("No space left"), "no clear sentence: {why}");
            disk.give_back().unwrap();
            bed.restarted(3).await.unwrap();
        }
    }
    bed.heals().await;
    bed.judged().await;
}

/// A disk that gives out under a running server and comes back.
async fn gives_out_while_it_runs(error: &str, code: &str) {
    let mut bed = Bed::new(ServerOptions::default()).await;
    for _ in 0..20 {
        bed.publish(Level::Synced).await.unwrap();
    }
    let failing = Failing::with(bed.server.pid().unwrap(), error).await.unwrap();
    bed.until_refused(code).await;
    let waiting = bed.patient(0);
    bed.stored.remove("core#0");
    bed.reads_go_on().await;
    bed.stored.insert("core#0".into());
    failing.heal().await.unwrap();
    bed.patience_pays(0, waiting).await;
    bed.heals().await;
    bed.judged().await;
}

/// What stands in for the small disk where mounting is not allowed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_whose_every_write_says_full_refuses_whole_publishes_reads_go_on_and_it_heals() {
    gives_out_while_it_runs("ENOSPC", "storage_full").await;
}

/// A mount cannot be made read-only while a file on it is open for writing, so here the calls fail as they would then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_becomes_read_only_refuses_whole_publishes_reads_go_on_and_it_heals() {
    gives_out_while_it_runs("EROFS", "storage_read_only").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_on_a_read_only_disk_serves_reads_or_says_why_not_and_loses_nothing() {
    let disk = match SmallDisk::mount(DISK_BYTES) {
        Ok(disk) => disk,
        Err(why) => {
            println!("not shown here, mounting is not allowed ({why:#}): see the log's own tests on the test disk");
            return;
        }
    };
    let mut bed = Bed::new(ServerOptions::default().data_dir(disk.data())).await;
    for _ in 0..50 {
        bed.publish(Level::Synced).await.unwrap();
    }
    bed.read_all("before the kill").await;
    bed.server.kill().await.unwrap();
    disk.remount("ro").unwrap();
    match bed.restarted(2).await {
        Ok(()) => {
            println!("started on the read-only disk");
            let why = bed.publish(Level::Synced).await.expect_err("nothing can be stored");
            assert_eq!(why.code, "storage_read_only", "{why}");
            bed.reads_go_on().await;
            disk.remount("rw").unwrap();
        }
        Err(why) => {
            let why = format!("{why:#}");
            println!("did not start on the read-only disk: {why}");
            assert!(why.contains("read-only") || why.contains("Read-only"), "no clear sentence: {why}");
            disk.remount("rw").unwrap();
            bed.restarted(3).await.unwrap();
        }
    }
    wait_until("the server to be ready", HEALS_WITHIN, || {
        let admin = bed.server.admin();
        async move { Reached::when(admin.is_ready().await, (), "not ready") }
    })
    .await
    .unwrap();
    bed.heals().await;
    bed.judged().await;
}
