//! How fast the metadata store is on this machine's disk; the table of ADR 0005.
//!
//! `cargo run --release -p acb-store-embedded --example metadata_rate [folder]`
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a measurement")]

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use acb_ports::{
    MetadataStore,
    metadata::{AgentCapability, AgentFilter, AgentSpec, Registration},
};
use acb_store_embedded::{SqliteConfig, SqliteMetadata};
use acb_types::{TenantId, Timestamp};

const SPAN: Duration = Duration::from_secs(2);

type Store = Arc<SqliteMetadata>;

/// Lets some callers call one after the other for a while, and prints a row.
async fn measure<F: Future<Output = ()> + Send>(
    name: &str,
    store: &Store,
    callers: usize,
    call: impl Fn(Store, u64) -> F + Clone + Send + 'static,
) {
    let next = Arc::new(AtomicU64::new(0));
    let commits = store.counts().commits();
    let begun = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (store, next, call) = (Arc::clone(store), Arc::clone(&next), call.clone());
            tokio::spawn(async move {
                let mut took = Vec::new();
                while begun.elapsed() < SPAN {
                    let at = Instant::now();
                    call(Arc::clone(&store), next.fetch_add(1, Ordering::Relaxed)).await;
                    took.push(at.elapsed());
                }
                took
            })
        })
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await.unwrap());
    }
    let seconds = begun.elapsed().as_secs_f64();
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    let commits = store.counts().commits() - commits;
    println!(
        "| {name} | {callers} | {:.0} | {:.0} | {:.2} | {:.2} |",
        took.len() as f64 / seconds,
        commits as f64 / seconds,
        at(0.5),
        at(0.99)
    );
}

fn tenant() -> TenantId {
    "default".parse().unwrap()
}

fn registration(n: u64) -> Registration {
    let mut spec = AgentSpec::new(format!("worker-{n}").parse().unwrap());
    spec.agent_type = "worker".into();
    spec.name = format!("Worker {n}");
    let capability = if n.is_multiple_of(100) { "rare.skill" } else { "files.hash" };
    spec.capabilities = vec![AgentCapability::named(capability.parse().unwrap())];
    spec.metadata = [("gpu".to_owned(), "no".to_owned())].into();
    Registration::new(spec, "key:1".parse().unwrap(), Timestamp(1))
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() {
    let parent = std::env::args().nth(1).unwrap_or_else(|| ".".into());
    let folder = tempfile::tempdir_in(parent).unwrap();
    let store: Store = Arc::new(SqliteMetadata::open(&SqliteConfig::new(folder.path().join("m.sqlite"))).unwrap());
    store.tenant_create(&tenant(), "", Timestamp(1)).await.unwrap();
    println!("| what | callers | per second | commits per second | p50 ms | p99 ms |\n|---|---|---|---|---|---|");
    for callers in [1, 16, 64, 256] {
        let put =
            |store: Store, n: u64| async move { store.setting_put(&format!("k{}", n % 1000), "v").await.unwrap() };
        measure("put a setting", &store, callers, put).await;
    }
    for callers in [1, 16, 64, 256] {
        let base = callers as u64 * 10_000_000;
        let register = move |store: Store, n: u64| async move {
            store.agent_register(&tenant(), registration(base + n)).await.unwrap();
        };
        measure("register a new agent", &store, callers, register).await;
    }
    let again = |store: Store, n: u64| async move {
        store.agent_register(&tenant(), registration(10_000_000 + n % 500)).await.unwrap();
    };
    measure("register again", &store, 64, again).await;
    for callers in [1, 16] {
        let get = |store: Store, n: u64| async move {
            store.agent_get(&tenant(), &format!("worker-{}", 10_000_000 + n % 500).parse().unwrap()).await.unwrap();
        };
        measure("get an agent", &store, callers, get).await;
    }
    let agents = store.tenant_revision(&tenant()).await.unwrap();
    let find = |store: Store, _| async move {
        let wanted = AgentFilter { capabilities_all: vec!["rare.skill".parse().unwrap()], ..AgentFilter::default() };
        store.agent_list(&tenant(), &wanted, None, 50).await.unwrap();
    };
    measure("discover 50 of the 1 % with a skill", &store, 1, find).await;
    store.close().await.unwrap();
    println!("\n{agents} registrations were made in all");
}
