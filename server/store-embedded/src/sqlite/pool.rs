//! Who touches SQLite: one writer thread and a few reader threads, each with its own connection and a bounded queue.
//!
//! The writer commits in groups: it takes what is queued, runs each write under a savepoint of one transaction, commits
//! once, and only then answers. So a write costs its share of a sync, and nobody hears of what a power cut takes back.
//! There is no waiting for more: while one group commits, the next one gathers.
//!
//! Reader threads rather than a runtime's blocking pool, because callers live on several runtimes and a bound must hold
//! over all of them.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use acb_ports::StoreError;
use acb_types::ErrorCode;
use parking_lot::{Mutex, RwLock};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::{
    change::{self, Signals},
    error::{Failure, Result},
};

/// Writes that wait for the writer; then callers wait.
pub const WRITE_QUEUE_MAX: usize = 1024;
/// Writes of one transaction.
pub const WRITE_GROUP_MAX: usize = 256;
/// Reads that wait for a reader; then callers wait.
pub const READ_QUEUE_MAX: usize = 1024;
/// Statements that a connection keeps prepared.
const STATEMENTS_CACHED: usize = 128;

/// One operation on its way through a queue.
trait Job: Send {
    /// Whether it stands outside the group's transaction.
    fn is_control(&self) -> bool;
    /// Does the work. Answers whether it is to be kept.
    fn run(&mut self, connection: &Connection) -> Outcome;
    /// Tells the caller: the job's own answer, or why its transaction failed.
    fn answer(self: Box<Self>, transaction: std::result::Result<(), &StoreError>);
}

/// What a job came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Failed,
    /// As failed, and nobody knows what reached the disk.
    Doubtful,
}

struct Typed<T, F> {
    work: Option<F>,
    control: bool,
    folder: Arc<Path>,
    operation: &'static str,
    result: Option<std::result::Result<T, StoreError>>,
    reply: oneshot::Sender<std::result::Result<T, StoreError>>,
}

impl<T: Send, F: FnOnce(&Connection) -> Result<T> + Send> Job for Typed<T, F> {
    fn is_control(&self) -> bool {
        self.control
    }

    fn run(&mut self, connection: &Connection) -> Outcome {
        let Some(work) = self.work.take() else { return Outcome::Failed };
        let result = work(connection);
        let outcome = match &result {
            Ok(_) => Outcome::Done,
            Err(e) if e.is_doubtful() => Outcome::Doubtful,
            Err(_) => Outcome::Failed,
        };
        self.result = Some(result.map_err(|e| e.into_store(self.operation, &self.folder)));
        outcome
    }

    fn answer(self: Box<Self>, transaction: std::result::Result<(), &StoreError>) {
        let result = match (transaction, self.result) {
            (Ok(()), Some(result)) => result,
            (Ok(()), None) => Err(StoreError::new(ErrorCode::Internal, self.operation, "the write was not run")),
            // A refusal stands, whatever became of the others.
            (Err(_), Some(Err(own))) => Err(own),
            (Err(e), _) => Err(StoreError::new(e.code, self.operation, e.message.clone())),
        };
        // Who does not wait any more does not want to know.
        let _ = self.reply.send(result);
    }
}

type Queued = Box<dyn Job>;

/// A queue with threads at its end.
#[derive(Debug)]
pub(super) struct Lane {
    queue: RwLock<Option<mpsc::Sender<Queued>>>,
    /// Every thread holds a sender; when all are gone, `recv` says so.
    gone: tokio::sync::Mutex<mpsc::Receiver<()>>,
    folder: Arc<Path>,
}

impl Lane {
    /// Puts an operation into the queue and waits for its answer.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> std::result::Result<T, StoreError> {
        self.queue(operation, false, work).await
    }

    /// As [`Self::call`], outside any transaction: for what is about the connection and not about rows.
    pub(super) async fn control<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> std::result::Result<T, StoreError> {
        self.queue(operation, true, work).await
    }

    async fn queue<T: Send + 'static>(
        &self,
        operation: &'static str,
        control: bool,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> std::result::Result<T, StoreError> {
        let closed = || StoreError::new(ErrorCode::Unavailable, operation, "the metadata store is closed");
        let queue = self.queue.read().clone().ok_or_else(closed)?;
        let (reply, answer) = oneshot::channel();
        let folder = Arc::clone(&self.folder);
        let job = Typed { work: Some(work), control, folder, operation, result: None, reply };
        queue.send(Box::new(job)).await.map_err(|_| closed())?;
        drop(queue);
        answer.await.map_err(|_| closed())?
    }

    /// Takes no more, lets the threads end what is queued, and waits for them.
    pub(super) async fn close(&self) {
        self.queue.write().take();
        let _ = self.gone.lock().await.recv().await;
    }
}

fn lane(max: usize, folder: &Arc<Path>) -> (Lane, mpsc::Receiver<Queued>, mpsc::Sender<()>) {
    let (queue, jobs) = mpsc::channel(max);
    let (alive, gone) = mpsc::channel(1);
    let lane = Lane { queue: RwLock::new(Some(queue)), gone: gone.into(), folder: Arc::clone(folder) };
    (lane, jobs, alive)
}

fn start(name: String, body: impl FnOnce() + Send + 'static) -> Result<()> {
    let started = thread::Builder::new().name(name).spawn(body);
    started.map(|_| ()).map_err(|e| Failure::Refused(ErrorCode::Unavailable, format!("no thread for SQLite: {e}")))
}

/// How much the writer has done since it was opened.
#[derive(Debug, Default)]
pub struct WriteCounts {
    writes: AtomicU64,
    commits: AtomicU64,
}

impl WriteCounts {
    /// Operations that were answered, refused ones too.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// Transactions that were committed: each cost one sync.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }
}

/// Starts the writer thread.
pub(super) fn writer(
    connection: Connection,
    folder: PathBuf,
    counts: Arc<WriteCounts>,
    signals: Arc<Signals>,
) -> Result<Lane> {
    let folder: Arc<Path> = folder.into();
    let (lane, mut jobs, alive) = lane(WRITE_QUEUE_MAX, &folder);
    connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    start("acb-meta-write".into(), move || {
        let mut group = Vec::with_capacity(WRITE_GROUP_MAX);
        let mut poisoned: Option<StoreError> = None;
        while jobs.blocking_recv_many(&mut group, WRITE_GROUP_MAX) > 0 {
            for mut control in group.extract_if(.., |job| job.is_control()) {
                control.run(&connection);
                control.answer(Ok(()));
            }
            let outcome = match &poisoned {
                Some(e) => Err(StoreError::new(e.code, e.operation, e.message.clone())),
                None => commit_group(&connection, &mut group).map_err(|failure| {
                    let doubtful = failure.is_doubtful();
                    let error = failure.into_store("metadata.commit", &folder);
                    tracing::warn!(code = %error.code, source = ?error.source, "a group of metadata writes failed");
                    // Full and read-only heal; after anything else nobody knows what is on the disk.
                    if doubtful && error.code == ErrorCode::StorageFailed {
                        poisoned = Some(StoreError::new(error.code, error.operation, error.message.clone()));
                    }
                    error
                }),
            };
            match outcome {
                // Told before anybody is answered: who hears the answer may rely on the wake.
                Ok(()) => signals.committed(),
                Err(_) => change::raised_back_to(0),
            }
            counts.commits.fetch_add(u64::from(outcome.is_ok() && !group.is_empty()), Ordering::Relaxed);
            counts.writes.fetch_add(group.len() as u64, Ordering::Relaxed);
            for job in group.drain(..) {
                job.answer(outcome.as_ref().copied());
            }
        }
        // Leaves one file behind instead of three, when nothing is in the way; the log is replayed otherwise.
        let _ = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
        drop(connection);
        drop(alive);
    })?;
    Ok(lane)
}

/// Runs a group as one transaction. On an error nothing of the group is kept.
fn commit_group(connection: &Connection, group: &mut [Queued]) -> Result<()> {
    if group.is_empty() {
        return Ok(());
    }
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute(())?;
    let outcome = run_group(connection, group);
    if outcome.is_err() && !connection.is_autocommit() {
        // If this fails too, the next BEGIN says so.
        let _ = connection.execute_batch("ROLLBACK");
    }
    outcome
}

fn run_group(connection: &Connection, group: &mut [Queued]) -> Result<()> {
    for job in group {
        connection.prepare_cached("SAVEPOINT job")?.execute(())?;
        let raised = change::raised();
        match job.run(connection) {
            Outcome::Done => {}
            Outcome::Failed | Outcome::Doubtful if connection.is_autocommit() => {
                // SQLite gave the whole transaction up, the jobs before this one too: a full disk does that.
                return Err(Failure::Sqlite(rusqlite::Error::SqliteFailure(
                    rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL),
                    None,
                )));
            }
            Outcome::Failed => {
                connection.prepare_cached("ROLLBACK TO job")?.execute(())?;
                change::raised_back_to(raised);
            }
            Outcome::Doubtful => {
                return Err(Failure::Sqlite(rusqlite::Error::SqliteFailure(
                    rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR),
                    None,
                )));
            }
        }
        connection.prepare_cached("RELEASE job")?.execute(())?;
    }
    connection.prepare_cached("COMMIT")?.execute(())?;
    Ok(())
}

/// Starts reader threads, one per connection. They share a queue.
pub(super) fn readers(connections: Vec<Connection>, folder: PathBuf) -> Result<Lane> {
    let folder: Arc<Path> = folder.into();
    let (lane, jobs, alive) = lane(READ_QUEUE_MAX, &folder);
    let jobs = Arc::new(Mutex::new(jobs));
    for (n, connection) in connections.into_iter().enumerate() {
        let (jobs, alive) = (Arc::clone(&jobs), alive.clone());
        connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
        start(format!("acb-meta-read-{n}"), move || {
            loop {
                // The lock is held while this one waits, and given up before it works: the next one waits then.
                let Some(mut job) = jobs.lock().blocking_recv() else { break };
                job.run(&connection);
                job.answer(Ok(()));
            }
            drop(connection);
            drop(alive);
        })?;
    }
    Ok(lane)
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use super::*;

    fn insert(c: &Connection, n: i64) -> Result<()> {
        c.execute("INSERT INTO t VALUES (?1)", [n])?;
        Ok(())
    }

    fn lane_of_one_table() -> (tempfile::TempDir, Lane, Arc<WriteCounts>) {
        let folder = tempfile::tempdir().unwrap();
        let connection = Connection::open(folder.path().join("t.sqlite")).unwrap();
        connection.execute_batch("CREATE TABLE t (n INTEGER)").unwrap();
        let counts = Arc::<WriteCounts>::default();
        let lane = writer(connection, folder.path().to_owned(), Arc::clone(&counts), Arc::default()).unwrap();
        (folder, lane, counts)
    }

    /// Holds the writer back until all calls are queued, so that they are one group. They are queued only when the
    /// writer is held: with the hold itself they would be taken in parts.
    async fn in_one_group<T>(lane: &Lane, calls: impl Future<Output = T>) -> T {
        let (release, held) = std::sync::mpsc::sync_channel::<()>(0);
        let (begun, is_held) = tokio::sync::oneshot::channel();
        let hold = lane.control("hold", move |_| {
            begun.send(()).unwrap();
            let _ = held.recv();
            Ok(())
        });
        let queue = async {
            is_held.await.unwrap();
            // `biased`: all calls are in the queue before the writer may go on.
            let (out, ()) = tokio::join!(biased; calls, async { drop(release) });
            out
        };
        let (held, out) = tokio::join!(hold, queue);
        held.unwrap();
        out
    }

    async fn rows(lane: &Lane) -> Vec<i64> {
        let read = lane.control("rows", |c| {
            let mut query = c.prepare("SELECT n FROM t ORDER BY n")?;
            let rows = query.query_map((), |row| row.get(0))?;
            Ok(rows.collect::<std::result::Result<_, _>>()?)
        });
        read.await.unwrap()
    }

    #[tokio::test]
    async fn a_write_that_fails_half_way_leaves_nothing_and_the_others_of_its_group_stay() {
        let (_folder, lane, counts) = lane_of_one_table();
        let half = |c: &Connection| {
            insert(c, 2)?;
            super::super::error::refuse::<()>(ErrorCode::InvalidArgument, "no")
        };
        let calls = async {
            tokio::join!(
                lane.call("one", |c| insert(c, 1)),
                lane.call("half", half),
                lane.call("three", |c| insert(c, 3))
            )
        };
        let (one, half, three) = in_one_group(&lane, calls).await;
        one.unwrap();
        three.unwrap();
        assert_eq!(half.unwrap_err().code, ErrorCode::InvalidArgument);
        assert_eq!(rows(&lane).await, [1, 3]);
        assert_eq!((counts.writes(), counts.commits()), (3, 1));
    }

    #[tokio::test]
    async fn after_a_doubtful_write_nothing_more_is_written() {
        let (_folder, lane, _) = lane_of_one_table();
        lane.call("one", |c| insert(c, 1)).await.unwrap();
        let doubtful = |c: &Connection| {
            insert(c, 2)?;
            let failed = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC);
            Err::<(), _>(rusqlite::Error::SqliteFailure(failed, None).into())
        };
        let calls = async { tokio::join!(lane.call("doubtful", doubtful), lane.call("beside", |c| insert(c, 3))) };
        let (doubtful, beside) = in_one_group(&lane, calls).await;
        assert_eq!(doubtful.unwrap_err().code, ErrorCode::StorageFailed);
        assert_eq!(beside.unwrap_err().code, ErrorCode::StorageFailed, "nobody knows what became of it");
        assert_eq!(lane.call("later", |c| insert(c, 4)).await.unwrap_err().code, ErrorCode::StorageFailed);
        assert_eq!(rows(&lane).await, [1], "reads go on");
    }

    #[tokio::test]
    async fn a_closed_lane_ends_what_is_queued_and_takes_no_more() {
        let (_folder, lane, counts) = lane_of_one_table();
        let (one, two, ()) =
            tokio::join!(lane.call("one", |c| insert(c, 1)), lane.call("two", |c| insert(c, 2)), lane.close());
        assert!(one.is_ok() && two.is_ok());
        assert_eq!(counts.writes(), 2);
        assert_eq!(lane.call("late", |c| insert(c, 3)).await.unwrap_err().code, ErrorCode::Unavailable);
        lane.close().await;
    }
}
