//! A client in Python: a process of its own that this load program drives and measures.
//!
//! The program is `bench/python/client.py`. It connects, says `ready`, waits for `go`, does one job, says what it did, and
//! stays until its input ends, so that its CPU time can be read. Filling, counting what is stored and judging are this
//! side's business, the same as for clients in Rust.

use std::{
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::{
    Outcome, Plan,
    meter::{Latencies, Meter},
    publish::per_operation,
};
use crate::case::Shape;

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python/client.py");

/// How long connecting and going may take, each.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a job may take beside its measured seconds.
const JOB_PATIENCE: Duration = Duration::from_secs(100);

/// What the program is to do.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Job {
    target: &'static str,
    role: &'static str,
    form: &'static str,
    address: String,
    /// Enrolment key, ours alone.
    pub(crate) key: Option<String>,
    payload: usize,
    window: usize,
    seconds: f64,
    /// Messages to receive.
    pub(crate) count: u64,
    /// File to upload, or where to download to.
    pub(crate) path: Option<PathBuf>,
    /// Context to download.
    pub(crate) context: Option<String>,
}

impl Job {
    /// The job of the plan's case, in its sizes.
    pub(crate) fn new(plan: &Plan) -> Result<Self> {
        Ok(Self {
            target: plan.target.name(),
            role: role(plan.case.shape).with_context(|| format!("{} is no case of Python's", plan.case.name))?,
            form: plan.form.name(),
            address: plan.address.clone(),
            key: None,
            payload: plan.case.payload,
            window: match plan.case.shape {
                Shape::Tasks { tasks } => tasks,
                _ => plan.window,
            },
            seconds: plan.duration.as_secs_f64(),
            count: 0,
            path: None,
            context: None,
        })
    }
}

/// What the program is told to do in a case of this shape.
const fn role(shape: Shape) -> Option<&'static str> {
    match shape {
        Shape::Pipelined => Some("publish"),
        Shape::Tasks { .. } => Some("tasks"),
        Shape::Backlog => Some("receive"),
        Shape::Upload => Some("upload"),
        Shape::Download => Some("download"),
        _ => None,
    }
}

/// What the program did.
#[derive(Debug, Deserialize)]
pub(crate) struct Done {
    /// Messages acknowledged or received, bytes moved.
    pub(crate) count: u64,
    /// Wakes of the binding's event loop meanwhile.
    pub(crate) wakes: Option<u64>,
    /// Digest of what was moved.
    #[serde(default)]
    pub(crate) sha256: String,
}

/// A program that is ready.
pub(crate) struct Client {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    job: Job,
}

impl Client {
    /// Starts it and waits until it has connected. Its complaints go to this process' error output.
    pub(crate) async fn start(plan: &Plan, mut job: Job) -> Result<Self> {
        if job.target == "acb" {
            job.key = Some(crate::acb::enrolment_key(&plan.address)?);
        }
        let mut child = Command::new(&plan.python)
            .arg(PROGRAM)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", plan.python.display()))?;
        let mut input = child.stdin.take().context("no input of the Python client")?;
        let output = BufReader::new(child.stdout.take().context("no output of the Python client")?).lines();
        // By its input, not its arguments: those are everybody's to read, and the job has a key.
        let line = serde_json::to_string(&job)? + "\n";
        input.write_all(line.as_bytes()).await?;
        let mut client = Self { child, input, output, job };
        let said = client.line(PATIENCE).await.context("the Python client did not connect")?;
        ensure!(said == "ready", "the Python client said {said} where ready was due");
        Ok(client)
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Result<u32> {
        self.child.id().context("the Python client has ended")
    }

    /// Lets it go and waits until it is done.
    pub(crate) async fn run(&mut self) -> Result<Done> {
        self.input.write_all(b"go\n").await?;
        let patience = JOB_PATIENCE + Duration::from_secs_f64(self.job.seconds);
        let said = self.line(patience).await.with_context(|| format!("the Python client's {}", self.job.role))?;
        serde_json::from_str(&said).with_context(|| format!("the Python client said {said}"))
    }

    /// Ends its input and waits until it has left in good order.
    pub(crate) async fn end(self) -> Result<()> {
        let Self { mut child, input, .. } = self;
        drop(input);
        let status = tokio::time::timeout(PATIENCE, child.wait()).await.context("the Python client does not end")??;
        ensure!(status.success(), "the Python client ended with {status}");
        Ok(())
    }

    async fn line(&mut self, within: Duration) -> Result<String> {
        let line = tokio::time::timeout(within, self.output.next_line()).await.context("took too long")??;
        line.context("it ended, see above")
    }
}

/// Publishes for the plan's time: pipelined, or in tasks that each wait for their ack.
pub(crate) async fn publish(plan: &Plan) -> Result<Outcome> {
    let mut python = Client::start(plan, Job::new(plan)?).await?;
    let meter = Meter::start_for(plan.server_pid, Some(python.pid()?))?;
    let done = python.run().await?;
    let measured = meter.stop()?;
    python.end().await?;
    let awaited = matches!(plan.case.shape, Shape::Tasks { .. });
    let value = awaited.then(|| per_operation(done.count, measured));
    Ok(Outcome {
        published: done.count,
        acked: done.count,
        delivered: 0,
        counted: done.count,
        value,
        wakes: done.wakes,
        latencies: Latencies::new(),
        measured,
    })
}

/// Receives and acknowledges `count` messages that are stored; ends when `settled` says that the server holds the acks.
pub(crate) async fn receive<F: Future<Output = Result<()>>>(plan: &Plan, count: u64, settled: F) -> Result<Outcome> {
    let mut job = Job::new(plan)?;
    job.count = count;
    let mut python = Client::start(plan, job).await?;
    let meter = Meter::start_for(plan.server_pid, Some(python.pid()?))?;
    let done = python.run().await?;
    settled.await?;
    let measured = meter.stop()?;
    python.end().await?;
    Ok(Outcome {
        published: count,
        acked: count,
        delivered: done.count,
        counted: done.count,
        value: None,
        wakes: done.wakes,
        latencies: Latencies::new(),
        measured,
    })
}

/// Imports the client in fresh interpreters until the time is up; the figure is the median in ms, without the
/// interpreter's own start.
pub(crate) async fn import(plan: &Plan) -> Result<Outcome> {
    const SCRIPT: &str = "import time; t = time.perf_counter_ns(); import acb_sdk; print(time.perf_counter_ns() - t)";
    let run = || async {
        let done = Command::new(&plan.python).args(["-c", SCRIPT]).output().await?;
        ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr).trim());
        let nanoseconds: u64 = String::from_utf8_lossy(&done.stdout).trim().parse()?;
        Ok(Duration::from_nanos(nanoseconds))
    };
    // The first one reads the files from the disk.
    run().await?;
    let meter = Meter::start(plan.server_pid)?;
    let until = Instant::now() + plan.duration;
    let (mut latencies, mut count) = (Latencies::new(), 0);
    while count == 0 || Instant::now() < until {
        latencies.record(run().await?);
        count += 1;
    }
    let measured = meter.stop()?;
    let value = latencies.percentile_us(50.0).map(|microseconds| microseconds / 1000.0);
    Ok(Outcome {
        published: count,
        acked: count,
        delivered: 0,
        counted: count,
        value,
        wakes: None,
        latencies,
        measured,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Case, Language, ROWS, Target};

    #[test]
    fn the_program_has_a_job_for_each_python_client_of_each_row() {
        let program = std::fs::read_to_string(PROGRAM).unwrap();
        for row in ROWS {
            let case = Case::named(row.case).unwrap();
            let Some(role) = role(case.shape).filter(|_| case.language == Language::Python) else { continue };
            let mut targets = vec![Target::Acb];
            if row.peer.language(case.language) == Language::Python {
                targets.push(row.peer.target());
            }
            for target in targets {
                let job = format!("    (\"{}\", \"{role}\"): ", target.name());
                assert!(program.contains(&job), "{} has no job {job}", row.label());
            }
        }
    }

    #[test]
    fn only_python_cases_have_a_python_client() {
        for row in ROWS {
            let rust = Case::named(row.case).unwrap().language == Language::Rust;
            assert!(!rust || row.peer.language(Language::Rust) == Language::Rust, "{}", row.label());
        }
    }
}
