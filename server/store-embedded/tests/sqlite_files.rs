//! What becomes of the metadata store's files: after a kill, a power cut, an upgrade, and on a disk that is full.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use acb_ports::{
    MetadataStore,
    metadata::{
        AgentFilter, AgentSpec, Changed, ContentPlace, ContextChange, ContextFilter, ContextScope, ContextWrite,
        ListedAt, NewSubscription, Payloads, ROWS_MAX, Registration, RepeatKey, SubscriptionSpec, UploadStore as _,
        UploadTarget, Viewer, WriteCondition,
    },
};
use acb_store_embedded::{
    SqliteConfig, SqliteMetadata,
    sqlite::{Drill, MIGRATIONS},
};
use acb_types::{AgentId, ClassId, ErrorCode, Sha256Digest, TenantId, Timestamp, batch::StartAt, stream::StreamState};

const NOW: Timestamp = Timestamp(1_767_225_600_000);

fn tenant() -> TenantId {
    "a".parse().unwrap()
}

fn open(path: &Path) -> SqliteMetadata {
    SqliteMetadata::open(&SqliteConfig::new(path)).unwrap()
}

async fn register(store: &SqliteMetadata, id: &str) -> u64 {
    let id: AgentId = id.parse().unwrap();
    let registration = Registration::new(AgentSpec::new(id), "key:1".parse().unwrap(), NOW);
    store.agent_register(&tenant(), registration).await.unwrap().agent.revision
}

/// Asserts that what is there is what some prefix of the registrations left: no hole, nothing half done. Answers how
/// long the prefix is.
async fn check_prefix(store: &SqliteMetadata) -> u64 {
    let revision = store.tenant_revision(&tenant()).await.unwrap();
    let agents = store.agent_list(&tenant(), &AgentFilter::default(), None, ROWS_MAX).await.unwrap();
    let mut seen: Vec<_> = agents.iter().map(|row| row.revision).collect();
    seen.sort_unstable();
    assert_eq!(seen, (1..=revision).collect::<Vec<_>>());
    let subscriptions = store.subscription_list_all(&tenant()).await.unwrap();
    assert_eq!(subscriptions.len() as u64, 2 * revision, "every agent has both of its own");
    revision
}

/// The database's files as a kill of the process leaves them.
fn copy_files(from: &Path, to: &Path) -> PathBuf {
    for side in ["", "-wal"] {
        let name = format!("metadata.sqlite{side}");
        fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
    to.join("metadata.sqlite")
}

/// META-2: an open store's files hold all that was answered.
#[tokio::test]
async fn a_killed_store_has_all_that_was_answered() {
    let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(&folder.path().join("metadata.sqlite"));
    store.tenant_create(&tenant(), "", NOW).await.unwrap();
    for n in 0..20 {
        let revision = register(&store, &format!("w{n}")).await;
        let killed = open(&copy_files(folder.path(), copy.path()));
        assert_eq!(check_prefix(&killed).await, revision);
        killed.close().await.unwrap();
        // The copy's own side files are of no use to the next one.
        for file in fs::read_dir(copy.path()).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
    }
}

/// META-3: a write-ahead log that ends anywhere, in garbage or not, gives a state that was.
#[tokio::test]
async fn a_torn_write_ahead_log_gives_a_prefix_of_what_was_committed() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(open(&folder.path().join("metadata.sqlite")));
    store.tenant_create(&tenant(), "", NOW).await.unwrap();
    let schema_end = fs::metadata(folder.path().join("metadata.sqlite-wal")).unwrap().len() as usize;
    // One commit each, then commits of many.
    for n in 0..20 {
        register(&store, &format!("s{n}")).await;
    }
    let writers: Vec<_> = (0..8)
        .map(|w| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for n in 0..5 {
                    register(&store, &format!("w{w}-{n}")).await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let wal = fs::read(folder.path().join("metadata.sqlite-wal")).unwrap();
    let mut lengths = std::collections::BTreeSet::new();
    for cut in 0..60 {
        let copy = tempfile::tempdir().unwrap();
        let path = copy_files(folder.path(), copy.path());
        let at = schema_end + cut * (wal.len() - schema_end) / 60;
        let mut torn = wal[..at].to_vec();
        if cut % 3 == 0 {
            // The disk wrote later sectors first, or other bits than it was given.
            torn.extend(wal[at..].iter().map(|b| b ^ 0x10));
        }
        fs::write(copy.path().join("metadata.sqlite-wal"), torn).unwrap();
        let found = open(&path);
        lengths.insert(check_prefix(&found).await);
        found.close().await.unwrap();
    }
    assert!(lengths.len() > 10, "cuts fell between commits: {lengths:?}");
    assert_eq!(check_prefix(&store).await, 60);
}

/// META-2: whoever does not wait for the answer gets all or nothing.
#[tokio::test]
async fn a_dropped_call_happens_wholly_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(open(&folder.path().join("metadata.sqlite")));
    store.tenant_create(&tenant(), "", NOW).await.unwrap();
    for n in 0..100 {
        let store = Arc::clone(&store);
        let call = tokio::spawn(async move { register(&store, &format!("w{n}")).await });
        for _ in 0..n % 7 {
            tokio::task::yield_now().await;
        }
        call.abort();
    }
    store.close().await.unwrap();
    let store = open(&folder.path().join("metadata.sqlite"));
    let done = check_prefix(&store).await;
    assert!(done > 0, "a call that was begun goes on");
}

/// Many writes share a commit, and so a sync.
#[tokio::test]
async fn concurrent_writes_share_commits() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(open(&folder.path().join("metadata.sqlite")));
    store.tenant_create(&tenant(), "", NOW).await.unwrap();
    let (writes, commits) = (store.counts().writes(), store.counts().commits());
    let calls: Vec<_> = (0..400)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { register(&store, &format!("w{n}")).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    let (writes, commits) = (store.counts().writes() - writes, store.counts().commits() - commits);
    assert_eq!(writes, 400);
    assert!(commits <= 40, "{commits} commits for {writes} writes");
    assert_eq!(check_prefix(&store).await, 400);
}

/// One refusal in a group is one caller's affair.
#[tokio::test]
async fn a_refused_write_leaves_the_others_of_its_group_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(open(&folder.path().join("metadata.sqlite")));
    store.tenant_create(&tenant(), "", NOW).await.unwrap();
    let calls: Vec<_> = (0..200)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                // Every second one asks for an id that another credential may have taken.
                let (id, by) = if n % 2 == 0 { (format!("w{n}"), 1) } else { ("shared".to_owned(), n) };
                let by = format!("key:{by}").parse().unwrap();
                let registration = Registration::new(AgentSpec::new(id.parse().unwrap()), by, NOW);
                store.agent_register(&tenant(), registration).await.map_err(|e| e.code)
            })
        })
        .collect();
    let mut done = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(_) => done += 1,
            Err(code) => assert_eq!(code, ErrorCode::AgentExists),
        }
    }
    assert_eq!(done, 101);
    assert_eq!(check_prefix(&store).await, 101);
}

#[tokio::test]
async fn every_connection_syncs_each_commit_and_only_the_owner_reads_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/er/metadata.sqlite");
    let store = open(&path);
    store.tenant_create(&tenant(), "", NOW).await.unwrap();
    let settings = store.durability_settings().await.unwrap();
    assert_eq!(settings, ("wal".to_owned(), 2), "journal mode and synchronous=FULL");
    #[cfg(unix)]
    for side in ["", "-wal"] {
        let mut name = path.clone().into_os_string();
        name.push(side);
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(name).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600, "signing keys are in it");
    }
}

/// Every version's rows, as that version wrote them, are there after the upgrade.
#[tokio::test]
async fn a_store_of_every_older_version_is_brought_forward_with_its_rows() {
    for before in 1..=MIGRATIONS.len() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metadata.sqlite");
        // As a program that knew only the first steps left it.
        let old = rusqlite::Connection::open(&path).unwrap();
        old.execute_batch("PRAGMA application_id = 1094926957; PRAGMA journal_mode = WAL;").unwrap();
        old.execute_batch(
            "CREATE TABLE schema_version (version INTEGER NOT NULL PRIMARY KEY, name TEXT NOT NULL) STRICT",
        )
        .unwrap();
        for step in &MIGRATIONS[..before] {
            old.execute_batch(step.sql).unwrap();
            old.execute("INSERT INTO schema_version VALUES (?1, ?2)", (step.version, step.name)).unwrap();
            let rows = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("test-data/schema/v{}.sql", step.version));
            old.execute_batch(&fs::read_to_string(rows).unwrap()).unwrap();
        }
        drop(old);
        let store = open(&path);
        let t = tenant();
        let agent = store.agent_get(&t, &"w1".parse().unwrap()).await.unwrap().unwrap();
        assert_eq!((agent.spec.name.as_str(), agent.revision, agent.incarnation.0), ("Worker", 7, 3));
        assert_eq!(store.change_list(&t, 0, 10).await.unwrap().oldest, 7, "changes of older versions were never kept");
        let wanted = AgentFilter { capabilities_all: vec!["files.hash".parse().unwrap()], ..AgentFilter::default() };
        assert_eq!(store.agent_list(&t, &wanted, None, 10).await.unwrap(), [agent]);
        assert_eq!(store.subscription_list_all(&t).await.unwrap().len(), 3);
        assert_eq!(store.setting_get("instance_id").await.unwrap().as_deref(), Some("i1"));
        let spec = SubscriptionSpec::new("next".parse().unwrap(), ClassId::TOPICS, vec![]);
        let new = NewSubscription { spec, start: StartAt::New, created_by: "w1".parse().unwrap(), now: NOW };
        assert_eq!(store.subscription_create(&t, new).await.unwrap().row.id.0, 10, "numbers go on");
        if before >= 2 {
            assert_eq!(store.enrolment_key_list(&t, None, 10).await.unwrap().len(), 1);
            assert_eq!(store.family_list_revoked(&t, NOW, None, 10).await.unwrap(), ["f2"]);
            assert_eq!(store.signing_key_list().await.unwrap().len(), 1);
        }
        if before >= 3 {
            let rows = store.audit_list(&t, None, 10).await.unwrap();
            assert!(rows[0].follows(None), "{rows:?}");
        }
        if before >= 4 {
            contexts_of_version_4(&store, &t).await;
        }
        if before >= 5 {
            uploads_of_version_5(&store, &t).await;
        }
        if before >= 6 {
            repeats_of_version_6(&store, &t).await;
        }
        store.close().await.unwrap();
    }
}

async fn contexts_of_version_4(store: &SqliteMetadata, t: &TenantId) {
    let id = "0194f0c1-0000-7000-8000-000000000001".parse().unwrap();
    let row = store.context_get(t, &id).await.unwrap().unwrap();
    assert_eq!((row.rev, row.created_rev, row.access_rev, row.content.size), (10, 9, 10, 5));
    assert_eq!(row.content.place, ContentPlace::Inline("hello".into()));
    assert_eq!((row.spec.scope, row.spec.version.to_string().as_str()), (ContextScope::Group, "0.1.1"));
    let first = store.context_get_at(t, &id, 9).await.unwrap().unwrap();
    assert_eq!((first.content.place, first.spec.shares.len()), (ContentPlace::Blob, 1));
    assert_eq!(store.context_find(t, &"plans/alpha".parse().unwrap(), None).await.unwrap(), Some(id));
    assert_eq!(store.context_blobs_named(t, None, 9).await.unwrap().len(), 1);
    let groups = store.memberships(t, &"w1".parse().unwrap(), None).await.unwrap().groups;
    let viewer = Some(Viewer { agent: "w1".parse().unwrap(), groups });
    let filter = ContextFilter { viewer, labels: ["draft".to_owned()].into(), ..ContextFilter::default() };
    let listed = store.context_list(t, &filter, ListedAt::Now(NOW), Payloads::Read, None, 9).await.unwrap();
    assert_eq!(listed, [row]);
    let kinds: Vec<_> = store.change_list(t, 7, 9).await.unwrap().changes.into_iter().map(|c| c.what).collect();
    assert!(matches!(
        &kinds[..],
        [Changed::Group { .. }, Changed::Context { before: None, .. }, Changed::Context { .. }]
    ));
}

async fn uploads_of_version_5(store: &SqliteMetadata, t: &TenantId) {
    let rows = store.upload_list(t, None, 9).await.unwrap();
    let [open, complete] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((open.state, open.session, open.received_bytes, open.sha256), (StreamState::Open, 3, 2_097_152, None));
    assert_eq!((open.chunking.chunk_bytes, open.chunking.total_bytes), (1 << 20, None));
    let UploadTarget::Create { spec } = &open.target else { panic!("{open:?}") };
    assert_eq!((spec.ttl, spec.shares.len()), (Some(Duration::from_mins(1)), 1));
    let received = store.upload_received(t, &open.id).await.unwrap();
    assert_eq!(received.ranges().collect::<Vec<_>>(), [(0, 1), (2, 1)]);
    assert_eq!((complete.state, complete.rev, complete.chunking.total_bytes), (StreamState::Complete, 10, Some(5)));
    let UploadTarget::Update { change, if_rev } = &complete.target else { panic!("{complete:?}") };
    assert_eq!((change.description.as_deref(), &change.labels, *if_rev), (Some("the plan"), &None, Some(9)));
    assert_eq!(store.upload_chunk(t, &complete.id, 0).await.unwrap(), complete.sha256);
}

async fn repeats_of_version_6(store: &SqliteMetadata, t: &TenantId) {
    let id = "0194f0c1-0000-7000-8000-000000000001".parse().unwrap();
    let late = ContextWrite {
        condition: WriteCondition::IfRev(8),
        change: ContextChange::default(),
        content: None,
        by: "w1".parse().unwrap(),
        repeat: Some(RepeatKey { key: "late".to_owned(), body: Sha256Digest([0; 32]) }),
        stream: None,
        now: NOW,
    };
    let again = store.context_update(t, &id, late).await.unwrap();
    assert_eq!((again.duplicate, again.row.rev, again.row.content.size), (true, 9, 20_000));
}

/// An older program says so, and changes nothing.
#[tokio::test]
async fn a_store_of_a_newer_version_is_refused_with_a_clear_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metadata.sqlite");
    open(&path).close().await.unwrap();
    let newer = rusqlite::Connection::open(&path).unwrap();
    newer.execute("INSERT INTO schema_version VALUES (99, '0099_later.sql')", ()).unwrap();
    drop(newer);
    let before = fs::read(&path).unwrap();
    let error = SqliteMetadata::open(&SqliteConfig::new(&path)).unwrap_err();
    assert_eq!(error.code, ErrorCode::UnsupportedFeature);
    let known = MIGRATIONS.len();
    assert!(error.message.contains(&format!("version 99, and this program knows versions up to {known}")), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_damage() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metadata.sqlite");
    fs::write(
        &path,
        "not a database, and long enough to be read as the header of one: that takes a hundred bytes or so",
    )
    .unwrap();
    let error = SqliteMetadata::open(&SqliteConfig::new(&path)).unwrap_err();
    assert_eq!(error.code, ErrorCode::DataDamaged, "{error}");
}

/// META-23 with a real bound: the size that was set.
#[tokio::test]
async fn a_store_at_its_size_limit_refuses_and_takes_what_fits_again() {
    let folder = tempfile::tempdir().unwrap();
    let config =
        SqliteConfig { bytes_max: Some(256 << 10), ..SqliteConfig::new(folder.path().join("metadata.sqlite")) };
    let store = SqliteMetadata::open(&config).unwrap();
    store.tenant_create(&tenant(), "", NOW).await.unwrap();
    let mut ids = Vec::new();
    let refusal = loop {
        let id: AgentId = format!("w{}", ids.len()).parse().unwrap();
        let mut spec = AgentSpec::new(id.clone());
        spec.description = "x".repeat(1024);
        match store.agent_register(&tenant(), Registration::new(spec, "key:1".parse().unwrap(), NOW)).await {
            Ok(_) => ids.push(id),
            Err(e) => break e,
        }
        assert!(ids.len() < 1000, "the limit does not hold");
    };
    assert_eq!(refusal.code, ErrorCode::StorageFull, "{refusal}");
    assert_eq!(check_prefix(&store).await, ids.len() as u64);
    store.drill(Drill::Off).await.unwrap();
    register(&store, "one-more").await;
}

/// META-23 on a real file system of 2 MiB. Needs the right to mount; says so when it has not.
#[tokio::test]
async fn a_full_disk_refuses_reads_go_on_and_space_heals_it() {
    let folder = tempfile::tempdir().unwrap();
    let mount =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(folder.path()).output();
    if !mount.is_ok_and(|out| out.status.success()) {
        println!("skipped: a small file system cannot be mounted here");
        return;
    }
    let _unmount = Unmount(folder.path().to_owned());
    let store = open(&folder.path().join("metadata.sqlite"));
    store.tenant_create(&tenant(), "", NOW).await.unwrap();
    register(&store, "before").await;
    let ballast = folder.path().join("ballast");
    let mut bytes = 4 << 20;
    while bytes >= 512 {
        // As much as goes in, to the last half kilobyte.
        let old = fs::read(&ballast).unwrap_or_default();
        if fs::write(&ballast, vec![1; old.len() + bytes]).is_err() {
            let _ = fs::write(&ballast, &old);
            bytes /= 2;
        }
    }
    let mut refused = 0;
    for n in 0..50 {
        let id: AgentId = format!("w{n}").parse().unwrap();
        let mut spec = AgentSpec::new(id);
        spec.description = "x".repeat(1024);
        let answer = store.agent_register(&tenant(), Registration::new(spec, "key:1".parse().unwrap(), NOW)).await;
        if let Err(e) = answer {
            assert_eq!(e.code, ErrorCode::StorageFull, "{e}");
            refused += 1;
        }
    }
    assert!(refused > 0, "the disk was not full");
    let left = check_prefix(&store).await;
    fs::remove_file(&ballast).unwrap();
    assert_eq!(register(&store, "after").await, left + 1);
    store.close().await.unwrap();
    let store = open(&folder.path().join("metadata.sqlite"));
    assert_eq!(check_prefix(&store).await, left + 1);
    store.close().await.unwrap();
}

/// META-23 on a real read-only file system. (One with open files cannot be remounted; an open store's refusal is in the
/// contract suite.)
#[tokio::test]
async fn a_read_only_disk_is_named_at_the_opening_and_heals() {
    let folder = tempfile::tempdir().unwrap();
    let mount = |options: &str| {
        let mut command = std::process::Command::new("mount");
        command.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder.path());
        command.output().is_ok_and(|out| out.status.success())
    };
    if !mount("size=8m") {
        println!("skipped: a small file system cannot be mounted here");
        return;
    }
    let _unmount = Unmount(folder.path().to_owned());
    let store = open(&folder.path().join("metadata.sqlite"));
    store.tenant_create(&tenant(), "", NOW).await.unwrap();
    register(&store, "before").await;
    store.close().await.unwrap();
    assert!(mount("remount,ro"));
    let error = SqliteMetadata::open(&SqliteConfig::new(folder.path().join("metadata.sqlite"))).unwrap_err();
    assert_eq!(error.code, ErrorCode::StorageReadOnly, "{error}");
    assert!(mount("remount,rw"));
    let store = open(&folder.path().join("metadata.sqlite"));
    assert_eq!(register(&store, "after").await, 2);
    store.close().await.unwrap();
}

struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// Reads do not wait for writes, nor writes for readers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_go_on_while_a_group_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(open(&folder.path().join("metadata.sqlite")));
    store.tenant_create(&tenant(), "", NOW).await.unwrap();
    let writers: Vec<_> = (0..300)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { register(&store, &format!("w{n}")).await })
        })
        .collect();
    let (mut last, t) = (0, tenant());
    while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
        let read = tokio::time::timeout(Duration::from_secs(20), store.tenant_revision(&t));
        let revision = read.await.unwrap().unwrap();
        assert!(revision >= last, "revisions never go back");
        last = revision;
    }
    for writer in writers {
        writer.await.unwrap();
    }
}
