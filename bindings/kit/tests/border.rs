//! The border under load, against the real server: how often a guest is woken, how many threads there are, and what
//! cancelling costs.

#![allow(missing_docs, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test owns its tasks")]

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use acb_kit::{Completion, Feed, Outcome, Port, Runtime, Submitted, Taken, Token, WakeFd};
use acb_sdk::{Client, Credentials, Durability, Error, ErrorCode};
use acb_testkit::ServerOptions;
use anyhow::{Context as _, Result, bail};

const PATIENCE: Duration = Duration::from_secs(30);

/// A guest with one thread: what an event loop is to the kit.
struct Guest<T: Send + 'static> {
    port: Port<T>,
    wake: WakeFd,
    done: HashMap<Token, Outcome<T>>,
    seen: HashSet<Token>,
}

impl<T: Send + 'static> Guest<T> {
    fn new() -> Result<Self> {
        let wake = WakeFd::new()?;
        Ok(Self { port: Port::new(wake.clone())?, wake, done: HashMap::new(), seen: HashSet::new() })
    }

    /// Sleeps until it is woken, then drains.
    #[expect(unsafe_code, reason = "poll(2) is what event loops stand on")]
    fn turn(&mut self) -> Result<()> {
        let mut one = libc::pollfd { fd: self.wake.fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry is given and lives through the call.
        let ready = unsafe { libc::poll(&raw mut one, 1, PATIENCE.as_millis() as i32) };
        if ready != 1 {
            bail!("not woken within {PATIENCE:?}");
        }
        self.wake.clear();
        let mut batch = Vec::new();
        while self.port.drain(&mut batch, 64) {}
        for Completion { token, outcome } in batch {
            assert!(self.seen.insert(token), "two completions of {token:?}");
            self.done.insert(token, outcome);
        }
        Ok(())
    }

    fn finish(&mut self, submitted: Submitted<T>) -> Result<T> {
        let token = match submitted {
            Submitted::Now(result) => return Ok(result?),
            Submitted::Later(token) => token,
        };
        loop {
            match self.done.remove(&token) {
                Some(Outcome::Done(value)) => return Ok(value),
                Some(Outcome::Failed(error)) => return Err(error.into()),
                Some(Outcome::Cancelled) => bail!("cancelled"),
                None => self.turn()?,
            }
        }
    }
}

fn threads() -> Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

async fn client(address: std::net::SocketAddr, agent: &str) -> Result<Client, Error> {
    let credentials = Credentials::dev("default", agent);
    Client::builder(format!("acb://{address}")).credentials(credentials).credits(1024, 8 << 20).connect().await
}

#[test]
fn a_busy_guest_is_woken_seldom_and_threads_stay_as_many_as_they_are() -> Result<()> {
    const MESSAGES: usize = 20_000;
    let own = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let server = own.block_on(ServerOptions::default().start())?;
    let address = server.address();

    let mut connect = Guest::new()?;
    let submitted = connect.port.submit("connect", async move { client(address, "guest").await })?;
    let bus = connect.finish(submitted)?;
    let opened = connect.port.submit("idle", {
        let bus = bus.clone();
        async move {
            bus.health().await?;
            Ok(bus)
        }
    })?;
    connect.finish(opened)?;

    // One completion for each message: the hardest way of publishing for a border.
    let mut guest: Guest<()> = Guest::new()?;
    let publisher = bus.messages().publisher("load.x").durability(Durability::Written).build()?;
    let subscription = {
        let bus = bus.clone();
        let opened = connect.port.submit("subscribe", async move {
            let feed = bus.listen(["load.>"]).open().await?;
            FEED.lock().replace(Feed::new(feed));
            Ok(bus)
        })?;
        connect.finish(opened)?;
        FEED.lock().take().context("the subscription")?
    };
    let threads_before = threads()?;
    let (mut sent, mut got, mut in_flight) = (0, 0, 0_usize);
    let mut reading = None;
    let mut batch = Vec::new();
    let started = Instant::now();
    while got < MESSAGES || in_flight > 0 || reading.is_some() {
        assert!(started.elapsed() < PATIENCE, "{got} of {MESSAGES} within {PATIENCE:?}");
        while sent < MESSAGES && in_flight < 512 {
            let publisher = publisher.clone();
            let submitted = guest.port.submit("publish", async move {
                publisher.publish([b'x'; 256]).await?.await?;
                Ok(())
            })?;
            sent += 1;
            in_flight += usize::from(matches!(submitted, Submitted::Later(_)));
        }
        loop {
            match subscription.take(&mut batch, 256, 1 << 20) {
                Taken::Some => {
                    got += batch.len();
                    for message in batch.drain(..) {
                        message.ack()?;
                    }
                }
                Taken::Empty => break,
                Taken::Failed(error) => return Err(error.into()),
                Taken::Over => bail!("the subscription is over"),
            }
        }
        if reading.is_none_or(|token| guest.done.remove(&token).is_some()) {
            reading = None;
            if got == MESSAGES && in_flight == 0 {
                break;
            }
        }
        if reading.is_none() && got < MESSAGES {
            match guest.port.submit("ready", subscription.ready())? {
                Submitted::Now(result) => {
                    result?;
                    continue;
                }
                Submitted::Later(token) => reading = Some(token),
            }
        }
        guest.turn().with_context(|| {
            let (reading, port) = (reading.is_some(), &guest.port);
            format!("{got} of {sent} came, {in_flight} on their way, reading: {reading}, {port:?}, {:?}", port.stats())
        })?;
        let wait = reading;
        in_flight -= guest.done.keys().filter(|t| Some(**t) != wait).count();
        let ready = wait.and_then(|t| guest.done.remove(&t).map(|o| (t, o)));
        for (_, outcome) in guest.done.drain() {
            assert!(matches!(outcome, Outcome::Done(())), "{outcome:?}");
        }
        guest.done.extend(ready);
    }
    let stats = guest.port.stats();
    let per_thousand = stats.wakes as f64 * 1000.0 / MESSAGES as f64;
    println!("{per_thousand:.1} wakes per 1,000 messages published and received; {stats:?}");
    assert!(per_thousand <= 20.0, "{per_thousand} wakes per 1,000 messages: {stats:?}");
    // Where the window had room a publish is done when it is submitted, and nobody is woken for it.
    assert!(stats.completed + stats.at_once >= MESSAGES as u64, "every message was a completion: {stats:?}");
    assert_eq!(threads()?, threads_before, "threads under load");

    // Giving up: each token is completed once, whichever is quicker, and none stays.
    let mut tokens = Vec::new();
    for number in 0..2000_u64 {
        let submitted = guest.port.submit("sleep", async move {
            tokio::time::sleep(Duration::from_micros(number % 700)).await;
            Ok(())
        })?;
        if let Submitted::Later(token) = submitted {
            tokens.push(token);
            if number % 2 == 0 {
                guest.port.cancel(token);
            }
        }
    }
    while tokens.iter().any(|t| !guest.seen.contains(t)) {
        guest.turn()?;
    }
    assert_eq!(guest.port.stats().in_flight, 0);
    assert!(!guest.port.cancel(tokens[0]), "a token whose completion came is stale");

    // A panic of ours is an error of its call, at once or later.
    for later in [false, true] {
        let submitted = guest.port.submit("panic", async move {
            if later {
                tokio::task::yield_now().await;
            }
            panic!("planted")
        })?;
        let error = match submitted {
            Submitted::Now(result) => result.err().context("it panicked")?,
            Submitted::Later(token) => loop {
                match guest.done.remove(&token) {
                    Some(Outcome::Failed(error)) => break error,
                    Some(other) => bail!("{other:?}"),
                    None => guest.turn()?,
                }
            },
        };
        assert_eq!(error.code(), ErrorCode::Internal);
        assert!(error.message().contains("planted"), "{error}");
    }

    // Giving up a wait for messages loses none of them.
    let submitted = guest.port.submit("ready", subscription.ready())?;
    let Submitted::Later(token) = submitted else { bail!("a message that nobody sent") };
    let publish = publisher.clone();
    let stored = guest.port.submit("publish", async move { publish.publish(b"last").await?.await.map(drop) })?;
    guest.port.cancel(token);
    guest.finish(stored)?;
    let submitted = guest.port.submit("ready", subscription.ready())?;
    guest.finish(submitted)?;
    assert!(matches!(subscription.take(&mut batch, 10, 1 << 20), Taken::Some));
    assert_eq!(batch.iter().map(acb_sdk::Message::payload).collect::<Vec<_>>(), [&b"last"[..]]);
    batch.clear();

    // The end: what was on its way is completed, nothing starts any more.
    let submitted = guest.port.submit("for ever", std::future::pending())?;
    let Submitted::Later(token) = submitted else { bail!("it ended") };
    subscription.close();
    drop((publisher, bus));
    Runtime::get()?.end(Duration::from_secs(5));
    while !guest.done.contains_key(&token) {
        guest.turn()?;
    }
    assert!(matches!(&guest.done[&token], Outcome::Failed(e) if e.code() == ErrorCode::ClientClosed));
    let late = guest.port.submit("late", async { Ok(()) });
    assert!(late.is_err_and(|e| e.code() == ErrorCode::ClientClosed));
    drop(server);
    Ok(())
}

/// The feed on its way from the task that opened it: ports are of one type of result.
static FEED: parking_lot::Mutex<Option<Feed>> = parking_lot::Mutex::new(None);
