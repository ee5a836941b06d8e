//! Arguments of the subcommands.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::case::{Form, Language, Mode, Target};

/// Measures ACB and its peers side by side.
#[derive(Debug, Parser)]
#[command(name = "acb-bench", version)]
pub(crate) struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the rows, peer and ours interleaved, and write results and document.
    Run(RunOptions),
    /// Run one load against a server that is up, and print one JSON line (started by `run`).
    Load(LoadOptions),
    /// Write the document again from the stored results.
    Report(ReportOptions),
    /// Print the rows with their floors.
    List,
    /// Look at the machine by itself for some seconds, and print one JSON line (started by `run` before each pair).
    Calm,
}

/// Which sides of a row are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Side {
    /// Peer and ours: the only choice that yields ratios.
    Both,
    /// Ours alone.
    Acb,
    /// The peer alone.
    Peer,
}

/// Options of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunOptions {
    /// ACB alone, short: server CPU per message against the committed figures; warns, never fails.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only these cases (comma separated); results then go to partial.json and the document stays.
    #[arg(long, value_delimiter = ',')]
    pub(crate) cases: Vec<String>,
    /// Only rows against these peers (comma separated); the same restriction.
    #[arg(long, value_delimiter = ',')]
    pub(crate) peers: Vec<String>,
    /// Pairs per row, at least 5 for figures that are kept (quick: runs per case, 2).
    #[arg(long)]
    pub(crate) pairs: Option<usize>,
    /// Measured seconds per run [default: 3, quick: 1.5].
    #[arg(long)]
    pub(crate) seconds: Option<f64>,
    /// Which sides run; anything but `both` prints figures and keeps none.
    #[arg(long, value_enum, default_value = "both")]
    pub(crate) side: Side,
    /// The server under test.
    #[arg(long, default_value = "target/release/acb-server")]
    pub(crate) acb_server: PathBuf,
    /// Where scripts/bench-peers.sh puts the peers.
    #[arg(long, default_value = "bench/.peers")]
    pub(crate) peers_dir: PathBuf,
    /// Stores of all servers, on the disk under test (tmpfs is refused).
    #[arg(long, default_value = "target/bench-data")]
    pub(crate) data_dir: PathBuf,
    /// Where scripts/bench.sh puts the Python clients.
    #[arg(long, default_value = "target/bench-python/bin/python")]
    pub(crate) python: PathBuf,
    /// Where results go.
    #[arg(long, default_value = "bench/results")]
    pub(crate) results_dir: PathBuf,
    /// The document whose marked part is replaced.
    #[arg(long, default_value = "docs/benchmarks.md")]
    pub(crate) document: PathBuf,
}

/// Options of `report`.
#[derive(Debug, Args)]
pub(crate) struct ReportOptions {
    /// Where results are.
    #[arg(long, default_value = "bench/results")]
    pub(crate) results_dir: PathBuf,
    /// The document whose marked part is replaced.
    #[arg(long, default_value = "docs/benchmarks.md")]
    pub(crate) document: PathBuf,
}

/// Options of `load`.
#[derive(Debug, Args)]
pub(crate) struct LoadOptions {
    /// What is spoken to.
    #[arg(long, value_enum)]
    pub(crate) target: Target,
    /// Name of the case.
    #[arg(long)]
    pub(crate) case: String,
    /// Level (ours only).
    #[arg(long, value_enum, default_value = "written")]
    pub(crate) mode: Mode,
    /// How the client publishes.
    #[arg(long, value_enum, default_value = "usual")]
    pub(crate) form: Form,
    /// Open publishes, or unacknowledged deliveries in a backlog.
    #[arg(long, default_value_t = 512)]
    pub(crate) window: usize,
    /// Measured seconds; a backlog is sized for it.
    #[arg(long, default_value_t = 3.0)]
    pub(crate) seconds: f64,
    /// `host:port` of the server.
    #[arg(long)]
    pub(crate) address: String,
    /// Process id of the server, for its CPU time and memory.
    #[arg(long)]
    pub(crate) server_pid: u32,
    /// In which language the client runs.
    #[arg(long, value_enum, default_value = "rust")]
    pub(crate) language: Language,
    /// Interpreter of the Python clients.
    #[arg(long, default_value = "target/bench-python/bin/python")]
    pub(crate) python: PathBuf,
    /// The file that goes up and down; beside it, with `.sha256` at its end, its digest.
    #[arg(long)]
    pub(crate) source: Option<PathBuf>,
    /// Folder for files of this run, on the disk under test.
    #[arg(long)]
    pub(crate) work_dir: Option<PathBuf>,
    /// Worker threads of the client's runtime; 0 is a current-thread runtime.
    #[arg(long, default_value_t = 0)]
    pub(crate) workers: usize,
}
