//! Temporary.
#![allow(
    clippy::all,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    missing_docs,
    reason = "temporary"
)]
use acb_sdk::*;
use std::time::{Duration, Instant};

#[global_allocator]
static A: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn cpu(pid: &str) -> f64 {
    let mut total = 0.0;
    for e in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let s = std::fs::read_to_string(e.unwrap().path().join("schedstat")).unwrap_or_default();
        total += s.split_whitespace().next().and_then(|x| x.parse::<f64>().ok()).unwrap_or(0.0) / 1e9;
    }
    total
}

async fn run() {
    let a: Vec<String> = std::env::args().collect();
    let (mode, port, pid, win, secs) =
        (a[1].as_str(), &a[2], &a[3], a[4].parse::<u32>().unwrap(), a[5].parse::<f64>().unwrap());
    let cap: u32 = std::env::var("CAP").ok().and_then(|x| x.parse().ok()).unwrap_or(128);
    let size: usize = std::env::var("SIZE").ok().and_then(|x| x.parse().ok()).unwrap_or(256);
    let credits: u32 = std::env::var("CREDITS").ok().and_then(|x| x.parse().ok()).unwrap_or(1000);
    let client = |agent: &'static str| {
        Client::builder(format!("acb://127.0.0.1:{port}"))
            .credentials(Credentials::dev("default", agent))
            .publish_window(win, 64 << 20)
            .frame_messages_max(cap)
            .connect()
    };
    let payload = vec![7u8; size];
    let (count, el, s0, c0);
    match mode {
        "pub" => {
            let c = client("p").await.unwrap();
            let p = c.messages().publisher("b.1").durability(Durability::Written).build().unwrap();
            p.publish("warm").await.unwrap().await.unwrap();
            (s0, c0) = (cpu(pid), cpu("self"));
            let t = Instant::now();
            let (tx, mut rx) = tokio::sync::mpsc::channel::<Receipt>(win as usize);
            let j = tokio::spawn(async move {
                let mut n = 0u64;
                while let Some(r) = rx.recv().await {
                    r.await.unwrap();
                    n += 1
                }
                n
            });
            let mut i = 0u64;
            while i % 64 != 0 || t.elapsed().as_secs_f64() < secs {
                tx.send(p.publish(&payload).await.unwrap()).await.unwrap();
                i += 1
            }
            drop(tx);
            count = j.await.unwrap();
            el = t.elapsed();
        }
        "lean" => {
            let c = client("p").await.unwrap();
            let p = c.messages().publisher("b.1").durability(Durability::Written).build().unwrap();
            p.publish("warm").await.unwrap().await.unwrap();
            (s0, c0) = (cpu(pid), cpu("self"));
            let t = Instant::now();
            let mut i = 0u64;
            while i % 64 != 0 || t.elapsed().as_secs_f64() < secs {
                drop(p.publish(&payload).await.unwrap());
                i += 1
            }
            c.messages().flush().await;
            count = i;
            el = t.elapsed();
        }
        "one" => {
            let mut cs = vec![];
            for _ in 0..win {
                let c = Client::builder(format!("acb://127.0.0.1:{port}"))
                    .credentials(Credentials::dev("default", "p"))
                    .connect()
                    .await
                    .unwrap();
                let p = c.messages().publisher("b.1").durability(Durability::Written).build().unwrap();
                p.publish("w").await.unwrap().await.unwrap();
                cs.push((c, p))
            }
            (s0, c0) = (cpu(pid), cpu("self"));
            let t = Instant::now();
            let hs: Vec<_> = cs
                .into_iter()
                .map(|(c, p)| {
                    let payload = payload.clone();
                    tokio::spawn(async move {
                        let _c = c;
                        let mut n = 0u64;
                        while t.elapsed().as_secs_f64() < secs {
                            p.publish(&payload).await.unwrap().await.unwrap();
                            n += 1
                        }
                        n
                    })
                })
                .collect();
            let mut n = 0;
            for h in hs {
                n += h.await.unwrap()
            }
            count = n;
            el = t.elapsed();
        }
        "consume" => {
            let n: u64 = (secs * 1_000_000.0) as u64;
            let c = client("p").await.unwrap();
            let name = format!("s{}", std::process::id());
            c.subscriptions().create(SubscriptionSpec::new(&name).filter("b.>")).await.unwrap();
            let p = c.messages().publisher("b.1").durability(Durability::Written).build().unwrap();
            for _ in 0..n {
                drop(p.publish(&payload).await.unwrap())
            }
            c.messages().flush().await;
            (s0, c0) = (cpu(pid), cpu("self"));
            let t = Instant::now();
            let mut s = c.subscribe(&name).credits(credits).await.unwrap();
            let mut bytes = 0;
            for _ in 0..n {
                let m = s.next().await.unwrap().unwrap();
                bytes += m.payload_ref().len();
                m.ack().unwrap()
            }
            assert_eq!(bytes as u64, n * size as u64);
            count = n;
            el = t.elapsed();
        }
        "live" => {
            let (cp, cs) = (client("p").await.unwrap(), client("s").await.unwrap());
            let name = format!("l{}", std::process::id());
            cs.subscriptions().create(SubscriptionSpec::new(&name).filter("b.>")).await.unwrap();
            let mut s = cs.subscribe(&name).credits(credits).await.unwrap();
            let sem = std::sync::Arc::new(tokio::sync::Semaphore::new(win as usize));
            let sem2 = sem.clone();
            let p = cp.messages().publisher("b.1").durability(Durability::Written).build().unwrap();
            let j = tokio::spawn(async move {
                let mut owed = 0;
                let mut n = 0u64;
                loop {
                    let m = s.next().await.unwrap().unwrap();
                    m.ack().unwrap();
                    n += 1;
                    owed += 1;
                    if owed == 16 {
                        sem2.add_permits(16);
                        owed = 0
                    }
                    if m.payload_ref() == b"END" {
                        return n;
                    }
                }
            });
            (s0, c0) = (cpu(pid), cpu("self"));
            let t = Instant::now();
            let mut i = 0u64;
            while i % 64 != 0 || t.elapsed().as_secs_f64() < secs {
                sem.acquire().await.unwrap().forget();
                drop(p.publish(&payload).await.unwrap());
                i += 1
            }
            drop(p.publish("END").await.unwrap());
            count = j.await.unwrap();
            el = t.elapsed();
        }
        "req" => {
            let c = client("worker").await.unwrap();
            c.agents().register("worker").await.unwrap();
            let inbox = c.inbox().credits(credits).await.unwrap();
            tokio::spawn(async move {
                let _c = c;
                inbox
                    .for_each(64, |m| async move {
                        drop(m.reply(m.payload())?.send().await?);
                        Ok::<_, Error>(())
                    })
                    .await
            });
            let mut cs = vec![];
            for i in 0..win {
                let id: &'static str = format!("q{i}").leak();
                let c = client(id).await.unwrap();
                c.agents().register(id).await.unwrap();
                c.messages().request("worker", "w").await.unwrap();
                cs.push(c)
            }
            (s0, c0) = (cpu(pid), cpu("self"));
            let t = Instant::now();
            let hs: Vec<_> = cs
                .into_iter()
                .map(|c| {
                    let payload = payload.clone();
                    tokio::spawn(async move {
                        let mut n = 0u64;
                        while t.elapsed().as_secs_f64() < secs {
                            c.messages().request("worker", payload.clone()).await.unwrap();
                            n += 1
                        }
                        n
                    })
                })
                .collect();
            let mut n = 0;
            for h in hs {
                n += h.await.unwrap()
            }
            count = n;
            el = t.elapsed();
        }
        _ => panic!(),
    }
    let (s1, c1) = (cpu(pid), cpu("self"));
    println!(
        "{mode} win={win} size={size} cap={cap}: {:.0}/s server {:.2} us client {:.2} us",
        count as f64 / el.as_secs_f64(),
        1e6 * (s1 - s0) / count as f64,
        1e6 * (c1 - c0) / count as f64
    );
    let _ = Duration::ZERO;
    std::process::exit(0);
}
fn main() {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async { tokio::spawn(run()).await.unwrap() });
}
