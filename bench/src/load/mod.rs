//! The load program: one case against one running server, one JSON line.
//!
//! The loops live here once, generic over [`client`]'s traits, and are the same for every bus; what differs
//! between buses is only how a message is published, received, acknowledged. Budget of the harness itself:
//! below 0.15 µs of client CPU per pipelined message, paid by both sides alike.

pub(crate) mod client;
pub(crate) mod deliver;
pub(crate) mod exchange;
pub(crate) mod idle;
pub(crate) mod meter;
pub(crate) mod publish;
pub(crate) mod python;
pub(crate) mod transfer;

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};

use crate::{
    acb,
    case::{Case, Form, Language, Mode, Shape, Target},
    cli::LoadOptions,
    peers,
    record::LoadReport,
};
use meter::{Latencies, Measured};

/// Everything a load needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// What is spoken to.
    pub(crate) target: Target,
    /// The case.
    pub(crate) case: &'static Case,
    /// Level (ours only).
    pub(crate) mode: Mode,
    /// How the client publishes.
    pub(crate) form: Form,
    /// Open publishes, or unacknowledged deliveries in a backlog.
    pub(crate) window: usize,
    /// How long the measured part goes on.
    pub(crate) duration: Duration,
    /// `host:port` of the server.
    pub(crate) address: String,
    /// The server's process.
    pub(crate) server_pid: u32,
    /// In which language the client runs.
    pub(crate) language: Language,
    /// Interpreter of the Python clients.
    pub(crate) python: PathBuf,
    /// The file that goes up and down.
    pub(crate) source: Option<PathBuf>,
    /// Folder for files of this run.
    pub(crate) work_dir: Option<PathBuf>,
}

/// What a load did.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Publishes made.
    pub(crate) published: u64,
    /// Publishes acknowledged.
    pub(crate) acked: u64,
    /// Deliveries or replies.
    pub(crate) delivered: u64,
    /// What one message is for the rate and the CPU figures: publishes, or deliveries.
    pub(crate) counted: u64,
    /// The case's figure where it is not `counted` per second.
    pub(crate) value: Option<f64>,
    /// Wakes of a binding's event loop, where a binding ran.
    pub(crate) wakes: Option<u64>,
    /// Latencies, where the case has them.
    pub(crate) latencies: Latencies,
    /// Time and CPU of the measured part.
    pub(crate) measured: Measured,
}

/// Runs the load and prints its report.
pub(crate) fn main(options: &LoadOptions) -> Result<()> {
    let case = Case::named(&options.case).with_context(|| format!("no case is named {}", options.case))?;
    ensure!(options.seconds > 0.0, "--seconds must be above 0");
    ensure!(options.window > 0 || !case.has_window(), "--window must be above 0");
    let plan = Plan {
        target: options.target,
        case,
        mode: options.mode,
        form: options.form,
        window: options.window,
        duration: Duration::from_secs_f64(options.seconds),
        address: options.address.clone(),
        server_pid: options.server_pid,
        language: options.language,
        python: options.python.clone(),
        source: options.source.clone(),
        work_dir: options.work_dir.clone(),
    };
    // As our server does, and Redis: the first touch of a huge page stops this program for up to 7 ms on a virtual machine.
    // Linux only, and so is the benchmark. What it starts is under the same rule; interpreters decide for themselves.
    if options.language == Language::Rust {
        rustix::thread::disable_transparent_huge_pages(true)?;
    }
    let runtime = match options.workers {
        0 => tokio::runtime::Builder::new_current_thread().enable_all().build()?,
        workers => tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?,
    };
    let (outcome, stored) = runtime.block_on(async {
        // As a task, not as the root future: a current-thread runtime polls its root specially.
        tokio::spawn(async move {
            match plan.target {
                // Boxed: the futures of whole clients are large, and each is made once.
                Target::Acb => Box::pin(acb::load(plan)).await,
                Target::Nats => Box::pin(peers::nats(plan)).await,
                Target::Redis => Box::pin(peers::redis(plan)).await,
                Target::Files => Ok((transfer::files(&plan).await?, None)),
            }
        })
        .await?
    })?;
    let report = report(options, case, &outcome, stored)?;
    println!("{}", serde_json::to_string(&report)?);
    // Thousands of connections need not be closed one by one.
    std::process::exit(0)
}

/// Checks the counts and makes the report. A run that lost or doubled something is no figure.
fn report(options: &LoadOptions, case: &Case, outcome: &Outcome, stored: Option<u64>) -> Result<LoadReport> {
    check(case, outcome, stored)?;
    let measured = outcome.measured;
    let seconds = measured.elapsed.as_secs_f64();
    let each = |time: Duration| time.as_secs_f64() * 1e6 / outcome.counted as f64;
    Ok(LoadReport {
        target: options.target,
        case: case.name.to_owned(),
        mode: options.mode,
        form: options.form,
        window: options.window,
        value: outcome.value.unwrap_or(outcome.counted as f64 / seconds),
        published: outcome.published,
        acked: outcome.acked,
        stored,
        delivered: outcome.delivered,
        elapsed_s: seconds,
        server_cpu_us: each(measured.server_cpu),
        client_cpu_us: each(measured.client_cpu),
        p50_us: outcome.latencies.percentile_us(50.0),
        p99_us: outcome.latencies.percentile_us(99.0),
        wakes_per_1000: outcome.wakes.map(|wakes| wakes as f64 * 1000.0 / outcome.counted as f64),
        foreign_cores: measured.foreign_cores,
        kernel_cores: measured.kernel_cores,
        steal_cores: measured.steal_cores,
    })
}

/// Stored = acked = published, and delivered = published times subscriptions.
fn check(case: &Case, outcome: &Outcome, stored: Option<u64>) -> Result<()> {
    ensure!(outcome.counted > 0, "nothing happened in the measured time");
    ensure!(outcome.acked == outcome.published, "{} published but {} acked", outcome.published, outcome.acked);
    if let Some(stored) = stored {
        ensure!(stored == outcome.acked, "{} acked but {stored} stored", outcome.acked);
    }
    let deliveries = match case.shape {
        Shape::Backlog
        | Shape::RequestReply { .. }
        | Shape::OpenLoop { .. }
        | Shape::Download
        | Shape::ContextGets { .. } => outcome.published,
        Shape::Live { subscriptions } => outcome.published * subscriptions as u64,
        Shape::ContextWatch { watchers } => outcome.published * watchers as u64,
        Shape::Pipelined
        | Shape::OneInFlight { .. }
        | Shape::Idle { .. }
        | Shape::Tasks { .. }
        | Shape::Upload
        | Shape::ContextUpdates { .. }
        | Shape::ContextCreates { .. }
        | Shape::Import => 0,
    };
    ensure!(
        outcome.delivered == deliveries,
        "{} published, {deliveries} deliveries expected, {} seen",
        outcome.published,
        outcome.delivered
    );
    Ok(())
}

/// Lets the disk come to rest between a fill and a measured part: what the fill wrote is not the
/// measurement's business.
pub(crate) async fn settle_disk() -> Result<()> {
    let done = tokio::task::spawn_blocking(|| Command::new("sync").status()).await?.context("cannot run sync")?;
    ensure!(done.success(), "sync failed");
    tokio::time::sleep(Duration::from_millis(300)).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(published: u64, acked: u64, delivered: u64) -> Outcome {
        Outcome {
            published,
            acked,
            delivered,
            counted: published,
            value: None,
            wakes: None,
            latencies: Latencies::new(),
            measured: Measured::default(),
        }
    }

    fn checked(case: &str, outcome: &Outcome, stored: Option<u64>) -> Result<()> {
        check(Case::named(case).unwrap(), outcome, stored)
    }

    #[test]
    fn lost_acks_and_lost_messages_are_refused() {
        assert!(checked("publish-256-pipelined", &outcome(10, 10, 0), Some(10)).is_ok());
        assert!(checked("publish-256-pipelined", &outcome(10, 9, 0), Some(9)).is_err());
        assert!(checked("publish-256-pipelined", &outcome(10, 10, 0), Some(9)).is_err());
        assert!(checked("publish-256-pipelined", &outcome(0, 0, 0), Some(0)).is_err());
    }

    #[test]
    fn each_subscription_gets_each_message_once() {
        assert!(checked("live-256-8subs", &outcome(10, 10, 80), Some(10)).is_ok());
        assert!(checked("live-256-8subs", &outcome(10, 10, 81), Some(10)).is_err());
        assert!(checked("deliver-256-backlog", &outcome(10, 10, 9), Some(10)).is_err());
        assert!(checked("request-reply-1x1", &outcome(10, 10, 10), None).is_ok());
        assert!(checked("context-watch-1000", &outcome(10, 10, 10_000), Some(10)).is_ok());
        assert!(checked("context-watch-1000", &outcome(10, 10, 9_999), Some(10)).is_err());
        assert!(checked("download-1g", &outcome(1000, 1000, 999), Some(1000)).is_err());
    }
}
